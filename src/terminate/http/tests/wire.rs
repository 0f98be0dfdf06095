//! [`Wire`]: a stream in memory, as stingy as a socket: short reads, short writes, and a wake only when something came.
//!
//! It has no TLS, so bytes may also pass through a pipe. The exchange has one end of it; the test does at the other end what a peer does. Invariant: a call that is not ready
//! is woken by the event that it waits for, once, and by nothing else.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::fault::Fault;
use crate::terminate::byte_stream::{ByteStream, Got};

/// How a peer ends its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// It sends no more, and reads on.
    Fin,
    /// It is gone in both directions.
    Reset,
}

/// A stream in memory; clones are the same stream.
#[derive(Clone, Default)]
pub struct Wire(Rc<RefCell<State>>);

#[derive(Default)]
struct State {
    /// What the peer has sent and the exchange has not read.
    coming: VecDeque<u8>,
    /// What the exchange has written and the peer has not read.
    going: VecDeque<u8>,
    /// Most bytes in `going`.
    room: usize,
    /// Most bytes of one read or write.
    piece: usize,
    ended: Option<Ends>,
    /// The exchange has finished sending.
    finished: bool,
    /// Calls of the exchange since they were counted last.
    calls: usize,
    /// Bytes that the exchange has read, and written.
    read: usize,
    written: usize,
    /// Bytes of these that went into a pipe, and came out of one.
    spliced: (usize, usize),
    /// Bytes can be moved into a pipe and not out of one.
    refuses_pipes: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl State {
    fn wake(&mut self) {
        self.reader.take().into_iter().chain(self.writer.take()).for_each(Waker::wake);
    }
}

impl Wire {
    /// A stream with room for `room` bytes towards the peer, in pieces of at most `piece` bytes.
    pub fn new(room: usize, piece: usize) -> Self {
        let wire = Self::default();
        (wire.0.borrow_mut().room, wire.0.borrow_mut().piece) = (room, piece);
        wire
    }

    /// The peer sends bytes.
    pub fn send(&self, bytes: &[u8]) {
        let mut state = self.0.borrow_mut();
        assert!(state.ended.is_none(), "the peer has ended");
        state.coming.extend(bytes);
        state.reader.take().into_iter().for_each(Waker::wake);
    }

    /// The peer reads at most so many bytes.
    pub fn receive(&self, most: usize) -> Vec<u8> {
        let mut state = self.0.borrow_mut();
        let most = most.min(state.going.len());
        let bytes = state.going.drain(..most).collect();
        if most > 0 {
            state.writer.take().into_iter().for_each(Waker::wake);
        }
        bytes
    }

    /// The peer ends its connection. After a reset, what it has sent can still be read, as from a socket.
    pub fn end(&self, ends: Ends) {
        let mut state = self.0.borrow_mut();
        state.ended = Some(ends);
        state.wake();
    }

    /// Bytes that the peer could read now.
    pub fn readable(&self) -> usize {
        self.0.borrow().going.len()
    }

    /// Bytes that the peer has sent and the exchange has not read.
    pub fn unread(&self) -> Vec<u8> {
        self.0.borrow().coming.iter().copied().collect()
    }

    /// The exchange has finished sending.
    pub fn finished(&self) -> bool {
        self.0.borrow().finished
    }

    /// Calls since the last call of this.
    pub fn take_calls(&self) -> usize {
        std::mem::take(&mut self.0.borrow_mut().calls)
    }

    /// Bytes that went from the peer into a pipe, and from a pipe to the peer.
    pub fn spliced(&self) -> (usize, usize) {
        self.0.borrow().spliced
    }

    /// From here on no bytes of a pipe are taken.
    pub fn refuse_pipes(&self) {
        self.0.borrow_mut().refuses_pipes = true;
    }

    /// Bytes that the exchange has read, and written.
    pub fn moved(&self) -> (usize, usize) {
        let state = self.0.borrow();
        (state.read, state.written)
    }
}

impl ByteStream for Wire {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<Result<Got, Fault>> {
        let mut state = self.0.borrow_mut();
        state.calls += 1;
        let count = into.len().min(state.piece).min(state.coming.len());
        if count > 0 {
            for (slot, byte) in into.iter_mut().zip(state.coming.drain(..count)) {
                *slot = byte;
            }
            state.read += count;
            return Poll::Ready(Ok(Got::Bytes(count)));
        }
        match state.ended {
            Some(Ends::Fin) => Poll::Ready(Ok(Got::End)),
            Some(Ends::Reset) => Poll::Ready(Err(Fault::Reset)),
            None => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, from: &[u8]) -> Poll<Result<usize, Fault>> {
        let mut state = self.0.borrow_mut();
        state.calls += 1;
        assert!(!state.finished, "a byte behind the end");
        if state.ended == Some(Ends::Reset) {
            return Poll::Ready(Err(Fault::Reset));
        }
        let count = from.len().min(state.piece).min(state.room - state.going.len());
        if count == 0 {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        state.going.extend(&from[..count]);
        state.written += count;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.0.borrow_mut().calls += 1;
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let mut state = self.0.borrow_mut();
        state.calls += 1;
        if state.ended == Some(Ends::Reset) {
            return Poll::Ready(Err(Fault::Reset));
        }
        state.finished = true;
        Poll::Ready(Ok(()))
    }
    fn is_bare(&self) -> bool {
        true
    }

    fn poll_splice_in(&mut self, cx: &mut Context<'_>, pipe: BorrowedFd<'_>, most: usize) -> Poll<io::Result<usize>> {
        let mut state = self.0.borrow_mut();
        state.calls += 1;
        let count = most.min(state.piece).min(state.coming.len());
        if count > 0 {
            let bytes: Vec<u8> = state.coming.drain(..count).collect();
            assert_eq!(rustix::io::write(pipe, &bytes), Ok(count), "the pipe was not empty");
            state.read += count;
            state.spliced.0 += count;
            return Poll::Ready(Ok(count));
        }
        match state.ended {
            Some(Ends::Fin) => Poll::Ready(Ok(0)),
            Some(Ends::Reset) => Poll::Ready(Err(rustix::io::Errno::CONNRESET.into())),
            // As a socket that was readable before.
            None if state.calls.is_multiple_of(2) => Poll::Ready(Err(io::ErrorKind::WouldBlock.into())),
            None => {
                state.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn poll_splice_out(&mut self, cx: &mut Context<'_>, pipe: BorrowedFd<'_>, most: usize) -> Poll<io::Result<usize>> {
        let mut state = self.0.borrow_mut();
        state.calls += 1;
        assert!(!state.finished, "a byte behind the end");
        if state.refuses_pipes {
            return Poll::Ready(Err(io::ErrorKind::InvalidInput.into()));
        }
        if state.ended == Some(Ends::Reset) {
            return Poll::Ready(Err(rustix::io::Errno::PIPE.into()));
        }
        let count = most.min(state.piece).min(state.room - state.going.len());
        if count == 0 {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut bytes = vec![0; count];
        assert_eq!(rustix::io::read(pipe, &mut bytes), Ok(count), "the pipe holds what was moved into it");
        state.going.extend(&bytes);
        state.written += count;
        state.spliced.1 += count;
        Poll::Ready(Ok(count))
    }
}
