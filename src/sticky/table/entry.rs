//! One entry as two words, and the minute that dates it.
//!
//! Touches no shared memory. Invariant: the check word binds the key to everything in the data word but minutes and
//! lock, so the halves of two different entries, read together, give a key that does not exist.
//!
//! ```text
//! data   backend id 16 | generation 16 | minutes 24 | lock 1 | value 1 | placement 6
//! check  key ^ (data without minutes and lock)
//! ```
//!
//! Id 0 is no backend: a place of zeros is empty. Minutes wrap after 31 years. *Placement* is the number of the
//! placement that would find the same backend (a remainder of its digest), or 0: so when a reload changes placement,
//! every older entry counts as worth keeping until its client comes again. *Value* is set where the key is a value of a
//! learned cookie, which has a lifetime of its own; placement is then 0 if a backend is known to have set the value.

use std::time::Duration;

use super::secret::KeyHash;
use super::{BackendId, EntryKind, EntryValue, Terms};

/// Minutes on the process's clock, modulo 2^24.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Minute(u32);

/// Largest minute, 24 bits.
const MINUTES: u32 = 0xff_ffff;

impl Minute {
    /// First minute of the process's clock.
    pub const START: Self = Self(0);

    /// The minute of a time on the process's clock, in milliseconds.
    #[inline]
    pub fn of_ms(now_ms: u64) -> Self {
        Self((now_ms / 60_000) as u32 & MINUTES)
    }

    /// The minute so much earlier, which may lie before the start of the clock.
    pub fn before(self, age_min: u32) -> Self {
        Self(self.0.wrapping_sub(age_min) & MINUTES)
    }

    /// The minute as a number below 2^24.
    #[inline]
    pub(super) fn number(self) -> usize {
        self.0 as usize
    }

    /// The minute of this number.
    #[inline]
    pub(super) fn of_number(number: u32) -> Self {
        Self(number & MINUTES)
    }

    /// Minutes since `seen`. A minute ahead comes from a thread that read the clock a little later, and counts as 0.
    #[inline]
    pub fn age_min(self, seen: Self) -> u32 {
        let age = self.0.wrapping_sub(seen.0) & MINUTES;
        if age > MINUTES / 2 { 0 } else { age }
    }
}

/// Most minutes that an entry can live: half the range, so that ages stay unambiguous.
const REMEMBER_MAX: u64 = (MINUTES / 2 - 1) as u64;

/// Age in minutes at which an entry is over, rounded up: never less than asked, up to two minutes more.
fn remember_min(remember: Duration) -> u32 {
    remember.as_secs().div_ceil(60).min(REMEMBER_MAX) as u32
}

/// Greatest ages of entries, in minutes, by kind of key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lifetimes {
    keys_min: u32,
    values_min: u32,
}

impl Lifetimes {
    pub(super) fn new(terms: &Terms) -> Self {
        Self { keys_min: remember_min(terms.remember), values_min: remember_min(terms.remember_values) }
    }

    /// Whether an entry with these flags is not over at this age.
    #[inline]
    pub(super) fn reach(self, flags: u8, age_min: u32) -> bool {
        self.last(u64::from(flags) & VALUE != 0, age_min)
    }

    /// Whether an entry is not over at this age; `is_value`: its key is a value of a learned cookie.
    #[inline]
    pub(super) fn last(self, is_value: bool, age_min: u32) -> bool {
        age_min <= if is_value { self.values_min } else { self.keys_min }
    }

    /// The longer of both, for each kind of key.
    pub(super) fn longest(self, other: Self) -> Self {
        let (keys_min, values_min) = (self.keys_min.max(other.keys_min), self.values_min.max(other.values_min));
        Self { keys_min, values_min }
    }
}

/// Number of placements that entries can tell apart.
pub(super) const PLACEMENT_IDS: usize = 62;

/// Rows in which entries are counted by kind: one for each value of the placement bits, and two for values of cookies.
pub(super) const ENTRY_ROWS: usize = BROUGHT_ROW + 1;
const LEARNED_ROW: usize = PLACEMENT_MASK as usize + 1;
const BROUGHT_ROW: usize = LEARNED_ROW + 1;

/// Number of the placement that would find an entry's backend: 1 to [`PLACEMENT_IDS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PlacementId(u8);

impl PlacementId {
    /// The id of a position in the list of placements, modulo its length.
    pub(super) fn at(place: usize) -> Self {
        Self(1 + (place % PLACEMENT_IDS) as u8)
    }

    /// Position in the list of placements, from 0.
    pub(super) fn place(self) -> usize {
        usize::from(self.0) - 1
    }

    /// Counts of entries by their [`Data::row`], added up as this placement sees them: placed, displaced, of cookies.
    pub(super) fn kinds(self, rows: &[u64; ENTRY_ROWS]) -> [u64; 3] {
        let placed = rows[usize::from(self.0)];
        [placed, rows[..LEARNED_ROW].iter().sum::<u64>() - placed, rows[LEARNED_ROW] + rows[BROUGHT_ROW]]
    }

    /// The id in an entry's flags; `None` for the values that name no placement.
    pub(super) fn of_flags(flags: u64) -> Option<Self> {
        let number = (flags & PLACEMENT_MASK) as u8;
        (1..=PLACEMENT_IDS as u8).contains(&number).then_some(Self(number))
    }
}

/// Flags of an entry of another table, with the placement's number of this one; 0 where it has none.
pub(super) fn translated(flags: u8, placement_id: impl Fn(PlacementId) -> Option<PlacementId>) -> u8 {
    let flags = u64::from(flags);
    match PlacementId::of_flags(flags) {
        Some(there) => (flags & !PLACEMENT_MASK) as u8 | placement_id(there).map_or(0, |here| here.0),
        None => flags as u8,
    }
}

/// Data word of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Data(pub(super) u64);

const MINUTES_SHIFT: u32 = 8;
const MINUTES_MASK: u64 = (MINUTES as u64) << MINUTES_SHIFT;
const VALUE: u64 = 1 << 6;
const PLACEMENT_MASK: u64 = VALUE - 1;
const FLAGS_MASK: u64 = VALUE | PLACEMENT_MASK;
/// Value of the placement bits that is no placement: the key stays elsewhere for load.
const OVERFLOWED: u64 = PLACEMENT_MASK;
const LEARNED: u64 = VALUE;
/// Value of the flags for a value of a learned cookie without a known setter.
const BROUGHT: u64 = VALUE | PLACEMENT_MASK;

/// Lock bit of a bucket, in the data word of its first entry.
pub(super) const LOCK: u64 = 1 << 7;

impl Data {
    /// Data word of an empty place.
    pub(super) const EMPTY: Self = Self(0);

    /// An entry for a key seen at this minute; `placement_id` enters only an entry of kind `Placed`.
    #[inline]
    pub(super) fn new(place: EntryValue, placement_id: PlacementId, seen: Minute) -> Self {
        let flags = match place.kind {
            EntryKind::Placed => u64::from(placement_id.0),
            EntryKind::Outgrown | EntryKind::Displaced => 0,
            EntryKind::Overflowed => OVERFLOWED,
            EntryKind::Brought => BROUGHT,
            EntryKind::Learned => LEARNED,
        };
        Self::with_flags(place.id, flags as u8, seen)
    }

    /// An entry with flags as [`flags`](Self::flags) returns them.
    pub(super) fn with_flags(id: BackendId, flags: u8, seen: Minute) -> Self {
        let id = u64::from(id.id) << 48 | u64::from(id.generation) << 32;
        Self(id | u64::from(seen.0) << MINUTES_SHIFT | u64::from(flags) & FLAGS_MASK)
    }

    #[inline]
    pub(super) fn is_empty(self) -> bool {
        self.0 >> 48 == 0
    }

    #[inline]
    pub(super) fn is_locked(self) -> bool {
        self.0 & LOCK != 0
    }

    #[inline]
    pub(super) fn id(self) -> BackendId {
        BackendId { id: (self.0 >> 48) as u16, generation: (self.0 >> 32) as u16 }
    }

    #[inline]
    pub(super) fn seen(self) -> Minute {
        Minute((self.0 >> MINUTES_SHIFT) as u32 & MINUTES)
    }

    /// The bits besides id, minute and lock.
    #[inline]
    pub(super) fn flags(self) -> u8 {
        (self.0 & FLAGS_MASK) as u8
    }

    /// The kind, as seen by a pool with this placement.
    #[inline]
    pub(super) fn kind(self, placement_id: PlacementId) -> EntryKind {
        if self.0 & VALUE != 0 {
            if self.is_learned() { EntryKind::Learned } else { EntryKind::Brought }
        } else if self.0 & PLACEMENT_MASK == u64::from(placement_id.0) {
            EntryKind::Placed
        } else if self.0 & PLACEMENT_MASK == OVERFLOWED {
            EntryKind::Overflowed
        } else if self.0 & PLACEMENT_MASK != 0 {
            EntryKind::Outgrown
        } else {
            EntryKind::Displaced
        }
    }

    /// The row in which the entry is counted by kind.
    #[inline]
    pub(super) fn row(self) -> usize {
        match (self.is_value(), self.is_learned()) {
            (false, _) => (self.0 & PLACEMENT_MASK) as usize,
            (true, true) => LEARNED_ROW,
            (true, false) => BROUGHT_ROW,
        }
    }

    /// Whether the key is a value of a learned cookie.
    #[inline]
    pub(super) fn is_value(self) -> bool {
        self.0 & VALUE != 0
    }

    /// This entry with another minute.
    #[inline]
    pub(super) fn seen_at(self, seen: Minute) -> Self {
        Self(self.0 & !MINUTES_MASK | u64::from(seen.0) << MINUTES_SHIFT)
    }

    /// This entry as `Learned`, if the other one is.
    #[inline]
    pub(super) fn as_learned_as(self, other: Self) -> Self {
        if other.is_learned() { Self(self.0 & !FLAGS_MASK | LEARNED) } else { self }
    }

    #[inline]
    fn is_learned(self) -> bool {
        self.0 & FLAGS_MASK == LEARNED
    }

    /// The bits that the check word binds.
    #[inline]
    pub(super) fn bound(self) -> u64 {
        self.0 & !(MINUTES_MASK | LOCK)
    }

    /// The check word for this entry under a key.
    #[inline]
    pub(super) fn check(self, key: KeyHash) -> u64 {
        key.0 ^ self.bound()
    }

    /// The key of this data word and a check word, which exists only if both belong together.
    #[inline]
    pub(super) fn key(self, check: u64) -> KeyHash {
        KeyHash(check ^ self.bound())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SEAT: BackendId = BackendId { id: 7, generation: 9 };

    #[test]
    fn ages_are_right_across_the_start_of_the_clock_and_its_wrap() {
        let now = Minute::of_ms(5 * 60_000);
        assert_eq!(now.age_min(now.before(10)), 10);
        assert_eq!(now.before(10).age_min(now), 0, "what lies ahead is now");
        let wrapped = Minute::of_ms((u64::from(MINUTES) + 3) * 60_000);
        assert_eq!(wrapped.age_min(Minute::of_ms(u64::from(MINUTES) * 60_000)), 3);
        assert_eq!(
            now.age_min(now.before(REMEMBER_MAX as u32 + 1)),
            REMEMBER_MAX as u32 + 1,
            "more than is remembered"
        );
    }

    #[test]
    fn what_is_remembered_is_rounded_up_to_minutes() {
        let minutes = [0, 1, 60, 61, 10_800, u64::MAX].map(|seconds| remember_min(Duration::from_secs(seconds)));
        assert_eq!(minutes, [0, 1, 1, 2, 180, REMEMBER_MAX as u32]);
    }

    #[test]
    fn an_entry_is_findable_by_the_placement_it_was_made_under_only() {
        let (old, new) = (PlacementId::at(5), PlacementId::at(6));
        let data = |kind| Data::new(EntryValue { id: SEAT, kind }, old, Minute(1));
        assert_eq!(data(EntryKind::Placed).kind(old), EntryKind::Placed);
        assert_eq!(data(EntryKind::Placed).kind(new), EntryKind::Outgrown);
        assert_eq!(data(EntryKind::Displaced).kind(PlacementId::at(0)), EntryKind::Displaced);
        for value in [EntryKind::Brought, EntryKind::Learned] {
            assert_eq!((data(value).kind(old), data(value).kind(new)), (value, value));
            let flags = translated(data(value).flags(), |_| Some(new));
            assert_eq!(Data::with_flags(SEAT, flags, Minute(1)), data(value), "in another table");
        }
    }

    #[test]
    fn values_get_as_old_as_their_cookie_says_and_keys_as_the_pool_says() {
        let [hour, day] = [1, 24].map(|hours| Duration::from_secs(hours * 3_600));
        for (remember, remember_values) in [(hour, day), (day, hour)] {
            let lifetimes = Lifetimes::new(&Terms { remember, remember_values, digest: 1 });
            let origins = [
                (EntryKind::Placed, remember),
                (EntryKind::Displaced, remember),
                (EntryKind::Overflowed, remember),
                (EntryKind::Brought, remember_values),
                (EntryKind::Learned, remember_values),
            ];
            for (kind, most) in origins {
                let flags =
                    Data::new(EntryValue { id: SEAT, kind }, PlacementId::at(PLACEMENT_IDS - 1), Minute(1)).flags();
                let most_min = remember_min(most);
                assert!(lifetimes.reach(flags, most_min) && !lifetimes.reach(flags, most_min + 1), "{kind:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_pair_of_words_gives_back_what_made_it(
            id in 1u16.., generation: u16, ms: u64, later: u64, key: u64, kind in 0..4_usize,
        ) {
            let kinds = [EntryKind::Placed, EntryKind::Displaced, EntryKind::Brought, EntryKind::Learned];
            let place = EntryValue { id: BackendId { id, generation }, kind: kinds[kind] };
            let (placement_id, seen) = (PlacementId::at(key as usize), Minute::of_ms(ms));
            let data = Data::new(place, placement_id, seen);
            prop_assert_eq!((data.id(), data.kind(placement_id), data.seen()), (place.id, place.kind, seen));
            prop_assert_eq!(Data::with_flags(data.id(), data.flags(), seen), data);
            let touched = Data(data.seen_at(Minute::of_ms(later)).0 | LOCK);
            prop_assert_eq!(touched.key(data.check(KeyHash(key))), KeyHash(key), "touch and lock leave the key");
            prop_assert!(!touched.is_empty() && touched.is_locked() && !data.is_locked());
        }

        #[test]
        fn halves_of_two_entries_name_neither(a: u64, b: u64, key_a: u64, key_b: u64) {
            let (a, b) = (Data(a), Data(b));
            prop_assume!(a.bound() != b.bound() && key_a != key_b);
            let torn = a.key(b.check(KeyHash(key_b)));
            prop_assert_ne!(torn, KeyHash(key_b));
        }
    }
}
