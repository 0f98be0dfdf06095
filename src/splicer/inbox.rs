//! How other threads reach a worker: [`inbox`] makes a bounded queue with an eventfd that wakes the worker.
//!
//! Handles no command. Invariant: the worker sees every command that is put in, and the eventfd is written only when
//! the worker may be asleep, so a burst of commands costs one system call.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

/// Commands that may wait in one inbox. Only connections from other workers come in large numbers.
const QUEUE: usize = 1024;

/// How long a sender sleeps before it tries a full inbox again.
const RETRY: Duration = Duration::from_millis(1);

/// The end that other threads put commands into.
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

/// The end from which the worker takes commands.
#[derive(Debug)]
pub struct Inbox<C> {
    queue: Receiver<C>,
    wakeup: Arc<Wakeup>,
}

#[derive(Debug)]
struct Wakeup {
    eventfd: OwnedFd,
    /// True if the eventfd was written since the worker last read it.
    written: AtomicBool,
}

/// Makes both ends of a new inbox; fails if the process has no descriptor left.
pub fn inbox<C>() -> std::io::Result<(Sender<C>, Inbox<C>)> {
    let (sender, receiver) = sync_channel(QUEUE);
    let eventfd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
    let wakeup = Arc::new(Wakeup { eventfd, written: AtomicBool::new(false) });
    Ok((Sender { queue: sender, wakeup: Arc::clone(&wakeup) }, Inbox { queue: receiver, wakeup }))
}

impl<C> Sender<C> {
    /// Puts a command in, or returns it when the inbox is full or the worker is gone.
    pub fn send(&self, command: C) -> Result<(), TrySendError<C>> {
        self.queue.try_send(command)?;
        if !self.wakeup.written.swap(true, Ordering::SeqCst) {
            let _ = rustix::io::write(&self.wakeup.eventfd, &1u64.to_ne_bytes());
        }
        Ok(())
    }

    /// Puts a command in, and waits while the inbox is full. A worker that is gone takes the process with it, so the
    /// command is dropped then.
    pub async fn put(&self, mut command: C) {
        while let Err(TrySendError::Full(refused)) = self.send(command) {
            command = refused;
            tokio::time::sleep(RETRY).await;
        }
    }
}

impl<C> Inbox<C> {
    /// Clears the wakeup, so that the next command wakes the worker again. Must be followed by `next` until it returns
    /// `None`: a command that was put in before does not wake the worker twice.
    pub fn reset_wakeup(&self) {
        let _ = rustix::io::read(&self.wakeup.eventfd, &mut [0; 8]);
        self.wakeup.written.swap(false, Ordering::SeqCst);
    }

    /// Takes the oldest command; `None`: the inbox is empty.
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
        inbox.reset_wakeup();
        assert_eq!(std::iter::from_fn(|| inbox.next()).collect::<Vec<_>>(), (0..QUEUE).collect::<Vec<_>>());
    }

    #[test]
    fn a_command_wakes_again_after_the_reset() {
        let (sender, inbox) = inbox().unwrap();
        for _ in 0..2 {
            sender.send(()).unwrap();
            let mut count = [0; 8];
            assert_eq!(rustix::io::read(&inbox, &mut count), Ok(8));
            assert_eq!(u64::from_ne_bytes(count), 1);
            inbox.reset_wakeup();
            inbox.next();
        }
    }
}
