//! Backends that are added, changed and removed while the process runs: which clients move, what stays, what is refused.

mod kept;
mod refused;
mod save;

use std::net::SocketAddr;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use serde_json::Value;

use crate::support::backend::{Backend, listener, pool};
use crate::support::load_support::Client;
use crate::support::sessile::run;
use crate::support::{Sessile, eventually};
use crate::terminate::backend::Recorder;

/// `sessile backend` with these words, for this process.
fn order(sessile: &Sessile, words: &str) -> Output {
    let admin = sessile.admin();
    let words = ["backend"].into_iter().chain(words.split(' ')).chain(["--socket", admin.to_str().unwrap()]);
    run(&words.collect::<Vec<_>>())
}

/// An order that is carried out; what it says.
fn done(sessile: &Sessile, words: &str) -> String {
    let output = order(sessile, words);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{words}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

fn ready(sessile: &Sessile, backend: &str) {
    assert_eq!(run(&["ready", backend, "--socket", sessile.admin().to_str().unwrap()]).status.code(), Some(0));
}

/// Name of the backend of the client with this number.
fn home(sessile: &Sessile, n: u8) -> String {
    name_of(&Client::connect_from([127, 6, 0, n].into(), sessile.address("l")).ask("x"))
}

fn homes(sessile: &Sessile, clients: std::ops::RangeInclusive<u8>) -> Vec<String> {
    clients.map(|n| home(sessile, n)).collect()
}

fn name_of(answer: &str) -> String {
    answer.split(' ').next().unwrap().to_owned()
}

fn digest(sessile: &Sessile) -> String {
    sessile.status()["digest"].as_str().unwrap().to_owned()
}

/// Name, address, weight and orders of each backend of the pool.
fn set(sessile: &Sessile) -> Vec<(String, String, u64, Vec<String>)> {
    let status = sessile.status();
    let backends = status["pools"][0]["backends"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let orders = |backend: &Value| backend["orders"].as_array().into_iter().flatten().map(text).collect();
    let row = |backend: &Value| {
        let weight = backend["weight"].as_u64().unwrap();
        (text(&backend["name"]), text(&backend["address"]), weight, orders(backend))
    };
    backends.map(row).collect()
}

fn names(sessile: &Sessile) -> Vec<String> {
    set(sessile).into_iter().map(|(name, ..)| name).collect()
}

/// Three backends, of which the pool has the first two, and its configuration.
fn three(options: &str) -> ([Backend; 3], String) {
    let backends = ["b0", "b1", "b2"].map(Backend::named);
    let addresses = [backends[0].address, backends[1].address];
    (backends, listener("p", "") + &pool("p", options, &addresses))
}

/// Clients that ask without a pause, until they are told to stop; every question has to be answered.
fn under_load<T>(front: SocketAddr, work: impl FnOnce() -> T) -> T {
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..2)
        .map(|n| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut asked = 0;
                while !stop.load(Relaxed) {
                    Client::connect_from([127, 6, 1 + n, 1 + (asked % 50) as u8].into(), front).ask("x");
                    asked += 1;
                }
                asked
            })
        })
        .collect();
    let result = work();
    stop.store(true, Relaxed);
    assert!(threads.into_iter().map(|thread| thread.join().expect("every client is answered")).sum::<usize>() > 0);
    result
}

#[test]
fn a_backend_that_is_added_under_load_gets_new_clients_and_known_ones_by_on_add() {
    for on_add in ["stay", "move"] {
        let (backends, config) = three(&format!("on_add = \"{on_add}\""));
        let sessile = Sessile::start(&config);
        let before = homes(&sessile, 1..=80);
        let said = under_load(sessile.address("l"), || done(&sessile, &format!("add p/b2 {}", backends[2].address)));
        assert!(said.starts_with(&format!("p/b2: added at {}, weight 1 (runtime), ", backends[2].address)), "{said}");
        let whole = listener("p", "") + &pool("p", "", &backends.each_ref().map(|backend| backend.address));
        assert_eq!(digest(&sessile), digest(&Sessile::start(&whole)), "as a file that has it");
        let after = homes(&sessile, 1..=80);
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
        let goals: Vec<_> = moved.map(|(_, after)| after.as_str()).collect();
        match on_add {
            "stay" => assert!(goals.is_empty(), "{goals:?}"),
            _ => assert!(!goals.is_empty() && goals.iter().all(|goal| *goal == "b2"), "{goals:?}"),
        }
        let new = homes(&sessile, 100..=220);
        assert!((20..70).contains(&new.iter().filter(|home| *home == "b2").count()), "{new:?}");
        let events = sessile.json("/events?kind=ordered");
        let event = &events["events"][0];
        assert_eq!((event["pool"].as_str(), event["backend"].as_str()), (Some("p"), Some("b2")), "{events}");
        assert!(event["text"].as_str().unwrap().ends_with(", by command"), "{event}");
    }
}

#[test]
fn clients_with_a_cookie_stay_when_a_backend_is_added_and_follow_their_drain_when_theirs_is_removed() {
    let backends = ["x", "y", "z"].map(Recorder::named);
    let addresses = [backends[0].address(), backends[1].address()];
    let options =
        "http = true\nbalance = \"round_robin\"\ncookie = \"insert\"\ndrain_deadline = \"1s\"\ndrain_over = \"1s\"";
    let sessile = Sessile::start(&(listener("p", "") + &pool("p", options, &addresses)));
    let front = sessile.address("l");
    let users: Vec<_> = (0..6).map(|_| visit(front, None)).collect();
    done(&sessile, &format!("add p/b2 {}", backends[2].address()));
    let stay = |name: &str, cookie: &Option<String>| assert_eq!(visit(front, cookie.as_deref()).0, name);
    users.iter().for_each(|(name, cookie)| stay(name, cookie));
    let new: Vec<_> = (0..6).map(|_| visit(front, None).0).collect();
    assert_eq!(new.iter().filter(|name| *name == "z").count(), 2, "in turn: {new:?}");
    done(&sessile, "remove p/b0");
    assert!((0..6).all(|_| visit(front, None).0 != "x"), "no new clients");
    users.iter().for_each(|(name, cookie)| stay(name, cookie));
    eventually("the backend to leave", || (names(&sessile) == ["b1", "b2"]).then_some(()));
    assert!(users.iter().all(|(_, cookie)| visit(front, cookie.as_deref()).0 != "x"));
    assert_eq!(sessile.status()["pools"][0]["removed"], serde_json::json!(["b0"]));
    ready(&sessile, "p/b0");
    assert_eq!(names(&sessile), ["b0", "b1", "b2"]);
}

/// Sends one request; the name of the backend that has answered, and the cookie that the client has then.
fn visit(front: SocketAddr, cookie: Option<&str>) -> (String, Option<String>) {
    use std::io::{Read, Write};

    let mut stream = std::net::TcpStream::connect(front).unwrap();
    stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    let field = cookie.map(|cookie| format!("Cookie: {cookie}\r\n")).unwrap_or_default();
    write!(stream, "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{field}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let set = head.lines().find_map(|line| line.strip_prefix("Set-Cookie: ")?.split(';').next().map(str::to_owned));
    let body = body.split("\r\n").find(|line| line.starts_with(['x', 'y', 'z'])).unwrap_or_default();
    (name_of(body), set.or_else(|| cookie.map(str::to_owned)))
}

#[test]
fn a_weight_and_an_address_are_in_force_at_once_and_default_takes_them_back() {
    let (backends, config) = three("stick_table = \"0\"");
    let sessile = Sessile::start(&config);
    let before = digest(&sessile);
    let all = homes(&sessile, 1..=200);
    let count = |homes: &[String], name: &str| homes.iter().filter(|home| *home == name).count();
    assert!(done(&sessile, "weight p/b0 9").starts_with("p/b0: weight 9 in place of 1 (runtime), "));
    let heavy = homes(&sessile, 1..=200);
    assert!(count(&heavy, "b0") > 160 && count(&all, "b0") < 130, "{} {}", count(&heavy, "b0"), count(&all, "b0"));
    let mut held = Client::connect_from([127, 6, 0, 1].into(), sessile.address("l"));
    let at = name_of(&held.ask("x"));
    assert_eq!(at, heavy[0]);
    let index = usize::from(at == "b1");
    let old = backends[index].address;
    let said = done(&sessile, &format!("address p/{at} {}", backends[2].address));
    assert!(said.starts_with(&format!("p/{at}: address {} in place of {old} (runtime), ", backends[2].address)));
    assert_eq!(name_of(&held.ask("y")), at, "open connections stay");
    assert_eq!(home(&sessile, 1), "b2", "new ones go to the new address, by the same name");
    assert!(done(&sessile, &format!("address p/{at} default")).contains(&format!("address {old}, as configured")));
    done(&sessile, "weight p/b0 default");
    assert_eq!((digest(&sessile), homes(&sessile, 1..=200)), (before, all));
    assert!(set(&sessile).iter().all(|(.., orders)| orders.is_empty()));
    assert!(done(&sessile, "weight p/b0 1").ends_with("; nothing has changed\n"));
}

#[test]
fn a_removed_backend_drains_its_known_clients_and_now_moves_them_at_once() {
    let (_backends, config) = three("drain_deadline = \"1s\"\ndrain_over = \"1s\"");
    let sessile = Sessile::start(&config);
    let before = homes(&sessile, 1..=40);
    let mut held = Client::connect_from([127, 6, 0, 250].into(), sessile.address("l"));
    let at = name_of(&held.ask("x"));
    let other = if at == "b0" { "b1" } else { "b0" };
    assert!(done(&sessile, &format!("remove p/{at}")).contains("removed, serves known clients for at most 1 s"));
    assert!(homes(&sessile, 100..=140).iter().all(|home| home == other), "no new clients");
    let left = eventually("the backend to leave", || (names(&sessile) == [other]).then_some(sessile.status()));
    let _ = held.end();
    sessile.ended("l", "drained");
    assert_eq!(left["pools"][0]["removed"], serde_json::json!([at]));
    assert!(homes(&sessile, 1..=40).iter().all(|home| home == other));
    let moved = before.iter().filter(|home| **home == at).count();
    assert!(moved > 0 && moved < 40);
    ready(&sessile, &format!("p/{at}"));
    assert_eq!(names(&sessile), ["b0", "b1"]);
    done(&sessile, &format!("remove p/{at} --now"));
    assert_eq!(names(&sessile), [other], "at once");
}

#[test]
fn an_order_of_json_has_its_words() {
    let (backends, config) = three("");
    let sessile = Sessile::start(&config);
    let said: Value =
        serde_json::from_str(&done(&sessile, &format!("add p/b2 {} --json", backends[2].address))).unwrap();
    assert_eq!((&said["backend"], &said["order"], &said["accepted"]), (&"p/b2".into(), &"add".into(), &true.into()));
    let output = order(&sessile, "remove p/b9 --json");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&said["accepted"], &said["message"]), (&false.into(), &"pool \"p\" has no backend \"b9\"".into()));
    for (wide, words) in [("--wide", "p/b2 (runtime): added"), ("--json", "\"orders\":[\"added\"]")] {
        let text = run(&["status", wide, "--socket", sessile.admin().to_str().unwrap()]).stdout;
        assert!(String::from_utf8(text).unwrap().contains(words), "{wide}");
    }
}
