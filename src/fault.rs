//! [`Fault`]: what the error of a system call means for a connection, and which side is at fault.
//!
//! Makes no system call. The one table from errno (errno(3), connect(2), tcp(7)) to a closed list, the one function
//! from a fault to the ending of an established connection, and the one from a failed connect to [`ConnectFailure`].
//! Invariant: what this process or host lacks (descriptors, ports, memory) is never held against a client or a backend,
//! and any other answer of connect(2) is the backend's failure.

use std::io;

use rustix::io::Errno;

use crate::outcome::Ended;

/// Why a stream cannot be used, or could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The peer reset the connection.
    Reset,
    /// The peer stopped acknowledging, or never replied.
    Gone,
    /// No process accepts there, or the queue of a unix socket is full.
    Refused,
    /// No route leads to the peer.
    Unreachable,
    /// The peer closed inside a TLS handshake.
    Cut,
    /// The peer sent bytes that are not TLS, or an alert.
    Tls,
    /// The peer reset the stream of HTTP/2, and not its connection.
    StreamReset,
    /// The peer has not looked at the stream of HTTP/2, and says so (RFC 9113 §8.7).
    Unprocessed,
    /// The peer sent frames that break RFC 9113, or too many.
    Frames,
    /// This host has no free local port towards the peer.
    NoPort,
    /// This process or host has no free descriptor.
    NoDescriptor,
    /// The kernel has no memory for sockets.
    NoMemory,
    /// This process or host lacks something else; the peer has no part in it.
    Local,
    /// An error of the peer's socket that is not in the table.
    Other,
}

/// The side of an established connection on which a socket failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// The socket towards the client.
    Client,
    /// The socket towards the backend.
    Backend,
}

/// Why an attempt to connect to a backend failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectFailure {
    /// No process accepts there, or the connection was reset before it was established.
    Refused,
    /// No reply came within `connect_timeout`.
    TimedOut,
    /// No route leads to the address, or a rule of this host or the network forbids it.
    Unreachable,
    /// The connection stands, but the TLS handshake failed or the certificate is not trusted.
    Tls,
    /// The TLS handshake stands, but did not agree on HTTP/2, which the pool speaks.
    NoHttp2,
    /// This process or host lacks something; another backend would fail in the same way.
    Local(Ended),
}

impl Fault {
    /// The meaning of an error of a peer's socket.
    pub fn of(error: Errno) -> Self {
        match error {
            Errno::CONNRESET | Errno::PIPE | Errno::CONNABORTED | Errno::NOTCONN => Self::Reset,
            Errno::TIMEDOUT => Self::Gone,
            Errno::CONNREFUSED | Errno::NOENT => Self::Refused,
            Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::NETDOWN | Errno::HOSTDOWN => Self::Unreachable,
            Errno::ADDRNOTAVAIL | Errno::ADDRINUSE => Self::NoPort,
            Errno::MFILE | Errno::NFILE => Self::NoDescriptor,
            Errno::NOBUFS | Errno::NOMEM => Self::NoMemory,
            _ => Self::Other,
        }
    }

    /// The meaning of an error of the standard library or the runtime; one without errno is local.
    pub fn of_io(error: &io::Error) -> Self {
        Errno::from_io_error(error).map_or(Self::Local, Self::of)
    }

    /// The meaning of an error of a call in which no peer has a part, such as socket(2) or epoll_ctl(2).
    pub fn own(error: Errno) -> Self {
        match Self::of(error) {
            lack @ (Self::NoPort | Self::NoDescriptor | Self::NoMemory) => lack,
            _ => Self::Local,
        }
    }

    /// The ending for what this process or host lacks; `None` where the peer caused the fault.
    pub fn local(self) -> Option<Ended> {
        match self {
            Self::NoPort => Some(Ended::NoPort),
            Self::NoDescriptor => Some(Ended::NoDescriptor),
            Self::NoMemory => Some(Ended::NoMemory),
            Self::Local => Some(Ended::LocalError),
            Self::Reset | Self::Gone | Self::Refused | Self::Unreachable | Self::Cut | Self::Tls | Self::Other => None,
            Self::StreamReset | Self::Unprocessed | Self::Frames => None,
        }
    }

    /// The ending of an established connection after its socket on this side failed.
    pub fn ending(self, side: Endpoint) -> Ended {
        let (reset, gone, tls, frames) = match side {
            Endpoint::Client => (Ended::ClientReset, Ended::ClientGone, Ended::ClientTls, Ended::Http2Error),
            Endpoint::Backend => (Ended::BackendReset, Ended::BackendGone, Ended::BackendTls, Ended::ResponseRefused),
        };
        match self {
            Self::Reset | Self::Refused | Self::Cut | Self::StreamReset | Self::Unprocessed => reset,
            Self::Frames => frames,
            Self::Gone | Self::Unreachable => gone,
            Self::Tls => tls,
            lack => lack.local().unwrap_or(Ended::LocalError),
        }
    }

    /// The failure of an attempt to connect that ended with this fault.
    pub fn connect_failure(self) -> ConnectFailure {
        match self {
            Self::Refused | Self::Reset => ConnectFailure::Refused,
            Self::Gone => ConnectFailure::TimedOut,
            Self::Cut | Self::Tls => ConnectFailure::Tls,
            // EINVAL of a blackhole route, EACCES of a prohibit route or a forbidden unix socket, EPERM of a packet
            // filter, ...: connect(2) has many words for a destination that it cannot have.
            peer => peer.local().map_or(ConnectFailure::Unreachable, ConnectFailure::Local),
        }
    }
}

impl ConnectFailure {
    /// The ending of a connection after its last attempt failed in this way.
    pub fn ended(self) -> Ended {
        match self {
            Self::Refused => Ended::ConnectRefused,
            Self::TimedOut => Ended::ConnectTimeout,
            Self::Unreachable => Ended::ConnectUnreachable,
            Self::Tls => Ended::BackendTls,
            Self::NoHttp2 => Ended::BackendNoHttp2,
            Self::Local(ended) => ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every errno that tcp(7), unix(7) and connect(2) name: connect fails as, an established client's socket ends as.
    #[rustfmt::skip]
    const TABLE: &[(Errno, ConnectFailure, Ended)] = {
        use ConnectFailure::{Local, Refused, TimedOut, Unreachable};
        use Ended::{ClientGone, ClientReset, LocalError, NoDescriptor, NoMemory, NoPort};
        &[
            (Errno::CONNREFUSED,    Refused,             ClientReset),
            (Errno::NOENT,          Refused,             ClientReset),
            (Errno::CONNRESET,      Refused,             ClientReset),
            (Errno::CONNABORTED,    Refused,             ClientReset),
            (Errno::PIPE,           Refused,             ClientReset),
            (Errno::NOTCONN,        Refused,             ClientReset),
            (Errno::TIMEDOUT,       TimedOut,            ClientGone),
            (Errno::HOSTUNREACH,    Unreachable,         ClientGone),
            (Errno::NETUNREACH,     Unreachable,         ClientGone),
            (Errno::NETDOWN,        Unreachable,         ClientGone),
            (Errno::HOSTDOWN,       Unreachable,         ClientGone),
            (Errno::INVAL,          Unreachable,         LocalError),
            (Errno::ACCESS,         Unreachable,         LocalError),
            (Errno::PERM,           Unreachable,         LocalError),
            (Errno::PROTOTYPE,      Unreachable,         LocalError),
            (Errno::NOTDIR,         Unreachable,         LocalError),
            (Errno::LOOP,           Unreachable,         LocalError),
            (Errno::AFNOSUPPORT,    Unreachable,         LocalError),
            (Errno::NAMETOOLONG,    Unreachable,         LocalError),
            (Errno::PROTO,          Unreachable,         LocalError),
            (Errno::IO,             Unreachable,         LocalError),
            (Errno::ADDRNOTAVAIL,   Local(NoPort),       NoPort),
            (Errno::ADDRINUSE,      Local(NoPort),       NoPort),
            (Errno::MFILE,          Local(NoDescriptor), NoDescriptor),
            (Errno::NFILE,          Local(NoDescriptor), NoDescriptor),
            (Errno::NOBUFS,         Local(NoMemory),     NoMemory),
            (Errno::NOMEM,          Local(NoMemory),     NoMemory),
        ]
    };

    #[test]
    fn every_errno_has_one_meaning_for_a_connect_and_one_for_an_established_side() {
        for (errno, connect, client) in TABLE {
            let fault = Fault::of(*errno);
            assert_eq!(fault.connect_failure(), *connect, "{errno}");
            assert_eq!(fault.ending(Endpoint::Client), *client, "{errno}");
            let backend = match client {
                Ended::ClientReset => Ended::BackendReset,
                Ended::ClientGone => Ended::BackendGone,
                same => *same,
            };
            assert_eq!(fault.ending(Endpoint::Backend), backend, "{errno}");
        }
    }

    #[test]
    fn what_this_process_or_host_lacks_is_nobody_elses_failure() {
        for (errno, connect, _) in TABLE {
            let lacks = matches!(connect, ConnectFailure::Local(_));
            assert_eq!(Fault::of(*errno).local().is_some(), lacks, "{errno}");
            assert!(Fault::own(*errno).local().is_some(), "{errno}: no peer has a part in it");
            assert_eq!(Fault::of_io(&(*errno).into()), Fault::of(*errno));
        }
        assert_eq!(Fault::of_io(&io::ErrorKind::Other.into()).local(), Some(Ended::LocalError));
    }

    #[test]
    fn a_tls_fault_is_the_peers() {
        assert_eq!(Fault::Tls.ending(Endpoint::Client), Ended::ClientTls);
        assert_eq!(Fault::Cut.ending(Endpoint::Backend), Ended::BackendReset);
        assert_eq!(Fault::Cut.connect_failure().ended(), Ended::BackendTls);
    }
}
