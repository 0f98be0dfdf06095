//! A queue of bytes that lie in one piece.
//!
//! Invariant: bytes come out in the order in which they went in.

/// PeerRead bytes are kept up to here before the rest is moved to the front.
const SLACK: usize = 64 * 1024;

/// The queue.
#[derive(Debug, Default)]
pub struct Bytes {
    data: Vec<u8>,
    start: usize,
}

impl Bytes {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.data.len() - self.start
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts bytes in.
    pub fn push(&mut self, bytes: &[u8]) {
        self.data.extend_from_slice(bytes);
    }

    /// The first so many.
    pub fn front(&self, count: usize) -> &[u8] {
        &self.data[self.start..self.start + count]
    }

    /// Takes the first so many out.
    pub fn skip(&mut self, count: usize) {
        self.start += count;
        if self.is_empty() || self.start > SLACK.max(self.len()) {
            self.data.drain(..self.start);
            self.start = 0;
        }
    }

    /// Keeps the first so many.
    pub fn truncate(&mut self, count: usize) {
        self.data.truncate(self.start + count);
    }
}
