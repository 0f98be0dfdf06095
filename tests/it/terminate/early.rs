//! Responses that come before their request is complete: the upload goes on, or is said to be cut; the client can read
//! the response in either case.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::Front;
use super::client::Talk;
use crate::support::backend::{Backend, listener, pool};
use crate::support::program::free_address;
use crate::support::{PATIENCE, Sessile};

const HTTP: &str = "http = true\n";

/// An upload that does not fit into the buffers on its way.
const LONG: usize = 8 << 20;

fn plain(sessile: &Sessile) -> Talk<TcpStream> {
    let stream = TcpStream::connect(sessile.address("l")).expect("the listener accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    Talk::new(stream)
}

fn start(limits: &str, backends: &[SocketAddr]) -> Sessile {
    Sessile::start(&(limits.to_owned() + &listener("p", "") + &pool("p", HTTP, backends)))
}

/// Reads a head; `None`: the connection has ended.
fn head(reader: &mut impl BufRead) -> std::io::Result<Option<String>> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(None);
        }
    }
    Ok(Some(head))
}

/// Reads a body to its end, and returns its length without the lines between chunks.
fn body(reader: &mut impl BufRead, head: &str) -> std::io::Result<usize> {
    let lower = head.to_ascii_lowercase();
    if let Some((_, rest)) = lower.split_once("content-length: ") {
        let length: u64 = rest.lines().next().unwrap().parse().unwrap();
        return Ok(std::io::copy(&mut reader.take(length), &mut std::io::sink())? as usize);
    }
    let mut all = 0;
    while lower.contains("transfer-encoding: chunked") {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim_end(), 16).expect("a size");
        std::io::copy(&mut reader.take(size + 2), &mut std::io::sink())?;
        all += size as usize;
        if size == 0 {
            break;
        }
    }
    Ok(all)
}

/// Responds to every head at once, and then reads the body; tells the number of each request on its connection, and
/// what came of its body.
fn eager(respond: &'static str) -> (Backend, Receiver<(usize, usize)>) {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let backend = Backend::serving(move |stream| {
        let mut reader = BufReader::new(stream.try_clone()?);
        for count in 0.. {
            let Some(head) = head(&mut reader)? else { break };
            (&stream).write_all(respond.as_bytes())?;
            let length = body(&mut reader, &head)?;
            let _ = tell.lock().unwrap().send((count, length));
            if head.contains("Connection: close") {
                break;
            }
        }
        Ok(())
    });
    (backend, told)
}

/// A chunked body of `LONG` bytes.
fn chunked() -> Vec<u8> {
    let chunk = [format!("{:x}\r\n", 1 << 16).into_bytes(), vec![b'x'; 1 << 16], b"\r\n".to_vec()].concat();
    [chunk.repeat(LONG >> 16), b"0\r\n\r\n".to_vec()].concat()
}

fn uploads_after_the_response<S: Read + Write>(mut talk: Talk<S>, told: &Receiver<(usize, usize)>) {
    let length = format!("Content-Length: {LONG}\r\n");
    let framings = [(&*length, vec![b'x'; LONG]), ("Transfer-Encoding: chunked\r\n", chunked())];
    for (index, (framing, body)) in framings.into_iter().enumerate() {
        talk.send(format!("POST /up HTTP/1.1\r\nHost: a.test\r\n{framing}\r\n"));
        talk.send(&body[..1_000]);
        let response = talk.response().expect("a response");
        assert_eq!((response.status, response.field("connection"), &*response.text()), (202, None, "ok"));
        // The rest of the body, and another request right behind it.
        talk.send([&body[1_000..], b"GET /next HTTP/1.1\r\nHost: a.test\r\n\r\n"].concat());
        assert_eq!(talk.response().expect("a response to the next request").status, 202);
        assert_eq!(told.recv_timeout(PATIENCE).expect("an upload"), (2 * index, LONG));
        assert_eq!(told.recv_timeout(PATIENCE).expect("a request"), (2 * index + 1, 0));
    }
}

#[test]
fn an_upload_reaches_a_backend_that_has_responded_already_and_both_connections_stay() {
    let (backend, told) = eager("HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok");
    let sessile = start("", &[backend.address]);
    uploads_after_the_response(plain(&sessile), &told);
    sessile.line("the upload", |line| line["path"] == "/up" && line["ended"] == "done" && line["status"] == 202);

    let (backend, told) = eager("HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok");
    let front = Front::start("", HTTP, &[backend.address]);
    uploads_after_the_response(Talk::with(&front), &told);
    let upload = front.sessile.line("the upload", |line| line["path"] == "/up");
    assert_eq!((&upload["ended"], &upload["status"]), (&"done".into(), &202.into()), "{upload}");
}

#[test]
fn an_upload_that_ends_its_connections_is_whole_too() {
    for (respond, version, connection) in [
        ("HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok", "1.0", ""),
        ("HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok", "1.1", "Connection: close\r\n"),
        ("HTTP/1.1 202 Accepted\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", "1.1", ""),
        ("HTTP/1.0 202 Accepted\r\nContent-Length: 2\r\n\r\nok", "1.1", ""),
    ] {
        let (backend, told) = eager(respond);
        let sessile = start("", &[backend.address]);
        let mut talk = plain(&sessile);
        talk.send(format!("POST /up HTTP/{version}\r\nHost: a.test\r\n{connection}Content-Length: {LONG}\r\n\r\n"));
        let response = talk.response().expect("a response");
        assert_eq!((response.status, response.field("connection")), (202, Some("close")), "{version} {respond}");
        talk.send(vec![b'x'; LONG]);
        assert_eq!(told.recv_timeout(PATIENCE).expect("an upload"), (0, LONG), "{version} {respond}");
        assert_eq!(talk.end(), (Vec::new(), true));
        sessile.line("the upload", |line| line["path"] == "/up" && line["ended"] == "done");
    }
}

/// Reads a head, responds and closes; what comes of the body is not read, so the kernel resets.
fn impatient(respond: &'static str) -> Backend {
    Backend::serving(move |stream| {
        let mut byte = [0];
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") && (&stream).read(&mut byte)? > 0 {
            seen.extend(byte);
        }
        // A byte of the body has come, and will not be read.
        stream.peek(&mut byte)?;
        (&stream).write_all(respond.as_bytes())
    })
}

#[test]
fn a_backend_that_responds_and_closes_has_cut_the_request_and_the_client_reads_its_response() {
    for respond in [
        "HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno!",
        "HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno!",
        "HTTP/1.1 413 Content Too Large\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nno!\r\n0\r\n\r\n",
    ] {
        let backend = impatient(respond);
        let sessile = start("", &[backend.address]);
        let mut talk = plain(&sessile);
        talk.send(format!("POST /up HTTP/1.1\r\nHost: a.test\r\nContent-Length: {LONG}\r\n\r\n"));
        // A client that sends everything before it reads, slowly: for longer than a short linger.
        for _ in 0..8 {
            talk.send(vec![b'x'; LONG / 8]);
            std::thread::sleep(Duration::from_millis(200));
        }
        let response = talk.response().expect("the response is not destroyed");
        assert_eq!((response.status.to_string().as_str(), &*response.text()), (&respond[9..12], "no!"));
        assert_eq!(talk.end(), (Vec::new(), true));
        let line = sessile.line("the upload", |line| line["path"] == "/up");
        assert_eq!((&line["ended"], &line["status"]), (&"request_cut".into(), &response.status.into()));
        assert_eq!(sessile.ended("l", "request_cut")["fault"], "backend");
    }
}

#[test]
fn a_local_reply_to_an_upload_is_readable_however_long_that_takes() {
    let nowhere = free_address();
    let sessile = start("", &[nowhere]);
    let mut talk = plain(&sessile);
    talk.send(format!("POST /up HTTP/1.1\r\nHost: a.test\r\nContent-Length: {LONG}\r\n\r\n"));
    for _ in 0..8 {
        talk.send(vec![b'x'; LONG / 8]);
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(talk.response().expect("the reply is not destroyed").status, 503);
}

#[test]
fn a_backend_that_responds_and_stalls_has_until_the_body_timeout() {
    let (done, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let backend = Backend::serving(move |stream| {
        let mut reader = BufReader::with_capacity(64, stream.try_clone()?);
        head(&mut reader)?;
        (&stream).write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok")?;
        let _ = wait.lock().unwrap().recv_timeout(PATIENCE);
        Ok(())
    });
    let sessile = start("[limits]\nbody_timeout = \"1s\"\n", &[backend.address]);
    let mut talk = plain(&sessile);
    // More than all buffers on the way hold.
    talk.send(format!("POST /up HTTP/1.1\r\nHost: a.test\r\nContent-Length: {}\r\n\r\n", 1u64 << 30));
    let response = talk.response().expect("a response");
    assert_eq!((response.status, &*response.text()), (202, "ok"));
    let mut stream = talk.stream.try_clone().unwrap();
    let upload = std::thread::spawn(move || while stream.write_all(&[b'x'; 1 << 16]).is_ok() {});
    let line = sessile.line("the upload", |line| line["path"] == "/up");
    assert_eq!((&line["ended"], &line["status"]), (&"body_timeout".into(), &202.into()));
    drop(talk.stream.shutdown(std::net::Shutdown::Both));
    upload.join().unwrap();
    drop(done);
}

#[test]
fn a_final_response_instead_of_100_ends_the_connection_at_once() {
    let (backend, _told) = eager("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno");
    let sessile = start("", &[backend.address]);
    let mut talk = plain(&sessile);
    talk.send("PUT /up HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    let response = talk.response().expect("a response");
    assert_eq!((response.status, response.field("connection"), &*response.text()), (417, Some("close"), "no"));
    assert_eq!(talk.end(), (Vec::new(), true));
}

#[test]
fn a_flood_of_interim_responses_is_refused_and_a_flood_of_chunks_leaves_time_for_others() {
    let floods = Arc::new(Mutex::new(0usize));
    let counted = Arc::clone(&floods);
    let backend = Backend::serving(move |stream| {
        let mut reader = BufReader::new(stream.try_clone()?);
        while let Some(head) = head(&mut reader)? {
            let (first, flood) = match head.split(' ').nth(1) {
                Some("/interim") => ("", b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(4_000)),
                Some("/chunks") => {
                    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n".repeat(10_000))
                }
                _ => ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Vec::new()),
            };
            (&stream).write_all(first.as_bytes())?;
            while !flood.is_empty() {
                (&stream).write_all(&flood).inspect_err(|_| *counted.lock().unwrap() += 1)?;
            }
        }
        Ok(())
    });
    let sessile = start("", &[backend.address]);
    let mut chunks = plain(&sessile);
    chunks.send("GET /chunks HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let mut reader = chunks.stream.try_clone().unwrap();
    let reading = std::thread::spawn(move || {
        let mut piece = vec![0; 1 << 16];
        while reader.read(&mut piece).is_ok_and(|n| n > 0) {}
    });
    let mut talk = plain(&sessile);
    for _ in 0..20 {
        assert_eq!(talk.get("/", "").status, 200);
    }
    let mut flooded = plain(&sessile);
    flooded.send("GET /interim HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let statuses: Vec<_> = (0..17).map(|_| flooded.response().expect("a head").status).collect();
    assert_eq!((statuses.iter().filter(|status| **status == 103).count(), statuses[16]), (16, 502));
    sessile.line("the flood", |line| line["path"] == "/interim" && line["ended"] == "response_refused");
    // The client leaves the other flood, which ends with it.
    chunks.stream.shutdown(std::net::Shutdown::Both).unwrap();
    reading.join().unwrap();
    drop(chunks);
    crate::support::eventually("both floods to end", || (*floods.lock().unwrap() == 2).then_some(()));
    let status = sessile.status();
    assert!(status["conversations"][0]["stuck"].is_u64(), "{status}");
    assert!(sessile.metrics().contains("sessile_runtime_stuck_total{"));
}
