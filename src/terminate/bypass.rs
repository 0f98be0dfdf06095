//! [`Bypass`]: one more way to move bytes from a stream to another: through a pipe (splice(2)), so that they are neither
//! read nor copied here.
//!
//! Decides about no byte: a direction asks for it where nothing has to read what comes next and both streams are bare.
//! Invariants: bytes enter only an empty pipe, so a receiver that takes nothing costs at most one pipe; nothing behind
//! them is read before they have left. Where there is no pipe, or the kernel does not splice, the bytes are copied.

use std::io;
use std::task::{Context, Poll, ready};

use super::buffer::Buffer;
use super::byte_stream::{ByteStream, Got};
use super::pipe::{PIPE_BYTES, SplicePipe};
use crate::fault::Fault;

/// Bytes that are still to come in one piece, at least, to be worth a pipe. A pipe never takes more than these.
const LEAST: u64 = PIPE_BYTES as u64;

/// The pipe of one direction, while bytes are in it.
#[derive(Debug, Default)]
pub struct Bypass {
    pipe: Option<SplicePipe>,
    /// Bytes that the kernel would not move from the pipe to the receiver.
    rest: Buffer,
    /// The kernel does not splice these streams.
    is_refused: bool,
}

impl Bypass {
    /// True if no byte is on its way.
    pub fn is_empty(&self) -> bool {
        self.pipe.is_none() && self.rest.is_empty()
    }

    /// Moves bytes of the sender into a pipe, of the next `most` that nothing has to read. `None`: they are to be read
    /// into `unread`, which is empty, because they are few, trickle, or cannot be moved.
    pub fn poll_fill(
        &mut self,
        from: &mut impl ByteStream,
        unread: &mut Buffer,
        most: u64,
        cx: &mut Context<'_>,
    ) -> Option<Poll<Result<Got, Fault>>> {
        debug_assert!(self.is_empty() && unread.is_empty());
        if most < LEAST || !unread.is_bulky() || self.is_refused {
            return None;
        }
        let mut pipe = SplicePipe::take()?;
        match from.poll_splice_in(cx, pipe.input(), PIPE_BYTES) {
            Poll::Ready(Ok(count @ 1..)) => {
                pipe.filled(count);
                unread.note_read(count);
                self.pipe = Some(pipe);
                Some(Poll::Ready(Ok(Got::Bytes(count))))
            }
            other => {
                pipe.give_back();
                self.of_other(other)
            }
        }
    }

    /// What a call means that has moved nothing into the pipe.
    fn of_other(&mut self, answer: Poll<io::Result<usize>>) -> Option<Poll<Result<Got, Fault>>> {
        match answer {
            Poll::Pending => Some(Poll::Pending),
            // The end, or an urgent byte before the end, at which splice(2) stops for good: recv(2) tells which.
            Poll::Ready(Ok(_)) => None,
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => None,
            Poll::Ready(Err(error)) if is_refusal(&error) => {
                self.is_refused = true;
                None
            }
            Poll::Ready(Err(error)) => Some(Poll::Ready(Err(Fault::of_io(&error)))),
        }
    }

    /// Moves bytes from the pipe to the receiver, and returns their number.
    pub fn poll_drain(&mut self, to: &mut impl ByteStream, cx: &mut Context<'_>) -> Poll<Result<usize, Fault>> {
        let Some(pipe) = &mut self.pipe else {
            let count = ready!(to.poll_write(cx, self.rest.bytes()))?;
            self.rest.consume(count);
            return Poll::Ready(Ok(count));
        };
        let moved = match ready!(to.poll_splice_out(cx, pipe.output(), pipe.held())) {
            Ok(count @ 1..) => {
                pipe.emptied(count);
                count
            }
            // The pipe is never empty here, so a zero would be a broken promise of the kernel's.
            Ok(_) => return Poll::Ready(Err(Fault::Other)),
            Err(error) if is_refusal(&error) => {
                self.is_refused = true;
                self.rest = Buffer::holding(pipe.read_out().map_err(|error| Fault::of_io(&error))?);
                0
            }
            Err(error) => return Poll::Ready(Err(Fault::of_io(&error))),
        };
        if pipe.held() == 0 {
            self.pipe.take().into_iter().for_each(SplicePipe::give_back);
        }
        Poll::Ready(Ok(moved))
    }
}

/// True for the answer of a kernel that does not splice a kind of socket (splice(2)).
fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidInput
}
