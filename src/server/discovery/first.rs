//! [`fill`]: gives the pools of a configuration that is not in force yet the backends that their sources name, and what
//! orders at run time have made of them.
//!
//! Puts nothing in force. Invariants: a reload changes no set of a pool that is in force: only a look at its source does,
//! by the same rules as here; nor does it end an order that its file does not contradict; name servers that say nothing
//! hold no start up of which the last set is known.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::config::{Address, Backend, Bind, Config, Discover, DiscoverSource, FileProblem, Pool};
use crate::discovery::dns::{DnsSource, Resolver, look_at_all};
use crate::discovery::file;
use crate::discovery::found::Reading;
use crate::discovery::reconcile::reconcile;
use crate::regular_file;
use crate::server::runtime_state::RuntimeState;
use crate::snapshot::Snapshot;

/// How long name servers may take for a pool of which the last set is known: it serves from that, and follows the answer
/// as soon as there is one. Enough for a resolver at hand, so that a start with DNS begins with the set of now.
const WITH_A_SET: Duration = Duration::from_millis(200);
/// How long name servers may take for a pool of which no set is known; it has no backend until they answer. Shorter than
/// the patience of a restart, which asks whether the next process could start.
const WITHOUT_A_SET: Duration = Duration::from_millis(1_500);
/// How long name servers may take for a command.
const FOR_A_COMMAND: Duration = Duration::from_secs(5);

/// What is there before a configuration is in force.
#[derive(Clone, Copy)]
pub(in crate::server) enum Before<'b> {
    /// Nothing: a command asks.
    Nothing,
    /// What another process has kept for a configuration, or gives.
    Process(&'b dyn Fn(&Config) -> Option<RuntimeState>),
    /// The snapshot in force.
    InForce(&'b Snapshot),
}

impl<'b> Before<'b> {
    /// The snapshot in force; `None`: there is none.
    pub(in crate::server) fn snapshot(self) -> Option<&'b Snapshot> {
        match self {
            Self::InForce(snapshot) => Some(snapshot),
            Self::Nothing | Self::Process(_) => None,
        }
    }

    /// What another process has kept or gives; `None`: there is none, or it has kept nothing.
    pub(in crate::server) fn last(self, config: &Config) -> Option<RuntimeState> {
        match self {
            Self::Process(last) => last(config),
            Self::Nothing | Self::InForce(_) => None,
        }
    }

    /// How long name servers may take. `is_known`: a set, or an address, of before is known.
    pub(in crate::server) fn patience(self, is_known: bool) -> Duration {
        match self {
            Self::Nothing => FOR_A_COMMAND,
            _ if is_known => WITH_A_SET,
            _ => WITHOUT_A_SET,
        }
    }
}

/// What there is to say of a source before a configuration is in force.
pub(in crate::server) enum SourceProblem {
    /// The configuration cannot be put in force with the backends that are in force.
    Error(FileProblem),
    /// The source cannot be read now: its pool has the backends that were kept, or none.
    Warning(FileProblem),
}

/// Gives each pool with a source the backends that it has in force. A pool that is not in force gets those that its source
/// names now, or else those that another process has kept or gives. Orders at run time stand over both.
pub(in crate::server) fn fill(config: &mut Config, before: Before<'_>) -> Vec<SourceProblem> {
    let own = own_addresses(config, &[]);
    let in_force = before.snapshot().map(|snapshot| &*snapshot.config);
    let last = before.last(config);
    let last_set =
        |pool: &str| last.as_ref().map(|last| last.found(pool, clock::now_ms(), clock::unix_ms())).unwrap_or_default();
    let mut readings = look_at_new(config, in_force, |pool| before.patience(!last_set(pool).is_empty()));
    let mut problems = Vec::new();
    for pool in &mut config.pools {
        let Some(rules) = pool.discover.clone() else { continue };
        let before = with_source(in_force, &pool.name);
        let problem = |key, why: String| FileProblem::new(format!("pool \"{}\": discover", pool.name), key, why);
        if let Some(before) = before {
            let next = pool.with_found(under(&rules, before.found().cloned().collect()));
            if let Err(why) = next.balance.holds(&next.backends) {
                problems.push(SourceProblem::Error(problem("kind", format!("\"{}\": {why}", rules.source.kind()))));
            }
            *pool = next;
            continue;
        }
        let mut next = pool.with_found(under(&rules, last_set(&pool.name)));
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
    problems.extend(config.pools.iter_mut().filter_map(|pool| order(pool, in_force, last.as_ref())));
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
    drop(fill(config, Before::Nothing));
}

/// Backends that were found before, under the rules of now: records of DNS have no limit of their own. A file is read
/// again.
fn under(rules: &Discover, mut found: Vec<Backend>) -> Vec<Backend> {
    if matches!(rules.source, DiscoverSource::Dns(_)) {
        found.iter_mut().for_each(|backend| backend.max_connections = rules.max_connections);
    }
    found
}

/// A pool of a configuration that has a source there.
fn with_source<'c>(config: Option<&'c Config>, name: &str) -> Option<&'c Pool> {
    config?.pools.iter().find(|pool| pool.name == name && pool.discover.is_some())
}

/// What the sources of pools that are not in force say now, by the names of the pools. Name servers are asked for all
/// pools at the same time; `patience`: how long they may take for a pool.
fn look_at_new(
    config: &Config,
    in_force: Option<&Config>,
    patience: impl Fn(&str) -> Duration,
) -> BTreeMap<String, Reading> {
    let resolver = Arc::new(Resolver::new(config.process.resolvers.clone()));
    let (mut readings, mut in_dns) = (BTreeMap::new(), BTreeMap::new());
    for pool in config.pools.iter().filter(|pool| with_source(in_force, &pool.name).is_none()) {
        let Some(rules) = &pool.discover else { continue };
        match &rules.source {
            DiscoverSource::File(path) => drop(readings.insert(pool.name.clone(), file::read(path))),
            DiscoverSource::Dns(name) => {
                let source = DnsSource::new(name.clone(), rules.max_backends, Arc::clone(&resolver));
                in_dns.insert(pool.name.clone(), (source, patience(&pool.name)));
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
