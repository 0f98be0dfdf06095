//! A worker's pipes: made when a direction turns bulky, given back when it pauses.
//!
//! Decides nothing about when to splice. Invariant: a pipe in the pool is empty. One that still holds bytes is closed,
//! never pooled: it would carry one client's bytes into another's connection.

use super::os::Os;

/// Free pipes kept per worker; a pipe costs microseconds to make.
const POOLED_MAX: usize = 64;

/// A smaller pipe moves no more at a time than copying does, and means that this user is out of pipe pages.
const BYTES_MIN: usize = 64 * 1024;

/// After a pipe could not be had, so many directions copy before another is tried.
const REFUSALS_SKIPPED: u32 = 256;

/// A pipe in use, and what it holds.
#[derive(Debug)]
pub struct Filled<P> {
    /// Its two ends.
    pub ends: P,
    /// Bytes it can take.
    pub capacity: u32,
    /// Bytes in it.
    pub held: u32,
}

/// Free pipes.
pub struct Pipes<O: Os> {
    free: Vec<(O::Pipe, u32)>,
    in_use: usize,
    skip: u32,
    most: usize,
}

impl<O: Os> Pipes<O> {
    /// None yet, and never more than `most`: descriptors are for connections first.
    pub fn at_most(most: usize) -> Self {
        Self { free: Vec::new(), in_use: 0, skip: 0, most }
    }

    /// Whether there are pipes, and nobody uses one.
    pub fn idle(&self) -> bool {
        self.in_use == 0 && !self.free.is_empty()
    }

    /// An empty pipe; `None` when there is none worth having, and copying is right.
    pub fn take(&mut self, os: &mut O) -> Option<Filled<O::Pipe>> {
        let (ends, capacity) = match self.free.pop() {
            Some(pipe) => pipe,
            None if self.skip > 0 => {
                self.skip -= 1;
                return None;
            }
            None if self.in_use >= self.most => return None,
            None => match os.pipe() {
                Ok((ends, capacity)) if capacity >= BYTES_MIN => (ends, capacity as u32),
                _ => {
                    self.skip = REFUSALS_SKIPPED;
                    return None;
                }
            },
        };
        self.in_use += 1;
        Some(Filled { ends, capacity, held: 0 })
    }

    /// Takes a pipe back.
    pub fn give(&mut self, pipe: Filled<O::Pipe>) {
        self.in_use -= 1;
        if pipe.held == 0 && self.free.len() < POOLED_MAX {
            self.free.push((pipe.ends, pipe.capacity));
        }
    }

    /// Pipes that somebody uses.
    pub fn in_use(&self) -> usize {
        self.in_use
    }

    /// Pipes that exist.
    pub fn count(&self) -> usize {
        self.in_use + self.free.len()
    }

    /// Closes the free ones, when there is nothing to do.
    pub fn trim(&mut self) {
        self.free = Vec::new();
    }
}
