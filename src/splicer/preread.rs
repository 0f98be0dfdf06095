//! What a connection needs only until its backend is connected: preread bytes, what they say, and the attempts.
//!
//! Reads no socket; the flow hands it bytes. Invariant: `bytes` are exactly what the client sent after any PROXY
//! header, in order, and they are never looked at again once a pool is chosen.

use std::net::SocketAddr;
use std::sync::Arc;

use super::flow::Go::{self, Stop, To};
use super::flow::{CompactAddress, Flow, Stage, Step, Verdict};
use super::os::{Io, Micros, Os};
use crate::attempt::{AttemptTarget, Attempts};
use crate::client_hello::{Progress, Scan};
use crate::connection::{ClientInfo, Entry, expects_proxy_header};
use crate::fault::{Endpoint, Fault};
use crate::outcome::{BreakCause, Ended, PickReason};
use crate::pool::{Lease, Pool, Remember};
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
    pub attempts: Attempts,
    /// Begin of the attempt under way.
    pub attempt_began: Micros,
    /// The last pick.
    pub picked: Option<Picked>,
    /// Begin of the wait for the backend at which the client is known, in milliseconds.
    pub waiting_since_ms: Option<u64>,
    /// What is read of the client, from accept on.
    pub client_info: ClientInfo,
    expects_hello: bool,
    scan: Scan,
}

/// A pick whose backend is being connected. The rules of its pool hold until the connection stands, whatever a reload
/// changes meanwhile.
#[derive(Debug)]
pub struct Picked {
    /// Pool that picked the backend.
    pub pool: Arc<Pool>,
    /// Step of the chain that chose the backend.
    pub reason: PickReason,
    /// Why the client got another backend than the one it was known at.
    pub broke: Option<BreakCause>,
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
        let Some(proxy) = self.picked.as_ref().and_then(|picked| picked.pool.config().proxy.as_ref()) else {
            return Vec::new();
        };
        let client_info = &mut self.client_info;
        client_info.destination = client_info.destination.or_else(destination);
        client_info.proxy_header(proxy, Some(&client_info.alpn), None)
    }

    /// Makes it ready for another connection.
    pub fn clear(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        *self = Self::default();
        if bytes.capacity() <= SPARE_BYTES_MAX {
            self.bytes = bytes;
            self.bytes.clear();
        }
    }
}

impl<O: Os> Flow<O> {
    /// Reads until the listener's rules have what they need, or the client's time is over.
    pub(super) fn preread(&mut self, step: &mut Step<'_, O>) -> Go {
        loop {
            let Some(preread) = &mut self.preread else { return To(Stage::Relay) };
            match preread.look() {
                PrereadProgress::Known => return To(Stage::Pick),
                PrereadProgress::Announced => {
                    if let Err(ended) = self.announced(step) {
                        return Stop(Verdict::End(ended));
                    }
                    continue;
                }
                PrereadProgress::Refused(ended) => return Stop(Verdict::End(ended)),
                PrereadProgress::More => {}
            }
            if !self.up.readable && !self.up.finished {
                return if step.now >= self.until { self.preread_timed_out() } else { Stop(Verdict::Wait) };
            }
            let Some(client) = &self.client else { return Stop(Verdict::Wait) };
            let answer = step.tools.os.recv(client, step.tools.scratch);
            match answer {
                Io::Moved(n) => {
                    self.up.bytes += n as u64;
                    self.up.readable &= self.up.urgent || n == step.tools.scratch.len();
                    preread.bytes.extend_from_slice(&step.tools.scratch[..n]);
                }
                Io::Later => {
                    self.up.readable = false;
                    return if step.now >= self.until { self.preread_timed_out() } else { Stop(Verdict::Wait) };
                }
                Io::End => return Stop(Verdict::End(preread.cut_short())),
                // Health checks of balancers in front of us end so.
                Io::Broken(Fault::Reset) if preread.cut_short() == Ended::Probe => {
                    return Stop(Verdict::End(Ended::Probe));
                }
                Io::Broken(fault) => return Stop(Verdict::End(fault.ending(Endpoint::Client))),
            }
        }
    }

    fn preread_timed_out(&mut self) -> Go {
        match self.preread.as_mut().map_or(Ok(()), |preread| preread.timed_out()) {
            Ok(()) => To(Stage::Pick),
            Err(ended) => Stop(Verdict::End(ended)),
        }
    }

    /// A trusted peer has sent a PROXY header. Its bytes are not the client's and do not count.
    fn announced(&mut self, step: &Step<'_, O>) -> Result<(), Ended> {
        let Some(preread) = &self.preread else { return Ok(()) };
        self.up.bytes = preread.bytes.len() as u64;
        let client_info = &preread.client_info;
        let labels = self.labels.get_or_insert_default();
        (labels.local, labels.peer) = (client_info.local, client_info.peer);
        self.source = client_info.source.map(CompactAddress::from);
        match client_info.key_source() {
            Some(source) => self.permit.hold_source(source, step.now / 1_000_000),
            None => {
                step.counters.keyless.add(1);
                Ok(())
            }
        }
    }
}
