//! The conversation, from the hand-over to its end: TLS with the client → who it is → a plain relay, or requests one by
//! one.
//!
//! What `splicer/flow.rs` is to bytes that only pass. Both ask the same routes, the same [`Pool::pick`](crate::pool::Pool),
//! the same attempts, and end in the same closed list of outcomes. A conversation is one task on the thread beside the
//! worker that accepted it; `context.rs` holds the threads.
//!
//! Invariant: a conversation ends with one outcome, its client's stream ends cleanly only if everything that was to be
//! said on it was said, and what it holds (sockets, permit, leases) is given back by dropping it.

mod buffer;
mod connect;
mod deadline;
mod handshakes;
mod http;
mod relay;
mod runtime;
mod secure;
mod socket;
mod state;
mod stream;
mod timer_fd;

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use self::buffer::Buffer;
use self::connect::Connector;
use self::deadline::{Deadline, until};
use self::relay::{RelayDirection, relay};
use self::runtime::RuntimeContext;
use self::secure::Secured;
use self::socket::{Fault, Socket};
use self::state::Conversation;
use self::stream::Stream;
use crate::clock::{self, Micros};
use crate::config::Tls;
use crate::connection::Carried;
use crate::outcome::Ended;
use crate::pool::{PickScene, Pool};
use crate::snapshot::{Listener, RouteTarget};
use crate::sticky::Facts;
use crate::tls::{self, Termination};

pub use self::runtime::Runtimes;

/// A conversation that was handed over.
async fn serve(context: Rc<RuntimeContext>, carried: Carried<OwnedFd>) {
    let Carried { client, bytes, permit, client_info, listener } = carried;
    let conversation = Conversation::begin(&context, client_info, permit, listener);
    let state = Rc::clone(&conversation.state);
    let ended = tokio::select! {
        biased;
        ended = state.cancelled() => ended,
        ended = run(&conversation, client, bytes) => ended,
    };
    conversation.finish(ended);
}

/// Where a connection belongs now, with what that needs.
struct Routed {
    listener: Arc<Listener>,
    termination: Arc<Termination>,
    target: RouteTarget,
}

impl Routed {
    /// By the rules in force.
    fn of(conversation: &Conversation) -> Option<Self> {
        let (client_info, listener) = (&conversation.client_info, conversation.listener()?);
        let target = client_info.route(&listener, client_info.sni.as_ref().map(|name| name.as_str()))?;
        Some(Self { termination: Arc::clone(&listener.tls), listener, target })
    }

    fn pool(&self) -> &Arc<Pool> {
        &self.listener.pools[self.target.pool]
    }

    fn server(&self) -> Option<&Arc<tls::TlsServer>> {
        self.termination.server(&self.listener.config.name, self.target.route)
    }
}

async fn run(conversation: &Conversation, client: OwnedFd, bytes: Vec<u8>) -> Ended {
    let Some(place) = Routed::of(conversation) else { return Ended::NoRoute };
    conversation.state.routed(Arc::clone(place.pool().shared_name()));
    let Ok(socket) = Socket::new(client) else { return Ended::NoDescriptor };
    let hello_until = conversation.client_info.accepted + Micros::from(place.listener.hello_ms) * 1_000;
    let mut bytes = bytes;
    let (client, secured) = match place.target.tls {
        Tls::Terminate => match handshake(conversation, &place, socket, &std::mem::take(&mut bytes), hello_until).await
        {
            Ok(secure) => secure,
            Err(ended) => return ended,
        },
        _ => (Stream::plain(socket), Secured::by_decoder(&conversation.client_info, &place.listener.config)),
    };
    if place.pool().config().http {
        return http::serve_requests(conversation, place, client, &secured, Buffer::holding(bytes), hello_until).await;
    }
    plain(conversation, place, client, &secured, bytes).await
}

/// TLS with the client, inside what is left of `hello_timeout`, when it is its turn.
async fn handshake(
    conversation: &Conversation,
    place: &Routed,
    socket: Socket,
    preread: &[u8],
    deadline: Micros,
) -> Result<(Stream, Secured), Ended> {
    // A route that terminates has a server: its certificates were read when it was put in force.
    let server = place.server().ok_or(Ended::LocalError)?;
    let most = conversation.context.current.load().config.limits.max_handshakes;
    let Some(_turn) = until(deadline, conversation.context.handshakes.turn(most)).await else {
        return Err(Ended::HandshakeLimit);
    };
    let made = until(deadline, Stream::accept(socket, server.config(), preread)).await;
    let mut client = made.ok_or(Ended::HandshakeTimeout)?.map_err(|fault| match fault {
        Fault::Tls => Ended::HandshakeFailed,
        Fault::Cut => Ended::HandshakeCut,
        other => other.of_client(),
    })?;
    let Some(connection) = client.server() else { return Err(Ended::LocalError) };
    let identity = match server.identity(connection, clock::unix_s()) {
        Ok(identity) => identity,
        Err(tls::NoLongerGood) => {
            client.socket().reset_on_drop(false);
            return Err(Ended::CertificateExpired);
        }
    };
    let facts = tls::TlsFacts::of(connection);
    conversation.context.counters().handshakes.add(1);
    conversation.context.counters().resumed.add(facts.is_some_and(|facts| facts.resumed).into());
    conversation.tls.set(facts.map(|facts| Box::new(secure::told(facts, identity.as_ref()))));
    let secured = Secured::here(facts, identity.as_ref());
    Ok((client, secured))
}

/// A pool whose bytes are nobody's business: one backend, both ways.
async fn plain(
    conversation: &Conversation,
    place: Routed,
    mut client: Stream,
    secured: &Secured,
    bytes: Vec<u8>,
) -> Ended {
    let pool = place.pool();
    let upstream = place.termination.upstream(pool.name());
    let connector = Connector { conversation, pool, upstream, secured };
    let facts = facts(conversation);
    if let Err(ended) = connector.wait_for_settled(&client, None, &facts).await {
        client.socket().reset_on_drop(false);
        return ended;
    }
    let choose = async |tried: &[_]| pool.pick(&PickScene::new(&facts, tried, clock::now() / 1_000));
    let connected = connector.connect_for(&client, choose).await;
    let mut connected = match connected {
        Ok(connected) => connected,
        Err(ended) => {
            // Nothing was begun that could look cut.
            client.socket().reset_on_drop(false);
            return ended;
        }
    };
    conversation.state.settled(pool, connected.broke, connected.remember, None);
    let limits = place.listener.limits;
    drop(place);
    conversation.forget_rules();
    let counters = connected.lease.counters(conversation.context.counters_index);
    let directions = (RelayDirection::holding(Buffer::holding(bytes)), RelayDirection::default());
    relay(conversation, limits, (&mut client, &mut connected.stream), directions, counters, &mut Deadline::default())
        .await
}

/// What identifies a client whose requests nobody reads.
fn facts(conversation: &Conversation) -> Facts<'_> {
    let client_info = &conversation.client_info;
    if client_info.local {
        return Facts::default();
    }
    Facts {
        source: client_info.source.map(|source| source.ip()),
        sni: client_info.sni.as_ref().map(|name| name.as_str()),
        tlvs: &client_info.tlvs,
        cookies: &[],
    }
}
