//! This process and this machine: ports, descriptors, routes, bugs, the end.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;

use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};
use serde_json::Value;

use super::peer::{Blackhole, Holding, RESET, ask, connect, connect_from, hear, hello, is_quiet, reset, rest, say};
use super::{
    Scene, assert_endings, backend_status, case, counted, namespace, nothing_is_left, play, run, with_listeners,
    word_of,
};
use crate::support::backend::{Backend, pool};
use crate::support::{Sessile, eventually, http, skip};

fn here(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Ways that lead nowhere, and peers that are there no more, in a namespace of their own.
#[test]
fn peers_behind_no_way() {
    if !namespace::possible("peers_behind_no_way") {
        return;
    }
    let (no_route, unreachable) = ("198.51.100.1:80".parse().unwrap(), "192.0.2.1:80".parse().unwrap());
    let tables =
        "[limits]\nuser_timeout = \"1s\"\nkeepalive = \"1s\"\nkeepalive_interval = \"1s\"\nkeepalive_count = 1\n"
            .to_owned()
            + &pool("no-route", "", &[no_route])
            + &pool("unreachable", "", &[unreachable])
            + &pool("first", "", &[here(9001)])
            + &pool("second", "", &[here(9002)])
            + &pool("third", "", &[here(9003)]);
    let cases = || {
        let unreached = |scene: &Scene<'_>| {
            assert_eq!(rest(&connect(scene.address)), Ok(vec![]));
            assert_eq!(scene.ended()["attempts"], 2);
        };
        vec![
            case("backend-has-no-route", "pool = \"no-route\"", unreached),
            case("backend-has-an-unreachable-route", "pool = \"unreachable\"", unreached),
            case("client-vanishes", "pool = \"first\"", |scene| {
                let (backend, stream) = greeted(here(9001), here(20_001), scene.address);
                namespace::swallow(20_001);
                say(&backend.held.lock().unwrap()[0], "news\n");
                scene.ended();
                assert!(is_quiet(&stream));
            }),
            case("client-vanishes-in-silence", "pool = \"second\"", |scene| {
                let (_backend, stream) = greeted(here(9002), here(20_002), scene.address);
                namespace::swallow(20_002);
                scene.ended();
                assert!(is_quiet(&stream));
            }),
            case("backend-vanishes", "pool = \"third\"", |scene| {
                let (backend, stream) = greeted(here(9003), here(20_003), scene.address);
                // The port on our side: the backend's own still has to let its thread go.
                namespace::swallow(backend.held.lock().unwrap()[0].peer_addr().unwrap().port());
                say(&stream, "news\n");
                assert_eq!(rest(&stream), RESET);
                let duration_us = scene.ended()["duration_us"].as_u64().unwrap();
                assert!(duration_us < 5_000_000, "user_timeout is 1 s: {duration_us} us");
            }),
        ]
    };
    let config = with_listeners(&tables, &cases());
    let script = format!("ip route add unreachable 192.0.2.0/24\n{}", namespace::FILTER);
    let (sessile, namespace) = namespace::start(&script, &config);
    namespace.inside(|| play(&sessile, cases()));
}

/// A backend, and a client that has reached it.
fn greeted(backend: SocketAddr, client: SocketAddr, balancer: SocketAddr) -> (Holding, TcpStream) {
    let backend = Holding::on(backend);
    let stream = connect_from(client, balancer);
    assert_eq!(hear(&stream).unwrap(), "welcome\n");
    (backend, stream)
}

/// 200 local ports: the next connection ends as `no_port`, no backend is blamed, and ports that are given back serve.
#[test]
fn local_ports_run_out() {
    const PORTS: u16 = 200;
    if !namespace::possible("local_ports_run_out") {
        return;
    }
    let (single, double) = ("ports-run-out", "ports-of-two-sources");
    let tables = pool("one", "", &[here(9001)])
        + &pool("two", "source = [\"127.0.0.2\", \"127.0.0.3\"]", &[here(9002)])
        + &format!("[[listener]]\nname = \"{single}\"\nbind = \"127.0.0.1:8001\"\npool = \"one\"\n")
        + &format!("[[listener]]\nname = \"{double}\"\nbind = \"127.0.0.1:8002\"\npool = \"two\"\n");
    let narrow = "sysctl -qw net.ipv4.ip_local_port_range='40000 40199'";
    let (sessile, namespace) = namespace::start(narrow, &tables);
    namespace.inside(|| {
        let (one, two) = (Holding::on(here(9001)), Holding::on(here(9002)));
        // Clients bring ports of their own, so that the narrow range is the balancer's alone.
        let mut ports = 20_000..30_000;
        let mut client = |to: u16| connect_from(here(ports.next().unwrap()), here(to));

        let mut held: Vec<_> = (0..PORTS).map(|_| client(8001)).collect();
        held.iter().for_each(|stream| assert_eq!(hear(stream).unwrap(), "welcome\n"));
        for _ in 0..20 {
            assert_eq!(rest(&client(8001)), Ok(vec![]), "no port is left");
        }
        let backend = backend_status(&sessile, "one", "b0");
        assert_eq!((&backend["connect_failures"], &backend["ejected"]), (&0.into(), &false.into()), "{backend}");
        assert_eq!(backend["connections"], PORTS);

        held.drain(..50).for_each(reset);
        eventually("50 to be gone", || (backend_status(&sessile, "one", "b0")["leases"] == PORTS - 50).then_some(()));
        let again: Vec<_> = (0..50).map(|_| client(8001)).collect();
        again.iter().for_each(|stream| assert_eq!(hear(stream).unwrap(), "welcome\n"));

        // Two sources have twice the ports.
        let twice: Vec<_> = (0..2 * PORTS).map(|_| client(8002)).collect();
        twice.iter().for_each(|stream| assert_eq!(hear(stream).unwrap(), "welcome\n"));
        drop((held, again, twice));
        [one, two].iter().for_each(|backend| backend.held.lock().unwrap().clear());
        let count = u64::from(PORTS);
        let expected = [(word_of(single), 20), ("client_reset", 50), ("done", count)].into();
        assert_endings(&sessile, single, &expected);
        assert_endings(&sessile, double, &[(word_of(double), 2 * count)].into());
        nothing_is_left(&sessile);
    });
}

/// A `source` address that this host does not have is a fault of the configuration, not of a backend.
#[test]
fn an_address_of_others_is_no_source() {
    let app = Backend::named("b0");
    let tables = pool("app", "source = [\"192.0.2.1\"]", &[app.address]);
    let cases = vec![case("source-is-not-ours", "pool = \"app\"", |scene| {
        assert_eq!(rest(&connect(scene.address)), Ok(vec![]));
    })];
    let sessile = run(&tables, cases);
    assert_eq!(backend_status(&sessile, "app", "b0")["connect_failures"], 0);
}

/// Sets how many more descriptors a process can open.
pub fn leave_descriptors(sessile: &Sessile, free: u64) {
    let open = std::fs::read_dir(format!("/proc/{}/fd", sessile.pid())).expect("/proc").flatten();
    let taken: Vec<u64> = open.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    // The limit is on numbers: one below it is free unless it is taken.
    let below = |limit: u64| limit - taken.iter().filter(|number| **number < limit).count() as u64;
    let limit = (0..).take_while(|limit| below(*limit) <= free).last().expect("a limit");
    limit_descriptors(sessile, limit);
}

/// Sets the limit on descriptors of a process.
pub fn limit_descriptors(sessile: &Sessile, limit: u64) {
    let pid = Pid::from_raw(sessile.pid() as i32);
    prlimit(pid, Resource::Nofile, Rlimit { current: Some(limit), maximum: Some(20_000) }).expect("our own process");
}

/// A client that could be accepted but not connected ends as `no_descriptor`, and others had better wait: as they do
/// when not even accepting is possible. What is connected lives.
#[test]
fn no_descriptor_is_left_for_a_backend() {
    let app = Backend::named("b0");
    let name = "descriptors-run-out-for-the-backend";
    let tables = "workers = 1\n".to_owned() + &pool("app", "", &[app.address]);
    let unplayed = [case(name, "pool = \"app\"", |_| {})];
    let sessile = Sessile::start(&with_listeners(&tables, &unplayed));
    let address = sessile.address(name);
    let living = connect(address);
    assert_eq!(ask(&living, "hi").unwrap(), "b0 hi\n");

    // A scrape that was there before goes on.
    let scrape = UnixStream::connect(sessile.admin()).unwrap();
    let paused = || paused_in(&scraped(&scrape, "/metrics"), "descriptors");
    assert_eq!(paused(), 0);
    leave_descriptors(&sessile, 1);
    let flood: Vec<_> = (0..20).map(|_| connect(address)).collect();
    eventually("the first to be turned away", || flood.iter().any(|stream| !is_quiet(stream)).then_some(()));
    leave_descriptors(&sessile, 0);
    let before = paused();
    eventually("accept to pause again", || (paused() > before).then_some(()));

    // Bulk wants a pipe to be spliced by, and goes on without.
    let bulk = "x".repeat(1 << 20);
    for _ in 0..20 {
        assert_eq!(ask_aside(&living, &bulk).len(), bulk.len() + 4);
    }
    limit_descriptors(&sessile, 20_000);
    let is_served = |stream: &TcpStream| ask(stream, "at last").is_ok_and(|answer| answer == "b0 at last\n");
    let (served, turned_away): (Vec<_>, Vec<_>) = flood.into_iter().partition(is_served);
    assert!(served.len() >= 10, "{} of 20 were turned away", turned_away.len());

    let expected = [(word_of(name), turned_away.len() as u64), ("done", served.len() as u64 + 1)].into();
    drop((living, served, turned_away));
    assert_endings(&sessile, name, &expected);
    eventually("accept to go on", || (sessile.metric("sessile_accept_paused{worker=\"0\"}") == 0.0).then_some(()));
    assert_eq!(backend_status(&sessile, "app", "b0")["connect_failures"], 0);
    nothing_is_left(&sessile);
}

/// A page over an admin connection that stays open.
fn scraped(mut stream: &UnixStream, path: &str) -> String {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").expect("the admin socket takes it");
    let mut reader = BufReader::with_capacity(1, stream); // takes no byte of the next answer
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).expect("a head");
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    String::from_utf8(body).expect("text")
}

/// Asks with more than the buffers between hold: writes in a thread of its own.
fn ask_aside(stream: &TcpStream, line: &str) -> String {
    std::thread::scope(|scope| {
        scope.spawn(|| say(stream, format!("{line}\n")));
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).expect("an answer");
        answer
    })
}

/// Started with few descriptors, an odd or an even number, and flooded: accept pauses, open connections go on and
/// are shown, and every client is served in the end.
#[test]
fn descriptors_are_few() {
    let app = Backend::named("b0");
    let flood = |scene: &Scene<'_>| {
        let mut waiting: Vec<_> = (0..60).map(|_| connect(scene.address)).collect();
        waiting.iter().for_each(|stream| say(stream, "hi\n"));
        eventually("accept to pause", || {
            let page = scene.sessile.metrics();
            (paused_in(&page, "limit") + paused_in(&page, "descriptors") > 0).then_some(())
        });
        let mut served = VecDeque::new();
        eventually("everybody to be served", || {
            let (quiet, some): (Vec<_>, Vec<_>) = std::mem::take(&mut waiting).into_iter().partition(is_quiet);
            waiting = quiet;
            for stream in some {
                assert_eq!(hear(&stream).unwrap(), "b0 hi\n");
                served.push_back(stream);
            }
            // The oldest makes room; it lived through the flood.
            let oldest = served.pop_front()?;
            assert_eq!(ask(&oldest, "still").unwrap(), "b0 still\n");
            waiting.is_empty().then_some(())
        });
    };
    for limit in [64, 65] {
        let cases = || vec![case("descriptors-run-out", "pool = \"app\"", flood).times(60)];
        let config = with_listeners(&pool("app", "", &[app.address]), &cases());
        let sessile = Sessile::start_in_shell(&[], &format!("ulimit -n {limit}; exec \"$0\" \"$@\""), &config);
        assert_eq!(sessile.metric("process_max_fds"), f64::from(limit));
        play(&sessile, cases());
    }
}

/// How often workers have paused accepting, as a metrics page says.
fn paused_in(page: &str, why: &str) -> u64 {
    let start = format!("sessile_accept_paused_{why}_total{{");
    let workers = page.lines().filter(|line| line.starts_with(&start));
    workers.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
}

/// A panic in one connection's step resets that connection and touches no other, whatever it was doing.
#[test]
fn a_panic_costs_one_connection() {
    if !cfg!(debug_assertions) {
        return skip("a_panic_costs_one_connection", "only a debug build can be asked to panic");
    }
    let (app, blackhole) = (Backend::named("b0"), Blackhole::new());
    let tables = "[limits]\nhello_timeout = \"60s\"\n".to_owned()
        + &pool("app", "", &[app.address])
        + &pool("blackhole", "connect_timeout = \"60s\"\nconnect_budget = \"60s\"", &[blackhole.address])
        + "[[listener]]\nname = \"others\"\nbind = \"127.0.0.1:0\"\npool = \"app\"\n";
    let keys = "pool = \"app\"\ntls = \"passthrough\"\nnot_tls = \"app\"\n\
                [[listener.route]]\nsni = \"black.example\"\npool = \"blackhole\"\n";
    let cases = vec![
        case("step-panics", keys, |scene| {
            let others: Vec<_> = (0..20).map(|_| connect(scene.sessile.address("others"))).collect();
            let others_live = || others.iter().all(|stream| ask(stream, "hi").is_ok_and(|answer| answer == "b0 hi\n"));
            assert!(others_live());
            for stage in ["relay", "preread", "connect"] {
                for _ in 0..5 {
                    let stream = connect(scene.address);
                    match stage {
                        "relay" => assert_eq!(ask(&stream, "hi").unwrap(), "b0 hi\n"),
                        "preread" => say(&stream, &hello(None, 0)[..20]),
                        _ => say(&stream, hello(Some("black.example"), 0)),
                    }
                    let id = id_of(scene, &stream, stage);
                    let (status, _) =
                        http::unix_post(&scene.sessile.admin(), &format!("/connections/{id}/panic")).unwrap();
                    assert_eq!(status, 202);
                    assert_eq!(rest(&stream), RESET, "{stage}");
                    assert!(others_live(), "{stage}");
                }
            }
            let (status, _) = http::unix_post(&scene.sessile.admin(), "/connections/99999/panic").unwrap();
            assert_eq!(status, 202, "nobody's number panics nobody");
        })
        .times(15),
    ];
    let sessile = run(&tables, cases);
    assert_endings(&sessile, "others", &[("done", 20)].into());
    let page = sessile.metrics();
    let panics = page.lines().filter_map(|line| line.strip_prefix("sessile_worker_panics_total{"));
    assert_eq!(panics.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum::<u64>(), 15);
}

/// The number of a client's connection once it is in a stage. Two connections of one address and port may be open at
/// once, to two listeners: the kernel gives a port for each destination.
fn id_of(scene: &Scene<'_>, client: &TcpStream, stage: &str) -> u64 {
    let own = client.local_addr().expect("an address").to_string();
    let asked = |known: &&Value| known["listener"] == scene.case && known["client"] == own.as_str();
    eventually(&format!("a connection of {own} in {stage}"), || {
        let shown = scene.sessile.json("/connections");
        let known = shown["connections"].as_array()?.iter().find(asked)?;
        (known["stage"] == stage).then(|| known["id"].as_u64()).flatten()
    })
}

/// At `stop_deadline` what is still open is closed, spread over a while, and counted until the last has gone.
#[test]
fn the_process_stops_over_its_connections() {
    let name = "process-stops";
    let app = Backend::named("b0");
    let tables = "stop_deadline = \"300ms\"\n".to_owned() + &pool("app", "", &[app.address]);
    let unplayed = [case(name, "pool = \"app\"", |_| {})];
    let mut sessile = Sessile::start(&with_listeners(&tables, &unplayed));
    let address = sessile.address(name);
    let streams: Vec<_> = (0..100).map(|_| connect(address)).collect();
    streams.iter().for_each(|stream| assert_eq!(ask(stream, "hi").unwrap(), "b0 hi\n"));
    sessile.signal(Signal::TERM);
    eventually("connections to be closed", || {
        let shown = counted(&sessile, name);
        let closed = shown.get(word_of(name)).copied()?;
        assert_eq!(shown, BTreeMap::from([(word_of(name).to_owned(), closed)]));
        Some(())
    });
    streams.iter().for_each(|stream| assert_eq!(rest(stream), RESET));
    assert!(sessile.wait().success());
    let lines: Vec<_> = sessile.lines().into_iter().filter(|line| line["listener"] == name).collect();
    assert_eq!(lines.len(), 100);
    lines.iter().for_each(|line| assert_eq!((&line["ended"], &line["fault"]), (&word_of(name).into(), &"us".into())));
}
