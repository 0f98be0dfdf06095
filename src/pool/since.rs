//! Since when a backend is in its state, as the time since the last change.
//!
//! Changes no state and reads no clock. Invariant: the time belongs to the state of [`Backend::state_word`]; a drain by
//! command is another matter and has [`Backend::draining_for`].

use super::backend::{Backend, lock};
use super::health::{passed, signed};
use super::{Health, Pool};

impl Pool {
    /// Notes that backends which have no such time yet are in their state since now.
    pub fn date(&self, now_ms: u64) {
        for backend in self.backends.iter() {
            lock(&backend.checks).checked.since_ms.get_or_insert(signed(now_ms));
        }
    }
}

impl Backend {
    /// Milliseconds since a command drained the backend; `None`: it is not draining.
    pub fn draining_for(&self, now_ms: u64) -> Option<u64> {
        self.drain.times().map(|times| passed(times.since_ms, now_ms))
    }

    /// Milliseconds since the deadline of the drain passed; `None`: it has not.
    pub fn drained_for(&self, now_ms: u64) -> Option<u64> {
        let times = self.drain.times().filter(|_| self.drained(now_ms));
        times.map(|times| passed(times.deadline_ms, now_ms))
    }

    /// Milliseconds since the state of the backend last changed; `None`: not known. A backend that is held down because
    /// it flaps is in that state since it went down.
    pub fn state_for(&self, now_ms: u64) -> Option<u64> {
        let ejection = *lock(&self.ejection);
        if self.health(now_ms) == Health::Ejected {
            return Some(passed(ejection.since_ms, now_ms));
        }
        let by_checks = lock(&self.checks).checked.since_ms;
        // An ejection that has ended was another state, if checks have changed nothing since.
        let was_ejected = self.standing().serves() && ejection.until_ms > ejection.since_ms;
        let since_ms = by_checks.max(was_ejected.then_some(ejection.until_ms));
        since_ms.map(|since_ms| passed(since_ms, now_ms))
    }
}

#[cfg(test)]
mod tests {
    use crate::config::OnMarkedDown;
    use crate::pool::tests::{check, config};
    use crate::pool::{CheckResults, Pool};

    #[test]
    fn a_state_lasts_since_checks_or_an_ejection_last_changed_it() {
        let pool = Pool::new(&config(&["a", "b"]), None, 1);
        let backend = &pool.backends()[0];
        let state = |now_ms| (backend.state_word(now_ms), backend.state_for(now_ms));
        assert_eq!(state(10), ("unchecked", None));
        pool.date(100);
        assert_eq!(state(150), ("unchecked", Some(50)));
        let check = |good: bool, now_ms| {
            backend.checked(if good { Ok(()) } else { Err("refused") }, &check(), OnMarkedDown::Keep, now_ms);
        };
        check(true, 1_000);
        check(true, 2_000);
        pool.date(2_500);
        assert_eq!(state(3_000), ("up", Some(2_000)), "since the first good check");
        check(false, 4_000);
        check(false, 5_000);
        assert_eq!(state(6_000), ("down", Some(2_000)), "since the first of the failed checks that count");
        check(true, 7_000);
        check(true, 8_000);
        check(true, 9_000);
        assert_eq!(state(70_000), ("up", Some(62_000)));
        for failure in 0..3 {
            pool.connect_failed(backend, 80_000 + failure);
        }
        assert_eq!(state(85_002), ("ejected", Some(5_000)));
        assert_eq!(state(95_002), ("up", Some(5_000)), "since the ejection of 10 s ended");
        backend.unchecked(100_000);
        assert_eq!(state(100_500), ("unchecked", Some(500)));
    }

    #[test]
    fn a_state_that_another_process_has_seen_keeps_its_time() {
        let config = crate::config::Pool { check: Some(check()), ..config(&["a"]) };
        let [before, after, other] = [0; 3].map(|_| Pool::new(&config, None, 1));
        for pool in [&before, &after, &other] {
            pool.date(100);
        }
        before.backends()[0].checked(Err("refused"), &check(), OnMarkedDown::Keep, 5_000);
        let results = before.backends()[0].check_results();
        assert!(after.resume_checks(0, results.clone()));
        assert_eq!(after.backends()[0].state_for(9_000), Some(4_000));
        let undated = crate::pool::health::CheckHistory { since_ms: None, ..results.history };
        assert!(other.resume_checks(0, CheckResults { history: undated, ..results }));
        assert_eq!(other.backends()[0].state_for(9_000), Some(8_900), "that of an older version has none");
    }
}
