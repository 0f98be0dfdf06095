//! Which number stands for which backend in a memory.
//!
//! Knows names and numbers, not backends. Invariant: two backends never have the same seat, even one after the other:
//! a number whose backend has left the configuration comes back with another generation.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ahash::{AHashMap, AHashSet};

/// A backend in the entries of a memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seat {
    pub(super) id: u16,
    pub(super) generation: u16,
}

/// Who sits where. Asked when a snapshot is built and after it is in force, never for a connection.
#[derive(Debug, Default)]
pub struct Seats(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    taken: AHashMap<Box<str>, Seat>,
    /// The longest free first, so that a generation comes round after billions of removals.
    free: VecDeque<Seat>,
    /// Ids ever given; 0 is nobody's.
    given: u16,
}

impl Seats {
    /// The seat of a name, a new one if it has none; `None` when 65,535 are taken. A seat given for a configuration
    /// that is then refused stands idle until the next [`retire_all_but`](Self::retire_all_but).
    pub fn take(&self, name: &str) -> Option<Seat> {
        let mut book = self.book();
        if let Some(seat) = book.taken.get(name) {
            return Some(*seat);
        }
        let seat = match book.free.pop_front() {
            Some(seat) => seat,
            None => {
                book.given = book.given.checked_add(1)?;
                Seat { id: book.given, generation: 0 }
            }
        };
        book.taken.insert(name.into(), seat);
        Some(seat)
    }

    /// The seat of a name that has one.
    pub fn find(&self, name: &str) -> Option<Seat> {
        self.book().taken.get(name).copied()
    }

    /// These are the backends of the snapshot now in force: all others have left, and their entries name nobody.
    pub fn retire_all_but<'n>(&self, names: impl IntoIterator<Item = &'n str>) {
        let stay: AHashSet<&str> = names.into_iter().collect();
        let mut book = self.book();
        let Book { taken, free, .. } = &mut *book;
        taken.retain(|name, seat| {
            let stays = stay.contains(&**name);
            if !stays {
                free.push_back(Seat { generation: seat.generation.wrapping_add(1), ..*seat });
            }
            stays
        });
    }

    /// Every step leaves the book whole.
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The seats of one pool's backends, as one snapshot sees them.
#[derive(Debug, Default)]
pub struct Seating {
    seats: Box<[Option<Seat>]>,
    /// By id.
    indexes: Box<[Option<(u16, u32)>]>,
}

impl Seating {
    /// Of these backends, in the order of the pool.
    pub fn new<'n>(seats: &Seats, names: impl IntoIterator<Item = &'n str>) -> Self {
        let seats: Box<[_]> = names.into_iter().map(|name| seats.take(name)).collect();
        let most = seats.iter().flatten().map(|seat| usize::from(seat.id) + 1).max();
        let mut indexes = vec![None; most.unwrap_or(0)].into_boxed_slice();
        for (index, seat) in seats.iter().enumerate() {
            if let Some(seat) = seat {
                indexes[usize::from(seat.id)] = Some((seat.generation, index as u32));
            }
        }
        Self { seats, indexes }
    }

    /// Where this backend sits; `None` only in a pool of more than 65,535.
    #[inline]
    pub fn seat(&self, index: usize) -> Option<Seat> {
        self.seats.get(index).copied().flatten()
    }

    /// Which backend sits there; `None` if it is not of this pool, or no longer.
    #[inline]
    pub fn index(&self, seat: Seat) -> Option<usize> {
        let (generation, index) = (*self.indexes.get(usize::from(seat.id))?)?;
        (generation == seat.generation).then_some(index as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_seat_while_it_is_configured() {
        let seats = Seats::default();
        let first = Seating::new(&seats, ["a", "b"]);
        seats.retire_all_but(["a", "b"]);
        let second = Seating::new(&seats, ["c", "b", "a"]);
        assert_eq!((first.seat(0), first.seat(1)), (second.seat(2), second.seat(1)));
        assert_eq!(second.index(first.seat(0).unwrap()), Some(2));
        assert_eq!(first.index(second.seat(0).unwrap()), None, "an old snapshot does not know a new backend");
    }

    #[test]
    fn whoever_follows_a_removed_backend_is_not_taken_for_it() {
        let seats = Seats::default();
        let old = Seating::new(&seats, ["a", "b"]).seat(0).unwrap();
        seats.retire_all_but(["b"]);
        let next = Seating::new(&seats, ["b", "c"]);
        assert_eq!(next.seat(1).unwrap().id, old.id, "the number is used again");
        assert_eq!(next.index(old), None);
        seats.retire_all_but(["b"]);
        let back = Seating::new(&seats, ["a", "b"]);
        assert_eq!(back.index(old), None, "nor is it itself when it comes back under its name");
    }

    #[test]
    fn a_refused_configuration_retires_nobody() {
        let seats = Seats::default();
        let running = Seating::new(&seats, ["a"]);
        Seating::new(&seats, ["x"]);
        assert_eq!(Seating::new(&seats, ["a"]).seat(0), running.seat(0));
    }

    #[test]
    fn the_65536th_backend_has_no_seat() {
        let seats = Seats::default();
        let names: Vec<_> = (0..65_536).map(|n| n.to_string()).collect();
        let seating = Seating::new(&seats, names.iter().map(String::as_str));
        assert!(seating.seat(65_534).is_some());
        assert_eq!(seating.seat(65_535), None);
        assert_eq!(seating.index(seating.seat(65_534).unwrap()), Some(65_534));
    }
}
