//! Visitors of a site behind a proxy that terminates TLS: they keep the cookie that they are given, and some their ticket.
//!
//! A visitor that comes again does so with the cookie, and if it may resume with the ticket, of its last visit.
//! Invariant: an exchange counts only if its handshake was of the kind that is measured, its answer whole, and the
//! backend the one that the visitor has always had.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::{ClientConfig, HandshakeKind};

use super::http::Manner;
use super::identity::{Exchange, Identity, NAME};
use super::reply::Reply;
use super::secure::Secure;
use super::{Load, Session};
use crate::Result;

/// Tickets that a visitor keeps.
const TICKETS: usize = 4;

/// The visitors of the site.
pub struct Visitors {
    identity: Identity,
    exchange: Exchange,
    /// The identity of strangers: visitors with one visit.
    stranger: Arc<ClientConfig>,
    /// Visitors that may come again, while they are away; empty if all are strangers.
    away: Option<RefCell<Vec<Visitor>>>,
}

/// What a visitor remembers.
struct Visitor {
    config: Arc<ClientConfig>,
    request: Vec<u8>,
    cookie: bool,
    backend: Option<usize>,
}

impl Visitors {
    /// Each comes once: every handshake is full.
    pub fn strangers(identity: &Identity, exchange: Exchange) -> Result<Rc<Self>> {
        let stranger = identity.visitor(exchange, Resumption::disabled())?.into();
        Ok(Rc::new(Self { identity: identity.clone(), exchange, stranger, away: None }))
    }

    /// Known visitors come again and again: every handshake but a visitor's first is resumed.
    pub fn returning(identity: &Identity, exchange: Exchange) -> Result<Rc<Self>> {
        let mut visitors = Self::strangers(identity, exchange)?;
        if let Some(visitors) = Rc::get_mut(&mut visitors) {
            visitors.away = Some(RefCell::default());
        }
        Ok(visitors)
    }

    /// A visitor that verifies everything and visits once.
    pub fn suspicious(identity: &Identity, exchange: Exchange) -> Result<Rc<Self>> {
        let stranger = identity.client(exchange)?;
        Ok(Rc::new(Self { identity: identity.clone(), exchange, stranger, away: None }))
    }

    fn next(&self, manner: Manner) -> Result<Visitor> {
        if let Some(known) = self.away.as_ref().and_then(|away| away.borrow_mut().pop()) {
            return Ok(known);
        }
        let config = match &self.away {
            None => Arc::clone(&self.stranger),
            Some(_) => self.identity.visitor(self.exchange, Resumption::in_memory_sessions(TICKETS))?.into(),
        };
        Ok(Visitor { config, request: request(manner, None), cookie: false, backend: None })
    }
}

/// One connection.
pub struct Https {
    secure: Secure,
    manner: Manner,
    visitors: Rc<Visitors>,
    visitor: Option<Visitor>,
    reply: Reply,
    /// The request was sent; only the answer is awaited.
    settled: bool,
}

/// Prepares this many clients.
pub fn load(
    target: SocketAddr,
    clients: usize,
    manner: Manner,
    visitors: &Rc<Visitors>,
) -> io::Result<Load<Https, impl FnMut() -> io::Result<Https> + use<>>> {
    let visitors = Rc::clone(visitors);
    Load::new(clients, move || Https::open(target, manner, &visitors))
}

impl Https {
    /// Begins to connect.
    pub fn open(target: SocketAddr, manner: Manner, visitors: &Rc<Visitors>) -> io::Result<Self> {
        let visitor = visitors.next(manner).map_err(io::Error::other)?;
        let mut secure = Secure::open(target, &visitor.config)?;
        secure.say(&visitor.request)?;
        let visitors = Rc::clone(visitors);
        Ok(Self { secure, manner, visitors, visitor: Some(visitor), reply: Reply::default(), settled: false })
    }

    /// Makes one exchange while others wait.
    pub fn exchange_blocking(&mut self) -> io::Result<()> {
        self.secure.socket().set_nonblocking(false)?;
        self.step()
    }

    fn keeps(&self) -> bool {
        self.manner == Manner::Kept
    }

    /// Looks whether the exchange was what it should be, and remembers what was given.
    fn complete(&mut self) -> io::Result<()> {
        let (Some(visitor), Some(head)) = (&mut self.visitor, self.reply.head()) else { return Ok(()) };
        let expected = match (&self.visitors.away, visitor.backend) {
            (Some(_), Some(_)) => HandshakeKind::Resumed,
            _ => HandshakeKind::Full,
        };
        if !self.settled && self.secure.handshake() != Some(expected) {
            return Err(wrong(&format!("a handshake that is not {expected:?}: {:?}", self.secure.handshake())));
        }
        if *visitor.backend.get_or_insert(head.backend) != head.backend {
            return Err(wrong("another backend than before"));
        }
        if let Some(cookie) = &head.cookie {
            visitor.request = request(self.manner, Some(cookie));
            visitor.cookie = true;
        } else if !visitor.cookie {
            return Err(wrong("no cookie"));
        }
        self.settled = true;
        Ok(())
    }
}

impl Drop for Https {
    fn drop(&mut self) {
        // A visitor after a bad answer does not come again.
        if let (true, Some(away), Some(visitor)) = (self.settled, &self.visitors.away, self.visitor.take()) {
            away.borrow_mut().push(visitor);
        }
    }
}

impl Session for Https {
    fn socket(&self) -> &TcpStream {
        self.secure.socket()
    }

    fn step(&mut self) -> io::Result<()> {
        if self.settled && self.keeps() && self.secure.unsent() {
            self.secure.flush()?;
            return Err(ErrorKind::WouldBlock.into()); // the answer makes an event of its own
        }
        let mut bytes = [0; 1024];
        loop {
            match self.secure.read(&mut bytes)? {
                0 if !self.keeps() && self.reply.is_complete()? => return self.complete(),
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                n => {
                    self.reply.take(&bytes[..n])?;
                    if self.keeps() && self.reply.is_complete()? {
                        return self.complete();
                    }
                }
            }
        }
    }

    fn again(&mut self) -> bool {
        let Some(visitor) = self.visitor.as_ref().filter(|_| self.manner == Manner::Kept) else { return false };
        self.reply.reset();
        self.secure.say(&visitor.request).is_ok()
    }

    fn unsent(&self) -> bool {
        self.secure.unsent()
    }

    fn backend(&self) -> usize {
        self.reply.head().map_or(0, |head| head.backend)
    }
}

fn request(manner: Manner, cookie: Option<&[u8]>) -> Vec<u8> {
    let (path, close) = match manner {
        Manner::Kept => ("/keep", ""),
        Manner::Once => ("/once", "Connection: close\r\n"),
    };
    let mut request = format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\nUser-Agent: compare\r\n{close}").into_bytes();
    if let Some(cookie) = cookie {
        request.extend([b"Cookie: ", cookie, b"\r\n"].concat());
    }
    request.extend(b"\r\n");
    request
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}
