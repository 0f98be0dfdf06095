//! [`wait_until`]: waits for what gives no sign when it comes, and has to be looked at again and again.
//!
//! Knows nothing of what is waited for. Invariant: the wait is over a look after the deadline at the latest.

use std::time::{Duration, Instant};

/// Time between two looks.
pub(super) const LOOK: Duration = Duration::from_millis(20);

/// Waits until something is so, but not beyond a deadline; false: it is not so by then.
pub(super) async fn wait_until<F: Future<Output = bool>>(deadline: Instant, mut is_so: impl FnMut() -> F) -> bool {
    loop {
        if is_so().await {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn a_wait_ends_with_what_it_is_for_or_at_its_deadline() {
        let looks = Cell::new(0);
        let third = || async {
            looks.set(looks.get() + 1);
            looks.get() == 3
        };
        assert!(wait_until(Instant::now() + Duration::from_secs(60), third).await);
        assert_eq!(looks.get(), 3);
        let soon = Instant::now() + 2 * LOOK;
        assert!(!wait_until(soon, || async { false }).await);
        assert!(Instant::now() >= soon);
        assert!(wait_until(soon, || async { true }).await, "what is so already needs no time");
    }
}
