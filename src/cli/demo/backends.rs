//! [`DemoBackend`]: a small HTTP server that responds with its name and a counter, unless it gets another application.
//!
//! A backend is a thread with its own runtime. Killing it drops the runtime with the listener, every open connection
//! and the counter, as when a process ends. Depends on nothing of the balancer. Invariant: a killed backend keeps its
//! address.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::get;
use socket2::{Domain, Socket, Type};
use tokio::sync::oneshot;

const BACKLOG: i32 = 1024;

/// Response of a backend to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DemoAnswer {
    /// Name of the backend.
    pub(super) backend: String,
    /// Responses since the backend started; kept in its memory only.
    pub(super) count: u64,
}

impl fmt::Display for DemoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "backend {}, answer {} since it started", self.backend, self.count)
    }
}

impl DemoAnswer {
    /// Parses what `Display` writes.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (backend, rest) = text.trim_end().strip_prefix("backend ")?.split_once(", answer ")?;
        let count = rest.strip_suffix(" since it started")?.parse().ok()?;
        Some(Self { backend: backend.to_owned(), count })
    }
}

/// Makes the router of a backend; called at every start, so that state is lost.
pub(super) type Application = Arc<dyn Fn(&'static str) -> Router + Send + Sync>;

/// One backend, running or killed.
pub(super) struct DemoBackend {
    name: &'static str,
    application: Application,
    address: SocketAddr,
    /// Bound but never listening: reserves the port while the backend is killed.
    _reservation: Socket,
    running: Option<RunningBackend>,
}

#[derive(Debug)]
struct RunningBackend {
    /// Dropping it ends the backend.
    end: oneshot::Sender<()>,
    thread: thread::JoinHandle<io::Result<()>>,
}

impl DemoBackend {
    /// Starts a backend on a free port.
    pub(super) fn start(name: &'static str) -> io::Result<Self> {
        Self::with(name, Arc::new(application))
    }

    /// Starts a backend with another application.
    pub(super) fn with(name: &'static str, application: Application) -> io::Result<Self> {
        let reservation = bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = reservation.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let mut backend = Self { name, application, address, _reservation: reservation, running: None };
        backend.revive()?;
        Ok(backend)
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Address of the listener; kept while the backend is killed.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts a killed backend at its old address, with empty memory.
    pub(super) fn revive(&mut self) -> io::Result<()> {
        let listener = listen(self.address)?;
        let (end, ended) = oneshot::channel();
        let (name, application) = (self.name, Arc::clone(&self.application));
        let server = move || serve(|| application(name), listener, ended);
        let thread = thread::Builder::new().name(format!("backend {name}")).spawn(server);
        self.running = Some(RunningBackend { end, thread: thread? });
        Ok(())
    }

    /// Ends the backend with its connections and its memory.
    pub(super) fn kill(&mut self) {
        if let Some(RunningBackend { end, thread }) = self.running.take() {
            drop(end);
            let _ = thread.join(); // an error of the ended server has no consequence
        }
    }
}

impl fmt::Debug for DemoBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backend({} at {})", self.name, self.address)
    }
}

impl Drop for DemoBackend {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Listens at an address, for a runtime.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bind(address)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// 32 random bytes as hexadecimal digits.
pub(super) fn random() -> String {
    let mut bytes = [0; 32];
    // Without random bytes all users have the same session, and the demo reports broken promises.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    data_encoding::HEXLOWER.encode(&bytes)
}

/// Binds with SO_REUSEADDR: two sockets may share the address as long as at most one of them listens.
pub(super) fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn serve(application: impl FnOnce() -> Router, listener: TcpListener, ended: oneshot::Receiver<()>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        tokio::select! {
            served = async { axum::serve(listener, application()).await } => served,
            _ = ended => Ok(()),
        }
    })
}

/// State of a backend: its name and its counter.
#[derive(Debug)]
struct Memory {
    name: String,
    responses: AtomicU64,
}

/// An echo at `/ws`, `ok` at `/healthz`, and a [`DemoAnswer`] at every other path.
pub(super) fn application(name: &str) -> Router {
    Router::new()
        .route("/ws", get(upgrade))
        .route("/healthz", get(|| async { "ok\n" })) // not counted
        .fallback(hello)
        .with_state(Arc::new(Memory { name: name.to_owned(), responses: AtomicU64::new(0) }))
}

async fn hello(State(memory): State<Arc<Memory>>) -> String {
    let count = memory.responses.fetch_add(1, Relaxed) + 1;
    format!("{}\n", DemoAnswer { backend: memory.name.clone(), count })
}

async fn upgrade(State(memory): State<Arc<Memory>>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|socket| async move { drop(echo(socket, &memory.name).await) })
}

/// Sends the backend's name, then echoes every message until the client closes.
async fn echo(mut socket: WebSocket, name: &str) -> Result<(), axum::Error> {
    socket.send(Message::text(name)).await?;
    while let Some(message) = socket.recv().await {
        match message? {
            message @ (Message::Text(_) | Message::Binary(_)) => socket.send(message).await?,
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::clients;
    use super::super::websocket::WebSocket;
    use super::*;

    const CLIENT: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

    #[test]
    fn an_answer_can_be_read_back() {
        let answer = DemoAnswer { backend: "a".into(), count: 17 };
        assert_eq!(DemoAnswer::parse(&format!("{answer}\n")), Some(answer));
        assert_eq!(DemoAnswer::parse("backend a"), None);
    }

    #[tokio::test]
    async fn a_killed_backend_refuses_keeps_its_address_and_returns_without_its_memory() {
        let mut backend = DemoBackend::start("x").unwrap();
        let address = backend.address();
        for count in 1..=3 {
            assert_eq!(clients::ask(CLIENT, address).await.unwrap(), DemoAnswer { backend: "x".into(), count });
        }
        let mut websocket = WebSocket::open(CLIENT, address).await.unwrap();
        backend.kill();
        assert!(!websocket.echoes().await, "its connections end with it");
        let refused = clients::ask(CLIENT, address).await.unwrap_err().to_string();
        assert!(refused.contains("refused"), "{refused}");
        let stranger = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        assert!(stranger.bind(&address.into()).is_err(), "its port is kept");
        backend.revive().unwrap();
        assert_eq!(clients::ask(CLIENT, address).await.unwrap().count, 1);
    }

    #[test]
    fn a_websocket_client_that_is_not_ours_is_greeted_and_echoed() {
        use tokio_tungstenite::tungstenite;
        let backend = DemoBackend::start("x").unwrap();
        let stream = std::net::TcpStream::connect(backend.address()).unwrap();
        let (mut socket, _) = tungstenite::client(format!("ws://{}/ws", backend.address()), stream).unwrap();
        assert_eq!(socket.read().unwrap(), tungstenite::Message::text("x"));
        for message in [tungstenite::Message::text("hello"), tungstenite::Message::binary(vec![7; 70_000])] {
            socket.send(message.clone()).unwrap();
            assert_eq!(socket.read().unwrap(), message);
        }
    }
}
