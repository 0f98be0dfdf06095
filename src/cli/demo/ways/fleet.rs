//! [`Fleet`]: two balancers with the same backends, and the events that happen to them; with a store, two more that share
//! their stick tables.
//!
//! Users connect to the first balancer of a pair as long as it runs. Counts no logins. Invariant: an event returns only
//! when the status of all balancers shows it.

use std::net::SocketAddr;
use std::sync::Arc;

use super::service;
use super::sessions::SharedSessions;
use super::{WAYS, Way};
use crate::cli::CommandError;
use crate::cli::demo::backends::{self, Application, DemoBackend};
use crate::cli::demo::balancer::{Balancer, Folder};
use crate::cli::demo::configuration;
use crate::cli::demo::stage::{self, FIRST};

/// File name of the keys that seal cookies.
const KEYS: &str = "cookie.keys";
/// File name of the secret under which balancers share their stick tables.
const SECRET: &str = "store.secret";

/// One balancer of a pair.
struct FleetMember {
    /// True if the pair shares its stick tables.
    shares: bool,
    balancer: Balancer,
}

/// Balancers, backends and shared sessions, all running.
pub(super) struct Fleet {
    /// Declared before the backends, so that they are dropped first.
    members: Vec<FleetMember>,
    backends: Vec<DemoBackend>,
    shared: SharedSessions,
    application: Application,
    folder: Folder,
}

impl Fleet {
    /// Starts sessions, backends and both balancers.
    pub(super) async fn start() -> Result<Self, CommandError> {
        let local = |error| CommandError::Internal(format!("demo: {error}"));
        let folder = Folder::new().map_err(local)?;
        for name in [KEYS, SECRET] {
            std::fs::write(folder.file(name), format!("{}\n", backends::random())).map_err(local)?;
        }
        let shared = SharedSessions::start(&folder.file("redis.sock")).await?;
        let sessions = shared.clone();
        let application: Application = Arc::new(move |name| service::application(name, sessions.clone()));
        let start = |name: &&'static str| start(name, &application);
        let backends = FIRST.iter().map(start).collect::<Result<Vec<_>, _>>()?;
        let mut fleet = Self { members: Vec::new(), backends, shared, application, folder };
        let pairs = if fleet.shared.server().is_some() { &[false, true][..] } else { &[false] };
        for shares in pairs.iter().flat_map(|shares| [*shares; 2]) {
            let balancer = Balancer::start(|folder| fleet.text(folder, shares)).await?;
            fleet.members.push(FleetMember { shares, balancer });
        }
        fleet.see("find its backends good", |status| FIRST.iter().all(|name| stage::up(status, name))).await?;
        Ok(fleet)
    }

    /// The ways that can be had: without a store no stick table is shared.
    pub(super) fn ways(&self) -> Vec<Way> {
        WAYS.into_iter().filter(|way| self.members.iter().any(|member| member.shares == way.shares)).collect()
    }

    /// Address of a way's listener at the first balancer.
    pub(super) fn address(&self, way: Way) -> Result<SocketAddr, CommandError> {
        let first = self.members.iter().find(|member| member.shares == way.shares);
        let first = first.ok_or_else(|| CommandError::Internal("no balancer is left".into()))?;
        stage::address(&first.balancer.status()?, way.listener)
    }

    /// Name and version of the store in use; `None`: there is none.
    pub(super) fn store(&self) -> Option<&str> {
        self.shared.server()
    }

    /// Adds a backend to all balancers.
    pub(super) async fn add(&mut self, name: &'static str) -> Result<(), CommandError> {
        self.backends.push(start(name, &self.application)?);
        for FleetMember { shares, balancer } in &self.members {
            balancer.reload(|folder| self.text(folder, *shares))?;
        }
        self.see("find the new backend good", |status| stage::up(status, name)).await
    }

    /// Kills a backend with its sessions.
    pub(super) async fn kill(&mut self, name: &str) -> Result<(), CommandError> {
        self.backends.iter_mut().filter(|backend| backend.name() == name).for_each(DemoBackend::kill);
        self.see("find the dead backend down", |status| stage::down(status, name)).await
    }

    /// Starts a killed backend, without its sessions.
    pub(super) async fn revive(&mut self, name: &str) -> Result<(), CommandError> {
        for backend in self.backends.iter_mut().filter(|backend| backend.name() == name) {
            backend.revive().map_err(|error| stage::failure(name, &error))?;
        }
        self.see("find the backend good again", |status| stage::up(status, name)).await
    }

    /// Stops and starts the first balancer of each pair.
    pub(super) async fn restart(&mut self) -> Result<(), CommandError> {
        for pair in self.members.chunk_by_mut(|one, other| one.shares == other.shares) {
            pair[0].balancer.restart().await?;
        }
        Ok(())
    }

    /// Kills the first balancer of each pair.
    pub(super) fn lose_one(&mut self) {
        for shares in [false, true] {
            let first = self.members.iter().position(|member| member.shares == shares);
            first.map(|first| self.members.remove(first));
        }
    }

    async fn see(&mut self, what: &str, wanted: impl Fn(&crate::metrics::Status) -> bool) -> Result<(), CommandError> {
        for member in &mut self.members {
            member.balancer.wait(what, &wanted).await?;
        }
        Ok(())
    }

    /// Configuration file of a balancer with this folder: the listeners of the ways of its pair.
    fn text(&self, own: &Folder, shares: bool) -> String {
        let path = |path: std::path::PathBuf| toml::Value::from(&*path.to_string_lossy()).to_string();
        let mut text =
            format!("stick_table_file = {}\n", path(own.file("stick-table"))) + &configuration::admin(&own.socket());
        if let Some(socket) = self.shared.socket() {
            let url = toml::Value::from(format!("unix:{}", socket.display()));
            // A long budget, so that a busy machine does not change the result.
            text += &format!("\n[store]\nkind = \"redis\"\nurl = {url}\nbudget = \"1s\"\n");
            if shares {
                let secret = path(self.folder.file(SECRET));
                text += &format!("secret_file = {secret}\nshare = [\"cookies\", \"displaced\"]\n");
            }
        }
        let addresses = stage::addresses(&self.backends);
        for way in WAYS.into_iter().filter(|way| way.shares == shares) {
            let options = way.options.replace("$KEYS", &path(self.folder.file(KEYS)));
            text += &configuration::service(way.listener, &options, &addresses);
        }
        text
    }
}

fn start(name: &'static str, application: &Application) -> Result<DemoBackend, CommandError> {
    DemoBackend::with(name, Arc::clone(application)).map_err(|error| stage::failure(name, &error))
}
