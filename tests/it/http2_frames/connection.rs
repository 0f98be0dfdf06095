//! RFC 9113 §3.4 to §5.5 and §7: the preface, frames as such, header compression, the states of streams, errors.

use std::time::Duration;

use super::cases::{Case, IGNORED, SERVED, connection, run, stream};
use super::hpack::{block, huffman_bytes, indexed, indexing, integer, literal, plain, table_size};
use super::site::Site;
use super::wire::*;
use crate::support::PATIENCE;

/// Block of a request with more bytes of header compression behind it.
fn with(more: impl AsRef<[u8]>) -> Vec<u8> {
    [&block(&GET), more.as_ref()].concat()
}

/// Fields of a request that the backend never replies to.
const NEVER: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", "/never")];

/// Sends a request that gets no response.
fn unanswered(client: &mut Client) {
    client.head(1, &NEVER, true);
}

/// A stream that was closed by a response.
fn answered(client: &mut Client) {
    client.get(1, &[]);
    client.response(1);
}

/// A stream that was closed by the client's RST_STREAM.
fn cancelled(client: &mut Client) {
    client.head(1, &NEVER, true);
    client.reset(1, CANCEL);
}

/// Priority of a stream that depends on another.
fn depends_on(other: u32) -> Vec<u8> {
    [&other.to_be_bytes()[..], &[15]].concat()
}

#[test]
fn section_4_frames() {
    let cases: &[Case] = &[
        ("4.1 a frame of an unknown kind", IGNORED, |c| c.frame(0xbe, 0xff, 0, b"unknown")),
        ("4.1 a frame of an unknown kind on a stream", connection(PROTOCOL_ERROR).or_ignored(), |c| {
            c.frame(0xbe, 0, 7, b"");
        }),
        ("4.1 flags without meaning", SERVED, |c| c.frame(HEADERS, 0xd2 | END_HEADERS | END_STREAM, 1, block(&GET))),
        ("4.1 flags without meaning on PING", IGNORED, |c| c.frame(PING, 0xfe, 0, [1; 8])),
        ("4.1 the reserved bit", SERVED, |c| c.frame(HEADERS, END_HEADERS | END_STREAM, 1 | 1 << 31, block(&GET))),
        ("4.1 the reserved bit of PING", IGNORED, |c| c.frame(PING, 0, 1 << 31, [1; 8])),
        ("4.2 DATA of the greatest size", SERVED, |c| {
            c.post(1, &[]);
            c.data(1, [0; 16_384], true);
        }),
        ("4.2 DATA that is too long", stream(FRAME_SIZE_ERROR), |c| {
            c.post(1, &[]);
            c.data(1, [0; 16_385], true);
        }),
        ("4.2 HEADERS that are too long", connection(FRAME_SIZE_ERROR), |c| {
            c.frame(HEADERS, END_HEADERS | END_STREAM, 1, with(literal("x-long", vec![b'x'; 16_384])));
        }),
        ("4.2 SETTINGS that are too long", connection(FRAME_SIZE_ERROR), |c| {
            c.send(settings(&[(0xf0f0, 0); 2_731]));
        }),
        ("4.2 an unknown kind that is too long", connection(FRAME_SIZE_ERROR).or_ignored(), |c| {
            c.frame(0xbe, 0, 0, [0; 16_385]);
        }),
        ("4.2 PING of 16 MiB, of which nothing comes", connection(FRAME_SIZE_ERROR), |c| {
            c.send([0xff, 0xff, 0xff, PING, 0, 0, 0, 0, 0]);
        }),
    ];
    run(cases);
}

#[test]
fn section_4_3_header_compression() {
    let cases: &[Case] = &[
        ("4.3 index 0", connection(COMPRESSION_ERROR), |c| c.block(with(indexed(0)))),
        ("4.3 an index behind both tables", connection(COMPRESSION_ERROR), |c| c.block(with(indexed(70)))),
        ("4.3 a name by an index behind both tables", connection(COMPRESSION_ERROR), |c| {
            c.block(with([integer(70, 4, 0), plain("x")].concat()));
        }),
        ("4.3 a literal without its value", connection(COMPRESSION_ERROR), |c| {
            c.block(with(&literal("x-cut", "value")[..9]));
        }),
        ("4.3 a string longer than the block", connection(COMPRESSION_ERROR), |c| {
            c.block(with([&[0][..], &plain("x-cut"), &integer(100, 7, 0), b"short"].concat()));
        }),
        ("4.3 an integer without end", connection(COMPRESSION_ERROR), |c| c.block(with([0xff; 16]))),
        ("4.3 Huffman padding of zeros", connection(COMPRESSION_ERROR), |c| {
            c.block(with([&[0][..], &plain("x-coded"), &huffman_bytes(&[0b0001_1000])].concat()));
        }),
        ("4.3 Huffman padding of a whole byte", connection(COMPRESSION_ERROR), |c| {
            c.block(with([&[0][..], &plain("x-coded"), &huffman_bytes(&[0b0001_1111, 0xff])].concat()));
        }),
        ("4.3 the Huffman symbol that ends a string", connection(COMPRESSION_ERROR), |c| {
            c.block(with([&[0][..], &plain("x-coded"), &huffman_bytes(&[0xff; 4])].concat()));
        }),
        ("4.3 a table above the limit", connection(COMPRESSION_ERROR), |c| {
            c.block([table_size(1 << 20), block(&GET)].concat());
        }),
        ("4.3 a table size behind a field", connection(COMPRESSION_ERROR), |c| c.block(with(table_size(0)))),
        ("4.3 two table sizes in front", SERVED, |c| {
            c.block([table_size(0), table_size(4_096), block(&GET)].concat());
        }),
        ("4.3 an entry that the change of the table's size evicts", connection(COMPRESSION_ERROR), |c| {
            c.block(with(indexing("x-first", "1")));
            c.frame(HEADERS, END_HEADERS | END_STREAM, 3, [table_size(0), with(indexed(62))].concat());
            c.watched = 3;
        }),
        ("4.3 strings in Huffman code", SERVED, |c| {
            let path = super::huffman::encode(b"/");
            c.block([&block(&GET[..3]), &[4][..], &huffman_bytes(&path)].concat());
        }),
        ("4.3 fields that are never indexed", SERVED, |c| {
            c.block([block(&GET[..3]), integer(4, 4, 0x10), plain("/")].concat());
        }),
        ("4.3 DATA inside a head", connection(PROTOCOL_ERROR), |c| {
            c.frame(HEADERS, END_STREAM, 1, block(&GET));
            c.data(1, "", false);
        }),
        ("4.3 PRIORITY inside a head", connection(PROTOCOL_ERROR), |c| {
            c.frame(HEADERS, END_STREAM, 1, block(&GET));
            c.frame(PRIORITY, 0, 1, depends_on(0));
        }),
        ("4.3 PING inside a head", connection(PROTOCOL_ERROR), |c| c.frame(HEADERS, END_STREAM, 1, block(&GET))),
        ("4.3 HEADERS of another stream inside a head", connection(PROTOCOL_ERROR), |c| {
            c.frame(HEADERS, END_STREAM, 1, block(&GET));
            c.get(3, &[]);
        }),
        ("5.5 an unknown kind inside a head", connection(PROTOCOL_ERROR), |c| {
            c.frame(HEADERS, END_STREAM, 1, block(&GET));
            c.frame(0xbe, 0, 1, b"");
            c.frame(CONTINUATION, END_HEADERS, 1, b"");
        }),
    ];
    run(cases);
}

/// Heads that are refused, or that belong to streams that are gone, are decoded all the same: each enters `x-kept` into
/// the table, and the next request takes it from there.
#[test]
fn section_4_3_the_table_is_kept_whatever_becomes_of_a_head() {
    let site = Site::start("");
    type Refused = (&'static str, fn(&mut Client, Vec<u8>));
    let refused: [Refused; 7] = [
        ("a response", |c, kept| c.block(with(kept))),
        ("a malformed head", |c, kept| c.block(with([kept, literal("te", "gzip")].concat()))),
        ("a head without path", |c, kept| c.block([block(&GET[..3]), kept].concat())),
        ("a head of two paths", |c, kept| c.block(with([kept, literal(":path", "/")].concat()))),
        ("a length that is wrong", |c, kept| c.block(with([kept, literal("content-length", "1")].concat()))),
        ("a stream that depends on itself", |c, kept| {
            let payload = [depends_on(1), with(kept)].concat();
            c.frame(HEADERS, END_HEADERS | END_STREAM | WITH_PRIORITY, 1, payload);
        }),
        ("trailers of a stream that was reset", |c, kept| {
            c.post(1, &[]);
            c.data(1, "x", false);
            c.window(1, 0x7fff_ffff);
            c.until("a reset", |event| matches!(event, Event::Reset { stream: 1, .. }).then_some(()));
            c.frame(HEADERS, END_HEADERS | END_STREAM, 1, kept);
        }),
    ];
    let mut wrong = String::new();
    for (title, send) in refused {
        let mut client = site.client();
        send(&mut client, indexing("x-kept", "is here"));
        let path = [literal(":method", "GET"), literal(":scheme", "http"), literal(":path", "/echo")].concat();
        let block = [path, literal(":authority", "a.test"), indexed(62)].concat();
        client.frame(HEADERS, END_HEADERS | END_STREAM, 3, block);
        let mut echoed = Vec::new();
        let ended = loop {
            match client.next(PATIENCE) {
                Some(Event::Data { stream: 3, bytes, is_end }) => {
                    echoed.extend(bytes);
                    if is_end {
                        break "a response".to_owned();
                    }
                }
                Some(Event::Headers { stream: 3, is_end: false, .. }) => {}
                Some(event @ (Event::Headers { stream: 3, .. } | Event::Reset { stream: 3, .. } | Event::End)) => {
                    break format!("{event:?}");
                }
                None => break "nothing".to_owned(),
                _ => {}
            }
        };
        let has_field = String::from_utf8_lossy(&echoed).to_ascii_lowercase().contains("x-kept: is here");
        // A connection that ends has no table that could be wrong.
        if !has_field && ended != "End" {
            wrong += &format!("{title}: {ended} without the field\n");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn section_5_1_states_of_streams() {
    let cases: &[Case] = &[
        ("5.1 idle: DATA", connection(PROTOCOL_ERROR), |c| c.data(1, "x", true)),
        ("5.1 idle: RST_STREAM", connection(PROTOCOL_ERROR), |c| c.reset(1, CANCEL)),
        ("5.1 idle: WINDOW_UPDATE", connection(PROTOCOL_ERROR), |c| c.window(1, 1)),
        ("5.1 idle: CONTINUATION", connection(PROTOCOL_ERROR), |c| c.frame(CONTINUATION, END_HEADERS, 1, block(&GET))),
        ("5.1 idle: PRIORITY", IGNORED, |c| c.frame(PRIORITY, 0, 1, depends_on(0))),
        ("5.1 half-closed: DATA", stream(STREAM_CLOSED), |c| {
            unanswered(c);
            c.data(1, "x", true);
        }),
        ("5.1 half-closed: HEADERS", stream(STREAM_CLOSED), |c| {
            unanswered(c);
            c.head(1, &[("x-trailer", "1")], true);
        }),
        ("5.1 half-closed: CONTINUATION", connection(STREAM_CLOSED), |c| {
            unanswered(c);
            c.frame(CONTINUATION, END_HEADERS, 1, b"");
        }),
        ("5.1 half-closed: PRIORITY and WINDOW_UPDATE", IGNORED, |c| {
            unanswered(c);
            c.frame(PRIORITY, 0, 1, depends_on(0));
            c.window(1, 1);
        }),
        ("5.1 half-closed: RST_STREAM", IGNORED, |c| {
            unanswered(c);
            c.reset(1, CANCEL);
        }),
        ("5.1 reset: DATA", stream(STREAM_CLOSED), |c| {
            cancelled(c);
            c.data(1, "x", true);
        }),
        ("5.1 reset: HEADERS", stream(STREAM_CLOSED), |c| {
            cancelled(c);
            c.head(1, &GET, true);
        }),
        ("5.1 reset: CONTINUATION", connection(STREAM_CLOSED), |c| {
            cancelled(c);
            c.frame(CONTINUATION, END_HEADERS, 1, b"");
        }),
        ("5.1 reset: PRIORITY", IGNORED, |c| {
            cancelled(c);
            c.frame(PRIORITY, 0, 1, depends_on(0));
        }),
        ("5.1 closed: DATA", stream(STREAM_CLOSED), |c| {
            answered(c);
            c.data(1, "x", true);
        }),
        ("5.1 closed: HEADERS", connection(STREAM_CLOSED), |c| {
            answered(c);
            c.head(1, &GET, true);
        }),
        ("5.1 closed: CONTINUATION", connection(STREAM_CLOSED), |c| {
            answered(c);
            c.frame(CONTINUATION, END_HEADERS, 1, b"");
        }),
        ("5.1 closed: PRIORITY, WINDOW_UPDATE and RST_STREAM", IGNORED, |c| {
            answered(c);
            c.frame(PRIORITY, 0, 1, depends_on(0));
            c.window(1, 1);
            c.reset(1, NO_ERROR);
        }),
    ];
    run(cases);
}

#[test]
fn section_5_1_1_identifiers() {
    let cases: &[Case] = &[
        ("5.1.1 an even stream", connection(PROTOCOL_ERROR), |c| c.get(2, &[])),
        ("5.1.1 a stream below one that was used", connection(STREAM_CLOSED), |c| {
            c.get(5, &[]);
            c.get(3, &[]);
            c.watched = 3;
        }),
        ("5.1.1 streams that are left out", SERVED, |c| {
            c.get(101, &[]);
            c.watched = 101;
        }),
        ("5.1.1 DATA on a stream that was left out", stream(STREAM_CLOSED), |c| {
            c.get(5, &[]);
            c.data(3, "x", true);
            c.watched = 3;
        }),
        ("5.1.1 the last stream", SERVED, |c| {
            c.get(0x7fff_ffff, &[]);
            c.watched = 0x7fff_ffff;
        }),
    ];
    run(cases);
}

#[test]
fn section_5_1_2_streams_at_once() {
    let site = Site::start("");
    let mut client = site.client();
    assert_eq!(client.settings.get(&MAX_CONCURRENT_STREAMS), Some(&100), "http2_streams");
    for stream in 0..101 {
        client.head(2 * stream + 1, &NEVER, true);
    }
    let refused = client.until("a stream that is refused", |event| match event {
        Event::Reset { stream, code } => Some((*stream, *code)),
        _ => None,
    });
    assert_eq!(refused, (201, REFUSED_STREAM));
    client.frame(PING, 0, 0, [7; 8]);
    client.until("the connection goes on", |event| (*event == Event::Pong([7; 8])).then_some(()));
    assert_eq!(client.next(Duration::from_millis(200)), None, "the hundred streams wait on");
    // Each that ends makes room for another.
    client.reset(1, CANCEL);
    client.get(203, &[]);
    for stream in 1..100 {
        client.reset(2 * stream + 1, CANCEL);
    }
    assert_eq!(client.response(203).status, 200);
    drop(client);
    site.is_at_rest();
}

#[test]
fn section_5_3_priority() {
    let cases: &[Case] = &[
        ("5.3 PRIORITY of a stream that depends on itself", stream(PROTOCOL_ERROR).or_ignored(), |c| {
            c.frame(PRIORITY, 0, 1, depends_on(1));
        }),
        ("5.3 HEADERS of a stream that depends on itself", stream(PROTOCOL_ERROR).or_status(200, 200), |c| {
            let payload = [depends_on(1), block(&GET)].concat();
            c.frame(HEADERS, END_HEADERS | END_STREAM | WITH_PRIORITY, 1, payload);
        }),
        ("5.3 HEADERS with a priority", SERVED, |c| {
            let payload = [depends_on(1 << 31), block(&GET)].concat();
            c.frame(HEADERS, END_HEADERS | END_STREAM | WITH_PRIORITY, 1, payload);
        }),
        ("5.3 PRIORITY on a dependency that is idle", IGNORED, |c| c.frame(PRIORITY, 0, 3, depends_on(99))),
        ("5.3 PRIORITY_UPDATE of RFC 9218", IGNORED, |c| c.frame(0x10, 0, 0, b"\0\0\0\x01u=1")),
    ];
    run(cases);
}

#[test]
fn section_7_codes_without_meaning() {
    let cases: &[Case] = &[
        ("7 RST_STREAM with an unknown code", IGNORED, |c| {
            unanswered(c);
            c.reset(1, 0xdead_beef);
        }),
        ("7 GOAWAY with an unknown code", IGNORED.or_status(200, 200), |c| {
            c.get(1, &[]);
            c.frame(GOAWAY, 0, 0, [&0_u32.to_be_bytes()[..], &0xdead_beef_u32.to_be_bytes()].concat());
            // Whether the connection then ends is the server's own affair.
            c.last = 0x7fff_ffff;
        }),
    ];
    run(cases);
}

#[test]
fn section_3_4_the_preface() {
    let site = Site::start("hello_timeout = \"1s\"\nkeepalive_timeout = \"1s\"");
    let bytes = [PREFACE, &settings(&[]), &get(1, "/")].concat();

    let mut at_once = Client::connect(site.address);
    at_once.send(&bytes);
    assert_eq!(at_once.response(1).status, 200, "preface, SETTINGS and a request in one piece");

    let mut in_pieces = Client::connect(site.address);
    for byte in &bytes {
        in_pieces.send([*byte]);
    }
    assert_eq!(in_pieces.response(1).status, 200, "byte by byte");

    // Preface or SETTINGS are wrong: closed, by GOAWAY or without; or read as HTTP/1 and refused.
    let wrong: [(&str, Vec<u8>); 5] = [
        ("another second line", [b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", &settings(&[])[..]].concat()),
        ("another version", b"PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n".to_vec()),
        ("no preface", settings(&[])),
        ("HEADERS before SETTINGS", [PREFACE, &get(1, "/")].concat()),
        ("PING before SETTINGS", [PREFACE, &frame(PING, 0, 0, [0; 8])].concat()),
    ];
    let mut faults = String::new();
    for (title, bytes) in wrong {
        let mut client = Client::connect(site.address);
        client.send(&bytes);
        let received = client.raw_end();
        let is_http_1 = received.starts_with(b"HTTP/1.1 4") || received.starts_with(b"HTTP/1.1 505");
        // A status of HTTP/2 is a response that an invalid preface must not get.
        if !is_http_1 && heads(&received) > 0 {
            faults += &format!("{title}: a response\n");
        }
    }
    assert!(faults.is_empty(), "\n{faults}");

    let mut client = Client::connect(site.address);
    client.send(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n");
    client.send(b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n");
    client.finish();
    let received = client.raw_end();
    assert!(received.starts_with(b"HTTP/1.1 200"), "h2c by Upgrade: {}", String::from_utf8_lossy(&received));
}

/// Prior knowledge begins a connection, and only one: RFC 9113 §3.3.
#[test]
fn section_3_3_no_preface_behind_a_request_of_http_1() {
    let site = Site::start("hello_timeout = \"1s\"\nkeepalive_timeout = \"1s\"");
    let mut client = Client::connect(site.address);
    client.send(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n");
    client.send([PREFACE, &settings(&[]), &get(1, "/")].concat());
    let received = client.raw_end();
    let text = String::from_utf8_lossy(&received);
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert_eq!(site.received.count("GET / "), 1, "a request of HTTP/2 in the middle of HTTP/1: {text}");
    site.is_at_rest();
}

/// Number of HEADERS in bytes of the server.
fn heads(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while let Some(head) = bytes.get(..9) {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        count += usize::from(head[3] == HEADERS);
        bytes = bytes.get(9 + length..).unwrap_or_default();
    }
    count
}
