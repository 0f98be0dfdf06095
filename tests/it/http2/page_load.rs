//! Streams without a cookie: all of a first page load go to one backend, and when that is off.
//!
//! `SESSILE_TEST_PAGE_LOADS` is the number of first page loads, each over a connection of its own.

use std::collections::HashMap;

use serde_json::Value;

use super::client::{Client, Reply};
use super::frames::{Frames, HEADERS, get};
use super::site::{Site, counts, name_of};
use super::{HTTP, INSERT, plain_with, request_lines};
use crate::terminate::Front;

const STREAMS: usize = 20;

/// Page loads in the tree's own runs.
const LOADS: usize = 100;

fn home(reply: &Reply) -> String {
    assert_eq!(reply.status, 200);
    name_of(&reply.text())
}

fn three() -> (Front, [Site; 3]) {
    let sites = ["x", "y", "z"].map(Site::named);
    let front = Front::start("", INSERT, &sites.each_ref().map(Site::address));
    (front, sites)
}

/// Sends so many requests at once, without a cookie.
fn load(client: &Client, path: &str) -> Vec<Reply> {
    let streams: Vec<_> = (0..STREAMS).map(|_| client.ask(path, &[])).collect();
    streams.into_iter().map(|stream| stream.reply().unwrap()).collect()
}

#[test]
fn a_first_page_load_gets_one_backend_and_one_cookie() {
    let loads = super::told("PAGE_LOADS", LOADS);
    let (front, _sites) = three();
    let mut homes = Vec::new();
    for number in 0..loads {
        let client = Client::with(&front);
        let replies = load(&client, &format!("/{number}"));
        let own = counts(replies.iter().map(home));
        assert_eq!(own.len(), 1, "load {number}: {own:?}");
        let cookies = counts(replies.iter().map(Reply::cookie));
        assert_eq!(cookies.len(), 1, "load {number}: {cookies:?}");
        let cookie = cookies.into_keys().next().unwrap().expect("a cookie");
        // The next page has it.
        let next = client.get("/next", &[("cookie", &cookie)]);
        assert_eq!((home(&next), next.cookie()), (home(&replies[0]), None), "load {number}");
        homes.push(home(&replies[0]));
    }
    let homes = counts(homes);
    assert!(homes.len() == 3 && homes.values().all(|count| *count > loads / 6), "clients are spread: {homes:?}");
    let lines = request_lines(&front.sessile, loads * (STREAMS + 1));
    let mut reasons: HashMap<String, Vec<&Value>> = HashMap::new();
    for line in lines.iter().filter(|line| line["path"] != "/next") {
        reasons.entry(line["path"].to_string()).or_default().push(&line["reason"]);
    }
    assert_eq!(reasons.len(), loads);
    for (path, reasons) in reasons {
        let following = reasons.iter().filter(|reason| **reason == "connection").count();
        assert_eq!((reasons.len(), following), (STREAMS, STREAMS - 1), "{path}: {reasons:?}");
    }
    assert!(lines.iter().filter(|line| line["path"] == "/next").all(|line| line["reason"] == "cookie"));
}

#[test]
fn streams_without_a_cookie_follow_a_stream_that_its_cookie_has_placed() {
    let (front, _sites) = three();
    let first = Client::with(&front).get("/", &[]);
    let cookie = first.cookie().unwrap();
    let client = Client::with(&front);
    for _ in 0..3 {
        assert_eq!(home(&client.get("/known", &[("cookie", &cookie)])), home(&first));
        for reply in load(&client, "/unknown") {
            assert_eq!(home(&reply), home(&first));
            assert!(reply.cookie().is_some(), "its client has shown none");
        }
    }
    let lines = request_lines(&front.sessile, 1 + 3 * (STREAMS + 1));
    assert!(lines.iter().filter(|line| line["path"] == "/unknown").all(|line| line["reason"] == "connection"));
}

#[test]
fn two_different_valid_cookies_end_the_following() {
    let (front, _sites) = three();
    let cookies: Vec<_> =
        (0..3).map(|_| Client::with(&front).get("/", &[])).map(|reply| reply.cookie().unwrap()).collect();
    let client = Client::with(&front);
    // One and the same cookie, and one that is not valid, are not two.
    for _ in 0..2 {
        client.get("/", &[("cookie", &cookies[0])]);
        client.get("/", &[("cookie", &format!("{}x", cookies[1]))]);
    }
    assert_eq!(counts(load(&client, "/before").iter().map(home)).len(), 1);
    client.get("/", &[("cookie", &cookies[1])]);
    let after = counts(load(&client, "/after").iter().map(home));
    assert_eq!(after.len(), 3, "each is placed by itself: {after:?}");
    let lines = request_lines(&front.sessile, 8 + 2 * STREAMS);
    let following =
        |path: &str| lines.iter().filter(|line| line["path"] == path && line["reason"] == "connection").count();
    assert_eq!((following("/before"), following("/after")), (STREAMS, 0));
    // Another connection of the same client begins anew.
    assert_eq!(counts(load(&Client::with(&front), "/other").iter().map(home)).len(), 1);
}

#[test]
fn streams_of_a_peer_in_trust_never_follow_each_other() {
    let sites = ["x", "y", "z"].map(Site::named);
    let keys = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(keys.path(), "0123456789abcdef5a69788796a5b4c3".repeat(2) + "\n").unwrap();
    let options = INSERT.replace("$FILES/cookie.keys", keys.path().to_str().unwrap());
    let addresses = sites.each_ref().map(Site::address);
    let sessile = plain_with("", "trust = [\"127.0.0.0/8\"]\n", &options, &addresses);
    // v2, PROXY, TCP over IPv4.
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend([198, 51, 100, 7, 192, 0, 2, 1, 0x10, 0, 1, 187]);
    for first in [&header[..], b"PROXY TCP4 198.51.100.7 192.0.2.1 4096 443\r\n"] {
        let client = Client::behind(sessile.address("l"), first);
        let replies = load(&client, "/page");
        let homes = counts(replies.iter().map(home));
        assert_eq!(homes.len(), 3, "each is placed by itself: {homes:?}");
        assert!(replies.iter().all(|reply| reply.text().contains("X-Forwarded-For: 198.51.100.7\r\n")));
        let cookies = counts(replies.iter().map(|reply| reply.cookie().unwrap()));
        for cookie in cookies.keys() {
            let owner = replies.iter().find(|reply| reply.cookie().as_ref() == Some(cookie)).unwrap();
            assert_eq!(home(&client.get("/again", &[("cookie", cookie)])), home(owner));
        }
    }
    let lines = request_lines(&sessile, 2 * STREAMS);
    assert!(lines.iter().all(|line| line["reason"] != "connection"), "{lines:?}");
    assert!(lines.iter().all(|line| line["client"].as_str().unwrap().starts_with("198.51.100.7:")));
}

#[test]
fn a_backend_that_goes_takes_all_streams_to_one_other() {
    let sites = ["x", "y", "z"].map(Site::named);
    let options = INSERT.to_owned() + "connect_timeout = \"200ms\"\n";
    let front = Front::start("", &options, &sites.each_ref().map(Site::address));
    let client = Client::with(&front);
    let first = home(&client.get("/", &[]));
    let (gone, _stay): (Vec<_>, Vec<_>) = sites.into_iter().zip(["x", "y", "z"]).partition(|(_, name)| *name == first);
    gone.into_iter().for_each(|(site, _)| site.kill());
    let replies = load(&client, "/after");
    let homes = counts(replies.iter().map(home));
    assert!(homes.len() == 1 && !homes.contains_key(&first), "{first}: {homes:?}");
    assert_eq!(counts(replies.iter().map(Reply::cookie)).len(), 1);
}

#[test]
fn a_page_load_while_its_backend_drains_stays_in_one_place() {
    let (front, _sites) = three();
    let client = Client::with(&front);
    let first = home(&client.get("/", &[]));
    let number = ["x", "y", "z"].iter().position(|name| *name == first).unwrap();
    let path = format!("/backends/p/b{number}/drain");
    let answer = crate::support::http::unix_post(&front.sessile.admin(), &path);
    assert_eq!(answer.map(|answer| answer.0), Some(200));
    let homes = counts(load(&client, "/after").iter().map(home));
    assert_eq!(homes.len(), 1, "{first}: {homes:?}");
    // Other connections do not go there.
    let others = counts((0..4).map(|_| home(&Client::with(&front).get("/", &[]))));
    assert!(!others.contains_key(&first), "{first}: {others:?}");
}

#[test]
fn streams_that_come_in_one_write_follow_the_first_of_them() {
    let sites = ["x", "y", "z"].map(Site::named);
    let keyless = format!("{HTTP}balance = \"round_robin\"\n");
    let addresses = sites.each_ref().map(Site::address);
    let cookie = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(cookie.path(), "0123456789abcdef5a69788796a5b4c3".repeat(2) + "\n").unwrap();
    let options = format!("{keyless}cookie = {{ mode = \"insert\", keys = \"{}\" }}\n", cookie.path().display());
    let sessile = plain_with("", "", &options, &addresses);
    for number in 0..20 {
        let mut frames = Frames::open(sessile.address("l"));
        let path = format!("/{number}");
        let heads =
            (0..20).flat_map(|n| super::frames::frame(HEADERS, 5, 2 * n + 1, &super::frames::block(&get(&path))));
        let heads: Vec<u8> = heads.collect();
        std::io::Write::write_all(&mut frames.stream, &heads).unwrap();
        for _ in 0..20 {
            assert_eq!(frames.until(|frame| frame.kind == HEADERS).expect("a head").status(), 200);
        }
    }
    let lines = request_lines(&sessile, 400);
    let mut backends: HashMap<String, Vec<String>> = HashMap::new();
    for line in &lines {
        backends.entry(line["path"].to_string()).or_default().push(line["backend"].to_string());
    }
    assert!(backends.len() == 20 && backends.values().all(|own| counts(own).len() == 1), "{backends:?}");
}
