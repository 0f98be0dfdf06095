//! Checks pools of one `stick_group`: all keys that decide an entry of the shared stick table must be equal.
//!
//! Compares configurations only. Invariant: for the same client, every pool of a group without errors would store the
//! same key and the same backend name.

use std::collections::BTreeSet;

use super::Bad;
use super::pool::ParsedPool;
use crate::config::{Backend, Cookie, CookieMode, OnAdd, Pool, StickTableRules};

/// Checks every pool against the first pool of its group.
pub(super) fn check(pools: &[ParsedPool<'_>]) {
    for (index, pool) in pools.iter().enumerate() {
        let Some(group) = &pool.config.stick_group else { continue };
        let error = |why: String| pool.section.error("stick_group", Bad::new(why));
        let own_cookie = pool.config.cookie.as_ref().is_some_and(|cookie| matches!(cookie.mode, CookieMode::Insert(_)));
        if pool.config.stick_table.is_none() && !own_cookie {
            error("stick_group has no effect: the pool has neither a stick table nor a cookie of the balancer".into());
        }
        let is_in = |other: &ParsedPool<'_>| other.config.stick_group.as_ref() == Some(group);
        if pools.iter().any(|other| other.config.name == *group && !is_in(other)) {
            error(format!("stick_group \"{group}\" is also the name of a pool outside the group"));
        }
        let Some(first) = pools[..index].iter().find(|other| is_in(other)) else { continue };
        let differs = differences(&first.config, &pool.config).join(", ");
        if !differs.is_empty() {
            error(format!(
                "stick_group \"{group}\": the pool differs from pool \"{}\" in {differs}",
                first.config.name
            ));
        }
    }
}

/// Names of the keys that must be equal in a group and differ in these two pools.
fn differences(one: &Pool, other: &Pool) -> Vec<&'static str> {
    let names = |pool: &Pool| pool.backends.iter().map(|backend| backend.name.clone()).collect::<BTreeSet<_>>();
    let shares = |pool: &Pool| {
        let share = |backend: &Backend| (backend.name.clone(), backend.weight, backend.location.clone());
        pool.backends.iter().map(share).collect::<BTreeSet<_>>()
    };
    // With on_add = "move" known keys follow placement, so two placements would move them back and forth.
    let follow = one.stick_table.is_some_and(|table| table.on_add == OnAdd::Move);
    let rows = [
        ("key", one.key != other.key),
        ("prefix_v4", one.prefix_v4 != other.prefix_v4),
        ("prefix_v6", one.prefix_v6 != other.prefix_v6),
        ("balance", one.balance != other.balance),
        ("hash_seed", one.hash_seed != other.hash_seed),
        ("range", one.ranges != other.ranges),
        ("stick_table", tables_differ(one, other, |table| table.bytes)),
        ("remember", tables_differ(one, other, |table| table.remember)),
        ("on_add", tables_differ(one, other, |table| table.on_add)),
        ("on_return", tables_differ(one, other, |table| table.on_return)),
        ("set of backends", names(one) != names(other)),
        ("keys of the cookie", key_files_differ(one, other)),
        ("weight or location (on_add is \"move\")", follow && shares(one) != shares(other)),
    ];
    rows.into_iter().filter(|(_, differ)| *differ).map(|(key, _)| key).collect()
}

/// True if the pools send their own cookie under one name, and neither can open the other's.
fn key_files_differ(one: &Pool, other: &Pool) -> bool {
    let own = |pool: &Pool| match pool.cookie.as_ref()? {
        Cookie { name, mode: CookieMode::Insert(insert) } => Some((name.clone(), insert.keys.clone())),
        _ => None,
    };
    own(one).zip(own(other)).is_some_and(|(one, other)| one.0 == other.0 && one.1 != other.1)
}

fn tables_differ<T: PartialEq>(one: &Pool, other: &Pool, field: fn(StickTableRules) -> T) -> bool {
    one.stick_table.map(field) != other.stick_table.map(field)
}
