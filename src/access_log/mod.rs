//! The access log: workers hand over batches of records, one thread formats and writes them.
//!
//! Does not decide what is logged and never makes a worker wait: a batch that finds the queue full is dropped, and its
//! length is counted and returned. Lines that the output does not take are counted, and later ones are written again as
//! soon as it takes them. Invariant: a worker makes at most one non-blocking hand-over per
//! [`BATCH_MAX`] records or [`BATCH_MS`], and in steady state allocates nothing, because written batches come back to
//! it. The format of the lines is documented in [`mod@line`].

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use crate::config::{LogFormat, LogLevel};
use crate::outcome::{ClientMove, Ended, PickReason};
use crate::server_name::ServerName;
use crate::tls::TlsAlert;

mod journal;
pub mod line;
mod messages;
mod output;
#[cfg(test)]
mod tests;

pub use self::journal::{Messages, print_error};
pub use self::messages::{StandardError, finish_messages, messages_lost, report_panics};
pub use self::output::StandardOutput;

use self::output::Lines;

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
    /// A message for the program's own log.
    Message(Message),
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
    /// What the hello has in place of a host name, escaped and cut.
    pub odd_name: Option<Arc<str>>,
    /// True if the hello offered ECH: `sni` is the outer name.
    pub ech: bool,
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

/// Line of a request, answered or failed.
#[derive(Debug, Clone)]
pub struct RequestLine {
    /// Id of the request, which local replies carry as X-Request-Id.
    pub request: String,
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
    /// Status of the response; `None` if no response was begun.
    pub status: Option<u16>,
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
    /// Subject of the client's verified certificate.
    pub subject: Option<String>,
    /// Ending of the request.
    pub ended: Ended,
    /// The move of a client that had another backend; `None` if it did not move.
    pub moved: Option<ClientMove>,
    /// Why the request or its response was refused, as a word; `None` if neither was.
    pub refused: Option<&'static str>,
}

/// A message of a worker, as that a step panicked.
#[derive(Debug, Clone)]
pub struct Message {
    /// Severity of the message.
    pub level: LogLevel,
    /// Text of the message, one sentence.
    pub message: String,
}

/// The writing side: one thread, asleep while there is nothing to write.
#[derive(Debug)]
pub struct AccessLog {
    queue: SyncSender<Batch>,
    shared: Arc<Common>,
    finished: Receiver<()>,
}

/// What the writer and all senders share.
#[derive(Debug, Default)]
struct Common {
    json: AtomicBool,
    /// Lines that `out` did not take.
    lost: AtomicU64,
    /// Number of the error by which `out` refused a line last; 0: none.
    lost_errno: AtomicI32,
    /// Records dropped because the queue was full.
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Batch {
    records: Vec<LogRecord>,
    home: SyncSender<Vec<LogRecord>>,
}

impl AccessLog {
    /// Starts the thread that writes to `out`: standard output, or a buffer in tests.
    pub fn start(format: LogFormat, out: impl Write + Send + 'static) -> std::io::Result<Self> {
        let shared = Arc::new(Common::default());
        let (queue, batches) = sync_channel(QUEUE);
        let (done, finished) = sync_channel(1);
        let writer = Arc::clone(&shared);
        thread::Builder::new().name("access_log".into()).spawn(move || {
            write_batches(&batches, &writer, out);
            let _ = done.send(());
        })?;
        let access_log = Self { queue, shared, finished };
        access_log.set_format(format);
        Ok(access_log)
    }

    /// A sender for one worker. `connections`: whether connections are logged at all.
    pub fn sender(&self, connections: bool) -> AccessLogSender {
        let (home, spent) = sync_channel(SPENT);
        let (queue, shared) = (self.queue.clone(), Arc::clone(&self.shared));
        AccessLogSender { connections, batch: Vec::new(), due_ms: None, queue, shared, home, spent }
    }

    /// Switches to text or JSON, from the next batch on.
    pub fn set_format(&self, format: LogFormat) {
        self.shared.json.store(format == LogFormat::Json, Relaxed);
    }

    /// Number of records that could not be written because `out` failed.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Relaxed)
    }

    /// The error by which `out` failed last; `None`: it never has.
    pub fn lost_because(&self) -> Option<std::io::Error> {
        let errno = self.shared.lost_errno.load(Relaxed);
        (errno != 0).then(|| std::io::Error::from_raw_os_error(errno))
    }

    /// Number of records of all senders that were dropped because the writer did not keep up.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Relaxed)
    }

    /// Writes the batches handed over and ends the thread; all senders must be gone. Waits no longer than `patience`,
    /// since the reader of our standard output may have stopped. Returns whether everything was written.
    pub fn finish(self, patience: Duration) -> bool {
        drop(self.queue);
        let ended = !matches!(self.finished.recv_timeout(patience), Err(RecvTimeoutError::Timeout));
        ended && self.shared.lost.load(Relaxed) == 0
    }
}

/// The sending side of one worker, with a batch of its own.
#[derive(Debug)]
pub struct AccessLogSender {
    connections: bool,
    batch: Vec<LogRecord>,
    due_ms: Option<u64>,
    queue: SyncSender<Batch>,
    shared: Arc<Common>,
    home: SyncSender<Vec<LogRecord>>,
    spent: Receiver<Vec<LogRecord>>,
}

impl AccessLogSender {
    /// A sender that leads nowhere, for a worker without an access log.
    pub fn off() -> Self {
        let (queue, _) = sync_channel(1);
        let (home, spent) = sync_channel(1);
        Self { connections: false, batch: Vec::new(), due_ms: None, queue, shared: Arc::default(), home, spent }
    }

    /// Whether connections are logged; checked before a record is made, so that a log that is off costs one branch.
    #[inline]
    pub fn logs_connections(&self) -> bool {
        self.connections
    }

    /// Switches the logging of connections on or off, as a new snapshot says.
    pub fn set_logs_connections(&mut self, on: bool) {
        self.connections = on;
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
        let batch = Batch { records: std::mem::take(&mut self.batch), home: self.home.clone() };
        match self.queue.try_send(batch) {
            Ok(()) => 0,
            Err(TrySendError::Full(refused) | TrySendError::Disconnected(refused)) => {
                let dropped = refused.records.len();
                self.shared.dropped.fetch_add(dropped as u64, Relaxed);
                self.batch = refused.records;
                self.batch.clear();
                dropped
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

fn write_batches(batches: &Receiver<Batch>, shared: &Common, out: impl Write) {
    let mut text = String::new();
    let mut out = Lines::to(out);
    for Batch { mut records, home } in batches {
        let json = shared.json.load(Relaxed);
        for record in &records {
            match record {
                LogRecord::Connection(connection) => line::write(&mut text, connection, json),
                LogRecord::Request(request) => line::write_request(&mut text, request, json),
                LogRecord::Message(message) => log(message),
            }
        }
        if let Err(lost) = out.write(text.as_bytes()) {
            shared.lost_errno.store(lost.error.raw_os_error().unwrap_or_default(), Relaxed);
            shared.lost.fetch_add(lost.lines, Relaxed);
        }
        text.clear();
        records.clear();
        let _ = home.try_send(records); // its worker may be gone, or have enough
    }
}

fn log(message: &Message) {
    let Message { level, message } = message;
    match level {
        LogLevel::Error => tracing::error!("{message}"),
        LogLevel::Warn => tracing::warn!("{message}"),
        LogLevel::Info => tracing::info!("{message}"),
        LogLevel::Debug => tracing::debug!("{message}"),
    }
}
