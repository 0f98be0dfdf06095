//! [`ClientMemory`]: whether a pool remembers a client.
//!
//! Asks no stick table: `pool` does. Invariant: a client of a pool that cannot tell is neither new nor known.

/// Whether a pool knows a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientMemory {
    /// The pool remembers no such client, or has no key of this one: it may be known or new.
    None,
    /// The stick table has no entry of the client.
    New,
    /// The stick table has one.
    Known {
        /// Whole minutes since the client was last seen.
        age_min: u32,
    },
}
