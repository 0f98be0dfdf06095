//! The words themselves: buckets of one cache line, read without waiting, changed under a bit of their own.
//!
//! Knows of keys and entries, not of what an entry is worth. Invariants: a look-up ends after a bounded number of
//! reads whoever is doing what; a key stands in at most one place; who changes holds the bits of both buckets.
//!
//! # How it stays right without locks for readers
//!
//! - A *hit* needs no proof: the two words of an entry only give the key if they belong together.
//! - A *miss* is believed when two looks at both buckets saw the same words and no bit set. Whoever saw half a change
//!   has seen a word that was written after the bit was set, so its next look sees the bit or the whole change. After
//!   [`Word::LOOKS`] looks at a bucket that keeps changing the miss is believed as well: nobody waits.
//! - A *touch* is one compare-exchange on the data word, so it never brings back what was overwritten.
//! - The bit stands in the data word of the first entry of a bucket. Bits are taken in the order of the buckets and
//!   each is tried [`Word::TRIES`] times; who fails changes nothing.

use std::hint;
use std::sync::atomic::{AtomicU64, Ordering};

use zerocopy::FromZeros;

use super::entry::{Data, LOCK, Minute};
use super::secret::KeyHash;

/// Entries in a bucket: a cache line.
pub(super) const ENTRIES: usize = 4;
const WORDS: usize = 2 * ENTRIES;
const LINE_BYTES: usize = WORDS * size_of::<u64>();

/// What an atomic word can do, so that a model of one can take its place.
pub(super) trait Word {
    fn load(&self) -> u64;
    fn store(&self, value: u64);
    fn replace(&self, old: u64, new: u64) -> bool;
    fn clear(&self, bits: u64);
    fn pause();
    /// Tries for the bit of one bucket: some microseconds.
    const TRIES: usize = 256;
    /// Looks before a miss in a bucket that keeps changing is believed.
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

/// Buckets of entries.
pub(super) struct Buckets<W = AtomicU64> {
    words: Box<[W]>,
    /// The first word of a cache line.
    start: usize,
    buckets: usize,
}

/// An entry that a look-up found.
pub(super) struct FoundEntry<'t, W> {
    word: &'t W,
    pub(super) data: Data,
}

impl Buckets {
    /// Of at most this many bytes; `None` below two buckets or if there is no stick table. The system hands out zeroed pages
    /// when they are first touched, as long as no alignment beyond the words' own is asked for; hence `start`.
    pub(super) fn zeroed(bytes: u64) -> Option<Self> {
        let buckets = usize::try_from(bytes).ok()? / LINE_BYTES;
        // The halves of a hash tell apart so many.
        let buckets = buckets.min(u32::MAX as usize);
        let words = <[AtomicU64]>::new_box_zeroed_with_elems(buckets.checked_add(1)? * WORDS).ok()?;
        (buckets >= 2).then(|| Self::over(words, buckets))
    }
}

impl<W: Word> Buckets<W> {
    /// Over words that are all zero; with one bucket more than asked for, buckets are cache lines.
    pub(super) fn over(words: Box<[W]>, buckets: usize) -> Self {
        let start = words.as_ptr().align_offset(LINE_BYTES).min(words.len() - buckets * WORDS);
        Self { words, start, buckets }
    }

    pub(super) fn buckets(&self) -> usize {
        self.buckets
    }

    pub(super) fn bytes(&self) -> u64 {
        (self.buckets * LINE_BYTES) as u64
    }

    /// Finds a key.
    #[inline]
    pub(super) fn find(&self, key: KeyHash) -> Option<FoundEntry<'_, W>> {
        self.first_look(key).or_else(|| self.look_surely(key))
    }

    /// A hit here is one; a miss is not sure, which is enough for those who take the bits next.
    #[inline]
    pub(super) fn first_look(&self, key: KeyHash) -> Option<FoundEntry<'_, W>> {
        for home in self.homes(key) {
            for [word, check] in self.bucket(home).as_chunks().0 {
                let data = Data(word.load());
                if data.key(check.load()) == key && !data.is_empty() {
                    return Some(FoundEntry { word, data });
                }
            }
        }
        None
    }

    /// Looks until two looks agree.
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

    /// Dates an entry; whether it did. If not, somebody else has changed it just now.
    #[inline]
    pub(super) fn touch(found: &FoundEntry<'_, W>, now: Minute) -> bool {
        found.word.replace(found.data.0, found.data.seen_at(now).0)
    }

    /// Takes both buckets of a key; `None` if somebody else has one of them for long.
    pub(super) fn hold(&self, key: KeyHash) -> Option<Held<'_, W>> {
        let homes = self.homes(key);
        let (low, high) = (homes[0].min(homes[1]), homes[0].max(homes[1]));
        let low = Bit::take(&self.bucket(low)[0])?;
        let high = Bit::take(&self.bucket(high)[0])?;
        Some(Held { buckets: homes.map(|home| self.bucket(home)), _bits: [low, high] })
    }

    /// What stands in a bucket: keys and entries that belong together. Of one that somebody is changing for long,
    /// nothing: half an entry would be one of a key that nobody has.
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

    /// The buckets in which a key may stand, never the same twice.
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

/// The words of a bucket as they were read, one after another.
struct BucketRead([u64; WORDS]);

impl BucketRead {
    #[inline]
    fn at<W: Word>(bucket: &[W; WORDS]) -> Self {
        Self(std::array::from_fn(|word| bucket[word].load()))
    }

    /// Whether nothing has changed since, and nobody is changing it.
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

/// The bit of a bucket, given back when dropped.
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

/// Both buckets of a key, to be changed by nobody else. Places count through both.
pub(super) struct Held<'t, W: Word> {
    buckets: [&'t [W; WORDS]; 2],
    _bits: [Bit<'t, W>; 2],
}

impl<W: Word> Held<'_, W> {
    /// All entries.
    pub(super) fn all(&self) -> [Data; 2 * ENTRIES] {
        std::array::from_fn(|place| Data(self.word(place, 0).load()))
    }

    /// Where the key stands.
    pub(super) fn place_of(&self, key: KeyHash) -> Option<usize> {
        (0..2 * ENTRIES).find(|place| {
            let data = Data(self.word(*place, 0).load());
            data.key(self.word(*place, 1).load()) == key && !data.is_empty()
        })
    }

    /// Overwrites a place.
    pub(super) fn put(&self, place: usize, key: KeyHash, data: Data) {
        // The bit of the bucket stays set.
        let lock = if place.is_multiple_of(ENTRIES) { LOCK } else { 0 };
        self.word(place, 0).store(data.0 | lock);
        self.word(place, 1).store(data.check(key));
    }

    /// Empties a place.
    pub(super) fn empty(&self, place: usize) {
        self.put(place, KeyHash(0), Data::EMPTY);
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
