//! [`TimerFd`]: short waits that end on time, by one timer descriptor for all conversations of a thread; and
//! [`StoreWait`], which uses it.
//!
//! The runtime's own timers count in milliseconds and fire up to two of them late, which is most of the time that the
//! store may take. Invariant: a task is woken at its time and not before; while no task waits, the timer is off.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, Waker};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::clock::{self, Micros};
use crate::store::{StoredValue, Waiting};

/// Timer descriptor with the tasks that wait for it.
pub struct TimerFd {
    timer: AsyncFd<OwnedFd>,
    /// Tasks to wake, sorted by time.
    waiting: RefCell<VecDeque<(Micros, Waker)>>,
}

/// One wait for the store, which ends with its reply or when the store's budget is spent.
pub struct StoreWait {
    waiting: Waiting,
    armed: bool,
}

impl TimerFd {
    /// Makes the descriptor; must run inside of a runtime.
    #[allow(deprecated, reason = "its successor is unsafe to call, and an owned descriptor is all that it asks for")]
    pub fn new() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        Ok(Self { timer: AsyncFd::with_interest(timer, Interest::READABLE)?, waiting: RefCell::default() })
    }

    /// Waits until the timer fires, and wakes the tasks that are due. The thread awaits it in a loop.
    pub async fn expired(&self) {
        match self.timer.readable().await {
            Ok(mut ready) => {
                let _ = rustix::io::read(&self.timer, &mut [0; 8]);
                ready.clear_ready();
            }
            Err(_) => std::future::pending().await,
        }
        let mut waiting = self.waiting.borrow_mut();
        let now = clock::now();
        let due = waiting.partition_point(|(until, _)| *until <= now);
        waiting.drain(..due).for_each(|(_, waker)| waker.wake());
        if let Some((until, _)) = waiting.front() {
            self.arm(*until);
        }
    }

    fn wake_at(&self, until: Micros, waker: Waker) {
        let mut waiting = self.waiting.borrow_mut();
        let place = waiting.partition_point(|(other, _)| *other <= until);
        waiting.insert(place, (until, waker));
        if place == 0 {
            self.arm(until);
        }
    }

    fn arm(&self, until: Micros) {
        // Zero would switch the timer off.
        let left = until.saturating_sub(clock::now()).max(1);
        let it_value = Timespec { tv_sec: (left / 1_000_000) as i64, tv_nsec: (left % 1_000_000 * 1_000) as i64 };
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Fails only for values that cannot arise here: negative ones, or a billion nanoseconds.
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval, it_value });
    }
}

impl StoreWait {
    /// Begins to wait, until the budget of `waiting` is spent.
    pub fn new(waiting: Waiting) -> Self {
        Self { waiting, armed: false }
    }

    /// Ready with the store's reply; `None`: the store has no value, refuses, or is late.
    pub fn poll(&mut self, timer: &TimerFd, cx: &mut Context<'_>) -> Poll<Option<StoredValue>> {
        if let Poll::Ready(answer) = self.waiting.poll(cx) {
            return Poll::Ready(answer);
        }
        if clock::now() >= self.waiting.until {
            self.waiting.late();
            return Poll::Ready(None);
        }
        if !std::mem::replace(&mut self.armed, true) {
            timer.wake_at(self.waiting.until, cx.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    async fn wait(timer_fd: &TimerFd, us: Micros) -> Micros {
        let until = clock::now() + us;
        let mut set = false;
        poll_fn(|cx| {
            if clock::now() >= until {
                return Poll::Ready(());
            }
            if !std::mem::replace(&mut set, true) {
                timer_fd.wake_at(until, cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
        until
    }

    #[test]
    fn everybody_is_woken_in_time_and_nobody_early() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let timer_fd = TimerFd::new().unwrap();
            let all = async {
                let waits = [3_000, 500, 1_500, 500].map(|us| wait(&timer_fd, us));
                let [a, b, c, d] = waits;
                let times = tokio::join!(a, b, c, d);
                assert!(clock::now() >= times.0 && times.0 > times.2);
                // One more wait, after the timer was switched off.
                let until = wait(&timer_fd, 300).await;
                assert!(clock::now() >= until);
            };
            tokio::select! {
                () = all => {}
                () = async { loop { timer_fd.expired().await } } => {}
            }
        });
    }
}
