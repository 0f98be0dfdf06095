//! A WebSocket carries a checksummed stream both ways, and `wrk` asks nginx, through a hundred reloads of the table.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

use crate::support::http::exchange;
use crate::support::program::{find, free_address, nginx};
use crate::support::wrk::Wrk;
use crate::support::{Sessile, eventually, has};

const RELOADS: u64 = 100;

/// What goes on between two reloads at least: bytes of the stream in each direction, and new connections of `wrk`.
const BYTES_BETWEEN: u64 = 100_000;
const CONNECTIONS_BETWEEN: u64 = 20;

/// The longest message of the stream.
const MESSAGE_MAX: u64 = 40_000;

#[test]
fn a_websocket_and_every_request_survive_a_hundred_reloads() {
    let test = "a_websocket_and_every_request_survive_a_hundred_reloads";
    let Some(program) = find(test, "nginx") else { return };
    if !has(test, "wrk") {
        return;
    }
    let sites = [free_address(), free_address(), free_address(), free_address()];
    let _nginx = nginx(&program, sites[0], &servers(&sites));
    let stream = Arc::new(Progress::default());
    let (socket, server) = serve(&stream);

    let sessile = Sessile::start(&table(0, &sites, socket));
    let before = sessile.status();
    let client = connect(sessile.address("stream"), &stream);
    let kept_alive = Wrk::start(&format!("http://{}/", sessile.address("kept")), &[]);
    let closing = format!("http://{}/", sessile.address("closing"));
    let closing = Wrk::start(&closing, &["--header", "Connection: close"]);
    let connection = stream_connection(&sessile);

    for step in 1..=RELOADS {
        go_on(&stream, &sessile);
        let verdict = sessile.reload(&table(step, &sites, socket));
        assert_eq!(verdict["accepted"], true, "{verdict}");
        assert_ne!(verdict["changes"], Value::Array(vec![]), "step {step} changed nothing");
        if let Some(address) = address(&sessile, "extra") {
            let (status, _) = exchange(TcpStream::connect(address).unwrap(), "GET", "/").expect("an answer");
            assert_eq!(status, 200, "step {step}");
        }
    }
    go_on(&stream, &sessile);

    let after = sessile.status();
    assert_eq!(after["generation"].as_u64(), before["generation"].as_u64().map(|first| first + RELOADS));
    assert!(after["generations_alive"].as_u64() <= Some(2), "{after}");
    assert_eq!(stream_connection(&sessile), connection, "the stream is the connection it was");
    let mut done = 0;
    for listener in after["listeners"].as_array().unwrap() {
        let endings = listener["ended"].as_object().unwrap();
        assert!(endings.keys().all(|ended| ended == "done"), "{listener}");
        done += endings.get("done").and_then(Value::as_u64).unwrap_or(0);
    }
    assert!(done >= RELOADS, "only {done} connections have ended: {after}");

    for (wrk, at_least) in [(kept_alive, 1_000), (closing, RELOADS * CONNECTIONS_BETWEEN)] {
        let requests = wrk.finish();
        assert!(requests >= at_least, "{requests} requests");
    }
    let mut reached: Vec<_> =
        sessile.lines_of_all().iter().map(|line| line["backend"].as_str().unwrap().to_owned()).collect();
    reached.sort();
    reached.dedup();
    assert_eq!(reached, ["n0", "n1", "n2", "n3"], "what came and went has served");
    stream.enough.store(true, Relaxed);
    for side in [client, server] {
        side.join().unwrap();
    }
    sessile.ended("stream", "done");
}

/// The table after so many reloads. In turn a weight changes; a backend comes or goes; a listener comes or goes; and
/// backends come or go, the one of the stream among them; its connection stays open all the same.
fn table(step: u64, sites: &[SocketAddr; 4], socket: SocketAddr) -> String {
    let weight = 1 + step.div_ceil(4) % 5;
    let [third, extra, other] = [2, 1, 0].map(|ahead| (step + ahead) / 4 % 2 == 1);
    let listener = |name: &str, pool: &str| {
        format!("[[listener]]\nname = \"{name}\"\nbind = \"127.0.0.1:0\"\npool = \"{pool}\"\n")
    };
    let pool = |name: &str, options: &str, backends: &[(&str, SocketAddr, u64)]| {
        let mut text = format!("[[pool]]\nname = \"{name}\"\n{options}\n");
        for (name, address, weight) in backends {
            text += &format!("[[pool.backend]]\nname = \"{name}\"\naddress = \"{address}\"\nweight = {weight}\n");
        }
        text
    };
    let mut turns = vec![("n0", sites[0], weight), ("n1", sites[1], 2)];
    if third {
        turns.push(("n2", sites[2], 3));
    }
    let keyed = [("n3", sites[3], weight), if other { ("n0", sites[0], 2) } else { ("n1", sites[1], 2) }];
    let streams = if other { [("elsewhere", sites[0], 1)] } else { [("socket", socket, 1)] };
    let mut text = listener("kept", "turns") + &listener("closing", "keyed") + &listener("stream", "streams");
    if extra {
        text += &listener("extra", "turns");
    }
    text += &pool("turns", "balance = \"round_robin\"\ncheck = { interval = \"50ms\" }", &turns);
    text += &pool("keyed", "check = \"off\"", &keyed);
    text + &pool("streams", "check = \"off\"", &streams)
}

/// Sites close their connections now and then, so that clients with kept connections connect anew, too.
fn servers(sites: &[SocketAddr]) -> String {
    let site = |address| {
        format!("server {{ listen {address}; keepalive_requests 20; location / {{ return 200 'here'; }} }}\n")
    };
    sites.iter().map(site).collect()
}

/// Waits until the stream and `wrk` have gone on for a while.
fn go_on(stream: &Progress, sessile: &Sessile) {
    let accepted = || {
        let status = sessile.status();
        let listeners = status["listeners"].as_array().expect("listeners").iter();
        let ours = listeners.filter(|listener| listener["name"] == "closing" || listener["name"] == "kept");
        ours.map(|listener| listener["accepted"].as_u64().expect("a number")).collect::<Vec<_>>()
    };
    let bytes = || [&stream.up, &stream.down].map(|count| count.load(Relaxed));
    let (bytes_before, accepted_before) = (bytes(), accepted());
    eventually("the stream to go on", || {
        bytes().iter().zip(bytes_before).all(|(now, before)| *now >= before + BYTES_BETWEEN).then_some(())
    });
    eventually("wrk to go on", || {
        accepted().iter().zip(&accepted_before).all(|(now, before)| *now >= before + CONNECTIONS_BETWEEN).then_some(())
    });
}

/// Number and backend of the connection that carries the stream.
fn stream_connection(sessile: &Sessile) -> (Value, Value) {
    eventually("the stream's connection", || {
        let page = sessile.json("/connections");
        let connections = page["connections"].as_array().expect("connections");
        let found = connections.iter().find(|connection| connection["listener"] == "stream")?;
        (found["stage"] == "relay").then(|| (found["id"].clone(), found["backend"].clone()))
    })
}

fn address(sessile: &Sessile, listener: &str) -> Option<SocketAddr> {
    let status = sessile.status();
    let known = status["listeners"].as_array()?.iter().find(|known| known["name"] == listener)?;
    known["bind"][0].as_str()?.parse().ok()
}

/// The stream as both its ends see it.
#[derive(Default)]
struct Progress {
    enough: AtomicBool,
    /// Bytes that have arrived.
    up: AtomicU64,
    down: AtomicU64,
}

/// A WebSocket server for one client; where it is, and its end.
fn serve(stream: &Arc<Progress>) -> (SocketAddr, JoinHandle<()>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let (address, stream) = (listener.local_addr().expect("an address"), Arc::clone(stream));
    let server = thread::spawn(move || {
        let (socket, _) = listener.accept().expect("a client");
        drive(async {
            let mut socket = accept_async(tokio_stream(socket)).await.expect("a handshake");
            converse(&mut socket, 1, &stream.enough, &stream.up).await;
            // The client closes.
            while let Some(message) = socket.next().await {
                assert!(message.expect("a clean end").is_close());
            }
        });
    });
    (address, server)
}

fn connect(address: SocketAddr, stream: &Arc<Progress>) -> JoinHandle<()> {
    let stream = Arc::clone(stream);
    thread::spawn(move || {
        let socket = TcpStream::connect(address).expect("the balancer accepts");
        drive(async {
            let (mut socket, _) = client_async("ws://stream.test/", tokio_stream(socket)).await.expect("a handshake");
            converse(&mut socket, 2, &stream.enough, &stream.down).await;
            socket.close(None).await.expect("a clean end");
            while let Some(message) = socket.next().await {
                assert!(message.expect("a clean end").is_close());
            }
        });
    })
}

/// Sends random messages until it is enough and then their count and checksum, while receiving the same.
async fn converse<S>(socket: &mut WebSocketStream<S>, seed: u64, enough: &AtomicBool, arrived: &AtomicU64)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sink, mut source) = socket.split();
    let sending = async {
        let (mut count, mut checksum, mut random) = (0u64, 0, seed);
        while !enough.load(Relaxed) {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let length = (random >> 33) % MESSAGE_MAX;
            let message: Vec<u8> = (0..length).map(|n| (random.rotate_left(n as u32) ^ n) as u8).collect();
            checksum = crc32c::crc32c_append(checksum, &message);
            count += 1;
            sink.send(Message::binary(message)).await.expect("the stream goes on");
            // Leaves the cores to the others.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        sink.send(Message::text(format!("{count} {checksum}"))).await.expect("the stream goes on");
    };
    let receiving = async {
        let (mut count, mut checksum) = (0u64, 0);
        loop {
            match source.next().await.expect("the stream goes on").expect("the stream goes on") {
                Message::Binary(message) => {
                    checksum = crc32c::crc32c_append(checksum, &message);
                    count += 1;
                    arrived.fetch_add(message.len() as u64, Relaxed);
                }
                Message::Text(sum) => break assert_eq!(sum.as_str(), format!("{count} {checksum}")),
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::join!(sending, receiving);
}

fn tokio_stream(stream: TcpStream) -> tokio::net::TcpStream {
    stream.set_nonblocking(true).expect("a socket");
    tokio::net::TcpStream::from_std(stream).expect("a runtime")
}

fn drive(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work);
}
