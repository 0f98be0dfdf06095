//! [`OwnTimeouts`]: timeouts of one listener or pool, in place of those of `[limits]`.
//!
//! Watches no connection. Invariant: the nearest one counts: the pool's, then the listener's, then that of `[limits]`.

use std::time::Duration;

use super::Limits;

/// Timeouts of a listener or a pool, with the meaning of those of [`Limits`]. The outer `None`: the wider one counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OwnTimeouts {
    /// Of a listener alone: clients have no pool yet.
    pub hello: Option<Duration>,
    /// Of a listener alone: the next request may go to another pool.
    pub keepalive: Option<Option<Duration>>,
    /// Time from the end of a request to the head of its response.
    pub response: Option<Option<Duration>>,
    /// Time without a byte inside a body.
    pub body: Option<Option<Duration>>,
    /// Time without a byte in either direction of a relay.
    pub idle: Option<Option<Duration>>,
    /// Time without a byte after one direction has closed.
    pub half_close: Option<Option<Duration>>,
    /// Greatest age of a connection.
    pub lifetime: Option<Option<Duration>>,
}

impl Limits {
    /// The limits that hold where these timeouts are nearer.
    pub fn nearer(&self, own: &OwnTimeouts) -> Self {
        Self {
            hello_timeout: own.hello.unwrap_or(self.hello_timeout),
            keepalive_timeout: own.keepalive.unwrap_or(self.keepalive_timeout),
            response_timeout: own.response.unwrap_or(self.response_timeout),
            body_timeout: own.body.unwrap_or(self.body_timeout),
            idle_timeout: own.idle.unwrap_or(self.idle_timeout),
            half_close_timeout: own.half_close.unwrap_or(self.half_close_timeout),
            lifetime: own.lifetime.unwrap_or(self.lifetime),
            ..self.clone()
        }
    }
}
