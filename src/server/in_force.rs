//! Puts a configuration in force, at the start and at each reload: [`prepare`] does everything that can fail, and
//! [`Server::put_in_force`] the rest; [`Server::swap`] alone where only backends have come or gone.
//!
//! Reads no file (`files` does). Invariant: until everything that can fail has succeeded, nothing that connections see
//! has changed, so a configuration is in force wholly or not at all.

use std::sync::Arc;

use super::files::ReadConfig;
use super::listen_sockets::{BindPlan, ListenSockets};
use super::made::Made;
use super::{ConfigSource, Server, cookie_key_file, descriptors, fleet_orders, lock_of, table_file};
use crate::access_log::OpenOutput;
use crate::admission::Admission;
use crate::clock;
use crate::config::Problem;
use crate::snapshot::Snapshot;
use crate::sticky::table::Secret;
use crate::store::Access;

/// A snapshot that can be put in force without a failure: its sockets are bound and listen.
pub(super) struct Prepared {
    pub(super) snapshot: Arc<Snapshot>,
    plan: BindPlan,
    access: Option<Access>,
    /// Another output of the access log; `None`: it stays.
    pub(super) log: Option<OpenOutput>,
    /// What goes again if the snapshot is not put in force.
    pub(super) made: Made,
}

/// Binds, builds and listens, in this order. `source`: names the place of a problem. `previous`: the snapshot in force;
/// `None` at the start. `inherited`: the secret of stick tables that another process will give over.
pub(super) fn prepare(
    source: &ConfigSource,
    previous: Option<&Snapshot>,
    read: ReadConfig,
    listen_sockets: &mut ListenSockets,
    admission: &Arc<Admission>,
    workers: usize,
    inherited: Option<Secret>,
) -> Result<Prepared, Vec<String>> {
    let ReadConfig { config, mut loaded, access, .. } = read;
    // Every address is bound before any socket listens: a refused configuration was never visible to a client.
    let with_place = |problems: Vec<Problem>| problems.iter().map(|problem| source.named(problem)).collect::<Vec<_>>();
    let mut plan = listen_sockets.plan(&config).map_err(with_place)?;
    let mut made = Made::default();
    let in_force = previous.map(|snapshot| (&*snapshot.config, &snapshot.rings));
    if let Some(rings) = cookie_key_file::make(&config, in_force, &mut made)? {
        loaded.rings = rings;
    }
    // Only the first snapshot takes the stick-table file. The secret comes first, because the stick tables are made
    // with it, and the entries come before the first connection.
    let mut table_file = config.process.stick_table_file.clone().filter(|_| previous.is_none() && inherited.is_none());
    match table_file.as_deref().map(table_file::secret) {
        Some(Ok(secret)) => loaded.secret = secret,
        Some(Err(unfinished)) => {
            tracing::warn!("stick-table file: {unfinished}; it is not used, and known clients are forgotten");
            table_file = None;
        }
        None => loaded.secret = inherited,
    }
    if previous.is_none()
        && let Some(shared) = access.as_ref().and_then(Access::table_secret)
    {
        // Entries of another secret are refused when they are loaded.
        loaded.secret = Some(shared);
    }
    let snapshot = Arc::new(Snapshot::build(config, loaded, previous, workers, admission));
    if let Some(path) = &table_file {
        table_file::load(path, &snapshot);
    }
    // Listening is the last step that can fail. From here on clients wait in the backlog until a worker accepts them.
    ListenSockets::listen(&mut plan, &snapshot.config).map_err(with_place)?;
    Ok(Prepared { snapshot, plan, access, log: None, made })
}

impl Server {
    /// Puts a prepared snapshot in force, and returns when every worker has adopted it. `previous`: the snapshot that
    /// it follows; `None` at the start.
    pub(super) async fn put_in_force(
        &self,
        previous: Option<&Snapshot>,
        next: Prepared,
        listen_sockets: &mut ListenSockets,
    ) {
        let Prepared { snapshot, plan, access, log, made } = next;
        made.keep();
        // Limits and log format hold for connections of both snapshots; they come before the first client.
        limit(&self.admission, &snapshot, self.workers.len());
        self.put_log_in_force(&snapshot.config.process.log, log);
        // The store comes before the snapshot, and so before any client under its rules: the first one may bring a
        // cookie that only the store has.
        self.store.adopt(access.map(Arc::new)).await;
        if previous.is_none() {
            // What drains at the other instances drains here before the first client.
            self.apply_fleet_drains().await;
        }
        self.swap(previous, &snapshot, plan, listen_sockets).await;
        let mut reloads = lock_of(&self.reloads);
        reloads.accepted += u64::from(previous.is_some());
        (reloads.last_accepted, reloads.last_unix_s) = (true, clock::unix_s());
        reloads.problems.clear();
    }

    /// Has every connection from here on go by this snapshot, and returns when every worker has adopted it.
    pub(super) async fn swap(
        &self,
        previous: Option<&Snapshot>,
        snapshot: &Arc<Snapshot>,
        plan: BindPlan,
        listen_sockets: &mut ListenSockets,
    ) {
        if previous.is_some() {
            self.store.fleet().foretell(snapshot, clock::now_ms()).await;
        }
        // Decisions from here on are made by the new snapshot. At the start it is there already: threads begin with it.
        let replaced = self.current.swap(Arc::clone(snapshot));
        // Workers accept and route by the new listeners only after the swap, so that none runs ahead of the snapshot.
        let adoptions = listen_sockets.commit(plan, snapshot);
        self.workers.adopt(adoptions).await;
        self.runtimes.note_reload();
        // Checks and addresses follow what workers use now.
        lock_of(&self.probes).adopt(&snapshot.pools, &snapshot.tls);
        self.note_addresses(listen_sockets, snapshot);
        snapshot.orders.follow(|order| fleet_orders::is_here(order, snapshot));
        // Entries that old pools wrote until the last worker had adopted the snapshot are taken over last.
        for pool in previous.iter().flat_map(|previous| previous.pools.iter()) {
            if let Some(successor) = snapshot.pool(pool.name()) {
                successor.take_over(pool, clock::now_ms());
            }
        }
        drop(replaced);
    }

    /// Notes where each listener is bound, with the ports that the kernel chose.
    fn note_addresses(&self, listen_sockets: &ListenSockets, snapshot: &Snapshot) {
        let names = snapshot.listeners.iter().map(|listener| listener.config.name.clone());
        *lock_of(&self.bound) = names.map(|name| (name.clone(), listen_sockets.addresses(&name))).collect();
    }
}

/// Sets the limits of the process and of each listener.
pub(super) fn limit(admission: &Admission, snapshot: &Snapshot, workers: usize) {
    let limits = &snapshot.config.limits;
    let most = descriptors::connections_max(snapshot, workers);
    admission.limit(
        limits.max_connections.map_or(most, |configured| configured.min(most)),
        limits.max_connections_per_source,
        limits.connection_rate_per_source,
    );
    admission.hello_memory.limit(limits.hello_memory);
    for listener in &snapshot.listeners {
        listener.state.limit(listener.config.max_connections);
    }
}
