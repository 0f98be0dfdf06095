//! [`Probes`]: the active health checks, one task per checked backend.
//!
//! Does not decide when a backend is up or down: `pool::health` counts the results. Verifies certificates only for a
//! pool with `tls`; behind passthrough the clients do. Invariants: a task holds its backend and never a pool or
//! snapshot; one timeout covers a whole check; a failure of this host (descriptors, ports, memory) never counts against
//! a backend.

mod agent;
mod any_certificate;
mod dialogue;
mod grpc;
mod http;
mod mysql;
mod postgres;
mod redis;
mod smtp;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ahash::{AHashMap, RandomState};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, UnixStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsConnector;

use self::agent::Agent;
use self::dialogue::Dialogue;
use crate::clock;
use crate::config::{Address, Check, CheckKind, OnMarkedDown, PoolHttp, ProxyOut};
use crate::events::{self, Event, EventKind};
use crate::fault::Fault;
use crate::pool::health::CheckState;
use crate::pool::{Backend, Pool};
use crate::proxy_protocol::{self, Announce};
use crate::remote_text;
use crate::tls::{HTTP1, HTTP2, Termination, Upstream, in_words, io_in_words};

/// The longest delay of a first check: first checks are spread, but a dead backend is found soon after start.
const STAGGER_MAX: Duration = Duration::from_secs(1);

/// The running checks, one task per backend.
pub struct Probes {
    now_ms: fn() -> u64,
    /// Tasks by pool and backend name.
    tasks: AHashMap<(String, String), Task>,
}

impl Probes {
    /// Starts without checks. `now_ms` is the monotonic clock that picks use.
    pub fn new(now_ms: fn() -> u64) -> Self {
        Self { now_ms, tasks: AHashMap::new() }
    }

    /// Checks exactly these pools from now on. Must be called at start and after each reload, on the runtime that runs
    /// the checks. The task of a kept backend goes on; a removed backend ends its task; changed settings restart it. A
    /// backend without an address has no task.
    pub fn adopt(&mut self, pools: &[Arc<Pool>], tls: &Termination) {
        let mut before = std::mem::take(&mut self.tasks);
        for pool in pools {
            let Some(settings) = CheckSettings::of(pool, tls.upstream(pool.name())) else {
                for backend in pool.backends() {
                    backend.unchecked((self.now_ms)());
                    backend.forget_agent();
                }
                continue;
            };
            for backend in pool.backends() {
                if settings.check.agent.is_none() {
                    backend.forget_agent();
                }
                if backend.has_no_address() {
                    continue;
                }
                let id = (pool.name().to_owned(), backend.name().to_owned());
                let task = before
                    .remove(&id)
                    .filter(|task| Arc::ptr_eq(&task.backend, backend) && *task.settings == settings)
                    .unwrap_or_else(|| Task::start(backend.clone(), Arc::new(settings.clone()), self.now_ms));
                self.tasks.insert(id, task);
            }
        }
    }

    /// The number of backends with a running task.
    pub fn running(&self) -> usize {
        self.tasks.len()
    }
}

/// The settings for the checks of a pool; a task restarts when they change.
#[derive(Debug, Clone, PartialEq)]
struct CheckSettings {
    check: Check,
    proxy: Option<ProxyOut>,
    source: Vec<IpAddr>,
    on_marked_down: OnMarkedDown,
    /// Time that a backend which its agent drains still serves known clients.
    drain_deadline: Duration,
    tls: Option<Arc<Upstream>>,
    /// Version of HTTP that the pool speaks to the backend.
    http: PoolHttp,
}

impl CheckSettings {
    fn of(pool: &Pool, tls: Option<&Arc<Upstream>>) -> Option<Self> {
        let config = pool.config();
        Some(Self {
            check: config.check.clone()?,
            proxy: config.proxy.clone(),
            source: config.source.clone(),
            on_marked_down: config.on_marked_down,
            drain_deadline: config.drain_deadline,
            tls: tls.cloned(),
            http: config.http,
        })
    }
}

/// The task that checks one backend; dropping it ends the checks.
struct Task {
    backend: Arc<Backend>,
    settings: Arc<CheckSettings>,
    handle: JoinHandle<()>,
}

impl Task {
    fn start(backend: Arc<Backend>, settings: Arc<CheckSettings>, now_ms: fn() -> u64) -> Self {
        let handle = tokio::spawn(watch(backend.clone(), settings.clone(), now_ms));
        Self { backend, settings, handle }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

async fn watch(backend: Arc<Backend>, settings: Arc<CheckSettings>, now_ms: fn() -> u64) {
    let check = &settings.check;
    let random = RandomState::new();
    // An awaited backend gets no clients before its first check, so that check starts at once.
    if backend.standing() != CheckState::Awaited {
        sleep(check.interval.min(STAGGER_MAX).mul_f64(fraction(random.hash_one(0)))).await;
    }
    let (mut was_local, mut agent) = (false, Agent::default());
    for round in 1_u64.. {
        let began = Instant::now();
        let (checked, asked) = tokio::join!(run(backend.address(), &settings), agent.ask(&backend, &settings, now_ms));
        let result = checked.and(asked);
        match &result {
            Ok(()) => report(&backend, Ok(()), &settings, now_ms()),
            Err(CheckFailure::Backend(complaint)) => {
                // The error of a TLS library may quote what the backend has sent.
                report(&backend, Err(&remote_text::shown(complaint)), &settings, now_ms());
            }
            Err(CheckFailure::Local(error)) if !was_local => {
                // Logged once in a row: without free descriptors every check of every backend ends here.
                let (pool, name) = (backend.pool_name(), backend.name());
                tracing::warn!("pool {pool:?}: backend {name:?}: check not possible: {error}");
                let text = format!("backend {pool}/{name} cannot be checked: {error}");
                events::note(clock::unix_ms(), Event::new(EventKind::CheckFailed, &text).of_backend(pool, name));
            }
            Err(CheckFailure::Local(_)) => {}
        }
        was_local = matches!(result, Err(CheckFailure::Local(_)));
        sleep_until(began + jittered(check.interval, random.hash_one(round))).await;
    }
}

fn report(backend: &Backend, result: Result<(), &str>, settings: &CheckSettings, now_ms: u64) {
    let (pool, name, address) = (backend.pool_name(), backend.name(), backend.address());
    let was_damped = backend.damped();
    let note = |kind, text: &str| {
        events::note(
            clock::unix_ms(),
            Event::new(kind, &format!("backend {pool}/{name} {text}")).of_backend(pool, name),
        );
    };
    match backend.checked(result, &settings.check, settings.on_marked_down, now_ms) {
        Some(CheckState::Down) => {
            let reason = result.err().unwrap_or("");
            tracing::warn!(pool, backend = name, %address, reason, "backend is down");
            note(EventKind::Down, &format!("is down: {reason}"));
        }
        Some(_) => {
            tracing::info!(pool, backend = name, %address, "backend is up");
            note(EventKind::Up, "is up");
        }
        None if backend.damped() && !was_damped => {
            let reason = backend.complaint();
            tracing::warn!(pool, backend = name, %address, reason, "backend answers again, and stays down for now");
            note(EventKind::Damped, &format!("stays down for now: {reason}"));
        }
        None => {}
    }
}

/// The reason why a check failed.
#[derive(Debug)]
enum CheckFailure {
    /// The backend failed the check; the complaint for status and log.
    Backend(String),
    /// This host could not run the check: no descriptor, port or memory.
    Local(io::Error),
}

impl CheckFailure {
    fn from_io(doing: &str, error: io::Error) -> Self {
        match Fault::of_io(&error) {
            Fault::NoPort | Fault::NoDescriptor | Fault::NoMemory => Self::Local(error),
            _ => Self::Backend(format!("{doing}: {}", io_in_words(&error))),
        }
    }
}

/// A connection to a TCP or unix address, with or without TLS.
trait CheckStream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> CheckStream for T {}

/// Runs one check on a new connection, within its timeout.
async fn run(address: &Address, settings: &CheckSettings) -> Result<(), CheckFailure> {
    let Check { timeout: longest, kind, .. } = &settings.check;
    let mut heard = Vec::new();
    let result = timeout(*longest, ask(address, settings, &mut heard)).await;
    result.unwrap_or_else(|_| {
        let expect = if let CheckKind::Talk { expect, .. } = kind { Some(&expect[..]) } else { None };
        Err(CheckFailure::Backend(dialogue::late(*longest, &heard, expect)))
    })
}

/// Connects and asks what the kind of check asks. `heard` holds what the backend has sent last.
async fn ask(address: &Address, settings: &CheckSettings, heard: &mut Vec<u8>) -> Result<(), CheckFailure> {
    let mut stream = connect(address, settings, settings.check.port)
        .await
        .map_err(|error| CheckFailure::from_io("connect", error))?;
    if let Some(proxy) = &settings.proxy {
        let mut header = Vec::new();
        // A check has no client: the header is LOCAL or UNKNOWN.
        proxy_protocol::write(&mut header, proxy, &Announce::default());
        stream.write_all(&header).await.map_err(|error| CheckFailure::from_io("PROXY header", error))?;
    }
    let (has_tls, protocol) = tls_of(settings);
    if has_tls {
        stream = handshake(stream, address, settings, protocol).await?;
    }
    match &settings.check.kind {
        CheckKind::Tcp => Ok(()),
        CheckKind::Tls => {
            // The check has passed; a failed close_notify does not change that.
            stream.shutdown().await.ok();
            Ok(())
        }
        CheckKind::Talk { send, expect, .. } => dialogue::talk(Dialogue::new(&mut *stream, heard), send, expect).await,
        CheckKind::Http(check) => {
            http::ask(&mut *stream, check, &host_of(check.host.as_deref(), address)).await?;
            stream.shutdown().await.ok();
            Ok(())
        }
        CheckKind::Redis { primary } => redis::ask(Dialogue::new(&mut *stream, heard), *primary).await,
        CheckKind::Mysql { user } => mysql::ask(Dialogue::new(&mut *stream, heard), user).await,
        CheckKind::Postgres { user } => postgres::ask(Dialogue::new(&mut *stream, heard), user).await,
        CheckKind::Smtp => smtp::ask(Dialogue::new(&mut *stream, heard)).await,
        CheckKind::Grpc { host, service, .. } => {
            let (authority, timeout) = (host_of(host.as_deref(), address), settings.check.timeout);
            grpc::call(stream, grpc::HealthCall { authority: &authority, secure: has_tls, service, timeout }).await
        }
    }
}

/// Whether a check has TLS, and the protocol that it offers in the handshake if the pool does.
fn tls_of(settings: &CheckSettings) -> (bool, Option<&'static [u8]>) {
    let pool_has_tls = settings.tls.is_some();
    match &settings.check.kind {
        CheckKind::Tcp => (false, None),
        CheckKind::Talk { tls, .. } => (*tls, None),
        // Clients of the pool fare no better than the check.
        CheckKind::Tls if pool_has_tls && settings.http == PoolHttp::Http2 => (true, Some(HTTP2)),
        CheckKind::Tls => (true, Some(HTTP1)),
        CheckKind::Http(check) => (check.tls, Some(HTTP1)),
        CheckKind::Grpc { tls, .. } => (*tls, Some(HTTP2)),
        // Its registered name; a server that takes TLS at once asks for it.
        CheckKind::Postgres { .. } => (pool_has_tls, Some(b"postgresql")),
        CheckKind::Redis { .. } | CheckKind::Mysql { .. } | CheckKind::Smtp => (pool_has_tls, None),
    }
}

/// Connects from an address of the pool, at this port instead of the backend's own.
async fn connect(address: &Address, settings: &CheckSettings, port: Option<u16>) -> io::Result<Box<dyn CheckStream>> {
    match address {
        Address::Name(_) => Err(io::ErrorKind::HostUnreachable.into()),
        Address::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        Address::Tcp(address) => {
            let mut address = *address;
            address.set_port(port.unwrap_or(address.port()));
            let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            if let Some(source) = settings.source.iter().find(|source| source.is_ipv4() == address.is_ipv4()) {
                crate::socket::bind_without_port(&socket, *source)?;
            }
            Ok(Box::new(socket.connect(address).await?))
        }
    }
}

async fn handshake(
    stream: Box<dyn CheckStream>,
    address: &Address,
    settings: &CheckSettings,
    protocol: Option<&[u8]>,
) -> Result<Box<dyn CheckStream>, CheckFailure> {
    let config = client_config(settings, protocol)?;
    let name = match (&settings.check.sni, &settings.tls, address) {
        (Some(name), _, _) => ServerName::try_from(name.as_str().to_owned())
            .map_err(|_| CheckFailure::Backend(format!("TLS: {name} cannot be sent as a server name")))?,
        (None, Some(upstream), _) => upstream.name(address),
        // rustls never sends an address as a server name.
        (None, None, Address::Tcp(address)) => ServerName::from(address.ip()),
        (None, None, Address::Unix(_) | Address::Name(_)) => ServerName::from(IpAddr::from([127, 0, 0, 1])),
    };
    let no_http2 = || CheckFailure::Backend("TLS: the backend does not choose \"h2\" by ALPN".to_owned());
    let stream = match TlsConnector::from(config).connect(name, stream).await {
        Err(error) if protocol == Some(HTTP2) && is_no_protocol(&error) => return Err(no_http2()),
        stream => stream.map_err(|error| CheckFailure::from_io("TLS", error))?,
    };
    if protocol == Some(HTTP2) && stream.get_ref().1.alpn_protocol() != Some(HTTP2) {
        return Err(no_http2());
    }
    Ok(Box::new(stream))
}

/// True for the alert of a server that speaks none of the protocols that were offered (RFC 7301 §3.2).
fn is_no_protocol(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(error, Some(rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol)))
}

/// The settings of TLS for a check. HTTP/2 is always offered by ALPN (RFC 9113 §3.2), HTTP/1 only where the pool does.
fn client_config(settings: &CheckSettings, protocol: Option<&[u8]>) -> Result<Arc<ClientConfig>, CheckFailure> {
    let config = match &settings.tls {
        Some(upstream) => upstream.config(protocol).clone(),
        None => {
            any_certificate::config().map_err(|error| CheckFailure::Backend(format!("TLS: {}", in_words(&error))))?
        }
    };
    if protocol != Some(HTTP2) {
        return Ok(config);
    }
    let mut config = Arc::unwrap_or_clone(config);
    config.alpn_protocols = vec![HTTP2.into()];
    Ok(Arc::new(config))
}

fn host_of(host: Option<&str>, address: &Address) -> String {
    match (host, address) {
        (Some(host), _) => host.to_owned(),
        (None, Address::Tcp(address)) => address.to_string(),
        (None, Address::Unix(_)) => "localhost".to_owned(),
        (None, Address::Name(name)) => name.to_string(),
    }
}

/// The interval with a random change of at most a tenth, so that checks do not run in step.
fn jittered(interval: Duration, random: u64) -> Duration {
    interval.mul_f64(0.9 + 0.2 * fraction(random))
}

/// Maps random bits to a number from 0 up to, not including, 1.
fn fraction(random: u64) -> f64 {
    (random >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests;
