//! Bulk through real sockets: by large pipes while a place is free, by small ones else, byte by byte in both cases.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use crate::support::backend::{Backend, listener, pool};
use crate::support::{PATIENCE, Sessile, eventually};

/// Bytes of a transfer; far more than the sockets on the way take.
const BYTES: usize = 64 << 20;

/// The stream repeats these bytes; their number is a prime, so that no shift by a pipe or a buffer goes unseen.
const PERIOD: usize = 1_000_003;

/// Readers that stop, at most, until one holds the only large pipe.
const STALLED_MAX: usize = 40;

fn period() -> Vec<u8> {
    (0..PERIOD).map(|at| (at ^ at >> 8 ^ at >> 15) as u8).collect()
}

fn say(mut to: &TcpStream, period: &[u8]) -> std::io::Result<()> {
    for at in (0..BYTES).step_by(PERIOD) {
        to.write_all(&period[..PERIOD.min(BYTES - at)])?;
    }
    to.shutdown(Shutdown::Write)
}

/// Hears the whole stream and its end.
fn hear(mut from: &TcpStream, period: &[u8]) {
    let mut bytes = vec![0; PERIOD];
    for at in (0..BYTES).step_by(PERIOD) {
        let count = PERIOD.min(BYTES - at);
        from.read_exact(&mut bytes[..count]).unwrap();
        assert!(bytes[..count] == period[..count], "the bytes after {at} are not those that were sent");
    }
    assert_eq!(from.read(&mut bytes).unwrap(), 0);
}

/// A client asks with one byte: `d` to be sent the stream, `u` to send it and get a word when it was heard.
fn backend(period: &Arc<Vec<u8>>) -> Backend {
    let period = Arc::clone(period);
    Backend::serving(move |mut stream| {
        let mut way = [0];
        stream.read_exact(&mut way)?;
        if way == *b"d" {
            return say(&stream, &period);
        }
        hear(&stream, &period);
        stream.write_all(b"heard")
    })
}

fn ask(sessile: &Sessile, way: &[u8]) -> TcpStream {
    let mut client = TcpStream::connect(sessile.address("l")).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.set_write_timeout(Some(PATIENCE)).unwrap();
    client.write_all(way).unwrap();
    client
}

fn download(sessile: &Sessile, period: &[u8]) {
    hear(&ask(sessile, b"d"), period);
}

fn upload(sessile: &Sessile, period: &[u8]) {
    let mut client = ask(sessile, b"u");
    say(&client, period).unwrap();
    let mut word = String::new();
    client.read_to_string(&mut word).unwrap();
    assert_eq!(word, "heard");
}

fn start(memory: &str, backend: &Backend) -> Sessile {
    let top = format!("workers = 1\nbulk_memory = \"{memory}\"\n");
    Sessile::start(&(top + &listener("p", "") + &pool("p", "", &[backend.address])))
}

fn large(sessile: &Sessile) -> f64 {
    sessile.metric("sessile_worker_pipes_large{worker=\"0\"}")
}

fn denied(sessile: &Sessile) -> f64 {
    sessile.metric("sessile_worker_pipes_denied_total{worker=\"0\"}")
}

#[test]
fn transfers_both_ways_use_large_pipes_and_close_them_when_they_rest() {
    let period = Arc::new(period());
    let backend = backend(&period);
    let sessile = start("64 MiB", &backend);
    for transfer in [download, upload] {
        transfer(&sessile, &period);
        assert!(large(&sessile) >= 1.0, "free large pipes are kept for seconds");
        eventually("the large pipes to be closed", || (large(&sessile) == 0.0).then_some(()));
    }
    assert!(sessile.metric("sessile_worker_spliced_bytes_total{worker=\"0\"}") >= BYTES as f64);
}

#[test]
fn without_memory_for_large_pipes_transfers_use_small_ones() {
    let period = Arc::new(period());
    let backend = backend(&period);
    let sessile = start("0", &backend);
    for transfer in [download, upload] {
        transfer(&sessile, &period);
        assert_eq!(large(&sessile), 0.0);
    }
    assert!(denied(&sessile) > 0.0);
    assert!(sessile.metric("sessile_worker_spliced_bytes_total{worker=\"0\"}") >= BYTES as f64);
}

#[test]
fn a_reader_that_stops_with_the_only_large_pipe_leaves_small_ones_to_others() {
    let period = Arc::new(period());
    let backend = backend(&period);
    let sessile = start("1 MiB", &backend);
    let mut stalled = Vec::new();
    while denied(&sessile) == 0.0 {
        assert!(stalled.len() < STALLED_MAX, "no reader holds the large pipe");
        let mut reader = ask(&sessile, b"d");
        reader.read_exact(&mut vec![0; 8 << 20]).unwrap();
        stalled.push(reader);
        assert!(large(&sessile) <= 1.0);
    }
    for transfer in [download, upload] {
        transfer(&sessile, &period);
        assert!(large(&sessile) <= 1.0);
    }
    drop(stalled);
    eventually("the large pipe to be closed", || (large(&sessile) == 0.0).then_some(()));
    download(&sessile, &period);
    assert_eq!(large(&sessile), 1.0, "its place is free again");
}
