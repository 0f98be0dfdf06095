//! [`Wire`]: the stream of a client or a backend as h2 reads and writes it.
//!
//! Says in its notes what h2 would only know as an error, or as an end. Counts frames on the way in
//! ([`FrameCounter`]); changes no byte, and buffers none but those that came before h2. Invariant: h2 gets the bytes of a
//! read all or, where one of their frames is too many, none of them.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::limits::{Excess, FrameCounter, ResetCounter};
use crate::clock::{self, Micros};
use crate::fault::Fault;
use crate::terminate::buffer::{BUFFER, Buffer};
use crate::terminate::byte_stream::{ByteStream, Got};
use crate::terminate::stream::Stream;
use crate::terminate::turns::give_way;

/// Reads before other tasks have a turn.
const READS: usize = 8;
/// Frames before other tasks have a turn, and before what h2 answers to them is written and counted: a small frame costs
/// h2 many times what it has cost its sender.
const FRAMES: u64 = 128;
/// Bytes of a read while frames are small.
const SMALL_READ: usize = 4 * 1024;
/// Mean length of frames that are not small.
const LARGE_FRAME: u64 = 512;

/// How the stream of a connection has ended; nothing while it goes on.
#[derive(Debug, Default)]
pub struct WireNotes {
    /// The stream failed.
    pub fault: Cell<Option<Fault>>,
    /// The client closed its socket without close_notify.
    pub truncated: Cell<bool>,
    /// The client has sent too much of something. Nothing behind it is read.
    pub excess: Cell<Option<Excess>>,
    /// When the head began that is not complete; `None`: there is none.
    pub head_began: Cell<Option<Micros>>,
    /// Streams that were reset by this process and are not counted yet.
    pub resets: Cell<u64>,
    /// The settings of a backend have come, or none will; or a client has acknowledged those of this process.
    pub settled: Cell<bool>,
    /// Wait for that.
    waiting: RefCell<Vec<Waker>>,
    /// GOAWAY was written with the words of h2 for too many resets, which its error no longer has.
    pub too_many_resets: Cell<bool>,
}

impl WireNotes {
    /// Ready once `settled` is true.
    pub fn poll_settings(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.settled.get() {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Wakes those that wait for it. Must be called behind h2, which has looked at the frame by then.
    pub fn wake_those_that_wait(&self) {
        if self.settled.get() {
            self.waiting.take().into_iter().for_each(Waker::wake);
        }
    }
}

/// The client's stream, which is kept for the last words behind h2.
pub struct SharedStream(pub Rc<RefCell<Stream>>);

impl ByteStream for SharedStream {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<Result<Got, Fault>> {
        self.0.borrow_mut().poll_read(cx, into)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, from: &[u8]) -> Poll<Result<usize, Fault>> {
        self.0.borrow_mut().poll_write(cx, from)
    }

    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, from: &[IoSlice<'_>]) -> Poll<Result<usize, Fault>> {
        self.0.borrow_mut().poll_write_vectored(cx, from)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.0.borrow_mut().poll_flush(cx)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.0.borrow_mut().poll_finish(cx)
    }
}

/// A stream for h2.
pub struct Wire<S> {
    stream: S,
    /// Bytes that were read before.
    unread: Buffer,
    frames: FrameCounter,
    sent: ResetCounter,
    /// The client has sent too much of something: it may still be told.
    is_over: bool,
    turn: ReadTurn,
    notes: Rc<WireNotes>,
}

/// What h2 may be given before other tasks have a turn.
struct ReadTurn {
    reads: usize,
    frames: u64,
    /// Most bytes of the next read.
    most: usize,
}

impl ReadTurn {
    /// The state before the first read: a flood may come at once.
    fn new() -> Self {
        Self { reads: 0, frames: 0, most: SMALL_READ }
    }

    fn is_over(&self) -> bool {
        self.reads == READS || self.frames >= FRAMES
    }

    fn begin(&mut self) {
        (self.reads, self.frames) = (0, 0);
    }

    /// Counts what a read has brought.
    fn note(&mut self, bytes: usize, frames: u64) {
        self.frames += frames;
        if (bytes as u64) < frames * LARGE_FRAME {
            self.most = SMALL_READ;
        } else if bytes == self.most {
            self.most = (2 * self.most).min(BUFFER);
        }
    }
}

impl<S: ByteStream> Wire<S> {
    /// Takes a stream of which these bytes were read, from the preface on.
    pub fn new(stream: S, unread: Buffer, notes: Rc<WireNotes>) -> Self {
        Self {
            stream,
            unread,
            frames: FrameCounter::new(),
            sent: ResetCounter::new(),
            is_over: false,
            turn: ReadTurn::new(),
            notes,
        }
    }

    /// Takes a stream to a backend, of which nothing was read.
    pub fn to_backend(stream: S, notes: Rc<WireNotes>) -> Self {
        Self {
            frames: FrameCounter::of_backend(),
            sent: ResetCounter::to_backend(),
            ..Self::new(stream, Buffer::default(), notes)
        }
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
            // What the crate itself finds out is no fault of its stream.
            Fault::StreamReset | Fault::Unprocessed | Fault::Frames => ErrorKind::Other,
        };
        kind.into()
    }

    /// Counts the frames in bytes that are to be given to h2. Pending: it gets none of them, and no others.
    fn count(&mut self, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let now = clock::now();
        if let Err(excess) = self.frames.read(bytes, now) {
            self.notes.excess.set(Some(excess));
            self.is_over = true;
            return Poll::Pending;
        }
        self.turn.note(bytes.len(), self.frames.take_frames());
        self.notes.head_began.set(self.frames.head_began());
        self.notes.settled.set(self.frames.has_settings() || self.notes.settled.get());
        Poll::Ready(Ok(bytes.len()))
    }

    /// Reads into memory; 0 bytes are the end of the stream.
    fn poll_read_bytes(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.is_over {
            return Poll::Pending;
        }
        if self.turn.is_over() {
            self.turn.begin();
            give_way(cx);
            return Poll::Pending;
        }
        self.turn.reads += 1;
        let count = self.unread.bytes().len().min(into.len());
        if count > 0 {
            into[..count].copy_from_slice(&self.unread.bytes()[..count]);
            self.unread.consume(count);
            return self.count(&into[..count]);
        }
        let Poll::Ready(got) = self.stream.poll_read(cx, into) else {
            self.turn.begin();
            return Poll::Pending;
        };
        match got {
            Ok(Got::Bytes(count)) => self.count(&into[..count]),
            Ok(end) => {
                self.notes.truncated.set(end == Got::Truncated);
                Poll::Ready(Ok(0))
            }
            Err(fault) => Poll::Ready(Err(self.fault(fault))),
        }
    }

    /// Counts what was written, or notes the fault.
    fn written(&mut self, written: Result<usize, Fault>, from: &[IoSlice<'_>]) -> io::Result<usize> {
        let count = written.map_err(|fault| self.fault(fault))?;
        if from.iter().rfind(|piece| !piece.is_empty()).is_some_and(|last| last.ends_with(b"_resets")) {
            self.notes.too_many_resets.set(true);
        }
        let (now, mut rest) = (clock::now(), count);
        for slice in from {
            let bytes = &slice[..slice.len().min(rest)];
            rest -= bytes.len();
            if let Err(excess) = self.sent.read(bytes, now)
                && !std::mem::replace(&mut self.is_over, true)
            {
                self.notes.excess.set(Some(excess));
            }
        }
        self.frames.note_written(count, self.sent.take_data_frames());
        self.notes.resets.set(self.notes.resets.get() + self.sent.take_resets());
        Ok(count)
    }
}

impl<S: ByteStream + Unpin> AsyncRead for Wire<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let most = buf.remaining().min(self.turn.most);
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
        Poll::Ready(self.written(written, &[IoSlice::new(from)]))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.stream.poll_write_vectored(cx, from));
        Poll::Ready(self.written(written, from))
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
