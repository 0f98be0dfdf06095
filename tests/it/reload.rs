//! A reload is accepted as a whole or not at all, and open connections do not notice it.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::backend::{Backend, listener};
use crate::support::load_support::{Client, Echo};
use crate::support::program::free_local_address;
use crate::support::sessile::run;
use crate::support::{Sessile, eventually};

pub const OFF: &str = "kind = \"off\"";

/// The tables of a pool with named backends.
pub fn pool(name: &str, options: &str, backends: &[(&str, SocketAddr)], check: &str) -> String {
    let one = |(name, address): &(&str, SocketAddr)| {
        format!("[[pool.backend]]\nname = \"{name}\"\naddress = \"{address}\"\n")
    };
    let backends: String = backends.iter().map(one).collect();
    format!("[[pool]]\nname = \"{name}\"\n{options}\n{backends}[pool.check]\n{check}\n")
}

fn named(name: &str, bind: &str) -> String {
    format!("[[listener]]\nname = \"{name}\"\nbind = \"{bind}\"\npool = \"p\"\n")
}

/// Which backend each of many clients is served by.
pub fn map(front: SocketAddr) -> BTreeMap<u8, String> {
    let ask = |n: u8| {
        let answer = Client::connect_from([127, 0, 2, n].into(), front).ask("who");
        (n, answer.split(' ').next().unwrap().to_owned())
    };
    (1..=40).map(ask).collect()
}

pub fn accepted(verdict: &Value) -> &Value {
    assert_eq!(verdict["accepted"], true, "{verdict}");
    verdict
}

#[test]
fn a_hangup_signal_reloads() {
    let backends = ["a", "b"].map(Backend::named);
    let first = listener("p", "") + &pool("p", "", &[("a", backends[0].address)], OFF);
    let sessile = Sessile::start(&first);
    let front = sessile.address("l");
    assert!(map(front).values().all(|name| name == "a"));
    sessile.rewrite(&(listener("p", "") + &pool("p", "", &[("b", backends[1].address)], OFF)));
    assert_eq!(sessile.status()["generation"], 1, "writing alone does nothing");
    sessile.signal(Signal::HUP);
    eventually("the reload", || (sessile.status()["generation"] == 2).then_some(()));
    assert!(map(front).values().all(|name| name == "b"));
}

#[test]
fn the_command_says_what_changed_and_its_exit_code_tells_the_verdict() {
    let backends = ["a", "b"].map(Backend::named);
    let [a, b] = [("a", backends[0].address), ("b", backends[1].address)];
    let sessile = Sessile::start(&(listener("p", "") + &pool("p", "", &[a], OFF)));
    let file = sessile.file();
    let reload = |more: &[&str]| {
        let mut arguments = vec!["reload", "--config", file.to_str().unwrap()];
        arguments.extend(more);
        let output = run(&arguments);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = reload(&[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("accepted: generation 2, digest "), "{said}");

    sessile.rewrite(&(listener("p", "") + &pool("p", "", &[a, b], OFF)));
    let (code, said) = reload(&["--json"]);
    let verdict: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &verdict["accepted"], &verdict["generation"]), (Some(0), &true.into(), &3.into()), "{said}");
    assert_eq!(verdict["changes"], serde_json::json!(["backend \"p/b\" added"]), "{said}");
    assert_eq!(verdict["digest"], sessile.status()["digest"]);

    sessile.rewrite(&(listener("nobody", "bogus = 1") + &pool("p", "", &[a, b], OFF)));
    let (code, said) = reload(&[]);
    assert_eq!(code, Some(64), "{said}");
    assert!(said.starts_with("refused: generation 3, digest "), "{said}");
    assert!(said.contains("bogus") && said.contains("nobody"), "all problems at once: {said}");
    let (code, said) = reload(&["--json"]);
    let verdict: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &verdict["accepted"], &verdict["generation"]), (Some(64), &false.into(), &3.into()), "{said}");
    assert_eq!(verdict["problems"].as_array().unwrap().len(), 2, "{said}");
    assert!(verdict["problems"][0].as_str().unwrap().starts_with(file.to_str().unwrap()), "{said}");

    // No process listens on this socket.
    let output = run(&["reload", "--socket", "/nonexistent/admin.sock"]);
    assert_eq!(output.status.code(), Some(69));
}

#[test]
fn listeners_come_and_go_and_the_others_keep_their_sockets() {
    let backend = Backend::named("a");
    let pool = pool("p", "", &[("a", backend.address)], OFF);
    let dir = tempfile::tempdir().unwrap();
    let unix = dir.path().join("front.sock");
    let sessile = Sessile::start(&(listener("p", "") + &pool));
    let front = sessile.address("l");
    let mut old = Client::connect(front);
    assert_eq!(old.ask("x"), "a x");

    let more = listener("p", "") + &named("second", "127.0.0.1:0") + &named("sixth", "[::1]:0") + &pool;
    let verdict = sessile.reload(&more);
    assert_eq!(
        accepted(&verdict)["changes"],
        serde_json::json!(["listener \"second\" added", "listener \"sixth\" added"])
    );
    let (second, sixth) = (sessile.address("second"), sessile.address("sixth"));
    assert_eq!(Client::connect(second).ask("x"), "a x");
    assert_eq!(Client::connect(sixth).ask("x"), "a x");
    assert_eq!(sessile.address("l"), front);
    let mut inside = Client::connect(second);
    assert_eq!(inside.ask("x"), "a x");

    let keyless =
        format!("{pool}{}", pool.replace("\"p\"", "\"q\"").replace("[[pool]]", "[[pool]]\nbalance = \"random\""));
    let with_unix =
        listener("p", "") + &named("u", &format!("unix:{}", unix.display())).replace("\"p\"", "\"q\"") + &keyless;
    let verdict = sessile.reload(&with_unix);
    accepted(&verdict);
    assert!(unix.exists());
    eventually("the removed door to be shut", || TcpStream::connect_timeout(&second, Duration::from_millis(100)).err());
    assert_eq!(inside.ask("still"), "a still", "who was in stays in");
    assert_eq!(old.ask("still"), "a still");
    drop(inside);
    // What it counted stays in the log; the listener itself is gone from every view.
    sessile.line("second done", |line| line["listener"] == "second" && line["ended"] == "done");
    assert!(!sessile.metrics().contains("listener=\"second\""));

    let verdict = sessile.reload(&(listener("p", "") + &pool));
    accepted(&verdict);
    assert!(!unix.exists());
    assert_eq!((sessile.address("l"), old.ask("still")), (front, "a still".to_owned()));
}

/// A listener that was removed is bound for a moment longer; adding its address again works at once.
#[test]
fn a_listener_that_is_removed_may_come_back_at_once() {
    let backend = Backend::named("a");
    let stays = listener("p", "") + &pool("p", "", &[("a", backend.address)], OFF);
    let address = free_local_address();
    let both = named("again", &address.to_string()) + &stays;
    let sessile = Sessile::start(&both);
    for _ in 0..3 {
        accepted(&sessile.reload(&stays));
        accepted(&sessile.reload(&both));
        assert_eq!(Client::connect(address).ask("x"), "a x");
    }
}

/// From one address to all, and back: the same port, but not the same socket.
#[test]
fn a_listener_may_widen_and_narrow_its_address() {
    let backend = Backend::named("a");
    let rest = pool("p", "", &[("a", backend.address)], OFF);
    let address = free_local_address();
    let narrow = named("l", &address.to_string()) + &rest;
    let wide = named("l", &format!("0.0.0.0:{}", address.port())) + &rest;
    let sessile = Sessile::start(&narrow);
    let mut old = Client::connect(address);
    assert_eq!(old.ask("x"), "a x");
    for config in [&wide, &narrow] {
        accepted(&sessile.reload(config));
        assert_eq!(Client::connect(address).ask("x"), "a x");
        assert_eq!(old.ask("still"), "a still");
    }
}

#[test]
fn digests_are_equal_exactly_if_placement_is() {
    let at = |n: u16| SocketAddr::from(([127, 0, 0, 1], n));
    let [a, b] = [("a", at(1)), ("b", at(2))];
    let config = |options: &str, members: &[(&str, SocketAddr)]| listener("p", "") + &pool("p", options, members, OFF);
    let base = config("", &[a, b]);
    let sessile = Sessile::start(&base);
    let first = sessile.status()["digest"].clone();
    let digest = |config: &str| accepted(&sessile.reload(config))["digest"].clone();
    for same in [
        config("", &[b, a]),
        config("", &[("a", at(3)), b]),
        config("all_down = \"refuse\"\nprefix_v4 = 24", &[a, b]),
        named("other", "127.0.0.1:0") + &base,
    ] {
        assert_eq!(digest(&same), first, "{same}");
    }
    let mut seen = vec![first.clone()];
    for other in [
        config("", &[a]),
        config("", &[a, ("c", at(2))]),
        config("hash_seed = 1", &[a, b]),
        config("balance = \"ring\"", &[a, b]),
        base.replacen("name = \"a\"", "name = \"a\"\nweight = 2", 1),
        base.replacen("name = \"a\"", "name = \"a\"\nlocation = \"dc1\"", 1),
        base.replacen("name = \"a\"", "name = \"a\"\nbackup = true", 1),
        base.replace("\"p\"", "\"q\""),
    ] {
        let digest = digest(&other);
        assert!(!seen.contains(&digest), "{other}");
        seen.push(digest);
    }
    assert_eq!(digest(&base), first, "and back");
}

#[test]
fn a_refused_file_changes_nothing_and_shows_in_log_view_and_metric() {
    let a = Backend::named("a");
    let good = listener("p", "") + &pool("p", "", &[("a", a.address)], OFF);
    let sessile = Sessile::start(&good);
    let front = sessile.address("l");
    let mut held = Client::connect(front);
    assert_eq!(held.ask("x"), "a x");
    let digest = sessile.status()["digest"].clone();
    let whole = std::fs::read_to_string(sessile.file()).unwrap();
    let bad = [
        ("no listener", whole.replace("[[listener]]", "[[pool]]")),
        ("a route to nowhere", whole.replace("pool = \"p\"", "pool = \"gone\"")),
        ("an unknown key", whole.replace("[[listener]]", "[[listener]]\ncookies = true")),
        ("not TOML", whole.clone() + "[[["),
        ("cut short", whole.trim_end().to_owned()),
        ("empty", String::new()),
    ];
    for (count, (what, text)) in bad.iter().enumerate() {
        std::fs::write(sessile.file(), text).unwrap();
        let (code, body) = crate::support::http::unix_post(&sessile.admin(), "/reload").unwrap();
        let verdict: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((code, &verdict["accepted"]), (409, &false.into()), "{what}: {verdict}");
        assert!(!verdict["problems"].as_array().unwrap().is_empty(), "{what}");
        let status = sessile.status();
        assert_eq!((&status["generation"], &status["digest"]), (&1.into(), &digest), "{what}");
        let reloads = &status["reloads"];
        assert_eq!((&reloads["refused"], &reloads["accepted"]), (&(count + 1).into(), &0.into()), "{what}");
        assert_eq!((&reloads["last_accepted"], &reloads["problems"]), (&false.into(), &verdict["problems"]), "{what}");
        assert_eq!(sessile.metric("sessile_reloads_total{verdict=\"refused\"}"), (count + 1) as f64, "{what}");
        assert_eq!(sessile.metric("sessile_reload_last_accepted"), 0.0, "{what}");
        let refused = || sessile.said().matches("reload refused, generation 1 stays in force").count();
        eventually("the refusal to be logged", || (refused() == count + 1).then_some(()));
        assert_eq!(Client::connect(front).ask("x"), "a x", "{what}");
    }
    std::fs::remove_file(sessile.file()).unwrap();
    sessile.signal(Signal::HUP);
    eventually("a missing file to be refused", || (sessile.status()["reloads"]["refused"] == 7).then_some(()));
    assert_eq!(held.ask("still"), "a still");
    accepted(&sessile.reload(&good));
    assert_eq!(sessile.metric("sessile_reload_last_accepted"), 1.0);
    assert_eq!(sessile.status()["reloads"]["problems"], serde_json::json!([]));
    assert_eq!(sessile.metric("sessile_generation"), 2.0);
}

#[test]
fn an_address_that_cannot_be_bound_refuses_the_whole_reload() {
    let a = Backend::named("a");
    let rest = pool("p", "", &[("a", a.address)], OFF);
    let sessile = Sessile::start(&(listener("p", "") + &rest));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let free = free_local_address();
    let dir = tempfile::tempdir().unwrap();
    let unix = dir.path().join("front.sock");
    let verdict = sessile.reload(
        &(named("free", &free.to_string())
            + &named("taken", &taken.local_addr().unwrap().to_string())
            + &named("elsewhere", "192.0.2.1:1")
            + &format!("[[listener]]\nname = \"u\"\nbind = \"unix:{}\"\npool = \"q\"\n", unix.display())
            + &rest
            + &rest.replace("\"p\"", "\"q\"").replace("[[pool]]", "[[pool]]\nbalance = \"random\"")),
    );
    assert_eq!(verdict["accepted"], false, "{verdict}");
    let problems = verdict["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 2, "{verdict}");
    let text = std::fs::read_to_string(sessile.file()).unwrap();
    let place = |value: &str| {
        let (index, line) = text.lines().enumerate().find(|(_, line)| line.contains(value)).unwrap();
        format!("{}:{}:{}: ", sessile.file().display(), index + 1, line.find(value).unwrap() + 1)
    };
    let taken = taken.local_addr().unwrap();
    let expected =
        format!("{}listener \"taken\": {taken}: another program listens there", place(&format!("\"{taken}\"")));
    assert_eq!(problems[0], expected);
    let elsewhere = place("\"192.0.2.1:1\"") + "listener \"elsewhere\": 192.0.2.1:1: ";
    assert!(problems[1].as_str().unwrap().starts_with(&elsewhere), "{verdict}");
    assert!(TcpStream::connect(free).is_err(), "what could be bound is not open either");
    assert!(!unix.exists());
    assert_eq!(sessile.status()["listeners"].as_array().unwrap().len(), 1);
    assert_eq!(Client::connect(sessile.address("l")).ask("x"), "a x");
}

#[test]
fn limits_change_with_the_file_and_what_needs_a_restart_is_said() {
    let echo = Echo::start();
    let config = |top: &str, limits: &str| {
        format!("{top}\n{}{}[limits]\n{limits}\n", listener("p", ""), pool("p", "", &[("a", echo.address)], OFF))
    };
    let sessile = Sessile::start(&config("workers = 2", ""));
    let front = sessile.address("l");
    let mut first = Client::connect(front);
    assert_eq!(first.ask("x"), "x");
    let verdict = sessile.reload(&config("workers = 1", "max_connections = 1"));
    assert_eq!(
        accepted(&verdict)["warnings"],
        serde_json::json!(["workers: changed in the file; takes effect at the next start"])
    );
    assert_eq!(sessile.status()["admission"]["max"], 1);
    assert_eq!(sessile.status()["workers"].as_array().unwrap().len(), 2);
    // The second waits in the queue until the file lets it in.
    let mut second = Client::connect(front);
    eventually("accept to pause", || {
        let status = sessile.status();
        let workers = status["workers"].as_array().unwrap();
        workers.iter().any(|worker| worker["accept_paused_now"] == 1).then_some(())
    });
    accepted(&sessile.reload(&config("workers = 2", "max_connections = 2")));
    assert_eq!((first.ask("y"), second.ask("y")), ("y".into(), "y".into()));
    eventually("accept to go on", || {
        let status = sessile.status();
        let workers = status["workers"].as_array().unwrap();
        workers.iter().all(|worker| worker["accept_paused_now"] == 0).then_some(())
    });
}
