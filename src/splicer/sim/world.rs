//! Clients and backends at the other ends of a worker's sockets, and what must hold whatever they do.
//!
//! Knows nothing of how the worker works. Invariants it checks at every step: bytes arrive equal and in order; an end
//! arrives only after the last byte; a reset stays a reset; nothing that can move stands still; what is held is
//! bounded. At the end of a world nothing is left over.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::kernel::{Id, Kernel, SimOs, Taken};
use super::random::{Random, mix};
use crate::admission::Admission;
use crate::config::{Address, Config};
use crate::counters::Padded;
use crate::journal::JournalSender;
use crate::outcome::Ended;
use crate::snapshot::{Current, Snapshot};
use crate::splicer::os::{Broken, Micros};
use crate::splicer::worker::{Shared, Whom, Worker};

/// Held inside for one connection, both ways: a pipe or a buffer each, and what was read ahead.
const HELD_MAX: usize = 2 * 256 * 1024 + 128 * 1024;

/// Every stream begins with its number, so that whoever reads it knows whose it is.
const NAME_BYTES: usize = 8;

/// What kind of world.
#[derive(Debug, Clone)]
pub struct Nature {
    /// What the worker is configured with.
    pub config: Config,
    /// How each backend answers, in the configuration's order.
    pub backends: Vec<Answer>,
    /// Clients that will come.
    pub clients: usize,
    /// Before its stream each client sends this.
    pub greeting: Greeting,
    /// Peers reset, calls fail, time jumps, steps panic, connections are shed. Otherwise every connection must complete.
    pub hostile: bool,
}

/// How a backend answers a connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Accepts.
    Accept,
    /// Refuses.
    Refuse,
    /// Never.
    Never,
}

/// What a client sends before its stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Greeting {
    /// Nothing.
    None,
    /// A PROXY header, which the backend does not see.
    Proxy(Vec<u8>),
    /// A hello, which the backend sees unchanged.
    Hello(Vec<u8>),
}

/// Somebody at the other end of a socket.
#[derive(Debug)]
struct Peer {
    stream: u64,
    /// Sent before the stream.
    prefix: Vec<u8>,
    total: usize,
    sent: usize,
    aborts_at: Option<usize>,
    chunk: usize,
    buffer: usize,
    finished: bool,
    /// A PROXY header comes first.
    expects_header: bool,
    header: Vec<u8>,
    /// What comes before the stream that is received.
    expected_prefix: Vec<u8>,
    name: Vec<u8>,
    received: usize,
    partner: Option<Id>,
    saw_end: bool,
    saw_reset: bool,
    aborted: bool,
    stalled_until: Micros,
    is_client: bool,
    /// Finishes only after the other side has.
    waits: bool,
}

/// One world.
pub struct World {
    kernel: Rc<RefCell<Kernel>>,
    worker: Worker<SimOs>,
    current: Arc<Current>,
    admission: Arc<Admission>,
    shared: Arc<Shared>,
    nature: Nature,
    random: Random,
    peers: BTreeMap<Id, Peer>,
    to_come: usize,
    panics: u64,
    turns: usize,
}

impl World {
    /// A world in which nothing has happened.
    pub fn new(seed: u64, nature: Nature) -> Self {
        let kernel = Rc::new(RefCell::new(Kernel::new(seed)));
        let admission = Arc::new(Admission::new(usize::MAX));
        let snapshot = Snapshot::build(nature.config.clone(), None, 1, &admission);
        let listener = Arc::clone(&snapshot.listeners[0]);
        let current = Arc::new(Current::new(snapshot));
        let shared = Arc::new(Shared {
            current: Arc::clone(&current),
            admission: Arc::clone(&admission),
            counters: vec![Padded::default()].into(),
            pipes_max: 64,
        });
        let mut worker = Worker::new(0, SimOs(Rc::clone(&kernel)), Arc::clone(&shared), JournalSender::off());
        worker.open_door(0, (), listener, false);
        kernel.borrow_mut().failures = if nature.hostile { 8 } else { 0 };
        let to_come = nature.clients;
        let random = Random::new(mix(seed));
        Self {
            kernel,
            worker,
            current,
            admission,
            shared,
            nature,
            random,
            peers: BTreeMap::new(),
            to_come,
            panics: 0,
            turns: 0,
        }
    }

    /// Lives it to its end. Answers how many steps of connections there were, or what went wrong.
    pub fn run(mut self) -> Result<u64, String> {
        while !self.over() {
            self.turn()?;
            if self.turns > 400_000 {
                let (wake_at, restless) = (self.worker.wake_at(), self.kernel.borrow().restless());
                let now = self.kernel.borrow().now;
                return Err(format!(
                    "not over after {} turns, at {now}, next {wake_at:?}, restless {restless}: {:?}",
                    self.turns,
                    self.waiting()
                ));
            }
        }
        self.bring_to_end()?;
        Ok(self.shared.counters[0].0.steps.value())
    }

    fn turn(&mut self) -> Result<(), String> {
        self.turns += 1;
        if self.to_come > 0 && self.random.one_in(3) {
            self.to_come -= 1;
            self.new_client();
        }
        self.answer_connects();
        let mut acted = false;
        let ids: Vec<Id> = self.peers.keys().copied().collect();
        for _ in 0..ids.len().min(4) {
            let id = ids[self.random.below(ids.len())];
            acted |= self.act(id)?;
        }
        if self.nature.hostile {
            self.trouble();
        } else if self.random.one_in(100) {
            self.quiet();
        }
        let events = self.kernel.borrow_mut().events();
        self.worker.turn(&events);
        self.check()?;
        self.pass_time(acted, &ids)
    }

    fn waiting(&self) -> Vec<(&Id, &Peer)> {
        let done = |peer: &Peer| peer.aborted || peer.saw_reset || (peer.saw_end && peer.finished);
        self.peers.iter().filter(|(_, peer)| !done(peer)).collect()
    }

    fn over(&self) -> bool {
        self.to_come == 0 && self.waiting().is_empty() && self.kernel.borrow().connecting.is_empty()
    }

    fn new_client(&mut self) {
        let from = SocketAddr::from(([10, 0, self.random.below(4) as u8, self.random.below(200) as u8], 40_000));
        let room = 64 + self.random.below(60_000);
        let id = self.kernel.borrow_mut().dial(from, room);
        let prefix = match &self.nature.greeting {
            Greeting::None => Vec::new(),
            Greeting::Proxy(bytes) | Greeting::Hello(bytes) => bytes.clone(),
        };
        let mut peer = self.new_peer(u64::from(id), true);
        peer.prefix = prefix;
        self.peers.insert(id, peer);
    }

    fn new_peer(&mut self, stream: u64, is_client: bool) -> Peer {
        let random = &mut self.random;
        let total = NAME_BYTES
            + match random.below(8) {
                0 => 0,
                1 | 2 => random.below(600_000),
                3 => random.below(80_000),
                _ => random.below(300),
            };
        let chunk = 1 + [20, 2_000, 200_000][random.below(3)];
        let total = total.min(chunk * 200);
        let buffer = 1 + [500, 40_000, 200_000][random.below(3)];
        let aborts = self.nature.hostile && random.one_in(4);
        Peer {
            stream,
            prefix: Vec::new(),
            total,
            sent: 0,
            aborts_at: aborts.then(|| random.below(total + 1)),
            chunk,
            buffer,
            finished: false,
            expects_header: false,
            header: Vec::new(),
            expected_prefix: Vec::new(),
            name: Vec::new(),
            received: 0,
            partner: None,
            saw_end: false,
            saw_reset: false,
            aborted: false,
            stalled_until: 0,
            is_client,
            waits: !is_client && random.one_in(3),
        }
    }

    fn answer_connects(&mut self) {
        let connecting = self.kernel.borrow().connecting.clone();
        for (id, address) in connecting {
            if self.random.one_in(2) {
                continue;
            }
            self.kernel.borrow_mut().connecting.retain(|(known, _)| *known != id);
            match self.nature.backends[backend_index(&address)] {
                Answer::Never => {}
                Answer::Refuse => self.kernel.borrow_mut().answer(id, Err(Broken::Refused)),
                Answer::Accept => {
                    let mut peer = self.new_peer(u64::from(id), false);
                    if let Greeting::Hello(hello) = &self.nature.greeting {
                        peer.expected_prefix = hello.clone();
                    }
                    peer.expects_header = self.nature.config.pools[0].proxy.is_some();
                    self.peers.insert(id, peer);
                    self.kernel.borrow_mut().answer(id, Ok(()));
                }
            }
        }
    }

    /// One thing that one peer does. Whether it did anything.
    fn act(&mut self, id: Id) -> Result<bool, String> {
        let now = self.kernel.borrow().now;
        let Some(peer) = self.peers.get_mut(&id) else { return Ok(false) };
        if peer.stalled_until > now || peer.aborted || peer.saw_reset {
            return Ok(false);
        }
        if self.random.one_in(40) {
            let longest = if self.nature.hostile { 3_000_000 } else { 300_000 };
            peer.stalled_until = now + self.random.below(longest) as u64;
            return Ok(true);
        }
        if self.random.one_in(2) { Ok(self.speak(id)) } else { self.hear(id) }
    }

    fn speak(&mut self, id: Id) -> bool {
        let Some(peer) = self.peers.get_mut(&id) else { return false };
        let mut kernel = self.kernel.borrow_mut();
        let goal = peer.prefix.len() + peer.total;
        if peer.aborts_at.is_some_and(|at| peer.sent >= at) {
            peer.aborted = true;
            kernel.abort(id);
            return true;
        }
        if peer.finished {
            return false;
        }
        if peer.sent == goal && peer.waits && !peer.saw_end && kernel.closed(id).is_none() {
            return false;
        }
        if peer.sent == goal || kernel.closed(id).is_some() {
            peer.finished = true;
            kernel.finish(id);
            return true;
        }
        let n = (1 + self.random.below(peer.chunk)).min(goal - peer.sent);
        let bytes: Vec<u8> = (peer.sent..peer.sent + n).map(|at| said(&peer.prefix, peer.stream, at)).collect();
        let taken = kernel.arrive(id, &bytes, peer.buffer);
        peer.sent += taken;
        taken > 0
    }

    fn hear(&mut self, id: Id) -> Result<bool, String> {
        let most = 1 + self.random.below(100_000);
        let taken = self.kernel.borrow_mut().take(id, most);
        let Some(peer) = self.peers.get_mut(&id) else { return Ok(false) };
        match taken {
            Taken::Nothing => return Ok(false),
            Taken::Bytes(bytes) => self.heard(id, &bytes)?,
            Taken::End => {
                if std::mem::replace(&mut peer.saw_end, true) {
                    return Ok(false);
                }
                self.heard_end(id)?;
            }
            Taken::Reset => {
                peer.saw_reset = true;
                self.heard_reset(id)?;
            }
        }
        Ok(true)
    }

    fn heard(&mut self, id: Id, bytes: &[u8]) -> Result<(), String> {
        let Some(peer) = self.peers.get_mut(&id) else { return Ok(()) };
        for byte in bytes {
            if peer.expects_header {
                peer.header.push(*byte);
                peer.expects_header = *byte != b'\n';
                if !peer.expects_header && !peer.header.starts_with(b"PROXY TCP4 10.0.") {
                    return Err(format!("peer {id}: the PROXY header is wrong"));
                }
                continue;
            }
            let at = peer.received;
            peer.received += 1;
            if at < peer.expected_prefix.len() {
                if *byte != peer.expected_prefix[at] {
                    return Err(format!("peer {id}: byte {at} of the hello was changed"));
                }
                continue;
            }
            let at = at - peer.expected_prefix.len();
            if at < NAME_BYTES {
                peer.name.push(*byte);
                if peer.name.len() == NAME_BYTES {
                    let name = u64::from_le_bytes(peer.name[..].try_into().unwrap_or_default());
                    peer.partner = Some(name as Id);
                }
            } else if *byte != said(&[], peer.partner.unwrap_or(0).into(), at) {
                return Err(format!("peer {id}: byte {at} is not what was sent"));
            }
        }
        let (partner, is_client) = (peer.partner, peer.is_client);
        if let Some(partner) = partner {
            let Some(other) = self.peers.get_mut(&partner) else { return Err(format!("peer {id}: bytes of nobody")) };
            if other.is_client == is_client || other.partner.is_some_and(|back| back != id) {
                return Err(format!("peer {id}: bytes of a stranger, {partner}"));
            }
            other.partner = Some(id);
        }
        Ok(())
    }

    fn heard_end(&mut self, id: Id) -> Result<(), String> {
        let Some(peer) = self.peers.get(&id) else { return Ok(()) };
        let Some(other) = peer.partner.and_then(|partner| self.peers.get(&partner)) else { return Ok(()) };
        let streamed = peer.received - peer.expected_prefix.len().min(peer.received);
        if !other.finished || streamed != other.total {
            return Err(format!("peer {id}: an end after {streamed} of {} bytes", other.total));
        }
        Ok(())
    }

    fn heard_reset(&self, id: Id) -> Result<(), String> {
        let partner = self.peers.get(&id).and_then(|peer| self.peers.get(&peer.partner?));
        match partner {
            Some(other) if !self.nature.hostile && !other.aborted => Err(format!("peer {id}: reset for no reason")),
            _ => Ok(()),
        }
    }

    /// Nobody says anything for longer than a half-closed connection may be quiet; none is half-closed yet.
    fn quiet(&mut self) {
        let mut peers = self.peers.values().filter(|peer| !(peer.finished && peer.saw_end));
        let settled = peers.all(|peer| peer.partner.is_some() && !peer.finished);
        if settled && self.kernel.borrow().connecting.is_empty() {
            self.kernel.borrow_mut().now += 30_000_000;
        }
    }

    /// Things that go wrong in hostile worlds.
    fn trouble(&mut self) {
        match self.random.below(3_000) {
            0 => self.kernel.borrow_mut().now += self.random.below(4_000_000) as u64,
            1 => {
                self.kernel.borrow_mut().panic_next = true;
                self.panics += 1;
            }
            2 => {
                self.worker.shed(&Whom::All, 1, Ended::Stopped);
            }
            3 | 4 => {
                let old = self.current.load_full();
                let next = Snapshot::build(self.nature.config.clone(), Some(&old), 1, &self.admission);
                self.worker.rebind_door(0, Arc::clone(&next.listeners[0]));
                self.current.swap(Arc::new(next));
            }
            _ => {}
        }
    }

    fn check(&mut self) -> Result<(), String> {
        let kernel = self.kernel.borrow();
        if let Some(violation) = kernel.violations.first() {
            return Err(violation.clone());
        }
        let panicked = self.shared.counters[0].0.panics.value();
        if panicked > self.panics {
            return Err("a step panicked".into());
        }
        let alive = self.current.generations_alive();
        if alive > 1 {
            return Err(format!("{alive} snapshots are alive"));
        }
        for (id, peer) in &self.peers {
            let Some(other) = peer.partner.and_then(|partner| Some((partner, self.peers.get(&partner)?))) else {
                continue;
            };
            let consumed = peer.sent.saturating_sub(kernel.in_flight(*id).0);
            let delivered = other.1.received + kernel.in_flight(other.0).1;
            if !peer.aborted && !other.1.aborted && consumed > delivered + HELD_MAX {
                return Err(format!("peer {id}: {} bytes are held", consumed - delivered));
            }
        }
        Ok(())
    }

    /// Time passes a little; when all stand still, until somebody can move. Nobody ever: a stall.
    fn pass_time(&mut self, acted: bool, ids: &[Id]) -> Result<(), String> {
        let now = self.kernel.borrow().now;
        let mut next = now + self.random.below(200) as u64;
        if !acted && !self.kernel.borrow().restless() && self.kernel.borrow().connecting.is_empty() {
            let mut awake = false;
            for id in ids {
                awake |= self.may_act(*id, now);
            }
            let stalls = self.peers.values().map(|peer| peer.stalled_until).filter(|until| *until > now).min();
            if !awake && self.worker.wake_at() != Some(0) && self.to_come == 0 {
                match [self.worker.wake_at(), stalls].into_iter().flatten().min() {
                    Some(at) => next = next.max(at),
                    None if !self.over() => return Err(format!("everybody waits for ever: {:?}", self.waiting())),
                    None => {}
                }
            }
        }
        self.kernel.borrow_mut().now = next;
        Ok(())
    }

    fn may_act(&self, id: Id, now: Micros) -> bool {
        let (Some(peer), kernel) = (self.peers.get(&id), self.kernel.borrow()) else { return false };
        if peer.stalled_until > now || peer.aborted || peer.saw_reset {
            return false;
        }
        let (arrived, sent) = kernel.in_flight(id);
        let said_all = peer.sent == peer.prefix.len() + peer.total;
        let may_finish = said_all && (!peer.waits || peer.saw_end);
        let speaks = !peer.finished && (may_finish || (!said_all && arrived < peer.buffer));
        let closed = kernel.ended(id) && !peer.saw_end || kernel.closed(id).is_some() && !peer.finished;
        speaks || sent > 0 || closed || peer.aborts_at.is_some_and(|at| peer.sent >= at)
    }

    /// Everybody leaves; nothing may be left over.
    fn bring_to_end(&mut self) -> Result<(), String> {
        if !self.nature.hostile {
            self.all_complete()?;
        }
        for id in self.peers.keys() {
            self.kernel.borrow_mut().let_go(*id);
        }
        for _ in 0..10_000 {
            if self.worker.connections() == 0 {
                break;
            }
            let next = self.worker.wake_at().unwrap_or(0);
            let mut kernel = self.kernel.borrow_mut();
            kernel.now = kernel.now.max(next) + 1;
            let events = kernel.events();
            drop(kernel);
            self.worker.turn(&events);
        }
        self.worker.trim();
        let pool_leases: u64 = self.current.load().pools.iter().map(|pool| pool.leases()).sum();
        let left = (self.worker.connections(), self.kernel.borrow().owned(), self.admission.open(), pool_leases);
        if left != (0, (0, 0), 0, 0) {
            return Err(format!("left over: connections, (sockets, pipes), permits, leases: {left:?}"));
        }
        Ok(())
    }

    fn all_complete(&self) -> Result<(), String> {
        for (id, client) in self.peers.iter().filter(|(_, peer)| peer.is_client) {
            let Some(backend) = client.partner.and_then(|partner| self.peers.get(&partner)) else {
                return Err(format!("client {id}: never reached a backend"));
            };
            let prefix = backend.expected_prefix.len();
            if client.received != backend.total || backend.received != prefix + client.total {
                return Err(format!("client {id}: not everything arrived"));
            }
            if client.saw_reset || backend.saw_reset {
                return Err(format!("client {id}: reset at the end"));
            }
        }
        Ok(())
    }
}

/// Byte `at` of what a peer says: its prefix, its stream's number, and a pattern of its own.
fn said(prefix: &[u8], stream: u64, at: usize) -> u8 {
    match at.checked_sub(prefix.len()) {
        None => prefix[at],
        Some(at) if at < NAME_BYTES => stream.to_le_bytes()[at],
        Some(at) => (mix(stream << 32 | (at / 8) as u64) >> (at % 8 * 8)) as u8,
    }
}

/// Backends stand at 192.0.2.N, N from 0.
fn backend_index(address: &Address) -> usize {
    match address {
        Address::Tcp(SocketAddr::V4(v4)) => usize::from(v4.ip().octets()[3]),
        _ => 0,
    }
}
