//! Uploads over plain HTTP: connections that send files one after the other, as fast as they are taken.
//!
//! Each connection has a file of its own and replaces it with every upload. Invariant: an upload that is not granted
//! is an error, and the last of each connection is fetched again and compared byte by byte before a figure counts.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::epoll::EventFlags;

use super::Epoll;
use super::download::fetch;
use super::pattern::from;
use super::reply::parse;

/// How long uploads may take that are on their way when the measurement has ended.
const PATIENCE: Duration = Duration::from_secs(20);

/// Connections that send.
pub struct Upload {
    target: SocketAddr,
    puts: Vec<Put>,
    epoll: Epoll,
    length: u64,
}

/// One connection, and how far it is.
struct Put {
    socket: TcpStream,
    path: String,
    head: Vec<u8>,
    /// Bytes of head and file that were sent.
    sent: u64,
    answer: Vec<u8>,
}

/// What one step did.
enum Step {
    /// Sent so many bytes of the file, not all.
    Sent(u64),
    /// Sent the last bytes of the file.
    SentLast(u64),
    /// Read a part of the answer.
    Reading,
    /// The file was taken.
    Granted,
}

impl Upload {
    /// Connects; every connection sends files of this length.
    pub fn open(target: SocketAddr, connections: usize, length: u64) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let mut puts = Vec::new();
        for token in 0..connections {
            let path = format!("/upload-{token}");
            let head = format!("PUT {path} HTTP/1.1\r\nHost: www.example.test\r\nContent-Length: {length}\r\n\r\n");
            let socket = TcpStream::connect(target)?;
            socket.set_nonblocking(true)?;
            epoll.add(&socket, token, EventFlags::OUT)?;
            puts.push(Put { socket, path, head: head.into_bytes(), sent: 0, answer: Vec::new() });
        }
        Ok(Self { target, puts, epoll, length })
    }

    /// Sends for some time; the bytes of files and the time it took.
    pub fn run(&mut self, time: Duration) -> io::Result<(u64, Duration)> {
        let begin = Instant::now();
        let mut bytes = 0;
        self.drive(time, true, |step| {
            if let Step::Sent(n) | Step::SentLast(n) = step {
                bytes += n;
            }
            false
        })?;
        Ok((bytes, begin.elapsed()))
    }

    /// Ends what is on its way, fetches what was sent and compares it.
    pub fn finish(mut self) -> io::Result<()> {
        let mut left = self.puts.len();
        self.drive(PATIENCE, false, |step| {
            left -= usize::from(matches!(step, Step::Granted));
            left == 0
        })?;
        if left > 0 {
            return Err(io::Error::new(ErrorKind::TimedOut, "an upload without an answer"));
        }
        for put in &self.puts {
            let length = fetch(self.target, &put.path)?;
            if length != self.length {
                return Err(io::Error::new(ErrorKind::InvalidData, format!("{length} bytes of an upload are there")));
            }
        }
        Ok(())
    }

    /// Goes on until the time is over or a step was the last; after an answer the next file follows, if `more`.
    fn drive(&mut self, time: Duration, more: bool, mut is_last: impl FnMut(&Step) -> bool) -> io::Result<()> {
        let begin = Instant::now();
        let mut ready = Vec::with_capacity(self.puts.len());
        while begin.elapsed() < time {
            self.epoll.wait(&mut ready, Duration::from_millis(20))?;
            for event in &ready {
                let token = event.data.u64() as usize;
                let put = &mut self.puts[token];
                let step = match put.step(self.length) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    other => other?,
                };
                match step {
                    Step::SentLast(_) => self.epoll.change(&put.socket, token, EventFlags::IN)?,
                    Step::Granted if more => self.epoll.change(&put.socket, token, EventFlags::OUT)?,
                    _ => {}
                }
                if is_last(&step) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

impl Put {
    /// Writes or reads once.
    fn step(&mut self, length: u64) -> io::Result<Step> {
        let head = self.head.len() as u64;
        if self.sent < head {
            self.sent += self.socket.write(&self.head[self.sent as usize..])? as u64;
            return Ok(Step::Sent(0));
        }
        let place = self.sent - head;
        if place < length {
            let n = self.socket.write(from(place, length - place))? as u64;
            self.sent += n;
            return Ok(if place + n < length { Step::Sent(n) } else { Step::SentLast(n) });
        }
        let mut bytes = [0; 1024];
        let n = self.socket.read(&mut bytes)?;
        if n == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.answer.extend_from_slice(&bytes[..n]);
        match parse(&self.answer)? {
            None => Ok(Step::Reading),
            Some(head) if matches!(head.status, 201 | 204) && self.answer.len() == head.length => {
                self.answer.clear();
                self.sent = 0;
                Ok(Step::Granted)
            }
            Some(head) => {
                let what = format!("an upload was not granted: status {}", head.status);
                Err(io::Error::new(ErrorKind::InvalidData, what))
            }
        }
    }
}
