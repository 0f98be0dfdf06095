//! [`RequestProgress`]: how much of the request was sent, and the steps that send more of it.
//!
//! Reads no response. Invariant: a byte of the client is sent once, in order, and only after it was counted as part of
//! this request's body.

use std::task::{Context, Poll, ready};

use super::pace::Pace;
use super::{Exchange, ResponseProgress, STEPS, WORK, of_client};
use crate::clock;
use crate::fault::Fault;
use crate::http::Framing;
use crate::http::body::Body;
use crate::outcome::Ended;
use crate::terminate::buffer::BUFFER;
use crate::terminate::bypass::Bypass;
use crate::terminate::byte_stream::{ByteStream, Got};
use crate::terminate::http::client_side::ClientSide;
use crate::terminate::http::local_reply::RequestFailure;
use crate::terminate::turns::give_way;

/// How much of the request was sent.
pub struct RequestProgress {
    pub head_sent: usize,
    pub body: Body,
    /// Bytes of the client that are checked and may be sent.
    checked: usize,
    /// Bytes of the body that pass without being read.
    pub bypass: Bypass,
    /// What checking them has cost in this turn.
    work: usize,
    /// A byte of the body has come.
    pub begun: bool,
    /// Bytes of the client that have come in this exchange.
    came: u64,
    /// All that have come were taken, and more are due.
    owed: bool,
    /// How fast the body has to come; `None`: as it comes.
    pub pace: Option<Box<Pace>>,
    /// The whole request was sent.
    pub done: bool,
    /// Why no more of the request is sent; its response may still come.
    pub cut: Option<Ended>,
    /// The client is watched behind its request: it has not finished sending, and there is room for what it sends.
    pub watches: bool,
    pub moved: u64,
}

impl RequestProgress {
    pub fn new(framing: Framing, pace: Option<Box<Pace>>) -> Self {
        Self {
            head_sent: 0,
            body: Body::new(framing),
            checked: 0,
            bypass: Bypass::default(),
            work: 0,
            begun: false,
            came: 0,
            owed: false,
            pace,
            done: false,
            cut: None,
            watches: true,
            moved: 0,
        }
    }

    /// True if every byte was written; `head`: length of the head.
    pub fn is_written(&self, head: usize) -> bool {
        self.head_sent == head && self.checked == 0 && self.bypass.is_empty() && self.body.complete()
    }
}

impl<C: ClientSide, S: ByteStream> Exchange<'_, C, S> {
    /// True if the client's connection ends behind the response because the process drains.
    pub(super) fn ends_for_drain(&self, up: &RequestProgress) -> bool {
        let next_has_come = up.done && !self.client.bytes().is_empty();
        self.conversation.context.drain.ends_behind_response(next_has_come, clock::now)
    }

    /// Sends as much of the request as its backend takes now. `answered`: a final response has begun; what the client
    /// does wrong inside its request then ends the request, and not the response.
    pub(super) fn poll_request(
        &mut self,
        up: &mut RequestProgress,
        answered: bool,
        cx: &mut Context<'_>,
    ) -> Result<(), RequestFailure> {
        (up.work, up.owed) = (0, false);
        for _ in 0..STEPS {
            if up.done || up.cut.is_some() {
                return Ok(());
            }
            if up.work > WORK {
                break;
            }
            match self.step_request(up, cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(failure)) => match failure.ended {
                    Ended::ClientLeft | Ended::RequestRefused | Ended::BodyTooLarge if answered => {
                        up.cut = Some(failure.ended);
                    }
                    _ => return Err(failure),
                },
                Poll::Pending => return Ok(()),
            }
        }
        give_way(cx);
        Ok(())
    }

    /// Makes one step: writes the head or checked bytes, checks bytes of the body, or reads more of it.
    fn step_request(&mut self, up: &mut RequestProgress, cx: &mut Context<'_>) -> Poll<Result<(), RequestFailure>> {
        let backend = &mut self.upstream.stream;
        if up.head_sent < self.head.len() || up.checked > 0 {
            let sending_head = up.head_sent < self.head.len();
            let bytes = if sending_head { &self.head[up.head_sent..] } else { &self.client.bytes()[..up.checked] };
            match ready!(backend.poll_write(cx, bytes)) {
                // The backend may have sent its response and then stopped reading.
                Err(_) => up.cut = Some(Ended::RequestCut),
                Ok(n) if sending_head => {
                    up.head_sent += n;
                    up.moved += n as u64;
                }
                Ok(n) => {
                    self.client.consume(n);
                    up.checked -= n;
                    up.moved += n as u64;
                }
            }
            return Poll::Ready(Ok(()));
        }
        if !up.bypass.is_empty() {
            match ready!(up.bypass.poll_drain(backend, cx)) {
                // Its pipe is for others: the response may take long.
                Err(_) => (up.cut, up.bypass) = (Some(Ended::RequestCut), Bypass::default()),
                Ok(n) => up.moved += n as u64,
            }
            return Poll::Ready(Ok(()));
        }
        if up.body.complete() {
            match ready!(backend.poll_flush(cx)) {
                Ok(()) => up.done = true,
                Err(_) => up.cut = Some(Ended::RequestCut),
            }
            return Poll::Ready(Ok(()));
        }
        if !self.client.bytes().is_empty() {
            let scanned = up.body.scan(self.client.bytes());
            return Poll::Ready(match scanned {
                Ok(_) if up.body.announced() > self.body_limits.most => Err(RequestFailure::body_too_large()),
                Ok(scanned) => {
                    up.checked = scanned.length;
                    up.work += scanned.work;
                    up.begun = true;
                    Ok(())
                }
                Err(refused) => Err(RequestFailure::refused_request(refused)),
            });
        }
        // Bytes held back so far must not wait for more, which may never come; and nothing is read for a backend that has
        // not taken them.
        if ready!(backend.poll_flush(cx)).is_err() {
            up.cut = Some(Ended::RequestCut);
            return Poll::Ready(Ok(()));
        }
        let read = self.poll_client(up, cx);
        up.owed = read.is_pending();
        Poll::Ready(match ready!(read) {
            Ok(Some(Got::Bytes(count))) => {
                // Also where they pass through a pipe, and are scanned nowhere.
                up.begun = true;
                up.came += count as u64;
                Ok(())
            }
            Ok(None) => Ok(()),
            // The client has closed inside its request.
            Ok(Some(_)) => Err(RequestFailure::without_reply(Ended::ClientLeft)),
            Err(fault) => Err(of_client(fault)),
        })
    }

    /// Notes how fast the body comes. A client that waits for 100 need not send.
    pub(super) fn note_pace(&self, up: &mut RequestProgress, down: &ResponseProgress) {
        let owes = up.owed && (up.begun || down.continued || !self.waits_for_100);
        if let Some(pace) = &mut up.pace {
            pace.note(up.came, owes, clock::now());
        }
    }

    /// Notices a client that has taken back a request of which nothing is read, because the backend takes no more.
    pub(super) fn taken_back(&self, up: &RequestProgress, cx: &mut Context<'_>) -> Option<Fault> {
        match self.client.poll_taken_back(cx) {
            Poll::Ready(fault) if !up.done => Some(fault),
            _ => None,
        }
    }

    /// Notices a client that has gone while its response is due. Further bytes are kept for the next request, up to one
    /// buffer. A FIN does not end the exchange: the client may still read.
    pub(super) fn watch_client(&mut self, up: &mut RequestProgress, cx: &mut Context<'_>) -> Result<(), Fault> {
        for _ in 0..STEPS {
            if !up.watches {
                return Ok(());
            }
            match self.client.poll_read(BUFFER, cx) {
                Poll::Ready(Ok(Some(Got::Bytes(_)))) => {}
                Poll::Ready(Ok(_)) => up.watches = false,
                Poll::Ready(Err(fault)) => return Err(fault),
                Poll::Pending => return Ok(()),
            }
        }
        give_way(cx);
        Ok(())
    }
}
