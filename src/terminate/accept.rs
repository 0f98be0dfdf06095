//! [`accept`]: TLS with a client, by turns of work within `hello_timeout`.
//!
//! Routes nothing, and reads nothing behind the handshake. Invariant: while the client is awaited, its handshake holds
//! no turn of `max_handshakes`; an alert to the client is not followed by a reset.

use rustls::AlertDescription;

use super::Routed;
use super::conversation::Conversation;
use super::deadline::until;
use super::secure::{Secured, tls_line};
use super::socket::Socket;
use super::state::ConversationStage;
use super::stream::Stream;
use crate::admission::HeldBytes;
use crate::client_hello;
use crate::clock::{self, Micros};
use crate::connection::ClientInfo;
use crate::fault::{Endpoint, Fault};
use crate::outcome::Ended;
use crate::server_name::ServerName;
use crate::tls::{self, TlsAlert};

/// Makes the handshake with a client; `preread` are the bytes that the worker has read.
pub async fn accept(
    conversation: &Conversation,
    routed: &Routed,
    socket: Socket,
    preread: HeldBytes,
    deadline: Micros,
) -> Result<(Stream, Secured), Ended> {
    let context = &conversation.context;
    // A route that terminates has a server: its certificates were read when the snapshot was built.
    let server = routed.server().ok_or(Ended::LocalError)?;
    let mut client =
        Stream::with_client(socket, server.config(), conversation.state.alert()).map_err(|_| Ended::LocalError)?;
    // Only a client that sends first may wait for its tickets.
    let holds_tickets = routed.reads_http();
    if let Err(ended) = shake_hands(conversation, &mut client, preread, deadline, holds_tickets).await {
        if ended != Ended::HandshakeFailed {
            return Err(ended);
        }
        client.linger().await;
        return Err(match conversation.state.alert().get() {
            Some(TlsAlert { received: false, description: AlertDescription::CertificateRevoked }) => {
                Ended::CertificateRevoked
            }
            _ if !takes_name(&conversation.client_info) => Ended::BadServerName,
            _ => ended,
        });
    }
    let connection = client.server().ok_or(Ended::LocalError)?;
    let identity = match server.identity(connection, clock::unix_s()) {
        Ok(identity) => identity,
        Err(tls::CertificateExpired) => {
            client.socket().reset_on_drop(false);
            return Err(Ended::CertificateExpired);
        }
    };
    let facts = tls::TlsFacts::of(connection);
    let resumed = u64::from(facts.is_some_and(|facts| facts.resumed));
    context.counters().handshakes.add(1);
    context.counters().resumed.add(resumed);
    conversation.listener_counters().handshakes.add(1);
    conversation.listener_counters().resumed.add(resumed);
    let tls = facts.map(|facts| Box::new(tls_line(facts, identity.as_ref())));
    conversation.state.enter(ConversationStage::Secured { tls });
    let secured = Secured::by_handshake(facts, identity.as_ref());
    Ok((client, secured))
}

/// Takes a turn whenever bytes of the client are there, and waits for the next ones without a turn.
async fn shake_hands(
    conversation: &Conversation,
    client: &mut Stream,
    preread: HeldBytes,
    deadline: Micros,
    holds_tickets: bool,
) -> Result<(), Ended> {
    let handshakes = &conversation.context.handshakes;
    let source = conversation.client_info.key_source();
    let mut preread = Some(preread);
    loop {
        let limit = conversation.context.current.load().config.limits.max_handshakes;
        let turn = until(deadline, handshakes.turn(limit, source)).await.ok_or(Ended::HandshakeLimit)?;
        let worked = match preread.take() {
            // Dropped before the wait for more.
            Some(preread) => client.take_in(&client_hello::in_few_records(&preread)),
            None => client.take_in_more().await,
        };
        drop(turn);
        worked.map_err(ending)?;
        if holds_tickets && !client.is_handshaking() {
            client.hold_tickets();
        }
        until(deadline, client.flush()).await.ok_or(Ended::HandshakeTimeout)?.map_err(ending)?;
        if !client.is_handshaking() {
            return Ok(());
        }
        until(deadline, client.socket().readable()).await.ok_or(Ended::HandshakeTimeout)?.map_err(ending)?;
    }
}

/// The outcome of a handshake that failed in this way.
fn ending(fault: Fault) -> Ended {
    match fault {
        Fault::Tls => Ended::HandshakeFailed,
        Fault::Cut => Ended::HandshakeCut,
        other => other.ending(Endpoint::Client),
    }
}

/// True unless TLS that ends here refuses any hello with this server name.
fn takes_name(client_info: &ClientInfo) -> bool {
    let sent = client_info.odd_name.as_deref().or(client_info.sni.as_ref().map(ServerName::as_str));
    sent.is_none_or(tls::takes_name)
}
