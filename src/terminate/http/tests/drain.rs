//! Exchanges that the drain of the process meets: before their response, inside of it, and with a request behind them.
//!
//! Invariant: an exchange that has begun is finished, and its client learns from the head of the response whether its
//! connection goes on.

use super::stage::{Asked, Left, Stage, Turns};
use super::wire::Wire;
use super::world::read;
use crate::clock;
use crate::outcome::Ended;

const GET: &str = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Begins the drain after so many microseconds of it have passed.
type Begin<'a> = &'a dyn Fn(u64);

fn exchange(head: &str, play: impl FnOnce(&mut Turns<'_>, &Wire, &Wire, Begin<'_>)) -> Left {
    let (stage, asked) = (Stage::new(), Asked::read(head));
    let (client, backend) = (Wire::new(4_096, 4_096), Wire::new(4_096, 4_096));
    let begin = |ago: u64| stage.conversation.context.drain.begin(clock::now().saturating_sub(ago));
    stage.exchange(&asked, &client, &backend, |turns| play(turns, &client, &backend, &begin))
}

#[test]
fn a_response_whose_head_is_not_sent_says_that_the_connection_closes() {
    for (head, version_keeps) in [(GET, ""), ("GET /x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "keep-alive")] {
        for drains in [false, true] {
            let meta = Asked::read(head).meta;
            let left = exchange(head, |turns, client, backend, begin| {
                turns.settle();
                if drains {
                    begin(0);
                }
                backend.send(OK);
                turns.settle();
                let got = client.receive(usize::MAX);
                let response = read(&got, meta);
                assert!(response.whole && response.closes == drains, "{}", got.escape_ascii());
                let keeps = got.windows(10).any(|part| part.eq_ignore_ascii_case(b"keep-alive"));
                assert_eq!(keeps, !drains && !version_keeps.is_empty(), "{}", got.escape_ascii());
            });
            let exchanged = left.result.expect("a response");
            assert_eq!((exchanged.ended, exchanged.client_stays), (Ended::Done, !drains));
        }
    }
}

#[test]
fn a_client_that_was_told_that_its_connection_stays_may_still_use_it() {
    let left = exchange(GET, |turns, client, backend, begin| {
        turns.settle();
        backend.send(&OK[..OK.len() - 1]);
        turns.settle();
        begin(0);
        backend.send(b"k");
        turns.settle();
        assert!(client.receive(usize::MAX).ends_with(b"\r\n\r\nok"));
    });
    assert!(left.result.expect("a response").client_stays);
}

#[test]
fn a_request_that_has_come_behind_it_is_served_too_for_a_second() {
    for (ago, stays) in [(0, true), (2_000_000, false)] {
        let left = exchange(GET, |turns, client, backend, begin| {
            client.send(b"POST /y HTTP/1.1\r\n");
            turns.settle();
            begin(ago);
            backend.send(OK);
            turns.settle();
            let closes = read(&client.receive(usize::MAX), Asked::read(GET).meta).closes;
            assert_eq!(closes, !stays);
        });
        assert_eq!(left.result.expect("a response").client_stays, stays);
        assert_eq!(left.behind, b"POST /y HTTP/1.1\r\n");
    }
}

#[test]
fn an_upload_goes_on_to_its_end_and_its_first_bytes_are_no_next_request() {
    let head = "POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 100000\r\n\r\n";
    let body = vec![b'x'; 100_000];
    for answers_first in [false, true] {
        let left = exchange(head, |turns, client, backend, begin| {
            turns.settle();
            begin(0);
            backend.send(b"HTTP/1.1 100 Continue\r\n\r\n");
            turns.settle();
            // More than the backend has room for: the exchange holds a part of it.
            client.send(&body[..60_000]);
            turns.settle();
            if answers_first {
                backend.send(OK);
                turns.settle();
                assert!(!turns.is_over(), "the request is not complete");
            }
            client.send(&body[60_000..]);
            let mut got = Vec::new();
            while !got.ends_with(&body) {
                turns.settle();
                got.extend(backend.receive(usize::MAX));
            }
            if !answers_first {
                backend.send(OK);
            }
            turns.settle();
            let response = read(&client.receive(usize::MAX), Asked::read(head).meta);
            assert_eq!((response.interims, response.status, response.closes), (1, Some(200), true));
        });
        let exchanged = left.result.expect("a response");
        assert_eq!((exchanged.ended, exchanged.client_stays), (Ended::Done, false), "{answers_first}");
    }
}
