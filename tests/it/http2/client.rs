//! [`Client`]: an HTTP/2 client for tests that wait: the crate `h2` in a thread of its own.
//!
//! Judges nothing. Invariant: every step is waited for, and no step for longer than [`PATIENCE`].

use std::future::{Future, poll_fn};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::http::{HeaderMap, Method, Request, Response};
use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use rustls::crypto::aws_lc_rs::kx_group;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

use crate::support::PATIENCE;
use crate::support::authority::Authority;
use crate::terminate::Front;

/// What comes of a step.
pub type Answered<T> = Result<T, h2::Error>;

type Sender = SendRequest<Bytes>;
type Ending = Answered<()>;

/// One connection.
pub struct Client {
    sender: Sender,
    engine: Arc<Engine>,
    ended: Mutex<Receiver<Ending>>,
    /// Scheme and authority of its requests.
    pub base: String,
}

/// The thread that moves the bytes of a connection; it ends, and the connection with it, when this is dropped.
struct Engine {
    handle: Handle,
    _stop: oneshot::Sender<()>,
}

/// One request and its response.
pub struct Exchange {
    engine: Arc<Engine>,
    response: ResponseFuture,
    pub request: SendStream<Bytes>,
}

/// A response whose body is not read yet.
pub struct Begun {
    engine: Arc<Engine>,
    pub head: Response<()>,
    pub body: RecvStream,
    /// Kept: a request that is not complete is given up with it.
    pub request: SendStream<Bytes>,
}

/// The body of a request, on its way.
pub struct Upload<'b> {
    engine: &'b Engine,
    request: &'b mut SendStream<Bytes>,
}

/// The body of a response, on its way.
pub struct Download<'b> {
    engine: &'b Engine,
    body: &'b mut RecvStream,
}

/// A whole response.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub fields: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
    /// Interim responses before it.
    pub early: Vec<Response<()>>,
}

/// TLS of a client that offers these protocols.
pub fn tls(authority: &Authority, alpn: &[&str]) -> Arc<ClientConfig> {
    let mut config = authority.client(&[&TLS13, &TLS12], &[kx_group::X25519]);
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// Connects, makes the handshake, and returns the stream with the protocol that was chosen; an error: the alert.
pub fn negotiate(
    front: &Front,
    name: &str,
    alpn: &[&str],
) -> std::io::Result<(StreamOwned<ClientConnection, TcpStream>, Option<String>)> {
    let mut stream = TcpStream::connect(front.address())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let name = name.to_owned().try_into().expect("a host name");
    let mut connection = ClientConnection::new(tls(&front.authority, alpn), name).expect("a client");
    while connection.is_handshaking() {
        connection.complete_io(&mut stream)?;
    }
    let chosen = connection.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
    Ok((StreamOwned::new(connection, stream), chosen))
}

impl Client {
    /// Connects to `a.test`.
    pub fn with(front: &Front) -> Self {
        Self::to(front, "a.test", &Builder::new())
    }

    /// Connects to `a.test` with a large window for the connection, and the usual one for each stream: a stream that
    /// is not read stops no other on this side.
    pub fn roomy(front: &Front) -> Self {
        let mut builder = Builder::new();
        builder.initial_window_size(65_535).initial_connection_window_size(64 << 20);
        Self::to(front, "a.test", &builder)
    }

    /// Connects to a name by TLS.
    pub fn to(front: &Front, name: &str, builder: &Builder) -> Self {
        let stream = TcpStream::connect(front.address()).expect("the listener accepts");
        let config = tls(&front.authority, &["h2"]);
        Self::over(stream, Some((config, name.to_owned())), &format!("https://{name}"), builder)
    }

    /// Connects in the clear, by prior knowledge.
    pub fn plain(address: SocketAddr) -> Self {
        Self::behind(address, &[])
    }

    /// Connects in the clear, and sends bytes of a proxy in front of the preface.
    pub fn behind(address: SocketAddr, first: &[u8]) -> Self {
        let mut stream = TcpStream::connect(address).expect("the listener accepts");
        stream.write_all(first).expect("the stream takes bytes");
        Self::over(stream, None, "http://a.test", &Builder::new())
    }

    fn over(stream: TcpStream, tls: Option<(Arc<ClientConfig>, String)>, base: &str, builder: &Builder) -> Self {
        stream.set_nodelay(true).expect("no delay");
        stream.set_nonblocking(true).expect("a socket");
        let (tell, told) = channel();
        let (finish, ended) = channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let builder = builder.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let handle = runtime.handle().clone();
            runtime.block_on(async move {
                let stream = tokio::net::TcpStream::from_std(stream).expect("a socket");
                let ready = |sender| tell.send((sender, handle)).expect("the test waits");
                let work = async {
                    let end = match tls {
                        None => run(stream, &builder, ready).await,
                        Some((config, name)) => {
                            let name = name.try_into().expect("a host name");
                            let stream = TlsConnector::from(config).connect(name, stream).await.expect("a handshake");
                            run(stream, &builder, ready).await
                        }
                    };
                    let _ = finish.send(end);
                    // Steps that still wait need the timer.
                    std::future::pending::<()>().await;
                };
                tokio::select! { () = work => {}, _ = stopped => {} }
            });
        });
        let (sender, handle) = told.recv_timeout(PATIENCE).expect("a connection");
        let engine = Arc::new(Engine { handle, _stop: stop });
        Self { sender, engine, ended: Mutex::new(ended), base: base.to_owned() }
    }

    /// A request with these fields.
    pub fn request(&self, method: &str, path: &str, fields: &[(&str, &str)]) -> Request<()> {
        let uri = format!("{}{path}", self.base);
        let request = Request::builder().method(Method::from_bytes(method.as_bytes()).expect("a method")).uri(uri);
        fields.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(()).expect("a request")
    }

    /// Sends a head; `end`: the request has no body.
    pub fn begin(&self, request: Request<()>, end: bool) -> Answered<Exchange> {
        let mut sender = self.engine.wait(self.sender.clone().ready())?;
        let (response, request) = sender.send_request(request, end)?;
        Ok(Exchange { engine: Arc::clone(&self.engine), response, request })
    }

    /// Sends a GET.
    pub fn ask(&self, path: &str, fields: &[(&str, &str)]) -> Exchange {
        self.begin(self.request("GET", path, fields), true).expect("a stream")
    }

    /// Sends a GET, and reads the response to its end.
    pub fn get(&self, path: &str, fields: &[(&str, &str)]) -> Reply {
        self.ask(path, fields).reply().unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Sends a request with a body of one piece, and reads the response to its end.
    pub fn send(&self, method: &str, path: &str, fields: &[(&str, &str)], body: &[u8]) -> Answered<Reply> {
        let mut exchange = self.begin(self.request(method, path, fields), false)?;
        exchange.write(body, true)?;
        exchange.reply()
    }

    /// Waits until the server lets it open so many streams at once.
    pub fn settled(&self, streams: usize) {
        crate::support::eventually("the settings of the server", || {
            (self.sender.current_max_send_streams() == streams).then_some(())
        });
    }

    /// True once the server has said that it takes extended CONNECT.
    pub fn takes_extended_connect(&self) -> bool {
        self.sender.is_extended_connect_protocol_enabled()
    }

    /// Waits for the end of the connection; an error: how it broke.
    pub fn wait(&self) -> Ending {
        self.ended.lock().unwrap().recv_timeout(PATIENCE).expect("the connection ends")
    }

    /// How the connection has ended; `None`: it has not.
    pub fn ended(&self) -> Option<Ending> {
        self.ended.lock().unwrap().try_recv().ok()
    }

    /// Ends the connection in the proper way, when the exchanges of it have ended.
    pub fn close(self) -> Ending {
        let Self { sender, engine: _engine, ended, .. } = self;
        drop(sender);
        ended.lock().unwrap().recv_timeout(PATIENCE).expect("the connection ends")
    }
}

async fn run<S>(stream: S, builder: &Builder, ready: impl FnOnce(Sender)) -> Ending
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (sender, connection) = builder.handshake(stream).await?;
    ready(sender);
    connection.await
}

impl Engine {
    fn wait<T>(&self, step: impl Future<Output = T>) -> T {
        self.wait_for(PATIENCE, step).expect("the step takes place")
    }

    fn wait_for<T>(&self, time: Duration, step: impl Future<Output = T>) -> Option<T> {
        self.handle.block_on(async { tokio::time::timeout(time, step).await.ok() })
    }
}

/// Sends bytes of a body as the windows permit, all of them; `end`: they are the last.
fn write(engine: &Engine, request: &mut SendStream<Bytes>, bytes: &[u8], end: bool) -> Answered<()> {
    if bytes.is_empty() {
        return if end { request.send_data(Bytes::new(), true) } else { Ok(()) };
    }
    let mut bytes = Bytes::copy_from_slice(bytes);
    engine.wait(async {
        while !bytes.is_empty() {
            request.reserve_capacity(bytes.len());
            let room = poll_fn(|cx| request.poll_capacity(cx)).await;
            let Some(room) = room.transpose()? else { return Err(h2::Reason::STREAM_CLOSED.into()) };
            let piece = bytes.split_to(room.min(bytes.len()));
            request.send_data(piece, end && bytes.is_empty())?;
        }
        Ok(())
    })
}

/// The next bytes of a body, which leave their windows; `None`: it has ended.
fn piece(engine: &Engine, body: &mut RecvStream) -> Option<Answered<Bytes>> {
    let piece = engine.wait(body.data())?;
    Some(piece.and_then(|piece| body.flow_control().release_capacity(piece.len()).map(|()| piece)))
}

impl Exchange {
    /// Sends bytes of the body as the windows permit, all of them; `end`: they are the last.
    pub fn write(&mut self, bytes: &[u8], end: bool) -> Answered<()> {
        write(&self.engine, &mut self.request, bytes, end)
    }

    /// Sends zeros until the windows stay shut for a while; the number of them. At most `most`.
    pub fn fill(&mut self, most: usize) -> Answered<usize> {
        const SHUT: Duration = Duration::from_millis(300);
        let engine = Arc::clone(&self.engine);
        let mut sent = 0;
        while sent < most {
            self.request.reserve_capacity((most - sent).min(1 << 16));
            let room = engine.wait_for(SHUT, poll_fn(|cx| self.request.poll_capacity(cx)));
            let Some(room) = room.flatten().transpose()? else { break };
            let room = room.min(most - sent);
            self.request.send_data(Bytes::from(vec![0; room]), false)?;
            sent += room;
        }
        Ok(sent)
    }

    /// Ends the request with trailers.
    pub fn trailers(&mut self, fields: &[(&'static str, &str)]) -> Answered<()> {
        let fields = fields.iter().map(|(name, value)| {
            (::http::HeaderName::from_static(name), value.parse::<::http::HeaderValue>().expect("a value"))
        });
        self.request.send_trailers(fields.collect())
    }

    /// The next interim response; `None`: the final one has come.
    pub fn early(&mut self) -> Option<Answered<Response<()>>> {
        let engine = Arc::clone(&self.engine);
        engine.wait(poll_fn(|cx| self.response.poll_informational(cx)))
    }

    /// Gives it up: RST_STREAM with CANCEL.
    pub fn reset(mut self) {
        self.request.send_reset(h2::Reason::CANCEL);
    }

    /// Waits for the head of the response.
    pub fn head(self) -> Answered<Begun> {
        let Self { engine, response, request } = self;
        let (head, body) = engine.wait(response)?.into_parts();
        Ok(Begun { engine, head: Response::from_parts(head, ()), body, request })
    }

    /// Reads the whole response.
    pub fn reply(mut self) -> Answered<Reply> {
        let mut early = Vec::new();
        while let Some(response) = self.early() {
            early.push(response?);
        }
        let mut begun = self.head()?;
        let body = begun.rest()?;
        let trailers = begun.trailers()?;
        let fields = begun.head.headers().clone();
        Ok(Reply { status: begun.head.status().as_u16(), fields, body, trailers, early })
    }
}

impl Begun {
    /// Sends more bytes of the request's body, all of them; `end`: they are the last.
    pub fn write(&mut self, bytes: &[u8], end: bool) -> Answered<()> {
        write(&self.engine, &mut self.request, bytes, end)
    }

    /// The next bytes of the body, which leave their windows; `None`: it has ended.
    pub fn piece(&mut self) -> Option<Answered<Bytes>> {
        piece(&self.engine, &mut self.body)
    }

    /// Both directions, each for a thread of its own.
    pub fn halves(&mut self) -> (Upload<'_>, Download<'_>) {
        let Self { engine, body, request, .. } = self;
        (Upload { engine, request }, Download { engine, body })
    }

    /// The body to its end.
    pub fn rest(&mut self) -> Answered<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(piece) = self.piece() {
            body.extend_from_slice(&piece?);
        }
        Ok(body)
    }

    pub fn trailers(&mut self) -> Answered<Option<HeaderMap>> {
        let engine = Arc::clone(&self.engine);
        engine.wait(self.body.trailers())
    }
}

impl Upload<'_> {
    /// As [`Begun::write`].
    pub fn write(&mut self, bytes: &[u8], end: bool) -> Answered<()> {
        write(self.engine, self.request, bytes, end)
    }
}

impl Download<'_> {
    /// As [`Begun::piece`].
    pub fn piece(&mut self) -> Option<Answered<Bytes>> {
        piece(self.engine, self.body)
    }
}

impl Reply {
    /// The only field of this name; `None`: there is none.
    pub fn field(&self, name: &str) -> Option<&str> {
        only(&self.fields, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Name and value of the balancer's cookie, as a client sends them back.
    pub fn cookie(&self) -> Option<String> {
        self.field("set-cookie").map(|line| line.split(';').next().unwrap_or_default().to_owned())
    }
}

/// The only field of this name; `None`: there is none.
pub fn only<'f>(fields: &'f HeaderMap, name: &str) -> Option<&'f str> {
    let mut values = fields.get_all(name).iter();
    let value = values.next()?;
    assert!(values.next().is_none(), "{name} comes twice: {fields:?}");
    Some(value.to_str().expect("text"))
}
