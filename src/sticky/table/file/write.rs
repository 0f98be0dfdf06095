//! Writes a stick-table file, one frame at a time.
//!
//! Holds one frame in memory, whatever the size of the table, and blocks no user of the table. Invariant: a file
//! without an end frame is unfinished.

use std::io::{self, Write};

use ahash::AHashMap;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    BODY_MAX, END, ENTRIES, GONE_HASH, HEADER_BYTES, MAGIC, RECORD_BYTES, SECTION, VERSION, frame_sum, name_hash,
};
use crate::sticky::table::{BackendId, Minute, Secret, StickTable, TableEntry};

/// Entries of a full frame: 64 KiB.
const RECORDS: usize = 4_096;
const FRAME_HEAD: usize = 8;

/// A stick-table file being written: a section for each stick table, then [`finish`](Self::finish).
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    header_sum: u64,
    frames: u64,
    entries: u64,
    /// Head and body of the frame being filled.
    frame: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Begins a file with this secret, written at `written_s` in Unix seconds.
    pub fn new(mut out: W, secret: &Secret, written_s: u64) -> io::Result<Self> {
        let mut header = Vec::with_capacity(HEADER_BYTES);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&[0; 4]);
        header.extend_from_slice(&written_s.to_le_bytes());
        header.extend_from_slice(&secret.bytes());
        let header_sum = xxh3_64(&header);
        header.extend_from_slice(&header_sum.to_le_bytes());
        out.write_all(&header)?;
        Ok(Self { out, header_sum, frames: 0, entries: 0, frame: Vec::new() })
    }

    /// Writes the live entries of a stick table under the name of its pool or group; returns their number. Backends
    /// that are not among `backends` have left the pool.
    pub fn section<'n>(
        &mut self,
        name: &str,
        hash_seed: u64,
        backends: impl IntoIterator<Item = &'n str>,
        table: &StickTable,
        now: Minute,
    ) -> io::Result<u64> {
        let mut body = hash_seed.to_le_bytes().to_vec();
        let length = u16::try_from(name.len()).map_err(|_| io::Error::other("the name of a pool is too long"))?;
        body.extend_from_slice(&length.to_le_bytes());
        body.extend_from_slice(name.as_bytes());
        let mut numbers = AHashMap::new();
        let seated = backends.into_iter().filter_map(|name| Some((name, table.ids().find(name)?)));
        for (number, (name, id)) in (0..=u16::MAX).zip(seated) {
            body.extend_from_slice(&name_hash(name).to_le_bytes());
            numbers.insert(id, number);
        }
        // Ids are no more than 65,535, so there is a number left.
        let gone = numbers.len() as u16;
        body.extend_from_slice(&GONE_HASH.to_le_bytes());
        self.open(SECTION);
        self.frame.extend_from_slice(&body);
        self.close()?;
        self.records(|id| numbers.get(&id).copied().unwrap_or(gone), table, now)
    }

    /// Writes the end frame and returns the output.
    pub fn finish(mut self) -> io::Result<W> {
        self.open(END);
        self.frame.extend_from_slice(&self.entries.to_le_bytes());
        self.close()?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn records(&mut self, number: impl Fn(BackendId) -> u16, table: &StickTable, now: Minute) -> io::Result<u64> {
        let before = self.entries;
        let live = table.entries(now).filter(|entry| table.remembers(entry));
        let mut records = live.map(|entry| record(&entry, number(entry.known.id))).peekable();
        while records.peek().is_some() {
            self.open(ENTRIES);
            for record in records.by_ref().take(RECORDS) {
                self.frame.extend_from_slice(&record);
                self.entries += 1;
            }
            self.close()?;
        }
        Ok(self.entries - before)
    }

    fn open(&mut self, kind: u32) {
        self.frame.clear();
        self.frame.extend_from_slice(&kind.to_le_bytes());
        self.frame.extend_from_slice(&[0; 4]);
    }

    fn close(&mut self) -> io::Result<()> {
        let length = self.frame.len() - FRAME_HEAD;
        if length > BODY_MAX {
            return Err(io::Error::other("a pool has too many backends for the stick-table file"));
        }
        self.frame[4..FRAME_HEAD].copy_from_slice(&(length as u32).to_le_bytes());
        let sum = frame_sum(&self.frame, self.header_sum, self.frames);
        self.frames += 1;
        self.out.write_all(&self.frame)?;
        self.out.write_all(&sum.to_le_bytes())
    }
}

fn record(entry: &TableEntry, backend: u16) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    record[..8].copy_from_slice(&entry.key.0.to_le_bytes());
    record[8..12].copy_from_slice(&entry.known.age_min.to_le_bytes());
    record[12..14].copy_from_slice(&backend.to_le_bytes());
    record[14] = entry.flags;
    record
}
