//! An imitation of the kernel's sockets at their stingiest.
//!
//! Every event tells either all that is so at that moment, as the kernel does, or only what has changed since the last
//! one, which is the least that edge-triggered epoll may do. What a peer sends arrives when it likes, also in the
//! middle of a step. It imitates classes of answers, not TCP: the conformance test holds it against real sockets.
//! Invariant: an answer depends on the seed and the calls alone, and a promise the code under test breaks is noted.

mod calls;
mod remote;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use super::socket::{Mask, SimSocket};
use crate::config::Address;
use crate::fault::Fault;
use crate::random::Random;
use crate::splicer::os::{Event, Micros, Token};

/// A turn with more calls than this never ends.
const CALLS_MAX: u64 = 100_000;

/// What a new socket may have room for beyond the least.
const ROOM_MORE: usize = 60_000;

/// Accepts of one turn; a worker that accepts on and on starves its connections.
const ACCEPTS_MAX: u32 = 20;

/// A socket's number.
pub type Id = u32;

/// A call that the trace tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traced {
    /// A connection was accepted.
    Accept,
    /// This socket was read.
    Read(Id),
}

/// The imitation.
#[derive(Debug)]
pub struct Kernel {
    /// The time.
    pub now: Micros,
    /// What is random here.
    pub random: Random,
    /// How often a call that may fail does, in 1/1024.
    pub failures: u32,
    /// A script plays: no events for no reason, no shortage of memory, and asking in vain is allowed.
    pub scripted: bool,
    /// The next `recv` panics.
    pub panic_next: bool,
    /// Broken promises of the code under test.
    pub violations: Vec<String>,
    /// Connects without an answer yet.
    pub connecting: Vec<(Id, Address)>,
    /// Connects that fail at once.
    pub hopeless: Vec<(Address, Fault)>,
    /// Accepted sockets that were closed since the oracle last looked.
    pub ended: Vec<Id>,
    /// Calls answered.
    pub calls: u64,
    /// Bytes that a new socket has room for, at least.
    pub room_min: usize,
    /// Pipes that exist.
    pub(super) pipes: usize,
    /// Those of them that hold bytes.
    pub(super) filled: usize,
    /// Those of them that have grown.
    pub grown: usize,
    /// Accepts and reads, in order, if they are wanted.
    pub trace: Option<Vec<Traced>>,
    /// Accepts of a turn.
    accepts: (u64, u32),
    pub(super) queue: VecDeque<(Id, SocketAddr)>,
    /// Processes that watch the listener.
    pub(super) listeners: BTreeMap<usize, Token>,
    sockets: Vec<SimSocket>,
    /// Sockets that are not closed.
    open: Vec<Id>,
    /// Clients by their process and their connection's token.
    clients: BTreeMap<(usize, u64), Id>,
    turn: u64,
    calls_before: u64,
}

impl Kernel {
    /// An empty one.
    pub fn new(seed: u64) -> Self {
        Self {
            now: 1_000_000,
            random: Random::new(seed),
            failures: 0,
            scripted: false,
            panic_next: false,
            violations: Vec::new(),
            connecting: Vec::new(),
            hopeless: Vec::new(),
            ended: Vec::new(),
            calls: 0,
            room_min: 1,
            pipes: 0,
            filled: 0,
            grown: 0,
            trace: None,
            accepts: (0, 0),
            queue: VecDeque::new(),
            listeners: BTreeMap::new(),
            sockets: Vec::new(),
            open: Vec::new(),
            clients: BTreeMap::new(),
            turn: 0,
            calls_before: 0,
        }
    }

    /// A socket that was made.
    pub fn socket(&self, id: Id) -> &SimSocket {
        &self.sockets[id as usize]
    }

    /// Sockets and pipes that the code under test still owns.
    pub fn owned(&self) -> (usize, usize) {
        (self.open.len() - self.queue.len(), self.pipes)
    }

    /// The turn of a worker begins, or of whatever calls it.
    pub fn next_turn(&mut self) {
        (self.turn, self.calls_before) = (self.turn + 1, self.calls);
    }

    /// Some of what has happened since to what this process watches, at least one thing if anything has.
    pub fn events(&mut self, process: usize) -> Vec<Event> {
        self.next_turn();
        let mut events = Vec::new();
        let spurious = !self.scripted && self.random.one_in(16);
        for hurry in [false, true] {
            for at in 0..self.open.len() {
                let dice = self.random.number();
                let socket = &mut self.sockets[self.open[at] as usize];
                if socket.token.is_some() && socket.watcher != process {
                    continue;
                }
                if dice & 1 == 0 || hurry {
                    socket.deliver(dice & 6 != 0 || hurry);
                }
                let Some(token) = socket.token else { continue };
                if spurious && socket.connected && dice & 0x38 == 0 {
                    socket.pending.add(if dice & 0x40 == 0 { Mask::READABLE } else { Mask::WOKEN });
                }
                if socket.pending != Mask::NONE && (dice & 0x80 == 0 || hurry) {
                    events.extend(socket.tell(dice & 0x100 == 0, self.now).map(|mask| mask.event(token)));
                }
            }
            if !events.is_empty() {
                break;
            }
        }
        if let Some(token) = self.listeners.get(&process).filter(|_| !self.queue.is_empty()) {
            events.push(Mask::READABLE.event(*token));
        }
        self.random.shuffle(&mut events);
        events
    }

    /// Whether `events` would have something to tell.
    pub fn restless(&self) -> bool {
        let told =
            |socket: &SimSocket| socket.token.is_some() && (socket.pending != Mask::NONE || socket.undelivered());
        (!self.listeners.is_empty() && !self.queue.is_empty()) || self.open.iter().any(|id| told(self.socket(*id)))
    }

    /// A socket with bytes that were reported and not read, although the other side has room for them.
    pub fn neglected(&self) -> Option<Id> {
        let waits = |id: &Id| {
            let socket = self.socket(*id);
            let partner = socket.partner.map(|id| self.socket(id)).filter(|partner| partner.established_at.is_some());
            let told = socket.delivered > 0 && socket.pending == Mask::NONE && socket.token.is_some();
            told && partner.is_some_and(SimSocket::is_ready)
        };
        self.open.iter().copied().find(waits)
    }

    /// A watched socket that was reset and is still open.
    pub fn unnoticed_reset(&self) -> Option<Id> {
        self.open.iter().copied().find(|id| self.socket(*id).gone && self.socket(*id).token.is_some())
    }

    /// A new socket.
    pub(super) fn make(&mut self, connected: bool) -> Id {
        let id = self.sockets.len() as Id;
        let (room, tells_late) = (self.room_min + self.random.below(ROOM_MORE), self.random.one_in(2));
        self.sockets.push(SimSocket { connected, room, tells_late, ..SimSocket::default() });
        self.open.push(id);
        id
    }

    /// A call under way: now and then something arrives in the middle of a step.
    pub(super) fn call(&mut self, id: Id) -> &mut SimSocket {
        self.count();
        let dice = self.random.number();
        let socket = &mut self.sockets[id as usize];
        if dice.is_multiple_of(8) {
            socket.deliver(dice & 24 != 0);
        }
        socket
    }

    /// Bytes under way that a reset overtakes: often none.
    fn lost(&mut self) -> usize {
        if self.random.one_in(2) { 0 } else { self.random.number() as usize }
    }

    pub(super) fn count(&mut self) {
        self.calls += 1;
        assert!(self.calls - self.calls_before < CALLS_MAX, "a turn that never ends");
    }

    pub(super) fn fails(&mut self) -> bool {
        self.failures > 0 && self.random.below(1024) < self.failures as usize
    }
}
