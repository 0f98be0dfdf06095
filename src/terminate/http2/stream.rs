//! [`Http2Stream`]: one stream of HTTP/2, which looks from inside like a client connection with one request of HTTP/1.
//!
//! Judges no message: `http2_head.rs` has written the head, and the reader of HTTP/1 judges it; what is written here is a
//! response that this process has made or passed on. Invariants: no more is taken of a response than the client's
//! windows and [`SEND_BUFFER`] allow; a window is opened again only for bytes that were read from here; a stream that is
//! dropped before its response is complete is reset.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};

use super::received_body::ReceivedBody;
use super::response::{Piece, ResponseTranslator};
use super::room::poll_room;
use crate::fault::Fault;
use crate::http::http2_head::StreamBody;
use crate::terminate::byte_stream::{ByteStream, ClientStream, Got};
use crate::terminate::conversation::Conversation;
use crate::terminate::state::ConversationState;

/// Most bytes of one stream that wait to be sent.
pub const SEND_BUFFER: usize = 16 * 1024;

/// One stream, as a client connection with one request.
pub struct Http2Stream {
    state: Rc<ConversationState>,
    request: ReceivedBody,
    respond: RefCell<SendResponse<Bytes>>,
    /// `None` until the head of the response was sent.
    body: RefCell<Option<SendStream<Bytes>>>,
    response: ResponseTranslator,
    is_tunnel: bool,
    /// The response is complete.
    finished: bool,
    /// The rest of the request is not wanted: the client is told when the stream is dropped (RFC 9113 §8.1).
    is_given_up: bool,
    /// What was sent of the response is not whole.
    is_cut: bool,
    /// The code by which a backend has reset its stream.
    reset_as: Option<Reason>,
}

impl Http2Stream {
    /// A stream behind its head. `response`: knows what the request asks of its response.
    pub fn new(
        conversation: &Conversation,
        (request, framing): (ReceivedBody, StreamBody),
        respond: SendResponse<Bytes>,
        response: ResponseTranslator,
    ) -> Self {
        let is_tunnel = framing == StreamBody::Tunnel;
        Self {
            state: Rc::clone(&conversation.state),
            request,
            respond: RefCell::new(respond),
            body: RefCell::default(),
            response,
            is_tunnel,
            finished: false,
            is_given_up: false,
            is_cut: false,
            reset_as: None,
        }
    }

    /// Fails once a command ends the request. A WebSocket is told of it by its relay.
    fn check_command(&self) -> Result<(), Fault> {
        match self.state.cancelled_by().filter(|_| !self.is_tunnel) {
            Some(_) => Err(Fault::Reset),
            None => Ok(()),
        }
    }

    /// Ready once the client has reset the stream, its connection has ended, or a command ends the request.
    fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<Fault> {
        if let Err(ended) = self.check_command() {
            return Poll::Ready(ended);
        }
        let reset = match &mut *self.body.borrow_mut() {
            Some(body) => body.poll_reset(cx),
            None => self.respond.borrow_mut().poll_reset(cx),
        };
        reset.map(|_| Fault::Reset)
    }

    /// How many bytes of the response's body may be sent now, of so many; registers for more if there are none.
    fn poll_room(&self, wanted: usize, cx: &mut Context<'_>) -> Result<usize, Fault> {
        self.check_command()?;
        let mut body = self.body.borrow_mut();
        let Some(body) = &mut *body else { return Ok(0) };
        poll_room(body, wanted, cx)
    }

    /// Sends a piece of the response.
    fn send(&mut self, piece: Piece<'_>) -> Result<(), h2::Error> {
        match piece {
            Piece::Interim(head) => self.respond.get_mut().send_informational(head),
            Piece::Head { response, ends } => {
                self.finished = ends;
                *self.body.get_mut() = Some(self.respond.get_mut().send_response(response, ends)?);
                Ok(())
            }
            Piece::Data { bytes, ends } => {
                self.finished = ends;
                let Some(body) = self.body.get_mut() else { return Ok(()) };
                body.send_data(Bytes::copy_from_slice(bytes), ends)
            }
            Piece::Trailers(fields) => {
                self.finished = true;
                let Some(body) = self.body.get_mut() else { return Ok(()) };
                body.send_trailers(fields)
            }
            Piece::End => self.send(Piece::Data { bytes: &[], ends: true }),
        }
    }
}

impl ByteStream for Http2Stream {
    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<Result<Got, Fault>> {
        self.check_command()?;
        if self.is_given_up {
            return Poll::Ready(Ok(Got::End));
        }
        if let Some(got) = ready!(self.request.poll_read(cx, into)).map_err(|_| Fault::Reset)? {
            return Poll::Ready(Ok(Got::Bytes(got)));
        }
        // The request is complete. Its client is still there until the response is, too.
        match self.finished || self.is_tunnel {
            true => Poll::Ready(Ok(Got::End)),
            false => self.poll_gone(cx).map(Err),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, from: &[u8]) -> Poll<Result<usize, Fault>> {
        let mut taken = 0;
        while taken < from.len() && !self.finished {
            let room = self.poll_room(from.len() - taken, cx)?;
            let (count, piece) = self.response.next(&from[taken..], room).map_err(|_| Fault::Other)?;
            if count == 0 && piece.is_none() {
                break;
            }
            taken += count;
            if let Some(piece) = piece {
                self.send(piece).map_err(|_| Fault::Reset)?;
            }
        }
        match taken {
            _ if self.finished => Poll::Ready(Ok(from.len())),
            0 => Poll::Pending,
            taken => Poll::Ready(Ok(taken)),
        }
    }

    fn read_ahead(&mut self, cx: &mut Context<'_>) {
        if !self.is_given_up {
            self.request.read_ahead(cx);
        }
    }

    fn reset_on_drop(&mut self, reset: bool) {
        self.is_cut = reset;
    }

    fn poll_taken_back(&self, cx: &mut Context<'_>) -> Poll<Fault> {
        self.poll_gone(cx)
    }

    fn may_give_up_request(&self) -> bool {
        true
    }

    /// Frames leave with the next turn of the connection, as many together as there are.
    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        if !self.finished
            && let Some(piece) = self.response.end()
        {
            self.send(piece).map_err(|_| Fault::Reset)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl ClientStream for Http2Stream {
    fn note_reset(&mut self, reason: Reason) -> bool {
        // Of what this process has done wrong, the client knows nothing.
        let tells = [Reason::CANCEL, Reason::REFUSED_STREAM, Reason::ENHANCE_YOUR_CALM].contains(&reason);
        self.reset_as = tells.then_some(reason);
        tells
    }

    async fn broken(&self) -> Fault {
        poll_fn(|cx| self.poll_gone(cx)).await
    }

    async fn meanwhile<T>(&self, work: impl Future<Output = T>) -> T {
        work.await
    }

    async fn linger(&mut self) {}

    fn give_up_request(&mut self) {
        self.is_given_up = self.finished;
    }
}

impl Drop for Http2Stream {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let reason = if self.is_cut { Reason::INTERNAL_ERROR } else { Reason::CANCEL };
        let reason = self.reset_as.unwrap_or(reason);
        match self.body.get_mut() {
            Some(body) => body.send_reset(reason),
            None => self.respond.get_mut().send_reset(reason),
        }
    }
}
