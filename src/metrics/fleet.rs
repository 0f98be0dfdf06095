//! Series of the fleet: what instances tell each other of their stick tables, and the orders that all follow.
//!
//! Counts nothing itself. Invariant: without a fleet there is no sample of these families.

use super::page::{Page, labels};
use super::status::{FleetOrderStatus, FleetStatus, Status};

pub(super) fn write(page: &mut Page, status: &Status) {
    let fleet = || status.fleet.iter();
    page.gauge(
        "sessile_fleet_up",
        "1 while entries of stick tables or orders are shared with other instances, 0 while the store is away.",
        fleet().map(|fleet| ([], (fleet.state == "working").into())),
    );
    page.gauge(
        "sessile_fleet_instances",
        "Instances that have told of themselves in the last 35 seconds, with this one.",
        fleet().map(|fleet| ([], fleet.instances.len() as u64)),
    );
    page.gauge(
        "sessile_fleet_differing",
        "Instances with a stick table that they place otherwise than this one, or that one of both does not have.",
        fleet().map(|fleet| ([], fleet.instances.iter().filter(|known| !known.differs.is_empty()).count() as u64)),
    );
    page.counter(
        "sessile_fleet_told_total",
        "Entries that were told to other instances: news, and again in recaps.",
        fleet().flat_map(|fleet| {
            let counts = [("news", fleet.told), ("recap", fleet.recapped)];
            counts.map(|(kind, count)| (labels([("kind", kind)]), count))
        }),
    );
    page.counter(
        "sessile_fleet_received_total",
        "Entries that other instances have told, by what became of them.",
        fleet().flat_map(|fleet| &fleet.received).map(|(result, count)| (labels([("result", result)]), *count)),
    );
    page.counter(
        "sessile_fleet_items_total",
        "Items that were written to the store, with up to 256 entries each.",
        fleet().map(|fleet| ([], fleet.items)),
    );
    page.counter(
        "sessile_fleet_bytes_total",
        "Bytes of the items that were written to the store.",
        fleet().map(|fleet| ([], fleet.bytes)),
    );
    page.counter(
        "sessile_fleet_refused_items_total",
        "Items in the store that no instance with the same secret has written, or that cannot be read.",
        fleet().map(|fleet| ([], fleet.refused)),
    );
    page.counter(
        "sessile_fleet_lost_total",
        "Times that the store was away, or could not be reached.",
        fleet().map(|fleet| ([], fleet.lost)),
    );
    page.counter(
        "sessile_fleet_overflow_total",
        "Entries that found no room among those that wait to be told; the next recap has them.",
        fleet().map(|fleet| ([], fleet.overflow)),
    );
    page.gauge(
        "sessile_fleet_standing_orders",
        "Orders about backends that all instances follow, by their state here; untold ones are in another state, too.",
        fleet().flat_map(|fleet| ORDERS.map(|(state, is)| (labels([("state", state)]), count(fleet, is)))),
    );
    page.counter(
        "sessile_fleet_orders_total",
        "Orders about backends that were told to other instances, or taken from them, or are of another version.",
        fleet().flat_map(|fleet| {
            let (told, taken) = (("told", fleet.orders_told), ("taken", fleet.orders_taken));
            [told, taken, ("unknown", fleet.orders_unknown)].map(|(kind, count)| (labels([("kind", kind)]), count))
        }),
    );
}

/// The states of orders.
type IsOrder = fn(&FleetOrderStatus) -> bool;
const ORDERS: [(&str, IsOrder); 5] = [
    ("applied", |order| order.here == "applied"),
    ("due", |order| order.here == "due"),
    ("not_here", |order| order.here == "not_here"),
    ("refused", |order| order.here == "refused"),
    ("untold", |order| !order.told),
];

fn count(fleet: &FleetStatus, is: IsOrder) -> u64 {
    fleet.orders.iter().filter(|order| is(order)).count() as u64
}
