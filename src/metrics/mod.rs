//! The Prometheus page: [`Exporter`] renders a [`Status`].
//!
//! Counts nothing itself, and keeps the series of the last scrape in a `Page`. Invariants: a page shows exactly the
//! series of its status; names end with their unit, and begin with `sessile_` or, where every process has them, with
//! `process_`; every series has a help text; label values come from the configuration and its certificates, where names
//! need no escaping, or from closed lists, never from a client.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::http::Refused;
use crate::outcome::Ended;

mod catalog;
mod fleet;
mod fleet_status;
mod page;
mod pools;
mod process;
mod requests;
mod rows;
mod splits;
pub mod status;
mod store_status;
#[cfg(test)]
mod tests;
mod threads;
mod totals;

pub use catalog::{MetricFamily, catalog};
pub use status::Status;
pub use totals::connect_time;

use crate::counters::BUCKETS_US;
use page::{Page, labels};
use rows::{Rows, seconds};
use status::{RuntimeStatus, WorkerStatus};
use threads::{MetricKind, Series};

/// The content type of the page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Renders the page, once per scrape.
pub struct Exporter(Mutex<Page>);

impl Default for Exporter {
    fn default() -> Self {
        Self(Mutex::new(Page::new()))
    }
}

impl Exporter {
    /// Returns the page of this status, with exactly its series.
    pub fn render(&self, status: &Status) -> String {
        let mut page = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !page.fill(|page| write(page, status)) {
            *page = Page::new();
            page.fill(|page| write(page, status));
        }
        page.text()
    }
}

fn write(page: &mut Page, status: &Status) {
    process(page, status);
    reloads(page, status);
    listeners(page, status);
    requests::of_listeners(&mut page.rows, status);
    splits::write(&mut page.rows, status);
    pools::write(&mut page.rows, status);
    store(page, status);
    fleet::write(page, status);
    workers(page, status);
}

fn process(page: &mut Page, status: &Status) {
    page.gauge(
        "sessile_build_info",
        "Version of the running binary; the value is always 1.",
        [(labels([("version", &status.version)]), 1)],
    );
    page.gauge("sessile_ready", "1 while /readyz returns 200, else 0.", [([], status.ready.into())]);
    page.gauge("sessile_uptime_seconds", "Seconds since the process started.", [([], status.uptime_s)]);
    let draining = &status.process.draining;
    page.gauge(
        "sessile_draining_processes",
        "Other processes with the same admin socket that stop.",
        [([], draining.len() as u64)],
    );
    page.gauge(
        "sessile_draining_connections",
        "Connections that are open at other processes with the same admin socket that stop.",
        [([], draining.iter().map(|process| process.open).sum())],
    );
    page.gauge(
        "sessile_permits",
        "Connections that hold a permit now, over all listeners.",
        [([], status.admission.open)],
    );
    page.gauge("sessile_permits_max", "Limit of connections that may be open at once.", [([], status.admission.max)]);
    page.gauge(
        "sessile_sources",
        "Client addresses that are counted for per-source limits; 0 while those limits are off.",
        [([], status.admission.sources)],
    );
    hellos(page, &status.admission);
    page.counter(
        "sessile_log_lost_total",
        "Access log records lost because the output refused them.",
        [([], status.log_lost)],
    );
    page.counter(
        "sessile_messages_lost_total",
        "Messages about the process that standard error did not take.",
        [([], status.messages_lost)],
    );
    page.counter(
        "sessile_permits_max_reached_total",
        "Times that the limit of connections was reached; clients waited in the backlog.",
        [([], status.admission.limit_reached)],
    );
    files(page, status);
    page.counter(
        "sessile_admin_peers_refused_total",
        "Connections to admin.http that were closed because admin.allow does not have their peer.",
        [([], status.admin_peers_refused)],
    );
    page.rows.gauge(
        "sessile_certificate_not_after_seconds",
        "When the first of the certificates of a name ends, or one of its issuers, in seconds since 1970.",
        status.certificates.iter().map(|one| (labels([("name", &one.name)]), one.not_after_unix_s)),
    );
    usage(&mut page.rows, status);
}

/// The files that a restart reads.
fn files(page: &mut Page, status: &Status) {
    page.counter(
        "sessile_stick_table_file_failures_total",
        "Writes of the stick-table file that failed; absent without such a file.",
        status.stick_table_file.iter().map(|file| ([], file.failures)),
    );
    page.counter(
        "sessile_state_file_failures_total",
        "Writes of the state file that failed; absent without such a file.",
        status.state_file.iter().map(|file| ([], file.failures)),
    );
    page.gauge(
        "sessile_stick_table_file_written_timestamp_seconds",
        "Time of the last write of the stick-table file, in seconds since 1970; absent before the first.",
        status.stick_table_file.iter().filter_map(|file| Some(([], file.written_unix_s?))),
    );
    page.gauge(
        "sessile_state_file_written_timestamp_seconds",
        "Time of the last write of the state file, in seconds since 1970; absent before the first.",
        status.state_file.iter().filter_map(|file| Some(([], file.written_unix_s?))),
    );
}

/// What the client libraries of Prometheus tell of any process, by their names.
fn usage(rows: &mut Rows, status: &Status) {
    let usage = status.usage.as_ref();
    rows.amount(
        "process_cpu_seconds_total",
        "Total user and system CPU time spent in seconds.",
        usage.map(|usage| ([], usage.cpu_s)),
    );
    rows.gauge(
        "process_resident_memory_bytes",
        "Resident memory size in bytes.",
        usage.map(|usage| ([], usage.resident_bytes)),
    );
    rows.gauge(
        "process_virtual_memory_bytes",
        "Virtual memory size in bytes.",
        usage.map(|usage| ([], usage.virtual_bytes)),
    );
    rows.level(
        "process_start_time_seconds",
        "Start time of the process since unix epoch in seconds.",
        usage.map(|usage| ([], usage.start_unix_s)),
    );
    let descriptors = status.descriptors;
    rows.gauge("process_open_fds", "Number of open file descriptors.", descriptors.map(|all| ([], all.open)));
    rows.gauge("process_max_fds", "Maximum number of open file descriptors.", descriptors.map(|all| ([], all.max)));
}

fn hellos(page: &mut Page, admission: &status::AdmissionStatus) {
    page.gauge(
        "sessile_hello_memory_bytes",
        "Memory that ClientHellos above 4 KiB take now, over all connections.",
        [([], admission.hello_memory_bytes)],
    );
    page.gauge(
        "sessile_hello_memory_max_bytes",
        "Limit of the memory for ClientHellos above 4 KiB; at the limit, longer hellos are refused as hello_memory.",
        [([], admission.hello_memory_max_bytes)],
    );
}

fn reloads(page: &mut Page, status: &Status) {
    let reloads = &status.reloads;
    page.gauge(
        "sessile_generation",
        "Number of the configuration in force; every accepted reload adds 1.",
        [([], status.generation)],
    );
    page.gauge(
        "sessile_generations_alive",
        "Configurations still in memory: 1, or 2 during a reload.",
        [([], status.generations_alive as u64)],
    );
    page.gauge(
        "sessile_digest_info",
        "Digest of the placement of all pools; instances with equal digests place alike.",
        [(labels([("digest", &status.digest)]), 1)],
    );
    page.counter(
        "sessile_reloads_total",
        "Reloads since the start, by verdict.",
        [("accepted", reloads.accepted), ("refused", reloads.refused)]
            .map(|(verdict, count)| (labels([("verdict", verdict)]), count)),
    );
    page.gauge(
        "sessile_reload_last_accepted",
        "1 if the last reload was accepted, else 0; 1 before the first reload.",
        [([], reloads.last_accepted.into())],
    );
    page.gauge(
        "sessile_reload_last_timestamp_seconds",
        "Time of the last reload, or of the start, in seconds since 1970.",
        [([], reloads.last_unix_s)],
    );
}

fn listeners(page: &mut Page, status: &Status) {
    let listeners = || status.listeners.iter().map(|listener| (listener, labels([("listener", &listener.name)])));
    page.counter(
        "sessile_connections_accepted_total",
        "Connections that the listener accepted.",
        listeners().map(|(listener, labels)| (labels, listener.totals.accepted)),
    );
    page.gauge(
        "sessile_connections_open",
        "Connections of the listener that are open now.",
        listeners().map(|(listener, labels)| (labels, listener.open)),
    );
    page.gauge(
        "sessile_connections_max",
        "Limit of open connections of the listener; absent without a limit of its own.",
        listeners().filter_map(|(listener, labels)| Some((labels, listener.max?))),
    );
    page.counter(
        "sessile_connections_max_reached_total",
        "Times that the limit of open connections of the listener was reached; clients waited in the backlog.",
        listeners().map(|(listener, labels)| (labels, listener.limit_reached)),
    );
    let endings = || {
        let all = Ended::ALL.iter().copied();
        all.flat_map(|ended| status.listeners.iter().map(move |listener| (ended, listener))).map(|(ended, listener)| {
            (ended, &listener.name, listener.totals.ended.get(ended.word()).copied().unwrap_or(0))
        })
    };
    page.counter(
        "sessile_connections_ended_total",
        "Connections that ended, by outcome and by the side at fault.",
        endings().map(|(ended, listener, count)| {
            let (outcome, fault) = (ended.word(), ended.fault().word());
            (labels([("listener", listener), ("outcome", outcome), ("fault", fault)]), count)
        }),
    );
    page.counter(
        "sessile_connections_refused_total",
        "Connections refused before any backend was tried, by reason.",
        endings()
            .filter(|(ended, ..)| ended.refused())
            .map(|(ended, listener, count)| (labels([("listener", listener), ("reason", ended.word())]), count)),
    );
}

fn store(page: &mut Page, status: &Status) {
    let store = || status.store.iter();
    page.gauge(
        "sessile_store_up",
        "1 while the shared store is used, 0 while its circuit breaker is open.",
        store().map(|store| ([], (store.state == "working").into())),
    );
    page.counter(
        "sessile_store_opened_total",
        "Times that the circuit breaker of the shared store opened.",
        store().map(|store| ([], store.opened)),
    );
    page.counter(
        "sessile_store_requests_total",
        "Requests to the shared store, by kind and result.",
        store().flat_map(|store| &store.requests).flat_map(|(kind, outcomes)| {
            outcomes.iter().map(move |(outcome, count)| (labels([("kind", kind), ("result", outcome)]), *count))
        }),
    );
    page.gauge(
        "sessile_store_pending",
        "Entries that wait to be written until the shared store is back.",
        store().map(|store| ([], store.pending)),
    );
    page.counter(
        "sessile_store_reconciled_total",
        "Entries written to the shared store after it was back.",
        store().map(|store| ([], store.reconciled)),
    );
    page.counter(
        "sessile_store_overflow_total",
        "Entries lost for want of room while the shared store was away.",
        store().map(|store| ([], store.overflow)),
    );
    page.rows.histogram(
        "sessile_store_latency_seconds",
        "Time of one exchange with the shared store.",
        &BUCKETS_US,
        store().map(|store| (labels([("kind", "redis")]), &store.latency)),
    );
}

fn workers(page: &mut Page, status: &Status) {
    by_worker(page, WorkerStatus::SERIES, &status.workers);
    by_worker(page, RuntimeStatus::SERIES, &status.conversations);
    let by_word = |counts: &BTreeMap<String, u64>| {
        let count = |why: &Refused| counts.get(why.word()).copied().unwrap_or(0);
        Refused::ALL.iter().map(|why| (labels([("reason", why.word())]), count(why))).collect::<Vec<_>>()
    };
    let limited = |ended: &Ended| status.requests_limited.get(ended.word()).copied().unwrap_or(0);
    page.counter(
        "sessile_requests_refused_total",
        "HTTP requests that were refused, by reason; the access log has the same word.",
        by_word(&status.requests_refused),
    );
    page.counter(
        "sessile_requests_limited_total",
        "HTTP requests that a limit of requests ended, by the ending; the access log has the same word.",
        Ended::OF_REQUEST_LIMITS.iter().map(|ended| (labels([("ended", ended.word())]), limited(ended))),
    );
    page.counter(
        "sessile_responses_refused_total",
        "HTTP responses of backends that were refused, by reason; the access log has the same word.",
        by_word(&status.responses_refused),
    );
}

fn by_worker<T>(page: &mut Page, all: &[Series<T>], numbers: &[T]) {
    let names: Vec<_> = (0..numbers.len()).map(|index| index.to_string()).collect();
    for series in all {
        let samples = names.iter().zip(numbers);
        let samples = samples.map(|(name, numbers)| (labels([("worker", name)]), (series.3)(numbers)));
        match series.1 {
            MetricKind::Counter => page.counter(series.0, series.2, samples),
            MetricKind::Gauge => page.gauge(series.0, series.2, samples),
            MetricKind::Micros => page.level(series.0, series.2, samples.map(|(labels, us)| (labels, seconds(us)))),
        }
    }
}
