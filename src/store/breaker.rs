//! The circuit breaker of the store.
//!
//! Uses no connection and no clock. Invariant: a look costs one atomic load; five failures in a row open the breaker,
//! and only [`close`](Breaker::close) closes it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Failures in a row that open the breaker.
pub const FAILURES: u32 = 5;

const OFF: u64 = 0;
const OPEN: u64 = 1;
const WORKING: u64 = 2;
const BITS: u64 = 2;

/// State and period in one atomic word.
#[derive(Debug, Default)]
pub struct Breaker {
    /// Number of times it was closed, and in the lowest two bits the state.
    word: AtomicU64,
    failures: AtomicU32,
}

/// States of the breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// There is no store configured.
    Off,
    /// No request is sent to the store.
    Open,
    /// Requests are sent. The number is that of the working period, which grows with each close.
    Working(u64),
}

impl Breaker {
    /// The state now, for one atomic load.
    #[inline]
    pub fn look(&self) -> BreakerState {
        let word = self.word.load(Relaxed);
        match word & WORKING {
            WORKING => BreakerState::Working(word >> BITS),
            _ if word & OPEN == OPEN => BreakerState::Open,
            _ => BreakerState::Off,
        }
    }

    /// Counts a failure of the working period `since`; true if it has opened the breaker.
    pub fn failed(&self, since: u64) -> bool {
        self.look() == BreakerState::Working(since)
            && self.failures.fetch_add(1, Relaxed) + 1 >= FAILURES
            && self.change(since << BITS | WORKING, since << BITS | OPEN)
    }

    /// Counts a reply in time: failures before it do not count any more.
    #[inline]
    pub fn succeeded(&self) {
        if self.failures.load(Relaxed) > 0 {
            self.failures.store(0, Relaxed);
        }
    }

    /// Opens it; true if it was closed before.
    pub fn open(&self) -> bool {
        let before = self.word.load(Relaxed);
        before & OPEN == 0 && self.change(before, before & !(OPEN | WORKING) | OPEN) && before & WORKING == WORKING
    }

    /// Closes it and begins the next working period.
    pub fn close(&self) {
        self.failures.store(0, Relaxed);
        let before = self.word.load(Relaxed);
        self.word.store(((before >> BITS) + 1) << BITS | WORKING, Relaxed);
    }

    /// Switches it off: there is no store any more.
    pub fn off(&self) {
        let before = self.word.load(Relaxed);
        self.word.store(before >> BITS << BITS | OFF, Relaxed);
    }

    fn change(&self, from: u64, to: u64) -> bool {
        self.word.compare_exchange(from, to, Relaxed, Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn working() -> (Breaker, u64) {
        let breaker = Breaker::default();
        breaker.open();
        breaker.close();
        let BreakerState::Working(since) = breaker.look() else { panic!("it was closed") };
        (breaker, since)
    }

    #[test]
    fn five_failures_in_a_row_open_it_and_four_do_not() {
        let (breaker, since) = working();
        for _ in 0..3 {
            assert!((1..FAILURES).all(|_| !breaker.failed(since)));
            breaker.succeeded();
        }
        assert_eq!(breaker.look(), BreakerState::Working(since));
        let opened = (0..FAILURES).filter(|_| breaker.failed(since)).count();
        assert_eq!((opened, breaker.look()), (1, BreakerState::Open));
        assert!(!breaker.failed(since), "once");
    }

    #[test]
    fn failures_of_the_time_before_do_not_count() {
        let (breaker, before) = working();
        assert!(breaker.open() && !breaker.open());
        breaker.close();
        let BreakerState::Working(since) = breaker.look() else { panic!("it was closed") };
        assert_ne!(since, before);
        assert!((0..2 * FAILURES).all(|_| !breaker.failed(before)));
        assert_eq!(breaker.look(), BreakerState::Working(since));
    }

    #[test]
    fn many_threads_open_it_once() {
        for _ in 0..50 {
            let (breaker, since) = working();
            let opened: usize = std::thread::scope(|scope| {
                let fail = || (0..10).filter(|_| breaker.failed(since)).count();
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(fail)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert_eq!((opened, breaker.look()), (1, BreakerState::Open));
        }
    }

    #[test]
    fn without_a_store_it_is_off() {
        let breaker = Breaker::default();
        assert_eq!(breaker.look(), BreakerState::Off);
        assert!(!breaker.open(), "it was not closed before");
        assert_eq!(breaker.look(), BreakerState::Open);
        breaker.close();
        breaker.off();
        assert_eq!(breaker.look(), BreakerState::Off);
    }
}
