//! Situations in which other balancers lost sessions, after public reports on them: placement, reload, health.
//!
//! Each test names the report. What the other balancer did is not imitated; only the situation is. Invariant: each
//! backend answers with its name, so that a client that moved is seen.

use std::net::{SocketAddr, TcpStream};

use crate::reload::{OFF, accepted, map, pool};
use crate::support::backend::{Backend, echo, listener};
use crate::support::load_support::Client;
use crate::support::program::free_local_address;
use crate::support::{Sessile, eventually};

const FAST: &str = "kind = \"tcp\"\ninterval = \"50ms\"\ntimeout = \"50ms\"\nrise = 1\nfall = 1";

/// Names and addresses of backends, each with a name of its own.
fn members<'a>(names: &'a [String], backends: &[Backend]) -> Vec<(&'a str, SocketAddr)> {
    names.iter().map(String::as_str).zip(backends.iter().map(|backend| backend.address)).collect()
}

/// haproxy/haproxy#842: a reload from 400 servers to 5 emptied the stick table.
#[test]
fn a_pool_that_shrinks_from_four_hundred_backends_to_five_keeps_the_clients_of_the_five() {
    let names: Vec<_> = (0..400).map(|n| format!("s{n}")).collect();
    let backends: Vec<_> = names.iter().map(|name| Backend::named(name)).collect();
    let all = members(&names, &backends);
    let config = |members: &[(&str, SocketAddr)]| listener("p", "") + &pool("p", "", members, OFF);
    // First only five, so that their clients are known; then 395 more, away from which placement would lead.
    let sessile = Sessile::start(&config(&all[..5]));
    let front = sessile.address("l");
    let homes = map(front);
    for size in [400, 5, 400, 6, 5] {
        accepted(&sessile.reload(&config(&all[..size])));
        assert_eq!(map(front), homes, "with {size} backends");
    }
}

/// nginx/nginx-gateway-fabric#5524, haproxy/haproxy#93, caddyserver/caddy#6420: each change elsewhere ended streams.
#[test]
fn streams_outlive_a_hundred_and_thirty_six_reloads_of_another_pool() {
    let names = ["a", "b", "c"].map(str::to_owned);
    let backends = names.each_ref().map(|name| Backend::named(name));
    let all = members(&names, &backends);
    let config = |others: usize| {
        let other = "[[listener]]\nname = \"other\"\nbind = \"127.0.0.1:0\"\npool = \"q\"\n";
        listener("p", "") + other + &pool("p", "", &all, OFF) + &pool("q", "", &all[..others], OFF)
    };
    let sessile = Sessile::start(&config(1));
    let front = sessile.address("l");
    let mut streams: Vec<_> = (1..=20).map(|n| Client::connect_from([127, 0, 2, n].into(), front)).collect();
    let homes: Vec<_> = streams.iter_mut().map(|stream| stream.ask("x")).collect();
    for round in 0..136 {
        accepted(&sessile.reload(&config(1 + (round + 1) % 3)));
        let stream = round % streams.len();
        assert_eq!(streams[stream].ask("x"), homes[stream], "round {round}");
    }
    let after: Vec<_> = streams.iter_mut().map(|stream| stream.ask("x")).collect();
    assert_eq!(after, homes);
    assert!(sessile.metric("sessile_generations_alive") <= 2.0, "what is replaced goes");
}

/// envoyproxy/envoy#38815 and #45212: a ring kept leading to a member that was down, and never to one that joined.
#[test]
fn each_method_leaves_a_backend_that_is_down_and_finds_one_that_joined() {
    for balance in ["hash", "ring", "maglev"] {
        let names = ["a", "b", "c"].map(str::to_owned);
        let mut backends: Vec<_> = names.iter().map(|name| Backend::named(name)).collect();
        let all: Vec<(&str, SocketAddr)> = members(&names, &backends);
        // Without a stick table, so that placement alone is seen.
        let options = format!("balance = \"{balance}\"\nstick_table = \"0\"\n");
        let config = |members: &[(&str, SocketAddr)]| listener("p", "") + &pool("p", &options, members, FAST);
        let sessile = Sessile::start(&config(&all[..2]));
        let front = sessile.address("l");
        let state = |name: &str| {
            let backends = sessile.json("/backends");
            let found = backends.as_array().unwrap().iter().find(|backend| backend["name"] == name).cloned();
            found.map_or_else(String::new, |backend| backend["state"].as_str().unwrap().to_owned())
        };
        eventually("checks", || (state("a") == "up" && state("b") == "up").then_some(()));
        let two = map(front);
        accepted(&sessile.reload(&config(&all)));
        eventually("the new backend", || (state("c") == "up").then_some(()));
        let three = map(front);
        let joined = three.values().filter(|name| *name == "c").count();
        assert!((4..=28).contains(&joined), "{balance}: {joined} of 40 clients");
        // Maglev moves a few more keys than those that the new backend takes.
        let elsewhere = three.iter().filter(|(n, name)| *name != "c" && two[n] != **name).count();
        assert!(elsewhere == 0 || balance == "maglev" && elsewhere <= 6, "{balance}: {elsewhere} moved beside");

        let c = backends.remove(2).address;
        eventually("the backend to be down", || (state("c") == "down").then_some(()));
        let without = map(front);
        assert!(without.values().all(|name| name != "c"), "{balance}: {without:?}");
        let stay = three.iter().filter(|(n, name)| *name != "c" && without[n] != **name).count();
        assert_eq!(stay, 0, "{balance}: clients of the others stay");

        let _back = Backend::on(c, |stream| echo("c", &stream));
        eventually("the backend to be back", || (state("c") == "up").then_some(()));
        assert_eq!(map(front), three, "{balance}: placement is what it was");
    }
}

/// nginx ("bind() to 0.0.0.0:80 failed" at a reload): an address could not be widened while it was in use.
#[test]
fn an_address_is_widened_narrowed_and_given_to_another_listener_by_reloads() {
    let backend = Backend::named("a");
    let front = free_local_address();
    let port = front.port();
    let config = |name: &str, bind: &str| {
        let listener = format!("[[listener]]\nname = \"{name}\"\nbind = [\"{bind}\"]\npool = \"p\"\n");
        listener + &pool("p", "", &[("a", backend.address)], OFF)
    };
    let sessile = Sessile::start(&config("l", &front.to_string()));
    let mut held = Client::connect(front);
    assert_eq!(held.ask("first"), "a first");
    let [narrow, wide, six] = [front.to_string(), format!("0.0.0.0:{port}"), format!("[::]:{port}")];
    let both = format!("{wide}\", \"{six}");
    let turns =
        [("l", &wide), ("l", &narrow), ("m", &narrow), ("m", &both), ("l", &wide), ("m", &narrow), ("l", &both)];
    for (name, bind) in turns {
        let verdict = sessile.reload(&config(name, bind));
        assert_eq!(verdict["accepted"], true, "{name} {bind}: {verdict}");
        for _ in 0..20 {
            assert_eq!(Client::connect(front).ask("x"), "a x", "{name} {bind}");
        }
        assert_eq!(held.ask("still"), "a still", "{name} {bind}");
        let listening = sessile.status()["listeners"][0]["bind"].as_array().unwrap().len();
        assert_eq!(listening, bind.split(',').count(), "{name} {bind}");
    }
    drop(sessile);
    assert!(TcpStream::connect(front).is_err(), "all sockets are closed");
}

/// haproxy/haproxy#1078 (comments), ingress controllers: two servers that swapped addresses swapped their clients.
#[test]
fn backends_that_swap_their_addresses_keep_their_names_clients() {
    let names = ["a", "b"].map(str::to_owned);
    let backends = names.each_ref().map(|name| Backend::named(name));
    let [a, b] = backends.each_ref().map(|backend| backend.address);
    let config = |a: SocketAddr, b: SocketAddr| listener("p", "") + &pool("p", "", &[("a", a), ("b", b)], OFF);
    let sessile = Sessile::start(&config(a, b));
    let front = sessile.address("l");
    let before = map(front);
    let mut held = Client::connect_from([127, 0, 2, 1].into(), front);
    assert_eq!(held.ask("x"), format!("{} x", before[&1]));
    accepted(&sessile.reload(&config(b, a)));
    assert_eq!(held.ask("x"), format!("{} x", before[&1]), "an open connection stays where it is");
    let swapped = |name: &String| if name == "a" { "b".to_owned() } else { "a".to_owned() };
    let expected: std::collections::BTreeMap<_, _> = before.iter().map(|(n, name)| (*n, swapped(name))).collect();
    assert_eq!(map(front), expected, "keys follow names, wherever these are");
    accepted(&sessile.reload(&config(a, b)));
    assert_eq!(map(front), before);
}
