//! Reads a stick-table file, one frame at a time.
//!
//! Uses only bytes that a checksum covers, and needs no more memory than one frame. Invariant: `load` puts an entry
//! into a stick table only if its frame is good; after `check` of the whole file, `load` loads all or nothing.

use std::io::{self, ErrorKind, Read};

use ahash::AHashMap;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    BODY_MAX, END, ENTRIES, FileRefused, HEADER_BYTES, MAGIC, RECORD_BYTES, SECTION, VERSION, frame_sum, name_hash,
};
use crate::sticky::table::{BackendId, KeyHash, Minute, Secret, StickTable, TableEntry};

/// Header of a stick-table file.
#[derive(Debug, Clone)]
pub struct FileHeader {
    /// When the file was written, in Unix seconds.
    pub written_s: u64,
    /// Secret of the entries; a stick table with another secret would not find them.
    pub secret: Secret,
}

/// The stick table that a section is loaded into.
#[derive(Debug)]
pub struct SectionTarget<'a> {
    /// The table, made with the secret of the file.
    pub table: &'a StickTable,
    /// `hash_seed` of the pool's placement now.
    pub hash_seed: u64,
    /// Names of the backends configured now.
    pub backends: Vec<&'a str>,
}

/// Result of loading a section.
#[derive(Debug)]
pub struct LoadedSection {
    /// Name of the pool or group.
    pub name: String,
    /// Entries that were loaded.
    pub kept: u64,
    /// Entries that have outlived their time.
    pub over: u64,
    /// Entries of backends that are no longer configured. While there is room the table keeps that they had one, so
    /// that their clients' moves are counted.
    pub removed: u64,
    /// Entries for which there was no room.
    pub crowded: u64,
    /// Reason to refuse the section; `None` if it was loaded.
    pub refused: Option<FileRefused>,
}

/// Reads the whole file and keeps nothing: [`load`] will succeed on the same bytes.
pub fn check(input: impl Read) -> Result<FileHeader, FileRefused> {
    let (mut frames, header) = Frames::open(input)?;
    let mut entries = 0;
    let mut backends = None;
    loop {
        match frames.next()? {
            Frame::Section(section) => backends = Some(section.backends.len()),
            Frame::Entries(records) => {
                let backends = backends.ok_or(FileRefused::Absurd("entries of no section"))?;
                if records.iter().any(|record| usize::from(FileRecord::read(record).backend) >= backends) {
                    return Err(FileRefused::Absurd("an entry of no backend"));
                }
                entries += records.len() as u64;
            }
            Frame::End(said) if said == entries => return Ok(header),
            Frame::End(_) => return Err(FileRefused::Absurd("a wrong number of entries")),
        }
    }
}

/// Loads a file that was checked. `now_s`: Unix seconds; `now`: the same moment on the process's clock. `target`: the
/// stick table for a section's name, if there is one.
pub fn load<'a>(
    input: impl Read,
    now_s: u64,
    now: Minute,
    mut target: impl FnMut(&str) -> Option<SectionTarget<'a>>,
) -> Result<Vec<LoadedSection>, FileRefused> {
    let (mut frames, header) = Frames::open(input)?;
    let elapsed_min = u32::try_from(now_s.saturating_sub(header.written_s) / 60).unwrap_or(u32::MAX);
    let mut sections: Vec<LoadedSection> = Vec::new();
    let mut filling = None;
    loop {
        match frames.next()? {
            Frame::Section(section) => {
                let (loaded, next) = begin(section, &header, &mut target);
                sections.push(loaded);
                filling = next;
            }
            Frame::Entries(records) => {
                if let (Some(filling), Some(loaded)) = (&filling, sections.last_mut()) {
                    records.iter().for_each(|record| filling.put(&FileRecord::read(record), elapsed_min, now, loaded));
                }
            }
            Frame::End(_) => return Ok(sections),
        }
    }
}

/// A section that is being loaded.
struct Filling<'a> {
    table: &'a StickTable,
    /// Ids of the section's backends by their number there.
    ids: Vec<Option<BackendId>>,
    /// Id for entries of backends that are no longer configured; `None`: every backend is.
    gone: Option<BackendId>,
}

fn begin<'a>(
    section: FileSection,
    header: &FileHeader,
    target: impl FnOnce(&str) -> Option<SectionTarget<'a>>,
) -> (LoadedSection, Option<Filling<'a>>) {
    let target = match target(&section.name) {
        None => Err(FileRefused::Unknown),
        Some(target) if target.hash_seed != section.hash_seed => Err(FileRefused::OtherSeed),
        Some(target) if target.table.secret().bytes() != header.secret.bytes() => Err(FileRefused::OtherSecret),
        Some(target) => Ok(target),
    };
    let (refused, filling) = match target {
        Err(refused) => (Some(refused), None),
        Ok(SectionTarget { table, backends, .. }) => {
            let known: AHashMap<u64, BackendId> =
                backends.into_iter().filter_map(|name| Some((name_hash(name), table.ids().take(name)?))).collect();
            let ids: Vec<_> = section.backends.iter().map(|hash| known.get(hash).copied()).collect();
            let gone = if ids.contains(&None) { table.ids().take_retired() } else { None };
            (None, Some(Filling { table, ids, gone }))
        }
    };
    (LoadedSection { name: section.name, kept: 0, over: 0, removed: 0, crowded: 0, refused }, filling)
}

impl Filling<'_> {
    fn put(&self, record: &FileRecord, elapsed_min: u32, now: Minute, loaded: &mut LoadedSection) {
        let age_min = record.age_min.saturating_add(elapsed_min);
        let id = self.ids.get(usize::from(record.backend)).copied().flatten();
        let entry = |id| TableEntry::new(KeyHash(record.key), id, record.flags, age_min);
        let counter = match id.map(entry) {
            None => {
                let gone = self.gone.map(entry).filter(|gone| self.table.remembers(gone));
                gone.into_iter().for_each(|gone| self.table.restore_gone(&gone, now));
                &mut loaded.removed
            }
            Some(entry) if !self.table.remembers(&entry) => &mut loaded.over,
            Some(entry) if self.table.restore(&entry, now, self.gone) => &mut loaded.kept,
            Some(_) => &mut loaded.crowded,
        };
        *counter += 1;
    }
}

struct FileSection {
    name: String,
    hash_seed: u64,
    backends: Vec<u64>,
}

struct FileRecord {
    key: u64,
    age_min: u32,
    backend: u16,
    flags: u8,
}

impl FileRecord {
    fn read(bytes: &[u8; RECORD_BYTES]) -> Self {
        let [k0, k1, k2, k3, k4, k5, k6, k7, a0, a1, a2, a3, b0, b1, flags, _] = *bytes;
        Self {
            key: u64::from_le_bytes([k0, k1, k2, k3, k4, k5, k6, k7]),
            age_min: u32::from_le_bytes([a0, a1, a2, a3]),
            backend: u16::from_le_bytes([b0, b1]),
            flags,
        }
    }
}

enum Frame<'f> {
    Section(FileSection),
    Entries(&'f [[u8; RECORD_BYTES]]),
    End(u64),
}

/// Frames of a file, each verified by its checksum.
struct Frames<R> {
    input: R,
    header_sum: u64,
    number: u64,
    frame: Vec<u8>,
}

impl<R: Read> Frames<R> {
    fn open(mut input: R) -> Result<(Self, FileHeader), FileRefused> {
        let mut magic = [0; MAGIC.len()];
        let length = read_up_to(&mut input, &mut magic).map_err(FileRefused::Unreadable)?;
        if !MAGIC.starts_with(&magic[..length]) {
            return Err(FileRefused::Foreign);
        }
        if length < MAGIC.len() {
            return Err(FileRefused::Torn);
        }
        let mut rest = [0; HEADER_BYTES - MAGIC.len()];
        fill(&mut input, &mut rest)?;
        let header = [&magic[..], &rest].concat();
        let sum = number(&header[HEADER_BYTES - 8..]);
        if xxh3_64(&header[..HEADER_BYTES - 8]) != sum {
            return Err(FileRefused::Damaged);
        }
        // The checksum comes first, so a flipped bit is damage and not another version; it has the same position in all
        // versions.
        let version = number(&header[8..12]) as u32;
        if version != VERSION {
            return Err(FileRefused::Version(version));
        }
        let secret = header[24..40].try_into().expect("16 bytes");
        let header = FileHeader { written_s: number(&header[16..24]), secret: Secret::new(secret) };
        Ok((Self { input, header_sum: sum, number: 0, frame: Vec::new() }, header))
    }

    fn next(&mut self) -> Result<Frame<'_>, FileRefused> {
        self.read()?;
        let kind = number(&self.frame[..4]) as u32;
        if kind == END {
            self.nothing_more()?;
        }
        let body = &self.frame[8..];
        match kind {
            SECTION => section(body).map(Frame::Section),
            ENTRIES => match body.as_chunks() {
                (records, []) => Ok(Frame::Entries(records)),
                _ => Err(FileRefused::Absurd("a part of an entry")),
            },
            END if body.len() == 8 => Ok(Frame::End(number(body))),
            _ => Err(FileRefused::Absurd("a frame of no known kind")),
        }
    }

    /// Reads head, body and checksum of the next frame.
    fn read(&mut self) -> Result<(), FileRefused> {
        let mut head = [0; 8];
        fill(&mut self.input, &mut head)?;
        let length = number(&head[4..]) as usize;
        if length > BODY_MAX {
            return Err(FileRefused::Damaged);
        }
        self.frame.clear();
        self.frame.extend_from_slice(&head);
        self.frame.resize(head.len() + length, 0);
        fill(&mut self.input, &mut self.frame[head.len()..])?;
        let mut sum = [0; 8];
        fill(&mut self.input, &mut sum)?;
        if frame_sum(&self.frame, self.header_sum, self.number) != u64::from_le_bytes(sum) {
            return Err(FileRefused::Damaged);
        }
        self.number += 1;
        Ok(())
    }

    fn nothing_more(&mut self) -> Result<(), FileRefused> {
        match read_up_to(&mut self.input, &mut [0]).map_err(FileRefused::Unreadable)? {
            0 => Ok(()),
            _ => Err(FileRefused::Absurd("something after its end")),
        }
    }
}

fn section(body: &[u8]) -> Result<FileSection, FileRefused> {
    const SHORT: FileRefused = FileRefused::Absurd("a section without a name");
    let (fixed, rest) = body.split_at_checked(10).ok_or(SHORT)?;
    let (name, hashes) = rest.split_at_checked(number(&fixed[8..]) as usize).ok_or(SHORT)?;
    let name = std::str::from_utf8(name).map_err(|_| FileRefused::Absurd("a name that is no text"))?;
    let (hashes, []) = hashes.as_chunks::<8>() else { return Err(FileRefused::Absurd("a part of a backend")) };
    let backends = hashes.iter().map(|hash| u64::from_le_bytes(*hash)).collect();
    Ok(FileSection { name: name.to_owned(), hash_seed: number(&fixed[..8]), backends })
}

/// A little-endian number of up to eight bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn fill(input: &mut impl Read, buffer: &mut [u8]) -> Result<(), FileRefused> {
    input.read_exact(buffer).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => FileRefused::Torn,
        _ => FileRefused::Unreadable(error),
    })
}

/// Reads until the buffer is full or the input ends.
fn read_up_to(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match input.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}
