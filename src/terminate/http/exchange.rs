//! [`Exchange`]: one request and its response, head and body up, interim heads, head and body down, all at once.
//!
//! Chooses no backend and repeats nothing; returns what happened, and `http/mod.rs` decides. Bodies pass as they are,
//! in the framing in which they come, no further than they have been checked. `request.rs` is the way up, `pace.rs` its
//! least speed, `rest.rs` the part of it behind the response; `receive.rs` gets more bytes of both sides. Invariants:
//! no byte is forwarded that does not belong to this exchange's messages; a peer that does not read costs at most one
//! buffer or pipe a direction; a turn has a bounded number of steps, whatever the peers send.

mod pace;
mod receive;
mod request;
mod rest;

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use self::pace::Pace;
use self::request::RequestProgress;
use super::client_side::ClientSide;
use super::local_reply::RequestFailure;
use super::request_cookie::ResponseWriter;
use super::upstream_stream::UpstreamStream;
use super::upstreams::UpstreamConnection;
use crate::clock::{self, Micros};
use crate::fault::{Endpoint, Fault};
use crate::http::answer::StatusCode;
use crate::http::body::Body;
use crate::http::connection::{backend_stays, client_stays};
use crate::http::head::ResponseReader;
use crate::http::{Framing, Progress, Refused, Version};
use crate::outcome::Ended;
use crate::terminate::buffer::BUFFER;
use crate::terminate::bypass::Bypass;
use crate::terminate::byte_stream::ByteStream;
use crate::terminate::conversation::Conversation;
use crate::terminate::deadline::{Deadline, Timeouts};
use crate::terminate::request_limits::BodyLimits;
use crate::terminate::timer_fd::StoreWait;
use crate::terminate::turns::give_way;

/// Room for what is added to the head of a response, our cookie with all its attributes included.
const ADDED: usize = 320;

/// Steps of one direction in one turn, before other tasks have one: about 20 buffers.
const STEPS: usize = 64;

/// Work of checking a body in one direction in one turn: about one buffer of chunks of one byte.
const WORK: usize = 2_000;

/// What an exchange leaves behind once its response is complete.
#[derive(Debug, Clone, Copy)]
pub struct Exchanged {
    /// Status code of the final response.
    pub status: u16,
    /// `Done`, or why the backend did not get the whole request.
    pub ended: Ended,
    /// The backend has accepted an Upgrade: both connections carry another protocol from here on.
    pub switched: bool,
    /// The client's connection may carry another request.
    pub client_stays: bool,
    /// The backend's connection may carry another request.
    pub backend_stays: bool,
}

impl Exchanged {
    /// Neither connection serves another request unless this one was delivered whole.
    fn after(self, ended: Ended) -> Self {
        let whole = ended == Ended::Done;
        Self {
            ended,
            switched: self.switched && whole,
            client_stays: self.client_stays && whole,
            backend_stays: self.backend_stays && whole,
            ..self
        }
    }
}

/// One exchange, with everything that it uses.
pub struct Exchange<'a, C, S = UpstreamStream> {
    /// Conversation that the request belongs to.
    pub conversation: &'a Conversation,
    /// Where the request's body comes from and the response goes.
    pub client: &'a mut C,
    /// Connection to the backend that the request was placed at.
    pub upstream: &'a mut UpstreamConnection<S>,
    /// The head for the backend; emptied once it cannot be needed again.
    pub head: &'a mut Vec<u8>,
    /// The head as the client has sent it, for another placement; emptied with `head`.
    pub received: &'a mut Vec<u8>,
    /// The request may be sent on another connection, as long as no byte of a response has come.
    pub repeatable: bool,
    /// How the request's body is delimited.
    pub framing: Framing,
    /// What bounds the request's body.
    pub body_limits: BodyLimits,
    /// The client waits for 100 before it sends the body.
    pub waits_for_100: bool,
    /// The client's connection ends behind the response.
    pub is_last: bool,
    /// Writes the response's head for the client.
    pub writer: &'a ResponseWriter<'a>,
    /// Reads the response's heads; has read nothing yet.
    pub response: &'a mut ResponseReader,
    /// Timeouts by the configuration in force when the exchange begins.
    pub limits: Timeouts,
    /// Timer of the conversation, shared with the wait for a head.
    pub deadline: &'a mut Deadline,
}

/// How much of the response has come, and was sent.
struct ResponseProgress {
    /// Bytes for the client, before those of the backend that are checked.
    out: Vec<u8>,
    out_sent: usize,
    /// `out` is held back until this is over: the store then has the cookie's new backend.
    store_wait: Option<StoreWait>,
    /// Body of the final response; `None` before its head is complete.
    body: Option<Body>,
    /// Bytes of the backend that are checked and may be sent.
    checked: usize,
    /// Bytes of the body that pass without being read.
    bypass: Bypass,
    /// What checking them has cost in this turn.
    work: usize,
    /// Result of the exchange, once the final head is complete.
    exchanged: Option<Exchanged>,
    /// A byte of a response has come.
    any: bool,
    /// A 100 has come: the client sends its body.
    continued: bool,
    /// The backend has finished sending, or sends what no request is waiting for.
    end_seen: bool,
    /// The backend finished sending before it had the whole request.
    ended_early: bool,
    /// The client's connection ends behind the response, also while the request goes on.
    ends_client: bool,
    moved: u64,
}

impl<C: ClientSide, S: ByteStream> Exchange<'_, C, S> {
    /// Runs the exchange until both messages are complete, or cannot become so. An error says why there is no whole
    /// response.
    pub async fn run(mut self) -> Result<Exchanged, RequestFailure> {
        let pace = if self.framing.is_empty() { None } else { Pace::of(self.body_limits) };
        let (mut up, mut down) = (RequestProgress::new(self.framing, pace), ResponseProgress::new());
        let mut last_active = clock::now();
        poll_fn(|cx| self.turn(&mut up, &mut down, &mut last_active, cx)).await
    }

    /// One turn on the thread: a bounded number of steps in both directions.
    fn turn(
        &mut self,
        up: &mut RequestProgress,
        down: &mut ResponseProgress,
        last_active: &mut Micros,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Exchanged, RequestFailure>> {
        let before = (up.moved, down.moved, up.done, down.any);
        let request = self.poll_request(up, down.exchanged.is_some(), cx);
        let response = self.poll_response(up, down, cx);
        if !up.done {
            self.client.read_ahead(cx);
        }
        self.forget_head(up, down);
        self.note_pace(up, down);
        if before != (up.moved, down.moved, up.done, down.any) {
            *last_active = clock::now();
            if down.any && !before.3 {
                self.conversation.state.note_first_byte(*last_active);
                self.upstream.first_byte.came(self.upstream.lease.backend());
            }
            self.count(up.moved - before.0, down.moved - before.1, *last_active);
        }
        let complete = match (response, request) {
            (Poll::Ready(Err(failure)), _) => return Poll::Ready(Err(failure)),
            (Poll::Ready(Ok(exchanged)), request) => match self.poll_rest(request, up, down, cx) {
                Poll::Ready(ended) => return Poll::Ready(Ok(exchanged.after(ended))),
                Poll::Pending => Some(exchanged),
            },
            (Poll::Pending, Err(failure)) => return Poll::Ready(Err(down.limit_reply(failure))),
            (Poll::Pending, Ok(())) => {
                let gone = if up.done { self.watch_client(up, cx).err() } else { self.taken_back(up, cx) };
                if let Some(fault) = gone {
                    return Poll::Ready(Err(of_client(fault)));
                }
                None
            }
        };
        let late = ready!(self.poll_time(up, down, *last_active, cx));
        Poll::Ready(match complete {
            Some(exchanged) => Ok(exchanged.after(late.ended)),
            None => Err(down.limit_reply(late)),
        })
    }

    /// Ready once something has taken too long: the failure.
    fn poll_time(
        &mut self,
        up: &mut RequestProgress,
        down: &ResponseProgress,
        last_active: Micros,
        cx: &mut Context<'_>,
    ) -> Poll<RequestFailure> {
        loop {
            let silent = self.deadline(up, down, last_active);
            let slow = up.pace.as_ref().and_then(|pace| pace.due()).map(|at| (at, RequestFailure::body_slow()));
            let next = [silent, slow].into_iter().flatten().min_by_key(|(at, _)| *at);
            let Some((at, late)) = next else { return Poll::Pending };
            ready!(self.deadline.poll(cx, at));
            if late.ended != Ended::BodySlow || up.pace.as_mut().is_some_and(|pace| pace.is_late(clock::now())) {
                return Poll::Ready(late);
            }
        }
    }

    fn count(&self, up: u64, down: u64, now: Micros) {
        self.conversation.state.moved(up, down, now);
        let counters = self.upstream.lease.counters(self.conversation.context.counters_index);
        counters.bytes_up.add(up);
        counters.bytes_down.add(down);
    }

    /// Frees the head once it was sent and cannot be sent again: the rest of the exchange may take hours.
    fn forget_head(&mut self, up: &mut RequestProgress, down: &ResponseProgress) {
        if up.head_sent == self.head.len() && (down.any || !self.repeatable) {
            (*self.head, *self.received, up.head_sent) = (Vec::new(), Vec::new(), 0);
        }
    }

    /// Passes on as much of the response as has come; ready when it is complete, or cannot become so.
    fn poll_response(
        &mut self,
        up: &RequestProgress,
        down: &mut ResponseProgress,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Exchanged, RequestFailure>> {
        let mut steps = 0..STEPS;
        down.work = 0;
        while down.work <= WORK && steps.next().is_some() {
            match ready!(self.step_response(up, down, cx)) {
                Ok(None) => {}
                Ok(Some(exchanged)) => return Poll::Ready(Ok(exchanged)),
                Err(failure) => return Poll::Ready(Err(down.limit_reply(failure))),
            }
        }
        give_way(cx);
        Poll::Pending
    }

    /// Makes one step: writes to the client, checks the backend's bytes, or reads more of them.
    fn step_response(
        &mut self,
        up: &RequestProgress,
        down: &mut ResponseProgress,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Exchanged>, RequestFailure>> {
        if down.out_sent < down.out.len() || down.checked > 0 || !down.bypass.is_empty() {
            return self.write_response(down, cx).map_ok(|()| None);
        }
        let complete = down.exchanged.filter(|end| end.switched || down.body.as_ref().is_some_and(Body::complete));
        if let Some(exchanged) = complete {
            // An end that follows leaves with the last bytes.
            let ends = up.done && !exchanged.client_stays && !exchanged.switched;
            let sent = if ends { self.client.poll_finish(cx) } else { self.client.poll_flush(cx) };
            return sent.map_ok(|()| Some(exchanged)).map_err(of_client);
        }
        if !self.upstream.unread.is_empty() && self.read_response(up, down)? {
            return Poll::Ready(Ok(None));
        }
        // Bytes written so far reach the client before a wait for the backend begins, and nothing is read for a client
        // that has not taken them.
        ready!(self.client.poll_flush(cx)).map_err(of_client)?;
        self.receive(up, down, cx).map_ok(|()| None)
    }

    /// Writes `out`, once the store has the cookie's new backend, and checked bytes behind it.
    fn write_response(
        &mut self,
        down: &mut ResponseProgress,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), RequestFailure>> {
        if let Some(store_wait) = &mut down.store_wait {
            // Interim heads do not wait.
            ready!(self.client.poll_flush(cx)).map_err(of_client)?;
            ready!(store_wait.poll(&self.conversation.context.timer_fd, cx));
            down.store_wait = None;
        }
        if down.out_sent < down.out.len() {
            let n = ready!(self.client.poll_write(cx, &down.out[down.out_sent..])).map_err(of_client)?;
            down.out_sent += n;
            down.moved += n as u64;
            if down.out_sent == down.out.len() {
                // Frees the memory too: the rest may wait long for a client that does not read.
                (down.out, down.out_sent) = (Vec::new(), 0);
            }
        } else if !down.bypass.is_empty() {
            down.moved += ready!(self.client.poll_drain(&mut down.bypass, cx)).map_err(of_client)? as u64;
        } else {
            let bytes = &self.upstream.unread.bytes()[..down.checked];
            let n = ready!(self.client.poll_write(cx, bytes)).map_err(of_client)?;
            self.upstream.unread.consume(n);
            down.checked -= n;
            down.moved += n as u64;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads a head or a piece of a body from the backend's bytes; false if they are too few.
    fn read_response(&mut self, up: &RequestProgress, down: &mut ResponseProgress) -> Result<bool, RequestFailure> {
        let refused = RequestFailure::refused_response;
        if let Some(body) = &mut down.body {
            let scanned = body.scan(self.upstream.unread.bytes()).map_err(refused)?;
            down.checked = scanned.length;
            down.work += scanned.work;
            return Ok(true);
        }
        let request = self.writer.request;
        match self.response.read(self.upstream.unread.bytes(), request) {
            Progress::More => return Ok(false),
            Progress::No(why) => return Err(refused(why)),
            Progress::Done(_) => {}
        }
        let response = self.response.response(self.upstream.unread.bytes());
        let length = response.length;
        if response.is_interim() {
            if request.version == Version::Http11 {
                self.writer.write_interim(&mut down.out, &response);
            }
            down.continued |= response.status == 100;
            self.upstream.unread.consume(length);
            self.response.pass_interim().map_err(refused)?;
            return Ok(true);
        }
        let switched = response.switches();
        if !self.writer.accepts(&response) {
            return Err(refused(Refused::BadSwitch));
        }
        // A client that still waits for 100 may leave its body out: nothing but the end of its connection is then clear.
        let waits = self.waits_for_100 && !down.continued && !up.begun;
        down.ends_client = response.framing == Framing::UntilClose || waits;
        let backend_stays = backend_stays(&response) && request.persists;
        // A response that comes first keeps the client only where the backend goes on with the request.
        let goes_on = up.done || backend_stays && up.cut.is_none() && !waits;
        let ends = self.is_last || request.upgrade.is_some();
        let client_stays = client_stays(&request, &response) && goes_on && !ends && !self.ends_for_drain(up);
        let exchanged =
            Exchanged { status: response.status, ended: Ended::Done, switched, client_stays, backend_stays };
        let behind = self.upstream.unread.bytes().len() - length;
        down.out.reserve_exact(length + ADDED + behind.min(BUFFER));
        down.store_wait = self.writer.write_final(&mut down.out, &response, !client_stays && !switched);
        let mut body = Body::new(if switched { Framing::None } else { response.framing });
        self.upstream.unread.consume(length);
        // The head and the part of the body that came with it leave in one write, and so in one TLS record.
        let scanned = body.scan(self.upstream.unread.bytes()).map_err(refused)?;
        let first = scanned.length.min(BUFFER.saturating_sub(down.out.len()));
        down.out.extend_from_slice(&self.upstream.unread.bytes()[..first]);
        self.upstream.unread.consume(first);
        down.checked = scanned.length - first;
        (down.body, down.exchanged) = (Some(body), Some(exchanged));
        Ok(true)
    }

    /// The deadline that holds now, and the failure when it passes; `None`: no limit is set.
    fn deadline(
        &self,
        up: &RequestProgress,
        down: &ResponseProgress,
        last_active: Micros,
    ) -> Option<(Micros, RequestFailure)> {
        let (limit, late) = match (&down.exchanged, up.done || up.cut.is_some()) {
            (Some(_), _) => (self.limits.body, RequestFailure::without_reply(Ended::BodyTimeout)),
            (None, true) => {
                let late = RequestFailure::with_reply(Ended::ResponseTimeout, StatusCode::GatewayTimeout);
                (self.limits.response, late)
            }
            (None, false) => {
                (self.limits.body, RequestFailure::with_reply(Ended::BodyTimeout, StatusCode::RequestTimeout))
            }
        };
        Some((last_active + limit?, late))
    }
}

impl ResponseProgress {
    fn new() -> Self {
        Self {
            out: Vec::new(),
            out_sent: 0,
            store_wait: None,
            body: None,
            checked: 0,
            bypass: Bypass::default(),
            work: 0,
            exchanged: None,
            any: false,
            continued: false,
            end_seen: false,
            ended_early: false,
            ends_client: false,
            moved: 0,
        }
    }

    /// Notes that the backend has finished sending; `head`: length of the request's head as it is to be sent.
    fn end(&mut self, up: &RequestProgress, head: usize) {
        self.end_seen = true;
        self.ended_early = !up.is_written(head);
    }

    /// Removes the local reply from a failure if bytes of a response were sent or a final head was taken for sending.
    fn limit_reply(&self, failure: RequestFailure) -> RequestFailure {
        let begun = self.exchanged.map(|exchanged| exchanged.status);
        let reply = failure.reply.filter(|_| begun.is_none() && self.out_sent == 0);
        RequestFailure { reply, begun, ..failure }
    }
}

fn of_client(fault: Fault) -> RequestFailure {
    RequestFailure::without_reply(fault.ending(Endpoint::Client))
}
