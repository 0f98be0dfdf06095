//! Waiting for the head of the next request.
//!
//! Looks at no request. Invariant: a head is waited for no longer than its limit allows from its first byte, and a
//! connection that is merely kept no longer than `keepalive_timeout`.

use std::future::poll_fn;
use std::task::Poll;

use super::HttpConnection;
use crate::clock::{self, Micros};
use crate::fault::Endpoint;
use crate::http::answer::StatusCode;
use crate::http::head::HEAD_MAX;
use crate::http::{Progress, Refused};
use crate::outcome::Ended;
use crate::terminate::state::ConversationStage;
use crate::terminate::stream::Got;

/// What waiting for a head came to.
enum Head {
    Whole,
    Refused(Refused),
    Late,
    Over(Ended),
}

impl HttpConnection<'_> {
    /// Waits for a whole head.
    pub(super) async fn read_head(&mut self, first_until: Micros) -> Result<(), Ended> {
        let conversation = self.conversation;
        let state = &conversation.state;
        let limits = self.limits();
        let kept_until = limits.kept.map(|limit| self.idle_since + limit);
        state.enter(if self.count == 0 { ConversationStage::Head } else { ConversationStage::Upstreams });
        if self.count > 0 && conversation.context.stopping.get() && self.inbound.is_empty() {
            self.finish_and_drain().await;
            return Err(Ended::Stopped);
        }
        let mut begun = None;
        let (first, inbound, client) = (self.count == 0, &mut self.inbound, &mut self.client);
        let (reader, deadline) = (&mut self.reader, &mut self.deadline);
        let what = poll_fn(|cx| {
            loop {
                if !inbound.is_empty() {
                    begun.get_or_insert_with(clock::now);
                    state.enter(ConversationStage::Head);
                    match reader.read(inbound.bytes()) {
                        Progress::Done(_) => return Poll::Ready(Head::Whole),
                        Progress::No(refused) => return Poll::Ready(Head::Refused(refused)),
                        Progress::More => {}
                    }
                }
                match inbound.poll_read(client, HEAD_MAX, cx) {
                    Poll::Ready(Ok(Some(Got::Bytes(_)))) => {}
                    Poll::Ready(Ok(None)) => return Poll::Ready(Head::Refused(Refused::HeadTooLong)),
                    Poll::Ready(Ok(Some(_))) => {
                        let ended = match (begun, first) {
                            (None, false) => Ended::Done,
                            _ => Ended::ClientLeft,
                        };
                        return Poll::Ready(Head::Over(ended));
                    }
                    Poll::Ready(Err(fault)) => return Poll::Ready(Head::Over(fault.ending(Endpoint::Client))),
                    Poll::Pending => break,
                }
            }
            let at = match (begun, first) {
                (_, true) => Some(first_until),
                (Some(at), false) => Some(at + limits.head),
                (None, false) => kept_until,
            };
            match at {
                Some(at) => deadline.poll(cx, at).map(|()| Head::Late),
                None => Poll::Pending,
            }
        })
        .await;
        match what {
            Head::Whole => {
                self.count += 1;
                Ok(())
            }
            Head::Over(ended) => {
                self.finish().await;
                Err(ended)
            }
            Head::Late if begun.is_some() => Err(self.refuse(StatusCode::RequestTimeout, Ended::RequestTimeout).await),
            Head::Late => {
                self.finish().await;
                Err(if first { Ended::Silent } else { Ended::KeepaliveTimeout })
            }
            Head::Refused(refused) => Err(self.refuse(refused.status(), Ended::RequestRefused).await),
        }
    }
}
