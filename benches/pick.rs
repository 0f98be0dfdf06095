//! Time of a pick: `cargo bench --bench pick`.
//!
//! Prints the time of a pick among three backends by each step of the chain, beside the most that it may take and what
//! has been published for other balancers; then times the whole pick as a connection makes it, the snapshot's load
//! included: by each method among 3, 100 and 1,000 backends, also while the health of one changes 100 times a second, and
//! with connections that come and go. No figure includes reading the head of a request. Invariant: before a step is timed, it has been the
//! reason of a pick.

use std::collections::VecDeque;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use divan::Bencher;
use sessile::admission::Admission;
use sessile::config::{self, Check, CheckKind, OnMarkedDown};
use sessile::outcome::PickReason;
use sessile::pool::{Lease, PickScene, Pool};
use sessile::snapshot::{Current, LoadedFiles, Snapshot};
use sessile::sticky::Facts;

fn main() {
    bars();
    divan::main();
}

const METHODS: [&str; 7] = ["hash", "ring", "maglev", "round_robin", "least_connections", "two_choices", "random"];

/// Time between two changes of health.
const CHANGES_EVERY: Duration = Duration::from_millis(10);
/// Connections that each backend has while others come and go.
const HELD: usize = 10;

/// Number of turns, of which the fastest counts: other programs make turns slower and never faster.
const TURNS: usize = 40;
/// Number of picks in a turn.
const PICKS: u32 = 100_000;
/// Number of clients, picked for in turn; their entries stay in the processor's cache.
const CLIENTS: u32 = 64;
/// Distance between the addresses of two clients.
const STRIDE: u32 = 0x9e37;

/// A step of the chain, the most nanoseconds that a pick may take, and what others have published.
struct Way {
    name: &'static str,
    bar_ns: f64,
    published_ns: f64,
    pick_ns: f64,
}

fn bars() {
    let way = |name, bar_ns, published_ns, pick_ns| Way { name, bar_ns, published_ns, pick_ns };
    let ways = [
        way("hash", 30.0, 3_000.0, placement("hash")),
        way("ring", 60.0, 8_000.0, placement("ring")),
        way("stick table hit, cached", 20.0, 5_000.0, table_hit()),
        way("learned cookie, local hit", 120.0, 12_000.0, learned_cookie()),
    ];
    println!("a pick among 3 backends       took     at most  published   a factor of");
    for Way { name, bar_ns, published_ns, pick_ns } in ways {
        let verdict = if pick_ns <= bar_ns { "" } else { "  missed" };
        println!(
            "  {name:<26} {pick_ns:>5.1} ns {bar_ns:>7.0} ns {:>7.0} µs {:>9.0}{verdict}",
            published_ns / 1_000.0,
            published_ns / pick_ns
        );
    }
    println!("beside them, the whole pick for a known client: {:.1} ns", remembered());
}

/// Nanoseconds of a pick in the fastest turn.
fn quickest(mut pick: impl FnMut(u32)) -> f64 {
    let turn = |_| {
        let start = Instant::now();
        (0..PICKS).for_each(&mut pick);
        start.elapsed().as_nanos() as f64 / f64::from(PICKS)
    };
    (0..TURNS).map(turn).fold(f64::INFINITY, f64::min)
}

fn facts(number: u32) -> Facts<'static> {
    let source = IpAddr::V4((0x1400_0000u32.wrapping_add(number.wrapping_mul(STRIDE))).into());
    Facts { source: Some(source), ..Facts::default() }
}

/// Picks by placement alone, from the client's address to the backend.
fn placement(method: &str) -> f64 {
    let current = current(method, 3, "stick_table = \"0\"\n", "");
    let snapshot = current.load_full();
    let pool = &snapshot.pools[0];
    assert_eq!(pool.pick(&PickScene::new(&facts(1), &[], 1)).map(|pick| pick.reason), Some(PickReason::Placement));
    quickest(|number| _ = black_box(pool.pick(&PickScene::new(black_box(&facts(number)), &[], 1))))
}

/// Looks up known keys in the stick table, without the rest of a pick.
fn table_hit() -> f64 {
    let current = current("hash", 3, "", "");
    let snapshot = current.load_full();
    let pool = &snapshot.pools[0];
    let keys = settle_all(pool);
    let table = pool.table().expect("a stick table").stick_table();
    let now = sessile::sticky::table::Minute::of_ms(1);
    assert!(keys.iter().all(|key| table.find(*key, now).is_some()));
    quickest(|number| _ = black_box(table.find(black_box(keys[(number % CLIENTS) as usize]), now)))
}

/// Picks for known clients, from the client's address to the backend in the stick table.
fn remembered() -> f64 {
    let current = current("hash", 3, "", "");
    let snapshot = current.load_full();
    let pool = &snapshot.pools[0];
    settle_all(pool);
    assert_eq!(pool.pick(&PickScene::new(&facts(1), &[], 1)).map(|pick| pick.reason), Some(PickReason::StickTable));
    quickest(|number| _ = black_box(pool.pick(&PickScene::new(black_box(&facts(number % CLIENTS)), &[], 1))))
}

fn settle_all(pool: &Pool) -> Vec<sessile::sticky::table::KeyHash> {
    let settle = |number| {
        let pick = pool.pick(&PickScene::new(&facts(number), &[], 1)).expect("a backend");
        let remember = pick.remember.expect("a key");
        pool.table().expect("a stick table").settle(remember, pick.backend, 1);
        remember.key
    };
    (0..CLIENTS).map(settle).collect()
}

/// Picks by learned cookie, from its value in the head to the backend.
fn learned_cookie() -> f64 {
    let cookie = "http = true\ncookie = { mode = \"learn\", name = \"SID\" }\n";
    let current = current("hash", 3, cookie, "");
    let snapshot = current.load_full();
    let pool = &snapshot.pools[0];
    let (rule, table) = (pool.cookie().expect("a cookie"), pool.table().expect("a stick table"));
    let values: Vec<String> = (0..CLIENTS).map(|number| format!("{number:032x}")).collect();
    for (number, value) in values.iter().enumerate() {
        table.learn(value.as_bytes(), &pool.backends()[number % 3], 1);
    }
    let pick = |number: u32| {
        let value = black_box(&values[(number % CLIENTS) as usize]).as_bytes();
        let read = rule.read([value], 1, |value| table.lookup_value(value, 1));
        let cookie = read.and_then(|read| read.verdict.backend());
        pool.pick(&PickScene { cookie, ..PickScene::new(&facts(number), &[], 1) })
    };
    assert_eq!(
        pick(1).map(|pick| (pick.reason, pick.backend.name().to_owned())),
        Some((PickReason::Cookie, "b1".into()))
    );
    quickest(|number| _ = black_box(pick(number)))
}

#[divan::bench(args = METHODS)]
fn among_3(bencher: Bencher<'_, '_>, method: &str) {
    pick(bencher, method, 3, "");
}

#[divan::bench(args = METHODS)]
fn among_100(bencher: Bencher<'_, '_>, method: &str) {
    pick(bencher, method, 100, "");
}

#[divan::bench(args = METHODS)]
fn among_1000(bencher: Bencher<'_, '_>, method: &str) {
    pick(bencher, method, 1000, "");
}

/// Keys that the stick table does not have: load places them, and the entry is written.
#[divan::bench(args = ["round_robin", "least_connections", "two_choices"], consts = [3, 100, 1000])]
fn new_key_by_load<const BACKENDS: usize>(bencher: Bencher<'_, '_>, method: &str) {
    let current = current(method, BACKENDS, "key = \"source\"\n", "");
    let mut client = 0;
    bencher.bench_local(|| {
        client += 1;
        _ = black_box(current.load().pools[0].pick(&PickScene::new(&facts(client), &[], 1)));
    });
}

#[divan::bench(args = METHODS, consts = [3, 100, 1000])]
fn while_health_changes<const BACKENDS: usize>(bencher: Bencher<'_, '_>, method: &str) {
    let current = current(method, BACKENDS, "", "");
    let (snapshot, done) = (current.load_full(), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| flip(&snapshot.pools[0], &done));
        let mut client = 0;
        bencher.bench_local(|| {
            client += 1;
            _ = black_box(current.load().pools[0].pick(&PickScene::new(&facts(client), &[], 1)));
        });
        done.store(true, Relaxed);
    });
}

/// Takes one backend after the other down and up again.
fn flip(pool: &Pool, done: &AtomicBool) {
    let kind = CheckKind::Tcp;
    let (interval, timeout) = (Duration::from_secs(2), Duration::from_secs(1));
    let check =
        Check { kind, interval, timeout, rise: 1, fall: 1, flap_damping: 1, port: None, agent: None, sni: None };
    for turn in (0..).take_while(|_| !done.load(Relaxed)) {
        let backend = &pool.backends()[turn / 2 % pool.backends().len()];
        let result = if turn % 2 == 0 { Err("refused") } else { Ok(()) };
        backend.checked(result, &check, OnMarkedDown::Keep, 1);
        thread::sleep(CHANGES_EVERY);
    }
}

/// A pick, its connection, and the end of an older one.
#[divan::bench(args = METHODS, consts = [3, 100, 1000])]
fn with_leases<const BACKENDS: usize>(bencher: Bencher<'_, '_>, method: &str) {
    let current = current(method, BACKENDS, "", "");
    let mut client = 0;
    let mut connect = || {
        client += 1;
        let current = current.load();
        let pick = current.pools[0].pick(&PickScene::new(&facts(client), &[], 1)).expect("a backend");
        Lease::new(pick.backend)
    };
    let mut held: VecDeque<Lease> = (0..HELD * BACKENDS).map(|_| connect()).collect();
    bencher.bench_local(|| {
        held.push_back(connect());
        held.pop_front()
    });
}

#[divan::bench]
fn among_3_with_10000_ranges(bencher: Bencher<'_, '_>) {
    let range = |n: u32| {
        let network = Ipv4Addr::from(0x1400_0000 + (n << 8));
        format!("[[pool.range]]\nname = \"r{n}\"\ncidr = \"{network}/24\"\none = true\n")
    };
    pick(bencher, "hash", 3, &(0..10_000).map(range).collect::<String>());
}

#[divan::bench]
fn snapshot_load(bencher: Bencher<'_, '_>) {
    let current = current("hash", 3, "", "");
    bencher.bench(|| black_box(current.load().generation));
}

fn pick(bencher: Bencher<'_, '_>, method: &str, backends: usize, more: &str) {
    let current = current(method, backends, "", more);
    let mut client = 0;
    bencher.bench_local(|| {
        client += 1;
        _ = black_box(current.load().pools[0].pick(&PickScene::new(&facts(client), &[], 1)));
    });
}

/// A snapshot with one pool; `keys` stands before the pool's backends in the configuration, `tables` behind them.
fn current(method: &str, backends: usize, keys: &str, tables: &str) -> Current {
    let mut text = format!(
        "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\npool = \"p\"\n\
         [[pool]]\nname = \"p\"\nbalance = \"{method}\"\n{keys}"
    );
    for n in 0..backends {
        text += &format!("[[pool.backend]]\nname = \"b{n}\"\naddress = \"127.0.0.1:{}\"\n", 1000 + n);
    }
    let checked = config::check(&(text + tables), &|_| Err(std::io::ErrorKind::NotFound.into()));
    let config = checked.expect("a good configuration").config;
    Current::new(Snapshot::build(config, LoadedFiles::default(), None, 1, &Arc::new(Admission::new(1))))
}
