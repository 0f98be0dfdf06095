//! New keys that load places, and the stick table alone brings back.

use std::collections::BTreeMap;

use super::stick_table::{CLIENTS, moved, next, remembering, rules, visit, visit_all};
use super::{check, client, config, mark, name_of, pick_for, pin, range};
use crate::attempt::settle;
use crate::config::{Balance, OnAdd, OnDown, OnFull, OnMarkedDown, OnReturn};
use crate::outcome::{BreakCause, PickReason};
use crate::pool::*;
use crate::sticky::Facts;
use crate::sticky::table::EntryKind;

const MINUTE: u64 = 60_000;
const METHODS: [Balance; 3] = [Balance::LeastConnections, Balance::TwoChoices, Balance::RoundRobin];

fn by_load(balance: Balance, names: &[&str]) -> config::Pool {
    config::Pool { balance, ..remembering(names, rules()) }
}

/// Visits of these clients, each of which holds its connection; how many each backend has.
fn connect_all(pool: &Pool, clients: std::ops::Range<u32>, held: &mut Vec<Lease>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for low in clients {
        let pick = visit(pool, low, 0);
        *counts.entry(pick.backend.name().to_owned()).or_default() += 1;
        held.push(Lease::new(pick.backend));
    }
    counts
}

fn table(pool: &Pool) -> &PoolTable {
    pool.table().unwrap()
}

#[test]
fn new_keys_spread_by_load_and_stay_whatever_the_load_is_then() {
    for balance in METHODS {
        let pool = next(&by_load(balance, &["a", "b", "c", "d"]), None);
        let mut held = Vec::new();
        let counts = connect_all(&pool, 0..CLIENTS, &mut held);
        let most = if balance == Balance::TwoChoices { 110 } else { 100 };
        assert!(counts.len() == 4 && counts.values().all(|count| *count <= most), "{balance:?}: {counts:?}");
        let before: Vec<_> = held.iter().map(|lease| lease.name().to_owned()).collect();
        held.retain(|lease| lease.name() == "a");
        for (low, home) in before.iter().enumerate() {
            let pick = visit(&pool, low as u32, MINUTE);
            let said = (pick.backend.name(), pick.reason, pick.keyed, pick.cause());
            assert_eq!(said, (home.as_str(), PickReason::StickTable, true, None), "{balance:?}");
        }
    }
}

#[test]
fn new_keys_go_where_the_fewest_are_known_if_load_does_not_tell_backends_apart() {
    let pool = next(&by_load(Balance::LeastConnections, &["a", "b", "c"]), None);
    let mut counts = BTreeMap::new();
    let mut visit_new = |low| *counts.entry(visit(&pool, low, 0).backend.name().to_owned()).or_insert(0) += 1;
    // A backend that is busy gets none, and makes up for it once it is at rest.
    let busy = Lease::new(&pool.backends()[0]);
    (0..60).for_each(&mut visit_new);
    drop(busy);
    (60..90).for_each(&mut visit_new);
    assert_eq!(counts, BTreeMap::from(["a", "b", "c"].map(|name| (name.to_owned(), 30))));

    for balance in [Balance::LeastConnections, Balance::TwoChoices] {
        // The range keeps picks from what is held ready.
        let file = config::Pool {
            ranges: vec![range("here", "10.0.0.0/8", pin(&["a", "b"], true))],
            ..by_load(balance, &["a", "b", "c"])
        };
        let pool = next(&file, None);
        (0..200).for_each(|low| {
            visit(&pool, low, 0);
        });
        let known: BTreeMap<_, _> = table(&pool).by_backend().collect();
        assert!(known["a"] + known["b"] == 200 && known["a"].abs_diff(known["b"]) <= 2, "{balance:?}: {known:?}");
        let next = pool.explain_now(&Facts { source: Some([10, 0, 9, 9].into()), ..Facts::default() }, None, &[], 0);
        assert!(next.candidates[0].score.contains(",known:"), "{:?}", next.candidates);
    }
}

#[test]
fn new_keys_are_even_after_a_backend_has_lost_its_own() {
    for balance in [Balance::LeastConnections, Balance::TwoChoices] {
        let pool = next(&by_load(balance, &["a", "b", "c", "d"]), None);
        visit_all(&pool, 0);
        mark(&pool.backends()[3], false);
        visit_all(&pool, MINUTE);
        mark(&pool.backends()[3], true);
        (CLIENTS..4 * CLIENTS).for_each(|low| {
            visit(&pool, low, 2 * MINUTE);
        });
        let known: Vec<_> = table(&pool).by_backend().collect();
        let mean = u64::from(CLIENTS);
        assert!(known.iter().all(|(_, count)| count.abs_diff(mean) <= mean / 20), "{balance:?}: {known:?}");
    }
}

#[test]
fn known_keys_take_no_turn_so_new_ones_between_them_alternate() {
    let pool = next(&by_load(Balance::RoundRobin, &["a", "b"]), None);
    visit(&pool, 0, 0);
    let mut counts = BTreeMap::new();
    for low in 1..=100 {
        visit(&pool, 0, 0);
        *counts.entry(visit(&pool, low, 0).backend.name().to_owned()).or_insert(0) += 1;
    }
    assert_eq!(counts, BTreeMap::from([("a".to_owned(), 50), ("b".to_owned(), 50)]));
}

#[test]
fn weights_ranges_and_backups_hold_as_without_a_key() {
    for balance in METHODS {
        let mut file = by_load(balance, &["a", "b", "c", "spare"]);
        file.backends[0].weight = 2;
        file.backends[3].backup = true;
        file.ranges = vec![range("office", "10.0.1.0/24", pin(&["c"], false))];
        let pool = next(&file, None);
        let mut held = Vec::new();
        let office = connect_all(&pool, 256..306, &mut held);
        assert_eq!(office, BTreeMap::from([("c".to_owned(), 50)]), "{balance:?}");
        held.clear();
        let others = connect_all(&pool, 0..200, &mut held);
        assert!(others["a"].abs_diff(100) <= 8 && others["b"].abs_diff(50) <= 8, "{balance:?}: {others:?}");
        (0..3).for_each(|index| mark(&pool.backends()[index], false));
        let pick = visit(&pool, 1, MINUTE);
        assert_eq!((pick.backend.name(), pick.reason), ("spare", PickReason::LastResort));
    }
}

#[test]
fn only_clients_of_a_dead_backend_move_and_those_stay_where_they_are_then() {
    for balance in METHODS {
        let pool = next(&by_load(balance, &["a", "b", "c"]), None);
        let before = visit_all(&pool, 0);
        mark(&pool.backends()[0], false);
        let mut after = Vec::new();
        for (low, home) in before.iter().enumerate() {
            let pick = visit(&pool, low as u32, MINUTE);
            assert_eq!(pick.cause(), (home == "a").then_some(BreakCause::Down), "{balance:?}");
            assert_eq!(pick.backend.name() == home, home != "a");
            after.push(pick.backend.name().to_owned());
        }
        mark(&pool.backends()[0], true);
        assert_eq!(moved(&after, &visit_all(&pool, 2 * MINUTE)), 0, "{balance:?}");
        let grown = next(&by_load(balance, &["a", "b", "c", "d", "e"]), Some(&pool));
        for visits in 3..5 {
            assert_eq!(moved(&after, &visit_all(&grown, visits * MINUTE)), 0, "{balance:?}");
        }
    }
}

#[test]
fn who_never_came_while_a_backend_was_down_is_where_it_was() {
    let pool = next(&by_load(Balance::LeastConnections, &["a", "b", "c"]), None);
    let before = visit_all(&pool, 0);
    mark(&pool.backends()[0], false);
    mark(&pool.backends()[0], true);
    assert_eq!(moved(&before, &visit_all(&pool, MINUTE)), 0);
}

#[test]
fn keys_stay_when_the_method_changes_to_load_and_back() {
    let hash = next(&remembering(&["a", "b", "c"], rules()), None);
    let before = visit_all(&hash, 0);
    let load = next(&by_load(Balance::LeastConnections, &["a", "b", "c"]), Some(&hash));
    for visits in 1..3 {
        assert_eq!(moved(&before, &visit_all(&load, visits * MINUTE)), 0);
    }
    let back = next(&remembering(&["a", "b", "c"], rules()), Some(&load));
    for visits in 3..5 {
        assert_eq!(moved(&before, &visit_all(&back, visits * MINUTE)), 0);
    }
}

#[test]
fn entries_that_nothing_else_finds_again_are_worth_keeping() {
    let pool = next(&by_load(Balance::LeastConnections, &["a", "b"]), None);
    visit_all(&pool, 0);
    let stats = table(&pool).stats(0);
    assert_eq!((stats.known, stats.placed, stats.displaced), (CLIENTS.into(), 0, CLIENTS.into()));
    let known = pool.known_by_address(client(1).source.unwrap(), 0).unwrap();
    assert_eq!(known.kind, "remembered");
}

#[test]
fn connections_of_a_new_key_that_come_together_go_to_one_backend() {
    for balance in METHODS {
        let pool = next(&by_load(balance, &["a", "b", "c"]), None);
        let first = pick_for(&pool, &client(0), &[], 0).unwrap();
        assert_eq!((first.reason, first.keyed, first.cause()), (PickReason::Placement, false, None));
        let _busy: Vec<_> = (0..20).map(|_| Lease::new(first.backend)).collect();
        let second = pick_for(&pool, &client(0), &[], 0).unwrap();
        let said = (second.backend.name(), second.reason, second.cause());
        assert_eq!(said, (first.backend.name(), PickReason::StickTable, None), "{balance:?}");
        // No connection was established: the key is as new as before.
        table(&pool).release(first.remember.unwrap(), first.reason, first.backend, 0);
        let third = pick_for(&pool, &client(0), std::slice::from_ref(first.backend), 0).unwrap();
        assert_eq!((third.reason, third.cause()), (PickReason::Placement, None));
        assert_ne!(third.backend.name(), first.backend.name());
    }
}

#[test]
fn connections_of_a_key_that_lost_its_backend_go_to_one_other_and_are_one_break() {
    for balance in METHODS {
        for gone in [false, true] {
            let names = ["a", "b", "c", "d"];
            let old = next(&by_load(balance, &names), None);
            let low = (0..).find(|low| visit(&old, *low, 0).backend.name() == "a").unwrap();
            let pool = if gone { next(&by_load(balance, &names[1..]), Some(&old)) } else { old };
            if !gone {
                mark(&pool.backends()[0], false);
            }
            let picks: Vec<_> = (0..4)
                .map(|_| {
                    let pick = pick_for(&pool, &client(low), &[], MINUTE).unwrap();
                    (pick, Lease::new(pick.backend))
                })
                .collect();
            assert!(picks.iter().all(|(pick, _)| pick.index == picks[0].0.index), "{balance:?}, gone: {gone}");
            let counted = picks.iter().map(|(pick, _)| {
                settle(&pool, pick.backend, pool.client_move(pick.left, pick.index).as_ref(), pick.remember, MINUTE)
            });
            assert_eq!(counted.filter(|counted| *counted).count(), 1, "{balance:?}, gone: {gone}");
            let cause = if gone { BreakCause::Removed } else { BreakCause::Down };
            assert_eq!(pool.breaks(cause), 1);
        }
    }
}

#[test]
fn a_claim_that_leads_to_no_connection_is_taken_back() {
    let pool = next(&by_load(Balance::LeastConnections, &["a", "b", "c"]), None);
    let low = (0..).find(|low| visit(&pool, *low, 0).backend.name() == "a").unwrap();
    mark(&pool.backends()[0], false);
    let claimed = pick_for(&pool, &client(low), &[], MINUTE).unwrap();
    let remember = claimed.remember.unwrap();
    assert_eq!(claimed.cause(), Some(BreakCause::Down));
    table(&pool).release(remember, claimed.reason, claimed.backend, MINUTE);
    let tried = [Arc::clone(claimed.backend)];
    let other = pick_for(&pool, &client(low), &tried, MINUTE).unwrap();
    let moved = pool.client_move(other.left, other.index).unwrap();
    assert_eq!((moved.from.as_deref(), moved.cause), (Some("a"), BreakCause::Down), "as if it had never been claimed");
    table(&pool).release(other.remember.unwrap(), other.reason, other.backend, MINUTE);
    mark(&pool.backends()[0], true);
    let back = visit(&pool, low, 2 * MINUTE);
    assert_eq!((back.backend.name(), back.reason, back.cause()), ("a", PickReason::StickTable, None));
}

#[test]
fn where_all_are_down_a_known_key_tries_its_own_backend_first() {
    let pool = next(&by_load(Balance::RoundRobin, &["a", "b", "c"]), None);
    let before = visit_all(&pool, 0);
    pool.backends().iter().for_each(|backend| mark(backend, false));
    for (low, home) in before.iter().enumerate() {
        let pick = visit(&pool, low as u32, MINUTE);
        assert_eq!((pick.backend.name(), pick.reason, pick.cause()), (home.as_str(), PickReason::LastResort, None));
    }
}

#[test]
fn a_full_backend_that_refuses_settles_no_key() {
    let mut file = config::Pool { on_full: OnFull::Reject, ..by_load(Balance::RoundRobin, &["a", "b"]) };
    file.backends[0].max_connections = Some(1);
    let pool = next(&file, None);
    let _full = Lease::new(&pool.backends()[0]);
    let picks: Vec<_> = (0..2).map(|_| name_of(&pick_for(&pool, &client(1), &[], 0))).collect();
    assert!(picks.contains(&Some("b")) && picks.contains(&None), "{picks:?}");
    assert_eq!(name_of(&pick_for(&pool, &client(1), &[], 0)), Some("b"), "and stays there");
}

#[test]
fn drains_and_waiting_are_those_of_known_keys() {
    let file = config::Pool {
        when_down: OnDown::Wait(Duration::from_secs(3)),
        ..by_load(Balance::LeastConnections, &["a", "b", "c"])
    };
    let pool = next(&file, None);
    let before = visit_all(&pool, 0);
    assert!(pool.order("a", AdminState::Drain, 0));
    assert_eq!(moved(&before, &visit_all(&pool, MINUTE)), 0);
    assert!((CLIENTS..2 * CLIENTS).all(|low| visit(&pool, low, MINUTE).backend.name() != "a"));
    let at_b = before.iter().position(|home| home == "b").unwrap() as u32;
    mark(&pool.backends()[1], false);
    assert_eq!(pool.waits(None, &client(at_b), MINUTE), Some(Duration::from_secs(3)));
    assert_eq!(pool.waits(None, &client(5_000), MINUTE), None, "a new key has no backend to wait for");
    for (low, home) in before.iter().enumerate().filter(|(_, home)| *home == "a") {
        let pick = visit(&pool, low as u32, 6 * MINUTE);
        assert_eq!((pick.cause(), pick.backend.name() == home), (Some(BreakCause::Drain), false));
    }
}

#[test]
fn a_backend_that_is_back_gets_its_new_keys_little_by_little() {
    let slow =
        config::Pool { slow_start: Some(Duration::from_secs(100)), ..by_load(Balance::LeastConnections, &["a", "b"]) };
    let pool = next(&slow, None);
    let report = |good: bool, now_ms: u64| {
        for _ in 0..4 {
            let result = if good { Ok(()) } else { Err("refused") };
            pool.backends()[0].checked(result, &check(), OnMarkedDown::Keep, now_ms);
        }
    };
    report(false, 1_000);
    report(true, 10_000);
    let share = |from: u32, now_ms: u64| {
        (from..from + CLIENTS).filter(|low| visit(&pool, *low, now_ms).backend.name() == "a").count()
    };
    let full = CLIENTS as usize / 2;
    let shares = [share(0, 20_000), share(1_000, 60_000), share(2_000, 120_000)];
    assert!(shares[0] < full / 3 && shares.is_sorted(), "{shares:?}");
    // At the end it has made up for what it missed.
    let known: BTreeMap<_, _> = table(&pool).by_backend().collect();
    assert!(known["a"].abs_diff(known["b"]) < 5, "{known:?}");
}

#[test]
fn a_client_without_a_key_is_placed_and_not_remembered() {
    let pool = next(&by_load(Balance::LeastConnections, &["a", "b"]), None);
    let pick = pick_for(&pool, &Facts::default(), &[], 0).unwrap();
    assert_eq!((pick.keyed, pick.remember, table(&pool).stats(0).known), (false, None, 0));
    // Nor is any where the system had no memory for the table.
    let bare = Pool::new(&by_load(Balance::RoundRobin, &["a", "b"]), None, 1);
    let names: Vec<_> = (0..4).map(|_| name_of(&pick_for(&bare, &client(1), &[], 0)).unwrap()).collect();
    assert_eq!((names[0], names[1]), (names[2], names[3]));
    assert_ne!(names[0], names[1]);
}

#[test]
fn no_policy_brings_a_key_home_that_has_none() {
    let follow = config::StickTableRules { on_add: OnAdd::Move, on_return: OnReturn::Return, ..rules() };
    let pool = next(&config::Pool { stick_table: Some(follow), ..config(&["a", "b"]) }, None);
    let load = config::Pool { balance: Balance::TwoChoices, ..pool.config().clone() };
    let load = next(&load, Some(&pool));
    for kind in [EntryKind::Outgrown, EntryKind::Displaced] {
        assert!(pool.follows(0, kind).is_some() && load.follows(0, kind).is_none(), "{kind:?}");
    }
}
