//! Requests that break RFC 9113 section 8, and odd ones that do not.
//!
//! A malformed request is an error of its stream (section 8.1.1): RST_STREAM, a reply with a status from 400, or even
//! the end of the connection with a code. Invariant: no malformed request reaches a backend.

use super::frames::{CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, HEADERS, Outcome, PRIORITY, block, get};
use super::site::Site;
use super::{HTTP, figure, plain};
use crate::support::Sessile;

type Fields<'f> = Vec<(&'f str, &'f str)>;

/// The head of a good GET with more fields.
fn with<'f>(fields: &[(&'f str, &'f str)]) -> Fields<'f> {
    [&get("/bad")[..], fields].concat()
}

/// The head of a good GET in which a field has another value.
fn changed<'f>(name: &'f str, value: &'f str) -> Fields<'f> {
    get("/bad").into_iter().map(|(known, old)| (known, if known == name { value } else { old })).collect()
}

/// The head of a good GET without a field.
fn without(name: &str) -> Fields<'static> {
    get("/bad").into_iter().filter(|(known, _)| *known != name).collect()
}

/// A connection that is opened anew when a test has cost it.
struct Tries<'s> {
    sessile: &'s Sessile,
    frames: Frames,
    next: u32,
    /// What cost the whole connection.
    costly: Vec<String>,
    /// What was served all the same.
    served: Vec<String>,
}

impl<'s> Tries<'s> {
    fn new(sessile: &'s Sessile) -> Self {
        Self { sessile, frames: Frames::open(sessile.address("l")), next: 1, costly: Vec::new(), served: Vec::new() }
    }

    fn stream(&mut self) -> u32 {
        self.next += 2;
        self.next - 2
    }

    /// Judges what comes of a stream, and whether the connection goes on.
    fn refused(&mut self, what: &str, stream: u32) {
        match self.frames.outcome(stream) {
            Outcome::Status(status @ 400..600) => assert_ne!(status, 502, "{what}: the backend saw it"),
            Outcome::Status(status) => self.served.push(format!("{what}: {status}")),
            Outcome::Reset(code) => assert_ne!(code, 0, "{what}"),
            Outcome::GoAway(_) | Outcome::Closed => {
                self.costly.push(what.to_owned());
                (self.frames, self.next) = (Frames::open(self.sessile.address("l")), 1);
            }
        }
        let stream = self.stream();
        assert_eq!(self.frames.asks(stream, "/good"), Outcome::Status(200), "after {what}");
    }
}

#[test]
fn malformed_heads_reach_no_backend() {
    let site = Site::named("x");
    let sessile = plain("", HTTP, &[site.address()]);
    let mut tries = Tries::new(&sessile);
    let heads: Vec<(&str, Fields<'_>)> = vec![
        ("an upper-case name", with(&[("X-Upper", "1")])),
        ("connection", with(&[("connection", "close")])),
        ("keep-alive", with(&[("keep-alive", "timeout=5")])),
        ("proxy-connection", with(&[("proxy-connection", "keep-alive")])),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")])),
        ("upgrade", with(&[("upgrade", "websocket")])),
        ("te", with(&[("te", "gzip")])),
        ("te of two", with(&[("te", "trailers, gzip")])),
        ("no method", without(":method")),
        ("no scheme", without(":scheme")),
        ("no path", without(":path")),
        ("no authority and no host", without(":authority")),
        ("an empty path", changed(":path", "")),
        ("an empty method", changed(":method", "")),
        ("a path without a slash", changed(":path", "bad")),
        ("a path that is a URL", changed(":path", "http://b.test/bad")),
        ("a star for GET", changed(":path", "*")),
        ("a space in the path", changed(":path", "/bad x")),
        ("a line in the path", changed(":path", "/bad HTTP/1.1\r\nx: y")),
        ("a line in the method", changed(":method", "GET /bad HTTP/1.1\r\nx: y")),
        ("a space in the method", changed(":method", "GET /bad")),
        ("a line in the authority", changed(":authority", "a.test\r\nx: y")),
        ("a space in the authority", changed(":authority", "a.test b")),
        ("user information", changed(":authority", "ann@a.test")),
        ("a path in the authority", changed(":authority", "a.test/x")),
        ("two paths", with(&[(":path", "/bad")])),
        ("two methods", with(&[(":method", "GET")])),
        ("two schemes", with(&[(":scheme", "https")])),
        ("two authorities", with(&[(":authority", "a.test")])),
        ("a status", with(&[(":status", "200")])),
        ("an unknown pseudo-header", with(&[(":foo", "1")])),
        ("a protocol for GET", with(&[(":protocol", "websocket")])),
        ("a pseudo-header behind a field", [&[("x-a", "b")][..], &get("/bad")].concat()),
        ("another host", with(&[("host", "b.test")])),
        ("two hosts", with(&[("host", "a.test"), ("host", "a.test")])),
        ("a NUL in a value", with(&[("x-a", "b\0c")])),
        ("a CR in a value", with(&[("x-a", "b\rc")])),
        ("a LF in a value", with(&[("x-a", "b\nc")])),
        ("a line in a value", with(&[("x-a", "b\r\nx-c: d")])),
        ("a space before a value", with(&[("x-a", " b")])),
        ("a space behind a value", with(&[("x-a", "b ")])),
        ("a tab behind a value", with(&[("x-a", "b\t")])),
        ("an empty name", with(&[("", "b")])),
        ("a space in a name", with(&[("x a", "b")])),
        ("a colon in a name", with(&[("x:a", "b")])),
        ("a line in a name", with(&[("x-a: b\r\nx-c", "d")])),
        ("a length without a body", with(&[("content-length", "5")])),
        ("two lengths", with(&[("content-length", "0"), ("content-length", "1")])),
        ("a length that is no number", with(&[("content-length", "+0")])),
        ("a CONNECT", vec![(":method", "CONNECT"), (":authority", "a.test:443")]),
        ("a CONNECT with a path", changed(":method", "CONNECT")),
        ("a CONNECT to another protocol", [&[(":protocol", "other")][..], &changed(":method", "CONNECT")].concat()),
    ];
    for (what, fields) in &heads {
        let stream = tries.stream();
        tries.frames.head(stream, fields, true);
        tries.refused(what, stream);
    }
    println!("the whole connection ended for: {:?}", tries.costly);
    let paths: Vec<_> = site.connections().into_iter().flatten().filter(|path| path != "/good").collect();
    assert!(paths.is_empty(), "{paths:?}");
    // The end of a connection for an error of one stream is allowed (section 5.4), but no rule.
    assert!(tries.costly.len() <= 13, "errors of a stream ended the connection: {:?}", tries.costly);
    assert!(tries.served.is_empty(), "{:?}", tries.served);
    assert!(figure(&sessile, "sessile_http2_local_resets_total") >= 1.0);
}

#[test]
fn bodies_that_are_not_as_long_as_they_say_are_refused() {
    let site = Site::named("x");
    let sessile = plain("", HTTP, &[site.address()]);
    let mut tries = Tries::new(&sessile);
    for (length, pieces) in [("5", &["abc"][..]), ("5", &["abcdefg"]), ("5", &["abc", "defg"]), ("0", &["a"])] {
        let stream = tries.stream();
        let head = [&changed(":method", "POST")[..], &[("content-length", length)]].concat();
        let head: Vec<_> =
            head.into_iter().map(|(name, value)| (name, if name == ":path" { "/up" } else { value })).collect();
        tries.frames.head(stream, &head, false);
        for (index, piece) in pieces.iter().enumerate() {
            let end = u8::from(index + 1 == pieces.len());
            tries.frames.send(DATA, end * END_STREAM, stream, piece.as_bytes());
        }
        tries.refused(&format!("{pieces:?} for {length}"), stream);
    }
    assert!(tries.costly.is_empty(), "errors of a stream ended the connection: {:?}", tries.costly);
    assert!(tries.served.is_empty(), "{:?}", tries.served);
    let uploads = site.connections().into_iter().flatten().filter(|path| path == "/up").count();
    println!("{uploads} heads came to the backend");
}

#[test]
fn trailers_that_are_malformed_are_refused() {
    let site = Site::named("x");
    let sessile = plain("", HTTP, &[site.address()]);
    let mut tries = Tries::new(&sessile);
    let post: Vec<_> = vec![(":method", "POST"), (":scheme", "http"), (":authority", "a.test"), (":path", "/up")];
    for (what, trailers, end) in [
        // Pseudo-headers are left out: the crate `h2` drops them of trailers, and they go nowhere.
        ("no end", &[("x-sum", "7")][..], false),
        ("an upper-case name", &[("X-Sum", "7")], true),
        ("a line in a value", &[("x-sum", "7\r\n\r\nGET /bad HTTP/1.1")], true),
        ("a connection field", &[("connection", "close")], true),
    ] {
        let stream = tries.stream();
        tries.frames.head(stream, &post, false);
        tries.frames.send(DATA, 0, stream, b"hello");
        tries.frames.head(stream, trailers, end);
        tries.refused(what, stream);
    }
    println!("the whole connection ended for: {:?}", tries.costly);
    assert!(!site.connections().iter().flatten().any(|path| path == "/bad"));
    assert!(tries.served.is_empty(), "{:?}", tries.served);
}

#[test]
fn odd_requests_that_are_allowed_are_served() {
    let site = Site::named("x");
    let sessile = plain("", HTTP, &[site.address()]);
    let mut tries = Tries::new(&sessile);
    let good = |fields: &[(&'static str, &'static str)]| [&get("/good")[..], fields].concat();
    let only_host: Fields<'_> = get("/good")
        .into_iter()
        .map(|(name, value)| (if name == ":authority" { "host" } else { name }, value))
        .collect();
    let only_host = [&only_host[..2], &only_host[3..], &only_host[2..3]].concat();
    for (what, fields) in [
        ("a host in place of an authority", only_host),
        ("a host that is the authority", good(&[("host", "a.test")])),
        ("te: trailers", good(&[("te", "trailers")])),
        ("a value in the middle of which are blanks", good(&[("x-a", "b \t c")])),
        ("a value that is not ASCII", good(&[("x-a", "b\u{fc}cher")])),
        ("an empty value", good(&[("x-a", "")])),
        ("crumbs of a cookie", good(&[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "")])),
        ("http as the scheme", good(&[])),
        ("a priority", good(&[("priority", "u=1, i")])),
    ] {
        let stream = tries.stream();
        tries.frames.head(stream, &fields, true);
        assert_eq!(tries.frames.outcome(stream), Outcome::Status(200), "{what}");
    }
    // OPTIONS of the server as a whole.
    let stream = tries.stream();
    tries.frames.head(
        stream,
        &[(":method", "OPTIONS"), (":scheme", "http"), (":authority", "a.test"), (":path", "*")],
        true,
    );
    assert_eq!(tries.frames.outcome(stream), Outcome::Status(200), "OPTIONS *");
    assert!(site.connections().iter().flatten().any(|path| path == "*"));
}

#[test]
fn frames_of_every_allowed_form_are_read() {
    let site = Site::named("x");
    let sessile = plain("", HTTP, &[site.address()]);
    let mut frames = Frames::open(sessile.address("l"));
    // A head in three frames, with padding and a priority in the first.
    let whole = block(&get("/good"));
    let (first, rest) = whole.split_at(5);
    let (second, third) = rest.split_at(7);
    let padded = [&[3][..], &[0, 0, 0, 0, 15], first, &[0; 3]].concat();
    frames.send(HEADERS, END_STREAM | 0x8 | 0x20, 1, &padded);
    frames.send(CONTINUATION, 0, 1, second);
    frames.send(CONTINUATION, END_HEADERS, 1, third);
    assert_eq!(frames.outcome(1), Outcome::Status(200));
    // Kinds that are not known, settings that are not known, and priorities, are nothing.
    frames.send(0x42, 0xff, 0, b"what is this");
    frames.send(0x43, 0, 1, b"");
    frames.send(PRIORITY, 0, 7, &[0, 0, 0, 0, 15]);
    frames.send(super::frames::SETTINGS, 0, 0, &[0xba, 0xbe, 0, 0, 0, 1]);
    assert_eq!(frames.asks(3, "/good"), Outcome::Status(200));
    // A body with padding, and a last frame without a byte.
    frames.head(5, &[(":method", "POST"), (":scheme", "http"), (":authority", "a.test"), (":path", "/up")], false);
    frames.send(DATA, 0x8, 5, &[&[200][..], b"hello", &[0; 200]].concat());
    frames.send(DATA, END_STREAM, 5, &[]);
    assert_eq!(frames.outcome(5), Outcome::Status(200));
    assert_eq!(site.upload().length, 5);
    let ping = *b"12345678";
    frames.send(super::frames::PING, 0, 0, &ping);
    let pong = frames.until(|frame| frame.kind == super::frames::PING).expect("an answer");
    assert_eq!((pong.flags, &pong.payload[..]), (super::frames::ACK, &ping[..]));
}
