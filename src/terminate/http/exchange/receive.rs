//! The steps of an exchange that get more bytes of a peer: by reading them, or past this process through a pipe.
//!
//! Writes nothing. Invariant: bytes pass without being read only inside of a body of this exchange, where its framing
//! says how many there are, and only from one stream without TLS to another.

use std::task::{Context, Poll, ready};

use super::request::RequestProgress;
use super::{Exchange, ResponseProgress};
use crate::fault::{Endpoint, Fault};
use crate::http::answer::StatusCode;
use crate::http::body::Body;
use crate::http::head::HEAD_MAX;
use crate::http::{Framing, Refused};
use crate::outcome::Ended;
use crate::terminate::buffer::BULK;
use crate::terminate::byte_stream::{ByteStream, Got};
use crate::terminate::http::client_side::ClientSide;
use crate::terminate::http::local_reply::RequestFailure;
use crate::terminate::http::upstreams::UpstreamConnection;

impl<C: ClientSide, S: ByteStream> Exchange<'_, C, S> {
    /// Gets more bytes of the backend.
    pub(super) fn receive(
        &mut self,
        up: &RequestProgress,
        down: &mut ResponseProgress,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), RequestFailure>> {
        Poll::Ready(match ready!(self.poll_backend(down, cx)) {
            Ok(Some(Got::Bytes(_))) => {
                down.any = true;
                Ok(())
            }
            Ok(None) => Err(RequestFailure::refused_response(Refused::HeadTooLong)),
            Ok(Some(Got::End)) if down.body.as_ref().is_some_and(Body::may_end_here) => {
                // The end of the connection delimits this body (RFC 9112 §6.3).
                down.body = Some(Body::new(Framing::None));
                down.end(up, self.head.len());
                Ok(())
            }
            Ok(Some(_)) => Err(RequestFailure::cut(Ended::ResponseCut, down.any)),
            Err(fault) if fault.local().is_some() => {
                Err(RequestFailure::with_reply(fault.ending(Endpoint::Backend), StatusCode::Unavailable))
            }
            Err(Fault::Frames) => Err(RequestFailure::refused_response(Refused::BadFrames)),
            Err(fault) => Err(RequestFailure {
                // The connection of such a stream stands: nothing speaks for another attempt.
                no_response: !down.any && !matches!(fault, Fault::StreamReset | Fault::Unprocessed),
                unprocessed: !down.any && fault == Fault::Unprocessed && up.moved <= self.head.len() as u64,
                ..RequestFailure::cut(fault.ending(Endpoint::Backend), down.any)
            }),
        })
    }

    /// Reads bytes of the backend, or moves those of a body into a pipe.
    fn poll_backend(&mut self, down: &mut ResponseProgress, cx: &mut Context<'_>) -> Poll<Result<Option<Got>, Fault>> {
        let is_bare = self.is_bare();
        let UpstreamConnection { stream, unread, .. } = &mut *self.upstream;
        let Some(body) = &mut down.body else { return unread.poll_read(stream, HEAD_MAX, cx) };
        let most = if is_bare { body.opaque() } else { 0 };
        match down.bypass.poll_fill(stream, unread, most, cx) {
            Some(moved) => counted(body, moved),
            None => unread.poll_read(stream, BULK, cx),
        }
    }

    /// Reads bytes of the client's body, or moves them into a pipe. All that were read before are written.
    pub(super) fn poll_client(
        &mut self,
        up: &mut RequestProgress,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Got>, Fault>> {
        let most = if self.is_bare() { up.body.opaque() } else { 0 };
        match self.client.poll_fill(&mut up.bypass, most, cx) {
            Some(moved) => counted(&mut up.body, moved),
            None => self.client.poll_read(BULK, cx),
        }
    }

    fn is_bare(&self) -> bool {
        self.client.is_bare() && self.upstream.stream.is_bare()
    }
}

/// Counts bytes that have gone into a pipe as part of their body.
fn counted(body: &mut Body, moved: Poll<Result<Got, Fault>>) -> Poll<Result<Option<Got>, Fault>> {
    if let Poll::Ready(Ok(Got::Bytes(count))) = moved {
        body.pass_by(count);
    }
    moved.map_ok(Some)
}
