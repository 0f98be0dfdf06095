//! What a service manager hears of the process (sd_notify(3)), and how its journal gets the messages.
//!
//! The manager is a datagram socket of the test. What one message looks like is tested in `src/server/notify.rs`.

use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};

use crate::support::backend::{Backend, listener, pool};
use crate::support::load_support::Client;
use crate::support::{PATIENCE, Sessile, eventually, http};

/// A service manager.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

/// A message, as its lines.
type Message = Vec<String>;

impl Manager {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, path, _dir: dir }
    }

    fn spawn(&self, config: &str, prepare: impl FnOnce(&mut Command)) -> Sessile {
        Sessile::spawn(config, |command| {
            command.env("NOTIFY_SOCKET", &self.path).env_remove("WATCHDOG_USEC").env_remove("WATCHDOG_PID");
            prepare(command);
        })
    }

    fn next(&self) -> Message {
        message(&self.socket).expect("a message")
    }

    /// The first message with such a line; what comes before it is passed over.
    fn until(&self, begin: &str) -> Message {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let message = self.next();
            if value(&message, begin).is_some() {
                return message;
            }
            assert!(Instant::now() < give_up, "waited in vain for {begin}");
        }
    }

    /// Every message that has come and was not read.
    fn rest(&self) -> Vec<Message> {
        self.socket.set_nonblocking(true).unwrap();
        let rest = std::iter::from_fn(|| message(&self.socket)).collect();
        self.socket.set_nonblocking(false).unwrap();
        rest
    }
}

fn message(socket: &UnixDatagram) -> Option<Message> {
    let mut buffer = [0; 8192];
    match socket.recv(&mut buffer) {
        Ok(count) => Some(std::str::from_utf8(&buffer[..count]).unwrap().lines().map(str::to_owned).collect()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}

/// What follows this begin in a message.
fn value<'m>(message: &'m Message, begin: &str) -> Option<&'m str> {
    message.iter().find_map(|line| line.strip_prefix(begin))
}

fn status(message: &Message) -> &str {
    value(message, "STATUS=").unwrap_or_else(|| panic!("{message:?}"))
}

fn config(backend: &Backend) -> String {
    listener("p", "") + &pool("p", "", &[backend.address])
}

fn monotonic_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000
}

#[test]
fn a_start_is_told_when_clients_are_served_and_not_before() {
    let backend = Backend::named("b");
    let manager = Manager::start();
    let local = "[[listener]]\nname = \"u\"\nbind = \"unix:$DIR/u.sock\"\npool = \"q\"\n".to_owned();
    let config = local + &config(&backend) + &pool("q", "balance = \"random\"", &[backend.address]);
    let sessile = manager.spawn(&config, |_| {});
    let first = manager.next();
    // At once: whoever waits for the message may send clients.
    UnixStream::connect(sessile.dir.path().join("u.sock")).unwrap();
    assert_eq!(value(&first, "READY="), Some("1"), "{first:?}");
    assert!(status(&first).starts_with("serving: generation 1, 0 connections, 2 of 2 backends up"), "{first:?}");
    assert_eq!(Client::connect(sessile.address("l")).ask("x"), "b x");
    assert_eq!(manager.rest(), Vec::<Message>::new(), "once");
}

#[test]
fn a_start_that_fails_is_never_told_as_one_that_succeeded() {
    let manager = Manager::start();
    let mut sessile = manager.spawn("[[listener]]\nname = \"l\"\n", |_| {});
    let unit = include_str!("../../config/sessile.service");
    let prevented = unit.lines().find_map(|line| line.strip_prefix("RestartPreventExitStatus=")).unwrap();
    assert_eq!(sessile.wait().code(), Some(prevented.parse().unwrap()), "the unit starts it again");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = config(&Backend::named("b")).replace("127.0.0.1:0", &taken.local_addr().unwrap().to_string());
    assert_eq!(manager.spawn(&taken, |_| {}).wait().code(), Some(69));
    assert_eq!(manager.rest(), Vec::<Message>::new());
}

#[test]
fn a_manager_behind_an_abstract_name_is_told() {
    let name = format!("sessile-it-notify-{}", std::process::id());
    let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let config = config(&Backend::named("b"));
    let _sessile = Sessile::spawn(&config, |command| {
        command.env("NOTIFY_SOCKET", format!("@{name}"));
    });
    assert_eq!(value(&message(&socket).expect("a message"), "READY="), Some("1"));
}

#[test]
fn a_reload_is_told_from_its_begin_to_its_end_whatever_its_verdict() {
    let backend = Backend::named("b");
    let manager = Manager::start();
    let sessile = manager.spawn(&config(&backend), |_| {});
    manager.until("READY=");
    let reload = |begin: &dyn Fn(), says: &str| {
        let before = monotonic_us();
        begin();
        let reloading = manager.next();
        assert_eq!(value(&reloading, "RELOADING="), Some("1"), "{reloading:?}");
        let begun: u64 = value(&reloading, "MONOTONIC_USEC=").unwrap().parse().unwrap();
        assert!((before..=monotonic_us()).contains(&begun), "{begun} is not of this reload");
        let ready = manager.next();
        assert_eq!(value(&ready, "READY="), Some("1"), "{ready:?}");
        assert!(status(&ready).contains(says), "{ready:?}");
        status(&ready).to_owned()
    };
    let by_command = |config: String, accepted: bool| {
        let verdict = sessile.reload(&config);
        assert_eq!(verdict["accepted"], accepted, "{verdict}");
    };
    reload(&|| by_command(config(&backend), true), "generation 2, ");
    let broken = config(&backend).replace("balance", "").replace("pool = \"p\"", "pool = \"x\\nREADY=1\"");
    let refused = reload(&|| by_command(broken.clone(), false), "generation 2, ");
    assert!(refused.contains("; the last reload was refused: "), "{refused}");
    sessile.rewrite(&config(&backend));
    let accepted = reload(&|| sessile.signal(Signal::HUP), "generation 3, ");
    assert!(!accepted.contains("refused"), "{accepted}");
    assert_eq!(manager.rest(), Vec::<Message>::new());
}

#[test]
fn a_stop_is_told_with_what_is_left_of_it_and_extends_its_time() {
    let backend = Backend::named("b");
    let manager = Manager::start();
    let mut sessile = manager.spawn(&("stop_deadline = \"1h\"\n".to_owned() + &config(&backend)), |_| {});
    manager.until("READY=");
    let mut client = Client::connect(sessile.address("l"));
    assert_eq!(client.ask("x"), "b x");
    sessile.signal(Signal::TERM);
    let stopping = manager.next();
    assert_eq!(value(&stopping, "STOPPING="), Some("1"), "{stopping:?}");
    assert_eq!(status(&stopping), "draining: 1 connection left, at most 3605 s more");
    let extended = |message: &Message| value(message, "EXTEND_TIMEOUT_USEC=").unwrap().parse().unwrap();
    assert!(extended(&stopping) >= 5_000_000_u64, "{stopping:?}");
    // A reload that is refused because of the stop is none for the manager.
    let (code, _) = http::unix_post(&sessile.admin(), "/reload").unwrap();
    assert_eq!(code, 409);
    for _ in 0..2 {
        let begun = Instant::now();
        let draining = manager.next();
        assert!(status(&draining).starts_with("draining: 1 connection left, at most 360"), "{draining:?}");
        assert!(begun.elapsed() < Duration::from_micros(extended(&draining)), "the next one comes too late");
        assert_eq!(draining.len(), 2, "{draining:?}");
    }
    assert_eq!(client.ask("still"), "b still");
    drop(client);
    assert_eq!(sessile.wait().code(), Some(0));
    for message in manager.rest() {
        assert!(status(&message).starts_with("draining: "), "{message:?}");
    }
}

#[test]
fn a_stop_counts_down_also_while_it_closes_what_is_left() {
    let backend = Backend::named("b");
    let manager = Manager::start();
    let config = "stop_deadline = \"0s\"\n".to_owned() + &config(&backend);
    let mut sessile = manager.spawn(&config, |_| {});
    manager.until("READY=");
    let clients: Vec<_> = (0..40).map(|_| Client::connect(sessile.address("l"))).collect();
    eventually("every client to be let in", || (sessile.status()["admission"]["open"] == 40).then_some(()));
    sessile.signal(Signal::TERM);
    assert_eq!(status(&manager.until("STOPPING=")), "draining: 40 connections left, at most 6 s more");
    assert_eq!(sessile.wait().code(), Some(0));
    drop(clients);
    let told = manager.rest();
    let figures = |message: &Message| {
        let figures = status(message).split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse::<u64>().ok());
        figures.collect::<Vec<_>>()
    };
    let told: Vec<_> = told.iter().map(figures).collect();
    assert!(told.len() >= 3, "{told:?}");
    assert!(told.windows(2).all(|pair| pair[0][0] >= pair[1][0] && pair[0][1] >= pair[1][1]), "{told:?}");
}

#[test]
fn signs_of_life_come_in_time_and_the_status_stays_fresh_also_while_the_process_drains() {
    let backend = Backend::named("b");
    let manager = Manager::start();
    let mut sessile = manager.spawn(&config(&backend), |command| {
        command.env("WATCHDOG_USEC", "2000000");
    });
    let mut last = Instant::now();
    let mut sign = || {
        manager.until("WATCHDOG=1");
        let took = last.elapsed();
        last = Instant::now();
        took
    };
    sign();
    for _ in 0..3 {
        let took = sign();
        assert!(took < Duration::from_secs(2), "{took:?}: the manager has ended the process");
    }
    let mut client = Client::connect(sessile.address("l"));
    assert_eq!(client.ask("x"), "b x");
    let fresh = manager.until("STATUS=");
    assert_eq!(status(&fresh), "serving: generation 1, 1 connection, 1 of 1 backends up", "{fresh:?}");
    sign();
    sessile.signal(Signal::TERM);
    for _ in 0..2 {
        let took = sign();
        assert!(took < Duration::from_secs(2), "{took:?}, while it drains");
    }
    drop(client);
    assert_eq!(sessile.wait().code(), Some(0));
}

#[test]
fn a_watchdog_of_another_process_gets_no_sign_of_life() {
    let backend = Backend::named("b");
    let manager = Manager::start();
    let mut sessile = manager.spawn(&config(&backend), |command| {
        command.env("WATCHDOG_USEC", "4000").env("WATCHDOG_PID", "1");
    });
    assert!(value(&manager.next(), "READY=").is_some());
    for _ in 0..5 {
        assert_eq!(sessile.reload(&config(&backend))["accepted"], true);
    }
    sessile.signal(Signal::TERM);
    assert_eq!(sessile.wait().code(), Some(0));
    let told = manager.rest();
    assert!(told.len() >= 11, "{told:?}");
    assert!(told.iter().all(|message| value(message, "WATCHDOG=").is_none()), "{told:?}");
}

#[test]
fn a_manager_that_does_not_read_holds_nothing_up() {
    let backend = Backend::named("b");
    let manager = Manager::start();
    let mut sessile = manager.spawn(&config(&backend), |command| {
        command.env("WATCHDOG_USEC", "2000");
    });
    sessile.ready();
    let fill = UnixDatagram::unbound().unwrap();
    fill.set_nonblocking(true).unwrap();
    while fill.send_to(b"", &manager.path).is_ok() {}
    for _ in 0..3 {
        assert_eq!(sessile.reload(&config(&backend))["accepted"], true);
        assert_eq!(Client::connect(sessile.address("l")).ask("x"), "b x");
    }
    sessile.signal(Signal::TERM);
    assert_eq!(sessile.wait().code(), Some(0));
}

/// Starts it so that the journal reads its standard error, as far as it can tell.
fn in_the_journal(config: &str) -> Sessile {
    Sessile::spawn(config, |command| {
        let file = PathBuf::from(command.get_args().last().unwrap());
        let stream = std::fs::metadata(file.with_file_name("err.log")).unwrap();
        command.env("JOURNAL_STREAM", format!("{}:{}", stream.dev(), stream.ino()));
    })
}

#[test]
fn the_journal_gets_the_priority_of_each_message_before_its_line() {
    let backend = Backend::named("b");
    let text = "[log]\nformat = \"text\"\nlevel = \"info\"\n".to_owned() + &config(&backend);
    let sessile = in_the_journal(&text);
    sessile.ready();
    assert_eq!(sessile.reload("[[listener]]\n")["accepted"], false);
    let said = eventually("the refusal in the log", || Some(sessile.said()).filter(|said| said.contains("refused")));
    let has = |priority: &str, part: &str| {
        said.lines().any(|line| line.starts_with(&format!("{priority}time=20")) && line.contains(part))
    };
    assert!(has("<6>", " level=info msg=\"ready: ") && has("<3>", " level=error msg=\"reload refused"), "{said}");
    assert!(said.lines().all(|line| line.starts_with('<')), "{said}");

    // The lines of programs stay JSON behind the priority, which the journal takes away.
    let sessile = in_the_journal(&config(&backend));
    sessile.ready();
    sessile.says("ready: ");
    let said = sessile.said();
    for line in said.lines() {
        let json: serde_json::Value =
            serde_json::from_str(&line[3..]).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!(&line[..3], if json["level"] == "debug" { "<7>" } else { "<6>" }, "{line}");
        assert!(json["time"].is_string(), "{line}");
    }
}

#[test]
fn the_journal_gets_the_priority_of_what_ended_the_start() {
    let mut sessile = in_the_journal("[[listener]]\nname = \"l\"\n[[pool]]\nname = \"p\"\n");
    assert_eq!(sessile.wait().code(), Some(64));
    let said = sessile.said();
    assert!(said.lines().count() >= 2, "{said}");
    assert!(said.lines().all(|line| line.starts_with("<3>sessile: ")), "{said}");
}

#[test]
fn standard_error_beside_the_journal_has_no_priorities() {
    let backend = Backend::named("b");
    let text = "[log]\nformat = \"text\"\nlevel = \"info\"\n".to_owned() + &config(&backend);
    let sessile = Sessile::spawn(&text, |command| {
        command.env("JOURNAL_STREAM", "1:1");
    });
    sessile.says("ready: ");
    let said = sessile.said();
    let year = |line: &str| line.starts_with("time=20") && line.contains(" level=info msg=");
    assert!(!said.is_empty() && said.lines().all(year), "{said}");
}
