//! [`write_response_head`]: writes the head of an HTTP/2 response as the HTTP/1.1 head that `head.rs` reads.
//!
//! Judges nothing: the reader does. What HTTP/1.1 says beside the fields is added: a length or chunks, if the response
//! has a body and does not say how long it is, and a switch to a WebSocket in place of the 200 that accepts an extended
//! CONNECT (RFC 8441 §5). Names stay in lower case.
//!
//! Invariant: a head that the reader accepts has the status and the fields of the stream, in order and no others, but
//! for the framing; a switch is written only for a request that has asked for one.

use http::StatusCode;
use http::header::{CONTENT_LENGTH, HeaderMap, TRAILER};
use http::response::Parts;

use super::Version;
use super::framing::forbids_framing;
use super::http2_head::{StreamBody, write_field};

/// What the form of a response depends on.
#[derive(Debug, Clone, Copy)]
pub struct AskedOfStream {
    /// The request is a HEAD: its response has no body.
    pub is_head: bool,
    /// The version in which the response is written; HTTP/1.0 has no chunks.
    pub version: Version,
    /// Sec-WebSocket-Accept for the key of a request that asks for a WebSocket; `None`: it does not.
    pub accept: Option<[u8; 28]>,
}

/// Appends the head of a final response, and returns the form of what follows. `ends`: the stream has ended with it.
/// `None`: no such response may come on a stream (RFC 9113 §8.6).
pub fn write_response_head(out: &mut Vec<u8>, parts: &Parts, ends: bool, asked: AskedOfStream) -> Option<StreamBody> {
    if let Some(accept) = asked.accept.filter(|_| parts.status.is_success()) {
        write_status(out, StatusCode::SWITCHING_PROTOCOLS);
        write_fields(out, &parts.headers, true);
        out.extend_from_slice(b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ");
        out.extend_from_slice(&accept);
        out.extend_from_slice(b"\r\n\r\n");
        return Some(StreamBody::Tunnel);
    }
    if parts.status.is_informational() {
        return None;
    }
    write_status(out, parts.status);
    let has_body = !asked.is_head && !forbids_framing(parts.status.as_u16());
    let has_length = parts.headers.contains_key(CONTENT_LENGTH);
    // A body with a length has no trailers in HTTP/1.1, and one in HTTP/1.0 has none at all.
    let may_have_trailers = parts.headers.contains_key(TRAILER) && asked.version == Version::Http11;
    let counts = has_length && (ends || !has_body || !may_have_trailers);
    write_fields(out, &parts.headers, !counts);
    let body = match (ends || !has_body, asked.version) {
        (true, _) => StreamBody::None,
        (false, _) if counts => StreamBody::Length,
        (false, Version::Http11) => StreamBody::Chunked,
        (false, Version::Http10) => StreamBody::Tunnel,
    };
    match body {
        StreamBody::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        StreamBody::None if has_body && !has_length => out.extend_from_slice(b"Content-Length: 0\r\n"),
        _ => {}
    }
    out.extend_from_slice(b"\r\n");
    Some(body)
}

/// Appends the head of an interim response. `None`: no such response may come on a stream.
pub fn write_interim_head(out: &mut Vec<u8>, status: StatusCode, fields: &HeaderMap) -> Option<()> {
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return None;
    }
    write_status(out, status);
    write_fields(out, fields, true);
    out.extend_from_slice(b"\r\n");
    Some(())
}

fn write_status(out: &mut Vec<u8>, status: StatusCode) {
    out.extend_from_slice(format!("HTTP/1.1 {} \r\n", status.as_str()).as_bytes());
}

fn write_fields(out: &mut Vec<u8>, fields: &HeaderMap, without_length: bool) {
    for (name, value) in fields.iter().filter(|(name, _)| !(without_length && *name == CONTENT_LENGTH)) {
        write_field(out, name.as_str().as_bytes(), value.as_bytes());
    }
}
