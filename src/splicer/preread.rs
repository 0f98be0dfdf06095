//! What a connection needs only until its backend is connected: preread bytes, what they say, and the attempts.
//!
//! Reads no socket; the flow hands it bytes. Invariant: `bytes` are exactly what the client sent after any PROXY
//! header, in order, and they are never looked at again once a pool is chosen.

use std::net::SocketAddr;
use std::sync::Arc;

use super::os::{Micros, Os};
use crate::attempt::{Attempts, ConnectFailure};
use crate::client_hello::{ClientHello, Progress, Scan};
use crate::config::{ProxyIn, Tls, Untrusted};
use crate::connection::{ClientInfo, Entry, unique_id};
use crate::outcome::{BreakCause, Ended};
use crate::pool::{Backend, Pool, Remember};
use crate::proxy_protocol::{self, Announce, Header};
use crate::route::RouteFacts;
use crate::server_name::ServerName;
use crate::snapshot::{Listener, RouteTarget};
use crate::sticky::Facts;

/// A buffer above this is not kept for the next connection.
const SPARE_BYTES_MAX: usize = 4 * 1024;

/// A connection before its backend.
#[derive(Debug, Default)]
pub struct Preread {
    /// Where it came in.
    pub listener: Option<Arc<Listener>>,
    /// Read and not yet sent to anybody.
    pub bytes: Vec<u8>,
    /// A PROXY header has to come first.
    pub expects_header: bool,
    /// Attempts to connect, from the first pick on.
    pub attempts: Option<Attempts>,
    /// When the attempt under way began.
    pub attempt_began: Micros,
    /// Backends that failed in this connection.
    pub tried: Vec<Arc<Backend>>,
    /// The pool of the last pick: its rules hold until the connection stands, whatever is reloaded meanwhile.
    pub picked: Option<Arc<Pool>>,
    /// The client had settled at another backend, and why it does not get that.
    pub broke: Option<BreakCause>,
    /// What the pool remembers once the connection stands.
    pub remember: Option<Remember>,
    /// Since when it waits for the backend it settled at.
    pub waiting_since: Option<Micros>,
    /// How the last one failed.
    pub last_failure: Option<ConnectFailure>,
    expects_hello: bool,
    scan: Scan,
    hello: Option<ClientHello>,
    /// A PROXY header said LOCAL or UNKNOWN: served keyless.
    local: bool,
    destination: Option<SocketAddr>,
    tlvs: Box<[u8]>,
    /// Decided without a route.
    fallback: Option<usize>,
}

/// What only some connections have, for the log.
#[derive(Debug, Default, Clone)]
pub struct Labels {
    /// The server name.
    pub sni: Option<ServerName>,
    /// Encrypted ClientHello was offered.
    pub ech: bool,
    /// The named range the client is in.
    pub range: Option<Arc<str>>,
    /// Who connected, where a PROXY header announced somebody else.
    pub peer: Option<SocketAddr>,
    /// Served for the peer itself (PROXY LOCAL or UNKNOWN): logged at debug only.
    pub local: bool,
    /// The pool, where it had no backend to offer.
    pub pool: Option<Arc<str>>,
    /// Why it got another backend than the one it had settled at.
    pub broke: Option<BreakCause>,
}

/// What the row of a connection knows of it.
pub struct Row {
    /// Its number.
    pub id: u64,
    /// When it was accepted.
    pub accepted: Micros,
    /// The client.
    pub source: Option<SocketAddr>,
    /// Who connected for it.
    pub peer: Option<SocketAddr>,
    /// Where the client's socket ends.
    pub destination: Option<SocketAddr>,
}

/// What the bytes so far come to.
pub enum PrereadProgress {
    /// Everything needed is known.
    Known,
    /// A PROXY header, taken off the bytes.
    Announced(Header),
    /// More bytes are needed.
    More,
    /// The connection is refused.
    Refused(Ended),
}

impl Preread {
    /// For a connection that came in here.
    pub fn begin(&mut self, listener: Arc<Listener>, peer: Option<SocketAddr>) -> Result<(), Ended> {
        self.expects_hello = listener.needs_hello;
        match &listener.config.proxy {
            Some(proxy) if trusts(proxy, peer) => self.expects_header = true,
            Some(ProxyIn { untrusted: Untrusted::Refuse, .. }) => return Err(Ended::Untrusted),
            _ => {}
        }
        self.listener = Some(listener);
        Ok(())
    }

    /// Reads the bytes so far.
    pub fn look(&mut self) -> PrereadProgress {
        if self.expects_header {
            return self.look_for_header();
        }
        if !self.expects_hello {
            return PrereadProgress::Known;
        }
        let Some(listener) = &self.listener else { return PrereadProgress::Known };
        let direct = listener.config.proxy.is_some() && self.destination.is_none() && !self.local;
        if direct && proxy_protocol::opens_with_signature(&self.bytes) == Some(true) {
            return PrereadProgress::Refused(Ended::ProxySpoofed);
        }
        match self.scan.resume(&self.bytes) {
            Progress::Done(hello) => {
                self.hello = Some(hello);
                PrereadProgress::Known
            }
            Progress::More => PrereadProgress::More,
            Progress::No(Ended::NotTls) if direct && proxy_protocol::opens_with_signature(&self.bytes).is_none() => {
                PrereadProgress::More
            }
            Progress::No(Ended::NotTls) if listener.not_tls.is_some() => {
                self.fallback = listener.not_tls;
                PrereadProgress::Known
            }
            Progress::No(ended) => PrereadProgress::Refused(ended),
        }
    }

    fn look_for_header(&mut self) -> PrereadProgress {
        match proxy_protocol::parse(&self.bytes) {
            Progress::Done((header, length)) => {
                self.bytes.drain(..length);
                self.expects_header = false;
                match &header {
                    Header::Local => self.local = true,
                    Header::Proxied { destination, tlvs, .. } => {
                        self.destination = Some(*destination);
                        self.tlvs = tlvs.clone();
                    }
                }
                PrereadProgress::Announced(header)
            }
            Progress::More => PrereadProgress::More,
            Progress::No(ended) => PrereadProgress::Refused(ended),
        }
    }

    /// The client finished before it had said enough.
    pub fn cut_short(&self) -> Ended {
        match (self.expects_header, self.bytes.is_empty()) {
            (true, true) => Ended::Probe,
            (true, false) => Ended::ProxyTruncated,
            (false, true) => Ended::ClientLeft,
            (false, false) => Ended::HelloTruncated,
        }
    }

    /// `hello_timeout` has passed. `Ok`: the listener serves silent clients.
    pub fn timed_out(&mut self) -> Result<(), Ended> {
        if self.expects_header {
            return Err(Ended::ProxyTruncated);
        }
        if !self.bytes.is_empty() {
            return Err(Ended::HelloTimeout);
        }
        self.fallback = self.listener.as_ref().and_then(|listener| listener.silent);
        self.fallback.map(|_| ()).ok_or(Ended::Silent)
    }

    /// Where this connection belongs.
    pub fn route(&self, listener: &Listener, source: Option<SocketAddr>) -> Option<RouteTarget> {
        let same_rules = self.listener.as_ref().is_some_and(|own| Arc::ptr_eq(&own.pools, &listener.pools));
        let pool = match self.fallback {
            Some(pool) if same_rules => pool,
            // Reloaded since: what the new rules say of such bytes.
            Some(_) if self.bytes.is_empty() => listener.silent?,
            Some(_) => listener.not_tls?,
            None => {
                return listener.route(&RouteFacts {
                    sni: self.name(),
                    alpn: self.hello.as_ref().map_or(&[], |hello| &hello.alpn),
                    source: source.filter(|_| !self.local).map(|source| source.ip()),
                });
            }
        };
        Some(RouteTarget { pool, route: None, tls: Tls::Off })
    }

    /// What it knows of a connection that is handed over, `id` and addresses from the row.
    pub fn carry(&mut self, row: &Row) -> Option<(Vec<u8>, ClientInfo, Arc<Listener>)> {
        let listener = self.listener.take()?;
        let entry = match self.fallback {
            None => Entry::Routed,
            Some(_) if self.bytes.is_empty() => Entry::Silent,
            Some(_) => Entry::NotTls,
        };
        let hello = self.hello.take();
        let client_info = ClientInfo {
            id: row.id,
            accepted: row.accepted,
            entry,
            source: row.source,
            peer: row.peer,
            destination: self.destination.or(row.destination),
            announced: self.destination.is_some(),
            local: self.local,
            tlvs: std::mem::take(&mut self.tlvs),
            ech: hello.as_ref().is_some_and(|hello| hello.ech),
            sni: hello.as_ref().and_then(|hello| hello.server_name.clone()),
            alpn: hello.map(|hello| hello.alpn).unwrap_or_default(),
        };
        Some((std::mem::take(&mut self.bytes), client_info, listener))
    }

    /// What identifies the client.
    pub fn facts(&self, source: Option<SocketAddr>) -> Facts<'_> {
        if self.local {
            return Facts { source: None, sni: None, tlvs: &[], cookies: &[] };
        }
        Facts { source: source.map(|source| source.ip()), sni: self.name(), tlvs: &self.tlvs, cookies: &[] }
    }

    /// What the hello adds to the log.
    pub fn names(&self) -> Option<(Option<ServerName>, bool)> {
        let hello = self.hello.as_ref()?;
        (hello.server_name.is_some() || hello.ech).then(|| (hello.server_name.clone(), hello.ech))
    }

    /// Writes the PROXY header that the backend gets before anything else, where its pool wants one.
    pub fn announce<O: Os>(&self, source: Option<SocketAddr>, client: &O::Socket, id: u64, os: &mut O) -> Vec<u8> {
        let Some(proxy) = self.picked.as_ref().and_then(|pool| pool.config().proxy.as_ref()) else { return Vec::new() };
        let destination = self.destination.or_else(|| os.local_address(client));
        let announce = Announce {
            addresses: if self.local { None } else { source.zip(destination) },
            alpn: self.hello.as_ref().map(|hello| &*hello.alpn),
            authority: self.name(),
            unique_id: Some(&unique_id(id)),
            ssl: proxy_protocol::tlv(&self.tlvs, proxy_protocol::TLV_SSL),
        };
        let mut header = Vec::new();
        proxy_protocol::write(&mut header, proxy, &announce);
        header
    }

    /// Makes it ready for another connection.
    pub fn clear(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        let mut tried = std::mem::take(&mut self.tried);
        tried.clear();
        *self = Self { tried, ..Self::default() };
        if bytes.capacity() <= SPARE_BYTES_MAX {
            self.bytes = bytes;
            self.bytes.clear();
        }
    }

    fn name(&self) -> Option<&str> {
        self.hello.as_ref()?.server_name.as_ref().map(ServerName::as_str)
    }
}

/// A unix peer is trusted: the file's permissions say who may connect.
fn trusts(proxy: &ProxyIn, peer: Option<SocketAddr>) -> bool {
    peer.is_none_or(|peer| proxy.trust.iter().any(|network| network.contains(&peer.ip())))
}
