//! [`HeldBytes`]: bytes that were read before a connection has a backend, and [`HelloMemory`], the memory of all of them.
//!
//! Reads no socket and knows no hello. Memory is taken as bytes come, never ahead of them. A buffer of up to
//! [`UNCOUNTED`] bytes is free of the limit: an ordinary hello is served also while others have used up the memory.
//! Invariant: the count is the sum of the capacities of all longer buffers, and never exceeds the limit that was in
//! force when a buffer grew.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::counters::Padded;
use crate::outcome::Ended;

/// A buffer of this many bytes is not counted: the hellos of nearly all clients, and every PROXY header.
pub const UNCOUNTED: usize = 4 * 1024;

/// The memory of all [`HeldBytes`] of the process, with its limit.
#[derive(Debug)]
pub struct HelloMemory {
    held: Padded<AtomicUsize>,
    most: AtomicUsize,
}

impl Default for HelloMemory {
    fn default() -> Self {
        Self { held: Padded::default(), most: AtomicUsize::new(usize::MAX) }
    }
}

impl HelloMemory {
    /// Sets the limit in bytes; buffers above a new limit stay.
    pub fn limit(&self, most: usize) {
        self.most.store(most, Relaxed);
    }

    /// Bytes that are counted now.
    pub fn held(&self) -> usize {
        self.held.0.load(Relaxed)
    }

    /// The limit in bytes.
    pub fn most(&self) -> usize {
        self.most.load(Relaxed)
    }

    /// Counts more bytes; false: the limit would be exceeded, and nothing is counted.
    fn take(&self, bytes: usize) -> bool {
        let most = self.most();
        let fits = |held: usize| held.checked_add(bytes).filter(|sum| *sum <= most);
        self.held.0.fetch_update(Relaxed, Relaxed, fits).is_ok()
    }
}

/// Bytes of one connection, read ahead; dropping them gives their memory back.
#[derive(Debug, Default)]
pub struct HeldBytes {
    bytes: Vec<u8>,
    counted: usize,
    /// Where `counted` is counted; `None`: it is 0.
    memory: Option<Arc<HelloMemory>>,
}

impl HeldBytes {
    /// Adds bytes behind those that are there. Fails if the memory of all hellos is used up; nothing is added then.
    pub fn add(&mut self, more: &[u8], memory: &Arc<HelloMemory>) -> Result<(), Ended> {
        let needed = self.bytes.len() + more.len();
        if needed > self.bytes.capacity() {
            // Doubled, so that each byte is moved a bounded number of times, however few come at once.
            let capacity = needed.max(2 * self.bytes.capacity());
            if capacity > UNCOUNTED {
                if !memory.take(capacity - self.counted) {
                    return Err(Ended::HelloMemory);
                }
                self.counted = capacity;
                self.memory.get_or_insert_with(|| Arc::clone(memory));
            }
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(more);
        Ok(())
    }

    /// Removes the first bytes.
    pub fn remove_first(&mut self, count: usize) {
        self.bytes.drain(..count);
    }

    /// The bytes alone, which are not counted any more.
    pub fn into_vec(mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    /// An empty buffer for another connection, with this memory if it is little.
    pub fn emptied(mut self) -> Self {
        let mut bytes = std::mem::take(&mut self.bytes);
        if bytes.capacity() > UNCOUNTED {
            return Self::default();
        }
        bytes.clear();
        Self { bytes, counted: 0, memory: None }
    }
}

impl Deref for HeldBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        if let Some(memory) = &self.memory {
            memory.held.0.fetch_sub(self.counted, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(most: usize) -> Arc<HelloMemory> {
        let memory = Arc::new(HelloMemory::default());
        memory.limit(most);
        memory
    }

    #[test]
    fn memory_is_taken_as_bytes_come_and_moved_a_bounded_number_of_times() {
        let memory = memory(usize::MAX);
        let mut held = HeldBytes::default();
        assert_eq!(held.bytes.capacity(), 0);
        held.add(&[1; 300], &memory).unwrap();
        assert!(held.bytes.capacity() < 600, "{}", held.bytes.capacity());
        let counted = allocation_counter::measure(|| {
            for _ in 300..64 * 1024 {
                held.add(&[2], &memory).unwrap();
            }
        });
        assert_eq!(held.len(), 64 * 1024);
        assert!(counted.bytes_total < 4 * 64 * 1024, "{counted:?}");
        assert_eq!(memory.held(), held.bytes.capacity());
    }

    #[test]
    fn the_memory_of_all_has_a_limit_and_comes_back() {
        let memory = memory(100_000);
        let mut first = HeldBytes::default();
        first.add(&[1; 60_000], &memory).unwrap();
        let mut second = HeldBytes::default();
        second.add(&[2; UNCOUNTED], &memory).unwrap();
        assert_eq!(second.add(&[2; 50_000], &memory), Err(Ended::HelloMemory));
        assert_eq!((second.len(), memory.held()), (UNCOUNTED, 60_000), "nothing was added, nothing counted");
        drop(first);
        assert_eq!(memory.held(), 0);
        second.add(&[2; 50_000], &memory).unwrap();
        assert!(memory.held() >= UNCOUNTED + 50_000);
        assert_eq!(second.into_vec().len(), UNCOUNTED + 50_000);
        assert_eq!(memory.held(), 0);
    }

    #[test]
    fn an_ordinary_hello_needs_no_room() {
        let memory = memory(0);
        let mut held = HeldBytes::default();
        for _ in 0..UNCOUNTED {
            held.add(&[1], &memory).unwrap();
        }
        assert_eq!(memory.held(), 0);
        assert_eq!(held.add(&[1], &memory), Err(Ended::HelloMemory));
    }

    #[test]
    fn only_little_memory_is_kept_for_the_next() {
        let memory = memory(usize::MAX);
        let mut held = HeldBytes::default();
        held.add(&[1; 300], &memory).unwrap();
        let mut held = held.emptied();
        assert!(held.is_empty() && held.bytes.capacity() >= 300);
        held.add(&[1; 60_000], &memory).unwrap();
        let held = held.emptied();
        assert_eq!((held.bytes.capacity(), memory.held()), (0, 0));
    }
}
