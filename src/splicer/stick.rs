//! What a connection keeps of where its client has settled: written when it stands, while it does, and when it ends.
//!
//! Chooses nothing; the pool does. Invariant: only a connection that stands, or stood, is remembered.

use super::flow::Go::{self, Stop, To};
use super::flow::{Flow, Stage, Step, Verdict};
use super::os::{Micros, Os};
use crate::pool::{Pool, PoolTable, Remember};

/// A client that waits for its backend looks so often whether that is back.
pub const LOOK_AGAIN_US: Micros = 100_000;

impl<O: Os> Flow<O> {
    /// Its connection stands: from here on its client is remembered.
    pub(super) fn settle(&mut self, pool: &Pool, remember: Remember, now: Micros) {
        if let (Some(lease), Some(table)) = (&self.lease, pool.table()) {
            table.settle(remember, lease.backend(), now / 1_000);
            (self.key, self.settled) = (remember.key, Some(remember.kind));
            self.next_refresh(table, now);
        }
    }

    /// When the entry is to be refreshed, if ever.
    pub(super) fn refresh_at(&self) -> Option<Micros> {
        self.settled.map(|_| self.until)
    }

    /// Refreshes the entry by the rules in force.
    pub(super) fn refresh(&mut self, step: &Step<'_, O>) {
        let (Some(kind), Some(lease)) = (self.settled, &self.lease) else { return };
        let snapshot = step.current.load();
        match snapshot.pool_of(lease.backend()).and_then(|pool| pool.table()) {
            Some(table) => {
                table.refresh(Remember { key: self.key, kind }, lease.backend(), step.now / 1_000);
                self.next_refresh(table, step.now);
            }
            None => self.settled = None,
        }
    }

    fn next_refresh(&mut self, table: &PoolTable, now: Micros) {
        self.until = now + Micros::from(table.refresh_every_ms()) * 1_000;
    }

    /// Waits for the backend it has settled at.
    pub(super) fn await_settled(&mut self, step: &mut Step<'_, O>) -> Go {
        if let Some(ended) = self.client_failure(step) {
            return Stop(Verdict::End(ended));
        }
        if step.now >= self.until { To(Stage::Pick) } else { Stop(Verdict::Wait) }
    }
}
