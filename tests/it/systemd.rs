//! Listening sockets that another process has opened and passes as systemd does (sd_listen_fds(3)).

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::support::backend::{Backend, pool};
use crate::support::load_support::Client;
use crate::support::{Sessile, eventually, has};

/// Opens three sockets under two names and becomes the program it is told to be.
const PASS: &str = r#"
import os, socket, sys
four = socket.socket(socket.AF_INET)
four.bind(("127.0.0.1", 0))
six = socket.socket(socket.AF_INET6)
six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
six.bind(("::1", 0))
local = socket.socket(socket.AF_UNIX)
local.bind(sys.argv[1])
sockets = [four, six, local]
for i, s in enumerate(sockets):
    s.listen(64)
    os.dup2(s.fileno(), 50 + i)
for i in range(3):
    os.dup2(50 + i, 3 + i, inheritable=True)
os.closerange(6, 60)
os.environ.update(LISTEN_FDS="3", LISTEN_FDNAMES="front:front:local", LISTEN_PID=str(os.getpid() + int(sys.argv[2])))
os.execv(sys.argv[3], sys.argv[3:])
"#;

/// Passes standard input as a listening socket.
const PASS_ONE: &str = r#"
import os, sys
os.dup2(0, 3)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
os.environ.update(LISTEN_FDS="1", LISTEN_FDNAMES="front", LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[1], sys.argv[1:])
"#;

/// Starts the process with these sockets; `pid_off` names another process as their receiver.
pub fn spawn(config: &str, local: &Path, pid_off: u32) -> Sessile {
    Sessile::spawn(config, |command| {
        let file = PathBuf::from(command.get_args().last().unwrap());
        let out = |name: &str| File::create(file.with_file_name(name)).unwrap();
        let mut wrapped = Command::new("python3");
        wrapped.args(["-c", PASS]).arg(local).arg(pid_off.to_string());
        wrapped.arg(command.get_program()).args(command.get_args());
        wrapped.stdout(out("out.log")).stderr(out("err.log"));
        *command = wrapped;
    })
}

/// A listener on the socket `local`, and one on the sockets `front`.
pub fn listeners(front: bool, backend: &Backend) -> String {
    let local = "[[listener]]\nname = \"local\"\nbind = \"systemd:local\"\npool = \"q\"\n";
    let front = if front { "[[listener]]\nname = \"front\"\nbind = \"systemd:front\"\npool = \"p\"\n" } else { "" };
    format!(
        "{front}{local}{}{}",
        pool("p", "", &[backend.address]),
        pool("q", "balance = \"random\"", &[backend.address])
    )
}

pub fn over(local: &Path) -> std::io::Result<String> {
    let mut stream = BufReader::new(UnixStream::connect(local)?);
    stream.get_mut().write_all(b"x\n")?;
    let mut answer = String::new();
    stream.read_line(&mut answer)?;
    Ok(answer)
}

pub fn bound(sessile: &Sessile, name: &str) -> Vec<SocketAddr> {
    let status = sessile.status();
    let known = status["listeners"].as_array().unwrap().iter().find(|known| known["name"] == name).unwrap();
    known["bind"].as_array().unwrap().iter().map(|bind| bind.as_str().unwrap().parse().unwrap()).collect()
}

#[test]
fn every_descriptor_of_a_name_is_served_and_keeps_serving_through_reloads() {
    if !has("every_descriptor_of_a_name_is_served", "python3") {
        return;
    }
    let backend = Backend::named("b");
    let dir = tempfile::tempdir().unwrap();
    let local = dir.path().join("local.sock");
    let mut sessile = spawn(&listeners(true, &backend), &local, 0);
    sessile.ready();
    let front = bound(&sessile, "front");
    assert_eq!(front.iter().map(SocketAddr::is_ipv4).collect::<Vec<_>>(), [true, false], "one name, two sockets");
    for address in &front {
        assert_eq!(Client::connect(*address).ask("x"), "b x");
    }
    assert_eq!(over(&local).unwrap(), "b x\n");
    let line = sessile.line("unix", |line| line["listener"] == "local" && line["ended"] == "done");
    assert_eq!(line["client"], "unix");

    let before = sessile.descriptors();
    for _ in 0..3 {
        assert_eq!(sessile.reload(&listeners(true, &backend))["accepted"], true);
        assert_eq!(bound(&sessile, "front"), front);
    }
    for address in &front {
        assert_eq!(Client::connect(*address).ask("x"), "b x");
    }
    // Removed, the sockets are still the service manager's: clients wait, and are served when the listener is back.
    let verdict = sessile.reload(&listeners(false, &backend));
    assert_eq!(verdict["accepted"], true);
    let unnamed = "systemd has passed the socket \"front\", and no listener has bind = \"systemd:…\" with this name";
    let warnings = verdict["warnings"].as_array().unwrap();
    assert!(warnings.iter().any(|one| one.as_str().unwrap().starts_with(unnamed)), "{verdict}");
    let waiting = front.iter().map(|address| Client::connect(*address));
    let waiting: Vec<_> = waiting.collect();
    assert_eq!(over(&local).unwrap(), "b x\n");
    assert_eq!(sessile.reload(&listeners(true, &backend))["accepted"], true);
    for mut client in waiting {
        assert_eq!(client.ask("at last"), "b at last");
    }
    eventually("every descriptor to be gone", || (sessile.descriptors() == before).then_some(()));

    let verdict = sessile.reload(&listeners(true, &backend).replace("systemd:local", "systemd:nobody"));
    let problem = verdict["problems"][0].as_str().unwrap();
    let expected = "listener \"local\": systemd:nobody: systemd has passed no descriptor of this name; \
                    it has passed \"front\", \"local\"";
    assert!(problem.ends_with(expected), "{problem}");
    sessile.signal(Signal::TERM);
    assert_eq!(sessile.wait().code(), Some(0));
    assert!(local.exists(), "the file is the service manager's");
}

#[test]
fn descriptors_passed_to_another_process_are_not_ours() {
    if !has("descriptors_passed_to_another_process", "python3") {
        return;
    }
    let backend = Backend::named("b");
    let dir = tempfile::tempdir().unwrap();
    let mut sessile = spawn(&listeners(true, &backend), &dir.path().join("local.sock"), 1);
    assert_eq!(sessile.wait().code(), Some(69));
    let said = sessile.said();
    for name in ["front", "local"] {
        let expected = "systemd has passed no descriptor of this name; it has passed none to this process";
        assert!(said.contains(&format!("systemd:{name}: {expected}")), "{said}");
    }
}

#[test]
fn a_unix_descriptor_cannot_be_keyed_by_source() {
    if !has("a_unix_descriptor_cannot_be_keyed_by_source", "python3") {
        return;
    }
    let backend = Backend::named("b");
    let dir = tempfile::tempdir().unwrap();
    let config = listeners(true, &backend).replace("pool = \"q\"", "pool = \"p\"");
    let mut sessile = spawn(&config, &dir.path().join("local.sock"), 0);
    assert_eq!(sessile.wait().code(), Some(69));
    sessile.says("listener \"local\": systemd:local: is a unix socket");
}

#[test]
fn a_socket_that_no_listener_names_is_warned_of_at_the_start() {
    if !has("a_socket_that_no_listener_names", "python3") {
        return;
    }
    let backend = Backend::named("b");
    let dir = tempfile::tempdir().unwrap();
    let sessile = spawn(&listeners(false, &backend), &dir.path().join("local.sock"), 0);
    sessile.says("systemd has passed the socket \\\"front\\\", and no listener has bind");
    let said = sessile.said();
    assert!(!said.contains("the socket \\\"local\\\""), "{said}");
}

#[test]
fn a_client_that_comes_between_two_processes_waits_at_the_socket_and_is_served() {
    if !has("a_client_that_comes_between_two_processes", "python3") {
        return;
    }
    let backend = Backend::named("b");
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let front = socket.local_addr().unwrap();
    let config = "[[listener]]\nname = \"front\"\nbind = \"systemd:front\"\npool = \"p\"\n".to_owned()
        + &pool("p", "", &[backend.address]);
    let start = || {
        Sessile::spawn(&config, |command| {
            let file = PathBuf::from(command.get_args().last().unwrap());
            let out = |name: &str| File::create(file.with_file_name(name)).unwrap();
            let mut wrapped = Command::new("python3");
            wrapped.args(["-c", PASS_ONE]).arg(command.get_program()).args(command.get_args());
            wrapped.stdin(OwnedFd::from(socket.try_clone().unwrap()));
            wrapped.stdout(out("out.log")).stderr(out("err.log"));
            *command = wrapped;
        })
    };
    let mut first = start();
    first.ready();
    let mut held = Client::connect(front);
    assert_eq!(held.ask("x"), "b x");
    first.signal(Signal::TERM);
    eventually("the first to stop", || first.said().contains("stopping: 1 connections").then_some(()));
    assert_eq!(held.ask("still"), "b still");
    drop(held);
    assert_eq!(first.wait().code(), Some(0));
    let waiting: Vec<_> = (0..20).map(|_| Client::connect(front)).collect();
    let second = start();
    for mut client in waiting {
        assert_eq!(client.ask("at last"), "b at last");
    }
    drop(second);
}
