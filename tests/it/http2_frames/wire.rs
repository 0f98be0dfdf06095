//! A client of HTTP/2 that writes any frames and reads all.
//!
//! It does nothing by itself: no frame is answered, no window is widened, unless the case does so. Invariant: every
//! frame of the server is checked for what RFC 9113 demands of it, whatever the case is about.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::net::RecvFlags;

use super::hpack::{Decoder, Fields, TABLE_SIZE, block};
use crate::support::PATIENCE;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Kinds of frames.
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// Flags.
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const WITH_PRIORITY: u8 = 0x20;

/// Settings.
pub const HEADER_TABLE_SIZE: u16 = 1;
pub const ENABLE_PUSH: u16 = 2;
pub const MAX_CONCURRENT_STREAMS: u16 = 3;
pub const INITIAL_WINDOW_SIZE: u16 = 4;
pub const MAX_FRAME_SIZE: u16 = 5;
pub const MAX_HEADER_LIST_SIZE: u16 = 6;
pub const ENABLE_CONNECT_PROTOCOL: u16 = 8;

/// Error codes.
pub const NO_ERROR: u32 = 0;
pub const PROTOCOL_ERROR: u32 = 1;
pub const INTERNAL_ERROR: u32 = 2;
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const STREAM_CLOSED: u32 = 5;
pub const FRAME_SIZE_ERROR: u32 = 6;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const COMPRESSION_ERROR: u32 = 9;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// Window of the connection, and of a stream without SETTINGS.
pub const WINDOW: u32 = 65_535;

/// Fields of a request that the backend replies to with 200.
pub const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":authority", "a.test"), (":path", "/")];
pub const POST: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":authority", "a.test"), (":path", "/")];

/// A frame as bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// SETTINGS as bytes.
pub fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let value = |(name, value): &(u16, u32)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
    frame(SETTINGS, 0, 0, values.iter().flat_map(value).collect::<Vec<u8>>())
}

/// Whole HEADERS as bytes.
pub fn headers(stream: u32, fields: &[(&str, &str)], is_end: bool) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | u8::from(is_end), stream, block(fields))
}

/// A request without body for a path of the backend.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    let mut fields = GET;
    fields[3].1 = path;
    headers(stream, &fields, true)
}

/// Head of a request with a body for a path of the backend.
pub fn post(stream: u32, path: &str) -> Vec<u8> {
    let mut fields = POST;
    fields[3].1 = path;
    headers(stream, &fields, false)
}

/// What comes from the server.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Headers {
        stream: u32,
        fields: Fields,
        is_end: bool,
    },
    Data {
        stream: u32,
        bytes: Vec<u8>,
        is_end: bool,
    },
    Reset {
        stream: u32,
        code: u32,
    },
    GoAway {
        last: u32,
        code: u32,
    },
    Settings(Vec<(u16, u32)>),
    SettingsAck,
    Ping([u8; 8]),
    Pong([u8; 8]),
    Window {
        stream: u32,
        by: u32,
    },
    /// The connection has ended, cleanly or by a reset.
    End,
}

impl Event {
    /// Status of a head; `None`: it is no head.
    pub fn status(&self) -> Option<u16> {
        let Self::Headers { fields, .. } = self else { return None };
        let status = fields.iter().find(|(name, _)| name == ":status")?;
        status.1.parse().ok()
    }
}

/// One client connection.
pub struct Client {
    pub stream: TcpStream,
    rest: Vec<u8>,
    decoder: Decoder,
    /// Header block that CONTINUATION goes on with: its stream, its end of stream, its bytes.
    partial: Option<(u32, bool, Vec<u8>)>,
    has_ended: bool,
    /// Code of the last GOAWAY.
    pub goaway: Option<u32>,
    has_settings: bool,
    /// The first SETTINGS of the server.
    pub settings: BTreeMap<u16, u32>,
    /// The highest stream that the case has used, by its own account.
    pub last: u32,
    /// The stream that the case is about.
    pub watched: u32,
}

impl Client {
    /// Connects, and sends nothing.
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the listener accepts");
        stream.set_nodelay(true).expect("no delay");
        stream.set_write_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        Self {
            stream,
            rest: Vec::new(),
            decoder: Decoder::new(TABLE_SIZE),
            partial: None,
            has_ended: false,
            goaway: None,
            has_settings: false,
            settings: BTreeMap::new(),
            last: 0,
            watched: 1,
        }
    }

    /// Connects, and sends preface and SETTINGS with these values; all SETTINGS are confirmed on both sides.
    pub fn open_with(address: SocketAddr, values: &[(u16, u32)]) -> Self {
        let mut client = Self::connect(address);
        client.send([PREFACE, &settings(values)].concat());
        let table = values.iter().find(|(name, _)| *name == HEADER_TABLE_SIZE);
        if let Some((_, size)) = table {
            client.decoder.set_limit(*size as usize);
        }
        let Some(Event::Settings(own)) = client.next(PATIENCE) else { panic!("the server does not begin by SETTINGS") };
        client.settings = own.into_iter().collect();
        client.send(frame(SETTINGS, ACK, 0, []));
        client.until("SETTINGS are confirmed", |event| (*event == Event::SettingsAck).then_some(()));
        client
    }

    pub fn open(address: SocketAddr) -> Self {
        Self::open_with(address, &[])
    }

    /// Sends bytes. A server that has closed already may refuse them.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Sends a frame.
    pub fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) {
        if kind == HEADERS {
            self.last = self.last.max(stream & 0x7fff_ffff);
        }
        self.send(frame(kind, flags, stream, payload));
    }

    /// Sends a block as the whole head of stream 1.
    pub fn block(&mut self, block: impl AsRef<[u8]>) {
        self.frame(HEADERS, END_HEADERS | END_STREAM, 1, block);
    }

    /// Sends a whole head.
    pub fn head(&mut self, stream: u32, fields: &[(&str, &str)], is_end: bool) {
        self.frame(HEADERS, END_HEADERS | u8::from(is_end), stream, block(fields));
    }

    /// Sends the request that is replied to with 200, with further fields behind it.
    pub fn get(&mut self, stream: u32, fields: &[(&str, &str)]) {
        self.head(stream, &[&GET[..], fields].concat(), true);
    }

    /// Sends the request that is replied to with 200, by another path.
    pub fn get_path(&mut self, stream: u32, path: &str) {
        self.last = self.last.max(stream);
        self.send(get(stream, path));
    }

    /// Sends the head of a request with a body.
    pub fn post(&mut self, stream: u32, fields: &[(&str, &str)]) {
        self.head(stream, &[&POST[..], fields].concat(), false);
    }

    /// Sends DATA.
    pub fn data(&mut self, stream: u32, bytes: impl AsRef<[u8]>, is_end: bool) {
        self.frame(DATA, u8::from(is_end), stream, bytes);
    }

    /// Sends RST_STREAM.
    pub fn reset(&mut self, stream: u32, code: u32) {
        self.frame(RST_STREAM, 0, stream, code.to_be_bytes());
    }

    /// Sends WINDOW_UPDATE.
    pub fn window(&mut self, stream: u32, by: u32) {
        self.frame(WINDOW_UPDATE, 0, stream, by.to_be_bytes());
    }

    /// Waits for an event that fits, and skips all others.
    pub fn until<T>(&mut self, what: &str, fits: impl Fn(&Event) -> Option<T>) -> T {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let left = give_up.saturating_duration_since(Instant::now());
            let event = self.next(left).unwrap_or_else(|| panic!("waited in vain: {what}"));
            if let Some(found) = fits(&event) {
                return found;
            }
            assert!(event != Event::End, "the connection ended before: {what}");
        }
    }

    /// Waits for the response of a stream: its status, its last head, and the length of its body.
    pub fn response(&mut self, stream: u32) -> Response {
        let give_up = Instant::now() + PATIENCE;
        let mut response = Response { status: 0, fields: Fields::new(), body: Vec::new() };
        loop {
            let left = give_up.saturating_duration_since(Instant::now());
            let event = self.next(left).unwrap_or_else(|| panic!("no response of stream {stream}: {response:?}"));
            match &event {
                Event::Headers { stream: of, fields, is_end } if *of == stream => {
                    if let Some(status) = event.status() {
                        (response.status, response.fields) = (status, fields.clone());
                    }
                    if *is_end {
                        return response;
                    }
                }
                Event::Data { stream: of, bytes, is_end } if *of == stream => {
                    response.body.extend_from_slice(bytes);
                    if *is_end {
                        return response;
                    }
                }
                Event::Reset { stream: of, code } if *of == stream => {
                    panic!("{stream} is reset by {code} behind {response:?}")
                }
                Event::GoAway { code, .. } if *code != NO_ERROR => panic!("GOAWAY {code} instead of a response"),
                Event::End => panic!("the connection ended instead of a response"),
                _ => {}
            }
        }
    }

    /// Waits for the next event; `None`: there was none in this time.
    pub fn next(&mut self, patience: Duration) -> Option<Event> {
        if self.has_ended {
            return Some(Event::End);
        }
        let give_up = Instant::now() + patience;
        loop {
            if let Some(event) = self.take() {
                return Some(event);
            }
            let left = give_up.saturating_duration_since(Instant::now());
            let mut piece = [0; 16 * 1024];
            match self.read(&mut piece, left) {
                Ok(0) => self.has_ended = true,
                Ok(n) => self.rest.extend_from_slice(&piece[..n]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if left.is_zero() {
                        return None;
                    }
                }
                Err(_) => self.has_ended = true,
            }
            if self.has_ended {
                return Some(Event::End);
            }
        }
    }

    /// Reads what comes within this time.
    fn read(&mut self, piece: &mut [u8], patience: Duration) -> std::io::Result<usize> {
        if patience.is_zero() {
            return Ok(rustix::net::recv(&self.stream, piece, RecvFlags::DONTWAIT)?.0);
        }
        self.stream.set_read_timeout(Some(patience.max(Duration::from_millis(1))))?;
        self.stream.read(piece)
    }

    /// Reads to the end of the connection: the last GOAWAY, and true if the end came in time.
    pub fn end(&mut self, patience: Duration) -> (Option<u32>, bool) {
        let give_up = Instant::now() + patience;
        loop {
            match self.next(give_up.saturating_duration_since(Instant::now())) {
                Some(Event::End) => return (self.goaway, true),
                Some(_) => {}
                None => return (self.goaway, false),
            }
        }
    }

    /// Reads all bytes to the end of the connection, whatever they are.
    pub fn raw_end(&mut self) -> Vec<u8> {
        self.stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut bytes = std::mem::take(&mut self.rest);
        if let Err(error) = self.stream.read_to_end(&mut bytes) {
            let timed_out = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
            assert!(!timed_out, "the connection does not end");
        }
        bytes
    }

    /// Ends the sending side.
    pub fn finish(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Takes the next event from the bytes that are there.
    fn take(&mut self) -> Option<Event> {
        loop {
            let head: [u8; 9] = self.rest.get(..9)?.try_into().expect("nine bytes");
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            assert!(length <= 16_384, "a frame of {length} bytes, which the client has not allowed");
            let payload = self.rest.get(9..9 + length)?.to_vec();
            self.rest.drain(..9 + length);
            let stream = u32::from_be_bytes(head[5..9].try_into().expect("four bytes"));
            assert_eq!(stream >> 31, 0, "the reserved bit is set");
            if let Some(event) = self.event(head[3], head[4], stream, payload) {
                return Some(event);
            }
        }
    }

    /// Reads a frame; `None`: it has no event of its own.
    fn event(&mut self, kind: u8, flags: u8, stream: u32, payload: Vec<u8>) -> Option<Event> {
        assert!(self.has_settings || kind == SETTINGS, "the first frame is of kind {kind}");
        assert!(self.partial.is_none() || kind == CONTINUATION, "kind {kind} in the middle of a head");
        let of_connection = [SETTINGS, PING, GOAWAY].contains(&kind);
        assert!(kind == WINDOW_UPDATE || of_connection == (stream == 0), "kind {kind} on stream {stream}");
        assert!(stream == 0 || stream % 2 == 1, "a stream of the server's own");
        let is_end = flags & END_STREAM != 0;
        let number = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().expect("four bytes"));
        Some(match kind {
            DATA => Event::Data { stream, bytes: unpadded(flags, &payload).to_vec(), is_end },
            HEADERS => {
                let block = unpadded(flags, &payload);
                let block = if flags & WITH_PRIORITY == 0 { block } else { &block[5..] };
                self.partial = Some((stream, is_end, block.to_vec()));
                return self.whole(flags);
            }
            CONTINUATION => {
                let (of, _, block) = self.partial.as_mut().expect("a head that goes on");
                assert_eq!(*of, stream, "CONTINUATION of another stream");
                block.extend_from_slice(&payload);
                return self.whole(flags);
            }
            RST_STREAM => Event::Reset { stream, code: number(0) },
            SETTINGS if flags & ACK != 0 => Event::SettingsAck,
            SETTINGS => {
                self.has_settings = true;
                let value = |at: usize| (u16::from_be_bytes([payload[at], payload[at + 1]]), number(at + 2));
                Event::Settings((0..payload.len()).step_by(6).map(value).collect())
            }
            PING if flags & ACK != 0 => Event::Pong(payload.try_into().expect("eight bytes")),
            PING => Event::Ping(payload.try_into().expect("eight bytes")),
            GOAWAY => {
                self.goaway = Some(number(4));
                Event::GoAway { last: number(0), code: number(4) }
            }
            WINDOW_UPDATE => {
                assert!(number(0) > 0, "WINDOW_UPDATE by nothing");
                Event::Window { stream, by: number(0) }
            }
            kind => panic!("the server sends a frame of kind {kind}"),
        })
    }

    /// The head that has been read so far, if it is whole.
    fn whole(&mut self, flags: u8) -> Option<Event> {
        if flags & END_HEADERS == 0 {
            return None;
        }
        let (stream, is_end, block) = self.partial.take()?;
        let fields = self.decoder.decode(&block).unwrap_or_else(|why| panic!("{why} in the block of a head"));
        let is_lower = |name: &str| !name.bytes().any(|byte| byte.is_ascii_uppercase());
        assert!(fields.iter().all(|(name, _)| is_lower(name)), "a name in upper case: {fields:?}");
        const HOP: [&str; 5] = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];
        assert!(!fields.iter().any(|(name, _)| HOP.contains(&name.as_str())), "of one connection alone: {fields:?}");
        Some(Event::Headers { stream, fields, is_end })
    }
}

/// A response, whole.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub fields: Fields,
    pub body: Vec<u8>,
}

fn unpadded(flags: u8, payload: &[u8]) -> &[u8] {
    if flags & PADDED == 0 {
        return payload;
    }
    &payload[1..payload.len() - usize::from(payload[0])]
}
