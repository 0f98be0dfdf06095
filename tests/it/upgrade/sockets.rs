//! Listening sockets that have other options, addresses or listeners in the new file.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::refused::with_few_descriptors;
use super::traffic::{Churn, Idle, mirror};
use crate::support::backend::{Backend, listener, pool};
use crate::support::load_support::Client;
use crate::support::program::{free_address, free_local_address};
use crate::support::{Sessile, eventually, has};
use crate::systemd;

fn upgraded(sessile: &mut Sessile) {
    let before = sessile.pid();
    let verdict = sessile.upgrade(None);
    assert_eq!(verdict["accepted"], true, "{verdict}");
    sessile.gone(before);
}

#[test]
fn a_unix_socket_gets_the_mode_of_the_new_file_and_keeps_its_own_if_the_upgrade_fails() {
    let backend = mirror();
    let config = |mode: &str| {
        let unix =
            format!("[[listener]]\nname = \"l\"\nbind = \"unix:$DIR/u.sock\"\nmode = \"{mode}\"\npool = \"p\"\n");
        unix + &pool("p", "balance = \"random\"", &[backend.address])
    };
    let mut sessile = Sessile::start(&config("0622"));
    let path = sessile.dir.path().join("u.sock");
    let mode = || path.metadata().unwrap().permissions().mode() & 0o777;
    sessile.rewrite(&config("0600"));
    let folder = tempfile::tempdir().unwrap();
    // The new process is ready, and is killed.
    assert_eq!(sessile.upgrade(Some(&with_few_descriptors(folder.path())))["accepted"], false);
    assert_eq!(mode(), 0o622);
    upgraded(&mut sessile);
    assert_eq!(mode(), 0o600);
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(b"x").unwrap();
    client.read_exact(&mut [0]).unwrap();
}

/// A listener with a queue of length 1 that accepts nothing, since its one permit is taken, gets a longer queue.
#[test]
fn a_listener_gets_the_backlog_of_the_new_file() {
    let backend = mirror();
    let config = |backlog: usize| {
        let options = format!("max_connections = 1\nbacklog = {backlog}");
        format!("workers = 1\n{}{}", listener("p", &options), pool("p", "", &[backend.address]))
    };
    let mut sessile = Sessile::start(&config(1));
    let address = sessile.address("l");
    let mut idle = Idle::open(address);
    let waiting = |count: usize| -> Vec<_> {
        let connect = |_| TcpStream::connect_timeout(&address, Duration::from_millis(500));
        (0..count).map_while(|index| connect(index).ok()).collect()
    };
    assert!(waiting(8).len() < 4, "the queue is short");
    sessile.rewrite(&config(64));
    upgraded(&mut sessile);
    eventually("room in the queue", || (waiting(8).len() == 8).then_some(()));
    idle.lives();
    assert_eq!(sessile.reload(&config(1))["accepted"], true);
    assert!(waiting(8).len() < 8, "a reload changes it, too");
}

#[test]
fn an_address_that_becomes_wider_and_narrower_refuses_no_client() {
    let backend = mirror();
    let narrow = free_local_address();
    let wide = SocketAddr::from(([0, 0, 0, 0], narrow.port()));
    let config = |bind: SocketAddr| {
        format!("workers = 2\n[[listener]]\nname = \"l\"\nbind = \"{bind}\"\npool = \"p\"\n")
            + &pool("p", "", &[backend.address])
    };
    let mut sessile = Sessile::start(&config(narrow));
    let churn = Churn::start(narrow, 2);
    let elsewhere = SocketAddr::from(([127, 0, 0, 2], narrow.port()));
    assert!(TcpStream::connect(elsewhere).is_err());
    for bind in [wide, wide, narrow] {
        sessile.rewrite(&config(bind));
        upgraded(&mut sessile);
        assert_eq!(sessile.address("l"), bind);
        let served = churn.served();
        eventually("new clients to be served", || (churn.served() > served + 20).then_some(()));
        if bind == wide {
            Idle::open(elsewhere);
        }
    }
    assert!(TcpStream::connect(elsewhere).is_err(), "the wider one is closed");
    churn.stop();
}

#[test]
fn sockets_of_systemd_outlive_upgrades_in_which_no_listener_has_them() {
    if !has("sockets_of_systemd_outlive_upgrades", "python3") {
        return;
    }
    let backend = Backend::named("b");
    let dir = tempfile::tempdir().unwrap();
    let local = dir.path().join("local.sock");
    let (both, one) = (systemd::listeners(true, &backend), systemd::listeners(false, &backend));
    let mut sessile = systemd::spawn(&both, &local, 0);
    sessile.ready();
    let front = systemd::bound(&sessile, "front");
    assert_eq!(sessile.reload(&one)["accepted"], true);
    upgraded(&mut sessile);
    let before = sessile.descriptors();
    let mut waiting: Vec<_> = front.iter().map(|address| Client::connect(*address)).collect();
    upgraded(&mut sessile);
    sessile.rewrite(&both);
    upgraded(&mut sessile);
    assert_eq!(systemd::bound(&sessile, "front"), front);
    waiting.iter_mut().for_each(|client| assert_eq!(client.ask("at last"), "b at last"));
    drop(waiting);
    assert_eq!(systemd::over(&local).unwrap(), "b x\n");
    // Removed and added again by reloads of a process that systemd has passed nothing.
    assert_eq!(sessile.reload(&one)["accepted"], true);
    let waiting: Vec<_> = front.iter().map(|address| Client::connect(*address)).collect();
    assert_eq!(sessile.reload(&both)["accepted"], true);
    waiting.into_iter().for_each(|mut client| assert_eq!(client.ask("again"), "b again"));
    assert_eq!(sessile.reload(&one)["accepted"], true);
    for _ in 0..3 {
        upgraded(&mut sessile);
    }
    eventually("as few descriptors as before", || (sessile.descriptors() <= before + 2).then_some(()));
    assert!(local.exists(), "the file is the service manager's");
}

/// The process in the middle has led new clients past the one socket of the first, to one of its own; the last one spreads
/// them over its workers.
#[test]
fn an_upgrade_beside_a_process_that_stops_serves_new_clients_on_every_worker() {
    let backend = mirror();
    let address = free_address();
    let config = |workers: usize| {
        format!("workers = {workers}\n[[listener]]\nname = \"l\"\nbind = \"{address}\"\npool = \"p\"\n")
            + &pool("p", "", &[backend.address])
    };
    let mut sessile = Sessile::start(&config(1));
    let mut held = Idle::open(address);
    sessile.signal(rustix::process::Signal::TERM);
    eventually("the first to stop", || sessile.said().contains("the next process can start now").then_some(()));
    sessile.rewrite(&config(3));
    let mut former = sessile.follow();
    sessile.ready();
    assert_eq!(sessile.upgrade(None)["accepted"], true);
    held.lives();
    drop(held);
    assert_eq!(former.wait().code(), Some(0));
    eventually("every worker to serve", || {
        let _open: Vec<_> = (0..20).map(|_| Idle::open(address)).collect();
        let status = sessile.status();
        let workers = status["workers"].as_array().unwrap();
        let serves = |worker: &serde_json::Value| worker["connections"].as_u64() > Some(0);
        workers.iter().all(serves).then_some(())
    });
}
