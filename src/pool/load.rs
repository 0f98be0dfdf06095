//! [`LoadRules`]: what the load bound and a slow start leave a backend of new keys.
//!
//! Chooses no backend; placement skips backends that a rule does not admit. The load bound is that of consistent
//! hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2016). Invariant: the rules never move a known key, and
//! during a slow start the share of keys that a backend takes only grows, so no key moves twice.
//!
//! # Slow start
//!
//! While the part `p` of the time has passed since a backend came up, `p` of the new keys, or of the picks without a key,
//! may go there. The methods by leases also leave it `p` of its share of the leases: it has the fewest, and would get
//! every client until it has as many as the others.

use std::sync::atomic::Ordering::Relaxed;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Pool;
use super::candidates::{Candidates, is_full};
use super::health::passed;
use super::placement_key::PlacementKey;
use super::scene::HealthView;
use crate::outcome::Ended;

/// The pool's load at the moment when a new key is placed.
pub(super) struct LoadRules<'p> {
    pool: &'p Pool,
    draw: u64,
    now_ms: u64,
    /// Load bound in hundredths; `None` = no bound.
    bound: Option<u64>,
    /// Leases of the pool and the weight of all primaries that are up, where a rule asks for them.
    load: Option<(u64, u64)>,
}

impl Pool {
    /// Ending of a connection for which no backend was picked and none was tried.
    pub fn why_nobody(&self, now_ms: u64) -> Ended {
        let full = |index: usize| self.backends[index].usable(now_ms) && is_full(self, index);
        if (0..self.backends.len()).any(full) { Ended::BackendFull } else { Ended::NoBackend }
    }
}

/// True if load or time influences where the pool places new keys.
#[inline]
pub(super) fn has_load_rules(pool: &Pool) -> bool {
    pool.config.load_bound.is_some() || pool.config.slow_start.is_some()
}

impl<'p> LoadRules<'p> {
    /// The rules for this key, or for a client without one; `None`: the pool has no such rule.
    #[inline]
    pub(super) fn of<V: HealthView>(candidates: &Candidates<'p, '_, V>, key: &PlacementKey<'_>) -> Option<Self> {
        has_load_rules(candidates.pool).then(|| Self::now(candidates, key))
    }

    fn now<V: HealthView>(candidates: &Candidates<'p, '_, V>, key: &PlacementKey<'_>) -> Self {
        let (pool, scene) = (candidates.pool, candidates.scene);
        let bound = pool.config.load_bound.filter(|_| key.keyed || key.by_load()).map(u64::from);
        let by_leases = pool.config.slow_start.is_some() && pool.config.balance.counts_leases();
        let load = (bound.is_some() || by_leases).then(|| {
            let ready = pool.ready.as_deref().filter(|_| scene.view.is_living());
            let kept = ready.and_then(|ready| ready.weight_up(pool, scene.now_ms));
            let weight_up = kept.unwrap_or_else(|| Self::weight_up(candidates));
            (pool.leases(), weight_up.max(1))
        });
        Self { pool, draw: key.draw, now_ms: scene.now_ms, bound, load }
    }

    /// Weight of all primaries that are up, by a look at each.
    fn weight_up<V: HealthView>(candidates: &Candidates<'p, '_, V>) -> u64 {
        let pool = candidates.pool;
        let is_up =
            |index: &usize| !pool.config.backends[*index].backup && candidates.takes(*index, super::Health::Usable);
        let weights = (0..pool.backends.len()).filter(is_up);
        weights.map(|index| u64::from(pool.config.backends[index].weight)).sum()
    }

    /// True if the backend takes the new key. A backup takes keys only when no primary can.
    pub(super) fn admits(&self, index: usize) -> bool {
        !self.pool.config.backends[index].backup && self.below_bound(index) && self.below_ramp(index)
    }

    /// True while the backend has fewer leases than ceil(bound × (leases + 1) × weight / weight that is up), at least
    /// 1.
    pub(super) fn below_bound(&self, index: usize) -> bool {
        self.bound.is_none_or(|bound| self.has_less(index, bound, 100))
    }

    /// True while the backend has fewer leases than this part of its share, at least 1.
    fn has_less(&self, index: usize, part: u64, of: u64) -> bool {
        let Some((leases, up)) = self.load else { return true };
        let weight = u64::from(self.pool.config.backends[index].weight);
        let share = u128::from(part) * u128::from(leases + 1) * u128::from(weight);
        let limit = share.div_ceil(u128::from(of) * u128::from(up)).max(1);
        u128::from(self.pool.backends[index].leases()) < limit
    }

    /// True if a fixed hash of key and backend name lies below the part of the slow start that has passed; without a key
    /// the number of the pick takes its place. Of the methods by leases the backend must have less than that part of its
    /// share, too.
    fn below_ramp(&self, index: usize) -> bool {
        let Some(over) = self.pool.config.slow_start else { return true };
        let backend = &self.pool.backends[index];
        let rose_ms = backend.rose_ms.load(Relaxed);
        let (passed, over) = (passed(rose_ms, self.now_ms), over.as_millis() as u64);
        if rose_ms == 0 || passed >= over {
            return true;
        }
        let turn = xxh3_64_with_seed(backend.name().as_bytes(), self.draw) >> 48;
        turn < (passed << 16) / over
            && (!self.pool.config.balance.counts_leases() || self.has_less(index, passed, over))
    }
}
