//! [`Frames`]: an HTTP/2 client that sends frame by frame what the test wants, also what no client may send.
//!
//! Heads are written without compression, and of heads that come only the status is read. Invariant: a frame is sent
//! only when the test says so, but for the preface, the first SETTINGS, and the acknowledgement of the server's.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::support::PATIENCE;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Statuses that have a place of their own in the static table, from place 8 on.
const STATUSES: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];

/// One connection in the clear.
pub struct Frames {
    pub stream: TcpStream,
    /// Settings that the server has sent: number and value.
    pub settings: Vec<(u16, u32)>,
}

#[derive(Debug, Clone)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// What comes of one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A response with this status.
    Status(u16),
    /// RST_STREAM with this code.
    Reset(u32),
    /// GOAWAY with this code.
    GoAway(u32),
    /// The connection has ended.
    Closed,
}

impl Frame {
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The code of RST_STREAM, or the last stream of GOAWAY.
    pub fn number(&self) -> u32 {
        number(&self.payload)
    }

    /// The code of GOAWAY.
    pub fn code(&self) -> u32 {
        number(&self.payload[4..])
    }

    /// The status of a head.
    pub fn status(&self) -> u16 {
        let mut block = &self.payload[..];
        // Updates of the table's size.
        while block[0] & 0xe0 == 0x20 {
            block = &block[1..];
        }
        if block[0] & 0x80 != 0 {
            return STATUSES[usize::from(block[0] & 0x7f) - 8];
        }
        assert!([0x48, 0x08, 0x18].contains(&block[0]), "no status: {:02x?}", self.payload);
        let (length, value) = (usize::from(block[1] & 0x7f), &block[2..]);
        let text = if block[1] & 0x80 == 0 { value[..length].to_vec() } else { digits(&value[..length]) };
        String::from_utf8(text).ok().and_then(|text| text.parse().ok()).expect("a status")
    }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().expect("four bytes"))
}

/// Digits in the code of Huffman that HPACK has: `0` to `2` have five bits, the others six.
fn digits(bytes: &[u8]) -> Vec<u8> {
    let bits: String = bytes.iter().map(|byte| format!("{byte:08b}")).collect();
    let (mut rest, mut text) = (&bits[..], Vec::new());
    while rest.len() >= 5 {
        let length = if u8::from_str_radix(&rest[..5], 2).expect("bits") < 3 { 5 } else { 6 };
        if rest.len() < length {
            break;
        }
        let code = u8::from_str_radix(&rest[..length], 2).expect("bits");
        text.push(if length == 5 { b'0' + code } else { b'3' + code - 0x19 });
        rest = &rest[length..];
    }
    text
}

/// Fields as a block of HPACK, each as it is, and none for the table.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            length(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// An integer with a prefix of seven bits.
fn length(block: &mut Vec<u8>, mut length: usize) {
    if length < 127 {
        block.push(length as u8);
        return;
    }
    block.push(127);
    length -= 127;
    while length >= 128 {
        block.push(length as u8 | 0x80);
        length >>= 7;
    }
    block.push(length as u8);
}

/// The head of a good GET.
pub fn get(path: &str) -> Vec<(&str, &str)> {
    vec![(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", path)]
}

impl Frames {
    /// Connects, sends preface and SETTINGS, and takes the server's.
    pub fn open(address: SocketAddr) -> Self {
        Self::open_with(address, &[])
    }

    /// The same, with settings of its own: number and value.
    pub fn open_with(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let stream = TcpStream::connect(address).expect("the listener accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        let mut frames = Self { stream, settings: Vec::new() };
        frames.stream.write_all(PREFACE).expect("the stream takes bytes");
        // No table: what comes can be read without one.
        let all = [&[(1, 0)], settings].concat();
        let payload: Vec<u8> =
            all.iter().flat_map(|(number, value)| [&number.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
        frames.send(SETTINGS, 0, 0, &payload);
        let first = frames.next().expect("SETTINGS");
        assert_eq!((first.kind, first.flags, first.stream), (SETTINGS, 0, 0), "the server's preface");
        for setting in first.payload.chunks(6) {
            frames.settings.push((u16::from_be_bytes([setting[0], setting[1]]), number(&setting[2..])));
        }
        frames.send(SETTINGS, ACK, 0, &[]);
        frames
    }

    /// Sends one frame.
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.try_send(kind, flags, stream, payload).expect("the stream takes bytes");
    }

    pub fn try_send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(&frame(kind, flags, stream, payload))
    }

    /// Sends a head, in one frame.
    pub fn head(&mut self, stream: u32, fields: &[(&str, &str)], end: bool) {
        self.send(HEADERS, END_HEADERS | u8::from(end), stream, &block(fields));
    }

    /// The next frame; `None`: the connection has ended.
    pub fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.fill(&mut head)?;
        let mut payload = vec![0; usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])];
        self.fill(&mut payload)?;
        Some(Frame { kind: head[3], flags: head[4], stream: number(&head[5..]) & 0x7fff_ffff, payload })
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Option<()> {
        match self.stream.read_exact(bytes) {
            Ok(()) => Some(()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("no frame comes, and the connection does not end")
            }
            Err(_) => None,
        }
    }

    /// The next frame that fits; others are dropped. `None`: the connection has ended.
    pub fn until(&mut self, fits: impl Fn(&Frame) -> bool) -> Option<Frame> {
        loop {
            let frame = self.next()?;
            if fits(&frame) {
                return Some(frame);
            }
        }
    }

    /// What comes of a stream: the first head, reset or GOAWAY with a code.
    pub fn outcome(&mut self, stream: u32) -> Outcome {
        loop {
            match self.next() {
                None => return Outcome::Closed,
                Some(frame) if frame.kind == HEADERS && frame.stream == stream => {
                    return Outcome::Status(frame.status());
                }
                Some(frame) if frame.kind == RST_STREAM && frame.stream == stream => {
                    return Outcome::Reset(frame.number());
                }
                Some(frame) if frame.kind == GOAWAY && frame.code() != 0 => return Outcome::GoAway(frame.code()),
                Some(_) => {}
            }
        }
    }

    /// Sends a good GET, and returns what comes of it.
    pub fn asks(&mut self, stream: u32, path: &str) -> Outcome {
        self.head(stream, &get(path), true);
        self.outcome(stream)
    }
}

/// The bytes of one frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a length").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}
