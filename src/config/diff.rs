//! What a new configuration changes, in words: [`changes`], [`warnings`] and [`lower_limits`].
//!
//! Compares keys; how many clients would move is for `plan`. Invariant: two configurations that differ in a listener, a
//! pool, TLS, the store or a limit never give an empty list of changes.

mod limits;

use super::{Config, Limits, Listener, Pool};

pub use self::limits::lower_limits;

/// Listeners, pools and backends that are added, removed or changed, and changes of TLS, store and limits.
pub fn changes(old: &Config, new: &Config) -> Vec<String> {
    let listeners = |config: &Config| config.listeners.iter().map(|listener| listener.name.clone()).collect::<Vec<_>>();
    let pools = |config: &Config| config.pools.iter().map(|pool| pool.name.clone()).collect::<Vec<_>>();
    let mut changes = Vec::new();
    added_and_removed("listener", &listeners(old), &listeners(new), &mut changes);
    for listener in &new.listeners {
        if old.listeners.iter().any(|before| before.name == listener.name && before != listener) {
            changes.push(format!("listener {:?} changed", listener.name));
        }
    }
    added_and_removed("pool", &pools(old), &pools(new), &mut changes);
    for (before, after) in common_pools(old, new) {
        pool_changes(before, after, &mut changes);
    }
    if old.tls != new.tls {
        changes.push("tls changed".into());
    }
    match (&old.store, &new.store) {
        (None, Some(_)) => changes.push("store added".into()),
        (Some(_), None) => changes.push("store removed".into()),
        (old, new) if old != new => changes.push("store changed".into()),
        _ => {}
    }
    if old.limits != new.limits {
        changes.push("limits changed".into());
    }
    changes
}

/// Changes that a reload cannot make, and backends under a new name.
pub fn warnings(old: &Config, new: &Config) -> Vec<String> {
    let mut warnings = needs_restart(old, new);
    warnings.extend(kept_by_open_listeners(old, new));
    warnings.extend(renamed_backends(old, new));
    warnings
}

/// Pools that exist in both configurations, by name: before and after.
pub fn common_pools<'a>(old: &'a Config, new: &'a Config) -> impl Iterator<Item = (&'a Pool, &'a Pool)> {
    new.pools.iter().filter_map(|after| Some((old.pools.iter().find(|before| before.name == after.name)?, after)))
}

fn pool_changes(before: &Pool, after: &Pool, changes: &mut Vec<String>) {
    let backends = |pool: &Pool| pool.backends.iter().map(|b| format!("{}/{}", pool.name, b.name)).collect::<Vec<_>>();
    let count = changes.len();
    added_and_removed("backend", &backends(before), &backends(after), changes);
    for backend in &after.backends {
        if before.backends.iter().any(|b| b.name == backend.name && b != backend) {
            changes.push(format!("backend \"{}/{}\" changed", after.name, backend.name));
        }
    }
    if changes.len() == count && before != after {
        changes.push(format!("pool {:?} changed", after.name));
    }
}

fn added_and_removed(kind: &str, old: &[String], new: &[String], changes: &mut Vec<String>) {
    changes.extend(new.iter().filter(|name| !old.contains(name)).map(|name| format!("{kind} {name:?} added")));
    changes.extend(old.iter().filter(|name| !new.contains(name)).map(|name| format!("{kind} {name:?} removed")));
}

/// Keys of the process that are read at start only.
fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let (old, new) = (&old.process, &new.process);
    let keys = [
        ("workers", old.workers != new.workers),
        ("cpu_affinity", old.cpu_affinity != new.cpu_affinity),
        ("busy_poll", old.busy_poll != new.busy_poll),
        ("admin", old.admin != new.admin),
        ("log.level", old.log.level != new.log.level),
    ];
    let changed = keys.iter().filter(|(_, changed)| *changed);
    changed.map(|(key, _)| format!("{key}: changed in the file; takes effect at the next start")).collect()
}

/// Socket options are set when a listener is opened, and an open listener keeps them; a warning if one changes.
fn kept_by_open_listeners(old: &Config, new: &Config) -> Option<String> {
    let socket_options =
        |limits: &Limits| (limits.keepalive, limits.keepalive_interval, limits.keepalive_count, limits.user_timeout);
    let same_options = socket_options(&old.limits) == socket_options(&new.limits);
    let same_backlog = |listener: &Listener| {
        old.listeners.iter().all(|before| before.name != listener.name || before.backlog == listener.backlog)
    };
    (!same_options || !new.listeners.iter().all(same_backlog)).then(|| {
        "keepalive, user_timeout and backlog: open listeners keep their old values until the next start".into()
    })
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
