//! Addresses to listen on and to connect to, and networks.
//!
//! Opens no socket. The function that the caller passes resolves `localhost` and `*`; no other name is resolved.
//! Invariant: IPv4-mapped IPv6 becomes IPv4.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net};
use toml::de::DeValue;

use super::name::is_name;
use super::{ValueResult, integer, text};
use crate::config::problem::Bad;
use crate::config::{Address, Bind, HostPort};
use crate::server_name::ServerName;

/// The function that resolves `localhost:port` and `*:port`; the caller's, so that tests need no network.
pub(in crate::config) type Resolve<'a> = &'a dyn Fn(&str) -> io::Result<Vec<SocketAddr>>;

/// Longest path of a unix socket in bytes: `sun_path` without its zero byte.
const UNIX_PATH_MAX: usize = 107;

/// Reads a network in CIDR form; an address alone is a network of one address.
pub(in crate::config) fn network(value: &DeValue<'_>) -> ValueResult<IpNet> {
    let written = text(value)?;
    let network = match written.parse::<IpNet>() {
        Ok(network) => network,
        Err(_) => written.parse::<IpAddr>().map(IpNet::from).map_err(|_| no_network(written))?,
    };
    let exact = network.trunc();
    if exact != network {
        return Err(Bad::new("has bits set behind its prefix").hint(format!("the network is \"{}\"", canonical(exact))));
    }
    Ok(canonical(exact))
}

/// The complaint about a text that is no network, with the longest prefix if only that is wrong.
fn no_network(written: &str) -> Bad {
    let bad = Bad::new("is not a network");
    let address = written.split_once('/').and_then(|(address, _)| address.parse::<IpAddr>().ok());
    match address {
        Some(address) => {
            let longest = if address.is_ipv4() { 32 } else { 128 };
            bad.hint(format!("a prefix of 0 to {longest}: \"{address}/{longest}\" is one address"))
        }
        None => bad,
    }
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

/// Reads an IP address with a port.
pub(in crate::config) fn tcp_address(value: &DeValue<'_>) -> ValueResult<SocketAddr> {
    socket_address(text(value)?).ok_or_else(|| Bad::new("is not an address with a port"))
}

/// Reads what a listener binds: `IP:PORT`, `unix:/PATH`, `systemd:NAME`, or a value that may stand for two addresses.
/// `PORT`, `:PORT` and `*:PORT` are every address of the machine, `localhost:PORT` is its loopback: of IPv4, and of IPv6
/// too where the resolver has it.
pub(in crate::config) fn bind(resolve: Resolve<'_>) -> impl Fn(&DeValue<'_>) -> ValueResult<Vec<Bind>> {
    move |value| {
        if value.as_integer().is_some() {
            return named_addresses("*", integer(0..=u64::from(u16::MAX))(value)?, resolve);
        }
        let written = text(value)?;
        if let Some(path) = written.strip_prefix("unix:") {
            return unix_path(path).map(|path| vec![Bind::Unix(path)]);
        }
        if let Some(name) = written.strip_prefix("systemd:") {
            let bind = is_name(name).then(|| vec![Bind::Systemd(name.to_owned())]);
            return bind.ok_or_else(|| Bad::new("names no descriptor"));
        }
        if let Some(address) = socket_address(written) {
            return Ok(vec![Bind::Tcp(address)]);
        }
        let (host, port) = written.rsplit_once(':').unwrap_or(("*", written));
        let host = if host.is_empty() { "*" } else { host };
        let port = Some(port).filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
        match port.and_then(|port| port.parse().ok()) {
            Some(port) if ["*", "localhost"].contains(&host) => named_addresses(host, port, resolve),
            _ => {
                let hint = "\"0.0.0.0:443\", \"[::]:443\", \":443\" for both, \"localhost:443\", \"unix:/run/app.sock\" or \
                            \"systemd:NAME\"";
                Err(Bad::new("is not an address to listen on").hint(port_hint(written).unwrap_or(hint.into())))
            }
        }
    }
}

/// The hint for a number behind the last colon that is no port.
fn port_hint(written: &str) -> Option<String> {
    let port = written.rsplit(':').next().filter(|port| !port.is_empty())?;
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    let is_beyond = is_number && port.parse::<u16>().is_err();
    is_beyond.then(|| "the highest port is 65535".to_owned())
}

/// The addresses of a host that every machine has: `localhost`, or `*` for all of its addresses.
fn named_addresses(host: &str, port: u16, resolve: Resolve<'_>) -> ValueResult<Vec<Bind>> {
    let found = resolve(&format!("{host}:{port}"));
    let found = found.map_err(|error| Bad::new(format!("cannot be resolved: {error}")))?;
    Ok(found.into_iter().map(Bind::Tcp).collect())
}

/// Reads the address of a backend. A name is not resolved, because its address may change while the process runs; but for
/// `localhost`, which is the loopback of this machine, by IPv4.
pub(in crate::config) fn address(resolve: Resolve<'_>) -> impl Fn(&DeValue<'_>) -> ValueResult<Address> {
    move |value| {
        let written = text(value)?;
        if let Some(path) = written.strip_prefix("unix:") {
            return unix_path(path).map(Address::Unix);
        }
        let tcp = match socket_address(written) {
            Some(address) => address,
            None => match named_host(written)? {
                this if this.host.as_str() == "localhost" => loopback(&this, resolve)?,
                named => return Ok(Address::Name(named)),
            },
        };
        if !is_connectable(tcp) {
            return Err(Bad::new("is not an address that can be connected to"));
        }
        Ok(Address::Tcp(tcp))
    }
}

/// Reads the address of a backend as a source of backends has it, `IP:PORT`; the error says what it is not.
pub fn backend_address(written: &str) -> Result<SocketAddr, &'static str> {
    let address = socket_address(written).ok_or("is not an address with a port")?;
    if is_connectable(address) { Ok(address) } else { Err("is not an address that can be connected to") }
}

/// Reads the address of a backend as an order has it, `IP:PORT` or `unix:/PATH`; the error says what it is not. No name is
/// resolved: an order is not to wait for a name server.
pub fn order_address(written: &str) -> Result<Address, String> {
    match written.strip_prefix("unix:") {
        Some(path) => unix_path(path).map(Address::Unix).map_err(|bad| bad.message),
        None => backend_address(written).map(Address::Tcp).map_err(str::to_owned),
    }
}

/// Reads an address as [`Address`] shows it; it is only to be compared.
pub fn shown_address(written: &str) -> Option<Address> {
    let named = || named_host(written).ok().map(Address::Name);
    match written.strip_prefix("unix:") {
        Some(path) => Some(Address::Unix(path.into())),
        None => written.parse().ok().map(Address::Tcp).or_else(named),
    }
}

/// True for the address of one backend: it has a port and is neither every address nor that of a group.
pub fn is_connectable(address: SocketAddr) -> bool {
    let ip = address.ip().to_canonical();
    address.port() > 0 && !ip.is_unspecified() && !ip.is_multicast() && ip != IpAddr::V4(Ipv4Addr::BROADCAST)
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

/// True for a host name or an IP address, with a port or without, as a `Host` field has them.
pub(in crate::config) fn is_host_with_port(written: &str) -> bool {
    let is_address = match written.strip_prefix('[').map(|inner| inner.strip_suffix(']')) {
        Some(inner) => inner.is_some_and(|inner| inner.parse::<Ipv6Addr>().is_ok()),
        None => written.parse::<Ipv4Addr>().is_ok(),
    };
    is_address || is_host(written) || host_and_port(written).is_some()
}

fn socket_address(written: &str) -> Option<SocketAddr> {
    let parsed = written.parse::<SocketAddr>().ok()?;
    Some(match parsed.ip().to_canonical() {
        ip if ip == parsed.ip() => parsed,
        ip => SocketAddr::new(ip, parsed.port()),
    })
}

/// Reads `HOST:PORT` with a name.
fn named_host(written: &str) -> ValueResult<HostPort> {
    let hint = "\"10.0.0.1:443\", \"[2001:db8::1]:443\", \"host.example:443\" or \"unix:/run/app.sock\"";
    let malformed = || Bad::new("is not an address").hint(port_hint(written).unwrap_or(hint.into()));
    let Some((host, port)) = written.rsplit_once(':') else {
        let named = is_host(written) || written.parse::<IpAddr>().is_ok();
        return Err(if named { Bad::new("has no port").hint(hint) } else { malformed() });
    };
    let port = port.parse::<u16>().ok().filter(|port| *port > 0);
    let host = ServerName::parse(host).filter(|_| is_host(host));
    let (host, port) = host.zip(port).ok_or_else(malformed)?;
    Ok(HostPort { host, port })
}

fn loopback(this: &HostPort, resolve: Resolve<'_>) -> ValueResult<SocketAddr> {
    let addresses = resolve(&this.to_string()).map_err(|error| Bad::new(format!("cannot be resolved: {error}")))?;
    addresses.into_iter().min().ok_or_else(|| Bad::new("cannot be resolved: it has no address"))
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
        let no_names = |name: &str| panic!("{name} was looked up");
        assert_eq!(bind(&no_names)(&string("[::ffff:127.0.0.1]:80")), Ok(vec![tcp("127.0.0.1:80")]));
        assert_eq!(local_ip(&string("::ffff:10.0.0.1")).unwrap().to_string(), "10.0.0.1");
    }

    fn tcp(address: &str) -> Bind {
        Bind::Tcp(address.parse().unwrap())
    }

    /// A machine with IPv6.
    fn machine(name: &str) -> io::Result<Vec<SocketAddr>> {
        let (host, port) = name.rsplit_once(':').unwrap();
        let ips = match host {
            "*" => ["0.0.0.0", "[::]"],
            "localhost" => ["127.0.0.1", "[::1]"],
            _ => panic!("{name} was looked up"),
        };
        Ok(ips.map(|ip| format!("{ip}:{port}").parse().unwrap()).to_vec())
    }

    #[test]
    fn a_port_is_every_address_of_the_machine_and_localhost_its_loopback() {
        let all = || Ok(vec![tcp("0.0.0.0:8080"), tcp("[::]:8080")]);
        for written in [":8080", "*:8080", "8080"] {
            assert_eq!(bind(&machine)(&string(written)), all(), "{written}");
        }
        assert_eq!(bind(&machine)(&DeValue::parse("8080").unwrap().into_inner()), all(), "a number");
        let loopback = Ok(vec![tcp("127.0.0.1:80"), tcp("[::1]:80")]);
        assert_eq!(bind(&machine)(&string("localhost:80")), loopback);
        // A machine without IPv6 has one address of each.
        let old = |name: &str| machine(name).map(|addresses| addresses[..1].to_vec());
        assert_eq!(bind(&old)(&string(":443")), Ok(vec![tcp("0.0.0.0:443")]));
        assert_eq!(bind(&old)(&string("localhost:443")), Ok(vec![tcp("127.0.0.1:443")]));
    }

    #[test]
    fn other_names_and_ports_that_are_none_are_refused_and_never_looked_up() {
        for written in [
            "",
            ":",
            "*",
            "*:",
            ":+80",
            ":65536",
            "65536",
            "localhost",
            "localhost:",
            "localhost:http",
            "web.example:80",
            "8080:",
            "127.0.0.1",
            "::1:80",
            "*.example:80",
            "10.0.0.300:80",
            "-1",
            "80 ",
        ] {
            let refused = bind(&machine)(&string(written)).unwrap_err();
            assert_eq!(refused.message, "is not an address to listen on", "{written}");
        }
        for number in ["65536", "-1"] {
            let refused = bind(&machine)(&DeValue::parse(number).unwrap().into_inner()).unwrap_err();
            assert_eq!(refused.message, "is not between 0 and 65535", "{number}");
        }
    }

    #[test]
    fn a_port_or_a_prefix_that_is_too_large_is_refused_with_the_largest() {
        let hint = |refused: Bad| refused.hint.unwrap_or_default();
        for written in ["127.0.0.1:70000", ":65536", "[::1]:99999999999"] {
            assert_eq!(hint(bind(&machine)(&string(written)).unwrap_err()), "the highest port is 65535", "{written}");
        }
        for written in ["10.0.0.1:70000", "app.example:65536"] {
            assert_eq!(
                hint(address(&machine)(&string(written)).unwrap_err()),
                "the highest port is 65535",
                "{written}"
            );
        }
        assert!(hint(bind(&machine)(&string("127.0.0.1")).unwrap_err()).contains("\"0.0.0.0:443\""));
        for (written, largest) in
            [("10.0.0.0/33", "0 to 32"), ("2001:db8::/129", "0 to 128"), ("10.0.0.0/x", "0 to 32")]
        {
            assert!(hint(network(&string(written)).unwrap_err()).contains(largest), "{written}");
        }
        assert_eq!(network(&string("10.0.0")).unwrap_err().hint, None);
    }

    #[test]
    fn localhost_is_the_loopback_by_ipv4_and_another_name_is_left_for_name_servers() {
        let resolve = |name: &str| {
            assert_eq!(name, "localhost:80");
            Ok(["[::1]:80", "127.0.0.1:80"].map(|a| a.parse().unwrap()).into())
        };
        let loopback = Address::Tcp("127.0.0.1:80".parse().unwrap());
        for written in ["localhost:80", "LocalHost:80"] {
            assert_eq!(address(&resolve)(&string(written)), Ok(loopback.clone()), "{written}");
        }
        let named = address(&resolve)(&string("App.Example:80")).unwrap();
        let host = ServerName::parse("app.example").unwrap();
        assert_eq!(named, Address::Name(HostPort { host, port: 80 }));
        assert_eq!(named.to_string(), "app.example:80");
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
