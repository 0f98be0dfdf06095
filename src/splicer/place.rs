//! [`place`]: a pick and a lease for a passthrough connection, which may have to wait for a place at a full backend.
//!
//! Waits by no means of its own: the row is stepped again. Invariant: a connection that was called is picked for once more,
//! by what is true then; one that is in no line waits for nothing here.

use crate::attempt::Attempts;
use crate::outcome::Ended;
use crate::pool::{Lease, Pick, PickScene, Pool, QueueVisit};
use crate::sticky::Facts;

/// Interval at which a connection in a line looks whether it was called.
const LOOK_AGAIN_MS: u64 = 100;

/// What a connection gets.
pub(super) enum Placing<'p> {
    /// A backend, with a lease on it.
    At(Pick<'p>, Lease),
    /// A place in a line; the function is called again at this time, in milliseconds, or once the client is called.
    WaitsUntil(u64),
    /// No backend: the connection has this ending.
    Refused(Ended),
}

/// Picks a backend and takes a lease on it, or puts the client in line.
pub(super) fn place<'p>(
    pool: &'p Pool,
    facts: &Facts<'_>,
    (attempts, visit): (&Attempts, &mut QueueVisit),
    worker: usize,
    now_ms: u64,
) -> Placing<'p> {
    loop {
        let picked = visit.pick_with(|holds| {
            pool.pick_or_wait(&PickScene { holds, ..PickScene::new(facts, attempts.tried(), now_ms) })
        });
        let awaited = match picked {
            Ok(pick) => match visit.take(pool, pick.backend, now_ms) {
                Some((lease, waited_ms)) => {
                    let waited = |waited_ms: u64| pool.counters(worker).queue_wait.record_us(waited_ms * 1_000);
                    waited_ms.into_iter().for_each(waited);
                    return Placing::At(pick, lease);
                }
                None => continue,
            },
            Err(None) => return Placing::Refused(attempts.no_backend(pool, now_ms)),
            Err(Some(awaited)) => awaited,
        };
        match visit.stand(pool, &awaited, now_ms) {
            Ok(_) if visit.was_called() => visit.listen(),
            Ok(ends_ms) => return Placing::WaitsUntil((now_ms + LOOK_AGAIN_MS).min(ends_ms)),
            Err(ended) => {
                pool.counters(worker).count_unqueued(ended);
                return Placing::Refused(ended);
            }
        }
    }
}
