//! [`Follow`]: where requests of one HTTP/2 connection go that bring no cookie: to the backend of the first of them.
//!
//! A browser sends the requests of its first page together, before it has a cookie; each placed by itself would get a
//! backend and a cookie of its own, and the last cookie would win. So the first is placed alone, the others wait for
//! that and follow it, and all get one cookie. Picks nothing: [`PickScene::beside`](crate::pool::PickScene) tells the
//! pool. Invariant: once two requests have brought different valid cookies, or if a trusted peer brings the requests of
//! many clients, no request follows another.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use tokio::sync::{Mutex, MutexGuard};

use crate::pool::{Backend, Pool};

/// How long the cookie that a request has got is the one of those which follow it, in seconds.
const SAME_COOKIE_S: u64 = 60;

/// What requests of one connection know of each other.
#[derive(Default)]
pub struct Follow {
    /// No request follows another.
    off: Cell<bool>,
    /// Hash of the first valid cookie.
    seen: Cell<Option<u64>>,
    hasher: ahash::RandomState,
    placed: RefCell<Vec<Placed>>,
    /// Held while the first request is placed.
    first: Mutex<()>,
    splits: RefCell<Vec<FollowedSplit>>,
}

/// The pool that a split has given the requests so far.
struct FollowedSplit {
    split: Arc<str>,
    /// `None`: two pools were named, so two clients share the connection.
    pool: Option<Arc<str>>,
}

/// Where the first request without a cookie went.
struct Placed {
    pool: Arc<str>,
    backend: Arc<Backend>,
    /// The `Set-Cookie` line of ours that it has got, and when, in seconds since 1970.
    line: Option<(String, u64)>,
}

/// The turn of the request that is the first to be placed.
pub type FirstTurn<'a> = MutexGuard<'a, ()>;

/// How a request without a cookie is placed.
#[derive(Debug)]
pub enum Turn<'a> {
    /// It follows to the backend of this index.
    Follows(usize),
    /// It is the first, and keeps the turn until it is placed.
    First(FirstTurn<'a>),
    /// By itself: no request follows another.
    Alone,
}

impl Follow {
    /// `many_clients`: a trusted peer brings the requests.
    pub fn new(many_clients: bool) -> Self {
        Self { off: Cell::new(many_clients), ..Self::default() }
    }

    /// Notes the value of a valid cookie.
    pub fn note_cookie(&self, value: &[u8]) {
        let hash = self.hasher.hash_one(value);
        match self.seen.get() {
            Some(first) if first != hash => self.off.set(true),
            _ => self.seen.set(Some(hash)),
        }
    }

    /// Waits while the first request without a cookie is placed. `serves`: whether the backend of this index can serve
    /// the request; if not, one is placed anew.
    pub async fn turn(&self, pool: &Pool, serves: impl Fn(usize) -> bool) -> Turn<'_> {
        let placed = || match self.off.get() {
            true => Some(Turn::Alone),
            false => self.backend(pool).filter(|index| serves(*index)).map(Turn::Follows),
        };
        if let Some(turn) = placed() {
            return turn;
        }
        let first = self.first.lock().await;
        placed().unwrap_or(Turn::First(first))
    }

    /// Index of the backend at which the first request was placed; `None`: there is none, or the pool has it no more.
    fn backend(&self, pool: &Pool) -> Option<usize> {
        let placed = self.placed.borrow();
        let backend = &placed.iter().find(|placed| *placed.pool == *pool.name())?.backend;
        pool.backends().iter().position(|known| Arc::ptr_eq(known, backend))
    }

    /// Notes where a request has its place now; `follows`: it has brought no cookie. One with a cookie counts where no
    /// other was placed.
    pub fn note_placed(&self, pool: &Pool, backend: &Arc<Backend>, follows: bool) {
        if self.off.get() {
            return;
        }
        let is_gone = |backend: &Arc<Backend>| !pool.backends().iter().any(|known| Arc::ptr_eq(known, backend));
        let mut placed = self.placed.borrow_mut();
        match placed.iter_mut().find(|placed| *placed.pool == *pool.name()) {
            Some(known) if Arc::ptr_eq(&known.backend, backend) => {}
            Some(known) if !follows && !is_gone(&known.backend) => {}
            Some(known) => (known.backend, known.line) = (Arc::clone(backend), None),
            None => {
                let (pool, backend) = (Arc::clone(pool.shared_name()), Arc::clone(backend));
                placed.push(Placed { pool, backend, line: None });
            }
        }
    }

    /// The pool to which a request goes that brings no valid cookie of this split; `None`: it is new.
    pub fn pool_of_split(&self, split: &str) -> Option<Arc<str>> {
        let splits = self.splits.borrow();
        splits.iter().find(|known| *known.split == *split)?.pool.clone().filter(|_| !self.off.get())
    }

    /// Notes the pool that a split has given a request; `by_cookie`: the request named it.
    pub fn note_split(&self, split: &Arc<str>, pool: &Arc<str>, by_cookie: bool) {
        let mut splits = self.splits.borrow_mut();
        match splits.iter_mut().find(|known| known.split == *split) {
            None => splits.push(FollowedSplit { split: Arc::clone(split), pool: Some(Arc::clone(pool)) }),
            Some(known) if known.pool.is_none() || known.pool.as_ref() == Some(pool) => {}
            Some(known) => known.pool = (!by_cookie).then(|| Arc::clone(pool)),
        }
    }

    /// The `Set-Cookie` line for a request that brought no cookie: that of the request which it followed, or else a new
    /// one; `now` in seconds since 1970.
    pub fn cookie_line(
        &self,
        pool: &Pool,
        backend: usize,
        now: u64,
        write: impl FnOnce() -> Option<String>,
    ) -> Option<String> {
        let mut placed = self.placed.borrow_mut();
        let backend = pool.backends().get(backend);
        let is_here = |placed: &&mut Placed| {
            *placed.pool == *pool.name() && backend.is_some_and(|backend| Arc::ptr_eq(&placed.backend, backend))
        };
        let Some(known) = placed.iter_mut().find(is_here).filter(|_| !self.off.get()) else { return write() };
        match &known.line {
            Some((line, made)) if now < made + SAME_COOKIE_S => Some(line.clone()),
            _ => {
                let line = write()?;
                known.line = Some((line.clone(), now));
                Some(line)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;
    use crate::snapshot::Snapshot;

    /// A pool of two backends with a cookie.
    fn pool() -> Arc<Pool> {
        let text = "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\ntls = \"off\"\npool = \"p\"\n\
            [[pool]]\nname = \"p\"\nhttp = true\ncheck = \"off\"\nbalance = \"round_robin\"\ncookie = \"insert\"\n\
            backend = [\"127.0.0.1:2\", \"127.0.0.1:3\"]\n";
        Arc::clone(&Snapshot::of_text(text).pools[0])
    }

    #[tokio::test]
    async fn requests_wait_for_the_first_one_and_follow_it() {
        let (pool, follow) = (pool(), Follow::default());
        let turn = follow.turn(&pool, |_| true).await;
        assert!(matches!(turn, Turn::First(_)));
        let followed = AtomicUsize::new(0);
        let others = async {
            let wait = async || {
                assert!(matches!(follow.turn(&pool, |_| true).await, Turn::Follows(1)));
                followed.fetch_add(1, Relaxed);
            };
            tokio::join!(wait(), wait(), wait());
        };
        let first = async {
            tokio::task::yield_now().await;
            assert_eq!(followed.load(Relaxed), 0);
            follow.note_placed(&pool, &pool.backends()[1], true);
            drop(turn);
        };
        tokio::join!(others, first);
        assert_eq!(followed.load(Relaxed), 3);
        assert!(matches!(follow.turn(&pool, |index| index != 1).await, Turn::First(_)), "the backend serves no more");
    }

    #[tokio::test]
    async fn two_different_cookies_or_a_trusted_peer_end_it() {
        let pool = pool();
        let serves = |_: usize| true;
        let follow = Follow::default();
        follow.note_placed(&pool, &pool.backends()[0], true);
        follow.note_cookie(b"one");
        follow.note_cookie(b"one");
        assert!(matches!(follow.turn(&pool, serves).await, Turn::Follows(0)));
        follow.note_cookie(b"two");
        follow.note_cookie(b"one");
        assert!(matches!(follow.turn(&pool, serves).await, Turn::Alone));
        assert!(matches!(Follow::new(true).turn(&pool, serves).await, Turn::Alone));
    }

    #[tokio::test]
    async fn a_request_with_a_cookie_is_followed_only_where_none_without_was_placed() {
        let (pool, follow) = (pool(), Follow::default());
        let [first, second] = [0, 1].map(|index| &pool.backends()[index]);
        follow.note_placed(&pool, second, false);
        follow.note_placed(&pool, first, false);
        assert!(matches!(follow.turn(&pool, |_| true).await, Turn::Follows(1)));
        follow.note_placed(&pool, first, true);
        assert!(matches!(follow.turn(&pool, |_| true).await, Turn::Follows(0)));
    }

    #[test]
    fn requests_without_a_cookie_of_a_split_follow_until_two_pools_are_named() {
        let [split, stable, canary] = ["web", "stable", "canary"].map(Arc::<str>::from);
        let follow = Follow::default();
        assert_eq!(follow.pool_of_split("web"), None);
        follow.note_split(&split, &canary, false);
        follow.note_split(&split, &canary, true);
        assert_eq!((follow.pool_of_split("web"), follow.pool_of_split("api")), (Some(canary.clone()), None));
        // The first pool is gone, and another one was chosen.
        follow.note_split(&split, &stable, false);
        assert_eq!(follow.pool_of_split("web"), Some(stable));
        follow.note_split(&split, &canary, true);
        follow.note_split(&split, &canary, false);
        assert_eq!(follow.pool_of_split("web"), None, "two clients share the connection");
        let trusted = Follow::new(true);
        trusted.note_split(&split, &canary, false);
        assert_eq!(trusted.pool_of_split("web"), None);
    }

    #[test]
    fn all_get_one_cookie_line_while_it_is_new() {
        let (pool, follow) = (pool(), Follow::default());
        let line =
            |backend, now, text: &str| follow.cookie_line(&pool, backend, now, || Some(text.to_owned())).unwrap();
        assert_eq!(line(0, 5, "before"), "before", "nothing is placed");
        follow.note_placed(&pool, &pool.backends()[0], true);
        assert_eq!([line(0, 10, "a"), line(0, 10 + SAME_COOKIE_S - 1, "b"), line(1, 11, "other")], ["a", "a", "other"]);
        assert_eq!([line(0, 10 + SAME_COOKIE_S, "c"), line(0, 100, "d")], ["c", "c"]);
        follow.note_placed(&pool, &pool.backends()[1], true);
        assert_eq!(line(1, 101, "e"), "e", "a move has a line of its own");
    }
}
