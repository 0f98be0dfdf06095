//! [`SeenInstances`]: the instances that have told of themselves, and which entries came from which.
//!
//! Reads no clock. Invariants: an instance that has told nothing for [`GONE`] is not among those that are there; memory is
//! bounded, whatever the stream holds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::item::InstanceHello;
use crate::sticky::table::KeyHash;

/// How often an instance tells that it is there.
pub(super) const HELLO_EVERY: Duration = Duration::from_secs(10);
/// After so long without a word an instance has gone.
pub(super) const GONE: Duration = Duration::from_secs(35);
/// Most instances that are known at once.
const INSTANCES_MAX: usize = 1_024;
/// Most entries with a known origin, 1 MiB; a later entry takes the place of an earlier one.
const ORIGINS: usize = 65_536;

/// An instance of the fleet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FleetInstance {
    /// Number of the instance, new with each start.
    pub instance: u64,
    /// Name of its host.
    pub name: String,
    /// Number of configurations that it has accepted.
    pub generation: u64,
    /// Digest of all its placements.
    pub digest: u64,
    /// Digest of each stick table.
    pub tables: Vec<(Arc<str>, u64)>,
    /// When it last told of itself, on the process's clock, in milliseconds.
    pub seen_ms: u64,
}

/// Instances, and origins of entries.
#[derive(Debug, Default)]
pub(super) struct SeenInstances {
    instances: BTreeMap<u64, FleetInstance>,
    /// Hash of a key, and the instance that told it.
    origins: Vec<(u64, u64)>,
}

impl SeenInstances {
    /// Takes note of an instance. Returns the stick tables that it places otherwise than `tables` does, and did not when
    /// it was last heard of.
    pub(super) fn hello(
        &mut self,
        instance: u64,
        hello: InstanceHello,
        seen_ms: u64,
        tables: &[(Arc<str>, u64)],
    ) -> Vec<Arc<str>> {
        let InstanceHello { generation, digest, name, tables: theirs } = hello;
        let before = self.instances.get(&instance).map(|known| known.tables.clone()).unwrap_or_default();
        let differs =
            |(name, digest): &&(Arc<str>, u64)| tables.iter().any(|(own, other)| own == name && other != digest);
        let news = theirs.iter().filter(differs).filter(|table| !before.contains(*table));
        let news = news.map(|(name, _)| name.clone()).collect();
        let told = FleetInstance { instance, name, generation, digest, tables: theirs, seen_ms };
        self.instances.insert(instance, told);
        while self.instances.len() > INSTANCES_MAX {
            let first = self.instances.values().min_by_key(|known| known.seen_ms).map(|known| known.instance);
            first.map(|first| self.instances.remove(&first));
        }
        news
    }

    /// Forgets instances that have gone.
    pub(super) fn roll(&mut self, now_ms: u64) {
        self.instances.retain(|_, known| known.seen_ms + GONE.as_millis() as u64 >= now_ms);
    }

    /// The instances that are there.
    pub(super) fn instances(&self) -> impl Iterator<Item = &FleetInstance> {
        self.instances.values()
    }

    /// Takes note of an entry that an instance has told.
    pub(super) fn origin(&mut self, key: KeyHash, instance: u64) {
        if self.origins.is_empty() {
            self.origins.resize(ORIGINS, (0, 0));
        }
        let bits = key.to_bits();
        self.origins[bits as usize % ORIGINS] = (bits, instance);
    }

    /// Takes note of an entry that was made here.
    pub(super) fn forget_origin(&mut self, key: KeyHash) {
        let bits = key.to_bits();
        let origin = self.origins.get_mut(bits as usize % ORIGINS).filter(|(known, _)| *known == bits);
        origin.into_iter().for_each(|origin| *origin = (0, 0));
    }

    /// The instance that has told the entry of a key; `None`: none, or it is not known any more.
    pub(super) fn origin_of(&self, key: KeyHash) -> Option<u64> {
        let (bits, instance) = *self.origins.get(key.to_bits() as usize % ORIGINS)?;
        (bits == key.to_bits() && instance != 0).then_some(instance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(digest: u64) -> InstanceHello {
        InstanceHello {
            generation: 1,
            digest,
            name: "host".into(),
            tables: vec![("t".into(), digest), ("u".into(), 1)],
        }
    }

    #[test]
    fn another_placement_is_news_once_and_an_instance_without_a_word_has_gone() {
        let mut seen = SeenInstances::default();
        let own = [("t".into(), 5), ("u".into(), 1)];
        assert_eq!(seen.hello(1, hello(5), 0, &own), Vec::<Arc<str>>::new());
        assert_eq!(seen.hello(1, hello(6), 10, &own), [Arc::<str>::from("t")]);
        assert_eq!(seen.hello(1, hello(6), 20, &own), Vec::<Arc<str>>::new());
        assert_eq!(
            seen.hello(2, hello(6), 20_000, &own),
            [Arc::<str>::from("t")],
            "another instance has other clients"
        );
        seen.roll(GONE.as_millis() as u64 + 20);
        assert_eq!(seen.instances().count(), 2);
        seen.roll(GONE.as_millis() as u64 + 21);
        assert!(seen.instances().map(|known| known.instance).eq([2]));
    }

    #[test]
    fn instances_and_origins_have_their_bounds() {
        let mut seen = SeenInstances::default();
        (1..=2_000).for_each(|n| drop(seen.hello(n, hello(5), n, &[])));
        assert_eq!(seen.instances().count(), INSTANCES_MAX);
        assert_eq!(seen.instances().next().unwrap().instance, 2_001 - INSTANCES_MAX as u64);
        (1..=200_000).for_each(|key| seen.origin(KeyHash::from_bits(key), 9));
        assert_eq!(seen.origins.len(), ORIGINS);
        let of = |key| seen.origin_of(KeyHash::from_bits(key));
        assert_eq!((of(200_000), of(1), of(0)), (Some(9), None, None));
        // The place of a key may be that of another one.
        seen.forget_origin(KeyHash::from_bits(200_000 - ORIGINS as u64));
        let of = |key| seen.origin_of(KeyHash::from_bits(key));
        assert_eq!(of(200_000), Some(9));
        seen.forget_origin(KeyHash::from_bits(200_000));
        assert_eq!(seen.origin_of(KeyHash::from_bits(200_000)), None);
    }
}
