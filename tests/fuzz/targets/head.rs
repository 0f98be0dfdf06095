//! Heads and bodies as both readers see them, in pieces and whole; httparse as a second opinion.
//!
//! Knows no edit: `request` and `response` have those. Invariant: every message arrives here as it would at a socket.

use std::collections::HashSet;

use sessile::http::body::Body;
use sessile::http::field::{Fields, KnownField};
use sessile::http::{Framing, Progress, Refused};

use crate::cost::{Limit, bounded};

/// Refusals for what httparse refuses, too. All others are about meaning, limits or bare line ends, in which this
/// library is stricter on purpose.
const SYNTAX: &[Refused] =
    &[Refused::BadRequestLine, Refused::BadVersion, Refused::BadFieldName, Refused::BadFieldValue, Refused::Folded];

/// Steps of reading a head or a body: a few for a byte, and some for each field.
pub const READ: Limit = Limit { steps: 3_000, steps_per_byte: 40, ..Limit::NO_MEMORY };

/// The most steps for a byte where all of a head is offered again at every byte.
pub const READ_BYTEWISE: Limit = Limit { steps: 3_000, steps_per_byte: 80, ..Limit::NO_MEMORY };

/// A head as a list of texts, to compare it with another reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Method, target and version, or version, status and reason.
    pub start: Vec<Vec<u8>>,
    /// Names and values, in order.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A reader of one kind of head.
pub trait Reader: Clone {
    /// Continues with all bytes so far.
    fn read(&mut self, bytes: &[u8]) -> Progress<usize, Refused>;
    /// Prepares for the next head.
    fn reset(&mut self);
    /// The head that was read.
    fn head(&self, bytes: &[u8]) -> Head;
    /// The framing of its body.
    fn framing(&self, bytes: &[u8]) -> Framing;
    /// The head as httparse reads it, with its length.
    fn second(bytes: &[u8]) -> Result<Option<(Head, usize)>, httparse::Error>;
}

/// What becomes of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    Refused(&'static str),
    /// Its head, its framing, its end, and whether the body is whole there.
    Read(Head, Framing, usize, bool),
    Partial,
}

/// The fields of a head.
pub fn listed(fields: Fields<'_>) -> Vec<(Vec<u8>, Vec<u8>)> {
    fields.iter().map(|field| (field.name.to_vec(), field.value.to_vec())).collect()
}

/// The fields as httparse has them.
pub fn second_listed(headers: &[httparse::Header<'_>]) -> Vec<(Vec<u8>, Vec<u8>)> {
    headers.iter().map(|header| (header.name.as_bytes().to_vec(), header.value.to_vec())).collect()
}

/// A message that arrives in pieces which end at `stops`.
pub fn arrive<R: Reader>(reader: &mut R, bytes: &[u8], stops: &[usize]) -> Reading {
    let mut body: Option<(Framing, Body, usize)> = None;
    for stop in stops.iter().copied().chain([bytes.len()]) {
        let (framing, scanner, seen) = match &mut body {
            Some(body) => body,
            None => match reader.read(&bytes[..stop]) {
                Progress::Done(length) => {
                    let framing = reader.framing(bytes);
                    body.insert((framing, Body::new(framing), length))
                }
                Progress::More => continue,
                Progress::No(refused) => return Reading::Refused(refused.word()),
            },
        };
        match scanner.scan(&bytes[*seen..stop.max(*seen)]) {
            Ok(scanned) => *seen += scanned.length,
            Err(refused) => return Reading::Refused(refused.word()),
        }
        if scanner.complete() {
            return Reading::Read(reader.head(bytes), *framing, *seen, true);
        }
    }
    match body {
        Some((framing, scanner, seen)) => Reading::Read(reader.head(bytes), framing, seen, scanner.may_end_here()),
        None => Reading::Partial,
    }
}

/// Holds every property of reading against a message; its reader if the head is whole.
pub fn read<R: Reader>(new: &R, bytes: &[u8]) -> Option<R> {
    let stops = super::cuts(bytes);
    let whole = arrive(&mut new.clone(), bytes, &[]);
    let cut = arrive(&mut new.clone(), bytes, &stops);
    assert_eq!(cut, whole, "cut at {stops:?}");

    let mut reader = new.clone();
    let progress = bounded("reading a head", bytes.len(), READ, || reader.read(bytes));
    if stops.len() > bytes.len() {
        let mut bytewise = new.clone();
        bounded("reading a head byte by byte", bytes.len(), READ_BYTEWISE, || {
            for stop in &stops {
                let _ = bytewise.read(&bytes[..*stop]);
            }
        });
    }
    agree_with_second::<R>(&reader, progress, bytes);
    match progress {
        Progress::Done(length) => {
            check_end(new, &bytes[..length]);
            check_body(reader.framing(bytes), &bytes[length..]);
            check_next(&whole, new, bytes);
            Some(reader)
        }
        Progress::No(refused) => {
            let more = [bytes, b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
            assert_eq!(new.clone().read(&more), Progress::No(refused), "a refusal is final");
            None
        }
        Progress::More => None,
    }
}

/// A head ends with its last byte: not before, and whatever follows.
fn check_end<R: Reader>(new: &R, head: &[u8]) {
    assert_eq!(new.clone().read(&head[..head.len() - 1]), Progress::More, "a head that is not whole");
    assert_eq!(new.clone().read(head), Progress::Done(head.len()));
    for tail in [&b"\r\n"[..], b"\0", b" x: y\r\n\r\n"] {
        assert_eq!(new.clone().read(&[head, tail].concat()), Progress::Done(head.len()), "the tail is no part of it");
    }
}

/// A reader that has read one message reads the next as a new one does.
fn check_next<R: Reader>(whole: &Reading, new: &R, bytes: &[u8]) {
    let Reading::Read(_, _, end, true) = whole else { return };
    let mut used = new.clone();
    arrive(&mut used, bytes, &[]);
    used.reset();
    let next = &bytes[*end..];
    assert_eq!(arrive(&mut used, next, &[]), arrive(&mut new.clone(), next, &[]), "after another message");
}

fn agree_with_second<R: Reader>(reader: &R, progress: Progress<usize, Refused>, bytes: &[u8]) {
    match (progress, R::second(bytes)) {
        (Progress::Done(length), second) => {
            assert_eq!(second, Ok(Some((reader.head(bytes), length))), "httparse reads another head");
        }
        (Progress::More, Ok(Some(second))) => panic!("httparse has a head already: {second:?}"),
        (Progress::No(refused), Ok(Some(second))) => {
            assert!(!SYNTAX.contains(&refused), "httparse finds no {}: {second:?}", refused.word());
        }
        (Progress::More | Progress::No(_), Ok(None) | Err(_)) => {}
    }
}

/// Bodies cost nothing but steps, and chunks are those that httparse finds.
fn check_body(framing: Framing, bytes: &[u8]) {
    let mut body = Body::new(framing);
    let scanned = bounded("reading a body", bytes.len(), READ, || body.scan(bytes));
    let Ok(scanned) = scanned else { return };
    assert!(scanned.length <= bytes.len());
    assert_eq!(scanned.complete, body.complete());
    match framing {
        Framing::None => assert_eq!((scanned.length, scanned.complete), (0, true)),
        Framing::Length(length) => {
            assert_eq!(scanned.length as u64, length.min(bytes.len() as u64));
            assert_eq!(scanned.complete, length <= bytes.len() as u64);
        }
        Framing::UntilClose => assert_eq!((scanned.length, scanned.complete), (bytes.len(), false)),
        Framing::Chunked if scanned.complete => assert_eq!(second_chunks(bytes), Some(scanned.length)),
        Framing::Chunked => assert_eq!(scanned.length, bytes.len()),
    }
}

/// The end of a chunked body as httparse sees it.
fn second_chunks(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let Ok(httparse::Status::Complete((line, size))) = httparse::parse_chunk_size(&bytes[at..]) else {
            return None;
        };
        at += line;
        if size == 0 {
            // Trailers of any number: each takes at least four bytes.
            let mut headers = vec![httparse::EMPTY_HEADER; bytes.len() / 4 + 1];
            return match httparse::parse_headers(&bytes[at..], &mut headers) {
                Ok(httparse::Status::Complete((length, _))) => Some(at + length),
                _ => None,
            };
        }
        at += usize::try_from(size).ok()?;
        if bytes.get(at..at + 2) != Some(b"\r\n") {
            return None;
        }
        at += 2;
    }
}

/// Options of Connection that name fields, in lower case; the usual ones name none.
pub fn options(fields: Fields<'_>) -> HashSet<Vec<u8>> {
    let values = fields.iter().filter(|field| field.name.eq_ignore_ascii_case(b"connection"));
    let options = values.flat_map(|field| field.value.split(|byte| *byte == b','));
    let names = options.map(|option| option.trim_ascii().to_ascii_lowercase());
    names.filter(|name| ![&b"close"[..], b"keep-alive", b"upgrade"].contains(&&name[..])).collect()
}

/// Fields that pass a hop as they are: neither hop-by-hop, nor named by Connection, nor framing. Left out are fields that
/// say something about the client and are named by Connection: they may stay, so that no client can remove them.
pub fn end_to_end(fields: Fields<'_>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let named = options(fields);
    let passes = |known: KnownField, name: &[u8]| {
        let framing = matches!(known, KnownField::ContentLength | KnownField::TransferEncoding);
        let dropped = known == KnownField::Other && named.contains(&name.to_ascii_lowercase());
        !known.is_hop_by_hop() && !framing && !dropped
    };
    let kept = fields.iter().filter(|field| passes(field.known, field.name));
    kept.map(|field| (field.name.to_vec(), field.value.to_vec())).collect()
}

/// The same of a head that was written for the next hop from `before`, which must have none of the named fields.
pub fn written_end_to_end(before: Fields<'_>, after: Fields<'_>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let named = options(before);
    let mut fields = end_to_end(after);
    fields.retain(|(name, _)| {
        let is_named = named.contains(&name.to_ascii_lowercase()) && KnownField::of(name) == KnownField::Other;
        assert!(!is_named || describes_client(name), "{} is named by Connection", name.escape_ascii());
        !is_named
    });
    fields
}

/// True for fields in which proxies describe a client, in every spelling that applications take for the same.
fn describes_client(name: &[u8]) -> bool {
    let name = folded(name);
    ["x-", "forwarded", "true-client-ip", "cf-", "client-ip", "front-end-https"]
        .iter()
        .any(|begin| name.starts_with(begin))
}

/// A name in the spelling to which applications fold it: any sign may be `-`.
pub fn folded(name: &[u8]) -> String {
    String::from_utf8_lossy(name).to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-")
}

/// True if lines that are added to a head may make it longer than a head may be.
pub fn is_nearly_full(fields: Fields<'_>, length: usize) -> bool {
    fields.iter().count() > 116 || length > sessile::http::head::HEAD_MAX - 1_024
}
