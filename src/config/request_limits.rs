//! [`RequestLimits`]: limits of requests, as one table of the file has them.
//!
//! Refuses no request. Invariant: the nearest one counts: the pool's, then the listener's, then that of `[limits]`, which
//! is always there.

use std::time::Duration;

use super::KeyPart;

/// Greatest `head_max`, and its default: more is never read.
pub const HEAD_MAX: usize = 32 << 10;

/// Greatest `fields_max`, and its default.
pub const FIELDS_MAX: usize = 128;

/// Limits of requests in `[limits]`, of a listener or of a pool. The outer `None`: the wider one counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestLimits {
    /// Requests after which a client's connection ends; not of a pool, as the next request may go to another one; the
    /// inner `None`: no limit, the default.
    pub requests_max: Option<Option<u64>>,
    /// Most bytes of a body; the inner `None`: no limit, the default.
    pub body_max: Option<Option<u64>>,
    /// Least bytes a second of a body; the inner `None`: no limit, the default.
    pub body_rate_min: Option<Option<u64>>,
    /// Most time for a body; the inner `None`: no limit, the default.
    pub body_time_max: Option<Option<Duration>>,
    /// Most bytes of a head; not of a pool, which is found by the head.
    pub head_max: Option<usize>,
    /// Most fields of a head; not of a pool.
    pub fields_max: Option<usize>,
    /// Most requests of one client; the inner `None`: no limit, the default.
    pub request_rate: Option<Option<RequestRate>>,
}

/// How many requests a client may make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRate {
    /// Requests in `per_s`; at least one.
    pub count: u32,
    /// Seconds.
    pub per_s: u32,
    /// Requests that may come at once, by a client that made none before; at least one.
    pub burst: u32,
    /// What names the client. One that does not have it counts by its source.
    pub by: KeyPart,
}

impl RequestRate {
    /// Requests in an hour.
    pub fn per_hour(&self) -> u64 {
        u64::from(self.count) * 3_600 / u64::from(self.per_s.max(1))
    }

    /// Time after which there is one request more, in nanoseconds.
    pub fn interval_ns(&self) -> u64 {
        u64::from(self.per_s) * 1_000_000_000 / u64::from(self.count.max(1))
    }
}

impl RequestLimits {
    /// The limits that hold where these are nearer.
    pub fn over(&self, wider: &Self) -> Self {
        Self {
            requests_max: self.requests_max.or(wider.requests_max),
            body_max: self.body_max.or(wider.body_max),
            body_rate_min: self.body_rate_min.or(wider.body_rate_min),
            body_time_max: self.body_time_max.or(wider.body_time_max),
            head_max: self.head_max.or(wider.head_max),
            fields_max: self.fields_max.or(wider.fields_max),
            request_rate: self.request_rate.clone().or_else(|| wider.request_rate.clone()),
        }
    }
}
