//! [`Drain`]: what the drain of the process means for kept connections of clients.
//!
//! Closes nothing. A client that is not told of the end may send its next request at the moment of a close, and would
//! not know if that was processed: it repeats a GET at most, and no POST. So a kept connection lives on for [`QUIET`]
//! at least, and a request that comes meanwhile is served and its response says `Connection: close`; a client without
//! a request for so long rarely sends one just then. Connections end spread over [`SPREAD`], because most clients
//! connect again at once. Invariant: every response with a head that is written during a drain ends its connection, but
//! for those in front of a request that has come in the first [`QUIET`].

use std::cell::Cell;

use crate::clock::Micros;

/// Shortest time without a request after which a kept connection ends, from the drain's begin or its last response.
const QUIET: Micros = 1_000_000;

/// Time over which the ends of connections are spread that became quiet together.
const SPREAD: Micros = 1_000_000;

/// The drain of the process, as one thread sees it.
#[derive(Debug, Default)]
pub struct Drain {
    since: Cell<Option<Micros>>,
}

impl Drain {
    /// Begins the drain; a second call changes nothing.
    pub fn begin(&self, now: Micros) {
        if self.since.get().is_none() {
            self.since.set(Some(now));
        }
    }

    /// When the drain began; `None`: the process does not drain.
    pub fn began(&self) -> Option<Micros> {
        self.since.get()
    }

    /// True for a connection that was accepted before the drain began.
    pub fn began_after(&self, accepted: Micros) -> bool {
        self.since.get().is_some_and(|since| accepted < since)
    }

    /// When the connection of this number ends that has been without a request since `idle_since`; `None`: the process
    /// does not drain.
    pub fn end_of_kept(&self, idle_since: Micros, id: u64) -> Option<Micros> {
        let spread = (u128::from(id.wrapping_mul(0x9e37_79b9_7f4a_7c15)) * u128::from(SPREAD)) >> 64;
        Some(self.since.get()?.max(idle_since) + QUIET + spread as Micros)
    }

    /// True if a response ends its connection. `next_has_come`: the next request is behind the one that is served.
    pub fn ends_behind_response(&self, next_has_come: bool, now: impl FnOnce() -> Micros) -> bool {
        self.since.get().is_some_and(|since| !next_has_come || now() >= since + QUIET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_connections_end_one_after_the_other_behind_a_quiet_second() {
        let drain = Drain::default();
        assert_eq!(drain.end_of_kept(5, 1), None);
        drain.begin(10_000_000);
        drain.begin(99_000_000);
        let mut ends: Vec<_> = (0..1_000).map(|id| drain.end_of_kept(5, id).expect("it drains")).collect();
        ends.sort_unstable();
        assert!(ends[0] >= 10_000_000 + QUIET && ends[999] < 10_000_000 + QUIET + SPREAD);
        let tenths = (1..=10).map(|tenth| ends.partition_point(|end| *end < 11_000_000 + tenth * SPREAD / 10));
        assert!(tenths.zip(1..).all(|(ended, tenth)| ended.abs_diff(tenth * 100) < 20), "{ends:?}");
        assert!(drain.end_of_kept(12_000_000, 0) >= Some(12_000_000 + QUIET), "a response came meanwhile");
    }

    #[test]
    fn a_connection_is_older_than_the_drain_if_it_was_accepted_before() {
        let drain = Drain::default();
        assert!(!drain.began_after(5));
        drain.begin(10);
        assert_eq!([9, 10, 11].map(|accepted| drain.began_after(accepted)), [true, false, false]);
    }

    #[test]
    fn responses_end_their_connections_but_those_before_a_request_that_has_come() {
        let drain = Drain::default();
        assert!(!drain.ends_behind_response(false, || 5));
        drain.begin(10_000_000);
        assert!(drain.ends_behind_response(false, || 10_000_000));
        assert!(!drain.ends_behind_response(true, || 10_000_000 + QUIET - 1));
        assert!(drain.ends_behind_response(true, || 10_000_000 + QUIET), "however many requests a client sends");
    }
}
