//! [`Conversation`]: a terminated connection with all that it owns, from the hand-over to its end.
//!
//! Decides nothing; `state.rs` holds what changes on the way. Invariant: every conversation is counted here once, with
//! one ending, also if its task panicked.

use std::cell::{Cell, RefCell};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use super::deadline::Timeouts;
use super::runtime::RuntimeContext;
use super::state::ConversationState;
use crate::access_log::{ConnectionLine, LogRecord, LogRules};
use crate::admission::Permit;
use crate::client_history::{NotedEnding, is_noticed};
use crate::clock;
use crate::connection::{ClientInfo, Moving};
use crate::counters::ListenerCounters;
use crate::outcome::{ClientMove, Ended};
use crate::pool::{Backend, Pool};
use crate::snapshot::Listener;

/// A terminated connection, from the hand-over to its end.
pub struct Conversation {
    /// State that the thread's commands see too.
    pub state: Rc<ConversationState>,
    /// Context of the thread's runtime.
    pub context: Rc<RuntimeContext>,
    /// Facts of the client that the worker has collected.
    pub client_info: Rc<ClientInfo>,
    permit: Rc<Permit>,
    /// Number of the request of HTTP/2 that this is; 0: a connection.
    request: u64,
    /// Listener by the rules last seen; `None` once no rules are needed any more.
    rules: RefCell<Option<Rc<JudgingListener>>>,
    finished: Cell<bool>,
}

/// A listener with the rules that judge a conversation. A conversation counts one reference of it, which all threads share;
/// its requests share that by `Rc`.
pub struct JudgingListener(Arc<Listener>);

impl Deref for JudgingListener {
    type Target = Listener;

    fn deref(&self) -> &Listener {
        &self.0
    }
}

impl Conversation {
    /// Begins a conversation and adds it to those of the thread.
    pub fn begin(
        context: &Rc<RuntimeContext>,
        client_info: ClientInfo,
        permit: Permit,
        listener: Arc<Listener>,
    ) -> Self {
        let client_info = Rc::new(client_info);
        let listener_name = Arc::clone(&permit.listener().name);
        let state = Rc::new(ConversationState::new(Rc::clone(&client_info), listener_name));
        context.conversations.borrow_mut().insert((client_info.id, 0), Rc::clone(&state));
        context.counters().conversations.add(1);
        let rules = RefCell::new(Some(Rc::new(JudgingListener(listener))));
        let (context, permit) = (Rc::clone(context), Rc::new(permit));
        Self { state, context, client_info, permit, request: 0, rules, finished: Cell::new(false) }
    }

    /// Begins the request of this number on a connection of HTTP/2: its stages are its own, as is its end by a command;
    /// the permit is the connection's. It is not counted as a conversation, and writes no line of a connection.
    pub fn begin_request(&self, request: u64) -> Self {
        let listener_name = Arc::clone(self.listener_name());
        let state = Rc::new(ConversationState::of_request(&self.state, Rc::clone(&self.client_info), listener_name));
        self.context.conversations.borrow_mut().insert((self.client_info.id, request), Rc::clone(&state));
        Self {
            state,
            context: Rc::clone(&self.context),
            client_info: Rc::clone(&self.client_info),
            permit: Rc::clone(&self.permit),
            request,
            rules: RefCell::new(self.rules.borrow().clone()),
            finished: Cell::new(false),
        }
    }

    /// Number of the request of HTTP/2 that this is; 0: a connection.
    pub fn request(&self) -> u64 {
        self.request
    }

    /// How a command has ended this request of HTTP/2; `None`: it has not, or this is a connection.
    pub fn cancelled_request(&self) -> Option<Ended> {
        self.state.cancelled_by().filter(|_| self.request > 0)
    }

    /// Ends the requests of HTTP/2 on this connection.
    pub fn cancel_requests(&self, ended: Ended) {
        let (conversations, id) = (self.context.conversations.borrow(), self.client_info.id);
        conversations.range((id, 1)..=(id, u64::MAX)).for_each(|(_, state)| state.cancel(ended));
    }

    /// True if the listener that accepted the connection is not in force any more.
    pub fn is_listener_gone(&self) -> bool {
        self.context.current.load().listener_of(self.permit.listener()).is_none()
    }

    /// Name of the listener that accepted the connection.
    pub fn listener_name(&self) -> &Arc<str> {
        &self.permit.listener().name
    }

    /// Counters of this thread for the listener.
    pub fn listener_counters(&self) -> &ListenerCounters {
        &self.permit.listener().counters[self.context.counters_index].0
    }

    /// The listener with the rules that judge the connection: those in force if they would have read of the client what
    /// was read, else those by which it was read. A listener that a reload removed keeps its last rules for the
    /// connections that it accepted. `None` after [`Self::forget_rules`], if the listener is gone.
    pub fn listener(&self) -> Option<Rc<JudgingListener>> {
        let snapshot = self.context.current.load();
        let in_force = snapshot.listener_of(self.permit.listener());
        let mut rules = self.rules.borrow_mut();
        let judge = match rules.as_ref() {
            Some(read_by) => self.client_info.judged_by(in_force, &read_by.0),
            None => in_force?,
        };
        let known = rules.as_ref().filter(|known| Arc::ptr_eq(&known.0, judge)).map(Rc::clone);
        *rules = Some(known.unwrap_or_else(|| Rc::new(JudgingListener(Arc::clone(judge)))));
        rules.clone()
    }

    /// Timeouts of the configuration in force, for requests of a pool or for a client that has none yet.
    pub fn timeouts(&self, pool: Option<&Pool>) -> Timeouts {
        let listener = self.listener();
        let nearer =
            [listener.as_ref().map(|listener| &listener.config.limits), pool.map(|pool| &pool.config().limits)];
        Timeouts::of(&self.context.current.load().config.limits, nearer.into_iter().flatten())
    }

    /// The right of the connection to be served.
    pub fn permit(&self) -> &Permit {
        &self.permit
    }

    /// True if descriptors are scarce: the conversation then holds none that it can do without.
    pub fn crowded(&self) -> bool {
        self.permit.crowded()
    }

    /// Drops the rules: a relay needs none, and would keep those of an old configuration in memory for days.
    pub fn forget_rules(&self) {
        self.rules.take();
    }

    /// Notes that the client has got another backend than it had, if it did and the state says so, which is placed before;
    /// `cookie` is the hash of the one it brought.
    pub fn note_move(
        &self,
        pool: &Pool,
        moved: Option<&ClientMove>,
        to: &Arc<Backend>,
        cookie: impl FnOnce() -> Option<u64>,
    ) {
        if let Some(moved) = moved.filter(|_| self.state.has_moved()) {
            let ClientInfo { source, id, .. } = *self.client_info;
            let client = Moving { address: source, connection: id, cookie: cookie() };
            self.context.history.moved(self.context.counters_index, client.noted(pool, moved, to));
        }
    }

    /// Notes an ending of the connection or of a request, if a client notices it.
    pub fn note_ending(&self, ended: Ended, is_request: bool) {
        if is_noticed(ended) {
            let noted = self.state.record(|record| record.noted(ended));
            self.context.history.ended(self.context.counters_index, NotedEnding { is_request, ..noted });
        }
    }

    /// Counts the ending and writes the line of the access log; a second call does nothing.
    pub fn finish(&self, ended: Ended) {
        if self.finished.replace(true) {
            return;
        }
        self.leave();
        let conversations = &self.context.counters().conversations;
        conversations.set(conversations.value().saturating_sub(1));
        let counters_index = self.context.counters_index;
        let duration_us = clock::now().saturating_sub(self.client_info.accepted);
        self.listener_counters().ended[ended as usize].add(1);
        if let Some(backend) = self.state.connected_backend() {
            backend.counters(counters_index).duration.record_us(duration_us);
        }
        self.note_ending(ended, false);
        let snapshot = self.context.current.load();
        let (id, local, moved) = (self.client_info.id, self.client_info.local, self.state.has_moved());
        if let Some(sample) = LogRules::of(&snapshot.config.process.log).connection(id, local, ended, moved) {
            let line = ConnectionLine { sample, ..self.state.line(ended, duration_us) };
            self.context.write(LogRecord::Connection(line));
        }
    }
}

impl Conversation {
    /// Takes the conversation off the list, and refreshes what is stored of its client.
    fn leave(&self) {
        let context = &self.context;
        context.conversations.borrow_mut().remove(&(self.client_info.id, self.request));
        let snapshot = context.current.load();
        self.state.refresh(&snapshot, |pool, value, key, backend| context.keep_in_store(pool, value, key, backend));
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        if self.request > 0 {
            return self.leave();
        }
        if self.finished.get() {
            return;
        }
        // Dropped without an ending: its task panicked, or its thread stops.
        if std::thread::panicking() {
            tracing::error!("a conversation panicked; its connection was reset, no other was touched");
            self.finish(Ended::Panicked);
        } else {
            self.finish(Ended::Stopped);
        }
    }
}
