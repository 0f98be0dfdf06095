//! What is remembered of clients, through the front door: growth, flaps, restarts, crashes.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use rustix::process::Signal;

use crate::support::backend::{Backend, listener, pool};
use crate::support::load_support::Client;
use crate::support::{Sessile, eventually};

const CLIENTS: u8 = 100;

struct Scene {
    /// Named as in the file: `b0`, `b1` and so on.
    backends: Vec<Backend>,
    top: String,
    options: String,
}

impl Scene {
    fn new(top: &str, options: &str) -> Self {
        let backends = (0..6).map(|index| Backend::named(&format!("b{index}"))).collect();
        Self { backends, top: top.to_owned(), options: options.to_owned() }
    }

    /// With so many of the backends.
    fn config(&self, count: usize) -> String {
        let addresses: Vec<SocketAddr> = self.backends[..count].iter().map(|backend| backend.address).collect();
        self.top.clone() + &listener("p", "") + &pool("p", &self.options, &addresses)
    }
}

/// Which backend serves each client of a network.
fn homes(sessile: &Sessile, network: u8) -> BTreeMap<u8, String> {
    let front = sessile.address("l");
    let home = |n: u8| {
        let answer = Client::connect_from([127, 1, network, n].into(), front).ask("x");
        (n, answer.split(' ').next().unwrap().to_owned())
    };
    (1..=CLIENTS).map(home).collect()
}

fn breaks(sessile: &Sessile, cause: &str) -> u64 {
    sessile.status()["pools"][0]["breaks"][cause].as_u64().unwrap()
}

fn all_breaks(sessile: &Sessile) -> u64 {
    let status = sessile.status();
    status["pools"][0]["breaks"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum()
}

#[test]
fn a_pool_grows_and_shrinks_under_clients_that_stay() {
    let scene = Scene::new("", "");
    let sessile = Sessile::start(&scene.config(3));
    let before = homes(&sessile, 0);
    for count in [4, 6] {
        assert_eq!(sessile.reload(&scene.config(count))["accepted"], true);
        assert_eq!(homes(&sessile, 0), before, "{count} backends");
        let fresh = homes(&sessile, count as u8);
        assert_eq!(fresh.values().collect::<std::collections::BTreeSet<_>>().len(), count, "new clients spread");
    }
    assert_eq!(all_breaks(&sessile), 0);
    // What would move too many is refused where that is asked for, and changes nothing.
    sessile.rewrite(&scene.config(2));
    let (code, said) = crate::support::http::unix_post(&sessile.admin(), "/reload?max_move=0.05").unwrap();
    assert!(code == 409 && said.contains("of its clients would move, and 5.0 % is allowed"), "{code} {said}");
    assert_eq!(homes(&sessile, 0), before);
    // Only clients of a backend that is removed move, and each move is counted with its cause.
    assert_eq!(sessile.reload(&scene.config(2))["accepted"], true);
    let after = homes(&sessile, 0);
    let left = before.values().filter(|home| *home == "b2").count() as u64;
    assert_eq!(after.iter().filter(|(n, home)| before[*n] != **home).count() as u64, left);
    assert_eq!(breaks(&sessile, "removed"), left);
    sessile.line("a client that moved", |line| line["moved"] == "removed" && line["reason"] == "placement");
    sessile.line("a client that stayed", |line| line["moved"].is_null() && line["reason"] == "stick_table");
    assert!(sessile.metric("sessile_stick_table_known{stick_table=\"p\",age=\"1m\"}") >= f64::from(CLIENTS));
}

#[test]
fn a_restart_a_crash_and_a_pool_that_grew_meanwhile_move_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("stick-table");
    let scene = Scene::new(&format!("stick_table_file = \"{}\"\nstick_table_interval = \"1s\"\n", file.display()), "");
    let mut sessile = Sessile::start(&scene.config(3));
    let before = homes(&sessile, 0);
    sessile.signal(Signal::TERM);
    assert!(sessile.wait().success());
    sessile.rewrite(&scene.config(6));
    sessile.restart();
    assert_eq!(homes(&sessile, 0), before);
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).unwrap().permissions()) & 0o077, 0);

    // A crash forgets at most what came after the last interval.
    let others = homes(&sessile, 1);
    let written = || std::fs::metadata(&file).unwrap().modified().unwrap();
    for _ in 0..2 {
        let last = written();
        eventually("the file to be written again", || (written() > last).then_some(()));
    }
    sessile.signal(Signal::KILL);
    sessile.wait();
    sessile.rewrite(&scene.config(4));
    sessile.restart();
    let gone = |home: &String| home == "b4" || home == "b5";
    for (before, network) in [(&before, 0), (&others, 1)] {
        let after = homes(&sessile, network);
        assert!(before.values().any(|home| !gone(home)), "some have a backend to keep: {before:?}");
        assert!(before.iter().all(|(n, home)| gone(home) || after[n] == *home), "{before:?} {after:?}");
    }

    // What is not a stick-table file costs the stick table, and nothing else.
    sessile.signal(Signal::TERM);
    sessile.wait();
    std::fs::write(&file, "nonsense").unwrap();
    sessile.restart();
    eventually("a message", || sessile.said().contains("is no stick-table file").then_some(()));
    homes(&sessile, 0);
}

#[test]
fn a_client_waits_for_its_backend_or_is_refused_as_the_file_says() {
    let checks = "kind = \"tcp\"\ninterval = \"50ms\"\ntimeout = \"50ms\"\nrise = 1\nfall = 1\n";
    for rule in ["on_down = \"wait\"\nwait_max = \"20s\"\n", "on_down = \"reject\"\n"] {
        let mut scene = Scene::new("", rule);
        let config = scene.config(2).replace("kind = \"off\"\n", checks);
        let sessile = Sessile::start(&config);
        let home = homes(&sessile, 0)[&1].clone();
        let index: usize = home[1..].parse().unwrap();
        let state = |wanted: &str| {
            eventually(&format!("the backend to be {wanted}"), || {
                (sessile.status()["pools"][0]["backends"][index]["state"] == wanted).then_some(())
            });
        };
        let address = scene.backends[index].address;
        drop(scene.backends.remove(index));
        state("down");
        let front = sessile.address("l");
        let ask = std::thread::spawn(move || Client::connect_from([127, 1, 0, 1].into(), front).try_ask("x"));
        if rule.contains("reject") {
            assert!(ask.join().unwrap().is_err());
            sessile.ended("l", "settled_down");
            continue;
        }
        eventually("the client to wait", || {
            (sessile.json("/connections")["connections"][0]["stage"] == "connect").then_some(())
        });
        let name = home.clone();
        let _back = Backend::on(address, move |stream| {
            use std::io::{BufRead, BufReader, Write};
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line)?;
            (&stream).write_all(format!("{name} {line}").as_bytes())
        });
        assert!(ask.join().unwrap().unwrap().starts_with(&home));
        assert_eq!(all_breaks(&sessile), 0);
    }
}

#[test]
fn a_drain_closes_nothing_before_its_deadline_and_then_evenly() {
    const OPEN: usize = 60;
    let scene = Scene::new("", "drain_deadline = \"1s\"\ndrain_over = \"3s\"\n");
    let sessile = Sessile::start(&scene.config(2));
    let front = sessile.address("l");
    let mut clients: Vec<_> = (1..=200)
        .map(|n| {
            let mut client = Client::connect_from([127, 1, 9, n].into(), front);
            let home = client.ask("x");
            (n, home.starts_with("b0 "), client)
        })
        .collect();
    let lost = |clients: &[(u8, bool, Client)]| {
        let closed = |client: &Client| {
            client.stream().set_nonblocking(true).unwrap();
            let peeked = client.stream().peek(&mut [0]);
            client.stream().set_nonblocking(false).unwrap();
            !matches!(peeked, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
        };
        clients.iter().filter(|(.., client)| closed(client)).count()
    };
    clients.retain(|(_, own, _)| *own);
    assert!(clients.len() > OPEN, "{}", clients.len());
    let tell = |order: &str| {
        let path = format!("/backends/p/b0/{order}");
        crate::support::http::unix_post(&sessile.admin(), &path).unwrap()
    };
    let began = std::time::Instant::now();
    assert_eq!(tell("drain"), (200, "p/b0: draining\n".to_owned()));
    assert_eq!(tell("dance").0, 404);
    // Known clients are served there, new ones are not, and nothing is closed.
    let known = clients[0].0;
    assert!(Client::connect_from([127, 1, 9, known].into(), front).ask("x").starts_with("b0 "));
    assert!((1..=40).all(|n| Client::connect_from([127, 1, 10, n].into(), front).ask("x").starts_with("b1 ")));
    if began.elapsed().as_millis() < 900 {
        assert_eq!(lost(&clients), 0);
    }
    sessile.line("a connection that was drained", |line| line["ended"] == "drained");
    assert!(began.elapsed().as_millis() >= 1_000);
    assert!(lost(&clients) < clients.len(), "not all at once");
    assert!(Client::connect_from([127, 1, 9, known].into(), front).ask("x").starts_with("b1 "));
    assert_eq!(breaks(&sessile, "drain"), 1);
    eventually("every connection to be closed", || (lost(&clients) == clients.len()).then_some(()));
    assert!(began.elapsed().as_millis() >= 3_000, "{:?}", began.elapsed());
    assert_eq!(sessile.status()["pools"][0]["backends"][0]["runtime"], "drained");
    assert_eq!(tell("ready"), (200, "p/b0: ready\n".to_owned()));
    assert!((1..=40).any(|n| Client::connect_from([127, 1, 11, n].into(), front).ask("x").starts_with("b0 ")));
}

#[test]
fn a_client_is_refused_where_every_backend_is_full() {
    let scene = Scene::new("", "");
    let config = scene.config(2).replace("address", "max_connections = 1\naddress");
    let sessile = Sessile::start(&config);
    let front = sessile.address("l");
    let mut held: Vec<_> = (1..=2).map(|n| Client::connect_from([127, 1, 0, n].into(), front)).collect();
    let mut homes: Vec<_> = held.iter_mut().map(|client| client.ask("x")[..2].to_owned()).collect();
    homes.sort();
    assert_eq!(homes, ["b0", "b1"]);
    assert!(Client::connect_from([127, 1, 0, 3].into(), front).try_ask("x").is_err());
    sessile.ended("l", "backend_full");
}

#[test]
fn a_client_that_settled_behind_one_port_is_found_behind_the_other_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("stick-table");
    let backends: Vec<_> = (0..6).map(|index| Backend::named(&format!("b{index}"))).collect();
    let config = |count: usize| {
        let addresses: Vec<SocketAddr> = backends[..count].iter().map(|backend| backend.address).collect();
        let twin = |text: String| text.replace("\"l\"", "\"m\"").replace("\"p\"", "\"q\"");
        let (listener, pool) = (listener("p", ""), pool("p", "stick_group = \"web\"\n", &addresses));
        format!("stick_table_file = \"{}\"\n", file.display())
            + &listener
            + &twin(listener.clone())
            + &pool
            + &twin(pool.clone())
    };
    let mut sessile = Sessile::start(&config(2));
    let before = homes(&sessile, 0);
    assert_eq!(sessile.reload(&config(6))["accepted"], true);
    let behind = |sessile: &Sessile, listener: &str| -> BTreeMap<u8, String> {
        let front = sessile.address(listener);
        let home =
            |n| Client::connect_from([127, 1, 0, n].into(), front).ask("x").split(' ').next().unwrap().to_owned();
        before.keys().map(|n| (*n, home(*n))).collect()
    };
    assert_eq!(behind(&sessile, "m"), before);
    sessile.signal(Signal::TERM);
    assert!(sessile.wait().success());
    sessile.restart();
    assert_eq!(behind(&sessile, "m"), before);
    let stick_table = &sessile.json("/stick-table")[0];
    assert_eq!((&stick_table["name"], &stick_table["pools"]), (&"web".into(), &serde_json::json!(["p", "q"])));
    assert_eq!(stick_table["known"], u64::from(CLIENTS));
    assert_eq!(all_breaks(&sessile), 0);
}

#[test]
fn the_client_that_comes_most_often_is_shown() {
    let scene = Scene::new("", "");
    let sessile = Sessile::start(&scene.config(3));
    let front = sessile.address("l");
    for n in 0..1_500_u32 {
        let host = if n % 10 < 6 { 1 } else { 2 + (n % 200) as u8 };
        Client::connect_from([127, 1, 0, host].into(), front).ask("x");
    }
    let hottest = &sessile.json("/stick-table")[0]["hottest"][0];
    assert_eq!(hottest["key"], "127.1.0.1");
    let (share, error) = (hottest["share"].as_f64().unwrap(), hottest["share_error"].as_f64().unwrap());
    assert!((share - 0.6).abs() <= error && error < 0.1, "{hottest}");
    let home = Client::connect_from([127, 1, 0, 1].into(), front).ask("x");
    assert_eq!(hottest["backend"].as_str(), home.split(' ').next());
    assert!(sessile.metric("sessile_stick_table_hottest_ratio{stick_table=\"p\"}") > 0.25);
}

#[test]
fn the_shares_of_a_few_clients_are_what_they_are() {
    let scene = Scene::new("", "");
    let sessile = Sessile::start(&scene.config(3));
    let front = sessile.address("l");
    for n in 0..120_u8 {
        Client::connect_from([127, 1, 0, 1 + n % 60].into(), front).ask("x");
    }
    let table = &sessile.json("/stick-table")[0];
    let hottest = table["hottest"].as_array().unwrap();
    assert!(!hottest.is_empty());
    for hot in hottest {
        assert_eq!((hot["share"].as_f64(), hot["share_error"].as_f64()), (Some(1.0 / 60.0), Some(0.0)), "{hot}");
    }
    assert_eq!((&table["hottest_error"], &table["hottest_sampled"]), (&0.0.into(), &false.into()));
    let page = |what: &str| sessile.metric(&format!("sessile_stick_table_hottest_{what}{{stick_table=\"p\"}}"));
    assert!((page("ratio") - 1.0 / 60.0).abs() < 1e-9, "{}", page("ratio"));
    assert_eq!(page("error_ratio"), 0.0);
    let shown = crate::support::sessile::run(&["status", "--socket", sessile.admin().to_str().unwrap()]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("1.7 %") && !shown.contains('±') && !shown.contains("sampled"), "{shown}");
}

#[test]
fn clients_of_a_backend_that_went_with_a_restart_are_counted_when_they_move() {
    let scene = Scene::new("stick_table_file = \"$DIR/table\"\n", "");
    let mut sessile = Sessile::start(&scene.config(3));
    let before = homes(&sessile, 0);
    let left = before.values().filter(|home| *home == "b2").count() as u64;
    // Once more in between, without a visit of those clients: what is known of them stays known.
    for count in [2, 2] {
        sessile.signal(Signal::TERM);
        assert!(sessile.wait().success());
        sessile.rewrite(&scene.config(count));
        sessile.restart();
        assert_eq!(all_breaks(&sessile), 0);
    }
    let after = homes(&sessile, 0);
    assert_eq!(after.iter().filter(|(n, home)| before[*n] != **home).count() as u64, left);
    assert_eq!((breaks(&sessile, "removed"), all_breaks(&sessile)), (left, left));
    assert_eq!(homes(&sessile, 0), after);
    assert_eq!(all_breaks(&sessile), left, "each moves once");
    // Clients that never came are new, and no breaks.
    homes(&sessile, 1);
    assert_eq!(all_breaks(&sessile), left);
}
