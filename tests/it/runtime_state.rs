//! What commands and failed connects have made of backends, over a restart: taken over, shown, ended, forgotten.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::backend::{Backend, listener, pool};
use crate::support::http::unix_post;
use crate::support::load_support::Client;
use crate::support::sessile::run;
use crate::support::{Sessile, eventually};

const CLIENTS: u8 = 40;

/// Keeps the stick table, and the state file beside it.
const TABLE: &str = "stick_table_file = \"$DIR/kept/table\"\n";

/// Two backends, `b0` and `b1`, and the configuration of a pool `p` of both.
fn two(top: &str) -> ([Backend; 2], String) {
    let backends = ["b0", "b1"].map(Backend::named);
    let addresses = backends.each_ref().map(|backend| backend.address);
    (backends, top.to_owned() + &listener("p", "") + &pool("p", "", &addresses))
}

fn order(sessile: &Sessile, word: &str) -> String {
    let (code, said) = unix_post(&sessile.admin(), &format!("/backends/p/b0/{word}")).unwrap();
    assert_eq!(code, 200, "{said}");
    said
}

/// What a command has made of `b0`.
fn runtime(sessile: &Sessile) -> Value {
    sessile.json("/backends")[0]["runtime"].clone()
}

fn status_text(sessile: &Sessile) -> String {
    let output = run(&["status", "--wide", "--socket", sessile.admin().to_str().unwrap()]);
    String::from_utf8(output.stdout).unwrap()
}

fn end(sessile: &mut Sessile, signal: Signal) {
    sessile.signal(signal);
    sessile.wait();
}

fn home(sessile: &Sessile, n: u8) -> String {
    let answer = Client::connect_from([127, 1, 0, n].into(), sessile.address("l")).ask("x");
    answer.split(' ').next().unwrap().to_owned()
}

/// When the drain of `b0` ends by the state file, in milliseconds since 1970.
fn kept_deadline(file: &Path) -> i64 {
    let state: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    state["pools"][0]["backends"][0]["drain"]["deadline_unix_ms"].as_i64().unwrap()
}

#[test]
fn a_drain_by_command_goes_on_after_a_restart_until_a_command_ends_it() {
    for (top, file) in [(TABLE, "kept/table.state"), ("", "admin.sock.state")] {
        let (_backends, config) = two(top);
        let mut sessile = Sessile::start(&config);
        let file = sessile.dir.path().join(file);
        assert!(order(&sessile, "drain").ends_with("draining\n"));
        let deadline = kept_deadline(&file);
        // Whether the process ends well or badly; two restarts keep what one keeps.
        for signal in [Signal::TERM, Signal::KILL, Signal::TERM] {
            end(&mut sessile, signal);
            sessile.restart();
            assert_eq!(runtime(&sessile), "draining", "{signal:?}");
            sessile.says("backend p/b0: draining, by command (runtime)");
            assert!(status_text(&sessile).contains("draining (runtime, "), "{}", status_text(&sessile));
            assert!((1..=CLIENTS).all(|n| home(&sessile, n) == "b1"), "no new clients");
        }
        end(&mut sessile, Signal::TERM);
        // Both clocks are read one after the other, so each process adds a rounding.
        let drift = kept_deadline(&file) - deadline;
        assert!(drift.abs() < 1_000, "the deadline moved by {drift} ms");
        sessile.restart();
        assert!(order(&sessile, "ready").ends_with("ready\n"));
        end(&mut sessile, Signal::KILL);
        sessile.restart();
        assert!(runtime(&sessile).is_null(), "a drain that a command has ended");
        sessile.says("ready: ");
        assert!(!sessile.said().contains("by command"), "{}", sessile.said());
    }
}

#[test]
fn known_clients_stay_at_a_draining_backend_and_leave_a_closed_one_over_restarts() {
    let (_backends, config) = two(TABLE);
    let mut sessile = Sessile::start(&config);
    let before: Vec<_> = (1..=CLIENTS).map(|n| home(&sessile, n)).collect();
    assert!(before.iter().any(|home| home == "b0") && before.iter().any(|home| home == "b1"));
    order(&sessile, "drain");
    end(&mut sessile, Signal::TERM);
    sessile.restart();
    assert_eq!((1..=CLIENTS).map(|n| home(&sessile, n)).collect::<Vec<_>>(), before);
    // A close is a drain whose deadline has come; after the restart it has passed.
    order(&sessile, "close");
    end(&mut sessile, Signal::TERM);
    sessile.restart();
    assert_eq!(runtime(&sessile), "drained");
    assert!((1..=CLIENTS).all(|n| home(&sessile, n) == "b1"));
    let moved = before.iter().filter(|home| *home == "b0").count();
    assert_eq!(sessile.status()["pools"][0]["breaks"]["drain"], moved);
}

#[test]
fn a_fresh_start_forgets_and_so_do_those_after_it() {
    for top in [TABLE, ""] {
        let (_backends, config) = two(top);
        let mut sessile = Sessile::start(&config);
        order(&sessile, "drain");
        end(&mut sessile, Signal::TERM);
        for (arguments, says) in [(&["--fresh"][..], true), (&[], false)] {
            sessile.restart_with(arguments);
            assert!(runtime(&sessile).is_null(), "{arguments:?}");
            sessile.says("ready: ");
            assert_eq!(sessile.said().contains("forgotten, because of --fresh"), says, "{}", sessile.said());
            end(&mut sessile, Signal::KILL);
        }
    }
}

#[test]
fn a_damaged_state_file_is_named_and_harmless() {
    let (_backends, config) = two(TABLE);
    let mut sessile = Sessile::start(&config);
    let file = sessile.dir.path().join("kept/table.state");
    order(&sessile, "drain");
    end(&mut sessile, Signal::TERM);
    let whole = fs::read_to_string(&file).unwrap();
    for damaged in [&whole[..whole.len() / 2], "nonsense", &whole.replace("\"version\": 1", "\"version\": 9")] {
        fs::write(&file, damaged).unwrap();
        sessile.restart();
        sessile.says("drains by command are forgotten");
        let said = sessile.said();
        assert!(said.contains("table.state "), "{said}");
        assert!(runtime(&sessile).is_null());
        home(&sessile, 1);
        // The next command makes it good again.
        order(&sessile, "drain");
        end(&mut sessile, Signal::KILL);
        sessile.restart();
        assert_eq!(runtime(&sessile), "draining");
        end(&mut sessile, Signal::TERM);
    }
}

#[test]
fn a_command_says_when_a_restart_will_not_know_it() {
    let (_backends, config) = two(TABLE);
    let sessile = Sessile::start(&config);
    let folder = sessile.dir.path().join("kept");
    let _ = fs::remove_dir_all(&folder);
    fs::write(&folder, "in the place of the folder").unwrap();
    let said = order(&sessile, "drain");
    assert!(said.starts_with("p/b0: draining, but a restart will not know it: ") && said.contains("kept"), "{said}");
    assert_eq!(runtime(&sessile), "draining", "it holds all the same");
    eventually("a line about the file", || sessile.said().contains("cannot be written").then_some(()));
    assert!(status_text(&sessile).contains("table.state cannot be written"), "{}", status_text(&sessile));
    assert!(sessile.metric("sessile_state_file_failures_total") >= 1.0);
    fs::remove_file(&folder).unwrap();
    assert_eq!(order(&sessile, "drain"), "p/b0: draining\n");
    assert!(folder.join("table.state").exists());
    eventually("a line about the file", || sessile.said().contains("table.state is written again").then_some(()));
    assert!(!status_text(&sessile).contains("cannot be written"));
}

#[test]
fn a_reload_keeps_the_state_where_the_new_file_has_it() {
    let (_backends, config) = two("");
    let mut sessile = Sessile::start(&config);
    order(&sessile, "drain");
    assert_eq!(sessile.reload(&(TABLE.to_owned() + &config))["accepted"], true);
    assert_eq!(runtime(&sessile), "draining");
    end(&mut sessile, Signal::TERM);
    sessile.restart();
    assert_eq!(runtime(&sessile), "draining");
    assert!(sessile.dir.path().join("kept/table.state").exists());
    assert!(!sessile.dir.path().join("admin.sock.state").exists(), "an old state would come back one day");
}

#[test]
fn a_backend_that_the_file_drains_too_and_one_that_is_gone() {
    let ([b0, b1], config) = two("");
    let mut sessile = Sessile::start(&config);
    order(&sessile, "drain");
    end(&mut sessile, Signal::TERM);
    // The file and the command both count, as at a reload; `ready` ends the command alone.
    let in_file = config.replacen("name = \"b0\"", "name = \"b0\"\nstate = \"drain\"", 1);
    sessile.rewrite(&in_file);
    sessile.restart();
    assert_eq!((runtime(&sessile), &sessile.json("/backends")[0]["weight"]), ("draining".into(), &0.into()));
    order(&sessile, "ready");
    assert!(runtime(&sessile).is_null() && (1..=CLIENTS).all(|n| home(&sessile, n) == "b1"));
    order(&sessile, "drain");
    end(&mut sessile, Signal::TERM);
    let renamed = listener("p", "") + &pool("p", "", &[b0.address, b1.address]).replace("\"b0\"", "\"new\"");
    sessile.rewrite(&renamed);
    sessile.restart();
    sessile.says("backend p/b0 is gone");
    assert!(runtime(&sessile).is_null());
}

#[test]
fn an_ejection_goes_on_after_a_restart() {
    // A port that nothing listens on, held so that no other process takes it.
    let held = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    held.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let dead = held.local_addr().unwrap().as_socket().unwrap();
    let backend = Backend::named("b1");
    let config = listener("p", "") + &pool("p", "sticky_retries = 0\n", &[dead, backend.address]);
    let config = config + "[pool.eject]\nbase = \"2m\"\n";
    let mut sessile = Sessile::start(&config);
    let state = |sessile: &Sessile| sessile.json("/backends")[0]["state"].clone();
    eventually("an ejection", || {
        (1..=CLIENTS).for_each(|n| drop(home(&sessile, n)));
        (state(&sessile) == "ejected").then_some(())
    });
    end(&mut sessile, Signal::TERM);
    sessile.restart();
    assert_eq!(state(&sessile), "ejected");
    sessile.says("backend p/b0 stays ejected for ");
    end(&mut sessile, Signal::TERM);
    sessile.restart_with(&["--fresh"]);
    assert_eq!(state(&sessile), "unchecked");
}

#[test]
fn a_state_file_that_never_ends_does_not_hold_the_start() {
    let (_backends, config) = two("");
    let mut sessile = Sessile::start(&config);
    order(&sessile, "drain");
    end(&mut sessile, Signal::TERM);
    let file = sessile.dir.path().join("admin.sock.state");
    fs::remove_file(&file).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    sessile.restart();
    sessile.says("it is a pipe, not a file");
}
