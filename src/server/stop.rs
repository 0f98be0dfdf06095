//! The stop of the process: listeners close, connections may finish, the rest is closed at an even pace.
//!
//! Ends no thread (`mod.rs` does). Invariant: every connection that completed its TCP handshake before the listeners
//! closed is served, and none is ended before `stop_deadline`, but kept ones that wait for a request.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::Server;
use crate::connection::Selection;
use crate::outcome::Ended;
use crate::terminate::CLOSING_MAX;

/// Time over which connections are closed that are still open at the deadline; conversations then have a little time to
/// end in good order.
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
        let mut closed = 0;
        while self.workers.open() > 0 && begun.elapsed() < SPREAD + CLOSING_MAX {
            let left = SPREAD.saturating_sub(begun.elapsed());
            let stay = (all as u128 * left.as_micros() / SPREAD.as_micros()) as usize;
            // Open connections include those that were closed and are still ending. A rest has no deadline but this one.
            let due = self.workers.open().saturating_sub(stay);
            let due = if stay == 0 { due } else { due.min((all - stay).saturating_sub(closed)) };
            closed += self.threads.shed(&Selection::All, due, Ended::Stopped).await;
            tokio::time::sleep(LOOK).await;
        }
    }
}
