//! One body of HTTP over TLS, in either direction, as fast as it will go.
//!
//! It is announced as longer than anybody waits for; the client leaves when it has seen enough. Blocking on purpose, as
//! there is one connection. Invariant: only bytes that are the right ones count.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustls::client::Resumption;

use super::identity::{Exchange, Identity, NAME};
use super::reply::Reply;
use super::secure::Secure;
use crate::Result;

/// Announced length: a pebibyte.
pub const LENGTH: u64 = 1 << 50;
/// What all bodies consist of.
pub const BYTE: u8 = 0x5a;
/// Bytes read or written at once.
const CHUNK: usize = 256 * 1024;

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the backend.
    Down,
    /// To the backend.
    Up,
}

/// One connection.
pub struct Transfer {
    secure: Secure,
    way: Way,
    wire: Vec<u8>,
    plain: Vec<u8>,
}

impl Transfer {
    /// Connects and asks.
    pub fn open(target: SocketAddr, way: Way, identity: &Identity) -> Result<Self> {
        let config = identity.visitor(Exchange::X25519, Resumption::disabled())?.into();
        let mut secure = Secure::open(target, &config)?;
        secure.socket().set_nonblocking(false)?;
        secure.socket().set_read_timeout(Some(Duration::from_secs(5)))?;
        secure.shake_hands()?;
        let request = match way {
            Way::Down => format!("GET /download HTTP/1.1\r\nHost: {NAME}\r\n\r\n"),
            Way::Up => format!("PUT /upload HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: {LENGTH}\r\n\r\n"),
        };
        secure.say(request.as_bytes())?;
        secure.flush()?;
        let mut transfer = Self { secure, way, wire: vec![0; CHUNK], plain: vec![BYTE; CHUNK / 4] };
        if way == Way::Down {
            transfer.read_head()?;
        }
        Ok(transfer)
    }

    /// The head, and what of the body comes with it.
    fn read_head(&mut self) -> io::Result<()> {
        let mut reply = Reply::default();
        loop {
            let n = self.secure.read(&mut self.plain)?;
            reply.take(&self.plain[..n])?;
            match reply.head() {
                None if n == 0 => return Err(ErrorKind::UnexpectedEof.into()),
                None => {}
                Some(head) if head.status == 200 => return check(reply.body()),
                Some(_) => return Err(io::Error::new(ErrorKind::InvalidData, "not the download")),
            }
        }
    }

    /// Goes on for some time; the bytes of the body and the time it took.
    pub fn run(&mut self, time: Duration) -> io::Result<(u64, Duration)> {
        let begin = Instant::now();
        let mut bytes = 0;
        while begin.elapsed() < time {
            bytes += match self.way {
                Way::Down => self.receive()?,
                Way::Up => self.send()?,
            };
        }
        Ok((bytes, begin.elapsed()))
    }

    fn receive(&mut self) -> io::Result<u64> {
        let (mut bytes, mut right) = (0, Ok(()));
        self.secure.drain(&mut self.wire, &mut self.plain, |part| {
            bytes += part.len() as u64;
            if right.is_ok() {
                right = check(part);
            }
        })?;
        right.map(|()| bytes)
    }

    fn send(&mut self) -> io::Result<u64> {
        self.secure.say(&self.plain)?;
        self.secure.flush()?;
        Ok(self.plain.len() as u64)
    }
}

/// Whether these are bytes of a body.
pub fn check(bytes: &[u8]) -> io::Result<()> {
    match bytes.iter().all(|byte| *byte == BYTE) {
        true => Ok(()),
        false => Err(io::Error::new(ErrorKind::InvalidData, "not the body")),
    }
}
