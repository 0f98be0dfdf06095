//! The process that leaves: starts another binary, gives it everything, and finishes what cannot go.
//!
//! The steps are in `mod.rs`. Invariant: until the new process has said that it accepts, everything that was taken
//! apart here can be put together again, and is if anything fails.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::channel::{DESCRIPTORS_MAX, sealed};
use super::kept_places::KeptPlaces;
use super::messages::{Addresses, Commit, Committed, Earlier, Hello, Kind, LastTables, Pairs, Ready, State, Taken};
use super::pairs;
use super::successor::{HELLO_MAX, Successor, TAKE_MAX};
use crate::admin::UpgradeVerdict;
use crate::clock;
use crate::detached::FOR_READING;
use crate::events::{self, Event, EventKind};
use crate::server::listen_sockets::ListenSockets;
use crate::server::lock::InstanceLock;
use crate::server::look::LOOK;
use crate::server::notify::Notification;
use crate::server::runtime_state::RuntimeState;
use crate::server::{ConfigSource, Server, lock_of, table_file};
use crate::splicer::flow::Flow;
use crate::splicer::os::Linux;
use crate::splicer::pair::Batch;

/// How long the new process may take to read its files and to bind: names may have to be resolved.
const READY_MAX: Duration = Duration::from_secs(60);

/// How long the new process may take to load the stick tables: its end would be that of every connection it has.
const COMMIT_MAX: Duration = Duration::from_secs(60);

/// How long established pairs may take to move, with all their batches.
const MOVE_MAX: Duration = Duration::from_secs(120);

/// How long an upgrade takes at most: a reload before it, every wait for the new process, and the end of one that fails.
pub const LONGEST: Duration = FOR_READING
    .whole
    .saturating_add(HELLO_MAX.saturating_mul(2))
    .saturating_add(READY_MAX)
    .saturating_add(MOVE_MAX)
    .saturating_add(COMMIT_MAX)
    .saturating_add(TAKE_MAX.saturating_mul(4));

/// Pairs of one message: two descriptors each. Those that are busy wait for fewer others.
const BATCH: Batch = Batch { quiet: 100, busy: 8 };

/// Pairs that a round may leave behind: the round after it is made with accepting suspended.
const FEW: usize = 20;

/// Most rounds before accepting is suspended, however many pairs come meanwhile.
const ROUNDS: usize = 10;

/// Pairs of a worker that were sent and may not be the new process's.
struct Unsettled {
    worker: usize,
    flows: Vec<Flow<Linux>>,
}

/// Why an upgrade failed.
#[derive(Default)]
struct HandOverFailure {
    problems: Vec<String>,
    /// To be taken in again, once the new process can no longer read from them.
    unsettled: Option<Unsettled>,
}

impl From<Vec<String>> for HandOverFailure {
    fn from(problems: Vec<String>) -> Self {
        Self { problems, unsettled: None }
    }
}

impl Server {
    /// Starts a binary, `None`: the one of this process, and gives everything to it.
    pub(in crate::server) async fn upgrade_to(self: &Arc<Self>, binary: Option<PathBuf>) -> UpgradeVerdict {
        // One change at a time: a reload or another upgrade is finished first.
        let mut listen_sockets = self.listen_sockets.lock().await;
        let _under_way = self.handover.begin().await;
        if self.stopping.load(Relaxed) || self.handover.told_at().is_some() {
            return refused(vec!["the process is stopping, or has been upgraded already".into()]);
        }
        if std::process::id() == 1 {
            return refused(vec!["this is process 1 of a container, which ends with it: restart the container".into()]);
        }
        let binary = binary.unwrap_or_else(|| self.binary.clone());
        note_step(&format!("upgrade: starting {}", binary.display()));
        let of_arguments = || KeptPlaces::of(&self.current.load().config);
        let places = matches!(self.source, ConfigSource::Arguments(_)).then(of_arguments);
        let successor = match Successor::start(&binary, self.handover.told(), places.as_ref()).await {
            Ok(successor) => Arc::new(successor),
            Err(problems) => return refused(problems),
        };
        let files = listen_sockets.files();
        self.handover.set_successor(Some(Arc::clone(&successor)));
        match self.hand_over(&successor, &mut listen_sockets).await {
            Ok((Hello { pid, version, .. }, pairs)) => {
                let conversations = self.workers.open();
                note_step(&format!(
                    "upgrade: process {pid} (version {version}) serves from here on; {pairs} connections moved, \
                     {conversations} are finished here"
                ));
                self.handover.leave();
                self.give_tails_on(&successor).await;
                UpgradeVerdict { accepted: true, pid, version, pairs, conversations, problems: Vec::new() }
            }
            Err(HandOverFailure { problems, unsettled }) => {
                self.handover.set_gives_state(false);
                // Before anything is taken back: two processes must not read one connection.
                successor.kill().await;
                files.iter().for_each(|(file, access)| file.restore(*access));
                self.handover.set_successor(None);
                if let Some(Unsettled { worker, flows }) = unsettled {
                    self.workers.take_in(worker, flows).await;
                }
                self.workers.resume_accepting().await;
                refused(problems)
            }
        }
    }

    /// Steps 1 to 4. An error says why this process goes on as before.
    async fn hand_over(
        self: &Arc<Self>,
        successor: &Successor,
        listen_sockets: &mut ListenSockets,
    ) -> Result<(Hello, usize), HandOverFailure> {
        successor.send(Kind::Hello, &Hello::own(), &[], &[]).await?;
        let hello: Hello = successor.hear(Kind::Hello, HELLO_MAX).await?;
        hello.common().map_err(|none| vec![none])?;
        self.send_state(successor, listen_sockets).await?;
        let ready: Ready = successor.hear(Kind::Ready, READY_MAX).await?;
        let needed = 2 * self.workers.open() as u64 + DESCRIPTORS_MAX as u64;
        if ready.descriptors < needed {
            let may = ready.descriptors;
            return Err(vec![format!("the new process may open {may} descriptors, and {needed} are needed")].into());
        }
        // From here on the new process has connections, and its end would be theirs.
        let until = Instant::now() + MOVE_MAX;
        let (mut pairs, mut numbered) = (0, 0);
        for _ in 0..ROUNDS {
            let moved = self.send_pairs(successor, &mut numbered, until).await?;
            pairs += moved;
            if moved <= FEW {
                break;
            }
        }
        self.handover.set_gives_state(true);
        self.workers.suspend_accepting().await;
        pairs += self.send_pairs(successor, &mut numbered, until).await?;
        self.commit(successor, numbered).await?;
        successor.note_committed();
        self.leave(&hello, &ready, listen_sockets).await;
        Ok((hello, pairs))
    }

    /// Gives up everything that the new process has: it serves from here on, and speaks for the service.
    async fn leave(self: &Arc<Self>, hello: &Hello, ready: &Ready, listen_sockets: &mut ListenSockets) {
        self.manager.notify(&[Notification::MainPid(hello.pid)]);
        self.stopping.store(true, Relaxed);
        let adoptions = listen_sockets.give_up(&ready.keeps, &self.current.load());
        self.workers.adopt(adoptions).await;
        // What the new process does not keep closes once its backlog is served.
        self.workers.resume_accepting().await;
        // Before anything that may wait: the new process learns only at the end what conversations change from here on.
        self.runtimes.begin_drain();
        self.give_way(!ready.leaves_admin_socket).await;
    }

    /// Gives the processes before this one to the new one, which takes what they still have and tells them to stop.
    async fn give_tails_on(&self, successor: &Successor) {
        for tail in self.handover.tails().take() {
            let pid = tail.process.pid();
            let Ok(Some(channel)) = tail.task.await else { continue };
            if let Err(problems) = successor.send(Kind::Earlier, &Earlier { pid }, &[], &[channel.as_fd()]).await {
                tracing::warn!("upgrade: process {pid} finishes its conversations by itself: {}", problems.join("; "));
            }
        }
    }

    /// Step 2: listening sockets, then lock, admin sockets and state.
    async fn send_state(&self, successor: &Successor, listen_sockets: &ListenSockets) -> Result<(), HandOverFailure> {
        for (facts, sockets) in listen_sockets.inventory(DESCRIPTORS_MAX) {
            let descriptors: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
            successor.send(Kind::Addresses, &Addresses { addresses: vec![facts] }, &[], &descriptors).await?;
        }
        let copied = self.lock_copy().and_then(|lock| Ok((lock, self.admin.copies()?)));
        let (lock, admin) = copied.map_err(|error| vec![format!("the lock and the admin sockets: {error}")])?;
        let state = State {
            secret: format!("{:032x}", u128::from_be_bytes(self.current.load().secret.bytes())),
            open: self.workers.open(),
            lock: lock.is_some(),
            admin_socket: admin.unix.as_ref().map(|(_, path)| path.clone()),
            admin_http: admin.http.as_ref().map(|(_, address)| *address),
            runtime: self.runtime_state(),
        };
        let unix = admin.unix.as_ref().map(|(socket, _)| socket);
        let http = admin.http.as_ref().map(|(socket, _)| socket);
        let descriptors: Vec<_> = lock.iter().chain(unix).chain(http).map(AsFd::as_fd).collect();
        Ok(successor.send(Kind::State, &state, &[], &descriptors).await?)
    }

    /// Step 3: sends every established pair, and returns how many. `numbered` grows to what workers have numbered.
    async fn send_pairs(
        &self,
        successor: &Successor,
        numbered: &mut u64,
        until: Instant,
    ) -> Result<usize, HandOverFailure> {
        let mut moved = 0;
        for (worker, counters) in self.workers.counters().iter().enumerate() {
            // Pairs that come meanwhile are the next round's.
            let (most, before) = (counters.0.connections.value() as usize, moved);
            while moved <= before + most {
                let (flows, own) = self.workers.take_out(worker, BATCH).await;
                *numbered = own.max(*numbered);
                if flows.is_empty() {
                    break;
                }
                let patience = until.saturating_duration_since(Instant::now()).min(TAKE_MAX);
                let sent = async {
                    let (document, owed, sockets): (Pairs, _, _) = pairs::document(worker, &flows);
                    successor.send(Kind::Pairs, &document, &owed, &sockets).await?;
                    successor.hear::<Taken>(Kind::Taken, patience).await
                };
                let problems = match sent.await {
                    Ok(taken) if taken.pairs == flows.len() => None,
                    Ok(taken) => Some(vec![format!("{} of {} connections were taken", taken.pairs, flows.len())]),
                    Err(problems) => Some(problems),
                };
                if let Some(problems) = problems {
                    return Err(HandOverFailure { problems, unsettled: Some(Unsettled { worker, flows }) });
                }
                // Dropping the rows closes this process's copies of their sockets; the others stay open.
                successor.note_pairs();
                moved += flows.len();
            }
        }
        Ok(moved)
    }

    /// Step 4: the stick tables as they are now; the new process accepts once it has said so.
    async fn commit(&self, successor: &Successor, numbered: u64) -> Result<(), HandOverFailure> {
        self.handover.set_may_change_tables(self.workers.open() > 0);
        // Without them the new process still has the connections, which are worth more.
        let tables = self.tables().await.inspect_err(|why| tracing::warn!("upgrade: no stick tables are given: {why}"));
        let descriptors: Vec<_> = tables.iter().map(AsFd::as_fd).collect();
        let commit = Commit { numbered, runtime: self.runtime_state() };
        successor.send(Kind::Commit, &commit, &[], &descriptors).await?;
        let _: Committed = successor.hear(Kind::Committed, COMMIT_MAX).await?;
        Ok(())
    }

    /// The stick tables as they are now, in the format of the stick-table file.
    pub(super) async fn tables(&self) -> std::io::Result<OwnedFd> {
        let snapshot = self.current.load_full();
        let written = tokio::task::spawn_blocking(move || sealed(|file| table_file::write_to(file, &snapshot)));
        written.await.unwrap_or_else(|panic| Err(std::io::Error::other(panic)))
    }

    /// A copy of the lock; `None`: there is none.
    fn lock_copy(&self) -> std::io::Result<Option<OwnedFd>> {
        lock_of(&self.lock).as_mut().map(InstanceLock::copy).transpose()
    }

    /// What commands and time have made of the backends and of the shared store.
    pub(super) fn runtime_state(&self) -> Value {
        let state = RuntimeState::of(&self.current.load(), clock::now_ms(), clock::unix_ms()).with_store(&self.store);
        let state = state.with_events(events::ring().kept());
        serde_json::to_value(state).unwrap_or_default()
    }

    /// Step 5: finishes conversations, sends pairs that were still connecting, and at last what conversations have made of
    /// the stick tables. Returns when no connection is left. A stop ends conversations sooner, at `stop_deadline`.
    pub(in crate::server) async fn finish_upgrade(&self) {
        let Some(successor) = self.handover.successor() else { return };
        let process = self.current.load().config.process.clone();
        let latest = Instant::now() + process.upgrade_deadline;
        let until = || self.handover.told_at().map_or(latest, |told| latest.min(told + process.stop_deadline));
        let (mut takes, mut numbered, mut is_told) = (true, 0, false);
        let mut may_change_tables = self.handover.may_change_tables();
        while (self.workers.open() > 0 || self.workers.acceptors() > 0) && Instant::now() < until() {
            if takes && let Err(failure) = self.send_pairs(&successor, &mut numbered, until()).await {
                let why = failure.problems.join("; ");
                tracing::warn!("upgrade: connections that were still connecting stay here: {why}");
                // What was sent to a process that still takes it is that process's, however slow it is.
                if let Some(Unsettled { worker, flows }) = failure.unsettled.filter(|_| successor.takes_no_more()) {
                    self.workers.take_in(worker, flows).await;
                }
                takes = false;
            }
            may_change_tables |= self.workers.acceptors() > 0;
            if self.handover.told_at().is_some() && !std::mem::replace(&mut is_told, true) {
                let (open, within) = (self.workers.open(), process.stop_deadline.as_secs());
                tracing::info!("stopping: {open} connections may finish within {within} s");
            }
            tokio::time::sleep(LOOK).await;
        }
        self.close_spread().await;
        if may_change_tables {
            self.send_last_tables(&successor).await;
        }
    }

    /// Sends the stick tables once more: conversations have gone on to learn after they were given over.
    async fn send_last_tables(&self, successor: &Successor) {
        let sent = match self.tables().await {
            Ok(tables) => successor.send(Kind::LastTables, &LastTables {}, &[], &[tables.as_fd()]).await,
            Err(error) => Err(vec![error.to_string()]),
        };
        if let Err(problems) = sent {
            tracing::warn!("upgrade: what the last conversations have learned is lost: {}", problems.join("; "));
        }
    }
}

fn note_step(text: &str) {
    events::info(clock::unix_ms(), Event::new(EventKind::Upgrade, text));
}

fn refused(problems: Vec<String>) -> UpgradeVerdict {
    let text = format!("upgrade refused, this process goes on: {}", problems.join("; "));
    tracing::error!("{text}");
    events::note(clock::unix_ms(), Event::new(EventKind::Upgrade, &text));
    UpgradeVerdict { problems, ..UpgradeVerdict::default() }
}
