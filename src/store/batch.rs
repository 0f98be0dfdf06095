//! One exchange with the store: requests that came together are sent together.
//!
//! Decides nothing; `task.rs` handles the result. Invariant: a waiting conversation gets its reply as soon as it is
//! there, or finds its channel closed; what another node of a cluster has comes back with the result.

use std::hash::Hash;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use ahash::AHashMap;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::access::Access;
use super::cluster::slots::SlotRedirect;
use super::counters::QueryKind;
use super::link::{FailureKind, Found, Link, LinkError, Put, backend};
use super::pending::PendingValue;
use super::shared::StoreShared;
use super::{StoreOperation, StoreRefused, StoreReply, StoreRequest};
use crate::clock;

/// Most keys read, and most entries written, in one exchange.
pub(super) const BATCH: usize = 128;

/// An exchange that takes longer is given up; its conversations stopped waiting long before.
pub(super) const BATCH_TIMEOUT: Duration = Duration::from_secs(1);

/// Most nodes of a cluster that a request goes to, one after the other.
pub(super) const HOPS_MAX: u8 = 3;

/// Reads and writes of one exchange.
#[derive(Default)]
pub(super) struct StoreBatch {
    pub(super) keys: Vec<Box<str>>,
    pub(super) answers: Vec<StoreReply>,
    pub(super) entries: Vec<PendingValue>,
    pub(super) writes: Vec<Write>,
    /// The keys are about to come to the node of the cluster that it is sent to.
    pub(super) asking: bool,
    /// Number of nodes that have named another one for it.
    pub(super) hops: u8,
}

/// A write's origin, beside its entry.
pub(super) struct Write {
    pub(super) kind: QueryKind,
    pub(super) done: Option<StoreReply>,
    /// Pool and value, to update the stick table if another entry is kept instead; `None` for an entry that was
    /// pending.
    pub(super) of: Option<(Arc<str>, Box<[u8]>)>,
}

/// Result of an exchange.
pub(super) struct BatchResult {
    pub(super) since: u64,
    pub(super) took_us: u64,
    /// Failures were reported to the breaker already: by the conversations, which wait for all of it, or because it was late.
    pub(super) watched: bool,
    pub(super) entries: Vec<PendingValue>,
    pub(super) writes: Vec<Write>,
    /// Result of each write; `None` if the exchange failed and the results are unknown.
    pub(super) put: Option<Vec<Put>>,
    pub(super) broken: Option<LinkError>,
    /// Reads of keys that other nodes of the cluster have.
    pub(super) elsewhere: AHashMap<SlotRedirect, StoreBatch>,
    /// Number of nodes that have named another one for it.
    pub(super) hops: u8,
}

impl StoreBatch {
    /// The requests of conversations, with the keys that this access makes.
    pub(super) fn of(access: &Access, requests: impl Iterator<Item = StoreRequest>) -> Self {
        let mut batch = Self::default();
        for StoreRequest { pool, value, operation } in requests {
            let key = access.key(&pool, &value);
            let kind = operation.kind();
            let (entry, done) = match operation {
                StoreOperation::Find(answer) => {
                    batch.read(key, answer);
                    continue;
                }
                StoreOperation::Learn { backend, at_ms, ttl_ms, done } => {
                    (PendingValue { key, at_ms, ttl_ms, backend: Some(backend) }, done)
                }
                StoreOperation::Keep { backend, ttl_ms } => {
                    (PendingValue { key, at_ms: 0, ttl_ms, backend: Some(backend) }, None)
                }
                StoreOperation::Forget { at_ms } => (PendingValue { key, at_ms, ttl_ms: 1, backend: None }, None),
            };
            batch.write(entry, Write { kind, done, of: Some((pool, value)) });
        }
        batch
    }

    /// Entries that have waited.
    pub(super) fn of_pending(entries: Vec<PendingValue>) -> Self {
        let writes = entries.iter().map(|entry| {
            let kind = if entry.backend.is_some() { QueryKind::Learn } else { QueryKind::Forget };
            Write { kind, done: None, of: None }
        });
        Self { writes: writes.collect(), entries, ..Self::default() }
    }

    /// Adds a read.
    fn read(&mut self, key: Box<str>, answer: StoreReply) {
        self.keys.push(key);
        self.answers.push(answer);
    }

    /// Adds a write.
    pub(super) fn write(&mut self, entry: PendingValue, write: Write) {
        self.entries.push(entry);
        self.writes.push(write);
    }

    /// Whether there is nothing to send.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.entries.is_empty()
    }

    /// Number of conversations that wait for it.
    fn waiting(&self) -> usize {
        self.answers.len() + self.writes.iter().filter(|write| write.done.is_some()).count()
    }

    /// The parts of the batch, by what `part` says of a key.
    pub(super) fn split<P: Eq + Hash>(self, part: impl Fn(&str) -> P) -> AHashMap<P, Self> {
        let Self { keys, answers, entries, writes, asking, hops } = self;
        let mut parts = AHashMap::default();
        let new = || Self { asking, hops, ..Self::default() };
        for (key, answer) in keys.into_iter().zip(answers) {
            parts.entry(part(&key)).or_insert_with(new).read(key, answer);
        }
        for (entry, write) in entries.into_iter().zip(writes) {
            parts.entry(part(&entry.key)).or_insert_with(new).write(entry, write);
        }
        parts
    }

    /// Sends the requests and passes each reply on as soon as it is there. `node`: the node of a cluster that is asked, to
    /// which it is reported at once when conversations have waited for longer than the budget.
    pub(super) async fn run(self, link: Link, since: u64, node: Option<Arc<StoreShared>>) -> BatchResult {
        let (waiting, all_wait) = (self.waiting(), self.writes.iter().all(|write| write.done.is_some()));
        let Self { keys, answers, entries, mut writes, asking, hops } = self;
        let link = if asking { link.asking() } else { link };
        let began = clock::now();
        let find = async {
            if keys.is_empty() {
                return Ok(AHashMap::default());
            }
            let found = or_no_answer(timeout(BATCH_TIMEOUT, link.find(&keys)).await)?;
            Ok(reply(keys.into_iter().zip(answers).zip(found), hops))
        };
        let put = async {
            if entries.is_empty() {
                return Ok(Vec::new());
            }
            let put = or_no_answer(timeout(BATCH_TIMEOUT, link.put(&entries)).await)?;
            for (write, put) in writes.iter_mut().zip(&put) {
                write.reply(put);
            }
            Ok(put)
        };
        let exchange = async { tokio::join!(find, put) };
        let ((found, put), watched) = match node {
            None => (exchange.await, all_wait),
            Some(node) => watched(exchange, &node, since, waiting).await,
        };
        let (elsewhere, broken) = match found {
            Ok(elsewhere) => (elsewhere, None),
            Err(broken) => (AHashMap::default(), Some(broken)),
        };
        let (put, broken) = match put {
            Ok(put) => (Some(put), broken),
            Err(broken) => (None, Some(broken)),
        };
        BatchResult { watched, entries, writes, put, broken, elsewhere, hops, ..BatchResult::begun(since, began) }
    }
}

impl Write {
    /// Answers the conversation that waits for the write, unless another node of the cluster is to have it.
    fn reply(&mut self, put: &Put) {
        let answer = match put {
            Put::Done | Put::Other(_) => Ok(None),
            Put::Refused(_) => Err(StoreRefused),
            Put::Elsewhere(_) => return,
        };
        if let Some(done) = &mut self.done {
            let (gone, _) = oneshot::channel();
            let _ = std::mem::replace(done, gone).send(answer);
        }
    }
}

impl BatchResult {
    /// An exchange without requests that began at this time.
    pub(super) fn begun(since: u64, began: clock::Micros) -> Self {
        Self {
            since,
            took_us: clock::now() - began,
            watched: false,
            entries: Vec::new(),
            writes: Vec::new(),
            put: Some(Vec::new()),
            broken: None,
            elsewhere: AHashMap::default(),
            hops: 0,
        }
    }
}

/// Answers reads. Those of keys that other nodes of the cluster have are returned, unless too many have sent them on.
fn reply(found: impl Iterator<Item = ((Box<str>, StoreReply), Found)>, hops: u8) -> AHashMap<SlotRedirect, StoreBatch> {
    let mut elsewhere: AHashMap<_, StoreBatch> = AHashMap::default();
    for ((key, answer), found) in found {
        match found {
            Ok(found) => _ = answer.send(Ok(found.as_deref().and_then(backend).map(Into::into))),
            Err(to) if hops < HOPS_MAX => elsewhere.entry(to).or_default().read(key, answer),
            // The conversation finds its channel closed.
            Err(_) => {}
        }
    }
    elsewhere
}

/// Awaits an exchange with a node of a cluster. Once it is later than the budget, that is reported for each conversation
/// that waits for it, and true is returned.
async fn watched<T>(exchange: impl Future<Output = T>, node: &StoreShared, since: u64, waiting: usize) -> (T, bool) {
    let mut exchange = pin!(exchange);
    let budget = Duration::from_micros(node.budget_us.load(Relaxed));
    match timeout(budget, &mut exchange).await {
        Ok(done) => (done, false),
        Err(_) => {
            (0..waiting).for_each(|_| node.failed(since));
            (exchange.await, waiting > 0)
        }
    }
}

/// Turns a timeout into a failure without a reply.
pub(super) fn or_no_answer<T>(
    answer: Result<Result<T, LinkError>, tokio::time::error::Elapsed>,
) -> Result<T, LinkError> {
    answer.unwrap_or_else(|_| Err(LinkError { kind: FailureKind::Missing, why: "no answer".to_owned() }))
}
