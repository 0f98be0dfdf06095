//! The series of requests and of TLS, by listener and by pool.
//!
//! Counts nothing itself. Invariant: a listener or a pool has these series if its configuration makes them possible, each
//! with its 0 before it moves.

use std::collections::BTreeMap;

use super::page::labels;
use super::rows::{Bounds, Rows};
use super::status::{ListenerStatus, PoolStatus, Status};
use crate::counters::StatusCounters;

/// Writes the series of all listeners.
pub(super) fn of_listeners(rows: &mut Rows, status: &Status) {
    let listeners = |has: fn(&ListenerStatus) -> bool| status.listeners.iter().filter(move |listener| has(listener));
    let by_name = |has: fn(&ListenerStatus) -> bool, count: fn(&ListenerStatus) -> u64| {
        listeners(has).map(move |listener| (labels([("listener", &listener.name)]), count(listener)))
    };
    rows.counter(
        "sessile_requests_total",
        "HTTP requests by the class of the status code that the client got; none: it got no whole response.",
        listeners(|listener| listener.kinds.http).flat_map(|listener| {
            StatusCounters::WORDS.into_iter().map(move |class| {
                (labels([("listener", &listener.name), ("code", class)]), of_class(&listener.totals.requests, class))
            })
        }),
    );
    rows.counter(
        "sessile_tls_handshakes_total",
        "TLS handshakes with clients that succeeded.",
        by_name(|listener| listener.kinds.tls, |listener| listener.totals.handshakes),
    );
    rows.counter(
        "sessile_tls_handshakes_resumed_total",
        "TLS handshakes that resumed a session.",
        by_name(|listener| listener.kinds.tls, |listener| listener.totals.resumed),
    );
    rows.counter(
        "sessile_keyless_connections_total",
        "Connections without a key, because their PROXY header said LOCAL or UNKNOWN.",
        by_name(|listener| listener.kinds.proxy, |listener| listener.totals.keyless),
    );
}

/// Classes of responses that backends can give: a request without a response is in none of them.
const OF_BACKENDS: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// Classes of what sessile itself lets a client have.
const LOCAL: [&str; 3] = ["none", "4xx", "5xx"];

/// Bounds of times of requests, in microseconds.
const DURATION_BOUNDS: &Bounds =
    &[5_000, 25_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 10_000_000, 60_000_000];
/// Bounds of times until the first byte.
const FIRST_BYTE_BOUNDS: &Bounds = &[1_000, 5_000, 25_000, 100_000, 500_000, 2_500_000, 10_000_000];
/// Bounds of times of connects: within a rack, to another place, over the ocean, and beyond retransmissions.
const CONNECT_BOUNDS: &Bounds = &[500, 2_500, 10_000, 50_000, 250_000, 1_000_000];

/// Writes the series of these pools.
pub(super) fn of_pools<'s, I: Iterator<Item = &'s PoolStatus>>(rows: &mut Rows, pools: impl Fn() -> I) {
    let served = || pools().filter_map(|pool| Some((labels([("pool", &pool.name)]), pool.requests.as_ref()?)));
    rows.counter(
        "sessile_pool_requests_total",
        "HTTP requests of the pool by the class of the status code, and by the side that gave the response; none: no \
         whole response.",
        served().flat_map(|([pool], requests)| {
            let of_backends = OF_BACKENDS.map(|class| ("backend", class, of_class(&requests.responses, class)));
            let local = LOCAL.map(|class| ("sessile", class, of_class(&requests.local_replies, class)));
            let all = of_backends.into_iter().chain(local);
            all.map(move |(by, class, count)| (labels([pool, ("code", class), ("by", by)]), count))
        }),
    );
    rows.counter(
        "sessile_pool_requests_reused_total",
        "HTTP requests of the pool that were sent over a backend connection of an earlier request.",
        served().map(|(labels, requests)| (labels, requests.reused)),
    );
    rows.counter(
        "sessile_pool_requests_moved_total",
        "HTTP requests that another backend of the pool got, because the first had not looked at them or was gone.",
        served().map(|(labels, requests)| (labels, requests.moved)),
    );
    rows.histogram(
        "sessile_pool_request_duration_seconds",
        "Time of HTTP requests with a whole response, from the first byte of the head to the last of the response.",
        DURATION_BOUNDS,
        served().map(|(labels, requests)| (labels, &requests.duration)),
    );
    rows.histogram(
        "sessile_pool_first_byte_seconds",
        "Time of HTTP requests with a whole response, from the first byte of the head until the first byte of the response came.",
        FIRST_BYTE_BOUNDS,
        served().map(|(labels, requests)| (labels, &requests.first_byte)),
    );
    rows.histogram(
        "sessile_pool_connect_time_seconds",
        "Time of connects to backends of the pool that succeeded.",
        CONNECT_BOUNDS,
        pools().map(|pool| (labels([("pool", &pool.name)]), &pool.connect_time)),
    );
}

fn of_class(counts: &BTreeMap<String, u64>, class: &str) -> u64 {
    counts.get(class).copied().unwrap_or(0)
}
