//! [`Discover`]: where the backends of a pool are read while the process runs, and what becomes of those that are not
//! named any more; [`BackendOrigin`] of each backend.
//!
//! Reads no source (`discovery` does). Invariant: every rule has one word in the configuration.

use std::fmt;
use std::path::PathBuf;

use super::DnsName;

/// Most backends that a source may name, where the file does not say.
pub const BACKENDS_MAX: usize = 1_024;

/// `[pool.discover]` of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discover {
    /// What names the backends.
    pub source: DiscoverSource,
    /// Treatment of a backend that the source does not name any more.
    pub vanish: Vanish,
    /// Treatment of a source that names no backend.
    pub empty: OnEmpty,
    /// Most backends that the source may name.
    pub max_backends: usize,
    /// Most connections of a backend for which the source has no number; `None`: no limit.
    pub max_connections: Option<u32>,
}

/// What names the backends of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiscoverSource {
    /// A file that is replaced by a rename.
    File(PathBuf),
    /// Records of a name in DNS.
    Dns(DnsName),
}

impl DiscoverSource {
    /// The word of the kind in the configuration.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Dns(_) => "dns",
        }
    }
}

impl fmt::Display for DiscoverSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Dns(name) => name.fmt(f),
        }
    }
}

/// Treatment of a backend that its source does not name any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vanish {
    /// The backend drains, and is removed when nothing holds it.
    Drain,
    /// The backend is down until the source names it again.
    Down,
    /// The backend is removed at once.
    Remove,
}

/// Treatment of a source that names no backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnEmpty {
    /// The last set stays.
    Keep,
    /// Every backend vanishes.
    Apply,
}

/// Where a backend is from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BackendOrigin {
    /// The configuration file.
    #[default]
    Written,
    /// The source of the pool.
    Found {
        /// Since when the source does not name it; `None`: the source names it.
        absence: Option<Absence>,
    },
    /// An order at run time has added or removed it.
    Ordered {
        /// The times of the drain before it leaves; `None`: it stays.
        removal: Option<Absence>,
    },
}

/// The time in which a source does not name a backend, or in which a removed one drains, on the clock of the process in
/// milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Absence {
    /// When the source was first seen without it, or the order was given.
    pub since_ms: i64,
    /// End of service for known clients; of a source's, with `vanish = "drain"`.
    pub deadline_ms: i64,
}
