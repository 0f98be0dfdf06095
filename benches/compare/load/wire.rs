//! A client's TLS connection as h2 wants one: read and written without blocking, with no runtime behind it.
//!
//! What is written is gathered, so that records are as full as those of browsers. Nothing here wakes a task: a poll is
//! repeated after an event of the socket. Invariant: no byte is read from a connection whose handshake was
//! not full or that did not agree on HTTP/2.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::HandshakeKind;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::secure::{Ahead, Secure};

/// The protocol, as ALPN calls it.
pub const HTTP2: &[u8] = b"h2";
/// Bytes that are gathered before they are encrypted.
const GATHERED: usize = 64 * 1024;

/// A connection that has begun.
pub struct Wire {
    secure: Secure,
    ahead: Ahead,
    gathered: Vec<u8>,
    /// The handshake was looked at.
    agreed: bool,
}

impl Wire {
    /// Reads the socket by so many bytes.
    pub fn new(secure: Secure, ahead: usize) -> Self {
        Self { secure, ahead: Ahead::of(ahead), gathered: Vec::new(), agreed: false }
    }

    fn agree(&mut self) -> io::Result<()> {
        let (handshake, protocol) = (self.secure.handshake(), self.secure.protocol().unwrap_or_default());
        if protocol != HTTP2 {
            let protocol = protocol.escape_ascii();
            return Err(io::Error::new(ErrorKind::InvalidData, format!("not HTTP/2 but \"{protocol}\" was chosen")));
        }
        if handshake != Some(HandshakeKind::Full) {
            return Err(io::Error::new(ErrorKind::InvalidData, "a handshake that was not full"));
        }
        self.agreed = true;
        Ok(())
    }

    /// Encrypts and sends what was gathered.
    fn send(&mut self) -> io::Result<()> {
        loop {
            self.secure.flush()?;
            if self.gathered.is_empty() {
                return Ok(());
            }
            match self.secure.take(&self.gathered)? {
                0 => return Err(ErrorKind::WouldBlock.into()),
                n => drop(self.gathered.drain(..n)),
            }
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        let n = ready!(or_pending(wire.secure.read_ahead(&mut wire.ahead, into.initialize_unfilled())))?;
        if !wire.agreed {
            wire.agree()?;
        }
        into.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        if wire.gathered.len() >= GATHERED {
            ready!(or_pending(wire.send()))?;
        }
        let n = bytes.len().min(GATHERED - wire.gathered.len());
        wire.gathered.extend_from_slice(&bytes[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        or_pending(self.get_mut().send())
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        ready!(or_pending(wire.send()))?;
        or_pending(wire.secure.end())
    }
}

fn or_pending<T>(result: io::Result<T>) -> Poll<io::Result<T>> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Poll::Pending,
        other => Poll::Ready(other),
    }
}
