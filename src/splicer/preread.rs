//! What a connection needs only until its backend is connected: preread bytes, what they say, and the attempts.
//!
//! Reads no socket; the flow hands it bytes. Invariant: `bytes` are exactly what the client sent after any PROXY
//! header, in order, and they are never looked at again once a pool is chosen.

use std::net::SocketAddr;
use std::sync::Arc;

use super::os::Micros;
use crate::attempt::{Attempts, ConnectFailure};
use crate::client_hello::{Progress, Scan};
use crate::config::{ProxyIn, Untrusted};
use crate::connection::{ClientInfo, Entry};
use crate::outcome::{BreakCause, Ended};
use crate::pool::{Backend, Pool, Remember};
use crate::proxy_protocol;
use crate::server_name::ServerName;
use crate::snapshot::Listener;

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
    /// What is read of the client, from accept on.
    pub client_info: ClientInfo,
    expects_hello: bool,
    scan: Scan,
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

/// What the bytes so far come to.
pub enum PrereadProgress {
    /// Everything needed is known.
    Known,
    /// A PROXY header was complete; it is removed from the bytes.
    Announced,
    /// More bytes are needed.
    More,
    /// The connection is refused.
    Refused(Ended),
}

impl Preread {
    /// Begins with a connection that `listener` accepted; `client_info` has its number, time and address.
    pub fn begin(&mut self, listener: Arc<Listener>, client_info: ClientInfo) -> Result<(), Ended> {
        self.expects_hello = listener.needs_hello;
        match &listener.config.proxy {
            Some(proxy) if trusts(proxy, client_info.source) => self.expects_header = true,
            Some(ProxyIn { untrusted: Untrusted::Refuse, .. }) => return Err(Ended::Untrusted),
            _ => {}
        }
        self.client_info = client_info;
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
        let direct = self.client_info.is_direct(&listener.config);
        if direct && proxy_protocol::opens_with_signature(&self.bytes) == Some(true) {
            return PrereadProgress::Refused(Ended::ProxySpoofed);
        }
        match self.scan.resume(&self.bytes) {
            Progress::Done(hello) => {
                self.client_info.learn_hello(hello);
                PrereadProgress::Known
            }
            Progress::More => PrereadProgress::More,
            Progress::No(Ended::NotTls) if direct && proxy_protocol::opens_with_signature(&self.bytes).is_none() => {
                PrereadProgress::More
            }
            Progress::No(Ended::NotTls) if listener.not_tls.is_some() => {
                self.client_info.entry = Entry::NotTls;
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
                self.client_info.learn_header(header);
                PrereadProgress::Announced
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
        if self.listener.as_ref().is_none_or(|listener| listener.silent.is_none()) {
            return Err(Ended::Silent);
        }
        self.client_info.entry = Entry::Silent;
        Ok(())
    }

    /// Writes the PROXY header that the backend receives before anything else, where its pool has `proxy` set.
    /// `destination` is the address of the client's own socket.
    pub fn proxy_header(&mut self, destination: impl FnOnce() -> Option<SocketAddr>) -> Vec<u8> {
        let Some(proxy) = self.picked.as_ref().and_then(|pool| pool.config().proxy.as_ref()) else { return Vec::new() };
        let client_info = &mut self.client_info;
        client_info.destination = client_info.destination.or_else(destination);
        client_info.proxy_header(proxy, Some(&client_info.alpn), None)
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
}

/// A unix peer is trusted: the file's permissions say who may connect.
fn trusts(proxy: &ProxyIn, peer: Option<SocketAddr>) -> bool {
    peer.is_none_or(|peer| proxy.trust.iter().any(|network| network.contains(&peer.ip())))
}
