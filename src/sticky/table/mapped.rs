//! [`MappedBuckets`]: the buckets of a table, which take addresses and memory when the first entry is stored.
//!
//! Stores nothing itself. A size that the system cannot give is found out before, by a mapping that is given back at once.
//! Invariants: there is one block of buckets in the life of a table, also where several threads
//! store the first entry at once; a look-up before that finds nothing and maps nothing; what is not mapped has no entry.

use std::sync::OnceLock;

use super::buckets::Buckets;

/// Tables from this size on are mapped on trial when they are made: what is smaller finds addresses.
const TRIED: u64 = 64 << 20;

/// Buckets of a fixed size, mapped on first use.
pub(super) struct MappedBuckets {
    /// Size in bytes, a multiple of a bucket.
    bytes: u64,
    /// `Some(None)`: the system had no memory.
    buckets: OnceLock<Option<Buckets>>,
}

impl MappedBuckets {
    /// Buckets of at most this many bytes; `None` below two buckets, or if the system has no memory for a large table.
    pub(super) fn new(bytes: u64) -> Option<Self> {
        let bytes = Buckets::fitting(bytes)?;
        (bytes < TRIED || Buckets::zeroed(bytes).is_some()).then_some(Self { bytes, buckets: OnceLock::new() })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The buckets; `None`: no entry was ever stored.
    #[inline]
    pub(super) fn get(&self) -> Option<&Buckets> {
        self.buckets.get()?.as_ref()
    }

    /// The buckets, for an entry that is to be stored. Threads that come at the same time wait for one system call.
    /// `None`: the system has no memory.
    #[inline]
    pub(super) fn map(&self) -> Option<&Buckets> {
        self.buckets.get_or_init(|| Buckets::zeroed(self.bytes)).as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_has_no_addresses_for_is_never_mapped() {
        assert!(MappedBuckets::new(u64::MAX).is_none());
        let small = MappedBuckets { bytes: 1 << 60, buckets: OnceLock::new() };
        assert!(small.get().is_none() && small.map().is_none() && small.get().is_none());
    }

    #[test]
    fn a_look_maps_nothing() {
        let buckets = MappedBuckets::new(1 << 12).expect("64 buckets");
        assert!(buckets.get().is_none() && buckets.get().is_none());
        assert!(buckets.map().is_some() && buckets.get().is_some());
    }
}
