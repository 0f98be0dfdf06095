//! [`SplicePipe`]: a pipe through which bytes pass from one socket to another, and the free ones of a thread.
//!
//! Moves nothing itself (`socket.rs` does). Invariants: a pipe that is taken is empty; one that still holds bytes is
//! closed, because it would carry the bytes of one client into the connection of another. A thread has at most as many
//! pipes as [`at_most`] allows, of [`PIPE_BYTES`] each, so peers that do not read cost no more than that in all. Their
//! pages count to those that the kernel allows a user (pipe(7)).

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::pipe::{PipeFlags, fcntl_getpipe_size, pipe_with};

/// Size of a pipe: the kernel's default.
pub const PIPE_BYTES: usize = 64 * 1024;

/// Number of free pipes that a thread keeps. A pipe is in use only while there are bytes in it, so few serve all
/// receivers that take at once.
const FREE_MAX: usize = 8;

/// After the kernel has refused a pipe, this many requests are met by copying before it is asked again.
const REFUSALS_SKIPPED: u32 = 256;

/// The pipes of one thread.
#[derive(Default)]
struct ThreadPipes {
    most: usize,
    free: Vec<SplicePipe>,
    /// Each pipe of the thread holds a reference.
    all: Rc<()>,
    skip: u32,
    /// A pipe was taken since the last call of [`trim`].
    used: bool,
}

thread_local! {
    static PIPES: RefCell<ThreadPipes> = RefCell::default();
}

/// Sets how many pipes this thread may have; before the first call it may have none.
pub fn at_most(most: usize) {
    PIPES.with_borrow_mut(|pipes| pipes.most = most);
}

/// Closes the free pipes of this thread, unless a pipe was taken since the last call.
pub fn trim() {
    PIPES.with_borrow_mut(|pipes| {
        if !std::mem::take(&mut pipes.used) {
            pipes.free = Vec::new();
        }
    });
}

impl ThreadPipes {
    fn take(&mut self) -> Option<SplicePipe> {
        self.used = true;
        if let Some(pipe) = self.free.pop() {
            return Some(pipe);
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        if Rc::strong_count(&self.all) > self.most {
            return None;
        }
        let pipe = SplicePipe::new(&self.all);
        if pipe.is_none() {
            self.skip = REFUSALS_SKIPPED;
        }
        pipe
    }
}

/// A pipe, and the number of bytes in it. Dropping closes it.
#[derive(Debug)]
pub struct SplicePipe {
    output: OwnedFd,
    input: OwnedFd,
    held: usize,
    _counted: Rc<()>,
}

impl SplicePipe {
    /// Makes a pipe; `None`: the kernel gives none, or only a smaller one, which moves less at once than a copy does.
    fn new(all: &Rc<()>) -> Option<Self> {
        let (output, input) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
        let size = fcntl_getpipe_size(&input).ok()?;
        (size >= PIPE_BYTES).then(|| Self { output, input, held: 0, _counted: Rc::clone(all) })
    }

    /// Takes an empty pipe; `None`: the thread has as many as it may have, or the kernel gives none.
    pub fn take() -> Option<Self> {
        PIPES.with_borrow_mut(ThreadPipes::take)
    }

    /// Gives the pipe back; it is closed if bytes are in it, or if there are enough free ones.
    pub fn give_back(self) {
        PIPES.with_borrow_mut(|pipes| {
            if self.held == 0 && pipes.free.len() < FREE_MAX {
                pipes.free.push(self);
            }
        });
    }

    /// The end into which bytes are moved.
    pub fn input(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }

    /// The end from which bytes are moved.
    pub fn output(&self) -> BorrowedFd<'_> {
        self.output.as_fd()
    }

    /// Number of bytes in the pipe.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Notes that this many bytes were moved into the pipe.
    pub fn filled(&mut self, count: usize) {
        self.held += count;
    }

    /// Notes that this many bytes were moved out of the pipe.
    pub fn emptied(&mut self, count: usize) {
        self.held -= count;
    }

    /// Reads all bytes out of the pipe.
    pub fn read_out(&mut self) -> io::Result<Vec<u8>> {
        let (mut bytes, mut at) = (vec![0; self.held], 0);
        while at < bytes.len() {
            match rustix::io::read(&self.output, &mut bytes[at..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => at += n,
            }
        }
        self.held = 0;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Descriptor of a pipe, which names it while it is open.
    fn name(pipe: &SplicePipe) -> i32 {
        use std::os::fd::AsRawFd;
        pipe.input().as_raw_fd()
    }

    fn free() -> usize {
        PIPES.with_borrow(|pipes| pipes.free.len())
    }

    #[test]
    fn a_thread_has_no_more_pipes_than_it_may_have() {
        assert!(SplicePipe::take().is_none(), "none is allowed yet");
        at_most(2);
        let (one, _two) = (SplicePipe::take().unwrap(), SplicePipe::take().unwrap());
        assert!(SplicePipe::take().is_none());
        drop(one);
        let again = SplicePipe::take().expect("one was closed");
        again.give_back();
        assert_eq!(free(), 1, "a free pipe counts");
        let _again = SplicePipe::take().unwrap();
        assert!(SplicePipe::take().is_none());
    }

    #[test]
    fn an_empty_pipe_is_used_again_and_one_with_bytes_is_closed() {
        at_most(3);
        let mut pipe = SplicePipe::take().unwrap();
        let first = name(&pipe);
        pipe.filled(rustix::io::write(pipe.input(), b"of one client").unwrap());
        assert_eq!(pipe.held(), 13);
        let mut out = [0; 13];
        pipe.emptied(rustix::io::read(pipe.output(), &mut out[..12]).unwrap());
        pipe.give_back();
        assert_eq!(free(), 0, "a byte is in it");
        let mut pipe = SplicePipe::take().unwrap();
        pipe.filled(rustix::io::write(pipe.input(), b"bytes").unwrap());
        assert_eq!(pipe.read_out().unwrap(), b"bytes");
        let second = name(&pipe);
        pipe.give_back();
        let pipe = SplicePipe::take().unwrap();
        assert_eq!(name(&pipe), second, "{first}");
        assert_eq!(rustix::io::read(pipe.output(), &mut out), Err(rustix::io::Errno::AGAIN));
    }

    #[test]
    fn free_pipes_are_few_and_are_closed_after_a_time_without_use() {
        at_most(100);
        let pipes: Vec<_> = (0..20).map(|_| SplicePipe::take().unwrap()).collect();
        pipes.into_iter().for_each(SplicePipe::give_back);
        assert_eq!(free(), FREE_MAX);
        trim();
        assert_eq!(free(), FREE_MAX, "they were used");
        trim();
        assert_eq!(free(), 0);
    }
}
