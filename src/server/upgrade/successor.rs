//! [`Successor`]: the process that follows, as the one that leaves sees it: its start, messages to it, its end.
//!
//! Decides nothing (`leave.rs` does). Invariants: no wait for the new process is longer than the time that it was given,
//! and before the commit none outlasts the signal to stop by more than [`GIVE_OVER`]; where a start fails, the
//! new process is ended.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::timeout;

use super::channel::{Channel, ChannelError, Message};
use super::kept_places::KeptPlaces;
use super::launch::launch;
use super::messages::{Hello, Kind, Launched, Refused};
use super::peer::PeerProcess;

/// How long the new process may take to answer once it runs.
pub const HELLO_MAX: Duration = Duration::from_secs(10);

/// How long the new process may take to take a batch, or to make room for a message.
pub const TAKE_MAX: Duration = Duration::from_secs(10);

/// How long an upgrade may go on to its commit once the process was told to stop, if the new process has connections
/// already: its end would be theirs.
const GIVE_OVER: Duration = Duration::from_secs(5);

/// How long the program in between may take to say what it has started, once the upgrade is given up.
const LATE_MAX: Duration = Duration::from_secs(1);

/// The process that follows this one.
pub(in crate::server) struct Successor {
    channel: Channel,
    /// Another one, once this process was given on to the next but one.
    process: Mutex<Arc<PeerProcess>>,
    /// When this process was told to stop.
    told: watch::Receiver<Option<Instant>>,
    has_pairs: AtomicBool,
    has_committed: AtomicBool,
    /// The other end of the channel is closed.
    has_closed: AtomicBool,
}

impl Successor {
    /// Has the binary started as this process was started, with its end of the pair as standard input. `told`: when
    /// this process was told to stop. `places`: what its arguments leave open; `None`: it serves a file.
    pub async fn start(
        binary: &Path,
        told: watch::Receiver<Option<Instant>>,
        places: Option<&KeptPlaces>,
    ) -> Result<Self, Vec<String>> {
        let failed = |error: std::io::Error| vec![format!("the new process cannot be started: {error}")];
        let (ours, mut between) = launch(binary, places).map_err(failed)?;
        let channel = match Channel::new(ours) {
            Ok(channel) => channel,
            Err(error) => {
                end(&mut between);
                return Err(failed(error));
            }
        };
        // Until the number of the new process is known, its place is that of the program in between.
        let started = PeerProcess::open(between.id()).map_err(failed);
        let started = started.map(|process| Self {
            channel,
            process: Mutex::new(Arc::new(process)),
            told,
            has_pairs: AtomicBool::new(false),
            has_committed: AtomicBool::new(false),
            has_closed: AtomicBool::new(false),
        });
        let successor = started.inspect_err(|_| end(&mut between))?;
        let launched = successor.hear::<Launched>(Kind::Launched, HELLO_MAX).await;
        let known = match launched {
            Ok(Launched { pid }) => PeerProcess::open(pid).map_err(failed),
            Err(problems) => {
                successor.end_late_start().await;
                end(&mut between);
                return Err(problems);
            }
        };
        // It ends as soon as it has said so.
        tokio::task::spawn_blocking(move || between.wait());
        // Without a descriptor the channel closes, and the new process ends because this one lives.
        *successor.process() = Arc::new(known?);
        Ok(successor)
    }

    /// Kills a process that is being started while the upgrade is given up.
    async fn end_late_start(&self) {
        if let Ok(Ok(message)) = timeout(LATE_MAX, self.channel.receive()).await
            && message.kind == Kind::Launched as u16
            && let Ok(Launched { pid }) = message.read()
            && let Ok(process) = PeerProcess::open(pid)
        {
            process.kill().await;
        }
    }

    /// Sends a message, within [`TAKE_MAX`].
    pub async fn send(
        &self,
        kind: Kind,
        document: &impl Serialize,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), Vec<String>> {
        let sent = async {
            let sent = self.channel.send(kind as u16, document, bytes, descriptors).await;
            sent.map_err(|error| vec![self.note(&error)])
        };
        self.wait(TAKE_MAX, sent).await
    }

    /// Waits for a message of one kind; a refusal is an error with its problems, and unknown messages are skipped.
    pub async fn hear<D: DeserializeOwned>(&self, kind: Kind, patience: Duration) -> Result<D, Vec<String>> {
        let one = |error: ChannelError| vec![self.note(&error)];
        let heard = async {
            loop {
                let message: Message = self.channel.receive().await.map_err(one)?;
                if message.kind == kind as u16 {
                    return message.read().map_err(one);
                }
                if message.kind == Kind::Refused as u16 {
                    return Err(message.read::<Refused>().map_err(one)?.problems);
                }
                if message.kind == Kind::Hello as u16 {
                    self.is_now(&message.read().map_err(one)?);
                }
            }
        };
        self.wait(patience, heard).await
    }

    /// The process at the other end is another one: it was given on.
    fn is_now(&self, hello: &Hello) {
        if let Ok(process) = PeerProcess::open(hello.pid) {
            *self.process() = Arc::new(process);
        }
    }

    /// Waits for the new process, no longer than `patience` and no longer than a stop allows.
    async fn wait<T>(
        &self,
        patience: Duration,
        work: impl Future<Output = Result<T, Vec<String>>>,
    ) -> Result<T, Vec<String>> {
        tokio::select! {
            biased;
            done = timeout(patience, work) => {
                done.unwrap_or_else(|_| Err(vec![format!("the new process said nothing for {} s", patience.as_secs())]))
            }
            () = self.given_up() => Err(vec!["the process was told to stop meanwhile".into()]),
        }
    }

    /// Waits until the upgrade has to be given up because this process was told to stop.
    async fn given_up(&self) {
        let mut told = self.told.clone();
        let told = told.wait_for(Option::is_some).await.ok().and_then(|told| *told);
        match told.filter(|_| !self.has_committed.load(Relaxed)) {
            Some(told) if self.has_pairs.load(Relaxed) => tokio::time::sleep_until((told + GIVE_OVER).into()).await,
            Some(_) => {}
            // After the commit the new process serves.
            None => std::future::pending().await,
        }
    }

    /// Notes that the new process has connections.
    pub fn note_pairs(&self) {
        self.has_pairs.store(true, Relaxed);
    }

    /// Notes that the new process serves.
    pub fn note_committed(&self) {
        self.has_committed.store(true, Relaxed);
    }

    /// Tells the process to stop once it serves; one that does not serve yet is killed.
    pub fn end(&self) {
        let signal = if self.has_committed.load(Relaxed) { Signal::TERM } else { Signal::KILL };
        self.process().signal(signal);
    }

    /// Kills the process, and waits until it has ended.
    pub async fn kill(&self) {
        let process = Arc::clone(&self.process());
        process.kill().await;
    }

    /// True if the process takes nothing more, because it has ended or has closed the channel: what it has not
    /// acknowledged is not its own.
    pub fn takes_no_more(&self) -> bool {
        self.has_closed.load(Relaxed) || self.process().has_ended()
    }

    /// Notes an error of the channel, and returns it as the operator reads it.
    fn note(&self, error: &ChannelError) -> String {
        if matches!(error, ChannelError::Closed) {
            self.has_closed.store(true, Relaxed);
        }
        said(error)
    }

    fn process(&self) -> MutexGuard<'_, Arc<PeerProcess>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the program in between.
fn end(between: &mut Child) {
    let _ = between.kill().and_then(|()| between.wait());
}

/// An error of the channel, as the operator reads it.
fn said(error: &ChannelError) -> String {
    match error {
        ChannelError::Closed => "the new process has ended; the log has its messages".to_owned(),
        _ => error.to_string(),
    }
}
