//! The process that leaves: starts another binary, gives it everything, and finishes what cannot go.
//!
//! The steps are in `mod.rs`. Invariant: until the new process has said that it accepts, everything that was taken
//! apart here can be put together again, and is if anything fails.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::Serialize;
use serde_json::Value;
use tokio::time::timeout;

use super::channel::{Channel, ChannelError, DESCRIPTORS_MAX, Message, sealed};
use super::launch::launch;
use super::messages::{Addresses, Commit, Committed, Hello, Kind, Launched, Ready, Refused, State, Taken};
use super::pairs;
use crate::admin::UpgradeVerdict;
use crate::clock;
use crate::server::listen_sockets::ListenSockets;
use crate::server::lock::InstanceLock;
use crate::server::notify::Notification;
use crate::server::runtime_state::RuntimeState;
use crate::server::{Server, lock_of, table_file};
use crate::splicer::flow::Flow;
use crate::splicer::os::Linux;

/// How long the new process may take to answer once it runs.
const HELLO_MAX: Duration = Duration::from_secs(10);

/// How long the new process may take to read its files and to bind: names may have to be resolved.
const READY_MAX: Duration = Duration::from_secs(60);

/// How long the new process may take to take a batch.
const TAKE_MAX: Duration = Duration::from_secs(10);

/// How long the new process may take to load the stick tables: its end would be that of every connection it has.
const COMMIT_MAX: Duration = Duration::from_secs(60);

/// Most pairs of one batch: two descriptors each. While a batch is under way its pairs stand still, so that of busy ones
/// has fewer.
const BATCH: usize = 100;

/// Pairs that a round may leave behind: the round after it is made with accepting suspended.
const FEW: usize = 20;

/// Most rounds before accepting is suspended, however many pairs come meanwhile.
const ROUNDS: usize = 10;

/// How often the rest is looked at after the commit.
const LOOK: Duration = Duration::from_millis(20);

/// The process that follows this one.
pub(in crate::server) struct Successor {
    channel: Channel,
    /// The process by a descriptor: no other process can get its number meanwhile.
    process: OwnedFd,
}

impl Successor {
    /// Has the binary started as this process was started, with its end of the pair as standard input.
    async fn start(binary: &Path) -> Result<Self, Vec<String>> {
        let failed = |error: std::io::Error| vec![format!("the new process cannot be started: {error}")];
        let (ours, mut between) = launch(binary).map_err(failed)?;
        let channel = Channel::new(ours).map_err(failed)?;
        let launched = hear::<Launched>(&channel, Kind::Launched, HELLO_MAX).await;
        // It ends as soon as it has said so.
        tokio::task::spawn_blocking(move || between.wait());
        let pid = i32::try_from(launched?.pid).ok().and_then(Pid::from_raw);
        let process = pid.ok_or(Errno::SRCH).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()));
        Ok(Self { channel, process: process.map_err(|error| failed(error.into()))? })
    }

    fn signal(&self, signal: Signal) {
        // A process that has ended needs none.
        let _ = pidfd_send_signal(&self.process, signal);
    }

    /// Kills the process, and waits until it has ended.
    async fn kill(&self) {
        self.signal(Signal::KILL);
        let ended = async {
            while !self.has_ended() {
                tokio::time::sleep(LOOK).await;
            }
        };
        let _ = timeout(TAKE_MAX, ended).await;
    }

    /// True if the process has ended: its descriptor is readable then (pidfd_open(2)).
    fn has_ended(&self) -> bool {
        let mut process = [PollFd::new(&self.process, PollFlags::IN)];
        poll(&mut process, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
    }
}

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

impl From<ChannelError> for HandOverFailure {
    fn from(error: ChannelError) -> Self {
        vec![said(&error)].into()
    }
}

impl Server {
    /// Starts a binary, `None`: the one of this process, and gives everything to it.
    pub(in crate::server) async fn upgrade_to(self: &Arc<Self>, binary: Option<PathBuf>) -> UpgradeVerdict {
        // One change at a time: a reload or another upgrade is finished first.
        let mut listen_sockets = self.listen_sockets.lock().await;
        if self.stopping.load(Relaxed) {
            return refused(vec!["the process is stopping, or has been upgraded already".into()]);
        }
        if std::process::id() == 1 {
            return refused(vec!["this is process 1 of a container, which ends with it: restart the container".into()]);
        }
        let binary = binary.unwrap_or_else(|| self.binary.clone());
        tracing::info!("upgrade: starting {}", binary.display());
        let successor = match Successor::start(&binary).await {
            Ok(successor) => successor,
            Err(problems) => return refused(problems),
        };
        let files = listen_sockets.files();
        match self.hand_over(&successor, &mut listen_sockets).await {
            Ok((Hello { pid, version, .. }, pairs)) => {
                let conversations = self.workers.open();
                tracing::info!(
                    "upgrade: process {pid} (version {version}) serves from here on; {pairs} connections moved, \
                     {conversations} are finished here"
                );
                *lock_of(&self.successor) = Some(successor);
                self.left.notify_one();
                UpgradeVerdict { accepted: true, pid, version, pairs, conversations, problems: Vec::new() }
            }
            Err(HandOverFailure { problems, unsettled }) => {
                self.gives_state.store(false, Relaxed);
                // Before anything is taken back: two processes must not read one connection.
                successor.kill().await;
                files.iter().for_each(|(file, access)| file.restore(*access));
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
        let channel = &successor.channel;
        send(channel, Kind::Hello, &Hello::own(), &[]).await?;
        let hello: Hello = hear(channel, Kind::Hello, HELLO_MAX).await?;
        hello.common().map_err(|none| vec![none])?;
        self.send_state(channel, listen_sockets).await?;
        let ready: Ready = hear(channel, Kind::Ready, READY_MAX).await?;
        let needed = 2 * self.workers.open() as u64 + DESCRIPTORS_MAX as u64;
        if ready.descriptors < needed {
            let may = ready.descriptors;
            return Err(vec![format!("the new process may open {may} descriptors, and {needed} are needed")].into());
        }
        if self.stopping.load(Relaxed) {
            return Err(vec!["the process was told to stop meanwhile".into()].into());
        }
        // From here on the new process has connections, and its end would be theirs.
        let (mut pairs, mut numbered) = (0, 0);
        for _ in 0..ROUNDS {
            let moved = self.send_pairs(channel, &mut numbered, TAKE_MAX).await?;
            pairs += moved;
            if moved <= FEW {
                break;
            }
        }
        self.gives_state.store(true, Relaxed);
        self.workers.suspend_accepting().await;
        pairs += self.send_pairs(channel, &mut numbered, TAKE_MAX).await?;
        self.commit(channel, numbered).await?;
        self.leave(successor, &hello, &ready, listen_sockets).await;
        Ok((hello, pairs))
    }

    /// Gives up everything that the new process has: it serves from here on, and speaks for the service.
    async fn leave(
        self: &Arc<Self>,
        successor: &Successor,
        hello: &Hello,
        ready: &Ready,
        listen_sockets: &mut ListenSockets,
    ) {
        self.manager.notify(&[Notification::MainPid(hello.pid)]);
        if self.stopping.swap(true, Relaxed) {
            // Told to stop while connections moved: it is the new process that stops with them.
            successor.signal(Signal::TERM);
        }
        let adoptions = listen_sockets.give_up(&ready.keeps, &self.current.load());
        self.workers.adopt(adoptions).await;
        // What the new process does not keep closes once its backlog is served.
        self.workers.resume_accepting().await;
        // Before anything that may wait: what conversations write into the stick tables is not the new process's.
        self.runtimes.begin_drain();
        self.give_way().await;
    }

    /// Step 2: listening sockets, then lock, admin sockets and state.
    async fn send_state(&self, channel: &Channel, listen_sockets: &ListenSockets) -> Result<(), ChannelError> {
        for (facts, sockets) in listen_sockets.inventory() {
            for sockets in sockets.chunks(DESCRIPTORS_MAX) {
                let facts = super::AddressFacts { sockets: sockets.len(), ..facts.clone() };
                let descriptors: Vec<_> = sockets.iter().map(|socket| socket.as_fd()).collect();
                send(channel, Kind::Addresses, &Addresses { addresses: vec![facts] }, &descriptors).await?;
            }
        }
        let (lock, admin) = (self.lock_copy()?, lock_of(&self.admin_copies).try_clone()?);
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
        send(channel, Kind::State, &state, &descriptors).await
    }

    /// Step 3: sends every established pair, and returns how many. `numbered` grows to what workers have numbered;
    /// `patience`: how long the new process may take for a batch.
    async fn send_pairs(
        &self,
        channel: &Channel,
        numbered: &mut u64,
        patience: Duration,
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
                let sent = async {
                    let (document, owed, sockets) = pairs::document(worker, &flows);
                    let sent = channel.send(Kind::Pairs as u16, &document, &owed, &sockets).await;
                    sent.map_err(|error| vec![said(&error)])?;
                    hear::<Taken>(channel, Kind::Taken, patience).await
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
                moved += flows.len();
            }
        }
        Ok(moved)
    }

    /// Step 4: the stick tables as they are now; the new process accepts once it has said so.
    async fn commit(&self, channel: &Channel, numbered: u64) -> Result<(), HandOverFailure> {
        let tables = self.sealed_tables().await.map_err(|error| vec![format!("the stick tables: {error}")])?;
        let commit = Commit { numbered, runtime: self.runtime_state() };
        send(channel, Kind::Commit, &commit, &[tables.as_fd()]).await?;
        let _: Committed = hear(channel, Kind::Committed, COMMIT_MAX).await?;
        Ok(())
    }

    /// The stick tables of now, in a memfd.
    pub(super) async fn sealed_tables(&self) -> std::io::Result<OwnedFd> {
        let snapshot = self.current.load_full();
        let tables = tokio::task::spawn_blocking(move || sealed(|file| table_file::write_to(file, &snapshot)));
        tables.await.unwrap_or_else(|panic| Err(std::io::Error::other(panic)))
    }

    /// A copy of the lock; `None`: there is none.
    fn lock_copy(&self) -> std::io::Result<Option<OwnedFd>> {
        lock_of(&self.lock).as_ref().map(InstanceLock::copy).transpose()
    }

    /// What commands and time have made of the backends.
    pub(super) fn runtime_state(&self) -> Value {
        let state = RuntimeState::of(&self.current.load(), clock::now_ms(), clock::unix_ms());
        serde_json::to_value(state).unwrap_or_default()
    }

    /// Step 5: finishes conversations and sends pairs that were still connecting. Returns when no connection is left.
    pub(in crate::server) async fn finish_upgrade(&self) {
        let Some(successor) = lock_of(&self.successor).take() else { return };
        let most = self.current.load().config.process.upgrade_deadline;
        let deadline = Instant::now() + most;
        let (mut takes, mut numbered) = (true, 0);
        while (self.workers.open() > 0 || self.workers.acceptors() > 0) && Instant::now() < deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if takes && let Err(failure) = self.send_pairs(&successor.channel, &mut numbered, left).await {
                let why = failure.problems.join("; ");
                tracing::warn!("upgrade: connections that were still connecting stay here: {why}");
                // What was sent to a process that lives is that process's, however slow it is.
                if let Some(Unsettled { worker, flows }) = failure.unsettled.filter(|_| successor.has_ended()) {
                    self.workers.take_in(worker, flows).await;
                }
                takes = false;
            }
            tokio::time::sleep(LOOK).await;
        }
        self.close_spread().await;
    }
}

async fn send(
    channel: &Channel,
    kind: Kind,
    document: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), ChannelError> {
    channel.send(kind as u16, document, &[], descriptors).await
}

/// Waits for a message of one kind; a refusal is an error with its problems, and unknown messages are skipped.
async fn hear<D: serde::de::DeserializeOwned>(
    channel: &Channel,
    kind: Kind,
    patience: Duration,
) -> Result<D, Vec<String>> {
    let one = |error: ChannelError| vec![said(&error)];
    let heard = async {
        loop {
            let message: Message = channel.receive().await.map_err(one)?;
            if message.kind == kind as u16 {
                return message.read().map_err(one);
            }
            if message.kind == Kind::Refused as u16 {
                return Err(message.read::<Refused>().map_err(one)?.problems);
            }
        }
    };
    let late = |_| Err(vec![format!("the new process said nothing for {} s", patience.as_secs())]);
    timeout(patience, heard).await.unwrap_or_else(late)
}

/// An error of the channel, as the operator reads it.
fn said(error: &ChannelError) -> String {
    match error {
        ChannelError::Closed => "the new process has ended; the log has its messages".to_owned(),
        _ => error.to_string(),
    }
}

fn refused(problems: Vec<String>) -> UpgradeVerdict {
    tracing::error!("upgrade refused, this process goes on: {}", problems.join("; "));
    UpgradeVerdict { problems, ..UpgradeVerdict::default() }
}
