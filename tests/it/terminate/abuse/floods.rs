//! Handshakes that wait for their client, more than `max_handshakes`, and handshakes that their client gives up.

use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;

use super::{Honest, backend, ended, half_shaken, nothing_is_left};
use crate::support::authority::hello;
use crate::support::backend::{listener, pool};
use crate::support::load_support::{alone, at_rest};
use crate::support::{Sessile, eventually};
use crate::terminate::Front;
use crate::terminate::client::config;
use crate::terminate::load::{Backends, connect, run};

fn front(limits: &str, backends: &Backends) -> Front {
    let tables = listener("p", "").replace("\"l\"", "\"plain\"") + &pool("p", "http = true\n", &backends.addresses);
    let log = "[log]\nformat = \"json\"\nconnections = false\n";
    Front::with(&format!("{log}[limits]\n{limits}"), "pool = \"p\"\n", &tables)
}

/// Clients that have their ServerHello and send nothing more are awaited until their timeout. With a single turn for the
/// whole process, each of them gets that far, and so does every other client meanwhile.
#[test]
fn clients_that_wait_inside_their_handshake_hold_no_turn() {
    const WAITING: usize = 48;
    let _alone = alone();
    let backends = backend();
    let front = front("hello_timeout = \"2s\"\nmax_handshakes = 1\n", &backends);
    let before = at_rest(|| front.sessile.descriptors());
    let (tls, open, plain) = (config(&front.authority), front.address(), front.sessile.address("plain"));
    run(async {
        let began = Instant::now();
        let mut waiting = Vec::new();
        for _ in 0..WAITING {
            waiting.push(half_shaken(open, &tls).await.0);
        }
        let fresh = [Honest::start(open, Some(&tls), true), Honest::start(plain, None, true)];
        for mut line in waiting {
            let _ = line.stream.read_to_end(&mut Vec::new()).await;
        }
        let took = began.elapsed();
        assert!(took > Duration::from_millis(1_900) && took < Duration::from_millis(3_500), "{took:?}");
        for honest in fresh {
            let (served, longest) = honest.stop().await;
            println!("an honest client was served {served} times, in {longest:?} at most");
            assert!(served > 20 && longest < Duration::from_millis(1_300), "{served} times, in {longest:?} at most");
        }
    });
    let (timeout, limit) =
        (ended(&front.sessile, "l", "handshake_timeout"), ended(&front.sessile, "l", "handshake_limit"));
    assert_eq!((timeout, limit), (WAITING as u64, 0));
    nothing_is_left(&front.sessile, before);
}

#[test]
fn two_thousand_hellos_that_nobody_waits_for_cost_no_other_client_anything() {
    const MANY: usize = 2_000;
    let _alone = alone();
    let backends = backend();
    let front = front("hello_timeout = \"5s\"\nmax_handshakes = 64\n", &backends);
    let before = at_rest(|| front.sessile.descriptors());
    let memory = at_rest(|| front.sessile.pss_kib());
    let (tls, open, plain) = (config(&front.authority), front.address(), front.sessile.address("plain"));
    let first = hello(&tls, "a.test").1;
    let began = Instant::now();
    run(async {
        let honest = [
            Honest::start(open, Some(&tls), false),
            Honest::start(open, Some(&tls), true),
            Honest::start(plain, None, true),
        ];
        for number in 0..MANY {
            let mut line = connect(open).await;
            line.send(&first).await.expect("a connection");
            if number % 2 == 0 {
                line.reset_when_dropped();
            }
            drop(line);
            if number % 50 == 0 {
                tokio::task::yield_now().await;
            }
        }
        for honest in honest {
            let (served, longest) = honest.stop().await;
            println!("an honest client was served {served} times, in {longest:?} at most");
            assert!(served > 0 && longest < Duration::from_secs(4), "{served} times, in {longest:?} at most");
        }
    });
    let vanished = |sessile: &Sessile| {
        let count = |word| ended(sessile, "l", word);
        let all = count("handshake_cut") + count("client_reset") + count("hello_truncated");
        (all >= MANY as u64).then_some((count("handshake_cut"), count("client_reset")))
    };
    let (cut, reset) = eventually("every hello to have ended", || vanished(&front.sessile));
    println!("{cut} cut, {reset} reset, in {:?}", began.elapsed());
    nothing_is_left(&front.sessile, before);
    let after = at_rest(|| front.sessile.pss_kib());
    println!("{memory} KiB before, {after} KiB after");
    assert!(after < memory + 16 * 1_024, "{memory} KiB before, {after} KiB after");
}
