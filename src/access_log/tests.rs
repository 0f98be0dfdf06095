//! The access log under pressure: order, back-pressure, a failing output, the end.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::*;

/// A record with nothing optional in it.
pub(super) fn connection() -> ConnectionLine {
    ConnectionLine {
        id: 7,
        started_unix_us: 1_709_251_199_999_000,
        duration_us: 1_500,
        client: Some("192.0.2.1:4711".parse().unwrap()),
        peer: None,
        listener: "front".into(),
        sni: None,
        odd_name: None,
        ech: false,
        split: None,
        pool: None,
        range: None,
        backend: None,
        reason: None,
        attempts: 0,
        connect_us: None,
        bytes_up: 10,
        bytes_down: 20,
        ended: Ended::Done,
        tls: None,
        moved: None,
        alert: None,
        sample: 1,
    }
}

/// The same for a request.
pub(super) fn request() -> RequestLine {
    RequestLine {
        request: RequestId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
        id: 7,
        started_unix_us: 1_709_251_199_999_000,
        duration_us: 1_500,
        listener: "front".into(),
        client: Some("192.0.2.1:4711".parse().unwrap()),
        method: Some("GET".to_owned()),
        host: Some("www.example.org".to_owned()),
        path: Some("/".to_owned()),
        request_id: None,
        user_agent: None,
        session: None,
        status: None,
        route: None,
        split: None,
        pool: None,
        backend: None,
        reason: None,
        cookie: None,
        reused: false,
        first_byte_us: None,
        bytes_up: 10,
        bytes_down: 20,
        subject: None,
        ended: Ended::Done,
        moved: None,
        refused: None,
        sample: 1,
    }
}

fn record(id: u64) -> LogRecord {
    LogRecord::Connection(ConnectionLine { id, ..connection() })
}

const PATIENCE: Duration = Duration::from_secs(20);

/// An output that a test can hold shut, and read.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl Output {
    fn hold(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap()
    }

    fn ids(&self) -> Vec<u64> {
        let text = String::from_utf8(self.hold().clone()).unwrap();
        let id = |line: &str| line.split_once(" id=").unwrap().1.split(' ').next().unwrap().parse().unwrap();
        text.lines().map(id).collect()
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hold().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct BrokenPipe;

impl Write for BrokenPipe {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn every_record_is_written_in_order_and_the_rest_at_the_end() {
    let output = Output::default();
    let access_log = AccessLog::start(LogFormat::Text, output.clone()).unwrap();
    let mut sender = access_log.sender(true);
    let dropped: usize = (0..1_000).map(|id| sender.push(record(id))).sum();
    drop(sender); // 1,000 is no multiple of a batch: the rest goes with the sender
    assert_eq!((access_log.finish(PATIENCE), dropped), (0, 0));
    assert_eq!(output.ids(), (0..1_000).collect::<Vec<_>>());
}

#[test]
fn a_stalled_output_drops_whole_batches_counts_them_and_never_blocks() {
    let output = Output::default();
    let access_log = AccessLog::start(LogFormat::Text, output.clone()).unwrap();
    let mut sender = access_log.sender(true);
    let batches = 2 * QUEUE as u64;
    let shut = output.hold();
    let start = Instant::now();
    let dropped: usize = (0..batches * BATCH_MAX as u64).map(|id| sender.push(record(id))).sum();
    assert!(start.elapsed() < PATIENCE, "push waited for the writer");
    drop(shut);
    assert!(dropped >= (QUEUE - 1) * BATCH_MAX, "only {dropped} dropped");
    assert_eq!(dropped % BATCH_MAX, 0);
    assert_eq!(access_log.dropped(), dropped as u64);
    drop(sender);
    assert_eq!(access_log.finish(PATIENCE), dropped as u64);
    assert_eq!(output.ids().len() + dropped, batches as usize * BATCH_MAX);
}

#[test]
fn a_batch_is_due_fifty_milliseconds_after_it_was_begun() {
    let access_log = AccessLog::start(LogFormat::Text, Output::default()).unwrap();
    let mut sender = access_log.sender(true);
    assert_eq!(sender.due(1_000), None);
    sender.push(record(1));
    assert_eq!(sender.due(1_000), Some(1_050));
    sender.push(record(2));
    assert_eq!(sender.due(1_030), Some(1_050), "a later record does not postpone it");
    assert_eq!(sender.flush(), 0);
    assert_eq!(sender.due(1_060), None);
    sender.push(record(3));
    assert_eq!(sender.due(2_000), Some(2_050));
}

#[test]
fn spent_batches_come_back_so_that_no_new_one_is_made() {
    let access_log = AccessLog::start(LogFormat::Text, io::sink()).unwrap();
    let mut sender = access_log.sender(true);
    sender.push(record(0));
    let first = sender.batch.as_ptr();
    for id in 1..20 {
        sender.flush();
        sender.batch = sender.spent.recv_timeout(PATIENCE).unwrap();
        sender.push(record(id));
        assert_eq!(sender.batch.as_ptr(), first);
    }
}

#[test]
fn a_broken_output_is_counted_and_not_fatal() {
    let access_log = AccessLog::start(LogFormat::Json, BrokenPipe).unwrap();
    let mut sender = access_log.sender(true);
    for _ in 0..2 {
        sender.push(record(1));
        assert_eq!(sender.flush(), 0);
    }
    let until = Instant::now() + PATIENCE;
    while access_log.lost() < 2 && Instant::now() < until {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(access_log.lost(), 2);
    drop(sender);
    assert_eq!(access_log.finish(PATIENCE), 2);
}

#[test]
fn finishing_does_not_wait_for_ever_on_an_output_nobody_reads() {
    let output = Output::default();
    let access_log = AccessLog::start(LogFormat::Text, output.clone()).unwrap();
    let shut = output.hold();
    let mut sender = access_log.sender(true);
    sender.push(record(1));
    drop(sender);
    assert_eq!(access_log.finish(Duration::from_millis(50)), 1, "what the end leaves unwritten is counted");
    drop(shut);
}

#[test]
fn a_change_holds_for_the_next_batch_as_a_whole_and_the_old_output_gets_nothing_more() {
    let (first, second) = (Output::default(), Output::default());
    let access_log = AccessLog::start(LogFormat::Text, first.clone()).unwrap();
    let mut sender = access_log.sender(true);
    let until = Instant::now() + PATIENCE;
    let wait = |done: &dyn Fn() -> bool| {
        while !done() && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
    };
    sender.push(record(1));
    sender.flush();
    wait(&|| !first.hold().is_empty());
    let schema = Schema { json: true, fields: LogFields::least() };
    let number = access_log.change(schema, Some(OpenOutput::stream(second.clone())));
    wait(&|| access_log.has_changed(number));
    assert!(access_log.has_changed(number), "also without a line to write");
    sender.push(record(2));
    sender.push(record(3));
    drop(sender);
    assert_eq!(access_log.finish(PATIENCE), 0);
    assert_eq!(first.ids(), [1]);
    let text = String::from_utf8(second.hold().clone()).unwrap();
    let begins = |line: &str| line.starts_with("{\"time\":\"") && line.ends_with("\"kind\":\"connection\"}");
    assert!(text.lines().count() == 2 && text.lines().all(begins), "{text}");
}

#[test]
fn a_change_while_the_output_is_stalled_stops_nothing_and_is_made_once_it_takes_lines() {
    let output = Output::default();
    let access_log = AccessLog::start(LogFormat::Text, output.clone()).unwrap();
    let mut sender = access_log.sender(true);
    let shut = output.hold();
    let dropped: usize = (0..2 * (QUEUE * BATCH_MAX) as u64).map(|id| sender.push(record(id))).sum();
    assert!(dropped > 0 && access_log.is_stalled());
    let begun = Instant::now();
    let schema = Schema { json: true, fields: LogFields::least() };
    let number = access_log.change(schema, None);
    assert!(begun.elapsed() < PATIENCE && !access_log.has_changed(number));
    drop(shut);
    drop(sender);
    assert_eq!(access_log.finish(PATIENCE), dropped as u64);
    let text = String::from_utf8(output.hold().clone()).unwrap();
    assert_eq!(text.lines().count() + dropped, 2 * QUEUE * BATCH_MAX);
    assert!(text.ends_with("\"kind\":\"connection\"}\n"), "the change was made");
}

#[test]
fn a_file_is_made_for_owner_and_group_alone_and_lines_are_added_to_what_it_has() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    for id in [1, 2] {
        let output = OpenOutput::open(&crate::config::LogOutput::File(path.clone())).unwrap();
        let schema = Schema { json: false, fields: LogFields::default() };
        let access_log = AccessLog::open(schema, output).unwrap();
        access_log.sender(true).push(record(id));
        assert_eq!(access_log.finish(PATIENCE), 0);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count() as u64, id);
    }
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o137, 0);
    let folder = crate::config::LogOutput::File(dir.path().to_owned());
    assert!(OpenOutput::open(&folder).is_err());
}

#[test]
fn the_journal_gets_each_line_with_its_fields_and_what_it_does_not_take_is_counted() {
    use std::os::unix::net::UnixDatagram;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let journal = UnixDatagram::bind(&path).unwrap();
    let schema = Schema { json: false, fields: LogFields::default() };
    let access_log = AccessLog::open(schema, OpenOutput::journal(path.clone()).unwrap()).unwrap();
    let mut sender = access_log.sender(true);
    sender.push(record(5));
    sender.push(LogRecord::Request(RequestLine { path: Some("/a b".to_owned()), ..request() }));
    sender.flush();
    for parts in [&["SESSILE_ID=5", "SESSILE_ENDED=done"], &["SESSILE_PATH=/a b", "SESSILE_KIND=request"]] {
        let mut entry = [0; 4096];
        let length = journal.recv(&mut entry).unwrap();
        let entry = String::from_utf8_lossy(&entry[..length]);
        assert!(entry.starts_with("MESSAGE=time=20") && entry.contains("\nPRIORITY=6\n"), "{entry}");
        assert!(parts.iter().all(|part| entry.contains(&format!("\n{part}\n"))), "{entry}");
    }
    drop(journal);
    std::fs::remove_file(&path).unwrap();
    sender.push(record(6));
    drop(sender);
    assert_eq!(access_log.finish(PATIENCE), 1);
}
