//! Where calls go: all of a client to one backend, over one connection.

use std::collections::{BTreeMap, HashSet};

use super::site::{H2, IN_TURN, Site};
use super::{Server, addresses, has_grpc};

fn three() -> [Server; 3] {
    ["a", "b", "c"].map(Server::named)
}

/// How often each value is there.
fn counted(seen: &serde_json::Value) -> BTreeMap<String, u64> {
    serde_json::from_value(seen.clone()).unwrap()
}

#[test]
fn a_hundred_calls_at_once_on_one_channel_are_at_one_backend_over_one_connection() {
    if !has_grpc("a_hundred_calls_at_once_on_one_channel_are_at_one_backend_over_one_connection") {
        return;
    }
    let servers = three();
    for site in Site::both(IN_TURN, &addresses(&servers)) {
        let seen = counted(&site.asks("parallel", &[]));
        assert_eq!(seen.len(), 1, "{seen:?}");
        let lines = site.log("Meet", 100);
        let placed = lines.iter().filter(|line| line["reason"] != "connection").count();
        assert_eq!(placed, 1, "the first one alone is placed anew: {lines:?}");
    }
    for server in &servers {
        let peers: HashSet<_> = server.begun("Meet").iter().map(|line| line["peer"].to_string()).collect();
        // One connection for each client and backend: each site has had one client.
        assert!(peers.len() <= server.begun("Meet").len() / 100, "{peers:?}");
    }
}

#[test]
fn channels_of_one_source_are_at_one_backend() {
    if !has_grpc("channels_of_one_source_are_at_one_backend") {
        return;
    }
    let servers = three();
    for site in Site::both(H2, &addresses(&servers)) {
        let seen = site.asks("channels", &["6"]);
        assert_eq!(seen["mixed"], 0, "{seen}");
        assert_eq!(counted(&seen["names"]).into_values().collect::<Vec<_>>(), [6], "{seen}");
    }
}

#[test]
fn channels_placed_in_turn_are_spread_and_each_stays() {
    if !has_grpc("channels_placed_in_turn_are_spread_and_each_stays") {
        return;
    }
    let servers = three();
    for site in Site::both(IN_TURN, &addresses(&servers)) {
        let seen = site.asks("channels", &["6"]);
        assert_eq!(seen["mixed"], 0, "{seen}");
        assert_eq!(counted(&seen["names"]).len(), 3, "{seen}");
    }
}
