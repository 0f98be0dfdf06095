//! [`Buffer`]: bytes that were read from one stream and not yet written to the other.
//!
//! Decides nothing about them. Memory comes from the thread's free list when bytes arrive and returns to it when the
//! last byte has left, so that idle conversations hold none. Invariant: bytes leave in the order in which they came.

use std::cell::RefCell;
use std::task::{Context, Poll, ready};

use super::stream::{ByteStream, Got};
use crate::fault::Fault;

/// Usual size of a buffer, and the most that one read takes: the longest TLS record (RFC 8446 §5.1).
pub const BUFFER: usize = 16 * 1024;

/// Longest free list of a thread, in buffers.
const FREE_MAX: usize = 64;

thread_local! {
    static FREE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// A first-in, first-out buffer that holds memory only while it holds bytes.
#[derive(Debug, Default)]
pub struct Buffer {
    memory: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// A buffer that begins with bytes read earlier.
    pub fn holding(bytes: Vec<u8>) -> Self {
        let end = bytes.len();
        Self { memory: bytes.into(), start: 0, end }
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

    /// Removes the first `count` bytes.
    pub fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end);
        if self.is_empty() {
            self.free_memory();
        } else if self.memory.len() > BUFFER && self.end - self.start <= BUFFER {
            // A long head has left. The bytes behind it may wait for long, and need only the usual size meanwhile.
            let mut smaller = usual_memory();
            let held = self.end - self.start;
            smaller[..held].copy_from_slice(self.bytes());
            (self.memory, self.start, self.end) = (smaller, 0, held);
        }
    }

    /// Reads bytes behind those it holds, up to `most` in total. `None`: the buffer is full.
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
        }
        if self.is_empty() {
            self.free_memory();
        }
        Poll::Ready(Ok(Some(ready!(got)?)))
    }

    /// Returns the memory to the free list.
    fn free_memory(&mut self) {
        (self.start, self.end) = (0, 0);
        let memory = std::mem::take(&mut self.memory);
        if memory.len() == BUFFER {
            FREE.with_borrow_mut(|free| {
                if free.len() < FREE_MAX {
                    free.push(memory);
                }
            });
        }
    }

    /// Makes room for at least one more byte: moves the bytes to the front, or doubles the memory. False: `most` bytes
    /// are there.
    fn make_room(&mut self, most: usize) -> bool {
        if self.memory.is_empty() {
            self.memory = usual_memory();
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
            let mut larger = vec![0; (self.memory.len() * 2).clamp(BUFFER, most.max(BUFFER))];
            if larger.len() <= held {
                return false;
            }
            larger[..held].copy_from_slice(&self.memory[self.start..self.end]);
            self.memory = larger.into();
        }
        (self.start, self.end) = (0, held);
        true
    }
}

/// Memory of the usual size, from the free list if it has any.
fn usual_memory() -> Box<[u8]> {
    FREE.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; BUFFER].into())
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
