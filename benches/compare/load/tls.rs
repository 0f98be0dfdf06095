//! TLS through to the backend: clients that make one full handshake and one request per connection.
//!
//! TLS 1.3 with X25519 alone and no resumption, so that every connection costs the same and the hello is small.
//! Invariant: an exchange is complete only with the whole answer and the server's close_notify.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};

use super::http::{Answer, ONCE};
use super::identity::{Exchange, Identity};
use super::secure::Secure;
use super::{Load, Session};
use crate::Result;

/// One connection.
pub struct Tls {
    secure: Secure,
    answer: Answer,
}

/// Prepares this many clients, each with one exchange a connection.
pub fn load(
    target: SocketAddr,
    clients: usize,
    identity: &Identity,
) -> Result<Load<Tls, impl FnMut() -> io::Result<Tls>>> {
    let config = identity.client(Exchange::X25519)?;
    let open = move || {
        let mut secure = Secure::open(target, &config)?;
        secure.say(ONCE)?;
        Ok(Tls { secure, answer: Answer::default() })
    };
    Ok(Load::new(clients, open)?)
}

impl Session for Tls {
    fn socket(&self) -> &TcpStream {
        self.secure.socket()
    }

    fn step(&mut self) -> io::Result<()> {
        let mut bytes = [0; 512];
        loop {
            match self.secure.read(&mut bytes)? {
                0 if self.answer.is_complete() => return Ok(()),
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                n => {
                    self.answer.take(&bytes[..n])?;
                }
            }
        }
    }

    fn again(&mut self) -> bool {
        false
    }

    fn unsent(&self) -> bool {
        self.secure.unsent()
    }

    fn backend(&self) -> usize {
        self.answer.backend()
    }
}
