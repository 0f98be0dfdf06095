//! Reads one `[[split]]`, and checks splits against pools and listeners.
//!
//! What a listener may send to the pools of a split is checked in `reach.rs`. Invariant: in a configuration without errors
//! what a split knows clients by can be read whichever of its pools they get: a cookie, or parts of requests in its key,
//! because all of them read HTTP.

use std::collections::HashMap;

use super::listener::ParsedListener as Listener;
use super::pool::{ParsedPool as Pool, unique_names};
use super::whole::{key_can_be_known, may_know_certificate, no_such_pool};
use super::{Bad, cookie};
use crate::config::file::Section;
use crate::config::{Cookie, CookieMode, KeyPart, Split, SplitBy, SplitKey, SplitPool, keys, value};

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
    let by = match key(&section) {
        Some(key) => {
            section.idle_keys(&["cookie"], "with a key");
            SplitBy::Key(key)
        }
        None => {
            section.idle_keys(&["prefix_v4", "prefix_v6"], "without a key");
            SplitBy::Cookie(cookie::of_split(&section, &name))
        }
    };
    ParsedSplit { config: Split { name, to, by }, section, to: sections }
}

/// Reads the key of a split; `None`: it has none, or "none".
fn key(section: &Section<'_>) -> Option<SplitKey> {
    let written = section.list("key", value::key_part);
    let mut parts: Vec<_> = written.iter().filter_map(|(_, part)| part.clone()).collect();
    if section.has("key") && written.is_empty() {
        // Takes the place of an invalid key; a configuration with an error is never used.
        parts.push(KeyPart::Source);
    }
    let prefix_v4 = section.read("prefix_v4", value::integer(0..=32)).unwrap_or(32);
    let prefix_v6 = section.read("prefix_v6", value::integer(0..=128)).unwrap_or(64);
    if section.has("key") && section.count("key") == 0 {
        section.error("key", Bad::new("key is empty").hint("write \"none\" for no key"));
    } else if !parts.is_empty() && parts.len() < written.len() {
        section.error("key", Bad::new("key names \"none\" together with other parts"));
    }
    if !parts.is_empty() && !parts.iter().any(|part| part.may_be(&KeyPart::Source)) {
        section.idle_keys(&["prefix_v4", "prefix_v6"], "because source is no part of the key");
    }
    (!parts.is_empty()).then_some(SplitKey { parts, prefix_v4, prefix_v6 })
}

/// Gives a split without a key file of its own that of the first of its pools which names one: instances that share it
/// have to agree on pools, too.
pub(super) fn share_keys(splits: &mut [ParsedSplit<'_>], pools: &[Pool<'_>]) {
    for split in splits {
        let pools_of_split: Vec<_> = split.config.pools().map(str::to_owned).collect();
        let Some(CookieMode::Insert(insert)) = split.config.cookie_mut().map(|cookie| &mut cookie.mode) else {
            continue;
        };
        let of_pool = |name: &String| {
            let pool = pools.iter().find(|pool| pool.config.name == *name)?;
            match &pool.config.cookie.as_ref()?.mode {
                CookieMode::Insert(own) if !own.makes_keys => Some(own.keys.clone()),
                _ => None,
            }
        };
        if insert.makes_keys
            && let Some(keys) = pools_of_split.iter().find_map(of_pool)
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
                Some(pool) if split.config.key().is_some() => can_be_divided(place, split, pool, pools),
                Some(pool) => can_be_kept(place, split, pool),
            }
        }
        if let Some(key) = split.config.key() {
            let reaching: Vec<_> =
                listeners.iter().filter(|l| l.splits_named().any(|(.., name)| name == split.config.name)).collect();
            let asks = |listener: &Listener<'_>| split.config.pools().any(|pool| may_know_certificate(listener, pool));
            let what = ("split", split.config.name.as_str());
            if !reaching.is_empty() {
                key_can_be_known((&split.section, &key.parts), what, asks, &reaching);
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
        place.error("pool", bad.hint("write http = true in the pool, or a key in the split"));
    }
    let names: Vec<_> = split.config.cookie().into_iter().flat_map(Cookie::names_in_browsers).collect();
    let mut of_pool = pool.config.cookie.iter().flat_map(|cookie| cookie.names_in_browsers());
    if let Some(same) = of_pool.find(|own| names.contains(own)) {
        let bad = Bad::new(format!("pool \"{name}\" has a cookie \"{same}\", as the split itself"));
        place.error("pool", bad.hint("write another name in [split.cookie]"));
    }
}

/// Reports pools of a split by key that differ in whether requests are read or in what they offer to clients, one that cannot
/// read the key, and one that shares its stick table with another: an entry there would not say which of both has the client.
fn can_be_divided(place: &Section<'_>, split: &ParsedSplit<'_>, pool: &Pool<'_>, pools: &[Pool<'_>]) {
    let (name, reads_http) = (&pool.config.name, pool.config.http.is_read());
    let earlier = split.config.pools().take_while(|earlier| earlier != name);
    let earlier: Vec<_> = earlier.filter_map(|name| pools.iter().find(|pool| pool.config.name == name)).collect();
    if let Some(first) = earlier.first().filter(|first| first.config.http.is_read() != reads_http) {
        let (first, word) = (&first.config, pool.config.http.word());
        let why = format!("pool \"{name}\" has http = {word}, and pool \"{}\" {}", first.name, first.http.word());
        place.error("pool", Bad::new(why).hint("all pools of a split read HTTP, or none does"));
    }
    if let Some(first) = earlier.first().filter(|first| !reads_http && first.config.alpn != pool.config.alpn) {
        let why = format!("pool \"{name}\" has another alpn than pool \"{}\"", first.config.name);
        place.error("pool", Bad::new(why).hint("the handshake comes before the split has chosen"));
    }
    let mut parts = split.config.key().into_iter().flat_map(|key| &key.parts);
    if !reads_http && parts.any(KeyPart::needs_request) {
        let why = format!("pool \"{name}\" does not have http = true, and the key of the split is of requests");
        place.error("pool", Bad::new(why).hint("write http = true in the pool"));
    }
    let group = pool.config.stick_group.as_ref().filter(|_| pool.config.stick_table.is_some());
    if let Some(other) = earlier.iter().find(|other| group.is_some() && other.config.stick_group.as_ref() == group) {
        let why = format!("pool \"{name}\" shares its stick table with pool \"{}\"", other.config.name);
        let hint = "by a key, each pool needs a table of its own: delete stick_group";
        place.error("pool", Bad::new(format!("{why}, which then cannot tell clients of both apart")).hint(hint));
    }
}

/// Reports two splits with one cookie: a browser would keep only that of one of them.
fn cookies_differ(splits: &[ParsedSplit<'_>]) {
    let mut first: HashMap<String, &str> = HashMap::new();
    for split in splits {
        let name = split.config.name.as_str();
        for cookie in split.config.cookie().into_iter().flat_map(Cookie::names_in_browsers) {
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
