//! Streams that nothing moves, and more streams than are allowed.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use super::{CONNECTIONS, GROWTH_KIB, beside};
use crate::http2_frames::site::Site;
use crate::http2_frames::wire::*;
use crate::support::eventually;

/// Most connections of one client to one backend: `http2_backend_connections`.
const BACKEND_CONNECTIONS: usize = 6;

/// Waits until so many streams have ended, and returns when the first and the last have.
fn ends(client: &mut Client, count: usize) -> (Duration, Duration) {
    let (began, mut first, mut ended) = (Instant::now(), None, BTreeSet::new());
    while ended.len() < count {
        let stream = client.until("a stream to end", |event| match event {
            Event::Reset { stream, .. }
            | Event::Headers { stream, is_end: true, .. }
            | Event::Data { stream, is_end: true, .. } => Some(*stream),
            _ => None,
        });
        ended.insert(stream);
        first.get_or_insert_with(|| began.elapsed());
    }
    (first.unwrap_or_default(), began.elapsed())
}

/// Runs a client whose streams stall; each ends after `body_timeout`, its connection does not.
fn stalled(settings: &[(u16, u32)], streams: usize, ended: &[&str], send: impl Fn(&mut Client, u32)) {
    let site = Site::start("body_timeout = \"1s\"");
    let ((clients, before), felt) = beside(&site, || {
        let before = site.lines("request").len();
        let mut clients: Vec<_> = (0..CONNECTIONS).map(|_| Client::open_with(site.address, settings)).collect();
        for client in &mut clients {
            for stream in 0..streams as u32 {
                send(client, 2 * stream + 1);
            }
        }
        for client in &mut clients {
            let (first, last) = ends(client, streams);
            println!("ended between {first:?} and {last:?}");
        }
        (clients, before)
    });
    felt.is_within(GROWTH_KIB);
    let words = site.endings("request", before + CONNECTIONS * streams).split_off(before);
    assert!(words.iter().all(|word| ended.contains(&word.as_str())), "{words:?}");
    // The connections go on: a response without DATA needs no window.
    for mut client in clients {
        let stream = 2 * streams as u32 + 1;
        client.head(stream, &[(":method", "HEAD"), GET[1], GET[2], GET[3]], true);
        assert_eq!(client.response(stream).status, 200);
    }
    site.is_at_rest();
}

#[test]
fn windows_of_streams_that_stay_shut() {
    stalled(&[(INITIAL_WINDOW_SIZE, 0)], BACKEND_CONNECTIONS, &["body_timeout"], |client, stream| {
        client.get_path(stream, "/large");
    });
}

#[test]
fn a_window_of_the_connection_that_stays_shut() {
    stalled(&[(INITIAL_WINDOW_SIZE, 0x7fff_ffff)], BACKEND_CONNECTIONS, &["body_timeout"], |client, stream| {
        client.get_path(stream, "/large");
    });
}

#[test]
fn bodies_that_do_not_come() {
    stalled(&[], BACKEND_CONNECTIONS, &["body_timeout", "request_timeout"], |client, stream| {
        client.send(post(stream, "/never"));
        client.data(stream, "part", false);
    });
}

/// A hundred streams wait for windows that stay shut: at most six are at the backend, and what they hold is bounded.
#[test]
fn a_hundred_streams_whose_windows_stay_shut() {
    let site = Site::start("");
    let (clients, felt) = beside(&site, || {
        let mut clients: Vec<_> =
            (0..CONNECTIONS).map(|_| Client::open_with(site.address, &[(INITIAL_WINDOW_SIZE, 0)])).collect();
        for client in &mut clients {
            for stream in 0..100 {
                client.get_path(2 * stream + 1, "/large");
            }
        }
        eventually("six requests of each to be at the backend", || {
            (site.received.count("/large") >= CONNECTIONS * BACKEND_CONNECTIONS).then_some(())
        });
        for client in &mut clients {
            client.frame(PING, 0, 0, [1; 8]);
            client.until("a reply", |event| (*event == Event::Pong([1; 8])).then_some(()));
        }
        clients
    });
    assert_eq!(site.received.count("/large"), CONNECTIONS * BACKEND_CONNECTIONS);
    let most = site.received.most_open.load(Relaxed);
    assert!(most <= CONNECTIONS * BACKEND_CONNECTIONS + CONNECTIONS + 1, "{most} connections at once");
    drop(clients);
    felt.is_within(GROWTH_KIB);
    site.is_at_rest();
}

/// Bodies of a hundred streams fill every window of the server, in small frames; the backend reads nothing.
#[test]
fn bodies_that_fill_all_windows() {
    /// Bytes of one frame: above those that are counted as a flood.
    const PIECE: usize = 300;
    let site = Site::start("");
    let (clients, felt) = beside(&site, || {
        let fill = || {
            let mut client = site.client();
            for stream in 0..100 {
                client.send(post(2 * stream + 1, "/stalled"));
            }
            let mut windows = Windows::of(&client);
            while let Some(stream) = windows.open(PIECE) {
                client.data(stream, [b'x'; PIECE], false);
                windows.take(stream, PIECE);
                while let Some(event) = client.next(windows.patience(PIECE)) {
                    assert!(!matches!(event, Event::GoAway { .. } | Event::Reset { .. } | Event::End), "{event:?}");
                    windows.widen(&event);
                }
            }
            client
        };
        thread::scope(|scope| {
            let clients: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(fill)).collect();
            clients.into_iter().map(|client| client.join().expect("a client")).collect::<Vec<_>>()
        })
    });
    drop(clients);
    // Windows of 1,600 KiB a connection, and in frames as small as these more for each frame than its bytes.
    felt.is_within(CONNECTIONS * 5 * 1_024);
    site.is_at_rest();
}

/// Windows of the server for a hundred streams, and for all of them together.
struct Windows {
    whole: usize,
    streams: Vec<usize>,
    sent: usize,
}

impl Windows {
    fn of(client: &Client) -> Self {
        let each = *client.settings.get(&INITIAL_WINDOW_SIZE).unwrap_or(&WINDOW) as usize;
        Self { whole: WINDOW as usize, streams: vec![each; 100], sent: 0 }
    }

    /// A stream that may send so many bytes.
    fn open(&self, bytes: usize) -> Option<u32> {
        assert!(self.sent < 64 << 20, "the windows are widened although nothing is read");
        let at = self.streams.iter().rposition(|window| *window >= bytes)?;
        (self.whole >= bytes).then_some(2 * at as u32 + 1)
    }

    fn take(&mut self, stream: u32, bytes: usize) {
        self.whole -= bytes;
        self.streams[stream as usize / 2] -= bytes;
        self.sent += bytes;
    }

    /// How long to wait for wider windows: only where none is open.
    fn patience(&self, bytes: usize) -> Duration {
        match self.open(bytes) {
            Some(_) => Duration::ZERO,
            None => Duration::from_millis(300),
        }
    }

    fn widen(&mut self, event: &Event) {
        match event {
            Event::Window { stream: 0, by } => self.whole += *by as usize,
            Event::Window { stream, by } => self.streams[*stream as usize / 2] += *by as usize,
            _ => {}
        }
    }
}

/// A client that opens every window, and does not read; its requests are for these paths.
fn deaf(site: &Site, paths: &[&str]) -> Client {
    let mut client = Client::open_with(site.address, &[(INITIAL_WINDOW_SIZE, 0x7fff_ffff)]);
    rustix::net::sockopt::set_socket_recv_buffer_size(&client.stream, 4_096).expect("an option");
    client.window(0, 0x7fff_ffff - WINDOW);
    for (stream, path) in (0..).zip(paths) {
        client.get_path(2 * stream + 1, path);
    }
    client
}

/// What waits for the socket of a client is bounded; the first bodies fill the buffers of the kernel.
#[test]
fn responses_that_are_not_read_are_bounded() {
    let site = Site::start("");
    let paths = [&["/large"; 5][..], &["/page"; 95]].concat();
    let (clients, felt) = beside(&site, || {
        let clients: Vec<_> = (0..CONNECTIONS).map(|_| deaf(&site, &paths)).collect();
        let (mut taken, mut since) = (0, Instant::now());
        eventually("no more to be taken from the backend", || {
            let now = site.received.count("GET /large") + site.received.count("GET /page");
            if now != taken {
                (taken, since) = (now, Instant::now());
            }
            (taken > 0 && since.elapsed() > Duration::from_millis(300)).then_some(())
        });
        clients
    });
    drop(clients);
    felt.is_within(GROWTH_KIB);
    site.is_at_rest();
}

/// A client that does not read is given up.
#[test]
fn responses_that_are_not_read_end() {
    let site = Site::start("body_timeout = \"1s\"\nkeepalive_timeout = \"1s\"");
    let clients: Vec<_> = (0..CONNECTIONS).map(|_| deaf(&site, &["/large"; BACKEND_CONNECTIONS])).collect();
    let words = site.endings("connection", CONNECTIONS);
    assert!(words.iter().all(|word| ["body_timeout", "keepalive_timeout"].contains(&word.as_str())), "{words:?}");
    let words = site.endings("request", CONNECTIONS * BACKEND_CONNECTIONS);
    assert!(words.iter().all(|word| word == "body_timeout"), "{words:?}");
    site.is_at_rest();
    drop(clients);
}

/// Requests whose bodies never end: `http2_streams` of them are open, all further ones are refused.
#[test]
fn streams_without_end() {
    let site = Site::start("");
    let (clients, felt) = beside(&site, || {
        let mut clients: Vec<_> = (0..CONNECTIONS).map(|_| site.client()).collect();
        for client in &mut clients {
            for stream in 0..150 {
                client.send(post(2 * stream + 1, "/never"));
                client.data(2 * stream + 1, "x", false);
            }
            let mut refused = 0;
            while refused < 50 {
                let (stream, code) = client.until("a stream that is refused", |event| match event {
                    Event::Reset { stream, code } => Some((*stream, *code)),
                    Event::GoAway { .. } => panic!("{event:?} behind {refused} resets"),
                    _ => None,
                });
                // DATA behind a stream that was refused may be replied to by another reset.
                assert!(stream > 200 && [REFUSED_STREAM, STREAM_CLOSED].contains(&code), "{stream}: {code}");
                refused += usize::from(code == REFUSED_STREAM);
            }
        }
        clients
    });
    let at_backend = site.received.count("/never");
    assert!(at_backend <= CONNECTIONS * BACKEND_CONNECTIONS, "{at_backend} requests are at the backend");
    drop(clients);
    felt.is_within(GROWTH_KIB);
    site.is_at_rest();
}
