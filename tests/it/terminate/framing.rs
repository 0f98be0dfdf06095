//! Malformed and ambiguous messages through the whole product: none of them ever reaches a backend.

#[path = "../../framing/corpus.rs"]
pub(super) mod corpus;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use sessile::http::Progress;
use sessile::http::head::RequestReader;

use self::corpus::{Case, Kind, Verdict, cases};
use super::backend::Recorder;
use super::client::{Response, Talk};
use crate::support::backend::{Backend, listener, pool};
use crate::support::{PATIENCE, Sessile};

/// A listener in front of one backend that records every byte. Without HTTP/2, whose preface is no request of HTTP/1.
fn front() -> (Recorder, Sessile) {
    let backend = Recorder::named("b");
    let text = "[limits]\nhello_timeout = \"2s\"\nbody_timeout = \"1s\"\n".to_owned()
        + &listener("p", "http2 = false\n")
        + &pool("p", "http = true\n", &[backend.address()]);
    (backend, Sessile::start(&text))
}

/// Sends the bytes, finishes sending, and reads the first response.
fn ask(sessile: &Sessile, bytes: &[u8]) -> Option<Response> {
    let stream = TcpStream::connect(sessile.address("l")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut talk = Talk::new(stream);
    // The local reply may come before the last byte is sent.
    let _ = talk.stream.write_all(bytes);
    let _ = talk.stream.shutdown(Shutdown::Write);
    talk.response_to(if bytes.starts_with(b"HEAD") { "HEAD" } else { "GET" })
}

/// Requests that are refused, by the part that shows why: the head, or only the body.
fn refused(in_body: bool) -> impl Iterator<Item = (Case, u16)> {
    let head_is_whole = |bytes: &[u8]| matches!(RequestReader::new().read(bytes), Progress::Done(_));
    cases().into_iter().filter(|case| case.kind == Kind::Request).filter_map(move |case| match case.verdict {
        Verdict::Refused(_, status) if head_is_whole(&case.bytes) == in_body => Some((case, status)),
        _ => None,
    })
}

#[test]
fn of_a_head_that_is_refused_not_a_byte_reaches_a_backend() {
    let (backend, sessile) = front();
    let (mut wrong, mut count) = (String::new(), 0);
    for (case, status) in refused(false) {
        count += 1;
        let answer = ask(&sessile, &case.bytes);
        let got = answer.as_ref().map(|answer| (answer.status, answer.field("connection")));
        if got != Some((status, Some("close"))) {
            wrong += &format!("{}: {got:?} for {status}\n", case.title);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(count > 100, "{count}");
    // This connection is behind all others in the backend's accept queue.
    assert_eq!(ask(&sessile, b"GET /last HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().status, 200);
    let seen = backend.seen();
    assert!(seen.len() == 1 && seen[0].starts_with(b"GET /last "), "{seen:?}");
}

#[test]
fn a_body_that_is_refused_ends_its_pair_before_the_request_is_whole() {
    let (backend, sessile) = front();
    let (mut wrong, mut count) = (String::new(), 0);
    for (case, _) in refused(true) {
        count += 1;
        let answer = ask(&sessile, &case.bytes);
        if answer.as_ref().is_some_and(|answer| answer.status < 400 || answer.field("connection") != Some("close")) {
            wrong += &format!("{}: {answer:?}\n", case.title);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(count > 20, "{count}");
    assert_eq!(ask(&sessile, b"GET /last HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().status, 200);
    assert_eq!(backend.answered(), 1);
}

#[test]
fn what_is_well_formed_is_answered() {
    let (_backend, sessile) = front();
    for case in cases().into_iter().filter(|case| case.kind == Kind::Request) {
        if let Verdict::Accepted(..) = case.verdict {
            assert_eq!(ask(&sessile, &case.bytes).map(|answer| answer.status), Some(200), "{}", case.title);
        }
    }
}

#[test]
fn an_ambiguous_response_is_a_502_and_ends_the_pair() {
    let cases: Vec<_> = cases().into_iter().filter(|case| case.kind == Kind::Response).collect();
    let bytes: Vec<_> = cases.iter().map(|case| case.bytes.clone()).collect();
    let backend = Backend::serving(move |mut stream| {
        let mut piece = [0; 4096];
        let n = stream.read(&mut piece)?;
        let text = String::from_utf8_lossy(&piece[..n]).into_owned();
        let index: usize = text.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
        stream.write_all(&bytes[index])?;
        stream.shutdown(Shutdown::Write)?;
        let _ = stream.read(&mut piece);
        Ok(())
    });
    let sessile = Sessile::start(&(listener("p", "") + &pool("p", "http = true\n", &[backend.address])));
    let mut wrong = String::new();
    for (index, case) in cases.iter().enumerate() {
        let Verdict::Refused(word, _) = case.verdict else { continue };
        let stream = TcpStream::connect(sessile.address("l")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut talk = Talk::new(stream);
        talk.send(format!("GET /{index} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let (answer, _) = talk.end();
        let mut answer = String::from_utf8_lossy(&answer).into_owned();
        while answer.starts_with("HTTP/1.1 10") {
            answer = answer.split_once("\r\n\r\n").map_or_else(String::new, |(_, behind)| behind.to_owned());
        }
        let in_body = word.contains("chunk") || word.contains("trailer");
        if !in_body && !answer.starts_with("HTTP/1.1 502 ") {
            wrong += &format!("{} ({word}): {answer:?}\n", case.title);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
