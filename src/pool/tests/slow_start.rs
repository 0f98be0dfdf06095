//! A backend that is up again, in pools where nothing but load or turns places clients.

use std::time::Duration;

use super::{check, client, config, pick_for};
use crate::config::{Balance, KeyPart, OnMarkedDown};
use crate::pool::*;

const METHODS: [Balance; 4] = [Balance::RoundRobin, Balance::Random, Balance::LeastConnections, Balance::TwoChoices];
/// Length of the slow start.
const OVER_MS: u64 = 100_000;
/// When the backend `a` is up again.
const ROSE_MS: u64 = 10_000;
const PICKS: usize = 4_000;

/// A pool without a key, of which the backend `a` was down and has just come up.
fn risen(balance: Balance, names: &[&str]) -> Pool {
    let slow_start = Some(Duration::from_millis(OVER_MS));
    let file = config::Pool { balance, key: Vec::<KeyPart>::new(), slow_start, ..config(names) };
    let pool = Pool::new(&file, None, 1);
    pool.put_in_force();
    report(&pool, 0, false, 1_000);
    report(&pool, 0, true, ROSE_MS);
    pool
}

fn report(pool: &Pool, index: usize, good: bool, now_ms: u64) {
    for _ in 0..4 {
        let result = if good { Ok(()) } else { Err("refused") };
        pool.backends()[index].checked(result, &check(), OnMarkedDown::Keep, now_ms);
    }
}

/// Part of the picks at this moment that `a` gets; no connection lasts.
fn share_of_a(pool: &Pool, now_ms: u64) -> f64 {
    let picked = (0..PICKS).map(|_| pick_for(pool, &client(1), &[], now_ms).unwrap().index);
    picked.filter(|index| *index == 0).count() as f64 / PICKS as f64
}

#[test]
fn a_backend_that_is_up_again_gets_more_and_more_of_the_clients_without_a_key() {
    for balance in METHODS {
        let pool = risen(balance, &["a", "b", "c", "d"]);
        let shares = [5, 25, 50, 75, 100].map(|part| share_of_a(&pool, ROSE_MS + part * OVER_MS / 100));
        for (part, share) in [0.05, 0.25, 0.5, 0.75, 1.0].into_iter().zip(shares) {
            assert!((share - part / 4.0).abs() < 0.03, "{balance:?}: {share} of all at {part}");
        }
        assert!(shares.is_sorted(), "{balance:?}: {shares:?}");
    }
}

#[test]
fn methods_by_leases_leave_it_a_part_of_its_share_of_open_connections() {
    for balance in [Balance::LeastConnections, Balance::TwoChoices] {
        let pool = risen(balance, &["a", "b", "c", "d"]);
        let mut held: Vec<_> = (1..4)
            .flat_map(|index| (0..100).map(move |_| index))
            .map(|index| Lease::new(&pool.backends()[index]))
            .collect();
        let mut before = 0;
        for part in [10, 30, 60, 90] {
            let now_ms = ROSE_MS + part * OVER_MS / 100;
            for _ in 0..400 {
                let pick = pick_for(&pool, &client(1), &[], now_ms).unwrap();
                // Another connection ends for each that begins.
                held.push(Lease::new(pick.backend));
                let ends = held.iter().position(|lease| lease.name() != "a").unwrap();
                held.remove(ends);
            }
            let own = pool.backends()[0].leases();
            // 300 connections on four backends: 75 are its share.
            let most = 75 * part / 100 + 1;
            assert!(own <= most && own >= before && own * 10 >= most * 7, "{balance:?}: {own} of {most} at {part} %");
            before = own;
        }
    }
}

#[test]
fn where_all_are_on_their_way_up_clients_are_served_all_the_same() {
    for balance in METHODS {
        let pool = risen(balance, &["a", "b"]);
        report(&pool, 1, false, 2_000);
        report(&pool, 1, true, ROSE_MS);
        let share = share_of_a(&pool, ROSE_MS + 1_000);
        assert!((share - 0.5).abs() < 0.05, "{balance:?}: {share}");
        report(&pool, 1, false, ROSE_MS + 2_000);
        assert_eq!(share_of_a(&pool, ROSE_MS + 3_000), 1.0, "{balance:?}: there is no other");
    }
}

#[test]
fn a_question_counts_a_backend_on_its_way_up_as_possible() {
    let pool = risen(Balance::RoundRobin, &["a", "b"]);
    let decision = pool.explain_now(&client(1), None, &[], ROSE_MS + 1_000);
    assert!(decision.any && decision.candidates.iter().all(|row| row.excluded.is_none()), "{decision:?}");
}
