//! ClientHellos on the wire: one verdict however the bytes arrive and however records cut the message; rustls' acceptor
//! as a second opinion.
//!
//! Where this library accepts and rustls does not, the reason is outside of what routing reads: the same hello with
//! only its server name and its protocols is accepted by rustls, too. The other way round: [`is_stricter`].

use rustls::server::Acceptor;
use sessile::client_hello::{self, ClientHello, Progress, Scan};
use sessile::tls::takes_name;

use crate::cost::{Limit, bounded};
use crate::engine::Target;

pub const TARGET: Target = Target {
    name: "client_hello",
    run,
    words: &[
        b"\x16\x03\x01",
        b"\x16\x03\x03",
        b"\x01\0",
        b"\0\0",
        b"\0\x10",
        b"\xfe\x0d",
        b"\0\x0d\0\x04\0\x02\x04\x03",
        b"\0\0\0\x06\0\x04\0\0\x01a",
        b"\0\x10\0\x05\0\x03\x02h2",
        b"\x13\x01\x13\x02",
        b"\x01\0",
        b"a.example.org",
        b"127.0.0.1",
        b"[::1]",
        b"host:443",
        b"\0\x2b\0\x03\x02\x03\x04",
        b"\x15\x03\x01\0\x02\x02\x28",
        b"\xc0\x2b",
    ],
    seeds: || recut_seeds(),
    length_max: 100_000,
    mutants: 3_000,
};

const RECORD_HEADER: usize = 5;

/// Reading costs the result, the joined message and what the parser lists: no more memory than some bytes for each byte.
fn limit(length: usize) -> Limit {
    Limit { allocations: 40, bytes: 1_024 + 4 * length as u64, steps: 2_000, steps_per_byte: 30 }
}

fn run(bytes: &[u8]) {
    let whole = bounded("reading a hello", bytes.len(), limit(bytes.len()), || client_hello::parse(bytes));
    let stops = super::cuts(bytes);
    let mut scan = Scan::default();
    let mut last = Progress::More;
    let limit = Limit { allocations: 40, bytes: 1_024 + 4 * bytes.len() as u64, steps: 2_000, steps_per_byte: 60 };
    bounded("reading a hello in pieces", bytes.len(), limit, || {
        for stop in &stops {
            last = scan.resume(&bytes[..*stop]);
            if last != Progress::More {
                assert_eq!(last, whole, "final at {stop}");
                return;
            }
        }
    });
    if stops.last() == Some(&bytes.len()) {
        assert_eq!(last, whole, "cut at {stops:?}");
    }
    for tail in [&b"\0"[..], b"\x16\x03\x03\0\x01\x01", b"GET / HTTP/1.1\r\n\r\n"] {
        if whole != Progress::More {
            assert_eq!(client_hello::parse(&[bytes, tail].concat()), whole, "final whatever follows");
        }
    }
    let second = second_opinion(bytes);
    match &whole {
        Progress::Done(hello) => check_accepted(bytes, hello),
        Progress::More => assert!(!matches!(second, Second::Accepted { .. }), "rustls has a hello already"),
        Progress::No(ended) => {
            let accepted = matches!(second, Second::Accepted { .. });
            assert!(!accepted || is_stricter(bytes), "{ended:?}, but {second:?}");
        }
    }
}

#[derive(Debug, PartialEq)]
enum Second {
    Accepted { name: Option<String>, alpn: Vec<Vec<u8>> },
    More,
    Refused(String),
}

fn second_opinion(mut bytes: &[u8]) -> Second {
    let mut acceptor = Acceptor::default();
    loop {
        let read = acceptor.read_tls(&mut bytes);
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let alpn = hello.alpn().map(|names| names.map(<[u8]>::to_vec).collect()).unwrap_or_default();
                return Second::Accepted { name: hello.server_name().map(str::to_owned), alpn };
            }
            Ok(None) if read.is_ok_and(|read| read > 0) => {}
            Ok(None) => return Second::More,
            Err((error, _)) => return Second::Refused(format!("{error:?}")),
        }
    }
}

/// Message and record boundaries do not matter, and rustls reads the same name and protocols.
fn check_accepted(bytes: &[u8], hello: &ClientHello) {
    let message = message(bytes).expect("a hello is a handshake message");
    let mut rng = super::choices(bytes);
    for size in [1, 1 + rng.below(40), 1 + rng.below(16_384), 16_384] {
        let again = client_hello::parse(&records(&message, size));
        assert_eq!(again, Progress::Done(hello.clone()), "in records of {size}");
    }
    let Some(reduced) = reduced(&message) else { panic!("a hello that cannot be taken apart") };
    let alpn = names(&hello.alpn);
    match second_opinion(&records(&reduced.message, 16_384)) {
        Second::Accepted { name, alpn: theirs } => {
            let ours = hello.server_name.as_ref().map(ToString::to_string);
            let name = name.map(|name| name.trim_end_matches('.').to_ascii_lowercase());
            // What is no host name counts as no name.
            assert!(ours == name || ours.is_none() && reduced.has_name, "the name is {ours:?} or {name:?}");
            assert_eq!(alpn, theirs, "the protocols");
        }
        // rustls refuses names that are none, which may count as no name here or be passed through, and entries of
        // another kind than host names, which are passed over here.
        Second::Refused(error) => {
            let name = hello.server_name.as_ref().map(ToString::to_string);
            let counts = name.is_some_and(|name| takes_name(&name));
            assert!(reduced.has_name && (!counts || reduced.other_kinds), "rustls: {error}");
        }
        Second::More => panic!("rustls wants more of a whole message"),
    }
}

/// True if there is a reason to refuse a hello that rustls accepts: a limit, records that hold nothing or no handshake
/// before the end of the message, or an extension that two readers could read differently.
fn is_stricter(bytes: &[u8]) -> bool {
    const SMALLEST_LIMIT: usize = 16 * 1024;
    let Some(message) = message(bytes) else { return true };
    message.len() > SMALLEST_LIMIT || reduced(&message).is_none_or(|reduced| reduced.odd)
}

/// The handshake message, joined from its records.
fn message(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut joined = Vec::new();
    loop {
        if let [_, high, middle, low, ..] = joined[..] {
            let length = 4 + u32::from_be_bytes([0, high, middle, low]) as usize;
            if joined.len() >= length {
                joined.truncate(length);
                return Some(joined);
            }
        }
        let [22, 3, _, high, low, rest @ ..] = bytes else { return None };
        // The last record may go on behind the message.
        let payload = &rest[..rest.len().min(usize::from(u16::from_be_bytes([*high, *low])))];
        if payload.is_empty() {
            return None;
        }
        joined.extend_from_slice(payload);
        bytes = &bytes[RECORD_HEADER + payload.len()..];
    }
}

/// A hello with the extensions that routing reads, and no other but the one that rustls insists on.
struct Reduced {
    message: Vec<u8>,
    has_name: bool,
    /// An extension that routing reads stands there twice, or is not a plain list of one name.
    odd: bool,
    /// The list of names is whole, and has entries of another kind than host names.
    other_kinds: bool,
}

fn reduced(message: &[u8]) -> Option<Reduced> {
    let body = &message[4..];
    let (fixed, rest) = body.split_at_checked(34)?;
    let (_session, rest) = take(rest, 1)?;
    let (_suites, rest) = take(rest, 2)?;
    let (_compression, rest) = take(rest, 1)?;
    let mut extensions = if rest.is_empty() { rest } else { take(rest, 2)?.0 };
    let mut kept = vec![0, 13, 0, 4, 0, 2, 4, 3];
    let (mut seen, mut odd, mut other_kinds) = (Vec::new(), false, false);
    while let [high, low, rest @ ..] = extensions {
        let (content, rest) = take(rest, 2)?;
        let kind = u16::from_be_bytes([*high, *low]);
        if [0x0000, 0x0010].contains(&kind) {
            odd |= kind == 0 && !is_one_name(content);
            other_kinds |= kind == 0 && has_other_kinds(content);
            kept.extend([&[*high, *low][..], &(content.len() as u16).to_be_bytes(), content].concat());
        }
        odd |= seen.contains(&kind);
        seen.push(kind);
        extensions = rest;
    }
    let suites = [0, 2, 0x13, 0x01];
    let body = [fixed, &[0], &suites, &[1, 0], &(kept.len() as u16).to_be_bytes(), &kept].concat();
    let message = [&[1][..], &(body.len() as u32).to_be_bytes()[1..], &body].concat();
    Some(Reduced { message, has_name: seen.contains(&0), odd, other_kinds })
}

/// True for a list of exactly one entry, which is a host name of letters, digits, hyphens, underscores and dots.
fn is_one_name(extension: &[u8]) -> bool {
    let Some((list, [])) = take(extension, 2) else { return false };
    let [0, entry @ ..] = list else { return false };
    let name =
        |bytes: &[u8]| std::str::from_utf8(bytes).ok().and_then(sessile::server_name::ServerName::parse).is_some();
    matches!(take(entry, 2), Some((bytes, [])) if name(bytes))
}

fn has_other_kinds(extension: &[u8]) -> bool {
    let Some((mut entries, [])) = take(extension, 2) else { return false };
    let mut found = false;
    while let [kind, rest @ ..] = entries {
        let Some((_, rest)) = take(rest, 2) else { return false };
        found |= *kind != 0;
        entries = rest;
    }
    found
}

/// Splits off what a length of `width` bytes announces.
fn take(bytes: &[u8], width: usize) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(width)?;
    rest.split_at_checked(length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
}

fn names(mut list: &[u8]) -> Vec<Vec<u8>> {
    let mut names = Vec::new();
    while let Some((name, rest)) = take(list, 1).filter(|_| !list.is_empty()) {
        names.push(name.to_vec());
        list = rest;
    }
    names
}

fn records(message: &[u8], size: usize) -> Vec<u8> {
    let record = |part: &[u8]| [&[22, 3, 1][..], &(part.len() as u16).to_be_bytes(), part].concat();
    message.chunks(size.min(16_384)).flat_map(record).collect()
}

/// Committed hellos in records of several sizes.
fn recut_seeds() -> Vec<Vec<u8>> {
    let committed = crate::engine::committed(TARGET.name);
    let messages: Vec<_> = committed.iter().filter_map(|bytes| message(bytes)).collect();
    messages.iter().flat_map(|message| [1, 7, 100].map(|size| records(message, size))).collect()
}
