//! Frames of WebSockets (RFC 6455 §5), as clients write and read them.
//!
//! Judges nothing: any first byte and any length can be written. Invariant: what is read are whole frames of a server,
//! which masks none.

/// Final frames by their kind.
pub const TEXT: u8 = 0x81;
pub const BINARY: u8 = 0x82;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8a;

const MASK: [u8; 4] = [1, 2, 3, 4];

/// A frame of a client with this first byte, and its length in as few bytes as there can be.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = match payload.len() {
        length @ 0..126 => vec![0x80 | length as u8],
        length @ 126..65_536 => [&[0x80 | 126][..], &(length as u16).to_be_bytes()].concat(),
        length => [&[0x80 | 127][..], &(length as u64).to_be_bytes()].concat(),
    };
    masked_behind(&[&[first][..], &length].concat(), payload)
}

/// A masked payload behind a head that says what it says.
pub fn masked_behind(head: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut frame = [head, &MASK].concat();
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// Takes the first frame, its first byte and its payload; `None`: it is not complete.
pub fn take(bytes: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let (start, length) = match bytes.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize),
        masked @ 128.. => panic!("a server masks no frame: {masked}"),
        length => (2, usize::from(*length)),
    };
    let payload = bytes.get(start..start + length)?.to_vec();
    let first = bytes[0];
    bytes.drain(..start + length);
    Some((first, payload))
}
