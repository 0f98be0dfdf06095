//! Whether another file has taken the place of the configuration, with `watch = true`.
//!
//! Reloads nothing. Invariant: a disk that does not answer holds this task and no other, and is named in the log.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

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
            let mut look = tokio::task::spawn_blocking(move || source.identity());
            let seen = match tokio::time::timeout(LATE, &mut look).await {
                Ok(seen) => seen,
                Err(_) => {
                    let (file, late) = (&self.source, LATE.as_secs());
                    tracing::warn!("{file} was looked at for {late} s without an answer: a new file is not seen");
                    let seen = look.await;
                    tracing::info!("{file} is seen again");
                    seen
                }
            };
            let seen = seen.ok().flatten();
            if seen.is_some() && seen != *lock_of(&self.identity) {
                let _ = changed.try_send(());
            }
        }
    }
}
