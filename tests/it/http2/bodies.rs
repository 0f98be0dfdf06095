//! Bodies: every size and framing in both directions, and messages that have none.

use super::client::Client;
use super::site::{Site, pattern, verdict};
use super::{HTTP, line_of};
use crate::terminate::Front;

const SIZES: [usize; 5] = [0, 1, 16 << 10, 65_536, 5 << 20];

#[test]
fn bodies_of_every_size_and_framing_come_down_unchanged() {
    let site = Site::named("x");
    let front = Front::start("", HTTP, &[site.address()]);
    let client = Client::with(&front);
    for size in SIZES {
        let whole = pattern(size);
        for framing in ["length", "chunked", "close"] {
            let path = format!("/down/{framing}/{size}");
            let reply = client.get(&path, &[]);
            assert_eq!(reply.status, 200, "{path}");
            assert!(reply.body == whole, "{path}: {} bytes", reply.body.len());
            assert!(reply.field("transfer-encoding").is_none() && reply.field("connection").is_none(), "{path}");
            let length = size.to_string();
            let wanted = (framing == "length").then_some(length.as_str());
            assert_eq!(reply.field("content-length"), wanted, "{path}");
            assert!(reply.trailers.is_none_or(|trailers| trailers.is_empty()), "{path}");
            // The same without its body.
            let head = client.begin(client.request("HEAD", &path, &[]), true).unwrap().reply().unwrap();
            assert_eq!((head.status, head.body.len(), head.field("content-length")), (200, 0, wanted), "HEAD {path}");
        }
    }
    let line = line_of(&front.sessile, &format!("/down/chunked/{}", 5 << 20));
    assert_eq!((&line["ended"], &line["status"], &line["method"]), (&"done".into(), &200.into(), &"GET".into()));
    assert!(line["bytes_down"].as_u64() >= Some(5 << 20), "{line}");
    client.close().unwrap();
    front.sessile.ended("l", "done");
}

#[test]
fn bodies_of_every_size_go_up_unchanged_with_and_without_a_length() {
    let site = Site::named("x");
    let front = Front::start("", HTTP, &[site.address()]);
    let client = Client::with(&front);
    for size in SIZES {
        let whole = pattern(size);
        let length = size.to_string();
        for method in ["POST", "PUT", "PATCH"] {
            for fields in [&[][..], &[("content-length", length.as_str())]] {
                let reply = client.send(method, "/up", fields, &whole).unwrap();
                let text = reply.text();
                assert!(text.starts_with(&verdict(&whole)), "{method}, {size}, {fields:?}: {text}");
                let body = site.upload();
                let chunked = fields.is_empty() && size > 0;
                assert!(body.chunked == chunked || size == 0, "{method}, {size}, {fields:?}: {body:?}");
            }
        }
    }
    let line = front.sessile.line("an upload", |line| line["bytes_up"].as_u64() >= Some(5 << 20));
    assert_eq!((&line["ended"], &line["path"]), (&"done".into(), &"/up".into()), "{line}");
}

#[test]
fn a_body_in_many_small_pieces_is_one_body() {
    let site = Site::named("x");
    let front = Front::start("", HTTP, &[site.address()]);
    let client = Client::with(&front);
    let whole = pattern(3_000);
    let mut exchange = client.begin(client.request("POST", "/up", &[]), false).unwrap();
    for piece in whole.chunks(30) {
        exchange.write(piece, false).unwrap();
    }
    exchange.write(&[], true).unwrap();
    assert!(exchange.reply().unwrap().text().starts_with(&verdict(&whole)));
}

#[test]
fn responses_without_a_body_end_at_their_head() {
    let site = Site::named("x");
    let front = Front::start("", HTTP, &[site.address()]);
    let client = Client::with(&front);
    let none = client.ask("/status/204", &[]).head().unwrap();
    assert_eq!((none.head.status().as_u16(), none.head.headers()["x-a"].to_str().unwrap()), (204, "b"));
    assert!(none.body.is_end_stream(), "the head ends the stream");
    assert!(none.head.headers().get("content-length").is_none());
    let same = client.ask("/status/304", &[]).head().unwrap();
    assert_eq!((same.head.status().as_u16(), same.head.headers()["etag"].to_str().unwrap()), (304, "\"x\""));
    assert!(same.body.is_end_stream(), "the head ends the stream");
    let empty = client.get("/down/length/0", &[]);
    assert_eq!((empty.status, empty.body.len()), (200, 0));
    assert_eq!(client.get("/after", &[]).status, 200);
    assert_eq!(client.get("/status/404", &[]).text(), "no");
}

#[test]
fn a_body_without_a_length_that_the_backend_ends_by_closing_ends_no_other_stream() {
    let site = Site::named("x");
    let front = Front::start("", HTTP, &[site.address()]);
    let client = Client::with(&front);
    let waiting = client.ask("/wait", &[]);
    site.arrived(1);
    for _ in 0..3 {
        assert!(client.get("/down/close/100000", &[]).body == pattern(100_000));
    }
    site.door.open();
    assert_eq!(waiting.reply().unwrap().status, 200);
    assert!(client.ended().is_none());
}

#[test]
fn forty_transfers_at_once_on_one_connection_do_not_mix() {
    let site = Site::named("x");
    let front = Front::start("", HTTP, &[site.address()]);
    let client = Client::with(&front);
    std::thread::scope(|scope| {
        let transfers: Vec<_> = (0..40usize)
            .map(|n| {
                let client = &client;
                scope.spawn(move || {
                    let body = pattern(20_000 + 977 * n);
                    if n % 2 == 0 {
                        let reply = client.send("POST", "/up", &[], &body).unwrap();
                        assert!(reply.text().starts_with(&verdict(&body)), "{n}");
                    } else {
                        let framing = ["length", "chunked", "close"][n % 3];
                        assert!(client.get(&format!("/down/{framing}/{}", body.len()), &[]).body == body, "{n}");
                    }
                })
            })
            .collect();
        transfers.into_iter().for_each(|transfer| transfer.join().unwrap());
    });
}
