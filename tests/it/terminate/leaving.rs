//! Terminated connections of a process that stops: WebSockets, kept connections, messages under way, plain relays.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use rustix::process::Signal;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{accept_async, client_async};

use super::Front;
use super::backend::Recorder;
use super::client::{Talk, Tls, config, connect};
use super::programs::{base, curl};
use crate::support::backend::Backend;
use crate::support::{Sessile, eventually, has, http};

const HTTP: &str = "http = true\n";
const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
const RESTART: [u8; 4] = [0x88, 0x02, 0x03, 0xF4];
const ANSWER: [u8; 8] = [0x88, 0x82, 1, 2, 3, 4, 0x03 ^ 1, 0xF4 ^ 2];

fn stop(sessile: &Sessile) {
    sessile.signal(Signal::TERM);
    eventually("the stop to begin", || {
        http::unix_get(&sessile.admin(), "/readyz").is_none_or(|(status, _)| status == 503).then_some(())
    });
}

/// Waits until new connections are refused: the drain has begun some time before.
fn closed(front: &Front) {
    let address = front.address();
    eventually("the listener to close", || TcpStream::connect(address).err());
}

fn drive(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
}

/// A WebSocket server that sends everything back, and the close code of each client.
fn echo() -> (Backend, Receiver<Option<u16>>) {
    let (codes, closed) = channel();
    let backend = Backend::serving(move |stream| {
        let codes = codes.clone();
        stream.set_nonblocking(true)?;
        drive(async {
            let mut socket = accept_async(tokio::net::TcpStream::from_std(stream).unwrap()).await.unwrap();
            let mut code = None;
            while let Some(Ok(message)) = socket.next().await {
                if let Message::Close(frame) = &message {
                    code = frame.as_ref().map(|frame| frame.code.into());
                } else if message.is_text() {
                    socket.send(message).await.unwrap();
                }
            }
            let _ = codes.send(code);
        });
        Ok(())
    });
    (backend, closed)
}

#[test]
fn an_idle_websocket_is_closed_with_1012_at_the_deadline_and_both_ends_learn_it() {
    let (backend, codes) = echo();
    let mut front = Front::start("stop_deadline = \"1s\"\n", HTTP, &[backend.address]);
    let connector = TlsConnector::from(config(&front.authority));
    drive(async {
        let stream = tokio::net::TcpStream::connect(front.address()).await.unwrap();
        let stream = connector.connect("a.test".try_into().unwrap(), stream).await.unwrap();
        let (mut socket, _) = client_async("ws://a.test/", stream).await.unwrap();
        socket.send(Message::text("hello")).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("hello"));
        let told = Instant::now();
        stop(&front.sessile);
        // The deadline ends it, and nothing before that.
        let Message::Close(Some(frame)) = socket.next().await.unwrap().unwrap() else { panic!("no Close frame") };
        assert!(told.elapsed() >= Duration::from_secs(1));
        assert_eq!(frame.code, CloseCode::Restart);
        // A clean end: the library has answered.
        while let Some(message) = socket.next().await {
            message.unwrap();
        }
    });
    assert_eq!(codes.recv().unwrap(), Some(1012), "the client's answer reaches the backend");
    assert!(front.sessile.wait().success());
    let line = front.sessile.line("stopped", |line| line["ended"] == "stopped");
    assert_eq!(line["bytes_up"].as_u64().map(|bytes| bytes > 0), Some(true), "{line}");
}

#[test]
fn a_websocket_that_a_drain_or_a_limit_ends_learns_it_too() {
    for (options, top, command, outcome) in [
        ("drain_deadline = \"0s\"\ndrain_over = \"1s\"\n", "", Some("drain"), "drained"),
        ("", "[limits]\nlifetime = \"1s\"\n", None, "lifetime"),
    ] {
        let (backend, codes) = echo();
        let front = Front::start(top, &format!("{HTTP}{options}"), &[backend.address]);
        let mut talk = Talk::with(&front);
        talk.send(UPGRADE);
        assert_eq!(talk.response().unwrap().status, 101);
        if let Some(command) = command {
            let answer = http::unix_post(&front.sessile.admin(), &format!("/backends/p/b0/{command}"));
            assert_eq!(answer.as_ref().map(|answer| answer.0), Some(200), "{answer:?}");
        }
        let mut frame = [0; 4];
        talk.stream.read_exact(&mut frame).unwrap();
        assert_eq!(frame, RESTART, "{outcome}");
        talk.send(ANSWER);
        assert_eq!(talk.end(), (vec![], true), "{outcome}");
        assert_eq!(codes.recv().unwrap(), Some(1012));
        front.sessile.ended("l", outcome);
    }
}

/// A WebSocket server that sends what it is given.
fn told() -> (Backend, Sender<Vec<u8>>) {
    let (say, said) = channel::<Vec<u8>>();
    let said = std::sync::Mutex::new(said);
    let backend = Backend::serving(move |mut stream| {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        while reader.read_line(&mut line)? > 2 {
            line.clear();
        }
        stream.write_all(b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")?;
        for bytes in said.lock().unwrap().iter() {
            stream.write_all(&bytes)?;
        }
        reader.read_to_end(&mut Vec::new()).map(drop)
    });
    (backend, say)
}

#[test]
fn inside_of_a_long_message_the_close_frame_waits_for_the_end_of_a_frame() {
    const HALF: usize = 1 << 20;
    for completed in [true, false] {
        let (backend, say) = told();
        let mut front = Front::start("stop_deadline = \"0s\"\n", HTTP, &[backend.address]);
        let mut talk = Talk::with(&front);
        talk.send(UPGRADE);
        assert_eq!(talk.response().unwrap().status, 101);
        // The first fragment of a message, of two halves.
        let mut first = vec![0x02, 127];
        first.extend((2 * HALF as u64).to_be_bytes());
        first.extend(vec![0x88; HALF]);
        let mut got = vec![0; first.len()];
        say.send(first.clone()).unwrap();
        talk.stream.read_exact(&mut got).unwrap();
        assert!(got == first);
        stop(&front.sessile);
        eventually("the deadline", || front.sessile.said().contains("are still open and are closed").then_some(()));
        thread::sleep(Duration::from_millis(100));
        if completed {
            // Cut somewhere inside of the next fragment.
            say.send([&first[10..], &[0x80, 126, 1, 0, b'x']].concat()).unwrap();
            let mut rest = vec![0; HALF + 4];
            talk.stream.read_exact(&mut rest).unwrap();
            assert!(rest[..HALF] == first[10..]);
            assert_eq!(rest[HALF..], RESTART, "behind the frame, and inside of the message");
            talk.send(ANSWER);
            assert_eq!(talk.end(), (vec![], true));
        } else {
            assert_eq!(talk.end(), (vec![], false), "a stream that was cut must not look complete");
        }
        drop(say);
        assert!(front.sessile.wait().success());
        front.sessile.line("stopped", |line| line["ended"] == "stopped");
    }
}

/// A connection that has carried a request, and waits for the next one.
fn kept(front: &Front) -> Talk<Tls> {
    let mut talk = Talk::with(front);
    assert_eq!(talk.get("/first", "").status, 200);
    talk
}

#[test]
fn a_kept_connection_takes_one_more_request_and_then_ends_cleanly() {
    let backend = Recorder::named("b");
    let mut front = Front::start("", HTTP, &[backend.address()]);
    let (mut get, mut post, mut old, mut idle) = (kept(&front), kept(&front), Talk::with(&front), kept(&front));
    old.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(old.response().unwrap().field("connection"), Some("keep-alive"));
    let told = Instant::now();
    stop(&front.sessile);
    // The drain begins with the end of the listeners, which stay open for half a second.
    thread::sleep(Duration::from_millis(800));
    get.send("GET /late HTTP/1.1\r\nHost: a.test\r\n\r\n");
    post.send("POST /late HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi");
    old.send("GET /late HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    for (talk, what) in [(&mut get, "GET"), (&mut post, "POST"), (&mut old, "HTTP/1.0")] {
        let response = talk.response().unwrap_or_else(|| panic!("{what}: lost"));
        assert_eq!((response.status, response.field("connection")), (200, Some("close")), "{what}");
        assert_eq!(talk.end(), (vec![], true), "{what}");
    }
    assert!(told.elapsed() < Duration::from_millis(1_500), "they end behind their responses");
    assert_eq!(idle.end(), (vec![], true), "with close_notify");
    assert!(told.elapsed() < Duration::from_secs(4), "{:?}", told.elapsed());
    drop((get, post, old, idle));
    assert!(front.sessile.wait().success());
    let lines = front.sessile.lines();
    let connections = || lines.iter().filter(|line| line["listener"] == "l" && line["request"].is_null());
    let count = |outcome| connections().filter(|line| line["ended"] == outcome).count();
    assert_eq!((count("done"), count("stopped")), (3, 1));
    assert_eq!(backend.answered(), 7);
}

#[test]
fn messages_under_way_are_finished_and_their_connections_end_behind_them() {
    let (go, wait) = channel::<()>();
    let wait = Arc::new(std::sync::Mutex::new(wait));
    let backend = Backend::serving(move |mut stream| {
        let mut reader = BufReader::new(stream.try_clone()?);
        let (mut first, mut line, mut length) = (String::new(), String::new(), 0);
        reader.read_line(&mut first)?;
        while reader.read_line(&mut line)? > 2 {
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            }
            line.clear();
        }
        if first.contains("/begun") {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbegun")?;
            wait.lock().unwrap().recv().unwrap();
            return stream.write_all(b"-done");
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        if first.contains("/slow") {
            wait.lock().unwrap().recv().unwrap();
        }
        let text = format!("{} bytes", body.len());
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())
    });
    let mut front = Front::start("", HTTP, &[backend.address]);
    let [mut begun, mut slow, mut upload] = [(); 3].map(|()| Talk::with(&front));
    begun.send("GET /begun HTTP/1.1\r\nHost: a.test\r\n\r\n");
    slow.send("GET /slow HTTP/1.1\r\nHost: a.test\r\n\r\n");
    upload.send("PUT /up HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1000000\r\n\r\n");
    upload.send(vec![b'x'; 400_000]);
    eventually("three exchanges", || {
        let shown = front.sessile.json("/connections");
        let stages = shown["connections"].as_array()?.iter().filter(|shown| shown["stage"] == "exchange");
        (stages.count() == 3).then_some(())
    });
    stop(&front.sessile);
    closed(&front);
    // Longer than a kept connection lives.
    thread::sleep(Duration::from_millis(2_500));
    upload.send(vec![b'x'; 600_000]);
    for _ in 0..2 {
        go.send(()).unwrap();
    }
    let response = begun.response().unwrap();
    assert_eq!((response.text().as_str(), response.field("connection")), ("begun-done", None));
    begun.send("GET /next HTTP/1.1\r\nHost: a.test\r\n\r\n");
    for (talk, text) in [(&mut slow, "0 bytes"), (&mut upload, "1000000 bytes"), (&mut begun, "0 bytes")] {
        let response = talk.response().unwrap();
        assert_eq!((response.text().as_str(), response.field("connection")), (text, Some("close")));
        assert_eq!(talk.end(), (vec![], true));
    }
    drop((begun, slow, upload));
    assert!(front.sessile.wait().success());
}

#[test]
fn a_plain_relay_behind_tls_goes_on_until_it_ends() {
    let backend = Backend::named("b");
    let mut front = Front::start("", "", &[backend.address]);
    let mut client = connect(front.address(), &config(&front.authority), "a.test");
    let mut ask = |word: &str| {
        client.write_all(format!("{word}\n").as_bytes()).unwrap();
        let mut answer = vec![0; word.len() + 3];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(answer, format!("b {word}\n").as_bytes());
    };
    ask("before");
    stop(&front.sessile);
    closed(&front);
    thread::sleep(Duration::from_millis(2_500));
    ask("after");
    client.conn.send_close_notify();
    client.flush().unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert!(front.sessile.wait().success());
    front.sessile.line("done", |line| line["ended"] == "done");
}

#[test]
fn what_is_left_at_the_deadline_ends_cleanly_where_no_message_is_cut() {
    let backend = Recorder::named("b");
    let mut front = Front::start("stop_deadline = \"0s\"\n", HTTP, &[backend.address()]);
    let mut talks: Vec<_> = (0..4).map(|_| kept(&front)).collect();
    stop(&front.sessile);
    for talk in &mut talks {
        assert_eq!(talk.end(), (vec![], true), "with close_notify");
    }
    drop(talks);
    assert!(front.sessile.wait().success());
}

#[test]
fn websockets_that_do_not_answer_are_closed_at_an_even_pace_and_in_bounded_time() {
    const LEFT: usize = 40;
    let (backend, codes) = echo();
    let mut front = Front::start("stop_deadline = \"0s\"\n", HTTP, &[backend.address]);
    let mut talks: Vec<_> = (0..LEFT).map(|_| Talk::with(&front)).collect();
    for talk in &mut talks {
        talk.send(UPGRADE);
        assert_eq!(talk.response().unwrap().status, 101);
    }
    stop(&front.sessile);
    eventually("the deadline", || front.sessile.said().contains("are still open and are closed").then_some(()));
    let begun = Instant::now();
    let silent = |mut talk: Talk<Tls>| {
        thread::spawn(move || {
            let mut frame = [0; 4];
            talk.stream.read_exact(&mut frame).unwrap();
            assert_eq!(frame, RESTART);
            (begun.elapsed(), talk.end())
        })
    };
    let silent: Vec<_> = talks.into_iter().map(silent).collect();
    let mut times: Vec<_> = silent
        .into_iter()
        .map(|client| {
            let (time, end) = client.join().unwrap();
            assert_eq!(end, (vec![], true), "the stream is complete");
            time
        })
        .collect();
    assert!(front.sessile.wait().success() && begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    times.sort();
    println!("closed from {:?} to {:?}, half of them by {:?}", times[0], times[LEFT - 1], times[LEFT / 2]);
    assert!(times[LEFT / 2] > Duration::from_millis(1_500), "not spread: {times:?}");
    assert!(times[LEFT / 2] < Duration::from_millis(3_500), "not even: {times:?}");
    for _ in 0..LEFT {
        assert_eq!(codes.recv().unwrap(), Some(1001), "the backend learns it from the process");
    }
}

#[test]
fn told_to_stop_twice_it_still_sends_the_close_frame() {
    let (backend, _codes) = echo();
    let mut front = Front::start("stop_deadline = \"1h\"\n", HTTP, &[backend.address]);
    let mut talk = Talk::with(&front);
    talk.send(UPGRADE);
    assert_eq!(talk.response().unwrap().status, 101);
    stop(&front.sessile);
    // A signal within a second repeats the first one.
    thread::sleep(Duration::from_millis(1_100));
    let told = Instant::now();
    front.sessile.signal(Signal::TERM);
    let mut frame = [0; 4];
    talk.stream.read_exact(&mut frame).unwrap();
    assert_eq!(frame, RESTART);
    assert!(front.sessile.wait().success() && told.elapsed() < Duration::from_secs(3), "it waits for no answer");
    let ended = |line: &&serde_json::Value| line["ended"] == "stopped" && line["request"].is_null();
    assert_eq!(front.sessile.lines().iter().filter(ended).count(), 1);
}

#[test]
fn curl_asks_on_one_connection_through_a_stop_and_loses_no_request() {
    let test = "curl_asks_on_one_connection_through_a_stop_and_loses_no_request";
    if !has(test, "curl") {
        return;
    }
    let backend = Recorder::named("b");
    let mut front = Front::start("", HTTP, &[backend.address()]);
    let mut command = curl(&front);
    command.args([
        "--write-out",
        "%{http_code} %header{connection} %{errormsg}\n",
        "--output",
        "/dev/null",
        "--rate",
        "20/s",
    ]);
    command.args(["--http1.1", &format!("{}/[1-200]", base(&front))]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    eventually("some requests", || (backend.answered() > 10).then_some(()));
    stop(&front.sessile);
    let mut said = String::new();
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    child.wait().unwrap();
    let (served, others): (Vec<_>, Vec<_>) = said.lines().partition(|line| line.starts_with("200"));
    assert_eq!(served.len(), backend.answered());
    let closes: Vec<_> = served.iter().map(|line| line.contains("close")).collect();
    assert_eq!(closes.iter().position(|closes| *closes), Some(served.len() - 1), "{said}");
    // Behind that response it finds no listener any more; no connection ended without a response.
    assert!(others.iter().all(|line| line.contains("connect to")), "{said}");
    assert!(front.sessile.wait().success());
}
