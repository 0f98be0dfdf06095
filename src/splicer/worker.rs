//! [`Worker`]: the connections, timers, run queue and listeners of one thread, over any [`Os`].
//!
//! Has no thread and never sleeps: the caller hands it events. Invariants: every event of a batch is noted before any
//! connection is stepped, so no event reaches a socket that was opened after it; a panic in a step costs that
//! connection, by reset, and no other.

mod acceptor;
mod moves;
mod run_queue;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use self::acceptor::{AcceptTurns, Acceptor};
use self::run_queue::RunQueue;
use super::called::CalledRows;
use super::flow::{Flow, Incoming, Step, Verdict};
use super::large_pipes::LargePipes;
use super::os::{Event, Micros, Os};
use super::pipe::{PipeLimits, Pipes};
use super::preread::Preread;
use super::relay::{COPY_BYTES, Tools, step_bytes};
use super::slab::{Side, Slab, Token};
use super::timer::{Links, Wheel, WheelLink};
use crate::access_log::{AccessLogSender, LogRecord, LogRules};
use crate::admission::Admission;
use crate::client_history::ClientHistory;
use crate::clock;
use crate::config::Config;
use crate::connection::{Carried, Selection};
use crate::counters::{Padded, WorkerCounters};
use crate::outcome::Ended;
use crate::snapshot::{Current, LoadedFiles, Snapshot};
use crate::threads::STUCK_US;

/// Number of `Preread`s kept for later connections.
const SPARE_MAX: usize = 64;

/// Free pipes are closed after this time without use.
const TRIM_US: Micros = 5_000_000;

/// State that all workers of a process share.
#[derive(Debug)]
pub struct WorkerShared {
    /// Snapshot in force, behind one pointer.
    pub current: Arc<Current>,
    /// Limits on connections, and their counts.
    pub admission: Arc<Admission>,
    /// Counters of each worker, by its number.
    pub counters: Box<[Padded<WorkerCounters>]>,
    /// Most pipes of one worker; a direction without a pipe copies.
    pub pipes_max: usize,
    /// Large pipes of all workers.
    pub large_pipes: Arc<LargePipes>,
    /// Memory of moves and endings, for workers and then for their runtimes.
    pub history: Arc<ClientHistory>,
}

impl WorkerShared {
    /// What `workers` workers share from their start on.
    pub fn new(current: Arc<Current>, admission: Arc<Admission>, workers: usize, pipes: PipeLimits) -> Self {
        let counters = (0..workers).map(|_| Padded::default()).collect();
        let history = Arc::new(ClientHistory::new(2 * workers, clock::unix_ms()));
        Self { current, admission, counters, pipes_max: pipes.most, large_pipes: pipes.large, history }
    }

    /// What a single worker needs outside a process: in the simulation, in tests and in benches. `config` names no files.
    pub fn alone(config: Config, pipes_max: usize) -> Self {
        let admission = Arc::new(Admission::new(usize::MAX));
        let snapshot = Snapshot::build(config, LoadedFiles::default(), None, 1, &admission);
        let pipes = PipeLimits { most: pipes_max, ..PipeLimits::default() };
        Self::new(Arc::new(Current::new(snapshot)), admission, 1, pipes)
    }
}

/// One worker, without its thread.
pub struct Worker<O: Os> {
    /// Number of the worker, from 0.
    pub index: usize,
    /// Operating system, or its simulation.
    pub os: O,
    /// Limit on connections, above which newly accepted ones go to `surplus` for other workers.
    pub keep_below: usize,
    /// Rows that other threads call; `None`: rows that wait for a place look by themselves, a few times a second.
    pub called: Option<Arc<CalledRows>>,
    surplus: Vec<Incoming<O::Socket>>,
    /// Connections that are conversations, to be handed to the runtime.
    carried: Vec<Carried<O::Socket>>,
    flows: Slab<Flow<O>>,
    wheel: Wheel,
    queue: RunQueue,
    expired: Vec<u32>,
    acceptors: BTreeMap<u32, Acceptor<O>>,
    turns: AcceptTurns,
    pipes: Pipes<O>,
    /// Time at which free pipes are closed, unless one is used before.
    trim_at: Option<Micros>,
    scratch: Box<[u8]>,
    /// Most bytes of a direction in one step of this turn.
    step_bytes: u64,
    /// Boxes move from here into rows and back; without the box every row would be as large as a `Preread`.
    #[allow(clippy::vec_box, reason = "the box is what is kept")]
    spare: Vec<Box<Preread>>,
    shared: Arc<WorkerShared>,
    access_log: AccessLogSender,
    accepted: u64,
    now: Micros,
}

impl<O: Os> Worker<O> {
    /// Makes a worker that has no connections yet.
    pub fn new(index: usize, mut os: O, shared: Arc<WorkerShared>, access_log: AccessLogSender) -> Self {
        let now = os.now();
        let pipes = Pipes::at_most(shared.pipes_max, Arc::clone(&shared.large_pipes));
        Self {
            index,
            os,
            keep_below: usize::MAX,
            called: None,
            surplus: Vec::new(),
            carried: Vec::new(),
            flows: Slab::default(),
            wheel: Wheel::new(now),
            queue: RunQueue::default(),
            expired: Vec::new(),
            acceptors: BTreeMap::new(),
            turns: AcceptTurns::default(),
            pipes,
            trim_at: None,
            scratch: vec![0; COPY_BYTES].into(),
            step_bytes: step_bytes(1),
            spare: Vec::new(),
            shared,
            access_log,
            accepted: 0,
            now,
        }
    }

    /// Returns the pipes, for counters and tests.
    pub fn pipes(&self) -> &Pipes<O> {
        &self.pipes
    }

    /// Number of connections that the worker holds.
    pub fn connections(&self) -> usize {
        self.flows.len()
    }

    /// Number of listening sockets, including those that are being removed.
    pub fn acceptors(&self) -> usize {
        self.acceptors.len()
    }

    /// Returns the time of the next work without an event: `Some(0)` = at once, `None` = never.
    pub fn wake_at(&mut self) -> Option<Micros> {
        if !self.queue.is_empty() {
            return Some(0);
        }
        let access_log = self.access_log.due(self.now / 1_000).map(|ms| ms * 1_000);
        let acceptors = self.acceptors.values().filter_map(Acceptor::due);
        acceptors.chain(self.wheel.next()).chain(access_log).chain(self.trim_at).min()
    }

    /// Handles a batch of events, the run queue, and every deadline that has passed.
    pub fn turn(&mut self, events: &[Event]) {
        self.now = self.os.now();
        self.counters().wakes.add(1);
        for event in events {
            if matches!(event.token.side(), Side::Client | Side::Backend) {
                self.note(event);
            }
        }
        let pairs = self.step_queued();
        self.expire();
        self.accept_ready(events, pairs);
        self.poll_listeners();
        self.settle();
    }

    /// True if all events concern connections that are worth a large pipe, and no connection waits for a turn.
    pub fn are_of_bulk(&mut self, events: &[Event]) -> bool {
        let is_of_bulk = |event: &Event| {
            let is_of_pair = matches!(event.token.side(), Side::Client | Side::Backend);
            is_of_pair && self.flows.find(event.token).is_some_and(|flow| flow.up.is_bulky() || flow.down.is_bulky())
        };
        self.pipes.large() > 0 && self.queue.is_empty() && !events.is_empty() && events.iter().all(is_of_bulk)
    }

    /// Steps the rows that other threads have called.
    pub fn step_called(&mut self) {
        let called = self.called.as_ref().map(|called| called.take()).unwrap_or_default();
        for token in called {
            self.now = self.os.now();
            if self.flows.token(token.slot()) == Some(token) {
                self.step(token.slot());
            }
        }
    }

    /// Gives an accepted connection a row and makes its first step.
    pub fn admit(&mut self, incoming: Incoming<O::Socket>) {
        // Another worker may have accepted it after this turn began; nothing is older than now.
        self.now = self.now.max(incoming.accepted);
        self.accepted += 1;
        let id = (self.index as u64) << 48 | self.accepted;
        let (flow, listener) = Flow::new(incoming, id);
        let token = self.flows.insert_with(|_| flow);
        self.advance(token.slot(), |flow, step| flow.begin(listener, step));
    }

    /// Takes a connection that another worker should serve.
    pub fn surplus(&mut self) -> Option<Incoming<O::Socket>> {
        self.surplus.pop()
    }

    /// Takes a connection that is a conversation, for the runtime.
    pub fn carried(&mut self) -> Option<Carried<O::Socket>> {
        self.carried.pop()
    }

    /// Makes the next step of a connection panic.
    #[cfg(debug_assertions)]
    pub fn panic_at(&mut self, id: u64) {
        let slots: Vec<_> = self.flows.slots().collect();
        if let Some(slot) = slots.into_iter().find(|slot| self.flows.at(*slot).is_some_and(|flow| flow.id == id)) {
            self.advance(slot, |_, _| panic!("asked to panic"));
        }
    }

    /// Sets which connections are logged.
    pub fn set_log_rules(&mut self, rules: LogRules) {
        self.access_log.set_rules(rules);
    }

    /// Runs a function over every connection.
    pub fn each(&mut self, mut visit: impl FnMut(&Flow<O>)) {
        let slots: Vec<_> = self.flows.slots().collect();
        for slot in slots {
            if let Some(flow) = self.flows.at(slot) {
                visit(flow);
            }
        }
    }

    /// Ends at most `count` of the selected connections, the quietest first, and returns how many were ended.
    pub fn shed(&mut self, selection: &Selection, count: usize, ended: Ended) -> usize {
        let slots: Vec<_> = self.flows.slots().collect();
        let mut selected: Vec<_> = slots
            .into_iter()
            .filter_map(|slot| {
                let flow = self.flows.at(slot)?;
                flow.record().is_selected(selection).then_some((flow.last_active, slot))
            })
            .collect();
        // Quietest first.
        selected.sort_unstable();
        for (_, slot) in selected.iter().take(count) {
            self.end(*slot, ended);
        }
        self.settle();
        selected.len().min(count)
    }

    /// Sends the buffered lines to the access log.
    pub fn flush(&mut self) {
        let dropped = self.access_log.flush();
        self.counters().log_dropped.add(dropped as u64);
    }

    /// The counters of this worker.
    pub fn counters(&self) -> &WorkerCounters {
        &self.shared.counters[self.index].0
    }

    /// Closes the free pipes of the worker.
    pub fn trim(&mut self) {
        self.pipes.trim();
        self.trim_at = None;
    }

    fn step(&mut self, slot: u32) {
        if let Some(flow) = self.flows.at(slot) {
            flow.queued = false;
            self.advance(slot, Flow::step);
        }
    }

    /// Makes one step of one connection and acts on its verdict.
    fn advance(&mut self, slot: u32, go: impl FnOnce(&mut Flow<O>, &mut Step<'_, O>) -> Verdict) {
        let Some(token) = self.flows.token(slot) else { return };
        self.counters().steps.add(1);
        let mut spliced = 0;
        let verdict = {
            let (flows, mut step) = self.split(token);
            let Some(flow) = flows.at(slot) else { return };
            let verdict = catch_unwind(AssertUnwindSafe(|| go(flow, &mut step)));
            spliced += step.tools.spliced;
            verdict
        };
        if spliced > 0 {
            self.counters().bytes_spliced.add(spliced);
        }
        match verdict {
            Ok(Verdict::Wait) => self.arm(slot),
            Ok(Verdict::Again) => {
                self.arm(slot);
                self.enqueue(slot);
            }
            Ok(Verdict::HandOver) => self.carry(slot),
            Ok(Verdict::End(ended)) => self.end(slot, ended),
            Err(_) => {
                self.counters().panics.add(1);
                tracing::error!("a step panicked; its connection was reset, no other was touched");
                self.end(slot, Ended::Panicked);
            }
        }
    }

    /// Puts a row on the wheel at its deadline. An entry that is due too early stays there and moves when it expires,
    /// so that moving bytes costs no timer.
    fn arm(&mut self, slot: u32) {
        let Some(flow) = self.flows.at(slot) else { return };
        let (due, deadline) = (flow.link.due(), flow.deadline());
        match deadline {
            Some(deadline) if due.is_none_or(|due| due > deadline + 16_384) => {
                self.wheel.set(&mut Rows(&mut self.flows), slot, deadline);
            }
            _ => {}
        }
    }

    fn end(&mut self, slot: u32, ended: Ended) {
        let Some(token) = self.flows.token(slot) else { return };
        self.wheel.clear(&mut Rows(&mut self.flows), slot);
        let Some(flow) = self.flows.remove(slot) else { return };
        let log = self.access_log.rules();
        // The level of the log is debug.
        if log.local
            && let Some(message) = flow.refused_header(ended)
        {
            tracing::debug!("{message}");
        }
        let line = {
            let (_, mut step) = self.split(token);
            flow.finish(ended, log, &mut step)
        };
        if self.spare.len() > SPARE_MAX {
            self.spare.truncate(SPARE_MAX);
        }
        if let Some(line) = line {
            let dropped = self.access_log.push(LogRecord::Connection(line));
            self.counters().log_dropped.add(dropped as u64);
        }
        if ended == Ended::NoDescriptor {
            return self.pause_accepting();
        }
        // The descriptor or place that a listener waits for may be free now.
        for acceptor in self.acceptors.values_mut() {
            if let Some(until) = &mut acceptor.paused {
                *until = self.now;
            }
        }
    }

    /// Takes the row of a conversation out; its socket leaves epoll with it.
    fn carry(&mut self, slot: u32) {
        self.wheel.clear(&mut Rows(&mut self.flows), slot);
        let Some(flow) = self.flows.remove(slot) else { return };
        let carried = flow.carry(&mut self.os, &mut self.spare);
        self.carried.extend(carried);
    }

    fn expire(&mut self) {
        let mut expired = std::mem::take(&mut self.expired);
        self.wheel.expire(&mut Rows(&mut self.flows), self.now, &mut expired);
        for slot in expired.drain(..) {
            let Some(flow) = self.flows.at(slot) else { continue };
            if flow.deadline().is_some_and(|deadline| deadline <= self.now) {
                self.step(slot);
            } else {
                self.arm(slot);
            }
        }
        self.expired = expired;
    }

    fn settle(&mut self) {
        self.flows.settle();
        self.counters().connections.set(self.flows.len() as u64);
        let used = self.pipes.was_used();
        match self.trim_at {
            _ if !self.pipes.has_free() => self.trim_at = None,
            Some(at) if !used && at <= self.now => self.trim(),
            Some(_) if !used => {}
            _ => self.trim_at = Some(self.now + TRIM_US),
        }
        let counters = self.counters();
        counters.pipes.set(self.pipes.count() as u64);
        counters.pipes_large.set(self.pipes.large() as u64);
        counters.pipes_denied.set(self.pipes.denied());
        if self.access_log.due(self.now / 1_000).is_some_and(|due_ms| due_ms <= self.now / 1_000) {
            self.flush();
        }
        let took = self.os.now() - self.now;
        if took > STUCK_US {
            self.counters().stuck.add(1);
            tracing::warn!("worker {} was busy for {} ms in one turn", self.index, took / 1_000);
        }
    }

    fn split(&mut self, token: Token) -> (&mut Slab<Flow<O>>, Step<'_, O>) {
        let (pipes, scratch, step_bytes) = (&mut self.pipes, &mut self.scratch, self.step_bytes);
        let step = Step {
            tools: Tools { os: &mut self.os, pipes, scratch, step_bytes, spliced: 0 },
            now: self.now,
            token,
            worker: self.index,
            current: &self.shared.current,
            counters: &self.shared.counters[self.index].0,
            history: &self.shared.history,
            called: self.called.as_ref(),
            spare: &mut self.spare,
        };
        (&mut self.flows, step)
    }
}

struct Rows<'a, O: Os>(&'a mut Slab<Flow<O>>);

impl<O: Os> Links for Rows<'_, O> {
    fn link(&mut self, slot: u32) -> &mut WheelLink {
        // The wheel links only rows that exist, and `end` takes them off before they go.
        &mut self.0.at(slot).expect("a linked row exists").link
    }
}

#[cfg(test)]
mod tests;
