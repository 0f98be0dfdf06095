//! [`HostPort`]: the address of a backend that is written with a name; [`Resolve`]: when name servers are asked for it.
//!
//! Asks nothing (`discovery::dns` does). Invariant: the name is in canonical form, so that two spellings of one name are
//! equal.

use std::fmt;

use crate::server_name::ServerName;

/// `HOST:PORT` with a name in the place of an IP address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// The name.
    pub host: ServerName,
    /// Port at its address; never 0.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// When the names of backends are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolve {
    /// Again and again, when the last answer is no longer valid.
    Ttl,
    /// When a configuration is loaded, and until there is an address.
    Load,
}
