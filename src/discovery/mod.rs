//! Backends that a source names: what a look at it finds, and the set that comes of it; and the addresses of backends that
//! are written with a name.
//!
//! Changes no pool and starts no task. Invariant: a source that cannot be relied on at the moment says so, and never
//! answers with a part of its set.

pub mod dns;
pub mod file;
pub mod found;
pub mod reconcile;
pub mod resolve;
