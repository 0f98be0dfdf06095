//! What the process does now, as plain data: a [`Status`] is filled per request and shown as metrics, JSON or a table.
//!
//! Reads counters, owns none. Invariant: `/metrics`, `/status` and `sessile status` show the same [`Status`], so they
//! cannot contradict each other. No field takes its value from a client.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::totals;
use crate::counters::{ConversationCounters, Counter, HistogramSum, ListenerCounters, Padded, WordCounters};
use crate::http::Refused;
use crate::outcome::Ended;

pub use super::fleet_status::{FleetMember, FleetOrderStatus, FleetStatus};
pub use super::process::{Descriptors, DrainingProcess, ProcessStatus, ProcessUsage};
pub use super::store_status::{StoreNodeStatus, StoreStatus};
pub use super::threads::{RuntimeStatus, WorkerStatus};
pub use super::totals::{
    BackendTotals, BreakCount, DiscoverStatus, QueueStatus, RequestTotals, ResolveStatus, SplitPoolStatus, SplitStatus,
    mean_us,
};

/// What the process is doing now, for operators.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Status {
    /// Version of the running binary.
    pub version: String,
    /// True while `/readyz` returns 200.
    pub ready: bool,
    /// Seconds since the process started.
    pub uptime_s: u64,
    /// The process itself, and those that stop beside it.
    #[serde(flatten)]
    pub process: ProcessStatus,
    /// Number of the configuration in force; every accepted reload adds 1.
    pub generation: u64,
    /// Snapshots not yet dropped: 1, or 2 during a reload.
    pub generations_alive: usize,
    /// Digest of the placement of all pools; equal digests place alike.
    pub digest: String,
    /// Reloads since the start.
    pub reloads: Reloads,
    /// Permits and their limit.
    pub admission: AdmissionStatus,
    /// Access log records lost because the output refused them.
    pub log_lost: u64,
    /// Access log records dropped because the output took too little.
    #[serde(default)]
    pub log_dropped: u64,
    /// Why the access log loses records now, or the error of the last loss; empty if there was none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub log_complaint: String,
    /// Messages about the process that standard error did not take.
    #[serde(default)]
    pub messages_lost: u64,
    /// The stick-table file; `None`: the configuration has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stick_table_file: Option<TableFileStatus>,
    /// The state file; `None`: the configuration has no place for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_file: Option<TableFileStatus>,
    /// File descriptors of the process; `None` without `/proc`.
    pub descriptors: Option<Descriptors>,
    /// What the process has used of the machine; `None` without `/proc`.
    #[serde(default)]
    pub usage: Option<ProcessUsage>,
    /// Connections to `admin.http` that were closed because `admin.allow` does not have their peer.
    #[serde(default)]
    pub admin_peers_refused: u64,
    /// Certificates of listeners, by name.
    #[serde(default)]
    pub certificates: Vec<CertificateStatus>,
    /// Listeners, in the order of the file.
    pub listeners: Vec<ListenerStatus>,
    /// Pools, in the order of the file.
    pub pools: Vec<PoolStatus>,
    /// Splits, in the order of the file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub splits: Vec<SplitStatus>,
    /// True if `/metrics` shows only pools that are or were busy.
    #[serde(skip)]
    pub busy_pools_only: bool,
    /// Stick tables; empty where they were not requested.
    #[serde(default)]
    pub stick_tables: Vec<StickTableStatus>,
    /// The shared store; `None`: the configuration has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreStatus>,
    /// What instances tell each other of their stick tables; `None`: they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<FleetStatus>,
    /// Counters of each worker, by its number.
    pub workers: Vec<WorkerStatus>,
    /// Counters of each runtime, by number of its worker.
    #[serde(default)]
    pub conversations: Vec<RuntimeStatus>,
    /// HTTP requests that were refused, by the word of the refusal; a word that never occurred is absent.
    #[serde(default)]
    pub requests_refused: BTreeMap<String, u64>,
    /// HTTP requests that a limit of requests ended, by the word of the ending; a word that never occurred is absent.
    #[serde(default)]
    pub requests_limited: BTreeMap<String, u64>,
    /// HTTP responses that were refused, by the word of the refusal; a word that never occurred is absent.
    #[serde(default)]
    pub responses_refused: BTreeMap<String, u64>,
}

const _: () = assert!(Refused::ALL.len() <= WordCounters::WORDS_MAX);
const _: () = assert!(Ended::OF_REQUEST_LIMITS.len() <= WordCounters::WORDS_MAX);

/// Adds up counters of refusals over all runtimes.
pub fn refusals(
    counters: &[Padded<ConversationCounters>],
    of: impl Fn(&ConversationCounters) -> &WordCounters,
) -> BTreeMap<String, u64> {
    by_word(counters, Refused::ALL.iter().map(|why| why.word()), of)
}

/// Adds up counters of requests that a limit ended over all runtimes.
pub fn limited(counters: &[Padded<ConversationCounters>]) -> BTreeMap<String, u64> {
    by_word(counters, Ended::OF_REQUEST_LIMITS.iter().map(|ended| ended.word()), |counters| &counters.requests_limited)
}

/// Adds up counters over all runtimes; `words` are in the order of their numbers.
fn by_word(
    counters: &[Padded<ConversationCounters>],
    words: impl Iterator<Item = &'static str>,
    of: impl Fn(&ConversationCounters) -> &WordCounters,
) -> BTreeMap<String, u64> {
    let count = |word: usize| counters.iter().map(|Padded(own)| of(own).of(word).value()).sum::<u64>();
    let counted = words.enumerate().map(|(number, word)| (word.to_owned(), count(number)));
    counted.filter(|(_, count)| *count > 0).collect()
}

/// Reloads since the start, and the last one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloads {
    /// Reloads accepted since the start, without the start itself.
    pub accepted: u64,
    /// Reloads refused since the start.
    pub refused: u64,
    /// True if the last reload was accepted, and before the first reload.
    pub last_accepted: bool,
    /// Time of the last reload, or of the start, in seconds since 1970.
    pub last_unix_s: u64,
    /// Problems of the last reload; empty if it was accepted.
    pub problems: Vec<String>,
}

/// A file that keeps the stick tables, or what commands have set, over a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableFileStatus {
    /// Path of the file.
    pub path: String,
    /// When this process last wrote it, in seconds since 1970; `None`: not yet.
    pub written_unix_s: Option<u64>,
    /// Writes that failed since the start.
    pub failures: u64,
    /// Why the last write failed; empty if it succeeded.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub complaint: String,
}

/// A name that listeners have a certificate for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// A host name, or `*.` and a domain; empty for a certificate without names.
    pub name: String,
    /// When the first of the name's certificates ends, in seconds since 1970.
    pub not_after_unix_s: u64,
}

/// Permits: each open connection holds one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdmissionStatus {
    /// Permits that connections hold now.
    pub open: u64,
    /// Limit of permits held at once.
    pub max: u64,
    /// Client addresses counted for per-source limits; 0 while those limits are off.
    pub sources: u64,
    /// Memory that ClientHellos above 4 KiB take now, in bytes.
    #[serde(default)]
    pub hello_memory_bytes: u64,
    /// Limit of that memory, in bytes.
    #[serde(default)]
    pub hello_memory_max_bytes: u64,
    /// True while clients wait because all permits are held.
    #[serde(default)]
    pub at_limit: bool,
    /// Times that the limit was reached.
    #[serde(default)]
    pub limit_reached: u64,
}

/// One listener and its totals.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Name of the listener in the configuration.
    pub name: String,
    /// Addresses of the listener, with the ports that the kernel chose.
    pub bind: Vec<String>,
    /// Connections of the listener that are open now.
    pub open: u64,
    /// Limit of open connections; `None`: no limit of its own.
    pub max: Option<u64>,
    /// Seconds for which a silent client is not accepted; `None`: each is accepted at once.
    #[serde(default)]
    pub defer_accept_s: Option<u32>,
    /// True while clients wait because the listener has as many connections as it may have.
    #[serde(default)]
    pub at_limit: bool,
    /// Times that the limit was reached.
    #[serde(default)]
    pub limit_reached: u64,
    /// What can come to the listener.
    #[serde(skip)]
    pub kinds: ListenerKinds,
    /// Totals since the listener was added.
    #[serde(flatten)]
    pub totals: ListenerTotals,
}

/// What can come to a listener, by the configuration.
#[derive(Debug, Clone, Copy, Default)]
pub struct ListenerKinds {
    /// TLS that ends here.
    pub tls: bool,
    /// HTTP that ends here.
    pub http: bool,
    /// PROXY headers.
    pub proxy: bool,
}

/// Totals of the connections of a listener since it was added.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListenerTotals {
    /// Connections that the listener accepted.
    pub accepted: u64,
    /// Connections that ended, by the word of their outcome; outcomes that never happened are absent.
    pub ended: BTreeMap<String, u64>,
    /// Connections without a key, because their PROXY header said LOCAL or UNKNOWN.
    #[serde(default)]
    pub keyless: u64,
    /// TLS handshakes with clients that succeeded.
    #[serde(default)]
    pub handshakes: u64,
    /// TLS handshakes that resumed a session.
    #[serde(default)]
    pub resumed: u64,
    /// HTTP requests by the class of the status code that the client got; a class that never was is absent.
    #[serde(default)]
    pub requests: BTreeMap<String, u64>,
}

impl ListenerTotals {
    /// Adds up the counters of all workers and runtimes.
    pub fn sum(counters: &[Padded<ListenerCounters>]) -> Self {
        let ended = Ended::ALL.iter().filter_map(|ended| {
            let sum: u64 = counters.iter().map(|worker| worker.0.ended[*ended as usize].value()).sum();
            (sum > 0).then(|| (ended.word().to_owned(), sum))
        });
        let sum =
            |of: fn(&ListenerCounters) -> &Counter| counters.iter().map(|worker| of(&worker.0).value()).sum::<u64>();
        Self {
            accepted: sum(|own| &own.accepted),
            ended: ended.collect(),
            keyless: sum(|own| &own.keyless),
            handshakes: sum(|own| &own.handshakes),
            resumed: sum(|own| &own.resumed),
            requests: totals::by_class(counters.iter().map(|worker| &worker.0.requests)),
        }
    }
}

/// One pool and its backends.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Name of the pool in the configuration.
    pub name: String,
    /// Method of placement, by its word in the configuration.
    pub balance: String,
    /// Digest of the placement of the pool; equal digests place alike.
    pub digest: String,
    /// Known clients that got another backend than the one they had, by cause.
    pub breaks: BTreeMap<String, u64>,
    /// The same clients by the backend that they had, also where none was, if there can be.
    #[serde(skip)]
    pub breaks_from: Vec<BreakCount>,
    /// Requests of the pool; `None`: it serves no HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<RequestTotals>,
    /// Histogram of the times of successful connects.
    #[serde(skip)]
    pub connect_time: HistogramSum,
    /// `Set-Cookie` lines of backends with the name of the balancer's own cookie, which were dropped.
    #[serde(default)]
    pub dropped_cookies: u64,
    /// Requests with the pool's cookie, by the verdict on it; empty without a cookie.
    #[serde(default)]
    pub cookies: BTreeMap<String, u64>,
    /// Clients that wait, or have waited, for places at full backends; `None`: none ever waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueStatus>,
    /// True once the pool has had work or trouble.
    #[serde(default)]
    pub busy: bool,
    /// True if the pool has health checks.
    #[serde(skip)]
    pub checks: bool,
    /// True if failed connects eject a backend.
    #[serde(skip)]
    pub ejects: bool,
    /// Source of backends; `None`: the pool has those of the file alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discover: Option<DiscoverStatus>,
    /// Names of backends that file or source have, and that orders at run time have removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
    /// Backends of the pool, in the order of the file, and behind them those that its source names and those that orders
    /// have added.
    pub backends: Vec<BackendStatus>,
}

/// The stick table of a pool, or of all pools of a `stick_group`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StickTableStatus {
    /// Name of the pool, or of the `stick_group`.
    pub name: String,
    /// Names of the pools that share the table.
    pub pools: Vec<String>,
    /// True if one of the pools is or was busy.
    #[serde(skip)]
    pub busy: bool,
    /// Memory of the table, in bytes.
    pub bytes: u64,
    /// The most entries that the table can have.
    #[serde(default)]
    pub entries_max: u64,
    /// Entries of the table that are not expired.
    pub known: u64,
    /// Entries by the highest time since they were last seen.
    pub known_by_age: BTreeMap<String, u64>,
    /// Entries by the name of their backend.
    pub known_by_backend: BTreeMap<String, u64>,
    /// Entries that placement alone would send to another backend.
    pub displaced: u64,
    /// Entries of cookies that were learned from applications.
    pub learned: u64,
    /// Entries lost for want of room, of those that placement alone would send to another backend.
    pub evicted_displaced: u64,
    /// Entries that found no room, of those that placement alone would send to another backend.
    #[serde(default)]
    pub refused: u64,
    /// True if an entry was lost in the last ten minutes.
    #[serde(default)]
    pub full: bool,
    /// Share of the most frequent key in all picks, 0 to 1.
    pub hottest_share: f64,
    /// The most by which `hottest_share` may be wrong, up or down.
    #[serde(default)]
    pub hottest_error: f64,
    /// True if shares of keys come from a sample of the picks; false: every pick was counted.
    #[serde(default)]
    pub hottest_sampled: bool,
}

/// One backend of a pool, with its health and its totals.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Name of the backend in the configuration.
    pub name: String,
    /// Address that connections are made to; the name, where that has no address.
    pub address: String,
    /// The name that is written as its address; `None`: the address itself is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolve: Option<ResolveStatus>,
    /// `draining` or `drained`: by a command, also one to an earlier process, by its agent, or because its source does
    /// not name it; `None`: neither.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// Seconds since the command that drained the backend; `None`: it is not draining.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_s: Option<u64>,
    /// The instance of the fleet that has ordered the drain; `None`: this one, or it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained_by: Option<String>,
    /// Seconds since the state last changed; `None`: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_s: Option<u64>,
    /// What is ordered of the backend at run time, in words: `added`, `weight 5 in place of 1`; empty: nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub orders: Vec<String>,
    /// True if its source does not name it any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub absent: bool,
    /// One word for its health: `up`, `unchecked`, `awaited`, `down`, `damped` or `ejected`.
    pub state: String,
    /// Reason of the last failed check, and of the last refused response; empty if there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub complaint: String,
    /// True while health checks leave the backend in service.
    pub up: bool,
    /// True while the backend is ejected because connects failed.
    pub ejected: bool,
    /// True if the backend serves only while no other backend can.
    pub backup: bool,
    /// Weight of the backend in the configuration.
    pub weight: u16,
    /// Connections that hold a lease on the backend now.
    pub leases: u64,
    /// Most connections of the backend; `None`: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// Clients that wait for a place here, and nowhere else.
    #[serde(default)]
    pub waiting: u64,
    /// Times that checks have found the backend up after it was down.
    #[serde(default)]
    pub rises: u64,
    /// Times that checks have found the backend down.
    #[serde(default)]
    pub falls: u64,
    /// Totals since the backend was added.
    #[serde(flatten)]
    pub totals: BackendTotals,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::BackendCounters;

    #[test]
    fn what_several_workers_counted_is_added_up() {
        let workers: Vec<Padded<BackendCounters>> = (0..3).map(|_| Padded::default()).collect();
        for (index, Padded(worker)) in workers.iter().enumerate() {
            worker.connections.add(1);
            worker.bytes_up.add(index as u64);
            worker.connect_time.record_us(100 * index as u64);
        }
        let sum = BackendTotals::sum(&workers);
        assert_eq!((sum.connections, sum.bytes_up), (3, 3));
        assert_eq!((sum.connect_us_mean, sum.duration_us_mean), (Some(100), None));
    }
}
