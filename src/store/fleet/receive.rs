//! [`FleetInbox`]: items that are read, and what becomes of them in the stick tables of this instance.
//!
//! Writes nothing to the store. Invariants: of two news about one key that come in this order, the second counts at every
//! instance, also at one that has told one of them itself; an item that is not of an instance with the same secret changes
//! nothing and is counted; orders are left to the book, which is that of the snapshot.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use ahash::AHashMap;
use aws_lc_rs::hmac;

use super::item::{InstanceHello, Item};
use super::seen::GONE;
use super::stream::{self, ItemId, StreamItem, in_time};
use super::{FleetShared, lock};
use crate::clock;
use crate::pool::{Received, TakenOrder, Told, ToldOrder};
use crate::snapshot::{Current, Snapshot};
use crate::sticky::table::{KeyHash, Precedence};
use crate::store::link::{Link, LinkError};

/// What is read in one session.
pub(super) struct FleetInbox {
    shared: Arc<FleetShared>,
    current: Arc<Current>,
    stream: String,
    key: hmac::Key,
    /// What has to be added to the process's clock for that of the store, in milliseconds.
    offset_ms: u64,
    /// The last item that was read.
    after: ItemId,
    /// Entries of stick tables are shared.
    pub(super) takes_entries: bool,
    /// Stick tables and digests of this instance.
    pub(super) tables: Vec<(Arc<str>, u64)>,
    /// Stick tables that another instance has begun to place otherwise.
    pub(super) due: Vec<Arc<str>>,
    /// Another instance has asked for every entry.
    pub(super) is_asked: bool,
    /// How many own news about a key were written, or are about to be, and not read back yet. Until then what others say
    /// about it comes before them.
    unread: AHashMap<(Arc<str>, KeyHash), u32>,
}

impl FleetInbox {
    pub(super) fn new(
        (shared, current): (Arc<FleetShared>, Arc<Current>),
        (stream, key): (String, hmac::Key),
        store_ms: u64,
        tables: Vec<(Arc<str>, u64)>,
    ) -> Self {
        let offset_ms = store_ms.saturating_sub(clock::now_ms());
        let (after, due, unread) = ((0, 0), Vec::new(), AHashMap::default());
        let (takes_entries, is_asked) = (false, false);
        Self { shared, current, stream, key, offset_ms, after, takes_entries, tables, due, is_asked, unread }
    }

    /// Reads what the stream holds from here on, or as far as it was read. Returns the number of the last item.
    pub(super) async fn read_from(&mut self, mut at: ItemId, link: &Link) -> Result<ItemId, LinkError> {
        let last = self.after;
        self.after = last.max(at);
        loop {
            let items = in_time(stream::read(link, &self.stream, at, None)).await?;
            at = items.last().map_or(at, |item| item.id);
            let is_end = items.is_empty() || last != (0, 0) && at >= last;
            self.after = self.after.max(at);
            self.take_as(items, true);
            if is_end {
                return Ok(self.after);
            }
        }
    }

    /// Takes items that have come to the stream just now.
    pub(super) fn take(&mut self, items: Vec<StreamItem>) {
        self.after = items.last().map_or(self.after, |item| item.id.max(self.after));
        self.take_as(items, false);
    }

    /// The last item that was read.
    pub(super) fn after(&self) -> ItemId {
        self.after
    }

    /// The clock of the store, in milliseconds.
    pub(super) fn store_ms(&self) -> u64 {
        clock::now_ms().saturating_add(self.offset_ms)
    }

    /// Takes note of own news that are about to be written.
    pub(super) fn expect(&mut self, told: &Told) {
        *self.unread.entry((told.table.clone(), told.entry.key)).or_default() += 1;
    }

    /// Own news were not written, or are told again in a recap.
    pub(super) fn expect_none(&mut self) {
        self.unread = AHashMap::default();
    }

    fn take_as(&mut self, items: Vec<StreamItem>, is_history: bool) {
        let snapshot = self.current.load_full();
        for StreamItem { id, bytes } in items {
            let age_ms = self.store_ms().saturating_sub(id.0);
            match Item::opened(&bytes, &self.stream, &self.key) {
                Ok((instance, Item::Hello(hello))) => self.meet(instance, hello, age_ms),
                Ok((_, Item::Entries { .. })) if !self.takes_entries => {}
                Ok((instance, Item::Entries { is_news, entries })) => {
                    let precedence = match (is_news, is_history) {
                        (false, _) => Precedence::Recap,
                        (true, true) => Precedence::History,
                        (true, false) => Precedence::News,
                    };
                    self.receive(&snapshot, instance, entries, precedence, age_ms);
                }
                // What was asked before this instance was there is answered by what it tells when it begins.
                Ok((instance, Item::Ask)) => self.is_asked |= !is_history && instance != self.shared.instance,
                Ok((instance, Item::Orders { orders, unknown })) if instance != self.shared.instance => {
                    self.shared.counters.orders_unknown.fetch_add(unknown, Relaxed);
                    orders.into_iter().for_each(|told| _ = self.take_order(told));
                }
                // An older order of this instance would have its later one told again.
                Ok((_, Item::Orders { .. })) => {}
                Err(_) => _ = self.shared.counters.refused.fetch_add(1, Relaxed),
            }
        }
    }

    /// Takes an order that another instance has told, or that this one has told before.
    pub(super) fn take_order(&self, told: ToldOrder) -> TakenOrder {
        let taken = self.current.load().orders.take(told);
        if taken == TakenOrder::New {
            self.shared.counters.orders_taken.fetch_add(1, Relaxed);
        }
        taken
    }

    fn meet(&mut self, instance: u64, hello: InstanceHello, age_ms: u64) {
        if age_ms <= GONE.as_millis() as u64 {
            let seen_ms = clock::now_ms().saturating_sub(age_ms);
            let differ = lock(&self.shared.seen).hello(instance, hello, seen_ms, &self.tables);
            self.due.extend(differ.into_iter().filter(|_| instance != self.shared.instance));
        }
    }

    fn receive(&mut self, snapshot: &Snapshot, instance: u64, entries: Vec<Told>, precedence: Precedence, age_ms: u64) {
        let is_own = instance == self.shared.instance;
        if is_own && precedence == Precedence::Recap {
            return;
        }
        let name = entries.first().map(|first| first.table.clone()).unwrap_or_default();
        let table = snapshot.stick_tables().find(|(table, _)| **table == *name);
        let table = table.and_then(|(_, pools)| pools.first()?.table());
        let (now_ms, age_min) = (clock::now_ms(), u32::try_from(age_ms / 60_000).unwrap_or(u32::MAX));
        for mut told in entries {
            told.entry.age_min = told.entry.age_min.saturating_add(age_min);
            let key = told.entry.key;
            if precedence == Precedence::News && !self.is_last_word(&told, is_own) {
                continue;
            }
            let result = table.map_or(Received::Unknown, |table| table.receive(&told, precedence, now_ms));
            match (is_own, result) {
                (false, Received::Taken) => lock(&self.shared.seen).origin(key, instance),
                // What others have told of the key was before that.
                (true, Received::Taken | Received::Known) => lock(&self.shared.seen).forget_origin(key),
                _ => {}
            }
            if !is_own {
                self.shared.counters.received[result as usize].fetch_add(1, Relaxed);
            }
        }
    }

    /// Whether no own news about this key are still to come.
    fn is_last_word(&mut self, told: &Told, is_own: bool) -> bool {
        if self.unread.is_empty() {
            return true;
        }
        let key = (told.table.clone(), told.entry.key);
        let Some(unread) = self.unread.get_mut(&key) else { return true };
        *unread -= u32::from(is_own && *unread > 0);
        let is_last = *unread == 0;
        if is_last {
            self.unread.remove(&key);
        }
        is_last
    }
}
