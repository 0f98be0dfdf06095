//! What ends a whole connection: errors of the frame layer, floods, resets without end. Others are served meanwhile.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::client::Client;
use super::frames::{
    CONTINUATION, DATA, END_HEADERS, Frames, GOAWAY, HEADERS, Outcome, PING, PREFACE, PRIORITY, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, block, frame, get,
};
use super::site::Site;
use super::{HTTP, figure, plain};
use crate::support::{PATIENCE, Sessile};

/// The line of the one connection that has ended so.
fn ends(sessile: &Sessile, what: &str, words: &[&str]) {
    let line = sessile.line(&format!("{what} to end in one of {words:?}"), |line| {
        line["kind"] == "connection" && line["ended"] != "done"
    });
    assert!(words.iter().any(|word| line["ended"] == *word), "{what}: {line}");
    assert_eq!(line["fault"], "client", "{what}: {line}");
}

#[test]
fn an_error_of_the_frame_layer_ends_its_connection_with_a_code_and_a_word() {
    let site = Site::named("x");
    let head = || frame(HEADERS, 5, 1, &block(&get("/")));
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("DATA on stream 0", frame(DATA, 0, 0, b"x")),
        ("DATA on a stream that was not opened", frame(DATA, 0, 1, b"x")),
        ("HEADERS on stream 0", frame(HEADERS, 5, 0, &block(&get("/")))),
        ("HEADERS on an even stream", frame(HEADERS, 5, 2, &block(&get("/")))),
        (
            "a stream below the last one",
            [frame(HEADERS, 5, 7, &block(&get("/"))), frame(HEADERS, 5, 3, &block(&get("/")))].concat(),
        ),
        ("a frame that is too long", frame(DATA, 0, 1, &vec![0; 16_385])),
        ("SETTINGS of a wrong length", frame(SETTINGS, 0, 0, &[0; 5])),
        ("SETTINGS on a stream", frame(SETTINGS, 0, 1, &[])),
        ("a wrong setting", frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff])),
        ("a PING of a wrong length", frame(PING, 0, 0, &[0; 7])),
        ("a PING on a stream", frame(PING, 0, 1, &[0; 8])),
        ("a window of more than 2^31-1", frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffffu32.to_be_bytes()).repeat(2)),
        ("a window of nothing", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
        ("RST_STREAM of a stream that was not opened", frame(RST_STREAM, 0, 9, &[0, 0, 0, 8])),
        ("CONTINUATION without HEADERS", frame(CONTINUATION, END_HEADERS, 1, &[])),
        (
            "a frame between HEADERS and CONTINUATION",
            [frame(HEADERS, 1, 1, &block(&get("/"))), frame(PING, 0, 0, &[0; 8])].concat(),
        ),
        ("PUSH_PROMISE of a client", frame(5, END_HEADERS, 1, &[0, 0, 0, 2])),
        ("a head that is not HPACK", frame(HEADERS, 5, 1, &[0xff; 9])),
        ("padding that is longer than its frame", [head(), frame(HEADERS, 0xd, 3, &[200, 0, 0])].concat()),
    ];
    std::thread::scope(|scope| {
        for (what, bytes) in cases {
            let site = &site;
            scope.spawn(move || {
                let sessile = plain("", HTTP, &[site.address()]);
                let other = Client::plain(sessile.address("l"));
                let mut frames = Frames::open(sessile.address("l"));
                frames.stream.write_all(&bytes).unwrap();
                let goaway = frames.until(|frame| frame.kind == GOAWAY && frame.code() != 0);
                assert!(goaway.is_some(), "{what}: no GOAWAY");
                assert!(frames.until(|_| false).is_none(), "{what}");
                ends(&sessile, what, &["http2_error"]);
                assert_eq!(other.get("/", &[]).status, 200, "{what}");
            });
        }
    });
}

#[test]
fn a_preface_that_is_wrong_at_its_end_is_refused() {
    let site = Site::named("x");
    let sessile = plain("", HTTP, &[site.address()]);
    let mut wrong = PREFACE.to_vec();
    wrong[20] = b'X';
    for bytes in [&wrong[..], b"PRI * HTTP/2.0\r\nHost: a.test\r\n\r\n", b"PRI /x HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut stream = TcpStream::connect(sessile.address("l")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(!String::from_utf8_lossy(&answer).contains(" 200 "), "{bytes:?}");
    }
    assert_eq!(site.requests(), 0);
    assert_eq!(Client::plain(sessile.address("l")).get("/", &[]).status, 200);
}

/// Sends pieces until the connection takes no more, reads what comes meanwhile, and has another client served.
fn floods(what: &str, words: &[&str], most: usize, mut piece: impl FnMut(usize) -> Vec<u8>) {
    let site = Site::named("x");
    let sessile = plain("", HTTP, &[site.address()]);
    let other = Client::plain(sessile.address("l"));
    assert_eq!(other.get("/", &[]).status, 200);
    let before = sessile.anonymous_kib();
    let frames = Frames::open(sessile.address("l"));
    let mut reader = frames.stream.try_clone().unwrap();
    let reading = std::thread::spawn(move || {
        let mut scrap = vec![0; 1 << 16];
        while reader.read(&mut scrap).is_ok_and(|n| n > 0) {}
    });
    let began = Instant::now();
    let mut stream = frames.stream;
    let mut sent = 0;
    while sent < most && !reading.is_finished() && stream.write_all(&piece(sent)).is_ok() {
        sent += 1;
        if sent % 1_000 == 0 {
            assert_eq!(other.get("/", &[]).status, 200, "{what}");
        }
        assert!(began.elapsed() < Duration::from_secs(8), "{what}: {sent} pieces, and no end");
    }
    assert!(sent < most, "{what}: all {sent} pieces were taken");
    println!("{what}: ended after {sent} pieces, {:?}", began.elapsed());
    ends(&sessile, what, words);
    let _ = stream.shutdown(Shutdown::Both);
    reading.join().unwrap();
    assert_eq!(other.get("/", &[]).status, 200, "{what}");
    let grown = sessile.anonymous_kib().saturating_sub(before);
    // Far from what the flood has sent; first uses of buffers and allocators are in it, too.
    assert!(grown <= 12 << 10, "{what}: {grown} KiB");
    assert!(site.requests() < 20_000, "{what}: {} requests came to the backend", site.requests());
}

#[test]
fn requests_that_are_reset_at_once_without_end_end_the_connection() {
    floods("rapid reset", &["http2_resets"], 100_000, |n| {
        let stream = 2 * n as u32 + 1;
        [frame(HEADERS, 5, stream, &block(&get("/"))), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    });
}

#[test]
fn requests_that_the_server_has_to_reset_without_end_end_the_connection() {
    // Each stream is made to break by what the client does on it (MadeYouReset).
    floods("a window of nothing", &["http2_resets", "http2_flood", "http2_error"], 100_000, |n| {
        let stream = 2 * n as u32 + 1;
        [frame(HEADERS, 5, stream, &block(&get("/wait"))), frame(WINDOW_UPDATE, 0, stream, &[0; 4])].concat()
    });
    floods("a window that is too large", &["http2_resets", "http2_flood", "http2_error"], 100_000, |n| {
        let stream = 2 * n as u32 + 1;
        let window = frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffffu32.to_be_bytes());
        [frame(HEADERS, 5, stream, &block(&get("/wait"))), window].concat()
    });
    floods("malformed heads", &["http2_resets", "http2_flood", "http2_error"], 100_000, |n| {
        let fields = [&get("/")[..], &[("connection", "close")]].concat();
        frame(HEADERS, 5, 2 * n as u32 + 1, &block(&fields))
    });
}

#[test]
fn control_frames_without_end_end_the_connection() {
    let words = &["http2_flood", "http2_error"];
    floods("PING", words, 500_000, |_| frame(PING, 0, 0, &[0; 8]));
    floods("SETTINGS", words, 500_000, |_| frame(SETTINGS, 0, 0, &[]));
    floods("PRIORITY", words, 500_000, |n| frame(PRIORITY, 0, 2 * n as u32 % 1_000 + 1, &[0, 0, 0, 0, 15]));
}

#[test]
fn data_frames_of_nothing_and_of_one_byte_without_end_end_the_connection() {
    let head = [&get("/up")[1..], &[(":method", "POST")]].concat();
    let begin = |n: usize| if n == 0 { frame(HEADERS, END_HEADERS, 1, &block(&head)) } else { Vec::new() };
    let words = &["http2_flood", "http2_error"];
    floods("DATA of nothing", words, 500_000, |n| [begin(n), frame(DATA, 0, 1, &[])].concat());
}

#[test]
fn a_head_without_end_ends_the_connection() {
    let head = block(&get("/"));
    floods("CONTINUATION", &["http2_flood", "http2_error"], 100_000, |n| match n {
        0 => frame(HEADERS, 1, 1, &head),
        _ => frame(CONTINUATION, 0, 1, &block(&[("x-a", "bcdefghijklmnopqrstuvwxyz")])),
    });
    floods("CONTINUATION of nothing", &["http2_flood", "http2_error"], 100_000, |n| match n {
        0 => frame(HEADERS, 1, 1, &head),
        _ => frame(CONTINUATION, 0, 1, &[]),
    });
}

#[test]
fn a_head_that_grows_out_of_a_small_block_is_refused() {
    let site = Site::named("x");
    let sessile = plain("", HTTP, &[site.address()]);
    let mut frames = Frames::open(sessile.address("l"));
    // One large value for the table, and then its place in the table, a thousand times.
    let mut bomb = block(&get("/"));
    bomb.extend([0x40, 3, b'x', b'-', b'a', 127, 0xa1, 0x1e]);
    bomb.extend([b'v'; 4_000]);
    bomb.extend([0xbe; 1_000]);
    let before = sessile.anonymous_kib();
    frames.send(HEADERS, 5, 1, &bomb);
    match frames.outcome(1) {
        Outcome::Status(status) => assert_eq!(status, 431),
        Outcome::Reset(code) | Outcome::GoAway(code) => assert_ne!(code, 0),
        Outcome::Closed => {}
    }
    assert!(sessile.anonymous_kib().saturating_sub(before) <= 2_048);
    assert_eq!(site.requests(), 0);
}

#[test]
fn a_client_that_asks_much_and_resets_some_is_no_attacker() {
    let site = Site::named("x");
    let sessile = plain("", HTTP, &[site.address()]);
    let client = Client::plain(sessile.address("l"));
    // As a browser does that leaves a page.
    for _ in 0..10 {
        let streams: Vec<_> = (0..40).map(|n| client.ask(&format!("/{n}"), &[])).collect();
        for (n, stream) in streams.into_iter().enumerate() {
            if n % 2 == 0 {
                assert_eq!(stream.reply().unwrap().status, 200);
            } else {
                stream.reset();
            }
        }
    }
    // All streams that it may have, given up at once.
    let streams: Vec<_> = (0..100).map(|_| client.ask("/wait", &[])).collect();
    streams.into_iter().for_each(super::client::Exchange::reset);
    assert_eq!(client.get("/", &[]).status, 200);
    assert!(client.ended().is_none());
    assert!(figure(&sessile, "sessile_http2_streams_total") >= 400.0);
}
