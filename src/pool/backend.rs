//! [`Backend`]: one named address with what lives longer than a snapshot: health, leases, counters.
//!
//! Weight, location and `backup` belong to the pool's snapshot, so changing them keeps the `Backend`. Opens no socket.
//! Invariants: [`Backend::usable`] costs two relaxed loads; what every connection reads shares no cache line with what
//! every connection writes; whatever changes whether a backend takes new clients tells `ready.rs`.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use crate::config::{self, Address, Check, Eject, OnMarkedDown};
use crate::counters::{BackendCounters, Counter, Padded, PoolCounters};
use crate::http::Refused;
use crate::pool::drain::Drain;
use crate::pool::figures::{BackendFigures, MovesByCause};
use crate::pool::health::{CheckHistory, CheckRules, CheckState, Ejection, FailedConnection, signed};
use crate::pool::line::{PlaceQueue, Places};
use crate::pool::ready::{LeaseCount, ReadyBackends};
use crate::sticky::cookie::CookieVerdict;

/// One counter for each verdict on a cookie.
pub(super) type CookieCounters = [Counter; CookieVerdict::WORDS.len()];

/// What the backends of a pool share and keep over reloads.
#[derive(Debug)]
pub(super) struct PoolShared {
    /// Name of the pool.
    pub(super) name: Arc<str>,
    /// Leases on all backends of the pool.
    pub(super) leases: Padded<AtomicU64>,
    /// Number of keyless picks so far.
    pub(super) draws: Padded<AtomicU64>,
    /// Number of known clients that got another backend, by cause.
    pub(super) breaks: MovesByCause,
    /// Those among them that had a backend of another name than the configuration has.
    pub(super) breaks_from_others: MovesByCause,
    /// Counters of each thread; none before the first use.
    pub(super) counters: OnceLock<Box<[Padded<PoolCounters>]>>,
    /// Number of `Set-Cookie` lines of backends with the name of the pool's own cookie.
    pub(super) dropped_cookies: AtomicU64,
    /// Requests with the pool's cookie, by thread and then by the number of the verdict.
    pub(super) cookies: Box<[Padded<CookieCounters>]>,
    /// Number of stick-table entries that were worth keeping and were evicted.
    pub(super) evicted_displaced: AtomicU64,
    /// Number of stick-table entries that were worth keeping and found no room.
    pub(super) refused_entries: AtomicU64,
    /// True once the pool was seen with work or trouble.
    pub(super) busy: AtomicBool,
    /// Held while an ejection is decided, so that two at once cannot exceed the limits together.
    pub(super) ejecting: Mutex<()>,
    /// What the pool in force keeps between picks.
    pub(super) ready: ArcSwapOption<ReadyBackends>,
    /// Clients that wait for a place at a full backend.
    pub(super) queue: PlaceQueue,
}

impl PoolShared {
    pub(super) fn new(name: &str, workers: usize) -> Self {
        Self {
            name: name.into(),
            leases: Padded::default(),
            draws: Padded::default(),
            breaks: MovesByCause::default(),
            breaks_from_others: MovesByCause::default(),
            counters: OnceLock::new(),
            dropped_cookies: AtomicU64::new(0),
            cookies: (0..workers).map(|_| Padded::default()).collect(),
            evicted_displaced: AtomicU64::new(0),
            refused_entries: AtomicU64::new(0),
            busy: AtomicBool::new(false),
            ejecting: Mutex::new(()),
            ready: ArcSwapOption::empty(),
            queue: PlaceQueue::default(),
        }
    }
}

/// One named address of a pool. Identity is pool + name + address.
pub struct Backend {
    pub(super) shared: Arc<PoolShared>,
    name: Arc<str>,
    address: Address,
    counters: Arc<[Padded<BackendCounters>]>,
    pub(super) figures: Arc<BackendFigures>,
    /// Copy of the `CheckState` in `checks`, for readers without the lock.
    standing: AtomicU8,
    /// Copy of the end of the last ejection in `ejection`, for readers without the lock.
    ejected_until_ms: AtomicU64,
    failures: AtomicU32,
    closing: AtomicBool,
    /// The last checks were good, and only the damping of flaps keeps the backend down.
    damped: AtomicBool,
    pub(super) drain: Drain,
    /// When a check last found the backend up again, as [`health::ClockMs`](super::health::ClockMs); 0 = the backend
    /// never was down.
    pub(super) rose_ms: AtomicI64,
    pub(super) ejection: Mutex<Ejection>,
    pub(super) checks: Mutex<Checks>,
    refusals: Mutex<Option<ResponseRefusals>>,
    pub(super) leases: Padded<LeaseCount>,
    pub(super) places: Places,
}

#[derive(Debug)]
pub(super) struct Checks {
    pub(super) checked: CheckHistory,
    /// What the last check found wrong; empty after a good check.
    pub(super) complaint: String,
}

/// Responses of a backend that were refused.
#[derive(Debug, Clone, Copy)]
struct ResponseRefusals {
    /// Why the last one was.
    why: Refused,
    count: u64,
    /// When the last one came.
    at_ms: u64,
}

/// How long the status shows that a response was refused.
const REFUSAL_SHOWN_MS: u64 = 600_000;

/// What a backend can do now, from worst to best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// A check failed, or a reload added the backend and no check has been good yet, or its name has no address.
    Down,
    /// Connections failed; the backend gets new ones only when no other backend is usable.
    Ejected,
    /// The backend takes connections.
    Usable,
}

impl Backend {
    /// `before` is the backend that had this name at another address; its counters and its drain are kept.
    pub(super) fn new(
        shared: Arc<PoolShared>,
        config: &config::Backend,
        before: Option<&Self>,
        workers: usize,
        standing: CheckState,
    ) -> Self {
        let name = before.map_or_else(|| config.name.as_str().into(), |before| before.name.clone());
        let counters =
            before.map_or_else(|| (0..workers).map(|_| Padded::default()).collect(), |before| before.counters.clone());
        let address = config.address.clone();
        Self {
            shared,
            name,
            address,
            counters,
            figures: before.map_or_else(Arc::default, |before| before.figures.clone()),
            standing: AtomicU8::new(standing as u8),
            ejected_until_ms: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            closing: AtomicBool::new(false),
            damped: AtomicBool::new(false),
            rose_ms: AtomicI64::new(0),
            drain: Drain::carried(before.map(|before| &before.drain)),
            ejection: Mutex::default(),
            checks: Mutex::new(Checks { checked: CheckHistory::new(standing), complaint: String::new() }),
            refusals: Mutex::default(),
            leases: Padded::default(),
            places: Places::of(config.max_connections),
        }
    }

    /// Name of the backend in its pool.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Name of the pool that the backend belongs to.
    pub fn pool_name(&self) -> &str {
        &self.shared.name
    }

    /// Name of the backend, for whatever outlives the snapshot.
    pub fn name_shared(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// Name of the pool, shared with it.
    pub fn pool_name_shared(&self) -> &Arc<str> {
        &self.shared.name
    }

    /// True if the backend belongs to the pool with this shared part.
    pub(super) fn is_of(&self, shared: &Arc<PoolShared>) -> bool {
        Arc::ptr_eq(&self.shared, shared)
    }

    /// Address that connections go to.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// True if both are the same backend to known clients: the name was never removed between them, whatever the
    /// address.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.counters, &other.counters)
    }

    /// Counters of one worker for this backend.
    pub fn counters(&self, worker: usize) -> &BackendCounters {
        &self.counters[worker].0
    }

    /// Counters of one worker for the pool of this backend.
    #[inline]
    pub fn pool_counters(&self, worker: usize) -> &PoolCounters {
        self.shared.counters(worker)
    }

    /// Counters of all workers, to be summed at a scrape.
    pub fn all_counters(&self) -> &[Padded<BackendCounters>] {
        &self.counters
    }

    /// Number of leases held now.
    pub fn leases(&self) -> u64 {
        self.leases.0.value()
    }

    /// True if the backend takes connections.
    #[inline]
    pub fn usable(&self, now_ms: u64) -> bool {
        self.health(now_ms) == Health::Usable
    }

    /// What checks and failed connections allow now.
    #[inline]
    pub fn health(&self, now_ms: u64) -> Health {
        if !self.standing().serves() {
            Health::Down
        } else if self.ejected_until_ms.load(Relaxed) > now_ms {
            Health::Ejected
        } else {
            Health::Usable
        }
    }

    /// Whether the backend has had a connection or a connect that failed, was down, is ejected or drained.
    pub(super) fn is_busy(&self, now_ms: u64) -> bool {
        let counted = |own: &BackendCounters| own.connections.value() | own.connect_failures.value() != 0;
        let was_down = self.rose_ms.load(Relaxed) != 0;
        was_down
            || self.health(now_ms) != Health::Usable
            || self.draining()
            || self.counters.iter().any(|own| counted(&own.0))
    }

    /// State that the checks have found.
    #[inline]
    pub fn standing(&self) -> CheckState {
        const STANDINGS: [CheckState; 4] =
            [CheckState::Unchecked, CheckState::Awaited, CheckState::Up, CheckState::Down];
        STANDINGS[usize::from(self.standing.load(Relaxed)) % STANDINGS.len()]
    }

    /// True while the backend is down although its checks are good, because it has flapped.
    pub fn damped(&self) -> bool {
        self.damped.load(Relaxed)
    }

    /// State as one word: `up`, `unchecked`, `awaited`, `down`, `damped` or `ejected`.
    pub fn state_word(&self, now_ms: u64) -> &'static str {
        match (self.standing(), self.health(now_ms)) {
            (_, Health::Ejected) => "ejected",
            (CheckState::Down, _) if self.damped() => "damped",
            (CheckState::Unchecked, _) => "unchecked",
            (CheckState::Awaited, _) => "awaited",
            (CheckState::Up, _) => "up",
            (CheckState::Down, _) => "down",
        }
    }

    /// What the last check found wrong; empty if it was good or there was none.
    pub fn complaint(&self) -> String {
        lock(&self.checks).complaint.clone()
    }

    /// Notes a response of the backend that was refused.
    pub fn response_refused(&self, why: Refused, now_ms: u64) {
        let mut refusals = lock(&self.refusals);
        *refusals = Some(ResponseRefusals { why, count: refusals.map_or(0, |before| before.count) + 1, at_ms: now_ms });
    }

    /// Why responses of the backend are refused; `None`: none was in the last ten minutes.
    pub fn response_complaint(&self, now_ms: u64) -> Option<String> {
        let recent = |refusals: &ResponseRefusals| now_ms.saturating_sub(refusals.at_ms) < REFUSAL_SHOWN_MS;
        let ResponseRefusals { why, count, .. } = lock(&self.refusals).filter(recent)?;
        Some(format!("response refused: {}: {} ({count} so far)", why.word(), why.meaning().trim_end_matches('.')))
    }

    /// True while a check has marked the backend down and `on_marked_down = "close"`: open connections to it are
    /// closed, a few at a time.
    #[inline]
    pub fn closing(&self) -> bool {
        self.closing.load(Relaxed)
    }

    /// Counts one check; the error is what the check found wrong. Returns the new state, if it changed.
    pub fn checked(
        &self,
        result: Result<(), &str>,
        check: &Check,
        on_marked_down: OnMarkedDown,
        now_ms: u64,
    ) -> Option<CheckState> {
        let mut checks = lock(&self.checks);
        let before = checks.checked.standing();
        let rules = CheckRules::from(check);
        let after = checks.checked.observe(result.is_ok(), rules, now_ms);
        let damped = checks.checked.damped(rules);
        self.show_damped(damped.is_some());
        checks.complaint = match (result, damped) {
            (Err(complaint), _) => complaint.to_owned(),
            (Ok(()), Some((good, needed))) => {
                format!("answers, held down by flap_damping: {good} of {needed} good checks")
            }
            (Ok(()), None) => String::new(),
        };
        if after == CheckState::Up && matches!(before, CheckState::Down | CheckState::Awaited) {
            self.rose_ms.store(signed(now_ms.max(1)), Relaxed);
            self.pardon(now_ms);
        }
        self.figures.count_change(before, after);
        self.show_standing(after, on_marked_down);
        (before != after).then_some(after)
    }

    /// Copies the state by checks to where connections read it; a source or a name may have the backend be down all the same.
    pub(super) fn show_standing(&self, standing: CheckState, on_marked_down: OnMarkedDown) {
        let standing = if self.drain.is_out() { CheckState::Down } else { standing };
        if self.standing.swap(standing as u8, Relaxed) != standing as u8 {
            self.ready_changed();
        }
        self.closing.store(standing == CheckState::Down && on_marked_down == OnMarkedDown::Close, Relaxed);
    }

    /// Copies the damping of flaps to where the status reads it.
    pub(super) fn show_damped(&self, damped: bool) {
        self.damped.store(damped, Relaxed);
    }

    /// Copies the ejection to where connections read it.
    pub(super) fn show_ejection(&self, ejection: &Ejection) {
        self.failures.store(ejection.failures(), Relaxed);
        if self.ejected_until_ms.swap(ejection.until_ms(), Relaxed) != ejection.until_ms() {
            self.ready_changed();
        }
    }

    /// End of the last ejection, which may be over.
    pub(super) fn ejected_until_ms(&self) -> u64 {
        self.ejected_until_ms.load(Relaxed)
    }

    /// Says that the backend may take new clients now, or not any more.
    pub(super) fn ready_changed(&self) {
        if let Some(ready) = &*self.shared.ready.load() {
            ready.look_again();
        }
        self.call_those_that_wait();
    }

    /// Forgets the result of all checks, because checks were switched off.
    pub fn unchecked(&self, now_ms: u64) {
        let mut checks = lock(&self.checks);
        if checks.checked.standing() != CheckState::Unchecked {
            let unchecked = CheckHistory::new(CheckState::Unchecked);
            let checked = CheckHistory { since_ms: Some(signed(now_ms)), ..unchecked };
            *checks = Checks { checked, complaint: String::new() };
            self.show_standing(CheckState::Unchecked, OnMarkedDown::Keep);
            self.show_damped(false);
        }
    }

    /// Counts a failed connection. Returns how long the backend is ejected from now on; `None` = it is not. The caller
    /// holds the pool's `ejecting`.
    pub(super) fn connection_failed(
        &self,
        failed: FailedConnection,
        eject: &Eject,
        now_ms: u64,
        allowed: impl FnOnce() -> bool,
    ) -> Option<Duration> {
        let mut ejection = lock(&self.ejection);
        let ejected = ejection.failed(failed, eject, now_ms, allowed);
        self.show_ejection(&ejection);
        ejected
    }

    /// Ends an ejection, because checks have found the backend up again since its connections failed.
    fn pardon(&self, now_ms: u64) {
        let mut ejection = lock(&self.ejection);
        ejection.pardoned(now_ms);
        self.show_ejection(&ejection);
    }

    /// Forgets failures. Writes shared memory only if there were some.
    #[inline]
    pub fn connect_succeeded(&self) {
        if self.failures.load(Relaxed) > 0 {
            let mut ejection = lock(&self.ejection);
            ejection.succeeded();
            self.failures.store(0, Relaxed);
        }
    }

    /// True if the backend takes no new clients.
    #[inline]
    pub fn draining(&self) -> bool {
        self.drain.is_on()
    }

    /// True if the deadline has passed: the backend serves no client, and open connections are closed.
    #[inline]
    pub fn drained(&self, now_ms: u64) -> bool {
        self.drain.is_over(now_ms)
    }

    /// Runtime state as one word: `draining` or `drained`; `None` = neither.
    pub fn runtime_word(&self, now_ms: u64) -> Option<&'static str> {
        match (self.draining(), self.drained(now_ms)) {
            (false, _) => None,
            (true, false) => Some("draining"),
            (true, true) => Some("drained"),
        }
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backend({}/{} {})", self.shared.name, self.name, self.address)
    }
}

/// Locks even after a panic elsewhere: counts that it left are still good enough to continue with.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
