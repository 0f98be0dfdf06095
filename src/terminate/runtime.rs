//! The threads of conversations: one per worker, each with a runtime of its own for the conversations that its worker
//! hands over.
//!
//! Tells no story (`mod.rs` does). Invariant: a conversation never leaves its thread, and what a thread counts is
//! written by it alone.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tokio::time::Instant;

use super::handshakes::Handshakes;
use super::state::ConversationState;
use super::timer_fd::TimerFd;
use crate::access_log::{AccessLog, AccessLogSender, BATCH_MS, LogRecord};
use crate::clock;
use crate::connection::{Carried, ConnectionFilter, ConnectionView, OpenConnection, Selection};
use crate::counters::{ConversationCounters, Padded};
use crate::outcome::Ended;
use crate::snapshot::Current;
use crate::sticky::cookie::{Nonce, Nonces};
use crate::store::{RecentWrites, Store};

/// sysexits.h: an internal error.
const EXIT_INTERNAL: i32 = 70;

/// At least so often what is remembered of clients that are being served is refreshed: entries are dated by the minute.
const REFRESH_MAX: Duration = Duration::from_secs(30);
/// More often nothing is refreshed.
const REFRESH_MIN: Duration = Duration::from_secs(1);

/// What every conversation of a thread uses.
pub struct RuntimeContext {
    /// The worker whose conversations these are.
    pub worker: usize,
    /// The place of this thread among the counters of listeners and backends.
    pub counters_index: usize,
    /// What is configured.
    pub current: Arc<Current>,
    /// What they count; all threads' are there, and each writes its own.
    counters: Arc<[Padded<ConversationCounters>]>,
    /// Turns for handshakes, of the whole process.
    pub handshakes: Arc<Handshakes>,
    /// Every conversation, by its number.
    pub conversations: RefCell<BTreeMap<u64, Rc<ConversationState>>>,
    /// The process is about to stop: nothing new begins on a connection that is kept.
    pub stopping: Cell<bool>,
    access_log: RefCell<AccessLogSender>,
    flushing: Cell<bool>,
    nonces: RefCell<Nonces>,
    /// What instances know together.
    pub store: Arc<Store>,
    /// What this thread has told it lately.
    pub notes: RefCell<RecentWrites>,
    /// Ends waits for it.
    pub timer_fd: TimerFd,
}

impl RuntimeContext {
    /// Writes a line; it leaves with others, soon.
    pub fn write(self: &Rc<Self>, record: LogRecord) {
        self.access_log.borrow_mut().push(record);
        if !self.flushing.replace(true) {
            let context = Rc::clone(self);
            // No runtime any more: the sender flushes when it is dropped.
            if tokio::runtime::Handle::try_current().is_ok() {
                tokio::task::spawn_local(async move {
                    tokio::time::sleep(Duration::from_millis(BATCH_MS)).await;
                    context.flushing.set(false);
                    context.access_log.borrow_mut().flush();
                });
            }
        }
    }

    /// What these conversations count.
    pub fn counters(&self) -> &ConversationCounters {
        &self.counters[self.worker].0
    }

    /// A number for one sealed cookie; `None` if the kernel has no random bytes to give.
    pub fn nonce(&self) -> Option<Nonce> {
        self.nonces.borrow_mut().next(aws_lc_rs::rand::fill).ok()
    }
}

/// All threads of conversations.
pub struct Runtimes {
    runtimes: Box<[UnboundedSender<RuntimeCommand>]>,
    carried: Vec<UnboundedSender<Carried<OwnedFd>>>,
    counters: Arc<[Padded<ConversationCounters>]>,
}

enum RuntimeCommand {
    List(ConnectionFilter, oneshot::Sender<(usize, Vec<ConnectionView>)>),
    Open(oneshot::Sender<Vec<OpenConnection>>),
    Shed { whom: Selection, count: usize, ended: Ended, done: oneshot::Sender<usize> },
    Drain,
    Stop,
}

impl Runtimes {
    /// Starts the threads; pins thread i to the i-th of `cores` if there are any. Their counters are those behind the
    /// workers': seats `count` to `2 * count`.
    pub fn start(
        count: usize,
        current: &Arc<Current>,
        store: &Arc<Store>,
        access_log: &AccessLog,
        cores: Option<&[usize]>,
    ) -> io::Result<(Self, Vec<JoinHandle<()>>)> {
        let counters: Arc<[_]> = (0..count).map(|_| Padded::default()).collect();
        let handshakes = Arc::new(Handshakes::default());
        let (mut runtimes, mut senders, mut threads) = (Vec::new(), Vec::new(), Vec::new());
        for worker in 0..count {
            let (commands, commanded) = unbounded_channel();
            let (carried, incoming) = unbounded_channel();
            runtimes.push(commands);
            senders.push(carried);
            let (current, handshakes, access_log) =
                (Arc::clone(current), Arc::clone(&handshakes), access_log.sender(true));
            let (counters, store) = (Arc::clone(&counters), Arc::clone(store));
            let core = cores.map(|cores| cores[worker % cores.len()]);
            let run = move || -> io::Result<()> {
                pin(core);
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let timer_fd = {
                    let _inside = runtime.enter();
                    TimerFd::new()?
                };
                let context = Rc::new(RuntimeContext {
                    worker,
                    counters_index: count + worker,
                    current,
                    counters,
                    handshakes,
                    conversations: RefCell::default(),
                    stopping: Cell::new(false),
                    access_log: RefCell::new(access_log),
                    flushing: Cell::new(false),
                    nonces: RefCell::new(Nonces::new()),
                    store,
                    notes: RefCell::default(),
                    timer_fd,
                });
                LocalSet::new().block_on(&runtime, serve(context, incoming, commanded));
                Ok(())
            };
            threads.push(std::thread::Builder::new().name(format!("converse-{worker}")).spawn(move || {
                // What is left then cannot be relied on, as with a worker.
                let well = catch_unwind(AssertUnwindSafe(run)).is_ok_and(|ran| ran.is_ok());
                if !well {
                    eprintln!("sessile: the conversations of worker {worker} failed; the process ends");
                    std::process::exit(EXIT_INTERNAL);
                }
            })?);
        }
        Ok((Self { runtimes: runtimes.into(), carried: senders, counters }, threads))
    }

    /// Where workers hand conversations over, by worker.
    pub fn entrances(&self) -> Vec<UnboundedSender<Carried<OwnedFd>>> {
        self.carried.clone()
    }

    /// What each thread counts.
    pub fn counters(&self) -> &[Padded<ConversationCounters>] {
        &self.counters
    }

    /// How many conversations are wanted, and at most `limit` of them.
    pub async fn list(&self, wanted: &ConnectionFilter) -> (usize, Vec<ConnectionView>) {
        let (mut open, mut shown) = (0, Vec::new());
        for context in &self.runtimes {
            let (sender, found) = oneshot::channel();
            let limit = wanted.limit - shown.len();
            let _ = context.send(RuntimeCommand::List(ConnectionFilter { limit, ..wanted.clone() }, sender));
            let (count, views) = found.await.unwrap_or_default();
            open += count;
            shown.extend(views);
        }
        (open, shown)
    }

    /// Every conversation that has a backend.
    pub async fn opened(&self) -> Vec<OpenConnection> {
        let mut all = Vec::new();
        for context in &self.runtimes {
            let (sender, found) = oneshot::channel();
            let _ = context.send(RuntimeCommand::Open(sender));
            all.extend(found.await.unwrap_or_default());
        }
        all
    }

    /// Ends at most `count` conversations, spread over the threads, the quietest of each first; answers how many.
    pub async fn shed(&self, whom: &Selection, count: usize, ended: Ended) -> usize {
        let mut total = 0;
        for (index, context) in self.runtimes.iter().enumerate() {
            let share = (count - total).div_ceil(self.runtimes.len() - index);
            let (done, answer) = oneshot::channel();
            let _ = context.send(RuntimeCommand::Shed { whom: whom.clone(), count: share, ended, done });
            total += answer.await.unwrap_or(0);
        }
        total
    }

    /// The process is about to stop: connections that are kept without a request close now, others after theirs.
    pub fn begin_drain(&self) {
        for context in &self.runtimes {
            let _ = context.send(RuntimeCommand::Drain);
        }
    }

    /// Ends the threads; conversations still open are reset.
    pub fn stop(&self) {
        for context in &self.runtimes {
            let _ = context.send(RuntimeCommand::Stop);
        }
    }
}

async fn serve(
    context: Rc<RuntimeContext>,
    mut incoming: UnboundedReceiver<Carried<OwnedFd>>,
    mut commanded: UnboundedReceiver<RuntimeCommand>,
) {
    let mut tick = pin!(tokio::time::sleep(refresh(&context)));
    loop {
        tokio::select! {
            () = &mut tick => tick.as_mut().reset(Instant::now() + refresh(&context)),
            () = context.timer_fd.expired() => {}
            Some(carried) = incoming.recv() => {
                tokio::task::spawn_local(super::serve(Rc::clone(&context), carried));
            }
            command = commanded.recv() => match command {
                Some(RuntimeCommand::List(wanted, found)) => drop(found.send(list(&context, &wanted))),
                Some(RuntimeCommand::Open(found)) => {
                    drop(found.send(context.conversations.borrow().values().filter_map(|state| state.record(|record| record.open())).collect()));
                }
                Some(RuntimeCommand::Shed { whom, count, ended, done }) => {
                    let _ = done.send(shed(&context, &whom, count, ended));
                }
                Some(RuntimeCommand::Drain) => {
                    context.stopping.set(true);
                    let conversations = context.conversations.borrow();
                    conversations.values().filter(|state| state.is_kept()).for_each(|state| state.cancel(Ended::Stopped));
                }
                Some(RuntimeCommand::Stop) | None => break,
            },
        }
    }
    let all = shed(&context, &Selection::All, usize::MAX, Ended::Stopped);
    // Each has its turn to say so.
    for _ in 0..=all.min(1) {
        tokio::task::yield_now().await;
    }
    context.access_log.borrow_mut().flush();
}

/// Refreshes what is remembered of clients that are being served, and says when to do so again: the store keeps what it
/// was told for `remember` to the millisecond, and hears of each four times in that.
fn refresh(context: &RuntimeContext) -> Duration {
    let snapshot = context.current.load();
    context
        .conversations
        .borrow()
        .values()
        .filter(|state| state.is_serving())
        .for_each(|state| state.refresh(&snapshot, context));
    let learned = snapshot.pools.iter().filter_map(|pool| pool.config().cookie.as_ref()?.max_idle());
    learned.min().map_or(REFRESH_MAX, |remember| (remember / 4).clamp(REFRESH_MIN, REFRESH_MAX))
}

fn list(context: &RuntimeContext, wanted: &ConnectionFilter) -> (usize, Vec<ConnectionView>) {
    let conversations = context.conversations.borrow();
    let now = clock::now();
    let matches = |state: &&Rc<ConversationState>| state.record(|record| record.matches(wanted));
    let shown = conversations.values().filter(matches).take(wanted.limit);
    let shown = shown.map(|state| state.record(|record| record.view(context.worker, now))).collect();
    (conversations.values().filter(matches).count(), shown)
}

fn shed(context: &RuntimeContext, whom: &Selection, count: usize, ended: Ended) -> usize {
    let conversations = context.conversations.borrow();
    let mut meant: Vec<_> =
        conversations.values().filter(|state| state.record(|record| record.is_selected(whom))).collect();
    meant.sort_unstable_by_key(|state| state.last_active());
    meant.iter().take(count).for_each(|state| state.cancel(ended));
    meant.len().min(count)
}

fn pin(core: Option<usize>) {
    if let Some(core) = core {
        let mut set = rustix::thread::CpuSet::new();
        set.set(core);
        let _ = rustix::thread::sched_setaffinity(None, &set);
    }
}
