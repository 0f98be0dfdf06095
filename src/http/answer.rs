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
    /// The body of the request is longer than a limit.
    ContentTooLarge = 413;
    /// The request line is too long.
    UriTooLong = 414;
    /// Host is not a site of this connection's server name.
    Misdirected = 421;
    /// The client makes more requests than it may.
    TooManyRequests = 429;
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

/// A reply of this process, but for its content.
#[derive(Debug, Clone, Copy)]
pub struct Reply<'a> {
    /// Its status.
    pub status: StatusCode,
    /// Seconds after which the client may ask again (RFC 9110 §10.2.3).
    pub retry_after_s: Option<u32>,
    /// The field with the id of the request, and the id; `None`: no request was read.
    pub id: Option<(&'a str, &'a str)>,
    /// The request was HEAD, so the same head is written without a body.
    pub to_head: bool,
}

/// Appends a reply to a request with this id.
pub fn write(out: &mut Vec<u8>, reply: &Reply<'_>, now_unix_s: u64) {
    let second_line = reply.id.map(|(_, id)| format!("request {id}")).unwrap_or_default();
    write_reply(out, reply, &second_line, now_unix_s);
}

/// Appends a reply with a page: its type and its content.
pub fn write_page(out: &mut Vec<u8>, reply: &Reply<'_>, (content_type, body): (&str, &[u8]), now_unix_s: u64) {
    let Reply { status, retry_after_s, id, to_head } = *reply;
    let wait = retry_after_s.map(|seconds| seconds.to_string());
    let wait = wait.as_deref().map(|seconds| ("Retry-After", seconds));
    let fields: Vec<_> = [("Cache-Control", "no-store")].into_iter().chain(wait).collect();
    let content_type = Some(content_type);
    let answer = Answer { status: status.code(), content_type, fields: &fields, body, id, to_head, close: true };
    write_answer(out, &answer, now_unix_s);
}

/// Appends the reply to plain HTTP at a port that serves HTTPS. It has no request id, because no request is read there.
pub fn write_https_expected(out: &mut Vec<u8>, to_head: bool, now_unix_s: u64) {
    let why = "plain HTTP was sent to a port that serves HTTPS";
    let reply = Reply { status: StatusCode::BadRequest, retry_after_s: None, id: None, to_head };
    write_reply(out, &reply, why, now_unix_s);
}

fn write_reply(out: &mut Vec<u8>, reply: &Reply<'_>, second_line: &str, now_unix_s: u64) {
    let status = reply.status.code();
    let body = format!("{status} {}\n{second_line}\n", phrase(status));
    write_page(out, reply, ("text/plain; charset=utf-8", body.as_bytes()), now_unix_s);
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
