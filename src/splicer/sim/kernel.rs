//! An imitation of the kernel's sockets at their stingiest.
//!
//! Every event tells either all that is so at that moment, as the kernel does, or only what has changed since the last
//! one, which is the least that edge-triggered epoll may do. What a peer sends arrives when it likes, also in the
//! middle of a step. It imitates classes of answers, not TCP: the conformance test holds it against real sockets.
//! Invariant: an answer depends on the seed and the calls alone, and a promise the code under test breaks is noted.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use super::bytes::Bytes;
use super::random::Random;
use super::socket::{Closed, Mask, SimSocket, Taken};
use crate::config::Address;
use crate::splicer::os::{Broken, Event, Io, Micros};
use crate::splicer::slab::{Side, Token};

/// A turn with more calls than this never ends.
const CALLS_MAX: u64 = 100_000;

/// Reads of one socket in one turn; one that reads on and on starves others.
const READS_MAX: u32 = 20;

/// What a new socket may have room for beyond the least.
const ROOM_MORE: usize = 60_000;

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
    /// A script plays: no events for no reason, no shortage of memory, and asking in vain is allowed.
    pub scripted: bool,
    /// The next `recv` panics.
    pub panic_next: bool,
    /// Broken promises of the code under test.
    pub violations: Vec<String>,
    /// Connects that nobody has answered.
    pub connecting: Vec<(Id, Address)>,
    /// Connects that fail at once.
    pub hopeless: Vec<(Address, Broken)>,
    /// Accepted sockets that were closed, until somebody takes note.
    pub ended: Vec<Id>,
    /// Calls answered.
    pub calls: u64,
    /// Bytes that a new socket has room for, at least.
    pub room_min: usize,
    /// Pipes that exist.
    pub(super) pipes: usize,
    /// Those of them that hold bytes.
    pub(super) filled: usize,
    pub(super) queue: VecDeque<(Id, SocketAddr)>,
    pub(super) listener: Option<Token>,
    sockets: Vec<SimSocket>,
    /// Sockets that are not closed.
    open: Vec<Id>,
    /// Clients by their connection's token.
    clients: BTreeMap<u64, Id>,
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
            queue: VecDeque::new(),
            listener: None,
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

    /// A client connects: its socket waits to be accepted.
    pub fn dial(&mut self, from: SocketAddr) -> Id {
        let id = self.make(true);
        self.queue.push_back((id, from));
        id
    }

    /// Answers a connect.
    pub fn answer(&mut self, id: Id, answer: Result<(), Broken>) {
        let socket = &mut self.sockets[id as usize];
        match answer {
            Ok(()) => {
                socket.connected = true;
                socket.pending.add(Mask::WRITABLE);
            }
            Err(why) => socket.broken(why),
        }
    }

    /// The other end sends; as much is taken as fits into the receive buffer.
    pub fn send(&mut self, id: Id, bytes: &[u8], buffer: usize) -> usize {
        let lost = self.lost();
        let socket = &mut self.sockets[id as usize];
        if socket.gone {
            return bytes.len();
        }
        if socket.closed.is_some() {
            // Nobody is there any more to take it, which the sender learns by a reset.
            if !socket.sent.is_empty() {
                socket.closed = Some(Closed::Reset);
                socket.lose(lost);
            }
            return bytes.len();
        }
        let n = bytes.len().min(buffer.saturating_sub(socket.coming.len()));
        socket.coming.push(&bytes[..n]);
        n
    }

    /// The other end sends an urgent byte, which is not part of the stream. One at a time: a second would make the
    /// first an ordinary byte.
    pub fn send_urgent(&mut self, id: Id) {
        let socket = &mut self.sockets[id as usize];
        if socket.urgent_at.is_none() && !socket.end_coming && !socket.gone {
            socket.urgent_at = Some(socket.coming.len());
        }
    }

    /// The other end finishes.
    pub fn finish(&mut self, id: Id) {
        self.sockets[id as usize].end_coming = true;
    }

    /// The other end resets, or is found to be gone.
    pub fn abort(&mut self, id: Id, why: Broken) {
        let careless = self.random.one_in(2);
        let socket = &mut self.sockets[id as usize];
        // After both ends nothing is left to be reset, once the last byte was acknowledged.
        let over = socket.end_delivered && socket.end_sent && (socket.sent.is_empty() || careless);
        if !socket.gone && !over {
            socket.reset_coming = Some(why);
        }
    }

    /// The other end closes: with bytes unread, that is a reset.
    pub fn leave(&mut self, id: Id) {
        if self.sockets[id as usize].sent.is_empty() {
            self.sockets[id as usize].peer_left = true;
            self.finish(id);
        } else {
            self.abort(id, Broken::Reset);
        }
    }

    /// The other end reads.
    pub fn take(&mut self, id: Id, most: usize, into: &mut Vec<u8>) -> Taken {
        into.clear();
        let socket = &mut self.sockets[id as usize];
        if socket.sent.is_empty() {
            return match socket.closed {
                _ if socket.end_sent => Taken::End,
                Some(Closed::Cleanly) => Taken::End,
                Some(Closed::Reset) => Taken::Reset,
                None => Taken::Nothing,
            };
        }
        let n = most.min(socket.sent.len());
        into.extend_from_slice(socket.sent.front(n));
        socket.sent.skip(n);
        if socket.wants_room && socket.has_room() {
            socket.wants_room = false;
            socket.pending.add(Mask::WRITABLE);
        }
        Taken::Bytes(n)
    }

    /// The other end is done with a socket that nobody has accepted.
    pub fn let_go(&mut self, id: Id) {
        if let Some(at) = self.queue.iter().position(|(queued, _)| *queued == id) {
            self.queue.remove(at);
            self.open.retain(|open| *open != id);
        }
    }

    /// What the other end did arrives.
    pub fn settle(&mut self, id: Id) {
        self.sockets[id as usize].deliver(true);
    }

    /// Bytes on their way to the code under test or not read by it, and bytes sent and not taken.
    pub fn in_flight(&self, id: Id) -> (usize, usize) {
        (self.socket(id).coming.len(), self.socket(id).sent.len())
    }

    /// Sockets and pipes that the code under test still owns.
    pub fn owned(&self) -> (usize, usize) {
        (self.open.len() - self.queue.len(), self.pipes)
    }

    /// Some of what has happened since, at least one thing if anything has.
    pub fn events(&mut self) -> Vec<Event> {
        (self.turn, self.calls_before) = (self.turn + 1, self.calls);
        let mut events = Vec::new();
        let spurious = !self.scripted && self.random.one_in(16);
        for hurry in [false, true] {
            for at in 0..self.open.len() {
                let dice = self.random.number();
                let socket = &mut self.sockets[self.open[at] as usize];
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
        if let Some(token) = self.listener.filter(|_| !self.queue.is_empty()) {
            events.push(Mask::READABLE.event(token));
        }
        self.random.shuffle(&mut events);
        events
    }

    /// Whether `events` would have something to tell.
    pub fn restless(&self) -> bool {
        let told =
            |socket: &SimSocket| socket.token.is_some() && (socket.pending != Mask::NONE || socket.undelivered());
        (self.listener.is_some() && !self.queue.is_empty()) || self.open.iter().any(|id| told(self.socket(*id)))
    }

    /// A socket that was told to have bytes, whose reader has room for them and waits for nothing.
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

    /// A socket that begins to connect.
    pub(super) fn connect(&mut self, to: &Address) -> Id {
        let id = self.make(false);
        self.sockets[id as usize].asked_at = Some(self.now);
        self.connecting.push((id, to.clone()));
        id
    }

    /// The code under test closes a socket.
    pub(super) fn close(&mut self, id: Id, how: Closed) {
        let lost = self.lost();
        let socket = &mut self.sockets[id as usize];
        if socket.closed.is_some() {
            return;
        }
        // Closing with unread bytes tells the other end so (RFC 1122 §4.2.2.13).
        let unread = !socket.coming.is_empty() && !socket.gone;
        socket.closed = Some(if unread { Closed::Reset } else { how });
        socket.token = None;
        if socket.closed == Some(Closed::Reset) {
            socket.lose(lost);
        }
        socket.coming = Bytes::default();
        if socket.accepted_at.is_some() {
            self.ended.push(id);
        }
        self.open.retain(|open| *open != id);
        self.connecting.retain(|(connecting, _)| *connecting != id);
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

    /// Takes up to `most` bytes from a socket.
    pub(super) fn read(&mut self, id: Id, most: usize, passes_urgent: bool, into: impl FnOnce(&[u8])) -> Io {
        let (now, turn, scripted) = (self.now, self.turn, self.scripted);
        let socket = self.call(id);
        let n = most.min(socket.readable(passes_urgent));
        if n > 0 {
            socket.read(n, into);
            socket.moved_at = now;
            let reads = if socket.reads.0 == turn { socket.reads.1 + 1 } else { 1 };
            socket.reads = (turn, reads);
            if reads > READS_MAX {
                self.violations.push(format!("socket {id}: read {reads} times in one turn"));
            }
            return Io::Moved(n);
        }
        // The end comes before the error: reading never shows a reset that followed it.
        if socket.end_delivered && socket.delivered == 0 {
            socket.end_read.get_or_insert(now);
            return Io::End;
        }
        if let Some(why) = socket.error.take() {
            return Io::Broken(why);
        }
        if socket.gone && socket.delivered == 0 {
            return Io::End;
        }
        if std::mem::replace(&mut socket.refused_read, true) && !scripted {
            self.violations.push(format!("socket {id}: read again though nothing was told"));
        }
        Io::Later
    }

    /// Gives bytes to a socket.
    pub(super) fn write(&mut self, id: Id, bytes: &[u8]) -> Io {
        let (now, scripted, short_of_memory) = (self.now, self.scripted, self.random.one_in(8) && !self.scripted);
        let socket = self.call(id);
        if socket.end_sent {
            self.violations.push(format!("socket {id}: sent after shutdown"));
            return Io::Broken(Broken::Reset);
        }
        if let Some(why) = socket.error.take() {
            return Io::Broken(why);
        }
        if socket.gone {
            return Io::Broken(Broken::Reset);
        }
        if socket.peer_left && socket.connected {
            socket.reset_coming = Some(Broken::Reset);
            socket.moved_at = now;
            return Io::Moved(bytes.len());
        }
        let mut n = if socket.connected { bytes.len().min(socket.room.saturating_sub(socket.sent.len())) } else { 0 };
        if n > 1 && short_of_memory {
            // What room is there is told at once.
            n /= 2;
        }
        socket.sent.push(&bytes[..n]);
        if n < bytes.len() && socket.connected {
            let full = socket.sent.len() >= socket.room;
            socket.wants_room |= full;
            socket.pending.add(Mask::WRITABLE.when(!full));
        }
        if n > 0 {
            socket.moved_at = now;
            return Io::Moved(n);
        }
        if std::mem::replace(&mut socket.refused_write, true) && !scripted {
            self.violations.push(format!("socket {id}: sent again though no room was told"));
        }
        Io::Later
    }

    /// Finishes sending.
    pub(super) fn shutdown(&mut self, id: Id) {
        let socket = self.call(id);
        // This wakes whoever watches the socket.
        socket.pending.add(Mask::WOKEN);
        if std::mem::replace(&mut socket.end_sent, true) {
            self.violations.push(format!("socket {id}: shut down twice"));
        }
    }

    /// Takes the pending error.
    pub(super) fn take_error(&mut self, id: Id) -> Option<Broken> {
        self.call(id).error.take()
    }

    /// Watches a socket; what is there already is told.
    pub(super) fn watch(&mut self, id: Id, token: Token) {
        let now = self.now;
        let connection = token.with_side(Side::Client).to_bits();
        let partner = match token.side() {
            Side::Client => self.clients.insert(connection, id).filter(|_| false),
            _ => self.clients.get(&connection).copied(),
        };
        if let Some(partner) = partner {
            let client = &mut self.sockets[partner as usize];
            client.partner = Some(id);
            client.first_asked_at.get_or_insert(now);
        }
        let socket = self.call(id);
        socket.token = Some(token);
        socket.partner = partner;
        socket.pending = socket.level();
        socket.wants_room |= socket.connected && !socket.has_room();
    }

    /// Ends that.
    pub(super) fn unwatch(&mut self, id: Id) {
        self.call(id).token = None;
    }

    /// Switches keepalive on.
    pub(super) fn keep_alive(&mut self, id: Id) {
        self.call(id).kept_alive = true;
    }

    /// A connection is accepted.
    pub(super) fn accept(&mut self) -> Option<(Id, SocketAddr)> {
        let (id, from) = self.queue.pop_front()?;
        self.sockets[id as usize].accepted_at = Some(self.now);
        Some((id, from))
    }
}
