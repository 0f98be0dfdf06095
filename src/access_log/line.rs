//! The lines of connections, requests and messages, as fields in the order of [`LogField`](crate::log_field::LogField).
//!
//! Formats no value and writes nothing (`schema.rs` does). Invariant: every field of the table is written here, for the
//! lines that the table names, in its order; a field that is absent is left out. New fields may be added; a field never
//! changes its meaning.

use std::net::SocketAddr;
use std::sync::Arc;

use super::schema::{FieldSink, LineWriter, Schema};
use super::{ConnectionLine, RequestLine};
use crate::http::date::{Rfc3339, rfc3339};
use crate::log_field::{LogField as Field, LogFields};
use crate::outcome::{ClientMove, Ended};
use crate::split::ChosenBy;

/// Appends the line of a connection, newline included; `time`: now, as text.
pub fn write(out: &mut String, connection: &ConnectionLine, schema: Schema, time: &str) {
    LineWriter::line(out, schema, |line| of_connection(line, connection, time));
}

/// Appends the line of a request, newline included; `time`: now, as text.
pub fn write_request(out: &mut String, request: &RequestLine, schema: Schema, time: &str) {
    LineWriter::line(out, schema, |line| of_request(line, request, time));
}

/// Appends the line of a message about the process, newline included; `unix_us`: now.
pub fn write_message(out: &mut String, level: &str, message: &str, json: bool, unix_us: u64) {
    LineWriter::line(out, Schema { json, fields: LogFields::EVERY }, |line| {
        line.text(Field::Time, &rfc3339(unix_us / 1_000));
        line.text(Field::Level, level);
        line.text(Field::Msg, message);
    });
}

/// Gives the fields of a connection to `line`.
pub(super) fn of_connection(line: &mut impl FieldSink, c: &ConnectionLine, time: &str) {
    begin(line, "connection", c.started_unix_us, time);
    line.number(Field::Id, c.id);
    line.text(Field::Listener, &c.listener);
    client(line, c.client);
    line.text_if(Field::Peer, c.peer.map(|peer| peer.to_string()).as_deref());
    line.text_if(Field::Sni, c.sni.as_ref().map(|name| name.as_str()).or(c.odd_name.as_deref()));
    line.flag_if(Field::Ech, c.ech);
    split(line, c.split.as_ref());
    line.text_if(Field::Pool, c.pool.as_deref());
    line.text_if(Field::Range, c.range.as_deref());
    line.text_if(Field::Backend, c.backend.as_deref());
    line.text_if(Field::Reason, c.reason.map(|reason| reason.word()));
    line.number_if(Field::Attempts, (c.attempts > 0).then_some(c.attempts.into()));
    line.number_if(Field::ConnectUs, c.connect_us);
    line.number(Field::DurationUs, c.duration_us);
    line.number(Field::BytesUp, c.bytes_up);
    line.number(Field::BytesDown, c.bytes_down);
    ended(line, c.ended);
    if let Some(tls) = &c.tls {
        line.text(Field::Tls, tls.version);
        line.text_if(Field::Cipher, tls.cipher);
        line.flag_if(Field::Resumed, tls.resumed);
        line.text_if(Field::Subject, tls.subject.as_deref());
    }
    line.text_if(Field::Alert, c.alert.map(|alert| alert.to_string()).as_deref());
    end(line, c.moved.as_ref(), c.sample);
}

/// Gives the fields of a request to `line`.
pub(super) fn of_request(line: &mut impl FieldSink, r: &RequestLine, time: &str) {
    begin(line, "request", r.started_unix_us, time);
    line.bare(Field::Request, r.request);
    line.text_if(Field::RequestId, r.request_id.as_deref());
    line.number(Field::Id, r.id);
    line.text(Field::Listener, &r.listener);
    client(line, r.client);
    line.text_if(Field::Method, r.method.as_deref());
    line.text_if(Field::Host, r.host.as_deref());
    line.text_if(Field::Path, r.path.as_deref());
    line.text_if(Field::UserAgent, r.user_agent.as_deref());
    if let Some(hash) = r.session {
        line.bare(Field::Session, format_args!("{hash:016x}"));
    }
    line.number_if(Field::Status, r.status.map(u64::from));
    line.number_if(Field::Route, r.route);
    split(line, r.split.as_ref());
    line.text_if(Field::Pool, r.pool.as_deref());
    line.text_if(Field::Backend, r.backend.as_deref());
    line.text_if(Field::Reason, r.reason.map(|reason| reason.word()));
    line.text_if(Field::Cookie, r.cookie);
    line.flag_if(Field::Reused, r.reused);
    line.number_if(Field::FirstByteUs, r.first_byte_us);
    line.number(Field::DurationUs, r.duration_us);
    line.number(Field::BytesUp, r.bytes_up);
    line.number(Field::BytesDown, r.bytes_down);
    ended(line, r.ended);
    line.text_if(Field::Refused, r.refused);
    line.text_if(Field::Subject, r.subject.as_deref());
    end(line, r.moved.as_ref(), r.sample);
}

fn split(line: &mut impl FieldSink, chosen: Option<&(Arc<str>, ChosenBy)>) {
    line.text_if(Field::Split, chosen.map(|(split, _)| &**split));
    line.text_if(Field::SplitBy, chosen.map(|(_, by)| by.word()));
}

fn begin(line: &mut impl FieldSink, kind: &str, started_unix_us: u64, time: &str) {
    line.text(Field::Time, time);
    line.text(Field::Level, "info");
    line.text(Field::Kind, kind);
    line.bare(Field::Started, Rfc3339(started_unix_us / 1_000));
}

fn client(line: &mut impl FieldSink, client: Option<SocketAddr>) {
    match client {
        Some(client) => line.bare(Field::Client, client),
        None => line.text(Field::Client, "unix"),
    }
}

fn ended(line: &mut impl FieldSink, ended: Ended) {
    line.text(Field::Ended, ended.word());
    line.text(Field::Fault, ended.fault().word());
}

fn end(line: &mut impl FieldSink, moved: Option<&ClientMove>, sample: u32) {
    if let Some(ClientMove { from, cause }) = moved {
        line.text(Field::Moved, cause.word());
        line.text_if(Field::From, from.as_deref());
    }
    line.number_if(Field::Sample, (sample > 1).then_some(sample.into()));
}

#[cfg(test)]
mod tests;
