//! Terminated connections of a process that stops: kept connections, messages under way, plain relays.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::Front;
use super::backend::Recorder;
use super::client::{Talk, Tls, config, connect};
use super::programs::{base, curl};
use crate::support::backend::Backend;
use crate::support::{Sessile, eventually, has, http};

const HTTP: &str = "http = true\n";

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
    thread::sleep(Duration::from_millis(300));
    get.send("GET /late HTTP/1.1\r\nHost: a.test\r\n\r\n");
    post.send("POST /late HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi");
    old.send("GET /late HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    for (talk, what) in [(&mut get, "GET"), (&mut post, "POST"), (&mut old, "HTTP/1.0")] {
        let response = talk.response().unwrap_or_else(|| panic!("{what}: lost"));
        assert_eq!((response.status, response.field("connection")), (200, Some("close")), "{what}");
        assert_eq!(talk.end(), (vec![], true), "{what}");
    }
    assert!(told.elapsed() < Duration::from_secs(1), "they end behind their responses");
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
