//! The process: [`run`] starts it, serves until a signal to stop, and ends it.
//!
//! Everything here happens once or rarely; connections are the splicer's and the runtimes'. One thread with tokio runs
//! this, the admin interface and the health checks. Invariant: at any time exactly one configuration is in force.

mod alarms;
mod descriptors;
mod drains;
mod files;
mod housekeeping;
mod in_force;
mod listen_sockets;
mod lock;
mod plan;
mod reload;
mod status;
mod stop;
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
use self::table_file::TableFileWriter;
use crate::access_log::{AccessLog, StandardError, StandardOutput};
use crate::admin;
use crate::admission::Admission;
use crate::clock;
use crate::config::{Config, LogFormat, LogLevel};
use crate::metrics::status::Reloads;
use crate::probe::Probes;
use crate::snapshot::Current;
use crate::splicer::Workers;
use crate::splicer::worker::WorkerShared;
use crate::store::Store;
use crate::terminate::Runtimes;
use crate::threads::{self, Threads};

pub use self::files::{certificates_and_keys, cookie_keys, read_files};

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
    stick_table_file: TableFileWriter,
    alarms: Mutex<Alarms>,
    drains: Mutex<Drains>,
    /// Identity of the file that was read last; `None`: it could not be found.
    identity: Mutex<Option<FileIdentity>>,
    stopping: AtomicBool,
}

/// Serves a configuration file until a signal to stop, and returns the exit code of the process.
pub fn run(path: &Path) -> ExitCode {
    match start(path) {
        Ok(()) => ExitCode::SUCCESS,
        Err(StartError { code, lines }) => {
            for line in lines {
                eprintln!("sessile: {line}");
            }
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
    let identity = files::identity(path);
    let read = files::read(path, None).map_err(|lines| StartError { code: EXIT_CONFIG, lines })?;
    let lock = InstanceLock::take(&read.config)?;
    start_logging(&read.config);
    descriptors::raise_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| StartError::unavailable("cannot start", error))?;
    runtime.block_on(serve(path, read, identity, lock))
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
    let admin = tokio::spawn(sockets.serve(Arc::clone(&server), stopped));
    server.attend(signals).await;
    // The admin interface goes last, so that an operator sees the process until its last connection has gone.
    let _ = stop_admin.send(true);
    let _ = tokio::time::timeout(ADMIN_PATIENCE, admin).await;
    server.threads.stop().await;
    server.write_table_file(true);
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
        let mut listen_sockets = ListenSockets::new(count, listen_sockets::from_systemd());
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
            stick_table_file: TableFileWriter::default(),
            alarms: Mutex::default(),
            drains: Mutex::new(drains),
            identity: Mutex::new(identity),
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
        let housekeeping = tokio::spawn(Arc::clone(self).keep_house(changed));
        let table_file = tokio::spawn(Arc::clone(self).write_table_file_at_intervals());
        loop {
            tokio::select! {
                _ = signals.reload.recv() => self.spawn_reload(),
                Some(()) = file_changed.recv() => self.spawn_reload(),
                _ = signals.terminate.recv() => break,
                _ = signals.interrupt.recv() => break,
            }
        }
        tokio::select! {
            () = self.stop() => {}
            () = signals.stop() => tracing::warn!("told to stop twice: ending now"),
        }
        housekeeping.abort();
        table_file.abort();
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
        tokio::spawn(async move { drop(server.reload_file(None).await) });
    }
}

/// The signals that this process follows.
struct Signals {
    reload: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            reload: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for a signal to stop.
    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
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
}

/// Locks a mutex. A thread that panicked while it held the lock leaves a value that is good enough to go on with.
fn lock_of<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
