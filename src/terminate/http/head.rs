//! The wait for the head of the next request.
//!
//! Looks at no request. Invariant: a head is complete within its timeout after the first byte, and a connection is kept
//! without a request for at most `keepalive_timeout`.

use std::future::poll_fn;
use std::task::Poll;

use super::HttpConnection;
use super::client_side::Http1Client;
use crate::clock::{self, Micros};
use crate::fault::Endpoint;
use crate::http::answer::StatusCode;
use crate::http::head::HEAD_MAX;
use crate::http::{Progress, Refused};
use crate::outcome::Ended;
use crate::terminate::deadline::LINGER;
use crate::terminate::state::ConversationStage;
use crate::terminate::stream::Got;

/// Result of the wait for a head.
enum HeadWait {
    Complete,
    Refused(Refused),
    TimedOut,
    Over(Ended),
}

impl HttpConnection<'_> {
    /// Waits for a complete head; the first one is due at `first_until`.
    pub(super) async fn read_head(&mut self, first_until: Micros) -> Result<(), Ended> {
        let conversation = self.conversation;
        let state = &conversation.state;
        let limits = self.limits();
        let kept_until = limits.kept.map(|limit| self.idle_since + limit);
        state.enter(if self.count == 0 { ConversationStage::Head } else { ConversationStage::Kept });
        if self.count > 0 && conversation.context.stopping.get() && self.client.unread.is_empty() {
            self.finish_and_drain(LINGER).await;
            return Err(Ended::Stopped);
        }
        let mut begun = None;
        let (first, Http1Client { stream, unread }) = (self.count == 0, &mut self.client);
        let (reader, deadline) = (&mut self.reader, &mut self.deadline);
        let result = poll_fn(|cx| {
            loop {
                if !unread.is_empty() {
                    begun.get_or_insert_with(clock::now);
                    state.enter(ConversationStage::Head);
                    match reader.read(unread.bytes()) {
                        Progress::Done(_) => return Poll::Ready(HeadWait::Complete),
                        Progress::No(refused) => return Poll::Ready(HeadWait::Refused(refused)),
                        Progress::More => {}
                    }
                }
                match unread.poll_read(stream, HEAD_MAX, cx) {
                    Poll::Ready(Ok(Some(Got::Bytes(_)))) => {}
                    Poll::Ready(Ok(None)) => return Poll::Ready(HeadWait::Refused(Refused::HeadTooLong)),
                    Poll::Ready(Ok(Some(_))) => {
                        let ended = match (begun, first) {
                            (None, false) => Ended::Done,
                            _ => Ended::ClientLeft,
                        };
                        return Poll::Ready(HeadWait::Over(ended));
                    }
                    Poll::Ready(Err(fault)) => return Poll::Ready(HeadWait::Over(fault.ending(Endpoint::Client))),
                    Poll::Pending => break,
                }
            }
            let at = match (begun, first) {
                (_, true) => Some(first_until),
                (Some(at), false) => Some(at + limits.head),
                (None, false) => kept_until,
            };
            match at {
                Some(at) => deadline.poll(cx, at).map(|()| HeadWait::TimedOut),
                None => Poll::Pending,
            }
        })
        .await;
        let checks = first && begun.is_none() && conversation.client_info.local;
        match result {
            HeadWait::Complete => {
                self.count += 1;
                Ok(())
            }
            HeadWait::Over(ended) => {
                self.finish().await;
                Err(or_probe(ended, checks))
            }
            HeadWait::TimedOut if begun.is_some() => {
                Err(self.refuse_head(StatusCode::RequestTimeout, Ended::RequestTimeout, None).await)
            }
            HeadWait::TimedOut => {
                self.finish().await;
                Err(or_probe(if first { Ended::Silent } else { Ended::KeepaliveTimeout }, checks))
            }
            HeadWait::Refused(why) => Err(self.refuse_head(why.status(), Ended::RequestRefused, Some(why)).await),
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
