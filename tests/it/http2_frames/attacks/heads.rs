//! Heads without end, and heads that are small on the wire and large in memory.

use super::{Attack, CONNECTIONS, GROWTH_KIB, beside, flood};
use crate::http2_frames::hpack::{block, indexed, indexing, literal};
use crate::http2_frames::site::Site;
use crate::http2_frames::wire::*;

/// Frames of each flood.
const FRAMES: u32 = 5_000;

/// Words for a connection that ends since a head was too much.
const TOO_MUCH: &[&str] = &["http2_flood", "http2_error"];

/// Codes of a connection that ends since a head was too much.
const CODES: &[u32] = &[ENHANCE_YOUR_CALM, PROTOCOL_ERROR, COMPRESSION_ERROR, INTERNAL_ERROR];

/// CVE-2024-27316 and its kin.
#[test]
fn continuation_that_is_empty() {
    Attack::calmed(TOO_MUCH, |client| {
        client.frame(HEADERS, END_STREAM, 1, block(&GET));
        flood(client, FRAMES, |_| frame(CONTINUATION, 0, 1, b""));
    })
    .or_code(CODES)
    .run();
}

#[test]
fn continuation_with_small_fields() {
    Attack::calmed(TOO_MUCH, |client| {
        client.frame(HEADERS, END_STREAM, 1, block(&GET));
        flood(client, FRAMES, |_| frame(CONTINUATION, 0, 1, literal("x", "y")));
    })
    .or_code(CODES)
    .run();
}

/// One field, whose value does not end.
#[test]
fn continuation_of_one_value() {
    Attack::calmed(TOO_MUCH, |client| {
        let field = [&[0, 1, b'x', 0x7f, 0xff, 0xff, 0xff, 0x7f][..]].concat();
        client.frame(HEADERS, END_STREAM, 1, [block(&GET), field].concat());
        flood(client, 500, |_| frame(CONTINUATION, 0, 1, vec![b'v'; 16_000]));
    })
    .or_code(CODES)
    .run();
}

/// An entry of 4,000 bytes, of which one byte on the wire makes another copy.
#[test]
fn a_bomb_of_header_compression() {
    Attack::calmed(TOO_MUCH, |client| {
        client.block([block(&GET), indexing("x-bomb", vec![b'x'; 4_000])].concat());
        client.response(1);
        let copies = indexed(62).repeat(16_000);
        flood(client, 100, |at| {
            frame(HEADERS, END_HEADERS | END_STREAM, 2 * at + 3, [&block(&GET), &copies[..]].concat())
        });
    })
    .or_code(CODES)
    .run();
}

/// The same in CONTINUATION, in all 64 MiB and more.
#[test]
fn a_bomb_of_header_compression_in_pieces() {
    Attack::calmed(TOO_MUCH, |client| {
        client.block([block(&GET), indexing("x-bomb", vec![b'x'; 4_000])].concat());
        client.response(1);
        client.frame(HEADERS, END_STREAM, 3, block(&GET));
        flood(client, FRAMES, |_| frame(CONTINUATION, 0, 3, indexed(62).repeat(100)));
    })
    .or_code(CODES)
    .run();
}

#[test]
fn a_head_of_more_than_32_kib_is_refused() {
    let site = Site::start("");
    // RFC 9113 §6.5.2 counts 32 bytes more for each field.
    assert!(site.client().settings.get(&MAX_HEADER_LIST_SIZE).is_some_and(|size| *size <= 64 * 1024));
    for (fields, length) in [(5, 8_000), (400, 100), (1, 35_000)] {
        let mut client = site.client();
        let many = (0..fields).flat_map(|at| literal(format!("x-{at}"), vec![b'x'; length]));
        let block: Vec<u8> = block(&GET).into_iter().chain(many).collect();
        let mut pieces = block.chunks(16_000).peekable();
        client.frame(HEADERS, END_STREAM, 1, pieces.next().expect("a piece"));
        while let Some(piece) = pieces.next() {
            client.frame(CONTINUATION, if pieces.peek().is_none() { END_HEADERS } else { 0 }, 1, piece);
        }
        let status = client.until("a refusal", |event| match event {
            Event::Headers { .. } => event.status(),
            Event::Reset { .. } | Event::GoAway { .. } | Event::End => Some(431),
            _ => None,
        });
        assert_eq!(status, 431, "{fields} fields of {length} bytes");
    }
    assert_eq!(site.received.count("x-0"), 0, "it reached the backend");
    site.is_at_rest();
}

/// Trailers are passed on whole or not at all.
#[test]
fn trailers_of_more_than_the_limit_are_refused() {
    let site = Site::start("");
    for fields in [3, 7, 12] {
        let mut client = site.client();
        client.post(1, &[]);
        client.data(1, "data", false);
        let block: Vec<u8> = (0..fields).flat_map(|at| literal(format!("x-{at}"), vec![b'x'; 12_000])).collect();
        let mut pieces = block.chunks(16_000).peekable();
        client.frame(HEADERS, END_STREAM, 1, pieces.next().expect("a piece"));
        while let Some(piece) = pieces.next() {
            client.frame(CONTINUATION, if pieces.peek().is_none() { END_HEADERS } else { 0 }, 1, piece);
        }
        let status = client.until("a refusal", |event| match event {
            Event::Headers { .. } => event.status(),
            Event::Reset { .. } | Event::GoAway { .. } | Event::End => Some(400),
            _ => None,
        });
        assert!((400..500).contains(&status), "{status} for {fields} fields of 12,000 bytes");
    }
    site.is_at_rest();
}

/// A hundred heads of nearly 32 KiB, each of a hundred bytes on the wire, wait for responses that cannot be sent.
#[test]
fn heads_just_below_the_limit_on_streams_that_wait() {
    let site = Site::start("");
    let (clients, felt) = beside(&site, || {
        let mut clients: Vec<_> =
            (0..CONNECTIONS).map(|_| Client::open_with(site.address, &[(INITIAL_WINDOW_SIZE, 0)])).collect();
        for client in &mut clients {
            client.block([block(&GET), indexing("x-bomb", vec![b'x'; 4_000])].concat());
            for stream in 1..100 {
                let mut fields = GET;
                fields[3].1 = "/large";
                let copies = indexed(62).repeat(7);
                client.frame(HEADERS, END_HEADERS | END_STREAM, 2 * stream + 1, [block(&fields), copies].concat());
            }
            client.frame(PING, 0, 0, [1; 8]);
            client.until("all to be read", |event| {
                matches!(event, Event::Pong([1, ..]) | Event::GoAway { .. }).then_some(())
            });
        }
        // All that can be held is held when the bystander's next requests have been served.
        let mut quiet = Client::open(site.quiet);
        for stream in 0..50 {
            quiet.get(2 * stream + 1, &[]);
            quiet.response(2 * stream + 1);
        }
        clients
    });
    drop(clients);
    felt.is_within(GROWTH_KIB);
    site.is_at_rest();
}
