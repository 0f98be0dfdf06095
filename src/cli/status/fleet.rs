//! The fleet in `sessile status`: one line in the head, and a table of the instances with `--fleet`.
//!
//! Computes nothing. Invariant: no line is wider than 80 columns.

use crate::cli::table::{Table, note_of_cuts};
use crate::cli::width::{COLUMNS, wrap};
use crate::metrics::status::{FleetMember, FleetStatus};

/// Indent of lines that go on.
const INDENT: usize = 4;

/// The line of the head.
pub(super) fn line(fleet: &FleetStatus) -> String {
    let differing = fleet.instances.iter().filter(|known| !known.differs.is_empty()).count();
    let differ = if differing > 0 { format!(", {differing} place otherwise (status --fleet)") } else { String::new() };
    let why = if fleet.complaint.is_empty() { String::new() } else { format!(": {}", fleet.complaint) };
    let taken = fleet.received.get("taken").copied().unwrap_or_default();
    let FleetStatus { state, told, .. } = fleet;
    format!("fleet {state}, instances {}{differ}, entries {told} told, {taken} taken{why}\n", fleet.instances.len())
}

/// The instances, this one first.
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
    let table = table.render_within(COLUMNS, &["INSTANCE", "DIFFERS IN"]);
    wrap(line(fleet).trim_end(), COLUMNS, INDENT) + &table + note_of_cuts(&table)
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
        let fleet = FleetStatus {
            state: "working".to_owned(),
            instances: vec![member("one/0a1b2c", true, &[]), member("two/ffeedd", false, &["web", "-mail"])],
            told: 7,
            received: [("taken".to_owned(), 5)].into(),
            ..FleetStatus::default()
        };
        let expected = "\
fleet working, instances 2, 1 place otherwise (status --fleet), entries 7 told,
    5 taken
INSTANCE    GENERATION            DIGEST  SEEN      DIFFERS IN
one/0a1b2c           3  00000000000000ff  this one  nothing
two/ffeedd           3  00000000000000ff  4 s ago   web -mail
";
        assert_eq!(show(&fleet), expected);
    }
}
