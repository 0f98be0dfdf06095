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
use super::{ADMIN_PATIENCE, AdminSocket, Server, lock_of, own_files};
use crate::admin;
use crate::admin::moved::{HeldAddresses, SuccessorStage, moved_path};
use crate::config;
use crate::detached::{self, Patience};
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
            self.move_admin_socket();
        }
        self.give_up_port().await;
        let gave_up = lock_of(&self.lock).take().map(InstanceLock::give_up).is_some();
        lock_of(&self.restart).gave_up_lock = gave_up;
        if gave_up { BEGIN_WINDOW } else { Duration::ZERO }
    }

    /// Gives up the HTTP port. Replies that are under way are finished.
    pub(super) async fn give_up_port(&self) {
        // A copy for a process that follows keeps the port open as well.
        lock_of(&self.admin_copies).http = None;
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

    /// Makes room for the process that has taken over by an upgrade: it has the lock and the sockets of the admin
    /// interface, and this one has an admin socket beside it until its end.
    pub(super) async fn give_way(self: &Arc<Self>) {
        lock_of(&self.restart).stopping = Some(Instant::now());
        if let Some(left) = &*lock_of(&self.leave_admin_file) {
            left.store(true, Relaxed);
        }
        *lock_of(&self.admin_copies) = admin::SocketCopies::default();
        let (state_file, table_file) = (Arc::clone(&self.state_file), Arc::clone(&self.stick_table_file));
        self.with_table_file(move || {
            state_file.close();
            table_file.leave();
        })
        .await;
        // Dropped and not unlocked: the next process has a copy of it.
        *lock_of(&self.lock) = None;
        let stop = std::mem::replace(&mut *lock_of(&self.stop_admin), watch::Sender::new(false));
        stop.send_replace(true);
        self.give_up_port().await;
        let mut socket = lock_of(&self.admin_socket);
        let Some(admin) = socket.as_mut() else { return };
        admin.stopped = lock_of(&self.stop_admin).subscribe();
        let moved = moved_path(&admin.file.path(), std::process::id());
        if let Err(error) = self.bind_again(admin, &moved) {
            tracing::error!("the admin socket cannot be bound at {}: {error}", moved.display());
        }
    }

    /// Does what may have to wait for a write that is under way. A disk that does not answer is not waited for.
    async fn with_table_file(&self, work: impl FnOnce() + Send + 'static) {
        const PATIENCE: Patience = Patience { each: Duration::from_secs(2), whole: Duration::from_secs(2) };
        if let Err(unfinished) = detached::finished_within("stick_table", PATIENCE, work).await {
            tracing::warn!("the files of this process: {unfinished}");
        }
    }

    /// Moves the admin socket beside its path, where operators find this process until its end.
    fn move_admin_socket(self: &Arc<Self>) {
        let mut socket = lock_of(&self.admin_socket);
        let Some(admin) = socket.as_mut() else { return };
        let moved = moved_path(&admin.file.path(), std::process::id());
        let done = match admin.file.is_there() {
            true => admin.file.rename_to(&moved).map_err(|error| error.to_string()),
            false => self.bind_again(admin, &moved),
        };
        match done {
            Ok(()) => tracing::info!(
                "the next process can start now; the admin socket of this one is {} until its end",
                moved.display()
            ),
            Err(error) => tracing::error!("the admin socket cannot move to {}: {error}", moved.display()),
        }
    }

    /// Binds the admin socket at a path, in the place of one without a file.
    pub(super) fn bind_again(self: &Arc<Self>, admin: &mut AdminSocket, path: &std::path::Path) -> Result<(), String> {
        own_files::make_folder(path, own_files::OPEN).map_err(|error| error.to_string())?;
        let config = config::Admin { http: None, socket: Some(path.to_owned()), ..admin.config.clone() };
        let sockets = admin::Sockets::bind(&config).map_err(|error| error.to_string())?;
        if let Some(bound) = sockets.unix_file() {
            admin.file.clone_from(bound);
        }
        match sockets.copies(&config) {
            Ok(copies) => lock_of(&self.admin_copies).unix = copies.unix,
            Err(error) => tracing::warn!("the admin socket cannot be given over: {error}"),
        }
        *lock_of(&self.leave_admin_file) = sockets.leave_file();
        tokio::spawn(sockets.serve(Arc::clone(self), admin.stopped.clone()));
        Ok(())
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
                tracing::info!("another process starts beside this one");
                server.write_table_file_now(false).await;
            }
            SuccessorStage::Serving => {
                tracing::info!("another process serves new clients");
                self.with_table_file(move || server.stick_table_file.leave()).await;
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
