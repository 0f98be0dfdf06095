//! One connection of a backend, by what it does.
//!
//! Answers are short enough for a socket's buffer; a client that does not take one has broken the agreement and is
//! dropped. Invariant: one turn reads or writes once, so that a fast connection does not starve others.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection};

use super::Service;
use super::site::Site;
use crate::Result;
use crate::load::http::{ONCE, answer};
use crate::load::transfer::BYTE;

/// What bulk connections send.
pub static BULK: [u8; 256 * 1024] = [BYTE; 256 * 1024];

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Something to read.
    Read,
    /// Room to write.
    Write,
    /// Something to read, after room to write was waited for.
    ReadAgain,
    /// The connection has ended.
    Close,
}

/// One connection.
pub struct Conversation {
    socket: TcpStream,
    kind: Kind,
    read: Vec<u8>,
    backend: usize,
}

enum Kind {
    Http,
    Bulk { asked: bool },
    Echo,
    Tls(Box<ServerConnection>),
    Site(Site),
}

impl Conversation {
    /// A connection that was accepted.
    pub fn new(socket: TcpStream, service: Service, backend: usize, tls: Option<Arc<ServerConfig>>) -> Result<Self> {
        let kind = match (service, tls) {
            (Service::Bulk, _) => Kind::Bulk { asked: false },
            (Service::Echo, _) => Kind::Echo,
            (Service::Https | Service::Http2, _) => Kind::Site(Site::default()),
            (Service::Tls, Some(config)) => Kind::Tls(Box::new(ServerConnection::new(config)?)),
            (Service::Http | Service::Tls | Service::Files | Service::Pages, _) => Kind::Http,
        };
        Ok(Self { socket, kind, read: Vec::new(), backend })
    }

    /// The socket, for epoll.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Goes on after an event.
    pub fn turn(&mut self) -> Result<Next> {
        match self.once() {
            Err(error) if would_block(&*error) => Ok(Next::Read),
            other => other,
        }
    }

    fn once(&mut self) -> Result<Next> {
        match &mut self.kind {
            Kind::Http => self.http(),
            Kind::Bulk { asked: false } => {
                let n = self.socket.read(&mut [0; 64])?;
                self.kind = Kind::Bulk { asked: true };
                Ok(if n == 0 { Next::Close } else { Next::Write })
            }
            Kind::Bulk { asked: true } => self.socket.write(&BULK).map(|_| Next::Write).or_else(|error| match error {
                full if full.kind() == ErrorKind::WouldBlock => Ok(Next::Write),
                other => Err(other.into()),
            }),
            Kind::Echo => {
                let mut bytes = [0; 4096];
                let n = self.socket.read(&mut bytes)?;
                self.socket.write_all(&bytes[..n])?;
                Ok(if n == 0 { Next::Close } else { Next::Read })
            }
            Kind::Tls(_) => self.tls(),
            Kind::Site(site) => site.turn(&mut self.socket, self.backend),
        }
    }

    fn http(&mut self) -> Result<Next> {
        let mut bytes = [0; 512];
        let n = self.socket.read(&mut bytes)?;
        self.read.extend_from_slice(&bytes[..n]);
        let Some(request) = take_request(&mut self.read) else {
            return Ok(if n == 0 { Next::Close } else { Next::Read });
        };
        self.socket.write_all(&answer(self.backend))?;
        Ok(if request == ONCE { Next::Close } else { Next::Read })
    }

    fn tls(&mut self) -> Result<Next> {
        let Kind::Tls(session) = &mut self.kind else { return Ok(Next::Close) };
        if session.read_tls(&mut self.socket)? == 0 {
            return Ok(Next::Close);
        }
        session.process_new_packets()?;
        let mut bytes = [0; 512];
        match session.reader().read(&mut bytes) {
            Ok(n) => self.read.extend_from_slice(&bytes[..n]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        let asked = take_request(&mut self.read).is_some();
        if asked {
            session.writer().write_all(&answer(self.backend))?;
            session.send_close_notify();
        }
        while session.wants_write() {
            session.write_tls(&mut self.socket)?;
        }
        Ok(if asked { Next::Close } else { Next::Read })
    }
}

/// The request that has come whole, if one has.
fn take_request(read: &mut Vec<u8>) -> Option<Vec<u8>> {
    read.ends_with(b"\r\n\r\n").then(|| std::mem::take(read))
}

fn would_block(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::WouldBlock)
}
