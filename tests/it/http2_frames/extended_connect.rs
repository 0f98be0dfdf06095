//! RFC 8441: a WebSocket over a stream. The backend speaks HTTP/1.1, so the stream becomes an Upgrade.

use super::cases::{Case, MALFORMED, run};
use super::site::{Site, field};
use super::wire::*;
use crate::support::eventually;

/// Fields that open a WebSocket at a path of the backend.
fn socket(path: &'static str) -> [(&'static str, &'static str); 6] {
    [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":authority", "a.test"),
        (":path", path),
        ("sec-websocket-version", "13"),
    ]
}

/// Fields of an extended CONNECT without those of these names.
fn without(names: &[&str]) -> Vec<(&'static str, &'static str)> {
    socket("/socket").into_iter().filter(|(name, _)| !names.contains(name)).collect()
}

#[test]
fn malformed_extended_connect_is_refused() {
    let cases: &[Case] = &[
        ("8441 4 no :scheme", MALFORMED, |c| c.head(1, &without(&[":scheme"]), false)),
        ("8441 4 no :path", MALFORMED, |c| c.head(1, &without(&[":path"]), false)),
        ("8441 4 no :authority", MALFORMED, |c| c.head(1, &without(&[":authority"]), false)),
        ("8441 4 two :protocol", MALFORMED, |c| {
            c.head(1, &[&[(":protocol", "websocket")], &socket("/socket")[..]].concat(), false);
        }),
        ("8441 4 :protocol with GET", MALFORMED, |c| {
            c.head(1, &[&[(":protocol", "websocket")], &GET[..]].concat(), true);
        }),
        ("8441 4 an unknown protocol", MALFORMED.or_status(400, 501), |c| {
            c.head(1, &[&[(":protocol", "unknown")], &without(&[":protocol"])[..]].concat(), false);
        }),
        ("8441 4 an empty protocol", MALFORMED.or_status(400, 501), |c| {
            c.head(1, &[&[(":protocol", "")], &without(&[":protocol"])[..]].concat(), false);
        }),
        ("8441 5 connection: upgrade", MALFORMED, |c| {
            c.head(1, &[&socket("/socket")[..], &[("connection", "upgrade")]].concat(), false);
        }),
    ];
    run(cases);
}

#[test]
fn a_websocket_is_offered_opened_and_carried_both_ways() {
    let site = Site::start("");
    let mut client = site.client();
    assert_eq!(client.settings.get(&ENABLE_CONNECT_PROTOCOL), Some(&1), "{:?}", client.settings);
    client.head(1, &socket("/socket"), false);
    let fields = client.until("a response", |event| match event {
        Event::Headers { stream: 1, fields, is_end: false } => Some(fields.clone()),
        _ => None,
    });
    assert_eq!(fields[0], (":status".to_owned(), "200".to_owned()));
    let names: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
    assert!(!names.contains(&"sec-websocket-accept"), "{names:?}");

    for piece in ["first", "second", ""] {
        client.data(1, piece, false);
    }
    let mut echoed = Vec::new();
    while echoed != b"firstsecond" {
        let piece = client.until("bytes of the backend", |event| match event {
            Event::Data { stream: 1, bytes, is_end: false } => Some(bytes.clone()),
            _ => None,
        });
        echoed.extend(piece);
    }
    // Other streams of the connection go on beside it.
    client.get(3, &[]);
    assert_eq!(client.response(3).status, 200);
    // The end of the client's side is the end of the backend's, which ends its own.
    client.data(1, "", true);
    client.until("the end of the stream", |event| match event {
        Event::Data { stream: 1, is_end: true, .. } | Event::Reset { stream: 1, .. } => Some(()),
        _ => None,
    });
    let heads = site.received.heads.lock().unwrap().clone();
    let head = heads.iter().find(|head| head.contains("/socket")).expect("an Upgrade");
    assert!(head.starts_with("GET /socket HTTP/1.1\r\n"), "{head}");
    assert_eq!(field(head, "upgrade").map(str::to_ascii_lowercase).as_deref(), Some("websocket"), "{head}");
    assert_eq!(field(head, "sec-websocket-version"), Some("13"), "{head}");
    let key = field(head, "sec-websocket-key").expect("a key");
    assert_eq!(data_encoding::BASE64.decode(key.as_bytes()).map(|key| key.len()), Ok(16), "{head}");
    drop(client);
    site.is_at_rest();
}

#[test]
fn a_websocket_that_the_backend_refuses_or_gets_wrong_is_none() {
    let site = Site::start("");
    let mut client = site.client();
    client.head(1, &socket("/socket-refused"), false);
    assert_eq!(client.response(1).status, 403);
    client.head(3, &socket("/socket-wrong"), false);
    assert_eq!(client.response(3).status, 502, "an accept key of nothing");
    drop(client);
    site.is_at_rest();
}

#[test]
fn a_websocket_that_is_reset_is_closed_at_the_backend() {
    let site = Site::start("");
    let mut client = site.client();
    client.head(1, &socket("/socket"), false);
    client.until("a response", Event::status);
    client.reset(1, CANCEL);
    eventually("the backend's lease to be given back", || {
        let status = site.sessile.status();
        (status["pools"][0]["backends"][0]["leases"] == 0).then_some(())
    });
    client.get(3, &[]);
    assert_eq!(client.response(3).status, 200);
    drop(client);
    site.is_at_rest();
}
