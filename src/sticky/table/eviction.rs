//! Which entry gives way: an entry to a new one of the same key, and entries of other keys to a newcomer.
//!
//! Works on copies of entries and changes nothing. Invariant: no entry goes for a newcomer that is worth less or was
//! seen longer ago, and none of worth goes while there is one of no worth. An entry of a backend that left the
//! configuration takes no room from others; while there is room, it records that its client lost a backend.

use std::cmp::Reverse;

use super::buckets::ENTRIES;
use super::entry::{Data, Lifetimes, Minute, PlacementId};
use super::{BackendId, BackendState, EntryKind, Stored};

/// Terms of a snapshot and the time, for one operation on the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct TableView {
    pub(super) lifetimes: Lifetimes,
    pub(super) placement_id: PlacementId,
    pub(super) now: Minute,
}

impl TableView {
    /// Whether an entry exists and has not outlived its time.
    #[inline]
    pub(super) fn is_live(&self, data: Data) -> bool {
        !data.is_empty() && self.lifetimes.reach(data.flags(), self.now.age_min(data.seen()))
    }
}

/// What happens to a live entry when its key comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IfKnown {
    /// The new entry's backend replaces the old one.
    Move,
    /// The old backend stays; the date becomes the younger of both.
    Keep,
    /// The new entry's backend replaces this one; any other stays as with `Keep`.
    MoveFrom(BackendId),
    /// The younger of the two entries counts.
    Newest,
}

/// An entry after its key came again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Update {
    pub(super) after: Data,
    pub(super) stored: Stored,
}

impl Update {
    #[inline]
    pub(super) fn new(
        before: Data,
        fresh: Data,
        if_known: IfKnown,
        view: &TableView,
        state: impl Fn(Data) -> BackendState,
    ) -> Self {
        // An entry of a backend that left gives way entirely: its `Learned` kind does not pass on.
        if !view.is_live(before) || state(before) == BackendState::Gone {
            return Self { after: fresh, stored: Stored::Added };
        }
        let age_min = |data: Data| view.now.age_min(data.seen());
        let stays = match if_known {
            IfKnown::Move => false,
            IfKnown::Keep => true,
            IfKnown::MoveFrom(id) => before.id() != id,
            IfKnown::Newest => age_min(before) <= age_min(fresh),
        };
        // The date never goes back, whichever backend counts.
        let younger = if age_min(fresh) < age_min(before) { fresh } else { before };
        let after = if stays { before } else { fresh.as_learned_as(before) }.seen_at(younger.seen());
        Self { after, stored: if after.id() == before.id() { Stored::Known } else { Stored::Moved } }
    }
}

/// Worth of an entry, least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// An empty place, or an entry that has outlived its time.
    Nothing,
    /// An entry of a backend that has left the configuration.
    Gone,
    /// An entry that placement would find anyway, or one of a backend that takes no connection now.
    Little,
    /// An entry that only the stick table has.
    Displaced,
    /// An entry that the application has set with its cookie.
    Learned,
}

/// Place for a newcomer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// A place without a live entry of a present backend.
    Free(usize),
    /// The place of a live entry of this kind, which goes.
    InsteadOf(usize, EntryKind),
    /// No place: every entry is worth more.
    None,
}

/// Chooses a place in both buckets of a key.
pub(super) fn find(
    all: &[Data; 2 * ENTRIES],
    newcomer: Data,
    view: &TableView,
    state: impl Fn(Data) -> BackendState,
) -> Room {
    let ranks = all.map(|data| rank(data, view, &state));
    if let Some(place) = freest(&ranks, Rank::Nothing).or_else(|| freest(&ranks, Rank::Gone)) {
        return Room::Free(place);
    }
    // Order of leaving: least worth first, and among equals the one seen longest ago.
    let with_age = |rank: Rank, data: Data| (rank, Reverse(view.now.age_min(data.seen())));
    // The backend of a newcomer has just taken its connection.
    let newcomer = with_age(rank(newcomer, view, |_| BackendState::Usable), newcomer);
    let at = |place: usize| with_age(ranks[place], all[place]);
    match (0..all.len()).min_by_key(|place| at(*place)) {
        Some(place) if at(place) <= newcomer => Room::InsteadOf(place, all[place].kind(view.placement_id)),
        _ => Room::None,
    }
}

/// The first place of this rank in the bucket that has more of them. The emptier of two buckets fills last, so that few
/// keys ever find both full.
fn freest(ranks: &[Rank; 2 * ENTRIES], least: Rank) -> Option<usize> {
    let (first, second) = ranks.split_at(ENTRIES);
    let free = |bucket: &[Rank]| bucket.iter().filter(|rank| **rank == least).count();
    let (bucket, offset) = if free(second) > free(first) { (second, ENTRIES) } else { (first, 0) };
    bucket.iter().position(|rank| *rank == least).map(|place| place + offset)
}

// Worth of an entry: what would be lost if it went.
fn rank(data: Data, view: &TableView, state: impl Fn(Data) -> BackendState) -> Rank {
    if !view.is_live(data) {
        return Rank::Nothing;
    }
    match (state(data), data.kind(view.placement_id)) {
        (BackendState::Gone, _) => Rank::Gone,
        (BackendState::Unusable, _) | (_, EntryKind::Placed) => Rank::Little,
        (_, EntryKind::Outgrown | EntryKind::Displaced | EntryKind::Overflowed | EntryKind::Brought) => Rank::Displaced,
        (_, EntryKind::Learned) => Rank::Learned,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sticky::table::{EntryValue, Terms};

    const PLACEMENT_ID: usize = 3;
    const DOWN: u16 = 8;
    const GONE: u16 = 9;

    fn view() -> TableView {
        let [remember, remember_values] = [100, 500].map(|minutes| Duration::from_secs(minutes * 60));
        let lifetimes = Lifetimes::new(&Terms { remember, remember_values, digest: 1 });
        TableView { lifetimes, placement_id: PlacementId::at(PLACEMENT_ID), now: Minute::of_ms(1000 * 60_000) }
    }

    fn entry(id: u16, kind: EntryKind, age_min: u32) -> Data {
        let place = EntryValue { id: BackendId { id, generation: 0 }, kind };
        Data::new(place, PlacementId::at(PLACEMENT_ID), view().now.before(age_min))
    }

    fn find(all: [Data; 8], newcomer: EntryKind) -> Room {
        super::find(&all, entry(1, newcomer, 0), &view(), |data| match data.id().id {
            DOWN => BackendState::Unusable,
            GONE => BackendState::Gone,
            _ => BackendState::Usable,
        })
    }

    #[test]
    fn the_emptier_bucket_takes_the_newcomer() {
        let mut all = [Data::EMPTY; 8];
        assert_eq!(find(all, EntryKind::Placed), Room::Free(0));
        all[0] = entry(1, EntryKind::Placed, 5);
        assert_eq!(find(all, EntryKind::Placed), Room::Free(4));
        all[4] = all[0];
        assert_eq!(find(all, EntryKind::Placed), Room::Free(1));
    }

    #[test]
    fn who_was_torn_away_is_known_as_long_as_there_is_room() {
        let mut all = [entry(GONE, EntryKind::Placed, 0); 8];
        assert_eq!(find(all, EntryKind::Placed), Room::Free(0), "and no longer");
        all[6] = Data::EMPTY;
        assert_eq!(find(all, EntryKind::Placed), Room::Free(6));
        all = [entry(1, EntryKind::Placed, 5); 8];
        all[3] = entry(GONE, EntryKind::Learned, 0);
        assert_eq!(find(all, EntryKind::Placed), Room::Free(3), "nobody who is somewhere goes for it");
    }

    #[test]
    fn what_is_over_or_gone_counts_as_empty() {
        let mut all = [entry(1, EntryKind::Learned, 5); 8];
        for (kind, most) in [(EntryKind::Displaced, 100), (EntryKind::Brought, 500), (EntryKind::Learned, 500)] {
            all[6] = entry(1, kind, most + 1);
            assert_eq!(find(all, EntryKind::Placed), Room::Free(6), "{kind:?}");
            all[6] = entry(1, kind, most);
            assert_eq!(find(all, EntryKind::Placed), Room::None, "{kind:?} is not over yet");
        }
        all[6] = entry(GONE, EntryKind::Learned, 0);
        assert_eq!(find(all, EntryKind::Placed), Room::Free(6));
    }

    #[test]
    fn the_oldest_of_least_worth_goes_first() {
        let mut all = [entry(1, EntryKind::Learned, 90); 8];
        all[2] = entry(1, EntryKind::Displaced, 50);
        all[3] = entry(1, EntryKind::Displaced, 60);
        assert_eq!(find(all, EntryKind::Displaced), Room::InsteadOf(3, EntryKind::Displaced));
        all[5] = entry(1, EntryKind::Placed, 1);
        all[7] = entry(DOWN, EntryKind::Learned, 2);
        assert_eq!(find(all, EntryKind::Learned), Room::InsteadOf(7, EntryKind::Learned));
        all[7] = entry(DOWN, EntryKind::Learned, 0);
        assert_eq!(find(all, EntryKind::Learned), Room::InsteadOf(5, EntryKind::Placed));
    }

    #[test]
    fn nobody_goes_for_a_newcomer_of_less_worth() {
        let mut all = [entry(1, EntryKind::Learned, 90); 8];
        assert_eq!(find(all, EntryKind::Displaced), Room::None);
        assert_eq!(find(all, EntryKind::Learned), Room::InsteadOf(0, EntryKind::Learned));
        all[4] = entry(1, EntryKind::Displaced, 3);
        assert_eq!(find(all, EntryKind::Placed), Room::None, "placement will find the newcomer");
        assert_eq!(find(all, EntryKind::Displaced), Room::InsteadOf(4, EntryKind::Displaced));
        let restored = super::find(&all, entry(1, EntryKind::Displaced, 4), &view(), |_| BackendState::Usable);
        assert_eq!(restored, Room::None, "nor for one that was seen longer ago");
    }
}
