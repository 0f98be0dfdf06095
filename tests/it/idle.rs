//! Thousands of connections that do nothing, and what is left when they have gone.

use std::thread;

use serde_json::Value;

use crate::support::backend::{listener, pool};
use crate::support::load_support::{Client, EchoProcess, alone, at_rest, descriptors_at_least};
use crate::support::{Sessile, eventually, skip};

const HELD: usize = 9_000;
const THREADS: usize = 6;

/// The process under test: two descriptors a connection, and what it keeps back.
const DESCRIPTORS: u64 = 2 * HELD as u64 + 600;

fn sum(status: &Value, of: &str) -> u64 {
    status["workers"].as_array().unwrap().iter().map(|worker| worker[of].as_u64().unwrap()).sum()
}

#[test]
fn nine_thousand_idle_connections_leave_nothing_behind_twice() {
    let _alone = alone();
    if !descriptors_at_least(DESCRIPTORS) {
        return skip("nine_thousand_idle_connections", &format!("needs a limit of {DESCRIPTORS} descriptors"));
    }
    let echo = EchoProcess::start();
    let addresses: Vec<_> = (2..6).map(|n| ([127, 0, 0, n], echo.port).into()).collect();
    // What is remembered of their addresses stays, and would be taken for something left behind.
    let sessile = Sessile::start(&(listener("p", "") + &pool("p", "stick_table = \"0\"", &addresses)));
    let front = sessile.address("l");
    let before = at_rest(|| sessile.descriptors());
    let start_kib = at_rest(|| sessile.pss_kib());
    let mut after = Vec::new();
    for round in 1..=2 {
        let hold = |number: usize| {
            let hold = move |n: usize| {
                let source = [127, 1, (n % 200) as u8, (number + 1) as u8].into();
                let mut client = Client::connect_from(source, front);
                assert_eq!(client.ask("hello"), "hello");
                client
            };
            thread::spawn(move || (0..HELD / THREADS).map(hold).collect::<Vec<_>>())
        };
        let threads: Vec<_> = (0..THREADS).map(hold).collect();
        let held: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        let status = sessile.status();
        assert_eq!(status["admission"]["open"], HELD);
        assert_eq!(sum(&status, "connections"), HELD as u64);
        assert_eq!(sum(&status, "pipes"), 0, "nobody who is idle holds a pipe");
        assert_eq!(at_rest(|| sessile.descriptors()), before + 2 * HELD);
        let held_kib = at_rest(|| sessile.pss_kib());
        drop(held);
        eventually("every connection to be gone", || (sessile.status()["admission"]["open"] == 0).then_some(()));
        assert_eq!(at_rest(|| sessile.descriptors()), before);
        assert_eq!(sum(&sessile.status(), "connections"), 0);
        let now = at_rest(|| sessile.pss_kib());
        println!("round {round}: {start_kib} KiB at the start, {held_kib} with {HELD} connections, {now} after");
        after.push(now);
    }
    assert!(after[0].abs_diff(after[1]) <= 1_024, "memory after the first and after the second: {after:?} KiB");
    assert!(after[0] <= start_kib + 2_048, "memory before {start_kib}, after {after:?} KiB");
    assert_eq!(
        sessile.metric("sessile_connections_ended_total{listener=\"l\",outcome=\"done\",fault=\"none\"}"),
        18_000.0
    );
}
