//! HTTP/1.x messages as a balancer needs them: where they end, what may pass, and what is written in their place.
//!
//! `head.rs` reads heads line by line out of the caller's buffer, `field.rs` and `target.rs` are what it finds there,
//! `parts.rs` what a target holds, `framing.rs` says how a body is delimited and `body.rs` where it ends, `connection.rs` is what concerns one hop
//! (persistence, Upgrade, Expect), `websocket.rs` finds frames behind an Upgrade, `cookie.rs` and `set_cookie.rs` read cookies, `edit.rs` writes the head that is
//! passed on, `answer.rs` the replies of this process, and
//! `http2_head.rs` and `http2_response.rs` the heads of HTTP/2 as those of HTTP/1.
//!
//! Does no I/O, knows no clock, looks into no body, and repairs nothing: what RFC 9112 does not allow, or what two
//! readers could read differently, is [`Refused`]. Not interpreted, because nothing forwarded depends on it: the
//! meaning of statuses beyond framing, caching, ranges, content codings, `Max-Forwards`.
//!
//! Invariant: a message has one reading. It is the same however its bytes were cut on arrival, and what is written
//! for the other side reads as the same message again.

pub mod answer;
pub mod body;
pub mod connection;
pub mod cookie;
pub mod date;
pub mod edit;
pub mod field;
pub mod forwarded;
pub mod framing;
pub mod head;
pub mod http2_head;
pub mod http2_response;
pub mod parts;
pub mod set_cookie;
pub mod target;
pub mod upgrade;
pub mod websocket;
mod work;

pub use crate::progress::Progress;

use answer::StatusCode;

/// A version of HTTP that is read and written here (RFC 9112 §2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Version {
    /// HTTP/1.0: no chunks, and connections close by default.
    Http10,
    /// HTTP/1.1: chunks, and connections persist by default.
    #[default]
    Http11,
}

impl Version {
    /// The version as a start line has it: `HTTP/1.1`.
    pub fn text(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
        }
    }
}

/// The method of a request (RFC 9110 §9, RFC 5789), as far as framing, retries and targets depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Method {
    /// GET: safe, usually without a body.
    #[default]
    Get,
    /// HEAD: the response has no body, whatever its fields declare.
    Head,
    /// POST: not safe, never sent a second time.
    Post,
    /// PUT: not safe, never sent a second time.
    Put,
    /// DELETE: not safe, never sent a second time.
    Delete,
    /// OPTIONS: the only method that allows the target `*`.
    Options,
    /// PATCH: not safe, never sent a second time.
    Patch,
    /// TRACE: never sent a second time.
    Trace,
    /// Any other token (extension methods); CONNECT is never read as a method.
    Other,
}

impl Method {
    /// The method of this name; names are case-sensitive (RFC 9110 §9.1).
    fn of(name: &[u8]) -> Self {
        match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"OPTIONS" => Self::Options,
            b"PATCH" => Self::Patch,
            b"TRACE" => Self::Trace,
            _ => Self::Other,
        }
    }

    /// True if a request without a body may be sent a second time when its connection closed without a response: the
    /// safe methods (RFC 9110 §9.2.1) that applications in fact treat as safe.
    pub fn may_be_sent_again(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options)
    }
}

/// How a body is delimited (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Framing {
    /// No body follows the head, by method or status.
    #[default]
    None,
    /// Content-Length: the body has this many bytes.
    Length(u64),
    /// Transfer-Encoding: chunks, then trailers (RFC 9112 §7.1).
    Chunked,
    /// The body ends with the connection; possible in responses only.
    UntilClose,
}

impl Framing {
    /// True if no byte of a body follows the head.
    pub fn is_empty(self) -> bool {
        matches!(self, Self::None | Self::Length(0))
    }
}

macro_rules! refusals {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal, $status:ident;)+) => {
        /// Why a message is refused: the closed list of the readers.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Refused { $($(#[doc = $doc])+ $name,)+ }

        impl Refused {
            /// Every refusal, in the order of the enum.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The word for logs, metrics and complaints of checks.
            pub fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }

            /// The status of the reply to a refused request. A refused response is always a
            /// [`StatusCode::BadGateway`], because the client did nothing wrong.
            pub fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)+ }
            }

            /// One sentence that explains the refusal to an operator.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

refusals! {
    /// A line ends in LF without CR, or CR stands before something else than LF (RFC 9112 §2.2).
    BareLineEnd = "bare_line_end", BadRequest;
    /// The request line is longer than 8 KiB.
    RequestLineTooLong = "request_line_too_long", UriTooLong;
    /// The head is longer than 32 KiB, or that of a request than `head_max`.
    HeadTooLong = "head_too_long", FieldsTooLarge;
    /// The head has more than 128 fields, or that of a request more than `fields_max`.
    TooManyFields = "too_many_fields", FieldsTooLarge;
    /// The method is not a token.
    BadMethod = "bad_method", BadRequest;
    /// The method is CONNECT, but this is not a forward proxy; or a WebSocket of HTTP/2 is to stand at a route without a
    /// backend.
    Connect = "connect", NotImplemented;
    /// The request line is not method, target and version with one space between them (RFC 9112 §3).
    BadRequestLine = "bad_request_line", BadRequest;
    /// The version is neither HTTP/1.0 nor HTTP/1.1.
    BadVersion = "bad_version", VersionNotSupported;
    /// The request target has none of the forms of RFC 9112 §3.2, or not one that its method may have.
    BadTarget = "bad_target", BadRequest;
    /// The status line is not version, three digits and a reason (RFC 9112 §4).
    BadStatusLine = "bad_status_line", BadGateway;
    /// A line begins with white space (RFC 9112 §2.2 and §5.2).
    Folded = "folded", BadRequest;
    /// A field name is empty or not a token, or white space stands before its colon (RFC 9112 §5.1).
    BadFieldName = "bad_field_name", BadRequest;
    /// A field value holds NUL or another control character (RFC 9110 §5.5).
    BadFieldValue = "bad_field_value", BadRequest;
    /// A field is called like Content-Length or Transfer-Encoding, but with an underscore, a dot or another sign in place
    /// of the hyphen: applications that fold names would take it for the real one.
    LookAlike = "look_alike", BadRequest;
    /// A request in HTTP/1.1 has no Host field (RFC 9112 §3.2).
    NoHost = "no_host", BadRequest;
    /// A request has more than one Host field.
    SeveralHosts = "several_hosts", BadRequest;
    /// Host, or the authority of an absolute target, is not a host and an optional port.
    BadHost = "bad_host", BadRequest;
    /// Host differs from the authority of the absolute target.
    OtherHost = "other_host", BadRequest;
    /// Connection names a field without which the message would be another (RFC 9110 §7.6.1).
    BadConnection = "bad_connection", BadRequest;
    /// Connection or Upgrade has more than 64 elements.
    TooManyOptions = "too_many_options", FieldsTooLarge;
    /// The Cookie fields have more than 2048 pairs, empty ones included.
    TooManyCookies = "too_many_cookies", FieldsTooLarge;
    /// Content-Length is not a number below 2^63.
    BadLength = "bad_length", BadRequest;
    /// More than one Content-Length: in requests equal or not, in responses only different ones.
    SeveralLengths = "several_lengths", BadRequest;
    /// Content-Length beside Transfer-Encoding in a request (RFC 9112 §6.1).
    BothFramings = "both_framings", BadRequest;
    /// Transfer-Encoding is not a list of codings with `chunked` once and last.
    BadCoding = "bad_coding", BadRequest;
    /// Transfer-Encoding names a coding other than `chunked`.
    UnknownCoding = "unknown_coding", NotImplemented;
    /// Transfer-Encoding in HTTP/1.0, or in the response to a request of it.
    OldCoding = "old_coding", BadRequest;
    /// More than 16 interim responses (1xx) came before the final one.
    TooManyInterims = "too_many_interims", BadGateway;
    /// The frames of a backend break RFC 9113, are too many, or hold too long a head.
    BadFrames = "bad_frames", BadGateway;
    /// A 101 does not match an Upgrade of the request, or does not name a protocol.
    BadSwitch = "bad_switch", BadGateway;
    /// A chunk size is not hexadecimal digits below 2^63 and the end of its line.
    BadChunkSize = "bad_chunk_size", BadRequest;
    /// A chunk extension is not of the form of RFC 9112 §7.1.1.
    BadChunkExtension = "bad_chunk_extension", BadRequest;
    /// Chunk extensions of more than 256 bytes a chunk or 16 KiB a body.
    ChunkExtensionTooLong = "chunk_extension_too_long", BadRequest;
    /// A chunk is not followed by CRLF.
    BadChunkEnd = "bad_chunk_end", BadRequest;
    /// A trailer line is not a field line.
    BadTrailer = "bad_trailer", BadRequest;
    /// A trailer field that would change what the head said (RFC 9110 §6.5.1).
    ForbiddenTrailer = "forbidden_trailer", BadRequest;
    /// Trailers of more than 8 KiB.
    TrailerTooLong = "trailer_too_long", FieldsTooLarge;
}

#[cfg(test)]
mod tests;
