//! Windows from end to end: large bodies, and peers that take nothing.

use super::site::Http2Site;
use super::{H2, http1_answer, plain};
use crate::http2::client::Client;
use crate::support::eventually;

#[test]
fn large_bodies_pass_both_ways() {
    let site = Http2Site::new();
    let sessile = plain("", H2, &[site.address]);
    let client = Client::plain(sessile.address("l"));
    let size = 5 << 20;
    assert_eq!(client.get(&format!("/down/{size}"), &[]).body.len(), size);
    let text = http1_answer(&sessile, &format!("GET /down/{size} HTTP/1.0\r\n\r\n"));
    assert_eq!(text.split_once("\r\n\r\n").expect("a head").1.len(), size);
    let mut exchange = client.begin(client.request("POST", "/slow", &[]), false).unwrap();
    site.door.add_permits(size);
    exchange.write(&vec![1; size], true).unwrap();
    assert_eq!(exchange.reply().unwrap().status, 200);
    assert_eq!(site.seen().read, size);
}

#[test]
fn a_slow_backend_stops_its_client_and_no_other_request() {
    let site = Http2Site::new();
    let sessile = plain("", H2, &[site.address]);
    let client = Client::plain(sessile.address("l"));
    let mut exchange = client.begin(client.request("POST", "/slow", &[]), false).unwrap();
    let sent = exchange.fill(8 << 20).unwrap();
    assert!(sent < 512 << 10, "{sent} bytes are under way");
    assert_eq!(client.get("/", &[]).status, 200);
    site.door.add_permits(8 << 20);
    exchange.write(&[1; 1000], true).unwrap();
    assert_eq!(exchange.reply().unwrap().status, 200);
    assert_eq!(site.seen().read, sent + 1000);
}

#[test]
fn a_client_that_takes_nothing_stops_its_backend_and_no_other_response() {
    let site = Http2Site::new();
    let sessile = plain("", H2, &[site.address]);
    let client = Client::plain(sessile.address("l"));
    let size = 8 << 20;
    let begun = client.ask(&format!("/down/{size}"), &[]).head().unwrap();
    let moved = || sessile.status()["pools"][0]["backends"][0]["bytes_down"].as_u64().expect("a number");
    let mut before = u64::MAX;
    eventually("the response to stop", || {
        let now = moved();
        std::mem::replace(&mut before, now).eq(&now).then_some(())
    });
    assert!(before < 512 << 10, "{before} bytes have passed");
    drop(begun);
    assert_eq!(client.get("/", &[]).status, 200);
}
