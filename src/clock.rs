//! The clocks: one that never goes back, for deadlines and durations, and the wall's, for cookies, logs and dates.
//!
//! Invariant: both halves of the product read the same clock, so that what one of them began the other can end.

use std::sync::OnceLock;
use std::time::{Instant, SystemTime};

/// Microseconds on a clock that never goes back.
pub type Micros = u64;

/// Microseconds since this process first asked.
pub fn now() -> Micros {
    static START: OnceLock<Instant> = OnceLock::new();
    // One second ahead, so that 0 can mean "never".
    START.get_or_init(Instant::now).elapsed().as_micros() as Micros + 1_000_000
}

/// Microseconds since 1970.
pub fn unix_us() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// Seconds since 1970.
pub fn unix_s() -> u64 {
    unix_us() / 1_000_000
}
