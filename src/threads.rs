//! The threads that hold connections, those of both halves: [`Threads`] commands all of them at once.
//!
//! Workers and runtimes take the same commands. What is one rule for both is here: how a number of connections is
//! shared among threads, how a thread is pinned, and what its failure means. How a command reaches a thread, and what
//! the thread does then, is each half's own. Invariant: a thread that fails ends the process, so no client is ever sent
//! to a thread that is gone.

use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use crate::access_log::print_error;
use crate::connection::{ConnectionFilter, ConnectionView, OpenConnection, Selection};
use crate::outcome::Ended;

/// A turn of a thread that takes longer, in microseconds, is counted and logged.
pub const STUCK_US: u64 = 100_000;

/// sysexits.h: an internal error.
const EXIT_INTERNAL: i32 = 70;

/// A command that every thread with connections handles.
#[derive(Debug)]
pub enum ThreadCommand {
    /// Count the connections that match a filter, and show at most `limit` of them.
    List(ConnectionFilter, oneshot::Sender<(usize, Vec<ConnectionView>)>),
    /// Return every connection that has a backend.
    Open(oneshot::Sender<Vec<OpenConnection>>),
    /// End at most `count` of the selected connections, the longest idle first, and return how many were ended.
    Shed {
        /// Which connections may be ended.
        selection: Selection,
        /// How many are ended at most.
        count: usize,
        /// The outcome that is counted and logged for each.
        ended: Ended,
        /// Receives the number of connections that were ended.
        done: oneshot::Sender<usize>,
    },
    /// Reply, to show that the thread is not stuck.
    Ping(oneshot::Sender<()>),
    /// End the thread; connections still open are reset.
    Stop,
}

/// The future that delivers a command.
pub type Delivery<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// How commands reach one thread.
pub trait ThreadHandle: Send + Sync {
    /// Puts a command into the thread's queue, and waits while the queue is full.
    fn deliver(&self, command: ThreadCommand) -> Delivery<'_>;
}

/// One thread that runs.
pub struct RunningThread {
    handle: Box<dyn ThreadHandle>,
    join: JoinHandle<()>,
}

impl RunningThread {
    /// Starts a thread, pinned to `core` if there is one. A panic in `run`, or an error from it, leaves nothing to rely
    /// on: the process ends with code 70, and its supervisor starts another.
    pub fn spawn(
        name: String,
        core: Option<usize>,
        handle: Box<dyn ThreadHandle>,
        run: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let join = std::thread::Builder::new().name(name.clone()).spawn(move || {
            pin(core);
            let failure = match catch_unwind(AssertUnwindSafe(run)) {
                Ok(Ok(())) => return,
                Ok(Err(error)) => format!(": {error}"),
                Err(_) => String::new(),
            };
            print_error(&format!("sessile: thread {name} failed{failure}; the process ends"));
            std::process::exit(EXIT_INTERNAL);
        })?;
        Ok(Self { handle, join })
    }
}

/// All threads that hold connections.
pub struct Threads {
    handles: Box<[Box<dyn ThreadHandle>]>,
    joins: Mutex<Vec<JoinHandle<()>>>,
}

impl Threads {
    /// The given threads, in the order of lists and of shedding.
    pub fn new(threads: impl IntoIterator<Item = RunningThread>) -> Self {
        let (handles, joins): (Vec<_>, Vec<_>) = threads.into_iter().map(|thread| (thread.handle, thread.join)).unzip();
        Self { handles: handles.into(), joins: Mutex::new(joins) }
    }

    /// Counts the connections that match a filter, and returns at most `limit` of them.
    pub async fn list(&self, filter: &ConnectionFilter) -> (usize, Vec<ConnectionView>) {
        let (mut open, mut shown) = (0, Vec::new());
        for handle in &self.handles {
            let filter = ConnectionFilter { limit: filter.limit - shown.len(), ..filter.clone() };
            let (count, views) = request(&**handle, |reply| ThreadCommand::List(filter, reply)).await;
            open += count;
            shown.extend(views);
        }
        (open, shown)
    }

    /// Returns every connection that has a backend.
    pub async fn open_connections(&self) -> Vec<OpenConnection> {
        let mut all = Vec::new();
        for handle in &self.handles {
            all.extend(request(&**handle, ThreadCommand::Open).await);
        }
        all
    }

    /// Ends at most `count` connections, spread over the threads, the longest idle of each first; returns how many were
    /// ended. Fewer than `count` means that no more are open.
    pub async fn shed(&self, selection: &Selection, count: usize, ended: Ended) -> usize {
        let mut total = 0;
        // A thread that holds less than its even share leaves a rest, which the others share evenly in the next round. If
        // one thread took it all, it would close busy connections while the others still hold idle ones.
        let mut holding: Vec<_> = self.handles.iter().collect();
        while total < count && !holding.is_empty() {
            let mut still_holding = Vec::new();
            for (index, handle) in holding.iter().enumerate() {
                let share = (count - total).div_ceil(holding.len() - index);
                let shed = |done| ThreadCommand::Shed { selection: selection.clone(), count: share, ended, done };
                let shed = request(&***handle, shed).await.min(share);
                total += shed;
                if shed == share && share > 0 {
                    still_holding.push(*handle);
                }
            }
            holding = still_holding;
        }
        total
    }

    /// Returns when every thread has replied; a thread that is stuck does not.
    pub async fn answer(&self) {
        for handle in &self.handles {
            request(&**handle, ThreadCommand::Ping).await;
        }
    }

    /// Stops every thread and waits for its end; connections still open are reset.
    pub async fn stop(&self) {
        for handle in &self.handles {
            handle.deliver(ThreadCommand::Stop).await;
        }
        let joins = std::mem::take(&mut *self.joins.lock().unwrap_or_else(PoisonError::into_inner));
        let _ = tokio::task::spawn_blocking(move || joins.into_iter().for_each(|join| drop(join.join()))).await;
    }
}

/// Delivers a command and waits for the reply. A thread that cannot reply any more takes the process with it, so the
/// default is never seen.
async fn request<T: Default>(
    handle: &dyn ThreadHandle,
    command: impl FnOnce(oneshot::Sender<T>) -> ThreadCommand,
) -> T {
    let (sender, reply) = oneshot::channel();
    handle.deliver(command(sender)).await;
    reply.await.unwrap_or_default()
}

/// The cores that this process may use, by number.
pub fn cores() -> Vec<usize> {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).take(count).collect(),
        Err(_) => (0..count).collect(),
    }
}

/// The core that thread number `index` of a half is pinned to; `None` without pinning.
pub fn core_of(cores: Option<&[usize]>, index: usize) -> Option<usize> {
    let cores = cores.filter(|cores| !cores.is_empty())?;
    cores.get(index % cores.len()).copied()
}

/// Pins the thread that calls this. A core that is not allowed leaves the thread unpinned.
fn pin(core: Option<usize>) {
    if let Some(core) = core {
        let mut set = rustix::thread::CpuSet::new();
        set.set(core);
        let _ = rustix::thread::sched_setaffinity(None, &set);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    /// A thread that holds so many connections.
    struct Holds(Arc<AtomicUsize>);

    impl ThreadHandle for Holds {
        fn deliver(&self, command: ThreadCommand) -> Delivery<'_> {
            if let ThreadCommand::Shed { count, done, .. } = command {
                let ended = self.0.load(Relaxed).min(count);
                self.0.fetch_sub(ended, Relaxed);
                let _ = done.send(ended);
            }
            Box::pin(std::future::ready(()))
        }
    }

    fn threads(open: &[usize]) -> (Threads, Vec<Arc<AtomicUsize>>) {
        let held: Vec<_> = open.iter().map(|open| Arc::new(AtomicUsize::new(*open))).collect();
        let running = held.iter().map(|held| {
            let handle = Box::new(Holds(Arc::clone(held)));
            RunningThread::spawn("holds".into(), None, handle, || Ok(())).unwrap()
        });
        (Threads::new(running.collect::<Vec<_>>()), held)
    }

    #[tokio::test]
    async fn what_is_shed_is_spread_evenly_and_ends_as_many_as_there_are() {
        for (open, count, ended, left) in [
            (vec![10, 10, 10, 10], 8, 8, vec![8, 8, 8, 8]),
            (vec![10, 10, 10], 4, 4, vec![8, 9, 9]),
            (vec![0, 10, 0, 0], 6, 6, vec![0, 4, 0, 0]),
            (vec![9, 9, 0, 0], 8, 8, vec![5, 5, 0, 0]),
            (vec![1, 0, 2], 9, 3, vec![0, 0, 0]),
            (vec![], 3, 0, vec![]),
        ] {
            let (threads, held) = threads(&open);
            assert_eq!(threads.shed(&Selection::All, count, Ended::Stopped).await, ended, "{open:?}");
            assert_eq!(held.iter().map(|held| held.load(Relaxed)).collect::<Vec<_>>(), left, "{open:?}");
        }
    }

    #[test]
    fn threads_beyond_the_last_core_begin_again_at_the_first() {
        assert_eq!([0, 1, 2].map(|index| core_of(Some(&[4, 6]), index)), [Some(4), Some(6), Some(4)]);
        assert_eq!((core_of(None, 0), core_of(Some(&[]), 0)), (None, None));
    }
}
