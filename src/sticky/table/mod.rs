//! Remembers where an active key settled: a table of fixed size that all workers read and write without a lock.
//!
//! Chooses no backend and knows none; reads no clock; does no I/O. Invariants: a look-up never waits and never
//! allocates; an entry answers only for the key and the backend it was made for; what is lost, is lost because there
//! was no room, and the caller is told.
//!
//! | file | what |
//! |---|---|
//! | `entry` | two words, 16 bytes: backend, minute, flags, key |
//! | `buckets` | buckets of four entries, one cache line; the only file that touches shared words |
//! | `eviction` | who gives way to whom |
//! | [`secret`] | what makes the hash of a key unforeseeable |
//! | `placement_ids` | placements as numbers |
//! | [`ids`] | backend names as numbers that are never used twice |
//! | [`stats`] | how many keys, where, how old |
//! | [`hottest`] | which keys come most often |
//! | [`mod@file`] | all of it as bytes |
//!
//! A key has two buckets to stand in and goes to the emptier one; so a table filled to two thirds loses some 2 keys in
//! 1,000 early.

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
pub use self::top_keys::{Hot, TopKeys};

use self::buckets::Buckets;
use self::entry::{Data, Lifetimes, PlacementId};
use self::eviction::{IfKnown, Room, TableView, Update};
use self::placement_ids::PlacementIds;

/// The stick table of one pool, or of all pools of a `stick_group`, under the terms of one snapshot. Clones are the same
/// table.
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

/// What a snapshot says about a stick table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// How long an entry lives after its key's last connection ended. Entries are dated by the minute: it lives at
    /// least this long and at most two minutes longer.
    pub remember: Duration,
    /// The same for an entry whose key is a value of a learned cookie.
    pub remember_values: Duration,
    /// The digest of the pool's placement: entries that another placement made are not known to be found by this one.
    pub digest: u64,
}

/// Where a key settles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryValue {
    /// The backend.
    pub id: BackendId,
    /// Why there.
    pub kind: EntryKind,
}

/// Why a key is where it is; the later, the more an entry is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryKind {
    /// Placement put it there and would do so again.
    Placed,
    /// Placement put it there when the table was another one.
    Outgrown,
    /// Placement would put it elsewhere, where it could not be served.
    Displaced,
    /// Placement would put it elsewhere, and it stays: there was too much to do, or the pool has grown since.
    Overflowed,
    /// The key is a value of a learned cookie that a client brought: no backend is known to have set it.
    Brought,
    /// The backend set the cookie to this value. Stays so when the key moves.
    Learned,
}

impl EntryKind {
    /// Whether the key is a value of a learned cookie.
    pub fn is_value(self) -> bool {
        matches!(self, Self::Brought | Self::Learned)
    }
}

/// What an entry says about its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// The backend, which may have left the configuration: [`IdMap::index`] knows.
    pub id: BackendId,
    /// Why there. An entry that another placement made is `Outgrown` until it is settled again.
    pub kind: EntryKind,
    /// Since it was last seen, in whole minutes.
    pub age_min: u32,
}

/// Who sits on a id, as whoever makes an entry sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendState {
    /// Nobody: the backend has left the configuration.
    Gone,
    /// A backend that takes no connection now.
    Unusable,
    /// A backend that does.
    Usable,
}

/// What became of an entry that was to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Stored {
    /// It was there.
    Known,
    /// It was there and named another backend.
    Moved,
    /// It is there now, and nobody is missed.
    Added,
    /// It is there now, and a live one, worth so much, is not.
    Evicted(EntryKind),
    /// It is not: all those in its place are worth more. Never said of what is learned now.
    Refused,
    /// It is not: others were changing the same place all the time. Trying again later helps.
    Busy,
}

/// One entry, for export and counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableEntry {
    /// Its key.
    pub key: KeyHash,
    /// What it says, as [`StickTable::find`] does. The age may be more than is remembered.
    pub known: Known,
    flags: u8,
}

impl StickTable {
    /// An empty one of at most `bytes`; `None` below 128 (`stick_table = "0"`) or if the system has no room. Its pages cost
    /// nothing until they are used.
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

    /// The same one under the terms of another snapshot, or of another pool of the group. What is shared has a number
    /// for its placement from now on, and is the same otherwise.
    #[must_use]
    pub fn under(&self, terms: Terms) -> Self {
        Self { lifetimes: Lifetimes::new(&terms), placement_id: self.placement_ids.of(terms.digest), ..self.clone() }
    }

    /// An empty one of another size with the same secret and ids, to [`absorb`](Self::absorb) this one.
    pub fn resized(&self, bytes: u64) -> Option<Self> {
        Some(Self { buckets: Arc::new(Buckets::zeroed(bytes)?), ..self.clone() })
    }

    /// Takes over what stands in another stick table of the same secret, unless it knows better; how many entries there
    /// were. `id`: where a backend of the other stick table sits in this one. A reload that gives a pool another table does
    /// so before the new snapshot is in force and again when nobody uses the old one, for what was written in between.
    pub fn absorb(&self, from: &Self, now: Minute, id: impl Fn(BackendId) -> Option<BackendId>) -> u64 {
        let live = from.entries(0..from.buckets(), now).filter(|entry| self.remembers(entry));
        let placement_id = self.placement_ids.translate(&from.placement_ids);
        let here = live.filter_map(|entry| Some(entry.at(id(entry.known.id)?, &placement_id)));
        here.filter(|entry| self.restore(entry, now)).count() as u64
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.buckets.bytes()
    }

    /// Whether both are one table, under whatever terms.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.buckets, &other.buckets)
    }

    /// Hashes keys for this stick table.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Who sits where.
    pub fn ids(&self) -> &BackendIds {
        &self.ids
    }

    /// Which keys come most often.
    pub fn hottest(&self) -> &TopKeys {
        &self.hottest
    }

    /// Where a key settled, unless that is over.
    #[inline]
    pub fn find(&self, key: KeyHash, now: Minute) -> Option<Known> {
        let data = self.buckets.find(key)?.data;
        let known = self.known(data, now);
        self.lifetimes.reach(data.flags(), known.age_min).then_some(known)
    }

    /// A key has settled: its connection stands. Whatever was known of it before gives way, but what was learned from
    /// its cookie stays worth as much.
    pub fn settle(
        &self,
        key: KeyHash,
        place: EntryValue,
        now: Minute,
        state: impl Fn(BackendId) -> BackendState,
    ) -> Stored {
        self.store(key, Data::new(place, self.placement_id, now), IfKnown::Move, &self.view(now), state)
    }

    /// A connection of a key goes on, or has just ended: its entry lives on, wherever the key is by now. One that was
    /// lost is made again.
    pub fn refresh(
        &self,
        key: KeyHash,
        place: EntryValue,
        now: Minute,
        state: impl Fn(BackendId) -> BackendState,
    ) -> Stored {
        self.store(key, Data::new(place, self.placement_id, now), IfKnown::Keep, &self.view(now), state)
    }

    /// Drops what is known of a key; whether that was done. `false`: nothing was known, or the place was busy.
    pub fn forget(&self, key: KeyHash) -> bool {
        let held = self.buckets.find(key).and_then(|_| self.buckets.hold(key));
        held.is_some_and(|held| held.place_of(key).map(|place| held.empty(place)).is_some())
    }

    /// Into how many slices it can be cut.
    pub fn buckets(&self) -> usize {
        self.buckets.buckets()
    }

    /// What stands in these buckets, while others go on changing it: an entry is as it was at some moment. Those whose
    /// time is over are included until somebody needs their place.
    pub fn entries(&self, buckets: Range<usize>, now: Minute) -> impl Iterator<Item = TableEntry> + '_ {
        let buckets = buckets.start.min(self.buckets())..buckets.end.min(self.buckets());
        let entries = buckets.flat_map(|bucket| self.buckets.entries(bucket));
        entries.map(move |(key, data)| TableEntry { key, known: self.known(data, now), flags: data.flags() })
    }

    /// Whether an entry's time is not over.
    pub fn remembers(&self, entry: &TableEntry) -> bool {
        self.lifetimes.reach(entry.flags, entry.known.age_min)
    }

    /// Takes an entry as it was in another stick table, unless it knows better; whether its key is known now.
    fn restore(&self, entry: &TableEntry, now: Minute) -> bool {
        let data = Data::with_flags(entry.known.id, entry.flags, now.before(entry.known.age_min));
        let stored = self.store(entry.key, data, IfKnown::Newest, &self.view(now), |_| BackendState::Usable);
        !matches!(stored, Stored::Refused | Stored::Busy)
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
        let succeed = |before: Data| Update::new(before, data, if_known, view, state);
        if let Some(found) = self.buckets.first_look(key) {
            let Update { after, stored } = succeed(found.data);
            if after == found.data || after.bound() == found.data.bound() && Buckets::touch(&found, after.seen()) {
                return stored;
            }
        }
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
    /// The same in a stick table where backends have other ids and placements other numbers.
    fn at(self, id: BackendId, placement_id: impl Fn(PlacementId) -> Option<PlacementId>) -> Self {
        Self { known: Known { id, ..self.known }, flags: entry::translated(self.flags, placement_id), ..self }
    }

    /// As a stick-table file tells it. Its origin depends on who asks.
    fn new(key: KeyHash, id: BackendId, flags: u8, age_min: u32) -> Self {
        Self { key, known: Known { id, kind: EntryKind::Displaced, age_min }, flags }
    }
}

impl fmt::Debug for StickTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StickTable({} bytes, {:?})", self.bytes(), self.lifetimes)
    }
}
