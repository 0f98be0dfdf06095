//! Clients and backends at the other ends of a worker's sockets, and what must hold whatever they do.
//!
//! Knows nothing of how the worker works. Invariants it checks at every step: bytes arrive equal and in order; an end
//! arrives only after the last byte; a reset stays a reset; nothing that can move stands still; what is held is
//! bounded; and what `oracle.rs` looks at. At the end of a world nothing is left over.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::handover::{HandOver, Moves, Process};
use super::kernel::{Id, Kernel};
use super::oracle::Oracle;
use super::peer::Peer;
use crate::config::{Address, Config};
use crate::connection::Selection;
use crate::fault::Fault;
use crate::outcome::Ended;
use crate::random::{Random, mix};
use crate::snapshot::{LoadedFiles, Snapshot};
use crate::splicer::os::Micros;
use crate::splicer::worker::Worker;

/// Held inside for one way of a connection: a pipe or a buffer, and what was read ahead.
const HELD_MAX: usize = 64 * 1024 + 64 * 1024;

/// In a bulky world: most bytes of a peer's stream, of one send, and of its buffer.
pub(super) const BULK: usize = 4_000_000;

/// A world that takes more turns than this never ends.
const TURNS_MAX: usize = 400_000;

/// What kind of world.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// What the worker is configured with.
    pub config: Config,
    /// How each backend answers, in the configuration's order.
    pub backends: Vec<ConnectScript>,
    /// Clients that will come.
    pub clients: usize,
    /// Connections served at once.
    pub connections_max: usize,
    /// Connections served at once from one source.
    pub per_source: Option<u32>,
    /// Pipes that the worker may have.
    pub pipes_max: usize,
    /// Large pipes that it may have, and their size.
    pub large_pipes: (usize, u32),
    /// Before its stream each client sends this.
    pub greeting: ClientGreeting,
    /// The listener is removed when the last client has dialled.
    pub removes_listener: bool,
    /// Streams and buffers are large, so that the worker has more to do than a connection's share of a turn.
    pub bulky: bool,
    /// What a socket takes, at least.
    pub room: usize,
    /// Other processes take over, once and again.
    pub hands_over: bool,
    /// Peers reset, calls fail, time jumps, steps panic, connections are shed. If false, every connection completes.
    pub hostile: bool,
}

/// How a backend answers a connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectScript {
    /// Accepts.
    Accept,
    /// Refuses.
    Refuse,
    /// Cannot be reached.
    Unreachable,
    /// Never.
    Never,
}

/// What a client sends before its stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientGreeting {
    /// Nothing.
    None,
    /// A PROXY header, which the backend does not see.
    Proxy(Vec<u8>),
    /// A hello, which the backend sees unchanged.
    Hello(Vec<u8>),
}

/// One world.
pub struct World {
    pub(super) kernel: Rc<RefCell<Kernel>>,
    /// Processes, from the first to the newest, which accepts.
    pub(super) processes: Vec<Process>,
    /// The hand-over that is under way.
    pub(super) handover: Option<HandOver>,
    pub(super) moves: Moves,
    /// The newest process was told to remove the listener.
    pub(super) listener_removed: bool,
    pub(super) scenario: Scenario,
    pub(super) random: Random,
    /// Peers by the number of the socket at whose far end they are.
    pub(super) peers: Vec<Option<Peer>>,
    /// Peers from which more is to be expected.
    pub(super) awake: Vec<Id>,
    pub(super) to_come: usize,
    pub(super) oracle: Oracle,
    turns: usize,
    pub(super) bytes: Vec<u8>,
}

impl World {
    /// A world in which nothing has happened.
    pub fn new(seed: u64, scenario: Scenario) -> Self {
        let kernel = Rc::new(RefCell::new(Kernel::new(seed)));
        let mut first = Process::begin(0, &kernel, &scenario);
        first.accept();
        let mut random = Random::new(mix(seed));
        kernel.borrow_mut().failures = if scenario.hostile { 8 } else { 0 };
        kernel.borrow_mut().room_min = scenario.room;
        kernel.borrow_mut().hopeless = hopeless(&scenario, &mut random);
        Self {
            kernel,
            processes: vec![first],
            handover: None,
            moves: Moves::new(),
            listener_removed: false,
            to_come: scenario.clients,
            oracle: Oracle::new(&scenario),
            scenario,
            random,
            peers: Vec::new(),
            awake: Vec::new(),
            turns: 0,
            bytes: Vec::new(),
        }
    }

    /// Lives it to its end. Answers how many steps of connections there were, how they ended and what was handed over,
    /// or what went wrong.
    pub fn run(mut self) -> Result<(u64, Vec<u64>, Moves), String> {
        while !self.over() {
            self.turn()?;
            if self.turns > TURNS_MAX {
                return Err(format!("not over after {TURNS_MAX} turns: {:?}", self.waiting()));
            }
        }
        self.bring_to_end()?;
        let steps = self.processes.iter().map(|process| process.worker.counters().steps.value()).sum();
        Ok((steps, self.oracle.counted, self.moves))
    }

    fn turn(&mut self) -> Result<(), String> {
        self.turns += 1;
        if self.to_come > 0 && self.random.one_in(3) {
            self.new_client();
        }
        self.answer_connects();
        let mut acted = false;
        for _ in 0..self.awake.len().min(4) {
            let id = self.random.one_of(&self.awake);
            acted |= self.act(id)?;
        }
        if self.scenario.hostile {
            self.trouble();
        } else if self.random.one_in(100) {
            self.quiet();
        }
        self.all_turn();
        self.hand_over()?;
        self.oracle()?;
        self.check()?;
        let (peers, kernel) = (&self.peers, self.kernel.borrow());
        let done =
            |id: &Id| peers[*id as usize].as_ref().is_none_or(|peer| peer.done(kernel.socket(*id).closed.is_some()));
        self.awake.retain(|id| !done(id));
        drop(kernel);
        self.pass_time(acted)
    }

    /// Each process gets its events.
    fn all_turn(&mut self) {
        for (number, process) in self.processes.iter_mut().enumerate() {
            let events = self.kernel.borrow_mut().events(number);
            process.worker.turn(&events);
        }
    }

    /// When the first worker has something to do without an event.
    fn wake_at(&mut self) -> Option<Micros> {
        self.processes.iter_mut().filter_map(|process| process.worker.wake_at()).min()
    }

    fn waiting(&self) -> Vec<&Peer> {
        self.awake.iter().filter_map(|id| self.peers[*id as usize].as_ref()).collect()
    }

    fn over(&self) -> bool {
        self.to_come == 0 && self.awake.is_empty() && self.kernel.borrow().connecting.is_empty()
    }

    pub(super) fn peer(&self, id: Id) -> Option<&Peer> {
        self.peers.get(id as usize)?.as_ref()
    }

    pub(super) fn peer_mut(&mut self, id: Id) -> Option<&mut Peer> {
        self.peers.get_mut(id as usize)?.as_mut()
    }

    /// All peers are quiet for longer than a half-closed connection may be; no connection is half-closed yet.
    fn quiet(&mut self) {
        let settled =
            self.handover.is_none() && self.waiting().iter().all(|peer| peer.partner.is_some() && !peer.finished);
        let mut kernel = self.kernel.borrow_mut();
        if settled && kernel.connecting.is_empty() {
            kernel.now += 30_000_000;
        }
    }

    /// Things that go wrong in hostile worlds.
    fn trouble(&mut self) {
        match self.random.below(3_000) {
            0 if self.handover.is_none() => self.kernel.borrow_mut().now += self.random.below(4_000_000) as u64,
            1 => {
                self.kernel.borrow_mut().panic_next = true;
                self.oracle.panics += 1;
            }
            2 => {
                let number = self.random.below(self.processes.len());
                self.processes[number].worker.shed(&Selection::All, 1, Ended::Stopped);
            }
            3 | 4 => {
                let number = self.random.below(self.processes.len());
                let Process { worker, shared } = &mut self.processes[number];
                let old = shared.current.load_full();
                let config = self.scenario.config.clone();
                let next = Snapshot::build(config, LoadedFiles::default(), Some(&old), 1, &shared.admission);
                worker.update_listener(0, Arc::clone(&next.listeners[0]));
                shared.current.swap(Arc::new(next));
            }
            _ => {}
        }
    }

    fn check(&mut self) -> Result<(), String> {
        let busy = self.wake_at() == Some(0);
        let kernel = self.kernel.borrow();
        if let Some(violation) = kernel.violations.first() {
            return Err(violation.clone());
        }
        let in_use: usize = self.processes.iter().map(|process| process.worker.pipes().in_use()).sum();
        if kernel.filled != in_use {
            return Err(format!("{} pipes hold bytes, and {in_use} are in use", kernel.filled));
        }
        if !busy && let Some(id) = kernel.neglected() {
            return Err(format!("socket {id}: its bytes were told and not read"));
        }
        for process in &self.processes {
            let alive = process.shared.current.generations_alive();
            if alive > 1 {
                return Err(format!("{alive} snapshots are alive"));
            }
        }
        if kernel.pipes > self.scenario.pipes_max * self.processes.len() {
            return Err(format!("{} pipes exist", kernel.pipes));
        }
        let places = self.large_places(kernel.grown)?;
        let mut large = 0;
        for id in &self.awake {
            let Some(peer) = self.peer(*id) else { continue };
            let Some(other) = peer.partner.and_then(|partner| self.peer(partner)) else { continue };
            let taken = peer.said().saturating_sub(kernel.in_flight(*id).0);
            let delivered = other.heard() + kernel.in_flight(other.id).1;
            let relayed = !peer.gone && !other.gone && kernel.socket(*id).closed.is_none();
            let held = if relayed { taken.saturating_sub(delivered) } else { 0 };
            large += usize::from(held > HELD_MAX);
            if large > places || held > HELD_MAX + self.scenario.large_pipes.1 as usize {
                return Err(format!("peer {id}: {held} bytes are held; {large} ways hold more than a small pipe does"));
            }
        }
        Ok(())
    }

    /// Places for large pipes that are taken, in all processes.
    fn large_places(&self, grown: usize) -> Result<usize, String> {
        let (most, held) = (self.scenario.large_pipes.0, |process: &Process| process.shared.large_pipes.held());
        let places = self.processes.iter().map(held).sum();
        if grown > places || grown > most * self.processes.len() {
            return Err(format!("{grown} pipes are large, {places} are counted"));
        }
        // Only another process brings bytes that take a place beyond.
        if self.processes.len() == 1 && places > most {
            return Err(format!("{places} of {most} places are taken"));
        }
        Ok(places)
    }

    /// Lets a little time pass; when all peers stand still, as much as until one can move. If none ever can: a stall.
    fn pass_time(&mut self, mut acted: bool) -> Result<(), String> {
        for at in 0..self.awake.len() {
            if acted {
                break;
            }
            let id = self.awake[at];
            acted = self.speak(id) || self.hear(id)?;
        }
        let kernel = self.kernel.borrow();
        let stand_still = !acted && !kernel.restless() && kernel.connecting.is_empty() && self.to_come == 0;
        drop(kernel);
        if stand_still && self.handover.is_some() {
            return self.conclude();
        }
        let next = if stand_still { self.stand_still()? } else { None };
        let mut kernel = self.kernel.borrow_mut();
        let soon = kernel.now + self.random.below(200) as u64;
        kernel.now = soon.max(next.unwrap_or(0));
        Ok(())
    }

    /// No peer can move. Returns the time when one will; an error if none ever will.
    fn stand_still(&mut self) -> Result<Option<Micros>, String> {
        self.processes.iter_mut().for_each(|process| process.worker.trim());
        let wake_at = self.wake_at();
        if wake_at == Some(0) {
            return Ok(None);
        }
        let kernel = self.kernel.borrow();
        if let Some(id) = kernel.unnoticed_reset() {
            return Err(format!("socket {id}: its reset was told and nothing followed"));
        }
        if kernel.pipes > kernel.filled {
            return Err(format!("of {} pipes held, {} are empty", kernel.pipes, kernel.pipes - kernel.filled));
        }
        let stalls = self.waiting().iter().map(|peer| peer.stalled_until).filter(|until| *until > kernel.now).min();
        match [wake_at, stalls].into_iter().flatten().min() {
            None if !self.over() => Err(format!("everybody waits for ever: {:?}", self.waiting())),
            next => Ok(next),
        }
    }

    /// All peers leave; no socket, pipe, permit or lease may be left.
    fn bring_to_end(&mut self) -> Result<(), String> {
        if !self.scenario.hostile {
            self.all_complete()?;
        }
        for id in 0..self.peers.len() {
            self.kernel.borrow_mut().let_go(id as Id);
        }
        self.conclude()?;
        let accepting = usize::from(!self.scenario.removes_listener);
        for _ in 0..10_000 {
            let (connections, acceptors) = self.held();
            if connections == 0 && acceptors == accepting {
                break;
            }
            let next = self.wake_at().unwrap_or(0);
            let mut kernel = self.kernel.borrow_mut();
            kernel.now = kernel.now.max(next) + 1;
            drop(kernel);
            self.all_turn();
            self.oracle()?;
        }
        self.all_turn();
        let (mut permits, mut leases) = (0, 0);
        for Process { worker, shared } in &mut self.processes {
            worker.trim();
            worker.flush();
            if worker.acceptors() == 0 && worker.wake_at().is_some() {
                return Err("a worker that has nothing left still wakes".into());
            }
            permits += shared.admission.open();
            leases += shared.current.load().pools.iter().map(|pool| pool.leases()).sum::<u64>();
        }
        let (connections, acceptors) = self.held();
        let places = self.large_places(0)?;
        let left = (connections, self.kernel.borrow().owned(), permits, leases, acceptors, places);
        if left != (0, (0, 0), 0, 0, accepting, 0) {
            return Err(format!(
                "left over: connections, (sockets, pipes), permits, leases, listeners, places: {left:?}"
            ));
        }
        Ok(())
    }

    /// Connections and listening sockets of all workers.
    fn held(&self) -> (usize, usize) {
        let workers = || self.processes.iter().map(|process| &process.worker);
        (workers().map(Worker::connections).sum(), workers().map(Worker::acceptors).sum())
    }

    fn all_complete(&self) -> Result<(), String> {
        for client in self.peers.iter().flatten().filter(|peer| peer.is_client()) {
            let id = client.id;
            let Some(backend) = client.partner.and_then(|partner| self.peer(partner)) else {
                return Err(format!("client {id}: never reached a backend"));
            };
            if client.heard() != backend.total || backend.heard() != client.total {
                return Err(format!("client {id}: not everything arrived"));
            }
            if client.heard_reset || backend.heard_reset {
                return Err(format!("client {id}: reset at the end"));
            }
        }
        self.all_counted()
    }
}

/// Backends that some worlds refuse to connect to without asking them.
fn hopeless(scenario: &Scenario, random: &mut Random) -> Vec<(Address, Fault)> {
    let addresses = scenario.config.pools[0].backends.iter().map(|backend| backend.address.clone());
    let answers = addresses.zip(&scenario.backends).filter_map(|(address, answer)| match answer {
        ConnectScript::Refuse => Some((address, Fault::Refused)),
        ConnectScript::Unreachable => Some((address, Fault::Unreachable)),
        ConnectScript::Accept | ConnectScript::Never => None,
    });
    answers.filter(|_| random.one_in(2)).collect()
}
