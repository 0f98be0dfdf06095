//! Requests, one after another on one client connection: head → is it for us → where → exchange → the next one.
//!
//! Each is placed by itself, by the configuration in force when its head is complete. What may be tried again: another
//! backend, as long as nothing was sent; the same backend once more, where a kept connection turned out to be closed
//! and the request is one that may be sent twice; nothing else. Invariant: the next head is not looked at before the
//! request and the response before it are both complete; otherwise the connection ends behind that response.

mod exchange;
mod head;
mod local_reply;
mod request_cookie;
mod request_log;
mod shared_cookie;
mod upstreams;

use std::sync::Arc;

use self::exchange::{Done, Exchange};
use self::request_cookie::{Reply, write_request};

use self::request_cookie::RequestCookie;
use self::request_log::RequestLog;
use self::upstreams::{UpstreamConnection, Upstreams};
use super::Routed;
use super::buffer::Buffer;
use super::connect::Connector;
use super::deadline::{Deadline, Timeouts};
use super::relay::{RelayDirection, relay};
use super::secure::Secured;
use super::state::{Conversation, ConversationStage};
use super::stream::Stream;
use crate::clock::{self, Micros};
use crate::config::{ClientCertificate, Tls};
use crate::connection::Entry;
use crate::http::answer::StatusCode;
use crate::http::head::{Request, RequestReader};
use crate::http::{Framing, Method};
use crate::limits::Limits;
use crate::outcome::{Ended, PickReason};
use crate::pool::request_cookie::cookies_of_key;
use crate::pool::{Backend, Pick, PickScene};
use crate::server_name::ServerName;
use crate::sticky::Facts;

/// Serves the requests of a client.
pub async fn serve_requests(
    conversation: &Conversation,
    place: Routed,
    mut client: Stream,
    secured: &Secured,
    inbound: Buffer,
    first_until: Micros,
) -> Ended {
    client.socket().reset_on_drop(false);
    let policy = policy(&place);
    let mut connection = HttpConnection {
        conversation,
        secured,
        client,
        inbound,
        upstreams: Upstreams::default(),
        reader: Box::new(RequestReader::new()),
        deadline: Deadline::default(),
        tls: place.target.tls,
        policy,
        count: 0,
        idle_since: clock::now(),
    };
    loop {
        if let Err(ended) = connection.read_head(first_until).await {
            return ended;
        }
        match connection.serve().await {
            AfterRequest::Another => connection.reader.reset(),
            AfterRequest::Over(ended) => return ended,
            AfterRequest::Switched(held) => return connection.relay(held).await,
        }
    }
}

/// What follows a request.
enum AfterRequest {
    Another,
    Over(Ended),
    /// The pair speaks another protocol from here on.
    Switched(Box<UpstreamConnection>),
}

/// One client's requests.
struct HttpConnection<'a> {
    conversation: &'a Conversation,
    secured: &'a Secured,
    client: Stream,
    inbound: Buffer,
    upstreams: Upstreams,
    reader: Box<RequestReader>,
    deadline: Deadline,
    tls: Tls,
    /// What was asked of the client in its handshake.
    policy: Option<ClientCertificate>,
    /// Requests so far, this one included.
    count: u64,
    idle_since: Micros,
}

/// A request on its way to a backend.
struct RequestMessage {
    head: Vec<u8>,
    framing: Framing,
}

impl HttpConnection<'_> {
    /// Serves the request whose head stands in `inbound`.
    async fn serve(&mut self) -> AfterRequest {
        self.client.socket().reset_on_drop(true);
        let conversation = self.conversation;
        let request = self.reader.request(self.inbound.bytes());
        let asked = request.asked();
        conversation.context.counters().requests.add(1);
        let mut log = RequestLog::of(&request);
        let place = match self.place_for(&request) {
            Ok(place) => place,
            Err(ended) => return self.decline(&log, asked, StatusCode::Misdirected, ended).await,
        };
        let pool = Arc::clone(place.pool());
        conversation.state.routed(Arc::clone(pool.shared_name()));
        let mut settled = RequestCookie::read(&pool, request.fields, clock::unix_s());
        let holds = |backend: &Arc<Backend>| self.upstreams.holds(backend);
        let cookies = cookies_of_key(&pool, request.fields);
        let facts = Facts { cookies: &cookies, ..super::facts(conversation) };
        let scene = || PickScene { holds: &holds, ..PickScene::new(&facts, &[], clock::now() / 1_000) };
        settled.ask_store(&conversation.context, scene()).await;
        log.cookie = settled.word();
        settled.count(conversation.context.counters());
        let connector = Connector {
            conversation,
            pool: &pool,
            upstream: place.termination.upstream(pool.name()),
            secured: self.secured,
        };
        if let Err(ended) = connector.wait_for_settled(&self.client, settled.backend(), &facts).await {
            return self.unreached(&log, asked, ended).await;
        }
        let Some(first) = pool.pick(&PickScene { cookie: settled.backend(), ..scene() }) else {
            return self.decline(&log, asked, StatusCode::Unavailable, pool.why_nobody(clock::now() / 1_000)).await;
        };
        conversation.state.picked(&first);
        let kept = self.upstreams.take(first.backend);
        log.reused = kept.is_some();
        conversation.context.counters().reused.add(log.reused.into());
        let (mut backend, mut broke, mut remember) = (first.index, first.broke, first.remember);
        let held = match kept {
            Some(held) => held,
            None => {
                let mut first = Some(first);
                let choose = async |tried: &[_]| {
                    let scene = || PickScene::new(&facts, tried, clock::now() / 1_000);
                    if first.is_none() {
                        settled.ask_store(&conversation.context, scene()).await;
                    }
                    first.take().or_else(|| pool.pick(&PickScene { cookie: settled.backend(), ..scene() }))
                };
                match connector.connect_for(&self.client, choose).await {
                    Ok(connected) => {
                        (backend, broke, remember) = (connected.index, connected.broke, connected.remember);
                        UpstreamConnection::new(connected)
                    }
                    Err(ended) => return self.unreached(&log, asked, ended).await,
                }
            }
        };
        let broke = broke.or(settled.cause());
        conversation.state.settled(&pool, broke, settled.remember().or(remember), settled.value.clone());
        settled.tell_store(&conversation.context, backend, held.lease.backend());
        let mut head = Vec::with_capacity(request.length + 512);
        write_request(&mut head, &request, &settled, &conversation.client_info, (self.secured, &place.listener.config));
        let (framing, length) = (request.framing, request.length);
        self.inbound.consume(length);
        let reply = Reply { settled: &settled, backend, asked, tls: self.secured.tls, conversation };
        self.carry_out(&connector, log, held, RequestMessage { head, framing }, reply).await
    }

    /// Sends the request and passes the response on; on a fresh connection once more, if the kept one was closed.
    async fn carry_out(
        &mut self,
        connector: &Connector<'_>,
        mut log: RequestLog,
        mut held: UpstreamConnection,
        mut message: RequestMessage,
        reply: Reply<'_>,
    ) -> AfterRequest {
        let (conversation, asked, limits) = (self.conversation, reply.asked, self.limits());
        conversation.state.enter(ConversationStage::Exchange);
        loop {
            let exchange = Exchange {
                conversation,
                client: &mut self.client,
                inbound: &mut self.inbound,
                held: &mut held,
                head: &mut message.head,
                repeatable: log.reused && may_be_repeated(asked.method, message.framing),
                framing: message.framing,
                reply: &reply,
                limits,
                deadline: &mut self.deadline,
            };
            let failed = match exchange.run().await {
                Ok(done) => return self.after(&log, held, done).await,
                Err(failed) => failed,
            };
            if !(failed.unanswered && log.reused) {
                return self.fail(&log, asked, failed).await;
            }
            if !may_be_repeated(asked.method, message.framing) {
                // Whether it was carried out nobody can know; the client may.
                self.log_request(&log, 0, Ended::KeptClosed);
                self.client.socket().reset_on_drop(false);
                return AfterRequest::Over(Ended::KeptClosed);
            }
            match self.again(connector, &held, reply.backend).await {
                Ok(fresh) => held = fresh,
                Err(ended) => return self.unreached(&log, asked, ended).await,
            }
            log.reused = false;
        }
    }

    /// A fresh connection to the same backend, and to no other.
    async fn again(
        &self,
        connector: &Connector<'_>,
        held: &UpstreamConnection,
        index: usize,
    ) -> Result<UpstreamConnection, Ended> {
        let backend = held.lease.backend();
        let pick = async |tried: &[_]| {
            let reason = self.conversation.state.reason().unwrap_or(PickReason::Placement);
            let pick = Pick { backend, index, reason, keyed: true, range: None, broke: None, remember: None };
            tried.is_empty().then_some(pick)
        };
        let connected = connector.connect_for(&self.client, pick).await?;
        self.conversation.state.enter(ConversationStage::Exchange);
        Ok(UpstreamConnection::new(connected))
    }

    /// Where a request belongs now. It must be where its connection belongs: a browser may use one connection for all
    /// names of a certificate (RFC 9110 §15.5.20).
    fn place_for(&self, request: &Request<'_>) -> Result<Routed, Ended> {
        let place = Routed::of(self.conversation).ok_or(Ended::Misdirected)?;
        let same = place.target.tls == self.tls && place.pool().config().http && policy(&place) == self.policy;
        let client_info = &self.conversation.client_info;
        if !same {
            return Err(Ended::Misdirected);
        }
        if self.tls == Tls::Terminate
            && client_info.entry == Entry::Routed
            && let Some(host) = request.host()
        {
            let name = std::str::from_utf8(host.name).ok();
            let name = name.map(|name| name.strip_suffix('.').unwrap_or(name)).and_then(ServerName::parse);
            let target = client_info.route(&place.listener, name.as_ref().map(ServerName::as_str));
            if target != Some(place.target) {
                return Err(Ended::Misdirected);
            }
        }
        Ok(place)
    }

    /// The exchange was carried out.
    async fn after(&mut self, log: &RequestLog, mut held: UpstreamConnection, done: Done) -> AfterRequest {
        self.log_request(log, done.status, Ended::Done);
        if done.switched {
            return AfterRequest::Switched(Box::new(held));
        }
        if done.backend_stays && held.answers.is_empty() {
            self.upstreams.put(held, self.conversation.crowded());
        } else {
            held.stream.socket().reset_on_drop(false);
        }
        self.idle_since = clock::now();
        self.client.socket().reset_on_drop(false);
        if done.client_stays {
            return AfterRequest::Another;
        }
        self.finish_and_drain().await;
        AfterRequest::Over(Ended::Done)
    }

    /// What an accepted Upgrade has become.
    async fn relay(mut self, mut held: Box<UpstreamConnection>) -> Ended {
        let up = RelayDirection::holding(std::mem::take(&mut self.inbound));
        let down = RelayDirection::holding(std::mem::take(&mut held.answers));
        // Nobody asks for requests any more.
        self.conversation.context.counters().upgrades.add(1);
        self.upstreams = Upstreams::default();
        let limits = self.conversation.listener().map_or_else(Limits::default, |listener| listener.limits);
        self.conversation.forget_rules();
        let counters = held.lease.counters(self.conversation.context.counters_index);
        let streams = (&mut self.client, &mut held.stream);
        relay(self.conversation, limits, streams, (up, down), counters, &mut self.deadline).await
    }

    /// The limits in force.
    fn limits(&self) -> Timeouts {
        Timeouts::of(&self.conversation.context.current.load().config.limits)
    }
}

/// A request that may be sent twice: it changes nothing, and none of it is gone.
fn may_be_repeated(method: Method, framing: Framing) -> bool {
    method.may_be_sent_again() && framing.is_empty()
}

/// What a route asks of its clients' certificates.
fn policy(place: &Routed) -> Option<ClientCertificate> {
    let config = &place.listener.config;
    match place.target.route.and_then(|route| config.routes.get(route)) {
        Some(route) => route.client_certificate.clone(),
        None => config.client_certificate.clone(),
    }
}
