//! `requests_max`: behind which request a client's connection ends.

use std::net::{SocketAddr, TcpStream};

use super::{HTTP, plain};
use crate::http2::client::Client;
use crate::support::Sessile;
use crate::support::backend::{listener, pool};
use crate::terminate::backend::Recorder;
use crate::terminate::client::Talk;

/// What the responses of one connection of HTTP/1.1 say of its end, up to that.
fn ends(address: SocketAddr, path: &str) -> Vec<Option<String>> {
    let mut talk = Talk::new(TcpStream::connect(address).unwrap());
    let mut said = Vec::new();
    while said.len() < 10 && !said.last().is_some_and(Option::is_some) {
        let answer = talk.get(path, "");
        assert_eq!(answer.status, 200);
        said.push(answer.field("connection").map(str::to_owned));
    }
    if said.last().is_some_and(Option::is_some) {
        assert_eq!(talk.end(), (Vec::new(), true), "the connection ends");
    }
    said
}

fn closes_behind(count: usize) -> Vec<Option<String>> {
    let mut said = vec![None; count - 1];
    said.push(Some("close".to_owned()));
    said
}

#[test]
fn the_last_response_of_a_connection_says_so_and_no_request_follows() {
    let site = Recorder::named("x");
    let route = "[[listener.route]]\npath = \"/own\"\nrespond = { status = 200, body = \"own\" }\n";
    let sessile = plain(&site, "[limits]\nrequests_max = 3\n", route, "");
    for path in ["/", "/own"] {
        assert_eq!(ends(sessile.address("l"), path), closes_behind(3), "{path}");
    }
    assert_eq!(site.answered(), 3);
    assert_eq!(site.connections(), 1, "the backend's connection is kept for all requests");
}

#[test]
fn the_nearest_number_of_requests_counts_and_a_reload_changes_it_at_once() {
    let site = Recorder::named("x");
    let of = |number: &str| {
        "[limits]\nrequests_max = 2\n".to_owned()
            + &listener("p", &format!("[listener.limits]\nrequests_max = {number}\n"))
            + &pool("p", HTTP, &[site.address()])
    };
    let sessile = Sessile::start(&of("4"));
    assert_eq!(ends(sessile.address("l"), "/"), closes_behind(4));
    sessile.reload(&of("\"off\""));
    assert_eq!(ends(sessile.address("l"), "/"), vec![None; 10]);
    let mut talk = Talk::new(TcpStream::connect(sessile.address("l")).unwrap());
    assert_eq!(talk.get("/", "").field("connection"), None);
    let client = Client::plain(sessile.address("l"));
    assert_eq!(client.get("/", &[]).status, 200);
    let verdict = sessile.reload(&of("2"));
    assert_eq!(verdict["changes"][0], "listener \"l\": limits.requests_max changed, takes effect at once", "{verdict}");
    assert_eq!(talk.get("/", "").field("connection"), Some("close"));
    assert_eq!(client.get("/", &[]).status, 200);
    assert!(client.begin(client.request("GET", "/", &[]), true).and_then(|asked| asked.reply()).is_err(), "GOAWAY");
}
