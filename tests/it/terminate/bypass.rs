//! Bodies that nothing reads: plain HTTP on both sides, by pipes, byte by byte the same as ever.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rustix::net::SendFlags;

use crate::support::backend::{Backend, listener, pool};
use crate::support::{PATIENCE, Sessile, eventually};

/// Bytes of a body; far more than the sockets on the way take.
const BYTES: usize = 64 << 20;

/// The stream repeats these bytes; their number is a prime, so that no shift by a pipe or a buffer goes unseen.
const PERIOD: usize = 1_000_003;

fn period() -> Arc<Vec<u8>> {
    Arc::new((0..PERIOD).map(|at| (at ^ at >> 8 ^ at >> 15) as u8).collect())
}

fn say(mut to: &TcpStream, count: usize, period: &[u8]) -> std::io::Result<()> {
    for at in (0..count).step_by(PERIOD) {
        to.write_all(&period[..PERIOD.min(count - at)])?;
    }
    Ok(())
}

fn hear(mut from: &TcpStream, count: usize, period: &[u8]) {
    let mut bytes = vec![0; PERIOD];
    for at in (0..count).step_by(PERIOD) {
        let count = PERIOD.min(count - at);
        from.read_exact(&mut bytes[..count]).unwrap();
        assert!(bytes[..count] == period[..count], "the bytes after {at} are not those that were sent");
    }
}

/// Reads one head and no byte behind it; empty: the stream has ended.
fn head(mut from: &TcpStream) -> String {
    let (mut bytes, mut byte) = (Vec::new(), [0]);
    while !bytes.ends_with(b"\r\n\r\n") && from.read(&mut byte).is_ok_and(|count| count > 0) {
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).unwrap()
}

/// What a backend does with the requests of one connection, by method and path.
struct Serves {
    period: Arc<Vec<u8>>,
    connections: AtomicUsize,
}

impl Serves {
    fn start() -> (Arc<Self>, Backend) {
        let serves = Arc::new(Self { period: period(), connections: AtomicUsize::new(0) });
        let own = Arc::clone(&serves);
        (serves, Backend::serving(move |stream| own.serve(&stream)))
    }

    fn serve(&self, stream: &TcpStream) -> std::io::Result<()> {
        self.connections.fetch_add(1, Relaxed);
        let (mut writer, period) = (stream, &self.period);
        loop {
            let head = head(stream);
            match head.split(' ').nth(1).unwrap_or_default() {
                "" => return Ok(()),
                "/small" => writer.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nsmall")?,
                "/up" => {
                    hear(stream, BYTES, period);
                    writer.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")?;
                }
                "/down" => {
                    write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n")?;
                    say(stream, BYTES, period)?;
                }
                "/chunk" => {
                    write!(writer, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{BYTES:x}\r\n")?;
                    say(stream, BYTES, period)?;
                    writer.write_all(b"\r\n0\r\n\r\n")?;
                }
                "/half" => {
                    write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n")?;
                    return say(stream, BYTES / 2, period);
                }
                "/urgent" => {
                    write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {BYTES}\r\n\r\n")?;
                    say(stream, BYTES / 2 / PERIOD * PERIOD, period)?;
                    rustix::net::send(stream, b"!", SendFlags::OOB)?;
                    say(stream, BYTES - BYTES / 2 / PERIOD * PERIOD, period)?;
                }
                "/switch" => {
                    let both = "Connection: upgrade\r\nUpgrade: bulk\r\n\r\n";
                    write!(writer, "HTTP/1.1 101 Switching Protocols\r\n{both}")?;
                    hear(stream, BYTES, period);
                    say(stream, BYTES, period)?;
                    stream.shutdown(Shutdown::Write)?;
                    assert_eq!(writer.read(&mut [0])?, 0, "the client ends behind its bytes");
                    return Ok(());
                }
                other => panic!("{other}"),
            }
        }
    }
}

/// A process with one listener and one backend, and a client of it.
fn start(backend: &Backend) -> Sessile {
    Sessile::start(&("workers = 1\n".to_owned() + &listener("p", "") + &pool("p", "http = true", &[backend.address])))
}

fn client(sessile: &Sessile) -> TcpStream {
    let client = TcpStream::connect(sessile.address("l")).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.set_write_timeout(Some(PATIENCE)).unwrap();
    client
}

fn ask(mut client: &TcpStream, request: &str) {
    write!(client, "{request} HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
}

/// Ends of pipes that the process has open.
fn pipe_ends(sessile: &Sessile) -> usize {
    let open = std::fs::read_dir(format!("/proc/{}/fd", sessile.pid())).unwrap();
    let links = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("pipe:")).count()
}

#[test]
fn large_bodies_pass_whole_both_ways_and_both_connections_are_kept() {
    let (serves, backend) = Serves::start();
    let sessile = start(&backend);
    let (client, period) = (client(&sessile), &serves.period);
    let before = pipe_ends(&sessile);
    for _ in 0..2 {
        ask(&client, "GET /down");
        assert!(head(&client).starts_with("HTTP/1.1 200 "));
        hear(&client, BYTES, period);
        let mut writer = &client;
        write!(writer, "PUT /up HTTP/1.1\r\nHost: a\r\nContent-Length: {BYTES}\r\n\r\n").unwrap();
        say(&client, BYTES, period).unwrap();
        // The next request is there before the response to this one.
        ask(&client, "GET /small");
        assert!(head(&client).starts_with("HTTP/1.1 201 "));
        assert!(head(&client).starts_with("HTTP/1.1 200 "));
        let mut small = [0; 5];
        (&client).read_exact(&mut small).unwrap();
        assert_eq!(&small, b"small");
    }
    ask(&client, "GET /chunk");
    assert!(head(&client).contains("\r\nTransfer-Encoding: chunked\r\n"));
    let mut size = format!("{BYTES:x}\r\n").into_bytes();
    (&client).read_exact(&mut size).unwrap();
    hear(&client, BYTES, period);
    let mut end = [0; 7];
    (&client).read_exact(&mut end).unwrap();
    assert_eq!(&end, b"\r\n0\r\n\r\n");
    assert!(pipe_ends(&sessile) > before, "free pipes are kept for a time");
    drop(client);
    let ended = sessile.ended("l", "done");
    assert!(ended["bytes_down"].as_u64() > Some(3 * BYTES as u64), "{ended}");
    assert!(ended["bytes_up"].as_u64() > Some(2 * BYTES as u64), "{ended}");
    assert_eq!(serves.connections.load(Relaxed), 1);
}

#[test]
fn a_reader_that_stops_holds_one_pipe_and_gets_the_rest_when_it_reads_on() {
    let (serves, backend) = Serves::start();
    let sessile = start(&backend);
    let before = pipe_ends(&sessile);
    let slow = client(&sessile);
    ask(&slow, "GET /down");
    assert!(head(&slow).starts_with("HTTP/1.1 200 "));
    eventually("its bytes to wait in a pipe", || (pipe_ends(&sessile) == before + 2).then_some(()));
    let other = client(&sessile);
    ask(&other, "GET /down");
    assert!(head(&other).starts_with("HTTP/1.1 200 "));
    hear(&other, BYTES, &serves.period);
    hear(&slow, BYTES, &serves.period);
    ask(&slow, "GET /small");
    assert!(head(&slow).starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_body_that_its_backend_cuts_never_looks_complete() {
    let (serves, backend) = Serves::start();
    let sessile = start(&backend);
    let client = client(&sessile);
    ask(&client, "GET /half");
    assert!(head(&client).starts_with("HTTP/1.1 200 "));
    // A reset may overtake the last bytes.
    let (mut got, mut piece) = (0, vec![0; 1 << 20]);
    let end = loop {
        match (&client).read(&mut piece) {
            Ok(count @ 1..) => got += count,
            end => break end,
        }
    };
    assert!(end.is_err() && got <= BYTES / 2, "{end:?} after {got} bytes");
    sessile.ended("l", "response_cut");
    drop(serves);
}

#[test]
fn a_client_that_leaves_inside_of_its_upload_is_the_one_at_fault() {
    let (serves, backend) = Serves::start();
    let sessile = start(&backend);
    let mut client = client(&sessile);
    write!(client, "PUT /up HTTP/1.1\r\nHost: a\r\nContent-Length: {BYTES}\r\n\r\n").unwrap();
    say(&client, BYTES / 2, &serves.period).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    sessile.ended("l", "client_left");
}

#[test]
fn an_urgent_byte_is_left_out_and_does_not_stop_a_body() {
    let (serves, backend) = Serves::start();
    let sessile = start(&backend);
    let client = client(&sessile);
    ask(&client, "GET /urgent");
    assert!(head(&client).starts_with("HTTP/1.1 200 "));
    let first = BYTES / 2 / PERIOD * PERIOD;
    hear(&client, first, &serves.period);
    hear(&client, BYTES - first, &serves.period);
    ask(&client, "GET /small");
    assert!(head(&client).starts_with("HTTP/1.1 200 "));
}

#[test]
fn what_was_switched_to_another_protocol_passes_both_ways_with_its_ends() {
    let (serves, backend) = Serves::start();
    let sessile = start(&backend);
    let mut client = client(&sessile);
    write!(client, "GET /switch HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: bulk\r\n\r\n").unwrap();
    assert!(head(&client).starts_with("HTTP/1.1 101 "));
    say(&client, BYTES, &serves.period).unwrap();
    hear(&client, BYTES, &serves.period);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    drop(client);
    sessile.ended("l", "done");
}
