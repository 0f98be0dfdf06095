//! What is over is not said to go on, what explains a move is what was in force then, and a follower is told when numbers
//! begin again.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::Stdio;
use std::sync::mpsc::channel;
use std::thread;

use socket2::{Domain, Socket, Type};

use super::limits::is_refused;
use super::{ask, client, client_at, event, home, kinds, was_moved, why};
use crate::support::backend::{Backend, listener, pool};
use crate::support::load_support::Client;
use crate::support::program::free_local_address;
use crate::support::sessile::command;
use crate::support::{PATIENCE, Sessile, eventually};

const CHECKED: &str = "[pool.check]\nkind = \"tcp\"\ninterval = \"50ms\"\nrise = 1\nfall = 1\n";
const UNCHECKED: &str = "[pool.check]\nkind = \"off\"\n";

/// What goes on now, by the answer about a client that nothing is known of.
fn goes_on(sessile: &Sessile) -> Option<String> {
    let report = why(sessile, "192.0.2.99");
    let (_, conditions) = report["answer"].as_str().unwrap().split_once("What goes on now: ")?;
    Some(conditions.to_owned())
}

#[test]
fn a_backend_that_is_not_checked_any_more_or_has_left_is_not_said_to_be_down() {
    let living = Backend::named("b0");
    // A port that is taken, and at which nothing listens.
    let dead = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    dead.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let config = |backends: &[_], check| listener("p", "") + &pool("p", "", backends).replace(UNCHECKED, check);
    let both = [living.address, dead.local_addr().unwrap().as_socket().unwrap()];
    for (backends, check) in [(&both[..], UNCHECKED), (&both[..1], CHECKED)] {
        let sessile = Sessile::start(&config(&both, CHECKED));
        let down = event(&sessile, "down");
        assert!(goes_on(&sessile).is_some_and(|conditions| conditions.contains(&down)));
        assert_eq!(sessile.reload(&config(backends, check))["accepted"], true);
        assert_eq!(goes_on(&sessile), None);
        let shown = why(&sessile, "192.0.2.99")["events"].clone();
        assert!(shown.as_array().unwrap().iter().any(|event| event["kind"] == "down"), "it has happened: {shown}");
    }
}

#[test]
fn a_limit_that_only_the_process_before_has_seen_does_not_go_on_after_an_upgrade() {
    let backend = Backend::named("b0");
    let limits = "[limits]\nmax_connections_per_source = 1\n".to_owned();
    let mut sessile = Sessile::start(&(limits + &listener("p", "") + &pool("p", "", &[backend.address])));
    let mut held = Client::connect_from(client(1), sessile.address("l"));
    assert_eq!(held.ask("x"), "b0 x");
    assert!(is_refused(client(1), sessile.address("l")));
    let reached = event(&sessile, "limit");
    assert!(goes_on(&sessile).is_some_and(|conditions| conditions.starts_with(&reached)));
    assert_eq!(sessile.upgrade(None)["accepted"], true);
    assert!(kinds(&sessile).contains(&"limit".to_owned()));
    assert_eq!(goes_on(&sessile), None);
    assert_eq!(held.ask("y"), "b0 y");
}

#[test]
fn a_move_is_explained_by_the_reload_of_its_pool_or_by_a_weight_and_by_no_other_reload() {
    let backends = [Backend::named("b0"), Backend::named("b1")];
    let addresses = backends.each_ref().map(|backend| backend.address);
    let config = |weight: u16, other: &str| {
        let second = format!("name = \"b1\"\naddress = \"{}\"\n", addresses[1]);
        let weighted =
            pool("p", "on_add = \"move\"", &addresses).replace(&second, &format!("{second}weight = {weight}\n"));
        let rest = "[[listener]]\nname = \"m\"\nbind = \"127.0.0.1:0\"\npool = \"q\"\n";
        listener("p", "") + rest + &weighted + &pool("q", other, &addresses[..1])
    };
    let sessile = Sessile::start(&config(1, ""));
    let at_b0: Vec<u8> = (1..=250).filter(|number| home(&sessile, *number) == "b0").take(20).collect();
    assert_eq!(sessile.reload(&config(200, ""))["accepted"], true);
    assert_eq!(event(&sessile, "weight"), "backend p/b1: weight 1 -> 200, by a reload");
    // Another pool changes before the clients come again.
    assert_eq!(sessile.reload(&config(200, "connect_timeout = \"7s\"\nconnect_budget = \"7s\""))["accepted"], true);
    let moved = at_b0.into_iter().find(|number| home(&sessile, *number) == "b1").expect("a key that moves");
    let answer = was_moved(&why(&sessile, &client(moved).to_string()), "b0", "b1", "moved");
    assert!(answer.contains(": backend p/b1: weight 1 -> 200, by a reload)"), "{answer}");
    let all = kinds(&sessile);
    let of_reloads: Vec<_> = all.iter().filter(|kind| ["weight", "reload"].contains(&kind.as_str())).collect();
    assert_eq!(of_reloads, ["weight", "reload", "reload"]);
}

#[test]
fn a_client_that_found_its_backend_dead_before_any_check_is_told_that_a_connection_failed() {
    let backends = [Backend::named("b0"), Backend::named("b1")];
    let addresses = backends.each_ref().map(|backend| backend.address);
    let options = "sticky_retries = 0\neject = \"off\"";
    let sessile = Sessile::start(&(listener("p", "") + &pool("p", options, &addresses)));
    let number = client_at(&sessile, "b0");
    let [b0, _b1] = backends;
    drop(b0);
    // Its thread may still have the socket. Its port is given to no other one.
    eventually("b0 to be gone", || TcpStream::connect(addresses[0]).is_err().then_some(()));
    assert_eq!(home(&sessile, number), "b1");
    let answer = was_moved(&why(&sessile, &client(number).to_string()), "b0", "b1", "down");
    assert!(
        answer.contains("because b0 could not serve (no event had it down then: a connection to it failed)"),
        "{answer}"
    );
}

#[test]
fn what_was_down_at_another_address_before_an_upgrade_explains_no_move_after_it() {
    let backends = [Backend::named("b0"), Backend::named("b1")];
    let addresses = backends.each_ref().map(|backend| backend.address);
    let options = "sticky_retries = 0\neject = \"off\"";
    let config = |addresses: &[_], check| listener("p", "") + &pool("p", options, addresses).replace(UNCHECKED, check);
    let mut sessile = Sessile::start(&config(&[free_local_address(), addresses[1]], CHECKED));
    event(&sessile, "down");
    sessile.rewrite(&config(&addresses, UNCHECKED));
    assert_eq!(sessile.upgrade(None)["accepted"], true);
    let number = client_at(&sessile, "b0");
    let [b0, _b1] = backends;
    drop(b0);
    eventually("b0 to be gone", || TcpStream::connect(addresses[0]).is_err().then_some(()));
    assert_eq!(home(&sessile, number), "b1");
    let answer = was_moved(&why(&sessile, &client(number).to_string()), "b0", "b1", "down");
    assert!(answer.contains("no event had it down then"), "{answer}");
    assert!(kinds(&sessile).contains(&"down".to_owned()), "it has happened");
}

#[test]
fn a_follower_is_told_that_another_process_has_begun_to_count_anew() {
    let backend = Backend::named("b0");
    let mut sessile = Sessile::start(&(listener("p", "") + &pool("p", "", &[backend.address])));
    let mut follow = command(&["events", "--follow", "--socket"]);
    let mut follower = follow.arg(sessile.admin()).stdout(Stdio::piped()).spawn().unwrap();
    let (line, lines) = channel();
    let out = BufReader::new(follower.stdout.take().unwrap()).lines().map_while(Result::ok);
    let reader = thread::spawn(move || out.for_each(|read| drop(line.send(read))));
    let until = |part: &str| {
        let mut seen = Vec::new();
        while !seen.last().is_some_and(|line: &String| line.contains(part)) {
            seen.push(lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{part} is not said: {seen:?}")));
        }
        seen
    };
    until("start ");
    for order in ["drain", "ready"] {
        assert!(ask(&sessile, &[order, "p/b0"]).status.success());
    }
    until("ready ");
    sessile.signal(rustix::process::Signal::KILL);
    sessile.wait();
    sessile.restart();
    let seen = until("start ").join(" ");
    assert!(seen.contains("(another process has begun at ") && seen.contains("numbers begin again)"), "{seen}");
    assert!(!seen.contains("not kept any more"), "{seen}");
    let output = ask(&sessile, &["events", "--after", "3"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("(number 3 is of an earlier process:") && text.contains("start "), "{text}");
    follower.kill().unwrap();
    follower.wait().unwrap();
    reader.join().unwrap();
    eventually("the process to answer", || (sessile.json("/events")["next"] == 1).then_some(()));
}
