//! [`UpstreamStream`]: what carries a request to its backend: a connection of HTTP/1, or a stream of HTTP/2.
//!
//! Adds nothing to either; bytes are HTTP/1 messages in both directions.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::task::{Context, Poll};

use h2::Reason;

use crate::fault::Fault;
use crate::terminate::byte_stream::{ByteStream, Got};
use crate::terminate::http2::backend::BackendStream;
use crate::terminate::stream::Stream;

/// What carries a request to its backend.
pub enum UpstreamStream {
    /// A connection, with TLS or without.
    Http1(Stream),
    /// A stream on a connection that other requests use, too.
    Http2(Box<BackendStream>),
}

/// Calls the same function of either.
macro_rules! either {
    ($of:expr, $stream:ident => $call:expr) => {
        match $of {
            UpstreamStream::Http1($stream) => $call,
            UpstreamStream::Http2($stream) => $call,
        }
    };
}

impl UpstreamStream {
    /// The code by which the backend has reset the stream; `None`: it has not.
    pub fn reset_reason(&self) -> Option<Reason> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(stream) => stream.reset_reason(),
        }
    }

    /// True for a stream of HTTP/2, of which a backend can say that it has not looked at it, and which ends by itself.
    pub fn is_http2(&self) -> bool {
        matches!(self, Self::Http2(_))
    }
}

impl ByteStream for UpstreamStream {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<Result<Got, Fault>> {
        either!(self, stream => stream.poll_read(cx, into))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, from: &[u8]) -> Poll<Result<usize, Fault>> {
        either!(self, stream => stream.poll_write(cx, from))
    }

    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, from: &[IoSlice<'_>]) -> Poll<Result<usize, Fault>> {
        either!(self, stream => stream.poll_write_vectored(cx, from))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        either!(self, stream => stream.poll_flush(cx))
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        either!(self, stream => stream.poll_finish(cx))
    }

    fn reset_on_drop(&mut self, reset: bool) {
        either!(self, stream => stream.reset_on_drop(reset));
    }

    fn is_bare(&self) -> bool {
        either!(self, stream => stream.is_bare())
    }

    fn poll_splice_in(&mut self, cx: &mut Context<'_>, pipe: BorrowedFd<'_>, most: usize) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_splice_in(cx, pipe, most))
    }

    fn poll_splice_out(&mut self, cx: &mut Context<'_>, pipe: BorrowedFd<'_>, most: usize) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_splice_out(cx, pipe, most))
    }
}
