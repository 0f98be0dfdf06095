//! Pools of backends: their data, names and health, and which backend a connection goes to.
//!
//! [`Pool`] holds the data; [`pick`] chooses, [`table`] remembers, [`health`] judges. Connects nothing and reads no
//! clock. Invariant: building a pool for a reload that is then refused changes nothing in the backends that it shares
//! with the pool in force.

mod absence;
mod agent;
pub mod backend;
mod candidates;
mod concurrent;
mod counted;
pub mod drain;
pub mod early_closes;
pub mod explain;
mod figures;
pub mod health;
mod known;
mod lease;
mod line;
mod load;
mod nearest;
mod order_book;
pub mod pick;
mod placement_key;
pub mod queue;
mod ready;
pub mod request_cookie;
pub mod request_key;
mod resume;
pub mod scene;
mod shared;
mod since;
pub mod table;
mod told;

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use ahash::{AHashMap, AHashSet};

pub use self::backend::{Backend, Health};
pub use self::drain::{AdminState, DrainTimes};
pub use self::known::KnownClient;
pub use self::lease::Lease;
pub use self::order_book::{
    BookedOrder, DueOrder, OrderBook, OrderKey, OrderMatter, OrderOutcome, OrderStamp, TakenOrder, ToldOrder,
};
pub use self::pick::Pick;
pub use self::queue::{AwaitedPlace, QueueVisit};
pub use self::resume::CheckResults;
pub use self::scene::{Holds, PickScene};
pub use self::shared::Received;
pub use self::table::{HotKey, PoolTable, Remember, StickTables};
pub use self::told::{Outbox, Told};

use self::backend::{PoolShared, lock};
use self::health::{CheckState, EjectionPeer, FailedConnection};
use self::ready::ReadyBackends;
use crate::config::{self, KeyPart};
use crate::placement::{Member, Placement};
use crate::sticky::cookie::{CookieRule, CookieVerdict};
use crate::sticky::range::Ranges;

/// Backends that share one balancing rule, as one snapshot sees them, or as several in a row do while the pool
/// does not change.
///
/// Aligned, so that what every pick reads shares no cache line with the count of references, which every connection
/// writes.
#[derive(Debug)]
#[repr(align(128))]
pub struct Pool {
    config: config::Pool,
    backends: Arc<[Arc<Backend>]>,
    placement: Placement,
    /// What is kept between picks; `None`: the pool needs nothing of the kind.
    ready: Option<Arc<ReadyBackends>>,
    ranges: Ranges,
    cookie: Option<CookieRule>,
    table: Option<PoolTable>,
    sticks_as: Arc<str>,
    /// Names of backends that reloads have removed, the latest first.
    former: Arc<[Arc<str>]>,
    /// What lives on over reloads.
    shared: Arc<PoolShared>,
}

impl Pool {
    /// Builds the pool of a new snapshot. `previous` is the pool of the same name in the old snapshot; its backends are
    /// carried over by name. A new address under an old name restarts health and keeps the counters. With checks on, a
    /// backend added by a reload starts as down until its first good check; backends of a new pool start as up, because
    /// otherwise the pool could serve no client. `workers` is fixed for the process. A pool without a predecessor is in
    /// force at once, others by [`Pool::put_in_force`]; until then their picks without a key look at every backend.
    pub fn new(config: &config::Pool, previous: Option<&Self>, workers: usize) -> Self {
        let new_shared = || Arc::new(PoolShared::new(&config.name, workers));
        let shared = previous.map_or_else(new_shared, |pool| pool.shared.clone());
        let known: AHashMap<&str, &Arc<Backend>> =
            previous.iter().flat_map(|pool| pool.backends.iter()).map(|backend| (backend.name(), backend)).collect();
        let carry = |wanted: &config::Backend| match known.get(wanted.name.as_str()) {
            Some(living) if *living.address() == wanted.address => Arc::clone(living),
            other => {
                // A known name keeps its keys, at its new address too, and so it need not await a check; one without an
                // address has lost its keys to other backends, and one that awaits a check has none yet.
                let is_awaited = |known: &&Arc<Backend>| known.standing() == CheckState::Awaited;
                let is_new = other.is_none_or(|known| known.has_no_address() || is_awaited(known));
                let awaited = previous.is_some() && is_new && config.check.is_some();
                let standing = if awaited { CheckState::Awaited } else { CheckState::Unchecked };
                Arc::new(Backend::new(shared.clone(), wanted, other.map(|b| b.as_ref()), workers, standing))
            }
        };
        let backends: Arc<[_]> = config.backends.iter().map(carry).collect();
        let members: Vec<_> = config.backends.iter().map(member).collect();
        let indexes: AHashMap<&str, usize> =
            config.backends.iter().enumerate().map(|(index, backend)| (backend.name.as_str(), index)).collect();
        let placement = Placement::new(config.balance, config.hash_seed, &members);
        let pool = Self {
            ready: ReadyBackends::new(config, &placement).map(Arc::new),
            placement,
            ranges: Ranges::new(&config.ranges, |name| indexes.get(name).copied()),
            config: config.clone(),
            backends,
            cookie: None,
            table: None,
            sticks_as: config.stick_group.as_deref().map_or_else(|| shared.name.clone(), Arc::from),
            former: previous.map_or_else(Arc::default, |previous| former(config, previous)),
            shared,
        };
        if previous.is_none() {
            pool.put_in_force();
        }
        pool
    }

    /// Returns the same pool with this cookie.
    pub fn with_cookie(self, cookie: Option<CookieRule>) -> Self {
        let cookie = cookie.map(|rule| rule.after(Arc::clone(&self.former)));
        Self { cookie, ..self }
    }

    /// True if a successor of this configuration would have the backends, the placement and the stick table of this pool. A
    /// pool of a `stick_group` has the table that the others of its group make, and one to which the system has given no
    /// memory for its table tries again.
    pub fn is_built_of(&self, config: &config::Pool) -> bool {
        let has_its_table = self.table.is_some() == config.stick_table.is_some();
        has_its_table && config.stick_group.is_none() && self.config == *config
    }

    /// Name of the pool in the configuration.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Name of the pool, for whatever outlives the snapshot.
    pub fn shared_name(&self) -> &Arc<str> {
        &self.shared.name
    }

    /// Name of the stick table: that of the pool's `stick_group`, or the pool's own.
    pub fn sticks_as(&self) -> &Arc<str> {
        &self.sticks_as
    }

    /// The pool's part of the configuration.
    pub fn config(&self) -> &config::Pool {
        &self.config
    }

    /// All backends, in the order of `config().backends`.
    pub fn backends(&self) -> &[Arc<Backend>] {
        &self.backends
    }

    /// Index of the backend of this name.
    pub fn index_of(&self, backend: &str) -> Option<usize> {
        self.config.backends.iter().position(|known| known.name == backend)
    }

    /// The pool's cookie; `None` = requests are not told apart by one.
    pub fn cookie(&self) -> Option<&CookieRule> {
        self.cookie.as_ref()
    }

    /// Named ranges of source addresses.
    pub fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    /// The pool's stick table; `None` with `stick_table = "0"`, without a key, or where the system had no memory for
    /// it.
    pub fn table(&self) -> Option<&PoolTable> {
        self.table.as_ref()
    }

    /// Brings over what was written into the stick table of `old` until its last connection moved to this pool.
    pub fn take_over(&self, old: &Self, now_ms: u64) {
        if let Some(table) = &self.table {
            table.take_over(old.table.as_ref(), now_ms);
        }
    }

    /// True once the pool was seen with work or trouble: a connection or a connect that failed, or a backend that could
    /// not serve or was drained.
    pub fn is_busy(&self, now_ms: u64) -> bool {
        let busy = self.shared.busy.load(Relaxed) || self.backends.iter().any(|backend| backend.is_busy(now_ms));
        if busy {
            self.shared.busy.store(true, Relaxed);
        }
        busy
    }

    /// Leases held now on all backends, removed ones included.
    pub fn leases(&self) -> u64 {
        self.shared.leases.0.load(Relaxed)
    }

    /// Number of `Set-Cookie` lines of backends with the name of the pool's own cookie, which were dropped.
    pub fn dropped_cookies(&self) -> u64 {
        self.shared.dropped_cookies.load(Relaxed)
    }

    /// Counts lines that were dropped from one response.
    pub fn count_dropped_cookies(&self, lines: usize) {
        if lines > 0 {
            self.shared.dropped_cookies.fetch_add(lines as u64, Relaxed);
        }
    }

    /// Number of requests with the pool's cookie, by the word of the verdict; nothing without a cookie.
    pub fn cookies(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let count = |number: usize| self.shared.cookies.iter().map(|of_thread| of_thread.0[number].value()).sum();
        let words = self.cookie.iter().flat_map(|_| CookieVerdict::WORDS.into_iter().enumerate());
        words.map(move |(number, word)| (word, count(number)))
    }

    /// Counts the cookie of one request; `counters_index` is that of the calling thread.
    pub fn count_cookie(&self, verdict: CookieVerdict, counters_index: usize) {
        if let Some(of_thread) = self.shared.cookies.get(counters_index) {
            of_thread.0[verdict.number()].add(1);
        }
    }

    /// True if the backend belongs to this pool, or did until a reload removed it.
    pub fn is_of(&self, backend: &Backend) -> bool {
        backend.is_of(&self.shared)
    }

    /// True if a backend takes new clients: it is usable, has a weight and does not drain.
    pub fn takes_new(&self, now_ms: u64) -> bool {
        self.takes_new_without(&[], now_ms)
    }

    /// Like [`Self::takes_new`], with the backends of these names down, too.
    pub fn takes_new_without(&self, down: &[String], now_ms: u64) -> bool {
        let takes = |(backend, config): (&Arc<Backend>, &config::Backend)| {
            let is_open = config.weight > 0 && backend.usable(now_ms) && !backend.draining();
            is_open && !down.contains(&config.name)
        };
        self.backends.iter().zip(&self.config.backends).any(takes)
    }

    /// Digest of the placement: pools with equal digests place alike.
    pub fn digest(&self) -> u64 {
        self.placement.digest()
    }

    /// True if placement depends on the server name.
    pub fn needs_sni(&self) -> bool {
        self.config.has_key() && self.config.key.iter().any(|part| part.may_be(&KeyPart::Sni))
    }

    /// Counts a connection to `backend` that failed through the backend's fault. Returns how long the backend is
    /// ejected from now on; `None` = it is not. Failures of a backend that checks have marked down do not count.
    pub fn connect_failed(&self, backend: &Arc<Backend>, now_ms: u64) -> Option<Duration> {
        self.count_failure(backend, FailedConnection::Connect, now_ms)
    }

    /// Counts a connection of this source that `backend` has ended before its first byte, in the same way.
    pub fn closed_early(&self, backend: &Arc<Backend>, source: Option<IpAddr>, now_ms: u64) -> Option<Duration> {
        self.count_failure(backend, FailedConnection::EarlyClose(source), now_ms)
    }

    fn count_failure(&self, backend: &Arc<Backend>, failed: FailedConnection, now_ms: u64) -> Option<Duration> {
        let eject = self.config.eject.as_ref().filter(|_| backend.standing() != CheckState::Down)?;
        let index = self.backends.iter().position(|known| Arc::ptr_eq(known, backend))?;
        let _one_at_a_time = lock(&self.shared.ejecting);
        backend.connection_failed(failed, eject, now_ms, || may_eject(self, index, now_ms))
    }

    /// Forgets the failures of `backend`, because a connection to it is established; with `early_close` only the first
    /// byte of the backend counts.
    #[inline]
    pub fn connect_succeeded(&self, backend: &Arc<Backend>) {
        if !self.counts_early_closes() {
            backend.connect_succeeded();
        }
    }

    /// True if a connection that the backend ends before its first byte counts as failed.
    #[inline]
    pub fn counts_early_closes(&self) -> bool {
        self.config.eject.is_some_and(|eject| eject.early_close)
    }
}

impl Backend {
    /// True if only clients that are known here come here: the backend drains, by command or by its agent, or has
    /// weight 0 in the configuration in force.
    #[inline]
    pub fn serves_known_only(&self) -> bool {
        self.draining() || self.drain.is_weightless.load(Relaxed)
    }
}

/// A backend that no snapshot has, for a connection that another process has established. `pool`: the pool of this name,
/// if there is one; its backend of this name shares counters and drain.
pub fn departed(
    pool: Option<&Pool>,
    pool_name: &str,
    name: &str,
    address: config::Address,
    workers: usize,
) -> Arc<Backend> {
    let shared = pool.map_or_else(|| Arc::new(PoolShared::new(pool_name, workers)), |pool| Arc::clone(&pool.shared));
    let before = pool.and_then(|pool| pool.backends.iter().find(|backend| backend.name() == name));
    let config = config::Backend {
        name: name.to_owned(),
        address,
        host: None,
        weight: 0,
        location: Vec::new(),
        backup: false,
        max_connections: None,
        origin: config::BackendOrigin::Written,
    };
    Arc::new(Backend::new(shared, &config, before.map(|before| &**before), workers, CheckState::Unchecked))
}

/// Names of backends that the pool had before, and does not have in this configuration.
fn former(config: &config::Pool, previous: &Pool) -> Arc<[Arc<str>]> {
    /// Most names that a pool keeps; a name that was removed longer ago counts as unknown.
    const FORMER_MAX: usize = 1_024;
    let before = previous.config.backends.iter().map(|backend| backend.name.as_str());
    let names = before.chain(previous.former.iter().map(|name| &**name));
    let stay: AHashSet<&str> = config.backends.iter().map(|backend| backend.name.as_str()).collect();
    let gone = names.filter(|name| !stay.contains(name));
    gone.take(FORMER_MAX).map(Arc::from).collect()
}

/// True if the others can serve, and eject no more of the weight than allowed, without the backend at `index`.
fn may_eject(pool: &Pool, index: usize, now_ms: u64) -> bool {
    let peer = |index: usize| {
        let config::Backend { weight, backup, .. } = pool.config.backends[index];
        let health = pool.backends[index].health(now_ms);
        (weight > 0 && health > Health::Down).then_some(EjectionPeer {
            weight,
            backup,
            ejected: health == Health::Ejected,
        })
    };
    // A draining backend does not take the clients of an ejected one.
    let others = (0..pool.backends.len()).filter(|other| *other != index && !pool.backends[*other].draining());
    let others = others.filter_map(peer);
    peer(index).is_some_and(|candidate| health::may_eject(candidate, others))
}

fn member(backend: &config::Backend) -> Member<'_> {
    Member { name: &backend.name, weight: backend.weight, location: &backend.location, backup: backend.backup }
}
