//! The Prometheus page: [`Exporter`] renders a [`Status`].
//!
//! Counts nothing itself, and keeps the series of the last scrape in a `Page`. Invariants: a page shows exactly the
//! series of its status; names begin with `sessile_` and end with their unit; every series has a help text; label values
//! come from the configuration, where names need no escaping, or from closed lists, never from a client.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::http::Refused;
use crate::outcome::Ended;

mod page;
mod process;
pub mod status;
#[cfg(test)]
mod tests;

pub use status::Status;

use page::{MetricLabels, Page, labels, seconds};
use status::{BackendStatus, MetricKind, PoolStatus, RuntimeStatus, Series, WorkerStatus};

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
    pools(page, status);
    stick_tables(page, status);
    backends(page, status);
    store(page, status);
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
        "Connections that are open at those processes.",
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
        "Access log records lost because writing to standard output failed.",
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
    let descriptors = status.descriptors;
    page.gauge("sessile_descriptors", "File descriptors that the process has open.", descriptors.map(|d| ([], d.open)));
    page.gauge(
        "sessile_descriptors_max",
        "Soft limit of file descriptors (RLIMIT_NOFILE).",
        descriptors.map(|d| ([], d.max)),
    );
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

fn pools(page: &mut Page, status: &Status) {
    page.gauge(
        "sessile_pool_digest_info",
        "Digest of the placement of the pool; equal digests place alike.",
        status.pools.iter().map(|pool| (labels([("pool", &pool.name), ("digest", &pool.digest)]), 1)),
    );
    page.counter(
        "sessile_sticky_breaks_total",
        "Clients that got another backend than the one that a cookie or the stick table knew them at, by cause.",
        status.pools.iter().flat_map(|pool| {
            pool.breaks.iter().map(|(cause, count)| (labels([("pool", &pool.name), ("cause", cause)]), *count))
        }),
    );
    page.counter(
        "sessile_dropped_set_cookies_total",
        "Set-Cookie lines of backends with the name of the balancer's own cookie, which do not reach clients.",
        status.pools.iter().map(|pool| (labels([("pool", &pool.name)]), pool.dropped_cookies)),
    );
    page.counter(
        "sessile_cookies_total",
        "Requests with the cookie of the pool, by the verdict on it; fresh and due are valid.",
        status.pools.iter().flat_map(|pool| {
            pool.cookies.iter().map(|(verdict, count)| (labels([("pool", &pool.name), ("verdict", verdict)]), *count))
        }),
    );
}

fn stick_tables(page: &mut Page, status: &Status) {
    let stick_tables =
        || status.stick_tables.iter().map(|stick_table| (stick_table, labels([("stick_table", &stick_table.name)])));
    page.gauge(
        "sessile_stick_table_bytes",
        "Memory of the stick table, in bytes.",
        stick_tables().map(|(stick_table, labels)| (labels, stick_table.bytes)),
    );
    page.gauge(
        "sessile_stick_table_known",
        "Entries of the stick table, by the highest time since they were last seen.",
        status.stick_tables.iter().flat_map(|stick_table| {
            let ages = stick_table.known_by_age.iter();
            ages.map(|(age, count)| (labels([("stick_table", &stick_table.name), ("age", age)]), *count))
        }),
    );
    page.gauge(
        "sessile_stick_table_displaced",
        "Entries that placement alone would send to another backend.",
        stick_tables().map(|(stick_table, labels)| (labels, stick_table.displaced)),
    );
    page.gauge(
        "sessile_stick_table_learned",
        "Entries of cookies that were learned from applications.",
        stick_tables().map(|(stick_table, labels)| (labels, stick_table.learned)),
    );
    page.counter(
        "sessile_stick_table_evicted_displaced_total",
        "Entries lost for want of room, of those that placement alone would send to another backend.",
        stick_tables().map(|(stick_table, labels)| (labels, stick_table.evicted_displaced)),
    );
    page.counter(
        "sessile_stick_table_refused_total",
        "Entries that found no room, of those that placement alone would send to another backend.",
        stick_tables().map(|(stick_table, labels)| (labels, stick_table.refused)),
    );
    page.gauge(
        "sessile_stick_table_full",
        "1 if the stick table has lost an entry for want of room in the last ten minutes, else 0.",
        stick_tables().map(|(stick_table, labels)| (labels, stick_table.full.into())),
    );
    page.level(
        "sessile_stick_table_hottest_ratio",
        "Share of the most frequent key in the picks of about the last twenty minutes, 0 to 1.",
        stick_tables().map(|(stick_table, labels)| (labels, stick_table.hottest_share)),
    );
    page.level(
        "sessile_stick_table_hottest_error_ratio",
        "The most by which sessile_stick_table_hottest_ratio may be wrong, up or down; 0 if every pick was counted.",
        stick_tables().map(|(stick_table, labels)| (labels, stick_table.hottest_error)),
    );
}

/// Name, help text and value of a series that every backend has.
type BackendSeries = (&'static str, &'static str, fn(&BackendStatus) -> u64);

const BACKEND_COUNTERS: [BackendSeries; 4] = [
    ("sessile_backend_connections_total", "Connections for which a connect to the backend succeeded.", |b| {
        b.totals.connections
    }),
    ("sessile_backend_connect_failures_total", "Connects to the backend that failed.", |b| b.totals.connect_failures),
    ("sessile_backend_up_bytes_total", "Bytes from clients to the backend.", |b| b.totals.bytes_up),
    ("sessile_backend_down_bytes_total", "Bytes from the backend to clients.", |b| b.totals.bytes_down),
];

const BACKEND_GAUGES: [BackendSeries; 6] = [
    ("sessile_backend_leases", "Connections that hold a lease on the backend now: its load.", |b| b.leases),
    ("sessile_backend_up", "1 while health checks leave the backend in service, else 0.", |b| b.up.into()),
    ("sessile_backend_ejected", "1 while the backend is ejected because connects failed, else 0.", |b| {
        b.ejected.into()
    }),
    (
        "sessile_backend_damped",
        "1 while the backend is down although its checks are good, because it flapped, else 0.",
        |b| (b.state == "damped").into(),
    ),
    ("sessile_backend_drain_seconds", "Seconds since a command drained the backend; 0 while none does.", |b| {
        b.drain_s.unwrap_or(0)
    }),
    ("sessile_backend_weight", "Weight of the backend in the configuration.", |b| b.weight.into()),
];

fn names<'a>(pool: &'a PoolStatus, backend: &'a BackendStatus) -> MetricLabels<'a, 2> {
    [("pool", &pool.name), ("backend", &backend.name)]
}

fn backends(page: &mut Page, status: &Status) {
    let backends = || status.pools.iter().flat_map(|pool| pool.backends.iter().map(move |backend| (pool, backend)));
    for (series, help, read) in BACKEND_COUNTERS {
        page.counter(series, help, backends().map(|(pool, backend)| (names(pool, backend), read(backend))));
    }
    for (series, help, read) in BACKEND_GAUGES {
        page.gauge(series, help, backends().map(|(pool, backend)| (names(pool, backend), read(backend))));
    }
    page.histogram(
        "sessile_backend_connect_time_seconds",
        "Time of connects to the backend that succeeded.",
        backends().map(|(pool, backend)| (names(pool, backend), &backend.totals.connect_time)),
    );
    page.histogram(
        "sessile_backend_duration_seconds",
        "Time of connections to the backend, from accept to end.",
        backends().map(|(pool, backend)| (names(pool, backend), &backend.totals.duration)),
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
    page.histogram(
        "sessile_store_latency_seconds",
        "Time of one exchange with the shared store.",
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
    page.counter(
        "sessile_requests_refused_total",
        "HTTP requests that were refused, by reason; the access log has the same word.",
        by_word(&status.requests_refused),
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
