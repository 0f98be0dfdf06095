//! The one timer of a conversation.
//!
//! Bytes do not touch it: it is asked with the deadline of the moment, sleeps until the first one it was asked for, and
//! looks again when it wakes. Invariant: it fires at a deadline or up to two milliseconds after it, never before.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::clock::{self, Micros};
use crate::config;

/// The limits of a conversation, copied so that nobody holds a configuration while waiting.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// From the first byte of a head to its last.
    pub head: Micros,
    /// A kept connection without another request.
    pub kept: Option<Micros>,
    /// From the end of a request to the head of its response.
    pub response: Option<Micros>,
    /// No byte of a body that has begun.
    pub body: Option<Micros>,
}

impl Timeouts {
    /// Those of a configuration.
    pub fn of(limits: &config::Limits) -> Self {
        let us = |limit: Option<Duration>| limit.map(|limit| limit.as_micros() as Micros);
        Self {
            head: limits.hello_timeout.as_micros() as Micros,
            kept: us(limits.keepalive_timeout),
            response: us(limits.response_timeout),
            body: us(limits.body_timeout),
        }
    }
}

/// A timer that moves only when it has to.
#[derive(Debug, Default)]
pub struct Deadline {
    sleep: Option<Pin<Box<Sleep>>>,
    set_to: Micros,
}

impl Deadline {
    /// Ready once `deadline` has passed.
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

/// Lets something take until `deadline` at most.
pub async fn until<T>(deadline: Micros, what: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout_at(instant(deadline), what).await.ok()
}
