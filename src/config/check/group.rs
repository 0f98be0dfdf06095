//! Pools of one `stick_group`: what they must have in common, or a client would settle at a place that another of them
//! does not understand.
//!
//! Invariant: whatever a pool of a group that passes remembers, all others of it would have remembered of the same
//! client.

use std::collections::BTreeSet;

use super::Bad;
use super::pool::WrittenPool;
use crate::config::{Backend, CookieMode, OnAdd, Pool};

/// Checks every group.
pub(super) fn check(pools: &[WrittenPool<'_>]) {
    for (index, pool) in pools.iter().enumerate() {
        let Some(group) = &pool.meant.stick_group else { continue };
        let error = |why: String| pool.section.error("stick_group", Bad::new(why));
        let own_cookie = pool.meant.cookie.as_ref().is_some_and(|cookie| matches!(cookie.mode, CookieMode::Insert(_)));
        if pool.meant.stick_table.is_none() && !own_cookie {
            error("stick_group has no use: the pool has neither a stick table nor a cookie of its own".into());
        }
        let is_in = |other: &WrittenPool<'_>| other.meant.stick_group.as_ref() == Some(group);
        if pools.iter().any(|other| other.meant.name == *group && !is_in(other)) {
            error(format!("stick_group \"{group}\" is the name of a pool that is not in it"));
        }
        let Some(first) = pools[..index].iter().find(|other| is_in(other)) else { continue };
        let differs = differences(&first.meant, &pool.meant).join(", ");
        if !differs.is_empty() {
            error(format!("stick_group \"{group}\": pool \"{}\" has another {differs}", first.meant.name));
        }
    }
}

/// Keys in which two pools differ that must not.
fn differences(one: &Pool, other: &Pool) -> Vec<&'static str> {
    let names = |pool: &Pool| pool.backends.iter().map(|backend| backend.name.clone()).collect::<BTreeSet<_>>();
    let shares = |pool: &Pool| {
        let share = |backend: &Backend| (backend.name.clone(), backend.weight, backend.location.clone());
        pool.backends.iter().map(share).collect::<BTreeSet<_>>()
    };
    // Known keys go where the table says: two tables would send them to and fro.
    let follow = one.stick_table.is_some_and(|stick_table| stick_table.on_add == OnAdd::Move);
    let rows = [
        ("key", one.key != other.key),
        ("prefix_v4", one.prefix_v4 != other.prefix_v4),
        ("prefix_v6", one.prefix_v6 != other.prefix_v6),
        ("balance", one.balance != other.balance),
        ("hash_seed", one.hash_seed != other.hash_seed),
        ("range", one.ranges != other.ranges),
        (
            "stick_table",
            one.stick_table.map(|stick_table| stick_table.bytes)
                != other.stick_table.map(|stick_table| stick_table.bytes),
        ),
        (
            "remember",
            one.stick_table.map(|stick_table| stick_table.remember)
                != other.stick_table.map(|stick_table| stick_table.remember),
        ),
        (
            "on_add",
            one.stick_table.map(|stick_table| stick_table.on_add)
                != other.stick_table.map(|stick_table| stick_table.on_add),
        ),
        (
            "on_return",
            one.stick_table.map(|stick_table| stick_table.on_return)
                != other.stick_table.map(|stick_table| stick_table.on_return),
        ),
        ("set of backends", names(one) != names(other)),
        ("weight or location (on_add is \"move\")", follow && shares(one) != shares(other)),
    ];
    rows.into_iter().filter(|(_, differ)| *differ).map(|(key, _)| key).collect()
}
