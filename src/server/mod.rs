//! The process: [`run`] starts it, serves until a signal to stop, and ends it.
//!
//! Everything here happens once or rarely; connections are the splicer's and the runtimes'. One thread with tokio runs
//! this, the admin interface and the health checks. Invariant: at any time exactly one configuration is in force.

mod admin_socket;
mod alarms;
mod backend_watch;
mod certificate_watch;
mod cookie_key_file;
mod descriptors;
mod discovery;
mod drains;
mod explain;
mod file_watch;
mod files;
mod fleet;
mod fleet_orders;
mod housekeeping;
mod in_force;
mod listen_sockets;
mod lock;
mod log;
mod look;
mod made;
mod names;
mod notification;
pub mod notify;
mod orders;
mod own_files;
mod pipes;
mod plan;
mod pool_changes;
mod predecessors;
mod readings;
mod reload;
mod reports;
mod restart;
mod runtime_state;
mod service_job;
mod signals;
mod source;
mod start;
mod state_file;
mod status;
mod stop;
mod sweeper;
mod systemd;
mod table_file;
mod upgrade;
mod why;

use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use self::admin_socket::AdminSocket;
use self::alarms::Alarms;
use self::discovery::Discoveries;
use self::drains::Drains;
use self::files::{FileIdentity, ReadConfig};
use self::in_force::Prepared;
use self::listen_sockets::ListenSockets;
use self::lock::InstanceLock;
use self::names::NameReports;
use self::notify::ServiceManager;
use self::pool_changes::PoolChanges;
use self::predecessors::Predecessors;
use self::readings::Readings;
use self::restart::RestartState;
use self::signals::{Signals, stop_signal};
use self::start::{Begun, Beside};
use self::state_file::StateFile;
use self::systemd::{PassedSockets, STORED};
use self::table_file::TableFileWriter;
use self::upgrade::{Handover, Predecessor};
use crate::access_log::{self, AccessLog};
use crate::admin::PageSampler;
use crate::admission::Admission;
use crate::clock;
use crate::config::Config;
use crate::metrics::status::Reloads;
use crate::probe::Probes;
use crate::snapshot::Current;
use crate::splicer::Workers;
use crate::splicer::worker::WorkerShared;
use crate::store::Store;
use crate::terminate::Runtimes;
use crate::threads::{self, Threads};

pub use self::discovery::find_backends;
pub use self::files::{Examination, certificates_and_keys, cookie_keys, examine, examine_for_another, random_key};
pub use self::names::ResolvedName;
pub use self::own_files::is_writable;
pub use self::source::{ArgumentText, ConfigSource};
pub use self::upgrade::{KeptPlaces, LONGEST as UPGRADE_MAX};

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
    source: ConfigSource,
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
    pool_changes: Mutex<PoolChanges>,
    /// Name and addresses of each listener, with the ports that the kernel chose.
    bound: Mutex<Vec<(String, Vec<String>)>>,
    stick_table_file: Arc<TableFileWriter>,
    /// Shared with the threads that write it.
    state_file: Arc<StateFile>,
    admin: AdminSocket,
    sampler: PageSampler,
    alarms: Mutex<Alarms>,
    discoveries: Mutex<Discoveries>,
    names: Mutex<NameReports>,
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
    handover: Handover,
}

/// How `run` starts.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunOptions {
    /// Forget drains by command, orders and ejections of the process before.
    pub fresh: bool,
}

/// Serves a configuration until a signal to stop, and returns the exit code of the process.
pub fn run(source: ConfigSource, options: RunOptions) -> ExitCode {
    if let Some(code) = upgrade::launch_from_environment() {
        return code;
    }
    match start(source, options) {
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

fn start(source: ConfigSource, options: RunOptions) -> Result<(), StartError> {
    descriptors::raise_limit();
    descriptors::make_room();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| StartError::unavailable("cannot start", error))?;
    let served = runtime.block_on(async {
        let mut passed = PassedSockets::from_environment();
        let stored = passed.take_stored();
        let has_stored = stored.is_some();
        // What was stored ends with this process, so that a signal to stop has to find it ready.
        let signals = stored.as_ref().map(|_| signals()).transpose()?;
        let mut predecessor = match Predecessor::of_environment().await? {
            None => Predecessor::of_store(stored.unwrap_or_default()).await,
            started_by => started_by,
        };
        let beside = Beside { predecessor: predecessor.as_mut(), passed, signals };
        let mut begun = start::begin(source, options, beside).await;
        if let (Err(StartError { lines, .. }), Some(predecessor)) = (&mut begun, &predecessor) {
            predecessor.refuse(lines).await;
            lines.extend(predecessor.loss());
        }
        let mut begun = begun?;
        if let Some(predecessor) = &mut predecessor {
            take_over(predecessor, &mut begun).await?;
        }
        if has_stored {
            begun.server.manager.forget(STORED);
        }
        serve(begun, predecessor).await;
        Ok(())
    });
    // A thread that waits for a dead disk does not keep the process.
    runtime.shutdown_background();
    served
}

/// Takes over from another process. A signal to stop ends this one, unless it has connections by then: the signal is
/// obeyed once it serves, and the other process ends it otherwise.
async fn take_over(predecessor: &mut Predecessor, begun: &mut Begun) -> Result<(), StartError> {
    let Begun { server, signals, keeps, .. } = begun;
    let has_ended = predecessor.has_ended();
    let mut taken = pin!(predecessor.take_over(server, std::mem::take(keeps)));
    let mut is_told = false;
    loop {
        tokio::select! {
            // A commit that has come makes this process the one that serves, and the stop its own.
            biased;
            taken = &mut taken => {
                // Not before: the other process passes the same stop on at its commit, which must not count as a second.
                if is_told && taken.is_ok() {
                    server.handover.tell_stop();
                }
                return taken;
            }
            () = stop_signal(&mut signals.stop) => {
                if !has_ended && server.workers.open() == 0 {
                    return Err(StartError::unavailable("upgrade", "this process was told to stop; the other one goes on"));
                }
                is_told = true;
            }
        }
    }
}

fn signals() -> Result<Signals, StartError> {
    Signals::new().map_err(|error| StartError::unavailable("signals", error))
}

/// Accepts, and returns when the last connection has gone.
async fn serve(begun: Begun, predecessor: Option<Predecessor>) {
    let Begun { server, first, mut sockets, signals, stopping, .. } = begun;
    server.put_in_force(None, first, &mut *server.listen_sockets.lock().await).await;
    server.apply_fleet_orders().await;
    stopping.serving();
    server.announce(sockets.http_address());
    if let Some(predecessor) = predecessor.filter(|predecessor| !predecessor.has_ended()) {
        server.follow(predecessor);
    }

    let stopped = server.admin.stopped();
    sockets.take_http().into_iter().for_each(|port| server.serve_port(port));
    let admin = tokio::spawn(sockets.serve(Arc::clone(&server), stopped));
    server.report_ready();
    server.attend(signals).await;
    // The admin interface goes last, so that an operator sees the process until its last connection has gone.
    server.admin.end();
    server.give_up_port().await;
    let _ = tokio::time::timeout(ADMIN_PATIENCE, admin).await;
    server.threads.stop().await;
    server.write_table_file(true).await;
    server.finish_log();
}

impl Server {
    /// Prepares the first snapshot and starts every thread; nothing is accepted yet.
    fn new(
        source: ConfigSource,
        options: RunOptions,
        read: ReadConfig,
        identity: Option<FileIdentity>,
        lock: Option<InstanceLock>,
        Beside { predecessor, passed, .. }: Beside<'_>,
        stopping: &Predecessors,
    ) -> Result<(Arc<Self>, Prepared), StartError> {
        let process = read.config.process.clone();
        let (cores, admission) = (threads::cores(), Arc::new(Admission::new(usize::MAX)));
        let count = process.workers.unwrap_or(cores.len());
        let pinned = process.cpu_affinity.then_some(&*cores);
        let (follows, secret) = (predecessor.is_some(), predecessor.as_ref().and_then(|before| before.secret()));
        let inherited = predecessor.map(|predecessor| std::mem::take(&mut predecessor.addresses)).unwrap_or_default();
        let mut listen_sockets = ListenSockets::new(count, passed, inherited, stopping.listening());
        listen_sockets.unnamed(&read.config).iter().for_each(|warning| tracing::warn!("{warning}"));
        let mut first = in_force::prepare(&source, None, read, &mut listen_sockets, &admission, count, secret)
            .map_err(|lines| StartError { code: EXIT_UNAVAILABLE, lines })?;
        // Before a thread serves the first client.
        let state_file = StateFile::of_process(&first.snapshot, options.fresh, follows);

        let current = Arc::new(Current::new(Arc::clone(&first.snapshot)));
        let access_log = log::open_first(&process.log, &mut first.made)?;
        let store = Arc::new(Store::new(Arc::clone(&current)));
        let (pipes, runtime_pipes) = (pipes::limits(count, process.bulk_memory), pipes::runtime_most(count));
        let shared = Arc::new(WorkerShared::new(Arc::clone(&current), Arc::clone(&admission), count, pipes));
        let (runtimes, runtime_threads) =
            Runtimes::start(count, runtime_pipes, &current, &store, &access_log, &shared.history, pinned)
                .map_err(|error| StartError::unavailable("runtimes", error))?;
        let (workers, worker_threads) = Workers::start(count, &shared, &access_log, pinned, runtimes.entrances())
            .map_err(|error| StartError::unavailable("workers", error))?;
        let server = Self {
            source,
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
            pool_changes: Mutex::default(),
            bound: Mutex::default(),
            stick_table_file: Arc::default(),
            state_file,
            admin: AdminSocket::default(),
            sampler: PageSampler::default(),
            alarms: Mutex::default(),
            discoveries: Mutex::default(),
            names: Mutex::default(),
            drains: Mutex::default(),
            lock: Mutex::new(lock),
            manager: ServiceManager::from_environment(),
            identity: Arc::new(Mutex::new(identity)),
            readings: Readings::new(),
            restart: Mutex::default(),
            stopping: AtomicBool::new(false),
            binary: start::binary(),
            handover: Handover::default(),
        };
        Ok((Arc::new(server), first))
    }

    /// Follows signals and keeps house until the last connection has gone.
    async fn attend(self: &Arc<Self>, mut signals: Signals) {
        let (changed, mut file_changed) = mpsc::channel(1);
        let table_file = tokio::spawn(Arc::clone(self).write_table_file_at_intervals());
        let housekeeping = [
            tokio::spawn(Arc::clone(self).keep_house()),
            tokio::spawn(Arc::clone(self).discover()),
            tokio::spawn(Arc::clone(self).follow_fleet_orders()),
            tokio::spawn(Arc::clone(self).watch_file(changed)),
            tokio::spawn(Arc::clone(self).watch_predecessors()),
            tokio::spawn(Arc::clone(self).report()),
        ];
        // The signal may have come while this process took over from another one.
        while self.handover.told_at().is_none() {
            tokio::select! {
                _ = signals.reload.recv() => self.spawn_reload(),
                _ = signals.upgrade.recv() => self.spawn_upgrade(),
                Some(()) = file_changed.recv() => self.spawn_reload(),
                () = self.handover.left() => break,
                () = stop_signal(&mut signals.stop) => {
                    self.handover.tell_stop();
                }
            }
        }
        tokio::select! {
            () = self.end() => {}
            () = self.told_again(&mut signals) => {
                tracing::warn!("told to stop twice: ending now");
                self.handover.end_others();
            }
        }
        table_file.abort();
        housekeeping.iter().for_each(tokio::task::JoinHandle::abort);
    }

    /// Ends in order, and returns when the last connection has gone. An upgrade that is under way is given up before, or
    /// it has gone so far that the stop is the new process's.
    async fn end(self: &Arc<Self>) {
        self.handover.settled().await;
        if self.handover.has_left() {
            self.finish_upgrade().await;
        } else {
            self.report_stop();
            if !self.leave_by_store().await {
                self.stop().await;
            }
        }
    }

    /// Waits for another signal to stop than the first.
    async fn told_again(&self, signals: &mut Signals) {
        loop {
            stop_signal(&mut signals.stop).await;
            if self.handover.tell_stop().is_some_and(|first| !signals::is_repetition(first)) {
                return;
            }
        }
    }

    /// Reloads in a task of its own, so that a signal to stop never waits for it.
    fn spawn_reload(self: &Arc<Self>) {
        let server = Arc::clone(self);
        tokio::spawn(async move {
            drop(server.reload_file(None).await);
            server.admin.renew(&server);
        });
    }

    /// Upgrades to the file from which this process was started, in a task of its own.
    fn spawn_upgrade(self: &Arc<Self>) {
        let server = Arc::clone(self);
        tokio::spawn(async move { server.upgrade_to(None).await });
    }
}

/// Locks a mutex. A thread that panicked while it held the lock leaves a value that is good enough to go on with.
fn lock_of<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
