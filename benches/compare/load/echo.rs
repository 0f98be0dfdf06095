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
}

impl Echo {
    /// Connects. An answer that takes longer than a few seconds is an error.
    pub fn open(target: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect(target)?;
        socket.set_read_timeout(Some(Duration::from_secs(3)))?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, count: 0 })
    }

    /// One exchange and how long it took.
    pub fn ping(&mut self) -> io::Result<Duration> {
        self.count += 1;
        let mut ping = [0; PING];
        ping[..8].copy_from_slice(&self.count.to_ne_bytes());
        let mut pong = [0; PING];
        let begin = Instant::now();
        self.socket.write_all(&ping)?;
        self.socket.read_exact(&mut pong)?;
        let took = begin.elapsed();
        if ping == pong { Ok(took) } else { Err(io::Error::new(ErrorKind::InvalidData, "not the echo")) }
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
