//! [`Carried`] and [`ClientInfo`]: a connection in the form that both halves of the product share.
//!
//! Reads no socket and picks no backend. `record.rs` is what others see of a connection, `select.rs` which connections
//! a command is about. Invariant: a [`Carried`] owns its socket and its permit; dropping it closes the socket and gives
//! the permit back.

mod moving;
mod record;
mod select;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};

pub use self::moving::Moving;
pub use self::record::{ConnectionRecord, ConnectionView, OpenConnection};
pub use self::select::{ConnectionFilter, Selection};

use crate::access_log::RequestId;
use crate::admission::{HeldBytes, Permit, source_network};
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
    pub bytes: HeldBytes,
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
    /// TLVs of the PROXY header, as received; of a long list only what keys of pools and backends look at.
    pub tlvs: Box<[u8]>,
    /// The PROXY header has more TLVs than `tlvs`.
    pub tlvs_are_part: bool,
    /// A whole ClientHello was read.
    pub hello_read: bool,
    /// Server name of the ClientHello.
    pub sni: Option<ServerName>,
    /// What the ClientHello has in place of a host name, cut, for logs.
    pub odd_name: Option<Arc<str>>,
    /// Protocols that the ClientHello offers: a checked ProtocolNameList body (RFC 7301 §3.1), of a long list only what
    /// a route of the listener looks at.
    pub alpn: Box<[u8]>,
    /// The ClientHello offers more protocols than `alpn` has.
    pub alpn_is_part: bool,
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
    /// Takes over what a PROXY header says, so much of it as a connection by these rules needs.
    pub fn learn_header(&mut self, header: Header, read_by: &Listener) {
        match header {
            Header::Local => self.local = true,
            Header::Proxied { source, destination, tlvs } => {
                self.peer = self.source.replace(source);
                self.destination = Some(destination);
                self.announced = true;
                let wanted = |kind| kind == proxy_protocol::TLV_SSL || read_by.tlv_kinds.contains(&kind);
                (self.tlvs, self.tlvs_are_part) = proxy_protocol::kept_tlvs(tlvs, wanted);
            }
        }
    }

    /// Takes over what a ClientHello says, so much of it as a connection by these rules needs: its length is the
    /// client's choice.
    pub fn learn_hello(&mut self, hello: ClientHello, read_by: &Listener) {
        self.hello_read = true;
        (self.sni, self.odd_name, self.ech) = (hello.server_name, hello.odd_name, hello.ech);
        (self.alpn, self.alpn_is_part) = read_by.routes.kept_protocols(hello.alpn);
    }

    /// Returns the pool of this connection by the rules of `listener`; `None` = it is refused.
    pub fn route(&self, listener: &Listener, now_ms: u64) -> Option<RouteTarget> {
        let fallback = |pool: Option<usize>| {
            pool.map(|pool| RouteTarget { pool: Some(pool), route: None, tls: Tls::Off, split_by: None })
        };
        match self.entry {
            Entry::NotTls => fallback(listener.not_tls),
            Entry::Silent => fallback(listener.silent),
            Entry::Routed => {
                let target = listener.route(&self.route_facts())?;
                Some(listener.divide(target, &self.facts(), self.id, now_ms))
            }
        }
    }

    /// Returns the listener that judges this connection: `in_force` if it would have read of the client exactly what
    /// was read by `read_by`, else `read_by`. So rules about reading and routes never come from two generations: a
    /// verdict "not TLS" or "silent", a PROXY header or "no hello needed" meets only routes of a configuration that
    /// agrees.
    pub fn judged_by<'l>(&self, in_force: Option<&'l Arc<Listener>>, read_by: &'l Arc<Listener>) -> &'l Arc<Listener> {
        in_force.filter(|listener| self.would_be_read_by(listener, read_by)).unwrap_or(read_by)
    }

    fn would_be_read_by(&self, listener: &Listener, read_by: &Listener) -> bool {
        let peer = if self.announced { self.peer } else { self.source };
        let same_header = expects_proxy_header(&listener.config, peer) == Ok(self.announced || self.local)
            && listener.config.proxy.is_some() == read_by.config.proxy.is_some();
        let same_verdict = match self.entry {
            Entry::Routed => self.hello_read == listener.needs_hello,
            Entry::NotTls => listener.needs_hello && listener.not_tls.is_some(),
            Entry::Silent => listener.needs_hello && listener.silent.is_some(),
        };
        let same_protocols = !self.alpn_is_part || listener.routes.protocols_are_of(&read_by.routes);
        let same_tlvs = !self.tlvs_are_part || listener.tlv_kinds.iter().all(|kind| read_by.tlv_kinds.contains(kind));
        same_header && same_verdict && same_protocols && same_tlvs
    }

    /// Returns what the conditions of routes look at.
    pub fn route_facts(&self) -> RouteFacts<'_> {
        RouteFacts { sni: self.name(), alpn: &self.alpn, source: self.key_source() }
    }

    /// Returns what identifies the client to a pool before a request is read; empty for a connection without a key.
    pub fn facts(&self) -> Facts<'_> {
        if self.local {
            return Facts::default();
        }
        Facts { source: self.key_source(), sni: self.name(), tlvs: &self.tlvs, values: &[] }
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
        listener.proxy.is_some() && !self.is_of_trusted_peer()
    }

    /// True for a client that a peer inside `trust` brings, by a PROXY header: it may bring those of many more.
    pub fn is_of_trusted_peer(&self) -> bool {
        self.announced || self.local
    }

    /// Returns the client's IP address, or `None` where the connection has no key or a unix peer.
    pub fn key_source(&self) -> Option<IpAddr> {
        self.source.filter(|_| !self.local).map(|source| source.ip())
    }

    /// What the client is counted with: its address or its network; `None`: a unix peer.
    pub fn counted_source(&self) -> Option<IpAddr> {
        self.source.map(|source| source_network(source.ip()))
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

/// Names a request among those of all processes and machines, in 32 hexadecimal digits: the connection's number and
/// the request's in its connection, permuted by a secret of this process. No two requests have one name, and a name
/// tells a client nothing of either number.
pub fn request_id(connection: u64, request: u64) -> RequestId {
    // A Feistel network is a permutation, whatever its rounds are; four keyed rounds make it look random.
    let round = |(left, right): (u64, u64), number: u8| (right, left ^ keyed(number, right));
    let (left, right) = (0..4).fold((connection, request), round);
    RequestId(u128::from(left) << 64 | u128::from(right))
}

/// The number of a connection and that of a request in it, by the [`request_id`] of this process; `None`: the text is no
/// such id. An id of another process gives numbers that mean nothing.
pub fn of_request_id(id: &str) -> Option<(u64, u64)> {
    let is_hex = id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let (left, right) = id.split_at_checked(16).filter(|_| is_hex)?;
    let half = |text: &str| u64::from_str_radix(text, 16).ok();
    let round = |(left, right): (u64, u64), number: u8| (right ^ keyed(number, left), left);
    Some((0..4).rev().fold((half(left)?, half(right)?), round))
}

/// A round of the permutation, under a secret of this process.
fn keyed(round: u8, half: u64) -> u64 {
    static SECRET: OnceLock<RandomState> = OnceLock::new();
    SECRET.get_or_init(RandomState::new).hash_one((round, half))
}

/// Names a connection among those of all processes and machines, for backends.
pub fn unique_id(id: u64) -> [u8; 16] {
    static INSTANCE: OnceLock<u64> = OnceLock::new();
    let instance = *INSTANCE.get_or_init(|| RandomState::new().build_hasher().finish());
    let mut unique = [0; 16];
    unique[..8].copy_from_slice(&instance.to_be_bytes());
    unique[8..].copy_from_slice(&id.to_be_bytes());
    unique
}

#[cfg(test)]
mod tests;
