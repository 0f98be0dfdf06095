//! The last good set over restarts, with and without the source.

use std::fs;

use rustix::process::Signal;

use super::Pods;
use crate::support::backend::Backend;
use crate::support::eventually;
use crate::support::load_support::Client;

fn end(pods: &mut Pods, signal: Signal) {
    pods.sessile.signal(signal);
    pods.sessile.wait();
}

#[test]
fn a_start_without_the_source_serves_the_last_good_set() {
    let backends = ["a", "b"].map(Backend::named);
    let [a, b] = [("a", backends[0].address), ("b", backends[1].address)];
    let mut pods = Pods::start("", "", &[a, b]);
    let before = pods.homes(0..40);
    for (signal, text) in [(Signal::TERM, None), (Signal::KILL, Some("a 10.0.")), (Signal::TERM, Some("# none\n"))] {
        end(&mut pods, signal);
        match text {
            None => fs::remove_file(pods.file()).unwrap(),
            Some(text) => pods.replace(text),
        }
        pods.sessile.restart();
        assert_eq!(
            (pods.names(), pods.homes(0..40)),
            (vec!["a".to_owned(), "b".to_owned()], before.clone()),
            "{text:?}"
        );
        eventually("the complaint", || (pods.pool()["discover"]["complaint"] != serde_json::Value::Null).then_some(()));
    }
    // With the source back, all is as before.
    pods.name(&[a, b]);
    pods.complains("");
    assert_eq!(pods.homes(0..40), before);
    end(&mut pods, Signal::TERM);
    fs::remove_file(pods.file()).unwrap();
    pods.sessile.restart_with(&["--fresh"]);
    assert!(pods.names().is_empty(), "a fresh start forgets the set");
}

#[test]
fn what_vanished_while_no_process_ran_drains_and_drains_go_on_over_a_restart() {
    let backends = ["a", "b"].map(Backend::named);
    let [a, b] = [("a", backends[0].address), ("b", backends[1].address)];
    let top = "stick_table_file = \"$DIR/table\"\n";
    let config = top.to_owned() + &super::config("", "");
    let mut pods = Pods { sessile: crate::support::Sessile::spawn(&config, |_| {}) };
    pods.name(&[a, b]);
    pods.sessile.ready();
    pods.are(&["a", "b"]);
    let known = (0..500).find(|n| pods.home(*n) == "a").unwrap();
    end(&mut pods, Signal::TERM);
    pods.name(&[b]);
    pods.sessile.restart();
    assert_eq!(pods.backend("a")["runtime"], "draining", "{}", pods.pool());
    assert_eq!(pods.home(known), "a", "known clients are served");
    let since = |pods: &Pods| pods.backend("a")["drain_s"].as_u64();
    eventually("a second of the drain", || (since(&pods) >= Some(1)).then_some(()));
    end(&mut pods, Signal::TERM);
    pods.sessile.restart();
    assert!(since(&pods) >= Some(1), "the drain has begun before this process");
    assert_eq!(Client::connect(pods.sessile.address("l")).ask("x").split(' ').next(), Some("b"));
}
