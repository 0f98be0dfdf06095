//! Lines of clients that wait for a place at a full backend: who waits where, and that every place finds its client.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use proptest::prelude::*;

use super::*;

use crate::config::{Balance, OnFull, QueueRules};
use crate::outcome::Ended;
use crate::pool::{AwaitedPlace, QueueVisit, StickTables};
use crate::sticky::table::Secret;

const RULES: QueueRules = QueueRules { most: 50, timeout: Duration::from_secs(5) };

/// A pool with so many places at each of these backends.
fn queued(names: &[&str], places: u32) -> config::Pool {
    let mut file = config::Pool { on_full: OnFull::Queue(RULES), ..config(names) };
    file.backends.iter_mut().for_each(|backend| backend.max_connections = Some(places));
    file
}

fn stand(pool: &Pool, place: &AwaitedPlace) -> QueueVisit {
    let mut visit = QueueVisit::default();
    visit.stand(pool, place, 0).unwrap();
    visit
}

/// The lease of a client that was called, at this backend.
fn served(mut visit: QueueVisit, pool: &Pool, index: usize) -> Option<Lease> {
    visit.listen();
    Some(visit.take(pool, &pool.backends()[index], 0)?.0)
}

fn place_of(pool: &Pool, facts: &Facts<'_>, cookie: Option<usize>) -> Result<usize, Option<AwaitedPlace>> {
    let scene = PickScene { cookie, ..PickScene::new(facts, &[], 0) };
    pool.pick_or_wait(&scene).map(|pick| pick.index)
}

#[test]
fn a_client_waits_where_its_key_belongs_though_another_backend_is_free() {
    let pool = Pool::new(&queued(&["a", "b"], 1), None, 1);
    let home = place_of(&pool, &client(7), None).unwrap();
    let lease = Lease::new(&pool.backends()[home]);
    assert_eq!(place_of(&pool, &client(7), None), Err(Some(AwaitedPlace::At(home))));
    // One of the other backend is not held up, nor one that holds a connection.
    let other = (0..100).map(client).find(|facts| place_of(&pool, facts, None).is_ok()).unwrap();
    assert_eq!(place_of(&pool, &other, None), Ok(1 - home));
    let facts = client(7);
    let holds = |_: &Arc<Backend>| true;
    assert!(pool.pick(&PickScene { holds: Some(&holds), ..PickScene::new(&facts, &[], 0) }).is_some());
    drop(lease);
    assert_eq!(place_of(&pool, &client(7), None), Ok(home));
}

#[test]
fn a_client_waits_where_the_stick_table_or_a_cookie_has_it_and_a_new_one_goes_where_there_is_room() {
    let file = config::Pool { balance: Balance::LeastConnections, ..queued(&["a", "b"], 1) };
    let rules = config::StickTableRules {
        bytes: 64 * 1024,
        remember: Duration::from_secs(60),
        on_add: config::OnAdd::Stay,
        on_return: config::OnReturn::Stay,
    };
    let file = config::Pool { stick_table: Some(rules), ..file };
    let pool = StickTables::new(None, &Secret::new([7; 16]), 0).give(Pool::new(&file, None, 1));
    let known = place_of(&pool, &client(1), None).unwrap();
    let first = Lease::new(&pool.backends()[known]);
    assert_eq!(place_of(&pool, &client(1), None), Err(Some(AwaitedPlace::At(known))), "the table knows it");
    assert_eq!(place_of(&pool, &client(2), Some(known)), Err(Some(AwaitedPlace::At(known))), "its cookie names it");
    assert_eq!(place_of(&pool, &client(3), None), Ok(1 - known), "new");
    let second = Lease::new(&pool.backends()[1 - known]);
    assert_eq!(place_of(&pool, &client(4), None), Err(Some(AwaitedPlace::AtAny(vec![0, 1]))), "all are full");
    mark(&pool.backends()[known], false);
    assert_eq!(place_of(&pool, &client(4), None), Err(Some(AwaitedPlace::AtAny(vec![1 - known]))));
    drop((first, second));
    assert_eq!(place_of(&pool, &client(4), None), Ok(1 - known));
}

#[test]
fn explain_says_for_what_a_client_would_wait_and_how_many_do() {
    let pool = Pool::new(&queued(&["a", "b"], 1), None, 1);
    let home = place_of(&pool, &client(7), None).unwrap();
    let explain = || Explanation::now(&pool, &client(7), crate::plan::LiveCookie::default(), &[], 0);
    assert_eq!((explain().line, explain().choice.as_deref()), (None, Some(pool.backends()[home].name())));
    let _lease = Lease::new(&pool.backends()[home]);
    let _waits = stand(&pool, &AwaitedPlace::At(home));
    let line = explain().line.unwrap();
    assert_eq!((line.backend.as_deref(), line.waiting), (Some(pool.backends()[home].name()), 1));
    assert_eq!((line.full, line.wait_ms, explain().choice), (false, 5_000, None));
}

#[test]
fn the_bounds_of_a_line_hold_and_a_client_waits_no_longer_than_it_may() {
    let rules = QueueRules { most: 1, timeout: Duration::from_secs(5) };
    let file = config::Pool { on_full: OnFull::Queue(rules), ..queued(&["a"], 1) };
    let pool = Pool::new(&file, None, 1);
    let _lease = Lease::new(&pool.backends()[0]);
    let mut first = QueueVisit::default();
    assert_eq!(first.stand(&pool, &AwaitedPlace::At(0), 1_000), Ok(6_000));
    assert_eq!(QueueVisit::default().stand(&pool, &AwaitedPlace::At(0), 1_000), Err(Ended::QueueFull));
    assert!(QueueVisit::default().stand(&pool, &AwaitedPlace::AtAny(vec![0]), 1_000).is_ok(), "another line");
    assert_eq!(first.stand(&pool, &AwaitedPlace::At(0), 5_999), Ok(6_000), "it has its place in the line");
    assert_eq!(first.stand(&pool, &AwaitedPlace::At(0), 6_000), Err(Ended::QueueTimeout));
    drop(first);
    assert_eq!((pool.backends()[0].waiting(), pool.waiting_anywhere()), (0, 0));
}

#[test]
fn a_place_that_is_given_to_a_client_that_has_gone_is_the_next_ones() {
    let pool = Pool::new(&queued(&["a"], 1), None, 1);
    let lease = Lease::new(&pool.backends()[0]);
    let (gone, next) = (stand(&pool, &AwaitedPlace::At(0)), stand(&pool, &AwaitedPlace::AtAny(vec![0])));
    drop(lease);
    assert!(gone.was_called() && !next.was_called());
    assert_eq!(place_of(&pool, &client(1), None), Err(Some(AwaitedPlace::At(0))), "no other gets in between");
    drop(gone);
    assert!(next.was_called());
    drop(served(next, &pool, 0).unwrap());
    assert_eq!(pool.backends()[0].leases(), 0);
}

#[test]
fn a_client_keeps_its_number_when_it_changes_the_line() {
    let pool = Pool::new(&queued(&["a", "b"], 1), None, 1);
    let leases = [0, 1].map(|index| Lease::new(&pool.backends()[index]));
    let mut first = stand(&pool, &AwaitedPlace::At(0));
    let second = stand(&pool, &AwaitedPlace::At(1));
    first.stand(&pool, &AwaitedPlace::At(1), 1).unwrap();
    assert_eq!([0, 1].map(|index| pool.backends()[index].waiting()), [0, 2]);
    drop(leases);
    assert!(first.was_called() && !second.was_called());
}

#[test]
fn a_reload_that_allows_more_serves_those_that_wait_and_any_reload_has_them_look_again() {
    let before = Pool::new(&queued(&["a", "b"], 1), None, 1);
    let _lease = Lease::new(&before.backends()[0]);
    let mut waits = [0, 1].map(|_| stand(&before, &AwaitedPlace::At(0)));
    let after = Pool::new(&queued(&["a", "b"], 2), Some(&before), 1);
    assert!(waits.iter().all(|visit| !visit.was_called()), "not in force yet");
    after.put_in_force();
    assert!(waits.iter().all(QueueVisit::was_called));
    waits.iter_mut().for_each(QueueVisit::listen);
    assert_eq!(waits.each_ref().map(QueueVisit::has_place), [true, false]);
    assert_eq!(after.backends()[0].leases(), 2);
    waits[1].stand(&after, &AwaitedPlace::At(0), 1).unwrap();
    assert!(!waits[1].was_called());
    // The backend leaves the configuration.
    Pool::new(&queued(&["b"], 2), Some(&after), 1).put_in_force();
    assert!(waits[1].was_called());
}

#[test]
fn a_backend_that_goes_down_or_comes_back_has_its_clients_look_again() {
    let pool = Pool::new(&queued(&["a", "b"], 1), None, 1);
    let _leases = [0, 1].map(|index| Lease::new(&pool.backends()[index]));
    let [mut own, mut any] = [AwaitedPlace::At(0), AwaitedPlace::AtAny(vec![0, 1])].map(|place| stand(&pool, &place));
    let other = stand(&pool, &AwaitedPlace::At(1));
    for good in [false, true] {
        mark(&pool.backends()[0], good);
        assert!(own.was_called() && any.was_called() && !other.was_called());
        own.listen();
        any.listen();
        assert!(!own.was_called() && !own.has_place() && !any.has_place());
    }
}

/// What a model of the lines knows: who waits in which order, and who has a place.
#[derive(Default)]
struct Model {
    waiting: Vec<(usize, AwaitedPlace)>,
    held: [Vec<usize>; 2],
}

impl Model {
    const PLACES: usize = 2;

    /// Gives what is free; the clients that are called, with their backends.
    fn give(&mut self) -> Vec<(usize, usize)> {
        let mut called = Vec::new();
        for index in 0..2 {
            let may = |place: &AwaitedPlace| match place {
                AwaitedPlace::At(own) => *own == index,
                AwaitedPlace::AtAny(allowed) => allowed.contains(&index),
            };
            while self.held[index].len() < Self::PLACES
                && let Some(at) = self.waiting.iter().position(|(_, place)| may(place))
            {
                let (client, _) = self.waiting.remove(at);
                self.held[index].push(client);
                called.push((client, index));
            }
        }
        called
    }
}

/// One event of a story: what happens, and to which of those that it may happen to.
fn events() -> impl Strategy<Value = Vec<(u8, usize)>> {
    proptest::collection::vec((0..7_u8, any::<proptest::sample::Index>().prop_map(|index| index.index(1_000))), 1..200)
}

proptest! {
    #[test]
    fn every_place_goes_to_the_client_that_came_first(events in events()) {
        let pool = Pool::new(&queued(&["a", "b"], Model::PLACES as u32), None, 1);
        let (mut model, mut visits, mut leases) = (Model::default(), BTreeMap::new(), BTreeMap::new());
        for (client, (event, which)) in events.into_iter().enumerate() {
            match event {
                0..=3 if model.waiting.len() < RULES.most as usize => {
                    let place = match event {
                        0 | 1 => AwaitedPlace::At(event.into()),
                        2 => AwaitedPlace::AtAny(vec![0, 1]),
                        _ => AwaitedPlace::AtAny(vec![which % 2]),
                    };
                    visits.insert(client, stand(&pool, &place));
                    model.waiting.push((client, place));
                }
                4 if !model.waiting.is_empty() => {
                    let (client, _) = model.waiting.remove(which % model.waiting.len());
                    visits.remove(&client);
                }
                _ => {
                    let held = &mut model.held[which % 2];
                    if !held.is_empty() {
                        let client = held.remove(which / 2 % held.len());
                        leases.remove(&client);
                    }
                }
            }
            for (client, index) in model.give() {
                let visit: QueueVisit = visits.remove(&client).unwrap();
                prop_assert!(visit.was_called());
                leases.insert(client, served(visit, &pool, index).unwrap());
            }
            prop_assert!(visits.values().all(|visit| !visit.was_called()));
            for index in 0..2 {
                let own = model.waiting.iter().filter(|(_, place)| *place == AwaitedPlace::At(index)).count();
                prop_assert_eq!(pool.backends()[index].waiting(), own);
                prop_assert_eq!(pool.backends()[index].leases(), model.held[index].len() as u64);
            }
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits on this thread until the client is called; false: it was not in all this time.
fn called(visit: &mut QueueVisit) -> bool {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while visit.poll_called(&mut Context::from_waker(&waker)) == Poll::Pending {
        let left = until.saturating_duration_since(std::time::Instant::now());
        if left.is_zero() {
            return false;
        }
        thread::park_timeout(left);
    }
    true
}

#[test]
fn no_place_is_lost_and_none_is_given_twice_over_many_threads() {
    const PLACES: u32 = 3;
    let pool = &Pool::new(&queued(&["a", "b"], PLACES), None, 1);
    let (used, most) = (&[(); 2].map(|()| AtomicU64::new(0)), &AtomicU64::new(0));
    thread::scope(|scope| {
        for own in 0..16_usize {
            scope.spawn(move || {
                for round in 0..200_usize {
                    let place = match (own + round) % 3 {
                        0 => AwaitedPlace::AtAny(vec![0, 1]),
                        _ => AwaitedPlace::At((own / 2 + round) % 2),
                    };
                    let mut visit = stand(pool, &place);
                    if (own * 7 + round) % 5 == 0 {
                        // It goes, perhaps just as it is called.
                        thread::yield_now();
                        continue;
                    }
                    assert!(called(&mut visit), "{place:?} was never called");
                    visit.listen();
                    let has = |index: &usize| {
                        let backend = &pool.backends()[*index];
                        visit.pick_with(|holds| holds.is_some_and(|holds| holds(backend)))
                    };
                    let index = (0..2).find(has).unwrap();
                    let (lease, _) = visit.take(pool, &pool.backends()[index], 0).unwrap();
                    most.fetch_max(used[index].fetch_add(1, SeqCst) + 1, SeqCst);
                    thread::yield_now();
                    used[index].fetch_sub(1, SeqCst);
                    drop(lease);
                }
            });
        }
    });
    assert!(most.load(SeqCst) <= PLACES.into(), "{most:?}");
    assert_eq!([0, 1].map(|index| pool.backends()[index].leases()), [0, 0]);
    assert_eq!(([0, 1].map(|index| pool.backends()[index].waiting()), pool.waiting_anywhere()), ([0, 0], 0));
}
