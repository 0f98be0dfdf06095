//! Files of unix sockets: of listeners and of the admin interface, when other programs remove or replace them.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::Value;

use crate::reload::accepted;
use crate::support::backend::{Backend, listener, pool};
use crate::support::sessile::run;
use crate::support::{Sessile, eventually};

const KEYLESS: &str = "balance = \"random\"";

/// A listener `u` on `u.sock`, beside the listener `l`.
fn with_unix(backend: &Backend, options: &str) -> String {
    let unix = format!("[[listener]]\nname = \"u\"\nbind = \"unix:$DIR/u.sock\"\npool = \"p\"\n{options}\n");
    listener("p", "") + &unix + &pool("p", KEYLESS, &[backend.address])
}

fn without_unix(backend: &Backend) -> String {
    listener("p", "") + &pool("p", KEYLESS, &[backend.address])
}

fn socket(sessile: &Sessile) -> PathBuf {
    sessile.dir.path().join("u.sock")
}

fn ask(path: &Path) -> std::io::Result<String> {
    let mut stream = BufReader::new(UnixStream::connect(path)?);
    stream.get_mut().write_all(b"x\n")?;
    let mut answer = String::new();
    stream.read_line(&mut answer)?;
    Ok(answer)
}

/// Another process's socket in the place of ours.
fn replace(path: &Path) -> UnixListener {
    std::fs::remove_file(path).unwrap();
    UnixListener::bind(path).unwrap()
}

fn assert_is_theirs(path: &Path, theirs: &UnixListener) {
    let _client = UnixStream::connect(path).expect("the file is there");
    theirs.accept().expect("the client is theirs");
}

#[test]
fn a_reload_that_removes_a_listener_leaves_the_socket_of_another_process() {
    let backend = Backend::named("b");
    let sessile = Sessile::start(&with_unix(&backend, ""));
    let path = socket(&sessile);
    assert_eq!(ask(&path).unwrap(), "b x\n");
    let theirs = replace(&path);
    accepted(&sessile.reload(&without_unix(&backend)));
    assert_is_theirs(&path, &theirs);
}

#[test]
fn a_stop_leaves_the_sockets_of_another_process() {
    let backend = Backend::named("b");
    let mut sessile = Sessile::start(&with_unix(&backend, ""));
    let (path, admin) = (socket(&sessile), sessile.admin());
    let theirs = [replace(&path), replace(&admin)];
    sessile.signal(Signal::TERM);
    assert_eq!(sessile.wait().code(), Some(0));
    assert_is_theirs(&path, &theirs[0]);
    assert_is_theirs(&admin, &theirs[1]);
}

#[test]
fn a_stop_removes_the_sockets_that_are_its_own() {
    let backend = Backend::named("b");
    let mut sessile = Sessile::start(&with_unix(&backend, ""));
    sessile.signal(Signal::TERM);
    assert_eq!(sessile.wait().code(), Some(0));
    assert!(!socket(&sessile).exists() && !sessile.admin().exists());
}

#[test]
fn a_reload_makes_a_deleted_socket_again_with_its_folder() {
    let backend = Backend::named("b");
    let config = with_unix(&backend, "").replace("u.sock", "folder/u.sock");
    let sessile = Sessile::start(&config);
    let path = sessile.dir.path().join("folder/u.sock");
    let mut old = BufReader::new(UnixStream::connect(&path).unwrap());
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    assert!(ask(&path).is_err());
    accepted(&sessile.reload(&config));
    assert_eq!(ask(&path).unwrap(), "b x\n");
    old.get_mut().write_all(b"still\n").unwrap();
    let mut answer = String::new();
    old.read_line(&mut answer).unwrap();
    assert_eq!(answer, "b still\n", "a client of the deleted socket");
    let before = path.metadata().unwrap().ino();
    accepted(&sessile.reload(&config));
    assert_eq!(path.metadata().unwrap().ino(), before, "a socket that is there is kept");
    accepted(&sessile.reload(&without_unix(&backend)));
    assert!(!path.exists());
}

#[test]
fn a_refused_reload_removes_what_it_made_and_nothing_else() {
    let backend = Backend::named("b");
    let config = with_unix(&backend, "");
    let sessile = Sessile::start(&config);
    let path = socket(&sessile);
    std::fs::remove_file(&path).unwrap();
    let elsewhere = "[[listener]]\nname = \"e\"\nbind = \"192.0.2.1:1\"\npool = \"p\"\n";
    assert_eq!(sessile.reload(&(elsewhere.to_owned() + &config))["accepted"], false);
    assert!(!path.exists());
    accepted(&sessile.reload(&config));
    assert_eq!(ask(&path).unwrap(), "b x\n");
}

#[test]
fn a_socket_has_the_mode_and_group_of_its_listener() {
    let backend = Backend::named("b");
    let own_group = rustix::process::getegid().as_raw();
    let options = |mode: &str| format!("mode = \"{mode}\"\ngroup = \"{own_group}\"");
    let admin = "[admin]\nsocket = \"$DIR/admin.sock\"\nmode = \"0600\"\n";
    let config = |mode: &str| format!("{admin}{}", with_unix(&backend, &options(mode)));
    let sessile = Sessile::start(&config("0622"));
    let path = socket(&sessile);
    let access = |path: &Path| {
        let there = path.metadata().unwrap();
        (there.permissions().mode() & 0o777, there.gid())
    };
    assert_eq!(access(&path), (0o622, own_group));
    assert_eq!(access(&sessile.admin()).0, 0o600);
    accepted(&sessile.reload(&config("0666")));
    assert_eq!(access(&path), (0o666, own_group));
    // A refused reload leaves the mode as it was, and an unknown group refuses.
    let elsewhere = "[[listener]]\nname = \"e\"\nbind = \"192.0.2.1:1\"\npool = \"p\"\n";
    let text = config("0600");
    let (head, tables) = text.split_at(text.find("[[listener]]").unwrap());
    assert_eq!(sessile.reload(&format!("{head}{elsewhere}{tables}"))["accepted"], false);
    assert_eq!(access(&path), (0o666, own_group));
    let unknown = config("0600").replace(&format!("group = \"{own_group}\""), "group = \"no-such-group\"");
    let verdict = sessile.reload(&unknown);
    let problem = verdict["problems"][0].as_str().unwrap_or_default().to_owned();
    assert!(problem.ends_with("group \"no-such-group\" is not a group of this machine"), "{verdict}");
    assert_eq!(ask(&path).unwrap(), "b x\n");
}

#[test]
fn check_warns_of_a_mode_without_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("s.toml");
    let admin = format!("[admin]\nsocket = \"{}\"\n", dir.path().join("a.sock").display());
    let text =
        format!("{admin}{}{}", listener("p", "mode = \"0660\""), pool("p", "", &["127.0.0.1:1".parse().unwrap()]));
    std::fs::write(&file, text).unwrap();
    let checked = run(&["check", "--json", file.to_str().unwrap()]);
    let report: Value = serde_json::from_slice(&checked.stdout).unwrap();
    let warning = report["warnings"][0]["message"].as_str().unwrap();
    assert_eq!(warning, "mode has no effect because the listener binds no unix socket of its own");
}

#[test]
fn a_living_socket_of_another_process_is_never_replaced() {
    let backend = Backend::named("b");
    let config = with_unix(&backend, "");
    let sessile = Sessile::start(&config);
    let path = socket(&sessile);
    let theirs = replace(&path);
    let verdict = sessile.reload(&config);
    assert_eq!(verdict["accepted"], false, "no client would reach the listener: {verdict}");
    assert_is_theirs(&path, &theirs);
    drop(theirs);
    accepted(&sessile.reload(&config));
    eventually("the socket to be ours again", || ask(&path).ok().filter(|answer| answer == "b x\n"));
}

#[test]
fn a_hangup_signal_makes_a_deleted_admin_socket_again() {
    let backend = Backend::named("b");
    let mut sessile = Sessile::start(&without_unix(&backend));
    std::fs::remove_file(sessile.admin()).unwrap();
    assert!(UnixStream::connect(sessile.admin()).is_err());
    sessile.signal(Signal::HUP);
    sessile.ready();
    assert_eq!(sessile.status()["generation"], 2);
    assert_eq!(sessile.admin().metadata().unwrap().permissions().mode() & 0o777, 0o660);
    sessile.signal(Signal::TERM);
    assert_eq!(sessile.wait().code(), Some(0));
    assert!(!sessile.admin().exists());
}
