//! [`Found`] and [`Reading`]: what a source of backends says, in the words that all sources share.
//!
//! Decides nothing and asks nothing. Invariants: a set is sorted by name and has each name once, so that the order of an
//! answer cannot be seen in it; every name of a set is the name of a backend by the rule of the configuration.

use std::net::SocketAddr;
use std::time::Duration;

/// The greatest weight of a backend; a source with a greater one means this.
pub const WEIGHT_MAX: u32 = 256;

/// One backend as a source names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Name of the backend; its identity.
    pub name: Box<str>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Weight, where the source has one; `None`: that of the pool's configuration.
    pub weight: Option<u32>,
    /// Location, where the source has one: `dc1/host3`.
    pub location: Option<Box<str>>,
    /// State, where the source has one.
    pub state: Option<FoundState>,
    /// Most connections, where the source has a number; `None`: as the pool's configuration says.
    pub max_connections: Option<u32>,
    /// True: used only while no other backend is usable.
    pub backup: bool,
}

impl Found {
    /// A backend of which a source knows no more than name and address.
    pub fn new(name: impl Into<Box<str>>, address: SocketAddr) -> Self {
        let name = name.into();
        Self { name, address, weight: None, location: None, state: None, max_connections: None, backup: false }
    }
}

/// The state in which a source wants a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundState {
    /// Takes new clients.
    Ready,
    /// Serves the clients that it has.
    Drain,
}

/// What one look at a source has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// The backends of this moment.
    Set {
        /// At least one backend, sorted by name.
        found: Vec<Found>,
        /// Time after which the source is to be looked at again.
        valid_for: Duration,
    },
    /// The source says that there is no backend.
    Empty {
        /// Time after which the source is to be looked at again.
        valid_for: Duration,
    },
    /// The source says nothing that can be relied on.
    Failed {
        /// The reason, in words.
        why: String,
    },
}
