//! Addresses to listen on and to connect to, and networks.
//!
//! Opens no socket; names are resolved by the function that the caller passes. Invariant: IPv4-mapped IPv6 becomes
//! IPv4.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net};
use toml::de::DeValue;

use super::name::is_name;
use super::{ValueResult, text};
use crate::config::problem::Bad;
use crate::config::{Address, Bind};
use crate::server_name::ServerName;

/// The function that resolves `host:port`; the caller's, so that tests need no network.
pub(in crate::config) type Resolve<'a> = &'a dyn Fn(&str) -> io::Result<Vec<SocketAddr>>;

/// Longest path of a unix socket in bytes: `sun_path` without its zero byte.
const UNIX_PATH_MAX: usize = 107;

/// Reads a network in CIDR form; an address alone is a network of one address.
pub(in crate::config) fn network(value: &DeValue<'_>) -> ValueResult<IpNet> {
    let written = text(value)?;
    let network = match written.parse::<IpNet>() {
        Ok(network) => network,
        Err(_) => written.parse::<IpAddr>().map(IpNet::from).map_err(|_| Bad::new("is not a network"))?,
    };
    let exact = network.trunc();
    if exact != network {
        return Err(Bad::new("has bits set behind its prefix").hint(format!("the network is \"{}\"", canonical(exact))));
    }
    Ok(canonical(exact))
}

/// Reads an IP address of this machine to connect from.
pub(in crate::config) fn local_ip(value: &DeValue<'_>) -> ValueResult<IpAddr> {
    let parsed = text(value)?.parse::<IpAddr>().map_err(|_| Bad::new("is not an IP address"))?;
    let address = parsed.to_canonical();
    if address.is_unspecified() || address.is_multicast() {
        return Err(Bad::new("is not an address of one machine"));
    }
    Ok(address)
}

/// Reads a loopback address with a port.
pub(in crate::config) fn loopback(value: &DeValue<'_>) -> ValueResult<SocketAddr> {
    let address = socket_address(text(value)?).ok_or_else(|| Bad::new("is not an address with a port"))?;
    if !address.ip().is_loopback() {
        return Err(Bad::new("is not a loopback address").hint(format!("\"127.0.0.1:{}\"", address.port())));
    }
    Ok(address)
}

/// Reads an address to listen on: `IP:PORT`, `unix:/PATH` or `systemd:NAME`.
pub(in crate::config) fn bind(value: &DeValue<'_>) -> ValueResult<Bind> {
    let written = text(value)?;
    if let Some(path) = written.strip_prefix("unix:") {
        return unix_path(path).map(Bind::Unix);
    }
    if let Some(name) = written.strip_prefix("systemd:") {
        return if is_name(name) { Ok(Bind::Systemd(name.to_owned())) } else { Err(Bad::new("names no descriptor")) };
    }
    let hint = "\"0.0.0.0:443\", \"[::]:443\", \"unix:/run/app.sock\" or \"systemd:NAME\"";
    socket_address(written).map(Bind::Tcp).ok_or_else(|| Bad::new("is not an address to listen on").hint(hint))
}

/// Reads the address of a backend. A DNS name is resolved; of several addresses the lowest is taken, because the order
/// of DNS answers changes from one reload to the next.
pub(in crate::config) fn address(resolve: Resolve<'_>) -> impl Fn(&DeValue<'_>) -> ValueResult<Address> {
    move |value| {
        let written = text(value)?;
        if let Some(path) = written.strip_prefix("unix:") {
            return unix_path(path).map(Address::Unix);
        }
        let tcp = match socket_address(written) {
            Some(address) => address,
            None => look_up(written, resolve)?,
        };
        if tcp.port() == 0 || tcp.ip().is_unspecified() || tcp.ip().is_multicast() {
            return Err(Bad::new("is not an address that can be connected to"));
        }
        Ok(Address::Tcp(tcp))
    }
}

/// Checks the path of a unix socket, without the prefix `unix:`.
pub(in crate::config) fn unix_path(path: &str) -> ValueResult<PathBuf> {
    if !path.starts_with('/') || path.contains('\0') {
        return Err(Bad::new("is not an absolute path"));
    }
    if path.len() > UNIX_PATH_MAX {
        return Err(Bad::new(format!("is longer than a unix path can be ({UNIX_PATH_MAX} bytes)")));
    }
    Ok(path.into())
}

/// Splits `HOST:PORT` or `[IPV6]:PORT`; `None`: malformed, or port 0.
pub(in crate::config) fn host_and_port(written: &str) -> Option<(String, u16)> {
    if let Some(address) = socket_address(written) {
        return (address.port() > 0).then(|| (address.ip().to_string(), address.port()));
    }
    let (host, port) = written.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    is_host(host).then(|| (host.to_owned(), port))
}

/// Turns a network of IPv4-mapped IPv6 addresses into the IPv4 network, as clients with such addresses count as IPv4.
pub fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let mapped = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    mapped.and_then(|(address, length)| Ipv4Net::new(address, length).ok()).map_or(network, IpNet::V4)
}

fn socket_address(written: &str) -> Option<SocketAddr> {
    let parsed = written.parse::<SocketAddr>().ok()?;
    Some(match parsed.ip().to_canonical() {
        ip if ip == parsed.ip() => parsed,
        ip => SocketAddr::new(ip, parsed.port()),
    })
}

/// Where a static binary looks for names: it has no modules of `/etc/nsswitch.conf` but those two.
const STATIC_RESOLVER: &str = "a name in /etc/hosts, or of a server in /etc/resolv.conf";

fn look_up(written: &str, resolve: Resolve<'_>) -> ValueResult<SocketAddr> {
    let hint = "\"10.0.0.1:443\", \"[2001:db8::1]:443\", \"host.example:443\" or \"unix:/run/app.sock\"";
    let malformed = || Bad::new("is not an address").hint(hint);
    let Some((host, port)) = written.rsplit_once(':') else {
        let named = is_host(written) || written.parse::<IpAddr>().is_ok();
        return Err(if named { Bad::new("has no port").hint(hint) } else { malformed() });
    };
    if !is_host(host) || !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Err(malformed());
    }
    let addresses = resolve(written).map_err(|error| {
        let bad = Bad::new(format!("cannot be resolved: {error}"));
        if cfg!(target_feature = "crt-static") { bad.hint(STATIC_RESOLVER) } else { bad }
    })?;
    let lowest = addresses.into_iter().map(|one| SocketAddr::new(one.ip().to_canonical(), one.port())).min();
    lowest.ok_or_else(|| Bad::new("cannot be resolved: it has no address"))
}

/// True for a name that can be resolved. A name with a numeric last label is a mistyped IPv4 address.
fn is_host(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    ServerName::parse(host).is_some() && !last.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &str) -> DeValue<'_> {
        DeValue::String(text.into())
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        for (written, expected) in [
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::ffff:10.0.0.1", "10.0.0.1/32"),
            ("::/0", "::/0"),
            ("2001:db8::/32", "2001:db8::/32"),
        ] {
            assert_eq!(network(&string(written)).unwrap().to_string(), expected, "{written}");
        }
        assert_eq!(bind(&string("[::ffff:127.0.0.1]:80")), Ok(Bind::Tcp("127.0.0.1:80".parse().unwrap())));
        assert_eq!(local_ip(&string("::ffff:10.0.0.1")).unwrap().to_string(), "10.0.0.1");
    }

    #[test]
    fn a_name_resolves_to_the_least_of_its_addresses() {
        let resolve = |_: &str| {
            Ok(["[2001:db8::1]:80", "10.0.0.2:80", "[::ffff:10.0.0.1]:80"].map(|a| a.parse().unwrap()).into())
        };
        let least = Address::Tcp("10.0.0.1:80".parse().unwrap());
        assert_eq!(address(&resolve)(&string("app.example:80")), Ok(least));
    }

    #[test]
    fn what_only_looks_like_a_name_is_not_resolved() {
        let resolve = |name: &str| panic!("{name} was looked up");
        for written in ["10.0.0.300:80", "10.0.0:80", "app:", "app:0", "app:65536", ":80", "a b:80", "app", "", "[::1]"]
        {
            assert!(address(&resolve)(&string(written)).is_err(), "{written}");
        }
    }
}
