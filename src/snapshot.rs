//! Everything configured that a connection reads: a [`Snapshot`], in force by one atomic pointer, [`Current`].
//!
//! Beside what a pool keeps for picks without a key the only `ArcSwap` of the product. Reads no file and opens no socket. Invariant: a decision is made from one
//! snapshot, loaded once; a connection keeps its backend and copies of limits, never a snapshot, so an old snapshot is
//! dropped as soon as the last decision by it is made.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use ahash::AHashMap;
use arc_swap::ArcSwap;
use xxhash_rust::xxh3::Xxh3;

use crate::admission::{Admission, ListenerState};
use crate::answers::{Answers, Texts};
use crate::config::{self, Config, Fallback, KeyPart, RequestLimits};
use crate::limits::{Limits, millis};
use crate::pool::{Backend, OrderBook, Outbox, Pool};
use crate::route::{RouteFacts, RouteTable};
use crate::split::{ChosenBy, ListenerSplits, Split, SplitChoice};
use crate::sticky::table::Secret;
use crate::sticky::{ClientMemory, Facts};
use crate::tls::Termination;

mod pools;
mod rings;

pub use self::rings::Rings;

use self::pools::SharedParts;

/// Indexes of pools by their names.
type PoolIndexes = AHashMap<Arc<str>, usize>;

/// One generation of everything configured.
#[derive(Debug)]
pub struct Snapshot {
    /// Number of configurations that this process has accepted; the first is 1.
    pub generation: u64,
    /// Digest of all placements (methods, names, weights, locations, seeds): equal digests place alike.
    pub digest: u64,
    /// The configuration that the snapshot was built from.
    pub config: Arc<Config>,
    /// Listeners, in the order of the file.
    pub listeners: Vec<Arc<Listener>>,
    /// Pools, in the order of the file.
    pub pools: Arc<[Arc<Pool>]>,
    /// Splits, in the order of the file.
    pub splits: Box<[Arc<Split>]>,
    /// Indexes in `pools`, by name.
    indexes: PoolIndexes,
    /// Certificates and session tickets of listeners, and the TLS of connections to backends.
    pub tls: Arc<Termination>,
    /// The keys of cookies, by file.
    pub rings: Rings,
    /// The contents of answers and of pages for errors, by file.
    pub texts: Texts,
    /// The secret by which stick tables hash keys; the same for the life of the process.
    pub secret: Secret,
    /// Entries of stick tables that other instances have to hear of; the same for the life of the process.
    pub outbox: Outbox,
    /// Orders about backends that all instances of the fleet follow; the same for the life of the process.
    pub orders: OrderBook,
    /// Pools that share a stick table, table by table.
    stick_tables: Vec<Vec<Arc<Pool>>>,
    _alive: Alive,
}

/// A listener with the names of its pools resolved.
///
/// Aligned, so that what all workers read shares no cache line with the count of references, which every connection
/// writes.
#[derive(Debug)]
#[repr(align(128))]
pub struct Listener {
    /// The listener as configured.
    pub config: config::Listener,
    /// The routes of the listener; they return indexes into `pools`.
    pub routes: RouteTable,
    /// The splits that its routes and its default lead to.
    pub splits: ListenerSplits,
    /// What the listener answers without a backend.
    pub answers: Answers,
    /// Every pool of the snapshot.
    pub pools: Arc<[Arc<Pool>]>,
    /// The TLS settings of the snapshot.
    pub tls: Arc<Termination>,
    /// Index of the pool for connections that do not begin with TLS; `None`: they are refused.
    pub not_tls: Option<usize>,
    /// Index of the pool for connections that send nothing in time; `None`: they are refused.
    pub silent: Option<usize>,
    /// True if a route or a pool cannot decide without the ClientHello.
    pub needs_hello: bool,
    /// True if requests can come to it: a pool that it names has `http = true`, or a route looks at them.
    pub serves_http: bool,
    /// Time from accept until the ClientHello must be read, in milliseconds.
    pub hello_ms: u32,
    /// Kinds of PROXY TLVs that are part of a pool's key, sorted.
    pub tlv_kinds: Box<[u8]>,
    /// Longest ClientHello that is read, in bytes.
    pub hello_max: usize,
    /// Deadlines and limits that every connection copies.
    pub limits: Limits,
    /// Limits of requests, where a pool has none of its own.
    pub request_limits: RequestLimits,
    /// Counters and open connections, which survive reloads.
    pub state: Arc<ListenerState>,
}

/// The contents of the files that a configuration names.
#[derive(Debug, Default)]
pub struct LoadedFiles {
    /// Certificates, ticket keys and authorities of TLS.
    pub tls: Arc<Termination>,
    /// The keys that seal cookies.
    pub rings: Rings,
    /// The contents of answers and of pages for errors.
    pub texts: Texts,
    /// The secret of the stick-table file, so that its entries are found. `None`: the secret of the previous snapshot,
    /// or a new random one.
    pub secret: Option<Secret>,
}

impl LoadedFiles {
    /// What a snapshot was built from, for its successor with the same files.
    pub fn of(snapshot: &Snapshot) -> Self {
        let Snapshot { tls, rings, texts, .. } = snapshot;
        Self { tls: Arc::clone(tls), rings: rings.clone(), texts: texts.clone(), secret: None }
    }
}

/// Where a route sends a connection or a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteTarget {
    /// Index of the pool in `pools` of the listener; `None`: each request has a route of its own, or a split chooses
    /// one, or the route answers.
    pub pool: Option<usize>,
    /// Index of the route in the configuration of the listener; `None`: no route matched, and the default is used.
    pub route: Option<usize>,
    /// Whether TLS is passed through, terminated or off.
    pub tls: config::Tls,
    /// What has chosen the pool in the split of connections that the route leads to; `None`: it leads to none.
    pub split_by: Option<ChosenBy>,
}

/// A new random secret; all zeros if the kernel returns no random bytes.
fn random_secret() -> Secret {
    let mut bytes = [0; 16];
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    Secret::new(bytes)
}

impl Snapshot {
    /// Builds the successor of `previous`; `None` at the start. Backends, with their health and leases, and counters of
    /// listeners carry over by name; pools that would be the same go on. Workers count in the blocks `0..workers`, their
    /// runtimes in `workers..2 * workers`.
    pub fn build(
        config: Config,
        loaded: LoadedFiles,
        previous: Option<&Snapshot>,
        workers: usize,
        admission: &Arc<Admission>,
    ) -> Self {
        let LoadedFiles { tls, rings, texts, secret } = loaded;
        let blocks = 2 * workers;
        let config = Arc::new(config);
        let secret = secret.or_else(|| previous.map(|snapshot| snapshot.secret.clone())).unwrap_or_else(random_secret);
        let outbox = previous.map(|snapshot| snapshot.outbox.clone()).unwrap_or_default();
        let orders = previous.map(|snapshot| snapshot.orders.clone()).unwrap_or_default();
        let shared = SharedParts { rings: &rings, secret: &secret, outbox: &outbox, blocks };
        let pools = pools::build(&config, &shared, previous);
        let indexes: PoolIndexes =
            pools.iter().enumerate().map(|(index, pool)| (Arc::clone(pool.shared_name()), index)).collect();
        // A checked configuration names only pools that exist.
        let index = |name: &str| indexes.get(name).copied().unwrap_or(0);
        let splits = rings.splits(&config, index, previous.map_or(&[][..], |snapshot| &snapshot.splits[..]), blocks);
        let listeners = config.listeners.iter().map(|listener| {
            let state = previous.and_then(|snapshot| snapshot.listener(&listener.name)).map_or_else(
                || Arc::new(ListenerState::new(&listener.name, blocks, admission)),
                |old| old.state.clone(),
            );
            Arc::new(Listener::new((listener, &*config), (&pools, &indexes), &splits, (&tls, &texts), state))
        });
        Self {
            generation: previous.map_or(1, |snapshot| snapshot.generation + 1),
            digest: digest(&pools),
            stick_tables: by_stick_table(&pools),
            listeners: listeners.collect(),
            splits,
            indexes,
            pools: Arc::clone(&pools),
            config,
            tls: Arc::clone(&tls),
            rings,
            texts,
            secret,
            outbox,
            orders,
            _alive: previous.map_or_else(Alive::first, |snapshot| snapshot._alive.next()),
        }
    }

    /// The listener of this name; `None`: the snapshot has no such listener.
    pub fn listener(&self, name: &str) -> Option<&Arc<Listener>> {
        self.listeners.iter().find(|listener| listener.config.name == name)
    }

    /// The listener that has this state; `None`: it was removed.
    pub fn listener_of(&self, state: &Arc<ListenerState>) -> Option<&Arc<Listener>> {
        self.listeners.iter().find(|listener| Arc::ptr_eq(&listener.state, state))
    }

    /// The pool that this backend belongs to, or belonged to before it was removed.
    pub fn pool_of(&self, backend: &Backend) -> Option<&Arc<Pool>> {
        self.pool(backend.pool_name()).filter(|pool| pool.is_of(backend))
    }

    /// Every stick table once: its name, and the pools that share it.
    pub fn stick_tables(&self) -> impl ExactSizeIterator<Item = (&str, &[Arc<Pool>])> {
        self.stick_tables.iter().map(|pools| (&**pools[0].sticks_as(), &pools[..]))
    }

    /// The pool of this name; `None`: the snapshot has no such pool.
    pub fn pool(&self, name: &str) -> Option<&Arc<Pool>> {
        self.pools.get(*self.indexes.get(name)?)
    }
}

impl Listener {
    fn new(
        (listener, config): (&config::Listener, &Config),
        (pools, indexes): (&Arc<[Arc<Pool>]>, &PoolIndexes),
        splits: &[Arc<Split>],
        (tls, texts): (&Arc<Termination>, &Texts),
        state: Arc<ListenerState>,
    ) -> Self {
        let request_limits = listener.request_limits.over(&config.limits.requests);
        let limits = config.limits.nearer(&listener.limits);
        // A checked configuration names only pools that exist.
        let index = |name: &str| indexes.get(name).copied().unwrap_or(0);
        let fallback = |fallback: &Fallback| match fallback {
            Fallback::Refuse => None,
            Fallback::Pool(name) => Some(index(name)),
        };
        let routes = RouteTable::of(listener, index).knowing(listener, tls.names(&listener.name));
        let named = listener.pools(&config.splits);
        let own = ListenerSplits::new(listener, splits);
        let reads_tls = listener.tls != config::Tls::Off;
        let (not_tls, silent) = (fallback(&listener.not_tls), fallback(&listener.silent));
        let mut reached = named.clone().map(index).chain(not_tls).chain(silent);
        Self {
            not_tls,
            silent,
            serves_http: listener.routes_requests() || reached.any(|pool| pools[pool].config().http.is_read()),
            needs_hello: reads_tls
                && (routes.needs_hello()
                    || listener.terminates()
                    || named.into_iter().any(|name| pools[index(name)].needs_sni())
                    || own.key_parts().any(|part| part.may_be(&KeyPart::Sni))),
            routes,
            tlv_kinds: tlv_kinds(pools, own.key_parts(), &request_limits),
            splits: own,
            answers: Answers::new(listener, texts),
            pools: Arc::clone(pools),
            tls: Arc::clone(tls),
            hello_ms: millis(limits.hello_timeout),
            hello_max: limits.hello_max,
            limits: Limits::new(&limits),
            request_limits,
            state,
            config: listener.clone(),
        }
    }
}

/// The kinds of TLVs in the keys of pools and of their requests, and in those of splits, sorted.
fn tlv_kinds<'k>(
    pools: &'k [Arc<Pool>],
    of_splits: impl Iterator<Item = &'k KeyPart>,
    of_listener: &'k RequestLimits,
) -> Box<[u8]> {
    let own = pools.iter().map(|pool| &pool.config().request_limits).chain([of_listener]);
    let of_requests = own.filter_map(|limits| Some(&limits.request_rate.as_ref()?.as_ref()?.by));
    let parts = pools.iter().flat_map(|pool| &pool.config().key).chain(of_requests).chain(of_splits);
    let parts = parts.flat_map(KeyPart::alternatives);
    let kind = |part: &KeyPart| if let KeyPart::Tlv(kind) = part { Some(*kind) } else { None };
    let mut kinds: Vec<_> = parts.filter_map(kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds.into()
}

impl Listener {
    /// Where the routes send a connection; `None`: no route matches, and there is no default pool, or not for its name.
    pub fn route(&self, facts: &RouteFacts<'_>) -> Option<RouteTarget> {
        let found = self.routes.find_route(facts)?;
        let tls = self.config.rules_of(found.route).tls;
        Some(RouteTarget { pool: found.pool, route: found.route, tls, split_by: None })
    }

    /// Gives a target that leads to a split of connections the pool of this client; `number` is that of its connection.
    pub fn divide(&self, target: RouteTarget, facts: &Facts<'_>, number: u64, now_ms: u64) -> RouteTarget {
        let Some(split) = self.split(&target).filter(|split| !split.is_of_requests()) else { return target };
        let memory =
            |pool: usize| self.pools.get(pool).map_or(ClientMemory::None, |pool| pool.memory_of(facts, now_ms));
        let takes_new = |pool: usize| self.pools.get(pool).is_some_and(|pool| pool.takes_new(now_ms));
        let choice = split.choose_by_key(facts, number, memory, takes_new);
        let pool = split.members().get(choice.member).map(|member| member.pool);
        RouteTarget { pool, split_by: Some(choice.by), ..target }
    }

    /// The split of connections that has chosen the pool of a target, and its choice; `None`: none has.
    pub fn divided(&self, target: &RouteTarget) -> Option<(&Arc<Split>, SplitChoice)> {
        let (split, by) = self.splits.of(target.route).zip(target.split_by)?;
        let member = split.members().iter().position(|member| Some(member.pool) == target.pool)?;
        Some((split, SplitChoice { member, by }))
    }

    /// The split of a target that has no pool yet; `None`: it leads to no split.
    pub fn split(&self, target: &RouteTarget) -> Option<&Arc<Split>> {
        self.splits.of(target.route).filter(|_| target.pool.is_none())
    }

    /// The pool of a target; `None`: it has none.
    pub fn pool(&self, target: &RouteTarget) -> Option<&Arc<Pool>> {
        self.pools.get(target.pool?)
    }

    /// True if requests are read from connections with this target.
    pub fn reads_http(&self, target: &RouteTarget) -> bool {
        match self.pool(target) {
            Some(pool) => pool.config().http.is_read(),
            None => self.splits.of(target.route).is_none_or(|split| split.is_of_requests()),
        }
    }
}

/// The snapshot in force; the lock is held while backends get orders, and while another one takes them over.
#[derive(Debug)]
pub struct Current(ArcSwap<Snapshot>, Mutex<()>);

impl Current {
    /// Puts the first snapshot of the process in force.
    pub fn new(snapshot: impl Into<Arc<Snapshot>>) -> Self {
        Self(ArcSwap::new(snapshot.into()), Mutex::default())
    }

    /// The snapshot for one decision, without a reference count.
    pub fn load(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.0.load()
    }

    /// The snapshot for longer than one decision; for the control thread.
    pub fn load_full(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    /// Gives orders to backends in force; the next snapshot has them, even if it is built already.
    pub fn order<T>(&self, order: impl FnOnce(&Snapshot) -> T) -> T {
        let _no_swap = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        order(&self.load_full())
    }

    /// Puts another snapshot in force and returns the old one, to be dropped where time does not matter.
    pub fn swap(&self, snapshot: Arc<Snapshot>) -> Arc<Snapshot> {
        let pools = Arc::clone(&snapshot.pools);
        let no_orders = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.load_full();
        let goes_on = |pool: &&Arc<Pool>| before.pool(pool.name()).is_some_and(|before| Arc::ptr_eq(before, pool));
        let others: Vec<_> = pools.iter().filter(|pool| !goes_on(pool)).collect();
        others.iter().for_each(|pool| pool.take_over_orders(before.pool(pool.name())));
        let replaced = self.0.swap(snapshot);
        drop(no_orders);
        others.iter().for_each(|pool| pool.put_in_force());
        replaced
    }

    /// Snapshots that are not dropped yet: 1, or 2 during a reload.
    pub fn generations_alive(&self) -> usize {
        self.0.load()._alive.0.load(Relaxed)
    }
}

/// Counts the snapshots of one process that are not dropped yet.
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

/// Pools with a stick table, those that share one together, in the order of the file.
fn by_stick_table(pools: &[Arc<Pool>]) -> Vec<Vec<Arc<Pool>>> {
    let mut tables: Vec<Vec<Arc<Pool>>> = Vec::new();
    let mut places: AHashMap<&str, usize> = AHashMap::default();
    for pool in pools.iter().filter(|pool| pool.table().is_some()) {
        let place = *places.entry(pool.sticks_as()).or_insert(tables.len());
        if place == tables.len() {
            tables.push(Vec::with_capacity(1));
        }
        tables[place].push(Arc::clone(pool));
    }
    tables
}

/// The digest of all pools; their order does not matter.
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

#[cfg(test)]
mod tests {
    use super::*;

    impl Snapshot {
        /// The first snapshot of a configuration that names no files, for the tests of all modules.
        pub fn of_text(text: &str) -> Self {
            let checked = config::check(text, &|_| Err(std::io::ErrorKind::NotFound.into()));
            let config = checked.unwrap_or_else(|problems| panic!("{problems:?}")).config;
            Self::build(config, LoadedFiles::default(), None, 1, &Arc::new(Admission::new(9)))
        }
    }

    #[test]
    fn what_all_workers_read_of_a_listener_stands_apart_from_its_count_of_references() {
        let text = "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\npool = \"p\"\n\
                    [[pool]]\nname = \"p\"\nbackend = [{ name = \"b\", address = \"127.0.0.1:2\" }]\n";
        let snapshot = Snapshot::of_text(text);
        // The count stands in front of the value, in as many bytes as the value is aligned to.
        assert_eq!(Arc::as_ptr(&snapshot.listeners[0]).addr() % 128, 0);
        assert_eq!(Arc::as_ptr(&snapshot.pools[0]).addr() % 128, 0);
        assert_eq!((align_of::<Listener>(), align_of::<Pool>()), (128, 128));
    }
}
