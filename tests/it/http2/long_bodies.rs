//! A body far longer than every buffer on its way, up and down over one stream at the same time.
//!
//! `SESSILE_TEST_BODY_MIB` is its length. Invariant: each byte that comes back is compared with the one that was sent,
//! at its place.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Instant;

use h2::client::Builder;

use super::client::Client;
use super::site::pattern;
use super::{HTTP, line_of, told};
use crate::support::backend::Backend;
use crate::support::load_support::alone;
use crate::terminate::Front;

/// MiB in the tree's own runs.
const MIB: usize = 64;

/// The body repeats these bytes; their number is a prime, so that no shift by a frame or a buffer goes unseen.
const PERIOD: usize = 1_000_003;

/// Bytes that are sent with one step.
const STEP: usize = 100_000;

/// Sends the body of the first request of a connection back while it comes, framed as it is.
fn echo(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(1 << 16, stream.try_clone()?);
    let (mut line, mut framing) = (String::new(), String::new());
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line)?;
        let lower = line.to_ascii_lowercase();
        if lower.starts_with("content-length:") || lower.starts_with("transfer-encoding:") {
            framing = lower;
        }
    }
    stream.write_all(format!("HTTP/1.1 200 OK\r\n{framing}\r\n").as_bytes())?;
    if let Some((_, length)) = framing.split_once("content-length:") {
        let length = length.trim().parse().expect("a length");
        return std::io::copy(&mut reader.take(length), &mut stream).map(drop);
    }
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim(), 16).expect("a size");
        // The chunk with its line end; behind the last one there is an empty line.
        stream.write_all(line.as_bytes())?;
        std::io::copy(&mut reader.by_ref().take(size + 2), &mut stream)?;
        if size == 0 {
            return Ok(());
        }
    }
}

#[test]
fn a_long_body_goes_both_ways_over_one_stream_unchanged() {
    let _alone = alone();
    let (length, period) = (told("BODY_MIB", MIB) << 20, pattern(PERIOD));
    let doubled = [&period[..], &period[..STEP.max(1 << 16)]].concat();
    let backend = Backend::serving(echo);
    let front = Front::start("", HTTP, &[backend.address]);
    let mut builder = Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 20);
    let client = Client::to(&front, "a.test", &builder);
    let text = length.to_string();
    for (path, fields) in [("/sized", &[("content-length", text.as_str())][..]), ("/chunked", &[])] {
        let began = Instant::now();
        let mut begun = client.begin(client.request("POST", path, fields), false).unwrap().head().unwrap();
        assert_eq!(begun.head.status(), 200, "{path}");
        let (mut upload, mut download) = begun.halves();
        let (up, down) = thread::scope(|scope| {
            let up = scope.spawn(|| {
                let (mut sent, mut sum) = (0, 0);
                while sent < length {
                    let piece = &doubled[sent % PERIOD..][..STEP.min(length - sent)];
                    sum = crc32c::crc32c_append(sum, piece);
                    sent += piece.len();
                    upload.write(piece, sent == length).unwrap();
                }
                sum
            });
            let (mut got, mut sum) = (0, 0);
            while let Some(piece) = download.piece() {
                let piece = piece.unwrap();
                let wanted = &doubled[got % PERIOD..][..piece.len()];
                assert!(piece[..] == *wanted, "{path}: the bytes behind {got} are not those that were sent");
                sum = crc32c::crc32c_append(sum, &piece);
                got += piece.len();
            }
            assert_eq!(got, length, "{path}");
            (up.join().unwrap(), sum)
        });
        assert_eq!(up, down, "{path}");
        println!("{path}: {} MiB both ways, {down:08x}, in {:.1?}", length >> 20, began.elapsed());
        assert_eq!(begun.trailers().unwrap(), None, "{path}");
        let line = line_of(&front.sessile, path);
        assert_eq!((&line["ended"], &line["status"]), (&"done".into(), &200.into()), "{line}");
        let least = Some(length as u64);
        assert!(line["bytes_up"].as_u64() >= least && line["bytes_down"].as_u64() >= least, "{line}");
    }
    client.close().unwrap();
    front.sessile.ended("l", "done");
}
