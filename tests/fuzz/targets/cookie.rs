//! Values of cookies in every mode: only a sealed value is believed, for as long as its time, and a value chooses among
//! the backends and does nothing else.
//!
//! The first byte of an input chooses the mode. 0 is a sealed value with damage: backend, when it was issued, seen and
//! comes back, then pairs of place and byte to damage it with. In the other modes the rest is values, one a line.

use std::cell::Cell;
use std::sync::{Arc, LazyLock};

use sessile::config;
use sessile::sticky::cookie::{CookieRule, CookieVerdict, KeyRing, Mode};
use sessile::sticky::table::{EntryKind, TableLookup};

use crate::cost::{Limit, bounded};
use crate::engine::Target;

pub const TARGET: Target = Target {
    name: "cookie",
    run,
    words: &[
        b"b0~",
        b"b1~x",
        b".b0",
        b".node.1",
        b"node.1~",
        b"~",
        b".",
        b"..........",
        b"\n",
        b"AQ",
        b"AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8wMTIzNDU2Nzg5",
        b"\0\0\0\x3c",
        b"\xff\xff\xff\xff",
    ],
    seeds: Vec::new,
    length_max: 10_000,
    mutants: 10_000,
};

const BACKENDS: [&str; 3] = ["b0", "b1", "node.1"];
const IDLE_S: u64 = 3_600;
const LIFE_S: u64 = 86_400;
const SKEW_S: u64 = 60;
const MODES: [&str; 5] = ["insert", "prefix", "route", "learn", "hash"];
/// Values of one name that are looked at.
const VALUES_MAX: usize = 8;

/// A lookup of a value costs steps, and in no mode memory.
const READ: Limit = Limit { steps: 4_000, steps_per_byte: 20, ..Limit::NO_MEMORY };

fn run(bytes: &[u8]) {
    let Some((mode, rest)) = bytes.split_first() else { return };
    match usize::from(*mode) % (MODES.len() + 1) {
        0 => check_sealed(rest),
        mode => check_values(mode - 1, rest),
    }
}

/// The rule of a pool for each mode, made as the process makes it.
fn rule(mode: usize) -> &'static CookieRule {
    static RULES: LazyLock<[CookieRule; 5]> = LazyLock::new(|| MODES.map(make));
    &RULES[mode]
}

fn make(mode: &str) -> CookieRule {
    let options = match mode {
        "insert" => "keys = \"/keys\"\nmax_idle = \"1h\"\nmax_life = \"1d\"\n",
        _ => "name = \"SID\"\n",
    };
    let text = format!(
        "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:80\"\npool = \"p\"\n[[pool]]\nname = \"p\"\nhttp = true\n\
         backend = [{{ name = \"a\", address = \"127.0.0.1:81\" }}]\n[pool.cookie]\nmode = \"{mode}\"\n{options}"
    );
    let checked = config::check(&text, &|_| Err(std::io::ErrorKind::NotFound.into()));
    let mut checked = checked.unwrap_or_else(|problems| panic!("{problems:?}"));
    let cookie = checked.config.pools.remove(0).cookie.expect("a cookie");
    let keys = "1f8b3c5d7e9a0b2c4d6e8f0a1b3c5d7e9f0a2b4c6d8e0f1a3b5c7d9e0f2a4b6c\n";
    let ring = |_: &std::path::Path| KeyRing::parse(keys).map(Arc::new);
    CookieRule::new(&cookie, "p", BACKENDS, ring).expect("a ring")
}

fn read(rule: &CookieRule, values: &[&[u8]], now: u64, recall: impl Fn(&[u8]) -> TableLookup) -> Option<CookieVerdict> {
    let length = values.iter().map(|value| value.len()).sum();
    let read = bounded("reading a cookie", length, READ, || rule.read(values.iter().copied(), now, recall));
    let verdict = read.map(|read| read.verdict);
    let backend = verdict.and_then(CookieVerdict::backend);
    assert!(backend.is_none_or(|backend| backend < BACKENDS.len()), "{verdict:?}");
    verdict
}

fn unknown(_: &[u8]) -> TableLookup {
    TableLookup::Unknown
}

/// The value that keeps a client at a backend.
fn sealed(backend: usize, issued: u64, now: u64) -> Vec<u8> {
    let Mode::Insert(insert) = rule(0).mode() else { panic!("the first mode is insert") };
    insert.seal(backend, issued, now, [7; 12]).to_vec()
}

fn check_sealed(input: &[u8]) {
    let Some((fixed, damage)) = input.split_first_chunk::<13>() else { return };
    let time = |at: usize| u64::from(u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]));
    let (backend, issued, seen) = (usize::from(fixed[0] % 4), time(1), time(5));
    // Most times that come back are near those when the value was seen.
    let now =
        if fixed[9] < 128 { seen.saturating_add(time(9) % (2 * LIFE_S)).saturating_sub(LIFE_S / 2) } else { time(9) };
    let value = sealed(backend, issued, seen);
    let mut damaged = value.clone();
    for pair in damage.as_chunks::<2>().0 {
        let at = usize::from(pair[0]) % damaged.len();
        damaged[at] = pair[1];
    }
    let verdict = read(rule(0), &[&damaged], now, unknown).expect("an own cookie has a verdict");
    if damaged != value {
        assert_eq!((verdict.backend(), verdict.word()), (None, "forged"), "every bit is under the seal");
    }
    let verdict = read(rule(0), &[&value], now, unknown).expect("an own cookie has a verdict");
    let outlived = now > issued + LIFE_S + SKEW_S || now.abs_diff(seen) > IDLE_S + SKEW_S;
    let wanted = if outlived || backend >= BACKENDS.len() { None } else { Some(backend) };
    assert_eq!(verdict.backend(), wanted, "{verdict:?}: issued {issued}, seen {seen}, now {now}");
    if let CookieVerdict::Fresh { .. } = verdict {
        assert!(now.saturating_sub(seen) < IDLE_S / 10 && seen <= now + SKEW_S, "a cookie that is due");
    }
    if let CookieVerdict::Fresh { issued: told, .. } | CookieVerdict::Due { issued: told, .. } = verdict {
        assert_eq!(told, issued.min(now));
    }
    let beside = read(rule(0), &[b"x", &damaged, &value], now, unknown).expect("an own cookie has a verdict");
    assert_eq!(beside.backend(), wanted, "a forged value beside a valid one");
}

fn check_values(mode: usize, input: &[u8]) {
    let values: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
    let looked_at = values.iter().take(VALUES_MAX);
    let asked = Cell::new(0);
    let recall = |value: &[u8]| {
        asked.set(asked.get() + 1);
        match value.first() {
            Some(b'a') => TableLookup::At(value.len() % BACKENDS.len(), EntryKind::Brought),
            Some(b'b') => TableLookup::Gone(None),
            _ => TableLookup::Unknown,
        }
    };
    let rule = rule(mode);
    let verdict = read(rule, &values, 1_000_000, recall);
    assert!(asked.get() <= if MODES[mode] == "learn" { VALUES_MAX } else { 0 }, "{} look-ups", asked.get());
    let backend = verdict.and_then(CookieVerdict::backend);
    let by_name = |name: &[u8]| BACKENDS.iter().position(|known| known.as_bytes() == name);
    match MODES[mode] {
        "insert" => assert_eq!(backend, None, "nothing was sealed"),
        "hash" => assert_eq!(verdict, None, "the value is a key"),
        "prefix" => {
            let ends = looked_at.filter_map(|value| Some((value, value.iter().position(|byte| *byte == b'~')?)));
            let named: Vec<_> = ends.map(|(value, end)| &value[..end]).collect();
            assert_eq!(backend, named.iter().find_map(|name| by_name(name)));
            assert_eq!(verdict.is_none(), named.is_empty());
        }
        "route" => {
            let routed = |value: &&&[u8]| value.contains(&b'.');
            assert_eq!(verdict.is_none(), !looked_at.clone().any(|value| routed(&value)));
            let ends = |value: &&[u8]| BACKENDS.iter().any(|name| value.ends_with(format!(".{name}").as_bytes()));
            assert_eq!(backend.is_some(), looked_at.clone().any(ends), "{:?}", input.escape_ascii().to_string());
        }
        _ => {
            let known =
                looked_at.filter(|value| value.first() == Some(&b'a')).map(|value| value.len() % BACKENDS.len());
            let known: Vec<_> = known.collect();
            assert!(backend.is_none() == known.is_empty() && backend.is_none_or(|backend| known.contains(&backend)));
        }
    }
}
