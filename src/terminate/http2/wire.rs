//! [`Wire`]: the client's stream as h2 reads and writes it.
//!
//! Says in its notes what h2 would only know as an error, or as an end. Counts frames on the way in
//! ([`FrameCounter`]); changes no byte, and buffers none but those that came before h2. Invariant: h2 gets the bytes of a
//! read all or, where one of their frames is too many, none of them.

use std::cell::Cell;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::limits::{Excess, FrameCounter};
use crate::clock;
use crate::fault::Fault;
use crate::terminate::buffer::{BUFFER, Buffer};
use crate::terminate::byte_stream::{ByteStream, Got};

/// How the stream of a connection has ended; nothing while it goes on.
#[derive(Debug, Default)]
pub struct WireNotes {
    /// The stream failed.
    pub fault: Cell<Option<Fault>>,
    /// The client closed its socket without close_notify.
    pub truncated: Cell<bool>,
    /// The client has sent too much of something. Nothing behind it is read.
    pub excess: Cell<Option<Excess>>,
}

/// A stream for h2.
pub struct Wire<S> {
    stream: S,
    /// Bytes that were read before.
    unread: Buffer,
    frames: FrameCounter,
    notes: Rc<WireNotes>,
}

impl<S: ByteStream> Wire<S> {
    /// Takes a stream of which these bytes were read, from the preface on.
    pub fn new(stream: S, unread: Buffer, notes: Rc<WireNotes>) -> Self {
        Self { stream, unread, frames: FrameCounter::new(), notes }
    }

    /// The error for h2, which reports it in words of its own; the notes keep what it was.
    fn fault(&self, fault: Fault) -> io::Error {
        self.notes.fault.set(Some(fault));
        let kind = match fault {
            Fault::Reset | Fault::Cut | Fault::Refused => ErrorKind::ConnectionReset,
            Fault::Gone | Fault::Unreachable => ErrorKind::TimedOut,
            Fault::Tls => ErrorKind::InvalidData,
            Fault::NoMemory => ErrorKind::OutOfMemory,
            Fault::NoPort | Fault::NoDescriptor | Fault::Local | Fault::Other => ErrorKind::Other,
        };
        kind.into()
    }

    /// Counts the frames in bytes that are to be given to h2.
    fn count(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.frames.read(bytes, clock::now()).map_err(|excess| {
            self.notes.excess.set(Some(excess));
            ErrorKind::InvalidData.into()
        })
    }

    /// Reads into memory; 0 bytes are the end of the stream.
    fn poll_read_bytes(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.notes.excess.get().is_some() {
            return Poll::Ready(Err(ErrorKind::InvalidData.into()));
        }
        let count = self.unread.bytes().len().min(into.len());
        if count > 0 {
            into[..count].copy_from_slice(&self.unread.bytes()[..count]);
            self.unread.consume(count);
            return Poll::Ready(self.count(&into[..count]).map(|()| count));
        }
        let got = ready!(self.stream.poll_read(cx, into));
        Poll::Ready(match got {
            Ok(Got::Bytes(count)) => self.count(&into[..count]).map(|()| count),
            Ok(end) => {
                self.notes.truncated.set(end == Got::Truncated);
                Ok(0)
            }
            Err(fault) => Err(self.fault(fault)),
        })
    }

    /// Counts what was written, or notes the fault.
    fn written(&mut self, written: Result<usize, Fault>) -> io::Result<usize> {
        let count = written.map_err(|fault| self.fault(fault))?;
        self.frames.note_written(count);
        Ok(count)
    }
}

impl<S: ByteStream + Unpin> AsyncRead for Wire<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let most = buf.remaining().min(BUFFER);
        if most > 0 {
            let count = ready!(self.poll_read_bytes(cx, buf.initialize_unfilled_to(most)))?;
            buf.advance(count);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: ByteStream + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(self.stream.poll_write(cx, from));
        Poll::Ready(self.written(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.stream.poll_write_vectored(cx, from));
        Poll::Ready(self.written(written))
    }

    /// The head of a frame and its payload leave in one record.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(self.stream.poll_flush(cx));
        Poll::Ready(flushed.map_err(|fault| self.fault(fault)))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let finished = ready!(self.stream.poll_finish(cx));
        Poll::Ready(finished.map_err(|fault| self.fault(fault)))
    }
}

#[cfg(test)]
mod tests;
