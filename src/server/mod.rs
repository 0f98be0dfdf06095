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
mod own_files;
mod plan;
mod readings;
mod reload;
mod status;
mod stop;
mod systemd;
mod table_file;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};

use self::alarms::{Alarms, LogLosses};
use self::drains::Drains;
use self::files::{FileIdentity, ReadConfig};
use self::in_force::Prepared;
use self::listen_sockets::ListenSockets;
use self::lock::InstanceLock;
use self::readings::Readings;
use self::systemd::PassedSockets;
use self::table_file::TableFileWriter;
use crate::access_log::{self, AccessLog, StandardError, StandardOutput};
use crate::admin;
use crate::admission::Admission;
use crate::clock;
use crate::config::{self, Config, LogFormat, LogLevel};
use crate::detached::{self, FOR_READING};
use crate::metrics::status::Reloads;
use crate::probe::Probes;
use crate::snapshot::Current;
use crate::socket::unix_file::UnixFile;
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
    /// The admin socket, to bind it again if its file is deleted; `None`: there is none.
    admin_socket: Mutex<Option<AdminSocket>>,
    alarms: Mutex<Alarms>,
    drains: Mutex<Drains>,
    /// Identity of the file that was read last; `None`: it could not be found.
    identity: Arc<Mutex<Option<FileIdentity>>>,
    readings: Readings,
    stopping: AtomicBool,
}

/// The admin socket as it was bound.
struct AdminSocket {
    config: config::Admin,
    file: UnixFile,
    stopped: watch::Receiver<bool>,
}

/// Serves a configuration file until a signal to stop, and returns the exit code of the process.
pub fn run(path: &Path) -> ExitCode {
    match start(path) {
        Ok(()) => {
            access_log::finish_messages(LOG_PATIENCE);
            ExitCode::SUCCESS
        }
        Err(StartError { code, lines }) => {
            let lines: String = lines.iter().map(|line| format!("sessile: {line}\n")).collect();
            access_log::say_last(&lines, LOG_PATIENCE);
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

fn start(path: &Path) -> Result<(), StartError> {
    let file = path.to_owned();
    let read = move || (files::identity(&file), files::read(&file, None));
    let (identity, read) = match detached::within("reading", FOR_READING, read) {
        Ok((identity, read)) => (identity, read.map_err(|lines| StartError { code: EXIT_CONFIG, lines })?),
        Err(unfinished) => return Err(StartError { code: EXIT_CONFIG, lines: vec![unfinished.to_string()] }),
    };
    let lock = InstanceLock::take(&read.config)?;
    start_logging(&read.config);
    descriptors::raise_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| StartError::unavailable("cannot start", error))?;
    let served = runtime.block_on(serve(path, read, identity, lock));
    // A thread that waits for a dead disk does not keep the process.
    runtime.shutdown_background();
    served
}

async fn serve(
    path: &Path,
    read: ReadConfig,
    identity: Option<FileIdentity>,
    lock: Option<InstanceLock>,
) -> Result<(), StartError> {
    // Before anything is bound, so that a signal during the start is not lost.
    let signals = Signals::new().map_err(|error| StartError::unavailable("signals", error))?;
    let sockets =
        admin::Sockets::bind(&read.config.process.admin).map_err(|error| StartError::unavailable("admin", error))?;
    let (server, first) = Server::new(path, read, identity, Drains::new(lock))?;
    server.put_in_force(None, first, &mut *server.listen_sockets.lock().await).await;
    server.announce(sockets.http_address());

    let (stop_admin, stopped) = watch::channel(false);
    *lock_of(&server.admin_socket) = sockets.unix_file().map(|file| AdminSocket {
        config: server.current.load().config.process.admin.clone(),
        file: file.clone(),
        stopped: stopped.clone(),
    });
    let admin = tokio::spawn(sockets.serve(Arc::clone(&server), stopped));
    server.attend(signals).await;
    // The admin interface goes last, so that an operator sees the process until its last connection has gone.
    let _ = stop_admin.send(true);
    let _ = tokio::time::timeout(ADMIN_PATIENCE, admin).await;
    server.threads.stop().await;
    server.write_table_file(true).await;
    let access_log = lock_of(&server.access_log).take();
    if let Some(access_log) = access_log {
        access_log.finish(LOG_PATIENCE);
    }
    Ok(())
}

impl Server {
    /// Prepares the first snapshot and starts every thread; nothing is accepted yet.
    fn new(
        path: &Path,
        read: ReadConfig,
        identity: Option<FileIdentity>,
        drains: Drains,
    ) -> Result<(Arc<Self>, Prepared), StartError> {
        let process = read.config.process.clone();
        let cores = threads::cores();
        let count = process.workers.unwrap_or(cores.len());
        let pinned = process.cpu_affinity.then_some(&*cores);
        let admission = Arc::new(Admission::new(usize::MAX));
        let passed = PassedSockets::from_environment();
        passed.unnamed(&read.config).iter().for_each(|warning| tracing::warn!("{warning}"));
        let mut listen_sockets = ListenSockets::new(count, passed);
        let first = in_force::prepare(None, read, &mut listen_sockets, &admission, count)
            .map_err(|lines| StartError { code: EXIT_UNAVAILABLE, lines })?;

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
            admin_socket: Mutex::default(),
            alarms: Mutex::default(),
            drains: Mutex::new(drains),
            identity: Arc::new(Mutex::new(identity)),
            readings: Readings::new(),
            stopping: AtomicBool::new(false),
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
        for backend in lock_of(&self.drains).forgotten(&self.current.load()) {
            tracing::warn!(
                "backend {backend} was drained by command in the process before and serves clients again; \
                 `sessile drain {backend}` drains it, `sessile ready {backend}` ends this message"
            );
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
        let housekeeping = [
            tokio::spawn(Arc::clone(self).keep_house()),
            tokio::spawn(Arc::clone(self).watch_file(changed)),
            tokio::spawn(Arc::clone(self).write_table_file_at_intervals()),
        ];
        loop {
            tokio::select! {
                _ = signals.reload.recv() => self.spawn_reload(),
                Some(()) = file_changed.recv() => self.spawn_reload(),
                () = stop_signal(&mut signals.stop) => break,
            }
        }
        tokio::select! {
            () = self.stop() => {}
            () = signals.stop_again(Instant::now()) => tracing::warn!("told to stop twice: ending now"),
        }
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

    /// Binds the admin socket again if its file was deleted, as a program that cleans folders may do. A signal is then
    /// the only way to reach the process.
    fn renew_admin_socket(self: &Arc<Self>) {
        let mut socket = lock_of(&self.admin_socket);
        let Some(AdminSocket { config, file, stopped }) = socket.as_mut().filter(|socket| !socket.file.is_there())
        else {
            return;
        };
        let again = own_files::make_folder(file.path(), own_files::OPEN).map_err(|error| error.to_string());
        let unix_only = config::Admin { http: None, ..config.clone() };
        match again.and_then(|()| admin::Sockets::bind(&unix_only).map_err(|error| error.to_string())) {
            Ok(sockets) => {
                tracing::warn!("the file of the admin socket was gone: bound {} again", file.path().display());
                if let Some(bound) = sockets.unix_file() {
                    file.clone_from(bound);
                }
                tokio::spawn(sockets.serve(Arc::clone(self), stopped.clone()));
            }
            Err(error) => tracing::error!("the file of the admin socket is gone: {error}"),
        }
    }
}

/// Signals within this time of the first one to stop are repetitions of it: `timeout` and some supervisors send two.
const REPETITION: Duration = Duration::from_secs(1);

/// The signals that this process follows.
struct Signals {
    reload: Signal,
    /// Each of these begins the stop: images of nginx and HAProxy are stopped by SIGQUIT and SIGUSR1.
    stop: [Signal; 4],
    /// Received and ignored; the default action of SIGALRM would end the process.
    _ignored: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let stop = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::quit(), SignalKind::user_defined1()];
        let [a, b, c, d] = stop.map(signal);
        Ok(Self {
            reload: signal(SignalKind::hangup())?,
            stop: [a?, b?, c?, d?],
            _ignored: signal(SignalKind::alarm())?,
        })
    }

    /// Waits for another signal to stop than the one that was received at `first`.
    async fn stop_again(&mut self, first: Instant) {
        loop {
            stop_signal(&mut self.stop).await;
            if first.elapsed() >= REPETITION {
                return;
            }
        }
    }
}

/// Waits for one of the signals to stop.
async fn stop_signal([terminate, interrupt, quit, user1]: &mut [Signal; 4]) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = quit.recv() => {}
        _ = user1.recv() => {}
    }
}

/// Sends messages of the process to standard error; the access log goes to standard output.
fn start_logging(config: &Config) {
    let level = match config.process.log.level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
    };
    let subscriber = tracing_subscriber::fmt().with_writer(|| StandardError).with_max_level(level).with_target(false);
    let _ = match config.process.log.format {
        LogFormat::Text => tracing::subscriber::set_global_default(subscriber.with_ansi(false).finish()),
        LogFormat::Json => tracing::subscriber::set_global_default(subscriber.json().finish()),
    };
    access_log::report_panics();
}

/// Locks a mutex. A thread that panicked while it held the lock leaves a value that is good enough to go on with.
fn lock_of<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
