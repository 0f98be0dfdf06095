//! The stop of the process: listeners close, connections may finish, the rest is closed at an even pace.
//!
//! Ends no thread (`mod.rs` does). Invariant: every connection that completed its TCP handshake before the listeners
//! closed is served, and no open connection is ended before `stop_deadline`.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::Server;
use crate::connection::Selection;
use crate::outcome::Ended;

/// Time over which connections are closed that are still open at the deadline.
const SPREAD: Duration = Duration::from_secs(5);

/// The least time in which listeners may accept what is in their backlog, however short `stop_deadline` is. Only a
/// backlog that a connection limit keeps out needs more.
const LISTENERS_MIN: Duration = Duration::from_secs(1);

/// How often the stop looks whether the last connection has gone.
const LOOK: Duration = Duration::from_millis(20);

impl Server {
    /// Stops accepting, waits until connections finish, and closes the rest. Returns when none is left.
    pub(super) async fn stop(&self) {
        self.stopping.store(true, Relaxed);
        self.readings.give_up();
        let process = self.current.load().config.process.clone();
        let open = self.workers.open();
        tracing::info!("stopping: {open} connections may finish within {} s", process.stop_deadline.as_secs());
        tokio::time::sleep(process.stop_grace).await;
        let adoptions = self.listen_sockets.lock().await.close_all(&self.current.load());
        self.workers.adopt(adoptions).await;
        self.runtimes.begin_drain();
        let deadline = Instant::now() + process.stop_deadline;
        let listeners_deadline = deadline.max(Instant::now() + LISTENERS_MIN);
        let before = |deadline| Instant::now() < deadline;
        while (self.workers.acceptors() > 0 && before(listeners_deadline))
            || (self.workers.open() > 0 && before(deadline))
        {
            tokio::time::sleep(LOOK).await;
        }
        self.close_spread().await;
    }

    /// Closes connections at an even pace: the share that is left is the share of [`SPREAD`] that is left.
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
            self.threads.shed(&Selection::All, self.workers.open().saturating_sub(stay), Ended::Stopped).await;
            tokio::time::sleep(LOOK).await;
        }
    }
}
