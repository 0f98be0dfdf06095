//! [`Os`]: the system calls that the splicer makes, one method each.
//!
//! Decides nothing. `linux.rs` implements it by the kernel, `sim` by a hostile imitation; a conformance test runs the
//! same scripts on both. Invariant: a result is one of a closed list, and a socket or pipe is owned by exactly one
//! value, so that it cannot leak and cannot be used after it was closed.

mod linux;

pub use linux::{Connection, Linux, Pipe, RawEvent};

pub use super::slab::{Side, Token};
pub use crate::clock::{Micros, now};

use std::net::{IpAddr, SocketAddr};

use crate::config::Address;
use crate::fault::Fault;
use crate::socket::KeepAlive;

/// Result of reading or writing bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Io {
    /// This many bytes were moved, at least one.
    Moved(usize),
    /// The peer has finished sending.
    End,
    /// No byte could be moved; an event follows when one can.
    Later,
    /// The socket failed and cannot be used any more.
    Broken(Fault),
}

/// Result of accepting one connection.
#[derive(Debug)]
pub enum Accepted<S> {
    /// A connection with the address of its peer; a unix peer has none.
    Connection(S, Option<SocketAddr>),
    /// The accept queue is empty.
    Empty,
    /// No descriptor or no memory is free: accepting has to pause.
    Exhausted(Fault),
    /// The connection failed while it was queued; the next may be accepted.
    Skip,
}

/// A change of a watched socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Token that was given to `watch`.
    pub token: Token,
    /// Bytes or the end may be read.
    pub readable: bool,
    /// There is room to write, or a connect is complete.
    pub writable: bool,
    /// The peer has finished sending: read until the end.
    pub finished: bool,
    /// An error of the socket is pending.
    pub failed: bool,
    /// An urgent byte stands in the stream. A read stops before it, and splice does not pass it.
    pub urgent: bool,
}

/// The system calls of a worker and its connections; statically dispatched.
pub trait Os {
    /// A connected or connecting stream socket; dropping closes it.
    type Socket;
    /// A pipe; dropping closes it and whatever it holds.
    type Pipe;
    /// A listening socket that accepts connections.
    type Listener;

    /// Takes one connection from the accept queue.
    fn accept(&mut self, listener: &Self::Listener) -> Accepted<Self::Socket>;
    /// Reads from a socket into the buffer.
    fn recv(&mut self, socket: &Self::Socket, into: &mut [u8]) -> Io;
    /// Writes from the buffer to a socket.
    fn send(&mut self, socket: &Self::Socket, from: &[u8]) -> Io;
    /// Moves bytes from a socket into an empty pipe.
    fn splice_in(&mut self, socket: &Self::Socket, pipe: &Self::Pipe, most: usize) -> Io;
    /// Moves bytes from a pipe to a socket.
    fn splice_out(&mut self, pipe: &Self::Pipe, socket: &Self::Socket, most: usize) -> Io;
    /// Reads bytes out of a pipe that holds some.
    fn read_pipe(&mut self, pipe: &Self::Pipe, into: &mut [u8]) -> Io;
    /// Makes a pipe and returns its capacity in bytes.
    fn pipe(&mut self) -> Result<(Self::Pipe, usize), Fault>;
    /// Makes an empty pipe take so many bytes; false: the kernel refuses, and the pipe stays as it is.
    fn grow(&mut self, pipe: &Self::Pipe, bytes: usize) -> bool;
    /// Begins to connect to a backend, from this address where one is given.
    fn connect(&mut self, to: &Address, from: Option<IpAddr>) -> Result<Self::Socket, Fault>;
    /// Takes the pending error of a socket (SO_ERROR).
    fn take_error(&mut self, socket: &Self::Socket) -> Option<Fault>;
    /// Finishes sending, so that the peer reads the end.
    fn shutdown(&mut self, socket: &Self::Socket);
    /// Closes a socket so that the peer sees a reset.
    fn reset(&mut self, socket: Self::Socket);
    /// Begins to report events of a socket, edge-triggered.
    fn watch(&mut self, socket: &Self::Socket, token: Token) -> Result<(), Fault>;
    /// Ends reporting events, before the socket leaves this worker.
    fn unwatch(&mut self, socket: &Self::Socket);
    /// Begins to report events of a listener, level-triggered; `shared` = several workers watch the same socket.
    fn watch_listener(&mut self, listener: &Self::Listener, token: Token, shared: bool) -> Result<(), Fault>;
    /// Ends reporting events of a listener.
    fn unwatch_listener(&mut self, listener: &Self::Listener);
    /// Lets no new handshake begin on a listener; handshakes under way complete.
    fn refuse_new(&mut self, listener: &Self::Listener);
    /// Has the kernel hand over clients that have sent nothing, with their next acknowledgement.
    fn accept_silent(&mut self, listener: &Self::Listener);
    /// Returns the address a client connected to; `None` for a unix socket.
    fn local_address(&mut self, socket: &Self::Socket) -> Option<SocketAddr>;
    /// Sets keepalive and the user timeout of a socket.
    fn keep_alive(&mut self, socket: &Self::Socket, rules: &KeepAlive);
    /// Returns the time of the monotonic clock.
    fn now(&mut self) -> Micros;
}
