//! Backends on one thread that write down which client came to which backend.
//!
//! They read the PROXY v2 header that the balancer sends and then what the client says. A first byte of `b` is answered
//! with the backend's own and the end; anything else with the backend's own, and from then on everything comes back.
//! Requests get a response, and an Upgrade its 101. Invariant: a client is in the log before it is answered, and the
//! log is in the order in which the clients came.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::JoinHandle as Task;

/// One client at one backend.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// The address of the backend.
    pub source: u32,
    /// The number in the server name it asked for; 0 without one.
    pub name: u16,
    /// The backend.
    pub home: u8,
    /// When.
    pub at: Instant,
}

/// What the backends have written down.
#[derive(Debug, Default)]
pub struct Log(Mutex<Vec<Arrival>>);

impl Log {
    /// Every visit after the first `seen`.
    pub fn after(&self, seen: usize) -> Vec<Arrival> {
        self.rows()[seen..].to_vec()
    }

    fn rows(&self) -> MutexGuard<'_, Vec<Arrival>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Some backends; they end when dropped.
pub struct Backends {
    /// Where they listen: addresses that the balancer never connects from, so that a port stays theirs while it is shut.
    pub addresses: Vec<SocketAddr>,
    /// What they write down.
    pub log: Arc<Log>,
    orders: Option<UnboundedSender<Order>>,
    thread: Option<JoinHandle<()>>,
}

enum Order {
    Shut(usize, oneshot::Sender<()>),
    Open(usize, oneshot::Sender<()>),
}

impl Backends {
    /// So many.
    pub fn start(count: usize) -> Self {
        let log = Arc::<Log>::default();
        let listeners: Vec<_> = (0..count).map(|index| listen(address(index, 0)).expect("a free port")).collect();
        let addresses = listeners.iter().map(|listener| listener.local_addr().expect("an address")).collect();
        let (orders, ordered) = unbounded_channel();
        let town = Town { log: Arc::clone(&log), addresses };
        let addresses = town.addresses.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(town.serve(listeners, ordered));
        });
        Self { addresses, log, orders: Some(orders), thread: Some(thread) }
    }

    /// Connections to this one are refused from now on.
    pub fn shut(&self, index: usize) {
        self.tell(|done| Order::Shut(index, done));
    }

    /// It is back.
    pub fn open(&self, index: usize) {
        self.tell(|done| Order::Open(index, done));
    }

    fn tell(&self, order: impl FnOnce(oneshot::Sender<()>) -> Order) {
        let (done, answer) = oneshot::channel();
        let sent = self.orders.as_ref().map(|orders| orders.send(order(done)));
        assert!(matches!(sent, Some(Ok(()))) && answer.blocking_recv().is_ok(), "the backends serve");
    }
}

impl Drop for Backends {
    fn drop(&mut self) {
        self.orders = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn address(index: usize, port: u16) -> SocketAddr {
    (Ipv4Addr::new(127, 2, 0, 1 + index as u8), port).into()
}

fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(4_096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

struct Town {
    log: Arc<Log>,
    addresses: Vec<SocketAddr>,
}

impl Town {
    async fn serve(self, listeners: Vec<std::net::TcpListener>, mut ordered: UnboundedReceiver<Order>) {
        let mut doors: HashMap<usize, (Task<()>, oneshot::Sender<()>)> = HashMap::new();
        for (index, listener) in listeners.into_iter().enumerate() {
            doors.insert(index, self.open(index, listener));
        }
        while let Some(order) = ordered.recv().await {
            match order {
                Order::Shut(index, done) => {
                    if let Some((door, shut)) = doors.remove(&index) {
                        let _ = shut.send(());
                        let _ = door.await;
                    }
                    let _ = done.send(());
                }
                Order::Open(index, done) => {
                    doors.insert(index, self.open(index, listen(self.addresses[index]).expect("its own port")));
                    let _ = done.send(());
                }
            }
        }
    }

    fn open(&self, index: usize, listener: std::net::TcpListener) -> (Task<()>, oneshot::Sender<()>) {
        let listener = TcpListener::from_std(listener).expect("a runtime");
        let (shut, mut told) = oneshot::channel();
        let log = Arc::clone(&self.log);
        let door = tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    biased;
                    accepted = listener.accept() => accepted,
                    // Only with an empty backlog: a connection that the kernel has accepted is served.
                    _ = &mut told => return,
                };
                if let Ok((stream, _)) = accepted {
                    tokio::spawn(converse(stream, index as u8, Arc::clone(&log)));
                }
            }
        });
        (door, shut)
    }
}

async fn converse(mut stream: TcpStream, home: u8, log: Arc<Log>) -> io::Result<()> {
    let _ = stream.set_nodelay(true);
    let Some((source, name)) = proxy_header(&mut stream).await? else { return Ok(()) };
    let mut bytes = [0; 2048];
    let length = stream.read(&mut bytes).await?;
    let Some(first) = bytes[..length].first() else { return Ok(()) };
    log.rows().push(Arrival { source, name, home, at: Instant::now() });
    let own = b'A' + home;
    match first {
        b'b' => return stream.write_all(&[own]).await,
        b'G' => answer(&mut stream, &bytes[..length], own).await?,
        _ => stream.write_all(&[own]).await?,
    }
    // No buffer while nothing is there, so that thousands of silent connections cost little.
    loop {
        stream.readable().await?;
        let mut bytes = [0; 2048];
        match stream.try_read(&mut bytes) {
            Ok(0) => return Ok(()),
            Ok(length) if bytes.starts_with(b"GET ") => answer(&mut stream, &bytes[..length], own).await?,
            Ok(length) => stream.write_all(&bytes[..length]).await?,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// The clients' requests fit into one segment.
async fn answer(stream: &mut TcpStream, request: &[u8], own: u8) -> io::Result<()> {
    let own = char::from(own);
    let response = match String::from_utf8_lossy(request).to_ascii_lowercase().contains("\nupgrade:") {
        true => format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n{own}"),
        false => format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{own}"),
    };
    stream.write_all(response.as_bytes()).await
}

/// Source address and the number in the server name; `None` for what the balancer opens for itself.
async fn proxy_header(stream: &mut TcpStream) -> io::Result<Option<(u32, u16)>> {
    const ANNOUNCED: u8 = 0x21;
    const TCP_V4: u8 = 0x11;
    const AUTHORITY: u8 = 0x02;
    let mut fixed = [0; 16];
    if stream.read_exact(&mut fixed).await.is_err() {
        return Ok(None);
    }
    let mut rest = vec![0; usize::from(u16::from_be_bytes([fixed[14], fixed[15]]))];
    stream.read_exact(&mut rest).await?;
    if (fixed[12], fixed[13]) != (ANNOUNCED, TCP_V4) {
        return Ok(None);
    }
    let source = u32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]]);
    let (mut tlvs, mut name) = (&rest[12..], 0);
    while let [kind, high, low, more @ ..] = tlvs {
        let (value, after) = more.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        if *kind == AUTHORITY {
            let digits: String = value.iter().map(|byte| char::from(*byte)).filter(char::is_ascii_digit).collect();
            name = digits.parse().unwrap_or(0);
        }
        tlvs = after;
    }
    Ok(Some((source, name)))
}
