//! The configuration as meant: checked, immutable, defaults filled in.
//!
//! `file.rs` reads what was written, `check.rs` turns it into these types and reports every problem at once.
//! Nothing here reads a file, resolves a name or opens a socket: `check` is given the text and a resolver.
//!
//! Invariant: a `Config` that exists is valid; every pool name it mentions is in `pools`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

mod check;
mod cookie;
pub mod diff;
mod file;
pub mod keys;
mod listener;
mod pool;
mod problem;
mod stick_table;
mod store;
mod tls;
mod value;

pub use check::{CheckedConfig, check};
pub use cookie::{Cookie, CookieMode, InsertRules, OWN_NAME, SameSite, Secure};
pub use listener::{Bind, Fallback, Listener, ProxyIn, Route, Untrusted};
pub use pool::{
    Address, AllDown, Backend, Balance, Check, CheckKind, Eject, KeyPart, OnMarkedDown, Pool, ProxyOut, ProxyTlv,
    ProxyVersion, Range, RangeRule,
};
pub use problem::Problem;
pub use stick_table::{OnAdd, OnDown, OnFull, OnReturn, StickTableRules};
pub use store::{Hidden, StoreAddress, StoreConfig, StorePlace};
pub use tls::{Certificate, ClientCertificate, Forwarded, KeyExchange, PoolTls, Tls, TlsRules, TlsVersion};
pub use value::{canonical_network, hex32};

/// Everything one file says.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// What concerns the whole process.
    pub process: Process,
    /// What holds for every handshake.
    pub tls: TlsRules,
    /// Limits that hold for every connection.
    pub limits: Limits,
    /// The store of learned cookies that instances share; `None` = each knows its own.
    pub store: Option<StoreConfig>,
    /// Where clients connect.
    pub listeners: Vec<Listener>,
    /// Where connections go.
    pub pools: Vec<Pool>,
}

/// What concerns the whole process.
#[derive(Debug, Clone, PartialEq)]
pub struct Process {
    /// Splicer threads; `None` = one per core the process may use. Fixed at start.
    pub workers: Option<usize>,
    /// Pin worker i to the i-th core the process may use. Off by default.
    pub cpu_affinity: bool,
    /// How long a worker that has just worked looks for more before it sleeps; `None` = not at all. Fixed at start.
    pub busy_poll: Option<Duration>,
    /// Reload when another file is renamed over the configuration or a symlink to it is swapped.
    pub watch: bool,
    /// SIGTERM: how long listeners go on accepting after `/readyz` fails.
    pub stop_grace: Duration,
    /// SIGTERM: how long connections may go on after the listeners have closed.
    pub stop_deadline: Duration,
    /// Where memories are kept from one process to the next; `None` = nowhere.
    pub stick_table_file: Option<PathBuf>,
    /// How often that is written.
    pub stick_table_interval: Duration,
    /// The admin interface.
    pub admin: Admin,
    /// What is logged, and how.
    pub log: Log,
}

/// Where the admin interface listens.
#[derive(Debug, Clone, PartialEq)]
pub struct Admin {
    /// Unix socket (mode 0660); `None` when switched off. The lock file stands beside it.
    pub socket: Option<PathBuf>,
    /// Loopback address for `/metrics`, `/healthz`, `/readyz` and the JSON views; off unless asked for.
    pub http: Option<SocketAddr>,
}

/// What is logged, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// Text or JSON.
    pub format: LogFormat,
    /// One line per connection on standard output.
    pub connections: bool,
    /// The least severe level of other messages, on standard error.
    pub level: LogLevel,
}

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `key=value` pairs.
    Text,
    /// One JSON object a line.
    Json,
}

/// Severity of a log message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Something failed that should not.
    Error,
    /// Something an operator should look at.
    Warn,
    /// State changes.
    Info,
    /// Why things happened.
    Debug,
}

/// Limits that hold for every connection.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Client connections in total; `None` = derived from the descriptor limit.
    pub max_connections: Option<usize>,
    /// Open connections of one client address; `None` = off.
    pub max_connections_per_source: Option<u32>,
    /// New connections a second of one client address; `None` = off.
    pub connection_rate_per_source: Option<u32>,
    /// TLS handshakes under way; `None` = off.
    pub max_handshakes: Option<usize>,
    /// From accept until PROXY header, hello, handshake and the first head of a request are read.
    pub hello_timeout: Duration,
    /// A kept connection without another request.
    pub keepalive_timeout: Option<Duration>,
    /// From the end of a request to the head of its response.
    pub response_timeout: Option<Duration>,
    /// No byte of a body that has begun.
    pub body_timeout: Option<Duration>,
    /// Relay without a byte in either direction.
    pub idle_timeout: Option<Duration>,
    /// One direction closed, no byte in the other.
    pub half_close_timeout: Option<Duration>,
    /// A connection's age; off by default.
    pub lifetime: Option<Duration>,
    /// TCP keepalive on both sides: time before the first probe; `None` = off.
    pub keepalive: Option<Duration>,
    /// Time between keepalive probes.
    pub keepalive_interval: Duration,
    /// Unanswered probes before the connection is dead.
    pub keepalive_count: u32,
    /// `TCP_USER_TIMEOUT` on both sides; `None` = the kernel's default.
    pub user_timeout: Option<Duration>,
}
