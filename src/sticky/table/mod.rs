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
//! | `kind` | why a key is at its backend |
//! | `mapped` | the buckets as a whole, mapped for the first entry |
//! | `claim` | entries that are written before a connection stands |
//! | `eviction` | which entry gives way to a new one |
//! | [`secret`] | the keyed hash of a key |
//! | `shared` | entries that instances tell each other |
//! | `placement_ids` | placements as numbers |
//! | [`backend_ids`] | backend names as numbers that are never used twice |
//! | `census` | counts of entries, kept as they change |
//! | `sweep` | removes entries that are over |
//! | `stripes` | what each thread counts for itself |
//! | [`stats`] | counts of keys by kind and age |
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
mod census;
mod claim;
mod entry;
mod eviction;
mod kind;
mod mapped;
mod placement_ids;
mod shared;
mod stripes;
mod sweep;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

pub use self::backend_ids::{BackendId, BackendIds, IdMap};
pub use self::entry::Minute;
pub use self::kind::EntryKind;
pub use self::secret::{KeyHash, Secret};
pub use self::shared::{Precedence, SharedEntry, SharedKind};
pub use self::top_keys::{Hot, Hottest, TopKeys};

use self::buckets::{Buckets, Held};
use self::census::Census;
use self::entry::{Data, Lifetimes, PlacementId};
use self::eviction::{IfKnown, Room, TableView, Update};
use self::mapped::MappedBuckets;
use self::placement_ids::PlacementIds;
use self::sweep::Sweep;

/// The stick table of one pool, or of all pools of a `stick_group`, under the terms of one snapshot. Clones share the
/// entries.
#[derive(Clone)]
pub struct StickTable {
    entries: Arc<Entries>,
    ids: Arc<BackendIds>,
    placement_ids: Arc<PlacementIds>,
    hottest: Arc<TopKeys>,
    secret: Secret,
    lifetimes: Lifetimes,
    placement_id: PlacementId,
}

/// Entries, and what is known of them as a whole.
struct Entries {
    buckets: MappedBuckets,
    census: Census,
    sweep: Sweep,
}

/// Settings of a stick table that a snapshot brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Time that an entry lives after its key's last connection ended. Entries are dated by the minute: an entry lives
    /// at least this long and at most two minutes longer.
    pub remember: Duration,
    /// Time that an entry lives if its key is a value of a learned cookie.
    pub remember_values: Duration,
    /// Digest of the pool's placement; an entry of another placement is not one that placement finds anyway.
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
    /// The key was at a backend that has left the pool; its index among the former ones, if its name is known.
    Gone(Option<usize>),
}

impl TableLookup {
    /// Index of the backend where the key is.
    pub fn index(self) -> Option<usize> {
        match self {
            Self::At(index, _) => Some(index),
            Self::Unknown | Self::Gone(_) => None,
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
    /// An empty table of at most `bytes`; `None` below 128 (`stick_table = "0"`), or if the system has no memory for a
    /// large one. Addresses are taken from the system for the first entry, and pages when they are first used; where
    /// the system has none by then, every entry is refused.
    pub fn new(bytes: u64, secret: Secret, terms: Terms) -> Option<Self> {
        let placement_ids = Arc::<PlacementIds>::default();
        Some(Self {
            entries: Entries::new(bytes)?,
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
        Some(Self { entries: Entries::new(bytes)?, ..self.clone() })
    }

    /// Copies the live entries of another table with the same secret, unless there is a younger one here. Returns the
    /// number of keys known here afterwards. `id` maps the other table's ids to ids of this one. A reload that gives a
    /// pool another table does so before the new snapshot is in force, and again when the old one is no longer used,
    /// for entries written in between.
    pub fn absorb(&self, from: &Self, now: Minute, id: impl Fn(BackendId) -> Option<BackendId>) -> u64 {
        self.census().roll(now);
        let live = from.entries(now).filter(|entry| self.remembers(entry));
        let placement_id = self.placement_ids.translate(&from.placement_ids);
        let here = live.filter_map(|entry| Some(entry.at(id(entry.known.id)?, &placement_id)));
        here.filter(|entry| self.restore(entry, now, None)).count() as u64
    }

    /// Size of the entries in bytes.
    pub fn bytes(&self) -> u64 {
        self.entries.buckets.bytes()
    }

    /// The most entries that fit.
    pub fn entries_max(&self) -> u64 {
        self.bytes() / buckets::ENTRY_BYTES
    }

    /// Whether both share their entries, under whatever terms.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.entries, &other.entries)
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
        let data = self.mapped()?.find(key)?.data;
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

    /// Dates the entry of a key anew while its connection goes on, and when it ends. It keeps its backend; one that was
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

    /// Removes the entry of a key. False: there was none, or the bucket was busy.
    pub fn forget(&self, key: KeyHash) -> bool {
        self.forget_if(key, |_| true)
    }

    /// All entries, each as it was at some moment, with those that are over until they are removed. Pages without an
    /// entry are not read.
    pub fn entries(&self, now: Minute) -> impl Iterator<Item = TableEntry> + '_ {
        let pages = self.mapped().into_iter().flat_map(|buckets| buckets.used_pages(0));
        pages.flat_map(move |page| self.page(page, now))
    }

    /// Entries of one page.
    fn page(&self, page: usize, now: Minute) -> impl Iterator<Item = TableEntry> + '_ {
        let entries = self.mapped().into_iter().flat_map(move |buckets| buckets.page(page));
        entries.map(move |(key, data)| TableEntry { key, known: self.known(data, now), flags: data.flags() })
    }

    /// Whether an entry has not outlived its time.
    pub fn remembers(&self, entry: &TableEntry) -> bool {
        self.lifetimes.reach(entry.flags, entry.known.age_min)
    }

    /// Stores an entry of another table, unless there is a younger one; false: no room. Those of `gone` give way to all.
    fn restore(&self, entry: &TableEntry, now: Minute, gone: Option<BackendId>) -> bool {
        let data = Data::with_flags(entry.known.id, entry.flags, now.before(entry.known.age_min));
        let state = |id| if Some(id) == gone { BackendState::Gone } else { BackendState::Usable };
        let stored = self.store(entry.key, data, IfKnown::Newest, &self.view(now), state);
        !matches!(stored, Stored::Refused | Stored::Busy)
    }

    /// Stores an entry of a backend that has left, which says only that its client had one, where a place is free.
    fn restore_gone(&self, entry: &TableEntry, now: Minute) {
        let data = Data::with_flags(entry.known.id, entry.flags, now.before(entry.known.age_min));
        let Some(held) = self.entries.buckets.map().and_then(|buckets| buckets.hold(entry.key)) else { return };
        let free = eviction::find(&held.all(), data, &self.view(now), |_| BackendState::Usable);
        if let (None, Room::Free(place)) = (held.place_of(entry.key), free) {
            self.put(&held, place, entry.key, data);
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
        let Some(buckets) = self.entries.buckets.map() else { return Stored::Refused };
        if let Some(found) = buckets.first_look(key) {
            let Update { after, stored } = succeed(found.data);
            if after == found.data {
                return stored;
            }
            if after.bound() == found.data.bound() && Buckets::touch(&found, after.seen()) {
                self.census().replaced(found.data, after);
                return stored;
            }
        }
        // Everything else happens under the bits of both buckets, so the key is looked for again: it may have moved
        // meanwhile.
        let Some(held) = buckets.hold(key) else { return Stored::Busy };
        if let Some(place) = held.place_of(key) {
            let Update { after, stored } = succeed(held.all()[place]);
            self.put(&held, place, key, after);
            return stored;
        }
        match eviction::find(&held.all(), data, view, state) {
            Room::Free(place) => {
                self.put(&held, place, key, data);
                Stored::Added
            }
            Room::InsteadOf(place, kind) => {
                self.put(&held, place, key, data);
                Stored::Evicted(kind)
            }
            Room::None => Stored::Refused,
        }
    }

    /// Overwrites one place, and counts that.
    fn put(&self, held: &Held<'_, AtomicU64>, place: usize, key: KeyHash, data: Data) {
        self.census().replaced(held.put(place, key, data), data);
    }

    /// Removes the entry of a key that has outlived its time.
    fn forget_dead(&self, key: KeyHash, now: Minute) {
        let view = self.view(now);
        self.forget_if(key, |data| !view.is_live(data));
    }

    fn forget_if(&self, key: KeyHash, is_due: impl Fn(Data) -> bool) -> bool {
        let held = self.mapped().and_then(|buckets| buckets.find(key).and_then(|_| buckets.hold(key)));
        let held = held.and_then(|held| Some((held.place_of(key)?, held)));
        let due = held.filter(|(place, held)| is_due(held.all()[*place]));
        due.map(|(place, held)| self.census().replaced(held.empty(place), Data::EMPTY)).is_some()
    }

    /// The buckets; `None`: no entry was ever stored.
    #[inline]
    fn mapped(&self) -> Option<&Buckets> {
        self.entries.buckets.get()
    }

    #[inline]
    fn known(&self, data: Data, now: Minute) -> Known {
        Known { id: data.id(), kind: data.kind(self.placement_id), age_min: now.age_min(data.seen()) }
    }

    fn census(&self) -> &Census {
        &self.entries.census
    }

    fn sweep_state(&self) -> &Sweep {
        &self.entries.sweep
    }

    /// Entries by kind: placed, displaced, of cookies.
    fn count_kinds(&self) -> [u64; 3] {
        self.placement_id.kinds(&self.census().rows())
    }

    /// Whether an entry lives at this age.
    fn lives(&self, is_value: bool, age_min: u32) -> bool {
        self.lifetimes.last(is_value, age_min)
    }

    /// This table with the longest lifetimes of all these.
    fn as_long_as<'t>(&self, others: impl IntoIterator<Item = &'t Self>) -> Self {
        let lifetimes = others.into_iter().fold(self.lifetimes, |longest, other| longest.longest(other.lifetimes));
        Self { lifetimes, ..self.clone() }
    }

    fn view(&self, now: Minute) -> TableView {
        TableView { lifetimes: self.lifetimes, placement_id: self.placement_id, now }
    }
}

impl Entries {
    fn new(bytes: u64) -> Option<Arc<Self>> {
        let buckets = MappedBuckets::new(bytes)?;
        Some(Arc::new(Self { buckets, census: Census::default(), sweep: Sweep::default() }))
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
