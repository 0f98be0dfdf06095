//! [`write_head`]: writes the head of an HTTP/2 request as the HTTP/1.1 head that `head.rs` reads.
//!
//! Judges nothing and repairs nothing: there is one judge of requests, the reader. What RFC 9113 §8 forbids and the
//! reader would not see in HTTP/1 is written so that it refuses: a field that may not be there, or has white space
//! around its value, with a space before its colon; a path that is none as `#`. Names stay in lower case.
//!
//! Invariant: a head that the reader accepts has the method, path, host and fields of the stream, in order and no
//! others, but for what RFC 9113 §8.2.3 and RFC 8441 §5 name: cookies in one line, and an extended CONNECT as Upgrade.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use data_encoding::BASE64;
use h2::ext::Protocol;
use http::header::{CONTENT_LENGTH, COOKIE, HOST, HeaderName, HeaderValue, SEC_WEBSOCKET_VERSION, TE};
use http::request::Parts;

/// What a server adds to the key before it hashes it (RFC 6455 §1.3).
const ACCEPT_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// How the rest of a stream comes behind its head, seen as HTTP/1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamBody {
    /// Nothing follows: the stream has ended with its head.
    None,
    /// As many bytes as Content-Length says.
    Length,
    /// Chunks: `Transfer-Encoding: chunked` was added.
    Chunked,
    /// Bytes as they are, behind an extended CONNECT.
    Tunnel,
}

/// A head in HTTP/1.1, and what it leaves to its stream.
#[derive(Debug, Clone)]
pub struct StreamHead {
    /// The head, its empty line with it.
    pub bytes: Vec<u8>,
    /// The form of what follows.
    pub body: StreamBody,
    /// Sec-WebSocket-Accept that the backend has to answer with (RFC 6455 §4.2.2). `None`: no tunnel.
    pub accept: Option<[u8; 28]>,
}

/// Writes the head of a stream. `ends`: the stream has ended with it. `key` makes random bytes for Sec-WebSocket-Key;
/// `None`: there are none, and the request is refused as CONNECT is.
pub fn write_head(parts: &Parts, ends: bool, key: impl FnOnce() -> Option<[u8; 16]>) -> StreamHead {
    let key = if is_web_socket(parts) { key().map(|key| BASE64.encode(&key)) } else { None };
    let mut out = Vec::with_capacity(512);
    let method = if key.is_some() { "GET" } else { parts.method.as_str() };
    push(&mut out, &[method.as_bytes(), b" ", target(parts).as_bytes(), b" HTTP/1.1\r\n"]);
    write_hosts(&mut out, parts);
    write_fields(&mut out, parts, key.is_some());
    let body = match (&key, ends) {
        (Some(_), _) => StreamBody::Tunnel,
        (None, true) => StreamBody::None,
        (None, false) if parts.headers.contains_key(CONTENT_LENGTH) => StreamBody::Length,
        (None, false) => StreamBody::Chunked,
    };
    match &key {
        Some(key) => {
            if !parts.headers.contains_key(SEC_WEBSOCKET_VERSION) {
                out.extend_from_slice(b"Sec-WebSocket-Version: 13\r\n");
            }
            push(
                &mut out,
                &[b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: ", key.as_bytes(), b"\r\n"],
            );
        }
        None if body == StreamBody::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        None => {}
    }
    out.extend_from_slice(b"\r\n");
    StreamHead { bytes: out, body, accept: key.map(|key| accept_of(key.as_bytes())) }
}

/// True for an extended CONNECT that asks for a WebSocket (RFC 8441 §5). Any other is written as CONNECT.
fn is_web_socket(parts: &Parts) -> bool {
    let protocol = parts.extensions.get::<Protocol>();
    parts.method == http::Method::CONNECT
        && protocol.is_some_and(|protocol| protocol.as_str().eq_ignore_ascii_case("websocket"))
}

/// The path of a stream begins with `/`, or is `*` (RFC 9113 §8.3.1). In HTTP/1 another one could be a whole URI.
fn target(parts: &Parts) -> &str {
    let path = parts.uri.path_and_query().map(|path| path.as_str());
    if parts.uri.scheme_str() == Some("") {
        return "#";
    }
    match (path, parts.uri.authority()) {
        (Some(path), _) if path == "*" || path.starts_with('/') && path.bytes().all(|byte| byte > b' ') => path,
        (None, Some(authority)) if parts.method == http::Method::CONNECT => authority.as_str(),
        _ => "#",
    }
}

/// Writes the authority as Host, and a Host field where it says something else: the reader refuses two.
fn write_hosts(out: &mut Vec<u8>, parts: &Parts) {
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    if let Some(authority) = authority {
        write_field(out, b"Host", authority);
    }
    for (index, host) in parts.headers.get_all(HOST).iter().enumerate() {
        let repeats = authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host.as_bytes()));
        if index > 0 || !repeats {
            write_field(out, b"Host", host.as_bytes());
        }
    }
}

fn write_fields(out: &mut Vec<u8>, parts: &Parts, is_tunnel: bool) {
    for name in parts.headers.keys().filter(|name| *name != HOST) {
        let values = parts.headers.get_all(name).iter().map(HeaderValue::as_bytes);
        if *name == COOKIE {
            // One without a cookie would leave a separator at the end.
            let crumbs: Vec<_> = values.filter(|crumb| !crumb.is_empty()).collect();
            // White space around a crumb would vanish between the others.
            let is_whole = crumbs.iter().all(|crumb| !has_space_around(crumb));
            write_line(out, name.as_str().as_bytes(), &crumbs.join(&b"; "[..]), is_whole);
            continue;
        }
        for value in values {
            match may_stand(name, value, is_tunnel) {
                Some(true) => write_field(out, name.as_str().as_bytes(), value),
                Some(false) => write_line(out, name.as_str().as_bytes(), value, false),
                None => {}
            }
        }
    }
}

/// True if a request may have the field (RFC 9113 §8.2.2). `None`: it has no meaning and is left out.
fn may_stand(name: &HeaderName, value: &[u8], is_tunnel: bool) -> Option<bool> {
    match name.as_str() {
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" => Some(false),
        _ if *name == TE => Some(value.eq_ignore_ascii_case(b"trailers")),
        // RFC 8441 §5: HTTP/2 has no key. RFC 9110 §9.3.6: CONNECT has no content.
        "sec-websocket-key" if is_tunnel => None,
        "content-length" if is_tunnel => Some(false),
        _ => Some(true),
    }
}

/// Writes a field line, also of a trailer section. White space around a value is malformed (RFC 9113 §8.2.1), but no
/// part of it in HTTP/1: such a line is written as one that readers refuse.
pub(crate) fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    write_line(out, name, value, !has_space_around(value));
}

/// Writes a line, with a space before its colon if it is to be refused (RFC 9112 §5.1).
fn write_line(out: &mut Vec<u8>, name: &[u8], value: &[u8], is_good: bool) {
    push(out, &[name, if is_good { b": " } else { b" : " }, value, b"\r\n"]);
}

fn has_space_around(value: &[u8]) -> bool {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    is_space(value.first()) || is_space(value.last())
}

/// Sec-WebSocket-Accept for a key (RFC 6455 §4.2.2).
pub(crate) fn accept_of(key: &[u8]) -> [u8; 28] {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, ACCEPT_SUFFIX].concat());
    let mut accept = [0; 28];
    BASE64.encode_mut(hash.as_ref(), &mut accept);
    accept
}

fn push(out: &mut Vec<u8>, texts: &[&[u8]]) {
    texts.iter().for_each(|text| out.extend_from_slice(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_key_is_that_of_the_rfc() {
        assert_eq!(accept_of(b"dGhlIHNhbXBsZSBub25jZQ=="), *b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
