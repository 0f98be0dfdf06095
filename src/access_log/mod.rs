//! The connection log: workers hand over batches of records, one thread formats and writes them.
//!
//! Does not decide what is logged and never makes a worker wait: a batch that finds the queue full is dropped and its
//! length returned, to be counted by whoever owns the counter. Invariant: a worker makes at most one non-blocking
//! hand-over per [`BATCH_MAX`] records or [`BATCH_MS`], and in steady state allocates nothing, because spent batches
//! come back to it. What the lines look like is documented in [`mod@line`].

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use crate::config::{LogFormat, LogLevel};
use crate::outcome::{BreakCause, Ended, PickReason};
use crate::server_name::ServerName;

pub mod line;
#[cfg(test)]
mod tests;

/// A batch of this many records is handed over at once.
pub const BATCH_MAX: usize = 256;
/// A batch is handed over this long after the turn that began it.
pub const BATCH_MS: u64 = 50;
/// Batches that may wait for the writer; with [`BATCH_MAX`] this bounds the log's memory to a few MiB.
const QUEUE: usize = 64;
/// Empty batches that may wait for their worker.
const SPENT: usize = 4;

/// What a worker has to tell.
#[derive(Debug, Clone)]
pub enum LogRecord {
    /// A connection ended.
    Connection(ConnectionLine),
    /// A request was answered, or was not.
    Request(RequestLine),
    /// Something else happened.
    Message(Message),
}

/// A connection that ended.
#[derive(Debug, Clone)]
pub struct ConnectionLine {
    /// Its number in this process.
    pub id: u64,
    /// When it was accepted, since 1970.
    pub started_unix_us: u64,
    /// From accept to end.
    pub duration_us: u64,
    /// The client address, announced or seen; `None` for a unix peer.
    pub client: Option<SocketAddr>,
    /// Who really connected, where the PROXY protocol announced another client.
    pub peer: Option<SocketAddr>,
    /// The listener's name.
    pub listener: Arc<str>,
    /// The server name of the ClientHello.
    pub sni: Option<ServerName>,
    /// The hello offered ECH: `sni` is the outer name.
    pub ech: bool,
    /// The pool, once routed.
    pub pool: Option<Arc<str>>,
    /// The named range of the pool that the client is in.
    pub range: Option<Arc<str>>,
    /// The backend last tried.
    pub backend: Option<Arc<str>>,
    /// Why that backend.
    pub reason: Option<PickReason>,
    /// Connect attempts begun.
    pub attempts: u8,
    /// Time of the attempt that succeeded.
    pub connect_us: Option<u64>,
    /// Bytes from the client to the backend.
    pub bytes_up: u64,
    /// Bytes from the backend to the client.
    pub bytes_down: u64,
    /// How it ended.
    pub ended: Ended,
    /// Its TLS, where that ended here.
    pub tls: Option<Box<TlsLine>>,
    /// Why it got another backend than the one its client had settled at.
    pub broke: Option<BreakCause>,
}

/// What a client's TLS came to.
#[derive(Debug, Clone)]
pub struct TlsLine {
    /// `TLSv1.3`.
    pub version: &'static str,
    /// The registered name of the cipher suite.
    pub cipher: Option<&'static str>,
    /// The session is one that was begun earlier.
    pub resumed: bool,
    /// The subject of the client's certificate.
    pub subject: Option<String>,
}

/// A request, however it ended.
#[derive(Debug, Clone)]
pub struct RequestLine {
    /// Its name: what we answer ourselves carries it too.
    pub request: String,
    /// The number of its connection.
    pub id: u64,
    /// When its head was complete, since 1970.
    pub started_unix_us: u64,
    /// From then to its end.
    pub duration_us: u64,
    /// The listener's name.
    pub listener: Arc<str>,
    /// The client address, announced or seen; `None` for a unix peer.
    pub client: Option<SocketAddr>,
    /// Its method.
    pub method: String,
    /// The host it is for.
    pub host: Option<String>,
    /// Its path, without what follows `?`.
    pub path: String,
    /// The status of the response, if there was one.
    pub status: Option<u16>,
    /// The pool.
    pub pool: Option<Arc<str>>,
    /// The backend last tried.
    pub backend: Option<Arc<str>>,
    /// Why that backend.
    pub reason: Option<PickReason>,
    /// What its cookie was.
    pub cookie: Option<&'static str>,
    /// It went over a connection to the backend that an earlier request had opened.
    pub reused: bool,
    /// The subject of the client's certificate.
    pub subject: Option<String>,
    /// How it ended.
    pub ended: Ended,
    /// Why it got another backend than the one its client had settled at.
    pub broke: Option<BreakCause>,
}

/// What a worker wants to say besides connections, as that a step panicked.
#[derive(Debug, Clone)]
pub struct Message {
    /// Its severity.
    pub level: LogLevel,
    /// The sentence.
    pub message: String,
}

/// The writing side: one thread, asleep while there is nothing to write.
#[derive(Debug)]
pub struct AccessLog {
    queue: SyncSender<Batch>,
    shared: Arc<Common>,
    finished: Receiver<()>,
}

#[derive(Debug, Default)]
struct Common {
    json: AtomicBool,
    lost: AtomicU64,
}

#[derive(Debug)]
struct Batch {
    records: Vec<LogRecord>,
    home: SyncSender<Vec<LogRecord>>,
}

impl AccessLog {
    /// Starts the thread that writes to `out`, which is standard output but in tests.
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
        AccessLogSender { connections, batch: Vec::new(), due_ms: None, queue: self.queue.clone(), home, spent }
    }

    /// Text or JSON, from the next batch on.
    pub fn set_format(&self, format: LogFormat) {
        self.shared.json.store(format == LogFormat::Json, Relaxed);
    }

    /// Records that could not be written because `out` failed.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Relaxed)
    }

    /// Writes what was handed over and ends the thread; all senders must be gone. Waits no longer than `patience`,
    /// since whoever reads our standard output may have stopped. Returns whether everything was written.
    pub fn finish(self, patience: Duration) -> bool {
        drop(self.queue);
        let ended = !matches!(self.finished.recv_timeout(patience), Err(RecvTimeoutError::Timeout));
        ended && self.shared.lost.load(Relaxed) == 0
    }
}

/// One worker's end: a batch of its own that nobody else touches.
#[derive(Debug)]
pub struct AccessLogSender {
    connections: bool,
    batch: Vec<LogRecord>,
    due_ms: Option<u64>,
    queue: SyncSender<Batch>,
    home: SyncSender<Vec<LogRecord>>,
    spent: Receiver<Vec<LogRecord>>,
}

impl AccessLogSender {
    /// One that leads nowhere, for a worker without a access log.
    pub fn off() -> Self {
        let (queue, _) = sync_channel(1);
        let (home, spent) = sync_channel(1);
        Self { connections: false, batch: Vec::new(), due_ms: None, queue, home, spent }
    }

    /// Whether connections are logged: asked before a record is made, so that off costs one branch.
    #[inline]
    pub fn logs_connections(&self) -> bool {
        self.connections
    }

    /// Switches the logging of connections, as a new snapshot says.
    pub fn set_logs_connections(&mut self, on: bool) {
        self.connections = on;
    }

    /// Takes a record. Returns how many were dropped because the writer did not keep up.
    pub fn push(&mut self, record: LogRecord) -> usize {
        if self.batch.capacity() == 0 {
            self.batch = self.spent.try_recv().unwrap_or_else(|_| Vec::with_capacity(BATCH_MAX));
        }
        self.batch.push(record);
        if self.batch.len() >= BATCH_MAX { self.flush() } else { 0 }
    }

    /// Hands over what is there. Returns how many records were dropped because the writer did not keep up.
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
                self.batch = refused.records;
                self.batch.clear();
                dropped
            }
        }
    }

    /// When the batch must be flushed; asked once a turn, before going to sleep. `None`: nothing waits.
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

fn write_batches(batches: &Receiver<Batch>, shared: &Common, mut out: impl Write) {
    let mut text = String::new();
    for Batch { mut records, home } in batches {
        let json = shared.json.load(Relaxed);
        let mut lines = 0;
        for record in &records {
            match record {
                LogRecord::Connection(connection) => {
                    line::write(&mut text, connection, json);
                    lines += 1;
                }
                LogRecord::Request(request) => {
                    line::write_request(&mut text, request, json);
                    lines += 1;
                }
                LogRecord::Message(notice) => say(notice),
            }
        }
        if lines > 0 && out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            shared.lost.fetch_add(lines, Relaxed);
        }
        text.clear();
        records.clear();
        let _ = home.try_send(records); // its worker may be gone, or have enough
    }
}

fn say(notice: &Message) {
    let message = notice.message.as_str();
    match notice.level {
        LogLevel::Error => tracing::error!("{message}"),
        LogLevel::Warn => tracing::warn!("{message}"),
        LogLevel::Info => tracing::info!("{message}"),
        LogLevel::Debug => tracing::debug!("{message}"),
    }
}
