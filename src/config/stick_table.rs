//! What a pool's stick table of settled keys means: how large it is, how long it lasts, and what its word is worth.
//!
//! Remembers nothing; `sticky::table` does. Invariant: a pool that hashes no key has none.

use std::time::Duration;

use super::Pool;

/// The stick table of where keys settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StickTableRules {
    /// Its size; 16 bytes an entry.
    pub bytes: u64,
    /// How long a key is remembered after its last connection has ended.
    pub remember: Duration,
    /// When placement changes because backends or weights were added.
    pub on_add: OnAdd,
    /// When the backend that placement names is back.
    pub on_return: OnReturn,
}

impl Pool {
    /// Whose clients settle together: its group's, or its own.
    pub fn sticks_as(&self) -> &str {
        self.stick_group.as_deref().unwrap_or(&self.name)
    }
}

/// What a known key does when a reload has changed placement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnAdd {
    /// It stays where it is; new keys use the new placement.
    Stay,
    /// It goes where the new placement says.
    Move,
}

/// What a known key does when the backend it had to leave is back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnReturn {
    /// It stays at its new one.
    Stay,
    /// It goes back.
    Return,
}

/// What a known client does whose backend is down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDown {
    /// It gets another one.
    Rehash,
    /// It waits so long for its own to be back, then gets another one.
    Wait(Duration),
    /// It is refused until its own is back.
    Reject,
}

/// What a client gets whose backend has as many connections as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFull {
    /// Another backend.
    Overflow,
    /// Nothing.
    Reject,
}
