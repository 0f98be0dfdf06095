//! What was learned while the store was away, until it is told.
//!
//! Tells nobody; `keeper.rs` does. Invariant: at most [`PENDING_MAX`] entries, one for each key and of each the latest;
//! what does not fit is the earliest, and it is counted.

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::AHashMap;

/// The most that is kept: some 10 MiB.
pub const PENDING_MAX: usize = 65_536;

/// One value of a cookie as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Prefix, pool and hash.
    pub key: Box<str>,
    /// When it was learned, in milliseconds since 1970; 0 = longer ago than anything that the store knows.
    pub at_ms: u64,
    /// How long it lasts from when it is written.
    pub ttl_ms: u64,
    /// Its backend; `None` = it has ended.
    pub backend: Option<Arc<str>>,
}

/// Entries that wait.
#[derive(Debug, Default)]
pub struct Pending {
    entries: AHashMap<Box<str>, Entry>,
    /// Keys in the order of coming; of one that is no longer there nothing follows.
    order: VecDeque<Box<str>>,
}

impl Pending {
    /// Adds one; whether another one, the earliest, had to go.
    pub fn add(&mut self, entry: Entry) -> bool {
        if let Some(known) = self.entries.get_mut(&entry.key) {
            if known.at_ms <= entry.at_ms {
                *known = entry;
            }
            return false;
        }
        let full = self.entries.len() >= PENDING_MAX;
        if full && let Some(earliest) = self.order.pop_front() {
            self.entries.remove(&earliest);
        }
        self.order.push_back(entry.key.clone());
        self.entries.insert(entry.key.clone(), entry);
        full
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Takes at most so many of the earliest.
    pub fn take(&mut self, most: usize) -> Vec<Entry> {
        let count = most.min(self.order.len());
        self.order.drain(..count).filter_map(|key| self.entries.remove(&key)).collect()
    }

    /// Forgets all; how many they were.
    pub fn clear(&mut self) -> usize {
        let count = self.len();
        *self = Self::default();
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: usize, at_ms: u64) -> Entry {
        Entry { key: format!("k{key}").into(), at_ms, ttl_ms: 1, backend: None }
    }

    #[test]
    fn the_latest_word_on_a_key_is_kept_once() {
        let mut pending = Pending::default();
        for at in [5, 9, 7] {
            assert!(!pending.add(entry(1, at)));
        }
        assert!(!pending.add(entry(2, 1)));
        assert_eq!(pending.take(10), [entry(1, 9), entry(2, 1)]);
        assert_eq!(pending.len(), 0);
    }

    #[test]
    fn what_does_not_fit_is_the_earliest_and_it_is_said() {
        let mut pending = Pending::default();
        assert!((0..PENDING_MAX).all(|key| !pending.add(entry(key, 0))));
        assert!((0..1_000).all(|key| pending.add(entry(PENDING_MAX + key, 0))));
        assert_eq!(pending.len(), PENDING_MAX);
        assert_eq!(pending.order.len(), PENDING_MAX);
        assert_eq!(pending.take(1), [entry(1_000, 0)]);
    }

    #[test]
    fn it_is_taken_in_pieces() {
        let mut pending = Pending::default();
        (0..10).for_each(|key| assert!(!pending.add(entry(key, 0))));
        let taken: Vec<_> = std::iter::from_fn(|| Some(pending.take(4).len())).take_while(|count| *count > 0).collect();
        assert_eq!(taken, [4, 4, 2]);
    }
}
