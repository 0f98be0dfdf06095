//! A store that is stopped, frozen, emptied, or has bytes of others.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{CLIENTS, Fleet, Homes, number};
use crate::support::rng::Rng;
use crate::support::{Sessile, eventually};

const BY_LOAD: &str = "balance = \"least_connections\"\nkey = \"source\"\n";

fn stands(instance: &Sessile, state: &str) {
    eventually(&format!("the fleet to be {state}"), || (instance.status()["fleet"]["state"] == state).then_some(()));
}

/// Every client comes through one instance; the longest wait of one.
fn slowest(fleet: &Fleet, instance: usize, homes: &mut Homes) -> Duration {
    let ask = |client| {
        let begun = Instant::now();
        homes.insert(client, fleet.ask(instance, client));
        begun.elapsed()
    };
    (0..CLIENTS).map(ask).max().unwrap()
}

/// Every client is at home at each instance.
fn agree(fleet: &Fleet, homes: &Homes, why: &str) {
    eventually(why, || {
        let at_home = |instance| homes.iter().all(|(client, home)| fleet.ask(instance, *client) == *home);
        (0..fleet.instances.len()).all(at_home).then_some(())
    });
}

#[test]
fn a_store_that_was_away_and_comes_back_empty_is_told_everything() {
    let test = "a_store_that_was_away_and_comes_back_empty_is_told_everything";
    let Some(mut fleet) = Fleet::start(test, 2, BY_LOAD) else { return };
    let (mut rng, mut homes) = (Rng(3), Homes::new());
    assert_eq!(fleet.hop(&mut rng, &mut homes, None) + fleet.hop(&mut rng, &mut homes, None), 0);
    fleet.redis.stop();
    fleet.instances.iter().for_each(|instance| stands(instance, "away"));
    assert_eq!(fleet.instances[0].metric("sessile_fleet_up"), 0.0);
    // Each goes on with what it knows, and a store that is not there delays no one.
    assert_eq!(fleet.hop(&mut rng, &mut homes, None), 0);
    fleet.kill(2);
    let mut moved = Homes::new();
    slowest(&fleet, 0, &mut moved);
    assert!(moved.iter().all(|(client, home)| homes[client] == *home || homes[client] == "b2"));
    fleet.redis.run(&[]);
    fleet.instances.iter().for_each(|instance| stands(instance, "working"));
    fleet.revive(2);
    let told = || number(&fleet.instances[1], "taken") + number(&fleet.instances[1], "known") >= u64::from(CLIENTS);
    eventually("everything to be told again", || told().then_some(()));
    fleet.join(3, "");
    // An entry that a client has left is older at the other instance, or of the same minute and decided by name.
    let stayed: Homes = moved.into_iter().filter(|(client, home)| homes[client] == *home).collect();
    agree(&fleet, &stayed, "all three to agree");
}

#[test]
fn a_frozen_store_delays_no_client() {
    let Some(fleet) = Fleet::start("a_frozen_store_delays_no_client", 2, BY_LOAD) else { return };
    let mut homes = Homes::new();
    fleet.redis.program().signal(Signal::STOP);
    let frozen = slowest(&fleet, 0, &mut homes);
    println!("the slowest of {CLIENTS} clients while the store is frozen: {frozen:?}");
    stands(&fleet.instances[0], "away");
    let away = slowest(&fleet, 0, &mut homes);
    println!("and while it is known to be away: {away:?}");
    assert!(frozen.max(away) < Duration::from_millis(500), "{frozen:?} {away:?}");
    fleet.redis.program().signal(Signal::CONT);
    fleet.instances.iter().for_each(|instance| stands(instance, "working"));
    agree(&fleet, &homes, "what one instance has placed meanwhile to be known to the other");
}

#[test]
fn bytes_of_others_and_a_store_that_refuses_writes_cost_nothing() {
    let test = "bytes_of_others_and_a_store_that_refuses_writes_cost_nothing";
    let Some(fleet) = Fleet::start(test, 2, BY_LOAD) else { return };
    let instance = &fleet.instances[0];
    for fields in [&["m", "nonsense"][..], &["n", "x"], &["m", "x", "n", "y"]] {
        fleet.redis.cli(&[&["XADD", "sessile:fleet", "*"], fields].concat());
    }
    eventually("them to be refused", || (number(instance, "refused") == 3).then_some(()));
    fleet.redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    let homes: Homes = (0..20).map(|client| (client, fleet.ask(0, client))).collect();
    let complaint = || instance.status()["fleet"]["complaint"].as_str().map(str::to_owned);
    eventually("the refusal to be shown", || complaint().filter(|why| why.contains("it refuses writes: OOM")));
    fleet.redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    eventually("the complaint to be over", || complaint().is_none().then_some(()));
    agree(&fleet, &homes, "what was refused to be told after all");
}
