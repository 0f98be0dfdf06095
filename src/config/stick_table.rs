//! [`StickTableRules`]: size and lifetime of a pool's stick table, and treatment of known keys when backends change.
//!
//! Stores no entry; `sticky::table` does. Invariant: a pool that neither has a key nor learns a cookie has no table.

use std::time::Duration;

/// Rules of a pool's stick table, which stores the backend of each key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StickTableRules {
    /// Size in bytes; an entry takes 16.
    pub bytes: u64,
    /// Time that an entry lives after the last connection of its key has ended.
    pub remember: Duration,
    /// Treatment of known keys when a reload changes placement.
    pub on_add: OnAdd,
    /// Treatment of known keys when the backend that placement names is up again.
    pub on_return: OnReturn,
}

/// Treatment of known keys when a reload changes placement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnAdd {
    /// Known keys stay; only new keys use the new placement.
    Stay,
    /// Known keys move to the backend of the new placement.
    Move,
}

/// Treatment of a known key when the backend that it had to leave is up again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnReturn {
    /// The key stays at its new backend.
    Stay,
    /// The key returns to the old backend.
    Return,
}

/// Treatment of a known client while its backend is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDown {
    /// The client gets another backend.
    Rehash,
    /// The client waits up to this long for its backend, then gets another one.
    Wait(Duration),
    /// The client is refused until its backend is up.
    Reject,
}

/// Treatment of a client while its backend has `max_connections`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFull {
    /// The client gets the next candidate.
    Overflow,
    /// The client is refused until a place is free.
    Reject,
    /// A client that is known at the backend waits for a place there, and a new client where no candidate has one.
    Queue(QueueRules),
}

/// Bounds of the lines in which clients wait for a place at a full backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueRules {
    /// Most clients in one line.
    pub most: u32,
    /// The longest time that one client waits.
    pub timeout: Duration,
}

impl OnFull {
    /// The rules of the lines; `None`: no client waits.
    pub fn queue(self) -> Option<QueueRules> {
        match self {
            Self::Queue(rules) => Some(rules),
            Self::Overflow | Self::Reject => None,
        }
    }
}
