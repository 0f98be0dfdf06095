//! [`Buffer`]: bytes that were read from one stream and not yet written to the other.
//!
//! Decides nothing about them. Memory comes from the thread's free list when bytes arrive and returns to it when the
//! last byte has left, so that idle conversations hold none. Invariant: bytes leave in the order in which they came.

use std::cell::RefCell;
use std::task::{Context, Poll, ready};

use super::byte_stream::{ByteStream, Got};
use crate::fault::Fault;

/// Usual size of a buffer: the longest TLS record (RFC 8446 §5.1).
pub const BUFFER: usize = 16 * 1024;

/// Size of a buffer while a body flows: fewer and longer writes cost less.
pub const BULK: usize = 2 * BUFFER;

/// Longest free list of a thread for each of the two sizes, in buffers.
const FREE_MAX: usize = 64;

/// Memory that no buffer of this thread uses, by its size.
#[derive(Default)]
struct Free {
    usual: Vec<Box<[u8]>>,
    bulk: Vec<Box<[u8]>>,
}

impl Free {
    /// The list for memory of a size; `None`: such memory is not kept.
    fn list(&mut self, size: usize) -> Option<&mut Vec<Box<[u8]>>> {
        match size {
            BUFFER => Some(&mut self.usual),
            BULK => Some(&mut self.bulk),
            _ => None,
        }
    }
}

thread_local! {
    static FREE: RefCell<Free> = RefCell::default();
}

/// A first-in, first-out buffer that holds memory only while it holds bytes.
#[derive(Debug, Default)]
pub struct Buffer {
    memory: Box<[u8]>,
    start: usize,
    end: usize,
    /// The last read brought at least what a buffer of the usual size holds.
    is_bulky: bool,
}

impl Buffer {
    /// A buffer that begins with bytes read earlier.
    pub fn holding(bytes: Vec<u8>) -> Self {
        let end = bytes.len();
        Self { memory: bytes.into(), start: 0, end, is_bulky: false }
    }

    /// All bytes, the oldest first.
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }

    /// Memory that is held, in bytes.
    #[cfg(test)]
    pub fn memory(&self) -> usize {
        self.memory.len()
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// True if the last read brought at least what a buffer of the usual size holds.
    pub fn is_bulky(&self) -> bool {
        self.is_bulky
    }

    /// Notes how many bytes a read has brought, also where they have not come into the buffer.
    pub fn note_read(&mut self, count: usize) {
        self.is_bulky = count >= BUFFER;
    }

    /// Removes the first `count` bytes.
    pub fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end);
        if self.is_empty() {
            self.free_memory();
        } else if self.memory.len() > BUFFER && self.end - self.start <= BUFFER {
            // A long head has left. The bytes behind it may wait for long, and need only the usual size meanwhile.
            let mut smaller = memory(BUFFER);
            let held = self.end - self.start;
            smaller[..held].copy_from_slice(self.bytes());
            give_back(std::mem::replace(&mut self.memory, smaller));
            (self.start, self.end) = (0, held);
        }
    }

    /// Reads bytes behind those it holds, up to `most` in total. `None`: the buffer is full. A buffer of [`BULK`] bytes
    /// is used where `most` allows it and the read before has filled one of the usual size.
    pub fn poll_read(
        &mut self,
        stream: &mut impl ByteStream,
        most: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Got>, Fault>> {
        if !self.make_room(most) {
            return Poll::Ready(Ok(None));
        }
        let got = stream.poll_read(cx, &mut self.memory[self.end..]);
        if let Poll::Ready(Ok(Got::Bytes(n))) = got {
            self.end += n;
            self.note_read(n);
        }
        if self.is_empty() {
            self.free_memory();
        }
        Poll::Ready(Ok(Some(ready!(got)?)))
    }

    /// Returns the memory to the free list.
    fn free_memory(&mut self) {
        (self.start, self.end) = (0, 0);
        give_back(std::mem::take(&mut self.memory));
    }

    /// Makes room for at least one more byte: moves the bytes to the front, or doubles the memory. False: `most` bytes
    /// are there.
    fn make_room(&mut self, most: usize) -> bool {
        if self.memory.is_empty() {
            self.memory = memory(if self.is_bulky && most >= BULK { BULK } else { BUFFER });
            return true;
        }
        if self.end < self.memory.len() {
            return self.end - self.start < most;
        }
        let held = self.end - self.start;
        if held >= most {
            return false;
        }
        if self.start > 0 && held <= self.memory.len() / 2 {
            self.memory.copy_within(self.start..self.end, 0);
        } else {
            let size = (self.memory.len() * 2).clamp(BUFFER, most.max(BUFFER));
            if size <= held {
                return false;
            }
            let mut larger = memory(size);
            larger[..held].copy_from_slice(&self.memory[self.start..self.end]);
            give_back(std::mem::replace(&mut self.memory, larger));
        }
        (self.start, self.end) = (0, held);
        true
    }
}

/// Memory of a size, from the free list if it has any.
fn memory(size: usize) -> Box<[u8]> {
    FREE.with_borrow_mut(|free| free.list(size)?.pop()).unwrap_or_else(|| vec![0; size].into())
}

/// Returns memory to the free list.
fn give_back(memory: Box<[u8]>) {
    FREE.with_borrow_mut(|free| {
        if let Some(list) = free.list(memory.len()).filter(|list| list.len() < FREE_MAX) {
            list.push(memory);
        }
    });
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.free_memory();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_held_only_while_bytes_are() {
        let mut buffer = Buffer::holding(b"abc".to_vec());
        assert_eq!(buffer.bytes(), b"abc");
        buffer.consume(1);
        assert_eq!(buffer.bytes(), b"bc");
        assert!(buffer.make_room(BUFFER));
        buffer.memory[buffer.end] = b'd';
        buffer.end += 1;
        assert_eq!(buffer.bytes(), b"bcd");
        buffer.consume(3);
        assert!(buffer.memory.is_empty() && buffer.is_empty());
    }

    #[test]
    fn it_grows_to_what_it_may_hold_and_no_further() {
        let mut buffer = Buffer::holding(vec![1; BUFFER]);
        assert!(!buffer.make_room(BUFFER));
        assert!(buffer.make_room(2 * BUFFER));
        buffer.end = buffer.memory.len();
        assert!(!buffer.make_room(2 * BUFFER));
        assert_eq!(buffer.bytes().len(), 2 * BUFFER);
    }

    /// A stream that always has as many bytes as it is asked for, up to a limit.
    struct Source(usize);

    impl ByteStream for Source {
        fn poll_read(&mut self, _: &mut Context<'_>, into: &mut [u8]) -> Poll<Result<Got, Fault>> {
            Poll::Ready(Ok(Got::Bytes(into.len().min(self.0))))
        }

        fn poll_write(&mut self, _: &mut Context<'_>, _: &[u8]) -> Poll<Result<usize, Fault>> {
            unreachable!("nothing is written")
        }

        fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
            unreachable!("nothing is written")
        }

        fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
            unreachable!("nothing is written")
        }
    }

    /// Reads once and takes everything out; returns the size of the memory that was used.
    fn used(buffer: &mut Buffer, there: usize, most: usize) -> usize {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(buffer.poll_read(&mut Source(there), most, &mut cx).is_ready());
        let memory = buffer.memory();
        buffer.consume(buffer.bytes().len());
        assert_eq!(buffer.memory(), 0, "an empty buffer holds nothing");
        memory
    }

    #[test]
    fn a_body_that_fills_buffers_gets_larger_ones_for_as_long_as_it_flows() {
        let mut buffer = Buffer::default();
        assert_eq!(used(&mut buffer, BUFFER - 1, BULK), BUFFER);
        assert_eq!(used(&mut buffer, usize::MAX, BULK), BUFFER, "the read before has not filled it");
        assert_eq!(used(&mut buffer, usize::MAX, BULK), BULK);
        assert_eq!(used(&mut buffer, usize::MAX, BUFFER), BUFFER, "no more than it may hold");
        assert_eq!(used(&mut buffer, 100, BULK), BULK);
        assert_eq!(used(&mut buffer, usize::MAX, BULK), BUFFER, "the body has paused");
    }

    #[test]
    fn it_shrinks_when_what_made_it_grow_has_left() {
        let bytes: Vec<u8> = (0..2 * BUFFER).map(|at| (at >> 8) as u8).collect();
        let mut buffer = Buffer::holding(bytes.clone());
        buffer.consume(BUFFER - 1);
        assert_eq!(buffer.memory.len(), 2 * BUFFER);
        buffer.consume(2);
        assert_eq!(buffer.memory.len(), BUFFER);
        assert_eq!(buffer.bytes(), &bytes[BUFFER + 1..]);
        assert!(buffer.make_room(BUFFER));
    }
}
