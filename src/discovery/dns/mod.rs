//! [`DnsSource`]: backends that a name has in DNS, as SRV records or as addresses with a port; [`BackendNames`]: the
//! addresses of the names of single backends.
//!
//! Asks name servers itself, because the C library tells neither how long an answer is valid nor SRV records; uses no
//! search list and no `/etc/hosts` for a source. Follows aliases, asks by TCP where an answer is cut, and takes the addresses of SRV
//! targets from the same answer where it has them. An address is an IPv4 address, or an IPv6 address of a name without
//! one: a machine with both is one backend.
//!
//! Invariants: a part of a set is never taken for the set, so a target without an address, a server that fails and an
//! address that cannot be connected to all mean "nothing that can be relied on"; a look has an end; two answers with
//! the same records in another order are one set.

mod hosts;
mod names;
mod reply;
mod resolv_conf;
mod resolver;
mod services;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{StreamExt, TryStreamExt, stream};
use hickory_resolver::proto::rr::{Name, Record, RecordType};
use tokio::time::timeout;

use self::reply::data;
use self::resolver::{Inquiry, ips};
use self::services::{backends, backends_at, serving};
use crate::config::{DnsIdentity, DnsName, DnsRecords};
use crate::discovery::found::{Found, Reading};
use crate::waiting;

pub use self::names::{BackendNames, HostAnswer, HostReading, look_at_names};
pub use self::resolver::Resolver;

/// Shortest time between two looks, whatever the answers say.
pub const REFRESH_MIN: Duration = Duration::from_secs(1);
/// Longest time between two looks.
pub const REFRESH_MAX: Duration = Duration::from_secs(3600);
/// Time until the next look where no server says how long "nothing there" is valid.
const REFRESH_EMPTY: Duration = Duration::from_secs(10);
/// How long a look may take.
const LOOK: Duration = Duration::from_secs(10);
/// Most targets of which the addresses are asked for at a time.
const AT_A_TIME: usize = 16;
/// Why nothing was asked.
const NO_THREAD: &str = "no thread could ask the name servers";

/// The backends that a name has.
#[derive(Debug)]
pub struct DnsSource {
    name: DnsName,
    /// Most backends that an answer may have.
    most: usize,
    resolver: Arc<Resolver>,
}

impl DnsSource {
    /// A source of at most so many backends, which asks these name servers.
    pub fn new(name: DnsName, most: usize, resolver: Arc<Resolver>) -> Self {
        Self { name, most, resolver }
    }

    /// Looks what the backends are at this moment. Must run on a runtime of tokio.
    pub async fn look(&self) -> Reading {
        let looked = timeout(LOOK, self.look_at_leisure()).await;
        let failed = |why: String| Reading::Failed { why };
        looked.map_or_else(|_| failed(too_late(LOOK)), |result| result.unwrap_or_else(failed))
    }

    /// A look that is waited for no longer than this.
    async fn look_within(&self, patience: Duration) -> Reading {
        timeout(patience, self.look()).await.unwrap_or_else(|_| Reading::Failed { why: too_late(patience) })
    }

    async fn look_at_leisure(&self) -> Result<Reading, String> {
        let name = full_name(&self.name.name)?;
        let inquiry = self.resolver.begin().await?;
        match self.name.records {
            DnsRecords::Services(identity) => self.look_at_services(&inquiry, &name, identity).await,
            DnsRecords::Addresses(port) => {
                let (ips, ttl) = inquiry.addresses(&name).await?;
                self.bounded(ips.len())?;
                Ok(reading(backends_at(&ips, port, &name)?, ttl))
            }
        }
    }

    async fn look_at_services(&self, inquiry: &Inquiry, name: &Name, identity: DnsIdentity) -> Result<Reading, String> {
        let answer = inquiry.records(name, RecordType::SRV).await?;
        let services = serving(&answer.records);
        self.bounded(services.len())?;
        let targets: BTreeMap<_, _> = services.iter().map(|service| (service.target.clone(), ())).collect();
        let beside = &answer.beside;
        let asked = targets.into_keys().map(|target| async move {
            let (ips, ttl) = addresses(inquiry, &target, beside).await?;
            Ok::<_, String>((target, (ips, ttl)))
        });
        let known: BTreeMap<Name, (Vec<IpAddr>, Option<u32>)> =
            stream::iter(asked).buffer_unordered(AT_A_TIME).try_collect().await?;
        let ttl = known.values().map(|(_, ttl)| *ttl).chain([answer.ttl]).flatten().min();
        let with_addresses: Vec<_> = services
            .into_iter()
            .map(|service| {
                let ips = known.get(&service.target).map(|(ips, _)| ips.clone()).unwrap_or_default();
                (service, ips)
            })
            .collect();
        let found = backends(&with_addresses, identity)?;
        self.bounded(found.len())?;
        Ok(reading(found, ttl))
    }

    fn bounded(&self, count: usize) -> Result<(), String> {
        let most = self.most;
        let too_many = || Err(format!("the answer has {count} backends; the most is {most} (max_backends)"));
        if count > most { too_many() } else { Ok(()) }
    }
}

/// Looks at sources, all at the same time, and blocks until each has said something, or its time is over. `sources`: by
/// the names of their pools.
pub fn look_at_all(sources: &BTreeMap<String, (DnsSource, Duration)>) -> BTreeMap<String, Reading> {
    if sources.is_empty() {
        return BTreeMap::new();
    }
    let looks = || {
        join_all(
            sources
                .iter()
                .map(|(pool, (source, patience))| async move { (pool.clone(), source.look_within(*patience).await) }),
        )
    };
    let no_thread = sources.keys().map(|pool| (pool.clone(), Reading::Failed { why: NO_THREAD.to_owned() }));
    no_thread.chain(blocking(looks).into_iter().flatten()).collect()
}

/// Asks name servers on a thread of its own, so that a caller may be on a runtime, and blocks for as long as that takes.
/// `None`: there is no thread.
fn blocking<T: Send, F: Future<Output = T>>(ask: impl FnOnce() -> F + Send) -> Option<T> {
    let run = || Some(tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?.block_on(ask()));
    let on_a_thread = || std::thread::scope(|scope| scope.spawn(run).join().ok().flatten());
    waiting::on(|| "asking name servers".to_owned(), on_a_thread)
}

/// The complaint about a look that has taken its time.
fn too_late(after: Duration) -> String {
    format!("no answer to all questions within {} s", after.as_secs_f32())
}

/// Time for which an answer is valid; `ttl`: as servers say it.
fn valid_for(ttl: Option<u32>) -> Duration {
    ttl.map_or(REFRESH_EMPTY, |ttl| Duration::from_secs(ttl.into())).clamp(REFRESH_MIN, REFRESH_MAX)
}

fn full_name(text: &str) -> Result<Name, String> {
    let mut name = Name::from_ascii(text).map_err(|error| format!("\"{text}\" is not a name in DNS: {error}"))?;
    name.set_fqdn(true);
    Ok(name)
}

/// The addresses of an SRV target: those that came with the SRV records, or else those that it has when asked for.
async fn addresses(inquiry: &Inquiry, target: &Name, beside: &[Record]) -> Result<(Vec<IpAddr>, Option<u32>), String> {
    match data(beside.iter().filter(|record| record.name == *target), RecordType::A) {
        (records, _) if records.is_empty() => inquiry.addresses(target).await,
        (records, ttl) => Ok((ips(&records), Some(ttl))),
    }
}

fn reading(found: Vec<Found>, ttl: Option<u32>) -> Reading {
    let valid_for = valid_for(ttl);
    if found.is_empty() { Reading::Empty { valid_for } } else { Reading::Set { found, valid_for } }
}
