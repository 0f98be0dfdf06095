//! [`NameLooks`]: a task for each name of backends, which asks for it again and again.
//!
//! Judges no answer. Invariants: each name has one task, however many backends have it, and a configuration without names
//! has none; a name that is not answered holds its own task and no other; a backend that comes without an address waits for
//! no answer of before to end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::discovery::dns::{BackendNames, HostReading, Resolver};
use crate::server::discovery::Pace;

/// What was found of a name.
#[derive(Debug)]
pub(in crate::server) struct NameReading {
    /// The name, without a port.
    pub(in crate::server) host: String,
    /// What was found.
    pub(in crate::server) reading: HostReading,
}

/// The tasks of all names.
pub(in crate::server) struct NameLooks {
    tell: mpsc::Sender<NameReading>,
    by_host: BTreeMap<String, NameLook>,
    /// Where all tasks look.
    names: Arc<BackendNames>,
    /// The snapshot that is followed.
    generation: Option<u64>,
}

/// The task of one name; it ends with this.
struct NameLook {
    task: JoinHandle<()>,
    /// The backends without an address when it was last followed.
    without: WithoutAddress,
}

/// Backends that have no address: the pool, the backend and the port.
type WithoutAddress = BTreeSet<(String, String, u16)>;

impl Drop for NameLook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl NameLooks {
    /// Begins without a task. Readings go to `tell`.
    pub(in crate::server) fn new(tell: mpsc::Sender<NameReading>) -> Self {
        let names = Arc::new(BackendNames::new(Resolver::new(Vec::new())));
        Self { tell, by_host: BTreeMap::new(), names, generation: None }
    }

    /// Starts and ends tasks, so that each name that backends of this configuration follow has one. False: this snapshot
    /// is followed already.
    pub(in crate::server) fn follow(&mut self, generation: u64, config: &Config) -> bool {
        if self.generation.replace(generation) == Some(generation) {
            return false;
        }
        let mut before = std::mem::take(&mut self.by_host);
        if self.names.chosen() != config.process.resolvers {
            self.names = Arc::new(BackendNames::new(Resolver::new(config.process.resolvers.clone())));
            before.clear();
        }
        for (host, without) in hosts(config) {
            // The task of before may sleep for as long as its last answer is good, which this backend did not get.
            let goes_on = before.remove(host).filter(|look| without.is_subset(&look.without));
            let look = match goes_on {
                Some(mut look) => {
                    look.without = without;
                    look
                }
                None => {
                    let task = tokio::spawn(look_on(host.to_owned(), Arc::clone(&self.names), self.tell.clone()));
                    NameLook { task, without }
                }
            };
            self.by_host.insert(host.to_owned(), look);
        }
        true
    }
}

/// The hosts that backends follow, each with those of its backends that have no address.
fn hosts(config: &Config) -> BTreeMap<&str, WithoutAddress> {
    let mut hosts: BTreeMap<_, WithoutAddress> = BTreeMap::new();
    for pool in &config.pools {
        for (backend, host) in pool.followed() {
            let without = hosts.entry(host.host.as_str()).or_default();
            if backend.has_no_address() {
                without.insert((pool.name.clone(), backend.name.clone(), host.port));
            }
        }
    }
    hosts
}

/// Asks for a name for ever.
async fn look_on(host: String, names: Arc<BackendNames>, tell: mpsc::Sender<NameReading>) {
    let mut pace = Pace::new();
    loop {
        let reading = names.look(&host).await;
        let pause = pace.pause(reading.as_ref().ok().map(|answer| answer.valid_for));
        if tell.send(NameReading { host: host.clone(), reading }).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pool with backends of one host: the name of each, its port, and whether it has an address.
    fn config(backends: &[(&str, u16, bool)]) -> Config {
        let backends: Vec<_> = backends
            .iter()
            .map(|(name, port, _)| format!("{{ name = \"{name}\", address = \"a.example:{port}\" }}"))
            .collect();
        let text = format!(
            "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\npool = \"p\"\n\
             [[pool]]\nname = \"p\"\nbackend = [{}]\n",
            backends.join(", ")
        );
        crate::config::check(&text, &|name| panic!("{name} was looked up")).unwrap().config
    }

    #[tokio::test]
    async fn a_backend_that_comes_without_an_address_is_asked_for_at_once() {
        let (tell, _told) = mpsc::channel(1);
        let mut looks = NameLooks::new(tell);
        let mut generation = 0;
        let mut asks = |backends: &[(&str, u16, bool)]| {
            let mut config = config(backends);
            let has_address = |name: &str| backends.iter().any(|(known, _, has)| *known == name && *has);
            super::super::put(&mut config, |_, backend| {
                has_address(&backend.name).then(|| ([10, 0, 0, 1], backend.host.as_ref().unwrap().port).into())
            });
            generation += 1;
            let before = looks.by_host.get("a.example").map(|look| look.task.id());
            assert!(looks.follow(generation, &config));
            before != looks.by_host.get("a.example").map(|look| look.task.id())
        };
        assert!(asks(&[("a", 80, true)]));
        assert!(!asks(&[("a", 80, true), ("b", 80, true)]), "the answer of before is that of `b`, too");
        assert!(asks(&[("a", 80, true), ("c", 80, false)]));
        assert!(!asks(&[("a", 80, true), ("c", 80, false)]), "it was asked for");
        assert!(asks(&[("a", 80, true), ("c", 81, false)]));
        assert!(!asks(&[("a", 80, true), ("c", 81, true)]));
        assert!(asks(&[("a", 81, false), ("c", 81, true)]));
    }
}
