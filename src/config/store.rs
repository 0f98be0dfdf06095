//! [`StoreConfig`]: address, credentials and budget of a Redis or Valkey that instances share.
//!
//! Opens no connection and reads no file. Invariant: its `Debug` output shows no password.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// One `[store]`: what instances share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// Address of the store, or of the servers that know it.
    pub place: StorePlace,
    /// PEM file of authorities for the store's certificate; `None`: no TLS.
    pub ca: Option<PathBuf>,
    /// Name of the ACL user; `None`: `default`.
    pub user: Option<String>,
    /// Password from the configuration file, if written there.
    pub password: Option<Hidden>,
    /// File with the password in its first line.
    pub password_file: Option<PathBuf>,
    /// Number of the Redis database; a cluster has only 0.
    pub database: u32,
    /// Longest time that a request or response waits for the store.
    pub budget: Duration,
    /// Prefix of every key in the store.
    pub prefix: String,
    /// File with the key for hashes of cookie values; equal on all instances. `None`: an unkeyed hash.
    pub secret_file: Option<PathBuf>,
    /// What the instances share.
    pub share: Share,
}

/// What instances share through the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Values of learned cookies.
    pub cookies: bool,
    /// Entries of stick tables that placement alone would not find.
    pub displaced: bool,
    /// Orders that operators give about backends.
    pub orders: bool,
}

impl Default for Share {
    fn default() -> Self {
        Self { cookies: true, displaced: false, orders: false }
    }
}

/// Address of the store: direct, by Redis Sentinel, or as a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorePlace {
    /// One server at a fixed address.
    One(StoreAddress),
    /// Primary found by Redis Sentinel.
    Sentinels {
        /// Sentinels, queried in this order.
        sentinels: Vec<StoreAddress>,
        /// Name of the primary in the sentinels.
        master: String,
    },
    /// Nodes of a cluster, from which all others are known.
    Cluster(Vec<StoreAddress>),
}

/// Address of one server. A DNS name is resolved at every connect.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StoreAddress {
    /// Host name or IP address, and port.
    Tcp(String, u16),
    /// Path of a unix socket.
    Unix(PathBuf),
}

/// Text that `Debug` output must not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(pub String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(not shown)")
    }
}

impl fmt::Display for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for StoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.ca.is_some() { "rediss" } else { "redis" };
        match &self.place {
            StorePlace::One(StoreAddress::Unix(path)) => write!(f, "unix:{}", path.display()),
            StorePlace::One(address) => write!(f, "{scheme}://{address}"),
            StorePlace::Sentinels { master, .. } => write!(f, "{scheme}, {master:?} by Sentinel"),
            StorePlace::Cluster(nodes) => {
                let nodes: Vec<_> = nodes.iter().map(StoreAddress::to_string).collect();
                write!(f, "{scheme}, cluster of {}", nodes.join(", "))
            }
        }
    }
}
