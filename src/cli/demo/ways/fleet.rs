//! [`Fleet`]: two balancers with the same backends, and the events that happen to them.
//!
//! Users connect to the first balancer as long as it runs. Counts no logins. Invariant: an event returns only when the
//! status of both balancers shows it.

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

/// Balancers, backends and shared sessions, all running.
pub(super) struct Fleet {
    /// Declared before the backends, so that they are dropped first.
    balancers: Vec<Balancer>,
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
        std::fs::write(folder.file(KEYS), format!("{}\n", backends::random())).map_err(local)?;
        let shared = SharedSessions::start(&folder.file("redis.sock")).await?;
        let sessions = shared.clone();
        let application: Application = Arc::new(move |name| service::application(name, sessions.clone()));
        let start = |name: &&'static str| start(name, &application);
        let backends = FIRST.iter().map(start).collect::<Result<Vec<_>, _>>()?;
        let mut fleet = Self { balancers: Vec::new(), backends, shared, application, folder };
        for _ in 0..2 {
            let balancer = Balancer::start(|folder| fleet.text(folder)).await?;
            fleet.balancers.push(balancer);
        }
        fleet.see("find its backends good", |status| FIRST.iter().all(|name| stage::up(status, name))).await?;
        Ok(fleet)
    }

    /// Address of a way's listener at the first balancer.
    pub(super) fn address(&self, way: Way) -> Result<SocketAddr, CommandError> {
        let first = self.balancers.first().ok_or_else(|| CommandError::Internal("no balancer is left".into()))?;
        stage::address(&first.status()?, way.listener)
    }

    /// Version of the Redis in use; `None`: there is none.
    pub(super) fn redis(&self) -> Option<&str> {
        self.shared.redis()
    }

    /// Adds a backend to both balancers.
    pub(super) async fn add(&mut self, name: &'static str) -> Result<(), CommandError> {
        self.backends.push(start(name, &self.application)?);
        for balancer in &self.balancers {
            balancer.reload(|folder| self.text(folder))?;
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

    /// Stops and starts the first balancer.
    pub(super) async fn restart(&mut self) -> Result<(), CommandError> {
        if let Some(first) = self.balancers.first_mut() {
            first.restart().await?;
        }
        Ok(())
    }

    /// Kills the first balancer.
    pub(super) fn lose_one(&mut self) {
        self.balancers.remove(0);
    }

    async fn see(&mut self, what: &str, wanted: impl Fn(&crate::metrics::Status) -> bool) -> Result<(), CommandError> {
        for balancer in &mut self.balancers {
            balancer.wait(what, &wanted).await?;
        }
        Ok(())
    }

    /// Configuration file of a balancer with this folder.
    fn text(&self, own: &Folder) -> String {
        let path = |path: std::path::PathBuf| toml::Value::from(&*path.to_string_lossy()).to_string();
        let mut text =
            format!("stick_table_file = {}\n", path(own.file("stick-table"))) + &configuration::admin(&own.socket());
        if let Some(socket) = self.shared.socket() {
            let url = toml::Value::from(format!("unix:{}", socket.display()));
            // A long budget, so that a busy machine does not change the result.
            text += &format!("\n[store]\nkind = \"redis\"\nurl = {url}\nbudget = \"1s\"\n");
        }
        let addresses = stage::addresses(&self.backends);
        for way in WAYS {
            let options = way.options.replace("$KEYS", &path(self.folder.file(KEYS)));
            text += &configuration::service(way.listener, &options, &addresses);
        }
        text
    }
}

fn start(name: &'static str, application: &Application) -> Result<DemoBackend, CommandError> {
    DemoBackend::with(name, Arc::clone(application)).map_err(|error| stage::failure(name, &error))
}
