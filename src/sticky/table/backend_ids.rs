//! Numbers for backends in the entries of a stick table.
//!
//! Handles names and numbers, not backends. Invariant: two backends never have the same id, even one after the other: a
//! number that is free again is given out with another generation.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ahash::{AHashMap, AHashSet};

/// Number of a backend in the entries of a stick table; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId {
    pub(super) id: u16,
    pub(super) generation: u16,
}

/// Ids by backend name. Used when a snapshot is built and when it is in force, never for a connection.
#[derive(Debug, Default)]
pub struct BackendIds(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    taken: AHashMap<Box<str>, BackendId>,
    /// Free ids, longest free first, so that a generation wraps after billions of removals only.
    free: VecDeque<BackendId>,
    /// Ids ever given; id 0 is never given.
    given: u16,
}

impl BackendId {
    /// The same number for the next backend that gets it.
    fn next_generation(self) -> Self {
        Self { generation: self.generation.wrapping_add(1), ..self }
    }
}

impl Book {
    /// An id that no backend has; `None` when 65,535 are taken.
    fn unused(&mut self) -> Option<BackendId> {
        match self.free.pop_front() {
            Some(id) => Some(id),
            None => {
                self.given = self.given.checked_add(1)?;
                Some(BackendId { id: self.given, generation: 0 })
            }
        }
    }
}

impl BackendIds {
    /// The id of a name, a new one if it has none; `None` when 65,535 are taken. An id taken for a configuration that
    /// is then refused stays unused until the next [`retire_all_but`](Self::retire_all_but).
    pub fn take(&self, name: &str) -> Option<BackendId> {
        let mut book = self.book();
        if let Some(id) = book.taken.get(name) {
            return Some(*id);
        }
        let id = book.unused()?;
        book.taken.insert(name.into(), id);
        Some(id)
    }

    /// An id that names no backend, now or later, for entries of backends that have left; `None` when 65,535 are taken.
    pub fn take_retired(&self) -> Option<BackendId> {
        let mut book = self.book();
        let id = book.unused()?;
        book.free.push_back(id.next_generation());
        Some(id)
    }

    /// The id of a name; `None` if it has none.
    pub fn find(&self, name: &str) -> Option<BackendId> {
        self.book().taken.get(name).copied()
    }

    /// Retires the ids of all backends but these, which are those of the snapshot in force; entries of a retired id
    /// name no backend any more.
    pub fn retire_all_but<'n>(&self, names: impl IntoIterator<Item = &'n str>) {
        let stay: AHashSet<&str> = names.into_iter().collect();
        let mut book = self.book();
        let Book { taken, free, .. } = &mut *book;
        taken.retain(|name, id| {
            let stays = stay.contains(&**name);
            if !stays {
                free.push_back(id.next_generation());
            }
            stays
        });
    }

    /// Locks the book. A poisoned lock is taken as well: every step leaves the book consistent.
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ids of one pool's backends in one snapshot.
#[derive(Debug, Default)]
pub struct IdMap {
    ids: Box<[Option<BackendId>]>,
    /// Generation and index in the pool, by id.
    indexes: Box<[Option<(u16, u32)>]>,
}

impl IdMap {
    /// Ids of these backends, which are named in the order of the pool.
    pub fn new<'n>(ids: &BackendIds, names: impl IntoIterator<Item = &'n str>) -> Self {
        let ids: Box<[_]> = names.into_iter().map(|name| ids.take(name)).collect();
        let most = ids.iter().flatten().map(|id| usize::from(id.id) + 1).max();
        let mut indexes = vec![None; most.unwrap_or(0)].into_boxed_slice();
        for (index, id) in ids.iter().enumerate() {
            if let Some(id) = id {
                indexes[usize::from(id.id)] = Some((id.generation, index as u32));
            }
        }
        Self { ids, indexes }
    }

    /// The id of the backend at this index; `None` in a pool of more than 65,535 backends.
    #[inline]
    pub fn id(&self, index: usize) -> Option<BackendId> {
        self.ids.get(index).copied().flatten()
    }

    /// The index of the backend with this id; `None` if it is not in this pool, or no longer.
    #[inline]
    pub fn index(&self, id: BackendId) -> Option<usize> {
        let (generation, index) = (*self.indexes.get(usize::from(id.id))?)?;
        (generation == id.generation).then_some(index as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_seat_while_it_is_configured() {
        let ids = BackendIds::default();
        let first = IdMap::new(&ids, ["a", "b"]);
        ids.retire_all_but(["a", "b"]);
        let second = IdMap::new(&ids, ["c", "b", "a"]);
        assert_eq!((first.id(0), first.id(1)), (second.id(2), second.id(1)));
        assert_eq!(second.index(first.id(0).unwrap()), Some(2));
        assert_eq!(first.index(second.id(0).unwrap()), None, "an old snapshot does not know a new backend");
    }

    #[test]
    fn whoever_follows_a_removed_backend_is_not_taken_for_it() {
        let ids = BackendIds::default();
        let old = IdMap::new(&ids, ["a", "b"]).id(0).unwrap();
        ids.retire_all_but(["b"]);
        let next = IdMap::new(&ids, ["b", "c"]);
        assert_eq!(next.id(1).unwrap().id, old.id, "the number is used again");
        assert_eq!(next.index(old), None);
        ids.retire_all_but(["b"]);
        let back = IdMap::new(&ids, ["a", "b"]);
        assert_eq!(back.index(old), None, "nor is it itself when it comes back under its name");
    }

    #[test]
    fn a_retired_id_never_names_a_backend() {
        let ids = BackendIds::default();
        let before = IdMap::new(&ids, ["a"]);
        let gone = ids.take_retired().unwrap();
        let after = IdMap::new(&ids, ["a", "b", "c"]);
        assert_eq!((before.index(gone), after.index(gone)), (None, None));
        assert_eq!(after.id(1).unwrap().id, gone.id, "the number is used again");
        assert_eq!(after.id(0), before.id(0));
    }

    #[test]
    fn a_refused_configuration_retires_nobody() {
        let ids = BackendIds::default();
        let running = IdMap::new(&ids, ["a"]);
        IdMap::new(&ids, ["x"]);
        assert_eq!(IdMap::new(&ids, ["a"]).id(0), running.id(0));
    }

    #[test]
    fn the_65536th_backend_has_no_seat() {
        let ids = BackendIds::default();
        let names: Vec<_> = (0..65_536).map(|n| n.to_string()).collect();
        let id_map = IdMap::new(&ids, names.iter().map(String::as_str));
        assert!(id_map.id(65_534).is_some());
        assert_eq!(id_map.id(65_535), None);
        assert_eq!(id_map.index(id_map.id(65_534).unwrap()), Some(65_534));
    }
}
