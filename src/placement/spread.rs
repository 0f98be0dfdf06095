//! Methods without a key: in turn, at random, by leases.
//!
//! Keeps no counter and makes no random number: the draw brings both. The rules ask for usable children by
//! [`UsableChildren`], which is answered by a look at every child, or by what is kept between picks (`lineup.rs`).
//! Invariant: with equal leases each usable child is chosen in proportion to its weight.

use std::cmp::Ordering;

use super::child::Child;
use super::hash;
use super::rendezvous::compare;

/// 2^64 divided by the golden ratio: with steps of this part of a circle, points stay as far apart as possible.
const GOLDEN: u64 = 0x9e3779b97f4a7c15;

/// Number of keys that are remembered at a member or child, by its index; `None`: nothing is remembered.
pub type Known<'k> = Option<&'k dyn Fn(usize) -> u64>;

/// Children that leases do not tell apart of which `least_connections` compares the known keys; so a choice takes no
/// longer the more children there are.
pub const COMPARED: usize = 8;

/// Usable children by weight. In rank order they own consecutive intervals as long as their weights, from 0 on.
pub(super) trait Shares {
    /// Sum of the weights.
    fn sum(&self) -> u64;

    /// The owner of this place.
    fn owner(&self, place: u64) -> Option<Share>;
}

/// The usable children of a group.
pub(super) trait UsableChildren: Shares {
    /// Number of children, usable or not.
    fn all(&self) -> usize;

    /// Weight of one child.
    fn weight(&self, rank: usize) -> u64;

    /// What turns depend on.
    fn turns(&self) -> Turns;

    /// The step for this number of turns; see [`step`].
    fn step(&self, turns: u64) -> u64 {
        step(turns)
    }

    /// The rank of the least loaded child; among equals the first from `start` on, once round.
    fn least_loaded(&self, start: usize) -> Option<usize>;
}

/// What turns depend on: of the usable children, number, sum of the weights and their common divisor; 0 without any.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Turns {
    pub(super) count: u64,
    pub(super) sum: u64,
    pub(super) divisor: u64,
}

/// A usable child with its interval.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    pub(super) rank: usize,
    pub(super) start: u64,
    pub(super) weight: u64,
}

/// Answers by a look at every child.
pub(super) struct Looked<'a, U, L> {
    pub(super) children: &'a [Child],
    pub(super) usable: U,
    pub(super) leases: L,
}

/// Other children without one of them.
struct Without<'a, C> {
    others: &'a C,
    one: Share,
}

/// Chooses in turn: the rank and, for a group, the subticket inside it.
pub(super) fn round_robin(ticket: u64, children: &impl UsableChildren) -> Option<(usize, u64)> {
    let Turns { count, sum, divisor } = children.turns();
    // A child that another thread takes away may leave a divisor without a sum.
    let turns = sum.checked_div(divisor).filter(|turns| *turns > 0)?;
    let step = if turns == count { 1 } else { children.step(turns) };
    let slot = (u128::from(ticket % turns) * u128::from(step) % u128::from(turns)) as u64;
    let Share { rank, start, weight } = children.owner(slot * divisor)?;
    let (share, before) = (weight / divisor, start / divisor);
    Some((rank, (ticket / turns).wrapping_mul(share).wrapping_add(slot - before)))
}

/// Chooses at random, in proportion to the weights.
pub(super) fn weighted(draw: u64, children: &impl Shares) -> Option<Share> {
    children.owner(hash::scale(draw, children.sum()))
}

/// Chooses the less loaded of two random children; of equals the one with fewer known keys.
pub(super) fn two_choices(
    seed: u64,
    draw: u64,
    children: &impl UsableChildren,
    leases: impl Fn(usize) -> u64,
    known: Known<'_>,
) -> Option<usize> {
    let first = weighted(hash::pair(seed, draw, 0), children)?;
    let second = weighted(hash::pair(seed, draw, 1), &Without { others: children, one: first });
    let load = |share: &Share| leases(share.rank).saturating_add(1);
    let keys = |share: &Share| known.map_or(0, |known| known(share.rank).saturating_add(1));
    let better = |second: &Share| match compare(load(second), second.weight, load(&first), first.weight) {
        Ordering::Equal => known.is_some() && lighter(keys(second), second.weight, keys(&first), first.weight),
        order => order == Ordering::Less,
    };
    Some(second.filter(better).unwrap_or(first).rank)
}

/// Chooses the least loaded child; among equals the one with the fewest known keys, and among equals of that the first
/// from the ticket's rank on.
pub(super) fn least_connections(ticket: u64, children: &impl UsableChildren, known: Known<'_>) -> Option<usize> {
    let all = children.all().max(1);
    let first = children.least_loaded((ticket % all as u64) as usize)?;
    let Some(known) = known else { return Some(first) };
    let keys = |rank: usize| known(rank).saturating_add(1);
    let (mut best, mut last) = ((first, keys(first)), first);
    for _ in 1..COMPARED {
        let Some(next) = children.least_loaded((last + 1) % all).filter(|next| *next != first) else { break };
        let found = (next, keys(next));
        if lighter(found.1, children.weight(next), best.1, children.weight(best.0)) {
            best = found;
        }
        last = next;
    }
    Some(best.0)
}

impl<U: Fn(usize) -> bool, L: Fn(usize) -> u64> Looked<'_, U, L> {
    fn shares(&self) -> impl Iterator<Item = Share> {
        let usable = self.children.iter().enumerate().filter(|(rank, _)| (self.usable)(*rank));
        usable.scan(0, |end, (rank, child)| {
            let start = std::mem::replace(end, *end + child.weight);
            Some(Share { rank, start, weight: child.weight })
        })
    }
}

impl<U: Fn(usize) -> bool, L: Fn(usize) -> u64> Shares for Looked<'_, U, L> {
    fn sum(&self) -> u64 {
        self.shares().map(|share| share.weight).sum()
    }

    fn owner(&self, place: u64) -> Option<Share> {
        self.shares().find(|share| place - share.start < share.weight)
    }
}

impl<U: Fn(usize) -> bool, L: Fn(usize) -> u64> UsableChildren for Looked<'_, U, L> {
    fn all(&self) -> usize {
        self.children.len()
    }

    fn weight(&self, rank: usize) -> u64 {
        self.children[rank].weight
    }

    fn turns(&self) -> Turns {
        self.shares().fold(Turns::default(), |turns, share| Turns {
            count: turns.count + 1,
            sum: turns.sum + share.weight,
            divisor: common_divisor(share.weight, turns.divisor),
        })
    }

    fn least_loaded(&self, start: usize) -> Option<usize> {
        let mut best: Option<(usize, u64)> = None;
        for rank in (start..self.children.len()).chain(0..start).filter(|rank| (self.usable)(*rank)) {
            let load = (self.leases)(rank).saturating_add(1);
            if best.is_none_or(|(best, best_load)| lighter(load, self.weight(rank), best_load, self.weight(best))) {
                best = Some((rank, load));
            }
        }
        best.map(|(rank, _)| rank)
    }
}

impl<C: Shares> Shares for Without<'_, C> {
    fn sum(&self) -> u64 {
        self.others.sum().saturating_sub(self.one.weight)
    }

    fn owner(&self, place: u64) -> Option<Share> {
        let skipped = if place >= self.one.start { self.one.weight } else { 0 };
        self.others.owner(place + skipped)
    }
}

/// Whether one child with its load is less loaded for its weight than another with its own.
fn lighter(load: u64, weight: u64, other_load: u64, other_weight: u64) -> bool {
    compare(load, weight, other_load, other_weight) == Ordering::Less
}

/// The first number from the golden part of `sum` on that has no common divisor with it.
pub(super) fn step(sum: u64) -> u64 {
    let mut step = hash::scale(GOLDEN, sum).max(1);
    while common_divisor(sum, step) != 1 {
        step += 1;
    }
    step
}

/// The greatest common divisor; that of 0 and a number is the number.
pub(super) fn common_divisor(mut a: u64, mut b: u64) -> u64 {
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

    fn looked<U: Fn(usize) -> bool, L: Fn(usize) -> u64>(children: &[Child], usable: U, leases: L) -> Looked<'_, U, L> {
        Looked { children, usable, leases }
    }

    fn in_turn(ticket: u64, children: &[Child]) -> Option<(usize, u64)> {
        round_robin(ticket, &looked(children, |_| true, |_| 0))
    }

    fn turns(weights: &[u64], count: u64) -> Vec<usize> {
        let children = children(weights);
        (0..count).map(|ticket| in_turn(ticket, &children).unwrap().0).collect()
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
                    counts[in_turn(ticket, &children).unwrap().0] += divisor;
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
        let mut inside: Vec<u64> =
            (0..600).filter_map(|ticket| in_turn(ticket, &children)).filter(|c| c.0 == 0).map(|c| c.1).collect();
        inside.sort_unstable();
        assert_eq!(inside, (0..300).collect::<Vec<u64>>());
    }

    #[test]
    fn the_last_ticket_is_a_ticket() {
        let children = children(&[3, 2, 1]);
        assert!(in_turn(u64::MAX, &children).is_some());
        assert_eq!(round_robin(u64::MAX, &looked(&children, |_| false, |_| 0)), None);
    }

    /// Children of which the last one goes while they are read: the divisor is still there, and the sum is not.
    struct Torn;

    impl Shares for Torn {
        fn sum(&self) -> u64 {
            0
        }

        fn owner(&self, _: u64) -> Option<Share> {
            None
        }
    }

    impl UsableChildren for Torn {
        fn all(&self) -> usize {
            1
        }

        fn weight(&self, _: usize) -> u64 {
            0
        }

        fn turns(&self) -> Turns {
            Turns { count: 1, sum: 0, divisor: 3 }
        }

        fn least_loaded(&self, _: usize) -> Option<usize> {
            None
        }
    }

    #[test]
    fn a_child_that_goes_while_it_is_read_is_no_turn() {
        assert_eq!(round_robin(7, &Torn), None);
    }

    #[test]
    fn two_choices_are_two() {
        let children = children(&[1, 1]);
        for draw in 0..100 {
            let leases = |rank| [9, 3][rank];
            assert_eq!(two_choices(0, draw, &looked(&children, |_| true, leases), leases, None), Some(1));
            assert_eq!(two_choices(0, draw, &looked(&children, |rank| rank == 0, leases), leases, None), Some(0));
        }
    }

    #[test]
    fn of_two_that_are_loaded_alike_the_one_with_fewer_known_keys_gets_the_new_one() {
        let even = children(&[1, 1]);
        let none = |_| 0;
        for draw in 0..100 {
            let keys = |rank: usize| [70, 69][rank];
            let choose =
                |leases: fn(usize) -> u64| two_choices(0, draw, &looked(&even, |_| true, leases), leases, Some(&keys));
            assert_eq!((choose(none), choose(|rank| [3, 4][rank])), (Some(1), Some(0)), "load comes first");
            let double = children(&[2, 1]);
            let leases = |rank: usize| [1, 0][rank];
            let keys = |rank: usize| [138, 69][rank];
            let chosen = two_choices(0, draw, &looked(&double, |_| true, leases), leases, Some(&keys));
            assert_eq!(chosen, Some(0), "139 of weight 2 are less than 70 of weight 1");
        }
    }

    #[test]
    fn least_connections_weighs_leases_and_takes_turns_on_equals() {
        let children = children(&[1, 2, 1]);
        assert_eq!(least_connections(0, &looked(&children, |_| true, |rank| [1, 2, 1][rank]), None), Some(1));
        assert_eq!(least_connections(0, &looked(&children, |rank| rank != 1, |_| 4), None), Some(0));
        assert_eq!(least_connections(2, &looked(&children, |rank| rank != 1, |_| 4), None), Some(2));
        assert_eq!(least_connections(0, &looked(&children, |_| true, |_| u64::MAX), None), Some(1));
    }

    #[test]
    fn of_the_least_loaded_the_one_with_the_fewest_known_keys_gets_the_new_one() {
        let children = children(&[1; 12]);
        let keys = |rank: usize| [5, 4, 9, 4, 6, 6, 6, 6, 6, 6, 0, 2][rank];
        let choose = |ticket, leases: fn(usize) -> u64| {
            least_connections(ticket, &looked(&children, |rank| rank != 2, leases), Some(&keys))
        };
        assert_eq!(choose(0, |_| 7), Some(1), "of equals again the first; 10 and 11 are not looked at any more");
        assert_eq!(choose(2, |_| 7), Some(10), "the first eight from 3 on");
        assert_eq!(choose(0, |rank| u64::from(rank != 4)), Some(4), "load comes first");
        assert_eq!(choose(5, |rank| u64::from(!matches!(rank, 3 | 8 | 11))), Some(11));
    }
}
