//! Clients that come through another instance each time, while the pool changes under them.

use super::{CLIENTS, Fleet, Homes, number};
use crate::support::eventually;
use crate::support::rng::Rng;

const BY_LOAD: &str = "balance = \"least_connections\"\nkey = \"source\"\n";

/// A backend is added, weights change, a backend dies and returns, and one instance is killed: clients leave the backend
/// that died, and no other. Returns how many found themselves elsewhere all the same.
fn breaks(test: &str, options: &str) -> Option<usize> {
    let mut fleet = Fleet::start(test, 3, options)?;
    let (mut rng, mut homes, mut breaks) = (Rng(7), Homes::new(), 0);
    for _ in 0..2 {
        breaks += fleet.hop(&mut rng, &mut homes, None);
    }
    assert_eq!(breaks, 0, "before anything has changed");
    // A backend is added, then another one becomes heavier; between two reloads the instances place otherwise.
    for (backends, first) in [(4, ""), (4, "weight = 3")] {
        for instance in 0..3 {
            fleet.reload(instance, backends, first);
            breaks += fleet.hop(&mut rng, &mut homes, None);
        }
        breaks += fleet.hop(&mut rng, &mut homes, None);
        println!("{breaks} of {CLIENTS} after {backends} backends {first:?}");
    }
    let at_b1 = homes.values().filter(|home| *home == "b1").count();
    assert!(at_b1 > 0);
    fleet.kill(1);
    breaks += fleet.hop(&mut rng, &mut homes, Some("b1"));
    assert!(homes.values().all(|home| home != "b1"));
    breaks += fleet.hop(&mut rng, &mut homes, None);
    println!("{breaks} of {CLIENTS} after {at_b1} have left a backend that died");
    fleet.revive(1);
    for _ in 0..2 {
        breaks += fleet.hop(&mut rng, &mut homes, None);
    }
    println!("{breaks} of {CLIENTS} after it has returned");
    drop(fleet.instances.remove(0));
    for _ in 0..2 {
        breaks += fleet.hop(&mut rng, &mut homes, None);
    }
    println!("{breaks} of {CLIENTS} after an instance was killed");
    Some(breaks)
}

#[test]
fn clients_that_hop_between_instances_stay_while_their_pool_changes() {
    let test = "clients_that_hop_between_instances_stay_while_their_pool_changes";
    assert!(breaks(test, "").is_none_or(|breaks| breaks == 0));
}

#[test]
fn clients_that_load_has_placed_stay_at_every_instance() {
    let test = "clients_that_load_has_placed_stay_at_every_instance";
    assert!(breaks(test, BY_LOAD).is_none_or(|breaks| breaks == 0));
}

#[test]
fn a_client_that_stays_costs_nothing_and_its_entry_names_the_instance_that_told_it() {
    let test = "a_client_that_stays_costs_nothing_and_its_entry_names_the_instance_that_told_it";
    let Some(fleet) = Fleet::start(test, 2, BY_LOAD) else { return };
    let [one, other] = [0, 1].map(|index| &fleet.instances[index]);
    let homes: Vec<_> = (0..20).map(|client| fleet.ask(0, client)).collect();
    eventually("the entries to be told", || (number(other, "taken") == 20).then_some(()));
    assert!((0..20).all(|client| (0..3).all(|_| fleet.ask(1, client) == homes[usize::from(client)])));
    assert_eq!((number(one, "told"), number(other, "told")), (20, 0), "each once, whoever serves the client");
    let why = other.json("/why?what=127.2.3.9");
    let told_by = why["entry"]["told_by"].as_str().unwrap_or_else(|| panic!("{why}"));
    let instances = &one.status()["fleet"]["instances"];
    assert_eq!(instances[0]["name"], told_by, "{instances}");
    assert!(one.json("/why?what=127.2.3.9")["entry"]["told_by"].is_null(), "it was made there");
    assert_eq!(one.metric("sessile_fleet_told_total{kind=\"news\"}"), 20.0);
    assert_eq!(other.metric("sessile_fleet_received_total{result=\"taken\"}"), 20.0);
    // 14 bytes for each entry, and what is around them.
    println!("{} bytes in {} items", number(one, "bytes"), number(one, "items"));
    // An instance that places otherwise is named, until the other one is reloaded, too.
    let differs = || other.status()["fleet"]["instances"][1]["differs"].clone();
    fleet.reload(0, 4, "");
    eventually("the difference to be seen", || (differs() == serde_json::json!(["p"])).then_some(()));
    assert_eq!(other.metric("sessile_fleet_differing"), 1.0);
    let socket = other.admin();
    let shown = crate::support::sessile::run(&["status", "--fleet", "--socket", socket.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("1 place otherwise"), "{shown:?}");
    fleet.reload(1, 4, "");
    eventually("the difference to be gone", || (differs() == serde_json::json!([])).then_some(()));
}
