//! Going away: calm first, then spread, never all at once.
//!
//! Invariant: every connection whose handshake completed before the listeners closed is served, and nothing that runs
//! is ended before `stop_deadline`.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::Server;
use crate::outcome::Ended;
use crate::splicer::worker::Whom;

/// What is still open at the deadline is closed over this long.
const SPREAD: Duration = Duration::from_secs(5);

/// How often is looked whether everybody has gone.
const LOOK: Duration = Duration::from_millis(20);

impl Server {
    /// Stops accepting, lets what runs finish, closes the rest.
    pub(super) async fn stop(&self) {
        self.stopping.store(true, Relaxed);
        let process = self.current.load().config.process.clone();
        let open = self.fleet.open();
        tracing::info!("stopping: {open} connections may finish within {} s", process.stop_deadline.as_secs());
        tokio::time::sleep(process.stop_grace).await;
        let adoptions = self.doors.lock().await.close_all();
        let (generation, logs) = {
            let snapshot = self.current.load();
            (snapshot.generation, snapshot.config.process.log.connections)
        };
        let adoptions = adoptions.into_iter().map(|mut adoption| {
            (adoption.generation, adoption.logs_connections) = (generation, logs);
            adoption
        });
        self.fleet.adopt(adoptions.collect()).await;
        let deadline = Instant::now() + process.stop_deadline;
        while (self.fleet.doors() > 0 || self.fleet.open() > 0) && Instant::now() < deadline {
            tokio::time::sleep(LOOK).await;
        }
        self.close_spread().await;
    }

    async fn close_spread(&self) {
        let left = self.fleet.open();
        if left == 0 {
            return;
        }
        tracing::info!("stopping: {left} connections are still open and are closed over {} s", SPREAD.as_secs());
        let ends = Instant::now() + SPREAD;
        while self.fleet.open() > 0 && Instant::now() < ends {
            let ticks = (ends.saturating_duration_since(Instant::now()).as_millis() / LOOK.as_millis()).max(1) as usize;
            let share = self.fleet.open().div_ceil(ticks).div_ceil(self.fleet.len());
            self.fleet.shed(&Whom::All, share, Ended::Stopped).await;
            tokio::time::sleep(LOOK).await;
        }
    }
}
