//! What the process is doing now, as plain data: filled once a request, shown as a metrics page, as JSON or as a table.
//!
//! Reads counters, owns none. Invariant: everything an operator can see in `/metrics`, `/status` and `sessile status`
//! comes from one [`Status`], so that they cannot contradict each other. No field takes its value from a client.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::counters::{BackendCounters, ConversationCounters, HistogramSum, ListenerCounters, Padded, WorkerCounters};
use crate::outcome::Ended;

/// What the process is doing now.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Status {
    /// The version of the binary.
    pub version: String,
    /// Whether `/readyz` says yes.
    pub ready: bool,
    /// Since the process started.
    pub uptime_s: u64,
    /// Raised by every accepted reload.
    pub generation: u64,
    /// Snapshots not yet dropped: 1, or 2 during a reload.
    pub generations_alive: usize,
    /// Equal digests place alike.
    pub digest: String,
    /// What became of reloads.
    pub reloads: Reloads,
    /// The right to be served.
    pub admission: AdmissionStatus,
    /// Connection log records lost because standard output failed.
    pub log_lost: u64,
    /// Descriptors of the process, where `/proc` tells.
    pub descriptors: Option<Descriptors>,
    /// Listeners, in the order of the file.
    pub listeners: Vec<ListenerStatus>,
    /// Pools, in the order of the file.
    pub pools: Vec<PoolStatus>,
    /// What pools remember of their clients.
    #[serde(default)]
    pub stick_tables: Vec<StickTableStatus>,
    /// The shared store, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreStatus>,
    /// Workers, by number.
    pub workers: Vec<WorkerStatus>,
    /// What each one's conversations came to.
    #[serde(default)]
    pub conversations: Vec<RuntimeStatus>,
}

/// What became of reloads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloads {
    /// Accepted since the start; the start itself does not count.
    pub accepted: u64,
    /// Refused since the start.
    pub refused: u64,
    /// Whether the last one, or the start, was accepted.
    pub last_accepted: bool,
    /// When that was, in seconds since 1970.
    pub last_unix_s: u64,
    /// What the last one was refused for.
    pub problems: Vec<String>,
}

/// The right to be served.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdmissionStatus {
    /// Permits held now.
    pub open: u64,
    /// Permits there are.
    pub max: u64,
    /// Client addresses tracked for per-source limits; 0 while those are off.
    pub sources: u64,
}

/// Descriptors of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptors {
    /// Open now.
    pub open: u64,
    /// The soft limit.
    pub max: u64,
}

impl Descriptors {
    /// Asks the kernel about this process.
    pub fn of_this_process() -> Option<Self> {
        let open = std::fs::read_dir("/proc/self/fd").ok()?.count() as u64 - 1; // the directory itself
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        Some(Self { open, max: limit.current.unwrap_or(u64::MAX) })
    }
}

/// One listener.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// The addresses it is bound to.
    pub bind: Vec<String>,
    /// Connections open now.
    pub open: u64,
    /// Its own limit, if it has one.
    pub max: Option<u64>,
    /// What its connections came to.
    #[serde(flatten)]
    pub totals: ListenerTotals,
}

/// What the connections of a listener came to, since it exists.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListenerTotals {
    /// Connections accepted.
    pub accepted: u64,
    /// How they ended: words of `Ended`; those that never happened are left out.
    pub ended: BTreeMap<String, u64>,
}

impl ListenerTotals {
    /// Adds up what the workers counted.
    pub fn sum(counters: &[Padded<ListenerCounters>]) -> Self {
        let ended = Ended::ALL.iter().filter_map(|ended| {
            let sum: u64 = counters.iter().map(|worker| worker.0.ended[*ended as usize].value()).sum();
            (sum > 0).then(|| (ended.word().to_owned(), sum))
        });
        let accepted = counters.iter().map(|worker| worker.0.accepted.value()).sum();
        Self { accepted, ended: ended.collect() }
    }
}

/// One pool.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PoolStatus {
    /// Its name.
    pub name: String,
    /// How a backend is chosen: the word in the configuration.
    pub balance: String,
    /// Equal digests place alike.
    pub digest: String,
    /// Known clients that got another backend, by cause.
    pub breaks: BTreeMap<String, u64>,
    /// Its backends, in the order of the file.
    pub backends: Vec<BackendStatus>,
}

/// The stick table of a pool, or of all pools of a `stick_group`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StickTableStatus {
    /// The name of the pool, or of the group.
    pub name: String,
    /// The pools that share it.
    pub pools: Vec<String>,
    /// Its size.
    pub bytes: u64,
    /// Keys it knows.
    pub known: u64,
    /// The same by the time since they were last seen, at most so long.
    pub known_by_age: BTreeMap<String, u64>,
    /// The same by the backend they live with.
    pub known_by_backend: BTreeMap<String, u64>,
    /// Those that placement alone would not find.
    pub displaced: u64,
    /// Those that an application's cookie names.
    pub learned: u64,
    /// Entries worth keeping that had to give way to others.
    pub evicted_displaced: u64,
    /// The share of all picks that is the hottest key's.
    pub hottest_share: f64,
}

/// The shared store of learned cookies.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Where it is; never with a user or a password.
    pub place: String,
    /// `working`, or `open`: nobody asks it until it answers in time.
    pub state: String,
    /// Why nobody asks it, or what it does not take.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub complaint: String,
    /// The longest that anybody waits for it.
    pub budget_us: u64,
    /// Times it had to be left alone after it had worked.
    pub opened: u64,
    /// Entries learned while it was away, and waiting.
    pub pending: u64,
    /// Of those that waited, the ones that it was told.
    pub reconciled: u64,
    /// Of those that waited, the ones that had to give way to later ones.
    pub overflow: u64,
    /// What was asked of it and what became of that: kind, then outcome.
    pub requests: BTreeMap<String, BTreeMap<String, u64>>,
    /// Mean time of an exchange with it; absent before the first.
    pub latency_us_mean: Option<u64>,
    /// Time of exchanges.
    #[serde(skip)]
    pub latency: HistogramSum,
}

/// One backend.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub address: String,
    /// What a command has made of it: `draining` or `drained`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// One word for its health: `up`, `unchecked`, `awaited`, `down` or `ejected`.
    pub state: String,
    /// What its last failed check complained of.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub complaint: String,
    /// Whether checks leave it in service.
    pub up: bool,
    /// Whether failed connects have it set aside.
    pub ejected: bool,
    /// Whether it serves only when no other can.
    pub backup: bool,
    /// Its weight.
    pub weight: u16,
    /// Connections that hold a lease on it now.
    pub leases: u64,
    /// What its connections came to.
    #[serde(flatten)]
    pub totals: BackendTotals,
}

/// What the connections of a backend came to, since it exists.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct BackendTotals {
    /// Connections that reached it.
    pub connections: u64,
    /// Attempts that failed.
    pub connect_failures: u64,
    /// Bytes from clients to it.
    pub bytes_up: u64,
    /// Bytes from it to clients.
    pub bytes_down: u64,
    /// Mean time of a successful connect; absent before the first.
    pub connect_us_mean: Option<u64>,
    /// Mean duration of a connection; absent before the first has ended.
    pub duration_us_mean: Option<u64>,
    /// Time of successful connects.
    #[serde(skip)]
    pub connect_time: HistogramSum,
    /// From accept to end.
    #[serde(skip)]
    pub duration: HistogramSum,
}

impl BackendTotals {
    /// Adds up what the workers counted.
    pub fn sum(counters: &[Padded<BackendCounters>]) -> Self {
        let mut sum = Self::default();
        for Padded(worker) in counters {
            sum.connections += worker.connections.value();
            sum.connect_failures += worker.connect_failures.value();
            sum.bytes_up += worker.bytes_up.value();
            sum.bytes_down += worker.bytes_down.value();
            worker.connect_time.add_to(&mut sum.connect_time);
            worker.duration.add_to(&mut sum.duration);
        }
        sum.connect_us_mean = mean_us(&sum.connect_time);
        sum.duration_us_mean = mean_us(&sum.duration);
        sum
    }
}

/// The mean of all durations, if there was one.
pub fn mean_us(sum: &HistogramSum) -> Option<u64> {
    sum.sum_us.checked_div(sum.buckets.iter().sum())
}

/// Whether a number only rises, and what it is shown in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MetricKind {
    Counter,
    Gauge,
    /// A gauge kept in microseconds and shown in seconds.
    Micros,
}

/// One number: series name, kind, help, and where it stands.
pub(super) struct Series<T>(
    pub(super) &'static str,
    pub(super) MetricKind,
    pub(super) &'static str,
    pub(super) fn(&T) -> u64,
);

macro_rules! numbers {
    ($(#[doc = $doc:literal])+ $name:ident of $counters:ident: $($field:ident = $series:literal, $kind:ident, $help:literal;)+) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
        pub struct $name { $(#[doc = $help] pub $field: u64,)+ }

        impl $name {
            /// Reads the counters.
            pub fn read(counters: &$counters) -> Self {
                Self { $($field: counters.$field.value(),)+ }
            }

            pub(super) const SERIES: &'static [Series<Self>] =
                &[$(Series($series, MetricKind::$kind, $help, |numbers| numbers.$field),)+];
        }
    };
}

numbers! {
    /// What one worker counted.
    WorkerStatus of WorkerCounters:
    connections = "sessile_worker_connections", Gauge, "Connections the worker holds now.";
    generation = "sessile_worker_generation", Gauge, "Generation of the snapshot the worker has adopted.";
    adopt_us_max = "sessile_worker_adopt_max_seconds", Micros,
        "Longest that the worker has taken to adopt a snapshot; its connections wait meanwhile.";
    steps = "sessile_worker_steps_total", Counter, "Steps of connections.";
    wakes = "sessile_worker_wakes_total", Counter, "Times the worker left epoll_wait.";
    stale_events = "sessile_worker_stale_events_total", Counter, "Events for connections that no longer existed.";
    accept_paused_limit = "sessile_accept_paused_limit_total", Counter,
        "Times accept paused because a connection limit was reached.";
    accept_paused_descriptors = "sessile_accept_paused_descriptors_total", Counter,
        "Times accept paused because descriptors ran out.";
    accept_paused_now = "sessile_accept_paused", Gauge, "Whether the worker's accept is paused now; the backlog waits.";
    panics = "sessile_worker_panics_total", Counter, "Steps that panicked; each reset one connection.";
    stuck = "sessile_worker_stuck_total", Counter, "Turns that took longer than 100 ms.";
    bytes_spliced = "sessile_worker_spliced_bytes_total", Counter, "Bytes moved by splice.";
    pipes = "sessile_worker_pipes", Gauge, "Pipes the worker holds now.";
    keyless = "sessile_keyless_connections_total", Counter,
        "Connections served without a key because PROXY announced none.";
    handed_over = "sessile_worker_handed_over_total", Counter, "Connections handed to another worker.";
    log_dropped = "sessile_log_dropped_total", Counter, "Log records dropped because the writer did not keep up.";
}

numbers! {
    /// What the conversations of one worker counted.
    RuntimeStatus of ConversationCounters:
    conversations = "sessile_conversations", Gauge, "Terminated connections and those whose requests are read, now.";
    handshakes = "sessile_tls_handshakes_total", Counter, "TLS handshakes made with clients.";
    resumed = "sessile_tls_handshakes_resumed_total", Counter, "TLS handshakes that resumed a session.";
    requests = "sessile_requests_total", Counter, "Requests whose head was read and understood.";
    reused = "sessile_requests_reused_total", Counter,
        "Requests that went over a connection to the backend that an earlier one had opened.";
    upgrades = "sessile_upgrades_total", Counter, "Connections that became something else by Upgrade.";
    answers = "sessile_answers_total", Counter, "Requests that were answered here and by no backend.";
    cookies_valid = "sessile_cookies_valid_total", Counter, "Cookies that named a backend of the pool.";
    cookies_expired = "sessile_cookies_expired_total", Counter, "Cookies too long unused, or too old.";
    cookies_forged = "sessile_cookies_forged_total", Counter, "Cookies that nobody who holds a key has written.";
    cookies_other_pool = "sessile_cookies_other_pool_total", Counter, "Cookies of another pool with the same keys.";
    cookies_removed = "sessile_cookies_removed_total", Counter, "Cookies for a backend that the pool has no more.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_of_this_process_are_counted() {
        let before = Descriptors::of_this_process().unwrap();
        let held: Vec<_> = (0..200).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let with = Descriptors::of_this_process().unwrap();
        assert!(with.open >= before.open + 100, "{before:?} {with:?}"); // other tests open and close theirs
        assert!(with.open <= with.max);
        drop(held);
    }

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
