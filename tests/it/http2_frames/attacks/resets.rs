//! Streams that are reset as soon as they are opened: by the client, or by the server since the client makes it.

use super::{Attack, flood};
use crate::http2_frames::hpack::block;
use crate::http2_frames::wire::*;

/// Streams of each attack.
const STREAMS: u32 = 5_000;

pub(super) const RESETS: &[&str] = &["http2_resets"];

/// Runs an attack that opens a stream by each piece, and tells how many requests reached the backend.
fn reset(attack: &Attack) {
    let site = attack.run();
    let reached = site.received.count("/never");
    println!("{reached} requests reached the backend");
    assert!(reached < STREAMS as usize, "{reached} requests of {STREAMS} a connection");
}

fn never(stream: u32) -> Vec<u8> {
    get(stream, "/never")
}

pub(super) fn rst(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, CANCEL.to_be_bytes())
}

/// CVE-2023-44487.
#[test]
fn rapid_reset() {
    reset(&Attack::calmed(RESETS, |client| {
        flood(client, STREAMS, |at| [never(2 * at + 1), rst(2 * at + 1)].concat());
    }));
}

/// The same with a reset that comes when the request is at the backend already.
#[test]
fn rapid_reset_of_requests_that_are_on_their_way() {
    reset(&Attack::calmed(RESETS, |client| {
        flood(client, STREAMS, |at| {
            let earlier = if at < 50 { Vec::new() } else { rst(2 * (at - 50) + 1) };
            [never(2 * at + 1), earlier].concat()
        });
    }));
}

/// CVE-2025-8671: the window of the stream becomes greater than 2^31 - 1.
#[test]
fn made_you_reset_by_a_window_that_is_too_large() {
    reset(&Attack::calmed(RESETS, |client| {
        flood(client, STREAMS, |at| {
            let stream = 2 * at + 1;
            [never(stream), frame(WINDOW_UPDATE, 0, stream, 0x7fff_ffff_u32.to_be_bytes())].concat()
        });
    }));
}

#[test]
fn made_you_reset_by_a_window_of_nothing() {
    let attack = Attack::calmed(&["http2_resets", "http2_error"], |client| {
        flood(client, STREAMS, |at| [never(2 * at + 1), frame(WINDOW_UPDATE, 0, 2 * at + 1, [0; 4])].concat());
    });
    reset(&attack.or_code(&[PROTOCOL_ERROR, ENHANCE_YOUR_CALM]));
}

#[test]
fn made_you_reset_by_data_behind_the_end() {
    let attack = Attack::calmed(&["http2_resets", "http2_error"], |client| {
        flood(client, STREAMS, |at| [never(2 * at + 1), frame(DATA, 0, 2 * at + 1, b"x")].concat());
    });
    reset(&attack.or_code(&[PROTOCOL_ERROR, STREAM_CLOSED, ENHANCE_YOUR_CALM]));
}

#[test]
fn made_you_reset_by_a_head_behind_the_end() {
    let attack = Attack::calmed(&["http2_resets", "http2_error"], |client| {
        flood(client, STREAMS, |at| [never(2 * at + 1), never(2 * at + 1)].concat());
    });
    reset(&attack.or_code(&[PROTOCOL_ERROR, STREAM_CLOSED, ENHANCE_YOUR_CALM]));
}

#[test]
fn made_you_reset_by_a_priority_on_itself() {
    let attack = Attack::calmed(&["http2_resets", "http2_flood"], |client| {
        flood(client, STREAMS, |at| {
            let stream = 2 * at + 1;
            [never(stream), frame(PRIORITY, 0, stream, [&stream.to_be_bytes()[..], &[15]].concat())].concat()
        });
    });
    reset(&attack);
}

#[test]
fn made_you_reset_by_heads_with_a_priority_on_themselves() {
    let attack = Attack::calmed(&["http2_resets", "http2_flood"], |client| {
        flood(client, STREAMS, |at| {
            let stream = 2 * at + 1;
            let payload = [&stream.to_be_bytes()[..], &[15], &block(&GET)].concat();
            frame(HEADERS, END_HEADERS | END_STREAM | WITH_PRIORITY, stream, payload)
        });
    });
    reset(&attack);
}

#[test]
fn made_you_reset_by_more_data_than_content_length() {
    reset(&Attack::calmed(RESETS, |client| {
        flood(client, STREAMS, |at| {
            let stream = 2 * at + 1;
            let head = headers(stream, &[&POST[..3], &[(":path", "/never"), ("content-length", "1")]].concat(), false);
            [head, frame(DATA, 0, stream, b"two")].concat()
        });
    }));
}

#[test]
fn made_you_reset_by_malformed_heads() {
    reset(&Attack::calmed(RESETS, |client| {
        flood(client, STREAMS, |at| headers(2 * at + 1, &[&GET[..], &[("te", "gzip")]].concat(), true));
    }));
}

#[test]
fn made_you_reset_by_trailers_that_do_not_end() {
    // Trailers of a stream that was refused are an error of the connection.
    let attack = Attack::calmed(&["http2_resets", "http2_error"], |client| {
        flood(client, STREAMS, |at| {
            let stream = 2 * at + 1;
            [post(stream, "/never"), headers(stream, &[("x-trailer", "1")], false)].concat()
        });
    });
    reset(&attack.or_code(&[PROTOCOL_ERROR, ENHANCE_YOUR_CALM]));
}
