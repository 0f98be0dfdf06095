//! What a new configuration changes, in words: [`changes`], [`warnings`] and [`lower_limits`].
//!
//! Compares keys; how many clients would move is for `plan`. Invariant: two configurations that differ never give an
//! empty list of changes, and every key that was written otherwise is in it.

mod keys;
mod limits;

use self::keys::{KeyChange, changed_keys};
use super::{Config, Pool};

pub use self::limits::lower_limits;

/// Every key of the file that changed, each with the time at which its change takes effect, and the listeners, pools,
/// backends and ranges that are added or removed.
pub fn changes(old: &Config, new: &Config) -> Vec<String> {
    let changed = changed_keys(old, new);
    let mut changes: Vec<_> = changed.iter().map(ToString::to_string).collect();
    changes.extend(changed_unwritten(old, new, &changed));
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
    new.pools.iter().filter_map(|after| Some((old.pools.iter().find(|before| before.name == after.name)?, after)))
}

/// What means something else although it is written as before: a name in the file resolves to another address.
fn changed_unwritten(old: &Config, new: &Config, changed: &[KeyChange]) -> Vec<String> {
    let of = |root: &str, names: &str| {
        let inside =
            |known: &str| known == names || known.strip_prefix(names).is_some_and(|rest| rest.starts_with('/'));
        changed.iter().any(|change| change.root == root && (names.is_empty() || inside(&change.names)))
    };
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
        for backend in &after.backends {
            let names = format!("{}/{}", after.name, backend.name);
            let differs = before.backends.iter().any(|known| known.name == backend.name && known != backend);
            if differs && !of("pool", &names) {
                changes.push(format!("backend {names:?} changed"));
            }
        }
        if changes.len() == count && before != after && !of("pool", &after.name) {
            changes.push(format!("pool {:?} changed", after.name));
        }
    }
    changes
}

/// Backends with a new name and the address of a removed one: identity is the name, so clients are placed anew.
fn renamed_backends(old: &Config, new: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    for (before, after) in common_pools(old, new) {
        let (old_names, new_names) = (|name| has_backend(before, name), |name| has_backend(after, name));
        for removed in before.backends.iter().filter(|backend| !new_names(&backend.name)) {
            let renamed = after.backends.iter().find(|b| b.address == removed.address && !old_names(&b.name));
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

fn has_backend(pool: &Pool, name: &str) -> bool {
    pool.backends.iter().any(|backend| backend.name == name)
}
