//! A client's connection with TLS on it.
//!
//! Knows no protocol inside. Invariant: an end that was not announced by close_notify is an error.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind};

use super::connect;
use super::identity::NAME;

/// A connection.
pub struct Secure {
    socket: TcpStream,
    session: ClientConnection,
}

impl Secure {
    /// Begins to connect.
    pub fn open(target: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<Self> {
        let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
        let session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        Ok(Self { socket: connect(target, None)?, session })
    }

    /// The socket.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Whether the handshake was full, once there was one.
    pub fn handshake(&self) -> Option<HandshakeKind> {
        self.session.handshake_kind()
    }

    /// The protocol that was agreed on, once there was a handshake.
    pub fn protocol(&self) -> Option<&[u8]> {
        self.session.alpn_protocol()
    }

    /// Whether something waits for `flush`.
    pub fn unsent(&self) -> bool {
        self.session.wants_write()
    }

    /// Takes what is to be sent, now or when the handshake allows it.
    pub fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.session.writer().write_all(bytes)
    }

    /// Takes as much of what is to be sent as there is room for.
    pub fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.session.writer().write(bytes)
    }

    /// Sends what waits.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut self.socket)?;
        }
        Ok(())
    }

    /// Sends what waits, then reads; 0 is a clean end.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            self.flush()?;
            match self.session.reader().read(into) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.session.read_tls(&mut self.socket)?;
                    self.session.process_new_packets().map_err(io::Error::other)?;
                }
                other => return other,
            }
        }
    }

    /// Reads by as much of the socket as there is room for, also while something cannot be sent; 0 is a clean end.
    /// rustls itself would read a quarter of a record at a time.
    pub fn read_ahead(&mut self, ahead: &mut Ahead, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.flush() {
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
            match self.session.reader().read(into) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                other => return other,
            }
            if ahead.place == ahead.end {
                (ahead.place, ahead.end) = (0, self.socket.read(&mut ahead.bytes)?);
            }
            let mut rest = &ahead.bytes[ahead.place..ahead.end];
            self.session.read_tls(&mut rest)?;
            ahead.place = ahead.end - rest.len();
            self.session.process_new_packets().map_err(io::Error::other)?;
        }
    }

    /// Says that nothing more comes, and closes that direction.
    pub fn end(&mut self) -> io::Result<()> {
        self.session.send_close_notify();
        self.flush()?;
        self.socket.shutdown(Shutdown::Write)
    }

    /// Makes the handshake; blocking sockets only.
    pub fn shake_hands(&mut self) -> io::Result<()> {
        while self.session.is_handshaking() {
            self.session.complete_io(&mut self.socket)?;
        }
        self.flush()
    }

    /// Reads once into a large buffer and gives on what was in it; blocking sockets only. rustls itself would read a
    /// quarter of a record at a time.
    pub fn drain(&mut self, wire: &mut [u8], plain: &mut [u8], mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let n = self.socket.read(wire)?;
        let mut rest = &wire[..n];
        while !rest.is_empty() {
            self.session.read_tls(&mut rest)?;
            self.session.process_new_packets().map_err(io::Error::other)?;
            while let Ok(n @ 1..) = self.session.reader().read(plain) {
                take(&plain[..n]);
            }
        }
        if n == 0 { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

/// What was read of a socket and not yet decrypted.
pub struct Ahead {
    bytes: Box<[u8]>,
    place: usize,
    end: usize,
}

impl Ahead {
    /// Room for so many bytes.
    pub fn of(bytes: usize) -> Self {
        Self { bytes: vec![0; bytes].into(), place: 0, end: 0 }
    }
}
