//! [`Http2Site`]: a backend that speaks HTTP/2: the crate `h2` in a thread of its own, with a page for each way in which
//! a stream can go.
//!
//! Knows nothing of HTTP/1. Invariant: what it says of a stream it has seen itself.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard};

use ::http::{HeaderMap, Method, Request, Response};
use bytes::Bytes;
use h2::ext::Protocol;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{LocalSet, spawn_local};
use tokio_rustls::TlsAcceptor;

use crate::support::eventually;

/// What a site has seen so far.
#[derive(Default)]
pub struct Seen {
    /// Connections on which HTTP/2 was begun, and those of them that are open.
    pub connections: usize,
    pub open: usize,
    /// Paths of the requests, each with the number of its connection, from 1 on.
    pub requests: Vec<(usize, String)>,
    /// Fields of the last one.
    pub fields: HeaderMap,
    /// Paths of streams that the peer has reset, and with what.
    pub resets: Vec<(String, Reason)>,
    /// Bytes of bodies that were read.
    pub read: usize,
}

/// A running site.
pub struct Http2Site {
    pub address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    /// What `/hold` and `/slow` wait for.
    pub door: Arc<Semaphore>,
    _stop: oneshot::Sender<()>,
}

impl Http2Site {
    /// Serves in the clear.
    pub fn new() -> Self {
        Self::with(Builder::new(), None)
    }

    /// Serves with these settings, by TLS or in the clear.
    pub fn with(builder: Builder, tls: Option<ServerConfig>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("an address");
        let (seen, door) = (Arc::<Mutex<Seen>>::default(), Arc::new(Semaphore::new(0)));
        let (stop, stopped) = oneshot::channel::<()>();
        let site = (Arc::clone(&seen), Arc::clone(&door));
        let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            LocalSet::new().block_on(&runtime, async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                let site = Rc::new(Visited { seen: site.0, door: site.1, builder });
                let serve = async {
                    while let Ok((stream, _)) = listener.accept().await {
                        stream.set_nodelay(true).expect("no delay");
                        let (site, acceptor) = (Rc::clone(&site), acceptor.clone());
                        spawn_local(async move {
                            match acceptor {
                                None => site.serve(stream).await,
                                Some(acceptor) => {
                                    if let Ok(stream) = acceptor.accept(stream).await {
                                        site.serve(stream).await;
                                    }
                                }
                            }
                        });
                    }
                };
                tokio::select! { () = serve => {}, _ = stopped => {} }
            });
        });
        Self { address, seen, door, _stop: stop }
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    /// Waits until the peer has reset the stream of this path; the code.
    pub fn reset_of(&self, path: &str) -> Reason {
        eventually(&format!("a reset of {path}"), || {
            self.seen().resets.iter().find(|(of, _)| of == path).map(|(_, reason)| *reason)
        })
    }

    /// Waits until so many connections are open.
    pub fn is_open(&self, count: usize) {
        eventually(&format!("{count} open connections"), || (self.seen().open == count).then_some(()));
    }

    /// Waits until a request for this path has come.
    pub fn has_come(&self, path: &str) {
        eventually(&format!("the request for {path}"), || {
            self.seen().requests.iter().any(|(_, of)| of == path).then_some(())
        });
    }
}

/// The site inside of its thread.
struct Visited {
    seen: Arc<Mutex<Seen>>,
    door: Arc<Semaphore>,
    builder: Builder,
}

impl Visited {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(self: Rc<Self>, stream: S) {
        let Ok(mut connection) = self.builder.handshake::<_, Bytes>(stream).await else { return };
        let number = {
            let mut seen = self.seen();
            seen.connections += 1;
            seen.open += 1;
            seen.connections
        };
        while let Some(Ok((request, respond))) = connection.accept().await {
            let path = request.uri().path().to_owned();
            {
                let mut seen = self.seen();
                seen.requests.push((number, path.clone()));
                seen.fields = request.headers().clone();
            }
            if path == "/goaway" {
                connection.graceful_shutdown();
            }
            let site = Rc::clone(&self);
            spawn_local(async move {
                let _ = site.page(number, &path, request, respond).await;
            });
        }
        self.seen().open -= 1;
    }

    async fn page(
        &self,
        number: usize,
        path: &str,
        request: Request<RecvStream>,
        mut respond: SendResponse<Bytes>,
    ) -> Result<(), h2::Error> {
        let (head, mut body) = request.into_parts();
        let ok = || Response::builder().header("x-connection", number).body(()).expect("a response");
        if head.extensions.get::<Protocol>().is_some() {
            let mut sending = respond.send_response(ok(), false)?;
            return self.echo(&mut body, &mut sending).await;
        }
        let code = |path: &str| Reason::from(path.rsplit('/').next().unwrap().parse::<u32>().expect("a code"));
        match path {
            "/echo" => {
                let mut sending = respond.send_response(ok(), false)?;
                while let Some(piece) = self.piece(&mut body).await? {
                    send(&mut sending, piece).await?;
                }
                let mut trailers = body.trailers().await?.unwrap_or_default();
                trailers.insert("grpc-status", "0".parse().expect("a value"));
                return sending.send_trailers(trailers);
            }
            "/trailers-only" => {
                let mut response = ok();
                response.headers_mut().insert("grpc-status", "5".parse().expect("a value"));
                respond.send_response(response, true)?;
            }
            path if path.starts_with("/early") => {
                let mut response = ok();
                if let Some(status) = path.strip_prefix("/early/") {
                    *response.status_mut() = status.parse().expect("a status");
                }
                let mut sending = respond.send_response(response, false)?;
                sending.send_data("enough".into(), true)?;
                // The rest of the request is not wanted: RST_STREAM with NO_ERROR.
            }
            "/interim" => {
                let early = Response::builder().status(103).header("link", "</a.css>").body(()).expect("a response");
                respond.send_informational(early)?;
                respond.send_response(ok(), true)?;
            }
            "/hold" | "/goaway" => {
                if path == "/hold" {
                    self.door.acquire().await.expect("a door").forget();
                }
                respond.send_response(ok(), false)?.send_data("held".into(), true)?;
            }
            "/wait" => self.note_reset(path, poll_fn(|cx| respond.poll_reset(cx)).await?),
            "/stall" => {
                let mut sending = respond.send_response(ok(), false)?;
                self.note_reset(path, poll_fn(|cx| sending.poll_reset(cx)).await?);
            }
            "/slow" => {
                while let Some(piece) = self.piece(&mut body).await? {
                    self.door.acquire_many(piece.len() as u32).await.expect("a door").forget();
                }
                respond.send_response(ok(), true)?;
            }
            path if path.starts_with("/down/") => {
                let mut left: usize = path[6..].parse().expect("a size");
                let mut sending = respond.send_response(ok(), false)?;
                while left > 0 {
                    let piece = left.min(1 << 16);
                    send(&mut sending, vec![7; piece].into()).await?;
                    left -= piece;
                }
                sending.send_data(Bytes::new(), true)?;
            }
            path if path.starts_with("/reset/") => respond.send_reset(code(path)),
            path if path.starts_with("/cut/") => {
                let mut sending = respond.send_response(ok(), false)?;
                send(&mut sending, "part".into()).await?;
                self.door.acquire().await.expect("a door").forget();
                sending.send_reset(code(path));
            }
            _ => {
                let scheme = head.uri.scheme_str().unwrap_or("none").to_owned();
                let authority = head.uri.authority().map_or("none", |authority| authority.as_str()).to_owned();
                let text = format!("{} {scheme} {authority} {}", head.method, head.uri.path_and_query().unwrap());
                if head.method == Method::HEAD {
                    respond.send_response(ok(), true)?;
                } else {
                    respond.send_response(ok(), false)?.send_data(text.into(), true)?;
                }
            }
        }
        Ok(())
    }

    fn note_reset(&self, path: &str, reason: Reason) {
        self.seen().resets.push((path.to_owned(), reason));
    }

    /// The next bytes of a body, which leave their windows.
    async fn piece(&self, body: &mut RecvStream) -> Result<Option<Bytes>, h2::Error> {
        let Some(piece) = body.data().await.transpose()? else { return Ok(None) };
        self.seen().read += piece.len();
        body.flow_control().release_capacity(piece.len())?;
        Ok(Some(piece))
    }

    /// Sends back what comes, and the end behind it.
    async fn echo(&self, body: &mut RecvStream, sending: &mut SendStream<Bytes>) -> Result<(), h2::Error> {
        while let Some(piece) = self.piece(body).await? {
            send(sending, piece).await?;
        }
        sending.send_data(Bytes::new(), true)
    }
}

/// Sends bytes as the windows permit.
async fn send(sending: &mut SendStream<Bytes>, mut bytes: Bytes) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        sending.reserve_capacity(bytes.len());
        let room = poll_fn(|cx| sending.poll_capacity(cx)).await;
        let Some(room) = room.transpose()? else { return Err(Reason::STREAM_CLOSED.into()) };
        sending.send_data(bytes.split_to(room.min(bytes.len())), false)?;
    }
    Ok(())
}
