//! What was asked of the store, and what became of it.
//!
//! Invariant: everything asked is counted once, when it is known what became of it; what nobody asked because the
//! breaker is open is counted only where something was to be written.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::counters::Histogram;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QueryKind {
    /// Whose is this value?
    Find,
    /// A backend has set it, or its client had to move.
    Learn,
    /// It is in use.
    Keep,
    /// It has ended.
    Forget,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QueryOutcome {
    /// Found.
    Known,
    /// Not there.
    Unknown,
    /// Written, or somebody's later word stands there.
    Stored,
    /// No answer within the budget.
    Late,
    /// The store, or the way there, said no. What was to be learned is told again.
    Failed,
    /// The store was away; it will be told.
    Later,
    /// No room.
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

/// All counts.
#[derive(Debug, Default)]
pub struct Tally {
    counts: [[AtomicU64; OUTCOMES.len()]; KINDS.len()],
    /// Times the breaker has opened.
    pub opened: AtomicU64,
    /// Learned while the store was away, or refused by it, and waiting.
    pub pending: AtomicU64,
    /// The same, and lost for want of room.
    pub overflow: AtomicU64,
    /// Entries that the store was told of when it was back.
    pub reconciled: AtomicU64,
    /// From asking to the answer; the keeper's alone.
    pub latency: Histogram,
}

impl Tally {
    pub(super) fn count(&self, kind: QueryKind, outcome: QueryOutcome) {
        self.counts[kind as usize][outcome as usize].fetch_add(1, Relaxed);
    }

    /// Every count with its two words.
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
    fn every_word_stands_where_its_count_is() {
        assert!(KINDS.iter().enumerate().all(|(index, (kind, _))| *kind as usize == index));
        assert!(OUTCOMES.iter().enumerate().all(|(index, (outcome, _))| *outcome as usize == index));
    }
}
