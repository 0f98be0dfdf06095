//! The backends of one pool, found by name or by the hash of a name, as cookies carry them.
//!
//! Handles no address and no health. Invariant: an id depends on the name alone, so it means the same backend on every
//! instance, in every snapshot and after a restart, and never a successor under another name.

use ahash::AHashMap;
use xxhash_rust::xxh3::xxh3_64;

use super::named::PREFIX_END;

/// Hash of a backend's or pool's name: XXH3-64 without seed. Part of the sealed cookie's wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NameId(pub u64);

impl NameId {
    /// The id of a name, which may be any bytes.
    pub fn of(name: &[u8]) -> Self {
        Self(xxh3_64(name))
    }
}

/// Names of one pool's backends, in the order of its configuration.
#[derive(Debug)]
pub struct Names {
    ids: Box<[NameId]>,
    indexes: AHashMap<NameId, usize>,
    /// Every name with [`PREFIX_END`] behind it.
    prefixes: Box<[Box<str>]>,
}

impl Names {
    /// Takes the names in the order of the pool's backends.
    pub fn new<'n>(names: impl IntoIterator<Item = &'n str>) -> Self {
        let prefix = |name: &str| (NameId::of(name.as_bytes()), format!("{name}{}", PREFIX_END as char).into());
        let (ids, prefixes): (Vec<_>, Vec<Box<str>>) = names.into_iter().map(prefix).unzip();
        let indexes = ids.iter().enumerate().map(|(index, id)| (*id, index)).collect();
        Self { ids: ids.into(), indexes, prefixes: prefixes.into() }
    }

    /// The id of the backend at this index; `None` out of bounds.
    pub fn id(&self, index: usize) -> Option<NameId> {
        self.ids.get(index).copied()
    }

    /// The index of the backend with this id.
    pub fn by_id(&self, id: NameId) -> Option<usize> {
        self.indexes.get(&id).copied()
    }

    /// The index of the backend with this name.
    pub fn by_name(&self, name: &[u8]) -> Option<usize> {
        self.by_id(NameId::of(name))
            .filter(|index| self.prefixes[*index].as_bytes().strip_suffix(&[PREFIX_END]) == Some(name))
    }

    /// The name of the backend at this index with [`PREFIX_END`] behind it; `None` out of bounds.
    pub fn prefix(&self, index: usize) -> Option<&str> {
        self.prefixes.get(index).map(AsRef::as_ref)
    }
}
