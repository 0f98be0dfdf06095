//! Limits: on time, on connections in total and of a listener, on what one source may do.

use std::io::{ErrorKind, Write};
use std::net::{Shutdown, SocketAddr};
use std::thread;
use std::time::Duration;

use super::peer::{
    RESET, ask, connect, connect_from, extension, hear, hello, hello_body, is_quiet, records, rest, say,
};
use super::{Scene, assert_endings, case, listener_status, nothing_is_left, run, with_listeners, word_of};
use crate::support::backend::{Backend, pool};
use crate::support::{Sessile, eventually};

#[test]
fn silence_has_a_limit() {
    let app = Backend::named("b0");
    let tables = "[limits]\nidle_timeout = \"1s\"\n".to_owned() + &pool("app", "", &[app.address]);
    let cases = vec![
        case("nobody-says-anything", "pool = \"app\"", |scene| {
            let (fresh, used) = (connect(scene.address), connect(scene.address));
            assert_eq!(ask(&used, "hi").unwrap(), "b0 hi\n");
            assert_eq!((rest(&fresh), rest(&used)), (RESET, RESET));
        })
        .times(2),
        case("somebody-says-something", "pool = \"app\"", |scene| {
            let stream = connect(scene.address);
            for _ in 0..15 {
                assert_eq!(ask(&stream, "hi").unwrap(), "b0 hi\n");
                thread::sleep(Duration::from_millis(100));
            }
        }),
    ];
    run(&tables, cases);
}

#[test]
fn the_nearest_limit_counts() {
    let app = Backend::named("b0");
    let own = |pool: &str, limits: &str| self::pool(pool, "", &[app.address]) + "[pool.limits]\n" + limits + "\n";
    let tables = "[limits]\nidle_timeout = \"1h\"\n".to_owned()
        + &own("short", "idle_timeout = \"1s\"")
        + &own("long", "idle_timeout = \"off\"")
        + &pool("plain", "", &[app.address]);
    let ends = |scene: &Scene<'_>| {
        let stream = connect(scene.address);
        assert_eq!(ask(&stream, "hi").unwrap(), "b0 hi\n");
        assert_eq!(rest(&stream), RESET);
    };
    let stays = |scene: &Scene<'_>| {
        let stream = connect(scene.address);
        assert_eq!(ask(&stream, "hi").unwrap(), "b0 hi\n");
        thread::sleep(Duration::from_millis(1_500));
        assert_eq!(ask(&stream, "hi").unwrap(), "b0 hi\n");
    };
    let of_listener = "[listener.limits]\nidle_timeout = \"1s\"";
    let cases = vec![
        case("pool-has-a-limit-of-its-own", "pool = \"short\"", ends),
        case("listener-has-a-limit-of-its-own", &format!("pool = \"plain\"\n{of_listener}"), ends),
        case("pool-has-no-limit-where-its-listener-has-one", &format!("pool = \"long\"\n{of_listener}"), stays),
    ];
    run(&tables, cases);
}

#[test]
fn half_a_connection_has_a_limit() {
    let silent = Backend::serving(|stream| {
        let _ = rest(&stream);
        eventually("the reset", || stream.take_error().ok().flatten());
        Ok(())
    });
    let closing = Backend::serving(|stream| {
        stream.shutdown(Shutdown::Write)?;
        let _ = rest(&stream);
        Ok(())
    });
    let slow = Backend::serving(|stream| {
        rest(&stream).expect("an end");
        for _ in 0..15 {
            say(&stream, "x");
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    });
    let tables = "[limits]\nhalf_close_timeout = \"1s\"\n".to_owned()
        + &pool("silent", "", &[silent.address])
        + &pool("closing", "", &[closing.address])
        + &pool("slow", "", &[slow.address]);
    let cases = vec![
        case("backend-stalls-after-the-client-closed", "pool = \"silent\"", |scene| {
            let stream = connect(scene.address);
            stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(rest(&stream), RESET);
        }),
        case("client-stalls-after-the-backend-closed", "pool = \"closing\"", |scene| {
            let stream = connect(scene.address);
            assert_eq!(rest(&stream).unwrap(), b"");
            scene.ended();
        }),
        case("backend-goes-on-after-the-client-closed", "pool = \"slow\"", |scene| {
            let stream = connect(scene.address);
            stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(rest(&stream).unwrap(), [b'x'; 15]);
        }),
    ];
    run(&tables, cases);
}

#[test]
fn age_has_a_limit() {
    let app = Backend::named("b0");
    let tables = "[limits]\nlifetime = \"500ms\"\n".to_owned() + &pool("app", "", &[app.address]);
    let cases = vec![
        case("connection-grows-old", "pool = \"app\"", |scene| {
            let (idle, busy) = (connect(scene.address), connect(scene.address));
            while ask(&busy, "hi").is_ok_and(|answer| answer == "b0 hi\n") {
                thread::sleep(Duration::from_millis(10));
            }
            assert_eq!(rest(&idle), RESET);
            let duration_us = scene.ended()["duration_us"].as_u64().unwrap();
            assert!((500_000..1_500_000).contains(&duration_us), "{duration_us} us");
        })
        .times(2),
    ];
    run(&tables, cases);
}

/// At a limit nothing is accepted: clients wait in the backlog, a gauge says so, and no client is turned away.
#[test]
fn clients_wait_in_the_backlog_at_a_limit() {
    let app = Backend::named("b0");
    let flood = |sessile: &Sessile, name: &str, address: SocketAddr| {
        let held: Vec<_> = (0..2).map(|_| connect(address)).collect();
        for stream in &held {
            assert_eq!(ask(stream, "first").unwrap(), "b0 first\n");
        }
        let waiting: Vec<_> = (0..30).map(|_| connect(address)).collect();
        waiting.iter().for_each(|stream| say(stream, "me too\n"));
        eventually("accept to pause", || paused(sessile).then_some(()));
        assert_eq!(listener_status(&sessile.status(), name)["open"], 2);
        assert_eq!(ask(&held[0], "still").unwrap(), "b0 still\n");
        assert!(waiting.iter().all(is_quiet), "{name}: somebody was served beyond the limit, or turned away");
        drop(held);
        // One after the other, in whatever order the kernel hands them out.
        let mut waiting: Vec<_> = waiting.into_iter().map(Some).collect();
        eventually("everybody to be served", || {
            for place in &mut waiting {
                if let Some(stream) = place.take_if(|stream| !is_quiet(stream)) {
                    assert_eq!(hear(&stream).unwrap(), "b0 me too\n");
                    assert!(listener_status(&sessile.status(), name)["open"].as_u64() <= Some(2));
                }
            }
            waiting.iter().all(Option::is_none).then_some(())
        });
        eventually("accept to go on", || (!paused(sessile)).then_some(()));
    };
    let total = "[limits]\nmax_connections = 2\n".to_owned() + &pool("app", "", &[app.address]);
    let sessile = run(
        &total,
        vec![
            case("clients-flood-the-process", "pool = \"app\"", |scene| {
                flood(scene.sessile, scene.case, scene.address);
            })
            .times(32),
        ],
    );
    assert!(sessile.metrics().contains("\nsessile_permits_max 2\n"));
    let listener = pool("app", "", &[app.address]);
    run(
        &listener,
        vec![
            case("clients-flood-a-listener", "pool = \"app\"\nmax_connections = 2", |scene| {
                flood(scene.sessile, scene.case, scene.address);
            })
            .times(32),
        ],
    );
}

fn paused(sessile: &Sessile) -> bool {
    let page = sessile.metrics();
    let workers = page.lines().filter(|line| line.starts_with("sessile_accept_paused{"));
    workers.map(|line| line.ends_with(" 1")).collect::<Vec<_>>().contains(&true)
}

/// Long hellos share a bounded memory; one that comes too late is refused, and ordinary hellos are not.
#[test]
fn hellos_share_their_memory() {
    let app = Backend::named("b0");
    let tables =
        "[limits]\nhello_timeout = \"60s\"\nhello_memory = \"1 MiB\"\n".to_owned() + &pool("app", "", &[app.address]);
    // In records of one byte, and so nearly 400 KiB.
    let body = hello_body(&[], &[0x13, 0x01], &[0], &extension(21, &vec![0; 60_000]));
    let wire = records(&body, 1);
    let reading = "tls = \"passthrough\"\npool = \"app\"\nroute = [{ sni = \"a.example\", pool = \"app\" }]";
    let cases = vec![
        case("hellos-fill-their-memory", reading, |scene| {
            let held = |least: f64| {
                eventually("the memory to be counted", || {
                    (scene.sessile.metric("sessile_hello_memory_bytes") >= least).then_some(())
                });
            };
            let unfinished = || {
                let stream = connect(scene.address);
                say(&stream, &wire[..wire.len() - 1]);
                stream
            };
            let (first, second) = (unfinished(), unfinished());
            held(1_048_576.0);
            let third = connect(scene.address);
            let _ = (&third).write_all(&wire);
            scene.ended();
            let ordinary = connect(scene.address);
            say(&ordinary, hello(Some("a.example"), 0));
            assert_eq!(ask(&ordinary, "").unwrap().as_bytes()[..3], *b"b0 ");
            drop((first, second, ordinary));
        })
        .besides("hello_truncated", 2)
        .besides("done", 1),
    ];
    let sessile = run(&tables, cases);
    assert_eq!(sessile.metric("sessile_hello_memory_bytes"), 0.0);
    assert_eq!(sessile.metric("sessile_hello_memory_max_bytes"), 1_048_576.0);
}

/// A reset, whether it was met while writing or while reading.
fn is_reset(answer: &Result<String, ErrorKind>) -> bool {
    matches!(answer, Err(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe))
}

/// A source has so many connections; more are reset, and another source does not notice.
#[test]
fn a_source_has_so_many_connections() {
    let app = Backend::named("b0");
    let tables = "[limits]\nmax_connections_per_source = 3\n".to_owned() + &pool("app", "", &[app.address]);
    let opens = |address: SocketAddr, before: &str| {
        let knock = || {
            let stream = connect_from(([127, 0, 0, 10], 0).into(), address);
            let answer = ask(&stream, &format!("{before}hi"));
            (stream, answer)
        };
        let held: Vec<_> = (0..3).map(|_| knock()).collect();
        assert!(held.iter().all(|(_, answer)| answer.as_deref() == Ok("b0 hi\n")), "{held:?}");
        for _ in 0..5 {
            assert!(is_reset(&knock().1));
        }
        held
    };
    let cases = vec![
        case("source-opens-too-many", "pool = \"app\"", |scene| {
            let mut held = opens(scene.address, "");
            let other = connect_from(([127, 0, 0, 9], 0).into(), scene.address);
            assert_eq!(ask(&other, "hi").unwrap(), "b0 hi\n");
            // A place that is given back can be taken again.
            drop(held.pop());
            scene.open(3);
            let again = connect_from(([127, 0, 0, 10], 0).into(), scene.address);
            assert_eq!(ask(&again, "hi").unwrap(), "b0 hi\n");
        })
        .times(5)
        .besides("done", 5),
        case("announced-source-opens-too-many", "pool = \"app\"\ntrust = [\"127.0.0.0/8\"]", |scene| {
            let held = opens(scene.address, "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
            // A header without an address (`LOCAL`) is not limited.
            let local: Vec<_> = (0..6).map(|_| connect(scene.address)).collect();
            for stream in &local {
                say(stream, "PROXY UNKNOWN\r\n");
                assert_eq!(ask(stream, "hi").unwrap(), "b0 hi\n");
            }
            drop(held);
        })
        .times(5)
        .besides("done", 9),
    ];
    let sessile = run(&tables, cases);
    assert_eq!(sessile.metric("sessile_sources"), 0.0, "sources are forgotten");
}

/// A source begins so many connections a second; more are reset, and the next second it is welcome again.
#[test]
fn a_source_has_a_rate() {
    let name = "source-opens-too-fast";
    let app = Backend::named("b0");
    let tables = "[limits]\nconnection_rate_per_source = 5\n".to_owned() + &pool("app", "", &[app.address]);
    let unplayed = [case(name, "pool = \"app\"", |_| {})];
    let sessile = Sessile::start(&with_listeners(&tables, &unplayed));
    let address = sessile.address(name);
    let is_served = |last: u8| {
        let stream = connect_from(([127, 0, 0, last], 0).into(), address);
        let answer = ask(&stream, "hi");
        assert!(is_reset(&answer) || answer.as_deref() == Ok("b0 hi\n"), "{answer:?}");
        answer.is_ok()
    };
    let (mut served, mut tries) = (0, 0);
    let mut knock = || {
        tries += 1;
        let is_in = is_served(10);
        served += u64::from(is_in);
        is_in
    };
    while knock() {}
    eventually("another second", || knock().then_some(()));
    assert!(is_served(11), "another source does not notice");
    let expected = [("done", served + 1), (word_of(name), tries - served)].into();
    assert_endings(&sessile, name, &expected);
    nothing_is_left(&sessile);
}
