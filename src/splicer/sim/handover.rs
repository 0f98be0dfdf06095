//! Hand-overs: pairs leave one process of a world and go on in another, as in an upgrade.
//!
//! A process is a worker with counters, limits, a snapshot and an epoll of its own. Invariants: the newest process
//! accepts, or none while a hand-over is under way; what is taken out is taken in a few turns later, elsewhere or where
//! it was; every fact of a pair is the same after the way.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use super::kernel::Kernel;
use super::os::{SimOs, SimSocket};
use super::world::{Scenario, World};
use crate::access_log::AccessLogSender;
use crate::pool::{Lease, Pool};
use crate::snapshot::Listener;
use crate::splicer::LargePipes;
use crate::splicer::flow::Flow;
use crate::splicer::pair::{Arrival, Batch, PairFacts};
use crate::splicer::worker::{Worker, WorkerShared};

/// Processes of a world, at most.
const PROCESSES_MAX: usize = 4;

/// Busy pairs that leave at once, at most.
const BUSY_MAX: usize = 16;

/// Turns that pairs are under way, at most.
const TURNS_MAX: u32 = 8;

/// What many worlds together must hand over.
pub const MOVED: &[&str] = &[
    "pairs that went on elsewhere",
    "pairs that owed bytes",
    "pairs that owed more than a small pipe",
    "pairs that came out of a pipe",
    "pairs with one end read",
    "pairs that left a later process",
    "pairs without a permit there",
    "pairs that came back",
    "listeners that were given up",
    "listeners that were resumed",
];

/// How often which of these was handed over.
pub type Moves = BTreeMap<&'static str, u64>;

/// A process: a worker, and what belongs to it alone.
pub struct Process {
    /// The worker.
    pub worker: Worker<SimOs>,
    /// Its counters, limits and snapshot.
    pub shared: Arc<WorkerShared>,
}

impl Process {
    /// A process with this number, which does not accept yet.
    pub fn begin(number: usize, kernel: &Rc<RefCell<Kernel>>, scenario: &Scenario) -> Self {
        let (most, bytes) = scenario.large_pipes;
        let large_pipes = Arc::new(LargePipes::new(bytes, most));
        let alone = WorkerShared::alone(scenario.config.clone(), scenario.pipes_max);
        let shared = Arc::new(WorkerShared { large_pipes, ..alone });
        shared.admission.limit(scenario.connections_max, scenario.per_source, None);
        let os = SimOs(Rc::clone(kernel), number);
        Self { worker: Worker::new(0, os, Arc::clone(&shared), AccessLogSender::off()), shared }
    }

    /// Begins to accept.
    pub fn accept(&mut self) {
        let listener = self.listener();
        self.worker.add_listener(0, (), listener, false);
    }

    /// Its listener, by the rules in force.
    pub fn listener(&self) -> Arc<Listener> {
        Arc::clone(&self.shared.current.load().listeners[0])
    }

    /// Steps that have panicked.
    pub fn panics(&self) -> u64 {
        self.worker.counters().panics.value()
    }

    /// Its pool, by the rules in force.
    pub fn pool(&self) -> Arc<Pool> {
        Arc::clone(&self.shared.current.load().pools[0])
    }
}

/// A hand-over under way.
pub struct HandOver {
    from: usize,
    /// A new process is to begin.
    succeeds: bool,
    /// The listener is suspended, to go to the new process.
    suspended: bool,
    frozen: Vec<Flow<SimOs>>,
    turns: u32,
}

impl World {
    pub(super) fn newest(&mut self) -> &mut Process {
        self.processes.last_mut().expect("a process")
    }

    /// A hand-over begins or comes to its end, or neither.
    pub(super) fn hand_over(&mut self) -> Result<(), String> {
        match &mut self.handover {
            Some(under_way) => {
                under_way.turns += 1;
                if under_way.suspended && self.kernel.borrow().listeners.contains_key(&under_way.from) {
                    return Err("a suspended listener is watched".into());
                }
                if under_way.turns == TURNS_MAX || self.random.one_in(3) { self.conclude() } else { Ok(()) }
            }
            None => {
                // Moments at which pipes hold bytes are rare, and those at which large ones do still more.
                let piped = |process: &&Process| process.worker.pipes().in_use() > 0;
                let rarity = match self.processes.iter().find(piped) {
                    Some(process) if process.shared.large_pipes.held() > 0 => 1,
                    Some(_) => 4,
                    None => 40,
                };
                if self.scenario.hands_over && self.random.one_in(rarity) {
                    self.begin_hand_over();
                }
                Ok(())
            }
        }
    }

    /// A process takes pairs out: the newest, also to be succeeded, or one before it, whose rows have come to relay.
    fn begin_hand_over(&mut self) {
        let newest = self.processes.len() - 1;
        let succeeds = newest + 1 < PROCESSES_MAX && self.random.one_in(3);
        let from = if succeeds { newest } else { self.random.below(newest + 1) };
        self.kernel.borrow_mut().next_turn();
        let worker = &mut self.processes[from].worker;
        let suspended = from == newest && !self.listener_removed;
        if from == newest {
            worker.suspend_accepting();
        }
        let (pipes, most) = (worker.pipes().in_use(), self.random.below(worker.connections() + 1));
        let frozen = worker.take_out(Batch { quiet: most, busy: most.min(BUSY_MAX) });
        let emptied = pipes - worker.pipes().in_use();
        self.moved("pairs that came out of a pipe", emptied);
        self.handover = Some(HandOver { from, succeeds, suspended, frozen, turns: 0 });
    }

    /// Ends the hand-over that is under way: its pairs go on in the newest process, or where they were.
    pub(super) fn conclude(&mut self) -> Result<(), String> {
        let Some(HandOver { from, succeeds, suspended, frozen, .. }) = self.handover.take() else { return Ok(()) };
        self.kernel.borrow_mut().next_turn();
        let fails = self.random.one_in(4);
        if succeeds && !fails {
            self.succeed(suspended);
        } else if from + 1 == self.processes.len() {
            self.newest().worker.resume_accepting();
            self.moved("listeners that were resumed", suspended.into());
        }
        let to = self.processes.len() - 1;
        for flow in frozen {
            let arrived = if fails || to == from { None } else { self.arrive(&flow)? };
            // The other process may end before it has said that it has the pair.
            match arrived.filter(|_| !self.random.one_in(8)) {
                Some(arrived) => {
                    self.note(&flow, from);
                    drop(flow);
                    self.processes[to].worker.take_in(arrived);
                }
                None => {
                    self.moved("pairs that came back", 1);
                    self.processes[from].worker.take_in(flow);
                }
            }
        }
        Ok(())
    }

    /// Another process begins, and takes the listener over unless that was being removed before.
    fn succeed(&mut self, suspended: bool) {
        let number = self.processes.len();
        let mut next = Process::begin(number, &self.kernel, &self.scenario);
        let old = &mut self.processes[number - 1].worker;
        next.worker.number_from(old.numbered());
        if suspended {
            old.give_up_listener(0);
            next.accept();
            if self.listener_removed {
                next.worker.remove_listener(0);
            }
            self.moved("listeners that were given up", 1);
        }
        self.processes.push(next);
    }

    /// What the newest process makes of a pair, from descriptors of its own, words and bytes; `None`: a limit is reached
    /// there.
    fn arrive(&mut self, flow: &Flow<SimOs>) -> Result<Option<Flow<SimOs>>, String> {
        let now = self.kernel.borrow().now;
        let facts = flow.facts(now);
        let words = serde_json::to_string(&facts).map_err(|error| error.to_string())?;
        let read: PairFacts = serde_json::from_str(&words).map_err(|error| error.to_string())?;
        let [up, down] = flow.owed().map(<[u8]>::to_vec);
        if read != facts || (read.up.owed, read.down.owed) != (up.len(), down.len()) {
            return Err(format!("{facts:?} is read as {read:?}, beside {} and {} bytes", up.len(), down.len()));
        }
        let (listener, pool) = (self.newest().listener(), self.newest().pool());
        let backend = pool.backends().iter().find(|backend| backend.name() == read.backend);
        let Some(backend) = backend.filter(|_| pool.name() == read.pool) else {
            return Err(format!("{read:?}: its backend is unknown"));
        };
        let Some(mut permit) = listener.state.admit() else {
            self.moved("pairs without a permit there", 1);
            return Ok(None);
        };
        if let Some(client) = read.client {
            // A pair that is there is not refused for its source.
            let _ = permit.hold_source(client.ip(), now / 1_000_000);
        }
        let Some([client, backend_socket]) = flow.sockets().map(|both| both.map(SimSocket::duplicate)) else {
            return Err(format!("{read:?}: a socket is missing"));
        };
        let (backend, lease) = (backend_socket, Lease::new(backend));
        let arrived = Flow::arrived(Arrival { client, backend, facts: read, up, down, permit, lease }, now);
        let after = arrived.facts(now);
        if after != facts {
            return Err(format!("{facts:?} arrived as {after:?}"));
        }
        Ok(Some(arrived))
    }

    fn note(&mut self, flow: &Flow<SimOs>, from: usize) {
        let facts = flow.facts(0);
        self.moved("pairs that went on elsewhere", 1);
        self.moved("pairs that owed bytes", usize::from(facts.up.owed + facts.down.owed > 0));
        self.moved("pairs that owed more than a small pipe", usize::from(facts.up.owed.max(facts.down.owed) > 1 << 16));
        self.moved("pairs with one end read", usize::from(facts.up.end_seen != facts.down.end_seen));
        self.moved("pairs that left a later process", usize::from(from > 0));
    }

    fn moved(&mut self, what: &'static str, count: usize) {
        if count > 0 {
            *self.moves.entry(what).or_default() += count as u64;
        }
    }
}
