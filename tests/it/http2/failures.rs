//! Streams that fail: replies of our own, responses that break off, and that no other stream notices.

use std::time::{Duration, Instant};

use super::client::{Client, Reply};
use super::site::Site;
use super::{HTTP, line_of, plain};
use crate::support::Sessile;
use crate::support::backend::pool;
use crate::support::program::free_address;
use crate::terminate::Front;

/// The line of the request that got this reply of our own, which has an id and may not be stored.
fn own_line(sessile: &Sessile, reply: &Reply) -> serde_json::Value {
    let id = reply.field("x-request-id").expect("an id").to_owned();
    assert!(reply.field("cache-control").is_some_and(|value| value.contains("no-store")), "{:?}", reply.fields);
    assert!(reply.field("connection").is_none(), "{:?}", reply.fields);
    sessile.line(&format!("the request {id}"), |line| line["request"] == *id)
}

#[test]
fn a_host_with_other_rules_of_tls_is_misdirected_and_the_connection_stays() {
    let sites = ["x", "y"].map(Site::named);
    let pools = pool("p", HTTP, &[sites[0].address()]) + &pool("q", HTTP, &[sites[1].address()]);
    let asked = "client_certificate = { ca = \"$FILES/clients.pem\", required = false }\n";
    let route = "[[listener.route]]\nsni = \"x.a.test\"\npool = \"q\"\nclient_certificate = \"off\"\n";
    let front = Front::with("", &format!("pool = \"p\"\n{asked}{route}"), &pools);
    let mut client = Client::to(&front, "x.a.test", &h2::client::Builder::new());
    assert!(client.get("/", &[]).text().starts_with("y "));
    let waiting = client.ask("/wait", &[]);
    sites[1].arrived(1);
    for authority in ["a.test", "other.a.test", "a.test:443", "x.a.test.x"] {
        client.base = format!("https://{authority}");
        let reply = client.get("/elsewhere", &[]);
        assert_eq!(reply.status, 421, "{authority}");
        let line = own_line(&front.sessile, &reply);
        assert_eq!((&line["ended"], &line["status"]), (&"misdirected".into(), &421.into()), "{line}");
    }
    for authority in ["x.a.test", "X.A.test", "x.a.test:8443"] {
        client.base = format!("https://{authority}");
        assert!(client.get("/", &[]).text().starts_with("y "), "{authority}");
    }
    sites[1].door.open();
    assert_eq!(waiting.reply().unwrap().status, 200);
    assert_eq!(sites[0].requests(), 0);
}

#[test]
fn without_a_backend_each_stream_gets_503_with_its_own_line() {
    let front = Front::start("", HTTP, &[free_address()]);
    let client = Client::with(&front);
    let streams: Vec<_> = (0..5).map(|n| client.ask(&format!("/{n}"), &[])).collect();
    for (n, stream) in streams.into_iter().enumerate() {
        let reply = stream.reply().unwrap();
        assert_eq!(reply.status, 503);
        let line = own_line(&front.sessile, &reply);
        assert_eq!((&line["path"], &line["status"]), (&format!("/{n}").into(), &503.into()), "{line}");
        assert_eq!((&line["ended"], &line["fault"]), (&"connect_refused".into(), &"backend".into()), "{line}");
    }
    assert!(client.ended().is_none(), "the connection stays");
    let head = client.begin(client.request("HEAD", "/", &[]), true).unwrap().reply().unwrap();
    assert_eq!((head.status, head.body.len()), (503, 0));
    // With a body that nobody reads.
    let mut upload = client.begin(client.request("POST", "/up", &[]), false).unwrap();
    let _ = upload.write(&vec![7; 1 << 20], true);
    assert_eq!(upload.reply().unwrap().status, 503);
    assert_eq!(client.get("/", &[]).status, 503);
}

#[test]
fn what_backends_do_wrong_is_answered_for_them_and_only_on_that_stream() {
    let site = Site::named("x");
    let front = Front::start("[limits]\nresponse_timeout = \"1s\"\n", HTTP, &[site.address()]);
    let client = Client::roomy(&front);
    let mut endless = client.ask("/endless", &[]).head().unwrap();
    endless.piece().unwrap().unwrap();
    let streams =
        [("/silent", 504, "response_timeout"), ("/nonsense", 502, "response_refused"), ("/close", 502, "response_cut")]
            .map(|(path, status, ended)| (path, status, ended, client.ask(path, &[])));
    for (path, status, ended, stream) in streams {
        let reply = stream.reply().unwrap();
        assert_eq!(reply.status, status, "{path}");
        let line = own_line(&front.sessile, &reply);
        assert_eq!((&line["ended"], &line["status"]), (&ended.into(), &status.into()), "{line}");
        assert_eq!((&line["path"], &line["backend"]), (&path.into(), &"b0".into()), "{line}");
    }
    for _ in 0..20 {
        endless.piece().unwrap().unwrap();
    }
    assert_eq!(client.get("/", &[]).status, 200);
}

#[test]
fn a_response_that_breaks_off_resets_its_stream_and_no_other() {
    let site = Site::named("x");
    let front = Front::start("", HTTP, &[site.address()]);
    let client = Client::with(&front);
    let waiting = client.ask("/wait", &[]);
    site.arrived(1);
    for path in ["/cut/length/100000", "/cut/chunked/100000", "/cut/length/1", "/cut/chunked/0"] {
        // A reset may overtake the head of a response that breaks off at once.
        let begun = client.ask(path, &[]).head().inspect(|begun| assert_eq!(begun.head.status(), 200, "{path}"));
        let error = begun.and_then(|mut begun| begun.rest()).expect_err("the response is not whole");
        assert!(error.is_reset() && error.is_remote(), "{path}: {error:?}");
        assert_ne!(error.reason(), Some(h2::Reason::NO_ERROR), "{path}");
        let line = line_of(&front.sessile, path);
        assert_eq!((&line["ended"], &line["fault"]), (&"response_cut".into(), &"backend".into()), "{line}");
        assert_eq!(client.get("/", &[]).status, 200);
    }
    site.door.open();
    assert_eq!(waiting.reply().unwrap().status, 200);
    assert!(client.ended().is_none());
}

#[test]
fn a_body_that_stops_ends_its_stream_after_body_timeout() {
    let site = Site::named("x");
    let front = Front::start("[limits]\nbody_timeout = \"1s\"\n", HTTP, &[site.address()]);
    let client = Client::with(&front);
    // Of the backend.
    let began = Instant::now();
    let mut begun = client.ask("/half/30", &[]).head().unwrap();
    let error = begun.rest().expect_err("the response is not whole");
    assert!(error.is_reset() && began.elapsed() >= Duration::from_millis(900), "{error:?}");
    assert_eq!(line_of(&front.sessile, "/half/30")["ended"], "body_timeout");
    // Of the client.
    let began = Instant::now();
    let mut upload = client.begin(client.request("POST", "/up", &[("content-length", "10")]), false).unwrap();
    upload.write(b"half!", false).unwrap();
    match upload.reply() {
        Ok(reply) => assert_eq!(reply.status, 408),
        Err(error) => assert!(error.is_reset(), "{error:?}"),
    }
    assert!(began.elapsed() >= Duration::from_millis(900));
    let line = line_of(&front.sessile, "/up");
    assert!(line["ended"] == "body_timeout" || line["ended"] == "request_timeout", "{line}");
    assert_eq!(client.get("/", &[]).status, 200);
}

#[test]
fn a_head_that_is_too_long_gets_its_status_and_its_line() {
    let site = Site::named("x");
    let sessile = plain("", HTTP, &[site.address()]);
    let client = Client::plain(sessile.address("l"));
    let names: Vec<_> = (0..200).map(|n| format!("x-{n}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "y")).collect();
    let value = "v".repeat(10_000);
    let long: Vec<_> = names.iter().take(4).map(|name| (name.as_str(), value.as_str())).collect();
    let path = format!("/{}", "p".repeat(9_000));
    for (what, path, fields, status) in [
        ("many fields", "/", &many[..], 431),
        ("long fields", "/", &long[..], 431),
        ("a long path", path.as_str(), &[], 414),
    ] {
        let reply = client.get(path, fields);
        assert_eq!(reply.status, status, "{what}");
        let id = reply.field("x-request-id").unwrap_or_else(|| panic!("{what}: no id")).to_owned();
        let line = sessile.line(what, |line| line["request"] == *id);
        assert_eq!((&line["ended"], &line["status"]), (&"request_refused".into(), &status.into()), "{line}");
        assert_eq!(client.get("/", &[]).status, 200, "after {what}");
    }
    assert_eq!(site.requests(), 3);
}

#[test]
fn a_kept_connection_that_its_backend_closes_is_replaced() {
    let site = Site::named("x");
    let front = Front::start("", HTTP, &[site.address()]);
    let client = Client::with(&front);
    for _ in 0..10 {
        // The connection is kept, and the backend closes it behind the next request.
        assert_eq!(client.get("/", &[]).status, 200);
        assert_eq!(client.get("/down/close/10", &[]).body.len(), 10);
    }
}

#[test]
fn a_panic_of_no_stream_is_seen_and_the_process_serves_on() {
    let site = Site::named("x");
    let front = Front::start("", HTTP, &[site.address()]);
    let client = Client::with(&front);
    // Streams that are given up at every moment, one after the other and together.
    for round in 0..150 {
        if round % 15 == 0 {
            assert_eq!(client.get("/", &[]).status, 200);
        }
        let mut exchange = client.begin(client.request("POST", "/up", &[]), false).unwrap();
        if round % 3 == 0 {
            let _ = exchange.write(&[7; 5_000], round % 2 == 0);
        }
        if round % 5 != 0 {
            exchange.reset();
        }
    }
    assert_eq!(client.get("/", &[]).status, 200);
    assert_eq!(front.sessile.sum("sessile_connections_ended_total", &["outcome=\"panicked\""]), 0.0);
    assert!(!front.sessile.said().contains("panicked"), "{}", front.sessile.said());
}
