//! [`Upstreams`]: connections to backends that one client connection keeps for its next requests.
//!
//! Decides about no request. Invariant: no other client connection ever uses them; there is at most one for each
//! backend and [`KEPT_MAX`] altogether; and one that is taken out has received no byte since it was put in.

use std::sync::Arc;
use std::task::{Context, Waker};

use crate::pool::{Backend, Lease};
use crate::terminate::buffer::Buffer;
use crate::terminate::connect::Connected;
use crate::terminate::stream::Stream;

/// Most connections that one client keeps. Clients rarely use more backends at once, and each costs a socket.
const KEPT_MAX: usize = 4;

/// A connection to a backend, with the lease that counts it.
pub struct UpstreamConnection<S = Stream> {
    /// The connection, with TLS or without.
    pub stream: S,
    /// Bytes that were read and not consumed.
    pub unread: Buffer,
    /// Counts the connection at its backend.
    pub lease: Lease,
}

impl UpstreamConnection {
    /// A connection that has carried no request yet.
    pub fn new(connected: Connected) -> Self {
        Self { stream: connected.stream, unread: Buffer::default(), lease: connected.lease }
    }
}

/// Kept connections, the one used last at the end.
#[derive(Default)]
pub struct Upstreams(Vec<UpstreamConnection>);

impl Upstreams {
    /// Takes out the connection to this backend; `None`: there is none, or it is closed or out of step.
    pub fn take(&mut self, backend: &Arc<Backend>) -> Option<UpstreamConnection> {
        let index = self.0.iter().position(|upstream| Arc::ptr_eq(upstream.lease.backend(), backend))?;
        let mut upstream = self.0.remove(index);
        let mut byte = [0];
        // No response is due: an end or a byte now means that it has closed, or is out of step.
        let quiet = upstream.stream.poll_read(&mut Context::from_waker(Waker::noop()), &mut byte).is_pending();
        upstream.stream.socket().reset_on_drop(true);
        (quiet && !backend.closing()).then_some(upstream)
    }

    /// True if no connection is kept.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True if a connection to this backend is kept.
    pub fn holds(&self, backend: &Arc<Backend>) -> bool {
        self.0.iter().any(|upstream| Arc::ptr_eq(upstream.lease.backend(), backend))
    }

    /// Keeps a connection after a complete response. `crowded`: descriptors are scarce, so the others are closed.
    pub fn put(&mut self, mut upstream: UpstreamConnection, crowded: bool) {
        upstream.stream.socket().reset_on_drop(false);
        let others = if crowded { 0 } else { KEPT_MAX - 1 };
        self.0.drain(..self.0.len().saturating_sub(others));
        self.0.push(upstream);
    }
}
