//! [`NameLooks`]: a task for each name of backends, which asks for it again and again.
//!
//! Judges no answer. Invariants: each name has one task, however many backends have it, and a configuration without names
//! has none; a name that is not answered holds its own task and no other.

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
struct NameLook(JoinHandle<()>);

impl Drop for NameLook {
    fn drop(&mut self) {
        self.0.abort();
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
        let followed = config.pools.iter().flat_map(|pool| pool.followed());
        let hosts: BTreeSet<_> = followed.map(|(_, host)| host.host.as_str()).collect();
        for host in hosts {
            let look = before.remove(host).unwrap_or_else(|| {
                NameLook(tokio::spawn(look_on(host.to_owned(), Arc::clone(&self.names), self.tell.clone())))
            });
            self.by_host.insert(host.to_owned(), look);
        }
        true
    }
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
