//! A change of routes alone: which clients a plan says that it moves, against where they then go.

use std::net::IpAddr;

use serde_json::Value;

use crate::support::Sessile;
use crate::support::backend::{Backend, pool};
use crate::support::load_support::Client;
use crate::support::sessile::run;

const CLIENTS: u8 = 20;

/// A listener with a default pool, and another pool for clients from 127.5.1.0/24 or from all networks.
fn config(backends: &[Backend; 2], default: &str, route: &str) -> String {
    let listener = format!("[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\npool = \"{default}\"\n{route}");
    listener + &pool("p", "", &[backends[0].address]) + &pool("q", "", &[backends[1].address])
}

fn client(network: u8, number: u8) -> IpAddr {
    IpAddr::from([127, 5, network, number])
}

fn plan(sessile: &Sessile, text: &str, more: &[&str]) -> (Option<i32>, String) {
    let file = sessile.dir.path().join("new.toml");
    std::fs::write(&file, text).unwrap();
    let socket = sessile.admin();
    let words = ["plan", "--live", "--socket", socket.to_str().unwrap(), file.to_str().unwrap()];
    let output = run(&[&words[..], more].concat());
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

/// The JSON of a plan.
fn json(sessile: &Sessile, text: &str) -> Value {
    serde_json::from_str(&plan(sessile, text, &["--json"]).1).unwrap()
}

/// The text of a plan as one line.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn clients_that_only_a_route_moves_are_in_the_headline_and_the_route_is_named() {
    let backends = ["b-of-p", "b-of-q"].map(Backend::named);
    let sessile = Sessile::start(&config(&backends, "p", ""));
    let front = sessile.address("l");
    let mut open = Vec::new();
    for number in 1..=CLIENTS {
        for network in [1, 2] {
            let mut connection = Client::connect_from(client(network, number), front);
            assert_eq!(connection.ask("x"), "b-of-p x");
            // Every client of the one network keeps its connection, and a part of the other does.
            if network == 1 || number <= CLIENTS / 2 {
                open.push(connection);
            }
        }
    }
    let known = u64::from(CLIENTS) * 2;
    // All of them: that is exact.
    let all = config(&backends, "q", "");
    let told = json(&sessile, &all);
    assert_eq!((&told["headline"]["known"], &told["headline"]["known_move"]), (&known.into(), &known.into()), "{told}");
    assert_eq!(told["headline"]["about"], false, "{told}");
    let (code, text) = plan(&sessile, &all, &["--max-move", "50%"]);
    let route = format!(
        "clients of route \"default\" of listener \"l\" ({known} known, {} open connections) go to pool \"q\" instead of \"p\"",
        open.len()
    );
    assert!(
        code == Some(1) && flat(&text).starts_with(&format!("of {known} known clients {known} move {route}")),
        "{text}"
    );
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");

    // Some of them: open connections show how many.
    let some = config(&backends, "p", "[[listener.route]]\nsource = \"127.5.1.0/24\"\npool = \"q\"\n");
    let told = json(&sessile, &some);
    assert_eq!(
        (&told["routes"][0]["open"], &told["routes"][0]["route"]),
        (&CLIENTS.into(), &"source 127.5.1.0/24".into())
    );
    assert_eq!((&told["headline"]["known"], &told["headline"]["about"]), (&known.into(), &true.into()), "{told}");
    // Two of three open connections move, so about as many of the known clients.
    let about = told["headline"]["known_move"].as_u64().unwrap();
    assert!((known * 2 / 3).abs_diff(about) <= 1, "{told}");
    let (code, text) = plan(&sessile, &some, &["--max-move", "5%"]);
    assert!(
        code == Some(1) && flat(&text).starts_with(&format!("of {known} known clients about {about} move")),
        "{text}"
    );

    // Without an open connection it is said that the number is not known.
    open.clear();
    crate::support::eventually("connections to end", || (json(&sessile, &some)["headline"]["open"] == 0).then_some(()));
    let (_, text) = plan(&sessile, &some, &[]);
    let headline = format!("of {known} known clients 0 move; {known} more may move, as their routes decide");
    assert!(flat(&text).starts_with(&headline), "{text}");

    assert_eq!(sessile.reload(&some)["accepted"], true);
    for (network, home) in [(1, "b-of-q x"), (2, "b-of-p x")] {
        assert_eq!(Client::connect_from(client(network, 1), front).ask("x"), home);
    }
}
