//! Reads what DNS has to do with backends: the keys of `[pool.discover]` with `kind = "dns"`, and `[discovery]`.
//!
//! Asks no server. Invariant: a name has only labels that a name server can have.

use std::net::{IpAddr, SocketAddr};

use toml::de::DeValue;

use super::Bad;
use crate::config::file::Section;
use crate::config::value::{self, ValueResult};
use crate::config::{DnsIdentity, DnsName, DnsRecords, is_connectable, keys};

/// Most name servers, as in `/etc/resolv.conf`.
const RESOLVERS_MAX: usize = 3;
/// Port of a name server that is named without one.
const PORT: u16 = 53;
/// Longest name in bytes, and longest label (RFC 1035 §2.3.4).
const NAME_MAX: usize = 253;
const LABEL_MAX: usize = 63;

/// Reads the name of which the records are the backends of a pool, and says if a name that is needed is missing.
pub(super) fn dns_name(discover: &Section<'_>, is_needed: bool) -> DnsName {
    let words = [("target", DnsIdentity::Target), ("address", DnsIdentity::Address)];
    let identity = discover.read("identity", value::word(&words)).unwrap_or(DnsIdentity::Target);
    let port = discover.read("port", value::integer(1..=u64::from(u16::MAX)));
    if port.is_some() {
        discover.idle_keys(&["identity"], "with port: every address is a backend");
    }
    let name = if is_needed { discover.required("name", record_name) } else { discover.read("name", record_name) };
    DnsName {
        name: name.unwrap_or_default(),
        records: port.map_or(DnsRecords::Services(identity), DnsRecords::Addresses),
    }
}

/// Reads the name servers that are asked; none: those of the host.
pub(super) fn resolvers(top: &Section<'_>) -> Vec<SocketAddr> {
    let discovery = top.child("discovery", &keys::DISCOVERY);
    let servers = discovery.values("resolvers", resolver);
    if servers.len() > RESOLVERS_MAX {
        let why = format!("resolvers has {} name servers; the most is {RESOLVERS_MAX}", servers.len());
        discovery.error("resolvers", Bad::new(why));
    }
    servers
}

fn resolver(value: &DeValue<'_>) -> ValueResult<SocketAddr> {
    let written = value::text(value)?;
    let address = written.parse().or_else(|_| written.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT)));
    match address {
        Ok(address) if is_connectable(address) => Ok(address),
        Ok(_) => Err(Bad::new("is not an address that can be connected to")),
        Err(_) => Err(Bad::new("is not the address of a name server").hint("\"10.96.0.10\" or \"127.0.0.1:5353\"")),
    }
}

/// Reads a full name in DNS, in lower case and without its last dot.
fn record_name(value: &DeValue<'_>) -> ValueResult<String> {
    let written = value::text(value)?;
    let name = written.strip_suffix('.').unwrap_or(written).to_ascii_lowercase();
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_label = |label: &str| (1..=LABEL_MAX).contains(&label.len()) && label.bytes().all(is_good);
    if name.len() > NAME_MAX || !name.split('.').all(is_label) {
        return Err(Bad::new("is not a name in DNS").hint("\"_http._tcp.web.default.svc.cluster.local\""));
    }
    if name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(Bad::new("is an address, not a name").hint("a [[pool.backend]] for each address"));
    }
    Ok(name)
}
