//! Values that were learned and are not written to the store yet.
//!
//! Writes nothing; `task.rs` does. Invariant: at most [`PENDING_MAX`] entries, or as many as it was made for, one for each
//! key, the latest; beyond that the entry that was learned first is dropped, in whatever order they came, and counted.

use std::collections::BTreeSet;
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use ahash::AHashMap;

/// Most entries that wait, about 10 MiB.
pub const PENDING_MAX: usize = 65_536;

/// One value of a cookie as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingValue {
    /// Prefix, pool and hash of the value.
    pub key: Box<str>,
    /// When it was learned, in milliseconds since 1970; 0 only prolongs and never replaces an entry.
    pub at_ms: u64,
    /// Time to live from the moment of the write, in milliseconds.
    pub ttl_ms: u64,
    /// The backend's name; `None` deletes the value.
    pub backend: Option<Arc<str>>,
}

/// When an entry was learned, and its key.
type QueuePlace = (u64, Box<str>);

/// The entries that wait, in the order in which they were learned.
#[derive(Debug)]
pub struct Pending {
    most: usize,
    entries: AHashMap<Box<str>, PendingValue>,
    /// Position of each entry in the queue.
    order: BTreeSet<QueuePlace>,
    /// The entry that was taken last. A refused entry that comes back waits until all others were tried.
    taken: Option<QueuePlace>,
}

impl Default for Pending {
    fn default() -> Self {
        Self::of(PENDING_MAX)
    }
}

impl Pending {
    /// An empty queue for at most so many entries.
    pub fn of(most: usize) -> Self {
        Self { most, entries: AHashMap::default(), order: BTreeSet::new(), taken: None }
    }

    /// Adds an entry, unless a later one of its key waits. True if the earliest entry was dropped for it.
    pub fn add(&mut self, entry: PendingValue) -> bool {
        if let Some(known) = self.entries.get(&entry.key) {
            if known.at_ms > entry.at_ms {
                return false;
            }
            self.order.remove(&known.place());
        }
        self.order.insert(entry.place());
        self.entries.insert(entry.key.clone(), entry);
        let over = self.entries.len() > self.most;
        if over && let Some((_, earliest)) = self.order.pop_first() {
            self.entries.remove(&earliest);
        }
        over
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Takes at most `most` entries: from the one learned next after the last that was taken, and round to the
    /// earliest.
    pub fn take(&mut self, most: usize) -> Vec<PendingValue> {
        let most = most.min(self.len());
        let mut entries = Vec::with_capacity(most);
        while entries.len() < most {
            let next = match &self.taken {
                Some(taken) => self.order.range((Excluded(taken), Unbounded)).next().or_else(|| self.order.first()),
                None => self.order.first(),
            };
            let Some(place) = next.cloned() else { break };
            self.order.remove(&place);
            entries.extend(self.entries.remove(&place.1));
            self.taken = Some(place);
        }
        entries
    }

    /// Takes all entries with their order.
    pub fn take_all(&mut self) -> Self {
        std::mem::replace(self, Self::of(self.most))
    }

    /// Drops all entries and returns their number.
    pub fn clear(&mut self) -> usize {
        self.take_all().len()
    }
}

impl PendingValue {
    fn place(&self) -> QueuePlace {
        (self.at_ms, self.key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: usize, at_ms: usize) -> PendingValue {
        PendingValue { key: format!("k{key}").into(), at_ms: at_ms as u64, ttl_ms: 1, backend: None }
    }

    #[test]
    fn the_latest_word_on_a_key_is_kept_once() {
        let mut pending = Pending::default();
        for at in [5, 9, 7] {
            assert!(!pending.add(entry(1, at)));
        }
        assert!(!pending.add(entry(2, 1)));
        assert_eq!(pending.take(10), [entry(2, 1), entry(1, 9)]);
        assert_eq!((pending.len(), pending.order.len()), (0, 0));
    }

    #[test]
    fn what_does_not_fit_is_what_was_learned_first_and_it_is_said() {
        let mut pending = Pending::default();
        assert!((0..PENDING_MAX).all(|at| !pending.add(entry(at, at))));
        assert!((0..1_000).all(|at| pending.add(entry(PENDING_MAX + at, PENDING_MAX + at))));
        assert_eq!((pending.len(), pending.order.len()), (PENDING_MAX, PENDING_MAX));
        assert_eq!(pending.take(1), [entry(1_000, 1_000)]);
    }

    #[test]
    fn a_queue_that_was_made_for_less_stays_as_small() {
        let mut pending = Pending::of(2);
        assert_eq!((0..4).filter(|at| pending.add(entry(*at, *at))).count(), 2);
        assert_eq!(pending.take_all().take(9), [entry(2, 2), entry(3, 3)]);
        assert_eq!((0..4).filter(|at| pending.add(entry(*at, *at))).count(), 2);
        assert_eq!(pending.clear(), 2);
    }

    #[test]
    fn what_comes_back_unwritten_drives_out_nothing_that_was_learned_later() {
        let mut pending = Pending::default();
        (0..PENDING_MAX).for_each(|at| assert!(!pending.add(entry(at, at))));
        let unwritten = pending.take(usize::MAX);
        (PENDING_MAX..PENDING_MAX + 1_000).for_each(|at| assert!(!pending.add(entry(at, at))));
        assert_eq!(unwritten.into_iter().filter(|entry| pending.add(entry.clone())).count(), 1_000);
        let mut kept: Vec<_> = pending.take(usize::MAX).iter().map(|entry| entry.at_ms as usize).collect();
        kept.sort_unstable();
        assert!(kept.into_iter().eq(1_000..PENDING_MAX + 1_000));
    }

    #[test]
    fn what_nobody_would_have_lets_the_others_go_first() {
        let mut pending = Pending::default();
        (0..10).for_each(|at| assert!(!pending.add(entry(at, at))));
        for expected in [0..4, 4..8] {
            let taken = pending.take(4);
            assert!(taken.iter().map(|entry| entry.at_ms as usize).eq(expected));
            taken.into_iter().for_each(|entry| assert!(!pending.add(entry)));
        }
        assert_eq!(pending.take(4), [entry(8, 8), entry(9, 9), entry(0, 0), entry(1, 1)]);
    }

    #[test]
    fn it_is_taken_in_pieces() {
        let mut pending = Pending::default();
        (0..10).for_each(|key| assert!(!pending.add(entry(key, 0))));
        let taken: Vec<_> = std::iter::from_fn(|| Some(pending.take(4).len())).take_while(|count| *count > 0).collect();
        assert_eq!(taken, [4, 4, 2]);
    }
}
