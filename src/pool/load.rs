//! Whom a backend takes beyond being up: the most connections it may have, and, of new keys, what load bound and slow
//! start leave it.
//!
//! Places nobody; `decide` asks. The load bound is that of consistent hashing with bounded loads (Mirrokni, Thorup,
//! Zadimoghaddam 2016). Invariant: a key that has settled is never steered, and in a slow start the backends that take
//! a key only ever become more, so no key moves twice.

use std::sync::atomic::Ordering::Relaxed;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::placement_key::PlacementKey;
use super::{Pool, Ties};
use crate::config::OnFull;
use crate::outcome::Ended;

/// What is known of the pool's load when a new key is placed.
pub(super) struct LoadRules<'p> {
    pool: &'p Pool,
    draw: u64,
    now_ms: u64,
    /// Load bound in hundredths, leases, and the weight that is up.
    load: Option<(u64, u64, u64)>,
}

impl Pool {
    /// Whether a backend has as many connections as it may have.
    pub(super) fn is_full(&self, index: usize) -> bool {
        let most = self.config.backends[index].max_connections;
        most.is_some_and(|most| self.backends[index].leases() >= u64::from(most))
    }

    /// The same for a connection: one more would be too many.
    #[inline]
    pub(super) fn is_full_for(&self, index: usize, ties: Ties<'_>) -> bool {
        self.is_full(index) && !(ties.holds)(&self.backends[index])
    }

    /// The same where somebody else may serve instead.
    #[inline]
    pub(super) fn overflows(&self, index: usize, ties: Ties<'_>) -> bool {
        self.config.on_full == OnFull::Overflow && self.is_full_for(index, ties)
    }

    /// Whether load or time has a say in where new keys go.
    #[inline]
    pub(super) fn has_load_rules(&self) -> bool {
        self.config.load_bound.is_some() || self.config.slow_start.is_some()
    }

    /// How a new key is steered; `None` where nothing is.
    #[inline]
    pub(super) fn load_rules(&self, key: &PlacementKey<'_>, now_ms: u64) -> Option<LoadRules<'_>> {
        (key.keyed && self.has_load_rules()).then(|| self.steered(key.draw, now_ms))
    }

    fn steered(&self, draw: u64, now_ms: u64) -> LoadRules<'_> {
        let load = self.config.load_bound.map(|bound| {
            let up = |index: &usize| {
                let backend = &self.backends[*index];
                !self.config.backends[*index].backup && backend.usable(now_ms) && !backend.draining()
            };
            let weights =
                (0..self.backends.len()).filter(up).map(|index| u64::from(self.config.backends[index].weight));
            (u64::from(bound), self.leases(), weights.sum::<u64>().max(1))
        });
        LoadRules { pool: self, draw, now_ms, load }
    }

    /// Why nobody serves a client that could not be given a backend.
    pub fn why_nobody(&self, now_ms: u64) -> Ended {
        let full = |index: usize| self.backends[index].usable(now_ms) && self.is_full(index);
        if (0..self.backends.len()).any(full) { Ended::BackendFull } else { Ended::NoBackend }
    }
}

impl LoadRules<'_> {
    /// Whether this backend takes the new key. A backup waits until no other can.
    pub(super) fn admits(&self, index: usize) -> bool {
        !self.pool.config.backends[index].backup && self.below_bound(index) && self.below_ramp(index)
    }

    /// At most ceil(bound × (leases + 1) × weight / weight that is up), and at least one.
    pub(super) fn below_bound(&self, index: usize) -> bool {
        let Some((bound, leases, up)) = self.load else { return true };
        let weight = u64::from(self.pool.config.backends[index].weight);
        let limit = (bound * (leases + 1) * weight).div_ceil(100 * up).max(1);
        self.pool.backends[index].leases() < limit
    }

    /// A fixed hash of key and name below the part of the slow start that has passed.
    fn below_ramp(&self, index: usize) -> bool {
        let Some(over) = self.pool.config.slow_start else { return true };
        let backend = &self.pool.backends[index];
        let rose_ms = backend.rose_ms.load(Relaxed);
        let (passed, over) = (self.now_ms.saturating_sub(rose_ms), over.as_millis() as u64);
        if rose_ms == 0 || passed >= over {
            return true;
        }
        let turn = xxh3_64_with_seed(backend.name().as_bytes(), self.draw) >> 48;
        turn < (passed << 16) / over
    }
}
