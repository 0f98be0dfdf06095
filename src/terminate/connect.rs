//! From a pick to a backend that can be spoken to: connect, PROXY header, TLS, and what a failure of any of them means.
//!
//! What a failure means is decided by `attempt.rs`, who is picked by whoever asks. Invariant: a lease is held from the
//! pick on, no byte of a client's is sent here, and so every failure may go on to another backend.

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use super::deadline::until;
use super::secure::Secured;
use super::socket::{Fault, Socket};
use super::state::{Conversation, ConversationStage};
use super::stream::Stream;
use crate::attempt::{Attempts, ConnectFailure, NextAttempt, Rules};
use crate::clock::{self, Micros};
use crate::config::Address;
use crate::connection::unique_id;
use crate::limits::keep_alive;
use crate::outcome::{BreakCause, Ended};
use crate::pool::{Backend, Lease, Pick, Pool, Remember};
use crate::proxy_protocol::{self, Announce};
use crate::socket::{connect, connect_in_turn};
use crate::sticky::Facts;
use crate::tls::Upstream;

/// A client that waits for its backend looks so often whether that is back.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A backend that can be spoken to.
pub struct Connected {
    /// The way there.
    pub stream: Stream,
    /// The right to use it.
    pub lease: Lease,
    /// Index of the backend in the pool.
    pub index: usize,
    /// The client had settled at another one, and why it does not get that.
    pub broke: Option<BreakCause>,
    /// What the pool remembers.
    pub remember: Option<Remember>,
}

/// How backends of one pool are reached for one client.
pub struct Connector<'a> {
    /// For whom.
    pub conversation: &'a Conversation,
    /// Where.
    pub pool: &'a Pool,
    /// TLS to its backends.
    pub upstream: Option<&'a Arc<Upstream>>,
    /// What is known of the client's TLS.
    pub secured: &'a Secured,
}

impl Connector<'_> {
    /// The same as [`Self::connect`] as long as the client is there.
    pub async fn connect_for<'p>(
        &self,
        client: &Stream,
        choose: impl AsyncFnMut(&[Arc<Backend>]) -> Option<Pick<'p>>,
    ) -> Result<Connected, Ended> {
        // Boxed, so that it costs nothing while the conversation only waits, which is most of its life.
        let connect = Box::pin(self.connect(choose));
        tokio::select! {
            biased;
            connected = connect => connected,
            fault = client.broken() => Err(fault.of_client()),
        }
    }

    /// Connects to whom `choose` picks, and on to the next where that fails. `choose` is told who failed already.
    pub async fn connect<'p>(
        &self,
        mut choose: impl AsyncFnMut(&[Arc<Backend>]) -> Option<Pick<'p>>,
    ) -> Result<Connected, Ended> {
        let mut tried = Vec::new();
        let mut attempts: Option<Attempts> = None;
        let mut last_failure: Option<ConnectFailure> = None;
        self.conversation.state.enter(ConversationStage::Connect);
        'pick: loop {
            let Some(pick) = choose(&tried).await else {
                return Err(last_failure.map_or_else(|| self.pool.why_nobody(now_ms()), ConnectFailure::ended));
            };
            self.conversation.state.picked(&pick);
            let rules = Rules::of(self.pool.config());
            let attempts = attempts.get_or_insert_with(|| Attempts::new(rules, pick.keyed, now_ms()));
            let lease = Lease::new(pick.backend);
            let counters = lease.counters(self.conversation.context.counters_index);
            loop {
                let began = clock::now();
                let deadline = attempts.begin(began / 1_000) * 1_000;
                let answer =
                    until(deadline, self.attempt(lease.address())).await.unwrap_or(Err(ConnectFailure::TimedOut));
                let failure = match answer {
                    Ok(stream) => {
                        let took: Micros = clock::now() - began;
                        self.conversation.state.connected(attempts.made(), Some(took));
                        counters.connections.add(1);
                        counters.connect_time.record_us(took);
                        self.pool.connect_succeeded(lease.backend());
                        return Ok(Connected {
                            stream,
                            lease,
                            index: pick.index,
                            broke: pick.broke,
                            remember: pick.remember,
                        });
                    }
                    Err(failure) => failure,
                };
                last_failure = Some(failure);
                let to_blame = !matches!(failure, ConnectFailure::Local(_));
                if to_blame {
                    counters.connect_failures.add(1);
                }
                let next = attempts.failed(failure, lease.usable(now_ms()), now_ms());
                // As long as it is to be tried again, nothing is said against it.
                if to_blame && !matches!(next, NextAttempt::SameAt(_)) {
                    self.pool.connect_failed(lease.backend(), now_ms());
                }
                match next {
                    NextAttempt::SameAt(at_ms) => {
                        let pause = at_ms.saturating_sub(now_ms());
                        tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
                        let known = self.pool.table().zip(pick.remember);
                        if known.is_some_and(|(table, key)| table.settled_elsewhere(key, lease.backend(), now_ms())) {
                            attempts.elsewhere();
                            continue 'pick;
                        }
                    }
                    NextAttempt::Another => {
                        tried.push(Arc::clone(lease.backend()));
                        if let Some((table, remember)) = self.pool.table().zip(pick.remember) {
                            table.release(remember, pick.reason, lease.backend(), now_ms());
                        }
                        continue 'pick;
                    }
                    NextAttempt::GiveUp(ended) => {
                        self.conversation.state.connected(attempts.made(), None);
                        return Err(ended);
                    }
                }
            }
        }
    }

    /// Waits for the backend that the client has settled at, where the pool says so, and refuses it where it says that.
    pub async fn wait_for_settled(
        &self,
        client: &Stream,
        settled: Option<usize>,
        facts: &Facts<'_>,
    ) -> Result<(), Ended> {
        let began = clock::now();
        while let Some(most) = self.pool.waits(settled, facts, now_ms()) {
            if most.is_zero() {
                return Err(Ended::SettledDown);
            }
            let left = most.saturating_sub(Duration::from_micros(clock::now() - began));
            if left.is_zero() {
                break;
            }
            self.conversation.state.enter(ConversationStage::Connect);
            tokio::select! {
                fault = client.broken() => return Err(fault.of_client()),
                () = tokio::time::sleep(left.min(LOOK_AGAIN)) => {}
            }
        }
        Ok(())
    }

    async fn attempt(&self, address: &Address) -> Result<Stream, ConnectFailure> {
        let socket = begin(&self.pool.config().source, address, self.conversation.client_info.id).map_err(meaning)?;
        let socket = Socket::new(socket).map_err(|_| ConnectFailure::Local(Ended::NoDescriptor))?;
        if let Err(error) = socket.connected().await {
            let errno = error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error);
            return Err(meaning(errno));
        }
        let mut stream = Stream::plain(socket);
        let rules = keep_alive(&self.conversation.context.current.load().config.limits);
        // Best effort: a unix socket has none of these.
        let _ = rules.apply(&stream);
        let header = self.header();
        if !header.is_empty() {
            write_all(&mut stream, &header).await.map_err(|_| ConnectFailure::Refused)?;
        }
        let Some(upstream) = self.upstream else { return Ok(stream) };
        let alpn = if self.pool.config().http { Some(&b"http/1.1"[..]) } else { self.secured.alpn.as_deref() };
        let tls = upstream.connect(address, alpn).map_err(|_| ConnectFailure::Tls)?;
        Stream::connect(stream.into_socket(), tls).await.map_err(|fault| match fault {
            Fault::Local(ended) => ConnectFailure::Local(ended),
            _ => ConnectFailure::Tls,
        })
    }

    /// The PROXY header of the pool, where it wants one.
    fn header(&self) -> Vec<u8> {
        let Some(proxy) = &self.pool.config().proxy else { return Vec::new() };
        let (client_info, secured) = (&self.conversation.client_info, self.secured);
        let agreed: Option<Vec<u8>> = secured.alpn.as_ref().map(|name| {
            let mut list = vec![name.len() as u8];
            list.extend_from_slice(name);
            list
        });
        let announce = Announce {
            addresses: if client_info.local { None } else { client_info.source.zip(client_info.destination) },
            alpn: agreed.as_deref(),
            authority: client_info.sni.as_ref().map(|name| name.as_str()),
            unique_id: Some(&unique_id(client_info.id)),
            ssl: secured.tlv.as_deref().or_else(|| proxy_protocol::tlv(&client_info.tlvs, proxy_protocol::TLV_SSL)),
        };
        let mut header = Vec::new();
        proxy_protocol::write(&mut header, proxy, &announce);
        header
    }
}

/// Writes all of it.
pub async fn write_all(stream: &mut Stream, mut bytes: &[u8]) -> Result<(), Fault> {
    std::future::poll_fn(|cx| {
        while !bytes.is_empty() {
            let n = std::task::ready!(stream.poll_write(cx, bytes))?;
            bytes = &bytes[n..];
        }
        stream.poll_flush(cx)
    })
    .await
}

fn now_ms() -> u64 {
    clock::now() / 1_000
}

/// Begins to connect from one of the pool's addresses.
fn begin(sources: &[IpAddr], to: &Address, turn: u64) -> Result<OwnedFd, Errno> {
    let no_port = |error: &Errno| matches!(*error, Errno::ADDRNOTAVAIL | Errno::ADDRINUSE);
    connect_in_turn(sources, to, turn, no_port, |from| connect(to, from))
}

/// Whose fault it is that there is no connection.
fn meaning(error: Errno) -> ConnectFailure {
    match error {
        Errno::CONNREFUSED | Errno::CONNRESET | Errno::CONNABORTED | Errno::PIPE | Errno::NOENT | Errno::NOTCONN => {
            ConnectFailure::Refused
        }
        Errno::TIMEDOUT => ConnectFailure::TimedOut,
        Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::NETDOWN | Errno::HOSTDOWN => ConnectFailure::Unreachable,
        Errno::ADDRNOTAVAIL | Errno::ADDRINUSE | Errno::AGAIN => ConnectFailure::Local(Ended::NoPort),
        Errno::MFILE | Errno::NFILE => ConnectFailure::Local(Ended::NoDescriptor),
        Errno::NOBUFS | Errno::NOMEM => ConnectFailure::Local(Ended::NoMemory),
        _ => ConnectFailure::Local(Ended::LocalError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_machine_lacks_is_held_against_no_backend() {
        for error in [Errno::ADDRNOTAVAIL, Errno::AGAIN, Errno::MFILE, Errno::NOBUFS, Errno::ACCESS] {
            assert!(matches!(meaning(error), ConnectFailure::Local(_)), "{error}");
        }
        for error in [Errno::CONNREFUSED, Errno::TIMEDOUT, Errno::HOSTUNREACH] {
            assert!(!matches!(meaning(error), ConnectFailure::Local(_)), "{error}");
        }
    }
}
