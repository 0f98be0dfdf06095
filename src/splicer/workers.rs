//! The threads of the workers: [`Workers`] starts one per worker, gives each its part of a reload, and moves
//! connections from a full worker to an emptier one.
//!
//! Steps no connection (`worker` does), and shares no work among threads (`threads` does). Invariant: a connection is
//! counted as open for as long as a worker or its runtime holds it, so a worker is full by the same measure everywhere.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::TrySendError;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use super::called::CalledRows;
use super::flow::{Flow, Incoming};
use super::inbox::{Inbox, Sender, inbox};
use super::os::{Connection, Event, Linux, Micros, Os, RawEvent};
use super::pair::Batch;
use super::slab::Side;
use super::worker::{Worker, WorkerShared};
use crate::access_log::{AccessLog, LogRules};
use crate::client_history::ClientHistory;
use crate::clock;
use crate::connection::{Carried, ConnectionFilter, ConnectionView, OpenConnection, Selection};
use crate::counters::{Padded, WorkerCounters};
use crate::outcome::Ended;
use crate::snapshot::Listener;
use crate::threads::{Delivery, RunningThread, ThreadCommand, ThreadHandle, core_of};

/// Events taken from the kernel at once.
const EVENTS: usize = 256;

/// A worker hands a new connection on when it holds more than the mean, plus a quarter, plus this many.
const SLACK: usize = 32;

/// All workers of the process.
pub struct Workers {
    handles: Box<[WorkerHandle]>,
    /// Where worker `i` hands over connections that are to be terminated.
    runtimes: Box<[UnboundedSender<Carried<OwnedFd>>]>,
    shared: Arc<WorkerShared>,
}

/// One worker, seen from other threads.
struct WorkerHandle {
    inbox: Sender<WorkerCommand>,
}

/// What a snapshot changes for one worker.
#[derive(Debug, Default)]
pub struct Adoption {
    /// The generation of the snapshot that the worker adopts.
    pub generation: u64,
    /// Sockets to accept on: number, socket, listener, whether other workers watch the same socket.
    pub open: Vec<(u32, Arc<OwnedFd>, Arc<Listener>, bool)>,
    /// Sockets that stay open, with the listener that has the new rules.
    pub rebind: Vec<(u32, Arc<Listener>)>,
    /// Sockets to close after the connections in their backlog are accepted.
    pub close: Vec<u32>,
    /// Sockets to let go of at once: another process serves their backlog.
    pub give_up: Vec<u32>,
    /// Which connections get a line in the access log.
    pub log: LogRules,
}

enum WorkerCommand {
    Adopt(Adoption, oneshot::Sender<()>),
    Incoming(Incoming<Connection>),
    /// Take out so many pairs; the reply has them, and how many connections the worker has numbered.
    TakeOut(Batch, oneshot::Sender<(Vec<Flow<Linux>>, u64)>),
    TakeIn(Vec<Flow<Linux>>),
    /// Count the pairs that could be taken out.
    Pairs(oneshot::Sender<usize>),
    /// Stop accepting until told otherwise; the reply comes when it is done.
    Suspend(oneshot::Sender<()>),
    Resume,
    /// Number connections from here on.
    NumberFrom(u64),
    /// Rows were called.
    Called,
    Thread(ThreadCommand),
    #[cfg(debug_assertions)]
    Panic(u64),
}

impl Workers {
    /// Starts the workers; pins worker `i` to the `i`-th of `cores` if there are any. Worker `i` hands connections that
    /// are to be terminated over to the `i`-th of `runtimes`.
    pub fn start(
        count: usize,
        shared: &Arc<WorkerShared>,
        access_log: &AccessLog,
        cores: Option<&[usize]>,
        runtimes: Vec<UnboundedSender<Carried<OwnedFd>>>,
    ) -> io::Result<(Arc<Self>, Vec<RunningThread>)> {
        let mut inboxes = Vec::new();
        let mut handles = Vec::new();
        for _ in 0..count {
            let (sender, receiver) = inbox()?;
            handles.push(WorkerHandle { inbox: sender });
            inboxes.push(receiver);
        }
        let (busy_poll, log) = {
            let process = &shared.current.load().config.process;
            (process.busy_poll, LogRules::of(&process.log))
        };
        let workers = Arc::new(Self { handles: handles.into(), runtimes: runtimes.into(), shared: Arc::clone(shared) });
        let mut threads = Vec::new();
        for (index, inbox) in inboxes.into_iter().enumerate() {
            let mut os = Linux::new()?;
            os.watch_inbox(&inbox)?;
            let mut worker = Worker::new(index, os, Arc::clone(shared), access_log.sender(true));
            // Pairs of the process before may end here before the first adoption.
            worker.set_log_rules(log);
            let inbox_of = workers.handles[index].inbox.clone();
            worker.called = Some(CalledRows::of(move || drop(inbox_of.send(WorkerCommand::Called))));
            let commands = Box::new(workers.handles[index].inbox.clone());
            let thread = WorkerThread { worker, inbox, workers: Arc::clone(&workers), busy_poll, stopping: false };
            let run = || {
                thread.run();
                Ok(())
            };
            threads.push(RunningThread::spawn(format!("worker-{index}"), core_of(cores, index), commands, run)?);
        }
        Ok((workers, threads))
    }

    /// The number of workers; it is fixed for the life of the process.
    pub fn len(&self) -> usize {
        self.handles.len()
    }

    /// True if there is no worker.
    pub fn is_empty(&self) -> bool {
        self.handles.is_empty()
    }

    /// The counters of each worker, by its number.
    pub fn counters(&self) -> &[Padded<WorkerCounters>] {
        &self.shared.counters
    }

    /// The memory of moves and endings of all threads.
    pub fn history(&self) -> &ClientHistory {
        &self.shared.history
    }

    /// Connections open in this process, those of the runtimes included.
    pub fn open(&self) -> usize {
        self.shared.admission.open()
    }

    /// Listening sockets that are not closed yet, over all workers.
    pub fn acceptors(&self) -> usize {
        self.counters().iter().map(|own| own.0.acceptors.value() as usize).sum()
    }

    /// Gives every worker its part of a snapshot, and returns when all have adopted it.
    pub async fn adopt(&self, adoptions: Vec<Adoption>) {
        let mut replies = Vec::new();
        for (handle, adoption) in self.handles.iter().zip(adoptions) {
            let (done, adopted) = oneshot::channel();
            handle.inbox.put(WorkerCommand::Adopt(adoption, done)).await;
            replies.push(adopted);
        }
        for adopted in replies {
            let _ = adopted.await;
        }
    }

    /// Takes established pairs out of one worker, frozen, and none where none is left; also returns how many connections
    /// it has numbered.
    pub async fn take_out(&self, worker: usize, batch: Batch) -> (Vec<Flow<Linux>>, u64) {
        let Some(handle) = self.handles.get(worker) else { return (Vec::new(), 0) };
        let (reply, taken) = oneshot::channel();
        handle.inbox.put(WorkerCommand::TakeOut(batch, reply)).await;
        taken.await.unwrap_or_default()
    }

    /// Established pairs that could be taken out, over all workers.
    pub async fn pairs(&self) -> usize {
        let mut pairs = 0;
        for handle in &self.handles {
            let (reply, counted) = oneshot::channel();
            handle.inbox.put(WorkerCommand::Pairs(reply)).await;
            pairs += counted.await.unwrap_or_default();
        }
        pairs
    }

    /// Gives frozen pairs to a worker; numbers beyond the last worker begin again at the first.
    pub async fn take_in(&self, worker: usize, flows: Vec<Flow<Linux>>) {
        if let Some(handle) = self.handles.get(worker % self.handles.len().max(1)) {
            handle.inbox.put(WorkerCommand::TakeIn(flows)).await;
        }
    }

    /// Stops accepting on every worker, and returns when the last has stopped; clients wait in the queues.
    pub async fn suspend_accepting(&self) {
        for handle in &self.handles {
            let (done, suspended) = oneshot::channel();
            handle.inbox.put(WorkerCommand::Suspend(done)).await;
            let _ = suspended.await;
        }
    }

    /// Accepts again on every worker.
    pub async fn resume_accepting(&self) {
        for handle in &self.handles {
            handle.inbox.put(WorkerCommand::Resume).await;
        }
    }

    /// Numbers connections from here on, on every worker.
    pub async fn number_from(&self, accepted: u64) {
        for handle in &self.handles {
            handle.inbox.put(WorkerCommand::NumberFrom(accepted)).await;
        }
    }

    /// Makes the next step of a connection panic, so that a test sees that no other connection is touched. Debug builds
    /// only.
    #[cfg(debug_assertions)]
    pub async fn panic(&self, id: u64) {
        if let Some(handle) = self.handles.get((id >> 48) as usize) {
            handle.inbox.put(WorkerCommand::Panic(id)).await;
        }
    }

    /// The number of connections from which on a worker hands new connections to others: clearly above the mean.
    fn fair_share(&self) -> usize {
        if self.handles.len() < 2 {
            return usize::MAX;
        }
        let mean = self.open() / self.handles.len();
        mean + mean / 4 + SLACK
    }

    /// The emptier of two other workers; `turn` is any number that differs between calls. `None`: there is no other.
    fn emptier(&self, own: usize, turn: u64) -> Option<&WorkerHandle> {
        let others = self.handles.len().checked_sub(1).filter(|others| *others > 0)?;
        let load = |index: usize| self.shared.counters[index].0.connections.value();
        let other = |turn: u64| (own + 1 + turn as usize % others) % self.handles.len();
        let (a, b) = (other(turn), other(turn / 7 + 1));
        Some(&self.handles[if load(a) <= load(b) { a } else { b }])
    }
}

impl ThreadHandle for Sender<WorkerCommand> {
    fn deliver(&self, command: ThreadCommand) -> Delivery<'_> {
        Box::pin(self.put(WorkerCommand::Thread(command)))
    }
}

/// A worker with what its thread needs beside it.
struct WorkerThread {
    worker: Worker<Linux>,
    inbox: Inbox<WorkerCommand>,
    workers: Arc<Workers>,
    /// How long the thread polls after an event before it sleeps; `None`: it sleeps at once.
    busy_poll: Option<Duration>,
    stopping: bool,
}

/// How long events of nothing but bulk wait. Measured with uploads of files into nginx over one connection and over eight:
/// 0.8 of the CPU a GiB, the same throughput; 150 µs saved no more.
const BULK_PAUSE: Duration = Duration::from_micros(50);

impl WorkerThread {
    fn run(mut self) {
        let (mut events, mut raw) = (Vec::<Event>::with_capacity(EVENTS), Vec::with_capacity(EVENTS));
        while !self.stopping {
            self.wait(&mut events, &mut raw);
            // Only accepting needs the share, and every worker writes what it is made of.
            if events.iter().any(|event| event.token.side() == Side::Listener) {
                self.worker.keep_below = self.workers.fair_share();
            }
            self.worker.turn(&events);
            if events.iter().any(|event| event.token.side() == Side::Inbox) {
                self.read_inbox();
            }
            self.hand_over();
            self.worker.counters().acceptors.set(self.worker.acceptors() as u64);
        }
        self.worker.shed(&Selection::All, usize::MAX, Ended::Stopped);
        self.worker.flush();
    }

    /// Sleeps until an event comes or a deadline is due, and a moment longer where only bulk has come: the sender goes on
    /// meanwhile, and a turn moves more. With `busy_poll` the thread polls for a while first, because waking a core takes
    /// longer.
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
        if self.busy_poll.is_none() && self.worker.are_of_bulk(events) {
            std::thread::sleep(BULK_PAUSE);
        }
    }

    fn read_inbox(&mut self) {
        self.inbox.reset_wakeup();
        while let Some(command) = self.inbox.next() {
            self.handle(command);
        }
        // Also where the inbox had no room for the command.
        self.worker.step_called();
    }

    fn handle(&mut self, command: WorkerCommand) {
        match command {
            WorkerCommand::Adopt(adoption, done) => {
                self.adopt(adoption);
                let _ = done.send(());
            }
            WorkerCommand::Incoming(incoming) => self.worker.admit(incoming),
            WorkerCommand::TakeOut(batch, reply) => {
                let taken = self.worker.take_out(batch);
                // Without a receiver the pairs stay.
                if let Err((taken, _)) = reply.send((taken, self.worker.numbered())) {
                    taken.into_iter().for_each(|flow| self.worker.take_in(flow));
                }
            }
            WorkerCommand::TakeIn(flows) => flows.into_iter().for_each(|flow| self.worker.take_in(flow)),
            WorkerCommand::Pairs(reply) => drop(reply.send(self.worker.pairs())),
            WorkerCommand::Suspend(done) => {
                self.worker.suspend_accepting();
                let _ = done.send(());
            }
            WorkerCommand::Resume => self.worker.resume_accepting(),
            WorkerCommand::NumberFrom(accepted) => self.worker.number_from(accepted),
            // The rows are stepped behind every batch of commands.
            WorkerCommand::Called => {}
            WorkerCommand::Thread(ThreadCommand::List(filter, found)) => drop(found.send(self.list(&filter))),
            WorkerCommand::Thread(ThreadCommand::Open(found)) => drop(found.send(self.open_connections())),
            WorkerCommand::Thread(ThreadCommand::Shed { selection, count, ended, done }) => {
                let _ = done.send(self.worker.shed(&selection, count, ended));
            }
            WorkerCommand::Thread(ThreadCommand::Ping(done)) => drop(done.send(())),
            WorkerCommand::Thread(ThreadCommand::Stop) => self.stopping = true,
            #[cfg(debug_assertions)]
            WorkerCommand::Panic(id) => self.worker.panic_at(id),
        }
    }

    fn list(&mut self, filter: &ConnectionFilter) -> (usize, Vec<ConnectionView>) {
        let (index, now) = (self.worker.index, clock::now());
        let (mut open, mut shown) = (0, Vec::new());
        self.worker.each(|flow| {
            let record = flow.record();
            if record.matches(filter) {
                open += 1;
                if shown.len() < filter.limit {
                    shown.push(record.view(index, now));
                }
            }
        });
        (open, shown)
    }

    fn open_connections(&mut self) -> Vec<OpenConnection> {
        let mut open = Vec::new();
        self.worker.each(|flow| open.extend(flow.record().open()));
        open
    }

    /// Adopts a snapshot. Connections wait meanwhile, so the time is measured.
    fn adopt(&mut self, adoption: Adoption) {
        let begin = clock::now();
        for number in adoption.close {
            self.worker.remove_listener(number);
        }
        for number in adoption.give_up {
            self.worker.give_up_listener(number);
        }
        for (number, listener) in adoption.rebind {
            self.worker.update_listener(number, listener);
        }
        for (number, socket, listener, shared) in adoption.open {
            self.worker.add_listener(number, socket, listener, shared);
        }
        self.worker.set_log_rules(adoption.log);
        self.worker.counters().generation.set(adoption.generation);
        self.worker.counters().adopt_us_max.raise(clock::now() - begin);
    }

    /// Gives connections that were accepted beyond this worker's share to a worker with fewer, and connections that are
    /// to be terminated to the runtime beside this worker.
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
                // The other worker has no room, so this one keeps the connection.
                Some(command) => self.handle(command),
            }
        }
        while let Some(carried) = self.worker.carried() {
            let Carried { client, bytes, permit, client_info, listener, refusal } = carried;
            if let Some(runtime) = self.workers.runtimes.get(self.worker.index) {
                // The queue has no limit of its own: each entry holds a permit. Without a receiver the process is about
                // to end.
                let client = client.into();
                let _ = runtime.send(Carried { client, bytes, permit, client_info, listener, refusal });
            }
        }
    }
}

#[cfg(test)]
mod tests;
