//! What stands around the client: the process under test, its backend, and a bystander that is served meanwhile.
//!
//! Invariant: one worker serves the client of a case and the bystander, so that one cannot starve the other unnoticed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use rustix::event::{PollFd, PollFlags, poll};
use serde_json::Value;

use super::wire::{Client, WINDOW};
use crate::support::backend::{Backend, pool};
use crate::support::{Sessile, eventually};

/// Length of the body for `/large`: more than all buffers on its way.
pub const LARGE: usize = 16 << 20;

/// Length of the body for `/body`.
pub const BODY: usize = 1_000;

/// Length of the body for `/page`, which fits into the buffer of a stream.
pub const PAGE: usize = 30_000;

/// What the backend has received.
#[derive(Default)]
pub struct Received {
    /// The head of each request.
    pub heads: Mutex<Vec<String>>,
    open: AtomicUsize,
    /// Most connections that were open at the same time.
    pub most_open: AtomicUsize,
}

impl Received {
    /// Number of requests with this text in their head.
    pub fn count(&self, text: &str) -> usize {
        self.heads.lock().unwrap().iter().filter(|head| head.contains(text)).count()
    }
}

/// A process with two listeners of plaintext in front of one pool: `l` for the client, `quiet` for the bystander.
pub struct Site {
    pub sessile: Sessile,
    pub received: Arc<Received>,
    pub address: SocketAddr,
    pub quiet: SocketAddr,
    _backend: Backend,
}

impl Site {
    /// Starts it with these keys of `[limits]`.
    pub fn start(limits: &str) -> Self {
        let received: Arc<Received> = Arc::default();
        let record = Arc::clone(&received);
        let backend = Backend::serving(move |stream| {
            let open = record.open.fetch_add(1, Relaxed) + 1;
            record.most_open.fetch_max(open, Relaxed);
            let served = serve(&stream, &record);
            record.open.fetch_sub(1, Relaxed);
            served
        });
        let listener = |name: &str| format!("[[listener]]\nname = \"{name}\"\nbind = \"127.0.0.1:0\"\npool = \"p\"\n");
        let text = format!(
            "workers = 1\n[log]\nformat = \"json\"\n[limits]\n{limits}\n{}{}",
            listener("l"),
            listener("quiet")
        );
        let sessile = Sessile::start(&(text + &pool("p", "http = true\n", &[backend.address])));
        let (address, quiet) = (sessile.address("l"), sessile.address("quiet"));
        Self { sessile, received, address, quiet, _backend: backend }
    }

    pub fn client(&self) -> Client {
        Client::open(self.address)
    }

    /// Waits until nothing is open: no connection of either listener, no lease of a backend.
    pub fn is_at_rest(&self) {
        eventually("every gauge to be 0", || {
            let status = self.sessile.status();
            let list = |name: &str| status[name].as_array().cloned().unwrap_or_default();
            let open: u64 = list("listeners").iter().filter_map(|listener| listener["open"].as_u64()).sum();
            let backends = list("pools").into_iter().flat_map(|pool| pool["backends"].as_array().cloned());
            let leases: u64 = backends.flatten().filter_map(|backend| backend["leases"].as_u64()).sum();
            let admitted = status["admission"]["open"].as_u64()?;
            let http2: u64 = list("conversations").iter().filter_map(|own| own["http2_connections"].as_u64()).sum();
            (open + leases + admitted + http2 == 0).then_some(())
        });
    }

    /// Lines of the access log for the client's listener, of connections or of requests.
    pub fn lines(&self, kind: &str) -> Vec<Value> {
        let of = |line: &Value| line["listener"] == "l" && line["kind"] == kind;
        self.sessile.lines().into_iter().filter(of).collect()
    }

    /// Connections of the client's listener that have ended so, as the metric counts them.
    pub fn counted(&self, ended: &str) -> u64 {
        let status = self.sessile.status();
        let listener = status["listeners"].as_array().into_iter().flatten().find(|listener| listener["name"] == "l");
        listener.and_then(|listener| listener["ended"][ended].as_u64()).unwrap_or(0)
    }

    /// Waits for so many lines, and returns how each ended.
    pub fn endings(&self, kind: &str, count: usize) -> Vec<String> {
        eventually(&format!("{count} lines of a {kind}"), || {
            let lines = self.lines(kind);
            let word = |line: &Value| line["ended"].as_str().unwrap_or_default().to_owned();
            (lines.len() >= count).then(|| lines.iter().map(word).collect())
        })
    }
}

/// Replies to requests of one connection as their paths say.
fn serve(mut stream: &TcpStream, received: &Received) -> std::io::Result<()> {
    let mut rest = Vec::new();
    loop {
        let Some(head) = read_head(stream, &mut rest)? else { return Ok(()) };
        received.heads.lock().unwrap().push(head.clone());
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        if path == "/stalled" {
            return wait_for_end(stream);
        }
        if path.starts_with("/socket") {
            return serve_socket(stream, &path, &head);
        }
        if !read_body(stream, &head, &mut rest)? {
            return Ok(());
        }
        let has_body = !head.starts_with("HEAD ");
        match path.as_str() {
            "/never" => {
                while stream.read(&mut [0; 1024])? > 0 {}
                return Ok(());
            }
            "/echo" => reply(stream, has_body, head.as_bytes())?,
            "/body" => reply(stream, has_body, &[b'x'; BODY])?,
            "/page" => reply(stream, has_body, &[b'x'; PAGE])?,
            "/large" => {
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n")?;
                for _ in 0..LARGE >> 16 {
                    stream.write_all(&[b'x'; 1 << 16])?;
                }
            }
            _ => reply(stream, has_body, b"fine\n")?,
        }
    }
}

/// Waits until the peer closes, without reading.
fn wait_for_end(stream: &TcpStream) -> std::io::Result<()> {
    let mut ended = [PollFd::new(stream, PollFlags::RDHUP)];
    poll(&mut ended, None)?;
    Ok(())
}

fn reply(mut stream: &TcpStream, has_body: bool, body: &[u8]) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), if has_body { body } else { b"" }].concat())
}

/// Accepts or refuses a WebSocket, and returns every byte of one that is accepted.
fn serve_socket(mut stream: &TcpStream, path: &str, head: &str) -> std::io::Result<()> {
    if path == "/socket-refused" {
        return stream.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let key = field(head, "sec-websocket-key").unwrap_or_default();
    let key = if path == "/socket-wrong" { "wrong" } else { key };
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes());
    let accept = data_encoding::BASE64.encode(hash.as_ref());
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece)? {
            0 => return Ok(()),
            n => stream.write_all(&piece[..n])?,
        }
    }
}

/// Reads a head, without its last line end; `None`: the connection ended before.
fn read_head(mut stream: &TcpStream, rest: &mut Vec<u8>) -> std::io::Result<Option<String>> {
    let mut piece = [0; 16 * 1024];
    loop {
        if let Some(at) = rest.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let head = rest.drain(..at + 4).collect::<Vec<u8>>();
            return Ok(Some(String::from_utf8_lossy(&head[..at + 2]).into_owned()));
        }
        match stream.read(&mut piece)? {
            0 => return Ok(None),
            n => rest.extend_from_slice(&piece[..n]),
        }
    }
}

/// Reads the body of a request to its end; false: the connection ended before. Trailers are part of it.
fn read_body(mut stream: &TcpStream, head: &str, rest: &mut Vec<u8>) -> std::io::Result<bool> {
    let chunked = field(head, "transfer-encoding").is_some();
    let mut length = field(head, "content-length").map_or(0, |length| length.parse().unwrap_or(0));
    let mut piece = [0; 16 * 1024];
    loop {
        if chunked {
            if let Some(end) = end_of_chunks(rest) {
                rest.drain(..end);
                return Ok(true);
            }
        } else {
            let taken = rest.len().min(length);
            rest.drain(..taken);
            length -= taken;
            if length == 0 {
                return Ok(true);
            }
        }
        match stream.read(&mut piece)? {
            0 => return Ok(false),
            n => rest.extend_from_slice(&piece[..n]),
        }
    }
}

/// Where a chunked body ends; `None`: not yet.
fn end_of_chunks(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = bytes.get(at..)?.windows(2).position(|end| end == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[at..at + line]).ok()?, 16).ok()?;
        at += line + 2;
        if size > 0 {
            at += size + 2;
            continue;
        }
        loop {
            let line = bytes.get(at..)?.windows(2).position(|end| end == b"\r\n")?;
            at += line + 2;
            if line == 0 {
                return Some(at);
            }
        }
    }
}

/// Value of the first field of this name.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (known, value) = line.split_once(':')?;
        known.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// Another client, which sends one request after the other on a connection of its own.
pub struct Bystander {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u32, Duration)>,
}

impl Bystander {
    pub fn start(site: &Site) -> Self {
        let (stop, address) = (Arc::new(AtomicBool::new(false)), site.quiet);
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (mut client, mut served, mut longest) = (Client::open(address), 0, Duration::ZERO);
            while !stopped.load(Relaxed) || served == 0 {
                let began = Instant::now();
                let stream = 2 * served + 1;
                client.get(stream, &[]);
                let response = client.response(stream);
                assert_eq!((response.status, response.body.as_slice()), (200, b"fine\n".as_slice()));
                longest = longest.max(began.elapsed());
                served += 1;
                if served % 1_000 == 0 {
                    client.window(0, WINDOW / 2);
                }
                thread::park_timeout(Duration::from_millis(2));
            }
            (served, longest)
        });
        Self { stop, thread }
    }

    /// Number of its responses, all of them good ones, and the longest time of one.
    pub fn stop(self) -> (u32, Duration) {
        self.stop.store(true, Relaxed);
        self.thread.join().expect("a bystander that is served")
    }
}
