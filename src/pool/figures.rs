//! Numbers that are counted of a backend beside its connections: moves of its clients, results of its checks.
//!
//! Decides nothing and names no series. Invariant: a number never falls.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::health::CheckState;
use crate::outcome::BreakCause;

/// A number for each cause.
#[derive(Debug, Default)]
pub(super) struct MovesByCause([AtomicU64; BreakCause::ALL.len()]);

impl MovesByCause {
    pub(super) fn of(&self, cause: BreakCause) -> u64 {
        self.0[cause as usize].load(Relaxed)
    }

    pub(super) fn count(&self, cause: BreakCause) {
        self.0[cause as usize].fetch_add(1, Relaxed);
    }
}

/// What is counted of a backend for as long as its name stays in the configuration, whatever its address.
#[derive(Debug, Default)]
pub(super) struct BackendFigures {
    /// Clients that had this backend and got another one.
    pub(super) left: MovesByCause,
    pub(super) rises: AtomicU64,
    pub(super) falls: AtomicU64,
}

impl BackendFigures {
    /// Counts a change of what the checks have found.
    pub(super) fn count_change(&self, before: CheckState, after: CheckState) {
        match (before, after) {
            (CheckState::Down | CheckState::Awaited, CheckState::Up) => self.rises.fetch_add(1, Relaxed),
            (CheckState::Unchecked | CheckState::Awaited | CheckState::Up, CheckState::Down) => {
                self.falls.fetch_add(1, Relaxed)
            }
            _ => return,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_checks_are_counted_by_where_they_lead() {
        use CheckState::{Awaited, Down, Unchecked, Up};
        let figures = BackendFigures::default();
        for (before, after) in [(Unchecked, Up), (Up, Down), (Down, Up), (Up, Down), (Awaited, Up), (Down, Unchecked)] {
            figures.count_change(before, after);
        }
        assert_eq!((figures.rises.load(Relaxed), figures.falls.load(Relaxed)), (2, 2));
    }
}
