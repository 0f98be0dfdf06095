//! The text of a key file: every problem has its line, and no message shows a key.

use sessile::sticky::cookie::{KeyProblem, KeyRing};

use crate::cost::{Limit, bounded};
use crate::engine::Target;

pub const TARGET: Target = Target {
    name: "key_ring",
    run,
    words: &[
        b"\n",
        b"\r\n",
        b"# ",
        b"=",
        b"==",
        b"1f8b3c5d7e9a0b2c4d6e8f0a1b3c5d7e9f0a2b4c6d8e0f1a3b5c7d9e0f2a4b6c",
        b"ABEiM0RVZneImaq7zN3u/wEjRWeJq83v/ty6mHZUMhA=",
        b"ABEiM0RVZneImaq7zN3u_wEjRWeJq83v_ty6mHZUMhA",
        b"00000000000000000000000000000000",
        b" ",
        b"\t",
        b"\xc3\xa9",
    ],
    seeds: Vec::new,
    length_max: 8_000,
    mutants: 500,
};

/// What messages say by themselves.
const WORDS: &str = "neither 64 hexadecimal digits nor base64, characters) bytes of hexadecimal; bytes of base64; a key has 32 \
                     not random: too few different bytes, the key of line again, holds no key, holds keys; the most is 64";

/// Bytes of a key that would be a part of it.
const PART: usize = 9;

/// Most keys of a ring.
const KEYS_MAX: u64 = 64;

fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().count() as u64;
    // Some texts for each line, some objects of the cryptography for each key; each key is compared with those before.
    let limit = Limit {
        allocations: 40 + 12 * lines + 20 * KEYS_MAX,
        bytes: 4_096 + 1_024 * lines + 16 * text.len() as u64 + 4_096 * KEYS_MAX,
        steps: 20_000 + 500 * lines,
        steps_per_byte: 60,
    };
    let ring = bounded("reading a key file", text.len(), limit, || KeyRing::parse(&text));
    let keys = written(&text);
    match &ring {
        Ok(ring) => {
            assert!((1..=KEYS_MAX).contains(&(keys.len() as u64)));
            assert_eq!(format!("{ring:?}"), format!("KeyRing({} keys)", keys.len()), "shows no key");
        }
        Err(problems) => check_problems(&keys, problems),
    }
    let shifted = KeyRing::parse(&format!("# a comment\n\n{text}"));
    match (&ring, shifted) {
        (Ok(_), Ok(_)) => {}
        (Err(before), Err(after)) => {
            let moved =
                |problem: &KeyProblem| KeyProblem { line: problem.line.map(|line| line + 2), ..problem.clone() };
            let (before, after): (Vec<_>, Vec<_>) = (before.iter().map(moved).collect(), after);
            let lines = |problems: &[KeyProblem]| problems.iter().map(|problem| problem.line).collect::<Vec<_>>();
            assert_eq!(lines(&before), lines(&after), "two lines above move every problem by two");
        }
        (before, after) => panic!("a comment changed the verdict: {before:?}, {after:?}"),
    }
}

fn check_problems(keys: &[(usize, &str)], problems: &[KeyProblem]) {
    assert!(!problems.is_empty());
    // A text of thousands of lines has thousands of problems of a few kinds.
    for problem in problems.iter().take(40) {
        match problem.line {
            Some(line) => assert!(keys.iter().any(|(number, _)| *number == line), "no key in line {line}"),
            None => assert!(keys.is_empty() || keys.len() as u64 > KEYS_MAX, "{problem}"),
        }
        let message = problem.to_string();
        assert!(!message.chars().any(char::is_control), "{message:?}");
        // No key has a space in it.
        let is_word = |part: &&[u8]| !part.contains(&b' ');
        let own: Vec<_> = message.as_bytes().windows(PART).filter(is_word).filter(|part| !has(WORDS, part)).collect();
        for (_, key) in keys.iter().filter(|_| !own.is_empty()) {
            assert!(!own.iter().any(|part| has(key, part)), "{message:?} shows a part of {key:?}");
        }
    }
    let lines: Vec<_> = problems.iter().filter_map(|problem| problem.line).collect();
    assert!(lines.is_sorted(), "{problems:?}");
}

fn has(text: &str, part: &[u8]) -> bool {
    text.as_bytes().windows(part.len()).any(|there| there == part)
}

/// What stands on each line before a comment, with the number of the line.
fn written(text: &str) -> Vec<(usize, &str)> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.split('#').next().unwrap_or("").trim()));
    lines.filter(|(_, key)| !key.is_empty()).collect()
}
