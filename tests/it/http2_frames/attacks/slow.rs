//! Clients that are slow: with their preface, with a head, or between two requests.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use crate::http2_frames::hpack::block;
use crate::http2_frames::site::{Bystander, Site};
use crate::http2_frames::wire::*;
use crate::support::PATIENCE;

/// Time between two bytes of a slow client.
const STEP: Duration = Duration::from_millis(50);

/// Latest end of what has a limit of one second, on a machine that runs other tests.
const LATE: Duration = Duration::from_secs(5);

/// Sends byte by byte, slowly, until the connection ends; when that was, and the last GOAWAY.
fn drip(client: &mut Client, bytes: &[u8]) -> (Duration, Option<u32>) {
    let began = Instant::now();
    for byte in bytes {
        client.send([*byte]);
        if client.next(STEP) == Some(Event::End) {
            break;
        }
    }
    let (code, is_closed) = client.end(PATIENCE);
    assert!(is_closed, "the connection does not end");
    (began.elapsed(), code)
}

/// Runs one slow client; its connection ends by a limit of one second, in this word.
fn slow(limits: &str, ended: &[&str], codes: &[u32], play: impl Fn(&Site) -> (Duration, Option<u32>)) {
    let site = Site::start(limits);
    let bystander = Bystander::start(&site);
    let (after, code) = play(&site);
    println!("ended after {after:?} by {code:?}");
    assert!(after > Duration::from_millis(900) && after < LATE, "{after:?}");
    assert!(code.is_none_or(|code| codes.contains(&code)), "GOAWAY {code:?}");
    assert!(bystander.stop().0 > 0, "the bystander was not served");
    let words = site.endings("connection", 1);
    assert!(ended.contains(&words[0].as_str()), "{words:?}");
    site.is_at_rest();
}

const SLOW_HEAD: &str = "hello_timeout = \"1s\"";
const KEPT: &str = "keepalive_timeout = \"1s\"";

/// Reads whatever comes to the end, which may be a reply of HTTP/1; how long that took.
fn ended_after(client: &Client) -> Duration {
    let began = Instant::now();
    let mut stream = client.stream.try_clone().expect("a descriptor");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
    began.elapsed()
}

#[test]
fn a_preface_that_comes_byte_by_byte() {
    slow(SLOW_HEAD, &["hello_timeout", "request_timeout"], &[], |site| {
        let client = Client::connect(site.address);
        let mut sender = client.stream.try_clone().expect("a descriptor");
        let after = thread::scope(|scope| {
            let reader = scope.spawn(|| ended_after(&client));
            for byte in PREFACE {
                let _ = sender.write_all(&[*byte]);
                thread::park_timeout(STEP * 3);
            }
            reader.join().expect("a reader")
        });
        (after, None)
    });
}

#[test]
fn a_preface_that_stops_in_the_middle() {
    slow(SLOW_HEAD, &["hello_timeout", "request_timeout"], &[], |site| {
        let mut client = Client::connect(site.address);
        client.send(&PREFACE[..17]);
        (ended_after(&client), None)
    });
}

#[test]
fn a_first_head_that_never_begins() {
    slow(SLOW_HEAD, &["hello_timeout", "request_timeout", "keepalive_timeout"], &[NO_ERROR], |site| {
        let began = Instant::now();
        let (code, is_closed) = site.client().end(PATIENCE);
        assert!(is_closed, "the connection does not end");
        (began.elapsed(), code)
    });
}

#[test]
fn a_head_that_comes_byte_by_byte() {
    let mut fields = GET.to_vec();
    fields
        .push(("x-slow", "a value that takes its time, and then some more, until no limit is left that it could keep"));
    slow(SLOW_HEAD, &["hello_timeout", "request_timeout"], &[NO_ERROR, PROTOCOL_ERROR], |site| {
        drip(&mut site.client(), &headers(1, &fields, true))
    });
}

#[test]
fn a_head_that_goes_on_in_one_frame_a_byte() {
    let mut fields = GET.to_vec();
    fields.push(("x-slow", "a value that takes its time"));
    slow(
        SLOW_HEAD,
        &["hello_timeout", "request_timeout", "http2_flood"],
        &[NO_ERROR, PROTOCOL_ERROR, ENHANCE_YOUR_CALM],
        |site| {
            let mut client = site.client();
            let began = Instant::now();
            client.frame(HEADERS, END_STREAM, 1, b"");
            for byte in block(&fields) {
                client.frame(CONTINUATION, 0, 1, [byte]);
                if client.next(STEP * 5) == Some(Event::End) {
                    break;
                }
            }
            let (code, is_closed) = client.end(PATIENCE);
            assert!(is_closed, "the connection does not end");
            (began.elapsed(), code)
        },
    );
}

#[test]
fn a_connection_that_is_idle() {
    slow(KEPT, &["keepalive_timeout"], &[NO_ERROR], |site| {
        let mut client = site.client();
        client.get(1, &[]);
        client.response(1);
        let began = Instant::now();
        let code = client.until("GOAWAY", |event| match event {
            Event::GoAway { code, .. } => Some(*code),
            _ => None,
        });
        assert!(client.end(PATIENCE).1, "the connection does not end");
        (began.elapsed(), Some(code))
    });
}

/// A request that crosses the announcement is served, or the last GOAWAY says that it was not.
#[test]
fn a_request_that_crosses_goaway_is_not_lost() {
    let site = Site::start(KEPT);
    let mut client = site.client();
    client.get(1, &[]);
    client.response(1);
    let last = client.until("GOAWAY", |event| match event {
        Event::GoAway { last, code: NO_ERROR } => Some(*last),
        _ => None,
    });
    client.get(3, &[]);
    assert_eq!(last, 0x7fff_ffff, "the announcement names no stream that it has not seen");
    assert_eq!(client.response(3).status, 200);
    assert_eq!(client.end(PATIENCE), (Some(NO_ERROR), true));
    site.is_at_rest();
}

/// PING keeps a connection alive, but no request is on its way.
#[test]
fn a_connection_that_only_pings() {
    slow(KEPT, &["keepalive_timeout"], &[NO_ERROR], |site| {
        let mut client = site.client();
        client.get(1, &[]);
        client.response(1);
        let began = Instant::now();
        while began.elapsed() < LATE {
            client.frame(PING, 0, 0, [1; 8]);
            if client.next(STEP * 4) == Some(Event::End) {
                break;
            }
            thread::park_timeout(STEP);
        }
        (began.elapsed(), None)
    });
}

/// A stream that waits for its backend keeps the connection.
#[test]
fn a_connection_with_a_stream_that_waits_is_not_idle() {
    let site = Site::start(&format!("{KEPT}\n{SLOW_HEAD}"));
    let mut client = site.client();
    client.get_path(1, "/never");
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        let event = client.next(STEP);
        let ends = matches!(event, Some(Event::GoAway { .. } | Event::Reset { .. } | Event::End));
        assert!(!ends, "{event:?}");
    }
    client.get(3, &[]);
    assert_eq!(client.response(3).status, 200);
    drop(client);
    site.is_at_rest();
}
