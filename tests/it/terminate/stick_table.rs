//! Memory per connection, for stuck connections and for idle ones.
//!
//! Buffers of sockets towards sessile are small, so that the kernel soon takes no more and the rest is sessile's own
//! memory. Invariant: numbers are differences between moments without traffic.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use tokio::io::AsyncWriteExt;
use tokio::task::spawn_local;

use super::Front;
use super::client::config;
use super::load::{Backends, Line, Wire, connect_small, run, secured, small_socket};
use crate::support::backend::{Backend, listener, pool};
use crate::support::load_support::{alone, at_rest};

const STUCK: usize = 500;
const STUCK_MAX_KIB: f64 = 64.0;
const IDLE: usize = 1_000;
const IDLE_MAX_KIB: f64 = 24.0;

/// A client connection, with TLS or without.
async fn connect(to: SocketAddr, tls: Option<&Arc<ClientConfig>>) -> Line<Box<dyn Wire>> {
    let line = connect_small(to);
    match tls {
        Some(tls) => secured(line, tls).await.boxed(),
        None => line.boxed(),
    }
}

/// A backend that accepts connections and never reads.
fn deaf() -> (SocketAddr, TcpListener) {
    let socket = small_socket();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
    socket.listen(4_096).expect("a listener");
    let listener = TcpListener::from(socket);
    (listener.local_addr().expect("an address"), listener)
}

/// A backend that sends without end to each request, and counts the bytes.
fn endless(sent: &Arc<AtomicU64>) -> Backend {
    let sent = Arc::clone(sent);
    Backend::serving(move |mut stream| {
        socket2::SockRef::from(&stream).set_send_buffer_size(16 << 10)?;
        let _ = stream.read(&mut [0; 4096])?;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
        loop {
            sent.fetch_add(stream.write(&[b'x'; 4096])? as u64, Relaxed);
        }
    })
}

/// Waits until a number stays the same for a while.
async fn settled(look: impl Fn() -> u64) {
    let (mut last, mut since) = (look(), Instant::now());
    while since.elapsed() < Duration::from_millis(250) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = look();
        if now != std::mem::replace(&mut last, now) {
            since = Instant::now();
        }
    }
}

/// Memory of sessile per connection, in KiB.
fn each(before: usize, after: usize, count: usize) -> f64 {
    after.saturating_sub(before) as f64 / count as f64
}

fn front(options: &str, backend: SocketAddr) -> Front {
    let tables = listener("p", "").replace("\"l\"", "\"plain\"") + &pool("p", options, &[backend]);
    Front::with("[log]\nformat = \"json\"\nconnections = false\n", "pool = \"p\"\n", &tables)
}

/// Memory per client that requests an endless response and reads nothing of it.
fn of_clients_that_read_nothing(options: &str, with_tls: bool) -> f64 {
    let sent = Arc::new(AtomicU64::new(0));
    let backend = endless(&sent);
    let front = front(options, backend.address);
    let (tls, to) = (config(&front.authority), if with_tls { front.address() } else { front.sessile.address("plain") });
    let tls = with_tls.then_some(&tls);
    run(async {
        let ask = async || {
            let mut line = connect(to, tls).await;
            line.send("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.expect("a connection");
            line
        };
        // The first clients load code and tables.
        let _first = ask().await;
        settled(|| sent.load(Relaxed)).await;
        let before = at_rest(|| front.sessile.pss_kib());
        let mut lines = Vec::new();
        for _ in 0..STUCK {
            lines.push(ask().await);
        }
        settled(|| sent.load(Relaxed)).await;
        each(before, at_rest(|| front.sessile.pss_kib()), STUCK)
    })
}

/// Memory per upload that its backend does not read; `fields` are part of each head.
fn of_uploads_that_nobody_reads(options: &str, with_tls: bool, fields: &str) -> f64 {
    let (address, _listener) = deaf();
    let front = front(options, address);
    let (tls, to) = (config(&front.authority), if with_tls { front.address() } else { front.sessile.address("plain") });
    let tls = with_tls.then_some(&tls);
    run(async {
        let sent = Rc::new(Cell::new(0));
        let upload = async || {
            let mut line = connect(to, tls).await;
            let head = format!("POST / HTTP/1.1\r\nHost: a.test\r\n{fields}");
            line.send(head + "Content-Length: 1000000000\r\n\r\n").await.expect("a connection");
            let sent = Rc::clone(&sent);
            spawn_local(async move {
                while let Ok(n) = line.stream.write(&[b'x'; 4096]).await {
                    sent.update(|sent: u64| sent + n as u64);
                }
            });
        };
        upload().await;
        settled(|| sent.get()).await;
        let before = at_rest(|| front.sessile.pss_kib());
        for _ in 0..STUCK {
            upload().await;
        }
        settled(|| sent.get()).await;
        each(before, at_rest(|| front.sessile.pss_kib()), STUCK)
    })
}

/// Memory per client that stops in the middle of a long head.
fn of_heads_that_stop(with_tls: bool) -> f64 {
    let front = front("http = true\n", ([127, 0, 0, 1], 1).into());
    let (tls, to) = (config(&front.authority), if with_tls { front.address() } else { front.sessile.address("plain") });
    let tls = with_tls.then_some(&tls);
    run(async {
        let begin = async || {
            let mut line = connect(to, tls).await;
            line.send(format!("GET / HTTP/1.1\r\nHost: a.test\r\n{}", long_fields())).await.expect("a connection");
            line
        };
        let _first = begin().await;
        let pss = || front.sessile.pss_kib() as u64;
        settled(pss).await;
        let before = front.sessile.pss_kib();
        let mut lines = Vec::new();
        for _ in 0..STUCK {
            lines.push(begin().await);
        }
        settled(pss).await;
        each(before, front.sessile.pss_kib(), STUCK)
    })
}

/// Nearly the longest head that is allowed.
fn long_fields() -> String {
    (0..4).map(|n| format!("X-Long-{n}: {}\r\n", "x".repeat(8_000))).collect()
}

#[test]
fn a_connection_that_is_stuck_costs_at_most_64_kib() {
    let _alone = alone();
    let (http, plain) = ("http = true\n", "");
    let costs = [
        ("requests in the clear, a client reads nothing", of_clients_that_read_nothing(http, false)),
        ("requests over TLS, a client reads nothing", of_clients_that_read_nothing(http, true)),
        ("a relay over TLS, a client reads nothing", of_clients_that_read_nothing(plain, true)),
        ("requests in the clear, a backend reads nothing", of_uploads_that_nobody_reads(http, false, "")),
        ("requests over TLS, a backend reads nothing", of_uploads_that_nobody_reads(http, true, "")),
        ("a relay over TLS, a backend reads nothing", of_uploads_that_nobody_reads(plain, true, "")),
        ("long heads in the clear, a backend reads nothing", of_uploads_that_nobody_reads(http, false, &long_fields())),
        ("long heads over TLS, a backend reads nothing", of_uploads_that_nobody_reads(http, true, &long_fields())),
        ("long heads in the clear, a client stops", of_heads_that_stop(false)),
        ("long heads over TLS, a client stops", of_heads_that_stop(true)),
    ];
    for (what, kib) in &costs {
        println!("{what}: {kib:.1} KiB");
    }
    assert!(costs.iter().all(|(_, kib)| *kib <= STUCK_MAX_KIB), "{costs:?}");
}

#[test]
fn a_kept_connection_that_is_idle_costs_little() {
    let _alone = alone();
    let backends = Backends::start(1, None, async |_, line, _| {
        line.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfine\n").await?;
        Ok(true)
    });
    for (with_tls, most_kib) in [(false, IDLE_MAX_KIB), (true, IDLE_MAX_KIB)] {
        let front = front("http = true\n", backends.addresses[0]);
        let to = if with_tls { front.address() } else { front.sessile.address("plain") };
        let tls = config(&front.authority);
        let tls = with_tls.then_some(&tls);
        let kib = run(async {
            let ask = async || {
                let mut line = connect(to, tls).await;
                line.send("GET / HTTP/1.1\r\nHost: a.test\r\nUser-Agent: a test\r\n\r\n").await.expect("a connection");
                let head = line.head().await.expect("an answer");
                assert_eq!(line.body(&head).await.expect("a body"), b"fine\n");
                line
            };
            let _first = ask().await;
            let before = at_rest(|| front.sessile.pss_kib());
            let mut lines = Vec::new();
            for _ in 0..IDLE {
                lines.push(ask().await);
            }
            let open = front.sessile.status()["admission"]["open"].as_u64();
            assert_eq!(open, Some(IDLE as u64 + 1));
            each(before, at_rest(|| front.sessile.pss_kib()), IDLE)
        });
        println!("idle {}: {kib:.1} KiB", if with_tls { "with TLS" } else { "in the clear" });
        assert!(kib <= most_kib, "{kib} KiB");
    }
}
