//! [`PoolPair`]: a pool as it is and as it would be, and clients that connect first to the one, then to the other.
//!
//! Decides nothing: both pools pick as they do for connections. All backends are up and without connections. Invariant:
//! a client is known to both pools once it has connected to one of them, and to neither before.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::cookies::{CookieKeys, misread};
use crate::config::{self, CookieMode, KeyPart};
use crate::pool::{Backend, Pick, PickScene, Pool, StickTables};
use crate::snapshot::Rings;
use crate::sticky::Facts;
use crate::sticky::table::Secret;

/// Bytes of a stick table for each client: fewer than one in ten entries is used, so no client is evicted.
const ROOM: u64 = 256;

/// Stands in the place of a backend for a client that load places: which one that is, cannot be foretold. No backend
/// can be named so: a name has no parentheses.
pub const BY_LOAD: &str = "(by load)";

/// Both pools, with one stick table.
pub(super) struct PoolPair {
    pub(super) old: Pool,
    pub(super) new: Pool,
    /// True if the new pool understands the old one's cookie.
    cookie: bool,
    now_ms: u64,
}

impl PoolPair {
    /// Makes both pools with an empty stick table for so many clients.
    pub(super) fn new(before: &config::Pool, after: &config::Pool, keys: CookieKeys<'_>, clients: usize) -> Self {
        let roomy = |pool: &config::Pool| {
            let stick_table = pool
                .stick_table
                .map(|table| config::StickTableRules { bytes: ROOM * (clients as u64).max(64), ..table });
            config::Pool { stick_table, ..pool.clone() }
        };
        Self::over(&roomy(before), &roomy(after), keys, None, 0)
    }

    /// Makes both pools over the stick table of a living pool, for lookups only: a client that connects would be
    /// written into the living table.
    pub(super) fn living(pool: &Pool, after: &config::Pool, keys: CookieKeys<'_>, now_ms: u64) -> Self {
        Self::over(pool.config(), after, keys, Some(pool), now_ms)
    }

    /// Makes both pools over a copy of the stick table of a living pool: clients that connect are known here alone.
    pub(super) fn copied(pool: &Pool, after: &config::Pool, keys: CookieKeys<'_>, now_ms: u64) -> Self {
        // A table of another size is a new one, which copies the entries of the old.
        let stick_table =
            pool.config().stick_table.map(|table| config::StickTableRules { bytes: table.bytes + ROOM, ..table });
        Self::over(&config::Pool { stick_table, ..pool.config().clone() }, after, keys, Some(pool), now_ms)
    }

    fn over(
        before: &config::Pool,
        after: &config::Pool,
        keys: CookieKeys<'_>,
        living: Option<&Pool>,
        now_ms: u64,
    ) -> Self {
        let secret = Secret::new([0; 16]);
        // New backends are up and have no connections. Pools without key files can still name backends by index.
        let imagined = |config: &config::Pool, table: Option<&Pool>| {
            let cookie = Rings::default().rule(config);
            StickTables::new(table, &secret, now_ms).give(Pool::new(config, None, 1).with_cookie(cookie))
        };
        let old = imagined(before, living);
        let new = imagined(after, Some(&old));
        let names_backends = before.cookie.as_ref().is_some_and(|cookie| cookie.mode != CookieMode::Hash);
        let cookie = names_backends
            && misread(before, after, keys).is_none()
            && (old.table().is_some() && new.table().is_some() || !learns(before));
        Self { old, new, cookie, now_ms }
    }

    /// True if a client has a backend of its own in both pools, by its key or by a cookie.
    pub(super) fn sticks(before: &config::Pool, after: &config::Pool) -> bool {
        let cookie = |pool: &config::Pool| pool.cookie.is_some();
        before.has_key() && after.has_key() || cookie(before) && cookie(after)
    }

    /// Backend of a client that connects to the old pool, which knows it from now on.
    pub(super) fn visit(&self, facts: &Facts<'_>) -> Option<&Arc<Backend>> {
        self.settle(&self.old, self.old.pick(&PickScene::new(facts, &[], self.now_ms)))
    }

    /// Backend of a client that connects to the new pool; `named` is its cookie there, see [`named`](Self::named).
    pub(super) fn visit_again(&self, named: Option<usize>, facts: &Facts<'_>) -> Option<&Arc<Backend>> {
        self.settle(&self.new, self.new.pick(&PickScene { cookie: named, ..PickScene::new(facts, &[], self.now_ms) }))
    }

    /// The same as it is told of one client.
    pub(super) fn return_visit(&self, named: Option<usize>, facts: &Facts<'_>) -> Option<&str> {
        let pick = self.new.pick(&PickScene { cookie: named, ..PickScene::new(facts, &[], self.now_ms) });
        self.settle(&self.new, pick);
        pick.map(|pick| told(&self.new, &pick))
    }

    /// Index in the new pool of the backend that the cookie of a client of `from` names.
    pub(super) fn named(&self, from: &str) -> Option<usize> {
        if self.cookie { self.new.index_of(from) } else { None }
    }

    /// Where a client would go in the old pool. Writes nothing.
    pub(super) fn look(&self, facts: &Facts<'_>) -> Option<&str> {
        self.old.pick(&PickScene::asked(facts, None, &[], self.now_ms)).map(|pick| told(&self.old, &pick))
    }

    /// Where a client with this cookie would go in the new pool, and whether it leaves the backend at which it is
    /// known. Writes nothing.
    pub(super) fn back(&self, named: Option<usize>, facts: &Facts<'_>) -> Option<(&str, bool)> {
        let pick = self.new.pick(&PickScene::asked(facts, named, &[], self.now_ms))?;
        Some((told(&self.new, &pick), pick.left.is_some()))
    }

    fn settle<'p>(&self, pool: &'p Pool, pick: Option<Pick<'p>>) -> Option<&'p Arc<Backend>> {
        let Pick { backend, remember, .. } = pick?;
        if let Some((table, remember)) = pool.table().zip(remember) {
            table.settle(remember, backend, self.now_ms);
        }
        Some(backend)
    }

    /// True if both pools understand the same cookie.
    pub(super) fn by_cookie(&self) -> bool {
        self.cookie
    }
}

/// Picks for a client that no pool knows, while all backends are up and without connections.
pub(super) fn place_new<'p>(pool: &'p Pool, facts: &Facts<'_>) -> Option<Pick<'p>> {
    pool.pick(&PickScene::supposed(facts, None, &[]))
}

/// Where this pick leads, as far as it can be foretold.
pub(super) fn told<'p>(pool: &'p Pool, pick: &Pick<'p>) -> &'p str {
    if pool.config().places_by_load() && !pick.keyed { BY_LOAD } else { pick.backend.name() }
}

fn learns(pool: &config::Pool) -> bool {
    pool.cookie.as_ref().is_some_and(|cookie| matches!(cookie.mode, CookieMode::Learn { .. }))
}

/// Makes the clients of a sample, one for each number: an address, and what else the keys of both pools consist of.
pub(super) struct Sampler {
    sni: bool,
    tlvs: Vec<u8>,
    /// Parts of the keys that requests have.
    parts: Vec<KeyPart>,
}

impl Sampler {
    pub(super) fn new(pair: &PoolPair) -> Self {
        let mut sampler = Self { sni: false, tlvs: Vec::new(), parts: Vec::new() };
        for pool in [&pair.old, &pair.new] {
            let by_cookie = pool.cookie().map_or(&[][..], |cookie| cookie.key());
            for part in pool.config().key.iter().chain(by_cookie).flat_map(KeyPart::alternatives) {
                match part {
                    KeyPart::Source => {}
                    KeyPart::Sni => sampler.sni = true,
                    KeyPart::Tlv(kind) if !sampler.tlvs.contains(kind) => sampler.tlvs.push(*kind),
                    KeyPart::Tlv(_) => {}
                    part if !sampler.parts.contains(part) => sampler.parts.push(part.clone()),
                    _ => {}
                }
            }
        }
        sampler
    }

    pub(super) fn with_facts<T>(&self, number: u32, ask: impl FnOnce(&Facts<'_>) -> T) -> T {
        // An odd factor makes a permutation: each number has its own address, spread over all addresses.
        let source = Some(IpAddr::V4(Ipv4Addr::from(number.wrapping_mul(0x9e37_79b1))));
        if !self.sni && self.tlvs.is_empty() && self.parts.is_empty() {
            return ask(&Facts { source, ..Facts::default() });
        }
        let value = format!("client-{number}.example");
        let mut tlvs = Vec::new();
        for kind in &self.tlvs {
            tlvs.extend([*kind, 0, value.len() as u8]);
            tlvs.extend(value.as_bytes());
        }
        let values: Vec<_> = self.parts.iter().map(|part| (part, value.as_bytes())).collect();
        ask(&Facts { source, sni: Some(&value), tlvs: &tlvs, values: &values })
    }
}
