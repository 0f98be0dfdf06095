//! HTTP/2 with a backend (RFC 9113): the connection of one client to it, on which each request is a stream.
//!
//! ```text
//! http/ (exchange) ─┬─ stream.rs: HTTP/1 inside ─┬─ the crate h2 ─ wire.rs ─ backend
//!                   └─ stream.rs: …             ─┘  driven by a task of the client's thread
//! ```
//!
//! The mirror of what serves clients of HTTP/2. Places no request and repeats none. Invariants: no other client ever uses
//! the connection; it ends with the last of those that hold it, its streams among them; what a backend can make this
//! process hold is bounded by [`STREAM_WINDOW`] a stream.

mod request;
mod stream;

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use tokio::sync::oneshot;

use super::settings::HEADER_LIST_MAX;
use super::stream::SEND_BUFFER;
use super::wire::{Wire, WireNotes};
use crate::fault::Fault;
use crate::pool::Lease;
use crate::terminate::byte_stream::ByteStream as _;
use crate::terminate::deadline::LINGER;
use crate::terminate::stream::Stream;

pub use self::request::can_carry;
pub use self::stream::BackendStream;

/// Bytes of one response that the backend may send before the client has taken some.
const STREAM_WINDOW: u32 = 64 * 1024;

/// Streams that were given up and of which frames may still be under way.
const RESETS_REMEMBERED: usize = 200;

/// A connection of HTTP/2 to a backend.
pub struct BackendConnection {
    requests: SendRequest<Bytes>,
    lease: Rc<Lease>,
    is_secure: bool,
    notes: Rc<WireNotes>,
    /// Tells the task by its drop that no request uses the connection any more.
    _held: oneshot::Sender<()>,
}

impl BackendConnection {
    /// Begins HTTP/2 with a backend that is connected; `streams`: how many requests the client may have at once. Must run
    /// on the thread of the client's conversation.
    pub async fn begin(mut stream: Stream, lease: Rc<Lease>, streams: u32) -> Result<Rc<Self>, Fault> {
        // Streams tell the backend what is cut.
        stream.socket().reset_on_drop(false);
        let (is_secure, notes) = (!stream.is_bare(), Rc::new(WireNotes::default()));
        let wire = Wire::to_backend(stream, Rc::clone(&notes));
        let begun = builder(streams).handshake(wire).await;
        let (requests, connection) = begun.map_err(|_| notes.fault.get().unwrap_or(Fault::Reset))?;
        let (held, released) = oneshot::channel();
        tokio::task::spawn_local(drive(connection, Rc::clone(&notes), released));
        Ok(Rc::new(Self { requests, lease, is_secure, notes, _held: held }))
    }

    /// Counts the connection at its backend.
    pub fn lease(&self) -> &Rc<Lease> {
        &self.lease
    }

    /// True if a request may begin on the connection: it has not failed, and the backend has not announced its end.
    pub fn is_open(&self) -> bool {
        let mut requests = self.requests.clone();
        let failed = matches!(requests.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Err(_)));
        !failed && self.notes.excess.get().is_none() && !self.lease.backend().closing()
    }

    /// A stream for one request.
    pub fn stream(self: &Rc<Self>) -> BackendStream {
        BackendStream::new(Rc::clone(self))
    }
}

fn builder(streams: u32) -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        // A client that leaves one response unread cannot stop the others.
        .initial_connection_window_size(STREAM_WINDOW * streams.max(1))
        .max_header_list_size(HEADER_LIST_MAX)
        .max_send_buffer_size(SEND_BUFFER)
        // Clients that leave responses of many small messages unread cannot stop the others either.
        .data_frame_budget(2 * (STREAM_WINDOW * streams.max(1)) as usize)
        // Clients may give up any number of requests.
        .max_concurrent_reset_streams(RESETS_REMEMBERED)
        .max_local_error_reset_streams(None)
        .enable_push(false);
    builder
}

/// Reads and writes frames until the connection ends, or sends too much; once no request uses it, for no longer than a
/// peer gets to hear the last word.
async fn drive(connection: Connection<Wire<Stream>, Bytes>, notes: Rc<WireNotes>, released: oneshot::Receiver<()>) {
    let mut connection = pin!(connection);
    let over = poll_fn(|cx| match connection.as_mut().poll(cx) {
        Poll::Pending if notes.excess.get().is_none() => {
            notes.wake_those_that_wait();
            Poll::Pending
        }
        // Streams learn of it by the drop of the connection.
        _ => Poll::Ready(()),
    });
    let left = async {
        let _ = released.await;
        tokio::time::sleep(Duration::from_micros(LINGER)).await;
    };
    tokio::select! {
        () = over => {}
        () = left => {}
    }
    notes.settled.set(true);
    notes.wake_those_that_wait();
}
