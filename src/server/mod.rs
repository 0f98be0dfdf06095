//! The process: start, reload, stop.
//!
//! Everything that happens once or rarely; connections are the splicer's. One thread with tokio runs it, the admin
//! interface and the health checks. Invariant: a configuration is in use wholly or not at all, and at any time exactly
//! one is.

mod listen_sockets;
mod plan;
mod reload;
mod status;
mod stop;
mod table_file;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use self::listen_sockets::ListenSockets;
use self::reload::ReadConfig;
pub(crate) use self::reload::read_files;
use crate::access_log::AccessLog;
use crate::admin;
use crate::admission::Admission;
use crate::config::{Config, LogFormat, LogLevel};
use crate::connection::Selection;
use crate::metrics::status::Reloads;
use crate::outcome::Ended;
use crate::pool::Backend;
use crate::probe::Probes;
use crate::snapshot::{Current, LoadedFiles, Snapshot};
use crate::splicer::worker::WorkerShared;
use crate::splicer::{self, Workers};
use crate::store::{Access, Store};
use crate::terminate::Runtimes;

/// sysexits.h: usage and configuration.
const EXIT_CONFIG: u8 = 64;
/// sysexits.h: a service is unavailable.
const EXIT_UNAVAILABLE: u8 = 69;

/// Of the descriptors, one in so many is for what comes and goes beside connections: pipes, admin, checks.
const DESCRIPTORS_RESERVED: u64 = 20;

/// Descriptors that the process itself holds: standard streams, lock, admin, runtime, signals, log.
const DESCRIPTORS_HELD: u64 = 16;

/// Descriptors that each worker and the thread of its conversations hold: epoll and what wakes it, each,
/// and a timer.
const DESCRIPTORS_PER_WORKER: u64 = 6;

/// Connections of a backend that is marked down are closed over this long, where the pool says so.
const SHED_OVER: Duration = Duration::from_secs(60);

/// How often the file is looked at, and whether backends are closing.
const TICK: Duration = Duration::from_millis(500);

/// How often some of a closing backend's connections are closed: fine enough that every second sees as many.
const SHED_TICK: Duration = Duration::from_millis(100);

/// How long the last log lines may take to be written.
const LOG_PATIENCE: Duration = Duration::from_secs(2);

/// What the admin interface and signals act on.
pub struct Server {
    path: PathBuf,
    started: Instant,
    current: Arc<Current>,
    admission: Arc<Admission>,
    workers: Arc<Workers>,
    conversations: Runtimes,
    store: Arc<Store>,
    access_log: Mutex<Option<AccessLog>>,
    /// Only one reload or stop at a time.
    listen_sockets: tokio::sync::Mutex<ListenSockets>,
    probes: Mutex<Probes>,
    reloads: Mutex<Reloads>,
    bound: Mutex<Vec<(String, Vec<String>)>>,
    stick_table_file: table_file::TableFileWriter,
    /// Of the file that was read last.
    identity: Mutex<Option<reload::FileIdentity>>,
    stopping: AtomicBool,
}

/// Serves a configuration file until told to stop.
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
    fn new(code: u8, line: impl Into<String>) -> Self {
        Self { code, lines: vec![line.into()] }
    }
}

fn start(path: &Path) -> Result<(), StartError> {
    let identity = reload::identity(path);
    let ReadConfig { config, mut loaded, access, .. } =
        reload::read(path, None).map_err(|lines| StartError { code: EXIT_CONFIG, lines })?;
    let _lock = lock(&config)?;
    loaded.secret = config.process.stick_table_file.as_deref().and_then(table_file::secret);
    say(&config);
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| StartError::new(EXIT_UNAVAILABLE, format!("cannot start: {error}")))?;
    runtime.block_on(serve(path, config, (loaded, access), identity))
}

async fn serve(
    path: &Path,
    config: Config,
    (loaded, access): (LoadedFiles, Option<Access>),
    identity: Option<reload::FileIdentity>,
) -> Result<(), StartError> {
    let unavailable = |what: &str| {
        let what = what.to_owned();
        move |error: std::io::Error| StartError::new(EXIT_UNAVAILABLE, format!("{what}: {error}"))
    };
    // Before anything is bound, so that a signal during start is not lost.
    let signals = Signals::new().map_err(unavailable("signals"))?;
    let cores = cores();
    let count = config.process.workers.unwrap_or(cores.len());
    let mut listen_sockets = ListenSockets::new(count, listen_sockets::from_systemd());
    let plan = listen_sockets.plan(&config).map_err(|lines| StartError { code: EXIT_UNAVAILABLE, lines })?;
    let sockets = admin::Sockets::bind(&config.process.admin)
        .map_err(|error| StartError::new(EXIT_UNAVAILABLE, format!("admin: {error}")))?;
    let access_log = AccessLog::start(config.process.log.format, std::io::stdout()).map_err(unavailable("log"))?;

    let pinned = config.process.cpu_affinity.then(|| cores.clone());
    let shared = Arc::new(WorkerShared::new(config, loaded, count, pipes_by_descriptors(count)));
    let (current, admission) = (Arc::clone(&shared.current), Arc::clone(&shared.admission));
    if let Some(path) = &current.load().config.process.stick_table_file {
        table_file::load(path, &current.load());
    }
    reload::limit(&admission, &current.load(), count);
    let store = Arc::new(Store::new(Arc::clone(&current)));
    let (conversations, mut threads) = Runtimes::start(count, &current, &store, &access_log, pinned.as_deref())
        .map_err(unavailable("conversations"))?;
    let (workers, worker_threads) =
        Workers::start(count, &shared, &access_log, pinned.as_deref(), conversations.entrances())
            .map_err(unavailable("workers"))?;
    threads.extend(worker_threads);
    // Whoever comes first may bring a cookie that only the store knows.
    if let Some(access) = access {
        store.adopt(Some(Arc::new(access))).await;
    }
    ListenSockets::listen(&plan).map_err(|lines| StartError { code: EXIT_UNAVAILABLE, lines })?;
    let adoptions = listen_sockets.commit(plan, &current.load());
    workers.adopt(adoptions).await;

    let server = Arc::new(Server {
        path: path.to_owned(),
        started: Instant::now(),
        current,
        admission,
        workers,
        conversations,
        store,
        access_log: Mutex::new(Some(access_log)),
        listen_sockets: tokio::sync::Mutex::new(listen_sockets),
        probes: Mutex::new(Probes::new(|| splicer::now() / 1_000)),
        reloads: Mutex::new(Reloads { last_accepted: true, last_unix_s: crate::clock::unix_s(), ..Reloads::default() }),
        bound: Mutex::default(),
        stick_table_file: table_file::TableFileWriter::default(),
        identity: Mutex::new(identity),
        stopping: AtomicBool::new(false),
    });
    server.note_addresses(&*server.listen_sockets.lock().await);
    let snapshot = server.current.load_full();
    lock_of(&server.probes).adopt(&snapshot.pools, &snapshot.tls);
    drop(snapshot);
    server.announce(sockets.http_address());

    let (stop_admin, stopped) = watch::channel(false);
    let admin = tokio::spawn(sockets.serve(Arc::clone(&server), stopped));
    server.attend(signals).await;
    // Whoever watches the process go sees it until its last connection has gone.
    let _ = stop_admin.send(true);
    let _ = tokio::time::timeout(Duration::from_millis(200), admin).await;
    server.workers.stop().await;
    server.conversations.stop();
    let _ = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join()))).await;
    server.write_table_file();
    let access_log = lock_of(&server.access_log).take();
    if let Some(access_log) = access_log {
        access_log.finish(LOG_PATIENCE);
    }
    Ok(())
}

/// The signals this process answers.
struct Signals {
    reload: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
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

impl Server {
    /// Obeys signals and does the housekeeping until the last connection has gone.
    async fn attend(self: &Arc<Self>, mut signals: Signals) {
        let (changed, mut file_changed) = mpsc::channel(1);
        let context = tokio::spawn(Arc::clone(self).keep_up(changed));
        let table = tokio::spawn(Arc::clone(self).write_table_file_at_intervals());
        loop {
            tokio::select! {
                _ = signals.reload.recv() => self.reload_aside(),
                Some(()) = file_changed.recv() => self.reload_aside(),
                _ = signals.terminate.recv() => break,
                _ = signals.interrupt.recv() => break,
            }
        }
        tokio::select! {
            () = self.stop() => {}
            () = signals.stop() => tracing::warn!("told to stop twice: ending now"),
        }
        context.abort();
        table.abort();
    }

    /// A reload that nobody waits for, so that a signal to stop never does.
    fn reload_aside(self: &Arc<Self>) {
        let server = Arc::clone(self);
        tokio::spawn(async move { drop(server.reload_file(None).await) });
    }

    /// Looks at the file, where asked to, and closes connections of backends that are down, where asked to, or drained.
    async fn keep_up(self: Arc<Self>, changed: mpsc::Sender<()>) {
        let mut closing: Vec<(Arc<Backend>, Instant, Ended)> = Vec::new();
        loop {
            tokio::time::sleep(if closing.is_empty() { TICK } else { SHED_TICK }).await;
            let snapshot = self.current.load_full();
            if snapshot.config.process.watch {
                let now = reload::identity(&self.path);
                if now.is_some() && now != *lock_of(&self.identity) {
                    let _ = changed.try_send(());
                }
            }
            let now_ms = splicer::now() / 1_000;
            let mut still = Vec::new();
            for (pool, backend) in snapshot.pools.iter().flat_map(|pool| pool.backends().iter().map(move |b| (pool, b)))
            {
                let (over, ended) = match (backend.drained(now_ms), backend.closing()) {
                    (true, _) => (pool.config().drain_over, Ended::Drained),
                    (false, true) => (SHED_OVER, Ended::BackendDown),
                    (false, false) => continue,
                };
                let known = closing.iter().find(|(known, ..)| Arc::ptr_eq(known, backend)).map(|(_, until, _)| *until);
                still.push((Arc::clone(backend), known.unwrap_or_else(|| Instant::now() + over), ended));
            }
            closing = still;
            drop(snapshot);
            for (backend, until, ended) in &closing {
                self.shed_some(backend, until.saturating_duration_since(Instant::now()), *ended).await;
            }
        }
    }

    /// Writes the stick-table file now and then, aside.
    async fn write_table_file_at_intervals(self: Arc<Self>) {
        loop {
            let interval = self.current.load().config.process.stick_table_interval;
            tokio::time::sleep(interval).await;
            let server = Arc::clone(&self);
            let _ = tokio::task::spawn_blocking(move || server.write_table_file()).await;
        }
    }

    /// Writes the stick-table file, if there is to be one, after whoever is writing it now.
    fn write_table_file(&self) {
        let snapshot = self.current.load_full();
        if let Some(path) = &snapshot.config.process.stick_table_file
            && let Err(error) = self.stick_table_file.store(path, &snapshot)
        {
            tracing::warn!("stick-table file {}: {error}", path.display());
        }
    }

    /// Closes a backend's connections at a pace that leaves none when the time is over.
    async fn shed_some(&self, backend: &Arc<Backend>, left: Duration, ended: Ended) {
        let ticks = (left.as_millis() / SHED_TICK.as_millis()).max(1) as u64;
        let share = backend.leases().div_ceil(ticks);
        if share > 0 {
            self.shed(&Selection::Of(Arc::clone(backend)), share as usize, ended).await;
        }
    }

    /// Ends at most `count` connections of both halves; answers how many it ended.
    async fn shed(&self, whom: &Selection, count: usize, ended: Ended) -> usize {
        let first = self.conversations.shed(whom, count.div_ceil(2), ended).await;
        let passed = self.workers.shed(whom, count - first, ended).await;
        first + passed + self.conversations.shed(whom, count - first - passed, ended).await
    }

    fn announce(&self, http: Option<std::net::SocketAddr>) {
        for (name, addresses) in lock_of(&self.bound).iter() {
            tracing::info!("listener {name:?} accepts on {}", addresses.join(", "));
        }
        if let Some(http) = http {
            tracing::info!("metrics and health on http://{http}");
        }
        let snapshot = self.current.load();
        tracing::info!(
            "ready: {} workers, at most {} connections, digest {:016x}",
            self.workers.len(),
            self.admission.connections_max(),
            snapshot.digest
        );
    }

    fn note_addresses(&self, listen_sockets: &ListenSockets) {
        let snapshot = self.current.load();
        let names = snapshot.listeners.iter().map(|listener| listener.config.name.clone());
        *lock_of(&self.bound) = names.map(|name| (name.clone(), listen_sockets.addresses(&name))).collect();
    }
}

/// Only one process per admin socket, whatever addresses it binds: `SO_REUSEPORT` would let a second one take half of
/// the connections. The lock goes with the process.
fn lock(config: &Config) -> Result<Option<File>, StartError> {
    let Some(socket) = &config.process.admin.socket else { return Ok(None) };
    let path = socket.with_extension("lock");
    let cannot = |why: String| StartError::new(EXIT_UNAVAILABLE, format!("admin.socket: {}: {why}", path.display()));
    let file = File::options().create(true).append(true).open(&path).map_err(|error| cannot(error.to_string()))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => Err(cannot("another sessile runs with this admin socket".into())),
        Err(std::fs::TryLockError::Error(error)) => Err(cannot(error.to_string())),
    }
}

/// What is not about one connection goes to standard error.
fn say(config: &Config) {
    let level = match config.process.log.level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
    };
    let subscriber = tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(level).with_target(false);
    let _ = match config.process.log.format {
        LogFormat::Text => tracing::subscriber::set_global_default(subscriber.with_ansi(false).finish()),
        LogFormat::Json => tracing::subscriber::set_global_default(subscriber.json().finish()),
    };
}

/// As many descriptors as this user may have.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Two descriptors a connection, of those that nothing else needs.
fn connections_by_descriptors(snapshot: &Snapshot, workers: usize) -> usize {
    let (limit, reserved) = descriptors();
    let addresses: usize = snapshot.listeners.iter().map(|listener| listener.config.bind.len()).sum();
    let held = DESCRIPTORS_HELD + workers as u64 * (DESCRIPTORS_PER_WORKER + addresses as u64);
    (limit.saturating_sub(held + reserved) / 2).max(1) as usize
}

/// Half of what is reserved is for pipes, two descriptors each.
fn pipes_by_descriptors(workers: usize) -> usize {
    let (_, reserved) = descriptors();
    reserved as usize / 4 / workers.max(1)
}

/// The limit of the process, and how many of them are for what comes and goes beside connections.
fn descriptors() -> (u64, u64) {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(1 << 20);
    (limit, (limit / DESCRIPTORS_RESERVED).clamp(64, 8192).min(limit / 4))
}

/// The cores this process may use.
fn cores() -> Vec<usize> {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).take(count).collect(),
        Err(_) => (0..count).collect(),
    }
}

/// A panic elsewhere leaves what is locked here good enough to go on with.
fn lock_of<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
