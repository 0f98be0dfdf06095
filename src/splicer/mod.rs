//! The splicer: passthrough connections, one thread per core, each with its own epoll, listeners, connections and
//! timers.
//!
//! [`flow`] tells the story of a connection; [`worker`] drives many; this file gives workers threads and lets others
//! talk to them. Terminated TLS, health and configuration are not its business. Invariant: a connection is touched by
//! the one worker that holds it.

mod connect;
pub mod ending;
pub mod flow;
mod inbox;
pub mod os;
mod pipe;
mod preread;
mod read_ahead;
mod relay;
#[cfg(test)]
mod sim;
mod slab;
mod stick;
mod timer;
pub mod worker;

use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::TrySendError;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use self::flow::Incoming;
use self::inbox::{Inbox, Sender, inbox};
use self::os::{Connection, Event, Linux, Os, RawEvent};
use self::slab::Side;
use self::worker::{Worker, WorkerShared};
use crate::access_log::AccessLog;
use crate::connection::{Carried, ConnectionFilter, ConnectionView, OpenConnection, Selection};
use crate::counters::{Padded, WorkerCounters};
use crate::outcome::Ended;
use crate::snapshot::Listener;

pub use self::os::Micros;

/// Events taken from the kernel at once.
const EVENTS: usize = 256;

/// sysexits.h: an internal error.
const EXIT_INTERNAL: i32 = 70;

/// A worker hands a new connection on when it holds more than the mean, plus a quarter, plus this many.
const SLACK: usize = 32;

/// The time on the clock that backends' health and connections' limits are kept by.
pub fn now() -> Micros {
    os::now()
}

/// All workers.
pub struct Workers {
    handles: Box<[Handle]>,
    /// Who holds the conversations of each worker.
    conversations: Box<[UnboundedSender<Carried<OwnedFd>>]>,
    shared: Arc<WorkerShared>,
}

struct Handle {
    inbox: Sender<WorkerCommand>,
    acceptors: Arc<AtomicUsize>,
}

/// What a reload changes for a worker.
#[derive(Debug, Default)]
pub struct Adoption {
    /// The generation it adopts.
    pub generation: u64,
    /// Sockets to accept on: number, socket, rules, whether other workers watch the same one.
    pub open: Vec<(u32, Arc<OwnedFd>, Arc<Listener>, bool)>,
    /// Sockets that stay, with their new rules.
    pub rebind: Vec<(u32, Arc<Listener>)>,
    /// Sockets to close after serving what is queued.
    pub close: Vec<u32>,
    /// Whether connections are logged.
    pub logs_connections: bool,
    /// Whether those are, too, that a balancer in front opens for itself.
    pub logs_local: bool,
}

enum WorkerCommand {
    Adopt(Adoption, oneshot::Sender<()>),
    Incoming(Incoming<Connection>),
    List(ConnectionFilter, oneshot::Sender<(usize, Vec<ConnectionView>)>),
    Open(oneshot::Sender<Vec<OpenConnection>>),
    Shed {
        whom: Selection,
        count: usize,
        ended: Ended,
        done: oneshot::Sender<usize>,
    },
    #[cfg(debug_assertions)]
    Panic(u64),
    Stop,
}

impl Workers {
    /// Starts the workers; pins worker i to the i-th of `cores` if there are any. Worker i hands conversations over to
    /// the i-th of `conversations`.
    pub fn start(
        count: usize,
        shared: &Arc<WorkerShared>,
        access_log: &AccessLog,
        cores: Option<&[usize]>,
        conversations: Vec<UnboundedSender<Carried<OwnedFd>>>,
    ) -> io::Result<(Arc<Self>, Vec<JoinHandle<()>>)> {
        let mut ends = Vec::new();
        let mut handles = Vec::new();
        for _ in 0..count {
            let (sender, receiver) = inbox()?;
            handles.push(Handle { inbox: sender, acceptors: Arc::new(AtomicUsize::new(0)) });
            ends.push(receiver);
        }
        let busy_poll = shared.current.load().config.process.busy_poll;
        let workers =
            Arc::new(Self { handles: handles.into(), conversations: conversations.into(), shared: Arc::clone(shared) });
        let mut threads = Vec::new();
        for (index, inbox) in ends.into_iter().enumerate() {
            let mut os = Linux::new()?;
            os.watch_inbox(&inbox)?;
            let worker = Worker::new(index, os, Arc::clone(shared), access_log.sender(true));
            let core = cores.map(|cores| cores[index % cores.len()]);
            let thread = WorkerThread { worker, inbox, workers: Arc::clone(&workers), busy_poll, stopping: false };
            let spawned =
                std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || thread.run_or_end(core))?;
            threads.push(spawned);
        }
        Ok((workers, threads))
    }

    /// How many workers there are.
    pub fn len(&self) -> usize {
        self.handles.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.handles.is_empty()
    }

    /// What each worker counts.
    pub fn counters(&self) -> &[Padded<WorkerCounters>] {
        &self.shared.counters
    }

    /// Connections held by all workers.
    pub fn open(&self) -> usize {
        self.shared.admission.open()
    }

    /// Listening sockets not closed yet.
    pub fn acceptors(&self) -> usize {
        self.handles.iter().map(|handle| handle.acceptors.load(Relaxed)).sum()
    }

    /// Gives every worker its part of a reload; answers when all have adopted it.
    pub async fn adopt(&self, adoptions: Vec<Adoption>) {
        let mut answers = Vec::new();
        for (handle, adoption) in self.handles.iter().zip(adoptions) {
            let (done, adopted) = oneshot::channel();
            handle.put(WorkerCommand::Adopt(adoption, done)).await;
            answers.push(adopted);
        }
        for adopted in answers {
            let _ = adopted.await;
        }
    }

    /// How many connections are wanted, and at most `limit` of them, as the workers see them.
    pub async fn connections(&self, wanted: &ConnectionFilter) -> (usize, Vec<ConnectionView>) {
        let (mut open, mut shown) = (0, Vec::new());
        for handle in &self.handles {
            let (sender, found) = oneshot::channel();
            let limit = wanted.limit - shown.len();
            handle.put(WorkerCommand::List(ConnectionFilter { limit, ..wanted.clone() }, sender)).await;
            let (count, views) = found.await.unwrap_or_default();
            open += count;
            shown.extend(views);
        }
        (open, shown)
    }

    /// Every connection that has a backend.
    pub async fn opened(&self) -> Vec<OpenConnection> {
        let mut all = Vec::new();
        for handle in &self.handles {
            let (sender, found) = oneshot::channel();
            handle.put(WorkerCommand::Open(sender)).await;
            all.extend(found.await.unwrap_or_default());
        }
        all
    }

    /// Ends at most `count` connections, spread over the workers, the quietest of each first; answers how many it
    /// ended.
    pub async fn shed(&self, whom: &Selection, count: usize, ended: Ended) -> usize {
        let mut total = 0;
        for (index, handle) in self.handles.iter().enumerate() {
            let share = (count - total).div_ceil(self.handles.len() - index);
            let (done, answer) = oneshot::channel();
            handle.put(WorkerCommand::Shed { whom: whom.clone(), count: share, ended, done }).await;
            total += answer.await.unwrap_or(0);
        }
        total
    }

    /// Makes the next step of a connection panic, to see that nobody else notices. Debug builds only.
    #[cfg(debug_assertions)]
    pub async fn panic(&self, id: u64) {
        if let Some(handle) = self.handles.get((id >> 48) as usize) {
            handle.put(WorkerCommand::Panic(id)).await;
        }
    }

    /// Ends the threads; connections still open are reset.
    pub async fn stop(&self) {
        for handle in &self.handles {
            handle.put(WorkerCommand::Stop).await;
        }
    }

    /// A worker that holds this many connections hands new ones on: clearly above the mean.
    fn fair_share(&self) -> usize {
        if self.handles.len() < 2 {
            return usize::MAX;
        }
        let mean = self.open() / self.handles.len();
        mean + mean / 4 + SLACK
    }

    /// The emptier of two others.
    fn emptier(&self, own: usize, turn: u64) -> Option<&Handle> {
        let others = self.handles.len().checked_sub(1).filter(|others| *others > 0)?;
        let load = |index: usize| self.shared.counters[index].0.connections.value();
        let other = |turn: u64| (own + 1 + turn as usize % others) % self.handles.len();
        let (a, b) = (other(turn), other(turn / 7 + 1));
        Some(&self.handles[if load(a) <= load(b) { a } else { b }])
    }
}

impl Handle {
    /// Puts a command in, waiting for room.
    async fn put(&self, mut command: WorkerCommand) {
        loop {
            match self.inbox.send(command) {
                Ok(()) => return,
                Err(TrySendError::Full(refused)) => command = refused,
                // A worker that is gone takes the process with it.
                Err(TrySendError::Disconnected(_)) => return,
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// A worker with its thread's belongings.
struct WorkerThread {
    worker: Worker<Linux>,
    inbox: Inbox<WorkerCommand>,
    workers: Arc<Workers>,
    busy_poll: Option<Duration>,
    stopping: bool,
}

impl WorkerThread {
    /// A panic outside a connection's step leaves nothing to rely on: the process ends, and whoever watches it starts
    /// another, rather than going on without a worker that clients are still sent to.
    fn run_or_end(self, core: Option<usize>) {
        let index = self.worker.index;
        if catch_unwind(AssertUnwindSafe(|| self.run(core))).is_err() {
            eprintln!("sessile: worker {index} failed; the process ends");
            std::process::exit(EXIT_INTERNAL);
        }
    }

    fn run(mut self, core: Option<usize>) {
        if let Some(core) = core {
            let mut set = rustix::thread::CpuSet::new();
            set.set(core);
            let _ = rustix::thread::sched_setaffinity(None, &set);
        }
        let (mut events, mut raw) = (Vec::<Event>::with_capacity(EVENTS), Vec::with_capacity(EVENTS));
        while !self.stopping {
            self.worker.keep_below = self.workers.fair_share();
            self.wait(&mut events, &mut raw);
            self.worker.turn(&events);
            if events.iter().any(|event| event.token.side() == Side::Inbox) {
                self.read_inbox();
            }
            self.hand_over();
            self.workers.handles[self.worker.index].acceptors.store(self.worker.acceptors(), Relaxed);
        }
        self.worker.shed(&Selection::All, usize::MAX, Ended::Stopped);
        self.worker.flush();
    }

    /// Sleeps until something happens or is due. If asked to, looks for a while first: waking a core takes longer.
    fn wait(&mut self, events: &mut Vec<Event>, raw: &mut Vec<RawEvent>) {
        let (due, os) = (self.worker.wake_at(), &mut self.worker.os);
        if let Some(span) = self.busy_poll
            && !events.is_empty()
        {
            let until = os.now() + span.as_micros() as Micros;
            while os.now() < until.min(due.unwrap_or(Micros::MAX)) {
                os.wait(events, raw, Some(Duration::ZERO));
                if !events.is_empty() {
                    return;
                }
            }
        }
        let timeout = due.map(|at| Duration::from_micros(at.saturating_sub(os.now())));
        os.wait(events, raw, timeout);
    }

    fn read_inbox(&mut self) {
        self.inbox.hush();
        while let Some(command) = self.inbox.next() {
            self.handle(command);
        }
    }

    fn handle(&mut self, command: WorkerCommand) {
        match command {
            WorkerCommand::Adopt(adoption, done) => {
                self.adopt(adoption);
                let _ = done.send(());
            }
            WorkerCommand::Incoming(incoming) => self.worker.admit(incoming),
            WorkerCommand::List(wanted, found) => {
                let (index, now) = (self.worker.index, now());
                let (mut open, mut shown) = (0, Vec::new());
                self.worker.each(|flow| {
                    let record = flow.record();
                    if record.matches(&wanted) {
                        open += 1;
                        if shown.len() < wanted.limit {
                            shown.push(record.view(index, now));
                        }
                    }
                });
                let _ = found.send((open, shown));
            }
            WorkerCommand::Open(found) => {
                let mut open = Vec::new();
                self.worker.each(|flow| open.extend(flow.record().open()));
                let _ = found.send(open);
            }
            WorkerCommand::Shed { whom, count, ended, done } => {
                let _ = done.send(self.worker.shed(&whom, count, ended));
            }
            #[cfg(debug_assertions)]
            WorkerCommand::Panic(id) => self.worker.panic_at(id),
            WorkerCommand::Stop => self.stopping = true,
        }
    }

    /// Connections wait meanwhile, so it is timed.
    fn adopt(&mut self, adoption: Adoption) {
        let begin = now();
        for number in adoption.close {
            self.worker.remove_listener(number);
        }
        for (number, listener) in adoption.rebind {
            self.worker.update_listener(number, listener);
        }
        for (number, socket, listener, shared) in adoption.open {
            self.worker.add_listener(number, socket, listener, shared);
        }
        self.worker.set_logs_connections(adoption.logs_connections, adoption.logs_local);
        self.worker.counters().generation.set(adoption.generation);
        self.worker.counters().adopt_us_max.raise(now() - begin);
    }

    /// Gives connections that were accepted beyond this worker's share to a worker with fewer.
    fn hand_over(&mut self) {
        while let Some(incoming) = self.worker.surplus() {
            let refused = match self.workers.emptier(self.worker.index, incoming.accepted) {
                Some(handle) => {
                    handle.inbox.send(WorkerCommand::Incoming(incoming)).err().map(|refused| match refused {
                        TrySendError::Full(command) | TrySendError::Disconnected(command) => command,
                    })
                }
                None => Some(WorkerCommand::Incoming(incoming)),
            };
            match refused {
                None => self.worker.counters().handed_over.add(1),
                Some(command) => self.handle(command),
            }
        }
        while let Some(carried) = self.worker.carried() {
            let Carried { client, bytes, permit, client_info, listener } = carried;
            if let Some(conversations) = self.workers.conversations.get(self.worker.index) {
                // Bounded by permits. Nobody at the other end means that the process is about to end.
                let _ = conversations.send(Carried { client: client.into(), bytes, permit, client_info, listener });
            }
        }
    }
}
