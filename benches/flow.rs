//! What a step of a connection costs besides the kernel: a worker over imitated sockets.
//!
//! The imitation copies bytes and draws random numbers, and is part of the measurement: compare one build with another.
//! Real sockets are raced in `benches/compare`. Invariant: every byte sent is received.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use divan::Bencher;
use sessile::access_log::AccessLogSender;
use sessile::splicer::worker::{Worker, WorkerShared};
use sessile::{config, fault, socket, splicer};

use self::sim::kernel::{Id, Kernel};
use self::sim::os::SimOs;
use self::sim::socket::PeerRead;

/// The imitated kernel of the library's tests, compiled for this bench: the library that ships does not contain it.
#[path = "../src/splicer/sim"]
#[allow(dead_code, reason = "the bench uses a part of the imitation")]
mod sim {
    mod bytes;
    pub mod kernel;
    pub mod os;
    pub mod socket;
}

#[path = "../src/random.rs"]
#[allow(dead_code, reason = "the imitation uses a part of it")]
mod random;

const FILE: &str = "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\npool = \"p\"\n\
    [[pool]]\nname = \"p\"\ncheck = \"off\"\nbackend = [{ name = \"b\", address = \"192.0.2.1:1\" }]\n";

/// Message of one send and one receive.
const MESSAGE: [u8; 100] = [7; 100];

fn main() {
    divan::main();
}

/// A worker among imitated sockets.
struct Rig {
    kernel: Rc<RefCell<Kernel>>,
    worker: Worker<SimOs>,
    heard: Vec<u8>,
}

impl Rig {
    fn new() -> Self {
        let checked = config::check(FILE, &|_| Err(std::io::ErrorKind::NotFound.into()));
        let config = checked.unwrap_or_else(|problems| panic!("{problems:?}")).config;
        let shared = Arc::new(WorkerShared::alone(config, 64));
        let listener = Arc::clone(&shared.current.load().listeners[0]);
        let mut kernel = Kernel::new(1);
        (kernel.scripted, kernel.room_min) = (true, 1 << 20);
        let kernel = Rc::new(RefCell::new(kernel));
        let mut worker = Worker::new(0, SimOs(Rc::clone(&kernel), 0), shared, AccessLogSender::off());
        worker.add_listener(0, (), listener, false);
        Self { kernel, worker, heard: Vec::new() }
    }

    fn turn(&mut self) {
        let events = self.kernel.borrow_mut().events(0);
        self.worker.turn(&events);
    }

    /// Connects a client; answers with its socket and its backend's.
    fn connect(&mut self) -> (Id, Id) {
        let client = self.kernel.borrow_mut().dial(SocketAddr::from(([10, 0, 0, 1], 40_000)));
        let backend = loop {
            self.turn();
            if let Some((backend, _)) = self.kernel.borrow_mut().connecting.pop() {
                break backend;
            }
        };
        self.kernel.borrow_mut().answer(backend, Ok(()));
        (client, backend)
    }

    /// Sends a message from one end and receives it at the other.
    fn say(&mut self, from: Id, to: Id) {
        self.kernel.borrow_mut().send(from, &MESSAGE, usize::MAX);
        while self.kernel.borrow_mut().take(to, usize::MAX, &mut self.heard) == PeerRead::Nothing {
            self.turn();
        }
        assert_eq!(self.heard.len(), MESSAGE.len());
    }

    /// Both finish.
    fn close(&mut self, client: Id, backend: Id) {
        self.kernel.borrow_mut().finish(client);
        self.kernel.borrow_mut().finish(backend);
        while self.worker.connections() > 0 {
            self.turn();
        }
    }
}

/// A hundred bytes up, a hundred down.
#[divan::bench]
fn a_request_and_its_answer(bencher: Bencher<'_, '_>) {
    let mut rig = Rig::new();
    let (client, backend) = rig.connect();
    bencher.bench_local(|| {
        rig.say(client, backend);
        rig.say(backend, client);
    });
}

/// Accepted, placed, connected, one request and its answer, closed by both. The imitation remembers every socket it
/// ever made, so a rig serves a thousand.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn a_thousand_connections(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(Rig::new).bench_local_values(|mut rig| {
        for _ in 0..1_000 {
            let (client, backend) = rig.connect();
            rig.say(client, backend);
            rig.say(backend, client);
            rig.close(client, backend);
        }
    });
}
