//! How connections to backends are shared, and how they end.

use h2::server::Builder;

use super::site::Http2Site;
use super::{H2, http1, plain, read_until};
use crate::http2::client::{Client, Reply};
use crate::support::eventually;

fn connection(reply: &Reply) -> &str {
    reply.field("x-connection").expect("the number of a connection")
}

#[test]
fn all_requests_of_a_client_share_one_connection_and_those_of_others_have_their_own() {
    let site = Http2Site::new();
    let sessile = plain("", H2, &[site.address]);
    let (one, other) = (Client::plain(sessile.address("l")), Client::plain(sessile.address("l")));
    let exchanges: Vec<_> =
        [&one, &other].into_iter().cycle().take(40).map(|client| client.ask("/hold", &[])).collect();
    eventually("all requests", || (site.seen().requests.len() == 40).then_some(()));
    assert_eq!(site.seen().connections, 2);
    site.door.add_permits(40);
    for exchange in exchanges {
        assert_eq!(exchange.reply().unwrap().text(), "held");
    }
    let lines = eventually("a line of each request", || {
        let lines: Vec<_> = sessile.lines().into_iter().filter(|line| line["kind"] == "request").collect();
        (lines.len() == 40).then_some(lines)
    });
    assert_eq!(lines.iter().filter(|line| line["reused"] == true).count(), 38, "all but the first one of each");
    let status = sessile.status();
    assert_eq!(status["pools"][0]["backends"][0]["leases"], 2, "{status}");
    one.close().unwrap();
    site.is_open(1);
    other.close().unwrap();
    site.is_open(0);
}

#[test]
fn a_client_of_http1_keeps_its_connection_too() {
    let site = Http2Site::new();
    let sessile = plain("", H2, &[site.address]);
    let mut stream = http1(&sessile, "");
    for _ in 0..3 {
        use std::io::Write as _;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert!(read_until(&mut stream, "\r\n0\r\n\r\n").contains("x-connection: 1\r\n"));
    }
    drop(stream);
    site.is_open(0);
}

#[test]
fn a_connection_of_which_the_end_was_announced_takes_no_more_requests() {
    let site = Http2Site::new();
    let sessile = plain("", H2, &[site.address]);
    let client = Client::plain(sessile.address("l"));
    let held = client.ask("/hold", &[]);
    site.has_come("/hold");
    assert_eq!(connection(&client.get("/goaway", &[])), "1");
    eventually("another connection", || (connection(&client.get("/", &[])) == "2").then_some(()));
    // What had begun goes on to its end.
    site.door.add_permits(1);
    assert_eq!(connection(&held.reply().unwrap()), "1");
    site.is_open(1);
}

#[test]
fn more_requests_than_a_backend_takes_at_once_wait_in_order() {
    let mut builder = Builder::new();
    builder.max_concurrent_streams(2);
    let site = Http2Site::with(builder, None);
    let sessile = plain("", H2, &[site.address]);
    let client = Client::plain(sessile.address("l"));
    // Its settings have come with this.
    client.get("/", &[]);
    let exchanges: Vec<_> = (0..6).map(|_| client.ask("/hold", &[])).collect();
    eventually("two requests", || (site.seen().requests.len() == 3).then_some(()));
    for (number, exchange) in exchanges.into_iter().enumerate() {
        assert!(site.seen().requests.len() <= number + 3);
        site.door.add_permits(1);
        assert_eq!(exchange.reply().unwrap().text(), "held");
    }
    assert_eq!(site.seen().connections, 1);
}

#[test]
fn a_backend_that_closes_gets_another_connection() {
    let site = Http2Site::new();
    let sessile = plain("", H2, &[site.address]);
    let client = Client::plain(sessile.address("l"));
    assert_eq!(connection(&client.get("/", &[])), "1");
    assert_eq!(connection(&client.get("/goaway", &[])), "1");
    site.is_open(0);
    eventually("another connection", || (connection(&client.get("/", &[])) == "2").then_some(()));
}
