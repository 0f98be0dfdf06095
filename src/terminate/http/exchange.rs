//! One request and its response: the head and body up, interim heads, the head and body down, all at once.
//!
//! Chooses no backend and repeats nothing; says what happened, and `http/mod.rs` decides. Bodies pass as they are,
//! in the framing in which they come, no further than they have been checked. Invariant: not a byte is forwarded that
//! was not read as part of this exchange's messages; what a reader holds back costs at most one buffer a direction.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use super::request_cookie::Reply;
use super::upstreams::UpstreamConnection;
use crate::clock::{self, Micros};
use crate::fault::{Endpoint, Fault};
use crate::http::answer::StatusCode;
use crate::http::body::Body;
use crate::http::connection::{backend_stays, client_stays};
use crate::http::head::{HEAD_MAX, ResponseReader};
use crate::http::{Framing, Progress, Version};
use crate::outcome::{Ended, Party};
use crate::terminate::buffer::{BUFFER, Buffer};
use crate::terminate::deadline::{Deadline, Timeouts};
use crate::terminate::state::Conversation;
use crate::terminate::stream::{Got, Stream};
use crate::terminate::timer_fd::StoreWait;

/// What is added to the head of a response, our cookie with all its attributes included, rarely is longer.
const ADDED: usize = 320;

/// What a whole exchange leaves behind.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    /// The response's status.
    pub status: u16,
    /// The pair speaks another protocol from here on.
    pub switched: bool,
    /// The client's connection may serve another request.
    pub client_stays: bool,
    /// The backend's too.
    pub backend_stays: bool,
}

/// Why an exchange did not end well.
#[derive(Debug, Clone, Copy)]
pub struct Failed {
    /// How the connection ends.
    pub ended: Ended,
    /// What the client may still be told: nothing of a response has been sent.
    pub answer: Option<StatusCode>,
    /// The backend closed before a byte of a response.
    pub unanswered: bool,
}

/// One exchange.
pub struct Exchange<'a> {
    /// Whose.
    pub conversation: &'a Conversation,
    /// The client.
    pub client: &'a mut Stream,
    /// What it has sent behind the head.
    pub inbound: &'a mut Buffer,
    /// The backend.
    pub held: &'a mut UpstreamConnection,
    /// The head for the backend; taken away once nobody needs it any more.
    pub head: &'a mut Vec<u8>,
    /// It may be sent once more, on another connection, as long as no byte of a response has come.
    pub repeatable: bool,
    /// How the request's body is delimited.
    pub framing: Framing,
    /// What the response becomes.
    pub reply: &'a Reply<'a>,
    /// Deadlines.
    pub limits: Timeouts,
    /// The timer.
    pub deadline: &'a mut Deadline,
}

/// The request, as far as it has gone.
struct Up {
    head_sent: usize,
    body: Body,
    /// Bytes of `inbound` that are checked and may go.
    checked: usize,
    done: bool,
    /// The backend takes no more of it; what it says may still be an answer.
    refused: bool,
    moved: u64,
}

/// The response, as far as it has come.
struct Down {
    reader: Box<ResponseReader>,
    /// For the client, before what is checked of the backend's bytes.
    out: Vec<u8>,
    out_sent: usize,
    /// What the client shall not see before: others know where it has settled.
    held_for: Option<StoreWait>,
    body: Option<Body>,
    checked: usize,
    last: Option<Done>,
    any: bool,
    moved: u64,
}

impl Exchange<'_> {
    /// Carries it out.
    pub async fn run(mut self) -> Result<Done, Failed> {
        let mut up =
            Up { head_sent: 0, body: Body::new(self.framing), checked: 0, done: false, refused: false, moved: 0 };
        let mut down = Down {
            reader: Box::new(ResponseReader::new()),
            out: Vec::new(),
            out_sent: 0,
            held_for: None,
            body: None,
            checked: 0,
            last: None,
            any: false,
            moved: 0,
        };
        let mut last_active = clock::now();
        let mut watching = true;
        poll_fn(|cx| {
            let before = (up.moved, down.moved, up.done, down.any);
            let sent = self.poll_up(&mut up, cx);
            let came = self.poll_down(&up, &mut down, cx);
            self.forget_head(&mut up, &down);
            if before != (up.moved, down.moved, up.done, down.any) {
                last_active = clock::now();
                self.account(up.moved - before.0, down.moved - before.1, last_active);
            }
            if let Poll::Ready(result) = came {
                return Poll::Ready(result);
            }
            if let Err(failed) = sent {
                return Poll::Ready(Err(down.failed(failed)));
            }
            if up.done
                && watching
                && let Err(fault) = self.watch_client(&mut watching, cx)
            {
                return Poll::Ready(Err(Failed {
                    ended: fault.ending(Endpoint::Client),
                    answer: None,
                    unanswered: false,
                }));
            }
            match self.deadline(&up, &down, last_active) {
                Some((at, late)) => self.deadline.poll(cx, at).map(|()| Err(down.failed(late))),
                None => Poll::Pending,
            }
        })
        .await
    }

    fn account(&self, up: u64, down: u64, now: Micros) {
        self.conversation.state.moved(up, down, now);
        let counters = self.held.lease.counters(self.conversation.context.counters_index);
        counters.bytes_up.add(up);
        counters.bytes_down.add(down);
    }

    /// A head that has been sent goes, unless it may have to be sent again: the rest of the exchange may wait for long.
    fn forget_head(&mut self, up: &mut Up, down: &Down) {
        if up.head_sent == self.head.len() && (down.any || !self.repeatable) {
            (*self.head, up.head_sent) = (Vec::new(), 0);
        }
    }

    /// Moves the request on as far as it goes.
    fn poll_up(&mut self, up: &mut Up, cx: &mut Context<'_>) -> Result<(), Failed> {
        while !up.done && !up.refused {
            match self.step_up(up, cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(failed)) => return Err(failed),
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    fn step_up(&mut self, up: &mut Up, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        let backend = &mut self.held.stream;
        if up.head_sent < self.head.len() || up.checked > 0 {
            let sending_head = up.head_sent < self.head.len();
            let bytes = if sending_head { &self.head[up.head_sent..] } else { &self.inbound.bytes()[..up.checked] };
            match ready!(backend.poll_write(cx, bytes)) {
                // An answer that made the backend stop reading may be there already.
                Err(_) => up.refused = true,
                Ok(n) if sending_head => {
                    up.head_sent += n;
                    up.moved += n as u64;
                }
                Ok(n) => {
                    self.inbound.consume(n);
                    up.checked -= n;
                    up.moved += n as u64;
                }
            }
            return Poll::Ready(Ok(()));
        }
        if up.body.complete() {
            match ready!(backend.poll_flush(cx)) {
                Ok(()) => up.done = true,
                Err(_) => up.refused = true,
            }
            return Poll::Ready(Ok(()));
        }
        if !self.inbound.is_empty() {
            let scanned = up.body.scan(self.inbound.bytes());
            return Poll::Ready(match scanned {
                Ok(scanned) => {
                    up.checked = scanned.length;
                    Ok(())
                }
                Err(refused) => Err(Failed::answered(Ended::RequestRefused, refused.status())),
            });
        }
        // What is held back so far must not wait for what may never come.
        if let Poll::Ready(Err(_)) = backend.poll_flush(cx) {
            up.refused = true;
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(match ready!(self.inbound.poll_read(self.client, BUFFER, cx)) {
            Ok(Some(Got::Bytes(_)) | None) => Ok(()),
            // The request is not whole, and never will be.
            Ok(Some(_)) => Err(Failed::silent(Ended::ClientLeft)),
            Err(fault) => Err(Failed::silent(fault.ending(Endpoint::Client))),
        })
    }

    /// Moves the response on as far as it goes; ready when it is whole, or never will be.
    fn poll_down(&mut self, up: &Up, down: &mut Down, cx: &mut Context<'_>) -> Poll<Result<Done, Failed>> {
        loop {
            match ready!(self.step_down(up, down, cx)) {
                Ok(None) => {}
                Ok(Some(done)) => return Poll::Ready(Ok(done)),
                Err(failed) => return Poll::Ready(Err(down.failed(failed))),
            }
        }
    }

    fn step_down(&mut self, up: &Up, down: &mut Down, cx: &mut Context<'_>) -> Poll<Result<Option<Done>, Failed>> {
        let of_client = |fault: Fault| Failed::silent(fault.ending(Endpoint::Client));
        if let Some(told) = &mut down.held_for {
            ready!(told.poll(&self.conversation.context, cx));
            down.held_for = None;
        }
        if down.out_sent < down.out.len() {
            let n = ready!(self.client.poll_write(cx, &down.out[down.out_sent..])).map_err(of_client)?;
            down.out_sent += n;
            down.moved += n as u64;
            if down.out_sent == down.out.len() {
                // Its room goes, too: what follows may wait for a client that does not read.
                down.out = Vec::new();
                down.out_sent = 0;
            }
            return Poll::Ready(Ok(None));
        }
        if down.checked > 0 {
            let bytes = &self.held.answers.bytes()[..down.checked];
            let n = ready!(self.client.poll_write(cx, bytes)).map_err(of_client)?;
            self.held.answers.consume(n);
            down.checked -= n;
            down.moved += n as u64;
            return Poll::Ready(Ok(None));
        }
        let whole = down.last.filter(|done| done.switched || down.body.as_ref().is_some_and(Body::complete));
        if let Some(done) = whole {
            ready!(self.client.poll_flush(cx)).map_err(of_client)?;
            return Poll::Ready(Ok(Some(done)));
        }
        if !self.held.answers.is_empty() && self.look(up, down)? {
            return Poll::Ready(Ok(None));
        }
        // Whatever the client has been given shall reach it before we wait.
        if let Poll::Ready(Err(fault)) = self.client.poll_flush(cx) {
            return Poll::Ready(Err(of_client(fault)));
        }
        let most = if down.body.is_some() { BUFFER } else { HEAD_MAX };
        let UpstreamConnection { stream, answers, .. } = &mut *self.held;
        match ready!(answers.poll_read(stream, most, cx)) {
            Ok(Some(Got::Bytes(_))) => down.any = true,
            Ok(None) => return Poll::Ready(Err(Failed::answered(Ended::ResponseRefused, StatusCode::BadGateway))),
            Ok(Some(Got::End)) if down.body.as_ref().is_some_and(Body::may_end_here) => {
                // As it was announced: until the end of the connection.
                down.body = Some(Body::new(Framing::None));
            }
            Ok(Some(_)) => return Poll::Ready(Err(Failed::cut(Ended::ResponseCut, down.any))),
            Err(fault) => {
                let ended = fault.ending(Endpoint::Backend);
                let ours = ended.fault() == Party::Us;
                let failed = || Failed::cut(ended, down.any);
                return Poll::Ready(Err(if ours {
                    Failed::answered(ended, StatusCode::Unavailable)
                } else {
                    failed()
                }));
            }
        }
        Poll::Ready(Ok(None))
    }

    /// Reads what the backend has sent; whether anything came of it.
    fn look(&mut self, up: &Up, down: &mut Down) -> Result<bool, Failed> {
        let refused = |_| Failed::answered(Ended::ResponseRefused, StatusCode::BadGateway);
        if let Some(body) = &mut down.body {
            down.checked = body.scan(self.held.answers.bytes()).map_err(refused)?.length;
            return Ok(true);
        }
        let asked = self.reply.asked;
        match down.reader.read(self.held.answers.bytes(), asked) {
            Progress::More => return Ok(false),
            Progress::No(why) => return Err(refused(why)),
            Progress::Done(_) => {}
        }
        let response = down.reader.response(self.held.answers.bytes());
        let length = response.length;
        if response.is_interim() {
            if asked.version == Version::Http11 {
                self.reply.interim(&mut down.out, &response);
            }
            self.held.answers.consume(length);
            down.reader.reset();
            return Ok(true);
        }
        let switched = response.switches();
        let client_stays = client_stays(&asked, &response)
            && up.done
            && asked.upgrade.is_none()
            && !self.conversation.context.stopping.get();
        let done = Done {
            status: response.status,
            switched,
            client_stays,
            backend_stays: backend_stays(&response) && asked.persists && up.done,
        };
        let behind = self.held.answers.bytes().len() - length;
        down.out.reserve_exact(length + ADDED + behind.min(BUFFER));
        down.held_for = self.reply.last(&mut down.out, &response, !client_stays && !switched);
        let mut body = Body::new(if switched { Framing::None } else { response.framing });
        self.held.answers.consume(length);
        // With the head, what of the body has come with it: one write, one record.
        let scanned = body.scan(self.held.answers.bytes()).map_err(refused)?;
        let first = scanned.length.min(BUFFER.saturating_sub(down.out.len()));
        down.out.extend_from_slice(&self.held.answers.bytes()[..first]);
        self.held.answers.consume(first);
        down.checked = scanned.length - first;
        (down.body, down.last) = (Some(body), Some(done));
        Ok(true)
    }

    /// The request is out: does the client still want its answer? What else it sends is kept for later, as far as a
    /// buffer goes. Having finished sending is no sign of having gone.
    fn watch_client(&mut self, watching: &mut bool, cx: &mut Context<'_>) -> Result<(), Fault> {
        while *watching {
            match self.inbound.poll_read(self.client, BUFFER, cx) {
                Poll::Ready(Ok(Some(Got::Bytes(_)))) => {}
                Poll::Ready(Ok(_)) => *watching = false,
                Poll::Ready(Err(fault)) => return Err(fault),
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// The limit that runs now.
    fn deadline(&self, up: &Up, down: &Down, last_active: Micros) -> Option<(Micros, Failed)> {
        let (limit, late) = match (&down.last, up.done || up.refused) {
            (Some(_), _) => (self.limits.body, Failed::silent(Ended::BodyTimeout)),
            (None, true) => {
                let late = Failed::answered(Ended::ResponseTimeout, StatusCode::GatewayTimeout);
                (self.limits.response, late)
            }
            (None, false) => (self.limits.body, Failed::answered(Ended::BodyTimeout, StatusCode::RequestTimeout)),
        };
        Some((last_active + limit?, late))
    }
}

impl Down {
    /// Once a final head is on its way, or in the middle of an interim one, nothing else can be said.
    fn failed(&self, failed: Failed) -> Failed {
        Failed { answer: failed.answer.filter(|_| self.last.is_none() && self.out_sent == 0), ..failed }
    }
}

impl Failed {
    fn answered(ended: Ended, status: StatusCode) -> Self {
        Self { ended, answer: Some(status), unanswered: false }
    }

    fn silent(ended: Ended) -> Self {
        Self { ended, answer: None, unanswered: false }
    }

    /// `any`: a byte of a response had come.
    fn cut(ended: Ended, any: bool) -> Self {
        Self { ended, answer: Some(StatusCode::BadGateway), unanswered: !any }
    }
}
