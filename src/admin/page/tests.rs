//! The page through both doors: its files, and streams of samples of a control that plays along.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::SampleTaker;
use super::sampler::{PORT_VIEWERS_MAX, VIEWERS_MAX};
use crate::admin::tests::{Fake, TestAdmin};
use crate::events::{Event, EventKind};

const PATIENCE: Duration = Duration::from_secs(20);

/// A stream of samples, read as it comes.
struct Reader<S>(BufReader<S>);

impl<S: Read + Write> Reader<S> {
    /// Asks for the stream; its status code.
    fn ask(mut stream: S) -> (u16, Self) {
        stream.write_all(b"GET /stream HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        let mut reader = Self(BufReader::new(stream));
        let code = reader.line().split(' ').nth(1).unwrap().parse().unwrap();
        while reader.line() != "\r\n" {}
        (code, reader)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line
    }

    fn sample(&mut self) -> Value {
        loop {
            let line = self.line();
            assert!(!line.is_empty(), "the stream has ended");
            if let Some(json) = line.strip_prefix("data: ") {
                return serde_json::from_str(json).unwrap();
            }
        }
    }
}

fn over_unix(admin: &TestAdmin) -> (u16, Reader<UnixStream>) {
    let stream = UnixStream::connect(&admin.socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Reader::ask(stream)
}

fn over_http(admin: &TestAdmin) -> (u16, Reader<TcpStream>) {
    let stream = TcpStream::connect(admin.http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Reader::ask(stream)
}

#[test]
fn the_files_come_from_the_binary_and_name_no_other_place() {
    let admin = TestAdmin::start();
    for (path, begin) in [("/", "<!doctype html>"), ("/page.css", "/*"), ("/page.js", "//"), ("/icon.svg", "<svg")] {
        let (code, text) = admin.over_http("GET", path);
        assert_eq!((code, text.starts_with(begin)), (200, true), "{path}");
        assert_eq!(admin.over_unix("GET", path), (code, text.clone()), "{path}");
        assert_eq!(admin.over_http("POST", path).0, 405, "{path}");
        let text = text.replace("http://www.w3.org/2000/svg", "");
        for foreign in ["http:", "https:", "//cdn", "@import", "url(", "innerHTML", "insertAdjacentHTML", "eval("] {
            assert!(!text.contains(foreign), "{path} has {foreign}");
        }
    }
    let markup = admin.over_http("GET", "/").1;
    for inline in ["<style", "style=", "onclick", "onload", "onsubmit", "javascript:"] {
        assert!(!markup.contains(inline), "{inline}");
    }
    assert_eq!(markup.matches("<script").count(), markup.matches("<script src=\"page.js\" defer></script>").count());
}

#[test]
fn a_stream_has_a_type_that_is_not_kept() {
    let admin = TestAdmin::start();
    let mut stream = TcpStream::connect(admin.http).unwrap();
    stream.write_all(b"HEAD /stream HTTP/1.0\r\n\r\n").unwrap();
    let mut head = String::new();
    stream.read_to_string(&mut head).unwrap();
    let head = head.to_ascii_lowercase();
    for field in ["http/1.0 200", "content-type: text/event-stream", "cache-control: no-store", "nosniff"] {
        assert!(head.contains(field), "{field}: {head}");
    }
}

#[test]
fn samples_have_pools_tables_and_events_and_name_clients_by_the_rule_of_the_door() {
    let admin = TestAdmin::with(false);
    admin.control.events.note(1_000, Event::new(EventKind::Down, "<b>down</b>").of_backend("web", "a"));
    let (mut unix, mut http) = (over_unix(&admin).1, over_http(&admin).1);
    let (named, hidden) = (unix.sample(), http.sample());
    for (sample, names, key) in [(&named, true, "10.0.0.1"), (&hidden, false, "hidden")] {
        assert_eq!(sample["pools"][0]["backends"][1]["name"], "b");
        assert_eq!((&sample["generation"], &sample["backends"]), (&4.into(), &2.into()));
        assert_eq!(sample["events"][0]["text"], "<b>down</b>");
        assert_eq!((&sample["names_clients"], &sample["tables"][0]["hottest"][0]["key"]), (&names.into(), &key.into()));
    }
    admin.control.events.note(2_000, Event::new(EventKind::Up, "up").of_backend("web", "a"));
    let until = Instant::now() + PATIENCE;
    while unix.sample()["events"].as_array().unwrap().len() < 2 {
        assert!(Instant::now() < until, "an event comes with the next sample");
    }
}

#[test]
fn many_viewers_cost_as_many_samples_as_one_and_no_viewer_none() {
    let admin = TestAdmin::start();
    assert_eq!(admin.control.samples.load(SeqCst), 0);
    let began = Instant::now();
    let mut viewers: Vec<_> = (0..16).map(|_| over_http(&admin).1).collect();
    let mut times = BTreeSet::new();
    for _ in 0..3 {
        times.extend(viewers.iter_mut().map(|viewer| viewer.sample()["unix_ms"].as_u64().unwrap()));
    }
    let taken = admin.control.samples.load(SeqCst);
    assert!(taken as u64 <= began.elapsed().as_secs() + 2, "{taken} samples in {:?}", began.elapsed());
    assert!(times.len() <= taken, "{} samples seen, {taken} taken", times.len());
    drop(viewers);
    // What a viewer that leaves was being sent is over within a sample or two.
    let until = Instant::now() + PATIENCE;
    let mut before = admin.control.samples.load(SeqCst);
    loop {
        thread::sleep(Duration::from_millis(2_500));
        let now = admin.control.samples.load(SeqCst);
        if now == before {
            break;
        }
        assert!(Instant::now() < until, "samples without a viewer");
        before = now;
    }
}

#[test]
fn viewers_are_so_many_and_leave_every_place_to_requests() {
    let admin = TestAdmin::start();
    let mut viewers: Vec<_> = (0..VIEWERS_MAX).map(|_| over_unix(&admin)).collect();
    assert!(viewers.iter().all(|(code, _)| *code == 200));
    let (code, mut refused) = over_unix(&admin);
    assert_eq!((code, &*refused.line()), (503, "64 viewers watch this process already; close one of their pages\n"));
    assert_eq!(over_http(&admin).0, 503, "over both doors");
    let began = Instant::now();
    for _ in 0..100 {
        assert_eq!(admin.over_unix("GET", "/healthz").0, 200);
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    viewers.iter_mut().for_each(|(_, viewer)| drop(viewer.sample()));
    viewers.pop();
    let until = Instant::now() + PATIENCE;
    while over_http(&admin).0 != 200 {
        assert!(Instant::now() < until, "a place is free again");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn viewers_through_the_port_leave_places_to_the_socket() {
    let admin = TestAdmin::start();
    let viewers: Vec<_> = (0..PORT_VIEWERS_MAX).map(|_| over_http(&admin)).collect();
    assert!(viewers.iter().all(|(code, _)| *code == 200));
    let (code, mut refused) = over_http(&admin);
    assert_eq!((code, &*refused.line()), (503, "48 viewers watch this process already; close one of their pages\n"));
    let (code, mut viewer) = over_unix(&admin);
    assert_eq!(code, 200);
    viewer.sample();
}

#[test]
fn rates_are_by_the_times_at_which_traffic_is_counted() {
    let control = Arc::new(Fake::default());
    control.look_ms.store(600, SeqCst);
    let mut taker = SampleTaker::new(Arc::clone(&control));
    taker.take();
    thread::sleep(Duration::from_millis(300));
    let rate = taker.take().per_s.unwrap().connections;
    assert_eq!(control.looks.load(SeqCst), 1);
    assert!((700.0..1_300.0).contains(&rate), "1,000 connections come each second: {rate}");
}

#[test]
fn stick_tables_are_counted_once_for_viewers_that_come_and_go() {
    let control = Arc::new(Fake::default());
    // The next look is due after 200 times as long.
    control.look_ms.store(100, SeqCst);
    for _ in 0..3 {
        let sample = SampleTaker::new(Arc::clone(&control)).take();
        assert_eq!(sample.tables[0].stick_table.name, "web");
    }
    assert_eq!(control.looks.load(SeqCst), 1);
}

#[test]
fn a_stream_ends_in_order_with_its_door() {
    let admin = TestAdmin::start();
    let mut stream = UnixStream::connect(&admin.socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut first = [0; 15];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    let mut other = over_http(&admin).1;
    other.sample();
    let began = Instant::now();
    admin.stop.send_replace(true);
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("\r\n0\r\n\r\n"), "the last chunk: {:?}", rest.get(rest.len().saturating_sub(40)..));
    while !other.line().is_empty() {}
    drop(admin);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn neither_the_page_nor_its_stream_is_for_a_foreign_site() {
    let admin = TestAdmin::start();
    let port = admin.http;
    let code = |path: &str, fields: &str| -> u16 {
        let mut stream = TcpStream::connect(port).unwrap();
        write!(stream, "HEAD {path} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n").unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        reply.split(' ').nth(1).unwrap().parse().unwrap()
    };
    for path in ["/", "/page.js", "/stream"] {
        assert_eq!(code(path, &format!("Host: {port}\r\nOrigin: http://{port}\r\n")), 200, "{path}");
        assert_eq!(code(path, "Host: rebound.attacker.test\r\n"), 421, "{path}");
        assert_eq!(code(path, &format!("Host: {port}\r\nOrigin: http://attacker.test\r\n")), 403, "{path}");
        assert_eq!(code(path, &format!("Host: {port}\r\nSec-Fetch-Site: cross-site\r\n")), 403, "{path}");
    }
}
