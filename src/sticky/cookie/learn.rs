//! Which value of the application's cookie belongs to which backend, in this process.
//!
//! Reads no head and no clock; keeps nothing on disk and tells no other instance. Invariants: a value is kept only as a
//! keyed 128-bit hash whose key never leaves the process; the table never holds more than its bound; a live mapping
//! that a `Set-Cookie` made is never lost to one that placement made.
//!
//! A mapping lives `remember` after its last use. When its part of the table is full, the oldest goes whose time is
//! over, then the oldest that placement made, then the oldest.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ahash::AHashMap;
use siphasher::sip128::SipHasher24;

use super::names::NameId;

/// Parts of the table, each under its own lock.
const SHARDS: usize = 64;

/// The table. Clones are the same table.
#[derive(Debug, Clone)]
pub struct Learned {
    table: Arc<Table>,
    remember_s: u64,
}

/// A value, unreadable: SipHash-2-4 with 128 bits under the secret of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueHash(u64, u64);

/// Who says that a value belongs to a backend; the later, the more it weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A client brought the value and was placed.
    Placement,
    /// The backend set it.
    SetCookie,
}

struct Table {
    hasher: SipHasher24,
    shards: Box<[Mutex<Shard>]>,
    displaced: AtomicU64,
}

#[derive(Debug)]
struct Shard {
    most: usize,
    mappings: AHashMap<ValueHash, Mapping>,
    /// Of every mapping its origin, its age and its key: the first is the first to go.
    order: BTreeSet<(Origin, u64, ValueHash)>,
}

#[derive(Debug, Clone, Copy)]
struct Mapping {
    backend: NameId,
    origin: Origin,
    seen_s: u64,
}

impl Learned {
    /// An empty table of at most `mappings` (rounded up to a multiple of 64), each kept for `remember`; `secret` is random.
    pub fn new(mappings: usize, remember: Duration, secret: [u8; 16]) -> Self {
        let most = mappings.div_ceil(SHARDS).max(1);
        let shard = || Mutex::new(Shard { most, mappings: AHashMap::new(), order: BTreeSet::new() });
        let shards = (0..SHARDS).map(|_| shard()).collect();
        let table = Table { hasher: SipHasher24::new_with_key(&secret), shards, displaced: AtomicU64::new(0) };
        Self { table: Arc::new(table), remember_s: remember.as_secs() }
    }

    /// The same table, its mappings kept for `remember` from now on.
    pub fn remembering(&self, remember: Duration) -> Self {
        Self { table: Arc::clone(&self.table), remember_s: remember.as_secs() }
    }

    /// What the table knows a value by.
    pub fn hash(&self, value: &[u8]) -> ValueHash {
        let hash = self.table.hasher.hash(value);
        ValueHash(hash.h1, hash.h2)
    }

    /// Maps a value to a backend at `now`, in seconds of a clock of the caller's choice.
    pub fn learn(&self, value: ValueHash, backend: NameId, origin: Origin, now: u64) {
        let displaced = self.shard(value).learn(value, Mapping { backend, origin, seen_s: now }, self.remember_s);
        self.table.displaced.fetch_add(u64::from(displaced), Relaxed);
    }

    /// Where a value belongs.
    pub fn find(&self, value: ValueHash, now: u64) -> Option<NameId> {
        let mut shard = self.shard(value);
        let found = *shard.mappings.get(&value)?;
        if is_over(found.seen_s, self.remember_s, now) {
            shard.remove(value);
            return None;
        }
        Some(found.backend)
    }

    /// Notes that a value is in use.
    pub fn touch(&self, value: ValueHash, now: u64) {
        let mut shard = self.shard(value);
        if let Some(mapping) = shard.mappings.get(&value).copied().filter(|mapping| mapping.seen_s < now) {
            shard.put(value, Mapping { seen_s: now, ..mapping });
        }
    }

    /// Drops a mapping.
    pub fn forget(&self, value: ValueHash) {
        self.shard(value).remove(value);
    }

    /// How many live mappings had to go, or could not be made, for want of room.
    pub fn displaced(&self) -> u64 {
        self.table.displaced.load(Relaxed)
    }

    /// Mappings held, those included whose time is over.
    pub fn len(&self) -> usize {
        self.table.shards.iter().map(|shard| lock(shard).mappings.len()).sum()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, value: ValueHash) -> MutexGuard<'_, Shard> {
        // The map hashes the value again with keys of its own, so its lowest bits are free for this.
        lock(&self.table.shards[value.0 as usize % SHARDS])
    }
}

impl Shard {
    /// Makes a mapping. Whether a live one was lost for it, or it was itself.
    fn learn(&mut self, value: ValueHash, mapping: Mapping, remember_s: u64) -> bool {
        if let Some(known) = self.mappings.get(&value).copied() {
            // A value that the backend set stays one when its client is placed elsewhere.
            let origin = known.origin.max(mapping.origin);
            self.put(value, Mapping { origin, seen_s: mapping.seen_s.max(known.seen_s), ..mapping });
            return false;
        }
        let is_full = self.mappings.len() >= self.most;
        let mut displaced = false;
        if is_full {
            let Some((victim, live)) = self.victim(mapping.origin, remember_s, mapping.seen_s) else { return true };
            self.remove(victim);
            displaced = live;
        }
        self.put(value, mapping);
        displaced
    }

    /// Who makes room for a mapping of this origin, and whether its time was not over; `None` if nobody does.
    fn victim(&self, newcomer: Origin, remember_s: u64, now: u64) -> Option<(ValueHash, bool)> {
        let oldest = |origin| self.order.range((origin, 0, ValueHash(0, 0))..).next().filter(|first| first.0 == origin);
        let placed = oldest(Origin::Placement);
        let set = oldest(Origin::SetCookie);
        let over = [placed, set].into_iter().flatten().find(|(_, seen_s, _)| is_over(*seen_s, remember_s, now));
        let live = || placed.or(set.filter(|_| newcomer == Origin::SetCookie));
        over.map(|(_, _, value)| (*value, false)).or_else(|| live().map(|(_, _, value)| (*value, true)))
    }

    fn put(&mut self, value: ValueHash, mapping: Mapping) {
        self.remove(value);
        self.order.insert((mapping.origin, mapping.seen_s, value));
        self.mappings.insert(value, mapping);
    }

    fn remove(&mut self, value: ValueHash) {
        if let Some(Mapping { origin, seen_s, .. }) = self.mappings.remove(&value) {
            self.order.remove(&(origin, seen_s, value));
        }
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Table({} displaced)", self.displaced.load(Relaxed))
    }
}

fn is_over(seen_s: u64, remember_s: u64, now: u64) -> bool {
    now.saturating_sub(seen_s) > remember_s
}

/// Every step leaves a shard whole, so one that panicked does no harm.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: NameId = NameId(1);
    const B: NameId = NameId(2);
    const HOUR: Duration = Duration::from_secs(3600);

    fn table(mappings: usize) -> Learned {
        Learned::new(mappings, HOUR, [7; 16])
    }

    #[test]
    fn a_mapping_lives_for_remember_after_its_last_use() {
        let table = table(64);
        let value = table.hash(b"31d4");
        assert_eq!(table.find(value, 0), None);
        table.learn(value, A, Origin::SetCookie, 100);
        assert_eq!(table.find(value, 3700), Some(A));
        table.touch(value, 3700);
        table.touch(value, 50);
        assert_eq!(table.find(value, 7300), Some(A), "an earlier touch does not shorten it");
        let longer = table.remembering(2 * HOUR);
        assert_eq!(longer.find(value, 7301), Some(A));
        assert_eq!(table.find(value, 7301), None);
        assert!(table.is_empty(), "found to be over, it is dropped");
        table.learn(value, A, Origin::Placement, 7301);
        table.forget(value);
        assert_eq!(table.find(value, 7301), None);
    }

    #[test]
    fn a_clock_that_goes_back_ends_nothing() {
        let table = table(64);
        let value = table.hash(b"31d4");
        table.learn(value, A, Origin::SetCookie, 10_000);
        assert_eq!(table.find(value, 10), Some(A));
    }

    #[test]
    fn hashes_differ_by_value_and_by_secret_and_show_neither() {
        let other = Learned::new(64, HOUR, [8; 16]);
        assert_ne!(table(64).hash(b"31d4"), table(64).hash(b"31d5"));
        assert_ne!(table(64).hash(b"31d4"), other.hash(b"31d4"));
        let table = table(64);
        table.learn(table.hash(b"secret-value"), A, Origin::SetCookie, 0);
        assert!(!format!("{table:?}").contains("secret-value"));
    }

    /// Values that fall into one shard of a table with room for two in each.
    fn crowded() -> (Learned, Vec<ValueHash>) {
        let table = table(2 * SHARDS);
        let all = (0..20_000u32).map(|n| table.hash(&n.to_le_bytes()));
        let values = all.filter(|value| (value.0 as usize).is_multiple_of(SHARDS)).take(100).collect();
        (table, values)
    }

    #[test]
    fn the_oldest_of_placement_goes_first_and_never_for_less() {
        let (table, v) = crowded();
        let present = |now| v[..5].iter().map(|value| table.find(*value, now).is_some()).collect::<Vec<_>>();
        table.learn(v[0], A, Origin::SetCookie, 1);
        table.learn(v[1], A, Origin::Placement, 2);
        table.learn(v[2], A, Origin::Placement, 3);
        assert_eq!(present(3), [true, false, true, false, false], "the older placement, though v0 is older still");
        table.learn(v[3], A, Origin::SetCookie, 4);
        assert_eq!(present(4), [true, false, false, true, false]);
        table.learn(v[4], A, Origin::Placement, 5);
        assert_eq!(present(5), [true, false, false, true, false], "a placement displaces no Set-Cookie");
        table.learn(v[4], A, Origin::SetCookie, 6);
        assert_eq!(present(6), [false, false, false, true, true], "but a Set-Cookie the oldest");
        assert_eq!((table.displaced(), table.len()), (4, 2));
    }

    #[test]
    fn whose_time_is_over_makes_room_before_anybody() {
        let (table, v) = crowded();
        table.learn(v[0], A, Origin::SetCookie, 1);
        table.learn(v[1], A, Origin::Placement, 4000);
        table.learn(v[2], A, Origin::Placement, 4000);
        let found: Vec<_> = v[..3].iter().map(|value| table.find(*value, 4000)).collect();
        assert_eq!((found, table.displaced()), (vec![None, Some(A), Some(A)], 0));
    }

    #[test]
    fn a_value_that_the_backend_set_keeps_its_rank_when_placed_elsewhere() {
        let (table, v) = crowded();
        table.learn(v[0], A, Origin::SetCookie, 1);
        table.learn(v[0], B, Origin::Placement, 2);
        table.learn(v[1], A, Origin::SetCookie, 3);
        table.learn(v[2], A, Origin::Placement, 4);
        assert_eq!(table.find(v[0], 4), Some(B));
        assert_eq!(table.find(v[2], 4), None);
    }

    #[test]
    fn a_million_values_fit_into_the_bound() {
        let table = table(1000);
        for n in 0..1_000_000u32 {
            table.learn(table.hash(&n.to_le_bytes()), A, Origin::Placement, u64::from(n / 100_000));
        }
        assert_eq!(table.len(), 1000usize.div_ceil(SHARDS) * SHARDS);
    }

    #[test]
    fn a_mapping_costs_less_than_160_bytes() {
        const MAPPINGS: usize = 1 << 16;
        let mut held = None;
        let used = allocation_counter::measure(|| {
            let table = table(MAPPINGS);
            for n in 0..2 * MAPPINGS as u64 {
                table.learn(table.hash(&n.to_le_bytes()), A, Origin::Placement, n);
            }
            held = Some(table);
        });
        assert_eq!(held.map(|table| table.len()), Some(MAPPINGS));
        assert!(used.bytes_current < 160 * MAPPINGS as i64, "{} a mapping", used.bytes_current / MAPPINGS as i64);
    }

    proptest! {
        /// Against a table without bound, as long as nothing is displaced.
        #[test]
        fn it_answers_as_a_plain_map_would(steps in proptest::collection::vec((0u8..4, 0u8..20, 0u64..5000), 1..200)) {
            let table = table(10_000);
            let mut plain = std::collections::HashMap::new();
            for (step, value, now) in steps {
                let hash = table.hash(&[value]);
                let live = plain.get(&value).copied().filter(|(_, seen)| !is_over(*seen, 3600, now));
                match step {
                    0 => {
                        let backend = NameId(now % 3);
                        let seen = plain.get(&value).map_or(now, |(_, seen): &(NameId, u64)| now.max(*seen));
                        table.learn(hash, backend, Origin::SetCookie, now);
                        plain.insert(value, (backend, seen));
                    }
                    1 => {
                        table.touch(hash, now);
                        plain.entry(value).and_modify(|(_, seen)| *seen = now.max(*seen));
                    }
                    2 => {
                        table.forget(hash);
                        plain.remove(&value);
                    }
                    _ => {
                        prop_assert_eq!(table.find(hash, now), live.map(|(backend, _)| backend));
                        if live.is_none() {
                            plain.remove(&value);
                        }
                    }
                }
                prop_assert_eq!(table.len(), plain.len());
            }
            for shard in &table.table.shards {
                let shard = lock(shard);
                prop_assert_eq!(shard.order.len(), shard.mappings.len());
            }
        }
    }
}
