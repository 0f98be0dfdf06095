//! [`Server::apply_order`]: the one way by which an order about a backend takes effect, wherever it was given.
//!
//! Decides nothing about a set (`config::PoolOrders` does). Invariant: an order is in force wholly or not at all, by the
//! snapshot swap of a reload; the reply comes when the next process would know of it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::discovery::own_addresses;
use super::reload::moves_at_most;
use super::{Server, lock_of};
use crate::clock;
use crate::config::{self, Config};
use crate::events::{self, Event, EventKind};
use crate::order::{BackendOrder, OrderKind, OrderOrigin, OrderRefusal};
use crate::pool::health::ClockMs;
use crate::pool::{self, AdminState};
use crate::snapshot::Snapshot;

impl Server {
    /// Carries out an order, and returns the new state in words. `by`: where it was given. `given_ms`: when, on the
    /// process's clock; it may be before the process began. `max_move`: the highest share of the pool's known clients
    /// that may move, 0 to 1; `None`: any.
    pub(super) async fn apply_order(
        &self,
        order: &BackendOrder,
        by: &OrderOrigin,
        given_ms: ClockMs,
        max_move: Option<f64>,
    ) -> Result<String, OrderRefusal> {
        let state = match &order.kind {
            OrderKind::Drain => Some(AdminState::Drain),
            OrderKind::Close => Some(AdminState::Close),
            OrderKind::Ready if !self.is_removed(order) => Some(AdminState::Ready),
            _ => None,
        };
        let said = match state {
            Some(state) => self.set_state(order, state, by, given_ms)?,
            None => self.change_set(order, by, given_ms, max_move).await?,
        };
        if *by != OrderOrigin::Command {
            // The state file is written once for all that have come from there.
            return Ok(said);
        }
        self.note_order(order, given_ms);
        // The reply comes when the next process would know.
        let lost = self.keep_state(false).await.err().map(|why| format!(", but a restart will not know it: {why}"));
        let BackendOrder { pool, backend, .. } = order;
        Ok(format!("{pool}/{backend}: {said}{}{}", self.telling(order), lost.unwrap_or_default()))
    }

    /// The orders that stand for the backends of all pools, without drains.
    pub(super) fn standing_orders(&self) -> Vec<(BackendOrder, OrderOrigin)> {
        self.current.load().config.pools.iter().flat_map(config::Pool::standing_orders).collect()
    }

    fn is_removed(&self, order: &BackendOrder) -> bool {
        let snapshot = self.current.load();
        let pool = snapshot.pool(&order.pool);
        pool.and_then(|pool| pool.config().orders.of(&order.backend)).is_some_and(|order| order.removal.is_some())
    }

    /// Refuses every order while another process takes over.
    fn may_order(&self) -> Result<(), OrderRefusal> {
        if self.handover.gives_state() {
            return Err(OrderRefusal::Refused("another process takes over: give the command to that one".into()));
        }
        Ok(())
    }

    /// Drains or closes a backend, or ends that. Returns the new state in words.
    fn set_state(
        &self,
        order: &BackendOrder,
        state: AdminState,
        by: &OrderOrigin,
        given_ms: ClockMs,
    ) -> Result<String, OrderRefusal> {
        self.may_order()?;
        let BackendOrder { pool, backend, .. } = order;
        let now_ms = clock::now_ms();
        let order_since = |snapshot: &Snapshot| -> Result<_, OrderRefusal> {
            let known = Arc::clone(pool_of(snapshot, pool)?);
            let is_known = known.order_since(backend, state, given_ms);
            Ok((known, is_known))
        };
        let (known, is_known) = self.current.order(order_since)?;
        if !is_known {
            return Err(OrderRefusal::Unknown(format!("pool {pool:?} has no backend {backend:?}")));
        }
        let is = known.backends().iter().find(|known| known.name() == &**backend);
        let word = is.and_then(|is| is.runtime_word(now_ms)).unwrap_or("ready");
        lock_of(&self.drains).ordered(pool, backend);
        let kind = if state == AdminState::Ready { EventKind::Ready } else { EventKind::Drain };
        let event = Event::new(kind, &format!("backend {pool}/{backend}: {word}, {by}"));
        events::info(clock::unix_ms(), event.of_backend(pool, backend));
        let left = is.is_some_and(|is| is.has_left_source() && state == AdminState::Ready);
        Ok(format!("{word}{}", if left { ", as long as its source does not name it" } else { "" }))
    }

    /// Adds, changes or removes a backend, or takes one back. Returns what is so now.
    async fn change_set(
        &self,
        order: &BackendOrder,
        by: &OrderOrigin,
        given_ms: ClockMs,
        max_move: Option<f64>,
    ) -> Result<String, OrderRefusal> {
        let mut listen_sockets = self.listen_sockets.lock().await;
        // Both may have become so while a reload or an upgrade had the lock.
        self.may_order()?;
        if self.stopping.load(Relaxed) {
            return Err(OrderRefusal::Refused("the process is stopping".into()));
        }
        let BackendOrder { pool, backend, kind } = order;
        let before = self.current.load_full();
        let was = pool_of(&before, pool)?.config();
        let next = was.ordered(backend, kind, by, given_ms)?;
        self.is_none_of_ours(&before.config, &next, backend)?;
        if let Some(most) = max_move {
            let without = next.with_removals_over(&|name, _| name == &**backend);
            moves_by_order_at_most(most, &before, without).await?;
        }
        let Some(after) = self.put_pool_in_force(&before, &next, &mut listen_sockets).await else {
            return match next == *was {
                true => Ok(format!("{}; nothing has changed", words(kind, was, backend))),
                false => Err(OrderRefusal::Refused("it cannot be put in force; the log says why".into())),
            };
        };
        lock_of(&self.drains).ordered(pool, backend);
        let is = pool_of(&after, pool)?;
        if *kind == OrderKind::Ready {
            // A drain by command that had begun before the removal ends with it.
            is.order(backend, AdminState::Ready, clock::now_ms());
        }
        let said = words(kind, is.config(), backend);
        let text = format!("backend {pool}/{backend}: {said}, {by}");
        tracing::info!("{text}, as generation {}", after.generation);
        let drains = is.config().backends.iter().any(|known| known.name == **backend && known.absence().is_some());
        let event = Event::new(event_kind(kind, drains), &text).of_backend(pool, backend);
        self.note_cause(&before, &after, events::note(clock::unix_ms(), event));
        Ok(format!("{said} (runtime), generation {}, digest {:016x}", after.generation, after.digest))
    }

    /// Refuses an address of this process.
    fn is_none_of_ours(&self, config: &Config, next: &config::Pool, backend: &str) -> Result<(), OrderRefusal> {
        let own = own_addresses(config, &lock_of(&self.bound));
        let ordered = next.orders.of(backend).and_then(|order| {
            let added = order.added.as_ref().map(|added| &added.address);
            order.address.as_ref().map(|address| &address.ordered).or(added)
        });
        match ordered.filter(|address| own.iter().any(|bind| bind.is_reached_by(address))) {
            Some(address) => {
                Err(OrderRefusal::Refused(format!("{address} is an address of this process: connections would loop")))
            }
            None => Ok(()),
        }
    }
}

fn pool_of<'s>(snapshot: &'s Snapshot, pool: &str) -> Result<&'s Arc<pool::Pool>, OrderRefusal> {
    snapshot.pool(pool).ok_or_else(|| OrderRefusal::Unknown(format!("there is no pool {pool:?}")))
}

/// Refuses an order by which more of the known clients would move, now or when the drain of a removed backend is over.
async fn moves_by_order_at_most(most: f64, before: &Arc<Snapshot>, next: config::Pool) -> Result<(), OrderRefusal> {
    let mut config = (*before.config).clone();
    config.pools.iter_mut().filter(|pool| pool.name == next.name).for_each(|pool| *pool = next.clone());
    let before = Arc::clone(before);
    let compared = tokio::task::spawn_blocking(move || moves_at_most(most, &before, &config, &before.rings));
    let compared = compared.await.unwrap_or_else(|panic| Err(vec![format!("comparing failed: {panic}")]));
    compared.map_err(|problems| OrderRefusal::Refused(problems.join("; ")))
}

/// The kind of the event about an order.
fn event_kind(kind: &OrderKind, drains: bool) -> EventKind {
    match kind {
        OrderKind::Ready => EventKind::Ready,
        OrderKind::Remove { .. } if drains => EventKind::Drain,
        _ => EventKind::Ordered,
    }
}

/// What is so of a backend after an order, in words.
fn words(kind: &OrderKind, pool: &config::Pool, name: &str) -> String {
    let order = pool.orders.of(name);
    let backend = pool.backends.iter().find(|backend| backend.name == name);
    let shown = |what: fn(&config::Backend) -> String| backend.map(what).unwrap_or_default();
    match kind {
        OrderKind::Weight { .. } => match order.and_then(|order| order.weight.as_ref()) {
            Some(weight) => format!("weight {} in place of {}", weight.ordered, weight.of),
            None => format!("weight {}, as configured", shown(|backend| backend.weight.to_string())),
        },
        OrderKind::Address { .. } => match order.and_then(|order| order.address.as_ref()) {
            Some(address) => format!("address {} in place of {}", address.ordered, address.of),
            None => format!("address {}, as configured", shown(|backend| backend.address.to_string())),
        },
        OrderKind::Add(_) => {
            format!("added at {}", shown(|backend| format!("{}, weight {}", backend.address, backend.weight)))
        }
        OrderKind::Remove { .. } if backend.is_some() => {
            format!("removed, serves known clients for at most {} s", pool.drain_deadline.as_secs())
        }
        OrderKind::Remove { .. } => "removed".to_owned(),
        OrderKind::Ready | OrderKind::Drain | OrderKind::Close => "ready".to_owned(),
    }
}
