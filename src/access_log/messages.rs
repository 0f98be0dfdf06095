//! [`StandardError`]: where messages about the process go, by way of a [`MessageQueue`] and a thread that writes it.
//!
//! Decides nothing about what is said. Invariants: a message is one line, whatever text it quotes; no thread that has
//! something to say waits for the reader of standard error; a message that is not written is counted, and a line says so
//! once standard error is read again.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::appended::ends_within_line;
use crate::remote_text::one_line;

/// Most bytes of messages that wait to be written: a refused configuration with thousands of problems has room.
const WAITING_MAX: usize = 1 << 20;

/// What a waiting message costs beside its text, in bytes.
const OVERHEAD: usize = 64;

/// How long a message waits for room in standard error where no thread can be started to write it.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// Most bytes of one write: where a pipe has room at all, it has room for so many (pipe(7)).
const WRITE_MAX: usize = 4096;

/// The messages of this process.
static MESSAGES: MessageQueue = MessageQueue::new();

/// Number of messages about the process that standard error did not take.
pub fn messages_lost() -> u64 {
    MESSAGES.lost.load(Relaxed)
}

/// Standard error, for one message a write.
#[derive(Debug, Clone, Copy, Default)]
pub struct StandardError;

impl Write for StandardError {
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        // A message that is lost has no other place to go.
        MESSAGES.put(line_of(message));
        MESSAGES.begin();
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Says each line of a text, and waits until everything is written, but no longer than `patience`: for the last words of
/// a process.
pub fn say_last(text: &str, patience: Duration) {
    let until = Instant::now() + patience;
    for line in text.lines() {
        MESSAGES.put_until(line_of(format!("{line}\n").as_bytes()), until);
        MESSAGES.begin();
    }
    MESSAGES.written_until(until);
}

/// Waits until every message is written, but no longer than `patience`.
pub fn finish_messages(patience: Duration) {
    MESSAGES.written_until(Instant::now() + patience);
}

/// Makes a panic of any thread a message about the process. By default it is written to standard error by the thread
/// itself, which then waits for the reader.
pub fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref().map(String::as_str));
        let text = text.unwrap_or("a panic without words");
        let place = panic.location().map_or_else(String::new, |location| format!(" at {location}"));
        let trace = std::backtrace::Backtrace::capture();
        let trace = match trace.status() {
            std::backtrace::BacktraceStatus::Captured => format!("\n{trace}"),
            _ => String::new(),
        };
        tracing::error!(
            "thread {} panicked{place}: {text}{trace}",
            thread::current().name().unwrap_or("without a name")
        );
    }));
}

/// Lines that wait for a slow output, of a limited size altogether.
struct MessageQueue {
    waiting: Mutex<WaitingMessages>,
    /// A line has come, or was written.
    changed: Condvar,
    /// Messages that were not written, or not as a whole.
    lost: AtomicU64,
}

struct WaitingMessages {
    lines: VecDeque<Vec<u8>>,
    /// Of all lines, with their overhead.
    bytes: usize,
    /// A line has left the queue and is being written.
    writing: bool,
    /// A thread writes the lines.
    has_writer: bool,
}

impl WaitingMessages {
    fn has_room_for(&self, line: &[u8]) -> bool {
        self.lines.is_empty() || self.bytes + line.len() + OVERHEAD <= WAITING_MAX
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        let line = self.lines.pop_front()?;
        self.bytes -= line.len() + OVERHEAD;
        self.writing = true;
        Some(line)
    }
}

impl MessageQueue {
    const fn new() -> Self {
        let waiting = WaitingMessages { lines: VecDeque::new(), bytes: 0, writing: false, has_writer: false };
        Self { waiting: Mutex::new(waiting), changed: Condvar::new(), lost: AtomicU64::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, WaitingMessages> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line, or counts it as lost if there is no room.
    fn put(&self, line: Vec<u8>) {
        self.put_until(line, Instant::now());
    }

    /// Like `put`, but waits for room.
    fn put_until(&self, line: Vec<u8>, until: Instant) {
        let mut waiting = self.wait_while(until, |waiting| !waiting.has_room_for(&line));
        if waiting.has_room_for(&line) {
            waiting.bytes += line.len() + OVERHEAD;
            waiting.lines.push_back(line);
            self.changed.notify_all();
        } else {
            self.lost.fetch_add(1, Relaxed);
        }
    }

    /// Waits until every line is written; false: some are not.
    fn written_until(&self, until: Instant) -> bool {
        let busy = |waiting: &WaitingMessages| waiting.writing || !waiting.lines.is_empty();
        !busy(&self.wait_while(until, busy))
    }

    fn wait_while(
        &self,
        until: Instant,
        condition: impl Fn(&WaitingMessages) -> bool,
    ) -> MutexGuard<'_, WaitingMessages> {
        let mut waiting = self.lock();
        while condition(&waiting) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            waiting = self.changed.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        waiting
    }

    /// Starts the thread that writes to standard error, with the first message. Where no thread can be started, this one
    /// writes, and does not wait long for room.
    fn begin(&'static self) {
        if std::mem::replace(&mut self.lock().has_writer, true) {
            return;
        }
        let tell =
            |lost| tracing::warn!("{lost} messages about the process were lost: standard error did not take them");
        let write = move || self.write_to(rustix::stdio::stderr(), tell);
        if thread::Builder::new().name("messages".into()).spawn(write).is_err() {
            self.lock().has_writer = false;
            while let Some(line) = { self.lock().take() } {
                self.wrote(write_line(rustix::stdio::stderr(), &line, Some(&PATIENCE)));
            }
        }
    }

    /// Writes lines for ever. `tell`: says how many were lost, by a line of its own.
    fn write_to(&self, out: BorrowedFd<'_>, tell: impl Fn(u64)) {
        let mut told = 0;
        let mut is_torn = ends_within_line(out);
        loop {
            let line = {
                let mut waiting = self.lock();
                loop {
                    match waiting.take() {
                        Some(line) => break line,
                        None => waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner),
                    }
                }
            };
            let is_written = (!is_torn || write_line(out, b"\n", None)) && write_line(out, &line, None);
            is_torn = !is_written && ends_within_line(out);
            let lost = self.lost.load(Relaxed);
            // The line about losses is not to be lost itself.
            if is_written && lost > told && self.lock().bytes < WAITING_MAX / 2 {
                tell(lost - told);
                told = lost;
            }
            self.wrote(is_written);
        }
    }

    fn wrote(&self, is_written: bool) {
        if !is_written {
            self.lost.fetch_add(1, Relaxed);
        }
        self.lock().writing = false;
        self.changed.notify_all();
    }
}

/// A message as one line.
fn line_of(message: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(message);
    let (text, end) = text.strip_suffix('\n').map_or((&*text, ""), |text| (text, "\n"));
    let line: Cow<'_, str> = one_line(text);
    (line.into_owned() + end).into_bytes()
}

/// Writes a line; false: not all of it was written. `patience`: how long one write waits for room; `None`: for ever.
fn write_line(out: BorrowedFd<'_>, line: &[u8], patience: Option<&Timespec>) -> bool {
    line.chunks(WRITE_MAX).all(|piece| write_piece(out, piece, patience))
}

fn write_piece(out: BorrowedFd<'_>, mut piece: &[u8], patience: Option<&Timespec>) -> bool {
    while !piece.is_empty() {
        let has_room = poll(&mut [PollFd::new(&out, PollFlags::OUT)], patience);
        match has_room.and_then(|ready| if ready == 0 { Ok(0) } else { rustix::io::write(out, piece) }) {
            Ok(0) => return false,
            Ok(written) => piece = &piece[written..],
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(_) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{BufRead, BufReader};
    use std::os::fd::{AsFd, OwnedFd};

    use super::*;

    /// A queue with a thread that writes to a pipe, and the reading end.
    fn queue() -> (&'static MessageQueue, OwnedFd) {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let queue: &'static MessageQueue = Box::leak(Box::new(MessageQueue::new()));
        thread::spawn(move || {
            queue.write_to(writer.as_fd(), |lost| queue.put(format!("{lost} were lost\n").into_bytes()));
        });
        (queue, reader)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn a_message_is_one_line_whatever_it_quotes() {
        let (queue, reader) = queue();
        for message in [&b"WARN store: no\nERROR forged\x1b[2J\n"[..], b"INFO ready\n", b"\xff\xfe\n"] {
            queue.put(line_of(message));
        }
        assert!(queue.written_until(soon()));
        let mut lines = BufReader::new(File::from(reader)).lines().map(Result::unwrap);
        let wanted = ["WARN store: no\\nERROR forged\\u{1b}[2J", "INFO ready", "\u{fffd}\u{fffd}"];
        assert_eq!(lines.by_ref().take(3).collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn a_pipe_that_nothing_reads_holds_no_thread_and_what_was_lost_is_said_when_it_is_read() {
        const COUNT: u64 = 30_000;
        let (queue, reader) = queue();
        let begun = Instant::now();
        for number in 0..COUNT {
            queue.put(format!("message {number} {}\n", "x".repeat(40)).into_bytes());
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        assert!(!queue.written_until(Instant::now() + Duration::from_millis(100)), "nothing reads it");
        let lost = queue.lost.load(Relaxed);
        assert!((1..COUNT).contains(&lost), "{lost} of {COUNT}");
        let lines = BufReader::new(File::from(reader)).lines().map(Result::unwrap);
        let (mut whole, mut next) = (0, 0);
        for line in lines {
            if let Some(said) = line.strip_suffix(" were lost") {
                assert_eq!(said, lost.to_string(), "every loss is said, and counted once");
                break;
            }
            // A message may find room after others were lost, because the writer takes lines meanwhile.
            let number = line.strip_prefix("message ").and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok());
            assert!(number >= Some(next) && line.ends_with('x'), "{line}");
            next = number.unwrap_or_default() + 1;
            whole += 1;
        }
        // The line about the losses overtakes nothing, but more lines may wait before it than are read here.
        assert_eq!(whole + lost, COUNT);
        assert!(queue.written_until(soon()));
    }

    #[test]
    fn a_file_that_ends_within_a_line_gets_its_end_before_the_first_message() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("err.log");
        std::fs::write(&path, "half a li").unwrap();
        let queue: &'static MessageQueue = Box::leak(Box::new(MessageQueue::new()));
        let file = File::options().append(true).open(&path).unwrap();
        thread::spawn(move || queue.write_to(file.as_fd(), |_| {}));
        ["one\n", "two\n"].iter().for_each(|line| queue.put(line.as_bytes().to_vec()));
        assert!(queue.written_until(soon()));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "half a li\none\ntwo\n");
    }

    #[test]
    fn an_output_that_is_gone_costs_messages_and_nothing_else() {
        let (queue, reader) = queue();
        drop(reader);
        (0..3).for_each(|_| queue.put(b"to no reader\n".to_vec()));
        assert!(queue.written_until(soon()));
        assert_eq!(queue.lost.load(Relaxed), 3);
    }

    #[test]
    fn without_a_thread_a_message_waits_a_moment_for_its_reader() {
        let (_reader, writer) = rustix::pipe::pipe().unwrap();
        let begun = Instant::now();
        let written = (0..40).filter(|_| write_line(writer.as_fd(), &[b'x'; 8 << 10], Some(&PATIENCE))).count();
        assert!((1..40).contains(&written), "{written} of 320 KiB were written into a pipe of 64");
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }

    #[test]
    fn a_last_word_waits_for_room_and_not_for_ever() {
        let queue = MessageQueue::new();
        queue.put(vec![b'x'; WAITING_MAX]);
        let (begun, patience) = (Instant::now(), Duration::from_millis(50));
        queue.put_until(b"last\n".to_vec(), begun + patience);
        assert_eq!((queue.lost.load(Relaxed), begun.elapsed() >= patience), (1, true));
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(patience);
                drop(queue.lock().take());
                queue.wrote(true);
            });
            queue.put_until(b"last\n".to_vec(), soon());
        });
        assert_eq!((queue.lost.load(Relaxed), queue.lock().take().unwrap()), (1, b"last\n".to_vec()));
    }
}
