//! [`SharedEntry`]: an entry as instances tell it to each other, and which of two words about a key counts.
//!
//! Sends nothing and knows no backend by name. Invariants: a value of a learned cookie is never among the entries that
//! are told; the date of an entry never goes back; an entry that is told under a placement which is not known here counts
//! as one that placement need not find.

use super::entry::{Data, PlacementId};
use super::{BackendId, BackendState, EntryKind, EntryValue, IfKnown, KeyHash, Minute, StickTable, Stored};

/// Why a key is at its backend, in words that mean the same to every instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedKind {
    /// The placement with this digest chose the backend.
    Placed(u64),
    /// [`EntryKind::Displaced`].
    Displaced,
    /// [`EntryKind::Overflowed`].
    Overflowed,
}

/// An entry as instances tell it to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedEntry {
    /// Hash of the key, under the secret that all instances share.
    pub key: KeyHash,
    /// Why the key is at its backend.
    pub kind: SharedKind,
    /// Whole minutes since the key was last seen.
    pub age_min: u32,
}

/// How much an instance's word about a key counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precedence {
    /// The key has moved, or is new, just now. Words of this kind come to all instances in one order, and the last one
    /// counts.
    News,
    /// The same, read again after a gap: what this instance has seen since then counts more.
    History,
    /// The entry stood so for some time: the entry seen last counts, and of two alike the first by name.
    Recap,
}

impl Precedence {
    /// Whether a word about a key counts that names another backend than the entry here. Ages are those of the word and of
    /// the entry; `comes_first`: the word's backend does by name.
    pub fn counts(self, told_min: u32, known_min: u32, comes_first: bool) -> bool {
        match self {
            Self::News => true,
            Self::History => told_min <= known_min,
            Self::Recap => told_min < known_min || told_min == known_min && comes_first,
        }
    }
}

impl StickTable {
    /// Every live entry of a connection's key, as other instances are told of it.
    pub fn shared_entries(&self, now: Minute) -> impl Iterator<Item = (BackendId, SharedEntry)> + '_ {
        let digests = self.placement_ids.all();
        let live = self.entries(now).filter(|entry| self.remembers(entry) && !entry.known.kind.is_value());
        live.map(move |entry| {
            let kind = match (entry.known.kind, PlacementId::of_flags(entry.flags.into())) {
                (EntryKind::Overflowed, _) => SharedKind::Overflowed,
                (_, Some(under)) => SharedKind::Placed(digests[under.place()].unwrap_or_default()),
                (_, None) => SharedKind::Displaced,
            };
            (entry.known.id, SharedEntry { key: entry.key, kind, age_min: entry.known.age_min })
        })
    }

    /// Whether an entry that was seen so long ago is over.
    pub fn is_over(&self, entry: &SharedEntry) -> bool {
        !self.lives(false, entry.age_min)
    }

    /// Stores an entry that another instance has told, if the key has no entry here or one that names `from`.
    pub fn take_told(
        &self,
        entry: &SharedEntry,
        id: BackendId,
        from: Option<BackendId>,
        now: Minute,
        state: impl Fn(BackendId) -> BackendState,
    ) -> Stored {
        let (kind, under) = match entry.kind {
            SharedKind::Placed(digest) => (EntryKind::Placed, self.placement_ids.among(digest, self.placement_id)),
            SharedKind::Displaced => (EntryKind::Displaced, self.placement_id),
            SharedKind::Overflowed => (EntryKind::Overflowed, self.placement_id),
        };
        let data = Data::new(EntryValue { id, kind }, under, now.before(entry.age_min));
        self.store(entry.key, data, from.map_or(IfKnown::Keep, IfKnown::MoveFrom), &self.view(now), state)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sticky::table::{Secret, Terms};

    fn table(digest: u64) -> StickTable {
        let hour = Duration::from_secs(3_600);
        let terms = Terms { remember: hour, remember_values: hour, digest };
        StickTable::new(1 << 12, Secret::new([7; 16]), terms).unwrap()
    }

    fn usable(_: BackendId) -> BackendState {
        BackendState::Usable
    }

    #[test]
    fn an_entry_means_the_same_at_an_instance_with_another_placement() {
        let (here, there, now) = (table(5), table(6), Minute::of_ms(9_000_000));
        let id = here.ids().take("a").unwrap();
        let kinds = [EntryKind::Placed, EntryKind::Displaced, EntryKind::Overflowed, EntryKind::Learned];
        let keys = [b"1", b"2", b"3", b"4"].map(|key| here.secret().key(key));
        for (key, kind) in keys.iter().zip(kinds) {
            assert_eq!(here.settle(*key, EntryValue { id, kind }, now.before(7), usable), Stored::Added);
        }
        let told: Vec<_> = here.shared_entries(now).collect();
        assert_eq!(told.len(), 3, "a value of a cookie is not told");
        for (id_there, table) in [(there.ids().take("a").unwrap(), &there), (id, &table(5))] {
            table.ids().take("a").unwrap();
            for (_, entry) in &told {
                assert_eq!(table.take_told(entry, id_there, None, now, usable), Stored::Added);
            }
        }
        let kind = |key: KeyHash| there.find(key, now).map(|known| (known.kind, known.age_min));
        assert_eq!(kind(keys[0]), Some((EntryKind::Outgrown, 7)), "its placement is not that of this instance");
        assert_eq!(kind(keys[1]), Some((EntryKind::Displaced, 7)));
        assert_eq!(kind(keys[2]), Some((EntryKind::Overflowed, 7)));
        assert_eq!(kind(keys[3]), None);
        // Told on, the entry names the placement that has made it.
        let again = there.shared_entries(now).find(|(_, entry)| entry.key == keys[0]).unwrap().1;
        assert_eq!(again.kind, SharedKind::Placed(5));
    }

    #[test]
    fn an_entry_that_is_told_takes_a_key_from_the_backend_that_it_names_and_makes_no_date_older() {
        let (table, now) = (table(5), Minute::of_ms(9_000_000));
        let [a, b] = ["a", "b"].map(|name| table.ids().take(name).unwrap());
        let key = table.secret().key(b"key");
        let entry = |age_min| SharedEntry { key, kind: SharedKind::Displaced, age_min };
        let found = || table.find(key, now).map(|known| (known.id, known.age_min));
        assert_eq!(table.take_told(&entry(9), a, None, now, usable), Stored::Added);
        assert_eq!(table.take_told(&entry(3), b, None, now, usable), Stored::Known);
        assert_eq!(found(), Some((a, 3)));
        assert_eq!(table.take_told(&entry(8), b, Some(a), now, usable), Stored::Moved);
        assert_eq!(found(), Some((b, 3)));
        assert!(table.is_over(&entry(61)) && !table.is_over(&entry(60)));
    }

    #[test]
    fn two_instances_that_recap_one_key_agree() {
        for (mine, theirs) in [(3, 3), (3, 4), (4, 3)] {
            let a_counts_at_b = Precedence::Recap.counts(mine, theirs, true);
            let b_counts_at_a = Precedence::Recap.counts(theirs, mine, false);
            assert_ne!(a_counts_at_b, b_counts_at_a, "{mine} {theirs}");
        }
        assert!(Precedence::News.counts(9, 0, false) && Precedence::History.counts(3, 3, false));
        assert!(!Precedence::History.counts(4, 3, true));
    }
}
