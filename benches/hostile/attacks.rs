//! The attackers: what each sends, to which listener, and which other clients should not notice. `http2` has more.
//!
//! Each is a process of one thread at the lowest priority, with a source address of its own, bounded in rate and in
//! connections; it goes on until it is killed. Invariant: an attacker computes no cryptography and makes no text twice.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::others::Others;
use crate::stage::{NAME, is_open};
use crate::support::load_support::client_hello;
use crate::{Result, http2};

/// First argument of the role.
pub const ROLE: &str = "attack";
/// Where attackers come from.
const SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// The longest that an attacker waits for anything.
const PATIENCE: Duration = Duration::from_millis(500);

/// One attack.
pub struct Attack {
    /// Also what it is chosen by on the command line.
    pub name: &'static str,
    /// The listener that is attacked; `admin`: the admin interface.
    pub listener: &'static str,
    /// The clients that are measured.
    pub others: Others,
    /// Connections at a time.
    pub connections: usize,
    /// The most that the others' p99 may grow, as a factor.
    pub p99_bar: f64,
    /// The most KiB that a connection may take.
    pub growth_bar: f64,
    pub run: fn(SocketAddr) -> !,
}

/// All attacks.
pub fn all() -> impl Iterator<Item = &'static Attack> {
    static ATTACKS: [Attack; 11] = [
        kept("options", "plain", 1, |to| heads(to, &options_head())),
        kept("cookies", "plain", 1, |to| heads(to, &cookie_head())),
        kept("interim", "interim", 2, drink),
        kept("chunks", "chunks", 2, drink),
        Attack { others: Others::Handshakes, ..kept("handshakes", "tls", SHAKING, wait_after_hello) },
        Attack { others: Others::Health, ..kept("admin", "admin", HALF, half_requests) },
        kept("hello-bytes", "sni", SLOW, |to| byte_by_byte(to, &hello_in_small_records())),
        kept("proxy-bytes", "proxied", SLOW, |to| byte_by_byte(to, PROXY_HEADER)),
        kept("slow-readers", "plain", READERS, read_slowly),
        kept("long-bodies", "bodies", 1, long_bodies),
        kept("requests", "rated", 1, requests),
    ];
    ATTACKS.iter().chain(&http2::ATTACKS)
}

/// An attack on a listener, beside clients that keep their connections.
const fn kept(name: &'static str, listener: &'static str, connections: usize, run: fn(SocketAddr) -> !) -> Attack {
    Attack { name, listener, others: Others::Kept, connections, p99_bar: 2.0, growth_bar: f64::INFINITY, run }
}

/// Connections that have said hello, and wait.
const SHAKING: usize = 900;
/// Connections with half a request.
const HALF: usize = 100;
/// Connections that send byte by byte.
pub const SLOW: usize = 200;
const READERS: usize = 100;

const PROXY_HEADER: &[u8] =
    b"PROXY TCP6 2001:db8:1111:2222:3333:4444:5555:6666 2001:db8:1111:2222:3333:4444:5555:6667 65000 65001\r\n";

/// The role: `NAME ADDRESS`. Says a line once the attack begins.
pub fn play(name: &str, rest: &[&str]) -> Result<()> {
    let attack = all().find(|attack| attack.name == name).ok_or_else(|| format!("no attack {name}"))?;
    let target = rest.first().ok_or("no address")?.parse()?;
    let _ = rustix::process::nice(19);
    is_open(target);
    println!("{name}");
    (attack.run)(target)
}

pub fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((SOURCE, 0)).into())?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Does something at a fixed rate for ever. What is late is left out, and what is refused is tried again in its turn.
pub fn at_rate(per_second: u32, mut act: impl FnMut() -> io::Result<()>) -> ! {
    let pause = Duration::from_secs(1) / per_second;
    let mut due = Instant::now();
    loop {
        let _ = act();
        due = (due + pause).max(Instant::now());
        sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// A head of nearly the greatest length, most of it options of Connection, and a hundred fields to compare them with.
fn options_head() -> Vec<u8> {
    let fields: String = (0..100).map(|number| format!("X-{number}: y\r\n")).collect();
    format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}Connection: {}\r\n\r\n", "a,".repeat(15_000)).into_bytes()
}

fn cookie_head() -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {}\r\n\r\n", ";".repeat(32_000)).into_bytes()
}

/// Sends a head forty times a second, over a kept connection while that lasts.
fn heads(to: SocketAddr, head: &[u8]) -> ! {
    let (mut kept, mut buffer) = (None::<TcpStream>, [0; 4_096]);
    at_rate(40, || {
        let mut stream = match kept.take() {
            Some(stream) => stream,
            None => connect(to)?,
        };
        let answered = stream.write_all(head).and_then(|()| stream.read(&mut buffer));
        if answered.is_ok_and(|read| read > 0 && buffer.starts_with(b"HTTP/1.1 200")) {
            kept = Some(stream);
        }
        Ok(())
    })
}

/// Reads two floods of a backend as fast as they come, and asks again when one ends.
fn drink(to: SocketAddr) -> ! {
    let thirsty = move || {
        let mut buffer = vec![0; 256 << 10];
        at_rate(50, || {
            let mut stream = connect(to)?;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
            while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
            Ok(())
        })
    };
    std::thread::spawn(thirsty);
    thirsty()
}

/// Says hello 250 times a second, and then waits.
fn wait_after_hello(to: SocketAddr) -> ! {
    let hello = whole_hello();
    let mut held = VecDeque::with_capacity(SHAKING);
    at_rate(250, || {
        if held.len() == SHAKING {
            held.pop_front();
        }
        let mut stream = connect(to)?;
        stream.write_all(&hello)?;
        held.push_back(stream);
        Ok(())
    })
}

/// The hello of a client that computes its share once.
fn whole_hello() -> Vec<u8> {
    use rustls::crypto::aws_lc_rs::{default_provider, kx_group::X25519};
    let mut provider = default_provider();
    provider.kx_groups = vec![X25519];
    let config = rustls::ClientConfig::builder_with_provider(std::sync::Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has this version")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    crate::support::authority::hello(&std::sync::Arc::new(config), NAME).1
}

/// Half a request on a hundred connections of the admin interface, again whenever one ends.
fn half_requests(to: SocketAddr) -> ! {
    let mut held: Vec<TcpStream> = Vec::new();
    at_rate(200, || {
        held.retain(is_alive);
        if held.len() < HALF {
            let mut stream = connect(to)?;
            let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: loc");
            stream.set_nonblocking(true)?;
            held.push(stream);
        }
        Ok(())
    })
}

/// True if the other side has neither ended nor answered.
fn is_alive(stream: &TcpStream) -> bool {
    matches!(stream.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// A hello in records of one byte.
fn hello_in_small_records() -> Vec<u8> {
    let hello = client_hello(NAME);
    hello[5..].iter().flat_map(|byte| [22, 3, 1, 0, 1, *byte]).collect()
}

/// Sends something on two hundred connections, one byte a segment, 10,000 segments a second; then begins again.
pub fn byte_by_byte(to: SocketAddr, bytes: &[u8]) -> ! {
    let mut lines: Vec<(Option<TcpStream>, usize)> = (0..SLOW).map(|_| (None, 0)).collect();
    at_rate(50, || {
        for (stream, sent) in &mut lines {
            if stream.is_none() || *sent + 1 >= bytes.len() {
                (*stream, *sent) = (Some(connect(to)?), 0);
            }
            let written = stream.as_mut().map(|stream| stream.write(&bytes[*sent..=*sent]));
            *sent += 1;
            if written.is_some_and(|written| written.is_err()) {
                *stream = None;
            }
        }
        Ok(())
    })
}

/// Bodies of 1 MiB in chunks, two hundred times a second.
fn long_bodies(to: SocketAddr) -> ! {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let body = format!("4000\r\n{}\r\n", "x".repeat(16 << 10)).repeat(64);
    let (request, mut buffer) = ([head, body.as_str()].concat(), [0; 4_096]);
    at_rate(200, || {
        let mut stream = connect(to)?;
        let _ = stream.write_all(request.as_bytes());
        stream.read(&mut buffer).map(drop)
    })
}

/// A thousand requests a second, each on a connection of its own.
fn requests(to: SocketAddr) -> ! {
    let mut buffer = [0; 4_096];
    at_rate(1_000, || {
        let mut stream = connect(to)?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
        stream.read(&mut buffer).map(drop)
    })
}

/// A hundred readers of a large response, each of which takes a few bytes ten times a second.
fn read_slowly(to: SocketAddr) -> ! {
    let mut readers = Vec::new();
    let mut buffer = [0; 64];
    at_rate(10, || {
        while readers.len() < READERS {
            let mut stream = connect(to)?;
            socket2::SockRef::from(&stream).set_recv_buffer_size(4_096)?;
            stream.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")?;
            stream.set_nonblocking(true)?;
            readers.push(stream);
        }
        readers.retain_mut(|stream: &mut TcpStream| match stream.read(&mut buffer) {
            Ok(read) => read > 0,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        });
        Ok(())
    })
}
