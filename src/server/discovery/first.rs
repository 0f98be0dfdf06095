//! [`fill`]: gives the pools of a configuration that is not in force yet the backends that their sources name, and what
//! orders at run time have made of them.
//!
//! Puts nothing in force. Invariant: a reload changes no set of a pool that is in force: only a look at its source
//! does, by the same rules as here; nor does it end an order that its file does not contradict.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::clock;
use crate::config::{Address, Bind, Config, DiscoverSource, FileProblem, Pool};
use crate::discovery::dns::{DnsSource, Resolver, look_at_all};
use crate::discovery::file;
use crate::discovery::found::Reading;
use crate::discovery::reconcile::reconcile;
use crate::regular_file;
use crate::server::runtime_state::RuntimeState;

/// What there is to say of a source before a configuration is in force.
pub(in crate::server) enum SourceProblem {
    /// The configuration cannot be put in force with the backends that are in force.
    Error(FileProblem),
    /// The source cannot be read now: its pool has the backends that were kept, or none.
    Warning(FileProblem),
}

/// Gives each pool with a source the backends that it has in `in_force`. A pool that is not there gets those that its
/// source names now, or else those in `last`, what the process before has kept. Orders at run time stand over both.
pub(in crate::server) fn fill(
    config: &mut Config,
    in_force: Option<&Config>,
    last: Option<&RuntimeState>,
) -> Vec<SourceProblem> {
    let own = own_addresses(config, &[]);
    let mut readings = look_at_new(config, in_force);
    let mut problems = Vec::new();
    for pool in &mut config.pools {
        let Some(rules) = pool.discover.clone() else { continue };
        let before = with_source(in_force, &pool.name);
        let problem = |key, why: String| FileProblem::new(format!("pool \"{}\": discover", pool.name), key, why);
        if let Some(before) = before {
            let next = pool.with_found(before.found().cloned().collect());
            if let Err(why) = next.balance.holds(&next.backends) {
                problems.push(SourceProblem::Error(problem("kind", format!("\"{}\": {why}", rules.source.kind()))));
            }
            *pool = next;
            continue;
        }
        let kept = last.map(|last| last.found(&pool.name, clock::now_ms(), clock::unix_ms())).unwrap_or_default();
        let mut next = pool.with_found(kept);
        if next.balance.holds(&next.backends).is_err() {
            next = next.with_found(Vec::new());
        }
        let Some(reading) = readings.remove(&pool.name) else { continue };
        let (key, shown) = named(&rules.source);
        match reconcile(&next, &rules, &reading, &|address| reaches(&own, address), now_ms()) {
            Ok(found) => next = next.with_found(found),
            // What writes it may begin later.
            Err(_) if is_missing(&rules.source) => {}
            Err(why) => problems.push(SourceProblem::Warning(problem(key, format!("\"{shown}\": {why}")))),
        }
        *pool = next;
    }
    problems.extend(config.pools.iter_mut().filter_map(|pool| order(pool, in_force, last)));
    problems
}

/// Has the orders at run time stand over a pool: those of the pool in force, or else those that the process before has
/// kept, which are given up where they do not fit any more.
fn order(pool: &mut Pool, in_force: Option<&Config>, last: Option<&RuntimeState>) -> Option<SourceProblem> {
    let before = in_force.and_then(|config| config.pools.iter().find(|before| before.name == pool.name));
    let next = match (before, last) {
        (Some(before), _) => pool.with_orders(&before.orders),
        (None, Some(last)) => pool.with_standing(last.orders(&pool.name, clock::now_ms(), clock::unix_ms())),
        (None, None) => return None,
    };
    if next.orders.is_empty() {
        return None;
    }
    if let Err(why) = next.is_possible() {
        let why = format!("with the orders at run time: {why}; `sessile ready` and `sessile backend` change them");
        return before
            .map(|_| SourceProblem::Error(FileProblem::new(format!("pool \"{}\"", pool.name), "backend", why)));
    }
    *pool = next;
    None
}

/// Gives each pool with a source the backends that it names now, for a command that asks no process. A source that
/// cannot be read leaves its pool as the file has it.
pub fn find_backends(config: &mut Config) {
    drop(fill(config, None, None));
}

/// A pool of a configuration that has a source there.
fn with_source<'c>(config: Option<&'c Config>, name: &str) -> Option<&'c Pool> {
    config?.pools.iter().find(|pool| pool.name == name && pool.discover.is_some())
}

/// What the sources of pools that are not in force say now, by the names of the pools. Name servers are asked for all
/// pools at the same time.
fn look_at_new(config: &Config, in_force: Option<&Config>) -> BTreeMap<String, Reading> {
    let resolver = Arc::new(Resolver::new(config.process.resolvers.clone()));
    let (mut readings, mut in_dns) = (BTreeMap::new(), BTreeMap::new());
    for pool in config.pools.iter().filter(|pool| with_source(in_force, &pool.name).is_none()) {
        let Some(rules) = &pool.discover else { continue };
        match &rules.source {
            DiscoverSource::File(path) => drop(readings.insert(pool.name.clone(), file::read(path))),
            DiscoverSource::Dns(name) => {
                let source = DnsSource::new(name.clone(), rules.max_backends, Arc::clone(&resolver));
                in_dns.insert(pool.name.clone(), source);
            }
        }
    }
    readings.extend(look_at_all(&in_dns));
    readings
}

/// The key that names the source, and its value.
fn named(source: &DiscoverSource) -> (&'static str, String) {
    match source {
        DiscoverSource::File(path) => ("path", path.display().to_string()),
        DiscoverSource::Dns(name) => ("name", name.name.clone()),
    }
}

/// True if nothing is there that could be read.
fn is_missing(source: &DiscoverSource) -> bool {
    match source {
        DiscoverSource::File(path) => regular_file::identity(path).is_none(),
        // Name servers say why.
        DiscoverSource::Dns(_) => false,
    }
}

/// The addresses at which this process accepts connections; `bound`: those of listeners with the ports that the kernel
/// chose.
pub(in crate::server) fn own_addresses(config: &Config, bound: &[(String, Vec<String>)]) -> Vec<Bind> {
    let listeners = config.listeners.iter().flat_map(|listener| listener.bind.iter().cloned());
    let admin = config.process.admin.http.map(Bind::Tcp);
    let bound = bound.iter().flat_map(|(_, addresses)| addresses).filter_map(|address| address.parse().ok());
    listeners.chain(admin).chain(bound).collect()
}

/// True if a connection to this address comes to one of these.
pub(in crate::server) fn reaches(own: &[Bind], address: SocketAddr) -> bool {
    own.iter().any(|bind| bind.is_reached_by(&Address::Tcp(address)))
}

/// The clock of the process.
pub(in crate::server) fn now_ms() -> i64 {
    i64::try_from(clock::now_ms()).unwrap_or(i64::MAX)
}
