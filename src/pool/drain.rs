//! `Drain`: the drain of a backend by command, by its agent or because its source does not name it, and which clients
//! the backend still serves.
//!
//! Closes nothing; the housekeeping does. A drain in the configuration is weight 0. Invariant: until its deadline a
//! draining backend serves known clients as before; after the deadline it serves no client. An agent ends no drain by
//! command, and neither ends that of a backend that its source does not name.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use ahash::AHashMap;

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
    /// What has begun the drain, as [`DrainedBy`]; without meaning for a backend that is not draining.
    begun_by: AtomicU8,
    /// Deadline of the drain because its source does not name the backend; `NEVER`: the source names it.
    absent_deadline_ms: AtomicI64,
    /// When the source was first seen without the backend.
    absent_since_ms: AtomicI64,
    /// True if the backend is down because its source does not name it.
    is_missing: AtomicBool,
    /// True if the backend is down because no address is known of its name.
    pub(super) awaits_address: AtomicBool,
    /// True if the configuration in force has weight 0.
    pub(super) is_weightless: AtomicBool,
}

/// What has begun a drain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DrainedBy {
    /// A command.
    Command,
    /// The backend's agent, and no command has been given about it.
    Agent,
    /// The source of the pool, which does not name the backend.
    Source,
}

impl Drain {
    /// Takes over the drain of the backend that had this name before.
    pub(super) fn carried(before: Option<&Self>) -> Self {
        let none = DrainTimes { since_ms: 0, deadline_ms: NEVER };
        let times = before.and_then(Self::times).unwrap_or(none);
        let absence = before.and_then(Self::absence).unwrap_or(none);
        Self {
            deadline_ms: AtomicI64::new(times.deadline_ms),
            since_ms: AtomicI64::new(times.since_ms),
            begun_by: AtomicU8::new(before.map_or(0, |before| before.begun_by.load(Relaxed))),
            absent_deadline_ms: AtomicI64::new(absence.deadline_ms),
            absent_since_ms: AtomicI64::new(absence.since_ms),
            is_missing: AtomicBool::new(before.is_some_and(Self::is_missing)),
            awaits_address: AtomicBool::new(false),
            is_weightless: AtomicBool::new(false),
        }
    }

    /// Takes over what a command or an agent has said since the backend of before was carried over.
    fn take_over(&self, before: &Self) {
        let times = before.times().unwrap_or(DrainTimes { since_ms: 0, deadline_ms: NEVER });
        self.since_ms.store(times.since_ms, Relaxed);
        self.begun_by.store(before.begun_by.load(Relaxed), Relaxed);
        self.deadline_ms.store(times.deadline_ms, Relaxed);
    }

    /// The times of a drain by command that was begun elsewhere.
    pub(super) fn set(&self, times: DrainTimes) {
        self.begin(times, DrainedBy::Command);
    }

    fn begin(&self, times: DrainTimes, by: DrainedBy) {
        self.since_ms.store(times.since_ms, Relaxed);
        self.begun_by.store(by as u8, Relaxed);
        self.deadline_ms.store(times.deadline_ms, Relaxed);
    }

    /// Ends a drain by command or by the agent. A backend that its source does not name goes on to drain.
    fn end(&self) {
        match self.absence() {
            Some(times) => self.begin(times, DrainedBy::Source),
            None => self.deadline_ms.store(NEVER, Relaxed),
        }
    }

    /// The drain because the source does not name the backend; `None`: there is none.
    fn absence(&self) -> Option<DrainTimes> {
        let deadline_ms = self.absent_deadline_ms.load(Relaxed);
        let since_ms = self.absent_since_ms.load(Relaxed);
        (deadline_ms != NEVER).then_some(DrainTimes { since_ms, deadline_ms })
    }

    /// Drains the backend because its source does not name it, or, with `None`, ends such a drain. A drain by command
    /// or by the agent stays as it is. True: something has changed.
    pub(super) fn heed_source(&self, absence: Option<DrainTimes>) -> bool {
        if self.absence() == absence {
            return false;
        }
        let times = absence.unwrap_or(DrainTimes { since_ms: 0, deadline_ms: NEVER });
        self.absent_since_ms.store(times.since_ms, Relaxed);
        self.absent_deadline_ms.store(times.deadline_ms, Relaxed);
        if !self.is_on() || self.is_by(DrainedBy::Source) {
            self.end();
        }
        true
    }

    /// True if the backend drains, or is down, because its source does not name it.
    pub(super) fn has_left_source(&self) -> bool {
        self.is_missing() || self.absence().is_some()
    }

    /// True if the backend is down because its source does not name it.
    pub(super) fn is_missing(&self) -> bool {
        self.is_missing.load(Relaxed)
    }

    /// True if the backend is down, whatever checks have found: its source does not name it, or its name has no address.
    pub(super) fn is_out(&self) -> bool {
        self.is_missing() || self.awaits_address.load(Relaxed)
    }

    /// Notes whether the backend is down because its source does not name it. True: that has changed.
    pub(super) fn set_missing(&self, is_missing: bool) -> bool {
        self.is_missing.swap(is_missing, Relaxed) != is_missing
    }

    /// The times of the drain; `None`: the backend is not draining.
    pub(super) fn times(&self) -> Option<DrainTimes> {
        let times = DrainTimes { since_ms: self.since_ms.load(Relaxed), deadline_ms: self.deadline_ms.load(Relaxed) };
        (times.deadline_ms != NEVER).then_some(times)
    }

    /// True if only the backend's agent wants the drain.
    pub(super) fn is_by_agent(&self) -> bool {
        self.is_by(DrainedBy::Agent)
    }

    /// True if a command has begun the drain.
    pub(super) fn is_by_command(&self) -> bool {
        self.is_by(DrainedBy::Command)
    }

    fn is_by(&self, by: DrainedBy) -> bool {
        self.begun_by.load(Relaxed) == by as u8
    }

    /// Begins a drain because the agent says so, or ends one that the agent has begun. A drain by command stays as it is.
    /// True: something has changed.
    pub(super) fn heed_agent(&self, drains: bool, deadline: Duration, now_ms: u64) -> bool {
        if drains == self.is_on() || !drains && !self.is_by_agent() {
            return false;
        }
        let since_ms = signed(now_ms);
        let deadline_ms = since_ms + deadline.as_millis() as ClockMs;
        if drains {
            self.begin(DrainTimes { since_ms, deadline_ms }, DrainedBy::Agent);
        } else {
            self.end();
        }
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
    /// Gives backends that are at other addresses than in the pool in force the orders that came since this pool was built;
    /// just before it is in force itself.
    pub fn take_over_orders(&self, before: Option<&Arc<Self>>) {
        let known = before.iter().flat_map(|pool| pool.backends()).map(|backend| (backend.name(), backend));
        let known: AHashMap<&str, _> = known.collect();
        for backend in self.backends() {
            let was = known.get(backend.name()).filter(|was| was.is_same(backend));
            if let Some(was) = was.filter(|was| !Arc::ptr_eq(was, backend)) {
                backend.drain.take_over(&was.drain);
                backend.ready_changed();
            }
        }
    }

    /// Gives a backend this state. Returns false if no backend has the name.
    pub fn order(&self, backend: &str, order: AdminState, now_ms: u64) -> bool {
        self.order_since(backend, order, signed(now_ms))
    }

    /// Gives a backend a state that was ordered at this time, maybe before the process began: a drain has its deadline
    /// from then on. Returns false if no backend has the name.
    pub fn order_since(&self, backend: &str, order: AdminState, given_ms: ClockMs) -> bool {
        let Some(backend) = self.backends().iter().find(|known| known.name() == backend) else { return false };
        let drain = &backend.drain;
        // A drain that goes on has begun when it did.
        let since_ms = drain.times().map_or(given_ms, |times| times.since_ms.min(given_ms));
        let deadline_ms = match order {
            AdminState::Drain => Some(given_ms + self.config().drain_deadline.as_millis() as ClockMs),
            AdminState::Close => Some(given_ms),
            AdminState::Ready => None,
        };
        match deadline_ms {
            Some(deadline_ms) => drain.set(DrainTimes { since_ms, deadline_ms }),
            None => drain.end(),
        }
        backend.ready_changed();
        true
    }
}
