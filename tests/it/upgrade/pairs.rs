//! What moves to another process: established connections, listeners, what is remembered.

use rustix::process::{Pid, Signal, kill_process};

use super::traffic::{Idle, mirror};
use crate::support::backend::{listener, pool};
use crate::support::{Sessile, eventually, http};

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

/// The kernel's table of descriptors: how many it has room for.
fn room(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
    line.trim().parse().unwrap()
}

#[test]
fn no_process_has_to_grow_its_table_of_descriptors_under_load() {
    let backend = mirror();
    let mut sessile = Sessile::start(&(listener("p", "") + &pool("p", "", &[backend.address])));
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
    for _ in 0..2 {
        assert!(room(sessile.pid()) >= limit.min(1 << 16));
        assert_eq!(sessile.upgrade(None)["accepted"], true);
    }
}
