//! The rest of a request behind its response.
//!
//! Sends nothing itself: `request.rs` goes on as before. Invariant: the rest goes to the backend for as long as that
//! reads, and a client that can be told so need not send what the backend does not read.

use std::task::{Context, Poll};

use super::request::RequestProgress;
use super::{Exchange, ResponseProgress, STEPS};
use crate::fault::Endpoint;
use crate::outcome::Ended;
use crate::terminate::buffer::BUFFER;
use crate::terminate::byte_stream::{ByteStream, Got};
use crate::terminate::http::client_side::ClientSide;
use crate::terminate::http::local_reply::RequestFailure;
use crate::terminate::http::upstreams::UpstreamConnection;
use crate::terminate::turns::give_way;

impl<C: ClientSide, S: ByteStream> Exchange<'_, C, S> {
    /// The response is complete. Ready once the request is, too, or will not become so: how it ended.
    pub(super) fn poll_rest(
        &mut self,
        request: Result<(), RequestFailure>,
        up: &mut RequestProgress,
        down: &mut ResponseProgress,
        cx: &mut Context<'_>,
    ) -> Poll<Ended> {
        if let Err(failure) = request {
            return Poll::Ready(failure.ended);
        }
        if !up.done && up.cut.is_none() {
            self.watch_backend(up, down, cx);
        }
        if let Some(ended) = up.cut {
            return Poll::Ready(ended);
        }
        if let Some(fault) = self.taken_back(up, cx) {
            return Poll::Ready(fault.ending(Endpoint::Client));
        }
        if up.done {
            return Poll::Ready(if down.ended_early { Ended::RequestCut } else { Ended::Done });
        }
        if self.client.may_give_up_request() && down.exchanged.is_some_and(|exchanged| !exchanged.backend_stays) {
            return Poll::Ready(Ended::RequestCut);
        }
        match down.ends_client.then(|| self.client.poll_finish(cx)) {
            Some(Poll::Ready(Err(fault))) => Poll::Ready(fault.ending(Endpoint::Client)),
            _ => Poll::Pending,
        }
    }

    /// Notices a backend that ends its connection before it has the whole request. It may still read, so the rest is
    /// sent until a write fails; but what it did with the rest will not be known.
    fn watch_backend(&mut self, up: &mut RequestProgress, down: &mut ResponseProgress, cx: &mut Context<'_>) {
        let UpstreamConnection { stream, unread, .. } = &mut *self.upstream;
        for _ in 0..STEPS {
            if down.end_seen {
                return;
            }
            match unread.poll_read(stream, BUFFER, cx) {
                Poll::Pending => return,
                // No response is due; the connection carries no other request.
                Poll::Ready(Ok(Some(Got::Bytes(_)))) => {}
                Poll::Ready(Ok(None)) => down.end_seen = true,
                Poll::Ready(Ok(Some(_))) => {
                    down.end(up, self.head.len());
                    down.ends_client = true;
                }
                Poll::Ready(Err(_)) => {
                    up.cut = Some(Ended::RequestCut);
                    return;
                }
            }
        }
        give_way(cx);
    }
}
