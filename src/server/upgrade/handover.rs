//! [`Handover`]: how far an upgrade of this process is, for signals, commands and the stop.
//!
//! Moves nothing (`leave.rs` does). Invariants: a signal to stop that comes during an upgrade is obeyed by exactly one
//! of the two processes in order, and by both at once if it is repeated; a signal later than [`JUST_NOW`]
//! after it is about this process alone.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{MutexGuard, watch};

use super::successor::Successor;
use super::tails::Tails;

/// How long after an upgrade a stop of the old process is still meant for the service: the sender of the signal, as a
/// service manager, learns only now which process serves.
const JUST_NOW: Duration = Duration::from_secs(1);

/// How far an upgrade of this process is.
#[derive(Default)]
pub(in crate::server) struct Handover {
    /// When this process was told to stop; `None` again once the stop is the new process's.
    told: watch::Sender<Option<Instant>>,
    /// Held from the start of a binary until it serves, or everything is as before.
    under_way: tokio::sync::Mutex<()>,
    /// The state of the backends is being given to the process that follows, or has been.
    gives_state: AtomicBool,
    /// Conversations may have changed the stick tables after they were given over.
    may_change_tables: AtomicBool,
    /// The process that is to follow, or follows.
    successor: Mutex<Option<Arc<Successor>>>,
    /// Since when another process serves: what is left here is to be finished.
    left: watch::Sender<Option<Instant>>,
    /// The stop was the new process's.
    has_passed_on: AtomicBool,
    tails: Tails,
}

impl Handover {
    /// Begins an upgrade, which is over when the guard is dropped.
    pub(super) async fn begin(&self) -> MutexGuard<'_, ()> {
        self.under_way.lock().await
    }

    /// Waits until no upgrade is under way.
    pub(in crate::server) async fn settled(&self) {
        drop(self.under_way.lock().await);
    }

    /// Notes that this process is told to stop; returns when it was told first, if this is not the first time.
    pub(in crate::server) fn tell_stop(&self) -> Option<Instant> {
        let first = self.told_at();
        let has_just_left = self.left.borrow().is_some_and(|left| left.elapsed() < JUST_NOW);
        if first.is_none() && has_just_left && !self.has_passed_on.load(Relaxed) {
            // The new process tells this one in turn, which is a repetition then.
            self.pass_on();
        }
        if first.is_none() {
            self.told.send_replace(Some(Instant::now()));
        }
        first
    }

    /// When this process was told to stop.
    pub(in crate::server) fn told_at(&self) -> Option<Instant> {
        *self.told.borrow()
    }

    /// The same, to wait for it.
    pub(super) fn told(&self) -> watch::Receiver<Option<Instant>> {
        self.told.subscribe()
    }

    /// True while commands about backends are the new process's.
    pub(in crate::server) fn gives_state(&self) -> bool {
        self.gives_state.load(Relaxed)
    }

    /// Notes whether the state of the backends is being given over.
    pub(super) fn set_gives_state(&self, gives: bool) {
        self.gives_state.store(gives, Relaxed);
    }

    /// Notes whether conversations go on while the stick tables are given over.
    pub(super) fn set_may_change_tables(&self, may: bool) {
        self.may_change_tables.store(may, Relaxed);
    }

    /// Whether the stick tables have to be given over once more.
    pub(super) fn may_change_tables(&self) -> bool {
        self.may_change_tables.load(Relaxed)
    }

    /// Notes the process that is to follow; `None`: it does not.
    pub(super) fn set_successor(&self, successor: Option<Arc<Successor>>) {
        *self.successor.lock().unwrap_or_else(PoisonError::into_inner) = successor;
    }

    /// The process that is to follow, or follows.
    pub(super) fn successor(&self) -> Option<Arc<Successor>> {
        self.successor.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes that another process serves. A stop that came meanwhile is the new process's, which tells this one in turn.
    pub(super) fn leave(&self) {
        if self.told.send_replace(None).is_some() {
            self.pass_on();
        }
        self.left.send_replace(Some(Instant::now()));
    }

    fn pass_on(&self) {
        self.has_passed_on.store(true, Relaxed);
        self.successor().iter().for_each(|successor| successor.end());
    }

    /// True once another process serves.
    pub(in crate::server) fn has_left(&self) -> bool {
        self.left.borrow().is_some()
    }

    /// Waits until another process serves.
    pub(in crate::server) async fn left(&self) {
        let _ = self.left.subscribe().wait_for(Option::is_some).await; // the sender is here
    }

    /// Processes before this one that still finish conversations.
    pub(in crate::server) fn tails(&self) -> &Tails {
        &self.tails
    }

    /// Ends every process that is not to outlive this one, which was told to stop once more and ends now.
    pub(in crate::server) fn end_others(&self) {
        self.tails.signal_stop();
        if !self.has_left() || self.has_passed_on.load(Relaxed) {
            self.successor().iter().for_each(|successor| successor.end());
        }
    }
}
