//! Counts of the entries of a stick table, by kind and age.
//!
//! Looks at no entry: the census counts them as they change, so the cost does not grow with the
//! table. Invariants: `known` and `by_age` are of live entries; every other count has also the entries that have outlived
//! their time and that no sweep has removed yet.

use super::census::{AgeCount, RING_AGE, whole};
use super::{BackendId, Minute, StickTable};

/// Upper bounds of the age classes, in minutes; one more class holds everything older.
pub const AGES_MIN: [u32; 10] = [1, 5, 15, 30, 60, 120, 180, 360, 720, 1_440];

const _: () = assert!(AGES_MIN[AGES_MIN.len() - 1] < RING_AGE);

/// Counts of entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Number of live entries. Of those that live for more than a day, the ones that no sweep has removed.
    pub known: u64,
    /// Live entries by age class, see [`AGES_MIN`].
    pub by_age: [u64; AGES_MIN.len() + 1],
    /// Entries that placement would find anyway.
    pub placed: u64,
    /// Entries that only the stick table has.
    pub displaced: u64,
    /// Entries for values of a learned cookie.
    pub learned: u64,
}

impl Stats {
    /// Count of each age class with its name: its upper bound, or `older`.
    pub fn ages(&self) -> impl Iterator<Item = (String, u64)> + '_ {
        let names = AGES_MIN.iter().map(|bound| format!("{bound}m")).chain(["older".to_owned()]);
        names.zip(self.by_age)
    }
}

impl StickTable {
    /// Counts of the table's entries, as this snapshot sees them.
    pub fn stats(&self, now: Minute) -> Stats {
        let [placed, displaced, learned] = self.count_kinds();
        let mut by_age = [0_i64; AGES_MIN.len() + 1];
        self.census().ages(now, |AgeCount { age_min, is_value, count }| {
            if self.lives(is_value, age_min) {
                by_age[AGES_MIN.partition_point(|bound| *bound < age_min)] += count;
            }
        });
        Stats { known: whole(by_age.iter().sum()), by_age: by_age.map(whole), placed, displaced, learned }
    }

    /// Number of entries that name this backend.
    pub fn known_at(&self, id: BackendId) -> u64 {
        self.census().of(id)
    }
}
