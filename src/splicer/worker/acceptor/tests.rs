//! How the accepts of a worker are shared: with established pairs, among listeners, and with listeners that close.

use std::cell::RefCell;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::access_log::AccessLogSender;
use crate::config;
use crate::splicer::os::Linux;
use crate::splicer::sim::kernel::{Id, Kernel, Traced};
use crate::splicer::sim::os::SimOs;
use crate::splicer::sim::socket::PeerRead;
use crate::splicer::worker::WorkerShared;
use crate::splicer::worker::run_queue::OTHERS_MAX;

const PAIRS: usize = 20;

fn shared(listeners: usize) -> Arc<WorkerShared> {
    let listener = |n: usize| format!("[[listener]]\nname = \"l{n}\"\nbind = \"127.0.0.1:{}\"\npool = \"p\"\n", n + 1);
    let text = (0..listeners).map(listener).collect::<String>()
        + "[[pool]]\nname = \"p\"\ncheck = \"off\"\nbackend = [{ name = \"b\", address = \"127.0.0.1:1\" }]\n";
    let checked = config::check(&text, &|_| Err(std::io::ErrorKind::NotFound.into()));
    let config = checked.unwrap_or_else(|problems| panic!("{problems:?}")).config;
    Arc::new(WorkerShared::alone(config, 8))
}

fn accepted(shared: &WorkerShared, listener: usize) -> u64 {
    shared.current.load().listeners[listener].state.counters[0].0.accepted.value()
}

/// A worker over the imitated kernel, with one listener.
struct Rig {
    kernel: Rc<RefCell<Kernel>>,
    worker: Worker<SimOs>,
    shared: Arc<WorkerShared>,
}

impl Rig {
    fn new() -> Self {
        let shared = shared(1);
        let mut kernel = Kernel::new(3);
        (kernel.scripted, kernel.room_min, kernel.trace) = (true, 1 << 20, Some(Vec::new()));
        let kernel = Rc::new(RefCell::new(kernel));
        let mut worker = Worker::new(0, SimOs(Rc::clone(&kernel), 0), Arc::clone(&shared), AccessLogSender::off());
        worker.add_listener(0, (), Arc::clone(&shared.current.load().listeners[0]), false);
        Self { kernel, worker, shared }
    }

    fn dial(&self) -> Id {
        self.kernel.borrow_mut().dial(SocketAddr::from(([10, 0, 0, 1], 40_000)))
    }

    /// A turn; returns the sockets of `among` that an event called readable, and what was called.
    fn turn(&mut self, among: &[Id]) -> (Vec<Id>, Vec<Traced>) {
        let events = self.kernel.borrow_mut().events(0);
        let told = |id: &Id| {
            let token = self.kernel.borrow().socket(*id).token();
            events.iter().any(|event| event.readable && Some(event.token) == token)
        };
        let ready = among.iter().copied().filter(told).collect();
        self.worker.turn(&events);
        (ready, self.kernel.borrow_mut().trace.replace(Vec::new()).unwrap_or_default())
    }

    /// A client that is connected to a backend, as their sockets.
    fn pair(&mut self) -> (Id, Id) {
        let client = self.dial();
        let backend = loop {
            self.turn(&[]);
            if let Some((backend, _)) = self.kernel.borrow_mut().connecting.pop() {
                break backend;
            }
        };
        self.kernel.borrow_mut().answer(backend, Ok(()));
        self.say(client);
        while self.kernel.borrow_mut().take(backend, usize::MAX, &mut Vec::new()) == PeerRead::Nothing {
            self.turn(&[]);
        }
        (client, backend)
    }

    fn say(&self, client: Id) {
        self.kernel.borrow_mut().send(client, &[7; 100], usize::MAX);
    }
}

#[test]
fn pairs_with_bytes_are_stepped_before_an_accept_and_wait_for_few_of_them() {
    let mut rig = Rig::new();
    let pairs: Vec<_> = (0..PAIRS).map(|_| rig.pair()).collect();
    let clients: Vec<_> = pairs.iter().map(|(client, _)| *client).collect();
    for _ in 0..100 {
        rig.dial();
    }
    let (mut waiting, mut busy) = (100, 0);
    while waiting > 0 {
        clients.iter().for_each(|client| rig.say(*client));
        let (ready, trace) = rig.turn(&clients);
        let accepts = trace.iter().filter(|call| **call == Traced::Accept).count();
        waiting -= accepts;
        if ready.is_empty() {
            continue;
        }
        busy += 1;
        assert!(accepts <= ACCEPTS_MIN as usize, "{accepts} accepts between two steps of a pair");
        let first = trace.iter().position(|call| *call == Traced::Accept).unwrap_or(trace.len());
        for client in ready {
            let read = trace.iter().position(|call| *call == Traced::Read(client));
            assert!(read.is_some_and(|read| read < first), "a pair waited for a connection that is new");
        }
    }
    assert!(busy >= 100 / ACCEPTS_MIN as usize / 2, "pairs had bytes in {busy} turns");
}

/// Backends that answer all at once make pairs of many connections in one batch of events.
#[test]
fn pairs_with_bytes_are_stepped_before_connections_that_become_pairs() {
    let mut rig = Rig::new();
    let pairs: Vec<_> = (0..PAIRS).map(|_| rig.pair().0).collect();
    let mut others: Vec<_> = (0..200).map(|_| rig.dial()).collect();
    while accepted(&rig.shared, 0) < (PAIRS + others.len()) as u64 {
        rig.turn(&[]);
    }
    // So that the step in which they become pairs reads.
    others.iter().for_each(|client| rig.say(*client));
    (0..200).for_each(|_| drop(rig.turn(&[])));
    let connecting = std::mem::take(&mut rig.kernel.borrow_mut().connecting);
    for (backend, _) in connecting {
        rig.kernel.borrow_mut().answer(backend, Ok(()));
    }
    let (mut most, mut busy) = (0, 0);
    while !others.is_empty() {
        pairs.iter().for_each(|client| rig.say(*client));
        let (ready, trace) = rig.turn(&pairs);
        let at = |client: &Id| trace.iter().position(|call| *call == Traced::Read(*client));
        // From its first read on it is a pair itself.
        let of_others: Vec<_> = others.iter().filter_map(at).collect();
        others.retain(|client| at(client).is_none());
        most = most.max(of_others.len());
        let first = of_others.into_iter().min().unwrap_or(trace.len());
        for client in &ready {
            busy += 1;
            assert!(at(client).is_some_and(|read| read < first), "a pair waited for a connection that is new");
        }
    }
    assert_eq!(most, OTHERS_MAX, "steps of one turn");
    assert!(busy >= 200 / OTHERS_MAX, "pairs had bytes in {busy} turns");
}

#[test]
fn an_idle_worker_accepts_a_burst_in_few_turns() {
    let mut rig = Rig::new();
    for _ in 0..500 {
        rig.dial();
    }
    let mut turns = 0;
    while accepted(&rig.shared, 0) < 500 {
        rig.turn(&[]);
        turns += 1;
        assert!(turns <= 40, "{} accepted", accepted(&rig.shared, 0));
    }
}

/// A worker on real sockets, one for each listener, and clients that wait at them.
fn crowded(listeners: usize, clients: usize) -> (Worker<Linux>, Arc<WorkerShared>, Vec<TcpStream>) {
    let shared = shared(listeners);
    let mut worker = Worker::new(0, Linux::new().unwrap(), Arc::clone(&shared), AccessLogSender::off());
    let mut waiting = Vec::new();
    for number in 0..listeners {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        waiting.extend((0..clients).map(|_| TcpStream::connect(address).unwrap()));
        let listener = Arc::clone(&shared.current.load().listeners[number]);
        worker.add_listener(number as u32, Arc::new(OwnedFd::from(socket)), listener, false);
    }
    (worker, shared, waiting)
}

fn turn(worker: &mut Worker<Linux>) {
    let (mut events, mut raw) = (Vec::new(), Vec::with_capacity(64));
    worker.os.wait(&mut events, &mut raw, Some(Duration::from_millis(1)));
    worker.turn(&events);
}

/// More listeners than a turn accepts connections, each with a long queue.
#[test]
fn listeners_with_long_queues_have_equal_shares_of_the_turns() {
    const LISTENERS: usize = 24;
    let (mut worker, shared, _waiting) = crowded(LISTENERS, 8);
    let counts = || (0..LISTENERS).map(|number| accepted(&shared, number)).collect::<Vec<_>>();
    let mut before = 0;
    while counts().iter().sum::<u64>() < 8 * LISTENERS as u64 {
        turn(&mut worker);
        let (sum, counts) = (counts().iter().sum::<u64>(), counts());
        assert!(sum - before <= u64::from(ACCEPTS_MAX), "{} in one turn", sum - before);
        before = sum;
        let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        // A listener that finds its queue longer than it thought doubles what it takes, up to the length of the others.
        assert!(most - least <= 4, "{counts:?}");
    }
}

#[test]
fn a_listener_that_closes_serves_a_long_queue_a_batch_a_turn() {
    let (mut worker, shared, _waiting) = crowded(1, 100);
    worker.remove_listener(0);
    let mut before = 0;
    while worker.acceptors() > 0 {
        turn(&mut worker);
        let now = accepted(&shared, 0);
        assert!(now - before <= u64::from(ACCEPTS_MAX) + 1, "{} in one turn", now - before);
        before = now;
    }
    assert_eq!(before, 100);
}
