//! The fleet as status shows it: its instances, in what they differ, and the orders that all follow.
//!
//! Decides nothing. Invariant: an instance that places every client as this one does differs in nothing, whatever its
//! generation and its files.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::fleet_orders;
use crate::clock;
use crate::metrics::status::{FleetMember, FleetStatus};
use crate::snapshot::Snapshot;
use crate::store::fleet::{Fleet, FleetInstance, FleetView, shown_instance};

/// The fleet; `None`: the instances do not tell each other anything.
pub(super) fn status(fleet: &Fleet, snapshot: &Snapshot) -> Option<FleetStatus> {
    let now_ms = clock::now_ms();
    let FleetView { state, complaint, instance: own, instances } = fleet.view(now_ms);
    let state = state.word()?.to_owned();
    let tables = instances.iter().find(|known| known.instance == own).map(|known| known.tables.clone());
    let tables = tables.unwrap_or_default();
    let member = |known: &FleetInstance| FleetMember {
        name: shown_instance(&known.name, known.instance),
        is_self: known.instance == own,
        generation: known.generation,
        digest: format!("{:016x}", known.digest),
        seen_s: now_ms.saturating_sub(known.seen_ms) / 1_000,
        differs: differs(&tables, &known.tables),
    };
    let mut instances: Vec<_> = instances.iter().map(member).collect();
    instances.sort_by(|one, other| other.is_self.cmp(&one.is_self).then_with(|| one.name.cmp(&other.name)));
    let counters = fleet.counters();
    Some(FleetStatus {
        state,
        complaint,
        instances,
        told: counters.told.load(Relaxed),
        recapped: counters.recapped.load(Relaxed),
        received: counters.received().map(|(result, count)| (result.to_owned(), count)).collect(),
        items: counters.items.load(Relaxed),
        bytes: counters.bytes.load(Relaxed),
        refused: counters.refused.load(Relaxed),
        lost: counters.lost.load(Relaxed),
        overflow: snapshot.outbox.lost(),
        orders: fleet_orders::status(snapshot, fleet),
        orders_told: counters.orders_told.load(Relaxed),
        orders_taken: counters.orders_taken.load(Relaxed),
        orders_unknown: counters.orders_unknown.load(Relaxed),
    })
}

/// Stick tables in which two instances differ, as the second has them.
fn differs(own: &[(Arc<str>, u64)], theirs: &[(Arc<str>, u64)]) -> Vec<String> {
    let by_name = |tables: &[(Arc<str>, u64)]| tables.iter().cloned().collect::<BTreeMap<_, _>>();
    let (own, theirs) = (by_name(own), by_name(theirs));
    let other = theirs.iter().filter_map(|(name, digest)| match own.get(name) {
        None => Some(format!("+{name}")),
        Some(known) => (known != digest).then(|| name.to_string()),
    });
    let missing = own.keys().filter(|name| !theirs.contains_key(*name)).map(|name| format!("-{name}"));
    other.chain(missing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_differ_in_the_stick_tables_that_they_place_otherwise_or_do_not_have() {
        let tables =
            |all: &[(&str, u64)]| all.iter().map(|(name, digest)| (Arc::from(*name), *digest)).collect::<Vec<_>>();
        let own = tables(&[("a", 1), ("b", 2), ("c", 3)]);
        assert_eq!(differs(&own, &own), Vec::<String>::new());
        assert_eq!(differs(&own, &tables(&[("c", 3), ("b", 9), ("d", 4)])), ["b", "+d", "-a"]);
    }
}
