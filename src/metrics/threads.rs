//! What one worker and one runtime count, with the series that show it.
//!
//! Reads counters, owns none. Invariant: a number has one name in the status and one on the page, and both are said here;
//! what has a pool or a listener is on the page by these, and in the status by thread as well. A number that an older process
//! does not have is 0.

use serde::{Deserialize, Serialize};

use crate::counters::{ConversationCounters, WorkerCounters};

/// The kind of a series, and the unit in which it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MetricKind {
    Counter,
    Gauge,
    /// A gauge kept in microseconds and shown in seconds.
    Micros,
}

/// One series: name, kind, help text, and how its value is read.
pub(super) struct Series<T>(
    pub(super) &'static str,
    pub(super) MetricKind,
    pub(super) &'static str,
    pub(super) fn(&T) -> u64,
);

macro_rules! numbers {
    (
        $(#[doc = $doc:literal])+ $name:ident of $counters:ident:
        $($field:ident = $series:literal, $kind:ident, $help:literal;)+
        $(@in_the_status_alone: $($own:ident, $own_help:literal;)+)?
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name {
            $(#[doc = $help] pub $field: u64,)+
            $($(#[doc = $own_help] pub $own: u64,)+)?
        }

        impl $name {
            /// Reads the value of every counter.
            pub fn read(counters: &$counters) -> Self {
                Self { $($field: counters.$field.value(),)+ $($($own: counters.$own.value(),)+)? }
            }

            pub(super) const SERIES: &'static [Series<Self>] =
                &[$(Series($series, MetricKind::$kind, $help, |numbers| numbers.$field),)+];
        }
    };
}

numbers! {
    /// Counters of one worker.
    WorkerStatus of WorkerCounters:
    connections = "sessile_worker_connections", Gauge, "Connections that the worker holds now.";
    generation = "sessile_worker_generation", Gauge, "Generation of the configuration that the worker uses.";
    adopt_us_max = "sessile_worker_adopt_max_seconds", Micros,
        "Longest time that the worker took to adopt a configuration; its connections wait meanwhile.";
    steps = "sessile_worker_steps_total", Counter,
        "Steps of connections: each handles what has happened on one connection.";
    wakes = "sessile_worker_wakes_total", Counter, "Times that the worker left epoll_wait.";
    stale_events = "sessile_worker_stale_events_total", Counter, "Events for connections that no longer existed.";
    accept_paused_limit = "sessile_accept_paused_limit_total", Counter,
        "Times that accepting paused because a connection limit was reached.";
    accept_paused_descriptors = "sessile_accept_paused_descriptors_total", Counter,
        "Times that accepting paused because no descriptor was left.";
    accept_paused_now = "sessile_accept_paused", Gauge,
        "1 while the worker has paused accepting, else 0; clients wait in the backlog.";
    panics = "sessile_worker_panics_total", Counter, "Steps that panicked; each reset one connection.";
    stuck = "sessile_worker_stuck_total", Counter, "Turns of the event loop that took longer than 100 ms.";
    bytes_spliced = "sessile_worker_spliced_bytes_total", Counter, "Bytes moved by splice(2), without a copy.";
    pipes = "sessile_worker_pipes", Gauge, "Pipes that the worker holds now.";
    pipes_large = "sessile_worker_pipes_large", Gauge, "Large pipes among them; bulk_memory bounds those of all workers.";
    pipes_denied = "sessile_worker_pipes_denied_total", Counter,
        "Times that bulk went on by a pipe of 64 KiB or by copy, because no large pipe could be had.";
    handed_over = "sessile_worker_handed_over_total", Counter, "Connections that were handed to another worker.";
    log_dropped = "sessile_log_dropped_total", Counter,
        "Access log records of the worker and its runtime dropped because the writer was too slow.";
}

numbers! {
    /// Counters of the runtime of one worker.
    RuntimeStatus of ConversationCounters:
    conversations = "sessile_conversations", Gauge, "Connections open now with TLS or HTTP that ends here.";
    stuck = "sessile_runtime_stuck_total", Counter,
        "Turns of the thread of TLS and HTTP that took longer than 100 ms; its other connections wait meanwhile.";
    http2_connections = "sessile_http2_connections", Gauge, "Connections open now that speak HTTP/2.";
    http2_streams = "sessile_http2_streams_total", Counter, "Streams of HTTP/2 connections that were served.";
    http2_local_resets = "sessile_http2_local_resets_total", Counter,
        "Streams of HTTP/2 connections that sessile reset, because the client or the backend broke off or broke a rule.";
    @in_the_status_alone:
    handshakes, "TLS handshakes with clients that succeeded.";
    resumed, "TLS handshakes that resumed a session.";
    requests, "HTTP requests with a valid head.";
    reused, "HTTP requests that were sent over a backend connection of an earlier request.";
    upgrades, "Connections that left HTTP by an Upgrade, for example to WebSocket.";
    answers, "HTTP requests that sessile replied to itself, without a backend.";
}
