//! What is found in heads that are good, and how much of a head is waited for.

use proptest::prelude::*;

use super::*;
use crate::http::field::KnownField;
use crate::http::head::{HEAD_MAX, REQUEST_LINE_MAX};
use crate::http::target::{Host, Target};

#[test]
fn a_request_is_seen_as_it_was_written() {
    let bytes = b"POST /a?b HTTP/1.1\r\nhost: A.example:8443\r\nX-Y: \tz \r\nX-y:w\r\nEmpty:\r\nContent-Length: 3\r\n\r\nabcGET";
    let reader = read_request(bytes);
    let request = reader.request(bytes);
    assert_eq!((request.method, request.method_name), (Method::Post, &b"POST"[..]));
    assert_eq!(request.target, Target::Origin(b"/a?b"));
    assert_eq!(request.version, Version::Http11);
    assert_eq!(request.framing, Framing::Length(3));
    assert_eq!(&bytes[request.length..], b"abcGET");
    let host = Host { bytes: b"A.example:8443", name: b"A.example", port: Some(8443) };
    assert_eq!(request.host(), Some(host));
    let fields: Vec<_> = request.fields.iter().map(|field| (field.name, field.value)).collect();
    let wanted: [(&[u8], &[u8]); 5] =
        [(b"host", b"A.example:8443"), (b"X-Y", b"z"), (b"X-y", b"w"), (b"Empty", b""), (b"Content-Length", b"3")];
    assert_eq!(fields, wanted);
    assert_eq!(request.fields.named("x-Y").collect::<Vec<_>>(), [b"z", b"w"]);
    assert!(request.fields.has(KnownField::Host) && !request.fields.has(KnownField::Cookie));
}

#[test]
fn an_absolute_target_is_taken_apart() {
    for (target, authority, path) in [
        ("http://a", "a", ""),
        ("HTTP://a/", "a", "/"),
        ("https://a:1?b", "a:1", "?b"),
        ("http://[::1]:80/b?c=http://d/", "[::1]:80", "/b?c=http://d/"),
    ] {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
        let reader = read_request(bytes.as_bytes());
        let request = reader.request(bytes.as_bytes());
        let (Target::Absolute { authority: found, path: rest, .. }, Some(host)) = (request.target, request.host())
        else {
            panic!("{target}")
        };
        assert_eq!((found, rest, host.bytes), (authority.as_bytes(), path.as_bytes(), authority.as_bytes()));
    }
}

#[test]
fn a_response_is_seen_as_it_was_written() {
    let bytes = b"HTTP/1.0 404 Not \xc3\xa9 here\r\nSet-Cookie: a=b\r\nset-cookie: c=d\r\n\r\n";
    let reader = read_response(bytes, ASKED);
    let response = reader.response(bytes);
    assert_eq!((response.version, response.status), (Version::Http10, 404));
    assert_eq!(response.reason, b"Not \xc3\xa9 here");
    assert_eq!(response.fields.all(KnownField::SetCookie).collect::<Vec<_>>(), [b"a=b", b"c=d"]);
    assert_eq!(response.length, bytes.len());
}

#[test]
fn every_field_there_is_a_rule_for_is_found_in_any_case() {
    for known in KnownField::ALL {
        let name = known.name();
        for name in [name.to_owned(), name.to_uppercase(), name.to_lowercase()] {
            assert_eq!(KnownField::of(name.as_bytes()), *known, "{name}");
        }
        assert_eq!(KnownField::of(format!("{name}x").as_bytes()), KnownField::Other);
        assert_eq!(KnownField::of(&name.as_bytes()[1..]), KnownField::Other);
    }
}

#[test]
fn a_reader_reads_one_head_after_another() {
    let bytes = b"GET /a HTTP/1.1\r\nHost: a\r\nCookie: x\r\n\r\nHEAD /b HTTP/1.0\r\n\r\n";
    let mut reader = RequestReader::new();
    let Progress::Done(first) = reader.read(bytes) else { panic!("not read") };
    assert_eq!(reader.read(bytes), Progress::Done(first), "asked again");
    reader.reset();
    assert_eq!(reader.read(&bytes[first..]), Progress::Done(bytes.len() - first));
    let request = reader.request(&bytes[first..]);
    assert_eq!((request.method, request.version), (Method::Head, Version::Http10));
    assert_eq!(request.fields.iter().count(), 0);
    assert!(!request.fields.has(KnownField::Cookie) && request.host().is_none());
}

#[test]
fn a_reader_that_has_refused_refuses_whatever_is_shown_next() {
    let good = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for bad in [&b"Host: a\r\n"[..], b"GET / HTTP/1.1\r\n: x\r\n", b"GET / HTTP/1.1\r\n\r\n"] {
        let mut reader = RequestReader::new();
        let refused = reader.read(bad);
        assert!(matches!(refused, Progress::No(_)), "{refused:?}");
        assert_eq!((reader.read(&[bad, good].concat()), reader.read(good)), (refused, refused));
        reader.reset();
        assert_eq!(reader.read(good), Progress::Done(good.len()));
    }
}

#[test]
fn no_more_is_waited_for_than_the_longest_head() {
    let request_line = [&b"GET /"[..], &vec![b'a'; REQUEST_LINE_MAX - 3]].concat();
    assert_eq!(RequestReader::new().read(&request_line[..REQUEST_LINE_MAX]), Progress::More);
    assert_eq!(RequestReader::new().read(&request_line), Progress::No(Refused::RequestLineTooLong));
    let start = b"GET / HTTP/1.1\r\nHost: a\r\nX: ";
    let mut head = [&start[..], &vec![b'y'; HEAD_MAX]].concat();
    assert_eq!(RequestReader::new().read(&head[..HEAD_MAX - 1]), Progress::More);
    assert_eq!(RequestReader::new().read(&head[..HEAD_MAX]), Progress::No(Refused::HeadTooLong));
    head.truncate(HEAD_MAX);
    head[HEAD_MAX - 4..].copy_from_slice(b"\r\n\r\n");
    assert_eq!(RequestReader::new().read(&head), Progress::Done(HEAD_MAX));
}

#[test]
fn hosts_are_read_by_the_letter() {
    for (text, name, port) in [
        ("a", "a", None),
        ("a:", "a", None),
        ("a-b_c.D~:0", "a-b_c.D~", Some(0)),
        ("10.0.0.1:65535", "10.0.0.1", Some(65535)),
        ("1.2.3", "1.2.3", None),
        ("1.2.3.4.", "1.2.3.4.", None),
        ("1.2.3.4.5", "1.2.3.4.5", None),
        ("1.2.3.256:1", "1.2.3.256", Some(1)),
        ("[::ffff:1.2.3.4]:1", "[::ffff:1.2.3.4]", Some(1)),
    ] {
        let host = Host::read(text.as_bytes()).expect(text);
        assert_eq!((host.bytes, host.name, host.port), (text.as_bytes(), name.as_bytes(), port));
        assert_eq!(host.is_address(), text.starts_with("10.") || text.starts_with('['), "{text}");
    }
    for bad in ["", ":80", "a b", "a,b", "a%41", "[]", "[::1", "[::1]80", "[fe80::1%25a]", "[v1.a]", "a:99999", "a:-1"]
    {
        assert_eq!(Host::read(bad.as_bytes()), Err(Refused::BadHost), "{bad}");
    }
}

/// A field whose name nothing has a rule for.
fn field() -> impl Strategy<Value = (String, Vec<u8>)> {
    (
        "X-[!#$%&'*+.^`|~0-9A-Za-z-]{0,30}",
        proptest::collection::vec(prop_oneof![0x20u8..0x7f, 0x80u8.., Just(9)], 0..60),
    )
}

proptest! {
    #[test]
    fn good_heads_are_read_however_they_are_cut(
        path in "/[!-\"$-~]{0,200}",
        list in proptest::collection::vec(field(), 0..40),
        stops in proptest::collection::vec(any::<prop::sample::Index>(), 0..9),
    ) {
        let mut bytes = format!("GET {path} HTTP/1.1\r\nHost: a\r\n").into_bytes();
        for (name, value) in &list {
            bytes.extend([name.as_bytes(), b":", value, b"\r\n"].concat());
        }
        bytes.extend(b"\r\n");
        let mut stops: Vec<_> = stops.iter().map(|stop| stop.index(bytes.len())).collect();
        stops.sort_unstable();
        let mut reader = RequestReader::new();
        for stop in stops {
            prop_assert_eq!(reader.read(&bytes[..stop]), Progress::More);
        }
        prop_assert_eq!(reader.read(&bytes), Progress::Done(bytes.len()));
        let request = reader.request(&bytes);
        prop_assert_eq!(request.target, Target::Origin(path.as_bytes()));
        let found: Vec<_> = request.fields.iter().skip(1).map(|field| (field.name, field.value)).collect();
        let trimmed = |value: &Vec<u8>| {
            let text = value.iter().position(|byte| !b" \t".contains(byte)).unwrap_or(value.len());
            let end = value.iter().rposition(|byte| !b" \t".contains(byte)).map_or(text, |at| at + 1);
            value[text..end].to_vec()
        };
        let wanted: Vec<_> = list.iter().map(|(name, value)| (name.as_bytes(), trimmed(value))).collect();
        prop_assert_eq!(found.len(), wanted.len());
        for (found, wanted) in found.iter().zip(&wanted) {
            prop_assert_eq!(found.0, wanted.0);
            prop_assert_eq!(found.1, &wanted.1[..]);
        }
    }

    #[test]
    fn a_fresh_reader_of_longer_bytes_agrees(
        parts in proptest::collection::vec(part(), 0..30),
        stops in proptest::collection::vec(any::<prop::sample::Index>(), 0..9),
    ) {
        let bytes = parts.concat();
        let mut stops: Vec<_> = stops.iter().map(|stop| stop.index(bytes.len() + 1)).collect();
        stops.sort_unstable();
        let whole = (RequestReader::new().read(&bytes), ResponseReader::new().read(&bytes, ASKED));
        let (mut request, mut response) = (RequestReader::new(), ResponseReader::new());
        for stop in stops.into_iter().chain([bytes.len()]) {
            let piece = &bytes[..stop];
            // A reader that has seen the shorter pieces, and one that has seen nothing.
            let fresh_request = RequestReader::new().read(piece);
            let fresh_response = ResponseReader::new().read(piece, ASKED);
            prop_assert_eq!(request.read(piece), fresh_request, "{}", piece.escape_ascii());
            prop_assert_eq!(response.read(piece, ASKED), fresh_response, "{}", piece.escape_ascii());
            // What is final for the piece is final for all bytes.
            prop_assert!(fresh_request == Progress::More || fresh_request == whole.0, "{}", bytes.escape_ascii());
            prop_assert!(fresh_response == Progress::More || fresh_response == whole.1, "{}", bytes.escape_ascii());
        }
    }
}

/// A piece of a head, good or bad in its place.
fn part() -> impl Strategy<Value = Vec<u8>> {
    const LINES: [&str; 12] = [
        "GET / HTTP/1.1\r\n",
        "GET http://a/ HTTP/1.0\r\n",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 204 No Content\r\n",
        "Host: a\r\n",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Connection: upgrade\r\n",
        "X-Long: 0123456789 0123456789\r\n",
        "X: y\r\n",
        "\r\n",
        "\r\n",
    ];
    prop_oneof![
        20 => proptest::sample::select(LINES.to_vec()).prop_map(|line| line.as_bytes().to_vec()),
        1 => proptest::sample::select(vec!["\n", "\r", " ", ":", "\0"]).prop_map(|text| text.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..20),
    ]
}
