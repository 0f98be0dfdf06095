//! [`Direction`]: moves the bytes of a connection one way, by copy while messages are small and by splice(2) in bulk.
//!
//! Does not depend on which way it is, opens and closes nothing but pipes, and never looks at bytes. Invariant: every
//! byte read is written, once and in order, before anything after it is read; the end is passed on only after the last
//! byte; between turns a direction holds neither a buffer nor a pipe unless its receiver has refused bytes, and then at
//! most [`COPY_BYTES`], or one filling of a large pipe: [`LargePipes`](super::large_pipes::LargePipes) bounds these.

use serde::{Deserialize, Serialize};

use super::large_pipes::Charge;
use super::os::{Io, Os};
pub use super::pipe::COPY_BYTES;
use super::pipe::{Filled, Pipes};
use crate::attempt::FirstByte;
use crate::fault::{Endpoint, Fault};
use crate::outcome::Ended;

/// Number of rounds after which a fast connection gives way to others.
const ROUNDS: u32 = 16;

/// Bytes after which a direction gives way to others, however few rounds they took, if few others wait.
const STEP_BYTES: u64 = 4 * 1024 * 1024;

/// The same if many others wait: more system calls move less, but each comes with an event anyway.
const STEP_BYTES_MIN: u64 = 128 * 1024;

/// Bytes that all directions of one turn share: some milliseconds, after which connections with little to say are served.
const TURN_BYTES: u64 = 16 * 1024 * 1024;

/// How many bytes a direction may read in one step, in a turn that steps so many connections.
pub fn step_bytes(connections: usize) -> u64 {
    (TURN_BYTES / connections.max(1) as u64).clamp(STEP_BYTES_MIN, STEP_BYTES)
}

/// Smallest read that counts as bulk, in bytes.
const BULK_BYTES: usize = 32 * 1024;

/// Number of bulk reads in a row that turn copying into splicing.
const BULK_READS: u8 = 3;

/// Number of reads below half of `BULK_BYTES` in a row that turn splicing into copying.
const SMALL_READS: u8 = 5;

/// Bytes out of pipes that a receiver takes without a refusal before its direction may have a large pipe: those of slow
/// receivers, which take less at a time, would hold all of them.
const BULKY_BYTES: u32 = 4 * COPY_BYTES as u32;

/// The parts of a worker that a relay may use besides its own row.
pub struct Tools<'a, O: Os> {
    /// Operating system, or its simulation.
    pub os: &'a mut O,
    /// Pipes of the worker, for splicing.
    pub pipes: &'a mut Pipes<O>,
    /// Buffer of the worker, for copying.
    pub scratch: &'a mut [u8],
    /// Most bytes that a direction may read before it gives way to others.
    pub step_bytes: u64,
    /// Bytes moved by splice, for the worker's counter.
    pub spliced: u64,
}

/// One direction of a connection, from a sender to a receiver.
#[derive(Debug)]
pub struct Direction<P> {
    /// Bytes read and not yet taken by the receiver.
    rest: Option<Box<Rest>>,
    pipe: Option<Filled<P>>,
    /// Number of bytes read from the sender.
    pub bytes: u64,
    /// The sender's socket may have bytes to read.
    pub readable: bool,
    /// The receiver's socket may have room to write.
    pub writable: bool,
    /// An event reported the sender's end: read until it is reached.
    pub finished: bool,
    /// An event reported an urgent byte (RFC 6093), or splice has stopped as at one: a read stops before it though more
    /// has come, and splice cannot pass it.
    pub urgent: bool,
    /// The end was read, and every byte before it was taken: nothing is read while anything is owed.
    pub end_seen: bool,
    /// The end was passed on to the receiver.
    pub end_sent: bool,
    /// The sender's first byte, where it is a backend and its pool waits for that.
    pub first_byte: FirstByte,
    bulk: u8,
    small: u8,
    splicing: bool,
    /// The receiver has refused bytes since the pipe was filled.
    blocked: bool,
    /// The receiver took [`BULKY_BYTES`] without a refusal, before its last one or since.
    bulky: bool,
    /// Bytes that the receiver took out of pipes since it last refused any. After a refusal it has to take
    /// [`COPY_BYTES`] out of small ones first: a receiver that has stopped has few bytes waiting for it.
    run: u32,
}

#[derive(Debug)]
struct Rest {
    bytes: Vec<u8>,
    sent: usize,
    /// Held for bytes that came out of a large pipe, here or in another process.
    charge: Option<Charge>,
}

impl Rest {
    fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, sent: 0, charge: None }
    }
}

/// Facts of one direction, for another process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WayFacts {
    /// Bytes read from the sender so far.
    pub bytes: u64,
    /// Bytes read and not yet written; they travel beside the facts.
    pub owed: usize,
    /// The sender's end was read.
    pub end_seen: bool,
    /// The end was passed on.
    pub end_sent: bool,
}

/// Reason why moving bytes stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pumped {
    /// No byte can be moved before the next event.
    Idle,
    /// More bytes could be moved, after other connections had their turn.
    Again,
    /// The socket of the sender failed.
    SenderBroken(Fault),
    /// The socket of the receiver failed.
    ReceiverBroken(Fault),
}

/// Returns the ending of a connection after a socket failed while bytes were moved; the client's failure comes first.
pub fn broken(up: Pumped, down: Pumped) -> Option<Ended> {
    match (up, down) {
        (Pumped::SenderBroken(fault), _) | (_, Pumped::ReceiverBroken(fault)) => Some(fault.ending(Endpoint::Client)),
        (Pumped::ReceiverBroken(fault), _) | (_, Pumped::SenderBroken(fault)) => Some(fault.ending(Endpoint::Backend)),
        _ => None,
    }
}

impl<P> Default for Direction<P> {
    fn default() -> Self {
        Self {
            rest: None,
            pipe: None,
            bytes: 0,
            readable: false,
            writable: false,
            finished: false,
            urgent: false,
            end_seen: false,
            end_sent: false,
            first_byte: FirstByte::default(),
            bulk: 0,
            small: 0,
            splicing: false,
            blocked: false,
            bulky: false,
            run: 0,
        }
    }
}

impl<P> Direction<P> {
    /// Makes a direction with a receiver that is connected and has room.
    pub fn writable() -> Self {
        Self { writable: true, ..Self::default() }
    }

    /// Stores bytes to be written before anything else, because they were read before there was a receiver.
    pub fn owe(&mut self, bytes: &[u8]) {
        debug_assert!(self.rest.is_none());
        if !bytes.is_empty() {
            self.rest = Some(Box::new(Rest::new(bytes.to_vec())));
        }
    }

    /// Makes the direction of a row that came from another process, with the bytes that it owes. Whether there is more
    /// to read or room to write is to be tried.
    pub fn arrived(facts: &WayFacts, owed: Vec<u8>) -> Self {
        let rest = (!owed.is_empty()).then(|| Box::new(Rest::new(owed)));
        Self { rest, bytes: facts.bytes, end_seen: facts.end_seen, end_sent: facts.end_sent, ..Self::default() }
    }

    /// Facts of the direction, for another process.
    pub fn facts(&self) -> WayFacts {
        let owed = self.rest().len();
        WayFacts { bytes: self.bytes, owed, end_seen: self.end_seen, end_sent: self.end_sent }
    }

    /// Bytes of an earlier read that are not yet written.
    pub fn rest(&self) -> &[u8] {
        self.rest.as_ref().map_or(&[], |rest| &rest.bytes[rest.sent..])
    }

    /// Reads and writes are to be tried, whatever was known of the sockets: they are watched anew.
    pub fn try_again(&mut self) {
        (self.readable, self.writable) = (true, true);
    }

    /// Moves what the pipe holds into the buffer and gives the pipe back, because a row that leaves its worker has none.
    pub fn empty_pipe<O: Os<Pipe = P>>(&mut self, tools: &mut Tools<'_, O>) -> Result<(), Fault> {
        let Some(mut pipe) = self.pipe.take() else { return Ok(()) };
        let mut bytes = self.rest().to_vec();
        let mut fault = None;
        while pipe.held > 0 && fault.is_none() {
            match tools.os.read_pipe(&pipe.ends, tools.scratch) {
                Io::Moved(n) => {
                    bytes.extend_from_slice(&tools.scratch[..n]);
                    pipe.held -= n as u32;
                }
                Io::Broken(why) => fault = Some(why),
                Io::Later | Io::End => fault = Some(Fault::Other),
            }
        }
        self.rest = (!bytes.is_empty()).then(|| Box::new(Rest::new(bytes)));
        tools.pipes.give(pipe);
        self.charge_rest(tools.pipes);
        fault.map_or(Ok(()), Err)
    }

    /// Counts owed bytes among the large pipes if they are more than a small pipe holds.
    pub fn charge_rest<O: Os<Pipe = P>>(&mut self, pipes: &mut Pipes<O>) {
        if let Some(rest) = &mut self.rest
            && rest.bytes.len() - rest.sent > COPY_BYTES
        {
            rest.charge.get_or_insert_with(|| pipes.charge());
        }
    }

    /// Number of bytes that are read and not yet written.
    pub fn held(&self) -> usize {
        let rest = self.rest.as_ref().map_or(0, |rest| rest.bytes.len() - rest.sent);
        rest + self.pipe.as_ref().map_or(0, |pipe| pipe.held as usize)
    }

    /// Moves as many bytes as possible from one socket to the other.
    pub fn pump<O: Os<Pipe = P>>(&mut self, from: &O::Socket, to: &O::Socket, tools: &mut Tools<'_, O>) -> Pumped {
        let pumped = self.rounds(from, to, tools);
        self.return_empty_pipe(tools);
        pumped
    }

    fn rounds<O: Os<Pipe = P>>(&mut self, from: &O::Socket, to: &O::Socket, tools: &mut Tools<'_, O>) -> Pumped {
        let most = self.bytes + tools.step_bytes;
        for _ in 0..ROUNDS {
            if let Some(stop) = self.write_owed(to, tools) {
                return stop;
            }
            if self.end_seen || !(self.readable || self.finished) {
                return Pumped::Idle;
            }
            let splices = self.splicing && !self.urgent;
            let stop = if splices { self.splice(from, most - self.bytes, tools) } else { self.copy(from, to, tools) };
            if let Some(stop) = stop {
                return stop;
            }
            if self.bytes >= most {
                break;
            }
        }
        // Others may use the pipe before this direction has its next turn.
        self.write_owed(to, tools).unwrap_or(Pumped::Again)
    }

    /// Gives back what it holds; what was not delivered is lost.
    pub fn close<O: Os<Pipe = P>>(&mut self, pipes: &mut Pipes<O>) {
        self.rest = None;
        if let Some(pipe) = self.pipe.take() {
            pipes.give(pipe);
        }
    }

    /// Writes the rest of an earlier read, then what the pipe holds. `None` when nothing is owed any more.
    fn write_owed<O: Os<Pipe = P>>(&mut self, to: &O::Socket, tools: &mut Tools<'_, O>) -> Option<Pumped> {
        while let Some(rest) = &mut self.rest {
            if !self.writable {
                return Some(Pumped::Idle);
            }
            match tools.os.send(to, &rest.bytes[rest.sent..]) {
                Io::Moved(n) => {
                    rest.sent += n;
                    if rest.sent == rest.bytes.len() {
                        self.rest = None;
                    }
                }
                stuck => return Some(self.blocked(stuck)),
            }
        }
        while let Some(pipe) = &mut self.pipe
            && pipe.held > 0
        {
            if !self.writable {
                return Some(Pumped::Idle);
            }
            match tools.os.splice_out(&pipe.ends, to, pipe.held as usize) {
                Io::Moved(n) => {
                    pipe.held -= n as u32;
                    tools.spliced += n as u64;
                    if !self.blocked {
                        self.run = self.run.saturating_add(n as u32);
                        self.bulky |= self.run >= BULKY_BYTES;
                    }
                }
                stuck => return Some(self.blocked(stuck)),
            }
        }
        None
    }

    /// True if the receiver takes bytes as fast as the sender gives them, and many.
    pub fn is_bulky(&self) -> bool {
        self.bulky
    }

    fn blocked(&mut self, stuck: Io) -> Pumped {
        match stuck {
            Io::Broken(why) => Pumped::ReceiverBroken(why),
            _ => {
                self.refused();
                Pumped::Idle
            }
        }
    }

    fn refused(&mut self) {
        if !self.blocked {
            self.bulky = self.run >= BULKY_BYTES;
        }
        (self.writable, self.blocked, self.run) = (false, true, 0);
    }

    /// Makes one read and one write through the scratch buffer. After a short read the socket is empty.
    fn copy<O: Os<Pipe = P>>(&mut self, from: &O::Socket, to: &O::Socket, tools: &mut Tools<'_, O>) -> Option<Pumped> {
        let n = match self.account(tools.os.recv(from, tools.scratch)) {
            Ok(n) => n,
            Err(stop) => return stop,
        };
        self.readable &= self.urgent || n == tools.scratch.len();
        let mut sent = 0;
        while sent < n && self.writable {
            match tools.os.send(to, &tools.scratch[sent..n]) {
                Io::Moved(m) => sent += m,
                Io::Broken(why) => return Some(Pumped::ReceiverBroken(why)),
                Io::Later | Io::End => self.refused(),
            }
        }
        self.owe(&tools.scratch[sent..n]);
        None
    }

    /// Fills the empty pipe once, with so many bytes at most. After a short splice the socket may hold more, because a pipe
    /// also runs out of slots.
    fn splice<O: Os<Pipe = P>>(&mut self, from: &O::Socket, most: u64, tools: &mut Tools<'_, O>) -> Option<Pumped> {
        let large = self.bulky && self.run >= COPY_BYTES as u32;
        if self.pipe.as_ref().is_some_and(|pipe| pipe.is_large() != large) {
            self.return_empty_pipe(tools);
        }
        if self.pipe.is_none() {
            self.pipe = tools.pipes.take(tools.os, large);
        }
        let Some(pipe) = &mut self.pipe else {
            (self.splicing, self.bulk) = (false, 0);
            return None;
        };
        let answer = tools.os.splice_in(from, &pipe.ends, most.min(pipe.capacity.into()) as usize);
        match answer {
            Io::Moved(n) => {
                pipe.held = n as u32;
                self.blocked = false;
            }
            // An urgent byte that has come with the end, and that no event has reported yet, looks like the end.
            Io::End => {
                self.urgent = true;
                return None;
            }
            Io::Later | Io::Broken(_) => {}
        }
        self.account(answer).err().flatten()
    }

    /// Notes the result of a read and returns the number of bytes. `Err`: nothing was read; the reason to stop, or
    /// `None` at the end.
    fn account(&mut self, answer: Io) -> Result<usize, Option<Pumped>> {
        match answer {
            Io::Moved(n) => {
                self.bytes += n as u64;
                self.weigh(n);
                Ok(n)
            }
            Io::End => {
                self.end_seen = true;
                Err(None)
            }
            Io::Later => {
                self.readable = false;
                Err(Some(Pumped::Idle))
            }
            Io::Broken(why) => Err(Some(Pumped::SenderBroken(why))),
        }
    }

    fn weigh(&mut self, n: usize) {
        if n >= BULK_BYTES {
            self.bulk = self.bulk.saturating_add(1);
            self.small = 0;
            self.splicing |= self.bulk >= BULK_READS;
        } else {
            self.bulk = 0;
            self.small = if n < BULK_BYTES / 2 { self.small.saturating_add(1) } else { 0 };
            self.splicing &= self.small < SMALL_READS;
            self.bulky &= self.splicing;
        }
    }

    /// Gives the pipe back, unless it still holds bytes.
    fn return_empty_pipe<O: Os<Pipe = P>>(&mut self, tools: &mut Tools<'_, O>) {
        if self.pipe.as_ref().is_some_and(|pipe| pipe.held == 0)
            && let Some(pipe) = self.pipe.take()
        {
            tools.pipes.give(pipe);
        }
    }
}

#[cfg(test)]
mod tests;
