//! Orders about backends that are given at one instance and followed by all.

use std::thread;

use serde_json::Value;

use super::Fleet;
use crate::support::http::unix_post;
use crate::support::sessile::run;
use crate::support::{Sessile, eventually};

/// Instances that share orders alone; `None`: there is no redis-server.
pub fn fleet(test: &str, count: usize) -> Option<Fleet> {
    let mut fleet = Fleet::start(test, 0, "")?;
    fleet.store = "share = [\"orders\"]\n".to_owned();
    (0..count).for_each(|_| fleet.join(3, ""));
    fleet.knows_all();
    Some(fleet)
}

/// Gives an order; what is said.
pub fn order(instance: &Sessile, backend: &str, word: &str) -> String {
    let (code, said) = unix_post(&instance.admin(), &format!("/backends/p/{backend}/{word}")).unwrap();
    assert_eq!(code, 200, "{said}");
    said
}

/// What orders have made of each backend: `draining`, `drained` or null.
pub fn states(instance: &Sessile) -> Vec<Value> {
    let backends = instance.json("/backends");
    backends.as_array().unwrap().iter().map(|backend| backend["runtime"].clone()).collect()
}

/// Waits until backends are so at each instance.
pub fn all_have(fleet: &Fleet, expected: &[Value]) {
    for instance in &fleet.instances {
        eventually(&format!("backends to be {expected:?}"), || (states(instance) == expected).then_some(()));
    }
}

/// The orders of an instance that are so here.
pub fn orders(instance: &Sessile, here: &str) -> Vec<String> {
    let orders = instance.status()["fleet"]["orders"].as_array().cloned().unwrap_or_default();
    let is_so = |order: &&Value| order["here"] == here && order["told"] == true;
    let word = |of: &Value, key: &str| of[key].as_str().unwrap().to_owned();
    let shown = |of: &Value| word(of, "backend") + " " + &word(of, "order");
    let mut words: Vec<_> = orders.iter().filter(is_so).map(shown).collect();
    words.sort();
    words
}

pub fn draining() -> Value {
    "draining".into()
}

#[test]
fn a_drain_at_one_instance_is_one_at_all_until_another_one_ends_it() {
    let test = "a_drain_at_one_instance_is_one_at_all_until_another_one_ends_it";
    let Some(fleet) = fleet(test, 3) else { return };
    let said = order(&fleet.instances[0], "b0", "drain");
    assert!(said.starts_with("p/b0: draining, ") && said.ends_with(" told to the fleet\n"), "{said}");
    all_have(&fleet, &[draining(), Value::Null, Value::Null]);
    let fleet_of = |instance: &Sessile| instance.status()["fleet"].clone();
    let name = fleet_of(&fleet.instances[0])["instances"][0]["name"].clone();
    let name = name.as_str().unwrap();
    for (index, instance) in fleet.instances.iter().enumerate() {
        assert!((0..50).all(|client| fleet.ask(index, client) != "b0"), "no new clients");
        let by = &instance.json("/backends")[0]["drained_by"];
        assert_eq!(*by, if index == 0 { Value::Null } else { name.into() });
        eventually("the order to stand", || (orders(instance, "applied") == ["b0 drain"]).then_some(()));
        assert_eq!(instance.metric("sessile_fleet_standing_orders{state=\"applied\"}"), 1.0);
        assert_eq!(fleet_of(instance)["told"], 0, "entries of stick tables are not shared");
    }
    let socket = fleet.instances[1].admin();
    let text = |arguments: &[&str]| {
        let output = run(&[arguments, &["--socket", socket.to_str().unwrap()]].concat());
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(text(&["status", "--wide"]).contains(&format!(", by {name})")), "{}", text(&["status", "--wide"]));
    let shown = text(&["status", "--fleet"]);
    assert!(shown.contains(", orders 1\n") && shown.contains("p/b0     drain"), "{shown}");
    assert!(text(&["events"]).contains(&format!("backend p/b0: draining, by instance {name}")));
    order(&fleet.instances[2], "b0", "ready");
    all_have(&fleet, &[Value::Null, Value::Null, Value::Null]);
    order(&fleet.instances[1], "b0", "close");
    all_have(&fleet, &["drained".into(), Value::Null, Value::Null]);
}

#[test]
fn instances_that_order_the_same_and_other_backends_at_once_come_to_the_same() {
    let test = "instances_that_order_the_same_and_other_backends_at_once_come_to_the_same";
    let Some(fleet) = fleet(test, 2) else { return };
    let [one, other] = [0, 1].map(|index| &fleet.instances[index]);
    for round in 0..10 {
        thread::scope(|scope| {
            for (instance, own, word) in [(one, "b0", "drain"), (other, "b1", "ready")] {
                scope.spawn(move || {
                    order(instance, own, if round % 2 == 0 { "drain" } else { "ready" });
                    order(instance, "b2", word);
                });
            }
        });
        let stand = |instance: &Sessile| (states(instance), orders(instance, "applied"));
        eventually("both to have all orders", || {
            let is_whole = orders(one, "applied").len() == 3 && orders(other, "applied").len() == 3;
            (is_whole && stand(one) == stand(other)).then_some(())
        });
        let own = if round % 2 == 0 { draining() } else { Value::Null };
        assert_eq!(states(one)[..2], [own.clone(), own]);
        let at_b2 = |instance: &Sessile| {
            let orders = instance.status()["fleet"]["orders"].as_array().unwrap().clone();
            orders.into_iter().find(|order| order["backend"] == "b2").map(|order| order["by"].clone())
        };
        assert_eq!(at_b2(one), at_b2(other), "the same one counts at both");
    }
}

#[test]
fn an_instance_that_starts_late_follows_every_order_before_its_first_client() {
    let test = "an_instance_that_starts_late_follows_every_order_before_its_first_client";
    let Some(mut fleet) = fleet(test, 1) else { return };
    order(&fleet.instances[0], "b0", "close");
    order(&fleet.instances[0], "b1", "drain");
    order(&fleet.instances[0], "b2", "drain");
    order(&fleet.instances[0], "b2", "ready");
    eventually("all to be told", || (orders(&fleet.instances[0], "applied").len() == 3).then_some(()));
    // Orders do not stand in the stream, which is trimmed.
    fleet.redis.cli(&["DEL", "sessile:fleet"]);
    fleet.join(3, "");
    assert_eq!(states(&fleet.instances[1]), [Value::from("drained"), draining(), Value::Null]);
    assert!((0..50).all(|client| fleet.ask(1, client) == "b2"));
    // One that does not have a backend yet has its order as soon as a reload brings it.
    fleet.join(1, "");
    let last = &fleet.instances[2];
    assert_eq!(states(last), [Value::from("drained")]);
    eventually("the others to be shown", || (orders(last, "not_here") == ["b1 drain", "b2 ready"]).then_some(()));
    fleet.reload(2, 3, "");
    eventually("them to follow", || (states(last) == [Value::from("drained"), draining(), Value::Null]).then_some(()));
    // What a reload takes away and another one brings again, too.
    fleet.reload(2, 1, "");
    eventually("it to be gone", || orders(last, "not_here").contains(&"b1 drain".to_owned()).then_some(()));
    fleet.reload(2, 3, "");
    eventually("it to drain again", || (states(last)[1] == draining()).then_some(()));
}

#[test]
fn orders_of_instances_with_another_secret_are_refused_and_sharing_begins_and_ends_by_reload() {
    let test = "orders_of_instances_with_another_secret_are_refused_and_sharing_begins_and_ends_by_reload";
    let Some(mut fleet) = fleet(test, 2) else { return };
    let good = fleet.config(3, "");
    let other = fleet.secret.path().join("other");
    std::fs::write(&other, "fedcba9876543210fedcba9876543210\n").unwrap();
    let foreign = good.replace(&*fleet.secret.path().join("secret").to_string_lossy(), &other.to_string_lossy());
    fleet.instances.push(Sessile::start(&foreign));
    order(&fleet.instances[2], "b0", "drain");
    order(&fleet.instances[0], "b1", "drain");
    let expected = [Value::Null, draining(), Value::Null];
    (0..2).for_each(|index| {
        let instance = &fleet.instances[index];
        eventually("the own order to come", || (states(instance) == expected).then_some(()));
        eventually("the other to be refused", || (super::number(instance, "refused") > 0).then_some(()));
    });
    eventually("both orders to be kept", || {
        (fleet.redis.cli(&["HLEN", "sessile:orders{sessile:fleet}"]).trim() == "2").then_some(())
    });
    let foreign = &fleet.instances[2];
    assert_eq!(states(foreign), [draining(), Value::Null, Value::Null]);
    // From here on it shares the orders of the others, and gives them its own no more.
    assert_eq!(foreign.reload(&good)["accepted"], true);
    eventually("their order to come", || (states(foreign)[1] == draining()).then_some(()));
    let alone = good.replace("share = [\"orders\"]\n", "");
    assert_eq!(foreign.reload(&alone)["accepted"], true);
    let said = order(foreign, "b2", "drain");
    assert_eq!(said, "p/b2: draining\n");
    order(&fleet.instances[1], "b1", "ready");
    eventually("the others to go on", || (states(&fleet.instances[0])[1] == Value::Null).then_some(()));
    assert_eq!(states(foreign)[1..], [draining(), draining()]);
    assert_eq!(states(&fleet.instances[0])[2], Value::Null);
}

#[test]
fn backends_that_are_added_changed_and_removed_at_one_instance_are_so_at_all() {
    let test = "backends_that_are_added_changed_and_removed_at_one_instance_are_so_at_all";
    let Some(mut fleet) = fleet(test, 2) else { return };
    let set = |instance: &Sessile| -> Vec<(String, String, u64)> {
        let backends = instance.json("/backends");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let shown = |of: &Value| (text(&of["name"]), text(&of["address"]), of["weight"].as_u64().unwrap());
        backends.as_array().unwrap().iter().map(shown).collect()
    };
    let agree = |fleet: &Fleet, names: &[&str]| {
        let expected = set(&fleet.instances[0]);
        assert_eq!(expected.iter().map(|(name, ..)| &**name).collect::<Vec<_>>(), names);
        for instance in &fleet.instances[1..] {
            eventually("all to have the same backends", || (set(instance) == expected).then_some(()));
        }
    };
    let (new, other) = (fleet.addresses[3], fleet.addresses[4]);
    order(&fleet.instances[0], "b3", &format!("add?address={new}&weight=2"));
    order(&fleet.instances[0], "b0", "weight?weight=5");
    order(&fleet.instances[0], "b1", &format!("address?address={other}"));
    agree(&fleet, &["b0", "b1", "b2", "b3"]);
    assert_eq!(set(&fleet.instances[0])[0].2, 5);
    // One that starts late has all of it, too, and clients find the same backends everywhere.
    fleet.join(3, "");
    agree(&fleet, &["b0", "b1", "b2", "b3"]);
    let homes = |index| (0..50).map(|client| fleet.ask(index, client)).collect::<Vec<_>>();
    assert_eq!((homes(0), homes(1)), (homes(2), homes(2)));
    order(&fleet.instances[1], "b3", "remove?now=true");
    order(&fleet.instances[1], "b0", "weight");
    for instance in &fleet.instances {
        eventually("it to be gone", || (set(instance).len() == 3 && set(instance)[0].2 == 1).then_some(()));
    }
    agree(&fleet, &["b0", "b1", "b2"]);
}
