//! Counters and histograms that one worker writes and a scrape reads.
//!
//! Has no names, labels or clock: `metrics` adds names at each scrape. Invariant: one thread writes each cell, so
//! adding is a relaxed load and store, never a locked instruction; a reader may see an older value, never a torn one.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::outcome::Ended;

/// A number that only its owning thread changes.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to the value; for the owning thread only.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Sets a gauge to the highest value so far; for the owning thread only.
    pub fn raise(&self, n: u64) {
        self.set(n.max(self.value()));
    }

    /// Sets a gauge to a value; for the owning thread only.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// The value now, for any thread.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds of the histogram buckets, in microseconds; the last bucket has no bound.
pub const BUCKETS_US: [u64; 18] = [
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
    2_500_000,
    5_000_000,
    10_000_000,
    60_000_000,
    3_600_000_000,
];

/// Durations of one thread, counted in the buckets of [`BUCKETS_US`].
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Counter; BUCKETS_US.len() + 1],
    sum_us: Counter,
}

impl Histogram {
    /// Adds one duration in microseconds; for the owning thread only.
    #[inline]
    pub fn record_us(&self, us: u64) {
        let bucket = BUCKETS_US.partition_point(|bound| *bound < us);
        self.buckets[bucket].add(1);
        self.sum_us.add(us);
    }

    /// Adds the counts of this histogram to `sum`.
    pub fn add_to(&self, sum: &mut HistogramSum) {
        for (cell, total) in self.buckets.iter().zip(&mut sum.buckets) {
            *total += cell.value();
        }
        sum.sum_us += self.sum_us.value();
    }
}

/// The histograms of several threads, added up.
#[derive(Debug, Default, Clone)]
pub struct HistogramSum {
    /// Durations per bucket, not cumulative; the last bucket has no upper bound.
    pub buckets: [u64; BUCKETS_US.len() + 1],
    /// Sum of all durations, in microseconds.
    pub sum_us: u64,
}

/// Keeps the counters of one thread on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Padded<T>(pub T);

/// What one worker counts for one backend.
#[derive(Debug, Default)]
pub struct BackendCounters {
    /// Connections for which a connect to the backend succeeded.
    pub connections: Counter,
    /// Connects that were refused, timed out or failed otherwise.
    pub connect_failures: Counter,
    /// Bytes from clients to the backend.
    pub bytes_up: Counter,
    /// Bytes from the backend to clients.
    pub bytes_down: Counter,
    /// Time of each connect that succeeded.
    pub connect_time: Histogram,
    /// Time of each connection from accept to its end.
    pub duration: Histogram,
}

/// What one thread counts for one pool.
#[derive(Debug, Default)]
pub struct PoolCounters {
    /// Time of each connect that succeeded.
    pub connect_time: Histogram,
    /// Requests that got the response of a backend, by class.
    pub responses: StatusCounters,
    /// Requests that sessile replied to itself, or that got no response, by class.
    pub local_replies: StatusCounters,
    /// Time that each client waited for a place at a full backend and got one.
    pub queue_wait: Histogram,
    /// Clients that did not get a place in time.
    pub queue_timeouts: Counter,
    /// Clients that found the line for a place full.
    pub queue_refusals: Counter,
    /// Requests that were sent over a backend connection of an earlier request.
    pub reused: Counter,
    /// Requests that another backend got, because the first has not looked at them or is gone.
    pub moved: Counter,
    /// Time of each request with a whole response, from the first byte of its head to the last byte of the response.
    pub duration: Histogram,
    /// The part of that time until the first byte of the response came from the backend.
    pub first_byte: Histogram,
}

impl PoolCounters {
    /// Counts a client that leaves a line, or finds it full, by its ending.
    pub fn count_unqueued(&self, ended: Ended) {
        match ended {
            Ended::QueueTimeout => self.queue_timeouts.add(1),
            Ended::QueueFull => self.queue_refusals.add(1),
            _ => {}
        }
    }
}

/// A counter for each class of HTTP status codes.
#[derive(Debug, Default)]
pub struct StatusCounters([Counter; Self::WORDS.len()]);

impl StatusCounters {
    /// The word of each class; the first is for a request without a response.
    pub const WORDS: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

    /// Counts one status code; 0: no response.
    #[inline]
    pub fn count(&self, status: u16) {
        // A code above 599 counts as a server error (RFC 9110 §15).
        self.0[usize::from(status / 100).min(Self::WORDS.len() - 1)].add(1);
    }

    /// Adds the counts to `sum`.
    pub fn add_to(&self, sum: &mut [u64; Self::WORDS.len()]) {
        self.0.iter().zip(sum).for_each(|(cell, total)| *total += cell.value());
    }
}

/// What one worker counts for one listener.
#[derive(Debug)]
pub struct ListenerCounters {
    /// Connections that the listener accepted.
    pub accepted: Counter,
    /// Connections that ended, by outcome: the index is `Ended as usize`.
    pub ended: [Counter; Ended::COUNT],
    /// Connections without a key, because their PROXY header said LOCAL or UNKNOWN.
    pub keyless: Counter,
    /// TLS handshakes with clients that succeeded.
    pub handshakes: Counter,
    /// TLS handshakes that resumed a session.
    pub resumed: Counter,
    /// HTTP requests by the class of what their client got.
    pub requests: StatusCounters,
}

impl Default for ListenerCounters {
    fn default() -> Self {
        Self {
            accepted: Counter::default(),
            ended: std::array::from_fn(|_| Counter::default()),
            keyless: Counter::default(),
            handshakes: Counter::default(),
            resumed: Counter::default(),
            requests: StatusCounters::default(),
        }
    }
}

/// What one worker counts about its own work.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    /// Connections that the worker holds now.
    pub connections: Counter,
    /// Listening sockets that the worker has not closed yet.
    pub acceptors: Counter,
    /// Generation of the snapshot that the worker has adopted.
    pub generation: Counter,
    /// The longest time that the worker took to adopt a snapshot, in microseconds.
    pub adopt_us_max: Counter,
    /// Steps of connections: one per batch of events or deadline.
    pub steps: Counter,
    /// Times that the worker left `epoll_wait`.
    pub wakes: Counter,
    /// Events for connections that no longer exist.
    pub stale_events: Counter,
    /// Times that accepting paused because a limit was reached.
    pub accept_paused_limit: Counter,
    /// Times that accepting paused because no descriptor was left.
    pub accept_paused_descriptors: Counter,
    /// 1 while accepting is paused, else 0.
    pub accept_paused_now: Counter,
    /// Steps that panicked; each reset one connection.
    pub panics: Counter,
    /// Turns of the event loop that took longer than 100 ms.
    pub stuck: Counter,
    /// Bytes moved by splice(2), without a copy.
    pub bytes_spliced: Counter,
    /// Pipes that the worker holds now.
    pub pipes: Counter,
    /// Large pipes among them.
    pub pipes_large: Counter,
    /// Times that a direction with bulk went on without a large pipe.
    pub pipes_denied: Counter,
    /// Connections that were handed to another worker.
    pub handed_over: Counter,
    /// Records of the access log dropped because its writer was too slow.
    pub log_dropped: Counter,
}

/// What the runtime of one worker counts about its conversations.
#[derive(Debug, Default)]
pub struct ConversationCounters {
    /// Conversations that are open now.
    pub conversations: Counter,
    /// TLS handshakes with clients that succeeded.
    pub handshakes: Counter,
    /// TLS handshakes that resumed a session.
    pub resumed: Counter,
    /// Requests with a valid head.
    pub requests: Counter,
    /// Requests that were sent over a backend connection of an earlier request.
    pub reused: Counter,
    /// Conversations that left HTTP by an Upgrade.
    pub upgrades: Counter,
    /// Connections that speak HTTP/2 now.
    pub http2_connections: Counter,
    /// Streams of HTTP/2 that were served.
    pub http2_streams: Counter,
    /// Streams of HTTP/2 that this process reset.
    pub http2_local_resets: Counter,
    /// Requests that sessile replied to itself.
    pub answers: Counter,
    /// Turns of the runtime that took longer than 100 ms.
    pub stuck: Counter,
    /// Records of the access log dropped because its writer was too slow.
    pub log_dropped: Counter,
    /// Requests that were refused, by the number of the refusal.
    pub requests_refused: WordCounters,
    /// Requests that a limit of requests ended, by the place of the ending in `Ended::OF_REQUEST_LIMITS`.
    pub requests_limited: WordCounters,
    /// Responses that were refused, by the number of the refusal.
    pub responses_refused: WordCounters,
}

/// A counter for each word of a closed list, by the number of the word.
#[derive(Debug)]
pub struct WordCounters([Counter; Self::WORDS_MAX]);

impl WordCounters {
    /// The most words that a list may have.
    pub const WORDS_MAX: usize = 64;

    /// The counter of the word with this number.
    pub fn of(&self, word: usize) -> &Counter {
        &self.0[word]
    }
}

impl Default for WordCounters {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
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

    #[test]
    fn a_status_code_is_counted_in_its_class() {
        let counters = StatusCounters::default();
        [0, 101, 200, 299, 304, 404, 500, 599, 999].into_iter().for_each(|status| counters.count(status));
        let mut sum = [1; StatusCounters::WORDS.len()];
        counters.add_to(&mut sum);
        assert_eq!(sum, [2, 2, 3, 2, 2, 4]);
    }

    #[test]
    fn longer_histograms_take_no_more_cache_lines_of_a_backend() {
        assert_eq!(size_of::<Padded<BackendCounters>>(), 384);
    }
}
