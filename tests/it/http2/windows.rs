//! Flow control: what stands still on one stream stops no other stream, and takes bounded memory.

use std::net::TcpStream;
use std::time::Duration;

use super::client::{Begun, Client};
use super::frames::{DATA, Frames, HEADERS, get};
use super::site::{Site, pattern, verdict};
use super::{HTTP, INSERT, line_of, plain};
use crate::support::eventually;
use crate::terminate::Front;

const UPLOAD: usize = 5 << 20;

fn works(client: &Client, count: usize) {
    for n in 0..count {
        assert_eq!(client.get(&format!("/{n}"), &[]).status, 200);
    }
    let body = pattern(1 << 20);
    assert!(client.send("POST", "/up", &[], &body).unwrap().text().starts_with(&verdict(&body)));
    assert!(client.get("/down/chunked/1000000", &[]).body == pattern(1_000_000));
}

#[test]
fn a_backend_that_does_not_read_an_upload_stops_no_other_stream() {
    let site = Site::named("x");
    let front = Front::start("", HTTP, &[site.address()]);
    let client = Client::with(&front);
    let length = UPLOAD.to_string();
    let fields = [("content-length", length.as_str())];
    // Some more than one, and a place for what goes on.
    let mut stalled: Vec<_> =
        (0..4).map(|_| client.begin(client.request("POST", "/stall", &fields), false).unwrap()).collect();
    site.arrived(4);
    let sent: Vec<_> = stalled.iter_mut().map(|upload| upload.fill(UPLOAD).unwrap()).collect();
    works(&client, 20);
    // What was taken from the client is little more than the kernel's buffers on the way to the backend.
    assert!(sent.iter().all(|sent| *sent < UPLOAD), "the window closes: {sent:?}");
    site.door.open();
    for (mut upload, sent) in stalled.into_iter().zip(sent) {
        upload.write(&vec![0; UPLOAD - sent], true).unwrap();
        assert_eq!(upload.reply().unwrap().status, 200);
    }
    let whole = verdict(&vec![0; UPLOAD]);
    for body in std::iter::repeat_with(|| site.upload()).filter(|body| body.length == UPLOAD).take(4) {
        assert_eq!(format!("{} {:08x}", body.length, body.sum), whole);
    }
    works(&client, 5);
}

#[test]
fn uploads_that_wait_for_a_connection_stop_no_stream_to_another_backend() {
    let sites = ["x", "y"].map(Site::named);
    let front = Front::start("", INSERT, &sites.each_ref().map(Site::address));
    let cookie_of = |name: &str| {
        let found = (0..4).map(|_| Client::with(&front).get("/", &[])).find(|reply| reply.text().starts_with(name));
        found.and_then(|reply| reply.cookie()).expect("a user of each backend")
    };
    let (slow, quick) = (cookie_of("x "), cookie_of("y "));
    let client = Client::with(&front);
    let fields = [("cookie", slow.as_str())];
    let mut stalled: Vec<_> =
        (0..30).map(|_| client.begin(client.request("POST", "/stall", &fields), false).unwrap()).collect();
    sites[0].arrived(6);
    for upload in &mut stalled {
        upload.fill(1 << 20).unwrap();
    }
    let body = pattern(1 << 20);
    for _ in 0..5 {
        let reply = client.send("POST", "/up", &[("cookie", &quick)], &body).unwrap();
        assert!(reply.text().starts_with(&verdict(&body)), "{}", reply.text());
    }
    drop(stalled);
    eventually("the uploads to end", || (sites[0].open() <= 1).then_some(()));
}

#[test]
fn a_client_that_does_not_read_one_stream_reads_the_others() {
    let site = Site::named("x");
    let front = Front::start("", HTTP, &[site.address()]);
    let client = Client::roomy(&front);
    let unread: Vec<Begun> =
        (0..4).map(|_| client.ask(&format!("/down/length/{UPLOAD}"), &[]).head().unwrap()).collect();
    works(&client, 20);
    for mut begun in unread {
        assert!(begun.rest().unwrap() == pattern(UPLOAD));
    }
}

#[test]
fn responses_that_are_not_read_take_bounded_memory() {
    const STREAMS: usize = 60;
    let site = Site::named("x");
    let sessile = plain("[limits]\nhttp2_backend_connections = 64\n", HTTP, &[site.address()]);
    assert_eq!(Client::plain(sessile.address("l")).get("/", &[]).status, 200);
    let before = sessile.anonymous_kib();
    // A window of zero for each stream.
    let mut frames = Frames::open_with(sessile.address("l"), &[(4, 0)]);
    for n in 0..STREAMS as u32 {
        frames.head(2 * n + 1, &get("/endless"), true);
    }
    for _ in 0..STREAMS {
        assert_eq!(frames.until(|frame| frame.kind == HEADERS).expect("a head").status(), 200);
    }
    std::thread::sleep(Duration::from_millis(500));
    let grown = sessile.anonymous_kib().saturating_sub(before);
    println!("{grown} KiB for {STREAMS} streams");
    assert!(grown < STREAMS * 160, "{grown} KiB for {STREAMS} streams");
    drop(frames);
    eventually("the backend to be left", || (site.open() == 0).then_some(()));
}

#[test]
fn a_window_of_one_byte_is_enough_for_a_short_body() {
    let site = Site::named("x");
    let sessile = plain("", HTTP, &[site.address()]);
    let mut frames = Frames::open_with(sessile.address("l"), &[(4, 1)]);
    frames.head(1, &get("/down/length/20"), true);
    let mut body = Vec::new();
    while body.len() < 20 {
        let data = frames.until(|frame| frame.kind == DATA).expect("a body");
        assert!(data.payload.len() <= 1, "{data:?}");
        body.extend(data.payload);
        frames.send(super::frames::WINDOW_UPDATE, 0, 1, &1u32.to_be_bytes());
    }
    assert_eq!(body, pattern(20));
}

#[test]
fn a_window_that_stays_shut_ends_its_stream_after_body_timeout_and_no_other() {
    let site = Site::named("x");
    let sessile = plain("[limits]\nbody_timeout = \"1s\"\n", HTTP, &[site.address()]);
    let mut frames = Frames::open(sessile.address("l"));
    frames.head(1, &get("/down/length/1000000"), true);
    assert_eq!(frames.until(|frame| frame.kind == HEADERS).expect("a head").status(), 200);
    // Other streams come and go meanwhile; they take of the connection's window, too.
    for n in 1..4 {
        frames.send(super::frames::WINDOW_UPDATE, 0, 0, &10_000u32.to_be_bytes());
        assert_eq!(frames.asks(2 * n + 1, "/status/404"), super::frames::Outcome::Status(404));
        std::thread::sleep(Duration::from_millis(100));
    }
    let reset = frames.until(|frame| frame.kind == super::frames::RST_STREAM).expect("a reset");
    assert_eq!(reset.stream, 1);
    let line = line_of(&sessile, "/down/length/1000000");
    assert_eq!((&line["ended"], &line["fault"]), (&"body_timeout".into(), &"limit".into()), "{line}");
    assert_eq!(frames.asks(21, "/status/404"), super::frames::Outcome::Status(404));
    eventually("the backend to be left", || (site.open() <= 1).then_some(()));
}

#[test]
fn a_client_whose_kernel_takes_nothing_costs_no_other_client() {
    let site = Site::named("x");
    let sessile = plain("", HTTP, &[site.address()]);
    let mut frames = Frames::open_with(sessile.address("l"), &[(4, 0x7fff_ffff)]);
    frames.send(super::frames::WINDOW_UPDATE, 0, 0, &0x7000_0000u32.to_be_bytes());
    for n in 0..5 {
        frames.head(2 * n + 1, &get("/endless"), true);
    }
    // Nothing is read here from now on.
    std::thread::sleep(Duration::from_millis(300));
    let client = Client::plain(sessile.address("l"));
    for n in 0..20 {
        assert_eq!(client.get(&format!("/{n}"), &[]).status, 200);
    }
    let stream: TcpStream = frames.stream;
    drop(stream);
    eventually("the backend to be left", || (site.open() <= 1).then_some(()));
}
