//! What a pool remembers of its keys, and whether its word counts.
//!
//! Asks `sticky::table` and knows the pool's rules; chooses no backend by itself. Invariant: an entry whose backend
//! cannot serve is left as it is: it gives way only when its client has settled elsewhere.

use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use serde::{Deserialize, Serialize};

use crate::config::{self, OnAdd, OnDown, OnReturn};
use crate::outcome::{BreakCause, PickReason};
use crate::sticky::table::stats::Stats;
use crate::sticky::table::top_keys::Label;
use crate::sticky::table::{
    BackendId, BackendState, EntryKind, EntryValue, Hot, IdMap, KeyHash, Minute, Secret, StickTable, Stored,
    TableEntry, Terms,
};
use crate::sticky::{Facts, cookie, key};

use super::placement_key::PlacementKey;
use super::{Backend, Choice, Pool, Ties};

/// Others may be changing the same place; they are gone in no time.
const SETTLE_TRIES: usize = 4;

/// A pool's part of a stick table.
#[derive(Debug)]
pub(super) struct PoolTable {
    pub(super) table: StickTable,
    pub(super) id_map: IdMap,
    pub(super) rules: config::StickTableRules,
}

/// What is known of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TableLookup {
    /// Nothing.
    Unknown,
    /// It settled at this backend, by its index.
    At(usize, EntryKind),
    /// It settled at a backend that has left the pool.
    Gone,
}

/// A key that comes often.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HotKey {
    /// The key, for people; parts that are secret or too long are left out.
    pub key: String,
    /// Its share of all picks of about the last twenty minutes, 0 to 1.
    pub share: f64,
    /// By how much that may be too high.
    pub share_error: f64,
    /// The backend where it has settled.
    pub backend: Option<String>,
}

/// What to write into the stick table once a connection stands, and again while it does and when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remember {
    /// The key.
    pub key: KeyHash,
    /// Why it is where it is.
    pub kind: EntryKind,
}

/// Gives the pools of a new snapshot their memories: those of the snapshot before, one for all pools of a
/// `stick_group`.
pub struct StickTables<'s> {
    before: Vec<&'s Pool>,
    secret: &'s Secret,
    now: Minute,
    /// Of each group, since its first pool.
    groups: AHashMap<String, StickTable>,
}

impl<'s> StickTables<'s> {
    /// After these pools. The secret is that of the process.
    pub fn new(before: impl IntoIterator<Item = &'s Pool>, secret: &'s Secret, now_ms: u64) -> Self {
        Self { before: before.into_iter().collect(), secret, now: Minute::of_ms(now_ms), groups: AHashMap::default() }
    }

    /// The pool with its stick table. It has none where none is wanted, or where the system has no room for it.
    pub fn give(&mut self, pool: Pool) -> Pool {
        let Some(rules) = pool.config.stick_table else { return pool };
        let remember_values = pool.config.cookie.as_ref().and_then(config::Cookie::max_idle).unwrap_or(rules.remember);
        let terms = Terms { remember: rules.remember, remember_values, digest: pool.digest() };
        let group = pool.config.stick_group.as_ref();
        let known = group.and_then(|group| self.groups.get(group).cloned());
        let Some(table) = known.or_else(|| self.table(&pool, rules.bytes, terms)) else { return pool };
        if let Some(group) = group {
            self.groups.insert(group.clone(), table.clone());
        }
        let pool = Pool { table: Some(PoolTable::new(&pool, table.under(terms), rules)), ..pool };
        if let Some(old) = self.before.iter().find(|old| old.name() == pool.name()) {
            pool.absorb(old, self.now);
        }
        pool
    }

    /// The one that the pool, or its group, had before, or one of another size in its place.
    fn table(&self, pool: &Pool, bytes: u64, terms: Terms) -> Option<StickTable> {
        let group = &pool.config.stick_group;
        let same = |old: &&&Pool| {
            old.config.stick_group == *group && (group.is_some() || old.name() == pool.name()) && old.table.is_some()
        };
        match self.before.iter().find(same).and_then(|old| old.table.as_ref()) {
            None => StickTable::new(bytes, self.secret.clone(), terms),
            Some(old) if old.rules.bytes == bytes => Some(old.table.clone()),
            Some(old) => old.table.resized(bytes),
        }
    }
}

impl PoolTable {
    fn new(pool: &Pool, table: StickTable, rules: config::StickTableRules) -> Self {
        let id_map = IdMap::new(table.ids(), pool.config.backends.iter().map(|backend| backend.name.as_str()));
        Self { table, id_map, rules }
    }

    pub(super) fn key(&self, bytes: &[u8]) -> KeyHash {
        self.table.secret().key(bytes)
    }

    pub(super) fn recall(&self, key: KeyHash, now: Minute) -> TableLookup {
        match self.table.find(key, now).map(|known| (self.id_map.index(known.id), known.kind)) {
            None => TableLookup::Unknown,
            Some((Some(index), kind)) => TableLookup::At(index, kind),
            Some((None, _)) => TableLookup::Gone,
        }
    }

    /// Every entry that is not over and names a backend of the pool, with that backend's index.
    pub(super) fn live(&self, now: Minute) -> impl Iterator<Item = (usize, TableEntry)> + '_ {
        let entries = self.table.entries(0..self.table.buckets(), now);
        let entries = entries.filter(|entry| self.table.remembers(entry));
        entries.filter_map(|entry| Some((self.id_map.index(entry.known.id)?, entry)))
    }
}

impl Pool {
    /// Whether a client that has settled shall wait for its backend, which cannot serve now, and for how long at most:
    /// 0 = it is refused instead. `None`: it need not, or the pool has no such rule.
    pub fn waits(&self, settled: Option<usize>, facts: &Facts<'_>, now_ms: u64) -> Option<Duration> {
        let most = match self.config.when_down {
            OnDown::Rehash => return None,
            OnDown::Wait(most) => most,
            OnDown::Reject => Duration::ZERO,
        };
        let index = settled.or_else(|| match self.recall(&self.key(facts, || 0), now_ms) {
            TableLookup::At(index, _) => Some(index),
            TableLookup::Unknown | TableLookup::Gone => None,
        })?;
        let backend = self.backends.get(index)?;
        // Whom a drain or a range has sent away need not wait.
        let allowed = || self.allows(self.range(facts), index, |own| self.receives(own, Ties::tried(&[]), now_ms));
        (!backend.usable(now_ms) && !backend.drained(now_ms) && allowed()).then_some(most)
    }

    /// For a client that may be known: where it has settled, unless it cannot stay.
    pub(super) fn choose_known(
        &self,
        key: &PlacementKey<'_>,
        facts: &Facts<'_>,
        ties: Ties<'_>,
        now_ms: u64,
    ) -> Option<Choice> {
        let recalled = self.recall(key, now_ms);
        if ties.tried.is_empty() {
            self.observe(key, facts, now_ms);
        }
        let fits = |index: usize| self.can_have(index, ties, now_ms);
        let cause = match self.stays(key, recalled, ties, now_ms, fits) {
            Ok(choice) => return Some(choice),
            Err(cause) => cause,
        };
        let choice = self.choose(key, ties, now_ms)?;
        Some(match recalled {
            TableLookup::Unknown => self.claim(key, Choice { broke: None, ..choice }, now_ms, fits),
            TableLookup::At(index, _) if index == choice.index => Choice { broke: None, ..choice },
            TableLookup::At(..) | TableLookup::Gone => Choice { broke: cause, ..choice },
        })
    }

    pub(super) fn recall(&self, key: &PlacementKey<'_>, now_ms: u64) -> TableLookup {
        match self.table.as_ref().zip(key.table_key) {
            Some((table, key)) => table.recall(key, Minute::of_ms(now_ms)),
            None => TableLookup::Unknown,
        }
    }

    /// A client that has settled stays there, unless it cannot or a rule says otherwise: then why.
    pub(super) fn stays(
        &self,
        key: &PlacementKey<'_>,
        recalled: TableLookup,
        ties: Ties<'_>,
        now_ms: u64,
        fits: impl Fn(usize) -> bool,
    ) -> Result<Choice, Option<BreakCause>> {
        let (index, kind) = match recalled {
            TableLookup::Unknown => return Err(None),
            TableLookup::Gone => return Err(Some(BreakCause::Removed)),
            TableLookup::At(index, kind) => (index, kind),
        };
        if !self.allows(key.range, index, |own| self.receives(own, ties, now_ms)) {
            return Err(Some(BreakCause::Range));
        }
        if !fits(index) {
            return Err(Some(self.why_not(index)));
        }
        // Where placement would put it is looked for only where that matters. Nobody is moved away from weight 0, which
        // serves those whom it knows.
        let rules = self.table.as_ref().map(|table| table.rules);
        let follows = match (kind, rules) {
            (EntryKind::Outgrown, Some(rules)) if rules.on_add == OnAdd::Move => Some(BreakCause::Moved),
            (EntryKind::Displaced, Some(rules)) if rules.on_return == OnReturn::Return => Some(BreakCause::Returned),
            _ => None,
        };
        let follows = follows.filter(|_| self.config.backends[index].weight > 0);
        let home = if follows.is_some() || kind == EntryKind::Outgrown { self.home(key) } else { None };
        let takes_it = |home: usize| {
            let steered = self.load_rules(key, now_ms).is_some_and(|load_rules| !load_rules.admits(home));
            home != index && self.receives(home, ties, now_ms) && !steered
        };
        if follows.is_some() && home.is_some_and(takes_it) {
            return Err(follows);
        }
        let kind = match kind {
            EntryKind::Outgrown if home == Some(index) => EntryKind::Placed,
            // It would have followed, had its home taken it.
            EntryKind::Outgrown if follows.is_some() => EntryKind::Displaced,
            EntryKind::Outgrown => EntryKind::Overflowed,
            kind => kind,
        };
        Ok(Choice { index, reason: PickReason::StickTable, broke: None, kind })
    }

    /// A client stands at this backend.
    pub fn settle(&self, remember: Remember, backend: &Arc<Backend>, now_ms: u64) {
        if let Some((table, place)) = self.place_of(remember, backend) {
            let settle = || table.settle(remember.key, place, Minute::of_ms(now_ms), |id| self.state(id, now_ms));
            let stored = std::iter::repeat_with(settle).take(SETTLE_TRIES).find(|stored| *stored != Stored::Busy);
            stored.into_iter().for_each(|stored| self.note(stored));
        }
    }

    /// It still does, or has just left.
    pub fn refresh(&self, remember: Remember, backend: &Arc<Backend>, now_ms: u64) {
        if let Some((table, place)) = self.place_of(remember, backend) {
            let state = |id| self.state(id, now_ms);
            self.note(table.refresh(remember.key, place, Minute::of_ms(now_ms), state));
        }
    }

    /// Nothing is written of a backend that has left the pool, not even where its name has come back.
    fn place_of(&self, remember: Remember, backend: &Arc<Backend>) -> Option<(&StickTable, EntryValue)> {
        let table = self.table.as_ref()?;
        let index = self.backends.iter().position(|known| known.is_same(backend))?;
        Some((&table.table, EntryValue { id: table.id_map.id(index)?, kind: remember.kind }))
    }

    /// Where the value of the application's cookie belongs, if it is learned.
    pub fn recall_value(&self, value: &[u8], now_ms: u64) -> cookie::RememberedValue {
        let Some(table) = &self.table else { return cookie::RememberedValue::Unknown };
        match table.recall(table.table.secret().cookie(value), Minute::of_ms(now_ms)) {
            TableLookup::Unknown => cookie::RememberedValue::Unknown,
            TableLookup::At(index, _) => cookie::RememberedValue::At(index),
            TableLookup::Gone => cookie::RememberedValue::Gone,
        }
    }

    /// What is remembered of a request that brought this value, which no backend is known to have set.
    pub fn remember_value(&self, value: &[u8]) -> Option<Remember> {
        let table = self.table.as_ref().filter(|_| !value.is_empty())?;
        Some(Remember { key: table.table.secret().cookie(value), kind: EntryKind::Brought })
    }

    /// A backend has set the cookie to this value. It stands in the stick table when this returns, unless that is full of
    /// others like it.
    pub fn learn_value(&self, value: &[u8], backend: &Arc<Backend>, now_ms: u64) {
        if let Some(remember) = self.remember_value(value) {
            self.settle(Remember { kind: EntryKind::Learned, ..remember }, backend, now_ms);
        }
    }

    /// The application has ended this value.
    pub fn forget_value(&self, value: &[u8]) {
        if let Some(table) = &self.table {
            table.table.forget(table.table.secret().cookie(value));
        }
    }

    /// How often a connection that goes on is to be refreshed.
    pub fn refresh_every_ms(&self) -> Option<u32> {
        let remember = self.table.as_ref()?.rules.remember;
        Some((remember.as_millis() / 4).clamp(1_000, u32::MAX.into()) as u32)
    }

    /// The new table is in force, and nobody uses the old one any more: what was written there meanwhile comes along,
    /// and backends that left are forgotten.
    pub fn take_over(&self, old: &Self, now_ms: u64) {
        self.absorb(old, Minute::of_ms(now_ms));
        if let Some(table) = &self.table {
            table.table.ids().retire_all_but(self.config.backends.iter().map(|backend| backend.name.as_str()));
        }
    }

    /// Takes what the old pool remembers into another table, each backend by its name.
    fn absorb(&self, old: &Self, now: Minute) {
        let (Some(table), Some(before)) = (&self.table, &old.table) else { return };
        if !table.table.is_same(&before.table) {
            let name = |id| Some(old.backends[before.id_map.index(id)?].name());
            table.table.absorb(&before.table, now, |id| table.table.ids().find(name(id)?));
        }
    }

    /// A client was picked for by this key.
    #[inline]
    pub(super) fn observe(&self, key: &PlacementKey<'_>, facts: &Facts<'_>, now_ms: u64) {
        if let Some((table, table_key)) = self.table.as_ref().zip(key.table_key) {
            let label = || self.with_key(facts, key.range, Label::of).unwrap_or_default();
            table.table.hottest().observe(table_key, Minute::of_ms(now_ms), label);
        }
    }

    /// What it remembers, if it does.
    pub fn table(&self) -> Option<&StickTable> {
        Some(&self.table.as_ref()?.table)
    }

    /// Who is known; `None` without a stick table.
    pub fn stats(&self, now_ms: u64) -> Option<Stats> {
        let table = &self.table.as_ref()?.table;
        let mut stats = Stats::default();
        stats.count(table, 0..table.buckets(), Minute::of_ms(now_ms));
        Some(stats)
    }

    /// The keys that come most often, and where they live.
    pub fn hottest(&self, count: usize, now_ms: u64) -> Vec<HotKey> {
        let Some(table) = &self.table else { return Vec::new() };
        let now = Minute::of_ms(now_ms);
        let home = |key| table.id_map.index(table.table.find(key, now)?.id);
        let hot = |hot: Hot| HotKey {
            key: key::show(hot.label.bytes()),
            share: hot.share,
            share_error: hot.error,
            backend: home(hot.key).map(|index| self.backends[index].name().to_owned()),
        };
        table.table.hottest().top(count, now).into_iter().map(hot).collect()
    }

    /// How many of those who are known live with each of its backends.
    pub fn residents<'p>(&'p self, stats: &'p Stats) -> impl Iterator<Item = (&'p str, u64)> {
        let of = |index| stats.of(self.table.as_ref()?.id_map.id(index)?).into();
        let count = move |index: usize| -> u64 { Option::<u64>::unwrap_or_default(of(index)) };
        self.backends.iter().enumerate().map(move |(index, backend)| (backend.name(), count(index)))
    }

    fn state(&self, id: BackendId, now_ms: u64) -> BackendState {
        match self.table.as_ref().and_then(|table| table.id_map.index(id)) {
            None => BackendState::Gone,
            Some(index) if self.backends[index].usable(now_ms) => BackendState::Usable,
            Some(_) => BackendState::Unusable,
        }
    }

    fn note(&self, stored: Stored) {
        if let Stored::Evicted(EntryKind::Displaced | EntryKind::Overflowed | EntryKind::Brought | EntryKind::Learned) =
            stored
        {
            self.shared.evicted_displaced.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
}
