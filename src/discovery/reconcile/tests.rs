//! What becomes of a set, rule by rule. Sequences are tested with snapshots, in `server/discovery`.

use super::*;
use crate::config::{Balance, DiscoverSource};
use crate::order::{NewBackend, OrderKind, OrderOrigin};

const RULES: Discover = Discover {
    source: DiscoverSource::File(std::path::PathBuf::new()),
    vanish: Vanish::Drain,
    empty: OnEmpty::Keep,
    max_backends: 3,
    max_connections: None,
};

fn set(names: &[&str]) -> Reading {
    let found = names.iter().map(|name| Found::new(*name, "10.0.0.1:80".parse().unwrap()));
    Reading::Set { found: found.collect(), valid_for: std::time::Duration::ZERO }
}

const EMPTY: Reading = Reading::Empty { valid_for: std::time::Duration::ZERO };

fn none_is_own(_: SocketAddr) -> bool {
    false
}

/// A pool with these found backends.
fn pool(names: &[&str]) -> Pool {
    let pool = Pool { discover: Some(RULES), ..Pool::of_test(vec![]) };
    let found = reconcile(&pool, &RULES, &set(names), &none_is_own, 0).unwrap();
    pool.with_found(found)
}

fn after(pool: &Pool, rules: &Discover, reading: &Reading, now_ms: i64) -> Result<String, String> {
    let shown = |backend: &Backend| match backend.absence() {
        Some(absence) => format!("{}-{}", backend.name, absence.since_ms),
        None => backend.name.clone(),
    };
    let found = reconcile(pool, rules, reading, &none_is_own, now_ms)?;
    Ok(found.iter().map(shown).collect::<Vec<_>>().join(" "))
}

#[test]
fn the_order_of_an_answer_is_not_seen() {
    assert_eq!(pool(&["c", "a", "b"]).backends, pool(&["a", "b", "c"]).backends);
}

#[test]
fn what_vanishes_goes_the_way_of_the_rules_and_what_comes_back_has_no_absence() {
    let pool = pool(&["a", "b"]);
    for (vanish, expected) in [(Vanish::Drain, "a-7 b"), (Vanish::Down, "a-7 b"), (Vanish::Remove, "b")] {
        assert_eq!(after(&pool, &Discover { vanish, ..RULES }, &set(&["b"]), 7).as_deref(), Ok(expected));
    }
    let found = reconcile(&pool, &RULES, &set(&["b"]), &none_is_own, 7).unwrap();
    let without = pool.with_found(found);
    assert_eq!(after(&without, &RULES, &set(&["b"]), 9).as_deref(), Ok("a-7 b"), "since it vanished");
    assert_eq!(after(&without, &RULES, &set(&["a", "b"]), 9).as_deref(), Ok("a b"));
}

#[test]
fn an_empty_answer_keeps_the_last_set_unless_the_rules_say_otherwise() {
    let apply = Discover { empty: OnEmpty::Apply, ..RULES };
    assert_eq!(after(&pool(&["a"]), &RULES, &EMPTY, 7), Err("it names no backend".to_owned()));
    assert_eq!(after(&pool(&["a"]), &apply, &EMPTY, 7).as_deref(), Ok("a-7"));
    assert_eq!(after(&pool(&[]), &RULES, &EMPTY, 7).as_deref(), Ok(""), "there was none");
    let failed = Reading::Failed { why: "no answer".to_owned() };
    assert_eq!(after(&pool(&["a"]), &apply, &failed, 7), Err("no answer".to_owned()));
}

#[test]
fn those_that_are_away_for_longest_make_room() {
    let mut pool = pool(&["a", "b", "c"]);
    for (names, now_ms, expected) in [
        (&["b", "c"][..], 1, "a-1 b c"),
        (&["c"], 2, "a-1 b-2 c"),
        (&["c", "d"], 3, "b-2 c d"),
        (&["e", "f", "g"], 4, "e f g"),
    ] {
        assert_eq!(after(&pool, &RULES, &set(names), now_ms).as_deref(), Ok(expected));
        pool = pool.with_found(reconcile(&pool, &RULES, &set(names), &none_is_own, now_ms).unwrap());
    }
}

#[test]
fn what_cannot_be_taken_as_a_whole_is_refused_as_a_whole() {
    let pool = Pool { balance: Balance::Maglev { table_size: 3 }, ..pool(&["a"]) };
    assert!(after(&pool, &RULES, &set(&["a", "b", "c"]), 1).unwrap_err().starts_with("maglev_size 3 is not above"));
    let most = after(&pool, &RULES, &set(&["a", "b", "c", "d"]), 1);
    assert_eq!(most, Err("it names 4 backends; max_backends is 3".to_owned()));
    assert_eq!(after(&pool, &RULES, &set(&["b", "b"]), 1), Err("it names backend \"b\" twice".to_owned()));
    let own = reconcile(&pool, &RULES, &set(&["b"]), &|_| true, 1).unwrap_err();
    assert_eq!(own, "backend \"b\": 10.0.0.1:80 is an address of this process: connections would loop");
    for (address, weight) in [("0.0.0.0:80", 1), ("10.0.0.1:0", 1), ("[ff02::1]:80", 1)] {
        let found = vec![Found { weight: Some(weight), ..Found::new("b", address.parse().unwrap()) }];
        let reading = Reading::Set { found, valid_for: std::time::Duration::ZERO };
        assert!(after(&pool, &RULES, &reading, 1).unwrap_err().contains("can be connected to"), "{address}");
    }
    let static_one = Pool { backends: vec![Backend::of_test("s", Address::Unix("/s".into()))], ..pool };
    let taken = after(&static_one, &RULES, &set(&["s"]), 1).unwrap_err();
    assert_eq!(taken, "it names backend \"s\", which the configuration has as well");
}

#[test]
fn most_connections_are_those_of_the_source_or_else_of_the_rules() {
    let (mut own, plain) =
        (Found::new("a", "10.0.0.1:80".parse().unwrap()), Found::new("b", "10.0.0.2:80".parse().unwrap()));
    (own.max_connections, own.backup) = (Some(5), true);
    let reading = Reading::Set { found: vec![own, plain], valid_for: std::time::Duration::ZERO };
    let limits = |max_connections| {
        let rules = Discover { max_connections, ..RULES };
        let found = reconcile(&pool(&[]), &rules, &reading, &none_is_own, 0).unwrap();
        found.iter().map(|backend| (backend.max_connections, backend.backup)).collect::<Vec<_>>()
    };
    assert_eq!(limits(None), [(Some(5), true), (None, false)]);
    assert_eq!(limits(Some(70)), [(Some(5), true), (Some(70), false)]);
}

#[test]
fn an_absent_backend_goes_when_nothing_holds_it_or_its_time_is_over() {
    let pool = pool(&["a"]);
    let pool = pool
        .with_found(reconcile(&pool, &Discover { empty: OnEmpty::Apply, ..RULES }, &EMPTY, &none_is_own, 0).unwrap());
    let (deadline_ms, over_ms) = (300_000, 60_000);
    let stays = |held: Holders, now_ms: i64| unexpired(&pool, &|_| held, now_ms).found().count() > 0;
    let (connections, clients) =
        (Holders { by_connections: true, ..Holders::default() }, Holders { by_clients: true, ..Holders::default() });
    assert!(!stays(Holders::default(), 0));
    assert_eq!((stays(clients, deadline_ms - 1), stays(clients, deadline_ms)), (true, false));
    let end_ms = deadline_ms + over_ms;
    assert_eq!((stays(connections, end_ms - 1), stays(connections, end_ms)), (true, false));
    let down = Pool { discover: Some(Discover { vanish: Vanish::Down, ..RULES }), ..pool.clone() };
    assert_eq!(unexpired(&down, &|_| Holders::default(), i64::MAX).found().count(), 1);
}

#[test]
fn what_an_order_removes_goes_by_the_same_times_whatever_the_rules_of_the_source_are() {
    let (deadline_ms, over_ms) = (300_000, 60_000);
    for vanish in [Vanish::Drain, Vanish::Down, Vanish::Remove] {
        let pool = Pool { discover: Some(Discover { vanish, ..RULES }), ..pool(&["a", "b"]) };
        let pool = pool.ordered("a", &OrderKind::Remove { now: false }, &OrderOrigin::Command, 0).unwrap();
        let count = |held: Holders, now_ms: i64| unexpired(&pool, &|_| held, now_ms).backends.len();
        let held = Holders { by_connections: true, by_clients: true };
        assert_eq!((count(held, deadline_ms + over_ms - 1), count(held, deadline_ms + over_ms)), (2, 1));
        assert_eq!(count(Holders { by_connections: false, ..held }, deadline_ms), 1);
        assert_eq!(count(Holders::default(), 0), 1);
        assert_eq!(unexpired(&pool, &|_| Holders::default(), 0).found().count(), 2, "its source names it");
    }
}

#[test]
fn a_source_cannot_take_the_name_of_a_backend_that_an_order_has_added() {
    let new = OrderKind::Add(NewBackend::at("10.0.0.9:80"));
    let pool = pool(&["a"]).ordered("b", &new, &OrderOrigin::Command, 0).unwrap();
    let refused = "it names backend \"b\", which an order has added".to_owned();
    assert_eq!(after(&pool, &RULES, &set(&["a", "b"]), 7), Err(refused));
    assert_eq!(after(&pool, &RULES, &set(&["a", "c"]), 7).as_deref(), Ok("a c"));
}

#[test]
fn changes_are_named_backend_by_backend() {
    let before = pool(&["a", "b", "c"]);
    let found = reconcile(&before, &RULES, &set(&["b", "c"]), &none_is_own, 1).unwrap();
    let after = before.with_found(found);
    let text = |before: &Pool, after: &Pool| {
        changes(before.found(), after.found()).iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(text(&before, &after), "a left out");
    assert_eq!(text(&after, &before), "a returned");
    let mut moved = before.clone();
    moved.backends[1].address = Address::Tcp("10.0.0.2:80".parse().unwrap());
    moved.backends[2].weight = 9;
    moved.backends.remove(0);
    assert_eq!(text(&before, &moved), "a removed, b moved from 10.0.0.1:80 to 10.0.0.2:80, c changed");
    let mut limited = before.clone();
    limited.backends[1].max_connections = Some(9);
    limited.backends[2].backup = true;
    assert_eq!(text(&before, &limited), "b changed, c changed");
}
