//! [`Tails`]: the processes before this one that still finish conversations.
//!
//! Reads no channel (`arrive.rs` does). Invariant: a process that is known here is told of the stop of this one, or its
//! channel goes on to the process that follows.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rustix::process::Signal;
use tokio::task::JoinHandle;

use super::channel::Channel;
use super::peer::PeerProcess;
use crate::server::look::wait_until;

/// The processes before this one that have not ended.
#[derive(Debug, Default)]
pub(in crate::server) struct Tails {
    running: Mutex<Vec<Tail>>,
    /// Those that come later are told to stop as well.
    stops: AtomicBool,
}

/// One process before this one.
#[derive(Debug)]
pub(super) struct Tail {
    pub(super) process: Arc<PeerProcess>,
    /// Takes what the process still gives. Returns the channel once this process leaves, too.
    pub(super) task: JoinHandle<Option<Channel>>,
}

impl Tails {
    /// Adds a process.
    pub(super) fn add(&self, tail: Tail) {
        if self.stops.load(Relaxed) {
            tail.process.signal(Signal::TERM);
        }
        self.with(|tails| tails.push(tail));
    }

    /// Takes all away, to be given on.
    pub(super) fn take(&self) -> Vec<Tail> {
        self.with(std::mem::take)
    }

    /// Tells all to stop, once: a second signal would end them at once.
    pub(in crate::server) fn stop(&self) {
        if !self.stops.load(Relaxed) {
            self.signal_stop();
        }
    }

    /// Tells all to stop, also those that were told before.
    pub(super) fn signal_stop(&self) {
        self.stops.store(true, Relaxed);
        self.with(|tails| tails.iter().for_each(|tail| tail.process.signal(Signal::TERM)));
    }

    /// True if one has not ended, or what it has given was not taken yet.
    pub(in crate::server) fn are_left(&self) -> bool {
        self.with(|tails| !tails.is_empty())
    }

    /// Waits until all have ended and what they gave was taken, but not beyond `until`.
    pub(in crate::server) async fn ended(&self, until: Instant) {
        wait_until(until, || async { !self.are_left() }).await;
    }

    /// Works on the list, without the processes that have ended and given everything.
    fn with<T>(&self, work: impl FnOnce(&mut Vec<Tail>) -> T) -> T {
        let mut tails = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        tails.retain(|tail| !(tail.process.has_ended() && tail.task.is_finished()));
        work(&mut tails)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_stop_reaches_every_process_before_this_one_and_waits_for_them() {
        let tails = Tails::default();
        let mut children: Vec<_> = (0..3).map(|_| Command::new("sleep").arg("60").spawn().unwrap()).collect();
        let tail = |child: &std::process::Child| {
            let process = Arc::new(PeerProcess::open(child.id()).unwrap());
            Tail { process, task: tokio::spawn(async { None }) }
        };
        children[..2].iter().for_each(|child| tails.add(tail(child)));
        let soon = Duration::from_millis(60);
        let begun = Instant::now();
        tails.ended(begun + soon).await;
        assert!(begun.elapsed() >= soon, "they go on");
        tails.stop();
        tails.add(tail(&children[2]));
        tails.ended(begun + Duration::from_secs(60)).await;
        assert!(begun.elapsed() < Duration::from_secs(30));
        assert!(children.iter_mut().all(|child| child.wait().unwrap().signal() == Some(Signal::TERM.as_raw())));
        assert!(tails.take().is_empty(), "none is left to be given on");
    }
}
