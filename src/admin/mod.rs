//! The admin interface: what the operator sees, and the little an operator can do, over HTTP.
//!
//! On a unix socket and, if asked, on a loopback port. Decides nothing: every answer comes from [`Control`].
//! Invariants: the port changes nothing, only the socket can reload, drain and close; a reload once begun is finished even if whoever
//! asked for it goes away; what a request can make the process hold is bounded.
//!
//! | path | answer |
//! |---|---|
//! | `GET /metrics` | Prometheus text |
//! | `GET /healthz` | 200 while the process answers |
//! | `GET /readyz` | 200, or 503 with the reason |
//! | `GET /status` | [`Status`] |
//! | `GET /pools` | its pools |
//! | `GET /backends` | their backends, each with its pool's name |
//! | `GET /stick-table` | what pools remember, with the keys that come most often |
//! | `GET /store` | the shared store, `null` without one |
//! | `GET /connections?limit=N&pool=NAME&backend=NAME` | `{"open", "shown", "connections"}` |
//! | `POST /reload?max_move=SHARE` | [`ReloadVerdict`]; 409 when refused; unix socket only |
//! | `POST /plan` with [`PlanRequest`] as JSON | [`Plan`]; 409 with all problems, as a JSON list; unix socket only |
//! | `POST /backends/POOL/NAME/drain`, `/ready`, `/close` | 200 with what it is then, 404; unix socket only |
//! | `POST /connections/ID/panic` | 202; that connection's next step panics; unix socket of debug builds only |

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::config;
use crate::metrics::{Status, status};
use crate::plan::{ListedClient, Plan};
use crate::pool::{AdminState, HotKey};

mod bounded;
mod routes;
mod socket;
#[cfg(test)]
mod tests;

pub use routes::{CONNECTIONS_SHOWN, CONNECTIONS_SHOWN_MAX};
pub use socket::BindError;

use bounded::Bounded;
use socket::SocketFile;

/// What the admin interface shows and commands.
pub trait Control: Send + Sync + 'static {
    /// How an open connection is shown.
    type Connection: Serialize + Send + 'static;

    /// Whether new connections are welcome; if not, why.
    fn ready(&self) -> Result<(), String>;

    /// What the process is doing now, without what it remembers.
    fn status(&self) -> Status;

    /// What is remembered, and of whom most.
    fn stick_tables(&self) -> Vec<StickTableView>;

    /// How many open connections a filter holds for, and at most so many of them.
    fn connections(&self, filter: Filter) -> impl Future<Output = (usize, Vec<Self::Connection>)> + Send;

    /// Reads the configuration again and uses it if it is good, and if no more than this share of a pool's clients
    /// would move.
    fn reload(&self, max_move: Option<f64>) -> impl Future<Output = ReloadVerdict> + Send;

    /// Who would move if a text were put in force, or everything that is wrong with it.
    fn plan(&self, asked: PlanRequest) -> impl Future<Output = Result<Plan, Vec<String>>> + Send;

    /// Tells a backend what to do; what it is then, or why nobody was told.
    fn order(&self, pool: &str, backend: &str, order: AdminState) -> Result<String, String>;

    /// Makes the next step of a connection panic, so that a test can see that nobody else notices.
    #[cfg(debug_assertions)]
    fn panic(&self, id: u64) -> impl Future<Output = ()> + Send;
}

/// Which connections somebody wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Those of this pool.
    pub pool: Option<String>,
    /// Those of backends of this name.
    pub backend: Option<String>,
    /// At most so many.
    pub limit: usize,
}

/// A stick table, and the keys that come most often.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StickTableView {
    /// What it holds.
    #[serde(flatten)]
    pub stick_table: status::StickTableStatus,
    /// The hottest keys, hottest first.
    pub hottest: Vec<HotKey>,
}

/// What a plan is wanted for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanRequest {
    /// What the text is called in what is said about it.
    pub file: String,
    /// The configuration.
    pub text: String,
    /// Clients to look at one by one.
    #[serde(default)]
    pub clients: Vec<ListedClient>,
}

/// What became of a reload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadVerdict {
    /// Whether the new configuration is in use.
    pub accepted: bool,
    /// The generation in use now.
    pub generation: u64,
    /// The digest in use now.
    pub digest: String,
    /// What has changed.
    pub changes: Vec<String>,
    /// What is allowed but looks wrong.
    pub warnings: Vec<String>,
    /// What it was refused for.
    pub problems: Vec<String>,
}

/// The sockets of the admin interface, bound before anything is served.
#[derive(Debug, Default)]
pub struct Sockets {
    unix: Option<(UnixListener, SocketFile)>,
    http: Option<TcpListener>,
}

impl Sockets {
    /// Binds what the configuration asks for.
    pub fn bind(config: &config::Admin) -> Result<Self, BindError> {
        let unix = config.socket.as_deref().map(socket::bind).transpose()?;
        let http = config.http.map(bind_http).transpose()?;
        Ok(Self { unix, http })
    }

    /// Where the HTTP port really is.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref()?.local_addr().ok()
    }

    /// Serves until `stop` becomes true; requests begun by then are answered.
    pub async fn serve<C: Control>(self, control: Arc<C>, stop: watch::Receiver<bool>) -> io::Result<()> {
        let over_unix = async {
            let Some((listener, _file)) = self.unix else { return Ok(()) };
            let listener = Bounded::new(tokio::net::UnixListener::from_std(listener)?);
            let app = routes::full(Arc::clone(&control));
            axum::serve(listener, app).with_graceful_shutdown(stopped(stop.clone())).await
        };
        let over_http = async {
            let Some(listener) = self.http else { return Ok(()) };
            let listener = Bounded::new(tokio::net::TcpListener::from_std(listener)?);
            let app = routes::read_only(Arc::clone(&control));
            axum::serve(listener, app).with_graceful_shutdown(stopped(stop.clone())).await
        };
        tokio::try_join!(over_unix, over_http).map(|_| ())
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
    let _ = stop.wait_for(|stopped| *stopped).await; // a sender that is gone wants us to stop, too
}
