//! [`Handshakes`]: the limit `max_handshakes` on TLS handshakes that run at once in the process.
//!
//! Measures nothing and refuses no client: a conversation without a permit waits, within `hello_timeout`, in the order
//! of arrival. Invariant: a permit is released by dropping it. Each request for a permit sets the limit, so that a
//! reload holds for all handshakes that begin after it.

use std::sync::{Mutex, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

/// Permits for handshakes, shared by all threads.
#[derive(Debug)]
pub struct Handshakes {
    permits: Semaphore,
    /// Permits in total: those held by handshakes, and free ones.
    total: Mutex<usize>,
}

impl Default for Handshakes {
    fn default() -> Self {
        Self { permits: Semaphore::new(0), total: Mutex::new(0) }
    }
}

impl Handshakes {
    /// Waits for a permit; returns `None` at once if there is no limit.
    pub async fn permit(&self, limit: Option<usize>) -> Option<SemaphorePermit<'_>> {
        let limit = limit?.min(Semaphore::MAX_PERMITS);
        self.set_limit(limit);
        // The semaphore is never closed.
        self.permits.acquire().await.ok()
    }

    fn set_limit(&self, limit: usize) {
        let mut total = self.total.lock().unwrap_or_else(PoisonError::into_inner);
        if *total < limit {
            self.permits.add_permits(limit - *total);
            *total = limit;
        } else if *total > limit {
            // Only free permits can be removed. The next call removes those that were held until then.
            *total -= self.permits.forget_permits(*total - limit);
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
            let first = handshakes.permit(Some(2)).await;
            let second = handshakes.permit(Some(2)).await;
            assert_eq!(handshakes.permits.available_permits(), 0);
            assert!(handshakes.permit(None).await.is_none());
            drop(first);
            handshakes.set_limit(1);
            assert_eq!((handshakes.permits.available_permits(), *handshakes.total.lock().unwrap()), (0, 1));
            drop(second);
            let _third = handshakes.permit(Some(1)).await;
            assert_eq!(handshakes.permits.available_permits(), 0);
        });
    }
}
