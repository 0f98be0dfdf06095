//! [`BackendStream`]: one request on a connection of HTTP/2, which looks from inside like a connection of HTTP/1 to a
//! backend that carries one request.
//!
//! Judges no message: the readers of HTTP/1 judge what is read here, and what is written was made by this process.
//! Invariants: no more is taken of a request than the backend's windows and [`SEND_BUFFER`](super::SEND_BUFFER) allow; a
//! window is opened again only for bytes that were read from here; a stream that is dropped before both messages are
//! complete is reset; a failure stays what it was.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::Response;

use super::BackendConnection;
use super::request::StreamRequest;
use crate::fault::Fault;
use crate::http::Version;
use crate::http::http2_head::StreamBody;
use crate::http::http2_response::{AskedOfStream, write_interim_head, write_response_head};
use crate::terminate::byte_stream::{ByteStream, Got};
use crate::terminate::deadline::LINGER;
use crate::terminate::http2::received_body::ReceivedBody;
use crate::terminate::http2::response::{Piece, ResponseTranslator};
use crate::terminate::http2::room::poll_room;

/// The answer to a request for a WebSocket, of a backend that takes none by HTTP/2 (RFC 8441 §3).
const NO_WEB_SOCKET: &[u8] = b"HTTP/1.1 501 Not Implemented\r\nContent-Length: 0\r\n\r\n";

/// One request on a connection of HTTP/2.
pub struct BackendStream {
    connection: Rc<BackendConnection>,
    /// `None` until the head of the request was sent.
    sending: Option<Sending>,
    /// The request is complete, or no more of it is wanted.
    request_ended: bool,
    asked: AskedOfStream,
    receiving: Receiving,
    /// Bytes that stand before the body of the response.
    out: Vec<u8>,
    out_read: usize,
    /// The code by which the backend has reset the stream, or would have.
    reset: Option<Reason>,
}

struct Sending {
    stream: SendStream<Bytes>,
    body: ResponseTranslator,
}

enum Receiving {
    /// No request was sent.
    Nothing,
    Head(ResponseFuture),
    Body(ReceivedBody, StreamBody),
    /// The response is complete behind `out`.
    Complete,
    /// What every further read returns.
    Over(Result<Got, Fault>),
}

impl BackendStream {
    pub(super) fn new(connection: Rc<BackendConnection>) -> Self {
        Self {
            connection,
            sending: None,
            request_ended: false,
            asked: AskedOfStream { is_head: false, version: Version::Http11, accept: None },
            receiving: Receiving::Nothing,
            out: Vec::new(),
            out_read: 0,
            reset: None,
        }
    }

    /// The connection that carries the stream.
    pub fn connection(&self) -> &Rc<BackendConnection> {
        &self.connection
    }

    /// Leaves a stream with both messages complete. A response with a length is so before its stream has ended, which the
    /// backend would have to take for a request that was given up.
    pub fn leave(mut self) {
        let left = std::mem::replace(&mut self.receiving, Receiving::Complete);
        if let Receiving::Body(mut body, StreamBody::Length) = left
            && !body.has_ended()
        {
            tokio::task::spawn_local(async move {
                let end = poll_fn(|cx| body.poll_read(cx, &mut [0]));
                let _ = tokio::time::timeout(Duration::from_micros(LINGER), end).await;
                drop(self);
            });
        }
    }

    /// The code by which the backend has reset the stream; `None`: it has not.
    pub fn reset_reason(&self) -> Option<Reason> {
        self.reset
    }

    /// Sends the head of the request, which has come whole; returns its length.
    fn poll_head(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Fault>> {
        let Some(request) = StreamRequest::read(bytes, self.connection.is_secure) else {
            return Poll::Ready(Err(self.over(Fault::Local)));
        };
        let StreamRequest { head, length, framing, asked } = request;
        self.asked = asked;
        let mut requests = self.connection.requests.clone();
        if asked.accept.is_some() && !requests.is_extended_connect_protocol_enabled() {
            // The backend's first frame tells.
            ready!(self.connection.notes.poll_settings(cx));
            if self.connection.is_open() && !requests.is_extended_connect_protocol_enabled() {
                self.out = NO_WEB_SOCKET.to_vec();
                (self.receiving, self.request_ended) = (Receiving::Complete, true);
                return Poll::Ready(Ok(length));
            }
        }
        let (is_tunnel, ends) = (asked.accept.is_some(), framing.is_empty() && asked.accept.is_none());
        match requests.send_request(head, ends) {
            Ok((response, stream)) => {
                let body = if is_tunnel { ResponseTranslator::tunnel() } else { ResponseTranslator::of_body(framing) };
                self.sending = Some(Sending { stream, body });
                self.request_ended = ends;
                self.receiving = Receiving::Head(response);
                Poll::Ready(Ok(length))
            }
            Err(error) if error.is_library() => Poll::Ready(Err(self.over(Fault::Frames))),
            // The connection has failed, or its end was announced: no stream has begun.
            Err(error) if error.is_io() || error.is_go_away() => {
                self.reset = Some(Reason::REFUSED_STREAM);
                Poll::Ready(Err(self.over(Fault::Unprocessed)))
            }
            Err(_) => Poll::Ready(Err(self.over(Fault::Local))),
        }
    }

    fn over(&mut self, fault: Fault) -> Fault {
        self.receiving = Receiving::Over(Err(fault));
        fault
    }

    /// What every read returns after this error of the stream.
    fn failed(&mut self, error: &h2::Error) -> Result<Got, Fault> {
        let notes = &self.connection.notes;
        let result = if notes.excess.get().is_some() || error.is_library() {
            Err(Fault::Frames)
        } else if error.is_go_away() {
            self.reset = Some(Reason::REFUSED_STREAM);
            Err(Fault::Unprocessed)
        } else if error.is_reset() {
            self.reset = error.reason();
            Err(if self.reset == Some(Reason::REFUSED_STREAM) { Fault::Unprocessed } else { Fault::StreamReset })
        } else {
            notes.fault.get().map_or(Ok(Got::Truncated), Err)
        };
        self.receiving = Receiving::Over(result);
        result
    }

    /// Gets the next head of the response.
    fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Result<Got, Fault>>> {
        let Receiving::Head(response) = &mut self.receiving else { return Poll::Ready(Ok(())) };
        if let Poll::Ready(Some(interim)) = response.poll_informational(cx) {
            let written = match interim {
                Ok(interim) => write_interim_head(&mut self.out, interim.status(), interim.headers()),
                Err(error) => return Poll::Ready(Err(self.failed(&error))),
            };
            return Poll::Ready(written.ok_or(()).map_err(|()| Err(self.over(Fault::Frames))));
        }
        match ready!(Pin::new(response).poll(cx)) {
            Ok(response) => Poll::Ready(self.begin_body(response)),
            Err(error) => Poll::Ready(Err(self.failed(&error))),
        }
    }

    fn begin_body(&mut self, response: Response<RecvStream>) -> Result<(), Result<Got, Fault>> {
        let (parts, body) = response.into_parts();
        let Some(framing) = write_response_head(&mut self.out, &parts, body.is_end_stream(), self.asked) else {
            return Err(Err(self.over(Fault::Frames)));
        };
        self.receiving = Receiving::Body(ReceivedBody::new(body, framing), framing);
        Ok(())
    }

    /// The response is complete. Ready once the backend has reset the stream, which does without the rest of the request.
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Result<Got, Fault>> {
        match &mut self.sending {
            Some(sending) => sending.stream.poll_reset(cx).map(|_| Err(Fault::StreamReset)),
            None => Poll::Pending,
        }
    }

    fn send(&mut self, piece: Piece<'_>) -> Result<(), h2::Error> {
        let Some(Sending { stream, .. }) = &mut self.sending else { return Ok(()) };
        match piece {
            Piece::Data { bytes, ends } => {
                self.request_ended = ends;
                stream.send_data(Bytes::copy_from_slice(bytes), ends)
            }
            Piece::Trailers(fields) => {
                self.request_ended = true;
                stream.send_trailers(fields)
            }
            Piece::End => {
                self.request_ended = true;
                stream.send_data(Bytes::new(), true)
            }
            // A request has one head, which was sent.
            Piece::Interim(_) | Piece::Head { .. } => Ok(()),
        }
    }
}

impl ByteStream for BackendStream {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<Result<Got, Fault>> {
        loop {
            if self.out_read < self.out.len() {
                let count = (self.out.len() - self.out_read).min(into.len());
                into[..count].copy_from_slice(&self.out[self.out_read..][..count]);
                self.out_read += count;
                if self.out_read == self.out.len() {
                    (self.out, self.out_read) = (Vec::new(), 0);
                }
                return Poll::Ready(Ok(Got::Bytes(count)));
            }
            let read = match &mut self.receiving {
                Receiving::Nothing => return Poll::Pending,
                Receiving::Head(_) => match ready!(self.poll_response(cx)) {
                    Ok(()) => continue,
                    Err(end) => return Poll::Ready(end),
                },
                Receiving::Body(body, _) => ready!(body.poll_read(cx, into)),
                Receiving::Complete => return self.poll_reset(cx),
                Receiving::Over(end) => return Poll::Ready(*end),
            };
            match read {
                Ok(Some(count)) => return Poll::Ready(Ok(Got::Bytes(count))),
                Ok(None) => {
                    let delimits = matches!(self.receiving, Receiving::Body(_, StreamBody::Tunnel));
                    self.receiving = if delimits { Receiving::Over(Ok(Got::End)) } else { Receiving::Complete };
                }
                Err(error) => return Poll::Ready(self.failed(&error)),
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, from: &[u8]) -> Poll<Result<usize, Fault>> {
        if self.sending.is_none() && matches!(self.receiving, Receiving::Nothing) {
            return self.poll_head(cx, from);
        }
        let mut taken = 0;
        while taken < from.len() && !self.request_ended {
            let Some(Sending { stream, body }) = &mut self.sending else { break };
            let room = poll_room(stream, from.len() - taken, cx)?;
            let (count, piece) = body.next(&from[taken..], room).map_err(|_| Fault::Other)?;
            if count == 0 && piece.is_none() {
                break;
            }
            taken += count;
            if let Some(piece) = piece {
                self.send(piece).map_err(|_| Fault::Reset)?;
            }
        }
        match taken {
            0 if !from.is_empty() && !self.request_ended => Poll::Pending,
            // Nothing behind the request belongs to it.
            _ if self.request_ended => Poll::Ready(Ok(from.len())),
            taken => Poll::Ready(Ok(taken)),
        }
    }

    /// Frames leave with the next turn of the connection, as many together as there are.
    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let end = self.sending.as_mut().filter(|_| !self.request_ended).and_then(|sending| sending.body.end());
        match end.map(|piece| self.send(piece)) {
            Some(Err(_)) => Poll::Ready(Err(Fault::Reset)),
            _ => Poll::Ready(Ok(())),
        }
    }
}
