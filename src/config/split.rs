//! [`Split`]: pools with weights, over which new clients are divided, and the cookie that keeps each at its pool.
//!
//! Divides nothing (`crate::split` does). Invariant: of a checked configuration, a split leads to pools that read HTTP,
//! each once, and one of them has a weight above 0; no split has the name of a pool.

use super::Cookie;

/// One `[[split]]`: pools with weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// Name of the split; unique among splits, pools and stick groups.
    pub name: String,
    /// The pools, in the order of the file; at least one.
    pub to: Vec<SplitPool>,
    /// The cookie with the pool of a client, in mode `insert`.
    pub cookie: Cookie,
}

/// One pool of a split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitPool {
    /// Name of the pool.
    pub pool: String,
    /// Share of the new clients that it gets, 0 to 256; with 0 it keeps those that it has.
    pub weight: u16,
}

impl Split {
    /// Names of its pools.
    pub fn pools(&self) -> impl Iterator<Item = &str> + Clone {
        self.to.iter().map(|to| to.pool.as_str())
    }
}
