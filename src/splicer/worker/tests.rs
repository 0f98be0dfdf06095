//! What a worker does that a world of the simulation does not show.

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use super::*;
use crate::config;
use crate::snapshot::Snapshot;
use crate::splicer::os::{Linux, now};
use crate::tls::Termination;

fn shared(listener: &str) -> Arc<Shared> {
    let text = format!(
        "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\npool = \"p\"\n{listener}\n\
         [[pool]]\nname = \"p\"\ncheck = \"off\"\nbackend = [{{ name = \"b\", address = \"127.0.0.1:1\" }}]\n"
    );
    let checked = config::check(&text, &|_| Err(std::io::ErrorKind::NotFound.into()));
    let config = checked.unwrap_or_else(|problems| panic!("{problems:?}")).config;
    let admission = Arc::new(Admission::new(usize::MAX));
    Arc::new(Shared {
        current: Arc::new(Current::new(Snapshot::build(config, Termination::default(), None, 1, &admission))),
        admission,
        pipes_max: 8,
        counters: vec![Padded::default()].into(),
    })
}

/// Another worker's turn may have begun later than this one's, and what it hands over may end at once.
#[test]
fn a_connection_accepted_after_this_turn_began_is_taken_in_like_any_other() {
    let shared = shared("trust = [\"192.0.2.0/24\"]");
    let mut worker = Worker::new(0, Linux::new().unwrap(), Arc::clone(&shared), JournalSender::off());
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
