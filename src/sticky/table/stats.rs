//! How many keys a stick table knows, where they live and how long ago they came.
//!
//! Takes nothing from the table and stops nobody: slices are counted one after another while others write.
//! Invariant: every entry counted was live at some moment of the count.

use std::ops::Range;

use ahash::AHashMap;

use super::{BackendId, EntryKind, Minute, StickTable};

/// Upper bounds of the ages, in minutes; what is older falls into one more.
pub const AGES_MIN: [u32; 10] = [1, 5, 15, 30, 60, 120, 180, 360, 720, 1_440];

/// A count of live entries. Whoever counts takes a slice, lets others work, and takes the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sessions known.
    pub known: u64,
    /// By age, see [`AGES_MIN`].
    pub by_age: [u64; AGES_MIN.len() + 1],
    /// Those that placement would find anyway.
    pub placed: u64,
    /// Those that it would not.
    pub displaced: u64,
    /// Those that are values of an application's cookie.
    pub learned: u64,
    by_id: AHashMap<BackendId, u64>,
}

impl Stats {
    /// Adds what lives in these of the stick table's buckets.
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

    /// How many there are of each age: at most so many minutes, then all older ones.
    pub fn ages(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        let names = AGES_MIN.iter().map(|bound| format!("{bound}m")).chain(["older".to_owned()]);
        names.zip(self.by_age)
    }

    /// How many live with this backend.
    pub fn of(&self, id: BackendId) -> u64 {
        self.by_id.get(&id).copied().unwrap_or(0)
    }
}
