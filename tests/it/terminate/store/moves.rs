//! Clients whose backend is gone: they move once, whichever instance they come by afterwards.

use std::sync::Arc;

use super::redis::Redis;
use super::{
    AMPLE, BACKENDS, User, Visitor, application, nobody_was_refused, part_of_application, stands, store, text,
};
use crate::support::{Sessile, eventually};

/// So many that the two instances' turns differ.
const LOGINS: usize = 42;

/// Users that both instances know.
fn known(one: &mut Visitor, other: &mut Visitor) -> Vec<User> {
    let users: Vec<_> = (0..LOGINS).map(|_| one.login()).collect();
    other.finds(&users);
    users
}

/// Asserts that those of `b0`, which cannot serve any more, move by the first instance, and that the other one follows
/// and says why.
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
    // In another order, so that their turns would send them elsewhere.
    moved.reverse();
    for _ in 0..2 {
        other.finds(&moved);
        one.finds(&moved);
    }
    // Each counts those that it knew elsewhere.
    let series = format!("sessile_sticky_breaks_total{{pool=\"p\",cause=\"{cause}\"}}");
    let breaks = instances.each_ref().map(|instance| instance.metric(&series));
    assert_eq!(breaks, [left.len() as f64; 2]);
    // Nobody else has moved.
    let stay: Vec<_> = users.iter().filter(|user| user.home != "b0").cloned().collect();
    other.finds(&stay);
    instances.iter().for_each(nobody_was_refused);
}

/// The backends' first, `b0`, goes; `checks` tell the instances, or the clients' own connections do.
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
