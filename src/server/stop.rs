//! Going away: calm first, then spread, never all at once.
//!
//! Invariant: every connection whose handshake completed before the listeners closed is served, and nothing that runs
//! is ended before `stop_deadline`.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::Server;
use crate::connection::Selection;
use crate::outcome::Ended;

/// What is still open at the deadline is closed over this long.
const SPREAD: Duration = Duration::from_secs(5);

/// Doors need a moment to close well, however short `stop_deadline` is; only a queue that no limit lets in needs more.
const DOORS_MIN: Duration = Duration::from_secs(1);

/// How often is looked whether everybody has gone.
const LOOK: Duration = Duration::from_millis(20);

impl Server {
    /// Stops accepting, lets what runs finish, closes the rest.
    pub(super) async fn stop(&self) {
        self.stopping.store(true, Relaxed);
        let process = self.current.load().config.process.clone();
        let open = self.workers.open();
        tracing::info!("stopping: {open} connections may finish within {} s", process.stop_deadline.as_secs());
        tokio::time::sleep(process.stop_grace).await;
        let adoptions = self.listen_sockets.lock().await.close_all(&self.current.load());
        self.workers.adopt(adoptions).await;
        self.conversations.begin_drain();
        let deadline = Instant::now() + process.stop_deadline;
        let doors_deadline = deadline.max(Instant::now() + DOORS_MIN);
        let before = |deadline| Instant::now() < deadline;
        while (self.workers.acceptors() > 0 && before(doors_deadline)) || (self.workers.open() > 0 && before(deadline))
        {
            tokio::time::sleep(LOOK).await;
        }
        self.close_spread().await;
    }

    /// Closes at an even pace: so many are left as there is time left.
    async fn close_spread(&self) {
        let all = self.workers.open();
        if all == 0 {
            return;
        }
        tracing::info!("stopping: {all} connections are still open and are closed over {} s", SPREAD.as_secs());
        let begun = Instant::now();
        while self.workers.open() > 0 && begun.elapsed() < SPREAD {
            let left = SPREAD.saturating_sub(begun.elapsed());
            let stay = (all as u128 * left.as_micros() / SPREAD.as_micros()) as usize;
            self.shed(&Selection::All, self.workers.open().saturating_sub(stay), Ended::Stopped).await;
            tokio::time::sleep(LOOK).await;
        }
    }
}
