//! Clients that come through another instance each time, while the pool changes under them.

use super::crowd::{AT_ONCE, Crowd, Walk};
use super::{Fleet, number};
use crate::support::backend::Backend;
use crate::support::sessile::run;
use crate::support::{Sessile, eventually};

const BY_LOAD: &str = "balance = \"least_connections\"\nkey = \"source\"\n";

/// Backends at the end, of which the last one is added.
const BACKENDS: usize = 10;

/// A backend is added, weights change, a backend dies and returns, and one instance is killed, all while clients come:
/// they leave the backend that died, and no other. By each step of a change at most as many as connect at once find
/// themselves elsewhere all the same: those that come while instances place otherwise and have not told each other yet.
fn stay(test: &str, options: &str) {
    let Some(mut fleet) = Fleet::start(test, 0, options) else { return };
    fleet.backends = (0..BACKENDS).map(|index| Some(Backend::named(&format!("b{index}")))).collect();
    fleet.addresses = fleet.backends.iter().flatten().map(|backend| backend.address).collect();
    (0..3).for_each(|_| fleet.join(BACKENDS - 1, ""));
    fleet.knows_all();
    let (mut crowd, mut all) = (Crowd::new(), Walk::default());
    for _ in 0..2 {
        all += crowd.walk(&mut fleet, None);
    }
    assert_eq!(all.breaks, 0, "before anything has changed");
    let lost = Some(1);
    let reload = |first: &'static str| move |fleet: &mut Fleet, at| fleet.reload(at, BACKENDS, first);
    let (add, weigh) = (reload(""), reload("weight = 3"));
    type Change<'c> = &'c dyn Fn(&mut Fleet);
    let changes: [(&str, Option<u8>, usize, Change<'_>); 5] = [
        // Between two reloads the instances place otherwise.
        ("a backend was added", None, 3, &|fleet| (0..3).for_each(|at| add(fleet, at))),
        ("another became heavier", None, 3, &|fleet| (0..3).for_each(|at| weigh(fleet, at))),
        ("another died", lost, 1, &|fleet| fleet.kill(1)),
        ("it returned", None, 1, &|fleet| fleet.revive(1)),
        ("an instance was killed", None, 1, &|fleet| drop(fleet.instances.remove(0))),
    ];
    println!("{} clients, {AT_ONCE} at once", crowd.len());
    for (what, lost, steps, change) in changes {
        let at_lost = lost.map(|lost| crowd.at(lost));
        let during = crowd.walk_while(&mut fleet, lost, change);
        let mut after = crowd.walk(&mut fleet, lost);
        after += crowd.walk(&mut fleet, lost);
        println!("{what}: {during:?}, then {after:?}; {at_lost:?} were to leave");
        assert!(during.breaks + after.breaks <= steps * AT_ONCE, "{what}: {during:?}, {after:?}");
        assert_eq!(after.cut, 0, "{what}");
        assert!(at_lost != Some(0) && lost.is_none_or(|lost| crowd.at(lost) == 0), "{what}: {at_lost:?}");
        all += during;
        all += after;
    }
    println!("in all {all:?}");
}

#[test]
fn clients_that_hop_between_instances_stay_while_their_pool_changes() {
    stay("clients_that_hop_between_instances_stay_while_their_pool_changes", "");
}

#[test]
fn clients_that_hop_between_instances_stay_where_load_has_placed_them() {
    stay("clients_that_hop_between_instances_stay_where_load_has_placed_them", BY_LOAD);
}

/// `explain --live` says which instance has told the entry of a client, as text and as JSON.
fn explains(instance: &Sessile, told_by: Option<&str>) {
    let socket = instance.admin();
    let explain = ["explain", "--live", "--client", "127.2.3.9", "--socket", socket.to_str().unwrap()];
    let output = |more: &[&str]| run(&[&explain[..], more].concat()).stdout;
    let report: serde_json::Value = serde_json::from_slice(&output(&["--json"])).unwrap();
    assert_eq!(report["entry"]["told_by"].as_str(), told_by, "{report}");
    let text = String::from_utf8(output(&[])).unwrap();
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let says = told_by.map_or(" BACKEND".to_owned(), |name| format!(", told by instance {name} through the store"));
    let at = report["entry"]["backend"].as_str().unwrap();
    assert!(words.contains(&format!(", in the stick table at {at}{says}")), "{text}");
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
    explains(other, Some(told_by));
    explains(one, None);
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
    let shown = run(&["status", "--fleet", "--socket", socket.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("1 place otherwise"), "{shown:?}");
    fleet.reload(1, 4, "");
    eventually("the difference to be gone", || (differs() == serde_json::json!([])).then_some(()));
}

#[test]
fn a_client_that_moves_at_one_instance_is_told_by_that_one() {
    let test = "a_client_that_moves_at_one_instance_is_told_by_that_one";
    let Some(mut fleet) = Fleet::start(test, 2, BY_LOAD) else { return };
    let told_by = |fleet: &Fleet, instance: usize| {
        let why = fleet.instances[instance].json("/why?what=127.2.0.9");
        (why["entry"]["backend"].clone(), why["entry"]["told_by"].clone())
    };
    let home = fleet.ask(0, 0);
    eventually("the other instance to be told", || told_by(&fleet, 1).1.is_string().then_some(()));
    fleet.kill(home[1..].parse().unwrap());
    let next = fleet.ask(1, 0);
    assert_ne!(next, home);
    eventually("it to be told by the other one", || {
        let moved = [0, 1].map(|instance| told_by(&fleet, instance));
        let at_both = moved.iter().all(|(backend, _)| *backend == *next);
        (at_both && moved[0].1.is_string() && moved[1].1.is_null()).then_some(())
    });
}
