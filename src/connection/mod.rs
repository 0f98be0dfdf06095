//! [`Carried`] and [`ClientInfo`]: a connection in the form that both halves of the product share.
//!
//! Reads no socket and picks no backend. `record.rs` is what others see of a connection, `select.rs` which connections
//! a command is about. Invariant: a [`Carried`] owns its socket and its permit; dropping it closes the socket and gives
//! the permit back.

mod record;
mod select;

use std::hash::{BuildHasher, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};

pub use self::record::{ConnectionRecord, ConnectionView, OpenConnection};
pub use self::select::{ConnectionFilter, Selection};

use crate::admission::Permit;
use crate::alert::TlsRefusal;
use crate::client_hello::ClientHello;
use crate::clock::Micros;
use crate::config::{self, ProxyOut, Tls, Untrusted};
use crate::outcome::Ended;
use crate::proxy_protocol::{self, Announce, Header};
use crate::route::RouteFacts;
use crate::server_name::ServerName;
use crate::snapshot::{Listener, RouteTarget};
use crate::sticky::Facts;

/// A connection on its way from a worker to the runtime that serves it as a conversation.
#[derive(Debug)]
pub struct Carried<S> {
    /// Socket of the client, removed from the worker's epoll.
    pub client: S,
    /// Bytes read behind any PROXY header, in order; no backend has received them.
    pub bytes: Vec<u8>,
    /// Permit that counts the connection until it is dropped.
    pub permit: Permit,
    /// Facts about the client that the worker has read.
    pub client_info: ClientInfo,
    /// Listener with the rules by which the connection was read ahead.
    pub listener: Arc<Listener>,
    /// Why the client gets no TLS handshake; `None`: the connection is to be served.
    pub refusal: Option<TlsRefusal>,
}

/// Facts about a client and how it came in: the input of routes, placement, PROXY headers and logs.
#[derive(Debug, Default)]
pub struct ClientInfo {
    /// Number of the connection in this process.
    pub id: u64,
    /// Time of accept, on the process's monotonic clock.
    pub accepted: Micros,
    /// Rule that decides the pool.
    pub entry: Entry,
    /// Address of the client, announced or seen; `None` for a unix peer.
    pub source: Option<SocketAddr>,
    /// Address of the socket's peer where a PROXY header announced another client.
    pub peer: Option<SocketAddr>,
    /// Address the client connected to, announced or seen.
    pub destination: Option<SocketAddr>,
    /// A PROXY header announced a client.
    pub announced: bool,
    /// A PROXY header said LOCAL or UNKNOWN: the connection has no key.
    pub local: bool,
    /// TLVs of the PROXY header, as received.
    pub tlvs: Box<[u8]>,
    /// A whole ClientHello was read.
    pub hello_read: bool,
    /// Server name of the ClientHello.
    pub sni: Option<ServerName>,
    /// Protocols that the ClientHello offers: a checked ProtocolNameList body (RFC 7301 §3.1).
    pub alpn: Box<[u8]>,
    /// The ClientHello offers Encrypted ClientHello (RFC 9849).
    pub ech: bool,
}

/// The rule of a listener that decides a connection's pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Entry {
    /// The routes of the listener decide.
    #[default]
    Routed,
    /// The bytes are certainly not TLS, and `not_tls` names a pool.
    NotTls,
    /// The client sent nothing before `hello_timeout`, and `silent` names a pool.
    Silent,
}

impl ClientInfo {
    /// Takes over what a PROXY header says.
    pub fn learn_header(&mut self, header: Header) {
        match header {
            Header::Local => self.local = true,
            Header::Proxied { source, destination, tlvs } => {
                self.peer = self.source.replace(source);
                self.destination = Some(destination);
                (self.announced, self.tlvs) = (true, tlvs);
            }
        }
    }

    /// Takes over what a ClientHello says.
    pub fn learn_hello(&mut self, hello: ClientHello) {
        self.hello_read = true;
        (self.sni, self.alpn, self.ech) = (hello.server_name, hello.alpn, hello.ech);
    }

    /// Returns the pool of this connection by the rules of `listener`; `None` = it is refused.
    pub fn route(&self, listener: &Listener) -> Option<RouteTarget> {
        self.route_by_name(listener, self.name())
    }

    /// Does the same as [`Self::route`] for another server name, such as the host of a request.
    pub fn route_by_name(&self, listener: &Listener, sni: Option<&str>) -> Option<RouteTarget> {
        let fallback = |pool: Option<usize>| pool.map(|pool| RouteTarget { pool, route: None, tls: Tls::Off });
        match self.entry {
            Entry::NotTls => fallback(listener.not_tls),
            Entry::Silent => fallback(listener.silent),
            Entry::Routed => listener.route(&RouteFacts { sni, ..self.route_facts() }),
        }
    }

    /// Returns the listener that judges this connection: `in_force` if it would have read of the client exactly what
    /// was read by `read_by`, else `read_by`. So rules about reading and routes never come from two generations: a
    /// verdict "not TLS" or "silent", a PROXY header or "no hello needed" meets only routes of a configuration that
    /// agrees.
    pub fn judged_by<'l>(&self, in_force: Option<&'l Arc<Listener>>, read_by: &'l Arc<Listener>) -> &'l Arc<Listener> {
        in_force.filter(|listener| self.would_be_read_by(listener, &read_by.config)).unwrap_or(read_by)
    }

    fn would_be_read_by(&self, listener: &Listener, read_by: &config::Listener) -> bool {
        let peer = if self.announced { self.peer } else { self.source };
        let same_header = expects_proxy_header(&listener.config, peer) == Ok(self.announced || self.local)
            && listener.config.proxy.is_some() == read_by.proxy.is_some();
        let same_verdict = match self.entry {
            Entry::Routed => self.hello_read == listener.needs_hello,
            Entry::NotTls => listener.needs_hello && listener.not_tls.is_some(),
            Entry::Silent => listener.needs_hello && listener.silent.is_some(),
        };
        same_header && same_verdict
    }

    /// Returns what the conditions of routes look at.
    pub fn route_facts(&self) -> RouteFacts<'_> {
        RouteFacts { sni: self.name(), alpn: &self.alpn, source: self.key_source() }
    }

    /// Returns what identifies the client to a pool, without cookies; empty for a connection without a key.
    pub fn facts(&self) -> Facts<'_> {
        if self.local {
            return Facts::default();
        }
        Facts { source: self.key_source(), sni: self.name(), tlvs: &self.tlvs, cookies: &[] }
    }

    /// Returns the PROXY header for a backend of a pool with `send_proxy`. `alpn` is a ProtocolNameList body; `ssl` is
    /// the value of PP2_TYPE_SSL where TLS was terminated here, else the client's own header is passed on.
    pub fn proxy_header(&self, proxy: &ProxyOut, alpn: Option<&[u8]>, ssl: Option<&[u8]>) -> Vec<u8> {
        let announce = Announce {
            addresses: if self.local { None } else { self.source.zip(self.destination) },
            alpn,
            authority: self.name(),
            unique_id: Some(&unique_id(self.id)),
            ssl: ssl.or_else(|| proxy_protocol::tlv(&self.tlvs, proxy_protocol::TLV_SSL)),
        };
        let mut header = Vec::new();
        proxy_protocol::write(&mut header, proxy, &announce);
        header
    }

    /// True for a client that is outside `trust` of a listener that reads PROXY headers: it sends none.
    pub fn is_direct(&self, listener: &config::Listener) -> bool {
        listener.proxy.is_some() && !self.announced && !self.local
    }

    /// Returns the client's IP address, or `None` where the connection has no key or a unix peer.
    pub fn key_source(&self) -> Option<IpAddr> {
        self.source.filter(|_| !self.local).map(|source| source.ip())
    }

    fn name(&self) -> Option<&str> {
        self.sni.as_ref().map(ServerName::as_str)
    }
}

/// True if the first bytes of this peer must be a PROXY header; an error if the listener refuses the peer. A unix peer
/// is trusted, because the permissions of the socket's file say which process may connect.
pub fn expects_proxy_header(listener: &config::Listener, peer: Option<SocketAddr>) -> Result<bool, Ended> {
    let Some(proxy) = &listener.proxy else { return Ok(false) };
    if peer.is_none_or(|peer| proxy.trust.iter().any(|network| network.contains(&peer.ip()))) {
        return Ok(true);
    }
    if proxy.untrusted == Untrusted::Refuse { Err(Ended::Untrusted) } else { Ok(false) }
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

#[cfg(test)]
mod tests;
