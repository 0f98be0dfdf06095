//! The fleet in `sessile status`: one line in the head, and tables of the instances and of the orders with `--fleet`.
//!
//! Computes nothing. Invariant: no line is wider than 80 columns.

use super::duration;
use crate::cli::table::{Table, note_of_cuts};
use crate::cli::width::{COLUMNS, wrap};
use crate::metrics::status::{FleetMember, FleetOrderStatus, FleetStatus};

/// Indent of lines that go on.
const INDENT: usize = 4;

/// The line of the head.
pub(super) fn line(fleet: &FleetStatus) -> String {
    let differing = fleet.instances.iter().filter(|known| !known.differs.is_empty()).count();
    let differ = if differing > 0 { format!(", {differing} place otherwise (status --fleet)") } else { String::new() };
    let why = if fleet.complaint.is_empty() { String::new() } else { format!(": {}", fleet.complaint) };
    let taken = fleet.received.get("taken").copied().unwrap_or_default();
    let FleetStatus { state, told, .. } = fleet;
    let orders = orders(fleet);
    format!(
        "fleet {state}, instances {}{differ}, entries {told} told, {taken} taken{orders}{why}\n",
        fleet.instances.len()
    )
}

/// The orders in the line of the head; empty if there are none.
fn orders(fleet: &FleetStatus) -> String {
    let count = |is: fn(&&FleetOrderStatus) -> bool| fleet.orders.iter().filter(is).count();
    let some = |count: usize, what: &str| if count > 0 { format!(", {count} {what}") } else { String::new() };
    let (untold, not_here) = (count(|order| !order.told), count(|order| order.here == "not_here"));
    let refused = some(count(|order| order.here == "refused"), "refused");
    match fleet.orders.len() {
        0 => String::new(),
        all => format!(", orders {all}{}{}{refused}", some(untold, "untold"), some(not_here, "not here")),
    }
}

/// The instances, this one first, and the orders, the latest first.
pub(super) fn show(fleet: &FleetStatus) -> String {
    let mut table = Table::new(["INSTANCE", "GENERATION", "DIGEST", "SEEN", "DIFFERS IN"]);
    for FleetMember { name, is_self, generation, digest, seen_s, differs } in &fleet.instances {
        table.row([
            name.clone(),
            generation.to_string(),
            digest.clone(),
            if *is_self { "this one".to_owned() } else { format!("{seen_s} s ago") },
            if differs.is_empty() { "nothing".to_owned() } else { differs.join(" ") },
        ]);
    }
    let tables = table.render_within(COLUMNS, &["INSTANCE", "DIFFERS IN"]) + &order_table(fleet);
    wrap(line(fleet).trim_end(), COLUMNS, INDENT) + &tables + note_of_cuts(&tables)
}

fn order_table(fleet: &FleetStatus) -> String {
    let mut table = Table::new(["BACKEND", "ORDER", "BY", "GIVEN", "HERE"]);
    for FleetOrderStatus { pool, backend, order, by, is_own, given_s, told, here, why } in &fleet.orders {
        let here = match here.as_str() {
            "not_here" => "no such backend".to_owned(),
            "refused" => format!("refused: {why}"),
            other => other.to_owned(),
        };
        table.row([
            format!("{pool}/{backend}"),
            order.clone(),
            if *is_own { "this one".to_owned() } else { by.clone() },
            format!("{} ago", duration(given_s * 1_000_000)),
            if *told { here } else { format!("{here}, untold") },
        ]);
    }
    table.render_within(COLUMNS, &["BACKEND", "ORDER", "BY", "HERE"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_instance_has_a_line_with_what_it_places_otherwise() {
        let member = |name: &str, is_self, differs: &[&str]| FleetMember {
            name: name.to_owned(),
            is_self,
            generation: 3,
            digest: "00000000000000ff".to_owned(),
            seen_s: 4,
            differs: differs.iter().map(|name| (*name).to_owned()).collect(),
        };
        let order = |order: &str, is_own, told, here: &str| FleetOrderStatus {
            pool: "web".to_owned(),
            backend: "a".to_owned(),
            order: order.to_owned(),
            by: "two/ffeedd".to_owned(),
            is_own,
            given_s: 75,
            told,
            here: here.to_owned(),
            why: String::new(),
        };
        let fleet = FleetStatus {
            state: "working".to_owned(),
            instances: vec![member("one/0a1b2c", true, &[]), member("two/ffeedd", false, &["web", "-mail"])],
            told: 7,
            received: [("taken".to_owned(), 5)].into(),
            orders: vec![
                order("drain", true, false, "applied"),
                order("weight 5", false, true, "not_here"),
                FleetOrderStatus { why: "it is this process".to_owned(), ..order("add", false, true, "refused") },
            ],
            ..FleetStatus::default()
        };
        let expected = "\
fleet working, instances 2, 1 place otherwise (status --fleet), entries 7 told,
    5 taken, orders 3, 1 untold, 1 not here, 1 refused
INSTANCE    GENERATION            DIGEST  SEEN      DIFFERS IN
one/0a1b2c           3  00000000000000ff  this one  nothing
two/ffeedd           3  00000000000000ff  4 s ago   web -mail
BACKEND  ORDER     BY                   GIVEN  HERE
web/a    drain     this one    1 min 15 s ago  applied, untold
web/a    weight 5  two/ffeedd  1 min 15 s ago  no such backend
web/a    add       two/ffeedd  1 min 15 s ago  refused: it is this process
";
        assert_eq!(show(&fleet), expected);
    }
}
