//! [`Split`]: pools with weights, over which new clients are divided, and what keeps each client at its pool.
//!
//! Divides nothing (`crate::split` does). Invariant: of a checked configuration, a split leads to pools of which all read
//! HTTP or none does, each once, and one of them has a weight above 0; no split has the name of a pool.

use super::{Cookie, KeyPart};

/// One `[[split]]`: pools with weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// Name of the split; unique among splits, pools and stick groups.
    pub name: String,
    /// The pools, in the order of the file; at least one.
    pub to: Vec<SplitPool>,
    /// What a client is known by.
    pub by: SplitBy,
}

/// What a split knows its clients by.
#[derive(Debug, Clone, PartialEq)]
pub enum SplitBy {
    /// A cookie with the pool of the client, in mode `insert`.
    Cookie(Cookie),
    /// A key of the client.
    Key(SplitKey),
}

/// The key by which a split divides clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitKey {
    /// Parts of the key, in order; at least one.
    pub parts: Vec<KeyPart>,
    /// Leading bits of an IPv4 address that are part of it.
    pub prefix_v4: u8,
    /// Leading bits of an IPv6 address that are part of it.
    pub prefix_v6: u8,
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

    /// Its cookie; `None`: it knows clients by a key.
    pub fn cookie(&self) -> Option<&Cookie> {
        match &self.by {
            SplitBy::Cookie(cookie) => Some(cookie),
            SplitBy::Key(_) => None,
        }
    }

    /// The same, to be changed.
    pub fn cookie_mut(&mut self) -> Option<&mut Cookie> {
        match &mut self.by {
            SplitBy::Cookie(cookie) => Some(cookie),
            SplitBy::Key(_) => None,
        }
    }

    /// Its key; `None`: it knows clients by a cookie.
    pub fn key(&self) -> Option<&SplitKey> {
        match &self.by {
            SplitBy::Cookie(_) => None,
            SplitBy::Key(key) => Some(key),
        }
    }
}
