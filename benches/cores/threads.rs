//! Times what threads do at the same time, each pinned to a core of its own.
//!
//! Knows nothing of what it times. Invariant: a round begins when all its threads are ready, so the work of one goes on
//! beside that of the other.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Instant;

use rustix::thread::{CpuSet, sched_setaffinity};

/// Operations of a short round: fewer than a turn of the kernel's scheduler has room for.
const SHORT: u64 = 1_000;
/// Short rounds for each of the others.
const MANY: usize = 20;

/// How much is measured.
pub struct Stopwatch {
    /// Cores that this process may use.
    pub cores: Vec<usize>,
    /// Rounds, of which the median counts.
    pub rounds: usize,
    /// Operations of a thread in a round.
    pub operations: u64,
}

impl Stopwatch {
    /// Nanoseconds of one operation, by thread. `prepare` gets the number of the thread, `operate` what it returned and
    /// the number of the operation.
    pub fn time<S>(
        &self,
        threads: usize,
        operations: u64,
        prepare: impl Fn(usize) -> S + Sync,
        operate: impl Fn(&mut S, u64) + Sync,
    ) -> Vec<f64> {
        let mut rounds: Vec<Vec<f64>> =
            (0..self.rounds).map(|_| self.round(threads, operations, &prepare, &operate)).collect();
        let median = |thread: usize| {
            rounds.sort_by(|a, b| a[thread].total_cmp(&b[thread]));
            rounds[rounds.len() / 2][thread]
        };
        (0..threads).map(median).collect()
    }

    /// Nanoseconds of one operation of two threads that wait for each other, in the fastest of many short rounds: a thread
    /// that is kept from its core makes a round slower, and never faster.
    pub fn fastest<S>(&self, prepare: impl Fn(usize) -> S + Sync, operate: impl Fn(&mut S, u64) + Sync) -> f64 {
        let operations = self.operations.min(SHORT);
        let rounds = (0..MANY * self.rounds).map(|_| self.round(2, operations, &prepare, &operate)[0]);
        rounds.fold(f64::INFINITY, f64::min)
    }

    fn round<S>(
        &self,
        threads: usize,
        operations: u64,
        prepare: &(impl Fn(usize) -> S + Sync),
        operate: &(impl Fn(&mut S, u64) + Sync),
    ) -> Vec<f64> {
        let ready = AtomicUsize::new(0);
        let run = |number: usize| {
            self.pin(number);
            let mut state = prepare(number);
            ready.fetch_add(1, SeqCst);
            while ready.load(SeqCst) < threads {
                // A thread that spins would keep the other from its core where there is only one.
                thread::yield_now();
            }
            let began = Instant::now();
            (0..operations).for_each(|operation| operate(&mut state, operation));
            began.elapsed().as_nanos() as f64 / operations as f64
        };
        thread::scope(|scope| {
            let running: Vec<_> = (0..threads).map(|number| scope.spawn(move || run(number))).collect();
            running.into_iter().map(|thread| thread.join().expect("a thread ends")).collect()
        })
    }

    fn pin(&self, number: usize) {
        let mut set = CpuSet::new();
        set.set(self.cores[number % self.cores.len()]);
        // Where that is not allowed, the kernel chooses the core.
        let _ = sched_setaffinity(None, &set);
    }
}
