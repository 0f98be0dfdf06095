//! Counts of the entries of a stick table, by backend, kind and age.
//!
//! Changes nothing and blocks no thread: the table is counted slice by slice while others write. Invariant: every entry
//! that is counted was live at some moment of the count.

use std::ops::Range;

use ahash::AHashMap;

use super::{BackendId, EntryKind, Minute, StickTable};

/// Upper bounds of the age classes, in minutes; one more class holds everything older.
pub const AGES_MIN: [u32; 10] = [1, 5, 15, 30, 60, 120, 180, 360, 720, 1_440];

/// Counts of live entries. The table is counted in slices, with other work in between.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Number of live entries.
    pub known: u64,
    /// Entries by age class, see [`AGES_MIN`].
    pub by_age: [u64; AGES_MIN.len() + 1],
    /// Entries that placement would find anyway.
    pub placed: u64,
    /// Entries that only the stick table has.
    pub displaced: u64,
    /// Entries for values of a learned cookie.
    pub learned: u64,
    by_id: AHashMap<BackendId, u64>,
}

impl Stats {
    /// Adds the live entries of these buckets.
    pub fn count(&mut self, table: &StickTable, buckets: Range<usize>, now: Minute) {
        for entry in table.entries(buckets, now).filter(|entry| table.remembers(entry)) {
            self.known += 1;
            self.by_age[AGES_MIN.partition_point(|bound| *bound < entry.known.age_min)] += 1;
            *match entry.known.kind {
                EntryKind::Placed => &mut self.placed,
                EntryKind::Outgrown | EntryKind::Displaced | EntryKind::Overflowed => &mut self.displaced,
                EntryKind::Brought | EntryKind::Learned => &mut self.learned,
            } += 1;
            *self.by_id.entry(entry.known.id).or_default() += 1;
        }
    }

    /// Count of each age class with its name: its upper bound, or `older`.
    pub fn ages(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        let names = AGES_MIN.iter().map(|bound| format!("{bound}m")).chain(["older".to_owned()]);
        names.zip(self.by_age)
    }

    /// Number of live entries of this backend.
    pub fn of(&self, id: BackendId) -> u64 {
        self.by_id.get(&id).copied().unwrap_or(0)
    }
}
