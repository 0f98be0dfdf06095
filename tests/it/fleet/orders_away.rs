//! Orders while the store is stopped, frozen, full or emptied, and over restarts of an instance.

use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::Fleet;
use super::orders::{all_have, draining, fleet, order, orders, states};
use crate::support::{Sessile, eventually};

/// Times of orders have milliseconds: of two that are further apart the later counts.
const APART: Duration = Duration::from_millis(50);

fn stands(fleet: &Fleet, state: &str) {
    for instance in &fleet.instances {
        eventually(&format!("the fleet to be {state}"), || {
            (instance.status()["fleet"]["state"] == state).then_some(())
        });
    }
}

/// Orders that the store does not have yet.
fn untold(instance: &Sessile) -> f64 {
    instance.metric("sessile_fleet_standing_orders{state=\"untold\"}")
}

#[test]
fn orders_that_are_given_while_the_store_is_away_are_told_when_it_is_back_and_the_later_counts() {
    let test = "orders_that_are_given_while_the_store_is_away_are_told_when_it_is_back_and_the_later_counts";
    let Some(mut fleet) = fleet(test, 2) else { return };
    order(&fleet.instances[0], "b2", "drain");
    all_have(&fleet, &[Value::Null, Value::Null, draining()]);
    fleet.redis.stop();
    stands(&fleet, "away");
    let [one, other] = [0, 1].map(|index| &fleet.instances[index]);
    let said = order(other, "b0", "drain");
    assert_eq!(said, "p/b0: draining, store away: the fleet will be told\n");
    order(other, "b1", "drain");
    sleep(APART);
    // Later, and of the instance that may be the first to be back.
    order(one, "b0", "drain");
    order(one, "b0", "ready");
    assert!(untold(one) >= 1.0 && untold(other) >= 2.0);
    // The store comes back without anything.
    fleet.redis.run(&[]);
    stands(&fleet, "working");
    all_have(&fleet, &[Value::Null, draining(), draining()]);
    for instance in &fleet.instances {
        eventually("all to be told", || (untold(instance) == 0.0).then_some(()));
    }
    fleet.join(3, "");
    assert_eq!(states(&fleet.instances[2]), [Value::Null, draining(), draining()]);
}

#[test]
fn a_frozen_store_holds_up_no_command() {
    let Some(fleet) = fleet("a_frozen_store_holds_up_no_command", 2) else { return };
    fleet.redis.program().signal(Signal::STOP);
    let begun = Instant::now();
    let said = order(&fleet.instances[0], "b0", "drain");
    assert!(begun.elapsed() < Duration::from_millis(900), "{:?}", begun.elapsed());
    assert!(said.contains("being told to the fleet") || said.contains("store away"), "{said}");
    stands(&fleet, "away");
    fleet.redis.program().signal(Signal::CONT);
    all_have(&fleet, &[draining(), Value::Null, Value::Null]);
}

#[test]
fn an_order_that_a_full_store_refuses_is_told_when_it_has_room() {
    let test = "an_order_that_a_full_store_refuses_is_told_when_it_has_room";
    let Some(fleet) = fleet(test, 2) else { return };
    fleet.redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    order(&fleet.instances[0], "b0", "drain");
    let complaint = |index: usize| fleet.instances[index].status()["fleet"]["complaint"].as_str().map(str::to_owned);
    eventually("the refusal to be shown", || complaint(0).filter(|why| why.contains("it refuses writes: OOM")));
    assert_eq!((untold(&fleet.instances[0]), states(&fleet.instances[1])[0].clone()), (1.0, Value::Null));
    fleet.redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    all_have(&fleet, &[draining(), Value::Null, Value::Null]);
    eventually("the complaint to be over", || complaint(0).is_none().then_some(()));
}

#[test]
fn a_store_that_has_lost_everything_gets_every_order_again() {
    let test = "a_store_that_has_lost_everything_gets_every_order_again";
    let Some(mut fleet) = fleet(test, 1) else { return };
    order(&fleet.instances[0], "b0", "drain");
    eventually("it to be told", || (orders(&fleet.instances[0], "applied") == ["b0 drain"]).then_some(()));
    fleet.redis.cli(&["FLUSHALL"]);
    eventually("it to be there again", || {
        (fleet.redis.cli(&["HLEN", "sessile:orders{sessile:fleet}"]).trim() == "1").then_some(())
    });
    fleet.join(3, "");
    assert_eq!(states(&fleet.instances[1])[0], draining());
    let ttl: i64 = fleet.redis.cli(&["PTTL", "sessile:orders{sessile:fleet}"]).trim().parse().unwrap();
    assert!(ttl > 29 * 86_400_000, "it goes by itself when no instance is left: {ttl} ms");
}

#[test]
fn an_instance_that_was_restarted_follows_what_was_ordered_meanwhile_and_tells_what_it_could_not() {
    let test = "an_instance_that_was_restarted_follows_what_was_ordered_meanwhile_and_tells_what_it_could_not";
    let Some(mut fleet) = fleet(test, 2) else { return };
    order(&fleet.instances[1], "b0", "drain");
    order(&fleet.instances[1], "b1", "drain");
    all_have(&fleet, &[draining(), draining(), Value::Null]);
    fleet.instances[1].signal(Signal::KILL);
    fleet.instances[1].wait();
    order(&fleet.instances[0], "b0", "ready");
    eventually("it to be told", || (untold(&fleet.instances[0]) == 0.0).then_some(()));
    fleet.instances[1].restart();
    assert_eq!(states(&fleet.instances[1]), [Value::Null, draining(), Value::Null], "as soon as it is ready");
    // An order that waits for the store waits over a restart.
    fleet.redis.stop();
    stands(&fleet, "away");
    order(&fleet.instances[1], "b2", "drain");
    sleep(APART);
    order(&fleet.instances[0], "b1", "ready");
    fleet.instances[1].signal(Signal::KILL);
    fleet.instances[1].wait();
    fleet.instances[1].restart();
    assert_eq!(states(&fleet.instances[1]), [Value::Null, draining(), draining()]);
    fleet.redis.run(&[]);
    all_have(&fleet, &[Value::Null, Value::Null, draining()]);
    // An upgrade has the orders, too, and neither gives nor takes one.
    fleet.instances[1].upgrade(None);
    fleet.redis.cli(&["FLUSHALL"]);
    order(&fleet.instances[1], "b0", "close");
    all_have(&fleet, &["drained".into(), Value::Null, draining()]);
}
