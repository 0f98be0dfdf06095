//! [`Service`]: an SRV record (RFC 2782); [`backends`] and [`backends_at`]: the backends of records with their
//! addresses.
//!
//! Asks nothing. Records of the lowest priority number serve; those of a higher number stand in when there are none of
//! a lower one. Weights count only if they differ: some servers derive equal weights from the number of records, which
//! would change every backend whenever one comes or goes. A record of weight 0 beside others of more keeps a small
//! share; it is not drained. Invariant: the order of records changes nothing.

use std::net::{IpAddr, SocketAddr};

use hickory_resolver::proto::rr::{Name, RData};

use super::reply::words;
use crate::config::{DnsIdentity, backend_name, is_connectable, is_name};
use crate::discovery::found::{Found, WEIGHT_MAX};

/// Where a backend is, as an SRV record says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Service {
    /// Name that has the addresses.
    pub(super) target: Name,
    /// Port at each of them.
    pub(super) port: u16,
    /// Share among the records.
    weight: u16,
}

/// The records that serve, in an order of their own. Two of one target and port are one, with the greater weight. A
/// target of "." says that there is no such service.
pub(super) fn serving(records: &[RData]) -> Vec<Service> {
    let named = records.iter().filter_map(|data| match data {
        RData::SRV(record) if !record.target.is_root() => Some(record),
        _ => None,
    });
    let Some(first) = named.clone().map(|record| record.priority).min() else { return Vec::new() };
    let mut serving: Vec<_> = named
        .filter(|record| record.priority == first)
        .map(|record| Service { target: record.target.to_lowercase(), port: record.port, weight: record.weight })
        .collect();
    serving.sort_unstable_by(|a, b| (&a.target, a.port, b.weight).cmp(&(&b.target, b.port, a.weight)));
    serving.dedup_by(|one, other| (&one.target, one.port) == (&other.target, other.port));
    serving
}

/// The backends of services, each with the addresses of its target.
pub(super) fn backends(services: &[(Service, Vec<IpAddr>)], identity: DnsIdentity) -> Result<Vec<Found>, String> {
    let greatest = services.iter().map(|(service, _)| service.weight).max().unwrap_or_default();
    let differ = services.iter().any(|(service, _)| service.weight != greatest);
    let mut found = Vec::with_capacity(services.len());
    for (service, ips) in services {
        let target = &service.target;
        let weight = differ.then(|| share(service.weight, greatest));
        let lowest = ips.first().ok_or_else(|| format!("the SRV target \"{}\" has no address", words(target)))?;
        let new = |name: String, ip| -> Result<_, String> {
            Ok(Found { weight, ..Found::new(name, usable(ip, service.port, target)?) })
        };
        match identity {
            DnsIdentity::Target => found.push(new(label(target)?, *lowest)?),
            DnsIdentity::Address => {
                for ip in ips {
                    let name = backend_name(&SocketAddr::new(*ip, service.port).to_string());
                    found.push(new(name, *ip)?);
                }
            }
        }
    }
    sorted(found)
}

/// The backends of addresses that all have one port.
pub(super) fn backends_at(ips: &[IpAddr], port: u16, owner: &Name) -> Result<Vec<Found>, String> {
    let found: Result<_, String> = ips
        .iter()
        .map(|ip| usable(*ip, port, owner).map(|address| Found::new(backend_name(&address.to_string()), address)))
        .collect();
    sorted(found?)
}

/// Sorts backends by name. Two of one name and address are one, with the greater weight; of two addresses an error.
fn sorted(mut found: Vec<Found>) -> Result<Vec<Found>, String> {
    found.sort_unstable_by(|a, b| (&a.name, a.address, b.weight).cmp(&(&b.name, b.address, a.weight)));
    found.dedup_by(|one, other| (&one.name, one.address) == (&other.name, other.address));
    match found.windows(2).find(|pair| pair[0].name == pair[1].name) {
        None => Ok(found),
        Some(pair) => Err(format!(
            "two SRV records have the first label \"{}\", at {} and at {}; identity = \"address\" tells them apart",
            pair[0].name, pair[0].address, pair[1].address
        )),
    }
}

/// The name of a backend by the first label of its target. Case does not count in DNS.
fn label(target: &Name) -> Result<String, String> {
    let first = target.iter().next().and_then(|label| std::str::from_utf8(label).ok());
    first.map(str::to_ascii_lowercase).filter(|name| is_name(name)).ok_or_else(|| {
        format!(
            "the first label of the SRV target \"{}\" cannot be the name of a backend; identity = \"address\" needs \
             none",
            words(target)
        )
    })
}

fn usable(ip: IpAddr, port: u16, owner: &Name) -> Result<SocketAddr, String> {
    let address = SocketAddr::new(ip, port);
    let refused = || format!("{address} of \"{}\" is not an address that can be connected to", words(owner));
    is_connectable(address).then_some(address).ok_or_else(refused)
}

/// The weight of a backend in proportion to the greatest of its set; none is 0, which would be a drain.
fn share(weight: u16, greatest: u16) -> u32 {
    let (weight, greatest) = (u32::from(weight), u32::from(greatest));
    let scaled = if greatest <= WEIGHT_MAX { weight } else { weight * WEIGHT_MAX / greatest };
    scaled.max(1)
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::rr::rdata::SRV;

    use super::*;

    fn record(priority: u16, weight: u16, port: u16, target: &str) -> RData {
        RData::SRV(SRV::new(priority, weight, port, Name::from_ascii(target).unwrap()))
    }

    /// Backends of records of which all targets have these addresses.
    fn found(
        records: &[RData],
        ips: &[&str],
        identity: DnsIdentity,
    ) -> Result<Vec<(String, String, Option<u32>)>, String> {
        let ips: Vec<_> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        let services: Vec<_> = serving(records).into_iter().map(|service| (service, ips.clone())).collect();
        let found = backends(&services, identity)?;
        Ok(found.into_iter().map(|one| (one.name.into(), one.address.to_string(), one.weight)).collect())
    }

    fn weights(written: &[u16]) -> Vec<Option<u32>> {
        let records: Vec<_> = (1..).zip(written).map(|(port, weight)| record(0, *weight, port, "a.example.")).collect();
        let found = found(&records, &["10.0.0.1"], DnsIdentity::Address).unwrap();
        found.into_iter().map(|(_, _, weight)| weight).collect()
    }

    #[test]
    fn records_of_the_lowest_priority_serve() {
        let records =
            [record(20, 0, 80, "c.example."), record(10, 0, 80, "B.example."), record(10, 0, 80, "a.example.")];
        let found = found(&records, &["10.0.0.1"], DnsIdentity::Target).unwrap();
        let at = |name: &str| (name.to_owned(), "10.0.0.1:80".to_owned(), None);
        assert_eq!(found, [at("a"), at("b")]);
    }

    #[test]
    fn the_root_as_target_is_no_service() {
        assert_eq!(serving(&[record(0, 0, 0, ".")]), []);
        assert_eq!(serving(&[record(0, 0, 0, "."), record(5, 0, 80, "a.example.")]).len(), 1);
    }

    #[test]
    fn equal_weights_say_nothing_and_different_ones_keep_their_proportion() {
        assert_eq!(weights(&[33, 33, 33]), [None, None, None]);
        assert_eq!(weights(&[0, 0]), [None, None]);
        assert_eq!(weights(&[10, 20, 0]), [Some(10), Some(20), Some(1)]);
        assert_eq!(weights(&[65535, 32768, 1]), [Some(256), Some(128), Some(1)]);
        assert_eq!(weights(&[256, 128]), [Some(256), Some(128)]);
    }

    #[test]
    fn a_record_that_stands_twice_is_one_with_the_greater_weight() {
        let twice = [record(0, 1, 80, "a.example."), record(0, 5, 80, "A.example."), record(0, 2, 80, "b.example.")];
        let found = found(&twice, &["10.0.0.1"], DnsIdentity::Target).unwrap();
        let of = |name: &str, weight| (name.to_owned(), "10.0.0.1:80".to_owned(), Some(weight));
        assert_eq!(found, [of("a", 5), of("b", 2)]);
    }

    #[test]
    fn a_backend_known_by_its_target_is_at_the_lowest_address_and_one_known_by_address_at_each() {
        let records = [record(0, 0, 80, "web-0.a.example.")];
        let ips = ["10.0.0.1", "10.0.0.2"];
        let of = |name: &str, address: &str| (name.to_owned(), address.to_owned(), None);
        assert_eq!(found(&records, &ips, DnsIdentity::Target).unwrap(), [of("web-0", "10.0.0.1:80")]);
        let both = [of("10.0.0.1-80", "10.0.0.1:80"), of("10.0.0.2-80", "10.0.0.2:80")];
        assert_eq!(found(&records, &ips, DnsIdentity::Address).unwrap(), both);
    }

    #[test]
    fn what_cannot_be_a_set_of_backends_is_refused_in_words() {
        let refused = |records: &[RData], ips: &[&str]| found(records, ips, DnsIdentity::Target).unwrap_err();
        let one = |target| [record(0, 0, 80, target)];
        assert_eq!(refused(&one("a.example."), &[]), "the SRV target \"a.example\" has no address");
        let two = [record(0, 0, 80, "web-0.a.example."), record(0, 0, 81, "web-0.a.example.")];
        assert_eq!(
            refused(&two, &["10.0.0.1"]),
            "two SRV records have the first label \"web-0\", at 10.0.0.1:80 and at 10.0.0.1:81; identity = \"address\" \
             tells them apart"
        );
        let spaced = Name::from_labels([&b"a b"[..], b"example"]).unwrap();
        let why = refused(&[RData::SRV(SRV::new(0, 0, 80, spaced))], &["10.0.0.1"]);
        assert!(why.starts_with("the first label of the SRV target \"a"), "{why}");
        assert!(why.ends_with("cannot be the name of a backend; identity = \"address\" needs none"), "{why}");
        for ip in ["0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "ff02::1", "::ffff:0.0.0.0"] {
            let why = refused(&one("a.example."), &[ip]);
            assert!(why.ends_with(" of \"a.example\" is not an address that can be connected to"), "{why}");
        }
        let why = refused(&[record(0, 0, 0, "a.example.")], &["10.0.0.1"]);
        assert_eq!(why, "10.0.0.1:0 of \"a.example\" is not an address that can be connected to");
    }
}
