//! Situations in which other balancers lost sessions, after public reports on them: cookies.
//!
//! Each test names the report. What the other balancer did is not imitated; only the situation is. Invariant: each
//! response names its backend, so that a client that moved is seen.

use std::net::SocketAddr;

use rustls::crypto::aws_lc_rs::kx_group::X25519MLKEM768;

use super::backend::Recorder;
use super::client::{Response, Talk, config, connect};
use super::cookie::{cookie_of, name_of};
use super::{Front, config as whole};
use crate::support::backend::pool;
use crate::support::program::free_address;
use crate::support::{Sessile, is_root};

const INSERT: &str =
    "http = true\nbalance = \"round_robin\"\ncookie = { mode = \"insert\", keys = \"$FILES/cookie.keys\" }\n";

/// Replies with a status line, and with the name of the backend as the body.
fn replying(name: &'static str, status: &'static str) -> Recorder {
    Recorder::answering(name, move |_| {
        Some(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{name} ", name.len() + 1).into_bytes())
    })
}

fn addresses(backends: &[Recorder]) -> Vec<SocketAddr> {
    backends.iter().map(Recorder::address).collect()
}

fn pair(response: &Response) -> String {
    response.field("set-cookie").expect("a cookie").split(';').next().unwrap().to_owned()
}

/// haproxy/haproxy#1078: requests on a connection that was open before a reload lost their server.
#[test]
fn a_kept_connection_follows_its_cookie_after_reloads() {
    let backends = ["x", "y", "z"].map(Recorder::named);
    let pools = |options: &str| pool("p", &(INSERT.to_owned() + options), &addresses(&backends));
    let front = Front::with("", "pool = \"p\"\n", &pools(""));
    let mut kept = Talk::with(&front);
    let first = kept.get("/", "");
    let (home, cookie) = (name_of(&first.text()), cookie_of(&first));
    for round in 0..6 {
        let options = format!("connect_timeout = \"{}ms\"\n", 500 + round);
        let verdict = front.sessile.reload(&whole(&front.dir, "", "pool = \"p\"\n", &pools(&options)));
        assert_eq!(verdict["accepted"], true, "{verdict}");
        let response = kept.get("/", &format!("Cookie: {cookie}\r\n"));
        assert_eq!((name_of(&response.text()), response.field("set-cookie")), (home.clone(), None), "round {round}");
    }
}

/// traefik/traefik#3770: a login that begins with 401 never became sticky.
#[test]
fn a_response_of_any_status_brings_the_cookie() {
    let statuses = [
        "401 Unauthorized",
        "302 Found",
        "404 Not Found",
        "500 Internal Server Error",
        "503 Service Unavailable",
        "206 Partial Content",
    ];
    for status in statuses {
        let backends = ["x", "y", "z"].map(|name| replying(name, status));
        let front = Front::start("", INSERT, &addresses(&backends));
        let first = Talk::with(&front).get("/", "");
        let (home, cookie) = (name_of(&first.text()), cookie_of(&first));
        for _ in 0..3 {
            let again = Talk::with(&front).get("/", &format!("Cookie: {cookie}\r\n"));
            assert_eq!(name_of(&again.text()), home, "{status}");
        }
    }
}

/// traefik/traefik#3975: with more than one backend and retries, no cookie was set.
#[test]
fn a_client_that_was_placed_by_a_retry_gets_its_cookie() {
    let (x, y) = (Recorder::named("x"), Recorder::named("y"));
    let dead = free_address();
    let front = Front::start("", INSERT, &[x.address(), dead, y.address()]);
    for _ in 0..9 {
        let first = Talk::with(&front).get("/", "");
        assert_eq!(first.status, 200);
        let (home, cookie) = (name_of(&first.text()), cookie_of(&first));
        let again = Talk::with(&front).get("/", &format!("Cookie: {cookie}\r\n"));
        assert_eq!((name_of(&again.text()), again.field("set-cookie")), (home, None));
    }
}

/// traefik/traefik#3343: the response that accepts a WebSocket brought no cookie, so each stream went elsewhere.
#[test]
fn the_response_that_accepts_an_upgrade_brings_the_cookie() {
    let upgrading = |name: &'static str| {
        Recorder::answering(name, move |_| {
            let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
            Some(format!("{switch}X-Backend: {name}\r\n\r\n").into_bytes())
        })
    };
    let backends = ["x", "y", "z"].map(upgrading);
    let front = Front::start("", INSERT, &addresses(&backends));
    let open = |fields: &str| {
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
        let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        Talk::with(&front).get("/ws", &format!("{upgrade}{key}{fields}"))
    };
    let first = open("");
    assert_eq!(first.status, 101, "{first:?}");
    let (home, cookie) = (first.field("x-backend").unwrap().to_owned(), pair(&first));
    for _ in 0..5 {
        assert_eq!(open(&format!("Cookie: {cookie}\r\n")).field("x-backend"), Some(home.as_str()));
    }
}

/// traefik/traefik#1299: the cookie of a backend that is gone led nowhere for ever.
#[test]
fn clients_of_backends_that_are_gone_get_another_one_and_the_others_stay() {
    let backends = ["v", "w", "x", "y", "z"].map(Recorder::named);
    let all = addresses(&backends);
    let front = Front::start("", INSERT, &all);
    let users: Vec<_> = (0..10)
        .map(|_| {
            let first = Talk::with(&front).get("/", "");
            (name_of(&first.text()), cookie_of(&first))
        })
        .collect();
    let verdict = front.sessile.reload(&whole(&front.dir, "", "pool = \"p\"\n", &pool("p", INSERT, &all[..3])));
    assert_eq!(verdict["accepted"], true, "{verdict}");
    for (home, cookie) in users {
        let response = Talk::with(&front).get("/", &format!("Cookie: {cookie}\r\n"));
        let now = name_of(&response.text());
        if ["v", "w", "x"].contains(&home.as_str()) {
            assert_eq!((now, response.field("set-cookie")), (home, None));
        } else {
            let anew = cookie_of(&response);
            let again = Talk::with(&front).get("/", &format!("Cookie: {anew}\r\n"));
            assert_eq!(name_of(&again.text()), now);
        }
    }
}

/// kubernetes/ingress-nginx#3089: a service that has nothing to do with a site took the sessions of that site.
#[test]
fn a_pool_and_a_route_that_come_and_go_move_no_client_of_another_pool() {
    let backends = ["x", "y", "z"].map(Recorder::named);
    let other = Recorder::named("other");
    let site = pool("p", INSERT, &addresses(&backends));
    let front = Front::with("", "pool = \"p\"\n", &site);
    let users: Vec<_> = (0..6)
        .map(|_| {
            let first = Talk::with(&front).get("/", "");
            (name_of(&first.text()), cookie_of(&first))
        })
        .collect();
    let route = "pool = \"p\"\n[[listener.route]]\nsni = \"q.a.test\"\npool = \"q\"\n";
    let with = pool("q", INSERT, &[other.address()]) + &site;
    for (listener, pools) in [(route, &with), ("pool = \"p\"\n", &site), (route, &with)] {
        let verdict = front.sessile.reload(&whole(&front.dir, "", listener, pools));
        assert_eq!(verdict["accepted"], true, "{verdict}");
        for (home, cookie) in &users {
            let response = Talk::with(&front).get("/", &format!("Cookie: {cookie}\r\n"));
            assert_eq!((&name_of(&response.text()), response.field("set-cookie")), (home, None));
        }
    }
    let mut elsewhere = Talk::new(connect(front.address(), &config(&front.authority), "q.a.test"));
    elsewhere.send("GET / HTTP/1.1\r\nHost: q.a.test\r\n\r\n");
    assert_eq!(name_of(&elsewhere.response().unwrap().text()), "other");
}

/// envoyproxy/envoy#44111: cookies carried a time of the monotonic clock, which differs between machines.
#[test]
fn a_cookie_holds_at_an_instance_on_a_machine_that_has_run_for_longer() {
    let test = "a_cookie_holds_at_an_instance_on_a_machine_that_has_run_for_longer";
    if !is_root(test) {
        return;
    }
    let backends = ["x", "y", "z"].map(Recorder::named);
    let front = Front::start("", INSERT, &addresses(&backends));
    let text = whole(&front.dir, "", "pool = \"p\"\n", &pool("p", INSERT, &addresses(&backends)));
    // Thirty days ahead by the monotonic clock; cookies hold for one day.
    let ahead = ["unshare", "--time", "--monotonic", "2592000", "--boottime", "2592000", "--fork", "--kill-child"];
    let old = Sessile::start_in_shell(&ahead, "exec \"$0\" \"$@\"", &text);
    for (one, other) in [(&front.sessile, &old), (&old, &front.sessile)] {
        let at = |sessile: &Sessile| Talk::new(connect(sessile.address("l"), &config(&front.authority), "a.test"));
        let first = at(one).get("/", "");
        let (home, cookie) = (name_of(&first.text()), cookie_of(&first));
        for sessile in [other, one, other] {
            let again = at(sessile).get("/", &format!("Cookie: {cookie}\r\n"));
            assert_eq!((name_of(&again.text()), again.field("set-cookie")), (home.clone(), None));
        }
    }
}

/// Java clients after RFC 2965 (`$Version`, quotes), and HTTP/2 gateways that split a Cookie field into crumbs.
#[test]
fn a_cookie_is_found_in_each_form_in_which_clients_send_it() {
    let backends = ["x", "y", "z"].map(Recorder::named);
    let front = Front::start("", INSERT, &addresses(&backends));
    let first = Talk::with(&front).get("/", "");
    let (home, cookie) = (name_of(&first.text()), cookie_of(&first));
    let (name, value) = cookie.split_once('=').unwrap();
    let forms = [
        format!("Cookie: $Version=1; {name}={value}; $Path=/\r\n"),
        format!("Cookie: {name}=\"{value}\"\r\n"),
        format!("Cookie: a=b\r\nCookie: {name}={value}\r\nCookie: c=d\r\n"),
        format!("cookie:{name}={value};c=d\r\n"),
        format!("COOKIE:\t a=b ;{name}={value} \r\n"),
        format!("Cookie: a={name}={value}; {name}={value}\r\n"),
        format!("Cookie: x{name}=1; {name}={value}; {name}x=2\r\n"),
        format!("Cookie: ; ;{name}={value};\r\n"),
    ];
    for form in forms {
        for _ in 0..3 {
            let again = Talk::with(&front).get("/", &form);
            assert_eq!((name_of(&again.text()), again.field("set-cookie")), (home.clone(), None), "{form}");
        }
    }
}

/// gorilla, Firefox and socket servers: bytes of a stream that travel with the heads of its Upgrade were lost.
#[test]
fn bytes_of_a_stream_that_come_with_the_heads_of_its_upgrade_arrive() {
    let echo = |name: &'static str| {
        crate::support::backend::Backend::serving(move |mut stream| {
            use std::io::{Read, Write};
            let (mut seen, mut piece) = (Vec::new(), [0; 4_096]);
            let end = loop {
                if let Some(at) = seen.windows(4).position(|bytes: &[u8]| bytes == b"\r\n\r\n") {
                    break at + 4;
                }
                let n = stream.read(&mut piece)?;
                seen.extend_from_slice(&piece[..n]);
            };
            let switch = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: WebSocket\r\n\r\n";
            let mut reply = format!("{switch}hello of {name} ").into_bytes();
            reply.extend_from_slice(&seen[end..]);
            stream.write_all(&reply)?;
            loop {
                let n = stream.read(&mut piece)?;
                if n == 0 {
                    return Ok(());
                }
                stream.write_all(&piece[..n])?;
            }
        })
    };
    let backend = echo("x");
    let front = Front::start("", "http = true\n", &[backend.address]);
    for connection in ["Upgrade", "keep-alive, Upgrade", "upgrade,Keep-Alive"] {
        let mut talk = Talk::with(&front);
        let fields = format!("Connection: {connection}\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n");
        talk.send(format!("GET /ws HTTP/1.1\r\nHost: a.test\r\n{fields}\r\nearly"));
        let response = talk.response().expect("a response");
        assert_eq!(response.status, 101, "{connection}");
        talk.send(" late");
        talk.stream.conn.send_close_notify();
        talk.send("");
        let (bytes, _) = talk.end();
        assert_eq!(String::from_utf8_lossy(&bytes), "hello of x early late", "{connection}");
    }
}

/// traefik/traefik#12787 and tldr.fail: a hello in several records, or in single bytes, was not understood.
#[test]
fn a_hello_in_small_records_and_in_single_bytes_is_served_by_either_half() {
    let backend = Recorder::named("x");
    let front = Front::start("", "http = true\n", &[backend.address()]);
    let pass = "[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\ntls = \"passthrough\"\n\
                [[listener.route]]\nsni = \"a.test\"\npool = \"q\"\n";
    let outer = Sessile::start(&(pass.to_owned() + &pool("q", "", &[front.address()])));
    for fragment in [None, Some(32), Some(65), Some(512)] {
        let mut client = front.authority.client(&[&rustls::version::TLS13], &[X25519MLKEM768]);
        client.max_fragment_size = fragment;
        let client = std::sync::Arc::new(client);
        for address in [front.address(), outer.address("l")] {
            let mut talk = Talk::new(connect(address, &client, "a.test"));
            assert_eq!(talk.get("/", "").status, 200, "{fragment:?}");
        }
    }
    let plain = std::sync::Arc::new(front.authority.client(&[&rustls::version::TLS13], &[X25519MLKEM768]));
    for address in [front.address(), outer.address("l")] {
        let tls = rustls::ClientConnection::new(plain.clone(), "a.test".try_into().unwrap()).unwrap();
        let stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut talk = Talk::new(rustls::StreamOwned::new(tls, Slowly(stream)));
        assert_eq!(talk.get("/", "").status, 200);
    }
}

/// Writes one byte in a segment.
struct Slowly(std::net::TcpStream);

impl std::io::Read for Slowly {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(into)
    }
}

impl std::io::Write for Slowly {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(&bytes[..bytes.len().min(1)])
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}
