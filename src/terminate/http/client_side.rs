//! [`ClientSide`]: where the rest of a request comes from and its response goes, and [`Http1Client`], the HTTP/1 one.
//!
//! Reads no message. An exchange knows its client only by this trait, so that a stream of another version of HTTP can
//! take the place of a connection; calls are dispatched statically. Invariant: bytes leave in the order in which they
//! came, and none is lost between one exchange and the next.

use std::task::{Context, Poll};

use crate::fault::Fault;
use crate::terminate::buffer::Buffer;
use crate::terminate::bypass::Bypass;
use crate::terminate::byte_stream::{ByteStream, Got};
use crate::terminate::stream::Stream;

/// The client of one exchange. Bytes are HTTP/1 messages in both directions.
pub trait ClientSide {
    /// Bytes behind those that were consumed: the rest of the request, and perhaps the next one.
    fn bytes(&self) -> &[u8];

    /// Removes the first `count` bytes.
    fn consume(&mut self, count: usize);

    /// Reads more bytes, up to `most` in total. `None`: the buffer is full.
    fn poll_read(&mut self, most: usize, cx: &mut Context<'_>) -> Poll<Result<Option<Got>, Fault>>;

    /// Writes bytes of the response; returns how many were taken.
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Fault>>;

    /// Passes on what earlier writes have left in buffers.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>>;

    /// Ends the responses: none follows. The rest of the request can still be read.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>>;

    /// Keeps small what the client's bytes cost that are not read yet.
    fn read_ahead(&mut self, cx: &mut Context<'_>);

    /// Ready once the client has taken back its request, though nothing is read of it.
    fn poll_taken_back(&self, cx: &mut Context<'_>) -> Poll<Fault>;

    /// True if the client can be told that the rest of its request is not wanted.
    fn may_give_up_request(&self) -> bool;

    /// True if the bytes of messages are on the wire as they are, so that a pipe can carry those that nothing reads.
    fn is_bare(&self) -> bool;

    /// Moves some of the next `most` bytes of the request into a pipe; `None`: they are to be read. No byte is unread.
    fn poll_fill(&mut self, bypass: &mut Bypass, most: u64, cx: &mut Context<'_>) -> Option<Poll<Result<Got, Fault>>>;

    /// Moves bytes of the response from a pipe, and returns their number.
    fn poll_drain(&mut self, bypass: &mut Bypass, cx: &mut Context<'_>) -> Poll<Result<usize, Fault>>;
}

/// A client connection that carries requests one after another.
pub struct Http1Client<S = Stream> {
    /// The connection, with TLS or without.
    pub stream: S,
    /// Bytes that were read and not consumed.
    pub unread: Buffer,
}

impl<S: ByteStream> ClientSide for Http1Client<S> {
    fn bytes(&self) -> &[u8] {
        self.unread.bytes()
    }

    fn consume(&mut self, count: usize) {
        self.unread.consume(count);
    }

    fn poll_read(&mut self, most: usize, cx: &mut Context<'_>) -> Poll<Result<Option<Got>, Fault>> {
        self.unread.poll_read(&mut self.stream, most, cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Fault>> {
        self.stream.poll_write(cx, bytes)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.stream.poll_flush(cx)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.stream.poll_finish(cx)
    }

    fn read_ahead(&mut self, cx: &mut Context<'_>) {
        self.stream.read_ahead(cx);
    }

    fn poll_taken_back(&self, cx: &mut Context<'_>) -> Poll<Fault> {
        self.stream.poll_taken_back(cx)
    }

    fn may_give_up_request(&self) -> bool {
        self.stream.may_give_up_request()
    }

    fn is_bare(&self) -> bool {
        self.stream.is_bare()
    }

    fn poll_fill(&mut self, bypass: &mut Bypass, most: u64, cx: &mut Context<'_>) -> Option<Poll<Result<Got, Fault>>> {
        bypass.poll_fill(&mut self.stream, &mut self.unread, most, cx)
    }

    fn poll_drain(&mut self, bypass: &mut Bypass, cx: &mut Context<'_>) -> Poll<Result<usize, Fault>> {
        bypass.poll_drain(&mut self.stream, cx)
    }
}
