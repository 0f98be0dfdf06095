//! The first fit backend in the order of placement: of all, of a pin, or of those near to a location.
//!
//! Judges no backend (its callers do). Invariant: of the backends that a caller finds fit, placement alone chooses, so a
//! key without a pin and without a location to be near to has the same one everywhere.

use super::candidates::Candidates;
use super::health::CheckState;
use super::placement_key::PlacementKey;
use super::scene::HealthView;
use crate::placement::Known;

impl<V: HealthView> Candidates<'_, '_, V> {
    /// Backend where the key belongs. A backend that awaits its first good check has never had a key.
    pub(super) fn home(&self, key: &PlacementKey<'_>) -> Option<usize> {
        self.first(key, &[], |index| self.pool.backends[index].standing() != CheckState::Awaited, key.strict())
    }

    /// First fit backend of the pin, then, unless `pin_only`, first fit backend of all.
    #[inline]
    pub(super) fn first(
        &self,
        key: &PlacementKey<'_>,
        near: &[String],
        fit: impl Fn(usize) -> bool,
        pin_only: bool,
    ) -> Option<usize> {
        let Some(pin) = key.pin() else { return self.nearest(key, near, fit) };
        let own = self.nearest(key, near, |index| pin.allows(index) && fit(index));
        own.or_else(|| if pin_only { None } else { self.nearest(key, near, fit) })
    }

    /// First fit backend among those that share the most levels of this location. Backups are last also there.
    #[inline]
    fn nearest(&self, key: &PlacementKey<'_>, near: &[String], fit: impl Fn(usize) -> bool) -> Option<usize> {
        let leases = |index: usize| self.pool.backends[index].leases();
        let known = |index: usize| self.known_at(index);
        let known: Known<'_> = if key.by_load() { Some(&known) } else { None };
        let place = |levels: usize| {
            let is_near = |index| levels == 0 || self.pool.levels_near(index, near) >= levels;
            self.pool.placement.place_evenly(key.draw, |index| is_near(index) && fit(index), leases, known)
        };
        (0..=near.len()).rev().find_map(place)
    }
}
