//! Cost of stick tables that are shared: `cargo bench --bench fleet`, `-- --test` for a small run. Needs redis-server.
//!
//! Real instances on one core, a real redis-server, clients and backends on another. Instances with a store are compared
//! with one without; a second one without is the null check, of which a ratio has to be out of reach to mean anything.
//! Judges nothing: each figure is printed with its bar. Invariant: compared figures were measured in turns, in the same
//! round.

mod with_redis;

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use socket2::{Domain, Socket, Type};

use self::with_redis::{Instance, Redis, backend_tables, eventually, quantile, scratch};

/// Clients that load has placed, so that placement does not find them.
const DISPLACED: usize = 1_000;
/// Connections at the same time, where cost is measured.
const AT_ONCE: usize = 50;
/// A message and its answer.
const MESSAGE: [u8; 64] = [7; 64];

/// Instances that are compared: one without a store, the same again, and one with a store.
const SIDES: usize = 3;

/// Size of a run, full or small.
struct Size {
    rounds: usize,
    /// Connections of one turn.
    connections: usize,
    /// Requests of one turn on connections that are kept.
    requests: usize,
}

/// The store while connects are timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StoreState {
    Working,
    /// It refuses writes.
    Full,
    /// It answers nothing.
    Frozen,
    /// There is none.
    Killed,
    /// It comes back without a key in every round.
    Restarted,
}

fn main() {
    let asked = |what: &str| std::env::args().any(|argument| argument == what);
    let size = match asked("--test") || !asked("--bench") {
        true => Size { rounds: 2, connections: 100, requests: 200 },
        false => Size { rounds: 25, connections: 5_000, requests: 20_000 },
    };
    let Some(mut redis) = Redis::start() else { return };
    let secret = scratch();
    let file = secret.path().join("secret");
    std::fs::write(&file, "0123456789abcdef0123456789abcdef\n").expect("the file is written");
    let share = format!(
        "[store]\nkind = \"redis\"\nurl = \"unix:{}\"\nsecret_file = \"{}\"\nshare = [\"cookies\", \"displaced\"]\n",
        redis.socket().display(),
        file.display()
    );
    let backends: Vec<_> = (0..5).map(|_| echo()).collect();
    let cores = Cores::find();
    cores.pin(cores.proxy);
    let instances = ["", "", &share].map(|store| start(store, &backends));
    // Another instance of the fleet, which tells and is told.
    let other = start(&share, &backends);
    cores.pin(cores.others);
    let shared = &instances[2];
    for instance in [shared, &other] {
        eventually("the fleet", || (fleet(instance)["instances"].as_array()?.len() == 2).then_some(()));
    }
    cost(&size, &instances, &other);
    for state in [StoreState::Working, StoreState::Full, StoreState::Frozen, StoreState::Killed, StoreState::Restarted]
    {
        connects(&size, &instances, &mut redis, state);
    }
}

/// CPU time of S1 and S2 of `compare`, with 1,000 displaced clients.
fn cost(size: &Size, instances: &[Instance; 3], other: &Instance) {
    for instance in instances.iter().chain([other]) {
        (0..DISPLACED).for_each(|client| ask(instance.address, displaced(client)).expect("an answer"));
    }
    let known = || fleet(&instances[2])["told"].as_u64().unwrap_or(0) + received(&instances[2]);
    eventually("the clients to be displaced", || (known() >= DISPLACED as u64).then_some(()));
    let before = written(&instances[2]);
    let (mut kept, mut once) = (Rounds::default(), Rounds::default());
    for round in 0..size.rounds {
        for side in order(round) {
            let instance = &instances[side];
            kept.add(side, instance, size.requests, || keep(instance.address, size.requests));
            once.add(side, instance, size.connections, || connect_anew(instance.address, size.connections));
        }
    }
    println!("{DISPLACED} displaced clients, {AT_ONCE} connections at once:");
    kept.print("CPU per kept-alive request", "us", ", bar: within the null check");
    once.print("CPU per connection with one request", "us", ", bar: within the null check");
    let [items, bytes] = [0, 1].map(|index| written(&instances[2])[index] - before[index]);
    let count = size.rounds * (size.connections + size.requests);
    println!("  of {count} requests {items} items with {bytes} bytes went to the store, its signs of life among them");
}

/// Time from the begin of a connect to the answer of a backend, of clients of which half are new.
fn connects(size: &Size, instances: &[Instance; 3], redis: &mut Redis, state: StoreState) {
    match state {
        StoreState::Working | StoreState::Restarted => {}
        StoreState::Full => redis_says(redis, "CONFIG SET maxmemory 1"),
        StoreState::Frozen => redis.signal(Signal::STOP),
        StoreState::Killed => redis.server = None,
    }
    let (mut p50, mut p99) = (Rounds::default(), Rounds::default());
    for round in 0..size.rounds {
        if state == StoreState::Restarted {
            redis.server = None;
            redis.run();
        }
        for side in order(round) {
            let client = |n: usize| address(state as u8 * 40 + round as u8, n / 2);
            let mut times: Vec<_> = (0..size.connections).map(|n| timed(instances[side].address, client(n))).collect();
            p50.put(side, quantile(&mut times, 0.5));
            p99.put(side, quantile(&mut times, 0.99));
        }
    }
    match state {
        StoreState::Full => redis_says(redis, "CONFIG SET maxmemory 0"),
        StoreState::Frozen => redis.signal(Signal::CONT),
        StoreState::Killed => redis.run(),
        StoreState::Working | StoreState::Restarted => {}
    }
    println!("connects, store {state:?}:");
    p50.print("p50", "us", "");
    p99.print("p99", "us", ", bar 1.05");
    eventually("the store to be used again", || (fleet(&instances[2])["state"] == "working").then_some(()));
}

/// Figures by side, one of each round.
#[derive(Default)]
struct Rounds([Vec<f64>; SIDES]);

impl Rounds {
    fn put(&mut self, side: usize, figure: f64) {
        self.0[side].push(figure);
    }

    /// CPU time of a process for each of some units, in microseconds.
    fn add(&mut self, side: usize, instance: &Instance, units: usize, run: impl FnOnce() -> io::Result<()>) {
        let before = cpu(instance.program.id());
        run().expect("every request is answered");
        self.put(side, (cpu(instance.program.id()) - before).as_secs_f64() * 1e6 / units as f64);
    }

    fn print(&self, what: &str, unit: &str, bar: &str) {
        let [without, null, shared] = &self.0;
        let median = |figures: &[f64]| quantile(&mut figures.to_vec(), 0.5);
        let ratio = |side: &[f64]| {
            let mut ratios: Vec<_> = side.iter().zip(without).map(|(figure, base)| figure / base).collect();
            [0.5, 0.25, 0.75].map(|at| quantile(&mut ratios, at))
        };
        println!("  {what}: {:.1} {unit} without store, {:.1} shared", median(without), median(shared));
        for (name, [middle, low, high]) in [("shared", ratio(shared)), ("null", ratio(null))] {
            println!("    {name} {middle:.3} [{low:.3}-{high:.3}]{}", if name == "shared" { bar } else { "" });
        }
    }
}

/// Turns of a round: every order is followed by its reverse, and the first place moves on.
fn order(round: usize) -> [usize; SIDES] {
    let mut order = [0, 1, 2].map(|turn| (round / 2 + turn) % SIDES);
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

/// Requests on connections that are kept, of clients that are displaced.
fn keep(front: SocketAddr, requests: usize) -> io::Result<()> {
    let streams = (0..AT_ONCE).map(|client| connect(front, displaced(client))).collect::<io::Result<Vec<_>>>()?;
    (0..requests.div_ceil(AT_ONCE)).try_for_each(|_| exchange(&streams))
}

/// Connections with one request each, of clients that are displaced.
fn connect_anew(front: SocketAddr, connections: usize) -> io::Result<()> {
    let clients: Vec<_> = (0..connections).map(|n| displaced(n % DISPLACED)).collect();
    for clients in clients.chunks(AT_ONCE) {
        let streams = clients.iter().map(|client| connect(front, *client)).collect::<io::Result<Vec<_>>>()?;
        exchange(&streams)?;
    }
    Ok(())
}

/// A message on each connection, and the answers.
fn exchange(streams: &[TcpStream]) -> io::Result<()> {
    streams.iter().try_for_each(|mut stream| stream.write_all(&MESSAGE))?;
    streams.iter().try_for_each(|mut stream| stream.read_exact(&mut [0; MESSAGE.len()]))
}

fn ask(front: SocketAddr, client: IpAddr) -> io::Result<()> {
    exchange(&[connect(front, client)?])
}

/// Microseconds of one connection.
fn timed(front: SocketAddr, client: IpAddr) -> f64 {
    let began = Instant::now();
    ask(front, client).expect("an answer");
    began.elapsed().as_secs_f64() * 1e6
}

fn connect(front: SocketAddr, client: IpAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(client, 0).into())?;
    socket.connect(&front.into())?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One of the clients that are displaced.
fn displaced(client: usize) -> IpAddr {
    address(250, client)
}

/// A client of a network.
fn address(network: u8, client: usize) -> IpAddr {
    Ipv4Addr::new(127, 1 + network, (client / 250) as u8, 1 + (client % 250) as u8).into()
}

/// A backend that sends back what it gets.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut message = [0; MESSAGE.len()];
                while (&stream).read_exact(&mut message).is_ok() && (&stream).write_all(&message).is_ok() {}
            });
        }
    });
    address
}

fn start(store: &str, backends: &[SocketAddr]) -> Instance {
    let text = "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[[pool]]\nname = \"p\"\n\
                balance = \"least_connections\"\nkey = \"source\"\ncheck = \"off\"\n";
    Instance::start(&(store.to_owned() + text + &backend_tables(backends)))
}

fn fleet(instance: &Instance) -> serde_json::Value {
    instance.json("/status").expect("the instance answers")["fleet"].take()
}

/// Entries that others have told.
fn received(instance: &Instance) -> u64 {
    let fleet = fleet(instance);
    ["taken", "known"].iter().filter_map(|result| fleet["received"][result].as_u64()).sum()
}

/// Items that an instance has written, and their bytes.
fn written(instance: &Instance) -> [u64; 2] {
    let fleet = fleet(instance);
    ["items", "bytes"].map(|of| fleet[of].as_u64().unwrap_or(0))
}

fn redis_says(redis: &Redis, command: &str) {
    let mut stream = UnixStream::connect(redis.socket()).expect("the server accepts");
    write!(stream, "{command}\r\n").expect("the server reads");
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"+OK\r\n", "{command}");
}

/// CPU time of all threads of a process, by the scheduler's own account.
fn cpu(process: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).expect("the process is there").flatten();
    let time = |thread: &Path| {
        let account = std::fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
        account.split(' ').next().and_then(|run| run.parse().ok()).map(Duration::from_nanos).unwrap_or_default()
    };
    threads.map(|thread| time(&thread.path())).sum()
}

/// The core of the instances, and that of all others; the same on a machine with one.
struct Cores {
    proxy: usize,
    others: usize,
}

impl Cores {
    fn find() -> Self {
        let allowed = sched_getaffinity(None).expect("the cores of this thread");
        let mut all = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let proxy = all.next().expect("a core");
        Self { proxy, others: all.next().unwrap_or(proxy) }
    }

    /// Puts this thread, and what it starts from here on, on a core.
    fn pin(&self, core: usize) {
        let mut set = CpuSet::new();
        set.set(core);
        sched_setaffinity(None, &set).expect("the thread may choose");
    }
}
