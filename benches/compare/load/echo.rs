//! Ping-pong: 64 bytes there, the same 64 bytes back, one at a time.
//!
//! Blocking on purpose: nothing but the two wake-ups stands between the pings. Invariant: what comes back is what was
//! sent.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Bytes of a ping.
const PING: usize = 64;

/// One connection to an echo.
pub struct Echo {
    socket: TcpStream,
    count: u64,
    /// Of the answer that is awaited.
    heard: usize,
    pong: [u8; PING],
}

impl Echo {
    /// Connects. An answer that takes longer than a few seconds is an error.
    pub fn open(target: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect(target)?;
        socket.set_read_timeout(Some(Duration::from_secs(3)))?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, count: 0, heard: 0, pong: [0; PING] })
    }

    /// The socket.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Sends the next ping.
    pub fn say(&mut self) -> io::Result<()> {
        self.count += 1;
        self.heard = 0;
        self.socket.write_all(&ping(self.count))
    }

    /// Reads until the answer is whole; `WouldBlock` before that, where the socket does not block.
    pub fn hear(&mut self) -> io::Result<()> {
        while self.heard < PING {
            match self.socket.read(&mut self.pong[self.heard..])? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                n => self.heard += n,
            }
        }
        match self.pong == ping(self.count) {
            true => Ok(()),
            false => Err(io::Error::new(ErrorKind::InvalidData, "not the echo")),
        }
    }

    /// One exchange and how long it took.
    pub fn ping(&mut self) -> io::Result<Duration> {
        let begin = Instant::now();
        self.say()?;
        self.hear()?;
        Ok(begin.elapsed())
    }

    /// Exchanges for some time; how long each took.
    pub fn run(&mut self, time: Duration) -> io::Result<Vec<Duration>> {
        let begin = Instant::now();
        let mut took = Vec::new();
        while begin.elapsed() < time {
            took.push(self.ping()?);
        }
        Ok(took)
    }
}

/// No two pings of a connection are alike.
fn ping(count: u64) -> [u8; PING] {
    let mut ping = [0; PING];
    ping[..8].copy_from_slice(&count.to_ne_bytes());
    ping
}
