//! The stick-table file: all stick tables of a process as bytes, and back.
//!
//! Opens no file and reads no clock: bytes, minutes and Unix seconds are arguments. Invariant: a file is read as it was
//! written or not at all; a bad file costs its entries and nothing else.
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
//! So a frame is valid only in its own file and position.
//!
//! | kind | body |
//! |---|---|
//! | 1 section | placement's hash seed 8 · length of the name 2 · name of pool or group · XXH3-64 of each backend 8 |
//! | 2 entries | of the section, each: key 8 · age in minutes 4 · number of its backend there 2 · flags 1 · zero 1 |
//! | 3 end | number of entries in the file 8; nothing follows |
//!
//! A section is one stick table; the hash of a backend is that of its name, and 0 stands for all backends that have left
//! the pool: their entries say that a client had a backend.
//!
//! The file holds no address and no cookie, only hashes; but the secret allows guesses to be verified, so only the
//! owner may read it (mode 0600).
//!
//! # Time
//!
//! An age grows by the time that has passed on the wall clock since the file was written; a wall clock that went back
//! adds nothing. From then on only the process's own clock counts.

mod read;
mod write;

#[cfg(test)]
mod tests;

use std::{fmt, io};

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

pub use self::read::{FileHeader, LoadedSection, SectionTarget, check, load};
pub use self::write::Writer;

/// Version of the format, in the header.
pub const VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"\x89SESMEM\n";
const HEADER_BYTES: usize = 48;
const BODY_MAX: usize = 1 << 20;
const SECTION: u32 = 1;
const ENTRIES: u32 = 2;
const END: u32 = 3;
const RECORD_BYTES: usize = 16;

/// Reasons to refuse a file or a section of it.
#[derive(Debug)]
pub enum FileRefused {
    /// The file could not be read.
    Unreadable(io::Error),
    /// The file ends before its end frame: a crash while writing, or a full disk.
    Torn,
    /// The first bytes are not those of a stick-table file.
    Foreign,
    /// The file has another version of the format.
    Version(u32),
    /// A checksum does not fit its bytes.
    Damaged,
    /// The checksums fit, but the contents contradict the format.
    Absurd(&'static str),
    /// The section was written under another `hash_seed`: the operator wants clients placed anew.
    OtherSeed,
    /// The file was written under another secret: stick tables were not shared then, or by other instances.
    OtherSecret,
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
            Self::OtherSecret => {
                f.write_str("was written under another secret: share of [store], or its secret_file, has changed")
            }
            Self::Unknown => f.write_str("belongs to no configured stick table"),
        }
    }
}

impl std::error::Error for FileRefused {}

/// Stands for backends that have left the pool; no name has this hash, or one in 2^64.
const GONE_HASH: u64 = 0;

/// Hash that stands for a backend's name.
fn name_hash(name: &str) -> u64 {
    xxh3_64(name.as_bytes())
}

/// Checksum of a frame's head and body.
fn frame_sum(frame: &[u8], header_sum: u64, number: u64) -> u64 {
    xxh3_64_with_seed(frame, header_sum.wrapping_add(number))
}
