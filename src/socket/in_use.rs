//! [`why_in_use`]: what holds an address that the kernel calls in use (EADDRINUSE). [`listening_at`]: how many sockets
//! share it.
//!
//! Binds nothing. The kernel lists the sockets of this network namespace (proc_net_tcp(5)), but not those that are bound
//! and neither listen nor have a connection. Invariant: a process is said to listen on the address only if the kernel
//! lists such a socket.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// State of a listening socket in the lists.
const LISTEN: &str = "0A";

/// A socket in the kernel's lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ListedSocket {
    local: SocketAddr,
    remote: SocketAddr,
    listens: bool,
    inode: u64,
}

/// Why an address cannot be bound although the error says no more than that it is in use.
pub fn why_in_use(address: SocketAddr) -> String {
    if address.port() == 0 {
        return "no port is free".to_owned();
    }
    let lists = ["/proc/self/net/tcp", "/proc/self/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    let listed: Vec<_> = lists.iter().flat_map(|list| list.lines().skip(1).filter_map(read)).collect();
    explain(address, &listed, &own_sockets())
}

/// Number of sockets of all processes that listen on exactly this address; 0 if the kernel does not show its lists.
pub fn listening_at(address: SocketAddr) -> usize {
    let path = if address.is_ipv4() { "/proc/self/net/tcp" } else { "/proc/self/net/tcp6" };
    let Ok(list) = File::open(path) else { return 0 };
    // Sockets that listen come first, so thousands of connections behind them are not read.
    let lines = BufReader::new(list).lines().skip(1).map_while(Result::ok);
    let listening = lines.map_while(|line| read(&line).filter(|socket| socket.listens));
    listening.filter(|socket| (socket.local.ip(), socket.local.port()) == (address.ip(), address.port())).count()
}

fn explain(address: SocketAddr, listed: &[ListedSocket], own: &HashSet<u64>) -> String {
    let mut there: Vec<_> = listed.iter().filter(|socket| conflicts(address, socket.local)).collect();
    // Listening sockets first, and those of other processes before our own.
    there.sort_by_key(|socket| (!socket.listens, own.contains(&socket.inode)));
    match there.first() {
        Some(socket) if socket.listens && own.contains(&socket.inode) => {
            "this process listens there already".to_owned()
        }
        Some(socket) if socket.listens => "another program listens there".to_owned(),
        Some(ListedSocket { local, remote, .. }) => {
            format!("no process listens there, but the connection of {local} to {remote} has the port")
        }
        None => "the address is in use, but no process listens there: a socket is only bound to it".to_owned(),
    }
}

/// True if a socket at `held` keeps `address` from being bound. Own IPv6 sockets never take IPv4 (IPV6_V6ONLY), but one
/// of another process at `::` may.
fn conflicts(address: SocketAddr, held: SocketAddr) -> bool {
    let (ours, theirs) = (address.ip(), held.ip().to_canonical());
    let same = match (ours, theirs) {
        (IpAddr::V4(_), IpAddr::V6(theirs)) => theirs.is_unspecified(),
        (IpAddr::V6(_), IpAddr::V4(_)) => false,
        (ours, theirs) => ours == theirs || ours.is_unspecified() || theirs.is_unspecified(),
    };
    address.port() == held.port() && same
}

/// Reads a line: number, local address, remote address, state, five other fields, inode.
fn read(line: &str) -> Option<ListedSocket> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
    let inode = fields.nth(5)?.parse().ok()?;
    Some(ListedSocket { local: address(local)?, remote: address(remote)?, listens: state == LISTEN, inode })
}

/// Reads an address: words of 32 bits in the order of this machine, and the port, in hexadecimal.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let word = |at: usize| Some(u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let ip = match address.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (index, part) in bytes.chunks_mut(4).enumerate() {
                part.copy_from_slice(&word(8 * index)?);
            }
            IpAddr::from(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// Inodes of the sockets of this process.
fn own_sockets() -> HashSet<u64> {
    let links = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let inode = |entry: fs::DirEntry| {
        let link = fs::read_link(entry.path()).ok()?;
        link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    };
    links.filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::TcpListener;

    use socket2::{Domain, SockAddr, Socket, Type};

    use super::*;
    use crate::socket::probe;

    fn reason(address: SocketAddr) -> String {
        assert_eq!(probe(address).unwrap_err().kind(), ErrorKind::AddrInUse);
        why_in_use(address)
    }

    #[test]
    fn a_listener_is_named_and_whether_it_is_our_own() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(reason(address), "this process listens there already");
        assert_eq!(reason((Ipv4Addr::UNSPECIFIED, address.port()).into()), "this process listens there already");
        assert_eq!(listening_at(address), 1);
        assert_eq!(listening_at((Ipv4Addr::UNSPECIFIED, address.port()).into()), 0);
        let lists = ["/proc/self/net/tcp"].map(|path| fs::read_to_string(path).unwrap());
        let listed: Vec<_> = lists[0].lines().filter_map(read).collect();
        assert_eq!(explain(address, &listed, &HashSet::new()), "another program listens there");
    }

    #[test]
    fn a_port_that_a_connection_has_is_not_called_listened_on() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        // An address that no other test connects from: the kernel gives one port to several connections of an address.
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.bind(&SockAddr::from("127.40.129.1:0".parse::<SocketAddr>().unwrap())).unwrap();
        client.connect(&SockAddr::from(server)).unwrap();
        let address = client.local_addr().unwrap().as_socket().unwrap();
        assert_eq!(
            reason(address),
            format!("no process listens there, but the connection of {address} to {server} has the port")
        );
    }

    #[test]
    fn a_socket_that_is_only_bound_is_not_called_listening() {
        let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        bound.bind(&SockAddr::from("127.0.0.1:0".parse::<SocketAddr>().unwrap())).unwrap();
        let address = bound.local_addr().unwrap().as_socket().unwrap();
        assert!(reason(address).contains("only bound"), "{}", reason(address));
        assert_eq!(why_in_use("127.0.0.1:0".parse().unwrap()), "no port is free");
    }

    #[test]
    fn addresses_conflict_as_the_kernel_has_it() {
        let conflict = |ours: &str, theirs: &str| conflicts(ours.parse().unwrap(), theirs.parse().unwrap());
        for (ours, theirs) in [
            ("10.0.0.1:1", "10.0.0.1:1"),
            ("10.0.0.1:1", "0.0.0.0:1"),
            ("0.0.0.0:1", "10.0.0.1:1"),
            ("10.0.0.1:1", "[::]:1"),
            ("10.0.0.1:1", "[::ffff:10.0.0.1]:1"),
            ("[::]:1", "[::1]:1"),
        ] {
            assert!(conflict(ours, theirs), "{ours} {theirs}");
        }
        for (ours, theirs) in [
            ("10.0.0.1:1", "10.0.0.1:2"),
            ("10.0.0.1:1", "10.0.0.2:1"),
            ("[::]:1", "0.0.0.0:1"),
            ("10.0.0.1:1", "[::1]:1"),
        ] {
            assert!(!conflict(ours, theirs), "{ours} {theirs}");
        }
    }
}
