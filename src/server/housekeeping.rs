//! What the process does at intervals: closes connections of backends that are drained or down, sweeps stick tables,
//! writes the stick-table file and the state file, names conditions that cost clients something.
//!
//! Decides nothing about health: a backend has the state by which its connections are to close. Invariant: connections
//! of a backend close at an even pace, so its clients do not all arrive at another backend at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::alarms::{AlarmFacts, AlarmLine, LimitFacts};
use super::backend_watch::BackendWatch;
use super::certificate_watch::CertificateWatch;
use super::sweeper::Sweeper;
use super::{Server, lock_of};
use crate::clock;
use crate::connection::Selection;
use crate::counters::{ListenerCounters, Padded};
use crate::events::{self, Event};
use crate::outcome::Ended;
use crate::pool::{Backend, Pool};
use crate::snapshot::{Listener, Snapshot};

/// Time over which the connections of a backend close that is marked down, if its pool has `on_marked_down = "close"`.
const CLOSE_OVER: Duration = Duration::from_secs(60);

/// How often the state of backends is looked at while no backend is closing.
const TICK: Duration = Duration::from_millis(500);

/// The same for each pool: thousands of pools are looked at so much less often that it costs a thousandth of a core.
const TICK_PER_POOL: Duration = Duration::from_micros(500);

/// However many there are, a drain that is over is seen within this time.
const TICK_MAX: Duration = Duration::from_secs(2);

/// How often drains by command are looked at: they are named after an hour.
const DRAINS_TICK: Duration = Duration::from_secs(60);

/// How often some connections of a closing backend are ended: every second sees about as many.
const CLOSING_TICK: Duration = Duration::from_millis(100);

/// A backend that is losing its connections.
struct Closing {
    backend: Arc<Backend>,
    /// When the last connection is closed.
    until: Instant,
    /// The outcome of its connections.
    ended: Ended,
}

impl Server {
    /// Closes connections of backends and watches the alarms, for ever.
    pub(super) async fn keep_house(self: Arc<Self>) {
        let mut closing: Vec<Closing> = Vec::new();
        let (mut sweeper, mut watched, mut drains_watched) = (Sweeper::default(), Instant::now(), Instant::now());
        let (mut backends, mut certificates) = (BackendWatch::default(), CertificateWatch::default());
        loop {
            tokio::time::sleep(if closing.is_empty() { TICK } else { CLOSING_TICK }).await;
            let snapshot = self.current.load_full();
            sweeper.step(&snapshot, clock::now_ms());
            let tick = (TICK_PER_POOL * snapshot.pools.len() as u32).clamp(TICK, TICK_MAX);
            if closing.is_empty() && watched.elapsed() < tick {
                continue;
            }
            watched = Instant::now();
            self.watch_alarms(&snapshot);
            say(backends.observe(&snapshot, clock::now_ms()));
            say(certificates.observe(&snapshot, clock::unix_s()));
            if drains_watched.elapsed() >= DRAINS_TICK {
                self.watch_drains(&snapshot);
                drains_watched = Instant::now();
            }
            closing = closing_backends(&snapshot, &closing);
            // No snapshot is held while the threads work.
            drop(snapshot);
            for backend in &closing {
                self.close_some(backend).await;
            }
        }
    }

    /// Writes the stick-table file and the state file at intervals, for ever. An interval that a reload changes holds at
    /// once.
    pub(super) async fn write_table_file_at_intervals(self: Arc<Self>) {
        let mut last = Instant::now();
        loop {
            tokio::time::sleep(TICK).await;
            if last.elapsed() < self.current.load().config.process.stick_table_interval {
                continue;
            }
            last = Instant::now();
            self.write_table_file(false).await;
            // A failure is in the log.
            let _ = self.keep_state(false).await;
        }
    }

    /// Writes the stick-table file, if the configuration has one, on a thread that may wait for the disk. `is_last`: the
    /// process ends. A process that has given up its lock takes it for the time of the write, and leaves the file to the
    /// process that holds it.
    pub(super) async fn write_table_file(&self, is_last: bool) {
        let Ok(_lock) = self.writers_lock() else { return };
        self.write_table_file_now(is_last).await;
    }

    /// Writes the stick-table file without a look at the lock.
    pub(super) async fn write_table_file_now(&self, is_last: bool) {
        let snapshot = self.current.load_full();
        if let Some(path) = snapshot.config.process.stick_table_file.clone() {
            self.stick_table_file.write_aside(&path, snapshot, is_last).await;
        }
    }

    /// Logs conditions that have begun or ended since the last call.
    fn watch_alarms(&self, snapshot: &Snapshot) {
        let now_ms = clock::now_ms();
        let facts = AlarmFacts {
            process: LimitFacts {
                refused: self.admission.refused(),
                open: self.admission.open(),
                max: self.admission.connections_max(),
            },
            listeners: snapshot.listeners.iter().map(|listener| limit_of(listener)).collect(),
            sources: snapshot
                .listeners
                .iter()
                .map(|listener| (&*listener.config.name, sources_refused(listener)))
                .filter(|(_, refused)| *refused > 0)
                .collect(),
            descriptors: self.workers.counters().iter().map(|worker| worker.0.accept_paused_descriptors.value()).sum(),
            stick_tables: snapshot
                .stick_tables()
                .map(|(name, pools)| (name, entries_lost(pools)))
                .filter(|(_, lost)| *lost > 0)
                .collect(),
            log: self.log_losses(),
        };
        say(lock_of(&self.alarms).observe(&facts, now_ms));
    }

    /// Logs drains by command that may have been forgotten.
    fn watch_drains(&self, snapshot: &Snapshot) {
        for event in lock_of(&self.drains).overdue(snapshot, clock::now_ms()) {
            events::warn(clock::unix_ms(), event);
        }
    }

    /// Ends the share of a backend's connections that is due in one tick, so that none is left at the end.
    async fn close_some(&self, closing: &Closing) {
        let left = closing.until.saturating_duration_since(Instant::now());
        let ticks = (left.as_millis() / CLOSING_TICK.as_millis()).max(1) as u64;
        let share = closing.backend.leases().div_ceil(ticks);
        if share > 0 {
            self.threads.shed(&Selection::Of(Arc::clone(&closing.backend)), share as usize, closing.ended).await;
        }
    }
}

/// Logs what has begun or ended, and notes it as events.
fn say(lines: Vec<AlarmLine>) {
    for AlarmLine { is_over, event } in lines {
        let log: fn(u64, Event) = if is_over { events::info } else { events::warn };
        log(clock::unix_ms(), event);
    }
}

/// Connections of a listener that were refused at a limit of their source.
fn sources_refused(listener: &Listener) -> u64 {
    let of_thread = |own: &Padded<ListenerCounters>| {
        let ended = &own.0.ended;
        ended[Ended::SourceConnections as usize].value() + ended[Ended::SourceRate as usize].value()
    };
    listener.state.counters.iter().map(of_thread).sum()
}

/// The limit on connections of a listener, with its name.
fn limit_of(listener: &Listener) -> (&str, LimitFacts) {
    let state = &listener.state;
    let limit = LimitFacts { refused: state.refused(), open: state.open(), max: state.connections_max() };
    (&listener.config.name, limit)
}

/// Entries that the pools of one stick table have lost for want of room.
pub(super) fn entries_lost(pools: &[Arc<Pool>]) -> u64 {
    pools.iter().filter_map(|pool| pool.table()).map(|table| table.evicted_displaced() + table.refused()).sum()
}

/// The backends that must lose their connections now. A backend that is closing already keeps its end.
fn closing_backends(snapshot: &Snapshot, before: &[Closing]) -> Vec<Closing> {
    let now_ms = clock::now_ms();
    let mut closing = Vec::new();
    for pool in snapshot.pools.iter() {
        for backend in pool.backends() {
            let (over, ended) = match (backend.drained(now_ms), backend.closing()) {
                (true, _) => (pool.config().drain_over, Ended::Drained),
                (false, true) => (CLOSE_OVER, Ended::BackendDown),
                (false, false) => continue,
            };
            let known = before.iter().find(|known| Arc::ptr_eq(&known.backend, backend));
            let until = known.map_or_else(|| Instant::now() + over, |known| known.until);
            closing.push(Closing { backend: Arc::clone(backend), until, ended });
        }
    }
    closing
}
