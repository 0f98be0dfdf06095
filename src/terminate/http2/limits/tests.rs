//! Frames as clients send them, well-behaved ones and floods.

use super::*;

const GO_AWAY: u8 = 7;
const SECOND: Micros = 1_000_000;

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let [_, high, middle, low] = (payload.len() as u32).to_be_bytes();
    [&[high, middle, low, kind, flags, 0, 0, 0, 1], payload].concat()
}

/// The preface of a client, with its SETTINGS.
fn preface() -> Vec<u8> {
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, &[])].concat()
}

fn begun() -> FrameCounter {
    let mut counter = FrameCounter::new();
    assert_eq!(counter.read(&preface(), 0), Ok(()));
    counter
}

/// How many of these frames pass at once.
fn most(counter: &mut FrameCounter, frame: &[u8], now: Micros) -> (usize, Option<Excess>) {
    most_of(|| counter.read(frame, now))
}

/// How many frames pass at once that this reads one by one.
fn most_of(mut read: impl FnMut() -> Result<(), Excess>) -> (usize, Option<Excess>) {
    let mut passed = 0;
    while passed < 20_000 {
        match read() {
            Ok(()) => passed += 1,
            Err(excess) => return (passed, Some(excess)),
        }
    }
    (passed, None)
}

#[test]
fn each_kind_has_its_limit() {
    let (flood, resets, none) = ((1_000, Some(Excess::Flood)), (1_000, Some(Excess::Resets)), (20_000, None));
    for (what, frame, wanted) in [
        ("resets", frame(RST_STREAM, 0, &[0; 4]), resets),
        ("pings", frame(PING, 0, &[0; 8]), flood),
        ("answers to pings", frame(PING, ACK, &[0; 8]), flood),
        ("settings", frame(SETTINGS, 0, &[0; 6]), (100, Some(Excess::Flood))),
        ("empty settings", frame(SETTINGS, 0, &[]), (100, Some(Excess::Flood))),
        ("answers to settings", frame(SETTINGS, ACK, &[]), (100, Some(Excess::Flood))),
        ("priorities", frame(2, 0, &[0; 5]), flood),
        ("updates of priorities", frame(0x10, 0, &[0; 5]), flood),
        ("unknown frames", frame(0xBA, 0xFF, &[0; 30]), flood),
        ("goodbyes", frame(GO_AWAY, 0, &[0; 8]), flood),
        ("windows", frame(WINDOW_UPDATE, 0, &[0; 4]), flood),
        ("data", frame(DATA, 0, b"x"), none),
        ("empty data", frame(DATA, 0, b""), flood),
        ("ends of streams", frame(DATA, END_STREAM, b""), none),
        ("padding alone", frame(DATA, PADDED, b"\x02xx"), flood),
        ("padding of no byte alone", frame(DATA, PADDED, b"\0"), flood),
        ("padding longer than its frame", frame(DATA, PADDED, b"\xffxx"), flood),
        ("padding of no byte at all", frame(DATA, PADDED, b""), flood),
        ("padded data", frame(DATA, PADDED, b"\x01xx"), none),
        ("padded ends", frame(DATA, PADDED | END_STREAM, b"\x02xx"), none),
        ("heads", frame(HEADERS, 4, b"x"), none),
        ("empty heads", frame(HEADERS, END_STREAM, b""), flood),
        ("parts of heads", frame(CONTINUATION, 0, b"x"), none),
        ("empty parts of heads", frame(CONTINUATION, 0, b""), flood),
    ] {
        assert_eq!(most(&mut begun(), &frame, SECOND), wanted, "{what}");
    }
}

#[test]
fn tokens_come_back_with_time() {
    let (reset, ping) = (frame(RST_STREAM, 0, &[0; 4]), frame(PING, 0, &[0; 8]));
    let mut counter = begun();
    assert_eq!(most(&mut counter, &reset, SECOND).0, 1_000);
    assert_eq!(most(&mut counter, &ping, SECOND).0, 1_000, "another bucket");
    for second in 2..5 {
        assert_eq!(most(&mut counter, &reset, second * SECOND).0, 33);
        assert_eq!(most(&mut counter, &ping, second * SECOND).0, 1_000);
    }
    assert_eq!(most(&mut counter, &reset, 1_000 * SECOND).0, 1_000, "no more than at once");
}

#[test]
fn windows_are_earned_by_what_was_written() {
    let window = frame(WINDOW_UPDATE, 0, &[0; 4]);
    let mut counter = begun();
    assert_eq!(most(&mut counter, &window, SECOND).0, 1_000);
    counter.note_written(5 * 1_024 - 1, 0);
    assert_eq!(most(&mut counter, &window, SECOND).0, 4);
    counter.note_written(1, 0);
    assert_eq!(most(&mut counter, &window, SECOND).0, 1);
    counter.note_written(usize::MAX >> 1, 0);
    counter.note_written(usize::MAX >> 1, 0);
    assert_eq!(most(&mut counter, &window, SECOND).0, 16 << 10, "not earned for ever");
}

#[test]
fn frames_of_data_earn_pings_and_windows() {
    let (ping, window) = (frame(PING, 0, &[0; 8]), frame(WINDOW_UPDATE, 0, &[0; 4]));
    let mut sent = ResetCounter::new();
    let mut counter = begun();
    assert_eq!(most(&mut counter, &ping, SECOND).0, 1_000);
    let message = [frame(DATA, 0, b"0123456789"), frame(HEADERS, 4, b"x")].concat();
    message.chunks(4).for_each(|piece| sent.read(piece, SECOND).unwrap());
    assert_eq!(sent.take_data_frames(), 1);
    counter.note_written(0, 1);
    assert_eq!([&window, &window, &ping].map(|frame| counter.read(frame, SECOND)), [Ok(()); 3]);
    assert_eq!(counter.read(&ping, SECOND), Err(Excess::Flood));
    assert_eq!(counter.read(&frame(2, 0, &[0; 5]), SECOND), Err(Excess::Flood), "nothing else is earned");
    counter.note_written(0, 1 << 40);
    assert_eq!(most(&mut counter, &ping, SECOND).0, 10_000, "nor for ever");
}

#[test]
fn a_client_of_grpc_that_answers_each_message_is_no_flood() {
    let mut counter = begun();
    // A minute of 10,000 messages a second: each is measured by a ping, and opens both windows.
    for message in 0..600_000 {
        let now = SECOND + message * 100;
        counter.note_written(24, 1);
        for frame in [frame(WINDOW_UPDATE, 0, &[0; 4]), frame(WINDOW_UPDATE, 0, &[0; 4]), frame(PING, 0, &[0; 8])] {
            assert_eq!(counter.read(&frame, now), Ok(()), "{message}");
        }
    }
}

#[test]
fn frames_count_alike_wherever_they_are_cut() {
    let mut bytes = preface();
    // Payloads that look like frames.
    let reset = frame(RST_STREAM, 0, &[0; 4]);
    bytes.extend(frame(SETTINGS, 0, &[0; 12]));
    bytes.extend(frame(DATA, PADDED, &[&[3], &reset[..], b"..."].concat()));
    bytes.extend(frame(DATA, PADDED, &[3, 1, 2, 3]));
    bytes.extend(frame(HEADERS, 5, &reset));
    bytes.extend(frame(DATA, 0, b""));
    bytes.extend(frame(0x20, 0, &[&reset[..], &[7; 300]].concat()));
    bytes.extend(&reset);
    bytes.extend(frame(PING, 0, &[0; 8]));
    let counted = |counter: &FrameCounter| {
        let tokens = |bucket: &Bucket| (bucket.full - SECOND) / bucket.each;
        (tokens(&counter.resets), tokens(&counter.controls))
    };
    for first in 0..=bytes.len() {
        let mut counter = FrameCounter::new();
        counter.read(&bytes[..first], SECOND).unwrap();
        counter.read(&bytes[first..], SECOND).unwrap();
        assert_eq!(counted(&counter), (1, 24), "{first}");
    }
    let mut counter = FrameCounter::new();
    bytes.iter().for_each(|byte| counter.read(&[*byte], SECOND).unwrap());
    assert_eq!(counted(&counter), (1, 24));
}

#[test]
fn a_head_is_late_from_its_first_byte_on() {
    let mut counter = begun();
    let head = frame(HEADERS, 1, &[0; 20]);
    let rest = frame(CONTINUATION, END_HEADERS, &[0; 3]);
    assert_eq!(counter.head_began(), None);
    for (at, byte) in [&head[..], &rest].concat().iter().enumerate() {
        counter.read(&[*byte], SECOND + at as Micros).unwrap();
        assert_eq!(counter.head_began(), (at + 1 < head.len() + rest.len()).then_some(SECOND), "{at}");
    }
    counter.read(&frame(PING, 0, &[0; 8])[..12], SECOND).unwrap();
    assert_eq!(counter.head_began(), None, "a payload may take its time");
}

#[test]
fn of_the_resets_of_this_process_those_count_that_the_client_has_caused() {
    for (code, wanted) in [(1, (100, Some(Excess::Resets))), (2, (20_000, None)), (8, (20_000, None))] {
        let mut counter = ResetCounter::new();
        let reset = frame(RST_STREAM, 0, &[0, 0, 0, code]);
        assert_eq!(most_of(|| counter.read(&reset, SECOND)), wanted, "{code}");
        assert!(counter.take_resets() >= wanted.0 as u64 && counter.take_resets() == 0);
        assert_eq!(most_of(|| counter.read(&frame(SETTINGS, 0, &[0; 6]), SECOND)), (20_000, None));
    }
}

#[test]
fn a_backend_begins_with_its_settings_and_may_send_more() {
    let ping = frame(PING, 0, &[0; 8]);
    let mut counter = FrameCounter::of_backend();
    let settings = frame(SETTINGS, 0, &[0; 6]);
    counter.read(&settings[..14], SECOND).unwrap();
    assert!(!counter.has_settings());
    counter.read(&settings[14..], SECOND).unwrap();
    assert!(counter.has_settings());
    assert_eq!(most(&mut counter, &ping, SECOND), (20_000, None));
    let passed = (0..10).map(|_| most(&mut counter, &ping, SECOND)).find(|(_, excess)| excess.is_some());
    assert_eq!(passed.unwrap().1, Some(Excess::Flood));
    assert_eq!(FrameCounter::of_backend().read(b"HTTP/1.1 400 Bad", SECOND), Err(Excess::NoSettings));
    assert_eq!(ResetCounter::to_backend().read(&preface(), SECOND), Ok(()));
}

#[test]
fn the_first_frame_is_settings() {
    for first in [frame(HEADERS, 5, &[0; 9]), frame(SETTINGS, ACK, &[]), frame(PING, 0, &[0; 8])] {
        let mut counter = FrameCounter::new();
        let bytes = [&preface()[..24], &first].concat();
        assert_eq!(counter.read(&bytes, SECOND), Err(Excess::NoSettings));
    }
}

#[test]
fn a_browser_is_no_flood() {
    let mut counter = begun();
    counter.read(&frame(SETTINGS, 0, &[0; 24]), SECOND).unwrap();
    counter.read(&frame(WINDOW_UPDATE, 0, &[0; 4]), SECOND).unwrap();
    // An hour of pages with 100 requests a second, of which one in five is given up, each with a body of 100 KiB.
    for second in 1..3_600 {
        for request in 0..100 {
            let now = second * SECOND + request;
            counter.read(&frame(HEADERS, 0x25, &[0; 200]), now).unwrap();
            counter.read(&frame(0x10, 0, b"u=1, i"), now).unwrap();
            counter.note_written(100 << 10, 7);
            for _ in 0..7 {
                counter.read(&frame(WINDOW_UPDATE, 0, &[0; 4]), now).unwrap();
            }
            if request % 5 == 0 {
                counter.read(&frame(RST_STREAM, 0, &[0; 4]), now).unwrap();
            }
        }
        counter.read(&frame(PING, 0, &[0; 8]), second * SECOND).unwrap();
        counter.read(&frame(SETTINGS, ACK, &[]), second * SECOND).unwrap();
    }
}
