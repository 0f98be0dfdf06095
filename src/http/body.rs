//! [`Body`]: finds where a body ends, over bytes that arrive in pieces.
//!
//! Looks only at chunk sizes, extensions and trailers; copies and removes nothing: a body is passed on in the framing
//! in which it came. Stricter than RFC 9112 §7.1 where readers differ: the white space that §7.1.1
//! calls bad is refused, sizes have at most 16 digits, and trailers may not hold any field that a head's reader has a
//! rule for (RFC 9110 §6.5.1 leaves them to be merged into the head).
//!
//! Invariant: the result for all bytes does not depend on how they were cut, no byte behind the body is ever counted
//! as part of it, and a refused body stays refused.

use super::field::{KnownField, is_look_alike, is_text_byte, is_token_byte};
use super::forwarded::{self, describes_client};
use super::{Framing, Refused};

/// The longest extensions of one chunk.
pub const CHUNK_EXTENSION_MAX: u16 = 256;

/// The longest extensions of all chunks of a body together.
pub const CHUNK_EXTENSIONS_MAX: u16 = 16 * 1024;

/// The longest trailer section, its empty line not counted.
pub const TRAILERS_MAX: u16 = 8 * 1024;

const SIZE_DIGITS_MAX: u8 = 16;

/// The state of reading one body.
#[derive(Debug, Clone)]
pub struct Body {
    state: State,
    /// Bytes of the body or chunk that are still to come, or the chunk size as far as it was read.
    left: u64,
    /// Bytes of the content that have come or are announced: by a length, or by the sizes of chunks so far.
    announced: u64,
    /// Digits of the chunk size read so far.
    digits: u8,
    /// Extension bytes of this chunk (`extension`) and of all chunks (`extensions`).
    extension: u16,
    extensions: u16,
    /// Trailer bytes read so far, at most [`TRAILERS_MAX`].
    trailers: u16,
    name: Name,
}

/// The part of a piece of bytes that belongs to the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scanned {
    /// How many of the bytes, from the first, belong to the body.
    pub length: usize,
    /// True if the body ends with them; bytes behind belong to the next message.
    pub complete: bool,
    /// What reading them has cost: about one for each byte between chunks, and next to nothing for those inside.
    pub work: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Complete,
    UntilClose,
    Length,
    Size,
    SizeLf,
    ExtensionName { begun: bool },
    ExtensionValue { begun: bool },
    ExtensionQuoted,
    ExtensionEscaped,
    ExtensionQuoteEnd,
    Chunk,
    ChunkCr,
    ChunkLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    LastLf,
    Refused(Refused),
}

impl Body {
    /// The state before the first byte of a body with this framing.
    pub fn new(framing: Framing) -> Self {
        let (state, left) = match framing {
            Framing::None | Framing::Length(0) => (State::Complete, 0),
            Framing::Length(length) => (State::Length, length),
            Framing::Chunked => (State::Size, 0),
            Framing::UntilClose => (State::UntilClose, 0),
        };
        let name = Name::default();
        Self { state, left, announced: left, digits: 0, extension: 0, extensions: 0, trailers: 0, name }
    }

    /// Reads the next bytes. Once the body is complete, no further byte belongs to it.
    pub fn scan(&mut self, bytes: &[u8]) -> Result<Scanned, Refused> {
        let (mut at, mut work) = (0, 0);
        while at < bytes.len() && self.state != State::Complete {
            work += 1;
            at += match self.state {
                State::UntilClose => bytes.len() - at,
                State::Length | State::Chunk => self.pass(bytes.len() - at),
                State::Size if self.digits == 0 => match small_chunk(&bytes[at..]) {
                    Some(length) => {
                        self.announce((length - SMALL_CHUNK_FRAMING) as u64);
                        length
                    }
                    None => self.pass_one(bytes[at]),
                },
                _ => self.pass_one(bytes[at]),
            };
            if let State::Refused(refused) = self.state {
                return Err(refused);
            }
        }
        Ok(Scanned { length: at, complete: self.state == State::Complete, work })
    }

    /// Bytes of the content that have come or are announced, without framing and trailers. What ends with its connection
    /// announces nothing.
    pub fn announced(&self) -> u64 {
        self.announced
    }

    fn announce(&mut self, size: u64) {
        self.announced = self.announced.saturating_add(size);
    }

    fn pass_one(&mut self, byte: u8) -> usize {
        self.state = self.step(byte).unwrap_or_else(State::Refused);
        1
    }

    /// True once the last byte of the body has been read.
    pub fn complete(&self) -> bool {
        self.state == State::Complete
    }

    /// True if the body is whole when the connection ends now; otherwise that end is a truncation (RFC 9112 §8).
    pub fn may_end_here(&self) -> bool {
        matches!(self.state, State::Complete | State::UntilClose)
    }

    /// Bytes that are to come next and that nothing has to read: the rest of a body with a length, or of a chunk.
    pub fn opaque(&self) -> u64 {
        if matches!(self.state, State::Length | State::Chunk) { self.left } else { 0 }
    }

    /// True behind the last chunk: the next byte is one of the trailers, or of the empty line that ends them.
    pub fn is_in_trailers(&self) -> bool {
        use State::{LastLf, TrailerLf, TrailerName, TrailerStart, TrailerValue};
        matches!(self.state, TrailerStart | TrailerName | TrailerValue | TrailerLf | LastLf)
    }

    /// Counts bytes of [`Self::opaque`] that have come without being read.
    pub fn pass_by(&mut self, count: usize) {
        debug_assert!(count as u64 <= self.opaque());
        self.pass(count);
    }

    /// Counts opaque bytes: how many of the `there` bytes belong to the body or chunk.
    fn pass(&mut self, there: usize) -> usize {
        let taken = usize::try_from(self.left).map_or(there, |left| left.min(there));
        self.left -= taken as u64;
        if self.left == 0 {
            self.state = if self.state == State::Chunk { State::ChunkCr } else { State::Complete };
        }
        taken
    }

    /// Reads one byte between chunks: sizes, extensions, line ends, trailers.
    fn step(&mut self, byte: u8) -> Result<State, Refused> {
        match self.state {
            State::Size => self.size(byte),
            State::SizeLf => self.end_of_size(byte),
            State::ExtensionName { .. }
            | State::ExtensionValue { .. }
            | State::ExtensionQuoted
            | State::ExtensionEscaped
            | State::ExtensionQuoteEnd => self.extension(byte),
            State::ChunkCr => expect(byte, b'\r', State::ChunkLf, Refused::BadChunkEnd),
            State::ChunkLf => expect(byte, b'\n', State::Size, Refused::BadChunkEnd),
            State::LastLf => expect(byte, b'\n', State::Complete, Refused::BareLineEnd),
            State::TrailerStart if byte == b'\r' => Ok(State::LastLf),
            State::TrailerStart | State::TrailerName | State::TrailerValue | State::TrailerLf => self.trailer(byte),
            State::Refused(refused) => Err(refused),
            state @ (State::Complete | State::UntilClose | State::Length | State::Chunk) => Ok(state),
        }
    }

    /// `chunk-size = 1*HEXDIG`, then an extension or the end of the line.
    fn size(&mut self, byte: u8) -> Result<State, Refused> {
        if let Some(digit) = char::from(byte).to_digit(16) {
            self.digits += 1;
            self.left = self.left << 4 | u64::from(digit);
            // As a length: below 2^63, for readers that count with a sign.
            let fits = self.digits <= SIZE_DIGITS_MAX && self.left <= i64::MAX.unsigned_abs();
            return if fits { Ok(State::Size) } else { Err(Refused::BadChunkSize) };
        }
        match byte {
            _ if self.digits == 0 => Err(Refused::BadChunkSize),
            b'\r' => Ok(State::SizeLf),
            b';' => self.count_extension().map(|()| State::ExtensionName { begun: false }),
            b'\n' => Err(Refused::BareLineEnd),
            _ => Err(Refused::BadChunkSize),
        }
    }

    fn end_of_size(&mut self, byte: u8) -> Result<State, Refused> {
        (self.digits, self.extension) = (0, 0);
        self.announce(self.left);
        let next = if self.left == 0 { State::TrailerStart } else { State::Chunk };
        expect(byte, b'\n', next, Refused::BareLineEnd)
    }

    /// Reads a byte of `*( ";" name [ "=" ( token / quoted-string ) ] )` (RFC 9112 §7.1.1).
    fn extension(&mut self, byte: u8) -> Result<State, Refused> {
        use State::{ExtensionEscaped, ExtensionName, ExtensionQuoteEnd, ExtensionQuoted, ExtensionValue};
        if byte == b'\n' {
            return Err(Refused::BareLineEnd);
        }
        let next = match (self.state, byte) {
            (ExtensionName { .. }, _) if is_token_byte(byte) => ExtensionName { begun: true },
            (ExtensionName { begun: true }, b'=') => ExtensionValue { begun: false },
            (ExtensionValue { begun: false }, b'"') => ExtensionQuoted,
            (ExtensionValue { .. }, _) if is_token_byte(byte) => ExtensionValue { begun: true },
            (ExtensionName { begun: true } | ExtensionValue { begun: true } | ExtensionQuoteEnd, b';') => {
                ExtensionName { begun: false }
            }
            (ExtensionName { begun: true } | ExtensionValue { begun: true } | ExtensionQuoteEnd, b'\r') => {
                return Ok(State::SizeLf);
            }
            (ExtensionQuoted, b'"') => ExtensionQuoteEnd,
            (ExtensionQuoted, b'\\') => ExtensionEscaped,
            (ExtensionQuoted | ExtensionEscaped, _) if is_text_byte(byte) => ExtensionQuoted,
            _ => return Err(Refused::BadChunkExtension),
        };
        self.count_extension().map(|()| next)
    }

    fn count_extension(&mut self) -> Result<(), Refused> {
        self.extension += 1;
        self.extensions += 1;
        let fits = self.extension <= CHUNK_EXTENSION_MAX && self.extensions <= CHUNK_EXTENSIONS_MAX;
        if fits { Ok(()) } else { Err(Refused::ChunkExtensionTooLong) }
    }

    /// A byte of a trailer line, which has the form of a field line (RFC 9112 §7.1.2).
    fn trailer(&mut self, byte: u8) -> Result<State, Refused> {
        self.trailers += 1;
        if self.trailers > TRAILERS_MAX {
            return Err(Refused::TrailerTooLong);
        }
        match (self.state, byte) {
            (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
            (State::TrailerLf, _) | (_, b'\n') => Err(Refused::BareLineEnd),
            (State::TrailerStart, _) if is_token_byte(byte) => {
                self.name = Name::default();
                self.name.push(byte);
                Ok(State::TrailerName)
            }
            (State::TrailerName, _) if is_token_byte(byte) => {
                self.name.push(byte);
                Ok(State::TrailerName)
            }
            (State::TrailerName, b':') if self.name.is_forbidden() => Err(Refused::ForbiddenTrailer),
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, _) if is_text_byte(byte) => Ok(State::TrailerValue),
            _ => Err(Refused::BadTrailer),
        }
    }
}

/// Bytes around the content of a small chunk: its size, and two ends of lines.
const SMALL_CHUNK_FRAMING: usize = 5;

/// Length of a whole chunk of 1 to 15 bytes without an extension, if the bytes begin with one: a peer that sends many
/// of them must not cost much more than one that sends few large ones.
fn small_chunk(bytes: &[u8]) -> Option<usize> {
    let [digit, b'\r', b'\n', rest @ ..] = bytes else { return None };
    let size = char::from(*digit).to_digit(16).filter(|size| *size > 0)? as usize;
    (rest.get(size..size + 2)? == b"\r\n").then_some(size + SMALL_CHUNK_FRAMING)
}

fn expect(byte: u8, wanted: u8, next: State, refused: Refused) -> Result<State, Refused> {
    if byte == wanted { Ok(next) } else { Err(refused) }
}

/// The name of a trailer field, kept while it can still be a [`KnownField`]; of a longer one the start is kept.
#[derive(Debug, Clone, Default)]
struct Name {
    bytes: [u8; Name::MAX],
    length: usize,
}

impl Name {
    const MAX: usize = forwarded::LONGEST;

    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.length) {
            *slot = byte;
        }
        self.length = (self.length + 1).min(Self::MAX + 1);
    }

    fn is_forbidden(&self) -> bool {
        let name = self.bytes.get(..self.length).unwrap_or_default();
        let start = &self.bytes[..self.length.min(Self::MAX)];
        KnownField::of(name) != KnownField::Other || is_look_alike(name) || describes_client(start)
    }
}
