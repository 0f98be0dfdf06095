//! RFC 9113 §6: the rules of each kind of frame, and flow control.

use std::time::Duration;

use super::cases::{Case, IGNORED, SERVED, connection, run, stream};
use super::hpack::{block, literal};
use super::site::{BODY, Site};
use super::wire::*;
use crate::support::{PATIENCE, eventually};

/// Time in which DATA that must not come would have come.
const SILENCE: Duration = Duration::from_millis(200);

/// DATA or a block with padding of so many bytes, of which the frame says another number.
fn padded(says: u8, content: &[u8], padding: usize) -> Vec<u8> {
    [&[says][..], content, &vec![0; padding]].concat()
}

/// The payload of GOAWAY.
fn goaway(last: u32, code: u32) -> Vec<u8> {
    [last.to_be_bytes(), code.to_be_bytes()].concat()
}

#[test]
fn section_6_1_to_6_4_frames_of_streams() {
    let cases: &[Case] = &[
        ("6.1 DATA on stream 0", connection(PROTOCOL_ERROR), |c| c.data(0, "x", false)),
        ("6.1 DATA with padding", SERVED, |c| {
            c.post(1, &[("content-length", "4")]);
            c.frame(DATA, PADDED | END_STREAM, 1, padded(255, b"data", 255));
        }),
        ("6.1 DATA that is all padding", SERVED, |c| {
            c.post(1, &[("content-length", "0")]);
            c.frame(DATA, PADDED | END_STREAM, 1, padded(3, b"", 3));
        }),
        ("6.1 DATA with padding as long as the frame", connection(PROTOCOL_ERROR), |c| {
            c.post(1, &[]);
            c.frame(DATA, PADDED | END_STREAM, 1, padded(5, b"", 4));
        }),
        ("6.1 DATA with padding longer than the frame", connection(PROTOCOL_ERROR), |c| {
            c.post(1, &[]);
            c.frame(DATA, PADDED | END_STREAM, 1, padded(200, b"data", 0));
        }),
        ("6.1 DATA without the length of its padding", connection(FRAME_SIZE_ERROR), |c| {
            c.post(1, &[]);
            c.frame(DATA, PADDED | END_STREAM, 1, b"");
        }),
        ("6.1 empty DATA at the end", SERVED, |c| {
            c.post(1, &[]);
            c.data(1, "data", false);
            c.data(1, "", true);
        }),
        ("6.2 HEADERS on stream 0", connection(PROTOCOL_ERROR), |c| {
            c.frame(HEADERS, END_HEADERS | END_STREAM, 0, block(&GET));
        }),
        ("6.2 HEADERS with padding", SERVED, |c| {
            c.frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, padded(9, &block(&GET), 9));
        }),
        ("6.2 HEADERS with padding and priority", SERVED, |c| {
            let content = [&[0, 0, 0, 0, 15], &block(&GET)[..]].concat();
            c.frame(HEADERS, END_HEADERS | END_STREAM | PADDED | WITH_PRIORITY, 1, padded(9, &content, 9));
        }),
        ("6.2 HEADERS with padding longer than the frame", connection(PROTOCOL_ERROR), |c| {
            c.frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, padded(255, &block(&GET), 0));
        }),
        ("6.2 HEADERS without the length of their padding", connection(FRAME_SIZE_ERROR), |c| {
            c.frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, b"");
        }),
        ("6.2 HEADERS too short for their priority", connection(FRAME_SIZE_ERROR), |c| {
            c.frame(HEADERS, END_HEADERS | END_STREAM | WITH_PRIORITY, 1, [0; 4]);
        }),
        ("6.3 PRIORITY on stream 0", connection(PROTOCOL_ERROR), |c| c.frame(PRIORITY, 0, 0, [0; 5])),
        ("6.3 PRIORITY of 4 bytes", stream(FRAME_SIZE_ERROR), |c| c.frame(PRIORITY, 0, 1, [0; 4])),
        ("6.3 PRIORITY of 6 bytes", stream(FRAME_SIZE_ERROR), |c| c.frame(PRIORITY, 0, 1, [0; 6])),
        ("6.4 RST_STREAM on stream 0", connection(PROTOCOL_ERROR), |c| c.reset(0, CANCEL)),
        ("6.4 RST_STREAM of an idle stream", connection(PROTOCOL_ERROR), |c| c.reset(3, CANCEL)),
        ("6.4 RST_STREAM of 3 bytes", connection(FRAME_SIZE_ERROR), |c| {
            c.post(1, &[]);
            c.frame(RST_STREAM, 0, 1, [0; 3]);
        }),
        ("6.4 RST_STREAM of 5 bytes", connection(FRAME_SIZE_ERROR), |c| {
            c.post(1, &[]);
            c.frame(RST_STREAM, 0, 1, [0; 5]);
        }),
    ];
    run(cases);
}

#[test]
fn section_6_5_settings() {
    let cases: &[Case] = &[
        ("6.5 SETTINGS on a stream", connection(PROTOCOL_ERROR), |c| c.frame(SETTINGS, 0, 1, b"")),
        ("6.5 a confirmation with values", connection(FRAME_SIZE_ERROR), |c| c.frame(SETTINGS, ACK, 0, [0; 6])),
        ("6.5 a value that is cut", connection(FRAME_SIZE_ERROR), |c| c.frame(SETTINGS, 0, 0, [0; 5])),
        ("6.5 a value and a half", connection(FRAME_SIZE_ERROR), |c| c.frame(SETTINGS, 0, 0, [0; 9])),
        ("6.5 a confirmation of nothing", connection(PROTOCOL_ERROR).or_ignored(), |c| {
            c.frame(SETTINGS, ACK, 0, b"");
        }),
        ("6.5.2 ENABLE_PUSH = 2", connection(PROTOCOL_ERROR), |c| c.send(settings(&[(ENABLE_PUSH, 2)]))),
        ("6.5.2 ENABLE_PUSH = 1", IGNORED, |c| c.send(settings(&[(ENABLE_PUSH, 1)]))),
        ("6.5.2 INITIAL_WINDOW_SIZE = 2^31", connection(FLOW_CONTROL_ERROR), |c| {
            c.send(settings(&[(INITIAL_WINDOW_SIZE, 1 << 31)]));
        }),
        ("6.5.2 INITIAL_WINDOW_SIZE = 2^31 - 1", IGNORED, |c| {
            c.send(settings(&[(INITIAL_WINDOW_SIZE, 0x7fff_ffff)]));
        }),
        ("6.5.2 MAX_FRAME_SIZE = 16383", connection(PROTOCOL_ERROR), |c| {
            c.send(settings(&[(MAX_FRAME_SIZE, 16_383)]));
        }),
        ("6.5.2 MAX_FRAME_SIZE = 2^24", connection(PROTOCOL_ERROR), |c| {
            c.send(settings(&[(MAX_FRAME_SIZE, 1 << 24)]));
        }),
        ("6.5.2 MAX_FRAME_SIZE = 2^24 - 1", IGNORED, |c| c.send(settings(&[(MAX_FRAME_SIZE, 0xff_ffff)]))),
        ("6.5.2 HEADER_TABLE_SIZE = 2^32 - 1", IGNORED, |c| {
            c.send(settings(&[(HEADER_TABLE_SIZE, u32::MAX)]));
        }),
        ("6.5.2 MAX_CONCURRENT_STREAMS = 0", SERVED, |c| {
            c.send(settings(&[(MAX_CONCURRENT_STREAMS, 0)]));
            c.get(1, &[]);
        }),
        ("6.5.2 MAX_HEADER_LIST_SIZE = 0", IGNORED.or_status(200, 200), |c| {
            c.send(settings(&[(MAX_HEADER_LIST_SIZE, 0)]));
            c.get(1, &[]);
            c.last = 0x7fff_ffff;
        }),
        ("6.5.2 a value without meaning", IGNORED, |c| c.send(settings(&[(0xabcd, 17), (0, u32::MAX)]))),
        ("8441 3 ENABLE_CONNECT_PROTOCOL = 2", connection(PROTOCOL_ERROR).or_ignored(), |c| {
            c.send(settings(&[(ENABLE_CONNECT_PROTOCOL, 2)]));
        }),
    ];
    run(cases);
}

#[test]
fn section_6_5_3_settings_are_confirmed_and_the_last_value_counts() {
    let site = Site::start("");
    let mut client = site.client();
    client.send(settings(&[(INITIAL_WINDOW_SIZE, WINDOW), (INITIAL_WINDOW_SIZE, 7)]));
    client.until("a confirmation", |event| (*event == Event::SettingsAck).then_some(()));
    client.get_path(1, "/body");
    takes(&mut client, 1, 7);
    // The server's encoder follows the client's table; the client's decoder has checked every head.
    let mut client = Client::open_with(site.address, &[(HEADER_TABLE_SIZE, 0)]);
    for stream in [1, 3, 5] {
        client.get(stream, &[]);
        assert_eq!(client.response(stream).status, 200);
    }
}

#[test]
fn section_6_6_to_6_8_frames_of_the_connection() {
    let cases: &[Case] = &[
        ("6.6 PUSH_PROMISE of a client", connection(PROTOCOL_ERROR), |c| {
            c.post(1, &[]);
            c.frame(PUSH_PROMISE, END_HEADERS, 1, [&2_u32.to_be_bytes()[..], &block(&GET)].concat());
        }),
        ("6.6 PUSH_PROMISE on stream 0", connection(PROTOCOL_ERROR), |c| {
            c.frame(PUSH_PROMISE, END_HEADERS, 0, [&2_u32.to_be_bytes()[..], &block(&GET)].concat());
        }),
        ("6.7 PING on a stream", connection(PROTOCOL_ERROR), |c| c.frame(PING, 0, 1, [0; 8])),
        ("6.7 PING of 7 bytes", connection(FRAME_SIZE_ERROR), |c| c.frame(PING, 0, 0, [0; 7])),
        ("6.7 PING of 9 bytes", connection(FRAME_SIZE_ERROR), |c| c.frame(PING, 0, 0, [0; 9])),
        ("6.7 a reply to no PING", IGNORED, |c| c.frame(PING, ACK, 0, [0xab; 8])),
        ("6.8 GOAWAY on a stream", connection(PROTOCOL_ERROR), |c| c.frame(GOAWAY, 0, 1, goaway(0, NO_ERROR))),
        ("6.8 GOAWAY of 7 bytes", connection(FRAME_SIZE_ERROR), |c| c.frame(GOAWAY, 0, 0, [0; 7])),
        ("6.9 WINDOW_UPDATE by 0 of a stream", stream(PROTOCOL_ERROR), |c| {
            c.post(1, &[]);
            c.window(1, 0);
        }),
        ("6.9 WINDOW_UPDATE by 0 of the connection", connection(PROTOCOL_ERROR), |c| c.window(0, 0)),
        ("6.9 WINDOW_UPDATE of 3 bytes", connection(FRAME_SIZE_ERROR), |c| c.frame(WINDOW_UPDATE, 0, 0, [1; 3])),
        ("6.9 WINDOW_UPDATE of 5 bytes", connection(FRAME_SIZE_ERROR), |c| c.frame(WINDOW_UPDATE, 0, 0, [1; 5])),
        ("6.9 WINDOW_UPDATE with the reserved bit", IGNORED, |c| c.window(0, 1 | 1 << 31)),
        ("6.9.1 the window of a stream above 2^31 - 1", stream(FLOW_CONTROL_ERROR), |c| {
            c.post(1, &[]);
            c.window(1, 0x7fff_ffff);
        }),
        ("6.9.1 the window of the connection above 2^31 - 1", connection(FLOW_CONTROL_ERROR), |c| {
            c.window(0, 0x7fff_ffff);
        }),
        ("6.9.2 a setting that makes a window greater than 2^31 - 1", connection(FLOW_CONTROL_ERROR), |c| {
            c.post(1, &[]);
            c.window(1, 0x7fff_ffff - WINDOW);
            c.send(settings(&[(INITIAL_WINDOW_SIZE, WINDOW + 1)]));
        }),
    ];
    run(cases);
}

#[test]
fn section_6_8_a_client_that_goes_away_gets_what_it_has_asked_for() {
    let site = Site::start("");
    let mut client = site.client();
    client.get_path(1, "/body");
    client.frame(GOAWAY, 0, 0, goaway(0, NO_ERROR));
    let response = client.response(1);
    assert_eq!((response.status, response.body.len()), (200, BODY));
    client.finish();
    assert!(client.end(PATIENCE).1, "the connection ends");
    site.is_at_rest();
}

/// Waits until so many bytes of DATA have come for a stream, and makes sure that no more come.
fn takes(client: &mut Client, stream: u32, expected: usize) {
    let mut bytes = 0;
    while let Some(event) = client.next(if bytes < expected { PATIENCE } else { SILENCE }) {
        match event {
            Event::Data { stream: of, bytes: piece, .. } if of == stream => bytes += piece.len(),
            Event::Reset { .. } | Event::GoAway { .. } | Event::End => panic!("{event:?} behind {bytes} bytes"),
            _ => {}
        }
        assert!(bytes <= expected, "{bytes} bytes instead of {expected}");
    }
    assert_eq!(bytes, expected);
}

#[test]
fn section_6_9_windows_of_the_client_are_kept() {
    let site = Site::start("");
    let mut client = Client::open_with(site.address, &[(INITIAL_WINDOW_SIZE, 0)]);
    client.get_path(1, "/body");
    client.until("a head", Event::status);
    takes(&mut client, 1, 0);
    client.window(1, 1);
    takes(&mut client, 1, 1);
    // A setting widens the windows of open streams.
    client.send(settings(&[(INITIAL_WINDOW_SIZE, 100)]));
    takes(&mut client, 1, 100);
    // From 100 to 10: 90 are missing, so that 95 more let 5 pass.
    client.send(settings(&[(INITIAL_WINDOW_SIZE, 10)]));
    client.window(1, 95);
    takes(&mut client, 1, 5);
    client.window(1, BODY as u32);
    takes(&mut client, 1, BODY - 106);
    drop(client);

    let mut client = Client::open_with(site.address, &[(INITIAL_WINDOW_SIZE, 0x7fff_ffff)]);
    client.get_path(1, "/large");
    takes(&mut client, 1, WINDOW as usize);
    // A window of the connection that is shut stops no stream without DATA.
    client.head(3, &[(":method", "HEAD"), GET[1], GET[2], GET[3]], true);
    assert_eq!(client.until("a head", Event::status), 200);
    client.window(0, 5);
    takes(&mut client, 1, 5);
    client.reset(1, CANCEL);
    drop(client);
    site.is_at_rest();
}

#[test]
fn section_6_9_windows_of_the_server_have_to_be_kept() {
    let site = Site::start("");
    let mut client = site.client();
    client.send(post(1, "/stalled"));
    let mut stream = i64::from(*client.settings.get(&INITIAL_WINDOW_SIZE).unwrap_or(&WINDOW));
    let (mut whole, mut sent) = (i64::from(WINDOW), 0);
    // The backend reads nothing: at some time no window is widened any more, and one byte more is too much.
    let code = loop {
        let room = stream.min(whole);
        let patience = match room {
            1.. => Duration::ZERO,
            0 => SILENCE,
            _ => PATIENCE,
        };
        match client.next(patience) {
            Some(Event::Window { stream: 0, by }) => whole += i64::from(by),
            Some(Event::Window { by, .. }) => stream += i64::from(by),
            Some(Event::Reset { stream: 1, code } | Event::GoAway { code, .. }) => break code,
            Some(Event::Settings(_) | Event::SettingsAck) => {}
            Some(event) => panic!("{event:?} in the middle of a body"),
            None => {
                assert!(room >= 0, "the server takes more than its windows");
                let piece = vec![b'x'; room.clamp(1, 16_384) as usize];
                client.data(1, &piece, false);
                (stream, whole, sent) = (stream - piece.len() as i64, whole - piece.len() as i64, sent + piece.len());
                assert!(sent < 64 << 20, "the windows are widened although nothing is read");
            }
        }
    };
    assert_eq!(code, FLOW_CONTROL_ERROR);
    drop(client);
    site.is_at_rest();
}

#[test]
fn section_6_10_continuation() {
    let cases: &[Case] = &[
        ("6.10 a head in three frames", SERVED, |c| {
            let block = block(&GET);
            c.frame(HEADERS, END_STREAM, 1, &block[..5]);
            c.frame(CONTINUATION, 0, 1, &block[5..20]);
            c.frame(CONTINUATION, END_HEADERS, 1, &block[20..]);
        }),
        ("6.10 a head of which each frame is empty but one", SERVED, |c| {
            c.frame(HEADERS, END_STREAM, 1, b"");
            c.frame(CONTINUATION, 0, 1, b"");
            c.frame(CONTINUATION, 0, 1, block(&GET));
            c.frame(CONTINUATION, END_HEADERS, 1, b"");
        }),
        ("6.10 trailers in two frames", SERVED, |c| {
            c.post(1, &[]);
            c.data(1, "data", false);
            let block = literal("x-trailer", "1");
            c.frame(HEADERS, END_STREAM, 1, &block[..4]);
            c.frame(CONTINUATION, END_HEADERS, 1, &block[4..]);
        }),
        ("6.10 CONTINUATION without HEADERS", connection(PROTOCOL_ERROR), |c| {
            c.get(1, &[]);
            c.frame(CONTINUATION, END_HEADERS, 1, b"");
        }),
        ("6.10 CONTINUATION on stream 0", connection(PROTOCOL_ERROR), |c| {
            c.frame(HEADERS, END_STREAM, 1, block(&GET));
            c.frame(CONTINUATION, END_HEADERS, 0, b"");
        }),
        ("6.10 CONTINUATION of another stream", connection(PROTOCOL_ERROR), |c| {
            c.frame(HEADERS, END_STREAM, 1, block(&GET));
            c.frame(CONTINUATION, END_HEADERS, 3, b"");
        }),
        ("6.10 CONTINUATION behind the end of a head", connection(PROTOCOL_ERROR), |c| {
            c.frame(HEADERS, END_STREAM, 1, block(&GET[..2]));
            c.frame(CONTINUATION, END_HEADERS, 1, block(&GET[2..]));
            c.frame(CONTINUATION, END_HEADERS, 1, b"");
        }),
    ];
    run(cases);
}

/// A client may send before it knows the settings of the server. What it has sent by then counts against their windows
/// once it has acknowledged them: with 16,384 bytes of DATA, a window of 16,384 is used up.
#[test]
fn section_6_9_2_a_window_that_settings_narrow_is_opened_again() {
    let site = Site::start("");
    let mut client = Client::connect(site.address);
    let body = vec![b'x'; 1 << 14];
    let data = frame(DATA, 0, 1, &body);
    client.send([PREFACE, &settings(&[]), &post(1, "/echo"), &data].concat());
    let backend = || site.sessile.status()["pools"][0]["backends"][0]["bytes_up"].as_u64();
    eventually("the body to be read", || backend().is_some_and(|bytes| bytes >= 1 << 14).then_some(()));
    client.until("SETTINGS", |event| match event {
        Event::Settings(own) => own.contains(&(INITIAL_WINDOW_SIZE, 1 << 14)).then_some(()),
        _ => None,
    });
    client.send(frame(SETTINGS, ACK, 0, []));
    client.until("the window of the stream", |event| match event {
        Event::Window { stream: 1, by } => (*by == 1 << 14).then_some(()),
        _ => None,
    });
    client.data(1, &body, true);
    assert_eq!(client.response(1).status, 200);
}
