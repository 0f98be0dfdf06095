//! [`RuntimeFleetOrder`]: an order that all instances of the fleet follow, for a process that begins: with its time, so
//! that an order which others have given meanwhile counts more, and one that could not be told is told.
//!
//! Tells and applies nothing. Invariants: a time of the store's clock stays what it is; one of this process's clock is
//! kept by the wall clock, and is not in the future however that was set.

use serde::{Deserialize, Serialize};

use super::Clocks;
use crate::order::BackendOrder;
use crate::pool::{BookedOrder, OrderOutcome};

/// An order of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RuntimeFleetOrder {
    #[serde(flatten)]
    order: BackendOrder,
    /// Time on the store's clock; `None`: the store was away since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at_store_ms: Option<u64>,
    /// Number of the instance where it was given, in 16 hexadecimal digits.
    #[serde(default)]
    instance: String,
    /// Name of its host.
    #[serde(default)]
    host: Box<str>,
    #[serde(default)]
    given_unix_ms: i64,
    /// Time on the store's clock of the last order about the backend that was known then.
    #[serde(default)]
    after_store_ms: u64,
    /// True if it was applied: what it has made of the backend is in the document, too.
    #[serde(default)]
    applied: bool,
}

impl RuntimeFleetOrder {
    pub(super) fn of(booked: &BookedOrder, clocks: Clocks) -> Self {
        Self {
            order: booked.order.clone(),
            at_store_ms: booked.at_ms,
            instance: format!("{:016x}", booked.instance),
            host: booked.host.clone(),
            given_unix_ms: clocks.unix(booked.given_ms),
            after_store_ms: booked.after_ms,
            applied: booked.outcome == OrderOutcome::Applied,
        }
    }

    /// The order in the book of this process. What the store has of it shows when it is read.
    pub(super) fn booked(&self, clocks: Clocks) -> BookedOrder {
        BookedOrder {
            order: self.order.clone(),
            at_ms: self.at_store_ms,
            instance: u64::from_str_radix(&self.instance, 16).unwrap_or_default(),
            host: self.host.clone(),
            given_ms: clocks.process(self.given_unix_ms).min(clocks.now_ms),
            after_ms: self.after_store_ms,
            is_told: false,
            outcome: if self.applied { OrderOutcome::Applied } else { OrderOutcome::Due },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::OrderKind;
    use crate::pool::{OrderStamp, TakenOrder, ToldOrder};
    use crate::server::runtime_state::RuntimeState;
    use crate::snapshot::Snapshot;

    fn snapshot() -> Snapshot {
        Snapshot::of_text(
            "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\npool = \"web\"\n[[pool]]\nname = \"web\"\n\
             backend = [{ name = \"a\", address = \"127.0.0.1:1\" }, { name = \"b\", address = \"127.0.0.1:2\" }]\n",
        )
    }

    fn order(backend: &str, kind: OrderKind) -> BackendOrder {
        BackendOrder { pool: "web".into(), backend: backend.into(), kind }
    }

    /// The next process, 40 s later, with a clock that begins anew.
    fn restarted(before: &Snapshot) -> Snapshot {
        let text = RuntimeState::of(before, 50_000, 1_000_000).for_file().to_json();
        let next = snapshot();
        RuntimeState::from_json(&text).unwrap().apply(&next, 1_000, 1_040_000);
        next.orders.open(9, "here");
        next
    }

    #[test]
    fn of_an_order_before_a_restart_and_one_of_another_instance_the_later_counts() {
        let before = snapshot();
        before.orders.open(u64::MAX, "here");
        before.orders.date(Some(5_000_000));
        before.orders.give(&order("a", OrderKind::Drain), 10_000);
        before.orders.give(&order("b", OrderKind::Drain), 10_000);
        let next = restarted(&before);
        next.orders.date(Some(5_089_000));
        let ready = |backend, at_ms| {
            let stamp = OrderStamp { at_ms, instance: 7 };
            next.orders.take(ToldOrder { order: order(backend, OrderKind::Ready), stamp, host: "other".into() })
        };
        assert_eq!(ready("a", 5_009_999), TakenOrder::Older);
        assert_eq!(ready("b", 5_010_001), TakenOrder::New);
        let waiting = next.orders.waiting();
        assert_eq!((waiting.len(), waiting[0].stamp), (1, OrderStamp { at_ms: 5_010_000, instance: u64::MAX }));
        let due = next.orders.due();
        assert_eq!((due.len(), &due[0].order.kind), (1, &OrderKind::Ready), "what was applied is in force already");
    }

    #[test]
    fn an_order_that_could_not_be_told_is_told_by_the_next_process_with_its_time() {
        let before = snapshot();
        before.orders.open(3, "here");
        before.orders.give(&order("a", OrderKind::Drain), 20_000);
        let next = restarted(&before);
        next.orders.date(Some(7_000_000));
        // 30 s before the document, which is 70 s before now.
        assert_eq!(next.orders.waiting()[0].stamp, OrderStamp { at_ms: 7_001_000 - 70_000, instance: 3 });
    }

    #[test]
    fn an_order_that_cannot_be_read_costs_no_other_one() {
        let before = snapshot();
        before.orders.open(3, "here");
        ["a", "b"].iter().for_each(|name| before.orders.give(&order(name, OrderKind::Drain), 20_000));
        let text = RuntimeState::of(&before, 50_000, 1_000_000).for_file().to_json();
        let state = RuntimeState::from_json(&text.replacen("\"drain\"", "\"paint\"", 1)).unwrap();
        assert!(state.left_out().unwrap().contains("an order of the fleet"), "{:?}", state.left_out());
        assert_eq!(state.fleet_orders.len(), 1);
        assert!(!state.is_empty());
    }
}
