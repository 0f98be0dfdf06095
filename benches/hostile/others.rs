//! The other clients: requests at a fixed rate, whatever becomes of those before, and how long each takes.
//!
//! Knows nothing of attacks. Invariant: a request counts from the moment at which it was due, and one that fails counts
//! as long as the longest that may be waited for.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::ClientConfig;

use crate::Result;
use crate::stage::{NAME, Stage};
use crate::support::authority::hello;

/// The longest that a request may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Threads that ask.
const CLIENTS: u32 = 8;

/// What the other clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// Requests over kept connections without TLS.
    Kept,
    /// A new connection with a handshake for each request.
    Handshakes,
    /// Health checks of the process itself.
    Health,
}

impl Others {
    /// Requests a second.
    fn rate(self) -> u32 {
        match self {
            Self::Kept => 400,
            Self::Handshakes => 100,
            Self::Health => 100,
        }
    }
}

/// How long requests took.
#[derive(Debug, Default)]
pub struct Latencies {
    times: Vec<Duration>,
    pub failed: usize,
}

impl Latencies {
    /// Adds those of another window.
    pub fn add(&mut self, other: Self) {
        self.times.extend(other.times);
        self.times.sort_unstable();
        self.failed += other.failed;
    }

    /// A percentile.
    pub fn percentile(&self, percent: usize) -> Duration {
        let last = self.times.len().saturating_sub(1);
        self.times.get((self.times.len() * percent / 100).min(last)).copied().unwrap_or(PATIENCE)
    }
}

/// Asks for as long as told.
pub fn ask(stage: &Stage, others: Others, window: Duration) -> Result<Latencies> {
    let address = match others {
        Others::Kept => stage.address("plain"),
        Others::Handshakes => stage.address("tls"),
        Others::Health => stage.admin,
    };
    let pause = Duration::from_secs(1) * CLIENTS / others.rate();
    let begin = Instant::now();
    let threads: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (client, first) = (Arc::clone(&stage.client), begin + pause * number / CLIENTS);
            thread::spawn(move || one(others, address, &client, first, pause, begin + window))
        })
        .collect();
    let mut all = Latencies::default();
    for thread in threads {
        all.add(thread.join().map_err(|_| "a client panicked")?);
    }
    Ok(all)
}

fn one(
    others: Others,
    address: SocketAddr,
    tls: &Arc<ClientConfig>,
    first: Instant,
    pause: Duration,
    end: Instant,
) -> Latencies {
    let (mut latencies, mut due, mut kept) = (Latencies::default(), first, None);
    while due < end {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let done = match others {
            Others::Kept => keep(&mut kept, address),
            Others::Handshakes => shake(address, tls),
            Others::Health => connect(address).and_then(|mut stream| request(&mut stream, "/healthz")),
        };
        let failed = done.is_err();
        latencies.failed += usize::from(failed);
        latencies.times.push(if failed { PATIENCE } else { due.elapsed() });
        due += pause;
        // What is late is asked at once, and what was due in the window and cannot be asked any more has waited so long.
        while Instant::now() > end && due < end {
            latencies.times.push(due.elapsed());
            due += pause;
        }
    }
    latencies
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn keep(kept: &mut Option<TcpStream>, address: SocketAddr) -> io::Result<()> {
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => connect(address)?,
    };
    request(&mut stream, "/")?;
    *kept = Some(stream);
    Ok(())
}

fn shake(address: SocketAddr, tls: &Arc<ClientConfig>) -> io::Result<()> {
    let mut stream = connect(address)?;
    let (mut session, first) = hello(tls, NAME);
    stream.write_all(&first)?;
    request(&mut rustls::Stream::new(&mut session, &mut stream), "/")
}

/// One request and its response with a length.
fn request(stream: &mut (impl Read + Write), path: &str) -> io::Result<()> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())?;
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4_096]);
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut headers);
        if let Ok(httparse::Status::Complete(head)) = response.parse(&bytes) {
            let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
            let length = length.and_then(|length| std::str::from_utf8(length.value).ok()?.parse::<usize>().ok());
            let whole = length.is_some_and(|length| bytes.len() >= head + length);
            match response.code {
                Some(200) if whole => return Ok(()),
                Some(200) => {}
                other => return Err(io::Error::other(format!("{other:?}"))),
            }
        }
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => bytes.extend_from_slice(&buffer[..read]),
        }
    }
}
