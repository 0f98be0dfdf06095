//! What both halves of the product know of a connection: what it is when it moves from one to the other, and what may
//! be asked of it wherever it is.
//!
//! Moves nothing and asks nobody. Invariant: a [`Carried`] owns its socket and its permit; whoever drops it closes the
//! one and gives the other back.

use std::hash::{BuildHasher, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use crate::admission::Permit;
use crate::clock::Micros;
use crate::config::Tls;
use crate::pool::Backend;
use crate::route::RouteFacts;
use crate::server_name::ServerName;
use crate::snapshot::{Listener, RouteTarget};

/// A connection on its way to the half that converses.
#[derive(Debug)]
pub struct Carried<S> {
    /// The client's socket, watched by nobody.
    pub client: S,
    /// What it has sent behind any PROXY header, in order; nobody has seen it yet.
    pub bytes: Vec<u8>,
    /// Its place.
    pub permit: Permit,
    /// Who it is and how it came.
    pub client_info: ClientInfo,
    /// Where it came in, by the rules that held then.
    pub listener: Arc<Listener>,
}

/// Who a client is and how it came in: everything that routes, placement and logs look at.
#[derive(Debug)]
pub struct ClientInfo {
    /// Its number in this process.
    pub id: u64,
    /// When it was accepted.
    pub accepted: Micros,
    /// How it was told where it belongs.
    pub entry: Entry,
    /// The client's address, announced or seen; a unix peer has none.
    pub source: Option<SocketAddr>,
    /// Who connected, where a PROXY header announced somebody else.
    pub peer: Option<SocketAddr>,
    /// Where the client wanted to, announced or seen.
    pub destination: Option<SocketAddr>,
    /// A PROXY header announced a client.
    pub announced: bool,
    /// A PROXY header said LOCAL or UNKNOWN: served keyless.
    pub local: bool,
    /// The TLVs of the PROXY header.
    pub tlvs: Box<[u8]>,
    /// The server name of the hello.
    pub sni: Option<ServerName>,
    /// The protocols it offers: a checked ProtocolNameList body.
    pub alpn: Box<[u8]>,
    /// Encrypted ClientHello was offered.
    pub ech: bool,
}

/// How a connection is told where it belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// By the routes.
    Routed,
    /// Its bytes are certainly not TLS, and the listener has a pool for such.
    NotTls,
    /// It said nothing, and the listener has a pool for such.
    Silent,
}

impl ClientInfo {
    /// Where a connection with this server name belongs by the rules of `listener`.
    pub fn route(&self, listener: &Listener, sni: Option<&str>) -> Option<RouteTarget> {
        let fallback = |pool: Option<usize>| pool.map(|pool| RouteTarget { pool, route: None, tls: Tls::Off });
        match self.entry {
            Entry::NotTls => fallback(listener.not_tls),
            Entry::Silent => fallback(listener.silent),
            Entry::Routed => listener.route(&RouteFacts {
                sni,
                alpn: &self.alpn,
                source: self.source.filter(|_| !self.local).map(|source| source.ip()),
            }),
        }
    }
}

/// Names a connection among those of all processes and machines.
pub fn unique_id(id: u64) -> [u8; 16] {
    static INSTANCE: OnceLock<u64> = OnceLock::new();
    let instance = *INSTANCE.get_or_init(|| std::hash::RandomState::new().build_hasher().finish());
    let mut unique = [0; 16];
    unique[..8].copy_from_slice(&instance.to_be_bytes());
    unique[8..].copy_from_slice(&id.to_be_bytes());
    unique
}

/// Which connections a command means.
#[derive(Debug, Clone)]
pub enum Selection {
    /// All of them.
    All,
    /// Those that use this backend.
    Of(Arc<Backend>),
}

/// Which connections the admin interface lists; also the query of `GET /connections`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionFilter {
    /// Only connections of this pool; `None`: of any pool.
    pub pool: Option<String>,
    /// Only connections to backends of this name; `None`: to any backend.
    pub backend: Option<String>,
    /// The most connections that are listed; the count goes on.
    #[serde(default = "ConnectionFilter::limit")]
    pub limit: usize,
}

impl ConnectionFilter {
    /// The limit of a query without one.
    pub const LIMIT: usize = 1_000;

    fn limit() -> usize {
        Self::LIMIT
    }

    /// Whether a connection of this pool and backend is one of them.
    pub fn holds(&self, pool: Option<&str>, backend: Option<&str>) -> bool {
        let is = |wanted: &Option<String>, name: Option<&str>| wanted.as_deref().is_none_or(|is| name == Some(is));
        is(&self.pool, pool) && is(&self.backend, backend)
    }
}

/// An open connection that has a backend, for plans.
#[derive(Debug, Clone)]
pub struct OpenConnection {
    /// Where it came in.
    pub listener: Arc<str>,
    /// Where it is.
    pub backend: Arc<Backend>,
    /// A cookie said so.
    pub by_cookie: bool,
    /// The client's address, announced or seen; a unix peer has none.
    pub source: Option<IpAddr>,
    /// A PROXY header said LOCAL or UNKNOWN: served keyless.
    pub local: bool,
    /// The server name of the hello, where it was read.
    pub sni: Option<ServerName>,
}

/// A living connection, for the admin interface.
#[derive(Debug, Clone, Serialize)]
pub struct ConnectionView {
    /// Its number.
    pub id: u64,
    /// The worker that holds it, or whose conversations it is one of.
    pub worker: usize,
    /// The client address, announced or seen; absent for a unix peer.
    pub client: Option<String>,
    /// Where it came in.
    pub listener: String,
    /// Its pool, once routed.
    pub pool: Option<String>,
    /// Its backend, once picked.
    pub backend: Option<String>,
    /// Why that backend.
    pub reason: Option<&'static str>,
    /// The server name of the hello.
    pub sni: Option<String>,
    /// `preread`, `connect` or `relay`; of conversations also `handshake`, `head`, `exchange`, `kept`.
    pub stage: &'static str,
    /// Since accept.
    pub age_ms: u64,
    /// Since the last byte.
    pub idle_ms: u64,
    /// From the client.
    pub bytes_up: u64,
    /// To the client.
    pub bytes_down: u64,
}
