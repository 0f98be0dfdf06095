//! [`Counters`]: the counters of an instrumented library, read while it runs.
//!
//! rustc's `-C instrument-coverage` counts runs through each region of code; with `-runtime-counter-relocation` and `%c`
//! in `LLVM_PROFILE_FILE` the counters are a mapped file, which this process reads like any other. No unsafe code, no
//! other compiler and no other program is needed. `tests/fuzz/rustc` sets these options for the library alone.
//!
//! Without `SESSILE_FUZZ_COVERAGE`, the name of that file, nothing here does anything. Invariant: a file of an unknown
//! format is an error and never taken for counters.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The first eight bytes of a raw profile for 64 bits: `\xfflprofr\x81`.
const MAGIC: u64 = 0xff6c_7072_6f66_7281;
/// The version of the format (LLVM 19 and later), and bytes of the record of a function in it.
const VERSION: u64 = 10;
const RECORD: u64 = 64;
const COUNTER: usize = 8;

/// Where the counters are.
pub struct Counters {
    file: File,
    offset: u64,
    count: usize,
}

/// The counters of this process, if there are any.
pub fn counters() -> Option<&'static Counters> {
    static COUNTERS: OnceLock<Option<Counters>> = OnceLock::new();
    COUNTERS.get_or_init(|| std::env::var_os("SESSILE_FUZZ_COVERAGE").map(|path| Counters::open(&path))).as_ref()
}

/// False while a search runs mutants: two looks at all counters for each bound would take most of its time. Whatever
/// reaches something new, more runs of a loop included, runs again with steps counted.
pub static COUNTS_STEPS: AtomicBool = AtomicBool::new(true);

/// Runs something; the steps of the library meanwhile, if they are counted.
pub fn steps(work: impl FnOnce()) -> Option<u64> {
    let Some(counters) = counters().filter(|_| COUNTS_STEPS.load(Relaxed)) else {
        work();
        return None;
    };
    let mut bytes = Vec::new();
    let mut sum = || {
        counters.read(&mut bytes);
        numbers(&bytes).fold(0u64, u64::wrapping_add)
    };
    let before = sum();
    work();
    Some(sum().wrapping_sub(before))
}

impl Counters {
    fn open(path: &std::ffi::OsStr) -> Self {
        let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut head = [0; 16 * COUNTER];
        file.read_exact_at(&mut head, 0).expect("the head of a profile");
        let words: Vec<u64> = numbers(&head).collect();
        let [magic, version, ids, records, before, count, after, bitmap, behind, names, ..] = words[..] else {
            unreachable!("sixteen words")
        };
        let version = version & 0x00ff_ffff_ffff_ffff;
        assert!(magic == MAGIC && version == VERSION, "a profile of an unknown format: {magic:x} {version}");
        let offset = head.len() as u64 + ids + records * RECORD + before;
        let end = offset + count * COUNTER as u64 + after + bitmap + behind + names;
        let length = file.metadata().expect("a file").len();
        assert!(
            count > 0 && (end..end + 8).contains(&length),
            "a profile of an unknown format: {end} bytes of {length}"
        );
        Self { file, offset, count: count as usize }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Reads all of them.
    pub fn read(&self, bytes: &mut Vec<u8>) {
        bytes.resize(self.count * COUNTER, 0);
        self.file.read_exact_at(bytes, self.offset).expect("the counters");
    }
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.as_chunks::<COUNTER>().0.iter().map(|number| u64::from_le_bytes(*number))
}

/// What has been seen of every counter: one bit for each order of magnitude.
pub struct Seen {
    counters: &'static Counters,
    classes: Vec<u8>,
    before: Vec<u8>,
    after: Vec<u8>,
}

impl Seen {
    /// Nothing has been seen.
    pub fn new(counters: &'static Counters) -> Self {
        Self { counters, classes: vec![0; counters.count()], before: Vec::new(), after: Vec::new() }
    }

    /// Runs something; how many counters reached a class that they had never reached.
    pub fn look(&mut self, work: impl FnOnce()) -> usize {
        self.counters.read(&mut self.before);
        work();
        self.counters.read(&mut self.after);
        let mut news = 0;
        for ((class, before), after) in self.classes.iter_mut().zip(numbers(&self.before)).zip(numbers(&self.after)) {
            let bit = class_of(after.wrapping_sub(before));
            if bit & !*class != 0 {
                *class |= bit;
                news += 1;
            }
        }
        news
    }

    /// Counters that were ever reached.
    pub fn reached(&self) -> usize {
        self.classes.iter().filter(|class| **class != 0).count()
    }
}

fn class_of(runs: u64) -> u8 {
    match runs {
        0 => 0,
        1 => 1,
        2..=3 => 2,
        4..=7 => 4,
        8..=31 => 8,
        32..=127 => 16,
        128..=1_023 => 32,
        1_024..=16_383 => 64,
        _ => 128,
    }
}
