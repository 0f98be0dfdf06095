//! The start of the process: [`begin`] does everything that can fail.
//!
//! Accepts nothing (`mod.rs` does). [`Server::announce`] says that it is done. Invariant: an error is complete: every
//! problem of the file, or the one thing that this host does not give.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;

use super::discovery::Before;
use super::in_force::Prepared;
use super::lock::InstanceLock;
use super::predecessors::Predecessors;
use super::signals::Signals;
use super::systemd::PassedSockets;
use super::upgrade::Predecessor;
use super::{ConfigSource, EXIT_CONFIG, RunOptions, Server, StartError, lock_of, state_file};
use crate::access_log::{self, MessageFormat, Messages};
use crate::admin;
use crate::clock;
use crate::config::{Config, LogFormat, LogLevel};
use crate::detached::{self, FOR_READING};
use crate::events::{self, Event, EventKind};

/// A process in which everything that can fail has succeeded, and which accepts nothing yet.
pub(super) struct Begun {
    pub(super) server: Arc<Server>,
    pub(super) first: Prepared,
    pub(super) sockets: admin::Sockets,
    pub(super) signals: Signals,
    /// Numbers, in the process before, of the addresses that this one goes on to serve.
    pub(super) keeps: Vec<u32>,
    /// Processes that stop, to be told that this one serves.
    pub(super) stopping: Predecessors,
}

/// What this process finds at its start.
pub(super) struct Beside<'p> {
    /// The process that this one follows by an upgrade.
    pub(super) predecessor: Option<&'p mut Predecessor>,
    /// What the service manager has passed.
    pub(super) passed: PassedSockets,
    /// The signals, if they are followed already.
    pub(super) signals: Option<Signals>,
}

/// Reads the configuration and binds; nothing is accepted yet.
pub(super) async fn begin(
    source: ConfigSource,
    options: RunOptions,
    mut beside: Beside<'_>,
) -> Result<Begun, StartError> {
    let (of_thread, given) = (source.clone(), beside.predecessor.as_ref().and_then(|before| before.runtime_state()));
    let read = move || {
        // By the backends that sources had named: those that are named no more drain, and a source that says nothing keeps
        // them. A process that is followed by this one gives them over, however it was started.
        let last = |config: &Config| given.clone().or_else(|| state_file::last(config).filter(|_| !options.fresh));
        (of_thread.identity(), of_thread.read(Before::Process(&last)))
    };
    let (identity, read) = match detached::finished_within("reading", FOR_READING, read).await {
        Ok((identity, read)) => (identity, read.map_err(|lines| StartError { code: EXIT_CONFIG, lines })?),
        Err(unfinished) => return Err(StartError { code: EXIT_CONFIG, lines: vec![unfinished.to_string()] }),
    };
    start_logging(&read.config);
    if let ConfigSource::Arguments(_) = source {
        // Those of a file are shown by `sessile check`.
        read.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    }
    let inherited = beside.predecessor.as_mut().and_then(|predecessor| predecessor.lock.take());
    let lock = InstanceLock::take_over(&read.config, inherited)?;
    // Before anything is bound, so that a signal during the start is not lost.
    let signals = beside.signals.take().map_or_else(super::signals, Ok)?;
    let admin = &read.config.process.admin;
    let copies = beside.predecessor.as_mut().map(|predecessor| predecessor.take_admin(admin)).unwrap_or_default();
    let sockets = admin::Sockets::take_over(admin, copies).map_err(|error| StartError::unavailable("admin", error))?;
    let stopping = match beside.predecessor {
        None => Predecessors::greet(&read.config),
        Some(_) => Predecessors::default(),
    };
    let (server, first) = Server::new(source, options, read, identity, lock, beside, &stopping)?;
    let admin = &first.snapshot.config.process.admin;
    server.admin.note(&sockets, admin).map_err(|error| StartError::unavailable("admin", error))?;
    let keeps = server.listen_sockets.lock().await.kept_on();
    Ok(Begun { server, first, sockets, signals, keeps, stopping })
}

impl Server {
    /// Says in the log and by an event that the process serves. `http`: the address of the admin interface.
    pub(super) fn announce(&self, http: Option<SocketAddr>) {
        for (name, addresses) in lock_of(&self.bound).iter() {
            tracing::info!("listener {name:?} accepts on {}", addresses.join(", "));
        }
        if let Some(http) = http {
            tracing::info!("metrics and health on http://{http}");
        }
        let text = format!(
            "ready: {} workers, at most {} connections, digest {:016x}",
            self.workers.len(),
            self.admission.connections_max(),
            self.current.load().digest
        );
        tracing::info!("{text}");
        let event = events::note(clock::unix_ms(), Event::new(EventKind::Start, &text));
        // After the event: a backend that a check has found down before it is down now.
        lock_of(&self.pool_changes).begin(&self.current.load(), event, clock::now_ms());
    }
}

/// The file from which this process was started. A file that was replaced since then has the name that it had.
pub(super) fn binary() -> PathBuf {
    let path = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
    match path.to_str().and_then(|text| text.strip_suffix(" (deleted)")) {
        Some(before) => before.into(),
        None => path,
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
    access_log::set_message_format(config.process.log.format == LogFormat::Json);
    let subscriber = tracing_subscriber::fmt()
        .with_writer(Messages::to_standard_error())
        .with_max_level(level)
        .event_format(MessageFormat)
        .finish()
        // Libraries have words of their own, and some write a line for each frame of a client.
        .with(Targets::new().with_target("sessile", level));
    let _ = tracing::subscriber::set_global_default(subscriber);
    access_log::report_panics();
}
