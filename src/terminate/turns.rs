//! [`watch_turns`]: notices turns of a runtime that take too long.
//!
//! Counts and logs nothing. A turn is one poll of everything that a thread runs, between two looks at its sockets and
//! timers; in a `LocalSet` those are at most 61 tasks. Invariant: a turn costs two readings of the clock.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Context;

use crate::clock::{self, Micros};
use crate::threads::STUCK_US;

/// Runs a future, and calls `stuck` with the duration of each turn that took longer than [`STUCK_US`].
pub async fn watch_turns<T>(all: impl Future<Output = T>, stuck: impl Fn(Micros)) -> T {
    let mut all = pin!(all);
    poll_fn(|cx| {
        let began = clock::now();
        let polled = all.as_mut().poll(cx);
        let took = clock::now() - began;
        if took > STUCK_US {
            stuck(took);
        }
        polled
    })
    .await
}

/// Ends a turn of a task that has more to do at once: it has its next turn after the sockets of all other tasks were
/// looked at. A task that only wakes itself has up to sixty turns before that.
pub fn give_way(cx: &mut Context<'_>) {
    // Its first poll puts the waker aside until then.
    let _ = pin!(tokio::task::yield_now()).poll(cx);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::time::{Duration, Instant};

    use tokio::task::{LocalSet, spawn_local, yield_now};

    #[test]
    fn a_turn_in_which_one_task_holds_the_thread_is_noticed_and_no_other() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (stuck, longest) = (Cell::new(0), Cell::new(0u64));
        let note = |took: Micros| {
            stuck.set(stuck.get() + 1);
            longest.set(took.max(longest.get()));
        };
        let busy = async {
            spawn_local(async {
                let until = Instant::now() + Duration::from_micros(STUCK_US + 20_000);
                while Instant::now() < until {
                    std::hint::spin_loop();
                }
            })
            .await
            .unwrap();
            // A long wait is not a long turn.
            tokio::time::sleep(Duration::from_micros(STUCK_US + 20_000)).await;
            for _ in 0..1_000 {
                yield_now().await;
            }
        };
        runtime.block_on(watch_turns(LocalSet::new().run_until(busy), note));
        assert_eq!(stuck.get(), 1, "longest {} us", longest.get());
        assert!(longest.get() >= STUCK_US + 20_000);
    }
}
