//! [`CheckHistory`] and [`Ejection`]: when a backend is up, by its checks and by its failed connections.
//!
//! Reads no clock, logs nothing, holds no lock. Invariants: a backend is ejected only while another can serve and at
//! most half of the pool's weight is ejected; a flapping backend needs more good checks each time, never fewer than
//! `rise`.
//!
//! # Flap damping
//!
//! A fall within [`FLAP_MS`] of the last rise doubles the good checks needed for the next one, up to `flap_damping`
//! times `rise`. After [`STABLE_MS`] without a fall, `rise` checks are enough again.

use std::net::IpAddr;
use std::time::Duration;

use super::early_closes::EarlyCloses;
use crate::config::{Check, Eject};

/// Longest time between a rise and a fall that counts as a flap.
pub const FLAP_MS: u64 = 60_000;
/// Time without a fall after which earlier flaps are forgotten.
pub const STABLE_MS: u64 = 300_000;

/// Milliseconds of the process's clock; negative: before the process started, where another process has seen it.
pub type ClockMs = i64;

/// A time of the process's clock among those before its start.
#[inline]
pub(super) fn signed(now_ms: u64) -> ClockMs {
    ClockMs::try_from(now_ms).unwrap_or(ClockMs::MAX)
}

/// Milliseconds from one time to a later one; 0 if it is not later.
#[inline]
pub(super) fn passed(since_ms: ClockMs, now_ms: u64) -> u64 {
    u64::try_from(signed(now_ms).saturating_sub(since_ms)).unwrap_or(0)
}

/// State of a backend by its checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum CheckState {
    /// Not checked yet, or not checked at all; counts as up.
    Unchecked,
    /// Added by a reload, and no check has been good yet; counts as down.
    Awaited,
    /// Up by the last checks.
    Up,
    /// Down by the last checks.
    Down,
}

impl CheckState {
    /// True if the backend may take connections.
    pub fn serves(self) -> bool {
        matches!(self, Self::Unchecked | Self::Up)
    }
}

/// How many checks change the state of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckRules {
    /// Good checks in a row until a backend is up.
    pub rise: u32,
    /// Failed checks in a row until a backend is down.
    pub fall: u32,
    /// Greatest factor by which flapping multiplies `rise`; 1: flapping multiplies nothing.
    pub flap_damping: u32,
}

impl From<&Check> for CheckRules {
    fn from(check: &Check) -> Self {
        Self { rise: check.rise, fall: check.fall, flap_damping: check.flap_damping }
    }
}

/// Counts the checks of one backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckHistory {
    /// State after the last check.
    pub standing: CheckState,
    /// Checks in a row that contradict `standing`.
    pub against: u32,
    /// Factor of `rise`, from 1 on.
    pub damping: u32,
    /// Time of the last change from down to up.
    pub rose_ms: Option<ClockMs>,
    /// Time of the last change of `standing`; `None`: not known.
    pub since_ms: Option<ClockMs>,
}

impl CheckHistory {
    /// Starts in this state, `Unchecked` or `Awaited`.
    pub fn new(standing: CheckState) -> Self {
        Self { standing, against: 0, damping: 1, rose_ms: None, since_ms: None }
    }

    /// State after the last check.
    pub fn standing(&self) -> CheckState {
        self.standing
    }

    /// Counts one check and returns the state after it. The first check decides alone; later, `fall` bad checks in a
    /// row take the backend down, and `rise` good checks, times the damping, bring it up again. An awaited backend
    /// stays down until its first good check.
    pub fn observe(&mut self, good: bool, rules: CheckRules, now_ms: u64) -> CheckState {
        let before = self.standing;
        match (self.standing, good) {
            (CheckState::Unchecked | CheckState::Awaited, true) => self.standing = CheckState::Up,
            (CheckState::Unchecked, false) => self.fall(rules, now_ms),
            (CheckState::Awaited, false) => {}
            (CheckState::Up, true) | (CheckState::Down, false) => self.against = 0,
            (CheckState::Up, false) => {
                self.against += 1;
                if self.against >= rules.fall {
                    self.fall(rules, now_ms);
                }
            }
            (CheckState::Down, true) => {
                self.against += 1;
                if self.against >= self.needed(rules) {
                    *self = Self { standing: CheckState::Up, against: 0, rose_ms: Some(signed(now_ms)), ..*self };
                }
            }
        }
        if self.standing != before {
            self.since_ms = Some(signed(now_ms));
        }
        self.standing
    }

    /// Good checks in a row so far, and those needed, of a backend that would be up without the damping; `None`: the
    /// damping holds nothing down.
    pub fn damped(&self, rules: CheckRules) -> Option<(u32, u32)> {
        let answers = self.standing == CheckState::Down && self.against >= rules.rise;
        answers.then(|| (self.against, self.needed(rules)))
    }

    fn needed(&self, rules: CheckRules) -> u32 {
        rules.rise.saturating_mul(self.damping.min(rules.flap_damping))
    }

    fn fall(&mut self, rules: CheckRules, now_ms: u64) {
        match self.rose_ms.map(|rose_ms| passed(rose_ms, now_ms)) {
            Some(up_ms) if up_ms < FLAP_MS => self.damping = (self.damping * 2).min(rules.flap_damping),
            Some(up_ms) if up_ms >= STABLE_MS => self.damping = 1,
            _ => {}
        }
        *self = Self { standing: CheckState::Down, against: 0, ..*self };
    }
}

/// A connection that failed through the fault of its backend, as far as can be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailedConnection {
    /// It was not established.
    Connect,
    /// The backend has ended it before its first byte; with what its client is counted with, if that has an address.
    EarlyClose(Option<IpAddr>),
}

/// Counts the failed connections of one backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ejection {
    /// Failed connects in a row.
    pub failures: u32,
    /// Connections that ended before the backend's first byte, in the same row.
    pub early_closes: EarlyCloses,
    /// Ejections so far; each doubles the next. For every `max` of service between two, one is forgotten.
    pub count: u32,
    /// Begin of the last ejection.
    pub since_ms: ClockMs,
    /// End of the last ejection.
    pub until_ms: ClockMs,
}

impl Ejection {
    /// Counts a failed connection. After `eject.failures` in a row the backend is ejected, for `base`, doubling to
    /// `max`, if `allowed` returns true; else the next failure tries again. Returns the length of an ejection that
    /// starts now. A failure during an ejection does not count: that connection was begun before.
    pub fn failed(
        &mut self,
        failed: FailedConnection,
        eject: &Eject,
        now_ms: u64,
        allowed: impl FnOnce() -> bool,
    ) -> Option<Duration> {
        if self.holds(now_ms) {
            return None;
        }
        match failed {
            FailedConnection::Connect => self.failures = self.failures.saturating_add(1),
            FailedConnection::EarlyClose(source) => self.early_closes.note(source),
        }
        let row = self.failures.saturating_add(self.early_closes.failures());
        if row < eject.failures.max(1) || !allowed() {
            return None;
        }
        let served_ms = u128::from(passed(self.until_ms, now_ms));
        let forgotten = served_ms / eject.max.as_millis().max(1);
        self.count = self.count.saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX));
        let length = eject.base.saturating_mul(1_u32.checked_shl(self.count).unwrap_or(u32::MAX)).min(eject.max);
        let length_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        *self = Self {
            failures: 0,
            early_closes: EarlyCloses::default(),
            // A count beyond the one that reaches `max` would only take longer to forget.
            count: if length < eject.max { self.count + 1 } else { self.count },
            since_ms: signed(now_ms),
            until_ms: signed(now_ms.saturating_add(length_ms)),
        };
        Some(length)
    }

    /// Starts the count of failures in a row again, because a connection succeeded.
    pub fn succeeded(&mut self) {
        (self.failures, self.early_closes) = (0, EarlyCloses::default());
    }

    /// Ends the ejection and forgets failures, because checks found the backend down and then up again. The next
    /// ejection is as long as if this one had run to its end.
    pub fn pardoned(&mut self, now_ms: u64) {
        self.succeeded();
        self.until_ms = self.until_ms.min(signed(now_ms));
    }

    /// True while the backend is ejected.
    pub fn holds(&self, now_ms: u64) -> bool {
        signed(now_ms) < self.until_ms
    }

    /// Number of failed connections in a row, also of those that count only once there are more.
    pub fn failures(&self) -> u32 {
        self.failures.saturating_add(self.early_closes.seen())
    }

    /// End of the last ejection, in milliseconds of the process's clock; 0: there was none, or before the process
    /// started.
    pub fn until_ms(&self) -> u64 {
        u64::try_from(self.until_ms).unwrap_or(0)
    }
}

/// A backend that could serve if it were not ejected: its weight is above 0 and its checks are good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EjectionPeer {
    /// Weight in the configuration, 1 to 256.
    pub weight: u16,
    /// True if it is a backup.
    pub backup: bool,
    /// True if it is ejected now.
    pub ejected: bool,
}

/// True if `candidate` may be ejected beside its `others`: one of them must be able to serve, and at most half of the
/// primaries' weight may be ejected. The weight of backups does not count.
pub fn may_eject(candidate: EjectionPeer, others: impl IntoIterator<Item = EjectionPeer>) -> bool {
    let weight_of = |peer: EjectionPeer| if peer.backup { 0 } else { u64::from(peer.weight) };
    let own = weight_of(candidate);
    let (mut total, mut ejected, mut serves) = (own, own, false);
    for peer in others {
        total += weight_of(peer);
        if peer.ejected {
            ejected += weight_of(peer);
        } else {
            serves = true;
        }
    }
    serves && (candidate.backup || 2 * ejected <= total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CONNECT: FailedConnection = FailedConnection::Connect;
    const RULES: CheckRules = CheckRules { rise: 2, fall: 3, flap_damping: 8 };
    const EJECT: Eject =
        Eject { failures: 3, base: Duration::from_secs(10), max: Duration::from_secs(300), early_close: false };

    /// Number of good checks until the backend is up, one a second from `now_ms` on.
    fn rise_from_down(checked: &mut CheckHistory, now_ms: &mut u64) -> u32 {
        for needed in 1.. {
            *now_ms += 1_000;
            if checked.observe(true, RULES, *now_ms) == CheckState::Up {
                return needed;
            }
        }
        unreachable!()
    }

    fn fall_from_up(checked: &mut CheckHistory, now_ms: u64) {
        for expected in [CheckState::Up, CheckState::Up, CheckState::Down] {
            assert_eq!(checked.observe(false, RULES, now_ms), expected);
        }
    }

    #[test]
    fn the_first_check_decides_alone() {
        let start = || CheckHistory::new(CheckState::Unchecked);
        assert!(start().standing().serves());
        assert_eq!(start().observe(true, RULES, 0), CheckState::Up);
        assert_eq!(start().observe(false, RULES, 0), CheckState::Down);
    }

    #[test]
    fn an_awaited_backend_waits_for_its_first_good_check() {
        let mut checked = CheckHistory::new(CheckState::Awaited);
        for _ in 0..9 {
            assert!(!checked.observe(false, RULES, 0).serves());
        }
        assert_eq!(checked.observe(true, RULES, 0), CheckState::Up);
    }

    #[test]
    fn one_good_check_between_bad_ones_starts_the_count_again() {
        let mut checked = CheckHistory::new(CheckState::Unchecked);
        for good in [true, false, false, true, false, false] {
            assert_eq!(checked.observe(good, RULES, 0), CheckState::Up);
        }
        assert_eq!(checked.observe(false, RULES, 0), CheckState::Down);
    }

    #[test]
    fn flapping_asks_for_more_good_checks_until_it_stops() {
        let mut checked = CheckHistory::new(CheckState::Unchecked);
        let mut now_ms = 0;
        checked.observe(true, RULES, now_ms);
        let mut needed = Vec::new();
        for _ in 0..5 {
            fall_from_up(&mut checked, now_ms + 100);
            needed.push(rise_from_down(&mut checked, &mut now_ms));
        }
        assert_eq!(needed, [2, 4, 8, 16, 16]);
        fall_from_up(&mut checked, now_ms + FLAP_MS);
        assert_eq!(rise_from_down(&mut checked, &mut now_ms), 16, "neither a flap nor stable");
        now_ms += STABLE_MS;
        fall_from_up(&mut checked, now_ms);
        assert_eq!(rise_from_down(&mut checked, &mut now_ms), 2, "forgotten");
    }

    #[test]
    fn damping_can_be_bounded_and_switched_off_also_while_it_holds() {
        for (flap_damping, expected) in [(1, [2, 2, 2]), (3, [4, 6, 6])] {
            let rules = CheckRules { flap_damping, ..RULES };
            let mut checked = CheckHistory::new(CheckState::Up);
            checked.rose_ms = Some(0);
            let needed = expected.map(|_| {
                for _ in 0..3 {
                    checked.observe(false, rules, 100);
                }
                (1..).find(|_| checked.observe(true, rules, 100) == CheckState::Up).unwrap()
            });
            assert_eq!(needed, expected, "flap_damping {flap_damping}");
        }
        let mut checked = CheckHistory { damping: 8, ..CheckHistory::new(CheckState::Down) };
        for _ in 0..3 {
            checked.observe(true, RULES, 0);
        }
        assert_eq!(checked.damped(RULES), Some((3, 16)));
        assert_eq!(checked.observe(true, CheckRules { flap_damping: 1, ..RULES }, 0), CheckState::Up);
    }

    #[test]
    fn a_backend_is_damped_only_while_its_good_checks_would_be_enough() {
        let mut checked = CheckHistory { damping: 2, ..CheckHistory::new(CheckState::Down) };
        let mut damped = |good| {
            checked.observe(good, RULES, 0);
            checked.damped(RULES)
        };
        assert_eq!([true, true, true].map(&mut damped), [None, Some((2, 4)), Some((3, 4))]);
        assert_eq!(damped(false), None, "it fails again");
        assert_eq!([true; 4].map(damped), [None, Some((2, 4)), Some((3, 4)), None], "and is up");
    }

    #[test]
    fn ejections_double_up_to_the_longest_and_are_forgotten_with_time() {
        let mut ejection = Ejection::default();
        let mut now_ms = 5_000;
        let mut eject_at = |now_ms: u64| {
            assert_eq!(ejection.failed(CONNECT, &EJECT, now_ms, || true), None);
            assert_eq!(ejection.failed(CONNECT, &EJECT, now_ms, || true), None);
            let length = ejection.failed(CONNECT, &EJECT, now_ms, || true).expect("the third in a row");
            assert_eq!(ejection.failed(CONNECT, &EJECT, now_ms + 1, || true), None, "already ejected");
            assert_eq!(ejection.until_ms(), now_ms + length.as_millis() as u64);
            (length.as_secs(), ejection.until_ms())
        };
        let mut lengths = Vec::new();
        for _ in 0..7 {
            let (length, until_ms) = eject_at(now_ms);
            lengths.push(length);
            now_ms = until_ms;
        }
        assert_eq!(lengths, [10, 20, 40, 80, 160, 300, 300]);
        let (length, until_ms) = eject_at(now_ms + 2 * 300_000);
        assert_eq!(length, 80, "two of five forgotten");
        assert_eq!(eject_at(until_ms + 24 * 3_600_000).0, 10, "all forgotten");
    }

    #[test]
    fn a_success_starts_the_count_of_failures_again() {
        let mut ejection = Ejection::default();
        for _ in 0..5 {
            assert_eq!(ejection.failed(CONNECT, &EJECT, 0, || true), None);
            assert_eq!(ejection.failed(CONNECT, &EJECT, 0, || true), None);
            ejection.succeeded();
        }
    }

    #[test]
    fn early_closes_of_three_sources_are_failures_of_the_same_row_as_failed_connects() {
        let early = |last: u8| FailedConnection::EarlyClose(Some([192, 0, 2, last].into()));
        let ejects = |row: &[FailedConnection]| {
            let mut ejection = Ejection::default();
            row.iter().position(|failed| ejection.failed(*failed, &EJECT, 0, || true).is_some())
        };
        assert_eq!(ejects(&[early(1); 100]), None, "one client cannot eject it");
        assert_eq!(ejects(&[early(1), early(2), early(2), CONNECT, early(1)]), None);
        assert_eq!(ejects(&[early(1), early(1), early(2), early(3)]), Some(3));
        assert_eq!(ejects(&[CONNECT, early(1), CONNECT, early(1), CONNECT]), Some(4));
        let mut ejection = Ejection::default();
        for failed in [early(1), early(2)] {
            assert_eq!(ejection.failed(failed, &EJECT, 0, || true), None);
        }
        assert_eq!(ejection.failures(), 2, "a first byte has something to forget");
        ejection.succeeded();
        assert_eq!((ejection, ejection.failed(early(3), &EJECT, 0, || true)), (Ejection::default(), None));
        let once = Eject { failures: 1, ..EJECT };
        assert_eq!(Ejection::default().failed(early(1), &once, 0, || true), None, "also where one failure is enough");
    }

    #[test]
    fn a_backend_that_checks_find_again_is_not_ejected_any_more_and_longer_the_next_time() {
        let mut ejection = Ejection::default();
        let mut eject = |now_ms: u64| (0..3).find_map(|_| ejection.failed(CONNECT, &EJECT, now_ms, || true));
        assert_eq!(eject(1_000).map(|length| length.as_secs()), Some(10));
        ejection.pardoned(2_000);
        assert_eq!((ejection.until_ms(), ejection.failures()), (2_000, 0));
        let mut eject = |now_ms: u64| (0..3).find_map(|_| ejection.failed(CONNECT, &EJECT, now_ms, || true));
        assert_eq!(eject(2_000).map(|length| length.as_secs()), Some(20));
    }

    #[test]
    fn a_spared_backend_is_asked_about_again_at_its_next_failure() {
        let mut ejection = Ejection::default();
        for _ in 0..5 {
            assert_eq!(ejection.failed(CONNECT, &EJECT, 0, || false), None);
        }
        assert!(ejection.failed(CONNECT, &EJECT, 0, || true).is_some());
    }

    #[test]
    fn ceilings_spare_the_last_and_the_heavier_half() {
        let peer = |weight, ejected| EjectionPeer { weight, backup: false, ejected };
        let backup = EjectionPeer { weight: 1, backup: true, ejected: false };
        assert!(!may_eject(peer(1, false), []), "the last");
        assert!(may_eject(peer(1, false), [peer(1, false)]), "half");
        assert!(!may_eject(peer(3, false), [peer(1, false)]), "three quarters");
        assert!(!may_eject(peer(1, false), [peer(1, true), peer(1, false)]), "two thirds");
        assert!(!may_eject(peer(1, false), [backup]), "all primaries");
        assert!(may_eject(backup, [peer(1, false)]));
        assert!(!may_eject(backup, [peer(1, true)]), "the last that serves");
    }

    proptest! {
        #[test]
        fn whatever_fails_in_whatever_order_the_ceilings_hold(
            members in proptest::collection::vec((1_u16..=256, proptest::bool::weighted(0.2)), 1..8),
            failing in proptest::collection::vec((0_usize..8, 0_u64..20_000), 0..200),
        ) {
            let mut ejections = vec![Ejection::default(); members.len()];
            let mut now_ms = 0;
            for (index, pause_ms) in failing {
                now_ms += pause_ms;
                let index = index % members.len();
                let peer = |((weight, backup), ejection): (&(u16, bool), &Ejection)| EjectionPeer {
                    weight: *weight, backup: *backup, ejected: ejection.until_ms() > now_ms,
                };
                let peers: Vec<EjectionPeer> = members.iter().zip(&ejections).map(peer).collect();
                let others = peers.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, peer)| *peer);
                ejections[index].failed(CONNECT, &EJECT, now_ms, || may_eject(peers[index], others));
                let ejected = |index: usize| ejections[index].until_ms() > now_ms;
                prop_assert!((0..members.len()).any(|index| !ejected(index)), "one is left");
                let weight = |only_ejected: bool| -> u64 {
                    (0..members.len())
                        .filter(|index| !members[*index].1 && (!only_ejected || ejected(*index)))
                        .map(|index| u64::from(members[index].0)).sum()
                };
                prop_assert!(2 * weight(true) <= weight(false));
            }
        }

        #[test]
        fn checks_never_change_a_standing_too_early(
            checks in proptest::collection::vec((proptest::bool::weighted(0.7), 1_u64..30_000), 1..300),
            rise in 1_u32..4, fall in 1_u32..4, flap_damping in 1_u32..9,
        ) {
            let mut checked = CheckHistory::new(CheckState::Unchecked);
            let (mut before, mut run, mut last, mut now_ms) = (CheckState::Unchecked, 0, None, 0);
            for (good, pause_ms) in checks {
                now_ms += pause_ms;
                run = if last == Some(good) { run + 1 } else { 1 };
                last = Some(good);
                let after = checked.observe(good, CheckRules { rise, fall, flap_damping }, now_ms);
                match (before, after) {
                    (CheckState::Up, CheckState::Down) => prop_assert!(!good && run >= fall),
                    (CheckState::Down, CheckState::Up) => prop_assert!(good && run >= rise),
                    (CheckState::Down, CheckState::Down) => prop_assert!(!good || run < rise * flap_damping),
                    (CheckState::Up, CheckState::Up) => prop_assert!(good || run < fall),
                    _ => {}
                }
                before = after;
            }
        }
    }
}
