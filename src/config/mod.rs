//! The configuration as meant: checked, immutable, defaults filled in.
//!
//! `file.rs` reads what was written, `check.rs` turns it into these types and reports every problem at once.
//! Nothing here reads a file, resolves a name or opens a socket: `check` is given the text and a resolver.
//!
//! Invariant: a `Config` that exists is valid; every pool name it mentions is in `pools`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::server_name::{NamePattern, ServerName};

mod check;
mod cookie;
mod file;
pub mod keys;
mod memory;
mod problem;
mod store;
mod tls;
mod value;

pub use check::{Checked, check};
pub use cookie::{Cookie, CookieMode, Insert, OWN_NAME, SameSite, Secure};
pub use memory::{Memory, OnAdd, OnFull, OnReturn, WhenDown};
pub use problem::Problem;
pub use store::{Hidden, Store, StoreAddress, StorePlace};
pub use tls::{Certificate, ClientCertificate, Forwarded, Group, PoolTls, Tls, TlsRules, TlsVersion};
pub use value::{canonical as canonical_network, hex32};

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
    pub store: Option<Store>,
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
    pub memory_file: Option<PathBuf>,
    /// How often that is written.
    pub memory_interval: Duration,
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

/// An address we accept on.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Its name; unique.
    pub name: String,
    /// Where it binds; at least one.
    pub bind: Vec<Bind>,
    /// What it does about TLS where its routes say nothing else.
    pub tls: Tls,
    /// Its certificates, as written.
    pub certificates: Vec<Certificate>,
    /// What is asked of the clients of its default pool; `None` = no certificate.
    pub client_certificate: Option<ClientCertificate>,
    /// Something in front took TLS off, for every client that no PROXY header says otherwise of.
    pub client_tls: bool,
    /// How far clients are believed about where requests come from. `Append` never holds for a peer outside `trust`.
    pub forwarded: Forwarded,
    /// The default pool.
    pub pool: Option<String>,
    /// Open connections of this listener.
    pub max_connections: Option<usize>,
    /// Length of the kernel's accept queue.
    pub backlog: u32,
    /// PROXY protocol in; `None` = no header is expected.
    pub proxy: Option<ProxyIn>,
    /// Bytes that are certainly not TLS.
    pub not_tls: Fallback,
    /// Nothing received before `hello_timeout`.
    pub silent: Fallback,
    /// Routes, as written.
    pub routes: Vec<Route>,
}

/// One address of a listener.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Bind {
    /// `"0.0.0.0:443"`, `"[::]:443"`.
    Tcp(SocketAddr),
    /// `"unix:/run/app.sock"`.
    Unix(PathBuf),
    /// `"systemd:NAME"`: descriptors passed by systemd under this `FileDescriptorName`.
    Systemd(String),
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Systemd(name) => write!(f, "systemd:{name}"),
        }
    }
}

/// Who may and must announce a source with the PROXY protocol.
#[derive(Debug, Clone, PartialEq)]
pub struct ProxyIn {
    /// Peers inside must send a header. On a unix listener every peer is trusted.
    pub trust: Vec<IpNet>,
    /// What happens to peers outside.
    pub untrusted: Untrusted,
}

/// What happens to peers outside `trust`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untrusted {
    /// Closed at accept, nothing read.
    Refuse,
    /// Served under their own address.
    Direct,
}

/// What to do with a connection that shows no hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fallback {
    /// Close it.
    Refuse,
    /// Send it to this pool.
    Pool(String),
}

/// A rule that names a pool. All conditions must hold.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Names; empty = any, also none.
    pub sni: Vec<NamePattern>,
    /// Holds if the client offers any of these; empty = no condition.
    pub alpn: Vec<String>,
    /// Source networks; empty = no condition.
    pub source: Vec<IpNet>,
    /// What is done about TLS: its own word, or the listener's.
    pub tls: Tls,
    /// What is asked of its clients: its own word, or the listener's; `None` unless it terminates.
    pub client_certificate: Option<ClientCertificate>,
    /// The pool it names.
    pub pool: String,
}

/// Backends that share one balancing rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Its name; unique.
    pub name: String,
    /// Its backends speak HTTP/1.1, and every request is placed.
    pub http: bool,
    /// Protocols offered by ALPN where TLS is terminated and `http` is off; empty = none.
    pub alpn: Vec<String>,
    /// TLS to its backends; `None` = bytes as they are.
    pub tls: Option<PoolTls>,
    /// How a backend is chosen.
    pub balance: Balance,
    /// What identifies a client; empty = `"none"`.
    pub key: Vec<KeyPart>,
    /// Leading bits of an IPv4 address that count.
    pub prefix_v4: u8,
    /// Leading bits of an IPv6 address that count.
    pub prefix_v6: u8,
    /// Enters every placement hash.
    pub hash_seed: u64,
    /// The memory of where keys settled; `None` = none.
    pub memory: Option<Memory>,
    /// Pools of one group share their memory.
    pub stick_group: Option<String>,
    /// What a known client does whose backend is down.
    pub when_down: WhenDown,
    /// How much more than its share a backend may have before new keys go elsewhere, in hundredths; `None` = no bound.
    pub load_bound: Option<u32>,
    /// What a client gets whose backend has as many connections as it may have.
    pub on_full: OnFull,
    /// Over how long a backend that is up again gets its new keys; `None` = at once.
    pub slow_start: Option<Duration>,
    /// How long a backend that is drained by command serves those who know it.
    pub drain_deadline: Duration,
    /// Over how long its connections are closed after that.
    pub drain_over: Duration,
    /// Backends, as written.
    pub backends: Vec<Backend>,
    /// Named ranges, as written.
    pub ranges: Vec<Range>,
    /// When no backend is usable.
    pub all_down: AllDown,
    /// One connect attempt.
    pub connect_timeout: Duration,
    /// All attempts together.
    pub connect_budget: Duration,
    /// More tries at a known key's backend before it moves.
    pub sticky_retries: u32,
    /// Local addresses to connect from; empty = the kernel's choice.
    pub source: Vec<IpAddr>,
    /// PROXY protocol out.
    pub proxy: Option<ProxyOut>,
    /// Health checks; `None` = off.
    pub check: Option<Check>,
    /// Passive ejection; `None` = off.
    pub eject: Option<Eject>,
    /// What happens to open connections of a backend marked down.
    pub on_down_connections: OnDown,
    /// The cookie that says where a client settled; `None` = clients settle by key alone.
    pub cookie: Option<Cookie>,
}

/// How a backend is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// Weighted rendezvous.
    Hash,
    /// Consistent ring with this many points × weight.
    Ring {
        /// Points of weight 1.
        points: u32,
    },
    /// Maglev table of this prime size.
    Maglev {
        /// Entries.
        table_size: u32,
    },
    /// In turn.
    RoundRobin,
    /// Fewest leases over weight.
    LeastConnections,
    /// The emptier of two random ones.
    TwoChoices,
    /// By weight, at random.
    Random,
}

impl Balance {
    /// Whether a key decides.
    pub fn keyed(self) -> bool {
        matches!(self, Self::Hash | Self::Ring { .. } | Self::Maglev { .. })
    }

    /// The word in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::Hash => "hash",
            Self::Ring { .. } => "ring",
            Self::Maglev { .. } => "maglev",
            Self::RoundRobin => "round_robin",
            Self::LeastConnections => "least_connections",
            Self::TwoChoices => "two_choices",
            Self::Random => "random",
        }
    }
}

/// One part of a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeyPart {
    /// `"source"`: the client address, cut to the prefix.
    Source,
    /// `"sni"`: the server name, lower case.
    Sni,
    /// `"tlv:0xNN"`: the value of this PROXY TLV.
    Tlv(u8),
    /// `"cookie:NAME"`: the value of this cookie of the application.
    Cookie(Arc<str>),
}

/// One named address.
#[derive(Debug, Clone, PartialEq)]
pub struct Backend {
    /// Its name; unique in the pool. Identity is pool + name.
    pub name: String,
    /// Where it is. A DNS name was resolved when the file was loaded.
    pub address: Address,
    /// 0-256; 0 takes no new keys.
    pub weight: u16,
    /// `"dc1/host3"`: levels, outermost first; empty = none.
    pub location: Vec<String>,
    /// Used only when no other is usable.
    pub backup: bool,
    /// Connections at once; `None` = any number.
    pub max_connections: Option<u32>,
}

/// Where a backend is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// IP and port.
    Tcp(SocketAddr),
    /// A unix path.
    Unix(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Sources that are treated alike. The longest matching prefix wins.
#[derive(Debug, Clone, PartialEq)]
pub struct Range {
    /// Shown in logs and `explain`; unique in the pool.
    pub name: String,
    /// The sources.
    pub cidr: IpNet,
    /// What is different for them.
    pub rule: RangeRule,
}

/// What is different for the sources of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RangeRule {
    /// The whole range is one key.
    One,
    /// A finer (or coarser) prefix than the pool's.
    Prefix(u8),
    /// Only these backends may serve it.
    Pin {
        /// Names of backends of the pool; at least one.
        backends: Vec<String>,
        /// All down: refuse instead of falling back to the pool.
        strict: bool,
    },
}

/// When no backend is usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllDown {
    /// Placement order as if all were up.
    Try,
    /// Close at once.
    Refuse,
}

/// Version and additions of the PROXY header sent to backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyOut {
    /// 1 or 2.
    pub version: ProxyVersion,
    /// v2 only.
    pub tlvs: Vec<ProxyTlv>,
}

/// PROXY protocol version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// Text.
    V1,
    /// Binary.
    V2,
}

/// What a v2 header carries besides addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyTlv {
    /// The protocol the client listed first (0x01).
    Alpn,
    /// The server name (0x02).
    Authority,
    /// The connection's id (0x05).
    UniqueId,
    /// The TLS facts an incoming header announced, passed on (0x20).
    Ssl,
    /// Checksum (0x03).
    Crc32c,
}

/// Active health check.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// What is asked.
    pub kind: CheckKind,
    /// Time between checks of one backend; each waits up to a tenth more or less.
    pub interval: Duration,
    /// One check, connect included.
    pub timeout: Duration,
    /// Good checks in a row until up.
    pub rise: u32,
    /// Failed checks in a row until down.
    pub fall: u32,
    /// Another port than the backend's.
    pub port: Option<u16>,
    /// Server name sent in a TLS or HTTPS check.
    pub sni: Option<ServerName>,
}

/// What a health check asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckKind {
    /// Connect.
    Tcp,
    /// Connect and TLS handshake, certificate not verified.
    Tls,
    /// `GET` with a status range; over TLS when `tls`.
    Http {
        /// HTTPS.
        tls: bool,
        /// Path, `/` by default.
        path: String,
        /// `Host`; the backend's address by default.
        host: Option<String>,
        /// Lowest good status.
        status_min: u16,
        /// Highest good status.
        status_max: u16,
    },
}

/// Passive ejection by failed connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Eject {
    /// Failed connects in a row.
    pub failures: u32,
    /// The first ejection; doubles each time.
    pub base: Duration,
    /// The longest.
    pub max: Duration,
}

/// Open connections of a backend marked down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDown {
    /// They stay.
    Keep,
    /// They are closed, paced.
    Close,
}
