//! How many of everything.

use std::ops::Range;
use std::time::Duration;

/// How large the scenarios are.
#[derive(Debug, Clone)]
pub struct Scale {
    /// Clients that are active.
    pub clients: u32,
    /// New ones after each change.
    pub fresh: u32,
    /// Visits under way at the same time.
    pub parallel: usize,
    /// How often one backend flaps.
    pub flaps: u32,
    /// Reloads under load.
    pub reloads: u32,
    /// Restarts of a backend under load.
    pub restarts: u32,
    /// Connections open at once on the campus.
    pub campus: u32,
    /// What their small number may add to largest over mean.
    pub noise: f64,
    /// Idle and busy connections of the backend that is drained, and over how long they are closed.
    pub idle: u32,
    /// See `idle`.
    pub busy: u32,
    /// See `idle`.
    pub drain_over: Duration,
    /// How long connections are held in spite of `remember`.
    pub hold: Duration,
    /// By how much the busiest second of a drain may exceed the mean.
    pub pace: f64,
}

impl Scale {
    /// Within seconds, beside other tests: a second that is late makes the next one busier.
    pub fn small() -> Self {
        Self {
            clients: 1_000,
            fresh: 100,
            parallel: 64,
            flaps: 3,
            reloads: 10,
            restarts: 2,
            campus: 1_000,
            noise: 0.25,
            idle: 300,
            busy: 20,
            drain_over: Duration::from_secs(3),
            hold: Duration::from_secs(2),
            pace: 2.0,
        }
    }

    /// Their addresses: 127.16.0.0 and upwards.
    pub fn sources(&self) -> Range<u32> {
        FIRST..FIRST + self.clients
    }

    /// Those of the n-th group of new ones.
    pub fn fresh_sources(&self, group: u32) -> Range<u32> {
        let first = FIRST + self.clients + group * self.fresh;
        first..first + self.fresh
    }
}

const FIRST: u32 = 0x7f10_0000;
