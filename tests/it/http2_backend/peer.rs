//! [`Peer`]: one connection of a backend that speaks HTTP/2 frame by frame, so that a test says when each frame leaves.
//!
//! Reads no field of a request: streams are told apart by their numbers. Invariant: what it has to answer at once,
//! SETTINGS and PING, is answered whenever it reads.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::http2_frames::wire::{
    ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, REFUSED_STREAM, RST_STREAM, SETTINGS, frame,
};
use crate::support::backend::Backend;

/// The head of a response with status 200, from the static table of HPACK.
const OK: [u8; 1] = [0x88];

/// One connection of a backend.
pub struct Peer {
    stream: TcpStream,
}

impl Peer {
    /// Reads the preface of a connection, and begins it.
    pub fn begin(mut stream: TcpStream) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.read_exact(&mut [0; 24])?;
        stream.write_all(&frame(SETTINGS, 0, 0, []))?;
        Ok(Self { stream })
    }

    /// The next frame: kind, flags, stream, payload.
    fn frame(&mut self) -> Result<(u8, u8, u32, Vec<u8>)> {
        loop {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head)?;
            let [high, middle, low, kind, flags, stream @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
            self.stream.read_exact(&mut payload)?;
            match kind {
                SETTINGS if flags & ACK == 0 => self.stream.write_all(&frame(SETTINGS, ACK, 0, []))?,
                PING if flags & ACK == 0 => self.stream.write_all(&frame(PING, ACK, 0, payload))?,
                _ => return Ok((kind, flags, u32::from_be_bytes(stream), payload)),
            }
        }
    }

    /// Waits for the head of a request; its stream.
    pub fn request(&mut self) -> Result<u32> {
        loop {
            let (kind, _, stream, _) = self.frame()?;
            if kind == HEADERS {
                return Ok(stream);
            }
        }
    }

    /// Waits for bytes of the body of this stream.
    pub fn data(&mut self, of: u32) -> Result<Vec<u8>> {
        loop {
            let (kind, _, stream, payload) = self.frame()?;
            if kind == DATA && stream == of {
                return Ok(payload);
            }
        }
    }

    /// Waits for the end of a request; its stream and the length of its body.
    pub fn whole(&mut self, bodies: &mut BTreeMap<u32, usize>) -> Result<(u32, usize)> {
        loop {
            let (kind, flags, stream, payload) = self.frame()?;
            if kind == DATA {
                *bodies.entry(stream).or_default() += payload.len();
            }
            if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
                return Ok((stream, bodies.remove(&stream).unwrap_or(0)));
            }
        }
    }

    /// Answers a request with a text.
    pub fn answer(&mut self, stream: u32, text: &str) -> Result<()> {
        let (head, body) = (frame(HEADERS, END_HEADERS, stream, OK), frame(DATA, END_STREAM, stream, text));
        self.stream.write_all(&[head, body].concat())
    }

    /// Refuses a request: it was not looked at.
    pub fn refuse(&mut self, stream: u32) -> Result<()> {
        self.stream.write_all(&frame(RST_STREAM, 0, stream, REFUSED_STREAM.to_be_bytes()))
    }

    /// Announces the end: streams above this one were not begun.
    pub fn goaway(&mut self, last: u32, code: u32) -> Result<()> {
        self.stream.write_all(&frame(GOAWAY, 0, 0, [last.to_be_bytes(), code.to_be_bytes()].concat()))
    }

    /// Waits until the other side has read all that was sent.
    pub fn is_read(&mut self) -> Result<()> {
        self.stream.write_all(&frame(PING, 0, 0, [7; 8]))?;
        loop {
            let (kind, ..) = self.frame()?;
            if kind == PING {
                return Ok(());
            }
        }
    }

    /// Reads until the other side has ended the connection.
    pub fn rest(&mut self) -> Result<()> {
        match std::io::copy(&mut self.stream, &mut std::io::sink()) {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
            end => end.map(drop),
        }
    }
}

/// A backend whose first connection goes as told. Later ones answer each request, once it is whole, with their number and
/// the length of its body.
pub fn first_goes(first: impl Fn(&mut Peer) -> Result<()> + Send + Sync + 'static) -> Backend {
    let connections = AtomicUsize::new(0);
    Backend::serving(move |stream| {
        let mut peer = Peer::begin(stream)?;
        let number = connections.fetch_add(1, Relaxed) + 1;
        if number == 1 {
            return first(&mut peer);
        }
        let mut bodies = BTreeMap::new();
        loop {
            let (stream, length) = peer.whole(&mut bodies)?;
            peer.answer(stream, &format!("{number} {length}"))?;
        }
    })
}

/// What a script returns that was not let go on.
pub fn not_let_on() -> Error {
    ErrorKind::TimedOut.into()
}
