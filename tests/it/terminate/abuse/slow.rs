//! Slow and silent clients, and slow and silent backends.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::task::spawn_local;

use super::{Case, Honest, Played, Scene, ask, backend, case, ended, half_shaken, nothing_is_left};
use crate::support::authority::hello;
use crate::support::backend::{Backend, pool};
use crate::support::eventually;
use crate::support::load_support::{alone, at_rest};
use crate::terminate::Front;
use crate::terminate::client::config;
use crate::terminate::load::{Line, Wire, connect, connect_small, connect_tls, run};

/// Peers of each kind at once.
const MANY: usize = 20;
/// Most that an outcome may be late, on a busy machine.
const LATE: Duration = Duration::from_millis(900);
/// Time between two bytes of a peer that sends byte by byte.
const DRIP: Duration = Duration::from_millis(40);

const HELLO: Duration = Duration::from_millis(1_000);
const KEPT: Duration = Duration::from_millis(1_500);
const RESPONSE: Duration = Duration::from_millis(1_200);
const BODY: Duration = Duration::from_millis(1_100);
const IDLE: Duration = Duration::from_millis(1_300);

const LIMITS: &str = "[log]\nformat = \"json\"\nconnections = false\n[limits]\nhello_timeout = \"1s\"\n\
                      keepalive_timeout = \"1500ms\"\nresponse_timeout = \"1200ms\"\nbody_timeout = \"1100ms\"\n\
                      idle_timeout = \"1300ms\"\n";

/// Sends one byte at a time until the other side closes; returns what that has sent.
async fn drip(line: Line<impl Wire>, bytes: Vec<u8>) -> Vec<u8> {
    let (mut reader, mut writer) = tokio::io::split(line.stream);
    let dripping = async {
        for byte in bytes {
            if writer.write_all(&[byte]).await.is_err() || writer.flush().await.is_err() {
                break;
            }
            tokio::time::sleep(DRIP).await;
        }
        std::future::pending::<()>().await;
    };
    let mut said = Vec::new();
    tokio::select! {
        _ = reader.read_to_end(&mut said) => {}
        () = dripping => {}
    }
    said
}

/// Reads until an end of any kind; returns the bytes.
async fn rest(mut line: Line<impl Wire>) -> Vec<u8> {
    let mut said = Vec::new();
    let _ = line.stream.read_to_end(&mut said).await;
    said
}

fn head(path: &str, fields: &str) -> Vec<u8> {
    format!("POST {path} HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n\r\n").into_bytes()
}

/// A head that takes minutes, byte by byte.
fn endless() -> Vec<u8> {
    [&b"GET /fine HTTP/1.1\r\nHost: a.test\r\nX-Filler: "[..], &[b'x'; 4_000]].concat()
}

/// Clients without a complete first head: the timeout begins at accept.
fn at_the_door() -> Vec<Case> {
    vec![
        case("says-nothing", "silent", HELLO, async |scene: Scene| {
            let before = Instant::now();
            let line = connect(scene.front).await;
            Played::since(before).told(rest(line).await)
        })
        .with_tls(),
        case("drips-its-hello", "hello_timeout", HELLO, async |scene: Scene| {
            let before = Instant::now();
            let line = connect(scene.front).await;
            Played::since(before).told(drip(line, hello(&scene.tls, "a.test").1).await)
        })
        .with_tls(),
        case("stops-in-the-handshake", "handshake_timeout", HELLO, async |scene: Scene| {
            let before = Instant::now();
            let line = half_shaken(scene.front, &scene.tls).await.0;
            Played::since(before).told(rest(line).await)
        })
        .with_tls(),
        case("drips-in-the-handshake", "handshake_timeout", HELLO, async |scene: Scene| {
            let before = Instant::now();
            let (line, last) = half_shaken(scene.front, &scene.tls).await;
            assert!(DRIP * last.len() as u32 > HELLO);
            Played::since(before).told(drip(line, last).await)
        })
        .with_tls(),
        case("asks-nothing", "silent", HELLO, async |scene: Scene| {
            let before = Instant::now();
            let line = connect_tls(scene.front, &scene.tls).await;
            Played::since(before).told(rest(line).await)
        })
        .with_tls(),
        case("drips-its-head-over-tls", "request_timeout", HELLO, async |scene: Scene| {
            let before = Instant::now();
            let line = connect_tls(scene.front, &scene.tls).await;
            Played::since(before).told(drip(line, endless()).await)
        })
        .with_tls()
        .told(408),
        case("drips-its-head", "request_timeout", HELLO, async |scene: Scene| {
            let before = Instant::now();
            let line = connect(scene.front).await;
            Played::since(before).told(drip(line, endless()).await)
        })
        .told(408),
    ]
}

/// Clients that become slow behind their first head.
fn clients() -> Vec<Case> {
    vec![
        case("drips-its-second-head", "request_timeout", HELLO, async |scene: Scene| {
            let mut line = connect(scene.front).await;
            ask(&mut line).await;
            // The timeout begins with the first byte, however long the client was silent before.
            tokio::time::sleep(KEPT / 2).await;
            Played::since(Instant::now()).told(drip(line, endless()).await)
        })
        .told(408),
        case("keeps-its-connection", "keepalive_timeout", KEPT, async |scene: Scene| {
            let mut line = connect_tls(scene.front, &scene.tls).await;
            let before = Instant::now();
            ask(&mut line).await;
            Played::since(before).told(line.end().await.expect("a clean end"))
        })
        .with_tls(),
        case("stops-in-its-body", "body_timeout", BODY, async |scene: Scene| {
            let (mut line, before) = (connect(scene.front).await, Instant::now());
            line.send([head("/fine", "Content-Length: 50"), b"part".to_vec()].concat()).await.expect("a connection");
            Played::since(before).told(rest(line).await)
        })
        .told(408),
        case("stops-in-a-chunk", "body_timeout", BODY, async |scene: Scene| {
            let (mut line, before) = (connect_tls(scene.front, &scene.tls).await, Instant::now());
            let bytes = [head("/fine", "Transfer-Encoding: chunked"), b"64\r\npart".to_vec()].concat();
            line.send(bytes).await.expect("a connection");
            Played::since(before).told(rest(line).await)
        })
        .with_tls()
        .told(408),
        // Each byte restarts `body_timeout`, so a slow body passes.
        case("drips-its-body", "done", 50 * DRIP, async |scene: Scene| {
            let (mut line, before) = (connect(scene.front).await, Instant::now());
            line.send(head("/fine", "Connection: close\r\nContent-Length: 50")).await.expect("a connection");
            Played::since(before).told(drip(line, vec![b'x'; 50]).await)
        })
        .told(200),
        case("reads-nothing", "body_timeout", BODY, async |scene: Scene| {
            let (mut line, before) = (connect_small(scene.front), Instant::now());
            line.send("GET /endless HTTP/1.1\r\nHost: a.test\r\n\r\n").await.expect("a connection");
            let played = Played::since(before);
            // The client never reads to the end; only the reset ends it.
            line.stream.ready(Interest::ERROR).await.expect("a socket");
            played
        }),
    ]
}

/// Backends that are slow or silent.
fn behind() -> Vec<Case> {
    vec![
        case("is-not-answered", "response_timeout", RESPONSE, async |scene: Scene| {
            let (mut line, before) = (connect(scene.front).await, Instant::now());
            line.send("GET /never HTTP/1.1\r\nHost: a.test\r\n\r\n").await.expect("a connection");
            Played::since(before).told(rest(line).await)
        })
        .told(504),
        case("is-answered-in-part", "body_timeout", BODY, async |scene: Scene| {
            let (mut line, before) = (connect_tls(scene.front, &scene.tls).await, Instant::now());
            line.send("GET /part HTTP/1.1\r\nHost: a.test\r\n\r\n").await.expect("a connection");
            let head = line.head().await.expect("a head");
            let played = Played::since(before);
            line.body(&head).await.expect_err("what was cut must not look whole");
            played
        })
        .with_tls(),
        case("is-not-read", "body_timeout", BODY, async |scene: Scene| {
            let (mut line, before) = (connect_small(scene.front), Instant::now());
            line.send(head("/fine", "Content-Length: 1000000000")).await.expect("a connection");
            let (mut reader, mut writer) = line.stream.split();
            let (mut played, mut said, piece) = (Played::since(before), vec![0; 4096], vec![b'x'; 1 << 16]);
            let told = loop {
                tokio::select! {
                    biased;
                    told = reader.read(&mut said) => break told.expect("an answer"),
                    sent = writer.write(&piece) => {
                        sent.expect("a connection");
                        played = Played::since(before);
                    }
                }
            };
            said.truncate(told);
            played.told(said)
        })
        .at("deaf")
        .told(408),
        case("is-relayed-nothing", "idle_timeout", IDLE, async |scene: Scene| {
            let (mut line, before) = (connect_tls(scene.front, &scene.tls).await, Instant::now());
            line.send("something").await.expect("a connection");
            Played::since(before).told(rest(line).await)
        })
        .at("relay")
        .with_tls(),
    ]
}

#[test]
fn the_slow_and_the_silent_end_at_their_limits_and_others_do_not_notice() {
    let _alone = alone();
    let (fine, mute) = (
        backend(),
        Backend::serving(|_stream| {
            loop {
                std::thread::park();
            }
        }),
    );
    let cases: Vec<_> = [at_the_door(), clients(), behind()].into_iter().flatten().collect();
    let mut tables: String = cases.iter().map(Case::listener).collect();
    tables += "[[listener]]\nname = \"plain\"\nbind = \"127.0.0.1:0\"\npool = \"p\"\n";
    tables += &(pool("p", "http = true\n", &fine.addresses)
        + &pool("deaf", "http = true\n", &[mute.address])
        + &pool("relay", "", &[mute.address]));
    let front = Front::with(LIMITS, "pool = \"p\"\n", &tables);
    let before = at_rest(|| front.sessile.descriptors());
    let (tls, (open, plain)) = (config(&front.authority), (front.address(), front.sessile.address("plain")));
    let scenes = cases.iter().map(|case| Scene { front: front.sessile.address(case.name), tls: tls.clone() });
    let scenes: Vec<_> = scenes.collect();
    let mut wrong = String::new();
    run(async {
        let honest = [
            Honest::start(open, Some(&tls), false),
            Honest::start(open, Some(&tls), true),
            Honest::start(plain, None, false),
            Honest::start(plain, None, true),
        ];
        let mut playing = Vec::new();
        for (case, scene) in cases.iter().zip(&scenes) {
            for _ in 0..MANY {
                let play = (case.play)(scene.clone());
                playing.push((case, spawn_local(async move { (play.await, Instant::now()) })));
            }
        }
        for (case, playing) in playing {
            let (played, ended) = playing.await.expect("a nuisance");
            let (longest, shortest) = (ended - played.before, ended - played.after);
            if longest < case.limit || shortest > case.limit + LATE {
                wrong += &format!("{}: {shortest:?} to {longest:?} for {:?}\n", case.name, case.limit);
            }
            let said = String::from_utf8_lossy(&played.told);
            let status = said.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
            if status != case.status.map(|status| status.to_string()).as_deref() {
                wrong += &format!("{}: was told {said:?}\n", case.name);
            }
        }
        for honest in honest {
            let (served, longest) = honest.stop().await;
            println!("an honest client was served {served} times, in {longest:?} at most");
            assert!(served > 20 && longest < 2 * LATE, "{served} times, in {longest:?} at most");
        }
    });
    for case in &cases {
        eventually(&format!("all of {} to end", case.name), || {
            (ended(&front.sessile, case.name, case.ended) == MANY as u64).then_some(())
        });
    }
    assert!(wrong.is_empty(), "{wrong}");
    nothing_is_left(&front.sessile, before);
}
