//! [`ConversationState`]: the stage of a terminated connection, what its stages have brought so far, and how a command
//! sees or ends it.
//!
//! Decides nothing and owns no socket. Invariant: whatever others see of a conversation was set by entering a
//! [`ConversationStage`], so that list, plan and access log tell of one order of events.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use super::stream::AlertNote;
use crate::access_log;
use crate::attempt;
use crate::clock::{self, Micros};
use crate::connection::{ClientInfo, ConnectionRecord};
use crate::outcome::{ClientMove, Ended, PickReason};
use crate::pool::{Backend, Pick, Pool, Remember};
use crate::snapshot::Snapshot;
use crate::split::ChosenBy;
use crate::sticky::table::{KeyHash, TableLookup};

/// A stage of a conversation, with what is known from there on.
///
/// With requests: `Handshake` → `Secured` → `Head` → `Route` → (`Wait`) → `Connect` → `Connected` → `Placed` →
/// `Exchange` → `Kept` → `Head` …; a connection that is kept to the picked backend makes it `Reuse` instead of
/// `Connect` and `Connected`. Without requests, and after an Upgrade, the last stage is `Relay`.
#[derive(Debug)]
pub enum ConversationStage<'a> {
    /// The connection is routed to this pool; TLS with the client comes first, if the route terminates it.
    Handshake { pool: &'a Arc<str> },
    /// TLS with the client stands; what the access log tells of it.
    Secured { tls: Option<Box<access_log::TlsLine>> },
    /// Waits for the first head, or for the rest of one.
    Head,
    /// A head is complete and its request belongs to this pool.
    Route { pool: &'a Arc<str> },
    /// Waits for the client's backend, which is down.
    Wait,
    /// Uses a connection that is kept to the picked backend.
    Reuse { pick: &'a Pick<'a> },
    /// Connects to the picked backend; once more for each further pick.
    Connect { pick: &'a Pick<'a> },
    /// No attempt succeeded, and there will be no other.
    ConnectFailed { attempts: u8 },
    /// The last attempt succeeded, and took this many microseconds.
    Connected { attempts: u8, connect_us: Micros },
    /// The backend is final: counts a broken placement, and stores the new one.
    Placed(Placed<'a>),
    /// A request and its response are under way.
    Exchange,
    /// The connection is kept and waits for another request.
    Kept,
    /// Bytes pass both ways until the end.
    Relay,
    /// Requests of HTTP/2, each with stages of its own.
    Http2,
}

/// How a client came to its backend, and what is stored of that.
#[derive(Debug)]
pub struct Placed<'a> {
    /// Pool that the backend was picked from.
    pub pool: &'a Pool,
    /// From which backend a known client has moved, and why, unless another connection has moved it meanwhile; `None`: it
    /// has not.
    pub moved: Option<ClientMove>,
    /// Entry for the pool's stick table; `None`: the pool keeps none for this client.
    pub remember: Option<Remember>,
    /// Value of a learned cookie, if that names the entry.
    pub value: Option<Rc<[u8]>>,
}

/// State of one conversation, shared between its task and the thread's commands.
#[derive(Debug)]
pub struct ConversationState {
    client_info: Rc<ClientInfo>,
    listener: Arc<str>,
    /// The connection that a request of HTTP/2 came on.
    connection: Option<Rc<ConversationState>>,
    stage: Cell<StageWord>,
    facts: RefCell<StageFacts>,
    last_active: Cell<Micros>,
    bytes_up: Cell<u64>,
    bytes_down: Cell<u64>,
    /// When the first byte came of the response to the last request that was sent.
    first_byte: Cell<Option<Micros>>,
    cancelled: Cell<Option<Ended>>,
    /// The alert by which TLS failed last, with the client or with a backend.
    alert: AlertNote,
    waker: RefCell<Option<Waker>>,
    ends_itself: Cell<bool>,
}

impl ConversationState {
    /// State of a connection that was just handed over.
    pub fn new(client_info: Rc<ClientInfo>, listener: Arc<str>) -> Self {
        Self {
            client_info,
            listener,
            connection: None,
            stage: Cell::new(StageWord::Handshake),
            facts: RefCell::default(),
            last_active: Cell::new(clock::now()),
            bytes_up: Cell::new(0),
            bytes_down: Cell::new(0),
            first_byte: Cell::new(None),
            cancelled: Cell::new(None),
            alert: AlertNote::default(),
            waker: RefCell::default(),
            ends_itself: Cell::new(false),
        }
    }

    /// State of a request that has come on a connection of HTTP/2. Its bytes count for the connection too.
    pub fn of_request(connection: &Rc<Self>, client_info: Rc<ClientInfo>, listener: Arc<str>) -> Self {
        Self { connection: Some(Rc::clone(connection)), ..Self::new(client_info, listener) }
    }

    /// Enters a stage and stores what it brings.
    pub fn enter(&self, stage: ConversationStage<'_>) {
        self.stage.set(StageWord::of(&stage));
        let mut facts = self.facts.borrow_mut();
        match stage {
            ConversationStage::Handshake { pool } | ConversationStage::Route { pool } => {
                keep(&mut facts.pool, pool);
            }
            ConversationStage::Secured { tls } => facts.tls = tls,
            ConversationStage::Reuse { pick } | ConversationStage::Connect { pick } => facts.pick(pick),
            ConversationStage::ConnectFailed { attempts } => facts.count(attempts),
            ConversationStage::Connected { attempts, connect_us } => {
                facts.count(attempts);
                facts.connect_us = Some(connect_us);
            }
            ConversationStage::Placed(placed) => facts.place(placed),
            ConversationStage::Exchange => self.first_byte.set(None),
            ConversationStage::Head
            | ConversationStage::Wait
            | ConversationStage::Kept
            | ConversationStage::Relay
            | ConversationStage::Http2 => {}
        }
    }

    /// Notes the split that has chosen the pool, and by what.
    pub fn note_split(&self, split: &Arc<str>, by: ChosenBy) {
        self.facts.borrow_mut().split = Some((Arc::clone(split), by));
    }

    /// Counts bytes that have moved.
    pub fn moved(&self, up: u64, down: u64, now: Micros) {
        self.bytes_up.set(self.bytes_up.get() + up);
        self.bytes_down.set(self.bytes_down.get() + down);
        self.last_active.set(now);
        if let Some(connection) = &self.connection {
            connection.moved(up, down, now);
        }
    }

    /// Stops refreshing the stick table: the application has ended the cookie's value.
    pub fn forget_placement(&self) {
        self.facts.borrow_mut().stored = None;
    }

    /// Refreshes the client's entry in the stick table, and in the store while a request or a relay is under way.
    ///
    /// Outside of these, a learned value that the table has lost was ended by its application on another connection:
    /// it stays lost, and `store` (pool, value, key, backend) is not called, because another instance may have ended a value as well.
    pub fn refresh(&self, snapshot: &Snapshot, store: impl FnOnce(&Pool, &[u8], KeyHash, &Backend)) {
        let facts = self.facts.borrow();
        let Some(StoredPlacement { remember, backend, value }) = &facts.stored else { return };
        let (Some(pool), now_ms) = (snapshot.pool_of(backend), clock::now_ms()) else { return };
        let table = pool.table();
        let ended =
            |value: &Rc<[u8]>| table.is_none_or(|table| table.lookup_value(value, now_ms) == TableLookup::Unknown);
        if !self.is_serving() && value.as_ref().is_some_and(ended) {
            return;
        }
        if let Some(table) = table {
            table.refresh(*remember, backend, now_ms);
        }
        if let Some(value) = value.as_ref().filter(|_| self.is_serving()) {
            store(pool, value, remember.key, backend);
        }
    }

    /// Where streams of the conversation note the alert by which TLS fails.
    pub fn alert(&self) -> &AlertNote {
        &self.alert
    }

    /// True if the client has moved and no line has said so.
    pub fn has_moved(&self) -> bool {
        self.facts.borrow().moved.is_some()
    }

    /// Gives back a move that was taken for no line.
    pub fn keep_move(&self, moved: ClientMove) {
        self.facts.borrow_mut().moved = Some(moved);
    }

    /// Takes the move of the client for the line of a request: no other line says it again.
    pub fn take_move(&self) -> Option<ClientMove> {
        self.facts.borrow_mut().moved.take()
    }

    /// Bytes so far from the client to backends, and to the client.
    pub fn bytes(&self) -> (u64, u64) {
        (self.bytes_up.get(), self.bytes_down.get())
    }

    /// Notes the first byte of a response.
    pub fn note_first_byte(&self, now: Micros) {
        self.first_byte.set(Some(now));
    }

    /// When the first byte came of the response to the last request that was sent; `None`: none has come.
    pub fn first_byte(&self) -> Option<Micros> {
        self.first_byte.get()
    }

    /// Name of the pool; `None` before the first route.
    pub fn pool(&self) -> Option<Arc<str>> {
        self.facts.borrow().pool.clone()
    }

    /// Name of the backend that was picked last.
    pub fn backend_name(&self) -> Option<Arc<str>> {
        self.facts.borrow().backend.as_ref().map(|backend| backend.name_shared())
    }

    /// Why the last pick chose its backend.
    pub fn reason(&self) -> Option<PickReason> {
        self.facts.borrow().reason
    }

    /// True during a relay, and during an exchange, which may last for hours too.
    pub fn is_serving(&self) -> bool {
        matches!(self.stage.get(), StageWord::Relay | StageWord::Exchange)
    }

    /// True for a connection that has to be told of a drain: it is kept without a request, or has many at once.
    pub fn hears_of_drain(&self) -> bool {
        matches!(self.stage.get(), StageWord::Kept | StageWord::Http2)
    }

    /// Time of the last byte in either direction.
    pub fn last_active(&self) -> Micros {
        self.last_active.get()
    }

    /// Ends the conversation at its next turn; the first call decides the outcome.
    pub fn cancel(&self, ended: Ended) {
        if self.cancelled.get().is_none() {
            self.cancelled.set(Some(ended));
            self.wake();
        }
    }

    /// Gives the conversation a turn.
    pub fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Sets whether the conversation ends in good order by itself once it is cancelled, in a bounded time; the usual way
    /// is to drop it at its next turn.
    pub fn ends_itself(&self, itself: bool) {
        self.ends_itself.set(itself);
    }

    /// The outcome of [`Self::cancel`]; `None`: no command has ended the conversation.
    pub fn cancelled_by(&self) -> Option<Ended> {
        self.cancelled.get()
    }

    /// Waits until [`Self::cancel`] was called on a conversation that does not end itself.
    pub async fn cancelled(&self) -> Ended {
        poll_fn(|cx| match self.cancelled.get().filter(|_| !self.ends_itself.get()) {
            Some(ended) => Poll::Ready(ended),
            None => {
                *self.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        })
        .await
    }

    /// Lends what others see of the conversation.
    pub fn record<T>(&self, look: impl FnOnce(&ConnectionRecord<'_>) -> T) -> T {
        let (client_info, facts) = (&*self.client_info, self.facts.borrow());
        look(&ConnectionRecord {
            id: client_info.id,
            accepted: client_info.accepted,
            last_active: self.last_active.get(),
            client: client_info.source,
            peer: client_info.peer,
            local: client_info.local,
            listener: &self.listener,
            sni: client_info.sni.as_ref(),
            odd_name: client_info.odd_name.as_ref(),
            ech: client_info.ech,
            stage: self.stage.get().text(),
            split: facts.split.as_ref(),
            pool: facts.pool.as_ref(),
            range: facts.range.as_ref(),
            backend: facts.backend.as_ref(),
            reason: facts.reason,
            attempts: facts.attempts,
            connect_us: facts.connect_us,
            bytes_up: self.bytes_up.get(),
            bytes_down: self.bytes_down.get(),
            moved: facts.moved.as_ref(),
        })
    }

    /// Backend of the last pick, if any connect has succeeded.
    pub fn connected_backend(&self) -> Option<Arc<Backend>> {
        let facts = self.facts.borrow();
        facts.backend.clone().filter(|_| facts.connect_us.is_some())
    }

    /// The line of the access log for a conversation that has just ended.
    pub fn line(&self, ended: Ended, duration_us: u64) -> access_log::ConnectionLine {
        let tls = self.facts.borrow_mut().tls.take();
        let is_tls = matches!(
            ended,
            Ended::HandshakeFailed
                | Ended::CertificateRevoked
                | Ended::BadServerName
                | Ended::ClientTls
                | Ended::BackendTls
                | Ended::NotTls
                | Ended::HelloMalformed
                | Ended::HelloTooLong
                | Ended::NoRoute
        );
        let line = self.record(|record| record.line(ended, duration_us, tls));
        access_log::ConnectionLine { alert: self.alert.get().filter(|_| is_tls), ..line }
    }
}

/// What the stages so far have brought.
#[derive(Debug, Default)]
struct StageFacts {
    tls: Option<Box<access_log::TlsLine>>,
    /// The split of connections that has chosen the pool, and by what.
    split: Option<(Arc<str>, ChosenBy)>,
    pool: Option<Arc<str>>,
    /// Backend of the last pick.
    backend: Option<Arc<Backend>>,
    reason: Option<PickReason>,
    range: Option<Arc<str>>,
    /// Connect attempts of all requests together.
    attempts: u8,
    /// Duration of the last successful connect.
    connect_us: Option<Micros>,
    moved: Option<ClientMove>,
    stored: Option<StoredPlacement>,
}

impl StageFacts {
    fn pick(&mut self, pick: &Pick<'_>) {
        keep(&mut self.backend, pick.backend);
        self.reason = Some(pick.reason);
        match pick.range {
            Some(range) => keep(&mut self.range, range),
            None => self.range = None,
        }
    }

    fn count(&mut self, attempts: u8) {
        self.attempts = self.attempts.saturating_add(attempts);
    }

    fn place(&mut self, placed: Placed<'_>) {
        let Placed { pool, moved, remember, value } = placed;
        let mut kept = self.stored.take().map(|stored| stored.backend);
        self.moved = None;
        self.stored = self.backend.as_ref().and_then(|backend| {
            let is_move = attempt::settle(pool, backend, moved.as_ref(), remember, clock::now_ms());
            self.moved = moved.filter(|_| is_move);
            let remember = remember?;
            keep(&mut kept, backend);
            Some(StoredPlacement { remember, backend: kept?, value })
        });
    }
}

/// Keeps a reference, and counts it only if it is not the one that is kept already: the count is memory that the requests
/// of all threads would write.
pub(super) fn keep<T: ?Sized>(kept: &mut Option<Arc<T>>, reference: &Arc<T>) {
    if !kept.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, reference)) {
        *kept = Some(Arc::clone(reference));
    }
}

/// A client's entry in a stick table, to be refreshed while the conversation lasts.
#[derive(Debug)]
struct StoredPlacement {
    remember: Remember,
    backend: Arc<Backend>,
    /// Value of a learned cookie, if that names the entry.
    value: Option<Rc<[u8]>>,
}

/// What lists of connections call the stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StageWord {
    Handshake,
    Head,
    Connect,
    Exchange,
    Kept,
    Relay,
    Http2,
}

impl StageWord {
    fn of(stage: &ConversationStage<'_>) -> Self {
        match stage {
            ConversationStage::Handshake { .. } | ConversationStage::Secured { .. } => Self::Handshake,
            ConversationStage::Head | ConversationStage::Route { .. } => Self::Head,
            ConversationStage::Wait
            | ConversationStage::Reuse { .. }
            | ConversationStage::Connect { .. }
            | ConversationStage::ConnectFailed { .. }
            | ConversationStage::Connected { .. }
            | ConversationStage::Placed(_) => Self::Connect,
            ConversationStage::Exchange => Self::Exchange,
            ConversationStage::Kept => Self::Kept,
            ConversationStage::Relay => Self::Relay,
            ConversationStage::Http2 => Self::Http2,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Head => "head",
            Self::Connect => "connect",
            Self::Exchange => "exchange",
            Self::Kept => "kept",
            Self::Relay => "relay",
            Self::Http2 => "http2",
        }
    }
}
