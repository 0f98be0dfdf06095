//! The wait of a client for a place at a full backend (`on_full = "queue"`).
//!
//! Only waits: `pool::queue` has the lines, and a pick says for which place. Invariant: a client that is called is picked
//! for once more, by what is true then; it leaves the line with the future that waits.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use super::connect::{Chosen, Connector, Unchosen};
use super::state::ConversationStage;
use crate::clock;
use crate::outcome::Ended;
use crate::pool::{AwaitedPlace, Backend, Holds, Lease, Pick, QueueVisit};

/// Longest time until a client that waits is picked for once more, uncalled: some changes come by time alone, such as the
/// end of a drain.
const LOOK_AGAIN_MS: u64 = 1_000;

impl Connector<'_> {
    /// Picks a backend and takes a lease on it; where it is full, behind a wait. `pick` is told where the client has a place
    /// that it was given.
    pub async fn choose<'p>(
        &self,
        visit: &mut QueueVisit,
        pick: impl Fn(Option<Holds<'_>>) -> Result<Pick<'p>, Option<AwaitedPlace>>,
    ) -> Result<Chosen<'p>, Unchosen> {
        loop {
            match visit.pick_with(&pick) {
                Ok(pick) => {
                    if let Some(lease) = self.lease(visit, pick.backend) {
                        return Ok((pick, lease));
                    }
                }
                Err(None) => return Err(Unchosen::NoBackend),
                Err(Some(place)) => {
                    let stays = std::future::pending();
                    self.wait_in_line(visit, &place, stays).await.map_err(Unchosen::Ended)?;
                }
            }
        }
    }

    /// Takes a lease on the backend that was picked; `None`: others were faster, and the client is to be picked for again.
    pub fn lease(&self, visit: &mut QueueVisit, backend: &Arc<Backend>) -> Option<Lease> {
        let (lease, waited_ms) = visit.take(self.pool, backend, clock::now_ms())?;
        if let Some(waited_ms) = waited_ms {
            self.pool.counters(self.conversation.context.counters_index).queue_wait.record_us(waited_ms * 1_000);
        }
        Some(lease)
    }

    /// True if a reload has put another pool of this name in force, or none.
    pub fn is_replaced(&self) -> bool {
        let snapshot = self.conversation.context.current.load();
        !snapshot.pool(self.pool.name()).is_some_and(|in_force| std::ptr::eq(&**in_force, self.pool))
    }

    /// Waits in the line for this place until the client is called; `gone`: its ending, once it has left by itself.
    pub async fn wait_in_line(
        &self,
        visit: &mut QueueVisit,
        place: &AwaitedPlace,
        gone: impl Future<Output = Ended>,
    ) -> Result<(), Ended> {
        let now_ms = clock::now_ms();
        let ends_ms = visit.stand(self.pool, place, now_ms).inspect_err(|ended| {
            self.pool.counters(self.conversation.context.counters_index).count_unqueued(*ended);
        })?;
        self.conversation.state.enter(ConversationStage::Wait);
        let most = Duration::from_millis((ends_ms - now_ms).min(LOOK_AGAIN_MS));
        tokio::select! {
            biased;
            ended = gone => return Err(ended),
            () = poll_fn(|cx| visit.poll_called(cx)) => {}
            () = tokio::time::sleep(most) => {}
        }
        visit.listen();
        Ok(())
    }
}
