//! A worker among imitated sockets, for benches of what a connection costs besides the kernel.
//!
//! The imitation copies bytes and draws random numbers, and is part of each measurement. Measures nothing itself.
//! Invariant: every byte sent is received.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use sessile::access_log::AccessLogSender;
use sessile::splicer::worker::{Worker, WorkerShared};

use self::sim::kernel::{Id, Kernel};
use self::sim::os::SimOs;
use self::sim::socket::PeerRead;

/// The imitated kernel of the library's tests, compiled for this bench: the library that ships does not contain it.
#[path = "../../src/splicer/sim"]
#[allow(dead_code, reason = "a bench uses a part of the imitation")]
mod sim {
    mod bytes;
    pub mod kernel;
    pub mod os;
    pub mod socket;
}

/// Message of one send and one receive.
const MESSAGE: [u8; 100] = [7; 100];

/// A worker with a kernel of its own.
pub struct Rig {
    kernel: Rc<RefCell<Kernel>>,
    worker: Worker<SimOs>,
    heard: Vec<u8>,
}

impl Rig {
    /// The worker with this number of all that share `shared`; it accepts on the first listener.
    pub fn new(shared: &Arc<WorkerShared>, index: usize) -> Self {
        let listener = Arc::clone(&shared.current.load().listeners[0]);
        let mut kernel = Kernel::new(1);
        (kernel.scripted, kernel.room_min) = (true, 1 << 20);
        let kernel = Rc::new(RefCell::new(kernel));
        let mut worker = Worker::new(index, SimOs(Rc::clone(&kernel), 0), Arc::clone(shared), AccessLogSender::off());
        worker.add_listener(0, (), listener, false);
        Self { kernel, worker, heard: Vec::new() }
    }

    fn turn(&mut self) {
        let events = self.kernel.borrow_mut().events(0);
        self.worker.turn(&events);
    }

    /// Connects a client; answers with its socket and its backend's.
    pub fn connect(&mut self, client: SocketAddr) -> (Id, Id) {
        let client = self.kernel.borrow_mut().dial(client);
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
    pub fn say(&mut self, from: Id, to: Id) {
        self.kernel.borrow_mut().send(from, &MESSAGE, usize::MAX);
        while self.kernel.borrow_mut().take(to, usize::MAX, &mut self.heard) == PeerRead::Nothing {
            self.turn();
        }
        assert_eq!(self.heard.len(), MESSAGE.len());
    }

    /// Both finish.
    pub fn close(&mut self, client: Id, backend: Id) {
        self.kernel.borrow_mut().finish(client);
        self.kernel.borrow_mut().finish(backend);
        while self.worker.connections() > 0 {
            self.turn();
        }
    }

    /// A whole connection: accepted, placed, connected, one request and its answer, closed by both.
    pub fn connection(&mut self, from: SocketAddr) {
        let (client, backend) = self.connect(from);
        self.say(client, backend);
        self.say(backend, client);
        self.close(client, backend);
    }
}
