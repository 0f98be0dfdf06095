//! Reads the keys of the process: workers, stop times, admin interface, log, metrics, limits.
//!
//! Rules between these keys and listeners are in `whole.rs`. Invariant: the defaults are those of
//! `config/reference.toml`; a test compares them.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Bad, dns, request_limits, timeouts};
use crate::config::file::Section;
use crate::config::value::{self, DAY, HOUR, MICROSECOND, MILLISECOND, MINUTE, SECOND};
use crate::config::{ADMIN_SOCKET, Admin, Limits, Log, LogFormat, LogLevel, LogOutput, MetricsPools, Process, keys};
use crate::log_field::LogFields;

/// Longest keepalive time; the kernel's own bounds are 32,767 s and 127 probes.
const KEEPALIVE_LONGEST: Duration = Duration::from_secs(9 * 3600);
const KEEPALIVE_PROBES: RangeInclusive<u64> = 1..=127;
const WORKERS: RangeInclusive<u64> = 1..=256;
const COUNT: RangeInclusive<u64> = 1..=u32::MAX as u64;
/// Default of `max_handshakes`: more than any machine works at at once, and few enough that others find their turn soon.
const HANDSHAKES_MAX: usize = 256;
/// Default and bound of `hello_max`: longer ones are refused by TLS libraries, too.
const HELLO_MAX: u64 = 64 << 10;
/// Bounds of `http2_streams` and `http2_backend_connections`.
const HTTP2_STREAMS: RangeInclusive<u64> = 1..=1_000;
const HTTP2_BACKEND_CONNECTIONS: RangeInclusive<u64> = 1..=100;
/// Default of `hello_memory`: room for several hundred of the longest hellos.
const HELLO_MEMORY: usize = 64 << 20;
/// Default of `bulk_memory`: room for as many fast transfers at once as most machines have.
const BULK_MEMORY: usize = 64 << 20;
/// Bound of `hello_memory` and `bulk_memory`.
const MEMORY_MAX: u64 = 64 << 30;

/// Reads the keys that hold for the whole process.
pub(super) fn process(top: &Section<'_>) -> Process {
    Process {
        workers: top.read("workers", value::unless("auto", value::integer(WORKERS))).unwrap_or(None),
        cpu_affinity: top.read("cpu_affinity", value::boolean).unwrap_or(false),
        busy_poll: top
            .read("busy_poll", value::unless("off", value::duration(MICROSECOND, MILLISECOND)))
            .unwrap_or(None),
        bulk_memory: top.read("bulk_memory", value::bytes_between(0, MEMORY_MAX)).unwrap_or(BULK_MEMORY),
        watch: top.read("watch", value::boolean).unwrap_or(false),
        stop_grace: top.read("stop_grace", value::duration(Duration::ZERO, HOUR)).unwrap_or(Duration::ZERO),
        stick_table_file: top.read("stick_table_file", value::file),
        stick_table_interval: top.read("stick_table_interval", value::duration(SECOND, HOUR)).unwrap_or(MINUTE),
        stop_deadline: top.read("stop_deadline", value::duration(Duration::ZERO, 7 * DAY)).unwrap_or(MINUTE),
        upgrade_deadline: top.read("upgrade_deadline", value::duration(Duration::ZERO, 7 * DAY)).unwrap_or(HOUR),
        admin: admin(top),
        log: log(top),
        metrics_pools: metrics_pools(top),
        resolvers: dns::resolvers(top),
    }
}

/// Reads the limits that hold for every connection.
pub(super) fn limits(top: &Section<'_>) -> Limits {
    let limits = top.child("limits", &keys::LIMITS);
    let count = |key| limits.read(key, value::unless("off", value::integer(COUNT))).unwrap_or(None);
    let total = value::unless("auto", value::integer(COUNT));
    let timeout = |key| timeouts::timeout(&limits, key);
    let keepalive = value::duration(SECOND, KEEPALIVE_LONGEST);
    let user_timeout = value::unless("off", value::duration(SECOND, DAY));
    Limits {
        max_connections: limits.read("max_connections", total).unwrap_or(None),
        max_connections_per_source: count("max_connections_per_source"),
        connection_rate_per_source: count("connection_rate_per_source"),
        max_handshakes: limits
            .read("max_handshakes", value::unless("off", value::integer(COUNT)))
            .unwrap_or(Some(HANDSHAKES_MAX)),
        hello_timeout: timeouts::hello(&limits).unwrap_or(5 * SECOND),
        hello_max: limits.read("hello_max", value::bytes_between(1 << 10, HELLO_MAX)).unwrap_or(HELLO_MAX as usize),
        hello_memory: limits.read("hello_memory", value::bytes_between(1 << 20, MEMORY_MAX)).unwrap_or(HELLO_MEMORY),
        http2_streams: limits.read("http2_streams", value::integer(HTTP2_STREAMS)).unwrap_or(100),
        http2_backend_connections: limits
            .read("http2_backend_connections", value::integer(HTTP2_BACKEND_CONNECTIONS))
            .unwrap_or(6),
        requests: request_limits::of_all(&limits),
        keepalive_timeout: timeout("keepalive_timeout").unwrap_or(Some(MINUTE)),
        response_timeout: timeout("response_timeout").unwrap_or(Some(MINUTE)),
        body_timeout: timeout("body_timeout").unwrap_or(Some(MINUTE)),
        idle_timeout: timeout("idle_timeout").unwrap_or(Some(HOUR)),
        half_close_timeout: timeout("half_close_timeout").unwrap_or(Some(30 * SECOND)),
        lifetime: timeout("lifetime").unwrap_or(None),
        keepalive: limits.read("keepalive", value::unless("off", &keepalive)).unwrap_or(Some(MINUTE)),
        keepalive_interval: limits.read("keepalive_interval", &keepalive).unwrap_or(10 * SECOND),
        keepalive_count: limits.read("keepalive_count", value::integer(KEEPALIVE_PROBES)).unwrap_or(6),
        user_timeout: limits.read("user_timeout", user_timeout).unwrap_or(Some(90 * SECOND)),
    }
}

fn admin(top: &Section<'_>) -> Admin {
    let admin = top.child("admin", &keys::ADMIN);
    let socket = value::unless("off", |value| value::text(value).and_then(value::unix_path));
    let socket = admin.read("socket", socket).unwrap_or_else(|| Some(ADMIN_SOCKET.into()));
    if socket.is_none() {
        admin.idle_keys(&["mode", "group"], "with socket = \"off\"");
    }
    let http = admin.read("http", value::unless("off", value::tcp_address)).unwrap_or(None);
    let allow = admin.values("allow", value::network);
    if let Some(address) = http.filter(|address| !address.ip().is_loopback() && admin.count("allow") == 0) {
        let why = "is no loopback address, and allow names no network that may read it";
        admin.error("http", Bad::new(format!("http \"{address}\" {why}")).hint("allow = [\"10.0.0.0/8\"]"));
    }
    if allow.iter().any(|network| network.prefix_len() == 0) {
        admin.warn("allow", Bad::new("allow has every address: any host may read metrics and views"));
    }
    Admin {
        socket,
        mode: admin.read("mode", value::mode).unwrap_or(0o660),
        group: admin.read("group", value::group),
        http,
        allow,
        clients: admin.read("clients", value::boolean).unwrap_or(false),
        names: admin.values("names", value::server_name),
    }
}

fn log(top: &Section<'_>) -> Log {
    let log = top.child("log", &keys::LOG);
    let format = value::word(&[("text", LogFormat::Text), ("json", LogFormat::Json)]);
    let level = value::word(&[
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
    ]);
    let chosen = log.values("fields", value::log_field);
    let fields = chosen.into_iter().fold(LogFields::least(), |fields, word| match LogFields::of_word(word) {
        Some(named) => fields.and(named),
        None => fields,
    });
    Log {
        format: log.read("format", format).unwrap_or(LogFormat::Text),
        connections: log.read("connections", value::boolean).unwrap_or(true),
        level: log.read("level", level).unwrap_or(LogLevel::Info),
        output: log.read("output", value::log_output).unwrap_or(LogOutput::Stdout),
        fields: if log.has("fields") { fields } else { LogFields::default() },
        sample: log.read("sample", value::integer(1..=1_000_000)).unwrap_or(1),
    }
}

fn metrics_pools(top: &Section<'_>) -> MetricsPools {
    let pools = value::word(&[("all", MetricsPools::All), ("busy", MetricsPools::Busy)]);
    top.child("metrics", &keys::METRICS).read("pools", pools).unwrap_or(MetricsPools::All)
}
