//! Cost of the shared store: `cargo bench --bench store`, `-- --test` for a small run. Needs redis-server.
//!
//! Real instances, a real redis-server, clients that send one request after the other. Judges nothing but breaks: of
//! each pair both figures and their ratio are printed. Invariant: compared figures were measured in
//! turns, a round of one and a round of the other.

#[allow(dead_code, reason = "another bench uses the rest")]
mod with_redis;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use rustix::process::Signal;

use self::with_redis::{Instance, Redis, backend_tables, eventually, quantile};

const BACKENDS: usize = 5;

/// Default `budget` of the store, in microseconds.
const BUDGET_US: f64 = 2_000.0;

/// Size of a run, full or small.
struct Size {
    rounds: usize,
    requests: usize,
    freezes: usize,
    logins: usize,
}

fn main() {
    let small = std::env::args().any(|argument| argument == "--test");
    let size = match small {
        true => Size { rounds: 2, requests: 50, freezes: 2, logins: 200 },
        false => Size { rounds: 30, requests: 3_000, freezes: 20, logins: 10_000 },
    };
    let Some(redis) = Redis::start() else { return };
    let backends = application();
    let with = format!("[store]\nkind = \"redis\"\nurl = \"unix:{}\"\n", redis.socket().display());
    let patient = format!("{with}budget = \"20ms\"\n");
    let [plain, one, other] = ["", &with, &with].map(|store| start(store, &backends));
    known(&size, &plain, &one);
    let patient = [&patient, &patient].map(|store| start(store, &backends));
    logins(&size, &plain, [[&one, &other], [&patient[0], &patient[1]]]);
    drop(patient);
    frozen(&size, &redis, &plain, &one);
    open(&size, &redis, &plain, &one);
}

/// Known cookies: the store is never read, and written now and then.
fn known(size: &Size, plain: &Instance, stored: &Instance) {
    let mut sides = [plain, stored].map(|instance| {
        let mut client = Client::to(instance.address);
        let cookies: Vec<_> = (0..100).map(|_| client.login().0).collect();
        (client, cookies, Vec::new(), Vec::new())
    });
    for round in 0..size.rounds {
        for side in [round % 2, 1 - round % 2] {
            let (client, cookies, p50s, p99s) = &mut sides[side];
            let mut times = timed(size.requests, |n| drop(client.ask(&cookies[n % cookies.len()])));
            p50s.push(quantile(&mut times, 0.5));
            p99s.push(quantile(&mut times, 0.99));
        }
    }
    let [(_, _, mut p50, mut p99), (_, _, mut p50_with, mut p99_with)] = sides;
    compare("known cookie, p50", quantile(&mut p50, 0.5), quantile(&mut p50_with, 0.5), "");
    compare("known cookie, p99", quantile(&mut p99, 0.5), quantile(&mut p99_with, 0.5), ", bar 1.10");
}

/// A login on one, the next request on the other at once: with the usual budget and with a long one. A machine that is
/// not this one's alone stops now and then; how often, requests tell that ask no store.
fn logins(size: &Size, plain: &Instance, pairs: [[&Instance; 2]; 2]) {
    let mut clients = pairs.map(|pair| pair.map(|instance| Client::to(instance.address)));
    let mut bystander = Client::to(plain.address);
    let (mut breaks, mut stops) = ([0, 0], 0);
    for n in 0..size.logins {
        for (clients, breaks) in clients.iter_mut().zip(&mut breaks) {
            let (cookie, home) = clients[n % 2].login();
            *breaks += usize::from(clients[(n + 1) % 2].ask(&cookie) != home);
        }
        let took = timed(1, |_| drop(bystander.login()));
        stops += usize::from(took[0] > BUDGET_US);
    }
    let late = pairs.map(|pair| pair.iter().map(|instance| late(instance)).sum::<u64>());
    println!("{} logins, next request on the other:", size.logins);
    println!("  budget 2ms: {} breaks, {} late answers; 20ms: {} and {}", breaks[0], late[0], breaks[1], late[1]);
    println!("  of as many logins without a store {stops} took longer than 2 ms");
}

/// Cost of an unknown value while the store is frozen and the breaker is still closed.
fn frozen(size: &Size, redis: &Redis, plain: &Instance, stored: &Instance) {
    let mut clients = [plain, stored].map(|instance| Client::to(instance.address));
    let (mut without, mut frozen) = (Vec::new(), Vec::new());
    for round in 0..size.freezes {
        wait_for(stored, "working");
        redis.signal(Signal::STOP);
        for n in 0..2 {
            let cookie = format!("SID=frozen-{round}-{n}");
            without.extend(timed(1, |_| drop(clients[0].ask(&cookie))));
            frozen.extend(timed(1, |_| drop(clients[1].ask(&cookie))));
        }
        redis.signal(Signal::CONT);
    }
    let usual = quantile(&mut without, 0.5);
    let (middle, most) = (quantile(&mut frozen, 0.5), quantile(&mut frozen, 1.0));
    compare("unknown value, store frozen, p50", usual, middle, "");
    println!("  added: {} in the middle, {} at most; budget 2ms", show(middle - usual), show(most - usual));
}

/// The same once the breaker is open.
fn open(size: &Size, redis: &Redis, plain: &Instance, stored: &Instance) {
    redis.signal(Signal::STOP);
    let mut clients = [plain, stored].map(|instance| Client::to(instance.address));
    (0..20).for_each(|n| drop(clients[1].ask(&format!("SID=opening-{n}"))));
    wait_for(stored, "open");
    let mut figures: [[Vec<f64>; 2]; 2] = Default::default();
    for round in 0..size.rounds {
        for side in [round % 2, 1 - round % 2] {
            let mut times = timed(size.requests / 4, |n| drop(clients[side].ask(&format!("SID=open-{round}-{n}"))));
            figures[side][0].push(quantile(&mut times, 0.5));
            figures[side][1].push(quantile(&mut times, 0.99));
        }
    }
    let [[mut p50, mut p99], [mut p50_with, mut p99_with]] = figures;
    compare("unknown value, breaker open, p50", quantile(&mut p50, 0.5), quantile(&mut p50_with, 0.5), "");
    compare("unknown value, breaker open, p99", quantile(&mut p99, 0.5), quantile(&mut p99_with, 0.5), "");
    redis.signal(Signal::CONT);
}

/// Microseconds of each call.
fn timed(count: usize, mut call: impl FnMut(usize)) -> Vec<f64> {
    let time = |n| {
        let began = Instant::now();
        call(n);
        began.elapsed().as_secs_f64() * 1e6
    };
    (0..count).map(time).collect()
}

fn compare(what: &str, without: f64, with: f64, bar: &str) {
    println!("{what}: {} without store, {} with, ratio {:.3}{bar}", show(without), show(with), with / without);
}

fn show(us: f64) -> String {
    format!("{us:.0} us")
}

/// Five backends of an application that sets a session cookie at login.
fn application() -> Vec<SocketAddr> {
    let logins = Arc::new(AtomicUsize::new(0));
    let start = |number: usize| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let (address, logins) = (listener.local_addr().expect("an address"), Arc::clone(&logins));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let logins = Arc::clone(&logins);
                std::thread::spawn(move || serve(&stream, number, &logins));
            }
        });
        address
    };
    (0..BACKENDS).map(start).collect()
}

fn serve(stream: &TcpStream, number: usize, logins: &AtomicUsize) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream);
    loop {
        let head = head(&mut reader)?;
        let cookie = match head.starts_with("GET /login ") {
            true => format!("Set-Cookie: SID=session-{}; Path=/\r\n", logins.fetch_add(1, Relaxed)),
            false => String::new(),
        };
        let answer = format!("HTTP/1.1 200 OK\r\n{cookie}X-Backend: {number}\r\nContent-Length: 0\r\n\r\n");
        (&mut &*stream).write_all(answer.as_bytes()).ok()?;
    }
}

/// The next head; none of these messages has a body.
fn head(reader: &mut impl BufRead) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    Some(head)
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the listener accepts");
        stream.set_nodelay(true).expect("no delay");
        Self(BufReader::new(stream))
    }

    fn get(&mut self, path: &str, fields: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n");
        self.0.get_mut().write_all(request.as_bytes()).expect("the instance reads");
        let head = head(&mut self.0).expect("an answer");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        head
    }

    fn login(&mut self) -> (String, String) {
        let head = self.get("/login", "");
        let cookie = field(&head, "Set-Cookie").split(';').next().expect("a pair").to_owned();
        (cookie, field(&head, "X-Backend").to_owned())
    }

    fn ask(&mut self, cookie: &str) -> String {
        field(&self.get("/", &format!("Cookie: {cookie}\r\n")), "X-Backend").to_owned()
    }
}

fn field<'h>(head: &'h str, name: &str) -> &'h str {
    let line = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("no {name} in {head}"))
}

fn start(store: &str, backends: &[SocketAddr]) -> Instance {
    let text = "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\npool = \"p\"\n[[pool]]\nname = \"p\"\nhttp = true\n\
                balance = \"round_robin\"\ncookie = { mode = \"learn\", name = \"SID\" }\ncheck = \"off\"\n";
    Instance::start(&(store.to_owned() + text + &backend_tables(backends)))
}

fn store_of(instance: &Instance) -> serde_json::Value {
    instance.json("/store").expect("the instance answers")
}

fn wait_for(instance: &Instance, state: &str) {
    eventually(state, || (store_of(instance)["state"] == state).then_some(()));
}

fn late(instance: &Instance) -> u64 {
    let store = store_of(instance);
    ["find", "learn"].iter().filter_map(|kind| store["requests"][kind]["late"].as_u64()).sum()
}
