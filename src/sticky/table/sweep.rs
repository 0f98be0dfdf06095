//! [`StickTable::sweep`]: removes entries that have outlived their time.
//!
//! A look-up finds no such entry, and a new entry takes its place, so the sweep is for the counts of the table alone.
//! Invariants: a sweep reads only pages that have had an entry, and no more of them than its caller allows; it begins
//! only where the census shows that there may be something to remove, and at most once in a minute.

use std::sync::{Mutex, PoisonError};

use super::census::{AgeCount, RING_AGE};
use super::{Minute, StickTable};

/// How far the sweep of a table has come.
#[derive(Debug, Default)]
pub(super) struct Sweep(Mutex<Progress>);

#[derive(Debug, Default)]
struct Progress {
    /// The next page; `None`: no sweep is under way.
    page: Option<usize>,
    /// The minute in which the table was last looked at.
    begun: Option<Minute>,
}

impl StickTable {
    /// Goes on with the sweep of the table, or begins the next one if it is time, over at most `pages` pages. Returns
    /// how many it read. `others`: the same table under the terms of other pools; an entry stays as long as one of them
    /// knows it.
    pub fn sweep<'t>(&self, others: impl IntoIterator<Item = &'t Self>, now: Minute, pages: usize) -> usize {
        let Some(buckets) = self.mapped() else { return 0 };
        let mut progress = self.sweep_state().0.lock().unwrap_or_else(PoisonError::into_inner);
        if progress.page.is_none() && progress.begun == Some(now) {
            return 0;
        }
        let longest = self.as_long_as(others);
        if progress.page.is_none() {
            progress.begun = Some(now);
            self.census().roll(now);
            if !longest.may_have_dead(now) {
                return 0;
            }
        }
        let mut read = 0;
        let mut left = buckets.used_pages(progress.page.unwrap_or(0));
        for page in left.by_ref().take(pages) {
            longest.sweep_page(page, now);
            read += 1;
        }
        progress.page = left.next();
        read
    }

    /// Whether the table may have entries that are over: some are, or were seen so long ago that no minute is known.
    fn may_have_dead(&self, now: Minute) -> bool {
        let mut dead = 0;
        self.census().ages(now, |AgeCount { age_min, is_value, count }| {
            dead += if age_min > RING_AGE || !self.lives(is_value, age_min) { count } else { 0 };
        });
        dead != 0
    }

    fn sweep_page(&self, page: usize, now: Minute) {
        let over = self.page(page, now).filter(|entry| !self.remembers(entry));
        for entry in over {
            self.forget_dead(entry.key, now);
        }
    }
}
