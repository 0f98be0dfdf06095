//! [`name_servers`]: the name servers of this host, from the text of `/etc/resolv.conf` (resolv.conf(5)).
//!
//! Search lists and options do not count: names of backends are full names. Invariant: as with the C library, at most
//! the first three servers count, and a file that names none stands for the server of this host.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Most servers that are asked.
const SERVERS_MAX: usize = 3;
/// Port of name servers.
const PORT: u16 = 53;

/// Name servers, in the order in which they are to be asked.
pub(super) fn name_servers(text: &str) -> Vec<SocketAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        words.next().filter(|word| *word == "nameserver")?;
        words.next()?.parse::<IpAddr>().ok()
    });
    let mut servers: Vec<_> = named.take(SERVERS_MAX).map(|ip| SocketAddr::new(ip, PORT)).collect();
    if servers.is_empty() {
        servers.push((Ipv4Addr::LOCALHOST, PORT).into());
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_three_servers_count_and_nothing_else_of_the_file() {
        let text = "# nameserver 10.0.0.9\n;nameserver 10.0.0.8\nsearch a.example b.example\noptions ndots:5\n\
                    nameserver\t10.0.0.1\nnameserver  2001:db8::53 # second\nnameserver dns.example\n\
                    nameservers 10.0.0.7\n nameserver 10.0.0.3\nnameserver 10.0.0.4\n";
        let servers: Vec<_> = name_servers(text).iter().map(SocketAddr::to_string).collect();
        assert_eq!(servers, ["10.0.0.1:53", "[2001:db8::53]:53", "10.0.0.3:53"]);
    }

    #[test]
    fn a_file_without_a_server_means_the_one_of_this_host() {
        for text in ["", "search example\n", "nameserver fe80::1%eth0\n"] {
            assert_eq!(name_servers(text), ["127.0.0.1:53".parse().unwrap()], "{text:?}");
        }
    }
}
