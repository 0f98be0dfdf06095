//! The stick-table file: all memories of a process as bytes, and back.
//!
//! Opens no file and knows no clock: bytes, minutes and Unix seconds are arguments. Invariant: a file is taken as it
//! was written or not at all; whatever is wrong with it costs nothing but the stick table.
//!
//! # Format, version 1
//!
//! All numbers little-endian. A header, then frames.
//!
//! | header | bytes |
//! |---|---|
//! | `"\x89SESMEM\n"` | 8 |
//! | version | 4 |
//! | zero | 4 |
//! | when it was written, Unix seconds | 8 |
//! | the secret under which its keys are hashed | 16 |
//! | XXH3-64 of the above | 8 |
//!
//! | frame | bytes |
//! |---|---|
//! | kind | 4 |
//! | length of the body, at most 1 MiB | 4 |
//! | body | |
//! | XXH3-64 of the above, seeded with the header's sum plus the number of the frame | 8 |
//!
//! So a frame counts only in its own file and place.
//!
//! | kind | body |
//! |---|---|
//! | 1 section: one stick table | hash seed of its placement 8 · length of its name 2 · name of the pool or group · for each backend XXH3-64 of its name 8 |
//! | 2 entries of the section | each: key 8 · age in minutes 4 · number of the backend in the section 2 · flags 1 · zero 1 |
//! | 3 end | number of entries in the file 8; nothing follows |
//!
//! The file holds no address and no cookie, only hashes; but the secret turns guesses into certainty, so it is written
//! for its owner's eyes (mode 0600).
//!
//! # Time
//!
//! An age grows by what the wall clock says has passed since the file was written, and by nothing if it says less than
//! nothing. From then on only the process's own clock counts.

mod read;
mod write;

#[cfg(test)]
mod tests;

use std::{fmt, io};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

pub use self::read::{FileHeader, LoadedSection, SectionTarget, check, load};
pub use self::write::Writer;

/// Of the format.
pub const VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"\x89SESMEM\n";
const HEADER_BYTES: usize = 48;
const BODY_MAX: usize = 1 << 20;
const SECTION: u32 = 1;
const ENTRIES: u32 = 2;
const END: u32 = 3;
const RECORD_BYTES: usize = 16;

/// Why a file, or a section of it, is not taken.
#[derive(Debug)]
pub enum FileRefused {
    /// It could not be read.
    Unreadable(io::Error),
    /// It ends before its end: a crash while writing, or a full disk.
    Torn,
    /// It is no stick-table file.
    Foreign,
    /// It is of another version.
    Version(u32),
    /// A sum does not agree with its bytes.
    Damaged,
    /// Its sums agree, but it says what no stick-table file says.
    Absurd(&'static str),
    /// The section was written under another `hash_seed`: the operator wants clients placed anew.
    OtherSeed,
    /// The section belongs to a pool or group that is not configured, or has no stick table.
    Unknown,
}

impl fmt::Display for FileRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(f, "cannot be read: {error}"),
            Self::Torn => f.write_str("ends too early"),
            Self::Foreign => f.write_str("is no stick-table file"),
            Self::Version(version) => write!(f, "is of version {version}, not {VERSION}"),
            Self::Damaged => f.write_str("is damaged: a checksum does not agree"),
            Self::Absurd(what) => write!(f, "makes no sense: {what}"),
            Self::OtherSeed => f.write_str("was written under another hash_seed"),
            Self::Unknown => f.write_str("belongs to no configured stick table"),
        }
    }
}

impl std::error::Error for FileRefused {}

/// What stands for a backend's name.
fn name_hash(name: &str) -> u64 {
    xxh3_64(name.as_bytes())
}

/// Of a frame's head and body.
fn frame_sum(frame: &[u8], header_sum: u64, number: u64) -> u64 {
    xxh3_64_with_seed(frame, header_sum.wrapping_add(number))
}
