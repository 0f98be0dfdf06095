//! [`Looks`]: a task for each pool with a source, which looks at the source again and again.
//!
//! Judges nothing that a source says. Invariants: each source has one task; what does not answer holds its own task and
//! no other; a pool that has changed otherwise than by its source is looked at anew.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::{Config, Discover, DiscoverSource, Pool};
use crate::discovery::dns::{DnsSource, REFRESH_MIN, Resolver};
use crate::discovery::file::{FileSource, LOOK};
use crate::discovery::found::Reading;
use crate::server::file_watch::patiently;

/// Longest time until name servers are asked again that have said nothing; it begins with a second and is doubled.
const ASK_AGAIN_MAX: Duration = Duration::from_secs(8);

/// What a source has said for a pool.
#[derive(Debug)]
pub(super) struct SourceReading {
    /// Name of the pool.
    pub(super) pool: String,
    /// The source, which the pool may not have any more.
    pub(super) source: DiscoverSource,
    /// What it said.
    pub(super) reading: Reading,
}

/// The tasks of all pools with a source.
pub(super) struct Looks {
    tell: mpsc::Sender<SourceReading>,
    by_pool: BTreeMap<String, PoolLook>,
    /// The name servers that all tasks ask.
    resolver: Arc<Resolver>,
    /// The snapshot that is followed.
    generation: Option<u64>,
}

/// The task of one pool; it ends with this.
struct PoolLook {
    /// The pool without what its source has named.
    written: Pool,
    task: JoinHandle<()>,
}

impl Drop for PoolLook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Looks {
    /// Begins without a task. Readings go to `tell`.
    pub(super) fn new(tell: mpsc::Sender<SourceReading>) -> Self {
        let resolver = Arc::new(Resolver::new(Vec::new()));
        Self { tell, by_pool: BTreeMap::new(), resolver, generation: None }
    }

    /// Starts and ends tasks, so that each pool of this configuration with a source has one.
    pub(super) fn follow(&mut self, generation: u64, config: &Config) {
        if self.generation.replace(generation) == Some(generation) {
            return;
        }
        let mut before = std::mem::take(&mut self.by_pool);
        if self.resolver.chosen() != config.process.resolvers {
            self.resolver = Arc::new(Resolver::new(config.process.resolvers.clone()));
            before.clear();
        }
        for pool in &config.pools {
            let Some(rules) = &pool.discover else { continue };
            let written = pool.with_found(Vec::new());
            let goes_on = before.remove(&pool.name).filter(|look| look.written == written);
            let look = goes_on.unwrap_or_else(|| {
                let resolver = Arc::clone(&self.resolver);
                let task = tokio::spawn(look_on(pool.name.clone(), rules.clone(), resolver, self.tell.clone()));
                PoolLook { written, task }
            });
            self.by_pool.insert(pool.name.clone(), look);
        }
    }
}

/// Looks at a source for ever.
async fn look_on(pool: String, rules: Discover, resolver: Arc<Resolver>, tell: mpsc::Sender<SourceReading>) {
    let source = &rules.source;
    match source {
        DiscoverSource::File(path) => look_at_file(&pool, source, path.clone(), &tell).await,
        DiscoverSource::Dns(name) => {
            let dns = DnsSource::new(name.clone(), rules.max_backends, resolver);
            look_at_dns(&pool, source, &dns, &tell).await;
        }
    }
}

/// When name servers are asked the next time.
pub(in crate::server) struct Pace {
    /// Pause after the next look that fails.
    ask_again: Duration,
}

impl Pace {
    /// Begins with the shortest pause.
    pub(in crate::server) fn new() -> Self {
        Self { ask_again: REFRESH_MIN }
    }

    /// The pause after a look that has come to this.
    fn after(&mut self, reading: &Reading) -> Duration {
        self.pause(match reading {
            Reading::Set { valid_for, .. } | Reading::Empty { valid_for } => Some(*valid_for),
            Reading::Failed { .. } => None,
        })
    }

    /// The same by the time for which the answer is valid; `None`: the look has failed.
    pub(in crate::server) fn pause(&mut self, valid_for: Option<Duration>) -> Duration {
        let (pause, ask_again) = match valid_for {
            Some(valid_for) => (valid_for, REFRESH_MIN),
            None => (self.ask_again, (self.ask_again * 2).min(ASK_AGAIN_MAX)),
        };
        self.ask_again = ask_again;
        pause
    }
}

async fn look_at_dns(pool: &str, source: &DiscoverSource, dns: &DnsSource, tell: &mpsc::Sender<SourceReading>) {
    let mut pace = Pace::new();
    loop {
        let reading = dns.look().await;
        let pause = pace.after(&reading);
        let reading = SourceReading { pool: pool.to_owned(), source: source.clone(), reading };
        if tell.send(reading).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}

async fn look_at_file(pool: &str, source: &DiscoverSource, path: PathBuf, tell: &mpsc::Sender<SourceReading>) {
    let mut file = FileSource::new(path.clone());
    loop {
        let look = tokio::task::spawn_blocking(move || {
            let reading = file.look();
            (file, reading)
        });
        let reading;
        // A look that has panicked has lost the file; the next one reads it anew.
        (file, reading) =
            patiently(path.display(), look).await.unwrap_or_else(|| (FileSource::new(path.clone()), None));
        if let Some(reading) = reading {
            let reading = SourceReading { pool: pool.to_owned(), source: source.clone(), reading };
            if tell.send(reading).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests;
