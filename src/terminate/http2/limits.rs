//! [`FrameCounter`]: counts what a client of HTTP/2 sends beside requests and bodies, and ends what is a flood;
//! [`ResetCounter`]: counts the resets that it causes.
//!
//! Judges no frame: h2 does, which gets the same bytes. Limits of h2 itself (streams, header lists, resets that wait) are
//! not repeated. Invariant: the result depends on the bytes and on when they came, not on how they were cut.

use super::frames::{FrameHead, FrameStep, FrameWalk};
use crate::clock::Micros;

/// Streams that a client may reset at once, and a second: as Node.js has it (`streamResetBurst`, `streamResetRate`).
const RESETS: (u64, u64) = (1_000, 33);
/// Streams that this process may have to reset for what the client did: as many as clients open before they know how
/// many they may, which RFC 9113 §6.5.2 recommends to be 100 or more.
const RESETS_CAUSED: (u64, u64) = (100, 33);
/// Frames of control, and empty ones, that a client may send at once and a second.
const CONTROLS: (u64, u64) = (1_000, 1_000);
/// The same for a backend.
const RESETS_OF_BACKEND: (u64, u64) = (100_000, 10_000);
const CONTROLS_OF_BACKEND: (u64, u64) = (100_000, 10_000);
/// What a frame of SETTINGS counts for among these.
const SETTINGS_PRICE: usize = 10;
/// Bytes to a client that earn it one WINDOW_UPDATE.
const WINDOW_STEP: u64 = 1_024;
/// Most bytes that are remembered for this.
const WINDOW_MAX: u64 = 16 << 20;
/// Frames of control that a frame of DATA to a client earns it: WINDOW_UPDATE of the stream and of the connection, as
/// clients send them that open windows by frames, and PING, by which those of gRPC measure the way.
const ANSWERS: u64 = 3;
/// Most of these that are remembered.
const ANSWERS_MAX: u64 = 10_000;

/// Bytes before the first frame (RFC 9113 §3.4).
const PREFACE: u32 = 24;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// Codes of resets for which the client has broken a rule: PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED,
/// FRAME_SIZE_ERROR, REFUSED_STREAM (RFC 9113 §7). The others tell of a backend.
const CAUSED_BY_CLIENT: [u8; 5] = [1, 3, 5, 6, 7];

/// Flag of DATA and HEADERS.
const END_STREAM: u8 = 1;
/// Flag of HEADERS and CONTINUATION.
const END_HEADERS: u8 = 4;
/// Flag of SETTINGS.
const ACK: u8 = 1;
const PADDED: u8 = 8;

/// What a client has sent too often, or too early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// Frames of control, or empty ones.
    Flood,
    /// Resets of streams.
    Resets,
    /// A first frame that is not SETTINGS (RFC 9113 §3.4).
    NoSettings,
}

/// Follows the frames of a client from its preface on.
#[derive(Debug)]
pub struct FrameCounter {
    walk: FrameWalk,
    /// The first frame has come.
    begun: bool,
    is_of_backend: bool,
    /// The settings that decide about windows are in force.
    has_settings: bool,
    resets: Bucket,
    controls: Bucket,
    /// When the head of a request began that is not complete, or the head of a frame.
    head_began: Option<Micros>,
    /// Bytes to the client that have earned no WINDOW_UPDATE yet.
    written: u64,
    /// Frames of control that frames of DATA to the client have earned.
    answers: u64,
    /// Frames that have begun and were not taken by [`Self::take_frames`].
    frames: u64,
}

impl FrameCounter {
    /// The state before the first byte of the preface.
    pub fn new() -> Self {
        Self {
            walk: FrameWalk::before(PREFACE),
            begun: false,
            is_of_backend: false,
            has_settings: false,
            resets: Bucket::new(RESETS),
            controls: Bucket::new(CONTROLS),
            head_began: None,
            written: 0,
            answers: 0,
            frames: 0,
        }
    }

    /// Follows the frames of a backend, which begin without a preface. It may reset as many streams as it was sent, and
    /// one that serves many requests a second may send frames of control for each.
    pub fn of_backend() -> Self {
        Self {
            walk: FrameWalk::default(),
            is_of_backend: true,
            resets: Bucket::new(RESETS_OF_BACKEND),
            controls: Bucket::new(CONTROLS_OF_BACKEND),
            ..Self::new()
        }
    }

    /// True once a backend has sent its settings, which are its first frame, or a client has acknowledged ours.
    pub fn has_settings(&self) -> bool {
        self.has_settings
    }

    /// Reads on. After an excess, the connection is to end.
    pub fn read(&mut self, mut bytes: &[u8], now: Micros) -> Result<(), Excess> {
        let mut result = Ok(());
        while let Some(step) = self.walk.next(&mut bytes) {
            match step {
                FrameStep::Head(head) => result = result.and(self.begin(head, now)),
                // The length of the padding of DATA.
                FrameStep::Byte(head, padding) if u32::from(padding) + 1 >= head.length => {
                    result = result.and(self.controls.take(now, Excess::Flood));
                }
                FrameStep::End(head) => self.end(head),
                FrameStep::Byte(..) => {}
            }
        }
        if self.walk.is_in_head() {
            self.head_began.get_or_insert(now);
        }
        result
    }

    /// When the head of a request began that is not complete; `None`: there is none.
    pub fn head_began(&self) -> Option<Micros> {
        self.head_began
    }

    /// The number of frames that have begun since the last call.
    pub fn take_frames(&mut self) -> u64 {
        std::mem::take(&mut self.frames)
    }

    /// Counts bytes that were written to the client, with the frames of DATA that begin in them.
    pub fn note_written(&mut self, count: usize, data_frames: u64) {
        self.written = (self.written + count as u64).min(WINDOW_MAX);
        self.answers = (self.answers + data_frames * ANSWERS).min(ANSWERS_MAX);
    }

    fn end(&mut self, head: FrameHead) {
        self.has_settings |= match self.is_of_backend {
            true => self.begun,
            false => head.kind == SETTINGS && head.has(ACK),
        };
        if head.has(END_HEADERS) {
            self.head_began = None;
        }
    }

    /// Counts the frame that begins with this head.
    fn begin(&mut self, head: FrameHead, now: Micros) -> Result<(), Excess> {
        self.frames += 1;
        if !std::mem::replace(&mut self.begun, true) && (head.kind != SETTINGS || head.has(ACK)) {
            return Err(Excess::NoSettings);
        }
        let head_began = self.head_began.unwrap_or(now);
        self.head_began = matches!(head.kind, HEADERS | CONTINUATION).then_some(head_began);
        let counts = match head.kind {
            RST_STREAM => {
                self.resets.take(now, Excess::Resets)?;
                false
            }
            DATA if head.has(END_STREAM) => false,
            DATA if head.has(PADDED) && head.length > 0 => {
                self.walk.look_at(0);
                false
            }
            DATA | HEADERS | CONTINUATION => head.length == 0,
            WINDOW_UPDATE if self.written >= WINDOW_STEP => {
                self.written -= WINDOW_STEP;
                false
            }
            PING | WINDOW_UPDATE if self.answers > 0 => {
                self.answers -= 1;
                false
            }
            // SETTINGS and PING, also as answers, of which few are asked for; PRIORITY, and types that are not known.
            _ => true,
        };
        // Each may change the windows of all streams.
        let price = if head.kind == SETTINGS { SETTINGS_PRICE } else { 1 };
        for _ in 0..if counts { price } else { 0 } {
            self.controls.take(now, Excess::Flood)?;
        }
        Ok(())
    }
}

impl Default for FrameCounter {
    fn default() -> Self {
        Self::new()
    }
}

/// Follows the frames of this process: resets, which a client can cause (MadeYouReset), and those of DATA, which it may
/// answer.
#[derive(Debug)]
pub struct ResetCounter {
    walk: FrameWalk,
    resets: Bucket,
    /// Resets that were not taken by [`Self::take_resets`].
    seen: u64,
    /// Frames of DATA that were not taken by [`Self::take_data_frames`].
    data_frames: u64,
}

impl ResetCounter {
    /// The state before the first frame.
    pub fn new() -> Self {
        Self { walk: FrameWalk::default(), resets: Bucket::new(RESETS_CAUSED), seen: 0, data_frames: 0 }
    }

    /// Follows the frames of this process to a backend, behind its preface.
    pub fn to_backend() -> Self {
        Self { walk: FrameWalk::before(PREFACE), ..Self::new() }
    }

    /// Reads on. After an excess, the connection is to end.
    pub fn read(&mut self, mut bytes: &[u8], now: Micros) -> Result<(), Excess> {
        let mut result = Ok(());
        while let Some(step) = self.walk.next(&mut bytes) {
            match step {
                FrameStep::Head(head) if head.kind == RST_STREAM => {
                    self.seen += 1;
                    // The last byte of four says why.
                    self.walk.look_at(3);
                }
                FrameStep::Head(head) if head.kind == DATA => self.data_frames += 1,
                FrameStep::Byte(_, code) if CAUSED_BY_CLIENT.contains(&code) => {
                    result = result.and(self.resets.take(now, Excess::Resets));
                }
                _ => {}
            }
        }
        result
    }

    /// The number of resets since the last call.
    pub fn take_resets(&mut self) -> u64 {
        std::mem::take(&mut self.seen)
    }

    /// The number of frames of DATA since the last call.
    pub fn take_data_frames(&mut self) -> u64 {
        std::mem::take(&mut self.data_frames)
    }
}

impl Default for ResetCounter {
    fn default() -> Self {
        Self::new()
    }
}

/// Tokens of which some are there at once, and more come with time.
#[derive(Debug)]
struct Bucket {
    /// When the bucket is full again; it is full if that is past.
    full: Micros,
    /// Time in which a token comes.
    each: Micros,
    /// Time in which an empty bucket becomes full.
    whole: Micros,
}

impl Bucket {
    fn new((burst, per_second): (u64, u64)) -> Self {
        let each = 1_000_000 / per_second;
        Self { full: 0, each, whole: each * burst }
    }

    fn take(&mut self, now: Micros, excess: Excess) -> Result<(), Excess> {
        let full = self.full.max(now) + self.each;
        if full - now > self.whole {
            return Err(excess);
        }
        self.full = full;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
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
}
