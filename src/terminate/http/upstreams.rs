//! [`Upstreams`]: connections to backends that one client keeps for its next requests, and how many of them its
//! requests use at once.
//!
//! Those of HTTP/1 are taken out and put back, with one request at a time; those of HTTP/2 stay, and give a stream to each
//! request. Decides about no request. Invariants: no other client ever uses them; at most [`KEPT_MAX`] are kept of each
//! kind, or as many as may be used at once; one of HTTP/1 that is taken out has received no byte since it was put in; with
//! [`Places`], no more of these are used at once for one backend than there are places, and one of HTTP/2 at most is
//! connected at a time.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::upstream_stream::UpstreamStream;
use crate::attempt::FirstByte;
use crate::clock::{self, Micros};
use crate::pool::{Backend, Lease};
use crate::terminate::buffer::Buffer;
use crate::terminate::byte_stream::ByteStream as _;
use crate::terminate::connect::Connected;
use crate::terminate::deadline::Deadline;
use crate::terminate::http2::backend::BackendConnection;

/// Most connections that one client keeps. Clients rarely use more backends at once, and each costs a socket.
const KEPT_MAX: usize = 4;

/// How often a client that keeps connections looks whether others wait for their places.
const LOOK_FOR_OTHERS: Micros = 100_000;

/// A connection to a backend, or a stream on one, with the lease that counts the connection.
pub struct UpstreamConnection<S = UpstreamStream> {
    /// What carries the request.
    pub stream: S,
    /// Bytes that were read and not consumed.
    pub unread: Buffer,
    /// Counts the connection at its backend.
    pub lease: Rc<Lease>,
    /// The place that the connection takes while a request uses it; `None`: they are not limited.
    pub place: Option<Place>,
    /// First byte of the backend on this connection.
    pub first_byte: FirstByte,
}

impl UpstreamConnection {
    /// A connection of HTTP/1 that has carried no request yet.
    pub fn new(connected: Connected, place: Option<Place>) -> Self {
        let Connected { stream, lease, first_byte, .. } = connected;
        let (stream, lease) = (UpstreamStream::Http1(stream), Rc::new(lease));
        Self { stream, unread: Buffer::default(), lease, place, first_byte }
    }

    /// A stream on a connection of HTTP/2.
    fn on(connection: &Rc<BackendConnection>) -> Self {
        let stream = UpstreamStream::Http2(Box::new(connection.stream()));
        let lease = Rc::clone(connection.lease());
        Self { stream, unread: Buffer::default(), lease, place: None, first_byte: FirstByte::default() }
    }
}

/// Kept connections, the one used last at the end.
#[derive(Default)]
pub struct Upstreams {
    kept: RefCell<Vec<UpstreamConnection>>,
    http2: RefCell<Vec<Rc<BackendConnection>>>,
    /// `None`: the client has one request at a time.
    places: Option<Places>,
    /// For connections of HTTP/2 that are being made.
    makers: Option<Places>,
    /// When to look whether other clients wait for the places of what is kept.
    watch: RefCell<Deadline>,
}

impl Upstreams {
    /// For a client that has many requests at once, of which at most so many use connections to one backend.
    pub fn with_places(at_once: usize) -> Self {
        let places = |at_once| Some(Places { at_once, of: RefCell::default() });
        Self { places: places(at_once), makers: places(1), ..Self::default() }
    }

    /// Takes out the connection to this backend, or a stream of one of HTTP/2; `None`: there is none, or it is closed or
    /// out of step.
    pub fn take(&self, backend: &Arc<Backend>) -> Option<UpstreamConnection> {
        if let Some(connection) = self.http2_to(backend) {
            return Some(UpstreamConnection::on(&connection));
        }
        let mut kept = self.kept.borrow_mut();
        let index = kept.iter().rposition(|upstream| Arc::ptr_eq(upstream.lease.backend(), backend))?;
        let mut upstream = kept.remove(index);
        let mut byte = [0];
        // No response is due: an end or a byte now means that it has closed, or is out of step.
        let quiet = upstream.stream.poll_read(&mut Context::from_waker(Waker::noop()), &mut byte).is_pending();
        upstream.stream.reset_on_drop(true);
        (quiet && !backend.closing()).then_some(upstream)
    }

    /// True if no connection is kept.
    pub fn is_empty(&self) -> bool {
        self.kept.borrow().is_empty() && self.http2.borrow().is_empty()
    }

    /// True if a connection to this backend is kept.
    pub fn holds(&self, backend: &Arc<Backend>) -> bool {
        self.kept.borrow().iter().any(|upstream| Arc::ptr_eq(upstream.lease.backend(), backend))
            || self.http2_to(backend).is_some()
    }

    /// Keeps a connection of HTTP/2 for requests that follow, and returns a stream for the first one.
    pub fn begin(&self, connection: &Rc<BackendConnection>) -> UpstreamConnection {
        let mut http2 = self.http2.borrow_mut();
        // Those that requests use end behind them.
        let surplus = (http2.len() + 1).saturating_sub(self.most());
        http2.drain(..surplus);
        http2.push(Rc::clone(connection));
        UpstreamConnection::on(connection)
    }

    /// The connection of HTTP/2 to this backend. One on which no request may begin is forgotten, and ends with its last.
    fn http2_to(&self, backend: &Arc<Backend>) -> Option<Rc<BackendConnection>> {
        let mut http2 = self.http2.borrow_mut();
        let index = http2.iter().rposition(|connection| Arc::ptr_eq(connection.lease().backend(), backend))?;
        if !http2[index].is_open() {
            http2.remove(index);
            return None;
        }
        Some(Rc::clone(&http2[index]))
    }

    /// Most connections that are kept.
    fn most(&self) -> usize {
        self.places.as_ref().map_or(KEPT_MAX, |places| places.at_once.max(KEPT_MAX))
    }

    /// Keeps a connection after a complete response. `crowded`: descriptors are scarce, so the others are closed. Those to
    /// backends that drain or have weight 0 are closed, too, because the client's next requests go elsewhere, unless it
    /// `is_known` at the backend of this one.
    pub fn put(&self, mut upstream: UpstreamConnection, crowded: bool, is_known: bool) {
        let backend = Arc::clone(upstream.lease.backend());
        let stays = |to: &Arc<Backend>| !to.serves_known_only() || is_known && Arc::ptr_eq(to, &backend);
        self.kept.borrow_mut().retain(|upstream| stays(upstream.lease.backend()));
        // Streams on them go on.
        self.http2.borrow_mut().retain(|connection| stays(connection.lease().backend()));
        if let UpstreamStream::Http2(stream) = upstream.stream {
            if crowded {
                self.kept.borrow_mut().clear();
                self.http2.borrow_mut().retain(|connection| Rc::ptr_eq(connection, stream.connection()));
            }
            stream.leave();
            return self.give_to_others();
        }
        upstream.stream.reset_on_drop(false);
        upstream.place = None;
        if !stays(&backend) || backend.is_awaited() {
            return;
        }
        let others = if crowded { 0 } else { self.most() - 1 };
        let mut kept = self.kept.borrow_mut();
        let surplus = kept.len().saturating_sub(others);
        kept.drain(..surplus);
        kept.push(upstream);
    }

    /// Closes those that are not to be kept any longer, and wakes the task to do so again where no event tells of it.
    pub fn tend(&self, cx: &mut Context<'_>) {
        self.close_with_their_backends();
        self.watch_for_others(cx);
    }

    /// Closes those of backends that close their connections.
    fn close_with_their_backends(&self) {
        self.kept.borrow_mut().retain(|upstream| !upstream.lease.backend().closing());
        self.http2.borrow_mut().retain(|connection| connection.is_open());
    }

    /// Closes those that no request uses at backends for which other clients wait.
    pub fn give_to_others(&self) {
        let given: Vec<_> = self.kept.borrow_mut().extract_if(.., |upstream| is_awaited(&upstream.lease)).collect();
        let http2: Vec<_> = self
            .http2
            .borrow_mut()
            .extract_if(.., |connection| Rc::strong_count(connection) == 1 && is_awaited(connection.lease()))
            .collect();
        drop((given, http2));
    }

    /// Closes those that others wait for now, and wakes the task to do so again while something is kept that others may wait for: no event tells
    /// of them.
    pub fn watch_for_others(&self, cx: &mut Context<'_>) {
        let has_line = |lease: &Lease| lease.backend().may_have_line();
        let may_be_awaited = || {
            self.kept.borrow().iter().any(|upstream| has_line(&upstream.lease))
                || self.http2.borrow().iter().any(|connection| has_line(connection.lease()))
        };
        if self.is_empty() || !may_be_awaited() {
            return;
        }
        self.give_to_others();
        if self.watch.borrow_mut().poll(cx, clock::now() + LOOK_FOR_OTHERS).is_ready() {
            cx.waker().wake_by_ref();
        }
    }

    /// Closes all that are kept.
    pub fn clear(&self) {
        self.kept.take();
        self.http2.take();
    }

    /// True if a request need not wait for a place at this backend.
    pub fn has_place(&self, backend: &Arc<Backend>, is_http2: bool) -> bool {
        if is_http2 && self.http2_to(backend).is_some() {
            return true;
        }
        let places = if is_http2 { &self.makers } else { &self.places };
        places.as_ref().is_none_or(|places| places.of(backend).available_permits() > 0)
    }

    /// Takes a place at this backend, in the order of the calls; the result says too whether it had to be waited for.
    /// `is_http2`: the backend speaks HTTP/2, and the place is for making the connection, if there is none.
    pub async fn place(&self, backend: &Arc<Backend>, is_http2: bool) -> (Option<Place>, bool) {
        if is_http2 && self.http2_to(backend).is_some() {
            return (None, false);
        }
        let Some(places) = (if is_http2 { &self.makers } else { &self.places }) else { return (None, false) };
        let places = places.of(backend);
        match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => (Some(Place { _permit: place }), false),
            Err(_) => (places.acquire_owned().await.ok().map(|place| Place { _permit: place }), true),
        }
    }
}

/// True if other clients wait for the place of this lease.
fn is_awaited(lease: &Lease) -> bool {
    lease.backend().is_awaited()
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
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::pool::AdminState;
    use crate::snapshot::Snapshot;
    use crate::terminate::socket::Socket;
    use crate::terminate::stream::Stream;

    fn snapshot() -> Snapshot {
        Snapshot::of_text(
            "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\ntls = \"off\"\npool = \"p\"\n\
             [[pool]]\nname = \"p\"\nhttp = true\ncheck = \"off\"\nbackend = [\"127.0.0.1:2\", \"127.0.0.1:3\"]\n",
        )
    }

    #[tokio::test]
    async fn connections_to_a_backend_that_drains_are_kept_only_behind_a_client_that_is_known_there() {
        let (snapshot, upstreams) = (snapshot(), Upstreams::default());
        let pool = &snapshot.pools[0];
        let [drained, other] = [0, 1].map(|index| &pool.backends()[index]);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let put = |backend: &Arc<Backend>, is_known| {
            let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            socket.set_nonblocking(true).unwrap();
            let stream = UpstreamStream::Http1(Stream::plain(Socket::new(socket.into()).unwrap()));
            let (lease, first_byte) = (Rc::new(Lease::new(backend)), FirstByte::default());
            let connection = UpstreamConnection { stream, unread: Buffer::default(), lease, place: None, first_byte };
            upstreams.put(connection, false, is_known);
            [drained, other].map(|backend| upstreams.holds(backend))
        };
        assert_eq!([put(drained, false), put(other, false)], [[true, false], [true, true]]);
        assert!(pool.order(drained.name(), AdminState::Drain, 0));
        assert_eq!(put(drained, true), [true, true]);
        assert_eq!(put(other, true), [false, true], "the client is elsewhere");
        assert_eq!(put(drained, false), [false, true], "the next request goes elsewhere");
    }

    #[tokio::test]
    async fn places_of_a_backend_are_given_in_order() {
        let snapshot = snapshot();
        let (backends, upstreams) = (snapshot.pools[0].backends(), Upstreams::with_places(2));
        let [backend, other] = [0, 1].map(|index| &backends[index]);
        let (first, second) = (upstreams.place(backend, false).await, upstreams.place(backend, false).await);
        assert!(!first.1 && !second.1 && !upstreams.place(other, false).await.1);
        let served = RefCell::new(Vec::new());
        let wait = async |number| {
            let (place, waited) = upstreams.place(backend, false).await;
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
        assert!(Upstreams::default().place(backend, false).await.0.is_none(), "one request at a time needs none");
    }
}
