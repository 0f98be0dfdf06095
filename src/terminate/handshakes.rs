//! [`Handshakes`]: the limit `max_handshakes` on TLS handshakes that are worked at at once in the process.
//!
//! Measures nothing and refuses no client: a conversation without a turn waits, within `hello_timeout`. Sources take
//! turns one after another, and one source has at most half of them, so that a flood from one address delays its own
//! handshakes and hardly those of others.
//!
//! Invariant: a [`Turn`] is released by dropping it, and is held only while bytes are processed. Each request for a
//! turn sets the limit, so that a reload holds for all turns that begin after it.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ahash::AHashMap;
use tokio::sync::oneshot;

use crate::admission::source_network;

/// The network that a client is counted with; `None`: the client has no address.
type Source = Option<IpAddr>;

/// Turns of handshakes, shared by all threads.
#[derive(Debug, Default)]
pub struct Handshakes {
    queue: Mutex<Queue>,
}

/// The right to work at one handshake; given back when it is dropped.
#[derive(Debug)]
pub struct Turn {
    handshakes: Arc<Handshakes>,
    source: Source,
}

/// Turns that are taken, and conversations that wait for one.
#[derive(Debug, Default)]
struct Queue {
    limit: usize,
    taken: usize,
    sources: AHashMap<Source, SourceQueue>,
    /// Sources with waiting conversations, each once; the first is served next.
    order: VecDeque<Source>,
}

/// The part of one source; it exists while the source has a turn or waits for one.
#[derive(Debug, Default)]
struct SourceQueue {
    taken: usize,
    waiting: VecDeque<oneshot::Sender<Turn>>,
}

impl Handshakes {
    /// Waits for a turn of this client; returns `None` at once if there is no limit.
    pub async fn turn(self: &Arc<Self>, limit: Option<usize>, client: Option<IpAddr>) -> Option<Turn> {
        let source = client.map(source_network);
        let waiting = self.ask(limit?, source);
        match waiting {
            // A turn is always sent; without one the handshake goes on all the same.
            Some(turn) => turn.await.ok(),
            None => {
                let turn = Turn { handshakes: Arc::clone(self), source };
                // Tasks with bytes that came at the same time ask too, before this one works: the order of turns, and
                // not the order of arrival, decides which handshakes come first.
                tokio::task::yield_now().await;
                Some(turn)
            }
        }
    }

    /// Takes a turn, or joins the queue of its source if none may be taken; then the turn comes through the receiver.
    fn ask(self: &Arc<Self>, limit: usize, source: Source) -> Option<oneshot::Receiver<Turn>> {
        let (receiver, rises) = {
            let mut queue = self.lock();
            let rises = limit > queue.limit;
            queue.limit = limit;
            let receiver = match queue.take(source) {
                true => None,
                false => Some(queue.join(source)),
            };
            (receiver, rises)
        };
        if rises {
            self.grant();
        }
        receiver
    }

    /// Gives free turns to conversations that wait.
    fn grant(self: &Arc<Self>) {
        loop {
            let Some((source, waiting)) = self.lock().grant_next() else { return };
            // A conversation that has just ended gives the turn back by dropping it.
            drop(waiting.send(Turn { handshakes: Arc::clone(self), source }));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Takes a free turn. Where some wait that could have it, it is theirs.
    fn take(&mut self, source: Source) -> bool {
        let (free, share) = (self.taken < self.limit, self.share());
        let entry = self.sources.entry(source).or_default();
        let takes = free && entry.taken < share && entry.waiting.is_empty();
        if takes {
            entry.taken += 1;
            self.taken += 1;
        }
        takes
    }

    fn join(&mut self, source: Source) -> oneshot::Receiver<Turn> {
        let (sender, receiver) = oneshot::channel();
        let waiting = &mut self.sources.entry(source).or_default().waiting;
        if waiting.is_empty() {
            self.order.push_back(source);
        }
        waiting.push_back(sender);
        receiver
    }

    /// Takes a free turn for the first conversation of the first source that has not its share.
    fn grant_next(&mut self) -> Option<(Source, oneshot::Sender<Turn>)> {
        let share = self.share();
        for _ in 0..self.order.len() {
            if self.taken >= self.limit {
                return None;
            }
            let source = self.order.pop_front()?;
            let Some(entry) = self.sources.get_mut(&source) else { continue };
            // Conversations that have ended meanwhile.
            while entry.waiting.front().is_some_and(oneshot::Sender::is_closed) {
                entry.waiting.pop_front();
            }
            let chosen = if entry.taken < share { entry.waiting.pop_front() } else { None };
            if !entry.waiting.is_empty() {
                self.order.push_back(source);
            }
            if let Some(chosen) = chosen {
                entry.taken += 1;
                self.taken += 1;
                return Some((source, chosen));
            }
            self.forget_if_idle(source);
        }
        None
    }

    fn release(&mut self, source: Source) {
        self.taken = self.taken.saturating_sub(1);
        if let Some(entry) = self.sources.get_mut(&source) {
            entry.taken = entry.taken.saturating_sub(1);
            self.forget_if_idle(source);
        }
    }

    fn forget_if_idle(&mut self, source: Source) {
        if self.sources.get(&source).is_some_and(|entry| entry.taken == 0 && entry.waiting.is_empty()) {
            self.sources.remove(&source);
        }
    }

    /// The most turns of one source: half of all.
    fn share(&self) -> usize {
        self.limit.div_ceil(2)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.handshakes.lock().release(self.source);
        self.handshakes.grant();
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Future, poll_fn};
    use std::pin::Pin;
    use std::task::Poll;

    use super::*;

    const LOUD: &str = "192.0.2.1";

    type Waiting = Pin<Box<dyn Future<Output = Option<Turn>>>>;

    fn asks(handshakes: &Arc<Handshakes>, limit: usize, address: &str) -> Waiting {
        let (handshakes, address) = (Arc::clone(handshakes), address.parse().unwrap());
        Box::pin(async move { handshakes.turn(Some(limit), Some(address)).await })
    }

    /// Polls until all that can go on have gone on, as a runtime would.
    async fn turn_of(waiting: &mut Waiting) -> Option<Turn> {
        for _ in 0..3 {
            if let Poll::Ready(turn) = poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx))).await {
                return turn;
            }
            tokio::task::yield_now().await;
        }
        None
    }

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test);
    }

    #[test]
    fn one_source_has_half_of_the_turns_and_others_find_the_rest_free() {
        run(async {
            let handshakes = Arc::new(Handshakes::default());
            let mut flood: Vec<_> = (0..100).map(|_| asks(&handshakes, 8, LOUD)).collect();
            let mut held = Vec::new();
            for waiting in &mut flood {
                held.extend(turn_of(waiting).await);
            }
            assert_eq!(held.len(), 4, "half of the turns");
            for other in ["192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8:0:1::1"] {
                held.push(turn_of(&mut asks(&handshakes, 8, other)).await.expect(other));
            }
            assert!(turn_of(&mut asks(&handshakes, 8, "192.0.2.9")).await.is_none(), "all turns are taken");
        });
    }

    #[test]
    fn sources_take_turns_however_many_conversations_of_one_wait() {
        run(async {
            let handshakes = Arc::new(Handshakes::default());
            let first = turn_of(&mut asks(&handshakes, 1, LOUD)).await.expect("a free turn");
            let mut flood: Vec<_> = (0..100).map(|_| asks(&handshakes, 1, LOUD)).collect();
            for waiting in &mut flood {
                assert!(turn_of(waiting).await.is_none());
            }
            let mut late = asks(&handshakes, 1, "192.0.2.2");
            assert!(turn_of(&mut late).await.is_none());
            drop(first);
            let second = turn_of(&mut flood[0]).await.expect("the source that waited first");
            drop(second);
            let third = turn_of(&mut late).await.expect("then the other source, before 99 of the first");
            drop(third);
            assert!(turn_of(&mut flood[1]).await.is_some());
        });
    }

    #[test]
    fn addresses_of_one_network_are_one_source() {
        run(async {
            let handshakes = Arc::new(Handshakes::default());
            let _first = turn_of(&mut asks(&handshakes, 2, "2001:db8::1")).await.expect("a free turn");
            assert!(turn_of(&mut asks(&handshakes, 2, "2001:db8::2")).await.is_none());
            assert!(turn_of(&mut asks(&handshakes, 2, "2001:db8:0:1::1")).await.is_some());
        });
    }

    #[test]
    fn a_conversation_that_ended_leaves_its_turn_to_the_next_and_nothing_behind() {
        run(async {
            let handshakes = Arc::new(Handshakes::default());
            let first = turn_of(&mut asks(&handshakes, 1, LOUD)).await.expect("a free turn");
            let [mut gone, mut granted, mut last] =
                [LOUD, "192.0.2.2", "192.0.2.3"].map(|from| asks(&handshakes, 1, from));
            for waiting in [&mut gone, &mut granted, &mut last] {
                assert!(turn_of(waiting).await.is_none());
            }
            drop(gone);
            drop(first);
            // Its turn was sent, and nothing has received it.
            drop(granted);
            drop(turn_of(&mut last).await.expect("the turn of the others"));
            let queue = handshakes.lock();
            assert_eq!((queue.taken, queue.sources.len(), queue.order.len()), (0, 0, 0));
        });
    }

    #[test]
    fn the_limit_follows_the_file() {
        run(async {
            let handshakes = Arc::new(Handshakes::default());
            assert!(handshakes.turn(None, None).await.is_none(), "no limit, no turn");
            let first = turn_of(&mut asks(&handshakes, 1, LOUD)).await.expect("a free turn");
            let mut waiting = asks(&handshakes, 1, LOUD);
            assert!(turn_of(&mut waiting).await.is_none());
            let second = turn_of(&mut asks(&handshakes, 4, "192.0.2.2")).await.expect("a turn of the higher limit");
            let third = turn_of(&mut waiting).await.expect("also for those that waited");
            drop((first, second));
            assert!(
                turn_of(&mut asks(&handshakes, 1, "192.0.2.2")).await.is_none(),
                "one is taken, and one is the limit"
            );
            drop(third);
            assert!(turn_of(&mut asks(&handshakes, 1, "192.0.2.3")).await.is_some());
        });
    }
}
