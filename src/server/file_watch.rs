//! Whether another file has taken the place of the configuration, with `watch = true`.
//!
//! Reloads nothing. Invariant: a disk that does not answer holds this task and no other, and is named in the log.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{Server, lock_of};

/// How often the file is looked at.
const TICK: Duration = Duration::from_millis(500);

/// A look at the file that takes longer is named in the log.
const LATE: Duration = Duration::from_secs(10);

impl Server {
    /// Watches the file, for ever. Sends to `changed` when it was replaced.
    pub(super) async fn watch_file(self: Arc<Self>, changed: mpsc::Sender<()>) {
        loop {
            tokio::time::sleep(TICK).await;
            // A reload is refused anyway while a reading is stuck; the file is seen afterwards.
            if !self.current.load().config.process.watch || self.readings.stuck().is_some() {
                continue;
            }
            let source = self.source.clone();
            let look = tokio::task::spawn_blocking(move || source.identity());
            let seen = patiently(&self.source, look).await.flatten();
            if seen.is_some() && seen != *lock_of(&self.identity) {
                let _ = changed.try_send(());
            }
        }
    }
}

/// Waits for a look at a file, however long it takes, and names a file in the log that does not answer. `None`: the
/// look has panicked.
pub(super) async fn patiently<T>(file: impl fmt::Display, mut look: JoinHandle<T>) -> Option<T> {
    if let Ok(seen) = tokio::time::timeout(LATE, &mut look).await {
        return seen.ok();
    }
    tracing::warn!("{file} was looked at for {} s without an answer: a new file is not seen", LATE.as_secs());
    let seen = look.await;
    tracing::info!("{file} is seen again");
    seen.ok()
}
