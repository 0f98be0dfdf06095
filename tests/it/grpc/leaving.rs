//! Backends that are drained, die or stop while calls are there.

use std::collections::HashSet;
use std::net::TcpStream;

use rustix::process::Signal;

use super::site::{H2, IN_TURN, Site, Streaming};
use super::{Server, addresses, has_grpc};
use crate::support::eventually;
use crate::support::program::free_address;
use crate::support::sessile::run;

const NAMES: [&str; 2] = ["a", "b"];

/// The index of the server with this name, which is that of its backend.
fn index_of(name: &str) -> usize {
    NAMES.iter().position(|own| *own == name).expect("a server of this name")
}

#[test]
fn a_stream_goes_on_while_its_backend_is_drained() {
    if !has_grpc("a_stream_goes_on_while_its_backend_is_drained") {
        return;
    }
    let servers = NAMES.map(Server::named);
    for site in Site::both(IN_TURN, &addresses(&servers)) {
        let mut stream = Streaming::start(&site);
        let (name, first) = stream.message();
        let socket = site.sessile.admin().display().to_string();
        assert!(run(&["drain", &format!("p/b{}", index_of(&name)), "--socket", &socket]).status.success());
        for number in first + 1..first + 50 {
            assert_eq!(stream.message(), (name.clone(), number));
        }
        // New clients go elsewhere.
        let seen = site.asks("channels", &["4"]);
        assert_eq!((&seen["mixed"], seen["names"].get(&name)), (&0.into(), None), "{seen}");
        stream.message();
    }
}

#[test]
fn a_stream_whose_backend_dies_fails_and_the_next_call_is_served_by_another() {
    if !has_grpc("a_stream_whose_backend_dies_fails_and_the_next_call_is_served_by_another") {
        return;
    }
    for way in 0..2 {
        let servers = NAMES.map(Server::named);
        let site = &Site::both(IN_TURN, &addresses(&servers))[way];
        let mut stream = Streaming::start(site);
        let (name, _) = stream.message();
        servers[index_of(&name)].program.signal(Signal::KILL);
        let end = std::iter::repeat_with(|| stream.says()).find(|said| said["message"].is_null()).unwrap();
        assert!(["UNAVAILABLE", "INTERNAL"].iter().any(|code| end["code"] == *code), "{end}");
        // Until the process has gone, the kernel may still accept connections for it.
        eventually("the backend to be gone", || TcpStream::connect(servers[index_of(&name)].address).err());
        let other = if name == "a" { "b next" } else { "a next" };
        assert_eq!(stream.next_call(), other);
    }
}

#[test]
fn a_backend_that_stops_in_order_completes_its_calls_and_gets_no_more() {
    if !has_grpc("a_backend_that_stops_in_order_completes_its_calls_and_gets_no_more") {
        return;
    }
    for way in 0..2 {
        let servers = NAMES.map(Server::named);
        let site = &Site::both(IN_TURN, &addresses(&servers))[way];
        let mut stream = Streaming::start(site);
        let (name, first) = stream.message();
        // It announces its end by GOAWAY, and takes no more connections.
        servers[index_of(&name)].program.signal(Signal::TERM);
        for number in first + 1..first + 50 {
            assert_eq!(stream.message(), (name.clone(), number));
        }
        let seen = site.asks("one_after_the_other", &["5"]);
        let other = if name == "a" { "b " } else { "a " };
        assert_eq!(seen, serde_json::json!({ other: 5 }));
    }
}

#[test]
fn a_server_that_ends_its_connections_by_age_fails_no_call() {
    if !has_grpc("a_server_that_ends_its_connections_by_age_fails_no_call") {
        return;
    }
    for way in 0..2 {
        let servers = [Server::aging("a", 300)];
        let site = &Site::both(H2, &addresses(&servers))[way];
        let mut stream = Streaming::start(site);
        let (_, first) = stream.message();
        let seen = site.asks("for_a_while", &["2"]);
        assert!(seen["a "].as_u64() > Some(20) && seen.as_object().unwrap().len() == 1, "{seen}");
        let peers: HashSet<_> = servers[0].begun("Unary").iter().map(|line| line["peer"].to_string()).collect();
        assert!(peers.len() >= 3, "{peers:?}");
        // A stream that has begun goes on.
        let (_, number) = stream.message();
        assert!(number > first);
    }
}

#[test]
fn calls_without_a_backend_are_unavailable() {
    if !has_grpc("calls_without_a_backend_are_unavailable") {
        return;
    }
    // Statuses of HTTP stand for it: 502, 503, 504 (http-grpc-status-mapping.md).
    let dead = [free_address()];
    for options in [H2.to_owned(), format!("{H2}all_down = \"refuse\"\n")] {
        for site in Site::both(&options, &dead) {
            assert_eq!(site.asks("code", &[]), serde_json::json!(vec!["UNAVAILABLE"; 4]), "{options}");
        }
    }
}
