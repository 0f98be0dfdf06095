//! Connections of one key at the same time: where one of them is established or about to be, the others go.
//!
//! The stick table is all that one connection sees of the others. Invariant: connections of a new key that come
//! together are placed once, where load or time could place them differently.

use std::sync::Arc;

use super::Backend;
use super::table::{PoolTable, Remember};
use crate::outcome::PickReason;
use crate::sticky::table::TableLookup;

impl PoolTable {
    /// Writes that a new key was placed at this backend, unless another connection was faster. Returns where the key
    /// is.
    pub(super) fn claim(&self, remember: Remember, index: usize, now_ms: u64) -> TableLookup {
        self.refresh(remember, &self.backends[index], now_ms);
        self.lookup(remember.key, now_ms)
    }

    /// Drops the entry of a key that was placed at a backend where no connection could be established. A key that the
    /// stick table already had keeps its entry.
    pub fn release(&self, remember: Remember, reason: PickReason, backend: &Arc<Backend>, now_ms: u64) {
        if reason != PickReason::StickTable
            && self.backend_of(remember, now_ms).is_some_and(|at| Arc::ptr_eq(at, backend))
        {
            self.stick_table().forget(remember.key);
        }
    }

    /// True if another connection of the same key has gone to another backend, while this one waited for its second
    /// attempt at `backend`.
    pub fn settled_elsewhere(&self, remember: Remember, backend: &Arc<Backend>, now_ms: u64) -> bool {
        self.backend_of(remember, now_ms).is_some_and(|at| !Arc::ptr_eq(at, backend))
    }

    fn backend_of(&self, remember: Remember, now_ms: u64) -> Option<&Arc<Backend>> {
        self.backends.get(self.lookup(remember.key, now_ms).index()?)
    }
}
