//! Two configurations that judge the same bytes differently, in turn, under clients that send their bytes in two parts.
//!
//! What was read ahead under one table is never combined with the routes of another: every connection is served, by the
//! pool that one of the two files names for its bytes. Where the bytes are in two parts, a reload lies between them.
//! Backends greet with the name of their pool, so a client that sends nothing sees where it is, too.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::faults::peer::{connect_from, hear, hello};
use crate::support::backend::{Backend, pool};
use crate::support::{PATIENCE, Sessile, eventually};

const TOGGLES: usize = 100;

/// Threads for each kind of client, and connections that each of them has at once.
const THREADS: usize = 2;
const AT_ONCE: usize = 4;

/// Clients at these addresses announce another one by a PROXY header; the others are served as they come.
const TRUSTED: &str = "trust = [\"127.0.1.0/24\"]\nuntrusted = \"direct\"\n";

const HEADER: &[u8] = b"PROXY TCP4 203.0.113.9 192.0.2.1 5555 443\r\n";

/// Kinds of clients that wait for nothing: one byte, a hello, a line.
const PROMPT: [usize; 3] = [1, 4, 5];

/// A kind of client: what it sends, and the pools that it may reach.
struct Kind {
    name: &'static str,
    /// Bytes at the start, and after the next reload.
    parts: [Vec<u8>; 2],
    /// The third byte of its address.
    subnet: u8,
    /// The pool that the file with `tls = "off"` names for these bytes, and that of the other file.
    pools: [&'static str; 2],
}

impl Kind {
    fn all(after_header: [&'static str; 2]) -> [Self; 6] {
        let hello = hello(Some("a.example"), 0);
        let proxied = [HEADER, &hello].concat();
        let kind = |name, bytes: &[u8], cut: usize, pool| {
            let (first, rest) = bytes.split_at(cut);
            Self { name, parts: [first.to_vec(), rest.to_vec()], subnet: 2, pools: ["off", pool] }
        };
        [
            kind("nothing", b"", 0, "silent"),
            kind("one byte", b"x", 1, "not_tls"),
            Self { subnet: 1, pools: after_header, ..kind("half a PROXY header", &proxied, HEADER.len() / 2, "") },
            kind("half a hello", &hello, hello.len() / 2, "sni"),
            kind("a hello", &hello, hello.len(), "sni"),
            kind("a line", b"hello\n", 6, "not_tls"),
        ]
    }

    /// One connection up to its greeting, which names the pool.
    fn greeted(&self, stream: &TcpStream, reloads: &Reloads, begun: usize) -> Result<String, String> {
        let shown = |error: std::io::ErrorKind| format!("{}: {error}", self.name);
        if !self.parts[1].is_empty() {
            reloads.wait_past(begun);
            (&*stream).write_all(&self.parts[1]).map_err(|error| shown(error.kind()))?;
        }
        let greeting = hear(stream).map_err(shown)?;
        let pool = greeting.trim_end().to_owned();
        if self.pools.contains(&&*pool) { Ok(pool) } else { Err(format!("{}: served by {greeting:?}", self.name)) }
    }
}

/// How many reloads were answered so far.
#[derive(Default)]
struct Reloads {
    count: Mutex<usize>,
    changed: Condvar,
}

impl Reloads {
    fn now(&self) -> usize {
        *self.count.lock().expect("no panic")
    }

    fn add(&self, more: usize) {
        *self.count.lock().expect("no panic") += more;
        self.changed.notify_all();
    }

    fn wait_past(&self, past: usize) {
        let count = self.count.lock().expect("no panic");
        let waited = self.changed.wait_timeout_while(count, PATIENCE, |count| *count <= past).expect("no panic");
        assert!(!waited.1.timed_out(), "no reload after number {past}");
    }
}

#[test]
fn bytes_read_before_a_reload_are_judged_by_one_table_while_headers_come_and_go() {
    toggled(["", TRUSTED], ["off", "sni"]);
}

#[test]
fn bytes_read_before_a_reload_are_judged_by_one_table_while_headers_go_and_come() {
    toggled([TRUSTED, ""], ["off", "not_tls"]);
}

/// Toggles between `tls = "off"` and `tls = "passthrough"`, each with more keys of its listener.
fn toggled(keys: [&str; 2], after_header: [&'static str; 2]) {
    let backends = ["off", "silent", "not_tls", "sni", "rest"].map(|name| (name, greeting(name)));
    let pools: String = backends.iter().map(|(name, backend)| pool(name, "", &[backend.address])).collect();
    let listener = "[log]\nformat = \"json\"\nlevel = \"error\"\n[limits]\nhello_timeout = \"4s\"\n[[listener]]\nname = \"l\"\nbind = \"127.0.0.1:0\"\n";
    let off = format!("{listener}tls = \"off\"\npool = \"off\"\n{}{pools}", keys[0]);
    let passthrough = format!(
        "{listener}tls = \"passthrough\"\npool = \"rest\"\nsilent = \"silent\"\nnot_tls = \"not_tls\"\n{}\
         [[listener.route]]\nsni = \"a.example\"\npool = \"sni\"\n{pools}",
        keys[1]
    );
    let begun = Instant::now();
    let sessile = Sessile::start(&off);
    let (front, kinds, reloads) = (sessile.address("l"), Kind::all(after_header), Reloads::default());
    let served: Vec<_> = kinds.iter().map(|_| AtomicUsize::new(0)).collect();
    let mut seen: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut lost: BTreeMap<String, usize> = BTreeMap::new();
    thread::scope(|scope| {
        let mut clients = Vec::new();
        for (kind, served) in kinds.iter().zip(&served) {
            let client = || until_the_end(kind, front, &reloads, served);
            clients.extend((0..THREADS).map(|_| (kind.name, scope.spawn(client))));
        }
        for toggle in 0..TOGGLES {
            // Kinds that wait for nothing get through between two reloads; the others hang over some of them.
            let before: Vec<_> = served.iter().map(|served| served.load(Relaxed)).collect();
            let verdict = sessile.replace([&passthrough, &off][toggle % 2]);
            assert_eq!(verdict["accepted"], true, "{verdict}");
            reloads.add(1);
            eventually("clients to be served between two reloads", || {
                PROMPT.iter().all(|kind| served[*kind].load(Relaxed) > before[*kind]).then_some(())
            });
        }
        reloads.add(TOGGLES);
        for (name, client) in clients {
            for end in client.join().expect("a client") {
                match end {
                    Ok(pool) => drop(seen.entry(name).or_default().insert(pool)),
                    Err(error) => *lost.entry(error).or_default() += 1,
                }
            }
        }
    });
    println!("{:?}, served {served:?}, pools {seen:?}", begun.elapsed());
    assert!(lost.is_empty(), "lost: {lost:#?}");
    for kind in PROMPT.map(|kind| &kinds[kind]) {
        assert_eq!(seen[kind.name], kind.pools.map(str::to_owned).into(), "{}: pools seen", kind.name);
    }
    assert_eq!(seen.len(), kinds.len(), "{seen:?}");
}

/// Connects again and again until the reloads are over: the pool that served each connection, or what went wrong.
fn until_the_end(
    kind: &Kind,
    front: SocketAddr,
    reloads: &Reloads,
    served: &AtomicUsize,
) -> Vec<Result<String, String>> {
    let mut ends = Vec::new();
    while reloads.now() < TOGGLES {
        let begun = reloads.now();
        let connect = |n: usize| connect_from(([127, 0, kind.subnet, n as u8 + 1], 0).into(), front);
        let streams: Vec<_> = (0..AT_ONCE).map(connect).collect();
        // A balancer that closes at once makes the write fail; the greeting that is missing then says so.
        streams.iter().for_each(|mut stream| drop(stream.write_all(&kind.parts[0])));
        for stream in &streams {
            ends.push(kind.greeted(stream, reloads, begun));
            served.fetch_add(1, Relaxed);
        }
    }
    ends
}

/// A backend that says its name at once and then reads to the end.
fn greeting(name: &'static str) -> Backend {
    Backend::serving(move |mut stream| {
        stream.write_all(format!("{name}\n").as_bytes())?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        while stream.read(&mut [0; 4_096])? > 0 {}
        Ok(())
    })
}
