//! The lines of the access log, version 1.
//!
//! One line per connection, written when it has ended; text is `key=value` separated by spaces, JSON one object with
//! the same keys in the same order. A field that is absent is left out, in both forms. New fields may be added at the
//! end; a field that changes its meaning changes the version.
//!
//! | field | what | absent |
//! |---|---|---|
//! | `time` | when it was accepted: UTC, RFC 3339, milliseconds | never |
//! | `id` | its number in this process, as in the admin interface | never |
//! | `listener` | name of the listener | never |
//! | `client` | client address and port, announced or seen; `unix` for a unix peer | never |
//! | `peer` | address of the TCP peer | when the PROXY protocol announced no other client |
//! | `sni` | server name of the ClientHello, escaped if it is no host name | no hello was read, or it has none |
//! | `ech` | `true`: the hello offers ECH and `sni` is its outer name | it does not |
//! | `pool` | name of the pool | it was never routed |
//! | `range` | named range of the pool that the client is in | in none |
//! | `backend` | name of the backend last tried | none was tried |
//! | `reason` | step of the pick that chose it: a word of [`PickReason`](crate::outcome::PickReason) | none was tried |
//! | `attempts` | connect attempts begun | none was begun |
//! | `connect_us` | microseconds the successful attempt took | no attempt succeeded |
//! | `duration_us` | microseconds from accept to end | never |
//! | `bytes_up` | bytes from the client to the backend | never |
//! | `bytes_down` | bytes from the backend to the client | never |
//! | `ended` | how it ended: a word of [`Ended`](crate::outcome::Ended) | never |
//! | `fault` | side at fault: `none`, `client`, `backend`, `limit`, `us` | never |
//! | `tls` | version of TLS, as `TLSv1.3` | TLS did not end here, or its handshake was not completed |
//! | `cipher` | cipher suite, as `TLS_AES_128_GCM_SHA256` | as `tls` |
//! | `resumed` | `true`: the session was begun earlier | it was not |
//! | `subject` | subject of the client's verified certificate | none was shown |
//! | `moved` | why the client lost the backend where it had settled: a word of [`BreakCause`](crate::outcome::BreakCause) | it did not |
//! | `from` | name of the backend where it had settled | it did not, or the name is not known any more |
//! | `alert` | alert by which TLS failed, as `sent:handshake_failure` or `received:unknown_ca` | it did not |
//!
//! A request on a terminated connection has a line of its own, written when its response is complete or has failed:
//! `time` (its head was complete), `request` (its id, which local replies carry as X-Request-Id), `id` (of its
//! connection), `listener`, `client`, `method`, `host`, `path` (without the query), `status` (absent: no response was
//! begun), `pool`, `backend`, `reason`, `cookie` (verdict on its cookie), `reused` (`true`: over a connection to the
//! backend that was there), `subject` (of the client's certificate), `duration_us`, `ended`, `fault`, `moved`, `from`,
//! `refused` (why the request, with `ended=request_refused`, or its response, with `ended=response_refused`, was
//! refused: a word of [`Refused`](crate::http::Refused)). An absent field is left out. A head that was refused or not
//! complete in time has a line too: `time` is then when that was known, and what was not read of it is absent.
//!
//! Formats and does not write. Invariant: both forms come from one list of fields, and no value ends a line or a field
//! early, whatever bytes a name is made of.

use std::fmt::{Display, Write};

use super::{ConnectionLine, RequestLine};
use crate::outcome::ClientMove;

/// Appends the line of a connection, newline included.
pub fn write(out: &mut String, connection: &ConnectionLine, json: bool) {
    whole(out, json, |line| fields(line, connection));
}

/// Appends the line of a request, newline included.
pub fn write_request(out: &mut String, request: &RequestLine, json: bool) {
    whole(out, json, |line| fields_of_request(line, request));
}

fn whole(out: &mut String, json: bool, fields: impl FnOnce(&mut Line<'_>)) {
    let mut line = Line { out, json, first: true };
    if json {
        line.out.push('{');
    }
    fields(&mut line);
    line.out.push_str(if json { "}\n" } else { "\n" });
}

fn fields_of_request(line: &mut Line<'_>, r: &RequestLine) {
    line.word("time", &rfc3339(r.started_unix_us));
    line.word("request", &r.request);
    line.number("id", r.id);
    line.word("listener", &r.listener);
    match r.client {
        Some(client) => line.word("client", &client.to_string()),
        None => line.word("client", "unix"),
    }
    line.word_if("method", r.method.as_deref());
    line.word_if("host", r.host.as_deref());
    line.word_if("path", r.path.as_deref());
    if let Some(status) = r.status {
        line.number("status", status.into());
    }
    line.word_if("pool", r.pool.as_deref());
    line.word_if("backend", r.backend.as_deref());
    line.word_if("reason", r.reason.map(|reason| reason.word()));
    line.word_if("cookie", r.cookie);
    if r.reused {
        line.plain("reused", true);
    }
    line.word_if("subject", r.subject.as_deref());
    line.number("duration_us", r.duration_us);
    line.word("ended", r.ended.word());
    line.word("fault", r.ended.fault().word());
    line.moved(r.moved.as_ref());
    line.word_if("refused", r.refused);
}

fn fields(line: &mut Line<'_>, c: &ConnectionLine) {
    line.word("time", &rfc3339(c.started_unix_us));
    line.number("id", c.id);
    line.word("listener", &c.listener);
    match c.client {
        Some(client) => line.word("client", &client.to_string()),
        None => line.word("client", "unix"),
    }
    line.word_if("peer", c.peer.map(|peer| peer.to_string()).as_deref());
    line.word_if("sni", c.sni.as_ref().map(|name| name.as_str()).or(c.odd_name.as_deref()));
    if c.ech {
        line.plain("ech", true);
    }
    line.word_if("pool", c.pool.as_deref());
    line.word_if("range", c.range.as_deref());
    line.word_if("backend", c.backend.as_deref());
    line.word_if("reason", c.reason.map(|reason| reason.word()));
    if c.attempts > 0 {
        line.number("attempts", c.attempts.into());
    }
    if let Some(connect_us) = c.connect_us {
        line.number("connect_us", connect_us);
    }
    line.number("duration_us", c.duration_us);
    line.number("bytes_up", c.bytes_up);
    line.number("bytes_down", c.bytes_down);
    line.word("ended", c.ended.word());
    line.word("fault", c.ended.fault().word());
    if let Some(tls) = &c.tls {
        line.word("tls", tls.version);
        line.word_if("cipher", tls.cipher);
        if tls.resumed {
            line.plain("resumed", true);
        }
        line.word_if("subject", tls.subject.as_deref());
    }
    line.moved(c.moved.as_ref());
    line.word_if("alert", c.alert.map(|alert| alert.to_string()).as_deref());
}

struct Line<'a> {
    out: &'a mut String,
    json: bool,
    first: bool,
}

impl Line<'_> {
    fn word(&mut self, name: &str, value: &str) {
        self.name(name);
        if self.json || needs_quotes(value) { quote(self.out, value) } else { self.out.push_str(value) }
    }

    fn word_if(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.word(name, value);
        }
    }

    fn moved(&mut self, moved: Option<&ClientMove>) {
        if let Some(ClientMove { from, cause }) = moved {
            self.word("moved", cause.word());
            self.word_if("from", from.as_deref());
        }
    }

    fn number(&mut self, name: &str, value: u64) {
        self.plain(name, value);
    }

    fn plain(&mut self, name: &str, value: impl Display) {
        self.name(name);
        let _ = write!(self.out, "{value}"); // writing to a String does not fail
    }

    fn name(&mut self, name: &str) {
        let _ = match (self.first, self.json) {
            (true, true) => write!(self.out, "\"{name}\":"),
            (false, true) => write!(self.out, ",\"{name}\":"),
            (true, false) => write!(self.out, "{name}="),
            (false, false) => write!(self.out, " {name}="),
        };
        self.first = false;
    }
}

fn needs_quotes(value: &str) -> bool {
    value.is_empty() || value.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '=' | '\\'))
}

/// Appends a JSON string, which is also the form of a quoted value in text.
fn quote(out: &mut String, value: &str) {
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Some readers end a line at U+2028 and U+2029.
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// The time in UTC, by the civil calendar: days are counted in eras of 400 years that begin on 1 March.
fn rfc3339(unix_us: u64) -> String {
    let (seconds, ms) = (unix_us / 1_000_000, unix_us / 1_000 % 1_000);
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access_log::TlsLine;
    use crate::access_log::tests::connection;
    use crate::outcome::{Ended, PickReason};
    use crate::server_name::ServerName;
    use crate::tls::TlsAlert;

    fn line(connection: &ConnectionLine, json: bool) -> String {
        let mut out = String::new();
        write(&mut out, connection, json);
        out
    }

    fn full() -> ConnectionLine {
        ConnectionLine {
            peer: Some("10.0.0.1:9".parse().unwrap()),
            sni: ServerName::parse("www.example.org"),
            ech: true,
            pool: Some("web".into()),
            range: Some("office".into()),
            backend: Some("a".into()),
            reason: Some(PickReason::Placement),
            attempts: 2,
            connect_us: Some(412),
            tls: Some(Box::new(TlsLine {
                version: "TLSv1.3",
                cipher: Some("TLS_AES_128_GCM_SHA256"),
                resumed: true,
                subject: Some("me".to_owned()),
            })),
            moved: Some(ClientMove { from: Some("b".into()), cause: crate::outcome::BreakCause::Down }),
            alert: Some(TlsAlert { received: true, description: rustls::AlertDescription::UnknownCA }),
            ..connection()
        }
    }

    #[test]
    fn every_field_is_written_in_the_documented_order() {
        assert_eq!(
            line(&full(), false),
            "time=2024-02-29T23:59:59.999Z id=7 listener=front client=192.0.2.1:4711 peer=10.0.0.1:9 \
             sni=www.example.org ech=true pool=web range=office backend=a reason=placement attempts=2 connect_us=412 \
             duration_us=1500 bytes_up=10 bytes_down=20 ended=done fault=none tls=TLSv1.3 \
             cipher=TLS_AES_128_GCM_SHA256 resumed=true subject=me moved=down from=b alert=received:unknown_ca\n"
        );
        let documented: Vec<_> =
            include_str!("line.rs").lines().filter_map(|l| l.strip_prefix("//! | `")?.split('`').next()).collect();
        let text = line(&full(), false);
        let written: Vec<_> = text.split_whitespace().map(|field| field.split('=').next().unwrap()).collect();
        assert_eq!(written, documented);
    }

    #[test]
    fn both_forms_hold_the_same_fields() {
        let json = line(&full(), true);
        let value: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&json).unwrap();
        let text = line(&full(), false);
        for field in text.split_whitespace() {
            let (name, written) = field.split_once('=').unwrap();
            let in_json = &value[name];
            assert_eq!(in_json.as_str().map_or_else(|| in_json.to_string(), String::from), written, "{name}");
        }
        assert_eq!(value.len(), text.split_whitespace().count());
    }

    #[test]
    fn what_is_absent_is_left_out() {
        let bare = ConnectionLine { client: None, ended: Ended::Silent, ..connection() };
        assert_eq!(
            line(&bare, false),
            "time=2024-02-29T23:59:59.999Z id=7 listener=front client=unix duration_us=1500 bytes_up=10 \
             bytes_down=20 ended=silent fault=client\n"
        );
    }

    #[test]
    fn no_name_can_end_a_field_or_a_line() {
        for name in ["", "a b", "a=b", "say \"hi\"", "a\nended=done", "\\", "tab\t", "\u{1}", "\u{2028}", "\u{85}", "é"]
        {
            let odd = ConnectionLine { pool: Some(name.into()), ..connection() };
            for json in [false, true] {
                let written = line(&odd, json);
                assert_eq!(written.matches('\n').count(), 1, "{name:?}");
                let quoted = if json { &written } else { written.split_once("pool=").unwrap().1 };
                if json {
                    assert_eq!(serde_json::from_str::<serde_json::Value>(quoted).unwrap()["pool"], name);
                } else if quoted.starts_with('"') {
                    let value = serde_json::Deserializer::from_str(quoted).into_iter::<String>().next().unwrap();
                    assert_eq!(value.unwrap(), name);
                } else {
                    assert!(quoted.starts_with(&format!("{name} ")), "{name:?}");
                }
            }
        }
    }

    #[test]
    fn times_follow_the_calendar() {
        for (unix_s, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
        ] {
            assert_eq!(rfc3339(unix_s * 1_000_000), text);
        }
    }
}
