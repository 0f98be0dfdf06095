//! What follows an accepted Upgrade: bytes in both directions, until either side or this process ends them.
//!
//! Judges no frame of a WebSocket, but knows where one begins, so that this process can end it in good order. Invariant:
//! nothing of the configuration is held meanwhile but the limits of the pool.

use super::exchange::Exchanged;
use super::request_log::{RequestEnd, RequestLog};
use super::upstream_stream::UpstreamStream;
use super::upstreams::UpstreamConnection;
use super::web_socket::Closing;
use super::{AfterRequest, HttpConnection};
use crate::clock;
use crate::http::upgrade::Upgrade;
use crate::http::websocket::{FrameReader, Sender};
use crate::limits::Limits;
use crate::outcome::Ended;
use crate::terminate::buffer::Buffer;
use crate::terminate::byte_stream::{ByteStream as _, ClientStream};
use crate::terminate::linger_after;
use crate::terminate::relay::{RelayDirection, relay};

impl<S: ClientStream> HttpConnection<'_, S> {
    /// Serves a WebSocket of HTTP/2 to its end, and logs it as the request that it is.
    pub(super) async fn serve_switched(
        &mut self,
        log: &mut RequestLog,
        mut upstream: UpstreamConnection,
        exchanged: Exchanged,
    ) -> AfterRequest {
        self.count_response(log, &upstream, &exchanged);
        // It may last for days: the place is for requests.
        upstream.place = None;
        let ended = Box::pin(self.relay_upgraded(Box::new(upstream), log.meta.upgrade)).await;
        // The client knows no 101 (RFC 8441 §5).
        self.log_request(log, RequestEnd { status: Some(200), ended, refused: None, reply: 0 });
        AfterRequest::Over(ended)
    }

    /// Relays all bytes after an accepted Upgrade.
    pub(super) async fn relay_upgraded(
        &mut self,
        mut upstream: Box<UpstreamConnection>,
        protocol: Option<Upgrade>,
    ) -> Ended {
        let conversation = self.conversation;
        let has_frames = protocol == Some(Upgrade::WebSocket);
        let direction = |unread: &mut Buffer, sender| match (has_frames, std::mem::take(unread)) {
            (true, unread) => RelayDirection::of_frames(unread, FrameReader::of(sender)),
            (false, unread) => RelayDirection::holding(unread),
        };
        let mut up = direction(&mut self.client.unread, Sender::Client);
        let mut down = direction(&mut upstream.unread, Sender::Server);
        conversation.state.ends_itself(has_frames);
        conversation.context.counters().upgrades.add(1);
        let limits = {
            let snapshot = conversation.context.current.load();
            let pool = snapshot.pool_of(upstream.lease.backend());
            let limits = conversation.listener().map_or_else(Limits::default, |listener| listener.limits);
            pool.map_or(limits, |pool| limits.nearer(&pool.config().limits))
        };
        self.conversation.forget_rules();
        let (client, backend) = (&mut self.client.stream, &mut upstream.stream);
        let begin = (&*upstream.lease, &mut upstream.first_byte);
        let directions = (&mut up, &mut down);
        let ended = relay(conversation, limits, (client, backend), directions, begin, &mut self.deadline).await;
        if conversation.state.cancelled_by().is_some() || matches!(ended, Ended::Lifetime | Ended::IdleTimeout) {
            let before = (up.moved(), down.moved());
            let (client, backend) = (&mut self.client.stream, &mut upstream.stream);
            let closing = Closing { client, backend, up: &mut up, down: &mut down };
            // In memory of its own, so that a WebSocket that lives does not hold it.
            let ends_well = (
                |client: &mut S| client.reset_on_drop(false),
                |backend: &mut UpstreamStream| backend.reset_on_drop(false),
            );
            Box::pin(closing.close(ends_well)).await;
            let (moved_up, moved_down) = (up.moved() - before.0, down.moved() - before.1);
            let counters = upstream.lease.counters(self.conversation.context.counters_index);
            conversation.state.moved(moved_up, moved_down, clock::now());
            counters.bytes_up.add(moved_up);
            counters.bytes_down.add(moved_down);
        }
        drop(upstream);
        linger_after(&mut self.client.stream, ended).await;
        ended
    }
}
