//! The replies of this process, written when no response of a backend can be had or passed on ([`StatusCode`]), and
//! answers that the configuration wants instead of one ([`Answer`]).
//!
//! A reply is small, never cached, and ends its connection: bytes that the client has sent behind the request are not
//! read as another one. Does not explain more than the status; the log does, under the same request id.
//!
//! Invariant: a reply or answer is a whole message that the reader of this crate accepts; a reply without a page has at
//! most 512 bytes with an id of up to 128.

use super::date;
use super::edit::write_line;
use super::framing::forbids_framing;

macro_rules! statuses {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal;)+) => {
        /// The statuses of replies (RFC 9110 §15.5 and §15.6, RFC 6585 §5).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum StatusCode { $($(#[doc = $doc])+ $name,)+ }

        impl StatusCode {
            /// Every status that a reply can have.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The number in the status line, such as 502.
            pub fn code(self) -> u16 {
                match self { $(Self::$name => $code,)+ }
            }
        }
    };
}

statuses! {
    /// The request is malformed or ambiguous.
    BadRequest = 400;
    /// No route of the listener takes the request.
    NotFound = 404;
    /// The request did not come in time.
    RequestTimeout = 408;
    /// The request line is too long.
    UriTooLong = 414;
    /// Host is not a site of this connection's server name.
    Misdirected = 421;
    /// The head or the trailers are too long.
    FieldsTooLarge = 431;
    /// CONNECT, or a transfer coding that is not known here.
    NotImplemented = 501;
    /// The response of the backend is malformed, ambiguous, or did not come.
    BadGateway = 502;
    /// No backend can be used.
    Unavailable = 503;
    /// The response of the backend did not come in time.
    GatewayTimeout = 504;
    /// The version of the request is neither HTTP/1.0 nor HTTP/1.1.
    VersionNotSupported = 505;
}

/// The field with the id of the request, where the listener has no other name for it.
pub const ID_FIELD: &str = "X-Request-Id";

/// An answer as it is sent: its head has Date, Content-Length and the id besides what stands here.
#[derive(Debug, Clone, Copy, Default)]
pub struct Answer<'a> {
    /// The status, from 200 to 599.
    pub status: u16,
    /// The type of the content; `None`: it has none, or it is among the fields.
    pub content_type: Option<&'a str>,
    /// Other fields; none of them begins a line.
    pub fields: &'a [(&'a str, &'a str)],
    /// The content; empty where the status has none.
    pub body: &'a [u8],
    /// The field with the id of the request, and the id; `None`: no request was read.
    pub id: Option<(&'a str, &'a str)>,
    /// True if the request was HEAD, so that the same head is written without the content.
    pub to_head: bool,
    /// True if the connection ends with it.
    pub close: bool,
}

/// Appends a reply. `id`: the field with the id of the request, and the id. `to_head`: the request was HEAD, so the same
/// head is written without a body.
pub fn write(out: &mut Vec<u8>, status: StatusCode, id: (&str, &str), to_head: bool, now_unix_s: u64) {
    write_reply(out, status, &format!("request {}", id.1), Some(id), to_head, now_unix_s);
}

/// Appends a reply with a page: its type and its content.
pub fn write_page(
    out: &mut Vec<u8>,
    status: StatusCode,
    page: (&str, &[u8]),
    id: (&str, &str),
    to_head: bool,
    now_unix_s: u64,
) {
    let (content_type, body) = page;
    let reply = reply(status, Some(id), to_head);
    write_answer(out, &Answer { content_type: Some(content_type), body, ..reply }, now_unix_s);
}

/// Appends the reply to plain HTTP at a port that serves HTTPS. It has no request id, because no request is read there.
pub fn write_https_expected(out: &mut Vec<u8>, to_head: bool, now_unix_s: u64) {
    let why = "plain HTTP was sent to a port that serves HTTPS";
    write_reply(out, StatusCode::BadRequest, why, None, to_head, now_unix_s);
}

fn write_reply(
    out: &mut Vec<u8>,
    status: StatusCode,
    second_line: &str,
    id: Option<(&str, &str)>,
    to_head: bool,
    now_unix_s: u64,
) {
    let body = format!("{} {}\n{second_line}\n", status.code(), phrase(status.code()));
    let content_type = Some("text/plain; charset=utf-8");
    write_answer(out, &Answer { content_type, body: body.as_bytes(), ..reply(status, id, to_head) }, now_unix_s);
}

fn reply<'a>(status: StatusCode, id: Option<(&'a str, &'a str)>, to_head: bool) -> Answer<'a> {
    let fields = &[("Cache-Control", "no-store")];
    Answer { status: status.code(), fields, id, to_head, close: true, ..Answer::default() }
}

/// The usual reason phrase of a status; empty if it has none.
pub fn phrase(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or_default()
}

/// Appends an answer.
pub fn write_answer(out: &mut Vec<u8>, answer: &Answer<'_>, now_unix_s: u64) {
    let Answer { status, content_type, fields, body, id, to_head, close } = *answer;
    write_text(out, &format!("HTTP/1.1 {status} {}\r\nDate: ", phrase(status)));
    date::write(out, now_unix_s);
    write_text(out, "\r\n");
    if let Some(content_type) = content_type {
        write_line(out, "Content-Type", content_type);
    }
    if !forbids_framing(status) && status != 304 {
        write_line(out, "Content-Length", &body.len().to_string());
    }
    for (name, value) in fields {
        write_line(out, name, value);
    }
    if let Some((field, id)) = id {
        write_line(out, field, id);
    }
    if close {
        write_line(out, "Connection", "close");
    }
    write_text(out, "\r\n");
    if !to_head {
        out.extend_from_slice(body);
    }
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}
