//! Two workers share the connections, whichever of them the kernel wakes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use crate::support::backend::{listener, pool};
use crate::support::load_support::{Client, Echo, Load, Target, alone};
use crate::support::{Sessile, eventually};

/// Connections of each worker, and how many were handed to another.
fn workers(sessile: &Sessile) -> (Vec<u64>, u64) {
    let status = sessile.status();
    let workers = status["workers"].as_array().unwrap();
    let of = |key: &str| workers.iter().map(|worker| worker[key].as_u64().unwrap()).collect::<Vec<_>>();
    (of("connections"), of("handed_over").iter().sum())
}

/// What a worker holds before it hands on: a quarter above the mean, and 32; a few may come in at one wake.
fn fair(counts: &[u64]) -> u64 {
    let mean = counts.iter().sum::<u64>() / counts.len() as u64;
    mean + mean / 4 + 32 + 8
}

/// Which worker has taken in each connection that has ended, from its number.
fn taken_in(sessile: &Sessile, listener: &str) -> BTreeMap<u64, usize> {
    let mut counts = BTreeMap::new();
    for line in sessile.lines().iter().filter(|line| line["listener"] == listener) {
        *counts.entry(line["id"].as_u64().unwrap() >> 48).or_default() += 1;
    }
    counts
}

#[test]
fn a_worker_whose_connections_stay_hands_new_ones_to_the_one_whose_leave() {
    let echo = Echo::start();
    let sessile = Sessile::start(&format!("workers = 2\n{}{}", listener("p", ""), pool("p", "", &[echo.address])));
    let front = sessile.address("l");
    let mut held = Vec::<Client>::new();
    for _ in 0..15 {
        held.extend((0..20).map(|_| Client::connect(front)));
        held.iter_mut().for_each(|client| assert_eq!(client.ask("x"), "x"));
        // All clients of the second worker leave again.
        let views = sessile.json("/connections");
        let views = views["connections"].as_array().unwrap();
        let stays = |client: &Client| {
            let own = client.stream().local_addr().unwrap().to_string();
            views.iter().find(|view| view["client"] == own.as_str()).unwrap()["worker"] == 0
        };
        held.retain(stays);
        let left = held.len() as u64;
        eventually("the others to be gone", || (workers(&sessile).0 == [left, 0]).then_some(()));
        assert!(left <= fair(&[left, 0]) + 20, "{left} with one worker, and none with the other");
    }
    let (counts, handed_over) = workers(&sessile);
    println!("{counts:?}, {handed_over} handed over");
    assert!(handed_over > 0, "{counts:?}");
    assert!(counts[0] < 130, "of 300 the first worker has taken {counts:?}");

    held.extend((0..200).map(|_| Client::connect(front)));
    held.iter_mut().for_each(|client| assert_eq!(client.ask("x"), "x"));
    let (counts, _) = workers(&sessile);
    assert_eq!(counts.iter().sum::<u64>(), held.len() as u64);
    assert!(counts.iter().all(|count| *count <= fair(&counts)), "{counts:?}");
}

#[test]
fn a_socket_that_all_workers_watch_does_not_fill_one_of_them() {
    const HELD: usize = 400;
    let echo = Echo::start();
    let config = "workers = 2\n[[listener]]\nname = \"u\"\nbind = \"unix:$DIR/front.sock\"\npool = \"p\"\n".to_owned()
        + &pool("p", "balance = \"random\"", &[echo.address]);
    let sessile = Sessile::start(&config);
    let path = sessile.dir.path().join("front.sock");
    let mut held = Vec::new();
    for number in 1..=HELD {
        let mut stream = BufReader::new(UnixStream::connect(&path).unwrap());
        stream.get_mut().write_all(b"x\n").unwrap();
        stream.read_line(&mut String::new()).unwrap();
        held.push(stream);
        if number % 50 == 0 {
            let (counts, _) = workers(&sessile);
            assert!(counts.iter().all(|count| *count <= fair(&counts)), "{counts:?}");
        }
    }
    let (counts, handed_over) = workers(&sessile);
    println!("{counts:?}, {handed_over} handed over");
    assert_eq!(counts.iter().sum::<u64>(), HELD as u64);
    assert!(counts.iter().all(|count| *count > 100), "{counts:?}");
}

#[test]
fn both_workers_take_their_part_in_a_crowd_that_comes_and_goes() {
    let _alone = alone();
    let echo = Echo::start();
    let config = "workers = 2\n[[listener]]\nname = \"u\"\nbind = \"unix:$DIR/front.sock\"\npool = \"p\"\n".to_owned()
        + &listener("p", "")
        + &pool("p", "balance = \"random\"", &[echo.address]);
    let sessile = Sessile::start(&config);
    let tcp = Target::Tcp(sessile.address("l"));
    let unix = Target::Unix(sessile.dir.path().join("front.sock"));
    // The worker that wakes first accepts from a shared socket, so only many clients at once reach both.
    for (listener, target, rate, least) in [("l", tcp, 2_000, 30), ("u", unix, 100_000, 10)] {
        let load = Load::start(&target, 16, rate);
        load.warm(2_000);
        let toll = load.stop();
        assert!(toll.broken.is_empty(), "{toll:?}");
        let counts = eventually("every line", || {
            let counts = taken_in(&sessile, listener);
            (counts.values().sum::<usize>() == toll.served).then_some(counts)
        });
        println!("{listener}: {counts:?}");
        for worker in 0..2 {
            let percent = counts.get(&worker).copied().unwrap_or(0) * 100 / toll.served;
            assert!(percent >= least, "{listener}: worker {worker} took in {percent} % of {counts:?}");
        }
    }
}
