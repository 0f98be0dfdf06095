//! `sessile events --follow`, and events over an upgrade.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc::channel;
use std::thread;

use serde_json::Value;

use super::{ask, event, kinds};
use crate::support::backend::{Backend, listener, pool};
use crate::support::sessile::command;
use crate::support::{PATIENCE, Sessile};

fn two() -> ([Backend; 2], Sessile) {
    let backends = [Backend::named("b0"), Backend::named("b1")];
    let addresses = backends.each_ref().map(|backend| backend.address);
    let sessile = Sessile::start(&(listener("p", "") + &pool("p", "", &addresses)));
    (backends, sessile)
}

#[test]
fn a_follower_sees_events_as_they_come_and_goes_on_over_an_upgrade() {
    let (_backends, mut sessile) = two();
    assert!(ask(&sessile, &["drain", "p/b0"]).status.success());
    let mut follow = command(&["events", "--follow", "--json", "--socket"]);
    let mut follower = follow.arg(sessile.admin()).stdout(Stdio::piped()).spawn().unwrap();
    let (line, lines) = channel();
    let out = BufReader::new(follower.stdout.take().unwrap()).lines().map_while(Result::ok);
    let reader = thread::spawn(move || out.for_each(|read| drop(line.send(read))));
    let next = || {
        let line = lines.recv_timeout(PATIENCE).expect("an event");
        let event: Value = serde_json::from_str(&line).unwrap();
        (event["id"].as_u64().unwrap(), event["kind"].as_str().unwrap().to_owned())
    };
    assert_eq!((next(), next()), ((1, "start".to_owned()), (2, "drain".to_owned())));
    assert!(ask(&sessile, &["ready", "p/b0"]).status.success());
    assert_eq!(next(), (3, "ready".to_owned()));
    assert_eq!(sessile.upgrade(None)["accepted"], true);
    // Whatever the old process has seen until its end, the new one has its own first event behind it.
    let mut last = 3;
    let started = std::iter::repeat_with(next).find(|(id, kind)| {
        assert!(*id > last, "a number is used once: {id} after {last}");
        last = *id;
        kind == "start"
    });
    assert!(started.is_some());
    follower.kill().unwrap();
    follower.wait().unwrap();
    reader.join().unwrap();
}

#[test]
fn events_before_an_upgrade_are_kept_with_their_numbers() {
    let (_backends, mut sessile) = two();
    assert!(ask(&sessile, &["drain", "p/b0"]).status.success());
    event(&sessile, "drain");
    let before = sessile.json("/events");
    assert_eq!(sessile.upgrade(None)["accepted"], true);
    let after = sessile.json("/events");
    assert_eq!(before["since"], after["since"]);
    let (before, after) = (before["events"].as_array().unwrap(), after["events"].as_array().unwrap());
    assert_eq!(before[..], after[..before.len()]);
    assert!(kinds(&sessile)[before.len()..].contains(&"upgrade".to_owned()), "{after:?}");
    assert_eq!(kinds(&sessile).iter().filter(|kind| *kind == "start").count(), 2);
}

#[test]
fn a_process_that_cannot_be_reached_is_another_exit_code() {
    for words in [&["events"][..], &["why", "192.0.2.1"]] {
        let output = command(words).args(["--socket", "/nonexistent/admin.sock"]).output().unwrap();
        assert_eq!(output.status.code(), Some(69), "{output:?}");
    }
    let (_backends, sessile) = two();
    assert_eq!(ask(&sessile, &["events", "--kind", "bogus"]).status.code(), Some(64));
    assert_eq!(ask(&sessile, &["why", ""]).status.code(), Some(64));
}
