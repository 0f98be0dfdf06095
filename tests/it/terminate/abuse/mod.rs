//! Clients and backends that are slow, silent or gone, many of each kind at once: each ends in its named outcome at its
//! limit, not before it and not long after it, and others do not notice.
//!
//! A kind has a listener of its own, named like it, so that its endings can be counted. Invariant: when a test is over,
//! nothing of any of them is left.

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

/// What a nuisance needs to know.
#[derive(Clone)]
struct Scene {
    front: SocketAddr,
    tls: Arc<ClientConfig>,
}

/// A moment before its clock began, one after it, and what it was told last. The clock is the other side's, and begins
/// somewhere between: with what was done then, seen from here.
struct Played {
    before: Instant,
    after: Instant,
    told: Vec<u8>,
}

impl Played {
    /// Now it begins.
    fn since(before: Instant) -> Self {
        Self { before, after: Instant::now(), told: Vec::new() }
    }

    fn told(self, told: Vec<u8>) -> Self {
        Self { told, ..self }
    }
}

/// A nuisance at work.
type Playing = Pin<Box<dyn Future<Output = Played>>>;

/// One way to be a nuisance.
struct Case {
    name: &'static str,
    /// TLS ends at its listener.
    tls: bool,
    pool: &'static str,
    /// How its connections end.
    ended: &'static str,
    /// How long after its clock began.
    limit: Duration,
    /// What it is told then.
    status: Option<u16>,
    play: Box<dyn Fn(Scene) -> Playing>,
}

/// In the clear, with the backend that serves; nothing is told.
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

    /// Its listener.
    fn listener(&self) -> String {
        let tls = "tls = \"terminate\"\ncertificate = [{ cert = \"$FILES/a.pem\", key = \"$FILES/a.key\" }]\n";
        let (name, pool, tls) = (self.name, self.pool, if self.tls { tls } else { "" });
        format!("[[listener]]\nname = \"{name}\"\nbind = \"127.0.0.1:0\"\npool = \"{pool}\"\n{tls}")
    }
}

/// A client that asks as long as others misbehave.
struct Honest {
    stop: Rc<Cell<bool>>,
    task: JoinHandle<(usize, Duration)>,
}

impl Honest {
    /// `fresh`: another connection for each request.
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

    /// How often it was served, and the longest that took.
    async fn stop(self) -> (usize, Duration) {
        self.stop.set(true);
        self.task.await.expect("a client that is content")
    }
}

/// A request that is answered.
async fn ask(line: &mut Line<impl Wire>) {
    line.send("GET /fine HTTP/1.1\r\nHost: a.test\r\n\r\n").await.expect("a connection");
    let head = line.head().await.expect("an answer");
    assert_eq!((head.status(), line.body(&head).await.expect("a body").len()), (200, 5));
}

/// A backend that answers, or does not, as it is asked.
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
                // Whoever asks for it may take it as slowly as he likes.
                while tokio::io::AsyncWriteExt::write_all(&mut line.stream, &piece).await.is_ok() {}
                return Ok(false);
            }
            _ => line.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfine\n").await?,
        }
        Ok(true)
    })
}

/// A connection on which the hello was sent and its answer read, and the bytes that would end the handshake.
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

/// How many connections of a listener have ended so.
fn ended(sessile: &Sessile, listener: &str, outcome: &str) -> u64 {
    let status = sessile.status();
    let listeners = status["listeners"].as_array().expect("listeners");
    let known = listeners.iter().find(|known| known["name"] == listener).expect("a listener of this name");
    known["ended"][outcome].as_u64().unwrap_or(0)
}

/// Waits until no connection is open and no descriptor more than `before` is held.
fn nothing_is_left(sessile: &Sessile, before: usize) {
    eventually("every connection to be gone", || (sessile.status()["admission"]["open"] == 0).then_some(()));
    eventually("every descriptor to be closed", || (sessile.descriptors() <= before).then_some(()));
}
