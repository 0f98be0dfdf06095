//! Backends that misbehave: while they are connected to, while bytes move, and one after the other.

use std::io::{ErrorKind, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use super::peer::{
    Blackhole, RESET, Refusing, ask, connect, connect_from, hear, own_address, pour, reset, rest, say, source,
};
use super::{Scene, backend_status, case, play, run, with_listeners};
use crate::support::backend::{Backend, pool};
use crate::support::{Sessile, eventually};

#[test]
fn backends_that_cannot_be_reached() {
    let (refusing, blackhole, other) = (Refusing::new(), Blackhole::new(), Blackhole::new());
    let times = "connect_timeout = \"300ms\"\nconnect_budget = \"2s\"";
    let tables = pool("refusing", times, &[refusing.address])
        + &pool("blackhole", times, &[blackhole.address])
        + &pool("both", "connect_timeout = \"300ms\"\nconnect_budget = \"400ms\"", &[blackhole.address, other.address])
        + "[[pool]]\nname = \"unix\"\nkey = \"none\"\nbalance = \"random\"\n\
           backend = [{ name = \"b0\", address = \"unix:/nowhere/at-all.sock\" }]\n[pool.check]\nkind = \"off\"\n";
    let within = |scene: &Scene<'_>, least: u64, most: u64| {
        let stream = connect(scene.address);
        say(&stream, "anybody there?");
        let _ = rest(&stream);
        let line = scene.ended();
        // To the nearest: a deadline counts from when the worker woke, which is a little before it accepts.
        let duration_ms = (line["duration_us"].as_u64().unwrap() + 500) / 1_000;
        assert!((least..most).contains(&duration_ms), "{duration_ms} ms: {line}");
        assert!(line["pool"].is_string() && line["backend"].is_string() && line["connect_us"].is_null(), "{line}");
        line
    };
    let cases = vec![
        // Known keys are tried once more after 200 ms.
        case("backend-refuses", "pool = \"refusing\"", |scene| {
            assert_eq!(within(scene, 200, 1_000)["attempts"], 2);
        }),
        case("backend-has-no-unix-socket", "pool = \"unix\"", |scene| {
            assert_eq!(within(scene, 0, 1_000)["attempts"], 1);
        }),
        case("backend-is-a-blackhole", "pool = \"blackhole\"", |scene| {
            within(scene, 300, 1_500);
        }),
        case("backends-use-up-the-budget", "pool = \"both\"", |scene| {
            within(scene, 300, 1_000);
        }),
    ];
    let sessile = run(&tables, cases);
    for (pool, failures) in [("refusing", 2), ("unix", 1)] {
        assert_eq!(backend_status(&sessile, pool, "b0")["connect_failures"], failures, "{pool}");
    }
    assert_eq!(backend_status(&sessile, "refusing", "b0")["connections"], 0);
}

#[test]
fn backends_that_break_off() {
    let at_once = Backend::serving(|stream| {
        reset(stream);
        Ok(())
    });
    let midstream = Backend::serving(|stream| {
        let line = hear(&stream)?;
        say(&stream, line);
        hear(&stream)?;
        reset(stream);
        Ok(())
    });
    let in_bulk = Backend::serving(|mut stream| {
        stream.read_exact(&mut vec![0; 4 << 20])?;
        reset(stream);
        Ok(())
    });
    let closes = Backend::serving(|stream| {
        say(&stream, "good bye");
        Ok(())
    });
    let half = Backend::serving(|stream| {
        say(&stream, "all I have");
        stream.shutdown(Shutdown::Write)?;
        assert_eq!(rest(&stream).expect("an end").len(), 1 << 20);
        Ok(())
    });
    let deaf = Backend::serving(|stream| {
        thread::park_timeout(Duration::from_secs(10));
        drop(stream);
        Ok(())
    });
    let tables = "[limits]\nuser_timeout = \"1s\"\n".to_owned()
        + &pool("at-once", "", &[at_once.address])
        + &pool("midstream", "", &[midstream.address])
        + &pool("in-bulk", "", &[in_bulk.address])
        + &pool("closes", "", &[closes.address])
        + &pool("half", "", &[half.address])
        + &pool("deaf", "", &[deaf.address]);
    let cases = vec![
        case("backend-resets-at-once", "pool = \"at-once\"", |scene| {
            assert_eq!(rest(&connect(scene.address)), RESET);
        }),
        case("backend-resets-midstream", "pool = \"midstream\"", |scene| {
            let stream = connect(scene.address);
            assert_eq!(ask(&stream, "hello").unwrap(), "hello\n");
            say(&stream, "more\n");
            assert_eq!(rest(&stream), RESET, "the client sees the reset, not an end");
        }),
        case("backend-resets-in-bulk", "pool = \"in-bulk\"", |scene| {
            let stream = connect(scene.address);
            let error = pour(&stream).unwrap_err().kind();
            assert!([ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&error), "{error}");
        }),
        case("backend-closes-first", "pool = \"closes\"", |scene| {
            assert_eq!(rest(&connect(scene.address)).unwrap(), b"good bye");
        }),
        case("backend-half-closes", "pool = \"half\"", |scene| {
            let stream = connect(scene.address);
            assert_eq!(rest(&stream).unwrap(), b"all I have");
            say(&stream, vec![b'x'; 1 << 20]);
        }),
        case("backend-stops-reading", "pool = \"deaf\"", |scene| {
            let stream = connect(scene.address);
            assert!(pour(&stream).is_err());
        }),
    ];
    run(&tables, cases);
}

/// A pool of one backend: while the backend is away every client is refused, once it is back every client is served.
#[test]
fn a_backend_goes_and_returns_20_times() {
    const ROUNDS: u64 = 20;
    let backend = Refusing::on(own_address(1));
    let tables = pool("app", "sticky_retries = 0\n[pool.eject]\nbase = \"100ms\"", &[backend.address]);
    let cases = vec![
        case("backend-goes", "pool = \"app\"", |scene| {
            for round in 0..ROUNDS {
                let stream = connect(scene.address);
                assert!(rest(&stream).is_ok_and(|answer| answer.is_empty()), "round {round}");
                backend.listen();
                let stream = connect(scene.address);
                let served = backend.accept().unwrap();
                backend.refuse();
                say(&stream, "ping\n");
                assert_eq!(hear(&served).unwrap(), "ping\n", "round {round}");
                say(&served, "pong\n");
                assert_eq!(hear(&stream).unwrap(), "pong\n", "round {round}");
            }
        })
        .times(ROUNDS)
        .besides("done", ROUNDS),
    ];
    let sessile = run(&tables, cases);
    assert_eq!(backend_status(&sessile, "app", "b0")["ejected"], false, "the last usable backend");
}

/// Two backends: the keys of the one that is gone are served by the other, and come back when it does.
#[test]
fn a_backend_goes_and_returns_20_times_beside_another() {
    const ROUNDS: u64 = 20;
    let stays = Backend::named("b0");
    let comes_and_goes = Refusing::on(own_address(2));
    // Without a stick table, which would keep clients at the backend that they moved to.
    let tables = pool("app", "eject = \"off\"\nstick_table = \"0\"", &[stays.address, comes_and_goes.address]);
    let cases = vec![
        case("backend-goes-beside-another", "pool = \"app\"", |scene| {
            let served_by = |n: usize| ask(&connect_from(source(n), scene.address), "hi").expect("an answer");
            let while_it_is_there = |look: &mut dyn FnMut()| {
                comes_and_goes.listen();
                thread::scope(|scope| {
                    scope.spawn(|| {
                        while let Ok(stream) = comes_and_goes.accept() {
                            let line = hear(&stream).expect("a line");
                            say(&stream, format!("b1 {line}"));
                        }
                    });
                    look();
                    comes_and_goes.refuse();
                });
            };
            let (mut moving, mut staying) = (None, None);
            while_it_is_there(&mut || {
                let first: Vec<_> = (0..16).map(served_by).collect();
                moving = first.iter().position(|answer| answer == "b1 hi\n");
                staying = first.iter().position(|answer| answer == "b0 hi\n");
            });
            let (moving, staying) = moving.zip(staying).expect("16 sources are not all on one side");
            for round in 0..ROUNDS {
                assert_eq!([served_by(moving), served_by(staying)], ["b0 hi\n", "b0 hi\n"], "round {round}: gone");
                while_it_is_there(&mut || {
                    assert_eq!([served_by(moving), served_by(staying)], ["b1 hi\n", "b0 hi\n"], "round {round}: back");
                });
            }
        })
        .times(16 + 4 * ROUNDS),
    ];
    run(&tables, cases);
}

/// Of three backends one refuses and one never answers: every client is served within one `connect_timeout` and 0.3 s,
/// with and without ejection.
#[test]
fn every_client_is_served_while_one_of_three_serves() {
    let (good, refusing, blackhole) = (Backend::named("b0"), Refusing::new(), Blackhole::new());
    let addresses = [good.address, refusing.address, blackhole.address];
    let limits = Duration::from_secs(1)..=Duration::from_millis(1_300);
    for keys in ["eject = \"off\"", "", "balance = \"ring\"", "balance = \"maglev\"\neject = \"off\""] {
        let tables = pool("app", &format!("connect_timeout = \"1s\"\n{keys}"), &addresses);
        // A busy machine delays all clients of a try, but not of three tries.
        let mut worst = Vec::new();
        let kept = (0..3).any(|_| {
            worst.push(worst_wait(&tables));
            worst.last().is_some_and(|worst| limits.contains(worst))
        });
        assert!(kept, "{keys}: the worst waits were {worst:?}");
    }
}

/// Many clients at once before a pool `app` in which `b0` serves: how long the last one waits for its answer.
fn worst_wait(tables: &str) -> Duration {
    let (tell, told) = channel();
    let name = "one-of-three-refuses-and-one-is-a-blackhole";
    let cases = vec![
        case(name, "pool = \"app\"", move |scene| {
            let wait = |n: usize| {
                let began = Instant::now();
                let stream = connect_from(source(n), scene.address);
                assert_eq!(ask(&stream, "hi").expect("an answer"), "b0 hi\n");
                began.elapsed()
            };
            let worst = thread::scope(|scope| {
                let clients: Vec<_> = (0..40).map(|n| scope.spawn(move || wait(n))).collect();
                clients.into_iter().map(|client| client.join().expect("served")).max()
            });
            tell.send(worst.expect("clients")).expect("somebody asks");
        })
        .times(40),
    ];
    run(tables, cases);
    told.recv().expect("the case was played")
}

#[test]
fn pools_whose_backends_are_down() {
    let refusing = Refusing::new();
    let good = Backend::named("good");
    let checked = |name: &str, more: &str| {
        format!(
            "[[pool]]\nname = \"{name}\"\nall_down = \"refuse\"\n{more}\n\
             [pool.check]\nkind = \"tcp\"\ninterval = \"100ms\"\ntimeout = \"100ms\"\n\
             [[pool.backend]]\nname = \"bad\"\naddress = \"{}\"\n",
            refusing.address
        )
    };
    let pinned = |strict: bool| {
        format!(
            "[[pool.range]]\nname = \"here\"\ncidr = \"127.0.0.0/8\"\npin = [\"bad\"]\nstrict = {strict}\n\
             [[pool.backend]]\nname = \"good\"\naddress = \"{}\"\n",
            good.address
        )
    };
    let tables = checked("down", "") + &checked("strict", &pinned(true)) + &checked("lenient", &pinned(false));
    let turned_away = |scene: &Scene<'_>| {
        assert!(rest(&connect(scene.address)).is_ok_and(|answer| answer.is_empty()));
        let line = scene.ended();
        assert!(line["pool"].is_string() && line["backend"].is_null() && line["attempts"].is_null(), "{line}");
    };
    let cases = || {
        vec![
            case("backends-are-all-down", "pool = \"down\"", turned_away),
            case("backends-of-a-strict-range-are-down", "pool = \"strict\"", turned_away),
            case("backends-of-a-range-are-down", "pool = \"lenient\"", |scene| {
                assert_eq!(ask(&connect(scene.address), "hi").unwrap(), "good hi\n");
            }),
        ]
    };
    let sessile = Sessile::start(&with_listeners(&tables, &cases()));
    for pool in ["down", "strict", "lenient"] {
        eventually("checks to fail", || (backend_status(&sessile, pool, "bad")["state"] == "down").then_some(()));
    }
    play(&sessile, cases());
}

/// `on_marked_down = "close"`: what is open when checks fail is closed, at a pace.
#[test]
fn connections_of_a_backend_that_is_down_are_closed_where_asked_for() {
    let backend = Backend::on((own_address(3), 0).into(), |stream| echo_for_ever(&stream));
    let keeps = Backend::on((own_address(4), 0).into(), |stream| echo_for_ever(&stream));
    let checked = |name: &str, address: SocketAddr, on_down: &str| {
        format!(
            "[[pool]]\nname = \"{name}\"\non_marked_down = \"{on_down}\"\n\
             [pool.check]\nkind = \"tcp\"\ninterval = \"100ms\"\ntimeout = \"100ms\"\nfall = 2\n\
             [[pool.backend]]\nname = \"b0\"\naddress = \"{address}\"\n"
        )
    };
    let name = "backend-goes-under-its-connections";
    let tables = checked("close", backend.address, "close")
        + &checked("keep", keeps.address, "keep")
        + "[[listener]]\nname = \"keeps\"\nbind = \"127.0.0.1:0\"\npool = \"keep\"\n";
    let cases = vec![
        case(name, "pool = \"close\"", |scene| {
            let streams: Vec<_> = (0..3).map(|_| connect(scene.address)).collect();
            let kept = connect(scene.sessile.address("keeps"));
            for stream in streams.iter().chain([&kept]) {
                assert_eq!(ask(stream, "hi").unwrap(), "hi\n");
            }
            let state = |pool: &str| backend_status(scene.sessile, pool, "b0")["state"].clone();
            eventually("checks to succeed", || (state("close") == "up").then_some(()));
            drop((backend, keeps));
            for stream in &streams {
                assert_eq!(rest(stream), RESET);
            }
            eventually("checks to fail", || (state("keep") == "down").then_some(()));
            assert_eq!(ask(&kept, "still there").unwrap(), "still there\n");
        })
        .times(3),
    ];
    run(&tables, cases);
}

fn echo_for_ever(stream: &TcpStream) -> std::io::Result<()> {
    loop {
        let line = hear(stream)?;
        if line.is_empty() {
            return Ok(());
        }
        say(stream, line);
    }
}
