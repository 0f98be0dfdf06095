//! Upgrades in a row under everything at once: idle pairs, streams, new clients, requests, WebSockets behind TLS.
//!
//! The load is small unless the environment says otherwise. Each number can be set by itself:
//!
//! | variable | what | small | with `SESSILE_TEST_FULL_LOAD=1` |
//! |---|---|---|---|
//! | `SESSILE_TEST_UPGRADES` | upgrades in a row | 3 | 50 |
//! | `SESSILE_TEST_PAIRS` | idle pairs | 200 | 4000 |
//! | `SESSILE_TEST_STREAMS` | streams both ways: small messages are copied, bulk is spliced | 16 | 200 |
//! | `SESSILE_TEST_CHURN` | new clients a second | 200 | 2000 |
//! | `SESSILE_TEST_WEBSOCKETS` | WebSockets behind TLS | 8 | 100 |
//! | `SESSILE_TEST_WRK` | connections of each `wrk`: one with TLS that ends here, one in passing through | 1 | 16 |
//!
//! The full load also asserts how long a stream may stand still, so it needs an idle machine and an optimized build.
//! `SESSILE_TEST_OTHER_BINARY` names a binary of another version; processes of both then follow each other in turn. One
//! is made so, of this tree or of an older commit:
//!
//! ```sh
//! git worktree add ../other HEAD
//! sed -i 's/^version = "0.1.0"/version = "0.1.1"/' ../other/Cargo.toml
//! (cd ../other && cargo build --release)
//! SESSILE_TEST_FULL_LOAD=1 SESSILE_TEST_OTHER_BINARY=$PWD/../other/target/release/sessile \
//!     cargo test --release --test it upgrade::full_load -- --nocapture --test-threads 1
//! ```
//!
//! A process needs two descriptors for a pair; with 20,000 there is room for 9,500 pairs.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::{ClientConfig, HandshakeKind};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::streams::{Pauses, Streams};
use super::traffic::{Churn, Idle, mirror, source};
use crate::support::backend::{Backend, pool};
use crate::support::load_support::{EchoProcess, alone, at_rest, descriptors_at_least};
use crate::support::wrk::Wrk;
use crate::support::{Sessile, eventually, has, http};
use crate::terminate::Front;
use crate::terminate::client::{Talk, Tls, config_of, connect};
use crate::terminate::load::Backends;

/// How long the process before may stay where nothing is open that it has to finish.
const GONE_MAX: Duration = Duration::from_secs(3);

/// How long a stream may stand still: ninety-nine of a hundred, and the longest of all.
const STANDSTILL_P99: Duration = Duration::from_millis(50);
const STANDSTILL_MOST: Duration = Duration::from_millis(300);

/// Block of loopback addresses of the idle pairs.
const IDLE_BLOCK: u8 = 8;

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const SOCKET: &str = "GET /ws HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";

/// How much happens.
struct Scale {
    upgrades: usize,
    pairs: usize,
    streams: usize,
    churn: usize,
    websockets: usize,
    wrk: usize,
    is_full: bool,
}

impl Scale {
    fn of_environment() -> Self {
        let is_full = std::env::var_os("SESSILE_TEST_FULL_LOAD").is_some();
        let number = |what: &str, small: usize, full: usize| {
            let told = std::env::var(format!("SESSILE_TEST_{what}"));
            told.map_or(if is_full { full } else { small }, |told| told.parse().expect("a number"))
        };
        Self {
            upgrades: number("UPGRADES", 3, 50),
            pairs: number("PAIRS", 200, 4_000),
            streams: number("STREAMS", 16, 200),
            churn: number("CHURN", 200, 2_000),
            websockets: number("WEBSOCKETS", 8, 100),
            wrk: number("WRK", 1, 16),
            is_full,
        }
    }
}

/// The binaries of the processes in turn, with their versions.
struct Binaries(Vec<(PathBuf, String)>);

impl Binaries {
    fn of_environment() -> Self {
        let own = PathBuf::from(env!("CARGO_BIN_EXE_sessile"));
        let all = [Some(own), std::env::var_os("SESSILE_TEST_OTHER_BINARY").map(PathBuf::from)];
        let version = |binary: &PathBuf| {
            let said = std::process::Command::new(binary).arg("--version").output().expect("the binary starts").stdout;
            String::from_utf8(said).expect("text").split_whitespace().nth(1).expect("a version").to_owned()
        };
        Self(all.into_iter().flatten().map(|binary| (binary.clone(), version(&binary))).collect())
    }

    /// Binary and version of a generation; the first is 1.
    fn of(&self, generation: usize) -> &(PathBuf, String) {
        &self.0[(generation - 1) % self.0.len()]
    }
}

/// What is open and happens in passing through.
struct Passing {
    idle: Vec<Idle>,
    streams: Streams,
    churn: Churn,
    /// The load has these for as long as it goes on.
    _backends: (EchoProcess, Vec<Backend>),
}

/// Listeners `pairs` and `streams` with their pools; the pool of pairs has eight backends and a stick table.
fn passing_config(echo: &EchoProcess, mirrors: &[Backend]) -> String {
    let echoes: Vec<SocketAddr> = (1..=8).map(|host| ([127, 0, 0, host], echo.port).into()).collect();
    let mirrors: Vec<_> = mirrors.iter().map(|mirror| mirror.address).collect();
    named("pairs", "p")
        + &named("streams", "s")
        + &pool("p", "key = [\"source\"]\ndrain_deadline = \"2h\"", &echoes)
        + &pool("s", "balance = \"round_robin\"", &mirrors)
}

fn named(listener: &str, pool: &str) -> String {
    format!("[[listener]]\nname = \"{listener}\"\nbind = \"127.0.0.1:0\"\npool = \"{pool}\"\n")
}

impl Passing {
    fn start(scale: &Scale, sessile: &Sessile, backends: (EchoProcess, Vec<Backend>)) -> Self {
        let (pairs, streams) = (sessile.address("pairs"), sessile.address("streams"));
        let idle = (0..scale.pairs).map(|index| Idle::open_from(source(IDLE_BLOCK, index), pairs)).collect();
        let (streams, churn) = (Streams::start(streams, scale.streams as u64), Churn::start(pairs, scale.churn as u32));
        // Until the buffers of the slow ones are full.
        streams.go_on(200_000 * scale.streams as u64);
        Self { idle, streams, churn, _backends: backends }
    }

    /// Upgrades to the next binary, in a phase of its own of the streams; the verdict.
    fn upgrade(&mut self, sessile: &mut Sessile, (binary, version): &(PathBuf, String)) -> Value {
        let (served, known) = (self.churn.served(), known(sessile));
        assert_eq!(breaks(sessile), 0);
        self.streams.next_phase();
        let verdict = sessile.upgrade(Some(binary));
        assert_eq!((&verdict["accepted"], &verdict["version"]), (&true.into(), &version.as_str().into()), "{verdict}");
        assert!(verdict["pairs"].as_u64() >= Some(self.idle.len() as u64), "{verdict}");
        eventually("new clients to be served", || (self.churn.served() > served + 20).then_some(()));
        self.streams.next_phase();
        assert!(self::known(sessile) >= known, "{known} clients were known");
        verdict
    }

    /// Everything goes on in this generation; streams are spliced and copied.
    fn go_on(&mut self, sessile: &Sessile, generation: usize) {
        self.streams.go_on(500_000);
        let served = self.churn.served();
        eventually("new clients to be served", || (self.churn.served() > served + 50).then_some(()));
        self.idle.iter_mut().skip(generation % 20).step_by(20).for_each(Idle::lives);
        let (status, backends) = (sessile.status(), backends_of(sessile, "s"));
        let bytes = sum(&backends, "bytes_up") + sum(&backends, "bytes_down");
        let spliced = sum(&status["workers"], "bytes_spliced");
        assert!(0 < spliced && spliced < bytes, "generation {generation}: {spliced} of {bytes} bytes were spliced");
    }
}

/// Backends of a pool, as the status has them.
fn backends_of(sessile: &Sessile, pool: &str) -> Value {
    let status = sessile.status();
    let pools = status["pools"].as_array().expect("pools");
    pools.iter().find(|known| known["name"] == pool).expect("the pool")["backends"].clone()
}

/// The sum of a figure over a list.
fn sum(list: &Value, figure: &str) -> u64 {
    list.as_array().expect("a list").iter().map(|one| one[figure].as_u64().expect("a number")).sum()
}

/// Entries of the stick table of the pairs.
fn known(sessile: &Sessile) -> u64 {
    let tables = sessile.json("/stick-table");
    let tables = tables.as_array().expect("stick tables");
    let of_pairs = tables.iter().find(|table| table["name"] == "p").expect("the stick table of p");
    of_pairs["known"].as_u64().expect("a number")
}

/// Clients that left their backend, over all pools and causes.
fn breaks(sessile: &Sessile) -> u64 {
    let status = sessile.status();
    let pools = status["pools"].as_array().expect("pools");
    pools.iter().flat_map(|pool| pool["breaks"].as_object().into_iter().flatten()).filter_map(|(_, n)| n.as_u64()).sum()
}

/// What a generation costs.
#[derive(Debug, Clone, Copy)]
struct Cost {
    /// Without pipes, which are kept for some seconds.
    descriptors: usize,
    memory_kib: usize,
}

impl Cost {
    fn of(sessile: &Sessile) -> Self {
        let folder = std::fs::read_dir(format!("/proc/{}/fd", sessile.pid())).expect("/proc");
        let links = folder.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
        let is_pipe = |link: &PathBuf| link.to_str().is_some_and(|link| link.starts_with("pipe:"));
        let descriptors = links.filter(|link| !is_pipe(link)).count();
        Self { descriptors, memory_kib: sessile.anonymous_kib() }
    }

    /// The last generation costs as much as the second or third, whichever has the same binary: a quarter and 4 MiB more
    /// at most, 5 MiB for the moves and endings that it remembers, and `slack` descriptors for what comes and goes.
    fn assert_level(costs: &[Self], binaries: &Binaries, slack: usize) {
        let last = costs.len() - 1;
        let has_same = |early: &usize| last.abs_diff(*early).is_multiple_of(binaries.0.len());
        let early = (1..=2).find(has_same).expect("at most two binaries");
        let (early, last) = (costs[early], costs[last]);
        assert!(last.descriptors <= early.descriptors + slack, "{early:?} {last:?}");
        assert!(last.memory_kib <= early.memory_kib * 5 / 4 + 4_096 + 5_120, "{early:?} {last:?}");
    }
}

/// Every connection that has ended so far was served to its end, and no client had two backends.
fn assert_log(sessile: &Sessile, listeners: &[&str]) {
    let mut homes = BTreeMap::<String, BTreeSet<String>>::new();
    let mut seen = BTreeSet::new();
    for line in sessile.lines().iter().filter(|line| line["request"].is_null()) {
        let listener = line["listener"].as_str().unwrap_or_default();
        if !listeners.contains(&listener) {
            continue;
        }
        seen.insert(listener.to_owned());
        assert_eq!(line["ended"], "done", "{line}");
        if listener == "pairs" {
            let client = line["client"].as_str().and_then(|client| client.split(':').next()).expect("a client");
            let backend = line["backend"].as_str().expect("a backend");
            homes.entry(client.to_owned()).or_default().insert(backend.to_owned());
        }
    }
    assert!(seen.contains("pairs") && !homes.is_empty());
    let moved: Vec<_> = homes.iter().filter(|(_, backends)| backends.len() > 1).collect();
    assert!(moved.is_empty(), "{moved:?}");
}

/// Prints how it went, and fails where a stream stood still too long, if that is measured.
fn report(scale: &Scale, what: &str, pauses: &Pauses, took: &[Duration], costs: &[Cost]) {
    let longest = took.iter().max().copied().unwrap_or_default();
    println!("{what}, {} upgrades of at most {longest:.1?}: {pauses}; {costs:?}", took.len());
    if scale.is_full {
        let [p99, most] = [99, 100].map(|percent| Pauses::at(&pauses.upgrade, percent));
        assert!(p99 <= STANDSTILL_P99 && most <= STANDSTILL_MOST, "{p99:?} {most:?}");
    }
}

#[test]
fn connections_move_to_the_next_process_and_the_one_before_is_gone_at_once() {
    let _alone = alone();
    descriptors_at_least(0);
    let (scale, binaries) = (Scale::of_environment(), Binaries::of_environment());
    let backends = (EchoProcess::start(), vec![mirror(), mirror()]);
    let mut sessile = Sessile::start(&passing_config(&backends.0, &backends.1));
    let (address, empty) = (sessile.address("pairs"), Cost::of(&sessile));
    let mut passing = Passing::start(&scale, &sessile, backends);
    let (mut costs, mut took) = (vec![Cost::of(&sessile)], Vec::new());
    for generation in 2..=scale.upgrades + 1 {
        let (before, begun) = (sessile.pid(), Instant::now());
        passing.upgrade(&mut sessile, binaries.of(generation));
        took.push(begun.elapsed());
        sessile.gone(before);
        let gone = begun.elapsed();
        assert!(gone - took[took.len() - 1] < GONE_MAX, "generation {generation}: {gone:?}");
        assert_eq!(sessile.address("pairs"), address);
        passing.go_on(&sessile, generation);
        costs.push(Cost::of(&sessile));
    }
    let Passing { mut idle, streams, churn, _backends } = passing;
    let (served, longest) = churn.stop();
    let (bytes, pauses) = (streams.bytes(), streams.stop());
    idle.iter_mut().for_each(Idle::lives);
    assert_listed(&sessile, &idle);
    assert_log(&sessile, &["pairs", "streams"]);
    let what = format!("{} idle pairs, {bytes} bytes, {served} clients of at most {longest:.1?}", idle.len());
    drop(idle);
    eventually("every permit and lease to come back", || {
        let leases = sum(&backends_of(&sessile, "p"), "leases") + sum(&backends_of(&sessile, "s"), "leases");
        (sessile.status()["admission"]["open"] == 0 && leases == 0).then_some(())
    });
    let left = at_rest(|| Cost::of(&sessile).descriptors);
    assert!(left <= empty.descriptors + 2, "{left} descriptors, and {} at the start", empty.descriptors);
    Cost::assert_level(&costs, &binaries, 60 + scale.churn / 10);
    report(&scale, &what, &pauses, &took, &costs);
}

/// The idle pairs are what is open, each once, with what it was through all processes.
fn assert_listed(sessile: &Sessile, idle: &[Idle]) {
    let known: HashSet<_> = idle.iter().map(|idle| idle.local().to_string()).collect();
    let connections = eventually("the others to end", || {
        let connections = sessile.json("/connections?limit=20000");
        (connections["open"].as_u64() == Some(idle.len() as u64)).then_some(connections)
    });
    let listed = connections["connections"].as_array().expect("connections");
    let numbers: HashSet<_> = listed.iter().map(|connection| connection["id"].as_u64()).collect();
    assert_eq!(numbers.len(), idle.len(), "no number is given twice");
    for connection in listed {
        assert!(known.contains(connection["client"].as_str().expect("a client")), "{connection}");
        assert_eq!((&connection["listener"], &connection["pool"]), (&"pairs".into(), &"p".into()));
        let asked = connection["bytes_up"].as_u64().expect("a number");
        assert!(asked >= 10 && asked.is_multiple_of(5), "counted over all processes: {connection}");
    }
}

/// Backends that answer every request, and send back what comes through a WebSocket.
fn sites() -> Backends {
    Backends::start(2, None, async |_, line, asked| {
        if asked.path() != "/ws" {
            line.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await?;
            return Ok(true);
        }
        line.send(SWITCH).await?;
        let mut piece = [0; 256];
        loop {
            match line.stream.read(&mut piece).await? {
                0 => return Ok(false),
                n => line.stream.write_all(&piece[..n]).await?,
            }
        }
    })
}

fn open_socket(address: SocketAddr, config: &Arc<ClientConfig>) -> Talk<Tls> {
    let mut talk = Talk::new(connect(address, config, "a.test"));
    talk.send(SOCKET);
    assert_eq!(talk.response().expect("a response").status, 101);
    talk
}

fn echoes(talk: &mut Talk<Tls>) {
    talk.send("hello");
    let mut answer = [0; 5];
    talk.stream.read_exact(&mut answer).expect("the WebSocket lives");
    assert_eq!(&answer, b"hello");
}

/// A client that keeps its ticket.
fn with_tickets(front: &Front, old: bool) -> Arc<ClientConfig> {
    let mut config = (*config_of(&front.authority, old)).clone();
    config.resumption = Resumption::in_memory_sessions(4);
    config.into()
}

/// Whether the client's ticket was taken.
fn resumes(address: SocketAddr, config: &Arc<ClientConfig>) -> bool {
    let mut talk = Talk::new(connect(address, config, "a.test"));
    assert_eq!(talk.get("/", "Connection: close\r\n").status, 200);
    talk.stream.conn.handshake_kind() == Some(HandshakeKind::Resumed)
}

#[test]
fn everything_at_once_survives_upgrades_in_a_row() {
    let test = "everything_at_once_survives_upgrades_in_a_row";
    if !has(test, "wrk") {
        return;
    }
    let _alone = alone();
    descriptors_at_least(0);
    let (scale, binaries) = (Scale::of_environment(), Binaries::of_environment());
    let (backends, sites) = ((EchoProcess::start(), vec![mirror(), mirror()]), sites());
    let config = named("plain", "site")
        + &passing_config(&backends.0, &backends.1)
        + &pool("web", "http = true", &sites.addresses)
        + &pool("site", "", &sites.addresses);
    let mut front = Front::with("", "pool = \"web\"\n", &config);
    let (secured, plain) = (front.address(), front.sessile.address("plain"));
    let connections = scale.wrk.to_string();
    let wrk = [format!("https://{secured}/"), format!("http://{plain}/")]
        .map(|url| Wrk::start(&url, &["--connections", &connections, "--header", "Host: a.test"]));
    let mut passing = Passing::start(&scale, &front.sessile, backends);
    let drained = Instant::now();
    assert_eq!(http::unix_post(&front.sessile.admin(), "/backends/p/b7/drain").expect("an answer").0, 200);
    let client = with_tickets(&front, false);
    let mut sockets: Vec<_> = (0..scale.websockets).map(|_| open_socket(secured, &client)).collect();
    // The first of two clients comes in every generation, the second in the first and the third.
    let clients: Vec<_> = [false, true].iter().map(|old| [(); 2].map(|()| with_tickets(&front, *old))).collect();
    clients.iter().flatten().for_each(|client| assert!(!resumes(secured, client)));
    let (holder, mut costs, mut took) = (front.sessile.pid(), vec![Cost::of(&front.sessile)], Vec::new());
    for generation in 2..=scale.upgrades + 1 {
        let (before, begun) = (front.sessile.pid(), Instant::now());
        passing.upgrade(&mut front.sessile, binaries.of(generation));
        took.push(begun.elapsed());
        if before != holder {
            front.sessile.gone(before);
        }
        sockets.iter_mut().for_each(echoes);
        for [every, third] in &clients {
            assert!(resumes(secured, every), "generation {generation}");
            assert!(generation != 3 || resumes(secured, third), "a ticket of the first generation");
        }
        passing.go_on(&front.sessile, generation);
        costs.push(Cost::of(&front.sessile));
    }
    let b7 = backends_of(&front.sessile, "p")[7].clone();
    let drained_s = b7["drain_s"].as_u64().expect("it drains");
    assert!(b7["runtime"] == "draining" && drained_s.abs_diff(drained.elapsed().as_secs()) <= 1, "{b7}");
    assert_log(&front.sessile, &["pairs", "streams", "plain"]);
    let requests = wrk.map(Wrk::finish);
    let (served, longest) = passing.churn.stop();
    let (bytes, pauses) = (passing.streams.bytes(), passing.streams.stop());
    passing.idle.iter_mut().for_each(Idle::lives);
    assert_eq!(breaks(&front.sessile), 0);
    drop(sockets);
    front.sessile.gone(holder);
    let slack = 60 + scale.churn / 10 + 6 * scale.wrk;
    Cost::assert_level(&costs, &binaries, slack);
    let what = format!(
        "{} idle pairs, {bytes} bytes, {served} clients of at most {longest:.1?}, {requests:?} requests, {} WebSockets",
        scale.pairs, scale.websockets
    );
    report(&scale, &what, &pauses, &took, &costs);
}
