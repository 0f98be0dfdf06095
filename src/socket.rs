//! Makes sockets: listening sockets, bound beside no other process, and connecting sockets.
//!
//! Accepts nothing and waits for nothing. Invariant: a TCP address is bound only after a probe without `SO_REUSEPORT`
//! has shown that no other process listens there, and nothing listens before everything is bound.

mod defer_accept;
mod in_use;
mod steer;
pub mod unix_file;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use socket2::{Domain, SockAddr, SockFilter, Socket, Type};

use self::unix_file::UnixFile;
use crate::config::Address;
use crate::fault::Fault;

pub use self::defer_accept::{DeferAccept, defer_accept};
pub use self::in_use::{listening_at, why_in_use};
pub use self::steer::{BY_HASH, steer};

/// When the kernel takes a silent peer for gone (tcp(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeepAlive {
    /// Seconds of silence before the first probe; 0 = no probes.
    pub idle_s: u32,
    /// Seconds between two unanswered probes.
    pub interval_s: u32,
    /// Number of unanswered probes after which the peer is gone.
    pub count: u32,
    /// Milliseconds that sent bytes may stay unacknowledged; 0 = the kernel's default.
    pub user_timeout_ms: u32,
}

impl KeepAlive {
    /// Sets the options on a new TCP socket.
    pub fn apply(&self, socket: impl AsFd) -> io::Result<()> {
        if self.idle_s > 0 {
            sockopt::set_socket_keepalive(&socket, true)?;
            sockopt::set_tcp_keepidle(&socket, Duration::from_secs(self.idle_s.into()))?;
            sockopt::set_tcp_keepintvl(&socket, Duration::from_secs(self.interval_s.into()))?;
            sockopt::set_tcp_keepcnt(&socket, self.count)?;
        }
        if self.user_timeout_ms > 0 {
            sockopt::set_tcp_user_timeout(&socket, self.user_timeout_ms)?;
        }
        Ok(())
    }

    /// Sets the options on a TCP socket that may have others already.
    fn replace(&self, socket: &impl AsFd) -> io::Result<()> {
        if self.idle_s == 0 {
            sockopt::set_socket_keepalive(socket, false)?;
        }
        if self.user_timeout_ms == 0 {
            sockopt::set_tcp_user_timeout(socket, 0)?;
        }
        self.apply(socket)
    }
}

/// Options of a listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Length of the accept queue, in connections.
    pub backlog: u32,
    /// Seconds for which a client that has sent nothing is not accepted; 0 = it is accepted at once (TCP_DEFER_ACCEPT).
    pub defer_accept_s: u32,
    /// Keepalive options that accepted sockets inherit.
    pub keep_alive: KeepAlive,
}

/// Fails if any process listens on the address already, whatever options its socket has.
pub fn probe(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    prepare(&socket, address)?;
    socket.bind(&address.into())
}

/// Binds one of a group of sockets that share an address; the kernel spreads connections over them.
pub fn bind_tcp(address: SocketAddr, options: &Options) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    prepare(&socket, address)?;
    socket.set_reuse_port(true)?;
    tune_tcp(&socket, options)?;
    if options.defer_accept_s > 0 {
        defer_accept(&socket, options.defer_accept_s)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Sets the options that accepted sockets inherit from their listener, in the place of those that it has.
pub fn tune_tcp(socket: &impl AsFd, options: &Options) -> io::Result<()> {
    sockopt::set_tcp_nodelay(socket, true)?;
    options.keep_alive.replace(socket)
}

/// Binds a unix socket. A file that a dead process left is replaced; one that a process listens on is an error.
pub fn bind_unix(path: &Path) -> io::Result<(OwnedFd, UnixFile)> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    Ok((socket.into(), UnixFile::bound(path)?))
}

/// Removes the file of a unix socket that no process listens on, and nothing else.
pub fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(there) if !there.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is not a socket is in the way"));
        }
        Ok(_) => {}
    }
    match knock(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        Ok(()) | Err(_) => Err(io::ErrorKind::AddrInUse.into()),
    }
}

/// Connects to a unix socket without waiting. `WouldBlock`: a process listens, but its queue is full.
pub(crate) fn knock(path: &Path) -> io::Result<()> {
    Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?.connect(&SockAddr::unix(path)?)
}

/// The addresses of `host:port` for the hosts `localhost` and `*`, which is every address of the machine. No other name is
/// looked up.
pub fn resolve(name: &str) -> io::Result<Vec<SocketAddr>> {
    own_addresses(name).ok_or_else(|| io::Error::other("it is no name of this machine"))
}

/// The addresses of a host that is this machine: that of IPv4, and that of IPv6 where the kernel has it. `None`: the host
/// is another name.
fn own_addresses(name: &str) -> Option<Vec<SocketAddr>> {
    let (host, port) = name.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let (v4, v6) = match host {
        "*" => (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED),
        "localhost" => (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST),
        _ => return None,
    };
    let is_missing = |error: &io::Error| {
        let code = error.raw_os_error().map(Errno::from_raw_os_error);
        matches!(code, Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
    };
    // A probe that fails for another reason says nothing of the kernel; the bind will name it.
    let has_v6 = !probe((v6, 0).into()).is_err_and(|error| is_missing(&error));
    Some([(v4, port).into()].into_iter().chain(has_v6.then(|| (v6, port).into())).collect())
}

/// The address that a TCP socket is bound to; `None`: another kind of socket.
pub fn local_address(socket: &impl AsFd) -> Option<SocketAddr> {
    SocketAddr::try_from(rustix::net::getsockname(socket).ok()?).ok()
}

/// Begins to listen on a bound socket; one that listens gets another backlog.
pub fn listen(socket: impl AsFd, backlog: u32) -> io::Result<()> {
    Ok(rustix::net::listen(socket, backlog.min(i32::MAX as u32) as i32)?)
}

/// Lets no new handshake begin on a listening TCP socket, while handshakes under way complete. A packet filter drops
/// every segment with SYN and without ACK; the client's kernel repeats it after a second, when the port is closed or
/// belongs to another process.
pub fn refuse_new(socket: &OwnedFd) -> io::Result<()> {
    const FLAGS_OFFSET: u32 = 13;
    const SYN: u32 = 0x02;
    const SYN_OR_ACK: u32 = 0x12;
    // Classic BPF (bpf(4)): load the TCP flags; keep SYN and ACK; SYN alone → drop, anything else → keep.
    let program = [
        SockFilter::new(0x30, 0, 0, FLAGS_OFFSET),
        SockFilter::new(0x54, 0, 0, SYN_OR_ACK),
        SockFilter::new(0x15, 0, 1, SYN),
        SockFilter::new(0x06, 0, 0, 0),
        SockFilter::new(0x06, 0, 0, u32::MAX),
    ];
    socket2::SockRef::from(socket).attach_filter(&program)
}

/// Binds a connecting socket to an address and leaves the port to `connect`, which may share ports between
/// destinations (`IP_BIND_ADDRESS_NO_PORT`, ip(7)).
pub fn bind_without_port(socket: &impl AsFd, from: IpAddr) -> Result<(), Errno> {
    nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::IpBindAddressNoPort, &true)
        .map_err(|error| Errno::from_raw_os_error(error as i32))?;
    rustix::net::bind(socket, &SocketAddr::new(from, 0))
}

/// Begins to connect to a backend, from this address where one is given.
///
/// What is about this process or host is a fault that is [`Fault::local`]; any other is about the destination.
pub fn connect(to: &Address, from: Option<IpAddr>) -> Result<OwnedFd, Fault> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (family, protocol) = match to {
        Address::Tcp(SocketAddr::V4(_)) => (AddressFamily::INET, Some(rustix::net::ipproto::TCP)),
        Address::Tcp(SocketAddr::V6(_)) => (AddressFamily::INET6, Some(rustix::net::ipproto::TCP)),
        Address::Unix(_) => (AddressFamily::UNIX, None),
        Address::Name(_) => return Err(Fault::Unreachable),
    };
    let socket =
        rustix::net::socket_with(family, SocketType::STREAM, flags, protocol).map_err(|error| match error {
            // A kernel without IPv6 has no route to such a destination.
            Errno::AFNOSUPPORT => Fault::Unreachable,
            error => Fault::own(error),
        })?;
    let answer = match to {
        Address::Tcp(address) => {
            sockopt::set_tcp_nodelay(&socket, true).map_err(Fault::own)?;
            if let Some(from) = from {
                // No port is chosen here, so EADDRNOTAVAIL is about the address: it is not this host's.
                bind_without_port(&socket, from).map_err(|_| Fault::Local)?;
            }
            rustix::net::connect(&socket, address)
        }
        Address::Unix(path) => {
            SocketAddrUnix::new(path.as_path()).and_then(|path| rustix::net::connect(&socket, &path))
        }
        Address::Name(_) => Err(Errno::HOSTUNREACH),
    };
    match (answer, to) {
        (Ok(()) | Err(Errno::INPROGRESS), _) => Ok(socket),
        // The queue of a unix socket is full, and there is nothing to wait for (connect(2)).
        (Err(Errno::AGAIN), Address::Unix(_)) => Err(Fault::Refused),
        // The routing cache or the local ports have run out (connect(2)).
        (Err(Errno::AGAIN), Address::Tcp(_)) => Err(Fault::NoPort),
        (Err(Errno::ADDRNOTAVAIL), Address::Tcp(to)) if from.is_none() && !has_source_for(to) => {
            Err(Fault::Unreachable)
        }
        (Err(error), _) => Err(Fault::of(error)),
    }
}

/// True if this host has an address from which to reach the destination. Where it has none (IPv6 is switched off, or an
/// interface has no address), connect(2) fails with EADDRNOTAVAIL, as it does where no port is left. Connecting a UDP
/// socket selects the source address in the same way, sends nothing and does not share TCP's ports.
fn has_source_for(to: &SocketAddr) -> bool {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    socket.and_then(|socket| rustix::net::connect(&socket, to)) != Err(Errno::ADDRNOTAVAIL)
}

/// Connects from one of these addresses, in turn by connection, so that the ports of all are used alike. Where the
/// first has no free port, the others follow.
pub fn connect_in_turn<T>(
    sources: &[IpAddr],
    to: &Address,
    turn: u64,
    mut connect: impl FnMut(Option<IpAddr>) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let fits = |source: &IpAddr| matches!(to, Address::Tcp(to) if to.is_ipv4() == source.is_ipv4());
    let fitting = || sources.iter().copied().filter(fits);
    let count = fitting().count();
    let mut turns = fitting().cycle().skip(turn as usize % count.max(1)).take(count);
    let mut answer = connect(turns.next());
    for from in turns {
        if !matches!(answer, Err(Fault::NoPort)) {
            break;
        }
        answer = connect(Some(from));
    }
    answer
}

fn prepare(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // Whatever the system's default is: `[::]:443` never takes IPv4 clients, so `0.0.0.0:443` can stand beside it.
        socket.set_only_v6(true)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_its_own_names_and_only_addresses_that_can_be_bound() {
        for (name, v4) in [("*:8080", "0.0.0.0:8080"), ("localhost:8080", "127.0.0.1:8080")] {
            let addresses = resolve(name).unwrap();
            assert_eq!(addresses[0], v4.parse().unwrap());
            for address in addresses {
                assert_eq!(address.port(), 8080);
                assert!(probe((address.ip(), 0).into()).is_ok(), "{address}");
            }
        }
        assert_eq!(own_addresses("web.example:80"), None);
        assert_eq!(own_addresses("localhost:http"), None);
    }
}
