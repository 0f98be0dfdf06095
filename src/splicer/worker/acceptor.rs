//! [`Acceptor`]: a worker's listening socket, which accepts, pauses at a limit, and closes without losing a connection.
//!
//! Binds nothing. Invariants: accepting pauses and always resumes; a socket that is being removed serves every
//! connection that completed its handshake before the close, as far as the kernel shows it; a turn accepts at most [`ACCEPTS_MAX`] connections, and
//! [`ACCEPTS_MIN`] while established pairs have work, after these were stepped, with one more for each
//! [`ACCEPT_EVERY_US`] that they have taken.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Worker;
use crate::admission::Permit;
use crate::snapshot::Listener;
use crate::splicer::flow::Incoming;
use crate::splicer::os::{Accepted, Event, Micros, Os};
use crate::splicer::slab::{Side, Token};

/// Accepts of one turn, over all sockets, while established pairs have bytes to move.
const ACCEPTS_MIN: u32 = 4;

/// Accepts of one turn of an idle worker. An accept with its connect costs some fifty times as much as a turn, so that
/// more would save nothing, and a byte that comes meanwhile waits for all of them.
const ACCEPTS_MAX: u32 = 16;

/// Microseconds of work on pairs that allow one more accept in the same turn: about a fifth of the time is for clients that
/// wait, however busy the pairs are.
pub(super) const ACCEPT_EVERY_US: Micros = 250;

/// Most accepts of a turn in which pairs have taken long.
const ACCEPTS_LONG_MAX: u32 = 64;

/// Pause of accepting after a limit is reached or no descriptor is free; the next close of a connection ends it early.
const PAUSE_US: Micros = 50_000;

/// Time for which a removed listener still completes handshakes that had begun: longer than the longest round trip.
const LINGER_US: Micros = 300_000;

/// The same for a listener with `defer_accept`. Without the option the kernel repeats its part of the handshake with a
/// client that has sent nothing 1, 3, 7, 15 or 31 seconds after the connect, and the client's answer brings it into the
/// queue: so every client that came in the last three seconds is served, and of earlier ones those that speak meanwhile.
const DEFERRED_LINGER_US: Micros = 2_300_000;

/// A listening socket and its rules.
pub(super) struct Acceptor<O: Os> {
    socket: O::Listener,
    listener: Arc<Listener>,
    shared: bool,
    /// Number of accepts to try in its next turn: a try in vain costs as much as an accept.
    batch: u32,
    /// An event of this turn told of connections in its queue.
    ready: bool,
    /// End of a pause, in which the socket is not watched; `None` = it accepts.
    pub(super) paused: Option<Micros>,
    /// Earliest close of a socket that is being removed; it also closes only with an empty queue.
    closing: Option<Micros>,
    /// The socket is about to go to another process: it is not watched until that has succeeded or failed.
    suspended: bool,
}

/// How the accepts of a turn are shared among sockets.
#[derive(Debug, Default)]
pub(super) struct AcceptTurns {
    /// Accepts of this turn, and those that are left of them.
    most: u32,
    left: u32,
    /// Number of the socket that comes first.
    first: u32,
}

impl<O: Os> Acceptor<O> {
    /// Returns the time at which the socket needs attention without an event.
    pub(super) fn due(&self) -> Option<Micros> {
        self.paused.or(self.closing).filter(|_| !self.suspended)
    }
}

impl<O: Os> Worker<O> {
    /// Begins to accept on a socket. The caller chooses unique numbers; `shared` = several workers watch the socket.
    pub fn add_listener(&mut self, number: u32, socket: O::Listener, listener: Arc<Listener>, shared: bool) {
        let watched = self.os.watch_listener(&socket, Token::special(Side::Listener, number), shared).is_ok();
        let paused = (!watched).then_some(self.now + PAUSE_US);
        self.acceptors.insert(
            number,
            Acceptor { socket, listener, shared, batch: 1, ready: false, paused, closing: None, suspended: false },
        );
    }

    /// Gives a listening socket the rules of a new snapshot.
    pub fn update_listener(&mut self, number: u32, listener: Arc<Listener>) {
        if let Some(acceptor) = self.acceptors.get_mut(&number) {
            acceptor.listener = listener;
        }
    }

    /// Serves the connections that are queued on a socket, then closes it.
    pub fn remove_listener(&mut self, number: u32) {
        let now = self.os.now();
        if let Some(acceptor) = self.acceptors.get_mut(&number) {
            let mut linger = LINGER_US;
            if !acceptor.shared {
                self.os.refuse_new(&acceptor.socket);
                if acceptor.listener.config.defer_accept_s.is_some() {
                    self.os.accept_silent(&acceptor.socket);
                    linger = DEFERRED_LINGER_US;
                }
            }
            acceptor.closing = Some(now + linger);
        }
    }

    /// Stops accepting, on every socket that is not being removed: clients wait in the queues, which another process can
    /// take over.
    pub fn suspend_accepting(&mut self) {
        for acceptor in self.acceptors.values_mut().filter(|acceptor| acceptor.closing.is_none()) {
            if acceptor.paused.is_none() {
                self.os.unwatch_listener(&acceptor.socket);
            }
            (acceptor.paused, acceptor.suspended) = (Some(self.now), true);
        }
    }

    /// Accepts again, because the other process did not take over.
    pub fn resume_accepting(&mut self) {
        for acceptor in self.acceptors.values_mut() {
            acceptor.suspended = false;
        }
        self.poll_listeners();
    }

    /// Lets go of a socket that another process accepts on.
    pub fn give_up_listener(&mut self, number: u32) {
        if let Some(acceptor) = self.acceptors.remove(&number)
            && acceptor.paused.is_none()
        {
            self.os.unwatch_listener(&acceptor.socket);
        }
    }

    /// Accepts on sockets with events, in turn. `pairs` = number of established pairs that this turn has stepped: their
    /// next bytes wait for what is accepted now.
    pub(super) fn accept_ready(&mut self, events: &[Event], pairs: usize) {
        self.turns.most = if pairs > 0 { ACCEPTS_MIN } else { (2 * self.turns.most).clamp(ACCEPTS_MIN, ACCEPTS_MAX) };
        self.turns.left = self.turns.most;
        for acceptor in self.acceptors.values_mut() {
            acceptor.ready = false;
        }
        for event in events.iter().filter(|event| event.token.side() == Side::Listener) {
            if let Some(acceptor) = self.acceptors.get_mut(&event.token.slot()) {
                acceptor.ready = true;
            }
        }
        if pairs > 0 && self.acceptors.values().any(|acceptor| acceptor.ready) {
            let more = (self.os.now().saturating_sub(self.now) / ACCEPT_EVERY_US).min(ACCEPTS_LONG_MAX.into());
            self.turns.left = (self.turns.left + more as u32).min(ACCEPTS_LONG_MAX);
        }
        while self.turns.left > 0
            && let Some(number) = self.next_ready()
        {
            self.turns.first = number.wrapping_add(1);
            self.accept(number);
        }
    }

    /// The next socket that has an event, after the one that was served last.
    fn next_ready(&mut self) -> Option<u32> {
        let first = self.turns.first;
        let ready = |(number, acceptor): (&u32, &Acceptor<O>)| acceptor.ready.then_some(*number);
        let mut after = self.acceptors.range(first..);
        let number = after.find_map(ready).or_else(|| self.acceptors.range(..first).find_map(ready))?;
        self.acceptors.get_mut(&number)?.ready = false;
        Some(number)
    }

    /// Takes a batch from the queue, as large as the turn has left; true: the queue is empty.
    fn accept(&mut self, number: u32) -> bool {
        let Some(acceptor) = self.acceptors.get(&number) else { return false };
        let batch = acceptor.batch.min(self.turns.left);
        let mut taken = 0;
        let stop = loop {
            if taken == batch {
                break Stop::Batch;
            }
            match self.accept_one(number) {
                Ok(()) => taken += 1,
                Err(stop) => break stop,
            }
        };
        self.turns.left -= taken;
        let counters = &self.shared.counters[self.index].0;
        let Some(acceptor) = self.acceptors.get_mut(&number) else { return false };
        match stop {
            // The queue held the whole batch, so it is long.
            Stop::Batch => acceptor.batch = (acceptor.batch * 2).min(ACCEPTS_LONG_MAX),
            Stop::Empty => acceptor.batch = taken.clamp(1, ACCEPTS_LONG_MAX),
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
        // A pause, which a connection of this batch may have begun, says nothing about the queue.
        stop == Stop::Empty && self.acceptors.get(&number).is_some_and(|acceptor| acceptor.paused.is_none())
    }

    /// Pauses all listeners, because no descriptor was free to connect to a backend: clients wait in the queue instead.
    pub(super) fn pause_accepting(&mut self) {
        self.counters().accept_paused_descriptors.add(1);
        self.pipes.trim();
        let numbers: Vec<_> = self.acceptors.keys().copied().collect();
        for number in numbers {
            self.pause(number);
        }
    }

    /// Pauses one listener for [`PAUSE_US`].
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

    /// Resumes listeners after their pause, and closes removed ones that have served their queue.
    pub(super) fn poll_listeners(&mut self) {
        for (number, acceptor) in &mut self.acceptors {
            if !acceptor.suspended && acceptor.paused.is_some_and(|until| until <= self.now) {
                let watched =
                    self.os.watch_listener(&acceptor.socket, Token::special(Side::Listener, *number), acceptor.shared);
                acceptor.paused = watched.is_err().then_some(self.now + PAUSE_US);
            }
        }
        let now = self.now;
        let over = |(number, acceptor): (&u32, &Acceptor<O>)| (acceptor.due()? <= now).then_some(*number);
        let mut from = 0;
        while let Some(number) = self.acceptors.range(from..).find_map(over) {
            // However busy the others are, each turn brings it nearer to its end.
            self.turns.left = self.turns.left.max(1);
            // A queue that is not empty yet, for its length or a limit, keeps its acceptor until it is.
            if self.accept(number)
                && let Some(acceptor) = self.acceptors.remove(&number)
            {
                self.os.unwatch_listener(&acceptor.socket);
            }
            from = number.saturating_add(1);
        }
        let paused = self.acceptors.values().any(|acceptor| acceptor.paused.is_some());
        self.counters().accept_paused_now.set(paused.into());
    }
}

/// Reason why a round of accepting stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Batch,
    Empty,
    Full,
    Exhausted,
}

#[cfg(test)]
mod tests;
