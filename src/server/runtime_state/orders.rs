//! [`RuntimeOrder`]: an order that stands for a backend, for a process that begins.
//!
//! Applies nothing. Invariant: what comes back is an order that could have been given, whatever a document has, and the
//! drain of a removal ends no later than it would have ended.

use serde::{Deserialize, Serialize};

use super::{Clocks, RuntimeState};
use crate::config::{
    Absence, Backend, BackendOrigin, Instead, Pool, Removal, StandingOrder, is_name, levels, order_address,
    shown_address,
};
use crate::order::{NewBackend, OrderOrigin};

/// What orders have made of one backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RuntimeOrder {
    pub(super) name: String,
    #[serde(default)]
    by: OrderOrigin,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    added: Option<NewBackend>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight: Option<RuntimeInstead<u16>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<RuntimeInstead<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    removal: Option<RuntimeRemoval>,
}

/// A value in the place of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RuntimeInstead<T> {
    ordered: T,
    of: T,
}

/// A removal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RuntimeRemoval {
    backend: NewBackend,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    backup: bool,
    /// `None`: the drain is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drain: Option<RuntimeDrainTimes>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RuntimeDrainTimes {
    since_unix_ms: i64,
    deadline_unix_ms: i64,
}

impl RuntimeOrder {
    pub(super) fn of(name: &str, order: &StandingOrder, clocks: Clocks) -> Self {
        let StandingOrder { by, added, weight, address, removal } = order;
        Self {
            name: name.to_owned(),
            by: by.clone(),
            added: added.as_ref().map(Backend::as_new),
            weight: weight.as_ref().map(|weight| RuntimeInstead { ordered: weight.ordered, of: weight.of }),
            address: address
                .as_ref()
                .map(|address| RuntimeInstead { ordered: address.ordered.to_string(), of: address.of.to_string() }),
            removal: removal.as_ref().map(|Removal { backend, drain }| RuntimeRemoval {
                backend: backend.as_new(),
                backup: backend.backup,
                drain: drain.map(|drain| RuntimeDrainTimes {
                    since_unix_ms: clocks.unix(drain.since_ms),
                    deadline_unix_ms: clocks.unix(drain.deadline_ms),
                }),
            }),
        }
    }

    /// A sentence for the log: whether the order stands in a pool of the next process, `None`: which has no such pool.
    pub(super) fn line(&self, pool_name: &str, pool: Option<&Pool>) -> String {
        let backend = format!("backend {pool_name}/{}", self.name);
        match pool.and_then(|pool| pool.orders.of(&self.name)) {
            Some(order) => format!("{backend}: {}, {} (runtime)", order.words().join(", "), order.by),
            None => {
                format!("{backend}: the orders of the process before have ended, because the configuration decides")
            }
        }
    }

    /// The order; `None`: no such order could have been given.
    fn standing(&self, clocks: Clocks) -> Option<StandingOrder> {
        let Self { name, by, added, weight, removal, address } = self;
        let readdressed = |address: &RuntimeInstead<String>| {
            Some(Instead { ordered: order_address(&address.ordered).ok()?, of: shown_address(&address.of)? })
        };
        Some(StandingOrder {
            by: by.clone(),
            added: read(added.as_ref(), |added| backend(name, added, false))?,
            weight: read(weight.as_ref(), |weight| {
                (weight.ordered <= 256).then_some(Instead { ordered: weight.ordered, of: weight.of })
            })?,
            address: read(address.as_ref(), readdressed)?,
            removal: read(removal.as_ref(), |removal| {
                Some(Removal {
                    backend: backend(name, &removal.backend, removal.backup)?,
                    drain: removal.drain.as_ref().map(|times| {
                        // A wall clock that was set back would make it longer.
                        let length_ms = times.deadline_unix_ms.saturating_sub(times.since_unix_ms).max(0);
                        let latest_ms = clocks.now_ms.saturating_add(length_ms);
                        Absence {
                            since_ms: clocks.process(times.since_unix_ms).min(clocks.now_ms),
                            deadline_ms: clocks.process(times.deadline_unix_ms).min(latest_ms),
                        }
                    }),
                })
            })?,
        })
    }
}

impl RuntimeState {
    /// The orders that stood for the backends of this pool, by the names of the backends.
    pub(in crate::server) fn orders(&self, pool: &str, now_ms: u64, unix_ms: u64) -> Vec<(String, StandingOrder)> {
        let clocks = Clocks::new(now_ms, unix_ms);
        let known = self.pools.iter().filter(|known| known.name == pool).flat_map(|known| &known.orders);
        known.filter_map(|order| Some((order.name.clone(), order.standing(clocks)?))).collect()
    }
}

/// Reads a part that may be missing; `None`: it is there and cannot be what it says.
fn read<T, U>(part: Option<&T>, read: impl FnOnce(&T) -> Option<U>) -> Option<Option<U>> {
    part.map_or(Some(None), |part| read(part).map(Some))
}

fn backend(name: &str, new: &NewBackend, backup: bool) -> Option<Backend> {
    let NewBackend { address, weight, location, max_connections } = new;
    Some(Backend {
        name: Some(name).filter(|name| is_name(name))?.to_owned(),
        address: order_address(address).ok()?,
        host: None,
        weight: (*weight).min(256),
        location: levels(location).ok()?,
        backup,
        max_connections: max_connections.filter(|most| *most > 0),
        origin: BackendOrigin::Ordered { removal: None },
    })
}
