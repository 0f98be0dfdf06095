//! Counts of requests, for their listener and their pool.
//!
//! Writes no line of the log. Invariants: a request that got a line of the log is counted once at its listener, and once
//! at its pool if it had one; no clock is read: the times are those of the first byte of the head, and of the bytes of
//! the response.

use super::exchange::Exchanged;
use super::request_log::RequestLog;
use super::{HttpConnection, UpstreamConnection};
use crate::clock::Micros;
use crate::terminate::Routed;
use crate::terminate::byte_stream::ClientStream;

impl<S: ClientStream> HttpConnection<'_, S> {
    /// Counts a request with a whole response, the last byte of which the client has just been sent.
    pub(super) fn count_response(&self, log: &RequestLog, upstream: &UpstreamConnection, exchanged: &Exchanged) {
        let counters = upstream.lease.pool_counters(self.conversation.context.counters_index);
        counters.responses.count(exchanged.status);
        counters.reused.add(log.reused.into());
        let state = &self.conversation.state;
        let since_head = |time: Micros| time.saturating_sub(self.head_began);
        counters.first_byte.record_us(since_head(state.first_byte().unwrap_or(state.last_active())));
        counters.duration.record_us(since_head(state.last_active()));
        self.conversation.listener_counters().requests.count(exchanged.status);
    }

    /// Counts a request that gets a reply of this process; `status` 0: it gets none, or a part of a response.
    pub(super) fn count_local_reply(&self, log: &RequestLog, status: u16) {
        if let Some(pool) = log.counted_at.as_ref().and_then(Routed::pool) {
            pool.counters(self.conversation.context.counters_index).local_replies.count(status);
        }
        self.conversation.listener_counters().requests.count(status);
    }
}
