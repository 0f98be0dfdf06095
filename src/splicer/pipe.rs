//! [`Pipes`]: a worker's pipes for splice(2), taken while a direction moves bulk, given back when they are empty.
//!
//! Does not decide when to splice, or when a large pipe is worth having. Invariants: a free pipe is empty: a pipe that
//! still holds bytes is closed, because it would carry the bytes of one client into the connection of another. A large
//! pipe has a place in [`LargePipes`] until it is closed. So the pipes of a process hold at most `COPY_BYTES` each, but
//! for the large ones, which hold at most [`LargePipes::bytes`] each.

use std::sync::Arc;

use super::large_pipes::{Charge, LargePipes};
use super::os::Os;

/// Most bytes that one copy moves, and most bytes in a pipe that is not large.
pub const COPY_BYTES: usize = 64 * 1024;

/// Number of free pipes kept per worker; making a pipe costs microseconds.
const POOLED_MAX: usize = 64;

/// Number of free large pipes kept per worker; one while places are scarce. One serves all directions of
/// receivers that take at once; other workers must find the rest of the places free.
const LARGE_POOLED_MAX: usize = 4;

/// A smaller pipe moves no more per call than a copy does; the kernel gives one where the user's pipe pages are used up
/// (pipe(7)).
const BYTES_MIN: usize = COPY_BYTES;

/// After a refused pipe, this many requests are met otherwise before the kernel is asked again.
const REFUSALS_SKIPPED: u32 = 256;

/// The pipes that the workers of a process may have.
#[derive(Debug, Default)]
pub struct PipeLimits {
    /// Most pipes of one worker.
    pub most: usize,
    /// Large pipes of all workers.
    pub large: Arc<LargePipes>,
}

/// A pipe in use, with the number of bytes in it.
#[derive(Debug)]
pub struct Filled<P> {
    /// Both ends of the pipe.
    pub ends: P,
    /// Most bytes to put into the pipe.
    pub capacity: u32,
    /// Number of bytes in the pipe now.
    pub held: u32,
}

impl<P> Filled<P> {
    /// True if the pipe takes more than a copy moves.
    pub fn is_large(&self) -> bool {
        self.capacity > COPY_BYTES as u32
    }
}

/// The pipes of one worker.
pub struct Pipes<O: Os> {
    free: Vec<O::Pipe>,
    free_large: Vec<O::Pipe>,
    in_use: usize,
    large_in_use: usize,
    /// Requests for a pipe, and to make a pipe large, that the kernel is not asked for.
    skip: u32,
    skip_large: u32,
    most: usize,
    places: Arc<LargePipes>,
    /// A pipe was taken since [`Pipes::was_used`] was last asked.
    used: bool,
    denied: u64,
}

impl<O: Os> Pipes<O> {
    /// Begins without a pipe and never has more than `most`, because connections need the descriptors first.
    pub fn at_most(most: usize, places: Arc<LargePipes>) -> Self {
        Self {
            free: Vec::new(),
            free_large: Vec::new(),
            in_use: 0,
            large_in_use: 0,
            skip: 0,
            skip_large: 0,
            most,
            places,
            used: false,
            denied: 0,
        }
    }

    /// True if there are free pipes.
    pub fn has_free(&self) -> bool {
        !self.free.is_empty() || !self.free_large.is_empty()
    }

    /// True if a pipe was taken since the last call.
    pub fn was_used(&mut self) -> bool {
        std::mem::take(&mut self.used)
    }

    /// Returns an empty pipe, a large one if `large` and if there is one. `None` = no pipe is worth having, and the
    /// caller copies.
    pub fn take(&mut self, os: &mut O, large: bool) -> Option<Filled<O::Pipe>> {
        self.used = true;
        if large {
            if let Some(ends) = self.take_large(os) {
                self.in_use += 1;
                self.large_in_use += 1;
                return Some(Filled { ends, capacity: self.places.bytes(), held: 0 });
            }
            self.denied += 1;
        }
        let ends = self.take_small(os)?;
        self.in_use += 1;
        Some(Filled { ends, capacity: COPY_BYTES as u32, held: 0 })
    }

    /// Takes a pipe back, and closes it unless it is empty.
    pub fn give(&mut self, pipe: Filled<O::Pipe>) {
        self.in_use -= 1;
        let large = pipe.is_large();
        self.large_in_use -= usize::from(large);
        let large_most = if self.places.are_scarce() { 1 } else { LARGE_POOLED_MAX };
        let (free, most) = if large { (&mut self.free_large, large_most) } else { (&mut self.free, POOLED_MAX) };
        if pipe.held == 0 && free.len() < most {
            free.push(pipe.ends);
        } else {
            drop(pipe);
            self.places.release(large.into());
        }
    }

    /// Takes a place among the large pipes for bytes that have left one. A free large pipe makes way.
    pub fn charge(&mut self) -> Charge {
        let charge = self.places.charge();
        if self.free_large.pop().is_some() {
            self.places.release(1);
        }
        charge
    }

    /// Number of pipes that directions hold now.
    pub fn in_use(&self) -> usize {
        self.in_use
    }

    /// Number of pipes, in use and free.
    pub fn count(&self) -> usize {
        self.in_use + self.free.len() + self.free_large.len()
    }

    /// Number of large pipes, in use and free.
    pub fn large(&self) -> usize {
        self.large_in_use + self.free_large.len()
    }

    /// How often a small pipe, or none, was given though a large one was asked for.
    pub fn denied(&self) -> u64 {
        self.denied
    }

    /// Closes the free pipes, after a time without use.
    pub fn trim(&mut self) {
        self.free = Vec::new();
        let large = std::mem::take(&mut self.free_large).len();
        self.places.release(large);
    }

    fn take_small(&mut self, os: &mut O) -> Option<O::Pipe> {
        if let Some(ends) = self.free.pop() {
            return Some(ends);
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        if self.count() >= self.most {
            // The descriptors of a large pipe serve a small one.
            drop(self.free_large.pop()?);
            self.places.release(1);
        }
        match os.pipe() {
            Ok((ends, capacity)) if capacity >= BYTES_MIN => Some(ends),
            _ => {
                self.skip = REFUSALS_SKIPPED;
                None
            }
        }
    }

    /// Takes a free large pipe, or makes another pipe large.
    fn take_large(&mut self, os: &mut O) -> Option<O::Pipe> {
        if let Some(ends) = self.free_large.pop() {
            return Some(ends);
        }
        if self.skip_large > 0 {
            self.skip_large -= 1;
            return None;
        }
        if !self.places.reserve() {
            return None;
        }
        let grown = self.take_small(os).and_then(|ends| {
            if os.grow(&ends, self.places.bytes() as usize) {
                return Some(ends);
            }
            self.skip_large = REFUSALS_SKIPPED;
            self.free.push(ends);
            None
        });
        if grown.is_none() {
            self.places.release(1);
        }
        grown
    }
}

#[cfg(test)]
mod tests;
