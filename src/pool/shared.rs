//! A pool's stick table among those of other instances: which entries they hear of, and what becomes of theirs here.
//!
//! Sends nothing; `store` does. *Displaced* is an entry that placement alone would not find: that is what its kind says,
//! which placement has found out when it made or renewed the entry, so nothing is computed here. Invariants: an entry that
//! only confirms what others were told is not told again, so a client that stays costs nothing; an entry of a backend that
//! this pool does not have changes nothing.

use std::time::Duration;

use super::table::PoolTable;
use super::told::Told;
use crate::sticky::table::{
    BackendId, EntryKind, EntryValue, KeyHash, Minute, Precedence, SharedEntry, SharedKind, Stored,
};

/// What became of an entry that another instance has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// The entry stands in the stick table now.
    Taken,
    /// The stick table had the entry, or has dated it anew.
    Known,
    /// The entry that stands here counts more.
    Older,
    /// The time of the entry is over.
    Over,
    /// There was no room for the entry.
    NoRoom,
    /// The pool does not have the backend, or was told to place clients anew (`hash_seed`).
    Unknown,
}

impl Received {
    /// Every result, in the order of the metrics.
    pub const ALL: [Self; 6] = [Self::Taken, Self::Known, Self::Older, Self::Over, Self::NoRoom, Self::Unknown];

    /// Returns the word of metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::Known => "known",
            Self::Older => "older",
            Self::Over => "over",
            Self::NoRoom => "no_room",
            Self::Unknown => "unknown",
        }
    }
}

impl PoolTable {
    /// Has other instances told of an entry that was stored: a client has moved, or is new where placement does not find
    /// it.
    pub(super) fn tell(&self, key: KeyHash, place: EntryValue, stored: Stored) {
        let is_news = match stored {
            Stored::Moved => true,
            Stored::Added | Stored::Evicted(_) => place.kind != EntryKind::Placed || self.outbox.takes_placed(),
            Stored::Known | Stored::Refused | Stored::Busy => false,
        };
        if !is_news || !self.outbox.is_open() || place.kind.is_value() {
            return;
        }
        let kind = match place.kind {
            EntryKind::Placed => SharedKind::Placed(self.digest),
            EntryKind::Overflowed => SharedKind::Overflowed,
            _ => SharedKind::Displaced,
        };
        let told = self.told(place.id, SharedEntry { key, kind, age_min: 0 });
        told.into_iter().for_each(|told| self.outbox.put(told));
    }

    /// Entries of which other instances have to know: those that placement alone would not find, and others that were
    /// seen in the last `placed_min` minutes. `seen_min`: only those seen in the last so many minutes.
    pub fn recap(&self, now_ms: u64, seen_min: u32, placed_min: Option<u32>) -> impl Iterator<Item = Told> + '_ {
        let entries = self.stick_table().shared_entries(Minute::of_ms(now_ms));
        let is_due = move |entry: &SharedEntry| match entry.kind {
            SharedKind::Placed(digest) if digest == self.digest => placed_min.is_some_and(|most| entry.age_min <= most),
            _ => entry.age_min <= seen_min,
        };
        entries.filter(move |(_, entry)| is_due(entry)).filter_map(|(id, entry)| self.told(id, entry))
    }

    /// Takes what another instance has told.
    pub fn receive(&self, told: &Told, precedence: Precedence, now_ms: u64) -> Received {
        let Told { backend: name, entry, .. } = told;
        let index = self.backends.iter().position(|backend| backend.name() == &**name);
        let id = index.and_then(|index| self.id_map.id(index)).filter(|_| told.hash_seed == self.hash_seed);
        let Some(id) = id else { return Received::Unknown };
        if self.stick_table().is_over(entry) {
            return Received::Over;
        }
        let now = Minute::of_ms(now_ms);
        let known = self.stick_table().find(entry.key, now);
        let known = known.and_then(|known| Some((known, self.backends.get(self.id_map.index(known.id)?)?)));
        let from = match known {
            None => None,
            Some((known, _)) if known.id == id => (precedence != Precedence::Recap).then_some(id),
            Some((known, at)) if precedence.counts(entry.age_min, known.age_min, **name < *at.name()) => Some(known.id),
            Some(_) => return Received::Older,
        };
        let stored = self.stick_table().take_told(entry, id, from, now, |id| self.state(id, now_ms));
        let kind = if entry.kind == SharedKind::Placed(self.digest) { EntryKind::Placed } else { EntryKind::Displaced };
        self.note(stored, kind);
        match stored {
            Stored::Known => Received::Known,
            Stored::Moved | Stored::Added | Stored::Evicted(_) => Received::Taken,
            Stored::Refused | Stored::Busy => Received::NoRoom,
        }
    }

    fn told(&self, id: BackendId, entry: SharedEntry) -> Option<Told> {
        let backend = self.backends.get(self.id_map.index(id)?)?.name_shared();
        Some(Told { table: self.name.clone(), hash_seed: self.hash_seed, backend, entry })
    }

    /// How long an entry lives after its key was last seen.
    pub fn remember(&self) -> Duration {
        self.rules.remember
    }

    /// Digest of the placement that the pool's entries are judged by.
    pub fn digest(&self) -> u64 {
        self.digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{Outbox, Remember};
    use crate::snapshot::Snapshot;

    const HEAD: &str = "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\npool = \"p\"\n[[pool]]\nname = \"p\"\n";

    fn snapshot(backends: &[&str]) -> Snapshot {
        let backend = |name: &&str| format!("{{ name = \"{name}\", address = \"127.0.0.1:1\" }}");
        let backends = backends.iter().map(backend).collect::<Vec<_>>().join(", ");
        let snapshot = Snapshot::of_text(&format!("{HEAD}remember = \"1h\"\nbackend = [{backends}]\n"));
        snapshot.outbox.open(true);
        snapshot
    }

    /// Settles a key at the backend of this index; what others are told of it.
    fn settle(snapshot: &Snapshot, key: u8, kind: EntryKind, index: usize) -> Vec<Told> {
        let pool = &snapshot.pools[0];
        let table = pool.table().unwrap();
        table.settle(Remember::new(table.key(&[key]), kind), &pool.backends()[index], 0);
        snapshot.outbox.take()
    }

    #[test]
    fn others_hear_once_of_what_placement_does_not_find() {
        let snapshot = snapshot(&["a", "b"]);
        let settle = |key, kind, index| settle(&snapshot, key, kind, index).len();
        assert_eq!(settle(1, EntryKind::Placed, 0), 0, "placement finds it");
        assert_eq!(settle(2, EntryKind::Displaced, 0), 1);
        assert_eq!(settle(2, EntryKind::Displaced, 0), 0, "they know it");
        assert_eq!(settle(2, EntryKind::Placed, 1), 1, "it has moved to where placement finds it");
        assert_eq!(settle(3, EntryKind::Overflowed, 0), 1);
        assert_eq!(settle(4, EntryKind::Learned, 0), 0, "a value of a cookie");
        snapshot.outbox.take_placed(true);
        assert_eq!(settle(6, EntryKind::Placed, 0), 1, "another instance may not find it");
        snapshot.outbox.open(false);
        assert_eq!(settle(5, EntryKind::Displaced, 0), 0);
        let table = snapshot.pools[0].table().unwrap();
        assert_eq!(table.recap(0, 60, None).count(), 2);
        assert_eq!(table.recap(0, 60, Some(0)).count(), 5, "with those that placement finds");
    }

    #[test]
    fn what_one_instance_tells_another_one_knows() {
        let (here, there) = (snapshot(&["a", "b"]), snapshot(&["b", "a"]));
        let told = settle(&here, 1, EntryKind::Displaced, 0).remove(0);
        let table = there.pools[0].table().unwrap();
        let receive = |told: &Told, precedence| table.receive(told, precedence, 0);
        assert_eq!(receive(&told, Precedence::News), Received::Taken);
        assert_eq!(table.lookup(told.entry.key, 0).index(), Some(1), "the same backend, by its name");
        assert_eq!(receive(&told, Precedence::Recap), Received::Known);
        assert!(there.outbox.take().is_empty(), "what was told is not told on");
        let moved = Told { backend: "b".into(), ..told.clone() };
        assert_eq!(receive(&moved, Precedence::Recap), Received::Older, "seen alike, and after it by name");
        assert_eq!(receive(&moved, Precedence::News), Received::Taken);
        assert_eq!(receive(&Told { backend: "c".into(), ..told.clone() }, Precedence::News), Received::Unknown);
        assert_eq!(receive(&Told { hash_seed: 1, ..told.clone() }, Precedence::News), Received::Unknown);
        let entry = SharedEntry { age_min: 61, ..told.entry };
        assert_eq!(receive(&Told { entry, ..told }, Precedence::News), Received::Over);
        let _: &Outbox = &there.outbox;
    }
}
