//! Clients that speak HTTP/2, by the `h2` crate: one exchange each, or held after one, or one with a long body.
//!
//! h2 is driven without a runtime: a conversation and its connection are polled until neither can go on, and again
//! after an event of the socket. Invariant: an exchange counts only if HTTP/2 was agreed on, the status is 200, every
//! byte of the body is the right one, and one of the two backends has answered.

use std::future::poll_fn;
use std::io::{self, ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use bytes::Bytes;
use futures_util::FutureExt;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, COOKIE, SET_COOKIE};
use http::{Method, Request, StatusCode, response};
use rustix::event::epoll::EventFlags;
use rustls::ClientConfig;
use rustls::client::Resumption;

use super::http::{BODY, COOKIE as OURS};
use super::identity::{Exchange, Identity, NAME};
use super::secure::Secure;
use super::transfer::Way;
use super::wire::{HTTP2, Wire};
use super::{Epoll, Load, PATIENCE, Session, pattern};
use crate::Result;

/// Windows of a stream and of a connection, as a widespread browser has them.
const WINDOWS: (u32, u32) = (6 << 20, 15 << 20);
/// Bytes of the socket that a client with small answers reads at once.
const LITTLE: usize = 4 * 1024;
/// What a conversation becomes.
type Talk<T> = Pin<Box<dyn Future<Output = io::Result<T>>>>;

/// What an answer has told.
#[derive(Debug, Default, Clone)]
pub struct Given {
    /// The number of the backend that answered.
    pub backend: usize,
    /// The cookie that sticks the client, as it is sent back.
    pub cookie: Option<Vec<u8>>,
}

/// How clients believe in a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// By its bytes, which are known.
    Sight,
    /// By verification of everything.
    Proof,
}

/// The TLS of a client that prefers HTTP/2 and also speaks HTTP/1.1.
pub fn config(identity: &Identity, exchange: Exchange, trust: Trust) -> Result<Arc<ClientConfig>> {
    let mut config = match trust {
        Trust::Sight => identity.visitor(exchange, Resumption::disabled())?,
        Trust::Proof => Arc::unwrap_or_clone(identity.client(exchange)?),
    };
    config.alpn_protocols = vec![HTTP2.to_vec(), b"http/1.1".to_vec()];
    Ok(config.into())
}

/// One connection.
pub struct Client {
    socket: TcpStream,
    connection: Connection<Wire, Bytes>,
    /// Gone once the client leaves.
    requests: Option<SendRequest<Bytes>>,
    /// The client's own end is sent.
    ended: bool,
    stirred: Arc<Stirred>,
}

/// Whether something has happened that a poll has to look at.
#[derive(Debug, Default)]
struct Stirred(AtomicBool);

impl Wake for Stirred {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

impl Client {
    /// Begins to connect. `ahead`: bytes of the socket that are read at once.
    fn open(target: SocketAddr, config: &Arc<ClientConfig>, ahead: usize) -> io::Result<Self> {
        let secure = Secure::open(target, config)?;
        let socket = secure.socket().try_clone()?;
        socket.set_nodelay(true)?; // as clients of HTTP/2 do, lest a window that was used up wait for its last bytes
        let mut builder = Builder::new();
        builder.initial_window_size(WINDOWS.0).initial_connection_window_size(WINDOWS.1).enable_push(false);
        // The preface is gathered and needs no socket.
        let begun = builder.handshake(Wire::new(secure, ahead)).now_or_never().ok_or(ErrorKind::WouldBlock)?;
        let (requests, connection) = begun.map_err(io::Error::other)?;
        Ok(Self { socket, connection, requests: Some(requests), ended: false, stirred: Arc::default() })
    }

    /// Opens a stream; with a length, a body of so many bytes follows.
    fn ask(
        &mut self,
        path: &str,
        cookie: Option<&[u8]>,
        upload: Option<u64>,
    ) -> io::Result<(ResponseFuture, SendStream<Bytes>)> {
        let method = if upload.is_some() { Method::PUT } else { Method::GET };
        let mut request =
            Request::builder().method(method).uri(format!("https://{NAME}{path}")).header("user-agent", "compare");
        if let Some(cookie) = cookie {
            request = request.header(COOKIE, cookie);
        }
        if let Some(length) = upload {
            request = request.header(CONTENT_LENGTH, length);
        }
        let request = request.body(()).map_err(io::Error::other)?;
        let requests = self.requests.as_mut().ok_or(ErrorKind::NotConnected)?;
        requests.send_request(request, upload.is_none()).map_err(io::Error::other)
    }

    /// Goes on with a conversation as far as it can.
    fn go_on<T>(&mut self, mut talk: Pin<&mut (impl Future<Output = io::Result<T>> + ?Sized)>) -> Poll<io::Result<T>> {
        let waker = Waker::from(Arc::clone(&self.stirred));
        let mut context = Context::from_waker(&waker);
        loop {
            self.stirred.0.store(false, Relaxed);
            let talked = talk.as_mut().poll(&mut context);
            let connected = Pin::new(&mut self.connection).poll(&mut context).map_err(io::Error::other);
            match (talked, connected) {
                (Poll::Ready(Ok(done)), _) => return Poll::Ready(Ok(done)),
                (Poll::Ready(Err(error)), Poll::Pending) => return Poll::Ready(Err(error)),
                (_, Poll::Ready(Err(error))) => return Poll::Ready(Err(error)),
                (_, Poll::Ready(Ok(()))) => match talk.as_mut().poll(&mut context) {
                    Poll::Pending => return Poll::Ready(Err(ErrorKind::UnexpectedEof.into())),
                    done => return done,
                },
                (Poll::Pending, Poll::Pending) if self.stirred.0.load(Relaxed) => {}
                (Poll::Pending, Poll::Pending) => return Poll::Pending,
            }
        }
    }

    /// Has one conversation to its end.
    fn finish<T>(&mut self, talk: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let mut talk = pin!(talk);
        let (epoll, mut ready) = (Epoll::new()?, Vec::with_capacity(1));
        epoll.add(&self.socket, 0, EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET)?;
        loop {
            if let Poll::Ready(done) = self.go_on(talk.as_mut()) {
                return done;
            }
            let asleep = Instant::now();
            epoll.wait(&mut ready, PATIENCE)?;
            if ready.is_empty() && asleep.elapsed() >= PATIENCE {
                return Err(io::Error::new(ErrorKind::TimedOut, "no answer"));
            }
        }
    }

    /// Ends the connection, and goes on until the server has closed, too; how the server does that is its own business.
    fn leave(&mut self) -> io::Result<()> {
        self.requests = None;
        if !self.ended {
            let waker = Waker::from(Arc::clone(&self.stirred));
            while Pin::new(&mut self.connection).poll(&mut Context::from_waker(&waker)).is_pending() {
                if !self.stirred.0.swap(false, Relaxed) {
                    return Err(ErrorKind::WouldBlock.into());
                }
            }
            self.ended = true;
        }
        loop {
            match (&self.socket).read(&mut [0; 512]) {
                Ok(1..) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(error),
                Ok(0) | Err(_) => return Ok(()),
            }
        }
    }
}

/// A visitor with one exchange.
pub struct Visit {
    client: Client,
    talk: Option<Talk<Given>>,
    given: Given,
}

impl Visit {
    fn open(target: SocketAddr, config: &Arc<ClientConfig>, path: &str) -> io::Result<Self> {
        let mut client = Client::open(target, config, LITTLE)?;
        let (response, _) = client.ask(path, None, None)?;
        Ok(Self { client, talk: Some(Box::pin(welcome(response))), given: Given::default() })
    }
}

/// Prepares this many clients, each with one exchange a connection.
pub fn load(
    target: SocketAddr,
    clients: usize,
    config: &Arc<ClientConfig>,
) -> io::Result<Load<Visit, impl FnMut() -> io::Result<Visit> + use<>>> {
    let config = Arc::clone(config);
    Load::new(clients, move || Visit::open(target, &config, "/once"))
}

/// Visitors that stay when each has had one answer.
pub fn hold(target: SocketAddr, count: usize, identity: &Identity) -> Result<Vec<Client>> {
    let config = config(identity, Exchange::X25519, Trust::Sight)?;
    let mut held = Vec::with_capacity(count);
    for _ in 0..count {
        let Visit { mut client, talk, .. } = Visit::open(target, &config, "/keep")?;
        client.finish(talk.ok_or("a visit without words")?)?;
        held.push(client);
    }
    Ok(held)
}

/// Cookies of visitors that come one by one, until there is one for each backend.
pub fn one_for_each_backend(target: SocketAddr, identity: &Identity) -> Result<[Given; 2]> {
    const MOST: usize = 100;
    let config = config(identity, Exchange::X25519, Trust::Sight)?;
    let mut known = [None, None];
    for _ in 0..MOST {
        let Visit { mut client, talk, .. } = Visit::open(target, &config, "/keep")?;
        let given = client.finish(talk.ok_or("a visit without words")?)?;
        let backend = given.backend;
        known[backend] = Some(given);
        if let [Some(a), Some(b)] = &known {
            return Ok([a.clone(), b.clone()]);
        }
    }
    Err(format!("of {MOST} visitors none came to one of the backends").into())
}

impl Session for Visit {
    fn socket(&self) -> &TcpStream {
        &self.client.socket
    }

    fn step(&mut self) -> io::Result<()> {
        if let Some(talk) = &mut self.talk {
            let Poll::Ready(given) = self.client.go_on(talk.as_mut()) else { return Err(ErrorKind::WouldBlock.into()) };
            self.given = given?;
            self.talk = None;
        }
        self.client.leave()
    }

    fn again(&mut self) -> bool {
        false
    }

    fn unsent(&self) -> bool {
        true // h2 does not say, and an edge costs little
    }

    fn backend(&self) -> usize {
        self.given.backend
    }
}

/// A connection for long bodies, one after the other.
pub struct Stream(Client);

impl Stream {
    /// Begins to connect.
    pub fn open(target: SocketAddr, identity: &Identity) -> Result<Self> {
        let config = config(identity, Exchange::X25519, Trust::Sight)?;
        Ok(Self(Client::open(target, &config, pattern::CHUNK)?))
    }

    /// Moves so many bytes, every one of which is looked at where it arrives.
    pub fn run(&mut self, way: Way, length: u64) -> Result<()> {
        match way {
            Way::Down => {
                let (response, _) = self.0.ask(&format!("/blob/{length}"), None, None)?;
                Ok(self.0.finish(download(response, length))?)
            }
            Way::Up => {
                let (response, body) = self.0.ask("/blob", None, Some(length))?;
                Ok(self.0.finish(upload(response, body, length))?)
            }
        }
    }
}

/// The small answer to a stranger, with a cookie.
async fn welcome(response: ResponseFuture) -> io::Result<Given> {
    let given = small(response).await?;
    if given.cookie.is_none() {
        return Err(wrong("no cookie"));
    }
    Ok(given)
}

/// The small answer.
async fn small(response: ResponseFuture) -> io::Result<Given> {
    let (head, mut body) = response.await.map_err(io::Error::other)?.into_parts();
    let given = read(&head)?;
    let mut whole = Vec::with_capacity(BODY.len());
    while let Some(piece) = next(&mut body).await? {
        whole.extend_from_slice(&piece);
    }
    if whole == BODY.as_bytes() { Ok(given) } else { Err(wrong("not the answer")) }
}

async fn download(response: ResponseFuture, length: u64) -> io::Result<()> {
    let (head, mut body) = response.await.map_err(io::Error::other)?.into_parts();
    read(&head)?;
    let mut place = 0;
    while let Some(piece) = next(&mut body).await? {
        for part in piece.chunks(pattern::CHUNK) {
            pattern::check(place, part)?;
            place += part.len() as u64;
        }
    }
    if place == length { Ok(()) } else { Err(wrong("a download that is not whole")) }
}

async fn upload(response: ResponseFuture, mut body: SendStream<Bytes>, length: u64) -> io::Result<()> {
    let mut place = 0;
    while place < length {
        body.reserve_capacity(pattern::CHUNK.min((length - place) as usize));
        while body.capacity() == 0 {
            let more = poll_fn(|context| body.poll_capacity(context)).await;
            more.ok_or_else(|| wrong("an upload that was not awaited"))?.map_err(io::Error::other)?;
        }
        let piece = pattern::from(place, (length - place).min(body.capacity() as u64));
        place += piece.len() as u64;
        body.send_data(Bytes::from_static(piece), place == length).map_err(io::Error::other)?;
    }
    small(response).await.map(drop)
}

/// The next piece of a body, for which the window opens again.
async fn next(body: &mut RecvStream) -> io::Result<Option<Bytes>> {
    let Some(piece) = body.data().await else { return Ok(None) };
    let piece = piece.map_err(io::Error::other)?;
    body.flow_control().release_capacity(piece.len()).map_err(io::Error::other)?;
    Ok(Some(piece))
}

/// What the head of an answer tells.
fn read(head: &response::Parts) -> io::Result<Given> {
    if head.status != StatusCode::OK {
        return Err(wrong(&format!("not the answer: {}", head.status)));
    }
    let number = head.headers.get("backend").and_then(|value| value.to_str().ok()?.parse().ok());
    let backend = number.filter(|number| *number <= 1).ok_or_else(|| wrong("an answer of no backend"))?;
    let mut cookies = head.headers.get_all(SET_COOKIE).iter().map(http::HeaderValue::as_bytes);
    let cookie = cookies.find(|cookie| cookie.starts_with(OURS.as_bytes()));
    let pair = |cookie: &[u8]| cookie.split(|byte| *byte == b';').next().map(<[u8]>::to_vec);
    Ok(Given { backend, cookie: cookie.and_then(pair) })
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}
