//! Pools in which load places new clients and the stick table remembers where, and the siblings of a location, through
//! the front door.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::backend::{Backend, listener, pool};
use crate::support::http::unix_get;
use crate::support::load_support::Client;
use crate::support::sessile::run;
use crate::support::{Sessile, eventually};

const CLIENTS: u8 = 100;
const BY_LOAD: &str = "balance = \"least_connections\"\nkey = \"source\"\n";
const CHECKS: &str = "kind = \"tcp\"\ninterval = \"50ms\"\ntimeout = \"2s\"\nrise = 1\nfall = 2\n";

/// Backends that are named as in the file: `b0`, `b1` and so on.
fn backends(count: usize) -> Vec<Backend> {
    (0..count).map(|index| Backend::named(&format!("b{index}"))).collect()
}

fn addresses(backends: &[Backend]) -> Vec<SocketAddr> {
    backends.iter().map(|backend| backend.address).collect()
}

fn config(top: &str, options: &str, addresses: &[SocketAddr]) -> String {
    (top.to_owned() + &listener("p", "") + &pool("p", options, addresses)).replace("kind = \"off\"\n", CHECKS)
}

/// Asks as each client of a network; the connections stay open.
fn ask_all(sessile: &Sessile, network: u8) -> Vec<(String, Client)> {
    let front = sessile.address("l");
    let ask = |n| {
        let mut client = Client::connect_from([127, 1, network, n].into(), front);
        (client.ask("x").split(' ').next().unwrap().to_owned(), client)
    };
    (1..=CLIENTS).map(ask).collect()
}

/// Which backend serves each client of a network.
fn homes(sessile: &Sessile, network: u8) -> Vec<String> {
    ask_all(sessile, network).into_iter().map(|(home, _)| home).collect()
}

fn counts(homes: &[String]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    homes.iter().for_each(|home| *counts.entry(home.as_str()).or_default() += 1);
    counts
}

fn breaks(sessile: &Sessile) -> BTreeMap<String, u64> {
    let status = sessile.status();
    let breaks = status["pools"][0]["breaks"].as_object().unwrap();
    let counted = breaks.iter().map(|(cause, count)| (cause.clone(), count.as_u64().unwrap()));
    counted.filter(|(_, count)| *count > 0).collect()
}

fn wait_for(sessile: &Sessile, backend: usize, state: &str) {
    eventually(&format!("b{backend} to be {state}"), || {
        (sessile.status()["pools"][0]["backends"][backend]["state"] == state).then_some(())
    });
}

fn explain(sessile: &Sessile, client: &str) -> Value {
    let (code, body) = unix_get(&sessile.admin(), &format!("/explain?client={client}")).unwrap();
    assert_eq!(code, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

#[test]
fn new_clients_are_even_and_known_ones_stay_through_growth_death_return_and_restart() {
    let dir = tempfile::tempdir().unwrap();
    let top = format!("stick_table_file = \"{}\"\n", dir.path().join("stick-table").display());
    let mut living = backends(5);
    let all = addresses(&living);
    let mut sessile = Sessile::start(&config(&top, BY_LOAD, &all[..4]));
    (0..4).for_each(|index| wait_for(&sessile, index, "up"));
    let held = ask_all(&sessile, 0);
    let before: Vec<_> = held.iter().map(|(home, _)| home.clone()).collect();
    assert_eq!(counts(&before), BTreeMap::from([("b0", 25), ("b1", 25), ("b2", 25), ("b3", 25)]));
    drop(held);

    // A backend more takes new clients and none of the known ones.
    assert_eq!(sessile.reload(&config(&top, BY_LOAD, &all))["accepted"], true);
    wait_for(&sessile, 4, "up");
    assert_eq!(homes(&sessile, 0), before);

    // Clients of a dead one move, and stay where they are then.
    drop(living.remove(1));
    wait_for(&sessile, 1, "down");
    let moved = homes(&sessile, 0);
    for (before, after) in before.iter().zip(&moved) {
        assert_eq!(before == after, before != "b1", "{before} {after}");
    }
    let down = BTreeMap::from([("down".to_owned(), 25)]);
    assert_eq!(breaks(&sessile), down);
    let _back = Backend::on(all[1], |stream| crate::support::backend::echo("b1", &stream));
    wait_for(&sessile, 1, "up");
    assert_eq!(homes(&sessile, 0), moved);
    assert_eq!(breaks(&sessile), down);

    sessile.signal(Signal::TERM);
    assert!(sessile.wait().success());
    sessile.restart();
    assert_eq!(homes(&sessile, 0), moved);
    let pid = sessile.pid();
    let upgraded = sessile.upgrade(None);
    assert_eq!(upgraded["accepted"], true, "{upgraded}");
    sessile.gone(pid);
    assert_eq!(homes(&sessile, 0), moved);
    assert_eq!(breaks(&sessile), BTreeMap::new());
}

#[test]
fn what_is_known_is_explained_and_planned_and_nothing_is_foretold_of_the_rest() {
    let living = backends(4);
    let all = addresses(&living);
    let sessile = Sessile::start(&config("", BY_LOAD, &all[..3]));
    let before = homes(&sessile, 0);
    eventually("no connection to be open", || {
        let backends = sessile.json("/backends");
        backends.as_array()?.iter().all(|backend| backend["leases"] == 0).then_some(())
    });
    let known = explain(&sessile, "127.1.0.1");
    assert_eq!((&known["choice"], &known["reason"]), (&before[0].clone().into(), &"stick_table".into()), "{known}");
    assert_eq!((&known["entry"]["backend"], &known["next_any"]), (&before[0].clone().into(), &true.into()), "{known}");
    let new = explain(&sessile, "127.1.9.1");
    assert_eq!((&new["choice"], &new["any"], &new["by_load"]), (&Value::Null, &true.into(), &true.into()), "{new}");
    assert_eq!(new["key"], "source 127.1.9.1/32");
    let front = sessile.address("l");
    let mut client = Client::connect_from([127, 1, 9, 1].into(), front);
    assert_eq!(new["in_turn"], client.ask("x").split(' ').next().unwrap());

    let (socket, file) = (sessile.admin(), sessile.file());
    let (socket, file) = (socket.to_str().unwrap(), file.to_str().unwrap());
    // In one line: where a sentence is broken does not matter here.
    let text = |arguments: &[&str]| {
        let text = String::from_utf8(run(arguments).stdout).unwrap();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let live = text(&["explain", "--live", "--client", "127.1.9.2", "--socket", socket]);
    assert!(live.contains("not in the stick table") && live.contains("leases 1"), "{live}");
    assert!(live.contains("is next in turn, not fixed, and stays there"), "{live}");
    let offline = text(&["explain", "--client", "127.1.0.1", "--config", file]);
    assert!(offline.contains("goes where the stick table has it; if it is new, to any usable backend"), "{offline}");

    let clients = sessile.dir.path().join("clients");
    std::fs::write(&clients, (1..=4).map(|n| format!("127.1.0.{n}\n127.1.8.{n}\n")).collect::<String>()).unwrap();
    let without = |more: &[&str]| {
        let plan = ["plan", "--live", "--without", "p/b0", "--clients", clients.to_str().unwrap(), "--socket", socket];
        text(&[&plan[..], more].concat())
    };
    let planned = without(&[]);
    let leaving = before.iter().filter(|home| *home == "b0").count();
    assert!(planned.starts_with(&format!("of 101 known clients {leaving} move ")), "{planned}");
    assert!(planned.contains("load places new ones") && planned.contains("(by load)"), "{planned}");
    let json: Value = serde_json::from_str(&without(&["--json"])).unwrap();
    let (pool, listed) = (&json["pools"][0], &json["pools"][0]["listed"]);
    assert_eq!((&pool["by_load"], &pool["new_keys"]), (&true.into(), &0.0.into()), "{pool}");
    let gone = before[..4].iter().filter(|home| *home == "b0").count();
    assert_eq!(
        (&listed["clients"], &listed["known"], &listed["new"]),
        (&8.into(), &gone.into(), &0.into()),
        "{listed}"
    );
    assert_eq!(listed["each"][1]["from"], "(by load)");
    // What was planned happens, and planning has changed nothing.
    let b0 = format!("[[pool.backend]]\nname = \"b0\"\naddress = \"{}\"\n", all[0]);
    assert_eq!(sessile.reload(&config("", BY_LOAD, &all[..3]).replace(&b0, ""))["accepted"], true);
    let after = homes(&sessile, 0);
    assert_eq!(before.iter().zip(&after).filter(|(before, after)| before != after).count(), leaving);
    assert_eq!(breaks(&sessile), BTreeMap::from([("removed".to_owned(), leaving as u64)]));
}

#[test]
fn a_client_whose_backend_dies_goes_to_its_siblings() {
    for options in [BY_LOAD, "key = \"source\"\n", "balance = \"round_robin\"\nkey = \"source\"\n"] {
        let mut living = backends(6);
        let mut text = config("", options, &addresses(&living));
        for (index, place) in ["v/1", "v/1", "v/2", "v/2", "w/1", "w/1"].iter().enumerate() {
            text = text
                .replace(&format!("name = \"b{index}\"\n"), &format!("name = \"b{index}\"\nlocation = \"{place}\"\n"));
        }
        let sessile = Sessile::start(&text);
        (0..6).for_each(|index| wait_for(&sessile, index, "up"));
        let before = homes(&sessile, 0);
        drop(living.remove(0));
        wait_for(&sessile, 0, "down");
        let after = homes(&sessile, 0);
        for (before, after) in before.iter().zip(&after) {
            let wanted = if before == "b0" { "b1" } else { before };
            assert_eq!(after, wanted, "{options}");
        }
        drop(living.remove(0));
        wait_for(&sessile, 1, "down");
        for (before, now) in after.iter().zip(&homes(&sessile, 0)) {
            let wanted: &[&str] = if before == "b1" { &["b2", "b3"] } else { &[before] };
            assert!(wanted.contains(&now.as_str()), "{options}: {before} {now}");
        }
    }
}
