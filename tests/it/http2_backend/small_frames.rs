//! Clients of gRPC that send and read messages of few bytes, each a frame: what they do is no flood.
//!
//! The floods themselves are in `http2_frames::attacks`. The client writes frame by frame, as the crate h2 would not.

use h2::server::Builder;

use super::site::Http2Site;
use super::{H2, plain};
use crate::http2_frames::wire::{Client, Event, PING, post};
use crate::support::eventually;

/// A message as gRPC has it: ten bytes behind their length.
const MESSAGE: [u8; 15] = *b"\0\0\0\0\x0a0123456789";

/// Waits until the server has read all that was sent.
fn is_read(client: &mut Client) {
    client.frame(PING, 0, 0, [7; 8]);
    client.until("an answer to a ping", |event| (*event == Event::Pong([7; 8])).then_some(()));
}

#[test]
fn uploads_of_small_messages_wait_for_a_backend_that_pauses() {
    const STREAMS: u32 = 16;
    const MESSAGES: usize = 1_000;
    let all = STREAMS as usize * MESSAGES * MESSAGE.len();
    let mut builder = Builder::new();
    // What it takes is not what is tested here.
    builder.initial_window_size(1_000).data_frame_budget(usize::MAX);
    let site = Http2Site::with(builder, None);
    let sessile = plain("", H2, &[site.address]);
    let mut client = Client::open(sessile.address("l"));
    is_read(&mut client);
    for number in 0..STREAMS {
        let stream = 2 * number + 1;
        client.send(post(stream, "/slow"));
        (0..MESSAGES).for_each(|_| client.data(stream, MESSAGE, false));
        is_read(&mut client);
    }
    assert!(site.seen().read < all / 5, "the backend pauses");
    site.door.add_permits(all);
    for number in 0..STREAMS {
        client.data(2 * number + 1, [], true);
    }
    let mut answered = 0;
    while answered < STREAMS {
        let status = client.until("a response", Event::status);
        assert_eq!(status, 200);
        answered += 1;
    }
    assert_eq!(site.seen().read, all);
}

#[test]
fn a_client_that_measures_its_way_and_opens_its_windows_by_messages_is_served() {
    const MESSAGES: usize = 8_000;
    let site = Http2Site::new();
    let sessile = plain("", H2, &[site.address]);
    let mut client = Client::open(sessile.address("l"));
    client.send(post(1, "/echo"));
    for _ in 0..MESSAGES {
        client.data(1, MESSAGE, false);
        let mut echoed = 0;
        while echoed < MESSAGE.len() {
            echoed += client.until("an echo", |event| match event {
                Event::Data { bytes, .. } => Some(bytes.len()),
                _ => None,
            });
        }
        client.frame(PING, 0, 0, [7; 8]);
        client.window(0, MESSAGE.len() as u32);
        client.window(1, MESSAGE.len() as u32);
    }
    client.data(1, [], true);
    client.until("the end", |event| matches!(event, Event::Headers { is_end: true, .. }).then_some(()));
    eventually("the line", || {
        sessile.lines().into_iter().find(|line| line["ended"] == "done" && line["path"] == "/echo")
    });
}
