//! The stop of the process: listeners close, connections may finish, the rest is closed at an even pace.
//!
//! Ends no thread (`mod.rs` does). Invariant: every connection that completed its TCP handshake before the listeners
//! closed is served, and none is ended before `stop_deadline`, but kept ones that wait for a request.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::Server;
use super::look::{LOOK, wait_until};
use crate::clock;
use crate::config;
use crate::connection::Selection;
use crate::events::{self, Event, EventKind};
use crate::outcome::Ended;
use crate::terminate::CLOSING_MAX;

/// Time over which connections are closed that are still open at the deadline; conversations then have a little time to
/// end in good order.
const SPREAD: Duration = Duration::from_secs(5);

/// The least time in which listeners may accept what is in their backlog, however short `stop_deadline` is. Only a
/// backlog that a connection limit keeps out needs more.
const LISTENERS_MIN: Duration = Duration::from_secs(1);

/// How much longer the stop waits for processes before this one than for its own connections: they are told a moment
/// later.
const TAIL_RESERVE: Duration = Duration::from_secs(2);

/// How long a stop may take.
pub(super) fn longest(process: &config::Process) -> Duration {
    process.stop_grace + process.stop_deadline.max(LISTENERS_MIN) + SPREAD
}

/// Until when a stop that begins now waits for processes before this one.
pub(super) fn tails_until(process: &config::Process) -> Instant {
    Instant::now() + longest(process) + TAIL_RESERVE
}

impl Server {
    /// Stops accepting, waits until connections finish, and closes the rest. Returns when none is left, neither here nor
    /// in the processes before this one that still finish conversations: a service manager kills those with this one.
    pub(super) async fn stop(self: &Arc<Self>) {
        self.stopping.store(true, Relaxed);
        let tails_until = tails_until(&self.current.load().config.process);
        self.handover.tails().stop();
        self.readings.give_up();
        // Before the next process can start. A failure is in the log.
        let _ = self.keep_state(true).await;
        let process = self.current.load().config.process.clone();
        let open = self.workers.open();
        let text = format!("stopping: {open} connections may finish within {} s", process.stop_deadline.as_secs());
        events::info(clock::unix_ms(), Event::new(EventKind::Stop, &text));
        let begun = Instant::now();
        let window = self.give_up().await;
        tokio::time::sleep(process.stop_grace.saturating_sub(begun.elapsed()).max(window)).await;
        while self.holds_listeners() {
            tokio::time::sleep(LOOK).await;
        }
        let adoptions = self.listen_sockets.lock().await.close_all(&self.current.load());
        self.workers.adopt(adoptions).await;
        self.runtimes.begin_drain();
        let deadline = Instant::now() + process.stop_deadline;
        let listeners_deadline = deadline.max(Instant::now() + LISTENERS_MIN);
        wait_until(listeners_deadline, || async { self.workers.acceptors() == 0 }).await;
        wait_until(deadline, || async { self.workers.open() == 0 && !self.handover.tails().are_left() }).await;
        self.close_spread().await;
        self.handover.tails().ended(tails_until).await;
        // They may have handed connections over until their end.
        self.close_spread().await;
    }

    /// Closes connections at an even pace: the share that is left is the share of [`SPREAD`] that is left.
    pub(super) async fn close_spread(&self) {
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// How long the end of the process may take beyond its last connection: the last lines of the log, the last file.
    const RESERVE: Duration = Duration::from_secs(10);

    fn read(name: &str) -> String {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)).unwrap()
    }

    #[test]
    fn every_example_stops_in_the_time_of_the_unit_or_says_that_it_asks_for_more() {
        let unit = read("sessile.service");
        let given = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).unwrap();
        let given = Duration::from_secs(given.parse().unwrap());
        let examples = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("config")).unwrap();
        let names = examples.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut longer = Vec::new();
        for name in names.filter(|name| name.ends_with(".toml")) {
            let text = read(&name);
            let resolve = |_: &str| Ok(vec!["10.0.0.1:1".parse().unwrap()]);
            let config =
                config::check(&text, &resolve).unwrap_or_else(|problems| panic!("{name}: {problems:?}")).config;
            if longest(&config.process) + RESERVE > given {
                assert!(text.contains("TimeoutStopSec"), "{name} stops later than the unit kills it");
                longer.push(name);
            }
        }
        assert_eq!(longer, ["websocket.toml"]);
    }

    #[test]
    fn a_stop_takes_its_grace_its_deadline_and_the_closing() {
        let mut process = config::check(&read("websocket.toml"), &|_| Err(std::io::Error::other("none")));
        let process = &mut process.as_mut().unwrap().config.process;
        assert_eq!(longest(process), Duration::from_secs(10 + 3_600 + 5));
        (process.stop_grace, process.stop_deadline) = (Duration::ZERO, Duration::ZERO);
        assert_eq!(longest(process), Duration::from_secs(1 + 5));
    }
}
