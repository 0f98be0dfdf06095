//! [`Tally`]: a number for each seat, and all of them joined: their sum, their smallest, their common divisor.
//!
//! A binary tree in one array: node `i` joins the nodes `2i` and `2i + 1`, and the seats are its leaves. Any thread
//! writes any seat, without a lock: behind the write of a node it reads what the node is made of once more, so the last
//! write never misses a later change below it. Knows neither weights nor leases. Invariant: a seat costs a step for each
//! doubling of the number of seats; and once no thread writes, every node is the join of both below it.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use crate::counters::Padded;

/// Nodes that stand together, apart from everything else: a connection may write some of one tally, and each pick reads
/// several tallies.
const BLOCK: usize = 16;

/// Numbers by seat, joined pair by pair.
#[derive(Debug)]
pub(super) struct Tally {
    /// The root at 1, seat `n` at `first + n`; 0 is not used.
    nodes: Box<[Padded<[AtomicU64; BLOCK]>]>,
    first: usize,
    join: fn(u64, u64) -> u64,
}

impl Tally {
    /// Begins with `empty` at every seat; joined with it, a number stays what it is.
    pub(super) fn new(seats: usize, empty: u64, join: fn(u64, u64) -> u64) -> Self {
        let first = seats.next_power_of_two();
        let block = |_| Padded(std::array::from_fn(|_| AtomicU64::new(empty)));
        Self { nodes: (0..(2 * first).div_ceil(BLOCK)).map(block).collect(), first, join }
    }

    /// All numbers joined.
    #[inline]
    pub(super) fn all(&self) -> u64 {
        self.value(1)
    }

    /// The number of one seat.
    #[inline]
    pub(super) fn number(&self, seat: usize) -> u64 {
        self.value(self.first + seat)
    }

    /// Writes a seat. `number` is called once or more: what it returns may change at any time, as long as a call of
    /// `set` follows each change.
    pub(super) fn set(&self, seat: usize, number: impl Fn() -> u64) {
        let mut node = self.first + seat;
        let mut changed = self.write(node, number);
        while changed && node > 1 {
            node /= 2;
            changed = self.write(node, || (self.join)(self.value(2 * node), self.value(2 * node + 1)));
        }
    }

    /// For a tally of sums: the seat that owns `place`, where the seats own consecutive intervals as long as their
    /// numbers, from 0 on; and the place inside the interval. A thread that writes meanwhile may lead to a wrong seat.
    #[inline]
    pub(super) fn owner(&self, mut place: u64) -> (usize, u64) {
        let mut node = 1;
        while node < self.first {
            let left = self.value(2 * node);
            let right = place >= left;
            place -= if right { left } else { 0 };
            node = 2 * node + usize::from(right);
        }
        (node - self.first, place)
    }

    /// For a tally of the smallest: the first seat from `from` on with a number of at most `most`.
    pub(super) fn first_at_most(&self, from: usize, most: u64) -> Option<usize> {
        let mut node = self.first + from;
        while self.value(node) > most {
            // To the next subtree on the right; behind the last one there is no node.
            node = (node + 1) >> (node + 1).trailing_zeros();
            if node == 1 {
                return None;
            }
        }
        while node < self.first {
            node = 2 * node + usize::from(self.value(2 * node) > most);
        }
        Some(node - self.first)
    }

    #[inline]
    fn value(&self, node: usize) -> u64 {
        self.node(node).load(SeqCst)
    }

    #[inline]
    fn node(&self, node: usize) -> &AtomicU64 {
        &self.nodes[node / BLOCK].0[node % BLOCK]
    }

    /// Writes a node until it is what `number` returns; false if it was so before.
    fn write(&self, node: usize, number: impl Fn() -> u64) -> bool {
        let mut changed = false;
        loop {
            let number = number();
            if self.value(node) == number {
                return changed;
            }
            self.node(node).store(number, SeqCst);
            changed = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    fn sums(numbers: &[u64]) -> Tally {
        let tally = Tally::new(numbers.len(), 0, |a, b| a + b);
        numbers.iter().enumerate().for_each(|(seat, number)| tally.set(seat, || *number));
        tally
    }

    #[test]
    fn a_tally_without_seats_and_one_of_a_single_seat_are_tallies() {
        assert_eq!(sums(&[]).all(), 0);
        assert_eq!((sums(&[5]).all(), sums(&[5]).owner(3)), (5, (0, 3)));
        let least = Tally::new(1, u64::MAX, u64::min);
        assert_eq!(least.first_at_most(0, 7), None);
        least.set(0, || 7);
        assert_eq!((least.first_at_most(0, 7), least.first_at_most(0, 6)), (Some(0), None));
    }

    #[test]
    fn a_block_of_nodes_is_one_block_of_memory() {
        assert_eq!(size_of::<Padded<[AtomicU64; BLOCK]>>(), align_of::<Padded<u8>>());
        assert_eq!(std::ptr::from_ref(sums(&[1, 2, 3]).node(0)).addr() % align_of::<Padded<u8>>(), 0);
    }

    proptest! {
        #[test]
        fn a_place_belongs_to_the_seat_that_counting_finds(numbers in prop::collection::vec(0..5_u64, 1..40)) {
            let tally = sums(&numbers);
            let owners = numbers.iter().enumerate().flat_map(|(seat, n)| (0..*n).map(move |inside| (seat, inside)));
            let owners: Vec<_> = owners.collect();
            prop_assert_eq!(tally.all(), owners.len() as u64);
            for (place, owner) in owners.into_iter().enumerate() {
                prop_assert_eq!(tally.owner(place as u64), owner);
            }
        }

        #[test]
        fn the_first_small_number_is_the_one_that_a_look_at_all_finds(
            numbers in prop::collection::vec(0..9_u64, 1..40), from: prop::sample::Index, most in 0..9_u64,
        ) {
            let tally = Tally::new(numbers.len(), u64::MAX, u64::min);
            numbers.iter().enumerate().for_each(|(seat, number)| tally.set(seat, || *number));
            let from = from.index(numbers.len());
            let found = (from..numbers.len()).find(|seat| numbers[*seat] <= most);
            prop_assert_eq!(tally.first_at_most(from, most), found);
            prop_assert_eq!(tally.all(), *numbers.iter().min().unwrap());
        }
    }

    #[test]
    fn a_write_that_changes_nothing_above_stops_there() {
        let calls = AtomicU64::new(0);
        let least = Tally::new(1_024, u64::MAX, |a, b| a.min(b));
        (0..1_024).for_each(|seat| least.set(seat, || 3));
        least.set(700, || {
            calls.fetch_add(1, SeqCst);
            4
        });
        assert_eq!((least.all(), calls.load(SeqCst)), (3, 2), "written, and read once more");
        let sum = sums(&[1; 1_024]);
        assert_eq!(sum.owner(1_023), (1_023, 0));
    }

    /// Threads change numbers and write their seats in any order; in the end nothing is missed.
    #[test]
    fn what_threads_write_at_the_same_time_is_not_lost() {
        const SEATS: usize = 5;
        for round in 0..200_u64 {
            let numbers: Vec<AtomicU64> = (0..SEATS).map(|_| AtomicU64::new(100)).collect();
            let (sum, least) = (Tally::new(SEATS, 0, |a, b| a + b), Tally::new(SEATS, u64::MAX, u64::min));
            thread::scope(|scope| {
                for thread in 0..3 {
                    let (numbers, sum, least) = (&numbers, &sum, &least);
                    scope.spawn(move || {
                        for turn in 0..60 {
                            let seat = ((turn * 7 + thread * 3 + round) % SEATS as u64) as usize;
                            if (turn + thread) % 2 == 0 {
                                numbers[seat].fetch_add(1 + turn % 3, SeqCst);
                            } else {
                                numbers[seat].fetch_sub(1, SeqCst);
                            }
                            sum.set(seat, || numbers[seat].load(SeqCst));
                            least.set(seat, || numbers[seat].load(SeqCst));
                        }
                    });
                }
            });
            let numbers: Vec<u64> = numbers.iter().map(|number| number.load(SeqCst)).collect();
            assert_eq!(sum.all(), numbers.iter().sum::<u64>(), "{numbers:?}");
            assert_eq!(least.all(), *numbers.iter().min().unwrap(), "{numbers:?}");
        }
    }
}
