//! What the splicer asks of an operating system: one method, one system call.
//!
//! Decides nothing. `linux.rs` answers with the kernel, `sim` with a hostile imitation of it; a conformance test
//! holds the two together. Invariant: an answer is one of a closed list, and a socket or pipe is owned by exactly one
//! value, so that it cannot leak and cannot be used after it was closed.

mod linux;

pub use linux::{Connection, Linux, Pipe, RawEvent};

pub use super::slab::{Side, Token};
pub use crate::clock::{Micros, now};

use std::net::{IpAddr, SocketAddr};

use crate::config::Address;
use crate::socket::KeepAlive;

/// What moving bytes came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Io {
    /// So many bytes, at least one.
    Moved(usize),
    /// The peer has finished sending.
    End,
    /// Nothing now; an event will tell.
    Later,
    /// The socket is of no more use.
    Broken(Broken),
}

/// Why a socket is of no more use, or why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// Reset by the peer.
    Reset,
    /// The peer stopped answering.
    Gone,
    /// Nobody listens there.
    Refused,
    /// No way leads there.
    Unreachable,
    /// No free local port.
    NoPort,
    /// No free descriptor.
    NoDescriptor,
    /// No memory for sockets.
    NoMemory,
    /// Anything else.
    Other,
}

/// What accepting came to.
#[derive(Debug)]
pub enum Accepted<S> {
    /// A connection and its peer; a unix peer has no address.
    Connection(S, Option<SocketAddr>),
    /// The queue is empty.
    Empty,
    /// No descriptor or no memory: pause.
    Exhausted(Broken),
    /// That connection died in the queue; the next may be well.
    Skip,
}

/// Something became possible on a watched socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// What was given to `watch`.
    pub token: Token,
    /// Bytes or an end may be read.
    pub readable: bool,
    /// There is room to write, or a connect has been answered.
    pub writable: bool,
    /// The peer has finished sending: read until the end.
    pub finished: bool,
    /// An error is pending.
    pub failed: bool,
    /// An urgent byte stands in the stream. A read stops before it, and splice does not pass it.
    pub urgent: bool,
}

/// The system calls of a connection. Statically dispatched.
pub trait Os {
    /// A connected or connecting stream socket; dropping closes it.
    type Socket;
    /// A pipe; dropping closes it and whatever it holds.
    type Pipe;
    /// A socket that accepts.
    type Listener;

    /// Takes one connection from the queue.
    fn accept(&mut self, listener: &Self::Listener) -> Accepted<Self::Socket>;
    /// Reads into the buffer.
    fn recv(&mut self, socket: &Self::Socket, into: &mut [u8]) -> Io;
    /// Writes from the buffer.
    fn send(&mut self, socket: &Self::Socket, from: &[u8]) -> Io;
    /// Moves bytes from a socket into an empty pipe.
    fn splice_in(&mut self, socket: &Self::Socket, pipe: &Self::Pipe, most: usize) -> Io;
    /// Moves bytes from a pipe to a socket.
    fn splice_out(&mut self, pipe: &Self::Pipe, socket: &Self::Socket, most: usize) -> Io;
    /// Makes a pipe and says how much it holds.
    fn pipe(&mut self) -> Result<(Self::Pipe, usize), Broken>;
    /// Begins to connect.
    fn connect(&mut self, to: &Address, from: Option<IpAddr>) -> Result<Self::Socket, Broken>;
    /// Takes the pending error of a socket.
    fn take_error(&mut self, socket: &Self::Socket) -> Option<Broken>;
    /// Finishes sending.
    fn shutdown(&mut self, socket: &Self::Socket);
    /// Closes so that the peer sees a reset.
    fn reset(&mut self, socket: Self::Socket);
    /// Asks for events, edge-triggered.
    fn watch(&mut self, socket: &Self::Socket, token: Token) -> Result<(), Broken>;
    /// Ends that, before the socket leaves this worker.
    fn unwatch(&mut self, socket: &Self::Socket);
    /// Asks for events of a listener, level-triggered; `shared` when several workers watch the same socket.
    fn watch_listener(&mut self, listener: &Self::Listener, token: Token, shared: bool) -> Result<(), Broken>;
    /// Ends that.
    fn unwatch_listener(&mut self, listener: &Self::Listener);
    /// Lets no new handshake begin on a listener; those under way complete.
    fn refuse_new(&mut self, listener: &Self::Listener);
    /// The address a client connected to.
    fn local_address(&mut self, socket: &Self::Socket) -> Option<SocketAddr>;
    /// Switches on keepalive and the user timeout.
    fn keep_alive(&mut self, socket: &Self::Socket, rules: &KeepAlive);
    /// The time.
    fn now(&mut self) -> Micros;
}
