//! Active health checks: asks every backend again and again whether it can serve, and tells it the answer.
//!
//! Decides nothing: `pool::health` counts the answers. Verifies certificates where the pool says whom it believes; behind
//! passthrough the client does.
//! Invariants: one task per checked backend, holding the backend and never a pool or snapshot; one timeout covers a
//! whole check; what this machine lacks (descriptors, ports, memory) is never held against a backend.

mod any_certificate;
mod http;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ahash::{AHashMap, RandomState};
use rustix::io::Errno;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsConnector;

use crate::config::{Address, Check, CheckKind, OnMarkedDown, ProxyOut};
use crate::pool::health::CheckState;
use crate::pool::{Backend, Pool};
use crate::proxy_protocol::{self, Announce};
use crate::tls::{Termination, Upstream};

/// First checks are spread over this time at most, so that a dead backend is found soon after start.
const STAGGER_MAX: Duration = Duration::from_secs(1);
/// All checks that run.
pub struct Probes {
    now_ms: fn() -> u64,
    tasks: AHashMap<(String, String), Task>,
}

impl Probes {
    /// No checks yet. `now_ms` is the monotonic clock that picks are asked with.
    pub fn new(now_ms: fn() -> u64) -> Self {
        Self { now_ms, tasks: AHashMap::new() }
    }

    /// Checks exactly these pools from now on: call it at start and after each reload, on the runtime that runs the
    /// checks. Checks of carried backends go on undisturbed; those of others end; changed settings start again.
    pub fn adopt(&mut self, pools: &[Arc<Pool>], tls: &Termination) {
        let mut before = std::mem::take(&mut self.tasks);
        for pool in pools {
            let Some(orders) = Orders::of(pool, tls.upstream(pool.name())) else {
                pool.backends().iter().for_each(|backend| backend.unchecked());
                continue;
            };
            for backend in pool.backends() {
                let id = (pool.name().to_owned(), backend.name().to_owned());
                let task = before
                    .remove(&id)
                    .filter(|task| Arc::ptr_eq(&task.backend, backend) && *task.orders == orders)
                    .unwrap_or_else(|| Task::start(backend.clone(), Arc::new(orders.clone()), self.now_ms));
                self.tasks.insert(id, task);
            }
        }
    }

    /// How many backends are checked.
    pub fn running(&self) -> usize {
        self.tasks.len()
    }
}

/// How the backends of a pool are checked.
#[derive(Debug, Clone, PartialEq)]
struct Orders {
    check: Check,
    proxy: Option<ProxyOut>,
    source: Vec<IpAddr>,
    on_marked_down: OnMarkedDown,
    tls: Option<Arc<Upstream>>,
}

impl Orders {
    fn of(pool: &Pool, tls: Option<&Arc<Upstream>>) -> Option<Self> {
        let config = pool.config();
        Some(Self {
            check: config.check.clone()?,
            proxy: config.proxy.clone(),
            source: config.source.clone(),
            on_marked_down: config.on_marked_down,
            tls: tls.cloned(),
        })
    }
}

/// The checks of one backend; dropping it ends them.
struct Task {
    backend: Arc<Backend>,
    orders: Arc<Orders>,
    handle: JoinHandle<()>,
}

impl Task {
    fn start(backend: Arc<Backend>, orders: Arc<Orders>, now_ms: fn() -> u64) -> Self {
        let handle = tokio::spawn(watch(backend.clone(), orders.clone(), now_ms));
        Self { backend, orders, handle }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

async fn watch(backend: Arc<Backend>, orders: Arc<Orders>, now_ms: fn() -> u64) {
    let check = &orders.check;
    let random = RandomState::new();
    // An awaited backend takes no keys before its first check, so that one does not wait.
    if backend.standing() != CheckState::Awaited {
        sleep(check.interval.min(STAGGER_MAX).mul_f64(share(random.hash_one(0)))).await;
    }
    let mut excused = false;
    for round in 1_u64.. {
        let began = Instant::now();
        let late = |_| Err(CheckFailure::Backend(format!("no answer within {:?}", check.timeout)));
        let answer = timeout(check.timeout, ask(backend.address(), &orders)).await.unwrap_or_else(late);
        match &answer {
            Ok(()) => report(&backend, Ok(()), &orders, now_ms()),
            Err(CheckFailure::Backend(complaint)) => report(&backend, Err(complaint), &orders, now_ms()),
            Err(CheckFailure::Local(error)) if !excused => {
                // Said once in a row: with no descriptors left every check of every backend comes here.
                tracing::warn!(pool = backend.pool_name(), backend = backend.name(), %error, "check not possible");
            }
            Err(CheckFailure::Local(_)) => {}
        }
        excused = matches!(answer, Err(CheckFailure::Local(_)));
        sleep_until(began + jittered(check.interval, random.hash_one(round))).await;
    }
}

fn report(backend: &Backend, result: Result<(), &str>, orders: &Orders, now_ms: u64) {
    let (pool, name, address) = (backend.pool_name(), backend.name(), backend.address());
    match backend.checked(result, &orders.check, orders.on_marked_down, now_ms) {
        Some(CheckState::Down) => {
            let reason = result.err().unwrap_or("");
            tracing::warn!(pool, backend = name, %address, reason, "backend is down");
        }
        Some(_) => tracing::info!(pool, backend = name, %address, "backend is up"),
        None => {}
    }
}

/// Why a check failed.
#[derive(Debug)]
enum CheckFailure {
    /// The backend did not do what it should.
    Backend(String),
    /// This machine could not ask.
    Local(io::Error),
}

impl CheckFailure {
    fn from_io(doing: &str, error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(
                Errno::MFILE | Errno::NFILE | Errno::ADDRNOTAVAIL | Errno::ADDRINUSE | Errno::NOBUFS | Errno::NOMEM,
            ) => Self::Local(error),
            _ => Self::Backend(format!("{doing}: {error}")),
        }
    }
}

/// A connection of either family, with or without TLS.
trait CheckStream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> CheckStream for T {}

/// One check.
async fn ask(address: &Address, orders: &Orders) -> Result<(), CheckFailure> {
    let mut stream = connect(address, orders).await.map_err(|error| CheckFailure::from_io("connect", error))?;
    if let Some(proxy) = &orders.proxy {
        let mut header = Vec::new();
        // Nothing to announce: LOCAL, or UNKNOWN.
        proxy_protocol::write(&mut header, proxy, &Announce::default());
        stream.write_all(&header).await.map_err(|error| CheckFailure::from_io("PROXY header", error))?;
    }
    match &orders.check.kind {
        CheckKind::Tcp => Ok(()),
        CheckKind::Tls => {
            let mut stream = handshake(stream, address, orders).await?;
            // The answer is known; a backend that is gone before our close_notify is no worse for it.
            stream.shutdown().await.ok();
            Ok(())
        }
        CheckKind::Http { tls, path, host, status_min, status_max } => {
            if *tls {
                stream = handshake(stream, address, orders).await?;
            }
            let status = http::get(&mut *stream, path, &host_of(host.as_deref(), address)).await?;
            stream.shutdown().await.ok();
            if (*status_min..=*status_max).contains(&status) {
                return Ok(());
            }
            Err(CheckFailure::Backend(format!("status {status}, expected {status_min}-{status_max}")))
        }
    }
}

async fn connect(address: &Address, orders: &Orders) -> io::Result<Box<dyn CheckStream>> {
    match address {
        Address::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        Address::Tcp(address) => {
            let mut address = *address;
            address.set_port(orders.check.port.unwrap_or(address.port()));
            let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            if let Some(source) = orders.source.iter().find(|source| source.is_ipv4() == address.is_ipv4()) {
                crate::socket::bind_without_port(&socket, *source)?;
            }
            Ok(Box::new(socket.connect(address).await?))
        }
    }
}

async fn handshake(
    stream: Box<dyn CheckStream>,
    address: &Address,
    orders: &Orders,
) -> Result<Box<dyn CheckStream>, CheckFailure> {
    let config = match &orders.tls {
        Some(upstream) => upstream.config(Some(b"http/1.1")).clone(),
        None => any_certificate::config().map_err(|error| CheckFailure::Backend(format!("TLS: {error}")))?,
    };
    let name = match (&orders.check.sni, &orders.tls, address) {
        (Some(name), _, _) => ServerName::try_from(name.as_str().to_owned())
            .map_err(|_| CheckFailure::Backend(format!("TLS: {name} cannot be sent as a server name")))?,
        (None, Some(upstream), _) => upstream.name(address),
        // An address is never sent as a name.
        (None, None, Address::Tcp(address)) => ServerName::from(address.ip()),
        (None, None, Address::Unix(_)) => ServerName::from(IpAddr::from([127, 0, 0, 1])),
    };
    let stream =
        TlsConnector::from(config).connect(name, stream).await.map_err(|error| CheckFailure::from_io("TLS", error))?;
    Ok(Box::new(stream))
}

fn host_of(host: Option<&str>, address: &Address) -> String {
    match (host, address) {
        (Some(host), _) => host.to_owned(),
        (None, Address::Tcp(address)) => address.to_string(),
        (None, Address::Unix(_)) => "localhost".to_owned(),
    }
}

/// The interval, up to a tenth more or less.
fn jittered(interval: Duration, random: u64) -> Duration {
    interval.mul_f64(0.9 + 0.2 * share(random))
}

/// From 0 up to, not including, 1.
fn share(random: u64) -> f64 {
    (random >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests;
