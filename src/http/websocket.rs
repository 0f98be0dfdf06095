//! [`FrameReader`]: where the frames of a WebSocket begin and end (RFC 6455 §5.2).
//!
//! Reads headers and skips payloads: it holds no byte of them, joins no message, and removes no mask. Compression does
//! not matter here, because an extension may use reserved bits and the payload, and leaves the header as it is. Bytes
//! that are no frames end the reading for good. Invariant: the position is the same however the bytes were cut.

/// Close code for a client: the service restarts, and the client may connect again (IANA WebSocket close codes).
pub const SERVICE_RESTART: u16 = 1012;
/// Close code for a backend: its client goes away (RFC 6455 §7.4.1).
pub const GOING_AWAY: u16 = 1001;

/// Last bit of a message.
const FIN: u8 = 0x80;
/// Reserved bits that no registered extension uses; compression uses the other one (RFC 7692 §6).
const UNKNOWN_BITS: u8 = 0x30;
const OPCODE: u8 = 0x0F;
const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
/// First opcode of control frames.
const CLOSE: u8 = 8;
const PONG: u8 = 10;
/// Second byte of a header: the payload is masked.
const MASK: u8 = 0x80;
const LENGTH: u8 = 0x7F;
/// Length fields that announce a longer one: of two bytes, and of eight.
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;
const MASK_KEY: u64 = 4;

/// Sender of the frames. Frames of a client are masked, and those of a server are not (RFC 6455 §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// The peer that asked for the Upgrade.
    Client,
    /// The peer that accepted it.
    Server,
}

/// Place of the bytes so far among the frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// Between two frames: a control frame may stand here, also between the frames of one message (RFC 6455 §5.4).
    Boundary,
    /// Inside of a frame.
    Inside,
    /// Behind a Close frame, which is the last one.
    Closed,
    /// Unknown: the bytes were no frames.
    Lost,
}

/// Follows the frames of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameReader {
    /// Bytes of the frame that are still to come, once the length is known.
    rest: u64,
    /// The header up to the length, as far as it has come.
    header: [u8; 10],
    have: u8,
    sender: Sender,
    /// The first frame of a message has come, and not the last one.
    in_message: bool,
    /// The frame is a Close frame.
    closing: bool,
    lost: bool,
}

impl FrameReader {
    /// A reader for the frames of this sender, from the first one on.
    pub fn of(sender: Sender) -> Self {
        Self { rest: 0, header: [0; 10], have: 0, sender, in_message: false, closing: false, lost: false }
    }

    /// Reads on.
    pub fn read(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && matches!(self.position(), Position::Boundary | Position::Inside) {
            bytes = &bytes[self.step(bytes)..];
        }
    }

    /// Place of the bytes that were read.
    pub fn position(&self) -> Position {
        match (self.lost, self.rest > 0 || self.have > 0) {
            (true, _) => Position::Lost,
            (false, true) => Position::Inside,
            (false, false) if self.closing => Position::Closed,
            (false, false) => Position::Boundary,
        }
    }

    /// Number of the next bytes, out of these, that belong to the frame which has begun; 0 if none has.
    pub fn rest_of_frame(&self, bytes: &[u8]) -> usize {
        let (mut ahead, mut count) = (*self, 0);
        while count < bytes.len() && ahead.position() == Position::Inside {
            count += ahead.step(&bytes[count..]);
        }
        count
    }

    /// Reads a part of a header, or as much of a payload as there is; returns the number of bytes.
    fn step(&mut self, bytes: &[u8]) -> usize {
        if self.rest > 0 {
            let count = usize::try_from(self.rest).map_or(bytes.len(), |rest| rest.min(bytes.len()));
            self.rest -= count as u64;
            return count;
        }
        // Nearly every header comes whole, and most are short.
        if self.have == 0
            && let [first, second, ..] = *bytes
        {
            (self.header[0], self.header[1]) = (first, second);
            self.begin();
            match second & LENGTH {
                LENGTH_16.. => self.have = 2,
                _ => self.rest = self.length(),
            }
            return 2;
        }
        let have = usize::from(self.have);
        let count = (self.header_length() - have).min(bytes.len());
        self.header[have..have + count].copy_from_slice(&bytes[..count]);
        self.have += count as u8;
        if have < 2 && self.have == 2 {
            self.begin();
        }
        if self.have >= 2 && usize::from(self.have) == self.header_length() {
            (self.rest, self.have) = (self.length(), 0);
        }
        count
    }

    /// Number of bytes up to the end of the length; 2 until both are there, as they tell it.
    fn header_length(&self) -> usize {
        match self.header[1] & LENGTH {
            LENGTH_16 if self.have >= 2 => 4,
            LENGTH_64 if self.have >= 2 => 10,
            _ => 2,
        }
    }

    /// Judges the first two bytes of a header.
    fn begin(&mut self) {
        let [first, second, ..] = self.header;
        let (opcode, ends) = (first & OPCODE, first & FIN != 0);
        let fits = match opcode {
            CONTINUATION => self.in_message,
            TEXT..=BINARY => !self.in_message,
            CLOSE..=PONG => ends && second & LENGTH < LENGTH_16,
            _ => false,
        };
        let masked = second & MASK != 0;
        self.lost = !fits || first & UNKNOWN_BITS != 0 || masked != (self.sender == Sender::Client);
        self.closing = opcode == CLOSE;
        if opcode < CLOSE {
            self.in_message = !ends;
        }
    }

    /// Number of bytes behind the length, mask key included.
    fn length(&mut self) -> u64 {
        let [_, second, long @ ..] = self.header;
        let length = match second & LENGTH {
            LENGTH_16 => u64::from(u16::from_be_bytes([long[0], long[1]])),
            LENGTH_64 => u64::from_be_bytes(long),
            short => u64::from(short),
        };
        // The highest bit of a length is 0.
        self.lost |= length > u64::MAX >> 1;
        (length & (u64::MAX >> 1)) + if second & MASK == 0 { 0 } else { MASK_KEY }
    }
}

/// A Close frame with this code, for a client.
pub fn close_frame(code: u16) -> [u8; 4] {
    let [high, low] = code.to_be_bytes();
    [FIN | CLOSE, 2, high, low]
}

/// A Close frame with this code, for a backend. The key must be one that the client could not choose (RFC 6455 §10.3).
pub fn masked_close_frame(code: u16, key: [u8; 4]) -> [u8; 8] {
    let [high, low] = code.to_be_bytes();
    [FIN | CLOSE, MASK | 2, key[0], key[1], key[2], key[3], high ^ key[0], low ^ key[1]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// A frame of a sender, with a payload that looks like headers.
    fn frame(sender: Sender, first: u8, length: usize) -> Vec<u8> {
        let mask = if sender == Sender::Client { MASK } else { 0 };
        let mut bytes = vec![first];
        match length {
            0..126 => bytes.push(mask | length as u8),
            126..65_536 => {
                bytes.push(mask | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        if mask != 0 {
            bytes.extend([0x88, 0x82, 0x03, 0xF4]);
        }
        bytes.extend([0x88, 0x02, 0x03, 0xF4].iter().cycle().take(length));
        bytes
    }

    /// Text, a compressed message in fragments with control frames between them, empty frames, and Close.
    fn conversation(sender: Sender) -> Vec<Vec<u8>> {
        let frames = [
            (0x81, 5),
            (0x41, 0),
            (0x89, 125),
            (0x00, 126),
            (0x8A, 0),
            (0x00, 0),
            (0x80, 3),
            (0xC2, 300),
            (0x82, 0),
            (0x88, 2),
        ];
        frames.map(|(first, length)| frame(sender, first, length)).to_vec()
    }

    #[test]
    fn every_boundary_is_found_wherever_the_bytes_are_cut() {
        for sender in [Sender::Client, Sender::Server] {
            let frames = conversation(sender);
            let all = frames.concat();
            let mut expected = vec![Position::Inside; all.len() + 1];
            let mut end = 0;
            expected[0] = Position::Boundary;
            for frame in &frames {
                end += frame.len();
                expected[end] = Position::Boundary;
            }
            expected[end] = Position::Closed;
            for first in 0..=all.len() {
                let mut reader = FrameReader::of(sender);
                reader.read(&all[..first]);
                assert_eq!(reader.position(), expected[first], "{first}");
                for second in first..=all.len() {
                    let mut reader = reader;
                    reader.read(&all[first..second]);
                    assert_eq!(reader.position(), expected[second], "{first} {second}");
                }
                let rest = expected[first..].iter().position(|position| *position != Position::Inside);
                assert_eq!(reader.rest_of_frame(&all[first..]), rest.unwrap_or_default(), "{first}");
                let part = all.len().min(first + 40);
                assert_eq!(reader.rest_of_frame(&all[first..part]), rest.unwrap_or_default().min(part - first));
            }
            let mut reader = FrameReader::of(sender);
            all.iter().for_each(|byte| reader.read(&[*byte]));
            assert_eq!(reader.position(), Position::Closed);
            reader.read(b"bytes behind the last frame");
            assert_eq!(reader.position(), Position::Closed);
        }
    }

    #[test]
    fn a_payload_of_any_length_is_skipped() {
        for sender in [Sender::Client, Sender::Server] {
            for length in [0, 1, 125, 126, 127, 128, 65_535, 65_536, 1 << 20] {
                let bytes = frame(sender, 0x82, length);
                let mut reader = FrameReader::of(sender);
                for piece in bytes.chunks(16 * 1024) {
                    assert_ne!(reader.position(), Position::Lost);
                    reader.read(piece);
                }
                assert_eq!(reader.position(), Position::Boundary, "{length}");
                // A longer form of the length than it needs.
                let mut reader = FrameReader::of(Sender::Server);
                reader.read(&[0x82, 126, 0, 1, b'x']);
                assert_eq!(reader.position(), Position::Boundary);
            }
        }
        let mut longest = vec![0x82, 0xFF];
        longest.extend((u64::MAX >> 1).to_be_bytes());
        let mut reader = FrameReader::of(Sender::Client);
        reader.read(&longest);
        reader.read(&[0; 70_000]);
        assert_eq!(reader.position(), Position::Inside);
        assert_eq!(reader.rest_of_frame(&[0; 1_000]), 1_000);
    }

    #[test]
    fn bytes_that_are_no_frames_are_lost_for_good() {
        let too_long = [0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0];
        for (what, sender, bytes) in [
            ("a masked frame of a server", Sender::Server, &[0x81, 0x81][..]),
            ("a frame of a client without a mask", Sender::Client, &[0x81, 0x01]),
            ("a continuation of nothing", Sender::Server, &[0x80, 0]),
            ("a message in a message", Sender::Server, &[0x01, 0, 0x81, 0]),
            ("a control frame in fragments", Sender::Server, &[0x09, 0]),
            ("a long control frame", Sender::Server, &[0x89, 126]),
            ("an unknown opcode", Sender::Server, &[0x83, 0]),
            ("an unknown control frame", Sender::Server, &[0x8B, 0]),
            ("the second reserved bit", Sender::Server, &[0xA1, 0]),
            ("the third reserved bit", Sender::Server, &[0x91, 0]),
            ("a length of 2^63", Sender::Server, &too_long),
            ("text", Sender::Server, b"first"),
        ] {
            let mut reader = FrameReader::of(sender);
            reader.read(bytes);
            assert_eq!(reader.position(), Position::Lost, "{what}");
            reader.read(&frame(sender, 0x81, 1));
            assert_eq!((reader.position(), reader.rest_of_frame(b"x")), (Position::Lost, 0), "{what}");
        }
    }

    #[test]
    fn random_bytes_are_read_alike_in_one_piece_and_in_many() {
        let mut random = Random::new(1);
        for _ in 0..20_000 {
            let mut bytes: Vec<u8> = (0..random.below(40)).map(|_| random.below(256) as u8).collect();
            // Most random bytes are no frame; these begin as one.
            if let Some(first) = bytes.first_mut() {
                *first &= 0x8F;
            }
            let sender = random.one_of(&[Sender::Client, Sender::Server]);
            let (mut whole, mut pieces) = (FrameReader::of(sender), FrameReader::of(sender));
            whole.read(&bytes);
            for byte in &bytes {
                pieces.read(&[*byte]);
            }
            assert_eq!(whole.position(), pieces.position(), "{bytes:?}");
        }
    }

    #[test]
    fn close_frames_are_frames_with_their_code() {
        let frame = close_frame(SERVICE_RESTART);
        assert_eq!(frame, [0x88, 0x02, 0x03, 0xF4]);
        let masked = masked_close_frame(GOING_AWAY, [1, 2, 3, 4]);
        assert_eq!(u16::from_be_bytes([masked[6] ^ 1, masked[7] ^ 2]), 1001);
        for (sender, bytes) in [(Sender::Server, &frame[..]), (Sender::Client, &masked)] {
            let mut reader = FrameReader::of(sender);
            reader.read(bytes);
            assert_eq!(reader.position(), Position::Closed);
        }
    }
}
