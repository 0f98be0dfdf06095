//! Kept connections to backends: each serves one client connection only, and a backend may close it.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::Front;
use super::backend::Recorder;
use super::client::Talk;
use super::cookie::{cookie_of, name_of};
use crate::support::backend::{Backend, pool};

/// A backend that keeps the connection by its response, and closes it when the next request comes.
fn forgetful() -> (Backend, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let (asked, posts) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (count, posted) = (Arc::clone(&asked), Arc::clone(&posts));
    let backend = Backend::serving(move |stream| {
        use std::io::{BufRead, BufReader, Read};
        let mut reader = BufReader::new(stream.try_clone()?);
        for turn in 0.. {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if reader.read_line(&mut head)? == 0 {
                    return Ok(());
                }
            }
            if head.starts_with("POST") {
                posted.fetch_add(1, Relaxed);
                reader.read_exact(&mut [0; 2])?;
            }
            count.fetch_add(1, Relaxed);
            if turn == 1 {
                return Ok(());
            }
            (&stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        }
        Ok(())
    });
    (backend, asked, posts)
}

#[test]
fn what_may_be_sent_twice_is_sent_once_more_to_the_same_backend() {
    let (backend, asked, _) = forgetful();
    let front = Front::start("", "http = true\n", &[backend.address]);
    let mut talk = Talk::with(&front);
    for _ in 0..4 {
        assert_eq!(talk.get("/", "").status, 200);
    }
    // One connection for the first request; two for each other one, of which one was closed.
    assert_eq!(asked.load(Relaxed), 7);
}

#[test]
fn what_may_not_ends_the_connection_without_an_answer() {
    let (backend, _, posts) = forgetful();
    let front = Front::start("", "http = true\n", &[backend.address]);
    let mut talk = Talk::with(&front);
    assert_eq!(talk.get("/", "").status, 200);
    talk.send("POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(talk.end().0, b"");
    front.sessile.ended("l", "kept_closed");
    assert_eq!(posts.load(Relaxed), 1, "never delivered twice");
}

#[test]
fn no_connection_to_a_backend_is_ever_another_clients() {
    let backend = Recorder::named("b");
    let front = Front::start("", "http = true\n", &[backend.address()]);
    let mut talks: Vec<_> = (0..8).map(|_| Talk::with(&front)).collect();
    for round in 0..3 {
        for (own, talk) in talks.iter_mut().enumerate() {
            assert_eq!(talk.get(&format!("/{own}/{round}"), "").status, 200);
        }
    }
    for seen in backend.seen() {
        let text = String::from_utf8(seen).unwrap();
        let owners: std::collections::HashSet<_> =
            text.split("GET /").skip(1).map(|rest| rest.split('/').next().unwrap().to_owned()).collect();
        assert_eq!(owners.len(), 1, "{text}");
    }
    assert_eq!(backend.connections(), 8);
}

#[test]
fn a_client_has_room_at_the_backend_that_its_own_connection_fills() {
    let backends = ["a", "b"].map(Recorder::named);
    let options =
        "http = true\nbalance = \"round_robin\"\ncookie = { mode = \"insert\", keys = \"$FILES/cookie.keys\" }\n";
    let tables = pool("p", options, &backends.each_ref().map(Recorder::address));
    let front = Front::with("", "pool = \"p\"\n", &tables.replace("address = ", "max_connections = 1\naddress = "));
    let mut talks = [(); 2].map(|()| Talk::with(&front));
    let homes = talks.each_mut().map(|talk| {
        let response = talk.get("/", "");
        (name_of(&response.text()), cookie_of(&response))
    });
    assert_ne!(homes[0].0, homes[1].0, "each fills one");
    for _ in 0..3 {
        for (talk, (home, cookie)) in talks.iter_mut().zip(&homes) {
            let response = talk.get("/", &format!("Cookie: {cookie}\r\n"));
            assert_eq!((response.status, &name_of(&response.text())), (200, home));
        }
    }
    assert_eq!(Talk::with(&front).get("/", "").status, 503, "nobody else has");
    assert!(backends.iter().all(|backend| backend.connections() == 1));
}

#[test]
fn a_client_that_pauses_between_its_requests_goes_on_over_the_same_connections() {
    let backend = Recorder::named("b");
    let front = Front::start("", "http = true\n", &[backend.address()]);
    let mut talk = Talk::with(&front);
    for burst in 0..4 {
        for _ in 0..burst {
            assert_eq!(talk.get("/", "").status, 200);
        }
        // Longer than the pause after which a client gives back what only a request needs. A head in two halves across
        // it is one head.
        std::thread::sleep(std::time::Duration::from_millis(150));
        talk.send("GET / HTTP/1.1\r\nHost: a.te");
        std::thread::sleep(std::time::Duration::from_millis(150));
        talk.send("st\r\n\r\n");
        assert_eq!(talk.response().map(|response| response.status), Some(200));
    }
    assert_eq!(backend.connections(), 1);
}
