//! `defer_accept`: a client that has sent nothing is the kernel's, and costs no connection here.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::backend::{Backend, listener, pool};
use crate::support::{PATIENCE, Sessile, eventually};

fn config(backend: &Backend, options: &str) -> String {
    format!("workers = 1\n{}{}", listener("p", options), pool("p", "", &[backend.address]))
}

fn connect(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client
}

/// Says a line and hears the backend's answer.
fn talk(mut client: &TcpStream) {
    client.write_all(b"hello\n").unwrap();
    let mut answer = [0; 8];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"b hello\n");
}

fn listener_status(sessile: &Sessile) -> serde_json::Value {
    sessile.status()["listeners"][0].clone()
}

fn accepted(sessile: &Sessile) -> u64 {
    listener_status(sessile)["accepted"].as_u64().unwrap()
}

#[test]
fn a_silent_client_costs_no_connection_and_one_that_talks_is_served() {
    let backend = Backend::named("b");
    let sessile = Sessile::start(&config(&backend, "defer_accept = \"60s\""));
    assert_eq!(listener_status(&sessile)["defer_accept_s"], 60);
    let address = sessile.address("l");
    let silent = connect(address);
    for count in 1..=3 {
        talk(&connect(address));
        assert_eq!(accepted(&sessile), count, "the silent client came first, and is not accepted");
    }
    // It is served as soon as it talks.
    talk(&silent);
    assert_eq!(accepted(&sessile), 4);
}

#[test]
fn a_reload_switches_it_on_and_off_and_loses_no_client() {
    let backend = Backend::named("b");
    let sessile = Sessile::start(&config(&backend, ""));
    let address = sessile.address("l");
    let _silent = connect(address);
    eventually("a silent client to be accepted", || (accepted(&sessile) == 1).then_some(()));
    assert!(listener_status(&sessile)["defer_accept_s"].is_null());
    assert_eq!(sessile.reload(&config(&backend, "defer_accept = \"60s\""))["accepted"], true);
    assert_eq!(listener_status(&sessile)["defer_accept_s"], 60);
    let kept_back = connect(address);
    talk(&connect(address));
    assert_eq!(accepted(&sessile), 2);
    assert_eq!(sessile.reload(&config(&backend, "defer_accept = \"off\""))["accepted"], true);
    assert_eq!(sessile.address("l"), address);
    talk(&kept_back);
    assert_eq!(accepted(&sessile), 3);
    let _silent = connect(address);
    eventually("a silent client to be accepted", || (accepted(&sessile) == 4).then_some(()));
}

/// A backend that speaks first: a client that hears it was accepted, though it has said nothing.
fn greeting() -> Backend {
    Backend::serving(|mut stream| {
        stream.write_all(b"hello\n")?;
        // Until the client has gone.
        stream.read(&mut [0]).map(drop)
    })
}

fn hears_the_greeting(mut client: &TcpStream) {
    let mut greeting = [0; 6];
    client.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"hello\n");
}

#[test]
fn silent_clients_are_served_when_their_socket_closes() {
    let backend = greeting();
    let removed = config(&backend, "").replace("127.0.0.1:0", "127.0.0.2:0");
    for is_stop in [false, true] {
        let mut sessile = Sessile::start(&config(&backend, "defer_accept = \"60s\""));
        let address = sessile.address("l");
        // One has been silent for longer than the kernel waits before it repeats its part of the handshake for the first time.
        let early = connect(address);
        let second = Duration::from_millis(1_200);
        let begun = Instant::now();
        eventually("more than a second", || (begun.elapsed() > second).then_some(()));
        let late = connect(address);
        assert_eq!(accepted(&sessile), 0, "both are left to the kernel");
        if is_stop {
            sessile.signal(Signal::TERM);
        } else {
            assert_eq!(sessile.reload(&removed)["accepted"], true);
        }
        hears_the_greeting(&late);
        hears_the_greeting(&early);
        drop((early, late));
        if is_stop {
            assert!(sessile.wait().success());
        }
    }
}

#[test]
fn a_client_that_speaks_while_its_socket_closes_is_served() {
    let backend = Backend::named("b");
    let sessile = Sessile::start(&config(&backend, "defer_accept = \"60s\""));
    let client = connect(sessile.address("l"));
    let removed = config(&backend, "").replace("127.0.0.1:0", "127.0.0.2:0");
    assert_eq!(sessile.reload(&removed)["accepted"], true);
    talk(&client);
}

#[test]
fn a_listener_without_the_option_closes_as_soon_as_before() {
    let backend = Backend::named("b");
    let mut sessile = Sessile::start(&config(&backend, ""));
    let begun = Instant::now();
    sessile.signal(Signal::TERM);
    assert!(sessile.wait().success());
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}
