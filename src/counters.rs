//! Counters and histograms that one worker writes and a scrape reads.
//!
//! No names, no labels, no clock: `metrics.rs` adds names when it is asked. Invariant: each cell has one writing
//! thread, so adding is a relaxed load and store, never a locked instruction; readers may lag, never tear.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::outcome::Ended;

/// A number that only its owning thread adds to.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; the owning thread only.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Raises a gauge to what has been the most; the owning thread only.
    pub fn raise(&self, n: u64) {
        self.set(n.max(self.value()));
    }

    /// Sets a gauge; the owning thread only.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// What it stands at.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds of the histogram buckets, in microseconds; the last bucket has no bound.
pub const BUCKETS_US: [u64; 15] = [
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    10_000_000,
    3_600_000_000,
];

/// Durations in fixed buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BUCKETS_US.len() + 1],
    sum_us: Counter,
}

impl Histogram {
    /// Adds one duration; the owning thread only.
    #[inline]
    pub fn record_us(&self, us: u64) {
        let bucket = BUCKETS_US.partition_point(|bound| *bound < us);
        self.buckets[bucket].add(1);
        self.sum_us.add(us);
    }

    /// Adds this histogram to `sum`.
    pub fn add_to(&self, sum: &mut HistogramSum) {
        for (cell, total) in self.buckets.iter().zip(&mut sum.buckets) {
            *total += cell.value();
        }
        sum.sum_us += self.sum_us.value();
    }
}

/// Several workers' histograms added up.
#[derive(Debug, Default, Clone)]
pub struct HistogramSum {
    /// Not cumulative; the last has no upper bound.
    pub buckets: [u64; BUCKETS_US.len() + 1],
    /// Sum of all durations.
    pub sum_us: u64,
}

/// Keeps what one thread writes off the cache lines of others.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Padded<T>(pub T);

/// What one worker counts for one backend.
#[derive(Debug, Default)]
pub struct BackendCounters {
    /// Connections that reached it.
    pub connections: Counter,
    /// Attempts that failed, refused, timed out or unreachable.
    pub connect_failures: Counter,
    /// Bytes from clients to it.
    pub bytes_up: Counter,
    /// Bytes from it to clients.
    pub bytes_down: Counter,
    /// From the attempt's start until it was established.
    pub connect_time: Histogram,
    /// From accept until the connection ended.
    pub duration: Histogram,
}

/// What one worker counts for one listener.
#[derive(Debug)]
pub struct ListenerCounters {
    /// Connections accepted.
    pub accepted: Counter,
    /// How they ended, by `Ended as usize`.
    pub ended: [Counter; Ended::COUNT],
}

impl Default for ListenerCounters {
    fn default() -> Self {
        Self { accepted: Counter::default(), ended: std::array::from_fn(|_| Counter::default()) }
    }
}

/// What one worker counts for itself.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    /// Connections it holds now.
    pub connections: Counter,
    /// The generation of the snapshot it has adopted.
    pub generation: Counter,
    /// The longest that it took to adopt one, in microseconds.
    pub adopt_us_max: Counter,
    /// Steps of connections.
    pub steps: Counter,
    /// Times it left `epoll_wait`.
    pub wakes: Counter,
    /// Events for a connection that no longer exists.
    pub stale_events: Counter,
    /// Times accept paused because a limit was reached.
    pub accept_paused_limit: Counter,
    /// Times accept paused because descriptors ran out.
    pub accept_paused_descriptors: Counter,
    /// Accepting is paused now (0 or 1).
    pub accept_paused_now: Counter,
    /// Steps that panicked.
    pub panics: Counter,
    /// Turns that took longer than 100 ms.
    pub stuck: Counter,
    /// Bytes moved by splice.
    pub bytes_spliced: Counter,
    /// Pipes that exist now.
    pub pipes: Counter,
    /// Connections served without a key (PROXY LOCAL or UNKNOWN).
    pub keyless: Counter,
    /// Connections handed to another worker.
    pub handed_over: Counter,
    /// Log lines dropped because the writer did not keep up.
    pub log_dropped: Counter,
}

/// What the conversations of one worker count.
#[derive(Debug, Default)]
pub struct ConversationCounters {
    /// Conversations now.
    pub conversations: Counter,
    /// Handshakes that were made.
    pub handshakes: Counter,
    /// Of these, those that resumed a session.
    pub resumed: Counter,
    /// Requests whose head was read and understood.
    pub requests: Counter,
    /// Of these, those that went over a connection to the backend that was there.
    pub reused: Counter,
    /// Connections that became something else by Upgrade.
    pub upgrades: Counter,
    /// Requests that were answered here.
    pub answers: Counter,
    /// Cookies that named a backend of the pool.
    pub cookies_valid: Counter,
    /// Cookies too long unused, or too old.
    pub cookies_expired: Counter,
    /// Cookies that nobody who holds a key has written.
    pub cookies_forged: Counter,
    /// Cookies of another pool.
    pub cookies_other_pool: Counter,
    /// Cookies for a backend that the pool has no more.
    pub cookies_removed: Counter,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_bucket_whose_bound_it_does_not_exceed() {
        let histogram = Histogram::default();
        for us in [0, 100, 101, 3_600_000_001] {
            histogram.record_us(us);
        }
        let mut sum = HistogramSum::default();
        histogram.add_to(&mut sum);
        assert_eq!((sum.buckets[0], sum.buckets[1], sum.buckets[BUCKETS_US.len()]), (2, 1, 1));
        assert_eq!(sum.sum_us, 201 + 3_600_000_001);
    }
}
