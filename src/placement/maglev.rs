//! Maglev's table: children take turns at filling a table of prime size; a key belongs to the owner of its entry.
//!
//! Built without health, which never changes a table. Invariant: every entry has an owner, and the numbers of entries
//! of equal weights differ by one at most.

use super::child::Child;
use super::{hash, rendezvous};

/// Rank of the owner of each entry.
#[derive(Debug)]
pub(super) struct Maglev(Box<[u32]>);

/// Mark of an entry without an owner, while filling.
const FREE: u32 = u32::MAX;

impl Maglev {
    /// Fills a table of `size` entries, a prime number.
    pub(super) fn new(seed: u64, children: &[Child], size: u32) -> Self {
        let size = u64::from(size);
        let mut walks: Vec<Walk> = children.iter().map(|child| Walk::new(seed, child, size)).collect();
        let heaviest = children.iter().map(|child| child.weight).max().unwrap_or(0);
        let mut owners = vec![FREE; size as usize];
        let mut free = if children.is_empty() { 0 } else { size };
        while free > 0 {
            for (rank, (walk, child)) in walks.iter_mut().zip(children).enumerate() {
                if free > 0 && walk.has_turn(child.weight, heaviest) {
                    let entry = walk.next_free(&owners);
                    owners[entry] = rank as u32;
                    free -= 1;
                }
            }
        }
        Self(owners.into())
    }

    /// The entry, or the score that decided when its owner was not usable, for display.
    pub(super) fn score(&self, seed: u64, draw: u64, children: &[Child], rank: usize) -> String {
        if self.home(draw) == rank {
            format!("entry:{}", self.entry(draw))
        } else {
            rendezvous::score(seed, draw, &children[rank])
        }
    }

    #[inline]
    fn entry(&self, draw: u64) -> usize {
        hash::scale(draw, self.0.len() as u64) as usize
    }

    /// The rank of the owner of the draw's entry. Where that child is not usable, rendezvous decides.
    #[inline]
    pub(super) fn home(&self, draw: u64) -> usize {
        self.0[self.entry(draw)] as usize
    }

    /// Number of entries of each child.
    #[cfg(test)]
    pub(super) fn shares(&self, children: usize) -> Vec<usize> {
        let mut shares = vec![0; children];
        self.0.iter().for_each(|owner| shares[*owner as usize] += 1);
        shares
    }
}

/// A child's order of visits: its own permutation of the entries.
struct Walk {
    position: u64,
    skip: u64,
    size: u64,
    credit: u64,
}

impl Walk {
    fn new(seed: u64, child: &Child, size: u64) -> Self {
        let position = hash::scale(hash::pair(seed, child.hash, 0), size);
        let skip = 1 + hash::scale(hash::pair(seed, child.hash, 1), size - 1);
        Self { position, skip, size, credit: 0 }
    }

    /// Adds a round's credit; the heaviest child has a turn in every round, the others in proportion to their weight.
    fn has_turn(&mut self, weight: u64, heaviest: u64) -> bool {
        self.credit += weight;
        let turn = self.credit >= heaviest;
        self.credit -= if turn { heaviest } else { 0 };
        turn
    }

    /// The next free entry in this order. The loop ends because the size is prime, so the visits meet every entry.
    fn next_free(&mut self, owners: &[u32]) -> usize {
        loop {
            let entry = self.position as usize;
            self.position = (self.position + self.skip) % self.size;
            if owners[entry] == FREE {
                return entry;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn children(weights: &[u64]) -> Vec<Child> {
        let child = |(n, weight): (usize, &u64)| Child::leaf(hash::leaf(5, &format!("b{n}")), *weight, n as u32);
        weights.iter().enumerate().map(child).collect()
    }

    #[test]
    fn equal_weights_own_entries_that_differ_by_one() {
        for count in [1, 3, 10, 100] {
            let children = children(&vec![7; count]);
            let shares = Maglev::new(5, &children, 65537).shares(count);
            assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1, "{shares:?}");
        }
    }

    #[test]
    fn entries_follow_weights() {
        let weights = [256, 1, 128, 3, 64];
        let shares = Maglev::new(5, &children(&weights), 65537).shares(5);
        let sum: u64 = weights.iter().sum();
        for (share, weight) in shares.iter().zip(weights) {
            let wanted = 65537 * weight / sum;
            assert!((*share as u64).abs_diff(wanted) <= 2, "weight {weight}: {share}, not {wanted}");
        }
    }

    #[test]
    fn a_table_smaller_than_its_children_is_filled_by_the_first() {
        assert_eq!(Maglev::new(5, &children(&[1, 1, 1]), 2).shares(3), [1, 1, 0]);
    }
}
