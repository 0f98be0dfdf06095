//! The code under test's way to the imitated kernel.
//!
//! Decides nothing. Invariant: whatever it hands out reports when it is dropped, so that a leak or a use after close
//! shows.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use super::bytes::Bytes;
use super::kernel::{Id, Kernel};
use super::socket::Closed;
use crate::config::Address;
use crate::fault::Fault;
use crate::socket::KeepAlive;
use crate::splicer::os::{Accepted, Io, Micros, Os, Side, Token};

/// Bytes one slot of a pipe takes.
const SLOT_BYTES: usize = 4096;

/// Most bytes that may be asked into a pipe that has not grown.
const SMALL_BYTES: usize = 64 * 1024;

/// An imitated operating system, as the process with this number sees it.
#[derive(Debug, Clone)]
pub struct SimOs(pub Rc<RefCell<Kernel>>, pub usize);

/// A socket handle; dropping it closes.
#[derive(Debug)]
pub struct SimSocket {
    /// Its number.
    pub id: Id,
    kernel: Rc<RefCell<Kernel>>,
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        self.kernel.borrow_mut().drop_descriptor(self.id);
    }
}

impl SimSocket {
    /// Another descriptor of the same socket, as another process gets it.
    pub fn duplicate(&self) -> Self {
        self.kernel.borrow_mut().duplicate(self.id);
        Self { id: self.id, kernel: Rc::clone(&self.kernel) }
    }
}

/// A pipe handle; dropping it closes.
#[derive(Debug)]
pub struct SimPipe {
    bytes: RefCell<Bytes>,
    slots: Cell<usize>,
    grown: Cell<bool>,
    kernel: Rc<RefCell<Kernel>>,
}

impl Drop for SimPipe {
    fn drop(&mut self) {
        let mut kernel = self.kernel.borrow_mut();
        kernel.pipes -= 1;
        kernel.grown -= usize::from(self.grown.get());
        kernel.filled -= usize::from(!self.bytes.borrow().is_empty());
    }
}

impl SimOs {
    fn socket(&self, id: Id) -> SimSocket {
        SimSocket { id, kernel: Rc::clone(&self.0) }
    }

    fn panic_if_asked(&self) {
        let asked = std::mem::take(&mut self.0.borrow_mut().panic_next);
        if asked {
            panic!("injected");
        }
    }
}

impl Os for SimOs {
    type Socket = SimSocket;
    type Pipe = SimPipe;
    type Listener = ();

    fn accept(&mut self, (): &()) -> Accepted<SimSocket> {
        let mut kernel = self.0.borrow_mut();
        kernel.count();
        if kernel.fails() {
            return if kernel.random.one_in(2) { Accepted::Skip } else { Accepted::Exhausted(Fault::NoDescriptor) };
        }
        match kernel.accept() {
            None => Accepted::Empty,
            Some((id, from)) => {
                drop(kernel);
                Accepted::Connection(self.socket(id), Some(from))
            }
        }
    }

    fn recv(&mut self, socket: &SimSocket, into: &mut [u8]) -> Io {
        self.panic_if_asked();
        let most = into.len();
        self.0.borrow_mut().read(socket.id, most, true, |bytes| into[..bytes.len()].copy_from_slice(bytes))
    }

    fn send(&mut self, socket: &SimSocket, from: &[u8]) -> Io {
        self.panic_if_asked();
        self.0.borrow_mut().write(socket.id, from)
    }

    fn splice_in(&mut self, socket: &SimSocket, pipe: &SimPipe, most: usize) -> Io {
        let mut kernel = self.0.borrow_mut();
        let mut held = pipe.bytes.borrow_mut();
        if !held.is_empty() {
            kernel.violations.push(format!("socket {}: spliced into a pipe that still holds bytes", socket.id));
            return Io::Later;
        }
        if most > SMALL_BYTES && !pipe.grown.get() {
            kernel.violations.push(format!("socket {}: {most} bytes for a small pipe", socket.id));
        }
        // Small segments use a slot each, whatever they carry. An urgent byte is not passed over.
        let slot = kernel.random.one_of(&[60, 700, SLOT_BYTES, SLOT_BYTES]);
        let answer = kernel.read(socket.id, most.min(pipe.slots.get() * slot), false, |bytes| held.push(bytes));
        kernel.filled += usize::from(!held.is_empty());
        answer
    }

    fn splice_out(&mut self, pipe: &SimPipe, socket: &SimSocket, most: usize) -> Io {
        let mut bytes = pipe.bytes.borrow_mut();
        let n = most.min(bytes.len());
        let mut kernel = self.0.borrow_mut();
        let answer = kernel.write(socket.id, bytes.front(n));
        if let Io::Moved(n) = answer {
            bytes.skip(n);
            kernel.filled -= usize::from(bytes.is_empty());
        }
        answer
    }

    fn read_pipe(&mut self, pipe: &SimPipe, into: &mut [u8]) -> Io {
        let mut bytes = pipe.bytes.borrow_mut();
        if bytes.is_empty() {
            return Io::Later;
        }
        let mut kernel = self.0.borrow_mut();
        kernel.count();
        // Pipes are read seldom, so this fails more often than other calls.
        if kernel.failures > 0 && kernel.random.one_in(100) {
            return Io::Broken(Fault::NoMemory);
        }
        // A pipe gives one buffer at a time, whatever is asked for.
        let n = into.len().min(bytes.len()).min(1 + kernel.random.below(SLOT_BYTES));
        into[..n].copy_from_slice(bytes.front(n));
        bytes.skip(n);
        kernel.filled -= usize::from(bytes.is_empty());
        Io::Moved(n)
    }

    fn pipe(&mut self) -> Result<(SimPipe, usize), Fault> {
        let mut kernel = self.0.borrow_mut();
        kernel.count();
        if kernel.fails() {
            return Err(Fault::NoDescriptor);
        }
        let slots = if kernel.random.one_in(8) { 2 } else { 16 + kernel.random.below(48) };
        kernel.pipes += 1;
        let (bytes, grown) = (RefCell::default(), Cell::new(false));
        let pipe = SimPipe { bytes, slots: Cell::new(slots), grown, kernel: Rc::clone(&self.0) };
        Ok((pipe, slots * SLOT_BYTES))
    }

    fn grow(&mut self, pipe: &SimPipe, bytes: usize) -> bool {
        let mut kernel = self.0.borrow_mut();
        kernel.count();
        if !pipe.bytes.borrow().is_empty() {
            kernel.violations.push("a pipe grows while it holds bytes".into());
        }
        // The pages of an unprivileged user are used up.
        if kernel.fails() || (!kernel.scripted && kernel.random.one_in(8)) {
            return false;
        }
        kernel.grown += usize::from(!pipe.grown.replace(true));
        pipe.slots.set(bytes / SLOT_BYTES);
        true
    }

    fn connect(&mut self, to: &Address, _from: Option<IpAddr>) -> Result<SimSocket, Fault> {
        let mut kernel = self.0.borrow_mut();
        kernel.count();
        if kernel.fails() {
            return Err(kernel.random.one_of(&[Fault::NoPort, Fault::NoDescriptor, Fault::NoMemory, Fault::Local]));
        }
        if let Some((_, why)) = kernel.hopeless.iter().find(|(address, _)| address == to) {
            return Err(*why);
        }
        let id = kernel.connect(to);
        drop(kernel);
        Ok(self.socket(id))
    }

    fn take_error(&mut self, socket: &SimSocket) -> Option<Fault> {
        self.0.borrow_mut().take_error(socket.id)
    }

    fn shutdown(&mut self, socket: &SimSocket) {
        self.0.borrow_mut().shutdown(socket.id);
    }

    fn reset(&mut self, socket: SimSocket) {
        self.0.borrow_mut().close(socket.id, Closed::Reset);
    }

    fn watch(&mut self, socket: &SimSocket, token: Token) -> Result<(), Fault> {
        let mut kernel = self.0.borrow_mut();
        if kernel.fails() {
            return Err(Fault::NoMemory);
        }
        kernel.watch(socket.id, token, self.1);
        Ok(())
    }

    fn unwatch(&mut self, socket: &SimSocket) {
        self.0.borrow_mut().unwatch(socket.id);
    }

    fn watch_listener(&mut self, (): &(), token: Token, _shared: bool) -> Result<(), Fault> {
        debug_assert_eq!(token.side(), Side::Listener);
        let mut kernel = self.0.borrow_mut();
        if kernel.fails() {
            return Err(Fault::NoMemory);
        }
        if kernel.listeners.insert(self.1, token).is_some() {
            kernel.violations.push("the listener is watched though it is watched already".into());
        }
        Ok(())
    }

    fn unwatch_listener(&mut self, (): &()) {
        self.0.borrow_mut().listeners.remove(&self.1);
    }

    fn refuse_new(&mut self, (): &()) {}

    fn accept_silent(&mut self, (): &()) {}

    fn local_address(&mut self, _socket: &SimSocket) -> Option<SocketAddr> {
        Some(SocketAddr::from(([192, 0, 2, 1], 443)))
    }

    fn keep_alive(&mut self, socket: &SimSocket, _rules: &KeepAlive) {
        self.0.borrow_mut().keep_alive(socket.id);
    }

    fn now(&mut self) -> Micros {
        self.0.borrow().now
    }
}
