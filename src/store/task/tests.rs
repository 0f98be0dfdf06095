use std::thread;

use tokio::task::LocalSet;

use super::*;
use crate::admission::Admission;
use crate::config::{self, Config};
use crate::snapshot::{LoadedFiles, Snapshot};
use crate::store::batch::Write;
use crate::store::dial::Reconciled;
use crate::store::pending::PENDING_MAX;
use crate::store::{Breaker, FAILURES, PATIENCE, Store, StoreAway};

/// A configuration with a store; its keys have this prefix.
fn config(prefix: &str) -> Config {
    config_at("127.0.0.1:6379", prefix)
}

fn config_at(address: &str, prefix: &str) -> Config {
    let text = format!(
        "[store]\nkind = \"redis\"\nurl = \"redis://{address}\"\nprefix = \"{prefix}\"\n\
         [[listener]]\nname = \"l\"\nbind = \"127.0.0.1:80\"\npool = \"p\"\n\
         [[pool]]\nname = \"p\"\nhttp = true\ncookie = {{ mode = \"learn\", name = \"SID\" }}\n\
         backend = [{{ name = \"b\", address = \"127.0.0.1:81\" }}]\n"
    );
    let checked = config::check(&text, &|_| Err(std::io::ErrorKind::NotFound.into()));
    checked.unwrap_or_else(|problems| panic!("{problems:?}")).config
}

fn access(prefix: &str) -> Arc<Access> {
    Arc::new(Access::read(config(prefix).store.as_ref().unwrap()).unwrap())
}

/// A task without a connection and without requests.
fn task() -> StoreTask {
    let (_, requests) = mpsc::channel(1);
    let (_, reconfigure) = mpsc::unbounded_channel();
    let admission = Arc::new(Admission::new(usize::MAX));
    let snapshot = Snapshot::build(config("p:"), LoadedFiles::default(), None, 1, &admission);
    let mut task = StoreTask::new(Arc::default(), Arc::new(Current::new(snapshot)), requests, reconfigure);
    task.access = Some(access("p:"));
    task
}

fn entry(key: usize, at_ms: u64) -> PendingValue {
    PendingValue { key: format!("k{key}").into(), at_ms, ttl_ms: 1, backend: None }
}

fn close(breaker: &Breaker) -> u64 {
    breaker.open();
    breaker.close();
    let BreakerState::Working(since) = breaker.look() else { panic!("it was closed") };
    since
}

/// Runs a future on a thread of its own and fails if it does not end.
fn ends<F: Future<Output = ()>>(what: impl FnOnce() -> F + Send + 'static) {
    let (ended, end) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, what());
        ended.send(()).unwrap();
    });
    end.recv_timeout(Duration::from_secs(20)).expect("it ends, and well");
}

#[test]
fn what_is_still_to_be_told_waits_when_the_breaker_opens_under_a_connection() {
    ends(|| async {
        let mut task = task();
        let access = task.access.clone().unwrap();
        let (link, _other_end) = Link::to_nobody(&access).await;
        task.link = Some((link, Arc::clone(&access)));
        let count = 3 * BATCH;
        (0..count).for_each(|key| task.keep_pending(&access, entry(key, 1)));
        let since = close(&task.shared.breaker);
        assert_eq!((0..FAILURES).filter(|_| task.shared.breaker.failed(since)).count(), 1, "conversations open it");
        task.write_pending(BATCHES_MAX);
        task.tick();
        assert_eq!((task.batches.len(), task.pending.len()), (0, count));
        close(&task.shared.breaker);
        task.write_pending(BATCHES_MAX);
        assert_eq!((task.batches.len(), task.pending.len()), (3, 0));
    });
}

/// Result of a dial that failed and returned so many unwritten entries.
fn failed(access: &Arc<Access>, unwritten: usize) -> DialResult {
    let mut pending = Pending::default();
    (0..unwritten).for_each(|at| assert!(!pending.add(entry(at, at as u64 + 1))));
    DialResult {
        access: Arc::clone(access),
        link: Err("nobody there".into()),
        pending,
        reconciled: Reconciled::default(),
    }
}

#[test]
fn in_a_long_outage_what_was_learned_last_is_kept() {
    let mut task = task();
    let access = task.access.clone().unwrap();
    const FRESH: usize = 1_000;
    (PENDING_MAX..PENDING_MAX + FRESH).for_each(|at| task.keep_pending(&access, entry(at, at as u64 + 1)));
    task.dialled(failed(&access, PENDING_MAX));
    let mut kept: Vec<_> = task.pending.take(usize::MAX).iter().map(|entry| entry.at_ms as usize).collect();
    kept.sort_unstable();
    assert!(kept.into_iter().eq(FRESH + 1..=PENDING_MAX + FRESH));
    assert_eq!(task.shared.counters.overflow.load(Relaxed), FRESH as u64);
}

#[test]
fn a_complaint_with_words_of_the_store_is_one_short_line() {
    let mut task = task();
    let access = task.access.clone().unwrap();
    let why = format!("NO\r\n2026 ERROR forged\u{1b}[2J{}", "x".repeat(1 << 20));
    task.dialled(DialResult { link: Err(why.clone()), ..failed(&access, 0) });
    let complaint = |task: &StoreTask| task.shared.set_status(|status| status.complaint.clone());
    assert!(complaint(&task).starts_with("NO\\r\\n2026 ERROR forged\\u{1b}[2Jxxx"), "{}", complaint(&task));
    assert!(complaint(&task).len() < 1_000);
    task.refused(&why);
    assert!(complaint(&task).starts_with("it refuses writes: NO\\r\\n2026"), "{}", complaint(&task));
    task.give_up_link(&why);
    assert!(complaint(&task).starts_with("NO\\r\\n2026"), "{}", complaint(&task));
}

#[test]
fn what_was_to_be_told_under_keys_of_another_store_counts_as_lost() {
    ends(|| async {
        let mut task = task();
        let before = task.access.replace(access("q:")).unwrap();
        task.dialled(failed(&before, 30));
        assert_eq!((task.pending.len(), task.shared.counters.overflow.load(Relaxed)), (0, 30));
        let write = || Write { kind: QueryKind::Learn, done: None, of: None };
        let (entries, writes) = (vec![entry(1, 1), entry(2, 2)], vec![write(), write()]);
        task.finished(&before, BatchResult { entries, writes, put: None, ..BatchResult::begun(1, clock::now()) });
        assert_eq!((task.pending.len(), task.shared.counters.overflow.load(Relaxed)), (0, 32));
    });
}

#[tokio::test]
async fn a_store_that_the_process_before_has_found_away_holds_no_start_and_is_named_once() {
    // A full queue: the kernel does not answer another connection.
    let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    silent.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    silent.listen(0).unwrap();
    let address = silent.local_addr().unwrap().as_socket().unwrap();
    let connect = |_| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok();
    let _waiting: Vec<_> = (0..16).map_while(connect).collect();
    let at_silent = config_at(&address.to_string(), "p:");
    let access = Arc::new(Access::read(at_silent.store.as_ref().unwrap()).unwrap());
    let place = access.config.to_string();
    let admission = Arc::new(Admission::new(usize::MAX));
    let store = || {
        let snapshot = Snapshot::build(config("p:"), LoadedFiles::default(), None, 1, &admission);
        Store::new(Arc::new(Current::new(snapshot)))
    };
    let away = |place: &str| StoreAway { place: place.to_owned(), complaint: "no answer".into() };
    for (known, waits) in [(None, true), (Some(away("redis://10.0.0.1:1")), true), (Some(away(&place)), false)] {
        let store = store();
        known.iter().cloned().for_each(|known| store.resume(known));
        let begun = std::time::Instant::now();
        store.adopt(Some(Arc::clone(&access))).await;
        assert_eq!(begun.elapsed() >= PATIENCE, waits, "{known:?}: {:?}", begun.elapsed());
        let complaint = store.place_and_complaint().1;
        assert_eq!((store.look(), complaint.is_empty()), (BreakerState::Open, waits), "{complaint}");
        // Another store that is configured later is waited for.
        assert!(!store.take_resumed(Some(&access)));
    }
}
