//! Small HTTP exchanges: a fixed request, a fixed answer; many on one connection, or one on each.
//!
//! No HTTP library: both ends are ours, and what is counted is bytes. Invariant: an exchange is complete only if
//! every byte of the answer came and, where the server closes, its end too.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use super::{Load, Session, connect};

/// A request after which the connection stays.
const KEEP: &[u8] = b"GET /keep HTTP/1.1\r\nHost: www.example.test\r\nUser-Agent: compare\r\n\r\n";
/// A request after which the server closes.
pub const ONCE: &[u8] = b"GET /once HTTP/1.1\r\nHost: www.example.test\r\nConnection: close\r\n\r\n";
/// How the backend begins its answer; then comes its number.
const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 64\r\nBackend: ";

/// The body of an answer.
pub const BODY: &str = "...............................................................\n";
/// What every contestant calls the cookie that sticks a client.
pub const COOKIE: &str = "SRV=";

/// How many exchanges a connection has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// As many exchanges as fit the time.
    Kept,
    /// One.
    Once,
}

/// The answer of a backend.
pub fn answer(backend: usize) -> Vec<u8> {
    format!("{ANSWER}{backend}\r\n\r\n{BODY}").into_bytes()
}

/// What has come of an answer.
#[derive(Debug, Default)]
pub struct Answer {
    received: usize,
    backend: usize,
}

impl Answer {
    /// Takes the next bytes; whether that was all.
    pub fn take(&mut self, bytes: &[u8]) -> io::Result<bool> {
        if self.received == 0 && !bytes.starts_with(ANSWER.as_bytes()) {
            return Err(io::Error::new(ErrorKind::InvalidData, "not the answer"));
        }
        if self.received == 0 {
            self.backend = bytes.get(ANSWER.len()).map_or(0, |digit| usize::from(digit.wrapping_sub(b'0')));
        }
        self.received += bytes.len();
        Ok(self.is_complete())
    }

    /// Whether all of it is there.
    pub fn is_complete(&self) -> bool {
        self.received == ANSWER.len() + 1 + 4 + 64
    }

    /// The number of the backend that answered.
    pub fn backend(&self) -> usize {
        self.backend
    }
}

/// A plain connection.
pub struct Plain {
    socket: TcpStream,
    manner: Manner,
    sent: bool,
    answer: Answer,
}

impl Plain {
    /// Begins to connect.
    pub fn open(target: SocketAddr, source: Option<Ipv4Addr>, manner: Manner) -> io::Result<Self> {
        Ok(Self { socket: connect(target, source)?, manner, sent: false, answer: Answer::default() })
    }

    fn keeps(&self) -> bool {
        self.manner == Manner::Kept
    }
}

/// Prepares this many clients.
pub fn load(
    target: SocketAddr,
    clients: usize,
    manner: Manner,
) -> io::Result<Load<Plain, impl FnMut() -> io::Result<Plain>>> {
    Load::new(clients, move || Plain::open(target, None, manner))
}

/// Prepares clients with one exchange a connection, each connection from the next loopback address.
pub fn load_from_everywhere(
    target: SocketAddr,
    clients: usize,
) -> io::Result<Load<Plain, impl FnMut() -> io::Result<Plain>>> {
    let mut opened = 0u32;
    Load::new(clients, move || {
        opened += 1;
        Plain::open(target, Some(Ipv4Addr::from_bits(0x7f01_0000 + opened)), Manner::Once)
    })
}

impl Session for Plain {
    fn socket(&self) -> &TcpStream {
        &self.socket
    }

    fn step(&mut self) -> io::Result<()> {
        if !self.sent {
            let request = if self.keeps() { KEEP } else { ONCE };
            self.sent = self.socket.write(request)? == request.len();
            return Err(ErrorKind::WouldBlock.into()); // the answer makes an event of its own
        }
        let mut bytes = [0; 512];
        loop {
            match self.socket.read(&mut bytes)? {
                0 if !self.keeps() && self.answer.is_complete() => return Ok(()),
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                n => {
                    if self.answer.take(&bytes[..n])? && self.keeps() {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn again(&mut self) -> bool {
        self.sent = false;
        self.answer.received = 0;
        self.keeps()
    }

    fn unsent(&self) -> bool {
        !self.sent
    }

    fn backend(&self) -> usize {
        self.answer.backend
    }
}
