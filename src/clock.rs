//! The two clocks: [`now`], which never goes back, for deadlines and durations, and [`unix_us`], the wall clock, for
//! cookies, logs and dates.
//!
//! Sets no timer. Invariant: both halves of the product read the same clock, so a deadline that one half sets means the
//! same in the other.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime};

/// Microseconds on a clock that never goes back.
pub type Micros = u64;

/// Microseconds since the first call in this process, plus one second, so that 0 can mean "never".
pub fn now() -> Micros {
    #[cfg(test)]
    READINGS.with(|readings| readings.set(readings.get() + 1));
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_micros() as Micros + 1_000_000
}

/// [`now`] in milliseconds: the unit of deadlines of pools, backends and stick tables.
pub fn now_ms() -> u64 {
    now() / 1_000
}

/// Microseconds since 1970; 0 if the wall clock is before that.
pub fn unix_us() -> u64 {
    #[cfg(test)]
    READINGS.with(|readings| readings.set(readings.get() + 1));
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// Milliseconds since 1970: the unit of dates in the shared store.
pub fn unix_ms() -> u64 {
    unix_us() / 1_000
}

/// Seconds since 1970: the unit of dates of certificates and cookies.
pub fn unix_s() -> u64 {
    unix_us() / 1_000_000
}

#[cfg(test)]
thread_local! {
    static READINGS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// How often this thread has read a clock.
#[cfg(test)]
pub fn readings() -> u64 {
    READINGS.get()
}
