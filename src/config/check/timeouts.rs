//! Reads timeouts: those of `[limits]`, of a listener and of a pool, by one rule each.
//!
//! Invariant: a timeout has the same bounds wherever it stands.

use std::time::Duration;

use super::Bad;
use crate::config::OwnTimeouts;
use crate::config::file::Section;
use crate::config::value::{self, HOUR, MILLISECOND, MINUTE};

/// Longest timeout: a year, far below the range of the timers.
const TIMEOUT_MAX: Duration = Duration::from_secs(365 * 86_400);
/// A longer `hello_timeout` is warned of: clients that send nothing would hold connections.
const HELLO_TIMEOUT_WARN: Duration = MINUTE;
/// Timeouts that only requests have.
const OF_REQUESTS: [&str; 2] = ["response_timeout", "body_timeout"];

/// Reads those of `[listener.limits]`.
pub(super) fn of_listener(limits: &Section<'_>) -> OwnTimeouts {
    OwnTimeouts { hello: hello(limits), keepalive: timeout(limits, "keepalive_timeout"), ..common(limits) }
}

/// Reads those of `[pool.limits]`.
pub(super) fn of_pool(limits: &Section<'_>, reads_http: bool) -> OwnTimeouts {
    if !reads_http {
        limits.idle_keys(&OF_REQUESTS, "without http = true");
    }
    common(limits)
}

fn common(limits: &Section<'_>) -> OwnTimeouts {
    OwnTimeouts {
        response: timeout(limits, "response_timeout"),
        body: timeout(limits, "body_timeout"),
        idle: timeout(limits, "idle_timeout"),
        half_close: timeout(limits, "half_close_timeout"),
        lifetime: timeout(limits, "lifetime"),
        ..OwnTimeouts::default()
    }
}

/// Reads a timeout; the outer `None`: it is not written, or not readable.
pub(super) fn timeout(limits: &Section<'_>, key: &'static str) -> Option<Option<Duration>> {
    limits.read(key, value::unless("off", value::duration(100 * MILLISECOND, TIMEOUT_MAX)))
}

/// Reads `hello_timeout`.
pub(super) fn hello(limits: &Section<'_>) -> Option<Duration> {
    let timeout = limits.read("hello_timeout", value::duration(100 * MILLISECOND, HOUR))?;
    if timeout > HELLO_TIMEOUT_WARN {
        let shown = value::show_duration(timeout);
        let why = format!("hello_timeout \"{shown}\" lets clients that send nothing hold a connection for that long");
        limits.warn("hello_timeout", Bad::new(why));
    }
    Some(timeout)
}
