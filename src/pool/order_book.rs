//! [`OrderBook`]: the orders about backends that all instances of a fleet follow, the last one about each matter of a
//! backend, with what has become of it here.
//!
//! Tells and applies nothing (`store::fleet` and the server do), and reads no clock. Invariants: of two orders about
//! one matter the later counts, in whatever sequence they come, so books that have read the same orders are equal; an
//! order that is given where another one about the same backend is known is later than that one, whatever the clocks
//! say; a book has at most [`ORDERS_MAX`] orders, and none while it is closed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use super::health::ClockMs;
use crate::order::{BackendOrder, OrderKind};

/// Most orders of a book; the oldest go first, and before them the oldest of those that only end others.
pub const ORDERS_MAX: usize = 4_096;

/// What of a backend an order is about: an order ends the one before it about the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OrderMatter {
    /// That the backend is one of its pool. An order about it ends all older ones about the backend.
    Presence,
    /// The address.
    Address,
    /// The weight.
    Weight,
    /// Draining, closed or ready.
    State,
}

impl OrderMatter {
    /// Every matter, in the sequence in which an instance applies orders of one time.
    pub const ALL: [Self; 4] = [Self::Presence, Self::Address, Self::Weight, Self::State];

    /// The matter of an order.
    pub fn of(kind: &OrderKind) -> Self {
        match kind {
            OrderKind::Add(_) | OrderKind::Remove { .. } => Self::Presence,
            OrderKind::Address { .. } => Self::Address,
            OrderKind::Weight { .. } => Self::Weight,
            OrderKind::Drain | OrderKind::Close | OrderKind::Ready => Self::State,
        }
    }

    /// The word by which the store knows the matter.
    pub fn word(self) -> &'static str {
        match self {
            Self::Presence => "presence",
            Self::Address => "address",
            Self::Weight => "weight",
            Self::State => "state",
        }
    }
}

/// One matter of one backend.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OrderKey {
    /// Name of the pool.
    pub pool: Box<str>,
    /// Name of the backend.
    pub backend: Box<str>,
    /// What of the backend.
    pub matter: OrderMatter,
}

impl OrderKey {
    /// What an order is about.
    pub fn of(order: &BackendOrder) -> Self {
        let BackendOrder { pool, backend, kind } = order;
        Self { pool: pool.clone(), backend: backend.clone(), matter: OrderMatter::of(kind) }
    }
}

/// When and where an order was given; the greater of two is the later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OrderStamp {
    /// Time on the store's clock, in milliseconds since 1970.
    pub at_ms: u64,
    /// Number of the instance, which decides between orders of one time.
    pub instance: u64,
}

/// An order as instances tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToldOrder {
    /// What was ordered.
    pub order: BackendOrder,
    /// When and where.
    pub stamp: OrderStamp,
    /// Name of the host where it was given.
    pub host: Box<str>,
}

/// What has become of an order at this instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderOutcome {
    /// The order has yet to be applied.
    Due,
    /// The order was applied.
    Applied,
    /// The instance does not have the pool or the backend; the order is applied when a reload brings it.
    NotHere,
    /// The order cannot be applied here, with the reason; it is tried again after each reload.
    Refused(Box<str>),
}

/// An order of the book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BookedOrder {
    /// What was ordered.
    pub order: BackendOrder,
    /// Time on the store's clock; `None`: the store was away since, and the time follows from `given_ms` when it is
    /// back.
    pub at_ms: Option<u64>,
    /// Number of the instance where it was given.
    pub instance: u64,
    /// Name of its host.
    pub host: Box<str>,
    /// Time on the clock of this process, which may be before its start.
    pub given_ms: ClockMs,
    /// Time on the store's clock of the last order about the backend that was known then; 0: there was none.
    pub after_ms: u64,
    /// The store has it, as far as known.
    pub is_told: bool,
    /// What has become of it here.
    pub outcome: OrderOutcome,
}

/// An order that this instance has to apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueOrder {
    /// What was ordered.
    pub order: BackendOrder,
    /// Number of the instance where it was given.
    pub instance: u64,
    /// Name of its host.
    pub host: Box<str>,
    /// Time on the clock of this process, which may be before its start, and by another instance's clock in the future.
    pub given_ms: ClockMs,
    rank: (u64, u64),
}

/// What a book makes of an order that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakenOrder {
    /// The order is later than what was known, and due.
    New,
    /// The book has it.
    Known,
    /// The book has a later one, which is told again.
    Older,
    /// The book has later orders about as many matters as it has room for.
    NoRoom,
    /// The book takes no orders.
    Closed,
}

/// Orders of a fleet; clones share them.
#[derive(Debug, Clone, Default)]
pub struct OrderBook(Arc<Mutex<Booked>>);

#[derive(Debug, Default)]
struct Booked {
    /// Number and host of this instance; `None`: the book is closed.
    own: Option<(u64, Box<str>)>,
    /// What has to be added to the process's clock for that of the store; `None`: not known.
    ahead_ms: Option<i64>,
    orders: BTreeMap<OrderKey, BookedOrder>,
    /// Orders that found no room.
    lost: u64,
    waker: Option<Waker>,
}

impl OrderBook {
    /// Begins to take orders, as this instance.
    pub fn open(&self, instance: u64, host: &str) {
        self.lock().own = Some((instance, host.into()));
    }

    /// Forgets all orders and takes none.
    pub fn close(&self) {
        let mut booked = self.lock();
        (booked.own, booked.ahead_ms, booked.orders) = (None, None, BTreeMap::new());
    }

    /// True if orders are taken.
    pub fn is_open(&self) -> bool {
        self.lock().own.is_some()
    }

    /// Goes on with the orders of the process before, before the book is opened.
    pub fn resume(&self, orders: impl IntoIterator<Item = BookedOrder>) {
        let mut booked = self.lock();
        orders.into_iter().for_each(|order| booked.put(order));
    }

    /// Takes an order that was given and applied at this instance, for the others.
    pub fn give(&self, order: &BackendOrder, now_ms: ClockMs) {
        let mut booked = self.lock();
        let Some((instance, host)) = booked.own.clone() else { return };
        let about = OrderMatter::ALL.map(|matter| OrderKey { matter, ..OrderKey::of(order) });
        let known = about.iter().filter_map(|key| booked.orders.get(key));
        let after_ms = known.map(|known| known.at_ms.unwrap_or_default().max(known.after_ms)).max().unwrap_or_default();
        let at_ms = booked.ahead_ms.map(|ahead_ms| store_ms(now_ms, ahead_ms, after_ms));
        let (order, outcome) = (order.clone(), OrderOutcome::Applied);
        booked.put(BookedOrder { order, at_ms, instance, host, given_ms: now_ms, after_ms, is_told: false, outcome });
    }

    /// Sets what has to be added to the process's clock for that of the store, and dates orders that were given while
    /// it was not known. `None`: the store is away.
    pub fn date(&self, ahead_ms: Option<i64>) {
        let mut booked = self.lock();
        booked.ahead_ms = ahead_ms;
        let Some(ahead_ms) = ahead_ms else { return };
        let mut undated: Vec<_> = booked.orders.values().filter(|known| known.at_ms.is_none()).cloned().collect();
        for known in &mut undated {
            known.at_ms = Some(store_ms(known.given_ms, ahead_ms, known.after_ms));
            booked.orders.remove(&OrderKey::of(&known.order));
        }
        undated.into_iter().for_each(|known| booked.put(known));
    }

    /// Takes an order that was read.
    pub fn take(&self, told: ToldOrder) -> TakenOrder {
        let mut booked = self.lock();
        let (key, rank) = (OrderKey::of(&told.order), (told.stamp.at_ms, told.stamp.instance));
        if booked.own.is_none() {
            return TakenOrder::Closed;
        }
        if let Some(known) = booked.orders.get_mut(&key)
            && known.rank() >= rank
        {
            let is_it = known.rank() == rank;
            // What was read may have come over the later one in the store.
            known.is_told = is_it;
            return if is_it { TakenOrder::Known } else { TakenOrder::Older };
        }
        if booked.is_void(&key, rank) {
            return TakenOrder::Older;
        }
        let ToldOrder { order, stamp: OrderStamp { at_ms, instance }, host } = told;
        let given_ms = signed(at_ms).saturating_sub(booked.ahead_ms.unwrap_or_default());
        let (after_ms, outcome) = (0, OrderOutcome::Due);
        let at_ms = Some(at_ms);
        booked.put(BookedOrder { order, at_ms, instance, host, given_ms, after_ms, is_told: true, outcome });
        if !booked.orders.contains_key(&key) {
            return TakenOrder::NoRoom;
        }
        let waker = booked.waker.take();
        drop(booked);
        waker.into_iter().for_each(Waker::wake);
        TakenOrder::New
    }

    /// Doubts that the store has any of the orders: what is not read there is told again.
    pub fn doubt(&self) {
        self.lock().orders.values_mut().for_each(|known| known.is_told = false);
    }

    /// Orders that wait to be told and have a time.
    pub fn waiting(&self) -> Vec<ToldOrder> {
        let booked = self.lock();
        let waiting = booked.orders.values().filter(|known| !known.is_told);
        waiting.filter_map(BookedOrder::told).collect()
    }

    /// Notes that the store has these orders.
    pub fn told(&self, orders: &[ToldOrder]) {
        let mut booked = self.lock();
        for ToldOrder { order, stamp, .. } in orders {
            if let Some(known) = booked.orders.get_mut(&OrderKey::of(order))
                && known.rank() == (stamp.at_ms, stamp.instance)
            {
                known.is_told = true;
            }
        }
    }

    /// Pending while no order is due.
    pub fn poll_due(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut booked = self.lock();
        if booked.orders.values().any(|known| known.outcome == OrderOutcome::Due) {
            return Poll::Ready(());
        }
        booked.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Orders that are due, the earliest first.
    pub fn due(&self) -> Vec<DueOrder> {
        let booked = self.lock();
        let due = booked.orders.values().filter(|known| known.outcome == OrderOutcome::Due);
        let mut due: Vec<_> = due.map(BookedOrder::due).collect();
        due.sort_by_key(|due| due.rank);
        due
    }

    /// Notes what has become of an order that was due.
    pub fn settle(&self, due: &DueOrder, outcome: OrderOutcome) {
        let mut booked = self.lock();
        let Some(known) = booked.orders.get_mut(&OrderKey::of(&due.order)) else { return };
        if known.rank() == due.rank {
            known.outcome = outcome;
        } else if known.outcome == OrderOutcome::Applied {
            // A command was carried out meanwhile, and the earlier order has come over it.
            known.outcome = OrderOutcome::Due;
        }
    }

    /// Has orders applied that another configuration has brought the backend of, and notes those that have lost theirs.
    pub fn follow(&self, is_here: impl Fn(&BackendOrder) -> bool) {
        let mut booked = self.lock();
        for known in booked.orders.values_mut() {
            use OrderOutcome::{Applied, Due, NotHere, Refused};
            known.outcome = match (is_here(&known.order), &known.outcome) {
                (true, NotHere | Refused(_)) if known.stands() => Due,
                // A backend that is new has nothing to end.
                (true, NotHere) => Applied,
                (false, Applied | Refused(_)) if known.stands() => NotHere,
                _ => continue,
            };
        }
        let waker = booked.waker.take();
        drop(booked);
        waker.into_iter().for_each(Waker::wake);
    }

    /// The order about a matter; `None`: there is none.
    pub fn find(&self, key: &OrderKey) -> Option<BookedOrder> {
        self.lock().orders.get(key).cloned()
    }

    /// Every order.
    pub fn all(&self) -> Vec<BookedOrder> {
        self.lock().orders.values().cloned().collect()
    }

    /// How many orders the store has, as far as known.
    pub fn told_count(&self) -> usize {
        self.lock().orders.values().filter(|known| known.is_told).count()
    }

    /// Orders that found no room.
    pub fn lost(&self) -> u64 {
        self.lock().lost
    }

    /// Locks the orders. A poisoned lock is taken as well: every step leaves the book consistent.
    fn lock(&self) -> MutexGuard<'_, Booked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Booked {
    /// Puts an order in the place of the one about the same matter, which is not later.
    fn put(&mut self, order: BookedOrder) {
        let (key, rank) = (OrderKey::of(&order.order), order.rank());
        if self.is_void(&key, rank) {
            return;
        }
        if key.matter == OrderMatter::Presence {
            let of_backend = |other: &OrderKey| other.pool == key.pool && other.backend == key.backend;
            self.orders.retain(|other, known| !of_backend(other) || known.rank() >= rank);
        }
        self.orders.insert(key, order);
        if self.orders.len() > ORDERS_MAX {
            let first = self.orders.iter().min_by_key(|(_, known)| (known.stands(), known.rank()));
            if let Some(key) = first.map(|(key, _)| key.clone()) {
                self.orders.remove(&key);
                self.lost += 1;
            }
        }
    }

    /// True if a later order has added or removed the backend.
    fn is_void(&self, key: &OrderKey, rank: (u64, u64)) -> bool {
        let presence = OrderKey { matter: OrderMatter::Presence, ..key.clone() };
        self.orders.get(&presence).is_some_and(|known| known.rank() > rank)
    }
}

impl BookedOrder {
    /// When and where it was given; an order without a time is later than every other one.
    fn rank(&self) -> (u64, u64) {
        (self.at_ms.unwrap_or(u64::MAX), self.instance)
    }

    /// False if the order only ends another one.
    pub fn stands(&self) -> bool {
        use OrderKind::{Address, Ready, Weight};
        !matches!(self.order.kind, Ready | Weight { weight: None } | Address { address: None })
    }

    fn told(&self) -> Option<ToldOrder> {
        let stamp = OrderStamp { at_ms: self.at_ms?, instance: self.instance };
        Some(ToldOrder { order: self.order.clone(), stamp, host: self.host.clone() })
    }

    fn due(&self) -> DueOrder {
        let Self { order, instance, host, given_ms, .. } = self.clone();
        DueOrder { order, instance, host, given_ms, rank: self.rank() }
    }
}

/// A time on the store's clock, later than this one.
fn store_ms(given_ms: ClockMs, ahead_ms: i64, after_ms: u64) -> u64 {
    let at_ms = u64::try_from(given_ms.saturating_add(ahead_ms)).unwrap_or_default();
    at_ms.max(after_ms.saturating_add(1))
}

fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
