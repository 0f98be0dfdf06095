//! A new connection: it is made, the store answers within the budget, and is told what was learned meanwhile.
//!
//! Decides nothing; `keeper.rs` sees what became of it. Invariant: what was not told comes back, and so does what the
//! store would not have.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::access::Access;
use super::flight::{BATCH, FLIGHT_MAX, given_up};
use super::link::{Link, LinkError, Put};
use super::pending::{Pending, PendingValue};

/// A connection is made within this time, sentinels included.
const DIAL_MAX: Duration = Duration::from_secs(2);

/// What became of a connection.
pub(super) struct Dialled {
    /// What it was made with.
    pub(super) access: Arc<Access>,
    /// The connection, or why there is none.
    pub(super) link: Result<Link, String>,
    /// Entries that it was not told.
    pub(super) pending: Pending,
    /// What it was told.
    pub(super) told: Told,
}

/// What became of what a new connection was told.
#[derive(Default)]
pub(super) struct Told {
    /// Entries that it has now.
    pub(super) written: u64,
    /// Why the store would not have something.
    pub(super) refused: Option<String>,
}

impl Dialled {
    /// Connects, has the store answer within the budget, and tells it what was learned meanwhile.
    pub(super) async fn dial(access: Arc<Access>, mut pending: Pending) -> Self {
        let mut told = Told::default();
        let made = timeout(DIAL_MAX, Link::dial(&access)).await;
        let link = match made.unwrap_or_else(|_| Err("no connection in time".to_owned())) {
            Ok(link) => match timeout(access.config.budget, probe(&link, &access)).await {
                Ok(Ok(refused)) => {
                    told.refused = refused;
                    reconcile(link, &mut pending, &mut told).await
                }
                Ok(Err(broken)) => Err(broken.why),
                Err(_) => Err("no answer within the budget".to_owned()),
            },
            Err(why) => Err(why),
        };
        Self { access, link, pending, told }
    }
}

/// Asks what conversations will ask, and tells what they will tell: whether the store answers, and whether we may read. Why
/// it would not be told, if so: that is no reason not to ask it.
async fn probe(link: &Link, access: &Access) -> Result<Option<String>, LinkError> {
    let trial = [trial(access)];
    let (put, _) = tokio::try_join!(link.put(&trial), link.find(std::slice::from_ref(&trial[0].key)))?;
    Ok(put.iter().find_map(Put::refusal).map(str::to_owned))
}

/// An entry of nobody's, which is gone the moment that it is written.
pub(super) fn trial(access: &Access) -> PendingValue {
    let key = format!("{}probe", access.config.prefix).into();
    PendingValue { key, at_ms: 0, ttl_ms: 1, backend: Some("probe".into()) }
}

/// Tells the store what was learned while it was away, all of it or as far as it listens. What it would not have waits.
async fn reconcile(link: Link, pending: &mut Pending, told: &mut Told) -> Result<Link, String> {
    let mut back = Vec::new();
    let mut end = Ok(());
    while pending.len() > 0 && end.is_ok() {
        let entries = pending.take(BATCH);
        match given_up(timeout(FLIGHT_MAX, link.put(&entries)).await) {
            Ok(put) => {
                for (entry, put) in entries.into_iter().zip(put) {
                    let Put::Refused(why) = put else {
                        told.written += 1;
                        continue;
                    };
                    told.refused.get_or_insert(why);
                    back.push(entry);
                }
            }
            Err(broken) => {
                back.extend(entries);
                end = Err(broken.why);
            }
        }
    }
    for entry in back {
        // It was there before: there is room.
        pending.add(entry);
    }
    end.map(|()| link)
}
