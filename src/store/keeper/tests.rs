use std::thread;

use tokio::task::LocalSet;

use super::*;
use crate::admission::Admission;
use crate::config::{self, Config};
use crate::snapshot::{LoadedFiles, Snapshot};
use crate::store::dialling::Told;
use crate::store::pending::PENDING_MAX;
use crate::store::{Breaker, FAILURES};

/// A store with keys that begin so.
fn config(prefix: &str) -> Config {
    let text = format!(
        "[store]\nkind = \"redis\"\nurl = \"redis://127.0.0.1:6379\"\nprefix = \"{prefix}\"\n\
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

/// A keeper that nobody asks anything and that has no connection.
fn keeper() -> Keeper {
    let (_, asked) = mpsc::channel(1);
    let (_, orders) = mpsc::unbounded_channel();
    let admission = Arc::new(Admission::new(usize::MAX));
    let snapshot = Snapshot::build(config("p:"), LoadedFiles::default(), None, 1, &admission);
    let mut keeper = Keeper::new(Arc::default(), Arc::new(Current::new(snapshot)), asked, orders);
    keeper.access = Some(access("p:"));
    keeper
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

/// Runs what a thread of its own would run, and fails if that does not end.
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
        let mut keeper = keeper();
        let access = keeper.access.clone().unwrap();
        let (link, _other_end) = Link::to_nobody(&access).await;
        keeper.link = Some((link, Arc::clone(&access)));
        let count = 3 * BATCH;
        (0..count).for_each(|key| keeper.remember(&access, entry(key, 1)));
        let since = close(&keeper.shared.breaker);
        assert_eq!((0..FAILURES).filter(|_| keeper.shared.breaker.failed(since)).count(), 1, "conversations open it");
        keeper.tell_pending(FLIGHTS);
        keeper.beat();
        assert_eq!((keeper.flights.len(), keeper.pending.len()), (0, count));
        close(&keeper.shared.breaker);
        keeper.tell_pending(FLIGHTS);
        assert_eq!((keeper.flights.len(), keeper.pending.len()), (3, 0));
    });
}

/// What comes back from a dial that failed, of which there were so many entries to be told.
fn failed(access: &Arc<Access>, untold: usize) -> Dialled {
    let mut pending = Pending::default();
    (0..untold).for_each(|at| assert!(!pending.add(entry(at, at as u64 + 1))));
    Dialled { access: Arc::clone(access), link: Err("nobody there".into()), pending, told: Told::default() }
}

#[test]
fn in_a_long_outage_what_was_learned_last_is_kept() {
    let mut keeper = keeper();
    let access = keeper.access.clone().unwrap();
    const FRESH: usize = 1_000;
    (PENDING_MAX..PENDING_MAX + FRESH).for_each(|at| keeper.remember(&access, entry(at, at as u64 + 1)));
    keeper.dialled(failed(&access, PENDING_MAX));
    let mut kept: Vec<_> = keeper.pending.take(usize::MAX).iter().map(|entry| entry.at_ms as usize).collect();
    kept.sort_unstable();
    assert!(kept.into_iter().eq(FRESH + 1..=PENDING_MAX + FRESH));
    assert_eq!(keeper.shared.tally.overflow.load(Relaxed), FRESH as u64);
}

#[test]
fn what_was_to_be_told_under_keys_of_another_store_counts_as_lost() {
    ends(|| async {
        let mut keeper = keeper();
        let before = keeper.access.replace(access("q:")).unwrap();
        keeper.dialled(failed(&before, 30));
        assert_eq!((keeper.pending.len(), keeper.shared.tally.overflow.load(Relaxed)), (0, 30));
        let write = || Write { kind: QueryKind::Learn, done: None, of: None };
        let (entries, writes) = (vec![entry(1, 1), entry(2, 2)], vec![write(), write()]);
        keeper.landed(&before, Landed { entries, writes, put: None, ..Landed::begun(1, clock::now()) });
        assert_eq!((keeper.pending.len(), keeper.shared.tally.overflow.load(Relaxed)), (0, 32));
    });
}
