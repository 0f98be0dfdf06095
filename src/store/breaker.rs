//! Whether the store is asked at all.
//!
//! Knows no store and no clock. Invariant: whoever looks pays one atomic load; five failures in a row leave the store
//! alone, and only [`close`](Breaker::close) has it asked again.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Failures in a row after which the store is left alone.
pub const FAILURES: u32 = 5;

const OFF: u64 = 0;
const OPEN: u64 = 1;
const WORKING: u64 = 2;
const BITS: u64 = 2;

/// What everybody looks at before asking.
#[derive(Debug, Default)]
pub struct Breaker {
    /// Times it was closed, and in the lowest two bits how it stands.
    word: AtomicU64,
    failures: AtomicU32,
}

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// There is no store.
    Off,
    /// There is one, and nobody asks it.
    Open,
    /// It is asked. The number is another one each time that this begins.
    Working(u64),
}

impl Breaker {
    /// How it stands now.
    #[inline]
    pub fn look(&self) -> BreakerState {
        let word = self.word.load(Relaxed);
        match word & WORKING {
            WORKING => BreakerState::Working(word >> BITS),
            _ if word & OPEN == OPEN => BreakerState::Open,
            _ => BreakerState::Off,
        }
    }

    /// What was asked since `since` has failed; whether that was once too often.
    pub fn failed(&self, since: u64) -> bool {
        self.look() == BreakerState::Working(since)
            && self.failures.fetch_add(1, Relaxed) + 1 >= FAILURES
            && self.change(since << BITS | WORKING, since << BITS | OPEN)
    }

    /// It was answered in time.
    #[inline]
    pub fn succeeded(&self) {
        if self.failures.load(Relaxed) > 0 {
            self.failures.store(0, Relaxed);
        }
    }

    /// Nobody asks any more; whether somebody did before.
    pub fn open(&self) -> bool {
        let before = self.word.load(Relaxed);
        before & OPEN == 0 && self.change(before, before & !(OPEN | WORKING) | OPEN) && before & WORKING == WORKING
    }

    /// It is asked again.
    pub fn close(&self) {
        self.failures.store(0, Relaxed);
        let before = self.word.load(Relaxed);
        self.word.store(((before >> BITS) + 1) << BITS | WORKING, Relaxed);
    }

    /// There is no store any more.
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
        assert!(!breaker.open(), "nobody asked before");
        assert_eq!(breaker.look(), BreakerState::Open);
        breaker.close();
        breaker.off();
        assert_eq!(breaker.look(), BreakerState::Off);
    }
}
