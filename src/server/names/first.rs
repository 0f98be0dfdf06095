//! [`NamesToAsk`]: gives the backends of a configuration that is not in force yet the addresses of their names.
//!
//! Puts nothing in force. Invariants: a reload moves no backend that follows its name: only an answer does, by the same rule
//! as here; a name without an answer stops nothing, because its backend has the address of before, or that of a backend in
//! force with the same host, or is down.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::config::{Address, Backend, Config, FileProblem, HostPort, Resolve};
use crate::discovery::dns::{BackendNames, HostReading, Resolver, look_at_names};
use crate::discovery::resolve;
use crate::server::discovery::{Before, own_addresses, reaches};

/// Most addresses of an answer that are named.
const NAMED_MAX: usize = 16;

/// Where a failing name is looked for, by the files of the host.
const WHERE: &str = "a name in /etc/hosts, or of a server in /etc/resolv.conf or in resolvers of [discovery]";

/// The backends with names that have to be asked for before their configuration is in force.
pub(in crate::server) struct NamesToAsk {
    names: BackendNames,
    backends: Vec<BackendToAsk>,
    /// How long each name may take.
    hosts: BTreeMap<String, Duration>,
}

struct BackendToAsk {
    pool: String,
    backend: String,
    host: HostPort,
    /// The address of before; `None`: none is known.
    last: Option<SocketAddr>,
    /// Where a backend in force is that has the same host, with the port of this one.
    beside: Option<SocketAddr>,
}

/// A backend with a name that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedName {
    /// Name of the pool.
    pub pool: String,
    /// Name of the backend.
    pub backend: String,
    /// The name that is written as its address, with the port.
    pub name: HostPort,
    /// All addresses of the last answer, the lowest first.
    pub answers: Vec<IpAddr>,
    /// The one that is taken; `None`: there is none, and the backend is down.
    pub address: Option<SocketAddr>,
}

impl fmt::Display for ResolvedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pool, backend, name, answers, address } = self;
        write!(f, "backend \"{pool}/{backend}\": {name} ")?;
        match address {
            None => return f.write_str("has no address that can be taken"),
            Some(address) => write!(f, "is {address}")?,
        }
        match &answers[..] {
            [] => Ok(()),
            [one] if address.is_some_and(|address| address.ip() == *one) => Ok(()),
            all => {
                let named: Vec<_> = all.iter().take(NAMED_MAX).map(ToString::to_string).collect();
                write!(f, ", of {}", named.join(", "))?;
                match all.len().saturating_sub(NAMED_MAX) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
        }
    }
}

impl NamesToAsk {
    /// Gives backends that follow their names the addresses that these have in force; the names of all others are to be
    /// asked for.
    pub(in crate::server) fn of(config: &mut Config, before: Before<'_>) -> Self {
        let in_force = before.snapshot().map(|snapshot| snapshot.config.pools_by_name()).unwrap_or_default();
        let known = before.last(config);
        let of_hosts = before.snapshot().map(|snapshot| addresses_of_hosts(&snapshot.config)).unwrap_or_default();
        let (mut backends, mut hosts) = (Vec::new(), BTreeMap::new());
        for pool in config.pools.iter_mut().filter(|pool| pool.written().any(|one| one.followed_name().is_some())) {
            let was = in_force.get(pool.name.as_str());
            let mut written: Vec<_> = pool.written().cloned().collect();
            for backend in &mut written {
                let Some(host) = backend.followed_name().cloned() else { continue };
                let was = was.and_then(|pool| pool.written().find(|known| is_same(known, backend)));
                let last = was.and_then(address_of);
                if let Some(address) = last.filter(|_| pool.resolve == Resolve::Ttl) {
                    backend.address = Address::Tcp(address);
                    continue;
                }
                let kept = || known.as_ref().and_then(|known| known.address_of(&pool.name, &backend.name, &host));
                let last = last.or_else(kept);
                let patience: &mut Duration = hosts.entry(host.host.to_string()).or_default();
                // A name that is followed is asked for again soon.
                let is_followed = pool.resolve == Resolve::Ttl;
                *patience = before.patience(last.is_some() && is_followed).max(*patience);
                let beside = of_hosts.get(host.host.as_str()).map(|ip| SocketAddr::new(*ip, host.port));
                let (pool, backend) = (pool.name.clone(), backend.name.clone());
                backends.push(BackendToAsk { pool, backend, host, last, beside });
            }
            *pool = pool.with_written(written);
        }
        let names = BackendNames::new(Resolver::new(config.process.resolvers.clone()));
        Self { names, backends, hosts }
    }

    /// Asks for all names at the same time, and blocks until each has an answer or has taken its time.
    pub(in crate::server) fn ask(&self) -> BTreeMap<String, HostReading> {
        look_at_names(&self.names, &self.hosts)
    }

    /// Gives the backends their addresses. Returns a warning for each name that has none, and all that was asked for.
    pub(in crate::server) fn answered(
        self,
        readings: &BTreeMap<String, HostReading>,
        config: &mut Config,
    ) -> (Vec<FileProblem>, Vec<ResolvedName>) {
        let own = own_addresses(config, &[]);
        let is_own = |address| reaches(&own, address);
        let (mut warnings, mut resolved) = (Vec::new(), Vec::new());
        let mut addresses = BTreeMap::new();
        for BackendToAsk { pool, backend, host, last, beside } in self.backends {
            let nothing = Err("was not asked for".to_owned());
            let reading = readings.get(host.host.as_str()).unwrap_or(&nothing);
            let address = match resolve::address(last, host.port, reading, &is_own) {
                Ok(address) => Some(address),
                Err(why) => {
                    let beside = beside.filter(|address| last.is_none() && !is_own(*address));
                    warnings.push(unresolved(&pool, &backend, &host, (last, beside), &why));
                    last.or(beside)
                }
            };
            let answers = reading.as_ref().map(|answer| answer.ips.clone()).unwrap_or_default();
            addresses.insert((pool.clone(), backend.clone()), address);
            resolved.push(ResolvedName { pool, backend, name: host, answers, address });
        }
        put(config, |pool, backend| addresses.get(&(pool.to_owned(), backend.name.clone())).copied().flatten());
        (warnings, resolved)
    }
}

/// Gives backends of the file other addresses. `address`: by the name of the pool; `None`: it stays.
pub(super) fn put(config: &mut Config, address: impl Fn(&str, &Backend) -> Option<SocketAddr>) {
    let moved = |pool: &str, backend: &Backend| {
        let address = backend.followed_name().and_then(|_| address(pool, backend)).map(Address::Tcp)?;
        (address != backend.address).then(|| Backend { address, ..backend.clone() })
    };
    for pool in &mut config.pools {
        if pool.written().any(|backend| moved(&pool.name, backend).is_some()) {
            let written = pool.written().map(|backend| moved(&pool.name, backend).unwrap_or_else(|| backend.clone()));
            *pool = pool.with_written(written.collect());
        }
    }
}

/// The warning about a name without an address that can be taken. `last`: the address that stays. `beside`: the one that
/// is taken because another backend has it.
fn unresolved(
    pool: &str,
    backend: &str,
    host: &HostPort,
    (last, beside): (Option<SocketAddr>, Option<SocketAddr>),
    why: &str,
) -> FileProblem {
    let result = match (last, beside) {
        (Some(last), _) => format!("{last} stays"),
        (None, Some(beside)) => format!("{beside} is taken, from a backend in force with this host"),
        (None, None) => "the backend is down".to_owned(),
    };
    let object = format!("pool \"{pool}\": backend \"{backend}\"");
    let message = format!("\"{host}\" cannot be resolved: {why}; {result}");
    FileProblem { hint: Some(WHERE.to_owned()), ..FileProblem::new(object, "address", message) }
}

/// True for the same backend with the same name as its address.
fn is_same(one: &Backend, other: &Backend) -> bool {
    (&one.name, &one.host) == (&other.name, &other.host)
}

/// Where hosts are that backends follow; of several backends with the same one, the first counts.
fn addresses_of_hosts(config: &Config) -> BTreeMap<&str, IpAddr> {
    let mut addresses = BTreeMap::new();
    for backend in config.pools.iter().flat_map(|pool| pool.written()) {
        if let Some((host, address)) = backend.followed_name().zip(address_of(backend)) {
            addresses.entry(host.host.as_str()).or_insert(address.ip());
        }
    }
    addresses
}

/// Where a backend is; `None`: no address is known of its name.
pub(super) fn address_of(backend: &Backend) -> Option<SocketAddr> {
    match backend.address {
        Address::Tcp(address) => Some(address),
        Address::Unix(_) | Address::Name(_) => None,
    }
}
