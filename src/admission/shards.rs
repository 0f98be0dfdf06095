//! [`Shards`]: a map of counts behind many locks, for sources and other keys that strangers choose.
//!
//! Counts nothing itself. Invariant: a lock is held for a few steps, and for one pass over its entries at most once for as
//! many insertions as there are entries.

use std::hash::Hash;
use std::sync::{Mutex, MutexGuard};

use ahash::AHashMap;

use crate::counters::Padded;

/// Locks: many, so that two keys rarely wait for the same one.
pub const SHARDS: usize = 64;

/// A shard of this many entries drops those that are not needed before it grows further.
pub const SWEEP_FROM: usize = 256;

/// The whole map; each shard has a cache line of its own, so that two keys do not slow each other down.
#[derive(Debug)]
pub struct Shards<K, V>(pub(super) Box<[LockedShard<K, V>]>);

/// A shard behind its lock.
type LockedShard<K, V> = Padded<Mutex<Shard<K, V>>>;

/// The entries behind one lock.
#[derive(Debug)]
pub struct Shard<K, V> {
    pub entries: AHashMap<K, V>,
    sweep_at: usize,
}

impl<K, V> Default for Shard<K, V> {
    fn default() -> Self {
        Self { entries: AHashMap::new(), sweep_at: 0 }
    }
}

impl<K: Hash + Eq, V> Shards<K, V> {
    pub fn new() -> Self {
        Self((0..SHARDS).map(|_| Padded::default()).collect())
    }

    /// The shard of a key with these bits, locked. They need not be well mixed.
    pub fn lock(&self, bits: u64) -> MutexGuard<'_, Shard<K, V>> {
        let index = (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) as usize % SHARDS;
        // A panic elsewhere leaves counts that are at worst one too high.
        self.0[index].0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Number of all entries.
    pub fn len(&self) -> usize {
        let count =
            |shard: &LockedShard<K, V>| shard.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).entries.len();
        self.0.iter().map(count).sum()
    }
}

impl<K: Hash + Eq, V> Shard<K, V> {
    /// Drops entries that are not needed, once there are twice as many as after the last time, or `most`.
    pub fn sweep(&mut self, most: usize, is_needed: impl Fn(&V) -> bool) {
        if self.entries.len() >= self.sweep_at.max(SWEEP_FROM).min(most) {
            self.entries.retain(|_, value| is_needed(value));
            self.entries.shrink_to_fit();
            self.sweep_at = self.entries.len() * 2;
        }
    }
}
