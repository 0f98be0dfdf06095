//! The process: [`run`] starts it, serves until a signal to stop, and ends it.
//!
//! Everything here happens once or rarely; connections are the splicer's and the runtimes'. One thread with tokio runs
//! this, the admin interface and the health checks. Invariant: at any time exactly one configuration is in force.

mod alarms;
mod descriptors;
mod drains;
mod file_watch;
mod files;
mod housekeeping;
mod in_force;
mod listen_sockets;
mod lock;
pub mod notify;
mod own_files;
mod plan;
mod predecessors;
mod readings;
mod reload;
mod reports;
mod restart;
mod runtime_state;
mod signals;
mod start;
mod state_file;
mod status;
mod stop;
mod sweeper;
mod systemd;
mod table_file;
mod upgrade;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, watch};

use self::alarms::{Alarms, LogLosses};
use self::drains::Drains;
use self::files::{FileIdentity, ReadConfig};
use self::in_force::Prepared;
use self::listen_sockets::ListenSockets;
use self::lock::InstanceLock;
use self::notify::ServiceManager;
use self::readings::Readings;
use self::restart::RestartState;
use self::signals::{Signals, stop_signal};
use self::start::{Begun, Beside};
use self::state_file::StateFile;
use self::systemd::PassedSockets;
use self::table_file::TableFileWriter;
use self::upgrade::{Predecessor, Successor};
use crate::access_log::{self, AccessLog, StandardOutput};
use crate::admin;
use crate::admission::Admission;
use crate::clock;
use crate::config::{self, Config};
use crate::metrics::status::Reloads;
use crate::probe::Probes;
use crate::snapshot::Current;
use crate::splicer::Workers;
use crate::splicer::worker::WorkerShared;
use crate::store::Store;
use crate::terminate::Runtimes;
use crate::threads::{self, Threads};

pub use self::files::{certificates_and_keys, cookie_keys, examine};

/// sysexits.h: usage and configuration.
const EXIT_CONFIG: u8 = 64;
/// sysexits.h: a service is unavailable.
const EXIT_UNAVAILABLE: u8 = 69;

/// How long the end of the process waits for the last log lines to be written.
const LOG_PATIENCE: Duration = Duration::from_secs(2);

/// How long the end of the process waits for replies of the admin interface that are under way.
const ADMIN_PATIENCE: Duration = Duration::from_millis(200);

/// What the admin interface and signals act on.
pub struct Server {
    path: PathBuf,
    started: Instant,
    /// The configuration of the start; keys that only a start reads are in force as it has them.
    started_with: Arc<Config>,
    current: Arc<Current>,
    admission: Arc<Admission>,
    workers: Arc<Workers>,
    runtimes: Runtimes,
    /// The threads of workers and runtimes.
    threads: Threads,
    store: Arc<Store>,
    /// `None` once the process has ended it.
    access_log: Mutex<Option<AccessLog>>,
    /// Held by a reload, a plan or a stop for as long as it takes, so that there is one at a time.
    listen_sockets: tokio::sync::Mutex<ListenSockets>,
    probes: Mutex<Probes>,
    reloads: Mutex<Reloads>,
    /// Name and addresses of each listener, with the ports that the kernel chose.
    bound: Mutex<Vec<(String, Vec<String>)>>,
    stick_table_file: Arc<TableFileWriter>,
    /// Shared with the threads that write it.
    state_file: Arc<StateFile>,
    /// The admin socket, to bind it again if its file is deleted; `None`: there is none.
    admin_socket: Mutex<Option<AdminSocket>>,
    alarms: Mutex<Alarms>,
    drains: Mutex<Drains>,
    /// The lock of the admin socket; `None`: there is none, or another process has it now.
    lock: Mutex<Option<InstanceLock>>,
    /// Learns what the process does.
    manager: ServiceManager,
    /// Identity of the file that was read last; `None`: it could not be found.
    identity: Arc<Mutex<Option<FileIdentity>>>,
    readings: Readings,
    restart: Mutex<RestartState>,
    stopping: AtomicBool,
    /// The file from which this process was started.
    binary: PathBuf,
    /// Copies of the admin sockets, for the process that follows.
    admin_copies: Mutex<admin::SocketCopies>,
    /// Ends the admin interface.
    stop_admin: Mutex<watch::Sender<bool>>,
    /// Leaves the file of the admin socket to the process that follows; `None`: there is no file.
    leave_admin_file: Mutex<Option<Arc<AtomicBool>>>,
    /// The state of the backends is being given to the process that follows, or has been.
    gives_state: AtomicBool,
    /// The process that follows, until the rest is finished.
    successor: Mutex<Option<Successor>>,
    /// Another process serves: what is left here is to be finished.
    left: Notify,
}

/// The admin socket as it was bound.
struct AdminSocket {
    config: config::Admin,
    file: admin::MovableFile,
    stopped: watch::Receiver<bool>,
}

/// How `run` starts.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunOptions {
    /// Forget drains by command and ejections of the process before.
    pub fresh: bool,
}

/// Serves a configuration file until a signal to stop, and returns the exit code of the process.
pub fn run(path: &Path, options: RunOptions) -> ExitCode {
    if let Some(code) = upgrade::launch_from_environment() {
        return code;
    }
    match start(path, options) {
        Ok(()) => {
            access_log::finish_messages(LOG_PATIENCE);
            ExitCode::SUCCESS
        }
        Err(StartError { code, lines }) => {
            let lines: Vec<_> = lines.iter().map(|line| format!("sessile: {line}")).collect();
            access_log::print_error(&lines.join("\n"));
            code.into()
        }
    }
}

/// Why the process did not start.
#[derive(Debug)]
struct StartError {
    code: u8,
    lines: Vec<String>,
}

impl StartError {
    fn unavailable(what: &str, error: impl std::fmt::Display) -> Self {
        Self { code: EXIT_UNAVAILABLE, lines: vec![format!("{what}: {error}")] }
    }
}

fn start(path: &Path, options: RunOptions) -> Result<(), StartError> {
    descriptors::raise_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| StartError::unavailable("cannot start", error))?;
    let served = runtime.block_on(async {
        let mut predecessor = Predecessor::of_environment().await?;
        let begun = start::begin(path, options, predecessor.as_mut()).await;
        if let (Err(StartError { lines, .. }), Some(predecessor)) = (&begun, &predecessor) {
            predecessor.refuse(lines).await;
        }
        let mut begun = begun?;
        if let Some(predecessor) = &mut predecessor {
            predecessor.take_over(&begun.server, std::mem::take(&mut begun.keeps)).await?;
        }
        serve(begun, predecessor).await;
        Ok(())
    });
    // A thread that waits for a dead disk does not keep the process.
    runtime.shutdown_background();
    served
}

/// Accepts, and returns when the last connection has gone.
async fn serve(begun: Begun, predecessor: Option<Predecessor>) {
    let Begun { server, first, mut sockets, signals, stopping, .. } = begun;
    server.put_in_force(None, first, &mut *server.listen_sockets.lock().await).await;
    stopping.serving();
    server.announce(sockets.http_address());
    if let Some(predecessor) = predecessor {
        tokio::spawn(predecessor.take_the_rest(Arc::clone(&server)));
    }

    let stopped = lock_of(&server.stop_admin).subscribe();
    *lock_of(&server.admin_socket) = sockets.unix_file().map(|file| AdminSocket {
        config: server.current.load().config.process.admin.clone(),
        file: file.clone(),
        stopped: stopped.clone(),
    });
    sockets.take_http().into_iter().for_each(|port| server.serve_port(port));
    let admin = tokio::spawn(sockets.serve(Arc::clone(&server), stopped));
    server.report_ready();
    server.attend(signals).await;
    // The admin interface goes last, so that an operator sees the process until its last connection has gone.
    *lock_of(&server.admin_copies) = admin::SocketCopies::default();
    lock_of(&server.stop_admin).send_replace(true);
    server.give_up_port().await;
    let _ = tokio::time::timeout(ADMIN_PATIENCE, admin).await;
    server.threads.stop().await;
    server.write_table_file(true).await;
    let access_log = lock_of(&server.access_log).take();
    if let Some(access_log) = access_log {
        access_log.finish(LOG_PATIENCE);
    }
}

impl Server {
    /// Prepares the first snapshot and starts every thread; nothing is accepted yet.
    fn new(
        path: &Path,
        options: RunOptions,
        read: ReadConfig,
        identity: Option<FileIdentity>,
        lock: Option<InstanceLock>,
        Beside { predecessor, stopping }: Beside<'_>,
    ) -> Result<(Arc<Self>, Prepared), StartError> {
        let process = read.config.process.clone();
        let cores = threads::cores();
        let count = process.workers.unwrap_or(cores.len());
        let pinned = process.cpu_affinity.then_some(&*cores);
        let admission = Arc::new(Admission::new(usize::MAX));
        let passed = PassedSockets::from_environment();
        passed.unnamed(&read.config).iter().for_each(|warning| tracing::warn!("{warning}"));
        let follows = predecessor.is_some();
        let secret = predecessor.as_ref().and_then(|predecessor| predecessor.secret());
        let inherited = predecessor.map(|predecessor| std::mem::take(&mut predecessor.addresses)).unwrap_or_default();
        let mut listen_sockets = ListenSockets::new(count, passed, inherited, stopping.listening());
        let first = in_force::prepare(None, read, &mut listen_sockets, &admission, count, secret)
            .map_err(|lines| StartError { code: EXIT_UNAVAILABLE, lines })?;
        // Before a thread serves the first client.
        let state_file = StateFile::of_process(&first.snapshot, options.fresh, follows);

        let current = Arc::new(Current::new(Arc::clone(&first.snapshot)));
        let access_log = AccessLog::start(process.log.format, StandardOutput)
            .map_err(|error| StartError::unavailable("log", error))?;
        let store = Arc::new(Store::new(Arc::clone(&current)));
        let pipes_max = descriptors::pipes_max(count);
        let shared = Arc::new(WorkerShared::new(Arc::clone(&current), Arc::clone(&admission), count, pipes_max));
        let (runtimes, runtime_threads) = Runtimes::start(count, &current, &store, &access_log, pinned)
            .map_err(|error| StartError::unavailable("runtimes", error))?;
        let (workers, worker_threads) = Workers::start(count, &shared, &access_log, pinned, runtimes.entrances())
            .map_err(|error| StartError::unavailable("workers", error))?;
        let server = Self {
            path: path.to_owned(),
            started: Instant::now(),
            started_with: Arc::clone(&first.snapshot.config),
            current,
            admission,
            workers,
            runtimes,
            threads: Threads::new(worker_threads.into_iter().chain(runtime_threads)),
            store,
            access_log: Mutex::new(Some(access_log)),
            listen_sockets: tokio::sync::Mutex::new(listen_sockets),
            probes: Mutex::new(Probes::new(clock::now_ms)),
            reloads: Mutex::default(),
            bound: Mutex::default(),
            stick_table_file: Arc::default(),
            state_file,
            admin_socket: Mutex::default(),
            alarms: Mutex::default(),
            drains: Mutex::default(),
            lock: Mutex::new(lock),
            manager: ServiceManager::from_environment(),
            identity: Arc::new(Mutex::new(identity)),
            readings: Readings::new(),
            restart: Mutex::default(),
            stopping: AtomicBool::new(false),
            binary: start::binary(),
            admin_copies: Mutex::default(),
            stop_admin: Mutex::new(watch::Sender::new(false)),
            leave_admin_file: Mutex::default(),
            gives_state: AtomicBool::new(false),
            successor: Mutex::default(),
            left: Notify::new(),
        };
        Ok((Arc::new(server), first))
    }

    fn announce(&self, http: Option<std::net::SocketAddr>) {
        for (name, addresses) in lock_of(&self.bound).iter() {
            tracing::info!("listener {name:?} accepts on {}", addresses.join(", "));
        }
        if let Some(http) = http {
            tracing::info!("metrics and health on http://{http}");
        }
        tracing::info!(
            "ready: {} workers, at most {} connections, digest {:016x}",
            self.workers.len(),
            self.admission.connections_max(),
            self.current.load().digest
        );
    }

    /// Follows signals and keeps house until the last connection has gone.
    async fn attend(self: &Arc<Self>, mut signals: Signals) {
        let (changed, mut file_changed) = mpsc::channel(1);
        let table_file = tokio::spawn(Arc::clone(self).write_table_file_at_intervals());
        let housekeeping = [
            tokio::spawn(Arc::clone(self).keep_house()),
            tokio::spawn(Arc::clone(self).watch_file(changed)),
            tokio::spawn(Arc::clone(self).watch_predecessors()),
            tokio::spawn(Arc::clone(self).report()),
        ];
        loop {
            tokio::select! {
                _ = signals.reload.recv() => self.spawn_reload(),
                _ = signals.upgrade.recv() => self.spawn_upgrade(),
                () = self.left.notified() => {
                    table_file.abort();
                    tokio::select! {
                        () = self.finish_upgrade() => {}
                        () = stop_signal(&mut signals.stop) => tokio::select! {
                            () = self.stop() => {}
                            () = signals.stop_again(Instant::now()) => {}
                        },
                    }
                    housekeeping.iter().for_each(tokio::task::JoinHandle::abort);
                    return;
                }
                Some(()) = file_changed.recv() => self.spawn_reload(),
                () = stop_signal(&mut signals.stop) => break,
            }
        }
        self.report_stop();
        tokio::select! {
            () = self.stop() => {}
            () = signals.stop_again(Instant::now()) => tracing::warn!("told to stop twice: ending now"),
        }
        table_file.abort();
        housekeeping.iter().for_each(tokio::task::JoinHandle::abort);
    }

    /// Lines that the access log has lost so far.
    fn log_losses(&self) -> LogLosses {
        let access_log = lock_of(&self.access_log);
        let losses =
            |log: &AccessLog| LogLosses { dropped: log.dropped(), lost: log.lost(), error: log.lost_because() };
        access_log.as_ref().map(losses).unwrap_or_default()
    }

    /// Reloads in a task of its own, so that a signal to stop never waits for it.
    fn spawn_reload(self: &Arc<Self>) {
        let server = Arc::clone(self);
        tokio::spawn(async move {
            drop(server.reload_file(None).await);
            server.renew_admin_socket();
        });
    }

    /// Upgrades to the file from which this process was started, in a task of its own.
    fn spawn_upgrade(self: &Arc<Self>) {
        let server = Arc::clone(self);
        tokio::spawn(async move { server.upgrade_to(None).await });
    }

    /// Binds the admin socket again if its file was deleted, as a program that cleans folders may do. A signal is then
    /// the only way to reach the process.
    fn renew_admin_socket(self: &Arc<Self>) {
        let mut socket = lock_of(&self.admin_socket);
        let Some(admin) = socket.as_mut().filter(|socket| !socket.file.is_there()) else { return };
        let path = admin.file.path();
        match self.bind_again(admin, &path) {
            Ok(()) => tracing::warn!("the file of the admin socket was gone: bound {} again", path.display()),
            Err(error) => tracing::error!("the file of the admin socket is gone: {error}"),
        }
    }
}

/// Locks a mutex. A thread that panicked while it held the lock leaves a value that is good enough to go on with.
fn lock_of<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
