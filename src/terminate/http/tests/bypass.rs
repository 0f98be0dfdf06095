//! Bodies that are worth a pipe: what passes without being read, how much waits for a slow receiver, and what a cut does.
//!
//! Invariant: every stream here fills the buffers that read it, unless its test says otherwise.

use std::task::{Context, Poll, Waker};

use super::stage::{Asked, Left, Stage, Turns, drain};
use super::wire::{Ends, Wire};
use crate::outcome::Ended;
use crate::terminate::buffer::BUFFER;
use crate::terminate::pipe::{self, PIPE_BYTES};
use crate::terminate::relay::RelayDirection;

const GET: &str = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
const LENGTH: usize = 300_000;

fn body() -> Vec<u8> {
    (0..LENGTH).map(|at| (at ^ at >> 8) as u8).collect()
}

fn head_of(body: &[u8]) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len())
}

/// Runs an exchange in which a peer may be sent `room` bytes before it reads, and this thread may have `pipes` pipes.
fn exchange(pipes: usize, room: usize, head: &str, play: impl FnOnce(&mut Turns<'_>, &Wire, &Wire)) -> Left {
    pipe::at_most(pipes);
    let (stage, asked) = (Stage::new(), Asked::read(head));
    let (client, backend) = (Wire::new(room, usize::MAX), Wire::new(room, usize::MAX));
    stage.exchange(&asked, &client, &backend, |turns| play(turns, &client, &backend))
}

#[test]
fn a_body_with_a_length_and_a_large_chunk_pass_without_being_read_up_to_their_last_64_kib() {
    let body = body();
    let chunked = [format!("{LENGTH:x}\r\n").as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
    for (lines, sent) in [(format!("Content-Length: {LENGTH}"), &body), ("Transfer-Encoding: chunked".into(), &chunked)]
    {
        let left = exchange(1, 1 << 20, GET, |turns, client, backend| {
            turns.settle();
            backend.send(format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n").as_bytes());
            backend.send(sent);
            let got = drain(turns, client);
            assert!(got.ends_with(sent), "{lines}");
            let (_, passed) = client.spliced();
            assert!((LENGTH - BUFFER - PIPE_BYTES..LENGTH).contains(&passed), "{passed} bytes, {lines}");
        });
        let exchanged = left.result.expect("a response");
        assert!(exchanged.client_stays && exchanged.backend_stays, "{lines}");
        assert!(left.unasked.is_empty());
    }
}

#[test]
fn an_upload_passes_and_the_request_behind_it_stays_for_the_next_exchange() {
    let body = body();
    let post = format!("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n");
    let left = exchange(1, 1 << 20, &post, |turns, client, backend| {
        client.send(&body);
        client.send(b"GET /next");
        let got = drain(turns, backend);
        assert!(got.ends_with(&body));
        assert!(backend.spliced().1 >= LENGTH - BUFFER - PIPE_BYTES);
        backend.send(b"HTTP/1.1 204 No Content\r\n\r\n");
        drain(turns, client);
    });
    let exchanged = left.result.expect("a response");
    assert!(exchanged.client_stays && exchanged.backend_stays);
    assert_eq!(left.behind, b"GET /next");
}

#[test]
fn a_body_that_begins_in_a_pipe_has_begun_so_its_client_waits_for_no_100_and_stays() {
    pipe::at_most(1);
    let body = body();
    let head = format!("POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {LENGTH}\r\n\r\n");
    let (stage, asked) = (Stage::new(), Asked { after_bulk: true, ..Asked::read(&head) });
    let (client, backend) = (Wire::new(1 << 20, usize::MAX), Wire::new(1 << 20, usize::MAX));
    let left = stage.exchange(&asked, &client, &backend, |turns| {
        client.send(&body[..PIPE_BYTES]);
        turns.settle();
        assert_eq!(backend.spliced().1, PIPE_BYTES, "all of it passed through the pipe");
        backend.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        assert!(drain(turns, &client).ends_with(b"ok"));
        client.send(&body[PIPE_BYTES..]);
        assert!(drain(turns, &backend).ends_with(&body));
    });
    assert!(left.result.expect("a response").client_stays, "what follows is the rest of its body, and no new request");
}

#[test]
fn without_a_pipe_and_below_64_kib_bytes_are_copied() {
    for (pipes, length) in [(0, LENGTH), (1, PIPE_BYTES)] {
        let body = &body()[..length];
        let left = exchange(pipes, 1 << 20, GET, |turns, client, backend| {
            turns.settle();
            backend.send(head_of(body).as_bytes());
            backend.send(body);
            assert!(drain(turns, client).ends_with(body));
            assert_eq!(client.spliced(), (0, 0));
        });
        assert!(left.result.is_ok());
    }
}

#[test]
fn bytes_that_trickle_are_copied() {
    let body = body();
    let left = exchange(1, 1 << 20, GET, |turns, client, backend| {
        turns.settle();
        backend.send(head_of(&body).as_bytes());
        for piece in body.chunks(5_000) {
            backend.send(piece);
            assert!(drain(turns, client).ends_with(piece));
        }
        assert_eq!(client.spliced(), (0, 0));
    });
    assert!(left.result.is_ok());
}

#[test]
fn a_receiver_that_takes_nothing_holds_one_pipe_and_no_more_is_read_for_it() {
    let body = body();
    let room = 20_000;
    let left = exchange(1, room, GET, |turns, client, backend| {
        turns.settle();
        backend.send(head_of(&body).as_bytes());
        backend.send(&body);
        turns.settle();
        let (read, _) = backend.moved();
        assert!(read > room && read <= room + PIPE_BYTES, "{read} bytes were read");
        assert!(pipe::SplicePipe::take().is_none(), "the pipe is in use");
        let got = drain(turns, client);
        assert!(got.ends_with(&body));
        assert!(pipe::SplicePipe::take().is_some(), "the pipe is free again");
    });
    assert!(left.result.is_ok());
}

#[test]
fn a_backend_that_closes_inside_of_a_body_that_passes_has_cut_it() {
    let body = body();
    for (ends, ended) in [(Ends::Fin, Ended::ResponseCut), (Ends::Reset, Ended::BackendReset)] {
        let left = exchange(1, 1 << 20, GET, |turns, client, backend| {
            turns.settle();
            backend.send(head_of(&body).as_bytes());
            backend.send(&body[..200_000]);
            let got = drain(turns, client);
            assert!(got.ends_with(&body[..200_000]));
            assert!(client.spliced().1 > 0);
            backend.end(ends);
            turns.settle();
            assert!(turns.is_over() && !client.finished());
        });
        let failure = left.result.expect_err("the body is not whole");
        assert_eq!((failure.ended, failure.reply), (ended, None));
    }
}

#[test]
fn a_peer_that_resets_while_bytes_for_it_are_in_a_pipe_ends_its_side_of_the_exchange() {
    let body = body();
    let left = exchange(1, 20_000, GET, |turns, client, backend| {
        turns.settle();
        backend.send(head_of(&body).as_bytes());
        backend.send(&body);
        turns.settle();
        client.end(Ends::Reset);
        turns.settle();
        assert!(turns.is_over());
    });
    assert_eq!(left.result.expect_err("no client is there").ended, Ended::ClientReset);
    assert!(pipe::SplicePipe::take().is_some(), "its pipe was closed, and another may be made");

    // A response that was begun is passed on although the backend takes no more of the request.
    let post = format!("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n");
    let left = exchange(1, 20_000, &post, |turns, client, backend| {
        client.send(&body);
        turns.settle();
        backend.send(b"HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno");
        backend.end(Ends::Reset);
        assert!(drain(turns, client).ends_with(b"\r\n\r\nno"));
    });
    let exchanged = left.result.expect("a response");
    assert_eq!((exchanged.status, exchanged.ended), (413, Ended::RequestCut));
}

#[test]
fn bytes_that_the_kernel_would_not_move_out_of_a_pipe_are_copied_out_of_it() {
    let body = body();
    let left = exchange(1, 20_000, GET, |turns, client, backend| {
        turns.settle();
        backend.send(head_of(&body).as_bytes());
        backend.send(&body);
        turns.settle();
        client.refuse_pipes();
        let before = client.spliced();
        assert!(drain(turns, client).ends_with(&body));
        assert_eq!(client.spliced(), before);
    });
    assert!(left.result.is_ok());
}

#[test]
fn a_relay_without_frames_passes_bytes_through_pipes_and_the_end_behind_them() {
    pipe::at_most(1);
    let body = body();
    let (mut from, mut to) = (Wire::new(0, usize::MAX), Wire::new(100_000, usize::MAX));
    let (mut direction, mut got) = (RelayDirection::default(), Vec::new());
    from.send(&body);
    from.end(Ends::Fin);
    let mut cx = Context::from_waker(Waker::noop());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _inside = runtime.enter();
    while !direction.is_over() {
        direction.poll(&mut from, &mut to, &mut cx).unwrap();
        let bytes = to.receive(usize::MAX);
        assert!(!bytes.is_empty() || direction.is_over(), "it moves nothing");
        got.extend(bytes);
    }
    assert!(got == body && to.finished());
    assert_eq!(direction.moved(), LENGTH as u64);
    assert!(to.spliced().1 >= LENGTH - 2 * BUFFER);
    assert!(direction.poll_discard(&mut from, &mut cx) == Poll::Ready(()));
}
