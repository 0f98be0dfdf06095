//! Which values a thread has told the store of lately.
//!
//! Decides when the store hears again of a value that is in use. Reads no clock. Invariant: as large at the end as at
//! the beginning; two values that share a place cost a message more, never one less.

use std::time::Duration;

use ahash::RandomState;

use crate::sticky::table::KeyHash;

/// Values that are kept apart: 128 KiB a thread, once there is a store.
const PLACES: usize = 8_192;

/// However long a value is remembered, the store hears of it as often as this.
const OFTEN_ENOUGH: Duration = Duration::from_secs(60);

/// What one thread has told.
#[derive(Debug, Default)]
pub struct Notes {
    places: Vec<Note>,
    state: RandomState,
}

/// When somebody was told last, in milliseconds; of whom and since when only a part of a hash says.
#[derive(Debug, Clone, Copy, Default)]
struct Note {
    whose: u64,
    at_ms: u64,
}

/// How often the store hears of a value that is in use, which it forgets after `remember`.
pub fn every(remember: Duration) -> Duration {
    (remember / 10).clamp(Duration::from_millis(100), OFTEN_ENOUGH)
}

impl Notes {
    /// Whether the store is to be told of a value of `pool`, which is in use; if so, it counts as told. `since`: another
    /// number once the store may have lost what it was told.
    pub fn due(&mut self, pool: &str, value: KeyHash, since: u64, remember: Duration, now_ms: u64) -> bool {
        if self.places.is_empty() {
            self.places.resize(PLACES, Note::default());
        }
        let whose = self.state.hash_one((pool, value, since)).max(1);
        let note = &mut self.places[whose as usize % PLACES];
        let told = note.whose == whose && now_ms.saturating_sub(note.at_ms) < every(remember).as_millis() as u64;
        if !told {
            *note = Note { whose, at_ms: now_ms };
        }
        !told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sticky::table::Secret;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn the_store_hears_of_a_value_once_a_minute_or_ten_times_while_it_lasts() {
        let (secret, mut notes) = (Secret::new([7; 16]), Notes::default());
        let mut told = |value: &[u8], remember, ms| {
            let value = secret.cookie(value);
            (0..ms).step_by(50).filter(|now| notes.due("p", value, 1, remember, *now)).count()
        };
        assert_eq!(told(b"one", 3 * HOUR, 600_000), 10);
        assert_eq!(told(b"other", Duration::from_secs(20), 20_000), 10);
    }

    #[test]
    fn values_pools_and_times_are_told_of_by_themselves() {
        let (secret, mut notes) = (Secret::new([7; 16]), Notes::default());
        let [one, other] = [b"one".as_slice(), b"other"].map(|value| secret.cookie(value));
        for (pool, value, since) in [("p", one, 1), ("p", other, 1), ("q", one, 1), ("p", one, 2)] {
            assert!(notes.due(pool, value, since, HOUR, 0));
            assert!(!notes.due(pool, value, since, HOUR, 1));
        }
    }

    #[test]
    fn a_million_values_take_no_more_room_than_one() {
        let (secret, mut notes) = (Secret::new([7; 16]), Notes::default());
        for value in 0..100_000_u32 {
            assert!(notes.due("p", secret.cookie(&value.to_le_bytes()), 1, HOUR, 0));
        }
        assert_eq!(notes.places.len(), PLACES);
    }
}
