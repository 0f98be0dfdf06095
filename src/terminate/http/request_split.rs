//! [`RequestSplit`]: the pool that a split has chosen for a request, and the split's cookie in request and response.
//!
//! Chooses nothing itself ([`Split::choose`] does). Invariant: a client gets the cookie of a split only with the response
//! of a backend of the pool that was chosen, so a pool that serves nothing keeps no client that is new.

use std::sync::Arc;

use super::shared::Shared;
use crate::clock;
use crate::http::edit::CookieNames;
use crate::http::head::Request;
use crate::split::{Split, SplitChoice};
use crate::sticky::cookie::CookieVerdict;
use crate::terminate::Routed;
use crate::terminate::runtime::RuntimeContext;

/// The choice of a split for one request.
pub struct RequestSplit {
    pub split: Arc<Split>,
    pub choice: SplitChoice,
    verdict: Option<CookieVerdict>,
    /// Time of the request in seconds since 1970.
    now: u64,
}

impl RequestSplit {
    /// Chooses the pool of a request, counts it, and has the route lead there; `None`: its route leads to no split.
    pub fn choose(routed: &mut Routed, request: &Request<'_>, shared: &Shared<'_>) -> Option<Self> {
        let split = Arc::clone(routed.listener.split(&routed.target)?);
        let now = clock::unix_s();
        let verdict = split.read(request, now);
        let takes_new =
            |pool: usize| routed.listener.pools.get(pool).is_some_and(|pool| pool.takes_new(clock::now_ms()));
        let choice = shared.choose(&split, verdict, takes_new);
        split.count(choice, context.counters_index);
        routed.target.pool = split.members().get(choice.member).map(|member| member.pool);
        Some(Self { split, choice, verdict, now })
    }

    /// Names of the split's cookie, which backends neither get nor set.
    pub fn cookie_names(&self) -> Option<CookieNames<'_>> {
        self.split.cookie_names()
    }

    /// The `Set-Cookie` lines of the split and its twin for a response; `switches`: to another protocol, for which the
    /// browser's copy ages while that is spoken.
    pub fn set_cookies(&self, switches: bool, tls: bool, context: &RuntimeContext) -> [Option<String>; 2] {
        self.split.set_cookies((self.verdict, self.choice), (self.now, tls), switches, || context.nonce())
    }
}
