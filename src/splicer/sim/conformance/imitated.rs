//! A stage of imitated sockets.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use super::{ConnectTarget, ScriptStage};
use crate::config::Address;
use crate::fault::Fault;
use crate::splicer::os::Event;
use crate::splicer::sim::kernel::{Id, Kernel};
use crate::splicer::sim::os::{SimOs, SimSocket};
use crate::splicer::sim::socket::PeerRead;

/// The least room of a socket that scripts count on.
const ROOM: usize = 8 * 1024;

/// Imitated sockets.
pub struct Imitated {
    kernel: Rc<RefCell<Kernel>>,
    os: SimOs,
    peer: Id,
}

impl Imitated {
    pub fn new(seed: u64) -> Self {
        let mut kernel = Kernel::new(seed);
        // Events for no reason and a shortage of memory cannot be staged with the kernel.
        (kernel.scripted, kernel.room_min) = (true, ROOM);
        let kernel = Rc::new(RefCell::new(kernel));
        Self { os: SimOs(Rc::clone(&kernel), 0), kernel, peer: 0 }
    }
}

impl ScriptStage for Imitated {
    type Os = SimOs;

    fn os(&mut self) -> &mut SimOs {
        &mut self.os
    }

    fn listener(&self) {}

    fn address(&mut self, _target: ConnectTarget) -> Address {
        Address::Tcp(SocketAddr::from(([192, 0, 2, 1], 1)))
    }

    fn answer(&mut self, target: ConnectTarget) {
        let mut kernel = self.kernel.borrow_mut();
        let Some((id, _)) = kernel.connecting.pop() else { return };
        self.peer = id;
        match target {
            ConnectTarget::Accepting => kernel.answer(id, Ok(())),
            ConnectTarget::Closed => kernel.answer(id, Err(Fault::Refused)),
            ConnectTarget::Silent => {}
        }
    }

    fn dial(&mut self) {
        self.peer = self.kernel.borrow_mut().dial(SocketAddr::from(([192, 0, 2, 2], 2)));
    }

    fn send(&mut self, bytes: usize, _segments: bool) {
        self.kernel.borrow_mut().send(self.peer, &vec![7; bytes], usize::MAX);
    }

    fn send_urgent(&mut self) {
        self.kernel.borrow_mut().send_urgent(self.peer);
    }

    fn finish(&mut self) {
        self.kernel.borrow_mut().finish(self.peer);
    }

    fn reset(&mut self) {
        self.kernel.borrow_mut().abort(self.peer, Fault::Reset);
    }

    fn close(&mut self) {
        self.kernel.borrow_mut().leave(self.peer);
    }

    fn read(&mut self, most: usize, _patient: bool) -> PeerRead {
        self.kernel.borrow_mut().take(self.peer, most, &mut Vec::new())
    }

    fn settle(&mut self, socket: &SimSocket, _unread: usize, _ended: bool, _reset: bool) {
        self.kernel.borrow_mut().settle(socket.id);
    }

    fn events(&mut self, _patient: bool) -> Vec<Event> {
        self.kernel.borrow_mut().events(0)
    }

    fn complaint(&self) -> Option<String> {
        self.kernel.borrow().violations.first().cloned()
    }
}
