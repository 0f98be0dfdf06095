//! Session ids in a header field, as an MCP server gives them out: learned, followed, ended.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use crate::http2::client::Client;
use crate::support::program::output;
use crate::support::{eventually, has};
use crate::terminate::Front;
use crate::terminate::backend::Recorder;
use crate::terminate::client::{Response, Talk};
use crate::terminate::programs::{base, curl};

/// A server with sessions in its memory: a POST without an id begins one, DELETE ends it, an id that is not here is a 404.
fn server(name: &'static str, ids: &Arc<AtomicUsize>) -> Recorder {
    let (ids, here) = (Arc::clone(ids), Mutex::new(HashSet::new()));
    Recorder::answering(name, move |head| {
        let lines: Vec<_> = head.lines().collect();
        let id = lines.iter().find_map(|line| {
            let (known, value) = line.split_once(": ")?;
            known.eq_ignore_ascii_case("mcp-session-id").then(|| value.to_owned())
        });
        let mut here = here.lock().unwrap();
        let (status, field) = match (id, head.split(' ').next().unwrap()) {
            (None, "POST") => {
                let id = format!("id-{}", ids.fetch_add(1, Relaxed));
                here.insert(id.clone());
                ("200 OK", format!("Mcp-Session-Id: {id}\r\n"))
            }
            (Some(id), "DELETE") if here.remove(&id) => ("200 OK", String::new()),
            (Some(id), _) if !here.contains(&id) => ("404 Not Found", String::new()),
            // Some servers send the id with every response.
            (Some(id), _) => ("200 OK", format!("mcp-session-id: {id}\r\n")),
            (None, _) => ("200 OK", String::new()),
        };
        let length = name.len();
        Some(format!("HTTP/1.1 {status}\r\n{field}Content-Length: {length}\r\n\r\n{name}").into_bytes())
    })
}

struct Site {
    front: Front,
    _servers: [Recorder; 4],
}

impl Site {
    fn start(more: &str) -> Self {
        let ids = Arc::default();
        let servers = ["w", "x", "y", "z"].map(|name| server(name, &ids));
        let addresses: Vec<SocketAddr> = servers.iter().map(Recorder::address).collect();
        let cookie = format!("cookie = {{ mode = \"learn\", header = \"Mcp-Session-Id\"{more} }}\n");
        let front = Front::start("", &format!("http = true\nbalance = \"round_robin\"\n{cookie}"), &addresses);
        Self { front, _servers: servers }
    }

    /// Number of values in the stick table.
    fn known(&self) -> u64 {
        self.front.sessile.json("/stick-table")[0]["known"].as_u64().expect("a number")
    }
}

fn ask<S: Read + Write>(talk: &mut Talk<S>, method: &str, id: Option<&str>) -> Response {
    let field = id.map_or(String::new(), |id| format!("MCP-SESSION-ID: {id}\r\n"));
    let length = if method == "POST" { "Content-Length: 0\r\n" } else { "" };
    talk.send(format!("{method} /mcp HTTP/1.1\r\nHost: a.test\r\n{length}{field}\r\n"));
    talk.response_to(method).expect("a response")
}

/// Begins a session; its id and its backend.
fn begin<S: Read + Write>(talk: &mut Talk<S>) -> (String, String) {
    let response = ask(talk, "POST", None);
    (response.field("mcp-session-id").expect("an id").to_owned(), response.text())
}

#[test]
fn every_request_of_a_session_goes_to_the_server_that_began_it() {
    let site = Site::start("");
    let mut talk = Talk::with(&site.front);
    // Many agents behind one connection.
    let sessions: Vec<_> = (0..12).map(|_| begin(&mut talk)).collect();
    assert_eq!(sessions.iter().map(|(_, home)| home).collect::<HashSet<_>>().len(), 4);
    assert_eq!(site.known(), 12);
    let client = Client::with(&site.front);
    for (id, home) in sessions.iter().rev() {
        let response = ask(&mut talk, "GET", Some(id));
        assert_eq!((response.status, &response.text()), (200, home));
        let reply = client.get("/mcp", &[("mcp-session-id", id)]);
        assert_eq!((reply.status, &reply.text()), (200, home), "HTTP/2");
    }
    let by_id = |line: &serde_json::Value| line["reason"] == "cookie" && line["cookie"] == "fresh";
    eventually("a line of each request that obeyed its id", || {
        (site.front.requests().into_iter().filter(by_id).count() == 24).then_some(())
    });
}

#[test]
fn requests_without_an_id_are_placed_one_by_one_on_http2_too() {
    let site = Site::start("");
    let client = Client::with(&site.front);
    let homes: HashSet<_> = (0..8).map(|_| client.get("/mcp", &[]).text()).collect();
    assert_eq!(homes.len(), 4, "{homes:?}");
}

#[test]
fn a_session_ends_with_a_delete_and_not_with_a_404_unless_asked() {
    for (more, after_404) in [("", 1), (", end_on_404 = true", 0)] {
        let site = Site::start(more);
        let mut talk = Talk::with(&site.front);
        let (first, home) = begin(&mut talk);
        let (second, _) = begin(&mut talk);
        assert_eq!(site.known(), 2);
        let response = ask(&mut talk, "DELETE", Some(&first));
        assert_eq!((response.status, response.text()), (200, home));
        eventually("the end of the first session", || (site.known() == 1).then_some(()));
        // A second DELETE is answered by a 404, and so ends nothing by itself.
        let foreign = format!("{second}x");
        assert_eq!(ask(&mut talk, "DELETE", Some(&foreign)).status, 404);
        eventually("what a 404 leaves", || (site.known() == 1 + after_404).then_some(()));
        assert_eq!(ask(&mut talk, "GET", Some(&second)).status, 200);
    }
}

#[test]
fn curl_follows_its_session_over_both_protocols() {
    if !has("curl_follows_its_session_over_both_protocols", "curl") {
        return;
    }
    let site = Site::start("");
    let url = format!("{}/mcp", base(&site.front));
    for http in ["--http1.1", "--http2"] {
        for _ in 0..5 {
            let begun = output(curl(&site.front).args([http, "--include", "-X", "POST", "-d", "", &url]));
            let (head, home) = begun.rsplit_once("\r\n\r\n").expect("a head and a body");
            let fields = head.lines().filter_map(|line| line.split_once(": "));
            let id = fields.filter(|(name, _)| name.eq_ignore_ascii_case("mcp-session-id")).map(|(_, id)| id).next();
            let field = format!("Mcp-Session-Id: {}", id.expect("an id"));
            for again in ["--http2", "--http1.1"] {
                assert_eq!(output(curl(&site.front).args([again, "-H", &field, &url])), home);
            }
        }
    }
}
