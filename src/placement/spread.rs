//! Methods without a key: in turn, at random, by leases.
//!
//! Keeps no counter and makes no random number: the draw brings both. Invariant: with equal leases each usable child is
//! chosen in proportion to its weight.

use std::cmp::Ordering;

use super::child::Child;
use super::hash;
use super::rendezvous::compare;

/// 2^64 divided by the golden ratio: with steps of this part of a circle, points stay as far apart as possible.
const GOLDEN: u64 = 0x9e3779b97f4a7c15;

/// Chooses in turn: the rank and, for a group, the subticket inside it.
pub(super) fn round_robin(ticket: u64, children: &[Child], usable: impl Fn(usize) -> bool) -> Option<(usize, u64)> {
    let weights = || weights(children, &usable);
    let divisor = weights().fold(0, |divisor, (_, weight)| common_divisor(weight, divisor));
    if divisor == 0 {
        return None;
    }
    let (count, sum) = weights().fold((0, 0), |(count, sum), (_, weight)| (count + 1, sum + weight / divisor));
    let step = if sum == count { 1 } else { step(sum) };
    let mut slot = (u128::from(ticket % sum) * u128::from(step) % u128::from(sum)) as u64;
    for (rank, weight) in weights() {
        let share = weight / divisor;
        if slot < share {
            return Some((rank, (ticket / sum).wrapping_mul(share).wrapping_add(slot)));
        }
        slot -= share;
    }
    None
}

/// Chooses at random, in proportion to the weights.
pub(super) fn weighted(draw: u64, children: &[Child], usable: impl Fn(usize) -> bool) -> Option<usize> {
    let weights = || weights(children, &usable);
    let mut place = hash::scale(draw, weights().map(|(_, weight)| weight).sum());
    for (rank, weight) in weights() {
        if place < weight {
            return Some(rank);
        }
        place -= weight;
    }
    None
}

/// Chooses the less loaded of two random children.
pub(super) fn two_choices(
    seed: u64,
    draw: u64,
    children: &[Child],
    usable: impl Fn(usize) -> bool,
    leases: impl Fn(usize) -> u64,
) -> Option<usize> {
    let first = weighted(hash::pair(seed, draw, 0), children, &usable)?;
    let second = weighted(hash::pair(seed, draw, 1), children, |rank| rank != first && usable(rank));
    let load = |rank: usize| leases(rank).saturating_add(1);
    let better = |second: &usize| lighter(&children[*second], load(*second), &children[first], load(first));
    second.filter(better).or(Some(first))
}

/// Chooses the least loaded child; among equals the first from the ticket's rank on.
pub(super) fn least_connections(
    ticket: u64,
    children: &[Child],
    usable: impl Fn(usize) -> bool,
    leases: impl Fn(usize) -> u64,
) -> Option<usize> {
    let start = (ticket % children.len().max(1) as u64) as usize;
    let mut best: Option<(usize, u64)> = None;
    for rank in (start..children.len()).chain(0..start).filter(|rank| usable(*rank)) {
        let load = leases(rank).saturating_add(1);
        if best.is_none_or(|(best, best_load)| lighter(&children[rank], load, &children[best], best_load)) {
            best = Some((rank, load));
        }
    }
    best.map(|(rank, _)| rank)
}

/// Whether `a` with its load is less loaded for its weight than `b` with its own.
fn lighter(a: &Child, load: u64, b: &Child, b_load: u64) -> bool {
    compare(load, a.weight, b_load, b.weight) == Ordering::Less
}

/// Ranks and weights of the usable children.
fn weights<'a>(children: &'a [Child], usable: &'a impl Fn(usize) -> bool) -> impl Iterator<Item = (usize, u64)> {
    children.iter().enumerate().filter(|(rank, _)| usable(*rank)).map(|(rank, child)| (rank, child.weight))
}

/// The first number from the golden part of `sum` on that has no common divisor with it.
fn step(sum: u64) -> u64 {
    let mut step = hash::scale(GOLDEN, sum).max(1);
    while common_divisor(sum, step) != 1 {
        step += 1;
    }
    step
}

fn common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    fn children(weights: &[u64]) -> Vec<Child> {
        weights.iter().enumerate().map(|(n, weight)| Child::leaf(n as u64, *weight, n as u32)).collect()
    }

    fn turns(weights: &[u64], count: u64) -> Vec<usize> {
        let children = children(weights);
        (0..count).map(|ticket| round_robin(ticket, &children, |_| true).unwrap().0).collect()
    }

    #[test]
    fn equal_weights_alternate() {
        assert_eq!(turns(&[4, 4, 4], 7), [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn a_cycle_gives_each_its_weight() {
        for weights in [vec![2, 1], vec![5, 1, 1], vec![4, 6], vec![256, 255, 1], vec![1, 2, 3, 4, 5]] {
            let divisor = weights.iter().fold(0, |d, w| common_divisor(*w, d));
            let cycle = weights.iter().sum::<u64>() / divisor;
            for from in [0, 1, cycle - 1, 1 << 40] {
                let mut counts = vec![0; weights.len()];
                let children = children(&weights);
                for ticket in from..from + cycle {
                    counts[round_robin(ticket, &children, |_| true).unwrap().0] += divisor;
                }
                assert_eq!(counts, weights, "tickets from {from}");
            }
        }
    }

    #[test]
    fn unequal_weights_do_not_bunch() {
        // At 3:1, three turns in a row are right and four the most; an order by weight would give 192 in a row.
        let turns = turns(&[192, 64], 1024);
        let longest = turns.chunk_by(|a, b| a == b).map(<[usize]>::len).max();
        assert!(longest <= Some(4), "{longest:?} in a row");
    }

    #[test]
    fn a_group_sees_each_ticket_once() {
        let children = children(&[3, 2, 1]);
        let mut inside: Vec<u64> = (0..600)
            .filter_map(|ticket| round_robin(ticket, &children, |_| true))
            .filter(|c| c.0 == 0)
            .map(|c| c.1)
            .collect();
        inside.sort_unstable();
        assert_eq!(inside, (0..300).collect::<Vec<u64>>());
    }

    #[test]
    fn the_last_ticket_is_a_ticket() {
        assert!(round_robin(u64::MAX, &children(&[3, 2, 1]), |_| true).is_some());
        assert_eq!(round_robin(u64::MAX, &children(&[3, 2, 1]), |_| false), None);
    }

    #[test]
    fn two_choices_are_two() {
        let children = children(&[1, 1]);
        for draw in 0..100 {
            assert_eq!(two_choices(0, draw, &children, |_| true, |rank| [9, 3][rank]), Some(1));
            assert_eq!(two_choices(0, draw, &children, |rank| rank == 0, |_| 9), Some(0));
        }
    }

    #[test]
    fn least_connections_weighs_leases_and_takes_turns_on_equals() {
        let children = children(&[1, 2, 1]);
        assert_eq!(least_connections(0, &children, |_| true, |rank| [1, 2, 1][rank]), Some(1));
        assert_eq!(least_connections(0, &children, |rank| rank != 1, |_| 4), Some(0));
        assert_eq!(least_connections(2, &children, |rank| rank != 1, |_| 4), Some(2));
        assert_eq!(least_connections(0, &children, |_| true, |_| u64::MAX), Some(1));
    }
}
