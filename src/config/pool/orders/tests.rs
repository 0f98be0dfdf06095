//! Orders one by one. Sequences are tested with snapshots, in `server/discovery`.

use super::*;
use crate::config::{Balance, HostPort, Range, RangeRule};
use crate::order::{NewBackend, OrderKind, OrderRefusal};
use crate::server_name::ServerName;

fn backend(name: &str, port: u16) -> Backend {
    Backend::of_test(name, Address::Tcp(([10, 0, 0, 1], port).into()))
}

/// A pool of `a` and `b`.
fn pool() -> Pool {
    Pool::of_test(vec![backend("a", 1), backend("b", 2)])
}

fn after(pool: &Pool, name: &str, kind: &OrderKind) -> Pool {
    pool.ordered(name, kind, &OrderOrigin::Command, 7).unwrap()
}

fn refusal(pool: &Pool, name: &str, kind: &OrderKind) -> String {
    match pool.ordered(name, kind, &OrderOrigin::Command, 7).unwrap_err() {
        OrderRefusal::Refused(why) | OrderRefusal::Unknown(why) => why,
    }
}

fn add() -> OrderKind {
    OrderKind::Add(NewBackend { weight: 3, ..NewBackend::at("10.0.0.1:9") })
}

fn weight(weight: u16) -> OrderKind {
    OrderKind::Weight { weight: Some(weight) }
}

fn shown(pool: &Pool) -> String {
    let one = |backend: &Backend| format!("{} {} {}", backend.name, backend.address, backend.weight);
    pool.backends.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[test]
fn orders_stand_over_file_and_source_and_can_be_taken_back() {
    let changed = after(&after(&pool(), "a", &weight(5)), "d", &add());
    let changed = after(&changed, "b", &OrderKind::Address { address: Some("10.0.0.1:8".into()) });
    assert_eq!(shown(&changed), "a 10.0.0.1:1 5, b 10.0.0.1:8 1, d 10.0.0.1:9 3");
    assert_eq!(changed.plain(), pool().backends);
    let back = after(&after(&changed, "a", &OrderKind::Weight { weight: None }), "d", &OrderKind::Remove { now: true });
    let back = after(&back, "b", &OrderKind::Address { address: None });
    assert_eq!(back, pool());
    let found = Backend { origin: BackendOrigin::Found { absence: None }, ..backend("f", 3) };
    let with_found = changed.with_found(vec![found]);
    assert_eq!(shown(&with_found), "a 10.0.0.1:1 5, b 10.0.0.1:8 1, f 10.0.0.1:3 1, d 10.0.0.1:9 3");
    assert_eq!((with_found.found().count(), with_found.written().count()), (1, 2));
}

#[test]
fn another_value_in_the_file_ends_an_order_and_the_same_value_does_not() {
    let ordered = after(&pool(), "a", &weight(5));
    let file = |weight| Pool::of_test(vec![Backend { weight, ..backend("a", 1) }, backend("b", 2)]);
    for (in_file, is) in [(1, 5), (2, 2), (5, 5)] {
        let now = file(in_file).with_orders(&ordered.orders);
        assert_eq!((now.backends[0].weight, now.orders.is_empty()), (is, in_file != 1), "{in_file}");
    }
    let added = after(&after(&pool(), "d", &add()), "d", &weight(7));
    let named = Pool::of_test(vec![backend("a", 1), backend("d", 4)]).with_orders(&added.orders);
    assert_eq!((shown(&named).as_str(), named.orders.is_empty()), ("a 10.0.0.1:1 1, d 10.0.0.1:4 1", true));
    let gone = Pool::of_test(vec![backend("b", 2)]).with_orders(&ordered.orders);
    assert!(gone.orders.is_empty(), "the backend is gone");
}

#[test]
fn an_ordered_address_stands_while_the_name_has_other_addresses_and_ends_with_another_name() {
    let host = |name| Some(HostPort { host: ServerName::parse(name).unwrap(), port: 1 });
    let named = |name, port| Backend { host: host(name), ..backend("a", port) };
    let order = OrderKind::Address { address: Some("10.0.0.1:8".into()) };
    let ordered = after(&Pool::of_test(vec![named("one.test", 1)]), "a", &order);
    let resolved = ordered.with_written(vec![named("one.test", 3)]);
    assert_eq!((shown(&resolved), &resolved.plain()[0]), ("a 10.0.0.1:8 1".to_owned(), &named("one.test", 3)));
    let renamed = Pool::of_test(vec![named("other.test", 4)]).with_orders(&resolved.orders);
    assert_eq!((shown(&renamed), renamed.orders.is_empty()), ("a 10.0.0.1:4 1".to_owned(), true));
}

#[test]
fn a_removed_backend_drains_leaves_and_comes_back() {
    let removal = OrderKind::Remove { now: false };
    let leaving = after(&pool(), "a", &removal);
    let drain = Absence { since_ms: 7, deadline_ms: 300_007 };
    assert_eq!(leaving.backends[0].absence(), Some(drain));
    let left = leaving.with_removals_over(&|name, absence| name == "a" && absence == drain);
    assert_eq!((shown(&left).as_str(), left.orders.removed().collect::<Vec<_>>()), ("b 10.0.0.1:2 1", vec!["a"]));
    assert!(refusal(&left, "a", &weight(2)).contains("`sessile ready` takes it back"));
    assert_eq!(after(&left, "a", &OrderKind::Ready), pool());
    // A file that has it no more lets the drain end by itself; one that names it again has it.
    let without = Pool::of_test(vec![backend("b", 2)]);
    let drains = without.with_orders(&leaving.orders);
    assert_eq!(drains.backends[1].absence(), Some(drain));
    assert_eq!(drains.with_removals_over(&|_, _| true), without);
    assert_eq!(pool().with_orders(&drains.orders), pool());
    assert_eq!(without.with_orders(&left.orders), without);
    assert_eq!(
        refusal(&after(&pool(), "a", &weight(0)), "b", &removal),
        "pool \"web\": no backend would be left that takes new clients"
    );
}

#[test]
fn what_stands_is_listed_as_orders_that_make_the_same() {
    let first = after(&after(&pool(), "d", &add()), "d", &weight(4));
    let all = after(&after(&first, "a", &weight(2)), "b", &OrderKind::Remove { now: true });
    let again = all.standing_orders().into_iter().fold(pool(), |pool, (order, by)| {
        assert_eq!((&*order.pool, &by), ("web", &OrderOrigin::Command));
        let kind = if order.kind.word() == "remove" { OrderKind::Remove { now: true } } else { order.kind };
        after(&pool, &order.backend, &kind)
    });
    assert_eq!(again.backends, all.backends);
    assert_eq!(all.standing_orders().len(), 3);
}

#[test]
fn the_table_of_a_method_bounds_what_can_be_added() {
    let ring = Pool { balance: Balance::Ring { points: 1_000_000 }, ..pool() };
    let why = refusal(&ring, "d", &add());
    assert!(why.contains("the most is 4000000"), "{why}");
    assert!(refusal(&ring, "a", &weight(200)).contains("the most is 4000000"));
}

#[test]
fn a_removed_backend_that_its_source_drops_and_names_again_stays_removed() {
    let found = |port| vec![Backend { origin: BackendOrigin::Found { absence: None }, ..backend("f", port) }];
    let leaving = after(&pool().with_found(found(3)), "f", &OrderKind::Remove { now: false });
    let left_over = leaving.with_found(vec![]);
    assert_eq!(left_over.backends[2].absence(), leaving.backends[2].absence());
    assert_eq!((left_over.orders.added().count(), left_over.standing_orders().len()), (0, 0));
    for kind in [OrderKind::Ready, weight(2), add(), OrderKind::Remove { now: false }] {
        let why = refusal(&left_over, "f", &kind);
        assert!(why.contains("neither the file nor its source names it"), "{why}");
    }
    let again = left_over.with_found(found(4));
    assert_eq!(
        (shown(&again).as_str(), again.backends[2].absence().is_some()),
        ("a 10.0.0.1:1 1, b 10.0.0.1:2 1, f 10.0.0.1:4 1", true)
    );
    assert_eq!(after(&again, "f", &OrderKind::Ready), pool().with_found(found(4)));
    assert_eq!(left_over.with_removals_over(&|_, _| true), pool());
}

#[test]
fn every_pin_keeps_a_backend() {
    let rule = RangeRule::Pin { backends: vec!["a".into(), "b".into()], strict: true };
    let pin = Range { name: "office".into(), cidr: "10.0.0.0/8".parse().unwrap(), rule };
    let three = vec![backend("a", 1), backend("b", 2), backend("c", 3)];
    let pinned = Pool { ranges: vec![pin.clone()], ..Pool::of_test(three) };
    for now in [false, true] {
        let one = after(&pinned, "a", &OrderKind::Remove { now });
        let why = refusal(&one, "b", &OrderKind::Remove { now });
        assert!(why.contains("range \"office\" would be left without a backend"), "{why}");
        // A file that pins the removed one alone.
        let rule = RangeRule::Pin { backends: vec!["a".into()], strict: true };
        let file = Pool { ranges: vec![Range { rule, ..pin.clone() }], ..pinned.clone() };
        assert!(file.with_orders(&one.orders).is_possible().is_err());
    }
}
