//! A restart by a service manager that keeps a descriptor: what was established, and what comes meanwhile, is the next
//! process's; and where that cannot be, the process stops as ever.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use rustix::process::Signal;

use super::keeper::Keeper;
use super::streams::Streams;
use super::traffic::{Idle, mirror};
use crate::support::backend::{Backend, listener, pool};
use crate::support::http::unix_post;
use crate::support::load_support::{Client, Echo, alone};
use crate::support::{PATIENCE, Sessile, eventually};

/// Connections that are open over a restart; the environment may say more.
fn pairs() -> usize {
    std::env::var("SESSILE_TEST_PAIRS").map_or(2_000, |count| count.parse().expect("a number"))
}

fn config(backends: &[SocketAddr]) -> String {
    listener("p", "") + &pool("p", "key = [\"source\"]", backends)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn says(stream: &mut TcpStream, what: &str, number: usize) {
    stream
        .write_all(format!("{what} {number}\n").as_bytes())
        .unwrap_or_else(|error| panic!("{what} {number}: {error}"));
}

fn hears(stream: &mut TcpStream, what: &str, number: usize) {
    let expected = format!("{what} {number}\n");
    let mut heard = vec![0; expected.len()];
    stream.read_exact(&mut heard).unwrap_or_else(|error| panic!("{what} {number}: {error}"));
    assert_eq!(String::from_utf8_lossy(&heard), expected);
}

/// A service that serves, its address and an open connection.
fn serving(keeper: &Keeper, config: &str) -> (Sessile, SocketAddr, Idle) {
    let sessile = keeper.spawn(config);
    sessile.ready();
    let address = sessile.address("l");
    (sessile, address, Idle::open(address))
}

/// Clients are refused, and what is open lives: the process stops without a next one.
fn drains(sessile: &mut Sessile, address: SocketAddr, mut idle: Idle) {
    eventually("clients to be refused", || TcpStream::connect(address).is_err().then_some(()));
    idle.lives();
    sessile.says("connections may finish within");
    drop(idle);
    assert_eq!(sessile.wait().code(), Some(0));
}

#[test]
fn a_restart_keeps_every_established_connection_and_a_client_that_comes_meanwhile_waits() {
    let _alone = alone();
    let Some(keeper) = Keeper::start("a_restart_keeps_every_established_connection") else { return };
    let backends = [Echo::start(), Echo::start()];
    let addresses = [backends[0].address, backends[1].address];
    let mut sessile = keeper.spawn(&config(&addresses));
    sessile.ready();
    let address = sessile.address("l");
    let mut clients: Vec<_> = (0..pairs()).map(|_| connect(address)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        says(client, "before", number);
    }
    for (number, client) in clients.iter_mut().enumerate() {
        hears(client, "before", number);
    }
    let streams = Streams::start(address, 4);
    let own = sessile.json("/connections")["connections"][0]["backend"].as_str().unwrap().to_owned();
    let other = if own == "b0" { "b1" } else { "b0" };
    assert_eq!(unix_post(&sessile.admin(), &format!("/backends/p/{other}/drain")).unwrap().0, 200);
    for round in 0..2 {
        let open = sessile.status()["admission"]["open"].as_u64().unwrap();
        let begun = Instant::now();
        keeper.stop(&mut sessile);
        println!("round {round}: {open} connections left after {:?}", begun.elapsed());
        assert_eq!(keeper.stored(), ["sessile-upgrade"]);
        assert!(keeper.asked().contains("--system"), "{}", keeper.asked());
        sessile.says("connections go on in the next process, 0 end here");

        // While there is no process.
        let mut waiting = Client::connect(address);
        for (number, client) in clients.iter_mut().enumerate() {
            says(client, "without", number);
        }
        keeper.start_again(&mut sessile);
        assert_eq!(waiting.ask("at last"), "at last");
        for (number, client) in clients.iter_mut().enumerate() {
            hears(client, "without", number);
            says(client, "after", number);
            hears(client, "after", number);
        }
        sessile.ready();
        assert_eq!(sessile.address("l"), address, "the kernel chose the port");
        eventually("the store to be emptied", || keeper.stored().is_empty().then_some(()));
        let backends = sessile.json("/backends");
        let drained = backends.as_array().unwrap().iter().find(|one| one["name"] == other).unwrap();
        assert_eq!(drained["runtime"], "draining", "{drained}");
        assert!(!sessile.said().contains("systemd has passed"), "{}", sessile.said());
    }
    streams.stop();
    assert_eq!(sessile.json("/connections?limit=1")["open"].as_u64(), Some(clients.len() as u64));
    drop(clients);
    eventually("every permit to come back", || (sessile.status()["admission"]["open"] == 0).then_some(()));
    let _again = Idle::open(address);
    let again = sessile.json("/connections")["connections"][0].clone();
    assert_eq!((again["backend"].as_str(), &again["reason"]), (Some(own.as_str()), &"stick_table".into()), "{again}");
}

#[test]
fn a_stop_and_a_signal_without_a_job_drain_as_ever_and_store_nothing() {
    let Some(keeper) = Keeper::start("a_stop_and_a_signal_without_a_job") else { return };
    let backend = mirror();
    for job in ["stop running", ""] {
        keeper.job(job);
        let (mut sessile, address, idle) = serving(&keeper, &config(&[backend.address]));
        sessile.signal(Signal::TERM);
        drains(&mut sessile, address, idle);
        assert_eq!(keeper.stored(), Vec::<String>::new(), "{job}");
    }
}

#[test]
fn a_unit_without_a_store_and_a_manager_that_cannot_be_asked_are_named_and_the_process_drains() {
    let Some(keeper) = Keeper::start("a_unit_without_a_store") else { return };
    let backend = mirror();
    let hangs = "exec sleep 60";
    let fails = "echo 'Failed to connect to bus' >&2; exit 1";
    for (script, says) in [
        (
            "case $* in *list-jobs*) echo 12 sessile-of-a-test.service restart running;; *) echo 0;; esac",
            "the unit has no FileDescriptorStoreMax",
        ),
        (fails, "systemctl fails: Failed to connect to bus"),
        (hangs, "systemctl does not answer within 2 s"),
    ] {
        keeper.systemctl(script);
        let (mut sessile, address, idle) = serving(&keeper, &config(&[backend.address]));
        sessile.signal(Signal::TERM);
        drains(&mut sessile, address, idle);
        sessile.says(says);
        assert_eq!(keeper.stored(), Vec::<String>::new());
    }
}

#[test]
fn a_file_with_which_the_next_process_could_not_start_lets_the_connections_finish_here() {
    let Some(keeper) = Keeper::start("a_file_with_which_the_next_process_could_not_start") else { return };
    let backend = mirror();
    let (mut sessile, address, idle) = serving(&keeper, &config(&[backend.address]));
    sessile.rewrite(&("nonsense = 1\n".to_owned() + &config(&[backend.address])));
    sessile.signal(Signal::TERM);
    drains(&mut sessile, address, idle);
    sessile.says("the next process could not start");
    let said = sessile.said();
    assert!(said.contains("the next process could not start") && said.contains("nonsense"), "{said}");
    assert_eq!(keeper.stored(), Vec::<String>::new());
}

#[test]
fn a_manager_that_does_not_confirm_gets_nothing_and_every_connection_goes_on_here() {
    let Some(keeper) = Keeper::start("a_manager_that_does_not_confirm") else { return };
    let backend = mirror();
    let (mut sessile, address, idle) = serving(&keeper, &config(&[backend.address]));
    let mut more: Vec<_> = (0..300).map(|_| Idle::open(address)).collect();
    keeper.is_deaf();
    sessile.signal(Signal::TERM);
    let copies = eventually("a descriptor", || Some(keeper.copies()).filter(|copies| !copies.is_empty()));
    more.iter_mut().for_each(Idle::lives);
    sessile.says("the service manager has not confirmed the queue within 5 s");
    eventually("the store to be emptied", || keeper.stored().is_empty().then_some(()));
    let left = recv(&copies[0], &mut [0; 64], RecvFlags::DONTWAIT).map(|(_, length)| length);
    assert!(matches!(left, Ok(0) | Err(rustix::io::Errno::AGAIN)), "something is left in the queue: {left:?}");
    drop(more);
    drains(&mut sessile, address, idle);
}

#[test]
fn conversations_that_are_open_may_finish_and_clients_are_served_meanwhile() {
    let Some(keeper) = Keeper::start("conversations_that_are_open_may_finish") else { return };
    let raw = mirror();
    let slow = Backend::serving(|mut stream| {
        let _ = stream.read(&mut [0; 4_096])?;
        thread::sleep(Duration::from_millis(1_500));
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow")
    });
    let web = "[[listener]]\nname = \"w\"\nbind = \"127.0.0.1:0\"\npool = \"w\"\n";
    let config = config(&[raw.address]) + web + &pool("w", "http = true", &[slow.address]);
    let (mut sessile, address, mut idle) = serving(&keeper, &config);
    let mut asks = TcpStream::connect(sessile.address("w")).unwrap();
    asks.set_read_timeout(Some(PATIENCE)).unwrap();
    asks.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    eventually("the request", || (sessile.status()["admission"]["open"] == 2).then_some(()));
    sessile.signal(Signal::TERM);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        Idle::open(address);
        idle.lives();
        let refused = unix_post(&sessile.admin(), "/reload").expect("a reply");
        assert_eq!(refused.0, 409, "{}", refused.1);
    }
    let mut answer = String::new();
    asks.read_to_string(&mut answer).expect("a whole answer");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("slow"), "{answer}");
    assert!(answer.to_lowercase().contains("connection: close"), "{answer}");
    keeper.ends(&mut sessile);
    assert_eq!(keeper.stored(), ["sessile-upgrade"]);
    keeper.start_again(&mut sessile);
    idle.lives();
}

#[test]
fn a_conversation_that_does_not_end_is_closed_at_the_deadline_and_pairs_go_on() {
    let Some(keeper) = Keeper::start("a_conversation_that_does_not_end") else { return };
    let (raw, silent) = (mirror(), Backend::serving(|mut stream| stream.read_to_end(&mut Vec::new()).map(drop)));
    let web = "[[listener]]\nname = \"w\"\nbind = \"127.0.0.1:0\"\npool = \"w\"\n";
    let config = "stop_deadline = \"1s\"\n".to_owned()
        + &config(&[raw.address])
        + web
        + &pool("w", "http = true", &[silent.address]);
    let (mut sessile, _, mut idle) = serving(&keeper, &config);
    let mut asks = TcpStream::connect(sessile.address("w")).unwrap();
    asks.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    eventually("the request", || (sessile.status()["admission"]["open"] == 2).then_some(()));
    keeper.stop(&mut sessile);
    sessile.says("1 connections go on in the next process, 1 end here");
    keeper.start_again(&mut sessile);
    idle.lives();
    asks.set_read_timeout(Some(PATIENCE)).unwrap();
    let ended = asks.read_to_end(&mut Vec::new());
    assert!(ended.is_ok() || ended.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
}

#[test]
fn connections_that_find_no_room_are_named_and_end_and_the_others_go_on() {
    let _alone = alone();
    let Some(keeper) = Keeper::start("connections_that_find_no_room") else { return };
    let echo = Echo::start();
    let mut sessile = Sessile::spawn(&config(&[echo.address]), |command| {
        keeper.prepare(command);
        command.env("SESSILE_TEST_QUEUE_BYTES", "8192");
    });
    sessile.ready();
    let address = sessile.address("l");
    let mut clients: Vec<_> = (0..1_500).map(|_| Client::connect(address)).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.ask("x"), "x"));
    keeper.stop(&mut sessile);
    sessile.says("connections find no room in the queue");
    sessile.says("connections go on in the next process");
    let said = sessile.said();
    let goes_on = said.lines().find(|line| line.contains("connections go on in the next process")).expect("a line");
    let figures = goes_on.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse::<usize>().ok());
    let [.., held, left] = figures.collect::<Vec<_>>()[..] else { panic!("{goes_on}") };
    assert!(held + left == clients.len() && held >= 100 && left >= 100, "{goes_on}");
    assert!(said.contains(&format!("{left} connections find no room in the queue")), "{said}");
    keeper.start_again(&mut sessile);
    let lives = clients.iter_mut().map(|client| usize::from(client.try_ask("y").is_ok_and(|answer| answer == "y")));
    assert_eq!(lives.sum::<usize>(), held);
}

/// A message of the upgrade protocol with a document, and no descriptors.
fn message(kind: u16, document: &str) -> Vec<u8> {
    let head = [&b"sessile\n"[..], &kind.to_le_bytes(), &[0; 2], &(document.len() as u32).to_le_bytes(), &[0; 8]];
    [&head.concat()[..], document.as_bytes()].concat()
}

/// What a process has left that wrote these messages and has ended.
fn left(messages: &[Vec<u8>]) -> OwnedFd {
    let (writer, reader) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("a pair");
    for message in messages {
        send(&writer, message, SendFlags::empty()).unwrap();
    }
    reader
}

#[test]
fn a_store_with_nothing_that_can_be_taken_over_is_emptied_and_the_process_starts_by_itself() {
    let Some(keeper) = Keeper::start("a_store_with_nothing_that_can_be_taken_over") else { return };
    let backend = mirror();
    let later = message(1, "{\"oldest\":7,\"newest\":9,\"version\":\"9.9\",\"pid\":5}");
    for (messages, says) in [
        (vec![], "the store of the service manager has nothing left"),
        (vec![message(6, "{}"), message(8, "{}")], "the store of the service manager has nothing left"),
        (vec![b"nonsense".to_vec()], "is not used: the other process has sent a message without a head"),
        (vec![later], "is not used: the other process has sent no version of the protocol that is spoken here"),
    ] {
        keeper.store(left(&messages));
        let (mut sessile, ..) = serving(&keeper, &config(&[backend.address]));
        sessile.says(says);
        assert!(!sessile.said().contains("systemd has passed"), "{}", sessile.said());
        eventually("the store to be emptied", || keeper.stored().is_empty().then_some(()));
        keeper.job("stop running");
        keeper.stop(&mut sessile);
    }
    let (other, _kept) = std::os::unix::net::UnixStream::pair().unwrap();
    keeper.store(other.into());
    serving(&keeper, &config(&[backend.address]));
    eventually("the store to be emptied", || keeper.stored().is_empty().then_some(()));
}

#[test]
fn a_next_process_that_cannot_start_says_what_that_costs_and_a_crash_costs_what_it_always_did() {
    let Some(keeper) = Keeper::start("a_next_process_that_cannot_start") else { return };
    let backend = mirror();
    let (mut sessile, _, mut idle) = serving(&keeper, &config(&[backend.address]));
    let pid = sessile.pid();
    keeper.stop(&mut sessile);
    sessile.rewrite("nonsense = 1\n");
    keeper.start_again(&mut sessile);
    assert_eq!(sessile.wait().code(), Some(64));
    let costs = format!("the connections that process {pid} has left for this one end with it");
    sessile.says(&costs);
    // The manager empties the store of a unit that has failed; the queue was read before.
    assert!(idle.try_lives().is_err());

    sessile.rewrite(&config(&[backend.address]));
    keeper.start_again(&mut sessile);
    sessile.ready();
    eventually("the store to be emptied", || keeper.stored().is_empty().then_some(()));
    sessile.signal(Signal::KILL);
    sessile.wait();
    keeper.start_again(&mut sessile);
    sessile.ready();
    Idle::open(sessile.address("l")).lives();
    assert!(!sessile.said().contains("restart:"), "{}", sessile.said());
    assert!(keeper.was_told("FDSTOREREMOVE=1"));
}
