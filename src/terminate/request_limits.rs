//! Limits of the requests of a conversation: the nearest ones, by the rules that have routed each, and what a client
//! may request.
//!
//! Replies to no request. Invariant: a request is held to one rate, the nearest, and takes one request of it; where no
//! rate is set, that is found out by a look at its pool and its listener.

use super::Routed;
use super::conversation::Conversation;
use crate::clock::{self, Micros};
use crate::config::{self, FIELDS_MAX, HEAD_MAX, KeyPart, RequestLimits, RequestRate};
use crate::http::head::{self, HeadLimits, Request};
use crate::pool::request_key::values_of;
use crate::snapshot::Listener;
use crate::sticky::Facts;
use crate::sticky::key::{Key, SourceAs};

/// A head that `check` allows is one that the reader takes.
const _: () = assert!(HEAD_MAX == head::HEAD_MAX && FIELDS_MAX == head::FIELDS_MAX);

/// One client has all of an IPv6 network of this length, as for limits of connections.
const SOURCE_AS: SourceAs<'_> = SourceAs::Prefix { v4: 32, v6: 64 };

/// What bounds the body of a request.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimits {
    /// Most bytes; `u64::MAX`: no limit.
    pub most: u64,
    /// Least bytes a second; `None`: no limit.
    pub rate_min: Option<u64>,
    /// Most time; `None`: no limit.
    pub time_max: Option<Micros>,
}

impl Routed {
    /// What bounds the body of the request.
    pub(super) fn body_limits(&self) -> BodyLimits {
        let time_max = self.nearest(|limits| limits.body_time_max).flatten();
        BodyLimits {
            most: self.nearest(|limits| limits.body_max).flatten().unwrap_or(u64::MAX),
            rate_min: self.nearest(|limits| limits.body_rate_min).flatten(),
            time_max: time_max.map(|limit| limit.as_micros() as Micros),
        }
    }

    /// Number of the request behind which the client's connection ends; `u64::MAX`: no limit.
    pub(super) fn requests_max(&self) -> u64 {
        requests_max(&self.listener)
    }

    /// The rate that the request counts for, and what it belongs to: a pool or not, by name; `None`: that of all.
    fn rate(&self) -> Option<(&RequestRate, Option<(bool, &str)>)> {
        let pool = self.pool().filter(|pool| pool.config().request_limits.request_rate.is_some());
        if let Some(pool) = pool {
            return Some((pool.config().request_limits.request_rate.as_ref()?.as_ref()?, Some((true, pool.name()))));
        }
        let config::Listener { request_limits: own, name, .. } = &self.listener.config;
        let owner = own.request_rate.as_ref().map(|_| (false, name.as_str()));
        Some((self.listener.request_limits.request_rate.as_ref()?.as_ref()?, owner))
    }

    /// The nearest limit of the request.
    fn nearest<T>(&self, of: impl Fn(&RequestLimits) -> Option<T>) -> Option<T> {
        let of_pool = self.pool().and_then(|pool| of(&pool.config().request_limits));
        of_pool.or_else(|| of(&self.listener.request_limits))
    }
}

impl Conversation {
    /// What the head of a request may hold.
    pub fn head_limits(&self) -> HeadLimits {
        let listener = self.listener();
        let limits = listener.as_ref().map(|listener| &listener.request_limits);
        HeadLimits {
            bytes: limits.and_then(|limits| limits.head_max).unwrap_or(HEAD_MAX),
            fields: limits.and_then(|limits| limits.fields_max).unwrap_or(FIELDS_MAX),
        }
    }

    /// Number of the request behind which the connection ends, by the rules in force now; `u64::MAX`: no limit.
    pub fn requests_max(&self) -> u64 {
        self.listener().map_or(u64::MAX, |listener| requests_max(&listener))
    }

    /// Takes a request of what its client may make; an error: after so many seconds there is one. `subject`: that of the
    /// client's verified certificate.
    pub(super) fn take_request(
        &self,
        routed: &Routed,
        request: &Request<'_>,
        subject: Option<&str>,
    ) -> Result<(), u32> {
        let Some((rate, owner)) = routed.rate() else { return Ok(()) };
        let values = values_of([&rate.by].into_iter(), request, subject);
        let facts = Facts { values: &values, ..self.client_info.facts() };
        let take = |key: &[u8]| self.permit().request_rates().take((owner, key), rate, clock::now() * 1_000);
        let by = |part: &KeyPart| Key::with(std::slice::from_ref(part), SOURCE_AS, &facts, take);
        // A client without a source, as a check of a balancer in front, is never refused.
        let taken = by(&rate.by).or_else(|| by(&KeyPart::Source)).unwrap_or(Ok(()));
        taken.map_err(|wait_ns| wait_ns.div_ceil(1_000_000_000).try_into().unwrap_or(u32::MAX))
    }
}

fn requests_max(listener: &Listener) -> u64 {
    listener.request_limits.requests_max.flatten().unwrap_or(u64::MAX)
}
