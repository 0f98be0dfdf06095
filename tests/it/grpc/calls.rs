//! Calls of every kind: messages, metadata, statuses, deadlines.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::site::{H2, Site};
use super::{Server, addresses, has_grpc};
use crate::support::authority::Authority;

/// Lines that a server named `a` gives to a client that counts.
fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("a {number}")).collect()
}

fn every_kind(seen: &Value) {
    assert_eq!((&seen["unary"], &seen["empty"]), (&json!("a hello"), &json!("a ")), "{seen}");
    assert_eq!((&seen["packed"], &seen["collected"]), (&json!(100_002), &json!("a 50 1225")), "{seen}");
    assert_eq!((&seen["counted"], &seen["chatted"]), (&json!(numbered(50)), &json!(numbered(20))), "{seen}");
}

#[test]
fn calls_of_every_kind_pass_over_tls_and_in_the_clear() {
    if !has_grpc("calls_of_every_kind_pass_over_tls_and_in_the_clear") {
        return;
    }
    let servers = [Server::named("a")];
    for site in Site::both(H2, &addresses(&servers)) {
        every_kind(&site.asks("kinds", &[]));
        for line in site.log("Unary", 3) {
            assert_eq!(
                (&line["status"], &line["ended"], &line["backend"]),
                (&json!(200), &json!("done"), &json!("b0"))
            );
        }
    }
}

#[test]
fn calls_of_every_kind_pass_to_backends_with_tls() {
    if !has_grpc("calls_of_every_kind_pass_to_backends_with_tls") {
        return;
    }
    let authority = Authority::new();
    let servers = [Server::with_tls("a", &authority)];
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("backends.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let options = format!("{H2}tls = {{ ca = \"{}\", sni = \"a.test\" }}\n", ca.display());
    for site in Site::both(&options, &addresses(&servers)) {
        every_kind(&site.asks("kinds", &[]));
    }
}

#[test]
fn metadata_pass_both_ways_with_all_their_bytes() {
    if !has_grpc("metadata_pass_both_ways_with_all_their_bytes") {
        return;
    }
    let servers = [Server::named("a")];
    for site in Site::both(H2, &addresses(&servers)) {
        let seen = site.asks("metadata", &[]);
        for place in ["seen", "initial", "trailing"] {
            assert_eq!(seen[place], seen["sent"], "{place}: {seen}");
        }
    }
    // What a server has to know of its client beside metadata.
    let fields = &servers[0].begun("Metadata")[0]["metadata"];
    let agent = fields.as_array().unwrap().iter().find(|pair| pair[0] == "user-agent");
    assert!(agent.is_some_and(|pair| pair[1].as_str().unwrap().starts_with("grpc-python/")), "{fields}");
}

#[test]
fn a_call_that_fails_has_its_status_text_and_trailers() {
    if !has_grpc("a_call_that_fails_has_its_status_text_and_trailers") {
        return;
    }
    let servers = [Server::named("a")];
    for site in Site::both(H2, &addresses(&servers)) {
        let seen = site.asks("fails", &[]);
        for code in ["NOT_FOUND", "UNAVAILABLE", "UNAUTHENTICATED", "DATA_LOSS", "ABORTED"] {
            let case = &seen[code];
            // The first with trailers alone, the second behind three messages.
            for (index, messages) in [(0, 0), (1, 3)] {
                let seen = &case["seen"][index];
                let trailers = json!([["x-why", "so"], ["x-why-bin", "00ff"]]);
                assert_eq!((&seen["code"], &seen["text"]), (&json!(code), &case["text"]), "{index}");
                assert_eq!(seen["trailers"], trailers, "{code} {index}");
                assert_eq!(seen["messages"].as_array().map_or(0, Vec::len), messages, "{code} {index}");
            }
        }
        assert_eq!(seen["unknown"]["code"], "UNIMPLEMENTED", "{seen}");
        assert_eq!(seen["after"], "a after");
        // For HTTP such a call is a success.
        for line in site.log("Fail", 5) {
            assert_eq!((&line["status"], &line["ended"]), (&json!(200), &json!("done")));
        }
    }
}

#[test]
fn messages_of_four_mebibytes_pass_both_ways() {
    if !has_grpc("messages_of_four_mebibytes_pass_both_ways") {
        return;
    }
    let servers = [Server::named("a")];
    for site in Site::both(H2, &addresses(&servers)) {
        let seen = site.asks("large", &[]);
        assert_eq!(seen, json!({ "length": 4 << 20, "unary": true, "chatted": [true, true, true] }));
    }
}

#[test]
fn a_deadline_of_the_client_ends_the_call_at_the_backend() {
    if !has_grpc("a_deadline_of_the_client_ends_the_call_at_the_backend") {
        return;
    }
    for site in 0..2 {
        let servers = [Server::named("a")];
        let site = &Site::both(H2, &addresses(&servers))[site];
        let seen = site.asks("deadline", &[]);
        assert_eq!((&seen["code"], &seen["after"]), (&json!("DEADLINE_EXCEEDED"), &json!("a after")), "{seen}");
        assert!(seen["took"].as_f64() < Some(10.0), "{seen}");
        let begun = &servers[0].begun("Wait")[0];
        let remaining = begun["remaining"].as_f64().unwrap();
        assert!(remaining > 0.0 && remaining <= 0.7, "the server knows the deadline: {begun}");
        assert_eq!(servers[0].ended("Wait")["cancelled"], true);
    }
}

#[test]
fn a_client_that_gives_up_ends_the_call_at_the_backend() {
    if !has_grpc("a_client_that_gives_up_ends_the_call_at_the_backend") {
        return;
    }
    for site in 0..2 {
        let servers = [Server::named("a")];
        let site = &Site::both(H2, &addresses(&servers))[site];
        let seen = site.asks("cancel", &[]);
        assert_eq!(seen, json!({ "first": "a 0", "code": "CANCELLED", "after": "a after" }));
        // There is no deadline that would end it at the server.
        assert!(servers[0].begun("Endless")[0]["remaining"].as_f64() > Some(1e9));
        assert_eq!(servers[0].ended("Endless")["cancelled"], true);
        // Only the stream has ended, not the connection: both calls came over one.
        let peers = ["Endless", "Unary"].map(|method| servers[0].begun(method)[0]["peer"].to_string());
        assert_eq!(HashSet::from(peers).len(), 1);
    }
}
