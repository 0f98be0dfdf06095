//! What clients do in a WebSocket: every length, fragments, control frames between them, closes, and what is forbidden.
//!
//! A case waits for a reply where the order of replies would else be chance. Invariant: a case ends with a Close frame,
//! or with something for which the server ends it.

use crate::http2::site::pattern;
use crate::http2::socket_frames::{BINARY, CLOSE, PING, PONG, TEXT, masked, masked_behind};

/// First bytes of frames that others follow, and of those that go on.
const TEXT_BEGINS: u8 = 0x01;
const BINARY_BEGINS: u8 = 0x02;
const GOES_ON: u8 = 0x00;
const GOES_ON_TO_THE_END: u8 = 0x80;

/// What a client does next.
#[derive(Debug)]
pub enum Step {
    Send(Vec<u8>),
    /// Waits for so many frames.
    Frames(usize),
}

/// One WebSocket.
#[derive(Debug)]
pub struct Case {
    pub name: String,
    /// The path by which the server does something of itself; `None`: it sends everything back.
    pub path: Option<&'static str>,
    /// Fields of the request.
    pub fields: &'static [(&'static str, &'static str)],
    pub steps: Vec<Step>,
    /// What a line begins with that the client sees of the server without sessile.
    pub ends: Option<&'static str>,
}

use Step::{Frames, Send};

fn case(name: impl Into<String>, steps: Vec<Step>) -> Case {
    Case { name: name.into(), path: None, fields: &[], steps, ends: None }
}

/// A case that the client closes with 1000 at its end.
fn closed(name: impl Into<String>, mut steps: Vec<Step>) -> Case {
    steps.push(Send(close(1_000, b"")));
    Case { ends: Some("88 2 "), ..case(name, steps) }
}

/// A case in which one message, in so many writes, comes back as one frame.
fn echoed(name: impl Into<String>, writes: Vec<Vec<u8>>) -> Case {
    closed(name, writes.into_iter().map(Send).chain([Frames(1)]).collect())
}

/// A case in which the server ends the connection for what it gets, with a code.
fn refused(name: impl Into<String>, bytes: Vec<u8>) -> Case {
    Case { ends: Some("88 "), ..case(name, vec![Send(bytes)]) }
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    masked(CLOSE, &[&code.to_be_bytes()[..], reason].concat())
}

/// A message in fragments of these payloads.
fn fragments(first: u8, payloads: &[&[u8]]) -> Vec<Vec<u8>> {
    let last = payloads.len() - 1;
    let frame = |(at, payload): (usize, &&[u8])| match at {
        0 => masked(first, payload),
        at if at == last => masked(GOES_ON_TO_THE_END, payload),
        _ => masked(GOES_ON, payload),
    };
    payloads.iter().enumerate().map(frame).collect()
}

pub fn cases() -> Vec<Case> {
    let parts = [lengths(), fragmented(), control(), closes(), forbidden(), utf8(), order(), large(), compressed()];
    parts.into_iter().flatten().collect()
}

fn lengths() -> Vec<Case> {
    let mut cases = Vec::new();
    for length in [0, 1, 125, 126, 127, 128, 65_535, 65_536, 65_537] {
        cases.push(echoed(format!("text of {length} bytes"), vec![masked(TEXT, "x".repeat(length).as_bytes())]));
        cases.push(echoed(format!("{length} bytes"), vec![masked(BINARY, &pattern(length))]));
    }
    let message = masked(TEXT, "Hello, κόσμε!".repeat(20).as_bytes());
    for size in [1, 7, 125] {
        let name = format!("a message in writes of {size} bytes");
        cases.push(echoed(name, message.chunks(size).map(<[u8]>::to_vec).collect()));
    }
    let many: Vec<u8> = (0..100).flat_map(|at| masked(BINARY, &pattern(at * 7))).collect();
    cases.push(closed("a hundred messages in one write", vec![Send(many), Frames(100)]));
    // RFC 6455 §5.2: the least number of bytes; what a server makes of more is its own affair.
    for head in [&[TEXT, 0xfe, 0, 5][..], &[TEXT, 0xff, 0, 0, 0, 0, 0, 0, 0, 5]] {
        let (name, bytes) = (format!("a length in {} bytes", head.len() - 1), masked_behind(head, b"Hello"));
        cases.push(echoed(name, vec![bytes]));
    }
    cases.push(refused("a length beyond 63 bits", masked_behind(&[TEXT, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 5], b"Hello")));
    cases
}

fn fragmented() -> Vec<Case> {
    let mut cases = Vec::new();
    for (what, payloads) in [
        ("two", &[&b"Hel"[..], b"lo"][..]),
        ("three", &[b"Hel", b"lo ", b"you"]),
        ("an empty first", &[b"", b"Hello"]),
        ("an empty last", &[b"Hello", b""]),
        ("nothing but empty", &[b"", b"", b"", b""]),
    ] {
        for first in [TEXT_BEGINS, BINARY_BEGINS] {
            cases.push(echoed(format!("{what} fragments of kind {first}"), fragments(first, payloads)));
        }
    }
    let whole = pattern(100_000);
    for size in [1_000, 65_536] {
        let pieces: Vec<&[u8]> = whole.chunks(size).collect();
        cases.push(echoed(format!("fragments of {size} bytes"), fragments(BINARY_BEGINS, &pieces)));
    }
    for (name, between) in [
        ("a ping", masked(PING, b"between")),
        ("an empty ping", masked(PING, b"")),
        ("a ping of 125 bytes", masked(PING, &[b'p'; 125])),
    ] {
        let mut steps = Vec::new();
        for fragment in fragments(TEXT_BEGINS, &[b"Hel", b"lo", b" there"]) {
            steps.extend([Send(fragment), Send(between.clone()), Frames(1)]);
        }
        // The last pong comes before or after the message, which ends with the fragment in front of it.
        steps.truncate(steps.len() - 2);
        steps.push(Frames(1));
        cases.push(closed(format!("{name} between fragments"), steps));
    }
    let mut unasked = fragments(BINARY_BEGINS, &[b"a", b"b"]);
    unasked.insert(1, masked(PONG, b"never asked for"));
    cases.push(echoed("a pong between fragments", unasked));
    let mut left = fragments(TEXT_BEGINS, &[b"a", b"b"]);
    left[1] = close(1_000, b"inside a message");
    cases.push(Case { ends: Some("88 "), ..case("a close between fragments", left.into_iter().map(Send).collect()) });
    cases.push(refused("a fragment that goes on with nothing", masked(GOES_ON, b"x")));
    cases.push(refused("an end of nothing", masked(GOES_ON_TO_THE_END, b"x")));
    let another = [masked(TEXT_BEGINS, b"x"), masked(TEXT, b"y")].concat();
    cases.push(refused("a message inside another one", another));
    let another = [masked(BINARY_BEGINS, b"x"), masked(BINARY_BEGINS, b"y")].concat();
    cases.push(refused("a beginning inside a message", another));
    for kind in [CLOSE, PING, PONG] {
        cases.push(refused(format!("a control frame {kind:x} in fragments"), masked(kind & 0x0f, b"")));
    }
    cases
}

fn control() -> Vec<Case> {
    let mut cases = Vec::new();
    for length in [0, 1, 125] {
        let ping = masked(PING, &pattern(length));
        cases.push(closed(format!("a ping of {length} bytes"), vec![Send(ping), Frames(1)]));
        let pong = masked(PONG, &pattern(length));
        let then = masked(TEXT, b"then a message");
        cases.push(closed(format!("a pong of {length} bytes"), vec![Send(pong), Send(then), Frames(1)]));
    }
    let pings: Vec<u8> = (0..50).flat_map(|at| masked(PING, format!("{at}").as_bytes())).collect();
    cases.push(closed("fifty pings in one write", vec![Send(pings), Frames(50)]));
    let slow = masked(PING, b"byte by byte").into_iter().map(|byte| Send(vec![byte]));
    cases.push(closed("a ping byte by byte", slow.chain([Frames(1)]).collect()));
    for kind in [PING, PONG, CLOSE] {
        cases.push(refused(format!("a control frame {kind:x} of 126 bytes"), masked(kind, &[7; 126])));
    }
    // The server's own pings, each of which waits for its pong.
    let mut steps = Vec::new();
    for length in [0, 1, 125] {
        steps.extend([Frames(1), Send(masked(PONG, "p".repeat(length).as_bytes()))]);
    }
    steps.push(Frames(1));
    cases.push(Case { path: Some("/pings"), ..closed("pings of the server", steps) });
    cases
}

fn closes() -> Vec<Case> {
    let mut cases = Vec::new();
    for code in [1_000, 1_001, 1_002, 1_003, 1_007, 1_008, 1_009, 1_010, 1_011, 3_000, 3_999, 4_000, 4_999] {
        cases.push(Case { ends: Some("88 2 "), ..case(format!("close {code}"), vec![Send(close(code, b""))]) });
    }
    for code in [0, 999, 1_004, 1_005, 1_006, 1_012, 1_013, 1_014, 1_015, 1_016, 1_100, 2_000, 2_999, 5_000, 65_535] {
        cases.push(refused(format!("close {code}"), close(code, b"why")));
    }
    cases.push(refused("a close without a code", masked(CLOSE, b"")));
    cases.push(refused("a close of one byte", masked(CLOSE, b"\x03")));
    cases.push(refused("a close with a reason", close(1_000, "schön".as_bytes())));
    cases.push(refused("a close with the longest reason", close(1_000, &[b'r'; 123])));
    cases.push(refused("a close with a reason that is too long", close(1_000, &[b'r'; 124])));
    cases.push(refused("a close with a reason that is no text", close(1_000, b"\xce\xba\xed\xa0\x80")));
    cases
}

fn forbidden() -> Vec<Case> {
    let mut cases = Vec::new();
    for bits in 1..8_u8 {
        for first in [TEXT, BINARY, PING, CLOSE] {
            let payload = if first == CLOSE { &b"\x03\xe8"[..] } else { b"x" };
            cases.push(refused(format!("reserved bits {bits} in {first:x}"), masked(first | bits << 4, payload)));
        }
    }
    for kind in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15_u8] {
        for payload in [&b""[..], b"x"] {
            cases.push(refused(format!("kind {kind} with {payload:?}"), masked(0x80 | kind, payload)));
        }
    }
    // RFC 6455 §5.1: a client masks all frames.
    cases.push(refused("a frame without a mask", [&[TEXT, 5][..], b"Hello"].concat()));
    cases.push(refused("a ping without a mask", vec![PING, 0]));
    let then = [masked(TEXT, b"good"), masked(0x83, b"bad")];
    let steps = vec![Send(then[0].clone()), Frames(1), Send(then[1].clone())];
    cases.push(Case { ends: Some("88 "), ..case("a reserved kind behind a message", steps) });
    cases
}

fn utf8() -> Vec<Case> {
    const VALID: &[u8] = "Hello-µ@ßöäüàá-κόσμε-\u{fffd}\u{ffff}\u{10ffff}-🦀".as_bytes();
    const INVALID: &[(&str, &[u8])] = &[
        ("a byte that goes on with nothing", b"a\x80b"),
        ("a byte that is none", b"a\xffb"),
        ("two bytes for an ASCII character", b"a\xc0\xafb"),
        ("three bytes for one", b"a\xe0\x80\xafb"),
        ("four bytes for one", b"a\xf0\x80\x80\xafb"),
        ("half a surrogate", b"a\xed\xa0\x80b"),
        ("beyond the last character", b"a\xf4\x90\x80\x80b"),
        ("five bytes", b"a\xf8\x88\x80\x80\x80b"),
        ("an end inside a character", b"a\xce"),
        ("an end inside four bytes", b"a\xf0\x9f\xa6"),
    ];
    let mut cases = vec![echoed("all kinds of characters", vec![masked(TEXT, VALID)])];
    for at in 0..=VALID.len() {
        let (first, last) = VALID.split_at(at);
        cases.push(echoed(format!("characters split at {at}"), fragments(TEXT_BEGINS, &[first, last])));
    }
    let bytes: Vec<&[u8]> = VALID.chunks(1).collect();
    cases.push(echoed("characters in fragments of one byte", fragments(TEXT_BEGINS, &bytes)));
    for (what, bytes) in INVALID {
        cases.push(refused(*what, masked(TEXT, bytes)));
        let pieces: Vec<&[u8]> = bytes.chunks(1).collect();
        cases.push(refused(format!("{what}, in fragments"), fragments(TEXT_BEGINS, &pieces).concat()));
        // The same bytes are no error where nothing has to be text.
        cases.push(echoed(format!("{what}, as bytes"), vec![masked(BINARY, bytes)]));
    }
    cases
}

fn order() -> Vec<Case> {
    let talk = |count: u8| (0..count).flat_map(|at| [Send(masked(TEXT, &[b'a' + at])), Frames(1)]);
    let mut cases = vec![
        closed("the client closes at once", Vec::new()),
        closed("the client closes behind a few messages", talk(5).collect()),
        // What stands behind a Close frame counts for nothing.
        case("a message behind the close", vec![Send([close(1_000, b""), masked(TEXT, b"late")].concat())]),
        case("a ping behind the close", vec![Send([close(1_000, b""), masked(PING, b"late")].concat())]),
        case("a second close", vec![Send([close(1_000, b""), close(1_001, b"")].concat())]),
        case("bytes that are no frame behind the close", vec![Send([&close(1_000, b"")[..], &[0xff; 40]].concat())]),
    ];
    let answer = || Send(close(4_001, b"the server has had enough"));
    let server = |name: &str, steps| Case { path: Some("/closes"), ends: Some("88 27 "), ..case(name, steps) };
    cases.push(server("the server closes", vec![Frames(1), answer()]));
    let late = Send(masked(TEXT, b"on its way"));
    cases.push(server("the server closes, and a message crosses", vec![Frames(1), late, answer()]));
    cases.push(server("both close", vec![Send(close(1_000, b""))]));
    let asked = masked(TEXT, b"in pieces");
    cases.push(closed("the server sends fragments", vec![Send(asked), Frames(6)]));
    cases
}

fn large() -> Vec<Case> {
    const LARGE: usize = 4 << 20;
    let whole = pattern(LARGE);
    let pieces: Vec<&[u8]> = whole.chunks(64 << 10).collect();
    let text = "ü".repeat(LARGE / 2);
    vec![
        echoed("4 MiB", vec![masked(BINARY, &whole)]),
        echoed("4 MiB of text", vec![masked(TEXT, text.as_bytes())]),
        echoed("4 MiB in fragments", fragments(BINARY_BEGINS, &pieces)),
        closed(
            "a few times 300,000 bytes",
            (0..5).flat_map(|at| [Send(masked(BINARY, &whole[at..][..300_000])), Frames(1)]).collect(),
        ),
    ]
}

/// RFC 7692 and subprotocols: client and server agree on them, and sessile takes no part in it.
fn compressed() -> Vec<Case> {
    const DEFLATE: &[(&str, &str)] = &[("sec-websocket-extensions", "permessage-deflate")];
    /// "Hello", as RFC 7692 §7.2.3.1 has it.
    const HELLO: &[u8] = &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
    let compressed = |case: Case| Case { fields: DEFLATE, ends: Some("88 "), ..case };
    let mut cases = vec![
        compressed(echoed("a compressed message", vec![masked(0xc1, HELLO)])),
        compressed(echoed("compressed fragments", vec![masked(0x41, &HELLO[..3]), masked(0x80, &HELLO[3..])])),
        compressed(echoed("a message that is not compressed", vec![masked(TEXT, b"Hello")])),
        compressed(refused("a compressed ping", masked(0xc9, HELLO))),
        compressed(refused("what is no compressed message", masked(0xc1, b"\xff\xff\xff\xff"))),
        compressed(refused("compression that begins late", [masked(0x01, b"x"), masked(0xc0, HELLO)].concat())),
    ];
    for protocols in [&[("sec-websocket-protocol", "chat")], &[("sec-websocket-protocol", "none, chat")]] {
        cases.push(Case { fields: protocols, ..closed(format!("{protocols:?}"), Vec::new()) });
    }
    cases
}
