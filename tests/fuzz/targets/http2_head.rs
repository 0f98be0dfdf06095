//! Heads of HTTP/2: what the reader of HTTP/1 accepts of a written one is what the stream said, and no other line.
//!
//! An input is lines: flags in one byte and the method, authority, path, then fields as `name:value`. What the types of
//! h2 cannot hold is left out.

use h2::ext::Protocol;
use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use sessile::http::head::RequestReader;
use sessile::http::http2_head::{StreamBody, StreamHead, write_head};
use sessile::http::target::Target as Resource;
use sessile::http::{Framing, Progress};

use super::head;
use crate::cost::{Limit, bounded};
use crate::engine::Target;

pub const TARGET: Target = Target {
    name: "http2_head",
    run,
    words: &[
        b"GET\na.test\n/\n",
        b"CONNECT\n",
        b"OPTIONS\na\n*\n",
        b"\n",
        b"\nhost:a.test",
        b"\ncookie:a=1",
        b"\ncontent-length:5",
        b"\ncontent_length:5",
        b"\ntransfer-encoding:chunked",
        b"\nte:trailers",
        b"\nconnection:close",
        b"\nupgrade:websocket",
        b"\nsec-websocket-version:13",
        b"\nsec-websocket-key:x",
        b"\nexpect:100-continue",
        b"/a b",
        b"http://a/",
        b"?#",
        b"user@a:80",
        b": ",
        b"\t\n",
    ],
    seeds: Vec::new,
    length_max: 40_000,
    mutants: 8_000,
};

/// The stream has ended with its head.
const ENDS: u8 = 1;
/// A request for a WebSocket.
const WEB_SOCKET: u8 = 2;
/// There are no random bytes.
const NO_KEY: u8 = 4;

/// The head, which grows, and the parts of a cookie before they are joined.
const WRITE: Limit = Limit { allocations: 40, bytes: 8_192, steps: 20_000, steps_per_byte: 100 };

fn run(input: &[u8]) {
    let Some((flags, text)) = input.split_first() else { return };
    let Some(parts) = parts(text, flags & WEB_SOCKET != 0) else { return };
    let key = || (flags & NO_KEY == 0).then_some([7; 16]);
    let limit = Limit { bytes: WRITE.bytes + 40 * input.len() as u64, ..WRITE };
    let written = bounded("writing a head", input.len(), limit, || write_head(&parts, flags & ENDS != 0, key));
    let Some(reader) = head::read(&RequestReader::new(), &written.bytes) else {
        let progress = RequestReader::new().read(&written.bytes);
        assert!(matches!(progress, Progress::No(_)), "{progress:?}: a whole head is one or is refused");
        return;
    };
    let request = reader.request(&written.bytes);
    assert_eq!(request.length, written.bytes.len(), "one head and nothing else");
    let is_tunnel = written.body == StreamBody::Tunnel;
    assert_eq!(request.method_name, if is_tunnel { "GET" } else { parts.method.as_str() }.as_bytes());
    let path = parts.uri.path_and_query().expect("an accepted request has a path").as_str().as_bytes();
    assert_eq!(request.target, if path == b"*" { Resource::Asterisk } else { Resource::Origin(path) });
    let fields = request.fields.iter().map(|field| (field.name.to_ascii_lowercase(), field.value.to_vec()));
    assert_eq!(fields.collect::<Vec<_>>(), wanted(&parts, &written), "{}", written.bytes.escape_ascii());
    match (written.body, request.framing) {
        (StreamBody::None, framing) => assert!(matches!(framing, Framing::None | Framing::Length(_))),
        (StreamBody::Length, framing) => assert!(matches!(framing, Framing::Length(_))),
        (body, framing) => {
            assert_eq!(framing == Framing::Chunked, body == StreamBody::Chunked);
            assert_eq!(request.upgrade().is_some(), body == StreamBody::Tunnel);
        }
    }
    assert_eq!(written.accept.is_some(), is_tunnel);
}

/// The request as h2 would give it.
fn parts(text: &[u8], web_socket: bool) -> Option<Parts> {
    let mut lines = text.split(|byte| *byte == b'\n');
    let method = http::Method::from_bytes(lines.next()?).ok()?;
    let (authority, path) = (lines.next()?, lines.next()?);
    let mut uri = http::uri::Parts::default();
    if !authority.is_empty() {
        uri.authority = Some(authority.try_into().ok()?);
    }
    if !path.is_empty() {
        uri.path_and_query = Some(path.try_into().ok()?);
        uri.scheme = uri.authority.as_ref().map(|_| http::uri::Scheme::HTTPS);
    }
    let (mut parts, ()) = http::Request::new(()).into_parts();
    (parts.method, parts.uri) = (method, http::Uri::from_parts(uri).ok()?);
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        parts.headers.append(name, HeaderValue::from_bytes(&line[colon + 1..]).ok()?);
    }
    if web_socket {
        parts.extensions.insert(Protocol::from("websocket"));
    }
    Some(parts)
}

/// The lines of an accepted head.
fn wanted(parts: &Parts, written: &StreamHead) -> Vec<(Vec<u8>, Vec<u8>)> {
    let is_tunnel = written.body == StreamBody::Tunnel;
    let line = |name: &str, value: &[u8]| (name.as_bytes().to_vec(), value.to_vec());
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    let host = authority.or_else(|| parts.headers.get("host").map(HeaderValue::as_bytes));
    let mut lines: Vec<_> = host.into_iter().map(|host| line("host", host)).collect();
    for name in parts.headers.keys().map(HeaderName::as_str) {
        let values: Vec<_> = parts.headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        let hop_by_hop = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];
        assert!(!hop_by_hop.contains(&name), "{name} concerns one connection");
        match name {
            "host" => {}
            "sec-websocket-key" if is_tunnel => {}
            "cookie" => {
                let crumbs: Vec<_> = values.into_iter().filter(|crumb| !crumb.is_empty()).collect();
                lines.push(line(name, &crumbs.join(&b"; "[..])));
            }
            _ => lines.extend(values.iter().map(|value| line(name, value))),
        }
    }
    match written.body {
        StreamBody::Chunked => lines.push(line("transfer-encoding", b"chunked")),
        StreamBody::Tunnel => {
            if !parts.headers.contains_key("sec-websocket-version") {
                lines.push(line("sec-websocket-version", b"13"));
            }
            lines.push(line("upgrade", b"websocket"));
            lines.push(line("connection", b"Upgrade"));
            lines.push(line("sec-websocket-key", b"BwcHBwcHBwcHBwcHBwcHBw=="));
        }
        StreamBody::None | StreamBody::Length => {}
    }
    lines
}
