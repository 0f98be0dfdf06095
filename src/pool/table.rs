//! [`PoolTable`]: a pool's part of a stick table.
//!
//! Wraps `sticky::table`, which knows ids, with the pool's backends and rules; chooses no backend. Invariant: an entry
//! of a backend that cannot serve is left as it is; it is replaced only when its client is established at another
//! backend.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use ahash::AHashMap;
use serde::{Deserialize, Serialize};

use super::backend::PoolShared;
use super::told::Outbox;
use super::{Backend, Pool};
use crate::config::{self, StickTableRules};
use crate::sticky::cookie::is_learnable;
use crate::sticky::key;
use crate::sticky::table::stats::Stats;
use crate::sticky::table::top_keys::Label;
use crate::sticky::table::{
    BackendId, BackendState, EntryKind, EntryValue, Hot, Hottest, IdMap, KeyHash, Minute, Secret, StickTable, Stored,
    TableEntry, TableLookup, Terms,
};

/// Tries of a write while another thread holds the bucket lock (microseconds).
const SETTLE_TRIES: usize = 4;

/// A pool's part of a stick table.
#[derive(Debug)]
pub struct PoolTable {
    stick_table: StickTable,
    /// Ids of the pool's backends in the stick table.
    pub(super) id_map: IdMap,
    /// Ids of the pool's former backends, with their index among those.
    former: Box<[(BackendId, usize)]>,
    pub(super) rules: StickTableRules,
    pub(super) backends: Arc<[Arc<Backend>]>,
    shared: Arc<PoolShared>,
    /// Where entries go that other instances have to hear of.
    pub(super) outbox: Outbox,
    /// Name of the stick table, `hash_seed` and digest of the pool: what makes an entry mean the same elsewhere.
    pub(super) name: Arc<str>,
    pub(super) hash_seed: u64,
    pub(super) digest: u64,
}

/// A key that comes often.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HotKey {
    /// The key as text; parts that are secret or too long are left out.
    pub key: String,
    /// Share of all picks of about the last twenty minutes, 0 to 1.
    pub share: f64,
    /// The most by which `share` may be wrong, up or down: 0 if every pick was counted by its key.
    pub share_error: f64,
    /// Backend in the key's entry; `None` = no entry.
    pub backend: Option<String>,
}

/// What to write into the stick table once a connection is established, and again while it lasts and when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remember {
    /// Hash of the key.
    pub key: KeyHash,
    /// Why the key is at its backend.
    pub kind: EntryKind,
    /// Backend that the entry named before the pick has claimed it for another one; `None`: it has claimed nothing from
    /// a backend.
    pub instead_of: Option<BackendId>,
}

impl Remember {
    /// What the connection of a key writes that has claimed no entry.
    pub fn new(key: KeyHash, kind: EntryKind) -> Self {
        Self { key, kind, instead_of: None }
    }
}

/// Gives the pools of a new snapshot their stick tables: those of the snapshot before, and one for all pools of a
/// `stick_group`.
pub struct StickTables<'s> {
    /// Pools of the snapshot before, by name.
    before: AHashMap<&'s str, &'s Pool>,
    /// The first pool of each group of the snapshot before that has a table.
    groups_before: AHashMap<&'s str, &'s Pool>,
    secret: &'s Secret,
    now: Minute,
    outbox: Outbox,
    /// Table of each group, once the first pool of the group has it.
    groups: AHashMap<String, StickTable>,
}

impl<'s> StickTables<'s> {
    /// Starts from the pools of the snapshot before. `secret` is that of the process.
    pub fn new(before: impl IntoIterator<Item = &'s Pool>, secret: &'s Secret, now_ms: u64) -> Self {
        let mut tables = Self {
            before: AHashMap::default(),
            groups_before: AHashMap::default(),
            secret,
            now: Minute::of_ms(now_ms),
            outbox: Outbox::default(),
            groups: AHashMap::default(),
        };
        for pool in before {
            tables.before.insert(pool.name(), pool);
            if let Some(group) = pool.config.stick_group.as_deref().filter(|_| pool.table.is_some()) {
                tables.groups_before.entry(group).or_insert(pool);
            }
        }
        tables
    }

    /// Has the tables leave entries here that other instances have to hear of.
    #[must_use]
    pub fn telling(self, outbox: Outbox) -> Self {
        Self { outbox, ..self }
    }

    /// Returns the pool with its stick table; without one where the configuration wants none or memory is refused.
    pub fn give(&mut self, pool: Pool) -> Pool {
        let Some(rules) = pool.config.stick_table else { return pool };
        let remember_values = pool.config.cookie.as_ref().and_then(config::Cookie::max_idle).unwrap_or(rules.remember);
        let terms = Terms { remember: rules.remember, remember_values, digest: pool.digest() };
        let group = pool.config.stick_group.as_ref();
        let known = group.and_then(|group| self.groups.get(group).cloned());
        let Some(stick_table) = known.or_else(|| self.stick_table(&pool, rules.bytes, terms)) else { return pool };
        if let Some(group) = group {
            self.groups.insert(group.clone(), stick_table.clone());
        }
        let before = self.before.get(pool.name());
        let outbox = self.outbox.clone();
        let table = PoolTable { outbox, ..PoolTable::new(&pool, before.copied(), stick_table.under(terms), rules) };
        if let Some(before) = before.and_then(|old| old.table.as_ref()) {
            table.absorb(before, self.now);
        }
        Pool { table: Some(table), ..pool }
    }

    /// The stick table that the pool, or its group, had before, resized if the configuration says so; else a new one.
    fn stick_table(&self, pool: &Pool, bytes: u64, terms: Terms) -> Option<StickTable> {
        let old = match pool.config.stick_group.as_deref() {
            Some(group) => self.groups_before.get(group),
            None => self.before.get(pool.name()).filter(|old| old.config.stick_group.is_none()),
        };
        match old.and_then(|old| old.table.as_ref()) {
            None => StickTable::new(bytes, self.secret.clone(), terms),
            Some(old) if old.rules.bytes == bytes => Some(old.stick_table.clone()),
            Some(old) => old.stick_table.resized(bytes),
        }
    }
}

impl PoolTable {
    fn new(pool: &Pool, before: Option<&Pool>, stick_table: StickTable, rules: StickTableRules) -> Self {
        let names = pool.config.backends.iter().map(|backend| backend.name.as_str());
        let id_map = IdMap::new(stick_table.ids(), names);
        let former = before.map_or_else(Box::default, |before| former_ids(pool, before, &stick_table));
        Self {
            stick_table,
            id_map,
            former,
            rules,
            backends: pool.backends.clone(),
            shared: pool.shared.clone(),
            outbox: Outbox::default(),
            name: pool.sticks_as().clone(),
            hash_seed: pool.config.hash_seed,
            digest: pool.digest(),
        }
    }

    /// The stick table itself; the pools of a `stick_group` share it.
    pub fn stick_table(&self) -> &StickTable {
        &self.stick_table
    }

    /// Hash of a key's bytes in this table.
    pub(super) fn key(&self, bytes: &[u8]) -> KeyHash {
        self.stick_table.secret().key(bytes)
    }

    /// Where a key is.
    #[inline]
    pub fn lookup(&self, key: KeyHash, now_ms: u64) -> TableLookup {
        let known = self.stick_table.find(key, Minute::of_ms(now_ms));
        match known.map(|known| (self.id_map.index(known.id), known.kind)) {
            None => TableLookup::Unknown,
            Some((Some(index), kind)) => TableLookup::At(index, kind),
            Some((None, _)) => TableLookup::Gone(known.and_then(|known| self.former(known.id))),
        }
    }

    /// Writes that a connection of this client is established at the backend. True: the entry has named it already.
    pub fn settle(&self, remember: Remember, backend: &Arc<Backend>, now_ms: u64) -> bool {
        let Some(place) = self.place_of(remember, backend) else { return false };
        let (now, state) = (Minute::of_ms(now_ms), |id| self.state(id, now_ms));
        let settle = || self.stick_table.settle(remember.key, place, now, state);
        let stored = std::iter::repeat_with(settle).take(SETTLE_TRIES).find(|stored| *stored != Stored::Busy);
        stored.into_iter().for_each(|stored| {
            self.note(stored, place.kind);
            self.tell(remember.key, place, stored);
        });
        stored == Some(Stored::Known)
    }

    /// Renews the entry while the connection lasts, and when it ends.
    pub fn refresh(&self, remember: Remember, backend: &Arc<Backend>, now_ms: u64) {
        if let Some(place) = self.place_of(remember, backend) {
            let state = |id| self.state(id, now_ms);
            self.note(self.stick_table.refresh(remember.key, place, Minute::of_ms(now_ms), state), place.kind);
        }
    }

    /// Interval at which a connection that lasts refreshes its entry, in milliseconds.
    pub fn refresh_every_ms(&self) -> u32 {
        (self.rules.remember.as_millis() / 4).clamp(1_000, u32::MAX.into()) as u32
    }

    /// Where the value of a learned cookie belongs.
    pub fn lookup_value(&self, value: &[u8], now_ms: u64) -> TableLookup {
        self.lookup(self.stick_table.secret().cookie(value), now_ms)
    }

    /// What to write for a request that brought this value, which no backend is known to have set; `None`: a value that
    /// is not learned.
    pub fn remember_value(&self, value: &[u8]) -> Option<Remember> {
        let key = is_learnable(value).then(|| self.stick_table.secret().cookie(value))?;
        Some(Remember::new(key, EntryKind::Brought))
    }

    /// Writes that a backend has set the cookie to this value. The entry exists when this returns, unless its bucket is
    /// full of entries worth as much.
    pub fn learn(&self, value: &[u8], backend: &Arc<Backend>, now_ms: u64) {
        self.learn_as(EntryKind::Learned, value, backend, now_ms);
    }

    /// Writes that a value belongs to this backend, `Brought` by clients or `Learned` from a backend.
    pub fn learn_as(&self, kind: EntryKind, value: &[u8], backend: &Arc<Backend>, now_ms: u64) {
        if let Some(remember) = self.remember_value(value) {
            self.settle(Remember { kind, ..remember }, backend, now_ms);
        }
    }

    /// Drops the entry of a value that the application has ended.
    pub fn forget(&self, value: &[u8]) {
        self.stick_table.forget(self.stick_table.secret().cookie(value));
    }

    /// Counts one pick of a key for [`top_keys`](Self::top_keys); `label` makes the key's text.
    #[inline]
    pub(super) fn observe(&self, key: KeyHash, now_ms: u64, label: impl FnOnce() -> Label) {
        self.stick_table.hottest().observe(key, Minute::of_ms(now_ms), label);
    }

    /// Keys that come most often, at most `count`, and their backends; true if their shares come from a sample.
    pub fn top_keys(&self, count: usize, now_ms: u64) -> (Vec<HotKey>, bool) {
        let now = Minute::of_ms(now_ms);
        let backend = |key| Some(self.backends[self.lookup(key, now_ms).index()?].name().to_owned());
        let hot = |hot: Hot| HotKey {
            key: key::show(hot.label.bytes()),
            share: hot.share,
            share_error: hot.error,
            backend: backend(hot.key),
        };
        let Hottest { keys, sampled } = self.stick_table.hottest().top(count, now);
        (keys.into_iter().map(hot).collect(), sampled)
    }

    /// Counts of all entries, by age and kind.
    pub fn stats(&self, now_ms: u64) -> Stats {
        self.stick_table.stats(Minute::of_ms(now_ms))
    }

    /// Removes entries that are over, where the table has some, and reads at most `pages` pages for that; returns how
    /// many it read. `others`: the other pools with the same table.
    pub fn sweep<'t>(&self, others: impl IntoIterator<Item = &'t Self>, now_ms: u64, pages: usize) -> usize {
        let others = others.into_iter().map(|other| &other.stick_table);
        self.stick_table.sweep(others, Minute::of_ms(now_ms), pages)
    }

    /// Each backend's name, and how many entries it has.
    pub fn by_backend(&self) -> impl Iterator<Item = (&str, u64)> {
        self.backends.iter().enumerate().map(|(index, backend)| (backend.name(), self.known_at(index)))
    }

    /// Number of entries that name the backend at this index.
    pub(super) fn known_at(&self, index: usize) -> u64 {
        self.id_map.id(index).map_or(0, |id| self.stick_table.known_at(id))
    }

    /// Entries of this pool's clients that were worth keeping and were evicted.
    pub fn evicted_displaced(&self) -> u64 {
        self.shared.evicted_displaced.load(Relaxed)
    }

    /// Entries of this pool's clients that were worth keeping and found no room.
    pub fn refused(&self) -> u64 {
        self.shared.refused_entries.load(Relaxed)
    }

    /// Every entry that is not over and names a backend of the pool, with that backend's index.
    pub fn entries(&self, now_ms: u64) -> impl Iterator<Item = (usize, TableEntry)> + '_ {
        let entries = self.stick_table.entries(Minute::of_ms(now_ms));
        let entries = entries.filter(|entry| self.stick_table.remembers(entry));
        entries.filter_map(|entry| Some((self.id_map.index(entry.known.id)?, entry)))
    }

    /// Takes over what was written into the old table until its last user left, and retires the ids of backends
    /// that have left.
    pub(super) fn take_over(&self, old: Option<&Self>, now_ms: u64) {
        if let Some(old) = old {
            self.absorb(old, Minute::of_ms(now_ms));
        }
        self.stick_table.ids().retire_all_but(self.backends.iter().map(|backend| backend.name()));
    }

    /// Copies the entries of the pool's old table, backends by name, if the stick table is another one.
    fn absorb(&self, old: &Self, now: Minute) {
        if !self.stick_table.is_same(&old.stick_table) {
            let name = |id| Some(old.backends[old.id_map.index(id)?].name());
            self.stick_table.absorb(&old.stick_table, now, |id| self.stick_table.ids().find(name(id)?));
        }
    }

    /// What the entry of a key at this backend says; `None`: the backend has left the pool. A backend that was removed
    /// and has come back under its name is another one.
    pub(super) fn place_of(&self, remember: Remember, backend: &Arc<Backend>) -> Option<EntryValue> {
        let index = self.backends.iter().position(|known| known.is_same(backend))?;
        Some(EntryValue { id: self.id_map.id(index)?, kind: remember.kind })
    }

    /// The index of a backend that has left among the former ones; `None`: its name is not known.
    fn former(&self, id: BackendId) -> Option<usize> {
        self.former.iter().find(|(former, _)| *former == id).map(|(_, index)| *index)
    }

    pub(super) fn state(&self, id: BackendId, now_ms: u64) -> BackendState {
        match self.id_map.index(id) {
            None => BackendState::Gone,
            Some(index) if self.backends[index].usable(now_ms) => BackendState::Usable,
            Some(_) => BackendState::Unusable,
        }
    }

    /// Counts what the stick table has lost by storing an entry of this kind.
    pub(super) fn note(&self, stored: Stored, kind: EntryKind) {
        let is_lost = |kind| {
            use EntryKind::{Brought, Displaced, Learned, Overflowed};
            matches!(kind, Displaced | Overflowed | Brought | Learned)
        };
        match stored {
            Stored::Evicted(evicted) if is_lost(evicted) => {
                self.shared.evicted_displaced.fetch_add(1, Relaxed);
            }
            Stored::Refused if is_lost(kind) => {
                self.shared.refused_entries.fetch_add(1, Relaxed);
            }
            _ => {}
        }
    }
}

/// Ids of the former backends of a pool, as the entries of `stick_table` have them: those of the pool before, and those
/// that it knew as former.
fn former_ids(pool: &Pool, before: &Pool, stick_table: &StickTable) -> Box<[(BackendId, usize)]> {
    let Some(old) = before.table.as_ref().filter(|old| old.stick_table.is_same(stick_table)) else {
        return Box::default();
    };
    let had = before.backends.iter().enumerate().filter_map(|(index, had)| Some((old.id_map.id(index)?, had.name())));
    let former = old.former.iter().map(|(id, index)| (*id, &*before.former[*index]));
    let index_of = |name: &str| pool.former.iter().position(|former| **former == *name);
    had.chain(former).filter_map(|(id, name)| Some((id, index_of(name)?))).collect()
}
