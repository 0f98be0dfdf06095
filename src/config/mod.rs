//! [`Config`]: the configuration, checked, immutable, with defaults filled in.
//!
//! `file` splits the text into tables, `shorthand` writes out what stands for a table, `value` reads single values,
//! [`check()`] applies the rules and reports all errors at once. Nothing here reads a file, resolves a name or opens a
//! socket: the caller passes the text and a resolver.
//!
//! Invariant: a `Config` returned by [`check()`] or [`Draft::finish`] is valid; every pool name in it is the name of one
//! of its pools.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::log_field::LogFields;
use crate::server_name::ServerName;

mod check;
mod cookie;
pub mod diff;
mod discover;
mod dns;
mod edit;
mod file;
mod foreign;
mod found;
mod headers;
mod health;
mod host;
mod key_part;
pub mod keys;
mod listener;
mod place;
mod pool;
mod problem;
mod request_limits;
mod route;
mod save;
mod shorthand;
mod split;
mod stick_table;
mod store;
mod syntax;
mod timeouts;
mod tls;
mod value;
mod written;

pub use check::{CheckedConfig, Draft, check, draft};
pub use cookie::{
    Carrier, Cookie, CookieLifetime, CookieMode, InsertRules, RouteRules, SameSite, Secure, Separator, Side,
    is_own_name, own_name, twin_name,
};
pub use discover::{Absence, BackendOrigin, Discover, DiscoverSource, OnEmpty, Vanish};
pub use dns::{DnsIdentity, DnsName, DnsRecords};
pub use edit::BackendEdit;
pub use foreign::{ForeignWord, foreign_words};
pub use headers::{HeaderRules, HeaderValue, RequestFact, ValuePart};
pub use health::{Check, CheckKind, Eject, HttpCheck};
pub use host::{HostPort, Resolve};
pub use key_part::KeyPart;
pub use listener::{Bind, ConnectionRules, Fallback, Listener, ProxyIn, Untrusted};
pub use place::{FileProblem, is_open_to_all};
pub use pool::{
    Address, AllDown, Backend, Balance, Instead, OnMarkedDown, Pool, PoolHttp, PoolOrders, ProxyOut, ProxyTlv,
    ProxyVersion, Range, RangeRule, Removal, StandingOrder,
};
pub use problem::Problem;
pub use request_limits::{FIELDS_MAX, HEAD_MAX, RequestLimits, RequestRate};
pub use route::{
    ErrorPage, PathPattern, Redirect, RequestConditions, Respond, RespondBody, Route, RouteGoal, Template, TemplatePart,
};
pub use save::{SavedText, save_orders};
pub use shorthand::{SYSTEM_AUTHORITIES, backend_name};
pub use split::{Split, SplitBy, SplitKey, SplitPool};
pub use stick_table::{OnAdd, OnDown, OnFull, OnReturn, QueueRules, StickTableRules};
pub use store::{Hidden, Share, StoreAddress, StoreConfig, StorePlace};
pub use timeouts::OwnTimeouts;
pub use tls::{
    Certificate, ClientCertificate, Forwarded, KeyExchange, PoolTls, ShownCertificate, Tls, TlsRules, TlsVersion,
};
pub use value::{
    backend_address, canonical_network, hex32, is_connectable, is_name, levels, order_address, shown_address,
};
pub use written::Written;

/// All settings of one configuration file. Two are equal if they mean the same, however they are written.
#[derive(Debug, Clone)]
pub struct Config {
    /// Settings of the process as a whole.
    pub process: Process,
    /// Settings of every TLS handshake.
    pub tls: TlsRules,
    /// Limits and timeouts of every connection.
    pub limits: Limits,
    /// Store of learned cookies shared by instances; `None`: each instance has only its own.
    pub store: Option<StoreConfig>,
    /// Listeners in the order of the file; at least one.
    pub listeners: Vec<Listener>,
    /// Pools in the order of the file, each with a different name.
    pub pools: Vec<Pool>,
    /// Splits in the order of the file, each with a different name.
    pub splits: Vec<Split>,
    /// The file as it is written, to name the keys in which two files differ.
    pub written: Written,
}

impl Config {
    /// Pools by name, for many look-ups: by a search each, they would cost the square of the number of pools.
    pub fn pools_by_name(&self) -> HashMap<&str, &Pool> {
        self.pools.iter().map(|pool| (pool.name.as_str(), pool)).collect()
    }

    /// The cookies of pools and of splits, each with its object in messages.
    pub fn cookies(&self) -> impl Iterator<Item = (String, &Cookie)> {
        let pools =
            self.pools.iter().filter_map(|pool| Some((format!("pool \"{}\"", pool.name), pool.cookie.as_ref()?)));
        let splits =
            self.splits.iter().filter_map(|split| Some((format!("split \"{}\"", split.name), split.cookie()?)));
        pools.chain(splits)
    }

    /// Pools that another configuration does not have.
    pub fn pools_without<'c>(&'c self, other: &'c Self) -> impl Iterator<Item = &'c Pool> {
        let stay = other.pools_by_name();
        self.pools.iter().filter(move |pool| !stay.contains_key(pool.name.as_str()))
    }
}

impl PartialEq for Config {
    fn eq(&self, other: &Self) -> bool {
        let Self { process, tls, limits, store, listeners, pools, splits, written: _ } = self;
        (process, tls, limits, store, listeners, pools, splits)
            == (&other.process, &other.tls, &other.limits, &other.store, &other.listeners, &other.pools, &other.splits)
    }
}

/// Settings of the process as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Process {
    /// Worker threads; `None`: one per core that the process may use. Fixed at start.
    pub workers: Option<usize>,
    /// Pins worker i to the i-th core that the process may use; off by default.
    pub cpu_affinity: bool,
    /// How long an idle worker polls for new events before it sleeps; `None`: not at all. Fixed at start.
    pub busy_poll: Option<Duration>,
    /// Bytes of large pipes, of all workers together. Fixed at start.
    pub bulk_memory: usize,
    /// Reloads when a file is renamed over the configuration, or a symlink to it is replaced.
    pub watch: bool,
    /// After SIGTERM: how long listeners still accept while `/readyz` already fails.
    pub stop_grace: Duration,
    /// After SIGTERM: how long connections may continue after the listeners have closed.
    pub stop_deadline: Duration,
    /// After an upgrade: how long conversations of the old process may continue.
    pub upgrade_deadline: Duration,
    /// File that keeps the stick tables over a restart; `None`: they are lost.
    pub stick_table_file: Option<PathBuf>,
    /// Time between two writes of that file.
    pub stick_table_interval: Duration,
    /// Addresses of the admin interface.
    pub admin: Admin,
    /// What is logged, how and where.
    pub log: Log,
    /// Pools that `/metrics` shows.
    pub metrics_pools: MetricsPools,
    /// Name servers that are asked for backends and for their names, in this order; empty: those of the host.
    pub resolvers: Vec<SocketAddr>,
}

/// Pools that `/metrics` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricsPools {
    /// Every pool, so that every series is there from the start.
    All,
    /// Pools that have had work or trouble since the start.
    Busy,
}

/// Path of the admin socket where a configuration names none.
pub const ADMIN_SOCKET: &str = "/run/sessile/admin.sock";

/// Addresses of the admin interface; either may be off.
#[derive(Debug, Clone, PartialEq)]
pub struct Admin {
    /// Path of the unix socket, with its lock file beside it; `None`: off.
    pub socket: Option<PathBuf>,
    /// Mode of the socket file; 0660 by default.
    pub mode: u32,
    /// Group of the socket file, by name or number; `None`: the group of the process.
    pub group: Option<String>,
    /// Address for `/metrics`, `/healthz`, `/readyz` and the JSON views; `None`: off, the default.
    pub http: Option<SocketAddr>,
    /// Networks of the peers that this address serves; empty: every peer of a loopback address.
    pub allow: Vec<IpNet>,
    /// The views on this address name clients.
    pub clients: bool,
    /// Names in Host under which that port serves, beside addresses and `localhost`.
    pub names: Vec<ServerName>,
}

/// What is logged, how and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Format of every log line.
    pub format: LogFormat,
    /// Writes one line per ended connection or request to the access log.
    pub connections: bool,
    /// Least severe level of messages about the process, on standard error.
    pub level: LogLevel,
    /// Where the access log goes.
    pub output: LogOutput,
    /// Fields of lines of connections and requests.
    pub fields: LogFields,
    /// One in so many lines is written of those that tell of no refusal, move or failure.
    pub sample: u32,
}

/// Where the access log goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LogOutput {
    /// Standard output.
    #[default]
    Stdout,
    /// The journal, by its own socket.
    Journal,
    /// A file, to the end of which lines are added.
    File(PathBuf),
}

impl fmt::Display for LogOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("standard output"),
            Self::Journal => f.write_str("the journal"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Format of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `key=value` pairs on one line.
    Text,
    /// One JSON object per line.
    Json,
}

/// Severity of a message about the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// A failure that needs a correction.
    Error,
    /// A condition that an operator should look at.
    Warn,
    /// Changes of state, such as a reload or a backend going down.
    Info,
    /// Details that explain other messages.
    Debug,
}

/// Limits and timeouts of every connection.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Most client connections in total; `None`: as many as the descriptor limit allows.
    pub max_connections: Option<usize>,
    /// Most open connections of one client address; `None`: no limit.
    pub max_connections_per_source: Option<u32>,
    /// Most new connections per second of one client address; `None`: no limit.
    pub connection_rate_per_source: Option<u32>,
    /// Most TLS handshakes that are worked at at the same time; `None`: no limit.
    pub max_handshakes: Option<usize>,
    /// Time from accept until PROXY header, ClientHello, handshake and the first request head are read.
    pub hello_timeout: Duration,
    /// Longest ClientHello that is read, in bytes.
    pub hello_max: usize,
    /// Most memory for the ClientHellos above 4 KiB of all connections together, in bytes.
    pub hello_memory: usize,
    /// Most requests of one HTTP/2 connection that are served at once.
    pub http2_streams: u32,
    /// Most connections to one backend that the requests of one HTTP/2 connection use at once.
    pub http2_backend_connections: usize,
    /// Limits of requests, where no listener or pool has its own.
    pub requests: RequestLimits,
    /// Time that a kept connection may wait for its next request; `None`: no limit.
    pub keepalive_timeout: Option<Duration>,
    /// Time from the end of a request to the head of its response; `None`: no limit.
    pub response_timeout: Option<Duration>,
    /// Time without a byte inside a body; `None`: no limit.
    pub body_timeout: Option<Duration>,
    /// Time without a byte in either direction of a relay; `None`: no limit.
    pub idle_timeout: Option<Duration>,
    /// Time without a byte after one direction has closed; `None`: no limit.
    pub half_close_timeout: Option<Duration>,
    /// Greatest age of a connection; `None`: no limit, the default.
    pub lifetime: Option<Duration>,
    /// TCP keepalive on both sides: idle time before the first probe; `None`: off.
    pub keepalive: Option<Duration>,
    /// Time between two keepalive probes.
    pub keepalive_interval: Duration,
    /// Unanswered probes after which the connection is closed.
    pub keepalive_count: u32,
    /// `TCP_USER_TIMEOUT` on both sides; `None`: the kernel's default.
    pub user_timeout: Option<Duration>,
}
