//! What a pool promises, as a whole.

mod asked;
mod beside;
mod by_load;
mod concurrent_keys;
mod queue;
mod ready;
mod siblings;
mod slow_start;
mod stick_group;
mod stick_table;

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::*;

use crate::config::{Address, AllDown, Balance, Check, CheckKind, Eject, OnMarkedDown, RangeRule};
use crate::outcome::PickReason;
use crate::plan::Explanation;
use crate::sticky::Facts;

fn backend(name: &str) -> config::Backend {
    let port = name.bytes().fold(0_u16, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    let address = Address::Tcp((Ipv4Addr::LOCALHOST, port).into());
    config::Backend::of_test(name, address)
}

pub(super) fn config(names: &[&str]) -> config::Pool {
    let eject = Eject { failures: 3, base: Duration::from_secs(10), max: Duration::from_secs(300), early_close: false };
    let backends = names.iter().map(|name| backend(name)).collect();
    config::Pool { eject: Some(eject), ..config::Pool::of_test(backends) }
}

pub(super) fn check() -> Check {
    Check {
        kind: CheckKind::Tcp,
        interval: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        rise: 2,
        fall: 1,
        flap_damping: 8,
        port: None,
        agent: None,
        sni: None,
    }
}

pub(super) fn range(name: &str, cidr: &str, rule: RangeRule) -> config::Range {
    config::Range { name: name.to_owned(), cidr: cidr.parse().unwrap(), rule }
}

pub(super) fn pin(backends: &[&str], strict: bool) -> RangeRule {
    RangeRule::Pin { backends: backends.iter().map(|name| (*name).to_owned()).collect(), strict }
}

pub(super) fn client(low: u32) -> Facts<'static> {
    Facts { source: Some(IpAddr::from((0x0a00_0000 + low).to_be_bytes())), ..Facts::default() }
}

pub(super) fn mark(backend: &Backend, good: bool) {
    for _ in 0..2 {
        backend.checked(if good { Ok(()) } else { Err("refused") }, &check(), OnMarkedDown::Close, 0);
    }
}

/// Picks for a connection that has no cookie and holds no backend.
pub(super) fn pick_for<'p>(pool: &'p Pool, facts: &Facts<'_>, tried: &[Arc<Backend>], now_ms: u64) -> Option<Pick<'p>> {
    pool.pick(&PickScene::new(facts, tried, now_ms))
}

fn name_of<'p>(pick: &Option<Pick<'p>>) -> Option<&'p str> {
    pick.map(|pick| pick.backend.name())
}

#[test]
fn what_every_connection_writes_stands_apart_from_what_every_pick_reads() {
    fn block<T>(at: &T) -> usize {
        std::ptr::from_ref(at).addr() / 128
    }
    let pool = Pool::new(&config(&["a"]), None, 1);
    let (backend, shared) = (&pool.backends[0], &pool.shared);
    let written = HashSet::from([block(&backend.leases), block(&shared.leases), block(&shared.draws)]);
    let read = [block(&backend.drain), block(&backend.rose_ms), block(&shared.name), block(&shared.ready)];
    assert!(written.len() == 3 && read.iter().all(|read| !written.contains(read)), "{written:?} {read:?}");
    // A count of references stands in front of its value, in as many bytes as the value is aligned to.
    assert_eq!([align_of::<Pool>(), align_of::<Backend>(), align_of::<PoolShared>()], [128; 3]);
}

#[test]
fn a_key_stays_while_its_backend_is_usable_and_comes_back_to_it() {
    let pool = Pool::new(&config(&["a", "b", "c"]), None, 1);
    let before: Vec<Pick<'_>> = (0..200).map(|low| pick_for(&pool, &client(low), &[], 0).unwrap()).collect();
    mark(&pool.backends()[0], false);
    for (low, settled) in before.iter().enumerate() {
        let pick = pick_for(&pool, &client(low as u32), &[], 0).unwrap();
        let was_a = settled.backend.name() == "a";
        assert_eq!(pick.left.is_some(), was_a);
        assert_eq!(pick.backend.name() == settled.backend.name(), !was_a);
        assert_eq!((pick.keyed, pick.reason), (true, PickReason::Placement));
    }
    mark(&pool.backends()[0], true);
    for (low, settled) in before.iter().enumerate() {
        let pick = pick_for(&pool, &client(low as u32), &[], 0).unwrap();
        assert!(Arc::ptr_eq(pick.backend, settled.backend) && pick.left.is_none());
    }
}

#[test]
fn what_was_tried_is_not_picked_again_and_the_rest_comes_in_order() {
    let pool = Pool::new(&config(&["a", "b", "c"]), None, 1);
    let mut tried = Vec::new();
    for round in 0..3 {
        let pick = pick_for(&pool, &client(7), &tried, 0).unwrap();
        assert_eq!(pick.left.is_some(), round > 0);
        assert!(tried.iter().all(|before| !Arc::ptr_eq(before, pick.backend)));
        tried.push(Arc::clone(pick.backend));
    }
    assert!(pick_for(&pool, &client(7), &tried, 0).is_none());
    let explained = Explanation::new(&pool, &client(7), None, &[]);
    let order: Vec<&str> = explained.candidates.iter().map(|row| row.backend.as_str()).collect();
    assert_eq!(order, tried.iter().map(|backend| backend.name()).collect::<Vec<_>>());
    assert_eq!(explained.next.as_deref(), Some(tried[1].name()));
}

#[test]
fn what_fails_while_checks_have_a_backend_down_does_not_keep_it_out_when_it_is_back() {
    let pool = Pool::new(&config(&["a", "b", "c"]), None, 1);
    let backend = &pool.backends()[0];
    let fail = || (0..9).find_map(|_| pool.connect_failed(backend, 0));
    assert!(fail().is_some(), "failed before the checks noticed");
    mark(backend, false);
    assert!(fail().is_none());
    mark(backend, true);
    assert_eq!(backend.health(0), Health::Usable);
}

#[test]
fn all_down_tries_as_if_all_were_up_or_refuses() {
    for (all_down, expected) in [(AllDown::Try, true), (AllDown::Refuse, false)] {
        let pool = Pool::new(&config::Pool { all_down, ..config(&["a", "b", "c"]) }, None, 1);
        let settled = pick_for(&pool, &client(1), &[], 0);
        pool.backends().iter().for_each(|backend| mark(backend, false));
        let pick = pick_for(&pool, &client(1), &[], 0);
        assert_eq!(pick.is_some(), expected);
        if let Some(pick) = pick {
            assert_eq!(Some(pick.backend.name()), name_of(&settled));
            assert_eq!((pick.reason, pick.left.is_some()), (PickReason::LastResort, false));
        }
    }
}

#[test]
fn a_backup_serves_only_when_no_primary_can() {
    let mut config = config(&["a", "b", "spare"]);
    config.backends[2].backup = true;
    let pool = Pool::new(&config, None, 1);
    assert!((0..100).all(|low| name_of(&pick_for(&pool, &client(low), &[], 0)) != Some("spare")));
    mark(&pool.backends()[0], false);
    mark(&pool.backends()[1], false);
    let pick = pick_for(&pool, &client(1), &[], 0).unwrap();
    assert_eq!((pick.backend.name(), pick.reason, pick.left.is_some()), ("spare", PickReason::LastResort, true));
}

#[test]
fn weight_0_is_never_picked_not_even_as_a_last_resort() {
    let mut config = config(&["a", "b"]);
    config.backends[0].weight = 0;
    let pool = Pool::new(&config, None, 1);
    mark(&pool.backends()[1], false);
    assert!((0..100).all(|low| name_of(&pick_for(&pool, &client(low), &[], 0)) == Some("b")));
    let tried = [pool.backends()[1].clone()];
    assert!(pick_for(&pool, &client(1), &tried, 0).is_none());
}

#[test]
fn a_pinned_range_is_served_by_its_own_and_by_others_only_if_not_strict() {
    for strict in [false, true] {
        let mut config = config(&["a", "b", "c"]);
        config.ranges = vec![range("office", "10.0.0.0/24", pin(&["c"], strict))];
        let pool = Pool::new(&config, None, 1);
        let pick = pick_for(&pool, &client(1), &[], 0).unwrap();
        assert_eq!(
            (pick.backend.name(), pick.range.map(|range| &**range), pick.left.is_some()),
            ("c", Some("office"), false)
        );
        assert!((256..300).any(|low| name_of(&pick_for(&pool, &client(low), &[], 0)) != Some("c")));
        mark(&pool.backends()[2], false);
        let pick = pick_for(&pool, &client(1), &[], 0);
        assert_eq!(pick.is_none(), strict);
        assert!(pick.is_none_or(|pick| pick.left.is_some() && pick.reason == PickReason::Placement));
        mark(&pool.backends()[0], false);
        mark(&pool.backends()[1], false);
        let expected = if strict { None } else { Some("c") };
        assert_eq!(name_of(&pick_for(&pool, &client(1), &[], 0)), expected, "as if all were up");
    }
}

#[test]
fn a_pin_holds_without_a_key_too() {
    let mut config = config::Pool { balance: Balance::RoundRobin, ..config(&["a", "b", "c"]) };
    config.ranges = vec![range("office", "10.0.0.0/24", pin(&["b", "c"], false))];
    let pool = Pool::new(&config, None, 1);
    let names: HashSet<String> =
        (0..10).map(|low| pick_for(&pool, &client(low), &[], 0).unwrap().backend.name().to_owned()).collect();
    assert_eq!(names, HashSet::from(["b".to_owned(), "c".to_owned()]));
}

#[test]
fn a_range_that_is_one_key_goes_to_one_place_and_a_finer_prefix_splits_it() {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let mut config = config::Pool { prefix_v4: 8, ..config(&names) };
    config.ranges =
        vec![range("hall", "10.1.0.0/16", RangeRule::One), range("fine", "10.2.0.0/16", RangeRule::Prefix(32))];
    let pool = Pool::new(&config, None, 1);
    let spread = |from: u32| -> usize {
        let picks =
            (0..100).map(|low| pick_for(&pool, &client(from + low * 7), &[], 0).unwrap().backend.name().to_owned());
        picks.collect::<HashSet<_>>().len()
    };
    assert_eq!((spread(0x1_0000), spread(0x2_0000), spread(0x3_0000)), (1, names.len(), 1));
    assert_eq!(Explanation::new(&pool, &client(0x1_0005), None, &[]).key.as_deref(), Some("range hall"));
    assert_eq!(Explanation::new(&pool, &client(0x2_0005), None, &[]).key.as_deref(), Some("source 10.2.0.5/32"));
    assert_eq!(Explanation::new(&pool, &client(0x3_0005), None, &[]).key.as_deref(), Some("source 10.0.0.0/8"));
}

#[test]
fn without_a_source_there_is_no_key_and_no_range() {
    let mut config = config(&["a", "b", "c"]);
    config.ranges = vec![range("all", "0.0.0.0/0", pin(&["a"], true))];
    let pool = Pool::new(&config, None, 1);
    let picks: Vec<Pick<'_>> = (0..100).map(|_| pick_for(&pool, &Facts::default(), &[], 0).unwrap()).collect();
    assert!(picks.iter().all(|pick| !pick.keyed && pick.range.is_none() && pick.left.is_none()));
    assert_eq!(picks.iter().map(|pick| pick.backend.name()).collect::<HashSet<_>>().len(), 3, "at random");
}

#[test]
fn leases_are_counted_while_held_for_backend_and_pool() {
    let pool = Pool::new(&config(&["a", "b"]), None, 1);
    let leases: Vec<Lease> = (0..5).map(|index| Lease::new(&pool.backends()[usize::from(index > 0)])).collect();
    assert_eq!((pool.backends()[0].leases(), pool.backends()[1].leases(), pool.leases()), (1, 4, 5));
    std::thread::spawn(move || drop(leases)).join().unwrap();
    assert_eq!((pool.backends()[1].leases(), pool.leases()), (0, 0));
}

#[test]
fn a_reload_carries_living_backends_and_restarts_health_at_a_new_address() {
    let old = Pool::new(&config::Pool { check: Some(check()), ..config(&["a", "b", "gone"]) }, None, 2);
    assert!(old.backends().iter().all(|backend| backend.usable(0)), "at start all count as up");
    let lease = Lease::new(&old.backends()[1]);
    old.backends()[1].counters(1).connections.add(7);
    let mut wanted = config::Pool { check: Some(check()), ..config(&["new", "b", "a"]) };
    wanted.backends[1].address = Address::Unix("/run/b".into());
    wanted.backends[2].weight = 9;
    let new = Pool::new(&wanted, Some(&old), 2);
    assert!(Arc::ptr_eq(&new.backends()[2], &old.backends()[0]), "only its weight changed");
    let moved = &new.backends()[1];
    assert_eq!((moved.usable(0), moved.leases(), new.leases()), (true, 0, 1), "a known name keeps its keys");
    assert_eq!(moved.counters(1).connections.value(), 7);
    assert!(!new.backends()[0].usable(0));
    assert_eq!(new.backends()[0].state_word(0), "awaited");
    new.backends()[0].checked(Ok(()), &check(), OnMarkedDown::Keep, 0);
    assert!(new.backends()[0].usable(0), "after its first good check");
    drop(lease);
    assert_eq!(new.leases(), 0);
    let unchecked = Pool::new(&config(&["a", "later"]), Some(&new), 2);
    assert!(unchecked.backends()[1].usable(0), "without checks nothing is waited for");
}

#[test]
fn a_key_that_an_awaited_backend_will_get_has_not_moved() {
    let old = Pool::new(&config::Pool { check: Some(check()), ..config(&["a", "b"]) }, None, 1);
    let new = Pool::new(&config::Pool { check: Some(check()), ..config(&["a", "b", "c", "d"]) }, Some(&old), 1);
    for low in 0..200 {
        let pick = pick_for(&new, &client(low), &[], 0).unwrap();
        assert!(pick.left.is_none() && pick.reason == PickReason::Placement);
        assert_eq!(Some(pick.backend.name()), name_of(&pick_for(&old, &client(low), &[], 0)));
    }
}

#[test]
fn failed_connections_eject_for_a_while_and_never_the_last() {
    let pool = Pool::new(&config(&["a", "b"]), None, 1);
    let [a, b] = [&pool.backends()[0], &pool.backends()[1]];
    assert_eq!([1, 2, 3].map(|_| pool.connect_failed(a, 1_000)), [None, None, Some(Duration::from_secs(10))]);
    assert!(!a.usable(10_999) && a.usable(11_000));
    assert_eq!(a.state_word(1_000), "ejected");
    for _ in 0..9 {
        assert_eq!(pool.connect_failed(b, 1_000), None, "it is the last");
    }
    pool.connect_succeeded(b);
    assert_eq!([1, 2].map(|_| pool.connect_failed(b, 11_000)), [None, None], "counted afresh");
    let stranger = Pool::new(&config(&["a"]), None, 1);
    assert_eq!(pool.connect_failed(&stranger.backends()[0], 0), None);
}

#[test]
fn an_ejected_backend_serves_when_nothing_else_is_left() {
    let pool = Pool::new(&config::Pool { all_down: AllDown::Refuse, ..config(&["a", "b"]) }, None, 1);
    for _ in 0..3 {
        pool.connect_failed(&pool.backends()[0], 0);
    }
    assert!((0..50).all(|low| name_of(&pick_for(&pool, &client(low), &[], 0)) == Some("b")));
    mark(&pool.backends()[1], false);
    let pick = pick_for(&pool, &client(1), &[], 0).unwrap();
    assert_eq!((pick.backend.name(), pick.reason), ("a", PickReason::LastResort));
}

#[test]
fn closing_is_set_while_down_and_asked_for() {
    let pool = Pool::new(&config(&["a"]), None, 1);
    let backend = &pool.backends()[0];
    for (on_marked_down, expected) in [(OnMarkedDown::Keep, false), (OnMarkedDown::Close, true)] {
        backend.checked(Err("refused"), &check(), on_marked_down, 0);
        assert_eq!((backend.closing(), backend.complaint().as_str()), (expected, "refused"));
    }
    mark(backend, true);
    assert!(!backend.closing() && backend.complaint().is_empty());
    mark(backend, false);
    backend.unchecked(0);
    assert!(!backend.closing() && backend.usable(0));
}

#[test]
fn sni_is_needed_only_where_it_decides() {
    let by_sni = config::Pool { key: vec![KeyPart::Sni], ..config(&["a"]) };
    assert!(Pool::new(&by_sni, None, 1).needs_sni());
    assert!(!Pool::new(&config::Pool { balance: Balance::RoundRobin, ..by_sni }, None, 1).needs_sni());
    assert!(!Pool::new(&config(&["a"]), None, 1).needs_sni());
}

#[test]
fn an_explanation_says_why_not_every_other_backend() {
    let mut config =
        config::Pool { prefix_v4: 24, key: vec![KeyPart::Source, KeyPart::Sni], ..config(&["a", "b", "c"]) };
    config.backends[0].weight = 0;
    config.backends.push(config::Backend { backup: true, ..backend("spare") });
    config.ranges = vec![range("office", "10.0.0.0/8", pin(&["b", "spare"], false))];
    let pool = Pool::new(&config, None, 1);
    let explained = Explanation::new(&pool, &client(5), None, &["b".to_owned()]);
    assert_eq!(explained.key.as_deref(), Some("source 10.0.0.0/24, sni absent"));
    assert_eq!(explained.range.as_deref(), Some("office"));
    assert_eq!((explained.choice.as_deref(), explained.next.as_deref()), (Some("spare"), Some("c")));
    let why: BTreeMap<&str, Option<&str>> =
        explained.candidates.iter().map(|row| (row.backend.as_str(), row.why_not.as_deref())).collect();
    let outside = Some("not among the backends of range office");
    let expected = [("a", Some("weight 0")), ("b", Some("down")), ("c", outside), ("spare", Some("backup"))];
    assert_eq!(why, BTreeMap::from(expected));
    let json = serde_json::to_value(&explained).unwrap();
    assert_eq!((&json["choice"], &json["reason"]), (&"spare".into(), &"last_resort".into()));
    assert_eq!(json["key_hash"].as_str().map(str::len), Some(16));
}

#[test]
fn an_explanation_excludes_none_for_its_range_where_no_backend_of_the_range_takes_the_client() {
    let mut config = config::Pool { balance: Balance::RoundRobin, ..config(&["a", "b", "c"]) };
    config.ranges = vec![range("office", "10.0.0.0/8", pin(&["a"], false))];
    config.backends[0].weight = 0;
    let why_not = |config: &config::Pool, backend: &str| {
        let pool = Pool::new(config, None, 1);
        let explained = Explanation::new(&pool, &client(5), None, &[]);
        explained.candidates.into_iter().find(|row| row.backend == backend).unwrap().why_not
    };
    assert_eq!((why_not(&config, "b"), why_not(&config, "c")), (None, None));
    config.ranges = vec![range("office", "10.0.0.0/8", pin(&["a"], true))];
    assert_eq!(why_not(&config, "b").as_deref(), Some("not among the backends of range office"));
}

fn any_pool() -> impl Strategy<Value = config::Pool> {
    let balance = prop::sample::select(vec![
        Balance::Hash,
        Balance::Ring { points: 16 },
        Balance::Maglev { table_size: 251 },
        Balance::RoundRobin,
        Balance::LeastConnections,
        Balance::TwoChoices,
        Balance::Random,
    ]);
    let members = proptest::collection::vec((0_u16..4, proptest::bool::weighted(0.2)), 1..7);
    let pinned = proptest::option::of((proptest::collection::vec(0_usize..7, 1..3), any::<bool>()));
    (balance, members, pinned, any::<bool>(), any::<u64>()).prop_map(|(balance, members, pinned, refuse, hash_seed)| {
        let names: Vec<String> = (0..members.len()).map(|index| format!("backend-{index}")).collect();
        let mut pool = config(&names.iter().map(String::as_str).collect::<Vec<_>>());
        for (backend, (weight, backup)) in pool.backends.iter_mut().zip(members) {
            (backend.weight, backend.backup) = (weight, backup);
        }
        if let Some((indexes, strict)) = pinned {
            let backends: Vec<&str> = indexes.iter().map(|index| names[index % names.len()].as_str()).collect();
            pool.ranges = vec![range("low", "10.0.0.0/25", pin(&backends, strict))];
        }
        let all_down = if refuse { AllDown::Refuse } else { AllDown::Try };
        config::Pool { balance, all_down, hash_seed, ..pool }
    })
}

proptest! {
    #[test]
    fn every_pick_keeps_the_rules(config in any_pool(), down: [bool; 7], tried: [bool; 7], low in 0_u32..256) {
        let pool = Pool::new(&config, None, 1);
        let settled = pick_for(&pool, &client(low), &[], 0);
        pool.backends().iter().zip(down).filter(|(_, down)| *down).for_each(|(backend, _)| mark(backend, false));
        let tried: Vec<_> =
            pool.backends().iter().zip(tried).filter(|(_, tried)| *tried).map(|(backend, _)| backend.clone()).collect();
        let pinned = config.ranges.first().filter(|_| low < 128).map(|range| match &range.rule {
            RangeRule::Pin { backends, strict } => (backends, *strict),
            _ => unreachable!(),
        });
        let inside = |name: &str| pinned.is_none_or(|(names, _)| names.iter().any(|known| known == name));
        let strict = pinned.is_some_and(|(_, strict)| strict);
        let weighty: Vec<_> = pool.backends().iter().zip(&config.backends).filter(|(backend, config)| {
            config.weight > 0 && tried.iter().all(|tried| !Arc::ptr_eq(tried, backend))
        }).collect();
        let usable = |wanted_inside: bool| weighty.iter().any(|(backend, _)| {
            backend.usable(0) && (!wanted_inside || inside(backend.name()))
        });
        let Some(pick) = pick_for(&pool, &client(low), &tried, 0) else {
            prop_assert!(!usable(strict));
            let others = config.all_down == AllDown::Refuse || strict || weighty.is_empty();
            prop_assert!(others, "somebody was left to try");
            return Ok(());
        };
        let chosen = weighty.iter().find(|(backend, _)| Arc::ptr_eq(backend, pick.backend));
        prop_assert!(chosen.is_some(), "of weight 0 or tried");
        let chosen = chosen.unwrap().1;
        prop_assert!(pick.backend.usable(0) || !usable(strict), "a usable one was left");
        prop_assert!(inside(&chosen.name) || (!strict && !usable(true)));
        prop_assert_eq!(pick.keyed, config.balance.keyed());
        prop_assert_eq!(pick.reason == PickReason::LastResort, chosen.backup || !pick.backend.usable(0));
        let left = settled.is_some_and(|settled| !Arc::ptr_eq(settled.backend, pick.backend));
        prop_assert_eq!(pick.left.is_some(), pick.keyed && left);
    }

    #[test]
    fn explain_says_what_pick_does(config in any_pool(), down: [bool; 7], low in 0_u32..256) {
        let pool = Pool::new(&config, None, 1);
        let dead: Vec<String> = pool.backends().iter().zip(down).filter(|(_, down)| *down)
            .map(|(backend, _)| backend.name().to_owned()).collect();
        let explained = Explanation::new(&pool, &client(low), None, &dead);
        pool.backends().iter().zip(down).filter(|(_, down)| *down).for_each(|(backend, _)| mark(backend, false));
        let pick = pick_for(&pool, &client(low), &[], 0);
        prop_assert_eq!(explained.choice.as_deref(), name_of(&pick).filter(|_| !explained.any));
        prop_assert!(!explained.any || (explained.next.is_none() && pick.as_ref().is_some_and(|pick| !pick.keyed)));
        prop_assert_eq!(explained.reason.as_deref(), pick.as_ref().map(|pick| pick.reason.word()));
        if let Some(pick) = pick.filter(|pick| pick.keyed) {
            mark(pick.backend, false);
            let next = pick_for(&pool, &client(low), std::slice::from_ref(pick.backend), 0);
            prop_assert_eq!(explained.next.as_deref(), name_of(&next));
        }
    }
}

#[test]
fn a_pool_is_busy_from_its_first_work_or_trouble_on_also_after_a_reload() {
    let idle = || Pool::new(&config(&["a", "b"]), None, 2);
    assert!(!idle().is_busy(1_000));
    let [connected, failed, held, down, drained] = std::array::from_fn(|_| idle());
    connected.backends()[1].counters(1).connections.add(1);
    failed.backends()[0].counters(0).connect_failures.add(1);
    let lease = Lease::new(&held.backends()[0]);
    held.backends()[0].counters(0).connections.add(1);
    mark(&down.backends()[0], false);
    drained.order("a", AdminState::Drain, 500);
    for (what, pool) in
        [("connected", &connected), ("failed", &failed), ("held", &held), ("down", &down), ("drained", &drained)]
    {
        assert!(pool.is_busy(1_000), "{what}");
    }
    drop(lease);
    mark(&down.backends()[0], true);
    drained.order("a", AdminState::Ready, 1_500);
    for pool in [&down, &drained] {
        assert!(pool.is_busy(2_000), "what was seen stays");
        assert!(Pool::new(&config(&["c"]), Some(pool), 2).is_busy(2_000));
    }
    let unseen = idle();
    mark(&unseen.backends()[0], false);
    mark(&unseen.backends()[0], true);
    assert!(unseen.is_busy(2_000), "a backend that was down and is up again");
}
