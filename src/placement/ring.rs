//! The consistent ring: every child owns points; a key belongs to the next point clockwise.
//!
//! Handles one group, no levels. Invariant: a point's position depends on its child alone, so a child that comes or
//! goes moves only the keys in front of its own points.

use super::child::Child;
use super::hash;

/// Low bits of a word, which hold the rank of the point's owner; the upper 40 bits hold the position.
const RANK_BITS: u32 = 24;

/// Points in one sorted array, with an index into it; 12 to 16 bytes a point.
#[derive(Debug)]
pub(super) struct Ring {
    /// Points as position and rank, in rising order.
    words: Box<[u64]>,
    /// Index of the first word in each slice of the ring; there are as many equal slices as points, up to a power of
    /// two.
    slices: Box<[u32]>,
    /// Number of bits by which a position is shifted to give its slice.
    shift: u32,
}

impl Ring {
    /// Places `points` × weight points for each child.
    pub(super) fn new(seed: u64, children: &[Child], points: u32) -> Self {
        let count = |child: &Child| u64::from(points) * child.weight;
        let mut words = Vec::with_capacity(children.iter().map(count).sum::<u64>() as usize);
        for (rank, child) in children.iter().enumerate() {
            words.extend((0..count(child)).map(|point| position(hash::pair(seed, child.hash, point)) | rank as u64));
        }
        words.sort_unstable();
        let bits = words.len().max(2).next_power_of_two().trailing_zeros();
        let shift = u64::BITS - bits;
        let mut slices = Vec::with_capacity(1 << bits);
        let mut next = 0;
        for slice in 0..1_u64 << bits {
            while words.get(next).is_some_and(|word| word >> shift < slice) {
                next += 1;
            }
            slices.push(next as u32);
        }
        Self { words: words.into(), slices: slices.into(), shift }
    }

    /// The rank of the first owner clockwise.
    #[inline]
    pub(super) fn home(&self, draw: u64) -> Option<usize> {
        self.words.get(self.start(draw)).map(|word| owner(*word))
    }

    /// The rank of the first usable owner clockwise.
    pub(super) fn choose(&self, draw: u64, children: usize, usable: impl Fn(usize) -> bool) -> Option<usize> {
        // Without a usable child the search would walk the whole ring.
        if !(0..children).any(&usable) {
            return None;
        }
        self.clockwise(draw).map(owner).find(|rank| usable(*rank))
    }

    /// Distance clockwise to the child's nearest point, as a part of the ring, for display.
    pub(super) fn score(&self, draw: u64, rank: usize) -> String {
        let distance = self
            .clockwise(draw)
            .find(|word| owner(*word) == rank)
            .map_or(u64::MAX, |word| position(word).wrapping_sub(position(draw)));
        let billionths = (u128::from(distance) * 1_000_000_000) >> 64;
        format!("+0.{billionths:09}")
    }

    /// Index of the first point at or after the draw.
    #[inline]
    fn start(&self, draw: u64) -> usize {
        let target = position(draw);
        let mut index = self.slices[(target >> self.shift) as usize] as usize;
        while self.words.get(index).is_some_and(|word| *word < target) {
            index += 1;
        }
        if index < self.words.len() { index } else { 0 }
    }

    /// All points, once round, from the draw on.
    fn clockwise(&self, draw: u64) -> impl Iterator<Item = u64> {
        let (before, after) = self.words.split_at(self.start(draw));
        after.iter().chain(before).copied()
    }
}

/// The position of a hash or word: all but its lowest bits.
#[inline]
fn position(word: u64) -> u64 {
    word >> RANK_BITS << RANK_BITS
}

/// The rank of the owner in a word.
#[inline]
fn owner(word: u64) -> usize {
    (word & ((1 << RANK_BITS) - 1)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_finds_what_a_search_of_all_points_finds() {
        for (children, points) in [(1, 1), (1, 2), (2, 1), (3, 7), (10, 160)] {
            let children: Vec<Child> =
                (0..children).map(|n| Child::leaf(hash::leaf(9, &n.to_string()), n + 1, 0)).collect();
            let ring = Ring::new(9, &children, points);
            assert!(ring.words.is_sorted());
            let edges =
                ring.words.iter().flat_map(|word| [*word, word.wrapping_sub(1 << 24), word.wrapping_add(1 << 24)]);
            for draw in edges.chain([0, 1, u64::MAX]) {
                let found = ring.words.iter().position(|word| word >> 24 >= draw >> 24).unwrap_or(0);
                assert_eq!(ring.start(draw), found, "draw {draw:x} among {} points", ring.words.len());
            }
        }
    }

    #[test]
    fn a_point_costs_at_most_sixteen_bytes() {
        for weight in [1, 3, 11, 100, 500] {
            let ring = Ring::new(0, &[Child::leaf(1, weight, 0), Child::leaf(2, weight, 1)], 160);
            let bytes = ring.words.len() * 8 + ring.slices.len() * 4;
            assert!((12..=16).contains(&bytes.div_ceil(ring.words.len())), "{bytes} for {}", ring.words.len());
        }
    }
}
