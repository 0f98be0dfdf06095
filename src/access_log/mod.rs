//! The access log: workers hand over batches of records, one thread formats and writes them.
//!
//! Does not decide what is logged ([`LogRules`] do) and never makes a worker wait: a batch that finds the queue full is
//! dropped, and its length is counted and returned. Lines that the output does not take are counted, and later ones are
//! written again as soon as it takes them. Invariants: a worker makes at most one non-blocking hand-over per
//! [`BATCH_MAX`] records or [`BATCH_MS`], and in steady state allocates nothing, because written batches come back to
//! it; every record that was handed over is written or counted. `schema` has the rule of a line, [`mod@line`] its
//! fields.

use std::fmt;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::config::LogFormat;
use crate::log_field::LogFields;
use crate::outcome::{ClientMove, Ended, PickReason};
use crate::server_name::ServerName;
use crate::split::ChosenBy;
use crate::tls::TlsAlert;

mod appended;
mod event;
mod journal;
mod journal_socket;
pub mod line;
mod messages;
mod output;
mod rules;
mod schema;
mod session;
#[cfg(test)]
mod tests;
mod writer;

pub use self::event::{MessageFormat, set_message_format};
pub use self::journal::{Messages, print_error};
pub use self::messages::{StandardError, finish_messages, messages_lost, report_panics};
pub use self::output::OpenOutput;
pub use self::rules::LogRules;
pub use self::schema::Schema;
pub use self::session::{LastSession, session_hash};

use self::writer::{Work, Writer};

/// Records in a full batch, which is handed over at once.
pub const BATCH_MAX: usize = 256;
/// Longest time that a batch waits after the turn that began it, in milliseconds.
pub const BATCH_MS: u64 = 50;
/// Batches that may wait for the writer; with [`BATCH_MAX`] this bounds the log's memory to a few MiB.
const QUEUE: usize = 64;
/// Empty batches that may wait for their worker.
const SPENT: usize = 4;

/// A record for the log.
#[derive(Debug, Clone)]
pub enum LogRecord {
    /// A connection that has ended.
    Connection(ConnectionLine),
    /// A request that was answered or has failed.
    Request(RequestLine),
}

/// Line of a connection that has ended.
#[derive(Debug, Clone)]
pub struct ConnectionLine {
    /// Number of the connection in this process.
    pub id: u64,
    /// When it was accepted, in microseconds since 1970.
    pub started_unix_us: u64,
    /// Microseconds from accept to end.
    pub duration_us: u64,
    /// Address of the client, announced or seen; `None` for a unix peer.
    pub client: Option<SocketAddr>,
    /// Address of the TCP peer, where the PROXY protocol announced another client.
    pub peer: Option<SocketAddr>,
    /// Name of the listener that accepted it.
    pub listener: Arc<str>,
    /// Server name of the ClientHello, if there was one.
    pub sni: Option<ServerName>,
    /// What the hello has in place of a host name, cut.
    pub odd_name: Option<Arc<str>>,
    /// True if the hello offered ECH: `sni` is the outer name.
    pub ech: bool,
    /// The split of connections that the route leads to, and what has chosen the pool there; `None` if it leads to none.
    pub split: Option<(Arc<str>, ChosenBy)>,
    /// Name of the pool; `None` if it was not routed.
    pub pool: Option<Arc<str>>,
    /// Named range of the pool that contains the client.
    pub range: Option<Arc<str>>,
    /// Name of the backend that was tried last.
    pub backend: Option<Arc<str>>,
    /// Step of the pick that chose the backend.
    pub reason: Option<PickReason>,
    /// Number of connect attempts that were begun.
    pub attempts: u8,
    /// Microseconds that the successful connect attempt took.
    pub connect_us: Option<u64>,
    /// Bytes from the client to the backend.
    pub bytes_up: u64,
    /// Bytes from the backend to the client.
    pub bytes_down: u64,
    /// Ending of the connection.
    pub ended: Ended,
    /// TLS of the client's side, where it ended here.
    pub tls: Option<Box<TlsLine>>,
    /// The move of a client that had another backend; `None` if it did not move.
    pub moved: Option<ClientMove>,
    /// The alert by which TLS failed, with the client or with the backend as `ended` says; `None` if it did not.
    pub alert: Option<TlsAlert>,
    /// For how many connections the line stands: 1 if every one has its line.
    pub sample: u32,
}

/// Result of a client's TLS handshake.
#[derive(Debug, Clone)]
pub struct TlsLine {
    /// Version of the protocol, as `TLSv1.3`.
    pub version: &'static str,
    /// Registered name of the cipher suite.
    pub cipher: Option<&'static str>,
    /// True if an earlier session was resumed.
    pub resumed: bool,
    /// Subject of the client's verified certificate.
    pub subject: Option<String>,
}

/// The name of a request, as text 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(pub u128);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Line of a request, answered or failed.
#[derive(Debug, Clone)]
pub struct RequestLine {
    /// Id of the request, which local replies carry as X-Request-Id.
    pub request: RequestId,
    /// Id that a trusted proxy has given it, which takes the place of ours on its way.
    pub request_id: Option<String>,
    /// Number of its connection in this process.
    pub id: u64,
    /// When its head was complete, in microseconds since 1970.
    pub started_unix_us: u64,
    /// Microseconds from there to the end of the response.
    pub duration_us: u64,
    /// Name of the listener that accepted the connection.
    pub listener: Arc<str>,
    /// Address of the client, announced or seen; `None` for a unix peer.
    pub client: Option<SocketAddr>,
    /// Method of the request line; `None` if the head was refused.
    pub method: Option<String>,
    /// Host that the request is for.
    pub host: Option<String>,
    /// Path of the request without the query; `None` if the head was refused.
    pub path: Option<String>,
    /// User-Agent of the request; `None` if it has none, or it is not logged.
    pub user_agent: Option<String>,
    /// Hash of the session cookie; `None` if the request brought none.
    pub session: Option<u64>,
    /// Status of the response; `None` if no response was begun.
    pub status: Option<u16>,
    /// Number of the route in its listener, from 1; `None` if none decided.
    pub route: Option<u64>,
    /// The split that the route leads to, and what has chosen the pool there; `None` if it leads to none.
    pub split: Option<(Arc<str>, ChosenBy)>,
    /// Name of the pool; `None` if it was not routed.
    pub pool: Option<Arc<str>>,
    /// Name of the backend that was tried last.
    pub backend: Option<Arc<str>>,
    /// Step of the pick that chose the backend.
    pub reason: Option<PickReason>,
    /// Verdict on its cookie, as a word.
    pub cookie: Option<&'static str>,
    /// True if it went over a backend connection that an earlier request had opened.
    pub reused: bool,
    /// Microseconds from the complete head to the first byte of the response; `None` if none came.
    pub first_byte_us: Option<u64>,
    /// Bytes of the request that went to the backend, its head as the backend gets it.
    pub bytes_up: u64,
    /// Bytes of the response that went to the client.
    pub bytes_down: u64,
    /// Subject of the client's verified certificate.
    pub subject: Option<String>,
    /// Ending of the request.
    pub ended: Ended,
    /// The move of a client that had another backend; `None` if it did not move.
    pub moved: Option<ClientMove>,
    /// Why the request or its response was refused, as a word; `None` if neither was.
    pub refused: Option<&'static str>,
    /// For how many requests the line stands: 1 if every one has its line.
    pub sample: u32,
}

/// The writing side: one thread, asleep while there is nothing to write.
#[derive(Debug)]
pub struct AccessLog {
    queue: SyncSender<Work>,
    shared: Arc<Common>,
    finished: Receiver<()>,
}

/// What the writer and all senders share.
#[derive(Debug, Default)]
struct Common {
    /// Records that were handed over and are neither written nor counted.
    waiting: AtomicU64,
    /// Lines that the output did not take.
    lost: AtomicU64,
    /// Number of the error by which the output refused a line last; 0: none.
    lost_errno: AtomicI32,
    /// Records dropped because the queue was full.
    dropped: AtomicU64,
    changes: Mutex<Changes>,
}

/// Changes of what the writer uses, by number.
#[derive(Debug, Default)]
struct Changes {
    next: Option<(Schema, Option<OpenOutput>)>,
    /// Number of the last change that was asked for.
    asked: u64,
    /// Number of the last change that the writer has made.
    made: u64,
}

impl Common {
    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Batch {
    records: Vec<LogRecord>,
    home: SyncSender<Vec<LogRecord>>,
}

impl AccessLog {
    /// Starts the thread that writes every field but those on request to `out`, as tests do.
    pub fn start(format: LogFormat, out: impl Write + Send + 'static) -> std::io::Result<Self> {
        let schema = Schema { json: format == LogFormat::Json, fields: LogFields::default() };
        Self::open(schema, OpenOutput::stream(out))
    }

    /// Starts the thread that writes to an output.
    pub fn open(schema: Schema, output: OpenOutput) -> std::io::Result<Self> {
        let shared = Arc::new(Common::default());
        let (queue, work) = sync_channel(QUEUE);
        let (done, finished) = sync_channel(1);
        let writer = Writer::new(schema, output, Arc::clone(&shared));
        thread::Builder::new().name("access_log".into()).spawn(move || {
            writer.run(&work);
            let _ = done.send(());
        })?;
        Ok(Self { queue, shared, finished })
    }

    /// A sender for one worker. `connections`: whether connections are logged at all, until it is told more rules.
    pub fn sender(&self, connections: bool) -> AccessLogSender {
        let (home, spent) = sync_channel(SPENT);
        let (queue, shared) = (self.queue.clone(), Arc::clone(&self.shared));
        let rules = LogRules { connections, ..LogRules::OFF };
        AccessLogSender { rules, batch: Vec::new(), due_ms: None, queue, shared, home, spent }
    }

    /// Makes the writer use another schema, and another output if there is one, from its next batch on; all of it at
    /// once. Returns the number of the change.
    pub fn change(&self, schema: Schema, output: Option<OpenOutput>) -> u64 {
        let mut changes = self.shared.changes();
        let earlier = changes.next.take().and_then(|(_, output)| output);
        changes.next = Some((schema, output.or(earlier)));
        changes.asked += 1;
        let number = changes.asked;
        drop(changes);
        // Wakes the writer. If the queue is full, it looks for changes before the next batch in any case.
        let _ = self.queue.try_send(Work::Look);
        number
    }

    /// True once the writer has made the change of this number.
    pub fn has_changed(&self, number: u64) -> bool {
        self.shared.changes().made >= number
    }

    /// Number of records that could not be written because the output failed.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Relaxed)
    }

    /// The error by which the output failed last; `None`: it never has.
    pub fn lost_because(&self) -> Option<std::io::Error> {
        let errno = self.shared.lost_errno.load(Relaxed);
        (errno != 0).then(|| std::io::Error::from_raw_os_error(errno))
    }

    /// Number of records of all senders that were dropped because the writer did not keep up.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Relaxed)
    }

    /// True while the output takes so little that the queue is at least half full.
    pub fn is_stalled(&self) -> bool {
        self.shared.waiting.load(Relaxed) >= (QUEUE * BATCH_MAX / 2) as u64
    }

    /// Writes the batches handed over and ends the thread; all senders must be gone. Waits no longer than `patience`,
    /// since the reader of the output may have stopped. Returns how many lines were not written since the start.
    pub fn finish(self, patience: Duration) -> u64 {
        let Self { queue, shared, finished } = self;
        drop(queue);
        let is_late = finished.recv_timeout(patience) == Err(RecvTimeoutError::Timeout);
        let waiting = if is_late { shared.waiting.load(Relaxed) } else { 0 };
        waiting + shared.lost.load(Relaxed) + shared.dropped.load(Relaxed)
    }
}

/// The sending side of one worker, with a batch of its own.
#[derive(Debug)]
pub struct AccessLogSender {
    rules: LogRules,
    batch: Vec<LogRecord>,
    due_ms: Option<u64>,
    queue: SyncSender<Work>,
    shared: Arc<Common>,
    home: SyncSender<Vec<LogRecord>>,
    spent: Receiver<Vec<LogRecord>>,
}

impl AccessLogSender {
    /// A sender that leads nowhere, for a worker without an access log.
    pub fn off() -> Self {
        let (queue, _) = sync_channel(1);
        let (home, spent) = sync_channel(1);
        let rules = LogRules::OFF;
        Self { rules, batch: Vec::new(), due_ms: None, queue, shared: Arc::default(), home, spent }
    }

    /// What has a line; looked at before a record is made, so that a log that is off costs one branch.
    #[inline]
    pub fn rules(&self) -> LogRules {
        self.rules
    }

    /// Changes what has a line, as a new snapshot says.
    pub fn set_rules(&mut self, rules: LogRules) {
        self.rules = rules;
    }

    /// Adds a record to the batch. Returns the number of records dropped because the writer did not keep up.
    pub fn push(&mut self, record: LogRecord) -> usize {
        if self.batch.capacity() == 0 {
            self.batch = self.spent.try_recv().unwrap_or_else(|_| Vec::with_capacity(BATCH_MAX));
        }
        self.batch.push(record);
        if self.batch.len() >= BATCH_MAX { self.flush() } else { 0 }
    }

    /// Hands the batch over. Returns the number of records dropped because the writer did not keep up.
    pub fn flush(&mut self) -> usize {
        self.due_ms = None;
        if self.batch.is_empty() {
            return 0;
        }
        let count = self.batch.len();
        let batch = Batch { records: std::mem::take(&mut self.batch), home: self.home.clone() };
        // Before the writer can take it off again.
        self.shared.waiting.fetch_add(count as u64, Relaxed);
        match self.queue.try_send(Work::Write(batch)) {
            Ok(()) => 0,
            Err(TrySendError::Full(refused) | TrySendError::Disconnected(refused)) => {
                self.shared.waiting.fetch_sub(count as u64, Relaxed);
                self.shared.dropped.fetch_add(count as u64, Relaxed);
                if let Work::Write(batch) = refused {
                    self.batch = batch.records;
                    self.batch.clear();
                }
                count
            }
        }
    }

    /// When the batch must be flushed, in milliseconds; read once a turn, before the worker sleeps. `None`: the batch
    /// is empty.
    pub fn due(&mut self, now_ms: u64) -> Option<u64> {
        if self.batch.is_empty() {
            return None;
        }
        Some(*self.due_ms.get_or_insert(now_ms + BATCH_MS))
    }
}

impl Drop for AccessLogSender {
    fn drop(&mut self) {
        self.flush();
    }
}
