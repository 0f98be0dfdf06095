//! WebSocket echo: an Upgrade, then 64-byte messages there and back, one on its way per connection.
//!
//! As much of RFC 6455 as that takes, for both ends. Invariant: a message counts only if it came back whole and alone.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;

use super::identity::{Exchange, Identity, NAME};
use super::reply::Reply;
use super::secure::Secure;
use super::{Load, Session};
use crate::Result;

/// What asks for the Upgrade, with the key that stands as example in the RFC (§1.3).
const ASKED: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
/// What grants it; then comes the number of the backend.
const GRANTED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nBackend: ";
/// Bytes of a message.
const MESSAGE: usize = 64;
/// Bytes of a masked frame from the client: two of the header, four of the mask, the message.
const MASKED: usize = 6 + MESSAGE;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// A whole binary message.
const BINARY: u8 = 0x82;

/// What a backend says to an Upgrade.
pub fn granted(backend: usize) -> Vec<u8> {
    format!("{GRANTED}{backend}\r\n\r\n").into_bytes()
}

/// Answers the first whole frame of a client, if there is one, and takes it away.
pub fn echo(read: &mut Vec<u8>) -> Result<Option<Vec<u8>>> {
    let Some((frame, _)) = read.split_first_chunk::<MASKED>() else { return Ok(None) };
    if frame[..2] != [BINARY, 0x80 | MESSAGE as u8] {
        return Err("not a frame of ours".into());
    }
    let (mask, masked) = frame[2..].split_at(MASK.len());
    let echo = plain(masked.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    read.drain(..MASKED);
    Ok(Some(echo))
}

/// The frame of a server.
fn plain(message: impl Iterator<Item = u8>) -> Vec<u8> {
    [BINARY, MESSAGE as u8].into_iter().chain(message).collect()
}

/// One connection.
pub struct Frames {
    secure: Secure,
    count: u64,
    /// True once the Upgrade was accepted.
    granted: bool,
    reply: Reply,
    read: Vec<u8>,
}

/// Prepares this many clients.
pub fn load(
    target: SocketAddr,
    clients: usize,
    identity: &Identity,
) -> Result<Load<Frames, impl FnMut() -> io::Result<Frames>>> {
    let config = Rc::new(identity.visitor(Exchange::X25519, rustls::client::Resumption::disabled())?.into());
    Ok(Load::new(clients, move || {
        let mut secure = Secure::open(target, &config)?;
        secure.say(format!("GET /echo HTTP/1.1\r\nHost: {NAME}\r\n{ASKED}").as_bytes())?;
        Ok(Frames { secure, count: 0, granted: false, reply: Reply::default(), read: Vec::new() })
    })?)
}

impl Frames {
    fn message(&self) -> impl Iterator<Item = u8> + use<> {
        self.count.to_be_bytes().into_iter().cycle().take(MESSAGE)
    }

    /// Whether the Upgrade was granted.
    fn is_granted(&mut self, bytes: &[u8]) -> io::Result<bool> {
        self.reply.take(bytes)?;
        match self.reply.head() {
            None => Ok(false),
            Some(head) if head.status == 101 && self.reply.body().is_empty() => Ok(true),
            Some(_) => Err(io::Error::new(ErrorKind::InvalidData, "no Upgrade")),
        }
    }
}

impl Session for Frames {
    fn socket(&self) -> &TcpStream {
        self.secure.socket()
    }

    fn step(&mut self) -> io::Result<()> {
        if self.granted && self.secure.unsent() {
            self.secure.flush()?;
            return Err(ErrorKind::WouldBlock.into()); // the echo makes an event of its own
        }
        let mut bytes = [0; 1024];
        loop {
            let n = self.secure.read(&mut bytes)?;
            if n == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            if !self.granted {
                self.granted = self.is_granted(&bytes[..n])?;
                if self.granted {
                    return Ok(());
                }
                continue;
            }
            self.read.extend_from_slice(&bytes[..n]);
            if self.read.len() >= 2 + MESSAGE {
                let whole = self.read == plain(self.message());
                self.read.clear();
                return if whole { Ok(()) } else { Err(io::Error::new(ErrorKind::InvalidData, "not the echo")) };
            }
        }
    }

    fn again(&mut self) -> bool {
        self.count += 1;
        let mut frame = vec![BINARY, 0x80 | MESSAGE as u8];
        frame.extend(MASK);
        frame.extend(self.message().zip(MASK.into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.secure.say(&frame).is_ok()
    }

    fn unsent(&self) -> bool {
        self.secure.unsent()
    }

    fn backend(&self) -> usize {
        self.reply.head().map_or(0, |head| head.backend)
    }
}
