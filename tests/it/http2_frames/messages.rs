//! RFC 9113 §8: what a request may be. What is malformed never reaches a backend as a whole request.

use super::cases::{Allowed, Case, IGNORED, MALFORMED, SERVED, connection, run, run_at, stream};
use super::hpack::{block, indexed, literal};
use super::site::{Site, field};
use super::wire::*;

/// Fields of a request without those of these names.
fn without(names: &[&str]) -> Vec<(&'static str, &'static str)> {
    GET.into_iter().filter(|(name, _)| !names.contains(name)).collect()
}

/// Fields of a request with another value of one.
fn instead(name: &str, value: &'static str) -> Vec<(&'static str, &'static str)> {
    GET.into_iter().map(|(own, known)| (own, if own == name { value } else { known })).collect()
}

#[test]
fn section_8_1_framing() {
    let cases: &[Case] = &[
        ("8.1 trailers", SERVED, |c| {
            c.post(1, &[]);
            c.data(1, "data", false);
            c.head(1, &[("x-trailer", "1")], true);
        }),
        ("8.1 trailers without a body", SERVED, |c| {
            c.post(1, &[]);
            c.head(1, &[("x-trailer", "1")], true);
        }),
        ("8.1 trailers that do not end the stream", MALFORMED, |c| {
            c.post(1, &[]);
            c.data(1, "data", false);
            c.head(1, &[("x-trailer", "1")], false);
        }),
        ("8.1 DATA behind trailers", stream(STREAM_CLOSED), |c| {
            c.send(post(1, "/never"));
            c.head(1, &[("x-trailer", "1")], true);
            c.data(1, "data", true);
        }),
        // The crate h2 takes pseudo fields out of trailers: they reach no backend, and cannot be seen.
        ("8.1 a pseudo field in trailers", MALFORMED.or_status(200, 499), |c| {
            c.post(1, &[]);
            c.data(1, "data", false);
            c.head(1, &[(":path", "/other")], true);
        }),
        ("8.1 a field of one connection in trailers", MALFORMED, |c| {
            c.post(1, &[]);
            c.data(1, "data", false);
            c.head(1, &[("connection", "close")], true);
        }),
        ("8.1 a name in upper case in trailers", MALFORMED, |c| {
            c.post(1, &[]);
            c.data(1, "data", false);
            c.head(1, &[("X-Trailer", "1")], true);
        }),
    ];
    run(cases);
}

/// A request with a body, its content-length fields, and its DATA.
fn body(client: &mut Client, lengths: &[&str], pieces: &[&str]) {
    let fields: Vec<_> = lengths.iter().map(|length| ("content-length", *length)).collect();
    client.head(1, &[&POST[..], &fields].concat(), pieces.is_empty());
    for (at, piece) in pieces.iter().enumerate() {
        client.data(1, piece, at + 1 == pieces.len());
    }
}

#[test]
fn section_8_1_1_content_length() {
    let cases: &[Case] = &[
        ("8.1.1 a length that is right", SERVED, |c| body(c, &["4"], &["da", "ta"])),
        ("8.1.1 no length", SERVED, |c| body(c, &[], &["da", "ta"])),
        ("8.1.1 length 0 without DATA", SERVED, |c| body(c, &["0"], &[])),
        ("8.1.1 length 0 with empty DATA", SERVED, |c| body(c, &["0"], &[""])),
        ("8.1.1 less than the length", MALFORMED, |c| body(c, &["5"], &["data"])),
        ("8.1.1 more than the length", MALFORMED, |c| body(c, &["3"], &["data"])),
        ("8.1.1 more than the length in the second frame", MALFORMED, |c| body(c, &["4"], &["data", "x"])),
        ("8.1.1 a length without DATA", MALFORMED, |c| body(c, &["4"], &[])),
        ("8.1.1 length 0 with DATA", MALFORMED, |c| body(c, &["0"], &["data"])),
        ("8.1.1 less than the length in front of trailers", MALFORMED, |c| {
            c.post(1, &[("content-length", "5")]);
            c.data(1, "data", false);
            c.head(1, &[("x-trailer", "1")], true);
        }),
        ("8.1.1 two lengths that differ", MALFORMED, |c| body(c, &["4", "5"], &["data"])),
        ("8.1.1 two lengths in one field", MALFORMED, |c| body(c, &["4, 5"], &["data"])),
        ("8.1.1 two equal lengths", MALFORMED.or_status(200, 499), |c| body(c, &["4", "4"], &["data"])),
        ("8.1.1 a length that is no number", MALFORMED, |c| body(c, &["four"], &["data"])),
        ("8.1.1 a length with a sign", MALFORMED, |c| body(c, &["+4"], &["data"])),
        ("8.1.1 a length below nothing", MALFORMED, |c| body(c, &["-4"], &["data"])),
        ("8.1.1 an empty length", MALFORMED, |c| body(c, &[""], &["data"])),
        ("8.1.1 a length above 2^64", MALFORMED, |c| body(c, &["18446744073709551620"], &["data"])),
    ];
    run(cases);
}

/// A request with one field more, of any bytes.
fn odd(client: &mut Client, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
    client.block([block(&GET), literal(name, value)].concat());
}

#[test]
fn section_8_2_fields() {
    let cases: &[Case] = &[
        ("8.2.1 a name in upper case", MALFORMED, |c| odd(c, "X-Upper", "1")),
        ("8.2.1 a name with one upper letter", MALFORMED, |c| odd(c, "x-uppeR", "1")),
        ("8.2.1 an empty name", MALFORMED, |c| odd(c, "", "1")),
        ("8.2.1 a name with a space", MALFORMED, |c| odd(c, "x y", "1")),
        ("8.2.1 a name with a colon", MALFORMED, |c| odd(c, "x:y", "1")),
        ("8.2.1 a name with NUL", MALFORMED, |c| odd(c, b"x\0y", "1")),
        ("8.2.1 a name with CR LF", MALFORMED, |c| odd(c, "x: 1\r\ny", "1")),
        ("8.2.1 a name with DEL", MALFORMED, |c| odd(c, b"x\x7fy", "1")),
        ("8.2.1 a name above ASCII", MALFORMED, |c| odd(c, b"x\xe4y", "1")),
        ("8.2.1 a name with a parenthesis", MALFORMED, |c| odd(c, "x(y)", "1")),
        ("8.2.1 a value with NUL", MALFORMED, |c| odd(c, "x-odd", b"a\0b")),
        ("8.2.1 a value with CR", MALFORMED, |c| odd(c, "x-odd", b"a\rb")),
        ("8.2.1 a value with LF", MALFORMED, |c| odd(c, "x-odd", b"a\nb")),
        ("8.2.1 a value that smuggles a field", MALFORMED, |c| odd(c, "x-odd", b"a\r\nx-more: b")),
        ("8.2.1 a value that begins with a space", MALFORMED, |c| odd(c, "x-odd", b" a")),
        ("8.2.1 a value that begins with a tab", MALFORMED, |c| odd(c, "x-odd", b"\ta")),
        ("8.2.1 a value that ends with a space", MALFORMED, |c| odd(c, "x-odd", b"a ")),
        ("8.2.1 a value that ends with a tab", MALFORMED, |c| odd(c, "x-odd", b"a\t")),
        ("8.2.1 a value with a space inside", SERVED, |c| odd(c, "x-odd", b"a b")),
        ("8.2.1 an empty value", SERVED, |c| odd(c, "x-odd", b"")),
        ("8.2.1 a value above ASCII", SERVED, |c| odd(c, "x-odd", b"\xe4")),
        ("8.2.2 connection", MALFORMED, |c| odd(c, "connection", "keep-alive")),
        ("8.2.2 keep-alive", MALFORMED, |c| odd(c, "keep-alive", "timeout=5")),
        ("8.2.2 proxy-connection", MALFORMED, |c| odd(c, "proxy-connection", "keep-alive")),
        ("8.2.2 transfer-encoding", MALFORMED, |c| odd(c, "transfer-encoding", "chunked")),
        ("8.2.2 upgrade", MALFORMED, |c| odd(c, "upgrade", "websocket")),
        ("8.2.2 te with more than trailers", MALFORMED, |c| odd(c, "te", "trailers, deflate")),
        ("8.2.2 te without trailers", MALFORMED, |c| odd(c, "te", "gzip")),
        ("8.2.2 te: trailers", SERVED, |c| odd(c, "te", "trailers")),
        ("8.2.2 transfer-encoding with a body", MALFORMED, |c| {
            c.post(1, &[("transfer-encoding", "chunked")]);
            c.data(1, "0\r\n\r\n", true);
        }),
    ];
    run(cases);
}

#[test]
fn section_8_2_3_crumbs_of_cookies_are_joined() {
    let site = Site::start("");
    let mut client = site.client();
    let mut fields = GET.to_vec();
    fields[3].1 = "/echo";
    fields.extend([("cookie", "a=1"), ("x-between", "1"), ("cookie", "b=2"), ("cookie", "c=3; d=4")]);
    client.head(1, &fields, true);
    let head = String::from_utf8(client.response(1).body).expect("a head");
    assert_eq!(field(&head, "cookie"), Some("a=1; b=2; c=3; d=4"), "{head}");
    assert_eq!(head.to_ascii_lowercase().matches("cookie:").count(), 1, "{head}");
    assert_eq!(field(&head, "host"), Some("a.test"), "{head}");
    assert!(head.starts_with("GET /echo HTTP/1.1\r\n"), "{head}");
}

#[test]
fn section_8_3_pseudo_fields() {
    let cases: &[Case] = &[
        ("8.3 an unknown pseudo field", MALFORMED, |c| odd(c, ":unknown", "1")),
        ("8.3 an unknown pseudo field in front", MALFORMED, |c| {
            c.block([literal(":unknown", "1"), block(&GET)].concat());
        }),
        ("8.3 an empty pseudo field", MALFORMED, |c| c.block([literal(":", "1"), block(&GET)].concat())),
        ("8.3 :status in a request", MALFORMED, |c| c.block([indexed(8), block(&GET)].concat())),
        ("8.3 a pseudo field behind a field", MALFORMED, |c| {
            c.head(1, &[&GET[..3], &[("x-first", "1"), (":path", "/")]].concat(), true);
        }),
        ("8.3 no :method", MALFORMED, |c| c.head(1, &without(&[":method"]), true)),
        ("8.3 no :scheme", MALFORMED, |c| c.head(1, &without(&[":scheme"]), true)),
        ("8.3 no :path", MALFORMED, |c| c.head(1, &without(&[":path"]), true)),
        ("8.3 no field at all", MALFORMED, |c| c.head(1, &[], true)),
        ("8.3 two :method", MALFORMED, |c| c.head(1, &[&[(":method", "GET")], &GET[..]].concat(), true)),
        ("8.3 two :scheme", MALFORMED, |c| c.head(1, &[&[(":scheme", "http")], &GET[..]].concat(), true)),
        ("8.3 two :path", MALFORMED, |c| c.head(1, &[&[(":path", "/")], &GET[..]].concat(), true)),
        ("8.3 two :authority", MALFORMED, |c| c.head(1, &[&[(":authority", "a.test")], &GET[..]].concat(), true)),
        ("8.3.1 an empty :path", MALFORMED, |c| c.head(1, &instead(":path", ""), true)),
        ("8.3.1 an empty :method", MALFORMED, |c| c.head(1, &instead(":method", ""), true)),
        ("8.3.1 an empty :scheme", MALFORMED, |c| c.head(1, &instead(":scheme", ""), true)),
        ("8.3.1 an empty :authority", MALFORMED, |c| c.head(1, &instead(":authority", ""), true)),
        ("8.3.1 a :method with a space", MALFORMED, |c| c.head(1, &instead(":method", "GET /x"), true)),
        ("8.3.1 a :path without its slash", MALFORMED, |c| c.head(1, &instead(":path", "other"), true)),
        ("8.3.1 a :path with a space", MALFORMED, |c| c.head(1, &instead(":path", "/a b"), true)),
        ("8.3.1 a :path that smuggles a line", MALFORMED, |c| {
            c.head(1, &instead(":path", "/ HTTP/1.1\r\nx: y"), true);
        }),
        ("8.3.1 a :path with NUL", MALFORMED, |c| c.head(1, &instead(":path", "/\0"), true)),
        ("8.3.1 an absolute :path", MALFORMED, |c| c.head(1, &instead(":path", "http://a.test/"), true)),
        ("8.3.1 * for GET", MALFORMED, |c| c.head(1, &instead(":path", "*"), true)),
        ("8.3.1 * for OPTIONS", SERVED, |c| {
            c.head(1, &[(":method", "OPTIONS"), GET[1], GET[2], (":path", "*")], true);
        }),
        // The crate http takes the fragment off: it reaches no backend, and cannot be seen.
        ("8.3.1 a :path with a fragment", MALFORMED.or_status(200, 499), |c| {
            c.head(1, &instead(":path", "/a#b"), true);
        }),
        ("8.3.1 a :path with a query", SERVED, |c| c.head(1, &instead(":path", "/?a=b&c=%20"), true)),
        ("8.3.1 :authority with a user", MALFORMED, |c| c.head(1, &instead(":authority", "user@a.test"), true)),
        ("8.3.1 :authority with a path", MALFORMED, |c| c.head(1, &instead(":authority", "a.test/x"), true)),
        ("8.3.1 :authority with a space", MALFORMED, |c| c.head(1, &instead(":authority", "a test"), true)),
        ("8.3.1 :authority that smuggles a line", MALFORMED, |c| {
            c.head(1, &instead(":authority", "a.test\r\nx: y"), true);
        }),
        ("8.3.1 :authority with a port", SERVED, |c| c.head(1, &instead(":authority", "a.test:81"), true)),
        ("8.3.1 host alone", SERVED, |c| {
            c.head(1, &[&without(&[":authority"])[..], &[("host", "a.test")]].concat(), true);
        }),
        ("8.3.1 host that equals :authority", SERVED, |c| c.get(1, &[("host", "a.test")])),
        ("8.3.1 host that differs from :authority", MALFORMED, |c| c.get(1, &[("host", "b.test")])),
        ("8.3.1 two hosts", MALFORMED, |c| c.get(1, &[("host", "a.test"), ("host", "a.test")])),
        ("8.3.1 neither host nor :authority", MALFORMED, |c| c.head(1, &without(&[":authority"]), true)),
        ("8.3.1 a :scheme that is none", MALFORMED, |c| c.head(1, &instead(":scheme", "ht tp"), true)),
        ("8.3 a method that is not known", SERVED, |c| c.head(1, &instead(":method", "BREW"), true)),
        ("8.3 HEAD", SERVED, |c| c.head(1, &instead(":method", "HEAD"), true)),
        ("8.3 a :path of 4 KiB", SERVED, |c| {
            let path = "/".repeat(4_096);
            c.block([block(&GET[..3]), literal(":path", path)].concat());
        }),
    ];
    let site = Site::start("");
    run_at(&site, cases);
    assert_eq!(site.received.count("x: y"), 0, "a line was smuggled");
}

/// CONNECT is refused: there is nothing behind a pool that it could reach.
const REFUSED: Allowed = MALFORMED.or_status(400, 501);

#[test]
fn section_8_5_connect() {
    let connect: &[Case] = &[
        ("8.5 CONNECT", REFUSED, |c| c.head(1, &[(":method", "CONNECT"), (":authority", "a.test:80")], false)),
        ("8.5 CONNECT with END_STREAM", REFUSED, |c| {
            c.head(1, &[(":method", "CONNECT"), (":authority", "a.test:80")], true);
        }),
        ("8.5 CONNECT with :scheme and :path", REFUSED, |c| c.head(1, &instead(":method", "CONNECT"), true)),
        ("8.5 CONNECT without :authority", REFUSED, |c| c.head(1, &[(":method", "CONNECT")], true)),
        ("8.5 CONNECT with host alone", REFUSED, |c| {
            c.head(1, &[(":method", "CONNECT"), ("host", "a.test:80")], true);
        }),
    ];
    let site = Site::start("");
    run_at(&site, connect);
    assert_eq!(site.received.count("CONNECT"), 0, "CONNECT reached a backend");
}

#[test]
fn section_8_6_and_8_4_no_push_and_interim_responses() {
    let cases: &[Case] = &[
        ("8.4 a client that allows push gets none", SERVED, |c| {
            c.send(settings(&[(ENABLE_PUSH, 1)]));
            c.get(1, &[]);
        }),
        ("8.1 a body that is asked for first", SERVED, |c| {
            c.post(1, &[("expect", "100-continue"), ("content-length", "4")]);
            c.data(1, "data", true);
        }),
        ("8.1 another expectation", SERVED.or_status(200, 417), |c| c.get(1, &[("expect", "miracles")])),
        ("8.7 a stream that is given up at once", IGNORED, |c| {
            c.get(1, &[]);
            c.reset(1, CANCEL);
        }),
        ("5.1 a stream that is given up in its head", connection(PROTOCOL_ERROR), |c| {
            c.frame(HEADERS, END_STREAM, 1, block(&GET));
            c.reset(1, CANCEL);
        }),
    ];
    run(cases);
}
