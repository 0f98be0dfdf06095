//! A worker's listening sockets: accept, pause when a limit is reached, close without losing anybody.
//!
//! Binds nothing. Invariants: accepting pauses and always resumes; a socket that is being removed serves every
//! connection whose handshake completed before it closes.

use std::net::SocketAddr;
use std::sync::Arc;

use super::flow::Incoming;
use super::os::{Accepted, Micros, Os};
use super::slab::{Side, Token};
use super::worker::Worker;
use crate::admission::Permit;
use crate::snapshot::Listener;

/// Accepts per wake while the queue is long.
const BATCH_MAX: u32 = 64;

/// How long accepting pauses when a limit is reached or descriptors are out; a close ends the pause early.
const PAUSE_US: Micros = 50_000;

/// How long a listener that is being removed still takes handshakes that had begun: longer than the round trip to
/// the far side of the world.
const LINGER_US: Micros = 300_000;

/// A listening socket and its rules.
pub(super) struct Acceptor<O: Os> {
    socket: O::Listener,
    listener: Arc<Listener>,
    shared: bool,
    /// Accepts at the next wake.
    batch: u32,
    /// Not watched until then: a limit is reached or descriptors are out.
    pub(super) paused: Option<Micros>,
    /// Being removed: closes when nothing is queued any more, but not before then.
    closing: Option<Micros>,
}

impl<O: Os> Acceptor<O> {
    /// When it wants to be looked at without an event.
    pub(super) fn due(&self) -> Option<Micros> {
        self.paused.or(self.closing)
    }
}

impl<O: Os> Worker<O> {
    /// Begins to accept on a socket. Numbers are the caller's, and unique.
    pub fn add_listener(&mut self, number: u32, socket: O::Listener, listener: Arc<Listener>, shared: bool) {
        let watched = self.os.watch_listener(&socket, Token::special(Side::Listener, number), shared).is_ok();
        let paused = (!watched).then_some(self.now + PAUSE_US);
        self.acceptors.insert(number, Acceptor { socket, listener, shared, batch: 1, paused, closing: None });
    }

    /// Gives a listening socket the rules of a new snapshot.
    pub fn update_listener(&mut self, number: u32, listener: Arc<Listener>) {
        if let Some(acceptor) = self.acceptors.get_mut(&number) {
            acceptor.listener = listener;
        }
    }

    /// Serves what is queued on a socket, then closes it.
    pub fn remove_listener(&mut self, number: u32) {
        let until = self.os.now() + LINGER_US;
        if let Some(acceptor) = self.acceptors.get_mut(&number) {
            if !acceptor.shared {
                self.os.refuse_new(&acceptor.socket);
            }
            acceptor.closing = Some(until);
        }
    }

    /// Takes a batch from the queue, or all of it where the acceptor closes.
    pub(super) fn accept(&mut self, number: u32) {
        let Some(acceptor) = self.acceptors.get(&number) else { return };
        let (batch, closing) = (acceptor.batch, acceptor.closing.is_some());
        let mut taken = 0;
        let stop = loop {
            if taken == batch && !closing {
                break Stop::Batch;
            }
            match self.accept_one(number) {
                Ok(()) => taken += 1,
                Err(stop) => break stop,
            }
        };
        let counters = &self.shared.counters[self.index].0;
        let Some(acceptor) = self.acceptors.get_mut(&number) else { return };
        match stop {
            // Found the whole batch: the queue is long.
            Stop::Batch => acceptor.batch = (acceptor.batch * 2).min(BATCH_MAX),
            Stop::Empty => acceptor.batch = taken.clamp(1, BATCH_MAX),
            Stop::Full => {
                counters.accept_paused_limit.add(1);
                self.pause(number);
            }
            Stop::Exhausted => {
                counters.accept_paused_descriptors.add(1);
                self.pipes.trim();
                self.pause(number);
            }
        }
    }

    /// What was accepted could not be connected for want of a descriptor: others had better wait in the queue.
    pub(super) fn pause_accepting(&mut self) {
        self.counters().accept_paused_descriptors.add(1);
        self.pipes.trim();
        let numbers: Vec<_> = self.acceptors.keys().copied().collect();
        for number in numbers {
            self.pause(number);
        }
    }

    /// Stops accepting for a while.
    fn pause(&mut self, number: u32) {
        if let Some(acceptor) = self.acceptors.get_mut(&number)
            && acceptor.paused.is_none()
        {
            self.os.unwatch_listener(&acceptor.socket);
            acceptor.paused = Some(self.now + PAUSE_US);
        }
    }

    fn accept_one(&mut self, number: u32) -> Result<(), Stop> {
        let Some(acceptor) = self.acceptors.get(&number).filter(|acceptor| acceptor.paused.is_none()) else {
            return Err(Stop::Empty);
        };
        let permit = acceptor.listener.state.admit().ok_or(Stop::Full)?;
        match self.os.accept(&acceptor.socket) {
            Accepted::Connection(socket, peer) => {
                let listener = Arc::clone(&acceptor.listener);
                self.accepted_on(socket, peer, listener, permit);
                Ok(())
            }
            Accepted::Skip => Ok(()),
            Accepted::Empty => Err(Stop::Empty),
            Accepted::Exhausted(_) => Err(Stop::Exhausted),
        }
    }

    fn accepted_on(&mut self, socket: O::Socket, peer: Option<SocketAddr>, listener: Arc<Listener>, permit: Permit) {
        listener.state.counters[self.index].0.accepted.add(1);
        let incoming = Incoming { socket, peer, listener, permit, accepted: self.now };
        if self.flows.len() < self.keep_below {
            self.admit(incoming);
        } else {
            self.surplus.push(incoming);
        }
    }

    /// Resumes what paused long enough, and closes what has served its queue.
    pub(super) fn poll_listeners(&mut self) {
        for (number, acceptor) in &mut self.acceptors {
            if acceptor.paused.is_some_and(|until| until <= self.now) {
                let watched =
                    self.os.watch_listener(&acceptor.socket, Token::special(Side::Listener, *number), acceptor.shared);
                acceptor.paused = watched.is_err().then_some(self.now + PAUSE_US);
            }
        }
        let now = self.now;
        let over = |(number, acceptor): (&u32, &Acceptor<O>)| (acceptor.due()? <= now).then_some(*number);
        while let Some(number) = self.acceptors.iter().find_map(over) {
            self.accept(number);
            // A queue that could not be emptied, for a limit, keeps its acceptor until it can.
            if self.acceptors.get(&number).is_some_and(|acceptor| acceptor.paused.is_none())
                && let Some(acceptor) = self.acceptors.remove(&number)
            {
                self.os.unwatch_listener(&acceptor.socket);
            }
        }
        let paused = self.acceptors.values().any(|acceptor| acceptor.paused.is_some());
        self.counters().accept_paused_now.set(paused.into());
    }
}

/// Why accepting stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Batch,
    Empty,
    Full,
    Exhausted,
}
