//! Backends that break the protocol: the client gets a 502, and the connection ends.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::{H2, http1_answer, plain};
use crate::support::backend::Backend;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A backend that reads the first bytes of a connection, sends these, and reads on.
fn sends(bytes: Vec<u8>) -> Backend {
    Backend::serving(move |mut stream: TcpStream| {
        let mut first = [0; 24];
        stream.read_exact(&mut first)?;
        stream.write_all(&bytes)?;
        std::io::copy(&mut stream, &mut std::io::sink()).map(drop)
    })
}

#[test]
fn frames_that_break_the_protocol_are_a_502() {
    let settings = frame(4, 0, 0, &[]);
    // Indexed: status 200.
    let head = frame(1, 4, 1, &[0x88]);
    let field = |name: &[u8], value: &[u8]| [&[0x88, 0, name.len() as u8], name, &[value.len() as u8], value].concat();
    // A literal of 60,000 bytes, six times.
    let large = |first: &[u8]| {
        let value = vec![b'a'; 16_000];
        let length = value.len() - 127;
        let bytes = [0x7f, (length & 0x7f) as u8 | 0x80, (length >> 7) as u8];
        [first, &[0, 1, b'x'], &bytes, &value].concat()
    };
    let mut too_long = frame(1, 0, 1, &large(&[0x88]));
    (0..5).for_each(|index| too_long.extend(frame(9, if index == 4 { 4 } else { 0 }, 1, &large(&[]))));
    for (what, bytes) in [
        ("HTTP/1.1", b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_vec()),
        ("data before a head", [&settings[..], &frame(0, 0, 1, b"x")].concat()),
        ("data on no stream", [&settings[..], &frame(0, 0, 0, b"x")].concat()),
        ("a push", [&settings[..], &frame(5, 4, 1, &[0, 0, 0, 2, 0x82, 0x84, 0x86])].concat()),
        ("a head that is none", [&settings[..], &frame(1, 4, 1, &[0xff; 9])].concat()),
        ("a field of one connection", [&settings[..], &frame(1, 4, 1, &field(b"connection", b"close"))].concat()),
        ("a switch", [&settings[..], &frame(1, 4, 1, &[0x08, 3, b'1', b'0', b'1'])].concat()),
        ("too long a frame", [&settings[..], &frame(1, 4, 1, &vec![0; 20_000])].concat()),
        ("too long a head", [&settings[..], &too_long].concat()),
        ("a window of nothing", [&settings[..], &frame(8, 0, 0, &[0; 4])].concat()),
        ("a length that is wrong", [&settings[..], &frame(1, 5, 1, &field(b"content-length", b"7"))].concat()),
        ("a continuation of nothing", [&settings[..], &head, &frame(9, 4, 1, &[0x88])].concat()),
        ("a flood", [&settings[..], &frame(6, 0, 0, &[0; 8]).repeat(150_000)].concat()),
    ] {
        let backend = sends(bytes);
        let sessile = plain("", H2, &[backend.address]);
        let text = http1_answer(&sessile, GET);
        let line = sessile.line("the request", |line| line["kind"] == "request");
        if what == "a continuation of nothing" {
            // The head was good, and may have left.
            assert!(text.starts_with("HTTP/1.1 502 ") || text.starts_with("HTTP/1.1 200 "), "{what}: {text}");
            assert!(line["ended"] != "done", "{what}: {line}");
            continue;
        }
        assert!(text.starts_with("HTTP/1.1 502 "), "{what}: {text}");
        let words = (line["ended"].as_str(), line["refused"].as_str());
        assert_eq!(words, (Some("response_refused"), Some("bad_frames")), "{what}: {line}");
    }
}

#[test]
fn a_backend_that_closes_or_says_nothing_is_a_502_or_a_504() {
    let closes = Backend::serving(|mut stream: TcpStream| stream.read_exact(&mut [0; 24]));
    let sessile = plain("", H2, &[closes.address]);
    assert!(http1_answer(&sessile, GET).starts_with("HTTP/1.1 502 "));
    let silent = sends(Vec::new());
    let sessile = plain("[limits]\nresponse_timeout = \"1s\"\n", H2, &[silent.address]);
    assert!(http1_answer(&sessile, GET).starts_with("HTTP/1.1 504 "));
    let line = sessile.line("the request", |line| line["kind"] == "request");
    assert_eq!(line["ended"], "response_timeout");
}
