//! Heads of HTTP/2, written for the reader: what it accepts is what the stream said.

use ::http::header::{HeaderName, HeaderValue};
use ::http::request::Parts;
use h2::ext::Protocol;
use proptest::prelude::*;

use super::*;
use crate::http::http2_head::{StreamBody, StreamHead, write_head};
use crate::http::target::Target;

const KEY: [u8; 16] = *b"the sample nonce";

fn parts(method: &str, uri: &str, fields: &[(&str, &str)]) -> Parts {
    let mut request = ::http::Request::builder().method(method).uri(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn connect(protocol: &str, fields: &[(&str, &str)]) -> Parts {
    let mut parts = parts("CONNECT", "https://a.test/chat?x", fields);
    parts.extensions.insert(Protocol::from(protocol));
    parts
}

fn text(head: &StreamHead) -> String {
    String::from_utf8_lossy(&head.bytes).into_owned()
}

/// A head as it is read: the lines, or the refusal.
fn read(head: &StreamHead) -> Result<(), Refused> {
    match RequestReader::new().read(&head.bytes) {
        Progress::Done(length) => {
            assert_eq!(length, head.bytes.len(), "one head and nothing else: {}", text(head));
            Ok(())
        }
        Progress::No(refused) => Err(refused),
        Progress::More => panic!("a whole head: {}", text(head)),
    }
}

fn write(parts: &Parts, ends: bool) -> StreamHead {
    write_head(parts, ends, || Some(KEY))
}

fn refused(parts: &Parts) -> Refused {
    let head = write(parts, true);
    read(&head).expect_err(&text(&head))
}

#[test]
fn a_head_of_a_browser_is_written_line_by_line() {
    let fields = [
        ("user-agent", "x"),
        ("cookie", "a=1"),
        ("accept", "*/*"),
        ("te", "trailers"),
        ("cookie", "b=2"),
        ("x", "1"),
        ("x", "2"),
    ];
    let head = write(&parts("GET", "https://a.test:8443/p?q=1", &fields), true);
    let wanted = "GET /p?q=1 HTTP/1.1\r\nHost: a.test:8443\r\nuser-agent: x\r\ncookie: a=1; b=2\r\naccept: */*\r\n\
                  te: trailers\r\nx: 1\r\nx: 2\r\n\r\n";
    assert_eq!((text(&head).as_str(), head.body, head.accept), (wanted, StreamBody::None, None));
    assert_eq!(read(&head), Ok(()));
}

#[test]
fn a_body_has_the_framing_of_its_fields() {
    let framing = |fields: &[(&str, &str)], ends| {
        let head = write(&parts("POST", "https://a.test/", fields), ends);
        let reader = read_request(&head.bytes);
        (head.body, reader.request(&head.bytes).framing)
    };
    assert_eq!(framing(&[], true), (StreamBody::None, Framing::None));
    assert_eq!(framing(&[], false), (StreamBody::Chunked, Framing::Chunked));
    assert_eq!(framing(&[("content-length", "5")], false), (StreamBody::Length, Framing::Length(5)));
    assert_eq!(framing(&[("content-length", "0")], true), (StreamBody::None, Framing::Length(0)));
    let several = parts("POST", "https://a.test/", &[("content-length", "5"), ("content-length", "5")]);
    assert_eq!(refused(&several), Refused::SeveralLengths);
    let bad = parts("POST", "https://a.test/", &[("content-length", "+5")]);
    assert_eq!(refused(&bad), Refused::BadLength);
}

#[test]
fn the_host_is_the_authority_and_may_not_be_another_one() {
    let hosts = |uri, fields: &[(&str, &str)]| {
        let head = write(&parts("GET", uri, fields), true);
        let lines = text(&head).lines().filter(|line| line.starts_with("Host")).map(str::to_owned).collect::<Vec<_>>();
        (lines, read(&head))
    };
    let one = |host: &str| vec![format!("Host: {host}")];
    assert_eq!(hosts("https://a.test/", &[]), (one("a.test"), Ok(())));
    assert_eq!(hosts("https://a.test/", &[("host", "A.test")]), (one("a.test"), Ok(())));
    assert_eq!(hosts("/", &[("host", "b.test")]), (one("b.test"), Ok(())));
    assert_eq!(hosts("/", &[]), (vec![], Err(Refused::NoHost)));
    let both = [one("a.test"), one("b.test")].concat();
    assert_eq!(hosts("https://a.test/", &[("host", "b.test")]), (both, Err(Refused::SeveralHosts)));
    let twice = [("host", "a.test"), ("host", "a.test")];
    assert_eq!(hosts("https://a.test/", &twice).1, Err(Refused::SeveralHosts));
    assert_eq!(hosts("/", &twice).1, Err(Refused::SeveralHosts));
    assert_eq!(hosts("https://user@a.test/", &[]).1, Err(Refused::BadHost));
}

#[test]
fn fields_of_one_connection_are_refused() {
    for (name, value) in [
        ("connection", "close"),
        ("connection", "te"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("te", "trailers, gzip"),
        ("x", " a"),
        ("x", "a\t"),
        ("cookie", "a=1 "),
        ("host", " a.test"),
    ] {
        let refused = refused(&parts("GET", "https://a.test/", &[(name, value)]));
        assert_eq!(refused, Refused::BadFieldName, "{name}: {value}");
    }
    let crumbs = parts("GET", "https://a.test/", &[("cookie", "a=1"), ("cookie", " b=2"), ("cookie", "c")]);
    assert_eq!(refused(&crumbs), Refused::BadFieldName);
}

#[test]
fn a_path_is_a_path() {
    let with_path = |method: &str, path: &str| {
        let mut uri = ::http::uri::Parts::default();
        uri.scheme = Some(::http::uri::Scheme::HTTPS);
        uri.authority = Some("a.test".parse().unwrap());
        uri.path_and_query = Some(path.parse().unwrap());
        let mut parts = parts(method, "/", &[]);
        parts.uri = ::http::Uri::from_parts(uri).unwrap();
        write(&parts, true)
    };
    assert_eq!(read(&with_path("OPTIONS", "*")), Ok(()));
    assert_eq!(read(&with_path("GET", "*")), Err(Refused::BadTarget));
    assert_eq!(read(&with_path("GET", "//b.test/")), Ok(()));
    for path in ["?x", "?/"] {
        let head = with_path("GET", path);
        assert_eq!(read(&head), Err(Refused::BadTarget), "{}", text(&head));
        assert!(text(&head).starts_with("GET # HTTP/1.1\r\n"));
    }
    let head = with_path("GET", "/\u{e9}");
    assert_eq!(read(&head), Err(Refused::BadTarget));
}

#[test]
fn connect_is_refused_and_a_web_socket_is_an_upgrade() {
    let plain = parts("CONNECT", "a.test:443", &[]);
    assert!(text(&write(&plain, false)).starts_with("CONNECT a.test:443 HTTP/1.1\r\n"));
    assert_eq!(refused(&plain), Refused::Connect);
    assert_eq!(refused(&connect("connect-udp", &[])), Refused::Connect);
    let without_key = write_head(&connect("websocket", &[]), false, || None);
    assert_eq!((read(&without_key), without_key.accept), (Err(Refused::Connect), None));

    let fields = [("sec-websocket-protocol", "chat"), ("sec-websocket-key", "client's"), ("origin", "https://a.test")];
    let head = write(&connect("websocket", &fields), false);
    let wanted = "GET /chat?x HTTP/1.1\r\nHost: a.test\r\nsec-websocket-protocol: chat\r\norigin: https://a.test\r\n\
                  Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                  Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    assert_eq!((text(&head).as_str(), head.body), (wanted, StreamBody::Tunnel));
    assert_eq!(head.accept, Some(*b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(read_request(&head.bytes).request(&head.bytes).upgrade(), Some(Upgrade::WebSocket));
    let head = write(&connect("WebSocket", &[("sec-websocket-version", "8")]), true);
    assert!(text(&head).contains("\r\nsec-websocket-version: 8\r\n") && !text(&head).contains("13"));
    assert_eq!((read(&head), head.body), (Ok(()), StreamBody::Tunnel));
    assert_eq!(refused(&connect("websocket", &[("content-length", "0")])), Refused::BadFieldName);
    // The protocol of a request that is no CONNECT says nothing.
    let mut get = parts("GET", "https://a.test/", &[]);
    get.extensions.insert(Protocol::from("websocket"));
    assert_eq!(write(&get, true).accept, None);
}

const NAMES: [&str; 13] = [
    "x",
    "cookie",
    "host",
    "te",
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "content_length",
    "expect",
    "trailer",
    "x-forwarded-for",
    "sec-websocket-key",
];

fn field() -> impl Strategy<Value = (HeaderName, HeaderValue)> {
    let name = prop_oneof![prop::sample::select(NAMES.to_vec()).prop_map(str::to_owned), "[a-z!#$%&'*+.^_`|~-]{1,8}"];
    let known = prop::sample::select(vec!["a.test", "trailers", "5", "a=1", "chunked", "", " "]);
    let value = prop_oneof![known.prop_map(|text| text.as_bytes().to_vec()), prop::collection::vec(any::<u8>(), 0..8)];
    (name, value).prop_filter_map("a name and a value that h2 takes", |(name, value)| {
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_bytes(&value).ok()?))
    })
}

/// The lines that a head may have when it is accepted.
fn wanted(parts: &Parts, head: &StreamHead) -> Vec<(Vec<u8>, Vec<u8>)> {
    let host = parts.uri.authority().map(|authority| authority.as_str().as_bytes().to_vec());
    let host = host.or_else(|| Some(parts.headers.get("host")?.as_bytes().to_vec()));
    let mut lines: Vec<_> = host.into_iter().map(|host| (b"host".to_vec(), host)).collect();
    let mut crumbs = 0;
    for (name, value) in parts.headers.iter().filter(|(name, _)| *name != "host") {
        let line = (name.as_str().as_bytes().to_vec(), value.as_bytes().to_vec());
        match (name.as_str(), lines.last_mut()) {
            ("sec-websocket-key", _) if head.body == StreamBody::Tunnel => {}
            ("cookie", Some(_)) if crumbs > 0 && value.is_empty() => {}
            ("cookie", Some((_, joined))) if crumbs > 0 => {
                let separator: &[u8] = if joined.is_empty() { b"" } else { b"; " };
                joined.extend([separator, value.as_bytes()].concat());
            }
            _ => lines.push(line),
        }
        crumbs += usize::from(name == "cookie");
    }
    let added: &[(&str, &str)] = match head.body {
        StreamBody::Chunked => &[("transfer-encoding", "chunked")],
        StreamBody::Tunnel => &[
            ("sec-websocket-version", "13"),
            ("upgrade", "websocket"),
            ("connection", "Upgrade"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ],
        StreamBody::None | StreamBody::Length => &[],
    };
    lines.extend(added.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())));
    lines
}

proptest! {
    #[test]
    fn what_is_read_is_what_was_given(
        method in prop::sample::select(vec!["GET", "POST", "OPTIONS", "CONNECT", "X!"]),
        uri in prop::sample::select(vec!["https://a.test/", "https://a.test/x?y|z", "/", "*", "a.test:1", "http://b"]),
        socket in any::<bool>(),
        ends in any::<bool>(),
        fields in prop::collection::vec(field(), 0..6),
    ) {
        let mut parts = parts(method, uri, &[]);
        fields.iter().for_each(|(name, value)| _ = parts.headers.append(name, value.clone()));
        if socket {
            parts.extensions.insert(Protocol::from("websocket"));
        }
        let head = write(&parts, ends);
        if read(&head).is_err() {
            return Ok(());
        }
        let reader = read_request(&head.bytes);
        let request = reader.request(&head.bytes);
        let got: Vec<_> = request.fields.iter().map(|f| (f.name.to_ascii_lowercase(), f.value.to_vec())).collect();
        prop_assert_eq!(got, wanted(&parts, &head));
        let path = parts.uri.path_and_query().map_or("", |path| path.as_str()).as_bytes();
        let target = if path == b"*" { Target::Asterisk } else { Target::Origin(path) };
        prop_assert_eq!(request.target, target);
        let tunnel = head.body == StreamBody::Tunnel;
        prop_assert_eq!(request.method_name, if tunnel { b"GET" } else { method.as_bytes() });
        prop_assert_eq!(request.upgrade().is_some(), tunnel);
        prop_assert_eq!(request.framing == Framing::Chunked, head.body == StreamBody::Chunked);
        prop_assert!(!ends || head.body != StreamBody::Length);
    }
}
