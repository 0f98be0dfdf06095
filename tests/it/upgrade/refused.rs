//! What is wrong with the new process is named, and the old one goes on.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;

use serde_json::Value;

use super::traffic::{Idle, mirror};
use crate::support::backend::{Backend, listener, pool};
use crate::support::{Sessile, is_root};

fn config(backend: &Backend) -> String {
    listener("p", "") + &pool("p", "", &[backend.address])
}

/// A program in place of the binary.
fn script(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("binary");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// The binary, with a limit of descriptors that is too low once the new process is ready.
pub(super) fn with_few_descriptors(folder: &Path) -> PathBuf {
    script(folder, &format!("ulimit -n 200; exec {} \"$@\"", env!("CARGO_BIN_EXE_sessile")))
}

/// An upgrade is refused for this reason; the process that served goes on, and can be upgraded later.
fn is_refused(sessile: &mut Sessile, idle: &mut Idle, binary: Option<&Path>, why: &str) {
    let before = sessile.pid();
    let verdict = sessile.upgrade(binary);
    let problems = verdict["problems"].as_array().unwrap().iter().filter_map(Value::as_str).collect::<Vec<_>>();
    assert!(problems.iter().any(|problem| problem.contains(why)), "{why:?} in {verdict}");
    assert_eq!(sessile.pid(), before);
    idle.lives();
    Idle::open(sessile.address("l"));
    assert_eq!(sessile.status()["ready"], true);
}

#[test]
fn a_file_with_an_error_is_refused_by_line_and_the_old_process_goes_on() {
    let backend = mirror();
    let mut sessile = Sessile::start(&config(&backend));
    let mut idle = Idle::open(sessile.address("l"));
    sessile.rewrite(&(config(&backend) + "colour = \"blue\"\n"));
    is_refused(&mut sessile, &mut idle, None, "colour");
    sessile.rewrite(&config(&backend));
    assert_eq!(sessile.upgrade(None)["accepted"], true);
    idle.lives();
}

#[test]
fn a_missing_key_file_is_refused() {
    let backend = mirror();
    let mut sessile = Sessile::start(&config(&backend));
    let mut idle = Idle::open(sessile.address("l"));
    let tls = "[[listener]]\nname = \"t\"\nbind = \"127.0.0.1:0\"\npool = \"p\"\ntls = \"terminate\"\n\
               [[listener.certificate]]\ncert = \"/nonexistent/cert.pem\"\nkey = \"/nonexistent/key.pem\"\n";
    sessile.rewrite(&(tls.to_owned() + &config(&backend)));
    is_refused(&mut sessile, &mut idle, None, "/nonexistent/");
}

#[test]
fn what_is_no_binary_of_this_program_is_refused() {
    let backend = mirror();
    let mut sessile = Sessile::start(&config(&backend));
    let mut idle = Idle::open(sessile.address("l"));
    let folder = tempfile::tempdir().unwrap();
    let not_a_program = folder.path().join("text");
    std::fs::write(&not_a_program, "no program").unwrap();
    is_refused(&mut sessile, &mut idle, Some(&not_a_program), "ermission denied");
    is_refused(&mut sessile, &mut idle, Some(&script(folder.path(), "exit 3")), "has ended");
    is_refused(&mut sessile, &mut idle, Some(&script(folder.path(), "echo nonsense >&0; sleep 30")), "has sent");
}

#[test]
fn a_lower_descriptor_limit_is_refused() {
    let backend = mirror();
    let mut sessile = Sessile::start(&config(&backend));
    let address = sessile.address("l");
    let mut idle = Idle::open(address);
    let folder = tempfile::tempdir().unwrap();
    is_refused(&mut sessile, &mut idle, Some(&with_few_descriptors(folder.path())), "descriptors");
}

#[test]
fn the_first_process_of_a_container_is_not_upgraded() {
    if !is_root("the_first_process_of_a_container_is_not_upgraded") {
        return;
    }
    let backend = mirror();
    let shell = ["unshare", "--pid", "--fork", "--kill-child"];
    let mut sessile = Sessile::start_in_shell(&shell, "exec \"$0\" \"$@\"", &config(&backend));
    let mut idle = Idle::open(sessile.address("l"));
    is_refused(&mut sessile, &mut idle, None, "process 1 of a container");
}

#[test]
fn of_two_upgrades_at_once_one_is_refused() {
    let backend = mirror();
    let mut sessile = Sessile::start(&config(&backend));
    let mut idle = Idle::open(sessile.address("l"));
    let mut second = sessile.upgrade_command(None);
    let other = thread::spawn(move || second.output().unwrap());
    let first = sessile.upgrade(None);
    let other = other.join().unwrap();
    let second: Value = match serde_json::from_slice(&other.stdout) {
        Ok(verdict) => verdict,
        // The admin interface of the process before was closed already.
        Err(_) => panic!("{other:?}"),
    };
    if second["accepted"] == true {
        sessile.is_now(second["pid"].as_u64().unwrap() as u32);
    }
    idle.lives();
    let refused = [&first, &second].into_iter().filter(|verdict| verdict["accepted"] == false);
    for refused in refused {
        assert!(refused["problems"][0].as_str().unwrap().contains("has been upgraded already"), "{refused}");
    }
    assert!(first["accepted"] == true || second["accepted"] == true, "{first} {second}");
    Idle::open(sessile.address("l"));
}
