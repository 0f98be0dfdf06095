//! The passthrough connection, from accept to close: preread → route → pick → attempt → relay → end.
//!
//! A state machine without I/O of its own: it asks an [`Os`], changes only its own row, and answers what the worker
//! shall do. It touches neither slab nor timers nor run queue, and it holds no snapshot once it is connected.
//!
//! Invariant: whatever the row owns (sockets, pipes, permit, lease) is given back when the row is dropped, whichever
//! way it ended; and bytes a client sent before a backend was chosen reach exactly one backend, unchanged.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::fault::{backend_broken, client_broken, local, relay_broken};
use super::os::{Broken, Event, Io, Micros, Os};
use super::preread::{Labels, Preread, PrereadProgress, Row};
use super::relay::{Direction, Pumped, Tools};
use super::slab::{Side, Token};
use super::stick::LOOK_AGAIN_US;
use super::timer::WheelLink;
use crate::admission::Permit;
use crate::attempt::{Attempts, ConnectFailure, Rules};
use crate::connection::Carried;
use crate::counters::WorkerCounters;
use crate::limits::{Limits, keep_alive, us};
use crate::outcome::{Ended, PickReason};
use crate::pool::{Lease, PickScene};
use crate::proxy_protocol::Header;
use crate::snapshot::{Current, Listener};
use crate::sticky::table::{EntryKind, KeyHash};

/// What a step may use besides its own row.
pub struct Step<'a, O: Os> {
    /// The operating system, pipes and scratch buffer.
    pub tools: Tools<'a, O>,
    /// When this turn began.
    pub now: Micros,
    /// The row's own token.
    pub token: Token,
    /// The worker's number.
    pub worker: usize,
    /// What is configured.
    pub current: &'a Current,
    /// The worker's counters.
    pub counters: &'a WorkerCounters,
    /// `Preread`s to use again.
    pub spare: &'a mut Vec<Box<Preread>>,
}

/// What the worker shall do after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Wait for an event or the deadline.
    Wait,
    /// Step again when others have had their turn.
    Again,
    /// Take the row out, whole: it is a conversation.
    HandOver,
    /// Take the row out.
    End(Ended),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Reading what the listener's rules need.
    Preread,
    /// Everything needed is known: route and pick.
    Pick,
    /// A backend is chosen: begin to connect.
    Attempt,
    /// Waiting for the backend's answer.
    Connecting,
    /// Waiting to try the same backend again.
    Pause,
    /// Waiting for the backend it has settled at, which is down.
    Await,
    /// Moving bytes.
    Relay,
}

pub(super) enum Go {
    To(Stage),
    Stop(Verdict),
}

use Go::{Stop, To};

/// One connection.
pub struct Flow<O: Os> {
    /// The wheel's part of the row.
    pub link: WheelLink,
    /// It waits in the run queue.
    pub queued: bool,
    pub(super) stage: Stage,
    pub(super) client: Option<O::Socket>,
    pub(super) backend: Option<O::Socket>,
    pub(super) up: Direction<O::Pipe>,
    pub(super) down: Direction<O::Pipe>,
    pub(super) client_failed: bool,
    pub(super) backend_failed: bool,
    tuned: bool,
    pub(super) attempts_made: u8,
    pub(super) reason: Option<PickReason>,
    /// Deadline of the stage before relay; in relay, when what is remembered of the client is refreshed.
    pub(super) until: Micros,
    pub(super) started: Micros,
    pub(super) last_active: Micros,
    pub(super) connect_us: u32,
    /// The key that the pool remembers, and
    pub(super) key: KeyHash,
    /// why it is where it is; nothing: nothing is remembered.
    pub(super) settled: Option<EntryKind>,
    limits: Limits,
    pub(super) permit: Permit,
    pub(super) lease: Option<Lease>,
    pub(super) source: Option<CompactAddress>,
    pub(super) preread: Option<Box<Preread>>,
    pub(super) labels: Option<Box<Labels>>,
    /// Names the connection in logs and headers.
    pub id: u64,
}

/// A client's address without what only IPv6 sockets keep beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactAddress {
    ip: IpAddr,
    port: u16,
}

impl From<SocketAddr> for CompactAddress {
    fn from(address: SocketAddr) -> Self {
        Self { ip: address.ip(), port: address.port() }
    }
}

impl From<CompactAddress> for SocketAddr {
    fn from(source: CompactAddress) -> Self {
        Self::new(source.ip, source.port)
    }
}

/// What was accepted.
pub struct Incoming<S> {
    /// The client's socket, not yet watched.
    pub socket: S,
    /// Its address; a unix peer has none.
    pub peer: Option<SocketAddr>,
    /// Where it came in.
    pub listener: Arc<Listener>,
    /// Its place.
    pub permit: Permit,
    /// When it was accepted.
    pub accepted: Micros,
}

impl<O: Os> Flow<O> {
    /// A row for what was accepted.
    pub fn new(incoming: Incoming<O::Socket>, id: u64) -> Self {
        let limits = incoming.listener.limits;
        Self {
            link: WheelLink::default(),
            queued: false,
            stage: Stage::Preread,
            client: Some(incoming.socket),
            backend: None,
            up: Direction::default(),
            down: Direction::writable(),
            client_failed: false,
            backend_failed: false,
            tuned: false,
            attempts_made: 0,
            reason: None,
            until: incoming.accepted + us(incoming.listener.hello_ms),
            started: incoming.accepted,
            last_active: incoming.accepted,
            connect_us: 0,
            key: KeyHash::default(),
            settled: None,
            limits,
            permit: incoming.permit,
            lease: None,
            source: incoming.peer.map(CompactAddress::from),
            preread: None,
            labels: None,
            id,
        }
    }

    /// The first step: who may come in, and what they have to say first.
    pub fn begin(&mut self, listener: Arc<Listener>, step: &mut Step<'_, O>) -> Verdict {
        let mut preread = step.spare.pop().unwrap_or_default();
        let welcome = preread.begin(listener, self.source());
        let expects_header = preread.expects_header;
        self.preread = Some(preread);
        if let Err(ended) = welcome {
            return Verdict::End(ended);
        }
        if !expects_header
            && let Some(source) = self.source
            && let Err(ended) = self.permit.hold_source(source.ip, step.now / 1_000_000)
        {
            return Verdict::End(ended);
        }
        if let Some(client) = &self.client
            && let Err(why) = step.tools.os.watch(client, step.token)
        {
            return Verdict::End(local(why));
        }
        self.step(step)
    }

    /// Goes on as far as it can.
    pub fn step(&mut self, step: &mut Step<'_, O>) -> Verdict {
        loop {
            let go = match self.stage {
                Stage::Preread => self.preread(step),
                Stage::Pick => self.pick(step),
                Stage::Attempt => self.attempt(step),
                Stage::Connecting => self.connecting(step),
                Stage::Pause => self.pause(step),
                Stage::Await => self.await_settled(step),
                Stage::Relay => self.relay(step),
            };
            match go {
                To(stage) => self.stage = stage,
                Stop(verdict) => return verdict,
            }
        }
    }

    /// Takes note of an event.
    pub fn event(&mut self, event: &Event) {
        let (from, to, failed) = match event.token.side() {
            Side::Client => (&mut self.up, &mut self.down, &mut self.client_failed),
            _ => (&mut self.down, &mut self.up, &mut self.backend_failed),
        };
        from.readable |= event.readable;
        from.finished |= event.finished;
        from.urgent |= event.urgent;
        to.writable |= event.writable;
        *failed |= event.failed;
    }

    /// When the row wants to be stepped at the latest.
    pub fn deadline(&self) -> Option<Micros> {
        if self.stage != Stage::Relay {
            return Some(self.until);
        }
        let tune = (!self.tuned).then(|| self.tune_at());
        let limit = self.limit().map(|(at, _)| at);
        [limit, tune, self.refresh_at()].into_iter().flatten().min()
    }

    fn preread(&mut self, step: &mut Step<'_, O>) -> Go {
        loop {
            let Some(preread) = &mut self.preread else { return To(Stage::Relay) };
            match preread.look() {
                PrereadProgress::Known => return To(Stage::Pick),
                PrereadProgress::Announced(header) => {
                    if let Err(ended) = self.announced(&header, step) {
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
                Io::Broken(Broken::Reset) if preread.cut_short() == Ended::Probe => {
                    return Stop(Verdict::End(Ended::Probe));
                }
                Io::Broken(why) => return Stop(Verdict::End(client_broken(why))),
            }
        }
    }

    fn preread_timed_out(&mut self) -> Go {
        match self.preread.as_mut().map_or(Ok(()), |preread| preread.timed_out()) {
            Ok(()) => To(Stage::Pick),
            Err(ended) => Stop(Verdict::End(ended)),
        }
    }

    /// A trusted peer has said whom it speaks for. The header is not the client's, so its bytes do not count.
    fn announced(&mut self, header: &Header, step: &Step<'_, O>) -> Result<(), Ended> {
        self.up.bytes = self.preread.as_ref().map_or(0, |preread| preread.bytes.len() as u64);
        match header {
            Header::Local => {
                step.counters.keyless.add(1);
                self.labels.get_or_insert_default().local = true;
                Ok(())
            }
            Header::Proxied { source, .. } => {
                let peer = self.source.replace(CompactAddress::from(*source));
                self.labels.get_or_insert_default().peer = peer.map(SocketAddr::from);
                self.permit.hold_source(source.ip(), step.now / 1_000_000)
            }
        }
    }

    fn pick(&mut self, step: &mut Step<'_, O>) -> Go {
        let source = self.source();
        let Some(preread) = &mut self.preread else { return To(Stage::Relay) };
        if let Some((sni, ech)) = preread.names() {
            let labels = self.labels.get_or_insert_default();
            (labels.sni, labels.ech) = (sni, ech);
        }
        let snapshot = step.current.load();
        let Some(known) = &preread.listener else { return Stop(Verdict::End(Ended::NoRoute)) };
        // A listener removed meanwhile still serves what it accepted, by the rules it had.
        let listener = snapshot.listener_of(&known.state).unwrap_or(known);
        let Some(target) = preread.route(listener, source) else { return Stop(Verdict::End(Ended::NoRoute)) };
        let pool = &listener.pools[target.pool];
        if pool.config().is_conversation(target.tls) {
            return Stop(Verdict::HandOver);
        }
        let now_ms = step.now / 1_000;
        if let Some(most) = pool.waits(None, &preread.facts(source), now_ms) {
            let since = *preread.waiting_since.get_or_insert(step.now);
            if most.is_zero() {
                self.labels.get_or_insert_default().pool = Some(pool.name().into());
                return Stop(Verdict::End(Ended::SettledDown));
            }
            if step.now < since + most.as_micros() as Micros {
                self.until = step.now + LOOK_AGAIN_US;
                return To(Stage::Await);
            }
        }
        let Some(pick) = pool.pick(&PickScene::new(&preread.facts(source), &preread.tried, now_ms)) else {
            let ended = preread.last_failure.map_or_else(|| pool.why_nobody(now_ms), ConnectFailure::ended);
            self.labels.get_or_insert_default().pool = Some(pool.name().into());
            return Stop(Verdict::End(ended));
        };
        if preread.attempts.is_none() {
            preread.attempts = Some(Attempts::new(Rules::of(pool.config()), pick.keyed, now_ms));
        }
        (preread.broke, preread.remember) = (pick.broke, pick.remember);
        preread.picked = Some(Arc::clone(pool));
        if let Some(range) = pick.range {
            self.labels.get_or_insert_default().range = Some(Arc::clone(range));
        }
        self.reason = Some(pick.reason);
        self.lease = Some(Lease::new(pick.backend));
        To(Stage::Attempt)
    }

    fn relay(&mut self, step: &mut Step<'_, O>) -> Go {
        let (Some(client), Some(backend)) = (&self.client, &self.backend) else {
            return Stop(Verdict::End(Ended::LocalError));
        };
        let before = self.moved();
        let (up_bytes, down_bytes) = (self.up.bytes, self.down.bytes);
        let up = self.up.pump(client, backend, &mut step.tools);
        let down = self.down.pump(backend, client, &mut step.tools);
        if self.moved() != before {
            self.last_active = step.now;
            if let Some(lease) = &self.lease {
                let counters = lease.counters(step.worker);
                counters.bytes_up.add(self.up.bytes - up_bytes);
                counters.bytes_down.add(self.down.bytes - down_bytes);
            }
        }
        if let Some(ended) = relay_broken(up, down).or_else(|| self.silent_failure(step)) {
            return Stop(Verdict::End(ended));
        }
        if self.up.end_seen && self.down.end_seen {
            return Stop(Verdict::End(Ended::Done));
        }
        self.pass_ends(step);
        if let Some(ended) = self.overdue(step) {
            return Stop(Verdict::End(ended));
        }
        let again = up == Pumped::Again || down == Pumped::Again;
        Stop(if again { Verdict::Again } else { Verdict::Wait })
    }

    /// A side that has sent everything may still be reset, and reading would not show it.
    fn silent_failure(&mut self, step: &mut Step<'_, O>) -> Option<Ended> {
        if let Some(ended) = self.client_failure(step) {
            return Some(ended);
        }
        let failed = std::mem::take(&mut self.backend_failed);
        let backend = self.backend.as_ref().filter(|_| failed)?;
        step.tools.os.take_error(backend).map(backend_broken)
    }

    /// How the client's socket broke, if an event said that it did.
    pub(super) fn client_failure(&mut self, step: &mut Step<'_, O>) -> Option<Ended> {
        let failed = std::mem::take(&mut self.client_failed);
        let client = self.client.as_ref().filter(|_| failed)?;
        step.tools.os.take_error(client).map(client_broken)
    }

    /// Passes an end on once everything before it is delivered.
    fn pass_ends(&mut self, step: &mut Step<'_, O>) {
        for (direction, to) in [(&mut self.up, &self.backend), (&mut self.down, &self.client)] {
            if direction.end_seen
                && !direction.end_sent
                && let Some(to) = to
            {
                step.tools.os.shutdown(to);
                direction.end_sent = true;
            }
        }
    }

    /// Whether a limit has passed; also the moment to look after an old connection's socket, and its entry.
    fn overdue(&mut self, step: &mut Step<'_, O>) -> Option<Ended> {
        if self.refresh_at().is_some_and(|at| step.now >= at) {
            self.refresh(step);
        }
        if !self.tuned && step.now >= self.tune_at() {
            self.tuned = true;
            if let Some(backend) = &self.backend {
                step.tools.os.keep_alive(backend, &keep_alive(&step.current.load().config.limits));
            }
        }
        self.limit().filter(|(at, _)| step.now >= *at).map(|(_, ended)| ended)
    }

    /// What it is when it leaves this worker: unwatched first, because epoll goes on delivering for a descriptor that
    /// lives on elsewhere.
    pub fn carry(mut self, os: &mut O, spare: &mut Vec<Box<Preread>>) -> Option<Carried<O::Socket>> {
        let client = self.client.take()?;
        os.unwatch(&client);
        let row = Row {
            id: self.id,
            accepted: self.started,
            source: self.source(),
            peer: self.labels.as_ref().and_then(|labels| labels.peer),
            destination: os.local_address(&client),
        };
        let mut preread = self.preread.take()?;
        let known = preread.carry(&row);
        preread.clear();
        spare.push(preread);
        let (bytes, client_info, listener) = known?;
        Some(Carried { client, bytes, permit: self.permit, client_info, listener })
    }

    /// The client's address.
    pub(super) fn source(&self) -> Option<SocketAddr> {
        self.source.map(SocketAddr::from)
    }

    /// The limit that passes first.
    fn limit(&self) -> Option<(Micros, Ended)> {
        self.limits.deadline(self.up.end_seen || self.down.end_seen, self.last_active, self.started)
    }

    fn tune_at(&self) -> Micros {
        self.started + us(self.limits.tune_ms)
    }

    /// Changes whenever a byte was read or taken, and when an end was read.
    fn moved(&self) -> (u64, u64, usize, usize, bool, bool) {
        let (up, down) = (&self.up, &self.down);
        (up.bytes, down.bytes, up.held(), down.held(), up.end_seen, down.end_seen)
    }
}

/// An idle connection costs a row, and what the kernel keeps.
const _: () = assert!(size_of::<Option<(u32, Flow<super::os::Linux>)>>() <= 256);
