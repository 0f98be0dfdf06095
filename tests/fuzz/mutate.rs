//! [`mutate`]: damages an input, as transfers, careless clients and attackers would.
//!
//! Knows no format but what the words of a target say. Invariant: the result depends on the arguments alone, and is no
//! longer than allowed.

use super::rng::Rng;

/// Bytes that end, begin or separate something in one of the formats.
const MARKS: &[u8] = b"\r\n\t\0 :;,=\"'/\\#.-_~%*@[]{}()0019aAzZ\x01\x0b\x16\x7f\x80\xff";

/// Numbers at the edges of what readers count with.
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "+1",
    "00",
    "255",
    "256",
    "65535",
    "65536",
    "2147483648",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551616",
    "1e3",
    "0x10",
    "1.5",
];

const TIMES: &[usize] = &[2, 3, 9, 65, 129, 1_025, 20_000];

/// A damaged copy of `input`; `other` is another input of the same target.
pub fn mutate(input: &[u8], other: &[u8], words: &[&[u8]], length_max: usize, rng: &mut Rng) -> Vec<u8> {
    let mut bytes = input.to_vec();
    let mut left = 1 + rng.below(4);
    while left > 0 {
        change(&mut bytes, other, words, length_max, rng);
        bytes.truncate(length_max);
        left -= 1;
    }
    bytes
}

fn change(bytes: &mut Vec<u8>, other: &[u8], words: &[&[u8]], length_max: usize, rng: &mut Rng) {
    let at = rng.below(bytes.len() + 1);
    match rng.below(14) {
        0 | 1 => put(bytes, at, MARKS[rng.below(MARKS.len())]),
        2 => put(bytes, at, rng.next() as u8),
        3 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << rng.below(8);
            }
        }
        4 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = byte.wrapping_add(if rng.below(2) == 0 { 1 } else { 255 });
            }
        }
        5 if !words.is_empty() => insert(bytes, at, words[rng.below(words.len())]),
        6 if !words.is_empty() => {
            let word = words[rng.below(words.len())];
            let end = (at + word.len()).min(bytes.len());
            bytes.splice(at..end, word.iter().copied());
        }
        5..=7 => drop(bytes.drain(range(bytes.len(), rng))),
        8 => {
            let copied = bytes[range(bytes.len(), rng)].to_vec();
            insert(bytes, at, &copied);
        }
        9 => {
            let mut repeated = bytes[range(bytes.len(), rng)].to_vec();
            repeated.truncate(40);
            let times =
                TIMES[rng.below(TIMES.len())].min(length_max.saturating_sub(bytes.len()) / repeated.len().max(1));
            insert(bytes, at, &repeated.repeat(times));
        }
        10 => {
            let from = rng.below(other.len() + 1);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        11 => insert(bytes, at, &other[range(other.len(), rng)]),
        12 => number(bytes, at, rng),
        _ => length(bytes, at, rng),
    }
}

fn put(bytes: &mut Vec<u8>, at: usize, byte: u8) {
    match bytes.get_mut(at) {
        Some(old) => *old = byte,
        None => bytes.push(byte),
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, inserted: &[u8]) {
    bytes.splice(at..at, inserted.iter().copied());
}

/// A range of up to a few hundred bytes, most often a short one.
fn range(length: usize, rng: &mut Rng) -> std::ops::Range<usize> {
    let start = rng.below(length + 1);
    let most = [4, 16, 64, 512][rng.below(4)];
    start..(start + 1 + rng.below(most)).min(length).max(start)
}

/// Writes another number in the place of the digits at or behind `at`.
fn number(bytes: &mut Vec<u8>, at: usize, rng: &mut Rng) {
    let start = bytes[at..].iter().position(u8::is_ascii_digit).map_or(at, |skipped| at + skipped);
    let end =
        bytes[start..].iter().position(|byte| !byte.is_ascii_digit()).map_or(bytes.len(), |digits| start + digits);
    bytes.splice(start..end, NUMBERS[rng.below(NUMBERS.len())].bytes());
}

/// Writes a binary number, often one that a length could be.
fn length(bytes: &mut [u8], at: usize, rng: &mut Rng) {
    let value = match rng.below(4) {
        0 => bytes.len() - at,
        1 => (bytes.len() - at).saturating_sub(2 + rng.below(6)),
        2 => [0, 1, 0xff, 0x100, 0x4000, 0x4001, 0xffff, 0x10_0000][rng.below(8)],
        _ => rng.below(64),
    };
    let width = [1, 2, 3, 4][rng.below(4)];
    let encoded = match rng.below(2) {
        0 => (value as u32).to_be_bytes()[4 - width..].to_vec(),
        _ => (value as u32).to_le_bytes()[..width].to_vec(),
    };
    bytes[at..].iter_mut().zip(encoded).for_each(|(byte, new)| *byte = new);
}
