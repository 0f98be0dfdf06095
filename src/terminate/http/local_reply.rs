//! [`RequestFailure`]: a request without a response of a backend, the local reply to it, and how the client's
//! connection is finished.
//!
//! Decides about no request; `http/mod.rs`, `exchange.rs` and `head.rs` do. Invariant: a client can read every local
//! reply: no reset follows while the reply is under way.

use std::future::poll_fn;
use std::task::Poll;

use super::request_log::{RequestEnd, RequestLog};
use super::rules::Unrouted;
use super::{AfterRequest, HttpConnection};
use crate::access_log::RequestId;
use crate::answers::Page;
use crate::clock::{self, Micros};
use crate::connection::request_id;
use crate::http::answer::{self, Reply, StatusCode};
use crate::http::{Method, Refused};
use crate::outcome::{Ended, Party};
use crate::terminate::byte_stream::{ClientStream, Got};
use crate::terminate::connect::write_all;
use crate::terminate::deadline::{LINGER, until};
use crate::terminate::turns::give_way;

/// Longest silence of a client inside of its request: it may read the reply only behind the last byte of that.
pub(super) const LINGER_INSIDE: Micros = 5_000_000;
/// Longest time in which bytes of a client are dropped, however many come.
const LINGER_MAX: Micros = 30_000_000;
/// Number of reads before other tasks have a turn.
const DRAIN_STEPS: usize = 64;

/// Why a request got no complete response.
#[derive(Debug, Clone, Copy)]
pub struct RequestFailure {
    /// Outcome of the request and of its connection.
    pub ended: Ended,
    /// Status of the local reply; `None`: the client gets none.
    pub reply: Option<StatusCode>,
    /// Seconds after which the client may ask again.
    pub retry_after_s: Option<u32>,
    /// Status of the response that the client has a part of.
    pub begun: Option<u16>,
    /// The backend closed before a byte of a response.
    pub no_response: bool,
    /// The backend says that it has not looked at the request, of which the body was not begun: it may be sent again.
    pub unprocessed: bool,
    /// Why the request or its response was refused; `None`: neither was.
    pub refused: Option<Refused>,
}

impl RequestFailure {
    /// A failure that the client learns from a local reply.
    pub fn with_reply(ended: Ended, status: StatusCode) -> Self {
        Self { reply: Some(status), ..Self::without_reply(ended) }
    }

    /// A failure that only closes the client's connection.
    pub fn without_reply(ended: Ended) -> Self {
        Self {
            ended,
            reply: None,
            retry_after_s: None,
            begun: None,
            no_response: false,
            unprocessed: false,
            refused: None,
        }
    }

    /// The body of the request is refused.
    pub fn refused_request(why: Refused) -> Self {
        Self { refused: Some(why), ..Self::with_reply(Ended::RequestRefused, why.status()) }
    }

    /// The body of the request is longer than it may be.
    pub fn body_too_large() -> Self {
        Self::with_reply(Ended::BodyTooLarge, StatusCode::ContentTooLarge)
    }

    /// The body of the request comes too slowly.
    pub fn body_slow() -> Self {
        Self::with_reply(Ended::BodySlow, StatusCode::RequestTimeout)
    }

    /// The client makes more requests than it may.
    pub fn too_many(retry_after_s: u32) -> Self {
        let retry_after_s = Some(retry_after_s);
        Self { retry_after_s, ..Self::with_reply(Ended::RequestRate, StatusCode::TooManyRequests) }
    }

    /// The response is refused: it is not passed on.
    pub fn refused_response(why: Refused) -> Self {
        Self { refused: Some(why), ..Self::with_reply(Ended::ResponseRefused, StatusCode::BadGateway) }
    }

    /// The backend has closed or reset; `any`: after bytes of a response.
    pub fn cut(ended: Ended, any: bool) -> Self {
        Self { no_response: !any, ..Self::with_reply(ended, StatusCode::BadGateway) }
    }

    /// No backend could be picked or connected.
    pub fn not_connected(ended: Ended) -> Self {
        let status = match ended {
            Ended::BackendTls | Ended::BackendNoHttp2 => StatusCode::BadGateway,
            _ => StatusCode::Unavailable,
        };
        Self { reply: (ended.fault() != Party::Client).then_some(status), ..Self::without_reply(ended) }
    }

    /// The request does not belong on this connection (RFC 9110 §15.5.20), or nowhere.
    pub fn unrouted(why: Unrouted) -> Self {
        match why {
            Unrouted::RulesChanged | Unrouted::OtherHost => {
                Self::with_reply(Ended::Misdirected, StatusCode::Misdirected)
            }
            Unrouted::NoRoute => Self::with_reply(Ended::NoRoute, StatusCode::NotFound),
        }
    }
}

impl<S: ClientStream> HttpConnection<'_, S> {
    /// Logs a failed request, and replies to the client if the failure says so.
    pub(super) async fn reply_locally(&mut self, log: &mut RequestLog, failure: RequestFailure) -> AfterRequest {
        let RequestFailure { ended, reply, retry_after_s, begun, refused, .. } = failure;
        let is_head = log.meta.method == Method::Head;
        let text = reply.map(|status| self.reply_text((status, retry_after_s), log.given_id.as_deref(), is_head));
        let length = text.as_ref().map_or(0, Vec::len);
        self.count_local_reply(log, reply.map_or(0, StatusCode::code));
        self.log_request(
            log,
            RequestEnd { status: reply.map(StatusCode::code).or(begun), ended, refused, reply: length },
        );
        if let Some(text) = text {
            self.write_reply(&text, if log.has_body { LINGER_INSIDE } else { LINGER }).await;
        }
        AfterRequest::Over(ended)
    }

    /// Replies to bytes that are not a request, or not a whole one, and logs them; `refused`: why they are none.
    pub(super) async fn refuse_head(&mut self, status: StatusCode, ended: Ended, refused: Option<Refused>) -> Ended {
        self.count += 1;
        let text = self.reply_text((status, None), None, false);
        let mut log = RequestLog::of_unread(self.begin_line());
        self.count_local_reply(&log, status.code());
        self.log_request(&mut log, RequestEnd { status: Some(status.code()), ended, refused, reply: text.len() });
        self.write_reply(&text, LINGER).await;
        ended
    }

    /// A reply of our own, with an id that its line in the log has, the given one or ours: the page of the listener, or a
    /// short text.
    fn reply_text(
        &self,
        (status, retry_after_s): (StatusCode, Option<u32>),
        given_id: Option<&str>,
        to_head: bool,
    ) -> Vec<u8> {
        let (mut text, own_id, now_unix_s) = (Vec::new(), self.request_id().to_string(), clock::unix_s());
        let listener = self.conversation.listener();
        let field = listener.as_ref().and_then(|listener| listener.config.request_id.as_deref());
        let id = Some((field.unwrap_or(answer::ID_FIELD), given_id.unwrap_or(&own_id)));
        let reply = Reply { status, retry_after_s, id, to_head };
        match listener.as_ref().and_then(|listener| listener.answers.page(status.code())) {
            Some(Page { content_type, content }) => {
                answer::write_page(&mut text, &reply, (content_type, content), now_unix_s);
            }
            None => answer::write(&mut text, &reply, now_unix_s),
        }
        text
    }

    async fn write_reply(&mut self, text: &[u8], silence: Micros) {
        if self.write_last(text).await {
            self.finish_and_read(silence).await;
        }
    }

    /// Writes the last message to the client; false: it does not take it in time.
    pub(super) async fn write_last(&mut self, text: &[u8]) -> bool {
        self.conversation.context.counters().answers.add(1);
        self.client.stream.reset_on_drop(false);
        let written = until(clock::now() + LINGER, write_all(&mut self.client.stream, text)).await;
        let is_written = matches!(written, Some(Ok(())));
        if is_written {
            self.conversation.state.moved(0, text.len() as u64, clock::now());
        }
        is_written
    }

    /// Finishes sending, and reads until the client closes, has sent its whole request, is silent for `silence`, or has
    /// sent for too long. A client that is told at once to send no more, by a reset of its connection or stream, may
    /// not read what it was sent before: curl 7 does not.
    pub(super) async fn finish_and_read(&mut self, silence: Micros) {
        let (client, deadline) = (&mut self.client.stream, &mut self.deadline);
        let began = clock::now();
        let mut heard = began;
        let give_up = |heard: Micros| (heard + silence).min(began + LINGER_MAX);
        poll_fn(|cx| {
            // On the stack of this poll, so that a waiting conversation does not hold it.
            let mut scrap = [0; 4096];
            let finished = client.poll_finish(cx);
            if let Poll::Ready(Err(_)) = finished {
                return Poll::Ready(());
            }
            for _ in 0..DRAIN_STEPS {
                match client.poll_read(cx, &mut scrap) {
                    Poll::Ready(Ok(Got::Bytes(_))) if finished.is_ready() => heard = clock::now(),
                    // A client that takes no bytes has as long as a silent one.
                    Poll::Ready(Ok(Got::Bytes(_))) => {}
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return deadline.poll(cx, give_up(heard)),
                }
            }
            give_way(cx);
            deadline.poll(cx, give_up(heard))
        })
        .await;
        self.client.stream.reset_on_drop(false);
    }

    /// Finishes sending without waiting for the client.
    pub(super) async fn finish(&mut self) {
        let client = &mut self.client.stream;
        poll_fn(|cx| {
            let _ = client.poll_finish(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// Names the request in the access log and in local replies.
    pub(super) fn request_id(&self) -> RequestId {
        request_id(self.conversation.client_info.id, self.count)
    }
}
