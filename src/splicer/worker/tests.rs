//! What a worker does that a world of the simulation does not show.

use std::os::unix::net::UnixStream;
use std::sync::Arc;

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
