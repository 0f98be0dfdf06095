//! The stick table's entry of a connection: refreshed while the connection is established, and when it ends.
//!
//! Picks nothing; the pool does. Invariant: only a connection that is or was established refreshes an entry.

use super::flow::{Flow, Step};
use super::os::{Micros, Os};
use crate::pool::{Pool, Remember};

impl<O: Os> Flow<O> {
    /// Keeps the entry of a connection that has just been established, to refresh it.
    pub(super) fn keep_entry(&mut self, pool: &Pool, remember: Remember, now: Micros) {
        (self.key, self.settled) = (remember.key, Some(remember.kind));
        self.next_refresh(pool, now);
    }

    /// Returns the time of the next refresh; `None` = the connection has no entry.
    pub(super) fn refresh_at(&self) -> Option<Micros> {
        self.settled.map(|_| self.until)
    }

    /// Refreshes the entry, by the rules in force.
    pub(super) fn refresh(&mut self, step: &Step<'_, O>) {
        let (Some(kind), Some(lease)) = (self.settled, &self.lease) else { return };
        let snapshot = step.current.load();
        match snapshot.pool_of(lease.backend()) {
            Some(pool) => {
                pool.refresh(Remember { key: self.key, kind }, lease.backend(), step.now / 1_000);
                self.next_refresh(pool, step.now);
            }
            None => self.settled = None,
        }
    }

    /// Sets the time of the next refresh; no refresh follows where the pool has no stick table any more.
    fn next_refresh(&mut self, pool: &Pool, now: Micros) {
        match pool.refresh_every_ms() {
            Some(every) => self.until = now + Micros::from(every) * 1_000,
            None => self.settled = None,
        }
    }
}
