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
use crate::http::head::{HeadLimits, RequestReader};
use crate::http::{Progress, Refused};
use crate::outcome::Ended;
use crate::terminate::byte_stream::{ClientStream, Got};
use crate::terminate::conversation::Conversation;
use crate::terminate::deadline::{CLOSING_MAX, LINGER, until};
use crate::terminate::state::ConversationStage;

/// How long a client may be without a request before it gives back what only a request needs.
const PAUSE: Micros = 100_000;

/// The line by which a client without TLS begins HTTP/2 (RFC 9113 §3.4).
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n";

/// Why no complete head comes.
enum NoHead {
    Refused(Refused),
    TimedOut,
    Cancelled(Ended),
    Over(Ended),
}

/// What bounds a wait for a head.
struct Wait {
    /// When the first head of the connection is due; `None`: this is another one.
    first_until: Option<Micros>,
    /// From the first byte of a head to its last.
    head_limit: Micros,
    idle_since: Micros,
    kept_until: Option<Micros>,
    pauses_at: Option<Micros>,
}

/// A complete head, `None` for a pause, or why none comes.
type HeadRead = Result<Option<Box<RequestReader>>, NoHead>;

impl Wait {
    /// What ends the wait, and when; `begun`: when the first byte of the head has come.
    fn end(&self, begun: Option<Micros>, conversation: &Conversation) -> Option<(Micros, HeadRead)> {
        let timed_out = |at| (at, Err(NoHead::TimedOut));
        match (self.first_until, begun) {
            (Some(until), _) => Some(timed_out(until)),
            (None, Some(at)) => Some(timed_out(at + self.head_limit)),
            (None, None) => {
                let drain = &conversation.context.drain;
                let drained = drain.end_of_kept(self.idle_since, conversation.client_info.id);
                let drained = drained.map(|at| (at, Err(NoHead::Cancelled(Ended::Stopped))));
                let ends = [drained, self.kept_until.map(timed_out), self.pauses_at.map(|at| (at, Ok(None)))];
                ends.into_iter().flatten().min_by_key(|(at, _)| *at)
            }
        }
    }
}

impl<S: ClientStream> HttpConnection<'_, S> {
    /// True if the client, at its first bytes, speaks HTTP/2 to a listener that takes it without TLS.
    pub(super) fn begins_http2(&self) -> bool {
        self.count == 0 && self.shared.takes_http2 && self.client.unread.bytes().starts_with(HTTP2)
    }

    /// Waits for a complete head; the first one is due at `first_until`. With `reader`, that of the request before, the
    /// wait ends with `None` when the client pauses; also if the client begins HTTP/2.
    pub(super) async fn read_head(
        &mut self,
        first_until: Micros,
        mut reader: Option<Box<RequestReader>>,
    ) -> Result<Option<Box<RequestReader>>, Ended> {
        let (conversation, limits) = (self.conversation, self.conversation.timeouts(None));
        let state = &conversation.state;
        state.enter(if self.count == 0 { ConversationStage::Head } else { ConversationStage::Kept });
        // No request is under way: a close in good order loses nothing.
        state.ends_itself(true);
        let wait = Wait {
            first_until: (self.count == 0).then_some(first_until),
            head_limit: limits.head,
            idle_since: self.idle_since,
            kept_until: limits.kept.map(|limit| self.idle_since + limit),
            pauses_at: reader.as_ref().map(|_| self.idle_since + PAUSE),
        };
        if let Some(reader) = &mut reader {
            reader.reset();
        }
        let (mut begun, first, head_limits) = (None, self.count == 0, conversation.head_limits());
        let (Http1Client { stream, unread }, deadline) = (&mut self.client, &mut self.deadline);
        let result = poll_fn(|cx| {
            if let Some(ended) = state.cancelled_by() {
                return Poll::Ready(Err(NoHead::Cancelled(ended)));
            }
            loop {
                if !unread.is_empty() {
                    begun.get_or_insert_with(clock::now);
                    state.enter(ConversationStage::Head);
                    // Made at the first byte: a client that pauses holds none.
                    let mut head: Box<_> = reader.take().unwrap_or_else(|| Box::new(RequestReader::new()));
                    match head.read(unread.bytes()) {
                        Progress::Done(_) => return Poll::Ready(whole(head, unread.bytes(), head_limits)),
                        Progress::No(refused) => return Poll::Ready(Err(NoHead::Refused(refused))),
                        Progress::More => reader = Some(head),
                    }
                }
                match unread.poll_read(stream, head_limits.bytes, cx) {
                    Poll::Ready(Ok(Some(Got::Bytes(_)))) => {}
                    Poll::Ready(Ok(None)) => return Poll::Ready(Err(NoHead::Refused(Refused::HeadTooLong))),
                    Poll::Ready(Ok(Some(_))) => {
                        let ended = if begun.is_none() && !first { Ended::Done } else { Ended::ClientLeft };
                        return Poll::Ready(Err(NoHead::Over(ended)));
                    }
                    Poll::Ready(Err(fault)) => {
                        return Poll::Ready(Err(NoHead::Over(fault.ending(Endpoint::Client))));
                    }
                    Poll::Pending => break,
                }
            }
            self.shared.upstreams.watch_for_others(cx);
            let Some((at, end)) = wait.end(begun, conversation) else { return Poll::Pending };
            deadline.poll(cx, at).map(|()| end)
        })
        .await;
        state.ends_itself(state.cancelled_by().is_some());
        match result {
            Ok(Some(head)) => {
                self.count += 1;
                self.head_began = begun.unwrap_or_default();
                Ok(Some(head))
            }
            Ok(None) => Ok(None),
            Err(NoHead::Refused(_)) if self.begins_http2() => Ok(None),
            // In memory of its own, so that a client that waits does not hold it.
            Err(no_head) => Err(Box::pin(self.end(no_head, first, begun.is_some())).await),
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
                let _ = until(clock::now() + CLOSING_MAX.as_micros() as Micros, self.finish_and_read(LINGER)).await;
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

/// A head that was read from these bytes, if it holds no more than it may.
fn whole(head: Box<RequestReader>, bytes: &[u8], limits: HeadLimits) -> HeadRead {
    let within = limits.check(&head.request(bytes));
    within.map(|()| Some(head)).map_err(NoHead::Refused)
}

/// The ending of a connection without a request; `checks`: a balancer in front has said LOCAL, and nothing else.
fn or_probe(ended: Ended, checks: bool) -> Ended {
    match ended {
        Ended::ClientLeft | Ended::ClientReset | Ended::Silent if checks => Ended::Probe,
        ended => ended,
    }
}
