//! Stick-table files of all ages, whole, torn, foreign and damaged.

use std::time::Duration;

use super::*;
use crate::sticky::table::{BackendState, EntryKind, EntryValue, IdMap, KeyHash, Minute, Secret, StickTable, Terms};

const WRITTEN_S: u64 = 1_790_000_000;
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const YEAR: u64 = 365 * 24 * HOUR;
const SEED: u64 = 42;
const NAMES: [&str; 3] = ["a", "b", "c"];
const KEYS: u64 = 180;

fn terms() -> Terms {
    let remember = Duration::from_secs(3 * HOUR);
    Terms { remember, remember_values: remember, digest: 1 }
}

fn at(minute: u64) -> Minute {
    Minute::of_ms(minute * 60_000)
}

fn key(n: u64) -> KeyHash {
    Secret::new([7; 16]).key(&n.to_be_bytes())
}

/// Key `n` was seen `n` minutes ago, at backend `n % 3`.
fn table() -> StickTable {
    let table = StickTable::new(1 << 16, Secret::new([7; 16]), terms()).expect("a table");
    let id_map = IdMap::new(table.ids(), NAMES);
    for n in 0..KEYS {
        let kind = [EntryKind::Placed, EntryKind::Displaced, EntryKind::Learned][n as usize / 2 % 3];
        let place = EntryValue { id: id_map.id(n as usize % 3).expect("a seat"), kind };
        let _ = table.settle(key(n), place, at(1_000 - n), |_| BackendState::Usable);
    }
    table
}

fn written(table: &StickTable, backends: &[&str]) -> Vec<u8> {
    written_at(at(1_000), table, backends)
}

fn written_at(now: Minute, table: &StickTable, backends: &[&str]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), table.secret(), WRITTEN_S).expect("memory takes everything");
    writer.section("shop", SEED, backends.iter().copied(), table, now).expect("memory takes everything");
    writer.finish().expect("memory takes everything")
}

/// Loads a file into a process that has just started.
fn load_at(bytes: &[u8], now_s: u64, backends: &[&'static str]) -> (StickTable, LoadedSection) {
    let header = check(bytes).expect("a good file");
    let table = StickTable::new(1 << 15, header.secret, terms()).expect("a table");
    let target = |name: &str| {
        assert_eq!(name, "shop");
        Some(SectionTarget { table: &table, hash_seed: SEED, backends: backends.to_vec() })
    };
    let mut loaded = load(bytes, now_s, Minute::START, target).expect("a good file");
    assert_eq!(loaded.len(), 1);
    (table.clone(), loaded.remove(0))
}

fn counts(loaded: &LoadedSection) -> [u64; 4] {
    [loaded.kept, loaded.over, loaded.removed, loaded.crowded]
}

#[test]
fn a_minute_later_everything_is_known_as_it_was() {
    let (table, loaded) = load_at(&written(&table(), &NAMES), WRITTEN_S + MINUTE, &["new", "c", "b", "a"]);
    assert_eq!(counts(&loaded), [KEYS, 0, 0, 0]);
    let id_map = IdMap::new(table.ids(), NAMES);
    for n in 0..KEYS {
        let known = table.find(key(n), Minute::START).expect("known");
        assert_eq!((id_map.index(known.id), known.age_min), (Some(n as usize % 3), n as u32 + 1));
        assert_eq!(known.kind, [EntryKind::Placed, EntryKind::Displaced, EntryKind::Learned][n as usize / 2 % 3]);
    }
    assert_eq!(table.find(key(0), at(180)).map(|known| known.age_min), None, "and goes on growing old");
}

#[test]
fn what_is_older_than_remembered_is_dropped() {
    let file = written(&table(), &NAMES);
    let kept = |now_s| counts(&load_at(&file, now_s, &NAMES).1);
    assert_eq!(kept(WRITTEN_S + HOUR), [121, 59, 0, 0]);
    assert_eq!(kept(WRITTEN_S + 4 * HOUR), [0, KEYS, 0, 0]);
    assert_eq!(kept(WRITTEN_S + YEAR), [0, KEYS, 0, 0]);
    assert_eq!(kept(u64::MAX), [0, KEYS, 0, 0]);
}

#[test]
fn values_are_written_and_read_as_long_as_their_cookie_is_remembered() {
    let terms = Terms { remember_values: Duration::from_secs(24 * HOUR), ..terms() };
    let origins = [EntryKind::Displaced, EntryKind::Brought, EntryKind::Learned];
    let old = StickTable::new(1 << 15, Secret::new([7; 16]), terms).expect("a table");
    let id = IdMap::new(old.ids(), NAMES).id(0).expect("a seat");
    for (n, kind) in origins.into_iter().enumerate() {
        let _ = old.settle(key(n as u64), EntryValue { id, kind }, at(1_000 - 240), |_| BackendState::Usable);
    }
    let read = |file: &[u8], now_s, terms| {
        let table = StickTable::new(1 << 15, Secret::new([7; 16]), terms).expect("a table");
        let target = |_: &str| Some(SectionTarget { table: &table, hash_seed: SEED, backends: NAMES.to_vec() });
        let loaded = load(file, now_s, Minute::START, target).expect("a good file").remove(0);
        let known = [0, 1, 2].map(|n| table.find(key(n), Minute::START).map(|known| (known.kind, known.age_min)));
        (counts(&loaded), known)
    };
    let file = written(&old, &NAMES);
    let [_, brought, learned] = origins.map(|kind| Some((kind, 300)));
    assert_eq!(read(&file, WRITTEN_S + HOUR, terms), ([2, 0, 0, 0], [None, brought, learned]), "the key was over");
    assert_eq!(read(&file, WRITTEN_S + 21 * HOUR, terms), ([0, 2, 0, 0], [None; 3]));
    assert_eq!(read(&file, WRITTEN_S, self::terms()), ([0, 2, 0, 0], [None; 3]), "by the terms of who reads");
}

#[test]
fn a_clock_that_went_back_makes_nothing_older_and_nothing_live_for_ever() {
    for now_s in [WRITTEN_S - 1, WRITTEN_S - 20 * YEAR, 0] {
        let (table, loaded) = load_at(&written(&table(), &NAMES), now_s, &NAMES);
        assert_eq!(counts(&loaded), [KEYS, 0, 0, 0]);
        assert_eq!(table.find(key(60), Minute::START).map(|known| known.age_min), Some(60));
        assert!(table.find(key(60), at(120)).is_some() && table.find(key(60), at(121)).is_none());
    }
}

#[test]
fn backends_that_left_take_their_entries_along() {
    let file = written(&table(), &NAMES);
    let (table, loaded) = load_at(&file, WRITTEN_S, &["c", "successor"]);
    assert_eq!(counts(&loaded), [60, 0, 120, 0]);
    let id_map = IdMap::new(table.ids(), ["c", "successor", "another"]);
    let home = |n| table.find(key(n), Minute::START).map(|known| id_map.index(known.id));
    assert_eq!((home(0), home(1), home(2)), (Some(None), Some(None), Some(Some(0))), "no backend, and c");
    // What is known only as gone stays known as gone, over any number of restarts.
    let (table, loaded) = load_at(&written(&self::table(), &["a"]), WRITTEN_S, &NAMES);
    assert_eq!(counts(&loaded), [60, 0, 120, 0]);
    let (_, loaded) = load_at(&written_at(Minute::START, &table, &NAMES), WRITTEN_S, &NAMES);
    assert_eq!(counts(&loaded), [60, 0, 120, 0]);
}

#[test]
fn entries_of_backends_that_left_take_no_room_from_others() {
    let file = written(&table(), &NAMES);
    for present in ["a", "b", "c"] {
        let small = StickTable::new(1_024, Secret::new([7; 16]), terms()).expect("a table");
        let target = |_: &str| Some(SectionTarget { table: &small, hash_seed: SEED, backends: vec![present] });
        load(&file[..], WRITTEN_S, Minute::START, target).expect("a good file");
        let id_map = IdMap::new(small.ids(), [present]);
        let entries = small.entries(Minute::START);
        let kept = entries.filter(|entry| id_map.index(entry.known.id).is_some()).count();
        assert!(kept > 48, "{kept} of 60 have one of 64 places, and 120 others came too");
    }
}

#[test]
fn what_does_not_fit_is_counted() {
    let file = written(&table(), &NAMES);
    let small = StickTable::new(128, Secret::new([7; 16]), terms()).expect("a table");
    let target = |_: &str| Some(SectionTarget { table: &small, hash_seed: SEED, backends: NAMES.to_vec() });
    let loaded = &load(&file[..], WRITTEN_S, Minute::START, target).expect("a good file")[0];
    assert_eq!(loaded.kept + loaded.crowded, KEYS);
    assert!(loaded.crowded > 0);
}

#[test]
fn every_section_finds_its_own_memory_or_is_refused_with_its_reason() {
    let (shop, forum) = (table(), table());
    let mut writer = Writer::new(Vec::new(), shop.secret(), WRITTEN_S).unwrap();
    assert_eq!(writer.section("shop", SEED, NAMES, &shop, at(1_000)).unwrap(), KEYS);
    writer.section("forum", SEED, NAMES, &forum, at(1_000)).unwrap();
    writer.section("gone", SEED, NAMES, &forum, at(1_000)).unwrap();
    writer.section("strange", SEED, [], &forum, at(1_000)).unwrap();
    let file = writer.finish().unwrap();
    let new = |secret| StickTable::new(1 << 15, Secret::new(secret), terms()).unwrap();
    let (shop, forum, strange) = (new([7; 16]), new([7; 16]), new([8; 16]));
    let target = |name: &str| match name {
        "shop" => Some(SectionTarget { table: &shop, hash_seed: SEED, backends: NAMES.to_vec() }),
        "forum" => Some(SectionTarget { table: &forum, hash_seed: 43, backends: NAMES.to_vec() }),
        "strange" => Some(SectionTarget { table: &strange, hash_seed: SEED, backends: NAMES.to_vec() }),
        _ => None,
    };
    let loaded = load(&file[..], WRITTEN_S, Minute::START, target).expect("a good file");
    assert!(loaded[0].refused.is_none() && loaded[0].kept == KEYS);
    assert!(matches!(loaded[1].refused, Some(FileRefused::OtherSeed)));
    assert!(matches!(loaded[2].refused, Some(FileRefused::Unknown)));
    assert!(matches!(loaded[3].refused, Some(FileRefused::OtherSecret)));
    assert_eq!(forum.entries(Minute::START).count(), 0);
}

#[test]
fn a_file_cut_anywhere_is_torn() {
    let file = written(&table(), &NAMES);
    for length in 0..file.len() {
        assert!(matches!(check(&file[..length]), Err(FileRefused::Torn)), "cut at {length}");
    }
}

#[test]
fn a_flipped_bit_anywhere_is_seen() {
    let mut file = written(&table(), &NAMES);
    for byte in 0..file.len() {
        for bit in 0..8 {
            file[byte] ^= 1 << bit;
            let refused = check(&file[..]).expect_err("damaged");
            match byte {
                0..8 => assert!(matches!(refused, FileRefused::Foreign), "{refused} at {byte}"),
                // A length may now reach behind the end.
                _ => assert!(matches!(refused, FileRefused::Damaged | FileRefused::Torn), "{refused} at {byte}"),
            }
            file[byte] ^= 1 << bit;
        }
    }
    assert!(check(&file[..]).is_ok());
}

/// A file with good sums around any header and any frames.
fn forged(version: u32, frames: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut file = MAGIC.to_vec();
    file.extend_from_slice(&version.to_le_bytes());
    file.extend_from_slice(&[0; 28]);
    let sum = xxh3_64(&file);
    file.extend_from_slice(&sum.to_le_bytes());
    for (number, (kind, body)) in frames.iter().enumerate() {
        let frame = [&kind.to_le_bytes()[..], &(body.len() as u32).to_le_bytes(), body].concat();
        file.extend_from_slice(&frame);
        file.extend_from_slice(&frame_sum(&frame, sum, number as u64).to_le_bytes());
    }
    file
}

#[test]
fn foreign_and_absurd_files_are_refused() {
    let section =
        |name: &[u8], rest: &[u8]| (SECTION, [&[0; 8][..], &(name.len() as u16).to_le_bytes(), name, rest].concat());
    let end = |entries: u64| (END, entries.to_le_bytes().to_vec());
    let shop = section(b"shop", &[1; 8]);
    let record = |backend: u8| (ENTRIES, [[0; 12].to_vec(), vec![backend, 0, 0, 0]].concat());
    assert!(check(&forged(VERSION, &[shop.clone(), record(0), end(1)])[..]).is_ok());
    assert!(check(&forged(VERSION, &[end(0)])[..]).is_ok(), "of a process without a stick table");
    assert!(matches!(check(&b"#!/bin/sh\n"[..]), Err(FileRefused::Foreign)));
    assert!(matches!(check(&forged(2, &[end(0)])[..]), Err(FileRefused::Version(2))));
    let absurd = [
        vec![shop.clone(), record(1), end(1)],
        vec![record(0), end(1)],
        vec![shop.clone(), record(0), end(2)],
        vec![shop.clone(), record(0), end(1), end(1)],
        vec![shop.clone(), (ENTRIES, vec![0; 15]), end(1)],
        vec![(SECTION, vec![0; 9]), end(0)],
        vec![(SECTION, vec![0, 0, 0, 0, 0, 0, 0, 0, 5, 0, b'a']), end(0)],
        vec![section(b"shop", &[1; 7]), end(0)],
        vec![section(b"\xff", &[]), end(0)],
        vec![(4, Vec::new()), end(0)],
        vec![(END, vec![0; 7])],
    ];
    for frames in &absurd {
        let refused = check(&forged(VERSION, frames)[..]).expect_err("absurd");
        assert!(matches!(refused, FileRefused::Absurd(_)), "{refused}: {frames:?}");
    }
    let swapped = {
        let whole = forged(VERSION, &[shop.clone(), shop, end(0)]);
        let (header, frames) = whole.split_at(HEADER_BYTES);
        let (first, rest) = frames.split_at(8 + 22 + 8);
        let (second, end) = rest.split_at(first.len());
        [header, second, first, end].concat()
    };
    assert!(matches!(check(&swapped[..]), Err(FileRefused::Damaged)), "a frame counts only in its place");
}

#[test]
fn a_reader_that_fails_is_told_apart_from_a_bad_file() {
    struct BrokenWriter;
    impl io::Read for BrokenWriter {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk is on fire"))
        }
    }
    assert!(matches!(check(BrokenWriter), Err(FileRefused::Unreadable(_))));
}

#[test]
fn writing_and_reading_hold_one_frame_only() {
    struct Nowhere(usize);
    impl io::Write for Nowhere {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let table = StickTable::new(4 << 20, Secret::new([7; 16]), terms()).expect("a table");
    let id = IdMap::new(table.ids(), NAMES).id(0).expect("a seat");
    for n in 0..100_000 {
        let _ =
            table.settle(key(n), EntryValue { id, kind: EntryKind::Displaced }, at(1_000), |_| BackendState::Usable);
    }
    let mut bytes = 0;
    let used = allocation_counter::measure(|| {
        let mut writer = Writer::new(Nowhere(0), table.secret(), WRITTEN_S).unwrap();
        writer.section("shop", SEED, NAMES, &table, at(1_000)).unwrap();
        bytes = writer.finish().unwrap().0;
    });
    assert!(bytes > 1_500_000 && used.bytes_max < 200_000, "{} bytes for {bytes}", used.bytes_max);
}
