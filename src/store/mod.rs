//! The shared store: the backend of each value of a learned cookie, shared by all instances; and what instances tell each
//! other of their stick tables (`fleet`).
//!
//! No passthrough connection uses it. Values of cookies are looked up in the stick table
//! first: the store is read only for values that the table does not have, and every learned value is written to it. One
//! thread (`task`) owns the connection, or one to each node of a cluster; conversations send their requests over a bounded
//! channel and wait for a reply, if at all, no longer than `budget`, by a timer of their own.
//!
//! | file | what |
//! |---|---|
//! | `breaker` | circuit breaker: whether requests are sent to the store at all |
//! | `recent_writes` | when a value in use is written again |
//! | `pending` | values learned while the store was away |
//! | `refusal` | whether the store accepts writes |
//! | `shared` | what conversations and operators see of a task |
//! | `thread` | the thread, which runs the task of one server, or that of a cluster |
//! | `task` | one server: connection, batches, probes, reconciliation |
//! | `cluster` | the nodes of a cluster, each with a task of its own, and which of them has a key |
//! | `node` | what a node's task and the cluster's tell each other |
//! | `dial` | a new connection, and what is written over it first |
//! | `batch` | one exchange |
//! | `place` | the server that has a key: a fixed address, by Sentinel, or in a cluster |
//! | `link` | the commands of Redis |
//! | `access` | addresses, passwords, hashes of values |
//! | `counters` | the outcome of every request |
//! | `finding` | what is asked for a cookie, and what the answers mean |
//! | [`fleet`] | entries of stick tables, told to all instances |
//!
//! Invariants: with the breaker open, or without a store, a look-up costs one atomic load; no failure of the store is
//! an error to a client; no value of a cookie leaves the process.

mod access;
mod batch;
mod breaker;
mod cluster;
mod counters;
mod dial;
mod finding;
pub mod fleet;
mod link;
mod node;
mod pending;
mod place;
mod recent_writes;
mod refusal;
mod shared;
mod task;
mod thread;

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

pub use self::access::Access;
pub use self::breaker::{Breaker, BreakerState, FAILURES};
pub use self::counters::StoreCounters;
pub use self::finding::{KnownHere, StoreFinding};
pub use self::recent_writes::RecentWrites;
pub use self::shared::NodeView;

use self::counters::{QueryKind, QueryOutcome};
use self::fleet::Fleet;
use self::shared::StoreShared;
use self::task::StoreTask;
use crate::clock::{self, Micros};
use crate::config::{Cookie, StorePlace};
use crate::pool::{Backend, Pool};
use crate::snapshot::Current;
use crate::sticky::table::{EntryKind, TableLookup};

/// Requests that may wait for the task; a request beyond that is dropped and counted as `overflow`.
const ROOM: usize = 1_024;

/// A timer fires a little late; the budget is shortened by this much, in microseconds.
const WAKING_US: u64 = 150;

/// A start, or a reload that changes the store, waits so long for the first connection.
const PATIENCE: Duration = Duration::from_secs(1);

/// The store as conversations and the server use it; one for the process, whatever the configuration.
pub struct Store {
    shared: Arc<StoreShared>,
    requests: mpsc::Sender<StoreRequest>,
    reconfigure: mpsc::UnboundedSender<Reconfigure>,
    /// The task that is not started yet; `None` once its thread runs.
    task: Mutex<Option<StoreTask>>,
    /// The store that another process has found away; `None` once a configuration is in force.
    resumed: Mutex<Option<StoreAway>>,
    fleet: Fleet,
}

/// A store with an open circuit breaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreAway {
    /// Address of the store, without user or password.
    pub place: String,
    /// What is wrong with it.
    pub complaint: String,
}

/// A value as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredValue {
    /// Name of the backend.
    pub backend: Box<str>,
    /// True if a backend has set the value, as far as the instances knew that wrote it.
    pub is_set: bool,
}

/// Behind the name of the backend in the entry of a value that clients only brought.
const BROUGHT: &str = " brought";

/// One request to the task.
struct StoreRequest {
    pool: Arc<str>,
    value: Box<[u8]>,
    operation: StoreOperation,
}

enum StoreOperation {
    /// Read the entry of a value; the reply is its text behind the time.
    Find(StoreReply),
    /// Write that a value belongs to this backend from now on.
    Learn { backend: Arc<str>, at_ms: u64, ttl_ms: u64, done: Option<StoreReply> },
    /// Prolong a value that is in use at this backend.
    Keep { backend: Arc<str>, ttl_ms: u64 },
    /// Delete a value that has ended.
    Forget { at_ms: u64 },
}

/// Channel for the reply; dropped without one when the exchange failed.
type StoreReply = oneshot::Sender<StoreReplyResult>;
type StoreReplyResult = Result<Option<Box<str>>, StoreRefused>;

/// The store replied in time and refused the write.
#[derive(Debug)]
struct StoreRefused;

/// The store failed, refused, or was late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoReply;

/// Use another store, or none. `tried` is signalled once the first connection was tried.
struct Reconfigure {
    access: Option<Arc<Access>>,
    tried: oneshot::Sender<()>,
}

impl Reconfigure {
    /// Whether the store to be used is a cluster.
    fn is_cluster(&self) -> bool {
        self.access.as_ref().is_some_and(|access| matches!(access.config.place, StorePlace::Cluster(_)))
    }
}

/// Where the requests of conversations and the stores to be used come from.
struct StoreInbox {
    requests: mpsc::Receiver<StoreRequest>,
    reconfigure: mpsc::UnboundedReceiver<Reconfigure>,
}

/// A reply to wait for until the budget is spent.
pub struct Waiting {
    answer: oneshot::Receiver<StoreReplyResult>,
    shared: Arc<StoreShared>,
    kind: QueryKind,
    since: u64,
    /// End of the budget, on the process's clock.
    pub until: Micros,
}

impl Store {
    /// A store without configuration. `current`: the snapshot in force, with the stick tables that learn from it.
    pub fn new(current: Arc<Current>) -> Self {
        let shared = Arc::<StoreShared>::default();
        let (requests, received) = mpsc::channel(ROOM);
        let (reconfigure, reconfigurations) = mpsc::unbounded_channel();
        let fleet = Fleet::new(Arc::clone(&current));
        let task = StoreTask::new(Arc::clone(&shared), current, received, reconfigurations);
        Self { shared, requests, reconfigure, task: Mutex::new(Some(task)), resumed: Mutex::default(), fleet }
    }

    /// What instances tell each other of their stick tables.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// Uses this store from now on, or none. Waits a moment for the first connection, so that requests of clients known
    /// only to the store find it connected; not for one that another process has found away a moment ago. A store that
    /// cannot be reached is no error.
    pub async fn adopt(&self, access: Option<Arc<Access>>) {
        self.fleet.adopt(access.clone()).await;
        let access = access.filter(|access| access.config.share.cookies);
        let is_away = self.take_resumed(access.as_deref());
        {
            let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
            if access.is_none() && task.is_some() {
                // Without a store there is no thread to stop.
                return;
            }
            if let Some(task) = task.take()
                && let Err(error) = thread::start(task, &self.shared)
            {
                tracing::error!("the shared store is not used: {error}");
            }
        }
        let (tried, answer) = oneshot::channel();
        if self.reconfigure.send(Reconfigure { access, tried }).is_ok() && !is_away {
            let _ = tokio::time::timeout(PATIENCE, answer).await;
        }
    }

    /// The store while its circuit breaker is open, for a process that follows.
    pub fn away(&self) -> Option<StoreAway> {
        let resumed = self.resumed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let is_open = self.look() == BreakerState::Open;
        let (place, complaint) = self.place_and_complaint();
        resumed.or(is_open.then_some(StoreAway { place, complaint }))
    }

    /// Begins with what the process before has found, once that store is configured here, too.
    pub fn resume(&self, away: StoreAway) {
        *self.resumed.lock().unwrap_or_else(PoisonError::into_inner) = Some(away);
    }

    /// True if the store with this access is known to be away. Its complaint is in the log already.
    fn take_resumed(&self, access: Option<&Access>) -> bool {
        let resumed = self.resumed.lock().unwrap_or_else(PoisonError::into_inner).take();
        let is_it = |(access, away): &(&Access, StoreAway)| access.config.to_string() == away.place;
        let Some((_, away)) = access.zip(resumed).filter(is_it) else { return false };
        self.shared.breaker.open();
        self.shared.set_status(|status| status.complaint = away.complaint);
        true
    }

    /// Whether requests are sent to the store.
    #[inline]
    pub fn look(&self) -> BreakerState {
        self.shared.breaker.look()
    }

    /// Requests the backend of a value that the stick table does not have. `None`: the breaker is open, or there is no
    /// room.
    pub fn find(&self, pool: &Pool, value: &[u8]) -> Option<Waiting> {
        let BreakerState::Working(since) = self.look() else { return None };
        let (answer, waiting) = oneshot::channel();
        self.ask(pool, value, StoreOperation::Find(answer)).then(|| self.wait(waiting, QueryKind::Find, since))
    }

    /// Writes a value that a backend has set and that was not known before.
    pub fn learned(&self, pool: &Pool, value: &[u8], backend: &Backend) -> Option<Waiting> {
        let BreakerState::Working(since) = self.look() else {
            self.moved(pool, value, backend);
            return None;
        };
        let (done, waiting) = oneshot::channel();
        let operation = learn(pool, backend.name_shared(), Some(done));
        self.ask(pool, value, operation).then(|| self.wait(waiting, QueryKind::Learn, since))
    }

    /// Writes the new backend of a client that could not stay where it was. No reply is awaited.
    pub fn moved(&self, pool: &Pool, value: &[u8], backend: &Backend) {
        if self.look() != BreakerState::Off {
            self.ask(pool, value, learn(pool, entry_text(pool, value, backend), None));
        }
    }

    /// Prolongs a value in use; called when [`RecentWrites::due`] says that it is time.
    pub fn keep(&self, pool: &Pool, value: &[u8], backend: &Backend) {
        if matches!(self.look(), BreakerState::Working(_)) {
            let backend = entry_text(pool, value, backend);
            self.ask(pool, value, StoreOperation::Keep { backend, ttl_ms: ttl_ms(pool) });
        }
    }

    /// Deletes a value that the application has ended.
    pub fn forget(&self, pool: &Pool, value: &[u8]) {
        if self.look() != BreakerState::Off {
            self.ask(pool, value, StoreOperation::Forget { at_ms: clock::unix_ms() });
        }
    }

    /// The longest time that a conversation waits for a reply, in microseconds.
    pub fn budget_us(&self) -> u64 {
        self.shared.budget_us.load(Relaxed)
    }

    /// Counters of the requests and their results.
    pub fn counters(&self) -> &StoreCounters {
        &self.shared.counters
    }

    /// The address of the store, without user or password, and its last failure; either may be empty.
    pub fn place_and_complaint(&self) -> (String, String) {
        self.shared.place_and_complaint()
    }

    /// The nodes of a cluster that have slots; none of a store that is one server.
    pub fn nodes(&self) -> Vec<NodeView> {
        self.shared.node_views()
    }

    /// Sends a request to the task; false if the channel is full.
    fn ask(&self, pool: &Pool, value: &[u8], operation: StoreOperation) -> bool {
        let kind = operation.kind();
        let requests = StoreRequest { pool: Arc::clone(pool.sticks_as()), value: value.into(), operation };
        let requests = self.requests.try_send(requests).is_ok();
        if !requests {
            self.shared.counters.count(kind, QueryOutcome::Overflow);
        }
        requests
    }

    fn wait(&self, answer: oneshot::Receiver<StoreReplyResult>, kind: QueryKind, since: u64) -> Waiting {
        let budget_us = self.shared.budget_us.load(Relaxed);
        let until = clock::now() + budget_us - WAKING_US.min(budget_us / 4);
        Waiting { answer, shared: Arc::clone(&self.shared), kind, since, until }
    }
}

impl Waiting {
    /// The reply: the stored value, for a find that found one.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<StoredValue>> {
        self.poll_reply(cx).map(|reply| reply.ok().flatten())
    }

    /// The reply within the budget, by the timer of the runtime that awaits it, which is coarser than the budget.
    pub async fn reply(mut self) -> Result<Option<StoredValue>, NoReply> {
        let left = Duration::from_micros(self.until.saturating_sub(clock::now()));
        let reply = tokio::time::timeout(left, std::future::poll_fn(|cx| self.poll_reply(cx))).await;
        reply.unwrap_or_else(|_| {
            self.late();
            Err(NoReply)
        })
    }

    fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<StoredValue>, NoReply>> {
        std::pin::Pin::new(&mut self.answer).poll(cx).map(|answered| {
            let outcome = match (&answered, self.kind) {
                (Err(_) | Ok(Err(StoreRefused)), _) => QueryOutcome::Failed,
                (Ok(Ok(Some(_))), QueryKind::Find) => QueryOutcome::Known,
                (Ok(Ok(None)), QueryKind::Find) => QueryOutcome::Unknown,
                (Ok(Ok(_)), _) => QueryOutcome::Stored,
            };
            match answered.is_ok() {
                true => self.shared.breaker.succeeded(),
                false => self.shared.failed(self.since),
            }
            self.shared.counters.count(self.kind, outcome);
            let answer = answered.ok().and_then(Result::ok).ok_or(NoReply)?;
            Ok(answer.map(|text| StoredValue::read(&text)))
        })
    }

    /// Counts a request that got no reply within its budget.
    pub fn late(&self) {
        self.shared.counters.count(self.kind, QueryOutcome::Late);
        self.shared.failed(self.since);
    }
}

impl StoreOperation {
    fn kind(&self) -> QueryKind {
        match self {
            Self::Find(_) => QueryKind::Find,
            Self::Learn { .. } => QueryKind::Learn,
            Self::Keep { .. } => QueryKind::Keep,
            Self::Forget { .. } => QueryKind::Forget,
        }
    }
}

impl StoredValue {
    /// Reads an entry behind its time.
    fn read(text: &str) -> Self {
        let name = text.strip_suffix(BROUGHT);
        Self { backend: name.unwrap_or(text).into(), is_set: name.is_none() }
    }
}

/// The entry of a value behind its time: the backend's name, and whether clients only brought the value.
fn entry_text(pool: &Pool, value: &[u8], backend: &Backend) -> Arc<str> {
    let known = pool.table().map(|table| table.lookup_value(value, clock::now_ms()));
    match known {
        Some(TableLookup::At(_, EntryKind::Learned)) => backend.name_shared(),
        _ => format!("{}{BROUGHT}", backend.name()).into(),
    }
}

fn learn(pool: &Pool, backend: Arc<str>, done: Option<StoreReply>) -> StoreOperation {
    StoreOperation::Learn { backend, at_ms: clock::unix_ms(), ttl_ms: ttl_ms(pool), done }
}

/// How long the stick table remembers a value, in milliseconds.
fn ttl_ms(pool: &Pool) -> u64 {
    pool.config().cookie.as_ref().and_then(Cookie::max_idle).map_or(1, |remember| remember.as_millis() as u64)
}
