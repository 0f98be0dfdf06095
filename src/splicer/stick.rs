//! The stick table's entry of a connection: refreshed while the connection is established, and when it ends.
//!
//! Picks nothing; the pool does. Invariant: only a connection that is or was established refreshes an entry.

use super::flow::{Flow, Step};
use super::os::{Micros, Os};
use crate::pool::{Pool, PoolTable, Remember};

impl<O: Os> Flow<O> {
    /// Keeps the entry of a connection that has just been established, to refresh it.
    pub(super) fn keep_entry(&mut self, pool: &Pool, remember: Remember, now: Micros) {
        if let Some(table) = pool.table() {
            (self.key, self.settled) = (remember.key, Some(remember.kind));
            self.next_refresh(table, now);
        }
    }

    /// Returns the time of the next refresh; `None` = the connection has no entry.
    pub(super) fn refresh_at(&self) -> Option<Micros> {
        self.settled.map(|_| self.until)
    }

    /// Refreshes the entry, by the rules in force.
    pub(super) fn refresh(&mut self, step: &Step<'_, O>) {
        let (Some(kind), Some(lease)) = (self.settled, &self.lease) else { return };
        let snapshot = step.current.load();
        match snapshot.pool_of(lease.backend()).and_then(|pool| pool.table()) {
            Some(table) => {
                table.refresh(Remember::new(self.key, kind), lease.backend(), step.now / 1_000);
                self.next_refresh(table, step.now);
            }
            None => self.settled = None,
        }
    }

    /// Sets the time of the next refresh.
    fn next_refresh(&mut self, table: &PoolTable, now: Micros) {
        self.until = now + Micros::from(table.refresh_every_ms()) * 1_000;
    }
}
