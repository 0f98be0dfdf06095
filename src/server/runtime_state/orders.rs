//! [`RuntimeOrder`]: an order that stands for a backend, for a process that begins.
//!
//! Applies nothing. Invariants: what comes back is an order that could have been given, whatever a document has; a part
//! of it that cannot be read costs no other part; the drain of a removal ends no later than it would have ended.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::parts::take;
use super::{Clocks, RuntimeState};
use crate::config::{
    Absence, Address, Backend, BackendOrigin, Instead, Pool, Removal, StandingOrder, is_name, levels, order_address,
    shown_address,
};
use crate::order::{NewBackend, OrderOrigin};

/// The greatest weight of a backend.
const WEIGHT_MAX: u16 = 256;

/// What orders have made of one backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct RuntimeOrder {
    name: String,
    by: OrderOrigin,
    #[serde(skip_serializing_if = "Option::is_none")]
    added: Option<NewBackend>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<RuntimeInstead<u16>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<RuntimeInstead<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
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

    fn added(&self) -> Option<Backend> {
        backend(&self.name, self.added.as_ref()?, false, order_address)
    }

    fn weight(&self) -> Option<Instead<u16>> {
        let RuntimeInstead { ordered, of } = *self.weight.as_ref()?;
        (ordered <= WEIGHT_MAX).then_some(Instead { ordered, of })
    }

    fn address(&self) -> Option<Instead<Address>> {
        let RuntimeInstead { ordered, of } = self.address.as_ref()?;
        Some(Instead { ordered: order_address(ordered).ok()?, of: shown_address(of)? })
    }

    fn removal(&self, clocks: Clocks) -> Option<Removal> {
        let RuntimeRemoval { backend: removed, backup, drain } = self.removal.as_ref()?;
        let removed = backend(&self.name, removed, *backup, removed_address)?;
        Some(Removal {
            backend: Backend { origin: BackendOrigin::Written, ..removed },
            drain: drain.as_ref().map(|times| {
                let (since_ms, deadline_ms) = clocks.span(times.since_unix_ms, times.deadline_unix_ms);
                Absence { since_ms, deadline_ms }
            }),
        })
    }

    /// Reads an order part by part; `None`: it has no name of a backend.
    pub(super) fn read(pool: &str, mut fields: Map<String, Value>, unread: &mut Vec<String>) -> Option<Self> {
        let name: String = take(&mut fields, "name", &format!("the name of a backend of pool {pool:?}"), unread);
        let of = |what: &str| format!("{what} of backend {:?}", format!("{pool}/{name}"));
        let mut order = Self {
            by: take(&mut fields, "by", &of("the origin of the order"), unread),
            added: take(&mut fields, "added", &of("the addition"), unread),
            weight: take(&mut fields, "weight", &of("the ordered weight"), unread),
            address: take(&mut fields, "address", &of("the ordered address"), unread),
            removal: take(&mut fields, "removal", &of("the removal"), unread),
            name: name.clone(),
        };
        // What can be read and was never ordered.
        let now = Clocks { now_ms: 0, unix_ms: 0 };
        if order.added.is_some() && order.added().is_none() {
            order.added = None;
            unread.push(of("the addition"));
        }
        if order.weight.is_some() && order.weight().is_none() {
            order.weight = None;
            unread.push(of("the ordered weight"));
        }
        if order.address.is_some() && order.address().is_none() {
            order.address = None;
            unread.push(of("the ordered address"));
        }
        if order.removal.is_some() && order.removal(now).is_none() {
            order.removal = None;
            unread.push(of("the removal"));
        }
        (!name.is_empty()).then_some(order)
    }

    /// The order as far as it could have been given.
    fn standing(&self, clocks: Clocks) -> StandingOrder {
        StandingOrder {
            by: self.by.clone(),
            added: self.added(),
            weight: self.weight(),
            address: self.address(),
            removal: self.removal(clocks),
        }
    }
}

impl RuntimeState {
    /// The orders that stood for the backends of this pool, by the names of the backends.
    pub(in crate::server) fn orders(&self, pool: &str, now_ms: u64, unix_ms: u64) -> Vec<(String, StandingOrder)> {
        let clocks = Clocks::new(now_ms, unix_ms);
        let known = self.pools.iter().filter(|known| known.name == pool).flat_map(|known| &known.orders);
        known.map(|order| (order.name.clone(), order.standing(clocks))).collect()
    }
}

/// Reads the address of a removed backend. One that is written with a name may have had no address.
fn removed_address(written: &str) -> Result<Address, String> {
    let named = || shown_address(written).filter(|address| matches!(address, Address::Name(_)));
    order_address(written).or_else(|why| named().ok_or(why))
}

fn backend(
    name: &str,
    new: &NewBackend,
    backup: bool,
    read_address: impl FnOnce(&str) -> Result<Address, String>,
) -> Option<Backend> {
    let NewBackend { address, weight, location, max_connections } = new;
    Some(Backend {
        name: Some(name).filter(|name| is_name(name))?.to_owned(),
        address: read_address(address).ok()?,
        host: None,
        weight: (*weight).min(WEIGHT_MAX),
        location: levels(location).ok()?,
        backup,
        max_connections: max_connections.filter(|most| *most > 0),
        origin: BackendOrigin::Ordered { removal: None },
    })
}

#[cfg(test)]
mod tests;
