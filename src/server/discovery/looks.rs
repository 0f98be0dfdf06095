//! [`Looks`]: a task for each pool with a source, which looks at the source again and again.
//!
//! Judges nothing that a source says. Invariants: each source has one task; what does not answer holds its own task and
//! no other; a pool that has changed otherwise than by its source is looked at anew.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::{Config, DiscoverSource, Pool};
use crate::discovery::file::{FileSource, LOOK};
use crate::discovery::found::Reading;
use crate::server::file_watch::patiently;

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
        Self { tell, by_pool: BTreeMap::new(), generation: None }
    }

    /// Starts and ends tasks, so that each pool of this configuration with a source has one.
    pub(super) fn follow(&mut self, generation: u64, config: &Config) {
        if self.generation.replace(generation) == Some(generation) {
            return;
        }
        let mut before = std::mem::take(&mut self.by_pool);
        for pool in &config.pools {
            let Some(rules) = &pool.discover else { continue };
            let written = pool.with_found(Vec::new());
            let goes_on = before.remove(&pool.name).filter(|look| look.written == written);
            let look = goes_on.unwrap_or_else(|| {
                let task = tokio::spawn(look_on(pool.name.clone(), rules.source.clone(), self.tell.clone()));
                PoolLook { written, task }
            });
            self.by_pool.insert(pool.name.clone(), look);
        }
    }
}

/// Looks at a source for ever.
async fn look_on(pool: String, source: DiscoverSource, tell: mpsc::Sender<SourceReading>) {
    match &source {
        DiscoverSource::File(path) => look_at_file(&pool, &source, path.clone(), &tell).await,
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
