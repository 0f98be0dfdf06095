//! Stopping: a listener that is removed serves its backlog, and a process that stops ends on time.

use std::fmt::Write as _;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::backend::{Backend, listener, pool};
use crate::support::load_support::{Client, Echo, Load, Target, Toll, alone};
use crate::support::{Sessile, eventually, http};

/// Connections a second, over so many threads.
const RATE: u32 = 2_000;
const THREADS: u32 = 8;

/// Connections that are served before anything happens.
const WARM: usize = 1_500;

/// A pool that places clients without an address.
fn keyless(echo: &Echo) -> String {
    pool("p", "balance = \"random\"", &[echo.address])
}

fn named(name: &str, bind: &str, options: &str) -> String {
    format!("[[listener]]\nname = \"{name}\"\nbind = \"{bind}\"\npool = \"p\"\n{options}\n")
}

fn nothing_was_broken(what: &str, toll: &Toll) {
    assert_eq!(toll.broken, Vec::<String>::new(), "{what}: of {} served", toll.served);
}

fn count(sessile: &Sessile, listener: &str, ended: &str) -> usize {
    sessile.lines().iter().filter(|line| line["listener"] == listener && line["ended"] == ended).count()
}

fn readiness(sessile: &Sessile) -> Option<u16> {
    http::unix_get(&sessile.admin(), "/readyz").map(|(status, _)| status)
}

#[test]
fn everybody_who_was_let_in_is_served_when_the_process_is_told_to_stop() {
    let _alone = alone();
    let echo = Echo::start();
    let mut sessile = Sessile::start(&(listener("p", "") + &keyless(&echo)));
    let load = Load::start(&Target::Tcp(sessile.address("l")), THREADS, RATE);
    load.warm(WARM);
    let rate = load.rate();
    sessile.signal(Signal::TERM);
    let toll = load.wait();
    println!("{rate:.0} connections/s, {} served", toll.served);
    nothing_was_broken("SIGTERM", &toll);
    assert_eq!(sessile.wait().code(), Some(0));
    assert_eq!(count(&sessile, "l", "done"), toll.served);
    assert_eq!(sessile.lines().iter().filter(|line| line["listener"] == "l").count(), toll.served);
}

#[test]
fn everybody_who_was_let_in_is_served_when_a_listener_is_removed() {
    let _alone = alone();
    let echo = Echo::start();
    let stays = named("stays", "127.0.0.1:0", "") + &keyless(&echo);
    let both = named("goes", "127.0.0.1:0", "") + &stays;
    let sessile = Sessile::start(&stays);
    let other = Load::start(&Target::Tcp(sessile.address("stays")), 2, 500);
    for round in 1..=3 {
        assert_eq!(sessile.reload(&both)["accepted"], true);
        let load = Load::start(&Target::Tcp(sessile.address("goes")), THREADS, RATE);
        load.warm(WARM);
        let rate = load.rate();
        let verdict = sessile.reload(&stays);
        assert_eq!(verdict["changes"][0], "listener \"goes\" removed", "{verdict}");
        let toll = load.wait();
        println!("round {round}: {rate:.0} connections/s, {} served", toll.served);
        nothing_was_broken("removed", &toll);
        let done = eventually("every line to be written", || {
            let lines = sessile.lines();
            let own = lines.iter().filter(|line| line["listener"] == "goes").count();
            (own >= toll.served).then(|| count(&sessile, "goes", "done"))
        });
        assert!(done >= toll.served, "{done} of {}", toll.served);
        std::fs::write(sessile.dir.path().join("out.log"), "").unwrap();
    }
    nothing_was_broken("the listener that stays", &other.stop());
}

#[test]
fn everybody_who_was_let_in_is_served_when_a_unix_listener_is_removed() {
    let _alone = alone();
    let echo = Echo::start();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("front.sock");
    let stays = named("stays", "127.0.0.1:0", "") + &keyless(&echo);
    let both = named("goes", &format!("unix:{}", path.display()), "") + &stays;
    let mut sessile = Sessile::start(&both);
    for round in 1..=4 {
        let load = Load::start(&Target::Unix(path.clone()), THREADS, RATE);
        load.warm(WARM);
        let rate = load.rate();
        // The last time the whole process goes.
        if round < 4 {
            assert_eq!(sessile.reload(&stays)["accepted"], true);
        } else {
            sessile.signal(Signal::TERM);
        }
        let toll = load.wait();
        println!("round {round}: {rate:.0} connections/s, {} served", toll.served);
        nothing_was_broken("removed", &toll);
        assert!(!path.exists(), "the socket's file stays");
        if round < 4 {
            assert_eq!(sessile.reload(&both)["accepted"], true);
        }
    }
    assert_eq!(sessile.wait().code(), Some(0));
}

/// Each leaves when it was answered; which of them is let in first is the kernel's choice.
fn all_are_answered_at_last(waiting: Vec<Client>) {
    let ask = |mut client: Client| thread::spawn(move || assert_eq!(client.ask("at last"), "at last"));
    for asking in waiting.into_iter().map(ask).collect::<Vec<_>>() {
        asking.join().expect("an answer");
    }
}

/// At a limit the queue waits; that it also closes must not cost those in it their place.
#[test]
fn who_waits_in_the_queue_of_a_full_listener_is_served_though_it_is_being_removed() {
    let echo = Echo::start();
    let stays = named("stays", "127.0.0.1:0", "") + &keyless(&echo);
    let both = named("goes", "127.0.0.1:0", "max_connections = 2") + &stays;
    let sessile = Sessile::start(&both);
    let front = sessile.address("goes");
    let mut inside = [Client::connect(front), Client::connect(front)];
    inside.iter_mut().for_each(|client| assert_eq!(client.ask("in"), "in"));
    let waiting: Vec<_> = (0..6).map(|_| Client::connect(front)).collect();
    assert_eq!(sessile.reload(&stays)["accepted"], true);
    // Longer than a door with an empty queue stays.
    thread::sleep(Duration::from_millis(800));
    assert!(TcpStream::connect_timeout(&front, Duration::from_millis(100)).is_err(), "somebody new is let in");
    inside.iter_mut().for_each(|client| assert_eq!(client.ask("still in"), "still in"));
    drop(inside);
    all_are_answered_at_last(waiting);
}

#[test]
fn who_waits_in_the_queue_of_a_full_process_is_served_though_it_stops() {
    let echo = Echo::start();
    let mut sessile = Sessile::start(&(listener("p", "") + &keyless(&echo) + "[limits]\nmax_connections = 2\n"));
    let front = sessile.address("l");
    let mut inside = [Client::connect(front), Client::connect(front)];
    inside.iter_mut().for_each(|client| assert_eq!(client.ask("in"), "in"));
    let waiting: Vec<_> = (0..6).map(|_| Client::connect(front)).collect();
    sessile.signal(Signal::TERM);
    thread::sleep(Duration::from_millis(800));
    assert_eq!(readiness(&sessile), Some(503));
    assert!(TcpStream::connect_timeout(&front, Duration::from_millis(100)).is_err(), "somebody new is let in");
    drop(inside);
    all_are_answered_at_last(waiting);
    assert_eq!(sessile.wait().code(), Some(0));
    assert_eq!(count(&sessile, "l", "done"), 8);
}

#[test]
fn readiness_ends_at_once_and_listeners_stay_open_for_the_grace() {
    let echo = Echo::start();
    let mut sessile = Sessile::start(&format!("stop_grace = \"1500ms\"\n{}{}", listener("p", ""), keyless(&echo)));
    let front = sessile.address("l");
    let mut early = Client::connect(front);
    assert_eq!(early.ask("early"), "early");
    let told = Instant::now();
    sessile.signal(Signal::TERM);
    eventually("/readyz to fail", || (readiness(&sessile) == Some(503)).then_some(()));
    assert!(told.elapsed() < Duration::from_secs(1), "{:?}", told.elapsed());
    let (status, why) = http::unix_get(&sessile.admin(), "/readyz").unwrap();
    assert_eq!((status, why.as_str()), (503, "not ready: the process is stopping\n"));
    assert_eq!(http::unix_get(&sessile.admin(), "/healthz").unwrap().0, 200, "it still answers");
    assert_eq!(sessile.status()["ready"], false);
    let mut late = Client::connect(front);
    assert_eq!(late.ask("late"), "late");
    assert!(told.elapsed() < Duration::from_millis(1_500), "too slow to tell anything");
    eventually("the door to be shut", || TcpStream::connect_timeout(&front, Duration::from_millis(200)).err());
    assert!(told.elapsed() >= Duration::from_millis(1_500), "{:?}", told.elapsed());
    // What runs, goes on.
    assert_eq!((early.ask("on"), late.ask("on")), ("on".into(), "on".into()));
    let verdict = http::unix_post(&sessile.admin(), "/reload").unwrap();
    assert_eq!(verdict.0, 409, "{}", verdict.1);
    assert!(verdict.1.contains("the process is stopping"), "{}", verdict.1);
    drop((early, late));
    assert_eq!(sessile.wait().code(), Some(0));
    assert_eq!(count(&sessile, "l", "stopped"), 0);
}

#[test]
fn a_process_whose_last_connection_has_gone_does_not_wait_for_the_deadline() {
    let echo = Echo::start();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("front.sock");
    let unix = named("u", &format!("unix:{}", path.display()), "");
    let mut sessile = Sessile::start(&(listener("p", "") + &unix + &keyless(&echo)));
    let mut client = Client::connect(sessile.address("l"));
    assert_eq!(client.ask("hello"), "hello");
    let told = Instant::now();
    sessile.signal(Signal::INT);
    eventually("/readyz to fail", || (readiness(&sessile) == Some(503)).then_some(()));
    drop(client);
    assert_eq!(sessile.wait().code(), Some(0));
    assert!(told.elapsed() < Duration::from_secs(10), "{:?}", told.elapsed());
    assert!(!sessile.admin().exists() && !path.exists(), "a socket's file stays");
}

#[test]
fn at_the_deadline_what_is_left_is_closed_spread_and_called_stopped() {
    const LEFT: usize = 100;
    let echo = Echo::start();
    let mut sessile = Sessile::start(&format!("stop_deadline = \"1s\"\n{}{}", listener("p", ""), keyless(&echo)));
    let front = sessile.address("l");
    let mut clients: Vec<_> = (0..LEFT).map(|_| Client::connect(front)).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.ask("hello"), "hello"));
    let told = Instant::now();
    sessile.signal(Signal::TERM);
    eventually("/readyz to fail", || (readiness(&sessile) == Some(503)).then_some(()));
    let ends: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            thread::spawn(move || {
                let end = client.end();
                (end.is_err(), told.elapsed())
            })
        })
        .collect();
    let ends: Vec<_> = ends.into_iter().map(|end| end.join().unwrap()).collect();
    assert_eq!(sessile.wait().code(), Some(0));
    let (first, last) = (ends.iter().map(|end| end.1).min().unwrap(), ends.iter().map(|end| end.1).max().unwrap());
    println!("closed from {first:?} to {last:?}");
    assert!(first >= Duration::from_secs(1), "closed before the deadline: {first:?}");
    assert!(last - first > Duration::from_secs(2), "not spread: {first:?} to {last:?}");
    assert!(last < Duration::from_secs(12), "{last:?}");
    let in_one_second =
        |from: Duration| ends.iter().filter(|end| end.1 >= from && end.1 < from + Duration::from_secs(1)).count();
    let most = ends.iter().map(|end| in_one_second(end.1)).max().unwrap();
    assert!(most <= LEFT / 2, "{most} of {LEFT} in one second");
    assert!(ends.iter().all(|end| end.0), "a stream that was cut must not look complete");
    assert_eq!(count(&sessile, "l", "stopped"), LEFT);
}

#[test]
fn told_to_stop_twice_it_ends_now() {
    let echo = Echo::start();
    let mut sessile = Sessile::start(&format!("stop_deadline = \"1h\"\n{}{}", listener("p", ""), keyless(&echo)));
    let mut client = Client::connect(sessile.address("l"));
    assert_eq!(client.ask("hello"), "hello");
    sessile.signal(Signal::TERM);
    eventually("/readyz to fail", || (readiness(&sessile) == Some(503)).then_some(()));
    // A signal within a second repeats the first one.
    sessile.signal(Signal::TERM);
    thread::sleep(Duration::from_millis(1_050));
    assert_eq!(client.ask("still"), "still");
    let told = Instant::now();
    sessile.signal(Signal::TERM);
    assert_eq!(sessile.wait().code(), Some(0));
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());
    assert!(client.end().is_err(), "a stream that was cut must not look complete");
    assert_eq!(count(&sessile, "l", "stopped"), 1);
    sessile.says("told to stop twice");
}

#[test]
fn each_signal_to_stop_lets_connections_finish_and_an_alarm_does_nothing() {
    let echo = Echo::start();
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT, Signal::USR1] {
        let mut sessile = Sessile::start(&(listener("p", "") + &keyless(&echo)));
        let mut client = Client::connect(sessile.address("l"));
        sessile.signal(Signal::ALARM);
        assert_eq!(client.ask("hello"), "hello");
        assert_eq!(readiness(&sessile), Some(200));
        sessile.signal(signal);
        eventually("/readyz to fail", || (readiness(&sessile) == Some(503)).then_some(()));
        assert_eq!(client.ask("still"), "still");
        drop(client);
        assert_eq!(sessile.wait().code(), Some(0), "{signal:?}");
        assert_eq!(count(&sessile, "l", "done"), 1);
    }
}

/// Where the backend of each of these clients is.
fn map(sessile: &Sessile, clients: u8) -> String {
    let front = sessile.address("l");
    (1..=clients).fold(String::new(), |mut map, n| {
        let mut client = Client::connect_from([127, 0, 1, n].into(), front);
        let _ = writeln!(map, "{}", client.ask("who"));
        map
    })
}

#[test]
fn killed_and_started_again_it_places_everybody_as_before_over_what_it_left_behind() {
    let backends = ["b0", "b1", "b2", "b3"].map(Backend::named);
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let dir = tempfile::tempdir().unwrap();
    let front = dir.path().join("front.sock");
    let unix = named("u", &format!("unix:{}", front.display()), "").replace("\"p\"", "\"q\"");
    let other = pool("q", "balance = \"random\"", &addresses);
    let mut sessile = Sessile::start(&(listener("p", "") + &unix + &pool("p", "", &addresses) + &other));
    let before = map(&sessile, 24);
    sessile.signal(Signal::KILL);
    assert_eq!(sessile.wait().code(), None);
    assert!(front.exists() && sessile.admin().exists(), "somebody has tidied up after it");
    sessile.restart();
    assert_eq!(map(&sessile, 24), before);
    UnixStream::connect(&front).unwrap();
}
