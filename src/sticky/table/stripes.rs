//! [`Stripes`]: what each thread counts for itself.
//!
//! Adds nothing up. Invariant: a stripe is made when its first thread counts, so a table that no thread uses has none; at
//! most [`STRIPES`] are made, and threads beyond share them, so a stripe is for several threads at once.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::counters::Padded;

/// Most stripes; threads are spread over them.
pub(super) const STRIPES: usize = 16;

thread_local! {
    /// The stripe of the thread; [`STRIPES`] before the thread first counts.
    static STRIPE: Cell<usize> = const { Cell::new(STRIPES) };
}

/// One value for each thread, on cache lines of its own.
#[derive(Debug)]
pub(super) struct Stripes<T>([OnceLock<Box<Padded<T>>>; STRIPES]);

impl<T> Default for Stripes<T> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| OnceLock::new()))
    }
}

impl<T: Default> Stripes<T> {
    /// The stripe of this thread.
    #[inline]
    pub(super) fn own(&self) -> &T {
        &self.0[own()].get_or_init(Box::default).0
    }

    /// Every stripe that was made.
    pub(super) fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter().filter_map(OnceLock::get).map(|stripe| &stripe.0)
    }
}

/// The number of this thread's stripe.
#[inline]
fn own() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    if STRIPE.get() == STRIPES {
        STRIPE.set(THREADS.fetch_add(1, Relaxed) % STRIPES);
    }
    STRIPE.get()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn a_stripe_is_made_by_the_thread_that_counts_first() {
        let stripes = Stripes::<AtomicU64>::default();
        assert_eq!(stripes.all().count(), 0);
        stripes.own().fetch_add(1, Relaxed);
        stripes.own().fetch_add(1, Relaxed);
        assert_eq!(stripes.all().map(|stripe| stripe.load(Relaxed)).collect::<Vec<_>>(), [2]);
        std::thread::scope(|scope| {
            for _ in 0..2 * STRIPES {
                scope.spawn(|| stripes.own().fetch_add(1, Relaxed));
            }
        });
        assert_eq!(stripes.all().map(|stripe| stripe.load(Relaxed)).sum::<u64>(), 2 + 2 * STRIPES as u64);
        assert!(stripes.all().count() <= STRIPES);
    }
}
