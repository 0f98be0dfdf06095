//! What a pool under other rules would do with those whom this one knows.
//!
//! For plans, not for connections: a plan makes the pool of another configuration, which nobody is ever connected by,
//! lets it have the same stick table, and asks both. Writes nothing. Invariant: what is said to stay or to leave does so,
//! as long as every backend takes connections; what only the bytes of a key could tell, which a stick table does not have,
//! is said to depend on them.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;

use super::table::TableLookup;
use super::{Backend, Health, Pool};
use crate::config::{self, CookieMode, KeyPart, OnAdd, OnReturn, RangeRule};
use crate::sticky::Facts;
use crate::sticky::table::{EntryKind, Minute, TableEntry};

/// What becomes of a client where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It stays, or what it does is not the change's doing.
    Stays,
    /// It gets another backend.
    Leaves,
    /// Its key says which, and only its hash is known.
    Depends,
}

/// What two pools have in common.
#[derive(Debug, Clone, Copy)]
struct Alike {
    /// The same facts make the same key.
    keys: bool,
    /// The same values are learned.
    learns: bool,
    /// Nothing that decides about a client differs.
    rules: bool,
}

impl Pool {
    /// Where a client goes that nobody knows, when all backends are up and nobody is there.
    pub fn place_unknown(&self, facts: &Facts<'_>) -> Option<&Arc<Backend>> {
        let key = self.key(facts, || 0);
        self.decide(&key, |_| Health::Usable, |_| false, None).map(|choice| &self.backends[choice.index])
    }

    /// Whether the stick table knows the key of these facts, and a backend for it that is still there.
    pub fn knows(&self, facts: &Facts<'_>, now_ms: u64) -> bool {
        matches!(self.recall(&self.key(facts, || 0), now_ms), TableLookup::At(..))
    }

    /// Every entry of the stick table that names a backend of this pool: that backend's index, and what becomes of the entry
    /// under `next`, which has the same stick table.
    pub fn foresee<'p>(&'p self, next: &'p Self, now_ms: u64) -> impl Iterator<Item = (usize, Fate)> + 'p {
        let now = Minute::of_ms(now_ms);
        let alike = Alike::of(self, next);
        let indexes: Vec<_> = self.backends.iter().map(|backend| next.index_of(backend.name())).collect();
        let everybody: Vec<_> = (0..next.backends.len()).map(|index| next.ranges.all_allow(index)).collect();
        let fate = move |(at, entry): (usize, TableEntry)| match indexes[at] {
            None => (at, Fate::Leaves),
            Some(index) => (at, next.fate(&entry, alike, everybody[index], now)),
        };
        self.table.iter().flat_map(move |table| table.live(now)).map(fate)
    }

    /// The index of the backend of this name.
    pub fn index_of(&self, backend: &str) -> Option<usize> {
        self.config.backends.iter().position(|known| known.name == backend)
    }

    /// What becomes of an entry whose backend is there; `anybody`: no range shuts that out.
    fn fate(&self, entry: &TableEntry, alike: Alike, anybody: bool, now: Minute) -> Fate {
        let value = entry.known.kind.is_value();
        let Some(table) = self.table.as_ref().filter(|_| if value { alike.learns } else { alike.keys }) else {
            return Fate::Depends;
        };
        match table.recall(entry.key, now) {
            TableLookup::Gone => Fate::Leaves,
            // It was the smaller stick table's to lose, or is over under the new rules.
            TableLookup::Unknown => Fate::Depends,
            TableLookup::At(_, kind) => {
                let follows = kind == EntryKind::Outgrown && table.rules.on_add == OnAdd::Move
                    || kind == EntryKind::Displaced && table.rules.on_return == OnReturn::Return;
                if alike.rules || anybody && !follows { Fate::Stays } else { Fate::Depends }
            }
        }
    }
}

impl Alike {
    fn of(before: &Pool, after: &Pool) -> Self {
        let (old, new) = (&before.config, &after.config);
        let learned = |pool: &config::Pool| {
            let cookie = pool.cookie.as_ref().filter(|cookie| matches!(cookie.mode, CookieMode::Learn { .. }));
            cookie.map(|cookie| cookie.name.clone())
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

/// Everything that makes a key out of facts.
fn identity(pool: &Pool) -> impl PartialEq {
    let config = &pool.config;
    let by_cookie: Vec<KeyPart> = pool.cookie.as_ref().map(|cookie| cookie.key().to_vec()).unwrap_or_default();
    let ranges: Vec<_> = config.ranges.iter().map(|range| (network(range), key_rule(range))).collect();
    // A pin inside a range with a key of its own has the pool's.
    let matters = |(cidr, rule): &(IpNet, Option<KeyRule>)| {
        rule.is_some() || ranges.iter().any(|(outer, rule)| rule.is_some() && outer.contains(cidr))
    };
    let ranges: BTreeMap<_, _> = ranges.iter().filter(|range| matters(range)).cloned().collect();
    (config.balance.keyed(), config.key.clone(), by_cookie, config.prefix_v4, config.prefix_v6, ranges)
}

/// The name of a range that is one key, or its prefix.
type KeyRule = Result<String, u8>;

fn key_rule(range: &config::Range) -> Option<KeyRule> {
    match &range.rule {
        RangeRule::One => Some(Ok(range.name.clone())),
        RangeRule::Prefix(prefix) => Some(Err(*prefix)),
        RangeRule::Pin { .. } => None,
    }
}

/// The backends that a range leaves its clients, in order, and whether it leaves no others.
type PinRule = (Vec<String>, bool);

/// All ranges and what they mean, whatever the order.
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
