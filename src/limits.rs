//! [`Limits`]: the timeouts of `[limits]` in the small form that every connection copies.
//!
//! Reads no clock and ends no connection. Invariant: both halves use the same deadline, and a limit of 0 never passes.

use std::time::Duration;

use crate::clock::Micros;
use crate::config::{self, OwnTimeouts};
use crate::outcome::Ended;
use crate::socket::KeepAlive;

/// Latest age of a connection at which its backend's socket is tuned.
const TUNE_MS: u32 = 15_000;

/// The limits of one connection, in milliseconds; 0 = off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Relay without a byte in either direction.
    pub idle_ms: u32,
    /// Relay without a byte after one side has closed.
    pub half_close_ms: u32,
    /// Age of the connection, from accept.
    pub lifetime_ms: u32,
    /// Age at which the backend's socket gets keepalive and user timeout; most connections end before it.
    pub tune_ms: u32,
}

impl Limits {
    /// Converts the limits of the configuration.
    pub fn new(limits: &config::Limits) -> Self {
        let ms = |limit: Option<Duration>| limit.map_or(0, millis);
        Self {
            idle_ms: ms(limits.idle_timeout),
            half_close_ms: ms(limits.half_close_timeout),
            lifetime_ms: ms(limits.lifetime),
            tune_ms: tune_ms(&keep_alive(limits)),
        }
    }

    /// The limits where these timeouts are nearer.
    pub fn nearer(self, own: &OwnTimeouts) -> Self {
        let ms = |own: Option<Option<Duration>>, wider| own.map_or(wider, |limit| limit.map_or(0, millis));
        Self {
            idle_ms: ms(own.idle, self.idle_ms),
            half_close_ms: ms(own.half_close, self.half_close_ms),
            lifetime_ms: ms(own.lifetime, self.lifetime_ms),
            tune_ms: self.tune_ms,
        }
    }

    /// Returns the nearest limit of an established pair and its ending; `None` = all limits are off.
    pub fn deadline(&self, half_closed: bool, last_active: Micros, accepted: Micros) -> Option<(Micros, Ended)> {
        let after = |since: Micros, ms: u32, ended| (ms > 0).then(|| (since + us(ms), ended));
        let half = half_closed.then(|| after(last_active, self.half_close_ms, Ended::HalfCloseTimeout)).flatten();
        let idle = after(last_active, self.idle_ms, Ended::IdleTimeout);
        let life = after(accepted, self.lifetime_ms, Ended::Lifetime);
        [half, idle, life].into_iter().flatten().min_by_key(|(at, _)| *at)
    }
}

/// Returns the limits that the kernel enforces on a socket.
pub fn keep_alive(limits: &config::Limits) -> KeepAlive {
    let seconds = |duration: Duration| duration.as_secs().clamp(1, 32_767) as u32;
    KeepAlive {
        idle_s: limits.keepalive.map_or(0, seconds),
        interval_s: seconds(limits.keepalive_interval),
        count: limits.keepalive_count,
        user_timeout_ms: limits.user_timeout.map_or(0, millis),
    }
}

/// Returns half of the shorter limit: the kernel counts from the last acknowledgement, not from the call that sets it.
fn tune_ms(rules: &KeepAlive) -> u32 {
    let set = [rules.idle_s.saturating_mul(1_000), rules.user_timeout_ms].into_iter().filter(|ms| *ms > 0);
    set.map(|ms| ms / 2).fold(TUNE_MS, u32::min)
}

/// Converts milliseconds to the clock's microseconds.
pub fn us(ms: u32) -> Micros {
    Micros::from(ms) * 1_000
}

/// Converts to milliseconds, at least one, because 0 means off.
pub fn millis(duration: Duration) -> u32 {
    duration.as_millis().clamp(1, u32::MAX.into()) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_limit_that_is_on_counts() {
        let limits = Limits { idle_ms: 100, half_close_ms: 10, lifetime_ms: 0, ..Limits::default() };
        assert_eq!(limits.deadline(false, 5_000, 0), Some((105_000, Ended::IdleTimeout)));
        assert_eq!(limits.deadline(true, 5_000, 0), Some((15_000, Ended::HalfCloseTimeout)));
        let limits = Limits { lifetime_ms: 1, ..limits };
        assert_eq!(limits.deadline(true, 5_000, 0), Some((1_000, Ended::Lifetime)));
        assert_eq!(Limits::default().deadline(true, 5_000, 0), None);
    }

    #[test]
    fn nearer_timeouts_take_the_place_of_wider_ones() {
        let wider = Limits { idle_ms: 100, half_close_ms: 10, lifetime_ms: 1, tune_ms: 7 };
        let own = OwnTimeouts { idle: Some(None), lifetime: Some(Some(Duration::from_secs(2))), ..Default::default() };
        assert_eq!(wider.nearer(&own), Limits { idle_ms: 0, lifetime_ms: 2_000, ..wider });
        assert_eq!(wider.nearer(&OwnTimeouts::default()), wider);
    }
}
