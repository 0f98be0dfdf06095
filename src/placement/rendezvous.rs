//! Weighted rendezvous: every child draws a score from the key, the best wins.
//!
//! Keeps no table. Invariant: a score depends on the draw and on that child alone, so no other child's coming or going
//! can change who wins among the rest.

use super::hash;
use super::levels::Child;

/// −log2 of the child's hash, to be divided by its weight; smaller is better.
#[inline]
pub(super) fn cost(seed: u64, draw: u64, child: &Child) -> u64 {
    hash::negative_log2(hash::pair(seed, draw, child.hash))
}

/// The rank of the best usable child.
#[inline]
pub(super) fn choose(seed: u64, draw: u64, children: &[Child], usable: impl Fn(usize) -> bool) -> Option<usize> {
    let mut best: Option<(usize, u64, u64)> = None;
    for (rank, child) in children.iter().enumerate() {
        let cost = cost(seed, draw, child);
        let better = best.is_none_or(|(_, best_cost, best_weight)| less(cost, child.weight, best_cost, best_weight));
        // Asked last: few children beat the best so far, and a group is asked leaf by leaf.
        if better && usable(rank) {
            best = Some((rank, cost, child.weight));
        }
    }
    best.map(|(rank, ..)| rank)
}

/// `a / a_weight < b / b_weight`, exactly.
#[inline]
pub(super) fn less(a: u64, a_weight: u64, b: u64, b_weight: u64) -> bool {
    u128::from(a) * u128::from(b_weight) < u128::from(b) * u128::from(a_weight)
}

/// The score as a decimal number with six places, for people.
pub(super) fn score(seed: u64, draw: u64, child: &Child) -> String {
    let millionths =
        (u128::from(cost(seed, draw, child)) * 1_000_000 / u128::from(child.weight)) >> hash::FRACTION_BITS;
    format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000)
}
