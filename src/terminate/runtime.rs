//! The runtimes: [`Runtimes`] starts one thread beside each worker, with a tokio runtime of its own for the
//! conversations that the worker hands over.
//!
//! Serves no conversation (`mod.rs` does), and shares no work among threads (`threads` does). Invariant: a conversation
//! never leaves its thread, and only that thread writes its counters.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tokio::time::Instant;

use super::drain::Drain;
use super::handshakes::Handshakes;
use super::pipe;
use super::state::ConversationState;
use super::timer_fd::TimerFd;
use super::turns::watch_turns;
use crate::access_log::{AccessLog, AccessLogSender, BATCH_MS, LogRecord};
use crate::client_history::ClientHistory;
use crate::clock::{self, Micros};
use crate::connection::{Carried, ConnectionFilter, ConnectionView, Selection};
use crate::counters::{ConversationCounters, Padded};
use crate::outcome::Ended;
use crate::snapshot::Current;
use crate::sticky::cookie::{Nonce, Nonces};
use crate::store::{RecentWrites, Store};
use crate::threads::{Delivery, RunningThread, ThreadCommand, ThreadHandle, core_of};

/// The longest time between two refreshes of the entries of clients that are being served: entries are dated by the
/// minute.
const REFRESH_MAX: Duration = Duration::from_secs(30);
/// The shortest time between two refreshes.
const REFRESH_MIN: Duration = Duration::from_secs(1);

/// What every conversation of one thread uses.
pub struct RuntimeContext {
    /// The worker that hands these conversations over.
    pub worker: usize,
    /// The place of this thread among the counters of listeners and backends.
    pub counters_index: usize,
    /// The snapshot in force.
    pub current: Arc<Current>,
    /// The counters of all runtimes; each writes its own.
    counters: Arc<[Padded<ConversationCounters>]>,
    /// Limits TLS handshakes that are worked at at once in the whole process.
    pub handshakes: Arc<Handshakes>,
    /// Every conversation of this thread by its number and 0, and each request of HTTP/2 that is under way by the number
    /// of its connection and its own.
    pub conversations: RefCell<BTreeMap<(u64, u64), Rc<ConversationState>>>,
    /// The drain of the process, for kept connections.
    pub drain: Drain,
    access_log: RefCell<AccessLogSender>,
    /// True while a task waits to flush the access log.
    flushing: Cell<bool>,
    nonces: RefCell<Nonces>,
    /// The store of learned cookies that several instances share.
    pub store: Arc<Store>,
    /// When each value in use was last sent to the store.
    pub notes: RefCell<RecentWrites>,
    /// Ends waits for the store to the microsecond.
    pub timer_fd: TimerFd,
    /// Memory of moves and endings, in which this thread has a part of its own.
    pub history: Arc<ClientHistory>,
}

impl RuntimeContext {
    /// The context of one thread in tests, which log nothing. Must run inside of a runtime.
    #[cfg(test)]
    pub fn alone(current: &Arc<Current>) -> Rc<Self> {
        let parts = RuntimeParts {
            worker: 0,
            counters_index: 1,
            current: Arc::clone(current),
            counters: std::iter::once(Padded::default()).collect(),
            handshakes: Arc::new(Handshakes::default()),
            store: Arc::new(Store::new(Arc::clone(current))),
            access_log: AccessLogSender::off(),
            history: Arc::new(ClientHistory::new(2, 0)),
        };
        Rc::new(parts.into_context(TimerFd::new().expect("a timer")))
    }

    /// Logs a record; it is flushed together with others, at most [`BATCH_MS`] later.
    pub fn write(self: &Rc<Self>, record: LogRecord) {
        let dropped = self.access_log.borrow_mut().push(record);
        self.counters().log_dropped.add(dropped as u64);
        if !self.flushing.replace(true) {
            let context = Rc::clone(self);
            // While the thread ends there is no runtime; the sender flushes when it is dropped.
            if tokio::runtime::Handle::try_current().is_ok() {
                tokio::task::spawn_local(async move {
                    tokio::time::sleep(Duration::from_millis(BATCH_MS)).await;
                    context.flushing.set(false);
                    context.flush();
                });
            }
        }
    }

    /// Counts and logs a turn of this thread that took too long.
    fn note_stuck(&self, took: Micros) {
        self.counters().stuck.add(1);
        tracing::warn!("runtime {} was busy for {} ms in one turn", self.worker, took / 1_000);
    }

    /// Hands the logged records over to the writer.
    fn flush(&self) {
        let dropped = self.access_log.borrow_mut().flush();
        self.counters().log_dropped.add(dropped as u64);
    }

    /// The counters of this runtime.
    pub fn counters(&self) -> &ConversationCounters {
        &self.counters[self.worker].0
    }

    /// A number that seals one cookie; `None` if the kernel returns no random bytes.
    pub fn nonce(&self) -> Option<Nonce> {
        self.nonces.borrow_mut().next(aws_lc_rs::rand::fill).ok()
    }
}

/// All runtimes of the process.
pub struct Runtimes {
    commands: Box<[UnboundedSender<RuntimeCommand>]>,
    carried: Vec<UnboundedSender<Carried<OwnedFd>>>,
    counters: Arc<[Padded<ConversationCounters>]>,
}

enum RuntimeCommand {
    Thread(ThreadCommand),
    Drain,
    /// Look at the rules: they have changed.
    Reload,
    /// Count the conversations that are older than the drain.
    Older(oneshot::Sender<usize>),
}

impl ThreadHandle for UnboundedSender<RuntimeCommand> {
    fn deliver(&self, command: ThreadCommand) -> Delivery<'_> {
        let _ = self.send(RuntimeCommand::Thread(command));
        Box::pin(std::future::ready(()))
    }
}

impl Runtimes {
    /// Starts the threads; pins thread `i` to the `i`-th of `cores` if there are any. Among the counters of listeners
    /// and backends, the places `count..2 * count` are theirs, behind those of the workers. Each has at most so many
    /// `pipes`.
    pub fn start(
        count: usize,
        pipes: usize,
        current: &Arc<Current>,
        store: &Arc<Store>,
        access_log: &AccessLog,
        history: &Arc<ClientHistory>,
        cores: Option<&[usize]>,
    ) -> io::Result<(Self, Vec<RunningThread>)> {
        let counters: Arc<[_]> = (0..count).map(|_| Padded::default()).collect();
        let handshakes = Arc::new(Handshakes::default());
        let (mut all_commands, mut all_carried, mut threads) = (Vec::new(), Vec::new(), Vec::new());
        for worker in 0..count {
            let (commands, commanded) = unbounded_channel();
            let (carried, incoming) = unbounded_channel();
            let parts = RuntimeParts {
                worker,
                counters_index: count + worker,
                current: Arc::clone(current),
                counters: Arc::clone(&counters),
                handshakes: Arc::clone(&handshakes),
                store: Arc::clone(store),
                access_log: access_log.sender(true),
                history: Arc::clone(history),
            };
            all_commands.push(commands.clone());
            all_carried.push(carried);
            threads.push(RunningThread::spawn(
                format!("runtime-{worker}"),
                core_of(cores, worker),
                Box::new(commands),
                move || {
                    pipe::at_most(pipes);
                    parts.run(incoming, commanded)
                },
            )?);
        }
        Ok((Self { commands: all_commands.into(), carried: all_carried, counters }, threads))
    }

    /// Where workers hand connections over that are to be terminated, by number of the worker.
    pub fn entrances(&self) -> Vec<UnboundedSender<Carried<OwnedFd>>> {
        self.carried.clone()
    }

    /// The counters of each runtime, by number of its worker.
    pub fn counters(&self) -> &[Padded<ConversationCounters>] {
        &self.counters
    }

    /// Begins the drain of the process: kept connections end behind their next response, or when they are quiet.
    pub fn begin_drain(&self) {
        for commands in &self.commands {
            let _ = commands.send(RuntimeCommand::Drain);
        }
    }

    /// Lets connections of HTTP/2 notice that their listener is gone.
    pub fn note_reload(&self) {
        for commands in &self.commands {
            let _ = commands.send(RuntimeCommand::Reload);
        }
    }

    /// Conversations that are open and were accepted before the drain of the process began.
    pub async fn older_than_drain(&self) -> usize {
        let mut older = 0;
        for commands in &self.commands {
            let (reply, counted) = oneshot::channel();
            let _ = commands.send(RuntimeCommand::Older(reply));
            older += counted.await.unwrap_or_default();
        }
        older
    }
}

/// What a thread is given by the one that starts it; a [`RuntimeContext`] cannot leave its thread.
struct RuntimeParts {
    worker: usize,
    counters_index: usize,
    current: Arc<Current>,
    counters: Arc<[Padded<ConversationCounters>]>,
    handshakes: Arc<Handshakes>,
    store: Arc<Store>,
    access_log: AccessLogSender,
    history: Arc<ClientHistory>,
}

impl RuntimeParts {
    fn run(
        self,
        incoming: UnboundedReceiver<Carried<OwnedFd>>,
        commanded: UnboundedReceiver<RuntimeCommand>,
    ) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let timer_fd = {
            let _inside = runtime.enter();
            TimerFd::new()?
        };
        let context = Rc::new(self.into_context(timer_fd));
        let tasks = LocalSet::new();
        let served = tasks.run_until(serve(Rc::clone(&context), incoming, commanded));
        runtime.block_on(watch_turns(served, |took| context.note_stuck(took)));
        Ok(())
    }

    fn into_context(self, timer_fd: TimerFd) -> RuntimeContext {
        RuntimeContext {
            worker: self.worker,
            counters_index: self.counters_index,
            current: self.current,
            counters: self.counters,
            handshakes: self.handshakes,
            conversations: RefCell::default(),
            drain: Drain::default(),
            access_log: RefCell::new(self.access_log),
            flushing: Cell::new(false),
            nonces: RefCell::new(Nonces::new()),
            store: self.store,
            notes: RefCell::default(),
            timer_fd,
            history: self.history,
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
            () = &mut tick => {
                pipe::trim();
                tick.as_mut().reset(Instant::now() + refresh(&context));
            }
            () = context.timer_fd.expired() => {}
            Some(carried) = incoming.recv() => {
                tokio::task::spawn_local(super::serve(Rc::clone(&context), carried));
            }
            command = commanded.recv() => match command {
                Some(RuntimeCommand::Thread(ThreadCommand::Stop)) | None => break,
                Some(RuntimeCommand::Thread(command)) => handle(&context, command),
                Some(RuntimeCommand::Drain) => begin_drain(&context),
                Some(RuntimeCommand::Reload) => wake_those_that_hear(&context),
                Some(RuntimeCommand::Older(reply)) => drop(reply.send(older_than_drain(&context))),
            },
        }
    }
    let all = shed(&context, &Selection::All, usize::MAX, Ended::Stopped);
    // Each task gets a turn in which it counts and logs its end.
    for _ in 0..=all.min(1) {
        tokio::task::yield_now().await;
    }
    context.flush();
}

fn handle(context: &RuntimeContext, command: ThreadCommand) {
    match command {
        ThreadCommand::List(filter, found) => drop(found.send(list(context, &filter))),
        ThreadCommand::Open(found) => {
            drop(
                found.send(
                    context
                        .conversations
                        .borrow()
                        .values()
                        .filter_map(|state| state.record(|record| record.open()))
                        .collect(),
                ),
            );
        }
        ThreadCommand::Shed { selection, count, ended, done } => {
            let _ = done.send(shed(context, &selection, count, ended));
            // Connections to backends that no request uses belong to none of the selected ones.
            wake_those_that_hear(context);
        }
        ThreadCommand::Ping(done) => drop(done.send(())),
        // Ends the loop of `serve`.
        ThreadCommand::Stop => {}
    }
}

fn begin_drain(context: &RuntimeContext) {
    context.drain.begin(clock::now());
    wake_those_that_hear(context);
}

/// Lets connections look at the drain and at the rules; each sets its timer anew.
fn wake_those_that_hear(context: &RuntimeContext) {
    context.conversations.borrow().values().filter(|state| state.hears_of_drain()).for_each(|state| state.wake());
}

fn older_than_drain(context: &RuntimeContext) -> usize {
    let is_older = |state: &&Rc<ConversationState>| state.record(|record| context.drain.began_after(record.accepted));
    let conversations = context.conversations.borrow();
    conversations.iter().filter(|((_, request), _)| *request == 0).map(|(_, state)| state).filter(is_older).count()
}

/// Refreshes the entries of clients that are being served, and returns when to do so again. The shared store keeps an
/// entry for `remember` to the millisecond, so each is refreshed four times in that.
fn refresh(context: &RuntimeContext) -> Duration {
    let snapshot = context.current.load();
    for state in context.conversations.borrow().values().filter(|state| state.is_serving()) {
        state.refresh(&snapshot, |pool, value, key, backend| context.keep_in_store(pool, value, key, backend));
    }
    let learned = snapshot.pools.iter().filter_map(|pool| pool.config().cookie.as_ref()?.max_idle());
    learned.min().map_or(REFRESH_MAX, |remember| (remember / 4).clamp(REFRESH_MIN, REFRESH_MAX))
}

fn list(context: &RuntimeContext, filter: &ConnectionFilter) -> (usize, Vec<ConnectionView>) {
    let conversations = context.conversations.borrow();
    let now = clock::now();
    let matches = |state: &&Rc<ConversationState>| state.record(|record| record.matches(filter));
    let shown = conversations.values().filter(matches).take(filter.limit);
    let shown = shown.map(|state| state.record(|record| record.view(context.worker, now))).collect();
    let (mut open, mut last) = (0, None);
    for ((id, _), _) in conversations.iter().filter(|(_, state)| matches(state)) {
        // Requests of HTTP/2 are shown beside their connection, and are none themselves.
        open += usize::from(last.replace(id) != Some(id));
    }
    (open, shown)
}

/// Cancels the longest idle of the selected conversations, at most `count`, and returns how many. Those that a command
/// has cancelled before, and that are still ending, do not count.
fn shed(context: &RuntimeContext, selection: &Selection, count: usize, ended: Ended) -> usize {
    let conversations = context.conversations.borrow();
    // Requests of HTTP/2 end with their connection.
    let counts = |request: u64| request == 0 || !matches!(selection, Selection::All);
    let open = conversations.iter().filter(|((_, request), _)| counts(*request)).map(|(_, state)| state);
    let open = open.filter(|state| state.cancelled_by().is_none());
    let mut selected: Vec<_> = open.filter(|state| state.record(|record| record.is_selected(selection))).collect();
    selected.sort_unstable_by_key(|state| state.last_active());
    selected.iter().take(count).for_each(|state| state.cancel(ended));
    selected.len().min(count)
}
