//! What placement is asked for one connection: who the client is, seen through named ranges and the pool's key.
//!
//! Places nobody. Invariant: the same facts make the same key, and allocate nothing for it.

use super::Pool;
use crate::config::Balance;
use crate::sticky::Facts;
use crate::sticky::cookie::CookieRule;
use crate::sticky::key::{Key, SourceAs};
use crate::sticky::range::{self, Pin, Range};
use crate::sticky::table::KeyHash;

/// What placement is asked for one connection.
#[derive(Debug)]
pub(super) struct PlacementKey<'a> {
    pub(super) range: Option<&'a Range>,
    /// The key's hash, or a turn.
    pub(super) draw: u64,
    pub(super) keyed: bool,
    /// The key in the pool's stick table.
    pub(super) table_key: Option<KeyHash>,
}

impl<'a> PlacementKey<'a> {
    /// The backends that its range leaves it.
    pub(super) fn pin(&self) -> Option<&'a Pin> {
        pin(self.range)
    }

    /// Whether it leaves no others.
    pub(super) fn strict(&self) -> bool {
        self.pin().is_some_and(|pin| pin.strict)
    }
}

impl Pool {
    /// What placement is asked: the facts seen through ranges and key. `turn` counts keyless picks.
    #[inline]
    pub(super) fn key(&self, facts: &Facts<'_>, turn: impl FnOnce() -> u64) -> PlacementKey<'_> {
        let range = self.range(facts);
        let hashes = |key: &[u8]| (self.placement.key_hash(key), self.table.as_ref().map(|table| table.key(key)));
        let Some((draw, table_key)) = self.with_key(facts, range, hashes) else {
            let draw = match self.config.balance {
                Balance::RoundRobin | Balance::LeastConnections => turn(),
                _ => scatter(turn()),
            };
            return PlacementKey { range, draw, keyed: false, table_key: None };
        };
        PlacementKey { range, draw, keyed: true, table_key }
    }

    /// The named range a client is in.
    pub(super) fn range(&self, facts: &Facts<'_>) -> Option<&Range> {
        self.ranges.find(facts.source?.to_canonical())
    }

    /// Whether the client's range leaves it this backend. Of a pinned range that is not strict, none of whose own
    /// `receives` it, all are left.
    pub(super) fn allows(&self, range: Option<&Range>, index: usize, receives: impl Fn(usize) -> bool) -> bool {
        let all = |pin: &Pin| !pin.strict && !(0..self.backends.len()).any(|own| pin.allows(own) && receives(own));
        pin(range).is_none_or(|pin| pin.allows(index) || all(pin))
    }

    /// Hands the bytes of the key of these facts to `then`; `None` if there is no key.
    #[inline]
    pub(super) fn with_key<T>(&self, facts: &Facts<'_>, range: Option<&Range>, then: impl Fn(&[u8]) -> T) -> Option<T> {
        if !self.config.balance.keyed() {
            return None;
        }
        let source = || self.source_as(range);
        let by_cookie = self.cookie.as_ref().map(CookieRule::key).filter(|key| !key.is_empty());
        by_cookie
            .and_then(|key| Key::with(key, source(), facts, &then))
            .or_else(|| Key::with(&self.config.key, source(), facts, &then))
    }

    pub(super) fn source_as<'a>(&self, range: Option<&'a Range>) -> SourceAs<'a> {
        match range.map(|range| (&range.rule, &*range.name)) {
            Some((range::Rule::One, name)) => SourceAs::Range(name),
            Some((range::Rule::Prefix(prefix), _)) => SourceAs::prefix(*prefix),
            _ => SourceAs::Prefix { v4: self.config.prefix_v4, v6: self.config.prefix_v6 },
        }
    }
}

/// The backends that a range leaves its clients.
pub(super) fn pin(range: Option<&Range>) -> Option<&Pin> {
    match &range?.rule {
        range::Rule::Pin(pin) => Some(pin),
        range::Rule::One | range::Rule::Prefix(_) => None,
    }
}

/// Turns a counter into numbers that look random (the finalizer of splitmix64).
fn scatter(turn: u64) -> u64 {
    let mut z = turn.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
