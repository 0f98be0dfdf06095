//! A new connection: connect, probe within the budget, then write what was learned meanwhile.
//!
//! Decides nothing; `task.rs` handles the result. Invariant: an entry that was not written, or was refused, comes back
//! with the result.

use std::sync::Arc;

use tokio::time::timeout;

use super::access::Access;
use super::batch::{BATCH, BATCH_TIMEOUT, or_no_answer};
use super::link::{Link, LinkError, Put};
use super::pending::{Pending, PendingValue};
use super::place;

/// Result of an attempt to connect.
pub(super) struct DialResult {
    /// Access that the connection was made with.
    pub(super) access: Arc<Access>,
    /// The connection, or the reason for the failure.
    pub(super) link: Result<Link, String>,
    /// Entries that were not written.
    pub(super) pending: Pending,
    /// Entries that were written, and a refusal.
    pub(super) reconciled: Reconciled,
}

/// Result of writing the pending entries over a new connection.
#[derive(Default)]
pub(super) struct Reconciled {
    /// Number of entries that were written.
    pub(super) written: u64,
    /// Error of the first refused write; `None` if the store accepts writes.
    pub(super) refused: Option<String>,
}

impl DialResult {
    /// Connects, probes the store within the budget, and writes the pending entries.
    pub(super) async fn dial(access: Arc<Access>, mut pending: Pending) -> Self {
        let mut reconciled = Reconciled::default();
        let link = match place::dial(&access, &access.probe).await {
            Ok(link) => match timeout(access.config.budget, probe(&link, &access)).await {
                Ok(Ok(refused)) => {
                    reconciled.refused = refused;
                    reconcile(link, &mut pending, &mut reconciled).await
                }
                Ok(Err(broken)) => Err(broken.why),
                Err(_) => Err("no answer within the budget".to_owned()),
            },
            Err(why) => Err(why),
        };
        Self { access, link, pending, reconciled }
    }
}

/// Reads and writes once, as conversations will. The refusal of the write is returned and is no failure: a store that
/// refuses writes can still be read. Nor is it one that another node of a cluster has the key by now.
async fn probe(link: &Link, access: &Access) -> Result<Option<String>, LinkError> {
    let trial = [trial(access)];
    let (put, _) = tokio::try_join!(link.put(&trial), link.find(std::slice::from_ref(&trial[0].key)))?;
    Ok(put.iter().find_map(Put::refusal).map(str::to_owned))
}

/// An entry under a key that no cookie has, gone after a millisecond.
pub(super) fn trial(access: &Access) -> PendingValue {
    PendingValue { key: access.probe.clone(), at_ms: 0, ttl_ms: 1, backend: Some("probe".into()) }
}

/// Writes the pending entries in batches until the first failure. Entries that were refused, not written, or belong to
/// another node go back to `pending`.
async fn reconcile(link: Link, pending: &mut Pending, reconciled: &mut Reconciled) -> Result<Link, String> {
    let mut back = Vec::new();
    let mut end = Ok(());
    while pending.len() > 0 && end.is_ok() {
        let entries = pending.take(BATCH);
        match or_no_answer(timeout(BATCH_TIMEOUT, link.put(&entries)).await) {
            Ok(put) => {
                for (entry, put) in entries.into_iter().zip(put) {
                    match put {
                        Put::Done | Put::Other(_) => reconciled.written += 1,
                        Put::Elsewhere(_) => back.push(entry),
                        Put::Refused(why) => {
                            reconciled.refused.get_or_insert(why);
                            back.push(entry);
                        }
                    }
                }
            }
            Err(broken) => {
                back.extend(entries);
                end = Err(broken.why);
            }
        }
    }
    for entry in back {
        // The entry was taken from there, so there is room.
        pending.add(entry);
    }
    end.map(|()| link)
}
