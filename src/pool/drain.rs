//! Draining a backend by command: who still goes there, and when that is over.
//!
//! Closes nothing; the housekeeping does. A drain that the file asks for is weight 0. Invariant: until its deadline
//! a draining backend serves those who have settled there as before; from then on nobody.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::{Backend, Pool};

/// Not draining.
const NEVER: u64 = u64::MAX;

/// The runtime state of one backend.
#[derive(Debug)]
pub(super) struct Drain {
    /// When it is over for those who have settled there, too, in milliseconds of the process's clock.
    deadline_ms: AtomicU64,
}

impl Drain {
    /// That of who had this name before, if anybody had.
    pub(super) fn carried(before: Option<&Self>) -> Self {
        Self { deadline_ms: AtomicU64::new(before.map_or(NEVER, |before| before.deadline_ms.load(Relaxed))) }
    }
}

/// What an operator tells a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminState {
    /// Take nobody new; at the deadline, nobody.
    Drain,
    /// Take nobody from now on, and close what is open.
    Close,
    /// Take whoever comes.
    Ready,
}

impl Backend {
    /// Takes nobody new.
    #[inline]
    pub fn draining(&self) -> bool {
        self.drain.deadline_ms.load(Relaxed) != NEVER
    }

    /// Its deadline has passed: it takes nobody, and what is open is to be closed.
    #[inline]
    pub fn drained(&self, now_ms: u64) -> bool {
        self.drain.deadline_ms.load(Relaxed) <= now_ms
    }

    /// One word for people, if it is not like any other.
    pub fn runtime_word(&self, now_ms: u64) -> Option<&'static str> {
        match (self.draining(), self.drained(now_ms)) {
            (false, _) => None,
            (true, false) => Some("draining"),
            (true, true) => Some("drained"),
        }
    }
}

impl Pool {
    /// Tells a backend; `false` if there is none of this name.
    pub fn order(&self, backend: &str, order: AdminState, now_ms: u64) -> bool {
        let Some(backend) = self.backends().iter().find(|known| known.name() == backend) else { return false };
        let deadline_ms = match order {
            AdminState::Drain => now_ms + self.config().drain_deadline.as_millis() as u64,
            AdminState::Close => now_ms,
            AdminState::Ready => NEVER,
        };
        backend.drain.deadline_ms.store(deadline_ms, Relaxed);
        true
    }
}
