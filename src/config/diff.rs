//! What a new configuration changes, in words.
//!
//! Looks at what is written and judges nobody's placement; `plan` does. Invariant: two configurations that differ in a
//! listener, a pool, TLS, the store or a limit never compare as the same.

mod limits;

use super::{Config, Limits, Listener, Pool};

pub use self::limits::shrunk;

/// Sockets that stay keep what they were made with.
/// A warning where that makes a difference.
pub fn only_for_new_listeners(old: &Config, new: &Config) -> Option<String> {
    let kept_by_the_kernel =
        |limits: &Limits| (limits.keepalive, limits.keepalive_interval, limits.keepalive_count, limits.user_timeout);
    let same_limits = kept_by_the_kernel(&old.limits) == kept_by_the_kernel(&new.limits);
    let same = |listener: &Listener| {
        old.listeners.iter().all(|before| before.name != listener.name || before.backlog == listener.backlog)
    };
    (!same_limits || !new.listeners.iter().all(same)).then(|| {
        "keepalive, user_timeout and backlog: listeners that stay keep what they were opened with until the next start".into()
    })
}

/// What the new file says that only a restart can do.
pub fn only_at_start(old: &Config, new: &Config) -> Vec<String> {
    let (old, new) = (&old.process, &new.process);
    let changed = [
        ("workers", old.workers != new.workers),
        ("cpu_affinity", old.cpu_affinity != new.cpu_affinity),
        ("busy_poll", old.busy_poll != new.busy_poll),
        ("admin", old.admin != new.admin),
        ("log.level", old.log.level != new.log.level),
    ];
    let keys = changed.iter().filter(|(_, changed)| *changed);
    keys.map(|(key, _)| format!("{key}: changed in the file; takes effect at the next start")).collect()
}

/// Backends that have another name and the address of one that is gone: to clients that is another backend.
pub fn renamed(old: &Config, new: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    for (before, after) in common(old, new) {
        for gone in before.backends.iter().filter(|gone| after.backends.iter().all(|b| b.name != gone.name)) {
            let same = after
                .backends
                .iter()
                .find(|b| b.address == gone.address && before.backends.iter().all(|o| o.name != b.name));
            if let Some(same) = same {
                warnings.push(format!(
                    "pool {:?}: backend {:?} has the address of {:?}, which is gone: a new name is a new backend, its clients move",
                    after.name, same.name, gone.name
                ));
            }
        }
    }
    warnings
}

/// What is added, removed or changed, in words.
pub fn changes(old: &Config, new: &Config) -> Vec<String> {
    let names = |config: &Config| -> Vec<_> { config.listeners.iter().map(|listener| listener.name.clone()).collect() };
    let pools = |config: &Config| -> Vec<_> { config.pools.iter().map(|pool| pool.name.clone()).collect() };
    let mut changes = Vec::new();
    gone_and_new("listener", &names(old), &names(new), &mut changes);
    for listener in &new.listeners {
        if old.listeners.iter().any(|before| before.name == listener.name && before != listener) {
            changes.push(format!("listener {:?} changed", listener.name));
        }
    }
    gone_and_new("pool", &pools(old), &pools(new), &mut changes);
    for (before, after) in common(old, new) {
        let backends =
            |pool: &Pool| -> Vec<_> { pool.backends.iter().map(|b| format!("{}/{}", pool.name, b.name)).collect() };
        let count = changes.len();
        gone_and_new("backend", &backends(before), &backends(after), &mut changes);
        for backend in &after.backends {
            if before.backends.iter().any(|b| b.name == backend.name && b != backend) {
                changes.push(format!("backend \"{}/{}\" changed", after.name, backend.name));
            }
        }
        if changes.len() == count && before != after {
            changes.push(format!("pool {:?} changed", after.name));
        }
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

/// Pools of the same name.
pub fn common<'a>(old: &'a Config, new: &'a Config) -> impl Iterator<Item = (&'a Pool, &'a Pool)> {
    new.pools.iter().filter_map(|after| Some((old.pools.iter().find(|before| before.name == after.name)?, after)))
}

fn gone_and_new(kind: &str, old: &[String], new: &[String], changes: &mut Vec<String>) {
    changes.extend(new.iter().filter(|name| !old.contains(name)).map(|name| format!("{kind} {name:?} added")));
    changes.extend(old.iter().filter(|name| !new.contains(name)).map(|name| format!("{kind} {name:?} removed")));
}
