//! [`StreamRequest`]: what the head of a request for a backend is in HTTP/2.
//!
//! Reads with the reader of `http`, which has judged the head once: it comes from this process, which has written it for
//! the backend. Fields of one connection are left out (RFC 9113 §8.2.2), Host is the authority, and a request for a
//! WebSocket is an extended CONNECT (RFC 8441 §5).
//!
//! Invariant: but for these, method, path and fields are those of the head, in order and no others.

use h2::ext::Protocol;
use http::header::{HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_KEY};
use http::uri::{Authority, Parts, PathAndQuery, Scheme};
use http::{Method, Request, Uri, Version};

use crate::http::field::{FieldRef, KnownField};
use crate::http::head::{self, RequestReader};
use crate::http::http2_head::accept_of;
use crate::http::http2_response::AskedOfStream;
use crate::http::target::Target;
use crate::http::upgrade::Upgrade;
use crate::http::{self as inner, Framing, Progress};

/// A request as its stream begins.
pub struct StreamRequest {
    /// Method, target and fields.
    pub head: Request<()>,
    /// Bytes that it took in HTTP/1.
    pub length: usize,
    /// How its body is delimited in HTTP/1; that of a WebSocket is not.
    pub framing: Framing,
    /// What the form of its response depends on.
    pub asked: AskedOfStream,
}

impl StreamRequest {
    /// Reads a whole head, for a connection with TLS or without; `None`: HTTP/2 cannot carry it.
    pub fn read(bytes: &[u8], is_secure: bool) -> Option<Self> {
        let mut reader = RequestReader::new();
        let Progress::Done(length) = reader.read(bytes) else { return None };
        let request = reader.request(bytes);
        let is_tunnel = request.upgrade() == Some(Upgrade::WebSocket);
        let mut head = Request::new(());
        *head.method_mut() = match is_tunnel {
            true => Method::CONNECT,
            false => Method::from_bytes(request.method_name).ok()?,
        };
        // One without Host can only be in HTTP/1.0, and has no authority.
        *head.version_mut() = if request.host().is_some() { Version::HTTP_2 } else { Version::HTTP_11 };
        *head.uri_mut() = uri(&request, is_secure)?;
        let mut accept = None;
        if is_tunnel {
            head.extensions_mut().insert(Protocol::from_static("websocket"));
            accept = Some(accept_of(request.fields.named(SEC_WEBSOCKET_KEY.as_str()).next()?));
        }
        *head.headers_mut() = fields(&request, is_tunnel)?;
        let asked = AskedOfStream { is_head: request.method == inner::Method::Head, version: request.version, accept };
        Some(Self { head, length, framing: request.framing, asked })
    }
}

/// True if HTTP/2 can carry the target: in a URI of RFC 3986, which HTTP/1 readers take less strictly.
pub fn can_carry(request: &head::Request<'_>) -> bool {
    uri(request, false).is_some()
}

fn uri(request: &head::Request<'_>, is_secure: bool) -> Option<Uri> {
    let path = match request.target {
        Target::Origin(path) => path,
        Target::Absolute { path: b"", .. } if request.method == inner::Method::Options => b"*",
        Target::Absolute { path: b"", .. } => b"/",
        Target::Absolute { path, .. } => path,
        Target::Asterisk => b"*",
    };
    let mut parts = Parts::default();
    parts.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
    if let Some(host) = request.host() {
        parts.authority = Some(Authority::try_from(host.bytes).ok()?);
        parts.scheme = Some(if is_secure { Scheme::HTTPS } else { Scheme::HTTP });
    }
    Uri::from_parts(parts).ok()
}

fn fields(request: &head::Request<'_>, is_tunnel: bool) -> Option<HeaderMap> {
    let mut fields = HeaderMap::new();
    for FieldRef { name, value, .. } in request.fields.iter().filter(|field| passes(field, is_tunnel)) {
        fields.append(HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?);
    }
    Some(fields)
}

/// True if a field of the request is one of its stream.
fn passes(field: &FieldRef<'_>, is_tunnel: bool) -> bool {
    match field.known {
        KnownField::Host | KnownField::TransferEncoding => false,
        KnownField::Te => field.value.eq_ignore_ascii_case(b"trailers"),
        KnownField::ContentLength => !is_tunnel,
        known if known.is_hop_by_hop() => false,
        _ => !(is_tunnel && field.name.eq_ignore_ascii_case(SEC_WEBSOCKET_KEY.as_str().as_bytes())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, is_secure: bool) -> StreamRequest {
        let request = StreamRequest::read(text.as_bytes(), is_secure).unwrap();
        assert_eq!(request.length, text.len());
        request
    }

    fn fields(request: &StreamRequest) -> Vec<(&str, &str)> {
        request.head.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect()
    }

    #[test]
    fn a_head_becomes_that_of_a_stream() {
        let text = "POST /a{c}?b=c HTTP/1.1\r\nHost: a.test:81\r\nCookie: x=1\r\nX-A: 1\r\nTE: trailers\r\n\
                    Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
        let request = read(text, true);
        assert_eq!(request.head.uri().to_string(), "https://a.test:81/a{c}?b=c");
        assert_eq!((request.head.method(), request.framing), (&Method::POST, Framing::Chunked));
        assert_eq!(fields(&request), [("cookie", "x=1"), ("x-a", "1"), ("te", "trailers")]);
        let request = read("GET / HTTP/1.0\r\nTE: gzip\r\nKeep-Alive: 1\r\nConnection: keep-alive\r\n\r\n", true);
        assert_eq!((request.head.uri().to_string(), request.head.version()), ("/".to_owned(), Version::HTTP_11));
        assert_eq!((fields(&request), request.asked.version), (vec![], inner::Version::Http10));
    }

    #[test]
    fn an_upgrade_to_a_web_socket_becomes_an_extended_connect() {
        let text = "GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
        let request = read(text, false);
        assert_eq!((request.head.method(), request.head.uri().to_string()), (&Method::CONNECT, "http://a/chat".into()));
        assert_eq!(request.head.extensions().get::<Protocol>().map(Protocol::as_str), Some("websocket"));
        assert_eq!(fields(&request), [("sec-websocket-version", "13")]);
        assert_eq!(request.asked.accept, Some(*b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        let other = read(&text.replace("websocket", "other"), false);
        assert_eq!((other.head.method(), other.asked.accept), (&Method::GET, None));
    }

    #[test]
    fn what_no_uri_may_have_is_not_carried() {
        for (target, carried) in [("/a|b^c", true), ("/%3C", true), ("*", true), ("/<", false), ("/`", false)] {
            let text = format!("OPTIONS {target} HTTP/1.1\r\nHost: a.test:\r\n\r\n");
            let mut reader = RequestReader::new();
            assert!(matches!(reader.read(text.as_bytes()), Progress::Done(_)), "{target}");
            assert_eq!(can_carry(&reader.request(text.as_bytes())), carried, "{target}");
        }
    }
}
