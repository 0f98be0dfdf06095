//! Clients from addresses of their own: short visits, loads in the background, connections that are held.
//!
//! A visit that the other side cut is tried again, as a browser does it, and counted. Invariant: no more connections
//! are under way than asked for.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use sessile::socket::bind_without_port;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::LocalSet;

/// How often a visit is tried.
const TRIES: usize = 3;
/// How long one try may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// What became of many visits.
#[derive(Debug, Default, Clone, Copy)]
pub struct Toll {
    /// Clients that were answered.
    pub served: u64,
    /// Tries that were cut.
    pub cut: u64,
    /// Clients without an answer.
    pub lost: u64,
}

/// Connects from an address.
pub async fn connect(source: u32, front: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    bind_without_port(&socket, Ipv4Addr::from(source).into())?;
    let stream = TcpSocket::from_std_stream(socket.into()).connect(front).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A connection that has said this and was answered by a backend: which one.
pub async fn settle(source: u32, front: SocketAddr, words: &[u8]) -> io::Result<(TcpStream, u8)> {
    let mut stream = connect(source, front).await?;
    stream.write_all(words).await?;
    let home = stream.read_u8().await?;
    Ok((stream, home - b'A'))
}

async fn visit(source: u32, front: SocketAddr) -> io::Result<()> {
    let (mut stream, _) = settle(source, front, b"b").await?;
    stream.read(&mut [0]).await.map(|_| ())
}

/// Every one of them comes once.
pub fn visit_all(front: SocketAddr, sources: impl Iterator<Item = u32> + Clone, parallel: usize) -> Toll {
    let toll = Tally::default();
    run(visits(front, sources, parallel, &toll, &AtomicBool::new(false)));
    toll.read()
}

/// Comes from all of these, round and round, until it is told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    toll: Arc<Tally>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Begins.
    pub fn start(
        front: SocketAddr,
        sources: impl Iterator<Item = u32> + Clone + Send + 'static,
        parallel: usize,
    ) -> Self {
        let (stop, toll) = (Arc::<AtomicBool>::default(), Arc::<Tally>::default());
        let (stopped, tally) = (Arc::clone(&stop), Arc::clone(&toll));
        let thread = std::thread::spawn(move || run(visits(front, sources.cycle(), parallel, &tally, &stopped)));
        Self { stop, toll, thread: Some(thread) }
    }

    /// Waits until so many more were served.
    pub fn go_on(&self, visits: u64) {
        let goal = self.toll.read().served + visits;
        crate::support::eventually("the load to go on", || (self.toll.read().served >= goal).then_some(()));
    }

    /// Ends the load once every client is served.
    pub fn stop(mut self) -> Toll {
        self.stop.store(true, Relaxed);
        self.thread.take().map(JoinHandle::join).expect("it runs").expect("no panic");
        self.toll.read()
    }
}

#[derive(Debug, Default)]
struct Tally([AtomicU64; 3]);

impl Tally {
    fn read(&self) -> Toll {
        let [served, cut, lost] = [0, 1, 2].map(|index: usize| self.0[index].load(Relaxed));
        Toll { served, cut, lost }
    }

    fn add(&self, index: usize) {
        self.0[index].fetch_add(1, Relaxed);
    }
}

async fn visits(
    front: SocketAddr,
    sources: impl Iterator<Item = u32>,
    parallel: usize,
    toll: &Tally,
    stop: &AtomicBool,
) {
    let sources = std::cell::RefCell::new(sources);
    let one = async || {
        while !stop.load(Relaxed) {
            let Some(source) = sources.borrow_mut().next() else { return };
            let mut tries = 0;
            loop {
                let answered = tokio::time::timeout(PATIENCE, visit(source, front)).await;
                tries += 1;
                match answered {
                    Ok(Ok(())) => break toll.add(0),
                    _ if tries < TRIES && !stop.load(Relaxed) => toll.add(1),
                    _ => break toll.add(2),
                }
            }
        }
    };
    futures_util::future::join_all((0..parallel).map(|_| one())).await;
}

/// Runs what needs a runtime.
pub fn run<T>(what: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, what)
}
