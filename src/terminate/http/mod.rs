//! [`HttpConnection`]: requests, one after another on one client connection: head → route → split → cookie → pick →
//! connect or reuse → send → the next head; or an answer of the route.
//!
//! Each request is placed by itself, by the configuration in force when its head is complete. `send.rs` says which may
//! be sent again, and where. A response may be complete before its request: the rest of that goes to the backend for as
//! long as the backend reads. A stream of HTTP/2 is served here as a connection with one request. Invariant: the next
//! head is not read before the request and the response before it are both complete; otherwise the connection ends
//! behind that response.

mod answer;
mod client_side;
mod exchange;
mod head;
mod header_rules;
mod history;
mod local_reply;
mod reach;
mod request_cookie;
mod request_count;
mod request_log;
mod request_split;
mod rules;
mod send;
mod shared;
mod shared_cookie;
#[cfg(test)]
mod tests;
mod upgraded;
mod upstream_stream;
mod upstreams;
mod web_socket;

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use self::client_side::{ClientSide, Http1Client};
use self::exchange::Exchanged;
use self::header_rules::{RequestFacts, SetHeaders};
use self::local_reply::{LINGER_INSIDE, RequestFailure};
use self::reach::{Reached, Unreached};
use self::request_cookie::{RequestCookie, given_id, is_secure, write_request};
use self::request_log::{RequestEnd, RequestLog};
use self::request_split::RequestSplit;
use self::send::{RequestMessage, Way, may_be_repeated};
use self::upstreams::UpstreamConnection;
use super::Routed;
use super::buffer::Buffer;
use super::byte_stream::{ByteStream as _, ClientStream};
use super::connect::Connector;
use super::conversation::Conversation;
use super::deadline::{Deadline, LINGER};
use super::http2::backend::can_carry;
use super::linger_after;
use super::request_limits::BodyLimits;
use super::secure::Secured;
use super::state::{ConversationStage, Placed};
use super::stream::Stream;
use crate::clock::{self, Micros};
use crate::config::{self, KeyPart, PoolHttp};
use crate::http::head::{Request, RequestReader, ResponseReader};
use crate::http::upgrade::Upgrade;
use crate::http::{Framing, Refused};
use crate::outcome::{ClientMove, Ended, PickReason};
use crate::pool::request_key::values_of_key;
use crate::pool::{Pool, QueueVisit};
use crate::sticky::Facts;

pub use self::rules::RequestRules;
pub use self::shared::Shared;

/// The first status behind which clients leave out the rest of their request by themselves.
const FIRST_ERROR: u16 = 400;

/// The end of requests of HTTP/1.
pub enum RequestsEnd {
    /// The connection is over.
    Over(Ended),
    /// The client has begun HTTP/2 without TLS (RFC 9113 §3.3), by the bytes that were read.
    Http2(Box<(Stream, Buffer)>),
}

/// Serves the requests of a client; the first head is due at `first_until`. No `async fn`, which would hold its arguments
/// twice for as long as the client is there.
pub fn serve_requests<'a>(
    conversation: &'a Conversation,
    routed: &Routed,
    stream: Stream,
    secured: &'a Secured,
    unread: Buffer,
    first_until: Micros,
) -> impl Future<Output = RequestsEnd> + use<'a> {
    let shared = Rc::new(Shared::for_one_at_a_time(routed, secured));
    let mut connection = HttpConnection::new(conversation, shared, stream, unread);
    async move {
        let ended = loop {
            let head = match connection.read_head(first_until, None).await {
                Ok(Some(head)) => head,
                Ok(None) if connection.begins_http2() => {
                    let Http1Client { stream, unread } = connection.client;
                    return RequestsEnd::Http2(Box::new((stream, unread)));
                }
                Ok(None) => continue,
                Err(ended) => break ended,
            };
            // In memory of its own, so that a client that pauses does not hold it.
            match Box::pin(connection.serve_until_pause(head)).await {
                AfterRequest::NextHead => {}
                AfterRequest::Over(ended) => break ended,
                AfterRequest::Switched(upstream, protocol) => {
                    // No request follows.
                    connection.shared.upstreams.clear();
                    return RequestsEnd::Over(Box::pin(connection.relay_upgraded(upstream, protocol)).await);
                }
            }
        };
        connection.shared.upstreams.clear();
        linger_after(&mut connection.client.stream, ended).await;
        RequestsEnd::Over(ended)
    }
}

/// Serves the one request of a stream of HTTP/2, which begins with this head in HTTP/1; `accept`: what a backend has to
/// accept it with, if it asks for a WebSocket.
pub async fn serve_one_request<S: ClientStream>(
    conversation: &Conversation,
    shared: Rc<Shared<'_>>,
    stream: S,
    head: Vec<u8>,
    accept: Option<[u8; 28]>,
) {
    let mut connection = HttpConnection::new(conversation, shared, stream, Buffer::holding(head));
    connection.accept = accept;
    connection.count = conversation.request() - 1;
    if let Ok(Some(head)) = connection.read_head(clock::now(), None).await {
        connection.serve(&head, &mut ResponseReader::new()).await;
    }
}

/// What the client's connection does after a request.
enum AfterRequest {
    /// Another request may follow.
    NextHead,
    Over(Ended),
    /// The backend has accepted an Upgrade to this protocol.
    Switched(Box<UpstreamConnection>, Option<Upgrade>),
}

/// A client connection that carries requests, or a stream of HTTP/2 that carries one.
struct HttpConnection<'a, S = Stream> {
    conversation: &'a Conversation,
    client: Http1Client<S>,
    shared: Rc<Shared<'a>>,
    deadline: Deadline,
    /// What a backend has to accept a WebSocket of HTTP/2 with.
    accept: Option<[u8; 28]>,
    /// Requests of the client so far, the current one included.
    count: u64,
    /// When the first byte of the current request's head was there.
    head_began: Micros,
    idle_since: Micros,
}

impl<'a, S: ClientStream> HttpConnection<'a, S> {
    fn new(conversation: &'a Conversation, shared: Rc<Shared<'a>>, mut stream: S, unread: Buffer) -> Self {
        stream.reset_on_drop(false);
        Self {
            conversation,
            client: Http1Client { stream, unread },
            shared,
            deadline: Deadline::default(),
            accept: None,
            count: 0,
            head_began: 0,
            idle_since: clock::now(),
        }
    }

    /// Serves the request behind the head that was read, and those that follow without a pause; all with the same
    /// readers. A first request tells nothing of a second one, and is served alone.
    async fn serve_until_pause(&mut self, mut head: Box<RequestReader>) -> AfterRequest {
        let mut response = ResponseReader::new();
        loop {
            match self.serve(&head, &mut response).await {
                AfterRequest::NextHead if self.count > 1 => {}
                after => return after,
            }
            response.reset();
            head = match self.read_head(0, Some(head)).await {
                Ok(Some(head)) => head,
                Ok(None) => return AfterRequest::NextHead,
                Err(ended) => return AfterRequest::Over(ended),
            };
        }
    }

    /// Serves the request behind the head that was read, and logs it.
    async fn serve(&mut self, head: &RequestReader, response: &mut ResponseReader) -> AfterRequest {
        self.client.stream.reset_on_drop(true);
        self.conversation.context.counters().requests.add(1);
        let request = head.request(self.client.bytes());
        let mut log = RequestLog::of(&request, self.begin_line());
        let mut visit = QueueVisit::default();
        loop {
            let request = head.request(self.client.bytes());
            let mut routed = match self.shared.route(self.conversation, &request) {
                Ok(routed) => routed,
                Err(unrouted) => return self.reply_locally(&mut log, RequestFailure::unrouted(unrouted)).await,
            };
            let (client_info, subject) = (&self.conversation.client_info, self.shared.secured.subject.as_deref());
            let split = RequestSplit::choose(&mut routed, (&request, subject), client_info, self.shared.followed());
            log.split = split.as_ref().map(|split| (Arc::clone(split.split.name()), split.choice.by));
            log.route = routed.target.route;
            log.given_id = given_id(&request, &self.conversation.client_info, &routed.listener.config);
            log.counted_at = Some(routed.clone());
            // One that is routed again has been counted.
            if !log.routed {
                if let Some(split) = &split {
                    split.count(&self.conversation.context);
                }
                let subject = self.shared.secured.subject.as_deref();
                if let Err(wait_s) = self.conversation.take_request(&routed, &request, subject) {
                    return self.reply_locally(&mut log, RequestFailure::too_many(wait_s)).await;
                }
            }
            let Some(pool) = routed.pool() else { return Box::pin(self.answer(head, &routed, &mut log)).await };
            return match self.forward(head, (&routed, pool, split), response, &mut log, &mut visit).await {
                Ok((upstream, exchanged)) if exchanged.switched && self.conversation.request() > 0 => {
                    self.serve_switched(&mut log, upstream, exchanged).await
                }
                Ok((upstream, exchanged)) => self.after_exchange(&mut log, upstream, exchanged).await,
                Err(Unreached::Failed(failure)) => self.reply_locally(&mut log, failure).await,
                Err(Unreached::RouteAgain) => continue,
            };
        }
    }

    /// Forwards a request to its pool: cookie → pick → connect or reuse → send.
    async fn forward(
        &mut self,
        head: &RequestReader,
        (routed, pool, split): (&Routed, &Arc<Pool>, Option<RequestSplit>),
        response: &mut ResponseReader,
        log: &mut RequestLog,
        visit: &mut QueueVisit,
    ) -> Result<(UpstreamConnection, Exchanged), Unreached> {
        let (conversation, secured) = (self.conversation, self.shared.secured);
        let context = &conversation.context;
        let request = head.request(self.client.bytes());

        conversation.state.enter(ConversationStage::Route { pool: pool.shared_name() });
        let is_first = !std::mem::replace(&mut log.routed, true);
        if pool.config().http == PoolHttp::Http2 && !can_carry(&request) {
            return Err(RequestFailure::refused_request(Refused::BadTarget).into());
        }
        let body_limits = routed.body_limits();
        if matches!(request.framing, Framing::Length(length) if length > body_limits.most) {
            return Err(RequestFailure::body_too_large().into());
        }

        let mut cookie = RequestCookie::read(pool, &request, clock::unix_s);
        cookie.split = split;
        let values = values_of_key(pool, &request, secured.subject.as_deref());
        let facts = Facts { values: &values, ..conversation.client_info.facts() };
        self.look_up(&mut cookie, &facts).await;
        if is_first {
            cookie.count(context.counters_index);
        }
        log.cookie = cookie.word();
        let of_key = || values.iter().find(|(part, _)| matches!(part, KeyPart::Cookie(_))).map(|(_, value)| *value);
        let session = || cookie.session(&request).or_else(of_key);
        log.note_session(session, &mut self.shared.last_session.borrow_mut());
        let shared = Rc::clone(&self.shared);
        let follow = shared.follow(&cookie, &request);

        let connector = Connector { conversation, pool, upstream: routed.termination().upstream(pool.name()), secured };
        let reached = self.reach(&connector, &mut cookie, (&facts, follow, &[]), log, visit).await?;
        self.settle(pool, &cookie, &reached, &request);

        let (own_id, client_info, listener) = (self.request_id(), &conversation.client_info, &routed.listener.config);
        let facts = RequestFacts {
            client: client_info.key_source(),
            is_secure: is_secure(secured, &request, client_info, listener),
            request: &request,
            id: log.given_id.as_ref().map_or(&own_id, |given| given as &dyn fmt::Display),
        };
        let mut message = self.message(&facts, &cookie, listener, body_limits);
        if reached.upstream.stream.is_http2() || log.reused && may_be_repeated(log.meta.method, message.framing) {
            message.received = self.client.bytes()[..request.length].to_vec();
        }
        let set = &SetHeaders::of(&pool.config().response_headers, listener.request_id.as_deref(), &facts);
        let (tls, is_last) = (facts.is_secure, self.is_last_request(routed));
        let way = Way { connector: &connector, head, follow, set, tls, is_last };
        self.client.consume(request.length);
        Ok(self.send(&way, &mut cookie, (reached, message), (log, response, visit)).await?)
    }

    /// True if no request may follow on the client's connection. That of HTTP/2 counts for itself.
    fn is_last_request(&self, routed: &Routed) -> bool {
        self.conversation.request() == 0 && self.count >= routed.requests_max()
    }

    /// Notes where a request has its place, and whether its client has moved there.
    fn settle(&self, pool: &Pool, cookie: &RequestCookie<'_>, reached: &Reached, request: &Request<'_>) {
        let moved = cookie.client_move(reached.left, reached.backend);
        self.place_at(pool, cookie, reached, moved.clone());
        let brought = || history::brought_cookie(&self.conversation.context, pool, request);
        self.conversation.note_move(pool, moved.as_ref(), reached.upstream.lease.backend(), brought);
    }

    /// Notes where a request has its place. `moved`: the move that counts, if its client has not moved there already.
    fn place_at(&self, pool: &Pool, cookie: &RequestCookie<'_>, reached: &Reached, moved: Option<ClientMove>) {
        let Reached { upstream, backend, remember, .. } = reached;
        let remember = cookie.remember().or(*remember);
        let placed = Placed { pool, moved, remember, value: cookie.value.clone() };
        self.conversation.state.enter(ConversationStage::Placed(placed));
        cookie.update_store(&self.conversation.context, *backend, upstream.lease.backend());
    }

    fn message(
        &self,
        facts: &RequestFacts<'_>,
        cookie: &RequestCookie<'_>,
        listener: &config::Listener,
        body_limits: BodyLimits,
    ) -> RequestMessage {
        let request = facts.request;
        let mut head = Vec::with_capacity(request.length + 512);
        write_request(&mut head, facts, cookie, &self.conversation.client_info, (self.shared.secured, listener));
        let (framing, waits_for_100) = (request.framing, request.expects_continue());
        RequestMessage { head, received: Vec::new(), framing, body_limits, waits_for_100 }
    }

    /// Logs a complete exchange, and keeps or closes both connections.
    async fn after_exchange(
        &mut self,
        log: &mut RequestLog,
        mut upstream: UpstreamConnection,
        exchanged: Exchanged,
    ) -> AfterRequest {
        self.count_response(log, &upstream, &exchanged);
        let Exchanged { status, ended, .. } = exchanged;
        self.log_request(log, RequestEnd { status: Some(status), ended, refused: None, reply: 0 });
        if exchanged.ended != Ended::Done {
            // The backend sees by a reset that the request is cut; the client has its response.
            drop(upstream);
            if status < FIRST_ERROR {
                // Without a reset behind it, curl 7 would wait for ever.
                self.client.stream.give_up_request();
            }
            self.finish_and_read(LINGER_INSIDE).await;
            return AfterRequest::Over(exchanged.ended);
        }
        if exchanged.switched {
            return AfterRequest::Switched(Box::new(upstream), log.meta.upgrade);
        }
        if (exchanged.backend_stays || upstream.stream.is_http2()) && upstream.unread.is_empty() {
            let reason = self.conversation.state.reason();
            let is_known = matches!(reason, Some(PickReason::Cookie | PickReason::StickTable));
            self.shared.upstreams.put(upstream, self.conversation.crowded(), is_known);
        } else {
            upstream.stream.reset_on_drop(false);
        }
        self.idle_since = clock::now();
        self.client.stream.reset_on_drop(false);
        if exchanged.client_stays {
            return AfterRequest::NextHead;
        }
        self.finish_and_read(LINGER).await;
        AfterRequest::Over(Ended::Done)
    }
}
