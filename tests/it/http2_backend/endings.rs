//! What the end of a stream on one side means on the other.

use std::io::Read;

use h2::Reason;

use super::site::Http2Site;
use super::{H2, http1, http1_answer, plain, read_until};
use crate::http2::client::{Answered, Client};
use crate::support::Sessile;

/// Ending of the request for this path, in the log.
fn ending(sessile: &Sessile, path: &str) -> String {
    let line = sessile.line(&format!("the request for {path}"), |line| line["path"] == path);
    line["ended"].as_str().expect("a word").to_owned()
}

fn reason<T>(answered: Answered<T>) -> Option<Reason> {
    answered.err().and_then(|error| error.reason())
}

#[test]
fn a_stream_that_its_backend_resets_before_a_response_gets_a_502() {
    let site = Http2Site::new();
    let sessile = plain("", H2, &[site.address]);
    let client = Client::plain(sessile.address("l"));
    for code in [2, 8, 11, 13] {
        let path = format!("/reset/{code}");
        assert_eq!(client.get(&path, &[]).status, 502, "{code}");
        assert_eq!(ending(&sessile, &path), "backend_reset");
    }
    let text = http1_answer(&sessile, "GET /reset/2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(text.starts_with("HTTP/1.1 502 "), "{text}");
    assert_eq!(client.get("/", &[]).status, 200);
    let seen = site.seen();
    assert_eq!((seen.connections, seen.requests.len()), (2, 6), "no request is repeated, and the connection stays");
}

#[test]
fn a_stream_that_its_backend_resets_inside_a_response_is_reset_with_that_code() {
    let site = Http2Site::new();
    let sessile = plain("", H2, &[site.address]);
    let client = Client::plain(sessile.address("l"));
    for (code, expected) in [(8, 8), (11, 11), (7, 7), (2, 2), (1, 2), (0, 2)] {
        let mut begun = client.ask(&format!("/cut/{code}"), &[]).head().unwrap();
        assert_eq!(begun.piece().unwrap().unwrap(), "part");
        site.door.add_permits(1);
        assert_eq!(reason(begun.rest()), Some(Reason::from(expected)), "{code}");
        assert_eq!(ending(&sessile, &format!("/cut/{code}")), "backend_reset");
    }
    let mut stream = http1(&sessile, "GET /cut/8 HTTP/1.1\r\nHost: a\r\n\r\n");
    read_until(&mut stream, "part\r\n");
    site.door.add_permits(1);
    assert!(stream.read(&mut [0]).is_err(), "a response that is cut must not look whole");
}

#[test]
fn a_stream_that_its_backend_has_not_looked_at_is_sent_once_more() {
    let site = Http2Site::new();
    let sessile = plain("", H2, &[site.address]);
    let client = Client::plain(sessile.address("l"));
    let exchange = client.ask("/reset/7", &[]);
    assert_eq!(reason(exchange.reply()), Some(Reason::REFUSED_STREAM), "the client may repeat it, too");
    assert_eq!(site.seen().requests.len(), 2);
    let mut exchange = client.begin(client.request("POST", "/reset/7", &[]), false).unwrap();
    // The reset may come before the end of the request.
    let _ = exchange.write(b"", true);
    assert_eq!(reason(exchange.reply()), Some(Reason::REFUSED_STREAM));
    let text =
        http1_answer(&sessile, "POST /reset/7 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    assert!(text.starts_with("HTTP/1.1 502 "), "{text}");
    assert_eq!(site.seen().requests.iter().filter(|(connection, _)| *connection == 2).count(), 2);
}

#[test]
fn a_request_that_its_client_takes_back_ends_at_the_backend_at_once() {
    let site = Http2Site::new();
    let sessile = plain("", H2, &[site.address]);
    let client = Client::plain(sessile.address("l"));
    let exchange = client.ask("/wait", &[]);
    site.has_come("/wait");
    exchange.reset();
    assert_eq!(site.reset_of("/wait"), Reason::CANCEL);
    // Also while the backend takes no more of its body.
    let mut exchange = client.begin(client.request("POST", "/stall", &[]), false).unwrap();
    exchange.fill(4 << 20).unwrap();
    exchange.reset();
    assert_eq!(site.reset_of("/stall"), Reason::CANCEL);
    assert_eq!(ending(&sessile, "/stall"), "client_reset");
    assert_eq!(client.get("/", &[]).status, 200);
    assert_eq!(site.seen().connections, 1);
}

#[test]
fn a_response_may_end_before_its_request() {
    let site = Http2Site::new();
    let sessile = plain("", H2, &[site.address]);
    let client = Client::plain(sessile.address("l"));
    let mut exchange = client.begin(client.request("POST", "/early", &[]), false).unwrap();
    exchange.write(b"some", false).unwrap();
    assert_eq!(exchange.reply().unwrap().text(), "enough");
    assert_eq!(ending(&sessile, "/early"), "request_cut");
    assert_eq!(client.get("/", &[]).status, 200);
    assert_eq!(site.seen().connections, 1);
}
