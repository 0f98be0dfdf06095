//! [`Inbox`]: how other threads reach a worker, a bounded queue and an eventfd that wakes it.
//!
//! Executes no command. Invariant: a command put in is seen by the worker, and the eventfd is written only when the
//! worker may be asleep, so a burst of commands costs one system call.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use rustix::event::{EventfdFlags, eventfd};

/// Number of commands that may wait. Only connections from other workers come in large numbers.
const QUEUE: usize = 1024;

/// The sending end of an inbox.
#[derive(Debug)]
pub struct Sender<C> {
    queue: SyncSender<C>,
    wakeup: Arc<Wakeup>,
}

impl<C> Clone for Sender<C> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), wakeup: Arc::clone(&self.wakeup) }
    }
}

/// The worker's end of an inbox.
#[derive(Debug)]
pub struct Inbox<C> {
    queue: Receiver<C>,
    wakeup: Arc<Wakeup>,
}

#[derive(Debug)]
struct Wakeup {
    eventfd: OwnedFd,
    /// The eventfd was written since the worker last read it.
    rung: AtomicBool,
}

/// Makes a new inbox and returns both ends.
pub fn inbox<C>() -> std::io::Result<(Sender<C>, Inbox<C>)> {
    let (sender, receiver) = sync_channel(QUEUE);
    let eventfd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
    let wakeup = Arc::new(Wakeup { eventfd, rung: AtomicBool::new(false) });
    Ok((Sender { queue: sender, wakeup: Arc::clone(&wakeup) }, Inbox { queue: receiver, wakeup }))
}

impl<C> Sender<C> {
    /// Puts a command in. The error hands it back: the queue is full, or the worker has ended.
    pub fn send(&self, command: C) -> Result<(), TrySendError<C>> {
        self.queue.try_send(command)?;
        if !self.wakeup.rung.swap(true, Ordering::SeqCst) {
            let _ = rustix::io::write(&self.wakeup.eventfd, &1u64.to_ne_bytes());
        }
        Ok(())
    }
}

impl<C> Inbox<C> {
    /// Resets the eventfd; the next command writes it again. To be followed by `next` until the queue is empty.
    pub fn hush(&self) {
        let _ = rustix::io::read(&self.wakeup.eventfd, &mut [0; 8]);
        self.wakeup.rung.swap(false, Ordering::SeqCst);
    }

    /// Takes the next command; `None` = the queue is empty.
    pub fn next(&self) -> Option<C> {
        self.queue.try_recv().ok()
    }
}

impl<C> AsFd for Inbox<C> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wakeup.eventfd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_put_in_comes_out_in_order_and_too_much_comes_back() {
        let (sender, inbox) = inbox().unwrap();
        for n in 0..QUEUE {
            sender.send(n).unwrap();
        }
        assert_eq!(sender.send(QUEUE), Err(TrySendError::Full(QUEUE)));
        inbox.hush();
        assert_eq!(std::iter::from_fn(|| inbox.next()).collect::<Vec<_>>(), (0..QUEUE).collect::<Vec<_>>());
    }

    #[test]
    fn a_command_rings_again_after_hush() {
        let (sender, inbox) = inbox().unwrap();
        for _ in 0..2 {
            sender.send(()).unwrap();
            let mut count = [0; 8];
            assert_eq!(rustix::io::read(&inbox, &mut count), Ok(8));
            assert_eq!(u64::from_ne_bytes(count), 1);
            inbox.hush();
            inbox.next();
        }
    }
}
