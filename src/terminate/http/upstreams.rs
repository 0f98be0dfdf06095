//! [`Upstreams`]: connections to backends that one client keeps for its next requests, and how many of them its
//! requests use at once.
//!
//! Decides about no request. Invariants: no other client ever uses them; at most [`KEPT_MAX`] are kept altogether, or as
//! many as may be used at once; one that is taken out has received no byte since it was put in; with [`Places`], no
//! more of them are used at once for one backend than there are places.

use std::cell::RefCell;
use std::sync::Arc;
use std::task::{Context, Waker};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::attempt::FirstByte;
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
    /// The place that the connection takes while a request uses it; `None`: they are not limited.
    pub place: Option<Place>,
    /// First byte of the backend on this connection.
    pub first_byte: FirstByte,
}

impl UpstreamConnection {
    /// A connection that has carried no request yet.
    pub fn new(connected: Connected, place: Option<Place>) -> Self {
        let Connected { stream, lease, first_byte, .. } = connected;
        Self { stream, unread: Buffer::default(), lease, place, first_byte }
    }
}

/// Kept connections, the one used last at the end.
#[derive(Default)]
pub struct Upstreams {
    kept: RefCell<Vec<UpstreamConnection>>,
    /// `None`: the client has one request at a time.
    places: Option<Places>,
}

impl Upstreams {
    /// For a client that has many requests at once, of which at most so many use connections to one backend.
    pub fn with_places(at_once: usize) -> Self {
        Self { kept: RefCell::default(), places: Some(Places { at_once, of: RefCell::default() }) }
    }

    /// Takes out the connection to this backend; `None`: there is none, or it is closed or out of step.
    pub fn take(&self, backend: &Arc<Backend>) -> Option<UpstreamConnection> {
        let mut kept = self.kept.borrow_mut();
        let index = kept.iter().rposition(|upstream| Arc::ptr_eq(upstream.lease.backend(), backend))?;
        let mut upstream = kept.remove(index);
        let mut byte = [0];
        // No response is due: an end or a byte now means that it has closed, or is out of step.
        let quiet = upstream.stream.poll_read(&mut Context::from_waker(Waker::noop()), &mut byte).is_pending();
        upstream.stream.socket().reset_on_drop(true);
        (quiet && !backend.closing()).then_some(upstream)
    }

    /// True if no connection is kept.
    pub fn is_empty(&self) -> bool {
        self.kept.borrow().is_empty()
    }

    /// True if a connection to this backend is kept.
    pub fn holds(&self, backend: &Arc<Backend>) -> bool {
        self.kept.borrow().iter().any(|upstream| Arc::ptr_eq(upstream.lease.backend(), backend))
    }

    /// Keeps a connection after a complete response. `crowded`: descriptors are scarce, so the others are closed.
    pub fn put(&self, mut upstream: UpstreamConnection, crowded: bool) {
        upstream.stream.socket().reset_on_drop(false);
        upstream.place = None;
        let most = self.places.as_ref().map_or(KEPT_MAX, |places| places.at_once.max(KEPT_MAX));
        let others = if crowded { 0 } else { most - 1 };
        let mut kept = self.kept.borrow_mut();
        let surplus = kept.len().saturating_sub(others);
        kept.drain(..surplus);
        kept.push(upstream);
    }

    /// Closes those of backends that close their connections.
    pub fn close_with_their_backends(&self) {
        self.kept.borrow_mut().retain(|upstream| !upstream.lease.backend().closing());
    }

    /// Closes all that are kept.
    pub fn clear(&self) {
        self.kept.take();
    }

    /// Takes a place at this backend, in the order of the calls; the result says too whether it had to be waited for.
    pub async fn place(&self, backend: &Arc<Backend>) -> (Option<Place>, bool) {
        let Some(places) = &self.places else { return (None, false) };
        let places = places.of(backend);
        match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => (Some(Place { _permit: place }), false),
            Err(_) => (places.acquire_owned().await.ok().map(|place| Place { _permit: place }), true),
        }
    }
}

/// A place of a request at a backend; dropping it gives it to the next request.
pub struct Place {
    _permit: OwnedSemaphorePermit,
}

/// Places of one client at its backends.
struct Places {
    at_once: usize,
    of: RefCell<Vec<(Arc<Backend>, Arc<Semaphore>)>>,
}

impl Places {
    fn of(&self, backend: &Arc<Backend>) -> Arc<Semaphore> {
        let mut all = self.of.borrow_mut();
        if let Some((_, places)) = all.iter().find(|(of, _)| Arc::ptr_eq(of, backend)) {
            return Arc::clone(places);
        }
        // Those of backends that no request uses are made anew.
        all.retain(|(_, places)| places.available_permits() < self.at_once || Arc::strong_count(places) > 1);
        let places = Arc::new(Semaphore::new(self.at_once));
        all.push((Arc::clone(backend), Arc::clone(&places)));
        places
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Snapshot;

    #[tokio::test]
    async fn places_of_a_backend_are_given_in_order() {
        let text = "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\ntls = \"off\"\npool = \"p\"\n\
            [[pool]]\nname = \"p\"\nhttp = true\ncheck = \"off\"\nbackend = [\"127.0.0.1:2\", \"127.0.0.1:3\"]\n";
        let snapshot = Snapshot::of_text(text);
        let (backends, upstreams) = (snapshot.pools[0].backends(), Upstreams::with_places(2));
        let [backend, other] = [0, 1].map(|index| &backends[index]);
        let (first, second) = (upstreams.place(backend).await, upstreams.place(backend).await);
        assert!(!first.1 && !second.1 && !upstreams.place(other).await.1);
        let served = RefCell::new(Vec::new());
        let wait = async |number| {
            let (place, waited) = upstreams.place(backend).await;
            assert!(place.is_some() && waited);
            served.borrow_mut().push(number);
        };
        let free = async {
            tokio::task::yield_now().await;
            assert!(served.borrow().is_empty());
            drop(first);
        };
        tokio::join!(wait(1), wait(2), wait(3), free);
        assert_eq!(*served.borrow(), [1, 2, 3]);
        drop(second);
        assert!(Upstreams::default().place(backend).await.0.is_none(), "one request at a time needs none");
    }
}
