//! Bulk: connections that read as fast as they can, or deliberately slowly.
//!
//! The server sends without end once it has received a byte; the client leaves when it has seen enough. Invariant:
//! a connection that ends while it is read is an error, never a smaller figure.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;

use super::Epoll;

/// Bytes read at once.
const CHUNK: usize = 256 * 1024;

/// Connections that read.
pub struct Bulk {
    sockets: Vec<TcpStream>,
    epoll: Epoll,
    into: Vec<u8>,
}

impl Bulk {
    /// Connects and asks for bytes.
    pub fn open(target: SocketAddr, connections: usize) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let mut sockets = Vec::new();
        for token in 0..connections {
            let socket = begin(target)?;
            socket.set_nonblocking(true)?;
            epoll.add(&socket, token, EventFlags::IN)?;
            sockets.push(socket);
        }
        Ok(Self { sockets, epoll, into: vec![0; CHUNK] })
    }

    /// Reads for some time; the bytes and the time it took.
    pub fn run(&mut self, time: Duration) -> io::Result<(u64, Duration)> {
        let begin = Instant::now();
        let mut bytes = 0;
        let mut ready = Vec::with_capacity(self.sockets.len());
        while begin.elapsed() < time {
            self.epoll.wait(&mut ready, Duration::from_millis(20))?;
            for event in &ready {
                match (&self.sockets[event.data.u64() as usize]).read(&mut self.into) {
                    Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                    Ok(n) => bytes += n as u64,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok((bytes, begin.elapsed()))
    }
}

/// Reads 4 KiB fifty times a second until told to stop; the bytes.
pub fn read_slowly(target: SocketAddr, stop: &AtomicBool) -> io::Result<u64> {
    let mut socket = begin(target)?;
    let mut bytes = 0;
    while !stop.load(Relaxed) {
        bytes += socket.read(&mut [0; 4096])? as u64;
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(bytes)
}

fn begin(target: SocketAddr) -> io::Result<TcpStream> {
    let mut socket = TcpStream::connect(target)?;
    socket.write_all(b"!")?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(socket)
}
