//! Buckets of one cache line each, read without waiting and changed under a lock bit of their own.
//!
//! Handles keys and entries, not the worth of an entry. Invariants: a look-up ends after a bounded number of reads,
//! whatever other threads do; a key stands in at most one place; a writer holds the lock bits of both buckets.
//!
//! # Why readers need no lock
//!
//! - A *hit* needs no proof: the two words of an entry give the key only if they belong together.
//! - A *miss* is believed when two looks at both buckets saw the same words and no lock bit. A look that saw half a
//!   change has read a word written after the lock bit was set, so its second look sees the bit or the whole change.
//!   After [`Word::LOOKS`] looks at a bucket that keeps changing the miss is believed as well: no reader waits.
//! - A *touch* is one compare-exchange on the data word, so it never brings back an entry that was overwritten.
//! - The lock bit stands in the data word of a bucket's first entry. Bits are taken in the order of the buckets, which
//!   excludes deadlock, and each is tried [`Word::TRIES`] times; a writer that fails has changed nothing.

use std::hint;
use std::sync::atomic::{AtomicU64, Ordering};

use zerocopy::FromZeros;

use super::entry::{Data, LOCK, Minute};
use super::secret::KeyHash;

/// Entries in a bucket, which is one cache line.
pub(super) const ENTRIES: usize = 4;
const WORDS: usize = 2 * ENTRIES;
const LINE_BYTES: usize = WORDS * size_of::<u64>();
/// Bytes of an entry.
pub(super) const ENTRY_BYTES: u64 = (LINE_BYTES / ENTRIES) as u64;
/// Buckets of a page, 4 KiB: what a reader of all entries skips if nothing was ever stored there.
const PAGE_BUCKETS: usize = 64;

/// Operations of an atomic word, so that the loom model can take its place.
pub(super) trait Word {
    fn load(&self) -> u64;
    fn store(&self, value: u64);
    fn swap(&self, value: u64) -> u64;
    fn replace(&self, old: u64, new: u64) -> bool;
    fn clear(&self, bits: u64);
    fn pause();
    /// Attempts to take the lock bit of one bucket: some microseconds.
    const TRIES: usize = 256;
    /// Looks after which a miss is believed although the bucket keeps changing.
    const LOOKS: usize = 8;
}

impl Word for AtomicU64 {
    #[inline]
    fn load(&self) -> u64 {
        self.load(Ordering::Acquire)
    }

    #[inline]
    fn store(&self, value: u64) {
        self.store(value, Ordering::Release);
    }

    #[inline]
    fn swap(&self, value: u64) -> u64 {
        self.swap(value, Ordering::AcqRel)
    }

    #[inline]
    fn replace(&self, old: u64, new: u64) -> bool {
        self.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    fn clear(&self, bits: u64) {
        self.fetch_and(!bits, Ordering::Release);
    }

    fn pause() {
        hint::spin_loop();
    }
}

/// All buckets, in one block of words.
pub(super) struct Buckets<W = AtomicU64> {
    words: Box<[W]>,
    /// Index of the first word that begins a cache line.
    start: usize,
    buckets: usize,
    /// One bit for each page that has had an entry. A bit is set before the entry is written, and never cleared.
    used: Box<[AtomicU64]>,
}

/// An entry that a look-up found, with its word for a touch.
pub(super) struct FoundEntry<'t, W> {
    word: &'t W,
    pub(super) data: Data,
}

impl Buckets {
    /// Bytes of the buckets that fit into this many; `None` below two buckets.
    pub(super) fn fitting(bytes: u64) -> Option<u64> {
        // Half a hash, 32 bits, chooses a bucket.
        let buckets = (bytes / LINE_BYTES as u64).min(u32::MAX.into());
        (buckets >= 2).then_some(buckets * LINE_BYTES as u64)
    }

    /// Empty buckets of at most this many bytes; `None` below two buckets or if the system has no memory. The system
    /// provides zeroed pages on first use only if no alignment beyond that of the words is requested; hence `start`.
    pub(super) fn zeroed(bytes: u64) -> Option<Self> {
        let buckets = usize::try_from(Self::fitting(bytes)?).ok()? / LINE_BYTES;
        let words = <[AtomicU64]>::new_box_zeroed_with_elems(buckets.checked_add(1)? * WORDS).ok()?;
        Some(Self::over(words, buckets))
    }
}

impl<W: Word> Buckets<W> {
    /// Buckets over words that are all zero. With words for one bucket more, the buckets are aligned to cache lines.
    pub(super) fn over(words: Box<[W]>, buckets: usize) -> Self {
        let start = words.as_ptr().align_offset(LINE_BYTES).min(words.len() - buckets * WORDS);
        let used = (0..buckets.div_ceil(PAGE_BUCKETS * 64)).map(|_| AtomicU64::new(0)).collect();
        Self { words, start, buckets, used }
    }

    /// Pages that have had an entry, from this one on.
    pub(super) fn used_pages(&self, from: usize) -> impl Iterator<Item = usize> + '_ {
        let words = self.used.iter().enumerate().skip(from / 64);
        words.flat_map(move |(index, word)| {
            let seen =
                word.load(Ordering::Acquire) & if index == from / 64 { u64::MAX << (from % 64) } else { u64::MAX };
            (0..64).filter(move |bit| seen >> bit & 1 == 1).map(move |bit| index * 64 + bit)
        })
    }

    /// Entries of one page, each whole.
    pub(super) fn page(&self, page: usize) -> impl Iterator<Item = (KeyHash, Data)> + '_ {
        let buckets = page * PAGE_BUCKETS..((page + 1) * PAGE_BUCKETS).min(self.buckets);
        buckets.flat_map(|bucket| self.entries(bucket))
    }

    /// Finds the entry of a key, with a proof if there is none.
    #[inline]
    pub(super) fn find(&self, key: KeyHash) -> Option<FoundEntry<'_, W>> {
        self.first_look(key).or_else(|| self.look_surely(key))
    }

    /// Looks once, without a proof of a miss: enough before the lock bits are taken.
    #[inline]
    pub(super) fn first_look(&self, key: KeyHash) -> Option<FoundEntry<'_, W>> {
        for home in self.homes(key) {
            for [word, check] in self.bucket(home).as_chunks().0 {
                // The two loads may see two different entries; the key then fits neither of them.
                let data = Data(word.load());
                if data.key(check.load()) == key && !data.is_empty() {
                    return Some(FoundEntry { word, data });
                }
            }
        }
        None
    }

    /// Looks until two looks agree, so that a key in motion between the buckets is not missed.
    fn look_surely(&self, key: KeyHash) -> Option<FoundEntry<'_, W>> {
        let buckets = self.homes(key).map(|home| self.bucket(home));
        for _ in 0..W::LOOKS {
            let looks = buckets.map(BucketRead::at);
            for (bucket, look) in buckets.into_iter().zip(&looks) {
                if let Some((place, data)) = look.find(key) {
                    return Some(FoundEntry { word: &bucket[2 * place], data });
                }
            }
            if buckets.into_iter().zip(&looks).all(|(bucket, look)| look.still_holds(bucket)) {
                break;
            }
            W::pause();
        }
        None
    }

    /// Sets the minute of an entry; false if another thread has changed the entry meanwhile.
    #[inline]
    pub(super) fn touch(found: &FoundEntry<'_, W>, now: Minute) -> bool {
        found.word.replace(found.data.0, found.data.seen_at(now).0)
    }

    /// Takes the lock bits of both buckets of a key; `None` if another thread keeps one of them for long.
    pub(super) fn hold(&self, key: KeyHash) -> Option<Held<'_, W>> {
        // Always in ascending order: two writers with the same two buckets cannot wait for each other.
        let homes = self.homes(key);
        let (low, high) = (homes[0].min(homes[1]), homes[0].max(homes[1]));
        let low = Bit::take(&self.bucket(low)[0])?;
        let high = Bit::take(&self.bucket(high)[0])?;
        let (buckets, pages) = (homes.map(|home| self.bucket(home)), homes.map(|home| home / PAGE_BUCKETS));
        Some(Held { buckets, pages, used: &self.used, _bits: [low, high] })
    }

    /// Entries of one bucket, each whole. A bucket that stays locked gives none: half an entry would carry a key that
    /// does not exist.
    pub(super) fn entries(&self, bucket: usize) -> impl Iterator<Item = (KeyHash, Data)> + use<W> {
        let bucket = self.bucket(bucket);
        let look = (0..W::TRIES).find_map(|_| {
            let look = BucketRead::at(bucket);
            let whole = look.still_holds(bucket);
            if !whole {
                W::pause();
            }
            whole.then_some(look)
        });
        let entries = look.into_iter().flat_map(|look| (0..ENTRIES).map(move |place| look.entry(place)));
        entries.filter(|(_, data)| !data.is_empty())
    }

    /// The two buckets of a key, never the same one twice.
    #[inline]
    fn homes(&self, key: KeyHash) -> [usize; 2] {
        let share = |half: u32| ((u64::from(half) * self.buckets as u64) >> 32) as usize;
        let (first, second) = (share((key.0 >> 32) as u32), share(key.0 as u32));
        let next = if first + 1 == self.buckets { 0 } else { first + 1 };
        [first, if second == first { next } else { second }]
    }

    #[inline]
    fn bucket(&self, index: usize) -> &[W; WORDS] {
        &self.words[self.start..].as_chunks().0[index]
    }
}

/// The words of a bucket as read one after another.
struct BucketRead([u64; WORDS]);

impl BucketRead {
    #[inline]
    fn at<W: Word>(bucket: &[W; WORDS]) -> Self {
        Self(std::array::from_fn(|word| bucket[word].load()))
    }

    /// Whether no word has changed since, and the bucket was not locked.
    #[inline]
    fn still_holds<W: Word>(&self, bucket: &[W; WORDS]) -> bool {
        let changed = bucket.iter().zip(&self.0).fold(0, |changed, (word, seen)| changed | (word.load() ^ seen));
        changed == 0 && !Data(self.0[0]).is_locked()
    }

    #[inline]
    fn entry(&self, place: usize) -> (KeyHash, Data) {
        let (data, check) = (Data(self.0[2 * place]), self.0[2 * place + 1]);
        (data.key(check), data)
    }

    #[inline]
    fn find(&self, key: KeyHash) -> Option<(usize, Data)> {
        let mut entries = (0..ENTRIES).map(|place| (place, self.entry(place)));
        let (place, (_, data)) = entries.find(|(_, (found, data))| *found == key && !data.is_empty())?;
        Some((place, data))
    }
}

/// The lock bit of a bucket, cleared when dropped.
struct Bit<'t, W: Word>(&'t W);

impl<'t, W: Word> Bit<'t, W> {
    fn take(word: &'t W) -> Option<Self> {
        for _ in 0..W::TRIES {
            let data = word.load();
            if data & LOCK == 0 && word.replace(data, data | LOCK) {
                return Some(Self(word));
            }
            W::pause();
        }
        None
    }
}

impl<W: Word> Drop for Bit<'_, W> {
    fn drop(&mut self) {
        self.0.clear(LOCK);
    }
}

/// Both buckets of a key, locked. Places count through both: 0 to 7.
pub(super) struct Held<'t, W: Word> {
    buckets: [&'t [W; WORDS]; 2],
    pages: [usize; 2],
    used: &'t [AtomicU64],
    _bits: [Bit<'t, W>; 2],
}

impl<W: Word> Held<'_, W> {
    /// Data words of all eight places.
    pub(super) fn all(&self) -> [Data; 2 * ENTRIES] {
        std::array::from_fn(|place| Data(self.word(place, 0).load()))
    }

    /// Place of the key's entry, if it has one.
    pub(super) fn place_of(&self, key: KeyHash) -> Option<usize> {
        (0..2 * ENTRIES).find(|place| {
            let data = Data(self.word(*place, 0).load());
            data.key(self.word(*place, 1).load()) == key && !data.is_empty()
        })
    }

    /// Overwrites one place and returns what stood there, which a touch may have dated anew until now. A reader between
    /// the two changes sees a pair that gives neither key.
    pub(super) fn put(&self, place: usize, key: KeyHash, data: Data) -> Data {
        self.note_page(self.pages[place / ENTRIES]);
        // The first word of each bucket keeps its lock bit until `Bit` is dropped.
        let lock = if place.is_multiple_of(ENTRIES) { LOCK } else { 0 };
        let before = self.word(place, 0).swap(data.0 | lock);
        self.word(place, 1).store(data.check(key));
        Data(before & !LOCK)
    }

    /// Empties one place of the two buckets and returns what stood there.
    pub(super) fn empty(&self, place: usize) -> Data {
        self.put(place, KeyHash(0), Data::EMPTY)
    }

    fn note_page(&self, page: usize) {
        let (word, bit) = (&self.used[page / 64], 1 << (page % 64));
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::Release);
        }
    }

    fn word(&self, place: usize, half: usize) -> &W {
        &self.buckets[place / ENTRIES][2 * (place % ENTRIES) + half]
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BackendId, EntryKind, EntryValue};
    use super::*;
    use crate::sticky::table::entry::PlacementId;

    #[test]
    fn nothing_is_told_of_a_bucket_in_which_an_entry_is_half_written() {
        let buckets = Buckets::zeroed(2 * LINE_BYTES as u64).unwrap();
        let place = EntryValue { id: BackendId { id: 1, generation: 0 }, kind: EntryKind::Displaced };
        let (key, data) = (KeyHash(7), Data::new(place, PlacementId::at(0), Minute::START));
        let told = || (0..2).flat_map(|bucket| buckets.entries(bucket)).collect::<Vec<_>>();
        let held = buckets.hold(key).unwrap();
        Word::store(held.word(1, 0), data.0);
        assert_eq!(told(), []);
        held.put(1, key, data);
        drop(held);
        assert_eq!(told(), [(key, data)]);
    }
}
