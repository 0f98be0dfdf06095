//! A warm worker serves passthrough connections without an allocation, and HTTP heads are read and written without one.
//!
//! A binary of its own, because counting replaces the allocator. The worker runs on the test's thread, over real
//! sockets, and only this thread is counted; clients and backends have threads of their own.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use sessile::access_log::{AccessLog, AccessLogSender};
use sessile::config::{self, LogFormat};
use sessile::outcome::Ended;
use sessile::socket::{self, KeepAlive, Options};
use sessile::splicer::os::Linux;
use sessile::splicer::worker::{Worker, WorkerShared};

/// Connections that warm the worker, and connections that are counted.
const WARM: usize = 600;
const COUNTED: usize = 2_000;

/// Clients at once in the tests with many. A new peak of connecting clients may allocate once.
const MANY: usize = 40;

/// A worker with one listener, and the address of it.
struct Rig {
    worker: Worker<Linux>,
    shared: Arc<WorkerShared>,
    front: SocketAddr,
    _access_log: Option<AccessLog>,
}

impl Rig {
    /// Starts a worker in front of one backend.
    fn new(listener: &str, pool: &str, backend: SocketAddr, logs: bool) -> Self {
        let text = format!(
            "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\npool = \"p\"\n{listener}\n\
             [[pool]]\nname = \"p\"\ncheck = \"off\"\nbackend = [{{ name = \"b\", address = \"{backend}\" }}]\n{pool}\n"
        );
        let checked = config::check(&text, &|_| Err(std::io::ErrorKind::NotFound.into()));
        let config = checked.unwrap_or_else(|problems| panic!("{problems:?}")).config;
        let shared = Arc::new(WorkerShared::alone(config, 64));
        let access_log = logs.then(|| AccessLog::start(LogFormat::Json, std::io::sink()).unwrap());
        let sender = access_log.as_ref().map_or_else(AccessLogSender::off, |access_log| access_log.sender(true));
        let mut worker = Worker::new(0, Linux::new().unwrap(), Arc::clone(&shared), sender);
        let options = Options { backlog: 4_096, defer_accept_s: 0, keep_alive: KeepAlive::default() };
        let accepting = Arc::new(socket::bind_tcp("127.0.0.1:0".parse().unwrap(), &options).unwrap());
        socket::listen(&accepting, options.backlog).unwrap();
        let front = rustix::net::getsockname(&accepting).unwrap().try_into().unwrap();
        let rules = Arc::clone(&shared.current.load().listeners[0]);
        worker.add_listener(0, accepting, rules, false);
        Self { worker, shared, front, _access_log: access_log }
    }

    /// Runs the worker until the clients have finished and every connection has ended.
    fn work(&mut self, clients: impl FnOnce(SocketAddr) + Send + 'static) {
        let (done, front) = (Arc::new(AtomicBool::new(false)), self.front);
        let finished = Arc::clone(&done);
        let thread = thread::spawn(move || {
            clients(front);
            finished.store(true, Relaxed);
        });
        let (mut events, mut raw) = (Vec::with_capacity(256), Vec::with_capacity(256));
        while !done.load(Relaxed) || self.worker.connections() > 0 {
            self.worker.wake_at();
            self.worker.os.wait(&mut events, &mut raw, Some(Duration::from_millis(5)));
            self.worker.turn(&events);
        }
        thread.join().unwrap();
    }

    /// Counts the allocations of the worker under `threads` clients at once, after as many others have warmed it.
    fn count(mut self, threads: usize, client: fn(SocketAddr)) -> u64 {
        let clients = move |number: usize| {
            move |front: SocketAddr| {
                let one = |_| thread::spawn(move || (0..number / threads).for_each(|_| client(front)));
                let all: Vec<_> = (0..threads).map(one).collect();
                all.into_iter().for_each(|thread| thread.join().unwrap());
            }
        };
        self.work(clients(WARM));
        let before = self.done();
        // What the thread of the clients and the buffers for events cost is taken off.
        let harness = allocation_counter::measure(|| self.work(|_| ())).count_total;
        let counted = allocation_counter::measure(|| self.work(clients(COUNTED))).count_total;
        assert_eq!(self.done() - before, (COUNTED / threads * threads) as u64, "every connection is served");
        counted.saturating_sub(harness)
    }

    fn done(&self) -> u64 {
        self.shared.current.load().listeners[0].state.counters[0].0.ended[Ended::Done as usize].value()
    }
}

/// An echo server with one thread for each connection.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut reader = stream.try_clone().unwrap();
                let _ = std::io::copy(&mut reader, &mut stream);
            });
        }
    });
    address
}

fn exchange(front: SocketAddr, bytes: &[u8], echoed: usize) {
    let mut stream = TcpStream::connect(front).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(bytes).unwrap();
    stream.read_exact(&mut vec![0; echoed]).unwrap();
}

fn line(front: SocketAddr) {
    exchange(front, b"hello\n", 6);
}

#[test]
fn a_warm_worker_allocates_nothing_for_connections_one_after_the_other() {
    // Where a connection is accepted before the last one has ended, memory for a second one is allocated once and kept.
    let count = Rig::new("", "", echo(), false).count(1, line);
    assert!(count <= 4, "{count} allocations in {COUNTED} connections");
}

#[test]
fn a_warm_worker_allocates_nothing_for_many_connections_at_once() {
    let count = Rig::new("", "", echo(), false).count(MANY, line);
    assert!(count <= 2 * MANY as u64, "{count} allocations in {COUNTED} connections");
}

/// Batches of records go round between worker and writer; the worker allocates another only if the writer is late.
#[test]
fn a_line_in_the_log_costs_nothing_either() {
    let count = Rig::new("", "", echo(), true).count(4, line);
    assert!(count <= COUNTED as u64 / 20, "{count} allocations in {COUNTED} connections");
}

/// What preread has found outlives the hello: the name for the log, and the bytes for the backend.
#[test]
fn reading_ahead_costs_a_few_small_ones() {
    let sni = "tls = \"passthrough\"\n[[listener.route]]\nsni = \"*.example\"\npool = \"p\"";
    let hello = Rig::new(sni, "", echo(), false).count(4, |front| {
        let hello = client_hello("www.example");
        exchange(front, &hello, hello.len());
    });
    let proxied = Rig::new("trust = [\"127.0.0.0/8\"]", "", echo(), false)
        .count(4, |front| exchange(front, b"PROXY TCP4 203.0.113.9 192.0.2.1 5555 443\r\nhello\n", 6));
    let announced =
        Rig::new("", "send_proxy = \"v2\"", echo(), false).count(4, |front| exchange(front, b"hello\n", HEADER + 6));
    for (what, count, most) in [("a hello", hello, 6), ("PROXY in", proxied, 3), ("PROXY out", announced, 5)] {
        println!("{what}: {:.2} allocations a connection", count as f64 / COUNTED as f64);
        assert!(
            count <= most * COUNTED as u64 + 2 * MANY as u64,
            "{what}: {count} allocations in {COUNTED} connections"
        );
    }
}

/// A PROXY v2 header for IPv4 without TLVs.
const HEADER: usize = 28;

/// A ClientHello for a name, in one record.
fn client_hello(name: &str) -> Vec<u8> {
    let sized = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes(), bytes].concat();
    let entry = [&[0], &sized(name.as_bytes())[..]].concat();
    let extension = [&[0, 0], &sized(&sized(&entry))[..]].concat();
    let body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0], &sized(&extension)].concat();
    let message = [&[1, 0], &sized(&body)[..]].concat();
    [&[22, 3, 1], &sized(&message)[..]].concat()
}

/// Reads a request and its response and writes both heads anew, into buffers that exist already.
#[test]
fn http_heads_and_bodies_cost_nothing() {
    use sessile::http::edit::{CookieEdit, CookieNames, RequestEdit, ResponseEdit, write_request, write_response};
    use sessile::http::head::{RequestReader, ResponseReader};
    use sessile::http::{Progress, body::Body, cookie, forwarded::Forwarding, set_cookie};

    let asks = b"POST /a HTTP/1.1\r\nHost: a\r\nCookie: a=b; SESSILE=c\r\nTransfer-Encoding: chunked\r\n\r\n2;e\r\nhi\r\n0\r\n\r\n";
    let answers = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Max-Age=5\r\nContent-Length: 2\r\n\r\nhi";
    // Forwarding is off: the text of an address costs one allocation.
    let edit = RequestEdit {
        x_forwarded: Forwarding::Remove,
        forwarded: Forwarding::Remove,
        cookie: CookieEdit::Remove(CookieNames::one(b"SESSILE")),
        set: &[("X-Request-Id", Some("1"))],
        ..RequestEdit::default()
    };
    let (mut up, mut down) = (Vec::with_capacity(1_024), Vec::with_capacity(1_024));
    let (mut request, mut response) = (RequestReader::new(), ResponseReader::new());
    let counted = allocation_counter::measure(|| {
        for stop in 1..=asks.len() {
            let Progress::Done(length) = request.read(&asks[..stop]) else { continue };
            assert!(Body::new(request.request(asks).framing).scan(&asks[length..]).is_ok_and(|body| body.complete));
        }
        let asked = request.request(asks);
        assert_eq!(cookie::find(asked.fields, b"SESSILE").count(), 1);
        write_request(&mut up, &asked, &edit);
        assert!(matches!(response.read(answers, asked.asked()), Progress::Done(_)));
        let answer = response.response(answers);
        assert!(!set_cookie::set_cookies(answer.fields, b"a").all(|cookie| cookie.ends(0)));
        write_response(&mut down, &answer, &asked.asked(), &ResponseEdit::default());
    });
    assert_eq!((counted.count_total, up.is_empty(), down.is_empty()), (0, false, false));
}
