//! Turns for handshakes: how many may be under way in the process at once.
//!
//! Measures nothing and refuses nobody: who finds no turn waits, inside its `hello_timeout`, in the order of coming.
//! Invariant: a turn is given back by dropping it. The limit is looked at for each turn, so that a reload holds for
//! those that come after it.

use std::sync::{Mutex, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

/// Handshakes under way, and who waits.
#[derive(Debug)]
pub struct Handshakes {
    turns: Semaphore,
    /// How many turns there are altogether.
    most: Mutex<usize>,
}

impl Default for Handshakes {
    fn default() -> Self {
        Self { turns: Semaphore::new(0), most: Mutex::new(0) }
    }
}

impl Handshakes {
    /// Waits for a turn; `None` as a limit is none.
    pub async fn turn(&self, most: Option<usize>) -> Option<SemaphorePermit<'_>> {
        let most = most?.min(Semaphore::MAX_PERMITS);
        self.allow(most);
        // The semaphore is never closed.
        self.turns.acquire().await.ok()
    }

    fn allow(&self, wanted: usize) {
        let mut most = self.most.lock().unwrap_or_else(PoisonError::into_inner);
        if *most < wanted {
            self.turns.add_permits(wanted - *most);
            *most = wanted;
        } else if *most > wanted {
            // Those that are taken are given back first; the next turn looks again.
            *most -= self.turns.forget_permits(*most - wanted);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_follows_the_file_and_turns_come_back() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let handshakes = Handshakes::default();
            let first = handshakes.turn(Some(2)).await;
            let second = handshakes.turn(Some(2)).await;
            assert_eq!(handshakes.turns.available_permits(), 0);
            assert!(handshakes.turn(None).await.is_none());
            drop(first);
            handshakes.allow(1);
            assert_eq!((handshakes.turns.available_permits(), *handshakes.most.lock().unwrap()), (0, 1));
            drop(second);
            let _third = handshakes.turn(Some(1)).await;
            assert_eq!(handshakes.turns.available_permits(), 0);
        });
    }
}
