//! Backends that vanish, return, and come back at another address; reloads meanwhile.

use std::net::SocketAddr;

use super::{Pods, config};
use crate::support::backend::Backend;
use crate::support::eventually;
use crate::support::http::unix_post;
use crate::support::load_support::Client;
use crate::support::sessile::run;

fn client_of(pods: &Pods, name: &str) -> u16 {
    (0..500).find(|n| pods.home(*n) == name).expect("a client of this backend")
}

fn two() -> ([Backend; 2], [(&'static str, SocketAddr); 2]) {
    let backends = ["a", "b"].map(Backend::named);
    let named = [("a", backends[0].address), ("b", backends[1].address)];
    (backends, named)
}

fn source(n: u16) -> std::net::IpAddr {
    let [high, low] = n.to_be_bytes();
    [127, 3, high, low].into()
}

#[test]
fn what_vanishes_drains_and_what_comes_back_goes_on() {
    let (_backends, [a, b]) = two();
    let pods = Pods::start("", "", &[a, b]);
    let known = client_of(&pods, "a");
    let mut open = Client::connect_from(source(known), pods.sessile.address("l"));
    assert_eq!(open.ask("1"), "a 1");
    pods.name(&[b]);
    eventually("the drain", || (pods.backend("a")["runtime"] == "draining").then_some(()));
    assert_eq!(pods.backend("a")["complaint"], "its source does not name it any more");
    assert_eq!((open.ask("2").as_str(), pods.home(known).as_str()), ("a 2", "a"), "known clients stay");
    assert!(pods.homes(600..640).iter().all(|home| home == "b"), "new ones go elsewhere");
    pods.name(&[a, b]);
    eventually("the return", || pods.backend("a")["runtime"].is_null().then_some(()));
    assert!(pods.homes(700..740).iter().any(|home| home == "a"));
    assert_eq!(open.ask("3"), "a 3");
    assert_eq!(pods.sessile.sum("sessile_sticky_breaks_total", &["pool=\"p\""]), 0.0);
}

#[test]
fn a_drain_by_command_outlives_a_source_that_names_the_backend_again() {
    let (_backends, [a, b]) = two();
    let pods = Pods::start("", "", &[a, b]);
    let order = |word: &str| unix_post(&pods.sessile.admin(), &format!("/backends/p/a/{word}")).unwrap();
    let known = client_of(&pods, "a");
    let _open = Client::connect_from(source(known), pods.sessile.address("l"));
    order("drain");
    for names in [&[b][..], &[a, b]] {
        pods.name(names);
        let is_absent = names.len() == 1;
        eventually("the file", || ((pods.backend("a")["absent"] == true) == is_absent).then_some(()));
        assert_eq!(pods.backend("a")["runtime"], "draining");
    }
    order("ready");
    assert!(pods.backend("a")["runtime"].is_null());
    // And a command does not end the drain of what its source does not name.
    pods.name(&[b]);
    eventually("the drain", || (pods.backend("a")["runtime"] == "draining").then_some(()));
    let (_, said) = order("ready");
    assert_eq!(said, "p/a: draining, as long as its source does not name it\n");
}

#[test]
fn vanish_down_and_vanish_remove_do_as_they_say() {
    let (_backends, [a, b]) = two();
    let pods = Pods::start("", "vanish = \"down\"\n", &[a, b]);
    let known = client_of(&pods, "a");
    pods.name(&[b]);
    eventually("the backend to be down", || (pods.backend("a")["state"] == "down").then_some(()));
    assert_eq!(pods.home(known), "b");
    pods.name(&[a, b]);
    eventually("the backend to be up", || (pods.backend("a")["state"] == "unchecked").then_some(()));
    assert!(pods.sessile.reload(&config("", "vanish = \"remove\"\n"))["accepted"] == true);
    assert_eq!(pods.names(), ["a", "b"], "a reload keeps what was found");
    pods.name(&[b]);
    pods.are(&["b"]);
}

#[test]
fn connections_stay_at_the_old_address_of_a_backend_and_its_clients_follow_its_name() {
    let (_backends, [a, b]) = two();
    let new = Backend::named("new-a");
    let pods = Pods::start("", "", &[a, b]);
    let known = client_of(&pods, "a");
    let mut open = Client::connect_from(source(known), pods.sessile.address("l"));
    assert_eq!(open.ask("1"), "a 1");
    // A pod is replaced: its record vanishes, and comes back with another address.
    pods.name(&[b]);
    eventually("the drain", || (pods.backend("a")["absent"] == true).then_some(()));
    pods.name(&[("a", new.address), b]);
    let at_new = || (pods.backend("a")["address"] == new.address.to_string()).then_some(());
    eventually("the new address", at_new);
    assert!(pods.backend("a")["runtime"].is_null());
    assert_eq!(open.ask("2"), "a 2", "no session is cut");
    assert_eq!(pods.home(known), "new-a");
    assert_eq!(pods.sessile.sum("sessile_sticky_breaks_total", &["pool=\"p\""]), 0.0);
}

#[test]
fn a_change_stands_on_the_configuration_in_force_and_not_on_a_file_that_is_being_edited() {
    let (_backends, [a, b]) = two();
    let pods = Pods::start("hash_seed = 5\n", "", &[a]);
    pods.sessile.rewrite("[[listener]]\nname = \"half");
    pods.name(&[a, b]);
    pods.are(&["a", "b"]);
    assert_eq!(pods.sessile.status()["reloads"]["refused"], 0);
    let digest = pods.sessile.status()["digest"].clone();
    let verdict = pods.sessile.reload(&config("hash_seed = 5\nconnect_timeout = \"1s\"\n", ""));
    assert_eq!(verdict["accepted"], true, "{verdict}");
    assert_eq!((pods.names(), verdict["digest"].clone()), (vec!["a".to_owned(), "b".to_owned()], digest));
}

#[test]
fn backends_of_the_file_stand_beside_those_that_are_found() {
    let (_backends, [a, b]) = two();
    let fixed = format!("backend = {{ name = \"s\", address = \"{}\" }}\n", b.1);
    let pods = Pods { sessile: crate::support::Sessile::start(&config(&fixed, "")) };
    assert_eq!(pods.names(), ["s"]);
    pods.name(&[a]);
    pods.are(&["s", "a"]);
    pods.name(&[a, ("s", b.1)]);
    pods.complains("which the configuration has as well");
    // The operator makes a found backend permanent: the file of the configuration has it from then on.
    let both =
        format!("backend = [{{ name = \"s\", address = \"{}\" }}, {{ name = \"a\", address = \"{}\" }}]\n", b.1, a.1);
    assert_eq!(pods.sessile.reload(&config(&both, ""))["accepted"], true);
    assert_eq!(pods.names(), ["s", "a"]);
}

#[test]
fn plan_explain_and_check_are_of_the_backends_that_are_named() {
    let (_backends, [a, b]) = two();
    let pods = Pods::start("", "", &[a, b]);
    let (socket, file) = (pods.sessile.admin(), pods.sessile.file());
    let text = |arguments: &[&str]| {
        let output = run(arguments);
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let (socket, file) = (socket.to_str().unwrap(), file.to_str().unwrap());
    let client = ["--client", "127.3.0.1"];
    let live = text(&[&["explain", "--live", "--socket", socket], &client[..]].concat());
    let offline = text(&[&["explain", "--config", file], &client[..]].concat());
    let home = pods.home(1);
    for explained in [&live, &offline] {
        assert!(explained.contains(&format!("p/{home}")) || explained.contains(&home), "{explained}");
    }
    let plan = text(&["plan", "--live", "--without", "p/a", "--socket", socket]);
    assert!(
        plan.contains("removed") || plan.contains("p/a") || plan.contains("a ->") || plan.contains(" a "),
        "{plan}"
    );
    assert_eq!(text(&["check", file]).trim_end().rsplit('\n').next().map(|line| line.contains("warning")), Some(false));
    pods.replace("a 10.0.");
    let checked = text(&["check", file]);
    assert!(checked.contains("pool \"p\": discover: path \"") && checked.contains("it may be cut short"), "{checked}");
}

#[test]
fn backends_of_a_file_may_have_a_limit_and_be_backups_and_a_reload_changes_the_limit_of_the_others() {
    let (_backends, [a, b]) = two();
    let pods = Pods::start("on_full = \"reject\"\n", "max_connections = 2\n", &[a, b]);
    let most = |name: &str| pods.backend(name)["max_connections"].clone();
    assert_eq!((most("a"), most("b")), (2.into(), 2.into()));
    let file = |most: u32| {
        pods.replace(&format!(
            "[{{\"name\": \"a\", \"address\": \"{}\", \"max_connections\": {most}}},\
             {{\"name\": \"b\", \"address\": \"{}\", \"backup\": true}}]",
            a.1, b.1
        ));
        eventually("the limit of a", || (pods.backend("a")["max_connections"] == most).then_some(()));
    };
    file(50);
    assert_eq!((most("b"), pods.backend("b")["backup"].clone()), (2.into(), true.into()));
    assert!(pods.homes(0..40).iter().all(|home| home == "a"), "a backup serves while no other backend can");
    eventually("all clients to leave", || (pods.backend("a")["leases"] == 0).then_some(()));
    file(1);
    let mut held = Client::connect_from(source(1), pods.sessile.address("l"));
    assert_eq!(held.ask("1"), "a 1");
    let refused = Client::connect_from(source(2), pods.sessile.address("l")).try_ask("2");
    assert!(refused.is_err(), "{refused:?}: the backend is full");
    let more = config("on_full = \"reject\"\n", "max_connections = 9\n");
    assert_eq!(pods.sessile.reload(&more)["accepted"], true);
    eventually("the limit of b", || (most("b") == 9).then_some(()));
    assert_eq!((most("a"), held.ask("3").as_str()), (1.into(), "a 3"));
}
