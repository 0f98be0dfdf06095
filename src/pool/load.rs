//! [`LoadRules`]: what the load bound and a slow start leave a backend of new keys.
//!
//! Chooses no backend; placement skips backends that a rule does not admit. The load bound is that of consistent
//! hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2016). Invariant: the rules never move a known key, and
//! during a slow start the share of keys that a backend takes only grows, so no key moves twice.

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
    /// Load bound in hundredths, leases of the pool, and the weight of all primaries that are up; `None` = no bound.
    load: Option<(u64, u64, u64)>,
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
    /// The rules for this key; `None`: the pool has no such rule, or the client has no key.
    #[inline]
    pub(super) fn of<V: HealthView>(candidates: &Candidates<'p, '_, V>, key: &PlacementKey<'_>) -> Option<Self> {
        ((key.keyed || key.by_load()) && has_load_rules(candidates.pool)).then(|| Self::now(candidates, key.draw))
    }

    fn now<V: HealthView>(candidates: &Candidates<'p, '_, V>, draw: u64) -> Self {
        let pool = candidates.pool;
        let load = pool.config.load_bound.map(|bound| {
            let scene = candidates.scene;
            let ready = pool.ready.as_deref().filter(|_| scene.view.is_living());
            let kept = ready.and_then(|ready| ready.weight_up(pool, scene.now_ms));
            let weight_up = kept.unwrap_or_else(|| Self::weight_up(candidates));
            (u64::from(bound), pool.leases(), weight_up.max(1))
        });
        Self { pool, draw, now_ms: candidates.scene.now_ms, load }
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
        let Some((bound, leases, up)) = self.load else { return true };
        let weight = u64::from(self.pool.config.backends[index].weight);
        let limit = (bound * (leases + 1) * weight).div_ceil(100 * up).max(1);
        self.pool.backends[index].leases() < limit
    }

    /// True if a fixed hash of key and backend name lies below the part of the slow start that has passed.
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
    }
}
