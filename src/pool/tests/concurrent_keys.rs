//! Rules that meet: ranges, cookies, drain, load and the policies of stick table, two or three at a time.

use super::stick_table::{CLIENTS, next, remembering, rules, visit, visit_all};
use super::{check, client, config, mark, pick_for, pin, range};
use crate::config::{Balance, OnAdd, OnDown, OnFull, OnMarkedDown, OnReturn};
use crate::outcome::{BreakCause, Ended, PickReason};
use crate::pool::*;

const MINUTE: u64 = 60_000;
const EVERYBODY: &str = "10.0.0.0/8";

/// Picks for a client with this cookie.
fn with_cookie(pool: &Pool, settled: usize, now_ms: u64) -> Option<Pick<'_>> {
    pool.pick(&PickScene { cookie: Some(settled), ..PickScene::new(&client(1), &[], now_ms) })
}

fn index_of(pool: &Pool, pick: &Pick<'_>) -> usize {
    pool.index_of(pick.backend.name()).unwrap()
}

/// Connections that others have.
fn load(backend: &Arc<Backend>, count: usize) -> Vec<Lease> {
    (0..count).map(|_| Lease::new(backend)).collect()
}

#[test]
fn a_client_is_not_kept_out_by_a_connection_of_its_own() {
    for on_full in [OnFull::Overflow, OnFull::Reject] {
        let mut file = config::Pool { on_full, ..remembering(&["a", "b"], rules()) };
        file.backends.iter_mut().for_each(|backend| backend.max_connections = Some(1));
        let pool = next(&file, None);
        let home = visit(&pool, 1, 0).backend;
        let _kept = Lease::new(home);
        let holds = |backend: &Arc<Backend>| Arc::ptr_eq(backend, home);
        for cookie in [None, pool.index_of(home.name())] {
            let pick =
                pool.pick(&PickScene { cookie, holds: Some(&holds), ..PickScene::new(&client(1), &[], 0) }).unwrap();
            assert_eq!((pick.backend.name(), pick.cause()), (home.name(), None), "{on_full:?} {cookie:?}");
        }
        let other = (0..CLIENTS)
            .find(|low| pick_for(&next(&file, None), &client(*low), &[], 0).unwrap().backend.name() == home.name());
        let other = pick_for(&pool, &client(other.unwrap()), &[], 0).map(|pick| pick.backend.name());
        assert_ne!(other, Some(home.name()), "whose it is not is kept out");
    }
}

#[test]
fn a_client_whose_cookie_names_a_full_backend_is_refused_where_the_file_says_so() {
    for (on_full, refused) in [(OnFull::Overflow, false), (OnFull::Reject, true)] {
        let mut file = config::Pool { on_full, ..config(&["a", "b", "c"]) };
        file.backends[0].max_connections = Some(1);
        let pool = Pool::new(&file, None, 1);
        let _full = load(&pool.backends()[0], 1);
        let pick = with_cookie(&pool, 0, 0);
        assert_eq!(pick.is_none(), refused);
        assert!(pick.is_none_or(|pick| pick.backend.name() != "a" && pick.cause() == Some(BreakCause::Full)));
        assert!(!refused || pool.why_nobody(0) == Ended::BackendFull);
    }
}

#[test]
fn who_had_to_leave_a_pinned_set_stays_where_he_found_room_until_that_set_serves_again() {
    for balance in [Balance::Hash, Balance::RoundRobin] {
        let stick_table = (balance == Balance::Hash).then(rules);
        let ranges = vec![range("office", EVERYBODY, pin(&["a"], false))];
        let pool = next(&config::Pool { ranges, balance, stick_table, ..config(&["a", "b", "c", "d"]) }, None);
        mark(&pool.backends()[0], false);
        let first = pick_for(&pool, &client(1), &[], 0).unwrap();
        let settled = index_of(&pool, &first);
        first.remember.inspect(|remember| _ = pool.table().unwrap().settle(*remember, first.backend, 0));
        for _ in 0..5 {
            let pick = with_cookie(&pool, settled, MINUTE).unwrap();
            assert_eq!((index_of(&pool, &pick), pick.reason, pick.cause()), (settled, PickReason::Cookie, None));
            if stick_table.is_some() {
                let pick = visit(&pool, 1, MINUTE);
                assert_eq!(
                    (index_of(&pool, &pick), pick.reason, pick.cause()),
                    (settled, PickReason::StickTable, None)
                );
            }
        }
        // Another one that he may not have changes nothing.
        let other = (1..4).find(|other| *other != settled).unwrap();
        mark(&pool.backends()[other], false);
        mark(&pool.backends()[other], true);
        assert_eq!(index_of(&pool, &with_cookie(&pool, settled, MINUTE).unwrap()), settled);
        mark(&pool.backends()[0], true);
        let pick = with_cookie(&pool, settled, 2 * MINUTE).unwrap();
        assert_eq!((pick.backend.name(), pick.cause()), ("a", Some(BreakCause::Range)));
    }
}

#[test]
fn growth_moves_nobody_who_may_stay_however_often_he_comes() {
    for on_return in [OnReturn::Stay, OnReturn::Return] {
        let rules = config::StickTableRules { on_return, ..rules() };
        let old = next(&remembering(&["a", "b", "c"], rules), None);
        let before = visit_all(&old, 0);
        let grown = next(&remembering(&["a", "b", "c", "d"], rules), Some(&old));
        for visits in 1..4 {
            assert_eq!(visit_all(&grown, visits * MINUTE), before, "visit {visits}, {on_return:?}");
        }
    }
}

#[test]
fn weight_0_serves_those_whom_it_knows_also_where_keys_follow_the_table() {
    let follow = config::StickTableRules { on_add: OnAdd::Move, ..rules() };
    let mut file = remembering(&["a", "b", "c"], follow);
    let old = next(&file, None);
    let before = visit_all(&old, 0);
    file.backends[0].weight = 0;
    let drained = next(&file, Some(&old));
    for (low, home) in before.iter().enumerate().filter(|(_, home)| *home == "a") {
        let pick = visit(&drained, low as u32, MINUTE);
        assert_eq!((pick.backend.name(), pick.cause()), (home.as_str(), None));
    }
}

#[test]
fn whose_backend_refused_him_returns_to_it_where_the_file_says_so() {
    for (on_return, returns) in [(OnReturn::Stay, false), (OnReturn::Return, true)] {
        let pool = next(&remembering(&["a", "b", "c"], config::StickTableRules { on_return, ..rules() }), None);
        let home = visit(&pool, 1, 0).backend;
        // The backend refuses, and no check has noticed.
        let tried = [Arc::clone(home)];
        let elsewhere = pick_for(&pool, &client(1), &tried, MINUTE).unwrap();
        pool.table().unwrap().settle(elsewhere.remember.unwrap(), elsewhere.backend, MINUTE);
        let again = visit(&pool, 1, 2 * MINUTE);
        assert_eq!(Arc::ptr_eq(again.backend, home), returns);
        assert_eq!(again.cause(), returns.then_some(BreakCause::Returned));
    }
}

#[test]
fn who_returns_waits_for_the_ramp_where_he_is() {
    let over = Duration::from_secs(1_000);
    let file = remembering(&["a", "b", "c", "d"], config::StickTableRules { on_return: OnReturn::Return, ..rules() });
    let pool = next(&config::Pool { slow_start: Some(over), ..file }, None);
    let before = visit_all(&pool, 0);
    let at_ms = |good, now_ms| {
        for _ in 0..2 {
            pool.backends()[0].checked(
                if good { Ok(()) } else { Err("refused") },
                &check(),
                OnMarkedDown::Keep,
                now_ms,
            );
        }
    };
    at_ms(false, 1);
    let away = visit_all(&pool, 1_000);
    at_ms(true, 2_000);
    let mut back = 0;
    for step in 1..=20 {
        let now = visit_all(&pool, 2_000 + step * 50_000);
        for ((now, away), home) in now.iter().zip(&away).zip(&before) {
            assert!(now == home || now == away, "{home} → {away} → {now}");
        }
        let count = now.iter().zip(&before).filter(|(now, home)| *home == "a" && now == home).count();
        assert!(count >= back, "nobody leaves again");
        back = count;
    }
    assert_eq!(visit_all(&pool, 2_000 + 1_000_001), before);
}

#[test]
fn load_and_slow_start_leave_neither_the_pinned_set_nor_the_primaries() {
    let bounded = config::Pool { load_bound: Some(125), ..remembering(&["a", "b"], rules()) };
    let pinned = config::Pool { ranges: vec![range("office", EVERYBODY, pin(&["a"], false))], ..bounded.clone() };
    let pool = next(&pinned, None);
    let _held = load(&pool.backends()[0], 50);
    for low in 0..20 {
        let pick = visit(&pool, low, 0);
        assert_eq!((pick.backend.name(), pick.cause()), ("a", None));
    }
    let mut spare = bounded;
    spare.backends[1].backup = true;
    let pool = next(&config::Pool { slow_start: Some(Duration::from_secs(100)), ..spare }, None);
    mark(&pool.backends()[0], false);
    for _ in 0..2 {
        pool.backends()[0].checked(Ok(()), &check(), OnMarkedDown::Keep, 1_000);
    }
    let _held = load(&pool.backends()[0], 50);
    for low in 0..20 {
        let pick = visit(&pool, low, 2_000);
        assert_eq!((pick.backend.name(), pick.reason), ("a", PickReason::Placement));
    }
}

#[test]
fn nobody_waits_for_a_backend_that_a_drain_has_taken_from_him() {
    for when_down in [OnDown::Wait(Duration::from_secs(3)), OnDown::Reject] {
        let pool = next(&config::Pool { when_down, ..remembering(&["a", "b"], rules()) }, None);
        let home = visit(&pool, 1, 0).backend;
        assert!(pool.order(home.name(), AdminState::Drain, 0));
        mark(home, false);
        assert!(pool.waits(None, &client(1), MINUTE).is_some(), "until the deadline it is his");
        let over = 6 * MINUTE;
        assert_eq!(pool.waits(None, &client(1), over), None);
        let pick = visit(&pool, 1, over);
        assert!(!Arc::ptr_eq(pick.backend, home));
        assert_eq!(pick.cause(), Some(BreakCause::Drain));
    }
}

#[test]
fn beside_a_backend_that_is_drained_the_last_one_is_not_ejected() {
    let pool = next(&config(&["a", "b"]), None);
    assert!(pool.order("a", AdminState::Drain, 0));
    let last = &pool.backends()[1];
    assert!((0..10).all(|_| pool.connect_failed(last, 0).is_none()));
    assert!(pool.order("a", AdminState::Ready, 0));
    assert!(pool.connect_failed(last, 0).is_some());
}

#[test]
fn a_backend_that_is_drained_carries_none_of_the_bounded_load() {
    let file = config::Pool { load_bound: Some(125), ..remembering(&["a", "b", "c"], rules()) };
    let pool = next(&file, None);
    assert!(pool.order("a", AdminState::Drain, 0));
    let held: Vec<_> = (0..100).map(|low| Lease::new(visit(&pool, low, 0).backend)).collect();
    let most = |index: usize| pool.backends()[index].leases();
    assert!(most(0) == 0 && most(1) <= 63 && most(2) <= 63, "{} {}", most(1), most(2));
    drop(held);
}

#[test]
fn a_cookie_that_cannot_be_honoured_says_why_and_only_where_somebody_else_serves() {
    let ranges = vec![range("office", EVERYBODY, pin(&["b"], false))];
    let pinned = Pool::new(&config::Pool { ranges, ..config(&["a", "b"]) }, None, 1);
    let pick = with_cookie(&pinned, 0, 0).unwrap();
    assert_eq!((pick.backend.name(), pick.cause()), ("b", Some(BreakCause::Range)));

    let alone = Pool::new(&config(&["a"]), None, 1);
    mark(&alone.backends()[0], false);
    let pick = with_cookie(&alone, 0, 0).unwrap();
    assert_eq!(
        (pick.backend.name(), pick.reason, pick.cause()),
        ("a", PickReason::LastResort, None),
        "tried all the same"
    );

    let pool = next(&remembering(&["a", "b", "c"], rules()), None);
    let home = visit(&pool, 1, 0).backend;
    let named = pool.backends().iter().position(|other| !Arc::ptr_eq(other, home)).unwrap();
    mark(home, false);
    assert!(pool.order(pool.backends()[named].name(), AdminState::Close, 0));
    assert_eq!(
        with_cookie(&pool, named, 1).unwrap().cause(),
        Some(BreakCause::Drain),
        "what the cookie says comes first"
    );
}
