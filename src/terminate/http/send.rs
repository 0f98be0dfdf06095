//! Sends a request: to its backend, once more there, or to the next one.
//!
//! A request may be sent again as long as no byte of a response has come: if its backend says that it has not looked at
//! it (HTTP/2), and nothing of its body was sent; or if a kept connection turned out to be closed, and the request
//! changes nothing and has no body. The same backend has it once more, over another connection. If that cannot be
//! connected, or does not look at the request either, the next candidate has it: the request is placed as behind a
//! connect that has failed, with the same words in the log. Reads no head. Invariant: a request that a backend may have
//! processed is sent to no other one unless it changes nothing.

use std::sync::Arc;

use h2::Reason;

use super::HttpConnection;
use super::exchange::{Exchange, Exchanged};
use super::header_rules::SetHeaders;
use super::local_reply::RequestFailure;
use super::reach::Reached;
use super::request_cookie::{RequestCookie, ResponseWriter};
use super::request_log::RequestLog;
use super::upstreams::UpstreamConnection;
use crate::attempt::{BackendEnd, Silence};
use crate::clock;
use crate::http::head::{RequestReader, ResponseReader};
use crate::http::{Framing, Method};
use crate::outcome::{Ended, Party, PickReason};
use crate::pool::request_key::values_of_key;
use crate::pool::{Backend, Pool, QueueVisit};
use crate::sticky::Facts;
use crate::terminate::byte_stream::ClientStream;
use crate::terminate::connect::Connector;
use crate::terminate::follow::Follow;
use crate::terminate::request_limits::BodyLimits;
use crate::terminate::state::ConversationStage;

/// A request as its backend gets it.
pub(super) struct RequestMessage {
    pub head: Vec<u8>,
    /// The head as the client has sent it; empty: no other backend may get the request.
    pub received: Vec<u8>,
    pub framing: Framing,
    /// What bounds the body.
    pub body_limits: BodyLimits,
    /// The client waits for 100 before it sends the body.
    pub waits_for_100: bool,
}

/// What is the same for a request wherever it goes in its pool.
pub(super) struct Way<'w, 'p> {
    pub connector: &'w Connector<'p>,
    /// Where the parts of its head are.
    pub head: &'w RequestReader,
    /// Where other requests of the client went that brought no cookie, as this one.
    pub follow: Option<&'w Follow>,
    /// Header fields of its response that the pool sets.
    pub set: &'w SetHeaders<'w>,
    /// True if the client used TLS.
    pub tls: bool,
    /// True if the client's connection ends behind the response.
    pub is_last: bool,
}

/// Why a backend gave no response.
enum Unsent {
    /// The request failed.
    Failed(RequestFailure),
    /// Another backend is to have it.
    Elsewhere(BackendRefusal),
}

/// A backend that is gone, or has not looked at a request.
struct BackendRefusal {
    backend: Arc<Backend>,
    /// What the request fails with if no other backend can have it.
    failure: RequestFailure,
    /// The code by which the backend has reset the stream.
    reason: Option<Reason>,
}

impl<S: ClientStream> HttpConnection<'_, S> {
    /// Sends the request and passes the response on: of the backend that was reached, or of the next one that takes it.
    pub(super) async fn send<'p>(
        &mut self,
        way: &Way<'_, 'p>,
        cookie: &mut RequestCookie<'p>,
        (mut reached, mut message): (Reached, RequestMessage),
        (log, response, visit): (&mut RequestLog, &mut ResponseReader, &mut QueueVisit),
    ) -> Result<(UpstreamConnection, Exchanged), RequestFailure> {
        let Way { connector, follow, set, tls, .. } = *way;
        let (conversation, mut gone, mut until_ms) = (self.conversation, Vec::new(), None);
        let was_known = self.was_known(connector.pool);
        loop {
            let writer = ResponseWriter {
                cookie: &*cookie,
                backend: reached.backend,
                request: log.meta,
                tls,
                set,
                follow,
                accept: self.accept,
                conversation,
            };
            let sent = self.send_to(way, log, reached.upstream, &mut message, (&writer, response)).await;
            let BackendRefusal { backend, failure, reason } = match sent {
                Ok(exchanged) => return Ok(exchanged),
                Err(Unsent::Failed(failure)) => return Err(failure),
                Err(Unsent::Elsewhere(refusal)) => refusal,
            };
            gone.push(backend);
            let now_ms = clock::now_ms();
            let budget_ms = connector.pool.config().connect_budget.as_millis() as u64;
            let is_over = now_ms >= *until_ms.get_or_insert(now_ms + budget_ms) || message.received.is_empty();
            let next = match is_over {
                true => None,
                // In memory of its own: hardly any request needs it.
                false => {
                    let refused = (&message.received[..], &gone[..], was_known);
                    Box::pin(self.place_again(way, cookie, refused, log, visit)).await
                }
            };
            match next {
                Some(next) => reached = next,
                // What no backend has looked at, the client may send again itself.
                None => return Err(self.after_reset(failure, reason)),
            }
        }
    }

    /// Whether the client of a request that has its first place was known before. Without a stick table it is known where
    /// its key belongs.
    fn was_known(&self, pool: &Pool) -> bool {
        use PickReason::{Connection, Cookie, StickTable};
        pool.table().is_none() || matches!(self.conversation.state.reason(), Some(Cookie | StickTable | Connection))
    }

    /// Places a request anew, beyond backends that do not serve it; `None`: no other one can. No backend has served the
    /// client meanwhile: it moves once, from the one that it had before the request.
    async fn place_again<'p>(
        &self,
        way: &Way<'_, 'p>,
        cookie: &mut RequestCookie<'p>,
        (received, gone, was_known): (&[u8], &[Arc<Backend>], bool),
        log: &mut RequestLog,
        visit: &mut QueueVisit,
    ) -> Option<Reached> {
        let (pool, request) = (way.connector.pool, way.head.request(received));
        let values = values_of_key(pool, &request, self.shared.secured.subject.as_deref());
        let facts = Facts { values: &values, ..self.conversation.client_info.facts() };
        log.reused = false;
        // Routed anew it cannot be: what fails now has failed before.
        let reached = self.reach(way.connector, cookie, (&facts, way.follow, gone), log, visit).await.ok()?;
        let (state, context) = (&self.conversation.state, &self.conversation.context);
        match state.take_move() {
            Some(moved) => {
                self.place_at(pool, cookie, &reached, None);
                state.keep_move(moved);
                let (id, to) = (self.conversation.client_info.id, reached.upstream.lease.backend().name_shared());
                context.history.went_on(context.counters_index, id, to);
            }
            None if was_known => self.settle(pool, cookie, &reached, &request),
            None => self.place_at(pool, cookie, &reached, None),
        }
        pool.counters(context.counters_index).moved.add(1);
        Some(reached)
    }

    /// Sends the request to one backend; once more over another connection, if that is possible.
    async fn send_to(
        &mut self,
        way: &Way<'_, '_>,
        log: &mut RequestLog,
        mut upstream: UpstreamConnection,
        message: &mut RequestMessage,
        (writer, response): (&ResponseWriter<'_>, &mut ResponseReader),
    ) -> Result<(UpstreamConnection, Exchanged), Unsent> {
        let (conversation, connector) = (self.conversation, way.connector);
        let limits = conversation.timeouts(Some(connector.pool));
        let may_be_repeated = may_be_repeated(log.meta.method, message.framing);
        let mut was_repeated = false;
        conversation.state.enter(ConversationStage::Exchange);
        loop {
            let is_http2 = upstream.stream.is_http2();
            let exchange = Exchange {
                conversation,
                client: &mut self.client,
                upstream: &mut upstream,
                head: &mut message.head,
                received: &mut message.received,
                // A backend of HTTP/2 may say that it has not looked at the request.
                repeatable: log.reused && may_be_repeated || is_http2,
                framing: message.framing,
                body_limits: message.body_limits,
                waits_for_100: message.waits_for_100,
                is_last: way.is_last,
                writer,
                response: &mut *response,
                limits,
                deadline: &mut self.deadline,
            };
            let failure = match exchange.run().await {
                Ok(exchanged) => return Ok((upstream, exchanged)),
                Err(failure) => failure,
            };
            let may_be_sent_again = failure.unprocessed || failure.no_response && log.reused;
            if !may_be_sent_again {
                self.judge_silence(&mut upstream, &failure);
                return Err(Unsent::Failed(self.after_reset(failure, upstream.stream.reset_reason())));
            }
            if !failure.unprocessed && !may_be_repeated {
                // The backend may have processed the request before it closed. Only the client can decide to repeat it.
                self.client.stream.reset_on_drop(false);
                return Err(Unsent::Failed(RequestFailure::without_reply(Ended::KeptClosed)));
            }
            let reason = upstream.stream.reset_reason().filter(|_| failure.unprocessed);
            let backend = Arc::clone(upstream.lease.backend());
            if std::mem::replace(&mut was_repeated, true) {
                return Err(Unsent::Elsewhere(BackendRefusal { backend, failure, reason }));
            }
            upstream = match self.reconnect(connector, &mut upstream, writer.backend).await {
                Ok(again) => again,
                Err(failure) => {
                    let is_gone = failure.ended.fault() == Party::Backend && failure.ended != Ended::ResponseTimeout;
                    return Err(match is_gone {
                        true => Unsent::Elsewhere(BackendRefusal { backend, failure, reason }),
                        false => Unsent::Failed(self.after_reset(failure, reason)),
                    });
                }
            };
            log.reused = false;
        }
    }

    /// Counts a fresh connection as failed if the backend has ended it without a byte of a response.
    fn judge_silence(&self, upstream: &mut UpstreamConnection, failure: &RequestFailure) {
        let backend = match failure.ended {
            Ended::ResponseCut if failure.no_response => Some(BackendEnd::Closed),
            Ended::BackendReset if failure.no_response => Some(BackendEnd::Reset),
            _ => None,
        };
        let source = self.conversation.client_info.counted_source();
        let silence = Silence { backend, client_has_sent: true, client_has_ended: false, source };
        let backend = upstream.lease.backend();
        let pool = || self.conversation.context.current.load().pool_of(backend).cloned();
        upstream.first_byte.missed(silence, backend, pool, clock::now_ms());
    }

    /// The failure of a request, if the backend has reset its stream for this reason.
    fn after_reset(&mut self, failure: RequestFailure, reason: Option<Reason>) -> RequestFailure {
        let is_told = reason.is_some_and(|reason| self.client.stream.note_reset(reason));
        match is_told && reason == Some(Reason::REFUSED_STREAM) {
            // The client may send the request again (RFC 9113 §8.7), which no reply would tell it.
            true => RequestFailure { reply: None, ..failure },
            false => failure,
        }
    }
}

/// True for a request that may be sent twice: it changes nothing, and it has no body that is gone.
pub(super) fn may_be_repeated(method: Method, framing: Framing) -> bool {
    method.may_be_sent_again() && framing.is_empty()
}
