//! GOAWAY in two phases, frame by frame: a request that is under way when the first comes is served.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::client::Client;
use super::frames::{ACK, Frame, Frames, GOAWAY, HEADERS, PING, RST_STREAM, get};
use super::site::{Site, counts};
use super::{HTTP, plain};

/// The last stream of a first GOAWAY: none is refused yet.
const ALL: u32 = 0x7fff_ffff;

/// Reads to the end of the connection, answers each PING, and returns what has come but for DATA.
fn to_the_end(frames: &mut Frames, mut seen: impl FnMut(&mut Frames, &Frame)) -> Vec<Frame> {
    let mut all = Vec::new();
    while let Some(frame) = frames.next() {
        if frame.kind == PING && !frame.has(ACK) {
            let _ = frames.try_send(PING, ACK, 0, &frame.payload);
        }
        seen(frames, &frame);
        all.push(frame);
    }
    all
}

/// The last streams of all GOAWAY frames, none of which may say an error.
fn goaways(all: &[Frame]) -> Vec<u32> {
    let goaways = all.iter().filter(|frame| frame.kind == GOAWAY);
    goaways.inspect(|frame| assert_eq!(frame.code(), 0, "{frame:?}")).map(|frame| frame.number() & ALL).collect()
}

/// The status of every stream that got one.
fn statuses(all: &[Frame]) -> Vec<(u32, u16)> {
    let heads = all.iter().filter(|frame| frame.kind == HEADERS);
    heads.map(|frame| (frame.stream, frame.status())).collect()
}

#[test]
fn a_stop_says_so_twice_and_serves_what_was_sent_between() {
    let site = Site::named("x");
    let mut sessile = plain("", HTTP, &[site.address()]);
    let mut frames = Frames::open(sessile.address("l"));
    frames.head(1, &get("/wait"), true);
    site.arrived(1);
    sessile.signal(Signal::TERM);
    let door = &site.door;
    let mut sent = false;
    let all = to_the_end(&mut frames, |frames, frame| {
        // Sent before anything else is answered, as if it had been under way.
        if frame.kind == GOAWAY && !std::mem::replace(&mut sent, true) {
            frames.head(3, &get("/between"), true);
        }
        if frame.kind == HEADERS && frame.stream == 3 {
            door.open();
        }
    });
    let last = goaways(&all);
    assert_eq!((last.first(), last.last()), (Some(&ALL), Some(&3)), "{last:?}");
    let mut statuses = statuses(&all);
    statuses.sort_unstable();
    assert_eq!(statuses, [(1, 200), (3, 200)]);
    assert!(all.iter().all(|frame| frame.kind != RST_STREAM));
    assert!(sessile.wait().success());
}

#[test]
fn a_request_after_the_last_goaway_is_served_by_nobody_and_may_be_sent_again() {
    let site = Site::named("x");
    let sessile = plain("", HTTP, &[site.address()]);
    let mut frames = Frames::open(sessile.address("l"));
    frames.head(1, &get("/wait"), true);
    site.arrived(1);
    sessile.signal(Signal::TERM);
    let door = &site.door;
    let all = to_the_end(&mut frames, |frames, frame| {
        if frame.kind == GOAWAY && frame.number() & ALL != ALL {
            let _ = frames.try_send(HEADERS, 5, 9, &super::frames::block(&get("/late")));
            std::thread::sleep(Duration::from_millis(100));
            door.open();
        }
    });
    assert_eq!(goaways(&all).last(), Some(&1));
    assert_eq!(statuses(&all), [(1, 200)]);
    assert!(!site.connections().iter().flatten().any(|path| path == "/late"));
}

#[test]
fn a_connection_that_is_idle_for_keepalive_timeout_gets_goaway_and_its_end() {
    let site = Site::named("x");
    let sessile = plain("[limits]\nkeepalive_timeout = \"1s\"\n", HTTP, &[site.address()]);
    let mut frames = Frames::open(sessile.address("l"));
    assert_eq!(frames.asks(1, "/status/404"), super::frames::Outcome::Status(404));
    let began = Instant::now();
    let all = to_the_end(&mut frames, |_, _| {});
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    assert_eq!(goaways(&all).last(), Some(&1));
    sessile.ended("l", "keepalive_timeout");
}

#[test]
fn a_stream_that_takes_longer_than_keepalive_timeout_is_not_idle() {
    let site = Site::named("x");
    let sessile = plain("[limits]\nkeepalive_timeout = \"500ms\"\n", HTTP, &[site.address()]);
    let client = Client::plain(sessile.address("l"));
    let waiting = client.ask("/wait", &[]);
    site.arrived(1);
    std::thread::sleep(Duration::from_millis(1_500));
    assert!(client.ended().is_none());
    site.door.open();
    assert_eq!(waiting.reply().unwrap().status, 200);
}

#[test]
fn a_connection_that_reaches_its_lifetime_gets_goaway_and_its_end() {
    let site = Site::named("x");
    let sessile = plain("[limits]\nlifetime = \"1s\"\n", HTTP, &[site.address()]);
    let mut frames = Frames::open(sessile.address("l"));
    assert_eq!(frames.asks(1, "/status/404"), super::frames::Outcome::Status(404));
    let all = to_the_end(&mut frames, |_, _| {});
    assert_eq!(goaways(&all).last(), Some(&1));
    sessile.ended("l", "lifetime");
}

#[test]
fn after_requests_max_a_client_goes_on_over_a_new_connection_and_sees_no_error() {
    let site = Site::named("x");
    let sessile = plain("[limits]\nrequests_max = 5\n", HTTP, &[site.address()]);
    let mut used = Vec::new();
    let mut client = Client::plain(sessile.address("l"));
    used.push(0);
    let mut served = 0;
    while served < 35 {
        match client.begin(client.request("GET", &format!("/{served}"), &[]), true).and_then(|it| it.reply()) {
            Ok(reply) => {
                assert_eq!(reply.status, 200);
                served += 1;
                *used.last_mut().unwrap() += 1;
            }
            Err(error) => {
                // What the server has not taken may be sent again.
                assert!(error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR), "{error:?}");
                client = Client::plain(sessile.address("l"));
                used.push(0);
            }
        }
    }
    assert_eq!(site.requests(), 35, "none twice");
    assert!((7..=9).contains(&used.len()) && used.iter().all(|count| *count <= 6), "{used:?}");
}

#[test]
fn streams_at_once_beyond_requests_max_are_all_served() {
    let site = Site::named("x");
    let sessile = plain("[limits]\nrequests_max = 5\n", HTTP, &[site.address()]);
    let mut frames = Frames::open(sessile.address("l"));
    for n in 0..5 {
        frames.head(2 * n + 1, &get("/wait"), true);
    }
    site.arrived(5);
    site.door.open();
    let all = to_the_end(&mut frames, |_, _| {});
    let last = goaways(&all);
    assert_eq!((last.first(), last.last()), (Some(&ALL), Some(&9)), "{last:?}");
    assert_eq!(counts(statuses(&all).into_iter().map(|(_, status)| status)), counts([200; 5]));
}
