//! Stickiness against what the backends have written down, small: the scenarios of `benches/sticky`.

#[path = "../../../benches/sticky/stage/mod.rs"]
mod stage;

use stage::{Row, Scale};

fn holds(rows: impl IntoIterator<Item = Row>) {
    let rows: Vec<Row> = rows.into_iter().collect();
    let told: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let told = format!("{}\n{told}", Row::heads());
    println!("{told}");
    assert!(rows.iter().all(|row| row.missed.is_empty()), "\n{told}");
}

#[test]
fn what_is_counted_is_what_the_backends_saw_while_everything_changes() {
    holds(stage::change::run(&Scale::small(), 20));
}

#[test]
fn a_memory_that_is_too_small_forgets_and_sends_nobody_astray() {
    holds(stage::change::run(&Scale::small(), 150));
}

#[test]
fn a_flapping_backend_loses_only_those_who_come_while_it_is_away() {
    holds(stage::flap::run(&Scale::small()));
}

#[test]
fn a_crash_loses_at_most_what_settled_within_the_last_interval() {
    holds(stage::crash::run(&Scale::small()));
}

#[test]
fn a_backend_that_refuses_for_150_ms_loses_nobody() {
    holds(stage::outage::run(&Scale::small()));
}

#[test]
fn frequent_keys_are_spread_as_far_as_they_can_be_and_move_nobody() {
    holds(stage::campus::run(&Scale::small()));
}

#[test]
fn a_drained_backend_serves_who_knows_it_and_is_then_emptied_evenly() {
    holds(stage::drain::run(&Scale::small()));
}

#[test]
fn who_held_a_connection_longer_than_is_remembered_comes_back_to_its_backend() {
    holds(stage::held::run(&Scale::small()));
}
