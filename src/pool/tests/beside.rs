//! Streams of one connection: a stream without a cookie goes where an earlier stream of its connection was placed.

use super::stick_table::{next, remembering, rules, visit};
use super::{client, config, mark, pick_for, pin, range};
use crate::config::{Balance, OnAdd, OnFull, OnReturn};
use crate::outcome::{BreakCause, PickReason};
use crate::pool::*;
use crate::sticky::Facts;
use crate::sticky::table::EntryKind;

const CLIENTS: u32 = 50;

/// Pools that place clients by a key, with and without a stick table, and in turn.
fn pools() -> [config::Pool; 3] {
    let names = ["a", "b", "c"];
    let in_turn = config::Pool { balance: Balance::RoundRobin, ..config(&names) };
    [config(&names), remembering(&names, rules()), in_turn]
}

/// Picks for a stream of this client behind one that was placed at `beside`.
fn pick_beside<'p>(pool: &'p Pool, low: u32, beside: usize, tried: &[Arc<Backend>]) -> Option<Pick<'p>> {
    pool.pick(&PickScene { beside: Some(beside), ..PickScene::new(&client(low), tried, 0) })
}

/// Fails if one of many clients follows a stream at the backend "a".
fn assert_not_followed(pool: &Pool, tried: &[Arc<Backend>], what: &str) {
    for low in 0..CLIENTS {
        let pick = pick_beside(pool, low, 0, tried).unwrap();
        assert!(pick.index != 0 && pick.reason != PickReason::Connection, "{what}, client {low}");
    }
}

#[test]
fn a_stream_without_a_cookie_follows_the_one_before_it() {
    for file in pools() {
        let pool = next(&file, None);
        for (low, beside) in (0..CLIENTS).flat_map(|low| [(low, 0), (low, 1), (low, 2)]) {
            let pick = pick_beside(&pool, low, beside, &[]).unwrap();
            assert_eq!((pick.index, pick.reason, pick.keyed), (beside, PickReason::Connection, true));
            assert_eq!((pick.cause(), pick.remember.is_some()), (None, file.stick_table.is_some()));
        }
        assert_ne!(pick_beside(&pool, 1, 99, &[]).unwrap().reason, PickReason::Connection, "there is no such backend");
    }
}

#[test]
fn a_backend_that_takes_no_known_client_is_not_followed() {
    for file in pools() {
        let pool = next(&file, None);
        assert_not_followed(&pool, &[Arc::clone(&pool.backends()[0])], "tried");
        mark(&pool.backends()[0], false);
        assert_not_followed(&pool, &[], "down");
        mark(&pool.backends()[0], true);
        assert!(pool.order("a", AdminState::Close, 0));
        assert_not_followed(&pool, &[], "drained");
        let mut weightless = file.clone();
        weightless.backends[0].weight = 0;
        assert_not_followed(&next(&weightless, None), &[], "weight 0");
        let ranges = vec![range("all", "10.0.0.0/8", pin(&["b", "c"], true))];
        assert_not_followed(&next(&config::Pool { ranges, ..file }, None), &[], "outside of the range");
    }
}

#[test]
fn a_full_backend_is_followed_only_where_the_client_holds_a_connection() {
    for (file, on_full) in pools().into_iter().flat_map(|file| {
        let both = [OnFull::Overflow, OnFull::Reject];
        both.map(|on_full| (file.clone(), on_full))
    }) {
        let mut file = config::Pool { on_full, ..file };
        file.backends[0].max_connections = Some(1);
        let pool = next(&file, None);
        let _full = Lease::new(&pool.backends()[0]);
        for low in 0..CLIENTS {
            let pick = pick_beside(&pool, low, 0, &[]);
            assert!(pick.is_none_or(|pick| pick.index != 0 && pick.reason != PickReason::Connection));
        }
        let holds = |backend: &Arc<Backend>| Arc::ptr_eq(backend, &pool.backends()[0]);
        let facts = client(1);
        let scene = PickScene { beside: Some(0), holds: Some(&holds), ..PickScene::new(&facts, &[], 0) };
        let pick = pool.pick(&scene).unwrap();
        assert_eq!((pick.index, pick.reason), (0, PickReason::Connection), "{on_full:?}");
    }
}

#[test]
fn a_cookie_and_an_entry_go_first() {
    let pool = next(&remembering(&["a", "b", "c"], rules()), None);
    let known = visit(&pool, 1, 0).index;
    let (beside, named) = ((known + 1) % 3, (known + 2) % 3);
    let pick = pick_beside(&pool, 1, beside, &[]).unwrap();
    assert_eq!((pick.index, pick.reason), (known, PickReason::StickTable));
    let facts = client(1);
    let scene = PickScene { beside: Some(beside), ..PickScene::new(&facts, &[], 0) };
    let pick = pool.pick(&PickScene { cookie: Some(named), ..scene }).unwrap();
    assert_eq!((pick.index, pick.reason), (named, PickReason::Cookie));
    // Where neither can be kept, the stream follows, and the client has left what it had.
    mark(&pool.backends()[known], false);
    for cookie in [None, Some(known)] {
        let pick = pool.pick(&PickScene { cookie, ..scene }).unwrap();
        let expected = (beside, PickReason::Connection, Some(BreakCause::Down));
        assert_eq!((pick.index, pick.reason, pick.cause()), expected, "{cookie:?}");
    }
}

#[test]
fn a_key_that_followed_a_stream_stays_there_whatever_the_policies_are() {
    let rules = config::StickTableRules { on_add: OnAdd::Move, on_return: OnReturn::Return, ..rules() };
    let pool = next(&remembering(&["a", "b", "c"], rules), None);
    for low in 0..CLIENTS {
        let home = pick_for(&pool, &client(low), &[], 0).unwrap().index;
        let pick = pick_beside(&pool, low, 0, &[]).unwrap();
        let remember = pick.remember.unwrap();
        let kind = if home == 0 { EntryKind::Placed } else { EntryKind::Overflowed };
        assert_eq!(remember.kind, kind);
        pool.table().unwrap().settle(remember, pick.backend, 0);
        let again = pick_for(&pool, &client(low), &[], 0).unwrap();
        assert_eq!((again.index, again.reason, again.cause()), (0, PickReason::StickTable, None));
    }
}

#[test]
fn a_stream_of_a_client_without_a_key_follows_too_and_leaves_no_entry() {
    let pool = next(&remembering(&["a", "b", "c"], rules()), None);
    let facts = Facts::default();
    let pick = pool.pick(&PickScene { beside: Some(1), ..PickScene::new(&facts, &[], 0) }).unwrap();
    assert_eq!((pick.index, pick.reason, pick.keyed), (1, PickReason::Connection, true));
    assert!(pick.remember.is_none());
}

#[test]
fn concurrent_streams_of_a_new_key_go_to_one_backend_where_load_decides() {
    let bounded = config::Pool { load_bound: Some(125), ..remembering(&["a", "b", "c"], rules()) };
    let pool = next(&bounded, None);
    let first = pick_beside(&pool, 1, 0, &[]).unwrap();
    assert_eq!((first.index, first.reason), (0, PickReason::Connection));
    let second = pick_beside(&pool, 1, 2, &[]).unwrap();
    assert_eq!((second.index, second.reason), (0, PickReason::StickTable), "the first one has written where it goes");
}
