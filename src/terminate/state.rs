//! A conversation's state: what others may see of it, how they end it, and how its end is counted and told.
//!
//! Decides nothing. Invariant: every conversation is counted here once, with one ending; one whose task panicked too.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use super::runtime::RuntimeContext;
use crate::access_log::{self, LogRecord, Message};
use crate::admission::Permit;
use crate::clock::{self, Micros};
use crate::config::LogLevel;
use crate::connection::{ClientInfo, ConnectionFilter, ConnectionView, OpenConnection, Selection};
use crate::outcome::{BreakCause, Ended, PickReason};
use crate::pool::{Backend, Pick, Pool, Remember};
use crate::server_name::ServerName;
use crate::snapshot::{Listener, Snapshot};
use crate::sticky::cookie::RememberedValue;

/// What a conversation is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConversationStage {
    /// TLS with the client.
    Handshake,
    /// Waiting for the first head, or for the rest of one.
    Head,
    /// Connecting.
    Connect,
    /// A request and its response.
    Exchange,
    /// Nothing is under way: the connection is kept.
    Upstreams,
    /// Moving bytes.
    Relay,
}

impl ConversationStage {
    fn word(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Head => "head",
            Self::Connect => "connect",
            Self::Exchange => "exchange",
            Self::Upstreams => "kept",
            Self::Relay => "relay",
        }
    }
}

/// What the rest of the thread sees of a conversation.
#[derive(Debug)]
pub struct ConversationState {
    stage: Cell<ConversationStage>,
    last_active: Cell<Micros>,
    bytes_up: Cell<u64>,
    bytes_down: Cell<u64>,
    pool: RefCell<Option<Arc<str>>>,
    backend: RefCell<Option<Arc<Backend>>>,
    reason: Cell<Option<PickReason>>,
    range: RefCell<Option<Arc<str>>>,
    attempts: Cell<u8>,
    connect_us: Cell<Option<u64>>,
    broke: Cell<Option<BreakCause>>,
    stay: RefCell<Option<Stay>>,
    cancelled: Cell<Option<Ended>>,
    waker: RefCell<Option<Waker>>,
    view: FixedFacts,
}

/// Where its client has settled, as long as that is to be remembered.
#[derive(Debug)]
struct Stay {
    remember: Remember,
    backend: Arc<Backend>,
    /// The value of a learned cookie.
    value: Option<Rc<[u8]>>,
}

/// What of a connection never changes.
#[derive(Debug)]
struct FixedFacts {
    id: u64,
    accepted: Micros,
    client: Option<SocketAddr>,
    local: bool,
    listener: Arc<str>,
    sni: Option<ServerName>,
}

impl ConversationState {
    fn new(client_info: &ClientInfo, listener: Arc<str>) -> Self {
        Self {
            stage: Cell::new(ConversationStage::Handshake),
            last_active: Cell::new(clock::now()),
            bytes_up: Cell::new(0),
            bytes_down: Cell::new(0),
            pool: RefCell::default(),
            backend: RefCell::default(),
            reason: Cell::new(None),
            range: RefCell::default(),
            attempts: Cell::new(0),
            connect_us: Cell::new(None),
            broke: Cell::new(None),
            stay: RefCell::default(),
            cancelled: Cell::new(None),
            waker: RefCell::default(),
            view: FixedFacts {
                id: client_info.id,
                accepted: client_info.accepted,
                client: client_info.source,
                local: client_info.local,
                listener,
                sni: client_info.sni.clone(),
            },
        }
    }

    /// It does something else from here on.
    pub fn enter(&self, stage: ConversationStage) {
        self.stage.set(stage);
    }

    /// Bytes have moved.
    pub fn moved(&self, up: u64, down: u64, now: Micros) {
        self.bytes_up.set(self.bytes_up.get() + up);
        self.bytes_down.set(self.bytes_down.get() + down);
        self.last_active.set(now);
    }

    /// It belongs to this pool.
    pub fn routed(&self, pool: Arc<str>) {
        *self.pool.borrow_mut() = Some(pool);
    }

    /// A backend was picked.
    pub fn picked(&self, pick: &Pick<'_>) {
        *self.backend.borrow_mut() = Some(Arc::clone(pick.backend));
        self.reason.set(Some(pick.reason));
        *self.range.borrow_mut() = pick.range.cloned();
    }

    /// Attempts to connect were made, and the last took so long, if it succeeded.
    pub fn connected(&self, attempts: u8, connect_us: Option<u64>) {
        self.attempts.set(self.attempts.get().saturating_add(attempts));
        self.connect_us.set(connect_us.or(self.connect_us.get()));
    }

    /// It stands at a backend of this pool: what is counted, told and remembered of that, and by which value of a
    /// learned cookie.
    pub fn settled(&self, pool: &Pool, broke: Option<BreakCause>, remember: Option<Remember>, value: Option<Rc<[u8]>>) {
        if let Some(cause) = broke {
            pool.count_break(cause);
        }
        self.broke.set(broke);
        let stay = remember.zip(self.backend.borrow().clone());
        let stay = stay.map(|(remember, backend)| Stay { remember, backend, value });
        if let Some((stay, table)) = stay.as_ref().zip(pool.table()) {
            table.settle(stay.remember, &stay.backend, clock::now() / 1_000);
        }
        *self.stay.borrow_mut() = stay;
    }

    /// The application has ended the value by which its client had settled.
    pub fn forgets(&self) {
        self.stay.take();
    }

    /// Its client is still where it has settled. Where nothing is under way, a value that nobody knows any more was ended
    /// by its application on another connection, and others are told of none: they may know of such an end.
    pub fn refresh(&self, snapshot: &Snapshot, context: &RuntimeContext) {
        let stay = self.stay.borrow();
        let Some(Stay { remember, backend, value }) = &*stay else { return };
        let (Some(pool), now_ms) = (snapshot.pool_of(backend), clock::now() / 1_000) else { return };
        let table = pool.table();
        let ended =
            |value: &Rc<[u8]>| table.is_none_or(|table| table.lookup_value(value, now_ms) == RememberedValue::Unknown);
        if !self.is_serving() && value.as_ref().is_some_and(ended) {
            return;
        }
        if let Some(table) = table {
            table.refresh(*remember, backend, now_ms);
        }
        if let Some(value) = value.as_ref().filter(|_| self.is_serving()) {
            context.keep_in_store(pool, value, remember.key, backend);
        }
    }

    /// Why its last request got another backend than the one its client had settled at.
    pub fn broke(&self) -> Option<BreakCause> {
        self.broke.get()
    }

    /// The pool it belongs to.
    pub fn pool(&self) -> Option<Arc<str>> {
        self.pool.borrow().clone()
    }

    /// The backend that was picked last.
    pub fn backend_name(&self) -> Option<Arc<str>> {
        self.backend.borrow().as_ref().map(|backend| backend.name_shared())
    }

    /// Why that one.
    pub fn reason(&self) -> Option<PickReason> {
        self.reason.get()
    }

    /// Whether its client is being served: a relay, or a request whose response goes on, be it for hours.
    pub fn is_serving(&self) -> bool {
        matches!(self.stage.get(), ConversationStage::Relay | ConversationStage::Exchange)
    }

    /// Whether nothing is under way.
    pub fn is_kept(&self) -> bool {
        self.stage.get() == ConversationStage::Upstreams
    }

    /// When its last byte moved.
    pub fn last_active(&self) -> Micros {
        self.last_active.get()
    }

    /// Whether a command means it.
    pub fn uses(&self, whom: &Selection) -> bool {
        match whom {
            Selection::All => true,
            Selection::Of(backend) => self.backend.borrow().as_ref().is_some_and(|own| Arc::ptr_eq(own, backend)),
        }
    }

    /// Whether somebody wants to see it.
    pub fn wanted(&self, wanted: &ConnectionFilter) -> bool {
        wanted.holds(self.pool.borrow().as_deref(), self.backend.borrow().as_ref().map(|backend| backend.name()))
    }

    /// Ends it; the first to do so says why.
    pub fn cancel(&self, ended: Ended) {
        if self.cancelled.get().is_none() {
            self.cancelled.set(Some(ended));
            if let Some(waker) = self.waker.borrow_mut().take() {
                waker.wake();
            }
        }
    }

    /// Waits until somebody ends it.
    pub async fn cancelled(&self) -> Ended {
        poll_fn(|cx| match self.cancelled.get() {
            Some(ended) => Poll::Ready(ended),
            None => {
                *self.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        })
        .await
    }

    /// What a plan looks at, once there is a backend.
    pub fn open(&self) -> Option<OpenConnection> {
        Some(OpenConnection {
            listener: Arc::clone(&self.view.listener),
            backend: Arc::clone(self.backend.borrow().as_ref()?),
            by_cookie: self.reason.get() == Some(PickReason::Cookie),
            source: self.view.client.map(|client| client.ip()),
            local: self.view.local,
            sni: self.view.sni.clone(),
        })
    }

    /// What the admin interface shows.
    pub fn view(&self, worker: usize, now: Micros) -> ConnectionView {
        ConnectionView {
            id: self.view.id,
            worker,
            client: self.view.client.map(|client| client.to_string()),
            listener: self.view.listener.to_string(),
            pool: self.pool.borrow().as_deref().map(str::to_owned),
            backend: self.backend.borrow().as_ref().map(|backend| backend.name().to_owned()),
            reason: self.reason.get().map(PickReason::word),
            sni: self.view.sni.as_ref().map(ToString::to_string),
            stage: self.stage.get().word(),
            age_ms: now.saturating_sub(self.view.accepted) / 1_000,
            idle_ms: now.saturating_sub(self.last_active.get()) / 1_000,
            bytes_up: self.bytes_up.get(),
            bytes_down: self.bytes_down.get(),
        }
    }
}

/// A conversation while it lives.
pub struct Conversation {
    /// What others see.
    pub state: Rc<ConversationState>,
    /// The thread's.
    pub context: Rc<RuntimeContext>,
    /// Who the client is.
    pub client_info: ClientInfo,
    /// Its TLS, as the log tells it.
    pub tls: Cell<Option<Box<access_log::TlsLine>>>,
    permit: Permit,
    /// Where it came in, by the rules it was last seen under; nothing, once it needs no rules any more.
    rules: RefCell<Option<Arc<Listener>>>,
    finished: Cell<bool>,
}

impl Conversation {
    /// Puts a conversation among the thread's.
    pub fn begin(
        context: &Rc<RuntimeContext>,
        client_info: ClientInfo,
        permit: Permit,
        listener: Arc<Listener>,
    ) -> Self {
        let state = Rc::new(ConversationState::new(&client_info, Arc::clone(&permit.listener().name)));
        context.conversations.borrow_mut().insert(client_info.id, Rc::clone(&state));
        context.counters().conversations.add(1);
        let rules = RefCell::new(Some(listener));
        let (tls, finished) = (Cell::default(), Cell::new(false));
        Self { state, context: Rc::clone(context), client_info, tls, permit, rules, finished }
    }

    /// The name of its listener.
    pub fn listener_name(&self) -> &Arc<str> {
        &self.permit.listener().name
    }

    /// Where it came in, by the rules in force. A listener that was removed meanwhile still serves what it accepted, by
    /// the rules it had last.
    pub fn listener(&self) -> Option<Arc<Listener>> {
        let mut rules = self.rules.borrow_mut();
        if let Some(listener) = self.context.current.load().listener_of(self.permit.listener()) {
            *rules = Some(Arc::clone(listener));
        }
        rules.clone()
    }

    /// Whether it should hold no descriptor that it can do without.
    pub fn crowded(&self) -> bool {
        self.permit.crowded()
    }

    /// From here on it needs no rules: those of a configuration that is gone shall not stay in stick table for days.
    pub fn forget_rules(&self) {
        self.rules.take();
    }

    /// Counts the ending and tells it.
    pub fn finish(&self, ended: Ended) {
        if self.finished.replace(true) {
            return;
        }
        self.context.conversations.borrow_mut().remove(&self.client_info.id);
        let conversations = &self.context.counters().conversations;
        conversations.set(conversations.value().saturating_sub(1));
        let counters_index = self.context.counters_index;
        let duration_us = clock::now().saturating_sub(self.client_info.accepted);
        self.permit.listener().counters[counters_index].0.ended[ended as usize].add(1);
        if self.state.connect_us.get().is_some()
            && let Some(backend) = &*self.state.backend.borrow()
        {
            backend.counters(counters_index).duration.record_us(duration_us);
        }
        let snapshot = self.context.current.load();
        self.state.refresh(&snapshot, &self.context);
        let log = snapshot.config.process.log;
        if log.connections && (log.level == LogLevel::Debug || !self.client_info.local) {
            self.context.write(LogRecord::Connection(self.line(ended, duration_us)));
        }
    }

    fn line(&self, ended: Ended, duration_us: u64) -> access_log::ConnectionLine {
        let (state, client_info) = (&self.state, &self.client_info);
        let backend = state.backend.borrow();
        access_log::ConnectionLine {
            id: client_info.id,
            started_unix_us: clock::unix_us().saturating_sub(duration_us),
            duration_us,
            client: client_info.source,
            peer: client_info.peer,
            listener: Arc::clone(self.listener_name()),
            sni: client_info.sni.clone(),
            ech: client_info.ech,
            pool: state.pool.borrow().clone(),
            range: state.range.borrow().clone(),
            backend: backend.as_ref().map(|backend| backend.name_shared()),
            reason: state.reason.get(),
            attempts: state.attempts.get(),
            connect_us: state.connect_us.get(),
            bytes_up: state.bytes_up.get(),
            bytes_down: state.bytes_down.get(),
            ended,
            tls: self.tls.take(),
            broke: state.broke.get(),
        }
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        if self.finished.get() {
            return;
        }
        // Whoever does not say how it ends has panicked, or its thread has.
        if std::thread::panicking() {
            let message = "a conversation panicked; its connection was reset, no other was touched".to_owned();
            self.context.write(LogRecord::Message(Message { level: LogLevel::Error, message }));
            self.finish(Ended::Panicked);
        } else {
            self.finish(Ended::Stopped);
        }
    }
}
