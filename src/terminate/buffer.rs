//! Bytes on their way: what was read from one stream and not yet taken by the other.
//!
//! Decides nothing about them. Memory comes from the thread's store when bytes arrive and goes back when the last one
//! has left, so that who is idle holds none. Invariant: bytes leave in the order in which they came.

use std::cell::RefCell;
use std::task::{Context, Poll, ready};

use super::stream::{Got, Stream};
use crate::fault::Fault;

/// One read takes at most so much: a TLS record.
pub const BUFFER: usize = 16 * 1024;

/// Free buffers that a thread keeps.
const FREE_MAX: usize = 64;

thread_local! {
    static FREE: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// Bytes on their way.
#[derive(Debug, Default)]
pub struct Buffer {
    memory: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// One that begins with bytes read earlier.
    pub fn holding(bytes: Vec<u8>) -> Self {
        let end = bytes.len();
        Self { memory: bytes.into(), start: 0, end }
    }

    /// What is there.
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }

    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The first `count` bytes have left.
    pub fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end);
        if self.is_empty() {
            self.rest();
        } else if self.memory.len() > BUFFER && self.end - self.start <= BUFFER {
            // A long head has left; what follows it may have to wait, and shall not hold its room meanwhile.
            let mut smaller = free();
            let held = self.end - self.start;
            smaller[..held].copy_from_slice(self.bytes());
            (self.memory, self.start, self.end) = (smaller, 0, held);
        }
    }

    /// Reads what fits behind what is there, up to `most` bytes altogether. `None`: it is full.
    pub fn poll_read(
        &mut self,
        stream: &mut Stream,
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
            self.rest();
        }
        Poll::Ready(Ok(Some(ready!(got)?)))
    }

    /// Gives the memory back.
    fn rest(&mut self) {
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

    fn make_room(&mut self, most: usize) -> bool {
        if self.memory.is_empty() {
            self.memory = free();
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

/// Room of the usual size.
fn free() -> Box<[u8]> {
    FREE.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; BUFFER].into())
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.rest();
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
