//! Conversations over an upgrade: TLS cannot move, so they are finished by the process that holds them.

use std::io::{Read, Write};
use std::sync::{Arc, Condvar, Mutex};

use super::Front;
use super::client::Talk;
use crate::support::backend::Backend;

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const ASK: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";

/// A door that stays shut until it is opened.
#[derive(Clone, Default)]
struct Door(Arc<(Mutex<bool>, Condvar)>);

impl Door {
    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        drop(self.0.1.wait_while(self.0.0.lock().unwrap(), |open| !*open).unwrap());
    }
}

/// A backend that switches protocols at `/ws` and echoes, and that sends the second half of `/slow` when the door opens.
fn backend(door: &Door) -> Backend {
    let door = door.clone();
    Backend::serving(move |mut stream| {
        let mut piece = [0; 4096];
        loop {
            let n = stream.read(&mut piece)?;
            if n == 0 {
                return Ok(());
            }
            match &piece[..n] {
                head if head.starts_with(b"GET /ws") => break,
                head if head.starts_with(b"GET /slow") => {
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")?;
                    door.pass();
                    stream.write_all(b"after")?;
                }
                _ => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?,
            }
        }
        stream.write_all(SWITCH.as_bytes())?;
        loop {
            match stream.read(&mut piece)? {
                0 => return Ok(()),
                n => stream.write_all(&piece[..n])?,
            }
        }
    })
}

#[test]
fn what_was_switched_stays_with_the_old_process_until_it_ends() {
    let backend = backend(&Door::default());
    let mut front = Front::start("", "http = true\n", &[backend.address]);
    let mut switched = Talk::with(&front);
    switched.send(format!("GET /ws HTTP/1.1\r\nHost: a.test\r\n{ASK}\r\n"));
    assert_eq!(switched.response().unwrap().status, 101);
    let before = front.sessile.pid();
    let verdict = front.sessile.upgrade(None);
    assert_eq!((&verdict["accepted"], &verdict["conversations"]), (&true.into(), &1.into()), "{verdict}");
    for _ in 0..2 {
        switched.send("hello");
        let mut echoed = [0; 5];
        switched.stream.read_exact(&mut echoed).unwrap();
        assert_eq!(&echoed, b"hello");
        assert_eq!(Talk::with(&front).get("/", "").status, 200, "the new process serves");
    }
    assert!(std::path::Path::new(&format!("/proc/{before}")).exists());
    drop(switched);
    front.sessile.gone(before);
    assert_eq!(Talk::with(&front).get("/", "").status, 200);
}

#[test]
fn a_response_that_is_under_way_is_finished_and_its_connection_ends() {
    let door = Door::default();
    let backend = backend(&door);
    let mut front = Front::start("", "http = true\n", &[backend.address]);
    let mut talk = Talk::with(&front);
    talk.send("GET /slow HTTP/1.1\r\nHost: a.test\r\n\r\n");
    let mut head = [0; 1];
    talk.stream.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"H", "the response has begun");
    let before = front.sessile.pid();
    assert_eq!(front.sessile.upgrade(None)["accepted"], true);
    door.open();
    let mut rest = Vec::new();
    let end = talk.stream.read_to_end(&mut rest);
    assert!(end.is_ok() && rest.ends_with(b"firstafter"), "{end:?} {}", String::from_utf8_lossy(&rest));
    front.sessile.gone(before);
    assert_eq!(Talk::with(&front).get("/", "").status, 200);
}
