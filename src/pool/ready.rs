//! [`ReadyBackends`]: the backends of a pool that take new clients, kept for picks without a key and for load bounds, so
//! that a pick looks at few of them however many there are.
//!
//! One pool of each name is in force; its backends tell what changes. A change of health, of a drain or of the
//! configuration only says "look again": the next pick looks at every backend, once for all changes before it. A lease
//! that comes or goes is noted by itself, and only where the number matters: for `least_connections`, and where
//! `max_connections` makes clients overflow, or wait. Chooses nothing (`placement` does); the caller judges what was chosen once
//! more. Invariant: no thread waits for another; while nothing changes, a backend is kept as ready exactly if it takes
//! new clients and is not full.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::SeqCst};

use super::Pool;
use crate::config::{self, Balance, OnFull};
use crate::placement::{Known, Lineup, Placement};

/// The backends of one snapshot's pool that take new clients.
#[derive(Debug)]
pub(super) struct ReadyBackends {
    /// Tells the seats of this pool from those of its predecessors.
    number: u32,
    /// True for the pool that the backends tell what changes; the lineups of others are out of date.
    in_force: AtomicBool,
    /// When the next pick looks at every backend: at once, or when an ejection ends.
    look_again_ms: AtomicU64,
    /// A look has been completed: before that nothing that is kept holds.
    has_looked: AtomicBool,
    /// Held by the thread that looks at every backend.
    looking: Mutex<()>,
    /// Backends that take new clients, by index, as seen last.
    take_clients: Box<[AtomicBool]>,
    /// Leases that make a backend full, by index; empty: none is ever full, or full ones refuse.
    full_at: Box<[u64]>,
    by_leases: bool,
    /// Weight of all primaries that take new clients, as seen last.
    weight_up: AtomicU64,
    /// `None`: the method has a key.
    lineup: Option<Lineup>,
}

/// Leases of one backend, and the seat at which a pool in force wants to hear of them.
#[derive(Debug, Default)]
pub(super) struct LeaseCount {
    leases: AtomicU64,
    /// Number of the [`ReadyBackends`] in the upper half, index of the backend in the lower half; 0: none wants to hear.
    seat: AtomicU64,
}

impl LeaseCount {
    /// Leases held now. In one order with all changes of all threads: a lineup would miss one otherwise.
    pub(super) fn value(&self) -> u64 {
        self.leases.load(SeqCst)
    }

    pub(super) fn add(&self) {
        self.leases.fetch_add(1, SeqCst);
    }

    /// Adds one if there are fewer than `most`.
    pub(super) fn add_below(&self, most: u64) -> bool {
        self.leases.fetch_update(SeqCst, SeqCst, |leases| (leases < most).then_some(leases + 1)).is_ok()
    }

    pub(super) fn sub(&self) {
        self.leases.fetch_sub(1, SeqCst);
    }

    /// Where a change is to be noted.
    pub(super) fn seat(&self) -> Option<u64> {
        Some(self.seat.load(SeqCst)).filter(|seat| *seat != 0)
    }
}

impl ReadyBackends {
    /// What a pool keeps that is not in force yet; `None`: the method has a key, and the pool no load bound.
    pub(super) fn new(config: &config::Pool, placement: &Placement) -> Option<Self> {
        static NUMBERS: AtomicU32 = AtomicU32::new(1);
        let lineup = placement.lineup();
        if lineup.is_none() && config.load_bound.is_none() {
            return None;
        }
        let overflows = config.on_full != OnFull::Reject && config.backends.iter().any(|b| b.max_connections.is_some());
        let full_at = config.backends.iter().map(|backend| backend.max_connections.map_or(u64::MAX, u64::from));
        Some(Self {
            number: NUMBERS.fetch_add(1, Relaxed),
            in_force: AtomicBool::new(false),
            look_again_ms: AtomicU64::new(0),
            has_looked: AtomicBool::new(false),
            looking: Mutex::new(()),
            take_clients: config.backends.iter().map(|_| AtomicBool::new(false)).collect(),
            full_at: full_at.filter(|_| overflows).collect(),
            by_leases: lineup.is_some() && (overflows || config.balance == Balance::LeastConnections),
            weight_up: AtomicU64::new(0),
            lineup,
        })
    }

    /// True if a backend can be full, so that its clients overflow.
    pub(super) fn overflows(&self) -> bool {
        !self.full_at.is_empty()
    }

    /// Makes the next pick look at every backend.
    pub(super) fn look_again(&self) {
        self.look_again_ms.store(0, SeqCst);
    }

    /// Notes that the leases of the backend at this seat have changed.
    pub(super) fn note_leases(&self, seat: u64, leases: &LeaseCount) {
        // A seat of another number belongs to a predecessor; a pool that comes into force looks at every backend.
        if seat >> 32 == u64::from(self.number) {
            self.note(seat as u32 as usize, leases);
        }
    }

    fn note(&self, index: usize, leases: &LeaseCount) {
        let Some(lineup) = &self.lineup else { return };
        let full_at = self.full_at.get(index).copied().unwrap_or(u64::MAX);
        lineup.note(index, || {
            let leases = leases.value();
            (self.take_clients[index].load(SeqCst) && leases < full_at).then_some(leases)
        });
    }

    /// The backend for this draw; `None`: no backend takes new clients, or the pool has to look at each by itself.
    #[inline]
    pub(super) fn place(&self, pool: &Pool, draw: u64, known: Known<'_>, now_ms: u64) -> Option<usize> {
        let lineup = self.lineup.as_ref().filter(|_| self.is_current(pool, now_ms))?;
        pool.placement.place_in(lineup, draw, |index| pool.backends[index].leases(), known)
    }

    /// Weight of all primaries that take new clients; `None`: the pool has to look at each by itself.
    pub(super) fn weight_up(&self, pool: &Pool, now_ms: u64) -> Option<u64> {
        self.is_current(pool, now_ms).then(|| self.weight_up.load(SeqCst))
    }

    /// Looks again if that is due. False: nothing that is kept holds, because the pool is not in force, or another thread
    /// looks for the first time.
    #[inline]
    fn is_current(&self, pool: &Pool, now_ms: u64) -> bool {
        let in_force = self.in_force.load(Acquire);
        if in_force && self.look_again_ms.load(Acquire) <= now_ms {
            self.look(pool, now_ms);
        }
        in_force && self.has_looked.load(Acquire)
    }

    /// Looks at every backend, unless another thread does so now.
    #[cold]
    fn look(&self, pool: &Pool, now_ms: u64) {
        let Ok(_looking) = self.looking.try_lock() else { return };
        // What has changed before is seen now, and what changes from here on by the next look.
        self.look_again_ms.swap(u64::MAX, SeqCst);
        let (mut again_ms, mut weight_up) = (u64::MAX, 0);
        for (index, backend) in pool.backends.iter().enumerate() {
            let takes = backend.usable(now_ms) && !backend.draining();
            if self.take_clients[index].swap(takes, SeqCst) != takes {
                self.note(index, &backend.leases.0);
            }
            let config::Backend { weight, backup, .. } = pool.config.backends[index];
            weight_up += if takes && !backup { u64::from(weight) } else { 0 };
            let ejected_until_ms = backend.ejected_until_ms();
            if ejected_until_ms > now_ms {
                again_ms = again_ms.min(ejected_until_ms);
            }
        }
        self.weight_up.store(weight_up, SeqCst);
        self.look_again_ms.fetch_min(again_ms, SeqCst);
        self.has_looked.store(true, SeqCst);
    }
}

impl Pool {
    /// From here on the backends, which this pool may share with its predecessor, tell this pool what changes.
    pub fn put_in_force(&self) {
        let by_leases = self.ready.as_ref().filter(|ready| ready.by_leases);
        for (index, backend) in self.backends.iter().enumerate() {
            let seat = by_leases.map_or(0, |ready| u64::from(ready.number) << 32 | index as u64);
            backend.leases.0.seat.store(seat, SeqCst);
            backend.drain.is_weightless.store(self.config.backends[index].weight == 0, SeqCst);
        }
        let before = self.shared.ready.swap(self.ready.clone());
        if let Some(before) = before {
            before.in_force.store(false, SeqCst);
        }
        self.put_places_in_force();
        self.put_absences_in_force();
        // Nothing is noted in the new lineup yet. Leases taken until now are seen by the look, later ones are told.
        if let Some(ready) = &self.ready {
            ready.look_again();
            ready.in_force.store(true, SeqCst);
        }
    }
}
