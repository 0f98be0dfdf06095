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
mod tests;
