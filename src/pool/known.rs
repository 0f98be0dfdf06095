//! [`KnownClient`]: what the stick table of a pool has for one client, for operators; and whether it has one, for splits.
//!
//! Picks nothing and refreshes nothing. Invariant: a look-up here hashes a key as a pick does, so it finds the entry
//! that a pick would find.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Pool;
use super::placement_key::{range_of, with_key};
use crate::config::Cookie;
use crate::sticky::table::{KeyHash, Minute};
use crate::sticky::{ClientMemory, Facts};

/// The entry of a client in the stick table of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownClient {
    /// Name of the backend; `None`: it has left the pool.
    pub backend: Option<Arc<str>>,
    /// Why the entry names that backend: a word of [`EntryKind`](crate::sticky::table::EntryKind), or `remembered`
    /// where load places new keys.
    pub kind: &'static str,
    /// Whole minutes since the client was last seen.
    pub age: Duration,
    /// How long the entry lives on if the client does not come again.
    pub left: Duration,
    /// Hash of the key in the stick table.
    pub key: KeyHash,
}

impl Pool {
    /// Whether the pool remembers a client with these facts.
    pub fn memory_of(&self, facts: &Facts<'_>, now_ms: u64) -> ClientMemory {
        let key = with_key(self, facts, range_of(self, facts), |key| Some(self.table()?.key(key)));
        let Some(key) = key.filter(|_| self.config.stick_table.is_some()) else { return ClientMemory::None };
        // A pool that no process serves has no table yet.
        let known = key.zip(self.table()).and_then(|(key, table)| table.stick_table().find(key, Minute::of_ms(now_ms)));
        known.map_or(ClientMemory::New, |known| ClientMemory::Known { age_min: known.age_min })
    }

    /// The entry of a client that is known by its address; `None`: it has no entry, or its key has parts that an
    /// address does not say.
    pub fn known_by_address(&self, source: IpAddr, now_ms: u64) -> Option<KnownClient> {
        let table = self.table()?;
        let facts = Facts { source: Some(source), ..Facts::default() };
        let key = with_key(self, &facts, range_of(self, &facts), |key| table.key(key))?;
        self.known(key, table.rules.remember, now_ms)
    }

    /// The entry of a value of the pool's learned cookie.
    pub fn known_by_value(&self, value: &[u8], now_ms: u64) -> Option<KnownClient> {
        let table = self.table()?;
        let remember = self.config.cookie.as_ref().and_then(Cookie::max_idle).unwrap_or(table.rules.remember);
        self.known(table.stick_table().secret().cookie(value), remember, now_ms)
    }

    fn known(&self, key: KeyHash, remember: Duration, now_ms: u64) -> Option<KnownClient> {
        let table = self.table()?;
        let entry = table.stick_table().find(key, Minute::of_ms(now_ms))?;
        let backend = table.lookup(key, now_ms).index().map(|index| self.backends[index].name_shared());
        let age = Duration::from_secs(60 * u64::from(entry.age_min));
        let by_load = self.config.places_by_load() && !entry.kind.is_value();
        let kind = if by_load { "remembered" } else { entry.kind.word() };
        Some(KnownClient { backend, kind, age, left: remember.saturating_sub(age), key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::{PickScene, Remember};
    use crate::snapshot::Snapshot;
    use crate::sticky::table::EntryKind;

    fn snapshot(options: &str) -> Snapshot {
        let text = format!(
            "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\npool = \"p\"\n[[pool]]\nname = \"p\"\n{options}\n\
             backend = [{{ name = \"a\", address = \"127.0.0.1:1\" }}, {{ name = \"b\", address = \"127.0.0.1:2\" }}]\n"
        );
        Snapshot::of_text(&text)
    }

    #[test]
    fn the_entry_of_a_pick_is_found_by_the_address_with_its_age() {
        let snapshot = snapshot("remember = \"1h\"");
        let pool = &snapshot.pools[0];
        let source = "192.0.2.1".parse().unwrap();
        assert_eq!(pool.known_by_address(source, 0), None);
        let facts = Facts { source: Some(source), ..Facts::default() };
        let pick = pool.pick(&PickScene::new(&facts, &[], 0)).unwrap();
        let Some(remember) = pick.remember else { panic!("a pool with a stick table") };
        pool.table().unwrap().settle(remember, pick.backend, 0);
        let known = pool.known_by_address(source, 5 * 60_000).unwrap();
        assert_eq!((known.backend.as_deref(), known.kind), (Some(pick.backend.name()), "placed"));
        assert_eq!((known.age, known.left), (Duration::from_secs(300), Duration::from_secs(3_300)));
        assert_eq!(pool.known_by_address("192.0.2.2".parse().unwrap(), 0), None);
    }

    #[test]
    fn the_entry_of_a_learned_value_is_found_by_the_value() {
        let snapshot = snapshot("http = true\ncookie = { mode = \"learn\", name = \"SID\" }");
        let pool = &snapshot.pools[0];
        let table = pool.table().unwrap();
        let Remember { key, .. } = table.remember_value(b"31d4").unwrap();
        table.settle(Remember::new(key, EntryKind::Learned), &pool.backends()[1], 0);
        let known = pool.known_by_value(b"31d4", 0).unwrap();
        assert_eq!((known.backend.as_deref(), known.kind), (Some("b"), "learned"));
        assert_eq!(pool.known_by_value(b"31d5", 0), None);
    }
}
