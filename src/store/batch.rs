//! One exchange with the store: requests that came together are sent together.
//!
//! Decides nothing; `task.rs` handles the result. Invariant: a waiting conversation gets its reply as soon as it is
//! there, or finds its channel closed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::counters::QueryKind;
use super::link::{FailureKind, Link, LinkError, Put, backend};
use super::pending::PendingValue;
use super::{StoreRefused, StoreReply};
use crate::clock;

/// Most keys read, and most entries written, in one exchange.
pub(super) const BATCH: usize = 128;

/// An exchange that takes longer is given up; its conversations stopped waiting long before.
pub(super) const BATCH_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads and writes of one exchange.
#[derive(Default)]
pub(super) struct StoreBatch {
    pub(super) keys: Vec<Box<str>>,
    pub(super) answers: Vec<StoreReply>,
    pub(super) entries: Vec<PendingValue>,
    pub(super) writes: Vec<Write>,
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
    /// Conversations wait for all of it, and report failures to the breaker themselves.
    pub(super) watched: bool,
    pub(super) entries: Vec<PendingValue>,
    pub(super) writes: Vec<Write>,
    /// Result of each write; `None` if the exchange failed and the results are unknown.
    pub(super) put: Option<Vec<Put>>,
    pub(super) broken: Option<LinkError>,
}

impl StoreBatch {
    /// Sends the requests and passes each reply on as soon as it is there.
    pub(super) async fn run(self, link: Link, since: u64) -> BatchResult {
        let Self { keys, answers, entries, mut writes } = self;
        let began = clock::now();
        let watched = writes.iter().all(|write| write.done.is_some());
        let find = async {
            if keys.is_empty() {
                return Ok(());
            }
            let found = or_no_answer(timeout(BATCH_TIMEOUT, link.find(&keys)).await)?;
            for (answer, found) in answers.into_iter().zip(found) {
                let _ = answer.send(Ok(found.as_deref().and_then(backend).map(Into::into)));
            }
            Ok(())
        };
        let put = async {
            if entries.is_empty() {
                return Ok(Vec::new());
            }
            let put = or_no_answer(timeout(BATCH_TIMEOUT, link.put(&entries)).await)?;
            for (write, put) in writes.iter_mut().zip(&put) {
                if let Some(done) = &mut write.done {
                    let (gone, _) = oneshot::channel();
                    let answer = if matches!(put, Put::Refused(_)) { Err(StoreRefused) } else { Ok(None) };
                    let _ = std::mem::replace(done, gone).send(answer);
                }
            }
            Ok(put)
        };
        let (found, put) = tokio::join!(find, put);
        let (put, broken) = match put {
            Ok(put) => (Some(put), found.err()),
            Err(broken) => (None, Some(broken)),
        };
        BatchResult { watched, entries, writes, put, broken, ..BatchResult::begun(since, began) }
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
        }
    }
}

/// Turns a timeout into a failure without a reply.
pub(super) fn or_no_answer<T>(
    answer: Result<Result<T, LinkError>, tokio::time::error::Elapsed>,
) -> Result<T, LinkError> {
    answer.unwrap_or_else(|_| Err(LinkError { kind: FailureKind::Missing, why: "no answer".to_owned() }))
}
