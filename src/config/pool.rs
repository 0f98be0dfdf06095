//! [`Pool`]: its backends, how one is picked, and how backends are reached and checked.
//!
//! Opens no connection. Invariant: a pool without `discover` has at least one backend of
//! weight above 0.

mod orders;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

pub use self::orders::{Instead, PoolOrders, Removal, StandingOrder};

use super::{
    BackendOrigin, Check, Cookie, Discover, Eject, HeaderRules, HostPort, KeyPart, OnDown, OnFull, OwnTimeouts,
    PoolTls, RequestLimits, Resolve, StickTableRules, Tls,
};

/// One `[[pool]]`: backends with one balancing rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Pool {
    /// Name of the pool; unique in the file.
    pub name: String,
    /// Whether HTTP is read, so that every request is placed by itself, and which version the backends speak.
    pub http: PoolHttp,
    /// ALPN protocols offered to clients where TLS ends here and `http` is off; empty: none.
    pub alpn: Vec<String>,
    /// TLS to the backends; `None`: bytes are sent as they are.
    pub tls: Option<PoolTls>,
    /// Method that picks a backend.
    pub balance: Balance,
    /// Parts of the key; empty: the word `"none"`.
    pub key: Vec<KeyPart>,
    /// Leading bits of an IPv4 address that enter the key, 0 to 32.
    pub prefix_v4: u8,
    /// Leading bits of an IPv6 address that enter the key, 0 to 128.
    pub prefix_v6: u8,
    /// Seed of every placement hash; equal on balancers that must place alike.
    pub hash_seed: u64,
    /// Rules of the stick table; `None`: the pool has no stick table.
    pub stick_table: Option<StickTableRules>,
    /// Name of a group of pools that share one stick table; `None`: the pool has its own.
    pub stick_group: Option<String>,
    /// Treatment of a known client while its backend is down.
    pub when_down: OnDown,
    /// Share of a backend, in hundredths of the mean, above which new keys go elsewhere; `None`: no bound.
    pub load_bound: Option<u32>,
    /// Treatment of a client while its backend has `max_connections`.
    pub on_full: OnFull,
    /// Time over which a backend that is up again gets more and more new keys; `None`: all at once.
    pub slow_start: Option<Duration>,
    /// Time that a backend drained by command or by its agent still serves known clients.
    pub drain_deadline: Duration,
    /// Time after the deadline over which open connections are closed evenly.
    pub drain_over: Duration,
    /// When name servers are asked for the names of backends.
    pub resolve: Resolve,
    /// What names backends beside those of the file; `None`: nothing does.
    pub discover: Option<Discover>,
    /// Backends in the order of the file, and behind them those of `discover` and those that orders have added, each in
    /// the order of their names.
    pub backends: Vec<Backend>,
    /// What orders at run time have made of the backends.
    pub orders: PoolOrders,
    /// Named ranges in the order of the file.
    pub ranges: Vec<Range>,
    /// Treatment of connections while no backend is usable.
    pub all_down: AllDown,
    /// Timeouts in place of those of the listener and of `[limits]`.
    pub limits: OwnTimeouts,
    /// Limits of requests in place of those of the listener and of `[limits]`.
    pub request_limits: RequestLimits,
    /// Time limit of one attempt to connect.
    pub connect_timeout: Duration,
    /// Time limit of all attempts of one connection together.
    pub connect_budget: Duration,
    /// Additional attempts, 200 ms apart, at the backend of a known key before the key moves.
    pub sticky_retries: u32,
    /// Local addresses to connect from; empty: the kernel chooses.
    pub source: Vec<IpAddr>,
    /// PROXY header sent to backends; `None`: off.
    pub proxy: Option<ProxyOut>,
    /// Active health checks; `None`: off.
    pub check: Option<Check>,
    /// Passive ejection after failed connects; `None`: off.
    pub eject: Option<Eject>,
    /// Treatment of open connections when checks mark their backend down.
    pub on_marked_down: OnMarkedDown,
    /// Cookie that keeps a client at its backend; `None`: only the key does.
    pub cookie: Option<Cookie>,
    /// Header fields that requests get and lose on their way to the backends.
    pub request_headers: HeaderRules,
    /// Header fields that responses of the backends get and lose.
    pub response_headers: HeaderRules,
}

impl Pool {
    /// True if connections to this pool are conversations: TLS ends here, HTTP is read, or TLS to backends starts.
    pub fn is_conversation(&self, tls: Tls) -> bool {
        tls == Tls::Terminate || self.http.is_read() || self.tls.is_some()
    }

    /// True if a key tells clients apart, by placement or by the stick table alone.
    pub fn has_key(&self) -> bool {
        self.balance.keyed() || self.places_by_load()
    }

    /// True if a new key goes where the load is least, and only the stick table brings it back.
    pub fn places_by_load(&self) -> bool {
        self.balance.may_remember() && self.stick_table.is_some() && !self.key.is_empty()
    }

    /// Name of the stick table that the pool uses: its group's, or its own.
    pub fn sticks_as(&self) -> &str {
        self.stick_group.as_deref().unwrap_or(&self.name)
    }
}

/// Whether HTTP is read, and which version of it the backends speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolHttp {
    /// `false`: bytes pass as they are.
    Off,
    /// `true`: the backends speak HTTP/1.1.
    Http1,
    /// `"h2"`: the backends speak HTTP/2.
    Http2,
}

impl PoolHttp {
    /// True if every request is placed by itself.
    pub fn is_read(self) -> bool {
        self != Self::Off
    }

    /// The value as a file has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Off => "false",
            Self::Http1 => "true",
            Self::Http2 => "\"h2\"",
        }
    }
}

/// Method that picks a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// Weighted rendezvous hashing; the default.
    Hash,
    /// Consistent hash ring; a backend has `points` times its weight points.
    Ring {
        /// Points of a backend of weight 1.
        points: u32,
    },
    /// Maglev hashing, by a lookup table.
    Maglev {
        /// Number of entries; a prime.
        table_size: u32,
    },
    /// Backends in turn, by weight.
    RoundRobin,
    /// Backend with the fewest leases divided by weight.
    LeastConnections,
    /// Less loaded one of two random backends.
    TwoChoices,
    /// Random backend with probability by weight.
    Random,
}

impl Balance {
    /// True if the method places by a key.
    pub fn keyed(self) -> bool {
        matches!(self, Self::Hash | Self::Ring { .. } | Self::Maglev { .. })
    }

    /// True if the method places without a key, and a stick table may remember the key that it has placed.
    pub fn may_remember(self) -> bool {
        matches!(self, Self::RoundRobin | Self::LeastConnections | Self::TwoChoices)
    }

    /// True if the method goes by the leases that backends have.
    pub fn counts_leases(self) -> bool {
        matches!(self, Self::LeastConnections | Self::TwoChoices)
    }

    /// Word of the method in the configuration.
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

/// One `[[pool.backend]]`: a named address.
#[derive(Debug, Clone, PartialEq)]
pub struct Backend {
    /// Name of the backend; unique in the pool. Pool and name are its identity.
    pub name: String,
    /// Address to connect to.
    pub address: Address,
    /// The name that is written as its address; `None`: the address itself is written.
    pub host: Option<HostPort>,
    /// Weight, 0 to 256; a backend of weight 0 gets no new keys.
    pub weight: u16,
    /// Levels of the location, outermost first: `"dc1/host3"`; empty: none.
    pub location: Vec<String>,
    /// True if the backend is used only while no other backend is usable.
    pub backup: bool,
    /// Most connections at the same time; `None`: no limit.
    pub max_connections: Option<u32>,
    /// Whether the file has it, the source of the pool names it, or an order has added or removed it.
    pub origin: BackendOrigin,
}

/// Address of a backend.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// IP address and port; never port 0.
    Tcp(SocketAddr),
    /// Path of a unix socket.
    Unix(PathBuf),
    /// A name of which no address is known: nothing can connect to it, and the backend is down.
    Name(HostPort),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Name(name) => write!(f, "{name}"),
        }
    }
}

/// One `[[pool.range]]`: client addresses with a rule of their own. The longest matching prefix wins.
#[derive(Debug, Clone, PartialEq)]
pub struct Range {
    /// Name in the access log and in `explain`; unique in the pool.
    pub name: String,
    /// Network of the client addresses.
    pub cidr: IpNet,
    /// Rule for the clients of this range.
    pub rule: RangeRule,
}

/// Rule for the clients of a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RangeRule {
    /// The whole range is one key, placed as one client.
    One,
    /// Another prefix length than the pool's.
    Prefix(u8),
    /// Only these backends may serve the range.
    Pin {
        /// Names of backends in the pool; at least one.
        backends: Vec<String>,
        /// True: refuse while all of these are down; false: use the rest of the pool.
        strict: bool,
    },
}

/// Treatment of connections while no backend is usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllDown {
    /// Backends are tried in placement order as if all were up.
    Try,
    /// Connections are closed at once.
    Refuse,
}

/// PROXY header sent to backends: version and additional fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyOut {
    /// Version of the PROXY protocol.
    pub version: ProxyVersion,
    /// Additional fields (TLVs); version 2 only.
    pub tlvs: Vec<ProxyTlv>,
}

/// Version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    /// Version 1, one line of text.
    V1,
    /// Version 2, binary, with additional fields.
    V2,
}

/// Additional field (TLV) of a version 2 header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyTlv {
    /// First ALPN protocol in the client's list (type 0x01).
    Alpn,
    /// Server name from the ClientHello (type 0x02).
    Authority,
    /// Id of the connection in the access log (type 0x05).
    UniqueId,
    /// Facts about the client's TLS: observed here, or from an incoming header (type 0x20).
    Ssl,
    /// Checksum of the header (type 0x03).
    Crc32c,
}

/// Treatment of open connections when checks mark their backend down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnMarkedDown {
    /// Open connections continue until they end.
    Keep,
    /// Open connections are closed evenly over time.
    Close,
}

/// Pools and backends with all defaults, for tests.
#[cfg(test)]
impl Pool {
    pub(crate) fn of_test(backends: Vec<Backend>) -> Self {
        Self {
            name: "web".to_owned(),
            http: PoolHttp::Off,
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
            resolve: Resolve::Ttl,
            discover: None,
            backends,
            orders: PoolOrders::default(),
            ranges: vec![],
            all_down: AllDown::Try,
            limits: OwnTimeouts::default(),
            request_limits: RequestLimits::default(),
            connect_timeout: Duration::from_secs(2),
            connect_budget: Duration::from_secs(6),
            sticky_retries: 1,
            source: vec![],
            proxy: None,
            check: None,
            eject: None,
            on_marked_down: OnMarkedDown::Keep,
            cookie: None,
            request_headers: HeaderRules::default(),
            response_headers: HeaderRules::default(),
        }
    }
}

#[cfg(test)]
impl Backend {
    pub(crate) fn of_test(name: &str, address: Address) -> Self {
        Self {
            name: name.to_owned(),
            address,
            host: None,
            weight: 1,
            location: vec![],
            backup: false,
            max_connections: None,
            origin: BackendOrigin::Written,
        }
    }
}
