//! What a listener means: where it accepts, whom it believes, and which pool gets what.
//!
//! Binds nothing. Invariant: every pool that it names is in the configuration.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::{Certificate, ClientCertificate, Forwarded, Tls};
use crate::server_name::NamePattern;

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
