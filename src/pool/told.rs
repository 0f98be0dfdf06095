//! [`Outbox`]: entries of stick tables that other instances have to hear of, from the threads that make them to the one
//! that tells them.
//!
//! Tells nothing itself. Invariants: a thread that makes an entry never waits for the telling; at most [`ROOM`] entries
//! wait, and one that finds no room is counted and comes to the others with the next recap.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::sticky::table::SharedEntry;

/// Most entries that wait, about 5 MiB.
pub const ROOM: usize = 65_536;

/// An entry with the names that make it mean the same to every instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Name of the stick table.
    pub table: Arc<str>,
    /// `hash_seed` of the pool: another one says that clients are to be placed anew.
    pub hash_seed: u64,
    /// Name of the backend.
    pub backend: Arc<str>,
    /// The entry.
    pub entry: SharedEntry,
}

/// Entries that wait to be told; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Outbox(Arc<ToldEntries>);

#[derive(Debug, Default)]
struct ToldEntries {
    is_open: AtomicBool,
    takes_placed: AtomicBool,
    entries: Mutex<(Vec<Told>, Option<Waker>)>,
    lost: AtomicU64,
}

impl Outbox {
    /// Whether entries are told at all.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.0.is_open.load(Relaxed)
    }

    /// Begins or ends to take entries. What waits is dropped: the telling begins with
    /// every entry of the tables.
    pub fn open(&self, is_open: bool) {
        self.0.is_open.store(is_open, Relaxed);
        self.lock().0 = Vec::new();
    }

    /// Whether entries are told that placement finds: another instance may place otherwise.
    pub fn takes_placed(&self) -> bool {
        self.0.takes_placed.load(Relaxed)
    }

    /// Begins or ends to take entries that placement finds.
    pub fn take_placed(&self, takes_placed: bool) {
        self.0.takes_placed.store(takes_placed, Relaxed);
    }

    /// Leaves an entry to be told.
    pub fn put(&self, told: Told) {
        let waker = {
            let mut waiting = self.lock();
            let (entries, waker) = &mut *waiting;
            if entries.len() >= ROOM {
                self.0.lost.fetch_add(1, Relaxed);
                return;
            }
            entries.push(told);
            waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    /// Takes every entry that waits; pending while there is none.
    pub fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Vec<Told>> {
        let mut waiting = self.lock();
        let (entries, waker) = &mut *waiting;
        if entries.is_empty() {
            *waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(std::mem::take(entries))
    }

    /// Takes every entry that waits now.
    pub fn take(&self) -> Vec<Told> {
        std::mem::take(&mut self.lock().0)
    }

    /// Entries that found no room.
    pub fn lost(&self) -> u64 {
        self.0.lost.load(Relaxed)
    }

    /// Locks the entries. A poisoned lock is taken as well: every step leaves the list consistent.
    fn lock(&self) -> MutexGuard<'_, (Vec<Told>, Option<Waker>)> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sticky::table::{KeyHash, SharedKind};

    fn told(key: u64) -> Told {
        let entry = SharedEntry { key: KeyHash::from_bits(key), kind: SharedKind::Displaced, age_min: 0 };
        Told { table: "t".into(), hash_seed: 0, backend: "b".into(), entry }
    }

    #[test]
    fn an_entry_without_room_is_counted_and_holds_up_nothing() {
        let outbox = Outbox::default();
        (0..ROOM as u64 + 3).for_each(|key| outbox.put(told(key)));
        assert_eq!((outbox.take().len(), outbox.lost(), outbox.take().len()), (ROOM, 3, 0));
        outbox.put(told(1));
        outbox.open(true);
        assert!(outbox.is_open() && outbox.take().is_empty());
    }

    #[test]
    fn what_waits_is_taken_when_the_first_entry_comes() {
        struct Woken(AtomicU64);
        impl std::task::Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Relaxed);
            }
        }
        let (outbox, woken) = (Outbox::default(), Arc::new(Woken(AtomicU64::new(0))));
        let waker = Arc::clone(&woken).into();
        let mut cx = Context::from_waker(&waker);
        assert!(outbox.poll_take(&mut cx).is_pending());
        (0..2).for_each(|key| outbox.put(told(key)));
        assert_eq!(woken.0.load(Relaxed), 1);
        assert_eq!(outbox.poll_take(&mut cx), Poll::Ready(vec![told(0), told(1)]));
    }
}
