//! The Prometheus page: a pure function of [`Status`].
//!
//! Counts nothing itself and keeps no state: a recorder lives for one scrape, so a listener or backend that was removed
//! is gone from the next page, and what was carried over by a reload keeps its totals. Invariants: names begin with
//! `sessile_` and end with their unit; every series has a help text; label values come from the configuration, whose
//! names need no escaping, or from closed lists, never from a client.

use std::borrow::Cow;
use std::fmt::Write;

use metrics::{Counter, Gauge, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use crate::counters::{BUCKETS_US, HistogramSum};
use crate::outcome::Ended;

pub mod status;
#[cfg(test)]
mod tests;

pub use status::Status;
use status::{BackendStatus, MetricKind, PoolStatus, RuntimeStatus, Series, WorkerStatus};

/// The content type of the page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Renders the page.
pub fn render(status: &Status) -> String {
    let mut page = Page::new();
    process(&mut page, status);
    reloads(&mut page, status);
    listeners(&mut page, status);
    pools(&mut page, status);
    stick_tables(&mut page, status);
    backends(&mut page, status);
    store(&mut page, status);
    workers(&mut page, status);
    page.finish()
}

fn process(page: &mut Page, status: &Status) {
    page.gauge("sessile_build_info", "Version of the binary.", [(labels([("version", &status.version)]), 1)]);
    page.gauge("sessile_ready", "Whether /readyz says yes.", [(vec![], status.ready.into())]);
    page.gauge("sessile_uptime_seconds", "Since the process started.", [(vec![], status.uptime_s)]);
    page.gauge("sessile_permits", "Connections admitted now.", [(vec![], status.admission.open)]);
    page.gauge("sessile_permits_max", "Connections that may be admitted at once.", [(vec![], status.admission.max)]);
    page.gauge(
        "sessile_sources",
        "Client addresses tracked for per-source limits; 0 while those are off.",
        [(vec![], status.admission.sources)],
    );
    page.counter(
        "sessile_log_lost_total",
        "Connection log records lost because standard output failed.",
        [(vec![], status.log_lost)],
    );
    let descriptors = status.descriptors;
    page.gauge("sessile_descriptors", "Open descriptors.", descriptors.map(|d| (vec![], d.open)));
    page.gauge("sessile_descriptors_max", "Soft limit of open descriptors.", descriptors.map(|d| (vec![], d.max)));
}

fn reloads(page: &mut Page, status: &Status) {
    let reloads = &status.reloads;
    page.gauge("sessile_generation", "Raised by every accepted reload.", [(vec![], status.generation)]);
    page.gauge(
        "sessile_generations_alive",
        "Snapshots not yet dropped: 1, or 2 during a reload.",
        [(vec![], status.generations_alive as u64)],
    );
    page.gauge(
        "sessile_digest_info",
        "Digest of all placements; equal digests place alike.",
        [(labels([("digest", &status.digest)]), 1)],
    );
    page.counter(
        "sessile_reloads_total",
        "Reloads by verdict.",
        [("accepted", reloads.accepted), ("refused", reloads.refused)]
            .map(|(verdict, count)| (labels([("verdict", verdict)]), count)),
    );
    page.gauge(
        "sessile_reload_last_accepted",
        "Whether the last reload, or the start, was accepted.",
        [(vec![], reloads.last_accepted.into())],
    );
    page.gauge(
        "sessile_reload_last_timestamp_seconds",
        "When the last reload, or the start, was judged.",
        [(vec![], reloads.last_unix_s)],
    );
}

fn listeners(page: &mut Page, status: &Status) {
    let listeners = || status.listeners.iter().map(|listener| (listener, labels([("listener", &listener.name)])));
    page.counter(
        "sessile_connections_accepted_total",
        "Connections accepted.",
        listeners().map(|(listener, labels)| (labels, listener.totals.accepted)),
    );
    page.gauge(
        "sessile_connections_open",
        "Connections open now.",
        listeners().map(|(listener, labels)| (labels, listener.open)),
    );
    page.gauge(
        "sessile_connections_max",
        "Connections the listener may have open at once, where it has a limit of its own.",
        listeners().filter_map(|(listener, labels)| Some((labels, listener.max?))),
    );
    let endings = || {
        let all = Ended::ALL.iter().copied();
        all.flat_map(|ended| status.listeners.iter().map(move |listener| (ended, listener))).map(|(ended, listener)| {
            (ended, &listener.name, listener.totals.ended.get(ended.word()).copied().unwrap_or(0))
        })
    };
    page.counter(
        "sessile_connections_ended_total",
        "Connections ended, by outcome and by whose fault it was.",
        endings().map(|(ended, listener, count)| {
            let (outcome, fault) = (ended.word(), ended.fault().word());
            (labels([("listener", listener), ("outcome", outcome), ("fault", fault)]), count)
        }),
    );
    page.counter(
        "sessile_connections_refused_total",
        "Connections turned away before any backend was tried, by reason.",
        endings()
            .filter(|(ended, ..)| ended.refused())
            .map(|(ended, listener, count)| (labels([("listener", listener), ("reason", ended.word())]), count)),
    );
}

fn pools(page: &mut Page, status: &Status) {
    page.gauge(
        "sessile_pool_digest_info",
        "Digest of the pool's placement; equal digests place alike.",
        status.pools.iter().map(|pool| (labels([("pool", &pool.name), ("digest", &pool.digest)]), 1)),
    );
    page.counter(
        "sessile_sticky_breaks_total",
        "Known keys that got another backend, by cause.",
        status.pools.iter().flat_map(|pool| {
            let of_cause = |(cause, count): (&String, &u64)| (labels([("pool", &pool.name), ("cause", cause)]), *count);
            pool.breaks.iter().map(of_cause)
        }),
    );
}

fn stick_tables(page: &mut Page, status: &Status) {
    let stick_tables =
        || status.stick_tables.iter().map(|stick_table| (stick_table, labels([("stick_table", &stick_table.name)])));
    page.gauge(
        "sessile_stick_table_bytes",
        "Size of the stick table.",
        stick_tables().map(|(stick_table, labels)| (labels, stick_table.bytes)),
    );
    page.gauge(
        "sessile_stick_table_known",
        "Keys whose backend is remembered, by the time since they were last seen, at most.",
        status.stick_tables.iter().flat_map(|stick_table| {
            let of_age =
                |(age, count): (&String, &u64)| (labels([("stick_table", &stick_table.name), ("age", age)]), *count);
            stick_table.known_by_age.iter().map(of_age)
        }),
    );
    page.gauge(
        "sessile_stick_table_displaced",
        "Remembered keys that placement alone would not find.",
        stick_tables().map(|(stick_table, labels)| (labels, stick_table.displaced)),
    );
    page.gauge(
        "sessile_stick_table_learned",
        "Remembered cookies of applications.",
        stick_tables().map(|(stick_table, labels)| (labels, stick_table.learned)),
    );
    page.counter(
        "sessile_stick_table_evicted_displaced_total",
        "Remembered keys that placement would not find, and that had to give way.",
        stick_tables().map(|(stick_table, labels)| (labels, stick_table.evicted_displaced)),
    );
    page.level(
        "sessile_stick_table_hottest_ratio",
        "Share of the picks of about the last twenty minutes that is the most frequent key's.",
        stick_tables().map(|(stick_table, labels)| (labels, stick_table.hottest_share)),
    );
}

/// Name, help and number of a series that each backend has.
type BackendSeries = (&'static str, &'static str, fn(&BackendStatus) -> u64);

const BACKEND_COUNTERS: [BackendSeries; 4] = [
    ("sessile_backend_connections_total", "Connections that reached the backend.", |b| b.totals.connections),
    ("sessile_backend_connect_failures_total", "Connect attempts that failed.", |b| b.totals.connect_failures),
    ("sessile_backend_up_bytes_total", "Bytes from clients to the backend.", |b| b.totals.bytes_up),
    ("sessile_backend_down_bytes_total", "Bytes from the backend to clients.", |b| b.totals.bytes_down),
];

const BACKEND_GAUGES: [BackendSeries; 4] = [
    ("sessile_backend_leases", "Load: connections that hold a lease on the backend now.", |b| b.leases),
    ("sessile_backend_up", "Whether health checks leave the backend in service.", |b| b.up.into()),
    ("sessile_backend_ejected", "Whether failed connects have the backend set aside.", |b| b.ejected.into()),
    ("sessile_backend_weight", "Configured weight.", |b| b.weight.into()),
];

fn backends(page: &mut Page, status: &Status) {
    let backends = || status.pools.iter().flat_map(|pool| pool.backends.iter().map(move |backend| (pool, backend)));
    let name = |pool: &PoolStatus, backend: &BackendStatus| labels([("pool", &pool.name), ("backend", &backend.name)]);
    for (series, help, read) in BACKEND_COUNTERS {
        page.counter(series, help, backends().map(|(pool, backend)| (name(pool, backend), read(backend))));
    }
    for (series, help, read) in BACKEND_GAUGES {
        page.gauge(series, help, backends().map(|(pool, backend)| (name(pool, backend), read(backend))));
    }
    page.histogram(
        "sessile_backend_connect_time_seconds",
        "Time of connects that succeeded.",
        backends().map(|(pool, backend)| (name(pool, backend), &backend.totals.connect_time)),
    );
    page.histogram(
        "sessile_backend_duration_seconds",
        "Duration of connections, from accept to end.",
        backends().map(|(pool, backend)| (name(pool, backend), &backend.totals.duration)),
    );
}

fn store(page: &mut Page, status: &Status) {
    let store = || status.store.iter();
    page.gauge(
        "sessile_store_up",
        "Whether the shared store is asked; 0 while the breaker is open.",
        store().map(|store| (vec![], (store.state == "working").into())),
    );
    page.counter(
        "sessile_store_opened_total",
        "Times the shared store had to be left alone after it had worked.",
        store().map(|store| (vec![], store.opened)),
    );
    page.counter(
        "sessile_store_requests_total",
        "What was asked of the shared store, by kind and by what became of it.",
        store().flat_map(|store| &store.requests).flat_map(|(kind, outcomes)| {
            outcomes.iter().map(move |(outcome, count)| (labels([("kind", kind), ("result", outcome)]), *count))
        }),
    );
    page.gauge(
        "sessile_store_pending",
        "Entries learned while the shared store is away, that it will be told.",
        store().map(|store| (vec![], store.pending)),
    );
    page.counter(
        "sessile_store_reconciled_total",
        "Entries that the shared store was told when it was back.",
        store().map(|store| (vec![], store.reconciled)),
    );
    page.counter(
        "sessile_store_overflow_total",
        "Entries learned while the shared store was away, and lost for want of room.",
        store().map(|store| (vec![], store.overflow)),
    );
    page.histogram(
        "sessile_store_latency_seconds",
        "Time of an exchange with the shared store.",
        store().map(|store| (labels([("kind", "redis")]), &store.latency)),
    );
}

fn workers(page: &mut Page, status: &Status) {
    by_worker(page, WorkerStatus::SERIES, &status.workers);
    by_worker(page, RuntimeStatus::SERIES, &status.conversations);
}

fn by_worker<T>(page: &mut Page, all: &[Series<T>], numbers: &[T]) {
    for series in all {
        let samples = numbers.iter().enumerate();
        let samples = samples.map(|(index, numbers)| (labels([("worker", &index.to_string())]), (series.3)(numbers)));
        match series.1 {
            MetricKind::Counter => page.counter(series.0, series.2, samples),
            MetricKind::Gauge => page.gauge(series.0, series.2, samples),
            MetricKind::Micros => page.level(series.0, series.2, samples.map(|(labels, us)| (labels, seconds(us)))),
        }
    }
}

type MetricLabels = Vec<Label>;

fn labels<const N: usize>(pairs: [(&'static str, &str); N]) -> MetricLabels {
    pairs.into_iter().map(|(name, value)| Label::new(name, value.to_owned())).collect()
}

/// A page being written: counters and gauges by the exporter, histograms by us, because ours are filled already.
struct Page {
    recorder: PrometheusRecorder,
    histograms: String,
}

impl Page {
    const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

    fn new() -> Self {
        Self { recorder: PrometheusBuilder::new().build_recorder(), histograms: String::new() }
    }

    fn counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (MetricLabels, u64)>,
    ) {
        self.recorder.describe_counter(name.into(), None, help.into());
        for (labels, value) in samples {
            let counter: Counter = self.recorder.register_counter(&Key::from_parts(name, labels), &Self::METADATA);
            counter.absolute(value);
        }
    }

    fn gauge(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (MetricLabels, u64)>,
    ) {
        self.level(name, help, samples.into_iter().map(|(labels, value)| (labels, value as f64)));
    }

    fn level(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl IntoIterator<Item = (MetricLabels, f64)>,
    ) {
        self.recorder.describe_gauge(name.into(), None, help.into());
        for (labels, value) in samples {
            let gauge: Gauge = self.recorder.register_gauge(&Key::from_parts(name, labels), &Self::METADATA);
            gauge.set(value);
        }
    }

    fn histogram<'a>(
        &mut self,
        name: &'static str,
        help: &'static str,
        samples: impl Iterator<Item = (MetricLabels, &'a HistogramSum)>,
    ) {
        let mut samples = samples.peekable();
        if samples.peek().is_none() {
            return;
        }
        let out = &mut self.histograms;
        // Writing to a String does not fail.
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
        for (labels, sum) in samples {
            let labels: Vec<_> = labels.iter().map(|l| format!("{}=\"{}\"", l.key(), l.value())).collect();
            let labels = labels.join(",");
            let mut count = 0;
            for (index, bucket) in sum.buckets.iter().enumerate() {
                count += bucket;
                let bound = BUCKETS_US.get(index).map_or(Cow::from("+Inf"), |us| seconds(*us).to_string().into());
                let _ = writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}");
            }
            let _ = writeln!(out, "{name}_sum{{{labels}}} {}", seconds(sum.sum_us));
            let _ = writeln!(out, "{name}_count{{{labels}}} {count}");
        }
        out.push('\n');
    }

    fn finish(self) -> String {
        let mut page = self.recorder.handle().render();
        page.push_str(&self.histograms);
        page
    }
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}
