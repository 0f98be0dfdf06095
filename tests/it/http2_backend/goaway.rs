//! Backends that announce the end of a connection (RFC 9113 §6.8): what they have not begun goes to a new connection, what
//! they have begun ends where it is, and no client notices.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use h2::Reason;

use super::peer::{Peer, first_goes, not_let_on};
use super::site::Http2Site;
use super::{H2, http1_answer, plain};
use crate::http2::client::{Client, Exchange};
use crate::support::backend::{Backend, listener, pool};
use crate::support::program::{find, free_address, free_local_address, nginx};
use crate::support::{PATIENCE, Sessile, eventually};

/// The greatest number of a stream, by which an end is announced before it is known what was begun.
const ANY: u32 = 0x7fff_ffff;

/// Where a script waits until the test lets it go on.
struct Gate(Mutex<Receiver<()>>);

impl Gate {
    fn new() -> (Sender<()>, Self) {
        let (open, opened) = channel();
        (open, Self(Mutex::new(opened)))
    }

    fn wait(&self) -> std::io::Result<()> {
        self.0.lock().unwrap().recv_timeout(PATIENCE).map_err(|_| not_let_on())
    }
}

fn ask(client: &Client) -> Exchange {
    client.ask("/", &[])
}

fn text(exchange: Exchange) -> String {
    let reply = exchange.reply().expect("a response");
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.text()
}

/// Endings of so many requests, as the log has them.
fn endings(sessile: &Sessile, count: usize) -> BTreeSet<String> {
    eventually(&format!("{count} lines of requests"), || {
        let lines: Vec<_> = sessile.lines().into_iter().filter(|line| line["kind"] == "request").collect();
        let word = |line: &serde_json::Value| line["ended"].as_str().expect("a word").to_owned();
        (lines.len() >= count).then(|| lines.iter().map(word).collect())
    })
}

/// The way out of a script: tells the test of each step.
struct Steps(Mutex<Sender<()>>);

impl Steps {
    fn new() -> (Receiver<()>, Self) {
        let (tell, told) = channel();
        (told, Self(Mutex::new(tell)))
    }

    fn take(&self) -> std::io::Result<()> {
        self.0.lock().unwrap().send(()).map_err(|_| not_let_on())
    }
}

/// Waits for the next step of a script.
fn step(steps: &Receiver<()>) {
    steps.recv_timeout(PATIENCE).expect("a step of the backend");
}

/// A backend that begins with so many requests, of which each is a step, and goes on as told.
fn begun_with<const N: usize>(
    steps: Steps,
    script: impl Fn(&mut Peer, [u32; N]) -> std::io::Result<()> + Send + Sync + 'static,
) -> Backend {
    first_goes(move |peer| {
        let mut streams = [0; N];
        for stream in &mut streams {
            *stream = peer.request()?;
            steps.take()?;
        }
        script(peer, streams)?;
        steps.take()
    })
}

#[test]
fn streams_that_were_not_begun_have_a_new_connection_and_the_others_end_where_they_are() {
    // NO_ERROR, INTERNAL_ERROR, ENHANCE_YOUR_CALM.
    for code in [0, 2, 11] {
        let ((open, gate), (steps, tell)) = (Gate::new(), Steps::new());
        let backend = begun_with(tell, move |peer, [first, _, _]| {
            peer.goaway(first, code)?;
            gate.wait()?;
            peer.answer(first, "1")?;
            peer.rest()
        });
        let sessile = plain("", H2, &[backend.address]);
        let client = Client::plain(sessile.address("l"));
        let [first, second, third] = [(); 3].map(|()| {
            let asked = ask(&client);
            step(&steps);
            asked
        });
        assert_eq!([second, third].map(text), ["2 0", "2 0"], "{code}");
        assert_eq!(text(ask(&client)), "2 0", "a new stream does not wait for the old connection");
        open.send(()).unwrap();
        assert_eq!(text(first), "1", "{code}");
        // The connection ends with its last stream, though its client stays.
        step(&steps);
        assert_eq!(endings(&sessile, 4), BTreeSet::from(["done".to_owned()]));
    }
}

#[test]
fn an_end_that_is_announced_in_two_phases_costs_no_request() {
    let ((open, gate), (steps, tell), (heard, tell_heard)) = (Gate::new(), Steps::new(), Steps::new());
    let backend = begun_with(tell, move |peer, [first, second, _]| {
        peer.goaway(ANY, 0)?;
        peer.is_read()?;
        tell_heard.take()?;
        gate.wait()?;
        peer.goaway(second, 0)?;
        peer.answer(second, "1")?;
        peer.answer(first, "1")?;
        peer.rest()
    });
    let sessile = plain("", H2, &[backend.address]);
    let client = Client::plain(sessile.address("l"));
    let asked = [(); 3].map(|()| {
        let asked = ask(&client);
        step(&steps);
        asked
    });
    step(&heard);
    assert_eq!(text(ask(&client)), "2 0", "a new stream has a new connection behind the first phase");
    open.send(()).unwrap();
    assert_eq!(asked.map(text), ["1", "1", "2 0"]);
    step(&steps);
    assert_eq!(endings(&sessile, 4), BTreeSet::from(["done".to_owned()]));
}

#[test]
fn a_backend_that_closes_behind_the_announcement_cuts_only_what_it_had_begun() {
    let (steps, tell) = Steps::new();
    let backend = begun_with(tell, |peer, [first, _, _]| peer.goaway(first, 0));
    let sessile = plain("", H2, &[backend.address]);
    let client = Client::plain(sessile.address("l"));
    let [first, second, third] = [(); 3].map(|()| {
        let asked = ask(&client);
        step(&steps);
        asked
    });
    assert_eq!([second, third].map(text), ["2 0", "2 0"]);
    // The backend may have done it, and nothing says that the connection was only kept too long.
    assert_eq!(first.reply().unwrap().status, 502);
}

#[test]
fn a_request_is_sent_again_whole_or_not_at_all() {
    let ((open, gate), (steps, tell)) = (Gate::new(), Steps::new());
    let backend = begun_with(tell, move |peer, [first, _, begun]| {
        assert_eq!(peer.data(begun)?, b"some");
        peer.goaway(first, 0)?;
        gate.wait()?;
        peer.answer(first, "1")?;
        peer.rest()
    });
    let sessile = plain("", H2, &[backend.address]);
    let client = Client::plain(sessile.address("l"));
    let post = || client.begin(client.request("POST", "/", &[]), false).unwrap();
    let first = ask(&client);
    step(&steps);
    let mut unbegun = post();
    step(&steps);
    let mut begun = post();
    step(&steps);
    begun.write(b"some", false).unwrap();
    let refused = begun.reply().err().and_then(|error| error.reason());
    assert_eq!(refused, Some(Reason::REFUSED_STREAM), "the client, which has the body, may send it again");
    unbegun.write(b"whole", true).unwrap();
    assert_eq!(text(unbegun), "2 5");
    open.send(()).unwrap();
    assert_eq!(text(first), "1");
}

/// A backend that accepts one connection, and is gone behind its announcement.
fn goes_away() -> SocketAddr {
    let address = free_local_address();
    let listener = TcpListener::bind(address).expect("a free port");
    thread::spawn(move || -> std::io::Result<()> {
        let (stream, _) = listener.accept()?;
        let mut peer = Peer::begin(stream)?;
        let first = peer.request()?;
        peer.answer(first, "gone")?;
        peer.request()?;
        drop(listener);
        peer.goaway(first, 0)?;
        peer.rest()
    });
    address
}

#[test]
fn what_a_backend_that_is_gone_has_not_begun_goes_to_the_next_one_and_without_one_is_left_to_its_client() {
    let other = Http2Site::new();
    let backup = format!("[[pool.backend]]\nname = \"backup\"\naddress = \"{}\"\nbackup = true\n", other.address);
    for further in [&*backup, ""] {
        let sessile = Sessile::start(&(listener("p", "") + &pool("p", H2, &[goes_away()]) + further));
        let client = Client::plain(sessile.address("l"));
        assert_eq!(text(ask(&client)), "gone");
        let post = client.begin(client.request("POST", "/", &[]), true).unwrap();
        match further {
            "" => assert_eq!(post.reply().err().and_then(|error| error.reason()), Some(Reason::REFUSED_STREAM)),
            _ => assert_eq!(text(post), "POST http a.test /"),
        }
    }
}

#[test]
fn an_nginx_that_ends_each_connection_after_a_few_requests_costs_no_request() {
    let Some(program) = find("an_nginx_that_ends_each_connection_after_a_few_requests_costs_no_request", "nginx")
    else {
        return;
    };
    let address = free_address();
    let rules = "keepalive_requests 30; location / { return 200 \"$connection\"; }";
    let _nginx = nginx(&program, address, &format!("server {{ listen {address} http2; {rules} }}"));
    let sessile = plain("", H2, &[address]);
    let client = Client::plain(sessile.address("l"));
    let mut connections = BTreeSet::new();
    for _ in 0..20 {
        let asked: Vec<_> = (0..20).map(|_| ask(&client)).collect();
        connections.extend(asked.into_iter().map(text));
    }
    assert!(connections.len() >= 10, "{connections:?}");
    assert_eq!(endings(&sessile, 400), BTreeSet::from(["done".to_owned()]));
    for _ in 0..30 {
        let answer = http1_answer(&sessile, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}
