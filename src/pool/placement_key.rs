//! [`PlacementKey`]: what placement gets for one connection, made from the client's facts, its named range and the
//! pool's key.
//!
//! Chooses no backend. Invariant: equal facts make an equal key, and making it allocates nothing (but for keys longer
//! than [`INLINE`](crate::sticky::key::INLINE)).

use super::Pool;
use crate::config::{Balance, KeyPart};
use crate::sticky::Facts;
use crate::sticky::cookie::CookieRule;
use crate::sticky::key::{Key, SourceAs};
use crate::sticky::range::{self, Pin, Range};
use crate::sticky::table::KeyHash;

/// What placement gets for one connection.
#[derive(Debug)]
pub(super) struct PlacementKey<'a> {
    /// Named range that holds the client's address.
    pub(super) range: Option<&'a Range>,
    /// Hash of the key; for a pick without one a ticket or a random number, as the method needs it.
    pub(super) draw: u64,
    /// True if placement goes by the key, so that the key has a home.
    pub(super) keyed: bool,
    /// Hash of the same key in the pool's stick table.
    pub(super) table_key: Option<KeyHash>,
}

impl<'a> PlacementKey<'a> {
    /// Makes the key of these facts; `range` is [`range_of`] them. `turn` returns the pool's count of keyless picks.
    #[inline]
    pub(super) fn new(pool: &Pool, facts: &Facts<'_>, range: Option<&'a Range>, turn: impl FnOnce() -> u64) -> Self {
        let hashes = |key: &[u8]| (pool.placement.key_hash(key), pool.table.as_ref().map(|table| table.key(key)));
        let Some((draw, table_key)) = with_key(pool, facts, range, hashes) else {
            return Self { range, draw: number(pool, turn()), keyed: false, table_key: None };
        };
        let keyed = pool.config.balance.keyed();
        // Without the table, for which the system had no memory, load places every connection.
        let draw = if keyed || table_key.is_some() { draw } else { number(pool, turn()) };
        Self { range, draw, keyed, table_key }
    }

    /// True if load places the key when it is new, and the stick table alone brings it back.
    pub(super) fn by_load(&self) -> bool {
        !self.keyed && self.table_key.is_some()
    }

    /// The same for placement: a key that load places takes its turn as late as this, so that known keys take none.
    pub(super) fn in_turn(&self, pool: &Pool, turn: impl FnOnce() -> u64) -> Self {
        let draw = if self.by_load() { number(pool, turn()) } else { self.draw };
        Self { draw, ..*self }
    }

    /// Backends that the client's range is pinned to.
    pub(super) fn pin(&self) -> Option<&'a Pin> {
        pin(self.range)
    }

    /// True if no backend outside the pin may serve the client.
    pub(super) fn strict(&self) -> bool {
        self.pin().is_some_and(|pin| pin.strict)
    }
}

/// Named range that holds the client's address.
pub(super) fn range_of<'p>(pool: &'p Pool, facts: &Facts<'_>) -> Option<&'p Range> {
    pool.ranges.find(facts.source?.to_canonical())
}

/// Backends that a range leaves its clients; `None` = all.
pub(super) fn pin(range: Option<&Range>) -> Option<&Pin> {
    match &range?.rule {
        range::Rule::Pin(pin) => Some(pin),
        range::Rule::One | range::Rule::Prefix(_) => None,
    }
}

/// Calls `then` with the bytes of the key of these facts; `None`: the facts have no key.
#[inline]
pub(super) fn with_key<T>(
    pool: &Pool,
    facts: &Facts<'_>,
    range: Option<&Range>,
    then: impl Fn(&[u8]) -> T,
) -> Option<T> {
    if !pool.config.has_key() {
        return None;
    }
    let source = || source_as(pool, range);
    // In mode `hash` the cookie is the key, and the pool's own key serves requests without the cookie.
    let by_cookie = pool.cookie.as_ref().map(CookieRule::key).filter(|key| !key.is_empty());
    by_cookie
        .and_then(|key| Key::with(key, source(), facts, &then))
        .or_else(|| Key::with(&pool.config.key, source(), facts, &then))
}

/// Parts of the key that [`with_key`] uses for these facts.
pub(super) fn key_parts<'p>(pool: &'p Pool, facts: &Facts<'_>) -> &'p [KeyPart] {
    let present = |key: &&[KeyPart]| Key::encode(key, SourceAs::prefix(0), facts).is_some();
    pool.cookie.as_ref().map(CookieRule::key).filter(present).unwrap_or(&pool.config.key)
}

/// What the address of a client in this range adds to its key.
pub(super) fn source_as<'a>(pool: &Pool, range: Option<&'a Range>) -> SourceAs<'a> {
    match range.map(|range| (&range.rule, &*range.name)) {
        Some((range::Rule::One, name)) => SourceAs::Range(name),
        Some((range::Rule::Prefix(prefix), _)) => SourceAs::prefix(*prefix),
        _ => SourceAs::Prefix { v4: pool.config.prefix_v4, v6: pool.config.prefix_v6 },
    }
}

/// What a method without a key gets of the pool's count of picks: a ticket, or a number that looks random.
fn number(pool: &Pool, turn: u64) -> u64 {
    match pool.config.balance {
        Balance::RoundRobin | Balance::LeastConnections => turn,
        _ => scatter(turn),
    }
}

/// Turns a counter into numbers that look random (the finalizer of splitmix64).
fn scatter(turn: u64) -> u64 {
    let mut z = turn.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
