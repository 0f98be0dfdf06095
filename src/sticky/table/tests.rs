//! The stick table as its callers see it: alone, against a plain map, and with eight threads at once.

mod model;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use proptest::prelude::*;

use super::*;

const HOURS: u64 = 3_600;
const TERMS: Terms =
    Terms { remember: Duration::from_secs(3 * HOURS), remember_values: Duration::from_secs(24 * HOURS), digest: 1 };

fn table(bytes: u64) -> StickTable {
    StickTable::new(bytes, Secret::new([7; 16]), TERMS).expect("a table")
}

fn at(minute: u64) -> Minute {
    Minute::of_ms(minute * 60_000)
}

fn ids(table: &StickTable) -> Vec<BackendId> {
    let id_map = IdMap::new(table.ids(), ["a", "b", "c"]);
    (0..3).filter_map(|index| id_map.id(index)).collect()
}

fn displaced(id: BackendId) -> EntryValue {
    EntryValue { id, kind: EntryKind::Displaced }
}

fn learned(id: BackendId) -> EntryValue {
    EntryValue { id, kind: EntryKind::Learned }
}

fn brought(id: BackendId) -> EntryValue {
    EntryValue { id, kind: EntryKind::Brought }
}

fn usable(_: BackendId) -> BackendState {
    BackendState::Usable
}

/// Sweeps the whole table once.
fn sweep(table: &StickTable, minute: u64) -> usize {
    table.sweep([], at(minute), usize::MAX)
}

#[test]
fn a_key_is_remembered_after_its_last_connection_and_no_longer() {
    let table = table(1 << 16);
    let (key, a) = (table.secret().key(b"k"), ids(&table)[0]);
    assert_eq!(table.find(key, at(0)), None);
    assert_eq!(table.settle(key, displaced(a), at(10), usable), Stored::Added);
    assert_eq!(table.refresh(key, displaced(a), at(100), usable), Stored::Known);
    let known = Known { id: a, kind: EntryKind::Displaced, age_min: 180 };
    assert_eq!(table.find(key, at(280)), Some(known));
    assert_eq!(table.find(key, at(281)), None, "seen in minute 100, so at least three hours ago");
    assert_eq!(table.settle(key, displaced(a), at(281), usable), Stored::Added, "as if it were new");
    let longer = table.under(Terms { remember: Duration::from_secs(6 * HOURS), ..TERMS });
    assert!(longer.find(key, at(641)).is_some() && table.find(key, at(641)).is_none());
}

#[test]
fn values_are_remembered_as_long_as_their_cookie_and_keys_as_long_as_the_pool_says() {
    let table = table(1 << 16);
    let short = Duration::from_secs(HOURS);
    let (shorter, a) = (table.under(Terms { remember_values: short, ..TERMS }), ids(&table)[0]);
    for (n, place) in [displaced(a), brought(a), learned(a)].into_iter().enumerate() {
        let key = KeyHash(n as u64 + 1);
        assert_eq!(table.settle(key, place, at(0), usable), Stored::Added);
        let known = |table: &StickTable, minute| table.find(key, at(minute)).is_some();
        let (most, short) = if place.kind.is_value() { (24 * 60, 60) } else { (180, 180) };
        assert!(known(&table, most) && !known(&table, most + 1), "{place:?}");
        assert!(known(&shorter, short) && !known(&shorter, short + 1), "{place:?}");
        assert_eq!(table.refresh(key, displaced(a), at(180), usable), Stored::Known);
        assert_eq!(table.find(key, at(181)).map(|known| known.kind), Some(place.kind), "what it was it is");
    }
}

#[test]
fn two_seconds_are_remembered_at_least_two_seconds() {
    let table = table(1 << 16).under(Terms { remember: Duration::from_secs(2), ..TERMS });
    let (key, a) = (table.secret().key(b"k"), ids(&table)[0]);
    assert_eq!(table.settle(key, displaced(a), Minute::of_ms(59_999), usable), Stored::Added);
    assert!(table.find(key, Minute::of_ms(61_999)).is_some());
    assert!(table.find(key, Minute::of_ms(180_000)).is_none());
}

#[test]
fn settling_elsewhere_moves_a_key_and_refreshing_does_not() {
    let table = table(1 << 16);
    let (key, ids) = (table.secret().key(b"k"), ids(&table));
    let (a, b) = (displaced(ids[0]), displaced(ids[1]));
    assert_eq!(table.settle(key, a, at(1), usable), Stored::Added);
    assert_eq!(table.settle(key, b, at(2), usable), Stored::Moved);
    assert_eq!(table.refresh(key, a, at(5), usable), Stored::Known, "an old connection of it ends");
    assert_eq!(table.find(key, at(5)), Some(Known { id: b.id, kind: EntryKind::Displaced, age_min: 0 }));
    let gone = |id| if id == b.id { BackendState::Gone } else { BackendState::Usable };
    assert_eq!(table.refresh(key, a, at(6), gone), Stored::Added, "b has left, a still serves it");
    assert_eq!(table.find(key, at(6)).map(|known| known.id), Some(a.id));
    assert!(table.forget(key) && !table.forget(key));
    assert_eq!(table.refresh(key, a, at(7), usable), Stored::Added, "what was lost is made again");
}

#[test]
fn a_clock_that_is_read_out_of_order_makes_nothing_older() {
    let table = table(1 << 16);
    let (key, a) = (table.secret().key(b"k"), ids(&table)[0]);
    let _ = table.settle(key, displaced(a), at(500), usable);
    let _ = table.settle(key, displaced(a), at(499), usable);
    assert_eq!(table.find(key, at(500)).map(|known| known.age_min), Some(0));
    assert_eq!(table.find(key, at(3)).map(|known| known.age_min), Some(0));
}

#[test]
fn another_placement_makes_what_was_placed_worth_keeping() {
    let table = table(1 << 16);
    let (key, id) = (table.secret().key(b"k"), ids(&table)[0]);
    let placed = EntryValue { id, kind: EntryKind::Placed };
    let _ = table.settle(key, placed, at(1), usable);
    let grown = table.under(Terms { digest: 2, ..TERMS });
    let kind = |table: &StickTable| table.find(key, at(1)).map(|known| known.kind);
    assert_eq!((kind(&table), kind(&grown)), (Some(EntryKind::Placed), Some(EntryKind::Outgrown)));
    assert_eq!(grown.settle(key, placed, at(1), usable), Stored::Known);
    assert_eq!((kind(&table), kind(&grown)), (Some(EntryKind::Outgrown), Some(EntryKind::Placed)));
}

#[test]
fn what_was_learned_stays_learned_when_its_client_is_placed_elsewhere() {
    let table = table(1 << 16);
    let (key, ids) = (table.secret().cookie(b"v"), ids(&table));
    let _ = table.settle(key, EntryValue { id: ids[0], kind: EntryKind::Learned }, at(1), usable);
    assert_eq!(table.settle(key, displaced(ids[1]), at(1), usable), Stored::Moved);
    let known = table.find(key, at(1)).map(|known| (known.id, known.kind));
    assert_eq!(known, Some((ids[1], EntryKind::Learned)));
    assert!(table.find(table.secret().key(b"v"), at(1)).is_none(), "a key of the same bytes is another one");
}

#[test]
fn a_value_that_was_brought_is_learned_when_a_backend_sets_it() {
    let table = table(1 << 16);
    let (key, a) = (table.secret().cookie(b"v"), ids(&table)[0]);
    let kind = || table.find(key, at(600)).map(|known| known.kind);
    for (place, expected) in
        [(brought(a), EntryKind::Brought), (learned(a), EntryKind::Learned), (brought(a), EntryKind::Learned)]
    {
        let _ = table.settle(key, place, at(0), usable);
        assert_eq!(kind(), Some(expected), "{place:?}");
    }
}

#[test]
fn a_full_table_tells_what_it_loses_and_keeps_the_worthier() {
    let table = table(128);
    let a = ids(&table)[0];
    let settle = |n: u64, kind| table.settle(KeyHash(n), EntryValue { id: a, kind }, at(n), usable);
    assert!((1..=8).all(|n| settle(n, EntryKind::Displaced) == Stored::Added));
    assert_eq!(settle(9, EntryKind::Placed), Stored::Refused);
    assert_eq!(settle(9, EntryKind::Displaced), Stored::Evicted(EntryKind::Displaced));
    assert_eq!(table.find(KeyHash(1), at(9)), None, "the oldest");
    assert!((2..=9).all(|n| settle(n + 10, EntryKind::Learned) == Stored::Evicted(EntryKind::Displaced)));
    assert_eq!(settle(30, EntryKind::Displaced), Stored::Refused);
    assert_eq!(settle(30, EntryKind::Learned), Stored::Evicted(EntryKind::Learned));
}

#[test]
fn a_value_that_outlives_keys_does_not_go_as_if_it_were_over() {
    let full_of = |place: fn(BackendId) -> EntryValue| {
        let table = table(128);
        let a = ids(&table)[0];
        assert!((1..=8).all(|n| table.settle(KeyHash(n), place(a), at(n), usable) == Stored::Added));
        (table, a)
    };
    let (table, a) = full_of(learned);
    assert_eq!(table.settle(KeyHash(9), displaced(a), at(240), usable), Stored::Refused);
    assert_eq!(table.settle(KeyHash(9), brought(a), at(240), usable), Stored::Refused);
    assert_eq!(table.settle(KeyHash(9), learned(a), at(240), usable), Stored::Evicted(EntryKind::Learned), "and told");
    let (table, a) = full_of(brought);
    assert_eq!(
        table.settle(KeyHash(9), displaced(a), at(240), usable),
        Stored::Evicted(EntryKind::Brought),
        "and told"
    );
    assert!(table.find(KeyHash(2), at(240)).is_some());
    let (table, a) = full_of(displaced);
    assert_eq!(table.settle(KeyHash(9), displaced(a), at(240), usable), Stored::Added, "a key is over");
    // Once the cookie's time is over, values are worth no more than that.
    let (table, a) = full_of(learned);
    assert_eq!(table.settle(KeyHash(9), displaced(a), at(24 * 60 + 9), usable), Stored::Added);
}

#[test]
fn a_memory_is_as_large_as_asked_or_is_not_there() {
    let of = |bytes| StickTable::new(bytes, Secret::new([0; 16]), TERMS).map(|table| table.bytes());
    assert_eq!([0, 127, 128, 100_000, u64::MAX].map(of), [None, None, Some(128), Some(99_968), None]);
}

#[test]
fn at_two_thirds_few_are_lost_early() {
    let table = table(1 << 20);
    let a = ids(&table)[0];
    let keys = (1_u64 << 16) * 2 / 3;
    let lost = (0..keys)
        .filter(|n| {
            let key = table.secret().key(&n.to_be_bytes());
            table.settle(key, displaced(a), at(0), usable) != Stored::Added
        })
        .count() as u64;
    assert!(lost * 1_000 < keys * 5, "{lost} of {keys}");
}

#[test]
fn another_size_takes_over_what_is_known_and_knows_better() {
    let old = table(1 << 16);
    let ids = ids(&old);
    let key = |n: u64| old.secret().key(&n.to_be_bytes());
    for n in 0..500 {
        let _ = old.settle(key(n), displaced(ids[0]), at(n), usable);
    }
    let new = old.resized(1 << 17).expect("a table");
    assert!(!new.is_same(&old) && new.is_same(&new.under(TERMS)));
    let _ = new.settle(key(499), displaced(ids[1]), at(500), usable);
    assert_eq!(new.absorb(&old, at(500), Some), 180, "those of the last three hours");
    assert_eq!(new.find(key(499), at(500)).map(|known| known.id), Some(ids[1]));
    assert_eq!(new.find(key(400), at(500)).map(|known| known.age_min), Some(100));
    assert_eq!(new.find(key(319), at(500)), None);
    let _ = old.settle(key(400), displaced(ids[2]), at(502), usable);
    new.absorb(&old, at(502), Some);
    assert_eq!(new.find(key(400), at(502)).map(|known| known.id), Some(ids[2]));
}

#[test]
fn another_size_takes_over_values_as_long_as_their_cookie_is_remembered() {
    let old = table(1 << 16);
    let a = ids(&old)[0];
    let key = |n: u64| old.secret().key(&n.to_be_bytes());
    for n in 0..600 {
        let place = [displaced, brought, learned][n as usize % 3](a);
        let _ = old.settle(key(n), place, at(n), usable);
    }
    let new = old.resized(1 << 17).expect("a table");
    assert_eq!(new.absorb(&old, at(1_000), Some), 400, "no key is as young");
    assert_eq!(new.find(key(1), at(1_000)), Some(Known { id: a, kind: EntryKind::Brought, age_min: 999 }));
    assert_eq!(new.find(key(2), at(1_000)), Some(Known { id: a, kind: EntryKind::Learned, age_min: 998 }));
    let short = old.resized(1 << 17).expect("a table").under(Terms { remember_values: TERMS.remember, ..TERMS });
    assert_eq!(short.absorb(&old, at(1_000), Some), 0);
}

#[test]
fn a_census_counts_values_as_long_as_their_cookie_is_remembered() {
    let table = table(1 << 16);
    let a = ids(&table)[0];
    for (n, place) in [displaced(a), brought(a), learned(a)].into_iter().enumerate() {
        let _ = table.settle(KeyHash(n as u64 + 1), place, at(0), usable);
    }
    let counts = |minute| {
        sweep(&table, minute);
        let stats = table.stats(at(minute));
        (stats.known, stats.displaced, stats.learned, table.known_at(a))
    };
    assert_eq!([180, 240, 24 * 60, 24 * 60 + 1].map(counts), [(3, 1, 2, 3), (2, 0, 2, 2), (2, 0, 2, 2), (0, 0, 0, 0)]);
}

#[test]
fn a_census_counts_who_lives_where_and_since_when() {
    let table = table(1 << 16);
    let ids = ids(&table);
    for n in 0..1_000_u64 {
        let (id, kind) = if n < 300 { (ids[0], EntryKind::Placed) } else { (ids[1], EntryKind::Displaced) };
        let _ = table.settle(table.secret().key(&n.to_be_bytes()), EntryValue { id, kind }, at(n), usable);
    }
    let by_age = [1, 4, 10, 15, 30, 60, 60, 0, 0, 0, 0];
    let stats = table.stats(at(1_000));
    assert_eq!((stats.known, stats.by_age), (180, by_age), "live ones only, whatever lies in the table");
    assert_eq!(stats.placed + stats.displaced, table.entries(at(1_000)).count() as u64, "all that lie in the table");
    assert!(stats.displaced > 180);
    sweep(&table, 1_000);
    let stats = table.stats(at(1_000));
    assert_eq!((stats.known, stats.placed, stats.displaced, stats.learned), (180, 0, 180, 0));
    assert_eq!((table.known_at(ids[0]), table.known_at(ids[1])), (0, 180));
    assert_eq!(stats.by_age, by_age);
}

#[derive(Debug, Clone, Copy)]
enum TableStep {
    Settle(u8, usize, EntryKind),
    Refresh(u8, usize),
    Forget(u8),
    Find(u8),
    Pass(u32),
}

fn step() -> impl Strategy<Value = TableStep> {
    let kind = prop_oneof![
        Just(EntryKind::Placed),
        Just(EntryKind::Displaced),
        Just(EntryKind::Brought),
        Just(EntryKind::Learned)
    ];
    prop_oneof![
        (0..40_u8, 0..3_usize, kind).prop_map(|(key, id, kind)| TableStep::Settle(key, id, kind)),
        (0..40_u8, 0..3_usize).prop_map(|(key, id)| TableStep::Refresh(key, id)),
        (0..40_u8).prop_map(TableStep::Forget),
        (0..40_u8).prop_map(TableStep::Find),
        (0..90_u32).prop_map(TableStep::Pass),
        (0..1_000_u32).prop_map(TableStep::Pass),
    ]
}

proptest! {
    /// As long as nothing has to go.
    #[test]
    fn it_answers_as_a_plain_map_would(steps in prop::collection::vec(step(), 1..300), start: u32) {
        let table = table(1 << 16);
        let ids = ids(&table);
        let key = |n: u8| table.secret().key(&[n]);
        let mut plain = HashMap::<u8, (BackendId, EntryKind, u64)>::new();
        let lives = |(_, kind, seen): &(BackendId, EntryKind, u64), now: u64| {
            now - *seen <= if kind.is_value() { 24 * 60 } else { 180 }
        };
        // Anywhere on the clock, its wrap included.
        let mut now = u64::from(start);
        table.census().roll(at(now));
        for step in steps {
            plain.retain(|_, entry| lives(entry, now));
            match step {
                TableStep::Settle(n, id, kind) => {
                    let stored = table.settle(key(n), EntryValue { id: ids[id], kind }, at(now), usable);
                    let before = plain.get(&n).copied();
                    let learned = before.is_some_and(|(_, before, _)| before == EntryKind::Learned);
                    let kept = if learned { EntryKind::Learned } else { kind };
                    plain.insert(n, (ids[id], kept, now));
                    let expected = match before {
                        None => Stored::Added,
                        Some((before, ..)) if before == ids[id] => Stored::Known,
                        Some(_) => Stored::Moved,
                    };
                    prop_assert_eq!(stored, expected);
                }
                TableStep::Refresh(n, id) => {
                    let stored = table.refresh(key(n), displaced(ids[id]), at(now), usable);
                    prop_assert_eq!(stored, if plain.contains_key(&n) { Stored::Known } else { Stored::Added });
                    plain.entry(n).or_insert((ids[id], EntryKind::Displaced, now)).2 = now;
                }
                TableStep::Forget(n) => {
                    let forgotten = table.forget(key(n));
                    prop_assert!(forgotten || plain.remove(&n).is_none(), "known, but not forgotten");
                    plain.remove(&n);
                }
                TableStep::Find(n) => {
                    let known = plain.get(&n).map(|(id, kind, seen)| {
                        Known { id: *id, kind: *kind, age_min: (now - seen) as u32 }
                    });
                    prop_assert_eq!(table.find(key(n), at(now)), known);
                }
                TableStep::Pass(minutes) => {
                    // The sweep comes every minute, but it may be late.
                    for _ in 0..minutes.div_ceil(300) {
                        now += u64::from(minutes / minutes.div_ceil(300));
                        table.sweep([], at(now), usize::MAX);
                    }
                }
            }
            plain.retain(|_, entry| lives(entry, now));
            let stats = table.stats(at(now));
            prop_assert_eq!(stats.known, plain.len() as u64);
            prop_assert_eq!(stats.by_age.iter().sum::<u64>(), stats.known);
        }
        sweep(&table, now + 1);
        plain.retain(|_, entry| lives(entry, now + 1));
        let stats = table.stats(at(now + 1));
        let of_kind = |kinds: &[EntryKind]| plain.values().filter(|(_, kind, _)| kinds.contains(kind)).count() as u64;
        prop_assert_eq!(stats.placed, of_kind(&[EntryKind::Placed]));
        prop_assert_eq!(stats.displaced, of_kind(&[EntryKind::Displaced]));
        prop_assert_eq!(stats.learned, of_kind(&[EntryKind::Brought, EntryKind::Learned]));
        for id in ids {
            prop_assert_eq!(table.known_at(id), plain.values().filter(|entry| entry.0 == id).count() as u64);
        }
    }
}

/// A small table with more keys than places, used by all threads at once. A key may only be found with one of the two
/// backends that it is settled with, and a key that is never settled must not be found.
#[test]
fn a_crowd_finds_nothing_that_nobody_said() {
    let table = table(1 << 14);
    let ids: Vec<BackendId> = {
        let names: Vec<_> = (0..100).map(|n| n.to_string()).collect();
        let id_map = IdMap::new(table.ids(), names.iter().map(String::as_str));
        (0..100).filter_map(|index| id_map.id(index)).collect()
    };
    let key = |n: u64| table.secret().key(&n.to_be_bytes());
    let (minute, found, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let (table, ids, minute, found, stop) = (&table, &ids, &minute, &found, &stop);
            scope.spawn(move || {
                let mut random = thread + 1;
                for _ in 0..60_000 {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let (n, action) = ((random >> 33) % 3_000, (random >> 60) % 8);
                    let now = at(minute.fetch_add(u64::from(random >> 40 == 0), Relaxed));
                    let place = |half: u64| displaced(ids[(n % 50 * 2 + half) as usize]);
                    match action {
                        0..=2 if n < 2_500 => drop(table.settle(key(n), place(random >> 59 & 1), now, usable)),
                        3 if n < 2_500 => drop(table.refresh(key(n), place(0), now, usable)),
                        4 if n % 16 == 0 => drop(table.forget(key(n))),
                        _ => {
                            if let Some(known) = table.find(key(n), now) {
                                assert!(n < 2_500, "nobody settled {n}");
                                assert!((0..2).any(|half| place(half).id == known.id), "{n} with {known:?}");
                                found.fetch_add(1, Relaxed);
                            }
                        }
                    }
                }
                stop.store(true, Relaxed);
            });
        }
        scope.spawn(|| {
            let settled: std::collections::HashMap<_, _> = (0..2_500).map(|n| (key(n), n)).collect();
            while !stop.load(Relaxed) {
                table.sweep([], at(minute.load(Relaxed)), 3);
                for entry in table.entries(at(0)) {
                    let n = settled.get(&entry.key).copied();
                    let allowed = n.is_some_and(|n| ids[(n % 50 * 2) as usize..][..2].contains(&entry.known.id));
                    assert!(allowed, "{entry:?} of {n:?}");
                }
            }
        });
    });
    assert!(found.into_inner() > 10_000);
    let mut keys: Vec<_> = table.entries(at(0)).map(|entry| entry.key).collect();
    let count = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), count, "no key stands twice");
    let stats = table.stats(at(minute.into_inner()));
    assert_eq!(stats.known, count as u64, "every change was counted once");
    assert_eq!((stats.placed, stats.displaced, stats.learned), (0, count as u64, 0));
    for id in ids {
        assert_eq!(table.known_at(id), table.entries(at(0)).filter(|entry| entry.known.id == id).count() as u64);
    }
}

#[test]
fn a_table_without_a_key_takes_nothing_and_asks_nothing_of_the_system() {
    let table = table(1 << 22);
    assert_eq!(table.bytes(), 1 << 22);
    let key = table.secret().key(b"k");
    assert_eq!((table.find(key, at(0)), table.forget(key), table.entries(at(0)).count()), (None, false, 0));
    assert_eq!((table.stats(at(0)), sweep(&table, 5)), (stats::Stats::default(), 0));
    assert!(table.mapped().is_none());
    let small = self::table(1 << 16);
    assert_eq!(small.absorb(&table, at(0), Some), 0);
    assert!(small.mapped().is_none(), "nothing came from the other one");
    let _ = small.settle(key, displaced(ids(&small)[0]), at(0), usable);
    assert!(small.mapped().is_some());
}

#[test]
fn threads_that_store_the_first_entries_at_once_store_them_in_one_table() {
    for _ in 0..50 {
        let (table, start) = (table(1 << 22), std::sync::Barrier::new(8));
        let a = ids(&table)[0];
        std::thread::scope(|scope| {
            for n in 0..8 {
                let (table, start) = (&table, &start);
                scope.spawn(move || {
                    start.wait();
                    assert_eq!(table.settle(table.secret().key(&[n]), displaced(a), at(0), usable), Stored::Added);
                });
            }
        });
        assert!((0..8).all(|n| table.find(table.secret().key(&[n]), at(0)).is_some()));
        assert_eq!((table.stats(at(0)).known, table.known_at(a)), (8, 8));
    }
}

#[test]
fn a_reader_of_all_entries_reads_only_pages_that_had_one() {
    let table = table(1 << 28);
    let a = ids(&table)[0];
    for n in 0..100_u64 {
        let _ = table.settle(table.secret().key(&n.to_be_bytes()), displaced(a), at(0), usable);
    }
    let pages = table.mapped().unwrap().used_pages(0).count();
    assert!((90..=100).contains(&pages), "{pages} of 65,536");
    assert_eq!(table.entries(at(0)).count(), 100);
    assert_eq!(sweep(&table, 180), 0, "nothing is over: no page is read");
    assert_eq!(sweep(&table, 181), pages);
    assert_eq!((table.entries(at(0)).count(), table.known_at(a)), (0, 0));
    assert_eq!(sweep(&table, 182), 0, "and nothing is left");
}

#[test]
fn a_sweep_goes_on_where_it_stopped_and_begins_once_a_minute() {
    let table = table(1 << 22);
    let a = ids(&table)[0];
    for n in 0..3_000_u64 {
        let _ = table.settle(table.secret().key(&n.to_be_bytes()), displaced(a), at(n / 1_000), usable);
    }
    let pages = table.mapped().unwrap().used_pages(0).count();
    let mut read = 0;
    while table.stats(at(181)).displaced > 2_000 {
        let step = table.sweep([], at(181), 100);
        assert!((1..=100).contains(&step));
        read += step;
    }
    while let step @ 1.. = table.sweep([], at(181), 100) {
        read += step;
    }
    assert_eq!((read, table.known_at(a)), (pages, 2_000));
    assert_eq!(table.sweep([], at(182), usize::MAX), pages);
    assert_eq!(table.known_at(a), 1_000);
}

#[test]
fn a_sweep_leaves_what_another_pool_of_the_group_knows() {
    let table = table(1 << 16);
    let longer = table.under(Terms { remember_values: Duration::from_secs(48 * HOURS), ..TERMS });
    let a = ids(&table)[0];
    for (n, place) in [displaced(a), learned(a)].into_iter().enumerate() {
        let _ = table.settle(KeyHash(n as u64 + 1), place, at(0), usable);
    }
    for minute in (0..=48 * 60).step_by(60) {
        table.sweep([&longer], at(minute), usize::MAX);
    }
    assert_eq!(table.known_at(a), 1, "a value of which one pool says a day, the other two");
    assert_eq!((table.stats(at(48 * 60)).known, longer.stats(at(48 * 60)).known), (0, 1));
    table.sweep([&longer], at(48 * 60 + 1), usize::MAX);
    assert_eq!((table.known_at(a), longer.stats(at(48 * 60 + 1)).known), (0, 0));
}
