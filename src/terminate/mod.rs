//! The terminated connection, from the hand-over to its end: route → TLS with the client → one backend for all bytes,
//! or requests one by one.
//!
//! What `splicer/flow.rs` is for a passthrough connection. Both use the same routes, the same
//! [`Pool::pick`](crate::pool::Pool), the same attempts and the same closed list of outcomes. A conversation is one
//! task on the thread beside the worker that accepted the connection; `runtime.rs` holds the threads.
//!
//! Invariant: a conversation ends with one outcome; its client's stream ends with a FIN only after everything was sent,
//! and with a reset otherwise; sockets, permit and leases are released by dropping them.

mod accept;
mod buffer;
mod bypass;
mod byte_stream;
mod connect;
mod conversation;
mod deadline;
mod drain;
mod follow;
mod handshakes;
mod http;
mod http2;
mod pipe;
mod queue;
mod refuse;
mod relay;
mod request_limits;
mod runtime;
mod secure;
mod socket;
mod state;
mod stream;
mod tickets;
mod timer_fd;
mod turns;

#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use self::buffer::Buffer;
use self::byte_stream::ClientStream;
use self::connect::{Connected, Connector};
use self::conversation::{Conversation, JudgingListener};
use self::deadline::Deadline;
use self::http::{RequestRules, RequestsEnd};
use self::relay::{RelayDirection, relay};
use self::runtime::RuntimeContext;
use self::secure::Secured;
use self::socket::Socket;
use self::state::{ConversationStage, Placed};
use self::stream::Stream;
use crate::admission::HeldBytes;
use crate::alert::TlsRefusal;
use crate::clock::{self, Micros};
use crate::config::Tls;
use crate::connection::Carried;
use crate::outcome::Ended;
use crate::pool::{PickScene, Pool, QueueVisit};
use crate::snapshot::RouteTarget;
use crate::tls::{self, Termination};

pub use self::deadline::CLOSING_MAX;
pub use self::http2::limits::{Excess, FrameCounter, ResetCounter};
pub use self::runtime::Runtimes;

/// Serves a connection that a worker has handed over, until it ends or a command cancels it.
async fn serve(context: Rc<RuntimeContext>, carried: Carried<OwnedFd>) {
    let Carried { client, bytes, permit, client_info, listener, refusal } = carried;
    let conversation = Conversation::begin(&context, client_info, permit, listener);
    let state = Rc::clone(&conversation.state);
    let ended = tokio::select! {
        biased;
        ended = state.cancelled() => ended,
        ended = run(&conversation, client, bytes, refusal) => ended,
    };
    conversation.finish(ended);
}

/// The whole story: route (or refusal) → TLS with the client → requests, or a relay. What a connection does once is in
/// memory of its own, which a client that is only connected does not hold.
async fn run(conversation: &Conversation, client: OwnedFd, preread: HeldBytes, refusal: Option<TlsRefusal>) -> Ended {
    if let Some(refusal) = refusal {
        return Box::pin(refuse::refuse(conversation, client, preread, refusal)).await;
    }
    let Some(routed) = Routed::of(conversation) else {
        // The rules have changed since the worker routed the connection.
        return match conversation.client_info.hello_read {
            true => Box::pin(refuse::refuse(conversation, client, preread, TlsRefusal::NoRoute)).await,
            false => Ended::NoRoute,
        };
    };
    if let Some(pool) = routed.pool() {
        conversation.state.enter(ConversationStage::Handshake { pool: pool.shared_name() });
    }
    let Ok(socket) = Socket::new(client) else { return Ended::NoDescriptor };
    let hello_until = conversation.client_info.accepted + Micros::from(routed.listener.hello_ms) * 1_000;
    let (client, secured, unread) = match routed.target.tls {
        Tls::Terminate => match Box::pin(accept::accept(conversation, &routed, socket, preread, hello_until)).await {
            Ok((client, secured)) => (client, secured, Buffer::default()),
            Err(ended) => return ended,
        },
        Tls::Passthrough | Tls::Off => {
            let secured = Secured::by_decoder(&conversation.client_info, &routed.listener.config);
            (Stream::plain(socket), secured, Buffer::holding(preread.into_vec()))
        }
    };
    if let Some(pool) = routed.pool().filter(|pool| !pool.config().http.is_read()).map(Arc::clone) {
        Box::pin(serve_bytes(conversation, (routed, pool), client, &secured, unread)).await
    } else if secured.speaks_http2() {
        Box::pin(http2::serve(conversation, RequestRules::of(&routed), client, &secured, unread, hello_until)).await
    } else {
        let rules = RequestRules::of(&routed);
        match http::serve_requests(conversation, &routed, client, &secured, unread, hello_until).await {
            RequestsEnd::Over(ended) => ended,
            RequestsEnd::Http2(begun) => {
                let (client, unread) = *begun;
                Box::pin(http2::serve(conversation, rules, client, &secured, unread, hello_until)).await
            }
        }
    }
}

/// Route of a connection or of a request, with the rules that gave it.
#[derive(Clone)]
struct Routed {
    listener: Rc<JudgingListener>,
    target: RouteTarget,
}

impl Routed {
    /// Routes the connection by the rules in force; `None`: no route, and no default pool.
    fn of(conversation: &Conversation) -> Option<Self> {
        let (client_info, listener) = (&conversation.client_info, conversation.listener()?);
        let target = client_info.route(&listener, clock::now_ms())?;
        Some(Self { listener, target })
    }

    /// The pool; `None`: requests have routes of their own, or are answered.
    fn pool(&self) -> Option<&Arc<Pool>> {
        self.listener.pool(&self.target)
    }

    /// True if the connection carries requests.
    fn reads_http(&self) -> bool {
        self.listener.reads_http(&self.target)
    }

    fn termination(&self) -> &Termination {
        &self.listener.tls
    }

    /// True if the client may speak HTTP/2.
    fn offers_http2(&self) -> bool {
        self.listener.config.rules_of(self.target.route).http2
    }

    fn server(&self) -> Option<&Arc<tls::TlsServer>> {
        self.termination().server(&self.listener.config.name, self.target.route)
    }
}

/// Serves a pool without `http`: pick → connect → relay of all bytes.
async fn serve_bytes(
    conversation: &Conversation,
    (routed, pool): (Routed, Arc<Pool>),
    mut client: Stream,
    secured: &Secured,
    unread: Buffer,
) -> Ended {
    if let Some((split, choice)) = routed.listener.divided(&routed.target) {
        split.count(choice, conversation.context.counters_index);
        conversation.state.note_split(split.name(), choice.by);
    }
    let mut backend = match connect(conversation, (&routed, &pool), &client, secured).await {
        Ok(connected) => connected,
        Err(ended) => {
            // The client was sent nothing that a FIN could make look complete.
            client.socket().reset_on_drop(false);
            return ended;
        }
    };
    let moved = pool.client_move(backend.left, backend.index);
    let placed = Placed { pool: &pool, moved: moved.clone(), remember: backend.remember, value: None };
    conversation.state.enter(ConversationStage::Placed(placed));
    conversation.note_move(&pool, moved.as_ref(), backend.lease.backend(), || None);
    let limits = routed.listener.limits.nearer(&pool.config().limits);
    drop((routed, pool));
    conversation.forget_rules();
    let begin = (&backend.lease, &mut backend.first_byte);
    let streams = (&mut client, &mut backend.stream);
    let (mut up, mut down) = (RelayDirection::holding(unread), RelayDirection::default());
    let directions = (&mut up, &mut down);
    let ended = relay(conversation, limits, streams, directions, begin, &mut Deadline::default()).await;
    drop(backend);
    linger_after(&mut client, ended).await;
    ended
}

/// Lets the client read the alert of its broken TLS.
async fn linger_after(client: &mut impl ClientStream, ended: Ended) {
    if ended == Ended::ClientTls {
        client.linger().await;
    }
}

async fn connect(
    conversation: &Conversation,
    (routed, pool): (&Routed, &Pool),
    client: &Stream,
    secured: &Secured,
) -> Result<Connected, Ended> {
    let connector = Connector { conversation, pool, upstream: routed.termination().upstream(pool.name()), secured };
    let facts = conversation.client_info.facts();
    connector.wait_for_settled(client, None, &facts).await?;
    let mut visit = QueueVisit::default();
    let choose = async |tried: &[_]| {
        let chosen = connector.choose(&mut visit, |holds| {
            pool.pick_or_wait(&PickScene { holds, ..PickScene::new(&facts, tried, clock::now_ms()) })
        });
        chosen.await
    };
    connector.connect_for(client, &[], choose).await
}
