//! [`Lineup`]: which members are usable and how loaded they are, kept between picks for the methods without a key.
//!
//! The methods ask it instead of every member. Decides neither which member is usable nor which one is chosen: the
//! caller notes the one, `spread.rs` has the rules of the other. Takes no lock. Invariant: while no thread notes a
//! member, a choice from a lineup is the choice that a look at every member makes.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::spread::{Share, Shares, Turns, UsableChildren, common_divisor, step};
use super::tally::Tally;

/// The usable members of one placement.
#[derive(Debug)]
pub struct Lineup {
    pub(super) primary: Kept,
    pub(super) backup: Kept,
}

impl Lineup {
    /// Notes one member. `state` returns its leases, `None` = the member is not usable; it is called several times, and
    /// may return something new at any time, as long as a call of `note` follows each change.
    pub fn note(&self, index: usize, state: impl Fn() -> Option<u64>) {
        self.primary.note(index, &state);
        self.backup.note(index, &state);
    }
}

/// The usable leaves of one tree.
#[derive(Debug)]
pub(super) struct Kept {
    groups: Box<[KeptGroup]>,
    /// Seat of each member, by index; `None`: the tree does not have the member.
    members: Box<[Option<Seat>]>,
    /// Seat of each group in the group above; `None`: the root.
    parents: Box<[Option<Seat>]>,
}

/// A child of a group, by the numbers of both.
#[derive(Debug, Clone, Copy)]
struct Seat {
    group: u32,
    rank: u32,
}

impl Kept {
    /// The groups of a tree, without members.
    pub(super) fn new(groups: Box<[KeptGroup]>, members: usize) -> Self {
        Self { members: vec![None; members].into(), parents: vec![None; groups.len()].into(), groups }
    }

    /// The member has this rank in a group.
    pub(super) fn seat_member(&mut self, index: usize, group: usize, rank: usize) {
        self.members[index] = Some(Seat { group: group as u32, rank: rank as u32 });
    }

    /// The group `below` has this rank in a group.
    pub(super) fn seat_group(&mut self, below: usize, group: usize, rank: usize) {
        self.parents[below] = Some(Seat { group: group as u32, rank: rank as u32 });
    }

    /// The usable children of a group.
    #[inline]
    pub(super) fn group(&self, number: usize) -> &KeptGroup {
        &self.groups[number]
    }

    /// True if a member is usable.
    #[inline]
    pub(super) fn has_usable(&self) -> bool {
        self.groups.last().is_some_and(|root| root.sum() > 0)
    }

    fn note(&self, index: usize, state: &impl Fn() -> Option<u64>) {
        let Some(seat) = self.members.get(index).copied().flatten() else { return };
        self.groups[seat.group as usize].set(seat.rank as usize, state);
        let mut below = seat.group as usize;
        // A group is usable if anything below it is; the methods by leases have no groups.
        while let Some(seat) = self.parents[below] {
            let usable = || (self.groups[below].sum() > 0).then_some(0);
            self.groups[seat.group as usize].set(seat.rank as usize, &usable);
            below = seat.group as usize;
        }
    }
}

/// The usable children of one group, by rank.
#[derive(Debug)]
pub(super) struct KeptGroup {
    weights: Box<[u64]>,
    sum: Tally,
    turns: Option<KeptTurns>,
    least: Option<Tally>,
}

#[derive(Debug)]
struct KeptTurns {
    count: Tally,
    divisor: Tally,
    /// A number of turns in the upper half and its step in the lower half, because a step takes long to find.
    step: AtomicU64,
}

impl KeptGroup {
    /// What methods by weight alone ask for.
    pub(super) fn by_weight(weights: impl Iterator<Item = u64>) -> Self {
        let weights: Box<[u64]> = weights.collect();
        Self { sum: Tally::new(weights.len(), 0, |a, b| a + b), weights, turns: None, least: None }
    }

    /// What turns ask for.
    pub(super) fn by_turns(weights: impl Iterator<Item = u64>) -> Self {
        let group = Self::by_weight(weights);
        let tally = |join| Tally::new(group.weights.len(), 0, join);
        let (count, divisor) = (tally(|a, b| a + b), tally(common_divisor));
        Self { turns: Some(KeptTurns { count, divisor, step: AtomicU64::new(0) }), ..group }
    }

    /// What the least loaded is found by.
    pub(super) fn by_leases(weights: impl Iterator<Item = u64>) -> Self {
        let group = Self::by_weight(weights);
        Self { least: Some(Tally::new(group.weights.len(), NOT_USABLE, u64::min)), ..group }
    }

    fn set(&self, rank: usize, state: &impl Fn() -> Option<u64>) {
        let weight = self.weights[rank];
        let if_usable = |number: u64| if state().is_some() { number } else { 0 };
        self.sum.set(rank, || if_usable(weight));
        if let Some(KeptTurns { count, divisor, .. }) = &self.turns {
            count.set(rank, || if_usable(1));
            divisor.set(rank, || if_usable(weight));
        }
        if let Some(least) = &self.least {
            least.set(rank, || state().map_or(NOT_USABLE, |leases| load(leases, weight)));
        }
    }
}

/// The load of a child that is not usable.
const NOT_USABLE: u64 = u64::MAX;

/// Leases beyond which loads are not told apart.
const LEASES_MAX: u64 = u32::MAX as u64 - 1;

/// `(leases + 1) / weight` as an integer in units of 2^-32. Weights have 16 bits, so two loads that differ do so by more
/// than that unit, and loads are ordered, and equal, exactly as the fractions are.
fn load(leases: u64, weight: u64) -> u64 {
    ((leases.min(LEASES_MAX) + 1) << 32).checked_div(weight).unwrap_or(NOT_USABLE)
}

impl Shares for KeptGroup {
    #[inline]
    fn sum(&self) -> u64 {
        self.sum.all()
    }

    #[inline]
    fn owner(&self, place: u64) -> Option<Share> {
        let (rank, inside) = self.sum.owner(place);
        let weight = self.sum.number(rank);
        // Beyond the last interval, or a child has come or gone meanwhile.
        (inside < weight).then(|| Share { rank, start: place - inside, weight })
    }
}

impl UsableChildren for KeptGroup {
    fn all(&self) -> usize {
        self.weights.len()
    }

    fn weight(&self, rank: usize) -> u64 {
        self.weights[rank]
    }

    #[inline]
    fn turns(&self) -> Turns {
        self.turns.as_ref().map_or_else(Turns::default, |turns| Turns {
            count: turns.count.all(),
            sum: self.sum.all(),
            divisor: turns.divisor.all(),
        })
    }

    fn step(&self, turns: u64) -> u64 {
        let cell = self.turns.as_ref().map(|kept| &kept.step);
        let known = cell.map_or(0, |cell| cell.load(Relaxed));
        if known >> 32 == turns {
            return known & u64::from(u32::MAX);
        }
        let step = step(turns);
        if let Some(cell) = cell.filter(|_| turns <= u32::MAX.into()) {
            cell.store(turns << 32 | step, Relaxed);
        }
        step
    }

    fn least_loaded(&self, start: usize) -> Option<usize> {
        let least = self.least.as_ref()?;
        let load = least.all();
        if load == NOT_USABLE {
            return None;
        }
        let found = least.first_at_most(start, load).or_else(|| least.first_at_most(0, load));
        // A thread that writes meanwhile may lead beyond the last seat.
        found.filter(|rank| *rank < self.weights.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::placement::rendezvous::compare;

    proptest! {
        #[test]
        fn loads_are_ordered_as_the_fractions_are(
            leases in 0..70_000_u64, near in 0..3_u64, weight in 1..=65_535_u64, other: u16, even: bool,
        ) {
            let other_weight = if even { weight } else { u64::from(other).max(1) };
            // Close to the same load, on either side of it.
            let other_leases = ((leases + 1) * other_weight / weight + near).saturating_sub(2);
            let fractions = compare(leases + 1, weight, other_leases + 1, other_weight);
            prop_assert_eq!(load(leases, weight).cmp(&load(other_leases, other_weight)), fractions);
        }
    }
}
