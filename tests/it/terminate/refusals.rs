//! Why something was refused: in the line of the request or connection, in the metrics, and at the backend.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use rustls::version::{TLS12, TLS13};

use super::Front;
use super::backend::Recorder;
use super::client::{Response, Talk, config, connect};
use crate::support::authority::Authority;
use crate::support::backend::{Backend, listener, pool};
use crate::support::{PATIENCE, Sessile};

/// A plain front of one HTTP pool.
fn front(top: &str, backend: std::net::SocketAddr) -> Sessile {
    Sessile::start(&(top.to_owned() + &listener("p", "") + &pool("p", "http = true\n", &[backend])))
}

/// Sends bytes on a new connection and reads the response to them.
fn ask(sessile: &Sessile, bytes: impl AsRef<[u8]>) -> Response {
    let stream = TcpStream::connect(sessile.address("l")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut talk = Talk::new(stream);
    talk.send(bytes);
    talk.response().expect("a response")
}

/// The line of the request that got this response.
fn line_of(sessile: &Sessile, response: &Response) -> serde_json::Value {
    let id = response.field("x-request-id").expect("an id").to_owned();
    sessile.line(&format!("the request {id}"), |line| line["request"] == *id)
}

#[test]
fn a_refused_head_has_a_line_with_its_id_and_its_reason() {
    let backend = Recorder::named("b");
    let sessile = front("[limits]\nhello_timeout = \"300ms\"\n", backend.address());
    let long = "x".repeat(9_000);
    let fields: String = (0..200).map(|n| format!("X-{n}: y\r\n")).collect();
    for (status, word, head) in [
        (400, "no_host", "GET / HTTP/1.1\r\n\r\n".to_owned()),
        (400, "bare_line_end", "GET / HTTP/1.1\nHost: a\n\n".to_owned()),
        (
            400,
            "both_framings",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n".to_owned() + "Transfer-Encoding: chunked\r\n\r\n",
        ),
        (414, "request_line_too_long", format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n")),
        (431, "too_many_fields", format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")),
        (501, "connect", "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        (505, "bad_version", "GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned()),
    ] {
        let series = format!("sessile_requests_refused_total{{reason=\"{word}\"}}");
        assert_eq!(sessile.metric(&series), 0.0, "{word}");
        let response = ask(&sessile, head);
        assert_eq!(response.status, status, "{word}");
        let line = line_of(&sessile, &response);
        assert_eq!((&line["refused"], &line["status"]), (&word.into(), &status.into()), "{line}");
        assert_eq!(line["ended"], "request_refused", "{line}");
        assert!(["method", "path", "backend", "pool"].iter().all(|key| line[*key].is_null()), "{line}");
        assert_eq!(sessile.metric(&series), 1.0, "{word}");
    }
    let late = ask(&sessile, "GET / HTTP/1.1\r\nHo");
    let line = line_of(&sessile, &late);
    assert_eq!((late.status, &line["ended"]), (408, &"request_timeout".into()), "{line}");
    assert!(line["refused"].is_null(), "{line}");
    // The head after a good request is not logged as if it had gone to that backend.
    let stream = TcpStream::connect(sessile.address("l")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut talk = Talk::new(stream);
    talk.send("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n");
    assert_eq!(talk.response().unwrap().status, 200);
    let line = line_of(&sessile, &talk.response().unwrap());
    assert!(line["refused"] == "no_host" && line["backend"].is_null(), "{line}");
}

#[test]
fn a_refused_body_says_why() {
    let backend = Backend::serving(|mut stream| {
        while stream.read(&mut [0; 4096])? > 0 {}
        Ok(())
    });
    let sessile = front("", backend.address);
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let response = ask(&sessile, format!("{head}x\r\n"));
    let line = line_of(&sessile, &response);
    assert_eq!((response.status, &line["refused"]), (400, &"bad_chunk_size".into()), "{line}");
    assert_eq!((&line["method"], &line["backend"]), (&"POST".into(), &"b0".into()), "{line}");
    assert_eq!(sessile.metric("sessile_requests_refused_total{reason=\"bad_chunk_size\"}"), 1.0);
}

#[test]
fn a_refused_response_says_why_also_at_its_backend() {
    let backend = Backend::serving(|mut stream| {
        let _ = stream.read(&mut [0; 4096])?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n")?;
        stream.shutdown(Shutdown::Write)
    });
    let sessile = front("", backend.address);
    for count in 1..=2 {
        let response = ask(&sessile, "GET /path HTTP/1.1\r\nHost: a\r\n\r\n");
        let line = line_of(&sessile, &response);
        assert_eq!((response.status, &line["refused"]), (502, &"several_lengths".into()), "{line}");
        assert_eq!((&line["ended"], &line["path"]), (&"response_refused".into(), &"/path".into()), "{line}");
        let complaint = sessile.json("/backends")[0]["complaint"].as_str().unwrap().to_owned();
        assert!(complaint.starts_with("response refused: several_lengths: "), "{complaint}");
        assert!(complaint.ends_with(&format!("({count} so far)")), "{complaint}");
    }
    assert_eq!(sessile.metric("sessile_responses_refused_total{reason=\"several_lengths\"}"), 2.0);
    assert_eq!(sessile.metric("sessile_requests_refused_total{reason=\"several_lengths\"}"), 0.0);
    assert_eq!(sessile.status()["responses_refused"]["several_lengths"], 2);
}

#[test]
fn a_hello_that_is_refused_has_its_alert_in_the_line() {
    let backend = Recorder::named("b");
    let front = Front::start("", "http = true\n", &[backend.address()]);
    let refused = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(front.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    };
    for (bytes, ended, alert) in [
        (&b"\x16\x03\x01\x00\x00"[..], "hello_malformed", "sent:unexpected_message"),
        (b"\x16\x02\x01\x00\x04\x01\x00\x00\x00", "not_tls", "sent:protocol_version"),
    ] {
        assert_eq!(refused(bytes)[0], 21, "an alert");
        let line = front.sessile.line(ended, |line| line["ended"] == ended);
        assert_eq!(line["alert"], alert, "{line}");
    }
    // A plain request gets a response, and no alert.
    assert!(refused(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").starts_with(b"HTTP/1.1 400 "));
    let plain = front.sessile.line("a plain request", |line| line["ended"] == "not_tls" && line["alert"].is_null());
    assert!(plain["alert"].is_null(), "{plain}");
}

#[test]
fn a_tls_failure_names_its_alert() {
    let backend = Recorder::named("b");
    let front = Front::start("[tls]\nmin_version = \"1.3\"\n", "http = true\n", &[backend.address()]);
    let fails = |authority: &Authority, old: bool| {
        let version = if old { &TLS12 } else { &TLS13 };
        let groups = [rustls::crypto::aws_lc_rs::kx_group::X25519];
        let mut stream = connect(front.address(), &Arc::new(authority.client(&[version], &groups)), "a.test");
        assert!(stream.write_all(b"x").and_then(|()| stream.read(&mut [0; 1]).map(drop)).is_err());
    };
    fails(&front.authority, true);
    front.sessile.line("an alert of ours", |line| line["alert"] == "sent:protocol_version");
    // Another authority of the same name: the signature does not fit.
    fails(&Authority::new(), false);
    let line = front.sessile.line("an alert of a client", |line| line["alert"] == "received:decrypt_error");
    assert_eq!(line["ended"], "handshake_failed", "{line}");
    // A connection that ends well has none.
    let mut talk = Talk::new(connect(front.address(), &config(&front.authority), "a.test"));
    assert_eq!(talk.get("/", "").status, 200);
    drop(talk);
    let line = front.sessile.line("a good connection", |line| line["request"].is_null() && !line["tls"].is_null());
    assert!(line["alert"].is_null(), "{line}");
}

#[test]
fn a_tls_failure_of_a_backend_names_its_alert() {
    let plain = Recorder::named("b");
    let other = Front::start("", "http = true\n", &[plain.address()]);
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ca.pem"), Authority::new().pem()).unwrap();
    let tls = format!("[pool.tls]\nca = \"{}\"\nsni = \"a.test\"\n", dir.path().join("ca.pem").display());
    let config = listener("p", "") + &pool("p", "http = true\nconnect_budget = \"2s\"\n", &[other.address()]) + &tls;
    let sessile = Sessile::start(&config);
    assert_eq!(ask(&sessile, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").status, 502);
    let line = sessile.line("a connection with an alert", |line| !line["alert"].is_null());
    assert_eq!((&line["alert"], &line["ended"]), (&"sent:decrypt_error".into(), &"backend_tls".into()), "{line}");
    other.sessile.line("the same alert", |line| line["alert"] == "received:decrypt_error");
}
