//! Downloads over plain HTTP: connections that fetch a file, again and again, as fast as they can.
//!
//! Every byte is compared with the file. Invariant: a connection that ends, an answer that is not 200 and a byte that
//! is wrong are errors, never a smaller figure.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;

use super::Epoll;
use super::pattern::{CHUNK, check};
use super::reply::parse;

/// Connections that fetch.
pub struct Download {
    fetches: Vec<Fetch>,
    epoll: Epoll,
    into: Vec<u8>,
}

/// One connection, and how far it is.
struct Fetch {
    socket: TcpStream,
    request: Vec<u8>,
    head: Vec<u8>,
    /// From the head; nothing before it is there.
    length: Option<u64>,
    at: u64,
    /// Files that came whole.
    whole: usize,
}

impl Download {
    /// Connects and asks.
    pub fn open(target: SocketAddr, path: &str, connections: usize) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let mut fetches = Vec::new();
        for token in 0..connections {
            let fetch = Fetch::begin(target, path)?;
            fetch.socket.set_nonblocking(true)?;
            epoll.add(&fetch.socket, token, EventFlags::IN)?;
            fetches.push(fetch);
        }
        Ok(Self { fetches, epoll, into: vec![0; CHUNK] })
    }

    /// Reads for some time; the bytes of files and the time it took.
    pub fn run(&mut self, time: Duration) -> io::Result<(u64, Duration)> {
        let begin = Instant::now();
        let mut bytes = 0;
        let mut ready = Vec::with_capacity(self.fetches.len());
        while begin.elapsed() < time {
            self.epoll.wait(&mut ready, Duration::from_millis(20))?;
            for event in &ready {
                match self.fetches[event.data.u64() as usize].step(&mut self.into) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    other => bytes += other?,
                }
            }
        }
        Ok((bytes, begin.elapsed()))
    }
}

/// Fetches a file once and compares it; its length.
pub fn fetch(target: SocketAddr, path: &str) -> io::Result<u64> {
    let mut fetch = Fetch::begin(target, path)?;
    let mut into = vec![0; CHUNK];
    let mut length = 0;
    while fetch.whole == 0 {
        length += fetch.step(&mut into)?;
    }
    Ok(length)
}

impl Fetch {
    fn begin(target: SocketAddr, path: &str) -> io::Result<Self> {
        let socket = TcpStream::connect(target)?;
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: www.example.test\r\n\r\n").into_bytes();
        let mut fetch = Self { socket, request, head: Vec::new(), length: None, at: 0, whole: 0 };
        fetch.ask()?;
        Ok(fetch)
    }

    fn ask(&mut self) -> io::Result<()> {
        self.head.clear();
        (self.length, self.at) = (None, 0);
        self.socket.write_all(&self.request)
    }

    /// Reads once; the bytes of the file in that.
    fn step(&mut self, into: &mut [u8]) -> io::Result<u64> {
        let n = self.socket.read(into)?;
        if n == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if self.length.is_some() {
            return self.take(&into[..n]);
        }
        self.head.extend_from_slice(&into[..n]);
        let Some(head) = parse(&self.head)? else { return Ok(0) };
        self.length = head.body_length.map(|length| length as u64).filter(|length| head.status == 200 && *length > 0);
        if self.length.is_none() {
            return Err(io::Error::new(ErrorKind::InvalidData, format!("not the file, but status {}", head.status)));
        }
        let read = std::mem::take(&mut self.head);
        self.take(&read[head.length..])
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<u64> {
        check(self.at, bytes)?;
        self.at += bytes.len() as u64;
        if self.length.is_some_and(|length| self.at > length) {
            return Err(io::Error::new(ErrorKind::InvalidData, "more than the file"));
        }
        if self.length == Some(self.at) {
            self.whole += 1;
            self.ask()?;
        }
        Ok(bytes.len() as u64)
    }
}
