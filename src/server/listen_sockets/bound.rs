//! [`Bound`]: one address that is bound, with its sockets and the options that they have.
//!
//! Binds nothing (`open` does). Invariant: sockets that get clients already are changed only once a configuration is in
//! force, because until then they may be another process's, or serve by another configuration.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use crate::config::Bind;
use crate::server::own_files;
use crate::socket::unix_file::UnixFile;
use crate::socket::{self, KeepAlive, Options};

/// Which sockets of an address get new clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Steering {
    /// The kernel spreads new clients over all.
    ByHash,
    /// So many sockets of another process, which stops, get none.
    PassBy(u32),
    /// The process before may have steered them.
    Unknown,
}

/// One address that is bound, with its sockets.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    pub(super) number: u32,
    /// Name of the listener and index of the address; identifies an address with a port that the kernel chose.
    pub(super) owner: (String, usize),
    /// What was bound: for a socket from systemd its name, also where a configuration names its address.
    pub(super) bind: Bind,
    pub(super) address: Option<SocketAddr>,
    /// The configuration names only a wider address of this port, such as 0.0.0.0. The kernel would lead new clients to
    /// this socket until it closes, so it stays and serves them by the rules of the wider one.
    pub(super) covered: bool,
    pub(super) steering: Steering,
    /// The file of a unix socket that this process has bound; `None`: another kind of socket.
    pub(super) file: Option<UnixFile>,
    /// The options that the configuration wants.
    pub(super) options: Options,
    /// The options that the sockets have; `None`: not known.
    pub(super) has: Option<Options>,
    /// The sockets; the workers own them.
    pub(super) sockets: Vec<Weak<OwnedFd>>,
    /// The sockets while no worker has them yet; the first `listening` of these listen already.
    pub(super) held: Vec<Arc<OwnedFd>>,
    pub(super) listening: usize,
    /// The sockets that do not listen yet begin when a configuration is in force: they would get clients of the process
    /// before at once, and lose them if the upgrade fails.
    pub(super) waits: bool,
    /// Numbers, in the process before, of the addresses that the sockets had.
    pub(super) came: Vec<u32>,
}

impl Bound {
    /// Sockets that no worker has yet; `listening`: how many of them listen.
    pub(super) fn new(bind: Bind, held: Vec<Arc<OwnedFd>>, listening: usize) -> Self {
        Self {
            number: 0,
            owner: (String::new(), 0),
            bind,
            address: held.first().and_then(socket::local_address),
            covered: false,
            steering: Steering::ByHash,
            file: None,
            options: Options { backlog: 0, defer_accept_s: 0, keep_alive: KeepAlive::default() },
            has: None,
            sockets: held.iter().map(Arc::downgrade).collect(),
            held,
            listening,
            waits: false,
            came: Vec::new(),
        }
    }

    /// True if this is the address that a configuration names. An address with a port that the kernel chose is
    /// identified by its owner, and a socket from systemd also by its address. A unix socket without its file is reached
    /// by no client and must be bound again.
    pub(super) fn is(&self, bind: &Bind, owner: &(String, usize)) -> bool {
        let chosen = matches!(bind, Bind::Tcp(address) if address.port() == 0);
        let is_reachable = self.file.as_ref().is_none_or(UnixFile::is_there);
        let is_named = self.bind == *bind && (!chosen || self.owner == *owner);
        let has_address = self.is_passed() && matches!(bind, Bind::Tcp(to) if self.address == Some(*to));
        (is_named || has_address) && is_reachable
    }

    /// True for a socket from systemd.
    pub(super) fn is_passed(&self) -> bool {
        matches!(self.bind, Bind::Systemd(_))
    }

    /// True if all workers watch one socket.
    pub(super) fn is_shared(&self) -> bool {
        !matches!(self.bind, Bind::Tcp(_))
    }

    /// True if a worker still holds a socket of this address.
    pub(super) fn is_open(&self) -> bool {
        self.sockets.iter().any(|socket| socket.strong_count() > 0)
    }

    /// True if a client can reach both addresses by the same address.
    pub(super) fn overlaps(&self, other: SocketAddr) -> bool {
        self.address.is_some_and(|own| overlap(own, other))
    }

    /// True if the other address stands for every address of its family and port, this one among them.
    pub(super) fn is_within(&self, other: SocketAddr) -> bool {
        other.ip().is_unspecified() && self.overlaps(other)
    }

    /// The address as operators know it, with the port that the kernel chose.
    pub(super) fn shown(&self) -> String {
        self.address.map_or_else(|| self.bind.to_string(), |address| address.to_string())
    }

    /// Begins to listen on the sockets that do not yet.
    pub(super) fn listen(&mut self) -> std::io::Result<()> {
        if self.listening == self.held.len() {
            return Ok(());
        }
        for socket in &self.held[self.listening..] {
            socket::listen(socket, self.options.backlog)?;
            self.listening += 1;
        }
        self.take_place()
    }

    /// Takes the place of another process that stops: new TCP clients pass by its sockets, and the path of a unix socket
    /// leads here.
    fn take_place(&mut self) -> std::io::Result<()> {
        if let (Steering::PassBy(count), Some(socket)) = (self.steering, self.held.first())
            && let Err(error) = socket::steer(socket, count)
        {
            self.steering = Steering::ByHash;
            tracing::warn!("{}: some new clients may wait a second for a process that stops: {error}", self.bind);
        }
        match (&mut self.file, &self.bind) {
            (Some(file), Bind::Unix(path)) if file.path() != path => file.rename_to(path),
            _ => Ok(()),
        }
    }

    /// Ends the sharing with another process: all sockets get new clients.
    pub(super) fn spread(&mut self) {
        let steered = std::mem::replace(&mut self.steering, Steering::ByHash) != Steering::ByHash;
        let socket = self.sockets.iter().find_map(Weak::upgrade).filter(|_| steered);
        if let Some(Err(error)) = socket.map(|socket| socket::steer(&socket, socket::BY_HASH)) {
            tracing::warn!("{}: new clients go to one worker: {error}", self.bind);
        }
    }

    /// Does what only a configuration in force may do: the last sockets listen, and all have the options of their
    /// listener. No client that waits in a queue is lost.
    pub(super) fn settle(&mut self) {
        if let Err(error) = self.listen() {
            tracing::error!("{}: a socket cannot listen: {error}", self.bind);
            self.held.truncate(self.listening);
            self.sockets.truncate(self.listening);
        }
        if self.has != Some(self.options) {
            match self.tune() {
                Ok(()) => self.has = Some(self.options),
                Err(error) => tracing::error!("{}: options of its sockets cannot be set: {error}", self.bind),
            }
        }
    }

    fn tune(&self) -> std::io::Result<()> {
        for socket in self.sockets.iter().filter_map(Weak::upgrade) {
            if self.address.is_some() {
                socket::tune_tcp(&socket, &self.options)?;
            }
            // A socket from systemd has the queue that its unit gives it.
            if !self.is_passed() {
                if self.address.is_some() {
                    socket::defer_accept(&socket, self.options.defer_accept_s)?;
                }
                socket::listen(&socket, self.options.backlog)?;
            }
        }
        Ok(())
    }

    /// The workers have the sockets now, or close theirs.
    pub(super) fn belongs_to_workers(&mut self) {
        (self.held, self.listening, self.came) = (Vec::new(), 0, Vec::new());
        self.waits = false;
    }

    /// Removes the file of a unix socket: new clients cannot connect, and those in the backlog are still served.
    pub(super) fn unlink(&self) {
        self.file.iter().for_each(own_files::remove_socket);
    }
}

/// True if a client can reach both addresses by the same address.
pub(super) fn overlap(one: SocketAddr, two: SocketAddr) -> bool {
    let (a, b) = (one.ip(), two.ip());
    one.port() == two.port() && a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified())
}
