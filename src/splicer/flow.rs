//! [`Flow`]: the passthrough connection, from accept to close: preread → route → pick → connect → relay → end.
//!
//! A state machine without I/O of its own: it calls an [`Os`], changes only its own row, and returns a [`Verdict`] for
//! the worker. It touches neither slab nor timers nor run queue, and it holds no snapshot once it is connected.
//! `read_ahead.rs`, `connect.rs` and `ending.rs` hold the other stages.
//!
//! Invariant: sockets, pipes, permit and lease of a row are given back when the row is dropped, however the connection
//! ended; and bytes that a client sent before a backend was picked reach exactly one backend, unchanged.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::called::CalledRows;
use super::os::{Event, Micros, Os};
use super::place::{Placing, place};
use super::preread::{Labels, Picked, Preread};
use super::relay::{Direction, Pumped, Tools, broken};
use super::slab::{Side, Token};
use super::timer::WheelLink;
use crate::admission::Permit;
use crate::alert::TlsRefusal;
use crate::attempt::{KnownWait, wait_for_known};
use crate::client_history::ClientHistory;
use crate::connection::{Carried, ClientInfo};
use crate::counters::WorkerCounters;
use crate::fault::Endpoint;
use crate::limits::{Limits, keep_alive, us};
use crate::outcome::{Ended, PickReason};
use crate::pool::Lease;
use crate::snapshot::{Current, Listener};
use crate::sticky::table::{EntryKind, KeyHash};

/// The parts of a worker that a step may use besides its own row.
pub struct Step<'a, O: Os> {
    /// The operating system, pipes and scratch buffer.
    pub tools: Tools<'a, O>,
    /// Begin of the worker's turn, on the monotonic clock.
    pub now: Micros,
    /// Token of the row, for the client's side.
    pub token: Token,
    /// Number of the worker, from 0.
    pub worker: usize,
    /// Snapshot in force, loaded once for each decision.
    pub current: &'a Current,
    /// Counters that only this worker writes.
    pub counters: &'a WorkerCounters,
    /// Memory of moves and endings, in which this worker has a part of its own.
    pub history: &'a ClientHistory,
    /// How other threads call this row; `None`: they do not.
    pub called: Option<&'a Arc<CalledRows>>,
    /// Cleared `Preread`s, kept to save allocations.
    pub spare: &'a mut Vec<Box<Preread>>,
}

/// What the worker does with the row after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Step the row at its next event or deadline.
    Wait,
    /// Step the row again after the other rows of the run queue.
    Again,
    /// Take the row out and hand it to the runtime: it is a conversation, or is refused in TLS.
    HandOver,
    /// Take the row out and count this ending.
    End(Ended),
}

/// The stage of a connection; each is a method of [`Flow`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Bytes are read ahead, as many as the listener's rules need.
    Preread,
    /// Everything needed is read: the connection is routed, and a backend is picked.
    Pick,
    /// A backend is picked: an attempt to connect begins.
    Connect,
    /// The backend has not replied to the attempt yet.
    Connecting,
    /// The same backend is tried again after a pause.
    RetryPause,
    /// The backend at which the client is known is down, and the client waits for it.
    WaitForBackend,
    /// Both sides are connected, and bytes move.
    Relay,
}

/// What a stage leads to: another stage, in the same step, or the end of the step.
pub(super) enum Go {
    To(Stage),
    Stop(Verdict),
}

use Go::{Stop, To};

/// The row of one passthrough connection.
pub struct Flow<O: Os> {
    /// Entry of the row on the worker's timer wheel.
    pub link: WheelLink,
    /// The row waits in the run queue.
    pub queued: bool,
    pub(super) stage: Stage,
    pub(super) client: Option<O::Socket>,
    pub(super) backend: Option<O::Socket>,
    pub(super) up: Direction<O::Pipe>,
    pub(super) down: Direction<O::Pipe>,
    pub(super) client_failed: bool,
    pub(super) backend_failed: bool,
    /// The backend's socket has keepalive and user timeout.
    pub(super) tuned: bool,
    pub(super) attempts_made: u8,
    pub(super) reason: Option<PickReason>,
    /// Before relay the deadline of the stage; in relay the time at which the stick table's entry is refreshed.
    pub(super) until: Micros,
    pub(super) started: Micros,
    pub(super) last_active: Micros,
    pub(super) connect_us: u32,
    /// Key in the stick table; meaningless where `settled` is `None`.
    pub(super) key: KeyHash,
    /// Kind of the entry in the stick table; `None` = the connection has no entry.
    pub(super) settled: Option<EntryKind>,
    pub(super) limits: Limits,
    pub(super) permit: Permit,
    pub(super) lease: Option<Lease>,
    pub(super) source: Option<CompactAddress>,
    pub(super) preread: Option<Box<Preread>>,
    pub(super) labels: Option<Box<Labels>>,
    /// Number of the connection in this process, in logs and headers.
    pub id: u64,
}

/// A client's address without the flow label and scope of an IPv6 socket address, which would make the row larger.
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

/// A connection that was accepted and has no row yet.
pub struct Incoming<S> {
    /// Socket of the client, not yet watched by an epoll.
    pub socket: S,
    /// Address of the peer; `None` for a unix peer.
    pub peer: Option<SocketAddr>,
    /// Listener that accepted it, with the rules in force then.
    pub listener: Arc<Listener>,
    /// Permit that counts the connection until it is dropped.
    pub permit: Permit,
    /// Time of accept, on the monotonic clock.
    pub accepted: Micros,
}

impl<O: Os> Flow<O> {
    /// Makes the row of a connection that was accepted; also returns the listener that accepted it.
    pub fn new(incoming: Incoming<O::Socket>, id: u64) -> (Self, Arc<Listener>) {
        let listener = incoming.listener;
        let flow = Self {
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
            until: incoming.accepted + us(listener.hello_ms),
            started: incoming.accepted,
            last_active: incoming.accepted,
            connect_us: 0,
            key: KeyHash::default(),
            settled: None,
            limits: listener.limits,
            permit: incoming.permit,
            lease: None,
            source: incoming.peer.map(CompactAddress::from),
            preread: None,
            labels: None,
            id,
        };
        (flow, listener)
    }

    /// Makes the first step: refuses untrusted peers and sources above their limit, and begins to read ahead.
    pub fn begin(&mut self, listener: Arc<Listener>, step: &mut Step<'_, O>) -> Verdict {
        let mut preread = step.spare.pop().unwrap_or_default();
        let client_info =
            ClientInfo { id: self.id, accepted: self.started, source: self.source(), ..ClientInfo::default() };
        let welcome = preread.begin(listener, client_info);
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
            && let Err(fault) = step.tools.os.watch(client, step.token)
        {
            return Verdict::End(fault.ending(Endpoint::Client));
        }
        self.step(step)
    }

    /// Runs stages until one has to wait, or the connection ends.
    pub fn step(&mut self, step: &mut Step<'_, O>) -> Verdict {
        loop {
            let go = match self.stage {
                Stage::Preread => self.preread(step),
                Stage::Pick => self.pick(step),
                Stage::Connect => self.connect(step),
                Stage::Connecting => self.connecting(step),
                Stage::RetryPause => self.retry_pause(step),
                Stage::WaitForBackend => self.wait_for_backend(step),
                Stage::Relay => self.relay(step),
            };
            match go {
                To(stage) => self.stage = stage,
                Stop(verdict) => return verdict,
            }
        }
    }

    /// Notes an event; the next step acts on it.
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

    /// Returns the latest time of the next step; `None` = events alone.
    pub fn deadline(&self) -> Option<Micros> {
        if self.stage != Stage::Relay {
            return Some(self.until);
        }
        let tune = (!self.tuned).then(|| self.tune_at());
        let limit = self.limit().map(|(at, _)| at);
        [limit, tune, self.refresh_at()].into_iter().flatten().min()
    }

    /// Routes the connection and picks a backend of its pool; also called again after a failed attempt.
    fn pick(&mut self, step: &mut Step<'_, O>) -> Go {
        let Some(preread) = &mut self.preread else { return To(Stage::Relay) };
        let client_info = &preread.client_info;
        if client_info.sni.is_some() || client_info.odd_name.is_some() || client_info.ech {
            let labels = self.labels.get_or_insert_default();
            (labels.sni, labels.ech) = (client_info.sni.clone(), client_info.ech);
            labels.odd_name = client_info.odd_name.clone();
        }
        let snapshot = step.current.load();
        let Some(read_by) = &preread.listener else { return Stop(Verdict::End(Ended::NoRoute)) };
        // A listener that a reload has removed serves what it accepted, by its own rules.
        let listener = client_info.judged_by(snapshot.listener_of(&read_by.state), read_by);
        let now_ms = step.now / 1_000;
        let target = client_info.route(listener, now_ms);
        let Some(target) = target else { return self.refuse_tls(TlsRefusal::NoRoute) };
        // Without a pool, requests are routed or answered.
        let pool = listener.pool(&target).filter(|pool| !pool.config().is_conversation(target.tls));
        let Some(pool) = pool else { return Stop(Verdict::HandOver) };
        if let Some((split, choice)) = listener.divided(&target) {
            let labels = self.labels.get_or_insert_default();
            if labels.split.replace((Arc::clone(split.name()), choice.by)).is_none() {
                split.count(choice, step.worker);
            }
        }
        let facts = client_info.facts();
        preread.visit.listen();
        let pick = match wait_for_known(pool, None, &facts, &mut preread.waiting_since_ms, now_ms) {
            KnownWait::LookAgainAt(at_ms) => {
                self.until = at_ms * 1_000;
                return To(Stage::WaitForBackend);
            }
            KnownWait::Refuse => Err(Ended::SettledDown),
            KnownWait::Pick => {
                match place(pool, &facts, (&preread.attempts, &mut preread.visit), step.worker, now_ms) {
                    Placing::At(pick, lease) => Ok((pick, lease)),
                    Placing::WaitsUntil(at_ms) => {
                        let waker = step.called.map(|called| called.waker(step.token));
                        if waker.is_some_and(|waker| preread.visit.is_called_or_wakes(&waker)) {
                            return To(Stage::Pick);
                        }
                        // A place at a backend that has failed is no use to this connection.
                        (self.lease, self.until) = (None, at_ms * 1_000);
                        return To(Stage::WaitForBackend);
                    }
                    Placing::Refused(ended) => Err(ended),
                }
            }
        };
        let (pick, lease) = match pick {
            Ok(placed) => placed,
            Err(ended) => {
                self.labels.get_or_insert_default().pool = Some(Arc::clone(pool.shared_name()));
                return Stop(Verdict::End(ended));
            }
        };
        preread.attempts.picked(pool.config(), pick.keyed, now_ms);
        let (reason, moved) = (pick.reason, pool.client_move(pick.left, pick.index));
        preread.picked = Some(Picked { pool: Arc::clone(pool), reason, moved, remember: pick.remember });
        if let Some(range) = pick.range {
            self.labels.get_or_insert_default().range = Some(Arc::clone(range));
        }
        self.limits = listener.limits.nearer(&pool.config().limits);
        self.reason = Some(pick.reason);
        self.lease = Some(lease);
        To(Stage::Connect)
    }

    /// Moves bytes both ways, passes ends on, and watches the limits.
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
        let ended = broken(up, down).or_else(|| self.silent_failure(step));
        if self.down.first_byte.is_awaited() {
            self.judge_begin(ended, step);
        }
        if let Some(ended) = ended {
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

    /// Returns the ending of a socket that failed after its end was read: reading would not show it any more.
    fn silent_failure(&mut self, step: &mut Step<'_, O>) -> Option<Ended> {
        if let Some(ended) = self.client_failure(step) {
            return Some(ended);
        }
        let failed = std::mem::take(&mut self.backend_failed);
        let backend = self.backend.as_ref().filter(|_| failed)?;
        step.tools.os.take_error(backend).map(|fault| fault.ending(Endpoint::Backend))
    }

    /// Returns the ending of the client's socket, if an event has reported an error.
    pub(super) fn client_failure(&mut self, step: &mut Step<'_, O>) -> Option<Ended> {
        let failed = std::mem::take(&mut self.client_failed);
        let client = self.client.as_ref().filter(|_| failed)?;
        step.tools.os.take_error(client).map(|fault| fault.ending(Endpoint::Client))
    }

    /// Passes an end on after every byte before it is delivered.
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

    /// Returns the ending of a limit that has passed. Also refreshes the stick table's entry and tunes the backend's
    /// socket when these are due.
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

    /// Turns the row into a [`Carried`] for the runtime. The socket leaves epoll first, because epoll goes on
    /// delivering events of a descriptor that another thread keeps open.
    pub fn carry(mut self, os: &mut O, spare: &mut Vec<Box<Preread>>) -> Option<Carried<O::Socket>> {
        let client = self.client.take()?;
        os.unwatch(&client);
        let mut preread = self.preread.take()?;
        let (bytes, listener) = (std::mem::take(&mut preread.bytes), preread.listener.take()?);
        let mut client_info = std::mem::take(&mut preread.client_info);
        client_info.destination = client_info.destination.or_else(|| os.local_address(&client));
        let refusal = preread.refusal;
        preread.clear();
        spare.push(preread);
        Some(Carried { client, bytes, permit: self.permit, client_info, listener, refusal })
    }

    /// Returns the client's address, announced or seen.
    pub(super) fn source(&self) -> Option<SocketAddr> {
        self.source.map(SocketAddr::from)
    }

    /// Returns the limit that passes first, and its ending.
    fn limit(&self) -> Option<(Micros, Ended)> {
        self.limits.deadline(self.up.end_seen || self.down.end_seen, self.last_active, self.started)
    }

    fn tune_at(&self) -> Micros {
        self.started + us(self.limits.tune_ms)
    }

    /// Returns a value that differs after any byte was read or written, or an end was read.
    fn moved(&self) -> (u64, u64, usize, usize, bool, bool) {
        let (up, down) = (&self.up, &self.down);
        (up.bytes, down.bytes, up.held(), down.held(), up.end_seen, down.end_seen)
    }
}

/// An idle connection costs one row, besides the memory of the kernel.
const _: () = assert!(size_of::<Option<(u32, Flow<super::os::Linux>)>>() <= 256);
