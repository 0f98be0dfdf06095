//! The replies of this process, written when no response of a backend can be had or passed on ([`StatusCode`]).
//!
//! A reply is small, never cached, and ends its connection: bytes that the client has sent behind the request are not
//! read as another one. Does not explain more than the status; the log does, under the same request id.
//!
//! Invariant: a reply is a whole message that the reader of this crate accepts, at most 512 bytes with an id of up to
//! 128.

use super::date;
use super::edit::write_line;

macro_rules! statuses {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal, $phrase:literal;)+) => {
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

            /// The reason phrase in the status line, such as `Bad Gateway`.
            pub fn phrase(self) -> &'static str {
                match self { $(Self::$name => $phrase,)+ }
            }
        }
    };
}

statuses! {
    /// The request is malformed or ambiguous.
    BadRequest = 400, "Bad Request";
    /// The request did not come in time.
    RequestTimeout = 408, "Request Timeout";
    /// The request line is too long.
    UriTooLong = 414, "URI Too Long";
    /// Host is not a site of this connection's server name.
    Misdirected = 421, "Misdirected Request";
    /// The head or the trailers are too long.
    FieldsTooLarge = 431, "Request Header Fields Too Large";
    /// CONNECT, or a transfer coding that is not known here.
    NotImplemented = 501, "Not Implemented";
    /// The response of the backend is malformed, ambiguous, or did not come.
    BadGateway = 502, "Bad Gateway";
    /// No backend can be used.
    Unavailable = 503, "Service Unavailable";
    /// The response of the backend did not come in time.
    GatewayTimeout = 504, "Gateway Timeout";
    /// The version of the request is neither HTTP/1.0 nor HTTP/1.1.
    VersionNotSupported = 505, "HTTP Version Not Supported";
}

/// The field with the id of the request, where the listener has no other name for it.
pub const ID_FIELD: &str = "X-Request-Id";

/// Appends a reply. `id`: the field with the id of the request, and the id. `to_head`: the request was HEAD, so the same
/// head is written without a body.
pub fn write(out: &mut Vec<u8>, status: StatusCode, id: (&str, &str), to_head: bool, now_unix_s: u64) {
    write_reply(out, status, &format!("request {}", id.1), Some(id), to_head, now_unix_s);
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
    let (code, phrase) = (status.code(), status.phrase());
    let body = format!("{code} {phrase}\n{second_line}\n");
    write_text(out, &format!("HTTP/1.1 {code} {phrase}\r\nDate: "));
    date::write(out, now_unix_s);
    write_text(out, "\r\n");
    write_line(out, "Content-Type", "text/plain; charset=utf-8");
    write_line(out, "Content-Length", &body.len().to_string());
    write_line(out, "Cache-Control", "no-store");
    if let Some((field, id)) = id {
        write_line(out, field, id);
    }
    write_line(out, "Connection", "close");
    write_text(out, "\r\n");
    if !to_head {
        write_text(out, &body);
    }
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}
