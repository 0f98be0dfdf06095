//! What `explain --live` says of a living pool: the pick of the next connection, and no trace of the question.

use proptest::prelude::*;

use super::*;
use crate::config::{OnFull, StickTableRules};
use crate::plan::{Explanation, LiveCookie};
use crate::sticky::table::Secret;

/// A pool with a stick table.
fn pool(config: &config::Pool) -> Pool {
    let rules = StickTableRules {
        bytes: 1 << 16,
        remember: Duration::from_secs(3_600),
        on_add: config::OnAdd::Stay,
        on_return: config::OnReturn::Stay,
    };
    let config = config::Pool { stick_table: Some(rules), ..config.clone() };
    StickTables::new(None, &Secret::new([7; 16]), 0).give(Pool::new(&config, None, 1))
}

fn settle(pool: &Pool, low: u32, index: usize) {
    let remember = pick_for(pool, &client(low), &[], 0).and_then(|pick| pick.remember).expect("a key");
    pool.table().unwrap().settle(remember, &pool.backends()[index], 0);
}

fn ask(pool: &Pool, low: u32, now_ms: u64) -> Explanation {
    Explanation::now(pool, &client(low), LiveCookie::default(), &[], now_ms)
}

fn why<'e>(explained: &'e Explanation, backend: &str) -> Option<&'e str> {
    explained.candidates.iter().find(|row| row.backend == backend)?.why_not.as_deref()
}

#[test]
fn a_known_client_is_explained_where_it_is_and_why_not_elsewhere() {
    let pool = pool(&config(&["a", "b", "c"]));
    let low = (0..100).find(|low| name_of(&pick_for(&pool, &client(*low), &[], 0)) == Some("a")).unwrap();
    settle(&pool, low, 1);
    let explained = ask(&pool, low, 0);
    assert_eq!((explained.choice.as_deref(), explained.reason.as_deref()), (Some("b"), Some("stick_table")));
    assert_eq!(explained.entry.as_ref().and_then(|entry| entry.backend.as_deref()), Some("b"));
    assert_eq!((why(&explained, "a"), why(&explained, "b")), (Some("known at b"), None));
    assert!(pool.order("b", AdminState::Drain, 0));
    let explained = ask(&pool, low, 1);
    assert_eq!(explained.choice.as_deref(), Some("b"), "known clients stay until the deadline");
    assert_eq!(why(&explained, "b"), Some("draining: only known clients"));
    let over = config(&["a"]).drain_deadline.as_millis() as u64 + 1;
    let explained = ask(&pool, low, over);
    let moved = (explained.choice.as_deref(), explained.moved.as_deref(), explained.from.as_deref());
    assert_eq!(moved, (Some("a"), Some("drain"), Some("b")));
    assert_eq!(why(&explained, "b"), Some("drained"));
}

#[test]
fn what_keeps_a_client_out_is_named() {
    let mut config = config(&["a", "b", "c", "d"]);
    config.backends[2].max_connections = Some(1);
    let pool = pool(&config);
    mark(&pool.backends()[0], false);
    for _ in 0..3 {
        pool.connect_failed(&pool.backends()[1], 0);
    }
    let _full = Lease::new(&pool.backends()[2]);
    let explained = ask(&pool, 1, 1);
    assert_eq!(why(&explained, "a"), Some("down: refused"));
    assert_eq!(why(&explained, "b"), Some("ejected: connects failed"));
    assert_eq!(why(&explained, "c"), Some("full: max_connections = 1"));
    assert_eq!((explained.choice.as_deref(), explained.candidates.len()), (Some("d"), 4));
    let states: BTreeMap<_, _> =
        explained.candidates.iter().map(|row| (row.backend.as_str(), row.state.as_deref().unwrap())).collect();
    assert_eq!(states, BTreeMap::from([("a", "down"), ("b", "ejected"), ("c", "unchecked"), ("d", "unchecked")]));
}

#[test]
fn a_client_whose_backend_is_down_waits_where_the_file_says_so() {
    for (when_down, most) in [(config::OnDown::Wait(Duration::from_secs(3)), 3_000), (config::OnDown::Reject, 0)] {
        let pool = pool(&config::Pool { when_down, ..config(&["a", "b"]) });
        settle(&pool, 1, 0);
        assert_eq!(ask(&pool, 1, 0).wait_ms, None);
        mark(&pool.backends()[0], false);
        assert_eq!(ask(&pool, 1, 0).wait_ms, Some(most));
    }
}

proptest! {
    /// Clients come one after the other; some backends are down, drained or full, and each client is asked about before.
    #[test]
    fn the_next_connection_gets_what_was_said_and_the_question_leaves_no_trace(
        balance in 0_usize..7,
        trouble in proptest::collection::vec(0_usize..5, 5),
        reject in any::<bool>(),
        bound in any::<bool>(),
        hosts in proptest::collection::vec(proptest::option::of(0_usize..2), 5),
        visits in proptest::collection::vec((0_u32..40, any::<bool>()), 1..120),
    ) {
        let names = ["a", "b", "c", "d", "e"];
        let (balance, remembers) = [
            (Balance::Hash, true),
            (Balance::Ring { points: 8 }, true),
            (Balance::RoundRobin, false),
            (Balance::LeastConnections, false),
            (Balance::RoundRobin, true),
            (Balance::LeastConnections, true),
            (Balance::TwoChoices, true),
        ][balance];
        let mut config = config::Pool { balance, ..config(&names) };
        config.on_full = if reject { OnFull::Reject } else { OnFull::Overflow };
        config.load_bound = (bound && remembers).then_some(125);
        for (backend, host) in config.backends.iter_mut().zip(hosts) {
            backend.location = host.into_iter().map(|host| format!("host{host}")).collect();
        }
        config.backends[2].max_connections = Some(2);
        config.backends[3].backup = true;
        let pool = if remembers { pool(&config) } else { Pool::new(&config, None, 1) };
        let mut held = Vec::new();
        let known = |table: &Pool| table.table().map(|table| table.stats(1_000).known);
        for (number, (low, holds)) in visits.iter().enumerate() {
            if number == visits.len() / 2 {
                for (index, trouble) in trouble.iter().enumerate() {
                    match trouble {
                        0 => mark(&pool.backends()[index], false),
                        1 => prop_assert!(pool.order(names[index], AdminState::Drain, 500)),
                        2 => prop_assert!(pool.order(names[index], AdminState::Close, 500)),
                        _ => {}
                    }
                }
            }
            let before = (known(&pool), pool.leases(), pool.shared.draws.0.load(Relaxed));
            let said = ask(&pool, *low, 1_000);
            prop_assert_eq!(&ask(&pool, *low, 1_000), &said);
            prop_assert_eq!((known(&pool), pool.leases(), pool.shared.draws.0.load(Relaxed)), before);
            let facts = client(*low);
            let pick = pick_for(&pool, &facts, &[], 1_000);
            let told = if said.any { said.in_turn.as_deref() } else { said.choice.as_deref() };
            prop_assert_eq!(told, name_of(&pick), "{:?}", said);
            prop_assert_eq!(said.reason.as_deref(), pick.map(|pick| pick.reason.word()));
            let Some(pick) = pick else { continue };
            let moved = pool.client_move(pick.left, pick.index);
            prop_assert_eq!(said.moved.as_deref(), moved.as_ref().map(|moved| moved.cause.word()));
            prop_assert_eq!(said.from.as_deref(), moved.as_ref().and_then(|moved| moved.from.as_deref()));
            if let Some((table, remember)) = pool.table().zip(pick.remember) {
                table.settle(remember, pick.backend, 1_000);
            }
            if *holds {
                held.push(Lease::new(pick.backend));
            }
        }
    }
}
