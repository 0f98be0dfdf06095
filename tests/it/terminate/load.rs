//! Many clients and backends at once, each a task: all clients of a test on one thread, all backends on another one.
//!
//! Reads HTTP as far as these tests need it, and fails on every deviation. Invariant: no read waits for ever.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::ClientConfig;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{LocalSet, spawn_local};
use tokio_rustls::client::TlsStream;

use crate::support::PATIENCE;

/// Runs the tasks of one thread until the first one ends.
pub fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, work)
}

/// Time for which a backend reads from a kept connection after closing it.
const DEAF_EAR: Duration = Duration::from_millis(3);

/// A TCP stream, with TLS or without.
pub trait Wire: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire for S {}

/// One end of an HTTP connection, client's or backend's.
pub struct Line<S> {
    pub stream: S,
    /// Free for the test's own use.
    pub owner: String,
    rest: Vec<u8>,
}

/// Head of a request or a response, up to its empty line.
#[derive(Debug)]
pub struct Head(pub String);

impl Head {
    /// Returns the n-th word of the first line.
    pub fn word(&self, n: usize) -> &str {
        self.0.split([' ', '\r']).nth(n).unwrap_or_default()
    }

    pub fn status(&self) -> u16 {
        self.word(1).parse().unwrap_or_else(|_| panic!("no status: {self:?}"))
    }

    /// Returns the value of the first field of this name.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields(name).next()
    }

    pub fn fields(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.lines().skip(1).filter_map(move |line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Returns the value of a request's cookie, from whichever field.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let pairs = self.fields("cookie").flat_map(|line| line.split("; "));
        pairs.filter_map(|pair| pair.split_once('=')).find_map(|(known, value)| (known == name).then_some(value))
    }

    /// Returns the `name=value` by which a response sets a cookie.
    pub fn set_cookie(&self) -> Option<String> {
        Some(self.field("set-cookie")?.split(';').next()?.to_owned())
    }

    pub fn closes(&self) -> bool {
        self.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// Opens a TCP connection to `to`.
pub async fn connect(to: SocketAddr) -> Line<TcpStream> {
    let stream = within(TcpStream::connect(to)).await.expect("the listener accepts");
    stream.set_nodelay(true).expect("a socket");
    Line::new(stream)
}

/// Opens a TCP connection to `to`, with TLS.
pub async fn connect_tls(to: SocketAddr, config: &Arc<ClientConfig>) -> Line<TlsStream<TcpStream>> {
    secured(connect(to).await, config).await
}

/// A socket with small segments and buffers, so that few bytes are under way when one side stops reading.
pub fn small_socket() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_tcp_mss(1_400).expect("a socket");
    socket.set_recv_buffer_size(16 << 10).expect("a socket");
    socket.set_send_buffer_size(16 << 10).expect("a socket");
    socket
}

/// Opens a TCP connection to `to` with small segments and buffers.
pub fn connect_small(to: SocketAddr) -> Line<TcpStream> {
    let socket = small_socket();
    socket.connect(&to.into()).expect("the listener accepts");
    socket.set_nonblocking(true).expect("a socket");
    Line::new(TcpStream::from_std(socket.into()).expect("a runtime"))
}

/// Makes a TLS handshake for `a.test` on a connection.
pub async fn secured(tcp: Line<TcpStream>, config: &Arc<ClientConfig>) -> Line<TlsStream<TcpStream>> {
    let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
    let name = "a.test".try_into().expect("a name");
    Line::new(within(connector.connect(name, tcp.stream)).await.expect("a handshake"))
}

/// Waits for a future, and fails after a while.
pub async fn within<T>(what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(PATIENCE, what).await {
        Ok(answer) => answer,
        Err(_) => panic!("waited in vain"),
    }
}

impl Line<TcpStream> {
    /// Makes the connection end by a reset when it is dropped.
    pub fn reset_when_dropped(&self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("a socket");
    }
}

impl<S: Wire> Line<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, owner: String::new(), rest: Vec::new() }
    }

    /// Wraps an end of a connection, with TLS or without.
    pub fn boxed<'a>(self) -> Line<Box<dyn Wire + 'a>>
    where
        S: 'a,
    {
        Line { stream: Box::new(self.stream), owner: self.owner, rest: self.rest }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let sent = async {
            self.stream.write_all(bytes.as_ref()).await?;
            self.stream.flush().await
        };
        within(sent).await
    }

    async fn more(&mut self) -> io::Result<()> {
        self.rest.reserve(4096);
        match within(self.stream.read_buf(&mut self.rest)).await? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    async fn until(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        let mut looked = 0;
        loop {
            if let Some(at) = self.rest[looked..].windows(end.len()).position(|bytes| bytes == end) {
                return Ok(self.rest.drain(..looked + at + end.len()).collect());
            }
            looked = (self.rest.len() + 1).saturating_sub(end.len());
            self.more().await?;
        }
    }

    async fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.rest.len() < length {
            self.more().await?;
        }
        Ok(self.rest.drain(..length).collect())
    }

    /// Reads the next head.
    pub async fn head(&mut self) -> io::Result<Head> {
        Ok(Head(String::from_utf8(self.until(b"\r\n\r\n").await?).expect("a head of text")))
    }

    /// Reads the body behind a head that has one.
    pub async fn body(&mut self, head: &Head) -> io::Result<Vec<u8>> {
        if let Some(length) = head.field("content-length") {
            return self.exactly(length.parse().expect("a length")).await;
        }
        let mut body = Vec::new();
        if head.field("transfer-encoding").is_some() {
            loop {
                let line = self.until(b"\r\n").await?;
                let size = std::str::from_utf8(&line).ok().and_then(|line| line.split([';', '\r']).next());
                match usize::from_str_radix(size.expect("text"), 16).expect("a size") {
                    0 => break,
                    size => body.extend_from_slice(&self.exactly(size + 2).await?[..size]),
                }
            }
            while self.until(b"\r\n").await?.len() > 2 {}
        } else if head.0.starts_with("HTTP/") {
            body = self.end().await?;
        }
        Ok(body)
    }

    /// Reads all bytes until the end, which must be a clean one.
    pub async fn end(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match self.more().await {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(std::mem::take(&mut self.rest)),
                Err(error) => return Err(error),
            }
        }
    }
}

/// A request as a backend has received it.
#[derive(Debug)]
pub struct Asked {
    pub head: Head,
    pub body: Vec<u8>,
}

impl Asked {
    pub fn method(&self) -> &str {
        self.head.word(0)
    }

    pub fn path(&self) -> &str {
        self.head.word(1)
    }
}

/// Several backends; dropping them ends them.
pub struct Backends {
    pub addresses: Vec<SocketAddr>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Backends {
    /// Starts them. `play` gets the number of the backend and the request, and replies; false closes the connection.
    /// `kept`: how long a connection waits for another request before it is closed.
    pub fn start<P>(count: usize, kept: Option<Duration>, play: P) -> Self
    where
        P: AsyncFn(usize, &mut Line<TcpStream>, &Asked) -> io::Result<bool> + Send + 'static,
    {
        let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
        for listener in &listeners {
            rustix::net::listen(listener, 4_096).expect("a listener");
            listener.set_nonblocking(true).expect("a socket");
        }
        let addresses = listeners.iter().map(|listener| listener.local_addr().expect("an address")).collect();
        let (stop, stopped) = watch::channel(false);
        let thread = thread::spawn(move || run(serve_all(listeners, kept, play, stopped)));
        Self { addresses, stop, thread: Some(thread) }
    }
}

impl Drop for Backends {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

async fn serve_all<P>(listeners: Vec<TcpListener>, kept: Option<Duration>, play: P, mut stopped: watch::Receiver<bool>)
where
    P: AsyncFn(usize, &mut Line<TcpStream>, &Asked) -> io::Result<bool> + 'static,
{
    let play = Rc::new(play);
    for (number, listener) in listeners.into_iter().enumerate() {
        let (play, listener) = (Rc::clone(&play), tokio::net::TcpListener::from_std(listener).expect("a runtime"));
        spawn_local(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let play = Rc::clone(&play);
                spawn_local(async move {
                    let _ = stream.set_nodelay(true);
                    // Errors of a connection show at its client.
                    let _ = serve(number, Line::new(stream), kept, &*play).await;
                });
            }
        });
    }
    let _ = stopped.changed().await;
}

async fn serve<P>(number: usize, mut line: Line<TcpStream>, kept: Option<Duration>, play: &P) -> io::Result<()>
where
    P: AsyncFn(usize, &mut Line<TcpStream>, &Asked) -> io::Result<bool>,
{
    loop {
        let asked = request(&mut line).await?;
        if !play(number, &mut line, &asked).await? {
            return Ok(());
        }
        if let Some(kept) = kept
            && line.rest.is_empty()
            && tokio::time::timeout(kept, line.stream.readable()).await.is_err()
        {
            // A request that comes too late is read and never served: only the backend sees it.
            line.stream.shutdown().await?;
            if let Ok(asked) = tokio::time::timeout(DEAF_EAR, request(&mut line)).await {
                play(number, &mut line, &asked?).await?;
            }
            return Ok(());
        }
    }
}

/// Reads the next request, without a limit: a client may be silent for as long as its test runs.
async fn request(line: &mut Line<TcpStream>) -> io::Result<Asked> {
    if line.rest.is_empty() {
        line.stream.readable().await?;
    }
    let head = line.head().await?;
    let body = line.body(&head).await?;
    Ok(Asked { head, body })
}
