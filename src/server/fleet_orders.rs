//! Orders of the fleet in the server: those of other instances are applied here as commands are, and those given here
//! are noted for the others.
//!
//! Tells nothing itself (`store::fleet` does), and applies by [`Server::apply_order`] alone. Invariants: an order of
//! another instance waits for nothing but its application, and a command for nothing of the fleet; an order about a
//! backend that this instance does not have stands in the book until a reload brings it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::Server;
use crate::clock;
use crate::metrics::status::FleetOrderStatus;
use crate::order::{BackendOrder, OrderKind, OrderOrigin, OrderRefusal};
use crate::pool::health::ClockMs;
use crate::pool::{Backend, BookedOrder, DueOrder, OrderKey, OrderMatter, OrderOutcome};
use crate::snapshot::Snapshot;
use crate::store::fleet::{Fleet, shown_instance};

/// How long orders of other instances wait while this process does not apply them, until it is looked again.
const PAUSE: Duration = Duration::from_secs(1);

impl Server {
    /// Notes an order that was given and carried out here, and has the other instances told. `given_ms`: when, on the
    /// process's clock.
    pub(super) fn note_order(&self, order: &BackendOrder, given_ms: ClockMs) {
        let book = self.current.load().orders.clone();
        if book.is_open() {
            book.give(order, given_ms);
            self.store.fleet().tell();
        }
    }

    /// Whether the other instances have an order that was given here, in words behind the reply to a command; empty if
    /// orders are not shared.
    pub(super) fn telling(&self, order: &BackendOrder) -> &'static str {
        let known = self.current.load().orders.find(&OrderKey::of(order));
        match known.filter(|known| known.instance == self.store.fleet().instance()) {
            None => "",
            Some(known) if known.is_told => ", told to the fleet",
            Some(_) if self.store.fleet().is_working() => ", being told to the fleet",
            Some(_) => ", store away: the fleet will be told",
        }
    }

    /// Applies orders of other instances as they come, for ever.
    pub(super) async fn follow_fleet_orders(self: Arc<Self>) {
        let book = self.current.load().orders.clone();
        loop {
            std::future::poll_fn(|cx| book.poll_due(cx)).await;
            if self.handover.gives_state() || self.stopping.load(Relaxed) {
                // The process that follows has the book, with what is due.
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            self.apply_fleet_orders().await;
        }
    }

    /// Applies the orders of other instances that are due, and keeps what has become of them.
    pub(super) async fn apply_fleet_orders(&self) {
        let due = self.current.load().orders.due();
        self.apply_all(due).await;
    }

    /// Applies those by which backends drain or are closed, which needs no other snapshot, while a configuration is put
    /// in force.
    pub(super) async fn apply_fleet_drains(&self) {
        let mut due = self.current.load().orders.due();
        due.retain(|due| matches!(due.order.kind, OrderKind::Drain | OrderKind::Close));
        self.apply_all(due).await;
    }

    async fn apply_all(&self, due: Vec<DueOrder>) {
        for due in &due {
            self.apply_due(due).await;
        }
        if !due.is_empty() {
            // A failure is in the log.
            let _ = self.keep_state(false).await;
        }
    }

    async fn apply_due(&self, due: &DueOrder) {
        let DueOrder { order, instance, host, given_ms, .. } = due;
        let by = OrderOrigin::Instance(shown_instance(host, *instance).into());
        // By the clock of another instance it may have been given in a moment.
        let given_ms = (*given_ms).min(now_ms());
        let outcome = match self.apply_order(order, &by, given_ms, None).await {
            Ok(_) => OrderOutcome::Applied,
            Err(OrderRefusal::Unknown(_)) => OrderOutcome::NotHere,
            Err(OrderRefusal::Refused(why)) => OrderOutcome::Refused(why.into()),
        };
        let BackendOrder { pool, backend, kind } = order;
        let word = kind.word();
        match &outcome {
            OrderOutcome::NotHere => {
                tracing::info!("order {word} of {pool}/{backend}, {by}: no such backend here, it waits for a reload");
            }
            OrderOutcome::Refused(why) => tracing::warn!("order {word} of {pool}/{backend}, {by}: {why}"),
            _ => {}
        }
        self.current.load().orders.settle(due, outcome);
    }

    /// The instance that has ordered the drain of a backend; `None`: this one, or it is not known.
    pub(super) fn drained_by(&self, backend: &Backend) -> Option<String> {
        backend.drain_times()?;
        let (pool, name) = (backend.pool_name().into(), backend.name().into());
        let key = OrderKey { pool, backend: name, matter: OrderMatter::State };
        let known = self.current.load().orders.find(&key)?;
        let is_it = known.instance != self.store.fleet().instance() && known.outcome == OrderOutcome::Applied;
        is_it.then(|| shown_instance(&known.host, known.instance))
    }
}

/// True if a configuration has what an order is about: the backend, or the pool of one that is added or removed.
pub(super) fn is_here(order: &BackendOrder, snapshot: &Snapshot) -> bool {
    let BackendOrder { pool, backend, .. } = order;
    let is_of_pool = OrderMatter::of(&order.kind) == OrderMatter::Presence;
    snapshot.pool(pool).is_some_and(|pool| is_of_pool || pool.index_of(backend).is_some())
}

/// The orders as status shows them, the latest first.
pub(super) fn status(snapshot: &Snapshot, fleet: &Fleet) -> Vec<FleetOrderStatus> {
    let now_ms = now_ms();
    let mut orders = snapshot.orders.all();
    orders.sort_by_key(|known| std::cmp::Reverse((known.given_ms, known.instance)));
    let shown = |known: BookedOrder| {
        let is_own = known.instance == fleet.instance();
        let (here, why) = match &known.outcome {
            OrderOutcome::Due => ("due", ""),
            OrderOutcome::Applied => ("applied", ""),
            OrderOutcome::NotHere => ("not_here", ""),
            OrderOutcome::Refused(why) => ("refused", &**why),
        };
        FleetOrderStatus {
            pool: known.order.pool.clone().into(),
            backend: known.order.backend.clone().into(),
            order: words(&known.order.kind),
            by: shown_instance(&known.host, known.instance),
            is_own,
            given_s: u64::try_from(now_ms.saturating_sub(known.given_ms)).unwrap_or_default() / 1_000,
            told: known.is_told,
            here: here.to_owned(),
            why: why.to_owned(),
        }
    };
    orders.into_iter().map(shown).collect()
}

/// An order in words, without the backend.
fn words(kind: &OrderKind) -> String {
    let word = kind.word();
    match kind {
        OrderKind::Weight { weight } => match weight {
            Some(weight) => format!("{word} {weight}"),
            None => format!("{word} as configured"),
        },
        OrderKind::Address { address } => format!("{word} {}", address.as_deref().unwrap_or("as configured")),
        OrderKind::Add(added) => format!("{word} {}", added.address),
        _ => word.to_owned(),
    }
}

fn now_ms() -> ClockMs {
    ClockMs::try_from(clock::now_ms()).unwrap_or(ClockMs::MAX)
}
