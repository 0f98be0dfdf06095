//! One worker: its connections, timers, run queue and listeners, over any [`Os`].
//!
//! Has no thread and never sleeps: whoever drives it hands it events. Invariants: every event of a batch is noted
//! before any connection is stepped, so none can meet a socket that was opened later; a panic costs the connection
//! whose step it was, by reset, and no other.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::flow::{Flow, Incoming, Step, Verdict};
use super::opening::Opening;
use super::os::{Accepted, Event, Micros, Os};
use super::pipe::Pipes;
use super::relay::{COPY_BYTES, Tools};
use super::slab::{Side, Slab, Token};
use super::timer::{Link, Links, Wheel};
use crate::admission::{Admission, Permit};
use crate::config::LogLevel;
use crate::counters::{Padded, WorkerCounters};
use crate::journal::{JournalSender, Notice, Record};
use crate::outcome::Ended;
use crate::pool::Backend;
use crate::snapshot::{Current, Listener};

/// Accepts per wake while the queue is long.
const BATCH_MAX: u32 = 64;

/// How long accepting pauses when a limit is reached or descriptors are out; a close ends the pause early.
const PAUSE_US: Micros = 50_000;

/// How long a listener that is being removed still takes handshakes that had begun: longer than the round trip to
/// the far side of the world.
const LINGER_US: Micros = 300_000;

/// `Opening`s kept for later connections.
const SPARE_MAX: usize = 64;

/// A turn that takes longer is counted and told.
const STUCK_US: Micros = 100_000;

/// What every worker of a process shares.
#[derive(Debug)]
pub struct Shared {
    /// What is configured.
    pub current: Arc<Current>,
    /// Who may come in.
    pub admission: Arc<Admission>,
    /// What each worker counts.
    pub counters: Box<[Padded<WorkerCounters>]>,
}

/// A listening socket and its rules.
struct Door<O: Os> {
    socket: O::Listener,
    listener: Arc<Listener>,
    shared: bool,
    /// Accepts at the next wake.
    batch: u32,
    state: DoorState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DoorState {
    Open,
    /// Not watched until then.
    Paused(Micros),
    /// Being removed: serves what is queued, closes then.
    Closing(Micros),
}

/// One worker.
pub struct Worker<O: Os> {
    /// Its number.
    pub index: usize,
    /// Its operating system.
    pub os: O,
    /// Connections accepted while it holds so many are not taken in but left in `surplus`.
    pub keep_below: usize,
    surplus: Vec<Incoming<O::Socket>>,
    flows: Slab<Flow<O>>,
    wheel: Wheel,
    queue: VecDeque<u32>,
    expired: Vec<u32>,
    doors: Vec<Option<Door<O>>>,
    pipes: Pipes<O>,
    scratch: Box<[u8]>,
    /// Boxes move from here into rows and back; without the box every row would be as large as an `Opening`.
    #[allow(clippy::vec_box, reason = "the box is what is kept")]
    spare: Vec<Box<Opening>>,
    shared: Arc<Shared>,
    journal: JournalSender,
    accepted: u64,
    now: Micros,
}

/// Which connections a command means.
#[derive(Debug, Clone)]
pub enum Whom {
    /// All of them.
    All,
    /// Those that use this backend.
    Of(Arc<Backend>),
}

impl<O: Os> Worker<O> {
    /// A worker without connections.
    pub fn new(index: usize, mut os: O, shared: Arc<Shared>, journal: JournalSender) -> Self {
        let now = os.now();
        Self {
            index,
            os,
            keep_below: usize::MAX,
            surplus: Vec::new(),
            flows: Slab::default(),
            wheel: Wheel::new(now),
            queue: VecDeque::new(),
            expired: Vec::new(),
            doors: Vec::new(),
            pipes: Pipes::default(),
            scratch: vec![0; COPY_BYTES].into(),
            spare: Vec::new(),
            shared,
            journal,
            accepted: 0,
            now,
        }
    }

    /// Connections it holds.
    pub fn connections(&self) -> usize {
        self.flows.len()
    }

    /// Listening sockets it holds, those being closed included.
    pub fn doors(&self) -> usize {
        self.doors.iter().flatten().count()
    }

    /// When it has something to do without an event: `Some(0)` at once, `None` never.
    pub fn wake_at(&mut self) -> Option<Micros> {
        if !self.queue.is_empty() {
            return Some(0);
        }
        let journal = self.journal.due(self.now / 1_000).map(|ms| ms * 1_000);
        let doors = self.doors.iter().flatten().filter_map(|door| match door.state {
            DoorState::Open => None,
            DoorState::Paused(until) | DoorState::Closing(until) => Some(until),
        });
        doors.chain(self.wheel.next()).chain(journal).min()
    }

    /// Handles a batch of events and everything that is due.
    pub fn turn(&mut self, events: &[Event]) {
        self.now = self.os.now();
        self.counters().wakes.add(1);
        for event in events {
            if matches!(event.token.side(), Side::Client | Side::Backend) {
                self.note(event);
            }
        }
        for event in events {
            if event.token.side() == Side::Listener {
                self.accept(event.token.slot());
            }
        }
        for _ in 0..self.queue.len() {
            if let Some(slot) = self.queue.pop_front() {
                self.step(slot);
            }
        }
        self.expire();
        self.tend_doors();
        self.settle();
    }

    /// Takes a connection in.
    pub fn admit(&mut self, incoming: Incoming<O::Socket>) {
        self.accepted += 1;
        let id = (self.index as u64) << 48 | self.accepted;
        let listener = Arc::clone(&incoming.listener);
        let token = self.flows.insert_with(|_| Flow::new(incoming, id));
        self.advance(token.slot(), |flow, step| flow.begin(listener, step));
    }

    /// A connection that another worker should take.
    pub fn surplus(&mut self) -> Option<Incoming<O::Socket>> {
        self.surplus.pop()
    }

    /// Makes the next step of a connection panic.
    #[cfg(debug_assertions)]
    pub fn panic_at(&mut self, id: u64) {
        let slots: Vec<_> = self.flows.slots().collect();
        if let Some(slot) = slots.into_iter().find(|slot| self.flows.at(*slot).is_some_and(|flow| flow.id == id)) {
            self.advance(slot, |_, _| panic!("asked to panic"));
        }
    }

    /// Begins to accept on a socket. Numbers are the caller's, small and unique.
    pub fn open_door(&mut self, number: u32, socket: O::Listener, listener: Arc<Listener>, shared: bool) {
        let slot = number as usize;
        if self.doors.len() <= slot {
            self.doors.resize_with(slot + 1, || None);
        }
        let mut door = Door { socket, listener, shared, batch: 1, state: DoorState::Open };
        if self.os.watch_listener(&door.socket, Token::special(Side::Listener, number), shared).is_err() {
            door.state = DoorState::Paused(self.now + PAUSE_US);
        }
        self.doors[slot] = Some(door);
    }

    /// Gives a listening socket the rules of a new snapshot.
    pub fn rebind_door(&mut self, number: u32, listener: Arc<Listener>) {
        if let Some(Some(door)) = self.doors.get_mut(number as usize) {
            door.listener = listener;
        }
    }

    /// Serves what is queued on a socket, then closes it.
    pub fn close_door(&mut self, number: u32) {
        let until = self.os.now() + LINGER_US;
        if let Some(Some(door)) = self.doors.get_mut(number as usize) {
            if let DoorState::Paused(_) = door.state {
                let token = Token::special(Side::Listener, number);
                let _ = self.os.watch_listener(&door.socket, token, door.shared);
            }
            if !door.shared {
                self.os.refuse_new(&door.socket);
            }
            door.state = DoorState::Closing(until);
        }
    }

    /// What the log shall say from now on.
    pub fn set_logs_connections(&mut self, on: bool) {
        self.journal.set_logs_connections(on);
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

    /// Ends at most `count` connections; answers how many of those meant were left.
    pub fn shed(&mut self, whom: &Whom, count: usize, ended: Ended) -> usize {
        let slots: Vec<_> = self.flows.slots().collect();
        let mut meant: Vec<_> = slots
            .into_iter()
            .filter_map(|slot| {
                let flow = self.flows.at(slot)?;
                flow.uses(whom).then_some((flow.last_active, slot))
            })
            .collect();
        // Quietest first.
        meant.sort_unstable();
        for (_, slot) in meant.iter().take(count) {
            self.end(*slot, ended);
        }
        self.settle();
        meant.len().saturating_sub(count)
    }

    /// Hands over what is left for the log.
    pub fn flush(&mut self) {
        let dropped = self.journal.flush();
        self.counters().log_dropped.add(dropped as u64);
    }

    /// The counters of this worker.
    pub fn counters(&self) -> &WorkerCounters {
        &self.shared.counters[self.index].0
    }

    /// Closes free pipes.
    pub fn trim(&mut self) {
        self.pipes.trim();
    }

    fn note(&mut self, event: &Event) {
        match self.flows.find(event.token) {
            Some(flow) => {
                flow.event(event);
                if !std::mem::replace(&mut flow.queued, true) {
                    self.queue.push_back(event.token.slot());
                }
            }
            None => self.counters().stale_events.add(1),
        }
    }

    fn step(&mut self, slot: u32) {
        if let Some(flow) = self.flows.at(slot) {
            flow.queued = false;
            self.advance(slot, Flow::step);
        }
    }

    /// One step of one connection, and what follows from it.
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
                if let Some(flow) = self.flows.at(slot)
                    && !std::mem::replace(&mut flow.queued, true)
                {
                    self.queue.push_back(slot);
                }
            }
            Ok(Verdict::End(ended)) => self.end(slot, ended),
            Err(_) => {
                self.counters().panics.add(1);
                self.notice(LogLevel::Error, "a step panicked; its connection was reset, no other was touched");
                self.end(slot, Ended::Panicked);
            }
        }
    }

    /// The entry on the wheel moves only forward in time by expiring, so that bytes cost no timer.
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
        let line = {
            let (_, mut step) = self.split(token);
            flow.finish(ended, &mut step)
        };
        if self.spare.len() > SPARE_MAX {
            self.spare.truncate(SPARE_MAX);
        }
        if self.journal.logs_connections() {
            let dropped = self.journal.push(Record::Connection(line));
            self.counters().log_dropped.add(dropped as u64);
        }
        if ended == Ended::NoDescriptor {
            return self.run_dry();
        }
        // Whatever ran out may be there again.
        for door in self.doors.iter_mut().flatten() {
            if let DoorState::Paused(until) = &mut door.state {
                *until = self.now;
            }
        }
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

    fn accept(&mut self, number: u32) {
        let Some(Some(door)) = self.doors.get(number as usize) else { return };
        let (batch, closing) = (door.batch, matches!(door.state, DoorState::Closing(_)));
        let mut taken = 0;
        let stop = loop {
            if taken == batch && !closing {
                break Stop::Batch;
            }
            match self.accept_one(number) {
                Ok(()) => taken += 1,
                Err(stop) => break stop,
            }
        };
        let counters = &self.shared.counters[self.index].0;
        let Some(Some(door)) = self.doors.get_mut(number as usize) else { return };
        match stop {
            // Found the whole batch: the queue is long.
            Stop::Batch => door.batch = (door.batch * 2).min(BATCH_MAX),
            Stop::Empty => door.batch = taken.clamp(1, BATCH_MAX),
            Stop::Full => {
                counters.accept_paused_limit.add(1);
                self.pause(number);
            }
            Stop::Exhausted => {
                counters.accept_paused_descriptors.add(1);
                self.pipes.trim();
                self.pause(number);
            }
        }
    }

    /// Stops accepting for a while; a listener being removed does not: it has to serve what is queued.
    fn pause(&mut self, number: u32) {
        let Some(Some(door)) = self.doors.get_mut(number as usize) else { return };
        if door.state == DoorState::Open {
            self.shared.counters[self.index].0.accept_paused_now.set(1);
            self.os.unwatch_listener(&door.socket);
            door.state = DoorState::Paused(self.now + PAUSE_US);
        }
    }

    /// What was accepted could not be connected for want of a descriptor: others had better wait in the queue.
    fn run_dry(&mut self) {
        self.counters().accept_paused_descriptors.add(1);
        self.pipes.trim();
        for number in 0..self.doors.len() as u32 {
            self.pause(number);
        }
    }

    fn accept_one(&mut self, number: u32) -> Result<(), Stop> {
        let Some(Some(door)) = self.doors.get(number as usize) else { return Err(Stop::Empty) };
        if let DoorState::Paused(_) = door.state {
            return Err(Stop::Empty);
        }
        let permit = self.shared.admission.admit(&door.listener.state).ok_or(Stop::Full)?;
        match self.os.accept(&door.socket) {
            Accepted::Connection(socket, peer) => {
                let listener = Arc::clone(&door.listener);
                self.accepted_on(socket, peer, listener, permit);
                Ok(())
            }
            Accepted::Skip => Ok(()),
            Accepted::Empty => Err(Stop::Empty),
            Accepted::Exhausted(_) => Err(Stop::Exhausted),
        }
    }

    fn accepted_on(&mut self, socket: O::Socket, peer: Option<SocketAddr>, listener: Arc<Listener>, permit: Permit) {
        listener.state.counters[self.index].0.accepted.add(1);
        let incoming = Incoming { socket, peer, listener, permit, accepted: self.now };
        if self.flows.len() < self.keep_below {
            self.admit(incoming);
        } else {
            self.surplus.push(incoming);
        }
    }

    /// Resumes what paused long enough, and closes what has served its queue.
    fn tend_doors(&mut self) {
        for number in 0..self.doors.len() {
            let Some(door) = &mut self.doors[number] else { continue };
            match door.state {
                DoorState::Paused(until) if until <= self.now => {
                    let token = Token::special(Side::Listener, number as u32);
                    if self.os.watch_listener(&door.socket, token, door.shared).is_ok() {
                        door.state = DoorState::Open;
                        self.shared.counters[self.index].0.accept_paused_now.set(0);
                    } else {
                        door.state = DoorState::Paused(self.now + PAUSE_US);
                    }
                }
                DoorState::Closing(until) if until <= self.now => {
                    self.accept(number as u32);
                    if let Some(door) = self.doors[number].take() {
                        self.os.unwatch_listener(&door.socket);
                    }
                }
                _ => {}
            }
        }
    }

    fn settle(&mut self) {
        self.flows.settle();
        let (connections, pipes) = (self.flows.len(), self.pipes.count());
        let counters = &self.shared.counters[self.index].0;
        counters.connections.set(connections as u64);
        counters.pipes.set(pipes as u64);
        if self.journal.due(self.now / 1_000).is_some_and(|due_ms| due_ms <= self.now / 1_000) {
            self.flush();
        }
        let took = self.os.now() - self.now;
        if took > STUCK_US {
            self.counters().stuck.add(1);
            self.notice(LogLevel::Warn, &format!("worker {} was busy for {} ms in one turn", self.index, took / 1_000));
        }
    }

    fn notice(&mut self, level: LogLevel, message: &str) {
        let dropped = self.journal.push(Record::Notice(Notice { level, message: message.to_owned() }));
        self.counters().log_dropped.add(dropped as u64);
    }

    fn split(&mut self, token: Token) -> (&mut Slab<Flow<O>>, Step<'_, O>) {
        let tools = Tools { os: &mut self.os, pipes: &mut self.pipes, scratch: &mut self.scratch, spliced: 0 };
        let step = Step {
            tools,
            now: self.now,
            token,
            worker: self.index,
            current: &self.shared.current,
            counters: &self.shared.counters[self.index].0,
            spare: &mut self.spare,
        };
        (&mut self.flows, step)
    }
}

/// Why accepting stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Batch,
    Empty,
    Full,
    Exhausted,
}

struct Rows<'a, O: Os>(&'a mut Slab<Flow<O>>);

impl<O: Os> Links for Rows<'_, O> {
    fn link(&mut self, slot: u32) -> &mut Link {
        // The wheel links only rows that exist, and `end` takes them off before they go.
        &mut self.0.at(slot).expect("a linked row exists").link
    }
}
