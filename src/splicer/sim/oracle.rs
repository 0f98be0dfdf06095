//! Whether each connection ends when it must, with the right word and in the right way.
//!
//! Knows limits and what the peers did, not how the worker keeps time. Invariants it checks at every turn: no
//! connection is kept beyond a limit, none is ended before it; every accepted connection is counted once, under an
//! ending that fits what happened; a stream that is cut does not look complete.

use std::net::IpAddr;
use std::time::Duration;

use super::handover::Process;
use super::kernel::{Id, Kernel};
use super::peer::{Peer, Script};
use super::socket::{Closed, SimSocket};
use super::world::{ClientGreeting, ConnectScript, Scenario, World};
use crate::outcome::Ended;
use crate::splicer::os::Micros;

/// A deadline may be kept so late: two ticks of the wheel, and what an entry may stay behind.
const SLACK_US: Micros = 3 * 8_192 + 16_384;

/// The backend's socket of a connection this old has keepalive.
const TUNE_US: Micros = 15_000_000;

/// What is looked at in every world.
#[derive(Debug)]
pub struct Oracle {
    /// Steps that were made to panic.
    pub panics: u64,
    /// How connections ended, by `Ended as usize`.
    pub counted: Vec<u64>,
    limits: OracleLimits,
}

/// In microseconds; `None` = off.
#[derive(Debug, Clone, Copy)]
struct OracleLimits {
    hello: Micros,
    idle: Option<Micros>,
    half_close: Option<Micros>,
    lifetime: Option<Micros>,
    connect: Micros,
    budget: Micros,
}

impl Oracle {
    /// For a world of this nature.
    pub fn new(scenario: &Scenario) -> Self {
        let (limits, pool) = (&scenario.config.limits, &scenario.config.pools[0]);
        let us = |limit: Duration| limit.as_micros() as Micros;
        let limits = OracleLimits {
            hello: us(limits.hello_timeout),
            idle: limits.idle_timeout.map(us),
            half_close: limits.half_close_timeout.map(us),
            lifetime: limits.lifetime.map(us),
            connect: us(pool.connect_timeout),
            budget: us(pool.connect_budget),
        };
        Self { panics: 0, counted: vec![0; Ended::COUNT], limits }
    }
}

impl World {
    /// Looks at everything after a turn of the worker.
    pub(super) fn oracle(&mut self) -> Result<(), String> {
        let closed = std::mem::take(&mut self.kernel.borrow_mut().ended);
        let ended = self.newly_ended();
        if closed.len() != ended.len() {
            return Err(format!("{} connections were closed, and {ended:?} counted", closed.len()));
        }
        let kernel = self.kernel.borrow();
        for word in &ended {
            if !closed.iter().any(|id| self.fits(*word, *id, &closed, &kernel)) {
                let peers: Vec<_> = closed.iter().filter_map(|id| self.peer(*id)).collect();
                return Err(format!("`{}` does not fit: {peers:?}", word.word()));
            }
        }
        for id in &closed {
            self.not_cut_cleanly(*id, &kernel)?;
        }
        if let ([id], [Ended::SourceConnections | Ended::Panicked]) = (&closed[..], &ended[..])
            && looks_complete(kernel.socket(*id))
        {
            return Err(format!("client {id} was not refused by reset"));
        }
        for peer in self.peers.iter().flatten().filter(|peer| peer.is_client()) {
            let client = kernel.socket(peer.id);
            // A pair under way is in no worker, for a few turns.
            let under_way = self.handover.is_some() && client.token.is_none();
            if client.closed.is_none()
                && !under_way
                && let Some(accepted) = client.accepted_at
            {
                self.not_overdue(peer, client, accepted, &kernel)?;
            }
        }
        Ok(())
    }

    /// What the listeners of all processes have counted since.
    fn newly_ended(&mut self) -> Vec<Ended> {
        let listeners: Vec<_> = self.processes.iter().map(Process::listener).collect();
        let count = |word: Ended| listeners.iter().map(|l| l.state.counters[0].0.ended[word as usize].value()).sum();
        let mut ended = Vec::new();
        for (word, before) in Ended::ALL.iter().zip(&mut self.oracle.counted) {
            let now = count(*word);
            ended.extend((*before..now).map(|_| *word));
            *before = now;
        }
        ended
    }

    /// Checks that the connection is not kept beyond a limit.
    fn not_overdue(&self, peer: &Peer, client: &SimSocket, accepted: Micros, kernel: &Kernel) -> Result<(), String> {
        let (limits, now) = (&self.oracle.limits, kernel.now);
        let over = |since: Micros, limit: Micros| since + limit + SLACK_US < now;
        let late = |what: &str| Err(format!("client {} is kept beyond {what}", peer.id));
        let Some(backend) = client.partner.map(|id| kernel.socket(id)) else {
            return if peer.sent < peer.prefix.len() && over(accepted, limits.hello) {
                late("hello_timeout")
            } else {
                Ok(())
            };
        };
        let Some(established) = backend.established_at.filter(|_| backend.closed.is_none()) else {
            let asked = backend.asked_at.filter(|_| backend.closed.is_none());
            if asked.is_some_and(|at| over(at, limits.connect)) {
                return late("connect_timeout");
            }
            return if client.first_asked_at.is_some_and(|at| over(at, limits.budget)) {
                late("connect_budget")
            } else {
                Ok(())
            };
        };
        let active = client.active_at().max(backend.active_at()).max(established);
        if limits.idle.is_some_and(|limit| over(active, limit)) {
            return late("idle_timeout");
        }
        if (client.end_read.is_some() || backend.end_read.is_some())
            && limits.half_close.is_some_and(|limit| over(active, limit))
        {
            return late("half_close_timeout");
        }
        if !backend.kept_alive && over(accepted.max(established), TUNE_US) {
            return late("the time when its backend's socket gets keepalive");
        }
        if limits.lifetime.is_some_and(|limit| over(accepted, limit)) { late("lifetime") } else { Ok(()) }
    }

    /// Whether a connection may have ended so, among others that ended in the same turn.
    fn fits(&self, word: Ended, id: Id, closed: &[Id], kernel: &Kernel) -> bool {
        let (Some(peer), client) = (self.peer(id), kernel.socket(id)) else { return false };
        let backend = client.partner.map(|id| kernel.socket(id));
        let other = client.partner.and_then(|id| self.peer(id));
        let (limits, now) = (&self.oracle.limits, kernel.now);
        let passed = |since: Option<Micros>, limit: Option<Micros>| {
            since.zip(limit).is_some_and(|(since, limit)| since + limit <= now)
        };
        let active =
            backend.and_then(|backend| Some(backend.established_at?.max(client.active_at()).max(backend.active_at())));
        let ended = |socket: &SimSocket| socket.end_read.is_some();
        let half_closed = ended(client) || backend.is_some_and(ended);
        let gone_as =
            |peer: &Peer, vanished: bool| peer.gone && (matches!(peer.script, Script::Vanishes(_)) == vanished);
        let answers = |answer: ConnectScript| self.scenario.backends.contains(&answer);
        let greeting = &self.scenario.greeting;
        let cut = peer.sent < peer.prefix.len();
        let late = passed(client.accepted_at, Some(limits.hello));
        match word {
            Ended::Done => ended(client) && backend.is_some_and(ended),
            Ended::Probe => {
                matches!(greeting, ClientGreeting::Proxy(_))
                    && client.moved_at == 0
                    && (peer.finished || gone_as(peer, false) || late)
            }
            Ended::ClientLeft => matches!(greeting, ClientGreeting::Hello(_)) && peer.finished && peer.sent == 0,
            Ended::HelloTruncated => {
                matches!(greeting, ClientGreeting::Hello(_)) && peer.finished && cut && peer.sent > 0
            }
            Ended::ProxyTruncated => {
                matches!(greeting, ClientGreeting::Proxy(_)) && client.moved_at > 0 && (peer.finished && cut || late)
            }
            Ended::Silent => {
                matches!(greeting, ClientGreeting::Hello(_))
                    && client.moved_at == 0
                    && passed(client.accepted_at, Some(limits.hello))
            }
            Ended::HelloTimeout => {
                matches!(greeting, ClientGreeting::Hello(_))
                    && client.moved_at > 0
                    && backend.is_none()
                    && passed(client.accepted_at, Some(limits.hello))
            }
            Ended::ClientReset => gone_as(peer, false),
            Ended::ClientGone => gone_as(peer, true),
            Ended::BackendReset => other.is_some_and(|other| gone_as(other, false)),
            Ended::BackendGone => other.is_some_and(|other| gone_as(other, true)),
            Ended::IdleTimeout => passed(active, limits.idle),
            Ended::HalfCloseTimeout => half_closed && passed(active, limits.half_close),
            Ended::Lifetime => passed(client.accepted_at, limits.lifetime),
            Ended::ConnectRefused => answers(ConnectScript::Refuse) || other.is_some_and(|other| other.gone),
            Ended::ConnectUnreachable => answers(ConnectScript::Unreachable),
            Ended::ConnectTimeout => {
                passed(client.first_asked_at, Some(limits.connect)) || other.is_some_and(|other| gone_as(other, true))
            }
            Ended::NoPort | Ended::NoDescriptor | Ended::NoMemory | Ended::LocalError => self.scenario.hostile,
            Ended::Stopped => self.scenario.hostile,
            Ended::SourceConnections => {
                let alike = |other: &&Peer| other.id != id && self.counts_as(other) == self.counts_as(peer);
                let counted = |other: &&Peer| {
                    let socket = kernel.socket(other.id);
                    socket.accepted_at.is_some() && (socket.closed.is_none() || closed.contains(&other.id))
                };
                let others = self.peers.iter().flatten().filter(|peer| peer.is_client()).filter(alike).filter(counted);
                self.scenario.per_source.is_some_and(|limit| others.count() >= limit as usize)
            }
            Ended::Panicked => self.processes.iter().map(Process::panics).sum::<u64>() <= self.oracle.panics,
            _ => false,
        }
    }

    /// The source a client counts for.
    fn counts_as(&self, peer: &Peer) -> Option<IpAddr> {
        // All PROXY headers announce the same one.
        peer.source.filter(|_| !matches!(self.scenario.greeting, ClientGreeting::Proxy(_)))
    }

    /// Unless both ends were read, both sockets of a relay are reset.
    fn not_cut_cleanly(&self, id: Id, kernel: &Kernel) -> Result<(), String> {
        let client = kernel.socket(id);
        let Some(backend) = client.partner.map(|id| kernel.socket(id)).filter(|backend| backend.moved_at > 0) else {
            return Ok(());
        };
        let complete = client.end_read.is_some() && backend.end_read.is_some();
        if !complete && (looks_complete(client) || looks_complete(backend)) {
            return Err(format!("client {id}: a stream that was cut looks complete"));
        }
        Ok(())
    }

    /// In a world where all completes, the counters say so.
    pub(super) fn all_counted(&self) -> Result<(), String> {
        let pools: Vec<_> = self.processes.iter().map(Process::pool).collect();
        let sum = |count: &dyn Fn(&crate::counters::BackendCounters) -> u64| -> u64 {
            pools.iter().flat_map(|pool| pool.backends()).map(|backend| count(backend.counters(0))).sum()
        };
        let clients = || self.peers.iter().flatten().filter(|peer| peer.is_client());
        let partners = || clients().filter_map(|peer| self.peer(peer.partner?));
        let up: usize = partners().map(|peer| peer.expected_prefix.len() + peer.heard()).sum();
        let down: usize = clients().map(Peer::heard).sum();
        let listeners = self.processes.iter().map(Process::listener);
        let accepted = listeners.map(|listener| listener.state.counters[0].0.accepted.value()).sum();
        let counted =
            (sum(&|c| c.bytes_up.value()), sum(&|c| c.bytes_down.value()), sum(&|c| c.connections.value()), accepted);
        let expected = (up as u64, down as u64, self.scenario.clients as u64, self.scenario.clients as u64);
        if counted != expected {
            return Err(format!(
                "bytes up, bytes down, reached, accepted: counted {counted:?}, but there were {expected:?}"
            ));
        }
        Ok(())
    }
}

fn looks_complete(socket: &SimSocket) -> bool {
    socket.closed == Some(Closed::Cleanly) && !socket.gone
}
