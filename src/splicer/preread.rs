//! [`Preread`]: the part of a connection that is needed only until its backend is connected: bytes read ahead, the
//! facts in them, and the attempts to connect.
//!
//! Reads no socket (`read_ahead.rs` does), routes nothing and picks nothing. Invariant: `bytes` are exactly what the
//! client sent after any PROXY header, in order, and they are not looked at again after a pool is chosen.

use std::net::SocketAddr;
use std::sync::Arc;

use super::os::Micros;
use crate::admission::{HeldBytes, UNCOUNTED};
use crate::alert::TlsRefusal;
use crate::attempt::{AttemptTarget, Attempts};
use crate::client_hello::{Progress, Scan};
use crate::connection::{ClientInfo, Entry, expects_proxy_header};
use crate::outcome::{ClientMove, Ended, PickReason};
use crate::pool::{Lease, Pool, QueueVisit, Remember};
use crate::proxy_protocol;
use crate::server_name::ServerName;
use crate::snapshot::Listener;
use crate::split::ChosenBy;

/// State of a connection before its backend is connected.
#[derive(Debug, Default)]
pub struct Preread {
    /// Listener that accepted the connection, with the rules it is read by.
    pub listener: Option<Arc<Listener>>,
    /// Bytes read from the client and not sent to any backend.
    pub bytes: HeldBytes,
    /// The next bytes have to be a PROXY header.
    pub expects_header: bool,
    /// Attempts to connect, from the first pick on.
    pub attempts: Attempts,
    /// Begin of the attempt under way.
    pub attempt_began: Micros,
    /// Last pick; `None` before the first.
    pub picked: Option<Picked>,
    /// Begin of the wait for the backend at which the client is known, in milliseconds.
    pub waiting_since_ms: Option<u64>,
    /// The client's way through the lines of full backends.
    pub visit: QueueVisit,
    /// Facts about the client, filled from accept on.
    pub client_info: ClientInfo,
    /// Why the runtime is to refuse the connection; `None` = it is to serve it.
    pub refusal: Option<TlsRefusal>,
    expects_hello: bool,
    scan: Scan,
}

/// A pick with a backend that is being connected. The rules of its pool hold until the connection stands, whatever a
/// reload changes meanwhile.
#[derive(Debug)]
pub struct Picked {
    /// Pool that picked the backend.
    pub pool: Arc<Pool>,
    /// Step of the chain that chose the backend.
    pub reason: PickReason,
    /// The move of a client that was known at another backend.
    pub moved: Option<ClientMove>,
    /// Entry that the stick table gets once the connection stands.
    pub remember: Option<Remember>,
}

impl Picked {
    /// Returns the target of an attempt at the backend of `lease`, counted by this worker.
    pub fn target<'t>(&'t self, lease: &'t Lease, worker: usize) -> AttemptTarget<'t> {
        let Self { pool, reason, remember, .. } = self;
        AttemptTarget { pool, lease, reason: *reason, remember: *remember, counters_index: worker }
    }
}

/// Facts for the access log that only some connections have; boxed to keep the row small.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Labels {
    /// Server name of the ClientHello.
    pub sni: Option<ServerName>,
    /// What the ClientHello has in place of a host name, cut.
    pub odd_name: Option<Arc<str>>,
    /// The ClientHello offers Encrypted ClientHello.
    pub ech: bool,
    /// The split of connections that has chosen the pool, and by what.
    pub split: Option<(Arc<str>, ChosenBy)>,
    /// Named range of the pool that contains the client.
    pub range: Option<Arc<str>>,
    /// Address of the socket's peer where a PROXY header announced another client.
    pub peer: Option<SocketAddr>,
    /// A PROXY header said LOCAL or UNKNOWN: the connection is logged at level debug only.
    pub local: bool,
    /// Name of the pool, where it had no backend for the connection.
    pub pool: Option<Arc<str>>,
    /// The move of a client that was known at another backend.
    pub moved: Option<ClientMove>,
}

/// Result of reading the bytes so far.
pub enum PrereadProgress {
    /// The rules have everything they need.
    Known,
    /// A PROXY header was complete; it is removed from the bytes.
    Announced,
    /// The rules need more bytes.
    More,
    /// The connection is refused, with this ending.
    Refused(Ended),
    /// The connection is refused: its bytes are no ClientHello that is read here.
    NoHello(TlsRefusal),
}

impl Preread {
    /// Begins with a connection that `listener` accepted; `client_info` has its number, time and address.
    pub fn begin(&mut self, listener: Arc<Listener>, client_info: ClientInfo) -> Result<(), Ended> {
        self.expects_hello = listener.needs_hello;
        self.scan = Scan::at_most(listener.hello_max);
        self.expects_header = expects_proxy_header(&listener.config, client_info.source)?;
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
                self.client_info.learn_hello(hello, listener);
                PrereadProgress::Known
            }
            Progress::More => PrereadProgress::More,
            Progress::No(refusal) if refusal.ended() == Ended::NotTls => {
                if direct && proxy_protocol::opens_with_signature(&self.bytes).is_none() {
                    return PrereadProgress::More;
                }
                if listener.not_tls.is_none() {
                    return PrereadProgress::NoHello(refusal);
                }
                self.client_info.entry = Entry::NotTls;
                PrereadProgress::Known
            }
            Progress::No(refusal) => PrereadProgress::NoHello(refusal),
        }
    }

    /// True if TLS ends here, for all or for some names: clients that get no handshake are sent an alert. Elsewhere
    /// the handshake, and what is said in it, are the backend's.
    pub fn sends_alerts(&self) -> bool {
        self.listener.as_ref().is_some_and(|listener| listener.config.terminates())
    }

    fn look_for_header(&mut self) -> PrereadProgress {
        match (proxy_protocol::parse(&self.bytes), &self.listener) {
            (Progress::Done((header, length)), Some(listener)) => {
                self.bytes.remove_first(length);
                self.expects_header = false;
                self.client_info.learn_header(header, listener);
                PrereadProgress::Announced
            }
            (Progress::No(ended), _) => PrereadProgress::Refused(ended),
            _ => PrereadProgress::More,
        }
    }

    /// Size of the next read in bytes. Doubles what is there, so that few bytes are read that are not needed yet.
    pub fn read_size(&self) -> usize {
        self.bytes.len().max(UNCOUNTED)
    }

    /// True if nothing came that a client would send. The health checks of balancers in front look so: they send no
    /// byte, or a header that says LOCAL.
    fn is_probe(&self) -> bool {
        self.bytes.is_empty() && (self.expects_header || self.client_info.local)
    }

    /// Returns the ending of a client that closed before the rules had what they need.
    pub fn cut_short(&self) -> Ended {
        match (self.expects_header, self.bytes.is_empty()) {
            _ if self.is_probe() => Ended::Probe,
            (true, _) => Ended::ProxyTruncated,
            (false, true) => Ended::ClientLeft,
            (false, false) => Ended::HelloTruncated,
        }
    }

    /// Applies `hello_timeout`. `Ok`: the client was silent, and the listener has a pool for silent clients.
    pub fn timed_out(&mut self) -> Result<(), Ended> {
        let has_pool = self.listener.as_ref().is_some_and(|listener| listener.silent.is_some());
        match (self.expects_header, self.bytes.is_empty()) {
            (true, false) => Err(Ended::ProxyTruncated),
            (false, false) => Err(Ended::HelloTimeout),
            (false, true) if has_pool => {
                self.client_info.entry = Entry::Silent;
                Ok(())
            }
            _ if self.is_probe() => Err(Ended::Probe),
            _ => Err(Ended::Silent),
        }
    }

    /// The begin of a PROXY header that is refused, cut; `None`: the ending is about nothing of the kind.
    pub fn refused_header(&self, ended: Ended) -> Option<String> {
        let refuses = matches!(
            ended,
            Ended::ProxyMalformed
                | Ended::ProxyChecksum
                | Ended::ProxyTooLong
                | Ended::ProxyTruncated
                | Ended::ProxySpoofed
        );
        (refuses && !self.bytes.is_empty()).then(|| proxy_protocol::shown(&self.bytes))
    }

    /// Writes the PROXY header that the backend receives before anything else, where its pool has `proxy` set.
    /// `destination` is the address of the client's own socket.
    pub fn proxy_header(&mut self, destination: impl FnOnce() -> Option<SocketAddr>) -> Vec<u8> {
        let Some(proxy) = self.picked.as_ref().and_then(|picked| picked.pool.config().proxy.as_ref()) else {
            return Vec::new();
        };
        let client_info = &mut self.client_info;
        client_info.destination = client_info.destination.or_else(destination);
        client_info.proxy_header(proxy, Some(&client_info.alpn), None)
    }

    /// Clears everything for another connection, but keeps a small buffer.
    pub fn clear(&mut self) {
        let bytes = std::mem::take(&mut self.bytes).emptied();
        *self = Self { bytes, ..Self::default() };
    }
}

#[cfg(test)]
mod tests;
