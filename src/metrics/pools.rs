//! The series of pools, stick tables and backends: nearly all of a large page.
//!
//! Counts nothing itself. Invariants: which series a pool has follows from the configuration, and with `pools = "busy"`
//! also from whether the pool has had work: a series that a rate is taken of is there with its 0 before it moves; the
//! work grows with pools and backends, and not with entries of stick tables.

use super::page::labels;
use super::requests;
use super::rows::{Bounds, MetricLabels, Rows};
use super::status::{BackendStatus, BreakCount, PoolStatus, Status, StickTableStatus};

/// Writes the series of all pools that are shown.
pub(super) fn write(rows: &mut Rows, status: &Status) {
    let shown = Shown(status);
    pools(rows, &shown);
    requests::of_pools(rows, || shown.pools());
    queues(rows, &shown);
    sources(rows, &shown);
    backend_names(rows, &shown);
    stick_tables(rows, &shown);
    backends(rows, &shown);
}

/// The pools that a page shows, as `metrics.pools` says.
struct Shown<'s>(&'s Status);

impl<'s> Shown<'s> {
    fn pools(&self) -> impl Iterator<Item = &'s PoolStatus> {
        let busy_only = self.0.busy_pools_only;
        self.0.pools.iter().filter(move |pool| pool.busy || !busy_only)
    }

    /// The stick tables of these pools.
    fn stick_tables(&self) -> impl Iterator<Item = &'s StickTableStatus> {
        let busy_only = self.0.busy_pools_only;
        self.0.stick_tables.iter().filter(move |table| table.busy || !busy_only)
    }
}

fn pools(rows: &mut Rows, shown: &Shown<'_>) {
    rows.gauge(
        "sessile_pool_digest_info",
        "Digest of the placement of the pool; equal digests place alike.",
        shown.pools().map(|pool| (labels([("pool", &pool.name), ("digest", &pool.digest)]), 1)),
    );
    rows.counter(
        "sessile_sticky_breaks_total",
        "Clients that got another backend than the one they had, by that backend and by cause.",
        shown.pools().flat_map(|pool| {
            let moves = pool.breaks_from.iter();
            moves.map(move |BreakCount { from, cause, count }| {
                (labels([("pool", &pool.name), ("from", from), ("cause", cause)]), *count)
            })
        }),
    );
    let ordered = |pool: &PoolStatus| {
        let changed = pool.backends.iter().filter(|backend| !backend.orders.is_empty()).count();
        (changed + pool.removed.len()) as u64
    };
    rows.gauge(
        "sessile_pool_orders",
        "Backends of the pool that orders at run time have added, changed or removed; no series without one.",
        shown.pools().map(|pool| (labels([("pool", &pool.name)]), ordered(pool))).filter(|(_, count)| *count > 0),
    );
    rows.counter(
        "sessile_dropped_set_cookies_total",
        "Set-Cookie lines of backends with the name of the balancer's own cookie, which do not reach clients.",
        shown.pools().map(|pool| (labels([("pool", &pool.name)]), pool.dropped_cookies)),
    );
    rows.counter(
        "sessile_cookies_total",
        "Requests with the cookie of the pool, by the verdict on it; fresh and due are valid.",
        shown.pools().flat_map(|pool| {
            pool.cookies.iter().map(|(verdict, count)| (labels([("pool", &pool.name), ("verdict", verdict)]), *count))
        }),
    );
}

/// Bounds of waits for a place, in microseconds.
const WAIT_BOUNDS: &Bounds = &[10_000, 100_000, 500_000, 1_000_000, 5_000_000, 10_000_000, 60_000_000];

fn queues(rows: &mut Rows, shown: &Shown<'_>) {
    let queues = || shown.pools().filter_map(|pool| Some((labels([("pool", &pool.name)]), pool.queue.as_ref()?)));
    rows.gauge(
        "sessile_pool_queue",
        "New clients that wait for the first place at any full backend of the pool.",
        queues().map(|(labels, queue)| (labels, queue.waiting)),
    );
    rows.histogram(
        "sessile_pool_queue_wait_seconds",
        "Time that clients of the pool waited for a place at a full backend and got one.",
        WAIT_BOUNDS,
        queues().map(|(labels, queue)| (labels, &queue.wait)),
    );
    rows.counter(
        "sessile_pool_queue_failures_total",
        "Clients of the pool without a place: timeout, none became free within queue_timeout; full, queue_max clients waited.",
        queues().flat_map(|([pool], queue)| {
            [("timeout", queue.timeouts), ("full", queue.refusals)].map(|(why, count)| (labels([pool, ("why", why)]), count))
        }),
    );
}

fn sources(rows: &mut Rows, shown: &Shown<'_>) {
    let sources = || shown.pools().filter_map(|pool| Some((labels([("pool", &pool.name)]), pool.discover.as_ref()?)));
    rows.gauge(
        "sessile_discover_backends",
        "Backends that the source of the pool names.",
        sources().map(|(labels, source)| (labels, source.backends)),
    );
    rows.gauge(
        "sessile_discover_absent",
        "Backends that the source of the pool does not name any more, and that are still there.",
        sources().map(|(labels, source)| (labels, source.absent)),
    );
    rows.gauge(
        "sessile_discover_failed",
        "1 if what the source of the pool says is not taken, so that its last backends stay, else 0.",
        sources().map(|(labels, source)| (labels, u64::from(!source.complaint.is_empty()))),
    );
    rows.counter(
        "sessile_discover_changes_total",
        "Times that the source of the pool named other backends than before.",
        sources().map(|(labels, source)| (labels, source.changes)),
    );
    rows.counter(
        "sessile_discover_failures_total",
        "Times that what the source of the pool said was not taken.",
        sources().map(|(labels, source)| (labels, source.failures)),
    );
}

fn backend_names(rows: &mut Rows, shown: &Shown<'_>) {
    let named = || {
        let backends = shown.pools().flat_map(|pool| pool.backends.iter().map(move |backend| (pool, backend)));
        backends.filter_map(|(pool, backend)| Some((names(pool, backend), backend.resolve.as_ref()?)))
    };
    rows.gauge(
        "sessile_resolve_answers",
        "Addresses in the last answer about the name of the backend, of which one is taken.",
        named().map(|(labels, name)| (labels, name.answers.len() as u64)),
    );
    rows.gauge(
        "sessile_resolve_failed",
        "1 if what is found of the name of the backend is not taken, so that its last address stays or it is down, else 0.",
        named().map(|(labels, name)| (labels, u64::from(!name.complaint.is_empty()))),
    );
    rows.counter(
        "sessile_resolve_changes_total",
        "Times that the name of the backend had another address than before.",
        named().map(|(labels, name)| (labels, name.changes)),
    );
    rows.counter(
        "sessile_resolve_failures_total",
        "Times that what was found of the name of the backend was not taken.",
        named().map(|(labels, name)| (labels, name.failures)),
    );
}

fn stick_tables(rows: &mut Rows, shown: &Shown<'_>) {
    let stick_tables =
        || shown.stick_tables().map(|stick_table| (stick_table, labels([("stick_table", &stick_table.name)])));
    rows.gauge(
        "sessile_stick_table_bytes",
        "Memory of the stick table, in bytes.",
        stick_tables().map(|(stick_table, labels)| (labels, stick_table.bytes)),
    );
    rows.gauge(
        "sessile_stick_table_entries",
        "Entries of the stick table.",
        stick_tables().map(|(stick_table, labels)| (labels, stick_table.known)),
    );
    rows.gauge(
        "sessile_stick_table_entries_max",
        "The most entries that the stick table can have.",
        stick_tables().map(|(stick_table, labels)| (labels, stick_table.entries_max)),
    );
    rows.gauge(
        "sessile_stick_table_known",
        "Entries of the stick table, by the highest time since they were last seen.",
        shown.stick_tables().flat_map(|stick_table| {
            let ages = stick_table.known_by_age.iter();
            ages.map(|(age, count)| (labels([("stick_table", &stick_table.name), ("age", age)]), *count))
        }),
    );
    rows.gauge(
        "sessile_stick_table_displaced",
        "Entries that placement alone would send to another backend.",
        stick_tables().map(|(stick_table, labels)| (labels, stick_table.displaced)),
    );
    rows.gauge(
        "sessile_stick_table_learned",
        "Entries of cookies that were learned from applications.",
        stick_tables().map(|(stick_table, labels)| (labels, stick_table.learned)),
    );
    rows.counter(
        "sessile_stick_table_evicted_displaced_total",
        "Entries lost for want of room, of those that placement alone would send to another backend.",
        stick_tables().map(|(stick_table, labels)| (labels, stick_table.evicted_displaced)),
    );
    rows.counter(
        "sessile_stick_table_refused_total",
        "Entries that found no room, of those that placement alone would send to another backend.",
        stick_tables().map(|(stick_table, labels)| (labels, stick_table.refused)),
    );
    rows.gauge(
        "sessile_stick_table_full",
        "1 if the stick table has lost an entry for want of room in the last ten minutes, else 0.",
        stick_tables().map(|(stick_table, labels)| (labels, stick_table.full.into())),
    );
    rows.level(
        "sessile_stick_table_hottest_ratio",
        "Share of the most frequent key in the picks of about the last twenty minutes, 0 to 1.",
        stick_tables().map(|(stick_table, labels)| (labels, stick_table.hottest_share)),
    );
    rows.level(
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

/// The same, with the pools to which the series applies.
type BackendGauge = (&'static str, &'static str, fn(&PoolStatus) -> bool, fn(&BackendStatus) -> u64);

const BACKEND_GAUGES: [BackendGauge; 7] = [
    ("sessile_backend_leases", "Connections that hold a lease on the backend now: its load.", |_| true, |b| b.leases),
    (
        "sessile_backend_queue",
        "Clients that wait for a place at the backend, where they are known; absent without on_full = \"queue\".",
        |pool| pool.queue.is_some(),
        |b| b.waiting,
    ),
    ("sessile_backend_up", "1 while health checks leave the backend in service, else 0.", |_| true, |b| b.up.into()),
    (
        "sessile_backend_ejected",
        "1 while the backend is ejected because connects failed, else 0; absent with eject = \"off\".",
        |pool| pool.ejects,
        |b| b.ejected.into(),
    ),
    (
        "sessile_backend_damped",
        "1 while the backend is down although its checks are good, because it flapped, else 0; absent without checks.",
        |pool| pool.checks,
        |b| (b.state == "damped").into(),
    ),
    (
        "sessile_backend_drain_seconds",
        "Seconds since a command drained the backend; 0 while none does.",
        |_| true,
        |b| b.drain_s.unwrap_or(0),
    ),
    ("sessile_backend_weight", "Weight of the backend in the configuration.", |_| true, |b| b.weight.into()),
];

fn names<'a>(pool: &'a PoolStatus, backend: &'a BackendStatus) -> MetricLabels<'a, 2> {
    [("pool", &pool.name), ("backend", &backend.name)]
}

/// Bounds of times of connects: near, far, and before the first retransmission. The pool has more of them.
const CONNECT_BOUNDS: &Bounds = &[5_000, 50_000, 500_000];
/// Bounds of times of connections.
const DURATION_BOUNDS: &Bounds = &[100_000, 1_000_000, 10_000_000, 3_600_000_000];

fn backends(rows: &mut Rows, shown: &Shown<'_>) {
    let backends = || shown.pools().flat_map(|pool| pool.backends.iter().map(move |backend| (pool, backend)));
    for (series, help, read) in BACKEND_COUNTERS {
        rows.counter(series, help, backends().map(|(pool, backend)| (names(pool, backend), read(backend))));
    }
    for (series, help, applies, read) in BACKEND_GAUGES {
        let backends = backends().filter(|(pool, _)| applies(pool));
        rows.gauge(series, help, backends.map(|(pool, backend)| (names(pool, backend), read(backend))));
    }
    let checked = || backends().filter(|(pool, _)| pool.checks);
    rows.counter(
        "sessile_backend_check_transitions_total",
        "Times that checks have found the backend up after it was down, and down.",
        checked().flat_map(|(pool, backend)| {
            let labels = |to| labels([("pool", &pool.name), ("backend", &backend.name), ("to", to)]);
            [(labels("up"), backend.rises), (labels("down"), backend.falls)]
        }),
    );
    rows.histogram(
        "sessile_backend_connect_time_seconds",
        "Time of connects to the backend that succeeded.",
        CONNECT_BOUNDS,
        backends().map(|(pool, backend)| (names(pool, backend), &backend.totals.connect_time)),
    );
    rows.histogram(
        "sessile_backend_duration_seconds",
        "Time of connections to the backend, from accept to end.",
        DURATION_BOUNDS,
        backends().map(|(pool, backend)| (names(pool, backend), &backend.totals.duration)),
    );
}
