//! Puts the backends in force that the sources of pools name: [`Server::discover`] for ever, [`fill`] for a
//! configuration that is not in force yet.
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

pub use self::first::find_backends;
pub(super) use self::first::{SourceProblem, fill};

use self::first::{now_ms, own_addresses, reaches};
use self::looks::{Looks, SourceReading};
use super::listen_sockets::ListenSockets;
use super::{Server, lock_of};
use crate::clock;
use crate::config::{self, Config, Discover, Vanish};
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
    /// Looks at the sources of all pools, for ever.
    pub(super) async fn discover(self: Arc<Self>) {
        let (tell, mut told) = mpsc::channel(64);
        let mut looks = Looks::new(tell);
        loop {
            let snapshot = self.current.load_full();
            looks.follow(snapshot.generation, &snapshot.config);
            drop(snapshot);
            match tokio::time::timeout(TICK, told.recv()).await {
                Ok(Some(reading)) => self.heed(&reading).await,
                // The sender is in `looks`.
                Ok(None) => return,
                Err(_) => self.end_absences().await,
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
                let changed =
                    self.put_found_in_force(&before, &pool.with_found(found), rules, &mut listen_sockets).await;
                drop(listen_sockets);
                self.keep_found(changed).await;
            }
            Err(why) => self.note_failed(&pool.name, rules, why),
        }
    }

    fn judge(&self, pool: &config::Pool, rules: &Discover, reading: &Reading) -> Result<Vec<config::Backend>, String> {
        let own = own_addresses(&self.current.load().config, &lock_of(&self.bound));
        reconcile(pool, rules, reading, &|address| reaches(&own, address), now_ms())
    }

    /// Removes backends that their sources do not name, as soon as nothing needs them.
    async fn end_absences(&self) {
        let has_absent = |pool: &&config::Pool| pool.found().any(|backend| backend.absence().is_some());
        let names: Vec<_> = {
            let snapshot = self.current.load();
            snapshot.config.pools.iter().filter(has_absent).map(|pool| pool.name.clone()).collect()
        };
        let mut changed = false;
        for name in names {
            let mut listen_sockets = self.listen_sockets.lock().await;
            let before = self.current.load_full();
            let Some(pool) = before.pool(&name).map(|pool| pool.config().clone()) else { continue };
            let Some(rules) = pool.discover.clone() else { continue };
            changed |= self.put_found_in_force(&before, &pool, &rules, &mut listen_sockets).await;
        }
        self.keep_found(changed).await;
    }

    /// Puts a pool in force that has other found backends, without those that have no time left. True: something has
    /// changed.
    async fn put_found_in_force(
        &self,
        before: &Arc<Snapshot>,
        next: &config::Pool,
        rules: &Discover,
        listen_sockets: &mut ListenSockets,
    ) -> bool {
        let name = next.name.clone();
        let Some(config) = with_pool(before, next, rules, now_ms()).filter(|_| !self.stopping.load(Relaxed)) else {
            return false;
        };
        let mut plan = match listen_sockets.plan(&config) {
            Ok(plan) => plan,
            // Every address is bound already.
            Err(problems) => {
                problems.iter().for_each(|problem| tracing::error!("{problem}"));
                return false;
            }
        };
        let loaded = LoadedFiles::of(before);
        let snapshot = Arc::new(Snapshot::build(config, loaded, Some(before), self.workers.len(), &self.admission));
        if let Err(problems) = ListenSockets::listen(&mut plan, &snapshot.config) {
            problems.iter().for_each(|problem| tracing::error!("{problem}"));
            return false;
        }
        self.swap(Some(before), &snapshot, plan, listen_sockets).await;
        self.note_changes(before, &snapshot, &name, rules);
        true
    }

    /// Writes the state file after a change, so that a start without the source has the set.
    async fn keep_found(&self, changed: bool) {
        if changed {
            // A failure is in the log.
            let _ = self.keep_state(false).await;
        }
    }

    /// Says in the log and by events what has changed of a set.
    fn note_changes(&self, before: &Snapshot, now: &Snapshot, pool: &str, rules: &Discover) {
        let found = |snapshot: &'_ Snapshot| snapshot.pool(pool).map(|pool| pool.config().found().cloned().collect());
        let (was, is): (Vec<_>, Vec<_>) = (found(before).unwrap_or_default(), found(now).unwrap_or_default());
        let changes = changes(was.iter(), is.iter());
        let named: Vec<_> = changes.iter().take(NAMED_MAX).map(ToString::to_string).collect();
        let more = match changes.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let (named, generation) = (named.join(", "), now.generation);
        let text = format!("pool {pool:?}: {}: {named}{more}, as generation {generation}", rules.source);
        tracing::info!("{text}");
        let event = events::note(clock::unix_ms(), Event::new(EventKind::Discovered, &text).of_pool(pool));
        let oldest = events::ring().oldest();
        lock_of(&self.pool_changes).note(&before.config, &now.config, event, oldest, &[]);
        changes.iter().filter_map(|change| of_backend(pool, rules, change)).for_each(|event| {
            events::info(clock::unix_ms(), event);
        });
        let mut discoveries = lock_of(&self.discoveries);
        let report = discoveries.entry(pool.to_owned()).or_default();
        report.changes += 1;
        report.changed_unix_s = Some(clock::unix_s());
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

/// The configuration in force with this pool, without those of its found backends that have no time left; `None`: nothing
/// is another.
fn with_pool(in_force: &Snapshot, next: &config::Pool, rules: &Discover, now_ms: i64) -> Option<Config> {
    let now = in_force.pool(&next.name)?;
    let next = next.with_found(unexpired(next, rules, &|name| held(now, name), now_ms));
    if next.backends == now.config().backends {
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
