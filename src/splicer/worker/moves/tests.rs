//! Pairs on real sockets that leave a worker in the middle of bulk.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;
use crate::access_log::AccessLogSender;
use crate::config;
use crate::outcome::Ended;
use crate::pool::Lease;
use crate::splicer::LargePipes;
use crate::splicer::flow::Incoming;
use crate::splicer::os::{Connection, Event, Linux, Micros, now};
use crate::splicer::pair::{Arrival, Batch, PairFacts, QUIET_US};
use crate::splicer::relay::{COPY_BYTES, Direction};
use crate::splicer::slab::{Side, Token};
use crate::splicer::worker::WorkerShared;

/// Most busy pairs that leave at once.
const BUSY: usize = 16;

/// Bytes of the stream from the client; more than all buffers on the way take.
const UP: usize = 96 << 20;

/// Bytes of the stream to the client.
const DOWN: usize = 100_000;

/// Size of a large pipe.
const LARGE: u32 = 1 << 20;

/// A test that takes longer never ends.
const PATIENCE: Duration = Duration::from_secs(30);

/// A worker as a process has it.
struct Process {
    worker: Worker<Linux>,
    shared: Arc<WorkerShared>,
}

impl Process {
    fn new(backend: SocketAddr) -> Self {
        let text = format!(
            "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\npool = \"p\"\n[[pool]]\nname = \"p\"\n\
             check = \"off\"\nbackend = [{{ name = \"b\", address = \"{backend}\" }}]\n"
        );
        let checked = config::check(&text, &|_| Err(ErrorKind::NotFound.into()));
        let config = checked.unwrap_or_else(|problems| panic!("{problems:?}")).config;
        let large_pipes = Arc::new(LargePipes::new(LARGE, 2));
        let shared = Arc::new(WorkerShared { large_pipes, ..WorkerShared::alone(config, 8) });
        let worker = Worker::new(0, Linux::new().unwrap(), Arc::clone(&shared), AccessLogSender::off());
        Self { worker, shared }
    }

    /// Makes a turn with the events of a short time; answers whether there were any.
    fn turn(&mut self) -> bool {
        let busy = self.worker.wake_at() == Some(0);
        let (mut events, mut raw) = (Vec::new(), Vec::with_capacity(8));
        let wait = Duration::from_millis(if busy { 0 } else { 10 });
        self.worker.os.wait(&mut events, &mut raw, Some(wait));
        self.worker.turn(&events);
        busy || !events.is_empty()
    }

    fn ended(&self, ended: Ended) -> u64 {
        self.shared.current.load().listeners[0].state.counters[0].0.ended[ended as usize].value()
    }

    /// Permits, leases, connections, and pipes in use.
    fn holds(&self) -> (usize, u64, usize, usize) {
        let leases = self.shared.current.load().pools[0].leases();
        (self.shared.admission.open(), leases, self.worker.connections(), self.worker.pipes().in_use())
    }

    /// What another process makes of a pair: from words, bytes, and descriptors of its own.
    fn arrive(&self, flow: &Flow<Linux>) -> Flow<Linux> {
        let words = serde_json::to_string(&flow.facts(now())).unwrap();
        let facts: PairFacts = serde_json::from_str(&words).unwrap();
        let [up, down] = flow.owed().map(<[u8]>::to_vec);
        let [client, backend] = flow
            .sockets()
            .unwrap()
            .map(|socket: &Connection| Connection::from(socket.as_fd().try_clone_to_owned().unwrap()));
        let snapshot = self.shared.current.load();
        let permit = snapshot.listeners[0].state.admit().unwrap();
        let lease = Lease::new(&snapshot.pools[0].backends()[0]);
        Flow::arrived(Arrival { client, backend, facts, up, down, permit, lease }, now())
    }
}

/// An end of the conversation: what is said, and what was heard of the other side.
struct End {
    stream: TcpStream,
    says: usize,
    said: usize,
    heard: usize,
    heard_end: bool,
}

impl End {
    fn new(stream: TcpStream, says: usize) -> Self {
        stream.set_nonblocking(true).unwrap();
        Self { stream, says, said: 0, heard: 0, heard_end: false }
    }

    /// Says as much as is taken; answers whether anything was. The end follows the last byte.
    fn say(&mut self, up_to: usize) -> bool {
        let before = self.said;
        while self.said < up_to {
            let bytes = stream(self.said, (up_to - self.said).min(1 << 18));
            match self.stream.write(&bytes) {
                Ok(n) => self.said += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        if self.said > before && self.said == self.says {
            self.stream.shutdown(Shutdown::Write).unwrap();
        }
        self.said > before
    }

    fn hear(&mut self) {
        let mut bytes = vec![0; 1 << 18];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return self.heard_end = true,
                Ok(n) => {
                    assert!(bytes[..n] == stream(self.heard, n)[..], "byte {} or one soon after", self.heard);
                    self.heard += n;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// A part of what each side says; it does not repeat itself within a pipe.
fn stream(from: usize, count: usize) -> Vec<u8> {
    (from..from + count).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect()
}

/// A pair, of which the backend has said half.
fn pair() -> (Process, End, End, SocketAddr) {
    let (front, back) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = back.local_addr().unwrap();
    let mut old = Process::new(address);
    let client = End::new(TcpStream::connect(front.local_addr().unwrap()).unwrap(), UP);
    front.set_nonblocking(true).unwrap();
    back.set_nonblocking(true).unwrap();
    let listener = Arc::clone(&old.shared.current.load().listeners[0]);
    old.worker.add_listener(0, Arc::new(front.into()), listener, false);
    let until = Instant::now() + PATIENCE;
    let mut backend = loop {
        old.turn();
        match back.accept() {
            Ok((stream, _)) => break End::new(stream, DOWN),
            Err(_) => assert!(Instant::now() < until, "no connection came"),
        }
    };
    backend.say(DOWN / 2);
    (old, client, backend, address)
}

/// A pair whose way up stands still with bytes in a pipe, since the backend does not read.
fn full_pair() -> (Process, End, End, SocketAddr) {
    let (mut old, mut client, mut backend, address) = pair();
    let until = Instant::now() + PATIENCE;
    loop {
        let said = client.say(UP - 1);
        let told = old.turn();
        match old.worker.pipes().in_use() {
            1 if !said && !told => return (old, client, backend, address),
            0 if !said && !told => backend.hear(),
            _ => {}
        }
        assert!(client.said < UP - 1 && Instant::now() < until, "no pipe was filled");
    }
}

/// Both sides say and hear all there is, and the end.
fn finish(process: &mut Process, mut client: End, mut backend: End) {
    let until = Instant::now() + PATIENCE;
    while !(client.heard_end && backend.heard_end && process.worker.connections() == 0) {
        client.say(UP);
        backend.say(DOWN);
        process.turn();
        client.hear();
        backend.hear();
        assert!(Instant::now() < until, "{} of {UP} and {} of {DOWN} bytes came", backend.heard, client.heard);
    }
    assert_eq!((backend.heard, client.heard), (UP, DOWN));
    assert_eq!(process.ended(Ended::Done), 1);
    assert_eq!(process.holds(), (0, 0, 0, 0));
}

#[test]
fn a_pair_with_a_full_pipe_goes_on_in_another_process_byte_by_byte() {
    let (mut old, client, mut backend, address) = full_pair();
    let mut flows = old.worker.take_out(Batch::of(usize::MAX));
    let flow = flows.pop().unwrap();
    assert!(flows.is_empty() && !flow.owed()[0].is_empty(), "the pipe held bytes");
    assert_eq!(old.holds(), (1, 1, 0, 0), "the row still has its permit and lease");
    // Room at the backend would be told now.
    backend.hear();
    assert!(!old.turn(), "a pair that has left is not watched any more");
    let mut new = Process::new(address);
    let arrived = new.arrive(&flow);
    drop(flow);
    assert_eq!((old.holds(), old.worker.wake_at().is_none_or(|at| at > 0)), ((0, 0, 0, 0), true));
    new.worker.take_in(arrived);
    finish(&mut new, client, backend);
    assert!(Ended::ALL.iter().all(|ended| old.ended(*ended) == 0), "it did not end in the process that it left");
}

/// What is owed then is more than a small pipe holds.
#[test]
fn a_pair_with_a_full_large_pipe_brings_all_of_it_to_another_process() {
    let (mut old, mut client, mut backend, address) = pair();
    let until = Instant::now() + PATIENCE;
    let mut held = 0;
    while held <= COPY_BYTES {
        if !client.say(UP - 1) && !old.turn() {
            backend.hear();
        }
        old.turn();
        old.worker.each(|flow| held = flow.up.held());
        assert!(client.said < UP - 1 && Instant::now() < until, "no large pipe was full");
    }
    let flow = old.worker.take_out(Batch::of(usize::MAX)).pop().unwrap();
    assert_eq!(flow.owed()[0].len(), held);
    assert!(held <= LARGE as usize);
    let mut new = Process::new(address);
    let arrived = new.arrive(&flow);
    drop(flow);
    new.worker.take_in(arrived);
    drop(old);
    finish(&mut new, client, backend);
    assert!(new.shared.large_pipes.held() <= new.worker.pipes().large(), "nothing is counted but free pipes");
}

#[test]
fn events_of_a_pair_may_wait_only_once_it_has_proved_bulky() {
    let (mut process, mut client, mut backend, _) = pair();
    let slot = process.worker.flows.slots().next().unwrap();
    let token = process.worker.flows.token(slot).unwrap();
    let of =
        |token, readable| Event { token, readable, writable: false, finished: false, failed: false, urgent: false };
    let (of_pair, accepts) = (of(token, true), of(Token::special(Side::Listener, 0), true));
    assert!(!process.worker.are_of_bulk(&[of_pair]));
    let until = Instant::now() + PATIENCE;
    while process.worker.pipes().large() == 0 || process.worker.wake_at() == Some(0) {
        client.say(UP - 1);
        process.turn();
        backend.hear();
        assert!(client.said < UP - 1 && Instant::now() < until, "no large pipe was worth having");
    }
    assert!(process.worker.are_of_bulk(&[of_pair, of_pair]));
    assert!(!process.worker.are_of_bulk(&[of_pair, accepts]));
    assert!(!process.worker.are_of_bulk(&[]), "a deadline is due");
}

#[test]
fn a_pair_that_could_not_leave_goes_on_where_it_was() {
    let (mut old, client, backend, address) = full_pair();
    let flow = old.worker.take_out(Batch::of(usize::MAX)).pop().unwrap();
    // The other process has its descriptors already, and is gone.
    let other = Process::new(address);
    drop(other.arrive(&flow));
    assert_eq!(other.holds(), (0, 0, 0, 0));
    old.worker.take_in(flow);
    finish(&mut old, client, backend);
}

/// What is not a pair yet is finished where it began.
#[test]
fn no_more_is_taken_out_than_asked_for_and_nothing_but_pairs() {
    let (mut old, _client, _backend, _) = full_pair();
    assert!(old.worker.take_out(Batch::of(0)).is_empty());
    let front = TcpListener::bind("127.0.0.1:0").unwrap();
    let _connecting = TcpStream::connect(front.local_addr().unwrap()).unwrap();
    let (socket, peer) = front.accept().unwrap();
    socket.set_nonblocking(true).unwrap();
    let listener = Arc::clone(&old.shared.current.load().listeners[0]);
    let permit = listener.state.admit().unwrap();
    let socket = OwnedFd::from(socket).into();
    old.worker.admit(Incoming { socket, peer: Some(peer), listener, permit, accepted: now() });
    assert_eq!((old.worker.connections(), old.worker.pairs()), (2, 1));
    let taken = old.worker.take_out(Batch::of(usize::MAX));
    assert_eq!((taken.len(), old.worker.connections()), (1, 1), "the connect has not been told to be complete");
}

#[test]
fn quiet_pairs_leave_together_and_busy_ones_a_few_at_a_time() {
    let (front, back) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let mut old = Process::new(back.local_addr().unwrap());
    let to = front.local_addr().unwrap();
    front.set_nonblocking(true).unwrap();
    let listener = Arc::clone(&old.shared.current.load().listeners[0]);
    old.worker.add_listener(0, Arc::new(front.into()), listener, false);
    let open: Vec<_> = (0..40).map(|_| TcpStream::connect(to).unwrap()).collect();
    let until = Instant::now() + PATIENCE;
    let pairs = |worker: &mut Worker<Linux>| {
        let mut pairs = 0;
        worker.each(|flow| pairs += usize::from(flow.is_pair()));
        pairs
    };
    while pairs(&mut old.worker) < open.len() {
        old.turn();
        assert!(Instant::now() < until, "{} pairs", pairs(&mut old.worker));
    }
    let slots: Vec<_> = old.worker.flows.slots().collect();
    for slot in slots.iter().step_by(2) {
        old.worker.flows.at(*slot).unwrap().last_active = old.worker.now - QUIET_US;
    }
    let taken: Vec<_> = [15, 100, 100, 3, 100]
        .map(|most| old.worker.take_out(Batch { quiet: most, busy: most.min(BUSY) }).len())
        .into();
    assert_eq!(taken, [15, 5, BUSY, 3, 1], "20 are quiet");
    assert!(old.worker.take_out(Batch::of(100)).is_empty());
}

/// Bytes that are held travel with the pair, however long nothing has moved.
#[test]
fn a_pair_that_holds_bytes_is_not_quiet() {
    let (mut old, ..) = full_pair();
    let slot = old.worker.flows.slots().next().unwrap();
    let flow = old.worker.flows.at(slot).unwrap();
    assert!(!flow.is_quiet(Micros::MAX));
    flow.up = Direction::writable();
    assert!(flow.is_quiet(Micros::MAX));
}
