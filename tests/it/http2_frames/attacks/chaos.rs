//! Frames in any order, some of them damaged, from seeds: nothing panics, nothing is left, a bystander is served.

use std::fmt::Write;
use std::time::Duration;

use super::beside;
use crate::http2_frames::hpack::{block, indexed, indexing, table_size};
use crate::http2_frames::site::Site;
use crate::http2_frames::wire::*;
use crate::support::eventually;
use crate::support::rng::Rng;

/// Connections, each of its own seed.
const SEEDS: u64 = 300;

/// Frames of one connection.
const FRAMES: usize = 60;

/// Most of the process's memory that all of this may take: one connection is open at a time, and its streams end.
const GROWTH_KIB: usize = 8 * 1_024;

fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.below(from.len())]
}

/// What a client knows of its own connection.
struct Session {
    rng: Rng,
    /// The last stream that was used.
    last: u32,
    /// Streams whose request has not ended.
    open: Vec<u32>,
}

impl Session {
    fn next_stream(&mut self) -> u32 {
        self.last += 2;
        self.last
    }

    /// One of the last few streams.
    fn used(&mut self) -> u32 {
        self.last - 2 * (self.rng.below(5) as u32).min(self.last / 2)
    }

    /// What a client may send.
    fn legal(&mut self) -> Vec<u8> {
        let path = pick(&mut self.rng, &["/", "/body", "/never", "/echo", "/page", "/large", "/stalled", "/socket"]);
        match self.rng.below(14) {
            0..=2 => get(self.next_stream(), path),
            3 => {
                let stream = self.next_stream();
                self.open.push(stream);
                post(stream, path)
            }
            4 => {
                let (stream, block) =
                    (self.next_stream(), [block(&GET), indexing("x-kept", path), indexed(62)].concat());
                let cut = self.rng.below(block.len());
                let rest = frame(CONTINUATION, END_HEADERS, stream, &block[cut..]);
                [frame(HEADERS, END_STREAM, stream, &block[..cut]), rest].concat()
            }
            5 => {
                let window = pick(&mut self.rng, &[0, 1, 100, 16_384, WINDOW]);
                settings(&[(INITIAL_WINDOW_SIZE, window), (HEADER_TABLE_SIZE, window), (0xf0, 1)])
            }
            6 => frame(PING, 0, 0, self.rng.next().to_be_bytes()),
            7 => {
                let stream = self.used();
                self.open.retain(|open| *open != stream);
                frame(RST_STREAM, 0, stream, (self.rng.below(20) as u32).to_be_bytes())
            }
            8 => frame(WINDOW_UPDATE, 0, pick(&mut self.rng, &[0, 1]) * self.used(), 1_000_u32.to_be_bytes()),
            9 => frame(PRIORITY, 0, self.used(), [0, 0, 0, 0, 1]),
            10 => frame(0xba, 0xff, self.used(), vec![0; self.rng.below(40)]),
            _ if self.open.is_empty() => Vec::new(),
            kind => {
                let at = self.rng.below(self.open.len());
                let (stream, is_end) = (self.open[at], self.rng.below(4) == 0);
                if is_end {
                    self.open.remove(at);
                }
                match kind {
                    11 if is_end => headers(stream, &[("x-trailer", "1")], true),
                    _ => frame(DATA, u8::from(is_end), stream, vec![7; self.rng.below(2_000)]),
                }
            }
        }
    }

    /// What it may not send, or may send on other streams.
    fn illegal(&mut self) -> Vec<u8> {
        let (stream, rng) = (self.used(), &mut self.rng);
        match rng.below(9) {
            0 => settings(&[(rng.below(10) as u16, pick(rng, &[0, 1, 1 << 31, u32::MAX]))]),
            1 => frame(HEADERS, pick(rng, &[0, 4, 5]), self.last + 2, [table_size(0), indexed(62)].concat()),
            2 => frame(DATA, pick(rng, &[0, 1, 8, 9]), stream, vec![7; rng.below(2_000)]),
            3 => frame(WINDOW_UPDATE, 0, stream, pick(rng, &[0, 0x7fff_ffff_u32]).to_be_bytes()),
            4 => headers(stream, &[("x-trailer", "1")], rng.below(2) == 0),
            5 => frame(PRIORITY, 0, stream, stream.to_be_bytes()),
            6 => headers(self.last + 2, &[&GET[..], &[("te", "gzip")]].concat(), true),
            7 => frame(rng.next() as u8, rng.next() as u8, stream, vec![0; rng.below(40)]),
            _ => {
                let mut bytes = get(self.last + 2, "/");
                let at = rng.below(bytes.len());
                bytes[at] ^= 1 << rng.below(8);
                bytes
            }
        }
    }
}

/// Runs one connection to its end.
fn play(site: &Site, seed: u64) {
    let mut client = site.client();
    let mut session = Session { rng: Rng(seed), last: 1, open: Vec::new() };
    client.send(get(1, "/"));
    for _ in 0..FRAMES {
        let bytes = if session.rng.below(100) == 0 { session.illegal() } else { session.legal() };
        client.send(bytes);
        if session.rng.below(8) == 0 && client.next(Duration::from_millis(1)) == Some(Event::End) {
            return;
        }
    }
    if session.rng.below(2) == 0 {
        client.finish();
        client.end(Duration::from_millis(20));
    }
}

#[test]
fn any_frames_in_any_order() {
    let site = Site::start("body_timeout = \"1s\"\nresponse_timeout = \"2s\"\nkeepalive_timeout = \"2s\"");
    let ((), felt) = beside(&site, || (0..SEEDS).for_each(|seed| play(&site, seed)));
    felt.is_within(GROWTH_KIB);
    let mut words = String::new();
    for word in site.endings("connection", SEEDS as usize) {
        if ["panicked", "local_error", "no_memory"].contains(&word.as_str()) {
            let _ = writeln!(words, "{word}");
        }
    }
    assert!(words.is_empty(), "{words}");
    assert!(!site.sessile.said().contains("panicked"), "{}", site.sessile.said());
    site.is_at_rest();
    eventually("a line of each stream that was begun", || {
        let status = site.sessile.status();
        let threads = status["conversations"].as_array()?.iter();
        let begun: u64 = threads.filter_map(|own| own["http2_streams"].as_u64()).sum();
        let lines = site.sessile.lines().iter().filter(|line| line["kind"] == "request").count();
        (lines as u64 == begun).then_some(())
    });
}
