//! Reads a [`RuntimeState`] part by part, so that one part which cannot be read costs no other one.
//!
//! Puts nothing into a snapshot. Invariant: what is left out is named, without its value, which may be a secret; a text
//! that is no document, or has another format, is refused as a whole.

use serde_json::{Map, Value};

use super::fleet_orders::RuntimeFleetOrder;
use super::found::RuntimeFound;
use super::named::RuntimeName;
use super::orders::RuntimeOrder;
use super::parts::{take, take_objects};
use super::{RuntimeBackend, RuntimePool, RuntimeState, VERSION};

/// Most parts that are named one by one.
const NAMED_MAX: usize = 10;

impl RuntimeState {
    /// Reads a document; the error says why it is refused.
    pub(in crate::server) fn from_json(text: &str) -> Result<Self, String> {
        let value = serde_json::from_str(text).map_err(|error| format!("is no runtime state: {error}"))?;
        Self::from_value(value)
    }

    /// Reads a document that is JSON already.
    pub(in crate::server) fn from_value(document: Value) -> Result<Self, String> {
        let Value::Object(mut fields) = document else { return Err("is no runtime state: it is no object".to_owned()) };
        match fields.get("version").map(Value::as_u64) {
            Some(Some(version)) if version == u64::from(VERSION) => {}
            None | Some(Some(0)) => return Err("is no runtime state: it has no version".to_owned()),
            Some(Some(version)) => {
                return Err(format!("has the format {version}; this sessile reads format {VERSION}"));
            }
            Some(None) => return Err("is no runtime state: its version is no number".to_owned()),
        }
        let mut unread = Vec::new();
        let state = Self {
            version: VERSION,
            written_unix_ms: take(&mut fields, "written_unix_ms", "the time of the document", &mut unread),
            pools: read_pools(&mut fields, &mut unread),
            fleet_orders: read_fleet_orders(&mut fields, &mut unread),
            tickets: take(&mut fields, "tickets", "the keys of session tickets", &mut unread),
            store: take(&mut fields, "store", "the state of the shared store", &mut unread),
            events: take(&mut fields, "events", "the events", &mut unread),
            unread: Vec::new(),
        };
        match state.events.as_ref().map_or(0, |events| events.unread()) {
            0 => {}
            1 => unread.push("one event".to_owned()),
            count => unread.push(format!("{count} events")),
        }
        Ok(Self { unread, ..state })
    }

    /// What of the document could not be read and is left out, as one sentence for the log; `None`: nothing.
    pub(in crate::server) fn left_out(&self) -> Option<String> {
        let named = self.unread.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = match self.unread.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        (!named.is_empty())
            .then(|| format!("cannot be read in part, and the rest is taken over; left out: {named}{more}"))
    }
}

fn read_pools(fields: &mut Map<String, Value>, unread: &mut Vec<String>) -> Vec<RuntimePool> {
    let pools = take_objects(fields, "pools", "the pools", unread).into_iter();
    let pools = pools.map(|mut fields| {
        let name: String = take(&mut fields, "name", "the name of a pool", unread);
        let backends = take_objects(&mut fields, "backends", &format!("the backends of pool {name:?}"), unread);
        let backends = backends.into_iter().map(|fields| read_backend(&name, fields, unread)).collect();
        let found = take_objects(&mut fields, "found", &format!("the found backends of pool {name:?}"), unread);
        let found = found.into_iter().filter_map(|fields| read_found(&name, fields, unread)).collect();
        let named = take_objects(&mut fields, "named", &format!("the addresses of names of pool {name:?}"), unread);
        let named = named.into_iter().filter_map(|fields| read_named(&name, fields, unread)).collect();
        let orders = take_objects(&mut fields, "orders", &format!("the orders of pool {name:?}"), unread);
        let orders = orders.into_iter().filter_map(|fields| RuntimeOrder::read(&name, fields, unread)).collect();
        RuntimePool { name, backends, found, named, orders }
    });
    pools.collect()
}

fn read_fleet_orders(fields: &mut Map<String, Value>, unread: &mut Vec<String>) -> Vec<RuntimeFleetOrder> {
    let orders = take_objects(fields, "fleet_orders", "the orders of the fleet", unread).into_iter();
    let orders = orders.map(|fields| serde_json::from_value(Value::Object(fields)));
    orders.filter_map(|order| order.map_err(|_| unread.push("an order of the fleet".to_owned())).ok()).collect()
}

fn read_found(pool: &str, fields: Map<String, Value>, unread: &mut Vec<String>) -> Option<RuntimeFound> {
    let found = serde_json::from_value(Value::Object(fields));
    found.inspect_err(|_| unread.push(format!("a found backend of pool {pool:?}"))).ok()
}

fn read_named(pool: &str, fields: Map<String, Value>, unread: &mut Vec<String>) -> Option<RuntimeName> {
    let named = serde_json::from_value(Value::Object(fields));
    named.inspect_err(|_| unread.push(format!("the address of a name of pool {pool:?}"))).ok()
}

fn read_backend(pool: &str, mut fields: Map<String, Value>, unread: &mut Vec<String>) -> RuntimeBackend {
    let name: String = take(&mut fields, "name", &format!("the name of a backend of pool {pool:?}"), unread);
    let of = |what: &str| format!("{what} of backend {:?}", format!("{pool}/{name}"));
    RuntimeBackend {
        address: take(&mut fields, "address", &of("the address"), unread),
        drain: take(&mut fields, "drain", &of("the drain"), unread),
        ejection: take(&mut fields, "ejection", &of("the ejection"), unread),
        checks: take(&mut fields, "checks", &of("the checks"), unread),
        name,
    }
}
