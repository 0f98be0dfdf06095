//! `Drain`: the drain of a backend by command or by its agent, and which clients the backend still serves.
//!
//! Closes nothing; the housekeeping does. A drain in the configuration is weight 0. Invariant: until its deadline a
//! draining backend serves known clients as before; after the deadline it serves no client. An agent ends no drain by command.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use super::Pool;
use super::health::{ClockMs, signed};

/// Deadline of a backend that is not draining.
const NEVER: ClockMs = ClockMs::MAX;

/// When a drain was commanded, and when it ends the service of known clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainTimes {
    /// When the command was given.
    pub since_ms: ClockMs,
    /// End of service for known clients.
    pub deadline_ms: ClockMs,
}

/// Drain of one backend.
#[derive(Debug)]
pub(super) struct Drain {
    /// End of service for known clients.
    deadline_ms: AtomicI64,
    /// When the command was given; without meaning for a backend that is not draining.
    since_ms: AtomicI64,
    /// True if the backend's agent has begun the drain, and no command has been given about it.
    by_agent: AtomicBool,
    /// True if the configuration in force has weight 0.
    pub(super) is_weightless: AtomicBool,
}

impl Drain {
    /// Takes over the drain of the backend that had this name before.
    pub(super) fn carried(before: Option<&Self>) -> Self {
        let times = before.and_then(Self::times).unwrap_or(DrainTimes { since_ms: 0, deadline_ms: NEVER });
        Self {
            deadline_ms: AtomicI64::new(times.deadline_ms),
            since_ms: AtomicI64::new(times.since_ms),
            by_agent: AtomicBool::new(before.is_some_and(Self::is_by_agent)),
            is_weightless: AtomicBool::new(false),
        }
    }

    /// The times of a drain that was begun elsewhere.
    pub(super) fn set(&self, times: DrainTimes) {
        self.since_ms.store(times.since_ms, Relaxed);
        self.deadline_ms.store(times.deadline_ms, Relaxed);
    }

    /// The times of the drain; `None`: the backend is not draining.
    pub(super) fn times(&self) -> Option<DrainTimes> {
        let times = DrainTimes { since_ms: self.since_ms.load(Relaxed), deadline_ms: self.deadline_ms.load(Relaxed) };
        (times.deadline_ms != NEVER).then_some(times)
    }

    /// True if only the backend's agent wants the drain.
    pub(super) fn is_by_agent(&self) -> bool {
        self.by_agent.load(Relaxed)
    }

    /// Begins a drain because the agent says so, or ends one that the agent has begun. A drain by command stays as it is.
    /// True: something has changed.
    pub(super) fn heed_agent(&self, drains: bool, deadline: Duration, now_ms: u64) -> bool {
        if drains == self.is_on() || !drains && !self.is_by_agent() {
            return false;
        }
        let now_ms = signed(now_ms);
        self.since_ms.store(now_ms, Relaxed);
        self.by_agent.store(drains, Relaxed);
        let deadline_ms = if drains { now_ms + deadline.as_millis() as ClockMs } else { NEVER };
        self.deadline_ms.store(deadline_ms, Relaxed);
        true
    }

    /// True from the command on, until `Ready`.
    #[inline]
    pub(super) fn is_on(&self) -> bool {
        self.deadline_ms.load(Relaxed) != NEVER
    }

    /// True if the deadline has passed.
    #[inline]
    pub(super) fn is_over(&self, now_ms: u64) -> bool {
        self.deadline_ms.load(Relaxed) <= signed(now_ms)
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
        let now_ms = signed(now_ms);
        let deadline_ms = match order {
            AdminState::Drain => now_ms + self.config().drain_deadline.as_millis() as ClockMs,
            AdminState::Close => now_ms,
            AdminState::Ready => NEVER,
        };
        if !backend.drain.is_on() {
            backend.drain.since_ms.store(now_ms, Relaxed);
        }
        backend.drain.by_agent.store(false, Relaxed);
        backend.drain.deadline_ms.store(deadline_ms, Relaxed);
        backend.ready_changed();
        true
    }
}
