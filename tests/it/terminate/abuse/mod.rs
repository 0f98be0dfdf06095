//! Clients and backends that are slow, silent or gone, many of each kind at once: each ends in its named outcome at its
//! limit, not before it and not long after it, and other clients do not notice.
//!
//! Each kind has its own listener of the same name, so that its outcomes can be counted. Invariant: after a test, no
//! connection and no descriptor of any kind is left.

mod floods;
mod gone;
mod slow;

use std::cell::Cell;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ClientConfig, ClientConnection};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, spawn_local};

use super::load::{Backends, Line, Wire, connect, connect_tls};
use crate::support::authority::hello;
use crate::support::{Sessile, eventually};

/// What an abusive peer needs for its part.
#[derive(Clone)]
struct Scene {
    front: SocketAddr,
    tls: Arc<ClientConfig>,
}

/// The part of an abusive peer that is over: a moment before the timeout of sessile began, a moment after it, and the
/// last bytes the peer got.
struct Played {
    before: Instant,
    after: Instant,
    told: Vec<u8>,
}

impl Played {
    /// The timeout began between `before` and now.
    fn since(before: Instant) -> Self {
        Self { before, after: Instant::now(), told: Vec::new() }
    }

    fn told(self, told: Vec<u8>) -> Self {
        Self { told, ..self }
    }
}

/// The task of one abusive peer.
type Playing = Pin<Box<dyn Future<Output = Played>>>;

/// One kind of abuse, with its expected outcome.
struct Case {
    name: &'static str,
    /// The listener of this kind terminates TLS.
    tls: bool,
    pool: &'static str,
    /// Outcome of its connections, as in metrics.
    ended: &'static str,
    /// Time from the start of the timeout to the end.
    limit: Duration,
    /// Start of the last bytes that it gets; empty: none.
    status: Option<u16>,
    play: Box<dyn Fn(Scene) -> Playing>,
}

/// A kind without TLS in front of the serving backend; its peers get no bytes.
fn case<P>(name: &'static str, ended: &'static str, limit: Duration, play: P) -> Case
where
    P: AsyncFn(Scene) -> Played + 'static,
{
    let play = Rc::new(play);
    let play = move |scene| -> Playing {
        let play = Rc::clone(&play);
        Box::pin(async move { play(scene).await })
    };
    Case { name, tls: false, pool: "p", ended, limit, status: None, play: Box::new(play) }
}

impl Case {
    fn with_tls(self) -> Self {
        Self { tls: true, ..self }
    }

    fn told(self, status: u16) -> Self {
        Self { status: Some(status), ..self }
    }

    fn at(self, pool: &'static str) -> Self {
        Self { pool, ..self }
    }

    /// Name and address of its listener.
    fn listener(&self) -> String {
        let tls = "tls = \"terminate\"\ncertificate = [{ cert = \"$FILES/a.pem\", key = \"$FILES/a.key\" }]\n";
        let (name, pool, tls) = (self.name, self.pool, if self.tls { tls } else { "" });
        format!("[[listener]]\nname = \"{name}\"\nbind = \"127.0.0.1:0\"\npool = \"{pool}\"\n{tls}")
    }
}

/// A well-behaved client that sends requests meanwhile.
struct Honest {
    stop: Rc<Cell<bool>>,
    task: JoinHandle<(usize, Duration)>,
}

impl Honest {
    /// Starts the client; `fresh`: each request has its own connection.
    fn start(front: SocketAddr, tls: Option<&Arc<ClientConfig>>, fresh: bool) -> Self {
        let stop = Rc::new(Cell::new(false));
        let (stopped, tls) = (Rc::clone(&stop), tls.cloned());
        let task = spawn_local(async move {
            let (mut served, mut longest, mut line) = (0, Duration::ZERO, None);
            while !stopped.get() {
                let began = Instant::now();
                let mut asking: Line<Box<dyn Wire>> = match (line.take(), &tls) {
                    (Some(line), _) => line,
                    (None, Some(tls)) => connect_tls(front, tls).await.boxed(),
                    (None, None) => connect(front).await.boxed(),
                };
                ask(&mut asking).await;
                served += 1;
                longest = longest.max(began.elapsed());
                line = (!fresh).then_some(asking);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            (served, longest)
        });
        Self { stop, task }
    }

    /// Number of its requests, and the longest time of one.
    async fn stop(self) -> (usize, Duration) {
        self.stop.set(true);
        self.task.await.expect("a client that is content")
    }
}

/// Sends a request and reads its response.
async fn ask(line: &mut Line<impl Wire>) {
    line.send("GET /fine HTTP/1.1\r\nHost: a.test\r\n\r\n").await.expect("a connection");
    let head = line.head().await.expect("an answer");
    assert_eq!((head.status(), line.body(&head).await.expect("a body").len()), (200, 5));
}

/// A backend that replies, or does not, as the request's path says.
fn backend() -> Backends {
    Backends::start(1, None, async |_, line, asked| {
        match asked.path() {
            "/never" => std::future::pending::<()>().await,
            "/part" => {
                line.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\npart").await?;
                std::future::pending::<()>().await;
            }
            "/endless" => {
                let piece = vec![b'x'; 64 * 1024];
                line.send("HTTP/1.1 200 OK\r\n\r\n").await?;
                // The client may read the endless body as slowly as it likes.
                while tokio::io::AsyncWriteExt::write_all(&mut line.stream, &piece).await.is_ok() {}
                return Ok(false);
            }
            _ => line.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfine\n").await?,
        }
        Ok(true)
    })
}

/// A connection after ClientHello and ServerHello, with the bytes that would complete the handshake.
async fn half_shaken(front: SocketAddr, tls: &Arc<ClientConfig>) -> (Line<TcpStream>, Vec<u8>) {
    let (mut handshake, first): (ClientConnection, _) = hello(tls, "a.test");
    let mut line = connect(front).await;
    line.send(first).await.expect("a connection");
    let mut last = Vec::new();
    while handshake.is_handshaking() {
        let mut piece = vec![0; 4096];
        let n = tokio::io::AsyncReadExt::read(&mut line.stream, &mut piece).await.expect("an answer");
        handshake.read_tls(&mut &piece[..n]).expect("memory");
        handshake.process_new_packets().expect("TLS");
    }
    handshake.write_tls(&mut last).expect("memory");
    (line, last)
}

/// Number of connections of a listener with this outcome.
fn ended(sessile: &Sessile, listener: &str, outcome: &str) -> u64 {
    let status = sessile.status();
    let listeners = status["listeners"].as_array().expect("listeners");
    let known = listeners.iter().find(|known| known["name"] == listener).expect("a listener of this name");
    known["ended"][outcome].as_u64().unwrap_or(0)
}

/// Waits until no connection is open and at most `before` descriptors are.
fn nothing_is_left(sessile: &Sessile, before: usize) {
    eventually("every connection to be gone", || (sessile.status()["admission"]["open"] == 0).then_some(()));
    eventually("every descriptor to be closed", || (sessile.descriptors() <= before).then_some(()));
}
