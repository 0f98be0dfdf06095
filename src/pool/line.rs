//! [`PlaceQueue`]: lines of clients that wait for places, by the number of their arrival; [`Places`] of one backend; and
//! [`Seat`], where a client in a line is called.
//!
//! Knows neither backends nor leases: a backend is an address here, and what a client is given is opaque. Invariants: a
//! client is counted before any place is looked at for it, so that it sees a place that becomes free or is seen by what
//! frees it; nothing that a client was given is dropped under a lock of this file.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use ahash::AHashMap;

/// What a client is given when its turn has come.
pub(super) type Given = Box<dyn Any + Send>;

/// How many places a backend has, and how many clients wait for one there and nowhere else.
#[derive(Debug)]
pub(super) struct Places {
    most: AtomicU64,
    waiting: AtomicUsize,
}

/// The lines of a pool, which stay over reloads.
#[derive(Debug, Default)]
pub(super) struct PlaceQueue {
    /// The configuration in force has `on_full = "queue"`.
    pub(super) is_in_use: AtomicBool,
    /// Clients that have waited so far; the number of each is its place in the order.
    arrivals: AtomicU64,
    /// Clients in the line of the pool.
    any: AtomicUsize,
    lines: Mutex<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    /// Clients in the lines of backends, by the address of the backend.
    own: AHashMap<usize, BTreeMap<u64, Arc<Seat>>>,
    any: BTreeMap<u64, AnyClient>,
}

/// A client in the line of the pool.
#[derive(Debug)]
struct AnyClient {
    seat: Arc<Seat>,
    /// Addresses of the backends that may take it, in rising order.
    allowed: Box<[usize]>,
}

/// Where a client in a line is called.
#[derive(Debug, Default)]
pub(super) struct Seat(Mutex<Call>);

#[derive(Debug, Default)]
struct Call {
    given: Option<Given>,
    /// What the client waits for may be another place now.
    look_again: bool,
    waker: Option<Waker>,
}

impl Places {
    /// Returns as many places as the configuration says; `None`: no limit.
    pub(super) fn of(most: Option<u32>) -> Self {
        let places = Self { most: AtomicU64::new(0), waiting: AtomicUsize::new(0) };
        places.limit(most);
        places
    }

    /// Changes how many there are.
    pub(super) fn limit(&self, most: Option<u32>) {
        self.most.store(most.map_or(u64::MAX, u64::from), SeqCst);
    }

    /// How many there are; without a limit the greatest number.
    pub(super) fn most(&self) -> u64 {
        self.most.load(SeqCst)
    }

    /// Clients that wait for one of them, and for no other.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(SeqCst)
    }
}

impl Seat {
    /// Ready once the client is called.
    pub(super) fn poll_called(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut call = lock(&self.0);
        if call.given.is_some() || call.look_again {
            return Poll::Ready(());
        }
        call.waker.replace(cx.waker().clone());
        Poll::Pending
    }

    /// True if the client is called, and has not listened since.
    pub(super) fn was_called(&self) -> bool {
        let call = lock(&self.0);
        call.given.is_some() || call.look_again
    }

    /// Takes what the client was given, if it was.
    pub(super) fn listen(&self) -> Option<Given> {
        let mut call = lock(&self.0);
        call.look_again = false;
        call.given.take()
    }
}

impl AnyClient {
    fn may_take(&self, address: usize) -> bool {
        self.allowed.binary_search(&address).is_ok()
    }
}

impl PlaceQueue {
    /// The number of a client that begins to wait.
    pub(super) fn arrive(&self) -> u64 {
        self.arrivals.fetch_add(1, SeqCst)
    }

    /// Clients in the line of the pool.
    pub(super) fn waiting(&self) -> usize {
        self.any.load(SeqCst)
    }

    /// True if a client waits that may be waiting for one of these places.
    #[inline]
    pub(super) fn may_be_awaited(&self, places: &Places) -> bool {
        places.waiting() > 0 || self.waiting() > 0
    }

    /// True if a client in the line of the pool waits for a place of this backend, too. Takes a lock only where clients are
    /// in that line.
    pub(super) fn is_awaited_by_any(&self, address: usize) -> bool {
        self.waiting() > 0 && lock(&self.lines).any.values().any(|client| client.may_take(address))
    }

    /// Puts a client into the line of a backend, or, if it has `most` clients, not.
    pub(super) fn join(&self, number: u64, address: usize, places: &Places, most: usize) -> Option<Arc<Seat>> {
        let mut lines = lock(&self.lines);
        let line = lines.own.entry(address).or_default();
        if line.len() >= most {
            return None;
        }
        places.waiting.fetch_add(1, SeqCst);
        Some(Arc::clone(line.entry(number).or_default()))
    }

    /// Puts a client into the line of the pool, or, if it has `most` clients, not.
    pub(super) fn join_any(&self, number: u64, mut allowed: Box<[usize]>, most: usize) -> Option<Arc<Seat>> {
        let mut lines = lock(&self.lines);
        if lines.any.len() >= most {
            return None;
        }
        allowed.sort_unstable();
        let seat = Arc::<Seat>::default();
        self.any.fetch_add(1, SeqCst);
        lines.any.insert(number, AnyClient { seat: Arc::clone(&seat), allowed });
        Some(seat)
    }

    /// True if the client is in the line of this backend; `None`: in that of the pool.
    pub(super) fn has(&self, number: u64, address: Option<usize>) -> bool {
        let lines = lock(&self.lines);
        match address {
            Some(address) => lines.own.get(&address).is_some_and(|line| line.contains_key(&number)),
            None => lines.any.contains_key(&number),
        }
    }

    /// Takes a client out of its line, if it still is in it; `None`: that of the pool.
    pub(super) fn leave(&self, number: u64, of: Option<(usize, &Places)>) {
        let mut lines = lock(&self.lines);
        let seat = match of {
            Some((address, places)) => self.take_own(&mut lines, number, address, places),
            None => self.take_any(&mut lines, number),
        };
        drop(lines);
        drop(seat);
    }

    /// Gives the free places of a backend to the clients that wait for them, in order; `take` takes one.
    pub(super) fn give(&self, address: usize, places: &Places, take: impl Fn() -> Option<Given>) {
        loop {
            let mut lines = lock(&self.lines);
            let own = lines.own.get(&address).and_then(|line| line.first_key_value()).map(|(number, _)| *number);
            let any = lines.any.iter().find(|(_, client)| client.may_take(address)).map(|(number, _)| *number);
            let Some(first) = [own, any].into_iter().flatten().min() else { return };
            let Some(given) = take() else { return };
            let seat = self.take_own(&mut lines, first, address, places).or_else(|| self.take_any(&mut lines, first));
            let waker = seat.and_then(|seat| {
                let mut call = lock(&seat.0);
                call.given = Some(given);
                call.waker.take()
            });
            drop(lines);
            waker.into_iter().for_each(Waker::wake);
        }
    }

    /// Calls clients, so that each is picked for once more: those in the line of this backend, or in the lines of all, and
    /// those in the line of the pool.
    pub(super) fn look_again(&self, of: Option<usize>) {
        let lines = lock(&self.lines);
        let own = lines.own.iter().filter(|(address, _)| of.is_none_or(|of| of == **address));
        let own = own.flat_map(|(_, line)| line.values());
        let seats: Vec<_> = own.chain(lines.any.values().map(|client| &client.seat)).map(Arc::clone).collect();
        drop(lines);
        for seat in seats {
            let mut call = lock(&seat.0);
            call.look_again = true;
            let waker = call.waker.take();
            drop(call);
            waker.into_iter().for_each(Waker::wake);
        }
    }

    fn take_own(&self, lines: &mut Lines, number: u64, address: usize, places: &Places) -> Option<Arc<Seat>> {
        let line = lines.own.get_mut(&address)?;
        let seat = line.remove(&number)?;
        if line.is_empty() {
            lines.own.remove(&address);
        }
        places.waiting.fetch_sub(1, SeqCst);
        Some(seat)
    }

    fn take_any(&self, lines: &mut Lines, number: u64) -> Option<Arc<Seat>> {
        let client = lines.any.remove(&number)?;
        self.any.fetch_sub(1, SeqCst);
        Some(client.seat)
    }
}

/// Locks even after a panic elsewhere.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
