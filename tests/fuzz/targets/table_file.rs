//! Stick-table files: whole or not at all, and what was loaded is written and loaded again as the same.
//!
//! An input that begins with an even byte is a file behind it. Any other describes one: version, time, and frames with
//! kind, length and body, which gets the checksums that it needs; so mutants reach what stands behind the checks.

use std::io::{self, ErrorKind, Read};
use std::time::Duration;

use sessile::sticky::table::file::{FileRefused, LoadedSection, SectionTarget, Writer, check, load};
use sessile::sticky::table::{Minute, Secret, StickTable, Terms};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::cost::{Limit, bounded};
use crate::engine::Target;

pub const TARGET: Target = Target {
    name: "table_file",
    run,
    words: &[
        b"\x89SESMEM\n",
        b"\x01\0\0\0",
        b"\x02\0\0\0",
        b"\x03\0\0\0",
        b"\x01",
        b"\x02\x10\0",
        b"\x03\x08\0",
        b"\x04shop",
        b"\x2a\0\0\0\0\0\0\0",
        b"\0\0\0\0\0\0\0\0",
        b"\x01\0\0\0\0\0\0\0",
        b"\0\0\x10\0",
        b"\xff\xff\xff\xff",
    ],
    seeds,
    length_max: 20_000,
    mutants: 4_000,
};

const SEED: u64 = 42;
const NAMES: [&str; 3] = ["a", "b", "c"];
const BODY_MAX: usize = 1 << 20;
const RECORD: usize = 16;
const MINUTE_S: u64 = 60;

/// One frame at a time: its body, and room to grow to it.
const CHECK: Limit = Limit { allocations: 200, bytes: 4 * BODY_MAX as u64, steps: 10_000, steps_per_byte: 60 };

fn run(input: &[u8]) {
    let Some((first, rest)) = input.split_first() else { return };
    let file = if first % 2 == 0 { rest.to_vec() } else { built(rest) };
    let checked = bounded("checking a file", file.len(), CHECK, || check(&file[..]));
    let sections = independent(&file);
    assert_eq!(checked.is_ok(), sections.is_some(), "{checked:?}, but {} sections", sections.iter().flatten().count());
    let again = check(Dribble { bytes: &file, interrupts: false });
    assert_eq!(again.map_err(|error| error.to_string()).err(), checked.as_ref().map_err(ToString::to_string).err());
    let (Ok(header), Some(sections)) = (checked, sections) else { return };

    let mut rng = super::choices(&file);
    for cut in [file.len() - 1, rng.below(file.len())] {
        assert!(matches!(check(&file[..cut]), Err(FileRefused::Torn)), "cut at {cut}");
    }
    assert!(check(&[&file[..], b"x"].concat()[..]).is_err(), "something behind the end");
    let mut flipped = file.clone();
    flipped[rng.below(file.len())] ^= 1 << rng.below(8);
    assert!(check(&flipped[..]).is_err(), "a bit that no checksum covers");

    let table = table(header.secret.clone());
    let loaded = loaded(&file, header.written_s + MINUTE_S, &table);
    assert_eq!(loaded.len(), sections.len());
    for (loaded, section) in loaded.iter().zip(&sections) {
        assert_eq!(loaded.name, section.name);
        assert_eq!(loaded.refused.is_some(), section.seed != SEED || section.name == "unknown");
        let sum = loaded.kept + loaded.over + loaded.removed + loaded.crowded;
        let wanted = if loaded.refused.is_none() { section.entries } else { 0 };
        assert_eq!(sum, wanted, "every entry is counted once: {loaded:?}");
    }
    write_again(&table, &header.secret, header.written_s);
}

/// What a table holds is in its file, and in the table that is loaded from it.
fn write_again(from: &StickTable, secret: &Secret, written_s: u64) {
    let mut writer = Writer::new(Vec::new(), secret, written_s).expect("memory takes everything");
    let written = writer.section("shop", SEED, NAMES, from, Minute::START).expect("memory takes everything");
    let file = writer.finish().expect("memory takes everything");
    check(&file[..]).expect("a written file is good");
    let to = table(secret.clone());
    let loaded = loaded(&file, written_s, &to);
    assert_eq!(loaded.len(), 1);
    assert_eq!(loaded[0].kept + loaded[0].crowded + loaded[0].removed, written, "{loaded:?}");
}

fn table(secret: Secret) -> StickTable {
    let remember = Duration::from_secs(3 * 3_600);
    StickTable::new(1 << 14, secret, Terms { remember, remember_values: remember, digest: 1 }).expect("a table")
}

fn loaded(file: &[u8], now_s: u64, table: &StickTable) -> Vec<LoadedSection> {
    let target = |name: &str| {
        let target = || SectionTarget { table, hash_seed: SEED, backends: NAMES.to_vec() };
        (name != "unknown").then(target)
    };
    load(Dribble { bytes: file, interrupts: false }, now_s, Minute::START, target).expect("a checked file loads")
}

/// Gives a few bytes at a time, with interruptions.
struct Dribble<'a> {
    bytes: &'a [u8],
    interrupts: bool,
}

impl Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.interrupts = !self.interrupts;
        if self.interrupts {
            return Err(ErrorKind::Interrupted.into());
        }
        let length = buffer.len().min(self.bytes.len()).min(1 + self.bytes.len() % 7);
        let (now, later) = self.bytes.split_at(length);
        buffer[..length].copy_from_slice(now);
        self.bytes = later;
        Ok(length)
    }
}

/// A section as an independent reader sees it.
struct Section {
    name: String,
    seed: u64,
    entries: u64,
}

/// The sections of a good file, read as the format says; `None` for any other.
fn independent(file: &[u8]) -> Option<Vec<Section>> {
    let word = |bytes: &[u8]| Some(u64::from_le_bytes(bytes.get(..8)?.try_into().ok()?));
    let half = |bytes: &[u8]| Some(u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?));
    let (header, mut rest) = file.split_at_checked(48)?;
    let sum = word(&header[40..])?;
    if !header.starts_with(b"\x89SESMEM\n") || half(&header[8..])? != 1 || xxh3_64(&header[..40]) != sum {
        return None;
    }
    let (mut sections, mut backends, mut entries) = (Vec::<Section>::new(), 0, 0);
    for number in 0.. {
        let (kind, length) = (half(rest)?, half(rest.get(4..)?)? as usize);
        let frame = rest.get(..8 + length).filter(|_| length <= BODY_MAX)?;
        let body = &frame[8..];
        if word(&rest[8 + length..])? != xxh3_64_with_seed(frame, sum.wrapping_add(number)) {
            return None;
        }
        rest = &rest[16 + length..];
        match kind {
            1 => {
                let name = usize::from(u16::from_le_bytes([*body.get(8)?, *body.get(9)?]));
                let (name, hashes) = body[10..].split_at_checked(name)?;
                let name = std::str::from_utf8(name).ok().filter(|_| hashes.len().is_multiple_of(8))?;
                backends = hashes.len() / 8;
                sections.push(Section { name: name.to_owned(), seed: word(body)?, entries: 0 });
            }
            2 => {
                let section = sections.last_mut().filter(|_| body.len().is_multiple_of(RECORD))?;
                let good = |record: &[u8]| usize::from(u16::from_le_bytes([record[12], record[13]])) < backends;
                if !body.chunks(RECORD).all(good) {
                    return None;
                }
                section.entries += (body.len() / RECORD) as u64;
                entries += (body.len() / RECORD) as u64;
            }
            3 => return (body.len() == 8 && rest.is_empty() && word(body)? == entries).then_some(sections),
            _ => return None,
        }
    }
    None
}

/// The file that an input describes.
fn built(mut input: &[u8]) -> Vec<u8> {
    let mut next = |count: usize| {
        let (now, later) = input.split_at(count.min(input.len()));
        input = later;
        now
    };
    let version = u32::from(next(1).first().copied().unwrap_or(1));
    let mut time = next(4).to_vec();
    time.resize(8, 0);
    let mut file = [&b"\x89SESMEM\n"[..], &version.to_le_bytes(), &[0; 4], &time, &[9; 16]].concat();
    let sum = xxh3_64(&file);
    file.extend(sum.to_le_bytes());
    for number in 0u64.. {
        let [kind, low, high] = *next(3) else { return file };
        let body = next(usize::from(u16::from_le_bytes([low, high])));
        let frame = [&u32::from(kind).to_le_bytes()[..], &(body.len() as u32).to_le_bytes(), body].concat();
        file.extend_from_slice(&frame);
        file.extend(xxh3_64_with_seed(&frame, sum.wrapping_add(number)).to_le_bytes());
    }
    file
}

/// Descriptions of files with one and two sections.
fn seeds() -> Vec<Vec<u8>> {
    let frame = |kind: u8, body: &[u8]| [&[kind][..], &(body.len() as u16).to_le_bytes(), body].concat();
    let section = |name: &str, seed: u64| {
        let hashes: Vec<u8> = ["a", "z", "b"].iter().flat_map(|name| xxh3_64(name.as_bytes()).to_le_bytes()).collect();
        frame(1, &[&seed.to_le_bytes()[..], &(name.len() as u16).to_le_bytes(), name.as_bytes(), &hashes].concat())
    };
    let record = |key: u64, age: u32, backend: u16, flags: u8| {
        [&key.to_le_bytes()[..], &age.to_le_bytes(), &backend.to_le_bytes(), &[flags, 0]].concat()
    };
    let entries = |count: u64| {
        let record =
            |n: u64| record(n.wrapping_mul(0x9e37_79b9_7f4a_7c15), n as u32 * 3, (n % 3) as u16, (n % 5) as u8);
        frame(2, &(0..count).flat_map(record).collect::<Vec<_>>())
    };
    let end = |count: u64| frame(3, &count.to_le_bytes());
    let file = |frames: &[Vec<u8>]| [&[1, 1][..], &1_790_000_000u32.to_le_bytes(), &frames.concat()].concat();
    vec![
        file(&[end(0)]),
        file(&[section("shop", SEED), entries(7), end(7)]),
        file(&[section("shop", SEED), entries(90), section("unknown", SEED), entries(3), section("x", 1), end(93)]),
    ]
}
