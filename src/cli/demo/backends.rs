//! The backends of the demo: small HTTP servers, by default ones that say who they are and count what they answered.
//!
//! A backend is a thread with a runtime of its own. Killing it drops that runtime, and with it the listener, every
//! open connection and the counter, as when a process dies. Knows nothing of the balancer. Invariant: a backend's
//! address stays its own while it is dead.

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

/// What a backend answers to `GET /`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DemoAnswer {
    /// The backend's name.
    pub(super) backend: String,
    /// How many times it has answered since it started; it is the only one that knows.
    pub(super) count: u64,
}

impl fmt::Display for DemoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "backend {}, answer {} since it started", self.backend, self.count)
    }
}

impl DemoAnswer {
    /// Reads what `Display` wrote.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (backend, rest) = text.trim_end().strip_prefix("backend ")?.split_once(", answer ")?;
        let count = rest.strip_suffix(" since it started")?.parse().ok()?;
        Some(Self { backend: backend.to_owned(), count })
    }
}

/// What a backend does; made anew whenever it starts.
pub(super) type Application = Arc<dyn Fn(&'static str) -> Router + Send + Sync>;

/// One backend, alive or dead.
pub(super) struct DemoBackend {
    name: &'static str,
    application: Application,
    address: SocketAddr,
    /// Bound and never listening: the kernel gives its port to nobody else while the backend is dead.
    _seat: Socket,
    life: Option<Life>,
}

#[derive(Debug)]
struct Life {
    /// Dropped to end it.
    end: oneshot::Sender<()>,
    thread: thread::JoinHandle<io::Result<()>>,
}

impl DemoBackend {
    /// Starts one on a free port.
    pub(super) fn start(name: &'static str) -> io::Result<Self> {
        Self::with(name, Arc::new(application))
    }

    /// The same with something else to do.
    pub(super) fn with(name: &'static str, application: Application) -> io::Result<Self> {
        let seat = bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = seat.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let mut backend = Self { name, application, address, _seat: seat, life: None };
        backend.revive()?;
        Ok(backend)
    }

    /// Its name.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Where it listens while it lives.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets it listen where it was, remembering nothing.
    pub(super) fn revive(&mut self) -> io::Result<()> {
        let socket = bind(self.address)?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        let (end, ended) = oneshot::channel();
        let (name, application) = (self.name, Arc::clone(&self.application));
        let life = move || live(|| application(name), socket.into(), ended);
        let thread = thread::Builder::new().name(format!("backend {name}")).spawn(life);
        self.life = Some(Life { end, thread: thread? });
        Ok(())
    }

    /// Ends it, its connections and what it remembers.
    pub(super) fn kill(&mut self) {
        if let Some(Life { end, thread }) = self.life.take() {
            drop(end);
            let _ = thread.join(); // how it ended makes no difference to the dead
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

/// Several sockets of this process may share the address as long as one of them listens at most.
fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn live(application: impl FnOnce() -> Router, listener: TcpListener, ended: oneshot::Receiver<()>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        tokio::select! {
            served = async { axum::serve(listener, application()).await } => served,
            _ = ended => Ok(()),
        }
    })
}

/// What a backend remembers.
#[derive(Debug)]
struct Memory {
    name: &'static str,
    answers: AtomicU64,
}

fn application(name: &'static str) -> Router {
    Router::new()
        .route("/", get(hello))
        .route("/ws", get(upgrade))
        .route("/healthz", get(|| async { "ok\n" })) // not counted
        .with_state(Arc::new(Memory { name, answers: AtomicU64::new(0) }))
}

async fn hello(State(memory): State<Arc<Memory>>) -> String {
    let count = memory.answers.fetch_add(1, Relaxed) + 1;
    format!("{}\n", DemoAnswer { backend: memory.name.to_owned(), count })
}

async fn upgrade(State(memory): State<Arc<Memory>>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(|socket| async move { drop(echo(socket, memory.name).await) })
}

/// Says its name, then everything it hears, until the client has gone.
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
