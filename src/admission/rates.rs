//! [`RequestRates`]: how many requests keys may still make, by source, header, cookie or whatever names a client.
//!
//! Knows no request and reads no clock. A key is a hash under a secret of the process. Of each key, one number is kept: when
//! it will have its whole burst again; by then it is forgotten. Invariants: in any time, a key gets no more requests than
//! its burst and what the rate gives in that time; a request that is refused takes nothing; no more than [`KEYS_MAX`] keys
//! are kept, of which those that have most of their burst go first.

use std::hash::Hash;

use ahash::RandomState;

use super::shards::{SHARDS, Shards};
use crate::config::RequestRate;

/// Most keys of the process: about 17 MiB.
pub const KEYS_MAX: usize = 8_192 * SHARDS;

/// Of each key: when it will have its whole burst again, in nanoseconds of the clock.
#[derive(Debug)]
pub struct RequestRates {
    keys: Shards<u64, u64>,
    secret: RandomState,
}

impl Default for RequestRates {
    fn default() -> Self {
        Self { keys: Shards::new(), secret: RandomState::new() }
    }
}

impl RequestRates {
    /// Takes one request of what the key may have; an error: after so many nanoseconds there is one. `key`: what names the
    /// client, and the rule that it is counted by.
    pub fn take(&self, key: impl Hash, rate: &RequestRate, now_ns: u64) -> Result<(), u64> {
        let key = self.secret.hash_one(key);
        let mut shard = self.keys.lock(key);
        shard.sweep(KEYS_MAX / SHARDS, |whole_at| *whole_at > now_ns);
        if shard.entries.len() >= KEYS_MAX / SHARDS {
            let middle = middle(shard.entries.values().copied().collect());
            shard.entries.retain(|_, whole_at| *whole_at > middle);
        }
        let whole_at = shard.entries.entry(key).or_insert(now_ns);
        let next = (*whole_at).max(now_ns) + rate.interval_ns();
        match next.checked_sub(now_ns + rate.interval_ns() * u64::from(rate.burst)) {
            None | Some(0) => {
                *whole_at = next;
                Ok(())
            }
            Some(wait_ns) => Err(wait_ns),
        }
    }

    /// Keys that are kept now.
    #[cfg(test)]
    fn keys(&self) -> usize {
        self.keys.len()
    }
}

/// The value in the middle.
fn middle(mut values: Vec<u64>) -> u64 {
    let at = values.len() / 2;
    if values.is_empty() { 0 } else { *values.select_nth_unstable(at).1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KeyPart;

    const SECOND: u64 = 1_000_000_000;

    fn rate(count: u32, per_s: u32, burst: u32) -> RequestRate {
        RequestRate { count, per_s, burst, by: KeyPart::Source }
    }

    #[test]
    fn a_key_has_its_burst_and_then_its_rate() {
        let (rates, rate) = (RequestRates::default(), rate(2, 1, 3));
        let take = |key: &str, now_ns| rates.take(key, &rate, now_ns);
        let first: Vec<_> = (0..5).map(|_| take("a", SECOND)).collect();
        assert_eq!(first, [Ok(()), Ok(()), Ok(()), Err(SECOND / 2), Err(SECOND / 2)]);
        assert_eq!(take("b", SECOND), Ok(()), "another key");
        assert_eq!((take("a", SECOND * 3 / 2 - 1), take("a", SECOND * 3 / 2)), (Err(1), Ok(())));
        assert_eq!(take("a", SECOND * 3 / 2), Err(SECOND / 2), "a refusal takes nothing");
        let later: Vec<_> = (0..4).map(|_| take("a", 99 * SECOND).is_ok()).collect();
        assert_eq!(later, [true, true, true, false], "no more than a burst is saved");
    }

    #[test]
    fn a_rate_holds_for_any_time() {
        for (count, per_s, burst) in [(1, 1, 1), (7, 1, 1), (100, 60, 10), (1_000_000, 1, 50)] {
            let (rates, rate) = (RequestRates::default(), rate(count, per_s, burst));
            let step = rate.interval_ns() / 3 + 1;
            let taken = (0..3_000).filter(|n| rates.take(0, &rate, SECOND + n * step).is_ok()).count() as u64;
            let most = u64::from(burst) + 3_000 * step * u64::from(count) / (SECOND * u64::from(per_s));
            assert!((most - 2..=most).contains(&taken), "{count}/{per_s}: {taken} of {most}");
        }
    }

    #[test]
    fn keys_that_have_their_burst_are_forgotten_and_those_that_have_most_give_way() {
        let (rates, rate) = (RequestRates::default(), rate(1, 3_600, 10));
        (0..10).for_each(|_| rates.take("spent", &rate, SECOND).unwrap());
        for n in 0..KEYS_MAX + KEYS_MAX / 4 {
            let _ = rates.take(n, &rate, SECOND);
            if n % SHARDS == 0 {
                assert!(rates.take("spent", &rate, SECOND).is_err(), "it is kept beside {n} others");
            }
        }
        assert!(rates.keys() <= KEYS_MAX, "{}", rates.keys());
        let later = SECOND * 3_600 * 11;
        (0..KEYS_MAX).for_each(|n| rates.take(n, &rate, later + n as u64 * 10 * SECOND).unwrap());
        assert!(rates.keys() <= SHARDS * 1_024, "{}", rates.keys());
    }
}
