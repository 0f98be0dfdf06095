//! [`RequestSplit`]: the pool that a split has chosen for a request, and the split's cookie in request and response.
//!
//! Chooses nothing itself ([`Split::choose`] does). Invariant: a client gets the cookie of a split only with the response
//! of a backend of the pool that was chosen, so a pool that serves nothing keeps no client that is new.

use std::sync::Arc;

use crate::clock;
use crate::connection::ClientInfo;
use crate::http::edit::CookieNames;
use crate::http::head::Request;
use crate::pool::Pool;
use crate::pool::request_key::{values_of, values_of_key};
use crate::split::{ChosenBy, Split, SplitChoice};
use crate::sticky::cookie::CookieVerdict;
use crate::sticky::{ClientMemory, Facts};
use crate::terminate::Routed;
use crate::terminate::follow::Follow;
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
    /// Chooses the pool of a request, and has the route lead there; `None`: its route leads to no split. Without a valid
    /// cookie it follows the others of its connection. `subject`: that of the client's verified certificate.
    pub fn choose(
        routed: &mut Routed,
        (request, subject): (&Request<'_>, Option<&str>),
        client_info: &ClientInfo,
        follow: Option<&Follow>,
    ) -> Option<Self> {
        let split = Arc::clone(routed.listener.split(&routed.target)?);
        let now = clock::unix_s();
        if split.is_by_key() {
            let choice = choose_by_key(&split, &routed.listener.pools, (request, subject), client_info);
            routed.target.pool = split.members().get(choice.member).map(|member| member.pool);
            return Some(Self { split, choice, verdict: None, now });
        }
        let verdict = split.read(request, now);
        let takes_new =
            |pool: usize| routed.listener.pools.get(pool).is_some_and(|pool| pool.takes_new(clock::now_ms()));
        let followed = follow.and_then(|follow| split.index_of(&follow.pool_of_split(split.name())?));
        let choice = split.choose(verdict, followed, takes_new);
        if let Some((follow, pool)) = follow.zip(split.members().get(choice.member)) {
            follow.note_split(split.name(), &pool.name, choice.by == ChosenBy::Cookie);
        }
        routed.target.pool = split.members().get(choice.member).map(|member| member.pool);
        Some(Self { split, choice, verdict, now })
    }

    /// Counts the request among those of its pool.
    pub fn count(&self, context: &RuntimeContext) {
        self.split.count(self.choice, context.counters_index);
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

/// The choice for a request of a split that knows clients by a key. Each pool looks for the client by its own key.
fn choose_by_key(
    split: &Split,
    pools: &[Arc<Pool>],
    (request, subject): (&Request<'_>, Option<&str>),
    client_info: &ClientInfo,
) -> SplitChoice {
    let (now_ms, values) = (clock::now_ms(), values_of(split.key().iter(), request, subject));
    let facts = Facts { values: &values, ..client_info.facts() };
    let memory = |pool: usize| {
        let Some(pool) = pools.get(pool) else { return ClientMemory::None };
        let values = values_of_key(pool, request, subject);
        pool.memory_of(&Facts { values: &values, ..facts }, now_ms)
    };
    let takes_new = |pool: usize| pools.get(pool).is_some_and(|pool| pool.takes_new(now_ms));
    split.choose_by_key(&facts, client_info.id, memory, takes_new)
}
