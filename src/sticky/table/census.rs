//! [`Census`]: how many entries a table has, by kind, by backend and by the minute in which their keys were last seen;
//! counted as entries change, so that a reader need not look at them.
//!
//! Changes no entry. Invariants: every change of an entry is counted once, with exactly the words that it replaced, by
//! the thread that made it and in that thread's stripe; the sum over all stripes is the number of entries in the table.
//! A stripe alone may be below 0: one thread adds an entry, another removes it.
//!
//! # Minutes
//!
//! A ring of [`RING`] minutes has a count for each, in pages that are made when first needed. Entries that were last
//! seen more than [`RING_AGE`] minutes ago are counted together. [`Census::roll`] moves counts there long before their
//! place in the ring is used again; a thread that is late and still counts in the ring is made good by the next roll.
//!
//! # Backends
//!
//! The number of a backend that has left is used again with another generation, so a cell knows the generation that it
//! counts. The first change of a later generation begins anew: nothing asks for the count of a backend that has left.

use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::backend_ids::BackendId;
use super::entry::{Data, ENTRY_ROWS, Minute};
use super::stripes::Stripes;
use crate::counters::Padded;

/// Minutes of the ring. A multiple of it fits the clock, which wraps.
const RING: usize = 1 << 11;
/// Greatest age that the ring shows, in minutes: a day, and half an hour more for threads that are late.
pub(super) const RING_AGE: u32 = 1_470;
/// Minutes ahead of the reader's clock that a thread may have seen.
const AHEAD: u32 = 64;
const PAGE: usize = 64;

/// Entries of one table.
#[derive(Debug, Default)]
pub(super) struct Census {
    stripes: Stripes<Stripe>,
    /// The minute of the last roll. An entry that was older then is not in the ring.
    rolled: AtomicU32,
    /// Held while counts move from the ring, and while they are read: a count in motion is in neither place.
    moving: Mutex<()>,
}

/// Entries by age and by whether their key is the value of a cookie.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct AgeCount {
    /// Minutes since the key was last seen; `RING_AGE + 1` for all that are older than the ring shows.
    pub(super) age_min: u32,
    pub(super) is_value: bool,
    /// Below 0 only in one stripe, or while entries change.
    pub(super) count: i64,
}

#[derive(Debug)]
struct Stripe {
    /// Entries by [`Data::row`].
    rows: [AtomicI64; ENTRY_ROWS],
    /// Entries by minute: of keys, and of values.
    minutes: [MinuteRing; 2],
    backends: BackendCells,
}

impl Default for Stripe {
    fn default() -> Self {
        let rows = std::array::from_fn(|_| AtomicI64::new(0));
        Self { rows, minutes: Default::default(), backends: BackendCells::default() }
    }
}

impl Census {
    /// Counts that `after` stands where `before` stood; either may be empty.
    #[inline]
    pub(super) fn replaced(&self, before: Data, after: Data) {
        let (stripe, now) = (self.stripes.own(), Minute::of_number(self.rolled.load(Relaxed)));
        if before.bound() != after.bound() {
            stripe.add(before, -1);
            stripe.add(after, 1);
        } else if before.seen() == after.seen() {
            return;
        }
        stripe.add_minute(before, -1, now);
        stripe.add_minute(after, 1, now);
    }

    /// Number of entries in one row of [`Data::row`].
    pub(super) fn rows(&self) -> [u64; ENTRY_ROWS] {
        let sum = |row: usize| self.stripes.all().map(|stripe| stripe.rows[row].load(Relaxed)).sum();
        std::array::from_fn(|row| whole(sum(row)))
    }

    /// Number of entries that name this backend.
    pub(super) fn of(&self, id: BackendId) -> u64 {
        whole(self.stripes.all().map(|stripe| stripe.backends.of(id)).sum())
    }

    /// Calls `each` with counts of entries that add up to the table's, some of them in several parts.
    pub(super) fn ages(&self, now: Minute, mut each: impl FnMut(AgeCount)) {
        let _one_at_a_time = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        for stripe in self.stripes.all() {
            for (is_value, ring) in [(false, &stripe.minutes[0]), (true, &stripe.minutes[1])] {
                ring.counts(now).for_each(|(age_min, cell)| {
                    let count = i64::from(cell.load(Relaxed));
                    each(AgeCount {
                        age_min: if age_min > RING as u32 - AHEAD { 0 } else { age_min },
                        is_value,
                        count,
                    });
                });
                each(AgeCount { age_min: RING_AGE + 1, is_value, count: ring.older.load(Relaxed) });
            }
        }
    }

    /// Moves counts of minutes that the ring no longer shows. To be called every few hours at least, while the table is
    /// in use.
    pub(super) fn roll(&self, now: Minute) {
        let _one_at_a_time = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        self.rolled.store(now.number() as u32, Relaxed);
        for ring in self.stripes.all().flat_map(|stripe| &stripe.minutes) {
            for (_, cell) in
                ring.counts(now).filter(|(age_min, _)| (RING_AGE + 1..RING as u32 - AHEAD).contains(age_min))
            {
                ring.older.fetch_add(i64::from(cell.swap(0, Relaxed)), Relaxed);
            }
        }
    }
}

/// A sum of all stripes, which is below 0 only while entries change.
pub(super) fn whole(sum: i64) -> u64 {
    sum.max(0) as u64
}

impl Stripe {
    fn add(&self, data: Data, count: i64) {
        if !data.is_empty() {
            self.rows[data.row()].fetch_add(count, Relaxed);
            self.backends.add(data.id(), count);
        }
    }

    fn add_minute(&self, data: Data, count: i32, now: Minute) {
        if data.is_empty() {
            return;
        }
        let ring = &self.minutes[usize::from(data.is_value())];
        if now.age_min(data.seen()) > RING_AGE {
            ring.older.fetch_add(count.into(), Relaxed);
        } else {
            ring.cell(data.seen().number() % RING).fetch_add(count, Relaxed);
        }
    }
}

/// Counts by minute.
#[derive(Debug)]
struct MinuteRing {
    pages: [OnceLock<Box<Padded<[AtomicI32; PAGE]>>>; RING / PAGE],
    /// Entries that the ring does not show.
    older: AtomicI64,
}

impl Default for MinuteRing {
    fn default() -> Self {
        Self { pages: std::array::from_fn(|_| OnceLock::new()), older: AtomicI64::new(0) }
    }
}

impl MinuteRing {
    fn cell(&self, place: usize) -> &AtomicI32 {
        let zero = || Box::new(Padded(std::array::from_fn(|_| AtomicI32::new(0))));
        &self.pages[place / PAGE].get_or_init(zero).0[place % PAGE]
    }

    /// The cells that were made, each with its age.
    fn counts(&self, now: Minute) -> impl Iterator<Item = (u32, &AtomicI32)> {
        let pages = self.pages.iter().enumerate().filter_map(|(page, cells)| Some((page * PAGE, cells.get()?)));
        let cells = pages.flat_map(|(first, cells)| cells.0.iter().enumerate().map(move |(n, cell)| (first + n, cell)));
        cells.map(move |(place, cell)| ((now.number().wrapping_sub(place) % RING) as u32, cell))
    }
}

/// Cells of the first segment; each further segment has as many as all before it and these.
const FIRST: usize = 16;
/// Segments for 65,535 backends.
const SEGMENTS: usize = 13;

/// Counts by the number of a backend, in segments that are made when first needed. A cell is a generation, 16 bits, and
/// a count, 48 bits. No cell shares a cache line with memory of another stripe.
#[derive(Debug, Default)]
struct BackendCells([OnceLock<Box<[Cells]>>; SEGMENTS]);

/// Cells of as many backends as the first segment has.
type Cells = Padded<[AtomicU64; FIRST]>;

impl BackendCells {
    fn add(&self, id: BackendId, count: i64) {
        let (segment, place) = Self::place(id);
        let cells = self.0[segment].get_or_init(|| (0..1 << segment).map(|_| Cells::default()).collect());
        let _ = cells[place / FIRST].0[place % FIRST].fetch_update(Relaxed, Relaxed, |word| {
            let (generation, before) = unpacked(word);
            // Generations wrap, so the nearer way decides which is later.
            match id.generation.wrapping_sub(generation) as i16 {
                0 => Some(packed(generation, before + count)),
                1.. => Some(packed(id.generation, count)),
                // A backend that has left. A cell without a count is free for it.
                _ => (before == 0).then(|| packed(id.generation, count)),
            }
        });
    }

    fn of(&self, id: BackendId) -> i64 {
        let (segment, place) = Self::place(id);
        let word = self.0[segment].get().map_or(0, |cells| cells[place / FIRST].0[place % FIRST].load(Relaxed));
        let (generation, count) = unpacked(word);
        if generation == id.generation { count } else { 0 }
    }

    fn place(id: BackendId) -> (usize, usize) {
        let number = usize::from(id.id) + FIRST;
        let segment = (number / FIRST).ilog2() as usize;
        (segment, number - (FIRST << segment))
    }
}

fn packed(generation: u16, count: i64) -> u64 {
    u64::from(generation) << 48 | (count as u64) << 16 >> 16
}

fn unpacked(word: u64) -> (u16, i64) {
    ((word >> 48) as u16, (word << 16) as i64 >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sticky::table::entry::PlacementId;
    use crate::sticky::table::{EntryKind, EntryValue};

    fn id(id: u16, generation: u16) -> BackendId {
        BackendId { id, generation }
    }

    fn at(minute: u64) -> Minute {
        Minute::of_ms(minute * 60_000)
    }

    fn data(id: BackendId, kind: EntryKind, minute: u64) -> Data {
        Data::new(EntryValue { id, kind }, PlacementId::at(0), at(minute))
    }

    /// Ages with a count, without those of 0.
    fn ages(census: &Census, now: u64) -> Vec<(u32, i64)> {
        let mut sum = std::collections::BTreeMap::new();
        census.ages(at(now), |AgeCount { age_min, count, .. }| *sum.entry(age_min).or_insert(0) += count);
        sum.into_iter().filter(|(_, count)| *count != 0).collect()
    }

    #[test]
    fn a_number_that_is_used_again_counts_from_nothing() {
        let cells = BackendCells::default();
        for number in [1, 15, 16, 47, 48, 65_535] {
            cells.add(id(number, 0), 3);
            cells.add(id(number, 1), -1);
            assert_eq!((cells.of(id(number, 0)), cells.of(id(number, 1))), (0, -1), "{number}");
            cells.add(id(number, 0), -1);
            cells.add(id(number, 1), 5);
            assert_eq!(cells.of(id(number, 1)), 4, "an entry of the backend before is none of this one: {number}");
            cells.add(id(number, 1), -4);
            cells.add(id(number, 0), -1);
            cells.add(id(number, 1), 2);
            assert_eq!(cells.of(id(number, 1)), 2, "{number}");
        }
        cells.add(id(7, 60_000), 2);
        assert_eq!(cells.of(id(7, 60_000)), 2, "a cell is free for any generation");
        cells.add(id(7, 3), 1);
        assert_eq!(cells.of(id(7, 3)), 1, "generations wrap");
    }

    #[test]
    fn a_date_moves_between_minutes_and_out_of_the_ring() {
        let census = Census::default();
        let entry = |minute| data(id(1, 0), EntryKind::Displaced, minute);
        let start = (1 << 24) - 100;
        census.replaced(Data::EMPTY, entry(start));
        assert_eq!(ages(&census, start + 1_000), [(1_000, 1)], "across the wrap of the clock");
        census.roll(at(start));
        for now in (0..20_000).step_by(250) {
            census.roll(at(start + now));
            assert_eq!(ages(&census, start + now), [((now as u32).min(RING_AGE + 1), 1)]);
        }
        census.replaced(entry(start), entry(start + 20_000));
        assert_eq!(ages(&census, start + 20_000), [(0, 1)]);
        census.replaced(entry(start + 20_000), Data::EMPTY);
        assert_eq!(ages(&census, start + 20_001), []);
    }

    #[test]
    fn a_thread_that_counts_after_the_roll_is_made_good() {
        let census = Census::default();
        let entry = data(id(1, 0), EntryKind::Learned, 0);
        census.replaced(Data::EMPTY, entry);
        let late = u64::from(RING_AGE);
        census.roll(at(late + 1));
        assert_eq!(ages(&census, late + 1), [(RING_AGE + 1, 1)]);
        // The thread has read the minute before the roll.
        census.stripes.own().add_minute(entry, -1, at(late));
        census.roll(at(late + 2));
        assert_eq!(ages(&census, late + 2), []);
    }

    #[test]
    fn a_stripe_shares_no_line_with_another() {
        let census = Census::default();
        census.replaced(Data::EMPTY, data(id(1, 0), EntryKind::Placed, 5));
        let stripe = census.stripes.own();
        let (minute, cells) = (stripe.minutes[0].cell(0), stripe.backends.0[0].get().expect("a segment"));
        let addresses = [std::ptr::from_ref(minute).addr(), cells.as_ptr().addr()];
        assert_eq!(addresses.map(|address| address % align_of::<Padded<u8>>()), [0, 0]);
        assert_eq!((size_of::<Cells>(), size_of::<Padded<[AtomicI32; PAGE]>>()), (128, 256), "nothing is wasted");
    }

    #[test]
    fn a_minute_ahead_is_now() {
        let census = Census::default();
        census.replaced(Data::EMPTY, data(id(1, 0), EntryKind::Placed, 5));
        census.roll(at(4));
        assert_eq!(ages(&census, 4), [(0, 1)]);
    }
}
