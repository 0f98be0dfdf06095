//! The admin interface: [`Sockets::serve`] shows operators the process and takes their commands, over HTTP.
//!
//! Listens on a unix socket and, if configured, on a port. Decides nothing: every reply comes from
//! [`Control`]. Invariants: a request to the port changes nothing, only the unix socket can reload, drain and close; the
//! port serves no peer that the configuration does not allow, and names no client unless the configuration says so; a
//! reload that has begun is finished even if its client goes away; the memory that requests can make the process hold
//! is bounded; clients that send half a request keep no other client waiting; a browser gets no reply for a foreign
//! site.
//!
//! | path | reply |
//! |---|---|
//! | `GET /`, `/page.css`, `/page.js`, `/icon.svg` | the page, which shows the samples of `/stream` |
//! | `GET /stream` | server-sent events: a sample of the process each second; 503 with too many viewers |
//! | `GET /metrics` | Prometheus text |
//! | `GET /healthz` | 200 while the process replies |
//! | `GET /readyz` | 200, or 503 with the reason |
//! | `GET /status` | [`Status`] |
//! | `GET /pools` | the pools of the status |
//! | `GET /backends` | the backends of the status, each with the name of its pool |
//! | `GET /stick-table` | the stick tables, with their most frequent keys |
//! | `GET /store` | the shared store, `null` without one |
//! | `GET /connections?limit=N&pool=NAME&backend=NAME&client=ADDRESS&id=N` | `{"open", "shown", "connections"}` |
//! | `GET /events?after=N&kind=KIND,KIND&pool=NAME&wait=SECONDS` | [`EventPage`](crate::events::EventPage); `wait`: not before there is an event |
//! | `GET /explain?client=A&listener=L&sni=N&host=H&path=P&cookie=C` | [`ClientReport`]; 400 with a sentence; also `method`, `alpn`, `tlv`, `header`, `certificate`, `down` |
//! | `GET /why?what=ADDRESS`, a connection, a request or a cookie | [`WhyReport`]; unix socket only |
//! | `POST /reload?max_move=SHARE` | [`ReloadVerdict`]; 409 when refused; unix socket only |
//! | `POST /upgrade` with [`UpgradeRequest`] as JSON | [`UpgradeVerdict`]; 409 when refused; unix socket only |
//! | `POST /log/reopen` | 200 with the path of the access log, or 409; unix socket only |
//! | `POST /plan` with [`PlanRequest`] as JSON | [`Plan`]; 409 with all problems, as a JSON list; unix socket only |
//! | `POST /backends/POOL/NAME/drain`, `/ready`, `/close` | 200 with the new state, 404, or 409 while another process takes over; unix socket only |
//! | `POST /backends/POOL/NAME/add?address=A&weight=N&location=L&max_connections=N` | 200 with the new state, 404, or 409 when refused; also `max_move=SHARE`; unix socket only |
//! | `POST /backends/POOL/NAME/remove?now=true`, `/weight?weight=N`, `/address?address=A` | as `add`; without a value, weight and address are as configured; unix socket only |
//! | `GET /orders` | the orders about backends that stand, as a list of [`BackendOrder`]; unix socket only |
//! | `POST /successor/STAGE` by [`SuccessorStage`] | 200 with [`HeldAddresses`]; 409: it does not stop; unix socket only |
//! | `POST /connections/ID/panic` | 202; that connection's next step panics; unix socket of debug builds only |

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::config;
use crate::connection::ConnectionFilter;
use crate::events::EventRing;
use crate::metrics::{Status, status};
use crate::order::{BackendOrder, OrderRefusal};
use crate::plan::{ClientReport, ListedClient, Plan, Question};
use crate::pool::HotKey;

mod bounded;
pub mod client;
mod door;
pub mod moved;
mod origin;
mod page;
mod peers;
mod routes;
mod socket;
#[cfg(test)]
mod tests;
mod why;

pub use page::PageSampler;
pub use peers::peers_refused;
pub use socket::{BindError, MovableFile};
pub use why::{WhyConnection, WhyCookie, WhyEnding, WhyEntry, WhyMove, WhyReport};

use bounded::{Bounded, Turn};
use moved::{HeldAddresses, SuccessorStage};
use origin::HostNames;
use peers::AllowedPeers;
use routes::PortRules;
use socket::SocketFile;

/// The process that the admin interface shows and commands.
pub trait Control: Send + Sync + 'static {
    /// An open connection, as `/connections` shows it.
    type Connection: Serialize + Send + 'static;

    /// `Ok` while new connections are accepted, else the reason why not.
    fn ready(&self) -> Result<(), String>;

    /// What the process is doing now, without stick tables.
    fn status(&self) -> Status;

    /// The status without what grows with connections: descriptors, sources, and the usage of the machine.
    fn counted(&self) -> Status;

    /// Samples of the process for the viewers of the page.
    fn sampler(&self) -> &PageSampler;

    /// The stick tables, with their most frequent keys. Takes long: every entry is counted.
    fn stick_tables(&self) -> Vec<StickTableView>;

    /// Counts the open connections that match a filter, and returns at most `limit` of them.
    fn connections(&self, filter: ConnectionFilter) -> impl Future<Output = (usize, Vec<Self::Connection>)> + Send;

    /// Where the next connection of a client goes, and why; the error says what is wrong with the question.
    fn explain(&self, question: Question) -> impl Future<Output = Result<ClientReport, String>> + Send;

    /// Reads the configuration again and puts it in force if it is good. `max_move`: the highest share of a pool's
    /// clients that may move, 0 to 1.
    fn reload(&self, max_move: Option<f64>) -> impl Future<Output = ReloadVerdict> + Send;

    /// Returns the clients that would move if a text were put in force, or every problem of the text.
    fn plan(&self, request: PlanRequest) -> impl Future<Output = Result<Plan, Vec<String>>> + Send;

    /// Carries out an order about a backend; returns the new state in words, or why nothing changed. `max_move`: the
    /// highest share of the pool's known clients that may move, 0 to 1.
    fn order(
        &self,
        order: BackendOrder,
        max_move: Option<f64>,
    ) -> impl Future<Output = Result<String, OrderRefusal>> + Send;

    /// The orders about backends that stand, without drains.
    fn orders(&self) -> Vec<BackendOrder>;

    /// Opens the file of the access log anew; returns its path, or why nothing has changed.
    fn reopen_log(&self) -> impl Future<Output = Result<String, String>> + Send;

    /// The events of the process.
    fn events(&self) -> &EventRing;

    /// What happened to the client of an address, of a connection, of a request or of a cookie.
    fn why(&self, what: String) -> impl Future<Output = WhyReport> + Send;

    /// Starts another binary, `None`: the one that runs, and gives everything to it.
    fn upgrade(self: Arc<Self>, binary: Option<PathBuf>) -> impl Future<Output = UpgradeVerdict> + Send;

    /// Takes note of the process that follows this one, which stops; `Err`: this process does not stop.
    fn followed(self: Arc<Self>, stage: SuccessorStage) -> impl Future<Output = Result<HeldAddresses, String>> + Send;

    /// Makes the next step of a connection panic, so that a test sees that no other connection is touched.
    #[cfg(debug_assertions)]
    fn panic(&self, id: u64) -> impl Future<Output = ()> + Send;
}

/// A stick table and its most frequent keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StickTableView {
    /// Size, entries and losses of the table.
    #[serde(flatten)]
    pub stick_table: status::StickTableStatus,
    /// The most frequent keys, most frequent first.
    pub hottest: Vec<HotKey>,
}

/// The text that a plan is made for, or changes of what is in force, and clients to follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanRequest {
    /// Name of the text in problems and warnings.
    pub file: String,
    /// The configuration, as text; empty where `edits` are given.
    pub text: String,
    /// Changes of the configuration in force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edits: Vec<config::BackendEdit>,
    /// Clients to be shown one by one, with their backends.
    #[serde(default)]
    pub clients: Vec<ListedClient>,
}

/// The result of a reload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadVerdict {
    /// True if the new configuration is in force.
    pub accepted: bool,
    /// Generation of the configuration in force now.
    pub generation: u64,
    /// Digest of the configuration in force now.
    pub digest: String,
    /// What the reload changed, one sentence each.
    pub changes: Vec<String>,
    /// What is allowed but looks wrong, one sentence each.
    pub warnings: Vec<String>,
    /// Backends that are written with a name: all addresses of each, and the one that is taken.
    #[serde(default)]
    pub names: Vec<String>,
    /// Problems that the reload was refused for; empty if it was accepted.
    pub problems: Vec<String>,
}

/// The binary to start in place of the running process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpgradeRequest {
    /// Path of the binary; `None`: the file from which the running process was started.
    #[serde(default)]
    pub binary: Option<PathBuf>,
}

/// The result of an upgrade.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeVerdict {
    /// True if the new process serves.
    pub accepted: bool,
    /// Number of the new process.
    pub pid: u32,
    /// Version of the new process.
    pub version: String,
    /// Established connections that have moved.
    pub pairs: usize,
    /// Connections that the old process finishes: TLS or HTTP ends there, or they were still connecting.
    pub conversations: usize,
    /// Why the upgrade was refused; empty if it was accepted.
    pub problems: Vec<String>,
}

/// Copies of the sockets of the admin interface, for a process that follows.
#[derive(Debug, Default)]
pub struct SocketCopies {
    /// The unix socket and its path.
    pub unix: Option<(OwnedFd, PathBuf)>,
    /// The port and its address.
    pub http: Option<(OwnedFd, SocketAddr)>,
}

impl SocketCopies {
    /// Copies of the copies.
    pub fn try_clone(&self) -> io::Result<Self> {
        let unix = self.unix.as_ref().map(|(socket, path)| (socket.as_fd(), path.clone()));
        let http = self.http.as_ref().map(|(socket, address)| (socket.as_fd(), *address));
        Ok(Self { unix: copy(unix)?, http: copy(http)? })
    }
}

fn copy<T>(socket: Option<(BorrowedFd<'_>, T)>) -> io::Result<Option<(OwnedFd, T)>> {
    socket.map(|(socket, place)| Ok((socket.try_clone_to_owned()?, place))).transpose()
}

/// The sockets of the admin interface, bound before anything is served.
#[derive(Debug, Default)]
pub struct Sockets {
    unix: Option<(UnixListener, SocketFile)>,
    http: Option<HttpPort>,
}

/// The port of the admin interface.
#[derive(Debug)]
pub struct HttpPort {
    listener: TcpListener,
    allow: Vec<IpNet>,
    rules: PortRules,
}

impl Sockets {
    /// Binds the socket and the port of the configuration, each if there is one.
    pub fn bind(config: &config::Admin) -> Result<Self, BindError> {
        let bind = |path| socket::bind(path, config.mode, config.group.as_deref());
        let unix = config.socket.as_deref().map(bind).transpose()?;
        let listener = config.http.map(bind_http).transpose()?;
        let http = listener.map(|listener| HttpPort::new(listener, config));
        Ok(Self { unix, http })
    }

    /// Takes over what the process before has given, and binds the rest of what the configuration names.
    pub fn take_over(config: &config::Admin, copies: SocketCopies) -> Result<Self, BindError> {
        let unix = copies.unix.filter(|(_, path)| config.socket.as_ref() == Some(path));
        let unix = unix.and_then(|(socket, path)| Some((UnixListener::from(socket), SocketFile::taken_over(&path)?)));
        let http = copies.http.filter(|(_, address)| config.http == Some(*address));
        let http = http.map(|(socket, _)| HttpPort::new(socket.into(), config));
        let socket = config.socket.clone().filter(|_| unix.is_none());
        let rest = config::Admin { socket, http: config.http.filter(|_| http.is_none()), ..config.clone() };
        let bound = Self::bind(&rest)?;
        Ok(Self { unix: unix.or(bound.unix), http: http.or(bound.http) })
    }

    /// Copies of the sockets, for a process that follows. `config`: what they were bound for.
    pub fn copies(&self, config: &config::Admin) -> io::Result<SocketCopies> {
        let unix = self.unix.as_ref().map(|(socket, file)| (socket.as_fd(), file.file.path()));
        let http = self.http.as_ref().zip(config.http).map(|(port, address)| (port.listener.as_fd(), address));
        Ok(SocketCopies { unix: copy(unix)?, http: copy(http)? })
    }

    /// A flag that leaves the file of the unix socket where it is, once set: it belongs to another process.
    pub fn leave_file(&self) -> Option<Arc<AtomicBool>> {
        self.unix.as_ref().map(|(_, file)| Arc::clone(&file.left))
    }

    /// Address of the HTTP port, as the kernel chose it; `None`: there is no port.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref()?.listener.local_addr().ok()
    }

    /// The file of the unix socket; `None`: there is no socket.
    pub fn unix_file(&self) -> Option<&MovableFile> {
        self.unix.as_ref().map(|(_, file)| &file.file)
    }

    /// Takes the HTTP port away, to be served by itself.
    pub fn take_http(&mut self) -> Option<HttpPort> {
        self.http.take()
    }

    /// Serves the unix socket until `stop` becomes true; requests that have begun get their reply.
    pub async fn serve<C: Control>(self, control: Arc<C>, stop: watch::Receiver<bool>) -> io::Result<()> {
        let Some((listener, _file)) = self.unix else { return Ok(()) };
        let listener = Bounded::new(tokio::net::UnixListener::from_std(listener)?);
        let app = routes::full(control, stop.clone()).into_make_service_with_connect_info::<Turn>();
        axum::serve(listener, app).with_graceful_shutdown(stopped(stop)).await
    }
}

impl HttpPort {
    fn new(listener: TcpListener, config: &config::Admin) -> Self {
        let rules = PortRules { names: HostNames(config.names.clone()), clients: config.clients };
        Self { listener, allow: config.allow.clone(), rules }
    }

    /// Serves the port until `stop` becomes true; requests that have begun get their reply, also if this is dropped.
    pub async fn serve<C: Control>(self, control: Arc<C>, stop: watch::Receiver<bool>) -> io::Result<()> {
        let listener = AllowedPeers::new(tokio::net::TcpListener::from_std(self.listener)?, self.allow);
        let listener = Bounded::new(listener);
        let app = routes::read_only(control, self.rules, stop.clone());
        let app = app.into_make_service_with_connect_info::<Turn>();
        axum::serve(listener, app).with_graceful_shutdown(stopped(stop)).await
    }
}

fn bind_http(address: SocketAddr) -> Result<TcpListener, BindError> {
    let bound = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|cause| BindError { place: address.to_string(), cause })
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stopped| *stopped).await; // without a sender the process is ending
}
