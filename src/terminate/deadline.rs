//! [`Deadline`]: the only timer of a conversation, and [`Timeouts`], copied from the configuration.
//!
//! Arriving bytes do not touch the timer: each poll passes the deadline that holds now; the timer sleeps until the
//! earliest one so far and compares again when it wakes. Invariant: it fires at a deadline or up to two milliseconds
//! after it, never before.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::clock::{self, Micros};
use crate::config::{self, OwnTimeouts};

/// How long bytes of a client are read and dropped after the last byte to it: a reset would remove that from its buffer
/// unread.
pub const LINGER: Micros = 1_000_000;

/// Longest time that a conversation takes to end in good order by itself once it is cancelled.
pub const CLOSING_MAX: Duration = Duration::from_secs(3);

/// Timeouts of requests, in microseconds, copied so that no conversation holds a configuration while it waits.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// From the first byte of a request's head to its last: `hello_timeout`.
    pub head: Micros,
    /// From the end of a response to the next request: `keepalive_timeout`.
    pub kept: Option<Micros>,
    /// From the end of a request to the head of its response: `response_timeout`.
    pub response: Option<Micros>,
    /// Between two bytes of a body: `body_timeout`.
    pub body: Option<Micros>,
}

impl Timeouts {
    /// Converts the timeouts of a configuration, with nearer ones in the order of their nearness.
    pub fn of<'o>(limits: &config::Limits, nearer: impl IntoIterator<Item = &'o OwnTimeouts>) -> Self {
        let us = |limit: Duration| limit.as_micros() as Micros;
        let mut timeouts = Self {
            head: us(limits.hello_timeout),
            kept: limits.keepalive_timeout.map(us),
            response: limits.response_timeout.map(us),
            body: limits.body_timeout.map(us),
        };
        for own in nearer {
            timeouts = Self {
                head: own.hello.map_or(timeouts.head, us),
                kept: own.keepalive.map_or(timeouts.kept, |own| own.map(us)),
                response: own.response.map_or(timeouts.response, |own| own.map(us)),
                body: own.body.map_or(timeouts.body, |own| own.map(us)),
            };
        }
        timeouts
    }
}

/// A timer that is set only for the first deadline, for an earlier one, and when it wakes too early.
#[derive(Debug, Default)]
pub struct Deadline {
    sleep: Option<Pin<Box<Sleep>>>,
    set_to: Micros,
}

impl Deadline {
    /// Ready once `deadline` has passed; each poll may pass another deadline.
    pub fn poll(&mut self, cx: &mut Context<'_>, deadline: Micros) -> Poll<()> {
        let sleep = self.sleep.get_or_insert_with(|| {
            self.set_to = deadline;
            Box::pin(tokio::time::sleep_until(instant(deadline)))
        });
        if deadline < self.set_to {
            self.set_to = deadline;
            sleep.as_mut().reset(instant(deadline));
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if clock::now() >= deadline {
                return Poll::Ready(());
            }
            self.set_to = deadline;
            sleep.as_mut().reset(instant(deadline));
        }
    }
}

fn instant(deadline: Micros) -> Instant {
    Instant::now() + Duration::from_micros(deadline.saturating_sub(clock::now()))
}

/// Runs a future until `deadline` at most; `None`: it was not ready by then.
pub async fn until<T>(deadline: Micros, future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout_at(instant(deadline), future).await.ok()
}
