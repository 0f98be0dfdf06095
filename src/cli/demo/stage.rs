//! Everything the demo needs, set up and running, and what can be done to it.
//!
//! Judges nothing. Invariants: whatever changes something answers only when the balancer's status shows it; when the
//! stage is dropped, nothing of it is left.

use std::net::SocketAddr;

use super::backends::DemoBackend;
use super::balancer::{Balancer, Folder};
use super::clients::{self, CLIENTS, Round};
use super::configuration::{self, HASH, POOLS, RING};
use super::websocket::WebSocket;
use crate::cli::CommandError;
use crate::metrics::{Status, status};

/// The backends there are at first.
pub(super) const FIRST: [&str; 3] = ["a", "b", "c"];
/// The one that is killed.
pub(super) const VICTIM: &str = "b";
/// The one that is added.
pub(super) const NEWCOMER: &str = "d";
/// The pools whose clients stay.
pub(super) const KEYED: [&str; 2] = [HASH, RING];

/// Backends, the balancer before them, and one client that never hangs up.
#[derive(Debug)]
pub(super) struct DemoStage {
    /// Before the backends, so that it goes first.
    balancer: Balancer,
    backends: Vec<DemoBackend>,
    addresses: Vec<(&'static str, SocketAddr)>,
    websocket: WebSocket,
    connections: usize,
}

impl DemoStage {
    /// Starts everything.
    pub(super) async fn set() -> Result<Self, CommandError> {
        let backends = FIRST.iter().map(|name| start(name)).collect::<Result<Vec<_>, _>>()?;
        let mut balancer = Balancer::start(|folder| text(folder, &backends)).await?;
        let status =
            balancer.wait("find its backends good", |status| FIRST.iter().all(|name| up(status, name))).await?;
        let addresses = POOLS.iter().map(|pool| address(&status, pool).map(|address| (*pool, address)));
        let addresses = addresses.collect::<Result<Vec<_>, _>>()?;
        let websocket = open_websocket(address(&status, RING)?).await?;
        Ok(Self { balancer, backends, addresses, websocket, connections: 0 })
    }

    /// The balancer.
    pub(super) fn balancer(&self) -> &Balancer {
        &self.balancer
    }

    /// The backends, dead ones included.
    pub(super) fn backends(&self) -> &[DemoBackend] {
        &self.backends
    }

    /// Their names.
    pub(super) fn names(&self) -> Vec<&'static str> {
        self.backends.iter().map(DemoBackend::name).collect()
    }

    /// Their names but one.
    pub(super) fn names_but(&self, absent: &str) -> Vec<&'static str> {
        self.names().into_iter().filter(|name| *name != absent).collect()
    }

    /// Where a pool's listener is.
    pub(super) fn address(&self, pool: &str) -> SocketAddr {
        self.addresses.iter().find(|(name, _)| *name == pool).expect("one of POOLS").1
    }

    /// The connection that was opened first of all, through the ring, and stays.
    pub(super) fn websocket(&mut self) -> &mut WebSocket {
        &mut self.websocket
    }

    /// How often a client has asked.
    pub(super) fn connections(&self) -> usize {
        self.connections
    }

    /// Every client asks a pool.
    pub(super) async fn ask(&mut self, pool: &str) -> Result<Round, CommandError> {
        self.connections += CLIENTS;
        Round::of_all(self.address(pool)).await
    }

    /// Every client asks each of [`KEYED`].
    pub(super) async fn ask_keyed(&mut self) -> Result<[Round; KEYED.len()], CommandError> {
        Ok([self.ask(HASH).await?, self.ask(RING).await?])
    }

    /// Reloads the configuration; the generation now in use.
    pub(super) fn reload(&self) -> Result<u64, CommandError> {
        Ok(self.balancer.reload(|folder| text(folder, &self.backends))?.generation)
    }

    /// Starts another backend and writes it into the configuration; the generation now in use.
    pub(super) async fn add(&mut self, name: &'static str) -> Result<u64, CommandError> {
        self.backends.push(start(name)?);
        let generation = self.reload()?;
        self.balancer.wait("find the new backend good", |status| up(status, name)).await?;
        Ok(generation)
    }

    /// Kills a backend.
    pub(super) async fn kill(&mut self, name: &str) -> Result<(), CommandError> {
        self.backend(name).kill();
        self.balancer.wait("find the dead backend down", |status| down(status, name)).await?;
        Ok(())
    }

    /// Brings a dead backend back.
    pub(super) async fn revive(&mut self, name: &str) -> Result<(), CommandError> {
        self.backend(name).revive().map_err(|error| failure(name, &error))?;
        self.balancer.wait("find the backend good again", |status| up(status, name)).await?;
        Ok(())
    }

    fn backend(&mut self, name: &str) -> &mut DemoBackend {
        self.backends.iter_mut().find(|backend| backend.name() == name).expect("a backend of the stage")
    }
}

fn start(name: &'static str) -> Result<DemoBackend, CommandError> {
    DemoBackend::start(name).map_err(|error| failure(name, &error))
}

/// What became of a backend.
pub(super) fn failure(name: &str, error: &std::io::Error) -> CommandError {
    CommandError::Internal(format!("backend {name}: {error}"))
}

fn text(folder: &Folder, backends: &[DemoBackend]) -> String {
    configuration::text(&folder.socket(), &addresses(backends))
}

/// Backends as a file names them.
pub(super) fn addresses(backends: &[DemoBackend]) -> Vec<(&str, SocketAddr)> {
    backends.iter().map(|backend| (backend.name(), backend.address())).collect()
}

/// The first client whose backend will not be killed.
async fn open_websocket(address: SocketAddr) -> Result<WebSocket, CommandError> {
    for client in clients::all() {
        let websocket = WebSocket::open(client, address).await?;
        if websocket.backend() != VICTIM {
            return Ok(websocket);
        }
    }
    Err(CommandError::Internal(format!("every client is served by backend {VICTIM}")))
}

/// Where a listener is, by the balancer's own word.
pub(super) fn address(status: &Status, pool: &str) -> Result<SocketAddr, CommandError> {
    let listener = status.listeners.iter().find(|listener| listener.name == pool);
    let address = listener.and_then(|listener| listener.bind.first()?.parse().ok());
    address.ok_or_else(|| CommandError::Internal(format!("the balancer does not say where listener {pool} is")))
}

/// Whether every pool has this backend and finds it good.
pub(super) fn up(status: &Status, name: &str) -> bool {
    in_every_pool(status, name, |backend| backend.state == "up")
}

/// Whether every pool has this backend and finds it down.
pub(super) fn down(status: &Status, name: &str) -> bool {
    in_every_pool(status, name, |backend| !backend.up)
}

fn in_every_pool(status: &Status, name: &str, holds: impl Fn(&status::BackendStatus) -> bool) -> bool {
    let holds = |pool: &status::PoolStatus| pool.backends.iter().any(|backend| backend.name == name && holds(backend));
    status.pools.iter().all(holds)
}
