//! [`Connector`]: from a pick to a backend that is ready for requests: connect, PROXY header, TLS.
//!
//! Only waits: the caller picks, and `attempt.rs` decides what a failure means. Invariant: a lease is held from the
//! pick on, and no byte of the client is sent here, so that another backend may follow every failure.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustls::AlertDescription;

use super::byte_stream::{ByteStream, ClientStream};
use super::conversation::Conversation;
use super::deadline::until;
use super::secure::Secured;
use super::socket::Socket;
use super::state::ConversationStage;
use super::stream::Stream;
use crate::attempt::{self, AttemptTarget, Attempts, FirstByte, KnownWait, NextAttempt};
use crate::clock::{self, Micros};
use crate::config::{Address, PoolHttp};
use crate::fault::{ConnectFailure, Endpoint, Fault};
use crate::limits::keep_alive;
use crate::outcome::Ended;
use crate::pool::{Backend, Lease, Pick, Pool, Remember};
use crate::socket::{connect, connect_in_turn};
use crate::sticky::{Facts, Left};
use crate::tls::{HTTP1, HTTP2, TlsAlert, Upstream};

/// A connection to a backend, ready for the client's bytes.
pub struct Connected {
    /// Stream to the backend, behind any handshake.
    pub stream: Stream,
    /// Lease that counts the connection at its backend.
    pub lease: Lease,
    /// Index of the backend in the pool.
    pub index: usize,
    /// The backend at which the client was known, if it got another one.
    pub left: Option<Left>,
    /// Entry that the stick table gets for the client.
    pub remember: Option<Remember>,
    /// First byte of the backend.
    pub first_byte: FirstByte,
}

/// A backend that was picked, and a lease on it.
pub type Chosen<'p> = (Pick<'p>, Lease);

/// Why no backend was chosen.
#[derive(Debug, Clone, Copy)]
pub enum Unchosen {
    /// The pool has none, or no other one.
    NoBackend,
    /// The client has this ending.
    Ended(Ended),
}

/// Connects one client to backends of one pool.
pub struct Connector<'a> {
    /// Conversation that needs a backend.
    pub conversation: &'a Conversation,
    /// Pool that picks the backends.
    pub pool: &'a Pool,
    /// TLS towards the pool's backends; `None` = plain.
    pub upstream: Option<&'a Arc<Upstream>>,
    /// Facts of the client's own TLS.
    pub secured: &'a Secured,
}

impl Connector<'_> {
    /// Does the same as [`Self::connect`], but ends as soon as the client has gone.
    pub async fn connect_for<'p>(
        &self,
        client: &impl ClientStream,
        gone: &[Arc<Backend>],
        choose: impl AsyncFnMut(&[Arc<Backend>]) -> Result<Chosen<'p>, Unchosen>,
    ) -> Result<Connected, Ended> {
        // The box keeps the task small while the conversation only relays or waits, which is most of its life.
        let connect = Box::pin(self.connect(gone, choose));
        tokio::select! {
            biased;
            connected = connect => connected,
            fault = client.broken() => Err(fault.ending(Endpoint::Client)),
        }
    }

    /// Connects to the backend that `choose` picks, and to the next after a failure. `choose` gets the backends that
    /// have failed, those among them that have failed the client before (`gone`).
    pub async fn connect<'p>(
        &self,
        gone: &[Arc<Backend>],
        mut choose: impl AsyncFnMut(&[Arc<Backend>]) -> Result<Chosen<'p>, Unchosen>,
    ) -> Result<Connected, Ended> {
        let mut attempts = Attempts::beyond(gone);
        loop {
            let (pick, lease) = match choose(attempts.tried()).await {
                Ok(chosen) => chosen,
                Err(Unchosen::NoBackend) => return Err(attempts.no_backend(self.pool, clock::now_ms())),
                Err(Unchosen::Ended(ended)) => return Err(ended),
            };
            self.conversation.state.enter(ConversationStage::Connect { pick: &pick });
            attempts.picked(self.pool.config(), pick.keyed, clock::now_ms());
            if let Some(stream) = self.connect_to(&pick, &lease, &mut attempts).await? {
                let Pick { index, left, remember, .. } = pick;
                return Ok(Connected { stream, lease, index, left, remember, first_byte: FirstByte::of(self.pool) });
            }
        }
    }

    /// Tries one backend, that of a known key also twice; `None` = another backend is to be picked.
    async fn connect_to(
        &self,
        pick: &Pick<'_>,
        lease: &Lease,
        attempts: &mut Attempts,
    ) -> Result<Option<Stream>, Ended> {
        let target = AttemptTarget {
            pool: self.pool,
            lease,
            reason: pick.reason,
            remember: pick.remember,
            counters_index: self.conversation.context.counters_index,
        };
        loop {
            let began = clock::now();
            let deadline = attempts.begin(began / 1_000) * 1_000;
            let answer = until(deadline, self.attempt(lease.address())).await;
            let failure = match answer.unwrap_or(Err(ConnectFailure::TimedOut)) {
                Ok(stream) => {
                    let connect_us: Micros = clock::now() - began;
                    let attempts = attempts.made();
                    self.conversation.state.enter(ConversationStage::Connected { attempts, connect_us });
                    target.succeeded(connect_us);
                    return Ok(Some(stream));
                }
                Err(failure) => failure,
            };
            match attempts.failed(failure, &target, clock::now_ms()) {
                NextAttempt::SameAt(at_ms) => {
                    tokio::time::sleep(Duration::from_millis(at_ms.saturating_sub(clock::now_ms()))).await;
                    if attempts.key_moved(&target, clock::now_ms()) {
                        return Ok(None);
                    }
                }
                NextAttempt::Another => return Ok(None),
                NextAttempt::GiveUp(ended) => {
                    self.conversation.state.enter(ConversationStage::ConnectFailed { attempts: attempts.made() });
                    return Err(ended);
                }
            }
        }
    }

    /// Waits for the backend at which the client is known, for as long as the pool's `on_down` wants.
    pub async fn wait_for_settled(
        &self,
        client: &impl ClientStream,
        settled: Option<usize>,
        facts: &Facts<'_>,
    ) -> Result<(), Ended> {
        let mut since_ms = None;
        loop {
            let now_ms = clock::now_ms();
            let at_ms = match attempt::wait_for_known(self.pool, settled, facts, &mut since_ms, now_ms) {
                KnownWait::Pick => return Ok(()),
                KnownWait::Refuse => return Err(Ended::SettledDown),
                KnownWait::LookAgainAt(at_ms) => at_ms,
            };
            self.conversation.state.enter(ConversationStage::Wait);
            tokio::select! {
                fault = client.broken() => return Err(fault.ending(Endpoint::Client)),
                () = tokio::time::sleep(Duration::from_millis(at_ms - now_ms)) => {}
            }
        }
    }

    async fn attempt(&self, address: &Address) -> Result<Stream, ConnectFailure> {
        let socket = begin(&self.pool.config().source, address, self.conversation.client_info.id)
            .map_err(Fault::connect_failure)?;
        let socket = Socket::new(socket).map_err(|_| ConnectFailure::Local(Ended::NoDescriptor))?;
        socket.connected().await.map_err(|error| Fault::of_io(&error).connect_failure())?;
        let mut stream = Stream::plain(socket);
        let rules = keep_alive(&self.conversation.context.current.load().config.limits);
        // Best effort: a unix socket has none of these.
        let _ = rules.apply(&stream);
        let header = self.header();
        if !header.is_empty() {
            write_all(&mut stream, &header).await.map_err(|_| ConnectFailure::Refused)?;
        }
        let Some(upstream) = self.upstream else { return Ok(stream) };
        let alpn = self.spoken().or(self.secured.alpn.as_deref());
        let tls = upstream.connect(address, alpn).map_err(|_| ConnectFailure::Tls)?;
        // That of an earlier attempt.
        self.conversation.state.alert().set(None);
        let stream = Stream::connect(stream.into_socket(), tls, self.conversation.state.alert())
            .await
            .map_err(|fault| fault.local().map_or_else(|| self.handshake_failure(), ConnectFailure::Local))?;
        match self.pool.config().http == PoolHttp::Http2 && stream.alpn() != Some(HTTP2) {
            true => Err(ConnectFailure::NoHttp2),
            false => Ok(stream),
        }
    }

    /// Why a handshake with the backend has failed: many refuse by an alert what they do not speak (RFC 7301 §3.2).
    fn handshake_failure(&self) -> ConnectFailure {
        let refused = TlsAlert { received: true, description: AlertDescription::NoApplicationProtocol };
        match self.pool.config().http == PoolHttp::Http2 && self.conversation.state.alert().get() == Some(refused) {
            true => ConnectFailure::NoHttp2,
            false => ConnectFailure::Tls,
        }
    }

    /// The protocol that the backend is spoken to in, as ALPN names it; `None`: the one of the client.
    fn spoken(&self) -> Option<&'static [u8]> {
        match self.pool.config().http {
            PoolHttp::Off => None,
            PoolHttp::Http1 => Some(HTTP1),
            PoolHttp::Http2 => Some(HTTP2),
        }
    }

    /// Returns the PROXY header for the backend; empty where the pool sends none.
    fn header(&self) -> Vec<u8> {
        let Some(proxy) = &self.pool.config().proxy else { return Vec::new() };
        // What follows is HTTP/1.1 or HTTP/2 by the pool, whatever the client speaks.
        let spoken = match self.pool.config().http {
            PoolHttp::Http2 => Some(HTTP2),
            _ if self.secured.speaks_http2() => Some(HTTP1),
            _ => self.secured.alpn.as_deref(),
        };
        let agreed: Option<Vec<u8>> = spoken.map(|name| {
            let mut list = vec![name.len() as u8];
            list.extend_from_slice(name);
            list
        });
        self.conversation.client_info.proxy_header(proxy, agreed.as_deref(), self.secured.tlv.as_deref())
    }
}

/// Writes all bytes and flushes them.
pub async fn write_all(stream: &mut impl ByteStream, mut bytes: &[u8]) -> Result<(), Fault> {
    std::future::poll_fn(|cx| {
        while !bytes.is_empty() {
            let n = std::task::ready!(stream.poll_write(cx, bytes))?;
            bytes = &bytes[n..];
        }
        stream.poll_flush(cx)
    })
    .await
}

/// Begins to connect to a backend from one of the pool's addresses.
fn begin(sources: &[IpAddr], to: &Address, turn: u64) -> Result<OwnedFd, Fault> {
    connect_in_turn(sources, to, turn, |from| connect(to, from))
}
