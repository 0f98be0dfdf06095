//! What a new configuration changes, in words: [`changes`], [`warnings`] and [`lower_limits`].
//!
//! Compares keys; how many clients would move is for `plan`. Invariant: two configurations that differ never give an
//! empty list of changes, and every key that was written otherwise is in it.

mod keys;
mod limits;

use std::collections::{HashMap, HashSet};

use self::keys::{KeyChange, changed_keys};
use super::{Backend, Config, Pool, StandingOrder};

pub use self::limits::lower_limits;

/// Every key of the file that changed, each with the time at which its change takes effect, and the listeners, pools,
/// backends and ranges that are added or removed, and orders at run time that end.
pub fn changes(old: &Config, new: &Config) -> Vec<String> {
    let changed = changed_keys(old, new);
    let mut changes: Vec<_> = changed.iter().map(ToString::to_string).collect();
    changes.extend(changed_unwritten(old, new, &changed));
    changes.extend(ended_orders(old, new));
    changes
}

/// Changes that a reload cannot make, and backends under a new name. `started` is the configuration of the start: its
/// keys that only a start reads are still in force.
pub fn warnings(started: &Config, old: &Config, new: &Config) -> Vec<String> {
    let mut warnings: Vec<_> = changed_keys(started, new).iter().filter_map(KeyChange::at_next_start).collect();
    warnings.extend(renamed_backends(old, new));
    warnings
}

/// Pools that exist in both configurations, by name: before and after.
pub fn common_pools<'a>(old: &'a Config, new: &'a Config) -> impl Iterator<Item = (&'a Pool, &'a Pool)> {
    let before = old.pools_by_name();
    new.pools.iter().filter_map(move |after| Some((*before.get(after.name.as_str())?, after)))
}

/// What means something else although it is written as before: a name in the file resolves to another address.
fn changed_unwritten<'c>(old: &Config, new: &Config, changed: &'c [KeyChange]) -> Vec<String> {
    // Every object in which a key has changed, with those around it.
    let around = |change: &'c KeyChange| {
        let ends = change.names.match_indices('/').map(|(at, _)| at).chain([0, change.names.len()]);
        ends.map(|end| (change.root.as_str(), &change.names[..end]))
    };
    let known: HashSet<(&str, &str)> = changed.iter().flat_map(around).collect();
    let of = |root: &str, names: &str| known.contains(&(root, names));
    let mut changes = Vec::new();
    for (root, differs) in
        [("tls", old.tls != new.tls), ("limits", old.limits != new.limits), ("store", old.store != new.store)]
    {
        if differs && !of(root, "") {
            changes.push(format!("{root} changed"));
        }
    }
    for listener in &new.listeners {
        let differs = old.listeners.iter().any(|before| before.name == listener.name && before != listener);
        if differs && !of("listener", &listener.name) {
            changes.push(format!("listener {:?} changed", listener.name));
        }
    }
    for (before, after) in common_pools(old, new) {
        let count = changes.len();
        let known = by_name(before);
        for backend in &after.backends {
            let differs = known.get(backend.name.as_str()).is_some_and(|known| *known != backend);
            let names = || format!("{}/{}", after.name, backend.name);
            if differs && !of("pool", &names()) {
                changes.push(format!("backend {:?} changed", names()));
            }
        }
        if changes.len() == count && before != after && !of("pool", &after.name) {
            changes.push(format!("pool {:?} changed", after.name));
        }
    }
    changes
}

/// Orders at run time that the new file ends, because it has another value, the backend itself, or no such backend.
fn ended_orders(old: &Config, new: &Config) -> Vec<String> {
    let mut ended = Vec::new();
    for (before, after) in common_pools(old, new) {
        for (name, order) in before.orders.all() {
            let stay = after.orders.of(name).map(StandingOrder::words).unwrap_or_default();
            let void: Vec<_> = order.words().into_iter().filter(|word| !stay.contains(word)).collect();
            if !void.is_empty() {
                let names = format!("{}/{name}", after.name);
                ended.push(format!("backend {names:?}: no order any more, the file decides: {}", void.join(", ")));
            }
        }
    }
    ended
}

/// Backends with a new name and the address of a removed one: identity is the name, so clients are placed anew.
fn renamed_backends(old: &Config, new: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    for (before, after) in common_pools(old, new) {
        let (old, new) = (by_name(before), by_name(after));
        let mut added = HashMap::new();
        for backend in after.backends.iter().filter(|backend| !old.contains_key(backend.name.as_str())) {
            added.entry(&backend.address).or_insert(backend);
        }
        for removed in before.backends.iter().filter(|backend| !new.contains_key(backend.name.as_str())) {
            let renamed = added.get(&removed.address);
            if let Some(renamed) = renamed {
                let (pool, new, old) = (&after.name, &renamed.name, &removed.name);
                warnings.push(format!(
                    "pool {pool:?}: backend {new:?} has the address of the removed {old:?}: a new name is a new backend, \
                     its clients move"
                ));
            }
        }
    }
    warnings
}

fn by_name(pool: &Pool) -> HashMap<&str, &Backend> {
    pool.backends.iter().map(|backend| (backend.name.as_str(), backend)).collect()
}
