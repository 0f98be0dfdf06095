//! `Drain`: the drain of a backend by command, and which clients the backend still serves.
//!
//! Closes nothing; the housekeeping does. A drain in the configuration is weight 0. Invariant: until its deadline a
//! draining backend serves known clients as before; after the deadline it serves no client.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Pool;

/// Deadline of a backend that is not draining.
const NEVER: u64 = u64::MAX;

/// Drain of one backend.
#[derive(Debug)]
pub(super) struct Drain {
    /// End of service for known clients, in milliseconds of the process's clock.
    deadline_ms: AtomicU64,
    /// When the command was given, on the same clock; without meaning for a backend that is not draining.
    since_ms: AtomicU64,
}

impl Drain {
    /// Takes over the drain of the backend that had this name before.
    pub(super) fn carried(before: Option<&Self>) -> Self {
        let carried = |of: fn(&Self) -> &AtomicU64, new| before.map_or(new, |before| of(before).load(Relaxed));
        Self {
            deadline_ms: AtomicU64::new(carried(|drain| &drain.deadline_ms, NEVER)),
            since_ms: AtomicU64::new(carried(|drain| &drain.since_ms, 0)),
        }
    }

    /// True from the command on, until `Ready`.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.deadline_ms.load(Relaxed) != NEVER
    }

    /// True if the deadline has passed.
    #[inline]
    pub(super) fn is_over(&self, now_ms: u64) -> bool {
        self.deadline_ms.load(Relaxed) <= now_ms
    }

    /// When the drain was commanded; `None`: the backend is not draining.
    pub(super) fn since_ms(&self) -> Option<u64> {
        self.is_on().then(|| self.since_ms.load(Relaxed))
    }

    /// When the deadline passed; `None`: it has not.
    pub(super) fn over_since_ms(&self, now_ms: u64) -> Option<u64> {
        Some(self.deadline_ms.load(Relaxed)).filter(|deadline_ms| *deadline_ms <= now_ms)
    }
}

/// Runtime state that an operator gives a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminState {
    /// Serve known clients only; after `drain_deadline`, no client.
    Drain,
    /// Serve no client from now on, and close open connections.
    Close,
    /// Serve every client again.
    Ready,
}

impl Pool {
    /// Gives a backend this state. Returns false if no backend has the name.
    pub fn order(&self, backend: &str, order: AdminState, now_ms: u64) -> bool {
        let Some(backend) = self.backends().iter().find(|known| known.name() == backend) else { return false };
        let deadline_ms = match order {
            AdminState::Drain => now_ms + self.config().drain_deadline.as_millis() as u64,
            AdminState::Close => now_ms,
            AdminState::Ready => NEVER,
        };
        if !backend.drain.is_on() {
            backend.drain.since_ms.store(now_ms, Relaxed);
        }
        backend.drain.deadline_ms.store(deadline_ms, Relaxed);
        true
    }
}
