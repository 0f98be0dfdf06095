//! The ends of an upgrade: what becomes of both processes at a signal, at a failure, and of what the old one still does.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::stand_in::{Elder, begin, noted, orphan, pid_of, program, runs, successor, tell};
use super::traffic::{Idle, mirror};
use crate::support::backend::{Backend, listener, pool};
use crate::support::{PATIENCE, Sessile, eventually, has, http};

/// One worker, so that pairs move in one batch.
fn config(backend: &Backend) -> String {
    "workers = 1\n".to_owned() + &listener("p", "") + &pool("p", "", &[backend.address])
}

/// An upgrade whose new process, a stand-in, has taken every pair and has not answered the commit.
struct AtCommit {
    sessile: Sessile,
    /// The command that waits for the verdict.
    asked: std::process::Child,
    idle: Idle,
    _backend: Backend,
}

impl AtCommit {
    /// Begins the upgrade, and returns when it is so far. The stand-in does `before` first of all, and `then` at last.
    fn reached(before: &str, then: &str) -> Self {
        let backend = mirror();
        let sessile = Sessile::start(&config(&backend));
        let idle = Idle::open(sessile.address("l"));
        let text = format!("begin()\n{before}\ntake()\nnote('committing')\n{then}");
        let asked = begin(&sessile, &successor(&sessile, &text));
        noted(&sessile, "committing");
        Self { sessile, asked, idle, _backend: backend }
    }

    /// The same with a stand-in that never answers.
    fn silent() -> Self {
        Self::reached("", "time.sleep(600)")
    }
}

/// The verdict of a command that was begun.
fn verdict(asked: std::process::Child) -> Value {
    let output = asked.wait_with_output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

#[test]
fn a_stop_before_connections_move_ends_the_upgrade_at_once_and_the_process_in_order() {
    let backend = mirror();
    let mut sessile = Sessile::start(&config(&backend));
    let mut idle = Idle::open(sessile.address("l"));
    let note = "echo $$ > \"${3%/*}/tmp\"; mv \"${3%/*}/tmp\" \"${3%/*}/pid\"; exec sleep 600";
    let binary = program(sessile.dir.path(), &format!("#!/bin/sh\n{note}\n"));
    let asked = begin(&sessile, &binary);
    let started = pid_of(&sessile);
    sessile.signal(Signal::TERM);
    let begun = Instant::now();
    eventually("the new process to be killed", || (!runs(started)).then_some(()));
    assert!(begun.elapsed() < Duration::from_secs(5), "it may take 10 s to answer: {:?}", begun.elapsed());
    idle.lives();
    let verdict = verdict(asked);
    assert!(verdict["problems"][0].as_str().unwrap().contains("told to stop"), "{verdict}");
    drop(idle);
    assert!(sessile.wait().success());
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[test]
fn a_stop_before_the_commit_waits_a_moment_for_it_and_then_kills_the_new_process() {
    if !has("a_stop_before_the_commit_waits_a_moment_for_it_and_then_kills_the_new_process", "python3") {
        return;
    }
    let AtCommit { sessile, asked, .. } = &mut AtCommit::silent();
    sessile.signal(Signal::TERM);
    let begun = Instant::now();
    assert!(sessile.wait().success());
    assert!(begun.elapsed() < Duration::from_secs(15), "the commit may take 60 s: {:?}", begun.elapsed());
    assert!(!runs(pid_of(sessile)), "the new process goes on");
    asked.wait().unwrap();
}

#[test]
fn a_second_signal_during_an_upgrade_leaves_no_process() {
    if !has("a_second_signal_during_an_upgrade_leaves_no_process", "python3") {
        return;
    }
    let AtCommit { sessile, asked, .. } = &mut AtCommit::silent();
    sessile.signal(Signal::TERM);
    let begun = Instant::now();
    // A signal within a second of the first one repeats it.
    thread::sleep(Duration::from_millis(1_200));
    sessile.signal(Signal::TERM);
    sessile.wait();
    assert!(begun.elapsed() < Duration::from_millis(4_500), "{:?}", begun.elapsed());
    eventually("the new process to be killed", || (!runs(pid_of(sessile))).then_some(()));
    asked.wait().unwrap();
}

#[test]
fn a_stop_in_the_last_moment_is_the_new_process_s_and_reaches_it() {
    if !has("a_stop_in_the_last_moment_is_the_new_process_s_and_reaches_it", "python3") {
        return;
    }
    let block = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])";
    let late = "wait_for('go')\nsay(9, {})\nnote('got', str(signal.sigwait([signal.SIGTERM])))";
    let AtCommit { _backend, mut sessile, asked, idle: _idle } = AtCommit::reached(block, late);
    sessile.signal(Signal::TERM);
    tell(&sessile, "go");
    assert_eq!(noted(&sessile, "got"), "15");
    assert_eq!(verdict(asked)["accepted"], true);
    assert!(sessile.wait().success());
    let said = sessile.said();
    assert!(!said.contains("next process can start"), "the lock is not given up: {said}");
}

#[test]
fn commands_to_backends_are_the_new_process_s_while_the_state_is_given_and_this_one_s_again_if_it_fails() {
    let test = "commands_to_backends_are_the_new_process_s_while_the_state_is_given_and_this_one_s_again_if_it_fails";
    if !has(test, "python3") {
        return;
    }
    let AtCommit { _backend, sessile, asked, mut idle } = AtCommit::reached("", "wait_for('go')");
    let order = || http::unix_post(&sessile.admin(), "/backends/p/b0/drain").unwrap();
    let (code, said) = order();
    assert!(code == 409 && said.contains("another process takes over"), "{code} {said}");
    tell(&sessile, "go");
    assert_eq!(verdict(asked)["accepted"], false);
    assert_eq!(order().0, 200);
    assert!(idle.try_lives().is_err(), "it was the new process's");
}

#[test]
fn clients_that_come_with_every_batch_do_not_keep_an_upgrade_from_its_commit() {
    if !has("clients_that_come_with_every_batch_do_not_keep_an_upgrade_from_its_commit", "python3") {
        return;
    }
    let backend = mirror();
    let sessile = Sessile::start(&config(&backend));
    let address = sessile.address("l");
    let _idle = Idle::open(address);
    // Each batch is answered only when there is another pair; none comes once accepting is suspended.
    let busy = format!(
        "clients = []\ndef another():\n    client = socket.create_connection((\"{}\", {}), 1)\n    clients.append(client)\n    \
         client.sendall(b'x')\n    try:\n        client.recv(1)\n    except TimeoutError:\n        pass\n\
         begin()\ntake(another)\nnote('committing', str(len(clients)))\nsay(9, {{}})\ntime.sleep(600)",
        address.ip(),
        address.port()
    );
    let asked = begin(&sessile, &successor(&sessile, &busy));
    let batches: usize = noted(&sessile, "committing").parse().unwrap();
    assert!((2..=12).contains(&batches), "{batches}");
    let verdict = verdict(asked);
    assert_eq!(verdict["accepted"], true, "{verdict}");
    let _ = kill_process(Pid::from_raw(pid_of(&sessile) as i32).unwrap(), Signal::KILL);
}

#[test]
fn without_descriptors_for_the_stick_tables_the_rest_goes_over() {
    if !has("without_descriptors_for_the_stick_tables_the_rest_goes_over", "python3") {
        return;
    }
    let backend = mirror();
    let sessile = Sessile::start(&config(&backend));
    let _idle = Idle::open(sessile.address("l"));
    let starve = format!(
        "begin()\nown = take(lambda: resource.prlimit({}, resource.RLIMIT_NOFILE, (3, 3)))\n\
         note('given', str(len(own)))\nsay(9, {{}})\ntime.sleep(600)",
        sessile.pid()
    );
    let asked = begin(&sessile, &successor(&sessile, &starve));
    assert_eq!(noted(&sessile, "given"), "0");
    let verdict = verdict(asked);
    assert_eq!((&verdict["accepted"], &verdict["pairs"]), (&json!(true), &json!(1)), "{verdict}");
    sessile.says("no stick tables are given");
    let _ = kill_process(Pid::from_raw(pid_of(&sessile) as i32).unwrap(), Signal::KILL);
}

#[test]
fn without_stick_tables_the_new_process_serves_and_says_so() {
    let backend = mirror();
    let elder = Elder::start(&config(&backend));
    elder.prepare();
    elder.say(8, &json!({ "numbered": 7 }));
    assert_eq!(elder.hear(), (9, json!({})));
    elder.sessile.ready();
    Idle::open(elder.sessile.address("l")).lives();
    elder.sessile.says("gives no stick tables");
}

#[test]
fn a_new_process_that_waits_for_the_old_one_ends_when_it_is_told_to() {
    let backend = mirror();
    let mut elder = Elder::start(&config(&backend));
    elder.prepare();
    elder.sessile.signal(Signal::TERM);
    assert_eq!(elder.sessile.wait().code(), Some(69));
    elder.sessile.says("told to stop");
}

#[test]
fn a_new_process_ends_if_the_old_one_gives_up_and_lives() {
    let backend = mirror();
    for is_prepared in [false, true] {
        let mut elder = Elder::start(&config(&backend));
        if is_prepared {
            elder.prepare();
        }
        elder.give_up();
        assert_eq!(elder.sessile.wait().code(), Some(69), "two processes would serve: {is_prepared}");
    }
}

/// A backend that answers `/slow` when it is let, with a cookie of its own name; every other request at once.
fn slow(name: &'static str, asked: &Sender<()>) -> (Backend, Sender<()>) {
    let (let_go, go) = channel();
    let (go, asked) = (Mutex::new(go), asked.clone());
    let backend = Backend::serving(move |mut stream| {
        let mut reader = BufReader::new(stream.try_clone()?);
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if reader.read_line(&mut head)? == 0 {
                    return Ok(());
                }
            }
            let mut cookie = String::new();
            if head.starts_with("GET /slow") {
                let _ = asked.send(());
                let _ = go.lock().unwrap().recv();
                cookie = format!("Set-Cookie: SID=of-{name}\r\n");
            }
            write!(stream, "HTTP/1.1 200 OK\r\n{cookie}Content-Length: {}\r\n\r\n{name}", name.len())?;
        }
    });
    (backend, let_go)
}

/// A request, and the name of the backend that answers it.
fn get(stream: &mut TcpStream, path: &str, cookie: &str) -> String {
    ask(stream, path, cookie);
    answer(stream)
}

fn ask(stream: &mut TcpStream, path: &str, cookie: &str) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let cookie = if cookie.is_empty() { String::new() } else { format!("Cookie: SID={cookie}\r\n") };
    write!(stream, "GET {path} HTTP/1.1\r\nHost: a.test\r\n{cookie}\r\n").unwrap();
}

fn answer(stream: &mut TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let begin = head.len();
        assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
        if let Some(value) = head[begin..].to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut name = vec![0; length];
    reader.read_exact(&mut name).unwrap();
    String::from_utf8(name).unwrap()
}

#[test]
fn what_the_last_conversations_learn_is_known_to_the_process_that_serves() {
    for upgrades in [1, 2] {
        let (asked, slowly) = channel();
        let backends = ["b0", "b1", "b2"].map(|name| slow(name, &asked));
        let addresses = backends.each_ref().map(|(backend, _)| backend.address);
        let options = "http = true\nbalance = \"round_robin\"\nkey = \"none\"";
        let cookie = "[pool.cookie]\nmode = \"learn\"\nname = \"SID\"\nremember = \"1d\"\n";
        let mut sessile = Sessile::start(&(listener("p", "") + &pool("p", options, &addresses) + cookie));
        let address = sessile.address("l");
        let mut conversations: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        for conversation in &mut conversations {
            ask(conversation, "/slow", "");
            slowly.recv_timeout(PATIENCE).expect("a backend is asked");
        }
        let first = sessile.pid();
        for _ in 0..upgrades {
            assert_eq!(sessile.upgrade(None)["accepted"], true);
        }
        backends.iter().for_each(|(_, let_go)| let_go.send(()).unwrap());
        let mut answered: Vec<_> = conversations.iter_mut().map(answer).collect();
        answered.sort();
        assert_eq!(answered, ["b0", "b1", "b2"]);
        drop(conversations);
        sessile.gone(first);
        eventually("the cookies to be known", || {
            let tables = sessile.json("/stick-table");
            (tables[0]["learned"] == 3).then_some(())
        });
        for name in ["b2", "b0", "b1", "b1", "b0", "b2"] {
            let mut stream = TcpStream::connect(address).unwrap();
            assert_eq!(get(&mut stream, "/", &format!("of-{name}")), name, "after {upgrades} upgrades");
        }
    }
}

/// A backend that accepts an upgrade to a WebSocket, and the end of each.
fn socket() -> (Backend, Receiver<Vec<u8>>) {
    let (ended, ends) = channel();
    let backend = Backend::serving(move |mut stream| {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        while reader.read_line(&mut line)? > 2 {
            line.clear();
        }
        stream.write_all(b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")?;
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest)?;
        let _ = ended.send(rest);
        Ok(())
    });
    (backend, ends)
}

#[test]
fn a_stop_reaches_the_processes_before_this_one_and_waits_for_their_connections() {
    const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                           Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    const ANSWER: [u8; 8] = [0x88, 0x82, 1, 2, 3, 4, 0x03 ^ 1, 0xF4 ^ 2];
    for upgrades in [1, 2] {
        let (backend, ends) = socket();
        let top = "stop_deadline = \"1s\"\n".to_owned();
        let mut sessile = Sessile::start(&(top + &listener("p", "") + &pool("p", "http = true", &[backend.address])));
        let first = sessile.pid();
        let mut client = TcpStream::connect(sessile.address("l")).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(UPGRADE.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        assert!(head.starts_with(b"HTTP/1.1 101"));
        for _ in 0..upgrades {
            assert_eq!(sessile.upgrade(None)["accepted"], true);
        }
        assert!(runs(first), "it has the WebSocket");
        let last = sessile.pid();
        sessile.signal(Signal::TERM);
        let mut frame = [0; 4];
        client.read_exact(&mut frame).unwrap();
        assert_eq!(frame, [0x88, 0x02, 0x03, 0xF4], "closed in order, with 1012");
        client.write_all(&ANSWER).unwrap();
        assert_eq!(ends.recv_timeout(PATIENCE).unwrap(), ANSWER, "after {upgrades} upgrades");
        sessile.gone(last);
        assert!(!runs(first), "the one that serves ends last");
    }
}

#[test]
fn a_signal_to_the_old_process_ends_it_and_not_the_one_that_serves() {
    let (backend, _ends) = socket();
    let other = mirror();
    let listeners = listener("p", "") + "[[listener]]\nname = \"m\"\nbind = \"127.0.0.1:0\"\npool = \"m\"\n";
    let pools = pool("p", "http = true", &[backend.address]) + &pool("m", "", &[other.address]);
    let mut sessile = Sessile::start(&("stop_deadline = \"0s\"\n".to_owned() + &listeners + &pools));
    let first = sessile.pid();
    let mut client = TcpStream::connect(sessile.address("l")).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n").unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.read_exact(&mut [0; 12]).unwrap();
    assert_eq!(sessile.upgrade(None)["accepted"], true);
    // Within a second of the upgrade a signal is meant for the service.
    thread::sleep(Duration::from_millis(1_200));
    kill_process(Pid::from_raw(first as i32).unwrap(), Signal::TERM).unwrap();
    sessile.gone(first);
    Idle::open(sessile.address("m")).lives();
    assert_eq!(sessile.status()["ready"], true);
}

#[test]
fn another_admin_socket_has_its_own_lock_and_the_old_one_goes() {
    let backend = mirror();
    let rest = listener("p", "") + &pool("p", "", &[backend.address]);
    let with = |name: &str| format!("[admin]\nsocket = \"$DIR/{name}.sock\"\n{rest}");
    let mut sessile = Sessile::start(&with("admin"));
    let (before, mut idle) = (sessile.pid(), Idle::open(sessile.address("l")));
    sessile.rewrite(&with("other"));
    assert_eq!(sessile.upgrade(None)["accepted"], true);
    sessile.gone(before);
    let folder = sessile.dir.path();
    let ready = http::unix_get(&folder.join("other.sock"), "/readyz").map(|(code, _)| code);
    assert_eq!(ready, Some(200));
    let is_free = |name: &str| File::open(folder.join(name)).unwrap().try_lock().is_ok();
    assert!(!is_free("other.lock") && is_free("admin.lock"));
    assert!(!folder.join("admin.sock").exists());
    idle.lives();
}

#[test]
fn after_an_old_process_that_ended_too_early_the_table_file_counts_and_the_state_that_was_given() {
    if !has("after_an_old_process_that_ended_too_early_the_table_file_counts", "python3") {
        return;
    }
    let backends = [mirror(), mirror()];
    let addresses = backends.each_ref().map(|backend| backend.address);
    let kept = tempfile::tempdir().unwrap();
    let table = kept.path().join("table");
    let top = format!("stick_table_file = \"{}\"\n", table.display());
    let config = top + &listener("p", "") + &pool("p", "", &addresses);
    let mut before = Sessile::start(&config);
    Idle::open(before.address("l"));
    eventually("an entry", || (before.json("/stick-table")[0]["known"] == 1).then_some(()));
    let (code, said) = http::unix_post(&before.admin(), "/backends/p/b0/drain").unwrap();
    assert_eq!(code, 200, "{said}");
    before.signal(Signal::TERM);
    before.wait();
    assert!(kept.path().join("table.state").exists());

    // Since it wrote its files, a command has ended the drain; the stick table has the same secret.
    let secret: String = std::fs::read(&table).unwrap()[24..40].iter().map(|byte| format!("{byte:02x}")).collect();
    let state = json!({ "secret": secret, "lock": false, "runtime": { "version": 1 } });
    let sessile = orphan(&config, &state);
    sessile.says("serves what it has");
    assert_eq!(sessile.json("/stick-table")[0]["known"], 1);
    assert_eq!(sessile.json("/backends")[0]["runtime"], Value::Null);
    Idle::open(sessile.address("l")).lives();
}
