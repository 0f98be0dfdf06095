//! The stick table: where an active key settled, in a table of fixed size that all workers read and write without a
//! lock.
//!
//! Chooses no backend and reads no clock; does no I/O. Invariants: a look-up never waits and never allocates; an entry
//! is found only under the key, and names only the backend, that it was made for; an entry is lost only for lack of
//! room, and the caller learns that from [`Stored`].
//!
//! | file | what |
//! |---|---|
//! | `entry` | two words, 16 bytes: backend, minute, flags, key |
//! | `buckets` | buckets of four entries, one cache line; the only file that touches shared words |
//! | `eviction` | which entry gives way to a new one |
//! | [`secret`] | the keyed hash of a key |
//! | `placement_ids` | placements as numbers |
//! | [`backend_ids`] | backend names as numbers that are never used twice |
//! | [`stats`] | counts of keys by backend and age |
//! | [`top_keys`] | the keys that come most often |
//! | [`mod@file`] | the stick-table file |
//!
//! A key has two buckets and goes to the emptier one; so a table filled to two thirds loses some 2 keys in 1,000 early.

pub mod backend_ids;
pub mod file;
pub mod secret;
pub mod stats;
pub mod top_keys;

mod buckets;
mod entry;
mod eviction;
mod placement_ids;

#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

pub use self::backend_ids::{BackendId, BackendIds, IdMap};
pub use self::entry::Minute;
pub use self::secret::{KeyHash, Secret};
pub use self::top_keys::{Hot, Hottest, TopKeys};

use self::buckets::Buckets;
use self::entry::{Data, Lifetimes, PlacementId};
use self::eviction::{IfKnown, Room, TableView, Update};
use self::placement_ids::PlacementIds;

/// The stick table of one pool, or of all pools of a `stick_group`, under the terms of one snapshot. Clones share the
/// entries.
#[derive(Clone)]
pub struct StickTable {
    buckets: Arc<Buckets>,
    ids: Arc<BackendIds>,
    placement_ids: Arc<PlacementIds>,
    hottest: Arc<TopKeys>,
    secret: Secret,
    lifetimes: Lifetimes,
    placement_id: PlacementId,
}

/// Settings of a stick table that a snapshot brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Time that an entry lives after its key's last connection ended. Entries are dated by the minute: an entry lives
    /// at least this long and at most two minutes longer.
    pub remember: Duration,
    /// Time that an entry lives if its key is a value of a learned cookie.
    pub remember_values: Duration,
    /// Digest of the pool's placement. An entry made under another placement does not count as one that placement finds
    /// anyway.
    pub digest: u64,
}

/// Value of an entry: where its key settles, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryValue {
    /// Id of the backend in this table.
    pub id: BackendId,
    /// Reason for that backend.
    pub kind: EntryKind,
}

/// Why a key is at its backend. A later kind is worth more when entries give way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    /// Placement chose this backend and would choose it again.
    Placed,
    /// Placement chose this backend under an earlier digest.
    Outgrown,
    /// Placement would choose another backend, which could not serve the key.
    Displaced,
    /// Placement would choose another backend, but the key stays: that one was overloaded, or the pool has grown since.
    Overflowed,
    /// The key is a value of a learned cookie that a client brought: no backend is known to have set it.
    Brought,
    /// The key is a value of a learned cookie that the backend set. The kind stays when the key moves.
    Learned,
}

impl EntryKind {
    /// Every kind, from the one worth least on.
    const ALL: [Self; 6] =
        [Self::Placed, Self::Outgrown, Self::Displaced, Self::Overflowed, Self::Brought, Self::Learned];

    /// Returns the word by which another process knows the kind.
    pub fn word(self) -> &'static str {
        match self {
            Self::Placed => "placed",
            Self::Outgrown => "outgrown",
            Self::Displaced => "displaced",
            Self::Overflowed => "overflowed",
            Self::Brought => "brought",
            Self::Learned => "learned",
        }
    }

    /// Returns the kind of this word; `None`: there is none.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// Whether the key is a value of a learned cookie.
    pub fn is_value(self) -> bool {
        matches!(self, Self::Brought | Self::Learned)
    }
}

/// An entry as a look-up returns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Id of the backend, which may have left the configuration: [`IdMap::index`] is then `None`.
    pub id: BackendId,
    /// Reason for the backend. An entry made under another placement is `Outgrown` until it is settled again.
    pub kind: EntryKind,
    /// Whole minutes since the key was last seen.
    pub age_min: u32,
}

/// What a stick table has for a key, with the backend by its index in the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableLookup {
    /// The stick table has no entry.
    Unknown,
    /// The key is at the backend with this index, for this reason.
    At(usize, EntryKind),
    /// The key was at a backend that has left the pool.
    Gone,
}

impl TableLookup {
    /// Index of the backend where the key is.
    pub fn index(self) -> Option<usize> {
        match self {
            Self::At(index, _) => Some(index),
            Self::Unknown | Self::Gone => None,
        }
    }
}

/// State of the backend that an existing entry names, when a new entry needs room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendState {
    /// The backend has left the configuration.
    Gone,
    /// The backend takes no connection now.
    Unusable,
    /// The backend takes connections.
    Usable,
}

/// Outcome of storing an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Stored {
    /// The key had an entry that named this backend already.
    Known,
    /// The key had an entry that named another backend.
    Moved,
    /// The entry is new and took a free place.
    Added,
    /// The entry is new and took the place of a live one of this kind.
    Evicted(EntryKind),
    /// The entry was not stored: all entries in its buckets are worth more. A value learned just now is never refused.
    Refused,
    /// The entry was not stored: other threads kept changing its buckets. Trying again later helps.
    Busy,
}

/// One entry with its key, for export and counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableEntry {
    /// Hash of the entry's key.
    pub key: KeyHash,
    /// The entry as [`StickTable::find`] returns it, except that it may have outlived its time.
    pub known: Known,
    flags: u8,
}

impl StickTable {
    /// An empty table of at most `bytes`; `None` below 128 (`stick_table = "0"`) or if the system has no memory. Pages
    /// are taken from the system when they are first used.
    pub fn new(bytes: u64, secret: Secret, terms: Terms) -> Option<Self> {
        let placement_ids = Arc::<PlacementIds>::default();
        Some(Self {
            buckets: Arc::new(Buckets::zeroed(bytes)?),
            ids: Arc::default(),
            placement_id: placement_ids.of(terms.digest),
            placement_ids,
            hottest: Arc::default(),
            secret,
            lifetimes: Lifetimes::new(&terms),
        })
    }

    /// This table under the terms of another snapshot, or of another pool of the group. Only the lifetimes and the
    /// number of the placement differ; the entries are shared.
    #[must_use]
    pub fn under(&self, terms: Terms) -> Self {
        Self { lifetimes: Lifetimes::new(&terms), placement_id: self.placement_ids.of(terms.digest), ..self.clone() }
    }

    /// An empty table of another size with this one's secret and ids, to [`absorb`](Self::absorb) it.
    pub fn resized(&self, bytes: u64) -> Option<Self> {
        Some(Self { buckets: Arc::new(Buckets::zeroed(bytes)?), ..self.clone() })
    }

    /// Copies the live entries of another table with the same secret, unless there is a younger one here. Returns the
    /// number of keys known here afterwards. `id` maps the other table's ids to ids of this one. A reload that gives a
    /// pool another table does so before the new snapshot is in force, and again when the old one is no longer used,
    /// for entries written in between.
    pub fn absorb(&self, from: &Self, now: Minute, id: impl Fn(BackendId) -> Option<BackendId>) -> u64 {
        let live = from.entries(0..from.buckets(), now).filter(|entry| self.remembers(entry));
        let placement_id = self.placement_ids.translate(&from.placement_ids);
        let here = live.filter_map(|entry| Some(entry.at(id(entry.known.id)?, &placement_id)));
        here.filter(|entry| self.restore(entry, now, None)).count() as u64
    }

    /// Size of the entries in bytes.
    pub fn bytes(&self) -> u64 {
        self.buckets.bytes()
    }

    /// Whether both share their entries, under whatever terms.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.buckets, &other.buckets)
    }

    /// The secret that hashes keys for this table.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Ids of the backends in this table.
    pub fn ids(&self) -> &BackendIds {
        &self.ids
    }

    /// Sketch of the keys that come most often.
    pub fn hottest(&self) -> &TopKeys {
        &self.hottest
    }

    /// The entry of a key; `None` if there is none or its time is over.
    #[inline]
    pub fn find(&self, key: KeyHash, now: Minute) -> Option<Known> {
        let data = self.buckets.find(key)?.data;
        let known = self.known(data, now);
        self.lifetimes.reach(data.flags(), known.age_min).then_some(known)
    }

    /// Stores the backend of a key when its connection stands. An older entry of the key gives way, but a value that
    /// was `Learned` stays so.
    pub fn settle(
        &self,
        key: KeyHash,
        place: EntryValue,
        now: Minute,
        state: impl Fn(BackendId) -> BackendState,
    ) -> Stored {
        self.store(key, Data::new(place, self.placement_id, now), IfKnown::Move, &self.view(now), state)
    }

    /// Dates the entry of a key anew while its connection goes on, and when it has ended. The entry keeps its backend,
    /// wherever the key is by now; an entry that was lost is made again.
    pub fn refresh(
        &self,
        key: KeyHash,
        place: EntryValue,
        now: Minute,
        state: impl Fn(BackendId) -> BackendState,
    ) -> Stored {
        self.store(key, Data::new(place, self.placement_id, now), IfKnown::Keep, &self.view(now), state)
    }

    /// Removes the entry of a key. False: there was none, or the bucket was busy.
    pub fn forget(&self, key: KeyHash) -> bool {
        let held = self.buckets.find(key).and_then(|_| self.buckets.hold(key));
        held.is_some_and(|held| held.place_of(key).map(|place| held.empty(place)).is_some())
    }

    /// Number of buckets, for [`entries`](Self::entries) in slices.
    pub fn buckets(&self) -> usize {
        self.buckets.buckets()
    }

    /// Entries of these buckets while other threads go on changing them: each is as it was at some moment. An entry
    /// that has outlived its time is included until its place is needed.
    pub fn entries(&self, buckets: Range<usize>, now: Minute) -> impl Iterator<Item = TableEntry> + '_ {
        let buckets = buckets.start.min(self.buckets())..buckets.end.min(self.buckets());
        let entries = buckets.flat_map(|bucket| self.buckets.entries(bucket));
        entries.map(move |(key, data)| TableEntry { key, known: self.known(data, now), flags: data.flags() })
    }

    /// Whether an entry has not outlived its time.
    pub fn remembers(&self, entry: &TableEntry) -> bool {
        self.lifetimes.reach(entry.flags, entry.known.age_min)
    }

    /// Stores an entry of another table, unless there is a younger one; false if there was no room. Entries of the
    /// backend `gone`, which has left, give way to all others.
    fn restore(&self, entry: &TableEntry, now: Minute, gone: Option<BackendId>) -> bool {
        let data = Data::with_flags(entry.known.id, entry.flags, now.before(entry.known.age_min));
        let state = |id| if Some(id) == gone { BackendState::Gone } else { BackendState::Usable };
        let stored = self.store(entry.key, data, IfKnown::Newest, &self.view(now), state);
        !matches!(stored, Stored::Refused | Stored::Busy)
    }

    /// Stores an entry of a backend that has left, which says only that its client had one, where a place is free.
    fn restore_gone(&self, entry: &TableEntry, now: Minute) {
        let data = Data::with_flags(entry.known.id, entry.flags, now.before(entry.known.age_min));
        let Some(held) = self.buckets.hold(entry.key) else { return };
        let free = eviction::find(&held.all(), data, &self.view(now), |_| BackendState::Usable);
        if let (None, Room::Free(place)) = (held.place_of(entry.key), free) {
            held.put(place, entry.key, data);
        }
    }

    fn store(
        &self,
        key: KeyHash,
        data: Data,
        if_known: IfKnown,
        view: &TableView,
        state: impl Fn(BackendId) -> BackendState,
    ) -> Stored {
        let state = |data: Data| state(data.id());
        // A change of the date alone needs no lock: one compare-exchange, which fails if anything else changed.
        let succeed = |before: Data| Update::new(before, data, if_known, view, state);
        if let Some(found) = self.buckets.first_look(key) {
            let Update { after, stored } = succeed(found.data);
            if after == found.data || after.bound() == found.data.bound() && Buckets::touch(&found, after.seen()) {
                return stored;
            }
        }
        // Everything else happens under the bits of both buckets, so the key is looked for again: it may have moved
        // meanwhile.
        let Some(held) = self.buckets.hold(key) else { return Stored::Busy };
        if let Some(place) = held.place_of(key) {
            let Update { after, stored } = succeed(held.all()[place]);
            held.put(place, key, after);
            return stored;
        }
        match eviction::find(&held.all(), data, view, state) {
            Room::Free(place) => {
                held.put(place, key, data);
                Stored::Added
            }
            Room::InsteadOf(place, kind) => {
                held.put(place, key, data);
                Stored::Evicted(kind)
            }
            Room::None => Stored::Refused,
        }
    }

    #[inline]
    fn known(&self, data: Data, now: Minute) -> Known {
        Known { id: data.id(), kind: data.kind(self.placement_id), age_min: now.age_min(data.seen()) }
    }

    fn view(&self, now: Minute) -> TableView {
        TableView { lifetimes: self.lifetimes, placement_id: self.placement_id, now }
    }
}

impl TableEntry {
    /// This entry with the id and the placement's number of another table.
    fn at(self, id: BackendId, placement_id: impl Fn(PlacementId) -> Option<PlacementId>) -> Self {
        Self { known: Known { id, ..self.known }, flags: entry::translated(self.flags, placement_id), ..self }
    }

    /// An entry of a stick-table file. Its kind follows from the flags once it is in a table.
    fn new(key: KeyHash, id: BackendId, flags: u8, age_min: u32) -> Self {
        Self { key, known: Known { id, kind: EntryKind::Displaced, age_min }, flags }
    }
}

impl fmt::Debug for StickTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StickTable({} bytes, {:?})", self.bytes(), self.lifetimes)
    }
}
