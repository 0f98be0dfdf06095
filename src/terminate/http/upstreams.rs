//! Connections to backends that one client's connection keeps for its next requests.
//!
//! Decides about no request. Invariant: they belong to this one client connection and are never seen by another, at
//! most one for each backend and [`KEPT_MAX`] altogether; and what is taken out is as quiet as it was put in.

use std::sync::Arc;
use std::task::{Context, Waker};

use crate::pool::{Backend, Lease};
use crate::terminate::buffer::Buffer;
use crate::terminate::connect::Connected;
use crate::terminate::stream::Stream;

/// More backends than a client uses at once; each costs a socket.
const KEPT_MAX: usize = 4;

/// A connection to a backend.
pub struct UpstreamConnection {
    /// The way there.
    pub stream: Stream,
    /// What it has sent and nobody has looked at.
    pub answers: Buffer,
    /// The right to use it.
    pub lease: Lease,
}

impl UpstreamConnection {
    /// One that nothing has been said on.
    pub fn new(connected: Connected) -> Self {
        Self { stream: connected.stream, answers: Buffer::default(), lease: connected.lease }
    }
}

/// Those that are kept, the one used last at the end.
#[derive(Default)]
pub struct Upstreams(Vec<UpstreamConnection>);

impl Upstreams {
    /// The one to this backend, if it is there and still good as far as can be seen.
    pub fn take(&mut self, backend: &Arc<Backend>) -> Option<UpstreamConnection> {
        let index = self.0.iter().position(|held| Arc::ptr_eq(held.lease.backend(), backend))?;
        let mut held = self.0.remove(index);
        let mut byte = [0];
        // Whatever it says now, nobody has asked: it has closed, or it is out of step.
        let silent = held.stream.poll_read(&mut Context::from_waker(Waker::noop()), &mut byte).is_pending();
        held.stream.socket().reset_on_drop(true);
        (silent && !backend.closing()).then_some(held)
    }

    /// Whether one to this backend is there.
    pub fn holds(&self, backend: &Arc<Backend>) -> bool {
        self.0.iter().any(|held| Arc::ptr_eq(held.lease.backend(), backend))
    }

    /// Keeps one whose response is complete; it alone, where descriptors are getting scarce.
    pub fn put(&mut self, mut held: UpstreamConnection, crowded: bool) {
        held.stream.socket().reset_on_drop(false);
        let others = if crowded { 0 } else { KEPT_MAX - 1 };
        self.0.drain(..self.0.len().saturating_sub(others));
        self.0.push(held);
    }
}
