//! Another configuration, wholly or not at all: read, check, bind, build, swap.
//!
//! Invariant: until everything that can fail has succeeded, nothing that connections see has changed; a refused file
//! shows in the log, in the verdict and in the metrics.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use super::doors::{Doors, Plan};
use super::{Server, connections_by_descriptors, lock_of};
use crate::admin::Verdict;
use crate::admission::Admission;
use crate::config::{self, Checked, Config, Pool};
use crate::snapshot::{self, Loaded, Snapshot};

/// How long an address that was given up a moment ago is waited for.
const CLOSING_MAX: Duration = Duration::from_secs(1);

/// How often is looked whether it is free.
const LOOK: Duration = Duration::from_millis(10);

/// Device, inode and birth, where the file system knows it: the inode of a file that was replaced is used again at once.
pub(super) type Identity = (u64, u64, Option<SystemTime>);

/// A file that is good, with everything it names.
pub(super) struct Read {
    pub(super) config: Config,
    pub(super) loaded: Loaded,
    /// What looks wrong, each with its file.
    pub(super) warnings: Vec<String>,
}

/// The same, and the verdict should nothing else be wrong.
struct Changes {
    config: Config,
    loaded: Loaded,
    verdict: Verdict,
}

impl Server {
    /// Reads the file again and uses it if it is good.
    pub(super) async fn reload_file(&self) -> Verdict {
        let mut doors = self.doors.lock().await;
        let prepared = match self.read_changes().await {
            Ok(changes) => {
                // What was given up a moment ago is bound until its queue is served.
                let patience = Instant::now() + CLOSING_MAX;
                while doors.closes(&changes.config) && Instant::now() < patience {
                    tokio::time::sleep(LOOK).await;
                }
                self.prepare(&mut doors, changes)
            }
            Err(problems) => Err(problems),
        };
        let verdict = match prepared {
            Ok((plan, next, verdict)) => {
                self.put_in_force(&mut doors, plan, next).await;
                verdict
            }
            Err(problems) => Verdict { problems, ..Verdict::default() },
        };
        let snapshot = self.current.load();
        let verdict =
            Verdict { generation: snapshot.generation, digest: format!("{:016x}", snapshot.digest), ..verdict };
        self.tell(&verdict);
        verdict
    }

    /// Reads the file, and compares it to what is in force.
    async fn read_changes(&self) -> Result<Changes, Vec<String>> {
        if self.stopping.load(Relaxed) {
            return Err(vec!["the process is stopping".into()]);
        }
        *lock_of(&self.identity) = identity(&self.path);
        // A name in the file may take the resolver a while, during which everything else goes on.
        let path = self.path.clone();
        let before = self.current.load_full();
        let in_force = Arc::clone(&before);
        let Read { config, loaded, mut warnings } = tokio::task::spawn_blocking(move || read(&path, Some(&*in_force)))
            .await
            .unwrap_or_else(|panic| Err(vec![format!("reading failed: {panic}")]))?;
        let old = &before.config;
        warnings.extend(only_at_start(old, &config));
        warnings.extend(only_for_new_listeners(old, &config));
        warnings.extend(renamed(old, &config));
        let mut changes = changes(old, &config);
        changes.extend(loaded.tls.changes(&before.tls));
        let verdict = Verdict { accepted: true, changes, warnings, ..Verdict::default() };
        Ok(Changes { config, loaded, verdict })
    }

    /// Everything else that can fail.
    fn prepare(&self, doors: &mut Doors, changes: Changes) -> Result<(Plan, Snapshot, Verdict), Vec<String>> {
        let plan = doors.plan(&changes.config)?;
        let Changes { config, loaded, verdict } = changes;
        let next = Snapshot::build(config, loaded, Some(&self.current.load_full()), self.fleet.len(), &self.admission);
        Doors::listen(&plan)?;
        Ok((plan, next, verdict))
    }

    /// Nothing here can fail. Answers when every worker has adopted it.
    async fn put_in_force(&self, doors: &mut Doors, plan: Plan, next: Snapshot) {
        limit(&self.admission, &next, self.fleet.len());
        if let Some(journal) = lock_of(&self.journal).as_ref() {
            journal.set_format(next.config.process.log.format);
        }
        let next = Arc::new(next);
        let old = self.current.swap(Arc::clone(&next));
        let adoptions = doors.carry_out(plan, &next);
        self.fleet.adopt(adoptions).await;
        lock_of(&self.probes).adopt(&next.pools, &next.tls);
        self.note_addresses(doors);
        drop(old);
    }

    fn tell(&self, verdict: &Verdict) {
        let mut reloads = lock_of(&self.reloads);
        reloads.last_accepted = verdict.accepted;
        reloads.last_unix_s = unix_s();
        reloads.problems = verdict.problems.clone();
        if verdict.accepted {
            reloads.accepted += 1;
            let changes =
                if verdict.changes.is_empty() { "nothing changed".into() } else { verdict.changes.join("; ") };
            tracing::info!("reload accepted as generation {}: {changes}", verdict.generation);
        } else {
            reloads.refused += 1;
            tracing::error!(
                "reload refused, generation {} stays in force: {}",
                verdict.generation,
                verdict.problems.join("; ")
            );
        }
        for warning in &verdict.warnings {
            tracing::warn!("{warning}");
        }
    }
}

/// Reads and checks a file and those that it names; every problem with its place in it.
pub(super) fn read(path: &Path, in_force: Option<&Snapshot>) -> Result<Read, Vec<String>> {
    let file = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| vec![format!("{file}: {error}")])?;
    let with_place = |problem: &config::Problem| format!("{file}:{problem}");
    let Checked { config, warnings } = config::check(&text, &crate::socket::resolve)
        .map_err(|problems| problems.iter().map(with_place).collect::<Vec<_>>())?;
    let without_place = |problem: String| format!("{file}: {problem}");
    let loaded = Loaded::read(&config, in_force)
        .map_err(|problems| problems.into_iter().map(without_place).collect::<Vec<_>>())?;
    let of_files = loaded.tls.warnings(unix_s()).into_iter().map(without_place);
    let warnings = warnings.iter().map(with_place).chain(of_files).collect();
    Ok(Read { config, loaded, warnings })
}

/// Tells a file from another that has taken its place; the same file written anew stays the same.
pub(super) fn identity(path: &Path) -> Option<Identity> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino(), metadata.created().ok()))
}

/// Sets the limits that hold for the process and for listeners.
pub(super) fn limit(admission: &Admission, snapshot: &Snapshot, workers: usize) {
    let limits = &snapshot.config.limits;
    let most = connections_by_descriptors(snapshot, workers);
    admission.limit(
        limits.max_connections.map_or(most, |configured| configured.min(most)),
        limits.max_connections_per_source,
        limits.connection_rate_per_source,
    );
    for listener in &snapshot.listeners {
        listener.state.limit(listener.config.max_connections);
    }
}

pub(super) fn unix_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Sockets that stay keep what they were made with.
fn only_for_new_listeners(old: &Config, new: &Config) -> Option<String> {
    let same_limits = snapshot::keep_alive(&old.limits) == snapshot::keep_alive(&new.limits);
    let same = |listener: &config::Listener| {
        old.listeners.iter().all(|before| before.name != listener.name || before.backlog == listener.backlog)
    };
    (!same_limits || !new.listeners.iter().all(same)).then(|| {
        "keepalive, user_timeout and backlog: listeners that stay keep what they were opened with until the next start".into()
    })
}

/// What the new file says that only a restart can do.
fn only_at_start(old: &Config, new: &Config) -> Vec<String> {
    let (old, new) = (&old.process, &new.process);
    let changed = [
        ("workers", old.workers != new.workers),
        ("cpu_affinity", old.cpu_affinity != new.cpu_affinity),
        ("busy_poll", old.busy_poll != new.busy_poll),
        ("admin", old.admin != new.admin),
        ("log.level", old.log.level != new.log.level),
    ];
    let keys = changed.iter().filter(|(_, changed)| *changed);
    keys.map(|(key, _)| format!("{key}: changed in the file; takes effect at the next start")).collect()
}

/// Backends that have another name and the address of one that is gone: to clients that is another backend.
fn renamed(old: &Config, new: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    for (before, after) in common(old, new) {
        for gone in before.backends.iter().filter(|gone| after.backends.iter().all(|b| b.name != gone.name)) {
            let same = after
                .backends
                .iter()
                .find(|b| b.address == gone.address && before.backends.iter().all(|o| o.name != b.name));
            if let Some(same) = same {
                warnings.push(format!(
                    "pool {:?}: backend {:?} has the address of {:?}, which is gone: a new name is a new backend, its clients move",
                    after.name, same.name, gone.name
                ));
            }
        }
    }
    warnings
}

fn changes(old: &Config, new: &Config) -> Vec<String> {
    let names = |config: &Config| -> Vec<_> { config.listeners.iter().map(|listener| listener.name.clone()).collect() };
    let pools = |config: &Config| -> Vec<_> { config.pools.iter().map(|pool| pool.name.clone()).collect() };
    let mut changes = Vec::new();
    gone_and_new("listener", &names(old), &names(new), &mut changes);
    for listener in &new.listeners {
        if old.listeners.iter().any(|before| before.name == listener.name && before != listener) {
            changes.push(format!("listener {:?} changed", listener.name));
        }
    }
    gone_and_new("pool", &pools(old), &pools(new), &mut changes);
    for (before, after) in common(old, new) {
        let backends =
            |pool: &Pool| -> Vec<_> { pool.backends.iter().map(|b| format!("{}/{}", pool.name, b.name)).collect() };
        let count = changes.len();
        gone_and_new("backend", &backends(before), &backends(after), &mut changes);
        for backend in &after.backends {
            if before.backends.iter().any(|b| b.name == backend.name && b != backend) {
                changes.push(format!("backend \"{}/{}\" changed", after.name, backend.name));
            }
        }
        if changes.len() == count && before != after {
            changes.push(format!("pool {:?} changed", after.name));
        }
    }
    if old.tls != new.tls {
        changes.push("tls changed".into());
    }
    if old.limits != new.limits {
        changes.push("limits changed".into());
    }
    changes
}

fn common<'a>(old: &'a Config, new: &'a Config) -> impl Iterator<Item = (&'a Pool, &'a Pool)> {
    new.pools.iter().filter_map(|after| Some((old.pools.iter().find(|before| before.name == after.name)?, after)))
}

fn gone_and_new(kind: &str, old: &[String], new: &[String], changes: &mut Vec<String>) {
    changes.extend(new.iter().filter(|name| !old.contains(name)).map(|name| format!("{kind} {name:?} added")));
    changes.extend(old.iter().filter(|name| !new.contains(name)).map(|name| format!("{kind} {name:?} removed")));
}
