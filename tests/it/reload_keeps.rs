//! What a reload leaves as it was: backends that stay, their keys, and open connections.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::reload::{OFF, accepted, map, pool};
use crate::support::backend::{Backend, echo, listener};
use crate::support::load_support::{Client, Echo};
use crate::support::{Sessile, eventually};

const FAST: &str = "kind = \"tcp\"\ninterval = \"50ms\"\ntimeout = \"50ms\"\nrise = 1\nfall = 1";

fn backend(sessile: &Sessile, name: &str) -> Value {
    let backends = sessile.json("/backends");
    let found = backends.as_array().unwrap().iter().find(|backend| backend["name"] == name);
    found.unwrap_or_else(|| panic!("no backend {name}: {backends}")).clone()
}

/// A bound socket that does not listen yet, and its address.
fn reserved() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// Answers with its name wherever it is told to listen.
fn serve(socket: Socket, name: &'static str) {
    socket.listen(64).unwrap();
    std::thread::spawn(move || {
        for stream in TcpListener::from(socket).incoming().flatten() {
            std::thread::spawn(move || echo(name, &stream));
        }
    });
}

#[test]
fn living_backends_keep_leases_counters_and_health() {
    let backends = ["a", "b"].map(Backend::named);
    let (_dead, nowhere) = reserved();
    let members = [("a", backends[0].address), ("b", backends[1].address), ("dead", nowhere)];
    let config = |options: &str, members: &[(&str, SocketAddr)]| listener("p", "") + &pool("p", options, members, FAST);
    let sessile = Sessile::start(&config("", &members));
    eventually("checks", || {
        let state = |name: &str| backend(&sessile, name)["state"].clone();
        (state("a") == "up" && state("b") == "up" && state("dead") == "down").then_some(())
    });
    let front = sessile.address("l");
    let mut held: Vec<_> = (1..=20).map(|n| Client::connect_from([127, 0, 2, n].into(), front)).collect();
    let homes: Vec<_> = held.iter_mut().map(|client| client.ask("x")).collect();
    let before = ["a", "b", "dead"].map(|name| backend(&sessile, name));
    let leases = |name: &str| backend(&sessile, name)["leases"].as_u64().unwrap();
    assert_eq!(leases("a") + leases("b"), 20);

    // Another order, another method, another weight, one more backend.
    let extra = Backend::named("c");
    let mut more = vec![("c", extra.address)];
    more.extend(members.iter().rev());
    accepted(&sessile.reload(&config("balance = \"ring\"\nhash_seed = 7", &more).replacen(
        "name = \"b\"",
        "name = \"b\"\nweight = 3",
        1,
    )));
    for was in &before {
        let name = was["name"].as_str().unwrap();
        let is = backend(&sessile, name);
        for key in ["address", "state", "complaint", "leases", "connections", "connect_failures"] {
            assert_eq!(is[key], was[key], "{name} {key}");
        }
    }
    assert_eq!(backend(&sessile, "b")["weight"], 3);
    let after: Vec<_> = held.iter_mut().map(|client| client.ask("x")).collect();
    assert_eq!(after, homes, "open connections stay where they are");

    // A backend that is removed keeps what it has, and gives back what it held.
    accepted(&sessile.reload(&config("", &members[1..])));
    let after: Vec<_> = held.iter_mut().map(|client| client.ask("x")).collect();
    assert_eq!(after, homes);
    drop(held);
    eventually("every lease to be given back", || {
        (leases("b") == 0 && sessile.status()["admission"]["open"] == 0).then_some(())
    });
}

#[test]
fn a_new_address_under_an_old_name_keeps_keys_and_open_connections_stay_on_the_old_one() {
    let old = ["a", "b", "c"].map(Backend::named);
    let moved = Backend::named("b-moved");
    let members = [("a", old[0].address), ("b", old[1].address), ("c", old[2].address)];
    let config = |members: &[(&str, SocketAddr)]| listener("p", "") + &pool("p", "", members, OFF);
    let sessile = Sessile::start(&config(&members));
    let front = sessile.address("l");
    let before = map(front);
    let of_b = *before.iter().find(|(_, name)| *name == "b").expect("b has clients").0;
    let mut held = Client::connect_from([127, 0, 2, of_b].into(), front);
    assert_eq!(held.ask("x"), "b x");
    let digest = sessile.status()["digest"].clone();
    let connections = backend(&sessile, "b")["connections"].as_u64().unwrap();

    let verdict = sessile.reload(&config(&[members[0], ("b", moved.address), members[2]]));
    let changed = serde_json::json!(["backend \"p/b\": address changed, takes effect at once"]);
    assert_eq!(accepted(&verdict)["changes"], changed);
    assert_eq!(verdict["warnings"], serde_json::json!([]));
    assert_eq!(verdict["digest"], digest, "addresses do not place");
    assert_eq!(held.ask("still"), "b still");
    let after = map(front);
    let expected: BTreeMap<_, _> = before.iter().map(|(n, name)| (*n, name.replace("b", "b-moved"))).collect();
    assert_eq!(after, expected, "keys follow names");
    let now = backend(&sessile, "b");
    assert_eq!(now["address"], moved.address.to_string());
    assert!(now["connections"].as_u64().unwrap() > connections, "the name goes on counting: {now}");
}

#[test]
fn a_backend_added_by_a_reload_takes_keys_after_its_first_good_check() {
    let old = ["a", "b"].map(Backend::named);
    let (socket, address) = reserved();
    let members = [("a", old[0].address), ("b", old[1].address), ("new", address)];
    // A stick table would keep clients where they are.
    let config = |members: &[(&str, SocketAddr)]| listener("p", "") + &pool("p", "stick_table = \"0\"", members, FAST);
    let sessile = Sessile::start(&config(&members[..2]));
    let front = sessile.address("l");
    let before = map(front);
    accepted(&sessile.reload(&config(&members)));
    assert_eq!(map(front), before);
    eventually("a bad check", || {
        let new = backend(&sessile, "new");
        (new["complaint"].as_str().is_some_and(|complaint| !complaint.is_empty())).then_some(())
    });
    assert_eq!(backend(&sessile, "new")["up"], false);
    assert_eq!(map(front), before, "not one key before the first good check");
    assert_eq!(backend(&sessile, "new")["connections"], 0);
    assert_eq!(sessile.status()["pools"][0]["breaks"]["down"], 0, "nobody was moved by its absence");

    serve(socket, "new");
    eventually("the first good check", || (backend(&sessile, "new")["state"] == "up").then_some(()));
    let after = map(front);
    let moved: Vec<_> = after.iter().filter(|(n, name)| before[n] != **name).collect();
    assert!(!moved.is_empty(), "it takes its share");
    assert!(moved.iter().all(|(_, name)| *name == "new"), "and nobody else moves: {moved:?}");
}

#[test]
fn a_new_name_at_an_old_address_is_a_new_backend_and_that_is_said() {
    let echo = Echo::start();
    let config = |name| listener("p", "") + &pool("p", "", &[(name, echo.address)], OFF);
    let sessile = Sessile::start(&config("old"));
    let verdict = sessile.reload(&config("new"));
    let warning = accepted(&verdict)["warnings"][0].as_str().unwrap().to_owned();
    assert!(warning.contains("\"new\" has the address of the removed \"old\""), "{warning}");
    eventually("the warning in the log", || sessile.said().contains("has the address of").then_some(()));
    assert_eq!(verdict["changes"], serde_json::json!(["backend \"p/new\" added", "backend \"p/old\" removed"]));
}
