//! [`fill`]: gives the pools of a configuration that is not in force yet the backends that their sources name.
//!
//! Puts nothing in force. Invariant: a reload changes no set of a pool that is in force: only a look at its source
//! does, by the same rules as here.

use std::net::SocketAddr;

use crate::clock;
use crate::config::{Address, Bind, Config, DiscoverSource, FileProblem};
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
/// source names now, or else those in `last`, what the process before has kept.
pub(in crate::server) fn fill(
    config: &mut Config,
    in_force: Option<&Config>,
    last: Option<&RuntimeState>,
) -> Vec<SourceProblem> {
    let own = own_addresses(config, &[]);
    let mut problems = Vec::new();
    for pool in &mut config.pools {
        let Some(rules) = pool.discover.clone() else { continue };
        let before = in_force.and_then(|before| before.pools.iter().find(|before| before.name == pool.name));
        let before = before.filter(|before| before.discover.is_some());
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
        let (key, shown, reading) = look(&rules.source);
        match reconcile(&next, &rules, &reading, &|address| reaches(&own, address), now_ms()) {
            Ok(found) => next = next.with_found(found),
            // What writes it may begin later.
            Err(_) if is_missing(&rules.source) => {}
            Err(why) => problems.push(SourceProblem::Warning(problem(key, format!("\"{shown}\": {why}")))),
        }
        *pool = next;
    }
    problems
}

/// Gives each pool with a source the backends that it names now, for a command that asks no process. A source that
/// cannot be read leaves its pool as the file has it.
pub fn find_backends(config: &mut Config) {
    drop(fill(config, None, None));
}

/// The key that names the source, its value, and what the source says now.
fn look(source: &DiscoverSource) -> (&'static str, String, Reading) {
    match source {
        DiscoverSource::File(path) => ("path", path.display().to_string(), file::read(path)),
    }
}

/// True if nothing is there that could be read.
fn is_missing(source: &DiscoverSource) -> bool {
    match source {
        DiscoverSource::File(path) => regular_file::identity(path).is_none(),
    }
}

/// The addresses at which this process accepts connections; `bound`: those of listeners with the ports that the kernel
/// chose.
pub(super) fn own_addresses(config: &Config, bound: &[(String, Vec<String>)]) -> Vec<Bind> {
    let listeners = config.listeners.iter().flat_map(|listener| listener.bind.iter().cloned());
    let admin = config.process.admin.http.map(Bind::Tcp);
    let bound = bound.iter().flat_map(|(_, addresses)| addresses).filter_map(|address| address.parse().ok());
    listeners.chain(admin).chain(bound).collect()
}

/// True if a connection to this address comes to one of these.
pub(super) fn reaches(own: &[Bind], address: SocketAddr) -> bool {
    own.iter().any(|bind| bind.is_reached_by(&Address::Tcp(address)))
}

/// The clock of the process.
pub(super) fn now_ms() -> i64 {
    i64::try_from(clock::now_ms()).unwrap_or(i64::MAX)
}
