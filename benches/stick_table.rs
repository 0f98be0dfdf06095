//! Cost of the stick table: `cargo bench --bench stick_table`.
//!
//! First it prints how many keys a 16 MiB table loses early at each fill, then it times the table beside a locked map
//! and a sharded one. Keys are hashed before the clock starts where the name does not say otherwise. Invariant: all
//! three get the same operations in the same order.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use dashmap::DashMap;
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use sessile::sticky::table::top_keys::Label;
use sessile::sticky::table::{
    BackendId, BackendState, EntryKind, EntryValue, IdMap, KeyHash, Minute, Secret, StickTable, Stored, Terms,
};

const MIB: u64 = 1 << 20;
const SLOTS: usize = 1 << 20;
const FILLS: [usize; 4] = [10, 50, 70, 95];
const THREADS: [usize; 4] = [1, 2, 4, 8];
/// Look-ups in a turn of a crowd; one in so many settles.
const TURN: usize = 1_000;
const SETTLES: usize = 10;

fn main() {
    early_evictions();
    divan::main();
}

fn now() -> Minute {
    Minute::of_ms(60_000_000)
}

fn table(bytes: u64) -> (StickTable, BackendId) {
    let remember = Duration::from_secs(10_800);
    let terms = Terms { remember, remember_values: remember, digest: 1 };
    let table = StickTable::new(bytes, Secret::new([7; 16]), terms).expect("there is memory");
    let id = IdMap::new(table.ids(), ["a"]).id(0).expect("an id");
    (table, id)
}

fn keys(count: usize) -> Vec<KeyHash> {
    let secret = Secret::new([7; 16]);
    (0..count as u64).map(|n| secret.key(&n.to_be_bytes())).collect()
}

/// Every key comes once; an entry that gives way to another one is lost early.
fn early_evictions() {
    let filled = FILLS.map(|percent| (format!("{percent} %"), SLOTS * percent / 100));
    let goal = ("goal: < 0.5 %".to_owned(), 700_000);
    println!("lost early of 16 MiB (1,048,576 places), by threads that fill it");
    for (name, count) in filled.into_iter().chain([goal]) {
        let keys = keys(count);
        let lost = [1, 8].map(|threads| {
            let (table, id) = table(16 * MIB);
            let lost = AtomicUsize::new(0);
            std::thread::scope(|scope| {
                for part in keys.chunks(count.div_ceil(threads)) {
                    let (table, lost) = (&table, &lost);
                    scope.spawn(move || {
                        for key in part {
                            let place = EntryValue { id, kind: EntryKind::Displaced };
                            match table.settle(*key, place, now(), |_| BackendState::Usable) {
                                Stored::Added => {}
                                _ => _ = lost.fetch_add(1, Relaxed),
                            }
                        }
                    });
                }
            });
            let lost = lost.into_inner();
            format!("{lost} ({:.3} %)", lost as f64 * 100.0 / count as f64)
        });
        println!("  {name:>14}  {count:>9} keys  1 thread: {:<18} 8 threads: {}", lost[0], lost[1]);
    }
}

/// What all three can do.
trait Store: Sync + 'static {
    fn with_room() -> Self;
    fn find(&self, key: KeyHash) -> bool;
    fn settle(&self, key: KeyHash);
}

struct Ours(StickTable, BackendId);

impl Store for Ours {
    fn with_room() -> Self {
        let (table, id) = table(16 * MIB);
        Self(table, id)
    }

    fn find(&self, key: KeyHash) -> bool {
        self.0.find(key, now()).is_some()
    }

    fn settle(&self, key: KeyHash) {
        let place = EntryValue { id: self.1, kind: EntryKind::Displaced };
        let _ = black_box(self.0.settle(key, place, now(), |_| BackendState::Usable));
    }
}

/// Backend and minute.
type Value = (u32, u32);

struct Locked(Mutex<HashMap<KeyHash, Value, ahash::RandomState>>);

impl Store for Locked {
    fn with_room() -> Self {
        Self(Mutex::new(HashMap::with_capacity_and_hasher(SLOTS, ahash::RandomState::new())))
    }

    fn find(&self, key: KeyHash) -> bool {
        self.0.lock().expect("nobody panics").get(&key).is_some()
    }

    fn settle(&self, key: KeyHash) {
        self.0.lock().expect("nobody panics").insert(key, (1, 1));
    }
}

struct Sharded(DashMap<KeyHash, Value, ahash::RandomState>);

impl Store for Sharded {
    fn with_room() -> Self {
        Self(DashMap::with_capacity_and_hasher(SLOTS, ahash::RandomState::new()))
    }

    fn find(&self, key: KeyHash) -> bool {
        self.0.get(&key).is_some()
    }

    fn settle(&self, key: KeyHash) {
        self.0.insert(key, (1, 1));
    }
}

/// A few keys over and over: all in the processor's cache.
#[divan::bench(types = [Ours, Locked, Sharded], sample_size = 1_000)]
fn hit_cached<S: Store>(bencher: Bencher<'_, '_>) {
    let (store, keys) = (S::with_room(), keys(64));
    keys.iter().for_each(|key| store.settle(*key));
    assert!(keys.iter().all(|key| store.find(*key)));
    let mut turn = 0;
    bencher.bench_local(|| {
        turn = (turn + 1) % keys.len();
        black_box(store.find(black_box(keys[turn])))
    });
}

/// The same from the bytes of an IPv4 key: what a pick pays.
#[divan::bench(sample_size = 1_000)]
fn hash_and_hit_cached(bencher: Bencher<'_, '_>) {
    let (table, id) = table(16 * MIB);
    let bytes: Vec<[u8; 5]> = (0..64).map(|n| [1, 10, 0, 0, n]).collect();
    for bytes in &bytes {
        let place = EntryValue { id, kind: EntryKind::Displaced };
        let _ = table.settle(table.secret().key(bytes), place, now(), |_| BackendState::Usable);
    }
    let mut turn = 0;
    bencher.bench_local(|| {
        turn = (turn + 1) % bytes.len();
        black_box(table.find(table.secret().key(black_box(&bytes[turn])), now()))
    });
}

#[divan::bench(sample_size = 1_000)]
fn hash_only(bencher: Bencher<'_, '_>) {
    let secret = Secret::new([7; 16]);
    bencher.bench_local(|| black_box(secret.key(black_box(&[1, 10, 0, 0, 1]))));
}

/// Any of 700,000 keys: stick table, not cache.
#[divan::bench(types = [Ours, Locked, Sharded])]
fn hit_anywhere<S: Store>(bencher: Bencher<'_, '_>) {
    let (store, keys) = (S::with_room(), keys(700_000));
    keys.iter().for_each(|key| store.settle(*key));
    let mut turn = 0;
    bencher.bench_local(|| {
        turn = (turn + 7_919) % keys.len();
        black_box(store.find(keys[turn]))
    });
}

#[divan::bench(types = [Ours, Locked, Sharded], sample_size = 1_000)]
fn miss_cached<S: Store>(bencher: Bencher<'_, '_>) {
    let (store, keys) = (S::with_room(), keys(64));
    let mut turn = 0;
    bencher.bench_local(|| {
        turn = (turn + 1) % keys.len();
        black_box(store.find(black_box(keys[turn])))
    });
}

/// A known key comes again within the minute.
#[divan::bench(types = [Ours, Locked, Sharded], sample_size = 1_000)]
fn settle_known<S: Store>(bencher: Bencher<'_, '_>) {
    let (store, keys) = (S::with_room(), keys(64));
    let mut turn = 0;
    bencher.bench_local(|| {
        turn = (turn + 1) % keys.len();
        store.settle(black_box(keys[turn]));
    });
}

/// Thousands of new keys, into a table that fills up.
#[divan::bench(types = [Ours, Locked, Sharded], sample_count = 500, sample_size = 1)]
fn settle_1000_new<S: Store>(bencher: Bencher<'_, '_>) {
    let (store, keys) = (S::with_room(), keys(600_000));
    let mut next = keys.chunks(TURN).cycle();
    bencher.counter(ItemsCount::new(TURN)).bench_local(|| {
        next.next().into_iter().flatten().for_each(|key| store.settle(*key));
    });
}

/// Threads that find a thousand keys each, and settle one in ten, at 70 % fill.
#[divan::bench(types = [Ours, Locked, Sharded], threads = THREADS, sample_count = 200, sample_size = 4)]
fn crowd<S: Store>(bencher: Bencher<'_, '_>) {
    let (store, keys) = (S::with_room(), keys(SLOTS * 7 / 10));
    keys.iter().for_each(|key| store.settle(*key));
    turns(bencher, &store, &keys);
}

/// The same for ours at other fills.
#[divan::bench(args = FILLS, threads = THREADS, sample_count = 200, sample_size = 4)]
fn crowd_at_percent(bencher: Bencher<'_, '_>, percent: usize) {
    let (store, keys) = (Ours::with_room(), keys(SLOTS * percent / 100));
    keys.iter().for_each(|key| store.settle(*key));
    turns(bencher, &store, &keys);
}

fn turns<S: Store>(bencher: Bencher<'_, '_>, store: &S, keys: &[KeyHash]) {
    let start = AtomicUsize::new(0);
    bencher.counter(ItemsCount::new(TURN)).bench(|| {
        let mut at = start.fetch_add(104_729, Relaxed) % keys.len();
        for n in 0..TURN {
            at = (at + 7_919) % keys.len();
            if n % SETTLES == 0 {
                store.settle(keys[at]);
            } else {
                black_box(store.find(keys[at]));
            }
        }
    });
}

/// Every pick tells which key came.
#[divan::bench(sample_size = 1_000)]
fn observe_for_the_hottest(bencher: Bencher<'_, '_>) {
    let (table, _) = table(MIB);
    let keys = keys(10_000);
    let mut turn = 0;
    bencher.bench_local(|| {
        turn = (turn + 1) % keys.len();
        table.hottest().observe(keys[turn], now(), || Label::of(b"10.0.0.1"));
    });
}
