//! Limits of the requests of a conversation: the nearest ones, by the configuration in force, and what a client may request.
//!
//! Replies to no request. Invariant: a request is held to one rate, the nearest, and takes one request of it.

use super::conversation::Conversation;
use crate::clock;
use crate::config::{FIELDS_MAX, HEAD_MAX, KeyPart, RequestLimits};
use crate::http::head::{self, HeadLimits, Request};
use crate::pool::Pool;
use crate::pool::request_key::values_of;
use crate::sticky::Facts;
use crate::sticky::key::{Key, SourceAs};

/// A head that `check` allows is one that the reader takes.
const _: () = assert!(HEAD_MAX == head::HEAD_MAX && FIELDS_MAX == head::FIELDS_MAX);

/// One client has all of an IPv6 network of this length, as for limits of connections.
const SOURCE_AS: SourceAs<'_> = SourceAs::Prefix { v4: 32, v6: 64 };

impl Conversation {
    /// Most bytes of the body of a request to this pool; `u64::MAX`: no limit.
    pub fn body_max(&self, pool: &Pool) -> u64 {
        self.nearest(Some(pool), |limits| limits.body_max).flatten().unwrap_or(u64::MAX)
    }

    /// What the head of a request may hold.
    pub fn head_limits(&self) -> HeadLimits {
        let listener = self.listener();
        let limits = listener.as_ref().map(|listener| &listener.request_limits);
        HeadLimits {
            bytes: limits.and_then(|limits| limits.head_max).unwrap_or(HEAD_MAX),
            fields: limits.and_then(|limits| limits.fields_max).unwrap_or(FIELDS_MAX),
        }
    }

    /// Takes a request of what its client may make; an error: after so many seconds there is one. `subject`: that of the
    /// client's verified certificate.
    pub fn take_request(&self, pool: Option<&Pool>, request: &Request<'_>, subject: Option<&str>) -> Result<(), u32> {
        let Some(rate) = self.nearest(pool, |limits| limits.request_rate.clone()).flatten() else { return Ok(()) };
        let values = values_of([&rate.by].into_iter(), request, subject);
        let facts = Facts { values: &values, ..self.client_info.facts() };
        let owner = self.owner_of_rate(pool);
        let take = |key: &[u8]| self.permit().request_rates().take((&owner, key), &rate, clock::now() * 1_000);
        let by = |part: &KeyPart| Key::with(std::slice::from_ref(part), SOURCE_AS, &facts, take);
        // A client without a source, as a check of a balancer in front, is never refused.
        let taken = by(&rate.by).or_else(|| by(&KeyPart::Source)).unwrap_or(Ok(()));
        taken.map_err(|wait_ns| wait_ns.div_ceil(1_000_000_000).try_into().unwrap_or(u32::MAX))
    }

    /// The name of the object with the rate that a request to this pool counts for; `None`: that of all.
    fn owner_of_rate(&self, pool: Option<&Pool>) -> Option<(bool, String)> {
        let of_pool = pool.filter(|pool| pool.config().request_limits.request_rate.is_some());
        let of_listener = self.listener().filter(|listener| listener.config.request_limits.request_rate.is_some());
        let listener = || of_listener.map(|listener| (false, listener.config.name.clone()));
        of_pool.map(|pool| (true, pool.name().to_owned())).or_else(listener)
    }

    /// The nearest limit of a request that has this pool, or none.
    fn nearest<T>(&self, pool: Option<&Pool>, of: impl Fn(&RequestLimits) -> Option<T>) -> Option<T> {
        let of_pool = pool.and_then(|pool| of(&pool.config().request_limits));
        of_pool.or_else(|| self.listener().and_then(|listener| of(&listener.request_limits)))
    }
}
