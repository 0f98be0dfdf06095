//! Picks without a key: few backends are looked at, and the pick is the one that a look at all of them makes.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use proptest::prelude::*;

use super::super::scene::{HealthView, LiveView};
use super::*;

const KEYLESS: [Balance; 4] = [Balance::RoundRobin, Balance::LeastConnections, Balance::TwoChoices, Balance::Random];

/// A pool of `count` backends of weight 1.
fn pool_of(balance: Balance, count: usize) -> config::Pool {
    let names: Vec<String> = (0..count).map(|n| format!("b{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    config::Pool { balance, ..config(&names) }
}

fn index(pool: &Pool, now_ms: u64) -> Option<usize> {
    pool.pick(&PickScene::new(&client(1), &[], now_ms)).map(|pick| pick.index)
}

/// The pick of the same draw by a look at every backend, as after a failed attempt elsewhere.
fn looked(pool: &Pool, now_ms: u64) -> Option<usize> {
    let stranger = Pool::new(&config(&["stranger"]), None, 1);
    let tried = [Arc::clone(&stranger.backends()[0])];
    pool.pick(&PickScene::new(&client(1), &tried, now_ms)).map(|pick| pick.index)
}

/// Fails unless the next draws pick what a look at every backend picks.
fn assert_same(pool: &Pool, now_ms: u64, what: &str) {
    for draw in pool.shared.draws.0.load(Relaxed)..pool.shared.draws.0.load(Relaxed) + 5 {
        let picks = [index, looked].map(|pick| {
            pool.shared.draws.0.store(draw, Relaxed);
            pick(pool, now_ms)
        });
        assert_eq!(picks[0], picks[1], "{:?}, draw {draw}, {what}", pool.config().balance);
    }
}

/// The living pool; counts how often the health of a backend is asked for.
#[derive(Clone, Copy)]
struct Counting<'a>(&'a Cell<u64>);

impl HealthView for Counting<'_> {
    fn health(&self, backend: &Backend, index: usize, now_ms: u64) -> Health {
        self.0.set(self.0.get() + 1);
        LiveView.health(backend, index, now_ms)
    }

    fn draw(&self, draws: &AtomicU64) -> u64 {
        LiveView.draw(draws)
    }

    fn table<'p>(&self, table: Option<&'p PoolTable>) -> Option<&'p PoolTable> {
        LiveView.table(table)
    }

    fn is_living(&self) -> bool {
        LiveView.is_living()
    }

    fn is_noted(&self) -> bool {
        LiveView.is_noted()
    }
}

/// How many backends are asked in one pick.
fn asked(pool: &Pool) -> u64 {
    let (facts, count) = (client(1), Cell::new(0));
    let scene = PickScene::new(&facts, &[], 0);
    let PickScene { cookie, beside, tried, holds, now_ms, .. } = scene;
    let scene = PickScene { facts: &facts, cookie, beside, tried, holds, now_ms, view: Counting(&count) };
    assert!(pool.pick(&scene).is_some());
    count.get()
}

#[test]
fn a_pick_without_a_key_judges_one_backend_however_many_there_are() {
    for balance in KEYLESS {
        let mut config = pool_of(balance, 1_000);
        config.backends.iter_mut().enumerate().for_each(|(n, backend)| backend.weight = 1 + n as u16 % 7);
        let pool = Pool::new(&config, None, 1);
        assert!((0..50).all(|_| asked(&pool) == 1), "{balance:?}");
        // Also while some are down, drained or full of connections, and after each change of that.
        for n in 0..100 {
            mark(&pool.backends()[n * 7], n % 3 == 0);
            assert_eq!(asked(&pool), 1, "{balance:?}");
        }
        pool.order("b5", AdminState::Drain, 0);
        let _leases: Vec<Lease> = (0..100).map(|n| Lease::new(&pool.backends()[n])).collect();
        assert_eq!(asked(&pool), 1, "{balance:?}");
    }
}

#[test]
fn a_load_bound_asks_no_more_backends_however_many_there_are() {
    for balance in [Balance::Ring { points: 40 }, Balance::Maglev { table_size: 65_537 }] {
        let config = config::Pool { load_bound: Some(200), ..pool_of(balance, 1_000) };
        let pool = Pool::new(&config, None, 1);
        assert!(asked(&pool) <= 2, "the first look does not ask the scene");
        mark(&pool.backends()[3], false);
        assert!(asked(&pool) <= 2);
    }
}

#[test]
fn full_backends_that_overflow_are_passed_over_without_a_look_at_each() {
    for balance in KEYLESS {
        let mut config = pool_of(balance, 500);
        config.backends.iter_mut().for_each(|backend| backend.max_connections = Some(1));
        let pool = Pool::new(&config, None, 1);
        let mut held: Vec<Lease> = Vec::new();
        for _ in 0..499 {
            assert_eq!(asked(&pool), 1, "{balance:?}");
            held.push(Lease::new(pool.pick(&PickScene::new(&client(1), &[], 0)).unwrap().backend));
        }
        held.sort_by_key(|lease| lease.name().to_owned());
        held.dedup_by_key(|lease| lease.name().to_owned());
        assert_eq!(held.len(), 499, "{balance:?}: each has one connection");
        held.truncate(400);
        assert_eq!(asked(&pool), 1, "{balance:?}");
        // A client that holds a connection to a full backend may get that backend again.
        let holding = Arc::clone(held[0].backend());
        let is_held = |backend: &Arc<Backend>| Arc::ptr_eq(backend, &holding);
        let facts = client(1);
        let scene = || PickScene { holds: Some(&is_held), ..PickScene::new(&facts, &[], 0) };
        if balance == Balance::Random {
            assert!((0..20_000).any(|_| Arc::ptr_eq(pool.pick(&scene()).unwrap().backend, &holding)));
        }
        assert_same(&pool, 0, "with full ones");
    }
}

#[test]
fn an_ejection_that_ends_is_seen_without_another_change() {
    for balance in KEYLESS {
        let pool = Pool::new(&pool_of(balance, 4), None, 1);
        (0..3).for_each(|_| _ = pool.connect_failed(&pool.backends()[2], 1_000));
        let is_picked = |now_ms| (0..200).any(|_| index(&pool, now_ms) == Some(2));
        assert!(!is_picked(1_001) && !is_picked(10_999) && is_picked(11_000), "{balance:?}");
    }
}

#[test]
fn connections_from_before_a_reload_count_after_it_and_those_of_removed_backends_do_not() {
    let before = Pool::new(&pool_of(Balance::LeastConnections, 4), None, 1);
    let held: Vec<Lease> = [0, 0, 0, 1, 1, 3].map(|n| Lease::new(&before.backends()[n])).into();
    // A reload that is refused: its pool is dropped, and the one in force goes on.
    drop(Pool::new(&pool_of(Balance::LeastConnections, 2), Some(&before), 1));
    assert_eq!(asked(&before), 1);
    assert_eq!(index(&before, 0), Some(2));

    let mut config = pool_of(Balance::LeastConnections, 4);
    config.backends.remove(0);
    config.backends.push(backend("new"));
    let after = Pool::new(&config, Some(&before), 1);
    assert_same(&after, 0, "not in force yet");
    after.put_in_force();
    assert_eq!(asked(&after), 1);
    assert!(asked(&before) >= 4, "the old one looks at every backend");
    assert_same(&after, 0, "in force");
    let late: Vec<Lease> = [1, 1, 3, 3].map(|n| Lease::new(&after.backends()[n])).into();
    assert_same(&after, 0, "with new leases");
    // b1 has 2, b2 has 2, b3 has 1, new has 2.
    assert_eq!(index(&after, 0), Some(2));
    drop(held);
    assert_same(&after, 0, "without the old ones");
    assert!([Some(0), Some(2)].contains(&index(&after, 0)));
    drop(late);
    assert_same(&after, 0, "without any");
}

/// Something that happens to a pool: which backend, what, and how long after the event before.
type Happening = (prop::sample::Index, u8, u64);

/// Makes it happen.
fn happen(pool: &Pool, held: &mut Vec<Lease>, (which, what, _): &Happening, now_ms: u64) {
    let backend = &pool.backends()[which.index(pool.backends().len())];
    match what {
        0 | 1 => mark(backend, *what == 0),
        2 => _ = pool.order(backend.name(), AdminState::Drain, now_ms),
        3 => _ = pool.order(backend.name(), AdminState::Ready, now_ms),
        4 => (0..3).for_each(|_| _ = pool.connect_failed(backend, now_ms)),
        5 => pool.connect_succeeded(backend),
        6 if !held.is_empty() => drop(held.swap_remove(which.index(held.len()))),
        7 => backend.unchecked(now_ms),
        _ => held.push(Lease::new(backend)),
    }
}

proptest! {
    #[test]
    fn a_pick_is_the_same_whatever_has_happened(
        which in 0..KEYLESS.len(),
        members in prop::collection::vec((0..4_u16, 0..3_usize, any::<bool>(), prop::option::of(1..4_u32)), 1..12),
        happenings in prop::collection::vec((any::<prop::sample::Index>(), 0..14_u8, 0..9_000_u64), 0..60),
        reload_at in 0..60_usize,
    ) {
        let mut config = pool_of(KEYLESS[which], members.len());
        for (backend, (weight, place, backup, limit)) in config.backends.iter_mut().zip(&members) {
            backend.weight = *weight;
            backend.location = ["dc1", "dc2"].iter().take(*place).map(|level| (*level).to_owned()).collect();
            (backend.backup, backend.max_connections) = (*backup && *weight > 1, *limit);
        }
        let (mut pool, mut held, mut now_ms) = (Pool::new(&config, None, 1), Vec::new(), 0);
        for (number, happening) in happenings.iter().enumerate() {
            now_ms += happening.2;
            happen(&pool, &mut held, happening, now_ms);
            if number == reload_at {
                config.backends.iter_mut().for_each(|backend| backend.weight = (backend.weight + 1) % 4);
                config.backends.rotate_left(1);
                pool = Pool::new(&config, Some(&pool), 1);
                pool.put_in_force();
            }
            assert_same(&pool, now_ms, &format!("{happening:?}"));
            let takes = |index: &usize| pool.backends()[*index].usable(now_ms) && !pool.backends()[*index].draining();
            let up = (0..members.len()).filter(takes).map(|index| &pool.config().backends[index]);
            let weight_up: u64 = up.filter(|backend| !backend.backup).map(|backend| u64::from(backend.weight)).sum();
            prop_assert_eq!(pool.ready.as_ref().unwrap().weight_up(&pool, now_ms), Some(weight_up));
        }
    }
}

/// Several threads pick, connect and leave, while health changes; then nothing was missed.
#[test]
fn threads_that_pick_at_once_share_backends_evenly_and_miss_no_lease() {
    const THREADS: usize = 4;
    let pool = Pool::new(&pool_of(Balance::LeastConnections, 50), None, 1);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let pool = &pool;
            scope.spawn(move || {
                let mut held = Vec::new();
                for turn in 0..2_000 {
                    held.push(Lease::new(pool.pick(&PickScene::new(&client(1), &[], 0)).unwrap().backend));
                    if turn % 2 == 1 {
                        held.swap_remove(turn * 31 % held.len());
                    }
                    if thread == 0 && turn % 100 == 0 {
                        mark(&pool.backends()[turn / 100], turn % 200 != 0);
                        mark(&pool.backends()[turn / 100], true);
                    }
                }
                // Levelled out by the last connections: none of them is missing from what the others see.
                drop(held);
            });
        }
    });
    assert_eq!(pool.leases(), 0);
    assert_same(&pool, 0, "after all");

    let held: Vec<Vec<Lease>> = thread::scope(|scope| {
        let take = || (0..500).map(|_| Lease::new(pool.pick(&PickScene::new(&client(1), &[], 0)).unwrap().backend));
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(move || take().collect::<Vec<_>>())).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let leases: Vec<u64> = pool.backends().iter().map(|backend| backend.leases()).collect();
    let (least, most) = (leases.iter().min().unwrap(), leases.iter().max().unwrap());
    // Threads that pick at the same moment may pick the same backend, once each.
    assert!(most - least <= THREADS as u64 + 1, "{leases:?}");
    assert_same(&pool, 0, "with leases");
    drop(held);
    assert_same(&pool, 0, "without leases");
}

/// Threads that want the same least loaded backend at the same moment miss it now and then.
#[test]
fn a_backup_gets_no_client_while_threads_chase_the_same_primary() {
    let mut config = pool_of(Balance::LeastConnections, 3);
    config.backends[2].backup = true;
    let pool = Pool::new(&config, None, 1);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..100_000 {
                    let lease = Lease::new(pool.pick(&PickScene::new(&client(1), &[], 0)).unwrap().backend);
                    assert_ne!(lease.backend().name(), "b2");
                }
            });
        }
    });
}
