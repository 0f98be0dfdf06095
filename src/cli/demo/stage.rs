//! [`DemoStage`]: backends, balancer and a WebSocket, running, and the changes that scenarios make to them.
//!
//! Compares no results; `findings` does. Invariants: a change returns only when the balancer's status shows it; a
//! dropped stage leaves no process and no file.

use std::net::SocketAddr;

use super::backends::DemoBackend;
use super::balancer::{Balancer, Folder};
use super::clients::{self, CLIENTS, Round};
use super::configuration::{self, HASH, POOLS, RING};
use super::websocket::WebSocket;
use crate::cli::CommandError;
use crate::metrics::{Status, status};

/// Names of the backends at the start.
pub(super) const FIRST: [&str; 3] = ["a", "b", "c"];
/// Name of the backend that is killed.
pub(super) const VICTIM: &str = "b";
/// Name of the backend that is added.
pub(super) const NEWCOMER: &str = "d";
/// Pools that place by a key.
pub(super) const KEYED: [&str; 2] = [HASH, RING];

/// Backends, the balancer, and one WebSocket that stays open.
#[derive(Debug)]
pub(super) struct DemoStage {
    /// Declared before the backends, so that it is dropped first.
    balancer: Balancer,
    backends: Vec<DemoBackend>,
    addresses: Vec<(&'static str, SocketAddr)>,
    websocket: WebSocket,
    connections: usize,
}

impl DemoStage {
    /// Starts backends and balancer, and opens the WebSocket.
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

    pub(super) fn balancer(&self) -> &Balancer {
        &self.balancer
    }

    /// All backends, also killed ones.
    pub(super) fn backends(&self) -> &[DemoBackend] {
        &self.backends
    }

    /// Names of all backends.
    pub(super) fn names(&self) -> Vec<&'static str> {
        self.backends.iter().map(DemoBackend::name).collect()
    }

    /// Names of all backends except one.
    pub(super) fn names_but(&self, absent: &str) -> Vec<&'static str> {
        self.names().into_iter().filter(|name| *name != absent).collect()
    }

    /// Address of a pool's listener.
    pub(super) fn address(&self, pool: &str) -> SocketAddr {
        self.addresses.iter().find(|(name, _)| *name == pool).expect("one of POOLS").1
    }

    /// The WebSocket that was opened at the start, through the ring.
    pub(super) fn websocket(&mut self) -> &mut WebSocket {
        &mut self.websocket
    }

    /// Number of requests sent by clients so far.
    pub(super) fn connections(&self) -> usize {
        self.connections
    }

    /// Sends one request from every client to a pool.
    pub(super) async fn ask(&mut self, pool: &str) -> Result<Round, CommandError> {
        self.connections += CLIENTS;
        Round::of_all(self.address(pool)).await
    }

    /// Sends one request from every client to each pool in [`KEYED`].
    pub(super) async fn ask_keyed(&mut self) -> Result<[Round; KEYED.len()], CommandError> {
        Ok([self.ask(HASH).await?, self.ask(RING).await?])
    }

    /// Reloads the configuration and returns the new generation.
    pub(super) fn reload(&self) -> Result<u64, CommandError> {
        Ok(self.balancer.reload(|folder| text(folder, &self.backends))?.generation)
    }

    /// Starts another backend, adds it to the configuration, and returns the new generation.
    pub(super) async fn add(&mut self, name: &'static str) -> Result<u64, CommandError> {
        self.backends.push(start(name)?);
        let generation = self.reload()?;
        self.balancer.wait("find the new backend good", |status| up(status, name)).await?;
        Ok(generation)
    }

    /// Kills a backend and waits until checks mark it down.
    pub(super) async fn kill(&mut self, name: &str) -> Result<(), CommandError> {
        self.backend(name).kill();
        self.balancer.wait("find the dead backend down", |status| down(status, name)).await?;
        Ok(())
    }

    /// Starts a killed backend and waits until checks mark it up.
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

/// Error about a backend.
pub(super) fn failure(name: &str, error: &std::io::Error) -> CommandError {
    CommandError::Internal(format!("backend {name}: {error}"))
}

fn text(folder: &Folder, backends: &[DemoBackend]) -> String {
    configuration::text(&folder.socket(), &addresses(backends))
}

/// Names and addresses for the configuration file.
pub(super) fn addresses(backends: &[DemoBackend]) -> Vec<(&str, SocketAddr)> {
    backends.iter().map(|backend| (backend.name(), backend.address())).collect()
}

/// Opens a WebSocket from the first client at a backend that is not killed later.
async fn open_websocket(address: SocketAddr) -> Result<WebSocket, CommandError> {
    for client in clients::all() {
        let websocket = WebSocket::open(client, address).await?;
        if websocket.backend() != VICTIM {
            return Ok(websocket);
        }
    }
    Err(CommandError::Internal(format!("every client is served by backend {VICTIM}")))
}

/// Address of a pool's listener, from the status.
pub(super) fn address(status: &Status, pool: &str) -> Result<SocketAddr, CommandError> {
    let listener = status.listeners.iter().find(|listener| listener.name == pool);
    let address = listener.and_then(|listener| listener.bind.first()?.parse().ok());
    address.ok_or_else(|| CommandError::Internal(format!("the status has no address of listener {pool}")))
}

/// True if this backend is up in every pool.
pub(super) fn up(status: &Status, name: &str) -> bool {
    in_every_pool(status, name, |backend| backend.state == "up")
}

/// True if this backend is down in every pool.
pub(super) fn down(status: &Status, name: &str) -> bool {
    in_every_pool(status, name, |backend| !backend.up)
}

fn in_every_pool(status: &Status, name: &str, holds: impl Fn(&status::BackendStatus) -> bool) -> bool {
    let holds = |pool: &status::PoolStatus| pool.backends.iter().any(|backend| backend.name == name && holds(backend));
    status.pools.iter().all(holds)
}
