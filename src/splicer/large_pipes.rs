//! [`LargePipes`]: the large pipes that the workers of a process may have together.
//!
//! Makes no pipe. Invariant: a place is taken before a pipe is made large and given back after it is closed, so no more
//! than `most` pipes are large. Bytes that a pair has brought out of a large pipe take a place even beyond `most`. So what
//! all directions hold is at most `most` times [`LargePipes::bytes`], and `COPY_BYTES` for each of the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The places for large pipes.
#[derive(Debug, Default)]
pub struct LargePipes {
    bytes: u32,
    most: usize,
    held: AtomicUsize,
}

impl LargePipes {
    /// Places for so many pipes, each of this many bytes.
    pub fn new(bytes: u32, most: usize) -> Self {
        Self { bytes, most, held: AtomicUsize::new(0) }
    }

    /// Size of a large pipe, in bytes.
    pub fn bytes(&self) -> u32 {
        self.bytes
    }

    /// Number of places that are taken.
    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// True if more than half of the places are taken.
    pub(super) fn are_scarce(&self) -> bool {
        2 * self.held() > self.most
    }

    /// Takes a place for a pipe; false: none is free.
    pub(super) fn reserve(&self) -> bool {
        self.held.fetch_update(Relaxed, Relaxed, |held| (held < self.most).then_some(held + 1)).is_ok()
    }

    /// Gives places back.
    pub(super) fn release(&self, count: usize) {
        self.held.fetch_sub(count, Relaxed);
    }

    /// Takes a place for bytes that are there already.
    pub fn charge(self: &Arc<Self>) -> Charge {
        self.held.fetch_add(1, Relaxed);
        Charge(Arc::clone(self))
    }
}

/// The place of bytes that came out of a large pipe; dropping gives it back.
#[derive(Debug)]
pub struct Charge(Arc<LargePipes>);

impl Drop for Charge {
    fn drop(&mut self) {
        self.0.release(1);
    }
}
