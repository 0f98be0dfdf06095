//! [`Listener`]: its addresses, trusted peers, certificates and routes to pools.
//!
//! Binds no socket. Invariant: every pool that a listener names is in the configuration.

use std::fmt;
use std::net::{AddrParseError, IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use ipnet::IpNet;

use super::{
    Address, Certificate, ClientCertificate, ErrorPage, Forwarded, OwnTimeouts, RequestLimits, Route, Split, Tls,
};

/// One `[[listener]]`: addresses that accept clients, and rules for their connections.
#[derive(Debug, Clone, PartialEq)]
pub struct Listener {
    /// Name of the listener; unique in the file.
    pub name: String,
    /// Addresses to bind; at least one.
    pub bind: Vec<Bind>,
    /// Mode of the files of unix sockets; `None`: as the umask of the process has it.
    pub mode: Option<u32>,
    /// Group of the files of unix sockets, by name or number; `None`: the group of the process.
    pub group: Option<String>,
    /// TLS mode of connections on a route without a mode of its own.
    pub tls: Tls,
    /// Certificates in the order of the file; exactly one is the default.
    pub certificates: Vec<Certificate>,
    /// Request for a client certificate, for the default pool; `None`: no request.
    pub client_certificate: Option<ClientCertificate>,
    /// True if a TLS decoder stands in front; a PROXY header with TLS facts takes precedence.
    pub client_tls: bool,
    /// True if clients may speak HTTP/2 where HTTP is read, on a route without a word of its own.
    pub http2: bool,
    /// Treatment of `X-Forwarded-*` and `Forwarded` from clients. `Append` never applies to peers outside `trust`.
    pub forwarded: Forwarded,
    /// Header field with the id of a request, on its way to the backend and in the response; `None`: there is none.
    pub request_id: Option<String>,
    /// Pool of connections that no route matches; `None`: they have the split, or are closed.
    pub pool: Option<String>,
    /// Split of the requests that no route matches, in place of a pool.
    pub split: Option<String>,
    /// Most open connections of this listener; `None`: no limit.
    pub max_connections: Option<usize>,
    /// Timeouts in place of those of `[limits]`.
    pub limits: OwnTimeouts,
    /// Limits of requests in place of those of `[limits]`.
    pub request_limits: RequestLimits,
    /// Length of the kernel's accept queue (`listen` backlog).
    pub backlog: u32,
    /// How long the kernel keeps a client that has sent nothing, in seconds (TCP_DEFER_ACCEPT); `None`: it does not.
    pub defer_accept_s: Option<u32>,
    /// Rules for incoming PROXY headers; `None`: no header is expected.
    pub proxy: Option<ProxyIn>,
    /// Treatment of connections with first bytes that are not TLS.
    pub not_tls: Fallback,
    /// Treatment of connections that send no byte within `hello_timeout`.
    pub silent: Fallback,
    /// True if clients that ask for a name which neither a route nor a certificate has are refused.
    pub refuses_unknown_names: bool,
    /// Routes in the order of the file; the order has no meaning.
    pub routes: Vec<Route>,
    /// Pages for replies of this process, each with another status.
    pub error_pages: Vec<ErrorPage>,
}

impl Listener {
    /// True if the listener or one of its routes terminates TLS.
    pub fn terminates(&self) -> bool {
        self.tls == Tls::Terminate || self.routes.iter().any(Route::terminates)
    }

    /// True if a route looks at requests or answers them.
    pub fn routes_requests(&self) -> bool {
        self.routes.iter().any(|route| route.is_of_requests() || route.answers())
    }

    /// True if connections that no route and no pool takes are read as HTTP, because requests have routes of their own.
    pub fn takes_requests_alone(&self) -> bool {
        let has_none = self.pool.is_none() && self.split.is_none();
        has_none && self.tls != Tls::Passthrough && self.routes.iter().any(Route::is_of_requests)
    }

    /// Every split that a route or the default leads to.
    pub fn splits(&self) -> impl Iterator<Item = &str> + Clone {
        self.routes.iter().filter_map(Route::split).chain(self.split.as_deref())
    }

    /// The split of a route, or of the default (`None`); `None`: that leads elsewhere.
    pub fn split_of(&self, route: Option<usize>) -> Option<&str> {
        route.map_or(self.split.as_deref(), |route| self.routes.get(route)?.split())
    }

    /// Every pool that a route or the default leads to, by itself or as one of a split.
    pub fn pools<'c>(&'c self, splits: &'c [Split]) -> impl Iterator<Item = &'c str> + Clone {
        let of_split =
            move |name: &'c str| splits.iter().filter(move |split| split.name == name).flat_map(Split::pools);
        let named = self.routes.iter().filter_map(Route::pool).chain(self.pool.as_deref());
        named.chain(self.splits().flat_map(of_split))
    }

    /// The rules of TLS of connections with this route; `None`: no route decided.
    pub fn rules_of(&self, route: Option<usize>) -> ConnectionRules<'_> {
        match route.and_then(|route| self.routes.get(route)) {
            Some(Route { tls, client_certificate, http2, .. }) => {
                ConnectionRules { tls: *tls, client_certificate: client_certificate.as_ref(), http2: *http2 }
            }
            None => ConnectionRules {
                tls: self.tls,
                client_certificate: self.client_certificate.as_ref(),
                http2: self.http2,
            },
        }
    }
}

/// What a connection fixes for all of its requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ConnectionRules<'c> {
    /// Whether TLS is passed through, terminated or off.
    pub tls: Tls,
    /// The request for a client certificate.
    pub client_certificate: Option<&'c ClientCertificate>,
    /// True if the client may speak HTTP/2.
    pub http2: bool,
}

/// One address of a listener.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Bind {
    /// TCP address, as in `"0.0.0.0:443"` or `"[::]:443"`.
    Tcp(SocketAddr),
    /// Path of a unix socket, as in `"unix:/run/app.sock"`.
    Unix(PathBuf),
    /// Sockets passed by systemd under this `FileDescriptorName`, as in `"systemd:NAME"`.
    Systemd(String),
}

impl Bind {
    /// True if a connection to this address is accepted here.
    pub fn is_reached_by(&self, address: &Address) -> bool {
        match (address, self) {
            (Address::Tcp(to), Self::Tcp(at)) => {
                let same_family = to.is_ipv4() == at.is_ipv4();
                let any = at.ip().is_unspecified() && same_family && IpAddr::is_loopback(&to.ip());
                to.port() == at.port() && (to.ip() == at.ip() || any)
            }
            (Address::Unix(to), Self::Unix(at)) => to == at,
            _ => false,
        }
    }
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

impl FromStr for Bind {
    type Err = AddrParseError;

    /// Reads what `Display` writes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text.strip_prefix("unix:"), text.strip_prefix("systemd:")) {
            (Some(path), _) => Ok(Self::Unix(path.into())),
            (_, Some(name)) => Ok(Self::Systemd(name.to_owned())),
            (None, None) => text.parse().map(Self::Tcp),
        }
    }
}

/// Rules for incoming PROXY headers: peers that must send one, and all others.
#[derive(Debug, Clone, PartialEq)]
pub struct ProxyIn {
    /// Networks of the peers that must send a header. On a unix listener every peer must.
    pub trust: Vec<IpNet>,
    /// Treatment of peers outside `trust`.
    pub untrusted: Untrusted,
}

/// Treatment of peers outside `trust`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untrusted {
    /// Connections are closed at accept, before a byte is read.
    Refuse,
    /// Connections are served with the peer's own address as source.
    Direct,
}

/// Treatment of a connection without a ClientHello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fallback {
    /// The connection is closed without a reply.
    Refuse,
    /// The connection goes to the pool of this name.
    Pool(String),
}
