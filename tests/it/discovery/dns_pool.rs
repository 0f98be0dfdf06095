//! Pools whose backends DNS names: which users move when pods come and go, and what a dead name server changes.
//!
//! A pod answers with its name and its life, `web-0@1`. Invariant: a user moves only if its pod has gone.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;
use rustix::process::Signal;

use super::knot::Knot;
use super::name_server::{NameServer, Say, a, srv};
use super::users::{Jar, by_source, serve};
use crate::support::backend::{Backend, listener};
use crate::support::{Sessile, eventually, size};

pub const SERVICE: &str = "_http._tcp.web.example";
/// Users of each kind while pods come and go; with `SESSILE_TEST_POD_USERS` as many as that says.
const USERS: usize = 10_000;
const NO_USERS: [usize; 0] = [];
/// Users where only answers change.
const FEW: Range<usize> = 0..200;

/// Running pods by name.
pub struct Pods(pub BTreeMap<String, Backend>);

impl Pods {
    /// Pods `web-0` and so on.
    pub fn start(count: usize) -> Self {
        Self((0..count).map(|index| (format!("web-{index}"), pod(&format!("web-{index}@1")))).collect())
    }

    /// Lines of a zone for the first pods.
    fn zone(&self, count: usize) -> String {
        let lines = self.0.iter().take(count).map(|(name, pod)| {
            format!("_http._tcp.web 1 SRV 0 10 {} {name}.web\n{name}.web 1 A 127.0.0.1\n", pod.address.port())
        });
        lines.collect()
    }

    /// What a name server says with these pods and no others.
    pub fn say(&self, names: &[&str]) -> Say {
        let target = |name: &str| format!("{name}.web.example");
        let services = names.iter().map(|name| srv(SERVICE, &target(name), self.0[*name].address.port(), 1)).collect();
        Say::Records(services, names.iter().map(|name| a(&target(name), [127, 0, 0, 1], 1)).collect())
    }
}

/// A running pod.
pub fn pod(life: &str) -> Backend {
    let life = life.to_owned();
    Backend::serving(move |stream| serve(&life, &stream))
}

/// The configuration of a pool that finds its backends by this name server.
fn config(server: SocketAddr, options: &str) -> String {
    format!(
        "stick_table_file = \"$DIR/tables\"\n[discovery]\nresolvers = [\"{server}\"]\n{}\
         [[pool]]\nname = \"p\"\n{options}\n[pool.check]\nkind = \"off\"\n\
         [pool.discover]\nkind = \"dns\"\nname = \"{SERVICE}\"\n",
        listener("p", "")
    )
}

/// Waits until the backends that the source names are these.
pub fn names(sessile: &Sessile, expected: &[&str]) {
    eventually(&format!("the backends {expected:?}"), || {
        let backends = sessile.json("/backends");
        let named = backends.as_array().unwrap().iter().filter(|backend| backend["absent"] != true);
        let mut named: Vec<_> = named.map(|backend| backend["name"].as_str().unwrap()).collect();
        named.sort_unstable();
        (named == expected).then_some(())
    });
}

/// True if a user is at one of the first three pods.
fn stays(home: &str) -> bool {
    ["web-0@1", "web-1@1", "web-2@1"].contains(&home)
}

/// The users that are served elsewhere than before.
fn moved(before: &[String], after: &[String]) -> Vec<usize> {
    (0..before.len()).filter(|user| before[*user] != after[*user]).collect()
}

/// Scales a service from 3 pods to 10 and back, with users that come before and between.
fn scale(knot: &Knot, pods: &Pods, sessile: &Sessile, mut homes: impl FnMut(Range<usize>) -> Vec<String>) {
    let users = size("SESSILE_TEST_POD_USERS", USERS);
    let all: Vec<_> = pods.0.keys().map(String::as_str).collect();
    names(sessile, &all[..3]);
    let first = homes(0..users / 2);
    knot.set(&pods.zone(10));
    names(sessile, &all);
    let ten = homes(0..users);
    assert_eq!(moved(&first, &ten[..users / 2]), NO_USERS, "no user moves when pods come");
    let leaving: Vec<_> = (0..users).filter(|user| !stays(&ten[*user])).collect();
    assert!(leaving.len() > users / 5, "{} users are at the new pods", leaving.len());
    assert!(all[3..].iter().all(|name| ten.iter().any(|home| home.starts_with(name))), "every pod has users");
    knot.set(&pods.zone(3));
    names(sessile, &all[..3]);
    let count = || sessile.json("/backends").as_array().unwrap().len();
    eventually("the removed pods to be gone", || (count() == 3).then_some(()));
    let three = homes(0..users);
    assert_eq!(moved(&ten, &three), leaving, "only users of removed pods move");
    assert!(three.iter().all(|home| stays(home)));
    assert_eq!(moved(&three, &homes(0..users)), NO_USERS, "each moves once");
    assert_eq!(sessile.sum("sessile_sticky_breaks_total", &["pool=\"p\""]), leaving.len() as f64);
}

#[test]
fn only_users_of_removed_pods_move_by_source() {
    let pods = Pods::start(10);
    let Some(knot) = Knot::start("only_users_of_removed_pods_move_by_source", &pods.zone(3)) else { return };
    let options = "drain_deadline = \"1s\"\nstick_table = \"4 MiB\"";
    let sessile = Sessile::start(&config(knot.address, options));
    let front = sessile.address("l");
    scale(&knot, &pods, &sessile, |users| by_source(front, users));
}

#[test]
fn only_users_of_removed_pods_move_by_cookie() {
    let pods = Pods::start(10);
    let Some(knot) = Knot::start("only_users_of_removed_pods_move_by_cookie", &pods.zone(3)) else { return };
    let keys = keys();
    let cookie = format!("cookie = {{ mode = \"insert\", keys = \"{}\" }}", keys.path().display());
    let options = format!("http = true\nbalance = \"random\"\ndrain_deadline = \"1s\"\n{cookie}");
    let sessile = Sessile::start(&config(knot.address, &options));
    let (front, mut jar) = (sessile.address("l"), Jar::new(size("SESSILE_TEST_POD_USERS", USERS)));
    scale(&knot, &pods, &sessile, |users| jar.homes(front, users));
}

/// A file with a key that seals cookies.
pub fn keys() -> tempfile::NamedTempFile {
    let keys = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(keys.path(), "0123456789abcdef5a69788796a5b4c3".repeat(2)).unwrap();
    keys
}

#[test]
fn shuffled_and_failing_answers_change_nothing() {
    let pods = Pods::start(5);
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
    let sessile = Sessile::start(&config(server.address, "stick_table = \"1 MiB\""));
    names(&sessile, &all);
    let (digest, front) = (sessile.status()["digest"].clone(), sessile.address("l"));
    let homes = by_source(front, FEW);
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
        assert_eq!(by_source(front, 0..20), homes[..20]);
    }
    server.say(|_, _| Say::Silence);
    asked_again(1);
    let status = sessile.status();
    assert_eq!((&status["digest"], &status["generation"]), (&digest, &generation));
    assert_eq!(by_source(front, FEW), homes);
}

#[test]
fn a_start_without_dns_serves_from_the_last_good_set_at_once() {
    let pods = Pods::start(4);
    let said = pods.say(&["web-0", "web-1", "web-2"]);
    let server = NameServer::start(move |_, _| said.clone());
    let mut sessile = Sessile::start(&config(server.address, "stick_table = \"1 MiB\""));
    names(&sessile, &["web-0", "web-1", "web-2"]);
    let (digest, homes) = (sessile.status()["digest"].clone(), by_source(sessile.address("l"), FEW));
    server.say(|_, _| Say::Silence);
    sessile.signal(Signal::TERM);
    sessile.wait();
    let began = Instant::now();
    sessile.restart();
    // Of these it waits 0.2 s for name servers.
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    names(&sessile, &["web-0", "web-1", "web-2"]);
    assert_eq!(sessile.status()["digest"], digest);
    assert_eq!(by_source(sessile.address("l"), FEW), homes);
    let said = pods.say(&["web-0", "web-1", "web-2", "web-3"]);
    server.say(move |_, _| said.clone());
    names(&sessile, &["web-0", "web-1", "web-2", "web-3"]);
    assert_eq!(by_source(sessile.address("l"), FEW), homes);
}

#[test]
fn a_start_without_dns_and_without_a_set_serves_what_there_is_and_finds_pods_as_soon_as_dns_answers() {
    let pods = Pods::start(2);
    let server = NameServer::start(|_, _| Say::Silence);
    let fixed = format!("backend = {{ name = \"fixed\", address = \"{}\" }}", pods.0["web-0"].address);
    let began = Instant::now();
    let sessile = Sessile::start(&config(server.address, &fixed));
    // Of these it waits 1.5 s for name servers.
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    assert_eq!(by_source(sessile.address("l"), 0..3), ["web-0@1"; 3]);
    names(&sessile, &["fixed"]);
    let said = pods.say(&["web-1"]);
    server.say(move |_, _| said.clone());
    names(&sessile, &["fixed", "web-1"]);
    assert!(by_source(sessile.address("l"), FEW).iter().any(|home| home == "web-1@1"));
}
