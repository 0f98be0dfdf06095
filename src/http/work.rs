//! [`spend`]: counts the work of reading and writing heads, so that unit tests can compare it with the bytes of a head.
//!
//! The product counts nothing: the function is empty outside of unit tests. One unit is one byte looked at, compared
//! or copied, or one element of a list. Invariant: every loop of this module over a head, its fields or their elements
//! is counted.

#[cfg(test)]
thread_local! {
    static SPENT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Adds units of work.
#[inline(always)]
pub(super) fn spend(units: usize) {
    #[cfg(test)]
    SPENT.set(SPENT.get() + units);
    #[cfg(not(test))]
    let _ = units;
}

/// Units of work of this thread since the last call.
#[cfg(test)]
pub(super) fn spent() -> usize {
    SPENT.take()
}
