//! The bytes of files that are downloaded and uploaded: no two pages of a file look alike.
//!
//! Random bytes that repeat after a prime number of them, which no size of a buffer or page divides. Invariant: a
//! piece that was lost, doubled or moved on its way differs from what stands at its place.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::sync::LazyLock;

/// The most bytes that are looked at, read or written at once.
pub const CHUNK: usize = 256 * 1024;
/// Bytes until they repeat.
const PERIOD: usize = 1_048_573;

static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .take(PERIOD.div_ceil(8))
    .flatten()
    .collect();
    bytes.truncate(PERIOD);
    bytes.extend_from_within(..CHUNK);
    bytes
});

/// The bytes from a place on, at most a chunk.
pub fn from(place: u64, most: u64) -> &'static [u8] {
    let begin = (place % PERIOD as u64) as usize;
    &BYTES[begin..][..most.min(CHUNK as u64) as usize]
}

/// Whether these bytes, at most a chunk, are those of a place.
pub fn check(place: u64, bytes: &[u8]) -> io::Result<()> {
    match bytes == from(place, bytes.len() as u64) {
        true => Ok(()),
        false => Err(io::Error::new(ErrorKind::InvalidData, format!("not the bytes of the file near {place}"))),
    }
}

/// Writes a file, and has it on its disk, so that nothing is written later beside a measurement.
pub fn write(path: &Path, length: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    let mut place = 0;
    while place < length {
        let bytes = from(place, length - place);
        file.write_all(bytes)?;
        place += bytes.len() as u64;
    }
    file.sync_all()
}
