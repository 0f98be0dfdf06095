//! [`name_servers`]: the name servers of this host, from the text of `/etc/resolv.conf` (resolv.conf(5)); [`SearchList`]:
//! the domains in which a name is looked for that is no full name.
//!
//! Sources of backends have full names, so the search list is for names of single backends alone. Of the options only
//! `ndots` counts. Invariant: as with the C library, at most the first three servers count, and a file that names none
//! stands for the server of this host.

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

/// Most domains of a search list.
const DOMAINS_MAX: usize = 6;
/// Greatest value of `ndots`.
const DOTS_MAX: usize = 15;

/// Domains in which a name is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SearchList {
    domains: Vec<String>,
    /// Least number of dots of a name that is asked for as it is before it is looked for in a domain.
    dots: usize,
}

impl SearchList {
    /// A list without a domain: every name is a full name.
    pub(super) const NONE: Self = Self { domains: Vec::new(), dots: 1 };

    /// The list of a file. Of several lines with domains the last one counts.
    pub(super) fn of(text: &str) -> Self {
        let mut list = Self::NONE;
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("search" | "domain") => {
                    let domains = words.map(|word| word.trim_matches('.').to_owned());
                    list.domains = domains.filter(|domain| !domain.is_empty()).take(DOMAINS_MAX).collect();
                }
                Some("options") => {
                    let dots = words.filter_map(|word| word.strip_prefix("ndots:")?.parse::<usize>().ok()).next_back();
                    list.dots = dots.map_or(list.dots, |dots| dots.min(DOTS_MAX));
                }
                _ => {}
            }
        }
        list
    }

    /// The full names that a name may stand for, in the order in which they are to be asked for.
    pub(super) fn full_names(&self, name: &str) -> Vec<String> {
        let mut all: Vec<_> = self.domains.iter().map(|domain| format!("{name}.{domain}")).collect();
        let is_first = name.matches('.').count() >= self.dots;
        all.insert(if is_first { 0 } else { all.len() }, name.to_owned());
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_for_in_domains_after_or_before_it_is_asked_for_as_it_is() {
        let pod = "nameserver 10.96.0.10\nsearch a.svc.cluster.local svc.cluster.local .\noptions timeout:1 ndots:5\n";
        let list = SearchList::of(pod);
        let of = |domain: &str| format!("web.b{domain}");
        assert_eq!(list.full_names("web.b"), [of(".a.svc.cluster.local"), of(".svc.cluster.local"), of("")]);
        assert_eq!(list.full_names("a.b.c.d.e.f")[0], "a.b.c.d.e.f");
        let plain = SearchList::of("search a.example\ndomain b.example\n");
        assert_eq!(plain.full_names("web"), ["web.b.example", "web"]);
        assert_eq!(plain.full_names("web.c"), ["web.c", "web.c.b.example"]);
        for none in [SearchList::NONE, SearchList::of(""), SearchList::of("search\noptions ndots:x ndots\n")] {
            assert_eq!(none.full_names("web"), ["web"]);
        }
        assert_eq!(SearchList::of("options ndots:99\n").dots, DOTS_MAX);
    }

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
