//! Another configuration, wholly or not at all: read, check, bind, build, swap.
//!
//! Invariant: until everything that can fail has succeeded, nothing that connections see has changed; a refused file
//! shows in the log, in the verdict and in the metrics.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant, SystemTime};

use super::listen_sockets::{self, ListenSockets};
use super::{Server, connections_by_descriptors, lock_of};
use crate::admin::ReloadVerdict;
use crate::admission::Admission;
use crate::clock;
use crate::config::{self, CheckedConfig, Config, diff};
use crate::plan::{Ask, Plan, Running};
use crate::snapshot::{LoadedFiles, Snapshot};
use crate::splicer;
use crate::store::Access;

/// How long an address that was given up a moment ago is waited for.
const CLOSING_MAX: Duration = Duration::from_secs(1);

/// How often is looked whether it is free.
const LOOK: Duration = Duration::from_millis(10);

/// Device, inode and birth, where the file system knows it: the inode of a file that was replaced is used again at once.
pub(super) type FileIdentity = (u64, u64, Option<SystemTime>);

/// A file that is good, with everything it names.
pub(super) struct ReadConfig {
    pub(super) config: Config,
    pub(super) loaded: LoadedFiles,
    /// The way to the shared store, if there is one.
    pub(super) access: Option<Access>,
    /// What looks wrong, each with its file.
    pub(super) warnings: Vec<String>,
}

/// The same, and the verdict should nothing else be wrong.
struct Changes {
    config: Config,
    loaded: LoadedFiles,
    access: Option<Access>,
    verdict: ReloadVerdict,
}

/// Everything that can fail has succeeded.
type Prepared = (listen_sockets::BindPlan, Snapshot, Option<Access>, ReloadVerdict);

impl Server {
    /// Reads the file again and uses it if it is good, and if no more than `max_move` of a pool's clients would move.
    pub(super) async fn reload_file(&self, max_move: Option<f64>) -> ReloadVerdict {
        let mut listen_sockets = self.listen_sockets.lock().await;
        let prepared = match self.read_changes(max_move).await {
            Ok(changes) => {
                // What was given up a moment ago is bound until its queue is served.
                let patience = Instant::now() + CLOSING_MAX;
                while listen_sockets.closes(&changes.config) && Instant::now() < patience {
                    tokio::time::sleep(LOOK).await;
                }
                self.prepare(&mut listen_sockets, changes)
            }
            Err(problems) => Err(problems),
        };
        let verdict = match prepared {
            Ok((plan, next, access, verdict)) => {
                self.put_in_force(&mut listen_sockets, plan, next).await;
                self.store.adopt(access.map(Arc::new)).await;
                verdict
            }
            Err(problems) => ReloadVerdict { problems, ..ReloadVerdict::default() },
        };
        let snapshot = self.current.load();
        let verdict =
            ReloadVerdict { generation: snapshot.generation, digest: format!("{:016x}", snapshot.digest), ..verdict };
        self.record(&verdict);
        verdict
    }

    /// Reads the file, and compares it to what is in force.
    async fn read_changes(&self, max_move: Option<f64>) -> Result<Changes, Vec<String>> {
        if self.stopping.load(Relaxed) {
            return Err(vec!["the process is stopping".into()]);
        }
        *lock_of(&self.identity) = identity(&self.path);
        // A name in the file may take the resolver a while, during which everything else goes on.
        let path = self.path.clone();
        let before = self.current.load_full();
        let in_force = Arc::clone(&before);
        let ReadConfig { config, loaded, access, mut warnings } = tokio::task::spawn_blocking(move || {
            let read = read(&path, Some(&*in_force))?;
            match max_move {
                Some(most) => moves_at_most(most, &in_force, &read.config).map(|()| read),
                None => Ok(read),
            }
        })
        .await
        .unwrap_or_else(|panic| Err(vec![format!("reading failed: {panic}")]))?;
        let old = &before.config;
        warnings.extend(diff::warnings(old, &config));
        let mut changes = diff::changes(old, &config);
        changes.extend(loaded.tls.changes(&before.tls));
        let verdict = ReloadVerdict { accepted: true, changes, warnings, ..ReloadVerdict::default() };
        Ok(Changes { config, loaded, access, verdict })
    }

    /// Everything else that can fail.
    fn prepare(&self, listen_sockets: &mut ListenSockets, changes: Changes) -> Result<Prepared, Vec<String>> {
        let plan = listen_sockets.plan(&changes.config)?;
        let Changes { config, loaded, access, verdict } = changes;
        let next =
            Snapshot::build(config, loaded, Some(&self.current.load_full()), self.workers.len(), &self.admission);
        ListenSockets::listen(&plan)?;
        Ok((plan, next, access, verdict))
    }

    /// Nothing here can fail. Answers when every worker has adopted it.
    async fn put_in_force(&self, listen_sockets: &mut ListenSockets, plan: listen_sockets::BindPlan, next: Snapshot) {
        limit(&self.admission, &next, self.workers.len());
        if let Some(access_log) = lock_of(&self.access_log).as_ref() {
            access_log.set_format(next.config.process.log.format);
        }
        let next = Arc::new(next);
        let old = self.current.swap(Arc::clone(&next));
        let adoptions = listen_sockets.commit(plan, &next);
        self.workers.adopt(adoptions).await;
        lock_of(&self.probes).adopt(&next.pools, &next.tls);
        self.note_addresses(listen_sockets);
        for pool in next.pools.iter() {
            if let Some(old) = old.pool(pool.name()) {
                pool.take_over(old, splicer::now() / 1_000);
            }
        }
        drop(old);
    }

    fn record(&self, verdict: &ReloadVerdict) {
        let mut reloads = lock_of(&self.reloads);
        reloads.last_accepted = verdict.accepted;
        reloads.last_unix_s = clock::unix_s();
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
pub(super) fn read(path: &Path, in_force: Option<&Snapshot>) -> Result<ReadConfig, Vec<String>> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| vec![format!("{file}: {error}")])?;
    understand(&file, &text, in_force)
}

/// The same for the text of a file.
pub(super) fn understand(file: &str, text: &str, in_force: Option<&Snapshot>) -> Result<ReadConfig, Vec<String>> {
    let with_place = |problem: &config::Problem| format!("{file}:{problem}");
    let CheckedConfig { config, warnings } = config::check(text, &crate::socket::resolve)
        .map_err(|problems| problems.iter().map(with_place).collect::<Vec<_>>())?;
    let without_place = |problem: String| format!("{file}: {problem}");
    let (loaded, access) = read_files(&config, in_force)
        .map_err(|problems| problems.into_iter().map(without_place).collect::<Vec<_>>())?;
    let of_files = loaded.tls.warnings(clock::unix_s()).into_iter();
    let of_files = of_files.chain(access.iter().flat_map(Access::warnings)).map(without_place);
    let warnings = warnings.iter().map(with_place).chain(of_files).collect();
    Ok(ReadConfig { config, loaded, access, warnings })
}

/// Every file that a configuration names.
pub(crate) fn read_files(
    config: &Config,
    in_force: Option<&Snapshot>,
) -> Result<(LoadedFiles, Option<Access>), Vec<String>> {
    let loaded = LoadedFiles::read(config, in_force);
    let access = config.store.as_ref().map(Access::read).transpose();
    match (loaded, access) {
        (Ok(loaded), Ok(access)) => Ok((loaded, access)),
        (loaded, access) => Err([loaded.err(), access.err()].into_iter().flatten().flatten().collect()),
    }
}

/// Whether what is allowed to move is enough for this change.
fn moves_at_most(most: f64, snapshot: &Snapshot, new: &Config) -> Result<(), Vec<String>> {
    let running = Running { snapshot, open: &[], now_ms: splicer::now() / 1_000 };
    let too_much = Plan::live(&running, new, Ask::about(&[])).too_much(most);
    if too_much.is_empty() { Ok(()) } else { Err(too_much) }
}

/// Tells a file from another that has taken its place; the same file written anew stays the same.
pub(super) fn identity(path: &Path) -> Option<FileIdentity> {
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
