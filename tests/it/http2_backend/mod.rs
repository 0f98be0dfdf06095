//! HTTP/2 with backends (`http = "h2"`): how messages pass, what a stream's end means, and how connections are shared
//! and end.
//!
//! The backends are those of others: the crate `h2`; what it would not send comes frame by frame. Invariant: a test that
//! needs a program is skipped without it.

mod connections;
mod drain;
mod endings;
mod goaway;
mod messages;
mod misbehaviour;
mod moved;
mod peer;
pub mod site;
mod small_frames;
mod tls;
mod web_socket;
mod windows;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::support::backend::{listener, pool};
use crate::support::{PATIENCE, Sessile};

/// Keys of a pool of backends that speak HTTP/2.
const H2: &str = "http = \"h2\"\n";

/// An instance in the clear. `top`: the text in front of all tables.
fn plain(top: &str, options: &str, backends: &[SocketAddr]) -> Sessile {
    Sessile::start(&(top.to_owned() + &listener("p", "") + &pool("p", options, backends)))
}

/// A connection of HTTP/1 that has sent these bytes.
fn http1(sessile: &Sessile, bytes: &str) -> TcpStream {
    let mut stream = TcpStream::connect(sessile.address("l")).expect("the listener accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.write_all(bytes.as_bytes()).expect("the bytes are sent");
    stream
}

/// What comes on a connection of HTTP/1 until its end, for a request that asks for that.
fn http1_answer(sessile: &Sessile, bytes: &str) -> String {
    let mut text = String::new();
    let _ = http1(sessile, bytes).read_to_string(&mut text);
    text
}

/// Reads a connection up to a text, which comes; all that was read.
fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end.as_bytes()) {
        let mut byte = [0];
        let count =
            stream.read(&mut byte).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&bytes)));
        assert!(count > 0, "the end: {}", String::from_utf8_lossy(&bytes));
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).expect("text")
}
