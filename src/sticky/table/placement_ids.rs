//! Numbers for placements in the entries of a stick table.
//!
//! Handles digests and numbers, not placements. Invariant: two placements of a stick table never share a number, as
//! long as there were no more than [`PLACEMENT_IDS`] of them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::entry::{PLACEMENT_IDS, PlacementId};

/// Digests by number. Used when a snapshot is built, never for a connection.
#[derive(Debug)]
pub(super) struct PlacementIds(Mutex<[Option<u64>; PLACEMENT_IDS]>);

impl Default for PlacementIds {
    fn default() -> Self {
        Self(Mutex::new([None; PLACEMENT_IDS]))
    }
}

impl PlacementIds {
    /// The number of a digest: its remainder, which is equal in every process, or else the next free number. When no
    /// number is free, the digest takes the number of its remainder from another one.
    pub(super) fn of(&self, digest: u64) -> PlacementId {
        let mut digests = self.digests();
        let own = (digest % PLACEMENT_IDS as u64) as usize;
        let mut places = (own..PLACEMENT_IDS).chain(0..own);
        let place = places.find(|place| digests[*place].is_none_or(|known| known == digest)).unwrap_or(own);
        digests[place] = Some(digest);
        PlacementId::at(place)
    }

    /// The digests by their numbers.
    pub(super) fn all(&self) -> [Option<u64>; PLACEMENT_IDS] {
        *self.digests()
    }

    /// The number of a digest that another instance has named: as [`of`](Self::of), but no digest loses its number to it.
    /// When no number is free, it gets that of another placement than `current`.
    pub(super) fn among(&self, digest: u64, current: PlacementId) -> PlacementId {
        let is_room = self.digests().iter().any(|known| known.is_none_or(|known| known == digest));
        if is_room { self.of(digest) } else { PlacementId::at(current.place() + 1) }
    }

    /// Maps numbers of another table to numbers of this one; `None` for a number without a placement there.
    pub(super) fn translate(&self, there: &Self) -> impl Fn(PlacementId) -> Option<PlacementId> + use<> {
        let digests = *there.digests();
        let here = digests.map(|digest| digest.map(|digest| self.of(digest)));
        move |placement_id| here[placement_id.place()]
    }

    /// Locks the list. A poisoned lock is taken as well: every step leaves the list consistent.
    fn digests(&self) -> MutexGuard<'_, [Option<u64>; PLACEMENT_IDS]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placements_differ_in_their_number_also_where_their_digests_nearly_agree() {
        let placement_ids = PlacementIds::default();
        let digests: Vec<u64> = (0..PLACEMENT_IDS as u64).map(|n| 5 + n * PLACEMENT_IDS as u64).collect();
        let mut given: Vec<_> = digests.iter().map(|digest| placement_ids.of(*digest).place()).collect();
        assert_eq!(given[0], 5, "as in any process");
        assert!(digests.iter().zip(&given).all(|(digest, place)| placement_ids.of(*digest).place() == *place));
        given.sort_unstable();
        given.dedup();
        assert_eq!(given.len(), PLACEMENT_IDS);
        let current = placement_ids.of(digests[9]);
        assert_ne!(placement_ids.among(7, current), current);
        assert_eq!(placement_ids.all()[7], Some(digests[2]), "no digest has lost its number");
        assert_eq!(placement_ids.among(digests[9], current), current);
        assert_eq!(placement_ids.of(7).place(), 7, "one more than there is room for");
    }

    #[test]
    fn a_placement_is_known_by_its_number_in_another_memory() {
        let (here, there) = (PlacementIds::default(), PlacementIds::default());
        let (first, second) = (5, 5 + PLACEMENT_IDS as u64);
        here.of(second);
        let (old, new) = (there.of(first), there.of(second));
        assert_ne!(old.place(), new.place());
        let translate = here.translate(&there);
        assert_eq!(translate(new).map(PlacementId::place), Some(here.of(second).place()));
        assert_eq!(translate(old).map(PlacementId::place), Some(here.of(first).place()));
        assert!(translate(PlacementId::at(40)).is_none());
    }
}
