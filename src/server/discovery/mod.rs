//! Puts the backends in force that the sources of pools name: [`Server::discover`] for ever, [`fill`] for a
//! configuration that is not in force yet. [`Server::put_pool_in_force`] is the one way by which a set changes without a
//! reload, for orders at run time, too.
//!
//! Decides nothing (`discovery::reconcile` does). Invariants: a change of a set is a snapshot on top of the
//! configuration in force, and no file of the configuration is read for it; while nothing changes, no snapshot is made;
//! what a source says counts only for a pool that still has this source.

mod first;
mod looks;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

pub use self::first::find_backends;
pub(super) use self::first::{Before, SourceProblem, fill, now_ms, own_addresses, reaches};
pub(super) use self::looks::Pace;

use self::looks::{Looks, SourceReading};
use super::listen_sockets::ListenSockets;
use super::names::{NameLooks, TOGETHER_MAX};
use super::{Server, lock_of};
use crate::clock;
use crate::config::{self, Config, Discover, Problem, Vanish};
use crate::discovery::found::Reading;
use crate::discovery::reconcile::{ChangeKind, Holders, SetChange, changes, reconcile, unexpired};
use crate::events::{self, Event, EventKind};
use crate::metrics::status::DiscoverStatus;
use crate::pool::Pool;
use crate::snapshot::{LoadedFiles, Snapshot};

/// How often the time of absent backends is looked at.
const TICK: Duration = Duration::from_millis(500);

/// Most changes that one event names; it counts the others.
const NAMED_MAX: usize = 8;

/// What has become of the source of each pool, by name.
pub(super) type Discoveries = BTreeMap<String, SourceReport>;

/// What has become of one source since the process began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SourceReport {
    /// Why the last reading was not taken; empty if it was.
    complaint: String,
    /// Readings that were not taken.
    failures: u64,
    /// Changes of the set that were put in force.
    changes: u64,
    /// Time of the last one, in seconds since 1970.
    changed_unix_s: Option<u64>,
}

impl Server {
    /// Looks at the sources of all pools, and asks for the names of backends, for ever.
    pub(super) async fn discover(self: Arc<Self>) {
        let (tell, mut told) = mpsc::channel(64);
        let (tell_names, mut told_names) = mpsc::channel(TOGETHER_MAX);
        let (mut looks, mut names) = (Looks::new(tell), NameLooks::new(tell_names));
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let snapshot = self.current.load_full();
            looks.follow(snapshot.generation, &snapshot.config);
            if names.follow(snapshot.generation, &snapshot.config) {
                self.forget_names(&snapshot.config);
            }
            drop(snapshot);
            let mut readings = Vec::new();
            // The senders are in `looks` and `names`.
            tokio::select! {
                Some(reading) = told.recv() => self.heed(&reading).await,
                1.. = told_names.recv_many(&mut readings, TOGETHER_MAX) => self.heed_names(&readings).await,
                _ = tick.tick() => {
                    self.end_absences().await;
                    self.keep_addresses().await;
                }
            }
        }
    }

    /// What operators see of the source of a pool; `None`: it has none.
    pub(super) fn discover_status(&self, pool: &config::Pool) -> Option<DiscoverStatus> {
        let rules = pool.discover.as_ref()?;
        let report = lock_of(&self.discoveries).get(&pool.name).cloned().unwrap_or_default();
        let absent = pool.found().filter(|backend| backend.absence().is_some()).count();
        Some(DiscoverStatus {
            source: rules.source.to_string(),
            backends: (pool.found().count() - absent) as u64,
            absent: absent as u64,
            complaint: report.complaint,
            failures: report.failures,
            changes: report.changes,
            changed_unix_s: report.changed_unix_s,
        })
    }

    /// Takes a reading, or says why not.
    async fn heed(&self, told: &SourceReading) {
        let mut listen_sockets = self.listen_sockets.lock().await;
        let before = self.current.load_full();
        let pool = before.pool(&told.pool).map(|pool| pool.config());
        let rules = pool.and_then(|pool| pool.discover.as_ref()).filter(|rules| rules.source == told.source);
        let Some((pool, rules)) = pool.zip(rules) else { return };
        match self.judge(pool, rules, &told.reading) {
            Ok(found) => {
                self.note_good(&pool.name, rules);
                let after = self.put_pool_in_force(&before, &pool.with_found(found), &mut listen_sockets).await;
                after.iter().for_each(|after| self.note_change(&before, after, &pool.name));
                drop(listen_sockets);
                self.keep_found(after.is_some()).await;
            }
            Err(why) => self.note_failed(&pool.name, rules, why),
        }
    }

    fn judge(&self, pool: &config::Pool, rules: &Discover, reading: &Reading) -> Result<Vec<config::Backend>, String> {
        let own = own_addresses(&self.current.load().config, &lock_of(&self.bound));
        reconcile(pool, rules, reading, &|address| reaches(&own, address), now_ms())
    }

    /// Removes backends that their sources do not name, or that orders have removed, as soon as nothing needs them.
    async fn end_absences(&self) {
        let has_absent =
            |pool: &&config::Pool| pool.found().chain(&pool.backends).any(|backend| backend.absence().is_some());
        let names: Vec<_> = {
            let snapshot = self.current.load();
            snapshot.config.pools.iter().filter(has_absent).map(|pool| pool.name.clone()).collect()
        };
        let mut changed = false;
        for name in names {
            let mut listen_sockets = self.listen_sockets.lock().await;
            let before = self.current.load_full();
            let Some(pool) = before.pool(&name).map(|pool| pool.config().clone()) else { continue };
            let after = self.put_pool_in_force(&before, &pool, &mut listen_sockets).await;
            after.iter().for_each(|after| self.note_change(&before, after, &name));
            changed |= after.is_some();
        }
        self.keep_found(changed).await;
    }

    /// Puts a pool in force that has other backends, without those that have no time left, and returns the snapshot;
    /// `None`: nothing has changed.
    pub(super) async fn put_pool_in_force(
        &self,
        before: &Arc<Snapshot>,
        next: &config::Pool,
        listen_sockets: &mut ListenSockets,
    ) -> Option<Arc<Snapshot>> {
        let config = with_pool(before, next, now_ms())?;
        self.put_backends_in_force(before, config, listen_sockets).await
    }

    /// Puts a configuration in force that differs from the one before in backends alone; no file is read for it. `None`:
    /// it is not in force, because the process stops, or for a reason in the log.
    pub(super) async fn put_backends_in_force(
        &self,
        before: &Arc<Snapshot>,
        config: Config,
        listen_sockets: &mut ListenSockets,
    ) -> Option<Arc<Snapshot>> {
        if self.stopping.load(Relaxed) {
            return None;
        }
        let in_log = |problems: Vec<Problem>| problems.iter().for_each(|problem| tracing::error!("{problem}"));
        // Every address is bound already.
        let mut plan = listen_sockets.plan(&config).map_err(in_log).ok()?;
        let loaded = LoadedFiles::of(before);
        let snapshot = Arc::new(Snapshot::build(config, loaded, Some(before), self.workers.len(), &self.admission));
        ListenSockets::listen(&mut plan, &snapshot.config).map_err(in_log).ok()?;
        self.swap(Some(before), &snapshot, plan, listen_sockets).await;
        Some(snapshot)
    }

    /// Writes the state file after a change, so that a start without the source has the set.
    async fn keep_found(&self, changed: bool) {
        if changed {
            // A failure is in the log.
            let _ = self.keep_state(false).await;
        }
    }

    /// Says in the log and by events what has changed of a set by its source, or by the end of removals.
    fn note_change(&self, before: &Snapshot, now: &Snapshot, pool: &str) {
        let Some((was, is)) = before.pool(pool).zip(now.pool(pool)) else { return };
        let (was, is) = (was.config(), is.config());
        match &is.discover {
            Some(rules) if !was.found().eq(is.found()) => self.note_found(before, now, (was, is), rules),
            _ => self.note_left(before, now, (was, is)),
        }
    }

    fn note_found(
        &self,
        before: &Snapshot,
        now: &Snapshot,
        (was, is): (&config::Pool, &config::Pool),
        rules: &Discover,
    ) {
        let pool = is.name.as_str();
        let changes = changes(was.found(), is.found());
        let named: Vec<_> = changes.iter().take(NAMED_MAX).map(ToString::to_string).collect();
        let more = match changes.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let (named, generation) = (named.join(", "), now.generation);
        let text = format!("pool {pool:?}: {}: {named}{more}, as generation {generation}", rules.source);
        tracing::info!("{text}");
        let event = events::note(clock::unix_ms(), Event::new(EventKind::Discovered, &text).of_pool(pool));
        self.note_cause(before, now, event);
        changes.iter().filter_map(|change| of_backend(pool, rules, change)).for_each(|event| {
            events::info(clock::unix_ms(), event);
        });
        let mut discoveries = lock_of(&self.discoveries);
        let report = discoveries.entry(pool.to_owned()).or_default();
        report.changes += 1;
        report.changed_unix_s = Some(clock::unix_s());
    }

    /// Says that backends which orders have removed have left.
    fn note_left(&self, before: &Snapshot, now: &Snapshot, (was, is): (&config::Pool, &config::Pool)) {
        for change in changes(was.backends.iter(), is.backends.iter()) {
            let text = format!("backend {}/{}: removed, its drain is over", is.name, change.name);
            tracing::info!("{text}, as generation {}", now.generation);
            let event = Event::new(EventKind::Ordered, &text).of_backend(&is.name, &change.name);
            let event = events::note(clock::unix_ms(), event);
            self.note_cause(before, now, event);
        }
    }

    /// Notes the event that stands for a change, so that a move is explained by it.
    pub(super) fn note_cause(&self, before: &Snapshot, now: &Snapshot, event: u64) {
        let oldest = events::ring().oldest();
        lock_of(&self.pool_changes).note(&before.config, &now.config, event, oldest, &[]);
    }

    fn note_good(&self, pool: &str, rules: &Discover) {
        let mut discoveries = lock_of(&self.discoveries);
        let report = discoveries.entry(pool.to_owned()).or_default();
        if !std::mem::take(&mut report.complaint).is_empty() {
            let text = format!("pool {pool:?}: {} is good again", rules.source);
            events::info(clock::unix_ms(), Event::new(EventKind::DiscoverWorks, &text).of_pool(pool));
        }
    }

    fn note_failed(&self, pool: &str, rules: &Discover, why: String) {
        let mut discoveries = lock_of(&self.discoveries);
        let report = discoveries.entry(pool.to_owned()).or_default();
        report.failures += 1;
        if report.complaint != why {
            let text = format!("pool {pool:?}: {}: {why}; the last set stays", rules.source);
            events::warn(clock::unix_ms(), Event::new(EventKind::DiscoverFailed, &text).of_pool(pool));
            report.complaint = why;
        }
    }
}

/// The configuration in force with this pool, without those of its backends that have no time left; `None`: nothing is
/// another.
fn with_pool(in_force: &Snapshot, next: &config::Pool, now_ms: i64) -> Option<Config> {
    let now = in_force.pool(&next.name)?;
    let next = unexpired(next, &|name| held(now, name), now_ms);
    if next == *now.config() {
        return None;
    }
    let mut config = (*in_force.config).clone();
    let pool = config.pools.iter_mut().find(|pool| pool.name == next.name)?;
    *pool = next;
    Some(config)
}

/// What still needs a backend of a pool.
fn held(pool: &Pool, name: &str) -> Holders {
    let backend = pool.backends().iter().find(|backend| backend.name() == name);
    let entries = pool.table().and_then(|table| table.by_backend().find(|(known, _)| *known == name));
    Holders {
        by_connections: backend.is_some_and(|backend| backend.leases() > 0),
        by_clients: pool.config().cookie.is_some() || entries.is_some_and(|(_, entries)| entries > 0),
    }
}

/// The event about a backend that its source does not name any more, or names again; `None`: nothing of the kind.
fn of_backend(pool: &str, rules: &Discover, change: &SetChange) -> Option<Event> {
    let (kind, text) = match (&change.kind, rules.vanish) {
        (ChangeKind::Left, Vanish::Drain) => (EventKind::Drain, "draining, because its source does not name it"),
        (ChangeKind::Left, Vanish::Down) => (EventKind::Down, "down, because its source does not name it"),
        (ChangeKind::Returned, Vanish::Drain) => (EventKind::Ready, "ready, because its source names it again"),
        (ChangeKind::Returned, Vanish::Down) => (EventKind::Up, "up, because its source names it again"),
        _ => return None,
    };
    let name = &change.name;
    Some(Event::new(kind, &format!("backend {pool}/{name}: {text}")).of_backend(pool, name))
}

#[cfg(test)]
mod tests;
