//! Another configuration for a process that runs: read, compared, prepared, put in force.
//!
//! Binds and swaps nothing itself (`in_force` does). Invariant: a refused file shows in the log, in the verdict and in
//! the metrics, and changes nothing else, also not on the disk; only a new file of cookie keys stays.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::discovery::Before;
use super::files::ReadConfig;
use super::listen_sockets::ListenSockets;
use super::pool_changes::weight_events;
use super::{Server, in_force, lock_of};
use crate::admin::ReloadVerdict;
use crate::clock;
use crate::config::{Config, diff};
use crate::events::{self, Event, EventKind};
use crate::plan::{Ask, CookieKeys, Plan, Running, cookie_warnings};
use crate::snapshot::{Rings, Snapshot};

/// How long a reload waits for an address that an earlier reload gave up: it stays bound until its backlog is served.
const CLOSING_MAX: Duration = Duration::from_secs(1);

/// How often a reload looks whether the address is free.
const LOOK: Duration = Duration::from_millis(10);

impl Server {
    /// Reads the file again and puts it in force if it is good. `max_move`: the highest share of a pool's clients that
    /// may move, 0 to 1; `None`: any.
    pub(super) async fn reload_file(&self, max_move: Option<f64>) -> ReloadVerdict {
        let mut listen_sockets = self.listen_sockets.lock().await;
        let _report = self.report_reload();
        let before = Arc::clone(&self.current.load().config);
        let verdict = match self.try_reload(max_move, &mut listen_sockets).await {
            Ok(verdict) => verdict,
            Err(problems) => {
                let mut reloads = lock_of(&self.reloads);
                reloads.refused += 1;
                (reloads.last_accepted, reloads.last_unix_s) = (false, clock::unix_s());
                reloads.problems = problems.clone();
                ReloadVerdict { problems, ..ReloadVerdict::default() }
            }
        };
        let snapshot = self.current.load();
        let verdict =
            ReloadVerdict { generation: snapshot.generation, digest: format!("{:016x}", snapshot.digest), ..verdict };
        self.log_reload(&verdict, &before, &snapshot.config);
        verdict
    }

    /// Puts the file in force, or returns every problem.
    async fn try_reload(
        &self,
        max_move: Option<f64>,
        listen_sockets: &mut ListenSockets,
    ) -> Result<ReloadVerdict, Vec<String>> {
        if self.stopping.load(Relaxed) {
            return Err(vec!["the process is stopping".into()]);
        }
        let before = self.current.load_full();
        let read = self.read_again(max_move, &before).await?;
        let mut verdict = compare(&self.started_with, &before, &read);
        verdict.warnings.extend(listen_sockets.unnamed(&read.config));
        let others = self.resolved_names(&read.config, &read.names);
        verdict.names = others.iter().chain(&read.names).map(ToString::to_string).collect();
        let patience = Instant::now() + CLOSING_MAX;
        while listen_sockets.closes(&read.config) && Instant::now() < patience {
            tokio::time::sleep(LOOK).await;
        }
        let log = self.open_changed_log(&read.config.process.log).await.map_err(|problem| vec![problem])?;
        let (source, workers) = (&self.source, self.workers.len());
        let mut next = in_force::prepare(source, Some(&before), read, listen_sockets, &self.admission, workers, None)?;
        if let Some((log, made)) = log {
            next.log = Some(log);
            next.made.and(made);
        }
        self.put_in_force(Some(&before), next, listen_sockets).await;
        Ok(verdict)
    }

    /// Reads and checks the file on a thread of its own: a name in it may take the resolver a while, or a disk does not
    /// answer; signals and the admin interface go on meanwhile.
    async fn read_again(&self, max_move: Option<f64>, before: &Arc<Snapshot>) -> Result<ReadConfig, Vec<String>> {
        let identity_before = *lock_of(&self.identity);
        let (source, identity, known) = (self.source.clone(), Arc::clone(&self.identity), Arc::clone(before));
        let read = self.readings.read(move || {
            *lock_of(&identity) = source.identity();
            source.read(Before::InForce(&known))
        });
        let read = read.await.inspect_err(|_| {
            if self.readings.stuck().is_some() {
                // The file was not read. Once its disk answers, the watch sees it again.
                *lock_of(&self.identity) = identity_before;
            }
        })?;
        let Some(most) = max_move else { return Ok(read) };
        let before = Arc::clone(before);
        let compare = move || moves_at_most(most, &before, &read.config, &read.loaded.rings).map(|()| read);
        let compared = tokio::task::spawn_blocking(compare);
        compared.await.unwrap_or_else(|panic| Err(vec![format!("comparing failed: {panic}")]))
    }

    /// Says in the log and by events what a reload has come to. `old` and `new`: the configurations in force before and
    /// now.
    fn log_reload(&self, verdict: &ReloadVerdict, old: &Config, new: &Config) {
        let generation = verdict.generation;
        if verdict.accepted {
            let changes =
                if verdict.changes.is_empty() { "nothing changed".into() } else { verdict.changes.join("; ") };
            tracing::info!("reload accepted as generation {generation}: {changes}");
            // Before the event of the reload: where more than weights has changed, that one is the last.
            let weights = weight_events(old, new);
            for event in &weights {
                events::note(clock::unix_ms(), event.clone());
            }
            let event = note(EventKind::Reload, &format!("generation {generation}: {changes}"));
            let oldest = events::ring().oldest();
            lock_of(&self.pool_changes).note(old, new, event, oldest, &weights);
        } else {
            let problems = verdict.problems.join("; ");
            tracing::error!("reload refused, generation {generation} stays in force: {problems}");
            let first = verdict.problems.first().map_or("", String::as_str);
            let more = verdict.problems.len().saturating_sub(1);
            let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
            note(EventKind::ReloadRefused, &format!("generation {generation} stays in force: {first}{more}"));
        }
        for warning in &verdict.warnings {
            tracing::warn!("{warning}");
        }
    }
}

/// The verdict if nothing else fails: what changes, and what looks wrong. `started`: the configuration of the start.
fn compare(started: &Config, before: &Snapshot, read: &ReadConfig) -> ReloadVerdict {
    let (old, new, rings) = (&before.config, &read.config, &read.loaded.rings);
    let mut warnings = read.warnings.clone();
    warnings.extend(diff::warnings(started, old, new));
    warnings.extend(cookie_warnings(old, new, CookieKeys::new(&before.rings, rings)));
    let mut changes = diff::changes(old, new);
    changes.extend(read.loaded.tls.changes(&before.tls));
    changes.extend(rings.changes(&before.rings));
    changes.extend(read.loaded.texts.changes(&before.texts));
    ReloadVerdict { accepted: true, changes, warnings, ..ReloadVerdict::default() }
}

/// Fails with a problem for each pool of which more than `most` of the clients would move.
pub(super) fn moves_at_most(most: f64, snapshot: &Snapshot, next: &Config, rings: &Rings) -> Result<(), Vec<String>> {
    let running = Running { snapshot, open: &[], now_ms: clock::now_ms() };
    let keys = CookieKeys::new(&snapshot.rings, rings);
    let too_much = Plan::live(&running, next, Ask { keys, ..Ask::about(&[]) }).too_much(most);
    // Backends of the plan took ids in the stick tables; the pools in force free those again.
    snapshot.pools.iter().for_each(|pool| pool.take_over(pool, running.now_ms));
    if too_much.is_empty() { Ok(()) } else { Err(too_much) }
}

fn note(kind: EventKind, text: &str) -> u64 {
    events::note(clock::unix_ms(), Event::new(kind, text))
}
