//! A login on one instance, the next request on the other.

use rustix::process::Signal;

use super::redis::Redis;
use super::{AMPLE, User, Visitor, application, count, nobody_was_refused, seen, stands, store, text};
use crate::support::{Sessile, eventually};

const LOGINS: usize = 1_000;

#[test]
fn a_login_on_one_instance_is_known_on_the_other_at_once() {
    let Some(redis) = Redis::start("a_login_on_one_instance_is_known_on_the_other_at_once") else { return };
    let application = application();
    let text = text(&store(&redis.url(), AMPLE), &application.addresses);
    let instances = [Sessile::start(&text), Sessile::start(&text)];
    let mut visitors = instances.each_ref().map(Visitor::to);
    let mut users = Vec::new();
    for n in 0..LOGINS {
        let user = visitors[n % 2].login();
        assert_eq!(visitors[(n + 1) % 2].ask(&user), user.home, "login {n}");
        users.push(user);
    }
    for (instance, visitor) in instances.iter().zip(&mut visitors) {
        visitor.finds(&users);
        let half = LOGINS as u64 / 2;
        assert_eq!((count(instance, "learn", "stored"), count(instance, "find", "known")), (half, half));
        let breaks = instance.sum("sessile_sticky_breaks_total", &["pool=\"p\""]);
        assert_eq!((breaks, instance.metric("sessile_store_up")), (0.0, 1.0));
        assert_eq!(instance.metric("sessile_store_requests_total{kind=\"find\",result=\"known\"}"), half as f64);
        assert!(instance.metric("sessile_store_latency_seconds_count{kind=\"redis\"}") >= half as f64);
        nobody_was_refused(instance);
    }
    let dump = redis.dump();
    assert_eq!(dump.len(), LOGINS);
    for (key, value, lasts_ms) in dump {
        assert!(key.starts_with("sessile:p:") && key.len() == "sessile:p:".len() + 22, "{key}");
        let (at, backend) = value.split_once(' ').unwrap();
        assert!(
            at.parse::<u64>().unwrap() > 1_600_000_000_000 && users.iter().any(|user| user.home == backend),
            "{value}"
        );
        assert!((1..=3 * 3_600_000).contains(&lasts_ms), "{lasts_ms}");
        assert!(!key.contains("secret") && !value.contains("secret"));
    }
    let said = instances[0].said() + &instances[0].metrics() + &seen(&instances[0]).to_string();
    assert!(!said.contains("secret-"));
}

#[test]
fn a_crash_and_a_restart_without_a_memory_file_break_no_learned_cookie() {
    let Some(redis) = Redis::start("a_crash_and_a_restart_without_a_memory_file_break_no_learned_cookie") else {
        return;
    };
    let application = application();
    let text = text(&store(&redis.url(), AMPLE), &application.addresses);
    let mut instance = Sessile::start(&text);
    let mut visitor = Visitor::to(&instance);
    let users: Vec<User> = (0..50).map(|_| visitor.login()).collect();
    for _ in 0..3 {
        instance.signal(Signal::KILL);
        instance.wait();
        instance.restart();
        // Already the first request after the restart finds its backend.
        Visitor::to(&instance).finds(&users);
        assert_eq!(count(&instance, "find", "known"), 50);
    }
}

#[test]
fn what_ends_moves_or_was_placed_is_known_to_all() {
    let Some(redis) = Redis::start("what_ends_moves_or_was_placed_is_known_to_all") else { return };
    let application = application();
    let text = text(&store(&redis.url(), AMPLE), &application.addresses);
    let instances = [Sessile::start(&text), Sessile::start(&text)];
    let [mut one, mut other] = instances.each_ref().map(Visitor::to);

    // A value that no backend has set stays at the backend that the first instance has picked.
    let placed = User { cookie: "SID=from-before".into(), home: one.get("/", "SID=from-before") };
    eventually("it to be told", || (redis.dump().len() == 1).then_some(()));
    other.finds(std::slice::from_ref(&placed));

    // A logout removes the value from the store too.
    let user = one.login();
    other.finds(std::slice::from_ref(&user));
    other.get("/logout", &user.cookie);
    eventually("it to be forgotten", || (redis.dump().len() == 1).then_some(()));

    // Values of a backend that leaves the pool move, are logged as removed, and have the new backend in all instances.
    let users: Vec<_> = (0..20).map(|_| one.login()).collect();
    let fewer = text.replace("name = \"b0\"", "name = \"z0\"");
    let moved: Vec<_> = users.iter().filter(|user| user.home == "b0").collect();
    assert!(!moved.is_empty());
    assert_eq!(instances[1].reload(&fewer)["accepted"], true);
    stands(&instances[1], "working");
    let homes: Vec<_> = moved.iter().map(|user| other.ask(user)).collect();
    let breaks = instances[1].metric("sessile_sticky_breaks_total{pool=\"p\",from=\"(other)\",cause=\"removed\"}");
    assert_eq!(breaks, moved.len() as f64);
    assert_eq!(moved.iter().map(|user| other.ask(user)).collect::<Vec<_>>(), homes);
}

#[test]
fn an_instance_that_knows_less_is_told_better() {
    let Some(redis) = Redis::start("an_instance_that_knows_less_is_told_better") else { return };
    let application = application();
    // Values in use are written every 100 ms.
    let text = text(&store(&redis.url(), AMPLE), &application.addresses)
        .replace("name = \"SID\"", "name = \"SID\", remember = \"1s\"");
    let instances = [Sessile::start(&text), Sessile::start(&text)];
    let [mut one, mut other] = instances.each_ref().map(Visitor::to);
    let user = one.login();
    other.finds(std::slice::from_ref(&user));
    // A later write of another instance wins.
    let (key, ..) = redis.dump().remove(0);
    let elsewhere = format!("b{}", (user.home[1..].parse::<usize>().unwrap() + 1) % super::BACKENDS);
    let said = format!("{} {elsewhere}", 4_000_000_000_000_u64);
    eventually("both to follow", || {
        redis.cli(&["set", &key, &said, "px", "60000"]);
        (one.ask(&user) == elsewhere && other.ask(&user) == elsewhere).then_some(())
    });
}

#[test]
fn what_a_response_ends_and_sets_again_stays_known_to_all() {
    let Some(redis) = Redis::start("what_a_response_ends_and_sets_again_stays_known_to_all") else { return };
    let application = application();
    let text = text(&store(&redis.url(), AMPLE), &application.addresses);
    let instances = [Sessile::start(&text), Sessile::start(&text)];
    let [mut one, mut other] = instances.each_ref().map(Visitor::to);
    let users: Vec<_> = (0..8).map(|_| one.login()).collect();
    for user in &users {
        one.get("/again", &user.cookie);
    }
    // With several values in a request, none of them is ended.
    one.get("/logout", &format!("{}; {}", users[0].cookie, users[1].cookie));
    let probe = one.login();
    other.finds(&users);
    // The store has served all requests before this one.
    other.finds(std::slice::from_ref(&probe));
    assert_eq!((count(&instances[0], "forget", "stored"), count(&instances[1], "find", "known")), (0, 9));
    one.get("/long", "a=b");
    other.finds(std::slice::from_ref(&one.login()));
    assert_eq!((redis.dump().len(), count(&instances[0], "learn", "stored")), (10, 10), "too long to be learned");
}

#[test]
fn a_value_that_a_backend_has_set_counts_first_on_every_instance() {
    let Some(redis) = Redis::start("a_value_that_a_backend_has_set_counts_first_on_every_instance") else { return };
    let application = application();
    let text = text(&store(&redis.url(), AMPLE), &application.addresses);
    let instances = [Sessile::start(&text), Sessile::start(&text), Sessile::start(&text)];
    let [mut one, mut other, mut third] = instances.each_ref().map(Visitor::to);
    // A constant that every visitor brings is placed by the first instance, and found by the second.
    let guest = User { cookie: "SID=guest".into(), home: one.get("/", "SID=guest") };
    eventually("it to be told", || (redis.dump().len() == 1).then_some(()));
    other.finds(std::slice::from_ref(&guest));
    let users: Vec<_> = (0..10).map(|_| one.login()).collect();
    assert!(users.iter().any(|user| user.home != guest.home));
    let with_guest = |user: &User| User { cookie: format!("SID=guest; {}", user.cookie), home: user.home.clone() };
    let users: Vec<_> = users.iter().map(with_guest).collect();
    // The second instance knows the constant and no session, the third neither.
    other.finds(&users);
    third.finds(&users);
    one.finds(&users);
    instances.iter().for_each(nobody_was_refused);
}
