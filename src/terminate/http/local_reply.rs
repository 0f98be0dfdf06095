//! What a client is still told where a request is not carried out, and how its connection is finished.
//!
//! Decides no request's fate; `http/mod.rs` and `head.rs` do. Invariant: whoever was told something can read it:
//! nothing resets a connection on which our last words are under way.

use std::future::poll_fn;
use std::task::{Poll, ready};

use super::exchange::Failed;
use super::request_log::RequestLog;
use super::{AfterRequest, HttpConnection};
use crate::clock::{self, Micros};
use crate::connection::unique_id;
use crate::http::Method;
use crate::http::answer::{self, StatusCode};
use crate::http::head::RequestMeta;
use crate::outcome::{Ended, Party};
use crate::terminate::connect::write_all;
use crate::terminate::deadline::until;
use crate::terminate::stream::Got;

/// How long a client that still sends is listened to after our last word, so that it can read that: a reset would take
/// it from its buffer.
const LINGER: Micros = 1_000_000;

impl HttpConnection<'_> {
    /// It was not, after a backend had been reached.
    pub(super) async fn fail(&mut self, log: &RequestLog, asked: RequestMeta, failed: Failed) -> AfterRequest {
        match failed.answer {
            Some(status) => self.decline(log, asked, status, failed.ended).await,
            None => {
                self.log_request(log, 0, failed.ended);
                AfterRequest::Over(failed.ended)
            }
        }
    }

    /// No backend was reached.
    pub(super) async fn unreached(&mut self, log: &RequestLog, asked: RequestMeta, ended: Ended) -> AfterRequest {
        let status = match ended {
            Ended::BackendTls => StatusCode::BadGateway,
            _ => StatusCode::Unavailable,
        };
        let answer = (ended.fault() != Party::Client).then_some(status);
        self.fail(log, asked, Failed { ended, answer, unanswered: false }).await
    }

    /// Says so to the client, and ends.
    pub(super) async fn decline(
        &mut self,
        log: &RequestLog,
        asked: RequestMeta,
        status: StatusCode,
        ended: Ended,
    ) -> AfterRequest {
        self.log_request(log, status.code(), ended);
        self.answer(status, asked.method == Method::Head).await;
        AfterRequest::Over(ended)
    }

    /// The same for what is no request.
    pub(super) async fn refuse(&mut self, status: StatusCode, ended: Ended) -> Ended {
        self.count += 1;
        self.answer(status, false).await;
        ended
    }

    async fn answer(&mut self, status: StatusCode, to_head: bool) {
        self.conversation.context.counters().answers.add(1);
        self.client.socket().reset_on_drop(false);
        let mut text = Vec::new();
        answer::write(&mut text, status, &self.request_id(), to_head, clock::unix_s());
        let deadline = clock::now() + LINGER;
        if let Some(Ok(())) = until(deadline, write_all(&mut self.client, &text)).await {
            self.conversation.state.moved(0, text.len() as u64, clock::now());
            self.finish_and_drain().await;
        }
    }

    /// Finishes, and lets the client read what it was told while it may still be sending.
    pub(super) async fn finish_and_drain(&mut self) {
        let client = &mut self.client;
        let quiet = poll_fn(|cx| {
            // Not held by the conversation while it waits.
            let mut scrap = [0; 4096];
            if ready!(client.poll_finish(cx)).is_err() {
                return Poll::Ready(());
            }
            while let Ok(Got::Bytes(_)) = ready!(client.poll_read(cx, &mut scrap)) {}
            Poll::Ready(())
        });
        let _ = until(clock::now() + LINGER, quiet).await;
        self.client.socket().reset_on_drop(false);
    }

    /// Finishes; there is nobody to wait for.
    pub(super) async fn finish(&mut self) {
        let client = &mut self.client;
        poll_fn(|cx| {
            let _ = client.poll_finish(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// Under this name a request stands in the log and in what we answer.
    pub(super) fn request_id(&self) -> String {
        let unique = u128::from_be_bytes(unique_id(self.conversation.client_info.id));
        format!("{unique:032x}-{}", self.count)
    }
}
