//! Heads of requests and responses, interim responses and trailers.

use super::client::{Client, only};
use super::site::{Site, verdict};
use super::{HTTP, plain};
use crate::terminate::Front;

#[test]
fn the_head_of_a_request_reaches_the_backend_as_one_of_http_1_1() {
    let site = Site::named("x");
    let front = Front::start("", HTTP, &[site.address()]);
    let client = Client::with(&front);
    let fields = [
        ("cookie", "a=1"),
        ("cookie", "b=2; c=3"),
        ("cookie", "d=4"),
        ("accept", "text/plain"),
        ("x-twice", "one"),
        ("x-twice", "two"),
        ("x-empty", ""),
        ("x-forwarded-for", "1.2.3.4"),
        ("x-forwarded-proto", "http"),
        ("te", "trailers"),
    ];
    let text = client.get("/path/%20x?query=1&a=b", &fields).text();
    let head = text.split_once('\n').unwrap().1;
    assert!(head.starts_with("GET /path/%20x?query=1&a=b HTTP/1.1\r\n"), "{head}");
    let all = |name: &str| -> Vec<String> {
        let values = head.lines().filter_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        });
        values.collect()
    };
    assert_eq!(all("host"), ["a.test"], "{head}");
    assert_eq!(all("cookie"), ["a=1; b=2; c=3; d=4"], "{head}");
    assert_eq!(all("accept"), ["text/plain"], "{head}");
    assert!(all("x-twice") == ["one", "two"] || all("x-twice") == ["one, two"], "{head}");
    assert_eq!(all("x-empty"), [""], "{head}");
    assert_eq!(all("x-forwarded-for"), ["127.0.0.1"], "{head}");
    assert_eq!((all("x-forwarded-proto"), all("x-forwarded-host")), (vec!["https".into()], vec!["a.test".into()]));
    assert!(all("forwarded").len() <= 1 && !head.contains("1.2.3.4"), "{head}");
    for name in [":authority", ":path", "http2-settings", "transfer-encoding", "content-length"] {
        assert!(all(name).is_empty(), "{name}: {head}");
    }
    let connection = all("connection").join(",").to_ascii_lowercase();
    assert!(!connection.contains("close") && !connection.contains("upgrade"), "{head}");
}

#[test]
fn a_request_in_the_clear_says_so_and_has_the_port_of_its_authority() {
    let site = Site::named("x");
    let sessile = plain("", HTTP, &[site.address()]);
    let mut client = Client::plain(sessile.address("l"));
    client.base = "http://other.test:8080".to_owned();
    let text = client.get("/", &[]).text();
    assert!(text.contains("\r\nHost: other.test:8080\r\n") || text.contains("\r\nhost: other.test:8080\r\n"), "{text}");
    assert!(text.contains("X-Forwarded-Proto: http\r\n"), "{text}");
    assert!(text.contains("X-Forwarded-Host: other.test:8080\r\n"), "{text}");
    assert_eq!(text.to_ascii_lowercase().matches("\r\nhost: ").count(), 1, "{text}");
}

#[test]
fn a_response_has_nothing_that_is_about_the_backends_connection() {
    let site = Site::named("x");
    let front = Front::start("", HTTP, &[site.address()]);
    let client = Client::with(&front);
    let reply = client.get("/hops", &[]);
    assert_eq!((reply.status, reply.text().as_str()), (200, "ok"));
    for name in ["connection", "keep-alive", "transfer-encoding", "proxy-connection", "upgrade", "x-hop"] {
        assert_eq!(reply.field(name), None, "{:?}", reply.fields);
    }
    assert_eq!(reply.field("x-stays"), Some("Yes"), "{:?}", reply.fields);
    let cookies: Vec<_> = reply.fields.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["A=1", "B=2"]);
}

#[test]
fn early_hints_reach_the_client_before_the_response() {
    let site = Site::named("x");
    let front = Front::start("", HTTP, &[site.address()]);
    let reply = Client::with(&front).get("/early", &[]);
    assert_eq!((reply.status, reply.text().as_str()), (200, "ok"));
    let [hint] = &reply.early[..] else { panic!("{:?}", reply.early) };
    assert_eq!(hint.status(), 103);
    assert_eq!(only(hint.headers(), "link"), Some("</style.css>; rel=preload"));
}

#[test]
fn a_client_that_expects_100_gets_it_from_the_backend_and_then_sends_its_body() {
    let site = Site::named("x");
    let front = Front::start("", HTTP, &[site.address()]);
    let client = Client::with(&front);
    for fields in [&[("expect", "100-continue"), ("content-length", "5")][..], &[("expect", "100-continue")]] {
        let mut exchange = client.begin(client.request("PUT", "/up", fields), false).unwrap();
        let hint = exchange.early().expect("103").unwrap();
        assert_eq!(hint.status(), 103);
        let go = exchange.early().expect("100").unwrap();
        assert_eq!(go.status(), 100);
        exchange.write(b"hello", true).unwrap();
        let reply = exchange.reply().unwrap();
        assert!(reply.status == 200 && reply.text().starts_with(&verdict(b"hello")), "{reply:?}");
    }
}

#[test]
fn trailers_of_a_response_reach_the_client() {
    let site = Site::named("x");
    let front = Front::start("", HTTP, &[site.address()]);
    let client = Client::with(&front);
    for fields in [&[("te", "trailers")][..], &[]] {
        let reply = client.get("/trailers", fields);
        assert_eq!((reply.status, reply.text().as_str()), (200, "hello"));
        let trailers = reply.trailers.expect("trailers");
        assert_eq!((only(&trailers, "x-sum"), only(&trailers, "x-more")), (Some("7"), Some("yes")));
    }
}

#[test]
fn trailers_of_a_request_reach_the_backend() {
    let site = Site::named("x");
    let front = Front::start("", HTTP, &[site.address()]);
    let client = Client::with(&front);
    let mut exchange = client.begin(client.request("POST", "/up", &[("trailer", "x-sum")]), false).unwrap();
    exchange.write(b"hello", false).unwrap();
    exchange.trailers(&[("x-sum", "7"), ("x-more", "yes")]).unwrap();
    assert_eq!(exchange.reply().unwrap().status, 200);
    let body = site.upload();
    assert_eq!((body.length, body.chunked), (5, true));
    let trailers: Vec<_> = body.trailers.iter().map(|line| line.to_ascii_lowercase()).collect();
    assert_eq!(trailers, ["x-sum: 7", "x-more: yes"]);
    // Trailers without a body.
    let mut exchange = client.begin(client.request("POST", "/up", &[]), false).unwrap();
    exchange.trailers(&[("x-sum", "0")]).unwrap();
    assert_eq!(exchange.reply().unwrap().status, 200);
    assert_eq!(site.upload().trailers.len(), 1);
}

#[test]
fn a_response_before_the_end_of_its_request_reaches_the_client() {
    let site = Site::named("x");
    let front = Front::start("", HTTP, &[site.address()]);
    let client = Client::with(&front);
    // The backend closes without reading the body.
    let mut refused = client.begin(client.request("POST", "/refuse", &[]), false).unwrap();
    refused.write(&[7; 10_000], false).unwrap();
    let mut begun = refused.head().unwrap();
    assert_eq!((begun.head.status().as_u16(), begun.rest().unwrap()), (413, b"no!".to_vec()));
    // It responds, and then reads the body.
    let mut early = client.begin(client.request("POST", "/eager", &[]), false).unwrap();
    early.write(b"before, ", false).unwrap();
    let mut begun = early.head().unwrap();
    assert_eq!((begun.head.status().as_u16(), begun.rest().unwrap()), (202, b"ok".to_vec()));
    assert_eq!(client.get("/after", &[]).status, 200);
}

#[test]
fn a_client_that_sends_everything_before_it_reads_gets_an_early_response() {
    let site = Site::named("x");
    let front = Front::start("", HTTP, &[site.address()]);
    let client = Client::with(&front);
    let mut refused = client.begin(client.request("POST", "/refuse", &[]), false).unwrap();
    // More than the windows: what is left is taken, or refused by a reset without an error (RFC 9113 section 8.1).
    let sent = refused.write(&vec![7; 4 << 20], true);
    let is_proper =
        |error: &h2::Error| [h2::Reason::NO_ERROR, h2::Reason::STREAM_CLOSED].map(Some).contains(&error.reason());
    assert!(sent.as_ref().err().is_none_or(is_proper), "{sent:?}");
    let reply = refused.reply().unwrap();
    assert_eq!((reply.status, reply.text().as_str()), (413, "no!"));
    assert_eq!(client.get("/after", &[]).status, 200);
}

#[test]
fn long_heads_pass_in_both_directions() {
    let site = Site::named("x");
    let front = Front::start("", HTTP, &[site.address()]);
    let client = Client::with(&front);
    // Longer than one frame.
    let long = "v".repeat(6_000);
    let names: Vec<_> = (0..4).map(|n| format!("x-long-{n}")).collect();
    let fields: Vec<_> = names.iter().map(|name| (name.as_str(), long.as_str())).collect();
    for _ in 0..3 {
        let text = client.get("/", &fields).text();
        let lower = text.to_ascii_lowercase();
        assert!(names.iter().all(|name| lower.contains(&format!("\r\n{name}: {long}\r\n"))), "{}", text.len());
    }
}
