//! What commands, connects and checks have made of a backend, as values: read here for another process, and put into
//! the backend of a pool that another process has served before.
//!
//! Reads no clock and no file, and decides nothing that the rules of `drain` and `health` decide. Invariant: what is put
//! in holds to the configuration of this pool: an ejection keeps the ceilings and lasts at most `eject.max`, and a pool
//! without checks or ejections takes none over.

use std::sync::atomic::Ordering::Relaxed;

use super::Pool;
use super::backend::{Backend, Checks, lock};
use super::drain::DrainTimes;
use super::health::{CheckHistory, CheckRules, ClockMs, Ejection, signed};

/// Ejections that count at most: each doubles the length, so this many reach any `eject.max`.
const EJECTIONS_MAX: u32 = 32;

/// Checks and flaps that count at most: far beyond what any pool asks for, and far from an overflow.
const CHECKS_MAX: u32 = 1 << 20;

/// The checks of a backend so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckResults {
    /// The state and the counts.
    pub history: CheckHistory,
    /// What the last check found wrong; empty if it was good.
    pub complaint: String,
    /// When a slow start began; `None`: the backend never was down.
    pub rose_ms: Option<ClockMs>,
}

impl Backend {
    /// The drain by command; `None`: the backend is not draining.
    pub fn drain_times(&self) -> Option<DrainTimes> {
        // The next process asks the agent and the source itself.
        self.drain.times().filter(|_| self.drain.is_by_command())
    }

    /// The failed connections so far.
    pub fn ejection(&self) -> Ejection {
        *lock(&self.ejection)
    }

    /// The checks so far.
    pub fn check_results(&self) -> CheckResults {
        let Checks { checked: history, complaint } = &*lock(&self.checks);
        let rose_ms = Some(self.rose_ms.load(Relaxed)).filter(|rose_ms| *rose_ms != 0);
        CheckResults { history: *history, complaint: complaint.clone(), rose_ms }
    }
}

impl Pool {
    /// Goes on with a drain by command of the backend at `index`.
    pub fn resume_drain(&self, index: usize, times: DrainTimes) {
        self.backends[index].drain.set(times);
        self.backends[index].ready_changed();
    }

    /// Goes on with an ejection of the backend at `index`; false if the backend would still be ejected and must not be,
    /// because too few others can serve, or because the pool ejects none.
    pub fn resume_ejection(&self, index: usize, before: Ejection, now_ms: u64) -> bool {
        let Some(eject) = &self.config.eject else { return !before.holds(now_ms) };
        let _one_at_a_time = lock(&self.shared.ejecting);
        let allowed = !before.holds(now_ms) || super::may_eject(self, index, now_ms);
        let latest = signed(now_ms).saturating_add(ClockMs::try_from(eject.max.as_millis()).unwrap_or(ClockMs::MAX));
        let mut ejection =
            Ejection { count: before.count.min(EJECTIONS_MAX), until_ms: before.until_ms.min(latest), ..before };
        if !allowed {
            ejection.pardoned(now_ms);
        }
        let backend = &self.backends[index];
        *lock(&backend.ejection) = ejection;
        backend.show_ejection(&ejection);
        allowed
    }

    /// Goes on with the checks of the backend at `index`; false if the pool checks none.
    pub fn resume_checks(&self, index: usize, before: CheckResults) -> bool {
        let Some(check) = &self.config.check else { return false };
        let CheckResults { history, complaint, rose_ms } = before;
        let (against, damping) = (history.against.min(CHECKS_MAX), history.damping.clamp(1, CHECKS_MAX));
        let backend = &self.backends[index];
        let mut checks = lock(&backend.checks);
        let since_ms = history.since_ms.or(checks.checked.since_ms);
        let history = CheckHistory { against, damping, since_ms, ..history };
        *checks = Checks { checked: history, complaint };
        backend.show_damped(history.damped(CheckRules::from(check)).is_some());
        // 0 stands for "never".
        backend.rose_ms.store(rose_ms.map_or(0, |rose_ms| if rose_ms == 0 { 1 } else { rose_ms }), Relaxed);
        backend.show_standing(history.standing(), self.config.on_marked_down);
        true
    }
}
