//! The shared store: which value of a learned cookie belongs to which backend, known to all instances.
//!
//! Holds learned cookies and nothing else; no passthrough connection knows of it. The stick table stays the place where values
//! are looked up: the store is asked for what is not there, and told what was learned. One thread (`keeper`) speaks to
//! it; conversations hand it what they want over a bounded channel and wait for the answer, if at all, no longer than
//! `budget`, by a timer of their own. Reads no request.
//!
//! | file | what |
//! |---|---|
//! | `breaker` | whether the store is asked at all |
//! | `notes` | when it hears again of a value in use |
//! | `pending` | what was learned while it was away |
//! | `refusal` | whether it takes what it is told |
//! | `keeper` | the thread: connection, batches, probes, reconciliation |
//! | `dialling` | a new connection, and what it is told first |
//! | `flight` | one exchange |
//! | `link` | what is said to Redis |
//! | `access` | addresses, passwords, hashes of values |
//! | `tally` | what became of it all |
//!
//! Invariants: with the breaker open, or without a store, whoever looks pays one atomic load; nothing that a store does
//! or fails to do is an error to a client; no value of a cookie leaves the process.

mod access;
mod breaker;
mod dialling;
mod flight;
mod keeper;
mod link;
mod notes;
mod pending;
mod refusal;
mod tally;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::LocalSet;

pub use self::access::Access;
pub use self::breaker::{Breaker, BreakerState, FAILURES};
pub use self::notes::Notes;
pub use self::tally::Tally;

use self::keeper::Keeper;
use self::tally::{QueryKind, QueryOutcome};
use crate::clock::{self, Micros};
use crate::config::Cookie;
use crate::pool::{Backend, Pool};
use crate::snapshot::Current;

/// Requests that may wait for the keeper; more are not asked for.
const ROOM: usize = 1_024;

/// Whoever's time is over runs a little later, and that is part of what may be waited.
const WAKING_US: u64 = 150;

/// How long a start, or a reload that changes the store, waits for the first connection.
const PATIENCE: Duration = Duration::from_secs(1);

/// The store as conversations and the server see it; one for the process, whatever the configuration.
pub struct Store {
    shared: Arc<StoreShared>,
    door: mpsc::Sender<StoreQuery>,
    orders: mpsc::UnboundedSender<Reconfigure>,
    /// What the keeper needs to begin, until it does.
    keeper: Mutex<Option<Keeper>>,
}

/// What conversations and the keeper both know.
#[derive(Debug, Default)]
struct StoreShared {
    breaker: Breaker,
    budget_us: AtomicU64,
    tally: Tally,
    /// Tells the keeper that the breaker has opened.
    tripped: Notify,
    /// Where the store is, and what it was complained of last.
    said: Mutex<Said>,
}

#[derive(Debug, Default)]
struct Said {
    place: String,
    complaint: String,
}

/// What the keeper is asked.
struct StoreQuery {
    pool: Arc<str>,
    value: Box<[u8]>,
    wish: StoreWish,
}

enum StoreWish {
    /// The backend of a value; the answer is its name.
    Find(StoreReply),
    /// A value belongs to this backend from now on.
    Learn { backend: Arc<str>, at_ms: u64, ttl_ms: u64, done: Option<StoreReply> },
    /// It is in use there, as far as is known here.
    Keep { backend: Arc<str>, ttl_ms: u64 },
    /// It has ended.
    Forget { at_ms: u64 },
}

/// Dropped without an answer where there is none.
type StoreReply = oneshot::Sender<Answered>;
type Answered = Result<Option<Box<str>>, StoreRefused>;

/// The store is there, in time, and would not have what it was told.
#[derive(Debug)]
struct StoreRefused;

/// Another store is to be used, or none; answered when it has been tried.
struct Reconfigure {
    access: Option<Arc<Access>>,
    tried: oneshot::Sender<()>,
}

/// An answer that somebody waits for, until his time is over.
pub struct Waiting {
    answer: oneshot::Receiver<Answered>,
    shared: Arc<StoreShared>,
    kind: QueryKind,
    since: u64,
    /// When the budget is spent.
    pub until: Micros,
}

impl Store {
    /// None yet. `current`: where it says what the memories shall know better.
    pub fn new(current: Arc<Current>) -> Self {
        let shared = Arc::<StoreShared>::default();
        let (door, asked) = mpsc::channel(ROOM);
        let (orders, ordered) = mpsc::unbounded_channel();
        let keeper = Keeper::new(Arc::clone(&shared), current, asked, ordered);
        Self { shared, door, orders, keeper: Mutex::new(Some(keeper)) }
    }

    /// Uses this store from now on, or none. Waits a moment for the first connection, so that nobody whose cookie the
    /// store knows comes before it can be asked; one that cannot be reached is no error.
    pub async fn adopt(&self, access: Option<Arc<Access>>) {
        {
            let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
            if access.is_none() && keeper.is_some() {
                // There never was one.
                return;
            }
            if let Some(keeper) = keeper.take()
                && let Err(error) = self.start(keeper)
            {
                tracing::error!("the shared store is not used: {error}");
            }
        }
        let (tried, answer) = oneshot::channel();
        if self.orders.send(Reconfigure { access, tried }).is_ok() {
            let _ = tokio::time::timeout(PATIENCE, answer).await;
        }
    }

    /// A thread of its own: what else the control side does may take longer than anybody waits for the store.
    fn start(&self, keeper: Keeper) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::clone(&self.shared);
        thread::Builder::new().name("store".into()).spawn(move || {
            let run = || LocalSet::new().block_on(&runtime, keeper.run());
            if catch_unwind(AssertUnwindSafe(run)).is_err() {
                shared.breaker.off();
                tracing::error!("the shared store is not used any more: its thread has failed");
            }
        })?;
        Ok(())
    }

    /// Whether it is asked.
    #[inline]
    pub fn look(&self) -> BreakerState {
        self.shared.breaker.look()
    }

    /// Asks whose a value is that nobody here knows.
    pub fn find(&self, pool: &Pool, value: &[u8]) -> Option<Waiting> {
        let BreakerState::Working(since) = self.look() else { return None };
        let (answer, waiting) = oneshot::channel();
        self.ask(pool, value, StoreWish::Find(answer)).then(|| self.wait(waiting, QueryKind::Find, since))
    }

    /// A backend has set this value, which nobody knew before.
    pub fn learned(&self, pool: &Pool, value: &[u8], backend: &Backend) -> Option<Waiting> {
        let BreakerState::Working(since) = self.look() else {
            self.moved(pool, value, backend);
            return None;
        };
        let (done, waiting) = oneshot::channel();
        let wish = learn(pool, backend, Some(done));
        self.ask(pool, value, wish).then(|| self.wait(waiting, QueryKind::Learn, since))
    }

    /// The client that brings this value could not stay where it was. Nobody waits for that to be known.
    pub fn moved(&self, pool: &Pool, value: &[u8], backend: &Backend) {
        if self.look() != BreakerState::Off {
            self.ask(pool, value, learn(pool, backend, None));
        }
    }

    /// This value is in use, and it is time to say so.
    pub fn keep(&self, pool: &Pool, value: &[u8], backend: &Backend) {
        if matches!(self.look(), BreakerState::Working(_)) {
            self.ask(pool, value, StoreWish::Keep { backend: backend.name_shared(), ttl_ms: ttl_ms(pool) });
        }
    }

    /// The application has ended this value.
    pub fn forget(&self, pool: &Pool, value: &[u8]) {
        if self.look() != BreakerState::Off {
            self.ask(pool, value, StoreWish::Forget { at_ms: clock::unix_ms() });
        }
    }

    /// The longest time that a conversation waits for a reply, in microseconds.
    pub fn budget_us(&self) -> u64 {
        self.shared.budget_us.load(Relaxed)
    }

    /// The counters of requests and their results.
    pub fn tally(&self) -> &Tally {
        &self.shared.tally
    }

    /// The address of the store, without user or password, and its last failure; either may be empty.
    pub fn place_and_complaint(&self) -> (String, String) {
        let said = self.shared.said.lock().unwrap_or_else(PoisonError::into_inner);
        (said.place.clone(), said.complaint.clone())
    }

    /// Whether there was room to ask.
    fn ask(&self, pool: &Pool, value: &[u8], wish: StoreWish) -> bool {
        let kind = wish.kind();
        let asked = StoreQuery { pool: Arc::clone(pool.sticks_as()), value: value.into(), wish };
        let asked = self.door.try_send(asked).is_ok();
        if !asked {
            self.shared.tally.count(kind, QueryOutcome::Overflow);
        }
        asked
    }

    fn wait(&self, answer: oneshot::Receiver<Answered>, kind: QueryKind, since: u64) -> Waiting {
        let budget_us = self.shared.budget_us.load(Relaxed);
        let until = clock::now() + budget_us - WAKING_US.min(budget_us / 4);
        Waiting { answer, shared: Arc::clone(&self.shared), kind, since, until }
    }
}

impl Waiting {
    /// The answer: the name of a backend, where one was asked for and is known.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Box<str>>> {
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
            self.shared.tally.count(self.kind, outcome);
            answered.ok().and_then(Result::ok).flatten()
        })
    }

    /// Its time is over.
    pub fn late(&self) {
        self.shared.tally.count(self.kind, QueryOutcome::Late);
        self.shared.failed(self.since);
    }
}

impl StoreShared {
    /// What was asked since `since` got no answer, or too late.
    fn failed(&self, since: u64) {
        if self.breaker.failed(since) {
            self.tripped.notify_one();
        }
    }
}

impl StoreWish {
    fn kind(&self) -> QueryKind {
        match self {
            Self::Find(_) => QueryKind::Find,
            Self::Learn { .. } => QueryKind::Learn,
            Self::Keep { .. } => QueryKind::Keep,
            Self::Forget { .. } => QueryKind::Forget,
        }
    }
}

fn learn(pool: &Pool, backend: &Backend, done: Option<StoreReply>) -> StoreWish {
    StoreWish::Learn { backend: backend.name_shared(), at_ms: clock::unix_ms(), ttl_ms: ttl_ms(pool), done }
}

/// As long as the stick table knows it.
fn ttl_ms(pool: &Pool) -> u64 {
    pool.config().cookie.as_ref().and_then(Cookie::max_idle).map_or(1, |remember| remember.as_millis() as u64)
}
