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

/// More than any accept queue holds.
const QUEUE_MAX: u32 = 1 << 16;

/// How long accepting pauses when a limit is reached or descriptors are out; a close ends the pause early.
const PAUSE_US: Micros = 50_000;

/// How long a listener that is being removed still takes handshakes that had begun: longer than the round trip to
/// the far side of the world.
const LINGER_US: Micros = 300_000;

/// A listening socket and its rules.
pub(super) struct Door<O: Os> {
    socket: O::Listener,
    listener: Arc<Listener>,
    shared: bool,
    /// Accepts at the next wake.
    batch: u32,
    pub(super) state: DoorState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DoorState {
    Open,
    /// Not watched until then.
    Paused(Micros),
    /// Being removed: serves what is queued, closes then.
    Closing(Micros),
}

impl<O: Os> Worker<O> {
    /// Begins to accept on a socket. Numbers are the caller's, small and unique.
    pub fn open_door(&mut self, number: u32, socket: O::Listener, listener: Arc<Listener>, shared: bool) {
        let slot = number as usize;
        if self.doors.len() <= slot {
            self.doors.resize_with(slot + 1, || None);
        }
        let mut door = Door { socket, listener, shared, batch: 1, state: DoorState::Open };
        if self.os.watch_listener(&door.socket, Token::special(Side::Listener, number), shared).is_err() {
            door.state = DoorState::Paused(self.now + PAUSE_US);
        }
        self.doors[slot] = Some(door);
    }

    /// Gives a listening socket the rules of a new snapshot.
    pub fn rebind_door(&mut self, number: u32, listener: Arc<Listener>) {
        if let Some(Some(door)) = self.doors.get_mut(number as usize) {
            door.listener = listener;
        }
    }

    /// Serves what is queued on a socket, then closes it.
    pub fn close_door(&mut self, number: u32) {
        let until = self.os.now() + LINGER_US;
        if let Some(Some(door)) = self.doors.get_mut(number as usize) {
            if let DoorState::Paused(_) = door.state {
                let token = Token::special(Side::Listener, number);
                let _ = self.os.watch_listener(&door.socket, token, door.shared);
            }
            if !door.shared {
                self.os.refuse_new(&door.socket);
            }
            door.state = DoorState::Closing(until);
        }
    }

    /// Accepts a batch; from a socket that is being removed, everything.
    pub(super) fn accept(&mut self, number: u32) -> Stop {
        let Some(Some(door)) = self.doors.get(number as usize) else { return Stop::Empty };
        let closing = matches!(door.state, DoorState::Closing(_));
        let batch = if closing { QUEUE_MAX } else { door.batch };
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
        let counters = &self.shared.counters[self.index].0;
        let Some(Some(door)) = self.doors.get_mut(number as usize) else { return stop };
        match stop {
            // Found the whole batch: the queue is long.
            Stop::Batch => door.batch = (door.batch * 2).min(BATCH_MAX),
            Stop::Empty => door.batch = taken.clamp(1, BATCH_MAX),
            Stop::Full | Stop::Exhausted => {
                let reason = if stop == Stop::Full {
                    &counters.accept_paused_limit
                } else {
                    &counters.accept_paused_descriptors
                };
                reason.add(1);
                counters.accept_paused_now.set(1);
                self.os.unwatch_listener(&door.socket);
                let until = self.now + PAUSE_US;
                door.state = if closing { DoorState::Closing(until) } else { DoorState::Paused(until) };
            }
        }
        stop
    }

    fn accept_one(&mut self, number: u32) -> Result<(), Stop> {
        let Some(Some(door)) = self.doors.get(number as usize) else { return Err(Stop::Empty) };
        let permit = door.listener.state.admit().ok_or(Stop::Full)?;
        match self.os.accept(&door.socket) {
            Accepted::Connection(socket, peer) => {
                let listener = Arc::clone(&door.listener);
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
    pub(super) fn tend_doors(&mut self) {
        for number in 0..self.doors.len() {
            let Some(door) = &mut self.doors[number] else { continue };
            match door.state {
                DoorState::Paused(until) if until <= self.now => {
                    let token = Token::special(Side::Listener, number as u32);
                    if self.os.watch_listener(&door.socket, token, door.shared).is_ok() {
                        door.state = DoorState::Open;
                        self.shared.counters[self.index].0.accept_paused_now.set(0);
                    } else {
                        door.state = DoorState::Paused(self.now + PAUSE_US);
                    }
                }
                DoorState::Closing(until) if until <= self.now => {
                    // Whoever waits while a limit is reached waits on; the socket stays until they are in.
                    if self.accept(number as u32) == Stop::Empty
                        && let Some(door) = self.doors[number].take()
                    {
                        self.os.unwatch_listener(&door.socket);
                    }
                }
                _ => {}
            }
        }
    }
}

/// Why accepting stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    Batch,
    Empty,
    Full,
    Exhausted,
}
