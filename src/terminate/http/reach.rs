//! From a request to the connection that carries it: the backend where the client is known, or a pick → a place there →
//! a connection that is kept, or a new one.
//!
//! There are two kinds of places: those of one client at a backend (`upstreams.rs`), and those of all clients at a full one
//! (`terminate/queue.rs`). A request takes the first kind first, and holds none of the second while it waits for the first,
//! but behind a connect that has failed. Reads and sends no message. Invariant: a request that has to wait for a place is
//! picked once more behind the wait, by what is true then.

use std::rc::Rc;
use std::sync::Arc;

use super::HttpConnection;
use super::local_reply::RequestFailure;
use super::request_cookie::RequestCookie;
use super::request_log::RequestLog;
use super::upstreams::{Place, UpstreamConnection};
use crate::clock::{self, Micros};
use crate::config::PoolHttp;
use crate::fault::Endpoint;
use crate::http::answer::StatusCode;
use crate::outcome::{Ended, PickReason};
use crate::pool::{AwaitedPlace, Backend, Holds, Lease, Pick, PickScene, Pool, QueueVisit, Remember};
use crate::sticky::{Facts, Left};
use crate::terminate::byte_stream::ClientStream;
use crate::terminate::connect::{Connected, Connector, Unchosen};
use crate::terminate::deadline::until;
use crate::terminate::follow::{FirstTurn, Follow, Turn};
use crate::terminate::http2::backend::BackendConnection;
use crate::terminate::state::ConversationStage;

/// Longest wait of a request for another one that is placed first.
const TURN_WAIT: Micros = 2_000_000;

/// Why a request has no connection to a backend.
pub enum Unreached {
    /// The request failed.
    Failed(RequestFailure),
    /// A reload has replaced its pool while it waited for a place: it is routed once more.
    RouteAgain,
}

impl From<RequestFailure> for Unreached {
    fn from(failure: RequestFailure) -> Self {
        Self::Failed(failure)
    }
}

/// A connection to the backend of a request.
pub struct Reached {
    pub upstream: UpstreamConnection,
    /// Index of the backend in the pool.
    pub backend: usize,
    /// The backend at which the client was known, if it got another one.
    pub left: Option<Left>,
    /// Entry that the stick table gets for the client.
    pub remember: Option<Remember>,
}

impl<S: ClientStream> HttpConnection<'_, S> {
    /// Asks the store for the cookie of a request, where it may know more.
    pub(super) async fn look_up(&self, cookie: &mut RequestCookie<'_>, facts: &Facts<'_>) {
        let is_held = |backend: &Arc<Backend>| self.shared.upstreams.holds(backend);
        let scene = PickScene { holds: self.holds(&is_held), ..PickScene::new(facts, &[], clock::now_ms()) };
        self.client.stream.meanwhile(cookie.look_up_in_store(&self.conversation.context, scene)).await;
    }

    /// Finds a backend and a connection to it. `follow`: where other requests of the client went that brought no cookie,
    /// as this one; a first one among them keeps the others waiting until it is connected. `gone`: backends that had
    /// the request and do not serve it. `visit`: its way through the lines of full backends.
    pub(super) async fn reach<'p>(
        &self,
        connector: &Connector<'p>,
        cookie: &mut RequestCookie<'p>,
        (facts, follow, gone): (&Facts<'_>, Option<&Follow>, &[Arc<Backend>]),
        log: &mut RequestLog,
        visit: &mut QueueVisit,
    ) -> Result<Reached, Unreached> {
        let (context, pool) = (&self.conversation.context, connector.pool);
        let stream = &self.client.stream;
        let mut turn = None;
        let (pick, mut place) = self.pick(connector, cookie, (facts, follow, gone), &mut turn, visit).await?;
        log.picked = true;

        let reached = match self.shared.upstreams.take(pick.backend) {
            Some(kept) => {
                log.reused = true;
                context.counters().reused.add(1);
                self.conversation.state.enter(ConversationStage::Reuse { pick: &pick });
                let Pick { index, left, remember, .. } = pick;
                // A place for making a connection of HTTP/2 is not needed any more.
                let place = place.filter(|_| !kept.stream.is_http2());
                Reached { upstream: UpstreamConnection { place, ..kept }, backend: index, left, remember }
            }
            None => {
                let (mut first, mut late) = (Some(pick), None);
                let choose = async |tried: &[_]| {
                    if let Some(pick) = first.take()
                        && let Some(lease) = connector.lease(visit, pick.backend)
                    {
                        return Ok((pick, lease));
                    }
                    // Others may wait for it.
                    place = None;
                    let beside = take_turn(follow, &mut turn, pool, facts, tried).await;
                    let scene = || PickScene { beside, ..PickScene::new(facts, tried, clock::now_ms()) };
                    // The store may have moved the client meanwhile.
                    cookie.look_up_in_store(context, scene()).await;
                    let chosen = connector.choose(visit, |holds| {
                        pool.pick_or_wait(&PickScene { cookie: cookie.backend(), holds, ..scene() })
                    });
                    let (pick, lease) = chosen.await?;
                    match self.place(pool, pick.backend).await {
                        Ok((taken, _)) => place = taken,
                        Err(failure) => {
                            late = Some(failure);
                            return Err(Unchosen::Ended(failure.ended));
                        }
                    }
                    Ok((pick, lease))
                };
                let connected = connector.connect_for(stream, gone, choose).await;
                let connected = connected.map_err(|ended| late.unwrap_or(RequestFailure::not_connected(ended)))?;
                let Connected { index, left, remember, .. } = connected;
                let upstream = self.begin(pool, connected, place).await?;
                Reached { upstream, backend: index, left, remember }
            }
        };
        // A connection that was kept needs no place that the client was given.
        *visit = QueueVisit::default();
        self.shared.note_placed(pool, reached.upstream.lease.backend(), follow.is_some());
        drop(turn);
        Ok(reached)
    }

    /// Gets a fresh connection to the same backend, and to no other.
    pub(super) async fn reconnect(
        &self,
        connector: &Connector<'_>,
        upstream: &mut UpstreamConnection,
        index: usize,
    ) -> Result<UpstreamConnection, RequestFailure> {
        let backend = upstream.lease.backend();
        let mut place = upstream.place.take();
        if upstream.stream.is_http2() {
            place = self.place(connector.pool, backend).await?.0;
            if let Some(upstream) = self.shared.upstreams.take(backend) {
                return Ok(upstream);
            }
        }
        let choose = async |tried: &[_]| {
            let reason = self.conversation.state.reason().unwrap_or(PickReason::Placement);
            let pick = Pick { backend, index, reason, keyed: true, range: None, left: None, remember: None };
            // Its place was that of the connection which has just ended.
            tried.is_empty().then(|| (pick, Lease::new(backend))).ok_or(Unchosen::NoBackend)
        };
        let connected = connector.connect_for(&self.client.stream, &[], choose).await;
        let connected = connected.map_err(RequestFailure::not_connected)?;
        self.conversation.state.enter(ConversationStage::Exchange);
        self.begin(connector.pool, connected, place).await
    }

    /// Makes what carries a request of a new connection to a backend.
    async fn begin(
        &self,
        pool: &Pool,
        connected: Connected,
        place: Option<Place>,
    ) -> Result<UpstreamConnection, RequestFailure> {
        if pool.config().http != PoolHttp::Http2 {
            return Ok(UpstreamConnection::new(connected, place));
        }
        let Connected { stream, lease, first_byte, .. } = connected;
        if let Some(kept) = self.shared.upstreams.take(lease.backend()) {
            // The request was placed there behind a failure elsewhere, or other requests have connected meanwhile.
            return Ok(kept);
        }
        let streams = self.conversation.context.current.load().config.limits.http2_streams;
        let begun = BackendConnection::begin(stream, Rc::new(lease), streams).await;
        // Others wait for the place, to find the connection.
        let connection = begun.map_err(|fault| RequestFailure::not_connected(fault.connect_failure().ended()))?;
        Ok(UpstreamConnection { first_byte, ..self.shared.upstreams.begin(&connection) })
    }

    /// Picks a backend and takes a place there, for which the request may have to wait: for its client's, and in the line
    /// of a full backend.
    async fn pick<'p, 'f>(
        &self,
        connector: &Connector<'p>,
        cookie: &RequestCookie<'_>,
        (facts, follow, gone): (&Facts<'_>, Option<&'f Follow>, &[Arc<Backend>]),
        turn: &mut Option<FirstTurn<'f>>,
        visit: &mut QueueVisit,
    ) -> Result<(Pick<'p>, Option<Place>), Unreached> {
        let (pool, stream) = (connector.pool, &self.client.stream);
        let mut taken: Option<(&Arc<Backend>, Option<Place>)> = None;
        loop {
            connector.wait_for_settled(stream, cookie.backend(), facts).await.map_err(RequestFailure::not_connected)?;
            let beside = self.unless_gone(take_turn(follow, turn, pool, facts, gone)).await?;
            let picked = visit.pick_with(|given| self.pick_now(pool, (cookie, facts, gone), beside, given));
            let at = match &picked {
                Ok(pick) => Some(pick.backend),
                Err(Some(AwaitedPlace::At(index))) => pool.backends().get(*index),
                Err(Some(AwaitedPlace::AtAny(_))) => None,
                Err(None) => Err(RequestFailure::not_connected(pool.why_nobody(clock::now_ms())))?,
            };
            let kept = taken.take().filter(|(of, _)| at.is_some_and(|at| Arc::ptr_eq(of, at)));
            let (place, waited) = match (kept, at) {
                (Some((_, place)), _) => (place, false),
                (None, Some(at)) => {
                    if visit.has_place() && !self.shared.upstreams.has_place(at, is_http2(pool)) {
                        visit.pass_on();
                    }
                    self.place(pool, at).await?
                }
                (None, None) => (None, false),
            };
            match picked {
                Ok(pick) if !waited => return Ok((pick, place)),
                Err(Some(awaited)) if !waited => {
                    taken = at.map(|at| (at, place));
                    let waits = connector.wait_in_line(visit, &awaited, stream.gone());
                    waits.await.map_err(RequestFailure::not_connected)?;
                    if connector.is_replaced() {
                        return Err(Unreached::RouteAgain);
                    }
                }
                _ => taken = at.map(|at| (at, place)),
            }
        }
    }

    /// Picks by what is true now; `given`: where the client was given a place.
    fn pick_now<'p>(
        &self,
        pool: &'p Pool,
        (cookie, facts, gone): (&RequestCookie<'_>, &Facts<'_>, &[Arc<Backend>]),
        beside: Option<usize>,
        given: Option<Holds<'_>>,
    ) -> Result<Pick<'p>, Option<AwaitedPlace>> {
        let is_held =
            |backend: &Arc<Backend>| self.shared.upstreams.holds(backend) || given.is_some_and(|given| given(backend));
        let holds = if given.is_some() { Some(&is_held as Holds<'_>) } else { self.holds(&is_held) };
        let scene = PickScene { holds, ..PickScene::new(facts, gone, clock::now_ms()) };
        pool.pick_or_wait(&PickScene { cookie: cookie.backend(), beside, ..scene })
    }

    /// Takes a place at a backend within `response_timeout`; the result says too whether it had to be waited for.
    pub(super) async fn place(
        &self,
        pool: &Pool,
        backend: &Arc<Backend>,
    ) -> Result<(Option<Place>, bool), RequestFailure> {
        let place = Box::pin(self.unless_gone(self.shared.upstreams.place(backend, is_http2(pool))));
        let late = || RequestFailure::with_reply(Ended::ResponseTimeout, StatusCode::GatewayTimeout);
        match self.conversation.timeouts(Some(pool)).response {
            Some(limit) => until(clock::now() + limit, place).await.ok_or_else(late)?,
            None => place.await,
        }
    }

    /// What a pick is told of the connections that are kept.
    fn holds<'h>(&self, is_held: Holds<'h>) -> Option<Holds<'h>> {
        (!self.shared.upstreams.is_empty()).then_some(is_held)
    }

    /// Awaits something for as long as the client is there.
    async fn unless_gone<T>(&self, wait: impl Future<Output = T>) -> Result<T, RequestFailure> {
        tokio::select! {
            biased;
            ready = wait => Ok(ready),
            fault = self.client.stream.broken() => {
                Err(RequestFailure::without_reply(fault.ending(Endpoint::Client)))
            }
        }
    }
}

/// True if the pool's backends speak HTTP/2.
fn is_http2(pool: &Pool) -> bool {
    pool.config().http == PoolHttp::Http2
}

/// Takes the turn to place a request, if those that bring no cookie have no backend that can serve it; the caller keeps
/// it until the request is placed. Returns the index of the backend that this one follows to. `tried`: backends that it
/// could not reach.
async fn take_turn<'f>(
    follow: Option<&'f Follow>,
    turn: &mut Option<FirstTurn<'f>>,
    pool: &Pool,
    facts: &Facts<'_>,
    tried: &[Arc<Backend>],
) -> Option<usize> {
    let serves = |index: usize| {
        let is_tried = |backend: &Arc<Backend>| tried.iter().any(|tried| Arc::ptr_eq(tried, backend));
        pool.can_have(index, &PickScene::new(facts, tried, clock::now_ms()))
            && !pool.backends().get(index).is_some_and(is_tried)
    };
    let follow = follow.filter(|_| turn.is_none())?;
    // A connect that takes long does not hold up all the others.
    match until(clock::now() + TURN_WAIT, follow.turn(pool, serves)).await? {
        Turn::Follows(index) => return Some(index),
        Turn::First(first) => *turn = Some(first),
        Turn::Alone => {}
    }
    None
}
