//! HTTP/2 with a client (RFC 9113): its connection, and the requests on it, each a stream that is served like a
//! connection of HTTP/1 with one request.
//!
//! ```text
//! client ─ wire.rs ─ the crate h2 ─┬─ stream 1: http2_head ─ http/ (route → cookie → pick → exchange) ─ response.rs ─┐
//!          counts frames           └─ stream 3: …                                                        frames ─┘
//! ```
//!
//! Frames, HPACK and windows are those of the crate `h2`; messages are judged by the reader of HTTP/1. Places no request.
//! All streams are parts of the connection's task, so that they end with it. Invariants: a connection that is to end is
//! told so in two phases (RFC 9113 §6.8), and streams that it has begun are served; without a stream it is kept as long
//! as one of HTTP/1; what a client can make this process hold is bounded by `http2_streams`, [`HEADS_MAX`], and
//! what `settings.rs` says.

pub mod backend;
mod frames;
pub mod limits;
mod received_body;
mod response;
mod room;
mod settings;
mod stream;
mod wire;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream as _;
use futures_util::stream::FuturesUnordered;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};

use self::limits::Excess;
use self::received_body::ReceivedBody;
use self::response::ResponseTranslator;
use self::settings::builder;
use self::stream::Http2Stream;
use self::wire::{SharedStream, Wire, WireNotes};
use super::buffer::Buffer;
use super::conversation::Conversation;
use super::deadline::{CLOSING_MAX, Deadline, LINGER, until};
use super::http::{RequestRules, Shared, serve_one_request};
use super::secure::Secured;
use super::state::ConversationStage;
use super::stream::Stream;
use crate::clock::{self, Micros};
use crate::fault::Endpoint;
use crate::http::http2_head::{StreamBody, StreamHead, write_head};
use crate::outcome::Ended;

/// Most bytes of all heads of requests that are served.
const HEADS_MAX: usize = 1024 * 1024;

/// Serves a client that speaks HTTP/2; its preface is due at `first_until`.
pub async fn serve(
    conversation: &Conversation,
    rules: RequestRules,
    mut client: Stream,
    secured: &Secured,
    unread: Buffer,
    first_until: Micros,
) -> Ended {
    let snapshot = conversation.context.current.load();
    let limits = &snapshot.config.limits;
    client.socket().reset_on_drop(false);
    let socket = Rc::new(RefCell::new(client));
    let notes = Rc::new(WireNotes::default());
    let wire = Wire::new(SharedStream(Rc::clone(&socket)), unread, Rc::clone(&notes));
    let shared = {
        let many_clients = conversation.client_info.is_of_trusted_peer();
        Rc::new(Shared::for_many_at_once(rules, secured, limits.http2_backend_connections, many_clients))
    };
    let life = conversation.listener().map_or(0, |listener| listener.limits.lifetime_ms);
    let lives_until = (life > 0).then(|| conversation.client_info.accepted + Micros::from(life) * 1_000);
    let builder = builder(limits, conversation.head_limits());
    let limits = ConnectionLimits { first_until, lives_until };
    drop(snapshot);
    conversation.state.enter(ConversationStage::Http2);
    let counted = Counted::new(conversation);
    let ended = match until(first_until, builder.handshake(wire)).await {
        None => Ended::RequestTimeout,
        Some(Err(error)) => notes.ending(&error, true),
        Some(Ok(connection)) => {
            conversation.state.ends_itself(true);
            let heads = Cell::new(0);
            let begin = |incoming, number| {
                let places = (Rc::clone(&shared), Rc::clone(&notes));
                serve_stream(conversation.begin_request(number), places, incoming, &heads)
            };
            let mut client = Http2Client {
                conversation,
                shared: &shared,
                connection: Some(connection),
                notes: &notes,
                limits,
                count: 0,
                idle_since: clock::now(),
                leaving: None,
                is_cut: false,
                over: None,
                deadline: Deadline::default(),
            };
            client.run(begin).await
        }
    };
    drop(counted);
    if let Ok(stream) = Rc::try_unwrap(socket) {
        // The last frame tells the client why: no reset may remove it unread.
        stream.into_inner().linger().await;
    }
    ended
}

/// Counts a connection for as long as it speaks HTTP/2.
struct Counted<'a>(&'a Conversation);

impl<'a> Counted<'a> {
    fn new(conversation: &'a Conversation) -> Self {
        conversation.context.counters().http2_connections.add(1);
        Self(conversation)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let connections = &self.0.context.counters().http2_connections;
        connections.set(connections.value().saturating_sub(1));
    }
}

/// A client's connection.
struct Http2Client<'a> {
    conversation: &'a Conversation,
    shared: &'a Shared<'a>,
    /// `None`: it is over.
    connection: Option<Connection<Wire<SharedStream>, Bytes>>,
    notes: &'a WireNotes,
    limits: ConnectionLimits,
    /// Streams so far.
    count: u64,
    /// When the last stream has ended, or the connection has begun.
    idle_since: Micros,
    /// The end that the client was told of; `None`: it may open streams.
    leaving: Option<Leaving>,
    /// The streams were ended, too.
    is_cut: bool,
    /// How and when the connection has ended; streams may still have to notice it.
    over: Option<(Ended, Micros)>,
    deadline: Deadline,
}

/// When a connection has to end.
#[derive(Debug, Clone, Copy)]
struct ConnectionLimits {
    /// When the first stream is due.
    first_until: Micros,
    /// When its `lifetime` is over.
    lives_until: Option<Micros>,
}

/// An end that was announced by GOAWAY.
#[derive(Debug, Clone, Copy)]
struct Leaving {
    ended: Ended,
    since: Micros,
}

impl Http2Client<'_> {
    /// Serves streams until the connection has ended, or does not end within its time; `begin` begins one.
    async fn run<F: Future<Output = ()>>(&mut self, begin: impl Fn(Incoming, u64) -> F) -> Ended {
        let mut streams = FuturesUnordered::new();
        poll_fn(|cx| self.turn(&mut streams, &begin, cx)).await
    }

    /// One turn: what the client has sent, then the streams, then the time.
    fn turn<F: Future<Output = ()>>(
        &mut self,
        streams: &mut FuturesUnordered<F>,
        begin: &impl Fn(Incoming, u64) -> F,
        cx: &mut Context<'_>,
    ) -> Poll<Ended> {
        if let Some(ended) = self.conversation.state.cancelled_by().filter(|_| !self.is_cut) {
            self.is_cut = true;
            self.conversation.cancel_requests(ended);
            self.leave(ended);
            // Also where the end was announced before, for another reason.
            self.leaving = Some(Leaving { ended, since: clock::now() });
        }
        if let Some(ended) = self.poll_connection(streams, begin, cx) {
            // Its streams are told by the drop, whatever has ended it.
            (self.connection, self.over) = (None, Some((ended, clock::now())));
        }
        self.conversation.context.counters().http2_local_resets.add(self.notes.resets.take());
        while let Poll::Ready(Some(())) = Pin::new(&mut *streams).poll_next(cx) {
            self.idle_since = clock::now();
        }
        self.shared.upstreams.tend(cx);
        if let Some((ended, since)) = self.over {
            // Streams notice the end of their connection by themselves.
            return match streams.is_empty() {
                true => Poll::Ready(ended),
                false => self.deadline.poll(cx, since + LINGER).map(|()| ended),
            };
        }
        if self.leaving.is_none() && (self.shared.is_outdated() || self.conversation.is_listener_gone()) {
            self.leave(Ended::Done);
            // The announcement leaves with the next turn.
            cx.waker().wake_by_ref();
        }
        self.poll_time(streams, cx)
    }

    /// Reads and writes frames, and begins the streams that have come. `Some`: the connection is over.
    fn poll_connection<F: Future<Output = ()>>(
        &mut self,
        streams: &mut FuturesUnordered<F>,
        begin: &impl Fn(Incoming, u64) -> F,
        cx: &mut Context<'_>,
    ) -> Option<Ended> {
        loop {
            match self.connection.as_mut()?.poll_accept(cx) {
                // The client has not acknowledged for too long that no stream may come (RFC 9113 §8.7).
                Poll::Ready(Some(Ok((_, mut respond)))) if self.has_left() => {
                    respond.send_reset(Reason::REFUSED_STREAM);
                }
                Poll::Ready(Some(Ok((request, mut respond)))) => {
                    self.count += 1;
                    // Streams of a flood are over before anything is begun for them.
                    if respond.poll_reset(cx).is_pending() {
                        streams.push(begin((request, respond), self.count));
                    }
                    if self.count >= self.conversation.requests_max() {
                        self.leave(Ended::Done);
                    }
                }
                Poll::Ready(Some(Err(error))) => return Some(self.notes.ending(&error, self.is_first())),
                Poll::Ready(None) => {
                    let quiet = streams.is_empty() && self.count > 0;
                    let ended = if quiet { Ended::Done } else { self.notes.end().unwrap_or(Ended::ClientLeft) };
                    return Some(self.leaving.map_or(ended, |leaving| leaving.ended));
                }
                Poll::Pending => {
                    self.notes.wake_those_that_wait();
                    match self.notes.take_excess() {
                        // The next round tells the client.
                        Some(Ended::Http2Error) => self.cut(Ended::Http2Error, Reason::PROTOCOL_ERROR),
                        Some(ended) => self.cut(ended, Reason::ENHANCE_YOUR_CALM),
                        None => return None,
                    }
                }
            }
        }
    }

    /// Ends what has taken too long.
    fn poll_time<F>(&mut self, streams: &FuturesUnordered<F>, cx: &mut Context<'_>) -> Poll<Ended> {
        let now = clock::now();
        loop {
            let Some((at, end)) = self.next_end(streams.is_empty()) else { return Poll::Pending };
            if now < at {
                ready!(self.deadline.poll(cx, at));
            }
            match end {
                TimedEnd::Leave(ended) => self.leave(ended),
                TimedEnd::Cut(ended) => self.cut(ended, Reason::NO_ERROR),
                TimedEnd::Over(ended) => return Poll::Ready(ended),
            }
            cx.waker().wake_by_ref();
        }
    }

    /// What ends next, and when; `quiet`: no stream is there.
    fn next_end(&self, quiet: bool) -> Option<(Micros, TimedEnd)> {
        let Self { conversation, limits, idle_since, .. } = self;
        let timeouts = conversation.timeouts(None);
        // The last bytes of responses wait for a window that stays shut, though their streams are done.
        if quiet && self.connection.as_ref().is_some_and(Connection::has_streams) && !self.is_cut {
            return timeouts.body.map(|limit| (idle_since + limit, TimedEnd::Cut(Ended::BodyTimeout)));
        }
        let head = self.notes.head_began.get().map(|at| (at + timeouts.head, TimedEnd::Cut(Ended::RequestTimeout)));
        if let Some(Leaving { ended, since }) = self.leaving {
            let at = match (quiet, self.is_cut) {
                (true, _) => since.max(*idle_since) + LINGER,
                (false, true) => since + CLOSING_MAX.as_micros() as Micros,
                (false, false) => return head,
            };
            return Some((at, TimedEnd::Over(ended)));
        }
        let context = &conversation.context;
        let life = limits.lives_until.map(|at| (at, TimedEnd::Leave(Ended::Lifetime)));
        let drained = match quiet {
            true => context.drain.end_of_kept(*idle_since, conversation.client_info.id),
            false => context.drain.began(),
        };
        let drained = drained.map(|at| (at, TimedEnd::Leave(Ended::Stopped)));
        let kept = match quiet {
            true if self.is_first() => Some((limits.first_until, TimedEnd::Leave(Ended::RequestTimeout))),
            true => timeouts.kept.map(|limit| (idle_since + limit, TimedEnd::Leave(Ended::KeepaliveTimeout))),
            false => None,
        };
        [head, life, drained, kept].into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    /// True if the end was announced long ago.
    fn has_left(&self) -> bool {
        self.leaving.is_some_and(|leaving| leaving.since + CLOSING_MAX.as_micros() as Micros <= clock::now())
    }

    fn is_first(&self) -> bool {
        self.count == 0
    }

    /// Announces the end: the client opens no more streams, and those that it has are served.
    fn leave(&mut self, ended: Ended) {
        if self.leaving.is_none() {
            self.leaving = Some(Leaving { ended, since: clock::now() });
            self.connection.as_mut().into_iter().for_each(Connection::graceful_shutdown);
        }
    }

    /// Ends the connection with its streams, and tells the client why.
    fn cut(&mut self, ended: Ended, reason: Reason) {
        if !std::mem::replace(&mut self.is_cut, true) {
            self.leaving = Some(Leaving { ended, since: clock::now() });
            self.conversation.cancel_requests(ended);
            self.connection.as_mut().into_iter().for_each(|connection| connection.abrupt_shutdown(reason));
        }
    }
}

impl WireNotes {
    /// Takes the note that the client has sent too much of something: how the connection ends.
    fn take_excess(&self) -> Option<Ended> {
        Some(match self.excess.take()? {
            Excess::Flood => Ended::Http2Flood,
            Excess::Resets => Ended::Http2Resets,
            Excess::NoSettings => Ended::Http2Error,
        })
    }

    /// How the stream of the connection has ended, if that was not in good order.
    fn end(&self) -> Option<Ended> {
        let truncated = || self.truncated.get().then_some(Ended::ClientTruncated);
        self.fault.get().map(|fault| fault.ending(Endpoint::Client)).or_else(truncated)
    }

    /// How a connection ends with this error; `first`: it has carried no stream.
    fn ending(&self, error: &h2::Error, first: bool) -> Ended {
        match error.reason() {
            Some(Reason::ENHANCE_YOUR_CALM) if error.is_library() && self.too_many_resets.get() => Ended::Http2Resets,
            Some(Reason::ENHANCE_YOUR_CALM) if error.is_library() => Ended::Http2Flood,
            _ if error.is_library() => Ended::Http2Error,
            // The client has gone, or said why it goes.
            _ => self.end().unwrap_or(if first { Ended::ClientLeft } else { Ended::Done }),
        }
    }
}

/// What a time that has passed does to a connection.
#[derive(Debug, Clone, Copy)]
enum TimedEnd {
    /// Announces the end.
    Leave(Ended),
    /// Ends the streams, too.
    Cut(Ended),
    /// Waits no longer for the client.
    Over(Ended),
}

/// A stream that has come, with its head.
type Incoming = (http::Request<RecvStream>, SendResponse<Bytes>);

/// The bytes of one head, which count for as long as its request is served.
struct HeldHead<'a>(usize, &'a Cell<usize>);

impl<'a> HeldHead<'a> {
    /// Counts a head of so many bytes; `None`: there are too many already.
    fn of(length: usize, heads: &'a Cell<usize>) -> Option<Self> {
        let all = heads.get() + length;
        (all <= HEADS_MAX).then(|| {
            heads.set(all);
            Self(length, heads)
        })
    }
}

impl Drop for HeldHead<'_> {
    fn drop(&mut self) {
        self.1.set(self.1.get() - self.0);
    }
}

/// Serves one stream, unless a command ends it.
async fn serve_stream(
    conversation: Conversation,
    (shared, notes): (Rc<Shared<'_>>, Rc<WireNotes>),
    incoming: Incoming,
    heads: &Cell<usize>,
) {
    let (request, mut respond) = incoming;
    if poll_fn(|cx| Poll::Ready(respond.poll_reset(cx))).await.is_ready() {
        // Nothing is done for a stream that its client has taken back.
        return;
    }
    let (head, body) = request.into_parts();
    let key = || {
        let mut key = [0; 16];
        aws_lc_rs::rand::fill(&mut key).ok().map(|()| key)
    };
    let StreamHead { bytes, body: framing, accept } = write_head(&head, body.is_end_stream(), key);
    let Some(_held) = HeldHead::of(bytes.len(), heads) else {
        // Nothing was done of it, and the client may send it again (RFC 9113 §8.7).
        return respond.send_reset(Reason::REFUSED_STREAM);
    };
    conversation.context.counters().http2_streams.add(1);
    let response = ResponseTranslator::new(head.method == http::Method::HEAD, framing == StreamBody::Tunnel);
    drop(head);
    let body = ReceivedBody::new(body, framing).before_settings(notes);
    let stream = Http2Stream::new(&conversation, (body, framing), respond, response);
    tokio::select! {
        biased;
        // It notices a command by itself, and says so in its line of the log.
        () = serve_one_request(&conversation, shared, stream, bytes, accept) => {}
        _ = conversation.state.cancelled() => {}
    }
}
