//! Reads one `[[split]]`, and checks splits against pools and listeners.
//!
//! What a listener may send to the pools of a split is checked in `reach.rs`. Invariant: in a configuration without errors
//! every split leads to pools that read HTTP, so that its cookie can be read and set, whichever of them a client gets.

use std::collections::HashMap;

use super::listener::ParsedListener as Listener;
use super::pool::{ParsedPool as Pool, unique_names};
use super::whole::no_such_pool;
use super::{Bad, cookie};
use crate::config::file::Section;
use crate::config::{CookieMode, Split, SplitPool, keys, value};

/// A split, and the places in the file that later checks report.
pub(super) struct ParsedSplit<'d> {
    pub(super) config: Split,
    pub(super) section: Section<'d>,
    /// Sections of the pools, in the order of `config.to`.
    to: Vec<Section<'d>>,
}

/// Reads a `[[split]]` with its pools and its cookie.
pub(super) fn split(section: Section<'_>) -> ParsedSplit<'_> {
    let name = section.required("name", value::name).unwrap_or_default();
    let sections = section.children("to", &keys::SPLIT_TO);
    let to: Vec<_> = sections
        .iter()
        .map(|to| SplitPool {
            pool: to.required("pool", value::name).unwrap_or_default(),
            weight: to.read("weight", value::integer(0..=256)).unwrap_or(1),
        })
        .collect();
    if section.count("to") == 0 {
        section.missing("has no pool in to");
    } else if !to.is_empty() && to.iter().all(|to| to.weight == 0) {
        let bad = Bad::new("every pool has weight 0: no new client would get one");
        section.error("to", bad.hint("give one of them a weight"));
    }
    let mut first: HashMap<&str, usize> = HashMap::new();
    for (place, to) in sections.iter().zip(&to).filter(|(_, to)| !to.pool.is_empty()) {
        if let Some(line) = first.insert(&to.pool, place.at("pool")).map(|earlier| place.line(earlier)) {
            place.error("pool", Bad::new(format!("pool \"{}\" is taken by an earlier one, in line {line}", to.pool)));
        }
    }
    let cookie = cookie::of_split(&section, &name);
    ParsedSplit { config: Split { name, to, cookie }, section, to: sections }
}

/// Gives a split without a key file of its own that of the first of its pools which names one: instances that share it
/// have to agree on pools, too.
pub(super) fn share_keys(splits: &mut [ParsedSplit<'_>], pools: &[Pool<'_>]) {
    for split in splits {
        let CookieMode::Insert(insert) = &mut split.config.cookie.mode else { continue };
        let of_pool = |to: &SplitPool| {
            let pool = pools.iter().find(|pool| pool.config.name == to.pool)?;
            match &pool.config.cookie.as_ref()?.mode {
                CookieMode::Insert(own) if !own.makes_keys => Some(own.keys.clone()),
                _ => None,
            }
        };
        if insert.makes_keys
            && let Some(keys) = split.config.to.iter().find_map(of_pool)
        {
            (insert.keys, insert.makes_keys) = (keys, false);
        }
    }
}

/// Checks names, pools and cookies of all splits.
pub(super) fn check(splits: &[ParsedSplit<'_>], pools: &[Pool<'_>], listeners: &[Listener<'_>]) {
    unique_names(splits.iter().map(|split| (&split.section, split.config.name.as_str())));
    for split in splits {
        name_is_free(split, pools);
        for (place, to) in split.to.iter().zip(&split.config.to).filter(|(_, to)| !to.pool.is_empty()) {
            match pools.iter().find(|pool| pool.config.name == to.pool) {
                None => place.error("pool", no_such_pool("pool", &to.pool, pools)),
                Some(pool) => can_be_kept(place, split, pool),
            }
        }
        if !listeners.iter().any(|listener| listener.splits_named().any(|(.., name)| name == split.config.name)) {
            split.section.warn("name", Bad::new("no listener names this split"));
        }
    }
    for (section, key, name) in listeners.iter().flat_map(Listener::splits_named) {
        if !splits.iter().any(|split| split.config.name == name) {
            let near = keys::nearest(name, splits.iter().map(|split| split.config.name.as_str()));
            let hint = match pools.iter().any(|pool| pool.config.name == name) {
                true => Some(format!("it is a pool: write pool = \"{name}\"")),
                false => near.map(|near| format!("did you mean \"{near}\"?")),
            };
            section.error(key, Bad { hint, ..Bad::new(format!("{key} \"{name}\" is not the name of a split")) });
        }
    }
    cookies_differ(splits);
}

/// Reports the name of a pool or group: their cookies would have one name, and a report could mean either.
fn name_is_free(split: &ParsedSplit<'_>, pools: &[Pool<'_>]) {
    let name = &split.config.name;
    let of_pool = pools.iter().any(|pool| pool.config.name == *name).then_some("pool");
    let of_group = || pools.iter().any(|pool| pool.config.stick_group.as_ref() == Some(name)).then_some("stick_group");
    if let Some(what) = of_pool.or_else(of_group).filter(|_| !name.is_empty()) {
        let bad = Bad::new(format!("name \"{name}\" is also that of a {what}"));
        split.section.error("name", bad.hint("a split needs a name that no pool and no stick_group has"));
    }
}

/// Reports a pool of which no request can be read, and one with a cookie of the same name.
fn can_be_kept(place: &Section<'_>, split: &ParsedSplit<'_>, pool: &Pool<'_>) {
    let name = &pool.config.name;
    if !pool.config.http.is_read() {
        let why = "a split keeps its clients by a cookie of their requests";
        let bad = Bad::new(format!("pool \"{name}\" does not have http = true: {why}"));
        place.error("pool", bad.hint("write http = true in the pool"));
    }
    let names: Vec<_> = split.config.cookie.names_in_browsers().collect();
    let mut of_pool = pool.config.cookie.iter().flat_map(|cookie| cookie.names_in_browsers());
    if let Some(same) = of_pool.find(|own| names.contains(own)) {
        let bad = Bad::new(format!("pool \"{name}\" has a cookie \"{same}\", as the split itself"));
        place.error("pool", bad.hint("write another name in [split.cookie]"));
    }
}

/// Reports two splits with one cookie: a browser would keep only that of one of them.
fn cookies_differ(splits: &[ParsedSplit<'_>]) {
    let mut first: HashMap<String, &str> = HashMap::new();
    for split in splits {
        let name = split.config.name.as_str();
        for cookie in split.config.cookie.names_in_browsers() {
            match first.get(&cookie).filter(|other| **other != name) {
                Some(other) => {
                    let bad = Bad::new(format!("the cookie \"{cookie}\" is also that of split \"{other}\""));
                    split.section.error("cookie", bad.hint("each split needs a name of its own in [split.cookie]"));
                }
                None => _ = first.insert(cookie, name),
            }
        }
    }
}
