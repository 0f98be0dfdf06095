//! A restart without a service manager: the next process starts while the one before stops, and both are seen.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::backend::{Backend, listener, pool};
use crate::support::load_support::{Client, Echo, alone};
use crate::support::program::free_address;
use crate::support::sessile::{Former, run};
use crate::support::{Sessile, eventually, http};

/// A process with the listener `l`, whose file names the port that the kernel has chosen, for the next process.
fn start(config: &str) -> (Sessile, SocketAddr) {
    let sessile = Sessile::start(config);
    let front = sessile.address("l");
    sessile.rewrite(&config.replace("127.0.0.1:0", &front.to_string()));
    (sessile, front)
}

fn listening_sockets(status: &Value) -> u64 {
    status["listening_sockets"].as_u64().expect("a number")
}

/// Tells the process to stop and waits until its listeners are closed.
fn stop(sessile: &Sessile) {
    sessile.signal(Signal::TERM);
    eventually("the listeners to close", || {
        let (_, body) = http::unix_get(&sessile.moved_admin(), "/status")?;
        (listening_sockets(&serde_json::from_str(&body).expect("JSON")) == 0).then_some(())
    });
}

/// Waits until this process has the admin path and is ready, not the one before.
fn ready(sessile: &Sessile) {
    eventually("the next process to be ready", || {
        let (_, body) = http::unix_get(&sessile.dir.path().join("admin.sock"), "/status")?;
        let status: Value = serde_json::from_str(&body).expect("JSON");
        (status["pid"] == sessile.pid() && status["ready"] == true).then_some(())
    });
}

/// The first client that the process serves, and how long after `begun` it had its answer.
fn first_served(front: SocketAddr, begun: Instant) -> (Client, Duration) {
    eventually("a client to be served", || {
        drop(TcpStream::connect_timeout(&front, Duration::from_secs(5)).ok()?);
        let mut client = Client::connect(front);
        client.try_ask("new").ok()?;
        Some((client, begun.elapsed()))
    })
}

/// The processes that stop, as the one that serves shows them: number and open connections.
fn draining(sessile: &Sessile) -> Vec<(u64, u64)> {
    let status = sessile.status();
    let shown = status["draining"].as_array().into_iter().flatten();
    shown.map(|process| (process["pid"].as_u64().unwrap(), process["open"].as_u64().unwrap())).collect()
}

fn shows(sessile: &Sessile, former: &[(&Former, u64)]) {
    let mut wanted: Vec<_> = former.iter().map(|(former, open)| (u64::from(former.pid()), *open)).collect();
    wanted.sort_unstable();
    eventually("the processes that stop to be shown", || (draining(sessile) == wanted).then_some(()));
}

fn accepted(status: &Value) -> u64 {
    status["listeners"].as_array().unwrap().iter().map(|listener| listener["accepted"].as_u64().unwrap()).sum()
}

#[test]
fn the_next_process_serves_at_once_beside_an_idle_connection_and_both_are_seen() {
    let backends = ["b0", "b1"].map(Backend::named);
    let addresses = [backends[0].address, backends[1].address];
    let admin = format!("[admin]\nsocket = \"$DIR/admin.sock\"\nhttp = \"{}\"\n", free_address());
    let pool = pool("p", "balance = \"round_robin\"\nkey = \"none\"", &addresses);
    let (mut sessile, front) = start(&format!("stop_deadline = \"1h\"\n{admin}{}{pool}", listener("p", "")));
    let mut idle = Client::connect(front);
    idle.ask("before");
    assert_eq!(http::unix_post(&sessile.admin(), "/backends/p/b0/drain").unwrap().0, 200);
    stop(&sessile);

    let begun = Instant::now();
    let mut former = sessile.follow();
    let (_new, took) = first_served(front, begun);
    println!("served {} ms after the start of the next process", took.as_millis());
    assert!(took < Duration::from_secs(2), "{took:?}");
    ready(&sessile);
    assert!(idle.ask("still").ends_with("still"));

    shows(&sessile, &[(&former, 1)]);
    assert_eq!(sessile.metric("sessile_draining_processes"), 1.0);
    assert_eq!(sessile.metric("sessile_draining_connections"), 1.0);
    let said =
        String::from_utf8(run(&["status", "--wide", "--socket", sessile.admin().to_str().unwrap()]).stdout).unwrap();
    assert!(said.contains(&format!("process {} stopping for ", former.pid())), "{said}");
    assert!(said.contains(&format!(", connections 1, --socket {}\n", former.admin().display())), "{said}");
    let said =
        String::from_utf8(run(&["status", "--wide", "--socket", former.admin().to_str().unwrap()]).stdout).unwrap();
    assert!(said.contains(", stopping for ") && said.contains("connections 1 of "), "{said}");
    let of_b0 = &sessile.status()["pools"][0]["backends"][0];
    assert_eq!(of_b0["runtime"], "draining", "the drain is kept: {of_b0}");

    drop(idle);
    assert_eq!(former.wait().code(), Some(0));
    shows(&sessile, &[]);
    assert!(!former.admin().exists() && sessile.dir.path().join("admin.sock").exists());
    assert!(sessile.dir.path().join("admin.lock").exists());
}

/// Six clients that connect again and again while the next process starts at the signal: the longest time that one of
/// them waited.
fn restarted_under_load(top: &str) -> Duration {
    let _alone = alone();
    let echo = Echo::start();
    let (mut sessile, front) =
        start(&(top.to_owned() + &listener("p", "") + &pool("p", "balance = \"random\"", &[echo.address])));
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> =
        (0..6).map(|_| Arc::clone(&over)).map(|over| thread::spawn(move || load(front, &over))).collect();
    eventually("clients to be served", || (accepted(&sessile.status()) > 100).then_some(()));
    let begun = Instant::now();
    sessile.signal(Signal::TERM);
    let mut former = sessile.follow();
    ready(&sessile);
    println!("ready {} ms after the signal", begun.elapsed().as_millis());
    assert_eq!(former.wait().code(), Some(0));
    println!("the one before has ended {} ms after the signal", begun.elapsed().as_millis());
    let then = accepted(&sessile.status());
    eventually("more clients to be served", || (accepted(&sessile.status()) > then + 100).then_some(()));
    over.store(true, Relaxed);
    let (mut served, mut longest) = (0, Duration::ZERO);
    for client in clients {
        let (more, long) = client.join().expect("every client is served");
        (served, longest) = (served + more, longest.max(long));
    }
    println!("{served} served, the longest wait was {} ms", longest.as_millis());
    longest
}

#[test]
fn no_client_is_refused_when_the_next_process_starts_at_the_signal() {
    let longest = restarted_under_load("");
    // A busy machine may start a program too late for the time in which listeners stay open without a grace.
    assert!(longest < Duration::from_secs(3), "{longest:?}");
}

#[test]
fn no_client_waits_when_the_next_process_starts_before_the_grace_is_over() {
    let longest = restarted_under_load("stop_grace = \"2s\"\n");
    // The kernel sends the first packet of a connection again after a second.
    assert!(longest < Duration::from_secs(1), "{longest:?}");
}

#[test]
fn a_process_that_stops_accepts_for_a_moment_so_that_the_next_one_can_follow() {
    let backend = Backend::named("b");
    let (mut sessile, front) = start(&(listener("p", "") + &pool("p", "", &[backend.address])));
    sessile.signal(Signal::TERM);
    eventually("the admin socket to move", || sessile.moved_admin().exists().then_some(()));
    assert_eq!(Client::connect(front).ask("late"), "b late");
    assert_eq!(sessile.wait().code(), Some(0));
}

/// Connects again and again; the number of connections and the longest time of one.
fn load(front: SocketAddr, over: &AtomicBool) -> (usize, Duration) {
    let (mut served, mut longest) = (0, Duration::ZERO);
    while !over.load(Relaxed) {
        let begun = Instant::now();
        let mut client = Client::connect(front);
        assert_eq!(client.ask("hello"), "hello");
        longest = longest.max(begun.elapsed());
        served += 1;
        thread::sleep(Duration::from_millis(1));
    }
    (served, longest)
}

#[test]
fn within_the_grace_new_clients_go_to_the_next_process_also_over_a_unix_socket() {
    let echo = Echo::start();
    let unix = "[[listener]]\nname = \"u\"\nbind = \"unix:$DIR/u.sock\"\npool = \"p\"\n";
    let config = listener("p", "") + unix + &pool("p", "balance = \"random\"", &[echo.address]);
    let (mut sessile, front) = start(&format!("stop_grace = \"2s\"\n{config}"));
    let path = sessile.dir.path().join("u.sock");
    let mut before = Client::connect(front);
    before.ask("before");
    sessile.signal(Signal::TERM);
    eventually("the admin socket to move", || sessile.moved_admin().exists().then_some(()));
    let mut former = sessile.follow();
    ready(&sessile);
    let of_former = former.status();
    assert!(listening_sockets(&of_former) > 0, "the grace is not over: {of_former}");
    for _ in 0..50 {
        assert_eq!(Client::connect(front).ask("tcp"), "tcp");
        drop(UnixStream::connect(&path).expect("the path leads to a process"));
    }
    assert_eq!(accepted(&former.status()), accepted(&of_former), "a new client went to the process that stops");
    eventually("the next one to have them all", || (accepted(&sessile.status()) == 100).then_some(()));
    drop(before);
    assert_eq!(former.wait().code(), Some(0));
    UnixStream::connect(&path).expect("the file is the next process's");
}

#[test]
fn what_the_process_before_remembers_is_known_to_the_next_which_keeps_the_file() {
    let backend = Backend::named("b");
    let table = "stick_table_file = \"$DIR/table\"\nstick_table_interval = \"1h\"\nstop_deadline = \"1h\"\n";
    let (mut sessile, front) = start(&format!("{table}{}{}", listener("p", ""), pool("p", "", &[backend.address])));
    let mut clients: Vec<_> = (1..=20).map(|n| Client::connect_from([127, 0, 2, n].into(), front)).collect();
    clients.iter_mut().for_each(|client| drop(client.ask("hello")));
    stop(&sessile);
    let file = sessile.dir.path().join("table");
    assert!(!file.exists(), "it is written for the next process, or at the end");
    let mut former = sessile.follow();
    ready(&sessile);
    let known = |sessile: &Sessile| sessile.json("/stick-table")[0]["known"].as_u64();
    assert_eq!(known(&sessile), Some(20));
    // The next one is followed as well, before it has written the file, while both still have connections.
    let mut more = Client::connect_from([127, 0, 3, 1].into(), front);
    more.ask("hello");
    stop(&sessile);
    let mut second = sessile.follow();
    ready(&sessile);
    assert_eq!(known(&sessile), Some(21), "the table of the oldest was written over that of the one before");
    // The last one writes the file at its end, and those before it end later.
    sessile.signal(Signal::TERM);
    assert_eq!(sessile.wait().code(), Some(0));
    let of_the_last = file.metadata().unwrap().ino();
    drop((clients, more));
    assert_eq!((former.wait().code(), second.wait().code()), (Some(0), Some(0)));
    assert_eq!(file.metadata().unwrap().ino(), of_the_last, "a process before has written over it");
    let _ended = sessile.follow();
    ready(&sessile);
    assert_eq!(known(&sessile), Some(21));
}

#[test]
fn two_processes_may_stop_beside_one_that_serves() {
    let backend = Backend::named("b");
    let config = format!("stop_deadline = \"1h\"\n{}{}", listener("p", ""), pool("p", "", &[backend.address]));
    let (mut sessile, front) = start(&config);
    let mut clients = Vec::new();
    let mut former = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(front);
        client.ask("hello");
        clients.push(client);
        sessile.signal(Signal::TERM);
        former.push(sessile.follow());
        ready(&sessile);
    }
    shows(&sessile, &[(&former[0], 1), (&former[1], 1)]);
    assert_eq!(Client::connect(front).ask("new"), "b new");
    clients.iter_mut().for_each(|client| assert_eq!(client.ask("old"), "b old"));
    drop(clients.remove(0));
    assert_eq!(former[0].wait().code(), Some(0));
    shows(&sessile, &[(&former[1], 1)]);
    assert_eq!(clients[0].ask("old"), "b old");
}

#[test]
fn a_next_process_that_fails_takes_nothing_from_the_one_that_stops() {
    let backend = Backend::named("b");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = format!("stop_deadline = \"1h\"\n{}{}", listener("p", ""), pool("p", "", &[backend.address]));
    let (mut sessile, front) = start(&config);
    let good = std::fs::read_to_string(sessile.file()).unwrap();
    let mut idle = Client::connect(front);
    idle.ask("hello");
    let bad = format!("bind = [\"{front}\", \"{}\"]", taken.local_addr().unwrap());
    std::fs::write(sessile.file(), good.replace(&format!("bind = \"{front}\""), &bad)).unwrap();
    sessile.signal(Signal::TERM);
    let former = sessile.follow();
    assert_eq!(sessile.wait().code(), Some(69));
    sessile.says("another program listens there");
    assert_eq!(idle.ask("still"), "b still");
    // It closes its listeners as if no process had come, long before the time for which one may keep them open.
    let begun = Instant::now();
    eventually("the listeners to close", || (listening_sockets(&former.status()) == 0).then_some(()));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    std::fs::write(sessile.file(), &good).unwrap();
    let _failed = sessile.follow();
    ready(&sessile);
    shows(&sessile, &[(&former, 1)]);
    assert_eq!(Client::connect(front).ask("new"), "b new");
}

#[test]
fn an_address_of_another_program_is_refused_although_a_process_stops() {
    let backend = Backend::named("b");
    let config = format!("stop_deadline = \"1h\"\n{}{}", listener("p", ""), pool("p", "", &[backend.address]));
    let (mut sessile, front) = start(&config);
    let mut idle = Client::connect(front);
    idle.ask("hello");
    stop(&sessile);
    let _theirs = TcpListener::bind(front).unwrap();
    let begun = Instant::now();
    let _former = sessile.follow();
    assert_eq!(sessile.wait().code(), Some(69));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    sessile.says(&format!("{front}: another program listens there"));
}

#[test]
fn a_command_to_a_process_that_stops_says_that_the_next_does_not_know_of_it() {
    let backends = ["b0", "b1"].map(Backend::named);
    let addresses = [backends[0].address, backends[1].address];
    let config = format!("stop_deadline = \"1h\"\n{}{}", listener("p", ""), pool("p", "", &addresses));
    let (mut sessile, front) = start(&config);
    let mut idle = Client::connect(front);
    idle.ask("hello");
    stop(&sessile);
    let mut former = sessile.follow();
    ready(&sessile);
    assert_eq!(http::unix_post(&sessile.admin(), "/backends/p/b1/drain").unwrap().0, 200);
    let (code, said) = http::unix_post(&former.admin(), "/backends/p/b0/drain").unwrap();
    assert_eq!(code, 200);
    assert!(said.ends_with("but a restart will not know it: the process is stopping\n"), "{said}");
    let (code, said) = http::unix_post(&former.admin(), "/reload").unwrap();
    assert!(code == 409 && said.contains("the process is stopping"), "{said}");
    assert_eq!(http::unix_post(&sessile.admin(), "/successor/starting").unwrap().0, 409, "it does not stop");
    let kept = std::fs::read_to_string(sessile.dir.path().join("admin.sock.state")).unwrap();
    assert!(kept.contains("\"b1\"") && !kept.contains("\"b0\""), "{kept}");
    drop(idle);
    assert_eq!(former.wait().code(), Some(0));
}

#[test]
fn a_process_without_the_file_of_its_admin_socket_is_still_reached_while_it_stops() {
    let backend = Backend::named("b");
    let config = format!("stop_deadline = \"1h\"\n{}{}", listener("p", ""), pool("p", "", &[backend.address]));
    let (mut sessile, front) = start(&config);
    let mut idle = Client::connect(front);
    idle.ask("hello");
    std::fs::remove_file(sessile.admin()).unwrap();
    stop(&sessile);
    let former = sessile.follow();
    ready(&sessile);
    shows(&sessile, &[(&former, 1)]);
    assert_eq!(idle.ask("still"), "b still");
}

#[test]
fn without_an_admin_socket_the_next_process_starts_once_the_listeners_are_closed() {
    let backend = Backend::named("b");
    let front = free_address();
    let admin = format!("[admin]\nsocket = \"off\"\nhttp = \"{}\"\n", free_address());
    let listener = listener("p", "").replace("127.0.0.1:0", &front.to_string());
    let pool = pool("p", "balance = \"random\"", &[backend.address]);
    let mut sessile = Sessile::spawn(&format!("stop_deadline = \"1h\"\n{admin}{listener}{pool}"), |_| {});
    let (mut idle, _) = eventually("a first client", || {
        TcpStream::connect(front).ok()?;
        Some(first_served(front, Instant::now()))
    });
    sessile.signal(Signal::TERM);
    eventually("the listeners to close", || TcpStream::connect_timeout(&front, Duration::from_millis(100)).err());
    thread::sleep(Duration::from_millis(400));
    let begun = Instant::now();
    let mut former = sessile.follow();
    let (_new, took) = first_served(front, begun);
    println!("served {} ms after the start of the next process", took.as_millis());
    assert_eq!(idle.ask("still"), "b still");
    drop(idle);
    assert_eq!(former.wait().code(), Some(0));
}
