//! What `[store]` means: a Redis or Valkey that all instances share, and how long anybody waits for it.
//!
//! Connects to nobody and reads no file. Invariant: no `Debug` of it shows a password.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// The shared store of learned cookies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// Where it is.
    pub place: StorePlace,
    /// Its authorities, where it is spoken to with TLS; `None` = in the clear.
    pub ca: Option<PathBuf>,
    /// The ACL user; `None` = `default`.
    pub user: Option<String>,
    /// The password, as written.
    pub password: Option<Hidden>,
    /// The file that holds it.
    pub password_file: Option<PathBuf>,
    /// The number of its database.
    pub database: u32,
    /// The longest that a request or a response waits for it.
    pub budget: Duration,
    /// What every key begins with.
    pub prefix: String,
    /// The file whose content makes hashes of cookies unforeseeable; the same on all instances.
    pub secret_file: Option<PathBuf>,
}

/// Where the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorePlace {
    /// There.
    One(StoreAddress),
    /// Where one of these says that the primary of this name is (Redis Sentinel).
    Sentinels {
        /// Asked in this order.
        sentinels: Vec<StoreAddress>,
        /// The name.
        master: String,
    },
}

/// One server. Its name, if it has one, is looked up whenever it is connected to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StoreAddress {
    /// Name or address, and port.
    Tcp(String, u16),
    /// A unix path.
    Unix(PathBuf),
}

/// A text that nobody is shown.
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
        }
    }
}
