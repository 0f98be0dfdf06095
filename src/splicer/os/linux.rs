//! [`Linux`]: the real operating system, with non-blocking sockets and edge-triggered epoll.
//!
//! Holds no connection and decides nothing. Invariant: one method makes one system call, but for `pipe`, `connect`,
//! `reset` and `keep_alive`, which cannot.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketFlags, sockopt};
use rustix::pipe::{PipeFlags, SpliceFlags};

use super::{Accepted, Event, Io, Micros, Os};
use crate::clock::now;
use crate::config::Address;
use crate::fault::Fault;
use crate::proxy_protocol::canonical;
use crate::socket::KeepAlive;
use crate::splicer::slab::{Side, Token};

/// An event as epoll_wait(2) returns it.
pub type RawEvent = epoll::Event;

/// Size of a pipe, for its slots: a segment from a network fills a slot of 4 KiB with 1,448 bytes, so that 64 KiB take 45.
const PIPE_BYTES: usize = 256 * 1024;

/// Socket of a client or a backend.
#[derive(Debug)]
pub struct Connection(OwnedFd);

impl From<OwnedFd> for Connection {
    fn from(socket: OwnedFd) -> Self {
        Self(socket)
    }
}

impl From<Connection> for OwnedFd {
    fn from(connection: Connection) -> Self {
        connection.0
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Both ends of a pipe.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

/// The epoll and the clock of one worker.
#[derive(Debug)]
pub struct Linux {
    epoll: OwnedFd,
}

impl Linux {
    /// Makes the epoll of a worker.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)? })
    }

    /// Watches the eventfd of the worker's inbox.
    pub fn watch_inbox(&mut self, eventfd: impl AsFd) -> std::io::Result<()> {
        let token = epoll::EventData::new_u64(Token::special(Side::Inbox, 0).to_bits());
        Ok(epoll::add(&self.epoll, eventfd, token, epoll::EventFlags::IN)?)
    }

    /// Sleeps until an event, at most `timeout`; `None` = for ever. The events replace the content of `into`.
    pub fn wait(&mut self, into: &mut Vec<Event>, raw: &mut Vec<RawEvent>, timeout: Option<Duration>) {
        into.clear();
        raw.clear();
        let timeout = timeout.and_then(|timeout| timeout.try_into().ok());
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(raw), timeout.as_ref()) {
            Ok(_) => into.extend(raw.iter().map(|event| {
                let (flags, data) = (event.flags, event.data);
                let failed = flags.contains(epoll::EventFlags::ERR);
                let hung_up = flags.contains(epoll::EventFlags::HUP);
                Event {
                    token: Token::from_bits(data.u64()),
                    readable: failed || hung_up || flags.contains(epoll::EventFlags::IN),
                    writable: failed || hung_up || flags.contains(epoll::EventFlags::OUT),
                    finished: hung_up || flags.contains(epoll::EventFlags::RDHUP),
                    failed,
                    urgent: flags.contains(epoll::EventFlags::PRI),
                }
            })),
            Err(Errno::INTR) => {}
            // No other error is possible for this epoll; the pause keeps even that from spinning.
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

impl Os for Linux {
    type Socket = Connection;
    type Pipe = Pipe;
    type Listener = Arc<OwnedFd>;

    fn accept(&mut self, listener: &Arc<OwnedFd>) -> Accepted<Connection> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        match rustix::net::acceptfrom_with(listener, flags) {
            Ok((socket, peer)) => {
                let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok()).map(canonical);
                Accepted::Connection(Connection(socket), peer)
            }
            Err(Errno::AGAIN) => Accepted::Empty,
            Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)) => {
                Accepted::Exhausted(Fault::own(error))
            }
            // accept(2): errors of the new connection itself are to be treated like EAGAIN, by trying again.
            Err(_) => Accepted::Skip,
        }
    }

    fn recv(&mut self, socket: &Connection, into: &mut [u8]) -> Io {
        match rustix::net::recv(&socket.0, into, RecvFlags::empty()) {
            Ok((_, 0)) => Io::End,
            Ok((_, n)) => Io::Moved(n),
            Err(error) => failure(error),
        }
    }

    fn send(&mut self, socket: &Connection, from: &[u8]) -> Io {
        moved(rustix::net::send(&socket.0, from, SendFlags::NOSIGNAL))
    }

    fn splice_in(&mut self, socket: &Connection, pipe: &Pipe, most: usize) -> Io {
        match rustix::pipe::splice(&socket.0, None, &pipe.write, None, most, splice_flags()) {
            // The end, or an urgent byte before it: a read tells which.
            Ok(0) => Io::End,
            other => moved(other),
        }
    }

    fn splice_out(&mut self, pipe: &Pipe, socket: &Connection, most: usize) -> Io {
        match rustix::pipe::splice(&pipe.read, None, &socket.0, None, most, splice_flags()) {
            // The pipe is never empty here, so a zero would be a broken promise of the kernel's.
            Ok(0) => Io::Broken(Fault::Other),
            other => moved(other),
        }
    }

    fn read_pipe(&mut self, pipe: &Pipe, into: &mut [u8]) -> Io {
        match rustix::io::read(&pipe.read, into) {
            Ok(0) => Io::End,
            other => moved(other),
        }
    }

    fn pipe(&mut self) -> Result<(Pipe, usize), Fault> {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).map_err(Fault::own)?;
        // Where an unprivileged user's pipe pages are used up, this fails and the pipe stays small.
        let _ = rustix::pipe::fcntl_setpipe_size(&write, PIPE_BYTES);
        let size = rustix::pipe::fcntl_getpipe_size(&write).map_err(Fault::own)?;
        Ok((Pipe { read, write }, size))
    }

    fn grow(&mut self, pipe: &Pipe, bytes: usize) -> bool {
        // EPERM above pipe-max-size, and where an unprivileged user's pipe pages are used up.
        rustix::pipe::fcntl_setpipe_size(&pipe.write, bytes).is_ok_and(|size| size >= bytes)
    }

    fn connect(&mut self, to: &Address, from: Option<IpAddr>) -> Result<Connection, Fault> {
        crate::socket::connect(to, from).map(Connection)
    }

    fn take_error(&mut self, socket: &Connection) -> Option<Fault> {
        match sockopt::socket_error(&socket.0) {
            Ok(Ok(())) => None,
            Ok(Err(error)) | Err(error) => Some(Fault::of(error)),
        }
    }

    fn shutdown(&mut self, socket: &Connection) {
        // Fails only where the peer has reset meanwhile, which the next event reports.
        let _ = rustix::net::shutdown(&socket.0, Shutdown::Write);
    }

    fn reset(&mut self, socket: Connection) {
        let _ = sockopt::set_socket_linger(&socket.0, Some(Duration::ZERO));
    }

    fn watch(&mut self, socket: &Connection, token: Token) -> Result<(), Fault> {
        use epoll::EventFlags as Flags;
        let flags = Flags::IN | Flags::OUT | Flags::RDHUP | Flags::PRI | Flags::ET;
        epoll::add(&self.epoll, &socket.0, epoll::EventData::new_u64(token.to_bits()), flags).map_err(Fault::own)
    }

    fn unwatch(&mut self, socket: &Connection) {
        let _ = epoll::delete(&self.epoll, &socket.0);
    }

    fn watch_listener(&mut self, listener: &Arc<OwnedFd>, token: Token, shared: bool) -> Result<(), Fault> {
        let exclusive = if shared { epoll::EventFlags::EXCLUSIVE } else { epoll::EventFlags::empty() };
        let data = epoll::EventData::new_u64(token.to_bits());
        epoll::add(&self.epoll, listener, data, epoll::EventFlags::IN | exclusive).map_err(Fault::own)
    }

    fn unwatch_listener(&mut self, listener: &Arc<OwnedFd>) {
        let _ = epoll::delete(&self.epoll, listener);
    }

    fn refuse_new(&mut self, listener: &Arc<OwnedFd>) {
        // A unix socket takes no filter; its file is removed instead.
        let _ = crate::socket::refuse_new(listener);
    }

    fn accept_silent(&mut self, listener: &Arc<OwnedFd>) {
        // Fails for no TCP socket, and a unix socket has no such clients.
        let _ = crate::socket::defer_accept(listener, 0);
    }

    fn local_address(&mut self, socket: &Connection) -> Option<SocketAddr> {
        let address = rustix::net::getsockname(&socket.0).ok()?;
        SocketAddr::try_from(address).ok().map(canonical)
    }

    fn keep_alive(&mut self, socket: &Connection, rules: &KeepAlive) {
        // Best effort: a unix socket has none of these.
        let _ = rules.apply(&socket.0);
    }

    fn now(&mut self) -> Micros {
        now()
    }
}

fn splice_flags() -> SpliceFlags {
    SpliceFlags::MOVE | SpliceFlags::NONBLOCK
}

fn moved(answer: rustix::io::Result<usize>) -> Io {
    match answer {
        Ok(n) => Io::Moved(n),
        Err(error) => failure(error),
    }
}

fn failure(error: Errno) -> Io {
    match error {
        Errno::AGAIN | Errno::INTR => Io::Later,
        other => Io::Broken(Fault::of(other)),
    }
}
