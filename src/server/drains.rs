//! [`Drains`]: drains by command that outlive their reason: one that a restart has ended, and one that stands for long.
//!
//! Drains no backend (`pool::drain` does), and takes no drain up again: the operator decides. Invariant: a backend that
//! a command drained in an earlier process, and that serves again because of the restart alone, is named in the log,
//! the metrics and the status until a command about it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::lock::InstanceLock;
use crate::pool::{Backend, Pool};
use crate::snapshot::Snapshot;

/// A drain is named in the log once its deadline has passed by this much, and then once in each [`REPEAT`].
const LONG: Duration = Duration::from_secs(3600);
/// Time between two log lines about the same drain.
const REPEAT: Duration = Duration::from_secs(86_400);

/// What is known about drains by command.
#[derive(Debug, Default)]
pub(super) struct Drains {
    lock: Option<InstanceLock>,
    /// Backends, as `POOL/NAME`, that were drained when an earlier process ended, without a command since.
    forgotten: BTreeSet<String>,
    /// When the log next names a backend that is drained.
    due_ms: BTreeMap<String, u64>,
}

impl Drains {
    /// Takes over what the process before has kept in the lock file.
    pub(super) fn new(lock: Option<InstanceLock>) -> Self {
        let forgotten = lock.as_ref().map(InstanceLock::kept).unwrap_or_default();
        Self { lock, forgotten, due_ms: BTreeMap::new() }
    }

    /// A copy of the lock for the process that follows; `None`: there is no lock.
    pub(super) fn lock(&self) -> io::Result<Option<OwnedFd>> {
        self.lock.as_ref().map(InstanceLock::copy).transpose()
    }

    /// Gives the lock up: it is the process that follows that holds it.
    pub(super) fn give_up_lock(&mut self) {
        self.lock = None;
    }

    /// True if a restart has ended the drain of this backend, and no command has been given since.
    pub(super) fn is_forgotten(&self, pool: &str, backend: &str) -> bool {
        !self.forgotten.is_empty() && self.forgotten.contains(&format!("{pool}/{backend}"))
    }

    /// The backends that serve clients although a command had drained them.
    pub(super) fn forgotten(&self, snapshot: &Snapshot) -> Vec<String> {
        let serves = |(pool, backend): (&Pool, &Backend)| {
            let name = format!("{}/{}", pool.name(), backend.name());
            let config = pool.config().backends.iter().find(|config| config.name == backend.name());
            let takes_clients = config.is_some_and(|config| config.weight > 0) && !backend.draining();
            (takes_clients && self.forgotten.contains(&name)).then_some(name)
        };
        backends(snapshot).filter_map(serves).collect()
    }

    /// Notes that a command was given about a backend, and keeps all drains for the next process.
    pub(super) fn ordered(&mut self, pool: &str, backend: &str, snapshot: &Snapshot) {
        let name = format!("{pool}/{backend}");
        self.forgotten.remove(&name);
        self.due_ms.remove(&name);
        let draining = backends(snapshot).filter(|(_, backend)| backend.draining());
        let draining = draining.map(|(pool, backend)| format!("{}/{}", pool.name(), backend.name()));
        let names = draining.chain(self.forgotten.iter().cloned()).collect();
        if let Some(lock) = &self.lock
            && let Err(error) = lock.keep(&names)
        {
            tracing::warn!("the lock file of the admin socket: {error}; a restart will not name this drain");
        }
    }

    /// Sentences for the log about drains that stand for long.
    pub(super) fn overdue(&mut self, snapshot: &Snapshot, now_ms: u64) -> Vec<String> {
        let mut lines = Vec::new();
        for (pool, backend) in backends(snapshot) {
            let Some(since_ms) = backend.drained_since(now_ms).filter(|since| now_ms - since >= ms(LONG)) else {
                continue;
            };
            let name = format!("{}/{}", pool.name(), backend.name());
            if self.due_ms.get(&name).is_none_or(|due_ms| *due_ms <= now_ms) {
                self.due_ms.insert(name.clone(), now_ms + ms(REPEAT));
                let hours = (now_ms - since_ms) / ms(LONG);
                lines.push(format!(
                    "backend {name} was drained by command and has served no client for {hours} h; \
                     `sessile ready {name}` ends the drain"
                ));
            }
        }
        lines
    }
}

fn backends(snapshot: &Snapshot) -> impl Iterator<Item = (&Pool, &Backend)> {
    snapshot.pools.iter().flat_map(|pool| pool.backends().iter().map(|backend| (&**pool, &**backend)))
}

fn ms(time: Duration) -> u64 {
    time.as_millis() as u64
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::admission::Admission;
    use crate::pool::AdminState;
    use crate::{config, snapshot};

    fn snapshot() -> Snapshot {
        let text = "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\npool = \"web\"\n\
                    [[pool]]\nname = \"web\"\ndrain_deadline = \"1m\"\n\
                    backend = [{ name = \"a\", address = \"127.0.0.1:1\" }, \
                    { name = \"b\", address = \"127.0.0.1:2\" }, \
                    { name = \"c\", address = \"127.0.0.1:3\", state = \"drain\" }]\n";
        let config = config::check(text, &|_| Err(std::io::ErrorKind::NotFound.into())).unwrap().config;
        Snapshot::build(config, snapshot::LoadedFiles::default(), None, 1, &Arc::new(Admission::new(1)))
    }

    #[test]
    fn a_drain_that_a_restart_ended_is_named_until_a_command_about_its_backend() {
        let snapshot = snapshot();
        let forgotten = ["web/a", "web/c", "web/gone"].map(str::to_owned).into();
        let mut drains = Drains { forgotten, ..Drains::default() };
        assert_eq!(drains.forgotten(&snapshot), ["web/a"], "c is drained by the file, and the last one is not there");
        assert!(drains.is_forgotten("web", "a") && !drains.is_forgotten("web", "b"));
        drains.ordered("web", "b", &snapshot);
        assert!(drains.is_forgotten("web", "a"));
        snapshot.pools[0].order("a", AdminState::Drain, 0);
        drains.ordered("web", "a", &snapshot);
        assert!(!drains.is_forgotten("web", "a") && drains.forgotten(&snapshot).is_empty());
    }

    #[test]
    fn a_drain_that_stands_for_long_is_named_once_a_day() {
        let (snapshot, mut drains) = (snapshot(), Drains::default());
        snapshot.pools[0].order("a", AdminState::Drain, 1_000);
        let over_ms = 1_000 + 60_000 + ms(LONG);
        assert!(drains.overdue(&snapshot, over_ms - 1).is_empty());
        let said = drains.overdue(&snapshot, over_ms);
        assert!(said.len() == 1 && said[0].contains("web/a") && said[0].contains("sessile ready web/a"), "{said:?}");
        assert!(drains.overdue(&snapshot, over_ms + ms(REPEAT) - 1).is_empty());
        assert_eq!(drains.overdue(&snapshot, over_ms + ms(REPEAT)).len(), 1);
        snapshot.pools[0].order("a", AdminState::Ready, over_ms + 1);
        drains.ordered("web", "a", &snapshot);
        assert!(drains.overdue(&snapshot, over_ms + 3 * ms(REPEAT)).is_empty());
    }
}
