//! A restart without a service manager, seen from the process that stops: [`Server::give_up`] makes room for the next
//! process at once, and [`Server::followed_by`] helps that one to begin.
//!
//! Ends no connection (`stop` does). Invariants: from the signal on, the admin path and the HTTP port belong to the next
//! process, and the lock and the names in its file as well; the listening sockets stay open while the next process
//! binds beside them, for a limited time; what this process writes to a file is written under the lock, or at the
//! request of the process that holds it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::lock::{HeldElsewhere, InstanceLock};
use super::{ADMIN_PATIENCE, Server, lock_of};
use crate::admin;
use crate::admin::moved::{HeldAddresses, SuccessorStage};
use crate::clock;
use crate::detached::{self, Patience};
use crate::events::{self, Event, EventKind};
use crate::metrics::status::{DrainingProcess, ProcessStatus};

/// The least time for which listeners accept after the lock was given up, so that a process that starts in the same
/// moment finds them open and no client is refused: long enough to start a program on a busy machine.
const BEGIN_WINDOW: Duration = Duration::from_millis(500);

/// How long listeners stay open for a next process that has begun to start and has not reported that it serves.
const HOLD_MAX: Duration = Duration::from_secs(10);

/// What a restart needs to know of this process.
#[derive(Debug, Default)]
pub(super) struct RestartState {
    /// When this process began to stop.
    stopping: Option<Instant>,
    gave_up_lock: bool,
    /// Until when the listeners stay open for the next process.
    hold: Option<Instant>,
    http: Option<ServedPort>,
    /// Processes that stop beside this one.
    pub(super) draining: Vec<DrainingProcess>,
}

/// The HTTP port, which is served apart from the admin socket to be given up before it.
#[derive(Debug)]
struct ServedPort {
    stop: watch::Sender<bool>,
    served: JoinHandle<std::io::Result<()>>,
}

/// Logs a step of a restart, and notes it as an event.
fn note_step(text: &str) {
    events::info(clock::unix_ms(), Event::new(EventKind::Upgrade, text));
}

impl Server {
    /// Serves the HTTP port until it is given up.
    pub(super) fn serve_port(self: &Arc<Self>, port: admin::HttpPort) {
        let (stop, stopped) = watch::channel(false);
        let served = tokio::spawn(port.serve(Arc::clone(self), stopped));
        lock_of(&self.restart).http = Some(ServedPort { stop, served });
    }

    /// Gives up what the next process needs to start: admin path, HTTP port and lock, in this order. Returns how long
    /// listeners accept at least, so that a process that starts now finds them open.
    pub(super) async fn give_up(self: &Arc<Self>) -> Duration {
        let has_moved = lock_of(&self.restart).stopping.replace(Instant::now()).is_some();
        let path = self.current.load().config.process.stick_table_file.clone();
        if let Some(path) = path {
            let file = Arc::clone(&self.stick_table_file);
            self.with_table_file(move || file.share(&path)).await;
        }
        if !has_moved {
            self.admin.step_aside(self, false);
        }
        self.give_up_port().await;
        let gave_up = lock_of(&self.lock).take().map(InstanceLock::give_up).is_some();
        lock_of(&self.restart).gave_up_lock = gave_up;
        if gave_up {
            tracing::info!("the next process can start now");
        }
        if gave_up { BEGIN_WINDOW } else { Duration::ZERO }
    }

    /// Gives up the HTTP port. Replies that are under way are finished.
    pub(super) async fn give_up_port(&self) {
        // A copy for a process that follows keeps the port open as well.
        self.admin.give_up_port();
        let http = lock_of(&self.restart).http.take();
        if let Some(ServedPort { stop, mut served }) = http {
            let _ = stop.send(true);
            if tokio::time::timeout(ADMIN_PATIENCE, &mut served).await.is_err() {
                // The port is closed with the task; connections have tasks of their own.
                served.abort();
                let _ = served.await;
            }
        }
    }

    /// Makes room for the process that has taken over by an upgrade: files and lock are that one's, and the admin path as
    /// well. This process has an admin socket beside it until its end. `shares_admin`: the other process serves the same
    /// admin socket.
    pub(super) async fn give_way(self: &Arc<Self>, shares_admin: bool) {
        lock_of(&self.restart).stopping = Some(Instant::now());
        self.state_file.close();
        self.stick_table_file.leave();
        // Dropped and not unlocked: the next process has a copy of it.
        *lock_of(&self.lock) = None;
        self.give_up_port().await;
        self.admin.step_aside(self, shares_admin);
    }

    /// Does what may have to wait for a write that is under way. A disk that does not answer is not waited for.
    async fn with_table_file(&self, work: impl FnOnce() + Send + 'static) {
        const PATIENCE: Patience = Patience { each: Duration::from_secs(2), whole: Duration::from_secs(2) };
        if let Err(unfinished) = detached::finished_within("stick_table", PATIENCE, work).await {
            tracing::warn!("the files of this process: {unfinished}");
        }
    }

    /// True while listeners stay open for a next process that starts.
    pub(super) fn holds_listeners(&self) -> bool {
        lock_of(&self.restart).hold.is_some_and(|until| Instant::now() < until)
    }

    /// Takes note of the next process, and returns the addresses that this one still listens on. Before that process
    /// reads the stick-table file, the file gets what this one knows.
    pub(super) async fn followed_by(self: Arc<Self>, stage: SuccessorStage) -> Result<HeldAddresses, String> {
        if !self.stopping.load(Relaxed) {
            return Err("the process does not stop".into());
        }
        let starts = stage == SuccessorStage::Starting;
        lock_of(&self.restart).hold = starts.then(|| Instant::now() + HOLD_MAX);
        let server = Arc::clone(&self);
        match stage {
            SuccessorStage::Starting => {
                note_step("another process starts beside this one");
                server.write_table_file_now(false).await;
            }
            SuccessorStage::Serving => {
                note_step("another process serves new clients");
                server.stick_table_file.leave();
            }
            SuccessorStage::Failed => tracing::warn!("the process that started beside this one has failed"),
        }
        Ok(HeldAddresses { listening: self.listen_sockets.lock().await.held() })
    }

    /// The right to write files that the next process writes as well: the lock, where it was given up. Fails while
    /// another process has it.
    pub(super) fn writers_lock(&self) -> Result<Option<InstanceLock>, HeldElsewhere> {
        let gave_up = lock_of(&self.restart).gave_up_lock;
        if gave_up { InstanceLock::take_again(&self.started_with) } else { Ok(None) }
    }

    /// The process as the status shows it.
    pub(super) fn process_status(&self) -> ProcessStatus {
        let restart = lock_of(&self.restart);
        ProcessStatus {
            pid: std::process::id(),
            stopping_s: restart.stopping.map(|since| since.elapsed().as_secs()),
            listening_sockets: self.workers.acceptors() as u64,
            draining: restart.draining.clone(),
        }
    }
}
