//! Limits of the admin interface: [`Bounded`] accepts only so many connections at once, each for a limited time.
//!
//! Reads no HTTP: the router reports by a [`Turn`] when a request begins and ends. Invariants: a connection that waits
//! for its peer never keeps another one from being accepted, nor does a stream, and the router bounds their number; a
//! head is complete [`HEAD_TIME`] after its first byte, and the first head after the accept; a connection is closed after
//! [`LIFETIME`], whatever its peer does, and the time in which requests are served does not count: an upgrade may take
//! longer; a stream ends [`STALL_TIME`] after its peer has last taken a byte.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, Sleep, sleep_until};

/// Connections to one listener at once; for a further client the one goes that has waited longest for its peer.
const CONNECTIONS_MAX: usize = 32;
/// The longest time from the first byte of a head to its end.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// The longest time that a connection lives while no request is served.
const LIFETIME: Duration = Duration::from_secs(120);
/// The longest time for which the peer of a stream takes no byte.
const STALL_TIME: Duration = Duration::from_secs(30);

/// A listener with a limit of open connections.
pub(super) struct Bounded<L> {
    listener: L,
    most: usize,
    head_time: Duration,
    lifetime: Duration,
    open: Vec<OpenConnection>,
    /// Signals that a connection has closed, or waits for its peer again.
    changed: Arc<Notify>,
}

/// An open connection.
struct OpenConnection {
    turn: Turn,
    /// Closes the connection.
    close: oneshot::Sender<()>,
}

impl<L> Bounded<L> {
    /// Puts the limits on a listener.
    pub(super) fn new(listener: L) -> Self {
        Self {
            listener,
            most: CONNECTIONS_MAX,
            head_time: HEAD_TIME,
            lifetime: LIFETIME,
            open: Vec::new(),
            changed: Arc::default(),
        }
    }

    /// Waits until another connection has a place. A connection that waits for its peer gives way at once.
    async fn make_room(&mut self) {
        loop {
            self.open.retain(|open| !open.close.is_closed());
            if self.open.iter().filter(|open| !open.turn.is_stream()).count() < self.most {
                return;
            }
            let waiting = self.open.iter().enumerate().filter_map(|(index, open)| Some((open.turn.waits()?, index)));
            match waiting.min() {
                Some((_, longest)) => drop(self.open.swap_remove(longest).close.send(())),
                None => self.changed.notified().await,
            }
        }
    }
}

impl<L: Listener> Listener for Bounded<L> {
    type Io = BoundedIo<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (io, address) = self.listener.accept().await;
        self.make_room().await;
        let turn = Turn(Arc::new(TurnState {
            progress: Mutex::new(TurnProgress {
                stage: Stage::Head,
                since: Instant::now(),
                read_ahead: false,
                served: Duration::ZERO,
            }),
            changed: Arc::clone(&self.changed),
        }));
        let (close, closed) = oneshot::channel();
        self.open.push(OpenConnection { turn: turn.clone(), close });
        let end = Instant::now() + self.lifetime;
        let head_time = self.head_time;
        let timer = Box::pin(sleep_until(end));
        (BoundedIo { io, turn, head_time, end, timer, closed: Some(closed), gives_way: false }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// What a connection does now, shared by its socket, its router and its listener.
#[derive(Debug, Clone)]
pub(super) struct Turn(Arc<TurnState>);

#[derive(Debug)]
struct TurnState {
    progress: Mutex<TurnProgress>,
    changed: Arc<Notify>,
}

#[derive(Debug)]
struct TurnProgress {
    stage: Stage,
    /// When the stage began, or when the peer last took bytes of a reply.
    since: Instant,
    /// Bytes came while a request was served: perhaps the begin of the next head.
    read_ahead: bool,
    /// How long requests were served so far.
    served: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// A reply is under way or was sent, and no byte of another request has come.
    Idle,
    /// A head has begun, or the first one is awaited.
    Head,
    /// The body of a request is awaited.
    Body,
    /// A request is served.
    Work,
    /// A reply is sent that has no end of its own.
    Stream,
}

impl Turn {
    /// A request has a whole head, and is served from now on.
    pub(super) fn begin(&self) {
        let mut progress = self.progress();
        (progress.stage, progress.read_ahead, progress.since) = (Stage::Work, false, Instant::now());
    }

    /// The body of the request is awaited, until [`Self::begin`] is called again.
    pub(super) fn await_body(&self) {
        let mut progress = self.progress();
        (progress.stage, progress.since) = (Stage::Body, Instant::now());
        drop(progress);
        self.0.changed.notify_one();
    }

    /// The reply to the request goes on until the result is dropped, and takes no place from requests meanwhile.
    pub(super) fn stream(&self) -> StreamTurn {
        let mut progress = self.progress();
        let now = Instant::now();
        let served = now - progress.since;
        progress.served += served;
        (progress.stage, progress.since) = (Stage::Stream, now);
        drop(progress);
        self.0.changed.notify_one();
        StreamTurn(self.clone())
    }

    /// The reply to the request is ready for the peer, unless it is a stream.
    pub(super) fn end(&self) {
        if !self.is_stream() {
            self.rest();
        }
    }

    fn is_stream(&self) -> bool {
        self.progress().stage == Stage::Stream
    }

    /// Nothing is served from now on.
    fn rest(&self) {
        let mut progress = self.progress();
        let now = Instant::now();
        let served = now - progress.since;
        progress.served += served;
        progress.stage = if progress.read_ahead { Stage::Head } else { Stage::Idle };
        progress.since = now;
        drop(progress);
        self.0.changed.notify_one();
    }

    /// Since when the connection waits for its peer; `None`: a request is served, or a stream.
    fn waits(&self) -> Option<Instant> {
        let progress = self.progress();
        (!matches!(progress.stage, Stage::Work | Stage::Stream)).then_some(progress.since)
    }

    fn received(&self) {
        let mut progress = self.progress();
        match progress.stage {
            Stage::Idle => (progress.stage, progress.since) = (Stage::Head, Instant::now()),
            Stage::Body => progress.since = Instant::now(),
            Stage::Head => {}
            Stage::Work | Stage::Stream => progress.read_ahead = true,
        }
    }

    fn sent(&self) {
        let mut progress = self.progress();
        let now = Instant::now();
        let passed = now - progress.since;
        match progress.stage {
            Stage::Work => return,
            Stage::Stream => progress.served += passed,
            Stage::Idle | Stage::Head | Stage::Body => {}
        }
        progress.since = now;
    }

    /// When the connection ends that would end at `end` without the time in which requests were served.
    fn end_of(&self, end: Instant) -> Instant {
        let progress = self.progress();
        match progress.stage {
            Stage::Stream => progress.since + STALL_TIME,
            Stage::Work => end + progress.served + progress.since.elapsed(),
            Stage::Idle | Stage::Head | Stage::Body => end + progress.served,
        }
    }

    /// When the head has to be complete; `None`: no head has begun.
    fn head_until(&self, head_time: Duration) -> Option<Instant> {
        let progress = self.progress();
        (progress.stage == Stage::Head).then(|| progress.since + head_time)
    }

    fn progress(&self) -> MutexGuard<'_, TurnProgress> {
        self.0.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream that goes on; the connection waits for its peer again once this is dropped.
#[derive(Debug)]
pub(super) struct StreamTurn(Turn);

impl Drop for StreamTurn {
    fn drop(&mut self) {
        self.0.rest();
    }
}

impl<L: Listener> Connected<IncomingStream<'_, Bounded<L>>> for Turn {
    fn connect_info(stream: IncomingStream<'_, Bounded<L>>) -> Self {
        stream.io().turn.clone()
    }
}

/// A connection that ends by itself.
pub(super) struct BoundedIo<T> {
    io: T,
    turn: Turn,
    head_time: Duration,
    /// End of the lifetime, without the time in which requests are served.
    end: Instant,
    /// Never later than the next deadline.
    timer: Pin<Box<Sleep>>,
    /// Ready once the listener needs the place; `None` after that, or if the listener has gone.
    closed: Option<oneshot::Receiver<()>>,
    /// The listener needs the place.
    gives_way: bool,
}

impl<T> BoundedIo<T> {
    /// Fails once the deadline has passed or the listener needs the place; else the task is woken then.
    fn alive(&mut self, cx: &mut Context<'_>, deadline: Instant) -> io::Result<()> {
        if let Some(closed) = &mut self.closed
            && let Poll::Ready(told) = Pin::new(closed).poll(cx)
        {
            // A listener that has gone needs no place: a request that has begun gets its reply.
            (self.closed, self.gives_way) = (None, told.is_ok());
        }
        let early = self.timer.as_mut().poll(cx).is_ready() || self.timer.deadline() > deadline;
        if early {
            self.timer.as_mut().reset(deadline);
        }
        let over = early && self.timer.as_mut().poll(cx).is_ready();
        if over || self.gives_way { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

impl<T> Drop for BoundedIo<T> {
    fn drop(&mut self) {
        drop(self.closed.take());
        self.turn.0.changed.notify_one();
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for BoundedIo<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let end = self.turn.end_of(self.end);
        let deadline = self.turn.head_until(self.head_time).map_or(end, |head| head.min(end));
        self.alive(cx, deadline)?;
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.turn.received();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> BoundedIo<T> {
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        send: impl FnOnce(Pin<&mut T>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let end = self.turn.end_of(self.end);
        self.alive(cx, end)?;
        let written = ready!(send(Pin::new(&mut self.io), cx))?;
        self.turn.sent();
        Poll::Ready(Ok(written))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for BoundedIo<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(cx, |io, cx| io.poll_write(cx, bytes))
    }

    /// Sends bytes that several connections share from where they are.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, |io, cx| io.poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    const SOON: Duration = Duration::from_millis(50);
    const PATIENCE: Duration = Duration::from_secs(20);

    async fn bounded(most: usize, head_time: Duration, lifetime: Duration) -> (Bounded<TcpListener>, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (Bounded { most, head_time, lifetime, ..Bounded::new(listener) }, address)
    }

    async fn kind_of_failure(io: &mut BoundedIo<TcpStream>) -> io::ErrorKind {
        timeout(PATIENCE, io.read_u8()).await.expect("the read ends").unwrap_err().kind()
    }

    #[tokio::test]
    async fn one_too_many_takes_the_place_of_the_one_that_waits_longest() {
        let (mut listener, address) = bounded(2, LIFETIME, LIFETIME).await;
        let _clients = (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap());
        let (mut first, _) = Listener::accept(&mut listener).await;
        let (mut second, _) = Listener::accept(&mut listener).await;
        let _third = TcpStream::connect(address).await.unwrap();
        let (_io, _) = timeout(PATIENCE, Listener::accept(&mut listener)).await.expect("there is room");
        assert_eq!(kind_of_failure(&mut first).await, io::ErrorKind::TimedOut);
        assert!(timeout(SOON, second.read_u8()).await.is_err(), "the other one stays");
    }

    #[tokio::test]
    async fn a_reply_is_written_after_the_listener_has_gone() {
        let (mut listener, address) = bounded(2, LIFETIME, LIFETIME).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        let (mut io, _) = Listener::accept(&mut listener).await;
        drop(listener);
        io.write_all(b"reply").await.unwrap();
        let mut reply = [0; 5];
        timeout(PATIENCE, client.read_exact(&mut reply)).await.expect("the reply comes").unwrap();
        assert_eq!(&reply, b"reply");
    }

    #[tokio::test]
    async fn a_request_that_is_served_keeps_its_place() {
        let (mut listener, address) = bounded(1, LIFETIME, LIFETIME).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"x").await.unwrap();
        let (mut first, _) = Listener::accept(&mut listener).await;
        first.turn.begin();
        let _second = TcpStream::connect(address).await.unwrap();
        assert!(timeout(SOON, Listener::accept(&mut listener)).await.is_err());
        assert_eq!(first.read_u8().await.unwrap(), b'x');
        let _third = TcpStream::connect(address).await.unwrap();
        let turn = first.turn.clone();
        let (accepted, ()) = tokio::join!(timeout(PATIENCE, Listener::accept(&mut listener)), async { turn.end() });
        assert!(accepted.is_ok());
        assert_eq!(kind_of_failure(&mut first).await, io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_connection_that_closes_gives_its_place() {
        let (mut listener, address) = bounded(1, LIFETIME, LIFETIME).await;
        let _clients = (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap());
        let (first, _) = Listener::accept(&mut listener).await;
        first.turn.begin();
        let (accepted, ()) = tokio::join!(timeout(PATIENCE, Listener::accept(&mut listener)), async { drop(first) });
        assert!(accepted.is_ok());
    }

    #[tokio::test]
    async fn a_silent_peer_is_cut_off() {
        let (mut listener, address) = bounded(1, LIFETIME, Duration::from_millis(20)).await;
        let _client = TcpStream::connect(address).await.unwrap();
        let (mut io, _) = Listener::accept(&mut listener).await;
        assert_eq!(kind_of_failure(&mut io).await, io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_request_that_is_served_for_long_gets_its_reply() {
        let lifetime = Duration::from_millis(100);
        let (mut listener, address) = bounded(1, LIFETIME, lifetime).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        let (mut io, _) = Listener::accept(&mut listener).await;
        io.turn.begin();
        assert!(timeout(5 * lifetime, io.read_u8()).await.is_err(), "it is not cut off meanwhile");
        io.turn.end();
        io.write_all(b"reply").await.unwrap();
        let mut reply = [0; 5];
        timeout(PATIENCE, client.read_exact(&mut reply)).await.expect("the reply comes").unwrap();
        assert_eq!(kind_of_failure(&mut io).await, io::ErrorKind::TimedOut, "then its own time goes on");
    }

    #[tokio::test]
    async fn a_head_has_its_own_time_and_a_kept_connection_the_rest_of_its_life() {
        let (mut listener, address) = bounded(3, Duration::from_millis(20), LIFETIME).await;
        let mut clients = Vec::new();
        let mut accepted = Vec::new();
        for _ in 0..3 {
            clients.push(TcpStream::connect(address).await.unwrap());
            accepted.push(Listener::accept(&mut listener).await.0);
        }
        let [half, kept, second] = &mut accepted[..] else { panic!() };
        for io in [&kept, &second] {
            io.turn.begin();
            io.turn.end();
        }
        clients[0].write_all(b"G").await.unwrap();
        assert_eq!(half.read_u8().await.unwrap(), b'G');
        assert_eq!(kind_of_failure(half).await, io::ErrorKind::TimedOut, "the first head, half sent");
        assert!(timeout(5 * SOON, kept.read_u8()).await.is_err(), "no byte of another head has come");
        clients[2].write_all(b"G").await.unwrap();
        assert_eq!(second.read_u8().await.unwrap(), b'G');
        assert_eq!(kind_of_failure(second).await, io::ErrorKind::TimedOut, "the second head, half sent");
    }

    #[tokio::test]
    async fn a_head_that_came_during_a_request_has_its_time_too() {
        let (mut listener, address) = bounded(1, Duration::from_millis(20), LIFETIME).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        let (mut io, _) = Listener::accept(&mut listener).await;
        io.turn.begin();
        client.write_all(b"G").await.unwrap();
        assert_eq!(io.read_u8().await.unwrap(), b'G');
        assert!(timeout(5 * SOON, io.read_u8()).await.is_err(), "the request is served");
        io.turn.end();
        assert_eq!(kind_of_failure(&mut io).await, io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_stream_takes_no_place_from_requests_and_is_not_cut_off_for_them() {
        let (mut listener, address) = bounded(1, LIFETIME, Duration::from_millis(20)).await;
        let _clients = (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap());
        let (mut first, _) = Listener::accept(&mut listener).await;
        first.turn.begin();
        let stream = first.turn.stream();
        first.turn.end();
        let (mut second, _) =
            timeout(PATIENCE, Listener::accept(&mut listener)).await.expect("a stream leaves its place");
        second.turn.begin();
        second.turn.end();
        let _third = TcpStream::connect(address).await.unwrap();
        let (_io, _) = timeout(PATIENCE, Listener::accept(&mut listener)).await.expect("the idle one gives way");
        assert_eq!(kind_of_failure(&mut second).await, io::ErrorKind::TimedOut);
        assert!(timeout(5 * SOON, first.read_u8()).await.is_err(), "its lifetime does not count");
        first.write_all(b"sample").await.unwrap();
        drop(stream);
        assert_eq!(kind_of_failure(&mut first).await, io::ErrorKind::TimedOut, "then it is one of the others");
    }

    #[tokio::test]
    async fn a_stream_that_its_peer_does_not_read_ends() {
        let (mut listener, address) = bounded(1, LIFETIME, LIFETIME).await;
        let _client = TcpStream::connect(address).await.unwrap();
        let (mut io, _) = Listener::accept(&mut listener).await;
        io.turn.begin();
        let _stream = io.turn.stream();
        assert!(timeout(SOON, io.read_u8()).await.is_err(), "it has time");
        io.turn.progress().since -= STALL_TIME;
        assert_eq!(kind_of_failure(&mut io).await, io::ErrorKind::TimedOut);
    }
}
