//! What becomes of a backend that the source of its pool does not name, or that an order has removed:
//! [`Backend::heed_source`]; and of one that has a name without an address: [`Pool::await_addresses`].
//!
//! Looks at no source and asks for no name (`discovery` does). Invariant: a drain by command, and what checks have found,
//! is there again when the source names the backend again.

use std::sync::atomic::Ordering::Relaxed;

use super::backend::lock;
use super::{Backend, DrainTimes, Pool};
use crate::config::{Absence, Address, OnMarkedDown, Vanish};

impl Backend {
    /// Drains the backend, or has it be down, because its source does not name it; with `None`, ends that.
    fn heed_source(&self, absence: Option<(Absence, Vanish)>, on_marked_down: OnMarkedDown) {
        let drains = absence.filter(|(_, vanish)| *vanish != Vanish::Down).map(|(absence, _)| absence);
        let times = drains.map(|Absence { since_ms, deadline_ms }| DrainTimes { since_ms, deadline_ms });
        if self.drain.heed_source(times) {
            self.ready_changed();
        }
        let checks = lock(&self.checks);
        // A backend at a new address can be missing from the start.
        if self.drain.set_missing(absence.is_some() && times.is_none()) || self.drain.is_missing() {
            self.show_standing(checks.checked.standing(), on_marked_down);
        }
    }

    /// True if no address is known of the name that is written as its address.
    pub fn has_no_address(&self) -> bool {
        matches!(self.address(), Address::Name(_))
    }

    /// True if the backend drains, or is down, because its source does not name it.
    pub fn has_left_source(&self) -> bool {
        self.drain.has_left_source()
    }
}

impl Pool {
    /// Marks each backend down of which the name has no address, until a snapshot has another backend in its place. A pool
    /// that is only imagined takes it for up.
    pub fn await_addresses(&self) {
        for backend in self.backends.iter().filter(|backend| backend.has_no_address()) {
            let checks = lock(&backend.checks);
            backend.drain.awaits_address.store(true, Relaxed);
            backend.show_standing(checks.checked.standing(), self.config.on_marked_down);
        }
    }

    /// Puts in force which backends the source does not name, and which ones an order has removed.
    pub(super) fn put_absences_in_force(&self) {
        let vanish = self.config.discover.as_ref().map_or(Vanish::Remove, |discover| discover.vanish);
        for (backend, config) in self.backends.iter().zip(&self.config.backends) {
            // One that an order removes drains, whatever the source's rule is.
            let vanish = if config.is_found() { vanish } else { Vanish::Drain };
            let absence = config.absence().map(|absence| (absence, vanish));
            backend.heed_source(absence, self.config.on_marked_down);
        }
    }
}
