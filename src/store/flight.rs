//! One exchange with the store: what came together is asked together.
//!
//! Decides nothing; `keeper.rs` sees what became of it. Invariant: whoever waits is answered the moment that the answer is
//! there, or finds the channel closed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::link::{How, Link, LinkError, Put, backend};
use super::pending::PendingValue;
use super::tally::QueryKind;
use super::{StoreRefused, StoreReply};
use crate::clock;

/// The most that is asked in one exchange with the store; what comes together goes together.
pub(super) const BATCH: usize = 128;

/// An exchange that takes longer is given up, whoever waited for it is long gone.
pub(super) const FLIGHT_MAX: Duration = Duration::from_secs(1);

/// What is asked of the store at once.
#[derive(Default)]
pub(super) struct Flight {
    pub(super) keys: Vec<Box<str>>,
    pub(super) answers: Vec<StoreReply>,
    pub(super) entries: Vec<PendingValue>,
    pub(super) writes: Vec<Write>,
}

/// What an entry is about.
pub(super) struct Write {
    pub(super) kind: QueryKind,
    pub(super) done: Option<StoreReply>,
    /// Pool and value: if somebody else stands there, the stick table shall know.
    pub(super) of: Option<(Arc<str>, Box<[u8]>)>,
}

/// What became of a flight.
pub(super) struct Landed {
    pub(super) since: u64,
    pub(super) took_us: u64,
    /// Somebody waited for all of it by his own timer.
    pub(super) watched: bool,
    pub(super) entries: Vec<PendingValue>,
    pub(super) writes: Vec<Write>,
    /// What became of each entry; `None` = nobody knows.
    pub(super) put: Option<Vec<Put>>,
    pub(super) broken: Option<LinkError>,
}

impl Flight {
    /// Asks, and answers whoever waits as soon as the answer is there.
    pub(super) async fn fly(self, link: Link, since: u64) -> Landed {
        let Self { keys, answers, entries, mut writes } = self;
        let began = clock::now();
        let watched = writes.iter().all(|write| write.done.is_some());
        let find = async {
            if keys.is_empty() {
                return Ok(());
            }
            let found = given_up(timeout(FLIGHT_MAX, link.find(&keys)).await)?;
            for (answer, found) in answers.into_iter().zip(found) {
                let _ = answer.send(Ok(found.as_deref().and_then(backend).map(Into::into)));
            }
            Ok(())
        };
        let put = async {
            if entries.is_empty() {
                return Ok(Vec::new());
            }
            let put = given_up(timeout(FLIGHT_MAX, link.put(&entries)).await)?;
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
        Landed { watched, entries, writes, put, broken, ..Landed::begun(since, began) }
    }
}

impl Landed {
    /// Nothing but the time.
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

/// What takes so long that nobody waits any more is no answer.
pub(super) fn given_up<T>(answer: Result<Result<T, LinkError>, tokio::time::error::Elapsed>) -> Result<T, LinkError> {
    answer.unwrap_or_else(|_| Err(LinkError { how: How::Missing, why: "no answer".to_owned() }))
}
