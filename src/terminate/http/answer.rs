//! Answers of routes: a redirect, or a content of the configuration, in place of a backend's response.
//!
//! Chooses nothing. Invariants: an answer is whole, and the connection is kept behind it exactly if the client has sent the
//! whole request with its head; a request that is answered as its route says is no failure, in the log as in counts.

use super::client_side::ClientSide;
use super::local_reply::{LINGER_INSIDE, RequestFailure};
use super::request_cookie::is_secure;
use super::request_log::{RequestEnd, RequestLog};
use super::{AfterRequest, HttpConnection};
use crate::answers::Answered;
use crate::clock::{self, Micros};
use crate::fault::Endpoint;
use crate::http::head::RequestReader;
use crate::http::{Method, Refused, Version, answer};
use crate::outcome::Ended;
use crate::server_name::ServerName;
use crate::terminate::Routed;
use crate::terminate::byte_stream::ClientStream;
use crate::terminate::connect::write_all;
use crate::terminate::deadline::{LINGER, until};

/// Longest time in which a client takes an answer, if `body_timeout` is off.
const ANSWER_MAX: Micros = 60_000_000;

impl<S: ClientStream> HttpConnection<'_, S> {
    /// Answers a request as its route says, and logs it.
    pub(super) async fn answer(&mut self, head: &RequestReader, routed: &Routed, log: &mut RequestLog) -> AfterRequest {
        let request = head.request(self.client.bytes());
        let next_has_come = self.client.bytes().len() > request.length;
        let drains = self.conversation.context.drain.ends_behind_response(next_has_come, clock::now);
        let ends = drains || self.is_last_request(routed);
        let stays = request.framing.is_empty() && log.meta.persists && request.version == Version::Http11 && !ends;
        let own_id = self.request_id().to_string();
        let field = routed.listener.config.request_id.as_deref().unwrap_or(answer::ID_FIELD);
        let to = Answered {
            secure: is_secure(self.shared.secured, &request, &self.conversation.client_info, &routed.listener.config),
            host: request.host(),
            sni: self.conversation.client_info.sni.as_ref().map(ServerName::as_str),
            target: request.target,
            id: (field, log.given_id.as_deref().unwrap_or(&own_id)),
            to_head: log.meta.method == Method::Head,
            close: !stays,
        };
        let answer = routed.target.route.and_then(|route| routed.listener.answers.of_route(route));
        if self.accept.is_some() && answer.is_some_and(|answer| (200..300).contains(&answer.status())) {
            // It would mean that a WebSocket stands (RFC 8441 §5).
            return self.reply_locally(log, RequestFailure::refused_request(Refused::Connect)).await;
        }
        let mut text = Vec::new();
        let Some(answer) = answer.filter(|answer| answer.write(&mut text, &to, clock::unix_s())) else {
            // Its Location would have no site.
            return self.reply_locally(log, RequestFailure::refused_request(Refused::NoHost)).await;
        };
        self.client.consume(request.length);
        self.count_local_reply(log, answer.status());
        let (status, reply) = (Some(answer.status()), text.len());
        self.log_request(log, RequestEnd { status, ended: Ended::Answered, refused: None, reply });
        if !stays {
            // Some clients of HTTP/2 take it for a failure if the answer to a body stops that.
            if self.write_last(&text).await {
                self.finish_and_read(if log.has_body { LINGER_INSIDE } else { LINGER }).await;
            }
            return AfterRequest::Over(Ended::Done);
        }
        self.conversation.context.counters().answers.add(1);
        let limit = self.conversation.timeouts(None).body.unwrap_or(ANSWER_MAX);
        match until(clock::now() + limit, write_all(&mut self.client.stream, &text)).await {
            Some(Ok(())) => {}
            Some(Err(fault)) => return AfterRequest::Over(fault.ending(Endpoint::Client)),
            None => return AfterRequest::Over(Ended::BodyTimeout),
        }
        self.conversation.state.moved(0, text.len() as u64, clock::now());
        self.idle_since = clock::now();
        self.client.stream.reset_on_drop(false);
        AfterRequest::NextHead
    }
}
