//! An imitation of the kernel's sockets and pipes at their stingiest.
//!
//! Readable is told only on arrival, writable only after a refused or short send, the end once; pipes run out of
//! slots before they run out of bytes; anything may fail. It imitates classes of answers, not TCP: the conformance
//! test holds it against real sockets. Invariant: whatever it hands out reports when it is dropped, so that a leak or
//! a use after close shows.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use super::random::Random;
use crate::config::Address;
use crate::socket::KeepAlive;
use crate::splicer::os::{Accepted, Broken, Event, Io, Micros, Os};
use crate::splicer::slab::{Side, Token};

/// Bytes one slot of a pipe takes.
const SLOT_BYTES: usize = 4096;

/// A socket's number.
pub type Id = u32;

/// The imitation.
#[derive(Debug)]
pub struct Kernel {
    /// The time.
    pub now: Micros,
    /// What is random here.
    pub random: Random,
    /// How often a call that may fail does, in 1/1024.
    pub failures: u32,
    /// The next `recv` panics.
    pub panic_next: bool,
    /// Broken promises of the code under test.
    pub violations: Vec<String>,
    /// Connects that nobody has answered.
    pub connecting: Vec<(Id, Address)>,
    /// Calls answered.
    pub calls: u64,
    sockets: BTreeMap<Id, Socket>,
    queue: VecDeque<(Id, SocketAddr)>,
    listener: Option<Token>,
    last_id: Id,
    pipes: usize,
    pipes_peak: usize,
}

/// One socket of the code under test, and the wire to whoever is at its other end.
#[derive(Debug)]
struct Socket {
    connected: bool,
    /// Bytes that have arrived.
    arrived: VecDeque<u8>,
    /// The other end has finished; nothing arrives any more.
    end_arrived: bool,
    error: Option<Broken>,
    dead: bool,
    /// Bytes sent and not yet taken by the other end.
    sent: VecDeque<u8>,
    room: usize,
    end_sent: bool,
    /// A send was refused or short: room will be told.
    wants_room: bool,
    token: Option<Token>,
    edge: Edge,
    /// Dropped, or reset.
    closed: Option<Closed>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Edge {
    readable: bool,
    writable: bool,
    finished: bool,
    failed: bool,
}

/// How the code under test closed a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// The end follows what was sent.
    Cleanly,
    /// What was sent is lost.
    Reset,
}

/// What the other end finds when it reads.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// Bytes.
    Bytes(Vec<u8>),
    /// The end.
    End,
    /// A reset.
    Reset,
    /// Nothing yet.
    Nothing,
}

impl Kernel {
    /// An empty one.
    pub fn new(seed: u64) -> Self {
        Self {
            now: 1_000_000,
            random: Random::new(seed),
            failures: 0,
            panic_next: false,
            violations: Vec::new(),
            connecting: Vec::new(),
            calls: 0,
            sockets: BTreeMap::new(),
            queue: VecDeque::new(),
            listener: None,
            last_id: 0,
            pipes: 0,
            pipes_peak: 0,
        }
    }

    /// A client connects: its socket waits to be accepted.
    pub fn dial(&mut self, from: SocketAddr, room: usize) -> Id {
        let id = self.make(room, true);
        self.queue.push_back((id, from));
        id
    }

    /// Answers a connect.
    pub fn answer(&mut self, id: Id, answer: Result<(), Broken>) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        match answer {
            Ok(()) => socket.connected = true,
            Err(why) => {
                (socket.error, socket.dead) = (Some(why), true);
                socket.edge.failed = true;
                socket.edge.readable = true;
            }
        }
        socket.edge.writable = true;
    }

    /// The other end sends; takes as much as the receive buffer does.
    pub fn arrive(&mut self, id: Id, bytes: &[u8], buffer: usize) -> usize {
        let Some(socket) = self.sockets.get_mut(&id).filter(|socket| socket.closed.is_none() && !socket.dead) else {
            return bytes.len();
        };
        let n = bytes.len().min(buffer.saturating_sub(socket.arrived.len()));
        socket.arrived.extend(&bytes[..n]);
        socket.edge.readable |= n > 0;
        n
    }

    /// The other end finishes.
    pub fn finish(&mut self, id: Id) {
        if let Some(socket) = self.sockets.get_mut(&id).filter(|socket| !socket.dead) {
            socket.end_arrived = true;
            (socket.edge.readable, socket.edge.finished) = (true, true);
        }
    }

    /// The other end resets.
    pub fn abort(&mut self, id: Id) {
        if let Some(socket) = self.sockets.get_mut(&id).filter(|socket| !socket.dead) {
            (socket.error, socket.dead) = (Some(Broken::Reset), true);
            socket.sent.clear();
            socket.edge = Edge { readable: true, writable: true, finished: true, failed: true };
        }
        self.forget_closed(id);
    }

    /// The other end reads at most so many bytes.
    pub fn take(&mut self, id: Id, most: usize) -> Taken {
        let Some(socket) = self.sockets.get_mut(&id) else { return Taken::Nothing };
        if socket.closed == Some(Closed::Reset) || (socket.dead && socket.closed.is_some()) {
            return Taken::Reset;
        }
        if socket.sent.is_empty() {
            let ended = socket.end_sent || socket.closed == Some(Closed::Cleanly);
            return if ended { Taken::End } else { Taken::Nothing };
        }
        let n = most.min(socket.sent.len());
        let bytes = socket.sent.drain(..n).collect();
        if socket.wants_room {
            socket.wants_room = false;
            socket.edge.writable = true;
        }
        Taken::Bytes(bytes)
    }

    /// Whether the code under test has closed a socket.
    pub fn closed(&self, id: Id) -> Option<Closed> {
        self.sockets.get(&id).and_then(|socket| socket.closed)
    }

    /// Whether the code under test has finished sending, or closed.
    pub fn ended(&self, id: Id) -> bool {
        self.sockets.get(&id).is_some_and(|socket| socket.end_sent || socket.closed.is_some())
    }

    /// Whether a socket was accepted.
    pub fn accepted(&self, id: Id) -> bool {
        !self.queue.iter().any(|(queued, _)| *queued == id)
    }

    /// The other end is done with a socket: it may be forgotten once it is closed here.
    pub fn let_go(&mut self, id: Id) {
        self.queue.retain(|(queued, _)| *queued != id);
        if self.closed(id).is_some() {
            self.sockets.remove(&id);
        }
    }

    /// Bytes that have arrived and were not read, and bytes sent and not taken.
    pub fn in_flight(&self, id: Id) -> (usize, usize) {
        self.sockets.get(&id).map_or((0, 0), |socket| (socket.arrived.len(), socket.sent.len()))
    }

    /// Sockets and pipes that the code under test still owns.
    pub fn owned(&self) -> (usize, usize) {
        (self.sockets.values().filter(|socket| socket.closed.is_none()).count() - self.queue.len(), self.pipes)
    }

    /// Some of what has happened since, at least one thing if anything has.
    pub fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        let spurious = self.random.one_in(16);
        let ids: Vec<Id> = self.sockets.keys().copied().collect();
        for id in ids {
            let tell = self.random.one_in(2);
            let Some(socket) = self.sockets.get_mut(&id) else { continue };
            let Some(token) = socket.token.filter(|_| socket.closed.is_none()) else { continue };
            if socket.edge != Edge::default() && (tell || events.is_empty()) {
                let Edge { readable, writable, finished, failed } = std::mem::take(&mut socket.edge);
                events.push(Event { token, readable, writable, finished, failed });
            } else if spurious && tell && socket.connected {
                let readable = !socket.arrived.is_empty() || tell;
                events.push(Event { token, readable, writable: false, finished: false, failed: false });
            }
        }
        if let Some(token) = self.listener.filter(|_| !self.queue.is_empty()) {
            events.push(Event { token, readable: true, writable: false, finished: false, failed: false });
        }
        self.random.shuffle(&mut events);
        events
    }

    /// Whether `events` would have something to tell.
    pub fn restless(&self) -> bool {
        let told =
            |socket: &Socket| socket.token.is_some() && socket.closed.is_none() && socket.edge != Edge::default();
        (self.listener.is_some() && !self.queue.is_empty()) || self.sockets.values().any(told)
    }

    fn make(&mut self, room: usize, connected: bool) -> Id {
        self.last_id += 1;
        let socket = Socket {
            connected,
            arrived: VecDeque::new(),
            end_arrived: false,
            error: None,
            dead: false,
            sent: VecDeque::new(),
            room,
            end_sent: false,
            wants_room: false,
            token: None,
            edge: Edge::default(),
            closed: None,
        };
        self.sockets.insert(self.last_id, socket);
        self.last_id
    }

    fn close(&mut self, id: Id, how: Closed) {
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        if socket.closed.is_some() {
            return;
        }
        // Closing with unread bytes tells the other end so (RFC 1122 §4.2.2.13).
        let unread = !socket.arrived.is_empty() && !socket.dead;
        socket.closed = Some(if unread { Closed::Reset } else { how });
        if socket.closed == Some(Closed::Reset) {
            socket.sent.clear();
        }
        socket.token = None;
        self.connecting.retain(|(connecting, _)| *connecting != id);
        if !socket.connected || socket.dead {
            self.sockets.remove(&id);
        }
    }

    fn forget_closed(&mut self, id: Id) {
        if self.closed(id).is_some() {
            self.sockets.remove(&id);
        }
    }

    fn fails(&mut self) -> bool {
        self.failures > 0 && self.random.below(1024) < self.failures as usize
    }

    fn read(&mut self, id: Id, most: usize) -> Result<Vec<u8>, Io> {
        self.calls += 1;
        let Some(socket) = self.sockets.get_mut(&id) else { return Err(Io::Broken(Broken::Other)) };
        if socket.arrived.is_empty() {
            if let Some(why) = socket.error.take() {
                return Err(Io::Broken(why));
            }
            return Err(if socket.end_arrived || socket.dead { Io::End } else { Io::Later });
        }
        let n = most.min(socket.arrived.len());
        Ok(socket.arrived.drain(..n).collect())
    }

    fn write(&mut self, id: Id, bytes: &[u8]) -> Io {
        self.calls += 1;
        let stingy = self.random.one_in(8);
        let Some(socket) = self.sockets.get_mut(&id) else { return Io::Broken(Broken::Other) };
        if socket.end_sent {
            self.violations.push(format!("socket {id}: sent after shutdown"));
            return Io::Broken(Broken::Reset);
        }
        if let Some(why) = socket.error.take() {
            return Io::Broken(why);
        }
        if socket.dead {
            return Io::Broken(Broken::Reset);
        }
        if !socket.connected {
            return Io::Later;
        }
        let mut n = bytes.len().min(socket.room.saturating_sub(socket.sent.len()));
        if stingy && n > 1 {
            n /= 2;
        }
        socket.sent.extend(&bytes[..n]);
        if n < bytes.len() {
            // Room that is there already is told at once, like memory that was short for a moment.
            socket.edge.writable |= socket.sent.len() < socket.room;
            socket.wants_room |= socket.sent.len() >= socket.room;
        }
        if n == 0 { Io::Later } else { Io::Moved(n) }
    }
}

/// The code under test's way to the imitation.
#[derive(Debug, Clone)]
pub struct SimOs(pub Rc<RefCell<Kernel>>);

/// A socket handle; dropping it closes.
#[derive(Debug)]
pub struct SimSocket {
    /// Its number.
    pub id: Id,
    kernel: Rc<RefCell<Kernel>>,
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        self.kernel.borrow_mut().close(self.id, Closed::Cleanly);
    }
}

/// A pipe handle; dropping it closes.
#[derive(Debug)]
pub struct SimPipe {
    bytes: RefCell<VecDeque<u8>>,
    slots: usize,
    kernel: Rc<RefCell<Kernel>>,
}

impl Drop for SimPipe {
    fn drop(&mut self) {
        self.kernel.borrow_mut().pipes -= 1;
    }
}

impl SimOs {
    fn socket(&self, id: Id) -> SimSocket {
        SimSocket { id, kernel: Rc::clone(&self.0) }
    }
}

impl Os for SimOs {
    type Socket = SimSocket;
    type Pipe = SimPipe;
    type Listener = ();

    fn accept(&mut self, (): &()) -> Accepted<SimSocket> {
        let mut kernel = self.0.borrow_mut();
        kernel.calls += 1;
        if kernel.fails() {
            return if kernel.random.one_in(2) { Accepted::Skip } else { Accepted::Exhausted(Broken::NoDescriptor) };
        }
        match kernel.queue.pop_front() {
            None => Accepted::Empty,
            Some((id, from)) => {
                drop(kernel);
                Accepted::Connection(self.socket(id), Some(from))
            }
        }
    }

    fn recv(&mut self, socket: &SimSocket, into: &mut [u8]) -> Io {
        let mut kernel = self.0.borrow_mut();
        if std::mem::take(&mut kernel.panic_next) {
            drop(kernel);
            panic!("injected");
        }
        match kernel.read(socket.id, into.len()) {
            Ok(bytes) => {
                into[..bytes.len()].copy_from_slice(&bytes);
                Io::Moved(bytes.len())
            }
            Err(answer) => answer,
        }
    }

    fn send(&mut self, socket: &SimSocket, from: &[u8]) -> Io {
        self.0.borrow_mut().write(socket.id, from)
    }

    fn splice_in(&mut self, socket: &SimSocket, pipe: &SimPipe, most: usize) -> Io {
        let mut kernel = self.0.borrow_mut();
        if !pipe.bytes.borrow().is_empty() {
            kernel.violations.push(format!("socket {}: spliced into a pipe that still holds bytes", socket.id));
            return Io::Later;
        }
        // Small segments use a slot each, whatever they carry.
        let slot = if kernel.random.one_in(2) { 700 } else { SLOT_BYTES };
        match kernel.read(socket.id, most.min(pipe.slots * slot)) {
            Ok(bytes) => {
                pipe.bytes.borrow_mut().extend(&bytes);
                Io::Moved(bytes.len())
            }
            Err(answer) => answer,
        }
    }

    fn splice_out(&mut self, pipe: &SimPipe, socket: &SimSocket, most: usize) -> Io {
        let mut bytes = pipe.bytes.borrow_mut();
        let n = most.min(bytes.len());
        let answer = self.0.borrow_mut().write(socket.id, &bytes.make_contiguous()[..n]);
        if let Io::Moved(n) = answer {
            bytes.drain(..n);
        }
        answer
    }

    fn pipe(&mut self) -> Result<(SimPipe, usize), Broken> {
        let mut kernel = self.0.borrow_mut();
        kernel.calls += 1;
        if kernel.fails() {
            return Err(Broken::NoDescriptor);
        }
        let slots = if kernel.random.one_in(8) { 2 } else { 16 + kernel.random.below(48) };
        kernel.pipes += 1;
        kernel.pipes_peak = kernel.pipes_peak.max(kernel.pipes);
        drop(kernel);
        Ok((SimPipe { bytes: RefCell::default(), slots, kernel: Rc::clone(&self.0) }, slots * SLOT_BYTES))
    }

    fn connect(&mut self, to: &Address, _from: Option<IpAddr>) -> Result<SimSocket, Broken> {
        let mut kernel = self.0.borrow_mut();
        kernel.calls += 1;
        if kernel.fails() {
            return Err(if kernel.random.one_in(2) { Broken::NoPort } else { Broken::NoDescriptor });
        }
        let room = 64 + kernel.random.below(40_000);
        let id = kernel.make(room, false);
        kernel.connecting.push((id, to.clone()));
        drop(kernel);
        Ok(self.socket(id))
    }

    fn take_error(&mut self, socket: &SimSocket) -> Option<Broken> {
        let mut kernel = self.0.borrow_mut();
        kernel.calls += 1;
        kernel.sockets.get_mut(&socket.id)?.error.take()
    }

    fn shutdown(&mut self, socket: &SimSocket) {
        let mut kernel = self.0.borrow_mut();
        kernel.calls += 1;
        let Some(known) = kernel.sockets.get_mut(&socket.id) else { return };
        if std::mem::replace(&mut known.end_sent, true) {
            kernel.violations.push(format!("socket {}: shut down twice", socket.id));
        }
    }

    fn reset(&mut self, socket: SimSocket) {
        self.0.borrow_mut().close(socket.id, Closed::Reset);
    }

    fn watch(&mut self, socket: &SimSocket, token: Token) -> Result<(), Broken> {
        let mut kernel = self.0.borrow_mut();
        kernel.calls += 1;
        if kernel.fails() {
            return Err(Broken::NoMemory);
        }
        let Some(known) = kernel.sockets.get_mut(&socket.id) else { return Err(Broken::Other) };
        known.token = Some(token);
        // Watching tells once what is there already.
        known.edge.readable |= !known.arrived.is_empty() || known.end_arrived;
        known.edge.finished |= known.end_arrived;
        known.edge.writable |= known.connected;
        Ok(())
    }

    fn unwatch(&mut self, socket: &SimSocket) {
        if let Some(known) = self.0.borrow_mut().sockets.get_mut(&socket.id) {
            known.token = None;
        }
    }

    fn watch_listener(&mut self, (): &(), token: Token, _shared: bool) -> Result<(), Broken> {
        debug_assert_eq!(token.side(), Side::Listener);
        self.0.borrow_mut().listener = Some(token);
        Ok(())
    }

    fn unwatch_listener(&mut self, (): &()) {
        self.0.borrow_mut().listener = None;
    }

    fn refuse_new(&mut self, (): &()) {}

    fn local_address(&mut self, _socket: &SimSocket) -> Option<SocketAddr> {
        Some(SocketAddr::from(([192, 0, 2, 1], 443)))
    }

    fn keep_alive(&mut self, _socket: &SimSocket, _rules: &KeepAlive) {}

    fn now(&mut self) -> Micros {
        self.0.borrow().now
    }
}
