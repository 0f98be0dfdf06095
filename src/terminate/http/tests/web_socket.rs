//! WebSockets that this process ends: at every byte, with peers that answer, are late, or do not answer.
//!
//! Invariant: a client gets whole frames and one Close frame behind them, or is cut.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::task::Poll;
use std::time::{Duration, Instant};

use super::wire::{Ends, Wire};
use crate::http::websocket::{FrameReader, Sender};
use crate::terminate::buffer::Buffer;
use crate::terminate::http::web_socket::Closing;
use crate::terminate::relay::RelayDirection;

/// What a client gets, and what it answers; the key of the mask is 0.
const RESTART: [u8; 4] = [0x88, 0x02, 0x03, 0xF4];
const ANSWER: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xF4];

/// A WebSocket between two wires, with what was relayed so far.
struct Socket {
    client: Wire,
    backend: Wire,
    up: RelayDirection,
    down: RelayDirection,
    /// Sides that have ended in good order.
    well: Cell<u8>,
}

impl Socket {
    fn new(piece: usize) -> Self {
        let wire = || Wire::new(1 << 20, piece);
        let direction = |sender| RelayDirection::of_frames(Buffer::default(), FrameReader::of(sender));
        let (up, down) = (direction(Sender::Client), direction(Sender::Server));
        Self { client: wire(), backend: wire(), up, down, well: Cell::new(0) }
    }

    /// Relays these bytes of the client, and those of the backend.
    async fn relay(&mut self, up: &[u8], down: &[u8]) {
        self.client.send(up);
        self.backend.send(down);
        let Self { client, backend, up, down, .. } = self;
        poll_fn(|cx| {
            // Wires give little at a time.
            for _ in 0..100 {
                up.poll(client, backend, cx).expect("it lives");
                down.poll(backend, client, cx).expect("it lives");
            }
            Poll::Ready(())
        })
        .await;
    }

    async fn close(&mut self) {
        let Self { client, backend, up, down, well } = self;
        let closing = Closing { client, backend, up, down };
        closing.close((|_: &mut _| well.set(well.get() + 1), |_: &mut _| well.set(well.get() + 1))).await;
    }
}

fn run(story: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(story);
}

/// Reads of a wire until that many bytes have come.
async fn take(wire: &Wire, count: usize) -> Vec<u8> {
    let mut got = Vec::new();
    while got.len() < count {
        got.extend(wire.receive(count - got.len()));
        tokio::task::yield_now().await;
    }
    got
}

/// A client that reads these bytes and its Close frame, and answers.
async fn answers(wire: Wire, before: &[u8]) {
    let got = take(&wire, before.len() + RESTART.len()).await;
    assert_eq!(got, [before, &RESTART].concat());
    wire.send(&ANSWER);
    while !wire.finished() {
        tokio::task::yield_now().await;
    }
    wire.end(Ends::Fin);
}

#[test]
fn wherever_it_is_ended_a_client_gets_whole_frames_and_then_the_close_frame() {
    let frames: [&[u8]; 6] = [
        &[0x01, 3, b'a', b'b', b'c'],
        &[0x89, 0],
        &[0x80, 126, 0, 4, 0x88, 0x02, 0x03, 0xF4],
        &[0x82, 127, 0, 0, 0, 0, 0, 0, 0, 2, 9, 9],
        &[0x41, 0],
        &[0x80, 1, b'x'],
    ];
    let all = frames.concat();
    let ends: Vec<_> = frames.iter().scan(0, |end, frame| Some(std::mem::replace(end, *end + frame.len()))).collect();
    for piece in [1, 3, 4_096] {
        for cut in 0..=all.len() {
            run(async {
                let mut socket = Socket::new(piece);
                socket.relay(&[], &all[..cut]).await;
                let (client, backend) = (socket.client.clone(), socket.backend.clone());
                let whole = *ends.iter().chain([&all.len()]).find(|end| **end >= cut).expect("an end");
                assert_eq!(client.receive(usize::MAX), &all[..cut]);
                let peers = async {
                    backend.send(&all[cut..]);
                    answers(client.clone(), &all[cut..whole]).await;
                    backend.end(Ends::Fin);
                };
                tokio::join!(socket.close(), peers);
                assert_eq!(client.receive(usize::MAX), b"", "{cut}");
                assert_eq!(backend.receive(usize::MAX), ANSWER, "{cut}");
                assert!(client.finished() && backend.finished() && socket.well.get() == 2);
            });
        }
    }
}

#[test]
fn what_a_client_sends_before_it_answers_reaches_the_backend() {
    run(async {
        let mut socket = Socket::new(4_096);
        let masked = [0x82, 0x83, 0, 0, 0, 0, 1, 2, 3];
        socket.relay(&masked[..7], &[]).await;
        let (client, backend) = (socket.client.clone(), socket.backend.clone());
        let peers = async {
            client.send(&masked[7..]);
            client.send(&masked);
            answers(client.clone(), &[]).await;
            backend.send(b"\x88\x02\x03\xF4");
            backend.end(Ends::Fin);
        };
        tokio::join!(socket.close(), peers);
        assert_eq!(backend.receive(usize::MAX), [&masked[..], &masked, &ANSWER].concat());
        assert_eq!(client.receive(usize::MAX), b"", "the client has its Close frame already");
        assert_eq!(socket.well.get(), 2);
    });
}

#[test]
fn a_client_that_does_not_answer_is_replaced_at_the_backend() {
    run(async {
        let mut socket = Socket::new(4_096);
        let (client, backend) = (socket.client.clone(), socket.backend.clone());
        let begun = Instant::now();
        let peers = async {
            let frame = take(&backend, 8).await;
            let code = [frame[6] ^ frame[2], frame[7] ^ frame[3]];
            assert_eq!((&frame[..2], u16::from_be_bytes(code)), (&[0x88, 0x82][..], 1001));
            backend.end(Ends::Fin);
        };
        tokio::join!(socket.close(), peers);
        assert!(begun.elapsed() >= Duration::from_secs(1) && begun.elapsed() < Duration::from_secs(4));
        assert_eq!(client.receive(usize::MAX), RESTART);
        assert!(client.finished() && backend.finished() && socket.well.get() == 2);
    });
}

#[test]
fn a_frame_whose_rest_does_not_come_is_cut_and_no_close_frame_stands_in_it() {
    // Of the backend, of the client, and bytes that are no frames at all.
    for (up, down, told) in [(&b""[..], &b"\x82\x05abc"[..], 0), (b"\x82\x85", b"", 1), (b"", b"first", 0)] {
        run(async {
            let mut socket = Socket::new(4_096);
            socket.relay(up, down).await;
            let (client, backend) = (socket.client.clone(), socket.backend.clone());
            socket.close().await;
            assert_eq!(client.receive(usize::MAX), [down, &RESTART[..4 * told]].concat());
            assert_eq!(backend.receive(usize::MAX), up);
            assert_eq!((client.finished(), backend.finished()), (told == 1, false));
            assert_eq!(usize::from(socket.well.get()), told, "a side that was cut must not look complete");
        });
    }
}

#[test]
fn a_close_frame_of_the_backend_is_not_followed_by_another() {
    run(async {
        let mut socket = Socket::new(4_096);
        socket.relay(&[], b"\x88\x02\x03\xE8").await;
        let (client, backend) = (socket.client.clone(), socket.backend.clone());
        let peers = async {
            client.send(&ANSWER);
            let answer = take(&backend, 8).await;
            assert_eq!(answer, ANSWER);
            client.end(Ends::Fin);
            backend.end(Ends::Fin);
        };
        tokio::join!(socket.close(), peers);
        assert_eq!(client.receive(usize::MAX), b"\x88\x02\x03\xE8");
        assert_eq!(socket.well.get(), 2);
    });
}
