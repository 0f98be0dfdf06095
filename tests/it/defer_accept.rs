//! `defer_accept`: a client that has sent nothing is the kernel's, and costs no connection here.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

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
