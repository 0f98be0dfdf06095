//! [`Pipes`]: a worker's pipes for splice(2), taken while a direction moves bulk, given back when it pauses.
//!
//! Does not decide when to splice. Invariant: a free pipe is empty. A pipe that still holds bytes is closed, because it
//! would carry the bytes of one client into the connection of another.

use super::os::Os;

/// Number of free pipes kept per worker; making a pipe costs microseconds.
const POOLED_MAX: usize = 64;

/// A smaller pipe moves no more per call than a copy does; the kernel gives one where the user's pipe pages are used up
/// (pipe(7)).
const BYTES_MIN: usize = 64 * 1024;

/// After a refused pipe, this many requests for one copy instead before the kernel is asked again.
const REFUSALS_SKIPPED: u32 = 256;

/// A pipe in use, with the number of bytes in it.
#[derive(Debug)]
pub struct Filled<P> {
    /// Both ends of the pipe.
    pub ends: P,
    /// Number of bytes the pipe can take.
    pub capacity: u32,
    /// Number of bytes in the pipe now.
    pub held: u32,
}

/// The pipes of one worker.
pub struct Pipes<O: Os> {
    free: Vec<(O::Pipe, u32)>,
    in_use: usize,
    skip: u32,
    most: usize,
}

impl<O: Os> Pipes<O> {
    /// Begins without a pipe and never has more than `most`, because connections need the descriptors first.
    pub fn at_most(most: usize) -> Self {
        Self { free: Vec::new(), in_use: 0, skip: 0, most }
    }

    /// True if there are free pipes and no pipe is in use.
    pub fn idle(&self) -> bool {
        self.in_use == 0 && !self.free.is_empty()
    }

    /// Returns an empty pipe; `None` = no pipe is worth having, and the caller copies.
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

    /// Takes a pipe back, and closes it unless it is empty.
    pub fn give(&mut self, pipe: Filled<O::Pipe>) {
        self.in_use -= 1;
        if pipe.held == 0 && self.free.len() < POOLED_MAX {
            self.free.push((pipe.ends, pipe.capacity));
        }
    }

    /// Number of pipes that directions hold now.
    pub fn in_use(&self) -> usize {
        self.in_use
    }

    /// Number of pipes, in use and free.
    pub fn count(&self) -> usize {
        self.in_use + self.free.len()
    }

    /// Closes the free pipes, after a time without use.
    pub fn trim(&mut self) {
        self.free = Vec::new();
    }
}
