//! Sums of what threads count for a pool or a split: [`RequestTotals`], [`BreakCount`], [`SplitStatus`], times of
//! connects; the source of a pool, [`DiscoverStatus`], and the name of a backend, [`ResolveStatus`].
//!
//! Names no series (`requests.rs` and `pools.rs` do). Invariant: a sum is of the counters of all threads.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::counters::{BackendCounters, HistogramSum, Padded, PoolCounters, StatusCounters};

/// Clients that had one backend and got another one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BreakCount {
    /// Name of the backend that they had; `other` for all that the configuration does not have.
    pub from: String,
    /// Why they did not keep it.
    pub cause: &'static str,
    /// How many they are.
    pub count: u64,
}

/// One split and its pools.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitStatus {
    /// Name of the split in the configuration.
    pub name: String,
    /// The pools, in the order of the file.
    pub pools: Vec<SplitPoolStatus>,
}

/// One pool of a split.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitPoolStatus {
    /// Name of the pool.
    pub pool: String,
    /// Weight of the pool.
    pub weight: u16,
    /// Requests that came to it by the split, by what has chosen it: `cookie`, `connection`, `weight`.
    pub requests: BTreeMap<String, u64>,
}

/// The source of a pool's backends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiscoverStatus {
    /// Kind and place: `file /run/web.backends`.
    pub source: String,
    /// Backends that it names.
    pub backends: u64,
    /// Backends that it does not name any more, and that are still there.
    pub absent: u64,
    /// Why what it says is not taken, so that the last backends stay; empty if it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub complaint: String,
    /// Times that what it said was not taken.
    pub failures: u64,
    /// Times that it named other backends than before.
    pub changes: u64,
    /// The last of these times, in seconds since 1970; `None`: there was none.
    pub changed_unix_s: Option<u64>,
}

/// The name that is written as the address of a backend.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolveStatus {
    /// The name, with the port.
    pub name: String,
    /// All addresses of the last answer, the lowest first.
    pub answers: Vec<String>,
    /// Why what was found is not taken, so that the last address stays, or the backend is down; empty if it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub complaint: String,
    /// Times that what was found was not taken.
    pub failures: u64,
    /// Times that the name had another address than before.
    pub changes: u64,
    /// The last of these times, in seconds since 1970; `None`: there was none.
    pub changed_unix_s: Option<u64>,
}

/// Requests of a pool since it was added.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RequestTotals {
    /// Requests that got the response of a backend, by the class of its status code; a class that never was is absent.
    pub responses: BTreeMap<String, u64>,
    /// Requests that sessile replied to itself, or that got no whole response, in the same way.
    pub local_replies: BTreeMap<String, u64>,
    /// Requests that were sent over a backend connection of an earlier request.
    pub reused: u64,
    /// Requests that another backend got, because the first had not looked at them or was gone.
    #[serde(default)]
    pub moved: u64,
    /// Mean time of a request with a whole response, in microseconds; `None` before the first.
    pub duration_us_mean: Option<u64>,
    /// Mean time until the first byte of the response, in microseconds; `None` before the first.
    pub first_byte_us_mean: Option<u64>,
    /// Histogram of the times of requests with a whole response.
    #[serde(skip)]
    pub duration: HistogramSum,
    /// Histogram of the times until the first byte of the response.
    #[serde(skip)]
    pub first_byte: HistogramSum,
}

impl RequestTotals {
    /// Adds up the counters of all threads.
    pub fn sum(counters: &[Padded<PoolCounters>]) -> Self {
        let own = || counters.iter().map(|thread| &thread.0);
        let (mut duration, mut first_byte) = (HistogramSum::default(), HistogramSum::default());
        for thread in own() {
            thread.duration.add_to(&mut duration);
            thread.first_byte.add_to(&mut first_byte);
        }
        Self {
            responses: by_class(own().map(|thread| &thread.responses)),
            local_replies: by_class(own().map(|thread| &thread.local_replies)),
            reused: own().map(|thread| thread.reused.value()).sum(),
            moved: own().map(|thread| thread.moved.value()).sum(),
            duration_us_mean: mean_us(&duration),
            first_byte_us_mean: mean_us(&first_byte),
            duration,
            first_byte,
        }
    }
}

/// Totals of the connections of a backend since it was added.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct BackendTotals {
    /// Connections for which a connect to the backend succeeded.
    pub connections: u64,
    /// Connects to the backend that failed.
    pub connect_failures: u64,
    /// Bytes from clients to the backend.
    pub bytes_up: u64,
    /// Bytes from the backend to clients.
    pub bytes_down: u64,
    /// Mean time of a successful connect, in microseconds; `None` before the first.
    pub connect_us_mean: Option<u64>,
    /// Mean time of a connection, in microseconds; `None` before the first has ended.
    pub duration_us_mean: Option<u64>,
    /// Histogram of the times of successful connects.
    #[serde(skip)]
    pub connect_time: HistogramSum,
    /// Histogram of the times of connections, from accept to end.
    #[serde(skip)]
    pub duration: HistogramSum,
}

impl BackendTotals {
    /// Adds up the counters of all workers and runtimes.
    pub fn sum(counters: &[Padded<BackendCounters>]) -> Self {
        let mut sum = Self::default();
        for Padded(worker) in counters {
            sum.connections += worker.connections.value();
            sum.connect_failures += worker.connect_failures.value();
            sum.bytes_up += worker.bytes_up.value();
            sum.bytes_down += worker.bytes_down.value();
            worker.connect_time.add_to(&mut sum.connect_time);
            worker.duration.add_to(&mut sum.duration);
        }
        sum.connect_us_mean = mean_us(&sum.connect_time);
        sum.duration_us_mean = mean_us(&sum.duration);
        sum
    }
}

/// Clients of a pool that wait, or have waited, for places at full backends.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct QueueStatus {
    /// New clients that wait now for the first place at any backend.
    pub waiting: u64,
    /// Clients that have waited and got a place.
    pub served: u64,
    /// Mean time of their waits, in microseconds; `None` before the first.
    pub wait_us_mean: Option<u64>,
    /// Clients that got no place within `queue_timeout`.
    pub timeouts: u64,
    /// Clients that found `queue_max` clients waiting.
    pub refusals: u64,
    /// Histogram of the times of waits.
    #[serde(skip)]
    pub wait: HistogramSum,
}

impl QueueStatus {
    /// Adds up the counters of all threads; `waiting`: clients in the line of the pool.
    pub fn sum(counters: &[Padded<PoolCounters>], waiting: usize) -> Self {
        let mut sum = Self { waiting: waiting as u64, ..Self::default() };
        for Padded(own) in counters {
            own.queue_wait.add_to(&mut sum.wait);
            sum.timeouts += own.queue_timeouts.value();
            sum.refusals += own.queue_refusals.value();
        }
        sum.served = sum.wait.buckets.iter().sum();
        sum.wait_us_mean = mean_us(&sum.wait);
        sum
    }
}

/// Adds up counters of status codes; a class that never was is absent.
pub(super) fn by_class<'c>(counters: impl Iterator<Item = &'c StatusCounters>) -> BTreeMap<String, u64> {
    let mut sum = [0; StatusCounters::WORDS.len()];
    counters.for_each(|own| own.add_to(&mut sum));
    let counted = StatusCounters::WORDS.into_iter().zip(sum).filter(|(_, count)| *count > 0);
    counted.map(|(word, count)| (word.to_owned(), count)).collect()
}

/// Times of connects of the clients of a pool, in one histogram.
pub fn connect_time(counters: &[Padded<PoolCounters>]) -> HistogramSum {
    let mut sum = HistogramSum::default();
    counters.iter().for_each(|thread| thread.0.connect_time.add_to(&mut sum));
    sum
}

/// The mean of all durations, in microseconds; `None`: there is none.
pub fn mean_us(sum: &HistogramSum) -> Option<u64> {
    sum.sum_us.checked_div(sum.buckets.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_of_all_threads_are_added_up() {
        let threads: Vec<Padded<PoolCounters>> = (0..2).map(|_| Padded::default()).collect();
        for Padded(own) in &threads {
            own.responses.count(200);
            own.duration.record_us(3_000);
            own.first_byte.record_us(1_000);
            own.connect_time.record_us(400);
        }
        threads[1].0.local_replies.count(503);
        threads[1].0.reused.add(1);
        let sum = RequestTotals::sum(&threads);
        assert_eq!(sum.responses, [("2xx".to_owned(), 2)].into());
        assert_eq!((sum.local_replies, sum.reused), ([("5xx".to_owned(), 1)].into(), 1));
        assert_eq!((sum.duration_us_mean, sum.first_byte_us_mean), (Some(3_000), Some(1_000)));
        assert_eq!(connect_time(&threads).sum_us, 800);
    }
}
