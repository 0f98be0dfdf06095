//! Connections of one key at the same time: where one of them stands or is about to, the others go.
//!
//! Only stick table knows of the others. Invariant: of a key that nobody knows, connections that come together are placed
//! once where load or time could place them differently.

use std::sync::Arc;

use super::placement_key::PlacementKey;
use super::table::{Remember, TableLookup};
use super::{Backend, Choice, Pool};
use crate::outcome::PickReason;
use crate::sticky::table::Minute;

impl Pool {
    /// A new key was placed. Where the load had a say in it, that stands in the stick table before the connection does: the
    /// next connection of this key may find another load. Who was faster has chosen for both.
    pub(super) fn claim(
        &self,
        key: &PlacementKey<'_>,
        choice: Choice,
        now_ms: u64,
        fits: impl Fn(usize) -> bool,
    ) -> Choice {
        let Some(table_key) = key.table_key.filter(|_| self.has_load_rules()) else { return choice };
        self.refresh(Remember { key: table_key, kind: choice.kind }, &self.backends[choice.index], now_ms);
        match self.recall(key, now_ms) {
            TableLookup::At(index, kind) if index != choice.index && fits(index) => {
                Choice { index, reason: PickReason::StickTable, broke: None, kind }
            }
            _ => choice,
        }
    }

    /// No connection could be established where the key was placed: it is new again, if it was.
    pub fn release(&self, remember: Remember, reason: PickReason, backend: &Arc<Backend>, now_ms: u64) {
        if reason != PickReason::StickTable
            && self.settled_at(remember, now_ms).is_some_and(|at| Arc::ptr_eq(at, backend))
        {
            self.table().map(|table| table.forget(remember.key));
        }
    }

    /// While this connection waited to try its backend again, another one of the same key went elsewhere.
    pub fn settled_elsewhere(&self, remember: Remember, backend: &Arc<Backend>, now_ms: u64) -> bool {
        self.settled_at(remember, now_ms).is_some_and(|at| !Arc::ptr_eq(at, backend))
    }

    fn settled_at(&self, remember: Remember, now_ms: u64) -> Option<&Arc<Backend>> {
        let table = self.table.as_ref()?;
        match table.recall(remember.key, Minute::of_ms(now_ms)) {
            TableLookup::At(index, _) => self.backends.get(index),
            TableLookup::Unknown | TableLookup::Gone => None,
        }
    }
}
