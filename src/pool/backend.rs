//! One named address with what lives longer than a snapshot: health, leases, counters.
//!
//! Weight, location and `backup` belong to the pool's snapshot, so changing them keeps the `Backend`. Opens no
//! socket. Invariants: leases are given back by `Drop` only; asking whether a backend is usable is two relaxed loads;
//! what is read for every connection shares no cache line with what is written for every connection.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::config::{self, Address, Check, Eject, OnMarkedDown};
use crate::counters::{BackendCounters, Padded};
use crate::outcome::BreakCause;
use crate::pool::drain::Drain;
use crate::pool::health::{CheckHistory, CheckState, Ejection};

/// What the backends of a pool share, reload after reload.
#[derive(Debug)]
pub(super) struct PoolShared {
    /// The pool's name.
    pub(super) name: Arc<str>,
    /// Leases on all its backends.
    pub(super) leases: Padded<AtomicU64>,
    /// Counts keyless picks.
    pub(super) draws: Padded<AtomicU64>,
    /// Known clients that got another backend, by cause.
    pub(super) breaks: [AtomicU64; BreakCause::ALL.len()],
    /// Entries of the stick table that were worth keeping and had to give way.
    pub(super) evicted_displaced: AtomicU64,
    /// Held while deciding about an ejection, so that two at once cannot exceed the ceilings together.
    pub(super) ejecting: Mutex<()>,
}

impl PoolShared {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            leases: Padded::default(),
            draws: Padded::default(),
            breaks: Default::default(),
            evicted_displaced: AtomicU64::new(0),
            ejecting: Mutex::new(()),
        }
    }
}

/// One named address of a pool. Identity is pool + name + address.
pub struct Backend {
    shared: Arc<PoolShared>,
    name: Arc<str>,
    address: Address,
    counters: Arc<[Padded<BackendCounters>]>,
    /// `CheckState` of `checks`, for readers without the lock.
    standing: AtomicU8,
    /// As `ejection` says, for readers without the lock.
    ejected_until_ms: AtomicU64,
    failures: AtomicU32,
    closing: AtomicBool,
    pub(super) drain: Drain,
    /// When a check last found it up again; 0 = it never was down.
    pub(super) rose_ms: AtomicU64,
    ejection: Mutex<Ejection>,
    checks: Mutex<Checks>,
    leases: Padded<AtomicU64>,
}

#[derive(Debug)]
struct Checks {
    checked: CheckHistory,
    /// What the last bad check found; empty after a good one.
    complaint: String,
}

/// What a backend can do now, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// A check found it bad, or it was added by a reload and not found good yet.
    Down,
    /// Connections to it failed; it is left alone for a while, unless nothing else is left.
    Ejected,
    /// It takes connections.
    Usable,
}

impl Backend {
    /// `before`: who had this name, with another address; its counters go on.
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
            standing: AtomicU8::new(standing as u8),
            ejected_until_ms: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            closing: AtomicBool::new(false),
            rose_ms: AtomicU64::new(0),
            drain: Drain::carried(before.map(|before| &before.drain)),
            ejection: Mutex::default(),
            checks: Mutex::new(Checks { checked: CheckHistory::new(standing), complaint: String::new() }),
            leases: Padded::default(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its pool's name.
    pub fn pool_name(&self) -> &str {
        &self.shared.name
    }

    /// Its name, to be kept.
    pub fn name_shared(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// Its pool's name, to be kept.
    pub fn pool_name_shared(&self) -> &Arc<str> {
        &self.shared.name
    }

    /// Whether it belongs to the pool that shares this.
    pub(super) fn is_of(&self, shared: &Arc<PoolShared>) -> bool {
        Arc::ptr_eq(&self.shared, shared)
    }

    /// Where it is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Whether both are one to those who have settled there: under one name without a break, at whatever address. One
    /// that was removed is nobody's predecessor.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.counters, &other.counters)
    }

    /// What this worker counts for it.
    pub fn counters(&self, worker: usize) -> &BackendCounters {
        &self.counters[worker].0
    }

    /// Every worker's counters, for a scrape.
    pub fn all_counters(&self) -> &[Padded<BackendCounters>] {
        &self.counters
    }

    /// Leases held now.
    pub fn leases(&self) -> u64 {
        self.leases.0.load(Relaxed)
    }

    /// Whether it takes connections.
    #[inline]
    pub fn usable(&self, now_ms: u64) -> bool {
        self.health(now_ms) == Health::Usable
    }

    /// What it can do now.
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

    /// What the checks say.
    #[inline]
    pub fn standing(&self) -> CheckState {
        const STANDINGS: [CheckState; 4] =
            [CheckState::Unchecked, CheckState::Awaited, CheckState::Up, CheckState::Down];
        STANDINGS[usize::from(self.standing.load(Relaxed)) % STANDINGS.len()]
    }

    /// One word for people: `up`, `unchecked`, `awaited`, `down` or `ejected`.
    pub fn state_word(&self, now_ms: u64) -> &'static str {
        match (self.standing(), self.health(now_ms)) {
            (_, Health::Ejected) => "ejected",
            (CheckState::Unchecked, _) => "unchecked",
            (CheckState::Awaited, _) => "awaited",
            (CheckState::Up, _) => "up",
            (CheckState::Down, _) => "down",
        }
    }

    /// What the last check complained of; empty if it was good or there was none.
    pub fn complaint(&self) -> String {
        lock(&self.checks).complaint.clone()
    }

    /// Marked down by a check, and `on_marked_down = "close"`: whoever holds a connection to it closes that,
    /// paced.
    #[inline]
    pub fn closing(&self) -> bool {
        self.closing.load(Relaxed)
    }

    /// The result of one check, with what a bad one complains of. The new standing, if it changed.
    pub fn checked(
        &self,
        result: Result<(), &str>,
        check: &Check,
        on_marked_down: OnMarkedDown,
        now_ms: u64,
    ) -> Option<CheckState> {
        let mut checks = lock(&self.checks);
        let before = checks.checked.standing();
        let after = checks.checked.observe(result.is_ok(), check.rise, check.fall, now_ms);
        checks.complaint.clear();
        checks.complaint.push_str(result.err().unwrap_or(""));
        if after == CheckState::Up && matches!(before, CheckState::Down | CheckState::Awaited) {
            self.rose_ms.store(now_ms.max(1), Relaxed);
            self.pardon(now_ms);
        }
        self.standing.store(after as u8, Relaxed);
        self.closing.store(after == CheckState::Down && on_marked_down == OnMarkedDown::Close, Relaxed);
        (before != after).then_some(after)
    }

    /// Checks were switched off: what they said holds no longer.
    pub fn unchecked(&self) {
        let mut checks = lock(&self.checks);
        if checks.checked.standing() != CheckState::Unchecked {
            *checks = Checks { checked: CheckHistory::new(CheckState::Unchecked), complaint: String::new() };
            self.standing.store(CheckState::Unchecked as u8, Relaxed);
            self.closing.store(false, Relaxed);
        }
    }

    /// How long it is ejected for from now on, if it is. The pool's `ejecting` is held.
    pub(super) fn connect_failed(
        &self,
        eject: &Eject,
        now_ms: u64,
        allowed: impl FnOnce() -> bool,
    ) -> Option<Duration> {
        let mut ejection = lock(&self.ejection);
        let ejected = ejection.failed(eject, now_ms, allowed);
        self.failures.store(ejection.failures(), Relaxed);
        self.ejected_until_ms.store(ejection.until_ms(), Relaxed);
        ejected
    }

    /// Checks have found it up again since its connections failed.
    fn pardon(&self, now_ms: u64) {
        let mut ejection = lock(&self.ejection);
        ejection.pardoned(now_ms);
        self.failures.store(0, Relaxed);
        self.ejected_until_ms.store(ejection.until_ms(), Relaxed);
    }

    /// Writes something shared only after failures.
    #[inline]
    pub(super) fn connect_succeeded(&self) {
        if self.failures.load(Relaxed) > 0 {
            let mut ejection = lock(&self.ejection);
            ejection.succeeded();
            self.failures.store(0, Relaxed);
        }
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backend({}/{} {})", self.shared.name, self.name, self.address)
    }
}

/// The right to use one backend, counted while held.
#[derive(Debug)]
pub struct Lease(Arc<Backend>);

impl Lease {
    /// Takes one.
    pub fn new(backend: &Arc<Backend>) -> Self {
        backend.leases.0.fetch_add(1, Relaxed);
        backend.shared.leases.0.fetch_add(1, Relaxed);
        Self(Arc::clone(backend))
    }

    /// The backend it is for.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.0
    }
}

impl std::ops::Deref for Lease {
    type Target = Backend;

    fn deref(&self) -> &Backend {
        &self.0
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.leases.0.fetch_sub(1, Relaxed);
        self.0.shared.leases.0.fetch_sub(1, Relaxed);
    }
}

/// A panic elsewhere leaves counts that are still good enough to go on with.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
