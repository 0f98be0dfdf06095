//! [`reconcile`]: the set of a pool's backends after its source was looked at; [`unexpired`]: after time has passed.
//! Orders at run time stand over every set (`config::PoolOrders`).
//!
//! Pure: what is in force, what was read and the time are arguments. Invariants: a backend is its name, whatever its
//! place in an answer; what cannot be taken as a whole is refused as a whole; a set is sorted by name, so that the
//! order of an answer changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;

use super::found::{Found, FoundState, Reading, WEIGHT_MAX};
use crate::config::{
    Absence, Address, Backend, BackendOrigin, Discover, OnEmpty, Pool, Vanish, is_connectable, levels,
};

/// What still needs a backend that its source does not name any more, or that an order has removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holders {
    /// A connection is open to it.
    pub by_connections: bool,
    /// A client may come back to it: an entry of the stick table names it, or a cookie may.
    pub by_clients: bool,
}

/// The backends that the source of a pool has named, after this reading; an error says why those in force stay. `pool`:
/// the pool in force. `is_own`: whether an address is one of this process. `now_ms`: the clock of the process.
pub fn reconcile(
    pool: &Pool,
    rules: &Discover,
    reading: &Reading,
    is_own: &dyn Fn(SocketAddr) -> bool,
    now_ms: i64,
) -> Result<Vec<Backend>, String> {
    let found = match (reading, rules.empty) {
        (Reading::Set { found, .. }, _) => &found[..],
        (Reading::Empty { .. }, OnEmpty::Apply) => &[],
        (Reading::Empty { .. }, OnEmpty::Keep) if pool.found().all(|backend| backend.absence().is_some()) => {
            return Ok(pool.found().cloned().collect());
        }
        (Reading::Empty { .. }, OnEmpty::Keep) => return Err("it names no backend".to_owned()),
        (Reading::Failed { why }, _) => return Err(why.clone()),
    };
    check(pool, rules, found, is_own)?;
    let mut next = found.iter().map(|found| backend(found, rules)).collect::<Result<Vec<_>, _>>()?;
    let named: BTreeSet<&str> = found.iter().map(|found| &*found.name).collect();
    let gone = pool.found().filter(|backend| !named.contains(backend.name.as_str()));
    let mut absent: Vec<_> =
        gone.filter(|_| rules.vanish != Vanish::Remove).map(|gone| left(pool, gone, now_ms)).collect();
    // Those that are away for longest make room.
    absent.sort_by_key(|backend| backend.absence().map(|absence| std::cmp::Reverse(absence.since_ms)));
    absent.truncate(rules.max_backends - next.len());
    next.extend(absent);
    next.sort_by(|one, other| one.name.cmp(&other.name));
    pool.balance.holds(&pool.with_found(next.clone()).backends)?;
    Ok(next)
}

/// The pool without those of its backends that have no time left: found ones that the source does not name, and those that
/// an order has removed.
pub fn unexpired(pool: &Pool, held: &dyn Fn(&str) -> Holders, now_ms: i64) -> Pool {
    let drain_over_ms = i64::try_from(pool.drain_over.as_millis()).unwrap_or(i64::MAX);
    let is_drained = |name: &str, Absence { deadline_ms, .. }: Absence| match held(name) {
        // After the deadline connections are closed over this time.
        Holders { by_connections: true, .. } => deadline_ms.saturating_add(drain_over_ms) <= now_ms,
        Holders { by_clients: true, .. } => deadline_ms <= now_ms,
        Holders { .. } => true,
    };
    let vanish = pool.discover.as_ref().map_or(Vanish::Remove, |rules| rules.vanish);
    let is_over = |backend: &&Backend| match (backend.absence(), vanish) {
        (None, _) | (Some(_), Vanish::Down) => false,
        (Some(_), Vanish::Remove) => true,
        (Some(absence), Vanish::Drain) => is_drained(&backend.name, absence),
    };
    let found: Vec<_> = pool.found().filter(|backend| !is_over(backend)).cloned().collect();
    let pool = if found.len() == pool.found().count() { pool.clone() } else { pool.with_found(found) };
    pool.with_removals_over(&is_drained)
}

/// Refuses a set that cannot be taken.
fn check(pool: &Pool, rules: &Discover, found: &[Found], is_own: &dyn Fn(SocketAddr) -> bool) -> Result<(), String> {
    if found.len() > rules.max_backends {
        return Err(format!("it names {} backends; max_backends is {}", found.len(), rules.max_backends));
    }
    let written: BTreeSet<&str> = pool.written().map(|backend| backend.name.as_str()).collect();
    let added: BTreeSet<&str> = pool.orders.added().collect();
    let mut names = BTreeSet::new();
    for Found { name, address, .. } in found {
        if !names.insert(name) {
            return Err(format!("it names backend \"{name}\" twice"));
        }
        if written.contains(&**name) {
            return Err(format!("it names backend \"{name}\", which the configuration has as well"));
        }
        if added.contains(&**name) {
            return Err(format!("it names backend \"{name}\", which an order has added"));
        }
        if let Some(why) = refusal(*address, is_own) {
            return Err(format!("backend \"{name}\": {why}"));
        }
    }
    Ok(())
}

/// Why no backend can be at an address; `None`: one can.
pub fn refusal(address: SocketAddr, is_own: &dyn Fn(SocketAddr) -> bool) -> Option<String> {
    if !is_connectable(address) {
        return Some(format!("{address} is not an address that can be connected to"));
    }
    is_own(address).then(|| format!("{address} is an address of this process: connections would loop"))
}

/// The backend that a source names.
fn backend(found: &Found, rules: &Discover) -> Result<Backend, String> {
    let Found { name, address, weight, location, state, max_connections, backup } = found;
    let location = location.as_deref().unwrap_or_default();
    let weight = weight.unwrap_or(1).min(WEIGHT_MAX);
    let drains = *state == Some(FoundState::Drain);
    Ok(Backend {
        name: name.to_string(),
        address: Address::Tcp(*address),
        host: None,
        weight: if drains { 0 } else { weight as u16 },
        location: levels(location).map_err(|why| format!("backend \"{name}\": location \"{location}\" {why}"))?,
        backup: *backup,
        max_connections: max_connections.or(rules.max_connections),
        origin: BackendOrigin::Found { absence: None },
    })
}

/// A backend that its source does not name, from now on or for longer.
fn left(pool: &Pool, gone: &Backend, now_ms: i64) -> Backend {
    let deadline = i64::try_from(pool.drain_deadline.as_millis()).unwrap_or(i64::MAX);
    let begins = Absence { since_ms: now_ms, deadline_ms: now_ms.saturating_add(deadline) };
    Backend { origin: BackendOrigin::Found { absence: Some(gone.absence().unwrap_or(begins)) }, ..gone.clone() }
}

/// What has become of one backend from one set to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetChange {
    /// Name of the backend.
    pub name: String,
    /// What has become of it.
    pub kind: ChangeKind,
}

/// What can become of a backend from one set to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeKind {
    /// The source names it for the first time.
    Added,
    /// The source does not name it any more.
    Left,
    /// The source names it again.
    Returned,
    /// The set does not have it any more.
    Removed,
    /// The address is another one; open connections stay at the old one.
    Moved {
        /// The address before.
        from: String,
        /// The address now.
        to: String,
    },
    /// The weight, the location, the most connections or `backup` is another one.
    Changed,
}

impl fmt::Display for SetChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match &self.kind {
            ChangeKind::Added => write!(f, "{name} added"),
            ChangeKind::Left => write!(f, "{name} left out"),
            ChangeKind::Returned => write!(f, "{name} returned"),
            ChangeKind::Removed => write!(f, "{name} removed"),
            ChangeKind::Moved { from, to } => write!(f, "{name} moved from {from} to {to}"),
            ChangeKind::Changed => write!(f, "{name} changed"),
        }
    }
}

/// What has become of each backend between two sets, in the order of their names; a backend may have several changes.
pub fn changes<'b>(
    before: impl Iterator<Item = &'b Backend>,
    after: impl Iterator<Item = &'b Backend>,
) -> Vec<SetChange> {
    let mut before: BTreeMap<&str, &Backend> = before.map(|backend| (backend.name.as_str(), backend)).collect();
    let mut changes = Vec::new();
    let mut push = |name: &str, kind| changes.push(SetChange { name: name.to_owned(), kind });
    for now in after {
        let name = now.name.as_str();
        let Some(was) = before.remove(name) else {
            push(name, ChangeKind::Added);
            continue;
        };
        match (was.absence(), now.absence()) {
            (None, Some(_)) => push(name, ChangeKind::Left),
            (Some(_), None) => push(name, ChangeKind::Returned),
            _ => {}
        }
        if was.address != now.address {
            push(name, ChangeKind::Moved { from: was.address.to_string(), to: now.address.to_string() });
        }
        let rules = |backend: &Backend| (backend.weight, backend.max_connections, backend.backup);
        if rules(was) != rules(now) || was.location != now.location {
            push(name, ChangeKind::Changed);
        }
    }
    before.into_keys().for_each(|name| push(name, ChangeKind::Removed));
    changes.sort_by(|one, other| one.name.cmp(&other.name));
    changes
}

#[cfg(test)]
mod tests;
