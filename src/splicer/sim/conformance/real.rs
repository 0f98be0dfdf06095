//! A stage of real sockets: TCP on the loopback, or unix.
//!
//! Waits for the kernel with bounded polls, never by sleeping.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use super::{ConnectTarget, ScriptStage};
use crate::config::Address;
use crate::splicer::os::{Connection, Event, Linux};
use crate::splicer::sim::socket::PeerRead;

/// How long the kernel may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long is listened for what should not come.
const SHORTLY: Duration = Duration::from_millis(5);

/// Real sockets.
pub struct Real {
    os: Linux,
    listener: Arc<OwnedFd>,
    address: Address,
    peer: Option<OwnedFd>,
    /// Kept so that their addresses stay as they are: bound and shut, or with a full queue.
    others: Vec<OwnedFd>,
    folder: Option<tempfile::TempDir>,
    /// An urgent byte is in the stream: bytes behind it are not counted by the kernel.
    urgent: bool,
    raw: Vec<epoll::Event>,
}

impl Real {
    pub fn tcp() -> Self {
        let listener = bound(None);
        rustix::net::listen(&listener, 8).expect("listening");
        let address = Address::Tcp(name(&listener));
        Self::new(listener, address, None)
    }

    pub fn unix() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let listener = bound(Some(&path));
        rustix::net::listen(&listener, 8).expect("listening");
        Self::new(listener, Address::Unix(path), Some(folder))
    }

    fn new(listener: OwnedFd, address: Address, folder: Option<tempfile::TempDir>) -> Self {
        let os = Linux::new().expect("an epoll");
        let (peer, others, raw) = (None, Vec::new(), Vec::with_capacity(16));
        Self { os, listener: Arc::new(listener), address, peer, others, folder, urgent: false, raw }
    }

    fn peer(&self) -> &OwnedFd {
        self.peer.as_ref().expect("a peer")
    }
}

impl ScriptStage for Real {
    type Os = Linux;

    fn os(&mut self) -> &mut Linux {
        &mut self.os
    }

    fn listener(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.listener)
    }

    fn address(&mut self, target: ConnectTarget) -> Address {
        let path = |name: &str| self.folder.as_ref().map(|folder| folder.path().join(name));
        match target {
            ConnectTarget::Accepting => self.address.clone(),
            ConnectTarget::Closed => {
                let path = path("nobody");
                let shut = bound(path.as_deref());
                let address = path.map_or_else(|| Address::Tcp(name(&shut)), Address::Unix);
                self.others.push(shut);
                address
            }
            ConnectTarget::Silent => {
                let full = bound(None);
                rustix::net::listen(&full, 0).expect("listening");
                let address = name(&full);
                self.others.push(full);
                for _ in 0..2 {
                    self.others.push(connect(&Address::Tcp(address)));
                }
                Address::Tcp(address)
            }
        }
    }

    fn answer(&mut self, target: ConnectTarget) {
        if target == ConnectTarget::Accepting {
            wait(self.listener.as_fd(), PollFlags::IN);
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            self.peer = Some(rustix::net::accept_with(&*self.listener, flags).expect("accepted"));
        }
    }

    fn dial(&mut self) {
        self.peer = Some(connect(&self.address));
        wait(self.listener.as_fd(), PollFlags::IN);
    }

    fn send(&mut self, bytes: usize, segments: bool) {
        let chunk = if segments { 1 } else { bytes };
        let mut left = bytes;
        while left > 0 {
            match rustix::net::send(self.peer(), &vec![7; chunk.min(left)], SendFlags::NOSIGNAL) {
                Ok(n) => left -= n,
                Err(Errno::AGAIN) => wait(self.peer().as_fd(), PollFlags::OUT),
                // The connection was reset already; the peer learns it from this error.
                Err(_) => return,
            }
        }
    }

    fn send_urgent(&mut self) {
        rustix::net::send(self.peer(), &[7], SendFlags::OOB | SendFlags::NOSIGNAL).expect("sent");
        self.urgent = true;
    }

    fn finish(&mut self) {
        rustix::net::shutdown(self.peer(), Shutdown::Write).expect("finished");
    }

    fn reset(&mut self) {
        let peer = self.peer.take().expect("a peer");
        sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).expect("set");
    }

    fn close(&mut self) {
        self.peer = None;
    }

    fn read(&mut self, most: usize, patient: bool) -> PeerRead {
        let patience = if patient { PATIENCE } else { SHORTLY };
        if !ready(self.peer().as_fd(), PollFlags::IN, patience) {
            return PeerRead::Nothing;
        }
        match rustix::net::recv(self.peer(), &mut vec![0; most], RecvFlags::empty()) {
            Ok((_, 0)) => PeerRead::End,
            Ok((_, n)) => PeerRead::Bytes(n),
            Err(Errno::AGAIN) => PeerRead::Nothing,
            Err(_) => PeerRead::Reset,
        }
    }

    fn settle(&mut self, socket: &Connection, unread: usize, ended: bool, reset: bool) {
        let until = Instant::now() + PATIENCE;
        while !self.urgent && rustix::io::ioctl_fionread(socket).expect("counted") < unread as u64 {
            assert!(Instant::now() < until, "{unread} bytes did not arrive");
        }
        if reset {
            wait(socket.as_fd(), PollFlags::HUP);
        } else if ended {
            wait(socket.as_fd(), PollFlags::RDHUP);
        }
    }

    fn events(&mut self, patient: bool) -> Vec<Event> {
        let mut events = Vec::new();
        self.os.wait(&mut events, &mut self.raw, Some(if patient { PATIENCE } else { SHORTLY }));
        events
    }

    fn complaint(&self) -> Option<String> {
        None
    }
}

fn bound(path: Option<&std::path::Path>) -> OwnedFd {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let family = if path.is_some() { AddressFamily::UNIX } else { AddressFamily::INET };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None).expect("a socket");
    match path {
        Some(path) => rustix::net::bind(&socket, &SocketAddrUnix::new(path).expect("a path")).expect("bound"),
        None => rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).expect("bound"),
    }
    if path.is_none() {
        sockopt::set_tcp_nodelay(&socket, true).expect("set");
    }
    socket
}

fn connect(address: &Address) -> OwnedFd {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let family = if let Address::Tcp(_) = address { AddressFamily::INET } else { AddressFamily::UNIX };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None).expect("a socket");
    let answer = match address {
        Address::Tcp(address) => {
            sockopt::set_tcp_nodelay(&socket, true).expect("set");
            rustix::net::connect(&socket, address)
        }
        Address::Unix(path) => rustix::net::connect(&socket, &SocketAddrUnix::new(path.as_path()).expect("a path")),
        Address::Name(name) => panic!("{name} has no address"),
    };
    assert!(matches!(answer, Ok(()) | Err(Errno::INPROGRESS)), "{answer:?}");
    socket
}

fn name(socket: &OwnedFd) -> SocketAddr {
    let address = rustix::net::getsockname(socket).expect("a name");
    SocketAddr::try_from(address).expect("an address")
}

fn wait(socket: BorrowedFd<'_>, what: PollFlags) {
    assert!(ready(socket, what, PATIENCE), "{what:?} did not come");
}

/// Whether one of these came in time. `poll` shows what is so and takes no event away.
fn ready(socket: BorrowedFd<'_>, what: PollFlags, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    loop {
        let left = Timespec::try_from(until.saturating_duration_since(Instant::now())).expect("short");
        let mut sockets = [PollFd::new(&socket, what)];
        match poll(&mut sockets, Some(&left)) {
            Ok(_) => return sockets[0].revents().intersects(what | PollFlags::ERR | PollFlags::HUP),
            Err(Errno::INTR) => {}
            Err(error) => panic!("poll: {error}"),
        }
    }
}
