//! Puts the addresses in force that the names of backends have: [`Server::heed_names`] for ever, [`NamesToAsk`] for a
//! configuration that is not in force yet.
//!
//! Decides nothing (`discovery::resolve` does). Invariants: a change of addresses is a snapshot on top of the configuration
//! in force, and no file of the configuration is read for it; while no address changes, no snapshot is made.

mod first;
mod looks;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

pub(super) use self::first::NamesToAsk;
pub use self::first::ResolvedName;
pub(super) use self::looks::{NameLooks, NameReading};

use self::first::{address_of, put};
use super::discovery::{own_addresses, reaches};
use super::{Server, lock_of};
use crate::clock;
use crate::config::{self, Config, HostPort};
use crate::discovery::dns::HostReading;
use crate::discovery::resolve;
use crate::events::{self, Event, EventKind};
use crate::metrics::status::ResolveStatus;
use crate::snapshot::Snapshot;

/// Most readings that are taken together.
pub(super) const TOGETHER_MAX: usize = 256;

/// What has become of the names of backends.
#[derive(Debug, Default)]
pub(super) struct NameReports {
    /// By pool and backend.
    by_backend: BTreeMap<(String, String), NameReport>,
    /// True if there is an address that the state file may not have.
    is_unkept: bool,
}

/// What has become of the name of one backend since the process began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct NameReport {
    /// All addresses of the last answer.
    answers: Vec<IpAddr>,
    /// Why the last reading was not taken; empty if it was.
    complaint: String,
    /// Readings that were not taken.
    failures: u64,
    /// Changes of the address that were put in force.
    changes: u64,
    /// Time of the last one, in seconds since 1970.
    changed_unix_s: Option<u64>,
}

/// What a reading means for one backend.
struct NameVerdict<'r> {
    pool: String,
    backend: String,
    host: HostPort,
    in_force: Option<SocketAddr>,
    reading: &'r HostReading,
    address: Result<SocketAddr, String>,
}

impl NameVerdict<'_> {
    /// The address that is to be put in force; `None`: the backend stays where it is.
    fn moves_to(&self) -> Option<SocketAddr> {
        let address = *self.address.as_ref().ok()?;
        (self.in_force != Some(address)).then_some(address)
    }

    fn named(&self) -> String {
        format!("backend {}/{}: {}", self.pool, self.backend, self.host)
    }

    /// What there is to say once the address is in force; `None`: the backend stays where it is.
    fn moved(&self, now: &Snapshot) -> Option<String> {
        let address = self.moves_to()?;
        let from = self.in_force.map_or_else(String::new, |from| format!(" in place of {from}"));
        let order = now.pool(&self.pool).and_then(|pool| pool.config().orders.of(&self.backend));
        let ordered = order.and_then(|order| order.address.as_ref());
        let stands = ordered.map_or_else(String::new, |address| format!("; the ordered {} stands", address.ordered));
        Some(format!("{} is {address}{from}, as generation {}{stands}", self.named(), now.generation))
    }
}

impl Server {
    /// Takes readings of names, or says why not; all together, so that they cost one snapshot.
    pub(super) async fn heed_names(&self, told: &[NameReading]) {
        let readings: BTreeMap<_, _> = told.iter().map(|told| (told.host.as_str(), &told.reading)).collect();
        let mut listen_sockets = self.listen_sockets.lock().await;
        let before = self.current.load_full();
        let own = own_addresses(&before.config, &lock_of(&self.bound));
        let verdicts = judge(&before.config, &readings, &|address| reaches(&own, address));
        verdicts.iter().for_each(|verdict| self.note_reading(verdict));
        let moves: BTreeMap<_, _> = verdicts
            .iter()
            .filter_map(|verdict| Some(((&*verdict.pool, &*verdict.backend), verdict.moves_to()?)))
            .collect();
        if moves.is_empty() {
            return;
        }
        let mut config = (*before.config).clone();
        put(&mut config, |pool, backend| moves.get(&(pool, &*backend.name)).copied());
        if let Some(snapshot) = self.put_backends_in_force(&before, config, &mut listen_sockets).await {
            self.note_moves(&before, &snapshot, &verdicts);
        }
    }

    /// Writes the state file after a change, so that a start without name servers has the addresses.
    pub(super) async fn keep_addresses(&self) {
        if std::mem::take(&mut lock_of(&self.names).is_unkept) {
            // A failure is in the log.
            let _ = self.keep_state(false).await;
        }
    }

    /// Forgets what there was to say of backends that have no name any more.
    pub(super) fn forget_names(&self, config: &Config) {
        let named: BTreeSet<_> = config
            .pools
            .iter()
            .flat_map(|pool| pool.written().map(move |backend| (pool, backend)))
            .filter(|(_, backend)| backend.followed_name().is_some())
            .map(|(pool, backend)| (&*pool.name, &*backend.name))
            .collect();
        lock_of(&self.names).by_backend.retain(|(pool, backend), _| named.contains(&(pool.as_str(), backend.as_str())));
    }

    /// What operators see of the name of a backend; `None`: it has none.
    pub(super) fn resolve_status(&self, pool: &str, backend: &config::Backend) -> Option<ResolveStatus> {
        let host = backend.followed_name()?;
        let reports = lock_of(&self.names);
        let report = reports.by_backend.get(&(pool.to_owned(), backend.name.clone())).cloned().unwrap_or_default();
        Some(ResolveStatus {
            name: host.to_string(),
            answers: report.answers.iter().map(ToString::to_string).collect(),
            complaint: report.complaint,
            failures: report.failures,
            changes: report.changes,
            changed_unix_s: report.changed_unix_s,
        })
    }

    /// What was found last of the names of backends that a reload did not ask for: those that follow their names.
    pub(super) fn resolved_names(&self, config: &Config, asked: &[ResolvedName]) -> Vec<ResolvedName> {
        let asked: BTreeSet<_> = asked.iter().map(|name| (&*name.pool, &*name.backend)).collect();
        let reports = lock_of(&self.names);
        let all = config.pools.iter().flat_map(|pool| pool.written().map(move |backend| (&*pool.name, backend)));
        let others = all.filter(|(pool, backend)| !asked.contains(&(*pool, &*backend.name)));
        let found = others.filter_map(|(pool, backend)| {
            let report = reports.by_backend.get(&(pool.to_owned(), backend.name.clone()));
            Some(ResolvedName {
                pool: pool.to_owned(),
                backend: backend.name.clone(),
                name: backend.followed_name()?.clone(),
                answers: report.map(|report| report.answers.clone()).unwrap_or_default(),
                address: address_of(backend),
            })
        });
        found.collect()
    }

    /// Notes what was found of the name of a backend, and says when a complaint begins and ends.
    fn note_reading(&self, verdict: &NameVerdict<'_>) {
        let NameVerdict { pool, backend, in_force, reading, address, .. } = verdict;
        let mut reports = lock_of(&self.names);
        let is_first = !reports.by_backend.contains_key(&(pool.clone(), backend.clone()));
        // The start has found the address that is in force.
        reports.is_unkept |= is_first && in_force.is_some();
        let report = reports.by_backend.entry((pool.clone(), backend.clone())).or_default();
        if let Ok(answer) = reading {
            report.answers.clone_from(&answer.ips);
        }
        let of_backend = |kind, text: &str| Event::new(kind, text).of_backend(pool, backend);
        match address {
            Ok(_) => {
                if !std::mem::take(&mut report.complaint).is_empty() {
                    let text = format!("{} is good again", verdict.named());
                    events::info(clock::unix_ms(), of_backend(EventKind::ResolveWorks, &text));
                }
            }
            Err(why) => {
                report.failures += 1;
                if std::mem::replace(&mut report.complaint, why.clone()).is_empty() {
                    let result = if in_force.is_some() { "its last address stays" } else { "it is down" };
                    let text = format!("{}: {why}; {result}", verdict.named());
                    events::warn(clock::unix_ms(), of_backend(EventKind::ResolveFailed, &text));
                }
            }
        }
    }

    /// Says in the log and by events which backends have other addresses.
    fn note_moves(&self, before: &Snapshot, now: &Snapshot, verdicts: &[NameVerdict<'_>]) {
        let mut last = None;
        for verdict in verdicts {
            let Some(text) = verdict.moved(now) else { continue };
            let NameVerdict { pool, backend, .. } = verdict;
            tracing::info!("{text}");
            let event = Event::new(EventKind::Resolved, &text).of_backend(pool, backend);
            last = Some(events::note(clock::unix_ms(), event));
            let mut reports = lock_of(&self.names);
            reports.is_unkept = true;
            let report = reports.by_backend.entry((pool.clone(), backend.clone())).or_default();
            report.changes += 1;
            report.changed_unix_s = Some(clock::unix_s());
        }
        if let Some(event) = last {
            self.note_cause(before, now, event);
        }
    }
}

/// What readings mean for the backends that follow these names.
fn judge<'r>(
    config: &Config,
    readings: &BTreeMap<&str, &'r HostReading>,
    is_own: &dyn Fn(SocketAddr) -> bool,
) -> Vec<NameVerdict<'r>> {
    let mut verdicts = Vec::new();
    for pool in &config.pools {
        for (backend, host) in pool.followed() {
            let Some(reading) = readings.get(host.host.as_str()).copied() else { continue };
            let in_force = address_of(backend);
            let address = resolve::address(in_force, host.port, reading, is_own);
            let (pool, backend, host) = (pool.name.clone(), backend.name.clone(), host.clone());
            verdicts.push(NameVerdict { pool, backend, host, in_force, reading, address });
        }
    }
    verdicts
}

#[cfg(test)]
mod tests;
