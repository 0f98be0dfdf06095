//! What a failed connect means: try the same backend again, try the next, or give up.
//!
//! Opens nothing and knows no clock: time is an argument, in milliseconds. Invariant: no attempt begins after the
//! budget is spent, and a local error never leads to another backend.

use crate::config;
use crate::fault::ConnectFailure;
use crate::outcome::Ended;

/// A known key's backend is tried again after this long.
const RETRY_AFTER_MS: u64 = 200;

/// How long that second try may take after the first timed out: it only has to catch a backend that is back, and the
/// client has waited for a whole `connect_timeout` already. With the pause before it well below 300 ms.
const RETRY_AFTER_TIMEOUT_MS: u64 = 40;

/// The pool's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// One attempt.
    pub timeout_ms: u64,
    /// All attempts.
    pub budget_ms: u64,
    /// More tries at a known key's backend.
    pub sticky_retries: u32,
}

impl Rules {
    /// Those of a pool.
    pub fn of(pool: &config::Pool) -> Self {
        Self {
            timeout_ms: pool.connect_timeout.as_millis() as u64,
            budget_ms: pool.connect_budget.as_millis() as u64,
            sticky_retries: pool.sticky_retries,
        }
    }
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextAttempt {
    /// The same backend again, at this time.
    SameAt(u64),
    /// The next candidate, now.
    Another,
    /// Nothing: the connection ends.
    GiveUp(Ended),
}

/// The attempts of one connection.
#[derive(Debug, Clone, Copy)]
pub struct Attempts {
    rules: Rules,
    ends_ms: u64,
    retries_left: u32,
    after_timeout: bool,
    made: u8,
}

impl Attempts {
    /// Before the first. `keyed`: the backend was chosen by a key, which should not move lightly.
    pub fn new(rules: Rules, keyed: bool, now_ms: u64) -> Self {
        let retries_left = if keyed { rules.sticky_retries } else { 0 };
        Self { rules, ends_ms: now_ms + rules.budget_ms, retries_left, after_timeout: false, made: 0 }
    }

    /// Begins an attempt; answers its deadline.
    pub fn begin(&mut self, now_ms: u64) -> u64 {
        self.made = self.made.saturating_add(1);
        let timeout_ms = match self.after_timeout {
            true => self.rules.timeout_ms.min(RETRY_AFTER_TIMEOUT_MS),
            false => self.rules.timeout_ms,
        };
        (now_ms + timeout_ms).min(self.ends_ms)
    }

    /// The next one is at another backend, where another connection of the key has gone.
    pub fn elsewhere(&mut self) {
        self.after_timeout = false;
    }

    /// How many were begun.
    pub fn made(&self) -> u8 {
        self.made
    }

    /// An attempt failed. `usable`: its backend has not been marked down meanwhile.
    pub fn failed(&mut self, failure: ConnectFailure, usable: bool, now_ms: u64) -> NextAttempt {
        if let ConnectFailure::Local(ended) = failure {
            return NextAttempt::GiveUp(ended);
        }
        let retry = self.retries_left > 0 && usable && !self.after_timeout;
        let at_ms = now_ms + if retry { RETRY_AFTER_MS } else { 0 };
        if at_ms >= self.ends_ms {
            return NextAttempt::GiveUp(failure.ended());
        }
        self.after_timeout = retry && failure == ConnectFailure::TimedOut;
        if retry {
            self.retries_left -= 1;
            NextAttempt::SameAt(at_ms)
        } else {
            // Only the key's own backend is tried again.
            self.retries_left = 0;
            NextAttempt::Another
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { timeout_ms: 2_000, budget_ms: 6_000, sticky_retries: 1 };

    #[test]
    fn a_known_key_is_tried_once_more_where_it_was() {
        let mut attempts = Attempts::new(RULES, true, 1_000);
        assert_eq!(attempts.begin(1_000), 3_000);
        assert_eq!(attempts.failed(ConnectFailure::Refused, true, 1_000), NextAttempt::SameAt(1_200));
        assert_eq!(attempts.begin(1_200), 3_200);
        assert_eq!(attempts.failed(ConnectFailure::Refused, true, 1_200), NextAttempt::Another);
        attempts.begin(1_200);
        assert_eq!(attempts.failed(ConnectFailure::Refused, true, 1_200), NextAttempt::Another);
        assert_eq!(attempts.made(), 3);
    }

    #[test]
    fn a_known_key_whose_backend_is_marked_down_moves_at_once_and_so_does_a_new_one() {
        assert_eq!(Attempts::new(RULES, true, 0).failed(ConnectFailure::Refused, false, 0), NextAttempt::Another);
        assert_eq!(Attempts::new(RULES, false, 0).failed(ConnectFailure::Refused, true, 0), NextAttempt::Another);
    }

    #[test]
    fn a_black_hole_costs_one_timeout_and_less_than_300_ms() {
        let mut attempts = Attempts::new(RULES, true, 0);
        let timed_out = attempts.begin(0);
        let NextAttempt::SameAt(again) = attempts.failed(ConnectFailure::TimedOut, true, timed_out) else { panic!() };
        let timed_out = attempts.begin(again);
        assert_eq!(attempts.failed(ConnectFailure::TimedOut, true, timed_out), NextAttempt::Another);
        assert_eq!(timed_out, 2_240);
        assert_eq!(attempts.begin(timed_out), 4_240);
    }

    #[test]
    fn the_budget_bounds_all_attempts() {
        let mut attempts = Attempts::new(RULES, false, 0);
        assert_eq!(attempts.begin(5_000), 6_000);
        assert_eq!(attempts.failed(ConnectFailure::TimedOut, true, 6_000), NextAttempt::GiveUp(Ended::ConnectTimeout));
    }

    #[test]
    fn a_local_error_ends_the_connection_and_moves_nobody() {
        let local = ConnectFailure::Local(Ended::NoPort);
        assert_eq!(Attempts::new(RULES, true, 0).failed(local, true, 0), NextAttempt::GiveUp(Ended::NoPort));
    }
}
