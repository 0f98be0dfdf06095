//! The process that leaves: starts another binary, gives it everything, and finishes what cannot go.
//!
//! The steps are in `mod.rs`. Invariant: until the new process has said that it accepts, everything that was taken
//! apart here can be put together again, and is if anything fails.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::Serialize;
use serde_json::Value;
use tokio::time::timeout;

use super::channel::{Channel, ChannelError, DESCRIPTORS_MAX, Message, sealed};
use super::launch::launch;
use super::messages::{Addresses, Commit, Hello, Kind, Launched, Ready, Refused, State};
use super::pairs;
use crate::admin::UpgradeVerdict;
use crate::clock;
use crate::server::listen_sockets::ListenSockets;
use crate::server::lock::InstanceLock;
use crate::server::notify::Notification;
use crate::server::runtime_state::RuntimeState;
use crate::server::{Server, lock_of};

/// How long the new process may take to answer once it runs.
const HELLO_MAX: Duration = Duration::from_secs(10);

/// How long the new process may take to read its files and to bind: names may have to be resolved.
const READY_MAX: Duration = Duration::from_secs(60);

/// How long the new process may take to take a batch, or to load the stick tables.
const TAKE_MAX: Duration = Duration::from_secs(10);

/// Pairs of one batch: two descriptors each. While a batch is under way its pairs stand still.
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
    hello: Hello,
}

/// The new process, to be killed if it does not take over. No other process can get its number meanwhile.
struct Started {
    process: OwnedFd,
}

impl Started {
    fn new(pid: u32) -> Result<Self, String> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or("the new process has no number")?;
        let process = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| format!("the new process: {error}"))?;
        Ok(Self { process })
    }

    /// Kills the process, and waits until it has closed its end of the channel.
    async fn kill(&self, channel: &Channel) {
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
        let closed = async { while channel.receive().await.is_ok() {} };
        let _ = timeout(TAKE_MAX, closed).await;
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
        let binary = binary.unwrap_or_else(|| self.binary.clone());
        tracing::info!("upgrade: starting {}", binary.display());
        let (channel, started) = match start(&binary).await {
            Ok(started) => started,
            Err(problems) => return refused(problems),
        };
        match self.hand_over(&channel, &mut listen_sockets).await {
            Ok((hello, pairs)) => {
                let conversations = self.workers.open();
                tracing::info!(
                    "upgrade: process {} (version {}) serves from here on; {pairs} connections moved, {conversations} \
                     are finished here",
                    hello.pid,
                    hello.version
                );
                let verdict = UpgradeVerdict {
                    accepted: true,
                    pid: hello.pid,
                    version: hello.version.clone(),
                    pairs,
                    conversations,
                    problems: Vec::new(),
                };
                *lock_of(&self.successor) = Some(Successor { channel, hello });
                self.left.notify_one();
                verdict
            }
            Err(problems) => {
                // Before anything is taken back: two processes must not read one connection.
                started.kill(&channel).await;
                self.workers.resume_accepting().await;
                refused(problems)
            }
        }
    }

    /// Steps 1 to 4. An error says why this process goes on as before.
    async fn hand_over(
        self: &Arc<Self>,
        channel: &Channel,
        listen_sockets: &mut ListenSockets,
    ) -> Result<(Hello, usize), Vec<String>> {
        let one = |error: ChannelError| vec![error.to_string()];
        send(channel, Kind::Hello, &Hello::own(), &[]).await.map_err(one)?;
        let hello: Hello = hear(channel, Kind::Hello, HELLO_MAX).await?;
        hello.common().map_err(|none| vec![none])?;
        self.send_state(channel, listen_sockets).await.map_err(one)?;
        let ready: Ready = hear(channel, Kind::Ready, READY_MAX).await?;
        let needed = 2 * self.workers.open() as u64 + DESCRIPTORS_MAX as u64;
        if ready.descriptors < needed {
            let may = ready.descriptors;
            return Err(vec![format!("the new process may open {may} descriptors, and {needed} are needed")]);
        }
        let (mut pairs, mut numbered) = (0, 0);
        for _ in 0..ROUNDS {
            let moved = self.send_pairs(channel, &mut numbered).await.map_err(|why| vec![why])?;
            pairs += moved;
            if moved <= FEW {
                break;
            }
        }
        if self.stopping.load(Relaxed) {
            return Err(vec!["the process was told to stop meanwhile".into()]);
        }
        self.workers.suspend_accepting().await;
        pairs += self.send_pairs(channel, &mut numbered).await.map_err(|why| vec![why])?;
        self.commit(channel, numbered).await?;
        let files = Arc::clone(self);
        let left = move || {
            files.state_file.close();
            files.stick_table_file.leave();
        };
        let _ = tokio::task::spawn_blocking(left).await;
        // From here on the new process serves, and speaks for the service.
        self.manager.notify(&[Notification::MainPid(hello.pid)]);
        self.stopping.store(true, Relaxed);
        let adoptions = listen_sockets.give_up(&ready.keeps, &self.current.load());
        self.workers.adopt(adoptions).await;
        self.give_way().await;
        self.runtimes.begin_drain();
        Ok((hello, pairs))
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

    /// Step 3: sends every established pair, and returns how many. `numbered` grows to what workers have numbered.
    async fn send_pairs(&self, channel: &Channel, numbered: &mut u64) -> Result<usize, String> {
        let mut moved = 0;
        for worker in 0..self.workers.len() {
            loop {
                let (flows, own) = self.workers.take_out(worker, BATCH).await;
                *numbered = own.max(*numbered);
                if flows.is_empty() {
                    break;
                }
                let sent = async {
                    let (document, owed, sockets) = pairs::document(worker, &flows);
                    let sent = channel.send(Kind::Pairs as u16, &document, &owed, &sockets).await;
                    sent.map_err(|error| vec![error.to_string()])?;
                    hear::<super::messages::Taken>(channel, Kind::Taken, TAKE_MAX).await
                };
                let lacking = match sent.await {
                    Ok(taken) if taken.pairs == flows.len() => None,
                    Ok(taken) => Some(format!("{} of {} pairs were taken", taken.pairs, flows.len())),
                    Err(problems) => Some(problems.join("; ")),
                };
                if let Some(why) = lacking {
                    self.workers.take_in(worker, flows).await;
                    return Err(why);
                }
                // Dropping the rows closes this process's copies of their sockets; the others stay open.
                moved += flows.len();
            }
        }
        Ok(moved)
    }

    /// Step 4: the stick tables as they are now; the new process accepts once it has said so.
    async fn commit(&self, channel: &Channel, numbered: u64) -> Result<(), Vec<String>> {
        let snapshot = self.current.load_full();
        let tables =
            tokio::task::spawn_blocking(move || sealed(|file| crate::server::table_file::write_to(file, &snapshot)));
        let tables = tables.await.unwrap_or_else(|panic| Err(std::io::Error::other(panic)));
        let tables = tables.map_err(|error| vec![format!("the stick tables: {error}")])?;
        let commit = Commit { numbered, runtime: self.runtime_state() };
        let sent = send(channel, Kind::Commit, &commit, &[tables.as_fd()]).await;
        sent.map_err(|error| vec![error.to_string()])?;
        hear::<super::messages::Committed>(channel, Kind::Committed, TAKE_MAX).await.map(|_| ())
    }

    /// A copy of the lock; `None`: there is none.
    fn lock_copy(&self) -> std::io::Result<Option<OwnedFd>> {
        lock_of(&self.lock).as_ref().map(InstanceLock::copy).transpose()
    }

    /// What commands and time have made of the backends.
    fn runtime_state(&self) -> Value {
        let state = RuntimeState::of(&self.current.load(), clock::now_ms(), clock::unix_ms());
        serde_json::to_value(state).unwrap_or_default()
    }

    /// Step 5: finishes conversations and sends pairs that were still connecting. Returns when no connection is left.
    pub(in crate::server) async fn finish_upgrade(&self) {
        let Some(Successor { channel, hello }) = lock_of(&self.successor).take() else { return };
        let most = self.current.load().config.process.upgrade_deadline;
        let deadline = Instant::now() + most;
        let (mut channel, mut numbered) = (Some(channel), 0);
        while (self.workers.open() > 0 || self.workers.acceptors() > 0) && Instant::now() < deadline {
            if let Some(open) = &channel
                && let Err(why) = self.send_pairs(open, &mut numbered).await
            {
                let pid = hello.pid;
                tracing::warn!("upgrade: process {pid} takes no connections any more, and they stay here: {why}");
                channel = None;
            }
            tokio::time::sleep(LOOK).await;
        }
        self.close_spread().await;
    }
}

/// Has the binary started as this process was started, with its end of the pair as standard input.
async fn start(binary: &std::path::Path) -> Result<(Channel, Started), Vec<String>> {
    let failed = |error: std::io::Error| vec![format!("the new process cannot be started: {error}")];
    let (ours, mut between) = launch(binary).map_err(failed)?;
    let channel = Channel::new(ours).map_err(failed)?;
    let launched = hear::<Launched>(&channel, Kind::Launched, HELLO_MAX).await;
    // It ends as soon as it has said so.
    tokio::task::spawn_blocking(move || between.wait());
    let started = Started::new(launched?.pid).map_err(|why| vec![why])?;
    Ok((channel, started))
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
    let one = |error: ChannelError| vec![error.to_string()];
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

fn refused(problems: Vec<String>) -> UpgradeVerdict {
    tracing::error!("upgrade refused, this process goes on: {}", problems.join("; "));
    UpgradeVerdict { problems, ..UpgradeVerdict::default() }
}
