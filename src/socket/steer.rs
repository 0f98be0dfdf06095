//! [`steer`]: which of the listening sockets that share an address (`SO_REUSEPORT`) gets new connections.
//!
//! Binds nothing. A process that starts beside one that stops shares its addresses until the old sockets close. The
//! kernel keeps the sockets of an address in a list: a socket that begins to listen comes last, and the last one takes
//! the place of one that closes. Invariant: new connections go to a socket at or behind the given place, or, where there
//! is none, to a socket by the hash of their addresses; handshakes under way stay at their socket.

use std::io;
use std::os::fd::AsFd;

use nix::libc::{BPF_K, BPF_RET, sock_filter, sock_fprog};
use nix::sys::socket::{setsockopt, sockopt};

/// A place behind every socket: the kernel spreads new connections over all sockets of the address.
pub const BY_HASH: u32 = u32::MAX;

/// Has the kernel give new connections to the socket at this place of the list that `socket` is in.
///
/// Where `place` sockets listened before those of this process, the place is that of an own socket for as long as one
/// of them is there, in whatever order the others close.
pub fn steer(socket: &impl AsFd, place: u32) -> io::Result<()> {
    // Classic BPF (bpf(4)): return the place. One outside of the list counts as no answer.
    let mut program = [sock_filter { code: (BPF_RET | BPF_K) as u16, jt: 0, jf: 0, k: place }];
    let program = sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    setsockopt(socket, sockopt::AttachReusePortCbpf, &program).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::socket::{KeepAlive, Options, bind_tcp, listen, listening_at, refuse_new};

    fn more(address: SocketAddr) -> OwnedFd {
        let socket =
            bind_tcp(address, &Options { backlog: 512, defer_accept_s: 0, keep_alive: KeepAlive::default() }).unwrap();
        listen(&socket, 512).unwrap();
        socket
    }

    fn accepted(sockets: Vec<OwnedFd>) -> Vec<usize> {
        let count = |socket: OwnedFd| {
            let listener = TcpListener::from(socket);
            std::iter::from_fn(|| listener.accept().ok()).count()
        };
        sockets.into_iter().map(count).collect()
    }

    #[test]
    fn new_connections_pass_by_the_sockets_that_were_there_before() {
        let first = more("127.0.0.1:0".parse().unwrap());
        let address = TcpListener::from(first.try_clone().unwrap()).local_addr().unwrap();
        let mut old = vec![first, more(address), more(address)];
        let place = listening_at(address);
        assert_eq!(place, 3);
        let new = vec![more(address), more(address), more(address)];
        steer(&new[0], place as u32).unwrap();
        // A socket that takes no new connection would keep a client waiting for a second.
        old.iter().for_each(|socket| refuse_new(socket).unwrap());
        let mut clients = Vec::new();
        let mut connect = |count: usize| {
            clients.extend((0..count).map(|_| TcpStream::connect(address).unwrap()));
        };
        connect(20);
        drop(old.remove(0));
        connect(20);
        drop(old.remove(1));
        connect(20);
        drop(old);
        connect(20);
        steer(&new[0], BY_HASH).unwrap();
        connect(120);
        let accepted = accepted(new);
        assert_eq!(accepted.iter().sum::<usize>(), 200, "{accepted:?}");
        assert!(accepted.iter().all(|count| *count > 10), "not spread in the end: {accepted:?}");
    }
}
