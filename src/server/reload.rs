//! Another configuration, wholly or not at all: read, check, bind, build, swap.
//!
//! Invariant: until everything that can fail has succeeded, nothing that connections see has changed; a refused file
//! shows in the log, in the verdict and in the metrics.

use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use super::doors::{Doors, Plan};
use super::{Server, connections_by_descriptors, lock_of};
use crate::admin::Verdict;
use crate::admission::Admission;
use crate::config::{self, Checked, Config, Pool};
use crate::snapshot::Snapshot;

impl Server {
    /// Reads the file again and uses it if it is good.
    pub(super) async fn reload_file(&self) -> Verdict {
        let mut doors = self.doors.lock().await;
        let verdict = match self.prepare(&mut doors) {
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

    /// Everything that can fail.
    fn prepare(&self, doors: &mut Doors) -> Result<(Plan, Snapshot, Verdict), Vec<String>> {
        if self.stopping.load(Relaxed) {
            return Err(vec!["the process is stopping".into()]);
        }
        let Checked { config, warnings } = read(&self.path)?;
        let previous = self.current.load_full();
        let mut warnings: Vec<_> =
            warnings.iter().map(|warning| format!("{}:{warning}", self.path.display())).collect();
        warnings.extend(only_at_start(&previous.config, &config));
        warnings.extend(renamed(&previous.config, &config));
        let changes = changes(&previous.config, &config);
        let plan = doors.plan(&config)?;
        let next = Snapshot::build(config, Some(&previous), self.fleet.len());
        Doors::listen(&plan)?;
        Ok((plan, next, Verdict { accepted: true, changes, warnings, ..Verdict::default() }))
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
        lock_of(&self.probes).adopt(&next.pools);
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

/// Reads and checks a file; every problem with its place in it.
pub(super) fn read(path: &Path) -> Result<Checked, Vec<String>> {
    let text = std::fs::read_to_string(path).map_err(|error| vec![format!("{}: {error}", path.display())])?;
    config::check(&text, &resolve)
        .map_err(|problems| problems.iter().map(|problem| format!("{}:{problem}", path.display())).collect())
}

fn resolve(name: &str) -> std::io::Result<Vec<SocketAddr>> {
    Ok(name.to_socket_addrs()?.collect())
}

/// Tells a file from another that has taken its place; the same file written anew stays the same.
pub(super) fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
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

/// What the new file says that only a restart can do.
fn only_at_start(old: &Config, new: &Config) -> Vec<String> {
    let (old, new) = (&old.process, &new.process);
    let changed = [
        ("workers", old.workers != new.workers),
        ("cpu_affinity", old.cpu_affinity != new.cpu_affinity),
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
