//! [`QueueVisit`]: the way of one client through the lines in which clients wait for a place at a full backend
//! (`on_full = "queue"`).
//!
//! Each backend has a line for clients that are known there or have their key there; the pool has one for new clients, for
//! which the first place counts that becomes free at any backend that may take them. A place that becomes free, on
//! whatever thread, is given to the client that came first among those of both lines: as a lease, before any other client
//! can take it. A client that has gone meanwhile gives it back, and the next one gets it.
//!
//! Waits by no clock and picks nothing: the caller picks again once the client is called. Invariants: while a client
//! waits that could take a place of a backend, the backend has none free, but for the moment in which it is given; the
//! number of its arrival stays with a client when it changes the line.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Poll, Waker};

use super::backend::PoolShared;
use super::line::{Given, Seat};
use super::{Backend, Holds, Lease, Pool};
use crate::outcome::Ended;

/// The place for which a client waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AwaitedPlace {
    /// One at the backend of this index, where the client is known or its key belongs.
    At(usize),
    /// The first that becomes free at a backend of these indexes, in rising order.
    AtAny(Vec<usize>),
}

impl Backend {
    /// What identifies the backend in the lines, as long as it lives.
    fn line(&self) -> usize {
        std::ptr::from_ref(self) as usize
    }

    /// Gives a place that has become free to the client that waits for it.
    #[inline]
    pub(super) fn place_is_free(self: &Arc<Self>) {
        let queue = &self.shared.queue;
        if queue.may_be_awaited(&self.places) {
            queue.give(self.line(), &self.places, || Some(Box::new(Lease::within_limit(self)?)));
        }
    }

    /// True if clients wait that could take a place of this backend.
    #[inline]
    pub fn is_awaited(&self) -> bool {
        self.waiting() > 0 || self.shared.queue.is_awaited_by_any(self.line())
    }

    /// True if clients may come to wait for a place of the backend, by the configuration in force.
    pub fn may_have_line(&self) -> bool {
        self.shared.queue.is_in_use.load(SeqCst) && self.places.most() < u64::MAX
    }

    /// Number of clients that wait for a place here, and nowhere else.
    pub fn waiting(&self) -> usize {
        self.places.waiting()
    }

    /// Calls the clients that wait here: the backend may take clients now, or not any more, so their places may be others.
    pub(super) fn call_those_that_wait(&self) {
        if self.shared.queue.may_be_awaited(&self.places) {
            self.shared.queue.look_again(Some(self.line()));
        }
    }

    /// True if the backend has as many leases as the configuration in force allows, or clients wait for one.
    #[inline]
    pub(super) fn has_line(&self) -> bool {
        self.leases() >= self.places.most() || self.is_awaited()
    }
}

impl Pool {
    /// True if clients may come to wait for places.
    pub fn may_have_lines(&self) -> bool {
        self.config.on_full.queue().is_some()
    }

    /// Number of new clients that wait for a place at any backend.
    pub fn waiting_anywhere(&self) -> usize {
        self.shared.queue.waiting()
    }

    /// Number of clients in the line for this place.
    pub fn waiting_for(&self, place: &AwaitedPlace) -> usize {
        match place {
            AwaitedPlace::At(index) => self.backends.get(*index).map_or(0, |backend| backend.waiting()),
            AwaitedPlace::AtAny(_) => self.waiting_anywhere(),
        }
    }

    /// Brings the limits of this pool in force, and calls all clients that wait: what they wait for may have gone.
    pub(super) fn put_places_in_force(&self) {
        for (backend, config) in self.backends.iter().zip(&self.config.backends) {
            backend.places.limit(config.max_connections);
        }
        self.shared.queue.is_in_use.store(self.may_have_lines(), SeqCst);
        // In this order: a client that looks again might leave its line for a moment.
        self.backends.iter().for_each(Backend::place_is_free);
        self.shared.queue.look_again(None);
    }
}

/// One client on its way through the lines of pools; dropping it gives up what it has.
#[derive(Debug, Default)]
pub struct QueueVisit {
    /// When the wait began, in milliseconds of the process's clock.
    since_ms: Option<u64>,
    standing: Option<Standing>,
    given: Option<Lease>,
}

/// A client in a line.
#[derive(Debug)]
struct Standing {
    pool: Arc<PoolShared>,
    /// Backends of the pool, of which the lines know the addresses.
    backends: Arc<[Arc<Backend>]>,
    place: AwaitedPlace,
    number: u64,
    seat: Arc<Seat>,
}

impl QueueVisit {
    /// Puts the client in the line for this place, in which it may be already. Returns the end of its wait in
    /// milliseconds; the error is the ending of a client that has waited for too long, or finds the line full.
    pub fn stand(&mut self, pool: &Pool, place: &AwaitedPlace, now_ms: u64) -> Result<u64, Ended> {
        let Some(rules) = pool.config.on_full.queue() else { return Err(Ended::BackendFull) };
        // Not the place that it needs now.
        self.pass_on();
        let ends_ms = *self.since_ms.get_or_insert(now_ms) + rules.timeout.as_millis() as u64;
        if now_ms >= ends_ms {
            return Err(Ended::QueueTimeout);
        }
        if let Some(standing) = self.standing.as_mut().filter(|standing| standing.is_in(pool, place)) {
            // A reload may have given the backend another index.
            (standing.backends, standing.place) = (Arc::clone(&pool.backends), place.clone());
        } else {
            // The number of its arrival stays with the client, as long as the pool is the same.
            let before = self.standing.take().filter(|standing| Arc::ptr_eq(&standing.pool, &pool.shared));
            let number = before.map_or_else(|| pool.shared.queue.arrive(), |standing| standing.number);
            self.standing = Some(Standing::new(pool, place, number, rules.most as usize)?);
        }
        // A place may have become free before the client was in the line.
        let free = |index: &usize| pool.backends.get(*index).into_iter().for_each(Backend::place_is_free);
        match place {
            AwaitedPlace::At(index) => free(index),
            AwaitedPlace::AtAny(indexes) => indexes.iter().for_each(free),
        }
        Ok(ends_ms)
    }

    /// Ready once the client is called.
    pub fn poll_called(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.standing.as_ref().map_or(Poll::Ready(()), |standing| standing.seat.poll_called(cx))
    }

    /// True if the client is called now; else the waker is woken once it is.
    pub fn is_called_or_wakes(&mut self, waker: &Waker) -> bool {
        self.poll_called(&mut Context::from_waker(waker)).is_ready()
    }

    /// True if the client is in a line and called.
    pub fn was_called(&self) -> bool {
        self.standing.as_ref().is_some_and(|standing| standing.seat.was_called())
    }

    /// Takes what the client was given, before it is picked for once more.
    pub fn listen(&mut self) {
        if let Some(lease) = self.standing.as_ref().and_then(Standing::listen) {
            self.given = Some(lease);
        }
    }

    /// Picks with what the client was given: a backend at which it has a place is not full for it.
    pub fn pick_with<T>(&self, pick: impl FnOnce(Option<Holds<'_>>) -> T) -> T {
        match &self.given {
            Some(lease) => pick(Some(&|backend: &Arc<Backend>| Arc::ptr_eq(lease.backend(), backend))),
            None => pick(None),
        }
    }

    /// True if the client has a place that it was given.
    pub fn has_place(&self) -> bool {
        self.given.is_some()
    }

    /// Lets others have the place that the client was given; it keeps its number.
    pub fn pass_on(&mut self) {
        self.given = None;
    }

    /// Takes a lease at the backend that was picked; the client leaves its line. Returns it with how long the client has
    /// waited, in milliseconds, if it has. `None`: others have taken the last place; the client is to be picked for again.
    pub fn take(&mut self, pool: &Pool, backend: &Arc<Backend>, now_ms: u64) -> Option<(Lease, Option<u64>)> {
        let given = self.given.take().filter(|lease| Arc::ptr_eq(lease.backend(), backend));
        let lease = match given {
            Some(lease) => lease,
            None if pool.config.on_full.queue().is_none() => Lease::new(backend),
            None if backend.is_awaited() => return None,
            None => Lease::within_limit(backend)?,
        };
        let waited = self.since_ms.map(|since_ms| now_ms.saturating_sub(since_ms));
        *self = Self::default();
        Some((lease, waited))
    }
}

impl Standing {
    fn new(pool: &Pool, place: &AwaitedPlace, number: u64, most: usize) -> Result<Self, Ended> {
        let queue = &pool.shared.queue;
        let seat = match place {
            AwaitedPlace::At(index) => {
                let backend = pool.backends.get(*index).ok_or(Ended::LocalError)?;
                queue.join(number, backend.line(), &backend.places, most)
            }
            AwaitedPlace::AtAny(indexes) => {
                let allowed = indexes.iter().filter_map(|index| pool.backends.get(*index));
                queue.join_any(number, allowed.map(|backend| backend.line()).collect(), most)
            }
        };
        let seat = seat.ok_or(Ended::QueueFull)?;
        let (pool, backends) = (Arc::clone(&pool.shared), Arc::clone(&pool.backends));
        Ok(Self { pool, backends, place: place.clone(), number, seat })
    }

    /// The backend with the line in which the client is; `None`: it is in that of the pool.
    fn backend(&self) -> Option<&Arc<Backend>> {
        match self.place {
            AwaitedPlace::At(index) => self.backends.get(index),
            AwaitedPlace::AtAny(_) => None,
        }
    }

    /// True if the client is in the line for this place, and was not called out of it.
    fn is_in(&self, pool: &Pool, place: &AwaitedPlace) -> bool {
        let is_for = match (self.backend(), place) {
            (Some(backend), AwaitedPlace::At(index)) => {
                pool.backends.get(*index).is_some_and(|known| Arc::ptr_eq(known, backend))
            }
            (None, AwaitedPlace::AtAny(_)) => Arc::ptr_eq(&self.backends, &pool.backends) && self.place == *place,
            _ => false,
        };
        is_for && self.pool.queue.has(self.number, self.backend().map(|backend| backend.line()))
    }

    /// Takes the lease that the client was given, if it was.
    fn listen(&self) -> Option<Lease> {
        let lease = |given: Given| given.downcast::<Lease>().ok().map(|lease| *lease);
        self.seat.listen().and_then(lease)
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.pool.queue.leave(self.number, self.backend().map(|backend| (backend.line(), &backend.places)));
        // What it was given and has not heard of goes to the next one, by the drop of the lease.
        drop(self.listen());
    }
}
