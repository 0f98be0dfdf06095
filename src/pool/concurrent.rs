//! Connections of one key at the same time: where one of them is established or about to be, the others go.
//!
//! The stick table is all that one connection sees of the others. Invariant: connections of a new key that come
//! together are placed once, where load or time could place them differently; where load alone places keys, also those
//! of a known key that has to leave its backend.

use std::sync::Arc;

use super::Backend;
use super::table::{PoolTable, Remember};
use crate::outcome::PickReason;
use crate::sticky::table::{BackendId, EntryValue, KeyHash, Minute, TableLookup};

impl PoolTable {
    /// Writes that a key goes to this backend, unless its entry names one that keeps the key: then another connection
    /// was faster. Returns where the key is, and the backend that the entry named before.
    pub(super) fn claim(
        &self,
        remember: Remember,
        index: usize,
        now_ms: u64,
        keeps: impl Fn(usize) -> bool,
    ) -> (TableLookup, Option<BackendId>) {
        let before = self.stick_table().find(remember.key, Minute::of_ms(now_ms)).map(|known| known.id);
        let from = before.filter(|id| !self.id_map.index(*id).is_some_and(keeps));
        if let Some(place) = self.place_of(remember, &self.backends[index]) {
            self.rewrite(remember.key, from, place, now_ms);
        }
        (self.lookup(remember.key, now_ms), from)
    }

    /// Drops the entry of a key that was placed at a backend where no connection could be established. A key that the
    /// stick table already had keeps its entry, as it was before a claim.
    pub fn release(&self, remember: Remember, reason: PickReason, backend: &Arc<Backend>, now_ms: u64) {
        if reason == PickReason::StickTable
            || self.backend_of(remember, now_ms).is_none_or(|at| !Arc::ptr_eq(at, backend))
        {
            return;
        }
        let claimed = self.place_of(remember, backend).map(|place| place.id);
        match remember.instead_of.zip(claimed) {
            Some((before, claimed)) => {
                self.rewrite(remember.key, Some(claimed), EntryValue { id: before, kind: remember.kind }, now_ms);
            }
            None => _ = self.stick_table().forget(remember.key),
        }
    }

    /// True if another connection of the same key has gone to another backend, while this one waited for its second
    /// attempt at `backend`.
    pub fn settled_elsewhere(&self, remember: Remember, backend: &Arc<Backend>, now_ms: u64) -> bool {
        self.backend_of(remember, now_ms).is_some_and(|at| !Arc::ptr_eq(at, backend))
    }

    /// Writes the entry of a key if the key has none, or one that names `from`.
    fn rewrite(&self, key: KeyHash, from: Option<BackendId>, place: EntryValue, now_ms: u64) {
        let (now, state) = (Minute::of_ms(now_ms), |id| self.state(id, now_ms));
        let stored = self.stick_table().claim(key, place, from, now, state);
        self.note(stored, place.kind);
        self.tell(key, place, stored);
    }

    fn backend_of(&self, remember: Remember, now_ms: u64) -> Option<&Arc<Backend>> {
        self.backends.get(self.lookup(remember.key, now_ms).index()?)
    }
}
