//! Counters of the requests to the store, by kind and outcome.
//!
//! Invariant: every request is counted once, when its outcome is known; a request that is not sent because the breaker
//! is open is counted only if it is a write.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::counters::Histogram;

/// Kinds of requests, in the order of the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QueryKind {
    /// Read the backend of a value.
    Find,
    /// Write the backend of a value that was set, or of a client that moved.
    Learn,
    /// Prolong a value that is in use.
    Keep,
    /// Delete a value that has ended.
    Forget,
}

/// Outcomes of a request, in the order of the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QueryOutcome {
    /// The value was found in the store.
    Known,
    /// The store does not have the value.
    Unknown,
    /// Written, or a newer entry was kept.
    Stored,
    /// No reply came within the budget.
    Late,
    /// The connection or the store failed; a value to be learned is tried again.
    Failed,
    /// The store was away; the value waits in `pending`.
    Later,
    /// The channel to the task was full.
    Overflow,
}

const KINDS: [(QueryKind, &str); 4] =
    [(QueryKind::Find, "find"), (QueryKind::Learn, "learn"), (QueryKind::Keep, "keep"), (QueryKind::Forget, "forget")];
const OUTCOMES: [(QueryOutcome, &str); 7] = [
    (QueryOutcome::Known, "known"),
    (QueryOutcome::Unknown, "unknown"),
    (QueryOutcome::Stored, "stored"),
    (QueryOutcome::Late, "late"),
    (QueryOutcome::Failed, "failed"),
    (QueryOutcome::Later, "later"),
    (QueryOutcome::Overflow, "overflow"),
];

/// All counters of the store.
#[derive(Debug, Default)]
pub struct StoreCounters {
    counts: [[AtomicU64; OUTCOMES.len()]; KINDS.len()],
    /// Times that the breaker has opened.
    pub opened: AtomicU64,
    /// Entries that wait now, learned while the store was away or refused by it; the sum of all tasks.
    pub pending: AtomicU64,
    /// Entries that were lost because the queue was full.
    pub overflow: AtomicU64,
    /// Pending entries that were written after all.
    pub reconciled: AtomicU64,
    /// Duration of the exchanges, in microseconds; written by the task alone.
    pub latency: Histogram,
}

impl StoreCounters {
    pub(super) fn count(&self, kind: QueryKind, outcome: QueryOutcome) {
        self.counts[kind as usize][outcome as usize].fetch_add(1, Relaxed);
    }

    /// Takes note that `now` entries wait at a task, which has shown `shown` of them before.
    pub(super) fn show_pending(&self, shown: &mut u64, now: usize) {
        let before = std::mem::replace(shown, now as u64);
        self.pending.fetch_add((now as u64).wrapping_sub(before), Relaxed);
    }

    /// Every counter with its labels, kind and outcome.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
        KINDS.iter().flat_map(move |(kind, word)| {
            let of_kind = &self.counts[*kind as usize];
            OUTCOMES.iter().map(move |(outcome, other)| (*word, *other, of_kind[*outcome as usize].load(Relaxed)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_at_several_tasks_is_added_up() {
        let counters = StoreCounters::default();
        let (mut one, mut other) = (0, 0);
        counters.show_pending(&mut one, 5);
        counters.show_pending(&mut other, 7);
        counters.show_pending(&mut one, 2);
        assert_eq!(counters.pending.load(Relaxed), 9);
        counters.show_pending(&mut other, 0);
        assert_eq!(counters.pending.load(Relaxed), 2);
    }

    #[test]
    fn every_word_stands_where_its_count_is() {
        assert!(KINDS.iter().enumerate().all(|(index, (kind, _))| *kind as usize == index));
        assert!(OUTCOMES.iter().enumerate().all(|(index, (outcome, _))| *outcome as usize == index));
    }
}
