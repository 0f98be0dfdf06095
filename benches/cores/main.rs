//! What many cores would share: `cargo bench --bench cores`.
//!
//! Prints the list of memory that several threads write while clients are served ([`list`]), what a cache line costs on this
//! machine that is shared by two cores, what two threads at once do with parts of the library and with whole connections
//! over an imitated kernel, and what 1 to 64 workers would do by a model that these costs go into ([`model`]). `--test`
//! measures next to nothing. Figures of a busy machine are wrong in both directions: a thread that waits for its core
//! disturbs no other, and is disturbed by strangers. Invariant: each part is called as connections call it, by a snapshot
//! that was checked.

mod list;
mod model;
#[path = "../rig/mod.rs"]
mod rig;
mod threads;

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

use sessile::admission::Admission;
use sessile::counters::Padded;
use sessile::pool::{Backend, Lease, PickScene, Pool, Remember};
use sessile::snapshot::{Current, LoadedFiles, Snapshot};
use sessile::splicer::PipeLimits;
use sessile::splicer::worker::WorkerShared;
use sessile::sticky::Facts;
use sessile::{config, fault, socket, splicer};

use self::model::{BusyLine, Load, VisitCost};
use self::rig::Rig;
use self::threads::Stopwatch;

#[path = "../../src/random.rs"]
#[allow(dead_code, reason = "the imitation uses a part of it")]
mod random;

/// Connections of a worker that has no other beside it, in a second: assumed, not measured here.
const CONNECTIONS: f64 = 10_000.0;
/// Requests of kept connections, likewise.
const REQUESTS: f64 = 40_000.0;
const WORKERS: [usize; 5] = [1, 2, 8, 16, 64];
/// A hop between two sockets, by that within one: assumed. David, Guerraoui and Trigonakis ("Everything You Always Wanted
/// to Know About Synchronization but Were Afraid to Ask", SOSP 2013) found it several times as dear.
const FAR: f64 = 4.0;
/// Clients of one thread; their entries stay in the processor's cache.
const CLIENTS: u64 = 64;
/// The imitated kernel remembers every socket that it ever made, so a rig serves so many connections.
const RIG_MAX: u64 = 1_000;

fn main() {
    let is_test = std::env::args().any(|argument| argument == "--test");
    model::check();
    list::print();
    let cores = sessile::threads::cores();
    if cores.len() < 2 {
        println!("this machine has one core: there is nothing to share, and nothing to measure");
        return;
    }
    let (rounds, operations) = if is_test { (1, 100) } else { (21, 200_000) };
    let stopwatch = Stopwatch { cores, rounds, operations };
    let cost = lines(&stopwatch);
    let own = parts(&stopwatch);
    tables(cost, own);
}

/// What one line costs that two cores share.
fn lines(stopwatch: &Stopwatch) -> VisitCost {
    let add = |counter: &AtomicU64| _ = counter.fetch_add(1, Relaxed);
    let operations = stopwatch.operations;

    let one = Padded(AtomicU64::new(0));
    let local = stopwatch.time(1, operations, |_| (), |_, _| add(&one.0))[0];
    let both = mean(&stopwatch.time(2, operations, |_| (), |_, _| add(&one.0)));
    let near = Padded([AtomicU64::new(0), AtomicU64::new(0)]);
    let beside = mean(&stopwatch.time(2, operations, |number| number, |number, _| add(&near.0[*number])));
    let apart = [Padded(AtomicU64::new(0)), Padded(AtomicU64::new(0))];
    let alone = mean(&stopwatch.time(2, operations, |number| number, |number, _| add(&apart[*number].0)));
    let read = |number: &mut usize, _| {
        if *number == 0 {
            add(&one.0);
        } else {
            black_box(one.0.load(Acquire));
        }
    };
    let reads = stopwatch.time(2, operations, |number| number, read);
    let hop = hop(stopwatch);

    println!("one cache line, nanoseconds");
    println!("  an add, by one thread alone                        {local:>8.1}");
    println!("  an add, by two threads to two counters apart       {alone:>8.1}");
    println!("  an add, by two threads to two counters in one line {beside:>8.1}");
    println!("  an add, by two threads to one counter              {both:>8.1}");
    println!("  an add, while the other thread reads               {:>8.1}", reads[0]);
    println!("  a read, while the other thread adds                {:>8.1}", reads[1]);
    println!("  a hop: written here, read and written there        {hop:>8.1}\n");
    VisitCost { local, hop }
}

/// Nanoseconds until the other thread has seen a write and written itself.
fn hop(stopwatch: &Stopwatch) -> f64 {
    let turn = Padded(AtomicU64::new(0));
    let bounce = |next: &mut u64, _| {
        while turn.0.load(Acquire) != *next {}
        turn.0.store(*next + 1, Release);
        *next += 2;
    };
    // The rounds go on where the one before has ended.
    stopwatch.fastest(|number| turn.0.load(Acquire) / 2 * 2 + number as u64, bounce) / 2.0
}

/// What parts of the library cost one thread alone, and each of two at once. Returns the nanoseconds of a connection
/// without a kernel.
fn parts(stopwatch: &Stopwatch) -> f64 {
    println!("parts, nanoseconds                                      alone   of two     ratio");
    let show = |name: &str, (alone, of_two): (f64, f64)| {
        println!("  {name:<50} {alone:>8.1} {of_two:>8.1} {:>9.2}", of_two / alone);
    };
    for method in ["hash", "round_robin", "two_choices", "least_connections"] {
        let current = snapshot(method);
        let lease = |number: &mut usize, client| {
            let snapshot = current.load();
            let pick = pick(&snapshot.pools[0], *number, client % CLIENTS);
            drop(black_box(Lease::new(pick.expect("a backend").0)));
        };
        show(&format!("a pick by {method}, its lease, and its end"), twice(stopwatch, lease));
    }
    let current = snapshot("hash");
    show("the snapshot, for one decision", twice(stopwatch, |_, _| _ = black_box(current.load().generation)));
    let loaded = current.load_full();
    let (listener, pool) = (&loaded.listeners[0], &loaded.pools[0]);
    show("a permit, taken and given back", twice(stopwatch, |_, _| drop(listener.state.admit().expect("a permit"))));
    show("a reference of a listener, likewise", twice(stopwatch, |_, _| drop(black_box(Arc::clone(listener)))));

    let table = pool.table().expect("a stick table");
    let keys = [0, 1].map(|thread| pick(pool, thread, 0).and_then(|(_, remember)| remember).expect("a key"));
    let touch = |thread: usize, minute: u64| _ = table.settle(keys[thread], &pool.backends()[0], minute * 60_000);
    show("a key in the same minute, of each thread", twice(stopwatch, |number, _| touch(*number, 1)));
    show("a key in the same minute, of both threads", twice(stopwatch, |_, _| touch(0, 1)));
    show("a key in the next minute, of each thread", twice(stopwatch, |number, minute| touch(*number, minute)));
    show("a key in the next minute, of both threads", twice(stopwatch, |_, minute| touch(0, minute)));
    show("a descriptor of the kernel, made and closed", descriptors(stopwatch));
    let connection = connections(stopwatch);
    show("a connection without a kernel, of known clients", connection);
    println!();
    connection.0
}

/// Times an operation of one thread alone, and of two at once. The operation gets the number of its thread, and its own.
fn twice(stopwatch: &Stopwatch, operate: impl Fn(&mut usize, u64) + Sync) -> (f64, f64) {
    let time = |threads| mean(&stopwatch.time(threads, stopwatch.operations, |number| number, &operate));
    (time(1), time(2))
}

fn mean(times: &[f64]) -> f64 {
    times.iter().sum::<f64>() / times.len() as f64
}

/// Picks for one of the clients of a thread.
fn pick(pool: &Pool, thread: usize, client: u64) -> Option<(&Arc<Backend>, Option<Remember>)> {
    let facts = Facts { source: Some(address(thread, client)), ..Facts::default() };
    let pick = pool.pick(&PickScene::new(black_box(&facts), &[], 1))?;
    Some((pick.backend, pick.remember))
}

/// Address of a client of a thread.
fn address(thread: usize, client: u64) -> IpAddr {
    Ipv4Addr::from(10 << 24 | (thread as u32) << 16 | client as u32).into()
}

/// Makes descriptors of a file of each thread's own, so that they share the table of the process alone.
fn descriptors(stopwatch: &Stopwatch) -> (f64, f64) {
    let file = |_| OwnedFd::from(std::fs::File::open("/dev/null").expect("a file"));
    let copy = |file: &mut OwnedFd, _| drop(rustix::io::dup(&*file).expect("a descriptor"));
    let time = |threads| mean(&stopwatch.time(threads, stopwatch.operations, file, copy));
    (time(1), time(2))
}

/// Whole connections of two workers that share what the workers of a process share, each with a kernel of its own.
fn connections(stopwatch: &Stopwatch) -> (f64, f64) {
    let admission = Arc::new(Admission::new(usize::MAX));
    let snapshot = Snapshot::build(configuration("hash"), LoadedFiles::default(), None, 2, &admission);
    let limits = PipeLimits { most: 64, ..PipeLimits::default() };
    let shared = Arc::new(WorkerShared::new(Arc::new(Current::new(snapshot)), admission, 2, limits));
    let operations = stopwatch.operations.min(RIG_MAX);
    let rig = |number| (Rig::new(&shared, number), number);
    let connect = |(rig, number): &mut (Rig, usize), client| {
        rig.connection((address(*number, client % CLIENTS), 40_000).into());
    };
    let time = |threads| mean(&stopwatch.time(threads, operations, rig, connect));
    (time(1), time(2))
}

/// A listener, and a pool of three backends that this method places at.
fn configuration(method: &str) -> config::Config {
    let mut text = format!(
        "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:1\"\npool = \"p\"\n\
         [[pool]]\nname = \"p\"\ncheck = \"off\"\nbalance = \"{method}\"\n"
    );
    for number in 1..=3 {
        text += &format!("[[pool.backend]]\nname = \"b{number}\"\naddress = \"192.0.2.{number}:1\"\n");
    }
    let checked = config::check(&text, &|_| Err(std::io::ErrorKind::NotFound.into()));
    checked.unwrap_or_else(|problems| panic!("{problems:?}")).config
}

fn snapshot(method: &str) -> Current {
    let admission = Arc::new(Admission::new(usize::MAX));
    Current::new(Snapshot::build(configuration(method), LoadedFiles::default(), None, 2, &admission))
}

/// The model's tables. `without_kernel`: nanoseconds of a connection in which the kernel costs nothing.
fn tables(cost: VisitCost, without_kernel: f64) {
    let far = VisitCost { hop: FAR * cost.hop, ..cost };
    let own = 1e9 / CONNECTIONS;
    let hash = Load { own, of_requests: false, least_connections: false, logged: false, kernel: true };
    let least = Load { least_connections: true, ..hash };
    let requests = Load { own: 1e9 / REQUESTS, of_requests: true, ..hash };
    table("connections by hash", hash, cost);
    table("connections by hash, logged", Load { logged: true, ..hash }, cost);
    table("connections by hash, logged, hops between sockets", Load { logged: true, ..hash }, far);
    table("connections by least_connections", least, cost);
    table("connections by least_connections, hops between sockets", least, far);
    table("connections by hash, if the kernel cost nothing", Load { own: without_kernel, kernel: false, ..hash }, cost);
    table("requests by hash", requests, cost);
    table("requests by hash, logged, hops between sockets", Load { logged: true, ..requests }, far);
}

fn table(title: &str, load: Load, cost: VisitCost) {
    let own_us = load.own / 1e3;
    println!("the model: {title}; {own_us:.1} µs each besides lines, {:.0} ns a hop", cost.hop);
    println!("  workers   a worker/s   efficiency   the two busiest lines");
    let rate = |workers| load.with(workers, cost);
    let one = rate(1).rate;
    for workers in WORKERS {
        let solved = rate(workers);
        let each = solved.rate / workers as f64;
        let busy = |line: &BusyLine| format!("{}: {:.1} %", line.name, 100.0 * line.busy);
        let busiest: Vec<_> = solved.lines.iter().take(2).map(busy).collect();
        let (each_s, efficiency) = (each * 1e9, 100.0 * each / one);
        println!("  {workers:>7} {each_s:>12.0} {efficiency:>10.1} %   {}", busiest.join(", "));
    }
    for BusyLine { name, demand, .. } in rate(64).lines.iter().take(2) {
        let (all, workers) = (1e9 / demand, load.own / demand);
        println!("  {name}: full at {all:.0}/s in all, which {workers:.0} workers would bring");
    }
    println!();
}
