//! Weighted rendezvous: every child gets a score from the draw; the best score wins.
//!
//! Keeps no table. Invariant: a score depends on the draw and on that child alone, so a child that comes or goes does
//! not change the winner among the others.

use std::cmp::Ordering;

use super::child::Child;
use super::hash;

/// The rank of the best child. `even`: all weights are equal, so no logarithm is needed; the maximum is then found
/// without a branch that the processor cannot predict.
#[inline(always)]
pub(super) fn home(seed: u64, draw: u64, children: &[Child], even: bool) -> Option<usize> {
    if !even {
        return choose(seed, draw, children, |_| true);
    }
    let (first, rest) = children.split_first()?;
    let start = (0, hash::pair(seed, draw, first.hash));
    let (rank, _) = rest.iter().zip(1..).fold(start, |(rank, best), (child, other)| {
        let hash = hash::pair(seed, draw, child.hash);
        (if hash > best { other } else { rank }, hash.max(best))
    });
    Some(rank)
}

/// The rank of the best usable child.
#[inline]
pub(super) fn choose(seed: u64, draw: u64, children: &[Child], usable: impl Fn(usize) -> bool) -> Option<usize> {
    let mut best: Option<(usize, u64, u64)> = None;
    for (rank, child) in children.iter().enumerate() {
        let hash = hash::pair(seed, draw, child.hash);
        let better = best.is_none_or(|(_, best_hash, best_weight)| beats(hash, child.weight, best_hash, best_weight));
        // Health comes last: few children beat the best so far, and a group's health needs a look at every leaf.
        if better && usable(rank) {
            best = Some((rank, hash, child.weight));
        }
    }
    best.map(|(rank, ..)| rank)
}

/// Whether one score is better than another: smaller, or equal with the greater hash.
///
/// The logarithm never rises with the hash, so it is needed only where hash and weight disagree: never among equal
/// weights.
#[inline]
fn beats(hash: u64, weight: u64, other: u64, other_weight: u64) -> bool {
    if hash > other && weight >= other_weight {
        return true;
    }
    if hash <= other && weight <= other_weight {
        return false;
    }
    let scores = compare(hash::negative_log2(hash), weight, hash::negative_log2(other), other_weight);
    scores.then(other.cmp(&hash)) == Ordering::Less
}

/// Compares `a / a_weight` with `b / b_weight`, exactly.
#[inline]
pub(super) fn compare(a: u64, a_weight: u64, b: u64, b_weight: u64) -> Ordering {
    (u128::from(a) * u128::from(b_weight)).cmp(&(u128::from(b) * u128::from(a_weight)))
}

/// The score as a decimal number with six places, for display.
pub(super) fn score(seed: u64, draw: u64, child: &Child) -> String {
    let cost = u128::from(hash::negative_log2(hash::pair(seed, draw, child.hash)));
    let millionths = (cost * 1_000_000 / u128::from(child.weight)) >> hash::FRACTION_BITS;
    format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_best_of_equals_is_the_best_by_their_scores(hashes: Vec<u64>, weight in 1..9_u64, seed: u64, draw: u64) {
            let children: Vec<Child> = hashes.iter().map(|hash| Child::leaf(*hash, weight, 0)).collect();
            prop_assert_eq!(home(seed, draw, &children, true), choose(seed, draw, &children, |_| true));
        }

        #[test]
        fn the_short_cuts_decide_as_the_scores_do(
            hash: u64, near in 0..300_u64, far: u64, close: bool, weight in 1..5_u64, other_weight in 1..5_u64,
        ) {
            let other = if close { hash.saturating_add(near) } else { far };
            let pairs = [(hash, weight, other, other_weight), (other, other_weight, hash, weight)];
            for (a, a_weight, b, b_weight) in pairs {
                let scores = compare(hash::negative_log2(a), a_weight, hash::negative_log2(b), b_weight);
                prop_assert_eq!(beats(a, a_weight, b, b_weight), scores.then(b.cmp(&a)) == Ordering::Less);
            }
        }
    }
}
