//! [`RequestFailure`]: a request without a response of a backend, the local reply to it, and how the client's
//! connection is finished.
//!
//! Decides about no request; `http/mod.rs`, `exchange.rs` and `head.rs` do. Invariant: a client can read every local
//! reply: no reset follows while the reply is under way.

use std::future::poll_fn;
use std::task::{Poll, ready};

use super::request_log::RequestLog;
use super::{AfterRequest, HttpConnection};
use crate::clock;
use crate::connection::request_id;
use crate::http::Method;
use crate::http::answer::{self, StatusCode};
use crate::outcome::{Ended, Party};
use crate::terminate::connect::write_all;
use crate::terminate::deadline::{LINGER, until};
use crate::terminate::stream::Got;

/// Why a request got no complete response.
#[derive(Debug, Clone, Copy)]
pub struct RequestFailure {
    /// Outcome of the request and of its connection.
    pub ended: Ended,
    /// Status of the local reply; `None`: the client gets none.
    pub reply: Option<StatusCode>,
    /// The backend closed before a byte of a response.
    pub no_response: bool,
}

impl RequestFailure {
    /// A failure that the client learns from a local reply.
    pub fn with_reply(ended: Ended, status: StatusCode) -> Self {
        Self { ended, reply: Some(status), no_response: false }
    }

    /// A failure that only closes the client's connection.
    pub fn without_reply(ended: Ended) -> Self {
        Self { ended, reply: None, no_response: false }
    }

    /// The backend has closed or reset; `any`: after bytes of a response.
    pub fn cut(ended: Ended, any: bool) -> Self {
        Self { ended, reply: Some(StatusCode::BadGateway), no_response: !any }
    }

    /// No backend could be picked or connected.
    pub fn not_connected(ended: Ended) -> Self {
        let status = match ended {
            Ended::BackendTls => StatusCode::BadGateway,
            _ => StatusCode::Unavailable,
        };
        Self { ended, reply: (ended.fault() != Party::Client).then_some(status), no_response: false }
    }

    /// The request does not belong on this connection (RFC 9110 §15.5.20).
    pub fn misdirected() -> Self {
        Self::with_reply(Ended::Misdirected, StatusCode::Misdirected)
    }
}

impl HttpConnection<'_> {
    /// Logs a failed request, and replies to the client if the failure says so.
    pub(super) async fn reply_locally(&mut self, log: &RequestLog, failure: RequestFailure) -> AfterRequest {
        self.log_request(log, failure.reply.map_or(0, StatusCode::code), failure.ended);
        if let Some(status) = failure.reply {
            self.write_reply(status, log.meta.method == Method::Head).await;
        }
        AfterRequest::Over(failure.ended)
    }

    /// Replies to bytes that are not a request, or not a whole one.
    pub(super) async fn refuse_head(&mut self, status: StatusCode, ended: Ended) -> Ended {
        self.count += 1;
        self.write_reply(status, false).await;
        ended
    }

    async fn write_reply(&mut self, status: StatusCode, to_head: bool) {
        self.conversation.context.counters().answers.add(1);
        self.client.stream.socket().reset_on_drop(false);
        let mut text = Vec::new();
        answer::write(&mut text, status, &self.request_id(), to_head, clock::unix_s());
        let deadline = clock::now() + LINGER;
        if let Some(Ok(())) = until(deadline, write_all(&mut self.client.stream, &text)).await {
            self.conversation.state.moved(0, text.len() as u64, clock::now());
            self.finish_and_drain().await;
        }
    }

    /// Finishes sending, and reads until the client closes or the linger time is over.
    pub(super) async fn finish_and_drain(&mut self) {
        let client = &mut self.client.stream;
        let drained = poll_fn(|cx| {
            // On the stack of this poll, so that a waiting conversation does not hold it.
            let mut scrap = [0; 4096];
            if ready!(client.poll_finish(cx)).is_err() {
                return Poll::Ready(());
            }
            while let Ok(Got::Bytes(_)) = ready!(client.poll_read(cx, &mut scrap)) {}
            Poll::Ready(())
        });
        let _ = until(clock::now() + LINGER, drained).await;
        self.client.stream.socket().reset_on_drop(false);
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
    pub(super) fn request_id(&self) -> String {
        request_id(self.conversation.client_info.id, self.count)
    }
}
