//! Pools whose backends DNS names: which users move when pods come, go and return, and what a dead name server changes.
//!
//! A pod answers with its name and its life, `web-0@1`. Invariant: a user moves only if its pod has gone.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;
use rustix::process::Signal;

use super::knot::Knot;
use super::name_server::{NameServer, Say, a, srv};
use crate::support::backend::{Backend, listener};
use crate::support::load_support::Client;
use crate::support::{Sessile, eventually};

const SERVICE: &str = "_http._tcp.web.example";
/// Users of each kind.
const USERS: usize = 200;

/// Running pods by name.
struct Pods(BTreeMap<String, Backend>);

impl Pods {
    /// Pods `web-0` and so on, which answer as their kind of clients asks.
    fn start(count: usize, serve: fn(&str, &TcpStream) -> std::io::Result<()>) -> Self {
        Self((0..count).map(|index| (format!("web-{index}"), pod(&format!("web-{index}@1"), serve))).collect())
    }

    /// Lines of a zone for the first pods.
    fn zone(&self, count: usize) -> String {
        let lines = self.0.iter().take(count).map(|(name, pod)| {
            format!("_http._tcp.web 1 SRV 0 10 {} {name}.web\n{name}.web 1 A 127.0.0.1\n", pod.address.port())
        });
        lines.collect()
    }

    /// What a name server says with these pods and no others.
    fn say(&self, names: &[&str]) -> Say {
        let target = |name: &str| format!("{name}.web.example");
        let services = names.iter().map(|name| srv(SERVICE, &target(name), self.0[*name].address.port(), 1)).collect();
        Say::Records(services, names.iter().map(|name| a(&target(name), [127, 0, 0, 1], 1)).collect())
    }
}

/// A running pod.
fn pod(life: &str, serve: fn(&str, &TcpStream) -> std::io::Result<()>) -> Backend {
    let life = life.to_owned();
    Backend::serving(move |stream| serve(&life, &stream))
}

fn lines(life: &str, stream: &TcpStream) -> std::io::Result<()> {
    crate::support::backend::echo(life, stream)
}

/// Answers one request.
fn http(life: &str, mut stream: &TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length";
    stream.write_all(format!("{head}: {}\r\n\r\n{life}", life.len()).as_bytes())
}

/// The configuration of a pool that finds its backends by this name server.
fn config(server: SocketAddr, options: &str, discover: &str) -> String {
    format!(
        "stick_table_file = \"$DIR/tables\"\n[discovery]\nresolvers = [\"{server}\"]\n{}\
         [[pool]]\nname = \"p\"\n{options}\n[pool.check]\nkind = \"off\"\n\
         [pool.discover]\nkind = \"dns\"\nname = \"{SERVICE}\"\n{discover}\n",
        listener("p", "")
    )
}

/// Waits until the backends that the source names are these.
fn names(sessile: &Sessile, expected: &[&str]) {
    eventually(&format!("the backends {expected:?}"), || {
        let backends = sessile.json("/backends");
        let named = backends.as_array().unwrap().iter().filter(|backend| backend["absent"] != true);
        let mut named: Vec<_> = named.map(|backend| backend["name"].as_str().unwrap()).collect();
        named.sort_unstable();
        (named == expected).then_some(())
    });
}

/// Which life of a pod serves each user by its source address.
fn by_source(sessile: &Sessile, users: std::ops::Range<usize>) -> BTreeMap<usize, String> {
    let front = sessile.address("l");
    let home = |user: usize| {
        let source = IpAddr::from([127, 3, (user / 200) as u8, (user % 200 + 1) as u8]);
        let answer = Client::connect_from(source, front).ask("x");
        (user, answer.split(' ').next().unwrap().to_owned())
    };
    users.map(home).collect()
}

/// Which life of a pod serves each user by its cookie. A user without one gets it.
fn by_cookie(
    sessile: &Sessile,
    jar: &mut BTreeMap<usize, String>,
    users: std::ops::Range<usize>,
) -> BTreeMap<usize, String> {
    let front = sessile.address("l");
    let mut homes = BTreeMap::new();
    for user in users {
        let mut stream = TcpStream::connect(front).unwrap();
        stream.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
        let cookie = jar.get(&user).map(|value| format!("Cookie: {value}\r\n")).unwrap_or_default();
        write!(stream, "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n{cookie}\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
        let set = head.lines().find(|line| line.to_ascii_lowercase().starts_with("set-cookie: "));
        if let Some(set) = set {
            jar.insert(user, set["set-cookie: ".len()..].split(';').next().unwrap().to_owned());
        }
        homes.insert(user, body.to_owned());
    }
    homes
}

/// Whether a user is at one of the first three pods.
fn stays(home: &str) -> bool {
    ["web-0@1", "web-1@1", "web-2@1"].contains(&home)
}

/// The users of pods that stay have not moved, and all others are at a pod that stays.
fn only_users_of_removed_pods_moved(before: &BTreeMap<usize, String>, after: &BTreeMap<usize, String>) {
    let moved = before.iter().filter(|(user, home)| after[user] != **home);
    for (user, home) in moved {
        assert!(!stays(home), "user {user} left {home} for {}", after[user]);
    }
    assert!(after.values().all(|home| stays(home)), "{after:?}");
}

/// Scales a service from 3 pods to 10 and back, with users that come before and between.
fn scale(
    knot: &Knot,
    pods: &Pods,
    sessile: &Sessile,
    mut homes: impl FnMut(std::ops::Range<usize>) -> BTreeMap<usize, String>,
) {
    let all: Vec<_> = pods.0.keys().map(String::as_str).collect();
    names(sessile, &all[..3]);
    let first = homes(0..USERS);
    knot.set(&pods.zone(10));
    names(sessile, &all);
    assert_eq!(homes(0..USERS), first, "no user moves when pods come");
    let ten = homes(0..2 * USERS);
    let leaving = ten.values().filter(|home| !stays(home)).count();
    assert!(leaving > USERS / 4, "{leaving} users are at the new pods");
    knot.set(&pods.zone(3));
    names(sessile, &all[..3]);
    let three = eventually("the users of removed pods to move", || {
        let now = homes(0..2 * USERS);
        now.values().all(|home| stays(home)).then_some(now)
    });
    only_users_of_removed_pods_moved(&ten, &three);
    assert_eq!(homes(0..2 * USERS), three, "each moves once");
}

#[test]
fn only_users_of_removed_pods_move_by_source() {
    let pods = Pods::start(10, lines);
    let Some(knot) = Knot::start("only_users_of_removed_pods_move_by_source", &pods.zone(3)) else { return };
    let options = "drain_deadline = \"1s\"\nstick_table = \"1 MiB\"";
    let sessile = Sessile::start(&config(knot.address, options, ""));
    scale(&knot, &pods, &sessile, |users| by_source(&sessile, users));
}

#[test]
fn only_users_of_removed_pods_move_by_cookie() {
    let pods = Pods::start(10, http);
    let Some(knot) = Knot::start("only_users_of_removed_pods_move_by_cookie", &pods.zone(3)) else { return };
    let keys = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(keys.path(), "0123456789abcdef5a69788796a5b4c3".repeat(2)).unwrap();
    let cookie = format!("cookie = {{ mode = \"insert\", keys = \"{}\" }}", keys.path().display());
    let options = format!("http = true\nbalance = \"random\"\ndrain_deadline = \"1s\"\n{cookie}");
    let sessile = Sessile::start(&config(knot.address, &options, ""));
    let mut jar = BTreeMap::new();
    scale(&knot, &pods, &sessile, |users| by_cookie(&sessile, &mut jar, users));
}

#[test]
fn a_rolling_replacement_cuts_no_session_before_its_pod_ends_and_moves_no_user() {
    let mut pods = Pods::start(5, lines);
    let all: Vec<_> = pods.0.keys().cloned().collect();
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    let said = pods.say(&all);
    let server = NameServer::start(move |_, _| said.clone());
    let sessile = Sessile::start(&config(server.address, "stick_table = \"1 MiB\"", ""));
    names(&sessile, &all);
    let mut expected = by_source(&sessile, 0..USERS);
    for name in &all {
        let user = *expected.iter().find(|(_, home)| home.starts_with(name)).expect("every pod has users").0;
        let mut session = Client::connect_from(IpAddr::from([127, 3, 0, (user + 1) as u8]), sessile.address("l"));
        assert_eq!(session.ask("before"), format!("{name}@1 before"));

        // Its record goes; the pod serves on while it terminates.
        let others: Vec<_> = all.iter().filter(|other| *other != name).copied().collect();
        let said = pods.say(&others);
        server.say(move |_, _| said.clone());
        names(&sessile, &others);
        assert_eq!(session.ask("during"), format!("{name}@1 during"));
        assert_eq!(by_source(&sessile, 0..USERS), expected, "known users stay while {name} terminates");

        // It returns at another address, and the one before ends.
        let old = pods.0.insert((*name).to_owned(), pod(&format!("{name}@2"), lines));
        let said = pods.say(&all);
        server.say(move |_, _| said.clone());
        names(&sessile, &all);
        assert_eq!(session.ask("still"), format!("{name}@1 still"), "a session ends with its pod");
        drop(old);
        for home in expected.values_mut().filter(|home| home.starts_with(&format!("{name}@"))) {
            *home = format!("{name}@2");
        }
        let now = by_source(&sessile, 0..USERS);
        assert_eq!(now, expected, "users of {name} follow its name");
    }
}

#[test]
fn shuffled_and_failing_answers_change_nothing() {
    let pods = Pods::start(5, lines);
    let names_of_all: Vec<_> = pods.0.keys().cloned().collect();
    let all: Vec<_> = names_of_all.iter().map(String::as_str).collect();
    let mut turn = 0;
    let shuffled = pods.say(&all);
    let server = NameServer::start(move |_, _| {
        turn += 1;
        let Say::Records(mut services, mut beside) = shuffled.clone() else { unreachable!() };
        services.rotate_left(turn % 5);
        beside.rotate_left(turn % 3);
        Say::Records(services, beside)
    });
    let sessile = Sessile::start(&config(server.address, "stick_table = \"1 MiB\"", ""));
    names(&sessile, &all);
    let (digest, homes) = (sessile.status()["digest"].clone(), by_source(&sessile, 0..USERS));
    let asked_again = |times: usize| {
        let before = server.asked();
        eventually("more questions", || (server.asked() >= before + times).then_some(()));
    };
    asked_again(3);
    let generation = sessile.status()["generation"].clone();
    for say in [
        Say::Nothing(ResponseCode::ServFail, None),
        Say::Nothing(ResponseCode::NXDomain, Some(1)),
        Say::Nothing(ResponseCode::NoError, Some(1)),
        Say::Half,
        Say::Records(vec![srv(SERVICE, "web-9.web.example", 80, 1)], vec![a("evil.example", [127, 0, 0, 1], 1)]),
        Say::Records(vec![srv(SERVICE, "web-9.web.example", 80, 1)], vec![a("web-9.web.example", [0, 0, 0, 0], 1)]),
    ] {
        server.say(move |_, kind| match kind {
            RecordType::SRV => say.clone(),
            _ => Say::Nothing(ResponseCode::NoError, Some(1)),
        });
        asked_again(1);
        assert_eq!(by_source(&sessile, 0..20), homes.iter().take(20).map(|(n, home)| (*n, home.clone())).collect());
    }
    server.say(|_, _| Say::Silence);
    asked_again(1);
    let status = sessile.status();
    assert_eq!((&status["digest"], &status["generation"]), (&digest, &generation));
    assert_eq!(by_source(&sessile, 0..USERS), homes);
}

#[test]
fn a_start_without_dns_serves_from_the_last_good_set() {
    let pods = Pods::start(3, lines);
    let said = pods.say(&["web-0", "web-1", "web-2"]);
    let server = NameServer::start(move |_, _| said.clone());
    let mut sessile = Sessile::start(&config(server.address, "stick_table = \"1 MiB\"", ""));
    names(&sessile, &["web-0", "web-1", "web-2"]);
    let (digest, homes) = (sessile.status()["digest"].clone(), by_source(&sessile, 0..USERS));
    server.say(|_, _| Say::Silence);
    sessile.signal(Signal::TERM);
    sessile.wait();
    sessile.restart();
    names(&sessile, &["web-0", "web-1", "web-2"]);
    assert_eq!(sessile.status()["digest"], digest);
    assert_eq!(by_source(&sessile, 0..USERS), homes);
}
