//! [`LogRules`]: which connections and requests get a line.
//!
//! Keeps no state. Invariant: a line that tells of a refusal, a move or a failure is never left out by `log.sample`; of
//! the others, whether one is written depends on the numbers of its connection and request alone, so all threads agree
//! and no pattern of the clients decides it.

use crate::config::{Log, LogLevel};
use crate::outcome::{Ended, Party};

/// What the configuration says about lines of connections and requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRules {
    /// Connections and requests have lines.
    pub connections: bool,
    /// So have connections that a balancer in front opens for itself (PROXY LOCAL).
    pub local: bool,
    /// One in so many lines is written of those that tell of nothing special.
    pub one_in: u32,
}

impl Default for LogRules {
    fn default() -> Self {
        Self::OFF
    }
}

impl LogRules {
    /// No lines.
    pub const OFF: Self = Self { connections: false, local: false, one_in: 1 };

    /// The rules of a configuration.
    pub fn of(log: &Log) -> Self {
        Self { connections: log.connections, local: log.level == LogLevel::Debug, one_in: log.sample }
    }

    /// For how many connections the line of this one stands; `None`: it has no line. `moved`: the client lost the
    /// backend that it had.
    pub fn connection(self, id: u64, local: bool, ended: Ended, moved: bool) -> Option<u32> {
        let one_in = self.share(moved || ended.fault() != Party::None);
        (self.connections && (self.local || !local) && is_sampled(one_in, id, 0)).then_some(one_in)
    }

    /// For how many requests the line of this one stands, which is the `request`th of its connection, counted from 1;
    /// `None`: it has no line. `failed`: it was refused, answered here or answered with an error.
    pub fn request(self, id: u64, request: u64, ended: Ended, moved: bool, failed: bool) -> Option<u32> {
        let one_in = self.share(moved || failed || ended.fault() != Party::None);
        (self.connections && is_sampled(one_in, id, request)).then_some(one_in)
    }

    fn share(self, special: bool) -> u32 {
        if special { 1 } else { self.one_in }
    }
}

/// True for one in `one_in` of all pairs of numbers.
fn is_sampled(one_in: u32, connection: u64, request: u64) -> bool {
    one_in <= 1 || spread(connection ^ spread(request).rotate_left(32)).is_multiple_of(one_in.into())
}

/// Spreads a number over 64 bits (SplitMix64, Steele et al. 2014).
fn spread(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENTH: LogRules = LogRules { connections: true, local: false, one_in: 10 };

    #[test]
    fn one_in_so_many_is_written_for_every_pattern_of_numbers() {
        for (connections, requests) in [(100_000, 1), (1, 100_000), (1_000, 100)] {
            for step in [1, 2, 10] {
                let all = (0..connections).flat_map(|one| (0..requests).map(move |two| (one * step, two * step)));
                let count = all.filter(|(one, two)| TENTH.request(*one, *two, Ended::Done, false, false).is_some());
                let count = count.count();
                assert!((9_500..10_500).contains(&count), "{count} of {connections} times {requests} by {step}");
            }
        }
        let count = (0..100_000).filter(|id| TENTH.connection(*id, false, Ended::Done, false) == Some(10)).count();
        assert!((9_500..10_500).contains(&count), "{count}");
    }

    #[test]
    fn what_went_wrong_is_always_told_and_stands_for_itself() {
        for ended in Ended::ALL.iter().filter(|ended| ended.fault() != Party::None) {
            assert!((0..100).all(|id| TENTH.connection(id, false, *ended, false) == Some(1)), "{}", ended.word());
            assert!((0..100).all(|id| TENTH.request(id, 1, *ended, false, false) == Some(1)), "{}", ended.word());
        }
        for (moved, failed) in [(true, false), (false, true)] {
            assert!((0..100).all(|id| TENTH.request(id, 1, Ended::Done, moved, failed) == Some(1)));
        }
        assert!((0..100).all(|id| TENTH.connection(id, false, Ended::Done, true) == Some(1)));
    }

    #[test]
    fn nothing_is_written_where_lines_are_off_or_the_connection_is_of_a_balancer_in_front() {
        assert_eq!(LogRules::OFF.connection(1, false, Ended::Silent, true), None);
        assert_eq!(LogRules::OFF.request(1, 1, Ended::RequestRefused, true, true), None);
        let all = LogRules { one_in: 1, ..TENTH };
        assert_eq!(all.connection(1, true, Ended::Silent, false), None);
        assert_eq!(LogRules { local: true, ..all }.connection(1, true, Ended::Silent, false), Some(1));
    }
}
