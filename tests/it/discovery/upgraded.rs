//! Another process takes over while name servers are dead and files are gone: sets, absences, drains and their
//! deadlines are those of the process before, and no user moves.

use std::fs;
use std::net::SocketAddr;

use serde_json::Value;

use super::dns_pool::{Pods, SERVICE, names};
use super::name_server::{NameServer, Say};
use super::users::{by_source, source};
use crate::support::backend::listener;
use crate::support::http::unix_post;
use crate::support::load_support::Client;
use crate::support::{Sessile, eventually};

/// Users of each pool.
const USERS: usize = 60;
/// The pods: `p` finds the first three in DNS, `f` the others in a file.
const PODS: [&str; 6] = ["web-0", "web-1", "web-2", "web-3", "web-4", "web-5"];

fn config(server: SocketAddr) -> String {
    let listener_f = "[[listener]]\nname = \"f\"\nbind = \"127.0.0.1:0\"\npool = \"f\"\n";
    let pool = |name: &str, discover: &str| {
        format!(
            "[[pool]]\nname = \"{name}\"\ndrain_deadline = \"1h\"\nstick_table = \"1 MiB\"\n[pool.check]\nkind = \"off\"\n\
             [pool.discover]\n{discover}\n"
        )
    };
    format!(
        "[discovery]\nresolvers = [\"{server}\"]\n{}{listener_f}{}{}",
        listener("p", ""),
        pool("p", &format!("kind = \"dns\"\nname = \"{SERVICE}\"")),
        pool("f", "kind = \"file\"\npath = \"$DIR/backends\"\nvanish = \"drain\"")
    )
}

fn replace_file(sessile: &Sessile, pods: &Pods, named: &[&str]) {
    let lines = named.iter().map(|name| format!("{name} {} 2 dc1/host3\n", pods.0[*name].address));
    let file = sessile.dir.path().join("backends");
    fs::write(file.with_extension("new"), lines.collect::<String>()).unwrap();
    fs::rename(file.with_extension("new"), file).unwrap();
}

/// What the source has made of each backend, as the status shows it, without times.
fn backends(sessile: &Sessile) -> Vec<Value> {
    let backends = sessile.json("/backends");
    let keys = ["pool", "name", "address", "weight", "absent", "runtime", "state"];
    let shown = |backend: &Value| keys.iter().map(|key| backend[*key].clone()).collect::<Value>();
    backends.as_array().unwrap().iter().map(shown).collect()
}

/// Begin and end of the drain of each backend that is named no more, as the state file has them.
fn absences(sessile: &Sessile) -> Vec<(String, i64, i64)> {
    let text = fs::read_to_string(sessile.dir.path().join("admin.sock.state")).unwrap();
    let state: Value = serde_json::from_str(&text).unwrap();
    let found = state["pools"].as_array().unwrap().iter().filter_map(|pool| pool["found"].as_array()).flatten();
    let absent = found.filter(|backend| !backend["absence"].is_null());
    let time = |backend: &Value, key: &str| backend["absence"][key].as_i64().unwrap();
    let of = |backend: &Value| {
        let name = backend["name"].as_str().unwrap().to_owned();
        (name, time(backend, "since_unix_ms"), time(backend, "deadline_unix_ms"))
    };
    absent.map(of).collect()
}

/// The pods of all users, pool by pool.
fn homes(sessile: &Sessile) -> [Vec<String>; 2] {
    ["l", "f"].map(|listener| by_source(sessile.address(listener), 0..USERS))
}

/// A session of a user of this pod.
fn session_at(sessile: &Sessile, listener: &str, homes: &[String], pod: &str) -> Client {
    let user = homes.iter().position(|home| home == pod).expect("every pod has users");
    Client::connect_from(source(user), sessile.address(listener))
}

#[test]
fn an_upgrade_with_dead_sources_hands_over_sets_absences_drains_and_deadlines() {
    let pods = Pods::start(PODS.len());
    let said = pods.say(&PODS[..3]);
    let server = NameServer::start(move |_, _| said.clone());
    let mut sessile = Sessile::spawn(&config(server.address), |_| {});
    replace_file(&sessile, &pods, &PODS[3..]);
    sessile.ready();
    names(&sessile, &PODS);
    let first = homes(&sessile);
    let mut sessions =
        [session_at(&sessile, "l", &first[0], "web-0@1"), session_at(&sessile, "f", &first[1], "web-3@1")];

    // One of each pool vanishes and drains, and one is drained by a command.
    let said = pods.say(&PODS[1..3]);
    server.say(move |_, _| said.clone());
    replace_file(&sessile, &pods, &PODS[4..]);
    names(&sessile, &["web-1", "web-2", "web-4", "web-5"]);
    unix_post(&sessile.admin(), "/backends/f/web-5/drain").unwrap();
    let (before, digest) = (backends(&sessile), sessile.status()["digest"].clone());
    assert_eq!(before.iter().filter(|backend| backend[5] == "draining").count(), 3, "{before:?}");
    let drains = absences(&sessile);
    assert_eq!(drains.iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>(), ["web-0", "web-3"]);

    server.say(|_, _| Say::Silence);
    fs::remove_file(sessile.dir.path().join("backends")).unwrap();
    for _ in 0..2 {
        let old = sessile.pid();
        let verdict = sessile.upgrade(None);
        assert_eq!(verdict["accepted"], true, "{verdict}");
        sessile.gone(old);
        assert_eq!((backends(&sessile), sessile.status()["digest"].clone()), (before.clone(), digest.clone()));
        assert_eq!(homes(&sessile), first);
        assert_eq!(sessions.each_mut().map(|session| session.ask("x")), ["web-0@1 x", "web-3@1 x"]);
        let complained = || {
            let status = sessile.status();
            let complaint = |pool: usize| status["pools"][pool]["discover"]["complaint"].clone();
            (!complaint(0).is_null() && !complaint(1).is_null()).then_some(())
        };
        eventually("both sources to be complained of", complained);
        assert_eq!(backends(&sessile), before, "a source that says nothing changes nothing");
    }

    // The sources are back: what drained goes on to drain until the end that it had.
    let said = pods.say(&PODS[2..3]);
    server.say(move |_, _| said.clone());
    replace_file(&sessile, &pods, &PODS[4..]);
    names(&sessile, &["web-2", "web-4", "web-5"]);
    let now = eventually("the state file", || Some(absences(&sessile)).filter(|now| now.len() == 3));
    for (name, since, deadline) in drains {
        let (_, since_now, deadline_now) = now.iter().find(|(known, ..)| *known == name).unwrap();
        let drift = (since - since_now).abs().max((deadline - deadline_now).abs());
        assert!(drift < 500, "{name}: {drift} ms");
    }
    assert_eq!(homes(&sessile), first, "known users stay while their pods drain");
    assert_eq!(sessile.sum("sessile_sticky_breaks_total", &[]), 0.0);
}
