//! Established connections and new clients while processes follow each other.

use std::collections::HashSet;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::traffic::{Churn, Idle, Streams, mirror};
use crate::support::backend::{listener, pool};
use crate::support::load_support::alone;
use crate::support::{Sessile, eventually, http};

/// How many upgrades follow each other; the environment may say more.
fn upgrades() -> usize {
    std::env::var("SESSILE_TEST_UPGRADES").map_or(4, |count| count.parse().expect("a number"))
}

/// How many idle connections are open meanwhile; the environment may say more.
fn idle_pairs() -> usize {
    std::env::var("SESSILE_TEST_PAIRS").map_or(200, |count| count.parse().expect("a number"))
}

#[test]
fn connections_move_to_the_new_process_and_none_is_refused_or_changed() {
    let _alone = alone();
    let backends = [mirror(), mirror()];
    let addresses = [backends[0].address, backends[1].address];
    let mut sessile = Sessile::start(&(listener("p", "") + &pool("p", "key = [\"source\"]", &addresses)));
    let address = sessile.address("l");
    let mut idle: Vec<_> = (0..idle_pairs()).map(|_| Idle::open(address)).collect();
    let (streams, churn) = (Streams::start(address, 8), Churn::start(address, 2));
    let mut descriptors = Vec::new();
    for round in 1..=upgrades() {
        let (before, served) = (sessile.pid(), churn.served());
        let verdict = sessile.upgrade(None);
        assert_eq!(verdict["accepted"], true, "{verdict}");
        assert!(verdict["pairs"].as_u64() >= Some(idle.len() as u64), "{verdict}");
        eventually("new clients to be served", || (churn.served() > served + 20).then_some(()));
        sessile.gone(before);
        assert_eq!(sessile.address("l"), address, "round {round}");
        descriptors.push(sessile.descriptors());
    }
    let served = churn.stop();
    let (bytes, pauses) = streams.stop();
    let p99 = pauses[pauses.len() * 99 / 100];
    println!(
        "{} upgrades, {} idle pairs, {bytes} bytes, {served} clients; a reader waited {p99:?} (p99), {:?} (most); \
         descriptors {descriptors:?}",
        upgrades(),
        idle.len(),
        pauses.last().unwrap_or(&Duration::ZERO)
    );
    idle.iter_mut().for_each(Idle::lives);
    let connections = sessile.json("/connections?limit=10000");
    assert_eq!(connections["open"].as_u64(), Some(idle.len() as u64));
    let known: HashSet<_> = idle.iter().map(|idle| idle.local().to_string()).collect();
    let listed = connections["connections"].as_array().unwrap();
    let numbers: HashSet<_> = listed.iter().map(|connection| connection["id"].as_u64()).collect();
    assert_eq!(numbers.len(), idle.len(), "no number is given twice");
    for connection in listed {
        assert!(known.contains(connection["client"].as_str().unwrap()), "{connection}");
        assert_eq!((&connection["listener"], &connection["pool"]), (&"l".into(), &"p".into()));
        assert_eq!(connection["bytes_up"].as_u64(), Some(10), "counted over all processes: {connection}");
    }
    assert!(descriptors.iter().all(|count| count.abs_diff(descriptors[0]) < 40), "{descriptors:?}");
    drop(idle);
    eventually("every permit and lease to come back", || {
        let status = sessile.status();
        let leases = |backend: usize| status["pools"][0]["backends"][backend]["leases"].as_u64();
        (status["admission"]["open"] == 0 && leases(0) == Some(0) && leases(1) == Some(0)).then_some(())
    });
}

#[test]
fn a_known_client_keeps_its_backend_over_an_upgrade() {
    let backends = [mirror(), mirror(), mirror()];
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let config = |options: &str, count: usize| listener("p", "") + &pool("p", options, &addresses[..count]);
    let mut sessile = Sessile::start(&config("key = [\"source\"]", 3));
    let address = sessile.address("l");
    let mut idle = Idle::open(address);
    let backend = |sessile: &Sessile| sessile.json("/connections")["connections"][0]["backend"].clone();
    let own = backend(&sessile);
    assert_eq!(sessile.upgrade(None)["accepted"], true);
    idle.lives();
    assert_eq!(backend(&sessile), own);
    drop(idle);
    eventually("the connection to end", || (sessile.json("/connections")["open"] == 0).then_some(()));
    let _again = Idle::open(address);
    let again = sessile.json("/connections")["connections"][0].clone();
    assert_eq!((&again["backend"], &again["reason"]), (&own, &"stick_table".into()), "{again}");
}

#[test]
fn another_number_of_workers_serves_every_queue_and_another_file_what_it_has_no_more() {
    let backends = [mirror(), mirror()];
    let one = pool("p", "", &[backends[0].address]);
    let workers = |count: usize| format!("workers = {count}\n");
    let mut sessile = Sessile::start(&(workers(4) + &listener("p", "") + &one));
    let address = sessile.address("l");
    let mut idle: Vec<_> = (0..20).map(|_| Idle::open(address)).collect();
    for count in [1, 3] {
        // Neither the backend of the open connections nor their pool is in the new file.
        let other = pool("q", "", &[backends[1].address]);
        sessile.rewrite(&(workers(count) + &listener("q", "") + &other));
        let verdict = sessile.upgrade(None);
        assert_eq!(verdict["accepted"], true, "{verdict}");
        idle.iter_mut().for_each(Idle::lives);
        // The kernel spreads new clients over all sockets of the address.
        (0..40).for_each(|_| Idle::open(address).lives());
        assert_eq!(sessile.status()["workers"].as_array().unwrap().len(), count);
        assert_eq!(sessile.status()["listeners"][0]["bind"].as_array().unwrap().len(), 1);
    }
    let connections = sessile.json("/connections");
    assert_eq!((connections["open"].as_u64(), &connections["connections"][0]["pool"]), (Some(20), &"p".into()));
    drop(idle);
    eventually("every permit to come back", || (sessile.status()["admission"]["open"] == 0).then_some(()));
}

#[test]
fn a_listener_that_the_new_file_has_no_more_closes_and_a_new_one_opens() {
    let backend = mirror();
    let named = |name: &str| format!("[[listener]]\nname = \"{name}\"\nbind = \"127.0.0.1:0\"\npool = \"p\"\n");
    let pool = pool("p", "", &[backend.address]);
    let mut sessile = Sessile::start(&(named("stays") + &named("goes") + &pool));
    let (stays, goes) = (sessile.address("stays"), sessile.address("goes"));
    let mut idle = [Idle::open(stays), Idle::open(goes)];
    sessile.rewrite(&(named("comes") + &named("stays") + &pool));
    let before = sessile.pid();
    assert_eq!(sessile.upgrade(None)["accepted"], true);
    idle.iter_mut().for_each(Idle::lives);
    assert_eq!(sessile.address("stays"), stays);
    Idle::open(stays);
    Idle::open(sessile.address("comes"));
    sessile.gone(before);
    assert!(std::net::TcpStream::connect(goes).is_err(), "closed");
}

#[test]
fn a_unix_listener_and_the_admin_interface_go_over() {
    let backend = mirror();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("web.sock");
    let config = format!("[[listener]]\nname = \"l\"\nbind = \"unix:{}\"\npool = \"p\"\n", path.display());
    let mut sessile = Sessile::start(&(config + &pool("p", "balance = \"random\"", &[backend.address])));
    let talk = || {
        use std::io::{Read, Write};
        let mut stream = std::os::unix::net::UnixStream::connect(&path).expect("the socket is there");
        stream.write_all(b"hello").unwrap();
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).unwrap();
        stream
    };
    let _open = talk();
    for _ in 0..2 {
        let before = sessile.pid();
        assert_eq!(sessile.upgrade(None)["accepted"], true);
        sessile.gone(before);
        talk();
        assert_eq!(http::unix_get(&sessile.admin(), "/readyz").map(|(code, _)| code), Some(200));
    }
    let told = sessile.pid();
    kill_process(Pid::from_raw(told as i32).unwrap(), Signal::TERM).unwrap();
    drop(_open);
    sessile.gone(told);
    assert!(!path.exists() && !sessile.admin().exists(), "the last process removes its files");
}

#[test]
fn a_signal_upgrades_to_the_file_from_which_the_process_was_started() {
    let backend = mirror();
    let mut sessile = Sessile::start(&(listener("p", "") + &pool("p", "", &[backend.address])));
    let mut idle = Idle::open(sessile.address("l"));
    let before = sessile.pid();
    sessile.signal(Signal::USR2);
    let follower = eventually("another process", || {
        let said = sessile.said();
        let (_, after) = said.split_once("upgrade: process ")?;
        after.split(' ').next()?.parse().ok()
    });
    sessile.gone(before);
    sessile.is_now(follower);
    idle.lives();
    assert_eq!(sessile.json("/connections")["open"], 1);
}
