//! Claims: entries that are written before the connection stands, so that connections of one key that come together find
//! each other.
//!
//! Decides nothing about backends. Invariant: of two threads that claim a key, one writes, and the other finds its entry.

use super::eviction::IfKnown;
use super::{BackendId, BackendState, Data, EntryValue, KeyHash, Minute, StickTable, Stored};

impl StickTable {
    /// Stores the backend of a key before its connection stands, if the key has no entry or one that names `from`. Of
    /// two threads that claim a key from the same backend, the first decides.
    pub fn claim(
        &self,
        key: KeyHash,
        place: EntryValue,
        from: Option<BackendId>,
        now: Minute,
        state: impl Fn(BackendId) -> BackendState,
    ) -> Stored {
        let if_known = from.map_or(IfKnown::Keep, IfKnown::MoveFrom);
        self.store(key, Data::new(place, self.placement_id, now), if_known, &self.view(now), state)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sticky::table::{EntryKind, Secret, Terms};

    #[test]
    fn a_claim_takes_a_key_from_the_backend_that_it_names_and_from_no_other() {
        let hour = Duration::from_secs(3_600);
        let terms = Terms { remember: hour, remember_values: hour, digest: 7 };
        let table = StickTable::new(1 << 12, Secret::new([7; 16]), terms).unwrap();
        let [a, b, c] = ["a", "b", "c"].map(|name| table.ids().take(name).unwrap());
        let key = table.secret().key(b"key");
        let claim = |id, from| {
            let place = EntryValue { id, kind: EntryKind::Overflowed };
            let stored = table.claim(key, place, from, Minute::START, |_| BackendState::Usable);
            (stored, table.find(key, Minute::START).map(|known| known.id))
        };
        assert_eq!(claim(a, None), (Stored::Added, Some(a)));
        assert_eq!(claim(b, None), (Stored::Known, Some(a)));
        assert_eq!(claim(b, Some(c)), (Stored::Known, Some(a)));
        assert_eq!(claim(b, Some(a)), (Stored::Moved, Some(b)));
        assert_eq!(claim(c, Some(a)), (Stored::Known, Some(b)));
    }
}
