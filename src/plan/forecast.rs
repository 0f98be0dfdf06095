//! [`forecast`]: what becomes of the entries of a stick table under other rules.
//!
//! For plans, not for connections: a plan builds the pool of another configuration over the same stick table, picks
//! nothing with it, and compares the two pools. Writes nothing. Invariant: a client that is said to stay or to leave
//! does so, as long as every backend takes connections; where only the bytes of a key decide, which a stick table does
//! not keep, the client is said to depend on them.

use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::config::{self, Carrier, CookieMode, KeyPart, RangeRule};
use crate::pool::Pool;
use crate::sticky::table::{TableEntry, TableLookup};

/// What becomes of a client where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The client stays, or moves for reasons that are not in the change.
    Stays,
    /// The client gets another backend.
    Leaves,
    /// The client's key decides, and only its hash is known.
    Depends,
}

/// What two pools have in common.
#[derive(Debug, Clone, Copy)]
struct Alike {
    /// Equal facts make equal keys.
    keys: bool,
    /// Both learn the same cookie.
    learns: bool,
    /// Keys, ranges, placement and policies are equal.
    rules: bool,
}

/// Every entry of the stick table that names a backend of `pool`: that backend's index, and what becomes of the entry
/// under `next`, which has the same stick table.
pub(super) fn forecast<'p>(
    pool: &'p Pool,
    next: &'p Pool,
    now_ms: u64,
) -> impl Iterator<Item = (usize, Fate)> + use<'p> {
    let alike = Alike::of(pool, next);
    let indexes: Vec<_> = pool.backends().iter().map(|backend| next.index_of(backend.name())).collect();
    let open_to_all: Vec<_> = (0..next.backends().len()).map(|index| next.ranges().all_allow(index)).collect();
    let fate = move |(at, entry): (usize, TableEntry)| match indexes[at] {
        None => (at, Fate::Leaves),
        Some(index) => (at, fate(next, &entry, alike, open_to_all[index], now_ms)),
    };
    pool.table().into_iter().flat_map(move |table| table.entries(now_ms)).map(fate)
}

/// What becomes of an entry of a backend in both pools; `open_to_all`: no range keeps clients from that backend.
fn fate(next: &Pool, entry: &TableEntry, alike: Alike, open_to_all: bool, now_ms: u64) -> Fate {
    let value = entry.known.kind.is_value();
    if value && !alike.learns {
        return Fate::Leaves;
    }
    let Some(table) = next.table().filter(|_| if value { alike.learns } else { alike.keys }) else {
        return Fate::Depends;
    };
    match table.lookup(entry.key, now_ms) {
        TableLookup::Gone(_) => Fate::Leaves,
        // A smaller stick table may have lost the entry, or it is over under the new rules.
        TableLookup::Unknown => Fate::Depends,
        TableLookup::At(index, kind) => {
            let follows = next.follows(index, kind).is_some();
            if alike.rules || open_to_all && !follows { Fate::Stays } else { Fate::Depends }
        }
    }
}

impl Alike {
    fn of(before: &Pool, after: &Pool) -> Self {
        let (old, new) = (before.config(), after.config());
        let learned = |pool: &config::Pool| {
            let cookie = pool.cookie.as_ref().filter(|cookie| matches!(cookie.mode, CookieMode::Learn { .. }));
            cookie.map(|cookie| (cookie.name.clone(), cookie.carrier() == Carrier::Cookie))
        };
        let learns = learned(old).is_some() && learned(old) == learned(new);
        let keys = identity(before) == identity(after);
        let policy =
            |pool: &config::Pool| pool.stick_table.map(|stick_table| (stick_table.on_add, stick_table.on_return));
        let rules =
            keys && ranges(old) == ranges(new) && before.digest() == after.digest() && policy(old) == policy(new);
        Self { keys, learns, rules }
    }
}

/// All settings that make a key out of facts.
fn identity(pool: &Pool) -> impl PartialEq {
    let config = pool.config();
    let by_cookie: Vec<KeyPart> = pool.cookie().map(|cookie| cookie.key().to_vec()).unwrap_or_default();
    let ranges: Vec<_> = config.ranges.iter().map(|range| (network(range), key_rule(range))).collect();
    // Only ranges with a key rule matter, and pins inside such a range, which have the pool's key.
    let matters = |(cidr, rule): &(IpNet, Option<KeyRule>)| {
        rule.is_some() || ranges.iter().any(|(outer, rule)| rule.is_some() && outer.contains(cidr))
    };
    let ranges: BTreeMap<_, _> = ranges.iter().filter(|range| matters(range)).cloned().collect();
    (config.has_key(), config.key.clone(), by_cookie, config.prefix_v4, config.prefix_v6, ranges)
}

/// Key of a range: `Ok` = the range's name is the key, `Err` = the range's prefix length.
type KeyRule = Result<String, u8>;

fn key_rule(range: &config::Range) -> Option<KeyRule> {
    match &range.rule {
        RangeRule::One => Some(Ok(range.name.clone())),
        RangeRule::Prefix(prefix) => Some(Err(*prefix)),
        RangeRule::Pin { .. } => None,
    }
}

/// Backends that a range is pinned to, sorted, and whether the pin is strict.
type PinRule = (Vec<String>, bool);

/// Key rule and pin of all ranges, independent of their order in the file.
fn ranges(pool: &config::Pool) -> BTreeMap<IpNet, (Option<KeyRule>, Option<PinRule>)> {
    let pin = |range: &config::Range| match &range.rule {
        RangeRule::Pin { backends, strict } => {
            let mut backends = backends.clone();
            backends.sort_unstable();
            Some((backends, *strict))
        }
        RangeRule::One | RangeRule::Prefix(_) => None,
    };
    pool.ranges.iter().map(|range| (network(range), (key_rule(range), pin(range)))).collect()
}

fn network(range: &config::Range) -> IpNet {
    config::canonical_network(range.cidr).trunc()
}
