//! [`Pace`]: how fast a client sends the body of its request, and how long it takes (`body_rate_min`, `body_time_max`).
//!
//! Reads no clock. Only the time counts in which the client owes bytes: the backend has taken all that have come, and
//! nothing keeps the client from sending more. Invariant: a backend that does not read makes no client slow.

use crate::clock::Micros;
use crate::terminate::request_limits::BodyLimits;

/// Time that a client owes before its bytes are judged; those of each such time are judged by themselves.
const WINDOW: Micros = 10_000_000;
const WINDOW_S: u64 = WINDOW / 1_000_000;

/// The pace of one body.
#[derive(Debug)]
pub struct Pace {
    /// Least number of bytes in one window.
    least: u64,
    /// Most time in all.
    most: Micros,
    /// The client owes bytes since then; `None`: it owes none.
    since: Option<Micros>,
    /// Time that the client has owed before `since`, in all and in this window.
    owed: Micros,
    owed_in_window: Micros,
    /// Bytes that have come, in all, and those of them before this window.
    came: u64,
    came_before: u64,
}

impl Pace {
    /// The pace that these limits ask for; `None`: they ask for none.
    pub fn of(limits: BodyLimits) -> Option<Box<Self>> {
        let BodyLimits { rate_min, time_max, .. } = limits;
        let pace = || Self {
            least: rate_min.unwrap_or(0).saturating_mul(WINDOW_S),
            most: time_max.unwrap_or(Micros::MAX),
            since: None,
            owed: 0,
            owed_in_window: 0,
            came: 0,
            came_before: 0,
        };
        (rate_min.is_some() || time_max.is_some()).then(|| Box::new(pace()))
    }

    /// Notes how many bytes have come so far, and whether the client owes more.
    pub fn note(&mut self, came: u64, owes: bool, now: Micros) {
        if came != self.came || !owes {
            self.came = came;
            self.add_up(now);
            self.since = None;
        }
        if owes {
            self.since.get_or_insert(now);
        }
    }

    /// When the client may be too slow next; `None`: not before it owes bytes.
    pub fn due(&self) -> Option<Micros> {
        let left = (self.most.saturating_sub(self.owed)).min(WINDOW.saturating_sub(self.owed_in_window));
        self.since.map(|since| since.saturating_add(left))
    }

    /// True if the client has been too slow by now. Else the next window has begun, if this one is over.
    pub fn is_late(&mut self, now: Micros) -> bool {
        self.add_up(now);
        if self.owed >= self.most {
            return true;
        }
        if self.owed_in_window < WINDOW {
            return false;
        }
        let came = self.came - self.came_before;
        (self.owed_in_window, self.came_before) = (0, self.came);
        came < self.least
    }

    /// Adds the time since `since`, which is now from here on.
    fn add_up(&mut self, now: Micros) {
        if let Some(since) = &mut self.since {
            let owed = now.saturating_sub(std::mem::replace(since, now));
            self.owed += owed;
            self.owed_in_window += owed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Micros = 1_000_000;

    fn pace(rate_min: Option<u64>, time_max_s: Option<u64>) -> Pace {
        let time_max = time_max_s.map(|limit| limit * SECOND);
        *Pace::of(BodyLimits { most: u64::MAX, rate_min, time_max }).expect("a limit")
    }

    #[test]
    fn no_limit_has_no_pace() {
        assert!(Pace::of(BodyLimits { most: 9, rate_min: None, time_max: None }).is_none());
    }

    #[test]
    fn a_client_is_late_whose_bytes_of_one_window_are_too_few() {
        let mut pace = pace(Some(100), None);
        pace.note(0, true, SECOND);
        assert_eq!(pace.due(), Some(11 * SECOND));
        for second in 2..=10 {
            pace.note(111 * (second - 1), true, second * SECOND);
            assert!(!pace.is_late(second * SECOND));
        }
        pace.note(999, true, 11 * SECOND - 1);
        assert!(!pace.is_late(11 * SECOND - 1) && pace.is_late(11 * SECOND));
    }

    #[test]
    fn what_came_in_one_window_does_not_count_in_the_next_one() {
        let mut pace = pace(Some(100), None);
        pace.note(1_000_000, true, 0);
        assert!(!pace.is_late(10 * SECOND));
        assert_eq!(pace.due(), Some(20 * SECOND));
        pace.note(1_000_999, true, 15 * SECOND);
        assert!(pace.is_late(20 * SECOND));
    }

    #[test]
    fn time_counts_only_while_the_client_owes_bytes() {
        let mut pace = pace(Some(100), Some(12));
        pace.note(0, true, SECOND);
        // The backend takes no more for an hour, or the client waits for 100.
        pace.note(5, false, 4 * SECOND);
        assert!(pace.due().is_none() && !pace.is_late(3_600 * SECOND));
        pace.note(5, true, 3_600 * SECOND);
        assert_eq!(pace.due(), Some(3_607 * SECOND), "seven seconds are left of the first window");
        pace.note(2_000, true, 3_606 * SECOND);
        assert!(!pace.is_late(3_607 * SECOND), "enough has come");
        assert_eq!(pace.due(), Some(3_609 * SECOND), "two are left of all");
        pace.note(9_000_000, true, 3_608 * SECOND);
        assert!(!pace.is_late(3_609 * SECOND - 1) && pace.is_late(3_609 * SECOND));
    }
}
