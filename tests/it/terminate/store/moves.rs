//! Clients of a backend that is gone: each moves once, by whichever instance its next requests come.

use std::sync::Arc;

use super::redis::Redis;
use super::{
    AMPLE, BACKENDS, User, Visitor, application, nobody_was_refused, part_of_application, stands, store, text,
};
use crate::support::{Sessile, eventually};

/// Number of logins, after which the turns of the two instances differ.
const LOGINS: usize = 42;

/// Users with values that both instances have.
fn known(one: &mut Visitor, other: &mut Visitor) -> Vec<User> {
    let users: Vec<_> = (0..LOGINS).map(|_| one.login()).collect();
    other.finds(&users);
    users
}

/// Asserts that the users of `b0`, which cannot serve any more, move by the first instance, and that the other instance
/// follows and logs why.
fn move_once(redis: &Redis, instances: &[Sessile; 2], [one, other]: [&mut Visitor; 2], users: &[User], cause: &str) {
    let left: Vec<_> = users.iter().filter(|user| user.home == "b0").collect();
    assert!(left.len() >= LOGINS / BACKENDS);
    let moved = |user: &&User| User { cookie: user.cookie.clone(), home: one.ask(user) };
    let mut moved: Vec<_> = left.iter().map(moved).collect();
    assert!(moved.iter().all(|user| user.home != "b0"), "{moved:?}");
    eventually("the store to be told", || {
        let dump = redis.dump();
        (!dump.is_empty() && dump.iter().all(|(_, value, _)| !value.ends_with(" b0"))).then_some(())
    });
    // Another order, so that the turns of placement would send the users to other backends.
    moved.reverse();
    for _ in 0..2 {
        other.finds(&moved);
        one.finds(&moved);
    }
    // Each instance counts the users that it knew at another backend.
    let from = if cause == "removed" { "(other)" } else { "b0" };
    let series = format!("sessile_sticky_breaks_total{{pool=\"p\",from=\"{from}\",cause=\"{cause}\"}}");
    let breaks = instances.each_ref().map(|instance| instance.metric(&series));
    assert_eq!(breaks, [left.len() as f64; 2]);
    // No other user has moved.
    let stay: Vec<_> = users.iter().filter(|user| user.home != "b0").cloned().collect();
    other.finds(&stay);
    instances.iter().for_each(nobody_was_refused);
}

/// Stops the first backend, `b0`; the instances learn of it by `checks`, or by connections of clients.
fn the_first_goes_down(test: &str, checks: Option<&str>) {
    let Some(redis) = Redis::start(test) else { return };
    let logins = Arc::default();
    let (first, others) = (part_of_application(0, 1, &logins), part_of_application(1, BACKENDS - 1, &logins));
    let addresses = [&first.addresses[..], &others.addresses].concat();
    let mut text = text(&store(&redis.url(), AMPLE), &addresses);
    if let Some(checks) = checks {
        text = text.replace("kind = \"off\"", checks);
    }
    let instances = [Sessile::start(&text), Sessile::start(&text)];
    let [mut one, mut other] = instances.each_ref().map(Visitor::to);
    instances.iter().for_each(|instance| stands(instance, "working"));
    let users = known(&mut one, &mut other);
    drop(first);
    if checks.is_some() {
        let down = |instance: &Sessile| instance.json("/backends")[0]["state"] == "down";
        eventually("both to see it", || instances.iter().all(down).then_some(()));
    }
    move_once(&redis, &instances, [&mut one, &mut other], &users, "down");
}

#[test]
fn a_client_whose_backend_is_down_moves_once_for_all_instances() {
    let checks = "kind = \"tcp\"\ninterval = \"100ms\"\ntimeout = \"100ms\"\nfall = 2";
    the_first_goes_down("a_client_whose_backend_is_down_moves_once_for_all_instances", Some(checks));
}

#[test]
fn a_client_whose_backend_refuses_it_moves_once_for_all_instances() {
    the_first_goes_down("a_client_whose_backend_refuses_it_moves_once_for_all_instances", None);
}

#[test]
fn a_client_whose_backend_was_removed_moves_once_for_all_instances() {
    let Some(redis) = Redis::start("a_client_whose_backend_was_removed_moves_once_for_all_instances") else { return };
    let application = application();
    let text = text(&store(&redis.url(), AMPLE), &application.addresses);
    let instances = [Sessile::start(&text), Sessile::start(&text)];
    let [mut one, mut other] = instances.each_ref().map(Visitor::to);
    instances.iter().for_each(|instance| stands(instance, "working"));
    let users = known(&mut one, &mut other);
    let name = "name = \"b0\"\n";
    let from = text.find(&format!("[[pool.backend]]\n{name}")).unwrap();
    let to = from + text[from..].find("[[pool.backend]]\nname = \"b1\"").unwrap();
    let fewer = text[..from].to_owned() + &text[to..];
    for instance in &instances {
        assert_eq!(instance.reload(&fewer)["accepted"], true);
        stands(instance, "working");
    }
    move_once(&redis, &instances, [&mut one, &mut other], &users, "removed");
}
