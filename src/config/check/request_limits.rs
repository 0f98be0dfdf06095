//! Reads limits of requests: those of `[limits]`, of a listener and of a pool, by one rule each.
//!
//! Invariant: a limit has the same bounds wherever it stands.

use std::ops::RangeInclusive;

use super::{Bad, timeouts};
use crate::config::file::Section;
use crate::config::{FIELDS_MAX, HEAD_MAX, KeyPart, RequestLimits, RequestRate, value};

/// Bounds of `requests_max`.
const REQUESTS_MAX: RangeInclusive<u64> = 1..=1_000_000_000;
/// Least and greatest `body_max`.
const BODY_MAX: [u64; 2] = [1 << 10, 1 << 40];
/// Least and greatest `body_rate_min`.
const BODY_RATE_MIN: [u64; 2] = [1 << 10, 1 << 30];
/// Least `head_max`.
const HEAD_LEAST: usize = 4 << 10;
/// Least `fields_max`; browsers send up to 30.
const FIELDS_LEAST: usize = 32;
/// Every limit of requests that a pool may have.
const OF_POOLS: [&str; 4] = ["body_max", "body_rate_min", "body_time_max", "request_rate"];
/// Keys that belong to a rate.
const OF_RATES: [&str; 2] = ["request_burst", "request_key"];
/// Most requests of a client in the unit of its rate, and at once.
const REQUESTS: RangeInclusive<u64> = 1..=1_000_000;

/// Reads those of `[limits]`, with their defaults.
pub(super) fn of_all(limits: &Section<'_>) -> RequestLimits {
    let own = of_listener(limits);
    let RequestLimits { requests_max, body_max, body_rate_min, body_time_max, .. } = own;
    RequestLimits {
        requests_max: requests_max.or(Some(None)),
        body_max: body_max.or(Some(None)),
        body_rate_min: body_rate_min.or(Some(None)),
        body_time_max: body_time_max.or(Some(None)),
        head_max: own.head_max.or(Some(HEAD_MAX)),
        fields_max: own.fields_max.or(Some(FIELDS_MAX)),
        request_rate: own.request_rate.or(Some(None)),
    }
}

/// Reads those of `[listener.limits]`.
pub(super) fn of_listener(limits: &Section<'_>) -> RequestLimits {
    RequestLimits {
        requests_max: limits.read("requests_max", value::unless("off", value::integer(REQUESTS_MAX))),
        head_max: limits.read("head_max", value::bytes_between(HEAD_LEAST as u64, HEAD_MAX as u64)),
        fields_max: limits.read("fields_max", value::integer(FIELDS_LEAST as u64..=FIELDS_MAX as u64)),
        ..common(limits)
    }
}

/// Reads those of `[pool.limits]`.
pub(super) fn of_pool(limits: &Section<'_>, reads_http: bool) -> RequestLimits {
    if !reads_http {
        limits.idle_keys(&OF_POOLS, "without http = true");
    }
    common(limits)
}

fn common(limits: &Section<'_>) -> RequestLimits {
    let size = value::unless("off", value::bytes_between(BODY_MAX[0], BODY_MAX[1]));
    let body_max = limits.read("body_max", size).map(|size| size.map(|bytes| bytes as u64));
    let rate = value::unless("off", value::bytes_per_s(BODY_RATE_MIN[0], BODY_RATE_MIN[1]));
    RequestLimits {
        body_max,
        body_rate_min: limits.read("body_rate_min", rate),
        body_time_max: timeouts::timeout(limits, "body_time_max"),
        request_rate: request_rate(limits),
        ..RequestLimits::default()
    }
}

/// Reads `request_rate` with the keys that belong to it, which are those beside it.
fn request_rate(limits: &Section<'_>) -> Option<Option<RequestRate>> {
    let rate = limits.read("request_rate", value::unless("off", value::rate(REQUESTS)));
    if !limits.has("request_rate") || rate == Some(None) {
        limits.idle_keys(&OF_RATES, "without a request_rate beside it");
    }
    let burst = limits.read("request_burst", value::integer(REQUESTS));
    let by = limits.read("request_key", |value| {
        value::key_part(value)?.ok_or_else(|| Bad::new("names no client").hint("\"source\" is the default"))
    });
    let of = |(count, per_s)| RequestRate {
        count,
        per_s,
        burst: burst.unwrap_or(count),
        by: by.clone().unwrap_or(KeyPart::Source),
    };
    rate.map(|rate| rate.map(of))
}
