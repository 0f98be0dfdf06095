//! Frames that cost the server more than the client, and carry nothing.

use std::time::Duration;

use super::{Attack, CONNECTIONS, GROWTH_KIB, beside, flood};
use crate::http2_frames::site::Site;
use crate::http2_frames::wire::*;

/// Frames of each flood.
pub(super) const FRAMES: u32 = 30_000;

pub(super) const FLOOD: &[&str] = &["http2_flood"];

#[test]
fn pings() {
    Attack::calmed(FLOOD, |client| {
        flood(client, FRAMES, |at| frame(PING, 0, 0, u64::from(at).to_be_bytes()));
    })
    .run();
}

#[test]
fn replies_to_pings_that_were_never_sent() {
    Attack::calmed(FLOOD, |client| {
        flood(client, FRAMES, |at| frame(PING, ACK, 0, u64::from(at).to_be_bytes()));
    })
    .run();
}

#[test]
fn empty_settings() {
    Attack::calmed(FLOOD, |client| {
        flood(client, FRAMES, |_| settings(&[]));
    })
    .run();
}

/// Each changes the window of a hundred streams.
#[test]
fn settings_that_change_the_windows_of_streams() {
    Attack::calmed(FLOOD, |client| {
        for stream in 0..100 {
            client.get_path(2 * stream + 1, "/never");
        }
        flood(client, FRAMES, |at| settings(&[(INITIAL_WINDOW_SIZE, at % 2), (HEADER_TABLE_SIZE, at % 2)]));
    })
    .run();
}

#[test]
fn priorities() {
    Attack::calmed(FLOOD, |client| {
        flood(client, FRAMES, |at| frame(PRIORITY, 0, 2 * at + 1, [0, 0, 0, 0, 15]));
    })
    .run();
}

#[test]
fn windows_of_the_connection() {
    Attack::calmed(FLOOD, |client| {
        flood(client, FRAMES, |_| frame(WINDOW_UPDATE, 0, 0, 1_u32.to_be_bytes()));
    })
    .run();
}

#[test]
fn windows_of_a_stream_that_waits() {
    Attack::calmed(FLOOD, |client| {
        client.get_path(1, "/never");
        flood(client, FRAMES, |_| frame(WINDOW_UPDATE, 0, 1, 1_u32.to_be_bytes()));
    })
    .run();
}

#[test]
fn resets_of_a_stream_that_is_closed() {
    Attack::calmed(&["http2_flood", "http2_resets"], |client| {
        client.get(1, &[]);
        client.response(1);
        flood(client, FRAMES, |_| frame(RST_STREAM, 0, 1, CANCEL.to_be_bytes()));
    })
    .run();
}

#[test]
fn frames_of_unknown_kinds() {
    Attack::calmed(FLOOD, |client| {
        flood(client, FRAMES, |at| frame(0x20 + (at % 100) as u8, 0, 0, b""));
    })
    .run();
}

#[test]
fn empty_data() {
    Attack::calmed(FLOOD, |client| {
        client.send(post(1, "/never"));
        flood(client, FRAMES, |_| frame(DATA, 0, 1, b""));
    })
    .run();
}

#[test]
fn data_that_is_all_padding() {
    Attack::calmed(FLOOD, |client| {
        client.send(post(1, "/never"));
        flood(client, FRAMES, |_| frame(DATA, PADDED, 1, [0]));
    })
    .run();
}

/// The backend does not read, so that the pieces stay where they are.
#[test]
fn data_of_one_byte_that_stays() {
    Attack::calmed(FLOOD, |client| {
        for stream in 0..50 {
            client.send(post(2 * stream + 1, "/stalled"));
        }
        flood(client, FRAMES, |at| frame(DATA, 0, 2 * (at % 50) + 1, b"x"));
    })
    .or_code(&[ENHANCE_YOUR_CALM, FLOW_CONTROL_ERROR])
    .run();
}

/// A client that reads no reply: what it is owed is bounded, and its connection goes on or ends.
#[test]
fn pings_of_a_client_that_does_not_read() {
    let site = Site::start("");
    let (clients, felt) = beside(&site, || {
        let mut clients: Vec<_> = (0..CONNECTIONS).map(|_| site.client()).collect();
        for client in &mut clients {
            client.stream.set_write_timeout(Some(Duration::from_millis(100))).expect("a timeout");
            for _ in 0..1_000 {
                client.send(frame(PING, 0, 0, [7; 8]).repeat(100));
            }
        }
        clients
    });
    drop(clients);
    felt.is_within(GROWTH_KIB);
    site.is_at_rest();
}
