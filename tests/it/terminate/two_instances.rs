//! Two instances that share only cookie keys and ticket keys: sessions change between them at random.
//!
//! The instances place in turn, each for itself, and list the backends in another order, so that only its cookie can
//! keep a session at its backend. Invariant: each response names its backend, and is compared with the first one of its
//! session.

use std::collections::HashSet;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Instant;

use data_encoding::BASE64URL_NOPAD;
use rustls::HandshakeKind;
use rustls::client::Resumption;
use tempfile::TempDir;
use tokio::task::spawn_local;

use super::client::{Talk, config, config_of, connect};
use super::load::{self, Backends, Line, run};
use crate::support::authority::Authority;
use crate::support::backend::{listener, pool};
use crate::support::load_support::alone;
use crate::support::rng::Rng;
use crate::support::{Sessile, eventually};

const SESSIONS: usize = 100_000;
const CARRIERS: usize = 32;
/// Sessions that one task has at a time, and requests that it sends together.
const LIVING: usize = 64;
const TOGETHER: usize = 8;
const BACKENDS: usize = 5;
/// Prefix of the backends' names, before their number.
const NAME: &str = "warehouse-";

const OLD: &str = "0123456789abcdef5a69788796a5b4c3fedcba98765432100f1e2d3c4b5a6978";
const NEW: &str = "8796a5b4c3d2e1f00123456789abcdef5a69788796a5b4c3fedcba9876543210";

/// Two instances, and the files that both read.
struct Fleet {
    instances: [Sessile; 2],
    texts: [String; 2],
    dir: TempDir,
    authority: Authority,
    backends: Backends,
}

impl Fleet {
    fn start() -> Self {
        let backends = Backends::start(BACKENDS, None, async |backend, line, _| {
            line.send(format!("HTTP/1.1 200 OK\r\nX-Backend: {backend}\r\nContent-Length: 0\r\n\r\n")).await?;
            Ok(true)
        });
        let (authority, dir) = (Authority::new(), tempfile::tempdir().expect("a scratch directory"));
        authority.mint("a.test").write(dir.path(), "a");
        write_keys(&dir, &[OLD]);
        let texts = [false, true].map(|reversed| text(&dir, &backends.addresses, reversed));
        let instances = texts.each_ref().map(|text| Sessile::start(text));
        Self { instances, texts, dir, authority, backends }
    }

    fn addresses(&self, listener: &str) -> [SocketAddr; 2] {
        self.instances.each_ref().map(|instance| instance.address(listener))
    }

    /// Gives these keys to one instance after the other; in between they differ.
    fn rotate(&self, keys: &[&str], mut between: impl FnMut()) {
        write_keys(&self.dir, keys);
        for (instance, text) in self.instances.iter().zip(&self.texts) {
            let verdict = instance.reload(text);
            assert_eq!(verdict["accepted"], true, "{verdict}");
            between();
        }
    }
}

/// Secrets that seal cookies and tickets; each kind of file derives its own keys.
fn write_keys(dir: &TempDir, keys: &[&str]) {
    for file in ["cookie.keys", "ticket.keys"] {
        std::fs::write(dir.path().join(file), keys.join("\n") + "\n").expect("the file is written");
    }
}

fn text(dir: &TempDir, backends: &[SocketAddr], reversed: bool) -> String {
    let options =
        "http = true\nbalance = \"round_robin\"\ncookie = { mode = \"insert\", keys = \"$FILES/cookie.keys\" }\n";
    let mut pool = pool("p", options, backends).replace("name = \"b", &format!("name = \"{NAME}"));
    if reversed {
        let (head, rest) = pool.split_at(pool.find("[[pool.backend]]").expect("a backend"));
        let (list, tail) = rest.split_at(rest.find("[pool.check]").expect("a check"));
        let mut list: Vec<_> = list.split("[[pool.backend]]").skip(1).collect();
        list.reverse();
        pool = head.to_owned() + &list.iter().map(|one| format!("[[pool.backend]]{one}")).collect::<String>() + tail;
    }
    let top = "[log]\nformat = \"json\"\nconnections = false\n[tls]\nticket_keys = \"$FILES/ticket.keys\"\n";
    let plain = listener("p", "").replace("\"l\"", "\"plain\"");
    super::config(dir, top, "pool = \"p\"\n", &(plain + &pool))
        .replace("$FILES", dir.path().to_str().expect("a path of words"))
}

/// Number of key changes, of tasks that have seen the last one, and of sessions.
#[derive(Default)]
struct Progress {
    rotation: AtomicUsize,
    followed: AtomicUsize,
    begun: AtomicUsize,
    resealed: AtomicUsize,
    requests: AtomicUsize,
}

/// One session, with its cookie and its backend.
#[derive(Default)]
struct Session {
    cookie: String,
    home: String,
    hops: usize,
}

/// Sessions that share one connection to each instance.
struct Carrier {
    lines: [Line<tokio::net::TcpStream>; 2],
    living: Vec<Session>,
    rng: Rng,
    progress: Arc<Progress>,
}

impl Carrier {
    async fn run(mut self) {
        let mut followed = 0;
        while self.progress.begun.load(SeqCst) < SESSIONS {
            let rotation = self.progress.rotation.load(SeqCst);
            if rotation > followed {
                followed = rotation;
                // An old key may be removed only after each living session has sent a request.
                for chunk in 0..LIVING / TOGETHER {
                    self.ask(chunk * TOGETHER, false).await;
                }
                self.progress.followed.fetch_add(1, SeqCst);
            }
            let first = self.rng.below(LIVING / TOGETHER) * TOGETHER;
            self.ask(first, true).await;
        }
        // Counts the task as following, so that the test does not wait for one that has ended.
        self.ask(0, false).await;
        self.progress.followed.fetch_add(100, SeqCst);
    }

    /// Sends one request of each of some sessions together; sessions with enough requests make room for new ones.
    async fn ask(&mut self, first: usize, renew: bool) {
        let sessions = &mut self.living[first..first + TOGETHER];
        let mut bytes = String::new();
        for session in &mut *sessions {
            if renew && session.hops > 0 && self.rng.below(2) == 0 {
                *session = Session::default();
            }
            let cookie = &session.cookie;
            bytes += &match cookie.is_empty() {
                true => "GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
                false => format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: a=b; {cookie}; c=d\r\n\r\n"),
            };
        }
        let line = &mut self.lines[self.rng.below(2)];
        line.send(bytes).await.expect("a connection that is kept");
        for session in sessions {
            let head = line.head().await.expect("an answer");
            assert_eq!(head.status(), 200);
            self.progress.requests.fetch_add(1, SeqCst);
            let backend = head.field("x-backend").expect("a backend");
            match head.set_cookie() {
                Some(cookie) if session.cookie.is_empty() => {
                    self.progress.begun.fetch_add(1, SeqCst);
                    *session = Session { cookie, home: backend.to_owned(), hops: 0 };
                }
                Some(cookie) => {
                    self.progress.resealed.fetch_add(1, SeqCst);
                    session.cookie = cookie;
                    session.hops += 1;
                }
                None => session.hops += 1,
            }
            assert_eq!(session.home, backend, "a session broke after {} hops", session.hops);
        }
    }
}

#[test]
fn a_hundred_thousand_sessions_hop_between_instances_while_keys_change_and_none_breaks() {
    let _alone = alone();
    let (fleet, progress, began) = (Fleet::start(), Arc::new(Progress::default()), Instant::now());
    let (addresses, known) = (fleet.addresses("plain"), Arc::clone(&progress));
    let load = thread::spawn(move || {
        run(async {
            let mut carriers = Vec::new();
            for number in 0..CARRIERS {
                let lines = [load::connect(addresses[0]).await, load::connect(addresses[1]).await];
                let living = (0..LIVING).map(|_| Session::default()).collect();
                let carrier = Carrier { lines, living, rng: Rng(number as u64), progress: Arc::clone(&known) };
                carriers.push(spawn_local(carrier.run()));
            }
            for carrier in carriers {
                carrier.await.expect("sessions that hold");
            }
        });
    });
    let begun = |share: usize| {
        while progress.begun.load(SeqCst) < SESSIONS * share / 10 && !load.is_finished() {
            thread::yield_now();
            thread::sleep(std::time::Duration::from_millis(1));
        }
    };
    begun(2);
    fleet.rotate(&[OLD, NEW], || begun(3));
    begun(4);
    fleet.rotate(&[NEW, OLD], || begun(5));
    progress.rotation.store(1, SeqCst);
    eventually("every living session to have come", || {
        (progress.followed.load(SeqCst) >= CARRIERS || load.is_finished()).then_some(())
    });
    let at_drop = progress.begun.load(SeqCst);
    fleet.rotate(&[NEW], || begun(7));
    load.join().expect("sessions that hold");
    let (requests, resealed) = (progress.requests.load(SeqCst), progress.resealed.load(SeqCst));
    println!("{requests} requests in {:.1?}, {resealed} sealed anew, old key gone at {at_drop}", began.elapsed());
    assert!(at_drop < SESSIONS * 9 / 10, "keys changed too late to be noticed: {at_drop}");
    assert!(resealed >= CARRIERS, "{resealed}");
    // No client had to be placed anew because its cookie was sealed with the removed key.
    const FORGED: &str = "sessile_cookies_total{pool=\"p\",verdict=\"forged\"}";
    assert!(fleet.instances.iter().all(|instance| instance.metrics().contains(FORGED)));
    let forged = fleet.instances.iter().map(|instance| instance.metric(FORGED));
    assert_eq!(forged.sum::<f64>(), 0.0);
}

/// Tickets of one instance resume on the other too, also while the keys change.
#[test]
fn tls_sessions_resume_on_either_instance_while_keys_change() {
    const CHAINS: usize = 4;
    const HANDSHAKES: usize = 600;
    let _alone = alone();
    let fleet = Fleet::start();
    let (addresses, rounds) = (fleet.addresses("l"), Arc::new([const { AtomicUsize::new(0) }; CHAINS]));
    let chains: Vec<_> = (0..CHAINS)
        .map(|number| {
            // One client offers only TLS 1.2.
            let mut config = (*config_of(&fleet.authority, number == 0)).clone();
            config.resumption = Resumption::in_memory_sessions(4);
            let (config, rounds) = (Arc::new(config), Arc::clone(&rounds));
            thread::spawn(move || {
                let (mut rng, mut cookie, mut home) = (Rng(number as u64), String::new(), String::new());
                for count in 0..HANDSHAKES {
                    let mut talk = Talk::new(connect(addresses[rng.below(2)], &config, "a.test"));
                    let answer = talk.get("/", &cookie);
                    let kind = talk.stream.conn.handshake_kind();
                    let resumed = kind == Some(HandshakeKind::Resumed);
                    assert_eq!(resumed, count > 0, "chain {number}, handshake {count}: {kind:?}");
                    if let Some(line) = answer.field("set-cookie") {
                        cookie = format!("Cookie: {}\r\n", line.split(';').next().unwrap());
                    }
                    let backend = answer.field("x-backend").expect("a backend");
                    if count == 0 {
                        home = backend.to_owned();
                    }
                    assert_eq!(home, backend);
                    rounds[number].store(count + 1, SeqCst);
                    talk.stream.conn.send_close_notify();
                    let _ = talk.stream.flush();
                }
            })
        })
        .collect();
    let everybody = |more: usize| {
        let before: Vec<_> = rounds.iter().map(|round| round.load(SeqCst)).collect();
        eventually("every chain to go on", || {
            let on = |(round, before): (&AtomicUsize, &usize)| round.load(SeqCst) >= (before + more).min(HANDSHAKES);
            (chains.iter().any(thread::JoinHandle::is_finished) || rounds.iter().zip(&before).all(on)).then_some(())
        });
    };
    let began = Instant::now();
    everybody(20);
    for keys in [&[OLD, NEW][..], &[NEW, OLD], &[NEW]] {
        fleet.rotate(keys, || everybody(20));
    }
    for chain in chains {
        chain.join().expect("a chain that holds");
    }
    println!("{} handshakes in {:.1?}", CHAINS * HANDSHAKES, began.elapsed());
}

/// Cookies reveal nothing of the backends without the key.
#[test]
fn a_cookie_names_no_backend() {
    let fleet = Fleet::start();
    let mut talk = Talk::new(connect(fleet.addresses("l")[0], &config(&fleet.authority), "a.test"));
    let (mut seen, mut homes) = (HashSet::new(), HashSet::new());
    let names = (0..BACKENDS).map(|n| format!("{NAME}{n}"));
    let addresses = fleet.backends.addresses.iter().flat_map(|address| {
        let octets = [&[127, 0, 0, 1][..], &address.port().to_be_bytes()].concat();
        [address.to_string().into_bytes(), address.port().to_string().into_bytes(), octets]
    });
    let ids = (0..BACKENDS).flat_map(|n| {
        let id = xxhash_rust::xxh3::xxh3_64(format!("{NAME}{n}").as_bytes());
        [id.to_be_bytes().to_vec(), id.to_le_bytes().to_vec()]
    });
    let words = names.flat_map(|name| [name.clone().into_bytes(), name.as_bytes()[..5].to_vec()]);
    let told: Vec<Vec<u8>> = words.chain(addresses).chain(ids).collect();
    for _ in 0..500 {
        let answer = talk.get("/", "");
        homes.insert(answer.field("x-backend").expect("a backend").to_owned());
        let cookie = answer.field("set-cookie").expect("a cookie").split(';').next().unwrap().to_owned();
        let value = cookie.strip_prefix("SESSILE-p=").expect("the name");
        let decoded = BASE64URL_NOPAD.decode(value.as_bytes()).expect("base64");
        for mut form in [value.as_bytes().to_vec(), decoded.clone()] {
            for _ in 0..2 {
                let found = told.iter().find(|told| form.windows(told.len()).any(|part| part == **told));
                assert_eq!(found, None, "{value}");
                form.reverse();
            }
        }
        // Version and key number are the same in all cookies; no eight bytes behind them ever repeat.
        for part in decoded[5..].windows(8) {
            assert!(seen.insert(part.to_vec()), "{value}");
        }
    }
    assert_eq!(homes.len(), BACKENDS);
}
