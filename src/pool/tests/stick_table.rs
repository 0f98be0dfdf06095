//! What a pool does with what it remembers: every policy in both directions.

use std::net::IpAddr;

use super::{client, config, mark, pick_for, pin, range};
use crate::config::{OnAdd, OnDown, OnReturn};
use crate::outcome::{BreakCause, ClientMove, PickReason};
use crate::pool::*;
use crate::sticky::table::Secret;
use crate::sticky::{Facts, Left};

pub(super) const CLIENTS: u32 = 400;
const MINUTE: u64 = 60_000;

pub(super) fn rules() -> config::StickTableRules {
    config::StickTableRules {
        bytes: 1 << 20,
        remember: Duration::from_secs(3_600),
        on_add: OnAdd::Stay,
        on_return: OnReturn::Stay,
    }
}

pub(super) fn remembering(names: &[&str], rules: config::StickTableRules) -> config::Pool {
    config::Pool { stick_table: Some(rules), ..config(names) }
}

/// The pool of the next snapshot.
pub(super) fn next(config: &config::Pool, previous: Option<&Pool>) -> Pool {
    let mut pools = after(&[config], previous.as_slice());
    pools.remove(0)
}

/// The pools of the next snapshot.
pub(super) fn after(configs: &[&config::Pool], before: &[&Pool]) -> Vec<Pool> {
    let secret = Secret::new([7; 16]);
    let mut stick_tables = StickTables::new(before.iter().copied(), &secret, 0);
    let old = |config: &config::Pool| before.iter().find(|old| old.name() == config.name).copied();
    let pools: Vec<_> = configs.iter().map(|config| stick_tables.give(Pool::new(config, old(config), 1))).collect();
    for pool in &pools {
        if let Some(old) = old(pool.config()) {
            pool.take_over(old, 0);
        }
    }
    pools
}

/// Picks, connects and settles.
pub(super) fn visit(pool: &Pool, low: u32, now_ms: u64) -> Pick<'_> {
    let pick = pick_for(pool, &client(low), &[], now_ms).unwrap();
    pool.table().unwrap().settle(pick.remember.unwrap(), pick.backend, now_ms);
    pick
}

/// Backend of each client.
pub(super) fn visit_all(pool: &Pool, now_ms: u64) -> Vec<String> {
    (0..CLIENTS).map(|low| visit(pool, low, now_ms).backend.name().to_owned()).collect()
}

pub(super) fn moved(before: &[String], after: &[String]) -> usize {
    before.iter().zip(after).filter(|(before, after)| before != after).count()
}

#[test]
fn known_keys_stay_when_a_pool_grows_and_new_ones_use_the_new_table() {
    let old = next(&remembering(&["a", "b", "c"], rules()), None);
    let before = visit_all(&old, 0);
    let grown = next(&remembering(&["a", "b", "c", "d", "e"], rules()), Some(&old));
    for (low, home) in before.iter().enumerate() {
        let pick = visit(&grown, low as u32, MINUTE);
        assert_eq!((pick.backend.name(), pick.reason, pick.cause()), (home.as_str(), PickReason::StickTable, None));
    }
    let bare = next(&config(&["a", "b", "c", "d", "e"]), None);
    for low in CLIENTS..2 * CLIENTS {
        let placed = pick_for(&bare, &client(low), &[], 0).unwrap();
        assert_eq!(visit(&grown, low, MINUTE).backend.name(), placed.backend.name());
    }
}

#[test]
fn known_keys_follow_the_new_table_where_the_file_says_so() {
    let follow = config::StickTableRules { on_add: OnAdd::Move, ..rules() };
    let old = next(&remembering(&["a", "b", "c"], follow), None);
    let before = visit_all(&old, 0);
    let grown = next(&remembering(&["a", "b", "c", "d"], follow), Some(&old));
    let mut count = 0;
    for (low, home) in before.iter().enumerate() {
        let pick = visit(&grown, low as u32, MINUTE);
        let went = pick.backend.name() != home;
        count += usize::from(went);
        assert_eq!(pick.cause(), went.then_some(BreakCause::Moved));
        assert!(!went || pick.backend.name() == "d");
    }
    assert!((50..150).contains(&count), "about a fourth of {CLIENTS}: {count}");
}

#[test]
fn a_key_that_had_to_leave_stays_where_it_is_or_returns_as_the_file_says() {
    for (on_return, returns) in [(OnReturn::Stay, false), (OnReturn::Return, true)] {
        let pool = next(&remembering(&["a", "b", "c"], config::StickTableRules { on_return, ..rules() }), None);
        let before = visit_all(&pool, 0);
        mark(&pool.backends()[0], false);
        for (low, home) in before.iter().enumerate() {
            let pick = visit(&pool, low as u32, MINUTE);
            assert_eq!(pick.cause(), (home == "a").then_some(BreakCause::Down));
            assert_ne!(pick.backend.name(), "a");
        }
        mark(&pool.backends()[0], true);
        for (low, home) in before.iter().enumerate() {
            let pick = visit(&pool, low as u32, 2 * MINUTE);
            assert_eq!(pick.backend.name() == home, home != "a" || returns);
            assert_eq!(pick.cause(), (home == "a" && returns).then_some(BreakCause::Returned));
        }
    }
}

#[test]
fn who_never_noticed_a_flap_is_where_it_was() {
    let pool = next(&remembering(&["a", "b", "c"], rules()), None);
    let before = visit_all(&pool, 0);
    for _ in 0..20 {
        mark(&pool.backends()[0], false);
        // The more it flaps, the more good checks it needs.
        (0..64).for_each(|_| mark(&pool.backends()[0], true));
    }
    assert_eq!(moved(&before, &visit_all(&pool, MINUTE)), 0);
}

#[test]
fn keys_of_a_removed_backend_move_and_one_of_the_same_name_later_is_somebody_else() {
    let old = next(&remembering(&["a", "b", "c"], rules()), None);
    let before = visit_all(&old, 0);
    let without = next(&remembering(&["b", "c"], rules()), Some(&old));
    let again = next(&remembering(&["a", "b", "c"], rules()), Some(&without));
    for (low, home) in before.iter().enumerate() {
        let pick = visit(&again, low as u32, MINUTE);
        assert_eq!(pick.cause(), (home == "a").then_some(BreakCause::Removed));
        let reason = if home == "a" { PickReason::Placement } else { PickReason::StickTable };
        assert_eq!((pick.reason, home == pick.backend.name()), (reason, true), "placement finds the same name");
    }
}

#[test]
fn a_move_names_the_backend_that_the_client_had_and_also_one_that_was_removed() {
    let pool = next(&remembering(&["a", "b", "c"], rules()), None);
    let before = visit_all(&pool, 0);
    let without = next(&remembering(&["b", "c"], rules()), Some(&pool));
    let later = next(&remembering(&["b", "c", "d"], rules()), Some(&without));
    mark(&pool.backends()[0], false);
    for (pool, cause) in [(&pool, BreakCause::Down), (&without, BreakCause::Removed), (&later, BreakCause::Removed)] {
        for (low, home) in before.iter().enumerate() {
            let pick = pick_for(pool, &client(low as u32), &[], MINUTE).unwrap();
            let wanted = (home == "a").then(|| ClientMove { from: Some("a".into()), cause });
            assert_eq!(pool.client_move(pick.left, pick.index), wanted);
        }
    }
    // A client that gets the backend which it had has not moved, whatever a cookie says against that.
    assert_eq!(pool.client_move(Some(Left::backend(1, BreakCause::Expired)), 1), None);
    let nameless = ClientMove { from: None, cause: BreakCause::Removed };
    assert_eq!(pool.client_move(Some(Left::removed(None)), 1), Some(nameless));
}

#[test]
fn connections_of_a_new_key_that_come_together_go_to_one_backend_whatever_the_load_is() {
    let bounded = config::Pool { load_bound: Some(125), ..remembering(&["a", "b", "c"], rules()) };
    let pool = next(&bounded, None);
    let first = pick_for(&pool, &client(0), &[], 0).unwrap();
    let _busy: Vec<_> = (0..20).map(|_| Lease::new(first.backend)).collect();
    let second = pick_for(&pool, &client(0), &[], 0).unwrap();
    assert_eq!((second.backend.name(), second.cause()), (first.backend.name(), None));
    // No connection was established: the key is as new as before.
    pool.table().unwrap().release(first.remember.unwrap(), first.reason, first.backend, 0);
    let third = pick_for(&pool, &client(0), std::slice::from_ref(first.backend), 0).unwrap();
    assert_eq!((third.reason, third.cause()), (PickReason::Placement, None));
    assert_ne!(third.backend.name(), first.backend.name());
}

#[test]
fn a_connection_that_waits_to_try_again_learns_where_another_one_has_gone() {
    let pool = next(&remembering(&["a", "b", "c"], rules()), None);
    let waiting = visit(&pool, 0, 0);
    let at = |backend: &Arc<Backend>| pool.table().unwrap().settled_elsewhere(waiting.remember.unwrap(), backend, 0);
    assert!(!at(waiting.backend));
    let other = pick_for(&pool, &client(0), std::slice::from_ref(waiting.backend), 0).unwrap();
    pool.table().unwrap().settle(other.remember.unwrap(), other.backend, 0);
    assert!(at(waiting.backend) && !at(other.backend));
    // What others have settled is not released.
    pool.table().unwrap().release(waiting.remember.unwrap(), waiting.reason, waiting.backend, 0);
    assert!(at(waiting.backend));
}

#[test]
fn a_connection_that_outlives_the_removal_of_its_backend_settles_nobody_at_its_namesake() {
    let old = next(&remembering(&["a"], rules()), None);
    let pick = visit(&old, 0, 0);
    let without = next(&remembering(&["b"], rules()), Some(&old));
    let again = next(&remembering(&["a", "b"], rules()), Some(&without));
    again.table().unwrap().refresh(pick.remember.unwrap(), pick.backend, MINUTE);
    assert_eq!(pick_for(&again, &client(0), &[], MINUTE).unwrap().cause(), Some(BreakCause::Removed));
}

#[test]
fn a_connection_that_outlives_the_address_of_its_backend_is_remembered_there() {
    let before = next(&remembering(&["a"], rules()), None);
    let pick = visit(&before, 0, 0);
    let mut moved = remembering(&["a", "b"], rules());
    moved.backends[0].address = config::Address::Tcp(([192, 0, 2, 200], 1).into());
    let after = next(&moved, Some(&before));
    let table = after.table().unwrap().stick_table();
    table.forget(pick.remember.unwrap().key);
    after.table().unwrap().refresh(pick.remember.unwrap(), pick.backend, MINUTE);
    let again = pick_for(&after, &client(0), &[], MINUTE).unwrap();
    assert_eq!((again.backend.name(), again.reason), ("a", PickReason::StickTable));
}

#[test]
fn a_range_that_shuts_a_backend_out_moves_its_keys() {
    let old = next(&remembering(&["a", "b", "c"], rules()), None);
    let before = visit_all(&old, 0);
    let mut pinned = remembering(&["a", "b", "c"], rules());
    pinned.ranges = vec![range("all", "10.0.0.0/8", pin(&["b", "c"], false))];
    let pool = next(&pinned, Some(&old));
    for (low, home) in before.iter().enumerate() {
        let pick = visit(&pool, low as u32, MINUTE);
        assert_eq!(pick.cause(), (home == "a").then_some(BreakCause::Range));
        assert_ne!(pick.backend.name(), "a");
    }
}

#[test]
fn memory_outlives_a_change_of_its_size_and_of_weights() {
    let mut file = remembering(&["a", "b", "c"], rules());
    let mut pool = next(&file, None);
    let before = visit_all(&pool, 0);
    for (bytes, weight) in [(2 << 20, 5), (1 << 18, 1), (1 << 20, 200)] {
        file.stick_table = Some(config::StickTableRules { bytes, ..rules() });
        file.backends[0].weight = weight;
        pool = next(&file, Some(&pool));
        assert_eq!(moved(&before, &visit_all(&pool, MINUTE)), 0, "{bytes} {weight}");
    }
}

#[test]
fn a_key_is_forgotten_when_its_time_is_over_and_not_while_it_is_refreshed() {
    let old = next(&remembering(&["a", "b", "c"], rules()), None);
    let picks: Vec<_> = (0..CLIENTS).map(|low| visit(&old, low, 0)).collect();
    let grown = next(&remembering(&["a", "b", "c", "d", "e", "f"], rules()), Some(&old));
    for pick in &picks[..200] {
        grown.table().unwrap().refresh(pick.remember.unwrap(), pick.backend, 50 * MINUTE);
    }
    for (low, settled) in picks.iter().enumerate() {
        let pick = pick_for(&grown, &client(low as u32), &[], 70 * MINUTE).unwrap();
        let known = low < 200;
        assert_eq!(pick.reason == PickReason::StickTable, known);
        assert!(!known || pick.backend.name() == settled.backend.name());
        assert_eq!(pick.cause(), None, "whoever is forgotten is new");
    }
}

#[test]
fn a_drained_backend_serves_those_it_knows_and_nobody_else() {
    let mut file = remembering(&["a", "b", "c"], rules());
    let old = next(&file, None);
    let before = visit_all(&old, 0);
    file.backends[0].weight = 0;
    let pool = next(&file, Some(&old));
    assert_eq!(moved(&before, &visit_all(&pool, MINUTE)), 0);
    assert!((CLIENTS..2 * CLIENTS).all(|low| visit(&pool, low, MINUTE).backend.name() != "a"));
}

#[test]
fn a_backend_drained_by_command_serves_those_it_knows_until_its_time_is_over() {
    let file = config::Pool { drain_deadline: Duration::from_secs(300), ..remembering(&["a", "b", "c"], rules()) };
    let pool = next(&file, None);
    let before = visit_all(&pool, 0);
    assert!(pool.order("a", AdminState::Drain, 0) && !pool.order("z", AdminState::Drain, 0));
    assert_eq!(moved(&before, &visit_all(&pool, MINUTE)), 0);
    for low in CLIENTS..2 * CLIENTS {
        let pick = visit(&pool, low, MINUTE);
        assert!(pick.backend.name() != "a" && pick.left.is_none(), "whoever is new has nothing to lose");
    }
    // What a command said outlives a reload, also one that changes the address.
    let mut elsewhere = file;
    elsewhere.backends[0].address = config::Address::Unix("/elsewhere".into());
    let pool = next(&elsewhere, Some(&pool));
    assert!(pool.backends()[0].draining());
    for (low, home) in before.iter().enumerate() {
        let pick = visit(&pool, low as u32, 6 * MINUTE);
        assert_eq!(pick.cause(), (home == "a").then_some(BreakCause::Drain));
        assert_ne!(pick.backend.name(), "a");
    }
    for low in 0..CLIENTS {
        assert_eq!(visit(&pool, low, 7 * MINUTE).cause(), None, "each moves once");
    }
    assert!(pool.order("a", AdminState::Ready, 7 * MINUTE));
    assert!((2 * CLIENTS..3 * CLIENTS).any(|low| visit(&pool, low, 8 * MINUTE).backend.name() == "a"));
}

#[test]
fn a_backend_that_is_told_to_close_serves_nobody_and_the_last_one_still_serves() {
    let pool = next(&remembering(&["a", "b"], rules()), None);
    let before = visit_all(&pool, 0);
    assert!(pool.order("a", AdminState::Close, 0));
    for (low, home) in before.iter().enumerate() {
        let pick = visit(&pool, low as u32, 0);
        assert_eq!((pick.backend.name(), pick.cause()), ("b", (home == "a").then_some(BreakCause::Drain)));
    }
    assert!(pool.order("b", AdminState::Close, 0));
    assert_eq!(visit(&pool, 1, 0).reason, PickReason::LastResort, "all_down = \"try\"");
}

#[test]
fn a_cookie_leads_to_a_drained_backend_until_its_time_is_over() {
    let pool = next(&config(&["a", "b"]), None);
    let pick = |now_ms| pool.pick(&PickScene { cookie: Some(0), ..PickScene::new(&client(1), &[], now_ms) }).unwrap();
    assert!(pool.order("a", AdminState::Drain, 0));
    assert_eq!((pick(MINUTE).backend.name(), pick(MINUTE).reason), ("a", PickReason::Cookie));
    assert_eq!((pick(6 * MINUTE).backend.name(), pick(6 * MINUTE).cause()), ("b", Some(BreakCause::Drain)));
}

#[test]
fn a_client_waits_for_its_own_backend_where_the_file_says_so() {
    let most = Duration::from_secs(3);
    for (when_down, expected) in
        [(OnDown::Rehash, None), (OnDown::Wait(most), Some(most)), (OnDown::Reject, Some(Duration::ZERO))]
    {
        let pool = next(&config::Pool { when_down, ..remembering(&["a", "b", "c"], rules()) }, None);
        let home = visit(&pool, 1, 0).backend;
        assert_eq!(pool.waits(None, &client(1), 0), None, "its backend is up");
        mark(home, false);
        assert_eq!(pool.waits(None, &client(1), 0), expected);
        assert_eq!(pool.waits(None, &client(2_000), 0), None, "nobody knows it");
        mark(home, true);
        assert_eq!(pool.waits(None, &client(1), 0), None);
    }
}

#[test]
fn only_a_connection_that_stands_moves_a_key() {
    let pool = next(&remembering(&["a", "b", "c"], rules()), None);
    let home = visit(&pool, 1, 0).backend;
    mark(home, false);
    let elsewhere = pick_for(&pool, &client(1), &[], MINUTE).unwrap();
    assert!(!Arc::ptr_eq(elsewhere.backend, home));
    mark(home, true);
    let again = pick_for(&pool, &client(1), &[], 2 * MINUTE).unwrap();
    assert!(Arc::ptr_eq(again.backend, home) && again.reason == PickReason::StickTable);
}

#[test]
fn clients_without_a_source_are_not_remembered() {
    let pool = next(&remembering(&["a", "b", "c"], rules()), None);
    assert_eq!(pick_for(&pool, &Facts::default(), &[], 0).unwrap().remember, None);
    assert_eq!(pool.table().unwrap().stats(0).known, 0);
    let v6: IpAddr = "2001:db8::1".parse().unwrap();
    let pick = pick_for(&pool, &Facts { source: Some(v6), ..Facts::default() }, &[], 0).unwrap();
    pool.table().unwrap().settle(pick.remember.unwrap(), pick.backend, 0);
    assert_eq!(pool.table().unwrap().stats(0).known, 1);
}

/// Picks, connects, settles, and holds the connection.
fn stay(pool: &Pool, low: u32, now_ms: u64) -> (Pick<'_>, Lease) {
    let pick = visit(pool, low, now_ms);
    let lease = Lease::new(pick.backend);
    (pick, lease)
}

#[test]
fn new_keys_overflow_a_loaded_backend_and_keep_their_second_home() {
    for on_return in [OnReturn::Stay, OnReturn::Return] {
        let rules = config::StickTableRules { on_return, ..rules() };
        let mut file = config::Pool { load_bound: Some(125), ..remembering(&["a", "b", "c"], rules) };
        file.backends[0].weight = 2;
        let pool = next(&file, None);
        let held: Vec<_> = (0..CLIENTS).map(|low| stay(&pool, low, 0)).collect();
        let most = |index: usize| pool.backends()[index].leases();
        assert!(most(0) <= 250 && most(1) <= 125 && most(2) <= 125, "{} {} {}", most(0), most(1), most(2));
        let homes: Vec<_> = held.iter().map(|(pick, _)| pick.backend.name().to_owned()).collect();
        assert!(held.iter().all(|(pick, _)| pick.left.is_none()));
        let leases: Vec<_> = held.into_iter().map(|(_, lease)| lease).collect();
        drop(leases);
        // The load is gone, the second home stays.
        assert_eq!(moved(&homes, &visit_all(&pool, MINUTE)), 0, "{on_return:?}");
    }
}

#[test]
fn a_backend_above_its_load_bound_gets_no_new_key_until_others_have_caught_up() {
    let pool = next(&config::Pool { load_bound: Some(125), ..remembering(&["a", "b", "c"], rules()) }, None);
    let loaded: Vec<_> = (0..60).map(|_| Lease::new(&pool.backends()[1])).collect();
    let held: Vec<_> = (0..50).map(|low| stay(&pool, low, 0)).collect();
    assert!(held.iter().all(|(pick, _)| pick.backend.name() != "b" && pick.left.is_none()));
    drop((loaded, held));
    assert!((50..100).any(|low| visit(&pool, low, 0).backend.name() == "b"));
}

#[test]
fn one_key_with_most_of_the_connections_stays_in_one_place() {
    let pool = next(&config::Pool { load_bound: Some(125), ..remembering(&["a", "b", "c"], rules()) }, None);
    let held: Vec<_> = (0..100).map(|_| stay(&pool, 7, 0)).collect();
    assert!(held.iter().all(|(pick, _)| Arc::ptr_eq(pick.backend, held[0].0.backend)));
}

#[test]
fn a_full_backend_overflows_or_rejects_as_the_file_says() {
    let mut file = remembering(&["a", "b"], rules());
    file.backends.iter_mut().for_each(|backend| backend.max_connections = Some(10));
    let pool = next(&file, None);
    let homes: Vec<_> = (0..CLIENTS).map(|low| visit(&pool, low, 0).backend).collect();
    let held: Vec<_> = (0..10).map(|_| Lease::new(&pool.backends()[0])).collect();
    for (low, home) in homes.iter().enumerate() {
        let pick = pick_for(&pool, &client(low as u32), &[], 0).unwrap();
        assert_eq!((pick.backend.name(), pick.cause()), ("b", (home.name() == "a").then_some(BreakCause::Full)));
    }
    let more: Vec<_> = (0..10).map(|_| Lease::new(&pool.backends()[1])).collect();
    assert!(pick_for(&pool, &client(1), &[], 0).is_none());
    assert_eq!(pool.why_nobody(0), crate::outcome::Ended::BackendFull);
    drop((held, more));
    file.on_full = config::OnFull::Reject;
    let pool = next(&file, Some(&pool));
    let _held: Vec<_> = (0..10).map(|_| Lease::new(&pool.backends()[0])).collect();
    for (low, home) in homes.iter().enumerate() {
        assert_eq!(pick_for(&pool, &client(low as u32), &[], 0).is_none(), home.name() == "a");
    }
}

#[test]
fn a_backend_that_is_back_gets_its_new_keys_little_by_little_and_none_moves_twice() {
    let file = config::Pool { slow_start: Some(Duration::from_secs(100)), ..remembering(&["a", "b"], rules()) };
    let pool = next(&file, None);
    let backend = &pool.backends()[0];
    let report = |good: bool, now_ms: u64| {
        for _ in 0..4 {
            backend.checked(
                if good { Ok(()) } else { Err("refused") },
                &super::check(),
                config::OnMarkedDown::Keep,
                now_ms,
            );
        }
    };
    report(false, 1_000);
    report(true, 10_000);
    let share = |from: u32, now_ms: u64| {
        (from..from + CLIENTS).filter(|low| visit(&pool, *low, now_ms).backend.name() == "a").count()
    };
    let full = CLIENTS as usize / 2;
    let shares = [share(0, 20_000), share(1_000, 60_000), share(2_000, 100_000), share(3_000, 120_000)];
    assert!(shares[0] < full / 4 && shares.is_sorted() && shares[3] > full * 3 / 4, "{shares:?}");
    // A client that came early stays, also when the ramp has passed its hash.
    let before: Vec<_> = (0..CLIENTS).map(|low| visit(&pool, low, 20_000).backend.name().to_owned()).collect();
    assert_eq!(moved(&before, &visit_all(&pool, 200_000)), 0);
}

#[test]
fn a_new_table_is_another_one_whatever_its_digest() {
    // Entries have room for a small number only, and these digests leave the same rest.
    let follow = config::StickTableRules { on_add: OnAdd::Move, ..rules() };
    let old = next(&remembering(&["a", "b", "c"], follow), None);
    let before = visit_all(&old, 0);
    let seeded = |hash_seed| config::Pool { hash_seed, ..remembering(&["a", "b", "c"], follow) };
    let rest = |config: &config::Pool| Pool::new(config, None, 1).digest() % 62;
    let alike = (1..).map(seeded).find(|config| rest(config) == rest(old.config())).unwrap();
    let went = moved(&before, &visit_all(&next(&alike, Some(&old)), 0));
    assert!(went > CLIENTS as usize / 2, "{went}");
}

#[test]
fn a_key_that_comes_often_is_named_with_its_home() {
    let pool = next(&remembering(&["a", "b", "c"], rules()), None);
    for n in 0..60_000 {
        visit(&pool, if n % 10 < 6 { 7 } else { 1_000 + n }, 0);
    }
    let (mut hottest, sampled) = pool.table().unwrap().top_keys(1, 0);
    let hottest = hottest.remove(0);
    assert!(sampled && hottest.share_error > 0.0 && hottest.share_error < 0.1, "{hottest:?}");
    let home = visit(&pool, 7, 0).backend.name().to_owned();
    let expected = client(7).source.unwrap().to_string();
    assert_eq!((hottest.key, hottest.backend), (expected, Some(home)));
    assert!((hottest.share - 0.6).abs() < 0.1, "{}", hottest.share);
}
