//! Requests that another backend gets, because the first has not looked at them or is gone: what is sent again, and
//! what the log and the metrics say.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use h2::Reason;
use serde_json::Value;

use super::peer::Peer;
use super::site::Http2Site;
use super::{H2, http1_answer, plain};
use crate::http2::client::Client;
use crate::support::Sessile;
use crate::support::backend::Backend;
use crate::support::program::free_local_address;
use crate::terminate::backend::Recorder;
use crate::terminate::client::Talk;

/// A client that is known at the first backend.
const KNOWN: (&str, &str) = ("cookie", "SID=a.b0");

/// Keys of a pool with the cookie of that client.
fn routed(http: &str) -> String {
    format!("{http}cookie = {{ mode = \"route\", name = \"SID\" }}\n")
}

/// A backend that looks at no request, and how many it has refused; `reads`: it waits for a byte of the body first.
fn refusing(reads: bool) -> (Backend, Arc<AtomicUsize>) {
    let refused = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&refused);
    let backend = Backend::serving(move |stream| {
        let mut peer = Peer::begin(stream)?;
        loop {
            let stream = peer.request()?;
            count.fetch_add(1, Relaxed);
            if reads {
                peer.data(stream)?;
            }
            peer.refuse(stream)?;
        }
    });
    (backend, refused)
}

/// The line of the request for this path.
fn line(sessile: &Sessile, path: &str) -> Value {
    sessile.line(&format!("the request for {path}"), |line| line["kind"] == "request" && line["path"] == path)
}

fn moved(sessile: &Sessile) -> f64 {
    sessile.metric("sessile_pool_requests_moved_total{pool=\"p\"}")
}

#[test]
fn a_request_that_its_backend_has_not_looked_at_goes_to_the_next_one() {
    let ((first, refused), other) = (refusing(false), Http2Site::new());
    let sessile = plain("", &routed(H2), &[first.address, other.address]);
    let client = Client::plain(sessile.address("l"));
    assert_eq!(client.get("/get", &[KNOWN]).text(), "GET http a.test /get");
    let post = client.begin(client.request("POST", "/post", &[KNOWN]), true).unwrap();
    assert_eq!(post.reply().unwrap().text(), "POST http a.test /post");
    let text = http1_answer(&sessile, "GET /one HTTP/1.1\r\nHost: a\r\nCookie: SID=a.b0\r\nConnection: close\r\n\r\n");
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    for path in ["/get", "/post", "/one"] {
        let line = line(&sessile, path);
        assert_eq!((&line["backend"], &line["ended"]), (&"b1".into(), &"done".into()), "{line}");
        assert_eq!((&line["moved"], &line["from"]), (&"down".into(), &"b0".into()), "{line}");
    }
    assert_eq!((refused.load(Relaxed), moved(&sessile)), (6, 3.0), "each was offered twice");
    // A new client has moved from nowhere.
    let new = Client::plain(sessile.address("l"));
    for number in 0..8 {
        assert_eq!(new.get(&format!("/new/{number}"), &[]).status, 200);
        assert_eq!(line(&sessile, &format!("/new/{number}"))["backend"], "b1");
    }
}

#[test]
fn a_client_that_backends_refuse_one_after_the_other_moves_once_from_the_one_that_it_had() {
    const USERS: usize = 16;
    let ((refusing, refused), other, dead) = (refusing(false), Http2Site::new(), free_local_address());
    let options = format!("{}key = \"header:X-User\"\n", routed(H2));
    let sessile = plain("", &options, &[dead, refusing.address, other.address]);
    let client = Client::plain(sessile.address("l"));
    let breaks = || sessile.status()["pools"][0]["breaks"]["down"].as_u64().unwrap() as usize;
    for user in 0..USERS {
        assert_eq!(client.get(&format!("/{user}"), &[KNOWN, ("x-user", &user.to_string())]).status, 200);
        let line = line(&sessile, &format!("/{user}"));
        let told = [&line["from"], &line["moved"], &line["backend"]];
        assert_eq!(told, ["b0", "down", "b2"], "{line}");
    }
    assert!(refused.load(Relaxed) > 0, "some had two moves");
    assert_eq!(breaks(), USERS);
    let why = sessile.json("/why?what=127.0.0.1");
    let moves = why["moves"].as_array().unwrap();
    assert!(moves.len() == USERS && moves.iter().all(|noted| noted["from"] == "b0" && noted["to"] == "b2"), "{why}");
    // New clients have moved from nowhere.
    let before = refused.load(Relaxed);
    for user in 0..USERS {
        let new = Client::plain(sessile.address("l"));
        assert_eq!(new.get(&format!("/new/{user}"), &[("x-user", &format!("n{user}"))]).status, 200);
    }
    assert!(refused.load(Relaxed) > before, "and some of them were refused first");
    assert_eq!(breaks(), USERS);
}

#[test]
fn a_request_of_which_the_body_was_begun_goes_to_no_other_backend() {
    let ((first, refused), other) = (refusing(true), Http2Site::new());
    let sessile = plain("", &routed(H2), &[first.address, other.address]);
    let client = Client::plain(sessile.address("l"));
    let mut begun = client.begin(client.request("POST", "/begun", &[KNOWN]), false).unwrap();
    begun.write(b"some", false).unwrap();
    let reason = begun.reply().err().and_then(|error| error.reason());
    assert_eq!(reason, Some(Reason::REFUSED_STREAM), "the client, which has the body, may send it again");
    assert_eq!((refused.load(Relaxed), other.seen().requests.len(), moved(&sessile)), (1, 0, 0.0));
    assert_eq!(line(&sessile, "/begun")["backend"], "b0");
}

#[test]
fn where_no_backend_looks_at_a_request_each_is_asked_and_the_client_may_send_it_again() {
    let ([first, second], options) = ([refusing(false), refusing(false)], routed(H2));
    let sessile = plain("", &options, &[first.0.address, second.0.address]);
    let client = Client::plain(sessile.address("l"));
    let reason = client.ask("/", &[KNOWN]).reply().err().and_then(|error| error.reason());
    assert_eq!(reason, Some(Reason::REFUSED_STREAM));
    assert_eq!((first.1.load(Relaxed), second.1.load(Relaxed), moved(&sessile)), (2, 2, 1.0));
}

/// Reads a head; false: the connection has ended.
fn read_head(reader: &mut impl BufRead) -> std::io::Result<bool> {
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 {
        if line == "\r\n" {
            return Ok(true);
        }
        line.clear();
    }
    Ok(false)
}

/// A backend of HTTP/1.1 that answers one request, and is gone with the next one, unanswered.
fn gone_at_second() -> SocketAddr {
    let address = free_local_address();
    let listener = TcpListener::bind(address).expect("a free port");
    thread::spawn(move || -> std::io::Result<()> {
        let (stream, _) = listener.accept()?;
        let mut reader = BufReader::new(stream.try_clone()?);
        read_head(&mut reader)?;
        (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst")?;
        read_head(&mut reader)?;
        drop(listener);
        Ok(())
    });
    address
}

#[test]
fn a_request_over_a_kept_connection_to_a_backend_that_is_gone_goes_to_the_next_one_if_it_changes_nothing() {
    for (method, path) in [("GET", "/get"), ("POST", "/post")] {
        let other = Recorder::named("other");
        let sessile = plain("", &routed("http = true\n"), &[gone_at_second(), other.address()]);
        let mut talk = Talk::new(TcpStream::connect(sessile.address("l")).unwrap());
        assert_eq!(talk.get("/first", "Cookie: SID=a.b0\r\n").text(), "first");
        talk.send(format!("{method} {path} HTTP/1.1\r\nHost: a.test\r\nCookie: SID=a.b0\r\n\r\n"));
        let (answer, line) = (talk.response(), line(&sessile, path));
        if method == "POST" {
            assert!(answer.is_none(), "the backend may have processed it: {answer:?}");
            assert_eq!((&line["ended"], other.answered(), moved(&sessile)), (&"kept_closed".into(), 0, 0.0), "{line}");
            continue;
        }
        assert_eq!(answer.map(|answer| answer.status), Some(200));
        assert_eq!((&line["backend"], &line["ended"], &line["reused"]), (&"b1".into(), &"done".into(), &Value::Null));
        assert_eq!((&line["moved"], &line["from"]), (&"down".into(), &"b0".into()), "{line}");
        assert_eq!((other.answered(), moved(&sessile)), (1, 1.0));
    }
}
