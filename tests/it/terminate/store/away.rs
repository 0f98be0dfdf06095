//! A store that is stopped, frozen, slow, empty, or not there at all.

use rustix::process::Signal;

use super::redis::{Redis, Slow};
use super::{AMPLE, User, Visitor, application, count, nobody_was_refused, seen, stands, store, text};
use crate::support::{Sessile, eventually};

/// Failures in a row that open the breaker.
const FAILURES: u64 = 5;

fn logins(visitor: &mut Visitor, count: usize) -> Vec<User> {
    (0..count).map(|_| visitor.login()).collect()
}

/// Sends requests with unknown values.
fn strangers(visitor: &mut Visitor, who: &str, count: usize) {
    for n in 0..count {
        visitor.get("/", &format!("SID={who}-{n}"));
    }
}

#[test]
fn what_was_learned_while_the_store_was_away_is_told_when_it_is_back_and_empty() {
    let Some(mut redis) = Redis::start("what_was_learned_while_the_store_was_away_is_told_when_it_is_back_and_empty")
    else {
        return;
    };
    let application = application();
    let text = text(&store(&redis.url(), AMPLE), &application.addresses);
    let instances = [Sessile::start(&text), Sessile::start(&text)];
    let [mut one, mut other] = instances.each_ref().map(Visitor::to);
    let before = logins(&mut one, 20);
    redis.stop();
    instances.iter().for_each(|instance| stands(instance, "open"));
    let asked = count(&instances[0], "find", "late") + count(&instances[0], "find", "failed");
    let meanwhile = logins(&mut one, 100);
    one.finds(&before);
    one.finds(&meanwhile);
    strangers(&mut one, "away", 50);
    assert_eq!(seen(&instances[0])["pending"], 100);
    assert_eq!(count(&instances[0], "find", "late") + count(&instances[0], "find", "failed"), asked, "nobody asked it");
    assert_eq!((seen(&instances[0])["opened"].as_u64(), instances[0].metric("sessile_store_up")), (Some(1), 0.0));

    redis.run(&[]);
    instances.iter().for_each(|instance| stands(instance, "working"));
    assert_eq!(
        (seen(&instances[0])["pending"].as_u64(), seen(&instances[0])["reconciled"].as_u64()),
        (Some(0), Some(100))
    );
    other.finds(&meanwhile);
    // Values known before are written again as soon as they are used.
    one.finds(&before);
    let all = before.len() + meanwhile.len();
    eventually("the store to know", || (redis.dump().len() >= all).then_some(()));
    other.finds(&before);
    let told = || instances[0].said().matches("no request is sent to it until it answers").count();
    eventually("both reasons to be said", || (told() >= 2).then_some(()));
    assert_eq!(told(), 2, "once for each reason: {}", instances[0].said());
    instances.iter().for_each(nobody_was_refused);
}

#[test]
fn a_frozen_store_costs_five_budgets_and_then_nothing() {
    let Some(redis) = Redis::start("a_frozen_store_costs_five_budgets_and_then_nothing") else { return };
    let application = application();
    let instance = Sessile::start(&text(&store(&redis.url(), "20ms"), &application.addresses));
    let mut visitor = Visitor::to(&instance);
    stands(&instance, "working");
    let before = logins(&mut visitor, 10);
    redis.program().signal(Signal::STOP);
    strangers(&mut visitor, "frozen", 50);
    stands(&instance, "open");
    // Waits one after the other fail five times at most; the keeper's own queries may have failed too.
    let late = count(&instance, "find", "late");
    assert!(late <= FAILURES && seen(&instance)["opened"] == 1, "{late}");
    visitor.finds(&before);
    let meanwhile = logins(&mut visitor, 10);
    assert_eq!((count(&instance, "find", "late"), count(&instance, "learn", "late")), (late, 0));
    redis.program().signal(Signal::CONT);
    stands(&instance, "working");
    visitor.finds(&meanwhile);
    eventually("the store to know", || (redis.dump().len() >= 20).then_some(()));
    nobody_was_refused(&instance);
}

#[test]
fn a_slow_store_is_a_store_that_is_away() {
    let Some(redis) = Redis::start("a_slow_store_is_a_store_that_is_away") else { return };
    let (application, slow) = (application(), Slow::before(redis.address));
    let instance = Sessile::start(&text(&store(&slow.url(), "50ms"), &application.addresses));
    let mut visitor = Visitor::to(&instance);
    stands(&instance, "working");
    slow.delay(200);
    let users = logins(&mut visitor, 20);
    stands(&instance, "open");
    assert!(count(&instance, "learn", "late") <= FAILURES);
    visitor.finds(&users);
    slow.delay(0);
    stands(&instance, "working");
    eventually("the store to know", || (redis.dump().len() == users.len()).then_some(()));
    nobody_was_refused(&instance);
}

#[test]
fn a_store_that_is_not_there_at_the_start_is_no_error() {
    let Some(mut redis) = Redis::start("a_store_that_is_not_there_at_the_start_is_no_error") else { return };
    redis.stop();
    let application = application();
    let instance = Sessile::start(&text(&store(&redis.url(), AMPLE), &application.addresses));
    assert_eq!(seen(&instance)["state"], "open");
    instance.says("no request is sent to it until it answers");
    let mut visitor = Visitor::to(&instance);
    let users = logins(&mut visitor, 10);
    visitor.finds(&users);
    redis.run(&[]);
    stands(&instance, "working");
    eventually("the store to know", || (redis.dump().len() == 10).then_some(()));
}
