//! What a pool means: its backends, how one is chosen, and how they are reached and checked.
//!
//! Connects to nobody. Invariant: a pool has at least one backend of weight above 0.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::{Cookie, OnDown, OnFull, PoolTls, StickTableRules};
use crate::server_name::ServerName;

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
    /// The stick table of where keys settled; `None` = none.
    pub stick_table: Option<StickTableRules>,
    /// Pools of one group share their stick table.
    pub stick_group: Option<String>,
    /// What a known client does whose backend is down.
    pub when_down: OnDown,
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
    pub on_marked_down: OnMarkedDown,
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
pub enum OnMarkedDown {
    /// They stay.
    Keep,
    /// They are closed, paced.
    Close,
}

/// What a file says that says only this, for tests.
#[cfg(test)]
impl Pool {
    pub(crate) fn of_test(backends: Vec<Backend>) -> Self {
        Self {
            name: "web".to_owned(),
            http: false,
            alpn: vec![],
            tls: None,
            balance: Balance::Hash,
            key: vec![KeyPart::Source],
            prefix_v4: 32,
            prefix_v6: 64,
            hash_seed: 0,
            stick_table: None,
            stick_group: None,
            when_down: OnDown::Rehash,
            load_bound: None,
            on_full: OnFull::Overflow,
            slow_start: None,
            drain_deadline: Duration::from_secs(300),
            drain_over: Duration::from_secs(60),
            backends,
            ranges: vec![],
            all_down: AllDown::Try,
            connect_timeout: Duration::from_secs(2),
            connect_budget: Duration::from_secs(6),
            sticky_retries: 1,
            source: vec![],
            proxy: None,
            check: None,
            eject: None,
            on_marked_down: OnMarkedDown::Keep,
            cookie: None,
        }
    }
}

#[cfg(test)]
impl Backend {
    pub(crate) fn of_test(name: &str, address: Address) -> Self {
        Self { name: name.to_owned(), address, weight: 1, location: vec![], backup: false, max_connections: None }
    }
}
