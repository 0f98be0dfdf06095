//! What a worker does that a world of the simulation does not show.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config;
use crate::splicer::os::{Linux, now};

fn shared(listener: &str, pool: &str) -> Arc<WorkerShared> {
    Arc::new(WorkerShared::alone(config(listener, pool), 8))
}

fn config(listener: &str, pool: &str) -> Config {
    let text = format!(
        "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\npool = \"p\"\n{listener}\n\
         [[pool]]\nname = \"p\"\ncheck = \"off\"\nbackend = [{{ name = \"b\", address = \"127.0.0.1:1\" }}]\n{pool}\n"
    );
    let checked = config::check(&text, &|_| Err(std::io::ErrorKind::NotFound.into()));
    checked.unwrap_or_else(|problems| panic!("{problems:?}")).config
}

/// Another worker's turn may have begun later than this worker's, and a connection it hands over may end at once.
#[test]
fn a_connection_accepted_after_this_turn_began_is_taken_in_like_any_other() {
    let shared = shared("trust = [\"192.0.2.0/24\"]", "");
    let mut worker = Worker::new(0, Linux::new().unwrap(), Arc::clone(&shared), AccessLogSender::off());
    let listener = Arc::clone(&shared.current.load().listeners[0]);
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let incoming = Incoming {
        socket: std::os::fd::OwnedFd::from(ours).into(),
        peer: Some("198.51.100.1:1".parse().unwrap()),
        permit: listener.state.admit().unwrap(),
        listener: Arc::clone(&listener),
        accepted: now() + 5_000,
    };
    worker.admit(incoming);
    assert_eq!(listener.state.counters[0].0.ended[Ended::Untrusted as usize].value(), 1);
    assert_eq!(shared.admission.open(), 0);
}

/// The runtime gets the socket, the permit and the bytes; the worker keeps nothing of the conversation.
#[test]
fn a_conversation_leaves_the_worker_whole() {
    let shared = shared("trust = [\"192.0.2.0/24\"]", "http = true");
    let mut worker = Worker::new(0, Linux::new().unwrap(), Arc::clone(&shared), AccessLogSender::off());
    let listener = Arc::clone(&shared.current.load().listeners[0]);
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    worker.admit(Incoming {
        socket: std::os::fd::OwnedFd::from(ours).into(),
        peer: Some("192.0.2.1:1".parse().unwrap()),
        permit: listener.state.admit().unwrap(),
        listener: Arc::clone(&listener),
        accepted: now(),
    });
    assert!(worker.carried().is_none(), "the header that has to come first has not come");
    std::io::Write::write_all(&mut &theirs, b"PROXY TCP4 198.51.100.7 192.0.2.9 7 443\r\nGET / HTTP").unwrap();
    let (mut events, mut raw) = (Vec::new(), Vec::with_capacity(8));
    worker.os.wait(&mut events, &mut raw, None);
    worker.turn(&events);
    let carried = worker.carried().expect("a conversation");
    assert_eq!((worker.connections(), shared.admission.open()), (0, 1));
    assert_eq!(&*carried.bytes, b"GET / HTTP");
    let client_info = &carried.client_info;
    assert_eq!(client_info.source, Some("198.51.100.7:7".parse().unwrap()));
    assert_eq!(client_info.peer, Some("192.0.2.1:1".parse().unwrap()));
    assert_eq!(client_info.destination, Some("192.0.2.9:443".parse().unwrap()));
    assert!(client_info.announced && !client_info.local);
    std::io::Write::write_all(&mut &theirs, b"/1.1").unwrap();
    worker.os.wait(&mut events, &mut raw, Some(std::time::Duration::ZERO));
    assert!(events.is_empty(), "nobody watches it any more");
    drop(carried);
    assert_eq!(shared.admission.open(), 0);
}

/// The header was pending when other rules came into force: those that asked for it judge the connection, not the new
/// ones, which send every connection to a pool without requests.
#[test]
fn a_connection_read_under_one_generation_is_not_judged_by_the_routes_of_another() {
    for (changed, carried) in [("", true), ("trust = [\"192.0.2.0/24\", \"198.51.100.0/24\"]", false)] {
        let shared = shared("trust = [\"192.0.2.0/24\"]", "http = true");
        let mut worker = Worker::new(0, Linux::new().unwrap(), Arc::clone(&shared), AccessLogSender::off());
        let listener = Arc::clone(&shared.current.load().listeners[0]);
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        worker.admit(Incoming {
            socket: std::os::fd::OwnedFd::from(ours).into(),
            peer: Some("192.0.2.1:1".parse().unwrap()),
            permit: listener.state.admit().unwrap(),
            listener,
            accepted: now(),
        });
        let before = shared.current.load_full();
        let next = Snapshot::build(config(changed, ""), LoadedFiles::default(), Some(&before), 1, &shared.admission);
        shared.current.swap(Arc::new(next));
        std::io::Write::write_all(&mut &theirs, b"PROXY TCP4 198.51.100.7 192.0.2.9 7 443\r\n").unwrap();
        let (mut events, mut raw) = (Vec::new(), Vec::with_capacity(8));
        worker.os.wait(&mut events, &mut raw, None);
        worker.turn(&events);
        assert_eq!(worker.carried().is_some(), carried, "{changed}");
    }
}

fn idle_worker() -> (Worker<Linux>, Arc<WorkerShared>) {
    let shared = shared("", "");
    (Worker::new(0, Linux::new().unwrap(), Arc::clone(&shared), AccessLogSender::off()), shared)
}

fn listening() -> (Arc<OwnedFd>, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap();
    (Arc::new(socket.into()), address)
}

fn accepted(shared: &WorkerShared) -> u64 {
    shared.current.load().listeners[0].state.counters[0].0.accepted.value()
}

/// A turn with the events that come in so many milliseconds; answers how many these are.
fn turn(worker: &mut Worker<Linux>, wait_ms: u64) -> usize {
    let (mut events, mut raw) = (Vec::new(), Vec::with_capacity(8));
    worker.os.wait(&mut events, &mut raw, Some(Duration::from_millis(wait_ms)));
    worker.turn(&events);
    events.len()
}

#[test]
fn a_suspended_listener_costs_no_wake_and_accepts_what_waited_when_it_resumes() {
    let ((mut worker, shared), (socket, address)) = (idle_worker(), listening());
    worker.add_listener(0, socket, Arc::clone(&shared.current.load().listeners[0]), false);
    worker.suspend_accepting();
    let _waiting = [TcpStream::connect(address).unwrap(), TcpStream::connect(address).unwrap()];
    for _ in 0..3 {
        assert_eq!((turn(&mut worker, 5), worker.wake_at()), (0, None), "neither an event nor a time to look");
    }
    assert_eq!(accepted(&shared), 0);
    worker.resume_accepting();
    while accepted(&shared) < 2 {
        assert_ne!(turn(&mut worker, 5_000), 0);
    }
}

/// The limit was reached, so the listener pauses; its end must not be looked for while another process may take over.
#[test]
fn a_listener_that_was_paused_is_suspended_like_any_other() {
    let ((mut worker, shared), (socket, address)) = (idle_worker(), listening());
    worker.add_listener(0, socket, Arc::clone(&shared.current.load().listeners[0]), false);
    shared.admission.limit(0, None, None);
    let _waiting = TcpStream::connect(address).unwrap();
    while shared.admission.refused() == 0 {
        assert_ne!(turn(&mut worker, 5_000), 0);
    }
    assert!(worker.wake_at().is_some(), "the end of the pause");
    worker.suspend_accepting();
    shared.admission.limit(1, None, None);
    assert_eq!((turn(&mut worker, 60), worker.wake_at(), accepted(&shared)), (0, None, 0));
    worker.resume_accepting();
    while accepted(&shared) == 0 {
        assert_ne!(turn(&mut worker, 5_000), 0);
    }
}

/// Given up after it was suspended, as in an upgrade, and while it accepts.
#[test]
fn a_listener_that_is_given_up_stays_open_for_others() {
    for suspends in [true, false] {
        let ((mut old, old_shared), (mut new, new_shared)) = (idle_worker(), idle_worker());
        let (socket, address) = listening();
        old.add_listener(0, Arc::clone(&socket), Arc::clone(&old_shared.current.load().listeners[0]), false);
        if suspends {
            old.suspend_accepting();
        }
        let _first = TcpStream::connect(address).unwrap();
        old.give_up_listener(0);
        assert_eq!((turn(&mut old, 5), old.wake_at(), old.acceptors()), (0, None, 0));
        new.add_listener(7, socket, Arc::clone(&new_shared.current.load().listeners[0]), false);
        let _second = TcpStream::connect(address).unwrap();
        while accepted(&new_shared) < 2 {
            assert_ne!(turn(&mut new, 5_000), 0);
        }
        assert_eq!(accepted(&old_shared), 0);
    }
}

#[test]
fn a_listener_removed_while_it_was_suspended_serves_its_queue_when_it_resumes() {
    let ((mut worker, shared), (socket, address)) = (idle_worker(), listening());
    worker.add_listener(0, socket, Arc::clone(&shared.current.load().listeners[0]), false);
    worker.suspend_accepting();
    let _waiting = TcpStream::connect(address).unwrap();
    worker.remove_listener(0);
    assert_eq!((turn(&mut worker, 5), worker.wake_at(), worker.acceptors()), (0, None, 1));
    worker.resume_accepting();
    while worker.acceptors() > 0 {
        turn(&mut worker, 10);
    }
    assert_eq!(accepted(&shared), 1);
}
