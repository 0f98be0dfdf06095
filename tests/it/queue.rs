//! Clients that wait for a place at a full backend: who is served, when, in which order, and what sends them away.
//!
//! The backends hold every request until the test lets it through. A test awaits each event before the next one.

use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::backend::{Backend, listener};
use crate::support::{PATIENCE, Sessile, eventually};
use crate::terminate::backend::Recorder;
use crate::terminate::client::{Response, Talk};

/// What several backends share: the requests that they got, and how many they may answer.
#[derive(Default)]
struct Site {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Name of the backend and path of each request, in the order in which they came.
    came: Vec<(&'static str, String)>,
    /// Requests that may be answered.
    tickets: usize,
    /// How long an answer takes.
    takes: Duration,
    /// Requests at a backend now, and the most that were at once, by name.
    now: Vec<(&'static str, usize, usize)>,
}

impl Site {
    fn backend(self: &Arc<Self>, name: &'static str) -> Recorder {
        let site = Arc::clone(self);
        Recorder::answering(name, move |head| {
            let path = head.split(' ').nth(1)?.to_owned();
            Some(site.answer(name, path))
        })
    }

    fn answer(&self, name: &'static str, path: String) -> Vec<u8> {
        let mut state = self.state.lock().unwrap();
        state.came.push((name, path));
        if !state.now.iter().any(|(of, ..)| *of == name) {
            state.now.push((name, 0, 0));
        }
        let counts = |state: &mut State, change: fn(&mut (&'static str, usize, usize))| {
            state.now.iter_mut().filter(|(of, ..)| *of == name).for_each(change);
        };
        counts(&mut state, |(_, now, most)| (*now, *most) = (*now + 1, (*most).max(*now + 1)));
        self.changed.notify_all();
        let (mut state, _) = self.changed.wait_timeout_while(state, PATIENCE, |state| state.tickets == 0).unwrap();
        state.tickets = state.tickets.saturating_sub(1);
        let takes = state.takes;
        drop(state);
        std::thread::sleep(takes);
        counts(&mut self.state.lock().unwrap(), |(_, now, _)| *now -= 1);
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len()).into_bytes()
    }

    /// Lets so many requests through, which take so long.
    fn let_through(&self, tickets: usize, takes: Duration) {
        let mut state = self.state.lock().unwrap();
        (state.tickets, state.takes) = (state.tickets + tickets, takes);
        self.changed.notify_all();
    }

    fn came(&self) -> Vec<(&'static str, String)> {
        self.state.lock().unwrap().came.clone()
    }

    fn arrived(&self, count: usize) {
        eventually(&format!("{count} requests"), || (self.came().len() >= count).then_some(()));
    }
}

/// A pool of HTTP with a cookie that names backends `b0`, `b1`, …, each with so many places.
fn config(backends: &[SocketAddr], places: usize, options: &str) -> String {
    pool_of(backends, places, &format!("http = true\ncookie = {{ mode = \"route\", name = \"SID\" }}\n{options}"))
}

fn pool_of(backends: &[SocketAddr], places: usize, options: &str) -> String {
    let mut text = listener("p", "") + "[[pool]]\nname = \"p\"\non_full = \"queue\"\n" + options + "\n";
    for (index, address) in backends.iter().enumerate() {
        text +=
            &format!("[[pool.backend]]\nname = \"b{index}\"\naddress = \"{address}\"\nmax_connections = {places}\n");
    }
    let check = "[pool.check]\ninterval = \"50ms\"\ntimeout = \"50ms\"\nfall = 1\nrise = 1\n";
    text + if options.contains("# checked") { check } else { "[pool.check]\nkind = \"off\"\n" }
}

/// Clients in the lines of this backend, as the status tells; `None`: in that of the pool.
fn waiting(sessile: &Sessile, backend: Option<usize>) -> u64 {
    let pool = &sessile.status()["pools"][0];
    let waiting = backend.map_or(&pool["queue"]["waiting"], |index| &pool["backends"][index]["waiting"]);
    waiting.as_u64().expect("a number")
}

fn await_line(sessile: &Sessile, backend: Option<usize>, count: u64) {
    eventually(&format!("{count} clients in line"), || (waiting(sessile, backend) == count).then_some(()));
}

/// A request that is sent; its client is known at this backend.
fn ask(sessile: &Sessile, path: &str, backend: Option<usize>) -> Talk<TcpStream> {
    ask_at(sessile.address("l"), path, backend)
}

fn ask_at(address: SocketAddr, path: &str, backend: Option<usize>) -> Talk<TcpStream> {
    let stream = TcpStream::connect(address).expect("the listener accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut talk = Talk::new(stream);
    let cookie = backend.map_or_else(String::new, |index| format!("Cookie: SID=x.b{index}\r\n"));
    talk.send(format!("GET {path} HTTP/1.1\r\nHost: a.test\r\n{cookie}\r\n"));
    talk
}

/// Awaits the response; with the time at which it was there.
fn reply(mut talk: Talk<TcpStream>) -> JoinHandle<(Response, Instant)> {
    std::thread::spawn(move || (talk.response().expect("a response"), Instant::now()))
}

fn text(talk: &mut Talk<TcpStream>) -> (u16, String) {
    let response = talk.response().expect("a response");
    (response.status, response.text())
}

#[test]
fn five_hundred_sticky_clients_of_two_times_ten_places_are_served_in_order_where_they_belong() {
    const CLIENTS: usize = 500;
    const PLACES: usize = 10;
    const TAKES: Duration = Duration::from_millis(40);
    let site = Arc::new(Site::default());
    let backends = ["b0", "b1"].map(|name| site.backend(name));
    let addresses = backends.each_ref().map(Recorder::address);
    let sessile = Sessile::start(&config(&addresses, PLACES, "queue_timeout = \"60s\""));
    let front = sessile.address("l");
    let mut replies = Vec::new();
    for number in 0..CLIENTS {
        let index = number % 2;
        replies.push((index, reply(ask_at(front, &format!("/{number}"), Some(index)))));
        // The order is that of their coming.
        match number < 2 * PLACES {
            true => site.arrived(number + 1),
            false => await_line(&sessile, Some(index), (number / 2 + 1 - PLACES) as u64),
        }
    }
    assert_eq!(site.came().len(), 2 * PLACES);
    let began = Instant::now();
    site.let_through(CLIENTS, TAKES);
    let mut waits = Vec::new();
    for (index, reply) in replies {
        let (response, at) = reply.join().unwrap();
        assert_eq!((response.status, response.text()), (200, format!("b{index}")));
        waits.push(at.saturating_duration_since(began));
    }
    for (index, name) in ["b0", "b1"].into_iter().enumerate() {
        let came = site.came().into_iter().filter(|(of, _)| *of == name);
        let numbers: Vec<usize> = came.map(|(_, path)| path[1..].parse().unwrap()).collect();
        assert_eq!(numbers.len(), CLIENTS / 2);
        // Requests on their way to the backend at the same time may pass each other.
        for (place, number) in numbers.iter().enumerate() {
            assert!(place.abs_diff((number - index) / 2) < 2 * PLACES, "{number} came as number {place}: {numbers:?}");
        }
    }
    assert!(site.state.lock().unwrap().now.iter().all(|(_, now, most)| (*now, *most) == (0, PLACES)));
    // The last of 250 clients of ten places is served in the 25th round.
    waits.sort();
    let (p99, theory) = (waits[CLIENTS * 99 / 100], TAKES * (CLIENTS / 2 / PLACES) as u32);
    assert!(p99 >= theory * 9 / 10 && p99 < theory * 3 + Duration::from_secs(1), "{p99:?} and {theory:?}");
    assert_eq!(sessile.metric("sessile_pool_queue_wait_seconds_count{pool=\"p\"}"), (CLIENTS - 2 * PLACES) as f64);
    assert_eq!(sessile.sum("sessile_pool_queue_failures_total", &[]), 0.0);
    assert_eq!([Some(0), Some(1), None].map(|of| waiting(&sessile, of)), [0, 0, 0]);
}

#[test]
fn a_client_gets_503_once_it_has_waited_for_queue_timeout_and_at_once_where_the_line_is_full() {
    let site = Arc::new(Site::default());
    let backend = site.backend("b0");
    let options = "queue_timeout = \"700ms\"\nqueue_max = 2\n";
    let sessile = Sessile::start(&config(&[backend.address()], 1, options));
    let mut holds = ask(&sessile, "/holds", Some(0));
    site.arrived(1);
    let began = Instant::now();
    let late = [0, 1].map(|_| reply(ask(&sessile, "/late", Some(0))));
    await_line(&sessile, Some(0), 2);
    assert_eq!(text(&mut ask(&sessile, "/more", Some(0))).0, 503);
    assert!(began.elapsed() < Duration::from_millis(700), "{:?}", began.elapsed());
    for late in late {
        let (response, at) = late.join().unwrap();
        assert_eq!(response.status, 503);
        let waited = at - began;
        assert!(waited >= Duration::from_millis(700) && waited < Duration::from_secs(5), "{waited:?}");
    }
    for (ended, path) in [("queue_timeout", "/late"), ("queue_full", "/more")] {
        let line = sessile.line(ended, |line| line["ended"] == ended && line["path"] == path);
        assert_eq!((&line["fault"], &line["status"]), (&"limit".into(), &503.into()), "{line}");
    }
    let failures =
        |why: &str| sessile.metric(&format!("sessile_pool_queue_failures_total{{pool=\"p\",why=\"{why}\"}}"));
    assert_eq!((failures("timeout"), failures("full")), (2.0, 1.0));
    site.let_through(1, Duration::ZERO);
    assert_eq!(text(&mut holds), (200, "b0".to_owned()));
    assert_eq!(site.came().len(), 1, "none of them reached the backend");
}

#[test]
fn a_new_client_goes_where_there_is_a_place_and_waits_only_where_there_is_none() {
    let site = Arc::new(Site::default());
    let backends = ["b0", "b1"].map(|name| site.backend(name));
    let addresses = backends.each_ref().map(Recorder::address);
    let sessile = Sessile::start(&config(&addresses, 1, "balance = \"least_connections\"\n"));
    let mut known = ask(&sessile, "/known", Some(0));
    site.arrived(1);
    let mut new = ask(&sessile, "/new", None);
    site.arrived(2);
    assert_eq!(site.came()[1], ("b1", "/new".to_owned()));
    let mut sticks = ask(&sessile, "/sticks", Some(0));
    await_line(&sessile, Some(0), 1);
    let mut waits = ask(&sessile, "/waits", None);
    await_line(&sessile, None, 1);
    let line = sessile.json("/explain?client=127.0.0.1&listener=l&cookie=SID%3Dx.b0")["line"].clone();
    assert_eq!((&line["backend"], &line["waiting"]), (&"b0".into(), &1.into()), "{line}");
    let line = sessile.json("/explain?client=127.0.0.1&listener=l")["line"].clone();
    assert_eq!((&line["backend"], &line["waiting"]), (&serde_json::Value::Null, &1.into()), "{line}");
    site.let_through(4, Duration::ZERO);
    let replies = [&mut known, &mut new, &mut sticks].map(text);
    assert_eq!(replies, ["b0", "b1", "b0"].map(|name| (200, name.to_owned())));
    assert_eq!(text(&mut waits).0, 200);
}

#[test]
fn clients_of_a_backend_that_goes_down_are_served_elsewhere() {
    let site = Arc::new(Site::default());
    let backends = ["b0", "b1"].map(|name| site.backend(name));
    let addresses = backends.each_ref().map(Recorder::address);
    let sessile = Sessile::start(&config(&addresses, 2, "queue_timeout = \"60s\" # checked"));
    let [dies, _lives] = backends;
    let held = [0, 1].map(|_| ask(&sessile, "/held", Some(0)));
    site.arrived(2);
    let mut waits = [0, 1].map(|_| ask(&sessile, "/waits", Some(0)));
    await_line(&sessile, Some(0), 2);
    drop(dies);
    site.arrived(4);
    site.let_through(4, Duration::ZERO);
    assert_eq!(waits.each_mut().map(text), [(); 2].map(|()| (200, "b1".to_owned())));
    drop(held);
    assert_eq!(sessile.sum("sessile_sticky_breaks_total", &["from=\"b0\"", "cause=\"down\""]), 2.0);
}

#[test]
fn a_reload_serves_those_that_wait_by_its_own_limits_and_backends() {
    let site = Arc::new(Site::default());
    let backends = ["b0", "b1"].map(|name| site.backend(name));
    let addresses = backends.each_ref().map(Recorder::address);
    let options = "queue_timeout = \"60s\"";
    let sessile = Sessile::start(&config(&addresses, 1, options));
    let _holds = ask(&sessile, "/0", Some(0));
    site.arrived(1);
    let mut waits: Vec<_> = (1..=3)
        .map(|number| {
            let waits = ask(&sessile, &format!("/{number}"), Some(0));
            await_line(&sessile, Some(0), number);
            waits
        })
        .collect();
    assert_eq!(sessile.reload(&config(&addresses, 3, options))["accepted"], true);
    site.arrived(3);
    await_line(&sessile, Some(0), 1);
    let mut first: Vec<_> = site.came().into_iter().map(|(_, path)| path).collect();
    first.sort();
    assert_eq!(first, ["/0", "/1", "/2"]);
    // The backend for which the last one waits leaves the pool.
    let without = config(&addresses, 3, options).replace("name = \"b1\"", "name = \"other\"");
    let without =
        without.replacen(&addresses[0].to_string(), &addresses[1].to_string(), 1).replace("\"b0\"", "\"new\"");
    assert_eq!(sessile.reload(&without)["accepted"], true);
    site.arrived(4);
    assert_eq!(site.came()[3], ("b1", "/3".to_owned()));
    site.let_through(4, Duration::ZERO);
    assert_eq!(text(&mut waits.pop().unwrap()), (200, "b1".to_owned()));
}

#[test]
fn a_client_that_leaves_while_it_waits_lets_the_next_one_be_served() {
    let site = Arc::new(Site::default());
    let backend = site.backend("b0");
    let sessile = Sessile::start(&config(&[backend.address()], 1, "queue_timeout = \"60s\""));
    let mut holds = ask(&sessile, "/holds", Some(0));
    site.arrived(1);
    let leaves = ask(&sessile, "/leaves", Some(0));
    await_line(&sessile, Some(0), 1);
    let mut next = ask(&sessile, "/next", Some(0));
    await_line(&sessile, Some(0), 2);
    leaves.stream.shutdown(Shutdown::Both).unwrap();
    drop(leaves);
    await_line(&sessile, Some(0), 1);
    sessile.line("the request", |line| line["ended"] == "client_left" && line["path"] == "/leaves");
    site.let_through(2, Duration::ZERO);
    assert_eq!([&mut holds, &mut next].map(text), [(); 2].map(|()| (200, "b0".to_owned())));
    assert_eq!(site.came().into_iter().map(|(_, path)| path).collect::<Vec<_>>(), ["/holds", "/next"]);
}

#[test]
fn a_connection_that_is_kept_without_a_request_gives_its_place_to_a_client_that_waits() {
    let site = Arc::new(Site::default());
    let backend = site.backend("b0");
    let sessile = Sessile::start(&config(&[backend.address()], 1, "queue_timeout = \"60s\""));
    site.let_through(3, Duration::ZERO);
    let mut keeps = ask(&sessile, "/keeps", Some(0));
    assert_eq!(text(&mut keeps).0, 200);
    assert_eq!(sessile.json("/backends")[0]["leases"], 1, "its connection is kept");
    assert_eq!(text(&mut ask(&sessile, "/waits", Some(0))), (200, "b0".to_owned()));
    assert_eq!(keeps.get("/again", "Cookie: SID=x.b0\r\n").status, 200);
}

#[test]
fn passthrough_clients_wait_for_their_backend_in_order_and_are_closed_in_time() {
    let backend = Backend::named("b0");
    let options = "queue_timeout = \"1500ms\"\n";
    let sessile = Sessile::start(&pool_of(&[backend.address], 1, options));
    let front = sessile.address("l");
    let begin = || {
        let stream = TcpStream::connect(front).expect("the listener accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut talk = Talk::new(stream);
        talk.send("x\n");
        talk
    };
    let read = |talk: &mut Talk<TcpStream>| {
        let mut bytes = [0; 5];
        std::io::Read::read_exact(&mut talk.stream, &mut bytes).map(|()| bytes)
    };
    let mut first = begin();
    assert_eq!(&read(&mut first).unwrap(), b"b0 x\n");
    let mut second = begin();
    await_line(&sessile, Some(0), 1);
    let mut third = begin();
    await_line(&sessile, Some(0), 2);
    let began = Instant::now();
    drop(first);
    assert_eq!(&read(&mut second).unwrap(), b"b0 x\n");
    assert!(began.elapsed() < Duration::from_secs(1), "called, not found by a look: {:?}", began.elapsed());
    assert!(read(&mut third).is_err(), "it is closed");
    let line = sessile.ended("l", "queue_timeout");
    assert_eq!(line["fault"], "limit", "{line}");
    drop(second);
    eventually("the place to be free", || (sessile.json("/backends")[0]["leases"] == 0).then_some(()));
}
