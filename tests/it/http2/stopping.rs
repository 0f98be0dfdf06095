//! What ends connections from outside: a stop, an upgrade, a reload, a listener that is removed.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::HTTP;
use super::client::Client;
use super::site::Site;
use crate::support::backend::{listener, pool};
use crate::support::{Sessile, eventually};
use crate::terminate::{Front, config};

/// Waits until the connection takes no more requests, each of which was served before.
fn until_goaway(client: &Client, status: u16) {
    eventually("GOAWAY", || {
        let answered = client.begin(client.request("GET", "/more", &[]), true).and_then(|exchange| exchange.reply());
        match answered {
            Ok(reply) => {
                assert_eq!(reply.status, status);
                None
            }
            Err(error) => {
                assert!(error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR), "{error:?}");
                Some(())
            }
        }
    });
}

#[test]
fn a_stop_lets_a_long_stream_finish_and_ends_the_connection_without_an_error() {
    let site = Site::named("x");
    let mut front = Front::start("", HTTP, &[site.address()]);
    let (busy, idle) = (Client::with(&front), Client::with(&front));
    assert_eq!(idle.get("/", &[]).status, 200);
    let mut upload = busy.begin(busy.request("POST", "/up", &[]), false).unwrap();
    upload.write(b"hel", false).unwrap();
    let waiting = busy.ask("/wait", &[]);
    site.arrived(1);
    front.sessile.signal(Signal::TERM);
    idle.wait().unwrap();
    until_goaway(&busy, 200);
    eventually("the listener to close", || TcpStream::connect(front.address()).err());
    upload.write(b"lo", true).unwrap();
    assert!(upload.reply().unwrap().text().starts_with("5 "));
    site.door.open();
    assert_eq!(waiting.reply().unwrap().status, 200);
    busy.wait().unwrap();
    assert!(front.sessile.wait().success());
    for path in ["/up", "/wait"] {
        assert_eq!(super::line_of(&front.sessile, path)["ended"], "done", "{path}");
    }
}

#[test]
fn a_stream_that_does_not_finish_is_ended_at_the_stop_deadline() {
    let site = Site::named("x");
    let mut front = Front::start("stop_deadline = \"1s\"\n", HTTP, &[site.address()]);
    let client = Client::with(&front);
    let waiting = client.ask("/wait", &[]);
    site.arrived(1);
    let began = Instant::now();
    front.sessile.signal(Signal::TERM);
    assert!(waiting.reply().is_err());
    assert!(front.sessile.wait().success());
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(6), "{took:?}");
    assert_eq!(super::line_of(&front.sessile, "/wait")["ended"], "stopped");
}

#[test]
fn an_upgrade_moves_clients_by_goaway_and_finishes_what_runs() {
    let site = Site::named("x");
    let mut front = Front::start("", HTTP, &[site.address()]);
    let client = Client::with(&front);
    let waiting = client.ask("/wait", &[]);
    site.arrived(1);
    let before = front.sessile.pid();
    let verdict = front.sessile.upgrade(None);
    assert_eq!(verdict["accepted"], true, "{verdict}");
    until_goaway(&client, 200);
    for _ in 0..5 {
        assert_eq!(Client::with(&front).get("/", &[]).status, 200, "the new process serves");
    }
    site.door.open();
    assert_eq!(waiting.reply().unwrap().status, 200);
    client.wait().unwrap();
    front.sessile.gone(before);
    assert_eq!(Client::with(&front).get("/", &[]).status, 200);
}

#[test]
fn a_reload_that_changes_the_tls_of_a_route_ends_its_connections_by_421_and_goaway() {
    let site = Site::named("x");
    let pools = pool("p", HTTP, &[site.address()]);
    let route = "[[listener.route]]\nsni = \"x.a.test\"\npool = \"p\"\n";
    let policy = "client_certificate = { ca = \"$FILES/clients.pem\", required = true }\n";
    let keys = format!("pool = \"p\"\n{route}");
    let front = Front::with("", &keys, &pools);
    let to = |name: &str| Client::to(&front, name, &h2::client::Builder::new());
    let (changes, stays) = (to("x.a.test"), to("a.test"));
    assert_eq!((changes.get("/", &[]).status, stays.get("/", &[]).status), (200, 200));
    let waiting = changes.ask("/wait", &[]);
    site.arrived(1);
    let verdict = front.sessile.reload(&config(&front.dir, "", &format!("{keys}{policy}"), &pools));
    assert_eq!(verdict["accepted"], true, "{verdict}");
    until_goaway(&changes, 421);
    assert_eq!(stays.get("/", &[]).status, 200);
    site.door.open();
    assert_eq!(waiting.reply().unwrap().status, 200, "what was placed before is finished");
    changes.wait().unwrap();
    assert!(!site.connections().iter().flatten().any(|path| path == "/more"));
    assert_eq!(stays.get("/", &[]).status, 200);
    assert!(stays.ended().is_none());
}

#[test]
fn a_reload_that_changes_no_tls_changes_no_connection() {
    let sites = ["x", "y"].map(Site::named);
    let front = Front::start("", HTTP, &[sites[0].address()]);
    let client = Client::with(&front);
    assert!(client.get("/", &[]).text().starts_with("x "));
    let moved = pool("p", HTTP, &[sites[1].address()]).replace("\"b0\"", "\"c0\"");
    let waiting = client.ask("/wait", &[]);
    sites[0].arrived(1);
    let verdict = front.sessile.reload(&config(&front.dir, "", "pool = \"p\"\n", &moved));
    assert_eq!(verdict["accepted"], true, "{verdict}");
    assert!(client.get("/", &[]).text().starts_with("y "), "a stream follows the table in force");
    sites[0].door.open();
    assert!(waiting.reply().unwrap().text().starts_with("x "));
    assert!(client.ended().is_none());
}

#[test]
fn http2_false_after_a_reload_holds_for_new_connections() {
    let site = Site::named("x");
    let pools = pool("p", HTTP, &[site.address()]);
    let front = Front::with("", "pool = \"p\"\n", &pools);
    let client = Client::with(&front);
    assert_eq!(client.get("/", &[]).status, 200);
    let verdict = front.sessile.reload(&config(&front.dir, "", "pool = \"p\"\nhttp2 = false\n", &pools));
    assert_eq!(verdict["accepted"], true, "{verdict}");
    assert!(super::client::negotiate(&front, "a.test", &["h2"]).is_err());
    // What is open is served on, or ends in the proper way.
    let answered = client.begin(client.request("GET", "/", &[]), true).and_then(|exchange| exchange.reply());
    assert!(answered.map_or_else(|error| error.is_go_away(), |reply| [200, 421].contains(&reply.status)));
}

#[test]
fn a_listener_that_is_removed_finishes_its_streams() {
    let site = Site::named("x");
    let pools = pool("p", HTTP, &[site.address()]);
    let stays = listener("p", "") + &pools;
    let goes = listener("p", "").replace("\"l\"", "\"goes\"");
    let sessile = Sessile::start(&(goes + &stays));
    let (client, other) = (Client::plain(sessile.address("goes")), Client::plain(sessile.address("l")));
    let waiting = client.ask("/wait", &[]);
    site.arrived(1);
    let verdict = sessile.reload(&stays);
    assert_eq!(verdict["accepted"], true, "{verdict}");
    until_goaway(&client, 200);
    site.door.open();
    assert_eq!(waiting.reply().unwrap().status, 200);
    client.wait().unwrap();
    assert_eq!(other.get("/", &[]).status, 200);
    assert!(other.ended().is_none());
}

#[test]
fn a_drain_of_a_backend_ends_no_connection() {
    let sites = ["x", "y"].map(Site::named);
    let options = format!("{}drain_deadline = \"0s\"\ndrain_over = \"1s\"\n", super::INSERT);
    let front = Front::start("", &options, &sites.each_ref().map(Site::address));
    let client = Client::with(&front);
    let first = client.get("/", &[]);
    let cookie = first.cookie().unwrap();
    let home = usize::from(first.text().starts_with("y "));
    let answer = crate::support::http::unix_post(&front.sessile.admin(), &format!("/backends/p/b{home}/drain"));
    assert_eq!(answer.map(|answer| answer.0), Some(200));
    let moved = eventually("the client to move", || {
        let reply = client.get("/", &[("cookie", &cookie)]);
        assert_eq!(reply.status, 200);
        (reply.text()[..1] != first.text()[..1]).then_some(reply)
    });
    assert!(moved.cookie().is_some(), "a cookie for the new backend");
    std::thread::sleep(Duration::from_millis(1_200));
    assert!(client.ended().is_none());
    assert_eq!(client.get("/", &[]).status, 200);
}
