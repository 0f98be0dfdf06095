//! What becomes of the result of an exchange: counters, the breaker, refusals, entries that were kept instead.
//!
//! Sends nothing. Invariant: each entry of an exchange was written, waits again, belongs to another node of the cluster, or
//! only prolonged what the next use prolongs.

use std::sync::atomic::Ordering::Relaxed;

use super::StoreTask;
use crate::clock;
use crate::sticky::table::EntryKind;
use crate::store::StoredValue;
use crate::store::access::Access;
use crate::store::batch::{BatchResult, HOPS_MAX, StoreBatch, Write};
use crate::store::breaker::BreakerState;
use crate::store::counters::{QueryKind, QueryOutcome};
use crate::store::link::{FailureKind, Put, backend};
use crate::store::node::NodeReport;
use crate::store::pending::PendingValue;
use crate::store::shared::fails;

impl StoreTask {
    /// Handles the result of an exchange.
    pub(super) fn finished(&mut self, access: &Access, finished: BatchResult) {
        let BatchResult { since, took_us, watched, entries, writes, put, broken, mut elsewhere, hops } = finished;
        self.shared.counters.latency.record_us(took_us);
        if let Some(put) = &put
            && self.shared.breaker.look() == BreakerState::Working(since)
        {
            self.check_refusals(&entries, put);
        }
        let mut put = put.into_iter().flatten();
        for (entry, write) in entries.into_iter().zip(writes) {
            match put.next() {
                Some(Put::Done) => self.written(&entry, &write, None),
                Some(Put::Other(kept)) => self.written(&entry, &write, Some(&kept)),
                Some(Put::Elsewhere(to)) if self.reporter.is_some() && hops < HOPS_MAX => {
                    elsewhere.entry(to).or_default().write(entry, write);
                }
                Some(Put::Refused(_) | Put::Elsewhere(_)) | None => self.unwritten(access, entry, &write),
            }
        }
        for (to, batch) in elsewhere {
            self.report(NodeReport::Elsewhere(to, StoreBatch { hops: hops + 1, ..batch }));
        }
        let in_time = took_us <= self.shared.budget_us.load(Relaxed);
        match broken {
            Some(broken) if broken.kind == FailureKind::Lost => {
                if self.shared.breaker.look() == BreakerState::Working(since) {
                    self.give_up_link(&broken.why);
                }
            }
            _ if watched => {}
            None if in_time => self.shared.breaker.succeeded(),
            _ => self.shared.failed(since),
        }
    }

    /// Watches for refused writes. A full Redis still accepts DEL and PEXPIRE, so only a SET shows that it accepts
    /// writes.
    fn check_refusals(&mut self, entries: &[PendingValue], put: &[Put]) {
        if entries.iter().zip(put).any(|(entry, put)| entry.backend.is_some() && *put == Put::Done) {
            self.refusal.written();
        }
        if let Some(why) = put.iter().find_map(Put::refusal) {
            self.refused(why);
        }
    }

    pub(super) fn refused(&mut self, why: &str) {
        if !self.refusal.refused() {
            return;
        }
        let complaint = self.shared.complain(&format!("it refuses writes: {why}"));
        if let Some((access, why)) = self.access.as_ref().zip(complaint) {
            fails(&format!(
                "shared store {}: {why}; it is still read, and writes are tried again every second",
                access.config
            ));
        }
    }

    fn unwritten(&mut self, access: &Access, entry: PendingValue, write: &Write) {
        // A conversation that waited has counted the failure itself.
        if write.done.is_none() && write.of.is_some() {
            self.shared.counters.count(write.kind, QueryOutcome::Failed);
        }
        if write.kind != QueryKind::Keep {
            self.keep_pending(access, entry);
        }
    }

    /// Takes note of a written entry. `kept`: the newer entry that stays instead of it.
    fn written(&self, entry: &PendingValue, write: &Write, kept: Option<&str>) {
        let Some((pool, value)) = &write.of else {
            self.shared.counters.reconciled.fetch_add(1, Relaxed);
            return;
        };
        if write.done.is_none() {
            self.shared.counters.count(write.kind, QueryOutcome::Stored);
        }
        let Some(kept) = kept.and_then(backend).map(StoredValue::read) else { return };
        let name = &*kept.backend;
        if entry.backend.as_deref().is_some_and(|text| *StoredValue::read(text).backend == *name) {
            return;
        }
        let snapshot = self.current.load();
        let known = snapshot.pools.iter().find(|known| known.sticks_as() == pool).and_then(|pool| {
            let backend = pool.backends().iter().find(|backend| backend.name() == name)?;
            Some((pool.table()?, backend))
        });
        if let Some((table, backend)) = known {
            let kind = if kept.is_set { EntryKind::Learned } else { EntryKind::Brought };
            table.learn_as(kind, value, backend, clock::now_ms());
        }
    }
}
