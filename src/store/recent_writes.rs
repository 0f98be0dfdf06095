//! Values that a thread has written to the store recently, so that a value in use is not written with every request.
//!
//! Decides when a value in use is written again. Reads no clock. Invariant: the size is fixed; two values that share a
//! place cost one write more, never one less.

use std::time::Duration;

use ahash::RandomState;

use crate::sticky::table::KeyHash;

/// Places in the list of one thread: 128 KiB, allocated with the first value.
const PLACES: usize = 8_192;

/// Longest time between two writes of a value in use, however long it is remembered.
const INTERVAL_MAX: Duration = Duration::from_secs(60);

/// Recent writes of one thread.
#[derive(Debug, Default)]
pub struct RecentWrites {
    places: Vec<RecentWrite>,
    state: RandomState,
}

/// Time of the last write, in milliseconds, and a hash of its pool, value and period.
#[derive(Debug, Clone, Copy, Default)]
struct RecentWrite {
    hash: u64,
    at_ms: u64,
}

/// Interval between two writes of a value in use that the store forgets after `remember`.
pub fn every(remember: Duration) -> Duration {
    (remember / 10).clamp(Duration::from_millis(100), INTERVAL_MAX)
}

impl RecentWrites {
    /// Whether a value of `pool` that is in use is to be written now; if so, it counts as written. `since`: the working
    /// period of the breaker, so that everything is written again to a store that may have lost it.
    pub fn due(&mut self, pool: &str, value: KeyHash, since: u64, remember: Duration, now_ms: u64) -> bool {
        if self.places.is_empty() {
            self.places.resize(PLACES, RecentWrite::default());
        }
        let hash = self.state.hash_one((pool, value, since)).max(1);
        let place = &mut self.places[hash as usize % PLACES];
        let is_recent = place.hash == hash && now_ms.saturating_sub(place.at_ms) < every(remember).as_millis() as u64;
        if !is_recent {
            *place = RecentWrite { hash, at_ms: now_ms };
        }
        !is_recent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sticky::table::Secret;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn the_store_hears_of_a_value_once_a_minute_or_ten_times_while_it_lasts() {
        let (secret, mut recent_writes) = (Secret::new([7; 16]), RecentWrites::default());
        let mut writes = |value: &[u8], remember, ms| {
            let value = secret.cookie(value);
            (0..ms).step_by(50).filter(|now| recent_writes.due("p", value, 1, remember, *now)).count()
        };
        assert_eq!(writes(b"one", 3 * HOUR, 600_000), 10);
        assert_eq!(writes(b"other", Duration::from_secs(20), 20_000), 10);
    }

    #[test]
    fn values_pools_and_times_are_told_of_by_themselves() {
        let (secret, mut recent_writes) = (Secret::new([7; 16]), RecentWrites::default());
        let [one, other] = [b"one".as_slice(), b"other"].map(|value| secret.cookie(value));
        for (pool, value, since) in [("p", one, 1), ("p", other, 1), ("q", one, 1), ("p", one, 2)] {
            assert!(recent_writes.due(pool, value, since, HOUR, 0));
            assert!(!recent_writes.due(pool, value, since, HOUR, 1));
        }
    }

    #[test]
    fn a_million_values_take_no_more_room_than_one() {
        let (secret, mut recent_writes) = (Secret::new([7; 16]), RecentWrites::default());
        for value in 0..100_000_u32 {
            assert!(recent_writes.due("p", secret.cookie(&value.to_le_bytes()), 1, HOUR, 0));
        }
        assert_eq!(recent_writes.places.len(), PLACES);
    }
}
