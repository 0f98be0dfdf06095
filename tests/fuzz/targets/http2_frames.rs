//! Connections of HTTP/2: what a client sends behind its preface, against everything between a socket and its streams.
//!
//! Joined in memory as a connection joins it: the counters of frames, the crate h2 with the same limits, and the heads
//! as those of HTTP/1. Properties: nothing panics; a stream begins once and ends once, at the latest with its
//! connection; the connection ends within a number of steps; what it holds is bounded; frames are counted alike however
//! they were cut, and nothing ends as a flood that is none.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{Request, Response};
use sessile::clock::Micros;
use sessile::http::http2_head::write_head;
use sessile::terminate::{Excess, FrameCounter, ResetCounter};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::cuts;
use crate::engine::Target;

pub const TARGET: Target = Target {
    name: "http2_frames",
    run,
    words: &[
        b"\0\0\0\0\0\0\0\0\x01",
        b"\0\0\x01\0\x01\0\0\0\x01x",
        b"\0\0\x03\0\x09\0\0\0\x01\x01x\0",
        b"\0\0\x05\x01\x05\0\0\0\x01\x82\x86\x84\x41\0",
        b"\0\0\x04\x01\x04\0\0\0\x03\x83\x86\x84\x01",
        b"\0\0\0\x01\0\0\0\0\x05",
        b"\0\0\x05\x02\0\0\0\0\x01\0\0\0\0\x0f",
        b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08",
        b"\0\0\0\x04\0\0\0\0\0",
        b"\0\0\0\x04\x01\0\0\0\0",
        b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0",
        b"\0\x04\x7f\xff\xff\xff",
        b"\0\x01\0\0\0\0",
        b"\0\0\x04\x05\x04\0\0\0\x01\0\0\0\x02",
        b"\0\0\x08\x06\0\0\0\0\0pingpong",
        b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0",
        b"\0\0\x04\x08\0\0\0\0\0\0\0\0\x01",
        b"\0\0\x04\x08\0\0\0\0\x01\x7f\xff\xff\xff",
        b"\0\0\x01\x09\x04\0\0\0\x01\x82",
        b"\0\0\0\x09\0\0\0\0\x01",
        b"\0\0\0\xba\xff\0\0\0\x07",
        b"\x40\x03x-a\x7f\xa1\x1e",
        b"\xbe\xbe\xbe\xbe\xbe\xbe\xbe\xbe",
        b"\0\x09:protocol\x09websocket",
        b"\0\x0econtent-length\x013",
        b"\x3f\xe1\x1f",
        b"\x20",
    ],
    seeds,
    length_max: 40_000,
    mutants: 2_000,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD: usize = 9;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const ACK: u8 = 1;

/// The time at which all frames come.
const NOW: Micros = 1_000_000;

/// The fewest frames that can be a flood: a thousand are allowed at once, and SETTINGS count for ten.
const FLOOD: usize = 100;

/// Resets that are allowed at once.
const RESETS: usize = 1_000;

/// Most bytes that a connection may hold at a time, whatever it is sent.
const HELD_MAX: u64 = 2 << 20;

fn run(input: &[u8]) {
    let bytes = [PREFACE, input].concat();
    let cuts = cuts(&bytes);
    counts(&bytes, &cuts);
    let held = allocation_counter::measure(|| converse(&bytes, &cuts)).bytes_max;
    assert!(held <= HELD_MAX + 8 * bytes.len() as u64, "{held} bytes are held for {}", bytes.len());
}

/// Floods: more than is allowed at once of what is short enough.
fn seeds() -> Vec<Vec<u8>> {
    let settings = b"\0\0\0\x04\0\0\0\0\0";
    let get = |stream: u32| [&b"\0\0\x05\x01\x05"[..], &stream.to_be_bytes(), b"\x82\x86\x84\x41\0"].concat();
    let reset = |stream: u32| [&b"\0\0\x04\x03\0"[..], &stream.to_be_bytes(), b"\0\0\0\x08"].concat();
    let rapid = (0..1_100).flat_map(|at| [get(2 * at + 1), reset(2 * at + 1)].concat());
    let at_once = (0..150).flat_map(|at| get(2 * at + 1));
    vec![
        settings.repeat(1_100),
        [&settings[..], &rapid.collect::<Vec<u8>>()].concat(),
        [&settings[..], &get(1), &reset(1).repeat(1_100)].concat(),
        [&settings[..], &at_once.collect::<Vec<u8>>()].concat(),
    ]
}

/// Counts the frames whole and in pieces.
fn counts(bytes: &[u8], cuts: &[usize]) {
    let (whole, pieces) = (counted([bytes]), counted(pieces(bytes, cuts)));
    assert_eq!(whole, pieces, "cut at {cuts:?}");
    let frames = frames(bytes);
    match whole {
        Err(Excess::Flood) => assert!(frames.len() >= FLOOD, "a flood of {} frames", frames.len()),
        Err(Excess::Resets) => {
            let resets = frames.iter().filter(|(kind, _)| *kind == RST_STREAM).count();
            assert!(resets > RESETS, "{resets} resets are too many");
        }
        result => {
            let begins_well = frames.first().is_none_or(|(kind, flags)| *kind == SETTINGS && flags & ACK == 0);
            assert_eq!(result == Err(Excess::NoSettings), !begins_well, "{:?}", frames.first());
        }
    }
}

/// When the head of a request began that is not complete, or what there was too much of.
fn counted<'b>(pieces: impl IntoIterator<Item = &'b [u8]>) -> Result<Option<Micros>, Excess> {
    let mut counter = FrameCounter::new();
    for piece in pieces {
        counter.read(piece, NOW)?;
    }
    Ok(counter.head_began())
}

fn pieces<'b>(bytes: &'b [u8], cuts: &'b [usize]) -> impl Iterator<Item = &'b [u8]> {
    let begins = [0].into_iter().chain(cuts.iter().copied());
    begins.zip(cuts.iter().copied().chain([bytes.len()])).map(|(begin, end)| &bytes[begin..end])
}

/// Kind and flags of every frame whose head is complete.
fn frames(bytes: &[u8]) -> Vec<(u8, u8)> {
    let (mut frames, mut at) = (Vec::new(), PREFACE.len());
    while let Some(head) = bytes.get(at..at + HEAD) {
        frames.push((head[3], head[4]));
        at += HEAD + u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    }
    frames
}

/// The client's side of a connection.
struct Line {
    /// What it sends, in order reversed.
    pieces: Vec<Vec<u8>>,
    frames: FrameCounter,
    resets: ResetCounter,
    /// Nothing behind it is read.
    excess: Option<Excess>,
}

struct Pipe(Rc<RefCell<Line>>);

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let line = &mut *self.0.borrow_mut();
        if line.excess.is_some() {
            return Poll::Pending;
        }
        let Some(piece) = line.pieces.last_mut() else { return Poll::Ready(Ok(())) };
        let rest = piece.split_off(piece.len().min(into.remaining()));
        let piece = std::mem::replace(piece, rest);
        line.pieces.pop_if(|rest| rest.is_empty());
        if let Err(excess) = line.frames.read(&piece, NOW) {
            line.excess = Some(excess);
            return Poll::Pending;
        }
        into.put_slice(&piece);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let line = &mut *self.0.borrow_mut();
        if let Err(excess) = line.resets.read(from, NOW) {
            line.excess.get_or_insert(excess);
        }
        line.frames.note_written(from.len(), line.resets.take_data_frames());
        Poll::Ready(Ok(from.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// One request and its response.
struct Stream {
    body: RecvStream,
    respond: SendResponse<Bytes>,
    number: u32,
    has_data_ended: bool,
    has_ended: bool,
}

impl Stream {
    /// Begins a response, which may be whole before its request is.
    fn begin(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Self {
        let (parts, body) = request.into_parts();
        let _ = write_head(&parts, body.is_end_stream(), || Some([7; 16]));
        let number = body.stream_id().as_u32();
        match number / 2 % 4 {
            0 => drop(respond.send_response(Response::new(()), true)),
            1 => {
                if let Ok(mut stream) = respond.send_response(Response::new(()), false) {
                    let _ = stream.send_data(Bytes::from_static(b"a body"), true);
                }
            }
            2 => respond.send_reset(Reason::INTERNAL_ERROR),
            _ => {}
        }
        Self { body, respond, number, has_data_ended: false, has_ended: false }
    }

    /// Reads what has come; true: the request has ended, now and for the first time.
    fn step(&mut self, cx: &mut Context<'_>) -> bool {
        while !self.has_data_ended && !self.has_ended {
            match self.body.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) => drop(self.body.flow_control().release_capacity(data.len())),
                Poll::Ready(Some(Err(_))) => self.has_ended = true,
                Poll::Ready(None) => self.has_data_ended = true,
                Poll::Pending => return false,
            }
        }
        if !self.has_ended && self.body.poll_trailers(cx).is_pending() {
            return false;
        }
        self.has_ended = true;
        let _ = self.respond.send_response(Response::new(()), true);
        true
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(16 * 1_024)
        .initial_connection_window_size(1_600 * 1_024)
        .max_header_list_size(64 * 1_024)
        .max_concurrent_streams(100)
        .max_send_buffer_size(16 * 1_024)
        .max_pending_accept_reset_streams(200)
        .max_local_error_reset_streams(None)
        .enable_connect_protocol();
    builder
}

/// Serves the client until the connection has ended, and looks at what has become of its streams.
fn converse(bytes: &[u8], cuts: &[usize]) {
    let mut pieces: Vec<_> = pieces(bytes, cuts).filter(|piece| !piece.is_empty()).map(<[u8]>::to_vec).collect();
    pieces.reverse();
    let (frames, resets) = (FrameCounter::new(), ResetCounter::new());
    let line = Rc::new(RefCell::new(Line { pieces, frames, resets, excess: None }));
    // A step takes a frame, a piece, or the news of an end.
    let most = 100 + 2 * cuts.len() + bytes.len() / HEAD;
    let cx = &mut Context::from_waker(Waker::noop());
    let mut handshake = Box::pin(builder().handshake::<_, Bytes>(Pipe(Rc::clone(&line))));
    let mut steps = 0;
    let connection = loop {
        steps += 1;
        assert!(steps <= most, "no handshake after {steps} steps");
        match handshake.as_mut().poll(cx) {
            Poll::Ready(Ok(connection)) => break connection,
            Poll::Ready(Err(_)) => return,
            // Only bytes behind the preface can be too many.
            Poll::Pending if line.borrow().excess.is_some() => return,
            Poll::Pending => {}
        }
    };
    let mut streams = serve(connection, &line, most, cx);
    // What has not ended with the connection would never end.
    for stream in &mut streams {
        assert!(stream.step(cx), "stream {} goes on without its connection", stream.number);
    }
}

/// Serves streams to the end of the connection; those that have not ended before.
fn serve(
    mut connection: Connection<Pipe, Bytes>,
    line: &RefCell<Line>,
    most: usize,
    cx: &mut Context<'_>,
) -> Vec<Stream> {
    let (mut streams, mut last, mut steps, mut is_cut) = (Vec::<Stream>::new(), 0, 0, false);
    loop {
        steps += 1;
        assert!(steps <= most, "the connection goes on after {steps} steps");
        match connection.poll_accept(cx) {
            Poll::Ready(Some(Ok((request, respond)))) => {
                let stream = Stream::begin(request, respond);
                assert!(stream.number % 2 == 1 && stream.number > last, "{} behind {last}", stream.number);
                last = stream.number;
                streams.push(stream);
                assert!(streams.len() <= 300, "{} streams at once", streams.len());
            }
            Poll::Ready(Some(Err(_)) | None) => return streams,
            Poll::Pending => {
                let excess = line.borrow().excess;
                if let Some(excess) = excess.filter(|_| !std::mem::replace(&mut is_cut, true)) {
                    let calm = excess != Excess::NoSettings;
                    connection.abrupt_shutdown(if calm { Reason::ENHANCE_YOUR_CALM } else { Reason::PROTOCOL_ERROR });
                }
            }
        }
        streams.retain_mut(|stream| !stream.step(cx));
    }
}
