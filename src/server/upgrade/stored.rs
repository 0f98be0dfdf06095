//! A restart by a service manager that keeps a descriptor meanwhile: the process that leaves queues everything for the
//! next one, and the manager has the queue until that one runs.
//!
//! The messages are those of an upgrade, without answers; the next process reads them as `arrive.rs` does. Conversations
//! cannot move: those that are open at the signal may finish first, and new clients are served meanwhile. Invariant:
//! until the manager has confirmed that it keeps the queue, everything that was taken apart here can be put together
//! again, and is if anything fails; nothing of it is left in the queue then.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::net::unix::pipe;

use super::channel::DESCRIPTORS_MAX;
use super::messages::{Addresses, Commit, Hello, Kind, State};
use super::pairs;
use super::queue::Queue;
use crate::connection::Selection;
use crate::detached::{self, Patience};
use crate::outcome::Ended;
use crate::server::discovery::Before;
use crate::server::listen_sockets::ListenSockets;
use crate::server::look::{LOOK, wait_until};
use crate::server::runtime_state::RuntimeState;
use crate::server::service_job::ServiceJob;
use crate::server::systemd::STORED;
use crate::server::{Server, stop};
use crate::splicer::flow::Flow;
use crate::splicer::os::Linux;
use crate::splicer::pair::Batch;
use crate::terminate::CLOSING_MAX;

/// How long the files of the next process may take to be read, before it is known whether it can start.
const READ_MAX: Patience = Patience { each: Duration::from_secs(2), whole: Duration::from_secs(10) };

/// How long connections that connect or answer may take once no more are accepted; clients wait meanwhile.
const SETTLE_MAX: Duration = Duration::from_secs(2);

/// How long the manager may take to confirm that it keeps the queue.
const STORE_MAX: Duration = Duration::from_secs(5);

/// Pairs of one message: two descriptors each. All of them wait for the next process.
const BATCH: usize = DESCRIPTORS_MAX / 2;

/// Frozen pairs of one worker that are in the queue. The rows stay here until the manager has the queue.
struct QueuedPairs {
    worker: usize,
    flows: Vec<Flow<Linux>>,
}

impl Server {
    /// Leaves everything to the next process, where the service manager starts one and keeps a descriptor until then.
    /// False: this process goes on, with everything that it had.
    pub(in crate::server) async fn leave_by_store(self: &Arc<Self>) -> bool {
        self.stopping.store(true, Relaxed);
        // At once: another signal to stop is the second one for them as well.
        self.handover.tails().stop();
        self.readings.give_up();
        self.is_restarted().await && self.leave_to_the_next().await
    }

    /// True if a next process follows that can start and gets what is stored for it.
    async fn is_restarted(&self) -> bool {
        if !self.manager.is_there() {
            return false;
        }
        match ServiceJob::of_this_process().await {
            Ok(ServiceJob { restarts: false, .. }) => return false,
            Ok(ServiceJob { keeps_descriptors: false, .. }) => {
                tracing::info!("restart: the unit has no FileDescriptorStoreMax, so connections end with this process");
                return false;
            }
            Ok(_) => {}
            Err(why) => {
                tracing::info!("the service manager does not say whether this is a restart: {why}; this process stops");
                return false;
            }
        }
        let (source, state) = (self.source.clone(), RuntimeState::from_value(self.runtime_state()).ok());
        // As the next process will read it, which gets the backends that sources have named.
        let read = move || source.read(Before::Process(&|_| state.clone())).map(drop);
        let read = detached::finished_within("reading", READ_MAX, read).await;
        let problems = match read {
            Ok(Ok(())) => return true,
            Ok(Err(problems)) => problems.join("; "),
            Err(unfinished) => unfinished.to_string(),
        };
        tracing::error!("restart: the next process could not start, so connections end with this one: {problems}");
        false
    }

    /// The same, for a process that is known to follow.
    async fn leave_to_the_next(self: &Arc<Self>) -> bool {
        // A reload is finished first; no other one begins.
        drop(self.listen_sockets.lock().await);
        tracing::info!("restart: {} connections, those that can move go on in the next process", self.workers.open());
        self.finish_conversations().await;
        // A copy for a next process that finds the queue damaged; while clients are still served, because it may take long.
        self.write_table_file(true).await;
        let listen_sockets = self.listen_sockets.lock().await;
        self.handover.set_gives_state(true);
        self.workers.suspend_accepting().await;
        self.settle().await;
        let mut queued = Vec::new();
        match self.queue_and_store(&listen_sockets, &mut queued).await {
            Ok(()) => {
                self.close_the_rest(&queued).await;
                self.stick_table_file.leave();
                // A failure is in the log.
                let _ = self.keep_state(true).await;
                true
            }
            Err(why) => {
                tracing::error!("restart: {why}; connections end with this process");
                for QueuedPairs { worker, flows } in queued {
                    self.workers.take_in(worker, flows).await;
                }
                self.handover.set_gives_state(false);
                self.workers.resume_accepting().await;
                false
            }
        }
    }

    /// Serves clients until the conversations have ended that are open now, here and in the processes before this one, but
    /// no longer than `stop_deadline`: the service manager kills those with this one.
    async fn finish_conversations(&self) {
        self.runtimes.begin_drain();
        let process = self.current.load().config.process.clone();
        let (deadline, tails_until) = (Instant::now() + process.stop_deadline, stop::tails_until(&process));
        wait_until(deadline, || async { self.runtimes.older_than_drain().await == 0 }).await;
        self.handover.tails().ended(tails_until).await;
    }

    /// Waits for a short time until nothing but established pairs is left.
    async fn settle(&self) {
        wait_until(Instant::now() + SETTLE_MAX, || async { self.workers.open() <= self.workers.pairs().await }).await;
    }

    /// Queues everything, and returns once the manager keeps the queue. After an error the queue is empty, and `queued`
    /// has the pairs that were in it.
    async fn queue_and_store(
        &self,
        listen_sockets: &ListenSockets,
        queued: &mut Vec<QueuedPairs>,
    ) -> Result<(), String> {
        let queue = Queue::new().map_err(|error| format!("no queue for the next process: {error}"))?;
        let stored = async {
            self.fill(&queue, listen_sockets, queued).await?;
            self.store(&queue).await
        };
        let stored = stored.await;
        if stored.is_err() {
            // Before a pair goes on here: two processes must not read one connection.
            queue.take_back();
            self.manager.forget(STORED);
        }
        stored
    }

    /// Puts everything into the queue. Pairs that find no room stay with their workers.
    async fn fill(
        &self,
        queue: &Queue,
        listen_sockets: &ListenSockets,
        queued: &mut Vec<QueuedPairs>,
    ) -> Result<(), String> {
        let fits = |what: &str, put: io::Result<bool>| match put {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("{what} find no room in the queue for the next process")),
            Err(error) => Err(format!("{what} cannot be queued for the next process: {error}")),
        };
        fits("greetings", queue.put(Kind::Hello as u16, &Hello::own(), &[], &[]))?;
        for (facts, sockets) in listen_sockets.inventory(DESCRIPTORS_MAX) {
            // The manager passes its own sockets to every process.
            if facts.bind.starts_with("systemd:") {
                continue;
            }
            let descriptors: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
            let addresses = Addresses { addresses: vec![facts] };
            fits("listening sockets", queue.put(Kind::Addresses as u16, &addresses, &[], &descriptors))?;
        }
        let secret = format!("{:032x}", u128::from_be_bytes(self.current.load().secret.bytes()));
        let state = State { secret, open: self.workers.open(), runtime: self.runtime_state(), ..State::default() };
        fits("facts", queue.put(Kind::State as u16, &state, &[], &[]))?;
        let numbered = self.queue_pairs(queue, queued).await?;
        let tables = self.tables().await.map_err(|error| format!("the stick tables: {error}"))?;
        let commit = Commit { numbered, runtime: self.runtime_state() };
        fits("stick tables", queue.put_last(Kind::Commit as u16, &commit, tables.as_fd()))
    }

    /// Queues pairs as long as there is room; returns how many connections workers have numbered.
    async fn queue_pairs(&self, queue: &Queue, queued: &mut Vec<QueuedPairs>) -> Result<u64, String> {
        let mut numbered = 0;
        for worker in 0..self.workers.len() {
            loop {
                let (flows, own) = self.workers.take_out(worker, Batch::of(BATCH)).await;
                numbered = own.max(numbered);
                if flows.is_empty() {
                    break;
                }
                let (document, owed, sockets) = pairs::document(worker, &flows);
                let put = queue.put(Kind::Pairs as u16, &document, &owed, &sockets);
                drop(sockets);
                if matches!(put, Ok(true)) {
                    queued.push(QueuedPairs { worker, flows });
                    continue;
                }
                self.workers.take_in(worker, flows).await;
                put.map_err(|error| format!("connections cannot be queued for the next process: {error}"))?;
                // The others are asked as well: for what still fits, and for the numbers that they have given.
                break;
            }
        }
        Ok(numbered)
    }

    /// Gives the queue to the manager, and returns when it has confirmed that it has it.
    async fn store(&self, queue: &Queue) -> Result<(), String> {
        let stored = async {
            until_taken(|| self.manager.store(STORED, queue.reader())).await?;
            let barrier = until_taken(|| self.manager.barrier()).await?;
            pipe::Receiver::from_owned_fd(barrier)?.readable().await
        };
        match tokio::time::timeout(STORE_MAX, stored).await {
            Ok(stored) => stored.map_err(|error| format!("the service manager does not keep the queue: {error}")),
            Err(_) => Err(format!("the service manager has not confirmed the queue within {} s", STORE_MAX.as_secs())),
        }
    }

    /// Ends what cannot move, after everything else is the next process's.
    async fn close_the_rest(&self, queued: &[QueuedPairs]) {
        let held: usize = queued.iter().map(|pairs| pairs.flows.len()).sum();
        let (without_room, left) = (self.workers.pairs().await, self.workers.open().saturating_sub(held));
        if without_room > 0 {
            tracing::warn!(
                "restart: {without_room} connections find no room in the queue (net.core.wmem_max, LimitNOFILE)"
            );
        }
        tracing::info!("restart: {held} connections go on in the next process, {left} end here");
        if left == 0 {
            return;
        }
        self.threads.shed(&Selection::All, usize::MAX, Ended::Stopped).await;
        wait_until(Instant::now() + CLOSING_MAX, || async { self.workers.open() <= held }).await;
    }
}

/// Tries until the manager takes a message.
async fn until_taken<T>(tell: impl Fn() -> io::Result<T>) -> io::Result<T> {
    loop {
        match tell() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(LOOK).await,
            told => return told,
        }
    }
}
