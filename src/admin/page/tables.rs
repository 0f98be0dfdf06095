//! [`RecentTables`]: the stick tables as they were at the last look.
//!
//! Counts nothing itself. Invariant: looks take at most a share of 1 in [`TABLES_SHARE`] of the time, however often viewers
//! come and go.

use std::time::{Duration, Instant};

use super::super::StickTableView;

/// The least time between two looks at stick tables.
const TABLES_EVERY: Duration = Duration::from_secs(2);
/// A look at stick tables is so many times shorter than the time until the next one.
const TABLES_SHARE: u32 = 200;

/// Stick tables, and when to look at them again.
#[derive(Debug, Default)]
pub(super) struct RecentTables {
    tables: Vec<StickTableView>,
    /// `None`: there was no look yet.
    due: Option<Instant>,
}

impl RecentTables {
    /// The tables; counts them if it is time to.
    pub(super) fn look(&mut self, count: impl FnOnce() -> Vec<StickTableView>) -> Vec<StickTableView> {
        let now = Instant::now();
        if self.due.is_none_or(|due| now >= due) {
            self.tables = count();
            self.due = Some(now + TABLES_EVERY.max(now.elapsed() * TABLES_SHARE));
        }
        self.tables.clone()
    }
}
