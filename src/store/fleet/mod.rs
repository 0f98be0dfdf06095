//! The fleet: instances tell each other entries of stick tables that placement alone would not find, and the orders
//! that operators give about backends.
//!
//! One stream in the store holds everything, as items that are signed. An instance appends what its clients did, and reads
//! what all have appended, in the same order: the last word about a key counts at all of them, whatever their clocks say.
//! A thread of its own has two connections to the store, one of which waits for the next item; it puts entries into the
//! stick tables, so that a connection neither asks the store nor waits for it.
//!
//! | file | what |
//! |---|---|
//! | `task` | the thread: connects, and connects again |
//! | `session` | one time with the store: read all, tell all, then news both ways |
//! | `receive` | what becomes of items that are read |
//! | `item` | items as bytes |
//! | `stream` | the commands of Redis on the stream |
//! | `kept` | those on the hash of orders that stand |
//! | `seen` | the instances that are there, and origins of entries |
//!
//! # What is told
//!
//! *Orders*, with `share = ["orders"]`: each as it is given, into the stream and into a hash, which an instance that
//! starts late reads whole. The last one about each matter of a backend counts, by the store's clock
//! (`pool::OrderBook`).
//!
//! *News*: an entry that has moved, or is new and not where placement finds it; written within milliseconds, up to 256 in
//! an item. *Recaps*: all entries that placement does not find, when the session begins, when a placement changes, and when
//! an instance begins that finds a stream of which items are lost; and those seen since the last one, four times in the
//! pool's `remember`, so that they last while their clients come. While instances differ in the placement of a pool, what
//! placement finds is told, too: it may not find it at another one.
//!
//! Invariants: without "displaced" and "orders" in `share` nothing is told and no thread runs; a store that is away,
//! frozen, full or empty costs no connection anything, and whatever was not told is told when it is back; memory is
//! bounded.

#[cfg(test)]
mod cost;
mod item;
mod kept;
mod receive;
mod seen;
mod session;
mod stream;
mod task;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

pub use self::seen::FleetInstance;

use self::seen::SeenInstances;
use self::task::FleetTask;
use super::access::Access;
use crate::pool::{OrderBook, Received};
use crate::snapshot::{Current, Snapshot};
use crate::sticky::table::KeyHash;

/// A start, or a reload that changes the store, waits so long for the first read.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a reload that changes a placement waits for what other instances know under the one before.
const FORETELL: Duration = Duration::from_millis(250);

/// The fleet as the server uses it; one for the process, whatever the configuration.
pub struct Fleet {
    shared: Arc<FleetShared>,
    book: OrderBook,
    orders: mpsc::UnboundedSender<FleetOrder>,
    /// The task that is not started yet; `None` once its thread runs.
    task: Mutex<Option<FleetTask>>,
}

/// What the task is told.
enum FleetOrder {
    /// Share by this store from now on, or not at all. The sender is used or dropped once that was tried.
    Use(Option<Arc<Access>>, oneshot::Sender<()>),
    /// Placements that will be in force in a moment; the answer comes when other instances had time to tell what they
    /// know.
    Foretell(Vec<(Arc<str>, u64)>, oneshot::Sender<()>),
    /// The book has orders that wait to be told.
    Tell,
}

/// Whether entries are shared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FleetState {
    /// Entries are not to be shared.
    #[default]
    Off,
    /// The stick tables of this process were made with another secret.
    NextStart,
    /// What others have told is read for the first time.
    Joining,
    /// The store is away.
    Away,
    /// Entries are shared.
    Working,
}

impl FleetState {
    /// Returns the word of status; `None`: there is nothing to show.
    pub fn word(self) -> Option<&'static str> {
        match self {
            Self::Off => None,
            Self::NextStart => Some("next_start"),
            Self::Joining => Some("joining"),
            Self::Away => Some("away"),
            Self::Working => Some("working"),
        }
    }
}

/// The fleet as status shows it.
#[derive(Debug, Clone, Default)]
pub struct FleetView {
    /// Whether entries are shared.
    pub state: FleetState,
    /// The last failure; empty if there was none since they are shared.
    pub complaint: String,
    /// Number of this instance.
    pub instance: u64,
    /// Instances that are there, with this one.
    pub instances: Vec<FleetInstance>,
}

/// Counters of the fleet.
#[derive(Debug, Default)]
pub struct FleetCounters {
    received: [AtomicU64; Received::ALL.len()],
    /// Entries that were told as news.
    pub told: AtomicU64,
    /// Entries that were told again, in recaps.
    pub recapped: AtomicU64,
    /// Items that were written, and their bytes.
    pub items: AtomicU64,
    /// ItemBytes of the items that were written.
    pub bytes: AtomicU64,
    /// Items in the stream that no instance with the same secret has written, or that cannot be read.
    pub refused: AtomicU64,
    /// Times that the store was away.
    pub lost: AtomicU64,
    /// Orders about backends that were told.
    pub orders_told: AtomicU64,
    /// Orders of other instances that were new here.
    pub orders_taken: AtomicU64,
    /// Orders of another version, which this one does not know.
    pub orders_unknown: AtomicU64,
}

/// State that the task and the server share.
struct FleetShared {
    /// Number of this instance.
    instance: u64,
    status: Mutex<(FleetState, String)>,
    seen: Mutex<SeenInstances>,
    counters: FleetCounters,
}

impl FleetCounters {
    /// Entries that were received, by what became of them.
    pub fn received(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Received::ALL.iter().map(|result| (result.word(), self.received[*result as usize].load(Relaxed)))
    }
}

impl Fleet {
    /// A fleet that shares nothing. `current`: the snapshot in force, with the stick tables.
    pub fn new(current: Arc<Current>) -> Self {
        let mut number = [0; 8];
        // Without random numbers an instance is told apart by nothing, and takes its own words for those of another one.
        let _ = aws_lc_rs::rand::fill(&mut number);
        let shared = Arc::new(FleetShared {
            instance: u64::from_le_bytes(number).max(1),
            status: Mutex::default(),
            seen: Mutex::default(),
            counters: FleetCounters::default(),
        });
        let (orders, received) = mpsc::unbounded_channel();
        let book = current.load().orders.clone();
        let task = FleetTask::new(Arc::clone(&shared), current, received);
        Self { shared, book, orders, task: Mutex::new(Some(task)) }
    }

    /// Shares by this store from now on, or not at all. Waits a moment for the first read, so that clients find the entries
    /// that other instances have told; a store that cannot be reached is no error.
    pub async fn adopt(&self, access: Option<Arc<Access>>) {
        let access = access.filter(|access| access.config.share.displaced || access.config.share.orders);
        match &access {
            Some(access) if access.config.share.orders => self.book.open(self.shared.instance, &host_name()),
            _ => self.book.close(),
        }
        {
            let mut task = lock(&self.task);
            if access.is_none() && task.is_some() {
                return;
            }
            if let Some(task) = task.take()
                && let Err(error) = self.start(task)
            {
                tracing::error!("nothing is shared with other instances: {error}");
            }
        }
        let (tried, answer) = oneshot::channel();
        if self.orders.send(FleetOrder::Use(access, tried)).is_ok() {
            let _ = tokio::time::timeout(PATIENCE, answer).await;
        }
    }

    /// Tells other instances the placements of a snapshot that is about to be in force, and waits a moment for what they
    /// know under the ones before: a client that comes here next may be known to them alone.
    pub async fn foretell(&self, next: &Snapshot, now_ms: u64) {
        let own = |seen: &SeenInstances| seen.instances().find(|known| known.instance == self.shared.instance).cloned();
        let (own, others) = {
            let mut seen = lock(&self.shared.seen);
            seen.roll(now_ms);
            (own(&seen), seen.instances().count() > 1)
        };
        let tables = tables(next);
        let is_told = next.outbox.is_open() && self.state() == FleetState::Working;
        let is_due = is_told && others && own.is_some_and(|own| own.tables != tables);
        let (answer, answered) = oneshot::channel();
        if is_due && self.orders.send(FleetOrder::Foretell(tables, answer)).is_ok() {
            let _ = tokio::time::timeout(2 * FORETELL, answered).await;
        }
    }

    /// The fleet as it is now.
    pub fn view(&self, now_ms: u64) -> FleetView {
        let (state, complaint) = lock(&self.shared.status).clone();
        let mut seen = lock(&self.shared.seen);
        seen.roll(now_ms);
        FleetView { state, complaint, instance: self.shared.instance, instances: seen.instances().cloned().collect() }
    }

    /// Has an order told that the book has got.
    pub fn tell(&self) {
        // Without a thread the book is closed.
        let _ = self.orders.send(FleetOrder::Tell);
    }

    /// True if the store takes what is told.
    pub fn is_working(&self) -> bool {
        *lock(&self.shared.status) == (FleetState::Working, String::new())
    }

    /// Number of this instance.
    pub fn instance(&self) -> u64 {
        self.shared.instance
    }

    /// True if entries are to be shared, and the store is away.
    pub fn is_away(&self) -> bool {
        self.state() == FleetState::Away
    }

    /// The instance that has told the entry of a key, by the name of its host; `None`: none, or it is not known any more.
    pub fn origin(&self, key: KeyHash) -> Option<String> {
        let seen = lock(&self.shared.seen);
        let instance = seen.origin_of(key).filter(|instance| *instance != self.shared.instance)?;
        let name = seen.instances().find(|known| known.instance == instance).map(|known| known.name.as_str());
        Some(shown_instance(name.unwrap_or_default(), instance))
    }

    /// Counters of what was told and received.
    pub fn counters(&self) -> &FleetCounters {
        &self.shared.counters
    }

    fn state(&self) -> FleetState {
        lock(&self.shared.status).0
    }

    /// Starts the thread. That of learned cookies is not used: a full read may take longer than the budget of a request.
    fn start(&self, task: FleetTask) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::clone(&self.shared);
        thread::Builder::new().name("fleet".into()).spawn(move || {
            let run = || LocalSet::new().block_on(&runtime, task.run());
            if catch_unwind(AssertUnwindSafe(run)).is_err() {
                *lock(&shared.status) = (FleetState::Away, "its thread has failed".to_owned());
                tracing::error!("nothing is shared with other instances any more: the thread has failed");
            }
        })?;
        Ok(())
    }
}

/// Name of this host.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// An instance as operators read it: its host, and the begin of its number.
pub fn shown_instance(name: &str, instance: u64) -> String {
    let number = format!("{instance:016x}");
    let name = if name.is_empty() { "?" } else { name };
    format!("{name}/{}", &number[..6])
}

/// Name and digest of each stick table.
fn tables(snapshot: &Snapshot) -> Vec<(Arc<str>, u64)> {
    let first = snapshot.stick_tables().filter_map(|(_, pools)| pools.first());
    first.map(|pool| (pool.sticks_as().clone(), pool.digest())).collect()
}

/// Locks something of which every step leaves it consistent, so that a poisoned lock is taken as well.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
