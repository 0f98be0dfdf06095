//! [`hold`]: holds a target against its corpus, against mutants of it, and, where asked, against a search for hours.
//!
//! Judges nothing: a target panics where a property does not hold. A failing input is made small and written below the
//! build folder. Invariant: without the environment variables of a search, two runs see the same inputs.

use std::cell::Cell;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use super::coverage::{self, COUNTS_STEPS, Seen};
use super::mutate::mutate;
use super::rng::Rng;

/// A function of bytes, and what finds bytes for it.
pub struct Target {
    /// Also the name of its folder of the corpus.
    pub name: &'static str,
    /// Panics where a property does not hold.
    pub run: fn(&[u8]),
    /// Words that mutants are made with.
    pub words: &'static [&'static [u8]],
    /// Inputs that other tests have, too.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// The longest input.
    pub length_max: usize,
    /// Mutants of a run without a search.
    pub mutants: usize,
}

/// Runs a target over its inputs.
pub fn hold(target: &Target) {
    // Counters are those of the process.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = coverage::counters().map(|_| ALONE.lock().unwrap_or_else(PoisonError::into_inner));
    if let Some(file) = std::env::var_os("SESSILE_FUZZ_INPUT") {
        (target.run)(&fs::read(&file).expect("the input"));
        return;
    }
    let committed = committed(target.name);
    let mut inputs = committed.clone();
    inputs.extend((target.seeds)());
    for input in &inputs {
        check(target, input);
    }
    match std::env::var("SESSILE_FUZZ_SECONDS").ok() {
        None => {
            let mut rng = Rng(target.name.bytes().fold(7, |seed: u64, byte| seed.wrapping_mul(31) + u64::from(byte)));
            for _ in 0..target.mutants {
                let mutant = next(target, &inputs, &mut rng);
                check(target, &mutant);
            }
        }
        Some(seconds) => {
            let time = Duration::from_secs(seconds.parse().expect("SESSILE_FUZZ_SECONDS is a number"));
            search(target, inputs, time);
        }
    }
    if std::env::var_os("SESSILE_FUZZ_KEEP").is_some() {
        keep(target, &committed);
    }
}

/// The committed inputs of a target, by name of their files.
pub fn committed(name: &str) -> Vec<Vec<u8>> {
    files(&folder(name))
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name)
}

/// What runs leave behind: failing inputs, and those that a search found worth keeping.
fn scratch(name: &str, kind: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("fuzz").join(name).join(kind)
}

fn files(folder: &Path) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("an input")).collect()
}

fn next(target: &Target, inputs: &[Vec<u8>], rng: &mut Rng) -> Vec<u8> {
    // What was found last leads on most often.
    let recent = inputs.len() / 4 + 1;
    let of = if rng.below(2) == 0 {
        inputs.len() - 1 - rng.below(recent.min(inputs.len()))
    } else {
        rng.below(inputs.len())
    };
    let other = rng.below(inputs.len());
    mutate(&inputs[of], &inputs[other], target.words, target.length_max, rng)
}

/// Runs one input; where it fails, a small input that fails is written and told.
fn check(target: &Target, input: &[u8]) {
    let Err(panicked) = catch_unwind(|| (target.run)(input)) else { return };
    COUNTS_STEPS.store(true, Relaxed);
    let small = quietly(|| minimize(target, input));
    let path = save(&scratch(target.name, "failed"), &small);
    let (name, shown) = (target.name, small[..small.len().min(2_000)].escape_ascii());
    eprintln!("{name} fails on {} bytes, written to {}:\n{shown}", small.len(), path.display());
    eprintln!("again: SESSILE_FUZZ_INPUT={} cargo test --test fuzz {name}", path.display());
    std::panic::resume_unwind(panicked);
}

/// Takes pieces out of an input for as long as it still fails, within a bounded number of runs.
fn minimize(target: &Target, input: &[u8]) -> Vec<u8> {
    let fails = |bytes: &[u8]| catch_unwind(AssertUnwindSafe(|| (target.run)(bytes))).is_err();
    let (mut small, mut runs) = (input.to_vec(), 0);
    let mut piece = small.len() / 2;
    while piece > 0 && runs < 3_000 {
        let mut at = 0;
        while at < small.len() && runs < 3_000 {
            let end = (at + piece).min(small.len());
            let without = [&small[..at], &small[end..]].concat();
            runs += 1;
            if fails(&without) { small = without } else { at = end }
        }
        piece /= 2;
    }
    small
}

fn save(folder: &Path, input: &[u8]) -> PathBuf {
    fs::create_dir_all(folder).expect("the folder is made");
    let path = folder.join(format!("{:016x}", xxhash_rust::xxh3::xxh3_64(input)));
    fs::write(&path, input).expect("the input is written");
    path
}

/// Searches for inputs that reach something new, and goes on from them. Without counters all mutants come from the
/// inputs that there are.
fn search(target: &Target, mut inputs: Vec<Vec<u8>>, time: Duration) {
    let found = scratch(target.name, "found");
    inputs.extend(files(&found));
    let mut seen = coverage::counters().map(Seen::new);
    if let Some(seen) = &mut seen {
        for input in &inputs {
            seen.look(|| check(target, input));
        }
    }
    let seed = std::env::var("SESSILE_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok());
    let mut rng =
        Rng(seed.unwrap_or_else(|| u64::from(std::process::id()) ^ Instant::now().elapsed().as_nanos() as u64));
    let (end, mut runs, before) = (Instant::now() + time, 0u64, inputs.len());
    while Instant::now() < end {
        let mutant = next(target, &inputs, &mut rng);
        runs += 1;
        let Some(seen) = &mut seen else {
            check(target, &mutant);
            continue;
        };
        COUNTS_STEPS.store(false, Relaxed);
        let news = seen.look(|| check(target, &mutant));
        COUNTS_STEPS.store(true, Relaxed);
        if news > 0 {
            check(target, &mutant);
            save(&found, &mutant);
            inputs.push(mutant);
        }
    }
    let reached = seen.map_or("not guided: built without counters".to_owned(), |seen| {
        format!("{} regions reached, {} inputs found", seen.reached(), inputs.len() - before)
    });
    println!("{}: {runs} runs in {} s, {reached}", target.name, time.as_secs());
}

/// Adds to the committed corpus what was found and reaches more than all shorter inputs, up to 4 KiB each.
fn keep(target: &Target, committed: &[Vec<u8>]) {
    let counters = coverage::counters().expect("only a build with counters can choose");
    let mut seen = Seen::new(counters);
    for input in committed.iter().chain(&(target.seeds)()) {
        seen.look(|| (target.run)(input));
    }
    let mut found = files(&scratch(target.name, "found"));
    found.retain(|input| input.len() <= 4_096);
    found.sort_by_key(Vec::len);
    for input in found {
        if seen.look(|| (target.run)(&input)) > 1 {
            println!("kept {}", save(&folder(target.name), &input).display());
        }
    }
}

/// Runs something without the messages of its panics.
fn quietly<T>(work: impl FnOnce() -> T) -> T {
    thread_local! {
        static QUIET: Cell<bool> = const { Cell::new(false) };
    }
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                loud(info);
            }
        }));
    });
    QUIET.set(true);
    let result = work();
    QUIET.set(false);
    result
}
