//! Everything configured that a connection reads, behind one atomic pointer.
//!
//! The only `ArcSwap` of the product. Opens no socket. Invariant: a decision is made from one snapshot, loaded once;
//! a flow keeps its backend and copied limits, never a snapshot, so an old one dies as soon as nobody decides by it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use arc_swap::ArcSwap;
use xxhash_rust::xxh3::Xxh3;

use crate::admission::{Admission, ListenerState};
use crate::clock;
use crate::config::{self, Config, Fallback};
use crate::limits::{Limits, millis};
use crate::pool::{Backend, Pool, StickTables};
use crate::route::{RouteFacts, RouteTable};
use crate::sticky::cookie::{CookieRule, KeyRing};
use crate::sticky::table::Secret;
use crate::tls::Termination;

/// One generation of everything configured.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts accepted files of this process; the first is 1.
    pub generation: u64,
    /// Equal digests place alike: pools with their method, names, weights, locations and seed.
    pub digest: u64,
    /// The configuration it was built from.
    pub config: Arc<Config>,
    /// Listeners, as written.
    pub listeners: Vec<Arc<Listener>>,
    /// Pools, as written.
    pub pools: Arc<[Arc<Pool>]>,
    /// Certificates, tickets, and how backends are spoken to.
    pub tls: Arc<Termination>,
    /// Of all memories.
    pub secret: Secret,
    _alive: Alive,
}

/// A listener with its rules resolved.
#[derive(Debug)]
pub struct Listener {
    /// What the file says.
    pub config: config::Listener,
    /// Its routes; they answer with indexes into `pools`.
    pub routes: RouteTable,
    /// Every pool of the same snapshot.
    pub pools: Arc<[Arc<Pool>]>,
    /// The TLS of the same snapshot.
    pub tls: Arc<Termination>,
    /// Where bytes go that are certainly not TLS.
    pub not_tls: Option<usize>,
    /// Where connections go that stay silent.
    pub silent: Option<usize>,
    /// A rule needs the ClientHello.
    pub needs_hello: bool,
    /// From accept until the hello is read.
    pub hello_ms: u32,
    /// Limits, copied by every connection.
    pub limits: Limits,
    /// What survives reloads.
    pub state: Arc<ListenerState>,
}

/// What the files say that a configuration names.
#[derive(Debug, Default)]
pub struct LoadedFiles {
    /// Certificates, ticket keys, authorities.
    pub tls: Termination,
    /// Keys of cookies.
    pub rings: Rings,
    /// Makes what memories know of a key unforeseeable, where a stick-table file brings it; that of the process before, or a
    /// new one, where not.
    pub secret: Option<Secret>,
}

impl LoadedFiles {
    /// Reads them all: everything that is wrong, or everything that is needed.
    pub fn read(config: &Config, previous: Option<&Snapshot>) -> Result<Self, Vec<String>> {
        let tls = Termination::load(config, previous.map(|snapshot| &*snapshot.tls));
        let rings = Rings::load(config);
        match (tls, rings) {
            (Ok(tls), Ok(rings)) => Ok(Self { tls, rings, secret: None }),
            (tls, rings) => Err([tls.err(), rings.err()].into_iter().flatten().flatten().collect()),
        }
    }
}

/// The keys that seal cookies, by file.
#[derive(Debug, Default)]
pub struct Rings(Vec<(PathBuf, Arc<KeyRing>)>);

impl Rings {
    /// Reads the files that the pools name.
    pub fn load(config: &Config) -> Result<Self, Vec<String>> {
        let (mut rings, mut problems) = (Self::default(), Vec::new());
        for pool in &config.pools {
            let Some(config::CookieMode::Insert(insert)) = pool.cookie.as_ref().map(|cookie| &cookie.mode) else {
                continue;
            };
            if rings.of(&insert.keys).is_some() {
                continue;
            }
            let about = |what: String| format!("pool \"{}\": cookie: {}: {what}", pool.name, insert.keys.display());
            match std::fs::read_to_string(&insert.keys).map_err(|error| vec![about(error.to_string())]) {
                Err(unreadable) => problems.extend(unreadable),
                Ok(text) => match KeyRing::parse(&text) {
                    Ok(ring) => rings.0.push((insert.keys.clone(), Arc::new(ring))),
                    Err(wrong) => problems.extend(wrong.iter().map(|problem| about(problem.to_string()))),
                },
            }
        }
        if problems.is_empty() { Ok(rings) } else { Err(problems) }
    }

    fn of(&self, path: &Path) -> Option<&Arc<KeyRing>> {
        self.0.iter().find(|(known, _)| known == path).map(|(_, ring)| ring)
    }

    /// A pool's cookie. Only a configuration whose files were not read lacks a ring.
    pub fn rule(&self, pool: &config::Pool) -> Option<CookieRule> {
        let cookie = pool.cookie.as_ref()?;
        let names = pool.backends.iter().map(|backend| backend.name.as_str());
        let ring = |path: &Path| self.of(path).cloned().ok_or(());
        CookieRule::new(cookie, pool.sticks_as(), names, ring).ok()
    }
}

/// Where a connection belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteTarget {
    /// Index of the pool in the listener's `pools`.
    pub pool: usize,
    /// Index of the route in the listener's configuration; `None` = none of them.
    pub route: Option<usize>,
    /// What is done about TLS.
    pub tls: config::Tls,
}

/// A secret that nobody has had before; all zeros where the kernel has no random bytes to give.
fn draw() -> Secret {
    let mut bytes = [0; 16];
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    Secret::new(bytes)
}

impl Snapshot {
    /// Builds the successor of `previous`: living backends and listeners' counters carry over by name. `loaded` is what
    /// the files say that this configuration names. Each worker counts for itself, and so does the thread beside it
    /// that holds its conversations: seats `0..workers` and `workers..2 * workers`.
    pub fn build(
        config: Config,
        loaded: LoadedFiles,
        previous: Option<&Snapshot>,
        workers: usize,
        admission: &Arc<Admission>,
    ) -> Self {
        let LoadedFiles { tls, rings, secret } = loaded;
        let seats = 2 * workers;
        let tls = Arc::new(tls);
        let config = Arc::new(config);
        let now_ms = clock::now() / 1_000;
        let secret = secret.or_else(|| previous.map(|snapshot| snapshot.secret.clone())).unwrap_or_else(draw);
        let before = previous.map_or(&[][..], |snapshot| &snapshot.pools);
        let mut stick_tables = StickTables::new(before.iter().map(|pool| &**pool), &secret, now_ms);
        let pools: Arc<[Arc<Pool>]> = config
            .pools
            .iter()
            .map(|pool| {
                let old = before.iter().find(|old| old.name() == pool.name).map(|old| &**old);
                Arc::new(stick_tables.give(Pool::new(pool, old, seats).with_cookie(rings.rule(pool))))
            })
            .collect();
        let limits = (Limits::new(&config.limits), millis(config.limits.hello_timeout));
        let listeners = config.listeners.iter().map(|listener| {
            let state = previous.and_then(|snapshot| snapshot.listener(&listener.name)).map_or_else(
                || Arc::new(ListenerState::new(&listener.name, seats, admission)),
                |old| old.state.clone(),
            );
            Arc::new(Listener::new(listener, &pools, &tls, limits, state))
        });
        Self {
            generation: previous.map_or(1, |snapshot| snapshot.generation + 1),
            digest: digest(&pools),
            listeners: listeners.collect(),
            pools: Arc::clone(&pools),
            config,
            tls: Arc::clone(&tls),
            secret,
            _alive: previous.map_or_else(Alive::first, |snapshot| snapshot._alive.next()),
        }
    }

    /// The listener of this name.
    pub fn listener(&self, name: &str) -> Option<&Arc<Listener>> {
        self.listeners.iter().find(|listener| listener.config.name == name)
    }

    /// The listener that has this state.
    pub fn listener_of(&self, state: &Arc<ListenerState>) -> Option<&Arc<Listener>> {
        self.listeners.iter().find(|listener| Arc::ptr_eq(&listener.state, state))
    }

    /// The pool that this backend belongs to, or did when it was removed.
    pub fn pool_of(&self, backend: &Backend) -> Option<&Arc<Pool>> {
        self.pools.iter().find(|pool| pool.is_of(backend))
    }

    /// Each stick table once: its name, and the pools that share it.
    pub fn stick_tables(&self) -> Vec<(&str, Vec<&Arc<Pool>>)> {
        let mut stick_tables: Vec<(&str, Vec<_>)> = Vec::new();
        for pool in self.pools.iter().filter(|pool| pool.table().is_some()) {
            let name: &str = pool.sticks_as();
            match stick_tables.iter_mut().find(|(known, _)| *known == name) {
                Some((_, pools)) => pools.push(pool),
                None => stick_tables.push((name, vec![pool])),
            }
        }
        stick_tables
    }

    /// The pool of this name.
    pub fn pool(&self, name: &str) -> Option<&Arc<Pool>> {
        self.pools.iter().find(|pool| pool.name() == name)
    }
}

impl Listener {
    fn new(
        listener: &config::Listener,
        pools: &Arc<[Arc<Pool>]>,
        tls: &Arc<Termination>,
        (limits, hello_ms): (Limits, u32),
        state: Arc<ListenerState>,
    ) -> Self {
        // A checked configuration names only pools that exist.
        let index = |name: &str| pools.iter().position(|pool| pool.name() == name).unwrap_or(0);
        let fallback = |fallback: &Fallback| match fallback {
            Fallback::Refuse => None,
            Fallback::Pool(name) => Some(index(name)),
        };
        let routes = RouteTable::new(&listener.routes, listener.pool.as_deref(), index);
        let named = listener.routes.iter().map(|route| route.pool.as_str()).chain(listener.pool.as_deref());
        let reads_tls = listener.tls != config::Tls::Off;
        Self {
            not_tls: fallback(&listener.not_tls),
            silent: fallback(&listener.silent),
            needs_hello: reads_tls
                && (routes.needs_hello()
                    || listener.terminates()
                    || named.into_iter().any(|name| pools[index(name)].needs_sni())),
            routes,
            pools: Arc::clone(pools),
            tls: Arc::clone(tls),
            hello_ms,
            limits,
            state,
            config: listener.clone(),
        }
    }
}

impl Listener {
    /// Where its routes send a connection; `None` = nowhere.
    pub fn route(&self, facts: &RouteFacts<'_>) -> Option<RouteTarget> {
        let found = self.routes.find_route(facts)?;
        let tls =
            found.route.and_then(|route| self.config.routes.get(route)).map_or(self.config.tls, |route| route.tls);
        Some(RouteTarget { pool: found.pool, route: found.route, tls })
    }
}

/// The snapshot in force.
#[derive(Debug)]
pub struct Current(ArcSwap<Snapshot>);

impl Current {
    /// Puts the first one in force.
    pub fn new(snapshot: Snapshot) -> Self {
        Self(ArcSwap::from_pointee(snapshot))
    }

    /// For one decision.
    pub fn load(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.0.load()
    }

    /// For longer, on the control side.
    pub fn load_full(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    /// Puts another one in force and hands back the old one, to be dropped where time does not matter.
    pub fn swap(&self, snapshot: Arc<Snapshot>) -> Arc<Snapshot> {
        self.0.swap(snapshot)
    }

    /// How many generations are still in stick table.
    pub fn generations_alive(&self) -> usize {
        self.0.load()._alive.0.load(Relaxed)
    }
}

/// Counts the snapshots of one process that are in stick table.
#[derive(Debug)]
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn first() -> Self {
        Self(Arc::new(AtomicUsize::new(1)))
    }

    fn next(&self) -> Self {
        self.0.fetch_add(1, Relaxed);
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Of all pools, whatever their order.
fn digest(pools: &[Arc<Pool>]) -> u64 {
    let mut parts: Vec<_> = pools.iter().map(|pool| (pool.name(), pool.digest())).collect();
    parts.sort_unstable();
    let mut hash = Xxh3::new();
    for (name, digest) in parts {
        hash.update(&(name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        hash.update(&digest.to_le_bytes());
    }
    hash.digest()
}
