//! [`ByteStream`]: what an exchange, a relay and their buffers ask of a stream, and what a pipe beside them asks; and
//! [`ClientStream`], what requests ask of their client besides.
//!
//! Knows no socket and no TLS (`stream.rs` does). Invariant: an end is told apart from a cut.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::task::{Context, Poll};

use h2::Reason;

use crate::fault::{Endpoint, Fault};
use crate::outcome::Ended;

/// Result of reading from a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Got {
    /// This many bytes were read, at least one.
    Bytes(usize),
    /// The peer has finished sending.
    End,
    /// The peer closed its socket without close_notify (RFC 8446 §6.1): the bytes may be incomplete.
    Truncated,
}

/// What an exchange and its buffers ask of a stream. Calls are dispatched statically; a test puts memory in the place of
/// sockets.
pub trait ByteStream {
    /// Reads bytes into the buffer.
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<Result<Got, Fault>>;

    /// Writes some of the bytes; `poll_flush` sends what is held back.
    fn poll_write(&mut self, cx: &mut Context<'_>, from: &[u8]) -> Poll<Result<usize, Fault>>;

    /// Writes some of the bytes of several buffers, in order: in one record and with one call where that can be.
    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, from: &[IoSlice<'_>]) -> Poll<Result<usize, Fault>> {
        let first = from.iter().find(|slice| !slice.is_empty());
        self.poll_write(cx, first.map_or(&[][..], |slice| &**slice))
    }

    /// Sends what earlier writes have left in buffers.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>>;

    /// Ends sending; the peer may go on.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>>;

    /// Sets whether dropping the stream tells the peer that what it was sent is not whole.
    fn reset_on_drop(&mut self, _reset: bool) {}

    /// Ready once the peer has taken back what it asked for, though nothing is read of it.
    fn poll_taken_back(&self, _cx: &mut Context<'_>) -> Poll<Fault> {
        Poll::Pending
    }

    /// True if the peer can be told that the rest of its request is not wanted, without an end of its connection.
    fn may_give_up_request(&self) -> bool {
        false
    }

    /// True if the bytes on the wire are those of the stream: it has no TLS, and a pipe can carry them.
    fn is_bare(&self) -> bool {
        false
    }

    /// Takes bytes that have come, to be read later in order, from where they cost more than their number.
    fn read_ahead(&mut self, _cx: &mut Context<'_>) {}

    /// Moves bytes of a bare stream into an empty pipe, at most `most`. 0 and `WouldBlock`: only
    /// [`Self::poll_read`] can tell what there is.
    fn poll_splice_in(
        &mut self,
        _cx: &mut Context<'_>,
        _pipe: BorrowedFd<'_>,
        _most: usize,
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::InvalidInput.into()))
    }

    /// Moves some of `most` bytes from a pipe, which holds them, to a bare stream.
    fn poll_splice_out(
        &mut self,
        _cx: &mut Context<'_>,
        _pipe: BorrowedFd<'_>,
        _most: usize,
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::InvalidInput.into()))
    }
}

/// What carries requests of a client: its connection, or one stream of HTTP/2. Bytes are HTTP/1 messages in both
/// directions. Calls are dispatched statically.
pub trait ClientStream: ByteStream {
    /// Waits until the client has gone; reads nothing.
    fn broken(&self) -> impl Future<Output = Fault>;

    /// Waits until the client has left what it waits for in a line: it has gone, or has finished sending.
    fn gone(&self) -> impl Future<Output = Ended> {
        async { self.broken().await.ending(Endpoint::Client) }
    }

    /// Awaits what the client waits for.
    fn meanwhile<T>(&self, work: impl Future<Output = T>) -> impl Future<Output = T>;

    /// Notes the code of HTTP/2 by which the backend has reset its stream. True: the client learns it by the drop of this
    /// one, if what it was sent is not whole.
    fn note_reset(&mut self, _reason: Reason) -> bool {
        false
    }

    /// Reads no more of the request, if the client can be told so: its response is complete.
    fn give_up_request(&mut self) {}

    /// Lets the client read the last word that it was sent, before the stream is dropped.
    fn linger(&mut self) -> impl Future<Output = ()>;
}
