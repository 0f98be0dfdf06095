//! Exchanges that are told step by step: responses before the end of the request, floods, and clients that are gone.
//!
//! Invariant: each story is one kind of peer.

use super::stage::{Asked, Left, Stage, Turns, drain};
use super::wire::{Ends, Wire};
use super::world::read;
use crate::http::answer::StatusCode;
use crate::outcome::Ended;
use crate::terminate::request_limits::BodyLimits;

const POST: &str = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n";
const ACCEPTED: &[u8] = b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok";

fn exchange(head: &str, play: impl FnOnce(&mut Turns<'_>, &Wire, &Wire)) -> Left {
    exchange_with(4_096, head, play)
}

/// `room`: what the client can be sent before it reads.
fn exchange_with(room: usize, head: &str, play: impl FnOnce(&mut Turns<'_>, &Wire, &Wire)) -> Left {
    let (stage, asked) = (Stage::new(), Asked::read(head));
    let (client, backend) = (Wire::new(room, 4_096), Wire::new(4_096, 4_096));
    let left = stage.exchange(&asked, &client, &backend, |turns| play(turns, &client, &backend));
    assert_eq!(stage.pool.backends()[0].leases(), 0);
    left
}

#[test]
fn the_rest_of_an_upload_follows_a_response_that_is_complete() {
    let body = vec![b'x'; 100_000];
    let left = exchange(POST, |turns, client, backend| {
        client.send(&body[..1_000]);
        turns.settle();
        backend.send(ACCEPTED);
        let answer = drain(turns, client);
        assert!(answer.ends_with(b"\r\n\r\nok") && !answer.windows(10).any(|part| part == b"Connection"));
        assert!(!turns.is_over() && !client.finished(), "the request is not complete");
        client.send(&body[1_000..]);
        client.send(b"GET /next");
        let got = drain(turns, backend);
        assert!(got.ends_with(&body));
    });
    let exchanged = left.result.expect("a response");
    assert_eq!((exchanged.status, exchanged.ended), (202, Ended::Done));
    assert!(exchanged.client_stays && exchanged.backend_stays);
    assert_eq!(left.behind, b"GET /next");
}

#[test]
fn a_backend_that_stops_reading_has_cut_the_request() {
    for ends in [Ends::Reset, Ends::Fin] {
        let left = exchange(POST, |turns, client, backend| {
            client.send(&[b'x'; 20_000]);
            turns.settle();
            backend.send(ACCEPTED);
            backend.end(ends);
            let answer = drain(turns, client);
            assert!(answer.ends_with(b"\r\n\r\nok"));
            if ends == Ends::Fin {
                // It may read on; the client learns that its connection ends.
                assert!(!turns.is_over() && client.finished());
                client.send(&[b'x'; 80_000]);
                let got = drain(turns, backend);
                assert!(got.ends_with(&[b'x'; 80_000]));
            }
        });
        let exchanged = left.result.expect("a response");
        assert_eq!((exchanged.status, exchanged.ended), (202, Ended::RequestCut), "{ends:?}");
        assert!(!exchanged.client_stays && !exchanged.backend_stays);
    }
}

#[test]
fn a_response_is_passed_on_although_the_client_gives_its_request_up() {
    let left = exchange(POST, |turns, client, backend| {
        client.send(&[b'x'; 1_000]);
        turns.settle();
        backend.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 9000\r\n\r\nsorry");
        turns.settle();
        client.end(Ends::Fin);
        turns.settle();
        assert!(!turns.is_over(), "the response is not complete");
        backend.send(&[b'y'; 8_995]);
        let answer = drain(turns, client);
        assert!(answer.ends_with(&[b'y'; 8_995]));
    });
    let exchanged = left.result.expect("a response");
    assert_eq!((exchanged.status, exchanged.ended), (413, Ended::ClientLeft));
}

#[test]
fn a_client_that_waits_for_100_and_gets_a_final_response_is_told_that_its_connection_ends() {
    let expects = POST.replace("Host", "Expect: 100-continue\r\nHost");
    let refuse = b"HTTP/1.1 417 No\r\nContent-Length: 2\r\n\r\nno";
    for (first, closes) in [("", true), ("HTTP/1.1 100 Continue\r\n\r\n", false)] {
        let meta = Asked::read(&expects).meta;
        let left = exchange(&expects, |turns, client, backend| {
            turns.settle();
            backend.send(first.as_bytes());
            backend.send(refuse);
            let answer = read(&drain(turns, client), meta);
            assert_eq!((answer.status, answer.closes), (Some(417), closes));
            assert_eq!(client.finished(), closes);
            client.send(&[b'x'; 100_000]);
            drain(turns, backend);
        });
        let exchanged = left.result.expect("a response");
        assert_eq!((exchanged.ended, exchanged.client_stays), (Ended::Done, !closes));
    }
}

#[test]
fn a_switch_waits_for_the_rest_of_the_request() {
    let head = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nX: {}\r\n\r\n",
        "x".repeat(9_000)
    );
    let left = exchange(&head, |turns, client, backend| {
        turns.settle();
        backend.send(b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x00");
        turns.settle();
        assert!(!turns.is_over(), "the backend has half of the head");
        let got = drain(turns, backend);
        assert!(got.ends_with(b"\r\n\r\n"));
        drain(turns, client);
    });
    let exchanged = left.result.expect("a response");
    assert!(exchanged.switched && exchanged.ended == Ended::Done);
    assert_eq!(left.unasked, b"\x81\x00");
}

#[test]
fn the_seventeenth_interim_response_is_refused() {
    for (count, passes) in [(16, true), (17, false), (100_000, false)] {
        let mut sent = b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(count);
        sent.extend(b"HTTP/1.1 204 No Content\r\n\r\n");
        let left = exchange("GET / HTTP/1.1\r\nHost: a\r\n\r\n", |turns, client, backend| {
            backend.send(&sent);
            let got = drain(turns, client);
            assert_eq!(got.windows(8).filter(|part| part == b" 103 Ear").count(), count.min(16));
            assert!(backend.moved().0 <= 64 * 1024, "{} bytes were read of a flood", backend.moved().0);
        });
        match left.result {
            Ok(exchanged) => assert!(passes && exchanged.status == 204),
            Err(failure) => {
                assert!(!passes && failure.ended == Ended::ResponseRefused);
                assert_eq!(failure.reply.map(|status| status.code()), Some(502));
            }
        }
    }
}

#[test]
fn one_byte_chunks_are_passed_on_over_many_turns_and_end_when_the_client_is_gone() {
    let flood = b"1\r\nx\r\n".repeat(2_000_000);
    let left = exchange_with(16 << 20, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", |turns, client, backend| {
        backend.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        backend.send(&flood);
        for _ in 0..50 {
            turns.turn();
            let calls = client.take_calls() + backend.take_calls();
            assert!(calls <= 256, "{calls} calls in one turn");
            client.receive(usize::MAX);
        }
        assert!(!turns.is_over());
        let before = backend.moved().0;
        client.end(Ends::Reset);
        turns.settle();
        assert!(turns.is_over() && backend.moved().0 - before <= 32 * 1024);
    });
    let failure = left.result.expect_err("nobody reads");
    assert_eq!((failure.ended, failure.reply), (Ended::ClientReset, None));
}

#[test]
fn the_end_behind_a_response_leaves_with_its_last_bytes() {
    for (field, ends) in [("", false), ("Connection: close\r\n", true)] {
        let left = exchange(&format!("GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n"), |turns, client, backend| {
            turns.settle();
            backend.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            turns.settle();
            assert!(turns.is_over());
            assert_eq!(client.finished(), ends, "{field}");
        });
        assert_eq!(left.result.expect("a response").client_stays, !ends);
    }
}

#[test]
fn a_body_ends_where_it_announces_more_than_its_limit() {
    let head = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for begun in [false, true] {
        let body_limits = BodyLimits { most: 10, rate_min: None, time_max: None };
        let (stage, asked) = (Stage::new(), Asked { body_limits, ..Asked::read(head) });
        let (client, backend) = (Wire::new(4_096, 4_096), Wire::new(4_096, 4_096));
        let left = stage.exchange(&asked, &client, &backend, |turns| {
            client.send(b"4\r\nabcd\r\n6;x\r\nefghij\r\n");
            turns.settle();
            if begun {
                backend.send(ACCEPTED);
                drain(turns, &client);
            }
            client.send(b"fffffff\r\n");
            let got = drain(turns, &backend);
            assert!(got.ends_with(b"6;x\r\nefghij\r\n"), "nothing beyond the limit is sent");
        });
        let told = left.result.map(|exchanged| (exchanged.status, exchanged.ended, exchanged.client_stays));
        match begun {
            true => assert_eq!(told.expect("a response"), (202, Ended::BodyTooLarge, false)),
            false => {
                let failure = told.expect_err("no response");
                assert_eq!((failure.ended, failure.reply), (Ended::BodyTooLarge, Some(StatusCode::ContentTooLarge)));
            }
        }
    }
}
