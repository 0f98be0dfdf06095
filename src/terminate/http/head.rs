//! The wait for the head of the next request.
//!
//! Looks at no request. Invariant: a head is complete within its timeout after the first byte, and a connection is kept
//! without a request for at most `keepalive_timeout`, and for two seconds while the process drains (`drain.rs`).

use std::future::poll_fn;
use std::task::Poll;

use super::HttpConnection;
use super::client_side::Http1Client;
use crate::clock::{self, Micros};
use crate::fault::Endpoint;
use crate::http::answer::StatusCode;
use crate::http::head::{HEAD_MAX, RequestReader};
use crate::http::{Progress, Refused};
use crate::outcome::Ended;
use crate::terminate::byte_stream::Got;
use crate::terminate::deadline::{CLOSING_MAX, LINGER, until};
use crate::terminate::state::ConversationStage;

/// Why no complete head comes.
enum NoHead {
    Refused(Refused),
    TimedOut,
    Cancelled(Ended),
    Over(Ended),
}

impl HttpConnection<'_> {
    /// Waits for a complete head; the first one is due at `first_until`.
    pub(super) async fn read_head(&mut self, first_until: Micros) -> Result<Box<RequestReader>, Ended> {
        let conversation = self.conversation;
        let state = &conversation.state;
        let limits = self.limits();
        let kept_until = limits.kept.map(|limit| self.idle_since + limit);
        state.enter(if self.count == 0 { ConversationStage::Head } else { ConversationStage::Kept });
        // No request is under way: a close in good order loses nothing.
        state.ends_itself(true);
        let (drain, idle_since, id) = (&conversation.context.drain, self.idle_since, conversation.client_info.id);
        let mut begun = None;
        // Made at the first byte: a client without a request holds none.
        let mut reader = None;
        let (first, Http1Client { stream, unread }) = (self.count == 0, &mut self.client);
        let deadline = &mut self.deadline;
        let result = poll_fn(|cx| {
            if let Some(ended) = state.cancelled_by() {
                return Poll::Ready(Err(NoHead::Cancelled(ended)));
            }
            loop {
                if !unread.is_empty() {
                    begun.get_or_insert_with(clock::now);
                    state.enter(ConversationStage::Head);
                    let mut head: Box<_> = reader.take().unwrap_or_else(|| Box::new(RequestReader::new()));
                    match head.read(unread.bytes()) {
                        Progress::Done(_) => return Poll::Ready(Ok(head)),
                        Progress::No(refused) => return Poll::Ready(Err(NoHead::Refused(refused))),
                        Progress::More => reader = Some(head),
                    }
                }
                match unread.poll_read(stream, HEAD_MAX, cx) {
                    Poll::Ready(Ok(Some(Got::Bytes(_)))) => {}
                    Poll::Ready(Ok(None)) => return Poll::Ready(Err(NoHead::Refused(Refused::HeadTooLong))),
                    Poll::Ready(Ok(Some(_))) => {
                        let ended = match (begun, first) {
                            (None, false) => Ended::Done,
                            _ => Ended::ClientLeft,
                        };
                        return Poll::Ready(Err(NoHead::Over(ended)));
                    }
                    Poll::Ready(Err(fault)) => {
                        return Poll::Ready(Err(NoHead::Over(fault.ending(Endpoint::Client))));
                    }
                    Poll::Pending => break,
                }
            }
            let (at, no_head) = match (begun, first) {
                (_, true) => (Some(first_until), NoHead::TimedOut),
                (Some(at), false) => (Some(at + limits.head), NoHead::TimedOut),
                (None, false) => match drain.end_of_kept(idle_since, id) {
                    Some(end) if kept_until.is_none_or(|at| end < at) => (Some(end), NoHead::Cancelled(Ended::Stopped)),
                    _ => (kept_until, NoHead::TimedOut),
                },
            };
            match at {
                Some(at) => deadline.poll(cx, at).map(|()| Err(no_head)),
                None => Poll::Pending,
            }
        })
        .await;
        state.ends_itself(state.cancelled_by().is_some());
        match result {
            Ok(head) => {
                self.count += 1;
                self.head_began = begun.unwrap_or_default();
                Ok(head)
            }
            Err(no_head) => Err(self.end(no_head, first, begun.is_some()).await),
        }
    }

    /// Ends a connection that brings no complete head. `first`: it has carried no request; `begun`: a byte of one has
    /// come.
    async fn end(&mut self, no_head: NoHead, first: bool, begun: bool) -> Ended {
        let checks = first && !begun && self.conversation.client_info.local;
        match no_head {
            NoHead::Over(ended) => {
                self.finish().await;
                or_probe(ended, checks)
            }
            NoHead::Cancelled(ended) => {
                let _ = until(clock::now() + CLOSING_MAX.as_micros() as Micros, self.finish_and_drain(LINGER)).await;
                ended
            }
            NoHead::TimedOut if begun => {
                self.refuse_head(StatusCode::RequestTimeout, Ended::RequestTimeout, None).await
            }
            NoHead::TimedOut => {
                self.finish().await;
                or_probe(if first { Ended::Silent } else { Ended::KeepaliveTimeout }, checks)
            }
            NoHead::Refused(why) => self.refuse_head(why.status(), Ended::RequestRefused, Some(why)).await,
        }
    }
}

/// The ending of a connection without a request; `checks`: a balancer in front has said LOCAL, and nothing else.
fn or_probe(ended: Ended, checks: bool) -> Ended {
    match ended {
        Ended::ClientLeft | Ended::ClientReset | Ended::Silent if checks => Ended::Probe,
        ended => ended,
    }
}
