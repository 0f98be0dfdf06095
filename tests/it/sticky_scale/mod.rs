//! Stickiness by numbers: many sessions over several instances, clients that load places, siblings of a location, and
//! Tomcat, while backends come and go and instances restart.
//!
//! Invariant: each session knows the backend that it began at, and compares every response with it.

mod by_load;
mod carriers;
mod ids_of_servers;
mod siblings;
mod tomcat;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Counts of all tasks of a load.
#[derive(Default)]
struct Tally {
    /// Sessions that have begun.
    begun: AtomicUsize,
    requests: AtomicUsize,
    /// Requests that another backend answered than the one of their session.
    broken: AtomicUsize,
}

impl Tally {
    fn begun(&self) -> usize {
        self.begun.load(Relaxed)
    }
}
